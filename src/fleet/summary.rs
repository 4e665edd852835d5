//! What a collection comes to, for people, in 80 columns.

use super::Fleet;
use super::deviation::{Deviation, Group};
use crate::report::layout::{WIDTH, cut, wrap};
use crate::report::model::Verdict;

/// More groups and more machines that deviate are for the page and the table.
const GROUPS: usize = 12;
const MACHINES: usize = 20;

/// The lines of a summary.
pub fn lines(fleet: &Fleet) -> Vec<String> {
    let count = |verdict: Verdict| fleet.rows.iter().filter(|row| row.verdict == Some(verdict)).count();
    let verdicts =
        [Verdict::Pass, Verdict::Fail, Verdict::Incomplete].map(|v| format!("{} {v}", count(v))).join(", ");
    let what = |n: usize, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
    let mut out = wrap(
        "",
        &format!("{}, {}: {verdicts}", what(fleet.machines, "machine"), what(fleet.rows.len(), "row")),
    );
    if fleet.rows.iter().any(|row| row.simulated) {
        let simulated = fleet.rows.iter().filter(|row| row.simulated).count();
        out.extend(wrap("", &format!("{simulated} of them SIMULATED: they say nothing about a machine")));
    }
    if !fleet.groups.is_empty() {
        out.push(String::new());
        out.push("Machines that are alike (product and GPUs), and how many deviate".into());
    }
    for Group { name, machines, deviating } in fleet.groups.iter().take(GROUPS) {
        out.push(cut(&format!("{machines:>7} {deviating:>6}  {name}"), WIDTH));
    }
    if fleet.groups.len() > GROUPS {
        out.push(format!("  and {} more", fleet.groups.len() - GROUPS));
    }
    let mut machines = 0;
    let mut last = None;
    for deviation in &fleet.deviations {
        if last != Some(deviation.row) {
            last = Some(deviation.row);
            machines += 1;
            if machines <= MACHINES {
                out.push(String::new());
                out.push(cut(&format!("{} deviates ({})", deviation.machine, deviation.group), WIDTH));
            }
        }
        if machines <= MACHINES {
            let Deviation { what, value, usual, .. } = deviation;
            out.extend(wrap("  - ", &format!("{what}: {value}; usual: {usual}")));
        }
    }
    if machines > MACHINES {
        out.push(String::new());
        out.push(format!("and {} more machines deviate: see the table or the page", machines - MACHINES));
    }
    out
}
