//! How fast transfers were, against what the devices of the same machine can do by themselves: never against a constant.
//! What is published of a model counts beside that, see [`super::published`].

use super::check::{Check, Outcome, Remedy, Severity, Side, WHERE_GDS_RUNS, Who};
use super::context::Context;
use super::published;
use super::transfers::{SHOWN, about, judge_bench, not_done, tell};
use super::virtual_machine::is_emulated;
use crate::bench::results::{Cause, Kind, LinkState, Measurement, Pair, Purpose, Results};
use crate::bench::route::Outcome as Proven;
use crate::bench::survey::SCRATCH;
use crate::bench::transfer::job::{Direction, Job, Order};
use crate::facts::pci::PciDevice;
use crate::topology::place::Places;

/// A direct transfer that is slower than this part of the bounce is slower.
const NOT_SLOWER: f64 = 0.9;
/// The part of the pair's own ceiling that a direct transfer reaches on a sound machine.
const NEAR_CEILING: f64 = 0.8;
/// The part of the near pair's share of its ceiling that a far pair reaches where the distance costs nothing.
const FAR: f64 = 0.8;
/// The part of a link's ceiling that copies between pinned memory and the GPU reach.
const LINK: f64 = 0.7;
/// Blocks from this size on move bytes, smaller ones move commands.
const LARGE: u32 = 1 << 20;
/// From this part of empty places on a drive is blank.
const BLANK: f64 = 0.5;
/// Another program's figure that is this near to ours is the same.
const SAME: f64 = 0.2;

/// The checks of this file.
pub const CHECKS: &[Check] = &[
    Check {
        id: "bench.direct-slower",
        title: "direct transfers are not slower than copies by the CPU",
        sides: WHERE_GDS_RUNS,
        requires: &["transfer.route"],
        severity: Severity::Minor,
        rationale: "A direct route that is slower than the way through memory takes a detour: another socket, a narrow link, a root port \
                    that splits its transfers.",
        references: &["GDS benchmarking guide: DGX-2, near and far GPUs"],
        covers: &["guide: throughput"],
        run: |context| judge_speed(context, direct_slower),
    },
    Check {
        id: "bench.ceiling",
        title: "direct transfers reach what drive and link can do",
        sides: WHERE_GDS_RUNS,
        requires: &["transfer.route"],
        severity: Severity::Minor,
        rationale: "The slower of the drive by itself and the GPU's link by itself is the ceiling of the pair, measured by the same jobs in \
                    the same run.",
        references: &["GDS benchmarking guide: gdsio -x 0, 1, 2"],
        covers: &["guide: throughput"],
        run: |context| judge_speed(context, ceiling),
    },
    Check {
        id: "bench.far",
        title: "distance costs no speed",
        sides: WHERE_GDS_RUNS,
        requires: &["transfer.route"],
        severity: Severity::Minor,
        rationale: "Across root ports and sockets transfers were seen at 60 % of the near drives' speed.",
        references: &["GDS benchmarking guide: DGX-2, near and far GPUs"],
        covers: &["guide: throughput", "guide: not across sockets"],
        run: |context| judge_speed(context, far),
    },
    Check {
        id: "bench.link-under-load",
        title: "links run at full width and speed while data moves",
        sides: WHERE_GDS_RUNS,
        requires: &[],
        severity: Severity::Minor,
        rationale: "An idle GPU lowers its link, so that only a look under load tells a bad slot from a saving one.",
        references: &["PCI Express: link status", "Linux: Documentation/ABI/testing/sysfs-bus-pci"],
        covers: &["guide: PCIe link", "guide: throughput"],
        run: |context| judge_bench(context, link_under_load),
    },
    Check {
        id: "bench.gpu-link",
        title: "copies to the GPU reach what its link can do",
        sides: WHERE_GDS_RUNS,
        requires: &[],
        severity: Severity::Minor,
        rationale: "Copies between pinned memory and the GPU are the ceiling of its link; 70 % of what the link can carry is little.",
        references: &[
            "PCI Express: 128b/130b coding, 256-byte payloads",
            "nvbandwidth: host_to_device_memcpy_ce",
        ],
        covers: &["guide: throughput"],
        run: |context| judge_speed(context, gpu_link),
    },
    Check {
        id: "bench.drive-speed",
        title: "drives read as fast as is published of their model",
        sides: WHERE_GDS_RUNS,
        requires: &[],
        severity: Severity::Minor,
        rationale: "A drive that is much slower than its model is worn, hot, badly linked, or shared with somebody.",
        references: &["src/checks/published/drives.toml"],
        covers: &["guide: throughput"],
        run: |context| judge_speed(context, drive_speed),
    },
    Check {
        id: "bench.thermal",
        title: "nothing became too hot",
        sides: WHERE_GDS_RUNS,
        requires: &[],
        severity: Severity::Minor,
        rationale: "Hot drives and GPUs slow themselves down.",
        references: &[
            "nvml.h: nvmlClocksEventReasons",
            "Linux: drivers/nvme/host/hwmon.c",
            "NVMe specification: WCTEMP",
        ],
        covers: &["guide: throughput"],
        run: |context| judge_bench(context, thermal),
    },
    Check {
        id: "bench.blank",
        title: "drives were read where they hold something",
        sides: WHERE_GDS_RUNS,
        requires: &[],
        severity: Severity::Info,
        rationale: "A drive answers for what was never written without looking at its flash, faster than it can read.",
        references: &["NVMe specification: deallocated or unwritten logical blocks"],
        covers: &["guide: throughput"],
        run: |context| judge_bench(context, blank),
    },
    Check {
        id: "bench.scratch",
        title: "scratch space could be had where it was asked for",
        sides: WHERE_GDS_RUNS,
        requires: &[],
        severity: Severity::Minor,
        rationale: "Writes need a place where nobody loses anything; without one only reads are measured.",
        references: &["gdsboot: src/bench/scratch"],
        covers: &["guide: transfers"],
        run: |context| judge_bench(context, scratch),
    },
    Check {
        id: "bench.complete",
        title: "all that was planned was measured",
        sides: WHERE_GDS_RUNS,
        requires: &[],
        severity: Severity::Info,
        rationale: "What was left out is not known, and looks like nothing.",
        references: &["gdsboot: src/bench/plan.rs"],
        covers: &["guide: throughput"],
        run: |context| judge_bench(context, complete),
    },
    Check {
        id: "bench.clock",
        title: "the clock stood still under the measurements",
        sides: WHERE_GDS_RUNS,
        requires: &[],
        severity: Severity::Info,
        rationale: "Figures are measured by a clock that nobody sets; the times in logs and in file names are not.",
        references: &["clock_gettime(2): CLOCK_MONOTONIC"],
        covers: &["guide: throughput"],
        run: |context| judge_bench(context, clock),
    },
    Check {
        id: "bench.gdsio",
        title: "gdsio measures the same",
        sides: WHERE_GDS_RUNS,
        requires: &[],
        severity: Severity::Info,
        rationale: "Many know their machines by gdsio's figures. It is no witness of the route: XferType names what was asked for.",
        references: &["GDS benchmarking guide: gdsio"],
        covers: &["guide: throughput"],
        run: |context| judge_bench(context, gdsio),
    },
    Check {
        id: "bench.workloads",
        title: "the operator's own programs kept their rules",
        sides: WHERE_GDS_RUNS,
        requires: &[],
        severity: Severity::Major,
        rationale: "What a machine is for is known to its operator: a program, and the rule by which it passes.",
        references: &["gdsboot.toml: [[workload]]"],
        covers: &["guide: workloads"],
        run: |context| judge_bench(context, workloads),
    },
];

/// Judges a speed, where there is one.
fn judge_speed(context: &Context<'_>, judge: fn(&Context<'_>, &Results) -> Outcome) -> Outcome {
    match is_emulated(context) {
        true => Outcome::not_applicable("QEMU emulates the CPU: no speed means anything"),
        false => judge_bench(context, judge),
    }
}

/// Figures that count, of one kind.
fn figures(bench: &Results, kind: Kind) -> impl Iterator<Item = &Measurement> {
    bench.measurements.iter().filter(move |m| m.kind == kind && m.counts() && m.purpose == Purpose::Figures)
}

/// The same transfers in another way.
fn same<'a>(bench: &'a Results, kind: Kind, of: &'a Measurement) -> Option<&'a Measurement> {
    let is_same = |m: &&Measurement| {
        m.job.direction == of.job.direction
            && m.job.order == of.job.order
            && (m.job.block, m.job.threads, m.job.depth) == (of.job.block, of.job.threads, of.job.depth)
            && m.drive == of.drive
            && (kind == Kind::Storage || m.gpu == of.gpu)
    };
    figures(bench, kind).find(is_same)
}

/// The best that a GPU's link did in a direction, in GiB/s.
fn link_speed(bench: &Results, gpu: Option<&String>, direction: Direction) -> Option<f64> {
    let of_gpu =
        figures(bench, Kind::HostCopy).filter(|m| m.gpu.as_ref() == gpu && m.job.direction == direction);
    of_gpu.map(|m| m.figures.gib_per_second).reduce(f64::max)
}

/// Direct transfers: figures of pairs whose route is proven.
fn direct(bench: &Results) -> Vec<&Measurement> {
    let is_direct = |m: &&Measurement| m.proof.as_ref().is_some_and(|proof| proof.outcome == Proven::Direct);
    figures(bench, Kind::Cufile).filter(is_direct).collect()
}

fn pair_of<'a>(bench: &'a Results, m: &Measurement) -> Option<&'a Pair> {
    bench.pairs.iter().find(|pair| Some(&pair.gpu) == m.gpu.as_ref() && Some(&pair.drive) == m.drive.as_ref())
}

fn place(m: &Measurement) -> String {
    about(m.gpu.as_ref(), m.drive.as_ref())
}

/// Fails where some of what is judged is slow, and says how much of it there is; `None` of `judged` is nothing to judge.
fn verdict(judged: usize, slow: Vec<(String, String)>, good: &str, nothing: &str) -> Outcome {
    if judged == 0 {
        return Outcome::not_applicable(nothing);
    }
    let Some((first, why)) = slow.first() else { return Outcome::pass(good) };
    let more = if slow.len() > 1 { format!(" (and {} more)", slow.len() - 1) } else { String::new() };
    let outcome = Outcome::fail(format!("{first}: {why}{more}"));
    slow.iter().take(SHOWN).fold(outcome, |outcome, (from, why)| outcome.evidence(from, why))
}

fn direct_slower(_: &Context<'_>, bench: &Results) -> Outcome {
    let both: Vec<_> =
        direct(bench).into_iter().filter_map(|m| Some((m, same(bench, Kind::Bounce, m)?))).collect();
    // Small ones are commands: there the bounce saves cuFile's own work, and nobody uses them for bytes.
    let large: Vec<_> = both.iter().filter(|(m, _)| m.job.block >= LARGE).collect();
    let rate = |m: &Measurement| m.figures.gib_per_second;
    let slow = large.iter().filter(|(direct, bounce)| rate(direct) < rate(bounce) * NOT_SLOWER).map(
        |(direct, bounce)| {
            let why = format!(
                "{}: {:.2} GiB/s direct, {:.2} GiB/s through memory",
                direct.job,
                rate(direct),
                rate(bounce)
            );
            (place(direct), why)
        },
    );
    let slow: Vec<_> = slow.collect();
    let cpu = |m: &Measurement| m.figures.cpu_seconds_per_gib;
    let sums = large.iter().fold((0.0, 0.0), |(d, b), (direct, bounce)| (d + cpu(direct), b + cpu(bounce)));
    let count = large.len().max(1) as f64;
    let good = format!(
        "direct transfers are as fast as the bounce, for {:.3} instead of {:.3} CPU seconds per GiB",
        sums.0 / count,
        sums.1 / count
    );
    verdict(large.len(), slow, &good, "no direct transfer was measured beside a bounce")
        .remedy_if_failed(Remedy::new(Who::Hardware, "use a drive below the same PCIe switch or root port as the GPU"))
        .remedy_if_failed(Remedy::new(
            Who::Hypervisor,
            "let peer-to-peer transfers take the short way: ATS on the drive and ACS that lets translated requests pass",
        ))
}

fn ceiling(_: &Context<'_>, bench: &Results) -> Outcome {
    let mut judged = 0;
    let mut slow = Vec::new();
    for m in direct(bench) {
        let is_near = pair_of(bench, m).is_none_or(|pair| pair.near);
        let alone = same(bench, Kind::Storage, m).map(|m| m.figures.gib_per_second);
        let link = link_speed(bench, m.gpu.as_ref(), m.job.direction);
        if m.job.block < LARGE || m.job.order != Order::Sequential || !is_near {
            continue;
        }
        let Some(alone) = alone else { continue };
        judged += 1;
        let (least, of) = match link {
            Some(link) if link < alone => (link, "its link alone"),
            _ => (alone, "the drive alone"),
        };
        let rate = m.figures.gib_per_second;
        if rate < least * NEAR_CEILING {
            slow.push((place(m), format!("{}: {rate:.2} of {least:.2} GiB/s that {of} does", m.job)));
        }
    }
    verdict(
        judged,
        slow,
        "direct transfers reach the pair's ceiling",
        "no ceiling was measured beside a direct transfer",
    )
    .remedy_if_failed(Remedy::new(
        Who::Guest,
        "give cuFile more threads or larger transfers, and see which figure of the table grows",
    ))
    .remedy_if_failed(Remedy::new(
        Who::Hardware,
        "look at the link between drive and GPU: switch, root port, riser",
    ))
}

fn far(_: &Context<'_>, bench: &Results) -> Outcome {
    // Drives differ: what counts is which part of its own speed each reaches.
    let share = |m: &Measurement| {
        Some(m.figures.gib_per_second / same(bench, Kind::Storage, m)?.figures.gib_per_second)
    };
    let of = |near: bool| {
        let all =
            direct(bench).into_iter().filter(|m| m.job.block >= LARGE && m.job.direction == Direction::Read);
        all.filter(move |m| pair_of(bench, m).is_some_and(|pair| pair.near == near))
    };
    let mut judged = 0;
    let mut slow = Vec::new();
    for m in of(false) {
        let Some(near) = of(true).find(|near| near.gpu == m.gpu && is_same_shape(&near.job, &m.job)) else {
            continue;
        };
        let (Some(there), Some(here)) = (share(m), share(near)) else { continue };
        judged += 1;
        if there < here * FAR {
            let label = |m: &Measurement| {
                pair_of(bench, m).and_then(|pair| pair.distance.clone()).unwrap_or_else(|| "unknown".into())
            };
            let why = format!(
                "{:.0} % of the drive's own speed at the distance {}, {:.0} % at {}",
                there * 100.0,
                label(m),
                here * 100.0,
                label(near)
            );
            slow.push((place(m), why));
        }
    }
    verdict(judged, slow, "far drives are as fast as near ones", "no far pair was measured beside a near one")
        .remedy_if_failed(Remedy::new(Who::Guest, "let each GPU read from the drives that are near to it"))
        .remedy_if_failed(Remedy::new(
            Who::Hardware,
            "spread the drives over the sockets, near to the GPUs that use them",
        ))
}

fn is_same_shape(one: &Job, other: &Job) -> bool {
    one.order == other.order
        && (one.block, one.threads, one.depth) == (other.block, other.threads, other.depth)
}

fn link_under_load(context: &Context<'_>, bench: &Results) -> Outcome {
    let mut seen: Vec<(&str, LinkState)> = Vec::new();
    let drive_address = |name: &String| bench.drives.iter().find(|drive| drive.name == *name)?.pci.as_deref();
    for m in &bench.measurements {
        let gpu = m.gpu.as_deref().zip(m.state.gpu_link);
        let drive = m.drive.as_ref().and_then(drive_address).zip(m.state.drive_link);
        for (address, link) in gpu.into_iter().chain(drive) {
            match seen.iter_mut().find(|(known, _)| *known == address) {
                Some((_, best)) if link.ceiling() > best.ceiling() => *best = link,
                Some(_) => {}
                None => seen.push((address, link)),
            }
        }
    }
    if seen.is_empty() {
        return Outcome::not_applicable("no link was seen under load");
    }
    let words = |link: &LinkState| {
        format!("{:.1} GT/s x{} of {:.1} GT/s x{}", link.speed, link.width, link.speed_max, link.width_max)
    };
    let slot = |address: &str| slot_limits(context, address);
    let (mut bad, mut odd) = (Vec::new(), Vec::new());
    for (address, link) in &seen {
        let (speed, width) = slot(address);
        let possible = |of: f64, limit: Option<f64>| limit.map_or(of, |limit| of.min(limit));
        let is_narrow = f64::from(link.width) < possible(f64::from(link.width_max), width);
        // A guest's ports are made up, so that its slots' speed is not known.
        let is_slow = link.speed < possible(link.speed_max, speed) && context.side != Side::Guest;
        if is_narrow || is_slow {
            bad.push(((*address).to_owned(), words(link)));
        } else if link.is_downgraded() {
            odd.push(((*address).to_owned(), format!("{}, which is the slot's limit", words(link))));
        }
    }
    if let (true, Some((address, why))) = (bad.is_empty(), odd.first()) {
        return Outcome::note(format!("{address}: {why}")).evidence(address, why);
    }
    verdict(seen.len(), bad, "every link ran at full width and speed under load", "")
        .remedy_if_failed(Remedy::new(
            Who::Hardware,
            "reseat the device, check the riser and its cables, and use a slot with all lanes",
        ))
        .remedy_if_failed(Remedy::new(Who::Bios, "check the slot's bifurcation and link speed settings"))
}

/// The most that the port above a device can do: GT/s and lanes, where that is the real port.
fn slot_limits(context: &Context<'_>, address: &str) -> (Option<f64>, Option<f64>) {
    if context.side == Side::Guest {
        return (None, None);
    }
    let places = Places::new(context.facts);
    let port = || -> Option<&PciDevice> {
        let device = places.device(address)?;
        places.device(places.of(device)?.bridges.last()?)
    };
    let port = port();
    let speed = port.and_then(|port| port.link_speed_max.value()?.split_whitespace().next()?.parse().ok());
    let width = port.and_then(|port| port.link_width_max.value()).filter(|width| (1..=32).contains(*width));
    (speed, width.map(|width| f64::from(*width)))
}

fn gpu_link(context: &Context<'_>, bench: &Results) -> Outcome {
    const GIB: f64 = (1_u64 << 30) as f64;
    let mut judged = 0;
    let mut slow = Vec::new();
    for seen in &bench.gpus {
        let pci = &seen.gpu.pci;
        let device = context.pci().iter().find(|device| device.address == *pci);
        let published =
            device.and_then(|device| published::gpu(&format!("{:04x}", device.device.value()?.0)));
        let link = bench
            .measurements
            .iter()
            .filter(|m| m.gpu.as_ref() == Some(pci))
            .filter_map(|m| m.state.gpu_link);
        let link = link.max_by(|a, b| a.ceiling().total_cmp(&b.ceiling()));
        for direction in [Direction::Read, Direction::Write] {
            let Some(rate) = link_speed(bench, Some(pci), direction) else { continue };
            let words = if direction == Direction::Read { "to the GPU" } else { "from the GPU" };
            if let Some(link) = link {
                judged += 1;
                if rate < link.ceiling() * LINK {
                    let why =
                        format!("{rate:.1} GiB/s {words}, of {:.1} that its link carries", link.ceiling());
                    slow.push((pci.clone(), why));
                    continue;
                }
            }
            if let Some(published) = published {
                judged += 1;
                if rate * GIB < published.copy {
                    let least = published.copy / GIB;
                    slow.push((
                        pci.clone(),
                        format!("{rate:.1} GiB/s {words}; {least:.1} are demanded ({})", published.source),
                    ));
                }
            }
        }
    }
    verdict(
        judged,
        slow,
        "copies to and from the GPUs are as fast as their links",
        "no link is known beside a copy",
    )
    .remedy_if_failed(Remedy::new(
        Who::VmConfiguration,
        "put the virtual CPUs and the memory on the GPU's NUMA node",
    ))
    .remedy_if_failed(Remedy::new(Who::Hardware, "check the GPU's slot, and what else shares its root port"))
}

fn drive_speed(_: &Context<'_>, bench: &Results) -> Outcome {
    let mut judged = 0;
    let mut slow = Vec::new();
    for drive in &bench.drives {
        let Some((known, share)) = drive.model.as_deref().and_then(published::drive) else { continue };
        let reads = || {
            figures(bench, Kind::Storage)
                .filter(|m| m.drive.as_ref() == Some(&drive.name) && m.job.direction == Direction::Read)
        };
        let best = reads().map(|m| m.figures.gib_per_second * f64::from(1 << 30)).reduce(f64::max);
        // A link that is narrower than the drive is another finding's.
        let link = reads()
            .filter_map(|m| m.state.drive_link)
            .map(|link| link.ceiling() * f64::from(1 << 30))
            .reduce(f64::max);
        let wanted = link.map_or(known.read, |link| link.min(known.read)) * share;
        let Some(best) = best else { continue };
        judged += 1;
        if best < wanted {
            let why = format!(
                "reads {:.2} GB/s, where {:.1} are published for the {} ({})",
                best / 1e9,
                known.read / 1e9,
                known.name,
                known.source
            );
            slow.push((drive.name.clone(), why));
        }
    }
    verdict(
        judged,
        slow,
        "drives are as fast as is published of them",
        "nothing is published of these models here",
    )
    .remedy_if_failed(
        Remedy::new(Who::Guest, "look at its health, its temperature, and who else uses it")
            .command("nvme smart-log /dev/nvme0"),
    )
    .remedy_if_failed(Remedy::new(Who::Hardware, "cool it, reseat it, or replace it"))
}

fn thermal(_: &Context<'_>, bench: &Results) -> Outcome {
    let (mut judged, mut hot) = (0, Vec::new());
    let mut add = |from: String, why: String| {
        if !hot.contains(&(from.clone(), why.clone())) {
            hot.push((from, why));
        }
    };
    for m in &bench.measurements {
        let state = &m.state;
        judged += usize::from(state.gpu_celsius.is_some() || state.drive_celsius.is_some());
        let slowed: Vec<&str> =
            state.gpu_slowed.iter().map(String::as_str).filter(|word| is_heat(word)).collect();
        if let (Some(gpu), false) = (&m.gpu, slowed.is_empty()) {
            let celsius = state
                .gpu_celsius
                .map_or(String::new(), |celsius| format!(" at {celsius:.0} degrees Celsius"));
            add(gpu.clone(), format!("the GPU slowed itself down{celsius} ({})", slowed.join(", ")));
        }
        if let (Some(drive), Some(is), Some(limit)) =
            (&m.drive, state.drive_celsius, state.drive_limit_celsius)
            && is >= limit
        {
            add(
                drive.clone(),
                format!("the drive had {is:.0} degrees Celsius, and warns from {limit:.0} on"),
            );
        }
    }
    verdict(judged, hot, "no GPU and no drive was slowed down by heat", "no temperature was seen")
        .remedy_if_failed(Remedy::new(
            Who::Hardware,
            "see to the air flow: fans, filters, blanking panels, the drives' carriers",
        ))
}

/// Reasons of NVML's for slow clocks that have to do with heat or with the power supply.
fn is_heat(word: &str) -> bool {
    word.contains("thermal") || matches!(word, "hw_slowdown" | "hw_power_brake_slowdown")
}

fn blank(_: &Context<'_>, bench: &Results) -> Outcome {
    let known: Vec<_> = bench.drives.iter().filter_map(|drive| Some((drive, drive.blank?))).collect();
    let blank: Vec<_> = known.iter().filter(|(_, part)| *part >= BLANK).collect();
    match (known.len(), blank.first()) {
        (0, _) => Outcome::not_applicable("what the drives hold was not looked at"),
        (_, None) => Outcome::pass("the drives hold data where they were read"),
        (_, Some((drive, part))) => {
            let more = if blank.len() > 1 {
                format!(" (and {} more drives)", blank.len() - 1)
            } else {
                String::new()
            };
            let outcome = Outcome::note(format!(
                "{:.0} % of {} was never written{more}: it may answer for that faster than it can read",
                part * 100.0,
                drive.name
            ));
            blank.iter().take(SHOWN).fold(outcome, |outcome, (drive, part)| {
                outcome.evidence(drive.name.clone(), format!("{:.0} % blank", part * 100.0))
            })
        }
    }
}

fn scratch(_: &Context<'_>, bench: &Results) -> Outcome {
    let failed: Vec<_> =
        bench.not_done.iter().filter(|not| not.what == SCRATCH || not.cause == Cause::Room).collect();
    if !failed.is_empty() {
        return tell(|not, more| format!("there is no scratch space, so that nothing was written: {}{more}", not.why), &failed)
            .remedy(Remedy::new(
                Who::Guest,
                "name a folder on a filesystem with room that can be written to, or a blank disk by its serial number",
            ));
    }
    match bench.drives.iter().any(|drive| drive.level != crate::bench::results::Level::ReadOnly) {
        true => Outcome::pass("there was scratch space"),
        false => Outcome::not_applicable("no scratch space was asked for: drives were only read"),
    }
}

fn complete(_: &Context<'_>, bench: &Results) -> Outcome {
    let left = not_done(bench, &[Cause::Size, Cause::Time, Cause::Refused, Cause::Library]);
    let planned = format!("planned {:.0} s, took {:.0} s", bench.planned_seconds, bench.seconds);
    let Some(first) = left.first() else {
        return match bench.measurements.iter().filter(|m| m.bytes == 0 && m.errors == 0).count() {
            0 => Outcome::pass(format!("all of it was measured: {planned}")),
            count => Outcome::note(format!(
                "{count} of {} measurements have no figures, because no transfer came to its end in their time: ask for more \
                 with bench_seconds; {planned}",
                bench.measurements.len()
            )),
        };
    };
    let place = about(first.gpu.as_ref(), first.drive.as_ref());
    let place = if place.is_empty() { place } else { format!(" ({place})") };
    let more = if left.len() > 1 { format!(" (and {} more)", left.len() - 1) } else { String::new() };
    let outcome =
        Outcome::note(format!("left out: {}{place}, because {}{more}; {planned}", first.what, first.why));
    left.iter().take(SHOWN).fold(outcome, |outcome, not| {
        outcome.evidence(
            format!("{} {}", about(not.gpu.as_ref(), not.drive.as_ref()), not.what),
            not.why.clone(),
        )
    })
}

fn clock(_: &Context<'_>, bench: &Results) -> Outcome {
    match bench.clock_set_seconds {
        set if set.abs() >= 1.0 => Outcome::note(format!(
            "the machine's clock was set by {set:+.0} s while the benchmark ran; figures do not depend on it, times in the report do"
        )),
        _ => Outcome::pass("nobody set the clock"),
    }
}

fn gdsio(_: &Context<'_>, bench: &Results) -> Outcome {
    if bench.gdsio.is_empty() && bench.gdsio_verified.is_empty() {
        return Outcome::not_applicable("gdsio was not run beside the benchmark");
    }
    let measured = bench.gdsio.iter().map(|ran| (ran.command.clone(), ran.words()));
    let verified = bench.gdsio_verified.iter().map(|ran| (ran.command.clone(), ran.words()));
    let words: Vec<_> = measured.chain(verified).take(SHOWN).collect();
    let all = |outcome: Outcome| {
        words.iter().fold(outcome, |outcome, (command, words)| outcome.evidence(command, words))
    };
    if let Some(failed) = bench.gdsio.iter().find(|ran| ran.error.is_some()) {
        return all(Outcome::note(format!("gdsio gave no figures: {}", failed.words())));
    }
    if let Some(failed) = bench.gdsio_verified.iter().find(|ran| ran.error.is_some()) {
        return all(Outcome::note(format!("gdsio_verify compared nothing: {}", failed.words())));
    }
    // The same block size, in the direct mode.
    let pairs = bench.gdsio.iter().filter_map(|ran| {
        let result =
            ran.run.results.iter().find(|result| result.xfer_type == "GPUD" && result.io_type == "READ")?;
        let ours = figures(bench, Kind::Cufile).find(|m| {
            m.gpu.as_ref() == Some(&ran.gpu)
                && m.drive.as_ref() == Some(&ran.drive)
                && m.job.direction == Direction::Read
                && m.job.block >= LARGE
        })?;
        Some((result.throughput?, ours.figures.gib_per_second))
    });
    let apart: Vec<(f64, f64)> =
        pairs.filter(|(its, ours)| (its - ours).abs() > SAME * its.max(*ours)).collect();
    match apart.first() {
        None => all(Outcome::pass("gdsio's figures are like these")),
        Some((its, ours)) => all(Outcome::note(format!(
            "gdsio measured {its:.2} GiB/s where this benchmark measured {ours:.2}"
        ))),
    }
}

fn workloads(_: &Context<'_>, bench: &Results) -> Outcome {
    let failed: Vec<_> = bench
        .workloads
        .iter()
        .filter(|ran| ran.ran && !ran.passed)
        .map(|ran| (ran.name.clone(), ran.why.clone()))
        .collect();
    if let (true, Some(left)) = (failed.is_empty(), bench.workloads.iter().find(|ran| !ran.ran)) {
        return Outcome::unknown(format!("{}: {}", left.name, left.why));
    }
    verdict(bench.workloads.len(), failed, "every workload kept its rule", "no workload is configured")
        .remedy_if_failed(Remedy::new(
            Who::Guest,
            "see the program's output in the report, and the rule in gdsboot.toml",
        ))
}

#[cfg(test)]
mod tests;
