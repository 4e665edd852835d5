//! What a machine file says that the report must contain, and how a report differs from that.

use super::argv::Accel;
use super::outcome::Reported;
use crate::bench::route::Route;
use crate::checks::check::Finding;
use crate::report::model::{Report, Verdict};
use crate::topology::Topology;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

/// The table `[expect]` of a machine file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Expectation {
    /// The verdict.
    pub verdict: Verdict,
    /// The route that was proven.
    pub route: Route,
    /// Does the report say that something in the machine was simulated?
    pub simulated: bool,
    /// Where it is.
    #[serde(default)]
    pub report: Place,
    /// What it must say among the problems of the run itself, in these words.
    #[serde(default)]
    pub problems: Vec<String>,
    /// What `nvidia-smi topo -m` would call each pair of a GPU and an NVMe controller: `"0000:01:00.0 0000:02:00.0" = "PIX"`.
    /// All pairs, and no others.
    #[serde(default)]
    pub pairs: BTreeMap<String, String>,
    /// For images of each profile, ids of findings by their status: kernels and drivers differ. A finding that is not named
    /// may have any status, as all findings of a profile that is not.
    #[serde(default)]
    pub findings: BTreeMap<String, Findings>,
}

/// Where a report is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// On a partition for reports, whichever.
    #[default]
    Partition,
    /// On the serial line, as text, because no disk took it.
    SerialLine,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Partition => "partition",
            Self::SerialLine => "serial-line",
        })
    }
}

/// Ids of findings by their status.
pub type Findings = BTreeMap<String, BTreeSet<String>>;

/// Findings whose status depends on what executes the guest, not on the machine; compared where it was emulated.
const OF_THE_EMULATOR: [&str; 1] = ["vm.emulator"];

/// A status as a machine file and `report.json` write it.
fn word(finding: &Finding) -> String {
    match serde_json::to_value(finding.status) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// The profile that an image was built from.
fn profile(report: &Report) -> &str {
    report.facts.image.value().map_or("unknown", |manifest| manifest.profile.as_str())
}

/// The pairs of a report's machine: the two addresses, and nvidia-smi's word.
fn pairs(report: &Report) -> BTreeMap<String, String> {
    let topology = Topology::of(&report.facts);
    let pairs = topology.storage().map(|pair| {
        let label = pair.nvidia_smi.map_or("unknown".to_owned(), |label| label.to_string());
        (format!("{} {}", pair.gpu, pair.peer), label)
    });
    pairs.collect()
}

impl Expectation {
    /// What a report has that it should not have, one line each; nothing where it is as expected.
    pub fn differences(&self, reported: &Reported, accel: Accel) -> Vec<String> {
        let mut lines = Vec::new();
        let mut compare = |what: &str, expected: String, found: String| {
            if expected != found {
                lines.push(format!("{what}: expected {expected}, found {found}"));
            }
        };
        let said = &reported.said;
        compare("verdict", self.verdict.to_string(), said.verdict.to_string());
        compare("route", self.route.to_string(), said.route.to_string());
        compare("simulated", self.simulated.to_string(), said.simulated.to_string());
        compare("report", self.report.to_string(), reported.place().to_string());
        let found = reported.report.as_deref().map(pairs).unwrap_or_default();
        let none = || "no such pair".to_owned();
        for pair in self.pairs.keys().chain(found.keys()).collect::<BTreeSet<_>>() {
            let [expected, found] =
                [&self.pairs, &found].map(|of| of.get(pair).cloned().unwrap_or_else(none));
            compare(&format!("pair {pair}"), expected, found);
        }
        for words in self.problems.iter().filter(|words| !said.problems.iter().any(|p| p.contains(*words))) {
            lines.push(format!("problem {words:?}: expected, and there is none among {:?}", said.problems));
        }
        let Some(report) = &reported.report else { return lines };
        for (status, ids) in self.findings.get(profile(report)).into_iter().flatten() {
            for id in ids.iter().filter(|id| accel == Accel::Tcg || !OF_THE_EMULATOR.contains(&id.as_str())) {
                match report.findings.iter().find(|finding| finding.id == *id) {
                    None => lines.push(format!("finding {id}: expected {status}, and there is none")),
                    Some(finding) if word(finding) != *status => {
                        lines.push(format!(
                            "finding {id}: expected {status}, is {}: {}",
                            word(finding),
                            finding.why
                        ));
                    }
                    Some(_) => {}
                }
            }
        }
        lines
    }

    /// What reports of one machine and image, one or more, have in common.
    ///
    /// # Errors
    /// They differ in what every expectation says; in what.
    pub fn of(reports: &[&Reported]) -> Result<Self, String> {
        let [first, others @ ..] = reports else { return Err("there is no report".to_owned()) };
        let read = |of: &Reported| {
            let pairs = of.report.as_deref().map(pairs).unwrap_or_default();
            (of.said.verdict, of.said.route, of.said.simulated, of.place(), pairs)
        };
        if let Some(other) = others.iter().find(|other| read(other) != read(first)) {
            return Err(format!(
                "its boots differ: {}, route {} and {}, route {}, or in the places of their devices or reports",
                first.said.verdict, first.said.route, other.said.verdict, other.said.route
            ));
        }
        let (verdict, route, simulated, place, pairs) = read(first);
        let mut findings = BTreeMap::new();
        if let Some(report) = &first.report {
            let of: &mut Findings = findings.entry(profile(report).to_owned()).or_default();
            for finding in &report.findings {
                let same = |other: &Report| {
                    other.findings.iter().any(|f| f.id == finding.id && f.status == finding.status)
                };
                if others.iter().all(|other| other.report.as_deref().is_some_and(same)) {
                    of.entry(word(finding)).or_default().insert(finding.id.clone());
                }
            }
        }
        Ok(Self { verdict, route, simulated, report: place, problems: Vec::new(), pairs, findings })
    }

    /// With the findings of `old`'s other profiles, and its words for problems.
    pub fn with_profiles_of(mut self, old: Option<&Self>) -> Self {
        self.problems = old.map(|old| old.problems.clone()).unwrap_or_default();
        for (profile, findings) in old.into_iter().flat_map(|old| &old.findings) {
            self.findings.entry(profile.clone()).or_insert_with(|| findings.clone());
        }
        self
    }

    /// A machine file's text with this as its expectation.
    pub fn put_into(&self, text: &str) -> String {
        let begins = |line: &str| line.trim_end() == "[expect]" || line.starts_with("[expect.");
        let kept: Vec<&str> = text.lines().take_while(|line| !begins(line)).collect();
        format!("{}\n\n{}", kept.join("\n").trim_end(), self.toml())
    }

    fn toml(&self) -> String {
        const WIDTH: usize = 110;
        let mut out = format!(
            "[expect]\nverdict = \"{}\"\nroute = \"{}\"\nsimulated = {}\n",
            self.verdict, self.route, self.simulated
        );
        let add = |out: &mut String, line: std::fmt::Arguments<'_>| {
            // Writing to a String does not fail.
            let _ = out.write_fmt(line);
        };
        if self.report != Place::default() {
            add(&mut out, format_args!("report = \"{}\"\n", self.report));
        }
        if !self.problems.is_empty() {
            // A list of TOML's basic strings.
            add(&mut out, format_args!("problems = {}\n", toml::Value::from(self.problems.clone())));
        }
        if !self.pairs.is_empty() {
            out.push_str("\n[expect.pairs]\n");
            for (pair, label) in &self.pairs {
                add(&mut out, format_args!("\"{pair}\" = \"{label}\"\n"));
            }
        }
        for (profile, findings) in &self.findings {
            add(&mut out, format_args!("\n[expect.findings.\"{profile}\"]\n"));
            for (status, ids) in findings {
                add(&mut out, format_args!("{status} = [\n"));
                let mut line = String::new();
                for id in ids {
                    if line.len() + id.len() + 4 > WIDTH {
                        add(&mut out, format_args!(" {line}\n"));
                        line.clear();
                    }
                    add(&mut line, format_args!(" \"{id}\","));
                }
                add(&mut out, format_args!(" {line}\n]\n"));
            }
        }
        out
    }
}

/// Are the ids and statuses of an expectation ones that a report can have? What is wrong with the first that is not.
pub fn complaint(expectation: &Expectation) -> Option<String> {
    let statuses = ["pass", "fail", "info", "skip", "not_applicable", "unknown", "error", "waived"];
    let mut seen = BTreeSet::new();
    let profiles = expectation.findings.iter();
    for (profile, status, ids) in profiles.flat_map(|(p, of)| of.iter().map(move |(s, ids)| (p, s, ids))) {
        if !statuses.contains(&status.as_str()) {
            return Some(format!("there is no status {status}, but {}", statuses.join(", ")));
        }
        for id in ids {
            if crate::checks::all().all(|check| check.id != id) {
                return Some(format!("there is no check {id}"));
            }
            if !seen.insert((profile, id)) {
                return Some(format!("{id} is expected to have two statuses"));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::check::Status;
    use crate::report::model::tests::sample;
    use crate::smoke::outcome::Said;

    fn report() -> Report {
        let mut report = Report { complete: true, ..sample() };
        report.findings.retain(|finding| finding.status != Status::Waived);
        report
    }

    fn reported(report: &Report) -> Reported {
        let said = Said::by(report);
        Reported { run: Some("r".into()), said, report: Some(Box::new(report.clone())), text: String::new() }
    }

    #[test]
    fn a_report_is_what_it_is() {
        let report = report();
        let of = reported(&report);
        let expected = Expectation::of(&[&of, &of]).unwrap();
        let findings = &expected.findings[profile(&report)];
        assert!(findings.values().map(BTreeSet::len).sum::<usize>() >= 3, "{expected:?}");
        assert_eq!(expected.differences(&of, Accel::Tcg), [] as [String; 0]);
    }

    #[test]
    fn every_difference_is_a_line() {
        let report = report();
        let mut expected = Expectation::of(&[&reported(&report)]).unwrap();
        let id = report.findings[0].id.clone();
        let was = word(&report.findings[0]);
        let findings = expected.findings.get_mut(profile(&report)).unwrap();
        findings.get_mut(&was).unwrap().remove(&id);
        findings.entry("error".into()).or_default().extend([id.clone(), "gpu.nothing".into()]);
        // Of an image of another profile nothing of that is said.
        expected.findings.insert("other".into(), Findings::from([("fail".into(), [id.clone()].into())]));
        expected.pairs.insert("a b".into(), "PIX".into());
        expected.simulated = !expected.simulated;
        expected.problems = vec!["no such problem".into()];
        let lines = expected.differences(&reported(&report), Accel::Tcg);
        assert_eq!(lines.len(), 5, "{lines:#?}");
        assert!(lines.iter().any(|line| line.starts_with("problem \"no such problem\": expected")));
        assert!(lines[0].starts_with("simulated: expected "));
        assert_eq!(lines[1], "pair a b: expected PIX, found no such pair");
        assert!(
            lines.iter().any(|line| line.starts_with(&format!("finding {id}: expected error, is {was}: ")))
        );
        assert!(lines.contains(&"finding gpu.nothing: expected error, and there is none".to_owned()));
    }

    #[test]
    fn what_boots_differ_in_is_left_out_or_told() {
        let (one, mut other) = (report(), report());
        other.findings[0].status = Status::Error;
        let common = Expectation::of(&[&reported(&one), &reported(&other)]).unwrap();
        assert!(common.findings[profile(&one)].values().all(|ids| !ids.contains(&one.findings[0].id)));
        other.verdict = if one.verdict == Verdict::Fail { Verdict::Pass } else { Verdict::Fail };
        assert!(
            Expectation::of(&[&reported(&one), &reported(&other)])
                .unwrap_err()
                .starts_with("its boots differ: ")
        );
    }

    #[test]
    fn the_place_of_the_report_is_compared() {
        let mut of = reported(&report());
        let mut expected = Expectation::of(&[&of]).unwrap();
        of.report = None;
        expected.pairs.clear();
        assert_eq!(expected.differences(&of, Accel::Tcg), ["report: expected partition, found serial-line"]);
        expected = Expectation::of(&[&of]).unwrap();
        assert_eq!((expected.report, expected.findings.len()), (Place::SerialLine, 0));
        assert_eq!(expected.differences(&of, Accel::Tcg), [] as [String; 0]);
    }

    #[test]
    fn it_is_written_as_it_is_read() {
        let report = report();
        let mut expected = Expectation::of(&[&reported(&report)]).unwrap();
        expected.pairs.insert("0000:01:00.0 0000:02:00.0".into(), "PIX".into());
        expected.report = Place::SerialLine;
        let problems = vec!["a \"word\"".to_owned()];
        let findings = [("other".into(), Findings::new())].into();
        let other = Expectation { findings, problems, ..expected.clone() };
        expected = expected.with_profiles_of(Some(&other));
        assert!(expected.findings.contains_key("other"));
        let head = "description = \"x\"\n";
        let text = expected.put_into(&format!("{head}\n[expect]\nverdict = \"old\"\n\n[expect.findings]\n"));
        #[derive(Deserialize)]
        struct File {
            expect: Expectation,
        }
        let back: File = toml::from_str(&text).unwrap();
        assert_eq!(back.expect, expected);
        assert!(text.starts_with(head) && !text.contains("old"), "{text}");
        assert_eq!(expected.put_into(&text), text, "a second time changes nothing");
    }

    #[test]
    fn unknown_ids_and_statuses_are_told() {
        let with = |status: &str, ids: &[&str]| {
            let ids = ids.iter().map(|id| (*id).to_owned()).collect();
            let findings = [("p".to_owned(), Findings::from([(status.to_owned(), ids)]))].into();
            let (verdict, route) = (Verdict::Fail, Route::None);
            let (report, problems, pairs) = (Place::Partition, Vec::new(), BTreeMap::new());
            complaint(&Expectation { verdict, route, simulated: false, report, problems, pairs, findings })
        };
        assert_eq!(with("pass", &["gpu.present"]), None);
        assert!(with("passed", &[]).unwrap().starts_with("there is no status passed"));
        assert_eq!(with("pass", &["gpu.nothing"]).unwrap(), "there is no check gpu.nothing");
    }
}
