//! The validator as PID 1: from the initramfs to the verdict, and to the power switch. Read [`Run::go`] for the order.

mod report;
mod root;

use super::benchmark::{self, Subject};
use super::journal::{self, Journal};
use super::module_loader::ModuleLoader;
use super::network::Plan;
use super::params::Params;
use super::report_partition::ReportPartition;
use super::report_search::Place;
use super::scratch::{self, Scratch, with_hint};
use super::settings::{self, Asked};
use super::{luggage, mounts, nvidia_nodes, partition::Partition, power, shell, udev};
use crate::bench::plan::Thoroughness;
use crate::bench::results::{Results, StepTime};
use crate::bench::scratch::Live;
use crate::bench::workload::Workload;
use crate::boot_contract::{
    INITRAMFS_MODULES, ROOT_MODULES, RUN_BENCHMARK, RUN_DMA, RUN_LIBRARIES, RUN_MANIFEST, RUN_MODULE_LOADS,
};
use crate::facts::dma::DmaProbe;
use crate::facts::module_tree::ModuleTree;
use crate::facts::modules::ModuleLoad;
use crate::facts::{Fact, Facts, Root};
use crate::manifest::Manifest;
use crate::program;
use crate::report::events::What;
use crate::report::model::{After, Delivery, Settings, new_run_id};
use crate::report::utc::Utc;
use anyhow::{anyhow, bail};
use nix::sys::reboot::RebootMode;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// How long the libraries may take to answer; a driver that cannot start its GPU takes some 6 s for each try.
const PROBE_PATIENCE: Duration = Duration::from_secs(60);
/// Modules that make the report partition, the settings and the firmware's variables readable, where they are modules.
const HELPERS: [&str; 8] =
    ["nls_cp437", "nls_ascii", "nls_utf8", "nls_iso8859-1", "vfat", "dmi-sysfs", "qemu_fw_cfg", "efivarfs"];

/// Modules for a keyboard, which nothing but a shell needs.
const KEYBOARD: [&str; 4] = ["xhci_pci", "ehci_pci", "usbhid", "hid_generic"];

/// Runs the whole of it and ends the machine. Never returns: PID 1 must not end.
pub fn init() -> ! {
    journal::keep_panics();
    let mounted = mounts::kernel();
    let root = Root::live();
    let params = Params::parse(root.text("/proc/cmdline").value().map_or("", String::as_str));
    let mut run = Run::begin(root, params);
    if let Err(error) = mounted {
        run.journal.problem("init", crate::error::one_line(&error));
    }
    if catch_unwind(AssertUnwindSafe(|| run.go())).is_err() {
        run.journal.panic("init", journal::take_panic());
    }
    let after = catch_unwind(AssertUnwindSafe(|| run.end())).unwrap_or_default();
    let switched = match after {
        After::Poweroff | After::Shell => power::switch(RebootMode::RB_POWER_OFF),
        After::Reboot => power::switch(RebootMode::RB_AUTOBOOT),
        After::Hold => Ok(()),
    };
    if let Err(error) = switched {
        run.journal
            .consoles
            .say(&format!("the machine cannot switch itself off ({error}); everything is written"));
    }
    power::stay()
}

/// One run.
struct Run {
    root: Root,
    params: Params,
    journal: Journal,
    run_id: String,
    started: Utc,
    settings: Settings,
    workloads: Vec<Workload>,
    /// Where the report is sent, secrets and all.
    report_url: Option<String>,
    net: Plan,
    delivery: Option<Delivery>,
    facts: Facts,
    measured: Option<Results>,
    partition: Option<ReportPartition>,
    /// What that is mounted from.
    place: Option<Place>,
    /// Why the root could not be used.
    no_root: Option<String>,
}

impl Run {
    fn begin(root: Root, params: Params) -> Self {
        let mut journal = Journal::open(&root, params.break_in.clone());
        let run_id = new_run_id(&root);
        let kernel = root.text("/proc/sys/kernel/osrelease").to_string();
        journal
            .consoles
            .say(&format!("version {}, run {run_id}, kernel {kernel}", env!("CARGO_PKG_VERSION")));
        let gdsboot = env!("CARGO_PKG_VERSION").to_owned();
        journal.consoles.event(What::InitStarted { gdsboot, run_id: run_id.clone(), kernel });
        let Asked { settings, workloads, report_url, net } = settings::read(&root, None, &params);
        Self {
            root,
            params,
            journal,
            run_id,
            started: Utc::now(),
            settings,
            workloads,
            report_url,
            net,
            delivery: None,
            facts: Facts::default(),
            measured: None,
            partition: None,
            place: None,
            no_root: None,
        }
    }

    /// The recipe.
    fn go(&mut self) {
        self.unpack_luggage();
        self.load_initramfs_modules();
        let disk = self.find_root();
        // Before the root, so that one that fails leaves evidence. This may want for a module that only the root has.
        self.open_report_partition(disk.as_ref(), false);
        let entered = disk.as_ref().is_some_and(|disk| self.enter_root(disk));
        if entered {
            self.load_helpers();
        }
        self.open_report_partition(disk.as_ref(), true);
        self.read_settings();
        if entered {
            self.load_root_modules();
            self.checkpoint();
            self.start_devices();
            self.probe_libraries();
        }
        self.read_facts();
        if entered {
            self.benchmark(disk.as_ref());
        }
        self.leave_capture();
        self.deliver();
    }

    /// Lays gdsboot's own programs and the manifest where they outlive the initramfs.
    fn unpack_luggage(&mut self) {
        self.journal.stage("programs", |_| luggage::unpack());
        let manifest = self.root.bytes(&format!("/{RUN_MANIFEST}"));
        self.facts.image = manifest.parse(|bytes| Manifest::parse(&bytes));
    }

    /// Loads what the initramfs lists; the kernel's refusals are kept, and the run goes on.
    fn load_initramfs_modules(&mut self) {
        let root = self.root.clone();
        let loads = self.journal.stage("initramfs-modules", |journal| {
            let mut loader = ModuleLoader::new();
            match root.text(&format!("/{INITRAMFS_MODULES}")) {
                Fact::Known { value, .. } => {
                    for path in value.lines().map(str::trim).filter(|path| !path.is_empty()) {
                        loader.load_file(&root, path);
                    }
                }
                // A kernel with everything built in needs no list.
                Fact::Missing { .. } => {}
                other => bail!("reading the list of modules: {other}"),
            }
            tell(journal, &loader.loads);
            Ok(loader.loads)
        });
        self.facts.module_loads = Fact::known("finit_module", loads.unwrap_or_default());
    }

    fn tree(&self) -> anyhow::Result<ModuleTree> {
        let release = self.root.text("/proc/sys/kernel/osrelease");
        match ModuleTree::read(&self.root, release.value().map_or("", String::as_str)) {
            Fact::Known { value, .. } => Ok(value),
            other => Err(anyhow!("reading the module list: {}", other.map(|_| ""))),
        }
    }

    /// Loads what makes other things readable. Their absence shows in those things.
    fn load_helpers(&mut self) {
        let (root, tree) = (self.root.clone(), self.tree());
        self.journal.stage("helper-modules", |_| {
            let tree = tree?;
            let mut loader = ModuleLoader::new();
            for name in HELPERS {
                loader.load(&root, &tree, name);
            }
            mounts::firmware_variables();
            Ok(())
        });
    }

    fn read_settings(&mut self) {
        let (root, params) = (self.root.clone(), self.params.clone());
        let partition = self.partition.take();
        let asked = self.journal.stage("settings", |_| {
            let file = partition.as_ref().map(ReportPartition::settings).transpose()?.flatten();
            Ok(settings::read(&root, file.as_deref(), &params))
        });
        self.partition = partition;
        if let Some(Asked { settings, workloads, report_url, net }) = asked {
            (self.settings, self.workloads) = (settings, workloads);
            (self.report_url, self.net) = (report_url, net);
        }
        self.expect_the_screen();
    }

    /// Loads the modules that the image is about, by name.
    fn load_root_modules(&mut self) {
        let (root, tree) = (self.root.clone(), self.tree());
        let filesystems = scratch::modules(&self.settings);
        let loads = self.journal.stage("modules", |journal| {
            let names = match root.text(&format!("/{ROOT_MODULES}")) {
                Fact::Known { value, .. } => value,
                other => bail!("reading the list of modules: {other}"),
            };
            let tree = tree?;
            let mut loader = ModuleLoader::new();
            let names = names.lines().map(str::trim).filter(|name| !name.is_empty());
            for name in names.chain(filesystems.iter().copied()) {
                journal.consoles.say(&format!("loading {name}"));
                loader.load(&root, &tree, name);
            }
            tell(journal, &loader.loads);
            Ok(loader.loads)
        });
        if let Fact::Known { value, .. } = &mut self.facts.module_loads {
            value.extend(loads.into_iter().flatten());
        }
    }

    fn start_devices(&mut self) {
        let root = self.root.clone();
        self.journal.stage("udev", |journal| {
            if !udev::start()? {
                journal.consoles.say("the root has no udevd");
            }
            Ok(())
        });
        self.journal.stage("nvidia-nodes", |_| nvidia_nodes::make(&root).map(|_| ()));
    }

    fn probe_libraries(&mut self) {
        let worker = format!("/{RUN_DMA}");
        let from = format!("{worker} probe");
        let answer = self.journal.stage("libraries", |_| {
            let finished = program::run_ok(&worker, &["probe"], PROBE_PATIENCE)?;
            Ok(Fact::known(from.as_str(), finished.stdout).parse(|stdout| DmaProbe::parse(&stdout)))
        });
        self.facts.dma = answer.unwrap_or_else(|| Fact::Failed {
            from,
            why: self.journal.last_problem().map_or("unknown", |problem| problem.what.as_str()).to_owned(),
        });
    }

    /// Reads all facts; those that were made on the way are kept.
    fn read_facts(&mut self) {
        let (loads, dma) = (&self.facts.module_loads, &self.facts.dma);
        self.journal.stage("leave-facts", |_| {
            luggage::leave(RUN_MODULE_LOADS, loads)?;
            luggage::leave(RUN_LIBRARIES, dma)
        });
        let root = self.root.clone();
        if let Some(read) = self.journal.stage("facts", |_| Ok(Facts::read(&root))) {
            let loads = std::mem::take(&mut self.facts.module_loads);
            let dma = std::mem::take(&mut self.facts.dma);
            self.facts = Facts { module_loads: loads, dma, ..read };
        }
    }

    /// Makes transfers, and looks again at what they may have changed.
    fn benchmark(&mut self, disk: Option<&Partition>) {
        let so_far = self.report(false);
        // The report partition may be on another disk than the root.
        let kept = disk.into_iter().chain(self.place.as_ref().map(|place| &place.partition));
        let keep: Vec<String> = kept.flat_map(|kept| [kept.disk.clone(), kept.name.clone()]).collect();
        let (root, partition) = (self.root.clone(), self.partition.take());
        let machine = Live::new(root.clone());
        let scratch = self.make_scratch(&machine, &keep);
        let measured = self.journal.stage("benchmark", |journal| {
            let subject = Subject {
                root: &root,
                facts: &self.facts,
                settings: &self.settings,
                workloads: &self.workloads,
                keep: &keep,
                scratch: &scratch,
                partition: partition.as_ref(),
                so_far,
            };
            let measured = benchmark::measure(subject, &mut journal.consoles);
            measured.iter().try_for_each(|results| luggage::leave(RUN_BENCHMARK, results))?;
            Ok(measured)
        });
        self.partition = partition;
        self.measured = measured.flatten();
        self.close_scratch(scratch, &machine);
        if self.measured.is_some() {
            let facts = &mut self.facts;
            self.journal.stage("facts-again", |_| {
                facts.read_again(&root);
                Ok(())
            });
        }
    }

    /// Makes what the benchmark may write to, in a stage of its own: whatever becomes of the benchmark, that is given back.
    fn make_scratch(&mut self, machine: &Live, keep: &[String]) -> Scratch {
        let (root, settings) = (self.root.clone(), self.settings.clone());
        let is_wanted = settings.scratch_serial.is_some()
            || settings.scratch_filesystem.is_some()
            || settings.wipe.is_some();
        if settings.bench == Thoroughness::None || !is_wanted {
            return Scratch::default();
        }
        let made = self.journal.stage("scratch", |journal| {
            let made = Scratch::make(machine, &root, &settings, keep, &mut journal.consoles);
            for space in made.spaces() {
                journal.consoles.say(&format!("{}, {} MiB, is written to", space.name, space.bytes >> 20));
            }
            Ok(made)
        });
        made.unwrap_or_default()
    }

    /// Gives it back. What could not be is a problem that says what to do.
    fn close_scratch(&mut self, scratch: Scratch, machine: &Live) {
        if scratch.spaces().is_empty() {
            return;
        }
        let steps = self.journal.stage("scratch-back", |journal| {
            let mut steps = Vec::new();
            let begun = Instant::now();
            for result in scratch.close(machine) {
                match result {
                    Ok(what) => {
                        journal.consoles.say(&what);
                        let seconds = begun.elapsed().as_secs_f64();
                        steps.push(StepTime { what, planned_seconds: 0.0, seconds });
                    }
                    Err(error) => journal.problem("scratch-back", with_hint(&error)),
                }
            }
            Ok(steps)
        });
        if let Some(measured) = &mut self.measured {
            measured.steps.extend(steps.into_iter().flatten());
        }
    }

    /// Closes what is open, and says what happens next.
    fn end(&mut self) -> After {
        let after = self.settings.after;
        power::reap();
        if after == After::Shell {
            if let Ok(tree) = self.tree() {
                let mut loader = ModuleLoader::new();
                for name in KEYBOARD {
                    loader.load(&self.root, &tree, name);
                }
            }
            let shells = shell::run(&self.journal.consoles.names());
            if let Err(error) = shells {
                self.journal.problem("shell", crate::error::one_line(&error));
            }
        }
        power::end_processes();
        if let Some(partition) = self.partition.take()
            && let Err(error) = partition.close()
        {
            self.journal.problem("report-partition", crate::error::one_line(&error));
        }
        nix::unistd::sync();
        self.journal.consoles.event(What::PowerOff { action: after });
        after
    }
}

/// Says how loading went.
fn tell(journal: &mut Journal, loads: &[ModuleLoad]) {
    let refused = loads.iter().filter(|load| !load.outcome.is_in());
    let refused: Vec<String> =
        refused.map(|load| format!("{}: {}", load.name, load.outcome.words())).collect();
    let loaded = u32::try_from(loads.len() - refused.len()).unwrap_or(u32::MAX);
    for line in &refused {
        journal.consoles.say(&format!("module {line}"));
    }
    journal.consoles.event(What::ModulesLoaded { loaded, refused });
}
