//! Which disk or file is meant, and whether it may be written to. Nothing is opened for writing here. What is known of disks
//! comes from [`candidate`], which also decides for the benchmark; what cannot be read refuses a disk.

use super::medium::Disk as Medium;
use crate::bench::scratch::candidate::{self, Disk};
use crate::boot_contract::REPORT_LABEL;
use crate::error::{Advise as _, Status, usage};
use crate::facts::Root;
use crate::progress::bytes as in_words;
use crate::report::gpt::{SECTOR, Table};
use anyhow::{Context as _, Result, ensure};
use std::fmt;
use std::fs::File;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// What is to be written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    path: PathBuf,
    bytes: u64,
    /// The device's number, or the file's inode.
    identity: u64,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Disk(Box<Stick>),
    /// What it holds that is not gdsboot's, in words.
    File {
        foreign: Option<String>,
    },
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stick {
    disk: Disk,
    /// Vendor and model, as far as it says them.
    model: String,
    /// The drive's own serial number, or that of the USB device that it is in.
    serial: Option<String>,
    /// Can it be pulled out?
    removable: bool,
}

impl Target {
    /// Looks at `device`.
    ///
    /// # Errors
    /// It is no whole disk and no file, or what has to be known of it cannot be read.
    pub fn look(root: &Root, device: &Path) -> Result<Self> {
        let shown = device.display();
        let metadata = std::fs::metadata(device)
            .with_context(|| format!("looking at {shown}"))
            .status(Status::Usage)
            .hint("name a stick, such as /dev/sdb, or a file that exists: truncate -s 4G FILE makes one")?;
        let kind = metadata.file_type();
        if kind.is_file() {
            let foreign = foreign(device).with_context(|| format!("reading {shown}"))?;
            let kind = Kind::File { foreign };
            return Ok(Self { path: device.into(), bytes: metadata.len(), identity: metadata.ino(), kind });
        }
        if !kind.is_block_device() {
            return Err(usage(
                format!("{shown} is neither a disk nor a file"),
                "name a stick, such as /dev/sdb",
            ));
        }
        let number = candidate::number(metadata.rdev());
        let disks =
            candidate::read_all(root).with_context(|| format!("looking at {shown}")).status(Status::Usage)?;
        let Some(disk) = disks.into_iter().find(|disk| disk.number == number) else {
            return Err(usage(
                format!("{shown} is no whole disk"),
                "name the disk without the partition's number, such as /dev/sdb; instead of a loop device, name its file",
            ));
        };
        let bytes = disk.bytes;
        let kind = Kind::Disk(Box::new(Stick::read(root, disk)));
        Ok(Self { path: device.into(), bytes, identity: metadata.rdev(), kind })
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// May an image of `image` bytes be written to it?
    ///
    /// # Errors
    /// It may not.
    pub fn check(&self, image: u64, allow_fixed: bool) -> Result<()> {
        let shown = self.path.display();
        let refuse = |what: String, hint: &str| Err(usage(format!("not writing to {shown}: {what}"), hint));
        match &self.kind {
            Kind::Disk(stick) => {
                let Stick { disk, removable, .. } = &**stick;
                if !disk.users.is_empty() {
                    let hint = "unmount it and stop what uses it; a disk that this system runs from cannot be written to";
                    return refuse(format!("it is in use: {}", disk.users.join(", ")), hint);
                }
                if !removable && !allow_fixed {
                    let hint = "take a stick; if this disk is really meant, say --allow-fixed";
                    return refuse(format!("it cannot be pulled out ({self})"), hint);
                }
                if disk.read_only {
                    return refuse(
                        "it cannot be written to".into(),
                        "some sticks and card readers have a switch",
                    );
                }
                if u64::from(disk.block) != SECTOR {
                    let what = format!("its sectors have {} bytes, the image's {SECTOR}", disk.block);
                    return refuse(what, "take another stick");
                }
            }
            Kind::File { foreign: Some(what) } => {
                let hint = "name an empty file, which `truncate -s 4G FILE` makes, or one that holds a gdsboot image";
                return refuse(format!("it holds {what}"), hint);
            }
            Kind::File { foreign: None } => {}
        }
        if self.bytes < image {
            let what = format!("it has {} bytes, the image {image}", self.bytes);
            return refuse(what, "take a larger one");
        }
        ensure!(
            self.bytes.is_multiple_of(SECTOR),
            "{shown} has {} bytes, which are no whole sectors",
            self.bytes
        );
        Ok(())
    }

    /// The word that names the disk: its serial number, or its size where it has none. A file needs none: it was looked at
    /// whether it holds anything.
    pub fn word(&self) -> Option<String> {
        match &self.kind {
            Kind::Disk(stick) => Some(stick.serial.clone().unwrap_or_else(|| self.bytes.to_string())),
            Kind::File { .. } => None,
        }
    }

    /// Is it the disk that `said` names?
    ///
    /// # Errors
    /// It is not.
    pub fn is_meant(&self, said: &str) -> Result<()> {
        if self.word().is_none_or(|word| word == said) {
            return Ok(());
        }
        Err(usage(
            format!("not writing to {}: {said:?} is not what names it ({self})", self.path.display()),
            "give its whole serial number as it is shown, or, where it has none, its size in bytes",
        ))
    }

    /// Is it still the same, now that `open` holds it?
    ///
    /// # Errors
    /// It is another one by now, or somebody has begun to use it.
    pub fn is_still(&self, root: &Root, open: &Medium) -> Result<()> {
        let again = Self::look(root, &self.path)?;
        let same = match (&self.kind, &again.kind) {
            (Kind::Disk(before), Kind::Disk(now)) => {
                // This process has it open itself, and is no user.
                Disk { users: Vec::new(), ..before.disk.clone() }
                    == Disk { users: Vec::new(), ..now.disk.clone() }
                    && now.disk.users.is_empty()
            }
            (before, now) => before == now,
        };
        if same
            && again.bytes == self.bytes
            && open.identity()? == self.identity
            && again.identity == self.identity
        {
            return Ok(());
        }
        Err(usage(format!("{} was changed while it was looked at", self.path.display()), "try again"))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Disk(stick) => {
                let serial = stick.serial.as_deref().unwrap_or("none");
                let (path, size) = (self.path.display(), in_words(self.bytes));
                write!(f, "{path}: {}, serial number {serial}, {size}", stick.model)
            }
            Kind::File { .. } => write!(f, "{}, {}", self.path.display(), in_words(self.bytes)),
        }
    }
}

impl Stick {
    fn read(root: &Root, disk: Disk) -> Self {
        let folder = format!("/sys/block/{}", disk.name);
        let text = |file: &str| root.text(&format!("{folder}/{file}")).value().cloned();
        let model: Vec<String> = ["device/vendor", "device/model"].into_iter().filter_map(text).collect();
        let place = root.locate(&folder).and_then(std::fs::canonicalize).unwrap_or_default();
        let is_usb = place.components().any(|part| part.as_os_str().to_string_lossy().starts_with("usb"));
        let is_card = disk.name.starts_with("mmcblk");
        let removable = is_usb || is_card || text("removable").is_some_and(|said| said == "1");
        // sysfs has the serial number of a stick where its USB device stands, some folders above.
        let above = || {
            let mut serials =
                place.ancestors().skip(1).take_while(|_| is_usb).map(|place| place.join("serial"));
            serials.find_map(|path| std::fs::read_to_string(path).ok()).map(|text| text.trim().to_owned())
        };
        let serial = disk.serial.clone().or_else(above).filter(|serial| !serial.is_empty());
        let model =
            if model.is_empty() { "a disk that does not say its model".into() } else { model.join(" ") };
        Self { disk, model, serial, removable }
    }
}

/// What a file holds that is not gdsboot's: an empty one, and one with a report partition, may be written to.
fn foreign(path: &Path) -> Result<Option<String>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    if let Ok(table) = Table::read(&mut file) {
        let ours = table.named(REPORT_LABEL).next().is_some();
        return Ok((!ours).then(|| "partitions that are not gdsboot's".into()));
    }
    let mut at = 0;
    let mut buffer = vec![0; 1 << 20];
    while let Some((start, end)) = crate::extents::next_data(&file, at, length)? {
        at = start;
        while at < end {
            let piece = &mut buffer[..(end - at).min(1 << 20) as usize];
            file.read_exact_at(piece, at)?;
            if let Some(byte) = piece.iter().position(|byte| *byte != 0) {
                return Ok(Some(format!("something else, from byte {} on", at + byte as u64)));
            }
            at += piece.len() as u64;
        }
    }
    Ok(None)
}
