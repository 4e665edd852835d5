//! What `gdsboot smoke` prints for people: the first report in full, the other boots as a line each, failures with what
//! is needed to go on, and a table of times.

use super::Summary;
use super::outcome::{Failure, Outcome};
use std::io::{self, Write};

/// Writes the whole result of `gdsboot smoke`.
pub fn text(summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
    let Summary { boots, .. } = summary;
    let full = boots.iter().position(|boot| boot.result.is_ok());
    for (n, boot) in boots.iter().enumerate() {
        match &boot.result {
            Ok(reported) => {
                if Some(n) == full {
                    writeln!(out, "{}", reported.text.trim_end())?;
                    writeln!(out)?;
                }
                let said = &reported.said;
                let compared = match &boot.differences {
                    Some(differences) if differences.is_empty() => ", as expected",
                    Some(_) => ", NOT AS EXPECTED",
                    None => "",
                };
                writeln!(
                    out,
                    "{}: {}, route {}, run {}{compared}",
                    boot.name(),
                    said.verdict_words(),
                    said.route,
                    reported.run.as_deref().unwrap_or("on the serial line alone")
                )?;
            }
            Err(failure) => failed(boot, failure, out)?,
        }
        for difference in boot.differences.iter().flatten() {
            writeln!(out, "  not as expected: {difference}")?;
        }
        for note in &boot.notes {
            writeln!(out, "  note: {note}")?;
        }
        if let (Some(kept), true) = (&boot.kept, boot.result.is_ok()) {
            writeln!(out, "  kept: {}", kept.display())?;
        }
    }
    writeln!(out)?;
    times(boots, out)?;
    writeln!(out)?;
    writeln!(out, "{}; {}: {}", summary.qemu, summary.accel.accel, summary.accel.why)
}

fn failed(boot: &Outcome, failure: &Failure, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}: no verdict: {}", boot.name(), failure.what)?;
    if !failure.last_lines.is_empty() {
        writeln!(out, "  last lines:")?;
    }
    for line in &failure.last_lines {
        writeln!(out, "    {line}")?;
    }
    if let Some(kept) = &boot.kept {
        writeln!(out, "  everything is kept in {}, the console in console.log", kept.display())?;
    }
    match &boot.command {
        Some(command) => writeln!(out, "  to see it again: {command}"),
        None => Ok(()),
    }
}

/// A table: one row per boot, one column per phase, in seconds.
fn times(boots: &[Outcome], out: &mut dyn Write) -> io::Result<()> {
    let width = boots.iter().map(|boot| boot.name().len()).max().unwrap_or(0).max("seconds".len());
    for (n, boot) in boots.iter().enumerate() {
        let columns = boot.phases.columns();
        if n == 0 {
            write!(out, "{:width$}", "seconds")?;
            for (name, _) in columns {
                write!(out, "  {name:>10}")?;
            }
            writeln!(out)?;
        }
        write!(out, "{:width$}", boot.name())?;
        for (_, seconds) in columns {
            match seconds {
                Some(seconds) => write!(out, "  {seconds:>10.1}")?,
                None => write!(out, "  {:>10}", "unknown")?,
            }
        }
        writeln!(out)?;
    }
    Ok(())
}
