//! `gdsboot report`: reports read back from wherever they are.

use super::common::Global;
use super::report_collect::{self, CollectArgs};
use anyhow::{Context as _, Result};
use gdsboot::error::{Status, advised_line};
use gdsboot::fleet::row::Row;
use gdsboot::fleet::{jsonl, prometheus};
use gdsboot::output_stream::stdout;
use gdsboot::report::diff::{self, Compared, Samples, diff};
use gdsboot::report::extract::{Extracted, extract_as, names};
use gdsboot::report::layout::clean;
use gdsboot::report::model::Report;
use gdsboot::report::runs::{Catalogue, End, Listed};
use gdsboot::report::source::Source;
use gdsboot::report::{html, json, junit, text};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Read reports from images, sticks, folders and files; nothing is mounted
#[derive(Debug, clap::Args)]
pub struct ReportArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Show(ShowArgs),
    Extract(ExtractArgs),
    Diff(DiffArgs),
    Collect(CollectArgs),
}

/// What a source is, in every command's help.
pub const SOURCES: &str = "A SOURCE is an image, a qcow2 image, a stick (/dev/sdb), its report partition (/dev/sdb2), \
    a folder (a mounted stick, a run's own folder, a tree of those or of report JSON files), or a report.json.";

/// Print one run's report
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{SOURCES}\n\nExit status: the verdict's, 0 PASS, 1 FAIL, 2 INCOMPLETE (also a run \
    that was cut off)"))]
pub struct ShowArgs {
    /// Where the reports are
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<PathBuf>,
    /// Which run: its id, its folder's name, or its number in --list [default: the newest complete one]
    #[arg(long, value_name = "ID|N")]
    run: Option<String>,
    /// In which form
    #[arg(long, default_value = "text", value_name = "FORMAT")]
    format: Format,
    /// List the runs instead, oldest first
    #[arg(long, conflicts_with_all = ["run", "format"])]
    list: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people, 80 columns
    Text,
    /// As it was written, all facts in it
    Json,
    /// A page for browsers
    Html,
    /// The findings for CI systems
    Junit,
    /// The run's row of a fleet's table, a line of JSON
    Jsonl,
    /// The run as Prometheus metrics
    Prometheus,
}

/// Copy the files of a run, or of all runs, into a folder
///
/// Each run gets a folder of its own in DIR. Nothing that exists is overwritten.
#[derive(Debug, clap::Args)]
#[command(after_help = SOURCES)]
pub struct ExtractArgs {
    /// Where the reports are
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<PathBuf>,
    /// Where they go: a folder, which is made where there is none
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// Which run: its id, its folder's name, or its number in `show --list` [default: the newest complete one]
    #[arg(long, value_name = "ID|N")]
    run: Option<String>,
    /// All runs, also those that were cut off
    #[arg(long, conflicts_with = "run")]
    all: bool,
}

/// Say what changed between two runs
///
/// Findings, versions, settings, devices, topology, and performance where it changed by more than noise: three
/// standard errors of both runs' raw samples, and 5 % at least; 10 % where a report has no samples beside it, or a measurement
/// took less than 2.2 s, as the quick plan's do.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{SOURCES}\n\nExit status: 0 nothing changed, 1 something did, 64 and above an error"))]
pub struct DiffArgs {
    /// The first run: the newest complete one of SOURCE, or the one that is named
    #[arg(value_name = "SOURCE[#RUN]")]
    before: PathBuf,
    /// The second run [default: the last two complete runs of the first source are compared]
    #[arg(value_name = "SOURCE[#RUN]")]
    after: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &ReportArgs, global: &Global) -> Result<Status> {
    match &args.command {
        Command::Show(args) => show(args, global),
        Command::Extract(args) => extract_runs(args, global),
        Command::Diff(args) => diff_runs(args, global),
        Command::Collect(args) => report_collect::run(args, global),
    }
}

/// Of what an error about runs speaks.
pub fn looking_into(paths: &[PathBuf]) -> String {
    let shown: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    format!("looking into {}", shown.join(", "))
}

fn open(paths: &[PathBuf]) -> Result<Vec<Source>> {
    paths.iter().map(|path| Source::open(path)).collect()
}

/// Says on standard error what could not be listed, and what should be known.
fn say(catalogue: &Catalogue<'_>, global: &Global) {
    let progress = global.progress();
    catalogue
        .problems
        .iter()
        .for_each(|problem| progress.note(format!("problem: {}", advised_line(problem))));
    catalogue.notes.iter().for_each(|note| progress.note(note));
}

/// Says on standard error what speaks against the run that was taken where none was named.
fn doubt(catalogue: &Catalogue<'_>, taken: &Listed<'_>, named: Option<&str>, global: &Global) {
    if named.is_none() {
        catalogue.doubts(taken).iter().for_each(|line| global.progress().note(line));
    }
}

fn show(args: &ShowArgs, global: &Global) -> Result<Status> {
    let sources = open(&args.sources)?;
    let catalogue = Catalogue::read(&sources)?;
    say(&catalogue, global);
    let mut out = stdout();
    if args.list {
        for line in catalogue.lines() {
            writeln!(out, "{line}").context("writing the list")?;
        }
        return Ok(if catalogue.problems.is_empty() { Status::Pass } else { Status::Unavailable });
    }
    let listed = catalogue.find(args.run.as_deref()).with_context(|| looking_into(&args.sources))?;
    doubt(&catalogue, listed, args.run.as_deref(), global);
    if let Some(error) = listed.unreadable() {
        return Err(error);
    }
    if !matches!(listed.end, End::Complete(_)) {
        let has = listed.source.files(&listed.run)?.join(", ");
        global.progress().note(format!("the run {} was cut off: it left {has}", listed.run.name));
    }
    if let End::Without(files) = &listed.end {
        let name = clean(&listed.run.name);
        writeln!(out, "The run {name} was cut off before its first report. It left:")?;
        files.iter().try_for_each(|file| writeln!(out, "  {}", clean(file)))?;
        return Ok(Status::Incomplete);
    }
    print(listed, args.format, &mut out)?;
    Ok(listed.verdict().status())
}

fn print(listed: &Listed<'_>, format: Format, out: &mut dyn Write) -> Result<()> {
    if format == Format::Json {
        return out.write_all(&listed.json()?).context("writing the report");
    }
    if matches!(format, Format::Jsonl | Format::Prometheus) {
        let rows = [Row::read(&listed.json()?, &listed.place())?];
        return if format == Format::Jsonl {
            jsonl::write(&rows, out)
        } else {
            prometheus::write(&rows, out)
        };
    }
    let report: Report = listed.report()?;
    match format {
        Format::Html => html::write(&report, out),
        Format::Junit => junit::write(report.verdict, report.is_simulated(), &report.findings, out),
        _ => text::write(&report, out).context("writing the report"),
    }
}

fn extract_runs(args: &ExtractArgs, global: &Global) -> Result<Status> {
    let sources = open(&args.sources)?;
    let catalogue = Catalogue::read(&sources)?;
    say(&catalogue, global);
    let wanted: Vec<&Listed<'_>> = match args.all {
        true => catalogue.runs.iter().collect(),
        false => {
            let listed = catalogue.find(args.run.as_deref()).with_context(|| looking_into(&args.sources))?;
            doubt(&catalogue, listed, args.run.as_deref(), global);
            vec![listed]
        }
    };
    fs_err::create_dir_all(&args.output).context("making the folder for the runs")?;
    let mut failed = !catalogue.problems.is_empty();
    let mut out = stdout();
    for (listed, name) in wanted.iter().zip(names(&wanted)) {
        let line = match extract_as(&name, listed, &args.output) {
            Ok(Extracted::Copied(to, files)) => format!("{}: {files} files", to.display()),
            Ok(Extracted::AlreadyThere(to)) => format!("{}: the same files were there already", to.display()),
            // Of one run, the error is the command's own.
            Err(error) if wanted.len() == 1 || gdsboot::interrupt::requested() => return Err(error),
            Err(error) => {
                failed = true;
                global.progress().note(format!("problem: {}", advised_line(&error)));
                continue;
            }
        };
        writeln!(out, "{line}").context("writing what was done")?;
    }
    Ok(if failed { Status::Unavailable } else { Status::Pass })
}

fn diff_runs(args: &DiffArgs, global: &Global) -> Result<Status> {
    let ((first, run), second) = (source_and_run(&args.before), args.after.as_deref().map(source_and_run));
    let paths: Vec<PathBuf> =
        [Some(&first), second.as_ref().map(|(path, _)| path)].into_iter().flatten().cloned().collect();
    let sources = open(&paths)?;
    let catalogues: Vec<Catalogue<'_>> = sources.chunks(1).map(Catalogue::read).collect::<Result<_>>()?;
    catalogues.iter().for_each(|catalogue| say(catalogue, global));
    let find = |at: usize, run: &Option<String>| {
        let found = catalogues[at].find(run.as_deref()).with_context(|| looking_into(&paths[at..=at]))?;
        doubt(&catalogues[at], found, run.as_deref(), global);
        anyhow::Ok(found)
    };
    let (before, after) = match &second {
        Some((_, other)) => (find(0, &run)?, find(1, other)?),
        None => {
            let two = catalogues[0].two(run.as_deref()).with_context(|| looking_into(&paths))?;
            doubt(&catalogues[0], two.1, run.as_deref(), global);
            two
        }
    };
    let (old, new) = (before.report()?, after.report()?);
    let compared = |listed: &Listed<'_>, report| -> Result<Compared<'_>> {
        let samples = listed.samples()?.map_or_else(Samples::default, |lines| Samples::read(&lines));
        Ok(Compared { place: listed.place(), report, samples })
    };
    let diff = diff(&compared(before, &old)?, &compared(after, &new)?);
    let mut out = stdout();
    match args.json {
        true => out.write_all(&json::pretty(&diff)?).context("writing what changed")?,
        false => diff::lines(&diff)
            .iter()
            .try_for_each(|line| writeln!(out, "{line}"))
            .context("writing what changed")?,
    }
    // As diff(1) ends.
    Ok(if diff.changes.is_empty() { Status::Pass } else { Status::Fail })
}

/// `stick.img#bbbbbbbb`, where there is no file of that name.
fn source_and_run(path: &Path) -> (PathBuf, Option<String>) {
    let split = path.to_str().and_then(|text| text.rsplit_once('#'));
    match split {
        Some((source, run)) if !path.exists() => (source.into(), Some(run.to_owned())),
        _ => (path.to_owned(), None),
    }
}
