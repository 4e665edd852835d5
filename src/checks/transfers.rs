//! What the benchmark's transfers prove: that they were made, that the data is right, and which route it took. Speed is
//! another matter, see [`super::throughput`].

use super::check::{Check, Outcome, Remedy, Severity, WHERE_GDS_RUNS, Who};
use super::context::Context;
use crate::bench::results::{Attempt, Cause, Kind, Measurement, NotDone, Pair, Results};
use crate::bench::route::{Outcome as Proven, Proof};
use crate::bench::survey::{OPENING_GPUS, SCRATCH};
use std::collections::BTreeSet;

/// How many pieces of evidence a finding has at most.
pub(super) const SHOWN: usize = 16;

/// Checks of this file whose failure follows from a missing piece of a direct route, where one is seen to be missing.
pub const CONSEQUENCES: &[&str] = &["transfer.gpu", "transfer.route"];

/// Pieces of a direct route that are there, whatever else it looks like, where a transfer took it.
pub const PREREQUISITES: &[&str] = &[
    "route.possible",
    "nvidia-fs.symbols",
    "nvidia-fs.loaded",
    "nvidia-fs.version",
    "nvidia-fs.device-nodes",
    "nvme.hook-version",
    "nvme.patched",
    "p2pdma.kernel",
    "p2pdma.static-bar1",
    "p2pdma.registry-keys",
    "p2pdma.write-combining",
    "p2pdma.multipath",
    "p2pdma.topology",
    "topology.p2pdma",
    "gds.platform",
];

/// The checks of this file.
pub const CHECKS: &[Check] = &[
    Check {
        id: "transfer.gpu",
        title: "the GPUs can be opened for transfers",
        sides: WHERE_GDS_RUNS,
        requires: &["gpu.present"],
        severity: Severity::Blocker,
        rationale: "A GPU that libcuda cannot open receives nothing, by whichever route.",
        references: &["CUDA driver API: cuInit, cuDeviceGetCount"],
        covers: &["guide: transfers"],
        run: |context| judge_bench(context, gpu),
    },
    Check {
        id: "transfer.worker",
        title: "the libraries came through the transfers",
        sides: WHERE_GDS_RUNS,
        requires: &["gpu.present", "transfer.gpu"],
        severity: Severity::Major,
        rationale: "Transfers are made by a program of their own, because NVIDIA's libraries may crash or hang where a driver or a GPU \
                    is sick.",
        references: &["observed: libcufile 1.16 and 1.20 hang in cuFileDriverOpen without a GPU"],
        covers: &["guide: transfers"],
        run: |context| judge_bench(context, worker),
    },
    Check {
        id: "transfer.drive",
        title: "the drives stayed",
        sides: WHERE_GDS_RUNS,
        requires: &["nvme.present"],
        severity: Severity::Major,
        rationale: "A drive that leaves the bus under load, or cannot be opened, measures nothing.",
        references: &["Linux: drivers/nvme/host/pci.c, nvme_dev_disable"],
        covers: &["guide: transfers", "signature 30"],
        run: |context| judge_bench(context, drive),
    },
    Check {
        id: "transfer.errors",
        title: "no transfer failed",
        sides: WHERE_GDS_RUNS,
        requires: &["nvme.present"],
        severity: Severity::Major,
        rationale: "A transfer that fails now and then is worse than one that never works. Where the drive alone has no errors, the \
                    route has them.",
        references: &["cufile.h: CUfileOpError", "Linux: drivers/nvme/host/core.c"],
        covers: &["guide: transfers", "signature 30"],
        run: |context| judge_bench(context, errors),
    },
    Check {
        id: "transfer.data",
        title: "what arrived is what was sent",
        sides: WHERE_GDS_RUNS,
        requires: &[],
        severity: Severity::Blocker,
        rationale: "Peer-to-peer transfers under a hypervisor were seen to report success and deliver something else (NCCL issue 2335). \
                    Every block is compared where the route is proven, and samples of all other measurements.",
        references: &["NCCL issue 2335"],
        covers: &["guide: data verification"],
        run: |context| judge_bench(context, data),
    },
    Check {
        id: "transfer.route",
        title: "data moves between drives and GPUs by DMA",
        sides: WHERE_GDS_RUNS,
        requires: &["gpu.present", "nvme.present", "transfer.gpu"],
        severity: Severity::Blocker,
        rationale: "cuFile falls back to copies by the CPU in silence. The proof is cuFile's own counters, nvidia-fs's, or success while \
                    such copies are forbidden, and in each case the data.",
        references: &["cufile.h: CUfilePerGpuStats_t", "GDS troubleshooting guide: allow_compat_mode"],
        covers: &["guide: route proven", "gds-diag: modes"],
        run: |context| judge_bench(context, route),
    },
    Check {
        id: "transfer.counters",
        title: "cuFile counts routes",
        sides: WHERE_GDS_RUNS,
        requires: &["transfer.gpu"],
        severity: Severity::Info,
        rationale: "From 1.15 on libcufile counts transfers by route for each GPU. Older ones leave nvidia-fs's counters, and success \
                    while copies by the CPU are forbidden.",
        references: &["cufile.h: cuFileGetStatsL3"],
        covers: &["guide: route proven"],
        run: |context| judge_bench(context, counters),
    },
];

/// Judges what the benchmark found, where there was one.
pub(super) fn judge_bench(context: &Context<'_>, judge: fn(&Context<'_>, &Results) -> Outcome) -> Outcome {
    match context.bench {
        Some(bench) => judge(context, bench),
        None => Outcome::not_applicable("no transfers were made"),
    }
}

/// Those that were left undone for one kind of reason.
pub(super) fn not_done<'a>(bench: &'a Results, causes: &[Cause]) -> Vec<&'a NotDone> {
    bench.not_done.iter().filter(|not| causes.contains(&not.cause)).collect()
}

/// What something concerns, for people: `0000:01:00.0, nvme0n1`.
pub(super) fn about(gpu: Option<&String>, drive: Option<&String>) -> String {
    [gpu, drive].into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// A failure that tells the first of several in its sentence, and all of them as evidence.
pub(super) fn tell(sentence: impl Fn(&NotDone, &str) -> String, told: &[&NotDone]) -> Outcome {
    let more = match told.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    let outcome = Outcome::fail(sentence(told[0], &more));
    told.iter().take(SHOWN).fold(outcome, |outcome, not| {
        let about = about(not.gpu.as_ref(), not.drive.as_ref());
        let from = if about.is_empty() { not.what.clone() } else { format!("{about}: {}", not.what) };
        outcome.evidence(from, not.why.clone())
    })
}

fn gpu(_: &Context<'_>, bench: &Results) -> Outcome {
    let failed: Vec<&NotDone> = not_done(bench, &[Cause::NoGpu, Cause::Library, Cause::Worker])
        .into_iter()
        .filter(|not| not.what == OPENING_GPUS)
        .collect();
    if failed.is_empty() {
        return match bench.gpus.len() {
            0 => Outcome::not_applicable("drives alone were measured"),
            count => Outcome::pass(format!("{count} opened, {count} of {count}")),
        };
    }
    if failed[0].why.contains("gdsboot-dma") {
        return Outcome::unknown(format!("no GPU was tried: {}", failed[0].why)).remedy(Remedy::new(
            Who::Guest,
            "put gdsboot-dma beside gdsboot-validator, and run the benchmark again",
        ));
    }
    let outcome =
        tell(|not, more| format!("no GPU could be opened for transfers: {}{more}", not.why), &failed)
            .remedy(
                Remedy::new(Who::Guest, "read what the driver says, and mend that first")
                    .command("dmesg | grep -i nvrm"),
            )
            .remedy(
                Remedy::new(Who::Guest, "or install the libraries of the driver that is loaded")
                    .command("ldconfig -p | grep -E 'libcuda|libcufile|libnvidia-ml'"),
            );
    if bench.gpus.is_empty() { outcome } else { outcome.partial(Severity::Major) }
}

fn worker(_: &Context<'_>, bench: &Results) -> Outcome {
    let failed: Vec<&NotDone> =
        not_done(bench, &[Cause::Worker]).into_iter().filter(|not| not.what != OPENING_GPUS).collect();
    if failed.is_empty() {
        return match bench.gpus.len() {
            0 => Outcome::not_applicable("no GPU took part"),
            _ => Outcome::pass("no library crashed, hung or ended by itself"),
        };
    }
    tell(|not, more| format!("{}{more}", not.why), &failed)
        .remedy(
            Remedy::new(Who::Guest, "look what the driver and the GPU said at that time")
                .command("dmesg | grep -iE 'nvrm|xid|nvidia'"),
        )
        .remedy(Remedy::new(Who::Guest, "try another release of libcufile and the driver that it belongs to"))
}

fn drive(_: &Context<'_>, bench: &Results) -> Outcome {
    let failed: Vec<&NotDone> =
        not_done(bench, &[Cause::Drive]).into_iter().filter(|not| not.what != SCRATCH).collect();
    if failed.is_empty() {
        return match bench.drives.len() {
            0 => Outcome::not_applicable("no drive took part"),
            count => Outcome::pass(format!("{count} stayed, {count} of {count}")),
        };
    }
    let lost: BTreeSet<&String> = failed.iter().filter_map(|not| not.drive.as_ref()).collect();
    let outcome = tell(
        |not, more| format!("{}: {}{more}", not.drive.as_deref().unwrap_or("a drive"), not.why),
        &failed,
    )
    .remedy(Remedy::new(Who::Guest, "see why the kernel let it go").command("dmesg | grep -i nvme"))
    .remedy(Remedy::new(Who::Hardware, "reseat the drive, check its slot, its cables and its cooling"));
    if bench.drives.iter().any(|drive| !lost.contains(&drive.name)) {
        outcome.partial(Severity::Major)
    } else {
        outcome
    }
}

/// The measurements in which transfers failed, those with wrong data apart.
fn failed_transfers(bench: &Results) -> Vec<&Measurement> {
    let failed = |m: &&Measurement| {
        let wrong = m.verified.as_ref().map_or(0, |verified| verified.wrong);
        let is_wrong = m.first_error.as_ref().is_some_and(|error| error.wrong_data);
        m.errors > wrong && !is_wrong
    };
    bench.measurements.iter().filter(failed).collect()
}

fn errors(_: &Context<'_>, bench: &Results) -> Outcome {
    if bench.measurements.is_empty() {
        return Outcome::not_applicable("nothing was measured");
    }
    let failed = failed_transfers(bench);
    let Some(first) = failed.first() else {
        return Outcome::pass(format!("no transfer failed in {} measurements", bench.measurements.len()));
    };
    let words = |m: &Measurement| {
        let error = m.first_error.clone().unwrap_or_default();
        format!(
            "{} of {}: {} failed, the first at byte {}: {}",
            m.kind.words(),
            m.job,
            m.errors,
            error.offset,
            error.what
        )
    };
    let place = about(first.gpu.as_ref(), first.drive.as_ref());
    let more = if failed.len() > 1 {
        format!(" (and in {} more measurements)", failed.len() - 1)
    } else {
        String::new()
    };
    let outcome = failed.iter().take(SHOWN).fold(
        Outcome::fail(format!("{place}: {}{more}", words(first))).expected("no failures"),
        |outcome, m| outcome.evidence(about(m.gpu.as_ref(), m.drive.as_ref()), words(m)),
    );
    // Which part is sick shows in which ways of transferring fail.
    let alone = failed.iter().any(|m| m.kind == Kind::Storage);
    let outcome =
        outcome.remedy(Remedy::new(Who::Guest, "see what the kernel says of it").command("dmesg | tail -50"));
    if alone {
        outcome.remedy(
            Remedy::new(
                Who::Hardware,
                "the drive fails by itself, without any GPU: check its health, and replace it",
            )
            .command("nvme smart-log /dev/nvme0"),
        )
    } else {
        outcome.remedy(Remedy::new(
            Who::Hardware,
            "the drive alone has no errors, so that it is the way to the GPU: check slots, risers and the link's errors",
        ))
    }
}

/// What gdsio_verify found to be wrong.
fn gdsio_verify(bench: &Results) -> Option<Outcome> {
    let (ran, mismatch) = bench.gdsio_verified.iter().find_map(|ran| Some((ran, ran.answer.mismatch()?)))?;
    let place = format!("GPU {} and {}", ran.gpu, ran.drive);
    let outcome = Outcome::fail(format!("wrong data arrived ({place}): gdsio_verify says {mismatch}"));
    let remedy = Remedy::new(Who::Guest, DO_NOT_USE);
    Some(outcome.expected(AS_WRITTEN).evidence(ran.command.clone(), mismatch).remedy(remedy))
}

const AS_WRITTEN: &str = "every byte as it was written";
const DO_NOT_USE: &str = "do not use this machine for data that matters before this is understood";

fn data(_: &Context<'_>, bench: &Results) -> Outcome {
    let wrong: Vec<&Measurement> =
        bench.measurements.iter().filter(|m| m.verified.as_ref().is_some_and(|v| v.wrong > 0)).collect();
    let blocks: u64 = bench.measurements.iter().filter_map(|m| m.verified.as_ref()).map(|v| v.blocks).sum();
    let Some(first) = wrong.first() else {
        if let Some(outcome) = gdsio_verify(bench) {
            return outcome;
        }
        return match blocks {
            0 => Outcome::not_applicable("nothing was compared"),
            blocks => Outcome::pass(format!("{blocks} blocks were compared, and all of them are right")),
        };
    };
    let words = |m: &Measurement| {
        let verified = m.verified.clone().unwrap_or_default();
        let first = verified.first.unwrap_or_default();
        format!(
            "{} of {}: {} of {} blocks are wrong, {first}",
            m.kind.words(),
            m.job,
            verified.wrong,
            verified.blocks
        )
    };
    let place = about(first.gpu.as_ref(), first.drive.as_ref());
    let outcome = Outcome::fail(format!("wrong data arrived ({place}): {}", words(first)))
        .expected(AS_WRITTEN)
        .remedy(Remedy::new(Who::Guest, DO_NOT_USE));
    let outcome = wrong
        .iter()
        .take(SHOWN)
        .fold(outcome, |outcome, m| outcome.evidence(about(m.gpu.as_ref(), m.drive.as_ref()), words(m)));
    // A bounce does without peer-to-peer transfers: where it is right, these are what is wrong.
    let is_peer =
        wrong.iter().all(|m| matches!(m.kind, Kind::Cufile | Kind::CufileBatch | Kind::CufileStream));
    if is_peer {
        outcome
            .remedy(Remedy::new(
                Who::Hypervisor,
                "look whether peer-to-peer transfers reach the GPU's own memory: IOMMU mapping of its BAR, ACS, a mapping that \
                 mirrors it (NCCL issue 2335)",
            ))
            .remedy(
                Remedy::new(Who::Guest, "until then let the CPU copy, in /etc/cufile.json")
                    .command("\"properties\": { \"force_compat_mode\": true }"),
            )
    } else {
        outcome.remedy(Remedy::new(
            Who::Hardware,
            "test memory, GPU and drive: copies by the CPU are wrong as well",
        ))
    }
}

/// One pair in a few words.
fn pair_words(pair: &Pair) -> String {
    let Some(best) = pair.best() else { return "it was not tried".into() };
    let percent = |proof: &Proof| {
        proof.bounced.map_or(String::new(), |part| format!(" ({:.1} % by the CPU)", part * 100.0))
    };
    let route = best.proof.route.map_or("direct".to_owned(), |route| route.to_string());
    match best.proof.outcome {
        Proven::Direct => format!("{route}: {}", best.proof.evidence.first().map_or("", String::as_str)),
        Proven::Mixed => format!("partly {route}{}", percent(&best.proof)),
        Proven::Compat => format!("copied by the CPU{}", reason(pair)),
        Proven::Unproven => format!("not proven: {}", lack(best)),
    }
}

/// What cuFile said when copies by the CPU were forbidden.
fn reason(pair: &Pair) -> String {
    let refused = pair.attempts.iter().find_map(|attempt| attempt.error.as_ref());
    refused.map_or(String::new(), |error| format!("; without that: {error}"))
}

fn lack(attempt: &Attempt) -> &str {
    let lacks = attempt.proof.lacks.first().or(attempt.error.as_ref());
    lacks.map_or("nothing was transferred", String::as_str)
}

fn route(_: &Context<'_>, bench: &Results) -> Outcome {
    if bench.pairs.is_empty() {
        return Outcome::not_applicable("no pair of a GPU and a drive was tried");
    }
    let is_direct = |pair: &&Pair| pair.outcome() == Proven::Direct;
    let (direct, others): (Vec<&Pair>, Vec<&Pair>) = bench.pairs.iter().partition(is_direct);
    let all = bench.pairs.len();
    let with_pairs = |outcome: Outcome, first: &[&Pair], then: &[&Pair]| {
        first.iter().chain(then).take(SHOWN).fold(outcome, |outcome, pair| {
            let distance = pair.distance.as_ref().map_or(String::new(), |distance| format!(" ({distance})"));
            outcome.evidence(format!("{} and {}{distance}", pair.gpu, pair.drive), pair_words(pair))
        })
    };
    if others.is_empty() {
        let bounced = copied_on_direct_pairs(bench);
        let routes: BTreeSet<String> =
            direct.iter().filter_map(|pair| Some(pair.best()?.proof.route?.to_string())).collect();
        let routes = if routes.is_empty() {
            "dma".to_owned()
        } else {
            routes.into_iter().collect::<Vec<_>>().join(", ")
        };
        let Some(first) = bounced.first() else {
            return with_pairs(
                Outcome::pass(format!("{all} of {all} pairs move data by DMA: {routes}")),
                &direct,
                &[],
            );
        };
        let outcome = Outcome::fail(format!("on a direct pair, {first} is copied by the CPU"))
            .expected("every size and way of transfer by DMA")
            .partial(Severity::Minor)
            .remedy(Remedy::new(
                Who::Guest,
                "use the sizes and calls that stay direct, and see cufile.log for why others do not",
            ));
        return bounced
            .iter()
            .take(SHOWN)
            .fold(outcome, |outcome, said| outcome.evidence("cuFile's counters", said.clone()));
    }
    let worst = others.iter().find(|pair| pair.outcome() != Proven::Unproven).unwrap_or(&others[0]);
    let place = format!("{} and {}", worst.gpu, worst.drive);
    if others.iter().all(|pair| pair.outcome() == Proven::Unproven) && direct.is_empty() {
        return with_pairs(
            Outcome::unknown(format!(
                "no route is proven between {place}: {}",
                worst.best().map_or("", lack)
            )),
            &others,
            &[],
        )
        .remedy(Remedy::new(
            Who::Guest,
            "mend what kept the transfers from being made or counted, and run it again",
        ));
    }
    let reached: BTreeSet<&String> = direct.iter().map(|pair| &pair.gpu).collect();
    let cut_off = bench.gpus.iter().filter(|seen| !reached.contains(&seen.gpu.pci)).count();
    let what = match worst.outcome() {
        Proven::Mixed => "some of the data is copied by the CPU",
        Proven::Compat => "the CPU copies the data",
        _ => "no direct route is proven",
    };
    let outcome = Outcome::fail(match (direct.len(), cut_off) {
        (0, _) => format!("{what} between {place}: {}", pair_words(worst)),
        (count, 0) => format!("{what} between {place}; {count} of {all} pairs are direct"),
        (count, cut) => format!("{cut} GPUs have no direct drive; {count} of {all} pairs are direct"),
    })
    .expected("every pair by DMA")
    .remedy(
        Remedy::new(
            Who::Guest,
            "ask NVIDIA's own tool which pieces it finds, and see cufile.log for what it refused",
        )
        .command("/usr/local/cuda/gds/tools/gdscheck -p"),
    );
    let outcome = with_pairs(outcome, &others, &direct);
    match (direct.is_empty(), cut_off) {
        (true, _) => outcome,
        (false, 0) => outcome.partial(Severity::Minor),
        (false, _) => outcome.partial(Severity::Major),
    }
}

/// Measurements of direct pairs, under the settings that were proven, in which the CPU copied after all.
fn copied_on_direct_pairs(bench: &Results) -> Vec<String> {
    let copied = |m: &&Measurement| {
        m.counts()
            && m.proof.as_ref().is_some_and(|proof| matches!(proof.outcome, Proven::Compat | Proven::Mixed))
    };
    let words = |m: &Measurement| {
        let part = m.proof.as_ref().and_then(|proof| proof.bounced).unwrap_or(1.0);
        format!(
            "{} of {} ({}; {:.1} % by the CPU)",
            m.kind.words(),
            m.job,
            about(m.gpu.as_ref(), m.drive.as_ref()),
            part * 100.0
        )
    };
    bench.measurements.iter().filter(copied).map(words).collect()
}

fn counters(_: &Context<'_>, bench: &Results) -> Outcome {
    let opened: Vec<_> = bench.gpus.iter().filter_map(|seen| seen.cufile.as_ref()).collect();
    let Some(mute) = opened.iter().find(|cufile| !cufile.counts) else {
        return match opened.first() {
            None => Outcome::not_applicable("cuFile was not opened"),
            Some(cufile) => {
                let seen = if bench.pairs.iter().any(Pair::is_controlled) {
                    ", and was seen to count as such what it was told to copy by the CPU"
                } else {
                    ""
                };
                Outcome::pass(format!("libcufile {} counts routes{seen}", version(cufile.version.as_ref())))
            }
        };
    };
    let why =
        mute.failures.iter().find(|failure| failure.function.as_ref().is_some_and(|f| f.contains("Stats")));
    let why = why.map_or(String::new(), |failure| format!(" ({failure})"));
    Outcome::note(format!(
        "libcufile {} does not count routes{why}: proof is left to nvidia-fs's counters, and to what succeeds while copies by the \
         CPU are forbidden",
        version(mute.version.as_ref())
    ))
}

fn version(version: Option<&String>) -> &str {
    version.map_or("of an unknown version", String::as_str)
}

#[cfg(test)]
mod tests;
