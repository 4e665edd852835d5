//! The table as CSV (RFC 4180): a heading, UTF-8, texts of a list separated by `; `.

use super::column::{COLUMNS, Cell};
use super::row::Row;
use anyhow::{Context as _, Result};
use std::io::Write;

/// Spreadsheets take a text that begins so for a formula, and a report may come from a stranger.
const FORMULA: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

/// Writes the table. A text that a spreadsheet would compute gets an apostrophe before it.
///
/// # Errors
/// `out` fails.
pub fn write(rows: &[Row], out: &mut dyn Write) -> Result<()> {
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record(COLUMNS.iter().map(|column| column.name)).context("writing the table")?;
    for row in rows {
        let cells = COLUMNS.iter().map(|column| {
            let cell = (column.of)(row);
            let words = cell.words();
            match cell {
                Cell::Text(_) | Cell::List(_) if words.starts_with(FORMULA) => format!("'{words}"),
                _ => words,
            }
        });
        csv.write_record(cells).context("writing the table")?;
    }
    csv.flush().context("writing the table")
}
