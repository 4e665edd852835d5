//! udevd: libcufile reads `/run/udev`, and the devices of the root's drivers appear by its rules.

use super::program;
use anyhow::bail;
use std::path::Path;
use std::time::Duration;

/// Where distributions put the daemon.
const DAEMONS: [&str; 3] = ["/usr/lib/systemd/systemd-udevd", "/lib/systemd/systemd-udevd", "/sbin/udevd"];
/// Starting and announcing are quick unless something is broken.
const QUICK: Duration = Duration::from_secs(10);
/// How long devices may take to settle, in seconds. What has not settled by then is not needed for a report.
const SETTLE: u64 = 20;

/// Starts udevd, announces every device to it and waits until it is done. `false` where the root has none.
pub fn start() -> anyhow::Result<bool> {
    let Some(daemon) = DAEMONS.into_iter().find(|daemon| Path::new(daemon).exists()) else {
        return Ok(false);
    };
    program::run_ok(daemon, &["--daemon"], QUICK)?;
    let udevadm = ["/usr/bin/udevadm", "/bin/udevadm"].into_iter().find(|path| Path::new(path).exists());
    let Some(udevadm) = udevadm else { bail!("starting udev: {daemon} is there and udevadm is not") };
    for kind in ["subsystems", "devices"] {
        program::run_ok(udevadm, &["trigger", "--action=add", &format!("--type={kind}")], QUICK)?;
    }
    let limit = Duration::from_secs(SETTLE + 5);
    program::run_ok(udevadm, &["settle", &format!("--timeout={SETTLE}")], limit)?;
    Ok(true)
}
