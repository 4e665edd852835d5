//! Kernel modules: which are in the kernel, and what came of loading them.

use super::commands::CommandOutput;
use super::{Fact, Root};
use serde::{Deserialize, Serialize};

/// A module in the kernel, a line of `/proc/modules`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LoadedModule {
    /// Its name, with `_` and never `-`.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// `Live`, `Loading` or `Unloading`.
    pub state: String,
    /// Its taint letters, such as `POE`; empty for a module of the kernel's own.
    pub taint: String,
    /// The version that it declares, where it declares one.
    pub version: Fact<String>,
}

/// What came of loading one module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ModuleLoad {
    /// The name that was asked for.
    pub name: String,
    /// The module's file, where one was found.
    pub path: Option<String>,
    /// What came of it.
    pub outcome: LoadOutcome,
    /// How long the kernel took, in milliseconds.
    pub ms: u64,
    /// What the kernel logged meanwhile.
    pub kernel_lines: Vec<String>,
}

/// What came of loading one module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum LoadOutcome {
    /// It is in the kernel now.
    Loaded,
    /// It was in the kernel before.
    Already,
    /// It is part of the kernel image.
    BuiltIn,
    /// The kernel refused it.
    Refused {
        /// The error's number.
        errno: i32,
        /// Its name, such as `ENODEV`.
        name: String,
        /// Its words, such as `No such device`.
        text: String,
    },
    /// There is no such module for this kernel.
    NotFound {
        /// Where it was looked for.
        searched: String,
    },
    /// A module that it needs could not be loaded.
    Dependency {
        /// That module's name.
        needs: String,
    },
    /// Its file could not be read.
    Unreadable {
        /// The error.
        why: String,
    },
}

impl LoadOutcome {
    /// Is the module in the kernel?
    pub fn is_in(&self) -> bool {
        matches!(self, Self::Loaded | Self::Already | Self::BuiltIn)
    }

    /// In a few words: `loaded`, `refused: ENODEV (No such device)`.
    pub fn words(&self) -> String {
        match self {
            Self::Loaded => "loaded".into(),
            Self::Already => "was loaded already".into(),
            Self::BuiltIn => "built into the kernel".into(),
            Self::Refused { name, text, .. } => format!("refused: {name} ({text})"),
            Self::NotFound { searched } => format!("not found in {searched}"),
            Self::Dependency { needs } => format!("needs {needs}, which is not loaded"),
            Self::Unreadable { why } => format!("unreadable: {why}"),
        }
    }
}

impl LoadedModule {
    /// Reads all of them, ordered by name.
    pub fn read_all(root: &Root) -> Fact<Vec<Self>> {
        root.parse("/proc/modules", |text| {
            let mut modules = text.lines().map(Self::parse).collect::<Result<Vec<_>, _>>()?;
            modules.sort_by(|a, b| a.name.cmp(&b.name));
            for module in &mut modules {
                module.version = root.text(&format!("/sys/module/{}/version", module.name));
            }
            Ok(modules)
        })
    }

    /// What `lsmod` printed, where the kernel's own list was not captured. It tells no taint.
    pub fn of_lsmod(commands: &[CommandOutput]) -> Option<Fact<Vec<Self>>> {
        // Without its heading it may be a part, such as grep leaves.
        let is_whole = |command: &&CommandOutput| {
            let first = command.stdout.first();
            command.program() == "lsmod" && first.is_some_and(|line| line.starts_with("Module "))
        };
        let printed = commands.iter().find(is_whole)?;
        let mut modules: Vec<Self> = printed.stdout[1..]
            .iter()
            .filter_map(|line| {
                let mut words = line.split_ascii_whitespace();
                let name = words.next()?.to_owned();
                let bytes = words.next()?.parse().ok()?;
                let (state, taint, version) = ("Live".to_owned(), String::new(), Fact::default());
                Some(Self { name, bytes, state, taint, version })
            })
            .collect();
        modules.sort_by(|a, b| a.name.cmp(&b.name));
        Some(Fact::known(printed.from.clone(), modules))
    }

    /// `name size uses users state address (taint)`, the last only where there is one.
    fn parse(line: &str) -> Result<Self, String> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [name, bytes, _uses, _users, state, rest @ ..] = words.as_slice() else {
            return Err(format!("{line:?} is short"));
        };
        let bytes = bytes.parse().map_err(|_| format!("{bytes:?} is not a size"))?;
        let taint = rest.last().and_then(|word| word.strip_prefix('(')?.strip_suffix(')'));
        Ok(Self {
            name: (*name).to_owned(),
            bytes,
            state: (*state).to_owned(),
            taint: taint.unwrap_or_default().to_owned(),
            version: Fact::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_and_without_taint() {
        let line = "nvidia 11677696 2 nvidia_uvm,nvidia_fs, Live 0x0000000000000000 (OE)";
        let module = LoadedModule::parse(line).unwrap();
        assert_eq!((module.name.as_str(), module.bytes, module.taint.as_str()), ("nvidia", 11_677_696, "OE"));
        let module = LoadedModule::parse("nvme 65536 0 - Live 0x0000000000000000").unwrap();
        assert_eq!((module.state.as_str(), module.taint.as_str()), ("Live", ""));
    }

    #[test]
    fn what_lsmod_printed() {
        let lsmod = |lines: &[&str]| CommandOutput {
            argv: vec!["/usr/sbin/lsmod".into()],
            stdout: lines.iter().map(|line| (*line).to_owned()).collect(),
            ..CommandOutput::default()
        };
        let whole =
            lsmod(&["Module                  Size  Used by", "nvme 77824  3", "", "nvidia 11554816  1 nvme"]);
        let modules = LoadedModule::of_lsmod(&[whole]).unwrap();
        let names: Vec<&str> = modules.value().unwrap().iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["nvidia", "nvme"]);
        assert!(LoadedModule::of_lsmod(&[lsmod(&["nvidia 11554816 1"]), lsmod(&[])]).is_none());
    }

    #[test]
    fn damaged_lines_are_malformed() {
        assert!(LoadedModule::parse("").is_err());
        assert!(LoadedModule::parse("nvme big 0 - Live").is_err());
        assert!(LoadedModule::parse("nvme 1 0").is_err());
    }
}
