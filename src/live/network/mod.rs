//! The network, for whoever asked for it: nothing here runs unless the report is to be sent or the root comes from there.

mod dhcp;
mod drivers;
mod interface;
mod plan;

pub use interface::Interface as Card;
pub use plan::{Address, Interface, Plan};

use crate::boot_contract::{RUN_NETWORK, RUN_RESOLV_CONF};
use crate::error::{hinted, one_line};
use crate::facts::Root;
use anyhow::Result;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long links may take to come up: switches that check for loops first need some 30 s.
const LINK_PATIENCE: Duration = Duration::from_secs(40);
/// How often it is looked.
const PAUSE: Duration = Duration::from_millis(100);

/// The folder for what the network needs.
pub fn folder() -> Result<PathBuf> {
    let folder = Path::new("/").join(RUN_NETWORK);
    fs_err::create_dir_all(&folder)?;
    Ok(folder)
}

/// Loads the drivers and gets an address before `deadline`. `say` is told what happens.
///
/// # Errors
/// What is missing, and who can mend it.
pub fn bring_up(root: &Root, plan: &Plan, deadline: Instant, say: &mut dyn FnMut(&str)) -> Result<()> {
    drivers::load(root, deadline)?;
    let (card, address) = match plan {
        Plan::Dhcp => dhcp::ask(root, deadline, say)?,
        Plan::Static(wanted, address) => (find(root, wanted, deadline)?, address.clone()),
    };
    apply(&card, &address, say)
}

/// Gives a card its address and the machine its name servers.
///
/// # Errors
/// What the kernel refuses.
pub fn apply(card: &Card, address: &Address, say: &mut dyn FnMut(&str)) -> Result<()> {
    card.configure(address)?;
    folder()?;
    fs_err::write(Path::new("/").join(RUN_RESOLV_CONF), resolv_conf(address))?;
    let gateway = address.gateway.map_or_else(|| "no gateway".into(), |gateway| format!("gateway {gateway}"));
    say(&format!("network: {} is {}/{}, {gateway}", card.name, address.ip, address.prefix));
    Ok(())
}

fn resolv_conf(address: &Address) -> String {
    address.dns.iter().fold(String::new(), |mut text, dns| {
        let _ = writeln!(text, "nameserver {dns}");
        text
    })
}

/// The interface that is meant, started and with a link.
///
/// # Errors
/// It is not there, or has no link when time is up.
pub fn find(root: &Root, wanted: &Interface, deadline: Instant) -> Result<Card> {
    let deadline = deadline.min(Instant::now() + LINK_PATIENCE);
    loop {
        let all = interface::list(root);
        let named: Vec<&Card> = all.iter().filter(|card| is_meant(card, wanted)).collect();
        let mut broken = None;
        for card in &named {
            match card.up() {
                // Another one may do.
                Err(error) if *wanted == Interface::Any => broken = broken.or(Some(error)),
                result => result?,
            }
        }
        if let Some(card) = named.iter().find(|card| card.has_link(root)) {
            return Ok((*card).clone());
        }
        if Instant::now() >= deadline {
            return Err(no_link(&all, &named, wanted, broken.as_ref()));
        }
        std::thread::sleep(PAUSE);
    }
}

fn is_meant(card: &Card, wanted: &Interface) -> bool {
    match wanted {
        Interface::Any => true,
        Interface::Mac(mac) => card.mac == *mac,
        Interface::Name(name) => card.name == *name,
    }
}

fn no_link(
    all: &[Card],
    named: &[&Card],
    wanted: &Interface,
    broken: Option<&anyhow::Error>,
) -> anyhow::Error {
    let describe =
        |card: &Card| format!("{} {}", card.name, card.mac.map(|byte| format!("{byte:02x}")).join(":"));
    let list = |cards: &mut dyn Iterator<Item = &Card>| cards.map(describe).collect::<Vec<_>>().join(", ");
    if all.is_empty() {
        return hinted(
            "this machine has no network card that the image has a driver for",
            "hypervisor: give the guest one (virtio); on a real machine: one of the drivers that docs/network.md lists",
        );
    }
    if named.is_empty() {
        let wanted = match wanted {
            Interface::Mac(mac) => mac.map(|byte| format!("{byte:02x}")).join(":"),
            Interface::Name(name) => name.clone(),
            Interface::Any => "any".into(),
        };
        return hinted(
            format!("there is no network interface {wanted}; there is {}", list(&mut all.iter())),
            "correct the setting net",
        );
    }
    let cards = list(&mut named.iter().copied());
    let broken = broken.map(|error| format!(" ({})", one_line(error))).unwrap_or_default();
    hinted(
        format!("no link on {cards}{broken}"),
        "plug the cable in, or see the switch's port; hypervisor: attach the card to a bridge",
    )
}

/// Cards that have a link, all started; where none has, it is waited for.
///
/// # Errors
/// There is none when time is up.
fn with_links(root: &Root, deadline: Instant) -> Result<Vec<Card>> {
    loop {
        find(root, &Interface::Any, deadline)?;
        let mut all = interface::list(root);
        all.retain(|card| card.has_link(root));
        // A link may be lost again meanwhile.
        if !all.is_empty() {
            return Ok(all);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::hint_of;

    #[test]
    fn what_is_missing_is_named_with_who_can_mend_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        let error = find(&root, &Interface::Any, Instant::now()).unwrap_err();
        assert!(
            error.to_string().contains("no network card") && hint_of(&error).unwrap().contains("hypervisor")
        );
        let card = Card { name: "eth0".into(), mac: [0x52, 0x54, 0, 0x12, 0x34, 0x56] };
        let error = no_link(std::slice::from_ref(&card), &[], &Interface::Mac([1; 6]), None);
        assert_eq!(
            error.to_string(),
            "there is no network interface 01:01:01:01:01:01; there is eth0 52:54:00:12:34:56"
        );
        let error = no_link(std::slice::from_ref(&card), &[&card], &Interface::Any, None);
        assert_eq!(error.to_string(), "no link on eth0 52:54:00:12:34:56");
    }

    /// On a machine with these cards, of which none can really be started.
    fn found(carriers: &[(&str, &str)], wanted: &Interface) -> Result<Card> {
        let dir = tempfile::tempdir().unwrap();
        for (name, carrier) in carriers {
            let folder = dir.path().join("sys/class/net").join(name);
            fs_err::create_dir_all(folder.join("device")).unwrap();
            for (file, text) in [("type", "1\n"), ("address", "52:54:00:12:34:56\n"), ("carrier", carrier)] {
                fs_err::write(folder.join(file), text).unwrap();
            }
        }
        find(&Root::at(dir.path()), wanted, Instant::now())
    }

    #[test]
    fn a_card_that_cannot_be_started_does_not_cost_another_one() {
        let [bad, good] = ["gdsboot-none0", "gdsboot-none1"];
        let card = found(&[(bad, "0"), (good, "1")], &Interface::Any).unwrap();
        assert_eq!(card.name, good);
        let error = found(&[(bad, "0"), (good, "0")], &Interface::Any).unwrap_err().to_string();
        assert!(
            error.starts_with("no link on gdsboot-none0 ")
                && error.contains(" (starting the network interface gdsboot-none0: "),
            "{error}"
        );
        // Where one is named there is no other.
        let error = found(&[(bad, "0"), (good, "1")], &Interface::Name(bad.into())).unwrap_err();
        assert!(error.to_string().starts_with("starting the network interface gdsboot-none0"), "{error:#}");
    }

    #[test]
    fn name_servers() {
        let Plan::Static(_, address) = Plan::parse("any,10.0.0.1/8,,1.2.3.4,5.6.7.8").unwrap() else {
            panic!()
        };
        assert_eq!(resolv_conf(&address), "nameserver 1.2.3.4\nnameserver 5.6.7.8\n");
    }
}
