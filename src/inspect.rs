//! What an image is and what is on it, read from the image alone. What cannot be read is said, and the rest is shown.

use crate::boot_contract::ESP_MANIFEST;
use crate::error::one_line;
use crate::manifest::Manifest;
use crate::progress::bytes;
use crate::report::gpt::Table;
use crate::report::kind::Kind;
use crate::report::menu::MenuEntry;
use crate::report::source::Image;
use anyhow::{Context as _, Result};
use serde::Serialize;
use std::io::{self, Write};
use std::path::PathBuf;

/// More than any manifest has.
const MAX_MANIFEST: u32 = 16 << 20;

/// Everything that [`text`] shows.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// Where the image is.
    pub path: PathBuf,
    /// What kind of file it is.
    pub kind: Kind,
    /// Size of the disk in bytes.
    pub size: u64,
    /// Bytes that the file occupies on its disk.
    pub allocated: u64,
    /// The partitions.
    pub table: Table,
    /// What the image was built from.
    pub manifest: Option<Manifest>,
    /// The boot menu.
    pub menu: Vec<MenuEntry>,
    /// The files on the ESP and their sizes in bytes.
    pub esp: Vec<EspFile>,
    /// The runs on the report partition, oldest first, and how each ended: its verdict, or why it has none.
    pub runs: Vec<RunEnd>,
    /// What could not be read, and why.
    pub problems: Vec<String>,
}

/// A file on the ESP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EspFile {
    /// Path without a leading slash.
    pub path: String,
    /// Bytes.
    pub size: u32,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunEnd {
    /// Its folder.
    pub run: String,
    /// Its verdict, or why it has none.
    pub end: String,
}

/// Reads an image.
pub fn inspect(image: &Image) -> Inspection {
    let mut problems: Vec<String> = Vec::new();
    if let Some(damage) = &image.table().primary_damage {
        problems.push(format!("the primary partition table is damaged ({damage}); the backup was used"));
    }
    let mut note = |error: anyhow::Error| problems.push(one_line(&error));
    Inspection {
        path: image.path().to_owned(),
        kind: image.kind(),
        size: image.size(),
        allocated: image.allocated(),
        table: image.table().clone(),
        manifest: manifest(image).map_err(&mut note).ok(),
        menu: image.menu().map_err(&mut note).unwrap_or_default(),
        esp: esp_files(image).map_err(&mut note).unwrap_or_default(),
        runs: if image.kind() == Kind::Iso {
            Vec::new()
        } else {
            runs(image).map_err(&mut note).unwrap_or_default()
        },
        problems,
    }
}

/// What an image was built from.
pub fn manifest(image: &Image) -> Result<Manifest> {
    let context = || format!("reading {ESP_MANIFEST} on the ESP of {}", image.path().display());
    let bytes = image.filesystem(image.esp()?)?.read(ESP_MANIFEST, MAX_MANIFEST)?;
    let bytes = bytes.context("it does not exist").with_context(context)?;
    let manifest = Manifest::parse(&bytes).with_context(context)?;
    anyhow::ensure!(manifest.version <= 1, "{}: its version {} is newer than 1", context(), manifest.version);
    Ok(manifest)
}

/// An ESP has no folders deeper than this.
const MAX_DEPTH: usize = 8;

fn esp_files(image: &Image) -> Result<Vec<EspFile>> {
    let fat = image.filesystem(image.esp()?)?;
    let mut files = Vec::new();
    let mut folders = vec![(String::new(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in fat.list(&folder)? {
            let path = if folder.is_empty() { entry.name } else { format!("{folder}/{}", entry.name) };
            if !entry.is_dir {
                files.push(EspFile { path, size: entry.size });
            } else {
                // A damaged filesystem may have a ring of folders.
                anyhow::ensure!(depth < MAX_DEPTH, "listing the ESP: {path} lies too deep");
                folders.push((path, depth + 1));
            }
        }
        anyhow::ensure!(folders.len() + files.len() < 10_000, "listing the ESP: it has too many files");
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn runs(image: &Image) -> Result<Vec<RunEnd>> {
    let end = |run: &String| {
        let report = image.run(run).and_then(|run| run.report());
        report.map_or_else(|e| one_line(&e), |report| report.verdict_words())
    };
    Ok(image.runs()?.into_iter().map(|run| RunEnd { end: end(&run), run }).collect())
}

/// Writes an inspection for people; `packages` lists them all.
pub fn text(inspection: &Inspection, packages: bool, out: &mut dyn Write) -> io::Result<()> {
    let Inspection { table, .. } = inspection;
    let (size, allocated) = (bytes(inspection.size), bytes(inspection.allocated));
    let kind = match inspection.kind {
        Kind::Raw => "",
        Kind::Qcow2 => "qcow2 of ",
        Kind::Iso => "ISO 9660 and disk of ",
    };
    writeln!(out, "{}: {kind}{size}, {allocated} on disk", inspection.path.display())?;
    writeln!(out, "disk GUID {}", table.disk_guid)?;
    writeln!(out)?;
    writeln!(out, "  #  {:<14} {:<17} {:>10} {:>10}  PARTUUID", "name", "type", "start", "size")?;
    for p in &table.partitions {
        let (start, size) = (bytes(p.start), bytes(p.size));
        writeln!(
            out,
            "{:>3}  {:<14} {:<17} {start:>10} {size:>10}  {}",
            p.number,
            p.name,
            p.type_name(),
            p.guid
        )?;
    }
    if let Some(manifest) = &inspection.manifest {
        writeln!(out)?;
        pins(manifest, out)?;
        if packages {
            for (name, version) in &manifest.packages {
                writeln!(out, "  {name} {version}")?;
            }
        }
    }
    if !inspection.esp.is_empty() {
        writeln!(out)?;
        writeln!(out, "on the ESP")?;
    }
    for file in &inspection.esp {
        writeln!(out, "  {:>10}  {}", bytes(u64::from(file.size)), file.path)?;
    }
    if !inspection.menu.is_empty() {
        writeln!(out)?;
        writeln!(out, "boot menu")?;
    }
    for entry in &inspection.menu {
        writeln!(out, "  {}: {} {}", entry.title, entry.kernel, entry.arguments)?;
    }
    writeln!(out)?;
    match inspection.runs.len() {
        0 if inspection.kind == Kind::Iso => {
            writeln!(out, "no report partition: its reports go to another disk")?
        }
        0 => writeln!(out, "no runs on the report partition")?,
        n => writeln!(out, "{n} {} on the report partition", if n == 1 { "run" } else { "runs" })?,
    }
    for RunEnd { run, end } in &inspection.runs {
        writeln!(out, "  {run}: {end}")?;
    }
    for problem in &inspection.problems {
        writeln!(out, "problem: {problem}")?;
    }
    Ok(())
}

fn pins(manifest: &Manifest, out: &mut dyn Write) -> io::Result<()> {
    let mut line = |name: &str, value: &str| writeln!(out, "{name:<10} {value}");
    line("image", &manifest.image_id)?;
    line("profile", &[std::slice::from_ref(&manifest.profile), &manifest.overlays].concat().join(" + "))?;
    line("lock", &manifest.lock)?;
    line("gdsboot", &manifest.gdsboot)?;
    line("dated", &crate::report::utc::Utc(manifest.epoch).to_string())?;
    line("kernel", &manifest.kernel)?;
    line("driver", manifest.driver.as_deref().unwrap_or("none"))?;
    for (name, version) in &manifest.modules {
        line("module", &format!("{name} {version}"))?;
    }
    for (name, version) in &manifest.tools {
        line("tool", &format!("{name} {version}"))?;
    }
    line("packages", &manifest.packages.len().to_string())
}
