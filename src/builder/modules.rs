//! Kernel modules from packaged source: patched, compiled by kbuild in the module-build root, stripped.
//!
//! The build root is only read; everything is written to a folder that the compiler sees as `/build`, so that the same
//! inputs give the same bytes wherever they are compiled. A module that would build and then not load (modpost's
//! "undefined!") fails here. The result is a folder of `.ko` files that appears complete or not at all.
//!
//! What makes it fast: the GPU driver's prebuilt core brings 200 MB of debug information that every link would copy, so
//! it goes first; nothing else is compiled with any (unless the kernel computes symbol versions from it); and
//! nvidia-fs's configure is spared one kbuild run per question (`modules/configure-make.sh`).

mod build;
mod build_log;
mod source;

pub use source::{Kind, ModuleSource, Patch};

use crate::builder::module_info::ModuleInfo;
use crate::builder::sandbox::Sandbox;
use crate::error::hinted;
use crate::progress::{Progress, Unit, bytes};
use anyhow::{Context as _, Result, ensure};
use build::{Build, COMPILER, CONFIGURE_MAKE};
use build_log::BuildLog;
use std::path::{Path, PathBuf};

/// Raised whenever the steps below change what comes out, so that cached results of older steps are not taken.
const RECIPE: u32 = 1;

/// Sources, objects and links of all modules together stay well below it; in bytes.
const SPACE: u64 = 512 << 20;

/// Modules to compile, and where to.
#[derive(Clone, Copy, Debug)]
pub struct Compile<'a> {
    /// The unpacked module-build root: compiler, kernel headers, sources. Only mount points are made in it.
    pub root: &'a Path,
    /// `6.12.117+deb13-amd64`; its headers must be in the root.
    pub kernel_release: &'a str,
    /// In the order in which they are compiled.
    pub sources: &'a [ModuleSource],
    /// SOURCE_DATE_EPOCH, in seconds since 1970.
    pub epoch: u64,
    /// Compilers at the same time.
    pub jobs: usize,
    /// The folder that is made; its parent is where the work is done meanwhile.
    pub output: &'a Path,
    /// Where a log of each source's compilation is kept, also when it fails.
    pub logs: &'a Path,
}

/// A module that was compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledModule {
    /// The `.ko` file.
    pub path: PathBuf,
    /// What it says about itself: name, version, dependencies, vermagic, firmware.
    pub info: ModuleInfo,
}

/// Changes whenever the same packages and patches would give other modules.
pub fn recipe() -> String {
    format!("{RECIPE}\n{COMPILER}\n{CONFIGURE_MAKE}")
}

/// The modules in a folder that [`Compile::run`] made, by name of file.
pub fn load(output: &Path) -> Result<Vec<CompiledModule>> {
    let mut modules = Vec::new();
    for entry in fs_err::read_dir(output)? {
        let path = entry?.path();
        let read = || ModuleInfo::parse(&fs_err::read(&path)?);
        let info = read().with_context(|| format!("reading the kernel module {}", path.display()))?;
        modules.push(CompiledModule { path, info });
    }
    ensure!(!modules.is_empty(), "{} holds no kernel modules", output.display());
    modules.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(modules)
}

impl Compile<'_> {
    /// Compiles everything; about four minutes of processor time for the GPU driver and nvidia-fs.
    pub fn run(&self, progress: &Progress) -> Result<Vec<CompiledModule>> {
        let release = self.kernel_release;
        let headers = self.headers()?;
        let parent = self.output.parent().context("the modules need a folder to go to")?;
        fs_err::create_dir_all(parent)?;
        enough_space(parent)?;
        let work = tempfile::Builder::new()
            .prefix(".modules-")
            .tempdir_in(parent)
            .context("making a build folder")?;
        let sandbox = Sandbox::new(self.root)?.bind(work.path(), "/build", true);
        let config = sandbox.command("/usr/bin/cat").arg(format!("{headers}/.config")).output()?;
        let kernel_config = String::from_utf8(config).context("reading the kernel's configuration")?;
        let build = Build { compile: *self, work: work.path(), sandbox, headers, kernel_config };
        build.prepare()?;
        let steps = self.sources.iter().map(|s| s.kind.expected_steps(&self.root.join(&s.dir))).sum();
        let stage = progress.stage(&format!("compiling kernel modules for {release}"), steps, Unit::Steps);
        for source in self.sources {
            let log = self.logs.join(format!("{}-{}-{release}.log", source.name, source.version));
            let mut log = BuildLog::create(&log, stage.clone())?;
            build.source(source, &mut log).with_context(|| {
                format!("compiling {} {} for Linux {release}", source.name, source.version)
            })?;
        }
        let out = work.path().join("out");
        for module in load(&out)? {
            let built_for = module.info.kernel_release();
            ensure!(built_for == release, "{} was built for {built_for}, not {release}", module.info.name);
            fs_err::File::open(&module.path)?.sync_all()?;
        }
        publish(&out, self.output)?;
        load(self.output)
    }

    /// Where the kernel's build folder is inside the root; fails if the root has headers for another kernel.
    fn headers(&self) -> Result<String> {
        let release = self.kernel_release;
        let plain = |c: char| c.is_ascii_alphanumeric() || "+-._~".contains(c);
        ensure!(!release.is_empty() && release.chars().all(plain), "{release:?} is not a kernel release");
        let modules = self.root.join("usr/lib/modules").join(release);
        if fs_err::symlink_metadata(modules.join("build")).is_err() {
            return Err(hinted(
                format!("the module-build root has no headers of Linux {release}"),
                format!(
                    "its lock must name linux-headers-{release}, of the same version as the image's kernel"
                ),
            ));
        }
        Ok(format!("/lib/modules/{release}/build"))
    }
}

fn enough_space(dir: &Path) -> Result<()> {
    let stat = nix::sys::statvfs::statvfs(dir)
        .with_context(|| format!("looking at the disk of {}", dir.display()))?;
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    if free >= SPACE {
        return Ok(());
    }
    let (free, needed) = (bytes(free), bytes(SPACE));
    Err(hinted(
        format!("{} has {free} free, and compiling the kernel modules takes {needed}", dir.display()),
        "free some space, or put the cache on another disk",
    ))
}

/// Makes the finished folder visible. Where another build of the same inputs was faster, its result stands: it is the
/// same.
fn publish(out: &Path, output: &Path) -> Result<()> {
    match fs_err::rename(out, output) {
        Err(_) if load(output).is_ok() => Ok(()),
        other => other.context("moving the compiled modules to where they belong"),
    }
}

#[cfg(test)]
mod tests;
