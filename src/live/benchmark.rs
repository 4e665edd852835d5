//! The benchmark of a run of the image: on all NVMe drives but the one that the machine booted from, which are only read,
//! and on scratch space where that was asked for. What is known so far is written down after each step.

use super::console::Consoles;
use super::report_partition::ReportPartition;
use super::scratch::{Scratch, Space, with_hint};
use crate::bench::drive::Opened;
use crate::bench::plan::{Plan, Thoroughness, Wish};
use crate::bench::results::{Cause, Level, Measurement, NotDone, Purpose, RawLine, Results};
use crate::bench::run::{self, JOB_GRACE, Listener, Means};
use crate::bench::survey::{Survey, Worker};
use crate::bench::workload::{self, Workload};
use crate::bench::{scratch, table};
use crate::boot_contract::{RUN_DMA, RUN_PROGRAMS, RUN_SAMPLES};
use crate::facts::{Facts, Root};
use crate::report::model::{Report, Settings};
use crate::report::utc::Utc;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// How often what is known so far is written to the report partition, at most.
const CHECKPOINT: Duration = Duration::from_secs(20);

/// What a run's benchmark needs to know.
#[derive(Debug)]
pub struct Subject<'a> {
    /// The machine.
    pub root: &'a Root,
    /// What was read of it.
    pub facts: &'a Facts,
    /// What was asked for.
    pub settings: &'a Settings,
    /// The operator's own programs.
    pub workloads: &'a [Workload],
    /// The kernel's names of disks and partitions that are not touched: what the machine booted from.
    pub keep: &'a [String],
    /// Where something may be written.
    pub scratch: &'a Scratch,
    /// Where the report goes, if there is such a place.
    pub partition: Option<&'a ReportPartition>,
    /// The report as it would be if the run ended here.
    pub so_far: Report,
}

/// Measures; `None` where nobody wants it.
pub fn measure(subject: Subject<'_>, consoles: &mut Consoles) -> Option<Results> {
    let Subject { root, facts, settings, workloads, keep, .. } = subject;
    if settings.bench == Thoroughness::None {
        return None;
    }
    count_transfers();
    let mut survey = Survey::default();
    let program = format!("/{RUN_DMA}");
    let worker = Worker { program: Path::new(&program), environment: &[] };
    if may_have_gpus(facts) {
        survey.gpus(Some(worker), &[]);
    }
    let spaces = subject.scratch.spaces();
    // A drive with a temporary file is measured by that: it holds what was written there, and one entry is enough.
    for name in
        namespaces(facts, keep).into_iter().filter(|name| spaces.iter().all(|space| space.disk != *name))
    {
        let target = scratch::for_reading(&Path::new("/dev").join(name));
        survey.drive(name, target.map(|target| Opened::new(facts, name, Level::ReadOnly, target)));
    }
    for Space { name, level, folder, bytes, .. } in &spaces {
        survey.scratch(name, Opened::temporary(facts, name, *level, folder, *bytes));
    }
    for (name, error) in &subject.scratch.refused {
        survey.scratch(name, Err(anyhow::anyhow!(with_hint(error))));
    }
    survey.measure_distances(facts);
    let programs = programs(subject.partition, workloads, &mut survey);
    let wish = Wish {
        thoroughness: settings.bench,
        own: Vec::new(),
        seconds: settings.bench_seconds,
        cpus: std::thread::available_parallelism()
            .map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX)),
        seed: crate::bench::seed(),
        gdsio: settings.gdsio.unwrap_or(settings.bench == Thoroughness::Full),
        workloads: workloads.to_vec(),
    };
    let plan = Plan::new(&wish, &survey.spaces(), &survey.addresses(), &survey.ranks());
    let headline = plan.headline(survey.gpus.len(), survey.drives.len());
    consoles.say(&format!("{} benchmark: {headline}", settings.bench.word()));
    let stop = AtomicBool::new(false);
    let means = Means {
        root,
        worker: Some(worker),
        workloads,
        programs: programs.as_deref(),
        stop: &stop,
        grace: JOB_GRACE,
    };
    let mut teller = Teller {
        consoles,
        partition: subject.partition,
        so_far: subject.so_far,
        samples: Vec::new(),
        written: Instant::now(),
    };
    let results = run::run(settings.bench, &plan, &survey, &means, &mut teller);
    teller.write_samples();
    Some(results)
}

/// The operator's programs, where they may be executed: on the report partition they may not.
fn programs(
    partition: Option<&ReportPartition>,
    workloads: &[Workload],
    survey: &mut Survey,
) -> Option<PathBuf> {
    let from = partition?.programs();
    if workloads.is_empty() || !from.is_dir() {
        return None;
    }
    let into = Path::new("/").join(RUN_PROGRAMS);
    let copied = workload::programs::copy(&from, &into);
    if let Err(error) = &copied {
        survey.not_done.push(NotDone {
            what: "copying the operator's programs".into(),
            gpu: None,
            drive: None,
            cause: Cause::Room,
            why: crate::error::one_line(error),
        });
    }
    copied.ok().map(|()| into)
}

/// Is it worth asking libcuda, which takes its time to find nothing?
fn may_have_gpus(facts: &Facts) -> bool {
    let imitations =
        facts.dma.value().is_some_and(|probe| probe.libraries.iter().any(|library| library.simulated));
    imitations || facts.pci.value().is_none_or(|devices| devices.iter().any(|device| device.is_nvidia_gpu()))
}

/// The NVMe namespaces that may be read, by the kernel's names, in the order of PCI addresses: controllers are numbered as they
/// are probed, several at once, so that their names change from boot to boot.
fn namespaces<'a>(facts: &'a Facts, keep: &[String]) -> Vec<&'a str> {
    let controllers = facts.nvme.value().into_iter().flatten();
    let local = controllers.filter(|nvme| nvme.transport.value().is_none_or(|transport| transport == "pcie"));
    let mut names: Vec<(Option<&str>, &str)> = local
        .flat_map(|nvme| {
            nvme.namespaces
                .iter()
                .map(|namespace| (nvme.address.value().map(String::as_str), namespace.name.as_str()))
        })
        .filter(|(_, name)| !keep.iter().any(|kept| kept == name || is_partition(kept, name)))
        .collect();
    names.sort_unstable();
    // Of several controllers with one namespace, the first.
    let mut seen = BTreeSet::new();
    names.into_iter().map(|(_, name)| name).filter(|name| seen.insert(*name)).collect()
}

/// `nvme0n1p3` is a partition of `nvme0n1`.
fn is_partition(name: &str, disk: &str) -> bool {
    name.strip_prefix(disk)
        .and_then(|rest| rest.strip_prefix('p'))
        .is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
}

/// Has nvidia-fs count transfers, where it is loaded. Without it there are cuFile's own counters.
fn count_transfers() {
    for name in ["rw_stats_enabled", "peer_stats_enabled"] {
        let _ = std::fs::write(format!("/sys/module/nvidia_fs/parameters/{name}"), "1");
    }
}

/// Tells the consoles, and keeps samples and results on the report partition.
struct Teller<'a> {
    consoles: &'a mut Consoles,
    partition: Option<&'a ReportPartition>,
    so_far: Report,
    samples: Vec<u8>,
    written: Instant,
}

impl Teller<'_> {
    fn write_samples(&mut self) {
        if let Some(partition) = self.partition
            && !self.samples.is_empty()
            && let Err(error) = partition.put(RUN_SAMPLES, &self.samples)
        {
            self.consoles.say(&format!("writing {RUN_SAMPLES}: {}", crate::error::one_line(&error)));
        }
    }
}

impl Listener for Teller<'_> {
    fn begins(&mut self, what: &str, seconds: f64) {
        self.consoles.say(&format!("{what} (some {seconds:.0} s)"));
    }

    fn measured(&mut self, measurement: &Measurement, raw: &RawLine) {
        if let Ok(mut line) = serde_json::to_vec(raw) {
            self.samples.append(&mut line);
            self.samples.push(b'\n');
        }
        let figures = &measurement.figures;
        if measurement.purpose != Purpose::WarmUp {
            self.consoles.say(&format!(
                "  {}, {}: {:.2} GiB/s, {:.3} CPU s/GiB{}",
                table::label(measurement),
                measurement.job,
                figures.gib_per_second,
                figures.cpu_seconds_per_gib,
                measurement
                    .first_error
                    .as_ref()
                    .map_or(String::new(), |error| format!(", FAILED: {}", error.what))
            ));
        }
    }

    fn ran(&mut self, program: &str, outcome: &str) {
        self.consoles.say(&format!("  {program}: {outcome}"));
    }

    fn not_done(&mut self, what: &NotDone) {
        self.consoles.say(&format!("  not done: {}: {}", what.what, what.why));
    }

    fn step_is_over(&mut self, results: &Results) {
        let Some(partition) = self.partition else { return };
        if self.written.elapsed() < CHECKPOINT {
            return;
        }
        let report = Report { benchmark: Some(results.clone()), finished: Utc::now(), ..self.so_far.clone() };
        // The run goes on whatever becomes of it: the last report is written anew.
        let _ = partition.write(&report);
        self.write_samples();
        self.written = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Fact;
    use crate::facts::nvme::NvmeNamespace;

    #[test]
    fn what_the_machine_booted_from_is_left_alone() {
        let namespace = |name: &str| {
            let not = || Fact::not_read("x");
            NvmeNamespace {
                name: name.into(),
                bytes: not(),
                block_size: Fact::not_read("x"),
                wwid: Fact::not_read("x"),
            }
        };
        let controller = |address: &str, names: &[&str]| crate::facts::nvme::NvmeController {
            namespaces: names.iter().map(|name| namespace(name)).collect(),
            ..crate::checks::testing::controller(address, "x")
        };
        let mut fabric = controller("0000:05:00.0", &["nvme9n1"]);
        fabric.transport = Fact::known("transport", "tcp".into());
        let controllers = vec![
            controller("0000:02:00.0", &["nvme0n1"]),
            controller("0000:01:00.0", &["nvme1n2", "nvme1n1"]),
            controller("0000:03:00.0", &["nvme10n1"]),
            // The other path to the same namespace.
            controller("0000:04:00.0", &["nvme0n1"]),
            fabric,
        ];
        let facts = Facts { nvme: Fact::known("/sys/class/nvme", controllers), ..Facts::default() };
        let keep = |names: &[&str]| {
            let keep: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            namespaces(&facts, &keep)
        };
        assert_eq!(keep(&[]), ["nvme1n1", "nvme1n2", "nvme0n1", "nvme10n1"]);
        assert_eq!(keep(&["nvme1n1", "vda"]), ["nvme1n2", "nvme0n1", "nvme10n1"]);
        assert_eq!(keep(&["nvme1n1p4"]), ["nvme1n2", "nvme0n1", "nvme10n1"]);
    }
}
