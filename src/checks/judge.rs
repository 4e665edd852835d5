//! From facts to findings and a verdict.
//!
//! Findings come out causes first: what failed, then what cannot be seen, then the rest, each in the order of the register,
//! which is the order in which things depend on each other. A check whose prerequisite failed is skipped with that
//! prerequisite's id, so that one cause is one line.

use super::check::{Check, Finding, Outcome, Severity, Side, Status};
use super::context::Context;
use super::waiver::{self, Waiver};
use super::{gds, transfers};
use crate::bench::results::Results;
use crate::bench::route::Route;
use crate::facts::Facts;
use crate::report::model::Verdict;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A machine, judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Judgement {
    /// What it comes to.
    pub verdict: Verdict,
    /// The route that was proven.
    pub route: Route,
    /// From which side the machine was looked at.
    pub side: Side,
    /// Libraries that imitate NVIDIA's took part, or a device is simulated: nothing in here says anything about a machine.
    #[serde(default)]
    pub simulated: bool,
    /// All findings, causes first.
    pub findings: Vec<Finding>,
}

/// Judges a machine by all checks. `bench` is what transfers came to, where there were any; `today` is the day on which
/// waivers count, `YYYY-MM-DD`.
pub fn judge(
    facts: &Facts,
    side: Side,
    bench: Option<&Results>,
    waivers: &[Waiver],
    today: &str,
) -> Judgement {
    let checks: Vec<&Check> = super::all().collect();
    let mut findings = run(&checks, &Context::new(facts, side).with_bench(bench));
    let proven = bench.and_then(Results::proven);
    if let Some(route) = proven {
        refute(&mut findings, route);
    }
    waiver::apply(&mut findings, waivers, today);
    sort(&mut findings);
    let simulated = is_simulated(facts, bench);
    // What imitations do says nothing about a machine.
    let verdict = if simulated { Verdict::Incomplete } else { verdict(&findings, proven) };
    let route = bench.map_or(Route::None, |bench| proven.unwrap_or_else(|| bench.bounced()));
    Judgement { verdict, route, side, simulated, findings }
}

/// Did libraries take part that only imitate NVIDIA's, or is a device simulated?
pub fn is_simulated(facts: &Facts, bench: Option<&Results>) -> bool {
    let devices = facts.pci.value().into_iter().flatten();
    let mut configs = devices.filter_map(|device| device.config.value());
    configs.any(|config| config.simulated)
        || bench.is_some_and(|bench| bench.simulated)
        || facts.dma.value().is_some_and(|probe| probe.libraries.iter().any(|library| library.simulated))
}

/// What is proven needs no prerequisites: a missing piece of a direct route is no failure where transfers took one.
fn refute(findings: &mut [Finding], route: Route) {
    let is_refuted = |finding: &&mut Finding| {
        finding.status == Status::Fail && transfers::PREREQUISITES.contains(&finding.id.as_str())
    };
    for finding in findings.iter_mut().filter(is_refuted) {
        finding.status = Status::Info;
        finding.why = format!("{}; yet transfers were made by DMA ({route})", finding.why);
        finding.remedy.clear();
    }
}

/// Runs checks in their order, and sorts what comes of them.
fn run(checks: &[&Check], context: &Context<'_>) -> Vec<Finding> {
    // What failed, and what was skipped because of it, by id: the cause.
    let mut causes: HashMap<&str, &str> = HashMap::new();
    let mut findings = Vec::new();
    for check in checks {
        let finding = if check.sides.contains(&context.side) {
            let wanted = check.requires.iter().filter(|id| !took_part(check, id, context));
            match wanted.copied().find_map(|id| causes.get(id).copied()) {
                Some(cause) => {
                    causes.insert(check.id, cause);
                    skipped(check, cause)
                }
                None => {
                    let (finding, is_partial) = run_one(check, context);
                    let failed = finding.status == Status::Fail;
                    match follows(check).iter().find_map(|id| causes.get(id).copied()) {
                        Some(cause) if failed => {
                            causes.insert(check.id, cause);
                            Finding { status: Status::Skip, because: Some(cause.to_owned()), ..finding }
                        }
                        _ => {
                            if failed && !is_partial {
                                causes.insert(check.id, check.id);
                            }
                            finding
                        }
                    }
                }
            }
        } else {
            finding(check, Outcome::not_applicable(format!("not a matter of {}", side_words(context.side))))
        };
        findings.push(finding);
    }
    sort(&mut findings);
    findings
}

/// Is it what a benchmark measured? Then that is judged, whatever the buses show: a GPU may be no PCI function, and a file may
/// lie on another kind of drive.
fn took_part(check: &Check, id: &str, context: &Context<'_>) -> bool {
    let is_of_benchmark = check.id.starts_with("transfer.") || check.id.starts_with("bench.");
    let has = |has: fn(&Results) -> bool| is_of_benchmark && context.bench.is_some_and(has);
    match id {
        "gpu.present" => has(|bench| !bench.gpus.is_empty()),
        "nvme.present" => has(|bench| !bench.drives.is_empty()),
        _ => false,
    }
}

/// Checks that explain a failure of this one, which is looked at all the same: that transfers were not direct follows from
/// what is missing for a direct route, but where they were, it is not missing.
fn follows(check: &Check) -> &'static [&'static str] {
    if transfers::CONSEQUENCES.contains(&check.id) { gds::CAUSES } else { &[] }
}

/// A check's finding, and whether it concerns some of several devices alone.
fn run_one(check: &Check, context: &Context<'_>) -> (Finding, bool) {
    match catch_unwind(AssertUnwindSafe(|| (check.run)(context))) {
        Ok(outcome) => {
            #[cfg(test)]
            super::coverage::record(check.id, &outcome.answer);
            let is_partial = outcome.partial.is_some();
            (finding(check, outcome), is_partial)
        }
        Err(panic) => {
            let words = panic.downcast_ref::<String>().map(String::as_str);
            let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no words");
            let why = format!("a bug in gdsboot: this check broke ({words})");
            (Finding { status: Status::Error, ..finding(check, Outcome::unknown(why)) }, false)
        }
    }
}

fn finding(check: &Check, outcome: Outcome) -> Finding {
    outcome.into_finding(check.id, check.title, check.severity)
}

fn skipped(check: &Check, cause: &str) -> Finding {
    let finding = finding(check, Outcome::unknown(format!("nothing to look at before {cause} is mended")));
    Finding { status: Status::Skip, because: Some(cause.to_owned()), ..finding }
}

fn side_words(side: Side) -> &'static str {
    match side {
        Side::Guest => "a virtual machine",
        Side::Host => "a hypervisor",
        Side::BareMetal => "a machine without a hypervisor",
    }
}

/// Puts findings in the order of every report, causes first.
pub fn sort(findings: &mut [Finding]) {
    findings.sort_by_key(|finding| rank(finding.status, finding.severity));
}

/// Failures first, the graver before the lighter; within them the register's order is kept, because sorting is stable.
fn rank(status: Status, severity: Severity) -> (u8, u8) {
    let severity = match severity {
        Severity::Blocker => 0,
        Severity::Major => 1,
        Severity::Minor => 2,
        Severity::Info => 3,
    };
    match status {
        Status::Fail => (0, severity),
        Status::Error => (1, 0),
        Status::Unknown => (2, severity),
        Status::Waived => (3, 0),
        Status::Info => (4, 0),
        Status::Skip => (5, 0),
        Status::Pass => (6, 0),
        Status::NotApplicable => (7, 0),
    }
}

/// The ids of the checks without which there is nothing to judge: their failure leaves a verdict open.
pub const SUBJECTS: [&str; 2] = ["gpu.present", "nvme.present"];

/// PASS takes a proof; FAIL takes something that must be mended on a machine that has a GPU and an NVMe; anything else is
/// INCOMPLETE.
pub fn verdict(findings: &[Finding], proven: Option<Route>) -> Verdict {
    let failed = |f: &Finding| f.status == Status::Fail;
    // A waiver does not put a GPU into the machine.
    let missing = |f: &Finding| failed(f) || f.status == Status::Waived;
    let has_subjects = !findings.iter().any(|f| missing(f) && SUBJECTS.contains(&f.id.as_str()));
    let blocked = findings.iter().any(|f| failed(f) && f.severity <= Severity::Major);
    let broken = findings.iter().any(|f| f.status == Status::Error);
    if has_subjects && blocked {
        Verdict::Fail
    } else if proven.is_some() && has_subjects && !broken {
        Verdict::Pass
    } else {
        Verdict::Incomplete
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::check::ANYWHERE;

    const fn check(
        id: &'static str,
        requires: &'static [&'static str],
        severity: Severity,
        run: fn(&Context<'_>) -> Outcome,
    ) -> Check {
        Check {
            id,
            title: "t",
            sides: ANYWHERE,
            requires,
            severity,
            rationale: "r",
            references: &[],
            covers: &[],
            run,
        }
    }

    fn statuses(checks: &[Check]) -> Vec<(String, Status, Option<String>)> {
        let facts = Facts::default();
        let checks: Vec<&Check> = checks.iter().collect();
        let findings = run(&checks, &Context::new(&facts, Side::Guest));
        findings.into_iter().map(|f| (f.id, f.status, f.because)).collect()
    }

    #[test]
    fn consequences_are_skipped_with_their_first_cause_and_causes_come_first() {
        let fail: fn(&Context<'_>) -> Outcome = |_| Outcome::fail("no");
        let pass: fn(&Context<'_>) -> Outcome = |_| Outcome::pass("yes");
        let found = statuses(&[
            check("a", &[], Severity::Minor, pass),
            check("b", &["a"], Severity::Blocker, fail),
            check("c", &["b"], Severity::Blocker, fail),
            check("d", &["c"], Severity::Blocker, pass),
            check("e", &[], Severity::Minor, fail),
            check("f", &[], Severity::Major, fail),
        ]);
        let skip = |id: &str| (id.to_owned(), Status::Skip, Some("b".to_owned()));
        let of = |id: &str, status| (id.to_owned(), status, None);
        assert_eq!(
            found,
            [
                of("b", Status::Fail),
                of("f", Status::Fail),
                of("e", Status::Fail),
                skip("c"),
                skip("d"),
                of("a", Status::Pass)
            ]
        );
    }

    #[test]
    fn what_took_part_in_transfers_is_judged_whatever_the_buses_show() {
        use crate::bench::results::{Drive, GpuSeen};
        let checks = [
            check("gpu.present", &[], Severity::Blocker, |_| Outcome::fail("none")),
            check("nvme.present", &[], Severity::Blocker, |_| Outcome::fail("none")),
            check("transfer.x", &["gpu.present", "nvme.present"], Severity::Blocker, |_| {
                Outcome::pass("yes")
            }),
            check("gpu.x", &["gpu.present"], Severity::Blocker, |_| Outcome::pass("yes")),
        ];
        let facts = Facts::default();
        let status = |bench: Option<&Results>, id: &str| {
            let checks: Vec<&Check> = checks.iter().collect();
            let found = run(&checks, &Context::new(&facts, Side::Guest).with_bench(bench));
            found.into_iter().find(|finding| finding.id == id).unwrap().status
        };
        let gpus = Results { gpus: vec![GpuSeen::default()], ..Results::default() };
        let all = Results { drives: vec![Drive::default()], ..gpus.clone() };
        assert_eq!(status(Some(&all), "transfer.x"), Status::Pass);
        assert_eq!(status(Some(&all), "gpu.x"), Status::Skip);
        for bench in [None, Some(&gpus)] {
            assert_eq!(status(bench, "transfer.x"), Status::Skip);
        }
    }

    #[test]
    fn some_of_several_devices_hold_nothing_up() {
        let found = run(
            &[
                &check("a", &[], Severity::Blocker, |_| Outcome::fail("one of two").partial(Severity::Minor)),
                &check("b", &["a"], Severity::Major, |_| Outcome::fail("no").partial(Severity::Blocker)),
            ],
            &Context::new(&Facts::default(), Side::Guest),
        );
        let told: Vec<_> = found.iter().map(|f| (f.id.as_str(), f.status, f.severity)).collect();
        assert_eq!(told, [("b", Status::Fail, Severity::Major), ("a", Status::Fail, Severity::Minor)]);
    }

    #[test]
    fn a_check_that_breaks_is_an_error_and_not_the_end() {
        let found = statuses(&[
            check("a", &[], Severity::Blocker, |_| panic!("oops {}", 1)),
            check("b", &["a"], Severity::Blocker, |_| Outcome::pass("yes")),
        ]);
        assert_eq!(found[0].1, Status::Error);
        assert_eq!(found[1].1, Status::Pass);
    }

    #[test]
    fn a_pass_takes_a_proof_and_no_blocker() {
        let finding = |id: &str, severity, status| Finding {
            id: id.into(),
            title: String::new(),
            status,
            severity,
            why: String::new(),
            expected: None,
            actual: None,
            remedy: vec![],
            evidence: vec![],
            because: None,
        };
        let good = [finding("x", Severity::Blocker, Status::Pass)];
        assert_eq!(verdict(&good, None), Verdict::Incomplete);
        assert_eq!(verdict(&good, Some(Route::P2pdma)), Verdict::Pass);
        let minor = [finding("x", Severity::Minor, Status::Fail)];
        assert_eq!(verdict(&minor, Some(Route::Nvfs)), Verdict::Pass);
        let major = [finding("x", Severity::Major, Status::Fail)];
        assert_eq!(verdict(&major, Some(Route::Nvfs)), Verdict::Fail);
        let broken = [finding("x", Severity::Minor, Status::Error)];
        assert_eq!(verdict(&broken, Some(Route::Nvfs)), Verdict::Incomplete);
        let none = [
            finding("gpu.present", Severity::Blocker, Status::Fail),
            finding("x", Severity::Major, Status::Fail),
        ];
        assert_eq!(verdict(&none, None), Verdict::Incomplete);
        assert_eq!(verdict(&none, Some(Route::Nvfs)), Verdict::Incomplete);
    }
}
