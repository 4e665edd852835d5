//! Which machines deviate from the others like them.
//!
//! Machines are alike where product and GPUs are the same. In words (a driver, a link's width) a machine deviates where more than
//! half of at least [`LEAST`] machines have one value and it has another. In figures it deviates where it is further from the
//! median than three and a half standard deviations, these estimated from the median of all distances (MAD), so that outliers
//! do not hide themselves (Iglewicz and Hoaglin, "How to Detect and Handle Outliers", 1993); and by at least some percent, as
//! the others may be alike by chance. Runs that were cut off are left out, and what is simulated has no figures.

use super::column::{Cell, column};
use super::row::Row;
use serde::Serialize;
use std::collections::BTreeMap;

/// A majority of fewer machines means nothing.
const LEAST: usize = 3;
/// A median's neighbourhood of fewer figures means nothing.
const LEAST_FIGURES: usize = 5;
/// So many estimated standard deviations are an outlier.
const SIGMAS: f64 = 3.5;
/// The MAD of a normal distribution is this part of its standard deviation.
const MAD_OF_SIGMA: f64 = 0.674_5;

/// What is compared in words.
const WORDS: [&str; 22] = [
    "verdict",
    "route",
    "side",
    "hypervisor",
    "firmware",
    "firmware_date",
    "cpu",
    "gpu_links",
    "nvme_models",
    "nvme_firmware",
    "nvme_links",
    "topology",
    "kernel",
    "driver",
    "driver_open",
    "nvidia_fs",
    "cufile",
    "cuda",
    "gdsboot",
    "profile",
    "image_id",
    "cause",
];
/// What is compared in figures, and the least difference that counts, in percent of the median.
const FIGURES: [(&str, f64); 7] = [
    ("direct_gib_s", 5.0),
    ("bounce_gib_s", 5.0),
    ("storage_gib_s", 5.0),
    ("host_copy_gib_s", 5.0),
    ("direct_cpu_s_per_gib", 20.0),
    ("bounce_cpu_s_per_gib", 20.0),
    ("direct_p99_us", 30.0),
];

/// Machines that are alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Product and GPUs, in words.
    pub name: String,
    /// How many machines.
    pub machines: usize,
    /// How many of them deviate in anything.
    pub deviating: usize,
}

/// One way in which one machine differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Deviation {
    /// Index of the machine's row among those that were compared.
    #[serde(skip)]
    pub row: usize,
    /// [`Row::machine`].
    pub machine: String,
    /// The group's name.
    pub group: String,
    /// The column.
    pub what: &'static str,
    /// What the machine has.
    pub value: String,
    /// What most have: `580.95.05 (97 of 100)`, `median 12.1`.
    pub usual: String,
}

impl Deviation {
    /// In a line.
    pub fn words(&self) -> String {
        format!("{} is {}; usual is {}", self.what, self.value, self.usual)
    }
}

/// Finds them among rows of one run for each machine.
pub fn find(rows: &[Row]) -> (Vec<Group>, Vec<Deviation>) {
    let mut alike: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate().filter(|(_, row)| row.complete) {
        alike.entry(group(row)).or_default().push(index);
    }
    let (mut groups, mut all) = (Vec::new(), Vec::new());
    for (name, members) in alike {
        let found = all.len();
        for what in WORDS {
            in_words(rows, &name, &members, what, &mut all);
        }
        for (what, least) in FIGURES {
            in_figures(rows, &name, &members, what, least, &mut all);
        }
        let mut deviating: Vec<usize> = all[found..].iter().map(|deviation| deviation.row).collect();
        deviating.sort_unstable();
        deviating.dedup();
        groups.push(Group { name, machines: members.len(), deviating: deviating.len() });
    }
    groups.sort_by(|a, b| b.machines.cmp(&a.machines).then_with(|| a.name.cmp(&b.name)));
    // By machine: each keeps the order of its columns.
    all.sort_by_key(|deviation| deviation.row);
    (groups, all)
}

/// Product and GPUs: `ProLiant DL380 Gen11, 4 x NVIDIA H100`.
fn group(row: &Row) -> String {
    let product = row.product.as_deref().unwrap_or("unknown product");
    let mut models: BTreeMap<&str, usize> = BTreeMap::new();
    for model in &row.gpu_models {
        *models.entry(model).or_default() += 1;
    }
    let gpus: Vec<String> = models.into_iter().map(|(model, count)| format!("{count} x {model}")).collect();
    let gpus = if gpus.is_empty() { "no GPU".into() } else { gpus.join(" + ") };
    format!("{product}, {gpus}")
}

fn in_words(rows: &[Row], group: &str, members: &[usize], what: &'static str, all: &mut Vec<Deviation>) {
    let Some(column) = column(what).filter(|_| members.len() >= LEAST) else { return };
    let word = |index: &usize| {
        let words = (column.of)(&rows[*index]).words();
        if words.is_empty() { "none".to_owned() } else { words }
    };
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for index in members {
        *counts.entry(word(index)).or_default() += 1;
    }
    let Some((usual, count)) = counts.into_iter().max_by_key(|(_, count)| *count) else { return };
    if count * 2 <= members.len() {
        return;
    }
    for index in members {
        let value = word(index);
        if value != usual {
            all.push(Deviation {
                row: *index,
                machine: rows[*index].machine.clone(),
                group: group.to_owned(),
                what,
                value,
                usual: format!("{usual} ({count} of {})", members.len()),
            });
        }
    }
}

fn in_figures(
    rows: &[Row],
    group: &str,
    members: &[usize],
    what: &'static str,
    least_percent: f64,
    all: &mut Vec<Deviation>,
) {
    let Some(column) = column(what) else { return };
    let figure = |index: &usize| match (column.of)(&rows[*index]) {
        Cell::Number(number) if !rows[*index].simulated => Some((*index, number)),
        _ => None,
    };
    let figures: Vec<(usize, f64)> = members.iter().filter_map(figure).collect();
    if figures.len() < LEAST_FIGURES {
        return;
    }
    let usual = median(figures.iter().map(|(_, number)| *number).collect());
    let sigma = median(figures.iter().map(|(_, number)| (number - usual).abs()).collect()) / MAD_OF_SIGMA;
    let least = (SIGMAS * sigma).max(usual.abs() * least_percent / 100.0);
    for (index, number) in figures {
        let off = number - usual;
        if off.abs() > least {
            let percent =
                if usual == 0.0 { String::new() } else { format!(", {:+.0} %", 100.0 * off / usual) };
            all.push(Deviation {
                row: index,
                machine: rows[index].machine.clone(),
                group: group.to_owned(),
                what,
                value: format!("{number}{percent}"),
                usual: format!("{usual}, the median"),
            });
        }
    }
}

/// The middle of at least one number; the mean of the two that are.
fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    let number = match numbers.len().is_multiple_of(2) {
        true => f64::midpoint(numbers[middle - 1], numbers[middle]),
        false => numbers[middle],
    };
    // As the table writes figures.
    (number * 1e4).round() / 1e4
}

#[cfg(test)]
#[path = "deviation_tests.rs"]
mod tests;
