//! The table as JSON lines: one object for each row, all columns in their order, `null` where nothing is known, lists as
//! arrays. ClickHouse reads it as `JSONEachRow`, DuckDB by `read_json`.

use super::column::COLUMNS;
use super::row::Row;
use anyhow::{Context as _, Result};
use serde_json::{Map, Value};
use std::io::Write;

/// Writes the table.
///
/// # Errors
/// `out` fails.
pub fn write(rows: &[Row], out: &mut dyn Write) -> Result<()> {
    for row in rows {
        let object: Map<String, Value> =
            COLUMNS.iter().map(|column| (column.name.to_owned(), (column.of)(row).json())).collect();
        serde_json::to_writer(&mut *out, &object).context("writing the table")?;
        out.write_all(b"\n").context("writing the table")?;
    }
    Ok(())
}
