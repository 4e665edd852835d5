//! What a benchmark found, as a report keeps it: figures, proofs and what went wrong. The raw samples that every figure was
//! computed from are lines of a file of their own ([`RawLine`]).

use super::gdsio::answer::VerifyAnswer;
use super::plan::Thoroughness;
use super::route::{Known, Outcome, Proof, Route, prove};
use super::state;
use super::transfer::job::Job;
use super::transfer::measurement::{Figures, TransferError};
use super::worker::settings::{CufileSettings, Wanted};
use super::worker::{Cufile, Engine, Gpu, Ran, Verified};
use crate::boot_contract::RUN_BENCHMARK;
use crate::facts::Root;
use crate::facts::gdsio::GdsioRun;
use crate::facts::nvidia_fs::Stats;
use serde::{Deserialize, Serialize};

/// Everything that one benchmark found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Results {
    /// How thorough it was meant to be.
    pub thoroughness: Thoroughness,
    /// What was planned, in seconds.
    pub planned_seconds: f64,
    /// What it took.
    pub seconds: f64,
    /// How far the machine's clock was set while it ran, in seconds. No figure depends on that clock.
    pub clock_set_seconds: f64,
    /// Libraries that imitate NVIDIA's were in use: nothing in here says anything about a machine.
    pub simulated: bool,
    /// The steps of the plan, in order.
    pub steps: Vec<StepTime>,
    /// The GPUs that took part, ordered by PCI address.
    pub gpus: Vec<GpuSeen>,
    /// The drives and files that took part.
    pub drives: Vec<Drive>,
    /// What the transfers between each GPU and each drive prove.
    pub pairs: Vec<Pair>,
    /// What was measured, in that order.
    pub measurements: Vec<Measurement>,
    /// What gdsio said beside it.
    pub gdsio: Vec<GdsioMeasured>,
    /// What gdsio_verify said.
    pub gdsio_verified: Vec<GdsioVerified>,
    /// Programs of the operator's own.
    pub workloads: Vec<WorkloadResult>,
    /// What was planned and not done.
    pub not_done: Vec<NotDone>,
}

/// A step of the plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct StepTime {
    /// What was done.
    pub what: String,
    /// How long that was to take, in seconds.
    pub planned_seconds: f64,
    /// How long it took.
    pub seconds: f64,
}

/// A GPU as the libraries show it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct GpuSeen {
    /// Its number, in the order of PCI addresses.
    pub index: u32,
    /// What libcuda and NVML say of it.
    pub gpu: Gpu,
    /// What cuFile says of itself there, where it could be opened.
    pub cufile: Option<Cufile>,
}

/// What may be written to a drive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Nothing: it is read, whatever it holds.
    #[default]
    ReadOnly,
    /// A temporary file on it.
    TemporaryFile,
    /// All of it: it was blank.
    Blank,
    /// All of it: what it held was given up.
    Wiped,
}

/// A drive, or a file on one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Drive {
    /// The name that measurements refer to: `nvme0n1`, or a path.
    pub name: String,
    /// The model, where it is known.
    pub model: Option<String>,
    /// The PCI address of its controller, where it is known.
    pub pci: Option<String>,
    /// Bytes that may be touched.
    pub bytes: u64,
    /// Transfers are multiples of so many bytes.
    pub block: u32,
    /// What may be written.
    pub level: Level,
    /// The part of it that holds nothing, 0 to 1, by samples: a drive answers for what was never written without looking
    /// at its flash.
    pub blank: Option<f64>,
}

/// What is known of the way between a GPU and a drive.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Pair {
    /// The GPU's PCI address.
    pub gpu: String,
    /// The drive's name.
    pub drive: String,
    /// What `nvidia-smi topo -m` calls the distance: `PIX`, `PXB`, `PHB`, `NODE`, `SYS`.
    pub distance: Option<String>,
    /// Is no other drive nearer to this GPU?
    pub near: bool,
    /// What was tried, in that order.
    pub attempts: Vec<Attempt>,
}

impl Pair {
    /// The attempt that proves most: a direct route before a mixed one before copies by the CPU.
    pub fn best(&self) -> Option<&Attempt> {
        self.attempts
            .iter()
            .filter(|attempt| !attempt.is_control())
            .min_by_key(|attempt| attempt.proof.outcome)
    }

    /// Takes back what counters prove that were seen to count as direct what cuFile was told to copy by the CPU.
    pub fn doubt(attempts: &mut [Attempt]) {
        let counts_as_direct = |attempt: &Attempt| {
            attempt.is_control() && attempt.proof.shares.iter().any(|share| share.route.is_direct())
        };
        if attempts.iter().any(counts_as_direct) {
            for attempt in attempts {
                attempt.proof.outcome = Outcome::Unproven;
                let why = "cuFile counted as direct what it had been told to copy by the CPU: its counters prove nothing";
                attempt.proof.lacks.insert(0, why.into());
            }
        }
    }

    /// Was it seen that copies by the CPU are counted as such?
    pub fn is_controlled(&self) -> bool {
        let control = self.attempts.iter().find(|attempt| attempt.is_control());
        control.is_some_and(|attempt| attempt.proof.outcome == Outcome::Compat)
    }

    /// What it proves.
    pub fn outcome(&self) -> Outcome {
        self.best().map_or(Outcome::Unproven, |attempt| attempt.proof.outcome)
    }
}

impl Attempt {
    /// Is it the one that cuFile was told to copy by the CPU for?
    pub fn is_control(&self) -> bool {
        self.settings.wanted == Wanted::Compat
    }
}

/// One way of asking cuFile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Attempt {
    /// What cuFile was told.
    pub settings: CufileSettings,
    /// The [`Measurement`]s that it comes from, where transfers were made.
    pub measurements: Vec<u32>,
    /// What all of them prove together: the least that one of them does.
    pub proof: Proof,
    /// Why there were no transfers.
    pub error: Option<String>,
}

/// Between what bytes were moved, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The drive and the CPU's memory: the drive's own ceiling.
    Storage,
    /// The CPU's memory and the GPU: the ceiling of the GPU's link.
    HostCopy,
    /// The drive, the CPU's memory and the GPU: what GPUDirect Storage saves.
    Bounce,
    /// The drive and the GPU, by cuFile.
    Cufile,
    /// The same in batches.
    CufileBatch,
    /// The same on a CUDA stream.
    CufileStream,
}

/// What a measurement is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// It wakes the link up; its figures count for nothing.
    WarmUp,
    /// A new file is written once, before anything is measured that it holds.
    Fill,
    /// Its figures.
    Figures,
    /// To prove a route: every block is compared, which costs time, so that its figures count for little.
    Proof,
    /// A model-sized part of the drive is read once.
    Load,
    /// As others, while all GPUs are busy.
    Together,
}

/// A job and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Measurement {
    /// Its number, from 1: raw samples bear it too.
    pub number: u32,
    /// Between what.
    pub kind: Kind,
    /// What for.
    pub purpose: Purpose,
    /// The GPU's PCI address, where one took part.
    pub gpu: Option<String>,
    /// The drive's name, where one took part.
    pub drive: Option<String>,
    /// What cuFile was told, where it took part.
    pub settings: Option<CufileSettings>,
    /// The transfers.
    pub job: Job,
    /// Bytes that were transferred.
    pub bytes: u64,
    /// From the first transfer's beginning to the last one's end, in seconds.
    pub seconds: f64,
    /// The figures.
    pub figures: Figures,
    /// Transfers that failed.
    pub errors: u64,
    /// The first of them.
    pub first_error: Option<TransferError>,
    /// What was compared.
    pub verified: Option<Verified>,
    /// What the transfers prove, where cuFile made them.
    pub proof: Option<Proof>,
    /// The devices while it ran.
    pub state: State,
}

/// Devices at work.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct State {
    /// The GPU's highest temperature, in degrees Celsius.
    pub gpu_celsius: Option<f64>,
    /// Why the GPU ran slower than it can, in NVML's words: `hw_thermal_slowdown`.
    pub gpu_slowed: Vec<String>,
    /// The GPU's link at its fastest.
    pub gpu_link: Option<LinkState>,
    /// The drive's highest temperature.
    pub drive_celsius: Option<f64>,
    /// The temperature from which on the drive warns.
    pub drive_limit_celsius: Option<f64>,
    /// The drive's link at its fastest.
    pub drive_link: Option<LinkState>,
}

/// A PCI Express link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct LinkState {
    /// GT/s of each lane.
    pub speed: f64,
    /// Lanes.
    pub width: u32,
    /// The most GT/s that the device can do.
    pub speed_max: f64,
    /// The most lanes that the device has.
    pub width_max: u32,
}

impl LinkState {
    /// What it can carry each way, in GiB/s: 8b/10b or 128b/130b coding, and packets of 256 bytes with 24 of their own.
    pub fn ceiling(self) -> f64 {
        let coding = if self.speed < 8.0 { 0.8 } else { 128.0 / 130.0 };
        let bytes = self.speed * 1e9 / 8.0 * f64::from(self.width) * coding * 256.0 / 280.0;
        bytes / f64::from(1 << 30)
    }

    /// Is it slower or narrower than the device can do?
    pub fn is_downgraded(self) -> bool {
        self.speed < self.speed_max || self.width < self.width_max
    }
}

/// What gdsio said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct GdsioMeasured {
    /// The GPU's PCI address.
    pub gpu: String,
    /// The drive's name.
    pub drive: String,
    /// The command as it was run, with its environment.
    pub command: String,
    /// How long it took.
    pub seconds: f64,
    /// Its answer.
    pub run: GdsioRun,
    /// Why there is none that counts.
    pub error: Option<String>,
    /// What cuFile complained about in its log, the last lines.
    pub cufile_complaints: Vec<String>,
}

impl GdsioMeasured {
    /// What came of it, in a line.
    pub fn words(&self) -> String {
        match (&self.error, self.run.results.first()) {
            (Some(error), _) => error.clone(),
            (None, Some(result)) => result.words(),
            (None, None) => "no result".into(),
        }
    }
}

/// What gdsio_verify said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct GdsioVerified {
    /// The GPU's PCI address.
    pub gpu: String,
    /// The drive's name.
    pub drive: String,
    /// The command as it was run, with its environment.
    pub command: String,
    /// How long it took.
    pub seconds: f64,
    /// Bytes that it was to compare.
    pub bytes: u64,
    /// Its answer.
    pub answer: VerifyAnswer,
    /// Why it is not that all bytes arrived as they were.
    pub error: Option<String>,
    /// What cuFile complained about in its log, the last lines.
    pub cufile_complaints: Vec<String>,
}

impl GdsioVerified {
    /// What came of it, in a line.
    pub fn words(&self) -> String {
        match &self.error {
            Some(error) => error.clone(),
            None => {
                format!("{} bytes went to the GPU and back, and all of them arrived as they were", self.bytes)
            }
        }
    }
}

/// What came of a program of the operator's own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct WorkloadResult {
    /// What the operator calls it.
    pub name: String,
    /// The command as it was run, with its environment.
    pub command: String,
    /// Was it run? Where not, `why` says what was missing.
    pub ran: bool,
    /// How long it took.
    pub seconds: f64,
    /// Did it keep the operator's rule?
    pub passed: bool,
    /// Which part of the rule it kept or broke.
    pub why: String,
    /// The figure that the rule is about, where it has one.
    pub figure: Option<f64>,
    /// The figure's unit, where the operator named it.
    pub unit: Option<String>,
    /// The last of what it printed.
    pub output: String,
}

/// Why something was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// There is no GPU, or none that libcuda can open.
    NoGpu,
    /// A library or a function of it is missing.
    Library,
    /// The DMA worker crashed, hung or made no sense.
    Worker,
    /// The drive is gone, or cannot be opened or read.
    Drive,
    /// The drive or file is too small for it.
    Size,
    /// A filesystem has no room.
    Room,
    /// The time that was planned is over.
    Time,
    /// It makes no sense there.
    Refused,
}

/// Something that was planned and not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NotDone {
    /// What.
    pub what: String,
    /// The GPU's PCI address, where it concerns one.
    pub gpu: Option<String>,
    /// The drive's name, where it concerns one.
    pub drive: Option<String>,
    /// Which kind of reason.
    pub cause: Cause,
    /// The reason.
    pub why: String,
}

/// A line of the file of raw samples: all that one [`Measurement`] was computed from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RawLine {
    /// The measurement's number.
    pub number: u32,
    /// What its transfers came to.
    pub ran: Ran,
    /// What cuFile said of itself, where it made them.
    pub cufile: Option<Cufile>,
    /// nvidia-fs's counters before and after, where it has any.
    pub nvidia_fs: Option<(Stats, Stats)>,
    /// How often it had mapped the GPU's memory for the drive, before and after.
    #[serde(default)]
    pub mappings: Option<(u64, u64)>,
    /// The devices, once a second and at the end.
    pub states: Vec<State>,
}

impl Kind {
    /// How the DMA worker makes it; `None` where the validator itself does.
    pub fn engine(self) -> Option<Engine> {
        match self {
            Self::Storage => None,
            Self::HostCopy => Some(Engine::HostCopy),
            Self::Bounce => Some(Engine::Bounce),
            Self::Cufile => Some(Engine::Cufile),
            Self::CufileBatch => Some(Engine::CufileBatch),
            Self::CufileStream => Some(Engine::CufileStream),
        }
    }
}

impl Measurement {
    /// A measurement by that name, of which nothing has been computed yet.
    pub fn new(number: u32, kind: Kind, purpose: Purpose, job: Job) -> Self {
        Self {
            number,
            kind,
            purpose,
            gpu: None,
            drive: None,
            settings: None,
            job,
            bytes: 0,
            seconds: 0.0,
            figures: Figures::default(),
            errors: 0,
            first_error: None,
            verified: None,
            proof: None,
            state: State::default(),
        }
    }

    /// The same with all that is computed from raw samples. `uuid` is the GPU's.
    #[must_use]
    pub fn computed(self, raw: &RawLine, uuid: Option<&str>) -> Self {
        let RawLine { ran, cufile, nvidia_fs, mappings, states, .. } = raw;
        let proof =
            self.settings.zip(self.kind.engine()).zip(cufile.as_ref()).map(|((settings, engine), cufile)| {
                let nvidia_fs = nvidia_fs.as_ref().map(|(before, after)| (before, after));
                let gpu = uuid.unwrap_or_default();
                prove(&Known {
                    engine,
                    job: &self.job,
                    gpu,
                    ran,
                    settings,
                    cufile,
                    nvidia_fs,
                    mappings: *mappings,
                })
            });
        Self {
            bytes: ran.samples.total_bytes(),
            seconds: ran.samples.seconds,
            figures: ran.samples.figures(),
            errors: ran.samples.error_count,
            first_error: ran.samples.errors.first().cloned(),
            verified: (ran.verified != Verified::default()).then(|| ran.verified.clone()),
            proof,
            state: state::summary(states),
            ..self
        }
    }

    /// Is it one whose figures count?
    pub fn counts(&self) -> bool {
        matches!(self.purpose, Purpose::Figures | Purpose::Load | Purpose::Together) && self.bytes > 0
    }
}

impl Kind {
    /// In a word or two.
    pub fn words(self) -> &'static str {
        match self {
            Self::Storage => "drive alone",
            Self::HostCopy => "GPU alone",
            Self::Bounce => "bounce",
            Self::Cufile => "cuFile",
            Self::CufileBatch => "cuFile batches",
            Self::CufileStream => "cuFile streams",
        }
    }
}

impl Results {
    /// What a run of the image measured and left for whoever looks later: a capture, or its shell.
    pub fn left_by_run(root: &Root) -> Option<Self> {
        // By way of a tree, as reports are read, so that the code for it exists once.
        let tree = serde_json::from_slice(root.bytes(&format!("/{RUN_BENCHMARK}")).value()?).ok()?;
        serde_json::from_value(tree).ok()
    }

    /// The measurements of a pair; drives and GPUs alone where one of them is `None`.
    pub fn of<'a>(
        &'a self,
        gpu: Option<&'a str>,
        drive: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Measurement> {
        self.measurements.iter().filter(move |m| m.gpu.as_deref() == gpu && m.drive.as_deref() == drive)
    }

    /// The direct route, where it is proven that every GPU that took part reaches at least one drive by DMA and that all
    /// data is right. The route that most pairs take; imitated libraries prove nothing.
    pub fn proven(&self) -> Option<Route> {
        let direct: Vec<&Pair> = self.pairs.iter().filter(|pair| pair.outcome() == Outcome::Direct).collect();
        let reaches = |gpu: &GpuSeen| direct.iter().any(|pair| pair.gpu == gpu.gpu.pci);
        if self.simulated || self.gpus.is_empty() || !self.gpus.iter().all(reaches) || self.has_wrong_data() {
            return None;
        }
        let routes = direct.iter().filter_map(|pair| pair.best()?.proof.route);
        let mut counted: Vec<(Route, usize)> = Vec::new();
        for route in routes {
            match counted.iter_mut().find(|(known, _)| *known == route) {
                Some((_, count)) => *count += 1,
                None => counted.push((route, 1)),
            }
        }
        // Proven without a name: copies by the CPU were forbidden, and both direct routes possible.
        let most = counted.iter().rev().max_by_key(|(_, count)| *count);
        Some(most.map_or(Route::Direct, |(route, _)| *route))
    }

    /// [`Route::Compat`] where transfers were made and all of them by the CPU.
    pub fn bounced(&self) -> Route {
        let mut outcomes =
            self.pairs.iter().map(Pair::outcome).filter(|outcome| *outcome != Outcome::Unproven).peekable();
        let is_any = outcomes.peek().is_some() && !self.simulated;
        if is_any && outcomes.all(|outcome| outcome == Outcome::Compat) { Route::Compat } else { Route::None }
    }

    /// Did anything arrive that was not sent?
    pub fn has_wrong_data(&self) -> bool {
        self.measurements.iter().any(|m| m.verified.as_ref().is_some_and(|verified| verified.wrong > 0))
            || self.gdsio_verified.iter().any(|ran| ran.answer.mismatch().is_some())
    }
}
