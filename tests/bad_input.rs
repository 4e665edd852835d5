//! The mistakes that people make with the commands: each ends with what happened, a hint and the right status, and leaves
//! nothing behind. No network is needed: every one is found before anything is downloaded.

mod common;

use common::{gdsboot, is_root, run, run_with_status, stderr, stdout};
use std::path::Path;
use std::process::{Command, Output};

/// A folder to work in, with a cache of its own.
fn at(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = gdsboot();
    command.current_dir(folder).env("GDSBOOT_CACHE", folder.join("cache")).args(arguments);
    command
}

#[track_caller]
fn refused(output: &Output, status: i32, words: &[&str]) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(status), "{said}");
    assert_eq!(stdout(output), "", "a refusal prints no result");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in:\n{said}");
    }
}

/// Nothing but what was there before and perhaps the cache.
fn left(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name != "cache").collect();
    names.sort();
    names
}

#[test]
fn operands_and_options() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, words) in [
        (&["build", "debian-99"][..], &["there is no profile \"debian-99\"", "hint: ", "debian-13"][..]),
        (&["build", "missing.toml"], &["missing.toml", "No such file", "hint: "]),
        (&["build", "debian-13", "--with", "nope"], &["no overlay \"nope\"", "hint: it has: debug"]),
        (
            &["build", "debian-13", "-o", "/dev/null"],
            &["/dev/null is a device", "hint: ", "nothing was written"],
        ),
        (&["build", "debian-13", "-o", "/"], &["not a regular file", "hint: "]),
        (&["build", "debian-13", "-o", "no/such/x.img"], &["no/such", "hint: make the folder first"]),
        (&["build", "debian-13", "--programs", "/no/such"], &["/no/such", "hint: "]),
        (
            &["build", "debian-13", "--mirror", "nope=http://x.invalid"],
            &["\"nope\"", "hint: debian-13 has: debian"],
        ),
        (&["build", "debian-13", "--mirror", "x.invalid/debian"], &["is not a URL", "hint: "]),
        (&["lock", "debian-13", "--update", "--check"], &["--update", "cannot be used with", "--check"]),
        (
            &["build", "debian-13", "--progress", "loud"],
            &["loud", "possible values: auto, plain, json, none"],
        ),
        (&["flash", "missing.img", "/dev/null"], &["missing.img", "No such file", "hint: "]),
        (&["flash", "/", "/dev/null"], &["/ is a directory", "hint: "]),
        (&["flash", "x.img"], &["<DEVICE>"]),
        (&["build", "debian-13", "--outptu", "x"], &["--outptu", "--output"]),
        (&["build", "debian-13", "--format", "vmdk"], &["vmdk", "raw, qcow2, iso"]),
        (&["split-report", "--size", "1M"], &["cannot have 1048576 bytes", "hint: ", "--size 64M"]),
        (&["split-report", "--size", "much"], &["no size such as 64M"]),
        (&["split-report", "--format", "iso"], &["raw, qcow2"]),
        (&["split-report", "-o", "/"], &["not a regular file", "hint: "]),
        (&["split-report", "--settings", "missing.toml"], &["missing.toml", "No such file", "hint: "]),
        (&["bild"], &["bild", "build"]),
        (&[], &["Usage:"]),
    ] {
        refused(&run(&mut at(dir.path(), arguments)), 64, words);
    }
    assert_eq!(left(dir.path()), [""; 0]);
}

#[test]
fn profiles_with_mistakes_name_the_place() {
    let dir = tempfile::tempdir().unwrap();
    let good = Path::new(env!("CARGO_MANIFEST_DIR")).join("image/profiles/debian-13.toml");
    let good = std::fs::read_to_string(good).unwrap();
    for (text, words) in [
        (good.replacen("[image]", "[image", 1), &["x.toml", "line ", "hint: "][..]),
        (good.replacen("[image]", "[image]\npackeges = []", 1), &["x.toml", "line ", "packeges", "hint: "]),
        (good.replacen("description = \"", "description = 7 # \"", 1), &["x.toml", "line ", "string"]),
        (String::new(), &["x.toml", "missing field"]),
        ("\0\u{1}".into(), &["x.toml", "line 1"]),
    ] {
        assert_ne!(text, good);
        std::fs::write(dir.path().join("x.toml"), text).unwrap();
        refused(&run(&mut at(dir.path(), &["build", "x.toml"])), 64, words);
    }
    std::fs::write(dir.path().join("x.toml"), b"description = \"\xff\"").unwrap();
    refused(&run(&mut at(dir.path(), &["build", "x.toml"])), 64, &["x.toml", "UTF-8"]);
    assert_eq!(left(dir.path()), ["x.toml"]);
}

#[test]
fn locks_with_mistakes_say_how_to_renew_them() {
    let dir = tempfile::tempdir().unwrap();
    let lock = dir.path().join("l.toml");
    let build = &["build", "debian-13", "--lock", "l.toml"];
    for (text, status, words) in [
        ("version = 1\nprofile =\n", 69, &["the lock l.toml", "line 2", "gdsboot lock --update"][..]),
        ("version = 99\n", 69, &["format version 99", "gdsboot lock --update"]),
        ("", 69, &["format version none", "gdsboot lock --update"]),
        (
            "version = 1\nprofile = \"debian-12\"\nresolve-key = \"\"\nepoch = 1\nkernel = \"6\"\nrelease = []\npackage = []\n",
            64,
            &["is of the profile debian-12", "hint: "],
        ),
        (
            "version = 1\nprofile = \"debian-13\"\nresolve-key = \"x\"\nepoch = 1\nkernel = \"6\"\nrelease = []\npackage = []\n",
            69,
            &["another version of the profile", "gdsboot lock --update debian-13"],
        ),
    ] {
        std::fs::write(&lock, text).unwrap();
        refused(&run(&mut at(dir.path(), build)), status, words);
        assert_eq!(std::fs::read_to_string(&lock).unwrap(), text, "a build does not touch a lock");
    }
    std::fs::remove_file(&lock).unwrap();
    let offline = run(&mut at(dir.path(), &["build", "debian-13", "--lock", "l.toml", "--offline"]));
    refused(&offline, 69, &["--offline forbids resolving", "hint: ", "gdsboot lock debian-13"]);
    assert_eq!(left(dir.path()), [""; 0]);
}

/// A mirror that is not there, and one that answers everything with a web page, as hotel networks do.
#[test]
fn mirrors_that_are_none() {
    let dir = tempfile::tempdir().unwrap();
    // Bound and never answering to anybody: nothing listens on it.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let down = format!("http://127.0.0.1:{port}/debian");
    let arguments = ["build", "debian-13", "--mirror", &down, "--mirror", &format!("security={down}")];
    refused(
        &run(&mut at(dir.path(), &arguments)),
        69,
        &["there is no lock locks/debian-13.toml yet", "127.0.0.1", "hint: "],
    );

    let portal = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let page = format!("http://{}/debian", portal.local_addr().unwrap());
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        for stream in portal.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            while stream.read(&mut request).is_ok_and(|n| n > 0) {
                let body = "<html>Please log in</html>";
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                if stream.write_all((head + body).as_bytes()).is_err() {
                    break;
                }
            }
        }
    });
    let arguments = ["build", "debian-13", "--mirror", &page, "--mirror", &format!("security={page}")];
    refused(&run(&mut at(dir.path(), &arguments)), 69, &["hint: "]);
    assert_eq!(left(dir.path()), [""; 0]);
}

/// In a mount namespace of its own: `script` runs where `small` is a filesystem of 64 KiB and `fixed` one that is
/// read-only.
fn on_odd_filesystems(folder: &Path, arguments: &str) -> Output {
    let script = format!(
        "set -e; mkdir -p small fixed; mount -t tmpfs -o size=64k none small; mount -t tmpfs -o ro none fixed\n\
         exec \"$GDSBOOT\" --progress plain {arguments}"
    );
    let mut command = Command::new("unshare");
    command.arg(if is_root() { "-m" } else { "-rm" }).args(["sh", "-c", &script]);
    command.env("GDSBOOT", env!("CARGO_BIN_EXE_gdsboot")).env("GDSBOOT_CACHE", folder.join("cache"));
    run(command.current_dir(folder))
}

#[test]
fn places_that_cannot_be_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let output = on_odd_filesystems(dir.path(), "build debian-13 -o fixed/x.img");
    refused(&output, 69, &["cannot write in", "fixed", "Read-only file system", "hint: name another file"]);
    let output = on_odd_filesystems(dir.path(), "--cache fixed/cache build debian-13 -o x.img");
    refused(&output, 69, &["fixed/cache", "Read-only file system", "hint: ", "--cache"]);

    // 10 MB are more than 64 KiB; the mirror is never asked.
    let lock = Path::new("l.toml");
    let profile = gdsboot::builder::profile::Profile::load("debian-13").unwrap();
    let text = format!(
        "version = 1\nprofile = \"debian-13\"\nresolve-key = \"{}\"\nepoch = 1\nkernel = \"6\"\nrelease = []\n\n\
         [[package]]\nname = \"a\"\nversion = \"1\"\narch = \"all\"\nsource = \"debian\"\npath = \"a.deb\"\n\
         size = 10000000\nsha256 = \"{}\"\nsets = [\"image\"]\n",
        profile.resolve_key(),
        "0".repeat(64)
    );
    std::fs::write(dir.path().join(lock), text).unwrap();
    let output = on_odd_filesystems(
        dir.path(),
        "--cache small fetch debian-13 --lock l.toml --mirror http://127.0.0.1:1 --mirror security=http://127.0.0.1:1",
    );
    refused(
        &output,
        69,
        &["downloading packages needs 10.0 MB", "small", "are free", "hint: make room", "--cache"],
    );
}

/// The help of every command fits into 80 columns, and says the same from one version to the next unless it is meant to
/// change.
#[test]
fn help() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = String::new();
    for command in [
        "",
        "try",
        "build",
        "lock",
        "fetch",
        "smoke",
        "inspect",
        "doctor",
        "vm check",
        "vm plan",
        "vm join",
        "split-report",
        "flash",
        "report",
        "report show",
        "report extract",
        "report diff",
        "report collect",
    ] {
        let arguments: Vec<_> = command.split_whitespace().chain(["--help"]).collect();
        let mut help = Command::new(env!("CARGO_BIN_EXE_gdsboot"));
        let output =
            run_with_status(help.current_dir(dir.path()).env_remove("GDSBOOT_CACHE").args(&arguments), 0);
        let text = stdout(&output);
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{command} --help: {line}");
        }
        all += &format!("$ gdsboot {}\n{text}\n", arguments.join(" "));
    }
    insta::assert_snapshot!(all);
}
