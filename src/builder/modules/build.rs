//! The steps from a source to stripped modules: copy, patch, kbuild, strip.

use super::build_log::BuildLog;
use super::{Compile, Kind, ModuleSource, Patch};
use crate::builder::sandbox::{Sandbox, SandboxCommand};
use crate::error::{Advise as _, hinted};
use crate::interrupt;
use anyhow::{Context as _, Result, ensure};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Stands in for `make` while nvidia-fs's configure runs.
pub(super) const CONFIGURE_MAKE: &str = include_str!("configure-make.sh");

/// Stands before the compiler, so that one that cannot work is noticed by those who ask it questions.
pub(super) const COMPILER: &str = include_str!("compiler.sh");

/// A compilation under way. Its folders, under the work folder on the host and under /build inside: `bin` (programs
/// that stand in for others), `tmp`, `out`, and one for each source.
pub(super) struct Build<'a> {
    pub(super) compile: Compile<'a>,
    pub(super) work: &'a Path,
    pub(super) sandbox: Sandbox,
    /// The kernel's build folder inside the root.
    pub(super) headers: String,
    /// Its `.config`.
    pub(super) kernel_config: String,
}

/// Under the work folder; taken away by [`COMPILER`] when the compiler cannot work.
const COMPILER_WORKS: &str = "compiler-works";

/// PATH inside the root.
const PATH: &str = "/build/bin:/usr/bin:/usr/sbin";

impl Build<'_> {
    pub(super) fn prepare(&self) -> Result<()> {
        for dir in ["bin", "tmp", "out"] {
            fs_err::create_dir(self.work.join(dir))?;
        }
        // Which awk is `awk` is a choice of update-alternatives, which did not run in the root.
        let root = self.compile.root.join("usr/bin");
        let awk = ["gawk", "mawk", "original-awk"].into_iter().find(|awk| root.join(awk).exists());
        let awk =
            awk.ok_or_else(|| hinted("the module-build root has no awk", "add mawk to its packages"))?;
        fs_err::os::unix::fs::symlink(format!("/usr/bin/{awk}"), self.work.join("bin/awk"))?;
        let compiler = self.compiler()?;
        if !root.join(&compiler).exists() {
            return Err(hinted(
                format!("the module-build root has no {compiler}, with which the kernel was compiled"),
                "the kernel's headers package depends on it; do not leave it out",
            ));
        }
        self.program(&format!("bin/{compiler}"), COMPILER)?;
        fs_err::write(self.work.join(COMPILER_WORKS), "")?;
        Ok(())
    }

    /// A script that the build can run, at a path under the work folder.
    fn program(&self, path: &str, script: &str) -> Result<()> {
        let path = self.work.join(path);
        fs_err::write(&path, script)?;
        Ok(fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?)
    }

    /// The compiler that kbuild and the driver's Makefile take: the one with which the kernel was compiled.
    fn compiler(&self) -> Result<String> {
        let config = &self.kernel_config;
        let (_, text) =
            config.split_once("\nCONFIG_CC_VERSION_TEXT=\"").context("the kernel names no compiler")?;
        let name = text.split([' ', '"']).next().unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || "+-._".contains(c);
        ensure!(
            !name.is_empty() && name.chars().all(plain),
            "the kernel's compiler {name:?} is not a program's name"
        );
        Ok(name.to_owned())
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

    /// kbuild without debug information, and without BTF that would be made from it. Where the kernel computes symbol
    /// versions from debug information, it has to stay.
    fn make(&self) -> SandboxCommand {
        let needed = self.kernel_config.contains("\nCONFIG_GENDWARFKSYMS=y\n");
        let without: &[&str] = if needed { &[] } else { &["KCFLAGS=-g0", "CONFIG_DEBUG_INFO_BTF_MODULES="] };
        self.command("make").args(without)
    }

    pub(super) fn source(&self, source: &ModuleSource, log: &mut BuildLog) -> Result<()> {
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
        if log.host_failed() || !self.work.join(COMPILER_WORKS).exists() {
            return Err(host_failure(log));
        }
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
        self.make()
            .args(["-C", dir, &format!("-j{}", self.compile.jobs.max(1)), "modules", "ARCH=x86_64"])
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
        self.make()
            .args(["-C", dir, "module", "-o", "nv_symbols", "-o", "nv_configure"])
            .arg(format!("MAKE_PARAMS=-j{}", self.compile.jobs.max(1)))
            .arg(format!("KVER={release}"))
            .arg("NVIDIA_SRC_DIR=/build/nvidia/nvidia")
            .arg(format!("KBUILD_EXTRA_SYMBOLS=/build/{symbols}"))
            .spawn_lines(|line| log.line(line))?;
        Ok(&["nvidia-fs"])
    }

    fn configure_nvidia_fs(&self, dir: &str, log: &mut BuildLog) -> Result<()> {
        let programs = self.work.join("configure");
        fs_err::create_dir(&programs)?;
        self.program("configure/make", CONFIGURE_MAKE)?;
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
pub(super) fn failure(source: &ModuleSource, log: &BuildLog, error: Option<anyhow::Error>) -> anyhow::Error {
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

/// The compiler was stopped by something that no patch mends.
fn host_failure(log: &BuildLog) -> anyhow::Error {
    let said = match log.complaints() {
        said if log.host_failed() => said.join("\n"),
        _ => "the compiler could not work".to_owned(),
    };
    hinted(
        format!("{said}\n(log: {})", log.path().display()),
        "this host ran out of disk or memory while compiling; free some, and run the same command again",
    )
}
