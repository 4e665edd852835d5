//! One boot: a copy of the image, a QEMU, its console, and the report on the copy afterwards.

use super::argv::{self, Accel, FirmwareFiles};
use super::argv_disks::device_id;
use super::console::Console;
use super::emulator::Emulator;
use super::fault::{Moment, ReportPartition};
use super::follow::{Deadlines, Deed, Start, Watched};
use super::gpus::Gpus;
use super::log::Log;
use super::machine::{Disk, Firmware, Machine};
use super::media::{self, Media, ReportDisk};
use super::monitor::Monitor;
use super::outcome::{Failure, Outcome, Reported, judge};
use super::pci::Layout;
use super::phases::Phases;
use super::{damage, data_drive, power_cut, runs};
use crate::boot_contract::{RUN_CAPTURE, RUN_SAMPLES};
use crate::error::{Status, hint_of, one_line, status_of};
use crate::progress::{Progress, Unit};
use crate::report::source::{Image, Run};
use anyhow::{Context as _, Result};
use std::ffi::OsString;
use std::path::Path;

/// What is booted, and in what.
#[derive(Debug)]
pub struct Boot<'a> {
    /// The image; it is only read.
    pub image: &'a Image,
    /// The guest.
    pub machine: &'a Machine,
    /// What starts the boot loader.
    pub firmware: Firmware,
    /// How the image is attached.
    pub disk: Disk,
    /// Is it attached so that nothing can write to it?
    pub read_only: bool,
    /// The report disk beside it.
    pub report: &'a ReportDisk,
    /// What executes the guest.
    pub accel: Accel,
    /// Multiplies all deadlines.
    pub timeout_scale: f64,
    /// Is the run asked for a capture?
    pub capture: bool,
    /// Is the report compared with what the machine file expects? Not where the machine is another than that.
    pub compare: bool,
}

impl Boot<'_> {
    /// Boots in `folder`, which is empty and stays as it is afterwards: `image.img` (or `.qcow2`, `.iso`), `report.img` where
    /// there is a report disk, `console.log`, `command`, and `report.txt`, `report.json` and `capture.tar.zst` where the guest
    /// wrote them.
    ///
    /// # Errors
    /// It could not be tried.
    pub fn run(&self, emulator: &Emulator, folder: &Path, progress: &Progress) -> Result<Outcome> {
        let name = format!("boot {} {} {}", self.machine.name, self.firmware, self.disk);
        let stage = progress.stage(&format!("{name}: copy"), self.image.size(), Unit::Bytes);
        let wanted = media::Wanted {
            disk: self.disk,
            read_only: self.read_only || self.machine.report_partition == Some(ReportPartition::ReadOnly),
            twice: self.machine.image_twice,
            report: self.report,
            report_disks: self.machine.report_disks,
        };
        let media = Media::copy(self.image, wanted, folder, &stage)?;
        if let Some(fault) = self.machine.report_partition {
            damage::make(fault, &media.image)?;
        }
        drop(stage);
        let firmware = match self.firmware {
            Firmware::Direct => self.loaded_by_qemu(folder)?,
            firmware => emulator.firmware(firmware, self.machine.secure_boot, folder)?,
        };
        let data = data_drive::make(&self.machine.drives, folder)?;
        let layout = Layout::of(self.machine).map_err(anyhow::Error::msg)?;
        let gpus = Gpus::serve(self.machine, &layout.gpus, folder)?;
        let drives = self.machine.drives.iter().enumerate();
        let deeds: Vec<(&Moment, Deed)> = drives
            .filter_map(|(n, drive)| Some((drive.unplug.as_ref()?, Deed::Unplug(device_id(n)))))
            .collect();
        let needs_monitor = !deeds.is_empty() || !self.machine.power_cuts.is_empty();
        let monitor = needs_monitor.then(|| Monitor::new(folder)).transpose()?;
        let monitor_arguments = monitor.as_ref().map(Monitor::arguments).unwrap_or_default();
        let write_log = folder.join("writes.log");
        let parts = argv::Parts {
            media: &media,
            write_log: None,
            firmware: &firmware,
            layout: &layout,
            data: &data,
            gpus: gpus.arguments(),
            monitor: &monitor_arguments,
            accel: self.accel,
        };
        let capture = self.capture.then_some(("capture", "yes"));
        // Nobody is there to read the screen, where the report is on it alone.
        let may_have_no_place =
            media.places().next().is_none() || media.read_only || self.machine.report_partition.is_some();
        let after = may_have_no_place.then_some(("after", "poweroff"));
        let settings = settings(self.machine, capture.into_iter().chain(after));
        let arguments = [argv::boot(self.machine, parts), settings.clone()].concat();
        let logged = argv::Parts { write_log: Some(&write_log), ..parts };
        let logged = [argv::boot(self.machine, logged), settings].concat();
        let command = emulator.command_line(&arguments, folder);
        fs_err::write(folder.join("command"), format!("{command}\n"))?;

        let stage = progress.stage(&name, 0, Unit::Steps);
        let mut log = Log::create(&folder.join("console.log"))?;
        let start = Start {
            emulator,
            arguments: &arguments,
            folder,
            monitor: monitor.as_ref(),
            deadlines: Deadlines::new(self.accel, self.timeout_scale, self.machine.serial_port),
        };
        let logged = Start { arguments: &logged, ..start };
        let starts = power_cut::Starts { plain: &start, logged: &logged, write_log: &write_log };
        let cuts = power_cut::boot(starts, &self.machine.power_cuts, &media, &mut log, &stage);
        let power_cut::Survived { before, mut notes, failure } = cuts?;
        let watched = start.watch(&deeds, &mut log, &stage);
        log.close()?;
        let Watched { end, age, console, undone } = watched?;
        drop(stage);

        let found = runs::left(&media, &before, &console);
        if let Ok((Some(run), _)) = &found {
            keep(run, folder)?;
        }
        notes.extend(self.notes(&console, undone));
        let found = found.map(|(run, dirty)| {
            notes.extend(dirty.then(|| "the report partition was not unmounted".to_owned()));
            run
        });
        let expected = self.machine.expect.as_ref();
        let place = expected.map(|expected| expected.report).unwrap_or_default();
        let mut result = judge(end, age, &console, found, place);
        if let Ok(Reported { report: None, text, .. }) = &result {
            fs_err::write(folder.join("report.txt"), text)?;
        }
        if let (Some(what), Ok(_)) = (failure, &result) {
            result = Err(Failure { status: Status::Fail, what, last_lines: Vec::new() });
        }
        let differences = expected
            .filter(|_| self.compare)
            .zip(result.as_ref().ok())
            .map(|(expected, reported)| expected.differences(reported, self.accel));
        Ok(Outcome {
            machine: self.machine.name.clone(),
            firmware: self.firmware,
            disk: self.disk,
            accel: self.accel,
            phases: console.marks.phases(),
            result,
            differences,
            notes,
            command: Some(command),
            kept: None,
        })
    }

    /// The outcome where it could not be tried.
    pub fn not_tried(&self, error: &anyhow::Error) -> Outcome {
        let failure = Failure {
            status: status_of(error),
            what: format!("it could not be booted: {}", one_line(error)),
            last_lines: hint_of(error).map(|hint| format!("hint: {hint}")).into_iter().collect(),
        };
        Outcome {
            machine: self.machine.name.clone(),
            firmware: self.firmware,
            disk: self.disk,
            accel: self.accel,
            phases: Phases::default(),
            result: Err(failure),
            differences: None,
            notes: Vec::new(),
            command: None,
            kept: None,
        }
    }

    /// What the boot menu's first entry would load, for QEMU to load.
    fn loaded_by_qemu(&self, folder: &Path) -> Result<FirmwareFiles> {
        let (kernel, initrd) = (folder.join("kernel"), folder.join("initrd"));
        let entry = self.image.first_entry()?;
        fs_err::write(&kernel, self.image.kernel()?)?;
        fs_err::write(&initrd, self.image.initrd()?)?;
        Ok(FirmwareFiles::Direct { kernel, initrd, arguments: entry.arguments })
    }

    /// What is worth knowing and no failure.
    fn notes(&self, console: &Console, undone: Vec<String>) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(damage) = &self.image.table().primary_damage {
            notes.push(format!(
                "the image's primary partition table is damaged ({damage}); the backup was used"
            ));
        }
        if console.lost_events > 0 {
            notes.push(format!("{} of the validator's console events were lost", console.lost_events));
        }
        if console.marks.validator.is_some() && console.verdict.is_none() {
            notes.push("the console never showed a verdict".to_owned());
        }
        notes.extend(undone);
        if !console.qemu.is_empty() {
            let mut said: Vec<_> = console.qemu.iter().map(String::as_str).collect();
            said.dedup();
            notes.push(format!("QEMU said: {}", said.join(" / ")));
        }
        notes
    }
}

/// Settings for the run; what the machine file sets stays as it is there, for QEMU takes no name of fw_cfg twice.
fn settings<'a>(machine: &Machine, wanted: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<OsString> {
    let is_free = |(key, _): &(&str, &str)| !machine.fw_cfg.contains_key(&format!("opt/gdsboot/{key}"));
    wanted.into_iter().filter(is_free).flat_map(|(key, value)| argv::setting(key, value)).collect()
}

fn keep(run: &Run, folder: &Path) -> Result<()> {
    let write =
        |name: &str, bytes: &[u8]| fs_err::write(folder.join(name), bytes).context("keeping the report");
    if let Some(json) = &run.json {
        write("report.json", json)?;
    }
    if let Some(text) = &run.text {
        write("report.txt", text.as_bytes())?;
    }
    if let Some(capture) = &run.capture {
        write(RUN_CAPTURE, capture)?;
    }
    if let Some(samples) = &run.samples {
        write(RUN_SAMPLES, samples)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_file_sets_is_set_once() {
        let machine = |line: &str| {
            let text = format!(
                "description = 'x'\nchipset = 'q35'\nfirmware = ['bios']\ndisk = 'virtio-blk'\ncpus = 1\n\
                 memory-mib = 1024\n[fw-cfg]\n{line}\n"
            );
            Machine::parse("m", "m.toml", &text).unwrap()
        };
        let wanted = [("capture", "yes"), ("after", "poweroff")];
        let capture = ["-fw_cfg", "name=opt/gdsboot/capture,string=yes"];
        let after = ["-fw_cfg", "name=opt/gdsboot/after,string=poweroff"];
        assert_eq!(settings(&machine("'opt/gdsboot/bench' = 'none'"), wanted), [capture, after].concat());
        assert_eq!(settings(&machine("'opt/gdsboot/after' = 'hold'"), wanted), capture);
    }
}
