//! Findings as text in 80 columns: what must be mended and by whom, then what nobody could see from here, then the rest
//! in one line each.

use super::layout::{WIDTH, clean, cut, wrap};
use super::model::SIMULATED_WORDS;
use crate::checks::check::{Finding, Severity, Status, Who};
use crate::checks::judge::Judgement;
use std::io::{self, Write};

/// Writes a whole judgement.
pub fn write(judgement: &Judgement, out: &mut dyn Write) -> io::Result<()> {
    const TITLE: &str = "gdsboot check";
    let verdict = judgement.verdict.word();
    writeln!(out, "{TITLE}{verdict:>width$}", width = WIDTH - TITLE.len())?;
    writeln!(out, "{}", "=".repeat(WIDTH))?;
    if judgement.simulated {
        paragraph(out, "  ", SIMULATED_WORDS)?;
    }
    writeln!(out, "  Side            {}", side_words(judgement))?;
    writeln!(out, "  Route           {}", judgement.route)?;
    write_findings(&judgement.findings, out)
}

/// Writes the findings alone.
pub fn write_findings(findings: &[Finding], out: &mut dyn Write) -> io::Result<()> {
    let of = |status: Status| findings.iter().filter(move |f| f.status == status);
    let mut number = 0;
    for (status, title) in [
        (Status::Fail, "To be mended, in this order"),
        (Status::Error, "Checks that broke (a bug in gdsboot)"),
        (Status::Unknown, "Cannot be seen from here"),
    ] {
        let mut findings = of(status).peekable();
        if findings.peek().is_none() {
            continue;
        }
        section(out, title)?;
        for finding in findings {
            number += 1;
            whole(finding, number, out)?;
        }
    }
    section(out, "The rest")?;
    for status in [Status::Waived, Status::Info, Status::Skip, Status::Pass] {
        for finding in of(status) {
            let line = format!("  {:<5} {:<26} {}", word(status), finding.id, finding.why);
            writeln!(out, "{}", cut(&line, WIDTH))?;
        }
    }
    let count = of(Status::NotApplicable).count();
    if count > 0 {
        writeln!(out, "  {count} more do not concern this machine.")?;
    }
    Ok(())
}

fn section(out: &mut dyn Write, title: &str) -> io::Result<()> {
    writeln!(out, "\n{title}\n{}", "-".repeat(title.len()))
}

fn paragraph(out: &mut dyn Write, first: &str, text: &str) -> io::Result<()> {
    wrap(first, text).iter().try_for_each(|line| writeln!(out, "{line}"))
}

fn whole(finding: &Finding, number: usize, out: &mut dyn Write) -> io::Result<()> {
    paragraph(out, &format!(" {number:>2}. "), &finding.why)?;
    writeln!(out, "     [{}, {}]", finding.id, severity_word(finding.severity))?;
    for (label, value) in [("expected", &finding.expected), ("found", &finding.actual)] {
        if let Some(value) = value {
            paragraph(out, &format!("     {label}: "), value)?;
        }
    }
    for remedy in &finding.remedy {
        paragraph(out, &format!("     {}: ", who_words(remedy.who)), &remedy.text)?;
        for command in &remedy.commands {
            command_lines(command).iter().try_for_each(|line| writeln!(out, "{line}"))?;
        }
    }
    for evidence in finding.evidence.iter().take(3) {
        paragraph(out, "     | ", &format!("{}: {}", evidence.from, evidence.text))?;
    }
    Ok(())
}

/// A command in lines that a shell takes as one: each but the last ends with a backslash. A word is never broken, however
/// long.
fn command_lines(command: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = "       $".to_owned();
    let mut words = 0;
    for word in shell_words(&clean(command)) {
        // Room for a blank before the word, and for the backslash after it.
        if words > 0 && line.chars().count() + word.chars().count() + 3 > WIDTH {
            lines.push(line + " \\");
            line = "          ".to_owned();
            words = 0;
        }
        line.push(' ');
        line.push_str(&word);
        words += 1;
    }
    lines.push(line);
    lines
}

/// A command's words with their quotes, so that no line ends inside of one.
fn shell_words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in command.chars() {
        match (c, quote) {
            (' ', None) => words.push(String::new()),
            _ => {
                if quote == Some(c) {
                    quote = None;
                } else if quote.is_none() && (c == '\'' || c == '"') {
                    quote = Some(c);
                }
                if let Some(word) = words.last_mut() {
                    word.push(c);
                }
            }
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// A status in at most five letters.
pub fn word(status: Status) -> &'static str {
    match status {
        Status::Pass => "ok",
        Status::Fail => "FAIL",
        Status::Info => "note",
        Status::Skip => "skip",
        Status::NotApplicable => "n/a",
        Status::Unknown => "?",
        Status::Error => "ERROR",
        Status::Waived => "waive",
    }
}

/// A severity for people.
pub fn severity_word(severity: Severity) -> &'static str {
    match severity {
        Severity::Blocker => "no direct transfer is possible",
        Severity::Major => "direct transfers may fail or fall back to copies",
        Severity::Minor => "it costs speed",
        Severity::Info => "for information",
    }
}

/// Who acts, for people.
pub fn who_words(who: Who) -> &'static str {
    match who {
        Who::Bios => "in the BIOS",
        Who::Hypervisor => "on the hypervisor",
        Who::VmConfiguration => "in the VM's configuration",
        Who::Guest => "on this system",
        Who::Hardware => "at the machine",
    }
}

fn side_words(judgement: &Judgement) -> &'static str {
    use crate::checks::check::Side;
    match judgement.side {
        Side::Guest => "a virtual machine",
        Side::Host => "a hypervisor that gives devices away",
        Side::BareMetal => "bare metal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::route::Route;
    use crate::checks::check::{Evidence, Remedy, Side};
    use crate::report::model::Verdict;

    fn finding(id: &str, status: Status) -> Finding {
        Finding {
            id: id.into(),
            title: "a title".into(),
            status,
            severity: Severity::Blocker,
            why: format!("why {id} is as it is"),
            expected: None,
            actual: None,
            remedy: vec![],
            evidence: vec![],
            because: None,
        }
    }

    #[test]
    fn a_judgement_in_80_columns() {
        let mut failed = finding("gpu.bar1", Status::Fail);
        failed.expected = Some("a BAR1 of 64 GiB".into());
        failed.actual = Some("256 MiB".into());
        failed
            .evidence
            .push(Evidence::new("/sys/bus/pci/devices/0000:01:00.0/resource", "0x0 0x0 0x0\x1b[2J"));
        failed.remedy.push(
            Remedy::new(
                Who::VmConfiguration,
                "give the firmware a larger 64-bit window, and the guest the host's CPU",
            )
            .command("qm set 100 -cpu host -args '-fw_cfg name=opt/ovmf/X-PciMmio64Mb,string=262144'"),
        );
        let mut skipped = finding("route.possible", Status::Skip);
        skipped.why = "nothing to look at before gpu.bar1 is mended".into();
        let judgement = Judgement {
            verdict: Verdict::Fail,
            route: Route::None,
            side: Side::Guest,
            simulated: false,
            findings: vec![
                failed,
                finding("vm.hugepages", Status::Unknown),
                skipped,
                finding("gpu.present", Status::Pass),
                finding("iommu.active", Status::NotApplicable),
            ],
        };
        let mut out = Vec::new();
        write(&judgement, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(!text.contains('\x1b'));
        insta::assert_snapshot!(text);
        let mut out = Vec::new();
        write(&Judgement { simulated: true, ..judgement }, &mut out).unwrap();
        assert!(String::from_utf8(out).unwrap().lines().nth(2).unwrap().starts_with("  SIMULATED: "));
    }

    #[test]
    fn a_shell_reads_a_broken_command_as_one() {
        let long = format!("printf '%s\\n' {}", "word ".repeat(40));
        let lines = command_lines(&long);
        assert!(lines.len() > 2 && lines.iter().all(|line| line.chars().count() <= WIDTH));
        let script = lines.join("\n").replacen("       $", "", 1);
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "word\n".repeat(40));
        assert_eq!(shell_words("a 'b  c' \"d ' e\" f"), ["a", "'b  c'", "\"d ' e\"", "f"]);
        assert_eq!(command_lines(""), ["       $"]);
        assert_eq!(command_lines(&"x".repeat(100)).len(), 1);
    }
}
