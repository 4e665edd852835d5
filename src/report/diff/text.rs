//! The comparison for people, in 80 columns.

use super::{Area, Change, Diff, Side};
use crate::report::layout::{WIDTH, cut, wrap};

/// More packages are for programs: the JSON has them all.
const PACKAGES: usize = 12;

/// The lines of a comparison.
pub fn lines(diff: &Diff) -> Vec<String> {
    let mut out = Vec::new();
    for (name, side) in [("before", &diff.before), ("after", &diff.after)] {
        let Side { place, run_id, started, verdict, complete } = side;
        let cut_off = if *complete { "" } else { ", cut off" };
        out.push(cut(&format!("{name:<7} {run_id}  {started}  {verdict}{cut_off}"), WIDTH));
        out.extend(wrap("        ", place));
    }
    let mut area = None;
    let mut packages = 0;
    for change in &diff.changes {
        if area != Some(change.area) {
            area = Some(change.area);
            let title = title(change.area);
            out.extend([String::new(), title.to_owned(), "-".repeat(title.len())]);
        }
        packages += usize::from(change.what.starts_with("package "));
        if !change.what.starts_with("package ") || packages <= PACKAGES {
            out.extend(change_lines(change));
        }
    }
    if packages > PACKAGES {
        out.push(format!("  {} more packages: see --json", packages - PACKAGES));
    }
    if diff.changes.is_empty() {
        out.extend([String::new(), "Nothing changed.".into()]);
    }
    if diff.within_noise > 0 {
        let what = if diff.within_noise == 1 { "measurement is" } else { "measurements are" };
        out.extend([String::new(), format!("{} {what} the same but for noise.", diff.within_noise)]);
    }
    out
}

fn title(area: Area) -> &'static str {
    match area {
        Area::Verdict => "Verdict",
        Area::Findings => "Findings",
        Area::Machine => "Machine",
        Area::Pins => "Versions",
        Area::Settings => "Settings",
        Area::Devices => "Devices",
        Area::Topology => "Topology",
        Area::Performance => "Performance",
    }
}

fn change_lines(change: &Change) -> Vec<String> {
    let Change { what, before, after, why, percent, noise_percent, .. } = change;
    let mut lines = match (before, after) {
        // Nothing that would have to be read twice.
        (None, Some(after)) => wrap("  + ", &format!("{what}: {after}")),
        (Some(before), None) => wrap("  - ", &format!("{what}: {before}")),
        (before, after) => {
            let words = |side: &Option<String>| side.clone().unwrap_or_default();
            let by = match (percent, noise_percent) {
                (Some(by), Some(noise)) => format!(" ({by:+.1} %, noise {noise:.1} %)"),
                (None, Some(noise)) => format!(" (noise {noise:.1} %)"),
                _ => String::new(),
            };
            wrap("  ~ ", &format!("{what}: {} -> {}{by}", words(before), words(after)))
        }
    };
    lines.extend(why.iter().flat_map(|why| wrap("      ", why)));
    lines
}
