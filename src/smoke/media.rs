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
    /// The report disk.
    pub report: Option<Medium>,
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
    pub fn copy(
        image: &Image,
        disk: Disk,
        read_only: bool,
        report: &ReportDisk,
        folder: &Path,
        stage: &Stage,
    ) -> Result<Self> {
        let read_only = read_only || image.kind() == Kind::Iso;
        let copied = Medium::copied(image, "image", folder, stage)?;
        let report = match report {
            ReportDisk::File(path) => {
                let image = Image::open(path)?;
                image.report_partition()?;
                Some(Medium::copied(&image, "report", folder, stage)?)
            }
            ReportDisk::New => Some(new_report_disk(folder)?),
            ReportDisk::AsNeeded if image.kind() == Kind::Iso => Some(new_report_disk(folder)?),
            ReportDisk::AsNeeded | ReportDisk::None => None,
        };
        Ok(Self { image: copied, disk, read_only, report })
    }

    /// What kind of file that is where the guest's report is expected; an ISO cannot hold one.
    pub fn reported_kind(&self) -> Kind {
        self.report.as_ref().unwrap_or(&self.image).kind
    }

    /// Where the guest's report is expected.
    pub fn reported(&self) -> &Path {
        &self.report.as_ref().unwrap_or(&self.image).path
    }
}

fn new_report_disk(folder: &Path) -> Result<Medium> {
    let path = folder.join("report.img");
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
