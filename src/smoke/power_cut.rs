//! Boots whose power fails, again and again on the same disk: whatever the moment, the report partition can be read
//! afterwards, no complete report changes, and none is half-written.

use super::console::Console;
use super::fault::Moment;
use super::follow::{Deed, Start, Watched};
use super::log::Log;
use super::media::Media;
use super::runs::{self, Before};
use super::wait::End;
use super::write_log::{self, Entry};
use super::{copy, replay};
use crate::boot_contract::REPORT_RUNS;
use crate::interrupt;
use crate::progress::{Progress, Stage, Unit};
use crate::report::fat::ReadAt;
use crate::report::json;
use crate::report::source::{Image, Run};
use anyhow::{Context as _, Result, bail, ensure};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// What the cuts came to. The undisturbed boot comes after.
#[derive(Debug)]
pub struct Survived {
    /// The runs that were there before the last boot.
    pub before: Before,
    /// What each cut left, one line each.
    pub notes: Vec<String>,
    /// What was lost, or why it could not be seen.
    pub failure: Option<String>,
}

/// How far the report of a run got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Begun,
    Checkpoint,
    Complete,
}

impl State {
    fn words(self) -> &'static str {
        match self {
            Self::Begun => "was begun",
            Self::Checkpoint => "has the report of its checkpoint",
            Self::Complete => "is complete",
        }
    }
}

/// All runs on all disks.
type Runs = BTreeMap<(PathBuf, String), (State, Run)>;

/// The starts of QEMU that power cuts need.
#[derive(Clone, Copy, Debug)]
pub struct Starts<'a> {
    /// As the guest is started.
    pub plain: &'a Start<'a>,
    /// The same, with the writes to the image in a log.
    pub logged: &'a Start<'a>,
    /// That log.
    pub write_log: &'a Path,
}

/// Boots undisturbed; again, with its writes logged, to see what a cut after any of them would leave; then once for each of
/// `cuts`. Without any, nothing is booted.
///
/// # Errors
/// A boot could not be tried.
pub fn boot(
    starts: Starts<'_>,
    cuts: &[Moment],
    media: &Media,
    log: &mut Log,
    stage: &Stage,
) -> Result<Survived> {
    let start = starts.plain;
    let mut notes = Vec::new();
    let failed = |notes, what| Ok(Survived { before: Before::now(media), notes, failure: Some(what) });
    if cuts.is_empty() {
        return Ok(Survived { before: Before::now(media), notes, failure: None });
    }
    if let Err(error) = complete_boot(start, media, log, stage)? {
        return failed(notes, format!("the boot before the first power cut: {error:#}"));
    }
    log.say("the next boot's writes are logged")?;
    match after_every_write(starts, media, log, stage)? {
        Ok(words) => notes.push(words),
        Err(error) => return failed(notes, format!("{error:#}")),
    }
    let mut states = States::default();
    let mut known = match states.of_media(media) {
        Ok(runs) => runs,
        Err(error) => return failed(notes, format!("before the first power cut: {error:#}")),
    };
    for moment in cuts {
        let watched = cut(start, moment, log, stage)?;
        if !watched.undone.is_empty() || !ended_in_order(&watched) {
            let undone = watched.undone.join("; ");
            return failed(notes, format!("the power was not cut at {moment}: {:?} {undone}", watched.end));
        }
        let compared = states.of_media(media).and_then(|now| Ok((compare(&known, &now)?, now)));
        match compared {
            Err(error) => return failed(notes, format!("after the power was cut at {moment}: {error:#}")),
            Ok((words, now)) => {
                if let Some(run) = promised(&watched.console)
                    && !now.iter().any(|((_, name), (state, _))| name == run && *state == State::Complete)
                {
                    let what = format!("the console said that the run {run} has its report, and it has none");
                    return failed(notes, format!("after the power was cut at {moment}: {what}"));
                }
                known = now;
                notes.push(format!("power cut at {moment}: {words}"));
            }
        }
    }
    log.say("the next boot is undisturbed")?;
    Ok(Survived { before: Before::now(media), notes, failure: None })
}

/// Boots whose power is to fail at the same moment.
const ATTEMPTS: u32 = 3;

/// Boots, and cuts the power at `moment`; anew where the guest powered off before, for it may be quicker, or the kernel may
/// have written into the middle of the line that marks the moment.
fn cut(start: &Start<'_>, moment: &Moment, log: &mut Log, stage: &Stage) -> Result<Watched> {
    let mut attempt = 1;
    loop {
        log.say(&format!("the next boot's power is cut at {moment}"))?;
        let watched = start.watch(&[(moment, Deed::CutPower)], log, stage)?;
        if watched.undone.is_empty() || !ended_in_order(&watched) || attempt == ATTEMPTS {
            return Ok(watched);
        }
        log.say(&format!("the power was not cut: {}", watched.undone.join("; ")))?;
        attempt += 1;
    }
}

fn ended_in_order(watched: &Watched) -> bool {
    matches!(watched.end, End::Exited(status) if status.success())
}

/// A boot that must leave a complete report.
fn complete_boot(start: &Start<'_>, media: &Media, log: &mut Log, stage: &Stage) -> Result<Result<()>> {
    let before = Before::now(media);
    let watched = start.watch(&[], log, stage)?;
    let left = runs::left(media, &before, &watched.console);
    Ok(left.and_then(|(run, _)| run.context("it left no run")?.report().map(drop)))
}

/// Boots with a log of the writes, and looks at what a power cut after any of them would have left.
fn after_every_write(
    starts: Starts<'_>,
    media: &Media,
    log: &mut Log,
    stage: &Stage,
) -> Result<Result<String>> {
    let path = starts.logged.folder.join("before.img");
    copy::sparse(&media.image.path, &path, &Progress::none().stage("", 0, Unit::Bytes))?;
    fs_err::write(starts.write_log, "").context("beginning the log of writes")?;
    if let Err(error) = complete_boot(starts.logged, media, log, stage)? {
        return Ok(Err(error.context("the boot whose writes are logged")));
    }
    let written = fs_err::read(starts.write_log)?;
    let image = Image::open(&path)?;
    let before = image.raw().context("the image is no raw disk")?;
    let look = || -> Result<String> {
        let entries = write_log::entries(&written).context("reading the log of writes")?;
        let writes = entries.iter().filter(|entry| matches!(entry, Entry::Write { .. })).count();
        let mut states = States::default();
        let over = states.of(&path, &image)?;
        let mut known = over.clone();
        let cuts = replay::every_cut(before, &entries, &mut |cut| {
            interrupt::check()?;
            let context = || format!("had the power failed {} {} of {writes}", cut.what, cut.write);
            let disk = Image::of(&path, &cut.disk, image.size(), image.table().clone());
            let now = states.of(&path, &disk).with_context(context)?;
            compare(&over, &now).and_then(|_| keeps_its_report(&known, &now)).with_context(context)?;
            if cut.is_kept {
                known = now;
            }
            Ok(())
        })?;
        ensure!(
            known.values().filter(|(state, _)| *state == State::Complete).count() >= 2,
            "the log ends too early"
        );
        Ok(format!(
            "power cuts after each of {writes} writes, {cuts} in all orders of the disk: nothing is lost"
        ))
    };
    let looked = look();
    fs_err::remove_file(&path)?;
    Ok(looked)
}

/// The run whose report is on the disk, as the console said with the verdict.
fn promised(console: &Console) -> Option<&str> {
    let (_, path) = console.verdict.as_ref()?;
    Some(path.as_deref()?.strip_prefix(REPORT_RUNS)?.trim_matches('/'))
}

/// Is everything whole that was, and what is new, in words?
fn compare(known: &Runs, now: &Runs) -> Result<String> {
    for (key, (state, was)) in known {
        let Some((_, is)) = now.get(key) else { bail!("the run {} is gone", key.1) };
        if *state == State::Complete && is != was {
            bail!("the complete report of the run {} is not what it was", key.1);
        }
    }
    let new: Vec<String> = now
        .iter()
        .filter(|(key, _)| !known.contains_key(*key))
        .map(|((_, name), (state, _))| format!("the run {name} {}", state.words()))
        .collect();
    Ok(if new.is_empty() { "no run was begun".to_owned() } else { new.join(", ") })
}

/// A run that goes on has its report for programs first; from then on that is there, and another in place of the text that
/// people read.
fn keeps_its_report(known: &Runs, now: &Runs) -> Result<()> {
    for (key, (state, was)) in known {
        let is = now.get(key).map(|(_, run)| run);
        if *state == State::Complete && is.is_none_or(|is| is.json != was.json || is.text.is_none()) {
            bail!("the complete report of the run {} is gone", key.1);
        }
    }
    Ok(())
}

/// How far reports got. What was read once is not read again.
#[derive(Debug, Default)]
struct States(HashMap<Vec<u8>, bool>);

impl States {
    fn of_media(&mut self, media: &Media) -> Result<Runs> {
        let mut runs = Runs::new();
        for medium in media.places() {
            runs.extend(self.of(&medium.path, &Image::open(&medium.path)?)?);
        }
        Ok(runs)
    }

    /// All runs on one disk.
    fn of<D: ReadAt>(&mut self, path: &Path, image: &Image<D>) -> Result<Runs> {
        let mut runs = Runs::new();
        for name in image.runs()? {
            let context = || format!("reading the run {name}");
            let run = image.run(&name).with_context(context)?;
            let state = self.of_run(&run).with_context(context)?;
            runs.insert((path.to_owned(), name), (state, run));
        }
        Ok(runs)
    }

    fn of_run(&mut self, run: &Run) -> Result<State> {
        let Some(bytes) = &run.json else { return Ok(State::Begun) };
        let is_complete = match self.0.get(bytes) {
            Some(is_complete) => *is_complete,
            None => {
                // A file that is there under its name is whole.
                let is_complete = json::read(bytes).context("its report.json")?.complete;
                self.0.insert(bytes.clone(), is_complete);
                is_complete
            }
        };
        Ok(if is_complete && run.text.is_some() { State::Complete } else { State::Checkpoint })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::Report;
    use crate::report::model::tests::sample;
    use crate::smoke::argv::Accel;
    use crate::smoke::emulator::tests::shell;
    use crate::smoke::follow::Deadlines;
    use crate::smoke::monitor::Monitor;

    fn run(json: Option<&[u8]>, text: Option<&str>) -> Run {
        Run {
            folder: "r".into(),
            started: Some("s".into()),
            json: json.map(<[u8]>::to_vec),
            text: text.map(str::to_owned),
            capture: None,
            samples: None,
        }
    }

    fn report(complete: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        json::write(&Report { complete, ..sample() }, &mut bytes).unwrap();
        bytes
    }

    fn state_of(run: Run) -> Result<State> {
        States::default().of_run(&run)
    }

    fn runs(all: &[(&str, Run)]) -> Runs {
        let one = |(name, run): &(&str, Run)| {
            ((PathBuf::from("image.img"), (*name).to_owned()), (state_of(run.clone()).unwrap(), run.clone()))
        };
        all.iter().map(one).collect()
    }

    #[test]
    fn a_report_is_whole_or_not_there() {
        assert_eq!(state_of(run(None, None)).unwrap(), State::Begun);
        assert_eq!(state_of(run(Some(&report(false)), Some("t"))).unwrap(), State::Checkpoint);
        assert_eq!(state_of(run(Some(&report(true)), Some("t"))).unwrap(), State::Complete);
        assert_eq!(state_of(run(Some(&report(true)), None)).unwrap(), State::Checkpoint);
        let whole = report(true);
        let error = state_of(run(Some(&whole[..whole.len() / 2]), Some("t"))).unwrap_err();
        assert!(format!("{error:#}").starts_with("its report.json: "), "{error:#}");
    }

    #[test]
    fn what_was_complete_stays_as_it_was() {
        let (old, text) = (report(true), Some("t"));
        let known = runs(&[("a", run(Some(&old), text)), ("b", run(None, None))]);
        assert_eq!(compare(&known, &known).unwrap(), "no run was begun");
        let more = runs(&[
            ("a", run(Some(&old), text)),
            ("b", run(Some(&report(false)), None)),
            ("c", run(None, None)),
        ]);
        assert_eq!(compare(&known, &more).unwrap(), "the run c was begun");
        let changed = runs(&[("a", run(Some(&old), Some("u"))), ("b", run(None, None))]);
        let error = compare(&known, &changed).unwrap_err().to_string();
        assert_eq!(error, "the complete report of the run a is not what it was");
        keeps_its_report(&known, &changed).unwrap();
        let gone = runs(&[("a", run(Some(&old), text))]);
        assert_eq!(compare(&known, &gone).unwrap_err().to_string(), "the run b is gone");
        let error = keeps_its_report(&known, &runs(&[("a", run(Some(&old), None))])).unwrap_err();
        assert_eq!(error.to_string(), "the complete report of the run a is gone");
    }

    /// How often a guest is booted for a cut at the loader, and what was not done in the last boot. It has no monitor.
    fn boots(script: &str) -> (usize, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let start = Start {
            emulator: &shell(&format!("echo x >> boots; {script}")),
            arguments: &[],
            folder: folder.path(),
            monitor: Some(&Monitor::new(folder.path()).unwrap()),
            deadlines: Deadlines::new(Accel::Tcg, 1.0, true),
        };
        let mut log = Log::create(&folder.path().join("console.log")).unwrap();
        let moment = Moment::try_from("loader".to_owned()).unwrap();
        let watched = cut(&start, &moment, &mut log, &Progress::none().stage("", 0, Unit::Steps)).unwrap();
        (fs_err::read_to_string(folder.path().join("boots")).unwrap().lines().count(), watched.undone)
    }

    #[test]
    fn a_guest_that_powered_off_before_the_cut_is_booted_anew() {
        let (count, undone) = boots("echo 'gdsboot: loading the kernel'; exit 0");
        assert!(undone[0].starts_with("at loader: "), "{undone:?}");
        assert_eq!((count, undone.len()), (3, 1));
        let never = vec!["the moment loader never came".to_owned()];
        assert_eq!(boots("[ $(wc -l < boots) -lt 2 ]"), (2, never.clone()), "what fails is not tried again");
        assert_eq!(boots("exit 1"), (1, never));
    }
}
