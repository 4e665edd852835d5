//! The scratch space that a run was asked for, from the settings to the benchmark and back. A disk or filesystem that may
//! not be written to is a reason in the report, never the end of the run.

use super::console::Consoles;
use super::scratch_disk::{ScratchDisk, Wanted};
use super::scratch_filesystem::ScratchFilesystem;
use crate::bench::results::Level;
use crate::bench::scratch::Machine;
use crate::bench::scratch::candidate::Disk;
use crate::bench::scratch::signatures::Probe;
use crate::error::{hint_of, hinted, one_line, usage};
use crate::facts::Root;
use crate::report::layout::binary_size;
use crate::report::model::Settings;
use std::path::Path;

/// Where a disk's filesystem is mounted, and where one of the operator's.
const DISK: &str = "/run/gdsboot/scratch";
const FILESYSTEM: &str = "/run/gdsboot/filesystem";

/// All of it.
#[derive(Debug, Default)]
pub struct Scratch {
    disk: Option<ScratchDisk>,
    filesystem: Option<ScratchFilesystem>,
    /// What could not be had, with the reason.
    pub refused: Vec<(String, anyhow::Error)>,
}

/// A place for a temporary file.
#[derive(Debug)]
pub struct Space<'a> {
    /// What people call it.
    pub name: String,
    /// The disk that it is on.
    pub disk: &'a str,
    /// Why it may be written.
    pub level: Level,
    /// The folder.
    pub folder: &'a Path,
    /// How large the file is to be.
    pub bytes: u64,
}

/// The kernel's modules that `settings` ask for.
pub fn modules(settings: &Settings) -> &'static [&'static str] {
    match (&settings.scratch_serial, &settings.scratch_filesystem) {
        (_, Some(_)) => &["ext4", "xfs"],
        (Some(_), None) => &["xfs"],
        (None, None) => &[],
    }
}

impl Scratch {
    /// Makes what the settings ask for. `keep` names disks and partitions that are never touched.
    pub fn make(
        machine: &dyn Machine,
        root: &Root,
        settings: &Settings,
        keep: &[String],
        consoles: &mut Consoles,
    ) -> Self {
        let mut scratch = Self::default();
        // First: a disk with a filesystem that is to be used is in use, also where a consent to wiping it was left over.
        if let Some(uuid) = &settings.scratch_filesystem {
            let size = settings.scratch_size;
            match ScratchFilesystem::mount(machine, uuid, keep, size, Path::new(FILESYSTEM)) {
                Ok(mounted) => scratch.filesystem = Some(mounted),
                Err(error) => scratch.refused.push((format!("filesystem {uuid}"), error)),
            }
        }
        let Some(serial) = &settings.scratch_serial else {
            if settings.wipe.is_some() {
                let error =
                    usage("wipe is set, and scratch_serial is not", "name the disk by scratch_serial");
                scratch.refused.push(("a disk".into(), error));
            }
            return scratch;
        };
        let wanted = Wanted {
            serial: serial.clone(),
            wipe: settings.wipe.clone(),
            keep: keep.to_vec(),
            seed: crate::bench::seed(),
            size: settings.scratch_size,
        };
        let mut countdown = |disk: &Disk, probe: &Probe, left: u32| {
            consoles.say(&countdown_words(disk, probe, left));
            Ok(())
        };
        let made = match knows(root, "xfs") {
            true => ScratchDisk::make(machine, wanted, Path::new(DISK), &mut countdown),
            false => Err(hinted(
                "this kernel has no XFS",
                "the image's profile has to name the module xfs under [kernel]; the report tells what came of loading it",
            )),
        };
        match made {
            Ok(disk) => scratch.disk = Some(disk),
            Err(error) => scratch.refused.push((format!("disk {serial}"), error)),
        }
        scratch
    }

    /// The places for temporary files.
    pub fn spaces(&self) -> Vec<Space<'_>> {
        let disk = self.disk.as_ref().map(|disk| Space {
            name: format!("a file on {}", disk.disk.name),
            disk: &disk.disk.name,
            level: disk.level,
            folder: &disk.folder,
            bytes: disk.file_bytes,
        });
        let filesystem = self.filesystem.as_ref().map(|mounted| Space {
            name: format!("a file on {}", mounted.name),
            disk: &mounted.disk,
            level: Level::TemporaryFile,
            folder: &mounted.folder,
            bytes: mounted.file_bytes,
        });
        disk.into_iter().chain(filesystem).collect()
    }

    /// Gives everything back; a sentence or an error for each.
    pub fn close(self, machine: &dyn Machine) -> Vec<anyhow::Result<String>> {
        let disk = self.disk.map(|disk| disk.close(machine));
        disk.into_iter().chain(self.filesystem.map(|mounted| mounted.close(machine))).collect()
    }
}

/// An error with its hint: both have to stand in the report.
pub fn with_hint(error: &anyhow::Error) -> String {
    let text = one_line(error);
    match hint_of(error).filter(|hint| !text.contains(hint)) {
        Some(hint) => format!("{text}; {hint}"),
        None => text,
    }
}

fn countdown_words(disk: &Disk, probe: &Probe, left: u32) -> String {
    let Disk { name, serial, bytes, .. } = disk;
    let names: Vec<&str> = probe.signatures.iter().map(|found| found.name.as_str()).collect();
    let holds = match (names.is_empty(), probe.data) {
        (false, _) => names.join(", "),
        (true, Some(_)) => "data of an unknown kind".into(),
        (true, None) => "nothing that was found".into(),
    };
    format!(
        "WIPING {name} ({}, {}) IN {left} s. It holds: {holds}. To keep that, switch the machine off now.",
        serial.as_deref().unwrap_or_default(),
        binary_size(*bytes)
    )
}

/// Does the kernel know a filesystem?
fn knows(root: &Root, kind: &str) -> bool {
    let known = root.text("/proc/filesystems");
    known.value().is_some_and(|text| text.lines().any(|line| line.split_whitespace().last() == Some(kind)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::scratch::candidate::tests::disk;
    use crate::bench::scratch::signatures::Signature;

    #[test]
    fn the_countdown_says_what_is_lost() {
        let signatures =
            vec![Signature { at: 0, name: "XFS".into() }, Signature { at: 9, name: "GPT".into() }];
        let probe = Probe { signatures, data: Some(0), looked_at: 1, digest: [0; 32] };
        assert_eq!(
            countdown_words(&Disk { bytes: 4_000_000_000_000, ..disk() }, &probe, 7),
            "WIPING nvme1n1 (S1, 3.6 TiB) IN 7 s. It holds: XFS, GPT. To keep that, switch the machine off now."
        );
    }

    #[test]
    fn modules_are_those_of_what_is_asked_for() {
        let settings = Settings::default();
        assert!(modules(&settings).is_empty());
        let disk = Settings { scratch_serial: Some("S".into()), ..Settings::default() };
        assert_eq!(modules(&disk), ["xfs"]);
        let filesystem = Settings { scratch_filesystem: Some("U".into()), ..disk };
        assert_eq!(modules(&filesystem), ["ext4", "xfs"]);
    }

    #[test]
    fn hints_stand_in_the_report_once() {
        assert_eq!(with_hint(&hinted("no", "do that")), "no; do that");
        assert_eq!(with_hint(&hinted("no; do that", "do that")), "no; do that");
        assert_eq!(with_hint(&anyhow::anyhow!("no")), "no");
    }
}
