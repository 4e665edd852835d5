//! `check` and `judge`: facts, from a machine or from an earlier run, judged by today's rules.

use super::machine::Machine;
use anyhow::Context as _;
use clap::ValueEnum;
use gdsboot::bench::results::Results;
use gdsboot::checks::check::Side;
use gdsboot::checks::context::side_of;
use gdsboot::checks::judge::{Judgement, judge as judge_facts};
use gdsboot::checks::waiver::{self, Waiver};
use gdsboot::error::{Advise as _, Status};
use gdsboot::facts::{Facts, Root};
use gdsboot::report::model::{Report, new_run_id};
use gdsboot::report::utc::Utc;
use gdsboot::report::{findings, html, json, junit};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Judge a machine: what must be mended, by whom, and in which order
///
/// Nothing is proven without a transfer, so that a machine on which all is well is INCOMPLETE here.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    #[command(flatten)]
    machine: Machine,
    #[command(flatten)]
    how: How,
}

/// Judge the facts of an earlier run again, by today's rules
#[derive(Debug, clap::Args)]
pub struct JudgeArgs {
    /// What `facts --json` printed, or a report.json
    #[arg(value_name = "FACTS.json")]
    file: PathBuf,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Args)]
struct How {
    /// From which side the machine is looked at
    #[arg(long, value_name = "SIDE", default_value = "auto")]
    side: SideName,
    /// A TOML file with [[waive]] tables: findings to live with for a while
    #[arg(long, value_name = "FILE")]
    waive: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Write a page for browsers as well
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write a report.json with the facts as well
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write JUnit XML as well
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SideName {
    /// As the machine looks
    Auto,
    /// A virtual machine that was given devices
    Guest,
    /// A hypervisor that gives devices away
    Host,
    /// A machine that does GPUDirect Storage itself
    BareMetal,
}

pub fn check(args: &CheckArgs) -> anyhow::Result<Status> {
    let (facts, bench) = args.machine.read()?;
    args.how.judge(facts, bench)
}

pub fn judge(args: &JudgeArgs) -> anyhow::Result<Status> {
    let path = args.file.display();
    let hint = "name what `gdsboot-validator facts --json` printed, or a report.json";
    let read = || -> anyhow::Result<(Facts, Option<Results>)> {
        let value: serde_json::Value = serde_json::from_slice(&std::fs::read(&args.file)?)?;
        // A report holds what it was made from.
        let mut bench = None;
        let value = match value {
            serde_json::Value::Object(mut map) if map.contains_key("schema") => {
                bench = map.remove("benchmark").map(serde_json::from_value).transpose()?.flatten();
                map.remove("facts").context("the report has no facts")?
            }
            other => other,
        };
        anyhow::ensure!(
            value.get("pci").is_some() && value.get("kernel").is_some(),
            "these are no facts of a machine"
        );
        Ok((serde_json::from_value(value)?, bench))
    };
    let (facts, bench) =
        read().with_context(|| format!("reading {path}")).hint(hint).status(Status::Usage)?;
    args.how.judge(facts, bench)
}

impl How {
    fn judge(&self, facts: Facts, bench: Option<Results>) -> anyhow::Result<Status> {
        let side = match self.side {
            SideName::Auto => side_of(&facts),
            SideName::Guest => Side::Guest,
            SideName::Host => Side::Host,
            SideName::BareMetal => Side::BareMetal,
        };
        let waivers = self.waive.as_deref().map(waivers).transpose()?.unwrap_or_default();
        let judgement = judge_facts(&facts, side, bench.as_ref(), &waivers, &Utc::now().day());
        if self.json {
            super::print_json(&judgement)?;
        } else {
            let mut out = Vec::new();
            findings::write(&judgement, &mut out)?;
            super::print(&out)?;
        }
        if let Some(path) = &self.junit {
            let Judgement { verdict, simulated, findings, .. } = &judgement;
            write(path, |out| junit::write(*verdict, *simulated, findings, out))?;
        }
        let status = judgement.verdict.status();
        if self.html.is_some() || self.report.is_some() {
            let run_id = new_run_id(&Root::live());
            let report = Report::of_check(facts, bench, judgement, run_id, Utc::now());
            if let Some(path) = &self.html {
                write(path, |out| html::write(&report, out))?;
            }
            if let Some(path) = &self.report {
                write(path, |out| json::write(&report, out))?;
            }
        }
        Ok(status)
    }
}

/// The waivers of a file; unlike on a machine that must boot, a mistake in one is an error.
fn waivers(path: &Path) -> anyhow::Result<Vec<Waiver>> {
    let read = || -> anyhow::Result<Vec<Waiver>> {
        let (waivers, complaints) = waiver::parse(&std::fs::read_to_string(path)?.parse()?);
        anyhow::ensure!(complaints.is_empty(), "{}", complaints.join("; "));
        Ok(waivers)
    };
    read()
        .with_context(|| format!("reading {}", path.display()))
        .hint("each [[waive]] has id, until, by and why")
        .status(Status::Usage)
}

/// Writes a file that is there as a whole or not at all.
fn write(path: &Path, render: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut bytes = Vec::new();
    render(&mut bytes)?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(".".as_ref());
    let put = || -> anyhow::Result<()> {
        let mut temp = tempfile::NamedTempFile::new_in(folder)?;
        temp.write_all(&bytes)?;
        temp.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        temp.persist(path)?;
        Ok(())
    };
    put()
        .with_context(|| format!("writing {}", path.display()))
        .hint("name a file in a folder that can be written to")
        .status(Status::Usage)
}
