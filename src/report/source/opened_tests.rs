use super::*;
use crate::error::{hint_of, one_line, status_of};
use crate::report::fat::tests::filesystem;
use crate::report::gpt::TYPE_ESP;
use crate::report::gpt::tests::disk;
use crate::report::source::tests::image;

const OLD: &str = "20261122T100000Z-aaaaaaaa";
const NEW: &str = "20261122T110000Z-bbbbbbbb";

fn names(source: &Source) -> Vec<String> {
    source.runs().unwrap().runs.into_iter().map(|run| run.name).collect()
}

fn refused(bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("X");
    fs_err::write(&path, bytes).unwrap();
    let error = Source::open(&path).and_then(|source| source.runs().map(|_| source)).unwrap_err();
    one_line(&error).replace(&path.display().to_string(), "X")
}

#[test]
fn a_disk_a_partition_alone_and_a_folder_hold_the_same() {
    let files: [(&str, &[u8]); 4] = [
        ("reports/20261122T110000Z-bbbbbbbb/STARTED", b"b"),
        ("reports/20261122T110000Z-bbbbbbbb/workloads/a.txt", b"output"),
        ("reports/20261122T100000Z-aaaaaaaa/STARTED", b"a"),
        ("gdsboot.toml", b""),
    ];
    let whole = image(&files, &[]);
    let dir = tempfile::tempdir().unwrap();
    let alone = dir.path().join("alone");
    fs_err::write(&alone, filesystem(1 << 20, fatfs::FatType::Fat12, &files)).unwrap();
    let mounted = dir.path().join("mounted");
    for (path, bytes) in files {
        fs_err::create_dir_all(mounted.join(path).parent().unwrap()).unwrap();
        fs_err::write(mounted.join(path), bytes).unwrap();
    }
    let prefix = ["", "", "reports/"];
    for (path, prefix) in [whole.path(), &alone, &mounted].into_iter().zip(prefix) {
        let source = Source::open(path).unwrap();
        assert_eq!(names(&source), [format!("{prefix}{OLD}"), format!("{prefix}{NEW}")]);
        let run = &source.runs().unwrap().runs[1];
        assert_eq!(run.last(), NEW);
        assert_eq!(source.read(run, "STARTED", 9).unwrap().as_deref(), Some(b"b".as_slice()));
        assert_eq!(source.read(run, "report.json", 9).unwrap(), None);
        assert_eq!(source.files(run).unwrap(), ["STARTED", "workloads/a.txt"]);
    }
    let own = Source::open(&mounted.join("reports").join(NEW)).unwrap();
    assert_eq!(names(&own), [NEW]);
}

#[test]
fn a_folder_of_loose_reports_and_one_of_them() {
    let dir = tempfile::tempdir().unwrap();
    for path in ["b/two.json", "one.JSON", ".hidden.json", "other.txt"] {
        let path = dir.path().join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, "{}").unwrap();
    }
    std::os::unix::fs::symlink(dir.path(), dir.path().join("circle")).unwrap();
    let source = Source::open(dir.path()).unwrap();
    assert_eq!(names(&source), ["b/two.json", "one.JSON"]);
    let one = Source::open(&dir.path().join("one.JSON")).unwrap();
    let run = &one.runs().unwrap().runs[0];
    assert!(run.is_loose());
    assert_eq!(one.read(run, "report.json", 9).unwrap().as_deref(), Some(b"{}".as_slice()));
    assert_eq!(one.read(run, "STARTED", 9).unwrap(), None);
    assert!(one_line(&one.read(run, "report.json", 1).unwrap_err()).contains("more than 1 bytes"));
}

#[test]
fn runs_and_reports_beside_a_report_are_found() {
    let dir = tempfile::tempdir().unwrap();
    for path in [
        "site/report.json",
        "site/host2.json",
        "site/host3/report.json",
        "site/host3/samples.jsonl",
        "site/workloads/own.json",
        "site/workloads/report.json",
        "upper/REPORT.JSON",
        "upper/started",
        // A stick with the operator's programs, and a place of that name.
        "stick/gdsboot.toml",
        "stick/reports/run/STARTED",
        "stick/workloads/config.json",
        "stick/workloads/model/report.json",
        "workloads/report.json",
    ] {
        let path = dir.path().join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(&path, path.file_name().unwrap().as_encoded_bytes()).unwrap();
    }
    let source = Source::open(dir.path()).unwrap();
    assert_eq!(
        names(&source),
        ["site", "site/host2.json", "site/host3", "stick/reports/run", "upper", "workloads"]
    );
    let runs = source.runs().unwrap().runs;
    // What is another run's is not this one's.
    assert_eq!(
        source.files(&runs[0]).unwrap(),
        ["host2.json", "report.json", "workloads/own.json", "workloads/report.json"]
    );
    assert_eq!(source.files(&runs[2]).unwrap(), ["report.json", "samples.jsonl"]);
    let read = |name| source.read(&runs[4], name, 99).unwrap();
    assert_eq!(read("report.json").as_deref(), Some(b"REPORT.JSON".as_slice()));
    assert_eq!(read("STARTED").as_deref(), Some(b"started".as_slice()));
    assert_eq!(read("report.txt"), None);
}

/// Seven folders in each other, each of them under twenty names: 20^7 ways to go.
#[test]
fn folders_of_many_names_end() {
    let mut paths = Vec::new();
    let mut folder = "reports/r".to_owned();
    for level in 'a'..='g' {
        paths.extend((0..20).map(|n| format!("{folder}/{level}{n}/x")));
        folder += &format!("/{level}0");
    }
    let files: Vec<(&str, &[u8])> = paths.iter().map(|path| (path.as_str(), b"x".as_slice())).collect();
    let mut fat = filesystem(1 << 20, fatfs::FatType::Fat12, &files);
    let entry = |fat: &[u8], level: char, n: u32| {
        let name = format!("{:<11}", format!("{level}{n}"));
        fat.windows(11).position(|bytes| bytes == name.as_bytes()).unwrap()
    };
    // No files: they would be counted.
    while let Some(at) = fat.windows(11).position(|bytes| bytes == b"X          ") {
        fat[at] = 0xe5;
    }
    for level in 'A'..='G' {
        let first = entry(&fat, level, 0);
        let cluster: [u8; 2] = fat[first + 26..first + 28].try_into().unwrap();
        for n in 1..20 {
            let at = entry(&fat, level, n);
            fat[at + 26..at + 28].copy_from_slice(&cluster);
        }
    }
    let dir = tempfile::tempdir().unwrap();
    fs_err::write(dir.path().join("fat.img"), fat).unwrap();
    let source = Source::open(&dir.path().join("fat.img")).unwrap();
    let started = std::time::Instant::now();
    let error = source.files(&source.runs().unwrap().runs[0]).unwrap_err();
    assert!(one_line(&error).ends_with("reports/r has too many files"), "{error:#}");
    assert!(hint_of(&error).unwrap().contains("fsck.fat"), "{error:#}");
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}

#[test]
fn what_cannot_be_listed_gets_the_hint_that_helps() {
    let hint = |error: std::io::Error| what_helps(&anyhow::Error::from(error).context("listing reports"));
    assert!(what_helps(&anyhow::anyhow!("a directory has no end")).contains("fsck.fat"));
    assert!(hint(std::io::ErrorKind::UnexpectedEof.into()).contains("cut off: copy it again"));
    assert!(hint(std::io::Error::from_raw_os_error(5)).contains("ddrescue"));
    // A qcow2 image that ends too early is no matter for fsck.
    let dir = crate::report::source::qcow2::tests::images();
    let path = dir.path().join("deflate.qcow2");
    let bytes = fs_err::read(&path).unwrap();
    fs_err::write(&path, &bytes[..bytes.len() - 8192]).unwrap();
    let error = Source::open(&path).and_then(|source| source.runs().map(|_| ())).unwrap_err();
    assert!(hint_of(&error).unwrap().contains("qemu-img check"), "{error:#}");
}

#[test]
fn a_foreign_disk_says_what_it_has() {
    let foreign = disk(
        8192,
        &[("Windows", crate::report::gpt::TYPE_BASIC_DATA, 2048, 2048), ("", TYPE_ESP, 4096, 2048)],
    );
    assert_eq!(
        refused(&foreign),
        "X has no report partition GDSREPORT in its partition table: 1 Windows (basic data, 1.0 MB); 2 no name (EFI \
         system, 1.0 MB)"
    );
    assert_eq!(
        refused(&disk(8192, &[])),
        "X has no report partition GDSREPORT in its partition table: it is empty"
    );
    let mut luks = vec![0; 1 << 20];
    luks[..8].copy_from_slice(b"LUKS\xba\xbe\x00\x02");
    let said = refused(&luks);
    assert!(said.starts_with("X has neither a GUID partition table nor a FAT filesystem: LUKS2"), "{said}");
    assert!(refused(&vec![0; 1 << 20]).ends_with(": nothing"));
    assert!(refused(&vec![7; 1 << 20]).ends_with(": something that has no name here"));
}

#[test]
fn what_is_cut_off_or_damaged_is_named() {
    let whole = image(&[("reports/x/STARTED", b"a")], &[]);
    let bytes = fs_err::read(whole.path()).unwrap();
    let said = refused(&bytes[..1 << 20]);
    assert!(said.contains("X: it is truncated: its partition table describes 4194304 bytes"), "{said}");
    let mut broken = bytes;
    // The boot sector of the report partition.
    broken[2048 * 512 + 13] = 0;
    let said = refused(&broken);
    assert!(said.contains("reading partition 1 of X: its clusters claim 0 sectors"), "{said}");
    let mut alone = filesystem(1 << 20, fatfs::FatType::Fat12, &[("reports/x/STARTED", b"a")]);
    alone.truncate(1 << 19);
    let said = refused(&alone);
    assert!(said.contains("its FAT filesystem is damaged or cut off: it claims 1048576 bytes"), "{said}");
}

#[test]
fn what_is_no_source_is_named_with_a_hint() {
    for path in ["/nonexistent", "/dev/null"] {
        let error = Source::open(Path::new(path)).unwrap_err();
        assert_eq!(status_of(&error), Status::Usage);
        assert!(hint_of(&error).unwrap().contains("a folder with reports"), "{error:#}");
    }
}
