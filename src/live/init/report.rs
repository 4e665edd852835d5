//! What the run says of itself: the report, the partition that it lies on, and where else it goes.

use super::Run;
use crate::bench::route::Route;
use crate::boot_contract::{REPORT_LABEL, RUN_CAPTURE, RUN_REPORT_TEXT};
use crate::checks::context::side_of;
use crate::checks::judge::judge;
use crate::facts::capture::capture;
use crate::live::delivery::{self, Parcel};
use crate::live::params::RootPlace;
use crate::live::partition::Partition;
use crate::live::report_partition::ReportPartition;
use crate::live::report_search::{Place, Rank, Search};
use crate::live::settings;
use crate::live::whereabouts::{Whereabouts, must_stay};
use crate::report::events::What;
use crate::report::model::{After, Delivery, Report, SCHEMA, Verdict, folder_name, reasons};
use crate::report::utc::Utc;
use crate::report::{json, screen, text};
use anyhow::Context as _;

/// The step that writes the report.
const WRITE: &str = "write-report";
/// The step that sends it.
const SEND: &str = "send-report";

impl Run {
    /// Mounts the best report partition that can be written to and begins the run's folder on it. A better one may appear
    /// late, and then the run moves there. Only the last look waits, and complains.
    pub(super) fn open_report_partition(&mut self, booted: Option<&Partition>, is_last: bool) {
        let search = Search { root: &self.root, own: self.params.report.as_deref(), booted };
        if let Some(place) = &self.place
            && search.best().is_none_or(|best| best.rank >= place.rank)
        {
            return;
        }
        if let Some(partition) = self.partition.take() {
            self.place = None;
            if let Err(error) = partition.withdraw() {
                self.journal.problem("report-partition", crate::error::one_line(&error));
            }
        }
        // A report that is sent need not lie on a disk of a machine that booted without one.
        let may_lack = self.is_from_network() && self.report_url.is_some();
        let report = self.report(false);
        let found = self.journal.stage("report-partition", |_| {
            let open: &mut dyn FnMut(&Place) -> _ =
                &mut |place| ReportPartition::open(&place.partition, &report);
            Ok(if is_last && !may_lack { search.open_at_last(open) } else { search.open(open) })
        });
        let Some(found) = found else { return };
        // Until the root is there, what all places lack may be a module.
        if is_last || found.opened.is_some() {
            for why in found.refused {
                if self.journal.problems.iter().all(|problem| problem.what != why) {
                    self.journal.problem("report-partition", why);
                }
            }
        }
        let Some((partition, place)) = found.opened else { return };
        if let Some(both) = found.same {
            self.journal.problem("report-partition", both);
        }
        self.journal.consoles.say(&format!("the report goes to {place}"));
        self.journal.consoles.event(What::StartedWritten { path: partition.folder() });
        self.partition = Some(partition);
        self.place = Some(place);
    }

    /// Where the report is on the screen alone, the machine is not switched off, unless another thing was asked for.
    pub(super) fn stay_for_the_screen(&mut self, whereabouts: Whereabouts<'_>) {
        let is_default = self.settings.after_from == settings::DEFAULT;
        if must_stay(is_default, whereabouts) {
            self.settings.after = After::Hold;
            self.settings.after_from = "the report is on the screen alone".into();
        }
    }

    /// The same while the run is still to do.
    pub(super) fn expect_the_screen(&mut self) {
        let may_be_sent = self.report_url.is_some() && self.no_root.is_none();
        self.stay_for_the_screen(Whereabouts::Expected {
            has_partition: self.partition.is_some(),
            may_be_sent,
        });
    }

    pub(super) fn is_from_network(&self) -> bool {
        matches!(self.params.root, Some(RootPlace::Url(_)))
    }

    /// Leaves on the disk what is known so far.
    pub(super) fn checkpoint(&mut self) {
        if let Some(partition) = self.partition.take() {
            let report = self.report(false);
            self.journal.stage("checkpoint", |_| {
                partition.write(&report)?;
                partition.write_other_forms(&report)
            });
            self.partition = Some(partition);
        }
    }

    /// Leaves a capture beside the report, where one was asked for.
    pub(super) fn leave_capture(&mut self) {
        if !self.settings.capture {
            return;
        }
        // A capture asks programs, and one that hangs the machine must not cost what is known.
        self.checkpoint();
        if let Some(partition) = &self.partition {
            self.journal.stage("capture", |journal| {
                journal.consoles.say(&format!("writing {}/{RUN_CAPTURE}", partition.folder()));
                let mut packed = zstd::Encoder::new(Vec::new(), 9).context("compressing the capture")?;
                capture(&mut packed, true)?;
                partition.put(RUN_CAPTURE, &packed.finish().context("compressing the capture")?)
            });
        }
    }

    /// The report as of now.
    pub(super) fn report(&self, complete: bool) -> Report {
        let mut why: Vec<String> = self.no_root.clone().into_iter().collect();
        // Sending comes when all is known, and never changes it.
        let panics = self.journal.problems.iter().filter(|problem| problem.panic && problem.stage != SEND);
        why.extend(
            panics.map(|problem| {
                format!("a bug in gdsboot ended its step {}: {}", problem.stage, problem.what)
            }),
        );
        let mut side = None;
        let mut findings = Vec::new();
        let mut verdict = Verdict::Incomplete;
        let mut route = Route::None;
        if complete {
            let side_of = side_of(&self.facts);
            let bench = self.measured.as_ref();
            let judgement = judge(&self.facts, side_of, bench, &self.settings.waive, &Utc::now().day());
            // Where the run itself broke, nothing that it did not see counts against the machine.
            if why.is_empty() {
                (verdict, route) = (judgement.verdict, judgement.route);
            }
            why.extend(reasons(&judgement.findings));
            side = Some(judgement.side);
            findings = judgement.findings;
            if why.is_empty() && verdict != Verdict::Pass {
                why.push("every prerequisite that was looked at is there, but no transfer is proven".into());
            }
        } else {
            let last = self.journal.stages.last().map_or("the start", |stage| stage.name.as_str());
            why.push(format!("the run did not come to its end; the last step that did is {last}"));
        }
        Report {
            schema: SCHEMA,
            gdsboot: env!("CARGO_PKG_VERSION").into(),
            run_id: self.run_id.clone(),
            started: self.started,
            finished: Utc::now(),
            complete,
            verdict,
            route,
            why,
            side,
            findings,
            settings: self.settings.clone(),
            stages: self.journal.stages.clone(),
            problems: self.journal.problems.clone(),
            delivery: self.delivery.clone(),
            benchmark: self.measured.clone(),
            facts: self.facts.clone(),
        }
    }

    /// Writes the report, sends it, shows the verdict.
    pub(super) fn deliver(&mut self) {
        let mut report = self.report(true);
        let written = self.write_report(&report);
        self.delivery = self.send_report(&report);
        let delivery = self.delivery.clone();
        self.stay_for_the_screen(Whereabouts::Known {
            is_written: written.is_some(),
            delivery: delivery.as_ref(),
        });
        let is_sent = delivery.as_ref().is_some_and(|delivery| delivery.sent);
        let has_news = delivery.is_some() || self.journal.problems.len() > report.problems.len();
        if written.is_some() && has_news {
            // What was written cannot say what became of it afterwards. Where this fails, that stays.
            report = self.report(true);
            let _ = self.write_report(&report);
        }
        if written.is_none() && !is_sent {
            report = self.report(true);
            self.say_report(&report);
        }
        let place = self.where_it_is(written.as_deref());
        self.journal.consoles.screen(|style| screen::render(&report, &place, style));
        self.journal.consoles.event(What::Verdict {
            verdict: report.verdict,
            route: report.route,
            simulated: report.is_simulated(),
            exit_status: report.verdict.status() as u8,
            run_id: report.run_id,
            path: written,
        });
    }

    /// Where the report is, for the screen.
    fn where_it_is(&self, written: Option<&str>) -> String {
        match (written, &self.delivery) {
            (Some(folder), delivery) => {
                let disk = match &self.place {
                    Some(Place { rank: Rank::Own, .. }) | None => String::new(),
                    Some(place) => format!(" of {}", place.partition.disk),
                };
                // The screen has no room for where to; the report says that.
                let sent = match delivery {
                    Some(delivery) if delivery.sent => "; sent",
                    Some(_) => "; NOT sent",
                    None => "",
                };
                format!("{folder}/{RUN_REPORT_TEXT} on the partition {REPORT_LABEL}{disk}{sent}")
            }
            (None, Some(delivery)) if delivery.sent => delivery.words(),
            (None, _) => match self.partition {
                Some(_) => "could not be written; the whole text stands on the serial line".into(),
                None => format!(
                    "nowhere: no {REPORT_LABEL} can be written to. The serial line has all of it, the code the verdict"
                ),
            },
        }
    }

    /// The run's folder, where it was written. That other forms of it were not is a problem, and no more.
    fn write_report(&mut self, report: &Report) -> Option<String> {
        let partition = self.partition.take()?;
        let written = self.journal.stage(WRITE, |journal| {
            partition.write(report)?;
            if let Err(error) = partition.write_other_forms(report) {
                journal.problem(WRITE, crate::error::one_line(&error));
            }
            Ok(partition.folder())
        });
        self.partition = Some(partition);
        written
    }

    /// Sends the report where that was asked for, and tells what became of it. The network is started for that alone, so that
    /// nothing is measured beside it.
    fn send_report(&mut self, report: &Report) -> Option<Delivery> {
        let url = self.report_url.clone()?;
        if self.no_root.is_some() {
            let delivery = delivery::not_sent(&url, "what sends it lies in the root");
            self.journal.problem(SEND, format!("the report was {}", delivery.words()));
            return Some(delivery);
        }
        let (root, net, settings) = (self.root.clone(), self.net.clone(), self.settings.clone());
        let mounted = self.partition.as_ref().map(|partition| partition.root().to_owned());
        let folder = folder_name(report.started, &report.run_id);
        let delivery = self.journal.stage(SEND, |journal| {
            let mut bytes = Vec::new();
            json::write(report, &mut bytes)?;
            let parcel = Parcel {
                url: &url,
                run_id: &report.run_id,
                folder: &folder,
                report: &bytes,
                ca: settings.report_ca.as_deref(),
                partition: mounted.as_deref(),
                net: &net,
                seconds: settings.report_seconds,
            };
            let delivery = delivery::send(&root, &parcel, &mut |text| journal.consoles.say(text));
            match &delivery.error {
                Some(_) => journal.problem(SEND, format!("the report was {}", delivery.words())),
                None => journal.consoles.say(&format!("the report was {}", delivery.words())),
            }
            Ok(delivery)
        });
        // A panic's words are the last problem.
        let why =
            || self.journal.last_problem().map_or("unknown", |problem| problem.what.as_str()).to_owned();
        Some(delivery.unwrap_or_else(|| delivery::not_sent(&url, why())))
    }

    fn say_report(&mut self, report: &Report) {
        let mut bytes = Vec::new();
        if text::write(report, &mut bytes).is_ok() {
            self.journal.consoles.text_report(&String::from_utf8_lossy(&bytes));
        }
    }
}
