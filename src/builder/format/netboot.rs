//! Booting from the network: kernel, initramfs and root as files for a web server, and the iPXE script that starts them. The
//! root's hash stands in the script; what the script says is as trustworthy as the network that it came over.

use super::parts::Parts;
use crate::boot_contract::{LOADER_MARK, PARAM_ROOT_SHA256, PARAM_ROOT_SIZE};
use crate::builder::boot_menu::CONSOLES;
use crate::builder::content::Content;
use crate::builder::output_folder::Made;
use crate::builder::template;
use crate::error::usage;
use crate::progress::{Progress, Unit};
use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

/// The script's name.
const SCRIPT: &str = "boot.ipxe";
const SUMS: &str = "SHA256SUMS";
/// All that [`write`] makes.
pub const MADE: Made = Made {
    names: &["README.txt", SCRIPT, "initramfs", "manifest.json", "root.squashfs", "vmlinuz", SUMS],
    marks: &[SCRIPT, SUMS],
};
const SCRIPT_TEMPLATE: &str = include_str!("../../../image/templates/boot.ipxe");
const README_TEMPLATE: &str = include_str!("../../../image/templates/netboot-README.txt");

#[derive(Serialize)]
struct Values<'a> {
    title: &'a str,
    image_id: &'a str,
    loading: &'a str,
    parameters: String,
    report_url: Option<&'a str>,
}

/// Is this a URL that the script can carry to the kernel?
///
/// # Errors
/// What the live image would not understand, or iPXE would take for its own.
pub fn check_report_url(url: &str) -> Result<()> {
    let quoted = toml::Value::String(url.to_owned());
    let complaints = crate::live::complaints(format!("report_url = {quoted}").as_bytes());
    if let Some(complaint) = complaints.first() {
        let complaint = complaint.trim_start_matches(crate::boot_contract::REPORT_SETTINGS);
        return Err(usage(format!("--report-url{complaint}"), "docs/network.md shows some"));
    }
    if url.contains("${") || url.contains('"') {
        return Err(usage(
            "--report-url has ${ or a quote, which iPXE takes for its own",
            "write %24 or %22",
        ));
    }
    Ok(())
}

/// Writes the files into an empty folder.
///
/// # Errors
/// A part cannot be read, or there is no room.
pub fn write(parts: &Parts, report_url: Option<&str>, folder: &Path, progress: &Progress) -> Result<()> {
    let text = |text: String| Content::from(text.into_bytes());
    let values = values(parts, report_url)?;
    let files = [
        ("README.txt", text(template::render("README.txt", README_TEMPLATE, &values)?)),
        (SCRIPT, text(template::render(SCRIPT, SCRIPT_TEMPLATE, &values)?)),
        ("initramfs", parts.initramfs.clone()),
        ("manifest.json", parts.manifest.clone().into()),
        ("root.squashfs", parts.root.clone()),
        ("vmlinuz", parts.kernel.clone()),
    ];
    let all: u64 = files.iter().map(|(_, content)| content.len()).sum();
    crate::builder::space::require(folder, all, "writing the netboot folder")?;
    let stage = progress.stage("writing the folder", all, Unit::Bytes);
    let mut sums = String::new();
    for (name, content) in &files {
        let bytes = content.read().with_context(|| format!("reading {name}"))?;
        let hash = hex::encode(Sha256::digest(&bytes));
        ensure!(
            *name != "root.squashfs" || hash == parts.root_sha256,
            "the cached root has changed: its SHA-256 is {hash}"
        );
        let _ = writeln!(sums, "{hash}  {name}");
        put(&folder.join(name), &bytes)?;
        stage.advance(content.len());
    }
    put(&folder.join(SUMS), sums.as_bytes())
}

fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = fs_err::File::create(path)?;
    file.write_all(bytes)?;
    // The web server is another user, whatever this one's umask is.
    fs_err::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    Ok(file.sync_all()?)
}

fn values<'a>(parts: &'a Parts, report_url: Option<&'a str>) -> Result<Values<'a>> {
    let mut parameters = CONSOLES.map(str::to_owned).to_vec();
    parameters.extend(parts.parameters.iter().cloned());
    parameters.push(format!("{PARAM_ROOT_SIZE}={}", parts.root.len()));
    parameters.push(format!("{PARAM_ROOT_SHA256}={}", parts.root_sha256));
    let plain = |word: &String| word.bytes().all(|b| b.is_ascii_graphic()) && !word.contains("${");
    ensure!(
        parameters.iter().all(plain),
        "the profile's kernel parameters {:?} have what iPXE takes for its own",
        parts.parameters
    );
    Ok(Values {
        title: &parts.title,
        image_id: &parts.image_id,
        loading: LOADER_MARK,
        parameters: parameters.join(" "),
        report_url,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::format::parts;
    use crate::error::one_line;
    use std::os::unix::fs::PermissionsExt as _;

    /// Small parts whose root has the hash that is said.
    fn parts() -> Parts {
        let root = b"hsqs".to_vec();
        let root_sha256 = hex::encode(Sha256::digest(&root));
        Parts { root: root.into(), root_sha256, ..parts::tests::parts() }
    }

    fn script(report_url: Option<&str>) -> String {
        template::render(SCRIPT, SCRIPT_TEMPLATE, values(&parts(), report_url).unwrap()).unwrap()
    }

    #[test]
    fn the_script() {
        insta::assert_snapshot!(script(Some("http://192.0.2.1/reports/{folder}.json")));
        assert!(script(Some("http://h/x")).contains("|| set gdsboot_report_url http://h/x\n"));
        assert!(!script(None).contains("|| set gdsboot_report_url"));
    }

    #[test]
    fn the_folder() {
        let dir = tempfile::tempdir().unwrap();
        write(&parts(), None, dir.path(), &Progress::none()).unwrap();
        let sums = fs_err::read_to_string(dir.path().join("SHA256SUMS")).unwrap();
        for line in sums.lines() {
            let (hash, name) = line.split_once("  ").unwrap();
            assert_eq!(hash, hex::encode(Sha256::digest(fs_err::read(dir.path().join(name)).unwrap())));
        }
        assert_eq!(sums.lines().count() + 1, fs_err::read_dir(dir.path()).unwrap().count());
        let names = fs_err::read_dir(dir.path()).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        names.sort_unstable();
        let mut all = MADE.names.to_vec();
        all.sort_unstable();
        assert_eq!(names, all);
        let changed = Parts { root_sha256: "00".repeat(32), ..parts() };
        let other = tempfile::tempdir().unwrap();
        let error = write(&changed, None, other.path(), &Progress::none()).unwrap_err();
        assert!(one_line(&error).contains("has changed"));
    }

    #[test]
    fn a_web_server_can_read_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmlinuz");
        // As a umask of 077 makes it.
        fs_err::write(&path, "").unwrap();
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        put(&path, b"kernel").unwrap();
        assert_eq!(fs_err::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    }

    #[test]
    fn what_ipxe_would_read_otherwise_is_refused() {
        check_report_url("https://s3/b/k?X-Amz-Signature=0&x=%2F").unwrap();
        for bad in ["ftp://h/x", "http://h/${ip}", "http://h/\"", "http://h/a b", ""] {
            assert!(check_report_url(bad).is_err(), "{bad}");
        }
        let bad = Parts { parameters: vec!["a=${ip}".into()], ..parts() };
        assert!(values(&bad, None).is_err());
    }
}
