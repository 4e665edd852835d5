//! `gdsboot vm`: a virtual machine's configuration, read and judged.

use anyhow::{Context as _, Result};
use gdsboot::error::{Advise as _, Status, usage};
use gdsboot::facts::{Facts, Root};
use gdsboot::hypervisor::context::{Context, Hints};
use gdsboot::hypervisor::join;
use gdsboot::hypervisor::judge::judge;
use gdsboot::hypervisor::libvirt::MOST_CPUS;
use gdsboot::hypervisor::machine::{self, Kind};
use gdsboot::hypervisor::plan::{self, PlanFile, Request, Tree};
use gdsboot::hypervisor::{known, source};
use gdsboot::output_stream::stdout;
use gdsboot::report::utc::Utc;
use gdsboot::report::{findings, json};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Check, plan and join virtual machines for GPUDirect Storage
#[derive(Debug, clap::Args)]
pub struct VmArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Check(CheckArgs),
    Plan(PlanArgs),
    Join(JoinArgs),
}

/// Judge a virtual machine's configuration: what must be mended, by whom, and in which order
///
/// A configuration proves nothing: where nothing is wrong with it, the verdict is INCOMPLETE.
#[derive(Debug, clap::Args)]
struct CheckArgs {
    /// A file: Proxmox' .conf, libvirt's XML, a QEMU command line (script or /proc/PID/cmdline); or the number of a
    /// virtual machine of this Proxmox
    #[arg(value_name = "FILE|VMID")]
    target: String,
    /// Whose configuration it is [default: as it looks]
    #[arg(long = "as", value_name = "KIND")]
    kind: Option<Kind>,
    #[command(flatten)]
    host: Host,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Write a configuration for a virtual machine with these devices, and say why it is as it is
///
/// Without -o the file that a person reads first is printed. Nothing is changed on the host.
#[derive(Debug, clap::Args)]
struct PlanArgs {
    /// Whose configuration to write
    #[arg(long = "for", value_name = "KIND")]
    kind: Kind,
    #[command(flatten)]
    host: Host,
    /// The guest's PCI tree
    #[arg(long, default_value = "auto")]
    topology: Tree,
    /// Memory, such as 64G
    #[arg(long, value_name = "SIZE", default_value = "32G")]
    memory: String,
    /// CPUs
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=4096))]
    cpus: u32,
    /// Proxmox' number for the machine
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(100..=999_999_999))]
    vmid: u32,
    /// The machine's name
    #[arg(long, default_value = "gdsboot")]
    name: String,
    /// The machine's UUID [default: a new one]
    #[arg(long)]
    uuid: Option<String>,
    /// gdsboot's image on the host
    #[arg(long, value_name = "FILE", default_value = "/var/lib/gdsboot/gdsboot.img")]
    image: PathBuf,
    /// Proxmox' storage for the disks
    #[arg(long, default_value = "local-lvm")]
    storage: String,
    /// Write all files into this folder; it is made if it is not there
    #[arg(short, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Join a guest's report and its host's into one verdict
///
/// What the guest could not see, the host answers. Reports that do not belong together are refused.
#[derive(Debug, clap::Args)]
struct JoinArgs {
    /// The guest: a report.json, its facts as JSON, or a capture
    #[arg(value_name = "GUEST")]
    guest: PathBuf,
    /// The host: what `gdsboot-validator check --side host --vm VMID --report FILE` wrote, its facts as JSON, or a
    /// capture
    #[arg(value_name = "HOST")]
    host: PathBuf,
    /// The guest's configuration [default: what the host's report carries]
    #[arg(long, value_name = "FILE")]
    config: Option<String>,
    /// Whose configuration that is [default: as it looks]
    #[arg(long = "as", value_name = "KIND", requires = "config")]
    kind: Option<Kind>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is known of the host.
#[derive(Debug, clap::Args)]
struct Host {
    /// What is known of the host: a report.json, its facts as JSON, or a capture [default: this machine for a VMID, and
    /// for a plan without --bar-size or with a device that this machine has]
    #[arg(long, value_name = "REPORT|CAPTURE")]
    host: Option<PathBuf>,
    /// Read this machine, its Proxmox and its devices, from this folder
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// A GPU's PCI address on the host (may be repeated)
    #[arg(long, value_name = "ADDR")]
    gpu: Vec<String>,
    /// An NVMe controller's PCI address on the host (may be repeated)
    #[arg(long, value_name = "ADDR")]
    nvme: Vec<String>,
    /// The size of each GPU's largest window, such as 128G, where the host is not known
    #[arg(long, value_name = "SIZE")]
    bar_size: Option<String>,
}

impl Host {
    fn hints(&self) -> Result<Hints> {
        let addresses = |option: &str, told: &[String]| -> Result<Vec<String>> {
            let full = |text: &String| {
                machine::address(text).ok_or_else(|| {
                    usage(
                        format!("{option} {text}: this is no PCI address"),
                        "write it as lspci -D prints it: 0000:41:00.0",
                    )
                })
            };
            told.iter().map(full).collect()
        };
        let size = |text: &String| {
            let size = machine::bytes(text, 1).filter(|bytes| bytes.is_power_of_two());
            size.ok_or_else(|| {
                usage(
                    format!("--bar-size {text}: this is no size of a window"),
                    "write a power of two, such as 64G or 128G",
                )
            })
        };
        Ok(Hints {
            gpus: addresses("--gpu", &self.gpu)?,
            nvmes: addresses("--nvme", &self.nvme)?,
            bar: self.bar_size.as_ref().map(size).transpose()?,
        })
    }

    /// The host's facts: those that were handed in, or this machine's where it is the host.
    fn facts(&self, is_here: bool) -> Result<Option<Facts>> {
        match &self.host {
            Some(path) => Ok(Some(known::read(path)?.facts)),
            None if is_here => Ok(Some(Facts::read(&self.root()?))),
            None => Ok(None),
        }
    }

    /// Has the machine one of the devices that were named?
    fn has_any(&self, hints: &Hints) -> Result<bool> {
        let root = self.root()?;
        let is_there = |told: &String| {
            let function = if told.contains('.') { "" } else { ".0" };
            root.exists(&format!("/sys/bus/pci/devices/{told}{function}"))
        };
        Ok(hints.gpus.iter().chain(&hints.nvmes).any(is_there))
    }

    fn root(&self) -> Result<Root> {
        if !self.root.is_dir() {
            return Err(usage(
                format!("--root {}: this is no folder", self.root.display()),
                "name a folder that mirrors a machine",
            ));
        }
        Ok(Root::at(&self.root))
    }
}

/// Runs the command.
pub fn run(args: &VmArgs) -> Result<Status> {
    match &args.command {
        Command::Check(args) => check(args),
        Command::Plan(args) => make_plan(args),
        Command::Join(args) => join_reports(args),
    }
}

fn check(args: &CheckArgs) -> Result<Status> {
    let hints = args.host.hints()?;
    let host = args.host.facts(source::is_vmid(&args.target))?;
    // The mappings of a host that was handed in are its own.
    let handed_in = host.as_ref().filter(|_| args.host.host.is_some());
    let machine = source::load(&args.target, args.kind, &args.host.root()?, handed_in)?;
    let judgement = judge(&Context::new(&machine, host.as_ref(), &hints));
    let mut out = Vec::new();
    if args.json {
        out = json::pretty(&judgement)?;
    } else {
        findings::write(&judgement, &mut out)?;
    }
    stdout().write_all(&out).context("writing the result").status(Status::Unavailable)?;
    Ok(judgement.verdict.status())
}

fn join_reports(args: &JoinArgs) -> Result<Status> {
    let (guest, host) = (known::read(&args.guest)?, known::read(&args.host)?);
    let machine = match &args.config {
        Some(file) => {
            // A folder of the host may hold its resource mappings.
            let is_dir = args.host.is_dir();
            let root = if is_dir { Root::at(&args.host) } else { Root::live() };
            source::load(file, args.kind, &root, Some(&host.facts).filter(|_| !is_dir))?
        }
        None => join::machine_of(&host)?,
    };
    let joined = join::join(&guest, &host, &machine, &Utc::now().day())?;
    let mut out = Vec::new();
    if args.json {
        out = json::pretty(&joined)?;
    } else {
        join::text(&joined, &mut out)?;
    }
    stdout().write_all(&out).context("writing the result").status(Status::Unavailable)?;
    Ok(joined.judgement.verdict.status())
}

fn make_plan(args: &PlanArgs) -> Result<Status> {
    let hints = args.host.hints()?;
    accepted(args)?;
    // Where the windows' size is given, the devices need not be this machine's. If one is, this is the host: what it uses
    // itself is not given away.
    let is_here = hints.bar.is_none() || args.host.has_any(&hints)?;
    let host = args.host.facts(is_here)?;
    let uuid = match &args.uuid {
        Some(text) => uuid::Uuid::parse_str(text)
            .with_context(|| format!("--uuid {text}"))
            .hint("write it as uuidgen prints it, or leave it away")
            .status(Status::Usage)?,
        None => plan::new_uuid()?,
    };
    let memory =
        machine::bytes(&args.memory, 1).filter(|bytes| *bytes >= 1 << 30 && bytes.is_multiple_of(2 << 20));
    let memory = memory.ok_or_else(|| {
        usage(
            format!("--memory {}: this is no memory for such a machine", args.memory),
            "write a size such as 64G, 1G at least",
        )
    })?;
    if hints.gpus.is_empty() || hints.nvmes.is_empty() {
        return Err(usage(
            "a plan needs at least one GPU and one NVMe controller",
            plan::there_is(host.as_ref()),
        ));
    }
    let decided = plan::plan(&Request {
        gpus: hints.gpus,
        nvmes: hints.nvmes,
        host: host.as_ref(),
        bar: hints.bar,
        tree: args.topology,
        vmid: args.vmid,
        name: args.name.clone(),
        uuid: uuid.to_string(),
        memory,
        cpus: args.cpus,
        image: args.image.clone(),
        storage: args.storage.clone(),
    });
    let decided = match (decided, &args.host.host, hints.bar) {
        (decided, None, Some(_)) if is_here => decided.context(
            "planning for this machine, which has one of these devices (for another one --host, or --root with an empty folder)",
        ),
        (decided, _, _) => decided,
    }?;
    let files = decided.write(args.kind);
    let mut out = stdout();
    let Some(folder) = &args.output else {
        let first = files.first().map_or("", |file| file.text.as_str());
        out.write_all(first.as_bytes()).context("writing the result").status(Status::Unavailable)?;
        return Ok(Status::Pass);
    };
    fs_err::create_dir_all(folder)
        .context("making the folder for the configuration")
        .hint("name a folder that can be made and written to")
        .status(Status::Usage)?;
    for file in &files {
        put(folder, file)
            .with_context(|| format!("writing {} in {}", file.name, folder.display()))
            .hint("name a folder that can be written to")
            .status(Status::Usage)?;
        writeln!(out, "wrote {}", folder.join(&file.name).display()).context("writing the result")?;
    }
    Ok(Status::Pass)
}

/// Refuses what the hypervisor would refuse later.
fn accepted(args: &PlanArgs) -> Result<()> {
    // A DNS name: that is what Proxmox asks for.
    let is_label = |label: &str| {
        let is_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = label.as_bytes();
        is_end(bytes.first())
            && is_end(bytes.last())
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
    };
    if args.name.len() > 63 || !args.name.split('.').all(is_label) {
        return Err(usage(
            format!("--name {:?}: this is no name of a machine", args.name),
            "letters, digits, dots and dashes, 63 at most, a letter or a digit on both sides of each dot",
        ));
    }
    let storage = args.storage.as_bytes();
    let is_storage = storage.first().is_some_and(u8::is_ascii_alphabetic)
        && storage.len() <= 63
        && storage.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(byte));
    if !is_storage {
        return Err(usage(
            format!("--storage {:?}: this is no name of a storage", args.storage),
            "a letter, then letters, digits, dots, dashes and underscores, 63 at most; `pvesm status` shows them",
        ));
    }
    let image = args.image.to_string_lossy();
    // A volume of a storage, or a file: qemu-server asks for one of both.
    let is_volume = args.kind == Kind::Proxmox
        && image.split_once(':').is_some_and(|(storage, _)| !storage.contains('/'));
    if args.kind != Kind::Qemu && !args.image.is_absolute() && !is_volume {
        return Err(usage(
            format!("--image {image}: {} takes no relative path", args.kind),
            "name the file on the host from the root on, such as /var/lib/gdsboot/gdsboot.img",
        ));
    }
    if args.kind == Kind::Proxmox && image.contains(',') {
        return Err(usage(format!("--image {image}: Proxmox takes no commas"), "give the file another name"));
    }
    if args.kind == Kind::Libvirt && args.cpus > MOST_CPUS {
        return Err(usage(
            format!(
                "--cpus {}: libvirt takes more than {MOST_CPUS} only with an IOMMU in the guest",
                args.cpus
            ),
            format!("--cpus {MOST_CPUS}: an IOMMU in the guest is in the way of direct transfers"),
        ));
    }
    Ok(())
}

/// A file that is there as a whole or not at all.
fn put(folder: &Path, file: &PlanFile) -> Result<()> {
    let mut temp = tempfile::Builder::new().prefix(".gdsboot-").tempfile_in(folder)?;
    temp.write_all(file.text.as_bytes())?;
    let mode = if file.name.ends_with(".sh") { 0o755 } else { 0o644 };
    temp.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    temp.as_file().sync_all()?;
    temp.persist(folder.join(&file.name))?;
    Ok(())
}
