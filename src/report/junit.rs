//! The findings as JUnit XML, for CI systems: one test case per check.

use crate::checks::check::{Finding, Status};
use crate::report::model::{SIMULATED, Verdict};
use anyhow::Context as _;
use quick_junit::{NonSuccessKind, Report as Xml, TestCase, TestCaseStatus, TestSuite};
use std::io::Write;

/// Writes the document. What cannot be seen, is skipped or does not apply is `skipped`; a waived failure too, with its
/// reason. What imitations say is named so.
pub fn write(
    verdict: Verdict,
    simulated: bool,
    findings: &[Finding],
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let mark = if simulated { format!(" {SIMULATED}") } else { String::new() };
    let mut suite = TestSuite::new(format!("gdsboot{mark}"));
    suite.add_test_cases(findings.iter().map(case));
    let mut xml = Xml::new(format!("gdsboot {verdict}{mark}"));
    xml.add_test_suite(suite);
    let text = xml.to_string().context("writing the findings as JUnit XML")?;
    out.write_all(text.as_bytes()).context("writing the findings as JUnit XML")
}

fn case(finding: &Finding) -> TestCase {
    let not = |kind: NonSuccessKind, word: &str| {
        let mut status = TestCaseStatus::non_success(kind);
        status.set_message(finding.why.clone()).set_type(word);
        let mut details = finding.why.clone();
        for remedy in &finding.remedy {
            details.push_str(&format!("\n{}", remedy.text));
            remedy.commands.iter().for_each(|command| details.push_str(&format!("\n  $ {command}")));
        }
        status.set_description(details);
        status
    };
    let status = match finding.status {
        Status::Pass | Status::Info => TestCaseStatus::success(),
        Status::Fail => not(NonSuccessKind::Failure, "fail"),
        Status::Error => not(NonSuccessKind::Error, "error"),
        Status::Skip | Status::NotApplicable | Status::Unknown | Status::Waived => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(finding.why.clone());
            status
        }
    };
    let (class, name) = finding.id.split_once('.').unwrap_or(("gdsboot", &finding.id));
    let mut case = TestCase::new(format!("{name}: {}", finding.title), status);
    case.set_classname(format!("gdsboot.{class}"));
    case
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::judge::judge;
    use crate::report::model::tests::sample;

    #[test]
    fn one_case_per_check_and_what_a_machine_says_is_escaped() {
        let facts = sample().facts;
        let mut judgement = judge(&facts, crate::checks::check::Side::Guest, None, &[], "2026-11-22");
        judgement.findings[0].status = Status::Fail;
        judgement.findings[0].why = "a <tag> & \u{1b}[2J".into();
        let mut out = Vec::new();
        write(judgement.verdict, false, &judgement.findings, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches("<testcase ").count(), judgement.findings.len());
        assert!(text.contains("a &lt;tag&gt; &amp; ") && !text.contains('\u{1b}'), "{text}");
        let failed = judgement.findings.iter().filter(|f| f.status == Status::Fail).count();
        assert!(text.contains(&format!("failures=\"{failed}\"")), "{text}");
        assert!(!text.contains(SIMULATED));
        out = Vec::new();
        write(Verdict::Incomplete, true, &judgement.findings, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("<testsuites name=\"gdsboot INCOMPLETE SIMULATED\""), "{text}");
        assert!(text.contains("<testsuite name=\"gdsboot SIMULATED\""), "{text}");
    }
}
