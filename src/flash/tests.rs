use super::*;
use crate::bench::scratch::candidate;
use crate::bench::scratch::testing::{Loop, file};
use crate::boot_contract::REPORT_RUNS;
use crate::builder::bios_boot;
use crate::builder::content::Content;
use crate::builder::disk::{self, DEFAULT_REPORT_SIZE, DiskInputs};
use crate::builder::fat::FatFile;
use crate::error::{Status, hint_of, one_line, status_of};
use crate::progress::Unit;
use crate::report::gpt::Table;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::sync::LazyLock;

const STICK: u64 = (150 << 20) + 512 * 7;

/// An image such as the builder writes, smaller.
fn image(folder: &Path) -> PathBuf {
    static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let inputs = DiskInputs {
            seed: "flash".to_owned(),
            epoch: 1_762_000_000,
            esp_files: vec![FatFile::new(
                "gdsboot/vmlinuz",
                (0..3_000_000_u32).map(|n| n as u8).collect::<Vec<u8>>(),
            )],
            report_files: vec![
                FatFile::new("README.txt", b"read me\r\n".to_vec()),
                FatFile::new("gdsboot.toml", b"#".to_vec()),
            ],
            root: Content::from(vec![4; 3_000_001]),
            bios: Some(bios_boot::tests::stage(150_000)),
            report_size: Some(DEFAULT_REPORT_SIZE),
        };
        let layout = disk::plan(&inputs).unwrap();
        let mut out = tempfile::tempfile().unwrap();
        disk::write(&inputs, &layout, &out, &Progress::none().stage("", 0, Unit::Bytes)).unwrap();
        let mut bytes = Vec::new();
        io::Seek::rewind(&mut out).unwrap();
        out.read_to_end(&mut bytes).unwrap();
        bytes
    });
    let path = folder.join("image");
    fs_err::write(&path, &*BYTES).unwrap();
    path
}

fn nobody(said: &str) -> Result<String> {
    panic!("nobody is to be asked: {said}")
}

fn onto(folder: &Path, target: &Path, options: &Options) -> Result<Written> {
    flash(&Root::live(), &image(folder), target, options, &mut nobody, &Progress::none())
}

/// The report partition, by a reader that is not ours.
fn volume(stick: &Path) -> fatfs::FileSystem<io::Cursor<Vec<u8>>> {
    let mut file = File::open(stick).unwrap();
    let table = Table::read(&mut file).unwrap();
    let report = table.named("GDSREPORT").next().unwrap();
    let mut bytes = vec![0; report.size as usize];
    file.read_exact_at(&mut bytes, report.start).unwrap();
    fatfs::FileSystem::new(io::Cursor::new(bytes), fatfs::FsOptions::new()).unwrap()
}

fn names(folder: fatfs::Dir<'_, io::Cursor<Vec<u8>>>) -> Vec<String> {
    let mut names: Vec<_> = folder.iter().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

/// Puts a file onto a stick's report partition.
fn add(stick: &Path, name: &str, bytes: &[u8]) {
    with_volume(stick, |fs| fs.root_dir().create_file(name).unwrap().write_all(bytes).unwrap());
}

/// Puts runs onto a stick, as the image does it.
fn add_runs(stick: &Path) {
    with_volume(stick, |fs| {
        let runs = fs.root_dir().create_dir(REPORT_RUNS).unwrap();
        for run in ["20261128T120000Z-0badcafe", "20261128T130000Z-cafebabe"] {
            let folder = runs.create_dir(run).unwrap();
            for (name, length) in [("report.json", 200_000), ("STARTED", 0)] {
                folder.create_file(name).unwrap().write_all(&vec![b'7'; length]).unwrap();
            }
        }
    });
}

fn with_volume(stick: &Path, change: impl FnOnce(&fatfs::FileSystem<&mut io::Cursor<Vec<u8>>>)) {
    let mut file = File::options().read(true).write(true).open(stick).unwrap();
    let report = frame::report_of(&file).unwrap().unwrap();
    let mut bytes = vec![0; report.size as usize];
    file.read_exact_at(&mut bytes, report.start).unwrap();
    let mut cursor = io::Cursor::new(bytes);
    {
        let fs = fatfs::FileSystem::new(&mut cursor, fatfs::FsOptions::new()).unwrap();
        change(&fs);
    }
    file.write_all_at(cursor.get_ref(), report.start).unwrap();
    file.flush().unwrap();
}

#[test]
fn a_file_becomes_a_stick_whose_reports_have_all_the_room_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let stick = file(dir.path(), "stick", STICK, &[]);
    let written = onto(dir.path(), &stick, &Options::default()).unwrap();
    let (mut now, mut before) = (File::open(&stick).unwrap(), File::open(dir.path().join("image")).unwrap());
    let (table, of_image) = (Table::read(&mut now).unwrap(), Table::read(&mut before).unwrap());
    assert_eq!((table.disk_guid, &table.primary_damage), (of_image.disk_guid, &None));
    assert_eq!(table.partitions.len(), 4);
    for (partition, of_image) in table.partitions.iter().zip(&of_image.partitions) {
        assert_eq!(
            (&partition.name, partition.guid, partition.start),
            (&of_image.name, of_image.guid, of_image.start)
        );
        if partition.name == "GDSREPORT" {
            assert_eq!(partition.start + partition.size, 149 << 20);
            assert_eq!(partition.size, written.report_bytes);
            continue;
        }
        assert_eq!(partition.size, of_image.size);
        let (mut one, mut other) = (vec![0; partition.size as usize], vec![0; partition.size as usize]);
        now.read_exact_at(&mut one, partition.start).unwrap();
        before.read_exact_at(&mut other, partition.start).unwrap();
        assert!(one == other, "{}", partition.name);
    }
    // The copy of the table stands in the last sector, and says the same.
    let mut backup = fs_err::read(&stick).unwrap();
    backup[512..1024].fill(0);
    let backup = Table::read(&mut io::Cursor::new(backup)).unwrap();
    assert!(backup.primary_damage.is_some() && backup.partitions == table.partitions);
    // GRUB's boot sector, and a protective entry as long as the disk.
    let (mut mbr, mut of_image) = ([0; 512], [0; 512]);
    now.read_exact_at(&mut mbr, 0).unwrap();
    before.read_exact_at(&mut of_image, 0).unwrap();
    assert_eq!(mbr[458..462], u32::try_from(STICK / 512 - 1).unwrap().to_le_bytes());
    assert!(mbr[..458] == of_image[..458] && mbr[462..] == of_image[462..]);

    let fs = volume(&stick);
    assert_eq!(
        (fs.volume_label(), names(fs.root_dir())),
        ("GDSREPORT".into(), vec!["README.txt".into(), "gdsboot.toml".into()])
    );
    let mut text = String::new();
    fs.root_dir().open_file("README.txt").unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "read me\r\n");
    let free = fs.stats().unwrap();
    let free = u64::from(free.free_clusters()) * u64::from(free.cluster_size());
    assert!(free > written.report_bytes / 100 * 97, "{free} of {}", written.report_bytes);
    assert_eq!(Image::open(&stick).unwrap().runs().unwrap(), Vec::<String>::new());
}

#[test]
fn reports_are_carried_over_where_that_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let saved = dir.path().join("saved");
    fs_err::create_dir(&saved).unwrap();
    let keep = Options { keep_reports: Some(saved.clone()), ..Options::default() };
    let stick = file(dir.path(), "stick", STICK, &[]);
    assert_eq!(onto(dir.path(), &stick, &keep).unwrap().kept, 0);
    add_runs(&stick);
    add(&stick, "gdsboot.toml", b"bench = 'full'");
    add(&stick, "notes.txt", b"mine");
    add(&stick, "README.txt", b"old");
    let written = onto(dir.path(), &stick, &keep).unwrap();
    assert_eq!((written.kept, written.not_carried), (2, vec![]));
    let read = |name: &str| {
        let mut text = String::new();
        volume(&stick).root_dir().open_file(name).unwrap().read_to_string(&mut text).unwrap();
        text
    };
    assert_eq!(read("gdsboot.toml"), "bench = 'full'");
    assert_eq!((read("notes.txt"), read("README.txt")), ("mine".into(), "read me\r\n".into()));
    let image = Image::open(&stick).unwrap();
    assert_eq!(image.runs().unwrap(), ["20261128T120000Z-0badcafe", "20261128T130000Z-cafebabe"]);
    let run = image.run("20261128T130000Z-cafebabe").unwrap();
    assert_eq!((run.json, run.started.as_deref()), (Some(vec![b'7'; 200_000]), Some("")));
    assert_eq!(fs_err::read_dir(&saved).unwrap().count(), 0, "what was saved is on the stick");

    let error = onto(dir.path(), &stick, &Options::default()).unwrap_err();
    assert!(one_line(&error).contains("it holds 2 runs of gdsboot"), "{error:#}");
    assert!(one_line(&error).contains("which --keep-reports carries over"), "{error:#}");
    assert_eq!(Image::open(&stick).unwrap().runs().unwrap().len(), 2);

    // What has a name that gdsboot does not write stays where it was saved.
    add(&stick, "für mich.txt", b"umlaut");
    let written = onto(dir.path(), &stick, &keep).unwrap();
    let [left] = &written.not_carried[..] else { panic!("{written:?}") };
    assert_eq!(fs_err::read(left).unwrap(), b"umlaut");
    assert!(left.starts_with(saved.join("gdsboot-reports-of-stick-1")), "{}", left.display());

    // What cannot be read is not lost by the way.
    let mut bytes = fs_err::read(&stick).unwrap();
    let start = image.report_partition().unwrap().start as usize;
    bytes[start + 510] = 0;
    fs_err::write(&stick, &bytes).unwrap();
    let error = onto(dir.path(), &stick, &keep).unwrap_err();
    assert_eq!(status_of(&error), Status::Usage);
    assert!(one_line(&error).contains("reading the reports that are on"), "{error:#}");
    assert!(hint_of(&error).unwrap().contains("without --keep-reports all of it is lost"));
    assert!(fs_err::read(&stick).unwrap() == bytes);
    let error = onto(dir.path(), &stick, &Options::default()).unwrap_err();
    assert!(
        one_line(&error).contains("it holds what gdsboot cannot read (it has no FAT filesystem)"),
        "{error:#}"
    );
    assert!(fs_err::read(&stick).unwrap() == bytes);
}

#[test]
fn a_file_that_is_in_use_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let stick = file(dir.path(), "stick", STICK, &[]);
    let refused = |said: &str| {
        let error = onto(dir.path(), &stick, &Options::default()).unwrap_err();
        assert!(one_line(&error).contains(said), "{error:#}");
        assert_eq!(std::fs::metadata(&stick).unwrap().blocks(), 0);
    };
    // As QEMU locks the images of its machines.
    let holder = File::options().read(true).write(true).open(&stick).unwrap();
    let lock = libc::flock {
        l_type: libc::F_RDLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 100,
        l_len: 1,
        l_pid: 0,
    };
    nix::fcntl::fcntl(&holder, nix::fcntl::FcntlArg::F_OFD_SETLK(&lock)).unwrap();
    refused("another program has locked it");
    drop(holder);
    let mut reader = std::process::Command::new("sleep");
    let mut reader = reader.arg("60").stdin(File::open(&stick).unwrap()).spawn().unwrap();
    refused("it is open in process ");
    reader.kill().unwrap();
    reader.wait().unwrap();
    if let Some(device) = Loop::new(&stick) {
        refused(&format!("{} is made of it", device.0.trim_start_matches("/dev/")));
    }
}

#[test]
fn what_is_not_ours_and_what_is_too_small_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let gpt = crate::report::gpt::tests::disk(STICK / 512, &[("EFI", uuid::Uuid::from_u128(5), 2048, 2048)]);
    let foreign = dir.path().join("foreign");
    fs_err::write(&foreign, gpt).unwrap();
    for (target, said, hint) in [
        (
            file(dir.path(), "text", STICK, &[(70 << 20, b"x")]),
            "it holds something else, from byte 73400320 on",
            "truncate",
        ),
        (foreign, "it holds partitions that are not gdsboot's", "truncate"),
        (file(dir.path(), "small", 60 << 20, &[]), "it has 62914560 bytes, the image ", "a larger one"),
        (file(dir.path(), "odd", STICK + 1, &[]), "no whole sectors", ""),
        (dir.path().join("none"), "looking at", "truncate -s 4G"),
        (dir.path().to_owned(), "is neither a disk nor a file", "/dev/sdb"),
        ("/dev/null".into(), "is neither a disk nor a file", "/dev/sdb"),
    ] {
        let before = fs_err::read(&target).unwrap_or_default();
        let error = onto(dir.path(), &target, &Options::default()).unwrap_err();
        assert!(one_line(&error).contains(said), "{error:#}");
        assert!(hint_of(&error).unwrap_or_default().contains(hint), "{error:#}");
        assert!(fs_err::read(&target).unwrap_or_default() == before, "{said}");
    }
    // The image onto itself, by another name too.
    let itself = image(dir.path());
    let name = dir.path().join("another");
    fs_err::hard_link(&itself, &name).unwrap();
    for target in [&itself, &name] {
        let before = fs_err::read(&itself).unwrap();
        let error =
            flash(&Root::live(), &itself, target, &Options::default(), &mut nobody, &Progress::none())
                .unwrap_err();
        assert!(one_line(&error).contains("it is the image itself"), "{error:#}");
        assert!(fs_err::read(&itself).unwrap() == before);
    }
    // Something that is no image.
    let stick = file(dir.path(), "stick", STICK, &[]);
    for (name, length, said) in
        [("cut", 40 << 20, "truncated"), ("zeros", 1 << 20, "no GUID partition table")]
    {
        let whole = fs_err::read(image(dir.path())).unwrap();
        let wrong = dir.path().join(name);
        let bytes = if name == "cut" { &whole[..length] } else { &vec![0; length] };
        fs_err::write(&wrong, bytes).unwrap();
        let error = flash(&Root::live(), &wrong, &stick, &Options::default(), &mut nobody, &Progress::none())
            .unwrap_err();
        assert!(one_line(&error).contains(said), "{error:#}");
    }
    assert_eq!(std::fs::metadata(&stick).unwrap().blocks(), 0);
}

/// How a stick fails.
#[derive(Clone, Copy, Debug, Default)]
struct Fault {
    /// After so many calls it is pulled out.
    pulled_after: Option<u64>,
    /// Writing to this byte is an error of this number.
    write: Option<(u64, i32)>,
    /// Writing works, and waiting for what was written is an error.
    late: bool,
    /// What is written to this byte is another.
    corrupt: Option<u64>,
    /// It has so many bytes, and begins again there, as sticks do that say they were larger.
    counterfeit: Option<u64>,
    /// Half of what is wanted, and some interruptions.
    short: bool,
}

/// A stick in memory.
struct Faulty {
    bytes: Vec<u8>,
    fault: Fault,
    calls: u64,
}

impl Faulty {
    fn new(fault: Fault) -> Self {
        Self { bytes: vec![0xee; STICK as usize], fault, calls: 0 }
    }

    fn call(&mut self) -> io::Result<()> {
        self.calls += 1;
        if self.fault.pulled_after.is_some_and(|after| self.calls > after) {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        match self.fault.short && self.calls.is_multiple_of(5) {
            true => Err(io::ErrorKind::Interrupted.into()),
            false => Ok(()),
        }
    }

    fn place(&self, at: u64) -> usize {
        (at % self.fault.counterfeit.unwrap_or(STICK)) as usize
    }

    fn some(&self, at: u64, wanted: usize) -> usize {
        let wanted = wanted.min(self.bytes.len() - at as usize);
        if self.fault.short { wanted.div_ceil(2) } else { wanted }
    }

    /// Would any firmware find something on it? UEFI looks for the protective MBR before it looks for either table.
    fn boots(&self) -> bool {
        self.bytes[510..512] == [0x55, 0xaa] || self.bytes[512..520] == *b"EFI PART"
    }
}

impl Medium for Faulty {
    fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<usize> {
        self.call()?;
        let length = self.some(at, bytes.len());
        let range = at..at + length as u64;
        if let Some((bad, number)) = self.fault.write
            && range.contains(&bad)
        {
            return Err(io::Error::from_raw_os_error(number));
        }
        let place = self.place(at);
        let length = length.min(self.fault.counterfeit.unwrap_or(STICK) as usize - place);
        self.bytes[place..place + length].copy_from_slice(&bytes[..length]);
        if let Some(bad) = self.fault.corrupt.filter(|bad| range.contains(bad)) {
            self.bytes[bad as usize] ^= 0x10;
        }
        Ok(length)
    }

    fn read_at(&mut self, into: &mut [u8], at: u64) -> io::Result<usize> {
        self.call()?;
        let place = self.place(at);
        let length = self.some(at, into.len()).min(self.fault.counterfeit.unwrap_or(STICK) as usize - place);
        into[..length].copy_from_slice(&self.bytes[place..place + length]);
        Ok(length)
    }

    fn begin(&mut self, _: Range<u64>) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self, _: Range<u64>) -> io::Result<()> {
        Ok(())
    }

    fn settle(&mut self) -> io::Result<()> {
        match self.fault.late {
            true => Err(io::Error::from_raw_os_error(libc::EIO)),
            false => Ok(()),
        }
    }
}

/// Writes to a stick that fails; the error, and the stick.
fn with(fault: Fault) -> (Result<Written>, Faulty) {
    static FRAME: LazyLock<Frame<'static>> = LazyLock::new(|| {
        let dir = tempfile::tempdir().unwrap();
        let image = Box::leak(Box::new(Image::open(&image(dir.path())).unwrap()));
        Frame::new(image, STICK, &[]).unwrap()
    });
    let mut stick = Faulty::new(fault);
    let done = carry_out(&mut stick, &FRAME, &Progress::none());
    (done.map_err(|failed| failed.error), stick)
}

#[test]
fn a_stick_that_fails_is_named_and_never_boots() {
    let middle = 10 << 20;
    let faults = [
        (Fault { write: Some((middle, libc::EIO)), ..Fault::default() }, "Input/output error"),
        (Fault { write: Some((middle, libc::ENOSPC)), ..Fault::default() }, "No space left on device"),
        (Fault { write: Some((STICK - 512, libc::EIO)), ..Fault::default() }, "Input/output error"),
        (Fault { late: true, ..Fault::default() }, "Input/output error"),
        (Fault { corrupt: Some(middle), ..Fault::default() }, "byte 10485760 was written as "),
        (Fault { corrupt: Some(STICK - 512), ..Fault::default() }, "is read back as "),
        (Fault { corrupt: Some(600), ..Fault::default() }, "byte 600 was written as "),
        (
            Fault { counterfeit: Some(8 << 20), ..Fault::default() },
            "the medium is faulty, or smaller than it says",
        ),
        // The copy of the table overwrites a part of the image.
        (
            Fault { counterfeit: Some(135 << 20), ..Fault::default() },
            "the medium is faulty, or smaller than it says",
        ),
    ];
    for (fault, said) in faults {
        let (error, stick) = with(fault);
        let error = one_line(&error.expect_err(said));
        assert!(error.contains(said), "{fault:?}: {error}");
        assert!(!stick.boots(), "{fault:?}");
    }
}

#[test]
fn short_writes_and_interruptions_are_no_failure() {
    let (written, stick) = with(Fault { short: true, ..Fault::default() });
    let (_, whole) = with(Fault::default());
    written.unwrap();
    assert!(stick.boots() && stick.bytes == whole.bytes);
}

#[test]
fn a_stick_that_is_pulled_out_at_any_moment_does_not_boot() {
    for short in [false, true] {
        let (_, whole) = with(Fault { short, ..Fault::default() });
        assert!(whole.boots());
        for pulled in (0..whole.calls).step_by(if short { 7 } else { 1 }) {
            let (error, stick) = with(Fault { pulled_after: Some(pulled), short, ..Fault::default() });
            assert!(one_line(&error.unwrap_err()).contains("No such device"));
            // Once the first MiB is written, all else has been compared.
            let rest = 1 << 20..;
            assert!(!stick.boots() || stick.bytes[rest.clone()] == whole.bytes[rest], "after {pulled} calls");
        }
    }
}

/// A loop device that a machine shows as a stick in a USB port, or as an internal drive.
struct Machine(Root, Loop, #[allow(dead_code, reason = "deleted at the end")] tempfile::TempDir);

fn machine(stick: &Path, is_usb: bool) -> Option<Machine> {
    let device = Loop::new(stick)?;
    let dir = tempfile::tempdir().unwrap();
    let number = candidate::number(device.number());
    candidate::tests::machine(dir.path(), &number, std::fs::metadata(stick).unwrap().len());
    if is_usb {
        let place = "devices/pci0000:00/0000:00:14.0/usb2/2-3";
        let below = format!("{place}/2-3:1.0/host6/target6:0:0/6:0:0:0/block");
        let (sys, block) = (dir.path().join("sys"), dir.path().join("sys").join(&below));
        fs_err::create_dir_all(&block).unwrap();
        fs_err::rename(sys.join("block/nvme1n1"), block.join("sdb")).unwrap();
        std::os::unix::fs::symlink(format!("../{below}/sdb"), sys.join("block/sdb")).unwrap();
        fs_err::remove_file(block.join("sdb/device/serial")).unwrap();
        fs_err::write(block.join("sdb/device/vendor"), "Kingston\n").unwrap();
        fs_err::write(block.join("sdb/device/model"), "DataTraveler 3.0\n").unwrap();
        fs_err::write(sys.join(place).join("serial"), "E0D55EA573DCF450\n").unwrap();
        fs_err::write(sys.join(place).join("idVendor"), "0951\n").unwrap();
        let hub = sys.join("devices/pci0000:00/0000:00:14.0/usb2");
        fs_err::write(hub.join("serial"), "0000:00:14.0\n").unwrap();
        fs_err::write(hub.join("idVendor"), "1d6b\n").unwrap();
        // A stick has no world-wide name: reading the file fails.
        fs_err::remove_file(block.join("sdb/wwid")).unwrap();
        let unreadable = dir.path().join("x");
        std::os::unix::net::UnixListener::bind(&unreadable).unwrap();
        fs_err::rename(unreadable, block.join("sdb/device/wwid")).unwrap();
    }
    Some(Machine(Root::at(dir.path()), device, dir))
}

#[test]
fn a_disk_is_written_only_where_it_is_free_can_be_pulled_out_and_was_named() {
    let dir = tempfile::tempdir().unwrap();
    let stick = file(dir.path(), "stick", 150 << 20, &[(5, b"old")]);
    let Some(Machine(root, device, tree)) = machine(&stick, true) else { return };
    let image = image(dir.path());
    let write = |root: &Root, options: &Options, answer: &'static str| {
        let mut asked = String::new();
        let mut ask = |said: &str| {
            asked = said.to_owned();
            Ok(answer.to_owned())
        };
        let done = flash(root, &image, Path::new(&device.0), options, &mut ask, &Progress::none());
        (done.map_err(|error| one_line(&error)), asked)
    };
    let is_untouched = || {
        let mut bytes = [0; 8];
        File::open(&stick).unwrap().read_exact_at(&mut bytes, 5).unwrap();
        bytes == *b"old\0\0\0\0\0"
    };
    for wrong in ["", "E0D55EA573DCF45", "yes", "e0d55ea573dcf450"] {
        let (error, asked) = write(&root, &Options::default(), wrong);
        let error = error.unwrap_err();
        assert!(error.contains("is not what names it"), "{error}");
        assert!(
            asked.contains("Kingston DataTraveler 3.0, serial number E0D55EA573DCF450, 157.3 MB"),
            "{asked}"
        );
        assert!(asked.ends_with("All that is on it is lost. To go on, type E0D55EA573DCF450: "), "{asked}");
        let said = Options { yes_serial: Some(wrong.into()), ..Options::default() };
        assert!(write(&root, &said, "").0.is_err());
    }
    let block = "sys/block/sdb";
    for (path, text, said) in [
        (
            "proc/self/mountinfo",
            format!("22 1 {} / /mnt rw - vfat /dev/sdb rw\n", candidate::number(device.number())),
            "it is in use: sdb is mounted at /mnt",
        ),
        (&format!("{block}/queue/logical_block_size"), "4096\n".into(), "its sectors have 4096 bytes"),
        (&format!("{block}/ro"), "1\n".into(), "it cannot be written to"),
        (&format!("{block}/dev"), "8:17\n".into(), "is no whole disk"),
        ("proc/swaps", "Filename\n/dev/sdb partition 1 0 -2\n".into(), "sdb is used by swap space"),
    ] {
        let path = tree.path().join(path);
        let before = fs_err::read(&path).unwrap();
        fs_err::write(&path, text).unwrap();
        let (error, asked) = write(&root, &Options::default(), "E0D55EA573DCF450");
        assert!(error.as_ref().is_err_and(|error| error.contains(said)), "{said}: {error:?}");
        assert!(asked.is_empty());
        fs_err::write(&path, before).unwrap();
    }
    assert!(is_untouched());
    // Without a serial number it is named by its size, and not by what its hub says; where two have one, by the name too.
    let word = |root: &Root| Target::look(root, Path::new(&device.0)).unwrap().word().unwrap();
    let usb = tree.path().join("sys/devices/pci0000:00/0000:00:14.0/usb2/2-3");
    fs_err::rename(usb.join("serial"), usb.join("none")).unwrap();
    assert_eq!(word(&root), (150 << 20).to_string());
    fs_err::rename(usb.join("none"), usb.join("serial")).unwrap();
    let (one, other) =
        (tree.path().join("sys/block/sdb"), usb.join("2-3:1.0/host6/target6:0:0/6:0:0:1/block/sdc"));
    for file in ["dev", "size", "ro", "queue/logical_block_size"] {
        fs_err::create_dir_all(other.join(file).parent().unwrap()).unwrap();
        fs_err::copy(one.join(file), other.join(file)).unwrap();
    }
    fs_err::write(other.join("dev"), "8:99\n").unwrap();
    for folder in ["holders", "slaves"] {
        fs_err::create_dir(other.join(folder)).unwrap();
    }
    let link = tree.path().join("sys/block/sdc");
    std::os::unix::fs::symlink(
        "../devices/pci0000:00/0000:00:14.0/usb2/2-3/2-3:1.0/host6/target6:0:0/6:0:0:1/block/sdc",
        &link,
    )
    .unwrap();
    assert_eq!(word(&root), "E0D55EA573DCF450 sdb");
    fs_err::remove_file(link).unwrap();
    let (done, _) = write(&root, &Options::default(), "E0D55EA573DCF450\n");
    assert_eq!(
        done.unwrap().report_bytes,
        (150 << 20) - (1 << 20) - Image::open(&image).unwrap().report_partition().unwrap().start
    );
    assert!(Image::open(&stick).is_ok());
    // What it holds now is worth a word, and somebody who has it open keeps it.
    add_runs(&stick);
    let (error, asked) = write(&root, &Options::default(), "no");
    assert!(
        error.is_err() && asked.contains("and with it 2 runs of gdsboot, which --keep-reports carries over"),
        "{asked}"
    );
    let held = File::options().read(true).custom_flags(libc::O_EXCL).open(&device.0);
    assert!(
        write(&root, &Options::default(), "E0D55EA573DCF450").0.unwrap_err().contains("opening /dev/loop")
    );
    drop(held);
}

#[test]
fn a_drive_that_cannot_be_pulled_out_has_to_be_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let stick = file(dir.path(), "stick", 150 << 20, &[]);
    let Some(Machine(root, device, _tree)) = machine(&stick, false) else { return };
    let image = image(dir.path());
    let write = |allow_fixed| {
        let options = Options { allow_fixed, yes_serial: Some("S1".into()), ..Options::default() };
        flash(&root, &image, Path::new(&device.0), &options, &mut nobody, &Progress::none())
    };
    let error = write(false).unwrap_err();
    assert!(one_line(&error).contains("it cannot be pulled out"), "{error:#}");
    assert!(hint_of(&error).unwrap().contains("--allow-fixed"));
    assert_eq!(std::fs::metadata(&stick).unwrap().blocks(), 0);
    write(true).unwrap();
    assert!(Image::open(&stick).is_ok());
}
