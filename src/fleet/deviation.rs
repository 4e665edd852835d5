//! Which machines deviate from the others like them.
//!
//! Machines are alike where the product and the kinds of GPU are the same, by their PCI ids: a driver that does not load, or a
//! GPU of eight that is gone, makes no other machine. One that shows no GPU at all is compared with most of its product. In
//! words (a driver, a link's width) a machine deviates where more than half of at least [`LEAST`] machines have one value and
//! it has another; lists of devices are counted, as their order is the kernel's. In figures it deviates where it is further
//! from the median than three and a half standard deviations, these estimated from the median of all distances (MAD), so that
//! outliers do not hide themselves (Iglewicz and Hoaglin, "How to Detect and Handle Outliers", 1993); and by at least some
//! percent, as the others may be alike by chance. Figures are compared among benchmarks of one thoroughness. Runs that were
//! cut off are left out, and what is simulated: it says nothing about a machine.

use super::column::{Cell, column};
use super::row::{self, Row};
use crate::bench::plan::Thoroughness;
use crate::report::diff::CPU_LEAST;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// A majority of fewer machines means nothing.
const LEAST: usize = 3;
/// A median's neighbourhood of fewer figures means nothing.
const LEAST_FIGURES: usize = 5;
/// So many estimated standard deviations are an outlier.
const SIGMAS: f64 = 3.5;
/// The MAD of a normal distribution is this part of its standard deviation.
const MAD_OF_SIGMA: f64 = 0.674_5;

/// What is compared in words.
const WORDS: [&str; 23] = [
    "verdict",
    "route",
    "side",
    "hypervisor",
    "firmware",
    "firmware_date",
    "cpu",
    "gpu_models",
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
/// Those of them that have a word for each device.
const OF_DEVICES: [&str; 5] = ["gpu_models", "gpu_links", "nvme_models", "nvme_firmware", "nvme_links"];
/// What is compared in figures, and the least difference that counts: in percent of the median, and in the figure's unit.
const FIGURES: [(&str, f64, f64); 7] = [
    ("direct_gib_s", 5.0, 0.0),
    ("bounce_gib_s", 5.0, 0.0),
    ("storage_gib_s", 5.0, 0.0),
    ("host_copy_gib_s", 5.0, 0.0),
    ("direct_cpu_s_per_gib", 20.0, CPU_LEAST),
    ("bounce_cpu_s_per_gib", 20.0, CPU_LEAST),
    ("direct_p99_us", 30.0, 0.0),
];

/// Machines that are alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Product and GPUs, in words; those of most of its machines.
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
    let (mut groups, mut all) = (Vec::new(), Vec::new());
    for members in alike(rows) {
        let name = group_name(rows, &members);
        let found = all.len();
        for what in WORDS {
            in_words(rows, &name, &members, what, &mut all);
        }
        for thoroughness in [Thoroughness::Quick, Thoroughness::Full] {
            let such = |index: &usize| rows[*index].thoroughness == Some(thoroughness);
            let members: Vec<usize> = members.iter().copied().filter(such).collect();
            for least in FIGURES {
                in_figures(rows, &name, &members, least, &mut all);
            }
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

/// The machines that are compared with each other, by their numbers.
fn alike(rows: &[Row]) -> Vec<Vec<usize>> {
    let mut products: BTreeMap<Option<&str>, BTreeMap<BTreeSet<&str>, Vec<usize>>> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate().filter(|(_, row)| row.complete && !row.simulated) {
        let kinds = row.gpu_ids.iter().map(String::as_str).collect();
        products.entry(row.product.as_deref()).or_default().entry(kinds).or_default().push(index);
    }
    let groups = products.into_values().flat_map(|mut kinds| {
        let without = kinds.remove(&BTreeSet::new()).unwrap_or_default();
        let mut groups: Vec<Vec<usize>> = kinds.into_values().collect();
        match groups.iter_mut().max_by_key(|members| members.len()) {
            Some(most) => {
                most.extend(without);
                most.sort_unstable();
            }
            None => groups.push(without),
        }
        groups
    });
    groups.collect()
}

/// Product and GPUs of most of these machines: `ProLiant DL380 Gen11, 4 x NVIDIA H100`.
fn group_name(rows: &[Row], members: &[usize]) -> String {
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    for row in members.iter().map(|index| &rows[*index]) {
        let product = row.product.as_deref().unwrap_or("unknown product");
        let gpus: Vec<String> =
            counted(&row.gpu_models).iter().map(|(model, count)| format!("{count} x {model}")).collect();
        let gpus = if gpus.is_empty() { "no GPU".into() } else { gpus.join(" + ") };
        *names.entry(format!("{product}, {gpus}")).or_default() += 1;
    }
    names.into_iter().max_by_key(|(_, count)| *count).map(|(name, _)| name).unwrap_or_default()
}

/// How often each word is there.
fn counted(words: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for word in words {
        *counts.entry(word.as_str()).or_default() += 1;
    }
    counts
}

fn in_words(rows: &[Row], group: &str, members: &[usize], what: &'static str, all: &mut Vec<Deviation>) {
    let Some(column) = column(what).filter(|_| members.len() >= LEAST) else { return };
    let word = |index: &usize| {
        let words = match (column.of)(&rows[*index]) {
            Cell::List(list) if OF_DEVICES.contains(&what) => {
                let words = counted(&list).into_iter().map(|(word, count)| format!("{count} {word}"));
                words.collect::<Vec<_>>().join("; ")
            }
            cell => cell.words(),
        };
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
    (what, least_percent, least): (&'static str, f64, f64),
    all: &mut Vec<Deviation>,
) {
    let Some(column) = column(what) else { return };
    let figure = |index: &usize| match (column.of)(&rows[*index]) {
        Cell::Number(number) => Some((*index, number)),
        _ => None,
    };
    let figures: Vec<(usize, f64)> = members.iter().filter_map(figure).collect();
    if figures.len() < LEAST_FIGURES {
        return;
    }
    let usual = median(figures.iter().map(|(_, number)| *number).collect());
    let sigma = median(figures.iter().map(|(_, number)| (number - usual).abs()).collect()) / MAD_OF_SIGMA;
    let least = (SIGMAS * sigma).max(usual.abs() * least_percent / 100.0).max(least);
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

/// As the table writes figures.
fn median(numbers: Vec<f64>) -> f64 {
    (row::median(numbers) * 1e4).round() / 1e4
}

#[cfg(test)]
#[path = "deviation_tests.rs"]
mod tests;
