//! Which accelerator runs the guests. KVM is used only where a guest was seen to boot under it: a `/dev/kvm` that opens
//! proves nothing, because inside a virtual machine, or next to another hypervisor, guests may still die at once. The
//! choice is always told, with its reason.

use super::argv::{self, Accel};
use super::console::is_kernel_line;
use super::emulator::Emulator;
use super::guest::{Guest, Speaker};
use super::wait::{End, Next, wait};
use crate::error::{Advise as _, Status, hinted, one_line};
use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

/// What the user wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Wanted {
    /// KVM where a guest boots under it, else TCG.
    #[default]
    Auto,
    /// KVM, or an error.
    Kvm,
    /// TCG.
    Tcg,
}

/// What is used, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Choice {
    /// The accelerator.
    pub accel: Accel,
    /// Why this one.
    pub why: String,
}

/// The device that KVM is used through.
const DEVICE: &str = "/dev/kvm";
/// Under KVM, firmware and kernel speak in fractions of a second. A guest that says nothing for so long is stuck.
const SILENCE: Duration = Duration::from_secs(4);
/// However much it says.
const PROOF_DEADLINE: Duration = Duration::from_secs(10);

/// Chooses. `kernel` gives the image's own; it is booted alone to see whether KVM works, in `folder`.
pub fn choose(
    wanted: Wanted,
    emulator: &Emulator,
    kernel: impl FnOnce() -> Result<Vec<u8>>,
    folder: &Path,
) -> Result<Choice> {
    if wanted == Wanted::Tcg {
        return Ok(Choice { accel: Accel::Tcg, why: "asked for".into() });
    }
    let proof = open(Path::new(DEVICE)).and_then(|()| prove(Accel::Kvm, emulator, &kernel()?, folder));
    match (proof, wanted) {
        (Ok(()), _) => {
            Ok(Choice { accel: Accel::Kvm, why: "the image's kernel was seen to boot under it".into() })
        }
        (Err(e), _) if crate::interrupt::requested() => Err(e),
        (Err(e), Wanted::Kvm) => {
            let e = Err(e).context("KVM cannot be used");
            e.hint("use --accel tcg, which is slower and works everywhere").status(Status::Unavailable)
        }
        (Err(e), _) => {
            let remedy = crate::error::hint_of(&e).map(|hint| format!(" ({hint})")).unwrap_or_default();
            Ok(Choice { accel: Accel::Tcg, why: format!("KVM cannot be used: {}{remedy}", one_line(&e)) })
        }
    }
}

/// Opens KVM's device as QEMU does.
fn open(device: &Path) -> Result<()> {
    let shown = device.display();
    match OpenOptions::new().read(true).write(true).open(device) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => Err(hinted(
            format!("{shown} does not exist"),
            "enable virtualisation in the firmware, or nested virtualisation for this virtual machine, and load \
             kvm_intel or kvm_amd",
        )),
        Err(e) if e.kind() == ErrorKind::PermissionDenied => Err(hinted(
            format!("{shown} may not be opened by this user"),
            "sudo usermod -aG kvm \"$USER\", then log in again",
        )),
        Err(e) => Err(e).with_context(|| format!("opening {shown}")),
    }
}

/// Boots `kernel` with nothing else and waits for its first line.
fn prove(accel: Accel, emulator: &Emulator, kernel: &[u8], folder: &Path) -> Result<()> {
    let path = folder.join("kernel");
    fs_err::write(&path, kernel).context("trying KVM")?;
    let argv = argv::kernel_only(&path, accel);
    let mut guest = Guest::start(emulator, &argv, folder)?;
    let (mut booted, mut said) = (false, None);
    let mut last_words = "nothing".to_owned();
    let end = wait(&mut guest, SILENCE, &mut |line| {
        if line.speaker == Speaker::Guest {
            booted |= is_kernel_line(&line.text);
            line.text.trim().clone_into(&mut last_words);
            let silent = line.at.saturating_add(SILENCE).min(PROOF_DEADLINE);
            return Ok(if booted { Next::Stop } else { Next::Until(silent) });
        }
        said.get_or_insert_with(|| line.text.clone());
        // "KVM internal error": QEMU now holds a dead guest until somebody looks at it (kvm_cpu_exec in QEMU).
        Ok(if line.text.starts_with("KVM internal error") { Next::Stop } else { Next::Continue })
    })?;
    let said = said.map(|said| format!(": {said}")).unwrap_or_default();
    match end {
        _ if booted => Ok(()),
        End::Stopped => bail!("a guest dies under it{said}"),
        End::Exited(status) => bail!("QEMU ends before a guest speaks: {status}{said}"),
        End::Deadline => bail!("a guest gets stuck under it; its last words are: {last_words}{said}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::hint_of;
    use crate::smoke::emulator::tests::shell;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Instant;

    #[test]
    fn absent_and_forbidden_devices_have_different_remedies() {
        let error = open(Path::new("/nonexistent/kvm")).unwrap_err();
        assert_eq!(one_line(&error), "/nonexistent/kvm does not exist");
        assert!(hint_of(&error).unwrap().contains("kvm_intel"));
        let folder = tempfile::tempdir().unwrap();
        let device = folder.path().join("kvm");
        fs_err::write(&device, "").unwrap();
        fs_err::set_permissions(&device, std::fs::Permissions::from_mode(0o000)).unwrap();
        // Root may open everything.
        if !nix::unistd::geteuid().is_root() {
            let error = open(&device).unwrap_err();
            assert!(one_line(&error).ends_with("may not be opened by this user"));
            assert!(hint_of(&error).unwrap().contains("usermod -aG kvm"));
        }
        assert_eq!(
            open(folder.path()).unwrap_err().to_string(),
            format!("opening {}", folder.path().display())
        );
    }

    fn proof(script: &str) -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        prove(Accel::Kvm, &shell(script), b"kernel", folder.path())
    }

    #[test]
    fn only_a_kernel_that_speaks_is_a_proof() {
        let begin = Instant::now();
        proof("echo 'Probing EDD'; echo '[    0.000000] Linux version 6.12'; exec sleep 60").unwrap();
        assert_eq!(
            proof("echo SeaBIOS; echo 'KVM internal error. Suberror: 1' >&2; exec sleep 60")
                .unwrap_err()
                .to_string(),
            "a guest dies under it: KVM internal error. Suberror: 1"
        );
        assert_eq!(
            proof("echo 'qemu: failed to set MSR' >&2; exit 1").unwrap_err().to_string(),
            "QEMU ends before a guest speaks: exit status: 1: qemu: failed to set MSR"
        );
        assert_eq!(
            proof("echo Running option rom; exec sleep 60").unwrap_err().to_string(),
            "a guest gets stuck under it; its last words are: Running option rom"
        );
        assert!(begin.elapsed() < PROOF_DEADLINE);
    }
}
