//! Everything else that an image, its tools and its emulator are made of.

use super::{Shelf, Spec, deb, stand_in};
use crate::archive::deb::{Compression, Deb, Entry, Kind};
use crate::archive::repository::{Package, Pocket};
use crate::archive::sign::Key;

/// Name, version in 24.04, source, dependencies.
type Row = (&'static str, &'static str, &'static str, &'static str);

/// What is `Essential: yes`.
const ESSENTIAL: &[Row] = &[
    (
        "base-passwd",
        "3.6.3build1",
        "base-passwd",
        "libc6 (>= 2.34), libdebconfclient0 (>= 0.145), libselinux1 (>= 3.1~)",
    ),
    (
        "bash",
        "5.2.21-2ubuntu4",
        "bash",
        "base-files (>= 2.1.12), debianutils (>= 5.6-0.1), libc6 (>= 2.38), libtinfo6 (>= 6)",
    ),
    ("bsdutils", "1:2.39.3-9ubuntu6", "util-linux (2.39.3-9ubuntu6)", "libc6 (>= 2.34)"),
    (
        "coreutils",
        "9.4-3ubuntu6",
        "coreutils",
        "libacl1 (>= 2.2.23), libattr1 (>= 1:2.4.44), libc6 (>= 2.38), libselinux1 (>= 3.1~)",
    ),
    ("dash", "0.5.12-6ubuntu5", "dash", "debianutils (>= 5.6-0.1), libc6 (>= 2.38)"),
    ("debianutils", "5.17build1", "debianutils", "libc6 (>= 2.34)"),
    ("diffutils", "1:3.10-1build1", "diffutils", "libc6 (>= 2.38)"),
    ("dpkg", "1.22.6ubuntu6", "dpkg", "tar (>= 1.28-1), libc6 (>= 2.38), zlib1g (>= 1:1.1.4)"),
    ("findutils", "4.9.0-5build1", "findutils", "libc6 (>= 2.38), libselinux1 (>= 3.1~)"),
    ("grep", "3.11-4build1", "grep", "libc6 (>= 2.38), libpcre2-8-0 (>= 10.32)"),
    ("gzip", "1.12-1ubuntu3", "gzip", "libc6 (>= 2.38)"),
    ("hostname", "3.23+nmu2ubuntu2", "hostname", "libc6 (>= 2.38)"),
    ("init-system-helpers", "1.66ubuntu1", "init-system-helpers", "usrmerge | usr-is-merged"),
    ("libc-bin", "2.39-0ubuntu8", "glibc", "libc6 (>> 2.39), libc6 (<< 2.40)"),
    ("login", "1:4.13+dfsg1-4ubuntu3", "shadow", "libc6 (>= 2.38), libpam-modules"),
    ("ncurses-base", "6.4+20240113-1ubuntu2", "ncurses", ""),
    ("ncurses-bin", "6.4+20240113-1ubuntu2", "ncurses", "libc6 (>= 2.38), libtinfo6 (>= 6.4+20231209)"),
    ("perl-base", "5.38.2-3.2build2", "perl", "libc6 (>= 2.38), dpkg (>= 1.17.17)"),
    ("sed", "4.9-2build1", "sed", "libc6 (>= 2.38), libacl1 (>= 2.2.23), libselinux1 (>= 3.1~)"),
    ("sysvinit-utils", "3.08-6ubuntu3", "sysvinit", "libc6 (>= 2.38)"),
    ("tar", "1.35+dfsg-3build1", "tar", "libacl1 (>= 2.2.23), libc6 (>= 2.38), libselinux1 (>= 3.1~)"),
];

/// The rest of the image.
const IMAGE: &[Row] = &[
    ("adduser", "3.137ubuntu1", "adduser", "passwd"),
    ("amd64-microcode", "3.20231019.1ubuntu2", "amd64-microcode", ""),
    ("binutils", "2.42-4ubuntu2", "binutils", "libc6 (>= 2.38)"),
    ("busybox", "1:1.36.1-6ubuntu3", "busybox", "libc6 (>= 2.38)"),
    ("ca-certificates", "20240203", "ca-certificates", "openssl (>= 1.1.1), debconf (>= 0.5) | debconf-2.0"),
    (
        "curl",
        "8.5.0-2ubuntu10",
        "curl",
        "libc6 (>= 2.34), libcurl4t64 (= 8.5.0-2ubuntu10), zlib1g (>= 1:1.1.4)",
    ),
    ("debconf", "1.5.86ubuntu1", "debconf", ""),
    ("dosfstools", "4.2-1.1build1", "dosfstools", "libc6 (>= 2.38)"),
    (
        "e2fsprogs",
        "1.47.0-2.4~exp1ubuntu4",
        "e2fsprogs",
        "libblkid1 (>= 2.36), libc6 (>= 2.38), libext2fs2t64 (= 1.47.0-2.4~exp1ubuntu4), logsave",
    ),
    ("gcc-14-base", "14-20240412-0ubuntu1", "gcc-14", ""),
    ("gdb", "15.0.50.20240403-0ubuntu1", "gdb", "libc6 (>= 2.38)"),
    ("intel-microcode", "3.20240312.1ubuntu1", "intel-microcode", "iucode-tool (>= 1.0)"),
    ("iucode-tool", "2.3.1-3build1", "iucode-tool", ""),
    (
        "kmod",
        "31+20240202-2ubuntu7",
        "kmod",
        "libc6 (>= 2.38), libkmod2 (= 31+20240202-2ubuntu7), liblzma5 (>= 5.1.1alpha+20120614), libzstd1 (>= 1.5.5)",
    ),
    ("less", "590-2ubuntu2", "less", "libc6 (>= 2.38), libtinfo6 (>= 6)"),
    ("libacl1", "2.3.2-1build1", "acl", "libc6 (>= 2.33)"),
    ("libattr1", "1:2.5.2-1build1", "attr", "libc6 (>= 2.4)"),
    ("libblkid1", "2.39.3-9ubuntu6", "util-linux", "libc6 (>= 2.38)"),
    ("libcap2", "1:2.66-5ubuntu2", "libcap2", "libc6 (>= 2.38)"),
    ("libcurl4t64", "8.5.0-2ubuntu10", "curl", "libc6 (>= 2.38), libssl3t64 (>= 3.0.0), zlib1g (>= 1:1.1.4)"),
    ("libdebconfclient0", "0.271ubuntu3", "cdebconf", "libc6 (>= 2.4)"),
    ("libext2fs2t64", "1.47.0-2.4~exp1ubuntu4", "e2fsprogs", "libc6 (>= 2.38)"),
    ("libgcc-s1", "14-20240412-0ubuntu1", "gcc-14", "gcc-14-base (= 14-20240412-0ubuntu1), libc6 (>= 2.35)"),
    ("libinih1", "55-1ubuntu2", "libinih", "libc6 (>= 2.38)"),
    ("libjson-c5", "0.17-1build1", "json-c", "libc6 (>= 2.38)"),
    ("libkmod2", "31+20240202-2ubuntu7", "kmod", "libc6 (>= 2.38), liblzma5 (>= 5.2.4), libzstd1 (>= 1.5.5)"),
    ("liblzma5", "5.6.1+really5.4.5-1", "xz-utils", "libc6 (>= 2.34)"),
    (
        "libmount1",
        "2.39.3-9ubuntu6",
        "util-linux",
        "libblkid1 (>= 2.37.2), libc6 (>= 2.38), libselinux1 (>= 3.1~)",
    ),
    ("libnuma1", "2.0.18-1build1", "numactl", "libc6 (>= 2.38)"),
    ("libnvme1t64", "1.8-3build1", "libnvme", "libc6 (>= 2.38), libjson-c5 (>= 0.15)"),
    ("libpam-modules", "1.5.3-5ubuntu5", "pam", "libc6 (>= 2.38)"),
    ("libpci3", "1:3.10.0-2build1", "pciutils", "libc6 (>= 2.38), pci.ids (>= 0.0~2019.11.19)"),
    ("libpciaccess0", "0.17-3build1", "libpciaccess", "libc6 (>= 2.14)"),
    ("libpcre2-8-0", "10.42-4ubuntu2", "pcre2", "libc6 (>= 2.35)"),
    ("libproc2-0", "2:4.0.4-4ubuntu3", "procps", "libc6 (>= 2.38)"),
    ("libreadline8t64", "8.2-4build1", "readline", "libc6 (>= 2.33), libtinfo6 (>= 6)"),
    ("libselinux1", "3.5-2ubuntu2", "libselinux", "libc6 (>= 2.38), libpcre2-8-0 (>= 10.22)"),
    ("libsmartcols1", "2.39.3-9ubuntu6", "util-linux", "libc6 (>= 2.38)"),
    ("libssl3t64", "3.0.13-0ubuntu3", "openssl", "libc6 (>= 2.34)"),
    (
        "libstdc++6",
        "14-20240412-0ubuntu1",
        "gcc-14",
        "gcc-14-base (= 14-20240412-0ubuntu1), libc6 (>= 2.38), libgcc-s1 (>= 4.2)",
    ),
    ("libtinfo6", "6.4+20240113-1ubuntu2", "ncurses", "libc6 (>= 2.33)"),
    ("libudev1", "255.4-1ubuntu8", "systemd", "libc6 (>= 2.38), libcap2 (>= 1:2.10)"),
    ("libuuid1", "2.39.3-9ubuntu6", "util-linux", "libc6 (>= 2.34)"),
    ("libzstd1", "1.5.5+dfsg2-2build1", "libzstd", "libc6 (>= 2.34)"),
    ("linux-base", "4.5ubuntu9", "linux-base", "debconf (>= 0.5) | debconf-2.0"),
    ("linux-firmware", "20240318.git3b128b60-0ubuntu2", "linux-firmware", ""),
    ("logsave", "1.47.0-2.4~exp1ubuntu4", "e2fsprogs", "libc6 (>= 2.38)"),
    (
        "mount",
        "2.39.3-9ubuntu6",
        "util-linux",
        "libblkid1 (>= 2.37.2), libc6 (>= 2.38), libmount1 (>= 2.39.1), libsmartcols1 (>= 2.36)",
    ),
    ("numactl", "2.0.18-1build1", "numactl", "libc6 (>= 2.38), libnuma1 (>= 2.0.15)"),
    (
        "nvme-cli",
        "2.8-1build1",
        "nvme-cli",
        "uuid-runtime, libc6 (>= 2.38), libjson-c5 (>= 0.15), libnvme1t64 (>= 1.8)",
    ),
    ("ocl-icd-libopencl1", "2.3.2-1build1", "ocl-icd", "libc6 (>= 2.38)"),
    ("passwd", "1:4.13+dfsg1-4ubuntu3", "shadow", "libc6 (>= 2.38), libpam-modules"),
    ("pci.ids", "0.0~2024.03.31-1", "pci.ids", ""),
    (
        "pciutils",
        "1:3.10.0-2build1",
        "pciutils",
        "libc6 (>= 2.38), libkmod2 (>= 5~), libpci3 (= 1:3.10.0-2build1)",
    ),
    (
        "procps",
        "2:4.0.4-4ubuntu3",
        "procps",
        "libc6 (>= 2.38), libproc2-0 (>= 2:4.0.4), libtinfo6 (>= 6), init-system-helpers (>= 1.29~)",
    ),
    ("python3", "3.12.3-0ubuntu1", "python3-defaults", "python3-minimal (= 3.12.3-0ubuntu1)"),
    ("python3-minimal", "3.12.3-0ubuntu1", "python3-defaults", "libc6 (>= 2.38)"),
    ("strace", "6.8-0ubuntu2", "strace", "libc6 (>= 2.38)"),
    ("systemd", "255.4-1ubuntu8", "systemd", "libc6 (>= 2.38), mount, libsystemd-shared (= 255.4-1ubuntu8)"),
    ("libsystemd-shared", "255.4-1ubuntu8", "systemd", "libc6 (>= 2.38)"),
    ("systemd-standalone-sysusers", "255.4-1ubuntu8", "systemd", "libc6 (>= 2.38)"),
    ("ucf", "3.0043+nmu1", "ucf", "debconf (>= 0.5) | debconf-2.0"),
    (
        "udev",
        "255.4-1ubuntu8",
        "systemd",
        "libacl1 (>= 2.2.23), libblkid1 (>= 2.37.2), libc6 (>= 2.38), libcap2 (>= 1:2.10), libkmod2 (>= 15), libselinux1 (>= 3.1~), libudev1 (= 255.4-1ubuntu8), systemd | systemd-standalone-sysusers | systemd-sysusers",
    ),
    ("usr-is-merged", "39build1", "usrmerge", ""),
    ("uuid-runtime", "2.39.3-9ubuntu6", "util-linux", "libc6 (>= 2.38), libuuid1 (>= 2.31.1)"),
    ("wireless-regdb", "2022.06.06-0ubuntu2", "wireless-regdb", ""),
    (
        "xfsprogs",
        "6.6.0-1ubuntu2",
        "xfsprogs",
        "libblkid1 (>= 2.36), libc6 (>= 2.38), libinih1 (>= 53), libuuid1 (>= 2.16), python3:any",
    ),
    ("zlib1g", "1:1.3.dfsg-3.1ubuntu2", "zlib", "libc6 (>= 2.14)"),
    ("zstd", "1.5.5+dfsg2-2build1", "libzstd", "libc6 (>= 2.38)"),
];

/// What builds and boots an image.
const TOOLS: &[Row] = &[
    (
        "squashfs-tools",
        "1:4.6.1-1build1",
        "squashfs-tools",
        "libc6 (>= 2.38), liblzma5 (>= 5.1.1alpha+20120614), libzstd1 (>= 1.5.5), zlib1g (>= 1:1.1.4)",
    ),
    ("ovmf", "2024.02-2", "edk2", ""),
    ("qemu-system-data", "1:8.2.2+ds-0ubuntu1", "qemu", ""),
    (
        "qemu-system-x86",
        "1:8.2.2+ds-0ubuntu1",
        "qemu",
        "qemu-system-data (>= 1:8.2.2+ds-0ubuntu1~), libc6 (>= 2.38), zlib1g (>= 1:1.2.0), seabios (>= 1.16.3)",
    ),
    ("seabios", "1.16.3-2", "seabios", ""),
];

pub(super) fn fill(spec: &Spec, shelf: &mut Shelf, key: &Key) {
    let jammy = spec.series.codename == "jammy";
    // 22.04 is before the rename of libraries for 64-bit times; its versions do not matter here, its names do.
    let names = |text: &str| if jammy { text.replace("t64", "") } else { text.to_owned() };
    for (rows, essential) in [(ESSENTIAL, true), (IMAGE, false), (TOOLS, false)] {
        for (name, version, source, depends) in rows {
            let name = names(name);
            let package = deb(spec, &name, version, source, &names(depends)).script("postinst");
            let package = if essential { package.field("Essential", "yes") } else { package };
            let package = if name == "mawk" { package.field("Provides", "awk") } else { package };
            let package = stand_in(spec, package, |deb| files(deb, &name));
            shelf.put(Pocket::Release, component(&name), package);
        }
    }
    base_files(spec, shelf, Pocket::Release, "13ubuntu10");
    base_files(spec, shelf, Pocket::Updates, "13ubuntu10.3");
    for (pocket, version) in [
        (Pocket::Release, "2.39-0ubuntu8"),
        (Pocket::Updates, "2.39-0ubuntu8.6"),
        (Pocket::Security, "2.39-0ubuntu8.6"),
    ] {
        let package = deb(spec, "libc6", version, "glibc", "libgcc-s1").field("Multi-Arch", "same");
        let package = stand_in(spec, package, |deb| {
            deb.file("usr/lib/x86_64-linux-gnu/libc.so.6", "libc\n")
                .file("usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "ld\n")
                .symlink("usr/lib64/ld-linux-x86-64.so.2", "../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")
        });
        shelf.put(pocket, "main", package);
    }
    // util-linux is essential too; its update reaches machines in phases.
    for (pocket, version, phase) in
        [(Pocket::Release, "2.39.3-9ubuntu6", None), (Pocket::Updates, "2.39.3-9ubuntu6.3", Some("30"))]
    {
        let package =
            deb(spec, "util-linux", version, "util-linux", "libc6 (>= 2.38), libsmartcols1 (>= 2.39.1)")
                .field("Essential", "yes");
        let package = stand_in(spec, package, |deb| files(deb, "util-linux"));
        let mut package = Package::new(&package);
        if let Some(percentage) = phase {
            package = package.index_field("Phased-Update-Percentage", percentage);
        }
        shelf.packages.push((pocket, package));
    }
    // A host that lacks the key can take it from here, by a hash that it knows beforehand.
    let keyring = deb(spec, "ubuntu-keyring", "2023.11.28.1", "ubuntu-keyring", "")
        .field("Architecture", "all")
        .file("usr/share/keyrings/ubuntu-archive-keyring.gpg", key.keyring());
    shelf.put(Pocket::Release, "main", keyring);
    // Backports are never chosen unless somebody asks.
    let package = deb(spec, "nvme-cli", "2.11-1~bpo24.04.1", "nvme-cli", "libc6 (>= 2.38)");
    shelf.put(Pocket::Backports, "universe", package);
    shelf.put(
        Pocket::Updates,
        "main",
        deb(spec, "linux-tools-common", "6.8.0-52.53", "linux", "").program("usr/bin/perf", "#!/bin/sh\n"),
    );
}

fn component(name: &str) -> &'static str {
    match name {
        "busybox" | "nvme-cli" | "libnvme1t64" | "libnvme1" | "numactl" | "xfsprogs" => "universe",
        "intel-microcode" | "amd64-microcode" => "restricted",
        _ => "main",
    }
}

/// One file per package, at its old place below `/bin`, `/sbin` or `/lib` where the real one still is there.
fn files(deb: Deb, name: &str) -> Deb {
    let deb = match name {
        "bash" | "dash" | "gzip" | "tar" | "sed" | "grep" => {
            deb.program(&format!("usr/bin/{name}"), "#!/bin/sh\n")
        }
        "base-passwd" => deb
            .file("usr/share/base-passwd/passwd.master", "root:*:0:0:root:/root:/bin/bash\n")
            .file("usr/share/base-passwd/group.master", "root:*:0:\n"),
        "kmod" => deb.program("bin/kmod", "#!/bin/sh\n").symlink("sbin/modprobe", "/bin/kmod"),
        "udev" => deb
            .program("bin/udevadm", "#!/bin/sh\n")
            .file("lib/udev/rules.d/60-block.rules", "# block\n")
            .symlink("lib/systemd/systemd-udevd", "/bin/udevadm"),
        _ => deb.program(&format!("usr/bin/{name}"), "#!/bin/sh\n"),
    };
    deb.file(&format!("usr/share/doc/{name}/copyright"), "free\n")
}

/// base-files: on 24.04 it owns the links of a merged /usr, and empty folders that say so.
fn base_files(spec: &Spec, shelf: &mut Shelf, pocket: Pocket, version: &str) {
    let package =
        deb(spec, "base-files", version, "base-files", "libc6 (>= 2.3.4), libcrypt1 (>= 1:4.4.10-10ubuntu3)")
            .compress(Compression::Zstd)
            .field("Essential", "yes");
    let package = stand_in(spec, package, |mut deb| {
        for (path, mode) in [("tmp", 0o1777), ("root", 0o700), ("var/tmp", 0o1777)] {
            let entry = Entry::new(path, Kind::Dir).mode(mode);
            deb = deb.entry(entry);
        }
        deb = [
            "boot",
            "dev",
            "etc",
            "home",
            "mnt",
            "proc",
            "run",
            "srv",
            "sys",
            "usr/bin",
            "usr/lib",
            "usr/lib64",
            "usr/sbin",
        ]
        .into_iter()
        .fold(deb, Deb::dir);
        if spec.merged_by_base_files {
            for name in ["bin", "lib", "lib64", "sbin"] {
                deb = deb.symlink(name, &format!("usr/{name}"));
            }
            for name in ["bin", "lib", "sbin"] {
                deb = deb.dir(&format!("{name}.usr-is-merged"));
            }
        }
        let (version, codename) = (spec.series.version, spec.series.codename);
        deb.file(
            "usr/lib/os-release",
            format!("ID=ubuntu\nVERSION_ID=\"{version}\"\nVERSION_CODENAME={codename}\n"),
        )
        .symlink("etc/os-release", "../usr/lib/os-release")
        .file("etc/debian_version", "trixie/sid\n")
    });
    shelf.put(pocket, "main", package);
    if pocket == Pocket::Release {
        shelf.put(pocket, "main", deb(spec, "libcrypt1", "1:4.4.36-4build1", "libxcrypt", "libc6 (>= 2.36)"));
    }
}
