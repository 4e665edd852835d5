//! One run as a row of a table.

use super::light;
use crate::bench::plan::Thoroughness;
use crate::bench::results::{Kind, Purpose};
use crate::bench::transfer::job::{Direction, Order};
use crate::bench::transfer::measurement::Figures;
use crate::checks::check::{Severity, Side, Status};
use crate::facts::pci::NVIDIA;
use crate::report::json;
use crate::report::model::{SCHEMA, Verdict};
use crate::report::utc::Utc;
use crate::topology::labels::nvidia_smi;
use crate::topology::place::Place;
use anyhow::{Context as _, Result};
use std::collections::BTreeMap;

/// What manufacturers leave where a serial number should be.
const NO_SERIAL: [&str; 11] = [
    "to be filled by o.e.m.",
    "default string",
    "system serial number",
    "serial number",
    "not specified",
    "not applicable",
    "not available",
    "none",
    "n/a",
    "0123456789",
    "123456789",
];
/// A machine has fewer pairs of a GPU and a drive. Where a report claims more, how far they are apart is left open.
const MOST_PAIRS: usize = 65_536;
/// The measurement that latencies and CPU time are taken from, and no other: how fast a run was says which of several would be
/// taken else. Every plan has it: sequential reads of so many bytes, by so many threads where the machine has the CPUs.
const FIXED_BLOCK: u32 = 1 << 20;
const FIXED_THREADS: u32 = 4;
/// A UUID that many boards have.
const NO_UUID: &str = "03000200-0400-0500-0006-000700080009";

/// One run. Texts are as the report has them, without spaces at their ends.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// What the machine is called: its serial number, else its UUID, else its GPUs or drives.
    pub machine: String,
    /// [`crate::report::model::Report::run_id`].
    pub run_id: String,
    /// When the run began, by the machine's clock.
    pub started: Utc,
    /// When its verdict was reached.
    pub finished: Utc,
    /// Did it come to its end?
    pub complete: bool,
    /// Did devices or libraries that imitate NVIDIA's take part?
    pub simulated: bool,
    /// The verdict.
    pub verdict: Option<Verdict>,
    /// The route that was proven.
    pub route: String,
    /// From which side the machine was looked at.
    pub side: Option<String>,
    /// The first finding that must be mended.
    pub cause: Option<String>,
    /// Its reason.
    pub why: Option<String>,
    /// All findings that failed.
    pub failed: Vec<String>,
    /// How the machine differs from the others like it.
    pub deviations: Vec<String>,
    /// Who built the machine.
    pub vendor: Option<String>,
    /// Its product name.
    pub product: Option<String>,
    /// Its main board.
    pub board: Option<String>,
    /// Its serial number, where that is one.
    pub serial: Option<String>,
    /// Its UUID, where that is one.
    pub uuid: Option<String>,
    /// What its hypervisor calls itself.
    pub hypervisor: Option<String>,
    /// The firmware's version.
    pub firmware: Option<String>,
    /// The firmware's date.
    pub firmware_date: Option<String>,
    /// The CPU's name.
    pub cpu: Option<String>,
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// PCI ids of NVIDIA's GPUs, by PCI address. They are no column: a driver that names the GPUs does not change them.
    pub gpu_ids: Vec<String>,
    /// How thorough the benchmark was, where there was one. No column.
    pub thoroughness: Option<Thoroughness>,
    /// NVIDIA's GPUs, by PCI address.
    pub gpu_models: Vec<String>,
    /// How wide their links are now.
    pub gpu_links: Vec<String>,
    /// NVMe drives, by PCI address.
    pub nvme_models: Vec<String>,
    /// Their firmware.
    pub nvme_firmware: Vec<String>,
    /// How wide their links are now.
    pub nvme_links: Vec<String>,
    /// How far each GPU is from each NVMe controller in nvidia-smi's words, counted: `4 PIX`, `12 SYS`.
    pub topology: Vec<String>,
    /// The kernel.
    pub kernel: Option<String>,
    /// NVIDIA's driver.
    pub driver: Option<String>,
    /// Are its kernel modules the open ones?
    pub driver_open: Option<bool>,
    /// nvidia-fs.
    pub nvidia_fs: Option<String>,
    /// libcufile.
    pub cufile: Option<String>,
    /// libcuda.
    pub cuda: Option<String>,
    /// gdsboot, which wrote the report.
    pub gdsboot: String,
    /// The image's profile.
    pub profile: Option<String>,
    /// Which image it is.
    pub image_id: Option<String>,
    /// The best throughput of reads that were proven to be direct, in GiB/s.
    pub direct_gib_s: Option<f64>,
    /// CPU seconds for each GiB in sequential reads of 1 MiB, the median of all pairs.
    pub direct_cpu_s_per_gib: Option<f64>,
    /// Latency that 99 of 100 of those reads kept, in microseconds.
    pub direct_p99_us: Option<f64>,
    /// The best throughput of reads by way of the CPU's memory.
    pub bounce_gib_s: Option<f64>,
    /// CPU seconds for each GiB, as for the direct ones.
    pub bounce_cpu_s_per_gib: Option<f64>,
    /// The best throughput of reads from a drive alone.
    pub storage_gib_s: Option<f64>,
    /// The best throughput from the CPU's memory into a GPU.
    pub host_copy_gib_s: Option<f64>,
    /// Where the report was read.
    pub source: String,
}

impl Row {
    /// Reads a report.
    ///
    /// # Errors
    /// As [`json::read`], as far as a table of a fleet needs it.
    pub fn read(bytes: &[u8], source: &str) -> Result<Self> {
        match serde_json::from_slice::<light::Report>(bytes) {
            Ok(report) if report.schema <= SCHEMA => Ok(Self::of(report, source)),
            // Bytes are gone through a second time only to say what is wrong.
            refused => {
                json::check_schema(bytes)?;
                refused.context("reading the report").map(|report| Self::of(report, source))
            }
        }
    }

    fn of(report: light::Report, source: &str) -> Self {
        let light::Report { findings, benchmark, facts, .. } = report;
        let simulated = is_simulated(&facts, benchmark.as_ref());
        let fails = |finding: &&light::Finding| matches!(finding.status, Status::Fail | Status::Error);
        let cause = findings.iter().filter(fails).find(|finding| finding.severity <= Severity::Major);
        let devices = Devices::of(&facts);
        let thoroughness = benchmark.as_ref().map(|bench| bench.thoroughness);
        let bench = benchmark.unwrap_or_default();
        let direct = best(&bench, |m| m.is_direct());
        let bounce = best(&bench, |m| m.kind == Kind::Bounce);
        let fixed_direct = fixed(&bench, |m| m.kind == Kind::Cufile && m.is_direct());
        let fixed_bounce = fixed(&bench, |m| m.kind == Kind::Bounce);
        let cufile = bench.gpus.iter().find_map(|seen| seen.cufile.as_ref()?.version.clone());
        let cuda = bench.gpus.iter().find_map(|seen| seen.gpu.cuda_version.clone());
        let installed = facts.libraries.value.unwrap_or_default();
        let named = installed.iter().find(|it| it.name == "libcufile" && it.version.contains('.'));
        let asked = || {
            let libraries = &facts.dma.value.as_ref()?.libraries;
            let cuda = libraries.iter().find(|library| library.name == "libcuda.so.1")?;
            cuda.calls.iter().find(|call| call.function == "cuDriverGetVersion")?.value.clone()
        };
        let platform = facts.platform;
        let (serial, uuid) = (serial(text(platform.serial)), uuid(text(platform.uuid)));
        let machine = serial.clone().or_else(|| uuid.clone()).or_else(|| devices.identity.clone());
        let driver_line = text(facts.nvidia.driver).filter(|line| line.contains("NVRM version"));
        Self {
            machine: machine.unwrap_or_else(|| format!("run {}", report.run_id)),
            run_id: report.run_id,
            started: report.started,
            finished: report.finished,
            complete: report.complete,
            simulated,
            verdict: Some(report.verdict),
            route: report.route.to_string(),
            side: report.side.map(|side| side_word(side).into()),
            cause: cause.map(|finding| finding.id.clone()),
            why: cause.map(|finding| finding.why.clone()),
            failed: findings.iter().filter(fails).map(|finding| finding.id.clone()).collect(),
            deviations: Vec::new(),
            vendor: text(platform.vendor),
            product: text(platform.product),
            board: text(platform.board),
            serial,
            uuid,
            hypervisor: text(platform.hypervisor),
            firmware: text(platform.firmware_version),
            firmware_date: text(platform.firmware_date),
            cpu: facts.cpu.value.map(|cpu| cpu.model_name).filter(|name| !name.is_empty()),
            memory_bytes: facts.memory.value.map(|memory| memory.total),
            gpu_ids: devices.gpu_ids,
            thoroughness,
            gpu_models: devices.gpu_models,
            gpu_links: devices.gpu_links,
            nvme_models: devices.nvme_models,
            nvme_firmware: devices.nvme_firmware,
            nvme_links: devices.nvme_links,
            topology: devices.topology,
            kernel: text(facts.kernel.release),
            driver: text(facts.nvidia.version),
            driver_open: driver_line.map(|line| line.contains("Open Kernel Module")),
            nvidia_fs: text(facts.nvidia_fs.version),
            cufile: cufile.or_else(|| named.map(|library| library.version.clone())),
            cuda: cuda.or_else(asked),
            gdsboot: report.gdsboot,
            profile: facts.image.value.as_ref().map(|image| image.profile.clone()),
            image_id: facts.image.value.map(|image| image.image_id),
            direct_gib_s: direct,
            direct_cpu_s_per_gib: middle(&fixed_direct, |figures| figures.cpu_seconds_per_gib),
            direct_p99_us: middle(&fixed_direct, |figures| figures.p99_us),
            bounce_gib_s: bounce,
            bounce_cpu_s_per_gib: middle(&fixed_bounce, |figures| figures.cpu_seconds_per_gib),
            storage_gib_s: best(&bench, |m| m.kind == Kind::Storage),
            host_copy_gib_s: best(&bench, |m| m.kind == Kind::HostCopy),
            source: source.to_owned(),
        }
    }
}

/// As [`crate::checks::judge::is_simulated`].
fn is_simulated(facts: &light::Facts, bench: Option<&light::Benchmark>) -> bool {
    let mut devices = facts.pci.value.iter().flat_map(|list| list.iter());
    devices.any(|device| device.config.value.as_ref().is_some_and(|config| config.simulated))
        || bench.is_some_and(|bench| bench.simulated)
        || facts.dma.value.as_ref().is_some_and(|dma| dma.libraries.iter().any(|library| library.simulated))
}

/// What the GPUs and drives of a machine are, each list in one order.
#[derive(Default)]
struct Devices {
    gpu_ids: Vec<String>,
    gpu_models: Vec<String>,
    gpu_links: Vec<String>,
    nvme_models: Vec<String>,
    nvme_firmware: Vec<String>,
    nvme_links: Vec<String>,
    topology: Vec<String>,
    /// What tells the machine from others where its firmware does not.
    identity: Option<String>,
}

impl Devices {
    fn of(facts: &light::Facts) -> Self {
        let pci: Vec<&light::Pci> = facts.pci.value.iter().flat_map(|list| list.iter()).collect();
        let driver = facts.nvidia.gpus.value.as_deref().unwrap_or_default();
        // The kernel counts drives as it finds them; their addresses stay.
        let mut drives: Vec<&light::Nvme> = facts.nvme.value.iter().flat_map(|list| list.iter()).collect();
        drives.sort_by_key(|drive| drive.address.value.as_deref());
        let mut all = Self::default();
        let width =
            |device: &light::Pci| device.link_width.value.map_or("?".into(), |width| format!("x{width}"));
        let is_gpu = |device: &&&light::Pci| {
            device.vendor.value == Some(NVIDIA) && device.class.value.is_some_and(|class| class.is_display())
        };
        let gpus: Vec<&&light::Pci> = pci.iter().filter(is_gpu).collect();
        for device in &gpus {
            let known = driver.iter().find(|gpu| gpu.address.eq_ignore_ascii_case(&device.address));
            let model = known.and_then(|gpu| gpu.model.value.clone());
            let id = device.device.value.map_or_else(|| "?".into(), |id| id.to_string());
            all.gpu_ids.push(format!("10de:{id}"));
            all.gpu_models.push(model.unwrap_or_else(|| format!("10de:{id}")));
            all.gpu_links.push(width(device));
        }
        let trimmed = |known: &light::Known<String>| known.value.as_deref().map_or("?", str::trim).to_owned();
        for drive in &drives {
            all.nvme_models.push(trimmed(&drive.model));
            all.nvme_firmware.push(trimmed(&drive.firmware));
            let device = pci.iter().find(|device| Some(&device.address) == drive.address.value.as_ref());
            all.nvme_links.push(device.map_or("?".into(), |device| width(device)));
        }
        all.topology = distances(&gpus, &pci, facts.numa_nodes.value.as_ref().map(|nodes| nodes.len()));
        let uuid = driver.iter().find_map(|gpu| gpu.uuid.value.clone()).filter(|uuid| !uuid.contains('?'));
        let serial = || drives.iter().find_map(|drive| serial(drive.serial.value.clone()));
        all.identity = uuid.or_else(|| serial().map(|serial| format!("drive {serial}")));
        all
    }
}

/// nvidia-smi's words for all pairs of a GPU and an NVMe controller, counted.
fn distances(gpus: &[&&light::Pci], pci: &[&light::Pci], nodes: Option<usize>) -> Vec<String> {
    let is_nvme = |device: &&&light::Pci| device.class.value.is_some_and(|class| class.is_nvme());
    let drives: Vec<Option<Place>> = pci.iter().filter(is_nvme).map(|drive| place(drive)).collect();
    let gpus: Vec<Option<Place>> = gpus.iter().map(|gpu| place(gpu)).collect();
    if gpus.len() * drives.len() > MOST_PAIRS {
        return Vec::new();
    }
    let nodes = nodes.filter(|nodes| *nodes > 0);
    let mut words: BTreeMap<String, usize> = BTreeMap::new();
    for (drive, gpu) in drives.iter().flat_map(|drive| gpus.iter().map(move |gpu| (drive, gpu))) {
        let both = gpu.as_ref().zip(drive.as_ref());
        let word = both.and_then(|(gpu, drive)| nvidia_smi(gpu, drive, nodes));
        *words.entry(word.map_or("?".into(), |word| word.to_string())).or_default() += 1;
    }
    words.into_iter().map(|(word, count)| format!("{count} {word}")).collect()
}

fn place(device: &light::Pci) -> Option<Place> {
    let path = device.path.value.as_ref()?;
    Some(Place {
        address: device.address.clone(),
        root: path.root.clone(),
        bridges: path.bridges.clone(),
        numa_node: device.numa_node.value,
    })
}

/// GiB/s of the fastest read of a kind.
fn best(bench: &light::Benchmark, is: impl Fn(&light::Measurement) -> bool) -> Option<f64> {
    let reads =
        bench.measurements.iter().filter(|m| m.counts() && m.job.direction == Direction::Read && is(m));
    reads.map(|m| m.figures.gib_per_second).max_by(f64::total_cmp)
}

/// The figures of the one job that is the same in every run, of all pairs.
fn fixed(bench: &light::Benchmark, is: impl Fn(&light::Measurement) -> bool) -> Vec<Figures> {
    let is_fixed = |m: &&light::Measurement| {
        let light::Job { direction, order, block, threads } = m.job;
        let job = (direction, order, block) == (Direction::Read, Order::Sequential, FIXED_BLOCK);
        m.counts() && m.purpose == Purpose::Figures && job && threads <= FIXED_THREADS && is(m)
    };
    let most = bench.measurements.iter().filter(is_fixed).map(|m| m.job.threads).max();
    bench
        .measurements
        .iter()
        .filter(is_fixed)
        .filter(|m| Some(m.job.threads) == most)
        .map(|m| m.figures)
        .collect()
}

/// The median of a figure, where there are any.
fn middle(all: &[Figures], figure: fn(&Figures) -> f64) -> Option<f64> {
    (!all.is_empty()).then(|| median(all.iter().map(figure).collect()))
}

/// The middle of at least one number; the mean of the two that are.
pub(super) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    match numbers.len().is_multiple_of(2) {
        true => f64::midpoint(numbers[middle - 1], numbers[middle]),
        false => numbers[middle],
    }
}

fn text(known: light::Known<String>) -> Option<String> {
    known.value.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn side_word(side: Side) -> &'static str {
    match side {
        Side::Guest => "guest",
        Side::Host => "host",
        Side::BareMetal => "bare-metal",
    }
}

/// A serial number that is one.
fn serial(text: Option<String>) -> Option<String> {
    text.map(|text| text.trim().to_owned()).filter(|text| {
        let is_one_letter = text.chars().all(|letter| text.starts_with(letter));
        !is_one_letter && !NO_SERIAL.iter().any(|none| text.eq_ignore_ascii_case(none))
    })
}

/// A UUID that is one.
fn uuid(text: Option<String>) -> Option<String> {
    text.map(|text| text.to_ascii_lowercase()).filter(|text| {
        let digits: Vec<char> = text.chars().filter(|letter| *letter != '-').collect();
        text != NO_UUID && digits.iter().any(|digit| Some(digit) != digits.first())
    })
}

#[cfg(test)]
#[path = "row_tests.rs"]
pub(crate) mod tests;
