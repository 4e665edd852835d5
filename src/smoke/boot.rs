//! One boot: a copy of the image, a QEMU, its console, and the report on the copy afterwards.

use super::argv::{self, Accel};
use super::console::Console;
use super::data_drive;
use super::emulator::Emulator;
use super::guest::{Guest, Line};
use super::log::Log;
use super::machine::{Disk, Firmware, Machine};
use super::media::{Media, ReportDisk};
use super::outcome::{Outcome, judge};
use super::wait::{End, Next, wait};
use crate::boot_contract::{REPORT_RUNS, RUN_CAPTURE, RUN_SAMPLES};
use crate::progress::{Progress, Unit};
use crate::report::kind::Kind;
use crate::report::source::{Image, Run};
use anyhow::{Context as _, Result};
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

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
}

/// When to give up on a boot, since QEMU's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Deadlines {
    /// Until the kernel speaks.
    kernel: Duration,
    /// Until QEMU ends.
    end: Duration,
    /// Between words such as "Kernel panic" and the end: time for the lines that explain them.
    last_words: Duration,
}

impl Deadlines {
    /// TCG executes a guest some ten times slower; a third of a boot is firmware and loader.
    fn new(accel: Accel, scale: f64) -> Self {
        let seconds = match accel {
            Accel::Kvm => 120.0,
            Accel::Tcg => 600.0,
        } * scale;
        let limit = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        Self { kernel: limit(seconds / 3.0), end: limit(seconds), last_words: limit(seconds / 60.0) }
    }
}

impl Boot<'_> {
    /// Boots in `folder`, which is empty and stays as it is afterwards: `image.img` (or `.qcow2`, `.iso`), `report.img` where
    /// there is a report disk, `console.log`, `command`, and `report.txt`, `report.json` and `capture.tar.zst` where the guest wrote them. An error means that it could not be tried.
    pub fn run(&self, emulator: &Emulator, folder: &Path, progress: &Progress) -> Result<Outcome> {
        let name = format!("boot {} {}", self.firmware, self.disk);
        let stage = progress.stage(&format!("{name}: copy"), self.image.size(), Unit::Bytes);
        let media = Media::copy(self.image, self.disk, self.read_only, self.report, folder, &stage)?;
        drop(stage);
        let before = match media.reported_kind() {
            Kind::Iso => Vec::new(),
            _ => Image::open(media.reported())?.runs()?,
        };
        let firmware = emulator.firmware(self.firmware, self.machine.secure_boot, folder)?;
        let data = data_drive::make(&self.machine.drives, folder)?;
        let mut arguments = argv::boot(self.machine, &media, &firmware, &data, self.accel);
        let capture = self.capture.then_some(("capture", "yes"));
        // Nobody is there to read the screen.
        let after = (media.reported_kind() == Kind::Iso).then_some(("after", "poweroff"));
        arguments.extend(settings(self.machine, capture.into_iter().chain(after)));
        let command = emulator.command_line(&arguments, folder);
        fs_err::write(folder.join("command"), format!("{command}\n"))?;

        let stage = progress.stage(&name, 0, Unit::Steps);
        let mut console = Console::default();
        let mut log = Log::create(&folder.join("console.log"))?;
        let deadlines = Deadlines::new(self.accel, self.timeout_scale);
        let mut guest = Guest::start(emulator, &arguments, folder)?;
        let end = wait(&mut guest, deadlines.kernel, &mut |line| {
            log.add(line)?;
            let next = follow(&mut console, line, &deadlines);
            stage.message(console.marks.reached());
            Ok(next)
        });
        log.close()?;
        let end = end?;
        let age = guest.age();
        if let End::Exited(_) = end {
            console.marks.exit = Some(age);
        }
        drop(stage);

        let found = find_run(&media, &before, &console);
        if let Ok((Some(run), _)) = &found {
            keep(run, folder)?;
        }
        let mut notes = notes(&console, self.image);
        let found = found.map(|(run, dirty)| {
            notes.extend(dirty.then(|| "the report partition was not unmounted".to_owned()));
            run
        });
        Ok(Outcome {
            machine: self.machine.name.clone(),
            firmware: self.firmware,
            disk: self.disk,
            accel: self.accel,
            phases: console.marks.phases(),
            result: judge(end, age, &console, found),
            notes,
            command,
            kept: None,
        })
    }
}

/// Settings for the run; what the machine file sets stays as it is there, for QEMU takes no name of fw_cfg twice.
fn settings<'a>(machine: &Machine, wanted: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<OsString> {
    let is_free = |(key, _): &(&str, &str)| !machine.fw_cfg.contains_key(&format!("opt/gdsboot/{key}"));
    wanted.into_iter().filter(is_free).flat_map(|(key, value)| argv::setting(key, value)).collect()
}

/// Shows a line to the console and tells how long to wait after it.
fn follow(console: &mut Console, line: &Line, deadlines: &Deadlines) -> Next {
    let was_dead = console.dead_end.is_some();
    let had_kernel = console.marks.kernel.is_some() || console.marks.validator.is_some();
    console.add(line);
    if console.dead_end.is_some() {
        return if was_dead {
            Next::Continue
        } else {
            Next::Until(line.at.saturating_add(deadlines.last_words).min(deadlines.end))
        };
    }
    let has_kernel = console.marks.kernel.is_some() || console.marks.validator.is_some();
    if has_kernel && !had_kernel { Next::Until(deadlines.end) } else { Next::Continue }
}

/// The run that this boot left on the copy, or on the report disk beside it, and whether the partition was left mounted. It is the one that the console
/// named, else the newest of those that were not there before.
fn find_run(media: &Media, before: &[String], console: &Console) -> Result<(Option<Run>, bool)> {
    if media.reported_kind() == Kind::Iso {
        return Ok((None, false));
    }
    let image = Image::open(media.reported())?;
    let dirty = image.filesystem(image.report_partition()?)?.is_dirty();
    let new: Vec<String> = image.runs()?.into_iter().filter(|name| !before.contains(name)).collect();
    let path = console.verdict.as_ref().and_then(|(_, path)| path.as_deref());
    let named = path.and_then(|path| path.strip_prefix(REPORT_RUNS)).map(|name| name.trim_matches('/'));
    let by_path = new.iter().find(|name| Some(name.as_str()) == named);
    let by_id =
        || console.run_id.as_ref().and_then(|id| new.iter().find(|name| name.ends_with(&format!("-{id}"))));
    match by_path.or_else(by_id).or(new.last()) {
        Some(name) => Ok((Some(image.run(name)?), dirty)),
        None => Ok((None, dirty)),
    }
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

fn notes(console: &Console, image: &Image) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(damage) = &image.table().primary_damage {
        notes.push(format!("the image's primary partition table is damaged ({damage}); the backup was used"));
    }
    if console.lost_events > 0 {
        notes.push(format!("{} of the validator's console events were lost", console.lost_events));
    }
    if console.marks.validator.is_some() && console.verdict.is_none() {
        notes.push("the console never showed a verdict".to_owned());
    }
    if !console.qemu.is_empty() {
        let said: Vec<_> = console.qemu.iter().map(String::as_str).collect();
        notes.push(format!("QEMU said: {}", said.join(" / ")));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smoke::guest::Speaker;

    fn next(lines: &[&str]) -> Vec<Next> {
        let deadlines = Deadlines::new(Accel::Tcg, 1.0);
        let mut console = Console::default();
        let line = |n, text: &str| Line {
            at: Duration::from_secs(n),
            speaker: Speaker::Guest,
            text: text.to_owned(),
        };
        (1..).zip(lines).map(|(n, text)| follow(&mut console, &line(n, text), &deadlines)).collect()
    }

    #[test]
    fn the_kernel_gets_more_time_and_a_panic_little() {
        let until = |seconds| Next::Until(Duration::from_secs(seconds));
        assert_eq!(
            next(&[
                "SeaBIOS",
                "[    0.000000] x",
                "[    0.100000] y",
                "Kernel panic - not syncing: z",
                "trace"
            ]),
            [Next::Continue, until(600), Next::Continue, until(14), Next::Continue]
        );
    }

    #[test]
    fn deadlines_scale_with_accelerator_and_wish() {
        let seconds = |accel, scale| Deadlines::new(accel, scale).end.as_secs();
        assert_eq!(seconds(Accel::Kvm, 1.0), 120);
        assert_eq!(seconds(Accel::Tcg, 0.5), 300);
        assert_eq!(Deadlines::new(Accel::Tcg, f64::MAX).end, Duration::MAX);
    }

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
