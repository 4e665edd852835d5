//! The report as one page: no scripts, nothing from elsewhere, readable on a phone and on paper.

use super::benchmark;
use super::findings::{severity_word, who_words, word};
use super::model::{Delivery, Report, Verdict};
use super::text;
use super::topology::{self, Row as TopologyRow};
use crate::bench::results::Results;
use crate::bench::route::Route;
use crate::checks::check::{Finding, Severity, Side, Status, Who};
use crate::facts::Fact;
use anyhow::Context as _;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;
use std::io::Write;

const TEMPLATE: &str = include_str!("../../image/templates/report.html");
/// How many reasons stand under the verdict.
const FIRST_REASONS: usize = 3;

/// What is to be done, or to be asked.
#[derive(Debug, Serialize)]
struct Section {
    title: &'static str,
    groups: Vec<Group>,
}

/// Remedies of one who acts.
#[derive(Debug, Serialize)]
struct Group {
    who: &'static str,
    items: Vec<Action>,
}

#[derive(Debug, Serialize)]
struct Action {
    id: String,
    text: String,
    commands: Vec<String>,
}

/// All that the template shows.
#[derive(Debug, Serialize)]
struct Page<'a> {
    verdict: &'static str,
    route: String,
    meaning: &'static str,
    gdsboot: &'a str,
    run_id: &'a str,
    finished: String,
    side: Option<&'static str>,
    /// The first reasons.
    why: &'a [String],
    /// How many there are besides.
    more_why: usize,
    actions: Vec<Section>,
    findings: Vec<Row<'a>>,
    topology: Vec<TopologyRow>,
    topology_svg: String,
    simulated: bool,
    bench: Option<Bench>,
    pins: Vec<(String, String)>,
    text: String,
    delivery: Option<String>,
}

/// What the benchmark found.
#[derive(Debug, Serialize)]
struct Bench {
    groups: Vec<benchmark::Bars>,
    text: String,
}

impl Bench {
    fn of(bench: &Results) -> Self {
        Self { groups: benchmark::bars(bench), text: benchmark::lines(bench).join("\n") }
    }
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    /// What the checks say; its status is the name of a class in the page's style.
    #[serde(flatten)]
    finding: &'a Finding,
    word: &'static str,
    severity_words: &'static str,
    remedies: Vec<By<'a>>,
}

#[derive(Debug, Serialize)]
struct By<'a> {
    who: &'static str,
    text: &'a str,
    commands: &'a [String],
}

/// Writes the page.
pub fn write(report: &Report, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    let mut plain = Vec::new();
    text::write_facts(&report.facts, &mut plain)?;
    let (why, more_why) = report.why.split_at(report.why.len().min(FIRST_REASONS));
    let page = Page {
        verdict: report.verdict.word(),
        route: report.route.to_string(),
        meaning: meaning(report.verdict, report.route),
        gdsboot: &report.gdsboot,
        run_id: &report.run_id,
        finished: report.finished.to_string(),
        side: report.side.map(side_words),
        why,
        more_why: more_why.len(),
        actions: actions(&report.findings),
        findings: report.findings.iter().map(row).collect(),
        topology: topology::rows(&report.facts),
        topology_svg: topology::svg(&report.facts),
        simulated: report.is_simulated(),
        delivery: report.delivery.as_ref().map(Delivery::words),
        bench: report.benchmark.as_ref().map(Bench::of),
        pins: pins(report),
        text: String::from_utf8_lossy(&plain).into_owned(),
    };
    let page = environment.render_str(TEMPLATE, Serde(page)).context("writing the report as HTML")?;
    out.write_all(page.as_bytes()).context("writing the report as HTML")
}

fn row(finding: &Finding) -> Row<'_> {
    let by =
        finding.remedy.iter().map(|r| By { who: who_words(r.who), text: &r.text, commands: &r.commands });
    Row {
        finding,
        word: word(finding.status),
        severity_words: severity_word(finding.severity),
        remedies: by.collect(),
    }
}

fn meaning(verdict: Verdict, route: Route) -> &'static str {
    match (verdict, route) {
        (Verdict::Pass, Route::Nvfs) => "data moved between NVMe and GPU memory by DMA, through nvidia-fs",
        (Verdict::Pass, _) => "data moved between NVMe and GPU memory by DMA",
        (_, Route::Compat) => "the CPU copied the data",
        (Verdict::Fail, _) => "something must be mended before data can move by DMA",
        (Verdict::Incomplete, _) => {
            "nothing was proven: something that is needed is missing, or was not tried"
        }
    }
}

fn side_words(side: Side) -> &'static str {
    match side {
        Side::Guest => "a virtual machine",
        Side::Host => "a hypervisor",
        Side::BareMetal => "bare metal",
    }
}

/// What must be mended, and what could not be seen from there.
fn actions(findings: &[Finding]) -> Vec<Section> {
    let failed = findings.iter().filter(|f| f.status == Status::Fail);
    let unseen = findings.iter().filter(|f| f.status == Status::Unknown && f.severity <= Severity::Major);
    let sections = [
        Section { title: "What to do, by who does it", groups: by_who(failed) },
        Section { title: "What to ask, by who can see it", groups: by_who(unseen) },
    ];
    sections.into_iter().filter(|section| !section.groups.is_empty()).collect()
}

/// The remedies of some findings, grouped by who acts: first whoever has the first of them, within a group in the findings'
/// order.
fn by_who<'a>(findings: impl Iterator<Item = &'a Finding>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for finding in findings {
        for remedy in &finding.remedy {
            let action = Action {
                id: finding.id.clone(),
                text: remedy.text.clone(),
                commands: remedy.commands.clone(),
            };
            let who = heading(remedy.who);
            match groups.iter_mut().find(|group| group.who == who) {
                Some(group) => group.items.push(action),
                None => groups.push(Group { who, items: vec![action] }),
            }
        }
    }
    groups
}

fn heading(who: Who) -> &'static str {
    match who {
        Who::Bios => "In the BIOS",
        Who::Hypervisor => "The hypervisor's administrator",
        Who::VmConfiguration => "In the virtual machine's configuration",
        Who::Guest => "On this system",
        Who::Hardware => "At the machine",
    }
}

/// What identifies image and machine.
fn pins(report: &Report) -> Vec<(String, String)> {
    let facts = &report.facts;
    let mut rows = Vec::new();
    let mut row = |label: &str, value: String| rows.push((label.to_owned(), value));
    if let Fact::Known { value: image, .. } = &facts.image {
        row("image", format!("{} {}", image.profile, image.image_id));
        row("lock", image.lock.clone());
        row("kernel", image.kernel.clone());
        row("driver", image.driver.clone().unwrap_or_else(|| "none".into()));
        for (name, version) in &image.modules {
            row(name, version.clone());
        }
    }
    row("machine", format!("{} {}", facts.platform.vendor, facts.platform.product));
    row("machine serial", facts.platform.serial.to_string());
    row("firmware", format!("{} {}", facts.platform.firmware_vendor, facts.platform.firmware_version));
    for nvme in facts.nvme.value().into_iter().flatten() {
        row(&nvme.name, format!("{}, serial {}, firmware {}", nvme.model, nvme.serial, nvme.firmware));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::tests::sample;

    fn page(report: &Report) -> String {
        let mut out = Vec::new();
        write(report, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_page_says_verdict_reasons_and_remedies_without_anything_from_elsewhere() {
        let report = Report { why: vec!["a reason".into()], ..sample() };
        let page = page(&report);
        assert!(page.contains(&format!("<div class=\"verdict {0}\">{0}</div>", report.verdict)), "{page}");
        for word in ["What matters", "All findings", "0a1b2c3d", "gdsboot-1"] {
            assert!(page.contains(word), "{word}");
        }
        for foreign in ["<script", "http://", "https://", "src=", "@import", "url("] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }

    #[test]
    fn whoever_has_the_first_remedy_comes_first_and_questions_come_last() {
        let page = page(&sample());
        let at = |words: &str| page.find(words).unwrap_or_else(|| panic!("{words}: {page}"));
        let first = sample().findings.into_iter().find(|f| f.status == Status::Fail).unwrap();
        let group = heading(first.remedy[0].who).replace('\'', "&#x27;");
        let first_group = &page[at("What to do")..];
        assert!(
            first_group[first_group.find("<h3>").unwrap()..].starts_with(&format!("<h3>{group}")),
            "{page}"
        );
        assert!(at("What to do") < at("What to ask") && at("What to ask") < at("All findings"));
    }

    #[test]
    fn the_benchmark_has_bars_and_imitations_are_named_on_every_page() {
        let bench = crate::bench::testing::healthy("0000:01:00.0", "0000:00:04.0");
        let direct = Report { benchmark: Some(bench.clone()), ..sample() };
        let text = page(&direct);
        assert!(text.contains("DIRECT by nvfs") && text.matches("<svg ").count() >= 3, "{text}");
        assert!(!text.contains("SIMULATED"));
        let bench = Results { simulated: true, ..bench };
        let simulated = page(&Report { benchmark: Some(bench), ..sample() });
        // Printers repeat what is fixed.
        assert!(simulated.contains("class=\"simulated\">SIMULATED"), "{simulated}");
        assert!(simulated.contains(".simulated { position: fixed"), "{simulated}");
    }

    #[test]
    fn what_a_machine_says_is_text_and_never_markup() {
        let mut report = sample();
        report.why = vec!["<img src=x onerror=alert(1)>".into()];
        report.facts.platform.serial = Fact::known("x", "</pre><script>".into());
        let page = page(&report);
        assert!(!page.contains("<img") && !page.contains("<script"), "{page}");
        assert!(page.contains("&lt;img"));
    }
}
