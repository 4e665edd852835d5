use super::*;
use crate::bench::gdsio::command::Way;
use crate::bench::transfer::job::{Direction, Order};
use crate::bench::worker::settings::Wanted;
use std::fs::OpenOptions;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

const SETTINGS: CufileSettings = CufileSettings { wanted: Wanted::Any, compat: false };
const LIMIT: Duration = Duration::from_secs(30);
const SHAPE: Shape = Shape {
    way: Way::Gpud,
    direction: Direction::Read,
    order: Order::Sequential,
    bytes: 64 << 20,
    block: 1 << 20,
    threads: 2,
    seconds: 2,
};

/// A run of `tests/gdsio`.
fn captured(name: &str) -> Ended {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gdsio").join(name).with_extension("txt");
    let text = fs_err::read_to_string(path).unwrap();
    let status = text.lines().nth(1).unwrap().strip_prefix("status ").unwrap();
    let status = (status != "killed").then(|| ExitStatus::from_raw(status.parse::<i32>().unwrap() << 8));
    let stream = |number: &str| -> String {
        let lines = text.lines().skip(2).filter_map(|line| line.strip_prefix(number));
        lines.map(|line| format!("{line}\n")).collect()
    };
    Ended { status, stdout: stream("1 "), stderr: stream("2 "), took: Duration::from_secs(2) }
}

fn judged(name: &str, shape: &Shape) -> (GdsioRun, Option<String>) {
    let ended = captured(name);
    let run = GdsioRun::parse("gdsio", ended.stdout.lines().chain(ended.stderr.lines()));
    let error = no_measurement(&ended, LIMIT, &run, shape);
    (run, error)
}

#[test]
fn what_gdsio_measured_is_read() {
    let bounce = Shape { way: Way::CpuGpu, direction: Direction::Write, ..SHAPE };
    let random = Shape { way: Way::CpuOnly, order: Order::Random, ..SHAPE };
    for (name, shape, words) in [
        ("read-direct", SHAPE, "READ by GPUD, 0.73 GiB/s, 1024 KiB, 2 threads"),
        ("write-bounce", bounce, "WRITE by CPU_GPU, 1.05 GiB/s, 1024 KiB, 2 threads"),
        ("randread-cpu", random, "RANDREAD by CPUONLY, 0.09 GiB/s, 4 KiB, 4 threads"),
    ] {
        let (run, error) = judged(name, &shape);
        assert_eq!(error, None, "{name}");
        assert_eq!(run.results[0].words(), words);
    }
}

#[test]
fn every_failure_of_gdsio_has_its_words() {
    for (name, error) in [
        (
            "register",
            "gdsio ended with status 1: file register error: GPUDirect Storage not supported on current file filename \
             :/mnt/data",
        ),
        ("read-error", "gdsio ended with status 255: io failed of type 0 size: 1048576 , ret: 0"),
        ("driver-open", "gdsio complained: cuFile driver open error: 5001"),
        ("empty-file", "gdsio ended with status 0 and printed no result"),
        (
            "missing-file",
            "gdsio ended with status 1: unable to open file /mnt/none, error:No such file or directory",
        ),
        ("no-space", "gdsio ended with status 255: write io failed of type 1 size: 1048576 , ret: 0"),
        ("gpu-index", "gdsio ended with status 1: invalid GPU device id :5"),
        ("numa-node", "gdsio ended with status 255: invalid numa node 7"),
        (
            "too-many-threads",
            "gdsio ended with status 255: data size has to be at least multiple of max block size used * worker_count. \
             use -s 1G",
        ),
        (
            "no-gpu-cpu-only",
            "gdsio ended with status 255: cuda runtime api call failed cudaStreamSynchronize(stream)4086 : \
             cudaErrorNoDevice exiting gdsio!!!",
        ),
        (
            "no-gpu-direct",
            "gdsio was killed after 30 s: cuda runtime api call failed cudaGetDeviceCount(&numGPUs)5491 : \
             cudaErrorNoDevice exiting gdsio!!!",
        ),
    ] {
        assert_eq!(judged(name, &SHAPE).1.as_deref(), Some(error), "{name}");
    }
    // What it prints without a GPU looks like a result.
    let (run, _) = judged("no-gpu-cpu-only", &SHAPE);
    assert_eq!(run.results[0].nonsense(), Some("the throughput is not above 0"));
}

#[test]
fn a_result_that_is_not_the_one_that_was_asked_for_is_none() {
    let of = |shape: Shape| judged("read-direct", &shape).1.unwrap();
    assert_eq!(
        of(Shape { way: Way::CpuGpu, ..SHAPE }),
        "gdsio's result is of READ by GPUD, where READ by CPU_GPU was asked"
    );
    assert_eq!(
        of(Shape { direction: Direction::Write, ..SHAPE }),
        "gdsio's result is of READ by GPUD, where WRITE by GPUD was asked"
    );
    let told = |change: &dyn Fn(String) -> String| {
        let mut ended = captured("read-direct");
        ended.stdout = change(ended.stdout);
        let run = GdsioRun::parse("gdsio", ended.stdout.lines());
        no_measurement(&ended, LIMIT, &run, &SHAPE).unwrap()
    };
    assert_eq!(
        told(&|text| text.replace("GPUD", "TELEPATHY")),
        "gdsio's result is of READ by TELEPATHY, where READ by GPUD was asked"
    );
    assert_eq!(
        told(&|text| text.replace("0.727482", "727482")),
        "gdsio's result is no measurement: size and time do not give the throughput"
    );
    assert_eq!(told(&|text| text.repeat(2)), "gdsio printed 2 results where one was asked");
    assert_eq!(
        told(&|_| "All is well.\n".into()),
        "gdsio ended with status 0 and printed no result: All is well."
    );
}

#[test]
fn what_gdsio_verify_said_is_read() {
    let of = |name: &str| {
        let ended = captured(name);
        let answer = VerifyAnswer::parse(ended.stdout.lines().chain(ended.stderr.lines()));
        not_verified(&ended, LIMIT, &answer, 16 << 20)
    };
    assert_eq!(of("verify-success"), None);
    // The bytes themselves were compared.
    assert_eq!(of("verify-no-libcrypto"), None);
    for (name, error) in [
        ("verify-mismatch", "gdsio_verify found bytes that differ: ***FAIL Read md5sum Mismatch!!"),
        (
            "verify-read-error",
            "gdsio_verify ended with status 251: cuFileRead returned error(ret=-5, step_size=4194304, \
             bytes_left=16777216)",
        ),
        (
            "verify-no-space",
            "gdsio_verify ended with status 255: cuFileWrite returned error(ret=-1, step_size=4194304, \
             bytes_left=12582912)",
        ),
        (
            "verify-register",
            "gdsio_verify ended with status 255: file register error: GPUDirect Storage not supported on current file",
        ),
        (
            "verify-driver-open",
            "gdsio_verify ended with status 255: cufile driver open error:nvidia-fs driver is not loaded. Set \
             allow_compat_mode to true in cufile.json file to enable compatible mode",
        ),
        (
            "verify-missing-file",
            "gdsio_verify ended with status 1: ***FAIL open failed: No such file or directory",
        ),
        (
            "verify-read-only",
            "gdsio_verify ended with status 255: ***FAIL open failed: Read-only file system",
        ),
        ("verify-no-gpu", "gdsio_verify ended with status 255: cuInit Failed, error CUDA_ERROR_NO_DEVICE"),
        (
            "verify-short-file",
            "gdsio_verify's answer is none: it said success, but also: Pread . Read 67108864 bytes. requested 134217728 \
             bytes",
        ),
        ("verify-usage", "gdsio_verify ended with status 1: iosize(-s) represents each batch entry io size"),
    ] {
        assert_eq!(of(name).as_deref(), Some(error), "{name}");
    }
}

/// Folders of programs and of scratch space; a file of 64 MiB without a name.
struct Machine {
    dir: tempfile::TempDir,
    file: File,
    drive: Drive,
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs_err::create_dir(dir.path().join("scratch")).unwrap();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_TMPFILE)
            .open(dir.path().join("scratch"))
            .unwrap();
        file.set_len(64 << 20).unwrap();
        let drive = Drive {
            name: "nvme0n1".into(),
            bytes: 64 << 20,
            level: Level::TemporaryFile,
            ..Drive::default()
        };
        Self { dir, file, drive }
    }

    fn scratch(&self) -> std::path::PathBuf {
        self.dir.path().join("scratch")
    }

    /// Both tools are this script.
    fn tools(&self, script: &str) -> Tools {
        let path = self.dir.path().join("tool");
        fs_err::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = path.to_str().map(str::to_owned);
        Tools { gdsio: path.clone(), gdsio_verify: path, folders: vec![] }
    }

    fn place<'a>(&'a self, folder: &'a Path) -> Place<'a> {
        Place {
            gpu: Some(Near { index: 0, pci: "0000:01:00.0", numa: None }),
            drive: &self.drive,
            file: &self.file,
            folder: Some(folder),
            simulated: false,
        }
    }

    fn measure(&self, script: &str) -> GdsioMeasured {
        loop {
            let scratch = self.scratch();
            let ran = measure(&self.tools(script), &self.place(&scratch), &SHAPE, SETTINGS).unwrap();
            if !is_busy(ran.error.as_deref()) {
                return ran;
            }
        }
    }

    fn verify(&self, script: &str) -> GdsioVerified {
        loop {
            let scratch = self.scratch();
            let ran = verify(&self.tools(script), &self.place(&scratch), SETTINGS).unwrap();
            if !is_busy(ran.error.as_deref()) {
                return ran;
            }
        }
    }
}

/// A child that another test's thread has just forked may still hold the script open.
fn is_busy(error: Option<&str>) -> bool {
    error.is_some_and(|error| error.contains("Text file busy"))
}

const RESULT: &str = "echo 'IoType: READ XferType: GPUD Threads: 2 DataSetSize: 1389568/65536(KiB) IOSize: 1024(KiB) \
                      Throughput: 0.727482 GiB/sec, Avg_Latency: 2766.704266 usecs ops: 1357 total_time 1.821620 secs'";

#[test]
fn gdsio_gets_the_file_by_its_number_and_cufile_s_settings_and_a_folder() {
    let machine = Machine::new();
    let script = format!(
        "grep -q '\"use_pci_p2pdma\":true' \"$CUFILE_ENV_PATH_JSON\" || exit 9\n\
         [ $CUDA_DEVICE_ORDER = PCI_BUS_ID ] || exit 8\n\
         [ $(stat -Lc %s \"$2\") = 67108864 ] || exit 7\n\
         printf ' a ERROR cufio:1 one\\n a DEBUG x:1 two\\n a WARN x:2 three\\n' > cufile.log\n{RESULT}"
    );
    let ran = machine.measure(&script);
    assert_eq!(ran.error, None);
    assert_eq!((ran.gpu.as_str(), ran.drive.as_str()), ("0000:01:00.0", "nvme0n1"));
    assert_eq!(ran.run.results[0].throughput, Some(0.727_482));
    assert_eq!(ran.cufile_complaints, [" a ERROR cufio:1 one", " a WARN x:2 three"]);
    let file = format!("/tool -f /proc/{}/fd/{} -d 0 -w 2 ", std::process::id(), machine.file.as_raw_fd());
    assert!(ran.command.starts_with("CUDA_DEVICE_ORDER=PCI_BUS_ID CUFILE_ENV_PATH_JSON="), "{}", ran.command);
    assert!(ran.command.contains(&file) && ran.seconds > 0.0, "{}", ran.command);
}

#[test]
fn a_tool_that_crashes_hangs_or_is_not_there_is_told_apart() {
    let machine = Machine::new();
    let error = |script: &str| machine.measure(script).error.unwrap();
    assert_eq!(error("echo deep trouble >&2; kill -SEGV $$"), "gdsio crashed with SIGSEGV: deep trouble");
    assert_eq!(error("exit 3"), "gdsio ended with status 3");
    assert_eq!(error("true"), "gdsio ended with status 0 and printed no result");
    let scratch = machine.scratch();
    let place = machine.place(&scratch);
    let tools = Tools { folders: vec!["/a".into(), "/b".into()], ..Tools::default() };
    let absent = measure(&tools, &place, &SHAPE, SETTINGS).unwrap();
    assert_eq!(
        absent.error.as_deref(),
        Some("there is no gdsio in /a, /b (it comes with the package gds-tools)")
    );
    let absent = verify(&tools, &place, SETTINGS).unwrap();
    assert!(absent.error.unwrap().starts_with("there is no gdsio_verify in /a, /b"));
    let hung = loop {
        let tools = machine.tools("echo stuck >&2; sleep 60");
        let program = tools.gdsio.unwrap();
        let near = place.gpu.unwrap();
        let command = |settings: &Path| CommandLine::gdsio(&program, &near, "x", &SHAPE, settings);
        let limit = Duration::from_secs(1);
        match execute(command, SETTINGS, limit) {
            Err(error) if is_busy(Some(&one_line(&error))) => {}
            executed => break no_measurement(&executed.unwrap().ended, limit, &GdsioRun::default(), &SHAPE),
        }
    };
    assert_eq!(hung.as_deref(), Some("gdsio was killed after 1 s: stuck"));
}

#[test]
fn gdsio_verify_s_copy_is_removed_also_where_it_is_left_behind() {
    let machine = Machine::new();
    // It copies beside the link, on the file's filesystem.
    let script = "cp \"$2\" \"$2-0_1.verify.7\"\n\
                  cmp \"$2\" \"$2-0_1.verify.7\" || exit 9\n\
                  echo 'gpu index :0,file :x, io_requested :67108864, nr ios :1, '";
    let success = machine.verify(&format!("{script}\necho Data Verification Success"));
    assert_eq!((success.error, success.bytes), (None, 64 << 20));
    assert_eq!(success.answer.success, Some(true));
    assert!(success.command.contains("/data -d 0 -o 0 -s 65536K -c 16384K -n 1 -m 1"), "{}", success.command);
    let failure = machine.verify(&format!("{script}\necho Data Verification Failed; exit 204"));
    assert_eq!(
        failure.error.as_deref(),
        Some("gdsio_verify ended with status 204: Data Verification Failed")
    );
    let odd = machine.verify(&format!("{script}\necho Data Verification Failed"));
    assert_eq!(odd.error.as_deref(), Some("gdsio_verify failed with status 0: Data Verification Failed"));
    assert_eq!(std::fs::read_dir(machine.scratch()).unwrap().count(), 0);
}

#[test]
fn where_the_tools_make_no_sense_each_reason_is_a_sentence() {
    let mut machine = Machine::new();
    let tools = machine.tools("exit 9");
    let scratch = machine.scratch();
    let place = machine.place(&scratch);
    let both = |place: &Place<'_>, cause, why: [&str; 2]| {
        let gdsio = measure(&tools, place, &SHAPE, SETTINGS).unwrap_err();
        assert_eq!((gdsio.what.as_str(), gdsio.cause, gdsio.why.as_str()), ("gdsio", cause, why[0]));
        assert_eq!(gdsio.drive.as_deref(), Some("nvme0n1"));
        let verify = verify(&tools, place, SETTINGS).unwrap_err();
        assert_eq!(
            (verify.what.as_str(), verify.cause, verify.why.as_str()),
            ("gdsio_verify", cause, why[1])
        );
    };
    both(
        &Place { gpu: None, ..place },
        Cause::NoGpu,
        ["no GPU could be opened, and gdsio needs one", "no GPU could be opened, and gdsio_verify needs one"],
    );
    both(
        &Place { simulated: true, ..place },
        Cause::Refused,
        [
            "imitation libraries are in use, and gdsio runs on NVIDIA's own alone",
            "imitation libraries are in use, and gdsio_verify runs on NVIDIA's own alone",
        ],
    );
    let read_only = Drive { level: Level::ReadOnly, ..machine.drive.clone() };
    both(
        &Place { drive: &read_only, ..place },
        Cause::Refused,
        [
            "nvme0n1 may only be read, and gdsio opens it by itself: nothing would keep it from writing",
            "nvme0n1 may only be read, and gdsio_verify opens it by itself: nothing would keep it from writing",
        ],
    );
    let small = Drive { bytes: 1 << 20, ..machine.drive.clone() };
    both(
        &Place { drive: &small, ..place },
        Cause::Size,
        [
            "there is no room: 2 threads with 1048576 bytes each are to touch 67108864 bytes of nvme0n1, which has 1048576",
            "it is smaller than 16777216 bytes",
        ],
    );
    let refused = |place: &Place<'_>| verify(&tools, place, SETTINGS).unwrap_err();
    let whole = refused(&Place { folder: None, ..place });
    assert_eq!(whole.why, "it writes a copy beside the file, and beside a whole disk there is no room");
    let elsewhere = refused(&Place { folder: Some(Path::new("/proc")), ..place });
    assert_eq!(elsewhere.why, "looking for room in /proc: it is not on the same filesystem as the file");
    machine.drive.bytes = 0;
    assert_eq!(refused(&machine.place(&scratch)).cause, Cause::Size);
}
