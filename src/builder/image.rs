//! The recipe: from a lock to an image. Each step is a function from named inputs to an entry of the cache.

use super::bios_boot;
use super::cache::Cache;
use super::content::Content;
use super::esp::Loader;
use super::format::parts::{Loaders, Parts};
use super::format::{Format, netboot};
use super::kernel::{self, Modules};
use super::lock::{self, Lock};
use super::modules;
use super::output::Output;
use super::output_folder::OutputFolder;
use super::overlay::Overlays;
use super::pool::Pool;
use super::profile::Profile;
use super::programs::Programs;
use super::resolve::Mirrors;
use super::sandbox::Sandbox;
use super::unpack::{self, Unpacked};
use super::{initramfs, patches, report_partition, root, squashfs};
use crate::error::hinted;
use crate::interrupt;
use crate::manifest::Manifest;
use crate::progress::Progress;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Raised whenever the same inputs would give another image.
const RECIPE: u32 = 4;

/// All that a build starts from.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// What to build.
    pub profile: &'a Profile,
    /// Exactly which packages.
    pub lock: &'a Lock,
    /// Overlays that were asked for.
    pub overlays: &'a Overlays,
    /// gdsboot's own programs.
    pub programs: &'a Programs,
    /// What it becomes.
    pub format: Format,
}

/// Where a build works.
#[derive(Debug)]
pub struct Place<'a> {
    /// Downloads.
    pub pool: &'a Pool,
    /// Where to get what the pool lacks.
    pub mirrors: &'a Mirrors,
    /// Everything that can be made again.
    pub cache: &'a Cache,
    /// Who is told.
    pub progress: &'a Progress,
}

/// What came of it.
#[derive(Debug)]
pub struct Built {
    /// The manifest on the image.
    pub manifest: Manifest,
    /// The file was already what this build would have written.
    pub was_current: bool,
}

/// What a cached root says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct RootInfo {
    size: u64,
    sha256: String,
    packages: BTreeMap<String, String>,
    modules: BTreeMap<String, String>,
    driver: Option<String>,
    /// The initramfs's modules in load order, by file name in the entry's `modules` folder.
    initramfs: Vec<String>,
    /// The same of an initramfs that fetches the root.
    netboot: Vec<String>,
}

impl Inputs<'_> {
    fn image_sets(&self) -> Vec<String> {
        let overlays = self.overlays.names.iter().map(|o| lock::overlay_set(o));
        std::iter::once(lock::SET_IMAGE.to_owned()).chain(overlays).collect()
    }

    /// Identifies the image.
    fn key(&self) -> Result<String> {
        let mut hash = Sha256::new();
        hash.update(format!("image {RECIPE} {}\n", env!("CARGO_PKG_VERSION")));
        hash.update(self.lock.key());
        hash.update(serde_json::to_vec(self.profile).context("hashing the profile")?);
        hash.update(&self.profile.name);
        hash.update(self.overlays.words().join(","));
        hash.update(self.overlays.key()?);
        hash.update(patches::key());
        for program in [&self.programs.validator, &self.programs.dma] {
            hash.update(Sha256::digest(fs_err::read(program)?));
        }
        Ok(hex::encode(hash.finalize()))
    }

    /// Identifies the root: everything but gdsboot's own programs and the boot menu.
    fn root_key(&self) -> Result<String> {
        let mut hash = Sha256::new();
        hash.update(format!("root {RECIPE} {}\n", self.lock.epoch));
        hash.update(self.lock.set_key(&self.image_sets()));
        hash.update(self.lock.set_key(&[lock::SET_TOOLS.to_owned()]));
        hash.update(self.overlays.key()?);
        for part in [
            serde_json::to_vec(&self.profile.image),
            serde_json::to_vec(&self.profile.kernel),
            serde_json::to_vec(&self.profile.modules),
        ] {
            hash.update(part.context("hashing the profile")?);
        }
        if self.profile.modules.compile.is_some() {
            hash.update(self.modules_key());
        }
        Ok(hex::encode(hash.finalize()))
    }

    fn modules_key(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("modules {}\n", modules::recipe()));
        hash.update(self.lock.set_key(&[lock::SET_BUILD.to_owned()]));
        hash.update(&self.lock.kernel);
        hash.update(self.lock.epoch.to_le_bytes());
        hash.update(patches::key());
        hex::encode(hash.finalize())
    }
}

/// What every format begins with.
struct Prepared {
    /// Identifies the image.
    key: String,
    /// The cache's entry of the root.
    root: PathBuf,
    info: RootInfo,
    manifest: Manifest,
}

impl Prepared {
    fn new(inputs: &Inputs<'_>, place: &Place<'_>) -> Result<Self> {
        inputs.profile.check_overlays(&inputs.overlays.names)?;
        let key = inputs.key()?;
        let root = root_entry(inputs, place)?;
        let info: RootInfo =
            serde_json::from_slice(&fs_err::read(root.join("info.json"))?).context("reading info.json")?;
        let manifest = manifest(inputs, &info, &key);
        Ok(Self { key, root, info, manifest })
    }

    fn finish(self, inputs: &Inputs<'_>, place: &Place<'_>) -> Result<(Manifest, Parts)> {
        let boot = boot_entry(inputs, place)?;
        interrupt::check()?;
        let parts = parts(inputs, &self.info, &self.root, &boot, &self.manifest)?;
        Ok((self.manifest, parts))
    }
}

/// Builds an image into `output`.
///
/// # Errors
/// Every step names what it was doing; see there. Nothing is written to the output unless all of it is there.
pub fn build(inputs: &Inputs<'_>, place: &Place<'_>, output: &Output) -> Result<Built> {
    let prepared = Prepared::new(inputs, place)?;
    let stamps = place.cache.folder().join("outputs");
    // The same inputs are the same image in whatever form, and another file.
    let stamp = format!("{} {}", prepared.key, inputs.format.word());
    if output.is_current(&stamps, &stamp) {
        return Ok(Built { manifest: prepared.manifest, was_current: true });
    }
    let (manifest, parts) = prepared.finish(inputs, place)?;
    output.replace(&stamps, &stamp, |file| inputs.format.write(&parts, file, output, place.progress))?;
    Ok(Built { manifest, was_current: false })
}

/// Builds what a machine boots from the network, into a folder. Reports are sent to `report_url` unless the boot says
/// otherwise.
///
/// # Errors
/// As [`build`].
pub fn build_netboot(
    inputs: &Inputs<'_>,
    place: &Place<'_>,
    output: &OutputFolder,
    report_url: Option<&str>,
) -> Result<Manifest> {
    let (manifest, parts) = Prepared::new(inputs, place)?.finish(inputs, place)?;
    output.replace(|folder| netboot::write(&parts, report_url, folder, place.progress))?;
    Ok(manifest)
}

/// The unpacked tools, as a sandbox.
pub fn tools(inputs: &Inputs<'_>, place: &Place<'_>) -> Result<Sandbox> {
    Sandbox::new(&unpacked_root(inputs.lock, lock::SET_TOOLS, place)?)
}

/// A set of the lock, unpacked into a folder in which programs run.
pub fn unpacked_root(lock: &Lock, set: &str, place: &Place<'_>) -> Result<PathBuf> {
    let sets = [set.to_owned()];
    place.cache.entry("roots", &format!("{set}-{}", lock.set_key(&sets)), place.progress, |path| {
        place.pool.fetch(lock, &sets, place.mirrors, place.progress)?;
        let work = place.cache.work()?;
        let keep = |path: &str| !path.starts_with("usr/share/doc/") && !path.starts_with("usr/share/man/");
        let mut unpacked = unpack::unpack(place.pool, lock, &sets, work.path(), &keep, place.progress)?;
        program_links(&mut unpacked)?;
        fs_err::create_dir(path)?;
        unpacked.tree.write_to(path)
    })
}

/// The names that alternatives give to programs which packages ship under a longer one.
fn program_links(unpacked: &mut Unpacked) -> Result<()> {
    for (name, real) in [("usr/bin/awk", "mawk"), ("usr/bin/awk", "gawk")] {
        let tree = &mut unpacked.tree;
        if tree.get(name).is_none() && tree.get(&format!("usr/bin/{real}")).is_some() {
            tree.insert_link(name, real)?;
        }
    }
    Ok(())
}

fn root_entry(inputs: &Inputs<'_>, place: &Place<'_>) -> Result<PathBuf> {
    let key = inputs.root_key()?;
    place.cache.entry("images", &key, place.progress, |path| {
        let sets = inputs.image_sets();
        // What is downloaded together is downloaded fastest.
        let mut wanted = sets.clone();
        wanted.push(lock::SET_TOOLS.to_owned());
        if inputs.profile.modules.compile.is_some() && !place.cache.has("modules", &inputs.modules_key()) {
            wanted.push(lock::SET_BUILD.to_owned());
        }
        place.pool.fetch(inputs.lock, &wanted, place.mirrors, place.progress)?;
        let compiled = compiled_modules(inputs, place)?;
        let tools = tools(inputs, place)?;
        let work = place.cache.work()?;
        let trim = root::Trim::new(inputs.profile)?;
        let keep = |path: &str| trim.wants(path);
        let mut unpacked =
            unpack::unpack(place.pool, inputs.lock, &sets, work.path(), &keep, place.progress)?;
        fs_err::create_dir_all(path.join("modules"))?;
        let release = &inputs.lock.kernel;
        let image = kernel::image(&unpacked.tree, release)?;
        fs_err::write(path.join("vmlinuz"), image.read().context("reading the kernel")?)?;

        let (mut modules, files) = Modules::take(&mut unpacked.tree, release)?;
        for (name, bytes) in compiled {
            modules.insert(format!("updates/{name}.ko"), bytes)?;
        }
        let mut patterns = inputs.profile.kernel.modules.clone();
        patterns.extend(inputs.profile.kernel.network.iter().map(|name| format!("**/{name}.ko")));
        let patterns = kernel::globs(&patterns)?;
        let mut names = inputs.profile.kernel.initramfs.clone();
        names.extend(inputs.profile.modules.load.iter().cloned());
        modules.keep(&files, &patterns, &names)?;
        drop(files);
        check_modules(inputs, &modules)?;
        let parts =
            root::Parts { profile: inputs.profile, overlays: inputs.overlays, release, modules: &modules };
        root::finish(&mut unpacked, &parts, &tools, work.path())?;

        let kernel = &inputs.profile.kernel;
        let initramfs = modules_of_initramfs(&modules, &kernel.initramfs, path)?;
        // A root in memory is a loop device.
        let mut netboot = kernel.initramfs.clone();
        netboot.push("loop".to_owned());
        netboot.extend(kernel.network.iter().cloned());
        let netboot = modules_of_initramfs(&modules, &netboot, path)?;
        let squashfs_path = path.join("root.squashfs");
        let level = inputs.profile.image.compression;
        squashfs::write(&unpacked.tree, &squashfs_path, &tools, inputs.lock.epoch, level, place.progress)?;
        let file = fs_err::File::open(&squashfs_path)?;
        let info = RootInfo {
            size: file.metadata()?.len(),
            sha256: super::pool::hash_of(file.file())?,
            packages: packages(&unpacked),
            modules: module_versions(inputs, &modules),
            driver: modules.get("nvidia").and_then(|m| m.info.version.clone()),
            initramfs,
            netboot,
        };
        let listing: String =
            unpacked.tree.listing()?.into_iter().map(|(p, what)| format!("{what} {p}\n")).collect();
        fs_err::write(path.join("listing.txt"), listing)?;
        fs_err::write(
            path.join("info.json"),
            serde_json::to_vec_pretty(&info).context("writing info.json")?,
        )?;
        Ok(())
    })
}

/// Puts modules and what they need into the entry's `modules` folder; their file names in load order.
fn modules_of_initramfs(modules: &Modules, wanted: &[String], entry: &Path) -> Result<Vec<String>> {
    let mut order = Vec::new();
    for module in modules.load_order(wanted)? {
        let name = module.path.rsplit('/').next().unwrap_or_default().to_owned();
        fs_err::write(entry.join("modules").join(&name), &module.bytes)?;
        order.push(name);
    }
    Ok(order)
}

fn packages(unpacked: &Unpacked) -> BTreeMap<String, String> {
    unpacked.packages.iter().map(|p| (p.control.package.clone(), p.control.version.clone())).collect()
}

/// NVIDIA's modules: name, compiled bytes.
fn compiled_modules(inputs: &Inputs<'_>, place: &Place<'_>) -> Result<Vec<(String, Vec<u8>)>> {
    let Some(compile) = &inputs.profile.modules.compile else { return Ok(Vec::new()) };
    let entry = place.cache.entry("modules", &inputs.modules_key(), place.progress, |path| {
        let root = unpacked_root(inputs.lock, lock::SET_BUILD, place)?;
        let work = place.cache.work()?;
        let patches = work.path().join("patches");
        patches::write_to(&patches)?;
        let find = |kind: &modules::Kind| modules::ModuleSource::find(&root, *kind, &patches, &[]);
        let sources = compile.sources.iter().map(find).collect::<Result<Vec<_>>>()?;
        let jobs = std::thread::available_parallelism().map_or(2, usize::from) + 1;
        let compile = modules::Compile {
            root: &root,
            kernel_release: &inputs.lock.kernel,
            sources: &sources,
            epoch: inputs.lock.epoch,
            jobs,
            output: path,
            logs: &place.cache.logs(),
        };
        compile.run(place.progress).map(drop)
    })?;
    let mut found = Vec::new();
    for file in fs_err::read_dir(&entry)? {
        let path = file?.path();
        if path.extension().is_some_and(|e| e == "ko") {
            let name = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
            found.push((name, fs_err::read(&path)?));
        }
    }
    found.sort();
    Ok(found)
}

/// The modules that the validator will load are there, and signed where the profile says so.
fn check_modules(inputs: &Inputs<'_>, modules: &Modules) -> Result<()> {
    for name in &inputs.profile.modules.load {
        let module = modules.get(name).ok_or_else(|| {
            hinted(
                format!("no package brings the kernel module {name} for {}", inputs.lock.kernel),
                "the kernel and its NVIDIA modules must be of one build: name the modules' metapackage in `kernel.packages`",
            )
        })?;
        if inputs.profile.modules.signed && module.info.signature.is_none() {
            return Err(hinted(
                format!(
                    "the kernel module /{}/{} is not signed",
                    kernel::folder(&inputs.lock.kernel),
                    module.path
                ),
                "Secure Boot would refuse it: take linux-modules-nvidia-*, never linux-objects-nvidia-*",
            ));
        }
    }
    Ok(())
}

fn module_versions(inputs: &Inputs<'_>, modules: &Modules) -> BTreeMap<String, String> {
    let how = if inputs.profile.modules.compile.is_some() { "compiled" } else { "prebuilt" };
    let describe = |name: &String| {
        let info = &modules.get(name)?.info;
        let signed = if info.signature.is_some() { ", signed" } else { "" };
        let version = info.version.clone().unwrap_or_else(|| "no version".to_owned());
        Some((name.clone(), format!("{version} ({how}{signed})")))
    };
    inputs.profile.modules.load.iter().filter_map(describe).collect()
}

fn manifest(inputs: &Inputs<'_>, info: &RootInfo, key: &str) -> Manifest {
    let tool = |name: &str| Some((name.to_owned(), inputs.lock.find(lock::SET_TOOLS, name)?.version.clone()));
    Manifest {
        version: 1,
        gdsboot: env!("CARGO_PKG_VERSION").to_owned(),
        profile: inputs.profile.name.clone(),
        overlays: inputs.overlays.words(),
        lock: inputs.lock.key(),
        image_id: key[..16].to_owned(),
        kernel: inputs.lock.kernel.clone(),
        driver: info.driver.clone(),
        modules: info.modules.clone(),
        epoch: inputs.lock.epoch,
        packages: info.packages.clone(),
        tools: inputs.profile.tools.packages.iter().filter_map(|p| tool(p)).collect(),
    }
}

/// Shim, GRUB and GRUB's BIOS images, in a folder.
fn boot_entry(inputs: &Inputs<'_>, place: &Place<'_>) -> Result<PathBuf> {
    let tools_key = inputs.lock.set_key(&[lock::SET_TOOLS.to_owned()]);
    let key = format!("{}-{RECIPE}-{tools_key}", inputs.profile.boot.vendor);
    place.cache.entry("boot", &key, place.progress, |path| {
        let folder = unpacked_root(inputs.lock, lock::SET_TOOLS, place)?;
        fs_err::create_dir(path)?;
        let available = files_below(&folder, &["usr/lib/shim", "usr/lib/grub/x86_64-efi-signed"])?;
        for loader in [Loader::Shim, Loader::Grub, Loader::MokManager] {
            let found = loader.find(available.iter().map(String::as_str))?;
            fs_err::copy(folder.join(found), path.join(format!("{loader:?}")))?;
        }
        let grub = "usr/lib/grub/i386-pc";
        fs_err::copy(folder.join(grub).join("boot.img"), path.join("boot.img"))?;
        let (modules, vendor) = (format!("/{grub}"), &inputs.profile.boot.vendor);
        let tools = tools(inputs, place)?.bind(path, "/out", true);
        for arguments in [
            bios_boot::mkimage_arguments(&modules, vendor, "/out/core.img"),
            bios_boot::mkimage_cdrom_arguments(&modules, vendor, "/out/cdrom.img"),
        ] {
            let grub_mkimage = tools.command("/usr/bin/grub-mkimage").args(arguments);
            grub_mkimage.run().context("making GRUB's core image")?;
        }
        Ok(())
    })
}

fn files_below(root: &Path, folders: &[&str]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for folder in folders {
        for entry in fs_err::read_dir(root.join(folder))? {
            found.push(format!("{folder}/{}", entry?.file_name().to_string_lossy()));
        }
    }
    Ok(found)
}

fn parts(
    inputs: &Inputs<'_>,
    info: &RootInfo,
    root: &Path,
    boot: &Path,
    manifest: &Manifest,
) -> Result<Parts> {
    let title = format!("gdsboot {}", inputs.profile.name);
    let manifest_json = serde_json::to_vec_pretty(manifest).context("writing the manifest")?;
    let read = |name: &str| fs_err::read(boot.join(name));
    let facts = [
        format!("Image: {}", manifest.image_id),
        format!("Kernel: {}", manifest.kernel),
        format!("NVIDIA driver: {}", manifest.driver.as_deref().unwrap_or("none")),
    ];
    Ok(Parts {
        image_id: manifest.image_id.clone(),
        epoch: inputs.lock.epoch,
        timeout: inputs.profile.boot.timeout,
        parameters: inputs.profile.kernel.command_line.split_whitespace().map(str::to_owned).collect(),
        kernel: Content::of_file(&root.join("vmlinuz"))?,
        initramfs: initramfs(inputs, info, root, &manifest_json)?.into(),
        root: Content::of_file(&root.join("root.squashfs"))?,
        root_sha256: info.sha256.clone(),
        manifest: manifest_json,
        report_files: report_partition::files(&title, &facts)?,
        loaders: Loaders {
            vendor: inputs.profile.boot.vendor.clone(),
            least_grub: inputs.profile.boot.grub_sbat,
            shim: read("Shim")?,
            grub: read("Grub")?,
            mok_manager: read("MokManager")?,
            boot_image: read("boot.img")?,
            core_image: read("core.img")?,
            cdrom_image: read("cdrom.img")?,
        },
        title,
    })
}

fn initramfs(inputs: &Inputs<'_>, info: &RootInfo, root: &Path, manifest: &[u8]) -> Result<Vec<u8>> {
    let mut modules = Vec::new();
    let names = if inputs.format == Format::Netboot { &info.netboot } else { &info.initramfs };
    for name in names {
        modules.push((name.clone(), Content::of_file(&root.join("modules").join(name))?));
    }
    initramfs::build(&initramfs::Inputs {
        validator: Content::of_file(&inputs.programs.validator)?,
        dma: Content::of_file(&inputs.programs.dma)?,
        manifest: manifest.to_vec(),
        release: &inputs.lock.kernel,
        modules: &modules,
    })
}
