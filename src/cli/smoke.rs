//! `gdsboot smoke`: boots an image in QEMU and shows what it reported.

use super::common::{Global, Packages, Resolved};
use anyhow::{Context as _, Result};
use clap::ValueEnum;
use gdsboot::builder::image::{Place, unpacked_root};
use gdsboot::builder::lock;
use gdsboot::builder::output::Output;
use gdsboot::builder::profile::Profile;
use gdsboot::error::{Advise as _, Status, usage};
use gdsboot::output_stream::stdout;
use gdsboot::progress::Progress;
use gdsboot::report::kind::Kind;
use gdsboot::report::source::Image;
use gdsboot::smoke::accel::Wanted;
use gdsboot::smoke::emulator::Emulator;
use gdsboot::smoke::machine::{self, Disk, Machine};
use gdsboot::smoke::media::ReportDisk;
use gdsboot::smoke::outcome::{Outcome, worst};
use gdsboot::smoke::{self, Request, Summary, junit, render, sandboxed, update};
use std::collections::HashSet;
use std::io::Write as _;
use std::num::NonZero;
use std::path::PathBuf;

/// Boot an image in QEMU and show what it reported
///
/// The image is copied and never changed. It is booted once per machine and firmware. The exit status is that of the
/// worst boot: 0 its report is what the machine file expects, 1 it is not or there is no complete report, 69 QEMU failed.
/// Where the file expects nothing, or options make another machine of it, the report's own verdict counts: 0 PASS, 1 FAIL,
/// 2 INCOMPLETE.
#[derive(Debug, clap::Args)]
pub struct SmokeArgs {
    /// The image to boot
    pub image: PathBuf,
    /// Machines to boot it in: built-in names, machine files, all, or faults
    #[arg(long, value_name = "NAME", num_args = 1.., default_value = machine::DEFAULT)]
    pub machine: Vec<String>,
    /// How many boots at a time [default: what cores and memory are there for]
    #[arg(long, value_name = "N")]
    pub jobs: Option<NonZero<usize>>,
    /// Profile whose QEMU is taken, and whose lock --lock names [default: the image's]
    #[arg(long, value_name = "PROFILE", conflicts_with = "qemu")]
    pub emulator: Option<String>,
    /// Write the boots as JUnit XML
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Show what differs, then make it what the machine files expect
    #[arg(long, conflicts_with_all = ["firmware", "disk", "read_only", "report_disk"])]
    pub update: bool,
    #[command(flatten)]
    pub how: How,
    #[command(flatten)]
    pub packages: Packages,
}

/// How to boot; shared with `try`.
#[derive(Debug, Clone, clap::Args)]
pub struct How {
    /// Firmwares to boot it with, such as uefi,bios [default: as the machine says]
    #[arg(long, value_delimiter = ',')]
    pub firmware: Vec<Firmware>,
    /// How to attach it, such as nvme,sata [default: as the machine says]
    #[arg(long, value_delimiter = ',')]
    pub disk: Vec<Disk>,
    /// Attach it so that nothing can write to it
    #[arg(long)]
    pub read_only: bool,
    /// Attach a report disk too: a file of `gdsboot split-report`, new, or none [default: new for an ISO]
    #[arg(long, value_name = "FILE", default_value = "", hide_default_value = true)]
    pub report_disk: ReportDisk,
    /// What executes the guest; auto takes KVM only where a guest boots under it
    #[arg(long, default_value = "auto")]
    pub accel: Wanted,
    /// Multiply every deadline by this
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    pub timeout_scale: f64,
    /// Keep every boot's log, report and disk in this folder
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// Ask the run for a capture of its machine, and keep that too
    #[arg(long, requires = "keep")]
    pub capture: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// QEMU to use [default: the one that the image's profile pins]
    #[arg(long, value_name = "PROGRAM")]
    pub qemu: Option<PathBuf>,
    /// Folder that holds OVMF_CODE_4M.fd and OVMF_VARS_4M.fd (.ms.fd for Secure Boot)
    #[arg(long, value_name = "DIR")]
    pub firmware_dir: Option<PathBuf>,
}

/// Which firmwares to boot with.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Firmware {
    /// OVMF
    Uefi,
    /// SeaBIOS
    Bios,
    /// UEFI and BIOS, one after the other
    Both,
    /// None: QEMU loads the image's kernel itself
    Direct,
}

impl Firmware {
    fn list(self) -> &'static [machine::Firmware] {
        match self {
            Self::Uefi => &[machine::Firmware::Uefi],
            Self::Bios => &[machine::Firmware::Bios],
            Self::Both => &[machine::Firmware::Uefi, machine::Firmware::Bios],
            Self::Direct => &[machine::Firmware::Direct],
        }
    }
}

/// Each once, in the order of its first place.
fn distinct<T: PartialEq>(all: impl IntoIterator<Item = T>) -> Vec<T> {
    all.into_iter().fold(Vec::new(), |mut known, one| {
        if !known.contains(&one) {
            known.push(one);
        }
        known
    })
}

/// The machines of these names; `all` are those that gdsboot brings, `faults` those in which something goes wrong.
fn machines(names: &[String]) -> Result<(Vec<String>, Vec<Machine>)> {
    let wanted = names.iter().flat_map(|name| match name.as_str() {
        "all" => Machine::built_in().map(str::to_owned).collect(),
        "faults" => Machine::with_faults().map(str::to_owned).collect(),
        _ => vec![name.clone()],
    });
    let wanted = distinct(wanted);
    let machines: Vec<Machine> = wanted.iter().map(|name| Machine::load(name)).collect::<Result<_>>()?;
    let mut names = HashSet::new();
    match machines.iter().find(|machine| !names.insert(machine.name.as_str())) {
        Some(twice) => Err(usage(
            format!("two machines are called {}", twice.name),
            "a machine is called after its file: rename one",
        )),
        None => Ok((wanted, machines)),
    }
}

/// Runs the command.
pub fn run(args: &SmokeArgs, global: &Global) -> Result<Status> {
    let progress = global.progress();
    let (names, machines) = machines(&args.machine)?;
    if args.update {
        names.iter().try_for_each(|name| update::check(name))?;
        if Image::open(&args.image)?.kind() == Kind::Iso {
            return Err(usage(
                "an ISO is booted from a CD-ROM drive, and not as the machine files say",
                "build the disk image: leave --format out",
            ));
        }
    }
    let junit = args.junit.as_deref().map(Output::new).transpose()?;
    let emulator = match &args.how.qemu {
        Some(_) => args.how.host_emulator(),
        None => {
            let profile = match &args.emulator {
                Some(profile) => Profile::load(profile)?,
                None => {
                    let manifest = gdsboot::inspect::manifest(&Image::open(&args.image)?)
                        .hint("name a QEMU of this host instead: --qemu qemu-system-x86_64")?;
                    Profile::load(&manifest.profile).hint("name a QEMU of this host: --qemu PROGRAM")?
                }
            };
            pinned_emulator(&args.packages.resolve(profile, global, &progress)?, &progress)?
        }
    };
    let request = Request {
        compare: true,
        jobs: args.jobs.map(NonZero::get),
        ..args.how.request(args.image.clone(), machines)
    };
    let summary = smoke::run(&request, &emulator, &progress)?;
    args.how.show(&summary)?;
    if let Some(output) = junit {
        output.write(|file| junit::write(&summary, &mut &*file))?;
    }
    if !args.update {
        return Ok(summary.status);
    }
    for (name, machine) in names.iter().zip(&request.machines) {
        progress.note(update::update(name, machine, &summary)?);
    }
    // What QEMU did not make is no expectation.
    let failed = summary.boots.iter().filter(|boot| boot.result.is_err()).map(Outcome::status);
    Ok(worst(failed))
}

/// The emulator that a profile's lock pins.
pub fn pinned_emulator(resolved: &Resolved, progress: &Progress) -> Result<Emulator> {
    let place = Place { pool: &resolved.pool, mirrors: &resolved.mirrors, cache: &resolved.cache, progress };
    sandboxed::emulator(&unpacked_root(&resolved.lock, lock::SET_EMULATOR, &place)?)
}

impl How {
    /// A QEMU of this host.
    pub fn host_emulator(&self) -> Emulator {
        Emulator::of_host(self.qemu.as_deref(), self.firmware_dir.as_deref())
    }

    /// What is asked of a boot.
    pub fn request(&self, image: PathBuf, machines: Vec<Machine>) -> Request {
        Request {
            image,
            machines,
            compare: false,
            jobs: Some(1),
            firmware: distinct(self.firmware.iter().flat_map(|firmware| firmware.list()).copied()),
            disks: distinct(self.disk.iter().copied()),
            read_only: self.read_only,
            report: self.report_disk.clone(),
            accel: self.accel,
            timeout_scale: self.timeout_scale,
            capture: self.capture,
            keep: self.keep.clone(),
        }
    }

    /// Prints what came of it.
    pub fn show(&self, summary: &Summary) -> Result<()> {
        let mut out = stdout();
        if self.json {
            serde_json::to_writer_pretty(&mut out, summary).context("writing the result")?;
            return writeln!(out).context("writing the result");
        }
        render::text(summary, &mut out).context("writing the result")
    }
}
