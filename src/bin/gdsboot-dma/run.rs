//! The worker's conversation with the validator, as [`gdsboot::bench::worker`] says.

use crate::cuda::{Cuda, Device};
use crate::cufile::Lib;
use crate::nvml::Nvml;
use crate::transfers::{self, Tools};
use crate::watch::Watcher;
use gdsboot::bench::worker::{Answer, Cufile, Engine, Failure, Gpu, Line, Request, Task, VERSION};
use nix::unistd::{dup, dup2_stdout};
use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, BufRead as _, Write as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::process::ExitCode;

/// Answers requests until there are no more.
pub fn main() -> ExitCode {
    match Answers::new().and_then(converse) {
        Ok(()) => leave(),
        Err(error) => {
            eprintln!("gdsboot-dma: error: {error}");
            ExitCode::from(69)
        }
    }
}

/// Ends without the destructors of the libraries: libcufile's were seen to crash after everything was done.
#[allow(unsafe_code, reason = "exit handlers are not to run")]
fn leave() -> ! {
    // SAFETY: what had to be written was; a thread that NVML has not let go ends with the process.
    unsafe { libc::_exit(0) }
}

/// Where the answers go.
struct Answers {
    to: RefCell<File>,
    id: Cell<u64>,
}

impl Answers {
    /// Takes standard output for itself, and leaves libraries standard error in its place.
    fn new() -> io::Result<Self> {
        let to = File::from(dup(io::stdout())?);
        // Programs that a library starts are not to hold it open.
        nix::fcntl::fcntl(&to, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
        dup2_stdout(io::stderr())?;
        Ok(Self { to: RefCell::new(to), id: Cell::new(0) })
    }

    fn say(&self, body: Answer) -> io::Result<()> {
        let mut line = serde_json::to_vec(&Line { v: VERSION, id: self.id.get(), body })?;
        line.push(b'\n');
        self.to.borrow_mut().write_all(&line)
    }

    /// Says what is called next. Nobody is left to be told where the validator is gone.
    fn calling(&self, function: &str) {
        let _ = self.say(Answer::Calling { function: function.to_owned() });
    }
}

/// The libraries that know GPUs.
struct Gpus {
    cuda: Cuda,
    nvml: Result<Nvml, Failure>,
    /// Watches the GPU that is open.
    watcher: Option<Watcher>,
}

/// What has been loaded and opened so far.
#[derive(Default)]
struct Open {
    gpus: Option<Gpus>,
    cufile: Option<Lib>,
}

fn converse(answers: Answers) -> io::Result<()> {
    let mut open = Open::default();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (id, request) = match serde_json::from_str::<Line<Request>>(&line) {
            Ok(line) if line.v == VERSION => (line.id, Ok(line.body)),
            Ok(line) => (line.id, Err(because(format!("version {}, not {VERSION}", line.v)))),
            Err(error) => (0, Err(because(format!("no request: {error}")))),
        };
        answers.id.set(id);
        let closes = request == Ok(Request::Close);
        let answer = request.and_then(|request| open.answer(&answers, request));
        answers.say(answer.unwrap_or_else(Answer::Failed))?;
        if closes {
            break;
        }
    }
    Ok(())
}

impl Open {
    fn answer(&mut self, answers: &Answers, request: Request) -> Result<Answer, Failure> {
        match request {
            Request::ListGpus => self.list_gpus(answers).map(|gpus| Answer::Gpus { gpus }),
            Request::OpenGpu { index } => self.open_gpu(answers, index).map(Answer::Gpu),
            Request::OpenCufile => self.open_cufile(answers).map(Answer::Cufile),
            Request::Run(task) => {
                let Gpus { cuda, watcher, .. } = self.gpu()?;
                let file = file(&task)?;
                let calling = |function: &str| answers.calling(function);
                let (cufile, watcher) = (self.cufile.as_ref(), watcher.as_ref());
                let tools = Tools { cuda, cufile, watcher, file: &file, calling: &calling };
                transfers::run(&tools, &task).map(|ran| Answer::Ran(Box::new(ran)))
            }
            Request::Close => {
                if let Some(lib) = self.cufile.take() {
                    answers.calling("cuFileDriverClose");
                    lib.close()?;
                }
                Ok(Answer::Closed)
            }
        }
    }

    /// Loads libcuda and NVML, once.
    fn load(&mut self, answers: &Answers) -> Result<&mut Gpus, Failure> {
        let gpus = match self.gpus.take() {
            Some(gpus) => gpus,
            None => {
                answers.calling("libcuda.so.1");
                let cuda = Cuda::load()?;
                answers.calling("cuInit");
                cuda.init()?;
                answers.calling("libnvidia-ml.so.1");
                Gpus { cuda, nvml: Nvml::open(), watcher: None }
            }
        };
        Ok(self.gpus.insert(gpus))
    }

    fn list_gpus(&mut self, answers: &Answers) -> Result<Vec<Gpu>, Failure> {
        let gpus = self.load(answers)?;
        answers.calling("cuDeviceGet");
        (0..gpus.cuda.count()?).map(|index| Ok(gpus.describe(gpus.cuda.device(index)?))).collect()
    }

    fn open_gpu(&mut self, answers: &Answers, index: u32) -> Result<Gpu, Failure> {
        if self.gpu().is_ok() {
            return Err(because("a GPU is open already".into()));
        }
        let gpus = self.load(answers)?;
        let device = gpus.cuda.device(index)?;
        answers.calling("cuDevicePrimaryCtxRetain");
        gpus.cuda.open(&device)?;
        let gpu = gpus.describe(device);
        gpus.watcher = gpus.nvml.as_ref().ok().map(|nvml| Watcher::new(*nvml, gpu.pci.clone()));
        Ok(gpu)
    }

    /// Those that know GPUs, where one is open.
    fn gpu(&self) -> Result<&Gpus, Failure> {
        let open = self.gpus.as_ref().filter(|gpus| gpus.cuda.is_open());
        open.ok_or_else(|| because("no GPU was opened".into()))
    }

    fn open_cufile(&mut self, answers: &Answers) -> Result<Cufile, Failure> {
        let cuda = &self.gpu()?.cuda;
        answers.calling("libcufile.so.0");
        let lib = Lib::load()?;
        let mut cufile = Cufile { simulated: lib.simulated || cuda.simulated, ..Cufile::default() };
        let failures = &mut cufile.failures;
        cufile.version = lib.version().map_err(|failure| failures.push(failure)).ok();
        let chosen = lib.choose_counters();
        answers.calling("cuFileDriverOpen");
        lib.open()?;
        match lib.driver() {
            Ok(driver) => {
                cufile.compat_allowed = Some(driver.compat_allowed);
                cufile.nvidia_fs = Some(driver.nvidia_fs);
            }
            Err(failure) => failures.push(failure),
        }
        cufile.p2p_flags = lib.p2p_flags().map_err(|failure| failures.push(failure)).ok();
        match chosen.or_else(|_| lib.choose_counters()).and_then(|()| lib.start_counters()) {
            Ok(()) => cufile.counts = true,
            Err(failure) => failures.push(failure),
        }
        self.cufile = Some(lib);
        Ok(cufile)
    }
}

impl Gpus {
    /// What both libraries say of a device.
    fn describe(&self, device: Device) -> Gpu {
        let mut failures = Vec::new();
        let mut gpu = Gpu {
            name: device.name,
            uuid: format!("GPU-{}", uuid::Uuid::from_bytes(device.uuid)),
            pci: device.pci,
            memory: device.memory,
            simulated: self.cuda.simulated,
            ..Gpu::default()
        };
        gpu.cuda_version = self.cuda.version().map_err(|failure| failures.push(failure)).ok();
        match &self.nvml {
            Ok(nvml) => {
                gpu.simulated |= nvml.simulated;
                gpu.driver_version = nvml.driver_version().map_err(|failure| failures.push(failure)).ok();
                let bar1 = nvml.device(&gpu.pci).and_then(|device| device.bar1());
                gpu.bar1 = bar1.map_err(|failure| failures.push(failure)).ok();
            }
            Err(failure) => failures.push(failure.clone()),
        }
        Gpu { failures, ..gpu }
    }
}

/// The task's file, by the descriptor that this process was started with.
fn file(task: &Task) -> Result<File, Failure> {
    if task.engine == Engine::HostCopy {
        return File::open("/dev/null").map_err(|error| because(error.to_string()));
    }
    let file = inherited(task.file).map_err(|error| because(format!("descriptor {}: {error}", task.file)))?;
    let flags = nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_GETFL);
    match flags {
        Ok(flags) if flags & libc::O_DIRECT != 0 => Ok(file),
        // cuFile would take the way by the CPU without a word.
        Ok(_) => Err(because(format!("descriptor {} was opened without O_DIRECT", task.file))),
        Err(errno) => Err(because(format!("descriptor {}: {errno}", task.file))),
    }
}

/// A copy of a descriptor of this process.
#[allow(unsafe_code, reason = "a number becomes a descriptor")]
fn inherited(number: RawFd) -> io::Result<File> {
    if number <= io::stderr().as_raw_fd() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: duplicating takes any number, and refuses those that are no descriptor.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the copy is new and belongs to nobody else.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(copy) })
}

fn because(text: String) -> Failure {
    Failure { text, ..Failure::default() }
}
