//! A machine whose libraries imitate NVIDIA's, and the conversation with the worker on it.

use crate::simulated::libraries;
use gdsboot::bench::route::{Known, Proof, prove};
use gdsboot::bench::transfer::job::{Direction, Job, Order, Until};
use gdsboot::bench::transfer::pattern::Pattern;
use gdsboot::bench::worker::process::{WorkerError, WorkerProcess};
use gdsboot::bench::worker::settings::{CufileSettings, Wanted};
use gdsboot::bench::worker::{Cufile, Engine, Gpu, Holds, Ran, Task};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

pub const LIMIT: Duration = Duration::from_secs(60);
pub const BYTES: u64 = 4 << 20;
pub const SEED: u64 = 11;

/// What the file holds.
#[derive(Clone, Copy, PartialEq)]
pub enum Content {
    /// The pattern that the task asks for.
    Pattern,
    /// Numbers that rise every 512 bytes.
    Steps,
    /// Nothing but zeros, from this byte on; [`Content::Steps`] before.
    Zeros(usize),
}

/// A machine: how its libraries behave, and what cuFile is told.
#[derive(Clone)]
pub struct Machine {
    pub behaviour: &'static str,
    pub old: bool,
    pub settings: CufileSettings,
    pub task: Task,
    pub content: Content,
}

/// A machine whose libraries behave like this, compat mode allowed, that reads 64 blocks.
pub fn machine(behaviour: &'static str) -> Machine {
    let job = Job {
        direction: Direction::Read,
        order: Order::Sequential,
        block: 64 << 10,
        depth: 2,
        threads: 2,
        range: 0..BYTES,
        until: Until::Once,
        seed: SEED,
        verify: true,
    };
    Machine {
        behaviour,
        old: false,
        settings: CufileSettings { wanted: Wanted::Any, compat: true },
        task: Task { engine: Engine::Cufile, file: -1, holds: Holds::Pattern, job },
        content: Content::Pattern,
    }
}

impl Machine {
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub fn forbids_compat(self) -> Self {
        self.with(|machine| machine.settings.compat = false)
    }

    pub fn file(&self) -> File {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = dir.path().join("data");
        let mut bytes = vec![0; BYTES as usize];
        let steps =
            |bytes: &mut [u8]| bytes.iter_mut().zip(0_u64..).for_each(|(byte, n)| *byte = (n >> 9) as u8);
        match self.content {
            Content::Pattern => Pattern { seed: SEED }.fill(&mut bytes, 0),
            Content::Steps => steps(&mut bytes),
            Content::Zeros(from) => steps(&mut bytes[..from]),
        }
        fs_err::write(&path, bytes).unwrap();
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(&path).unwrap()
    }

    pub fn start(&self, file: &File) -> WorkerProcess {
        let program = Path::new(env!("CARGO_BIN_EXE_gdsboot-dma"));
        let folder = libraries(self.old).to_str().unwrap();
        let environment = [("LD_LIBRARY_PATH", folder), ("GDSBOOT_SIMULATED", self.behaviour)];
        WorkerProcess::start(program, self.settings, Some(file), &environment).unwrap()
    }

    pub fn open(&self, file: &File) -> Result<(WorkerProcess, Gpu, Cufile), WorkerError> {
        let mut worker = self.start(file);
        let gpu = worker.open_gpu(0, LIMIT)?;
        let cufile = worker.open_cufile(LIMIT)?;
        Ok((worker, gpu, cufile))
    }

    /// The whole conversation.
    pub fn run(&self) -> Result<(Ran, Proof), WorkerError> {
        let file = self.file();
        let (mut worker, gpu, cufile) = self.open(&file)?;
        let task = Task { file: worker.file(), ..self.task.clone() };
        let ran = worker.run(task, LIMIT)?;
        worker.close(LIMIT)?;
        let known = Known {
            engine: self.task.engine,
            job: &self.task.job,
            gpu: &gpu.uuid,
            ran: &ran,
            settings: self.settings,
            cufile: &cufile,
            nvidia_fs: None,
            mappings: None,
        };
        let proof = prove(&known);
        Ok((ran, proof))
    }

    pub fn proof(&self) -> Proof {
        self.run().unwrap().1
    }
}
