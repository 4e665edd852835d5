//! A disk with a partition table: its partitions, the runs on its report partition, the files on its ESP. It is opened
//! read-only; nothing is mounted.

use super::disk::Disk;
use crate::boot_contract::{
    REPORT_LABEL, REPORT_RUNS, RUN_CAPTURE, RUN_REPORT_JSON, RUN_REPORT_TEXT, RUN_SAMPLES, RUN_STARTED,
};
use crate::error::{Advise as _, Status, usage};
use crate::report::fat::{Fat, ReadAt, Window};
use crate::report::gpt::{Partition, TYPE_ESP, Table};
use crate::report::json;
use crate::report::kind::Kind;
use crate::report::menu::{self, MenuEntry};
use crate::report::model::Report;
use anyhow::{Context as _, Result, bail, ensure};
use std::fs::File;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// More than any report has.
pub const MAX_REPORT: u32 = 64 << 20;
/// More than any boot menu has.
const MAX_MENU: u32 = 1 << 20;
/// More than any kernel or initial RAM disk has.
const MAX_KERNEL: u32 = 256 << 20;
/// More than any capture has.
const MAX_CAPTURE: u32 = 256 << 20;
/// `STARTED` is a few lines.
const MAX_STARTED: u32 = 64 << 10;

/// An image file, or a disk like it, opened for reading.
#[derive(Debug)]
pub struct Image<D = Disk> {
    path: PathBuf,
    disk: D,
    size: u64,
    table: Table,
}

impl Image {
    /// Opens the image file at `path` and reads its partition table. Fails with [`Status::Usage`] where that is not an
    /// image: missing, a directory, a device, truncated, without a partition table.
    pub fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        let meta = std::fs::metadata(path)
            .with_context(|| format!("opening the image {shown}"))
            .status(Status::Usage)
            .hint("name an image that `gdsboot build` wrote")?;
        let kind = meta.file_type();
        if kind.is_dir() {
            return Err(usage(format!("{shown} is a directory"), "name the image file in it"));
        }
        if kind.is_block_device() || kind.is_char_device() {
            return Err(usage(
                format!("{shown} is a device, not an image file"),
                "copy it into a file first, such as with `dd`",
            ));
        }
        if !kind.is_file() {
            return Err(usage(format!("{shown} is not a regular file"), "name an image file"));
        }
        let file =
            File::open(path).with_context(|| format!("opening the image {shown}")).status(Status::Usage)?;
        let disk =
            Disk::of(file).with_context(|| format!("reading the image {shown}")).status(Status::Usage)?;
        let table = disk
            .table()
            .with_context(|| format!("reading the image {shown}"))
            .status(Status::Usage)
            .hint("name an image that `gdsboot build` wrote; build it again if it is damaged")?;
        let size = disk.size();
        Ok(Self::of(path, disk, size, table))
    }

    /// What kind of file it is.
    pub fn kind(&self) -> Kind {
        match &self.disk {
            Disk::Raw { file, .. } => Kind::of(file),
            Disk::Qcow2(_) => Kind::Qcow2,
        }
    }

    /// The open file, which is the disk byte for byte; none where that is in another form.
    pub fn raw(&self) -> Option<&File> {
        match &self.disk {
            Disk::Raw { file, .. } => Some(file),
            Disk::Qcow2(_) => None,
        }
    }

    /// Bytes that the file occupies where it is stored; holes take none.
    pub fn allocated(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(self.size, |meta| meta.blocks() * 512)
    }
}

impl<D: ReadAt> Image<D> {
    /// A disk of `size` bytes whose partition table was read.
    pub fn of(path: &Path, disk: D, size: u64, table: Table) -> Self {
        Self { path: path.to_owned(), disk, size, table }
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its partition table.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The partition that reports are written to.
    pub fn report_partition(&self) -> Result<&Partition> {
        self.only(self.table.named(REPORT_LABEL), &format!("report partition (GPT name {REPORT_LABEL})"))
    }

    /// The EFI system partition.
    pub fn esp(&self) -> Result<&Partition> {
        self.only(self.table.of_type(TYPE_ESP), "EFI system partition")
    }

    fn only<'a>(&self, mut found: impl Iterator<Item = &'a Partition>, what: &str) -> Result<&'a Partition> {
        let shown = self.path.display();
        match (found.next(), found.next()) {
            (Some(partition), None) => Ok(partition),
            (None, _) => Err(usage(
                format!("the image {shown} has no {what}"),
                "name an image that `gdsboot build` wrote; `gdsboot inspect` lists its partitions",
            )),
            (Some(a), Some(b)) => Err(usage(
                format!(
                    "the image {shown} has more than one {what}: partitions {} and {}",
                    a.number, b.number
                ),
                "name an image that `gdsboot build` wrote; `gdsboot inspect` lists its partitions",
            )),
        }
    }

    /// The FAT filesystem on a partition of this image.
    pub fn filesystem(&self, partition: &Partition) -> Result<Fat<Window<'_, D>>> {
        let window = Window { file: &self.disk, start: partition.start, len: partition.size };
        Fat::open(window, partition.size)
            .with_context(|| format!("reading partition {} of {}", partition.number, self.path.display()))
    }

    /// The boot menu: the entries of the first `EFI/<vendor>/grub.cfg` on the ESP that has any.
    pub fn menu(&self) -> Result<Vec<MenuEntry>> {
        let fat = self.filesystem(self.esp()?)?;
        for vendor in fat.list("EFI")? {
            if let Some(text) = fat.read(&format!("EFI/{}/grub.cfg", vendor.name), MAX_MENU)? {
                let entries = menu::parse(&String::from_utf8_lossy(&text));
                if !entries.is_empty() {
                    return Ok(entries);
                }
            }
        }
        Ok(Vec::new())
    }

    /// The kernel that the boot menu's first entry loads.
    pub fn kernel(&self) -> Result<Vec<u8>> {
        self.file_of_menu(&self.first_entry()?.kernel)
    }

    /// The initial RAM disk that the boot menu's first entry loads.
    pub fn initrd(&self) -> Result<Vec<u8>> {
        let initrd = self.first_entry()?.initrd.with_context(|| {
            format!("finding the initial RAM disk of {}: its boot menu names none", self.path.display())
        })?;
        self.file_of_menu(&initrd)
    }

    /// The boot menu's first entry.
    pub fn first_entry(&self) -> Result<MenuEntry> {
        self.menu()?.into_iter().next().with_context(|| {
            let shown = self.path.display();
            format!("finding the kernel of {shown}: no EFI/*/grub.cfg on its ESP has a menu entry")
        })
    }

    fn file_of_menu(&self, path: &str) -> Result<Vec<u8>> {
        let file = self.filesystem(self.esp()?)?.read(path, MAX_KERNEL)?;
        file.with_context(|| format!("finding what {} boots: its ESP has no {path}", self.path.display()))
    }

    /// The folders of all runs, oldest first (their names begin with the time).
    pub fn runs(&self) -> Result<Vec<String>> {
        run_folders(&self.filesystem(self.report_partition()?)?)
    }

    /// What stands in a run's folder.
    pub fn run(&self, folder: &str) -> Result<Run> {
        let fat = self.filesystem(self.report_partition()?)?;
        let read = |name: &str, limit| fat.read(&format!("{REPORT_RUNS}/{folder}/{name}"), limit);
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        // A file whose writer lost its power before it had anything in it.
        let report =
            |name: &str| -> Result<_> { Ok(read(name, MAX_REPORT)?.filter(|bytes| !bytes.is_empty())) };
        Ok(Run {
            folder: folder.to_owned(),
            started: read(RUN_STARTED, MAX_STARTED)?.map(text),
            json: report(RUN_REPORT_JSON)?,
            text: report(RUN_REPORT_TEXT)?.map(text),
            capture: read(RUN_CAPTURE, MAX_CAPTURE)?,
            samples: read(RUN_SAMPLES, MAX_CAPTURE)?,
        })
    }
}

/// The folders of all runs on a report partition, oldest first.
pub(super) fn run_folders<D: ReadAt>(fat: &Fat<D>) -> Result<Vec<String>> {
    let folders = fat.list(REPORT_RUNS)?.into_iter().filter(|entry| entry.is_dir);
    let mut names: Vec<String> = folders.map(|entry| entry.name).collect();
    names.sort();
    Ok(names)
}

/// What one run left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Name of its folder.
    pub folder: String,
    /// What it wrote first.
    pub started: Option<String>,
    /// The report for programs, unparsed.
    pub json: Option<Vec<u8>>,
    /// The report for people.
    pub text: Option<String>,
    /// The machine itself, where that was asked for.
    pub capture: Option<Vec<u8>>,
    /// The benchmark's raw samples, where there was one.
    pub samples: Option<Vec<u8>>,
}

impl Run {
    /// The complete report, or why there is none.
    pub fn report(&self) -> Result<Report> {
        let Self { folder, started, json, text, .. } = self;
        match (json, text, started) {
            (Some(json), Some(_), _) => {
                let report = json::read(json)
                    .with_context(|| format!("reading {REPORT_RUNS}/{folder}/{RUN_REPORT_JSON}"))?;
                let last = report.stages.last().map_or("", |stage| &stage.name);
                ensure!(
                    report.complete,
                    "the run {folder} was cut off: its last stage in the report is {last:?}"
                );
                Ok(report)
            }
            (None, None, Some(_)) => {
                bail!("the run {folder} was cut off: it has {RUN_STARTED} and no report")
            }
            (None, None, None) => bail!("the run {folder} was cut off: its folder is empty"),
            (json, _, _) => {
                let missing = if json.is_some() { RUN_REPORT_TEXT } else { RUN_REPORT_JSON };
                bail!("the run {folder} was cut off: it has no {missing}")
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::error::{hint_of, one_line, status_of};
    use crate::report::fat::tests::filesystem;
    use crate::report::gpt::TYPE_BASIC_DATA;
    use crate::report::gpt::tests::disk;
    use crate::report::model::tests::sample;

    /// An image file with a report partition that holds these files, and an ESP that holds those.
    pub(crate) fn image(report: &[(&str, &[u8])], esp: &[(&str, &[u8])]) -> tempfile::NamedTempFile {
        let (report, esp) = (
            filesystem(1 << 20, fatfs::FatType::Fat12, report),
            filesystem(1 << 20, fatfs::FatType::Fat12, esp),
        );
        let mut bytes =
            disk(8192, &[(REPORT_LABEL, TYPE_BASIC_DATA, 2048, 2048), ("esp", TYPE_ESP, 4096, 2048)]);
        bytes[2048 * 512..4096 * 512].copy_from_slice(&report);
        bytes[4096 * 512..6144 * 512].copy_from_slice(&esp);
        written(&bytes)
    }

    fn written(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::Builder::new().suffix(".img").tempfile().unwrap();
        fs_err::write(file.path(), bytes).unwrap();
        file
    }

    #[test]
    fn runs_are_listed_and_a_cut_off_one_says_so() {
        let file = image(
            &[
                ("reports/20261122T110000Z-bbbbbbbb/STARTED", b"b"),
                ("reports/20261122T100000Z-aaaaaaaa/STARTED", b"a"),
                ("reports/note.txt", b"not a run"),
            ],
            &[("EFI/BOOT/BOOTX64.EFI", b"MZ")],
        );
        let image = Image::open(file.path()).unwrap();
        let runs = image.runs().unwrap();
        assert_eq!(runs, ["20261122T100000Z-aaaaaaaa", "20261122T110000Z-bbbbbbbb"]);
        let run = image.run(&runs[0]).unwrap();
        assert_eq!(run.started.as_deref(), Some("a"));
        assert_eq!(
            run.report().unwrap_err().to_string(),
            "the run 20261122T100000Z-aaaaaaaa was cut off: it has STARTED and no report"
        );
        let esp = image.filesystem(image.esp().unwrap()).unwrap();
        assert_eq!(esp.read("efi/boot/bootx64.efi", 10).unwrap().as_deref(), Some(b"MZ".as_slice()));
    }

    #[test]
    fn the_kernel_is_the_one_that_the_menu_loads() {
        let menu = b"menuentry 'Validate' {\n linux /gdsboot/vmlinuz quiet\n}\n".as_slice();
        let files = [("EFI/BOOT/x", b"x".as_slice()), ("EFI/debian/grub.cfg", menu)];
        let with = image(&[], &[files[0], files[1], ("gdsboot/vmlinuz", b"kernel")]);
        assert_eq!(Image::open(with.path()).unwrap().kernel().unwrap(), b"kernel");
        let without = image(&[], &files);
        let error = one_line(&Image::open(without.path()).unwrap().kernel().unwrap_err());
        assert!(error.ends_with("its ESP has no gdsboot/vmlinuz"), "{error}");
        let empty = image(&[], &[]);
        let error = one_line(&Image::open(empty.path()).unwrap().kernel().unwrap_err());
        assert!(error.ends_with("no EFI/*/grub.cfg on its ESP has a menu entry"), "{error}");
    }

    #[test]
    fn only_a_complete_report_is_one() {
        let run = |json: Option<Vec<u8>>, text: Option<&str>| Run {
            folder: "r".into(),
            started: None,
            json,
            text: text.map(str::to_owned),
            capture: None,
            samples: None,
        };
        let json = |report: &Report| {
            let mut bytes = Vec::new();
            json::write(report, &mut bytes).unwrap();
            Some(bytes)
        };
        let complete = sample();
        assert_eq!(run(json(&complete), Some("text")).report().unwrap(), complete);
        let error = |run: Run| one_line(&run.report().unwrap_err());
        let growing = Report { complete: false, ..complete.clone() };
        assert!(
            error(run(json(&growing), Some("text"))).starts_with("the run r was cut off: its last stage")
        );
        assert_eq!(error(run(json(&complete), None)), "the run r was cut off: it has no report.txt");
        assert_eq!(error(run(None, Some("text"))), "the run r was cut off: it has no report.json");
        assert_eq!(error(run(None, None)), "the run r was cut off: its folder is empty");
        let half = json(&complete).map(|bytes| bytes[..bytes.len() / 2].to_vec());
        assert!(
            error(run(half, Some("text"))).starts_with("reading reports/r/report.json: reading the report")
        );
    }

    #[test]
    fn an_image_without_runs_has_none() {
        let file = image(&[], &[]);
        assert_eq!(Image::open(file.path()).unwrap().runs().unwrap(), Vec::<String>::new());
    }

    #[test]
    fn what_is_not_an_image_is_named() {
        let error = |path: &Path| {
            let error = Image::open(path).unwrap_err();
            assert_eq!(status_of(&error), Status::Usage);
            assert!(hint_of(&error).is_some());
            one_line(&error).replace(&path.display().to_string(), "X")
        };
        assert_eq!(
            error(Path::new("/nonexistent.img")),
            "opening the image X: No such file or directory (os error 2)"
        );
        assert_eq!(error(Path::new("/")), "X is a directory");
        assert_eq!(error(Path::new("/dev/null")), "X is a device, not an image file");
        assert_eq!(
            error(written(b"short").path()),
            "reading the image X: it has 5 bytes: too few for a partition table"
        );
        assert_eq!(error(written(&[0; 65536]).path()), "reading the image X: it has no GUID partition table");
        let file = image(&[], &[]);
        file.as_file().set_len(1 << 20).unwrap();
        assert!(error(file.path()).contains("it is truncated: its partition table describes 4194304 bytes"));
    }

    #[test]
    fn missing_partitions_are_named() {
        let file = written(&disk(8192, &[("data", TYPE_BASIC_DATA, 2048, 2048)]));
        let image = Image::open(file.path()).unwrap();
        let report = image.runs().unwrap_err();
        assert!(one_line(&report).contains("has no report partition (GPT name GDSREPORT)"));
        assert_eq!(status_of(&report), Status::Usage);
        assert!(one_line(&image.esp().unwrap_err()).contains("has no EFI system partition"));
    }

    #[test]
    fn a_report_partition_without_a_filesystem_is_named() {
        let file = written(&disk(8192, &[(REPORT_LABEL, TYPE_BASIC_DATA, 2048, 2048)]));
        let error = Image::open(file.path()).unwrap().runs().unwrap_err();
        let text = one_line(&error);
        assert!(
            text.starts_with("reading partition 1 of ") && text.ends_with("it has no FAT filesystem"),
            "{text}"
        );
    }
}
