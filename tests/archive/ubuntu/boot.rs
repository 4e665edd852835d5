//! Shim and GRUB.

use super::{Flaw, Shelf, Spec, deb, stand_in};
use crate::archive::artefacts;
use crate::archive::deb::{Compression, Deb};
use crate::archive::repository::Pocket;

/// GRUB's three sources: what is signed, what it is built from, and the programs and BIOS modules.
struct Grub {
    signed: &'static str,
    unsigned: &'static str,
    tools: &'static str,
    /// Of `grub` in the SBAT of what is signed.
    generation: u32,
}

pub(super) fn fill(spec: &Spec, shelf: &mut Shelf) {
    let jammy = spec.series.codename == "jammy";
    let (frozen, updated) = if jammy {
        (
            Grub { signed: "1.180", unsigned: "2.06-2ubuntu7", tools: "2.06-2ubuntu7", generation: 1 },
            Grub {
                signed: "1.187.12",
                unsigned: "2.06-2ubuntu14.8",
                tools: "2.06-2ubuntu7.2",
                generation: 5,
            },
        )
    } else {
        (
            Grub { signed: "1.202", unsigned: "2.12-1ubuntu7", tools: "2.12-1ubuntu7", generation: 4 },
            Grub { signed: "1.202.5", unsigned: "2.12-1ubuntu7.3", tools: "2.12-1ubuntu7.3", generation: 5 },
        )
    };
    grub(spec, shelf, Pocket::Release, frozen);
    if !spec.has(Flaw::OldGrubOnly) {
        grub(spec, shelf, Pocket::Updates, updated);
    }

    let (shim, wanted) =
        if jammy { ("1.51+15.4-0ubuntu9", "") } else { ("1.58+15.8-0ubuntu1", " (>= 1.191~)") };
    let depends = format!(
        "debconf (>= 0.5) | debconf-2.0, grub-efi-amd64-signed{wanted} | grub-efi-arm64-signed{wanted}, \
         grub2-common (>= 2.04-1ubuntu24), mokutil (>= 0.3.0+1538710437.fb6250f-0ubuntu2), sbsigntool"
    );
    let shim = deb(spec, "shim-signed", shim, "shim-signed", &depends)
        .compress(Compression::Xz)
        .field("Built-Using", "shim (= 15.8-0ubuntu1)")
        .script("postinst");
    // `shimx64.efi.signed` itself is an alternative that the postinst makes.
    let shim = stand_in(spec, shim, |deb| {
        let image = artefacts::loader(&["shim,4,UEFI shim,shim,1,https://github.com/rhboot/shim"]);
        [
            "shimx64.efi.signed.latest",
            "shimx64.efi.signed.previous",
            "shimx64.efi.dualsigned",
            "mmx64.efi",
            "fbx64.efi",
        ]
        .into_iter()
        .fold(deb, |deb, name| {
            let mut image = image.clone();
            image.extend_from_slice(name.as_bytes());
            deb.file(&format!("usr/lib/shim/{name}"), image)
        })
        .file("usr/lib/shim/BOOTX64.CSV", "shimx64.efi,ubuntu,,This is the boot entry for ubuntu\n")
    });
    shelf.put(Pocket::Release, "main", shim);
    for name in ["mokutil", "sbsigntool"] {
        shelf.put(Pocket::Release, "main", deb(spec, name, "1:0.9-1", name, ""));
    }
}

fn grub(spec: &Spec, shelf: &mut Shelf, pocket: Pocket, grub: Grub) {
    let Grub { signed, unsigned, tools, generation } = grub;
    let version = format!("{signed}+{unsigned}");
    let depends = format!(
        "debconf (>= 0.5) | debconf-2.0, grub-efi-amd64 | grub-pc, grub-efi-amd64-bin (= {unsigned}), \
         grub2-common (>= 2.02+dfsg1-5)"
    );
    let package = deb(spec, "grub-efi-amd64-signed", &version, "grub2-signed", &depends)
        .compress(Compression::Xz)
        .field("Built-Using", &format!("grub2 (= {unsigned})"))
        .script("postinst");
    let is_decoy = pocket == Pocket::Release && !spec.has(Flaw::OldGrubOnly);
    let small = |deb: Deb| {
        let sbat = [
            format!(
                "grub,{generation},Free Software Foundation,grub,2.12,https://www.gnu.org/software/grub/"
            ),
            format!("grub.ubuntu,2,Ubuntu,grub2,{unsigned},https://www.ubuntu.com/"),
            format!("grub.peimage,2,Canonical,grub2,{unsigned},https://salsa.example.invalid/grub"),
        ];
        let lines: Vec<_> = sbat.iter().map(String::as_str).collect();
        ["grubx64", "gcdx64", "grubnetx64"].into_iter().fold(deb, |deb, name| {
            let mut image = artefacts::loader(&lines);
            image.extend_from_slice(name.as_bytes());
            deb.file(&format!("usr/lib/grub/x86_64-efi-signed/{name}.efi.signed"), image)
        })
    };
    // The decoy stays a stand-in even where the real loader is there.
    let package =
        if is_decoy { small(Deb { data: Vec::new(), ..package }) } else { stand_in(spec, package, small) };
    shelf.put(pocket, "main", package);

    let mut put = |name: &str, source: &str, version: &str, depends: &str, path: &str| {
        let package = deb(spec, name, version, source, depends).compress(Compression::Xz).script("postinst");
        let package =
            stand_in(spec, package, |deb| if path.is_empty() { deb } else { deb.file(path, "grub\n") });
        shelf.put(pocket, "main", package);
    };
    let common = format!("grub-common (= {tools})");
    put("grub-common", "grub2", tools, "libc6 (>= 2.34)", "usr/bin/grub-mkimage");
    put("grub2-common", "grub2", tools, &format!("{common}, dpkg (>= 1.15.4)"), "usr/sbin/grub-install");
    put("grub-pc-bin", "grub2", tools, &common, "usr/lib/grub/i386-pc/boot.img");
    put("grub-pc", "grub2", tools, &format!("grub2-common (= {tools}), grub-pc-bin (= {tools}), ucf"), "");
    let (modules, source) = ("usr/lib/grub/x86_64-efi/normal.mod", "grub2-unsigned");
    put("grub-efi-amd64-bin", source, unsigned, "grub-common (>= 2.02~beta2-9)", modules);
    let depends = format!("grub2-common (>= 2.02~beta2-9), grub-efi-amd64-bin (= {unsigned})");
    put("grub-efi-amd64", source, unsigned, &depends, "");
}
