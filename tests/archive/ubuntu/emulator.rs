//! The later series whose QEMU boots the images of this one, which has an older.

use super::{Shelf, Spec, deb, stand_in};
use crate::archive::date::Instant;
use crate::archive::repository::{Pocket, Series};

/// Ubuntu 26.04.
pub(super) fn series() -> Series {
    Series { codename: "resolute", version: "26.04", frozen: Instant::parse_id("20260423T150000Z").unwrap() }
}

/// Name, version, source, dependencies.
type Row = (&'static str, &'static str, &'static str, &'static str);

const PACKAGES: &[Row] = &[
    ("libc6", "2.43-2ubuntu1", "glibc", ""),
    ("ovmf", "2025.11-3ubuntu7", "edk2", "ovmf-amdsev, ovmf-generic, ovmf-inteltdx, ubuntu-virt"),
    ("ovmf-amdsev", "2025.11-3ubuntu7", "edk2", ""),
    ("ovmf-generic", "2025.11-3ubuntu7", "edk2", ""),
    ("ovmf-inteltdx", "2025.11-3ubuntu7", "edk2", ""),
    ("qemu-system-data", "1:10.2.1+ds-1ubuntu3", "qemu", ""),
    (
        "qemu-system-x86",
        "1:10.2.1+ds-1ubuntu3",
        "qemu",
        "qemu-system-data (>= 1:10.2.1+ds-1ubuntu3~), libc6 (>= 2.42), zlib1g (>= 1:1.2.0), seabios (>= 1.17.0), ubuntu-virt",
    ),
    ("seabios", "1.17.0-1ubuntu1", "seabios", ""),
    ("ubuntu-virt", "1:10.2.1+ds-1ubuntu3", "qemu", ""),
    ("zlib1g", "1:1.3.dfsg+really1.3.1-1ubuntu3", "zlib", "libc6 (>= 2.14)"),
];

pub(super) fn fill(spec: &Spec, shelf: &mut Shelf) {
    for (name, version, source, depends) in PACKAGES {
        let package = deb(spec, name, version, source, depends);
        let package =
            stand_in(spec, package, |deb| deb.file(&format!("usr/share/doc/{name}/copyright"), "free\n"));
        shelf.put(Pocket::Release, "main", package);
    }
}
