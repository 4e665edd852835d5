//! Where QEMU comes from: a program of this host, or one in a root of its own behind a sandbox. Whichever it is, a boot
//! keeps everything that QEMU opens in one folder, firmware included, and QEMU sees that folder under the same
//! absolute path as gdsboot does.

use super::argv::FirmwareFiles;
use super::machine::Firmware;
use crate::error::{Advise as _, Status, hinted};
use crate::pasteable::pasteable;
use anyhow::{Context as _, Result};
use std::ffi::OsString;
use std::fmt;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A way to start `qemu-system-x86_64`.
pub trait Launch: fmt::Debug + Send + Sync {
    /// Starts it with these arguments, `folder` visible to it for reading and writing under the same path. Its standard
    /// input is empty, its output and error are pipes. It leads a process group of its own, whose number is its
    /// process number, and it gets SIGKILL when the calling thread ends, in whatever way.
    fn spawn(&self, arguments: &[OsString], folder: &Path) -> Result<Child>;

    /// What a person types to do the same.
    fn command_line(&self, arguments: &[OsString], folder: &Path) -> String;
}

/// QEMU and its firmware.
#[derive(Debug)]
pub struct Emulator {
    launch: Box<dyn Launch>,
    /// Folders in which OVMF is looked for, as gdsboot sees them.
    firmware: Vec<PathBuf>,
}

/// Where distributions put OVMF: Debian and Ubuntu, Fedora, Arch.
const FIRMWARE_FOLDERS: [&str; 3] = ["/usr/share/OVMF", "/usr/share/edk2/ovmf", "/usr/share/edk2/x64"];

/// OVMF's code and variables, in flash sizes of 4 MiB and 2 MiB, without keys.
const OVMF: [(&str, &str); 3] = [
    ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"),
    ("OVMF_CODE.4m.fd", "OVMF_VARS.4m.fd"),
    ("OVMF_CODE.fd", "OVMF_VARS.fd"),
];

/// The same with Microsoft's keys, for Secure Boot: Debian and Ubuntu, Fedora.
const SECURE_OVMF: [(&str, &str); 2] =
    [("OVMF_CODE_4M.ms.fd", "OVMF_VARS_4M.ms.fd"), ("OVMF_CODE.secboot.fd", "OVMF_VARS.secboot.fd")];

impl Emulator {
    /// QEMU by `launch`, with OVMF in one of the folders `firmware` (as gdsboot sees them).
    pub fn new(launch: Box<dyn Launch>, firmware: Vec<PathBuf>) -> Self {
        Self { launch, firmware }
    }

    /// A QEMU of this host: `program`, else `qemu-system-x86_64` in PATH; OVMF in `firmware`, else where distributions
    /// put it.
    pub fn of_host(program: Option<&Path>, firmware: Option<&Path>) -> Self {
        let program = program.unwrap_or(Path::new("qemu-system-x86_64")).to_owned();
        let firmware = match firmware {
            Some(folder) => vec![folder.to_owned()],
            None => FIRMWARE_FOLDERS.map(PathBuf::from).to_vec(),
        };
        Self::new(Box::new(HostQemu { program }), firmware)
    }

    /// See [`Launch::spawn`].
    pub fn spawn(&self, arguments: &[OsString], folder: &Path) -> Result<Child> {
        self.launch.spawn(arguments, folder)
    }

    /// See [`Launch::command_line`].
    pub fn command_line(&self, arguments: &[OsString], folder: &Path) -> String {
        self.launch.command_line(arguments, folder)
    }

    /// The first line of what `--version` says.
    pub fn version(&self, folder: &Path) -> Result<String> {
        let child = self.spawn(&["--version".into()], folder)?;
        let output = child.wait_with_output().context("waiting for QEMU")?;
        let text = String::from_utf8_lossy(&output.stdout);
        match text.lines().next() {
            Some(line) if output.status.success() => Ok(line.to_owned()),
            _ => Err(hinted(
                format!("asking QEMU for its version: {}: {}", output.status, last_line(&output.stderr)),
                "check that it runs: qemu-system-x86_64 --version",
            )),
        }
        .status(Status::Unavailable)
    }

    /// Puts what `firmware` needs into `folder`; `secure` asks for Secure Boot, which only UEFI has.
    pub fn firmware(&self, firmware: Firmware, secure: bool, folder: &Path) -> Result<FirmwareFiles> {
        if firmware == Firmware::Bios {
            return Ok(FirmwareFiles::Bios);
        }
        let (from_code, from_vars) = self.find_ovmf(if secure { &SECURE_OVMF } else { &OVMF })?;
        let (code, vars) = (folder.join("ovmf-code.fd"), folder.join("ovmf-vars.fd"));
        fs_err::write(&code, fs_err::read(from_code)?)?;
        fs_err::write(&vars, fs_err::read(from_vars)?)?;
        Ok(FirmwareFiles::Uefi { code, vars, secure })
    }

    fn find_ovmf(&self, names: &[(&str, &str)]) -> Result<(PathBuf, PathBuf)> {
        let pairs = self
            .firmware
            .iter()
            .flat_map(|folder| names.iter().map(move |(code, vars)| (folder.join(code), folder.join(vars))));
        pairs.into_iter().find(|(code, vars)| code.is_file() && vars.is_file()).ok_or_else(|| {
            let folders: Vec<_> = self.firmware.iter().map(|f| f.display().to_string()).collect();
            hinted(
                format!(
                    "finding the UEFI firmware ({} and {}) in {}",
                    names[0].0,
                    names[0].1,
                    folders.join(", ")
                ),
                "install the package ovmf, name its folder with --firmware-dir, or use --firmware bios",
            )
        })
    }
}

fn last_line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).lines().last().unwrap_or("it said nothing").to_owned()
}

/// The first release of QEMU that attaches simulated GPUs (`vfio-user-pci`).
const VFIO_USER: (u32, u32) = (10, 1);

/// Can a QEMU attach simulated GPUs? `said` is its `--version`; one that says something else is tried.
///
/// # Errors
/// It is too old.
pub fn has_vfio_user(said: &str) -> Result<()> {
    let number = |text: &str| text.parse().ok();
    let version = said.split("version ").nth(1).unwrap_or_default();
    let mut parts = version.split(|c: char| !c.is_ascii_digit());
    match (parts.next().and_then(number), parts.next().and_then(number)) {
        (Some(major), Some(minor)) if (major, minor) < VFIO_USER => Err(hinted(
            format!(
                "the machine has simulated GPUs, which need QEMU 10.1 or newer, and this is {major}.{minor}"
            ),
            "leave --qemu out: the profiles that come with gdsboot have a newer one; for a profile of your own take \
             that of debian-13: --emulator debian-13",
        ))
        .status(Status::Unavailable),
        _ => Ok(()),
    }
}

/// A program on this host. A wrapper must end with `exec`, or QEMU would outlive it.
#[derive(Debug)]
struct HostQemu {
    program: PathBuf,
}

impl Launch for HostQemu {
    fn spawn(&self, arguments: &[OsString], _folder: &Path) -> Result<Child> {
        let mut command = Command::new(&self.program);
        command.args(arguments).env_clear().env("LC_ALL", "C");
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        die_with_us(command.process_group(0))
            .spawn()
            .with_context(|| format!("starting {}", self.program.display()))
            .hint("install QEMU (package qemu-system-x86), or name it with --qemu")
            .status(Status::Unavailable)
    }

    fn command_line(&self, arguments: &[OsString], _folder: &Path) -> String {
        pasteable(std::iter::once(self.program.as_os_str()).chain(arguments.iter().map(OsString::as_os_str)))
    }
}

/// Makes the kernel kill the child when the thread that starts it ends (`PR_SET_PDEATHSIG`, prctl(2)).
#[allow(unsafe_code, reason = "the flag must be set between fork and exec, and setting it there is unsafe")]
fn die_with_us(command: &mut Command) -> &mut Command {
    let parent = nix::unistd::getpid();
    // SAFETY: between fork and exec only prctl(2) and getppid(2) are called, which are async-signal-safe, and the
    // errors that are returned are plain numbers: nothing is allocated and no lock is taken.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
            // The parent may have ended before the flag was set.
            if nix::unistd::getppid() == parent { Ok(()) } else { Err(nix::errno::Errno::ESRCH.into()) }
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::error::{hint_of, one_line, status_of};

    #[derive(Debug)]
    struct Shell(String);

    impl Launch for Shell {
        fn spawn(&self, _: &[OsString], folder: &Path) -> Result<Child> {
            let mut command = Command::new("sh");
            command.args(["-c", &self.0]).current_dir(folder).process_group(0).stdin(Stdio::null());
            Ok(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
        }

        fn command_line(&self, _: &[OsString], _: &Path) -> String {
            self.0.clone()
        }
    }

    /// A shell script that stands in for QEMU; its working directory is the boot's folder.
    pub(crate) fn shell(script: &str) -> Emulator {
        Emulator::new(Box::new(Shell(script.to_owned())), Vec::new())
    }

    #[test]
    fn a_qemu_that_is_too_old_for_simulated_gpus_is_told() {
        for new in ["QEMU emulator version 10.1.0 (Debian)", "QEMU emulator version 11.0.50", "QEMU 11", ""] {
            has_vfio_user(new).unwrap();
        }
        for old in ["QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)", "QEMU emulator version 10.0.3"] {
            let error = has_vfio_user(old).unwrap_err();
            assert_eq!(status_of(&error), Status::Unavailable);
            assert!(hint_of(&error).unwrap().contains("--emulator debian-13"));
        }
    }

    #[test]
    fn a_missing_program_says_how_to_get_it() {
        let emulator = Emulator::of_host(Some(Path::new("/nonexistent/qemu")), None);
        let error = emulator.version(Path::new("/")).unwrap_err();
        assert_eq!(one_line(&error), "starting /nonexistent/qemu: No such file or directory (os error 2)");
        assert!(hint_of(&error).unwrap().contains("qemu-system-x86"));
        assert_eq!(status_of(&error), Status::Unavailable);
    }

    #[test]
    fn missing_firmware_names_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let emulator = Emulator::of_host(None, Some(folder.path()));
        let error = emulator.firmware(Firmware::Uefi, false, folder.path()).unwrap_err();
        assert!(one_line(&error).ends_with(&format!("in {}", folder.path().display())));
        assert_eq!(emulator.firmware(Firmware::Bios, false, folder.path()).unwrap(), FirmwareFiles::Bios);
    }

    #[test]
    fn firmware_is_copied_so_that_its_variables_can_be_written() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs_err::write(from.path().join("OVMF_CODE_4M.fd"), "code").unwrap();
        fs_err::write(from.path().join("OVMF_VARS_4M.fd"), "vars").unwrap();
        let files =
            Emulator::of_host(None, Some(from.path())).firmware(Firmware::Uefi, false, to.path()).unwrap();
        let FirmwareFiles::Uefi { code, vars, .. } = files else { panic!("{files:?}") };
        assert_eq!(fs_err::read(&code).unwrap(), b"code");
        assert_eq!(fs_err::read(&vars).unwrap(), b"vars");
        assert!(vars.starts_with(to.path()));
    }
}
