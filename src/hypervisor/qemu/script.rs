//! Where a QEMU is started: the command in a shell script, or the words of a process.

use anyhow::{Context as _, Result, bail, ensure};
use std::collections::BTreeMap;

/// The words that stand for a QEMU: its names, and the script's variables that hold one, with the words that they hold.
#[derive(Default)]
struct Programs(BTreeMap<String, Vec<String>>);

impl Programs {
    /// The words that one stands for, a QEMU first; `None` where it is none.
    fn held(&self, word: &str) -> Option<Vec<String>> {
        let Some(variable) = word.strip_prefix('$') else {
            return is_program(word).then(|| vec![word.to_owned()]);
        };
        let name = variable.trim_start_matches('{').trim_end_matches('}');
        let (name, default) = name.split_once(":-").map_or((name, None), |(name, text)| (name, Some(text)));
        let held = self.0.get(name).cloned();
        held.or_else(|| default.filter(|text| is_program(text)).map(|text| vec![text.to_owned()]))
    }

    /// Where a QEMU stands in a command, and is given something to do: who looks for it, asks for its version or names it in
    /// passing gives it no option, and no disk where a command begins.
    fn started(&self, words: &[String]) -> Option<(usize, Vec<String>)> {
        let asks = ["-version", "--version", "-help", "--help", "-h"];
        words.iter().enumerate().find_map(|(at, word)| {
            let held = self.held(word)?;
            let begins = at.checked_sub(1).and_then(|before| words.get(before)).is_none_or(|before| {
                let before = before.as_str();
                let goes_on =
                    ["exec", "sudo", "nohup", "env", "setsid", "time", "then", "do", "else", "{", "!"];
                goes_on.contains(&before) || ends_command(before) || assignment(before).is_some()
            });
            let is_started = match words.get(at + 1).map(String::as_str) {
                Some(next) if next.starts_with('-') => !asks.contains(&next),
                Some(next) if is_variable(next) => true,
                Some(next) if begins && !ends_command(next) => true,
                _ => begins && held.len() > 1,
            };
            is_started.then_some((at, held))
        })
    }

    /// Notes the variables that a line sets to a QEMU.
    fn note(&mut self, words: &[String]) {
        for (name, value) in words.iter().filter_map(|word| assignment(word)) {
            let held: Vec<String> = match self.held(value) {
                Some(held) => held,
                None => value.split_ascii_whitespace().map(str::to_owned).collect(),
            };
            if held.first().is_some_and(|program| is_program(program)) {
                self.0.insert(name.to_owned(), held);
            }
        }
    }
}

fn is_program(word: &str) -> bool {
    let name = word.rsplit('/').next().unwrap_or(word);
    let is_name = name.starts_with("qemu-system-") && !name.contains(char::is_whitespace);
    is_name || matches!(name, "qemu-kvm" | "kvm")
}

/// `NAME=VALUE` of a shell.
fn assignment(word: &str) -> Option<(&str, &str)> {
    let (name, value) = word.split_once('=')?;
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    is_name.then_some((name, value))
}

/// Is it for the shell to say what stands here?
pub(super) fn is_variable(word: &str) -> bool {
    word.starts_with(['$', '`'])
}

/// What a shell does with a program is none of its arguments, and where the next command begins.
fn ends_command(word: &str) -> bool {
    let is_redirection = word.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with('>');
    is_redirection || ["&", "&&", "|", "||", ";", "<"].contains(&word) || word.ends_with(';')
}

/// The program of `/proc/PID/cmdline`, and the words after it.
pub(super) fn of_process(text: &[u8]) -> Result<(String, Vec<String>)> {
    let words = text.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
    let mut words = words.skip_while(|word| !is_program(word));
    let program = words.next().context("there is no qemu-system-x86_64 in it")?;
    Ok((program, words.collect()))
}

/// What a shell is within at a line's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    Nothing,
    Single,
    Double,
}

impl Within {
    /// After one more line.
    fn after(self, line: &str) -> Self {
        let mut within = self;
        let mut in_word = within != Self::Nothing;
        let mut letters = line.chars();
        while let Some(letter) = letters.next() {
            within = match (within, letter) {
                (Self::Nothing, '#') if !in_word => return within,
                (Self::Nothing, '\'') => Self::Single,
                (Self::Nothing, '"') => Self::Double,
                (Self::Single, '\'') | (Self::Double, '"') => Self::Nothing,
                (Self::Nothing | Self::Double, '\\') => {
                    letters.next();
                    within
                }
                _ => within,
            };
            in_word = within != Self::Nothing || !matches!(letter, ' ' | '\t' | '\n');
        }
        within
    }
}

/// The program that a script starts, and the words after it.
pub(super) fn of_script(text: &[u8]) -> Result<(String, Vec<String>)> {
    let text = std::str::from_utf8(text).context("it is not text")?;
    let mut programs = Programs::default();
    let mut command = String::new();
    let mut within = Within::Nothing;
    for line in logical_lines(text) {
        // Quotes may go over several lines.
        let is_open = within != Within::Nothing;
        let names_one = |word: &str| {
            let word = word.trim_matches(['"', '\'', ';']);
            let word = assignment(word).map_or(word, |(_, value)| value.trim_matches(['"', '\'']));
            programs.held(word).is_some()
        };
        if !is_open && (line.trim_start().starts_with('#') || !line.split_ascii_whitespace().any(names_one)) {
            continue;
        }
        command.push_str(&line);
        within = within.after(&line);
        if within != Within::Nothing {
            command.push('\n');
            continue;
        }
        let words = shlex::split(&std::mem::take(&mut command)).unwrap_or_default();
        programs.note(&words);
        if let Some((at, held)) = programs.started(&words) {
            let arguments = words.into_iter().skip(at + 1).take_while(|word| !ends_command(word));
            let mut all = held.into_iter().chain(arguments);
            let program = all.next().unwrap_or_default();
            return Ok((program, all.collect()));
        }
    }
    ensure!(within == Within::Nothing, "its quotes are not closed: it is cut off");
    bail!("there is no qemu-system-x86_64 with options in it")
}

/// Lines, those that end with a backslash joined with the next.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in text.lines() {
        let (line, more) = match line.strip_suffix('\\') {
            Some(line) => (line, true),
            None => (line, false),
        };
        match lines.last_mut() {
            Some(last) if goes_on => {
                last.push(' ');
                last.push_str(line);
            }
            _ => lines.push(line.to_owned()),
        }
        goes_on = more;
    }
    lines
}
