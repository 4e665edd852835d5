//! Which route a task's bytes took, and what proves it. Pure: counters before and after, how much moved, what was
//! compared, and whether copies by the CPU were forbidden go in; a route, or the reason why none is proven, comes out.
//!
//! What proves nothing is no input here: what gdscheck says, gdsio's `XferType`, modules that are loaded, BAR1 mappings,
//! the `Ops` gauge, throughput.

use super::transfer::job::{Direction, Job};
use super::worker::errors::means_no_direct_route;
use super::worker::settings::{CufileSettings, Wanted};
use super::worker::{Counters, Cufile, Engine, Failure, GpuCounters, OpCounters, Ran};
use crate::facts::nvidia_fs::Stats;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How bytes travelled between NVMe and GPU memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Route {
    /// nvidia-fs and a patched nvme.
    Nvfs,
    /// The kernel's PCI peer-to-peer DMA.
    P2pdma,
    /// Coherent memory of a Grace machine.
    C2c,
    /// One of these three, and nothing tells which: copies by the CPU were forbidden, and the library does not count.
    Direct,
    /// Through the CPU's memory.
    Compat,
    /// No transfer was proven.
    #[default]
    None,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nvfs => "nvfs",
            Self::P2pdma => "p2pdma",
            Self::C2c => "c2c",
            Self::Direct => "direct",
            Self::Compat => "compat",
            Self::None => "none",
        })
    }
}

/// What is known of a task.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// How its transfers were made.
    pub engine: Engine,
    /// What was asked for.
    pub job: &'a Job,
    /// The GPU's UUID, as in [`super::worker::Gpu`].
    pub gpu: &'a str,
    /// What came of it.
    pub ran: &'a Ran,
    /// What cuFile was told.
    pub settings: CufileSettings,
    /// What cuFile said of itself.
    pub cufile: &'a Cufile,
    /// nvidia-fs's counters before and after. They count all of the machine: nobody else may have transferred.
    pub nvidia_fs: Option<(&'a Stats, &'a Stats)>,
    /// How often nvidia-fs had mapped this GPU's memory for this drive, before and after.
    pub mappings: Option<(u64, u64)>,
}

impl Route {
    /// Does it spare the CPU the copying?
    pub fn is_direct(self) -> bool {
        matches!(self, Self::Nvfs | Self::P2pdma | Self::C2c | Self::Direct)
    }
}

/// What came out, the best first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Every byte went by DMA, and what arrived is right.
    Direct,
    /// The CPU copied some.
    Mixed,
    /// The CPU copied all.
    Compat,
    /// Neither is proven.
    #[default]
    Unproven,
}

/// Transfers by one route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Share {
    /// The route.
    pub route: Route,
    /// Its transfers, as cuFile counts them.
    pub transfers: u64,
    /// Its part of the bytes; cuFile counts these for all routes together.
    pub bytes: u64,
}

/// A route with what proves it, or the reason why none is proven.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Proof {
    /// What came out.
    pub outcome: Outcome,
    /// The direct route; `None` also where one is proven but not which.
    pub route: Option<Route>,
    /// Transfers by route, where they were counted.
    pub shares: Vec<Share>,
    /// The part that the CPU copied, 0 to 1, where it was counted.
    pub bounced: Option<f64>,
    /// What speaks for it.
    pub evidence: Vec<String>,
    /// What speaks against it, or is missing.
    pub lacks: Vec<String>,
    /// Libraries that imitate NVIDIA's were in use: it says nothing about a machine.
    pub simulated: bool,
}

impl Proof {
    /// Is it proven that this machine transfers by DMA?
    pub fn is_direct(&self) -> bool {
        self.outcome == Outcome::Direct && !self.simulated
    }

    /// What several kinds of transfers prove together, each with its name: the least that one of them does.
    pub fn together(proofs: &[(String, Self)]) -> Self {
        let (direct, bounced) =
            proofs.iter().flat_map(|(_, proof)| &proof.shares).fold((0, 0), |(direct, bounced), share| {
                match share.route {
                    Route::Compat => (direct, bounced + share.transfers),
                    _ => (direct + share.transfers, bounced),
                }
            });
        let mut all = Self {
            outcome: proofs.iter().map(|(_, proof)| proof.outcome).max().unwrap_or_default(),
            simulated: proofs.iter().any(|(_, proof)| proof.simulated),
            bounced: (direct + bounced > 0).then(|| bounced as f64 / (direct + bounced) as f64),
            ..Self::default()
        };
        // Some kinds of transfers by DMA and others by the CPU is neither.
        let is_some_direct =
            proofs.iter().any(|(_, proof)| matches!(proof.outcome, Outcome::Direct | Outcome::Mixed));
        if all.outcome == Outcome::Compat && is_some_direct {
            all.outcome = Outcome::Mixed;
        }
        for (name, proof) in proofs {
            all.route = all.route.or(proof.route);
            for share in &proof.shares {
                match all.shares.iter_mut().find(|known| known.route == share.route) {
                    Some(known) => {
                        known.transfers += share.transfers;
                        known.bytes += share.bytes;
                    }
                    None => all.shares.push(share.clone()),
                }
            }
            all.evidence.extend(proof.evidence.iter().map(|said| format!("{name}: {said}")));
            all.lacks.extend(proof.lacks.iter().map(|said| format!("{name}: {said}")));
        }
        all
    }

    fn lacks(mut self, why: impl Into<String>) -> Self {
        self.lacks.push(why.into());
        self
    }
}

/// What a task proves.
pub fn prove(known: &Known<'_>) -> Proof {
    let Known { engine, ran, cufile, .. } = *known;
    let mut proof = Proof { simulated: cufile.simulated, ..Proof::default() };
    if !engine.is_cufile() {
        return proof.lacks("the transfers were not made by cuFile");
    }
    if ran.transfers == 0 || ran.moved == 0 {
        return proof.lacks("nothing was transferred");
    }
    let counted = counted(known, &mut proof);
    if let Some(counted) = counted.filter(|counted| counted.posix > 0) {
        // Bytes that the CPU copied are bytes that the CPU copied, whatever else is known.
        let direct = counted.p2p + counted.nvfs;
        proof.outcome = if direct > 0 { Outcome::Mixed } else { Outcome::Compat };
        proof.route = direct_route(counted);
        data(ran, &mut proof);
        return proof;
    }
    let direct = by_counters(known, counted, &mut proof)
        .or_else(|| by_nvidia_fs(known, &mut proof))
        .or_else(|| by_forbidding(known, counted, &mut proof));
    if data(ran, &mut proof)
        && let Some(route) = direct
    {
        (proof.outcome, proof.route) = (Outcome::Direct, route);
        // What other kinds of evidence lack does not matter any more.
        proof.lacks.clear();
    }
    proof
}

/// What it proves that cuFile refused a task while copies by the CPU were forbidden, and what became of the same task
/// where they were allowed.
pub fn refused(failure: &Failure, allowed: Option<&Ran>, simulated: bool) -> Proof {
    let proof = Proof {
        evidence: vec![format!("with compat mode forbidden: {failure}")],
        simulated,
        ..Proof::default()
    };
    if !failure.status.is_some_and(means_no_direct_route) {
        return proof.lacks("the error does not say that there is no direct route");
    }
    match allowed {
        Some(ran) if ran.transfers > 0 && ran.samples.error_count == 0 => {
            let said = format!("with compat mode allowed: {} transfers", ran.transfers);
            Proof { outcome: Outcome::Compat, evidence: [proof.evidence, vec![said]].concat(), ..proof }
        }
        Some(_) => proof.lacks("with compat mode allowed it fails too"),
        None => proof.lacks("it was not tried with compat mode allowed"),
    }
}

/// Is what arrived known to be right? Without that nothing is proven.
fn data(ran: &Ran, proof: &mut Proof) -> bool {
    let verified = &ran.verified;
    if ran.samples.error_count > 0 {
        let first = ran.samples.errors.first().map_or("", |error| error.what.as_str());
        proof.lacks.push(format!("{} transfers failed: {first}", ran.samples.error_count));
    }
    match &verified.first {
        _ if verified.wrong > 0 => {
            let first = verified.first.as_deref().unwrap_or_default();
            let said =
                format!("the data of {} of {} blocks is wrong: {first}", verified.wrong, verified.blocks);
            proof.lacks.push(said);
        }
        Some(why) => proof.lacks.push(format!("the data could not be compared: {why}")),
        None if verified.blocks == 0 => proof.lacks.push("no data was compared".into()),
        None if verified.uniform == verified.blocks => proof.evidence.push(format!(
            "the data of {} blocks is right, but each holds one and the same byte throughout: data at the wrong place \
             would not be noticed",
            verified.blocks
        )),
        None => proof.evidence.push(format!("the data of {} blocks is right", verified.blocks)),
    }
    verified.is_right() && ran.samples.error_count == 0
}

/// What cuFile counted of the task.
fn counted(known: &Known<'_>, proof: &mut Proof) -> Option<OpCounters> {
    let ran = known.ran;
    let (Some(before), Some(after)) = (&ran.before, &ran.after) else {
        let why = ran.failures.first().or_else(|| known.cufile.failures.iter().find(|f| is_counting(f)));
        let why = why.map_or_else(String::new, |failure| format!(" ({failure})"));
        proof.lacks.push(format!("cuFile's counters were not read{why}"));
        return None;
    };
    let (whose, before, after) = of_gpu(before, after, known.gpu);
    let Some(counted) = risen(before, after, known.job.direction) else {
        proof.lacks.push("cuFile's counters went backwards".into());
        return None;
    };
    let OpCounters { bytes, total, p2p, nvfs, posix, .. } = counted;
    proof.evidence.push(format!(
        "cuFile counted {total} transfers of {bytes} bytes for {whose}: {nvfs} nvfs, {p2p} p2pdma, {posix} posix"
    ));
    let sum = p2p.saturating_add(nvfs).saturating_add(posix);
    if sum > 0 {
        proof.bounced = Some(posix as f64 / sum as f64);
        let part = |transfers: u64| (u128::from(ran.moved) * u128::from(transfers) / u128::from(sum)) as u64;
        let routes = [(Route::Nvfs, nvfs), (Route::P2pdma, p2p), (Route::Compat, posix)];
        proof.shares = routes
            .into_iter()
            .filter(|(_, transfers)| *transfers > 0)
            .map(|(route, transfers)| Share { route, transfers, bytes: part(transfers) })
            .collect();
    }
    Some(counted)
}

fn is_counting(failure: &Failure) -> bool {
    failure.function.as_ref().is_some_and(|function| function.contains("Stats"))
}

/// The GPU's counters. The worker has one GPU: where none bears its UUID, all that were counted are its own.
fn of_gpu<'a>(before: &Counters, after: &Counters, uuid: &'a str) -> (&'a str, GpuCounters, GpuCounters) {
    let digits: String = uuid.strip_prefix("GPU-").unwrap_or(uuid).replace('-', "");
    if let Some(gpu) = after.gpus.get(&digits) {
        return (uuid, before.gpus.get(&digits).copied().unwrap_or_default(), *gpu);
    }
    let sum = |counters: &Counters| {
        counters.gpus.values().fold(GpuCounters::default(), |sum, gpu| GpuCounters {
            reads: plus(sum.reads, gpu.reads),
            writes: plus(sum.writes, gpu.writes),
        })
    };
    ("all GPUs", sum(before), sum(after))
}

fn plus(one: OpCounters, other: OpCounters) -> OpCounters {
    OpCounters {
        bytes: one.bytes.saturating_add(other.bytes),
        total: one.total.saturating_add(other.total),
        p2p: one.p2p.saturating_add(other.p2p),
        nvfs: one.nvfs.saturating_add(other.nvfs),
        posix: one.posix.saturating_add(other.posix),
        errors: one.errors.saturating_add(other.errors),
    }
}

fn risen(before: GpuCounters, after: GpuCounters, direction: Direction) -> Option<OpCounters> {
    let (before, after) = match direction {
        Direction::Read => (before.reads, after.reads),
        Direction::Write => (before.writes, after.writes),
    };
    Some(OpCounters {
        bytes: after.bytes.checked_sub(before.bytes)?,
        total: after.total.checked_sub(before.total)?,
        p2p: after.p2p.checked_sub(before.p2p)?,
        nvfs: after.nvfs.checked_sub(before.nvfs)?,
        posix: after.posix.checked_sub(before.posix)?,
        errors: after.errors.checked_sub(before.errors)?,
    })
}

/// The direct route that most transfers took.
fn direct_route(counted: OpCounters) -> Option<Route> {
    match (counted.nvfs, counted.p2p) {
        (0, 0) => None,
        (nvfs, p2p) if nvfs >= p2p => Some(Route::Nvfs),
        _ => Some(Route::P2pdma),
    }
}

/// Direct counters that rose by all that moved.
fn by_counters(known: &Known<'_>, counted: Option<OpCounters>, proof: &mut Proof) -> Option<Option<Route>> {
    let (counted, ran) = (counted?, known.ran);
    let direct = counted.p2p.saturating_add(counted.nvfs);
    if direct >= ran.transfers && counted.bytes >= ran.moved {
        return Some(direct_route(counted));
    }
    proof.lacks.push(format!(
        "cuFile's counters account for {direct} of {} transfers and {} of {} bytes",
        ran.transfers, counted.bytes, ran.moved
    ));
    None
}

/// nvidia-fs's own counters, where they are on and rose by all that moved.
fn by_nvidia_fs(known: &Known<'_>, proof: &mut Proof) -> Option<Option<Route>> {
    let (before, after) = known.nvidia_fs?;
    if after.counting != Some(true) || before.counting != Some(true) {
        proof.lacks.push("nvidia-fs does not count transfers (rw_stats_enabled=0)".into());
        return None;
    }
    let (row, mib) = match known.job.direction {
        Direction::Read => ("Reads", "readMiB"),
        Direction::Write => ("Writes", "writeMiB"),
    };
    let rise = |name: &str| after.counter(row, name)?.checked_sub(before.counter(row, name)?);
    let (ok, mib) = (rise("ok"), rise(mib));
    let said = |number: Option<u64>| number.map_or_else(|| "an unknown number".into(), |n| n.to_string());
    let words = format!("nvidia-fs counted {} {row} of {} MiB", said(ok), said(mib));
    let Known { ran, .. } = known;
    match known.mappings.map(|(before, after)| after.saturating_sub(before)) {
        // Somebody else's transfers were counted.
        Some(0) if after.counting_peers == Some(true) => {
            proof.lacks.push(format!("{words}, and mapped no memory of this GPU for this drive (np2p)"));
            return None;
        }
        Some(0) | None => {}
        Some(mappings) => proof
            .evidence
            .push(format!("nvidia-fs mapped memory of this GPU for this drive {mappings} times (np2p)")),
    }
    if ok? >= ran.transfers && mib.is_none_or(|mib| mib >= ran.moved >> 20) {
        proof.evidence.push(words);
        return Some(Some(Route::Nvfs));
    }
    proof.lacks.push(format!("{words}, where {} of {} MiB were made", ran.transfers, ran.moved >> 20));
    None
}

/// Success where copies by the CPU were forbidden, and cuFile itself says that they were.
fn by_forbidding(known: &Known<'_>, counted: Option<OpCounters>, proof: &mut Proof) -> Option<Option<Route>> {
    if known.settings.allows_compat() {
        proof.lacks.push("compat mode was allowed".into());
        return None;
    }
    match known.cufile.compat_allowed {
        Some(false) => {}
        Some(true) => {
            proof.lacks.push("compat mode was forbidden, and cuFile says that it is allowed".into());
            return None;
        }
        None => {
            proof.lacks.push("cuFile does not say whether compat mode is forbidden".into());
            return None;
        }
    }
    proof.evidence.push("it succeeded with compat mode forbidden".into());
    let flags = known.cufile.p2p_flags.as_deref().unwrap_or_default();
    let possible = flags.iter().filter_map(|flag| match flag.as_str() {
        "NVFS" => Some(Route::Nvfs),
        "PCI_P2PDMA" => Some(Route::P2pdma),
        "C2C" => Some(Route::C2c),
        _ => None,
    });
    let possible: Vec<Route> = possible.collect();
    // Which one it was is known where it was counted in part, or where there is only one.
    let named = counted.and_then(direct_route).or(match possible[..] {
        [only] => Some(only),
        _ => None,
    });
    if let (Some(route), false) = (named, flags.is_empty()) {
        proof.evidence.push(format!("cuFile says that {} is possible: {route}", flags.join(", ")));
    }
    let named = named.or_else(|| by_exclusion(known, proof));
    Some(named)
}

/// The one direct route that is left, where the other was off or is seen not to have been used.
fn by_exclusion(known: &Known<'_>, proof: &mut Proof) -> Option<Route> {
    if known.settings.wanted == Wanted::Nvfs {
        proof.evidence.push("P2PDMA was off: nvfs".into());
        return Some(Route::Nvfs);
    }
    let (before, after) = known.nvidia_fs?;
    let row = if known.job.direction == Direction::Read { "Reads" } else { "Writes" };
    let counts = [before, after].iter().all(|stats| stats.counting == Some(true));
    if counts && before.counter(row, "n")? == after.counter(row, "n")? {
        proof.evidence.push("nvidia-fs counts, and counted nothing: p2pdma".into());
        return Some(Route::P2pdma);
    }
    None
}

#[cfg(test)]
mod tests;
