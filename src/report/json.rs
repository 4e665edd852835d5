//! The report for programs: JSON, indented, UTF-8, one object, keys in the order of [`super::model`].

use super::model::{Report, SCHEMA};
use anyhow::{Context as _, ensure};
use serde::Serialize;
use std::io::Write;

/// A value as indented JSON with a final line break. All that is large is printed by this, so that the code for facts
/// and findings exists for one kind of writer.
pub fn pretty(value: &impl Serialize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Writes `report` and a final line break.
pub fn write(report: &Report, out: &mut dyn Write) -> anyhow::Result<()> {
    let bytes = pretty(report).context("writing the report as JSON")?;
    out.write_all(&bytes).context("writing the report as JSON")
}

/// Reads a report that [`write`] wrote. Fields that this version does not know are ignored; a newer schema is refused.
pub fn read(bytes: &[u8]) -> anyhow::Result<Report> {
    #[derive(serde::Deserialize)]
    struct Head {
        schema: u32,
    }
    let head: Head = serde_json::from_slice(bytes).context("reading the report's schema version")?;
    ensure!(head.schema <= SCHEMA, "reading the report: its schema {} is newer than {SCHEMA}", head.schema);
    serde_json::from_slice(bytes).context("reading the report")
}
