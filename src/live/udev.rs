//! udevd: libcufile reads `/run/udev`, and the devices of the root's drivers appear by its rules.

use crate::program;
use anyhow::bail;
use std::path::Path;
use std::time::Duration;

/// Where distributions put the daemon.
const DAEMONS: [&str; 3] = ["/usr/lib/systemd/systemd-udevd", "/lib/systemd/systemd-udevd", "/sbin/udevd"];
/// What is announced: what libcufile looks up, and what the report tells. Announcing everything would make udevd load a
/// driver for every device there is, which takes long and may take the GPU away from its own; what the run needs was
/// loaded by name before.
const SUBSYSTEMS: [&str; 4] = ["block", "nvme", "nvme-subsystem", "infiniband"];
/// Starting and announcing are quick unless something is broken, or the machine is an emulated one that is busy.
const QUICK: Duration = Duration::from_secs(60);
/// How long devices may take to settle, in seconds. What has not settled by then is not needed for a report.
const SETTLE: u64 = 30;

/// Starts udevd, announces devices to it and waits until it is done. `false` where the root has none.
pub fn start() -> anyhow::Result<bool> {
    let Some(daemon) = DAEMONS.into_iter().find(|daemon| Path::new(daemon).exists()) else {
        return Ok(false);
    };
    program::run_ok(daemon, &["--daemon"], QUICK)?;
    let udevadm = ["/usr/bin/udevadm", "/bin/udevadm"].into_iter().find(|path| Path::new(path).exists());
    let Some(udevadm) = udevadm else { bail!("starting udev: {daemon} is there and udevadm is not") };
    let matches = SUBSYSTEMS.map(|subsystem| format!("--subsystem-match={subsystem}"));
    let mut trigger = vec!["trigger", "--action=add"];
    trigger.extend(matches.iter().map(String::as_str));
    program::run_ok(udevadm, &trigger, QUICK)?;
    let limit = Duration::from_secs(SETTLE + 10);
    program::run_ok(udevadm, &["settle", &format!("--timeout={SETTLE}")], limit)?;
    Ok(true)
}
