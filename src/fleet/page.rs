//! The table as one HTML page that needs no server and nothing from elsewhere: the rows are data in it, and a script of its own
//! filters and sorts them. Its policy forbids everything else, and names the script by its hash.

use super::Fleet;
use super::column::{COLUMNS, Kind};
use super::deviation::Group;
use crate::report::utc::Utc;
use anyhow::{Context as _, Result};
use base64::Engine as _;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, context};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::io::Write;

const TEMPLATE: &str = include_str!("../../image/templates/fleet.html");
const SCRIPT: &str = include_str!("../../image/templates/fleet.js");
/// More groups are seen by filtering.
const GROUPS: usize = 50;

#[derive(Serialize)]
struct Page<'a> {
    made: String,
    machines: usize,
    rows: usize,
    simulated: usize,
    groups: &'a [Group],
    more_groups: usize,
    notes: &'a [String],
    problems: &'a [String],
    unread: usize,
}

/// Writes the page; `made` is when.
///
/// # Errors
/// `out` fails.
pub fn write(fleet: &Fleet, made: Utc, out: &mut dyn Write) -> Result<()> {
    let shown = fleet.groups.len().min(GROUPS);
    let page = Page {
        made: made.to_string(),
        machines: fleet.machines,
        rows: fleet.rows.len(),
        simulated: fleet.rows.iter().filter(|row| row.simulated).count(),
        groups: &fleet.groups[..shown],
        more_groups: fleet.groups.len() - shown,
        notes: &fleet.notes,
        problems: &fleet.problems,
        unread: fleet.problems.len(),
    };
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    let hash = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(SCRIPT));
    let values = context! {
        page => Serde(&page),
        script => SCRIPT,
        hash => hash,
        data => data(fleet)?,
    };
    let text = environment.render_named_str("fleet.html", TEMPLATE, values).context("making the page")?;
    out.write_all(text.as_bytes()).context("writing the page")
}

/// The columns and rows as JSON that may stand in a page: nothing in it can end the element.
fn data(fleet: &Fleet) -> Result<String> {
    let kind = |kind: Kind| match kind {
        Kind::Text | Kind::Time => "text",
        Kind::Flag => "flag",
        Kind::Count | Kind::Number => "number",
        Kind::List => "list",
    };
    let columns: Vec<Value> =
        COLUMNS.iter().map(|c| json!({"name": c.name, "kind": kind(c.kind), "meaning": c.meaning})).collect();
    let rows: Vec<Vec<Value>> =
        fleet.rows.iter().map(|row| COLUMNS.iter().map(|column| (column.of)(row).json()).collect()).collect();
    let text =
        serde_json::to_string(&json!({"columns": columns, "rows": rows})).context("making the page")?;
    Ok(text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026"))
}
