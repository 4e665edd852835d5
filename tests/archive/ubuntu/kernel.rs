//! Kernels, their modules, and the prebuilt GPU modules for them.

use super::{Flaw, Kernel, Shelf, Spec, deb, stand_in};
use crate::archive::artefacts::{self, Module};
use crate::archive::deb::{Compression, Deb, Entry, Kind};
use crate::archive::hash;
use crate::archive::repository::{Package, Pocket};

/// In-tree modules: path below `kernel/`, name, what it depends on, imports, exports.
type InTree =
    (&'static str, &'static str, &'static [&'static str], &'static [&'static str], &'static [&'static str]);
const IN_TREE: &[InTree] = &[
    ("drivers/nvme/host/nvme-core", "nvme_core", &[], &[], &["nvme_init_ctrl"]),
    // Canonical's nvme carries the GDS patch: these exports are how it is recognised.
    (
        "drivers/nvme/host/nvme",
        "nvme",
        &["nvme-core"],
        &["nvme_init_ctrl"],
        &["nvme_v2_register_nvfs_dma_ops", "nvme_v2_unregister_nvfs_dma_ops"],
    ),
    ("drivers/ata/libahci", "libahci", &[], &[], &["ahci_init_controller"]),
    ("drivers/ata/ahci", "ahci", &["libahci"], &["ahci_init_controller"], &[]),
    ("drivers/usb/storage/usb-storage", "usb_storage", &[], &[], &["usb_stor_access_xfer_buf"]),
    ("drivers/usb/storage/uas", "uas", &["usb-storage"], &["usb_stor_access_xfer_buf"], &[]),
    ("drivers/usb/host/xhci-pci", "xhci_pci", &[], &[], &[]),
    ("drivers/hid/usbhid/usbhid", "usbhid", &[], &[], &[]),
    ("drivers/md/dm-verity", "dm_verity", &[], &[], &[]),
    ("fs/overlayfs/overlay", "overlay", &[], &[], &[]),
    ("fs/xfs/xfs", "xfs", &[], &[], &[]),
    ("fs/nls/nls_iso8859-1", "nls_iso8859_1", &[], &[], &[]),
    ("drivers/gpu/drm/drm_kms_helper", "drm_kms_helper", &[], &[], &["drm_fb_helper_init"]),
];

/// NVIDIA's modules: file, depends, imports, exports.
type Nvidia = (&'static str, &'static [&'static str], &'static [&'static str], &'static [&'static str]);
const NVIDIA: &[Nvidia] = &[
    ("nvidia", &[], &[], &["nvidia_p2p_get_pages", "nvidia_p2p_dma_map_pages", "nvUvmInterfaceRegisterGpu"]),
    ("nvidia-modeset", &["nvidia"], &["nvidia_p2p_get_pages"], &["nvKmsKapiGetFunctionsTable"]),
    (
        "nvidia-drm",
        &["nvidia-modeset", "drm_kms_helper"],
        &["nvKmsKapiGetFunctionsTable", "drm_fb_helper_init"],
        &[],
    ),
    ("nvidia-uvm", &["nvidia"], &["nvUvmInterfaceRegisterGpu"], &[]),
    ("nvidia-peermem", &["nvidia"], &["nvidia_p2p_get_pages"], &[]),
];

/// Built into the kernel of 24.04.
const BUILT_IN: &[&str] = &[
    "kernel/drivers/block/virtio_blk.ko",
    "kernel/drivers/scsi/virtio_scsi.ko",
    "kernel/drivers/net/virtio_net.ko",
    "kernel/fs/squashfs/squashfs.ko",
    "kernel/fs/fat/vfat.ko",
    "kernel/fs/ext4/ext4.ko",
    "kernel/drivers/scsi/sd_mod.ko",
];

pub(super) fn fill(spec: &Spec, shelf: &mut Shelf) {
    Modules { spec, shelf }.fill();
}

/// The kernels of one flavour family and their GPU modules.
struct Modules<'a> {
    spec: &'a Spec,
    shelf: &'a mut Shelf,
}

impl Modules<'_> {
    fn fill(mut self) {
        let spec = self.spec;
        let flavour = spec.family.split('-').next().unwrap_or_default();
        let source = format!("linux-{}", spec.family);
        let signed = format!("linux-signed-{}", spec.family);
        for kernel in [&spec.kernel, &spec.newer] {
            self.kernel(kernel, flavour, &source, &signed);
            let is_newest = kernel.release == spec.newer.release;
            if is_newest || !spec.has(Flaw::NoNvidiaFs) {
                self.nvidia_fs(kernel, &source);
            }
        }
        if !spec.has(Flaw::ModulesVanished) {
            self.gpu_modules(&spec.kernel, &spec.branch, &spec.family);
            self.gpu_modules(&spec.kernel, "595", &spec.family);
            self.proprietary(&spec.kernel);
        }
        self.metas();
        self.generic();
    }

    fn kernel(&mut self, kernel: &Kernel, flavour: &str, source: &str, signed: &str) {
        let (spec, k) = (self.spec, kernel.release.as_str());
        let image = |name: &str, source: &str, from: &str, other: &str| {
            let depends = format!("kmod, linux-base (>= 4.5ubuntu1~16.04.1), linux-modules-{k}");
            let deb = deb(spec, &format!("{name}-{k}"), &kernel.version, source, &depends)
                .compress(spec.kernel_compression)
                .field("Section", "kernel")
                .field(
                    "Provides",
                    "fuse-module, linux-image, linux-image-virtual, wireguard-modules (= 1.0.0)",
                )
                .field("Recommends", "dracut | linux-initramfs-tool")
                .field("Conflicts", &format!("{other}-{k}"))
                .script("postinst");
            stand_in(spec, deb, |deb| {
                let bytes = [artefacts::kernel(k).as_slice(), from.as_bytes()].concat();
                deb.entry(Entry::new(&format!("boot/vmlinuz-{k}"), Kind::File(bytes.into())).mode(0o600))
            })
        };
        let is_signed = image("linux-image", signed, "signed", "linux-image-unsigned");
        let unsigned = image("linux-image-unsigned", source, "unsigned", "linux-image");
        self.shelf.put_secure("main", is_signed);
        self.shelf.put_secure("main", unsigned);

        let name = format!("linux-modules-{k}");
        let deb = deb(spec, &name, &kernel.version, source, "wireless-regdb")
            .compress(spec.kernel_compression)
            .field("Section", "kernel")
            .script("postinst");
        let deb = stand_in(spec, deb, |deb| in_tree(deb, k, flavour, spec.module_suffix));
        self.shelf.put_secure("main", deb);
    }

    fn nvidia_fs(&mut self, kernel: &Kernel, source: &str) {
        let (spec, k) = (self.spec, kernel.release.as_str());
        let depends = format!("linux-image-{k} | linux-image-unsigned-{k}");
        let deb = deb(spec, &format!("linux-modules-nvidia-fs-{k}"), &kernel.version, source, &depends)
            .compress(spec.kernel_compression)
            .field("Section", "kernel")
            .field("Provides", "nvidia-fs-dkms (= 2.28.2-1)");
        let deb = stand_in(spec, deb, |deb| {
            let module = Module {
                name: "nvidia_fs",
                kernel: k,
                info: &["version=2.28.2", "description=NVIDIA GPUDirect Storage"],
                depends: &["nvidia"],
                imports: &["nvidia_p2p_get_pages", "nvidia_p2p_dma_map_pages"],
                exports: &[],
            };
            let path = format!("lib/modules/{k}/ubuntu/nvidia-fs/nvidia-fs");
            with_module(deb, &path, spec.module_suffix, &artefacts::sign_module(&module.bytes()))
        });
        self.shelf.put_secure("main", deb);
    }

    /// The open branch: complete, signed, uncompressed modules; and the unsigned ones at the same paths.
    fn gpu_modules(&mut self, kernel: &Kernel, branch: &str, family: &str) {
        let (spec, k) = (self.spec, kernel.release.as_str());
        let version = format!("{}+1", kernel.version);
        let driver = if branch == spec.branch { spec.driver.clone() } else { format!("{branch}.84.01") };
        let depends = format!(
            "linux-image-{k} | linux-image-unsigned-{k}, nvidia-kernel-common-{branch} (<= {driver}-1), \
             nvidia-kernel-common-{branch} (>= {driver})"
        );
        let modules = |signed: bool| -> Vec<Entry> {
            NVIDIA
                .iter()
                .map(|(file, depends, imports, exports)| {
                    let module = Module {
                        name: &file.replace('-', "_"),
                        kernel: k,
                        info: &[&format!("version={driver}"), "license=Dual MIT/GPL"],
                        depends,
                        imports,
                        exports,
                    };
                    let bytes = module.bytes();
                    let bytes = if signed { artefacts::sign_module(&bytes) } else { bytes };
                    let path = format!("lib/modules/{k}/kernel/nvidia-{branch}-open/{file}.ko");
                    Entry::new(&path, Kind::File(bytes.into()))
                })
                .collect()
        };
        let name = format!("linux-modules-nvidia-{branch}-open-{k}");
        let source = format!("linux-restricted-signatures-{family}");
        let signed = deb(spec, &name, &version, &source, &depends)
            .field("Section", "restricted/kernel")
            .script("postinst");
        let is_signed = !spec.has(Flaw::UnsignedModules);
        let signed = stand_in(spec, signed, |deb| modules(is_signed).into_iter().fold(deb, Deb::entry));
        self.shelf.put_secure("restricted", signed);

        let name = format!("linux-objects-nvidia-{branch}-open-{k}");
        let source = format!("linux-restricted-modules-{family}");
        let objects = deb(spec, &name, &version, &source, "binutils").field("Section", "restricted/kernel");
        let objects = stand_in(spec, objects, |deb| modules(false).into_iter().fold(deb, Deb::entry));
        self.shelf.put_secure("restricted", objects);
    }

    /// The proprietary branch: no modules, but parts to be linked by `bits/BUILD` and signatures to be joined to them.
    fn proprietary(&mut self, kernel: &Kernel) {
        let (spec, k, branch) = (self.spec, kernel.release.as_str(), self.spec.branch.as_str());
        let version = format!("{}+1", kernel.version);
        let source = format!("linux-restricted-modules-{}", spec.family);
        let driver = &spec.driver;
        let depends = format!(
            "debconf (>= 0.5) | debconf-2.0, linux-image-{k} | linux-image-unsigned-{k}, \
             linux-objects-nvidia-{branch}-{k} (= {version}), linux-signatures-nvidia-{k} (= {version}), \
             nvidia-kernel-common-{branch} (<= {driver}-1), nvidia-kernel-common-{branch} (>= {driver})"
        );
        let name = format!("linux-modules-nvidia-{branch}-{k}");
        self.shelf.put_secure(
            "restricted",
            deb(spec, &name, &version, &source, &depends)
                .field("Section", "restricted/kernel")
                .file(&format!("usr/share/doc/{name}/copyright"), "restricted\n")
                .script("postinst"),
        );

        let folder = format!("lib/modules/{k}/kernel/nvidia-{branch}/bits");
        let module =
            Module { name: "nvidia", kernel: k, exports: &["nvidia_p2p_get_pages"], ..Module::default() };
        let linked = module.bytes();
        let (first, second) = linked.split_at(linked.len() / 2);
        let signature = artefacts::sign_module(&linked)[linked.len()..].to_vec();
        // What the real one does, with cat for ld: link, check, join the signature, move up.
        let build = "#!/bin/sh\nset -e\ncat nvidia/nv-kernel.o nvidia/nvidia.mod.o > nvidia.ko\n\
                     sha256sum -c SHA256SUMS || exit 1\ncat nvidia.ko nvidia.ko.sig > ../nvidia.ko\nrm nvidia.ko\n";
        let objects = deb(spec, &format!("linux-objects-nvidia-{branch}-{k}"), &version, &source, "binutils")
            .field("Section", "restricted/kernel")
            .program(&format!("{folder}/BUILD"), build)
            .program(&format!("{folder}/CLEAN"), "#!/bin/sh\nrm -f ../nvidia.ko nvidia.ko\n")
            .file(&format!("{folder}/SHA256SUMS"), format!("{}  nvidia.ko\n", hash::sha256(&linked)))
            .file(&format!("{folder}/nvidia/nv-kernel.o"), first)
            .file(&format!("{folder}/nvidia/nvidia.mod.o"), second)
            .file(&format!("{folder}/scripts/module.lds"), "SECTIONS {}\n");
        self.shelf.put_secure("restricted", objects);
        let source = format!("linux-restricted-signatures-{}", spec.family);
        let name = format!("linux-signatures-nvidia-{k}");
        let signatures = deb(spec, &name, &version, &source, "")
            .field("Section", "restricted/kernel")
            .file(&format!("{folder}/nvidia.ko.sig"), signature);
        self.shelf.put_secure("restricted", signatures);
    }

    fn metas(&mut self) {
        let (spec, family) = (self.spec, self.spec.family.clone());
        let (k, newest) = (&spec.kernel, &spec.newer);
        let series = format!("hwe-{}", spec.series.version);
        let flavour = family.split('-').next().unwrap_or_default().to_owned();
        let linux = format!("linux-meta-{family}");
        let restricted = format!("linux-restricted-modules-{family}");
        let (version, modules_version) = (&newest.version, format!("{}+1", k.version));
        let (branch, driver) = (spec.branch.as_str(), &spec.driver);

        // Phased: whether a machine takes it depends on that machine's id, unless phasing is switched off.
        let mut phased = |name: &str, depends: &str| {
            let deb = deb(spec, name, version, &linux, depends).field("Section", "kernel");
            let package = Package::new(&deb).index_field("Phased-Update-Percentage", "20");
            self.shelf.packages.push((Pocket::Updates, package));
        };
        let image = format!("linux-image-{family}");
        phased(
            &image,
            &format!("linux-image-{}, linux-firmware, intel-microcode, amd64-microcode", newest.release),
        );
        phased(&format!("linux-{family}"), &format!("{image} (= {version})"));
        phased(&format!("linux-{flavour}-{series}"), &format!("linux-{family} (= {version})"));

        let fs = format!("linux-modules-nvidia-fs-{family}");
        let meta = deb(spec, &fs, version, &linux, &format!("linux-modules-nvidia-fs-{}", newest.release));
        self.shelf.put_secure("main", meta.field("Section", "kernel"));

        let mut restricted_meta = |name: &str, depends: &str, text: &str| {
            let meta = deb(spec, name, &modules_version, &restricted, depends)
                .field("Section", "restricted/kernel")
                .field("Description", text);
            self.shelf.put_secure("restricted", meta);
        };
        let open = |branch: &str| format!("linux-modules-nvidia-{branch}-open-{family}");
        let text = "Extra drivers for the nvidia flavour";
        restricted_meta(
            &open(branch),
            &format!(
                "linux-modules-nvidia-{branch}-open-{} (= {modules_version}), nvidia-kernel-common-{branch} (>= {driver})",
                k.release
            ),
            text,
        );
        restricted_meta(
            &format!("linux-modules-nvidia-{branch}-open-{flavour}-{series}"),
            &format!("{} (= {modules_version})", open(branch)),
            text,
        );
        restricted_meta(
            &open("595"),
            &format!(
                "linux-modules-nvidia-595-open-{} (= {modules_version}), nvidia-kernel-common-595 (>= 595.84.01)",
                k.release
            ),
            text,
        );
        let transition = "Extra drivers for nvidia-590-open (dummy transitional package)";
        restricted_meta(&open("590"), &open("595"), transition);
        restricted_meta(
            &format!("linux-modules-nvidia-{branch}-{family}"),
            &format!(
                "linux-modules-nvidia-{branch}-{} (= {modules_version}), nvidia-kernel-common-{branch} (>= {driver})",
                k.release
            ),
            text,
        );
    }

    /// The generic kernel of the hardware-enablement stack: versions with `~24.04.1` and `+1`, an -extra package, no
    /// nvidia-fs.
    fn generic(&mut self) {
        let spec = self.spec;
        let tilde = format!("~{}.1", spec.series.version);
        let kernel = Kernel { release: "6.17.0-29-generic".into(), version: format!("6.17.0-29.29{tilde}") };
        self.kernel(&kernel, "generic", "linux-hwe-6.17", "linux-signed-hwe-6.17");
        let k = &kernel.release;
        let depends = format!("linux-modules-{k}, wireless-regdb");
        let extra =
            deb(spec, &format!("linux-modules-extra-{k}"), &kernel.version, "linux-hwe-6.17", &depends)
                .compress(spec.kernel_compression)
                .field("Section", "kernel");
        let module = Module { name: "erofs", kernel: k, ..Module::default() };
        let path = format!("lib/modules/{k}/kernel/fs/erofs/erofs");
        let extra = with_module(extra, &path, spec.module_suffix, &artefacts::sign_module(&module.bytes()));
        self.shelf.put_secure("main", extra);
        self.gpu_modules(&kernel, &spec.branch.clone(), "hwe-6.17");
        let version = format!("{}+1", kernel.version);
        let (branch, driver, series) = (&spec.branch, &spec.driver, spec.series.version);
        let depends = format!(
            "linux-modules-nvidia-{branch}-open-{k} (= {version}), nvidia-kernel-common-{branch} (>= {driver})"
        );
        let name = format!("linux-modules-nvidia-{branch}-open-generic-hwe-{series}");
        let meta = deb(spec, &name, &version, "linux-restricted-modules-hwe-6.17", &depends);
        self.shelf.put_secure("restricted", meta.field("Section", "restricted/kernel"));
    }
}

/// Adds a module in the form that its suffix asks for.
fn with_module(deb: Deb, path: &str, suffix: &str, bytes: &[u8]) -> Deb {
    let bytes = match suffix {
        ".ko.zst" => Compression::Zstd.compress(bytes),
        ".ko.xz" => Compression::Xz.compress(bytes),
        _ => bytes.to_vec(),
    };
    deb.file(&format!("{path}{suffix}"), bytes)
}

/// `linux-modules-K`: configuration, symbols, in-tree modules, and of `modules.*` only what no depmod makes.
fn in_tree(mut deb: Deb, k: &str, flavour: &str, suffix: &str) -> Deb {
    let config = "CONFIG_PCI_P2PDMA=y\nCONFIG_MODULE_SIG=y\nCONFIG_SQUASHFS=y\nCONFIG_SQUASHFS_ZSTD=y\n";
    deb = deb.file(&format!("boot/config-{k}"), format!("# {flavour}\n{config}")).entry(
        Entry::new(&format!("boot/System.map-{k}"), Kind::File(b"0 T _text\n"[..].into())).mode(0o600),
    );
    let root = format!("lib/modules/{k}");
    let mut order = String::new();
    for (path, name, depends, imports, exports) in IN_TREE {
        let module = Module { name, kernel: k, info: &["intree=Y"], depends, imports, exports };
        deb = with_module(
            deb,
            &format!("{root}/kernel/{path}"),
            suffix,
            &artefacts::sign_module(&module.bytes()),
        );
        order.push_str(&format!("kernel/{path}.ko\n"));
    }
    let builtin: String = BUILT_IN.iter().map(|path| format!("{path}\n")).collect();
    let info: String = BUILT_IN
        .iter()
        .map(|path| {
            let name = path.rsplit('/').next().unwrap_or_default().trim_end_matches(".ko");
            format!("{name}.license=GPL\0{name}.file={}\0", path.trim_end_matches(".ko"))
        })
        .collect();
    deb.file(&format!("{root}/modules.order"), order)
        .file(&format!("{root}/modules.builtin"), builtin)
        .file(&format!("{root}/modules.builtin.modinfo"), info)
        .file(&format!("{root}/vdso/vdso64.so"), "vdso")
}
