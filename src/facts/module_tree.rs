//! The modules on disk of one kernel: `modules.dep` and `modules.builtin` as depmod writes them (kmod), and the files.

use super::kernel::{NVFS_HOOK_SUFFIX, name_at};
use super::packed::Packing;
use super::search::occurrences;
use super::{Fact, Root};
use anyhow::Context as _;
use std::collections::BTreeMap;
use std::io::Read;

/// No module is larger than this when unpacked; nvidia.ko with its debug information comes nearest.
const LIMIT: u64 = 512 << 20;

/// The modules of one kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleTree {
    /// The folder, absolute on the machine.
    folder: String,
    /// Name (with `_`) -> its file and those of what it needs, nearest need first; relative to `folder`.
    files: BTreeMap<String, Vec<String>>,
    /// Names of what is part of the kernel image.
    builtin: Vec<String>,
}

impl ModuleTree {
    /// Reads the tree of `release`. Without `modules.dep` nothing is known, also not that there are no modules.
    pub fn read(root: &Root, release: &str) -> Fact<Self> {
        let folder = format!("/usr/lib/modules/{release}");
        let folder = if root.exists(&folder) { folder } else { format!("/lib/modules/{release}") };
        let builtin = root.text(&format!("{folder}/modules.builtin"));
        let builtin = builtin.value().map(|text| text.lines().map(module_name).collect()).unwrap_or_default();
        root.text(&format!("{folder}/modules.dep")).parse(|dep| {
            let files = parse_dep(&dep)?;
            Ok::<_, String>(Self { folder, files, builtin })
        })
    }

    /// The folder that was read.
    pub fn folder(&self) -> &str {
        &self.folder
    }

    /// Is it part of the kernel image?
    pub fn is_builtin(&self, name: &str) -> bool {
        let name = canonical(name);
        self.builtin.contains(&name)
    }

    /// The files to load for `name`, what it needs first and itself last, absolute on the machine.
    pub fn load_order(&self, name: &str) -> Option<Vec<String>> {
        // modules.dep lists needs so that the last one needs nothing of the others.
        let files = self.files.get(&canonical(name))?;
        Some(files.iter().rev().map(|file| self.absolute(file)).collect())
    }

    fn absolute(&self, file: &str) -> String {
        if file.starts_with('/') { file.to_owned() } else { format!("{}/{file}", self.folder) }
    }

    /// The functions that the module's file on disk exports for nvidia-fs to hook into; see
    /// [`super::kernel::Symbols::nvfs_hooks`] for what is in the kernel.
    pub fn nvfs_hooks(&self, root: &Root, name: &str) -> Fact<Vec<String>> {
        let Some(path) = self.load_order(name).and_then(|mut files| files.pop()) else {
            return Fact::Missing { from: format!("{}/modules.dep: {name}", self.folder) };
        };
        match root.open(&path) {
            Ok(file) => Fact::known(path.as_str(), file)
                .parse(|file| unpack(&path, file).map(|bytes| find_nvfs_hooks(&bytes))),
            Err(error) => Fact::from_error(path, &error),
        }
    }
}

/// A module's name from its file: `kernel/drivers/nvme/host/nvme-core.ko.xz` -> `nvme_core`.
pub fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    canonical(file.split_once(".ko").map_or(file, |(name, _)| name))
}

/// Is it a module's file, packed or not?
pub fn is_module(path: &str) -> bool {
    [".ko", ".ko.xz", ".ko.zst", ".ko.gz"].iter().any(|end| path.ends_with(end))
}

/// `-` and `_` mean the same in a module's name; the kernel shows `_`.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// Lines of `file: need need`.
fn parse_dep(text: &str) -> Result<BTreeMap<String, Vec<String>>, String> {
    let mut files = BTreeMap::new();
    for line in text.lines() {
        let (file, needs) = line.split_once(':').ok_or_else(|| format!("{line:?} has no colon"))?;
        let all = std::iter::once(file).chain(needs.split_ascii_whitespace());
        files.insert(module_name(file), all.map(str::to_owned).collect());
    }
    Ok(files)
}

/// The bytes of a module, unpacked as its name says.
pub fn unpack(path: &str, file: impl Read) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = Packing::of(path).reader(file)?.take(LIMIT).read_to_end(&mut bytes);
    read.with_context(|| format!("unpacking {path}"))?;
    Ok(bytes)
}

/// Of a module's file only what [`ModuleTree::nvfs_hooks`] finds in it, packed as its name says: a capture takes no
/// programs along.
pub fn only_hooks(path: &str, file: &[u8]) -> anyhow::Result<Vec<u8>> {
    let names = find_nvfs_hooks(&unpack(path, file)?);
    let text: String = names.into_iter().map(|name| format!("\0{name}\0")).collect();
    Packing::of(path).pack(text.as_bytes()).with_context(|| format!("packing {path}"))
}

/// Names in the module's string table, which stand between NULs.
fn find_nvfs_hooks(bytes: &[u8]) -> Vec<String> {
    let mut hooks: Vec<String> = Vec::new();
    for at in occurrences(bytes, NVFS_HOOK_SUFFIX.as_bytes()) {
        let name = name_at(bytes, at);
        if name.ends_with(NVFS_HOOK_SUFFIX) && !name.starts_with("__") && !hooks.contains(&name) {
            hooks.push(name);
        }
    }
    hooks
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    const DEP: &str = "kernel/drivers/nvme/host/nvme.ko.xz: kernel/drivers/nvme/host/nvme-core.ko.xz \
                       kernel/drivers/nvme/common/nvme-auth.ko.xz\nupdates/nvidia-fs.ko: updates/nvidia.ko\n\
                       kernel/fs/squashfs/squashfs.ko.xz:\n";

    fn machine() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("usr/lib/modules/6.12.1");
        fs_err::create_dir_all(folder.join("updates")).unwrap();
        fs_err::write(folder.join("modules.dep"), DEP).unwrap();
        fs_err::write(folder.join("modules.builtin"), "kernel/drivers/virtio/virtio_pci.ko\n").unwrap();
        let root = Root::at(dir.path());
        (dir, root)
    }

    #[test]
    fn needs_are_loaded_first() {
        let (_dir, root) = machine();
        let tree = ModuleTree::read(&root, "6.12.1");
        let tree = tree.value().unwrap();
        let names: Vec<String> =
            tree.load_order("nvme").unwrap().iter().map(|path| module_name(path)).collect();
        assert_eq!(names, ["nvme_auth", "nvme_core", "nvme"]);
        assert_eq!(tree.load_order("nvidia_fs"), tree.load_order("nvidia-fs"));
        assert_eq!(tree.load_order("squashfs").unwrap().len(), 1);
        assert_eq!(tree.load_order("zfs"), None);
        assert!(tree.is_builtin("virtio-pci") && !tree.is_builtin("nvme"));
        assert!(matches!(ModuleTree::read(&root, "5.0"), Fact::Missing { .. }));
    }

    #[test]
    fn a_line_without_a_colon_is_malformed() {
        assert!(parse_dep("kernel/a.ko: kernel/b.ko\nkernel/b.ko\n").is_err());
    }

    #[test]
    fn hooks_are_found_in_a_packed_module() {
        let strings = b"\0__kstrtab_nvme_v1_register_nvfs_dma_ops\0nvme_v1_register_nvfs_dma_ops\0x_register_nvfs_dma_opsy\0";
        assert_eq!(find_nvfs_hooks(strings), ["nvme_v1_register_nvfs_dma_ops"]);
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(strings).unwrap();
        assert_eq!(unpack("a/b.ko.gz", &packed.finish().unwrap()[..]).unwrap(), strings);
        assert!(unpack("a/b.ko.xz", &b"not xz"[..]).is_err());
        // What a capture keeps of a module tells the same.
        let module = [&[7; 5000][..], strings].concat();
        for path in ["b.ko", "b.ko.gz", "b.ko.xz", "b.ko.zst"] {
            let whole = Packing::of(path).pack(&module).unwrap();
            assert!(is_module(path));
            let kept = only_hooks(path, &whole).unwrap();
            let unpacked = unpack(path, &kept[..]).unwrap();
            assert!(unpacked.len() < 100, "{path}");
            assert_eq!(find_nvfs_hooks(&unpacked), ["nvme_v1_register_nvfs_dma_ops"], "{path}");
        }
        assert!(only_hooks("b.ko.xz", b"not xz").is_err() && !is_module("modules.dep"));
    }

    #[test]
    fn a_module_that_is_not_what_its_name_says_is_malformed() {
        let (dir, root) = machine();
        let path = dir.path().join("usr/lib/modules/6.12.1/kernel/drivers/nvme/host/nvme.ko.xz");
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        let tree = ModuleTree::read(&root, "6.12.1").value().unwrap().clone();
        assert!(matches!(tree.nvfs_hooks(&root, "nvme"), Fact::Missing { .. }));
        fs_err::write(path, "not xz").unwrap();
        assert!(matches!(tree.nvfs_hooks(&root, "nvme"), Fact::Malformed { .. }));
    }
}
