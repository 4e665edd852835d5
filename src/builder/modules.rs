//! Kernel modules from packaged source: patched, compiled by kbuild in the module-build root, stripped.
//!
//! The build root is only read; everything is written to a folder that the compiler sees as `/build`, so that the same
//! inputs give the same bytes wherever they are compiled. A module that would build and then not load (modpost's
//! "undefined!") fails here. The result is a folder of `.ko` files that appears complete or not at all.
//!
//! What makes it fast: the GPU driver's prebuilt core brings 200 MB of debug information that every link would copy, so
//! it goes first; nothing else is compiled with any (unless the kernel computes symbol versions from it); and
//! nvidia-fs's configure is spared one kbuild run per question (`modules/configure-make.sh`).

mod build_log;
mod source;

pub use source::{Kind, ModuleSource, Patch};

use crate::builder::module_info::ModuleInfo;
use crate::builder::sandbox::{Sandbox, SandboxCommand};
use crate::error::{Advise as _, hinted};
use crate::interrupt;
use crate::progress::{Progress, Unit};
use anyhow::{Context as _, Result, ensure};
use build_log::BuildLog;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Raised whenever the steps below change what comes out, so that cached results of older steps are not taken.
pub const RECIPE: u32 = 1;

/// Stands in for `make` while nvidia-fs's configure runs.
const CONFIGURE_MAKE: &str = include_str!("modules/configure-make.sh");

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
        let work = tempfile::Builder::new()
            .prefix(".modules-")
            .tempdir_in(parent)
            .context("making a build folder")?;
        let build = Build { compile: *self, work: work.path(), sandbox: self.sandbox(work.path())?, headers };
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

    fn sandbox(&self, work: &Path) -> Result<Sandbox> {
        Ok(Sandbox::new(self.root)?.bind(work, "/build", true))
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

/// Makes the finished folder visible. Where another build of the same inputs was faster, its result stands: it is the
/// same.
fn publish(out: &Path, output: &Path) -> Result<()> {
    match fs_err::rename(out, output) {
        Err(_) if load(output).is_ok() => Ok(()),
        other => other.context("moving the compiled modules to where they belong"),
    }
}

/// A compilation under way. Its folders, under the work folder on the host and under /build inside: `bin` (programs
/// that stand in for others), `tmp`, `out`, and one for each source.
struct Build<'a> {
    compile: Compile<'a>,
    work: &'a Path,
    sandbox: Sandbox,
    /// The kernel's build folder inside the root.
    headers: String,
}

/// PATH inside the root.
const PATH: &str = "/build/bin:/usr/bin:/usr/sbin";

impl Build<'_> {
    fn prepare(&self) -> Result<()> {
        for dir in ["bin", "tmp", "out"] {
            fs_err::create_dir(self.work.join(dir))?;
        }
        // Which awk is `awk` is a choice of update-alternatives, which did not run in the root.
        let root = self.compile.root.join("usr/bin");
        let awk = ["gawk", "mawk", "original-awk"].into_iter().find(|awk| root.join(awk).exists());
        let awk =
            awk.ok_or_else(|| hinted("the module-build root has no awk", "add mawk to its packages"))?;
        fs_err::os::unix::fs::symlink(format!("/usr/bin/{awk}"), self.work.join("bin/awk"))?;
        Ok(())
    }

    fn command(&self, program: &str) -> SandboxCommand {
        let epoch = self.compile.epoch.to_string();
        self.sandbox
            .command(format!("/usr/bin/{program}"))
            .env("PATH", PATH)
            .env("LC_ALL", "C")
            .env("TMPDIR", "/build/tmp")
            .env("KBUILD_BUILD_TIMESTAMP", format!("@{epoch}"))
            .env("SOURCE_DATE_EPOCH", epoch)
            .env("KBUILD_BUILD_USER", "gdsboot")
            .env("KBUILD_BUILD_HOST", "gdsboot")
    }

    fn make(&self) -> Result<SandboxCommand> {
        Ok(self.command("make").args(self.no_debug_info()?))
    }

    /// Variables that keep kbuild from making debug information, and BTF from it.
    fn no_debug_info(&self) -> Result<Vec<&'static str>> {
        let config = self.command("cat").arg(format!("{}/.config", self.headers)).output()?;
        let needed = config.split(|&b| b == b'\n').any(|line| line == b"CONFIG_GENDWARFKSYMS=y");
        Ok(if needed { vec![] } else { vec!["KCFLAGS=-g0", "CONFIG_DEBUG_INFO_BTF_MODULES="] })
    }

    fn source(&self, source: &ModuleSource, log: &mut BuildLog) -> Result<()> {
        let dir = match source.kind {
            Kind::NvidiaOpen => "nvidia",
            Kind::NvidiaFs => "nvidia-fs",
        };
        let inside = format!("/build/{dir}");
        let from = Path::new("/").join(&source.dir);
        self.command("cp").arg("-r").arg(from).arg(&inside).run().context("copying the source")?;
        for patch in &source.patches {
            self.patch(source, &inside, patch)?;
        }
        let compiled = match source.kind {
            Kind::NvidiaOpen => self.nvidia_open(&inside, log),
            Kind::NvidiaFs => self.nvidia_fs(&inside, log),
        };
        log.flush()?;
        interrupt::check()?;
        let modules = match compiled {
            Ok(modules) if !log.has_defects() => modules,
            other => return Err(failure(source, log, other.err())),
        };
        for module in modules {
            let (built, stripped) = (format!("{inside}/{module}.ko"), format!("/build/out/{module}.ko"));
            self.command("strip").args(["-g", "-o", &stripped, &built]).run()?;
        }
        Ok(())
    }

    fn patch(&self, source: &ModuleSource, dir: &str, patch: &Patch) -> Result<()> {
        fs_err::write(self.work.join("tmp/patch"), &patch.bytes)?;
        let apply = self
            .command("patch")
            .args(["-d", dir, "-p1", "--fuzz=0", "--batch", "--no-backup-if-mismatch"])
            .args(["--reject-file=/build/tmp/rejected", "-i", "/build/tmp/patch"]);
        let Err(error) = apply.run() else { return Ok(()) };
        interrupt::check()?;
        let rejected = fs_err::read_to_string(self.work.join("tmp/rejected")).unwrap_or_default();
        let folder = format!("image/patches/{}-{}", source.name, source.version);
        Err(error.context(format!("{} does not apply; rejected:\n{}", patch.name, rejected.trim_end())))
            .hint(format!("mend {folder}/{}, or delete it if the source has the change", patch.name))
    }

    /// nvidia.ko and nvidia-uvm.ko: what computing needs. The display modules and nvidia-peermem are left out.
    fn nvidia_open(&self, dir: &str, log: &mut BuildLog) -> Result<&'static [&'static str]> {
        let core = format!("{dir}/nvidia/nv-kernel.o_binary");
        self.command("strip").args(["-g", &core]).run().context("stripping the driver's prebuilt core")?;
        self.make()?
            .args(["-C", dir, &format!("-j{}", self.compile.jobs), "modules", "ARCH=x86_64"])
            .arg(format!("KERNEL_UNAME={}", self.compile.kernel_release))
            .arg("NV_KERNEL_MODULES=nvidia nvidia-uvm")
            .spawn_lines(|line| log.line(line))?;
        Ok(&["nvidia", "nvidia-uvm"])
    }

    /// nvidia-fs.ko, against the symbols of the nvidia.ko that was just built. Upstream's targets that look for an
    /// installed driver and run configure are declared done.
    fn nvidia_fs(&self, dir: &str, log: &mut BuildLog) -> Result<&'static [&'static str]> {
        let symbols = "nvidia/Module.symvers";
        ensure!(
            self.work.join(symbols).exists(),
            "nvidia-fs is compiled after the GPU driver, which is not there"
        );
        self.configure_nvidia_fs(dir, log)?;
        let release = self.compile.kernel_release;
        self.make()?
            .args(["-C", dir, "module", "-o", "nv_symbols", "-o", "nv_configure"])
            .arg(format!("MAKE_PARAMS=-j{}", self.compile.jobs))
            .arg(format!("KVER={release}"))
            .arg("NVIDIA_SRC_DIR=/build/nvidia/nvidia")
            .arg(format!("KBUILD_EXTRA_SYMBOLS=/build/{symbols}"))
            .spawn_lines(|line| log.line(line))?;
        Ok(&["nvidia-fs"])
    }

    fn configure_nvidia_fs(&self, dir: &str, log: &mut BuildLog) -> Result<()> {
        let programs = self.work.join("configure");
        fs_err::create_dir(&programs)?;
        let make = programs.join("make");
        fs_err::write(&make, CONFIGURE_MAKE)?;
        fs_err::set_permissions(&make, std::fs::Permissions::from_mode(0o755))?;
        self.command("bash")
            .args(["./configure", self.compile.kernel_release])
            .current_dir(dir)
            .env("PATH", format!("/build/configure:{PATH}"))
            .env("KBUILD_PATH", PATH)
            .env("KERNEL_BUILD", &self.headers)
            .env("LEARNED", "/build/configure/command")
            .spawn_lines(|line| log.line(line))?;
        // A compiler that cannot compile anything would have answered every question with "no".
        let words = fs_err::read_to_string(programs.join("command.log")).unwrap_or_default();
        words.lines().for_each(|line| log.line(line));
        ensure!(
            programs.join("command").exists(),
            "kbuild cannot compile an empty module:\n{}",
            words.trim_end()
        );
        Ok(())
    }
}

/// Why a source did not compile, where the whole output is, and where a remedy belongs.
fn failure(source: &ModuleSource, log: &BuildLog, error: Option<anyhow::Error>) -> anyhow::Error {
    let complaints = log.complaints();
    let said = match error {
        Some(error) if complaints.is_empty() => format!("{error:#}"),
        _ => complaints.join("\n"),
    };
    hinted(
        format!("{said}\n(log: {})", log.path().display()),
        format!(
            "a patch that mends the source belongs into image/patches/{}-{}/",
            source.name, source.version
        ),
    )
}

#[cfg(test)]
mod tests;
