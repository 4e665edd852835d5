//! Measurements as lines of text, 80 columns wide.

use super::results::{Measurement, Purpose};
use super::worker::settings::Wanted;

/// Columns of a line's label.
const LABEL: usize = 26;

/// The line above those of [`lines`]. Latencies are in microseconds, CPU in seconds for each GiB.
pub fn heading() -> String {
    format!(
        "{:<LABEL$}{:>7}{:>9}{:>7}{:>7}{:>7}{:>7}{:>10}",
        "", "GiB/s", "IOPS", "p50 us", "p99", "p99.9", "max", "CPU s/GiB"
    )
}

/// A measurement's figures behind a label, and what went wrong in further lines.
pub fn lines(label: &str, measurement: &Measurement) -> Vec<String> {
    let figures = &measurement.figures;
    let label: String = label.chars().take(LABEL - 1).collect();
    let mut lines = vec![format!(
        "{label:<LABEL$}{:>7.2}{:>9.0}{:>7}{:>7}{:>7}{:>7}{:>10.3}",
        figures.gib_per_second,
        figures.iops,
        short(figures.p50_us),
        short(figures.p99_us),
        short(figures.p999_us),
        short(figures.max_us),
        figures.cpu_seconds_per_gib
    )];
    if let Some(error) = &measurement.first_error {
        let kind = if error.wrong_data { "WRONG DATA" } else { "failed" };
        let more = match measurement.errors.saturating_sub(1) {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        lines.push(format!("  {kind} at byte {}: {}{more}", error.offset, error.what));
    }
    let wrong = measurement.verified.as_ref().filter(|verified| verified.wrong > 0);
    if let (Some(verified), None) = (wrong, &measurement.first_error) {
        let first = verified.first.as_deref().unwrap_or_default();
        lines.push(format!("  WRONG DATA in {} of {} blocks: {first}", verified.wrong, verified.blocks));
    }
    lines
}

/// What a measurement is, where its job is said elsewhere: `bounce`, `cuFile`.
pub fn label(measurement: &Measurement) -> String {
    let kind = measurement.kind.words();
    match measurement.purpose {
        Purpose::Figures => kind.to_owned(),
        Purpose::WarmUp => format!("{kind}, waking up"),
        Purpose::Fill => "filling the file".to_owned(),
        Purpose::Proof => match measurement.settings.map(|settings| settings.wanted) {
            Some(Wanted::Nvfs) => "nvidia-fs, compared".to_owned(),
            Some(Wanted::P2pdma) => "P2PDMA, compared".to_owned(),
            Some(Wanted::Compat) => "the CPU, compared".to_owned(),
            Some(Wanted::Any) | None => "any way, compared".to_owned(),
        },
        Purpose::Load => {
            let gib = measurement.bytes as f64 / f64::from(1 << 30);
            format!("{gib:.1} GiB in {:.2} s", measurement.seconds)
        }
        Purpose::Together => format!("{kind}, all at once"),
    }
}

/// Three digits are enough, and six are all that there is room for.
fn short(microseconds: f64) -> String {
    match microseconds {
        us if us < 100.0 => format!("{us:.1}"),
        us if us < 999_999.5 => format!("{us:.0}"),
        us => format!("{:.1} s", us / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::super::results::{Kind, RawLine, State};
    use super::super::transfer::job::parse_job;
    use super::*;
    use crate::bench::transfer::measurement::{Recorder, TransferError};
    use crate::bench::worker::{Ran, Verified};

    #[test]
    fn a_line_has_80_columns_and_says_what_failed() {
        let mut recorder = Recorder::new();
        for n in 0..1000 {
            recorder.transfer(4096, 50_000 + n, n);
        }
        let mut samples = recorder.finish("io_uring", 0.001, 0.01);
        samples.errors = vec![TransferError { offset: 8192, what: "x".into(), wrong_data: true }];
        samples.error_count = 3;
        let ran = Ran { samples, ..Ran::default() };
        let raw = RawLine {
            number: 1,
            ran,
            cufile: None,
            nvidia_fs: None,
            mappings: None,
            states: vec![State::default()],
        };
        let job = parse_job("read,random,4K,64x1024,10s").unwrap();
        let measurement = Measurement::new(1, Kind::Storage, Purpose::Figures, job).computed(&raw, None);
        let lines = lines(&measurement.job.to_string(), &measurement);
        assert_eq!((heading().len(), lines[0].len()), (80, 80), "{}", lines[0]);
        assert_eq!(lines[1], "  WRONG DATA at byte 8192: x (and 2 more)");
        let sampled = Measurement {
            first_error: None,
            verified: Some(Verified { blocks: 16, wrong: 1, first: Some("y".into()), ..Verified::default() }),
            ..measurement
        };
        assert_eq!(super::lines(&"long".repeat(20), &sampled)[1], "  WRONG DATA in 1 of 16 blocks: y");
    }
}
