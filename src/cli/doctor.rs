//! `gdsboot doctor`: what is missing on this host.

use super::common::Global;
use anyhow::{Context as _, Result};
use gdsboot::builder::doctor;
use gdsboot::builder::profile::{self, Profile};
use gdsboot::error::Status;
use gdsboot::output_stream::stdout;
use std::io::Write as _;

/// Say what is missing on this host
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    /// The profile that is to be built: a name, or a .toml file [default: this host's family]
    profile: Option<String>,
    /// A mirror for one of the profile's sources (may be repeated)
    #[arg(long, value_name = "[SOURCE=]URL")]
    mirror: Vec<String>,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &DoctorArgs, global: &Global) -> Result<Status> {
    let host = fs_err::read_to_string("/etc/os-release").unwrap_or_default();
    let name = args.profile.as_deref().unwrap_or_else(|| profile::for_host(&host));
    let cache = global.cache();
    let findings = doctor::examine(
        &Profile::load(name)?,
        &args.mirror,
        cache.as_ref().map_err(|e| anyhow::anyhow!("{e:#}")),
    );
    let mut out = stdout();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &findings).context("writing the findings")?;
        writeln!(out)?;
    } else {
        writeln!(out, "for the profile {name}:")?;
        for finding in &findings {
            writeln!(
                out,
                "  {:<16} {:<8} {}",
                finding.what,
                if finding.ok { "ok" } else { "MISSING" },
                finding.found
            )?;
            if let Some(remedy) = &finding.remedy {
                writeln!(out, "  {:<25} remedy: {remedy}", "")?;
            }
        }
    }
    Ok(if findings.iter().all(|f| f.ok) { Status::Pass } else { Status::Unavailable })
}
