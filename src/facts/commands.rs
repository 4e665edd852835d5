//! What programs printed when a machine was captured: `run/gdsboot/commands/<program>-<n>/{argv,stdout,stderr,status}`,
//! the arguments one per line.

use super::log_lines::{LogLines, tidy};
use super::{Fact, Root};
use crate::error::one_line;
use crate::pasteable::pasteable;
use crate::program::{self, Finished};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

/// Where they stand.
const FOLDER: &str = "/run/gdsboot/commands";
/// What is asked, by name; nvidia-smi first, because it makes the device nodes.
const ASKED: &[&[&str]] = &[&["nvidia-smi"], &["nvidia-smi", "-q"], &["gdscheck", "-p"]];
/// What a capture takes along: the same, and what people ask for first.
pub const CAPTURED: &[&[&str]] = &[
    &["nvidia-smi"],
    &["nvidia-smi", "-q"],
    &["gdscheck", "-p"],
    &["nvidia-smi", "topo", "-m"],
    &["lspci", "-nn"],
];
/// Of these only what loads no driver that does not run.
pub const CAPTURED_WITHOUT_DRIVER: &[&[&str]] = &[&["lspci", "-nn"]];
/// Where they are looked for.
const FOLDERS: &[&str] = &[
    "/usr/bin",
    "/usr/sbin",
    "/bin",
    "/sbin",
    "/usr/local/bin",
    "/usr/local/cuda/gds/tools",
    "/usr/lib/nvidia/current",
];
/// A driver that cannot start its GPU takes some 6 s for each try.
const PATIENCE: Duration = Duration::from_secs(40);

/// How many programs are looked at.
const MOST: usize = 64;
/// How many lines of an output are kept.
const LINES: usize = 600;

/// A program that was run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct CommandOutput {
    /// Its folder, absolute on the machine.
    pub from: String,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Its exit status; missing where it was not written down.
    pub status: Fact<i32>,
    /// What it printed; empty where that is kept as `kernel_log`.
    pub stdout: Vec<String>,
    /// What it complained about.
    pub stderr: Vec<String>,
    /// What is worth keeping of its output, for programs that print the kernel log.
    pub kernel_log: Option<LogLines>,
}

impl CommandOutput {
    /// Reads all of them, ordered by folder.
    pub fn read_all(root: &Root) -> Fact<Vec<Self>> {
        root.list(FOLDER).map(|names| {
            names.iter().take(MOST).map(|name| Self::read(root, &format!("{FOLDER}/{name}"))).collect()
        })
    }

    /// Asks the programs that know what no file says, on the machine that this runs on: those that are there, each for a
    /// while. Without the driver they have nothing to say.
    pub fn ask() -> Vec<Self> {
        let answer = |(argv, finished): (Vec<String>, anyhow::Result<Finished>)| {
            let from = pasteable(&argv);
            match finished {
                Ok(finished) => Self {
                    status: finished.status.code().map_or_else(
                        || Fact::not_read("ended by a signal"),
                        |status| Fact::known(from.as_str(), status),
                    ),
                    stdout: finished.stdout.lines().take(LINES).map(tidy).collect(),
                    stderr: finished.stderr.lines().take(LINES).map(tidy).collect(),
                    from,
                    argv,
                    kernel_log: None,
                },
                Err(error) => Self { stderr: vec![tidy(&one_line(&error))], from, argv, ..Self::default() },
            }
        };
        run_programs(ASKED).map(answer).collect()
    }

    fn read(root: &Root, folder: &str) -> Self {
        let text = |file: &str| {
            let bytes = root.bytes(&format!("{folder}/{file}"));
            bytes.value().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
        };
        let mut argv: Vec<String> = text("argv").lines().map(tidy).collect();
        if argv.is_empty() {
            // The folder's name tells the program: `gdscheck-1`.
            let name = folder.rsplit('/').next().unwrap_or(folder);
            argv.push(name.rsplit_once('-').map_or(name, |(program, _)| program).to_owned());
        }
        let stdout = text("stdout");
        let mut output = Self {
            from: folder.to_owned(),
            status: root.parse(&format!("{folder}/status"), |text| {
                text.parse().map_err(|_| format!("{text:?} is not a number"))
            }),
            stderr: text("stderr").lines().take(LINES).map(tidy).collect(),
            argv,
            ..Self::default()
        };
        if matches!(output.program(), "dmesg" | "journalctl") {
            // A program that was refused printed nothing, which is not an empty log.
            let complained = output.status.value().is_some_and(|status| *status != 0);
            output.kernel_log = (!stdout.is_empty() || !complained)
                .then(|| LogLines::of_text(&format!("{folder}/stdout"), &stdout));
        } else {
            output.stdout = stdout.lines().take(LINES).map(tidy).collect();
        }
        output
    }

    /// The program's name without its folder.
    pub fn program(&self) -> &str {
        let first = self.argv.first().map_or("", String::as_str);
        first.rsplit('/').next().unwrap_or(first)
    }
}

/// Runs those of `commands` whose program is there, each for a while: what was run, and what came of it.
pub fn run_programs(commands: &[&[&str]]) -> impl Iterator<Item = (Vec<String>, anyhow::Result<Finished>)> {
    commands.iter().filter_map(|command| {
        let [program, args @ ..] = *command else { return None };
        let mut paths = FOLDERS.iter().map(|folder| format!("{folder}/{program}"));
        let path = paths.find(|path| Path::new(path).is_file())?;
        let argv = std::iter::once(path.as_str()).chain(args.iter().copied()).map(tidy).collect();
        Some((argv, program::run(&path, args, PATIENCE)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_with_and_without_their_files() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &[u8]| {
            let path = dir.path().join("run/gdsboot/commands").join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
        };
        write("nvidia-smi-1/argv", b"/usr/bin/nvidia-smi\n-q\n");
        write("nvidia-smi-1/stdout", b"a\n\xff\n");
        write("nvidia-smi-1/status", b"9\n");
        write("gdscheck-2/stderr", b"oops\n");
        write("dmesg-1/stdout", b"NVRM: x\nother\n");
        write("journalctl-1/status", b"1\n");
        let all = CommandOutput::read_all(&Root::at(dir.path()));
        let [dmesg, gdscheck, journalctl, smi] = all.value().unwrap().as_slice() else { panic!("{all:?}") };
        assert_eq!(dmesg.kernel_log.as_ref().unwrap().lines, ["NVRM: x"]);
        assert_eq!((gdscheck.program(), gdscheck.stderr.len()), ("gdscheck", 1));
        assert_eq!(journalctl.kernel_log, None);
        assert_eq!((smi.program(), smi.argv.len(), smi.status.value()), ("nvidia-smi", 2, Some(&9)));
        assert_eq!(smi.stdout, ["a", "\u{fffd}"]);
    }
}
