//! What the validator tells whoever watches its console, while it happens: one JSON object per line, behind
//! [`PREFIX`], so that it is found among the kernel's messages. Both ends use these types.
//!
//! A line is `gdsboot-event {"v":1,"seq":3,"up_ms":4210,"event":"root-verified",...}`. A reader ignores events that it
//! does not know ([`What::Unknown`]) and fields that it does not know, refuses a newer `v`, and must expect a kernel
//! message before [`PREFIX`] on the same line. `seq` counts from 0 without gaps, so that a lost line shows.

use super::model::{After, Verdict};
use crate::bench::route::Route;
use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

/// What stands before the JSON object.
pub const PREFIX: &str = "gdsboot-event ";
/// The version of the events' form.
pub const VERSION: u32 = 1;
/// Between this line and [`TEXT_END`] stands the whole text report, where it could not be written to the partition.
pub const TEXT_BEGIN: &str = "-----BEGIN GDSBOOT REPORT-----";
/// See [`TEXT_BEGIN`].
pub const TEXT_END: &str = "-----END GDSBOOT REPORT-----";

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// [`VERSION`].
    pub v: u32,
    /// Counts the events of a run from 0.
    pub seq: u32,
    /// Milliseconds since the kernel started (`CLOCK_BOOTTIME`).
    pub up_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "snake_case")]
pub enum What {
    /// The validator runs as PID 1.
    InitStarted {
        /// gdsboot's version.
        gdsboot: String,
        /// The run, as in the report.
        run_id: String,
        /// The kernel's release.
        kernel: String,
    },
    /// A step of the run begins.
    StageStarted {
        /// Its name, as in the report.
        stage: String,
    },
    /// A step of the run is over.
    StageDone {
        /// Its name, as in the report.
        stage: String,
        /// Did it do all that it should?
        ok: bool,
        /// How long it took, in milliseconds.
        ms: u64,
    },
    /// Modules were loaded: those of the initramfs first, later those of the root.
    ModulesLoaded {
        /// How many are in the kernel now because of it.
        loaded: u32,
        /// The ones that the kernel refused: `name: ENODEV`.
        refused: Vec<String>,
    },
    /// The root partition was found.
    RootFound {
        /// Its device node.
        device: String,
    },
    /// The root's bytes are those that the command line names.
    RootVerified {
        /// How many bytes were read.
        bytes: u64,
        /// How long that took, in milliseconds.
        ms: u64,
        /// Their SHA-256, hex.
        sha256: String,
    },
    /// The run's folder exists on the report partition and holds `STARTED`.
    StartedWritten {
        /// The folder, relative to the partition's root.
        path: String,
    },
    /// A check was made.
    Check {
        /// Its id.
        id: String,
        /// Its outcome, as in the report.
        status: String,
    },
    /// Something went wrong in the run itself.
    Problem {
        /// The stage in which it happened.
        stage: String,
        /// The error's chain.
        what: String,
    },
    /// The validator panicked; the run goes on without the stage, or ends.
    Panic {
        /// The stage in which it happened.
        stage: String,
        /// The panic's words and place.
        what: String,
    },
    /// The run is over.
    Verdict {
        /// What was found.
        verdict: Verdict,
        /// What was proven.
        route: Route,
        /// Did devices or libraries that imitate NVIDIA's take part?
        #[serde(default)]
        simulated: bool,
        /// The exit status that goes with it.
        exit_status: u8,
        /// The run, as in the report.
        run_id: String,
        /// The run's folder, relative to the report partition's root; `None` where no report could be written there.
        path: Option<String>,
    },
    /// Everything is written and unmounted; this happens now.
    PowerOff {
        /// What happens.
        action: After,
    },
    /// An event of a newer gdsboot.
    #[serde(other)]
    Unknown,
}

impl Event {
    /// The whole line, without its end. Never longer than the JSON of what it says, and never with a line break in it.
    pub fn line(&self) -> String {
        // Serialising plain strings and numbers does not fail; if it ever did, an empty object is refused by `parse`.
        format!("{PREFIX}{}", serde_json::to_string(self).unwrap_or_else(|_| "{}".into()))
    }

    /// Reads a line of a console: `None` where it holds no event, an error where it holds a damaged one.
    pub fn parse(line: &str) -> Option<anyhow::Result<Self>> {
        let (_, json) = line.split_once(PREFIX)?;
        // A kernel message may have followed on the same line, so only the first value counts.
        let mut values = serde_json::Deserializer::from_str(json).into_iter::<Self>();
        let event = match values.next() {
            Some(event) => event.with_context(|| format!("reading the event {json:?}")),
            None => Err(anyhow::anyhow!("reading an event: nothing follows {PREFIX:?}")),
        };
        Some(event.and_then(|event| {
            ensure!(event.v <= VERSION, "reading an event: its version {} is newer than {VERSION}", event.v);
            Ok(event)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict() -> Event {
        Event {
            v: VERSION,
            seq: 7,
            up_ms: 8123,
            what: What::Verdict {
                verdict: Verdict::Incomplete,
                route: Route::None,
                simulated: false,
                exit_status: 2,
                run_id: "0a1b2c3d".into(),
                path: Some("reports/20261122T105601Z-0a1b2c3d".into()),
            },
        }
    }

    #[test]
    fn the_form_on_the_wire() {
        insta::assert_snapshot!(verdict().line(), @r#"gdsboot-event {"v":1,"seq":7,"up_ms":8123,"event":"verdict","verdict":"INCOMPLETE","route":"none","simulated":false,"exit_status":2,"run_id":"0a1b2c3d","path":"reports/20261122T105601Z-0a1b2c3d"}"#);
    }

    #[test]
    fn an_event_is_found_among_kernel_messages() {
        let line = format!("[    4.210000] usb 1-1: new{} [    4.3] more\r", verdict().line());
        assert_eq!(Event::parse(&line).unwrap().unwrap(), verdict());
        assert!(Event::parse("[    4.210000] usb 1-1: new device").is_none());
    }

    #[test]
    fn damaged_and_newer_events_are_errors_and_unknown_ones_are_not() {
        assert!(Event::parse("gdsboot-event ").unwrap().is_err());
        assert!(Event::parse(r#"gdsboot-event {"v":1,"seq":0,"up_"#).unwrap().is_err());
        assert!(
            Event::parse(r#"gdsboot-event {"v":2,"seq":0,"up_ms":1,"event":"power-off","action":"hold"}"#)
                .unwrap()
                .is_err()
        );
        let unknown = Event::parse(r#"gdsboot-event {"v":1,"seq":0,"up_ms":1,"event":"danced","steps":4}"#);
        assert_eq!(unknown.unwrap().unwrap().what, What::Unknown);
    }

    #[test]
    fn line_breaks_stay_inside_the_json() {
        let what = What::Panic { stage: "facts".into(), what: "one\ntwo".into() };
        let event = Event { v: VERSION, seq: 0, up_ms: 1, what };
        assert!(!event.line().contains('\n'));
        assert_eq!(Event::parse(&event.line()).unwrap().unwrap(), event);
    }
}
