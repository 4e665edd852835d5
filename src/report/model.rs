//! What a report says. One value; every form of it that people or programs read is rendered from this.

use super::utc::Utc;
use crate::error::Status;
use crate::facts::Facts;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The version of [`Report`]'s form that this gdsboot writes. Readers refuse newer ones.
pub const SCHEMA: u32 = 1;

/// One run of the validator on one machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// gdsboot's version that wrote this.
    pub gdsboot: String,
    /// Identifies the run: 8 hex digits, random.
    pub run_id: String,
    /// When the validator started, by the machine's clock.
    pub started: Utc,
    /// When the verdict was reached, by the machine's clock.
    pub finished: Utc,
    /// What was found.
    pub verdict: Verdict,
    /// How bytes really travelled, where that was proven.
    pub route: Route,
    /// Why the verdict is what it is, causes first; empty for a [`Verdict::Pass`].
    pub why: Vec<String>,
    /// What the run was asked to do, and by whom.
    pub settings: Settings,
    /// The steps of the run, in order.
    pub stages: Vec<Stage>,
    /// What went wrong in the run itself, in order; never a judgement on the machine.
    pub problems: Vec<Problem>,
    /// What was read from the machine.
    pub facts: Facts,
}

/// The outcome of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// A direct route was proven.
    Pass,
    /// Something must be mended.
    Fail,
    /// Nothing was proven: a prerequisite is missing or cannot be seen from here.
    Incomplete,
}

impl Verdict {
    /// The exit status of every program that ends with this verdict.
    pub fn status(self) -> Status {
        match self {
            Self::Pass => Status::Pass,
            Self::Fail => Status::Fail,
            Self::Incomplete => Status::Incomplete,
        }
    }

    /// `PASS`, `FAIL` or `INCOMPLETE`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Fail => "FAIL",
            Self::Incomplete => "INCOMPLETE",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// How bytes travelled between NVMe and GPU memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Route {
    /// nvidia-fs and a patched nvme.
    Nvfs,
    /// The kernel's PCI peer-to-peer DMA.
    P2pdma,
    /// Coherent memory of a Grace machine.
    C2c,
    /// Through the CPU's memory.
    Compat,
    /// No transfer was proven.
    #[default]
    None,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nvfs => "nvfs",
            Self::P2pdma => "p2pdma",
            Self::C2c => "c2c",
            Self::Compat => "compat",
            Self::None => "none",
        })
    }
}

/// What happens when the report is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum After {
    /// The machine is powered off.
    #[default]
    Poweroff,
    /// The machine starts again.
    Reboot,
    /// The verdict stays on the screen until somebody switches the machine off.
    Hold,
    /// A root shell on the console; its end powers the machine off.
    Shell,
}

impl After {
    /// Reads one of `poweroff`, `reboot`, `hold`, `shell`.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Poweroff, Self::Reboot, Self::Hold, Self::Shell].into_iter().find(|a| a.word() == word)
    }

    /// The word that [`After::parse`] reads.
    pub fn word(self) -> &'static str {
        match self {
            Self::Poweroff => "poweroff",
            Self::Reboot => "reboot",
            Self::Hold => "hold",
            Self::Shell => "shell",
        }
    }
}

/// What the run was asked to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// What happens when the report is written.
    pub after: After,
    /// Where [`Settings::after`] was said; `default` where nobody said anything.
    pub after_from: String,
    /// What was said and not understood: unknown keys, malformed files, words that mean nothing.
    pub complaints: Vec<String>,
}

/// One step of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// What was done, such as `verify-root`.
    pub name: String,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Did it do all that it should?
    pub ok: bool,
}

/// What went wrong in the run itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The [`Stage`] in which it happened.
    pub stage: String,
    /// The error's chain, or the panic's words and place.
    pub what: String,
    /// A panic is a bug in gdsboot; anything else is the machine's or the image's.
    pub panic: bool,
}

/// The instant and the run that a run's folder is called after: `<UTC as YYYYMMDDThhmmssZ>-<run id>`.
pub fn folder_name(started: Utc, run_id: &str) -> String {
    format!("{}-{run_id}", started.compact())
}
