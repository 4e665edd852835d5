use super::build::failure;
use super::*;
use crate::error::hint_of;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

fn source() -> ModuleSource {
    ModuleSource {
        kind: Kind::NvidiaOpen,
        name: "nvidia-open-gpu-kernel-modules".into(),
        version: "550.163.01".into(),
        dir: "usr/src/nvidia-current-open-550.163.01".into(),
        patches: vec![Patch { name: "01-a.patch".into(), bytes: b"diff".to_vec() }],
    }
}

#[test]
fn a_folder_without_modules_is_not_taken_for_a_result() {
    let dir = tempfile::tempdir().unwrap();
    assert!(load(dir.path()).unwrap_err().to_string().ends_with("holds no kernel modules"));
    fs_err::write(dir.path().join("nvidia.ko"), "truncated").unwrap();
    let error = format!("{:#}", load(dir.path()).unwrap_err());
    assert!(
        error.starts_with("reading the kernel module ") && error.contains("nvidia.ko: too short"),
        "{error}"
    );
}

fn compile<'a>(dir: &'a Path, sources: &'a [ModuleSource], output: &'a Path) -> Compile<'a> {
    Compile { root: dir, kernel_release: "6.12.1-test", sources, epoch: 1, jobs: 1, output, logs: dir }
}

#[test]
fn headers_of_another_kernel_are_refused_before_any_work() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("modules/key");
    let error = compile(dir.path(), &[], &output).run(&Progress::none()).unwrap_err();
    assert_eq!(error.to_string(), "the module-build root has no headers of Linux 6.12.1-test");
    assert!(hint_of(&error).unwrap().contains("linux-headers-6.12.1-test"));
    assert!(!dir.path().join("modules").exists());
    let error =
        Compile { kernel_release: "../../etc", ..compile(dir.path(), &[], &output) }.headers().unwrap_err();
    assert_eq!(error.to_string(), "\"../../etc\" is not a kernel release");
}

#[test]
fn a_failure_names_the_errors_the_log_and_where_a_patch_belongs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nvidia.log");
    let mut log = BuildLog::create(&path, Progress::none().stage("test", 0, Unit::Steps)).unwrap();
    let error = failure(&source(), &log, Some(anyhow::anyhow!("`make` failed (exit status: 2)")));
    assert_eq!(error.to_string(), format!("`make` failed (exit status: 2)\n(log: {})", path.display()));
    log.line("/build/nvidia/nv-pci.c:237:9: error: too few arguments to function 'pci_resize_resource'");
    log.line("make: *** [Makefile:140: modules] Error 2");
    let error = failure(&source(), &log, Some(anyhow::anyhow!("`make` failed (exit status: 2)")));
    assert!(
        error.to_string().starts_with("/build/nvidia/nv-pci.c:237:9: error: too few arguments"),
        "{error}"
    );
    let hint = hint_of(&error).unwrap();
    assert!(hint.ends_with("image/patches/nvidia-open-gpu-kernel-modules-550.163.01/"), "{hint}");
}

/// configure-make.sh between a kbuild, a compiler and an nm that are scripts of three lines.
struct Questions {
    dir: tempfile::TempDir,
}

impl Questions {
    fn new(kbuild: &str) -> Self {
        let questions = Self { dir: tempfile::tempdir().unwrap() };
        questions.script("bin/make", CONFIGURE_MAKE.strip_prefix("#!/bin/sh\n").unwrap());
        questions.script("kbuild/make", kbuild);
        // "Compiles" what does not say `bad`, unless -Werror is given.
        let calls = questions.path("calls").display().to_string();
        let cc = format!(
            "echo \"$@\" >>'{calls}'\n! grep -q bad \"$2\" && [ \"$3\" != -Werror ] && cp \"$2\" \"$1\""
        );
        questions.script("kbuild/cc", &cc);
        questions.script("kbuild/nm", "sed -n 's/^uses /    U /p' \"$2\"");
        questions.write("headers/Module.symvers", "0x1\tprintk\tvmlinux\tEXPORT_SYMBOL\t\n");
        questions.write("build/.test.o.cmd", "");
        questions
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.path(file);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    }

    fn script(&self, file: &str, text: &str) {
        self.write(file, &format!("#!/bin/sh\n{text}\n"));
        fs_err::set_permissions(self.path(file), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn ask(&self, program: &str, arguments: &[&str]) -> Output {
        self.write("build/test.c", program);
        let (bin, kbuild) = (self.path("bin"), self.path("kbuild"));
        Command::new(bin.join("make"))
            .args(arguments)
            .current_dir(self.path("build"))
            .env("PATH", format!("{}:{}:/usr/bin:/bin", bin.display(), kbuild.display()))
            .env("KBUILD_PATH", format!("{}:/usr/bin:/bin", kbuild.display()))
            .env("KERNEL_BUILD", self.path("headers"))
            .env("LEARNED", self.path("command"))
            .output()
            .unwrap()
    }

    fn answer(&self, program: &str, arguments: &[&str]) -> bool {
        self.ask(program, arguments).status.success()
    }
}

/// What kbuild leaves behind, with its escapes and objtool's part.
const KBUILD: &str = r#"echo learned >>learned
printf '%s\n' "savedcmd_$PWD/test.o := cc $PWD/test.o $PWD/test.c   ; ./tools/objtool/objtool test.o" '' 'deps :=' >.test.o.cmd"#;

/// Since 6.13 kbuild compiles in the module's folder.
const KBUILD_IN_MODULE_FOLDER: &str =
    r"echo learned >>learned; echo 'savedcmd_test.o := cc test.o test.c' >.test.o.cmd";

#[test]
fn questions_are_answered_by_one_compiler_run_each() {
    for kbuild in [KBUILD, KBUILD_IN_MODULE_FOLDER] {
        let questions = Questions::new(kbuild);
        assert!(questions.answer("good\n", &[]));
        assert!(!questions.answer("bad\n", &[]));
        assert!(questions.answer("uses printk\n", &[]), "an exported symbol may be used");
        assert!(!questions.answer("uses printk_secretly\n", &[]), "one that is not exported may not");
        assert!(!questions.answer("good\n", &["KCFLAGS=-Werror"]));
        assert!(questions.answer("", &["clean"]));
        assert!(!questions.path("build/test.o").exists());
        let lines = |file: &str| fs_err::read_to_string(questions.path(file)).unwrap().lines().count();
        // The empty module, and five questions.
        assert_eq!((lines("build/learned"), lines("calls")), (1, 6));
    }
}

#[test]
fn a_compiler_that_compiles_nothing_leaves_no_command_behind() {
    let questions = Questions::new(KBUILD);
    questions.script("kbuild/cc", "true");
    assert!(!questions.answer("good\n", &[]));
    assert!(!questions.path("command").exists());
}

#[test]
fn what_kbuild_escaped_for_make_is_plain_again() {
    let questions = Questions::new(
        r#"printf '%s\n' "cmd_x := NAME='\"te\#st\"' OTHER='\$\$5' cc $PWD/test.o $PWD/test.c" >.test.o.cmd"#,
    );
    assert!(questions.answer("good\n", &[]));
    let command = fs_err::read_to_string(questions.path("command")).unwrap();
    assert!(command.starts_with("NAME='\"te#st\"' OTHER='$5' cc "), "{command}");
}

#[test]
fn a_kbuild_that_fails_leaves_no_command_behind() {
    let questions = Questions::new("echo no compiler; exit 2");
    assert!(!questions.answer("good\n", &[]));
    assert!(!questions.path("command").exists());
    assert_eq!(fs_err::read_to_string(questions.path("command.log")).unwrap(), "no compiler\n");
}

#[test]
fn an_argument_that_configure_never_used_is_refused() {
    let output = Questions::new(KBUILD).ask("good\n", &["install"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("make for install"));
}

/// compiler.sh before a compiler that is a script: its exit status, its words, and whether it counts as working.
fn compile_with(compiler: &str) -> (Option<i32>, String, String, bool) {
    let dir = tempfile::tempdir().unwrap();
    let script = |file: &str, text: &str| {
        fs_err::write(dir.path().join(file), text).unwrap();
        fs_err::set_permissions(dir.path().join(file), std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    for folder in ["real", "before"] {
        fs_err::create_dir(dir.path().join(folder)).unwrap();
    }
    script("real/gcc-14", &format!("#!/bin/sh\n{compiler}\n"));
    let before = COMPILER.replace("/usr/bin/", &format!("{}/real/", dir.path().display()));
    script("before/gcc-14", &before.replace("/build/", &format!("{}/", dir.path().display())));
    fs_err::write(dir.path().join("compiler-works"), "").unwrap();
    let output = Command::new(dir.path().join("before/gcc-14")).args(["-c", "a b.c"]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
        dir.path().join("compiler-works").exists(),
    )
}

#[test]
fn the_compiler_is_passed_through() {
    let (status, out, err, works) = compile_with("echo \"$#:$2\"; echo 'a.c:1: warning: x' >&2");
    assert_eq!(
        (status, out.as_str(), err.as_str(), works),
        (Some(0), "2:a b.c\n", "a.c:1: warning: x\n", true)
    );
    let (status, _, _, works) =
        compile_with("echo 'a.c:1: fatal error: linux/x.h: No such file or directory' >&2; exit 1");
    assert_eq!((status, works), (Some(1), true), "a header that is not there is an answer");
}

#[test]
fn a_compiler_that_was_stopped_does_not_count_as_an_answer() {
    for words in [
        "gcc: fatal error: Killed signal terminated program cc1",
        "a.c:1:1: internal compiler error: Segmentation fault",
        "a.c: fatal error: error writing to /build/tmp/x.s: No space left on device",
        "cc1: out of memory allocating 65536 bytes: Cannot allocate memory",
        "gcc: fatal error: cannot execute 'cc1': execvp: No such file or directory",
    ] {
        let (status, _, err, works) = compile_with(&format!("echo \"{words}\" >&2; exit 1"));
        assert_eq!((status, err, works), (Some(1), format!("{words}\n"), false));
    }
}
