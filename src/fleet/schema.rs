//! The columns and the databases' tables in docs/reports.md, made from the register of columns itself.

use super::column::{COLUMNS, Kind, SCHEMA};
use std::fmt::Write as _;
use std::path::Path;

const BEGIN: &str = "<!-- Made by the test `the_table_s_form_is_written_down`; `GDSBOOT_BLESS=1 cargo test --lib fleet` renews it. -->\n";
const END: &str = "<!-- Up to here. -->\n";

fn sql(heading: &str, of: fn(Kind) -> &'static str, end: &str) -> String {
    let columns: Vec<String> =
        COLUMNS.iter().map(|column| format!("  {} {}", column.name, of(column.kind))).collect();
    format!("```sql\n{heading} (\n{}\n){end};\n```\n", columns.join(",\n"))
}

fn duckdb(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "VARCHAR",
        Kind::Time => "TIMESTAMPTZ",
        Kind::Flag => "BOOLEAN",
        Kind::Count => "UBIGINT",
        Kind::Number => "DOUBLE",
        Kind::List => "VARCHAR[]",
    }
}

fn clickhouse(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "Nullable(String)",
        Kind::Time => "DateTime('UTC')",
        Kind::Flag => "Nullable(Bool)",
        Kind::Count => "Nullable(UInt64)",
        Kind::Number => "Nullable(Float64)",
        Kind::List => "Array(String)",
    }
}

fn section() -> String {
    let mut text = format!(
        "{BEGIN}\nVersion {SCHEMA} of the table's form.\n\n| column | holds | what |\n|---|---|---|\n"
    );
    for column in COLUMNS {
        let holds = match column.kind {
            Kind::Text => "text",
            Kind::Time => "time",
            Kind::Flag => "true or false",
            Kind::Count => "whole number",
            Kind::Number => "number",
            Kind::List => "texts",
        };
        let _ = writeln!(text, "| `{}` | {holds} | {} |", column.name, column.meaning);
    }
    let _ = write!(
        text,
        "\nDuckDB:\n\n{}\n```sql\nCOPY runs FROM 'fleet.jsonl' (FORMAT json);\n```\n\nClickHouse:\n\n{}\n```sql\n\
         INSERT INTO runs FROM INFILE 'fleet.jsonl' SETTINGS date_time_input_format = 'best_effort' FORMAT JSONEachRow;\n```\n\n{END}",
        sql("CREATE TABLE runs", duckdb, ""),
        sql("CREATE TABLE runs", clickhouse, " ENGINE = MergeTree ORDER BY started"),
    );
    text
}

#[test]
fn the_table_s_form_is_written_down() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reports.md");
    let text = fs_err::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let wanted = format!("{before}{}{after}", section());
    if std::env::var_os("GDSBOOT_BLESS").is_some() {
        fs_err::write(&path, &wanted).unwrap();
    }
    assert!(
        text == wanted,
        "docs/reports.md is not what the columns are: GDSBOOT_BLESS=1 cargo test --lib fleet"
    );
}

#[test]
fn columns_have_one_name_each() {
    let mut names: Vec<&str> = COLUMNS.iter().map(|column| column.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), COLUMNS.len());
}
