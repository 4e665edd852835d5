//! `gdsboot vm`: a virtual machine's configuration, read and judged.

use anyhow::{Context as _, Result};
use gdsboot::error::{Advise as _, Status, usage};
use gdsboot::facts::{Facts, Root};
use gdsboot::hypervisor::context::{Context, Hints};
use gdsboot::hypervisor::judge::judge;
use gdsboot::hypervisor::machine::{self, Kind};
use gdsboot::hypervisor::{known, source};
use gdsboot::report::{findings, json};
use std::io::Write as _;
use std::path::PathBuf;

/// Check, plan and join virtual machines for GPUDirect Storage
#[derive(Debug, clap::Args)]
pub struct VmArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Check(CheckArgs),
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

/// What is known of the host.
#[derive(Debug, clap::Args)]
struct Host {
    /// What is known of the host: a report.json, its facts as JSON, or a capture [default with VMID: this machine]
    #[arg(long, value_name = "REPORT|CAPTURE")]
    host: Option<PathBuf>,
    /// Read the Proxmox whose machine is checked, and its devices, from this folder
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
    }
}

fn check(args: &CheckArgs) -> Result<Status> {
    let hints = args.host.hints()?;
    let machine = source::load(&args.target, args.kind, &args.host.root()?)?;
    let host = args.host.facts(source::is_vmid(&args.target))?;
    let judgement = judge(&Context::new(&machine, host.as_ref(), &hints));
    let mut out = Vec::new();
    if args.json {
        out = json::pretty(&judgement)?;
    } else {
        findings::write(&judgement, &mut out)?;
    }
    std::io::stdout().write_all(&out).context("writing the result").status(Status::Unavailable)?;
    Ok(judgement.verdict.status())
}
