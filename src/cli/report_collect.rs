//! `gdsboot report collect`: a table of many machines.

use super::common::Global;
use super::report::{SOURCES, looking_into};
use anyhow::{Context as _, Result};
use gdsboot::builder::output::Output;
use gdsboot::error::{Advise as _, Status, advised_line, hinted, usage};
use gdsboot::fleet::{Fleet, collect, csv, jsonl, page, prometheus, summary};
use gdsboot::output_stream::stdout;
use gdsboot::progress::Progress;
use gdsboot::report::source::Source;
use gdsboot::report::utc::Utc;
use std::io::Write;
use std::path::PathBuf;

/// Make one table of many machines, and say which of them deviate from the others
///
/// One row for each machine: its newest complete run. Machines are compared where product and kinds of GPU are the same.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{SOURCES}\n\nExit status: 0, also where machines fail or deviate; 69 where a report \
    could not be read: the others are in the table"))]
pub struct CollectArgs {
    /// Where the reports are
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<PathBuf>,
    /// In which forms, separated by commas [default: what the ending of --output says, or all for a folder]
    #[arg(long, value_name = "FORMAT", value_delimiter = ',')]
    format: Vec<Table>,
    /// The file, or the folder for several forms; `-` is standard output [default: a summary alone]
    #[arg(long, short, value_name = "FILE|DIR")]
    output: Option<PathBuf>,
    /// One row for each run
    #[arg(long)]
    all_runs: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Table {
    /// For spreadsheets: fleet.csv
    Csv,
    /// For databases, a line of JSON for each row: fleet.jsonl
    Jsonl,
    /// A page with filters that needs no server: fleet.html
    Html,
    /// Metrics of each machine's newest run: fleet.prom
    Prometheus,
}

const TABLES: [Table; 4] = [Table::Csv, Table::Jsonl, Table::Html, Table::Prometheus];

impl Table {
    fn ending(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Jsonl => "jsonl",
            Self::Html => "html",
            Self::Prometheus => "prom",
        }
    }

    fn write(self, fleet: &Fleet, out: &mut dyn Write) -> Result<()> {
        match self {
            Self::Csv => csv::write(&fleet.rows, out),
            Self::Jsonl => jsonl::write(&fleet.rows, out),
            Self::Html => page::write(fleet, Utc::now(), out),
            Self::Prometheus => prometheus::write(&fleet.current(), out),
        }
    }
}

/// Runs the command.
pub fn run(args: &CollectArgs, global: &Global) -> Result<Status> {
    let outputs = outputs(args)?;
    let progress = global.progress();
    let mut sources = Vec::new();
    let mut unopened = Vec::new();
    for path in &args.sources {
        match Source::open(path) {
            Ok(source) => sources.push(source),
            // Of one source, the error is the command's own.
            Err(error) if args.sources.len() == 1 => return Err(error),
            Err(error) => unopened.push(advised_line(&error)),
        }
    }
    let mut fleet = collect(&sources, args.all_runs, &progress)?;
    fleet.problems.splice(0..0, unopened);
    if fleet.rows.is_empty() {
        return none_collected(&fleet, args, &progress);
    }
    let to_stdout = outputs.iter().any(|(_, output)| output.is_none());
    for (table, output) in &outputs {
        match output {
            None => table.write(&fleet, &mut stdout())?,
            Some(output) => output.write(|file| {
                let mut out = std::io::BufWriter::new(file);
                table.write(&fleet, &mut out)?;
                out.flush().context("writing the table")
            })?,
        }
    }
    let mut lines = summary::lines(&fleet);
    lines.extend(
        outputs.iter().filter_map(|(_, output)| Some(format!("wrote {}", output.as_ref()?.path().display()))),
    );
    for line in lines {
        let said =
            if to_stdout { writeln!(std::io::stderr(), "{line}") } else { writeln!(stdout(), "{line}") };
        said.context("writing the summary")?;
    }
    say_of_fleet(&fleet, &progress);
    Ok(if fleet.problems.is_empty() { Status::Pass } else { Status::Unavailable })
}

fn say_of_fleet(fleet: &Fleet, progress: &Progress) {
    fleet.notes.iter().for_each(|note| progress.note(note));
    fleet.problems.iter().for_each(|problem| progress.note(format!("problem: {problem}")));
}

/// Without a single report nothing is written: a table that was there is better than an empty one.
fn none_collected(fleet: &Fleet, args: &CollectArgs, progress: &Progress) -> Result<Status> {
    say_of_fleet(fleet, progress);
    if fleet.problems.is_empty() {
        return Err(usage(
            format!("{}: there is no report in it", looking_into(&args.sources)),
            "boot the image; each boot leaves a run on its report partition",
        ));
    }
    let what = format!("{}: no report could be read, and nothing was written", looking_into(&args.sources));
    Err(hinted(what, "what is wrong with each of them is said above"))
}

/// What is written, and where: `None` is standard output. Checked before anything is read.
fn outputs(args: &CollectArgs) -> Result<Vec<(Table, Option<Output>)>> {
    let Some(path) = &args.output else {
        return match args.format.as_slice() {
            [] => Ok(Vec::new()),
            [table] => Ok(vec![(*table, None)]),
            _ => Err(usage("several forms do not fit on standard output", "name a folder for them: -o DIR")),
        };
    };
    let by_ending =
        TABLES.into_iter().find(|table| path.extension().is_some_and(|ending| ending == table.ending()));
    let tables = match (args.format.as_slice(), by_ending) {
        ([], Some(table)) if !path.is_dir() => vec![table],
        ([], _) => TABLES.to_vec(),
        (named, _) => named.to_vec(),
    };
    if path.as_os_str() == "-" {
        return match tables.as_slice() {
            [table] if !args.format.is_empty() => Ok(vec![(*table, None)]),
            _ => Err(usage("one form fits on standard output", "name it: --format csv")),
        };
    }
    if let ([table], false) = (tables.as_slice(), path.is_dir()) {
        return Ok(vec![(*table, Some(Output::new(path)?))]);
    }
    if by_ending.is_some() && !path.is_dir() {
        return Err(usage(
            format!("several forms do not fit into the file {}", path.display()),
            "name a folder for them: -o DIR",
        ));
    }
    fs_err::create_dir_all(path).context("making the folder for the tables").status(Status::Usage)?;
    let output = |table: Table| Output::new(&path.join(format!("fleet.{}", table.ending())));
    tables.into_iter().map(|table| Ok((table, Some(output(table)?)))).collect()
}
