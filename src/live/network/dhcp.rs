//! An address by DHCP: busybox's udhcpc asks, and its hook writes down what it got.

use super::{Address, Card, folder, with_links};
use crate::error::hinted;
use crate::facts::Root;
use crate::program::{self, Words};
use anyhow::Result;
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
    let mut complaint = None;
    loop {
        let cards = with_links(root, deadline)?;
        let mut ask = |card: &Card| {
            let limit = TRY.min(deadline.saturating_duration_since(Instant::now()));
            if limit < PAUSE {
                return Ok(None);
            }
            say(&format!("network: asking for an address on {}", card.name));
            let args = ["udhcpc", "-f", "-q", "-n", "-t", "3", "-T", "2", "-i", &card.name, "-s", &hook_path];
            let _ = std::fs::remove_file(&lease);
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
            Ok(fs_err::read_to_string(&lease).ok())
        };
        if let Some(answered) = first_answer(&cards, &mut ask, &mut complaint)? {
            return Ok(answered);
        }
        if Instant::now() + PAUSE >= deadline {
            let names: Vec<&str> = cards.iter().map(|card| card.name.as_str()).collect();
            return Err(hinted(
                complaint.unwrap_or_else(|| format!("no DHCP server answered on {}", names.join(", "))),
                "give the address in the setting net, or let the network's administrator see why",
            ));
        }
        std::thread::sleep(PAUSE);
    }
}

/// The first card whose answer makes sense. What does not is remembered, and the next card asked.
fn first_answer(
    cards: &[Card],
    ask: &mut dyn FnMut(&Card) -> Result<Option<String>>,
    complaint: &mut Option<String>,
) -> Result<Option<(Card, Address)>> {
    for card in cards {
        let Some(lease) = ask(card)? else { continue };
        match Address::of_lease(&lease) {
            Ok(address) => return Ok(Some((card.clone(), address))),
            Err(why) => *complaint = Some(format!("the DHCP server's answer on {} {why}", card.name)),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_answer_on_one_card_does_not_cost_another_one() {
        let cards = ["eth0", "eth1", "eth2"].map(|name| Card { name: name.into(), mac: [0; 6] });
        let good = "ip=10.0.2.15\nmask=255.255.255.0\nrouter=10.0.2.2\ndns=\n";
        let bad = "ip=10.0.2.15\nrouter=nonsense\n";
        for (answers, taken, complaint) in [
            ([Some(good), None, None], Some("eth0"), None),
            ([None, Some(bad), Some(good)], Some("eth2"), Some("eth1")),
            ([None, Some(bad), None], None, Some("eth1")),
            ([None, None, None], None, None),
        ] {
            let mut answers = answers.into_iter();
            let mut said = None;
            let mut ask = |_: &Card| Ok(answers.next().unwrap().map(str::to_owned));
            let found = first_answer(&cards, &mut ask, &mut said).unwrap();
            assert_eq!(found.map(|(card, _)| card.name).as_deref(), taken);
            assert_eq!(said.is_some(), complaint.is_some());
            let words = complaint.map(|card| format!("the DHCP server's answer on {card} has \"nonsense\""));
            assert!(said.unwrap_or_default().starts_with(&words.unwrap_or_default()));
        }
    }
}
