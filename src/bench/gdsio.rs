//! gdsio and gdsio_verify beside our own figures, for people who know their numbers. They prove nothing: gdsio says `GPUD`
//! also where the CPU copied.
//!
//! Both open their file by themselves, so what they do to it decides what may be handed to them. Seen with strace, gdsio
//! 1.11 and gdsio_verify 1.6 of gds-tools 1.9.1.3, in every mode of `-x 0`, `1` and `2`:
//!
//! - gdsio `-I 0` and `2` open with `O_RDONLY|O_DIRECT`, create nothing and write nothing. A file that is shorter than `-s`
//!   is read to its end; an empty one is status 0 without a word.
//! - gdsio `-I 1` and `3` open with `O_WRONLY|O_CREAT|O_DIRECT`, make a file that is shorter than `-s` longer with ftruncate,
//!   never cut one, and fill it with the letter A. The name of a device that is not there becomes a file in `/dev`.
//! - gdsio_verify reads with `O_RDONLY|O_DIRECT` and writes a copy of what it read to `<file>-...verify.<pid>` beside the
//!   file. It removes the copy after success, and leaves it behind after a failure.
//! - `/proc/<pid>/fd/<n>` of a file without a name, or of a disk that is open with `O_EXCL`, works as `-f` of gdsio, for reads
//!   and writes. gdsio_verify cannot make its copy there, and gets a link in a folder of its own instead.
//! - Without a GPU, `-x 0` and `2` end their main thread and hang; `-x 1` needs a GPU too, and prints negative numbers.
//!
//! Another release may do other things. So neither is given what may only be read.

pub mod answer;
pub mod command;

use super::results::{Cause, Drive, GdsioMeasured, GdsioVerified, Level, NotDone};
use super::worker::settings::CufileSettings;
use crate::error::one_line;
use crate::facts::gdsio::GdsioRun;
use crate::program::{Ended, Run, Words, ending, last_words};
use answer::VerifyAnswer;
use anyhow::Context as _;
use command::{CommandLine, Near, Shape, Tools};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::time::Duration;

/// How long a tool may take besides its transfers: a driver that cannot start its GPU takes some 6 s for each try.
const START: Duration = Duration::from_secs(45);
/// How long gdsio_verify may take besides.
const VERIFY: Duration = Duration::from_secs(120);
/// What gdsio_verify compares: as much of the GPU's memory is taken.
const VERIFIED: u64 = 256 << 20;
/// In pieces of so many bytes.
const CHUNK: u64 = 16 << 20;
/// How much of cuFile's log is read, from its end.
const LOG: u64 = 64 << 10;
/// How many of its complaints are kept.
const COMPLAINTS: usize = 10;

/// What the tools are given.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The GPU; `None` where none could be opened.
    pub gpu: Option<Near<'a>>,
    /// What is known of the drive.
    pub drive: &'a Drive,
    /// The file or device, open: the tools find it by its number in this process.
    pub file: &'a File,
    /// A folder on the file's filesystem, for the copy that gdsio_verify writes; `None` for a whole disk.
    pub folder: Option<&'a Path>,
    /// Do libraries that imitate NVIDIA's stand in for them?
    pub simulated: bool,
}

impl<'a> Place<'a> {
    /// Why no tool is given this, whatever it is to do; else the GPU.
    fn near(&self, tool: &str) -> Result<Near<'a>, NotDone> {
        let refuse = |cause, why| Err(self.refusal(tool, cause, why));
        if self.simulated {
            // It has the CUDA runtime linked in, which asks libcuda for tables that no imitation has.
            let why = format!("imitation libraries are in use, and {tool} runs on NVIDIA's own alone");
            return refuse(Cause::Refused, why);
        }
        if self.drive.level == Level::ReadOnly {
            let why = format!(
                "{} may only be read, and {tool} opens it by itself: nothing would keep it from writing",
                self.drive.name
            );
            return refuse(Cause::Refused, why);
        }
        self.gpu
            .map_or_else(|| refuse(Cause::NoGpu, format!("no GPU could be opened, and {tool} needs one")), Ok)
    }

    fn refusal(&self, tool: &str, cause: Cause, why: String) -> NotDone {
        let gpu = self.gpu.map(|gpu| gpu.pci.to_owned());
        NotDone { what: tool.to_owned(), gpu, drive: Some(self.drive.name.clone()), cause, why }
    }

    /// The file as any process of this user can open it.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }
}

/// Runs gdsio.
///
/// # Errors
/// It makes no sense there. That gdsio failed is part of what it returns.
pub fn measure(
    tools: &Tools,
    place: &Place<'_>,
    shape: &Shape,
    settings: CufileSettings,
) -> Result<GdsioMeasured, NotDone> {
    let near = place.near("gdsio")?;
    let least = u64::from(shape.block) * u64::from(shape.threads);
    if shape.bytes < least || shape.bytes > place.drive.bytes {
        // It would refuse, make the file longer, or measure something else.
        let why = format!(
            "there is no room: {} threads with {} bytes each are to touch {} bytes of {}, which has {}",
            shape.threads, shape.block, shape.bytes, place.drive.name, place.drive.bytes
        );
        return Err(place.refusal("gdsio", Cause::Size, why));
    }
    let (gpu, drive) = (near.pci.to_owned(), place.drive.name.clone());
    let mut measured = GdsioMeasured { gpu, drive, ..GdsioMeasured::default() };
    let Some(program) = &tools.gdsio else {
        measured.error = Some(absent("gdsio", tools));
        return Ok(measured);
    };
    let limit = START + Duration::from_secs(shape.seconds.into());
    let command = |settings: &Path| CommandLine::gdsio(program, &near, &place.path(), shape, settings);
    match execute(command, settings, limit) {
        Err(error) => measured.error = Some(one_line(&error)),
        Ok(Executed { command, ended, complaints }) => {
            measured.run = GdsioRun::parse("gdsio", ended.stdout.lines().chain(ended.stderr.lines()));
            measured.error = no_measurement(&ended, limit, &measured.run, shape);
            measured.command = command;
            measured.seconds = ended.took.as_secs_f64();
            measured.cufile_complaints = complaints;
        }
    }
    Ok(measured)
}

/// Runs gdsio_verify.
///
/// # Errors
/// It makes no sense there. That gdsio_verify failed is part of what it returns.
pub fn verify(tools: &Tools, place: &Place<'_>, settings: CufileSettings) -> Result<GdsioVerified, NotDone> {
    let near = place.near("gdsio_verify")?;
    let refuse = |cause, why| Err(place.refusal("gdsio_verify", cause, why));
    let bytes = place.drive.bytes.min(VERIFIED) / CHUNK * CHUNK;
    if bytes == 0 {
        return refuse(Cause::Size, format!("it is smaller than {CHUNK} bytes"));
    }
    let Some(folder) = place.folder else {
        let why = "it writes a copy beside the file, and beside a whole disk there is no room".to_owned();
        return refuse(Cause::Room, why);
    };
    match room(folder, place.file) {
        // Whoever else writes there needs some of it.
        Ok(room) if room / 2 >= bytes => {}
        Ok(room) => {
            let why = format!(
                "there is no room: its copy of {bytes} bytes is more than half of the {room} that are free in {}",
                folder.display()
            );
            return refuse(Cause::Room, why);
        }
        Err(error) => return refuse(Cause::Refused, one_line(&error)),
    }
    let (gpu, drive) = (near.pci.to_owned(), place.drive.name.clone());
    let mut verified = GdsioVerified { gpu, drive, bytes, ..GdsioVerified::default() };
    let Some(program) = &tools.gdsio_verify else {
        verified.error = Some(absent("gdsio_verify", tools));
        return Ok(verified);
    };
    let limit = START + VERIFY;
    let executed = beside(folder, &place.path(), |file| {
        let command =
            |settings: &Path| CommandLine::gdsio_verify(program, &near, file, bytes, CHUNK, settings);
        execute(command, settings, limit)
    });
    match executed {
        Err(error) => verified.error = Some(one_line(&error)),
        Ok(Executed { command, ended, complaints }) => {
            verified.answer = VerifyAnswer::parse(ended.stdout.lines().chain(ended.stderr.lines()));
            verified.error = not_verified(&ended, limit, &verified.answer, bytes);
            verified.command = command;
            verified.seconds = ended.took.as_secs_f64();
            verified.cufile_complaints = complaints;
        }
    }
    Ok(verified)
}

fn absent(tool: &str, tools: &Tools) -> String {
    format!("there is no {tool} in {} (it comes with the package gds-tools)", tools.folders.join(", "))
}

/// What is free in `folder`, which has to be on the same filesystem as `file`.
fn room(folder: &Path, file: &File) -> anyhow::Result<u64> {
    let ask = || -> anyhow::Result<u64> {
        let is_same = std::fs::metadata(folder)?.dev() == file.metadata()?.dev();
        anyhow::ensure!(is_same, "it is not on the same filesystem as the file");
        let free = nix::sys::statvfs::statvfs(folder)?;
        Ok(free.blocks_available().saturating_mul(free.fragment_size()))
    };
    ask().with_context(|| format!("looking for room in {}", folder.display()))
}

/// Calls `run` with a link to `path` in a new folder below `folder`, and removes that with all that was put there.
fn beside<T>(folder: &Path, path: &str, run: impl FnOnce(&str) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let make = || -> anyhow::Result<(tempfile::TempDir, String)> {
        let own = tempfile::Builder::new().prefix("gdsboot-gdsio_verify-").tempdir_in(folder)?;
        let link = own.path().join("data");
        symlink(path, &link)?;
        let link = link.to_str().context("its path is not UTF-8")?.to_owned();
        Ok((own, link))
    };
    let (own, link) =
        make().with_context(|| format!("making a folder for gdsio_verify in {}", folder.display()))?;
    let result = run(&link);
    let shown = own.path().display().to_string();
    own.close().with_context(|| format!("removing {shown}, which gdsio_verify wrote to"))?;
    result
}

/// A tool that was run.
struct Executed {
    command: String,
    ended: Ended,
    complaints: Vec<String>,
}

/// Runs a command in a folder of its own with cuFile's settings and its log; `command` is given the settings' path.
fn execute(
    command: impl FnOnce(&Path) -> CommandLine,
    settings: CufileSettings,
    limit: Duration,
) -> anyhow::Result<Executed> {
    let folder = tempfile::tempdir().context("making a folder for cuFile's log")?;
    let config = folder.path().join("cufile.json");
    fs_err::write(&config, settings.json(folder.path()).to_string())?;
    let command = command(&config);
    let environment: Vec<_> =
        command.environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let args: Vec<&str> = command.args.iter().map(String::as_str).collect();
    let run = Run {
        program: &command.program,
        args: &args,
        environment: &environment,
        folder: Some(folder.path()),
        limit,
        words: Words::Apart,
        daemon: false,
    };
    let ended = run.to_end()?;
    Ok(Executed { command: command.line(), ended, complaints: complaints(folder.path()) })
}

/// The last errors and warnings of cuFile's logs in `folder`. A log that cannot be read is no loss.
fn complaints(folder: &Path) -> Vec<String> {
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    paths.sort();
    let mut lines: Vec<String> = paths.iter().filter_map(|path| end_of(path).ok()).flatten().collect();
    lines.drain(..lines.len().saturating_sub(COMPLAINTS));
    lines
}

fn end_of(path: &Path) -> std::io::Result<Vec<String>> {
    let mut file = File::open(path)?;
    let from = file.metadata()?.len().saturating_sub(LOG);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(LOG).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let is_complaint = |line: &&str| [" ERROR ", " WARN "].iter().any(|level| line.contains(level));
    Ok(text.lines().filter(is_complaint).map(crate::facts::log_lines::tidy).collect())
}

/// Why what gdsio printed is no measurement of what it was asked.
fn no_measurement(ended: &Ended, limit: Duration, run: &GdsioRun, shape: &Shape) -> Option<String> {
    let complaint = || match run.errors.first() {
        Some(error) => format!(": {error}"),
        None => said(ended),
    };
    if let Some(how) = failed("gdsio", ended, limit) {
        return Some(how + &complaint());
    }
    if let Some(error) = run.errors.first() {
        return Some(format!("gdsio complained: {error}"));
    }
    let [result] = run.results.as_slice() else {
        return Some(match run.results.len() {
            0 => format!("gdsio ended with status 0 and printed no result{}", complaint()),
            count => format!("gdsio printed {count} results where one was asked"),
        });
    };
    let asked = (shape.io_type(), shape.way.xfer_type());
    if (result.io_type.as_str(), result.xfer_type.as_str()) != asked {
        let (io_type, way) = asked;
        return Some(format!(
            "gdsio's result is of {} by {}, where {io_type} by {way} was asked",
            result.io_type, result.xfer_type
        ));
    }
    result.nonsense().map(|why| format!("gdsio's result is no measurement: {why}"))
}

/// Why what gdsio_verify printed does not say that all bytes arrived as they were.
fn not_verified(ended: &Ended, limit: Duration, answer: &VerifyAnswer, bytes: u64) -> Option<String> {
    if let Some(mismatch) = answer.mismatch() {
        return Some(format!("gdsio_verify found bytes that differ: {mismatch}"));
    }
    let complaint = || match answer.complaints.first() {
        Some(complaint) => format!(": {complaint}"),
        None => said(ended),
    };
    if let Some(how) = failed("gdsio_verify", ended, limit) {
        return Some(how + &complaint());
    }
    if answer.success == Some(false) {
        return Some(format!("gdsio_verify failed with status 0{}", complaint()));
    }
    answer.nonsense(bytes).map(|why| format!("gdsio_verify's answer is none: {why}"))
}

/// How a tool ended that did not end well.
fn failed(tool: &str, ended: &Ended, limit: Duration) -> Option<String> {
    let how = ending(ended.status, limit);
    match ended.status {
        None => Some(format!("{tool} was {how}")),
        Some(status) if status.success() => None,
        Some(status) if status.code().is_some() => Some(format!("{tool} ended with {how}")),
        Some(_) => Some(format!("{tool} crashed with {how}")),
    }
}

/// The last thing that a tool said, as the end of a message.
fn said(ended: &Ended) -> String {
    let complaint = last_words(&ended.stderr);
    if complaint.is_empty() { last_words(&ended.stdout) } else { complaint }
}

#[cfg(test)]
mod tests;
