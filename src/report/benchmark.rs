//! What the benchmark found, for people: lines of text, and bars that put direct transfers beside the bounce and the drive
//! alone.

use super::layout::{WIDTH, binary_size, clean, cut, wrap};
use crate::bench::results::{Attempt, Drive, Kind, Level, Measurement, Pair, Purpose, Results, State};
use crate::bench::route::Outcome;
use crate::bench::table;
use crate::bench::transfer::job::Job;
use crate::bench::worker::settings::Wanted;
use minijinja::HtmlEscape;
use serde::Serialize;
use std::fmt::Write as _;

/// Sizes of the bars, in pixels.
const LABEL: usize = 250;
const BAR: usize = 360;
const LINE: usize = 22;
const FIGURES: usize = 190;
/// More bars are for programs: the JSON has all figures.
const BARS: usize = 120;

/// The section's lines of text, 80 columns wide.
pub fn lines(bench: &Results) -> Vec<String> {
    let mut out = vec![format!(
        "  {} plan: {:.0} s planned, {:.0} s taken",
        bench.thoroughness.word(),
        bench.planned_seconds,
        bench.seconds
    )];
    for seen in &bench.gpus {
        let cufile = seen.cufile.as_ref().and_then(|cufile| cufile.version.as_deref());
        let cufile = cufile.map_or(String::new(), |version| format!(", libcufile {version}"));
        out.extend(wrap("  GPU   ", &format!("{} {}{cufile}", seen.gpu.pci, seen.gpu.name)));
    }
    out.extend(bench.drives.iter().flat_map(|drive| wrap("  drive ", &drive_words(drive))));
    for pair in &bench.pairs {
        out.push(String::new());
        out.extend(wrap("  ", &pair_words(pair)));
        out.extend(pair.attempts.iter().flat_map(attempt_lines));
    }
    for group in groups(bench) {
        out.push(String::new());
        out.push(cut(&format!("  {}", group.name), WIDTH));
        out.push(table::heading());
        for (job, measurements) in group.jobs {
            out.push(format!("  {}", job_words(&job)));
            for m in measurements {
                out.extend(
                    table::lines(&format!("    {}", table::label(m)), m).iter().map(|line| cut(line, WIDTH)),
                );
            }
        }
        out.extend(state_words(&group.state).iter().flat_map(|words| wrap("    ", words)));
    }
    for ran in &bench.gdsio {
        out.push(String::new());
        out.extend(wrap("  gdsio: ", &ran.words()));
        out.extend(wrap("    $ ", &ran.command));
    }
    for ran in &bench.gdsio_verified {
        out.push(String::new());
        out.extend(wrap("  gdsio_verify: ", &ran.words()));
        out.extend(wrap("    $ ", &ran.command));
    }
    for ran in &bench.workloads {
        out.push(String::new());
        let word = match (ran.ran, ran.passed) {
            (true, true) => "passed",
            (true, false) => "FAILED",
            (false, _) => "unknown",
        };
        out.extend(wrap("  workload ", &format!("{}: {word}, {} ({:.1} s)", ran.name, ran.why, ran.seconds)));
        out.extend(wrap("    $ ", &ran.command));
        out.extend(
            ran.output
                .lines()
                .rev()
                .take(8)
                .collect::<Vec<_>>()
                .iter()
                .rev()
                .map(|line| cut(&format!("    | {line}"), WIDTH)),
        );
    }
    if !bench.not_done.is_empty() {
        out.push(String::new());
        out.push("  Not done".into());
        for not in &bench.not_done {
            let about: Vec<&str> = [&not.gpu, &not.drive].into_iter().flatten().map(String::as_str).collect();
            let about = if about.is_empty() { String::new() } else { format!(" ({})", about.join(", ")) };
            out.extend(wrap("  - ", &format!("{}{about}: {}", not.what, not.why)));
        }
    }
    out
}

fn drive_words(drive: &Drive) -> String {
    let level = match drive.level {
        Level::ReadOnly => "only read",
        Level::TemporaryFile => "a temporary file is written",
        Level::Blank => "written; it was blank",
        Level::Wiped => "written; what it held was given up",
    };
    let model = drive.model.as_deref().map_or(String::new(), |model| format!(" {model}"));
    format!("{}{model}, {}, {level}", drive.name, binary_size(drive.bytes))
}

/// A pair and what is proven of it.
fn pair_words(pair: &Pair) -> String {
    let distance = pair.distance.as_deref().map_or(String::new(), |distance| format!(" ({distance})"));
    format!("{} and {}{distance}: {}", pair.drive, pair.gpu, outcome_words(pair))
}

/// What is proven of a pair, in a few words.
pub fn outcome_words(pair: &Pair) -> String {
    let Some(best) = pair.best() else { return "not tried".into() };
    let route = best.proof.route.map_or_else(|| "direct".to_owned(), |route| route.to_string());
    let part = best.proof.bounced.map_or(String::new(), |part| format!(", {:.1} % by the CPU", part * 100.0));
    match best.proof.outcome {
        Outcome::Direct => format!("DIRECT by {route}"),
        Outcome::Mixed => format!("PARTLY {route}{part}"),
        Outcome::Compat => "COPIED BY THE CPU".into(),
        Outcome::Unproven => "NOT PROVEN".into(),
    }
}

fn attempt_lines(attempt: &Attempt) -> Vec<String> {
    let wanted = match attempt.settings.wanted {
        Wanted::Nvfs => "nvidia-fs alone",
        Wanted::P2pdma => "P2PDMA allowed",
        Wanted::Compat => "copies by the CPU",
        Wanted::Any => "all allowed",
    };
    let asked = if attempt.settings.allows_compat() { "" } else { ", copies by the CPU forbidden" };
    let mut lines = wrap("    ", &format!("{wanted}{asked}: {}", attempt_words(attempt)));
    let proof = &attempt.proof;
    lines.extend(proof.evidence.iter().flat_map(|said| wrap("      + ", said)));
    lines.extend(proof.lacks.iter().flat_map(|said| wrap("      - ", said)));
    lines
}

fn attempt_words(attempt: &Attempt) -> String {
    let outcome = match attempt.proof.outcome {
        Outcome::Direct => "direct",
        Outcome::Mixed => "partly direct",
        Outcome::Compat => "copied by the CPU",
        Outcome::Unproven => "not proven",
    };
    match &attempt.error {
        Some(error) => format!("{outcome}; {error}"),
        None => outcome.to_owned(),
    }
}

fn job_words(job: &Job) -> String {
    format!("{job}{}", job.limit().map_or(String::new(), |limit| format!(", {:.1} s", limit.as_secs_f64())))
}

/// Temperatures and links under load.
fn state_words(state: &State) -> Option<String> {
    let mut words = Vec::new();
    if let Some(celsius) = state.gpu_celsius {
        words.push(format!("GPU {celsius:.0} C"));
    }
    if !state.gpu_slowed.is_empty() {
        words.push(format!("GPU slowed: {}", state.gpu_slowed.join(", ")));
    }
    let mut link = |name: &str, link: Option<crate::bench::results::LinkState>| {
        if let Some(link) = link {
            words.push(format!(
                "{name} link {:.1} GT/s x{} ({:.1} GiB/s)",
                link.speed,
                link.width,
                link.ceiling()
            ));
        }
    };
    link("GPU", state.gpu_link);
    link("drive", state.drive_link);
    if let Some(celsius) = state.drive_celsius {
        let limit = state.drive_limit_celsius.map_or(String::new(), |limit| format!(" of {limit:.0}"));
        words.push(format!("drive {celsius:.0}{limit} C"));
    }
    (!words.is_empty()).then(|| words.join("; "))
}

/// Measurements of one GPU, one drive, or a pair.
struct Group<'a> {
    name: String,
    /// By job, in the order in which they were made; the drive's and the link's own ones beside those of a pair.
    jobs: Vec<(Job, Vec<&'a Measurement>)>,
    state: State,
}

/// The measurements whose figures count, pairs with the drive alone in the same job.
fn groups(bench: &Results) -> Vec<Group<'_>> {
    let mut names: Vec<(Option<&str>, Option<&str>)> = Vec::new();
    for m in bench.measurements.iter().filter(|m| shown(m)) {
        let name = (m.gpu.as_deref(), m.drive.as_deref());
        if !names.contains(&name) {
            names.push(name);
        }
    }
    // A drive that is part of a pair stands there.
    let in_pair = |drive: Option<&str>| names.iter().any(|(gpu, other)| gpu.is_some() && *other == drive);
    let kept = names.iter().filter(|(gpu, drive)| gpu.is_some() || !in_pair(*drive));
    kept.map(|&(gpu, drive)| {
        let own: Vec<&Measurement> = bench.of(gpu, drive).filter(|m| shown(m)).collect();
        let alone = bench.of(None, drive).filter(|m| shown(m) && gpu.is_some() && drive.is_some());
        let mut jobs: Vec<(Job, Vec<&Measurement>)> = Vec::new();
        for m in alone.chain(own.iter().copied()) {
            match jobs.iter_mut().find(|(job, _)| is_same(job, &m.job)) {
                Some((_, all)) => all.push(m),
                None => jobs.push((m.job.clone(), vec![m])),
            }
        }
        let pair = bench.pairs.iter().find(|pair| Some(&*pair.gpu) == gpu && Some(&*pair.drive) == drive);
        let states: Vec<State> = own.iter().map(|m| m.state.clone()).collect();
        let name = match (gpu, drive, pair) {
            (.., Some(pair)) => pair_words(pair),
            (Some(gpu), Some(drive), None) => format!("{drive} and {gpu}"),
            (gpu, drive, None) => gpu.or(drive).unwrap_or_default().to_owned(),
        };
        Group { name, jobs, state: crate::bench::state::summary(&states) }
    })
    .collect()
}

fn shown(m: &Measurement) -> bool {
    matches!(m.purpose, Purpose::Figures | Purpose::Load | Purpose::Together)
}

fn is_same(one: &Job, other: &Job) -> bool {
    one.direction == other.direction
        && one.order == other.order
        && (one.block, one.threads, one.depth) == (other.block, other.threads, other.depth)
}

/// A pair's figures as the page shows them.
#[derive(Debug, Serialize)]
pub struct Bars {
    /// The pair and its route.
    pub name: String,
    /// Bars for each job, as SVG.
    pub svg: String,
    /// Temperatures and links.
    pub state: Option<String>,
}

/// The bars of all groups.
pub fn bars(bench: &Results) -> Vec<Bars> {
    let mut left = BARS;
    let groups = groups(bench).into_iter().map(|group| {
        let state = state_words(&group.state).map(|words| clean(&words));
        let svg = svg(&group, &mut left);
        Bars { name: clean(&group.name), svg, state }
    });
    groups.filter(|bars| !bars.svg.is_empty()).collect()
}

/// Bars of GiB/s, the longest of a job as long as there is room; CPU seconds per GiB and latency stand behind them.
fn svg(group: &Group<'_>, left: &mut usize) -> String {
    let count: usize = group.jobs.iter().map(|(_, all)| all.len() + 1).sum();
    if count > *left || count == 0 {
        return String::new();
    }
    *left -= count;
    let (width, height) = (LABEL + BAR + FIGURES, count * LINE + 4);
    let mut out = format!(
        "<svg viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\" aria-label=\"figures\" \
         font-family=\"system-ui, sans-serif\" font-size=\"12\">"
    );
    let mut y = 0;
    for (job, all) in &group.jobs {
        let _ = write!(
            out,
            "<text x=\"0\" y=\"{}\" font-weight=\"600\">{}</text>",
            y + 16,
            HtmlEscape(&job_words(job))
        );
        y += LINE;
        let most = all.iter().map(|m| m.figures.gib_per_second).fold(f64::MIN_POSITIVE, f64::max);
        for m in all {
            let figures = &m.figures;
            let long = (figures.gib_per_second / most * BAR as f64).round();
            let fill = match m.kind {
                Kind::Storage | Kind::HostCopy => "#c3c9d2",
                Kind::Bounce => "#e2b76b",
                Kind::Cufile | Kind::CufileBatch | Kind::CufileStream if is_direct(m) => "#6fb483",
                Kind::Cufile | Kind::CufileBatch | Kind::CufileStream => "#d98a7e",
            };
            let _ = write!(
                out,
                "<text x=\"12\" y=\"{text}\">{label}</text><rect x=\"{LABEL}\" y=\"{bar}\" width=\"{long}\" height=\"14\" \
                 fill=\"{fill}\"/><text x=\"{figures_at}\" y=\"{text}\">{rate:.2} GiB/s, {cpu:.3} CPU s/GiB</text>",
                text = y + 15,
                bar = y + 4,
                label = HtmlEscape(&bar_label(m)),
                figures_at = LABEL + BAR + 8,
                rate = figures.gib_per_second,
                cpu = figures.cpu_seconds_per_gib,
            );
            y += LINE;
        }
    }
    out.push_str("</svg>");
    out
}

fn is_direct(m: &Measurement) -> bool {
    m.proof.as_ref().is_some_and(|proof| proof.outcome == Outcome::Direct)
}

/// cuFile's figures say what they prove.
fn bar_label(m: &Measurement) -> String {
    let label = table::label(m);
    match &m.proof {
        Some(proof) if proof.outcome == Outcome::Direct => {
            format!("{label}, {}", proof.route.map_or_else(|| "direct".into(), |route| route.to_string()))
        }
        Some(proof) if proof.outcome == Outcome::Compat => format!("{label}, copied by the CPU"),
        Some(proof) if proof.outcome == Outcome::Mixed => format!("{label}, partly copied"),
        Some(_) => format!("{label}, not proven"),
        None => label,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::{Cause, GdsioMeasured, GdsioVerified, NotDone, WorkloadResult};
    use crate::bench::testing::healthy;

    fn bench() -> Results {
        let mut bench = healthy("0000:06:00.0", "0000:07:00.0");
        bench.gdsio.push(GdsioMeasured {
            command: "gdsio -f /mnt/x -d 0 -w 4 -s 1G -i 1M -I 0 -x 0 -T 2".into(),
            error: Some("killed after 30 s".into()),
            ..GdsioMeasured::default()
        });
        bench.gdsio_verified.push(GdsioVerified {
            command: "gdsio_verify -f /mnt/x -d 0 -o 0 -s 262144K -c 16384K -n 1 -m 1".into(),
            bytes: 256 << 20,
            ..GdsioVerified::default()
        });
        bench.workloads.push(WorkloadResult {
            name: "wake".into(),
            ran: true,
            command: "/opt/wake --gpu 0".into(),
            why: "2.1 s is more than 2".into(),
            output: "loading\nwoken in 2.1 s\n".into(),
            ..WorkloadResult::default()
        });
        bench.not_done.push(NotDone {
            what: "read sequential 16 MiB, 4 x 2".into(),
            gpu: None,
            drive: Some("nvme0n1".into()),
            cause: Cause::Size,
            why: "too small".into(),
        });
        bench
    }

    #[test]
    fn the_whole_section() {
        let lines = lines(&bench());
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH), "{lines:#?}");
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn bars_stand_side_by_side() {
        let bars = bars(&bench());
        // The link, the near pair, the far pair.
        assert_eq!(bars.len(), 3);
        let pair = &bars[1];
        assert_eq!(pair.name, "nvme0n1 and 0000:06:00.0 (PIX): DIRECT by nvfs");
        for words in
            ["drive alone", ">bounce<", "cuFile, nvfs", "6.40 GiB/s, 0.006 CPU s/GiB", "16.0 GiB in 2.50 s"]
        {
            assert!(pair.svg.contains(words), "{words}: {}", pair.svg);
        }
        assert_eq!(pair.svg.matches("<rect ").count(), 7);
    }

    #[test]
    fn hostile_names_are_text() {
        let mut bench = bench();
        let name = "/mnt/<script>\x1b[2J".to_owned();
        bench.drives[0].name.clone_from(&name);
        bench.pairs[0].drive.clone_from(&name);
        for m in bench.measurements.iter_mut().filter(|m| m.drive.as_deref() == Some("nvme0n1")) {
            m.drive = Some(name.clone());
        }
        assert!(!lines(&bench).join("\n").contains('\x1b'));
        assert!(bars(&bench).iter().all(|bars| !bars.svg.contains("<script") && !bars.name.contains('\x1b')));
    }
}
