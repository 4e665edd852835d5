//! The report for programs: JSON, indented, UTF-8, one object, keys in the order of [`super::model`].

use super::model::{Report, SCHEMA, Verdict};
use super::utc::Utc;
use crate::error::hinted;
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::fmt;
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
    check_schema(bytes)?;
    serde_json::from_slice(bytes).context("reading the report")
}

/// What stands at the top of a report.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Head {
    /// gdsboot's version that wrote it.
    pub gdsboot: String,
    /// [`Report::run_id`].
    pub run_id: String,
    /// [`Report::started`].
    pub started: Utc,
    /// [`Report::complete`].
    pub complete: bool,
    /// [`Report::verdict`].
    pub verdict: Verdict,
}

/// Reads a report's top alone.
///
/// # Errors
/// As [`read`].
pub fn head(bytes: &[u8]) -> anyhow::Result<Head> {
    check_schema(bytes)?;
    serde_json::from_slice(bytes).context("reading the report")
}

/// It is JSON, and no report.
#[derive(Debug)]
pub struct NotAReport;

impl fmt::Display for NotAReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is no report of gdsboot: it has no schema and no run_id")
    }
}

impl std::error::Error for NotAReport {}

/// Refuses what is no report, and a newer schema: its other fields may have any form.
///
/// # Errors
/// The bytes are no JSON; [`NotAReport`]; the schema is newer than [`SCHEMA`], with the version that wrote it.
pub fn check_schema(bytes: &[u8]) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct Version {
        schema: Option<u32>,
        run_id: Option<serde_json::Value>,
        gdsboot: Option<serde_json::Value>,
    }
    let version: Version = match serde_json::from_slice(bytes) {
        Err(error) if error.is_data() => return Err(NotAReport.into()),
        version => version.context("reading the report's schema version")?,
    };
    match version {
        Version { schema: Some(..=SCHEMA), run_id: Some(_), .. } => Ok(()),
        Version { schema: Some(schema), gdsboot, .. } if schema > SCHEMA => {
            let by = gdsboot.as_ref().and_then(|by| by.as_str()).unwrap_or("of a later version");
            Err(hinted(
                format!(
                    "reading the report: its schema {schema} is newer than {SCHEMA}: gdsboot {by} wrote it"
                ),
                format!("read it with gdsboot {by} or a newer one; this is {}", env!("CARGO_PKG_VERSION")),
            ))
        }
        _ => Err(NotAReport.into()),
    }
}
