//! Machines that were captured, judged from their files: those of the smoke lab in `tests/captures`, whose README tells
//! how they are renewed.

use assert_cmd::Command;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn captures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
    let files = fs_err::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.to_string_lossy().ends_with(".tar.zst")).collect();
    files.sort();
    files
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap().strip_suffix(".tar.zst").unwrap()
}

/// A capture's files and links, as far as they are text.
fn texts(path: &Path) -> BTreeMap<String, String> {
    let bytes = zstd::decode_all(fs_err::File::open(path).unwrap()).unwrap();
    let mut texts = BTreeMap::new();
    for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let link = entry.link_name().unwrap().map(|link| link.to_string_lossy().into_owned());
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        let text = link.unwrap_or_else(|| String::from_utf8_lossy(&content).into_owned());
        texts.insert(entry.path().unwrap().to_string_lossy().into_owned(), text);
    }
    texts
}

#[test]
fn every_captured_machine_is_judged_as_before() {
    let captures = captures();
    assert!(captures.len() >= 5, "{captures:?}");
    for capture in captures {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gdsboot-validator"));
        let output = command.args(["check", "--json", "--root"]).arg(&capture).assert().code(2);
        let judgement: serde_json::Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
        let findings = judgement["findings"].as_array().unwrap().iter();
        let lines: Vec<String> = findings
            .filter(|finding| !matches!(finding["status"].as_str(), Some("pass" | "not_applicable")))
            .map(|finding| {
                let word = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
                let because = finding["because"].as_str().map(|id| format!(" because of {id}"));
                format!("{} {}{}", word("id"), word("status"), because.unwrap_or_default())
            })
            .collect();
        insta::assert_snapshot!(name(&capture), lines.join("\n"));
    }
}

/// A capture is public: no place of the host that made it, no server, no serial number in the clear.
#[test]
fn captures_hold_nothing_of_the_host_that_made_them() {
    for capture in captures() {
        assert!(fs_err::metadata(&capture).unwrap().len() < 1_000_000, "{}", capture.display());
        for (path, text) in texts(&capture) {
            let place = format!("{}: {path}", name(&capture));
            for word in ["http://", "https://", "/home/", "/work/", "/tmp/", "/root/", ".cache"] {
                assert!(!text.contains(word), "{place}: {word}");
            }
            let file = path.rsplit('/').next().unwrap_or_default();
            if matches!(file, "product_uuid" | "product_serial" | "board_serial" | "serial" | "wwid") {
                // The last is what the lab's own drive says.
                let is_safe =
                    |text: &str| text.len() < 6 || text.starts_with("hash-") || text == "gdsboot-image";
                assert!(is_safe(text.trim()), "{place}: {text}");
            }
        }
    }
}
