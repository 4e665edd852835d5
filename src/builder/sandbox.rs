//! Running programs inside an unpacked root: a compiler, squashfs tools, GRUB's tools, QEMU.
//!
//! The program sees the root and the folders that were bound into it, a `/proc` of its own, the harmless device nodes
//! and no network. A plain user gets a user namespace in which he is root (one uid is mapped, nothing setuid is needed);
//! root gets a mount namespace and a chroot. Where user namespaces are blocked, the error names the switch that blocks
//! them (Ubuntu 24.04: AppArmor's `kernel.apparmor_restrict_unprivileged_userns`).
//!
//! Everything a sandboxed program starts dies with it, and it dies with gdsboot: it is PID 1 of a PID namespace, and its
//! parent's death is its own (`PR_SET_PDEATHSIG`).

use crate::error::{Advise as _, hinted};
use crate::interrupt;
use crate::pasteable::pasteable;
use anyhow::{Context as _, Result};
use std::ffi::{CString, OsStr, OsString};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::Duration;

/// A root directory in which programs run.
#[derive(Clone, Debug)]
pub struct Sandbox {
    root: PathBuf,
    binds: Vec<Bind>,
    user_namespace: bool,
}

#[derive(Clone, Debug)]
struct Bind {
    host: PathBuf,
    inside: PathBuf,
    writable: bool,
}

/// Device nodes that every sandbox sees.
const DEVICES: [&str; 5] = ["dev/null", "dev/zero", "dev/full", "dev/random", "dev/urandom"];

impl Sandbox {
    /// A sandbox over the unpacked tree at `root`.
    ///
    /// # Errors
    /// When neither a mount namespace (as root) nor a user namespace can be made; the hint names what forbids it.
    pub fn new(root: &Path) -> Result<Self> {
        let root = fs_err::canonicalize(root).context("entering a sandbox")?;
        Ok(Self { root, binds: Vec::new(), user_namespace: needs_user_namespace()? })
    }

    /// Shows `host` (a file or a folder) at the absolute path `inside`.
    #[must_use]
    pub fn bind(mut self, host: &Path, inside: impl AsRef<Path>, writable: bool) -> Self {
        self.binds.push(Bind {
            host: host.to_owned(),
            inside: inside.as_ref().strip_prefix("/").unwrap_or(inside.as_ref()).to_owned(),
            writable,
        });
        self
    }

    /// A program by its absolute path inside the root.
    pub fn command(&self, program: impl AsRef<OsStr>) -> SandboxCommand {
        SandboxCommand {
            sandbox: self.clone(),
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: vec![
                ("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into()),
                ("HOME".into(), "/".into()),
                ("LC_ALL".into(), "C.UTF-8".into()),
                ("TZ".into(), "UTC".into()),
            ],
            directory: PathBuf::from("/"),
            stdin: Stdio::null(),
            network: false,
        }
    }

    /// Makes the mount points; they are part of the root from then on.
    fn prepare(&self) -> Result<()> {
        for dir in ["proc", "dev", "tmp"] {
            fs_err::create_dir_all(self.root.join(dir))?;
        }
        for device in DEVICES {
            mount_point(&self.root, Path::new(device), false)?;
        }
        for bind in &self.binds {
            let is_dir = fs_err::metadata(&bind.host).context("binding into a sandbox")?.is_dir();
            mount_point(&self.root, &bind.inside, is_dir)?;
        }
        Ok(())
    }

    /// The mounts in order: source, target, read-only.
    fn mounts(&self) -> Result<Vec<Mount>> {
        let devices = DEVICES.iter().map(|device| (Path::new("/").join(device), PathBuf::from(device), true));
        let binds = self.binds.iter().map(|b| (b.host.clone(), b.inside.clone(), b.writable));
        devices
            .chain(binds)
            .map(|(host, inside, writable)| {
                Ok(Mount { source: c_string(&host)?, target: c_string(&self.root.join(inside))?, writable })
            })
            .collect()
    }
}

#[derive(Debug)]
struct Mount {
    source: CString,
    target: CString,
    writable: bool,
}

/// Creates an empty file or folder to mount over. Refuses to go through a symbolic link, which could lead out of the
/// root.
fn mount_point(root: &Path, inside: &Path, is_dir: bool) -> Result<()> {
    let mut path = root.to_owned();
    let parts: Vec<_> = inside.components().collect();
    for (i, part) in parts.iter().enumerate() {
        let std::path::Component::Normal(name) = part else {
            anyhow::bail!("mount point {} is not a plain path", inside.display());
        };
        path.push(name);
        let last = i + 1 == parts.len();
        match fs_err::symlink_metadata(&path) {
            Ok(meta) if meta.is_symlink() => {
                anyhow::bail!("mount point {} goes through a symbolic link", path.display())
            }
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let made = if last && !is_dir {
                    fs_err::OpenOptions::new().create(true).append(true).open(&path).map(drop)
                } else {
                    fs_err::create_dir(&path)
                };
                match made {
                    Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                    other => other?,
                }
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// A program to be run in a [`Sandbox`]. The environment is cleared but for `PATH`, `HOME=/`, `LC_ALL=C.UTF-8`,
/// `TZ=UTC`.
#[derive(Debug)]
pub struct SandboxCommand {
    sandbox: Sandbox,
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    directory: PathBuf,
    stdin: Stdio,
    network: bool,
}

/// Of a failed program's output, the last part is shown.
const TAIL_LINES: usize = 20;

impl SandboxCommand {
    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        let key = key.as_ref().to_owned();
        self.env.retain(|(k, _)| *k != key);
        self.env.push((key, value.as_ref().to_owned()));
        self
    }

    /// The working directory, as the program sees it.
    #[must_use]
    pub fn current_dir(mut self, inside: impl AsRef<Path>) -> Self {
        self.directory = inside.as_ref().to_owned();
        self
    }

    /// What the program reads; nothing by default.
    #[must_use]
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.stdin = stdin.into();
        self
    }

    /// Leaves the host's network visible (loopback sockets between QEMU and gdsboot).
    #[must_use]
    pub fn with_network(mut self) -> Self {
        self.network = true;
        self
    }

    /// The command as it can be pasted into a shell inside the root.
    pub fn display(&self) -> String {
        pasteable(std::iter::once(&self.program).chain(&self.args))
    }

    /// Runs to the end; the output's last lines are in the error.
    pub fn run(self) -> Result<()> {
        self.spawn_lines(|_| {})
    }

    /// Runs to the end and hands every line of standard output and standard error to `on_line` as it comes.
    pub fn spawn_lines(self, mut on_line: impl FnMut(&str)) -> Result<()> {
        let display = self.display();
        let (reader, writer) = std::io::pipe().context("making a pipe")?;
        let mut child = self.spawn(writer.try_clone()?, writer)?;
        let lines = lines_of(reader);
        let mut tail = std::collections::VecDeque::new();
        loop {
            match lines.recv_timeout(Duration::from_millis(100)) {
                Ok(line) => {
                    on_line(&line);
                    if tail.len() == TAIL_LINES {
                        tail.pop_front();
                    }
                    tail.push_back(line);
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
            if interrupt::requested() {
                child.kill().ok();
                child.wait().ok();
                interrupt::check()?;
            }
        }
        let status = child.wait().with_context(|| format!("waiting for {display}"))?;
        if status.success() {
            return Ok(());
        }
        let tail: Vec<_> = tail.into();
        anyhow::bail!("`{display}` failed ({status}):\n{}", tail.join("\n"))
    }

    /// Runs to the end and returns standard output; standard error's last lines are in the error.
    pub fn output(self) -> Result<Vec<u8>> {
        let display = self.display();
        let (out_reader, out_writer) = std::io::pipe().context("making a pipe")?;
        let (err_reader, err_writer) = std::io::pipe().context("making a pipe")?;
        let mut child = self.spawn(out_writer, err_writer)?;
        let errors = std::thread::spawn(move || {
            let mut text = Vec::new();
            BufReader::new(err_reader).read_to_end(&mut text).map(|_| text)
        });
        let mut output = Vec::new();
        BufReader::new(out_reader)
            .read_to_end(&mut output)
            .with_context(|| format!("reading from {display}"))?;
        let status = child.wait().with_context(|| format!("waiting for {display}"))?;
        if status.success() {
            return Ok(output);
        }
        let errors = errors.join().ok().and_then(Result::ok).unwrap_or_default();
        anyhow::bail!("`{display}` failed ({status}):\n{}", tail_of(&String::from_utf8_lossy(&errors)))
    }

    /// Starts the program. Killing the child kills everything that it started.
    pub fn spawn(self, stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Result<Child> {
        self.sandbox.prepare()?;
        let display = self.display();
        let plan = Plan {
            mounts: self.sandbox.mounts()?,
            proc_target: c_string(&self.sandbox.root.join("proc"))?,
            root: c_string(&self.sandbox.root)?,
            directory: c_string(&self.directory)?,
            user_namespace: self.sandbox.user_namespace,
            network: self.network,
            uid_map: format!("0 {} 1\n", nix::unistd::geteuid()),
            gid_map: format!("0 {} 1\n", nix::unistd::getegid()),
        };
        let (mut step_reader, step_writer) = std::io::pipe().context("making a pipe")?;
        let step_fd = step_writer.as_raw_fd();
        let mut command = Command::new(&self.program);
        command.args(&self.args).env_clear().envs(self.env).stdin(self.stdin).stdout(stdout).stderr(stderr);
        // A group of its own: the terminal's Ctrl-C reaches gdsboot alone, which then ends the program in order.
        command.process_group(0);
        #[allow(unsafe_code, reason = "namespaces are entered between fork and exec")]
        // SAFETY: the closure only makes system calls on memory that was allocated before the fork.
        unsafe {
            command.pre_exec(move || plan.enter(step_fd));
        }
        let spawned = command.spawn();
        drop(step_writer);
        spawned.map_err(|error| {
            let mut steps = Vec::new();
            step_reader.read_to_end(&mut steps).ok();
            let step = steps.last().and_then(|&s| Step::name(s)).unwrap_or("starting the program");
            anyhow::Error::from(error)
                .context(format!("{step} for `{display}` in {}", self.sandbox.root.display()))
        })
    }
}

fn lines_of(reader: std::io::PipeReader) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
            if sender.send(text).is_err() {
                return;
            }
            line.clear();
        }
    });
    receiver
}

fn tail_of(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

fn c_string(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).with_context(|| format!("{} holds a NUL byte", path.display()))
}

/// What the child does between fork and exec; each step is announced on a pipe, so that an errno has a place.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Step {
    Unshare = 1,
    MapUser,
    Fork,
    Private,
    Bind,
    Proc,
    Chroot,
    Exec,
}

impl Step {
    fn name(byte: u8) -> Option<&'static str> {
        Some(match byte {
            b if b == Self::Unshare as u8 => "making namespaces",
            b if b == Self::MapUser as u8 => "mapping the user into a user namespace",
            b if b == Self::Fork as u8 => "forking into a PID namespace",
            b if b == Self::Private as u8 => "making mounts private",
            b if b == Self::Bind as u8 => "mounting into the sandbox",
            b if b == Self::Proc as u8 => "mounting /proc in the sandbox",
            b if b == Self::Chroot as u8 => "entering the root",
            b if b == Self::Exec as u8 => "executing",
            _ => return None,
        })
    }
}

#[derive(Debug)]
struct Plan {
    mounts: Vec<Mount>,
    proc_target: CString,
    root: CString,
    directory: CString,
    user_namespace: bool,
    network: bool,
    uid_map: String,
    gid_map: String,
}

#[allow(unsafe_code, reason = "system calls between fork and exec")]
impl Plan {
    fn enter(&self, step_fd: i32) -> std::io::Result<()> {
        let step = |step: Step| {
            let byte = [step as u8];
            // SAFETY: one byte from a live buffer to a descriptor that the parent keeps open until spawn returns.
            unsafe { libc::write(step_fd, byte.as_ptr().cast(), 1) };
        };
        step(Step::Unshare);
        die_with_parent()?;
        let mut flags = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC;
        if self.user_namespace {
            flags |= libc::CLONE_NEWUSER;
        }
        if !self.network {
            flags |= libc::CLONE_NEWNET;
        }
        // SAFETY: plain flags.
        check(unsafe { libc::unshare(flags) })?;
        if self.user_namespace {
            step(Step::MapUser);
            write_file(c"/proc/self/setgroups", b"deny")?;
            write_file(c"/proc/self/uid_map", self.uid_map.as_bytes())?;
            write_file(c"/proc/self/gid_map", self.gid_map.as_bytes())?;
        }
        step(Step::Fork);
        // SAFETY: the child of the fork goes on to exec; the parent only waits and exits.
        let pid = unsafe { libc::fork() };
        check(pid)?;
        if pid > 0 {
            wait_and_exit(pid);
        }
        die_with_parent()?;
        step(Step::Private);
        // SAFETY: pointers are null or NUL-terminated strings that outlive the call.
        check(unsafe {
            libc::mount(
                std::ptr::null(),
                c"/".as_ptr(),
                std::ptr::null(),
                libc::MS_REC | libc::MS_PRIVATE,
                std::ptr::null(),
            )
        })?;
        step(Step::Bind);
        for mount in &self.mounts {
            mount.bind()?;
        }
        step(Step::Proc);
        self.mount_proc()?;
        step(Step::Chroot);
        // SAFETY: NUL-terminated strings that outlive the calls.
        unsafe {
            check(libc::chroot(self.root.as_ptr()))?;
            check(libc::chdir(self.directory.as_ptr()))?;
        }
        step(Step::Exec);
        Ok(())
    }

    /// A fresh /proc; inside containers with a masked /proc the kernel refuses one, then the old one is shown.
    fn mount_proc(&self) -> std::io::Result<()> {
        let target = self.proc_target.as_ptr();
        // SAFETY: NUL-terminated strings that outlive the calls.
        unsafe {
            if libc::mount(c"proc".as_ptr(), target, c"proc".as_ptr(), 0, std::ptr::null()) == 0 {
                return Ok(());
            }
            let flags = libc::MS_BIND | libc::MS_REC;
            check(libc::mount(c"/proc".as_ptr(), target, std::ptr::null(), flags, std::ptr::null()))
        }
    }
}

#[allow(unsafe_code, reason = "system calls between fork and exec")]
impl Mount {
    fn bind(&self) -> std::io::Result<()> {
        let flags = libc::MS_BIND | libc::MS_REC;
        // SAFETY: NUL-terminated strings that outlive the call.
        check(unsafe {
            libc::mount(self.source.as_ptr(), self.target.as_ptr(), std::ptr::null(), flags, std::ptr::null())
        })?;
        if self.writable {
            return Ok(());
        }
        // In a user namespace the flags that the mount already has are locked: a remount must repeat them.
        // SAFETY: statvfs is plain data that the call fills.
        let kept = unsafe {
            let mut stat: libc::statvfs = std::mem::zeroed();
            check(libc::statvfs(self.target.as_ptr(), &raw mut stat))?;
            stat.f_flag
        };
        let mut flags = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY;
        for (stat_flag, mount_flag) in [
            (libc::ST_NOSUID, libc::MS_NOSUID),
            (libc::ST_NODEV, libc::MS_NODEV),
            (libc::ST_NOEXEC, libc::MS_NOEXEC),
            (libc::ST_NOATIME, libc::MS_NOATIME),
            (libc::ST_NODIRATIME, libc::MS_NODIRATIME),
            (libc::ST_RELATIME, libc::MS_RELATIME),
        ] {
            if kept & stat_flag != 0 {
                flags |= mount_flag;
            }
        }
        // SAFETY: NUL-terminated string that outlives the call.
        check(unsafe {
            libc::mount(std::ptr::null(), self.target.as_ptr(), std::ptr::null(), flags, std::ptr::null())
        })
    }
}

fn check(result: i32) -> std::io::Result<()> {
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

#[allow(unsafe_code, reason = "prctl has no safe wrapper in std")]
fn die_with_parent() -> std::io::Result<()> {
    // SAFETY: plain integers.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })
}

#[allow(unsafe_code, reason = "system calls between fork and exec")]
fn write_file(path: &std::ffi::CStr, bytes: &[u8]) -> std::io::Result<()> {
    // SAFETY: a NUL-terminated path, a live buffer, and a descriptor that was just opened.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        check(fd)?;
        let written = libc::write(fd, bytes.as_ptr().cast(), bytes.len());
        let error = std::io::Error::last_os_error();
        libc::close(fd);
        if written < 0 { Err(error) } else { Ok(()) }
    }
}

/// The parent of the PID namespace's first process: closes everything (the pipe on which exec's failure is reported
/// among it), waits, and ends the way its child did.
#[allow(unsafe_code, reason = "runs between fork and exit")]
fn wait_and_exit(pid: i32) -> ! {
    // SAFETY: only system calls; this process never returns to Rust code above.
    unsafe {
        libc::syscall(libc::SYS_close_range, 0_u32, u32::MAX, 0_u32);
        let mut status = 0;
        while libc::waitpid(pid, &raw mut status, 0) < 0 {}
        libc::_exit(if libc::WIFEXITED(status) {
            libc::WEXITSTATUS(status)
        } else {
            128 + libc::WTERMSIG(status)
        });
    }
}

/// Root may make mount namespaces directly, unless a container took CAP_SYS_ADMIN away; everybody else needs a user
/// namespace. Tried for real, once.
fn needs_user_namespace() -> Result<bool> {
    static ANSWER: OnceLock<std::result::Result<bool, String>> = OnceLock::new();
    let answer = ANSWER.get_or_init(|| {
        if nix::unistd::geteuid().is_root() && probe(false).is_ok() {
            return Ok(false);
        }
        probe(true).map(|()| true).map_err(|e| e.to_string())
    });
    match answer {
        Ok(user_namespace) => Ok(*user_namespace),
        Err(error) => Err(blocked(error)),
    }
}

/// Makes the namespaces, maps the user and mounts something, in a child that then exits: with AppArmor's restriction the
/// namespace itself is granted, and only what follows fails.
fn probe(user_namespace: bool) -> std::io::Result<()> {
    let plan = Plan {
        mounts: Vec::new(),
        proc_target: c"/proc".to_owned(),
        root: c"/".to_owned(),
        directory: c"/".to_owned(),
        user_namespace,
        network: false,
        uid_map: format!("0 {} 1\n", nix::unistd::geteuid()),
        gid_map: format!("0 {} 1\n", nix::unistd::getegid()),
    };
    let mut command = Command::new("/proc/self/exe");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    #[allow(unsafe_code, reason = "namespaces are entered between fork and exec")]
    // SAFETY: only system calls on memory allocated before the fork; the child never executes the program.
    unsafe {
        command.pre_exec(move || {
            plan.enter(-1)?;
            libc::_exit(0)
        });
    }
    let status = command.status()?;
    if status.success() {
        Ok(())
    } else {
        Err(std::io::Error::other(format!("the probe ended with {status}")))
    }
}

/// Why user namespaces are refused here, and what the machine's owner can do.
fn blocked(error: &str) -> anyhow::Error {
    let read = |path: &str| fs_err::read_to_string(path).map(|t| t.trim().to_owned()).unwrap_or_default();
    let message = format!("user namespaces cannot be used on this host ({error})");
    if read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" {
        let exe = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/path/to/gdsboot"));
        return hinted(message, apparmor_remedy(&exe));
    }
    if read("/proc/sys/kernel/unprivileged_userns_clone") == "0" {
        return hinted(
            message,
            "as root: sysctl kernel.unprivileged_userns_clone=1 (or run gdsboot as root)",
        );
    }
    if read("/proc/sys/user/max_user_namespaces") == "0" {
        return hinted(message, "as root: sysctl user.max_user_namespaces=15000 (or run gdsboot as root)");
    }
    hinted(
        message,
        "inside a container, allow them (podman: --security-opt seccomp=unconfined --security-opt apparmor=unconfined; \
         docker: --privileged), or run gdsboot on the host",
    )
}

/// Ubuntu 24.04 grants user namespaces only to programs with an AppArmor profile, attached by path.
fn apparmor_remedy(exe: &Path) -> String {
    format!(
        "AppArmor forbids them (kernel.apparmor_restrict_unprivileged_userns=1). As root, allow this program:\n\
         printf 'abi <abi/4.0>,\\ninclude <tunables/global>\\nprofile gdsboot {} flags=(unconfined) {{\\n  userns,\\n}}\\n' \
         > /etc/apparmor.d/gdsboot && apparmor_parser -r /etc/apparmor.d/gdsboot",
        exe.display()
    )
}

/// Can sandboxes be made on this host? For `doctor`.
pub fn available() -> Result<&'static str> {
    Ok(if needs_user_namespace().status(crate::error::Status::Unavailable)? {
        "user namespace"
    } else {
        "chroot as root"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The host itself, bound read-only, is root enough to run its own shell.
    fn host_root() -> (tempfile::TempDir, Sandbox) {
        let dir = tempfile::tempdir().unwrap();
        let mut sandbox = Sandbox::new(dir.path()).unwrap();
        for part in ["usr", "bin", "sbin", "lib", "lib64"] {
            let path = Path::new("/").join(part);
            let Ok(meta) = fs_err::symlink_metadata(&path) else { continue };
            if meta.is_symlink() {
                std::os::unix::fs::symlink(fs_err::read_link(&path).unwrap(), dir.path().join(part)).unwrap();
            } else {
                sandbox = sandbox.bind(&path, format!("/{part}"), false);
            }
        }
        (dir, sandbox)
    }

    #[test]
    fn a_program_sees_its_root_and_nothing_else() {
        let (_dir, sandbox) = host_root();
        let script =
            "id -u; echo $$; ls /home 2>/dev/null; ls /sys/class/net 2>/dev/null; cat /proc/net/dev | wc -l";
        let output = sandbox.command("/bin/sh").args(["-c", script]).output().unwrap();
        let output = String::from_utf8(output).unwrap();
        // Root inside, PID 1 (or the shell's first child), no /home, and of network devices only loopback.
        assert_eq!(output.lines().collect::<Vec<_>>(), ["0", "1", "3"]);
    }

    #[test]
    fn binds_are_read_only_unless_asked() {
        let (_dir, sandbox) = host_root();
        let shared = tempfile::tempdir().unwrap();
        fs_err::write(shared.path().join("in"), "hello").unwrap();
        let sandbox = sandbox.bind(shared.path(), "/ro", false).bind(shared.path(), "/rw", true);
        sandbox
            .command("/bin/sh")
            .args(["-c", "cp /ro/in /rw/out && ! touch /ro/x 2>/dev/null"])
            .run()
            .unwrap();
        assert_eq!(fs_err::read_to_string(shared.path().join("out")).unwrap(), "hello");
    }

    #[test]
    fn failures_show_the_command_and_the_last_lines() {
        let (_dir, sandbox) = host_root();
        let error =
            sandbox.command("/bin/sh").args(["-c", "echo why >&2; exit 3"]).run().unwrap_err().to_string();
        assert!(error.contains("/bin/sh -c 'echo why >&2; exit 3'") && error.ends_with("why"), "{error}");
        let error = sandbox.command("/no/such").run().unwrap_err();
        assert!(format!("{error:#}").contains("executing for `/no/such`"), "{error:#}");
    }

    #[test]
    fn killing_the_child_kills_its_children() {
        let (_dir, sandbox) = host_root();
        let shared = tempfile::tempdir().unwrap();
        let sandbox = sandbox.bind(shared.path(), "/rw", true);
        let script = "(sleep 1; touch /rw/late) & touch /rw/early; wait";
        let command = sandbox.command("/bin/sh").args(["-c", script]);
        let mut child = command.spawn(Stdio::null(), Stdio::null()).unwrap();
        while !shared.path().join("early").exists() {
            std::thread::sleep(Duration::from_millis(10));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        assert!(!shared.path().join("late").exists());
    }

    #[test]
    fn mount_points_do_not_follow_links_out_of_the_root() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/tmp", dir.path().join("evil")).unwrap();
        assert!(mount_point(dir.path(), Path::new("evil/x"), true).is_err());
        assert!(mount_point(dir.path(), Path::new("a/../b"), true).is_err());
    }
}
