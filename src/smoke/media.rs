//! What is attached to a guest for one boot: a copy of the image, and of a separate report disk where there is one.

use super::copy;
use super::machine::Disk;
use crate::builder::split_report;
use crate::error::usage;
use crate::progress::{Progress, Stage};
use crate::report::kind::Kind;
use crate::report::source::Image;
use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};

/// Which report disk is attached beside the image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ReportDisk {
    /// A new one beside an ISO, which has no place for reports; else none.
    #[default]
    AsNeeded,
    /// None.
    None,
    /// A new one.
    New,
    /// A copy of this one.
    File(PathBuf),
}

impl std::str::FromStr for ReportDisk {
    type Err = std::convert::Infallible;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Ok(match word {
            "" => Self::AsNeeded,
            "none" => Self::None,
            "new" => Self::New,
            path => Self::File(path.into()),
        })
    }
}

/// The attached disks, as QEMU sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media {
    /// The copy of the image.
    pub image: Medium,
    /// How it is attached.
    pub disk: Disk,
    /// Can the guest not write to it? No guest can write to an ISO.
    pub read_only: bool,
    /// A second copy of the image, on a disk of its own.
    pub second: Option<Medium>,
    /// The report disks.
    pub reports: Vec<Medium>,
}

/// What is to be attached.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// How the image is attached.
    pub disk: Disk,
    /// So that nothing can write to it?
    pub read_only: bool,
    /// Twice?
    pub twice: bool,
    /// The report disk beside it.
    pub report: &'a ReportDisk,
    /// How many new ones where that says [`ReportDisk::AsNeeded`].
    pub report_disks: u8,
}

/// A file with a disk in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Medium {
    /// Where it is.
    pub path: PathBuf,
    /// How the disk is in it.
    pub kind: Kind,
}

impl Medium {
    /// QEMU's word for the format.
    pub fn format(&self) -> &'static str {
        match self.kind {
            Kind::Raw | Kind::Iso => "raw",
            Kind::Qcow2 => "qcow2",
        }
    }

    fn copied(image: &Image, name: &str, folder: &Path, stage: &Stage) -> Result<Self> {
        let extension = match image.kind() {
            Kind::Raw => "img",
            Kind::Qcow2 => "qcow2",
            Kind::Iso => "iso",
        };
        let path = folder.join(format!("{name}.{extension}"));
        copy::sparse(image.path(), &path, stage)?;
        Ok(Self { path, kind: image.kind() })
    }
}

impl Media {
    /// Copies the image and the report disk into `folder`, which QEMU may write to.
    ///
    /// # Errors
    /// There is no room, or the report disk is none.
    pub fn copy(image: &Image, wanted: Wanted<'_>, folder: &Path, stage: &Stage) -> Result<Self> {
        let Wanted { disk, read_only, twice, report, report_disks } = wanted;
        let read_only = read_only || image.kind() == Kind::Iso;
        let copied = Medium::copied(image, "image", folder, stage)?;
        let second = twice.then(|| Medium::copied(image, "second", folder, stage)).transpose()?;
        let reports = match report {
            ReportDisk::File(path) => {
                let image = Image::open(path)?;
                image.report_partition()?;
                vec![Medium::copied(&image, "report", folder, stage)?]
            }
            ReportDisk::New => vec![new_report_disk(folder, 0)?],
            ReportDisk::AsNeeded => {
                let least = u8::from(image.kind() == Kind::Iso);
                (0..report_disks.max(least)).map(|n| new_report_disk(folder, n)).collect::<Result<_>>()?
            }
            ReportDisk::None => Vec::new(),
        };
        Ok(Self { image: copied, disk, read_only, second, reports })
    }

    /// All disks that can hold reports, where the guest looks first; an ISO cannot.
    pub fn places(&self) -> impl Iterator<Item = &Medium> {
        let images = [&self.image].into_iter().chain(&self.second);
        self.reports.iter().chain(images.filter(|image| image.kind != Kind::Iso))
    }
}

fn new_report_disk(folder: &Path, number: u8) -> Result<Medium> {
    let name = if number == 0 { "report.img".to_owned() } else { format!("report{number}.img") };
    let path = folder.join(name);
    let file = fs_err::File::create_new(&path)?.into_file();
    split_report::write(&split_report::Request::default(), &file, &Progress::none())
        .context("making a report disk")?;
    Ok(Medium { path, kind: Kind::Raw })
}

/// Refuses an attachment that the kind of image cannot have.
pub fn check(image: &Image, disk: Disk) -> Result<()> {
    if disk.is_cdrom() && image.kind() != Kind::Iso {
        return Err(usage(
            format!("{} is no ISO, and no CD-ROM drive takes it", image.path().display()),
            "build one: gdsboot build --format iso; or attach it as a disk: --disk virtio-blk",
        ));
    }
    Ok(())
}
