//! What a check is, and what it answers. See design.md's words: a fact has no judgement, a finding is one.

use super::context::Context;
use serde::{Deserialize, Serialize};

/// From where a machine is looked at. Rules differ by side: what is right on bare metal may be wrong for a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// A virtual machine that was given devices.
    Guest,
    /// A hypervisor that gives devices away.
    Host,
    /// A machine that does GPUDirect Storage itself.
    BareMetal,
}

/// Every side, for checks that apply anywhere.
pub const ANYWHERE: &[Side] = &[Side::Guest, Side::Host, Side::BareMetal];
/// The sides on which transfers happen.
pub const WHERE_GDS_RUNS: &[Side] = &[Side::Guest, Side::BareMetal];

/// How much a failing check matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// No direct transfer is possible.
    Blocker,
    /// Direct transfers may fail, or fall back to copies by the CPU.
    Major,
    /// It costs speed, or will cost it some day.
    Minor,
    /// Worth knowing.
    Info,
}

/// Who applies a remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Who {
    /// Whoever may change the firmware's settings.
    Bios,
    /// The hypervisor's administrator, on the host itself.
    Hypervisor,
    /// Whoever configures the virtual machine.
    VmConfiguration,
    /// The administrator of the system that does GPUDirect Storage: the guest, or the bare-metal machine.
    Guest,
    /// Whoever can touch the machine.
    Hardware,
}

/// What to do about a failing check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Remedy {
    /// Who does it.
    pub who: Who,
    /// What is to be done, a sentence.
    pub text: String,
    /// Commands or configuration lines that do it, one each.
    pub commands: Vec<String>,
}

impl Remedy {
    /// A remedy without commands.
    pub fn new(who: Who, text: impl Into<String>) -> Self {
        Self { who, text: text.into(), commands: Vec::new() }
    }

    /// With one more command.
    #[must_use]
    pub fn command(mut self, command: impl Into<String>) -> Self {
        self.commands.push(command.into());
        self
    }
}

/// Where a judgement comes from: a place on the machine, and what stood there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Evidence {
    /// The absolute path on the machine, or the name of what was asked.
    pub from: String,
    /// What stood there.
    pub text: String,
}

impl Evidence {
    /// What stood somewhere.
    pub fn new(from: impl Into<String>, text: impl Into<String>) -> Self {
        Self { from: from.into(), text: text.into() }
    }
}

/// What a check answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// All is as it should be.
    Pass,
    /// It is not.
    Fail,
    /// It is not as usual, and nothing needs to be mended.
    Note,
    /// It does not concern this machine.
    NotApplicable,
    /// It cannot be seen from here; the remedies say who can, and with which command.
    Unknown,
}

/// A check's answer with its reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The answer.
    pub answer: Answer,
    /// Why, in one sentence that a person understands who knows neither the check nor the code.
    pub why: String,
    /// What should be there.
    pub expected: Option<String>,
    /// What is there.
    pub actual: Option<String>,
    /// What to do, one entry for each who must act; alternatives are separate entries.
    pub remedies: Vec<Remedy>,
    /// What was read.
    pub evidence: Vec<Evidence>,
    /// A failure of some of several devices: the others do without them, so that it weighs less than the check's own
    /// severity, and what depends on the check is looked at all the same.
    pub partial: Option<Severity>,
}

impl Outcome {
    fn new(answer: Answer, why: impl Into<String>) -> Self {
        Self {
            answer,
            why: why.into(),
            expected: None,
            actual: None,
            remedies: Vec::new(),
            evidence: Vec::new(),
            partial: None,
        }
    }

    /// All is as it should be.
    pub fn pass(why: impl Into<String>) -> Self {
        Self::new(Answer::Pass, why)
    }

    /// It is not as it should be.
    pub fn fail(why: impl Into<String>) -> Self {
        Self::new(Answer::Fail, why)
    }

    /// Worth knowing.
    pub fn note(why: impl Into<String>) -> Self {
        Self::new(Answer::Note, why)
    }

    /// It does not concern this machine.
    pub fn not_applicable(why: impl Into<String>) -> Self {
        Self::new(Answer::NotApplicable, why)
    }

    /// It cannot be seen from here.
    pub fn unknown(why: impl Into<String>) -> Self {
        Self::new(Answer::Unknown, why)
    }

    /// What should be there.
    #[must_use]
    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    /// What is there.
    #[must_use]
    pub fn actual(mut self, actual: impl Into<String>) -> Self {
        self.actual = Some(actual.into());
        self
    }

    /// Only some of several devices fail.
    #[must_use]
    pub fn partial(mut self, severity: Severity) -> Self {
        self.partial = Some(severity);
        self
    }

    /// One more remedy.
    #[must_use]
    pub fn remedy(mut self, remedy: Remedy) -> Self {
        self.remedies.push(remedy);
        self
    }

    /// One more remedy, where there is something to mend.
    #[must_use]
    pub fn remedy_if_failed(self, remedy: Remedy) -> Self {
        if self.answer == Answer::Fail { self.remedy(remedy) } else { self }
    }

    /// One more piece of evidence.
    #[must_use]
    pub fn evidence(mut self, from: impl Into<String>, text: impl Into<String>) -> Self {
        self.evidence.push(Evidence::new(from, text));
        self
    }
}

impl Outcome {
    /// The finding of a rule with this id, title and severity.
    pub fn into_finding(self, id: &str, title: &str, severity: Severity) -> Finding {
        let status = match self.answer {
            Answer::Pass => Status::Pass,
            Answer::Fail => Status::Fail,
            Answer::Note => Status::Info,
            Answer::NotApplicable => Status::NotApplicable,
            Answer::Unknown => Status::Unknown,
        };
        Finding {
            id: id.to_owned(),
            title: title.to_owned(),
            status,
            // Never graver than the rule itself.
            severity: self.partial.map_or(severity, |lighter| lighter.max(severity)),
            why: self.why,
            expected: self.expected,
            actual: self.actual,
            remedy: self.remedies,
            evidence: self.evidence,
            because: None,
        }
    }
}

/// One rule.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// Its name for programs and waivers, such as `gpu.bar1`. Never reused for another rule.
    pub id: &'static str,
    /// What it is about, as people say it.
    pub title: &'static str,
    /// Where it applies.
    pub sides: &'static [Side],
    /// Checks whose failure makes this one moot: it is then skipped, with that check's id.
    pub requires: &'static [&'static str],
    /// How much a failure matters.
    pub severity: Severity,
    /// Why the rule exists.
    pub rationale: &'static str,
    /// Where the rule comes from: a kernel file, a vendor document.
    pub references: &'static [&'static str],
    /// What of the guide, of gds-diag and of the known failure signatures it covers, for docs/coverage.md.
    pub covers: &'static [&'static str],
    /// The rule.
    pub run: fn(&Context<'_>) -> Outcome,
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// All is as it should be.
    Pass,
    /// Something must be mended.
    Fail,
    /// Worth knowing, nothing to mend.
    Info,
    /// It follows from another finding, or could not be reached because of it.
    Skip,
    /// It does not concern this machine.
    NotApplicable,
    /// It cannot be seen from here.
    Unknown,
    /// The check itself broke.
    Error,
    /// It failed, and somebody decided to live with it for a while.
    Waived,
}

/// A check's outcome on one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Finding {
    /// [`Check::id`].
    pub id: String,
    /// [`Check::title`].
    pub title: String,
    /// What came of it.
    pub status: Status,
    /// [`Check::severity`], or less where only some of several devices fail.
    pub severity: Severity,
    /// Why, one sentence.
    pub why: String,
    /// What should be there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expected: Option<String>,
    /// What is there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub actual: Option<String>,
    /// What to do, by who acts.
    pub remedy: Vec<Remedy>,
    /// What was read.
    pub evidence: Vec<Evidence>,
    /// The finding that this one follows from, for [`Status::Skip`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub because: Option<String>,
}
