//! Measurements as lines of text, 80 columns wide.

use super::transfer::job::Job;
use super::transfer::measurement::Samples;

/// The line above those of [`lines`]. Latencies are in microseconds, CPU in seconds for each GiB.
pub fn heading() -> String {
    format!(
        "{:<31}{:>7}{:>9}{:>8}{:>8}{:>8}{:>9}",
        "", "GiB/s", "IOPS", "p50 us", "p99", "p99.9", "CPU s/GiB"
    )
}

/// One job's figures, and what went wrong in a second line.
pub fn lines(job: &Job, samples: &Samples) -> Vec<String> {
    let figures = samples.figures();
    let mut lines = vec![format!(
        "{:<31}{:>7.2}{:>9.0}{:>8}{:>8}{:>8}{:>9.3}",
        job.to_string(),
        figures.gib_per_second,
        figures.iops,
        short(figures.p50_us),
        short(figures.p99_us),
        short(figures.p999_us),
        figures.cpu_seconds_per_gib
    )];
    if let Some(error) = samples.errors.first() {
        let kind = if error.wrong_data { "WRONG DATA" } else { "failed" };
        let more = match samples.error_count - 1 {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        lines.push(format!("  {kind} at byte {}: {}{more}", error.offset, error.what));
    }
    lines
}

/// Three digits are enough.
fn short(microseconds: f64) -> String {
    if microseconds < 100.0 { format!("{microseconds:.1}") } else { format!("{microseconds:.0}") }
}

#[cfg(test)]
mod tests {
    use super::super::plan::parse_job;
    use super::*;
    use crate::bench::transfer::measurement::{Recorder, TransferError};

    #[test]
    fn a_line_has_80_columns_and_says_what_failed() {
        let mut recorder = Recorder::new();
        for n in 0..1000 {
            recorder.transfer(4096, 50_000 + n, n);
        }
        let mut samples = recorder.finish("io_uring", 0.001, 0.01);
        samples.errors = vec![TransferError { offset: 8192, what: "x".into(), wrong_data: true }];
        samples.error_count = 3;
        let lines = lines(&parse_job("read,random,4K,64x1024,10s").unwrap(), &samples);
        assert_eq!((heading().len(), lines[0].len()), (80, 80), "{}", lines[0]);
        assert_eq!(lines[1], "  WRONG DATA at byte 8192: x (and 2 more)");
    }
}
