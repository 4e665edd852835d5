//! What is known of a machine that this program does not run on: a report, `facts --json`, or a capture.

use crate::bench::results::Results;
use crate::checks::waiver::Waiver;
use crate::error::{Advise as _, Status, usage};
use crate::facts::unpack::unpack;
use crate::facts::{Facts, Root};
use crate::report::model::SCHEMA;
use crate::report::utc::Utc;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::io::Read as _;
use std::path::Path;

/// More than any report has.
const LIMIT: u64 = 64 << 20;

/// A machine as somebody read it.
#[derive(Clone, Debug)]
pub struct Known {
    /// What was named.
    pub from: String,
    /// The machine's facts.
    pub facts: Facts,
    /// What a benchmark found there.
    pub bench: Option<Results>,
    /// Findings that somebody decided to live with there.
    pub waive: Vec<Waiver>,
    /// When it was read, by its own clock; `None` where that was not kept.
    pub at: Option<Utc>,
}

/// Reads a machine: a report.json, what `facts --json` printed, a capture's folder or `.tar.zst`.
///
/// # Errors
/// It is none of these; [`Status::Usage`].
pub fn read(path: &Path) -> Result<Known> {
    let from = path.display().to_string();
    let hint = "name a report.json, what `gdsboot-validator facts --json` printed, or a capture's folder or .tar.zst";
    let of_root = |root: Root| Known {
        from: from.clone(),
        facts: Facts::read(&root),
        bench: Results::left_by_run(&root),
        waive: Vec::new(),
        at: None,
    };
    if path.is_dir() {
        let known = of_root(Root::at(path));
        if known.facts.pci.value().is_none() && known.facts.kernel.release.value().is_none() {
            return Err(usage(format!("reading {from}: this folder mirrors no machine"), hint));
        }
        return Ok(known);
    }
    let read = || -> Result<Known> {
        let file = std::fs::File::open(path)?;
        let mut head = [0; 4];
        let is_packed = (&file).read(&mut head)? == 4 && head == [0x28, 0xb5, 0x2f, 0xfd];
        if is_packed {
            let folder = tempfile::tempdir().context("making a folder for the capture")?;
            unpack(path, folder.path())?;
            return Ok(of_root(Root::at(folder.path())));
        }
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(LIMIT + 1).read_to_end(&mut bytes)?;
        ensure!(bytes.len() as u64 <= LIMIT, "it is longer than {LIMIT} bytes");
        parse(&from, &bytes)
    };
    read().with_context(|| format!("reading {from}")).hint(hint).status(Status::Usage)
}

/// Reads JSON: a report, or facts alone.
///
/// # Errors
/// It is neither, or a newer gdsboot wrote it.
pub fn parse(from: &str, bytes: &[u8]) -> Result<Known> {
    let value: Value = serde_json::from_slice(bytes).context("it is no JSON")?;
    let Value::Object(mut map) = value else { anyhow::bail!("it is no JSON object") };
    let known = |facts: Value, bench, waive, at| -> Result<Known> {
        ensure!(
            facts.get("pci").is_some() && facts.get("kernel").is_some(),
            "these are no facts of a machine"
        );
        Ok(Known { from: from.to_owned(), facts: serde_json::from_value(facts)?, bench, waive, at })
    };
    if map.contains_key("findings") && !map.contains_key("facts") {
        anyhow::bail!("these are findings without the facts that they were made from");
    }
    let Some(schema) = map.get("schema").and_then(Value::as_u64) else {
        return known(Value::Object(map), None, Vec::new(), None);
    };
    ensure!(schema <= u64::from(SCHEMA), "a newer gdsboot wrote it (form {schema}, known up to {SCHEMA})");
    let bench = map.remove("benchmark").map(serde_json::from_value).transpose()?.flatten();
    let at = map.remove("started").map(serde_json::from_value).transpose()?;
    let waive = map.get_mut("settings").and_then(|settings| settings.get_mut("waive")).map(Value::take);
    let waive = waive.map(serde_json::from_value).transpose()?.unwrap_or_default();
    known(map.remove("facts").context("the report has no facts")?, bench, waive, at)
}
