//! The test archive itself: real apt-get accepts it where it is honest and refuses it where it is not.

mod archive;

use archive::apt::{Apt, flat_line, ubuntu_line};
use archive::artefacts::{self, Module};
use archive::date::Instant;
use archive::deb::{Compression, Deb, Entry, Kind};
use archive::hostile;
use archive::repository::{self, Package, Pocket, Series, Signer, Suite, Tree};
use archive::server::{Fault, Origin, Server};
use archive::sign::Key;
use archive::snapshots::History;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

fn at(id: &str) -> Instant {
    Instant::parse_id(id).unwrap()
}

fn noble() -> Series {
    Series { codename: "noble", version: "24.04", frozen: at("20240425T151033Z") }
}

/// A key, its keyring file, a server.
struct Bench {
    dir: tempfile::TempDir,
    key: Arc<Key>,
    server: Server,
}

impl Bench {
    fn new() -> Self {
        let bench = Self {
            dir: tempfile::tempdir().unwrap(),
            key: Arc::new(Key::generate("archive")),
            server: Server::start(),
        };
        bench.key.write_keyring(&bench.keyring());
        bench
    }

    fn keyring(&self) -> PathBuf {
        self.dir.path().join("archive.gpg")
    }

    /// An apt that knows this one suite at `path`.
    fn apt(&self, path: &str, suite: &str) -> Apt {
        Apt::new(&ubuntu_line(&self.keyring(), &self.server.url(path), suite), "")
    }

    fn updates(&self, packages: Vec<Package>) -> Suite {
        repository::launchpad(&noble(), Pocket::Updates, at("20250603T060043Z"), packages, &self.key)
    }

    fn serve(&self, tree: Tree) {
        self.server.mount_tree("/ubuntu/", tree, at("20250603T060043Z"));
    }
}

fn two_packages() -> Vec<Package> {
    vec![
        Package::new(&Deb::new("outer", "1:2.0-1ubuntu1").depends("inner (>= 1~)")),
        Package::new(&Deb::new("inner", "1.0+1").field("Source", "libsource (0.9)")).component("universe"),
    ]
}

#[test]
fn dates_are_spelled_as_each_publisher_spells_them() {
    let date = at("20241203T060043Z");
    assert_eq!(date.launchpad(), "Tue, 03 Dec 2024  6:00:43 UTC");
    assert_eq!(date.rfc2822(), "Tue, 03 Dec 2024 06:00:43 +0000");
    assert_eq!(date.http(), "Tue, 03 Dec 2024 06:00:43 GMT");
    assert_eq!(date.id(), "20241203T060043Z");
    assert_eq!(date.0, 1_733_205_643);
    assert_eq!(at("20240229T235959Z").plus(1).id(), "20240301T000000Z");
    for bad in ["20230229T000000Z", "20241301T000000Z", "20241203T240000Z", "20241203", "2024120_T060043Z"] {
        assert_eq!(Instant::parse_id(bad), None, "{bad}");
    }
}

#[test]
fn apt_resolves_and_downloads_from_a_launchpad_suite_by_hash() {
    let bench = Bench::new();
    bench.serve(bench.updates(two_packages()).tree());
    let apt = bench.apt("/ubuntu", "noble-updates");
    apt.update().expect_ok();
    let plan = apt.plan(&["outer"]);
    let urls: Vec<_> = plan.iter().map(|p| p.url.as_str()).collect();
    assert_eq!(
        urls,
        [
            bench.server.url("/ubuntu/pool/universe/libs/libsource/inner_1.0%2b1_amd64.deb"),
            bench.server.url("/ubuntu/pool/main/o/outer/outer_2.0-1ubuntu1_amd64.deb"),
        ]
    );
    assert_eq!(plan[1].version, "1:2.0-1ubuntu1");
    assert!(!bench.server.requests("/by-hash/SHA256/").is_empty());
    assert!(bench.server.requests("/by-hash/MD5Sum/").is_empty());
    apt.get(&["install", "-y", "-d", "-q", "outer"]).expect_ok();
}

#[test]
fn apt_reads_the_flat_repository_and_pins_it_by_label() {
    let bench = Bench::new();
    bench.serve(bench.updates(vec![Package::new(&Deb::new("driver", "580.1-0ubuntu1"))]).tree());
    let vendor = Arc::new(Key::generate("vendor"));
    let vendor_ring = bench.dir.path().join("vendor.gpg");
    vendor.write_keyring(&vendor_ring);
    let packages = vec![
        Package::new(&Deb::new("driver", "580.9-1")),
        Package::new(
            &Deb {
                extra_members: vec![("_gpgbuilder".into(), b"sig".to_vec())],
                ..Deb::new("cufile", "1.16")
            }
            .compress(Compression::Xz),
        ),
    ];
    let tree = repository::cuda(at("20250604T010203Z"), packages, &vendor).tree();
    bench.server.mount_tree("/cuda/", tree, at("20250604T010203Z"));
    let sources = ubuntu_line(&bench.keyring(), &bench.server.url("/ubuntu"), "noble-updates")
        + &flat_line(&vendor_ring, &bench.server.url("/cuda/"));
    let pins = "Package: *\nPin: release l=NVIDIA CUDA\nPin-Priority: -1\n\n\
                Package: cufile\nPin: release l=NVIDIA CUDA\nPin-Priority: 500\n";

    let unpinned = Apt::new(&sources, "");
    unpinned.update().expect_ok();
    assert!(
        unpinned.plan(&["driver"])[0].url.contains("/cuda/"),
        "the newer version wins where nothing is pinned"
    );

    let pinned = Apt::new(&sources, pins);
    pinned.update().expect_ok();
    let plan = pinned.plan(&["driver", "cufile"]);
    let urls: Vec<_> = plan.iter().map(|p| p.url.as_str()).collect();
    assert_eq!(urls.len(), 2);
    assert!(urls.iter().any(|url| url.contains("/ubuntu/pool/main/d/driver/")), "{urls:?}");
    assert!(urls.iter().any(|url| url.ends_with("/cuda/./cufile_1.16_amd64.deb")), "{urls:?}");
    pinned.get(&["install", "-y", "-d", "-q", "driver", "cufile"]).expect_ok();
    assert!(bench.server.requests("/cuda/by-hash/").is_empty());
}

#[test]
fn apt_refuses_what_is_not_signed_by_the_key_it_was_given() {
    let bench = Bench::new();
    let suite = bench.updates(two_packages());
    let apt = || bench.apt("/ubuntu", "noble-updates").update();

    bench.serve(suite.clone().signed_by(Signer::Nobody).tree());
    apt().expect_failure("is not signed");

    bench.serve(suite.clone().signed_by(Signer::Key(Arc::new(Key::generate("stranger")))).tree());
    apt().expect_failure("NO_PUBKEY");

    let mut tree = suite.tree();
    assert_eq!(repository::alter(&mut tree, "main/binary-amd64/by-hash/"), 3);
    repository::alter(&mut tree, "main/binary-amd64/Packages");
    bench.serve(tree);
    apt().expect_failure("Hash Sum mismatch");

    let mut tree = suite.tree();
    let release = String::from_utf8(tree["dists/noble-updates/InRelease"].all()).unwrap();
    let forged = release.replace("Suite: noble-updates", "Suite: noble-upd4tes");
    assert_ne!(forged, release);
    tree.insert("dists/noble-updates/InRelease".into(), forged.into_bytes().into());
    bench.serve(tree);
    apt().expect_failure("BADSIG");
}

#[test]
fn apt_accepts_the_detached_signature_too() {
    let bench = Bench::new();
    let mut tree = bench.updates(two_packages()).tree();
    tree.remove("dists/noble-updates/InRelease");
    bench.serve(tree);
    bench.apt("/ubuntu", "noble-updates").update().expect_ok();
    assert_eq!(bench.server.requests("noble-updates/Release.gpg").len(), 1);
}

#[test]
fn apt_refuses_a_debian_suite_past_its_valid_until() {
    let bench = Bench::new();
    let now = Instant::now();
    let sources = format!(
        "deb [arch=amd64 signed-by={}] {} trixie main\n",
        bench.keyring().display(),
        bench.server.url("/debian")
    );
    let serve = |date: Instant, until| {
        let suite = repository::dak("trixie", date, Some(until), two_packages(), &bench.key);
        bench.server.mount_tree("/debian/", suite.tree(), date);
    };
    serve(now.minus(3600), now.plus(86_400));
    Apt::new(&sources, "").update().expect_ok();
    serve(now.minus(30 * 86_400), now.minus(23 * 86_400));
    Apt::new(&sources, "").update().expect_failure("is expired");
    serve(now.plus(7 * 86_400), now.plus(14 * 86_400));
    Apt::new(&sources, "").update().expect_failure("is not valid yet");
}

#[test]
fn apt_fails_on_every_way_in_which_the_server_misbehaves() {
    let bench = Bench::new();
    bench.serve(bench.updates(two_packages()).tree());
    let faults = [
        ("/InRelease", Fault::Status(500), "500"),
        ("/InRelease", Fault::Html, "Clearsigned file isn't valid"),
        ("/InRelease", Fault::Truncate(900), "into data and signature failed"),
        ("/main/binary-amd64/", Fault::Status(404), "404"),
        ("/by-hash/", Fault::Html, "File has unexpected size"),
        ("/by-hash/", Fault::Alter(70), "Hash Sum mismatch"),
    ];
    for (part, fault, reason) in faults {
        bench.server.heal();
        bench.server.fault(part, fault);
        bench.apt("/ubuntu", "noble-updates").update().expect_failure(reason);
    }

    // An index that is gone from by-hash is asked for by its name.
    bench.server.heal();
    bench.server.fault("/by-hash/", Fault::Status(404));
    bench.apt("/ubuntu", "noble-updates").update().expect_ok();

    bench.server.heal();
    let apt = bench.apt("/ubuntu", "noble-updates");
    apt.update().expect_ok();
    bench.server.fault("inner_1.0", Fault::Alter(200));
    apt.get(&["install", "-y", "-d", "-q", "outer"]).expect_failure("Hash Sum mismatch");
}

#[test]
fn an_id_names_an_instant_and_the_live_mirror_moves_on() {
    let bench = Bench::new();
    let history = Arc::new(History::new());
    let publish = |id: &str, version: &str| {
        let mut tree = Tree::new();
        let packages = vec![Package::new(&Deb::new("tool", version))];
        tree.extend(repository::launchpad(&noble(), Pocket::Updates, at(id), packages, &bench.key).tree());
        // A pocket that never changes, whatever the ID.
        let frozen = vec![Package::new(&Deb::new("base", "1"))];
        tree.extend(repository::launchpad(&noble(), Pocket::Release, at(id), frozen, &bench.key).tree());
        history.publish(at(id), tree);
    };
    publish("20250603T060043Z", "1-0ubuntu1");
    publish("20250603T180000Z", "1-0ubuntu2");
    publish("20250801T000000Z", "1-0ubuntu3");
    bench.server.mount("/ubuntu/", Origin::History(history.clone()));

    let version = |path: &str| {
        let apt = bench.apt(path, "noble-updates");
        apt.update().expect_ok();
        apt.plan(&["tool"])[0].version.clone()
    };
    assert_eq!(version("/ubuntu/20250603T060043Z"), "1-0ubuntu1");
    assert_eq!(version("/ubuntu/20250603T111111Z"), "1-0ubuntu1", "any second works");
    assert_eq!(version("/ubuntu/20250603T235959Z"), "1-0ubuntu2");
    assert!(
        bench.server.requests("/ubuntu/dists/").is_empty(),
        "a snapshot URL never leads to the live pocket"
    );
    assert_eq!(version("/ubuntu"), "1-0ubuntu3");
    bench.apt("/ubuntu/20250603T060042Z", "noble-updates").update().expect_failure("404");

    let hashes = |path: &str| {
        let (body, _) = history.find(path).unwrap();
        String::from_utf8(body.all()).unwrap()
    };
    let first = hashes("20250603T060043Z/dists/noble/Release");
    assert_eq!(first, hashes("20250801T000000Z/dists/noble/Release"), "the release pocket is frozen");
    assert!(first.contains("\nDate: Thu, 25 Apr 2024 15:10:33 UTC\n"));

    // What was superseded is gone from the live pool, and its by-hash index within a day.
    let old = "pool/main/t/tool/tool_1-0ubuntu1_amd64.deb";
    assert!(history.find(old).is_none());
    assert!(history.find(&format!("20250603T111111Z/{old}")).is_some());
    let index = repository::launchpad(
        &noble(),
        Pocket::Updates,
        at("20250603T060043Z"),
        vec![Package::new(&Deb::new("tool", "1-0ubuntu1"))],
        &bench.key,
    )
    .tree()
    .into_keys()
    .find(|path| path.contains("main/binary-amd64/by-hash"))
    .unwrap();
    assert!(
        history.find(&format!("20250603T180000Z/{index}")).is_some(),
        "twelve hours later it is still there"
    );
    assert!(history.find(&index).is_none(), "two months later it is not");
}

#[test]
fn dpkg_deb_reads_every_compression_and_sees_the_same_files() {
    let dir = tempfile::tempdir().unwrap();
    let all = [Compression::None, Compression::Gzip, Compression::Xz, Compression::Zstd];
    for compression in all {
        let long = format!("usr/share/{}/file", "long-name-".repeat(14));
        let mut deb = Deb::new("packed", "1:1.0~24.04.1+1")
            .compress(compression)
            .file("lib/modules/K/kernel/x.ko", vec![7; 5000])
            .entry(Entry::new("boot/vmlinuz-K", Kind::File(b"kernel"[..].into())).mode(0o600))
            .hardlink("usr/bin/second", "usr/bin/first")
            .symlink("lib64", "usr/lib64")
            .dir("bin.usr-is-merged")
            .file(&long, "x")
            .script("postinst");
        deb.data.insert(2, Entry::new("usr/bin/first", Kind::File(b"#!"[..].into())).mode(0o4755));
        deb.extra_members.push(("_gpgbuilder".into(), b"-----BEGIN PGP SIGNATURE-----".to_vec()));
        let path = dir.path().join(format!("packed{}.deb", compression.suffix()));
        std::fs::write(&path, deb.bytes()).unwrap();

        let field = dpkg_deb(&["-f"], &path, &["Version"]);
        assert_eq!(field.trim(), "1:1.0~24.04.1+1");
        let listing = dpkg_deb(&["-c"], &path, &[]);
        for want in [
            "-rw------- root/root         6 2023-11-14",
            "-rwsr-xr-x root/root         2 2023-11-14",
            " ./lib64 -> usr/lib64",
            " ./usr/bin/second link to ./usr/bin/first",
            " ./bin.usr-is-merged/",
            &format!(" ./{long}"),
        ] {
            assert!(listing.contains(want), "{want:?} is not in\n{listing}");
        }

        let again = Deb::read(&path);
        assert_eq!(again.control, deb.finished_control());
        assert_eq!(again.data_compression, compression);
        assert_eq!(again.scripts, deb.scripts);
        assert_eq!(again.extra_members, deb.extra_members);
        let same = again.bytes() == std::fs::read(&path).unwrap();
        assert!(same, "{compression:?}: what is read back is written the same");
    }
}

#[test]
fn a_repacked_package_has_new_control_and_old_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shim.deb");
    let original = Deb::new("shim-signed", "1.47")
        .compress(Compression::Xz)
        .file("usr/lib/shim/shimx64.efi.signed", "pe")
        .file("usr/share/doc/shim-signed/copyright", "text");
    std::fs::write(&path, original.bytes()).unwrap();
    let deb = Deb::read(&path)
        .field("Version", "1.58+15.8-0ubuntu1")
        .depends("")
        .compress(Compression::Zstd)
        .move_files(|path| {
            (!path.starts_with("usr/share/doc"))
                .then(|| path.replace("shimx64.efi.signed", "shimx64.efi.signed.latest"))
        });
    std::fs::write(&path, deb.bytes()).unwrap();
    let listing = dpkg_deb(&["-c"], &path, &[]);
    assert!(listing.contains("./usr/lib/shim/shimx64.efi.signed.latest"), "{listing}");
    assert!(!listing.contains("copyright"), "{listing}");
    assert_eq!(dpkg_deb(&["-f"], &path, &["Version"]).trim(), "1.58+15.8-0ubuntu1");
}

#[test]
fn odd_packages_are_odd_in_the_way_that_their_title_says() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("odd.deb");
    for case in hostile::accepted() {
        std::fs::write(&path, &case.bytes).unwrap();
        let listing = dpkg_deb(&["-c"], &path, &[]);
        assert!(listing.contains("./usr/share/odd/file"), "{}: {listing}", case.title);
    }
    let refused = hostile::refused();
    let bytes = |title: &str| &refused.iter().find(|case| case.title == title).unwrap().bytes;
    // dpkg-deb only lists; what it lists is what a careless reader would write.
    for (title, want) in [
        ("a path that climbs out at once", " ../escaped\n"),
        ("a path that climbs out further down", " ./usr/../../escaped\n"),
        ("an absolute path", " /escaped\n"),
        ("a file through a relative link that leads out", " ./usr/out -> ../../../../tmp\n"),
        ("a sparse file of eight TiB", " 8796093022208 "),
    ] {
        std::fs::write(&path, bytes(title)).unwrap();
        let listing = dpkg_deb(&["-c"], &path, &[]);
        assert!(listing.contains(want), "{title}: {listing}");
    }
    for title in ["cut short", "one byte altered in the data", "no data member", "a format of the future"] {
        std::fs::write(&path, bytes(title)).unwrap();
        let status = Command::new("dpkg-deb").arg("-c").arg(&path).output().unwrap().status;
        assert!(!status.success(), "{title}: dpkg-deb is content");
    }
    let bomb = hostile::bomb(Compression::Zstd, 64, false);
    assert!(bomb.len() < 8 << 20, "the bomb has {} bytes", bomb.len());
    std::fs::write(&path, bomb).unwrap();
    assert_eq!(dpkg_deb(&["-f"], &path, &["Package"]).trim(), hostile::NAME);
}

#[test]
fn small_modules_and_loaders_have_the_right_insides() {
    let module =
        Module { name: "nvidia_fs", kernel: "6.17.0-1031-nvidia", depends: &["nvidia"], ..Module::default() };
    let signed = artefacts::sign_module(&module.bytes());
    let elf = goblin::elf::Elf::parse(&signed).unwrap();
    let names: Vec<_> =
        elf.section_headers.iter().filter_map(|s| elf.shdr_strtab.get_at(s.sh_name)).collect();
    assert_eq!(names, ["", ".modinfo", "__ksymtab_strings", ".symtab", ".strtab", ".shstrtab"]);
    let info = &elf.section_headers[1];
    let info =
        String::from_utf8_lossy(&signed[info.sh_offset as usize..][..info.sh_size as usize]).into_owned();
    assert!(info.contains("\0name=nvidia_fs\0vermagic=6.17.0-1031-nvidia SMP"), "{info:?}");
    assert!(signed.ends_with(b"~Module signature appended~\n"));

    let loader =
        artefacts::loader(&["grub,4,Free Software Foundation,grub,2.12,https://www.gnu.org/software/grub/"]);
    let text = String::from_utf8_lossy(&loader[0x400..]).into_owned();
    assert!(text.contains("\ngrub,4,Free"), "{text}");
}

#[test]
fn the_server_serves_ranges_heads_and_conditions() {
    let server = Server::start();
    let tree = Tree::from([("dir/a+b".to_owned(), (0..=255u8).collect::<Vec<_>>().into())]);
    server.mount_tree("/files/", tree, at("20250603T060043Z"));
    let path = "/files/dir/a%2bb";
    let whole = ask(&server, "GET", path, "");
    assert!(whole.head.starts_with("HTTP/1.1 200 OK\r\n"), "{}", whole.head);
    assert_eq!(whole.body.len(), 256);
    let part = ask(&server, "GET", path, "Range: bytes=250-\r\n");
    assert!(
        part.head.contains("206") && part.head.contains("Content-Range: bytes 250-255/256"),
        "{}",
        part.head
    );
    assert_eq!(part.body, [250, 251, 252, 253, 254, 255]);
    assert_eq!(ask(&server, "GET", path, "Range: bytes=-2\r\n").body, [254, 255]);
    assert!(ask(&server, "GET", path, "Range: bytes=256-\r\n").head.contains("416"));
    let stale = "Range: bytes=250-\r\nIf-Range: Mon, 02 Jun 2025 06:00:43 GMT\r\n";
    assert_eq!(ask(&server, "GET", path, stale).body.len(), 256, "a changed file is sent whole");
    let head = ask(&server, "HEAD", path, "");
    assert!(head.head.contains("Content-Length: 256") && head.body.is_empty());
    let fresh = "If-Modified-Since: Tue, 03 Jun 2025 06:00:43 GMT\r\n";
    assert!(ask(&server, "GET", path, fresh).head.contains("304"));
    assert!(ask(&server, "GET", "/files/nothing", "").head.contains("404"));

    server.fault_times(path, Fault::CloseAfter(100), 1);
    let cut = ask(&server, "GET", path, "");
    assert!(cut.head.contains("Content-Length: 256"));
    assert_eq!(cut.body.len(), 100);
    assert_eq!(ask(&server, "GET", path, "Range: bytes=100-\r\n").body.len(), 156);
    server.fault(path, Fault::IgnoreRange);
    assert_eq!(ask(&server, "GET", path, "Range: bytes=100-\r\n").body.len(), 256);
    server.heal();
    server.fault(path, Fault::Redirect(server.url("/elsewhere")));
    assert!(ask(&server, "GET", path, "").head.contains("Location: http://127.0.0.1"));
    let last = server.requests("a%2bb").pop().unwrap();
    assert_eq!((last.method.as_str(), last.status), ("GET", 302));
    server.forget_requests();
    assert!(server.requests("/").is_empty());
}

/// Runs dpkg-deb, which must be content.
fn dpkg_deb(before: &[&str], path: &Path, after: &[&str]) -> String {
    let output =
        Command::new("dpkg-deb").args(before).arg(path).args(after).env("TZ", "UTC").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

struct Reply {
    head: String,
    body: Vec<u8>,
}

/// One request on a connection of its own.
fn ask(server: &Server, method: &str, path: &str, headers: &str) -> Reply {
    let address = server.url("").replace("http://", "");
    let mut stream = std::net::TcpStream::connect(&address).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n")
        .unwrap();
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).unwrap(), 0, "{head}");
    }
    let mut body = Vec::new();
    reader.read_to_end(&mut body).unwrap();
    Reply { head, body }
}
