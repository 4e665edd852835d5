//! What the report partition holds when it is new: a README and the settings, for people without Linux.
//!
//! Lines end in CR LF, because the text editors of older Windows show nothing else as lines.

use super::fat::FatFile;
use super::template;
use crate::boot_contract::{
    REPORT_RUNS, REPORT_SETTINGS, RUN_CAPTURE, RUN_REPORT_HTML, RUN_REPORT_JSON, RUN_REPORT_JUNIT,
    RUN_REPORT_TEXT, RUN_SAMPLES, RUN_STARTED,
};
use anyhow::{Result, ensure};
use serde::Serialize;

/// The file that says what this partition is.
pub const README: &str = "README.txt";

const README_TEMPLATE: &str = include_str!("../../image/templates/README.txt");
const SETTINGS_TEMPLATE: &str = include_str!("../../image/templates/gdsboot.toml");

#[derive(Serialize)]
struct Values<'a> {
    title: &'a str,
    rule: String,
    /// Is the README on an image, and not on a disk for reports alone?
    boots: bool,
    identity: &'a [String],
    runs: &'a str,
    text: &'a str,
    json: &'a str,
    html: &'a str,
    junit: &'a str,
    capture: &'a str,
    samples: &'a str,
    started: &'a str,
    settings: &'a str,
}

/// The files of a new report partition of an image. `title` names the image, such as `gdsboot debian-13`; `identity` are
/// lines that tell this image from others.
pub fn files(title: &str, identity: &[String]) -> Result<Vec<FatFile>> {
    render(title, identity, true)
}

/// The files of a disk for reports alone.
pub fn files_without_image() -> Result<Vec<FatFile>> {
    render("gdsboot report disk", &[], false)
}

fn render(title: &str, identity: &[String], boots: bool) -> Result<Vec<FatFile>> {
    let one_line = |text: &str| !text.chars().any(char::is_control);
    ensure!(
        one_line(title) && identity.iter().all(|line| one_line(line)),
        "the image's title or identity has line breaks"
    );
    let values = Values {
        title,
        rule: "=".repeat(title.chars().count()),
        boots,
        identity,
        runs: REPORT_RUNS,
        text: RUN_REPORT_TEXT,
        json: RUN_REPORT_JSON,
        html: RUN_REPORT_HTML,
        junit: RUN_REPORT_JUNIT,
        capture: RUN_CAPTURE,
        samples: RUN_SAMPLES,
        started: RUN_STARTED,
        settings: REPORT_SETTINGS,
    };
    [(README, README_TEMPLATE), (REPORT_SETTINGS, SETTINGS_TEMPLATE)]
        .into_iter()
        .map(|(name, text)| {
            let text = template::render(name, text, &values)?;
            Ok(FatFile::new(name, text.replace('\n', "\r\n")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts() -> Vec<(String, String)> {
        files("gdsboot debian-13", &["image 0123456789abcdef".to_owned(), "kernel 6.12.1".to_owned()])
            .unwrap()
            .into_iter()
            .map(|file| (file.path, String::from_utf8(file.content.read().unwrap()).unwrap()))
            .collect()
    }

    #[test]
    fn readme() {
        let texts = texts();
        assert_eq!(texts[0].0, "README.txt");
        insta::assert_snapshot!(texts[0].1.replace('\r', ""));
    }

    #[test]
    fn readme_without_image() {
        let readme = files_without_image().unwrap().remove(0).content.read().unwrap();
        let text = String::from_utf8(readme).unwrap();
        assert!(text.is_ascii() && text.lines().all(|line| line.len() <= 76));
        insta::assert_snapshot!(text.replace('\r', ""));
    }

    #[test]
    fn every_line_ends_as_windows_wants_and_fits_a_small_window() {
        for (name, text) in texts() {
            assert!(text.ends_with("\r\n") && !text.replace("\r\n", "").contains(['\r', '\n']), "{name}");
            assert!(text.is_ascii(), "{name}");
        }
        assert!(texts()[0].1.lines().all(|line| line.len() <= 76), "README.txt has a long line");
    }

    #[test]
    fn the_settings_are_toml_and_all_commented_out() {
        let text = &texts()[1].1;
        let settings: toml::Table = text.parse().unwrap();
        assert!(settings.is_empty(), "{settings}");
    }

    #[test]
    fn line_breaks_cannot_be_smuggled_into_the_texts() {
        assert!(files("x\nafter = \"shell\"", &[]).is_err());
        assert!(files("x", &["a\r\nb".to_owned()]).is_err());
    }
}
