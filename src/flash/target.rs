//! Which disk or file is meant, and whether it may be written to. Nothing is opened for writing here. What is known of disks
//! comes from [`candidate`], which also decides for the benchmark; what cannot be read refuses a disk.

use super::medium::Identity;
use crate::bench::scratch::candidate::{self, Disk};
use crate::boot_contract::REPORT_LABEL;
use crate::error::{Advise as _, Status, usage};
use crate::facts::Root;
use crate::progress::bytes as in_words;
use crate::report::gpt::{SECTOR, Table};
use crate::report::source::Image;
use anyhow::{Context as _, Result};
use std::fmt;
use std::fs::File;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _};
use std::path::{Path, PathBuf};

/// What is to be written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    path: PathBuf,
    bytes: u64,
    identity: Identity,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Disk(Box<Stick>),
    File {
        /// What it holds that is not gdsboot's, in words.
        foreign: Option<String>,
        /// Who uses it, in words.
        users: Vec<String>,
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
    /// Another disk that is the same one on another path.
    other_path: Option<String>,
    /// Does another disk have the same serial number, such as the other slot of a card reader?
    shares_serial: bool,
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
        let identity = Identity::of(&metadata);
        if kind.is_file() {
            let foreign = foreign(device)
                .with_context(|| format!("reading {shown}"))
                .status(Status::Usage)
                .hint("name a file of your own")?;
            let kind = Kind::File { foreign, users: users(root, identity) };
            return Ok(Self { path: device.into(), bytes: metadata.len(), identity, kind });
        }
        if !kind.is_block_device() {
            return Err(usage(
                format!("{shown} is neither a disk nor a file"),
                "name a stick, such as /dev/sdb",
            ));
        }
        let disks = candidate::read_all(root)
            .with_context(|| format!("looking at {shown}"))
            .status(Status::Usage)
            .hint("disks are written by root: only root sees who uses them")?;
        let sticks: Vec<Stick> = disks.into_iter().map(|disk| Stick::read(root, disk)).collect();
        let number = candidate::number(identity.number);
        let Some(stick) = sticks.iter().find(|stick| stick.disk.number == number) else {
            return Err(usage(
                format!("{shown} is no whole disk"),
                "name the disk without the partition's number, such as /dev/sdb; loop devices are none",
            ));
        };
        let others = || sticks.iter().filter(|other| other.disk.name != stick.disk.name);
        let same_disk = |other: &&Stick| other.disk.wwid.is_some() && other.disk.wwid == stick.disk.wwid;
        let stick = Stick {
            other_path: others().find(same_disk).map(|other| other.disk.name.clone()),
            shares_serial: stick.serial.is_some() && others().any(|other| other.serial == stick.serial),
            ..stick.clone()
        };
        let bytes = stick.disk.bytes;
        Ok(Self { path: device.into(), bytes, identity, kind: Kind::Disk(Box::new(stick)) })
    }

    /// Which one it is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// May this image be written to it?
    ///
    /// # Errors
    /// It may not.
    pub fn check(&self, image: &Image, allow_fixed: bool) -> Result<()> {
        let shown = self.path.display();
        let refuse = |what: String, hint: &str| Err(usage(format!("not writing to {shown}: {what}"), hint));
        match &self.kind {
            Kind::Disk(stick) => {
                let Stick { disk, removable, other_path, .. } = &**stick;
                if !disk.users.is_empty() {
                    let hint = "unmount it and stop what uses it; a disk that this system runs from cannot be written to";
                    return refuse(format!("it is in use: {}", disk.users.join(", ")), hint);
                }
                if let Some(other) = other_path {
                    return refuse(
                        format!("{other} is the same disk on another path"),
                        "use a disk with one path",
                    );
                }
                if self.bytes == 0 {
                    return refuse("there is no medium in it".into(), "put a card or a stick in");
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
            Kind::File { users, .. } if !users.is_empty() => {
                let hint = "stop what uses it, or name another file";
                return refuse(format!("it is in use: {}", users.join(", ")), hint);
            }
            Kind::File { foreign: Some(what), .. } => {
                let hint = "name an empty file, which `truncate -s 4G FILE` makes, or one that holds a gdsboot image";
                return refuse(format!("it holds {what}"), hint);
            }
            Kind::File { foreign: None, .. }
                if image
                    .raw()
                    .map(File::metadata)
                    .transpose()?
                    .is_some_and(|m| Identity::of(&m) == self.identity) =>
            {
                return refuse("it is the image itself".into(), "name a stick, or another file");
            }
            Kind::File { .. } => {}
        }
        if self.bytes < image.size() {
            let what = format!("it has {} bytes, the image {}", self.bytes, image.size());
            return refuse(what, "take a larger one");
        }
        if !self.bytes.is_multiple_of(SECTOR) {
            let what = format!("it has {} bytes, which are no whole sectors", self.bytes);
            return refuse(what, "make it a multiple of 512 bytes long");
        }
        Ok(())
    }

    /// What names the disk: its serial number, with the kernel's name where another disk has the same, or its size where it
    /// has none. A file needs no word: it was looked at whether it holds anything.
    pub fn word(&self) -> Option<String> {
        match &self.kind {
            Kind::Disk(stick) => Some(match &stick.serial {
                Some(serial) if stick.shares_serial => format!("{serial} {}", stick.disk.name),
                Some(serial) => serial.clone(),
                None => self.bytes.to_string(),
            }),
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
        let word = self.word().unwrap_or_default();
        Err(usage(
            format!("not writing to {}: {said:?} is not what names it", self.path.display()),
            format!("it is {self}, and named by {word:?}"),
        ))
    }

    /// Is it still the same, now that it is open? This process is no user of its own.
    ///
    /// # Errors
    /// It is another one by now, or somebody has begun to use it.
    pub fn is_still(&self, root: &Root) -> Result<()> {
        let again = Self::look(root, &self.path)?;
        if again == *self {
            return Ok(());
        }
        let why = match &again.kind {
            Kind::Disk(stick) if !stick.disk.users.is_empty() => stick.disk.users.join(", "),
            Kind::File { users, .. } if !users.is_empty() => users.join(", "),
            _ => format!("it is {again} now"),
        };
        Err(usage(format!("{} was changed while it was looked at: {why}", self.path.display()), "try again"))
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
        let names = ["device/vendor", "device/model", "device/name"];
        let model: Vec<String> = names.into_iter().filter_map(text).map(|name| printable(&name)).collect();
        let place = root.locate(&folder).and_then(std::fs::canonicalize).unwrap_or_default();
        // The USB device that it is in, and not the hub that this is in.
        let usb = place.ancestors().skip(1).find(|place| place.join("idVendor").exists());
        // MMC that is soldered in says MMC (Documentation/mmc/mmc-dev-attrs.rst).
        let is_card = text("device/type").is_some_and(|kind| kind == "SD");
        let removable = usb.is_some() || is_card || text("removable").is_some_and(|said| said == "1");
        let of_usb = || std::fs::read_to_string(usb?.join("serial")).ok();
        // Page 0x80 of SCSI, "unit serial number": four bytes before it.
        let of_scsi = || {
            let page = root.bytes(&format!("{folder}/device/vpd_pg80"));
            Some(String::from_utf8_lossy(page.value()?.get(4..)?).into_owned())
        };
        let serial = disk.serial.clone().or_else(of_usb).or_else(of_scsi).map(|serial| printable(&serial));
        let serial = serial.filter(|serial| !serial.is_empty());
        let model =
            if model.is_empty() { "a disk that does not say its model".into() } else { model.join(" ") };
        Self { disk, model, serial, removable, other_path: None, shares_serial: false }
    }
}

/// Without what would do something to a terminal.
fn printable(text: &str) -> String {
    text.trim_matches(|letter: char| letter.is_whitespace() || letter == '\0').replace(char::is_control, "?")
}

/// Who uses a file: loop devices made of it, and other processes that have it open, as far as this user may see.
fn users(root: &Root, identity: Identity) -> Vec<String> {
    let is_it =
        |path: &Path| std::fs::metadata(path).is_ok_and(|metadata| Identity::of(&metadata) == identity);
    let names = |path: &str| root.list(path).value().cloned().unwrap_or_default();
    let mut found = Vec::new();
    for name in names("/sys/block").iter().filter(|name| name.starts_with("loop")) {
        let backing = root.text(&format!("/sys/block/{name}/loop/backing_file"));
        if backing.value().is_some_and(|path| is_it(Path::new(path))) {
            found.push(format!("{name} is made of it"));
        }
    }
    let ours = std::process::id().to_string();
    for process in names("/proc").iter().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) {
        let folder = format!("/proc/{process}/fd");
        let Ok(here) = root.locate(&folder) else { continue };
        if *process != ours && names(&folder).iter().any(|file| is_it(&here.join(file))) {
            let program = root.text(&format!("/proc/{process}/comm"));
            let program = program.value().map_or("?", String::as_str);
            found.push(format!("it is open in process {process} ({program})"));
        }
    }
    found
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
