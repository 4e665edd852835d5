//! What kbuild prints: the steps that it takes, the errors, and the warnings that it should have failed for.

use crate::progress::Stage;
use anyhow::{Context as _, Result};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Of a failure, as many lines stand in the error; the log has all.
const SHOWN_LINES: usize = 5;

/// Copies lines to a log file, counts steps on a stage, and remembers what is wrong.
#[derive(Debug)]
pub(super) struct BuildLog {
    path: PathBuf,
    file: std::io::BufWriter<fs_err::File>,
    stage: Stage,
    failed_write: Option<std::io::Error>,
    /// The first errors, in the order in which they came.
    errors: Vec<String>,
    /// Words of a host that has no disk or memory left.
    host_failures: Vec<String>,
    /// Warnings of modpost about a module that would build and not load.
    defects: Vec<String>,
}

impl BuildLog {
    pub(super) fn create(path: &Path, stage: Stage) -> Result<Self> {
        if let Some(dir) = path.parent() {
            fs_err::create_dir_all(dir)?;
        }
        let file = std::io::BufWriter::new(fs_err::File::create(path)?);
        let path = path.to_owned();
        let (errors, host_failures, defects) = Default::default();
        Ok(Self { path, file, stage, failed_write: None, errors, host_failures, defects })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn line(&mut self, line: &str) {
        if let Err(e) = writeln!(self.file, "{line}") {
            self.failed_write.get_or_insert(e);
        }
        match Step::of(line) {
            Some(Step::Counted(what)) => {
                self.stage.message(what);
                self.stage.advance(1);
            }
            Some(Step::Told(what)) => self.stage.message(what),
            None => {}
        }
        let list = if is_host_failure(line) {
            &mut self.host_failures
        } else if is_defect(line) {
            &mut self.defects
        } else if is_error(line) {
            &mut self.errors
        } else {
            return;
        };
        if list.len() < SHOWN_LINES {
            list.push(line.trim().to_owned());
        }
    }

    /// The lines that say why the build failed, or ought to have failed.
    pub(super) fn complaints(&self) -> Vec<&str> {
        self.host_failures
            .iter()
            .chain(&self.defects)
            .chain(&self.errors)
            .take(SHOWN_LINES)
            .map(String::as_str)
            .collect()
    }

    pub(super) fn has_defects(&self) -> bool {
        !self.defects.is_empty()
    }

    pub(super) fn host_failed(&self) -> bool {
        !self.host_failures.is_empty()
    }

    /// Writes what is left. A log that could not be written fails the build, because the disk is full or gone.
    pub(super) fn flush(&mut self) -> Result<()> {
        let failed = self.failed_write.take().map_or_else(|| self.file.flush(), Err);
        failed.with_context(|| format!("writing {}", self.path.display()))
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// One of those that [`super::Kind::expected_steps`] counted.
    Counted(String),
    Told(String),
}

impl Step {
    fn of(line: &str) -> Option<Self> {
        let line = line.trim_start();
        if let Some(question) = line.strip_prefix("CONFTEST: ") {
            return Some(Self::Counted(format!("asking the kernel headers: {question}")));
        }
        if line.starts_with("Checking if ") || line.starts_with("checking if ") {
            let question = line.split("...").next().unwrap_or(line).trim_end();
            return Some(Self::Counted(question.replacen('C', "c", 1)));
        }
        let (verb, object) = line.split_once(" [M]").or_else(|| line.split_once(' '))?;
        let object = object.trim_start().rsplit('/').next()?;
        match verb {
            "CC" if object.ends_with(".mod.o") || object.starts_with('.') => None,
            "CC" => Some(Self::Counted(format!("compiling {}", object.replace(".o", ".c")))),
            "LD" => Some(Self::Told(format!("linking {object}"))),
            "MODPOST" => Some(Self::Told("resolving symbols".to_owned())),
            _ => None,
        }
    }
}

/// A full disk makes a conftest answer "no" and go on: whatever comes of it is not to be trusted.
fn is_host_failure(line: &str) -> bool {
    // The shell's echo has its own words for a write that failed.
    ["No space left on device", "echo: I/O error", "Cannot allocate memory", "Read-only file system"]
        .iter()
        .any(|words| line.contains(words))
}

fn is_error(line: &str) -> bool {
    line.contains("error: ") || line.contains("ERROR: ") || line.contains("undefined reference to")
}

/// Does modpost warn of something for which the kernel will refuse the module? (`scripts/mod/modpost.c`; with
/// KBUILD_MODPOST_WARN, which nvidia-fs sets, a symbol that nobody defines is only a warning.)
fn is_defect(line: &str) -> bool {
    let modpost = line.contains("modpost: ") || line.starts_with("WARNING: \"");
    // A kernel without Module.symvers, symbols that nobody defines, that have no version, or may not be used.
    let refused = [
        "undefined!",
        "version generation failed",
        "has no CRC",
        "Symbol version dump",
        "but does not import it",
        "uses GPL-only symbol",
        "missing MODULE_LICENSE",
    ];
    (modpost && refused.iter().any(|r| line.contains(r))) || line.contains("Module.symvers\" is missing")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::{Progress, Unit};

    fn counted(what: &str) -> Option<Step> {
        Some(Step::Counted(what.to_owned()))
    }

    #[test]
    fn steps_are_recognised() {
        let cases = [
            (" CONFTEST: vm_fault_t", counted("asking the kernel headers: vm_fault_t")),
            (" CONFTEST types.h:", None),
            ("  CC [M]  /build/nvidia/nvidia/nv-pci.o", counted("compiling nv-pci.c")),
            ("  CC [M]  /build/nvidia/nvidia-uvm.mod.o", None),
            ("  CC [M]  /build/nvidia-fs/.module-common.o", None),
            ("  LD [M]  /build/nvidia/nvidia.ko", Some(Step::Told("linking nvidia.ko".into()))),
            ("  MODPOST /build/nvidia/Module.symvers", Some(Step::Told("resolving symbols".into()))),
            (
                "Checking if vm_fault_t exist in mm_types.h...  no",
                counted("checking if vm_fault_t exist in mm_types.h"),
            ),
            ("make: Entering directory '/build/nvidia'", None),
            ("", None),
        ];
        for (line, step) in cases {
            assert_eq!(Step::of(line), step, "{line}");
        }
    }

    #[test]
    fn modules_that_would_not_load_are_defects() {
        for line in [
            "WARNING: modpost: \"nvidia_p2p_get_pages\" [/build/nvidia-fs/nvidia-fs.ko] undefined!",
            "ERROR: modpost: \"nvidia_p2p_get_pages\" [/build/nvidia-fs/nvidia-fs.ko] undefined!",
            "WARNING: \"nvidia_p2p_get_pages\" [/build/nvidia-fs/nvidia-fs.ko] undefined!",
            "WARNING: modpost: EXPORT symbol \"x\" [nvidia.ko] version generation failed, symbol will not be versioned.",
            "WARNING: modpost: module nvidia uses symbol dma_buf_get from namespace DMA_BUF, but does not import it.",
            "ERROR: modpost: GPL-incompatible module x.ko uses GPL-only symbol 'y'",
            "WARNING: Symbol version dump \"Module.symvers\" is missing.",
        ] {
            assert!(is_defect(line), "{line}");
        }
        for line in [
            "WARNING: modpost: nvidia: section mismatch in reference: a (section: .text) -> b (section: .init.text)",
            "nv.c:1: warning: \"BITS_TO_BYTES\" redefined",
            "#undef NV_UNDEFINED",
        ] {
            assert!(!is_defect(line), "{line}");
        }
    }

    #[test]
    fn a_full_disk_is_noticed_where_a_conftest_would_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut log =
            BuildLog::create(&dir.path().join("log"), Progress::none().stage("test", 0, Unit::Steps))
                .unwrap();
        log.line(" CONFTEST: mempolicy_has_unified_nodes");
        assert!(!log.host_failed());
        log.line("/build/nvidia/conftest.sh: 279: echo: echo: I/O error");
        log.line("mkdir: cannot create directory '/build/nvidia/.tmp_8729': No space left on device");
        assert!(log.host_failed());
        assert_eq!(log.complaints().len(), 2);
    }

    #[test]
    fn the_log_has_every_line_and_the_error_the_first_few() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/nvidia.log");
        let stage = Progress::none().stage("test", 0, Unit::Steps);
        let mut log = BuildLog::create(&path, stage).unwrap();
        let lines: Vec<_> = (0..9).map(|i| format!("nv.c:{i}: error: number {i}")).collect();
        lines.iter().for_each(|l| log.line(l));
        log.line("WARNING: modpost: \"x\" [y.ko] undefined!");
        log.flush().unwrap();
        assert!(log.has_defects());
        assert_eq!(log.complaints().len(), SHOWN_LINES);
        assert!(log.complaints()[0].ends_with("undefined!"));
        assert_eq!(log.complaints()[1], "nv.c:0: error: number 0");
        assert_eq!(fs_err::read_to_string(&path).unwrap().lines().count(), 10);
    }
}
