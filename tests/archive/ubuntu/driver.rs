//! NVIDIA's user space as Ubuntu packages it.

use super::{Flaw, Shelf, Spec, deb, stand_in};
use crate::archive::deb::Deb;

const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

pub(super) fn fill(spec: &Spec, shelf: &mut Shelf) {
    branch(spec, shelf, &spec.branch, &spec.driver);
    if spec.has(Flaw::DriverAhead) {
        let (head, last) = spec.driver.rsplit_once('.').unwrap();
        let ahead = format!("{head}.{:02}", last.parse::<u32>().unwrap() + 5);
        branch(spec, shelf, &spec.branch, &ahead);
    }
    branch(spec, shelf, "595", "595.84.01");
    // 590 is no more than a way to 595.
    for stem in ["libnvidia-compute", "nvidia-utils", "nvidia-compute-utils"] {
        let version = format!("595.84.01-0ubuntu0.{}.1", spec.series.version);
        let deb = deb(
            spec,
            &format!("{stem}-590"),
            &version,
            "nvidia-graphics-drivers-595",
            &format!("{stem}-595"),
        )
        .field("Section", "oldlibs")
        .field("Description", "Transitional package");
        shelf.put_secure("restricted", deb);
    }
}

fn branch(spec: &Spec, shelf: &mut Shelf, branch: &str, driver: &str) {
    let version = format!("{driver}-0ubuntu0.{}.1", spec.series.version);
    let source = format!("nvidia-graphics-drivers-{branch}");
    let ssl = if spec.series.codename == "jammy" { "libssl3" } else { "libssl3t64" };
    let mut put = |name: &str, depends: &str, change: &dyn Fn(Deb) -> Deb, files: &dyn Fn(Deb) -> Deb| {
        let package = deb(spec, name, &version, &source, depends)
            .field("Section", "restricted/libs")
            .field("Multi-Arch", "same")
            .script("postinst");
        shelf.put_secure("restricted", stand_in(spec, change(package), files));
    };
    let as_is = |deb: Deb| deb;

    put(
        &format!("libnvidia-compute-{branch}"),
        &format!(
            "nvidia-kernel-common-{branch}-{driver}, ocl-icd-libopencl1, libc6 (>= 2.34), libgcc-s1 (>= 4.3), {ssl} (>= 3.0.0)"
        ),
        &|deb| {
            let provides = format!(
                "libcuda-13.0-1, libcuda.so.1 (= {version}), libcuda1 (= {version}), libnvidia-compute, \
                 libnvidia-ml.so.1 (= {version}), nvidia-opencl-icd, opencl-icd"
            );
            deb.field("Provides", &provides)
                .field("Conflicts", "libcuda-13.0-1, libnvidia-compute, nvidia-opencl-icd")
                .field("Replaces", "libcuda-13.0-1, libnvidia-compute, nvidia-opencl-icd")
        },
        &|deb| {
            let mut deb = deb;
            for stem in
                ["libcuda", "libcudadebugger", "libnvidia-ml", "libnvidia-nvvm", "libnvidia-ptxjitcompiler"]
            {
                let file = format!("{stem}.so.{driver}");
                deb = deb.file(&format!("{LIBRARIES}/{file}"), format!("{stem} {driver}\n"));
                let short = if stem == "libnvidia-nvvm" { "4" } else { "1" };
                deb = deb.symlink(&format!("{LIBRARIES}/{stem}.so.{short}"), &file);
            }
            deb.symlink(&format!("{LIBRARIES}/libcuda.so"), "libcuda.so.1")
                .file("etc/OpenCL/vendors/nvidia.icd", "libnvidia-opencl.so.1\n")
        },
    );
    put(&format!("libnvidia-cfg1-{branch}"), "libc6 (>= 2.34)", &as_is, &|deb| {
        let file = format!("libnvidia-cfg.so.{driver}");
        deb.file(&format!("{LIBRARIES}/{file}"), "cfg\n")
            .symlink(&format!("{LIBRARIES}/libnvidia-cfg.so.1"), &file)
    });
    put(
        &format!("nvidia-utils-{branch}"),
        &format!("libc6 (>= 2.34), libnvidia-compute-{branch}"),
        &|deb| {
            deb.field("Provides", "nvidia-smi, nvidia-utils")
                .field("Conflicts", "nvidia-smi, nvidia-utils")
                .field("Replaces", "nvidia-smi, nvidia-utils")
        },
        &|deb| {
            deb.program("usr/bin/nvidia-smi", "#!/bin/sh\n")
                .program("usr/bin/nvidia-debugdump", "#!/bin/sh\n")
        },
    );
    put(
        &format!("nvidia-compute-utils-{branch}"),
        &format!("adduser, libc6 (>= 2.34), libnvidia-compute-{branch}, libnvidia-cfg1-{branch}"),
        &|deb| {
            deb.field("Provides", "nvidia-compute-utils, nvidia-persistenced")
                .field("Conflicts", "nvidia-compute-utils, nvidia-persistenced")
        },
        &|deb| {
            deb.program("usr/bin/nvidia-persistenced", "#!/bin/sh\n")
                .program("usr/bin/nvidia-cuda-mps-server", "#!/bin/sh\n")
        },
    );
    put(
        &format!("nvidia-kernel-common-{branch}"),
        &format!("libc6 (>= 2.38), libpciaccess0 (>= 0.10.7), nvidia-firmware-{branch}-{driver}"),
        &|deb| {
            deb.field("Provides", &format!("nvidia-kernel-common, nvidia-kernel-common-{branch}-{driver}"))
                .field("Conflicts", "nvidia-kernel-common")
        },
        &|deb| {
            deb.file("lib/modprobe.d/nvidia-graphics-drivers.conf", "blacklist nouveau\n")
                .file(
                    "etc/modprobe.d/nvidia-graphics-drivers-kms.conf",
                    "options nvidia NVreg_TemporaryFilePath=/var\n",
                )
                .file(
                    "lib/udev/rules.d/71-nvidia.rules",
                    "ACTION==\"add\", RUN+=\"/sbin/ub-device-create\"\n",
                )
                .program("sbin/ub-device-create", "#!/bin/sh\n")
        },
    );
    put(&format!("nvidia-firmware-{branch}-{driver}"), "", &as_is, &|deb| {
        deb.file(&format!("lib/firmware/nvidia/{driver}/gsp_ga10x.bin"), vec![1; 4096])
            .file(&format!("lib/firmware/nvidia/{driver}/gsp_tu10x.bin"), vec![2; 4096])
    });
    put(
        &format!("nvidia-headless-no-dkms-{branch}-open"),
        &format!(
            "libnvidia-cfg1-{branch} (= {version}), libnvidia-compute-{branch} (= {version}), \
             nvidia-compute-utils-{branch} (= {version}), nvidia-kernel-common-{branch} (>= {driver}), \
             nvidia-kernel-source-{branch}-open (= {version})"
        ),
        &as_is,
        &as_is,
    );
    put(&format!("nvidia-kernel-source-{branch}-open"), "", &as_is, &|deb| {
        deb.file(&format!("usr/src/nvidia-{driver}/dkms.conf"), format!("PACKAGE_VERSION=\"{driver}\"\n"))
    });

    // For machines with NVSwitch: exactly the driver's version, from other sources.
    for (name, source, path) in [
        ("nvidia-fabricmanager", "fabric-manager", "usr/bin/nv-fabricmanager"),
        ("libnvidia-nscq", "libnvidia-nscq", "usr/lib/x86_64-linux-gnu/libnvidia-nscq.so.2"),
    ] {
        let name = format!("{name}-{branch}");
        let package = deb(spec, &name, &version, &format!("{source}-{branch}"), "libc6 (>= 2.34)");
        shelf.put_secure("multiverse", stand_in(spec, package, |deb| deb.program(path, "#!/bin/sh\n")));
    }
}
