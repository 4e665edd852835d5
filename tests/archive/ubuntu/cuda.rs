//! NVIDIA's CUDA repository: cuFile and the GDS tools that are wanted, and driver packages that are not.

use super::{Flaw, Spec};
use crate::archive::deb::{Compression, Deb};
use crate::archive::repository::Package;
use crate::archive::sign::Key;

pub(super) fn packages(spec: &Spec, key: &Key) -> Vec<Package> {
    let mut packages = Vec::new();
    let mut put = |deb: Deb| {
        // NVIDIA's builder signs each package in a fourth member.
        let mut deb = deb.compress(Compression::Xz).field("Section", "multiverse/devel");
        let signature = format!("-----BEGIN PGP SIGNED MESSAGE-----\nFiles: {}\n", deb.name());
        deb.extra_members.push(("_gpgbuilder".to_owned(), signature.into_bytes()));
        if let Some(entries) = spec.files.get(deb.name()) {
            deb.data.clone_from(entries);
            // xz would take longer than all the rest.
            deb.data_compression = Compression::Zstd;
        }
        packages.push(Package::new(&deb));
    };

    let mut series = vec![("13-2", "1.17.0.44")];
    if !spec.has(Flaw::NoCufile) {
        series.push((&spec.cuda, &spec.cufile));
    }
    for (cuda, cufile) in series {
        let dotted = cuda.replace('-', ".");
        let major = cuda.split('-').next().unwrap_or_default();
        let root = format!("usr/local/cuda-{dotted}");
        let libraries = format!("{root}/targets/x86_64-linux/lib");
        let version = format!("{cufile}-1");
        put(Deb::new(&format!("libcufile-{cuda}"), &version)
            .depends(&format!(
                "cuda-toolkit-{cuda}-config-common, cuda-toolkit-{major}-config-common, cuda-toolkit-config-common"
            ))
            .file(&format!("{libraries}/libcufile.so.{cufile}"), format!("cufile {cufile}\n"))
            .symlink(&format!("{libraries}/libcufile.so.0"), &format!("libcufile.so.{cufile}"))
            .file(&format!("{root}/gds/cufile.json"), "{ \"properties\": { \"allow_compat_mode\": true } }\n")
            .file(&format!("etc/ld.so.conf.d/gds-{cuda}.conf"), format!("/{libraries}\n"))
            // It makes /etc/cufile.json, an alternative.
            .script("postinst"));
        put(Deb::new(&format!("gds-tools-{cuda}"), &version)
            .depends(&format!("libcufile-{cuda} (>= {cufile}), libc6 (>= 2.34)"))
            .program(&format!("{root}/gds/tools/gdsio"), "#!/bin/sh\n")
            .program(&format!("{root}/gds/tools/gdscheck"), "#!/bin/sh\n")
            .file(&format!("{root}/gds/tools/rdma.json"), "{}\n"));
        put(Deb::new(&format!("libcufile-dev-{cuda}"), &version)
            .depends(&format!("libcufile-{cuda} (>= {cufile})"))
            .file(&format!("{root}/targets/x86_64-linux/include/cufile.h"), "/* */\n"));
        // It makes /usr/local/cuda and /usr/local/cuda-13, alternatives.
        put(Deb::new(&format!("cuda-toolkit-{cuda}-config-common"), &format!("{dotted}.80-1"))
            .field("Architecture", "all")
            .depends(&format!("cuda-toolkit-{major}-config-common, cuda-toolkit-config-common"))
            .file(&format!("usr/share/doc/cuda-toolkit-{cuda}-config-common/copyright"), "NVIDIA\n")
            .script("postinst"));
    }
    put(Deb::new("cuda-toolkit-13-config-common", "13.2.51-1")
        .field("Architecture", "all")
        .file("etc/ld.so.conf.d/987_cuda-13.conf", "/usr/local/cuda-13/targets/x86_64-linux/lib\n"));
    put(Deb::new("cuda-toolkit-config-common", "13.2.51-1")
        .field("Architecture", "all")
        .file("etc/ld.so.conf.d/000_cuda.conf", "/usr/local/cuda/targets/x86_64-linux/lib\n"));
    put(Deb::new("cuda-keyring", "1.1-1")
        .field("Architecture", "all")
        .file("usr/share/keyrings/cuda-archive-keyring.gpg", key.keyring()));

    // Everything below is newer than Ubuntu's, fits no signed module, and must never be chosen.
    let branch = &spec.branch;
    let newer = format!("{branch}.250.11");
    let version = format!("{newer}-1ubuntu1");
    for (name, depends, provides) in [
        (format!("libnvidia-compute-{branch}"), String::new(), "libcuda.so.1, libcuda1".to_owned()),
        (format!("libnvidia-cfg1-{branch}"), String::new(), String::new()),
        (format!("nvidia-utils-{branch}"), format!("libnvidia-compute-{branch}"), String::new()),
        (format!("nvidia-compute-utils-{branch}"), format!("libnvidia-compute-{branch}"), String::new()),
        (
            format!("nvidia-kernel-common-{branch}"),
            format!("nvidia-firmware-{branch}-{newer}"),
            format!("nvidia-kernel-common-{branch}-{newer}"),
        ),
        (format!("nvidia-firmware-{branch}-{newer}"), String::new(), String::new()),
        (format!("nvidia-fabricmanager-{branch}"), String::new(), String::new()),
        ("nvidia-open".to_owned(), format!("nvidia-utils-{branch}"), String::new()),
    ] {
        put(Deb::new(&name, &version).depends(&depends).field("Provides", &provides));
    }
    // From 590 on without the branch in the name.
    put(Deb::new("libnvidia-compute", "590.48.01-1ubuntu1").field("Provides", "libcuda.so.1, libcuda1"));
    // A common package under a common name, much newer.
    put(Deb::new("kmod", "999-1"));
    packages
}
