//! Programs of the operator's own, and whether they keep the rules that he gave them: tables of `gdsboot.toml`, of which
//! `name` and `command` are needed.
//!
//! ```toml
//! [[workload]]
//! name = "wake"
//! command = ["wake-model", "--from", "{folder}", "--gpu={gpu}"]
//! timeout_s = 300      # it is killed then; 120 where nothing is said, at most 3600
//! status = 0           # what it has to end with; 0 where nothing is said
//! expect = "^ready$"   # a pattern that its output has to match; ^ and $ are the ends of a line
//! figure = "woke in ([0-9.]+) s"   # a pattern with one group, a number; its last match counts
//! at_least = 0.1       # the least that the number may be
//! at_most = 2.0        # the most
//! unit = "s"           # what is said behind it
//! ```
//!
//! `command` may also be one string, which is split at blanks. 'Single' and "double" quotes keep blanks together, and there
//! are no escapes. There is no shell, so what means something to one has to be in quotes, or the shell is the program:
//! `["/bin/sh", "-c", "..."]`.
//!
//! A program that is not an absolute path is one of the operator's folder of programs. Placeholders in the command stand
//! for what there is to work on: [`PLACEHOLDERS`].

pub mod config;
pub mod programs;
pub mod rule;

use super::results::WorkloadResult;
use crate::error::one_line;
use crate::pasteable::with_environment;
use crate::program::{Run, Words};
use rule::Rule;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _};
use std::path::Path;
use std::time::Duration;

/// A program, and what it has to do.
#[derive(Clone, Debug)]
pub struct Workload {
    /// What the operator calls it.
    pub name: String,
    /// The program and its arguments, with placeholders.
    pub command: Vec<String>,
    /// When it is killed.
    pub timeout: Duration,
    /// What makes it pass.
    pub rule: Rule,
}

/// What may stand in a command, and what it stands for.
pub const PLACEHOLDERS: [(&str, &str); 5] = [
    ("{file}", "a scratch file"),
    ("{files}", "all scratch files: a word for each where it is a word of its own, else with commas between"),
    ("{folder}", "a folder on the filesystem that is tested"),
    ("{gpu}", "a GPU's number, in the order of PCI addresses"),
    ("{gpus}", "all GPUs' numbers with commas between"),
];

/// What there is to work on; what is missing has no value. A program does with it what it likes, so that nothing belongs in
/// here that may only be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Available {
    /// `{file}`
    pub file: Option<String>,
    /// `{files}`
    pub files: Vec<String>,
    /// `{folder}`
    pub folder: Option<String>,
    /// `{gpu}`
    pub gpu: Option<u32>,
    /// `{gpus}`
    pub gpus: Vec<u32>,
}

/// How much of its output is kept.
const OUTPUT: usize = 4096;
/// The longest first line of a script that is looked at.
const FIRST_LINE: u64 = 256;

/// Runs a workload with `environment` besides the usual; `programs` is the folder of the operator's programs.
pub fn run(
    workload: &Workload,
    available: &Available,
    programs: Option<&Path>,
    environment: &[(&str, &str)],
) -> WorkloadResult {
    let mut result = WorkloadResult {
        name: workload.name.clone(),
        unit: workload.rule.figure.as_ref().and_then(|figure| figure.unit.clone()),
        ..WorkloadResult::default()
    };
    if let Err(why) = run_into(&mut result, workload, available, programs, environment) {
        result.why = format!("not run: {why}");
    }
    result
}

/// The error is why it could not be run.
fn run_into(
    result: &mut WorkloadResult,
    workload: &Workload,
    available: &Available,
    programs: Option<&Path>,
    environment: &[(&str, &str)],
) -> Result<(), String> {
    let words = fill(&workload.command, available)?;
    let [program, args @ ..] = words.as_slice() else { return Err("its command is empty".into()) };
    let program = find(program, programs)?;
    // `{gpu}` counts as CUDA then does.
    let environment: Vec<_> =
        [("CUDA_DEVICE_ORDER", "PCI_BUS_ID")].iter().chain(environment).copied().collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let line = std::iter::once(program.as_str()).chain(args.iter().copied());
    result.command = with_environment(environment.iter().copied(), line);
    let folder = tempfile::tempdir().map_err(|error| format!("making a folder for it: {error}"))?;
    let ended = Run {
        program: &program,
        args: &args,
        environment: &environment,
        folder: Some(folder.path()),
        limit: workload.timeout,
        words: Words::Together,
        daemon: false,
    }
    .to_end()
    .map_err(|error| why_not_started(&program, &error))?;
    let judgement = workload.rule.judge(ended.status, workload.timeout, &ended.stdout);
    result.ran = true;
    result.seconds = ended.took.as_secs_f64();
    result.passed = judgement.passed;
    result.why = judgement.why;
    result.figure = judgement.figure;
    result.output = end_of(&ended.stdout, OUTPUT).to_owned();
    Ok(())
}

/// The command with values in the place of placeholders; the error says which has none. Other braces stay as they are.
fn fill(command: &[String], available: &Available) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    for word in command {
        if word == "{files}" && !available.files.is_empty() {
            words.extend_from_slice(&available.files);
            continue;
        }
        let mut filled = String::new();
        let mut rest = word.as_str();
        while let Some(at) = rest.find('{') {
            filled.push_str(&rest[..at]);
            rest = &rest[at..];
            match PLACEHOLDERS.iter().find(|(name, _)| rest.starts_with(name)) {
                Some((name, _)) => {
                    filled.push_str(&value(name, available)?);
                    rest = &rest[name.len()..];
                }
                None => {
                    filled.push('{');
                    rest = &rest[1..];
                }
            }
        }
        words.push(filled + rest);
    }
    Ok(words)
}

fn value(name: &str, available: &Available) -> Result<String, String> {
    let list = |items: &[String]| (!items.is_empty()).then(|| items.join(","));
    let numbers = |numbers: &[u32]| list(&numbers.iter().map(u32::to_string).collect::<Vec<_>>());
    let (value, what) = match name {
        "{file}" => (available.file.clone(), "scratch file"),
        "{files}" => (list(&available.files), "scratch file"),
        "{folder}" => (available.folder.clone(), "folder on a filesystem that is tested"),
        "{gpu}" => (available.gpu.map(|gpu| gpu.to_string()), "GPU"),
        "{gpus}" => (numbers(&available.gpus), "GPU"),
        _ => (None, "such placeholder"),
    };
    value.ok_or_else(|| format!("there is no {what}, which {name} stands for"))
}

/// Where a program is.
fn find(program: &str, programs: Option<&Path>) -> Result<String, String> {
    if program.starts_with('/') {
        let is_there = Path::new(program).is_file();
        return if is_there { Ok(program.to_owned()) } else { Err(format!("there is no program {program}")) };
    }
    let by_path = "a program of the system is named by its absolute path";
    let Some(programs) = programs else {
        return Err(format!("there is no folder with a program {program}; {by_path}"));
    };
    let path = programs.join(program);
    let path = path.to_str().filter(|_| path.is_file()).map(str::to_owned);
    path.ok_or_else(|| format!("there is no {program} among the operator's programs; {by_path}"))
}

/// Why a program that is there cannot be started.
fn why_not_started(program: &str, error: &anyhow::Error) -> String {
    let kind = error.downcast_ref::<std::io::Error>();
    let code = kind.and_then(std::io::Error::raw_os_error);
    let reason = match kind.map(std::io::Error::kind) {
        Some(ErrorKind::NotFound) if ends_as_on_windows(program) => {
            "its first line ends as lines end on Windows: save it with Unix line ends"
        }
        Some(ErrorKind::NotFound) => "the interpreter or the loader that it names is not there",
        Some(ErrorKind::PermissionDenied) => "it may not be executed, or its filesystem is mounted noexec",
        _ if code == Some(libc::ENOEXEC) => "it is neither a program nor a script that begins with #!",
        _ => return one_line(error),
    };
    format!("{program}: {reason}")
}

fn ends_as_on_windows(program: &str) -> bool {
    let mut line = Vec::new();
    let read = std::fs::File::open(program)
        .and_then(|file| BufReader::new(file.take(FIRST_LINE)).read_until(b'\n', &mut line));
    read.is_ok() && line.starts_with(b"#!") && line.ends_with(b"\r\n")
}

/// At most `bytes` from the end of a text.
fn end_of(text: &str, bytes: usize) -> &str {
    let from = text.len().saturating_sub(bytes);
    &text[text.ceil_char_boundary(from)..]
}

#[cfg(test)]
mod tests;
