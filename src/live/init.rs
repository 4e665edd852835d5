//! The validator as PID 1: from the initramfs to the verdict, and to the power switch. Read [`Run::go`] for the order.

use super::benchmark::{self, Subject};
use super::delivery::{self, Parcel};
use super::journal::{self, Journal};
use super::module_loader::ModuleLoader;
use super::network::Plan;
use super::params::{Params, RootPlace};
use super::partition::{self, Partition};
use super::report_partition::ReportPartition;
use super::report_search::{Place, Rank, Search};
use super::scratch::{self, Scratch, with_hint};
use super::settings::{self, Asked};
use super::{iso_root, luggage, mounts, network_root, nvidia_nodes, power, shell, switch_root, udev, verify};
use crate::bench::plan::Thoroughness;
use crate::bench::results::{Results, StepTime};
use crate::bench::route::Route;
use crate::bench::scratch::Live;
use crate::bench::workload::Workload;
use crate::boot_contract::{
    INITRAMFS_MODULES, REPORT_LABEL, ROOT_MODULES, RUN_BENCHMARK, RUN_CAPTURE, RUN_DMA, RUN_LIBRARIES,
    RUN_MANIFEST, RUN_MODULE_LOADS, RUN_REPORT_TEXT,
};
use crate::checks::context::side_of;
use crate::checks::judge::judge;
use crate::facts::capture::capture;
use crate::facts::dma::DmaProbe;
use crate::facts::module_tree::ModuleTree;
use crate::facts::modules::ModuleLoad;
use crate::facts::{Fact, Facts, Root};
use crate::manifest::Manifest;
use crate::program;
use crate::report::events::What;
use crate::report::model::{
    After, Delivery, Report, SCHEMA, Settings, Verdict, folder_name, new_run_id, reasons,
};
use crate::report::utc::Utc;
use crate::report::{json, screen, text};
use anyhow::{Context as _, anyhow, bail};
use nix::sys::reboot::RebootMode;
use std::io::Read as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// How long the disk may take to appear: USB sticks behind hubs are the slowest.
const DISK_PATIENCE: Duration = Duration::from_secs(30);
/// How long the libraries may take to answer; a driver that cannot start its GPU takes some 6 s for each try.
const PROBE_PATIENCE: Duration = Duration::from_secs(60);
/// Modules that make the report partition, the settings and the firmware's variables readable, where they are modules.
const HELPERS: [&str; 8] =
    ["nls_cp437", "nls_ascii", "nls_utf8", "nls_iso8859-1", "vfat", "dmi-sysfs", "qemu_fw_cfg", "efivarfs"];

/// Modules for a keyboard, which nothing but a shell needs.
const KEYBOARD: [&str; 4] = ["xhci_pci", "ehci_pci", "usbhid", "hid_generic"];

/// The step that sends the report.
const SEND: &str = "send-report";

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

    fn find_root(&mut self) -> Option<Partition> {
        if let Some(RootPlace::Url(url)) = self.params.root.clone() {
            return self.fetch_root(&url);
        }
        let (root, params) = (self.root.clone(), self.params.clone());
        let found = self.journal.stage("find-root", |journal| {
            let place =
                params.root.context("reading the kernel command line: it names no root (gdsboot.root)")?;
            journal.consoles.say(&format!("looking for the root: {place}"));
            let found = match &place {
                RootPlace::Partition(uuid) => partition::wait_for(&root, uuid, DISK_PATIENCE),
                RootPlace::Iso(volume) => iso_root::wait_for(&root, volume, DISK_PATIENCE),
                RootPlace::Url(_) => Vec::new(),
            };
            if let [first, second, ..] = found.as_slice() {
                let both =
                    format!("{} and {} both have the {place}; taking the first", first.name, second.name);
                journal.problem("find-root", both);
            }
            let first = found.into_iter().next();
            let seconds = DISK_PATIENCE.as_secs();
            let first = first
                .with_context(|| format!("waiting for the root: no disk has a {place} after {seconds} s"))?;
            journal.consoles.event(What::RootFound { device: first.device().display().to_string() });
            match place {
                RootPlace::Partition(_) | RootPlace::Url(_) => Ok(first),
                RootPlace::Iso(_) => iso_root::attach(&first),
            }
        });
        self.because_of_root(found)
    }

    fn fetch_root(&mut self, url: &str) -> Option<Partition> {
        let (root, size, net) = (self.root.clone(), self.params.root_size, self.net.clone());
        let fetched = self.journal.stage("fetch-root", |journal| {
            let size =
                size.context("reading the kernel command line: it names no size (gdsboot.root-size)")?;
            journal.consoles.say(&format!("fetching the root from {url}"));
            let mut say = |text: &str| journal.consoles.say(text);
            // The journal keeps the error alone, and what to do belongs to it.
            let fetched = network_root::fetch(&root, url, size, &net, &mut say);
            let disk = fetched.map_err(|error| anyhow!(with_hint(&error)))?;
            journal.consoles.event(What::RootFound { device: disk.device().display().to_string() });
            Ok(disk)
        });
        self.because_of_root(fetched)
    }

    /// Mounts the best report partition that can be written to and begins the run's folder on it. A better one may appear
    /// late, and then the run moves there. Only the last look waits, and complains.
    fn open_report_partition(&mut self, booted: Option<&Partition>, is_last: bool) {
        let search = Search { root: &self.root, own: self.params.report.as_deref(), booted };
        if let Some(place) = &self.place
            && search.best().is_none_or(|best| best.rank >= place.rank)
        {
            return;
        }
        if let Some(partition) = self.partition.take() {
            self.place = None;
            if let Err(error) = partition.withdraw() {
                self.journal.problem("report-partition", crate::error::one_line(&error));
            }
        }
        // A report that is sent need not lie on a disk of a machine that booted without one.
        let may_lack = self.is_from_network() && self.report_url.is_some();
        let found = if is_last && !may_lack { search.open_at_last() } else { search.open() };
        if is_last {
            found.refused.iter().for_each(|why| self.journal.problem("report-partition", why.clone()));
        }
        let Some((mounted, place)) = found.opened else { return };
        if let Some(both) = found.same {
            self.journal.problem("report-partition", both);
        }
        let report = self.report(false);
        self.partition = self.journal.stage("report-partition", |journal| {
            let partition = ReportPartition::begin(&mounted, &report)?;
            journal.consoles.say(&format!("the report goes to {place}"));
            journal.consoles.event(What::StartedWritten { path: partition.folder() });
            Ok(partition)
        });
        if self.partition.is_some() {
            self.place = Some(place);
        } else {
            // What cannot be written to must not stay mounted; that it failed is told already.
            let _ = mounts::unmount(&mounted);
        }
    }

    /// Verifies the root and makes it `/`.
    fn enter_root(&mut self, disk: &Partition) -> bool {
        let params = self.params.clone();
        let verified = self.journal.stage("verify-root", |journal| verify_root(journal, &params, disk));
        let entered = verified.and_then(|()| {
            self.journal.stage("enter-root", |_| {
                switch_root::enter(&disk.device())?;
                mounts::scratch()
            })
        });
        self.because_of_root(entered).is_some()
    }

    /// Remembers the last problem as the reason why there is no root, where `value` is missing.
    fn because_of_root<T>(&mut self, value: Option<T>) -> Option<T> {
        if value.is_none() {
            let what = self.journal.last_problem().map_or("unknown", |problem| problem.what.as_str());
            self.no_root = Some(format!("the image's root cannot be used: {what}"));
        }
        value
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
        self.stay_for_the_screen();
    }

    /// Where the report of an ISO, or of a machine that booted from the network, has nowhere to go, somebody has to read the
    /// screen: unless another thing was asked for, the machine is not switched off.
    fn stay_for_the_screen(&mut self) {
        let has_none = matches!(self.params.root, Some(RootPlace::Iso(_))) || self.is_from_network();
        let may_be_sent = self.report_url.is_some() && self.no_root.is_none();
        let is_sent = self.delivery.as_ref().map_or(may_be_sent, |delivery| delivery.sent);
        let is_default = self.settings.after_from == settings::DEFAULT;
        if has_none && self.partition.is_none() && !is_sent && is_default {
            self.settings.after = After::Hold;
            self.settings.after_from = "the report is on the screen alone".into();
        }
    }

    fn is_from_network(&self) -> bool {
        matches!(self.params.root, Some(RootPlace::Url(_)))
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

    /// Leaves on the disk what is known so far.
    fn checkpoint(&mut self) {
        if let Some(partition) = self.partition.take() {
            let report = self.report(false);
            self.journal.stage("checkpoint", |_| partition.write(&report));
            self.partition = Some(partition);
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

    /// Leaves a capture beside the report, where one was asked for.
    fn leave_capture(&mut self) {
        if !self.settings.capture {
            return;
        }
        // A capture asks programs, and one that hangs the machine must not cost what is known.
        self.checkpoint();
        if let Some(partition) = &self.partition {
            self.journal.stage("capture", |journal| {
                journal.consoles.say(&format!("writing {}/{RUN_CAPTURE}", partition.folder()));
                let mut packed = zstd::Encoder::new(Vec::new(), 9).context("compressing the capture")?;
                capture(&mut packed, true)?;
                partition.put(RUN_CAPTURE, &packed.finish().context("compressing the capture")?)
            });
        }
    }

    /// The report as of now.
    fn report(&self, complete: bool) -> Report {
        let mut why: Vec<String> = self.no_root.clone().into_iter().collect();
        // Sending comes when all is known, and never changes it.
        let panics = self.journal.problems.iter().filter(|problem| problem.panic && problem.stage != SEND);
        why.extend(
            panics.map(|problem| {
                format!("a bug in gdsboot ended its step {}: {}", problem.stage, problem.what)
            }),
        );
        let mut side = None;
        let mut findings = Vec::new();
        let mut verdict = Verdict::Incomplete;
        let mut route = Route::None;
        if complete {
            let side_of = side_of(&self.facts);
            let bench = self.measured.as_ref();
            let judgement = judge(&self.facts, side_of, bench, &self.settings.waive, &Utc::now().day());
            // Where the run itself broke, nothing that it did not see counts against the machine.
            if why.is_empty() {
                (verdict, route) = (judgement.verdict, judgement.route);
            }
            why.extend(reasons(&judgement.findings));
            side = Some(judgement.side);
            findings = judgement.findings;
            if why.is_empty() && verdict != Verdict::Pass {
                why.push("every prerequisite that was looked at is there, but no transfer is proven".into());
            }
        } else {
            let last = self.journal.stages.last().map_or("the start", |stage| stage.name.as_str());
            why.push(format!("the run did not come to its end; the last step that did is {last}"));
        }
        Report {
            schema: SCHEMA,
            gdsboot: env!("CARGO_PKG_VERSION").into(),
            run_id: self.run_id.clone(),
            started: self.started,
            finished: Utc::now(),
            complete,
            verdict,
            route,
            why,
            side,
            findings,
            settings: self.settings.clone(),
            stages: self.journal.stages.clone(),
            problems: self.journal.problems.clone(),
            delivery: self.delivery.clone(),
            benchmark: self.measured.clone(),
            facts: self.facts.clone(),
        }
    }

    /// Writes the report, sends it, shows the verdict.
    fn deliver(&mut self) {
        let mut report = self.report(true);
        let mut written = self.write_report(&report);
        if self.send_report(&report) {
            self.stay_for_the_screen();
            // What was written before it was sent cannot say what became of that.
            report = self.report(true);
            if written.is_some() {
                written = self.write_report(&report);
            }
        }
        let place = match (&written, &self.delivery) {
            (Some(folder), delivery) => {
                let disk = match &self.place {
                    Some(Place { rank: Rank::Own, .. }) | None => String::new(),
                    Some(place) => format!(" of {}", place.partition.disk),
                };
                // The screen has no room for where to; the report says that.
                let sent = match delivery {
                    Some(delivery) if delivery.sent => "; sent",
                    Some(_) => "; NOT sent",
                    None if self.report_url.is_some() => "; NOT sent",
                    None => "",
                };
                format!("{folder}/{RUN_REPORT_TEXT} on the partition {REPORT_LABEL}{disk}{sent}")
            }
            (None, Some(delivery)) if delivery.sent => delivery.words(),
            (None, _) => {
                report = self.report(true);
                self.say_report(&report);
                match self.partition {
                    Some(_) => "could not be written; the whole text stands on the serial line".into(),
                    None => format!(
                        "nowhere: no {REPORT_LABEL} can be written to. The serial line has all of it, the code the \
                         verdict"
                    ),
                }
            }
        };
        self.journal.consoles.screen(|style| screen::render(&report, &place, style));
        self.journal.consoles.event(What::Verdict {
            verdict: report.verdict,
            route: report.route,
            simulated: report.is_simulated(),
            exit_status: report.verdict.status() as u8,
            run_id: report.run_id,
            path: written,
        });
    }

    /// The run's folder, where it was written.
    fn write_report(&mut self, report: &Report) -> Option<String> {
        let partition = self.partition.take()?;
        let written = self.journal.stage("write-report", |_| {
            partition.write(report)?;
            Ok(partition.folder())
        });
        self.partition = Some(partition);
        written
    }

    /// Sends the report where that was asked for; whether it was. The network is started for that alone, so that nothing is
    /// measured beside it.
    fn send_report(&mut self, report: &Report) -> bool {
        let Some(url) = self.report_url.clone() else { return false };
        if self.no_root.is_some() {
            let shown = crate::redact::url(&url);
            let why = format!("the report was NOT sent to {shown}: what sends it lies in the root");
            self.journal.problem(SEND, why);
            return true;
        }
        let (root, net, settings) = (self.root.clone(), self.net.clone(), self.settings.clone());
        let mounted = self.partition.as_ref().map(|partition| partition.root().to_owned());
        let folder = folder_name(report.started, &report.run_id);
        self.delivery = self.journal.stage(SEND, |journal| {
            let ca = settings.report_ca.as_deref().map(|name| delivery::ca_file(mounted.as_deref(), name));
            let ca = ca.transpose()?;
            let mut bytes = Vec::new();
            json::write(report, &mut bytes)?;
            let parcel = Parcel {
                url: &url,
                run_id: &report.run_id,
                folder: &folder,
                report: &bytes,
                ca: ca.as_deref(),
                net: &net,
                seconds: settings.report_seconds,
            };
            let delivery = delivery::send(&root, &parcel, &mut |text| journal.consoles.say(text));
            match &delivery.error {
                Some(_) => journal.problem(SEND, format!("the report was {}", delivery.words())),
                None => journal.consoles.say(&format!("the report was {}", delivery.words())),
            }
            Ok(delivery)
        });
        true
    }

    fn say_report(&mut self, report: &Report) {
        let mut bytes = Vec::new();
        if text::write(report, &mut bytes).is_ok() {
            self.journal.consoles.text_report(&String::from_utf8_lossy(&bytes));
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

fn verify_root(journal: &mut Journal, params: &Params, disk: &Partition) -> anyhow::Result<()> {
    let context = "reading the kernel command line";
    let size =
        params.root_size.with_context(|| format!("{context}: it names no size (gdsboot.root-size)"))?;
    let expected = params
        .root_sha256
        .as_deref()
        .with_context(|| format!("{context}: it names no hash (gdsboot.root-sha256)"))?;
    if size > disk.bytes {
        bail!("verifying {}: it has {} bytes, the image's root has {size}", disk.name, disk.bytes);
    }
    let file = partition::open(disk).with_context(|| format!("opening {}", disk.device().display()))?;
    let start = Instant::now();
    let mut shown = 0;
    let found = verify::sha256(file.take(size), size, |done| {
        let percent = done.saturating_mul(100) / size;
        if percent >= shown + 20 {
            shown = percent;
            journal.consoles.say(&format!("verifying the root: {percent} %"));
        }
    })?;
    if found != expected {
        let source = match &params.root {
            Some(RootPlace::Url(url)) => format!(
                "what {url} gave has the SHA-256 {found}, the command line says {expected}; whoever set up netboot: copy \
                 the build's whole folder to the server again (sha256sum -c SHA256SUMS)"
            ),
            _ => {
                format!("verifying {}: its SHA-256 is {found}, the command line says {expected}", disk.name)
            }
        };
        bail!(source);
    }
    let ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    journal.consoles.event(What::RootVerified { bytes: size, ms, sha256: found });
    Ok(())
}
