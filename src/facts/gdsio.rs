//! What NVIDIA's `gdsio` printed. It is a load generator, never a witness: `XferType: GPUD` names the mode that was asked
//! for, and cuFile falls back to copies by the CPU in silence; a failed run prints a line of results all the same, with
//! negative numbers.

use super::commands::CommandOutput;
use super::log_lines::LogLines;
use serde::{Deserialize, Serialize};

/// How many results of one run are kept.
const MOST: usize = 64;
/// Into how many lines a narrow terminal breaks one result.
const BROKEN_INTO: usize = 4;
/// How far throughput may be from size over time: what is rounded away where a run takes milliseconds.
const TOLERANCE: f64 = 0.1;
const KIB_PER_GIB: f64 = 1_048_576.0;

/// One run of gdsio.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct GdsioRun {
    /// Where its output stands.
    pub from: String,
    /// Its results, one for each job.
    pub results: Vec<GdsioResult>,
    /// Its complaints.
    pub errors: Vec<String>,
}

/// A line of results.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct GdsioResult {
    /// `READ`, `WRITE`, `RANDREAD` or `RANDWRITE`.
    pub io_type: String,
    /// The mode that was asked for: `GPUD`, `CPUONLY`, `CPU_GPU`, ...
    pub xfer_type: String,
    /// Threads.
    pub threads: Option<u64>,
    /// The size of a batch, in batch modes.
    pub io_depth: Option<u64>,
    /// KiB that were moved.
    pub done_kib: Option<u64>,
    /// KiB that each pass was to move; with a time limit there are many passes.
    pub asked_kib: Option<u64>,
    /// The size of one transfer in KiB, as it is printed: it may be a range.
    pub io_size: String,
    /// GiB in a second.
    pub throughput: Option<f64>,
    /// The average latency in microseconds.
    pub latency_us: Option<f64>,
    /// Transfers.
    pub ops: Option<i64>,
    /// The run's seconds; old releases print the sum of all latencies instead.
    pub seconds: Option<f64>,
}

/// Words of complaints.
const ERRORS: &[&str] = &[
    "exiting gdsio!!!",
    "unable to open file",
    "cuFile driver open error",
    "cuFile initialization failed",
    "file register error",
    "io failed",
    "IO failed",
    "failed to submit io",
    "count mismatch in path entries",
    "invalid transfer mode",
    "invalid GPU device id",
    "invalid numa node",
    "Unsupported IO Mode",
    "memory requested",
    "data size has to be",
    "error while loading shared libraries",
];

impl GdsioRun {
    /// The runs among the outputs of programs, and among logs, where an owner kept one in a file of any name.
    pub fn find(commands: &[CommandOutput], logs: &[LogLines]) -> Vec<Self> {
        let is_gdsio = |command: &&CommandOutput| {
            command.program() == "gdsio"
                || command.argv.iter().any(|word| word.ends_with("/gdsio") || word == "gdsio")
        };
        let run = commands.iter().filter(is_gdsio).map(|command| {
            Self::parse(&command.from, command.stdout.iter().chain(&command.stderr).map(String::as_str))
        });
        let logged = logs.iter().map(|log| Self::parse(&log.from, log.lines.iter().map(String::as_str)));
        run.chain(logged.filter(|run| !run.results.is_empty())).collect()
    }

    /// Reads what a run printed.
    pub fn parse<'a>(from: &str, lines: impl Iterator<Item = &'a str>) -> Self {
        let mut run = Self { from: from.to_owned(), ..Self::default() };
        // A result that goes on in the next lines.
        let mut open: Option<(String, usize)> = None;
        for line in lines.map(str::trim) {
            if ERRORS.iter().any(|error| line.contains(error)) && run.errors.len() < MOST {
                run.errors.push(line.to_owned());
            }
            if line.contains("IoType:") {
                run.close(open.take());
                open = Some((line.to_owned(), 1));
            } else if let Some((text, count)) = &mut open
                && *count < BROKEN_INTO
                && !text.contains("total_")
            {
                text.push(' ');
                text.push_str(line);
                *count += 1;
            }
        }
        run.close(open);
        run
    }

    fn close(&mut self, open: Option<(String, usize)>) {
        let result = open.and_then(|(text, _)| GdsioResult::parse(&text));
        self.results.extend(result.filter(|_| self.results.len() < MOST));
    }
}

impl GdsioResult {
    /// Reads `IoType: READ XferType: GPUD Threads: 8 DataSetSize: 2/1(KiB) IOSize: 1024(KiB) Throughput: 6.5 GiB/sec,
    /// Avg_Latency: 1.1 usecs ops: 79 total_time 1.6 secs`. Labels may lack, and units and commas stand where they like.
    pub fn parse(line: &str) -> Option<Self> {
        let word = |label: &str| {
            let rest = line.split_once(label)?.1.trim_start_matches([' ', ':']);
            let end = rest.find(|c: char| c.is_whitespace() || c == ',').unwrap_or(rest.len());
            (end > 0).then(|| &rest[..end])
        };
        let plain = |word: &'_ str| word.split('(').next().unwrap_or_default().to_owned();
        let count = |label: &str| word(label).and_then(|word| plain(word).parse::<u64>().ok());
        let real = |label: &str| word(label)?.parse::<f64>().ok().filter(|number| number.is_finite());
        let (io_type, xfer_type) = (word("IoType:")?, word("XferType:")?);
        let is_name =
            |word: &str| word.len() <= 32 && word.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
        if !is_name(io_type) || !is_name(xfer_type) {
            return None;
        }
        let (done, asked) = word("DataSetSize:")
            .map(plain)
            .and_then(|sizes| {
                let (done, asked) = sizes.split_once('/')?;
                Some((done.parse().ok(), asked.parse().ok()))
            })
            .unwrap_or_default();
        Some(Self {
            io_type: io_type.to_owned(),
            xfer_type: xfer_type.to_owned(),
            threads: count("Threads:"),
            io_depth: count("IoDepth:"),
            done_kib: done,
            asked_kib: asked,
            io_size: word("IOSize:").map(plain).unwrap_or_default(),
            throughput: real("Throughput:"),
            latency_us: real("Avg_Latency:"),
            ops: word(" ops:").and_then(|word| word.parse().ok()),
            seconds: real("total_time"),
        })
    }

    /// Was cuFile asked, which alone can take a direct route?
    pub fn asks_cufile(&self) -> bool {
        matches!(self.xfer_type.as_str(), "GPUD" | "ASYNC" | "GPU_BATCH" | "GPU_BATCH_STREAM")
    }

    /// Why the numbers are no measurement; `None` where they make sense.
    pub fn nonsense(&self) -> Option<&'static str> {
        let Some(throughput) = self.throughput else { return Some("there is no throughput") };
        if throughput <= 0.0 {
            return Some("the throughput is not above 0");
        }
        if self.latency_us.is_some_and(|latency| latency <= 0.0) {
            return Some("the latency is not above 0");
        }
        if self.ops.is_some_and(|ops| ops <= 0) {
            return Some("nothing was transferred");
        }
        match (self.seconds, self.done_kib) {
            (Some(seconds), _) if seconds <= 0.0 => Some("it took no time"),
            (Some(seconds), Some(kib)) => {
                let computed = kib as f64 / KIB_PER_GIB / seconds;
                let off = (computed - throughput).abs() > TOLERANCE * throughput;
                off.then_some("size and time do not give the throughput")
            }
            _ => None,
        }
    }

    /// In a few words: `READ by GPUD, 6.52 GiB/s, 1024 KiB, 8 threads`.
    pub fn words(&self) -> String {
        let mut words = format!("{} by {}", self.io_type, self.xfer_type);
        if let Some(throughput) = self.throughput {
            words += &format!(", {throughput:.2} GiB/s");
        }
        if !self.io_size.is_empty() {
            words += &format!(", {} KiB", self.io_size);
        }
        if let Some(threads) = self.threads {
            words += &format!(", {threads} threads");
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Results as different releases printed them.
    const NEAR: &str = "IoType: READ XferType: GPUD Threads: 8 DataSetSize: 818796544/4096000(KiB) IOSize: 1024(KiB) \
                        Throughput: 6.524658 GiB/sec, Avg_Latency: 1197.370995 usecs ops: 799606 total_time 119.679102 secs";
    const SHORT: &str = "IoType: WRITE XferType: GPUD Threads: 1 DataSetSize: 1024/1024(KiB) IOSize: 4(KiB) Throughput: \
                         0.013104 GiB/sec, Avg_Latency: 264.007812 usecs ops: 256 total_time 0.074524 secs";
    const RANDOM: &str = "IoType: RANDREAD XferType: GPUD Threads: 1 DataSetSize: 955328/1048576(KiB) IOSize: 64(KiB) \
                          Throughput: 0.030136 GiB/sec, Avg_Latency: 2025.139948 usecs ops: 14927 total_time 30.232086 secs";
    const BATCH: &str = "IoType: READ XferType: GPU_BATCH Threads: 1 IoDepth: 16 DataSetSize: 2097152/1048576(KiB) IOSize: \
                         4:1024:4(KiB) Throughput: 2.000000 GiB/sec, Avg_Latency: 10.5 usecs ops: 2048 total_time 1.000000 secs";
    const OLD: &str = "IoType: READ XferType: GPUD Threads: 16 DataSetSize: 1073442816/1073741824 IOSize: 4(KiB),Throughput: \
                       0.167347 GiB/sec, Avg_Latency: 45.588810 usecs ops: 071 total_latency 5973939.000000";
    const FAILED: &str = "IoType: READ XferType: CPUONLY Threads: 8 DataSetSize: 0/8388608(KiB) IOSize: 1024(KiB) Throughput: \
                          -0.000001 GiB/sec, Avg_Latency: 0.000000 usecs ops: 0 total_time -1575.299689 secs";

    fn one(line: &str) -> GdsioResult {
        GdsioResult::parse(line).unwrap()
    }

    #[test]
    fn a_result_is_read_whole() {
        let expected = GdsioResult {
            io_type: "READ".into(),
            xfer_type: "GPUD".into(),
            threads: Some(8),
            io_depth: None,
            done_kib: Some(818_796_544),
            asked_kib: Some(4_096_000),
            io_size: "1024".into(),
            throughput: Some(6.524_658),
            latency_us: Some(1_197.370_995),
            ops: Some(799_606),
            seconds: Some(119.679_102),
        };
        assert_eq!(one(NEAR), expected);
        assert_eq!(one(NEAR).words(), "READ by GPUD, 6.52 GiB/s, 1024 KiB, 8 threads");
        for line in [NEAR, SHORT, RANDOM, BATCH, OLD] {
            assert_eq!(one(line).nonsense(), None, "{line}");
        }
    }

    #[test]
    fn releases_differ() {
        let batch = one(BATCH);
        assert_eq!((batch.io_depth, batch.io_size.as_str(), batch.threads), (Some(16), "4:1024:4", Some(1)));
        let old = one(OLD);
        assert_eq!((old.ops, old.seconds, old.done_kib), (Some(71), None, Some(1_073_442_816)));
        assert_eq!((old.io_size.as_str(), old.throughput), ("4", Some(0.167_347)));
        assert!(one(NEAR).asks_cufile() && batch.asks_cufile() && !one(FAILED).asks_cufile());
    }

    #[test]
    fn what_a_failure_prints_is_no_measurement() {
        assert_eq!(one(FAILED).nonsense(), Some("the throughput is not above 0"));
        let with = |from: &str, to: &str| {
            assert!(NEAR.contains(from));
            one(&NEAR.replace(from, to)).nonsense()
        };
        assert_eq!(with("6.524658", "nan"), Some("there is no throughput"));
        assert_eq!(with("6.524658", "65.24658"), Some("size and time do not give the throughput"));
        assert_eq!(with("119.679102", "0.0"), Some("it took no time"));
        assert_eq!(with("799606", "-1"), Some("nothing was transferred"));
        assert_eq!(with("1197.370995", "-3"), Some("the latency is not above 0"));
        assert_eq!(GdsioResult::parse("IoType: READ Throughput: 1"), None);
        assert_eq!(GdsioResult::parse("IoType: %s XferType: %s Threads: %d"), None);
    }

    #[test]
    fn results_that_a_terminal_broke_and_errors_are_found() {
        let broken = NEAR.replace(" IOSize", "\n  IOSize").replace(" ops", "\nops");
        let text = format!(
            "gdsio version :1.11\n{broken}\n{SHORT}\ncuda runtime api call failed x exiting gdsio!!!\n"
        );
        let run = GdsioRun::parse("x", text.lines());
        assert_eq!(run.results, [one(NEAR), one(SHORT)]);
        assert_eq!(run.errors.len(), 1);
        let cut = GdsioRun::parse("x", NEAR[..80].lines());
        assert_eq!(cut.results[0].nonsense(), Some("there is no throughput"));
    }

    #[test]
    fn complaints_that_leave_the_status_at_0_are_found_too() {
        for line in [
            "unable to open file /mnt/x, error:No such file or directory",
            "cuFile driver open error: 5001",
            "invalid GPU device id :5",
            "invalid numa node 7",
            " cuFile initialization failed",
        ] {
            assert_eq!(GdsioRun::parse("x", [line].into_iter()).errors, [line.trim()]);
        }
    }

    #[test]
    fn runs_are_found_under_their_name_behind_a_wrapper_and_in_logs() {
        let command = |argv: &[&str]| CommandOutput {
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            stdout: vec![NEAR.into()],
            ..CommandOutput::default()
        };
        let commands = [
            command(&["/usr/local/cuda/gds/tools/gdsio", "-x", "0"]),
            command(&["timeout", "60", "gdsio", "-x", "0"]),
            command(&["cat", "notes"]),
        ];
        let log = |line: &str| LogLines { lines: vec![line.into()], ..LogLines::default() };
        assert_eq!(GdsioRun::find(&commands, &[log(SHORT), log("NVRM: x")]).len(), 3);
    }

    proptest! {
        #[test]
        fn any_text_is_taken(text in "(IoType:|XferType:|Throughput:|DataSetSize:|total_time|[ A-Z0-9./,()\n-]){0,40}") {
            let run = GdsioRun::parse("x", text.lines());
            for result in run.results {
                let _ = (result.nonsense(), result.words());
            }
        }

        #[test]
        fn numbers_are_read_as_they_are_printed(
            threads in 0u64..1000, done in 0u64..1 << 40, asked in 0u64..1 << 40, throughput in 0.0..1000.0f64,
            ops in -1i64..1 << 40, seconds in -10.0..1e6f64,
        ) {
            let line = format!(
                "IoType: RANDWRITE XferType: CPU_GPU Threads: {threads} DataSetSize: {done}/{asked}(KiB) IOSize: 4(KiB) \
                 Throughput: {throughput:.6} GiB/sec, Avg_Latency: 1.000000 usecs ops: {ops} total_time {seconds:.6} secs"
            );
            let result = one(&line);
            prop_assert_eq!((result.threads, result.done_kib, result.asked_kib), (Some(threads), Some(done), Some(asked)));
            prop_assert!((result.throughput.unwrap() - throughput).abs() < 1e-5);
            prop_assert_eq!(result.ops, Some(ops));
            prop_assert!((result.seconds.unwrap() - seconds).abs() < 1e-5);
        }
    }
}
