//! Packages that must be refused with a clear error, and odd ones that must be read. Each is a whole .deb; the index may
//! list it under its right hash, so that only the reader of the package can notice.

use super::deb::{Compression, Deb, Entry, Kind, ar};

/// A package for a table test.
#[derive(Debug)]
pub struct Case {
    /// What is odd about it, for messages.
    pub title: &'static str,
    /// The .deb.
    pub bytes: Vec<u8>,
}

/// The package name that every case carries, unless the name is what is wrong.
pub const NAME: &str = "odd";
/// The version that every case carries, unless the version is what is wrong.
pub const VERSION: &str = "1.0-1";

fn deb() -> Deb {
    Deb::new(NAME, VERSION)
}

fn file(bytes: &[u8]) -> Kind {
    Kind::File(bytes.into())
}

fn link(target: &str) -> Kind {
    Kind::Symlink(target.to_owned())
}

fn hard(target: &str) -> Kind {
    Kind::Hardlink(target.to_owned())
}

/// What no package may do.
pub fn refused() -> Vec<Case> {
    let with = |title, entries: Vec<Entry>| {
        let deb = entries.into_iter().fold(deb(), Deb::entry);
        Case { title, bytes: deb.bytes() }
    };
    let mut cases = vec![
        with("a path that climbs out at once", vec![Entry::raw("../escaped", file(b"x"))]),
        with("a path that climbs out further down", vec![Entry::raw("./usr/../../escaped", file(b"x"))]),
        with("an absolute path", vec![Entry::raw("/escaped", file(b"x"))]),
        with(
            "a file through a relative link that leads out",
            vec![
                Entry::raw("./usr/out", link("../../../../tmp")),
                Entry::raw("./usr/out/escaped", file(b"x")),
            ],
        ),
        with(
            "a file through a link that leads to itself",
            vec![
                Entry::raw("./usr/a", link("b")),
                Entry::raw("./usr/b", link("a")),
                Entry::raw("./usr/a/x", file(b"x")),
            ],
        ),
        with("a hard link to a path outside", vec![Entry::raw("./usr/shadow", hard("../../etc/shadow"))]),
        with("a hard link to an absolute path", vec![Entry::raw("./usr/shadow", hard("/etc/shadow"))]),
        with("a hard link to nothing", vec![Entry::raw("./usr/nothing", hard("./usr/missing"))]),
        with(
            "a hard link to a directory",
            vec![Entry::raw("./usr/dir/", Kind::Dir), Entry::raw("./usr/x", hard("./usr/dir"))],
        ),
        with(
            "a size that the data does not have",
            vec![Entry::new("usr/huge", Kind::Claims(1 << 40, vec![0; 512]))],
        ),
        with("a path with a line break in it", vec![Entry::raw("./usr/line\nbreak", file(b"x"))]),
        with(
            "a file where a directory is",
            vec![
                Entry::raw("./usr/dir/", Kind::Dir),
                Entry::raw("./usr/dir/x", file(b"x")),
                Entry::raw("./usr/dir", file(b"x")),
            ],
        ),
        with("a named pipe", vec![Entry::new("run/pipe", Kind::Fifo)]),
        with("a device", vec![Entry::new("dev/mem", Kind::Char(1, 1)).mode(0o666)]),
        with("a sparse file of eight TiB", vec![Entry::new("usr/sparse", Kind::Sparse(vec![], 8 << 40))]),
    ];

    let good = deb().file("usr/share/odd/file", vec![7; 4096]).bytes();
    let mut cut = good.clone();
    cut.truncate(good.len() - 40);
    cases.push(Case { title: "cut short", bytes: cut });
    let mut altered = good.clone();
    let at = good.len() - 60;
    altered[at] ^= 0xff;
    cases.push(Case { title: "one byte altered in the data", bytes: altered });
    cases.push(Case { title: "empty", bytes: Vec::new() });
    cases.push(Case { title: "a web page", bytes: b"<!DOCTYPE html><html></html>".to_vec() });
    cases.push(Case { title: "not an ar at all", bytes: vec![0x1f, 0x8b, 8, 0] });

    let member = |name: &str, bytes: &[u8]| (name.to_owned(), bytes.to_vec());
    let (binary, empty) = (member("debian-binary", b"2.0\n"), vec![0; 1024]);
    let control = member("control.tar", &control_tar());
    let data = member("data.tar", &empty);
    let mut shape = |title, members: &[(String, Vec<u8>)]| cases.push(Case { title, bytes: ar(members) });
    shape("no data member", &[binary.clone(), control.clone()]);
    shape("no control member", &[binary.clone(), data.clone()]);
    shape("no debian-binary", &[control.clone(), data.clone()]);
    shape("a format of the future", &[member("debian-binary", b"3.0\n"), control.clone(), data.clone()]);
    shape("an unknown compression", &[binary.clone(), control.clone(), member("data.tar.br", &empty)]);
    shape(
        "zstd by name and not by content",
        &[binary.clone(), control.clone(), member("data.tar.zst", &empty)],
    );
    shape("a control archive without a control file", &[binary, member("control.tar", &empty), data]);

    let other = |title, deb: Deb| Case { title, bytes: deb.bytes() };
    cases.push(other("another package's name", Deb::new("other", VERSION)));
    cases.push(other("another version", Deb::new(NAME, "1.0-2")));
    cases.push(other("another architecture", deb().field("Architecture", "arm64")));
    cases
}

/// A few MiB that unpack to this many GiB of zeros. An honest one says so in its `Installed-Size`; a liar says four KiB.
pub fn bomb(compression: Compression, gib: u64, honest: bool) -> Vec<u8> {
    let bomb = deb().compress(compression).entry(Entry::new("usr/zeros", Kind::Zeros(gib << 30)));
    let bomb = if honest { bomb } else { bomb.field("Installed-Size", "4") };
    bomb.bytes()
}

/// What is unusual and right. Every one of them holds `usr/share/odd/file` with the content `content`.
pub fn accepted() -> Vec<Case> {
    const PATH: &str = "usr/share/odd/file";
    let content = || file(b"content");
    let mut cases = Vec::new();
    for compression in [Compression::None, Compression::Gzip, Compression::Xz, Compression::Zstd] {
        let title = match compression {
            Compression::None => "no compression",
            Compression::Gzip => "gzip",
            Compression::Xz => "xz",
            Compression::Zstd => "zstd",
        };
        cases.push(Case { title, bytes: deb().compress(compression).file(PATH, "content").bytes() });
    }
    let mut with = |title, entries: Vec<Entry>| {
        let deb = entries.into_iter().fold(deb(), Deb::entry);
        cases.push(Case { title, bytes: deb.bytes() });
    };
    with(
        "hard links, in the order in which tar writes them",
        vec![
            Entry::new("usr/share/odd/first", content()),
            Entry::new(PATH, hard("./usr/share/odd/first")),
            Entry::new("usr/share/odd/third", hard("usr/share/odd/first")),
        ],
    );
    with(
        "a sparse file",
        vec![
            Entry::new(PATH, content()),
            Entry::new(
                "usr/share/odd/sparse",
                Kind::Sparse(vec![(0, vec![1; 512]), (1 << 20, vec![2; 512])], 2 << 20),
            ),
        ],
    );
    with(
        "a path longer than tar's own field",
        vec![Entry::new(PATH, content()), Entry::new(&format!("usr/{}/file", "long/".repeat(60)), content())],
    );
    with(
        "a link target longer than tar's own field",
        vec![Entry::new(PATH, content()), Entry::new("usr/link", link(&"long/".repeat(60)))],
    );
    with(
        "files below the links of a merged /usr",
        vec![Entry::new(PATH, content()), Entry::new("lib/modules/K/modules.order", content())],
    );
    with(
        "setuid and another owner",
        vec![
            Entry::new(PATH, content()),
            Entry::new("usr/bin/su", content()).mode(0o4755),
            Entry { uid: 101, gid: 4, ..Entry::new("var/log/odd", content()) },
        ],
    );
    let mut gpg = deb().file(PATH, "content");
    gpg.extra_members.push(("_gpgbuilder".to_owned(), b"-----BEGIN PGP SIGNED MESSAGE-----\n".to_vec()));
    cases.push(Case { title: "NVIDIA's signature as a fourth member", bytes: gpg.bytes() });
    cases
}

/// A control archive as it should be, for packages that are put together by hand.
fn control_tar() -> Vec<u8> {
    let bytes = deb().compress(Compression::None).bytes();
    let mut archive = ::ar::Archive::new(&bytes[..]);
    archive.next_entry().unwrap().unwrap();
    let mut member = archive.next_entry().unwrap().unwrap();
    let mut tar = Vec::new();
    std::io::Read::read_to_end(&mut member, &mut tar).unwrap();
    tar
}
