//! Waivers: findings that somebody decided to live with, by name and for a while.
//!
//! In TOML, as `gdsboot.toml` and `check --waive` have them; all four are needed:
//!
//! ```toml
//! [[waive]]
//! id = "gpu.link"
//! until = "2027-01-31"   # the last day on which it counts
//! by = "A. Operator"
//! why = "the riser is on order"
//! ```

use super::check::{Finding, Status};
use serde::{Deserialize, Serialize};

/// One waiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Waiver {
    /// The check that may fail.
    pub id: String,
    /// The last day on which it may, `YYYY-MM-DD`, UTC.
    pub until: String,
    /// Who decided so.
    pub by: String,
    /// Why.
    pub why: String,
}

/// Reads the `[[waive]]` tables of a TOML document. What is wrong with one of them is a complaint, and that one does not
/// count.
pub fn parse(table: &toml::Table) -> (Vec<Waiver>, Vec<String>) {
    let mut waivers = Vec::new();
    let mut complaints = Vec::new();
    let items = match table.get("waive") {
        None => &[][..],
        Some(toml::Value::Array(items)) => items,
        Some(_) => {
            complaints.push("waive is not written as [[waive]]".to_owned());
            &[]
        }
    };
    for (n, item) in (1..).zip(items) {
        match Waiver::deserialize(item.clone()) {
            Ok(waiver) => match waiver.complaint() {
                None => waivers.push(waiver),
                Some(complaint) => complaints.push(format!("waiver {n}: {complaint}")),
            },
            Err(error) => complaints.push(format!("waiver {n}: {}", error.to_string().trim_end())),
        }
    }
    (waivers, complaints)
}

impl Waiver {
    fn complaint(&self) -> Option<String> {
        if super::find(&self.id).is_none() {
            return Some(format!("there is no check {:?}", self.id));
        }
        if !is_day(&self.until) {
            return Some(format!("until = {:?} is no day such as 2027-01-31", self.until));
        }
        let empty = [&self.by, &self.why].iter().any(|text| text.trim().is_empty());
        empty.then(|| "by and why must say something".to_owned())
    }
}

fn is_day(text: &str) -> bool {
    crate::report::utc::Utc::parse(&format!("{text}T00:00:00Z")).is_some()
}

/// Marks failures that are waived today (`YYYY-MM-DD`). A waiver that has run out leaves its finding failed, and says so.
pub fn apply(findings: &mut [Finding], waivers: &[Waiver], today: &str) {
    for waiver in waivers {
        let failed = findings.iter_mut().filter(|f| f.id == waiver.id && f.status == Status::Fail);
        for finding in failed {
            let Waiver { until, by, why, .. } = waiver;
            // Days in this form sort as they follow each other.
            if today <= until.as_str() {
                finding.status = Status::Waived;
                finding.why = format!("waived until {until} by {by} ({why}): {}", finding.why);
            } else {
                finding.why = format!("{} (the waiver by {by} ended on {until})", finding.why);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(id: &str, until: &str) -> toml::Table {
        format!("[[waive]]\nid = \"{id}\"\nuntil = \"{until}\"\nby = \"A\"\nwhy = \"B\"\n").parse().unwrap()
    }

    fn failed() -> Vec<Finding> {
        let facts = crate::facts::Facts {
            pci: crate::facts::Fact::known("pci", vec![]),
            ..crate::facts::Facts::default()
        };
        let side = super::super::check::Side::Guest;
        super::super::judge::judge(&facts, side, None, &[], "2026-11-24").findings
    }

    #[test]
    fn a_waiver_counts_until_its_last_day() {
        let (waivers, complaints) = parse(&table("gpu.present", "2026-11-24"));
        assert_eq!(complaints, Vec::<String>::new());
        for (today, status) in [("2026-11-24", Status::Waived), ("2026-11-25", Status::Fail)] {
            let mut findings = failed();
            apply(&mut findings, &waivers, today);
            let finding = findings.iter().find(|f| f.id == "gpu.present").unwrap();
            assert_eq!(finding.status, status);
            assert!(finding.why.contains("2026-11-24") && finding.why.contains('A'), "{}", finding.why);
        }
    }

    #[test]
    fn what_is_no_waiver_is_a_complaint() {
        for (text, word) in [
            ("waive = 1", "[[waive]]"),
            ("[[waive]]\nid = \"gpu.present\"\n", "missing field"),
            ("[[waive]]\nid = \"gpu.present\"\nfor = 1\n", "unknown field"),
        ] {
            let (waivers, complaints) = parse(&text.parse().unwrap());
            assert!(waivers.is_empty() && complaints[0].contains(word), "{complaints:?}");
        }
        for (id, until, word) in [
            ("nope.x", "2026-11-24", "no check"),
            ("gpu.present", "tomorrow", "no day"),
            ("gpu.present", "2026-13-01", "no day"),
        ] {
            let (waivers, complaints) = parse(&table(id, until));
            assert!(waivers.is_empty() && complaints[0].contains(word), "{complaints:?}");
        }
    }
}
