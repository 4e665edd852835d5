//! What the validator and `gdsboot-dma run` say to each other: one JSON object per line, requests on the worker's standard
//! input, answers on its standard output. Libraries print to standard output too: the worker gives them standard error
//! in its place before it loads any.
//!
//! Before each call that may crash or never return, the worker says [`Answer::Calling`], so that the validator knows which
//! one it was.

pub mod errors;
pub mod gpu_state;
pub mod process;
pub mod settings;
pub mod stats;

use crate::bench::transfer::job::Job;
use crate::bench::transfer::measurement::Samples;
use gpu_state::GpuState;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The version of these types.
pub const VERSION: u32 = 1;

/// A line that the worker reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line<T> {
    /// [`VERSION`].
    pub v: u32,
    /// Counts the requests; each answer bears its request's number.
    pub id: u64,
    /// What is asked or answered.
    pub body: T,
}

/// What is asked of the worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Request {
    /// Loads libcuda and NVML, and describes all GPUs without opening any. Answered by [`Answer::Gpus`].
    ListGpus,
    /// Loads libcuda and NVML, and opens a GPU. Answered by [`Answer::Gpu`].
    OpenGpu {
        /// Which one, in the order of PCI addresses.
        index: u32,
    },
    /// Loads and opens libcufile, whose settings are in the file that `CUFILE_ENV_PATH_JSON` named when the worker was
    /// started. Answered by [`Answer::Cufile`].
    OpenCufile,
    /// Makes a job's transfers. Answered by [`Answer::Ran`].
    Run(Task),
    /// Closes everything and ends. Answered by [`Answer::Closed`].
    Close,
}

/// Which way the transfers of a job are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// cuFileRead and cuFileWrite, each in a thread of its own.
    Cufile,
    /// cuFile's batches of as many transfers as the job is deep; the next batch begins when all of one have ended.
    CufileBatch,
    /// cuFileReadAsync and cuFileWriteAsync, each on a CUDA stream of its own; the next ones begin when all have ended.
    CufileStream,
    /// The drive and pinned memory of the CPU by O_DIRECT, then that memory and the GPU: what GPUDirect Storage saves.
    Bounce,
    /// Pinned memory of the CPU and the GPU alone: the ceiling of the GPU's link. No file is touched.
    HostCopy,
}

impl Engine {
    /// Does it go through cuFile?
    pub fn is_cufile(self) -> bool {
        matches!(self, Self::Cufile | Self::CufileBatch | Self::CufileStream)
    }
}

/// What a file holds, so that what arrives can be compared with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holds {
    /// The [`super::pattern::Pattern`] of the job's seed, all over the job's range.
    Pattern,
    /// Nobody knows: the CPU reads the same blocks by itself.
    Anything,
}

/// A job, and how it is made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Which way.
    pub engine: Engine,
    /// The descriptor of the file or device, open with O_DIRECT, that the worker was started with.
    pub file: i32,
    /// What a read finds there.
    pub holds: Holds,
    /// The transfers. With `verify` every block is compared as it arrives, which costs time; without it [`SAMPLED`] more
    /// blocks are transferred and compared after the clock has stopped.
    pub job: Job,
}

/// How many blocks are compared after a job that does not compare all of them, where they have no more than
/// [`SAMPLED_BYTES`] together.
pub const SAMPLED: u64 = 16;
/// How many bytes are compared then, but for [`LEAST_SAMPLED`] blocks.
pub const SAMPLED_BYTES: u64 = 16 << 20;
/// How many blocks are compared however large they are.
pub const LEAST_SAMPLED: u64 = 2;

/// What the worker answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// It is about to call a function that may never return. Another answer follows.
    Calling {
        /// The function.
        function: String,
    },
    /// To [`Request::ListGpus`].
    Gpus {
        /// In the order of PCI addresses: a place in it is [`Request::OpenGpu`]'s index.
        gpus: Vec<Gpu>,
    },
    /// To [`Request::OpenGpu`].
    Gpu(Gpu),
    /// To [`Request::OpenCufile`].
    Cufile(Cufile),
    /// To [`Request::Run`].
    Ran(Box<Ran>),
    /// To [`Request::Close`].
    Closed,
    /// What was asked for could not be done.
    Failed(Failure),
}

/// A call that failed, or something else that kept the worker from doing what it was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Failure {
    /// The function, where it was one.
    pub function: Option<String>,
    /// What it returned.
    pub status: Option<i64>,
    /// The status' name in the vendor's header.
    pub name: Option<String>,
    /// CUDA's own status, where cuFile passed one on.
    pub cuda_status: Option<i64>,
    /// What happened, in words.
    pub text: String,
    /// Was the function or its library missing?
    pub missing: bool,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(function) = &self.function {
            write!(f, "{function}: ")?;
        }
        match (&self.name, self.status) {
            (Some(name), Some(status)) => write!(f, "{name} ({status})")?,
            (Some(name), None) => write!(f, "{name}")?,
            (None, Some(status)) => write!(f, "status {status}")?,
            (None, None) => return write!(f, "{}", self.text),
        }
        if let Some(status) = self.cuda_status {
            write!(f, ", CUDA status {status}")?;
        }
        match self.text.as_str() {
            "" => Ok(()),
            text => write!(f, ", {text}"),
        }
    }
}

/// A GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Gpu {
    /// Its product name.
    pub name: String,
    /// `GPU-` and 36 characters.
    pub uuid: String,
    /// `0000:01:00.0`.
    pub pci: String,
    /// All of its memory, in bytes.
    pub memory: u64,
    /// The window through which others on the bus reach its memory, in bytes, from NVML.
    pub bar1: Option<u64>,
    /// libcuda's version, such as `13.1`.
    pub cuda_version: Option<String>,
    /// The driver's version, from NVML.
    pub driver_version: Option<String>,
    /// Calls that failed or are missing, and without which it goes on.
    pub failures: Vec<Failure>,
    /// Does one of the libraries only imitate NVIDIA's? Then nothing that follows says anything about a machine.
    pub simulated: bool,
}

/// libcufile, opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Cufile {
    /// Its version, such as `1.16.1`.
    pub version: Option<String>,
    /// nvidia-fs's version as cuFile sees it.
    pub nvidia_fs: Option<String>,
    /// Does cuFile itself say that it may fall back to copies by the CPU? From its driver properties.
    pub compat_allowed: Option<bool>,
    /// The routes between NVMe and GPU that it says are possible, by the names of its header.
    pub p2p_flags: Option<Vec<String>>,
    /// Does it count the routes of transfers?
    pub counts: bool,
    /// Calls that failed or are missing, and without which it goes on.
    pub failures: Vec<Failure>,
    /// Does it, or libcuda, only imitate NVIDIA's?
    pub simulated: bool,
}

/// What came of a task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ran {
    /// What was measured.
    pub samples: Samples,
    /// All transfers that succeeded, those that were compared after the clock had stopped among them.
    pub transfers: u64,
    /// Their bytes.
    pub moved: u64,
    /// What was compared with what it had to be.
    pub verified: Verified,
    /// cuFile's counters before and after, where it has them.
    pub before: Option<Counters>,
    /// The same, after.
    pub after: Option<Counters>,
    /// What the GPU said of itself while the transfers were made; empty where there is no NVML to say it.
    pub gpu_states: Vec<GpuState>,
    /// Why there are no counters, and what else failed without ending the task.
    pub failures: Vec<Failure>,
}

/// Data that was compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Verified {
    /// Blocks that were compared.
    pub blocks: u64,
    /// Those of them that were wrong.
    pub wrong: u64,
    /// Those of them that hold one and the same byte throughout, as a drive does where nothing was written: a block at the
    /// wrong place would not be noticed there.
    pub uniform: u64,
    /// What was wrong with the first of them, or why it could not be compared.
    pub first: Option<String>,
}

impl Verified {
    /// Was something compared, and all of it right?
    pub fn is_right(&self) -> bool {
        self.blocks > 0 && self.wrong == 0 && self.first.is_none()
    }
}

/// cuFile's counters of this process (`CUfileStatsLevel3_t`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// How the library lays the structure out: `5000 bytes` to GDS 1.16, `5112 bytes` in 1.20.
    pub layout: String,
    /// One for each GPU, by its UUID as 32 hexadecimal digits.
    pub gpus: BTreeMap<String, GpuCounters>,
}

/// The counters of one GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuCounters {
    /// Towards the GPU.
    pub reads: OpCounters,
    /// From the GPU.
    pub writes: OpCounters,
}

/// The counters of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OpCounters {
    /// Bytes.
    pub bytes: u64,
    /// Transfers.
    pub total: u64,
    /// Those by the kernel's PCI P2PDMA.
    pub p2p: u64,
    /// Those by nvidia-fs.
    pub nvfs: u64,
    /// Those that the CPU copied.
    pub posix: u64,
    /// Those that failed.
    pub errors: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_read_back() {
        for request in [Request::ListGpus, Request::OpenGpu { index: 3 }, Request::OpenCufile, Request::Close]
        {
            let line = Line { v: VERSION, id: 7, body: request };
            let text = serde_json::to_string(&line).unwrap();
            assert_eq!(serde_json::from_str::<Line<Request>>(&text).unwrap(), line);
        }
        for answer in [Answer::Gpus { gpus: vec![Gpu::default()] }, Answer::Ran(Box::default())] {
            let line = Line { v: VERSION, id: 7, body: answer };
            let text = serde_json::to_string(&line).unwrap();
            assert!(!text.contains('\n'));
            assert_eq!(serde_json::from_str::<Line<Answer>>(&text).unwrap(), line);
        }
    }

    #[test]
    fn a_failure_in_words() {
        let text = "io";
        let full = Failure {
            function: Some("cuFileRead".into()),
            status: Some(5011),
            name: Some("CU_FILE_CUDA_DRIVER_ERROR".into()),
            cuda_status: Some(700),
            text: text.into(),
            missing: false,
        };
        assert_eq!(full.to_string(), "cuFileRead: CU_FILE_CUDA_DRIVER_ERROR (5011), CUDA status 700, io");
        assert_eq!(Failure { text: text.into(), ..Failure::default() }.to_string(), "io");
        let plain = Failure { status: Some(3), ..Failure::default() };
        assert_eq!(plain.to_string(), "status 3");
    }

    #[test]
    fn nothing_compared_is_not_right() {
        assert!(!Verified::default().is_right());
        assert!(Verified { blocks: 1, ..Verified::default() }.is_right());
        assert!(!Verified { blocks: 2, wrong: 1, ..Verified::default() }.is_right());
    }
}
