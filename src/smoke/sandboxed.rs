//! QEMU from an unpacked root, behind the sandbox.

use super::emulator::{Emulator, Launch};
use crate::builder::sandbox::{Sandbox, SandboxCommand};
use anyhow::Result;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

const QEMU: &str = "/usr/bin/qemu-system-x86_64";

#[derive(Debug)]
struct SandboxedQemu {
    sandbox: Sandbox,
    root: PathBuf,
}

/// The QEMU and the firmware of an unpacked root.
pub fn emulator(root: &Path) -> Result<Emulator> {
    let sandbox = Sandbox::new(root)?;
    let launch = SandboxedQemu { sandbox, root: root.to_owned() };
    Ok(Emulator::new(Box::new(launch), vec![root.join("usr/share/OVMF")]))
}

impl SandboxedQemu {
    fn command(&self, arguments: &[OsString], folder: &Path) -> SandboxCommand {
        let mut sandbox = self.sandbox.clone().bind(folder, folder, true);
        let kvm = Path::new("/dev/kvm");
        if kvm.exists() {
            sandbox = sandbox.bind(kvm, kvm, true);
        }
        let command = sandbox.command(QEMU).args(arguments).current_dir(folder);
        // A guest with a network card is to reach this host.
        let has_network = arguments.iter().any(|argument| argument == "-netdev");
        if has_network { command.with_network() } else { command }
    }
}

impl Launch for SandboxedQemu {
    fn spawn(&self, arguments: &[OsString], folder: &Path) -> Result<Child> {
        self.command(arguments, folder).spawn(Stdio::piped(), Stdio::piped())
    }

    fn command_line(&self, arguments: &[OsString], folder: &Path) -> String {
        format!("{}   # in the root {}", self.command(arguments, folder).display(), self.root.display())
    }
}
