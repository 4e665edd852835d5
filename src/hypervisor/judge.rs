//! From a configuration to findings and a verdict, in the form of every other judgement.

use super::context::Context;
use super::rules::{self, Rule};
use crate::bench::route::Route;
use crate::checks::check::{Finding, Outcome, Severity, Side, Status};
use crate::checks::judge::{Judgement, sort};
use crate::report::model::Verdict;
use std::collections::HashMap;

/// Judges a configuration by all rules.
pub fn judge(context: &Context<'_>) -> Judgement {
    let findings = findings(context);
    let blocked = findings.iter().any(|f| f.status == Status::Fail && f.severity <= Severity::Major);
    let verdict = if blocked { Verdict::Fail } else { Verdict::Incomplete };
    Judgement { verdict, route: Route::None, side: Side::Host, simulated: false, findings }
}

/// What all rules find, causes first: a rule whose prerequisite failed is skipped.
pub fn findings(context: &Context<'_>) -> Vec<Finding> {
    let mut causes: HashMap<&str, &str> = HashMap::new();
    let mut findings = Vec::new();
    for rule in rules::all() {
        let Rule { id, title, severity, .. } = *rule;
        let cause = rule.requires.iter().find_map(|required| causes.get(required).copied());
        let finding = match cause {
            Some(cause) => {
                causes.insert(id, cause);
                let outcome = Outcome::unknown(format!("nothing to look at before {cause} is mended"));
                let finding = outcome.into_finding(id, title, severity);
                Finding { status: Status::Skip, because: Some(cause.to_owned()), ..finding }
            }
            None => {
                let outcome = (rule.run)(context);
                let is_partial = outcome.partial.is_some();
                let finding = outcome.into_finding(id, title, severity);
                if finding.status == Status::Fail && !is_partial {
                    causes.insert(id, id);
                }
                finding
            }
        };
        findings.push(finding);
    }
    if let Some(word) = &context.machine.open {
        leave_open(&mut findings, word);
    }
    sort(&mut findings);
    findings
}

/// Rules that pass where something is not there.
pub(super) const BY_ABSENCE: [&str; 8] = [
    "vm.hidden",
    "iommu.guest",
    "vm.confidential",
    "vm.secure-boot",
    "vm.balloon",
    "vm.mediated",
    "vm.iommufd",
    "vm.display",
];

/// Where a shell adds options that are not known, what seems to be missing may be among them.
fn leave_open(findings: &mut [Finding], word: &str) {
    let is_open = |finding: &&mut Finding| match finding.status {
        Status::Fail => true,
        Status::Pass => BY_ABSENCE.contains(&finding.id.as_str()),
        _ => false,
    };
    for finding in findings.iter_mut().filter(is_open) {
        finding.status = Status::Unknown;
        finding.why = format!("{}, unless {word} says otherwise", finding.why);
        finding.remedy.insert(0, rules::of_process());
    }
}
