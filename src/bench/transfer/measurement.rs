//! What came of a job: raw samples, and the figures that are computed from them and from nothing else.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// How long one raw sample is, in milliseconds.
pub const SAMPLE_MS: u64 = 100;
/// The longest latency that is told apart, in nanoseconds: ten minutes.
const LONGEST: u64 = 600_000_000_000;

/// Raw samples of a job. Every figure is computed from these.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Samples {
    /// How the transfers were made: `io_uring`, `pread`.
    pub engine: String,
    /// From the first transfer's beginning to the last one's end, in seconds.
    pub seconds: f64,
    /// CPU time of all threads in that time, user and system, in seconds.
    pub cpu_seconds: f64,
    /// Bytes that arrived in each [`SAMPLE_MS`] since the beginning.
    pub bytes: Vec<u64>,
    /// Latencies: nanoseconds (to three digits) and how many transfers took so long, ascending.
    pub latencies: Vec<(u64, u64)>,
    /// What went wrong, in the order in which it did; the first [`ERRORS`].
    pub errors: Vec<TransferError>,
    /// How much went wrong.
    pub error_count: u64,
}

/// How many errors are kept.
pub const ERRORS: usize = 16;

/// A transfer that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct TransferError {
    /// Where in the file or device, in bytes.
    pub offset: u64,
    /// What happened.
    pub what: String,
    /// Did it succeed, but with the wrong data?
    pub wrong_data: bool,
}

/// Figures of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Figures {
    /// GiB (2^30 bytes) per second.
    pub gib_per_second: f64,
    /// Transfers per second.
    pub iops: f64,
    /// Latency below which half of the transfers were, in microseconds.
    pub p50_us: f64,
    /// The same for 99 of 100.
    pub p99_us: f64,
    /// The same for 999 of 1000.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
    /// CPU seconds for each GiB.
    pub cpu_seconds_per_gib: f64,
}

impl Samples {
    /// All bytes that arrived.
    pub fn total_bytes(&self) -> u64 {
        self.bytes.iter().sum()
    }

    /// All transfers that succeeded.
    pub fn transfers(&self) -> u64 {
        self.latencies.iter().map(|(_, count)| count).sum()
    }

    /// Computes the figures; all 0 where nothing arrived.
    pub fn figures(&self) -> Figures {
        let gib = self.total_bytes() as f64 / f64::from(1 << 30);
        if self.seconds <= 0.0 || gib <= 0.0 {
            return Figures::default();
        }
        Figures {
            gib_per_second: gib / self.seconds,
            iops: self.transfers() as f64 / self.seconds,
            p50_us: self.percentile(0.5),
            p99_us: self.percentile(0.99),
            p999_us: self.percentile(0.999),
            max_us: self.latencies.last().map_or(0.0, |(ns, _)| *ns as f64 / 1000.0),
            cpu_seconds_per_gib: self.cpu_seconds / gib,
        }
    }

    /// The smallest latency that at least this part of the transfers did not exceed, in microseconds.
    fn percentile(&self, part: f64) -> f64 {
        let wanted = (self.transfers() as f64 * part).ceil() as u64;
        let mut seen = 0;
        let found = self.latencies.iter().find(|(_, count)| {
            seen += count;
            seen >= wanted
        });
        found.map_or(0.0, |(ns, _)| *ns as f64 / 1000.0)
    }
}

/// How many transfers are put off until they are added up.
const PUT_OFF: usize = 256;

/// A transfer that is not added up yet: bytes, and nanoseconds as [`Recorder::transfer`] takes them.
#[derive(Clone, Copy, Debug)]
struct Made {
    bytes: u64,
    latency: u64,
    at: u64,
}

/// Takes what one thread measures.
#[derive(Debug)]
pub struct Recorder {
    /// Adding up touches memory in many places, all of them cold after a wait for the drive: it is done for many at a time.
    made: Vec<Made>,
    latencies: Histogram<u64>,
    bytes: Vec<u64>,
    errors: Vec<TransferError>,
    error_count: u64,
}

impl Recorder {
    /// With nothing in it.
    pub fn new() -> Self {
        // The bounds are constants that the histogram takes.
        let latencies = Histogram::new_with_bounds(1, LONGEST, 3).expect("constant bounds are valid");
        let made = Vec::with_capacity(PUT_OFF);
        Self { made, latencies, bytes: Vec::new(), errors: Vec::new(), error_count: 0 }
    }

    /// A transfer of `bytes` that took `latency_ns` and ended `at_ns` after the beginning.
    #[inline]
    pub fn transfer(&mut self, bytes: u64, latency_ns: u64, at_ns: u64) {
        self.made.push(Made { bytes, latency: latency_ns, at: at_ns });
        if self.made.len() == PUT_OFF {
            self.add_up();
        }
    }

    #[cold]
    fn add_up(&mut self) {
        for Made { bytes, latency, at } in self.made.drain(..) {
            self.latencies.saturating_record(latency.max(1));
            let sample = (at / 1_000_000 / SAMPLE_MS) as usize;
            if sample >= self.bytes.len() {
                self.bytes.resize(sample + 1, 0);
            }
            self.bytes[sample] += bytes;
        }
    }

    /// A transfer that failed.
    pub fn error(&mut self, offset: u64, what: String, wrong_data: bool) {
        self.error_count += 1;
        if self.errors.len() < ERRORS {
            self.errors.push(TransferError { offset, what, wrong_data });
        }
    }

    /// Failures so far.
    pub fn error_count(&self) -> u64 {
        self.error_count
    }

    /// Puts another thread's beside this one's.
    pub fn merge(&mut self, mut other: Self) {
        self.add_up();
        other.add_up();
        // Both have the same bounds.
        let _ = self.latencies.add(&other.latencies);
        if other.bytes.len() > self.bytes.len() {
            self.bytes.resize(other.bytes.len(), 0);
        }
        for (mine, more) in self.bytes.iter_mut().zip(&other.bytes) {
            *mine += more;
        }
        self.error_count += other.error_count;
        self.errors.extend(other.errors);
        self.errors.truncate(ERRORS);
    }

    /// The samples; times are in seconds.
    pub fn finish(mut self, engine: &str, seconds: f64, cpu_seconds: f64) -> Samples {
        self.add_up();
        let latencies = self.latencies.iter_recorded();
        Samples {
            engine: engine.to_owned(),
            seconds,
            cpu_seconds,
            bytes: self.bytes,
            latencies: latencies.map(|v| (v.value_iterated_to(), v.count_at_value())).collect(),
            errors: self.errors,
            error_count: self.error_count,
        }
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_come_from_the_samples_alone() {
        let mut one = Recorder::new();
        let mut other = Recorder::default();
        for n in 1..=500_u64 {
            one.transfer(1 << 20, n * 1000, n * 1_000_000);
            other.transfer(1 << 20, (500 + n) * 1000, n * 1_000_000);
        }
        other.error(4096, "EIO".into(), false);
        one.merge(other);
        let samples = one.finish("io_uring", 0.5, 0.25);
        assert_eq!((samples.total_bytes(), samples.transfers()), (1000 << 20, 1000));
        assert_eq!(samples.bytes.len(), 6);
        assert_eq!((samples.errors.len(), samples.error_count), (1, 1));
        let text = serde_json::to_string(&samples).unwrap();
        let read: Samples = serde_json::from_str(&text).unwrap();
        let figures = read.figures();
        assert_eq!(figures, samples.figures());
        assert!((figures.gib_per_second - 1000.0 / 1024.0 / 0.5).abs() < 1e-9);
        assert!((figures.iops - 2000.0).abs() < 1e-9);
        assert!((figures.cpu_seconds_per_gib - 0.25 / (1000.0 / 1024.0)).abs() < 1e-9);
        for (value, wanted) in [
            (figures.p50_us, 500.0),
            (figures.p99_us, 990.0),
            (figures.p999_us, 999.0),
            (figures.max_us, 1000.0),
        ] {
            assert!((value - wanted).abs() / wanted < 0.002, "{value} instead of {wanted}");
        }
    }

    #[test]
    fn of_nothing_there_are_no_figures() {
        assert_eq!(Samples::default().figures(), Figures::default());
        let failed = Recorder::new().finish("pread", 1.0, 0.1);
        assert_eq!(failed.figures(), Figures::default());
    }

    #[test]
    fn many_errors_are_counted_and_few_kept() {
        let mut recorder = Recorder::new();
        for n in 0..1000 {
            recorder.error(n, "EIO".into(), false);
        }
        let samples = recorder.finish("pread", 1.0, 0.0);
        assert_eq!((samples.errors.len(), samples.error_count), (ERRORS, 1000));
    }
}
