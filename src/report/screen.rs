//! The screen at the end of a run: 80 columns, 24 lines (the 25th is where the cursor comes to stand), the verdict in
//! letters that can be read from three metres, and the first reasons and remedies beside a QR code that says the same.

use super::findings::who_words;
use super::layout::{WIDTH, cut, wrap_in};
use super::model::{After, Report, SIMULATED, Verdict};
use super::qr;
use crate::checks::check::Status;

/// Lines of the screen.
const HEIGHT: usize = 24;

/// How the screen is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A log or a serial line: only printable characters and line breaks.
    Plain,
    /// A virtual terminal: it is cleared first, and the verdict is coloured (ECMA-48 sequences).
    Colour,
}

/// Columns of the text beside the code.
const TEXT: usize = WIDTH - qr::COLUMNS - 2;

/// The screen. `place` says where the report lies, or why there is none.
pub fn render(report: &Report, place: &str, style: Style) -> String {
    let mut lines = vec![header(report), String::new()];
    lines.extend(banner(report.verdict).into_iter().map(|line| match style {
        Style::Plain => line,
        Style::Colour => paint(&line, report.verdict),
    }));
    let room = HEIGHT - lines.len();
    let footer = footer(report, place);
    let simulated = if report.is_simulated() { format!("  {SIMULATED}") } else { String::new() };
    let mut body = vec![String::new(), format!("  Route: {}{simulated}", report.route)];
    body.extend(reasons(report, room - body.len() - footer.len()));
    body.resize(room - footer.len(), String::new());
    body.extend(footer);
    let code = qr::draw(&qr::payload(report)).unwrap_or_default();
    let beside = |(n, text): (usize, String)| match code.get(n) {
        // Dark on light whatever colours the terminal has.
        Some(line) if style == Style::Colour => format!("{text:<TEXT$}  \x1b[1;37;40m{line}\x1b[0m"),
        Some(line) => format!("{text:<TEXT$}  {line}"),
        None => text,
    };
    lines.extend(body.into_iter().enumerate().map(beside));
    let start = if style == Style::Colour { "\x1b[0m\x1b[2J\x1b[H" } else { "" };
    format!("{start}{}\n", lines.join("\n"))
}

fn header(report: &Report) -> String {
    let image = report.facts.image.value().map_or("", |image| image.profile.as_str());
    let left = cut(&format!("gdsboot {}  {image}", report.gdsboot), 40);
    let right = format!("run {}  {}", report.run_id, report.finished);
    let room = WIDTH.saturating_sub(left.chars().count());
    format!("{left}{right:>room$}")
}

/// The reasons in at most `room` lines, each with its first remedy; where they do not fit, the last line says how many
/// are left.
fn reasons(report: &Report, room: usize) -> Vec<String> {
    let reason = |(number, why): (usize, &String)| {
        let mut lines = wrap_in(TEXT, &format!("  {number}. "), why);
        let finding = report.findings.iter().find(|f| f.status == Status::Fail && f.why == *why);
        if let Some(remedy) = finding.and_then(|f| f.remedy.first()) {
            lines.extend(wrap_in(TEXT, "     > ", &format!("{}: {}", who_words(remedy.who), remedy.text)));
        }
        lines
    };
    let all: Vec<Vec<String>> = (1..).zip(&report.why).map(reason).collect();
    let mut lines = Vec::new();
    for (shown, reason) in all.iter().enumerate() {
        let is_last = shown + 1 == all.len();
        if lines.len() + reason.len() + usize::from(!is_last) > room {
            let left = all.len() - shown;
            lines.truncate(room.saturating_sub(1));
            lines.push(format!("  and {left} more in the report"));
            break;
        }
        lines.extend(reason.iter().cloned());
    }
    lines
}

fn footer(report: &Report, place: &str) -> Vec<String> {
    let mut lines = wrap_in(TEXT, "  Report: ", place);
    lines.truncate(3);
    lines.push(match report.settings.after {
        After::Poweroff => "  The machine powers off now.".into(),
        After::Reboot => "  The machine restarts now.".into(),
        After::Hold => "  Done. Switch off, or press Ctrl-Alt-Del.".into(),
        After::Shell => "  A root shell follows; leave it to power off.".into(),
    });
    lines
}

/// The verdict in large letters, centred.
fn banner(verdict: Verdict) -> Vec<String> {
    let word = verdict.word();
    // Ten letters of 7 columns and a gap fill the screen; four can be twice as wide.
    let scale = if word.len() <= 5 { 2 } else { 1 };
    (0..ROWS)
        .map(|row| {
            let letters = word.chars().map(|letter| {
                let pixels = glyph(letter)[row].chars();
                pixels
                    .flat_map(|pixel| std::iter::repeat_n(if pixel == '#' { '#' } else { ' ' }, scale))
                    .collect()
            });
            let line = letters.collect::<Vec<String>>().join(&" ".repeat(scale));
            let left = (WIDTH - line.len()) / 2;
            format!("{}{line}", " ".repeat(left)).trim_end().to_owned()
        })
        .collect()
}

/// `#` becomes a block in the verdict's colour.
fn paint(line: &str, verdict: Verdict) -> String {
    let colour = match verdict {
        Verdict::Pass => 42,
        Verdict::Fail => 41,
        Verdict::Incomplete => 43,
    };
    let mut out = String::new();
    let mut on = false;
    for c in line.chars() {
        if (c == '#') != on {
            on = !on;
            out.push_str(&if on { format!("\x1b[{colour}m") } else { "\x1b[0m".to_owned() });
        }
        out.push(' ');
    }
    if on {
        out.push_str("\x1b[0m");
    }
    out
}

const ROWS: usize = 7;

/// A letter of the verdicts, 7 by 7.
fn glyph(letter: char) -> [&'static str; ROWS] {
    match letter {
        'A' => ["  ###  ", " ## ## ", "##   ##", "##   ##", "#######", "##   ##", "##   ##"],
        'C' => [" ##### ", "##   ##", "##     ", "##     ", "##     ", "##   ##", " ##### "],
        'E' => ["#######", "##     ", "##     ", "#####  ", "##     ", "##     ", "#######"],
        'F' => ["#######", "##     ", "##     ", "#####  ", "##     ", "##     ", "##     "],
        'I' => [" ##### ", "  ###  ", "  ###  ", "  ###  ", "  ###  ", "  ###  ", " ##### "],
        'L' => ["##     ", "##     ", "##     ", "##     ", "##     ", "##     ", "#######"],
        'M' => ["##   ##", "### ###", "#######", "## # ##", "##   ##", "##   ##", "##   ##"],
        'N' => ["##   ##", "###  ##", "#### ##", "## ####", "##  ###", "##   ##", "##   ##"],
        'O' => [" ##### ", "##   ##", "##   ##", "##   ##", "##   ##", "##   ##", " ##### "],
        'P' => ["###### ", "##   ##", "##   ##", "###### ", "##     ", "##     ", "##     "],
        'S' => [" ##### ", "##   ##", "##     ", " ##### ", "     ##", "##   ##", " ##### "],
        'T' => ["#######", "  ###  ", "  ###  ", "  ###  ", "  ###  ", "  ###  ", "  ###  "],
        _ => ["       "; ROWS],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::tests::sample;

    const PLACE: &str = "reports/20261122T105601Z-0a1b2c3d/report.txt on the partition GDSREPORT";

    #[test]
    fn incomplete_with_its_reasons() {
        insta::assert_snapshot!(render(&sample(), PLACE, Style::Plain));
    }

    #[test]
    fn pass_is_larger() {
        let mut report = sample();
        report.verdict = Verdict::Pass;
        report.why.clear();
        insta::assert_snapshot!(render(&report, PLACE, Style::Plain));
    }

    #[test]
    fn every_screen_fits() {
        let mut report = sample();
        report.why = vec!["a reason with a hostile \x1b[2J in it ".repeat(9); 30];
        for verdict in [Verdict::Pass, Verdict::Fail, Verdict::Incomplete] {
            report.verdict = verdict;
            let screen = render(&report, &"somewhere ".repeat(40), Style::Plain);
            assert_eq!(screen.lines().count(), HEIGHT);
            assert!(screen.lines().all(|line| line.chars().count() <= WIDTH), "{screen}");
            assert!(!screen.contains('\x1b'));
            assert!(screen.contains("more in the report"));
        }
    }

    #[test]
    fn colour_draws_the_same_letters() {
        let report = Report { verdict: Verdict::Incomplete, ..sample() };
        let coloured = render(&report, PLACE, Style::Colour);
        assert!(coloured.starts_with("\x1b[0m\x1b[2J\x1b[H"));
        let blocks = |text: &str| text.matches("\x1b[43m").count();
        let runs: usize = banner(report.verdict).iter().map(|line| line.split_whitespace().count()).sum();
        assert_eq!(blocks(&coloured), runs);
        for verdict in [Verdict::Pass, Verdict::Fail, Verdict::Incomplete] {
            assert!(verdict.word().chars().all(|letter| glyph(letter)[0].contains('#')), "{verdict}");
        }
    }
}
