//! Logs that are not the kernel's: cuFile's, QEMU's, and whatever an owner added to a capture.

use super::log_lines::LogLines;
use super::{Fact, Root, kernel_log};

/// How many files are looked at.
const FILES: usize = 24;

/// Where logs of any name are.
const LOG_FOLDERS: [&str; 7] =
    ["/", "/var/log", "/root", "/tmp", "/run/gdsboot", "/var/log/libvirt/qemu", "/var/log/pve/tasks"];

/// Reads those that are there. `kernel` is what was taken for the kernel log, which is not read again.
pub fn read(root: &Root, kernel: &[LogLines]) -> Fact<Vec<LogLines>> {
    let mut paths = Vec::new();
    let mut folders: Vec<String> = LOG_FOLDERS.map(str::to_owned).into();
    let users = root.list("/home");
    folders.extend(users.value().into_iter().flatten().map(|user| format!("/home/{user}")));
    let mut seen = false;
    for folder in &folders {
        let listed = root.list(folder);
        seen |= listed.value().is_some();
        let prefix = folder.trim_end_matches('/');
        let names = listed.value().into_iter().flatten();
        paths.extend(names.filter(|name| is_log(root, folder, name)).map(|name| format!("{prefix}/{name}")));
    }
    // The kernel log as text, where the kernel's records are there too: it also has what programs said.
    // An older boot's counts only where the present one's is not there.
    let text = kernel_log::text_files(root).into_iter();
    paths.extend(text.filter(|path| kernel.is_empty() || !kernel_log::is_rotated(path)));
    paths.sort();
    paths.dedup();
    paths.truncate(FILES);
    if !root.is_live() {
        paths.extend(work_logs(root));
    }
    paths.retain(|path| !kernel.iter().any(|log| log.from == *path));
    if !seen {
        return Fact::Missing { from: "/var/log".into() };
    }
    let logs = paths.iter().filter_map(|path| LogLines::read(root, path).value().cloned());
    Fact::known("/var/log", logs.filter(|log| !log.lines.is_empty()).collect())
}

/// How many folders are looked at for logs of cuFile, which writes where its program runs.
const WORK_FOLDERS: usize = 48;
/// How many of its logs are read there.
const WORK_LOGS: usize = 8;

/// Logs of cuFile in a capture's folders in which programs may have run: those next to `/home`, and what lies in them.
fn work_logs(root: &Root) -> Vec<String> {
    const SYSTEM: [&str; 15] = [
        "bin", "boot", "dev", "etc", "home", "lib", "lib64", "proc", "root", "run", "sbin", "sys", "tmp",
        "usr", "var",
    ];
    let inside = |folder: &str| {
        let names = root.list(folder).value().cloned().unwrap_or_default();
        names.into_iter().map(|name| format!("{}/{name}", folder.trim_end_matches('/'))).collect::<Vec<_>>()
    };
    let top = inside("/").into_iter().filter(|folder| !SYSTEM.contains(&&folder[1..]));
    let mut found = Vec::new();
    let mut folders: Vec<String> = top.take(WORK_FOLDERS).collect();
    let mut looked_at = 0;
    while let Some(folder) = folders.pop()
        && looked_at < WORK_FOLDERS
    {
        looked_at += 1;
        let is_top = folder.matches('/').count() == 1;
        for path in inside(&folder) {
            let (_, name) = path.rsplit_once('/').unwrap_or(("", &path));
            if name.starts_with("cufile") && name.ends_with(".log") {
                found.push(path);
            } else if is_top && folders.len() < WORK_FOLDERS {
                folders.push(path);
            }
        }
    }
    found.sort();
    found.truncate(WORK_LOGS);
    found
}

fn is_log(root: &Root, folder: &str, name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let ends = |end: &str| name.ends_with(end);
    if name.starts_with("cufile") && ends(".log") {
        return true;
    }
    if folder.starts_with("/var/log/") {
        return ends(".log");
    }
    // Only a capture's owner puts logs next to `/sys`.
    let added = ends(".log") || ends(".txt") || ends(".out");
    (!root.is_live() && added) || (folder == "/var/log" && name.contains("nvidia"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_boots_log_says_nothing_of_this_one() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::create_dir_all(dir.path().join("var/log")).unwrap();
        fs_err::write(dir.path().join("var/log/kern.log.4"), "NVRM: Xid of last year\n").unwrap();
        let root = Root::at(dir.path());
        assert_eq!(read(&root, &[]).value().unwrap().len(), 1);
        let kmsg = LogLines { from: "/dev/kmsg".into(), ..LogLines::default() };
        assert_eq!(read(&root, &[kmsg]).value().unwrap().len(), 0);
    }

    #[test]
    fn logs_that_an_owner_added() {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("home/ann/cufile_12_x.log", "ERROR cufio-fs:199 NVMe Driver not registered with nvidia-fs!!!\n"),
            ("srv/app/cufile.log", "ERROR cufio:302 fd direct IO not set\n"),
            ("srv/app/other.log", "nvidia\n"),
            ("srv/app/deep/cufile.log", "nvidia\n"),
            ("notes.txt", "nothing\n"),
            ("home/ann/secret", "nvidia\n"),
            ("var/log/libvirt/qemu/vm.log", "vfio: group 3 is not viable\n"),
        ] {
            let path = dir.path().join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
        }
        let logs = read(&Root::at(dir.path()), &[]);
        let from: Vec<&str> = logs.value().unwrap().iter().map(|log| log.from.as_str()).collect();
        assert_eq!(
            from,
            ["/home/ann/cufile_12_x.log", "/var/log/libvirt/qemu/vm.log", "/srv/app/cufile.log"]
        );
    }
}
