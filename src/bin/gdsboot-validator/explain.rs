//! `list` and `explain`: the rules themselves.

use gdsboot::checks;
use gdsboot::checks::check::{Check, Side};
use gdsboot::error::{Status, usage};
use gdsboot::report::findings::severity_word;
use serde::Serialize;
use std::fmt::Write as _;

/// List all checks
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Say what a check looks at, why, and where the rule comes from
#[derive(Debug, clap::Args)]
pub struct ExplainArgs {
    /// Its id, as `list` prints it
    check: String,
}

/// A rule for programs.
#[derive(Debug, Serialize)]
struct Rule {
    id: &'static str,
    title: &'static str,
    sides: &'static [Side],
    requires: &'static [&'static str],
    severity: gdsboot::checks::check::Severity,
    rationale: &'static str,
    references: &'static [&'static str],
    covers: &'static [&'static str],
}

impl Rule {
    fn of(check: &'static Check) -> Self {
        Self {
            id: check.id,
            title: check.title,
            sides: check.sides,
            requires: check.requires,
            severity: check.severity,
            rationale: check.rationale,
            references: check.references,
            covers: check.covers,
        }
    }
}

pub fn list(args: &ListArgs) -> anyhow::Result<Status> {
    if args.json {
        super::print_json(&checks::all().map(Rule::of).collect::<Vec<_>>())?;
        return Ok(Status::Pass);
    }
    let mut text = String::new();
    for check in checks::all() {
        let _ = writeln!(text, "{:<26} {}", check.id, check.title);
    }
    super::print(text.as_bytes())?;
    Ok(Status::Pass)
}

pub fn explain(args: &ExplainArgs) -> anyhow::Result<Status> {
    let Some(check) = checks::find(&args.check) else {
        let near: Vec<_> = checks::all()
            .map(|check| check.id)
            .filter(|id| id.split('.').any(|part| args.check.contains(part)))
            .collect();
        let hint = if near.is_empty() {
            "gdsboot-validator list prints all of them".to_owned()
        } else {
            format!("there is {}", near.join(", "))
        };
        return Err(usage(format!("there is no check {:?}", args.check), hint));
    };
    let sides: Vec<_> = check.sides.iter().map(|side| side_word(*side)).collect();
    let mut text = format!("{}: {}\n\n{}\n\n", check.id, check.title, check.rationale);
    let _ = writeln!(text, "applies to   {}", sides.join(", "));
    let _ = writeln!(text, "a failure    {}", severity_word(check.severity));
    let mut list = |label: &str, items: &[&str]| {
        for (n, item) in items.iter().enumerate() {
            let _ = writeln!(text, "{:<12} {item}", if n == 0 { label } else { "" });
        }
    };
    list("requires", check.requires);
    list("covers", check.covers);
    list("source", check.references);
    super::print(text.as_bytes())?;
    Ok(Status::Pass)
}

fn side_word(side: Side) -> &'static str {
    match side {
        Side::Guest => "guest",
        Side::Host => "hypervisor",
        Side::BareMetal => "bare metal",
    }
}
