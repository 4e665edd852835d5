//! cuFile's environment variables. They win over cufile.json, for whoever has them: a login shell has what `/etc/profile.d`
//! sets, a service what its unit sets, so that each says something of some programs and nothing of others.
//!
//! The environments of running processes (`/proc/PID/environ`) are not read: they hold other people's secrets.

use super::commands::CommandOutput;
use super::log_lines::tidy;
use super::{Fact, Root};
use serde::{Deserialize, Serialize};

/// How many variables are kept.
const MOST: usize = 64;
/// How many folders of units are looked into.
const UNITS: usize = 512;

/// A variable that is set somewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct CufileVariable {
    /// Its name, such as `CUFILE_ALLOW_COMPAT_MODE`.
    pub name: String,
    /// Its value, without quotes.
    pub value: String,
    /// The file that sets it, or the program's output that shows it.
    pub from: String,
}

/// Files for every program of a login, or of the system.
pub(super) const FILES: [&str; 4] =
    ["/etc/environment", "/etc/profile", "/etc/bash.bashrc", "/etc/systemd/system.conf"];
/// Folders of such files, and how their names end.
const FOLDERS: [(&str, &str); 3] =
    [("/etc/environment.d", ".conf"), ("/etc/profile.d", ".sh"), ("/etc/systemd/system.conf.d", ".conf")];
/// Where an administrator changes units.
const SYSTEM_UNITS: &str = "/etc/systemd/system";

impl CufileVariable {
    /// Reads what is set for logins and services, and what `env` and `gdscheck` showed when the machine was captured.
    /// Missing where none of the files is there.
    pub fn read_all(root: &Root, commands: &[CommandOutput]) -> Fact<Vec<Self>> {
        let mut paths: Vec<String> = FILES.map(str::to_owned).into();
        for (folder, end) in FOLDERS {
            let names = root.list(folder);
            let names = names.value().into_iter().flatten().filter(|name| name.ends_with(end));
            paths.extend(names.map(|name| format!("{folder}/{name}")));
        }
        paths.extend(drop_ins(root));
        let mut found = Vec::new();
        let mut seen = false;
        for path in &paths {
            let bytes = root.bytes(path);
            let Some(bytes) = bytes.value() else { continue };
            seen = true;
            found.extend(Self::parse(path, &String::from_utf8_lossy(bytes)));
        }
        for command in commands.iter().filter(|command| shows_environment(command)) {
            seen = true;
            found.extend(Self::parse(&command.from, &command.stdout.join("\n")));
        }
        found.truncate(MOST);
        if seen {
            Fact::known("/etc/environment", found)
        } else {
            Fact::Missing { from: "/etc/environment".into() }
        }
    }

    /// Reads `NAME=value` as environment files, shells, units (`Environment=`) and `env` write it; a later line wins, and
    /// what a shell does not reach is not told apart. gdscheck writes `NAME : value`.
    pub fn parse(from: &str, text: &str) -> Vec<Self> {
        let mut found: Vec<Self> = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
            let line = ["Environment=", "DefaultEnvironment="]
                .iter()
                .find_map(|key| line.strip_prefix(key))
                .unwrap_or(line);
            let mut words = words(line);
            if let [name, colon, value @ ..] = words.as_slice()
                && colon == ":"
            {
                words = vec![format!("{name}={}", value.join(" "))];
            }
            let is_unset = words.first().is_some_and(|word| word == "unset");
            for word in words {
                let (name, value) = word.split_once('=').unwrap_or((&word, ""));
                if !is_name(name) {
                    continue;
                }
                if is_unset || word.contains('=') {
                    found.retain(|known| known.name != name);
                }
                if word.contains('=') && found.len() < MOST {
                    found.push(Self { name: name.to_owned(), value: tidy(value), from: from.to_owned() });
                }
            }
        }
        found
    }

    /// The file of settings that the environment names in place of `/etc/cufile.json`.
    pub fn config_path(set: &[Self]) -> Option<&str> {
        let named = set.iter().filter(|variable| variable.name == "CUFILE_ENV_PATH_JSON");
        named.map(|variable| variable.value.as_str()).find(|path| path.starts_with('/'))
    }

    /// As cuFile takes a switch.
    pub fn switch(&self) -> Option<bool> {
        match self.value.to_ascii_lowercase().as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        }
    }
}

/// `CUFILE_...` in capitals.
fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    name.starts_with("CUFILE_") && name.len() <= 64 && name.bytes().all(plain)
}

fn shows_environment(command: &CommandOutput) -> bool {
    // Where CUDA does not start, gdscheck does not come to its section of it.
    let has_section = |line: &String| line.contains("ENVIRONMENT:") || line.contains("CUFILE_");
    matches!(command.program(), "env" | "printenv")
        || command.program().starts_with("gdscheck") && command.stdout.iter().any(has_section)
}

/// The drop-ins of units: `x.service.d/y.conf`.
fn drop_ins(root: &Root) -> Vec<String> {
    let units = root.list(SYSTEM_UNITS);
    let units = units.value().into_iter().flatten().filter(|name| name.ends_with(".service.d")).take(UNITS);
    let mut paths = Vec::new();
    for unit in units {
        let folder = format!("{SYSTEM_UNITS}/{unit}");
        let names = root.list(&folder);
        let names = names.value().into_iter().flatten().filter(|name| name.ends_with(".conf"));
        paths.extend(names.map(|name| format!("{folder}/{name}")));
    }
    paths
}

/// The words of a line, as shells part them: by white space and `;`, but not in quotes, which go away.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in line.chars() {
        match quote {
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c.is_whitespace() || c == ';' => {
                words.push(String::new());
                continue;
            }
            None if c == '#' && words.last().is_some_and(String::is_empty) => break,
            None => {}
        }
        let is_quote = matches!(c, '"' | '\'') && (quote == Some(c) || quote.is_none());
        if let Some(word) = words.last_mut().filter(|_| !is_quote) {
            word.push(c);
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Vec<(String, String)> {
        CufileVariable::parse("x", text).into_iter().map(|v| (v.name, v.value)).collect()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (format!("CUFILE_{name}"), value.to_owned())
    }

    #[test]
    fn every_way_to_write_one() {
        for line in [
            "CUFILE_LOGGING_LEVEL=TRACE",
            "export CUFILE_LOGGING_LEVEL=\"TRACE\"  # loud",
            "PATH=/bin; CUFILE_LOGGING_LEVEL='TRACE'; export CUFILE_LOGGING_LEVEL",
            "Environment=\"CUFILE_LOGGING_LEVEL=TRACE\" OTHER=x",
            "DefaultEnvironment=CUFILE_LOGGING_LEVEL=TRACE",
            " CUFILE_LOGGING_LEVEL : TRACE",
        ] {
            assert_eq!(parsed(line), [pair("LOGGING_LEVEL", "TRACE")], "{line}");
        }
        let spaces = "Environment=\"CUFILE_ENV_PATH_JSON=/a b.json\" 'CUFILE_NVTX=1'";
        assert_eq!(parsed(spaces), [pair("ENV_PATH_JSON", "/a b.json"), pair("NVTX", "1")]);
    }

    #[test]
    fn later_lines_win_and_comments_say_nothing() {
        let text = "# CUFILE_NVTX=1\n;CUFILE_NVTX=1\nexport CUFILE_IO_PRIORITY=1\nexport CUFILE_IO_PRIORITY=2\nunset CUFILE_NVTX\n";
        assert_eq!(parsed(text), [pair("IO_PRIORITY", "2")]);
        assert_eq!(parsed("export CUFILE_NVTX=1\nunset CUFILE_NVTX"), []);
        assert_eq!(parsed("XCUFILE_A=1 cufile_b=2 CUFILE_c=3 echo CUFILE_D"), []);
    }

    #[test]
    fn switches() {
        let switch =
            |value: &str| CufileVariable { value: value.into(), ..CufileVariable::default() }.switch();
        assert_eq!((switch("TRUE"), switch("0"), switch("yes")), (Some(true), Some(false), None));
    }

    #[test]
    fn files_of_logins_and_services_and_what_env_showed() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        assert!(matches!(CufileVariable::read_all(&root, &[]), Fact::Missing { .. }));
        for (path, text) in [
            ("etc/environment", "PATH=\"/bin\"\n"),
            ("etc/profile.d/gds.sh", "export CUFILE_FORCE_COMPAT_MODE=true\n"),
            ("etc/profile.d/readme.txt", "CUFILE_NVTX=1\n"),
            (
                "etc/systemd/system/load.service.d/10-gds.conf",
                "[Service]\nEnvironment=CUFILE_ALLOW_COMPAT_MODE=false\n",
            ),
        ] {
            let path = dir.path().join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
        }
        let env = CommandOutput {
            from: "/run/gdsboot/commands/env-1".into(),
            argv: vec!["env".into()],
            stdout: vec!["CUFILE_LOGGING_LEVEL=TRACE".into()],
            ..CommandOutput::default()
        };
        let found = CufileVariable::read_all(&root, &[env]);
        let from: Vec<_> =
            found.value().unwrap().iter().map(|v| (v.name.as_str(), v.from.as_str())).collect();
        assert_eq!(
            from,
            [
                ("CUFILE_FORCE_COMPAT_MODE", "/etc/profile.d/gds.sh"),
                ("CUFILE_ALLOW_COMPAT_MODE", "/etc/systemd/system/load.service.d/10-gds.conf"),
                ("CUFILE_LOGGING_LEVEL", "/run/gdsboot/commands/env-1"),
            ]
        );
    }

    proptest! {
        #[test]
        fn any_text_is_taken(text in "(CUFILE_A|=|export|unset|Environment=|[\"' ;#:\n]|x){0,30}") {
            prop_assert!(parsed(&text).len() <= MOST);
        }

        #[test]
        fn what_is_quoted_comes_back(value in "[a-zA-Z0-9/ ._-]{0,20}") {
            prop_assert_eq!(parsed(&format!("export CUFILE_X=\"{value}\"")), [pair("X", value.trim_end())]);
        }
    }
}
