//! The `[[workload]]` tables of a TOML document. Pure; what is wrong with one is a complaint that says which key and what is
//! allowed, and that workload does not count.

use super::Workload;
use super::rule::{Figure, Rule};
use regex_lite::{Regex, RegexBuilder};
use std::path::{Component, Path};
use std::time::Duration;
use toml::{Table, Value};

/// All keys.
const KEYS: [&str; 9] =
    ["name", "command", "timeout_s", "status", "expect", "figure", "at_least", "at_most", "unit"];
/// When a workload is killed for which nobody says it, in seconds.
const TIMEOUT: u32 = 120;
/// The most.
const LONGEST: u32 = 3600;
/// The longest name and unit, in characters.
const NAME: usize = 60;
/// What a compiled pattern may take, in bytes.
const PATTERN: usize = 1 << 20;
/// How much of a wrong value is shown, in characters.
const SHOWN: usize = 60;

/// Reads the workloads of a document, and what is wrong with them.
pub fn parse(table: &Table) -> (Vec<Workload>, Vec<String>) {
    let mut workloads: Vec<Workload> = Vec::new();
    let mut complaints = Vec::new();
    let items = match table.get("workload") {
        None => &[][..],
        Some(Value::Array(items)) => items,
        Some(_) => {
            complaints.push("workload is not written as [[workload]]".to_owned());
            &[]
        }
    };
    for (number, item) in (1..).zip(items) {
        let Value::Table(table) = item else {
            complaints.push(format!("workload {number} is not written as [[workload]]"));
            continue;
        };
        let mut reader = Reader { table, complaints: Vec::new() };
        let workload = reader.workload();
        if workloads.iter().any(|other| other.name == workload.name) {
            reader.complain(format!("name = {:?} is another workload's", workload.name));
        }
        if reader.complaints.is_empty() {
            workloads.push(workload);
        }
        let name = match workload_name(table) {
            Some(name) => format!("workload {number} {name:?}"),
            None => format!("workload {number}"),
        };
        complaints.extend(reader.complaints.into_iter().map(|why| format!("{name}: {why}")));
    }
    (workloads, complaints)
}

fn workload_name(table: &Table) -> Option<&str> {
    table.get("name")?.as_str().filter(|name| is_short(name))
}

fn is_short(text: &str) -> bool {
    let length = text.chars().count();
    (1..=NAME).contains(&length) && !text.chars().any(char::is_control) && !text.trim().is_empty()
}

/// One table.
struct Reader<'a> {
    table: &'a Table,
    complaints: Vec<String>,
}

impl<'a> Reader<'a> {
    /// The workload, which counts where there are no complaints.
    fn workload(&mut self) -> Workload {
        for key in self.table.keys().filter(|key| !KEYS.contains(&key.as_str())) {
            self.complaints.push(format!("there is no key {key:?}; there are {}", KEYS.join(", ")));
        }
        let name = self.short("name");
        if !self.table.contains_key("name") {
            self.complain("name is missing: what it is called in the report".into());
        }
        let command = self.command();
        let seconds = self.whole("timeout_s", 1, LONGEST, "seconds").unwrap_or(TIMEOUT);
        let status = self.whole("status", 0, 255, "a program's status").unwrap_or(0);
        let rule =
            Rule { status: status.cast_signed(), expect: self.pattern("expect"), figure: self.figure() };
        Workload {
            name: name.unwrap_or_default(),
            command,
            timeout: Duration::from_secs(seconds.into()),
            rule,
        }
    }

    fn complain(&mut self, why: String) {
        self.complaints.push(why);
    }

    fn wrong(&mut self, key: &str, value: &Value, allowed: &str) {
        let text = value.to_string();
        let cut = text.char_indices().nth(SHOWN).map_or(text.len(), |(at, _)| at);
        let dots = if cut < text.len() { "..." } else { "" };
        self.complain(format!("{key} = {}{dots} is not {allowed}", &text[..cut]));
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.table.get(key)
    }

    fn short(&mut self, key: &str) -> Option<String> {
        let value = self.get(key)?;
        match value.as_str().filter(|text| is_short(text)) {
            Some(text) => Some(text.to_owned()),
            None => {
                self.wrong(key, value, &format!("a text of 1 to {NAME} characters"));
                None
            }
        }
    }

    fn whole(&mut self, key: &str, least: u32, most: u32, of_what: &str) -> Option<u32> {
        let value = self.get(key)?;
        let number = value.as_integer().and_then(|number| u32::try_from(number).ok());
        let number = number.filter(|number| (least..=most).contains(number));
        if number.is_none() {
            self.wrong(key, value, &format!("a whole number from {least} to {most}, {of_what}"));
        }
        number
    }

    fn number(&mut self, key: &str) -> Option<f64> {
        let value = self.get(key)?;
        let number = match value {
            Value::Integer(number) => Some(*number as f64),
            Value::Float(number) => Some(*number).filter(|number| number.is_finite()),
            _ => None,
        };
        if number.is_none() {
            self.wrong(key, value, "a number");
        }
        number
    }

    fn pattern(&mut self, key: &str) -> Option<Regex> {
        let value = self.get(key)?;
        let Some(text) = value.as_str().filter(|text| !text.is_empty()) else {
            self.wrong(key, value, "a pattern (a text that is not empty)");
            return None;
        };
        // Lines end as on Windows where the program thinks so.
        let built = RegexBuilder::new(text).multi_line(true).crlf(true).size_limit(PATTERN).build();
        match built {
            Ok(pattern) => Some(pattern),
            Err(error) => {
                self.wrong(key, value, &format!("a pattern: {error}"));
                None
            }
        }
    }

    fn figure(&mut self) -> Option<Figure> {
        let pattern = self.pattern("figure");
        let (at_least, at_most) = (self.number("at_least"), self.number("at_most"));
        let unit = self.short("unit");
        if !self.table.contains_key("figure") {
            for key in ["at_least", "at_most", "unit"].into_iter().filter(|key| self.table.contains_key(*key))
            {
                self.complain(format!("{key} says something of a figure, and there is no key figure"));
            }
        }
        if let (Some(least), Some(most)) = (at_least, at_most)
            && least > most
        {
            self.complain(format!("at_least = {least} is more than at_most = {most}"));
        }
        let pattern = pattern?;
        let groups = pattern.captures_len() - 1;
        if groups != 1 {
            let text = pattern.as_str();
            self.complain(format!(
                "figure = {text:?} has {groups} groups, not the one in ( ) that is a number; (?: ) is none"
            ));
        }
        Some(Figure { pattern, at_least, at_most, unit })
    }

    fn command(&mut self) -> Vec<String> {
        let allowed = "a list of texts or one text: the program, then its arguments";
        let Some(value) = self.get("command") else {
            self.complain(format!("command is missing: {allowed}"));
            return Vec::new();
        };
        let words = match value {
            Value::String(text) => match split(text) {
                Ok(words) => words,
                Err(why) => {
                    self.complain(format!("command: {why}"));
                    return Vec::new();
                }
            },
            Value::Array(items) => {
                let words = items.iter().map(|item| item.as_str().map(str::to_owned)).collect();
                let Some(words) = words else {
                    self.wrong("command", value, allowed);
                    return Vec::new();
                };
                words
            }
            _ => Vec::new(),
        };
        match words.first().map(String::as_str) {
            None | Some("") => self.wrong("command", value, allowed),
            // No program can be given one.
            Some(_) if words.iter().any(|word| word.contains('\0')) => {
                self.wrong("command", value, "without a byte of 0");
            }
            Some(program) if !stays_inside(program) => self.complain(format!(
                "command: {program:?} leads out of the folder of programs; name it by its absolute path"
            )),
            Some(_) => {}
        }
        words
    }
}

fn stays_inside(program: &str) -> bool {
    let path = Path::new(program);
    path.is_absolute()
        || path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// Splits a command at blanks; quotes keep them together, and nothing else is special.
fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in text.chars() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                // Quotes with nothing in them are a word too.
                word.get_or_insert_default();
            }
            (None, _) if c.is_whitespace() => words.extend(word.take()),
            (None, '|' | '<' | '>' | ';' | '&' | '$' | '`') => {
                return Err(format!(
                    "{c} means something to a shell, and there is none: quote it, or write [\"/bin/sh\", \"-c\", \"...\"]"
                ));
            }
            _ => word.get_or_insert_default().push(c),
        }
    }
    if let Some(open) = quote {
        return Err(format!("the quote {open} is not closed"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests;
