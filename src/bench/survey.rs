//! What there is to be measured: the GPUs that libcuda opens, the drives, and how far they are apart.

use super::drive::Opened;
use super::plan::Space;
use super::results::{Cause, GpuSeen, Level, NotDone};
use super::worker::process::{WorkerError, WorkerProcess};
use super::worker::settings::{CufileSettings, Wanted};
use crate::facts::Facts;
use crate::topology::Topology;
use crate::topology::labels::Label;
use std::path::Path;
use std::time::Duration;

/// What is done to have a place where something may be written.
pub const SCRATCH: &str = "making scratch space";
/// What the worker was to do for a survey.
pub const OPENING_GPUS: &str = "opening the GPUs";
/// How long libcuda may take to open all GPUs; a driver that cannot start one takes some 6 s for each.
const LIST_LIMIT: Duration = Duration::from_secs(120);

/// The program that transfers between drives and GPUs.
#[derive(Clone, Copy, Debug)]
pub struct Worker<'a> {
    /// `gdsboot-dma`.
    pub program: &'a Path,
    /// What its environment has besides [`crate::program::ENVIRONMENT`].
    pub environment: &'a [(&'a str, &'a str)],
}

/// What there is.
#[derive(Debug, Default)]
pub struct Survey {
    /// The GPUs, in the order of PCI addresses.
    pub gpus: Vec<GpuSeen>,
    /// The drives and files.
    pub drives: Vec<Opened>,
    /// What could not be opened.
    pub not_done: Vec<NotDone>,
    /// The distance of each GPU to each drive, where it is known.
    pub labels: Vec<Vec<Option<Label>>>,
    /// The NUMA node of each GPU, where it is known.
    pub nodes: Vec<Option<u32>>,
}

impl Survey {
    /// Opens the GPUs, all or those with these numbers; `None` leaves GPUs alone.
    pub fn gpus(&mut self, worker: Option<Worker<'_>>, only: &[u32]) {
        let mut not = |cause, why: String| {
            self.not_done.push(NotDone { what: OPENING_GPUS.into(), gpu: None, drive: None, cause, why });
        };
        let Some(Worker { program, environment }) = worker else {
            return not(
                Cause::Library,
                "gdsboot-dma is not there, which alone talks to NVIDIA's libraries".into(),
            );
        };
        // No file and nothing of cuFile is touched.
        let settings = CufileSettings { wanted: Wanted::Any, compat: true };
        let mut process = match WorkerProcess::start(program, settings, None, environment) {
            Ok(process) => process,
            Err(error) => return not(Cause::Worker, crate::error::one_line(&error)),
        };
        let found = match process.list_gpus(LIST_LIMIT) {
            Ok(found) => found,
            Err(error) => return not(cause(&error), error.to_string()),
        };
        // What was asked for is known; how the worker ends does not matter.
        let _ = process.close(Duration::from_secs(10));
        if found.is_empty() {
            return not(Cause::NoGpu, "libcuda works, and finds no GPU".into());
        }
        let count = found.len();
        let chosen = (0_u32..).zip(found).filter(|(index, _)| only.is_empty() || only.contains(index));
        self.gpus = chosen.map(|(index, gpu)| GpuSeen { index, gpu, cufile: None }).collect();
        for index in only.iter().filter(|index| **index as usize >= count) {
            not(Cause::NoGpu, format!("there is no GPU {index}: {count} in all"));
        }
    }

    /// Takes a drive in, or the reason why it cannot be.
    pub fn drive(&mut self, name: &str, opened: anyhow::Result<Opened>) {
        self.take("opening it", name, opened);
    }

    /// The same for scratch space.
    pub fn scratch(&mut self, name: &str, opened: anyhow::Result<Opened>) {
        self.take(SCRATCH, name, opened);
    }

    fn take(&mut self, what: &str, name: &str, opened: anyhow::Result<Opened>) {
        let (cause, why) = match opened {
            Ok(opened) if opened.target.bytes < u64::from(opened.drive.block.max(512)) => {
                (Cause::Size, format!("it has {} bytes", opened.target.bytes))
            }
            Ok(opened) => return self.drives.push(opened),
            Err(error) => (cause_of(&error), crate::error::one_line(&error)),
        };
        self.not_done.push(NotDone {
            what: what.into(),
            gpu: None,
            drive: Some(name.to_owned()),
            cause,
            why,
        });
    }

    /// Finds out how far GPUs and drives are apart, when all are there.
    pub fn measure_distances(&mut self, facts: &Facts) {
        let topology = Topology::of(facts);
        let label = |gpu: &str, drive: Option<&str>| {
            topology.storage().find(|pair| pair.gpu == gpu && Some(pair.peer.as_str()) == drive)?.nvidia_smi
        };
        let of = |gpu: &GpuSeen| {
            self.drives.iter().map(|opened| label(&gpu.gpu.pci, opened.drive.pci.as_deref())).collect()
        };
        self.labels = self.gpus.iter().map(of).collect();
        let node = |gpu: &GpuSeen| {
            let device = facts.pci.value()?.iter().find(|device| device.address == gpu.gpu.pci)?;
            // The kernel says -1 where the firmware says nothing.
            u32::try_from(*device.numa_node.value()?).ok()
        };
        self.nodes = self.gpus.iter().map(node).collect();
    }

    /// The distances as the plan takes them.
    pub fn ranks(&self) -> Vec<Vec<u8>> {
        let rank = |label: &Option<Label>| label.map_or(u8::MAX, |label| label as u8);
        self.labels.iter().map(|drives| drives.iter().map(rank).collect()).collect()
    }

    /// The drives as the plan takes them.
    pub fn spaces(&self) -> Vec<Space> {
        let space = |opened: &Opened| Space {
            name: opened.drive.name.clone(),
            bytes: opened.target.bytes,
            block: opened.drive.block,
            writable: opened.target.writable && opened.drive.level != Level::ReadOnly,
        };
        self.drives.iter().map(space).collect()
    }

    /// The GPUs' PCI addresses.
    pub fn addresses(&self) -> Vec<String> {
        self.gpus.iter().map(|seen| seen.gpu.pci.clone()).collect()
    }
}

/// Which kind of reason an answer of the worker's is.
pub fn cause(error: &WorkerError) -> Cause {
    match error {
        WorkerError::Failed(failure) if failure.missing => Cause::Library,
        WorkerError::Failed(_) => Cause::NoGpu,
        _ => Cause::Worker,
    }
}

/// Which kind of reason it is that a drive or a folder cannot be opened.
fn cause_of(error: &anyhow::Error) -> Cause {
    let text = crate::error::one_line(error);
    let is_full = ["No space left on device", "Disk quota exceeded", "are more than half of"];
    if is_full.iter().any(|words| text.contains(words)) { Cause::Room } else { Cause::Drive }
}
