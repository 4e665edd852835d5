//! An address by DHCP: busybox's udhcpc asks, and its hook writes down what it got.

use super::{Address, Card, folder, with_links};
use crate::error::hinted;
use crate::facts::Root;
use crate::program::{self, Words};
use anyhow::{Result, anyhow};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

const BUSYBOX: &str = "/usr/bin/busybox";
/// One try on one interface: three requests, 2 s apart.
const TRY: Duration = Duration::from_secs(10);
/// How long between two rounds: switches that check for loops first drop everything for some 30 s.
const PAUSE: Duration = Duration::from_secs(1);
/// When to give up: whoever has not answered by then never will.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks on every interface with a link, one after the other, until one is answered.
///
/// # Errors
/// No link; no answer.
pub fn ask(root: &Root, deadline: Instant, say: &mut dyn FnMut(&str)) -> Result<(Card, Address)> {
    let deadline = deadline.min(Instant::now() + PATIENCE);
    let (hook, lease) = (folder()?.join("udhcpc-hook"), folder()?.join("lease"));
    let (hook_path, lease_path) = (hook.to_string_lossy(), lease.to_string_lossy());
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = bound ] || exit 0\n\
         printf 'ip=%s\\nmask=%s\\nrouter=%s\\ndns=%s\\n' \"$ip\" \"$subnet\" \"$router\" \"$dns\" > {lease_path}\n"
    );
    fs_err::write(&hook, script)?;
    fs_err::set_permissions(&hook, std::fs::Permissions::from_mode(0o755))?;
    loop {
        let cards = with_links(root, deadline)?;
        for card in &cards {
            say(&format!("network: asking for an address on {}", card.name));
            let args = ["udhcpc", "-f", "-q", "-n", "-t", "3", "-T", "2", "-i", &card.name, "-s", &hook_path];
            let _ = std::fs::remove_file(&lease);
            let limit = TRY.min(deadline.saturating_duration_since(Instant::now()) + PAUSE);
            let run = program::Run {
                program: BUSYBOX,
                args: &args,
                environment: &[],
                folder: None,
                limit,
                words: Words::Together,
                daemon: false,
            };
            run.to_end()?;
            if let Ok(text) = fs_err::read_to_string(&lease) {
                let address =
                    Address::of_lease(&text).map_err(|why| anyhow!("the DHCP server's answer {why}"))?;
                return Ok((card.clone(), address));
            }
        }
        if Instant::now() + PAUSE >= deadline {
            let names: Vec<&str> = cards.iter().map(|card| card.name.as_str()).collect();
            return Err(hinted(
                format!("no DHCP server answered on {}", names.join(", ")),
                "give the address in the setting net, or let the network's administrator see why",
            ));
        }
        std::thread::sleep(PAUSE);
    }
}
