//! The part of a report that a table of a fleet is made of. The facts are most of a report; what is not named here is skipped
//! without being built.

use crate::bench::plan::Thoroughness;
use crate::bench::results::{Kind, Purpose};
use crate::bench::route::{Outcome, Route};
use crate::bench::transfer::job::{Direction, Order};
use crate::bench::transfer::measurement::Figures;
use crate::checks::check::{Severity, Side, Status};
use crate::facts::pci::{Class, Id, PciPath};
use crate::report::model::Verdict;
use crate::report::utc::Utc;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

/// More of a kind than any machine has: PCI functions, measurements. A few bytes of a report become hundreds of memory.
pub const MOST: usize = 16_384;

/// A list of at most [`MOST`]; more are an error.
#[derive(Debug)]
pub struct List<T>(Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Deref for List<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Items<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
            type Value = List<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MOST}")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<List<T>, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    if list.len() == MOST {
                        return Err(A::Error::custom(format!("a list has more than {MOST} items")));
                    }
                    list.push(item);
                }
                Ok(List(list))
            }
        }
        from.deserialize_seq(Items(PhantomData))
    }
}

/// A fact's value, wherever it was read.
#[derive(Debug, Deserialize)]
#[serde(bound = "T: Deserialize<'de>")]
pub struct Known<T> {
    #[serde(default)]
    pub value: Option<T>,
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self { value: None }
    }
}

#[derive(Debug, Deserialize)]
pub struct Report {
    pub schema: u32,
    pub gdsboot: String,
    pub run_id: String,
    pub started: Utc,
    pub finished: Utc,
    pub complete: bool,
    pub verdict: Verdict,
    pub route: Route,
    #[serde(default)]
    pub side: Option<Side>,
    #[serde(default)]
    pub findings: List<Finding>,
    #[serde(default)]
    pub benchmark: Option<Benchmark>,
    #[serde(default)]
    pub facts: Facts,
}

#[derive(Debug, Deserialize)]
pub struct Finding {
    pub id: String,
    pub status: Status,
    pub severity: Severity,
    pub why: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Benchmark {
    pub thoroughness: Thoroughness,
    pub simulated: bool,
    pub gpus: List<GpuSeen>,
    pub measurements: List<Measurement>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct GpuSeen {
    pub gpu: Gpu,
    pub cufile: Option<Cufile>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Gpu {
    pub cuda_version: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Cufile {
    pub version: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct Measurement {
    pub kind: Kind,
    pub purpose: Purpose,
    pub job: Job,
    pub bytes: u64,
    pub figures: Figures,
    #[serde(default)]
    pub proof: Option<Proof>,
}

impl Measurement {
    /// As [`crate::bench::results::Measurement::counts`].
    pub fn counts(&self) -> bool {
        matches!(self.purpose, Purpose::Figures | Purpose::Load | Purpose::Together) && self.bytes > 0
    }

    /// Was it proven to go by DMA?
    pub fn is_direct(&self) -> bool {
        self.proof.as_ref().is_some_and(|proof| proof.outcome == Outcome::Direct)
    }
}

#[derive(Debug, Deserialize)]
pub struct Job {
    pub direction: Direction,
    pub order: Order,
    pub block: u32,
    pub threads: u32,
}

#[derive(Debug, Deserialize)]
pub struct Proof {
    pub outcome: Outcome,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Facts {
    pub image: Known<Image>,
    pub kernel: Kernel,
    pub platform: Platform,
    pub cpu: Known<Cpu>,
    pub memory: Known<Memory>,
    pub pci: Known<List<Pci>>,
    pub numa_nodes: Known<List<u32>>,
    pub nvme: Known<List<Nvme>>,
    pub nvidia: Nvidia,
    pub dma: Known<Dma>,
    pub nvidia_fs: NvidiaFs,
    pub libraries: Known<List<Installed>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Image {
    pub profile: String,
    pub image_id: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Kernel {
    pub release: Known<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Platform {
    pub vendor: Known<String>,
    pub product: Known<String>,
    pub serial: Known<String>,
    pub uuid: Known<String>,
    pub board: Known<String>,
    pub firmware_version: Known<String>,
    pub firmware_date: Known<String>,
    pub hypervisor: Known<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Cpu {
    pub model_name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Memory {
    pub total: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pci {
    pub address: String,
    pub vendor: Known<Id>,
    pub device: Known<Id>,
    pub class: Known<Class>,
    pub numa_node: Known<i32>,
    pub link_width: Known<u32>,
    pub path: Known<PciPath>,
    pub config: Known<PciConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct PciConfig {
    pub simulated: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Nvme {
    pub model: Known<String>,
    pub serial: Known<String>,
    pub firmware: Known<String>,
    pub address: Known<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Nvidia {
    pub driver: Known<String>,
    pub version: Known<String>,
    pub gpus: Known<List<NvidiaGpu>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct NvidiaGpu {
    pub address: String,
    pub model: Known<String>,
    pub uuid: Known<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct NvidiaFs {
    pub version: Known<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Dma {
    pub libraries: List<Library>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Library {
    pub name: String,
    pub simulated: bool,
    pub calls: List<Call>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Call {
    pub function: String,
    pub value: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Installed {
    pub name: String,
    pub version: String,
}
