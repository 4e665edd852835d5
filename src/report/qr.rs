//! The verdict as a QR code, for a photograph of the screen: `GDSBOOT/<verdict>/<route>/<run id>[/<failed check>...]`, in
//! capitals, because a code holds more of those.

use super::model::Report;
use crate::checks::check::Status;
use qrcode::{Color, EcLevel, QrCode, Version};

/// Version 2 has 25 by 25 modules and holds 47 capitals at the lowest error correction (ISO/IEC 18004, table 7).
const VERSION: i16 = 2;
const MODULES: usize = 25;
const CAPACITY: usize = 47;
/// Light modules around the code. The standard asks for four; readers are content with two.
const QUIET: usize = 2;

/// Columns and lines of the drawing: two modules stand above each other in one character.
pub const COLUMNS: usize = MODULES + 2 * QUIET;
/// See [`COLUMNS`].
pub const LINES: usize = COLUMNS.div_ceil(2);

/// What the code says: as many failed checks as there is room for, the first ones first.
pub fn payload(report: &Report) -> String {
    let mut text = format!("GDSBOOT/{}/{}/{}", report.verdict, report.route, report.run_id);
    if report.is_simulated() {
        text.push_str("/SIMULATED");
    }
    for finding in report.findings.iter().filter(|f| f.status == Status::Fail) {
        if text.len() + 1 + finding.id.len() > CAPACITY {
            break;
        }
        text.push('/');
        text.push_str(&finding.id);
    }
    text.to_ascii_uppercase()
}

/// The code in [`LINES`] lines of [`COLUMNS`] characters, for light text on a dark ground: what is light in the code is
/// drawn. `None` where the text does not fit, which a run id of the usual length never causes.
pub fn draw(text: &str) -> Option<Vec<String>> {
    let code = QrCode::with_version(text, Version::Normal(VERSION), EcLevel::L).ok()?;
    let colors = code.to_colors();
    let is_light = |x: usize, y: usize| {
        let inside = (QUIET..QUIET + MODULES).contains(&x) && (QUIET..QUIET + MODULES).contains(&y);
        !inside || colors.get((y - QUIET) * MODULES + x - QUIET) == Some(&Color::Light)
    };
    let line = |row: usize| {
        (0..COLUMNS)
            .map(|x| match (is_light(x, 2 * row), 2 * row + 1 < COLUMNS && is_light(x, 2 * row + 1)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            })
            .collect()
    };
    Some((0..LINES).map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::tests::sample;

    #[test]
    fn the_longest_verdict_fits_with_what_failed_first() {
        let mut report = sample();
        let mut failed = report.findings[0].clone();
        failed.status = Status::Fail;
        report.findings = ["gpu.present", "iommu.translation", "a.b"]
            .map(|id| crate::checks::check::Finding { id: id.into(), ..failed.clone() })
            .to_vec();
        let text = payload(&report);
        assert_eq!(text, format!("GDSBOOT/{}/NONE/0A1B2C3D/GPU.PRESENT", report.verdict));
        let drawn = draw(&text).unwrap();
        assert_eq!(drawn.len(), LINES);
        assert!(drawn.iter().all(|line| line.chars().count() == COLUMNS));
        // The finder in the corner: a dark ring behind two light lines.
        assert!(drawn[0].chars().all(|c| c == '█'));
        assert!(drawn[1].starts_with("██ ▄▄▄▄▄ █"), "{}", drawn[1]);
        assert_eq!(draw(&"X".repeat(CAPACITY + 1)), None);
    }
}
