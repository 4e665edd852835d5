//! Makes what was reported what a machine file expects.

use super::Summary;
use super::expectation::Expectation;
use super::machine::Machine;
use super::outcome::Reported;
use crate::builder::output::Output;
use crate::error::{hinted, usage};
use anyhow::{Context as _, Result};
use std::io::Write as _;
use std::path::Path;

/// Can this machine's file be rewritten?
///
/// # Errors
/// It is not a file: the machines that gdsboot brings are compiled into it.
pub fn check(name: &str) -> Result<()> {
    if name.contains('/') || name.ends_with(".toml") {
        return Ok(());
    }
    Err(usage(
        format!("{name} is built in, and its file is not known here"),
        format!("name the file: --machine qemu/machines/{name}.toml"),
    ))
}

/// Rewrites the table `[expect]` of the machine file `path`, from which `machine` was read, by the reports of its boots; what
/// came of it. What the boots differ in is left out.
///
/// # Errors
/// A boot left no report, the boots differ in what every expectation says, or the file cannot be written; it is as it was then.
pub fn update(path: &str, machine: &Machine, summary: &Summary) -> Result<String> {
    let boots: Vec<_> = summary.boots.iter().filter(|boot| boot.machine == machine.name).collect();
    let reports: Vec<&Reported> = boots.iter().filter_map(|boot| boot.result.as_ref().ok()).collect();
    if reports.len() < boots.len() || reports.is_empty() {
        let what = format!("{path} stays as it is: {} of {} boots left a report", reports.len(), boots.len());
        return Err(hinted(what, "mend that first: the boots' last lines are above"));
    }
    let new = Expectation::of(&reports)
        .map_err(|what| hinted(format!("{path} stays as it is: {what}"), "make two machine files of it"))?
        .with_profiles_of(machine.expect.as_ref());
    if machine.expect.as_ref() == Some(&new) {
        return Ok(format!("{path}: already so"));
    }
    let text = fs_err::read_to_string(path)?;
    let output = Output::new(Path::new(path))?;
    output.write(|mut file| {
        file.write_all(new.put_into(&text).as_bytes()).context("writing the machine file")
    })?;
    let boots = match boots.len() {
        1 => "1 boot".to_owned(),
        several => format!("{several} boots"),
    };
    Ok(format!("{path}: rewritten by {boots}"))
}
