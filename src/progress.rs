//! Progress of long work: a bar on a terminal, plain lines elsewhere, JSON lines for programs.
//!
//! Work is a sequence of stages; a stage has a name, and counts bytes or steps towards a total that may be unknown.
//! Everything goes to standard error, so that standard output stays the command's result.

use crate::report::layout::clean_lines;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Bars on a terminal, plain lines otherwise.
    #[default]
    Auto,
    /// Plain lines.
    Plain,
    /// One JSON object per line: v, event (start, progress, done, note), stage, done, total, unit, seconds.
    Json,
    /// Nothing.
    None,
}

/// What a stage counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes, shown with a rate and the time that is left.
    Bytes,
    /// Anything else: files, packages, compiled objects.
    Steps,
}

/// Where stages are announced. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Progress {
    mode: Mode,
    bars: Option<MultiProgress>,
}

impl Progress {
    /// Progress on standard error.
    pub fn new(mode: Mode) -> Self {
        let mode = match mode {
            Mode::Auto if !std::io::stderr().is_terminal() => Mode::Plain,
            other => other,
        };
        Self { mode, bars: (mode == Mode::Auto).then(MultiProgress::new) }
    }

    /// Progress that shows nothing.
    pub fn none() -> Self {
        Self { mode: Mode::None, bars: None }
    }

    /// Begins a stage. `total` of 0 means that it is not known.
    pub fn stage(&self, name: &str, total: u64, unit: Unit) -> Stage {
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new(total));
            let template = match (unit, total) {
                (_, 0) => "{spinner} {prefix} {msg} {elapsed}",
                (Unit::Bytes, _) => {
                    "{spinner} {prefix} [{bar:24}] {bytes}/{total_bytes} {bytes_per_sec} ETA {eta} {msg}"
                }
                (Unit::Steps, _) => "{spinner} {prefix} [{bar:24}] {pos}/{len} ETA {eta} {msg}",
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_prefix(name.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        let stage = Stage {
            inner: Arc::new(Inner {
                name: name.to_owned(),
                unit,
                total: AtomicU64::new(total),
                done: AtomicU64::new(0),
                started: Instant::now(),
                shown_ms: AtomicU64::new(0),
                mode: self.mode,
                bar,
            }),
        };
        stage.inner.say("start");
        stage
    }

    /// A line for the user that is not an error: a decision that was taken for him, or a warning.
    /// What a terminal would obey is taken out: it may quote what strangers wrote.
    pub fn note(&self, text: impl AsRef<str>) {
        let text = text.as_ref();
        let shown = clean_lines(text);
        match self.mode {
            Mode::Json => emit(&serde_json::json!({"v": 1, "event": "note", "text": text})),
            Mode::None => {}
            Mode::Auto | Mode::Plain => match &self.bars {
                Some(bars) => {
                    let _ = bars.println(shown);
                }
                None => eprintln!("{shown}"),
            },
        }
    }
}

/// A stage of work; it ends when its last clone is dropped. May be advanced from several threads.
#[derive(Clone, Debug)]
pub struct Stage {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    unit: Unit,
    total: AtomicU64,
    done: AtomicU64,
    started: Instant,
    shown_ms: AtomicU64,
    mode: Mode,
    bar: Option<ProgressBar>,
}

/// Between two lines of a stage that goes on, in milliseconds.
const PLAIN_INTERVAL_MS: u64 = 5_000;
const JSON_INTERVAL_MS: u64 = 200;

impl Stage {
    /// Advances by `n` bytes or steps.
    pub fn advance(&self, n: u64) {
        let inner = &self.inner;
        inner.done.fetch_add(n, Ordering::Relaxed);
        if let Some(bar) = &inner.bar {
            bar.inc(n);
        }
        let interval = match inner.mode {
            Mode::Plain => PLAIN_INTERVAL_MS,
            Mode::Json => JSON_INTERVAL_MS,
            Mode::Auto | Mode::None => return,
        };
        let now = u64::try_from(inner.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let shown = inner.shown_ms.load(Ordering::Relaxed);
        if now.saturating_sub(shown) >= interval
            && inner.shown_ms.compare_exchange(shown, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            inner.say("progress");
        }
    }

    /// What is being worked on right now; shown on terminals only.
    pub fn message(&self, text: impl Into<String>) {
        if let Some(bar) = &self.inner.bar {
            bar.set_message(text.into());
        }
    }
}

impl Inner {
    fn say(&self, event: &str) {
        let (done, total) = (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        let elapsed = self.started.elapsed().as_secs_f64();
        match self.mode {
            Mode::Json => emit(&serde_json::json!({
                "v": 1, "event": event, "stage": self.name, "done": done, "total": total,
                "unit": match self.unit { Unit::Bytes => "bytes", Unit::Steps => "steps" },
                "seconds": (elapsed * 1000.0).round() / 1000.0,
            })),
            Mode::Plain => match event {
                "start" => {}
                "done" if done == 0 => eprintln!("{}: done in {elapsed:.1} s", self.name),
                "done" => eprintln!("{}: {} in {elapsed:.1} s", self.name, self.count(done)),
                _ => eprintln!("{}: {}", self.name, self.so_far(done, total, elapsed)),
            },
            Mode::Auto | Mode::None => {}
        }
    }

    /// How far, how fast (of bytes; steps differ too much), how long yet.
    fn so_far(&self, done: u64, total: u64, elapsed: f64) -> String {
        let mut text = format!("{} of {}", self.count(done), self.count(total));
        let rate = done as f64 / elapsed.max(0.001);
        if self.unit == Unit::Bytes {
            let _ = write!(text, ", {}/s", bytes(rate as u64));
        }
        if done > 0 && total > done {
            let _ = write!(text, ", about {:.0} s left", (total - done) as f64 / rate);
        }
        text
    }

    fn count(&self, n: u64) -> String {
        match self.unit {
            Unit::Bytes => bytes(n),
            Unit::Steps => n.to_string(),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.say("done");
    }
}

fn emit(value: &serde_json::Value) {
    // Standard error may be a closed pipe; progress is not worth failing for.
    let _ = writeln!(std::io::stderr().lock(), "{value}");
}

/// A number of bytes in decimal units, as disks are sold: `182.4 MB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_says_how_long_it_will_take() {
        let stage = |unit| Progress::none().stage("x", 0, unit);
        assert_eq!(stage(Unit::Steps).inner.so_far(1, 3, 60.0), "1 of 3, about 120 s left");
        assert_eq!(stage(Unit::Steps).inner.so_far(0, 3, 60.0), "0 of 3");
        let text = stage(Unit::Bytes).inner.so_far(2_000_000, 3_000_000, 2.0);
        assert_eq!(text, "2.0 MB of 3.0 MB, 1.0 MB/s, about 1 s left");
    }

    #[test]
    fn bytes_are_decimal() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(182_400_000), "182.4 MB");
        assert_eq!(bytes(5_000_000_000_000_000), "5000.0 TB");
    }
}
