//! Would the kernel's p2pdma let a device reach a GPU's memory (drivers/pci/p2pdma.c, `calc_map_type_and_dist`)?
//!
//! Below one switch it does, unless a port on the way redirects requests to the root complex (ACS). Over the root complex
//! it does on AMD's processors from Zen on, and below host bridges on its list. Kernels of 2026 also ask the firmware's
//! HMAT table, and look at ACS more closely; that is not followed here.

use super::place::{Place, Places};
use crate::facts::{Fact, Facts};
use serde::Serialize;

/// What p2pdma makes of a pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum P2pdma {
    /// Allowed, and the data stays below a switch.
    Direct,
    /// Allowed over the root complex.
    ThroughHostBridge {
        /// Why it is allowed.
        why: String,
        /// The ports that send the data up there although the devices share a switch.
        redirects: Vec<String>,
    },
    /// Refused.
    Refused {
        /// Why.
        why: String,
        /// The ports that send the data to the root complex although the devices share a switch.
        redirects: Vec<String>,
    },
    /// It hangs on something that cannot be seen.
    Unknown {
        /// On what.
        why: String,
    },
}

/// Host bridges that pass requests on between their ports: device of vendor 8086, and whether both devices must be below
/// the same one.
const HOST_BRIDGES: [(u16, bool); 10] = [
    (0x3c00, true),
    (0x3c01, true),
    (0x2f00, true),
    (0x2f01, true),
    (0x2030, false),
    (0x2031, false),
    (0x2032, false),
    (0x2033, false),
    (0x2020, false),
    (0x09a2, false),
];

/// Those of vendor 8086 that only some kernels' lists have: accelerators that are the first function on a bus of their own.
const RECENT_HOST_BRIDGES: [u16; 10] =
    [0x0b25, 0x0cfe, 0x11fb, 0x1212, 0x1216, 0x4940, 0x4942, 0x4944, 0x4946, 0x4948];

/// The verdict on a pair.
pub fn verdict(facts: &Facts, places: &Places<'_>, gpu: Option<&Place>, peer: Option<&Place>) -> P2pdma {
    let unknown = |why: &str| P2pdma::Unknown { why: why.to_owned() };
    let (Some(gpu), Some(peer)) = (gpu, peer) else {
        return unknown("the bridges above the devices cannot be seen");
    };
    let common = gpu.common(peer).len();
    if common == 0 {
        return match through_host(facts, places, gpu, peer) {
            Host::Allowed(why) => P2pdma::ThroughHostBridge { why, redirects: Vec::new() },
            Host::Refused(why) => {
                let why = format!("GPU and peer share no PCIe switch, and {why}");
                P2pdma::Refused { why, redirects: Vec::new() }
            }
            Host::Unknown(why) => P2pdma::Unknown { why },
        };
    }
    let (redirects, unseen) = redirects(places, gpu, peer, common);
    if redirects.is_empty() && unseen.is_empty() {
        return P2pdma::Direct;
    }
    match through_host(facts, places, gpu, peer) {
        // Whether or not an unseen port redirects, the pair is allowed.
        Host::Allowed(why) => P2pdma::ThroughHostBridge { why, redirects },
        _ if redirects.is_empty() => {
            unknown(&format!("whether {} redirects requests (ACS) is shown to root only", unseen.join(", ")))
        }
        Host::Refused(why) => {
            let why = format!("ACS redirect is set on {}, and {why}", redirects.join(", "));
            P2pdma::Refused { why, redirects }
        }
        Host::Unknown(why) => P2pdma::Unknown { why },
    }
}

/// The functions on the way that redirect, and those of which that cannot be seen. The last common bridge counts as well,
/// as it does in the kernel.
fn redirects(places: &Places<'_>, gpu: &Place, peer: &Place, common: usize) -> (Vec<String>, Vec<String>) {
    let below = |place: &Place, from: usize| {
        place.bridges[from..].iter().cloned().chain([place.address.clone()]).collect::<Vec<_>>()
    };
    let mut redirects = Vec::new();
    let mut unseen = Vec::new();
    for address in below(gpu, common - 1).into_iter().chain(below(peer, common)) {
        match places.acs(&address) {
            Some(Some(acs)) if acs.redirects() => redirects.push(address),
            Some(_) => {}
            None => unseen.push(address),
        }
    }
    (redirects, unseen)
}

enum Host {
    Allowed(String),
    Refused(String),
    Unknown(String),
}

/// A domain above those that a PCI segment group can have.
fn is_made_up(root: &str) -> bool {
    let domain = root.strip_prefix("pci").and_then(|rest| rest.split_once(':'));
    domain.and_then(|(domain, _)| u32::from_str_radix(domain, 16).ok()).is_some_and(|n| n > 0xffff)
}

fn through_host(facts: &Facts, places: &Places<'_>, gpu: &Place, peer: &Place) -> Host {
    let cpu = match &facts.cpu {
        Fact::Known { value, .. } if !value.vendor.is_empty() => value,
        _ => return Host::Unknown("the CPU cannot be seen".into()),
    };
    let family = match (cpu.vendor.as_str(), cpu.family) {
        ("AuthenticAMD", None) => return Host::Unknown("the CPU's family cannot be seen".into()),
        ("AuthenticAMD", Some(family)) if family >= 0x17 => {
            return Host::Allowed(format!("the CPU is AMD family {family:#x}, Zen or newer"));
        }
        ("AuthenticAMD", Some(family)) => {
            format!("the CPU shows AMD family {family:#x}, older than Zen (0x17)")
        }
        (vendor, _) => format!("the CPU is {vendor}, not an AMD Zen"),
    };
    let same = gpu.root == peer.root;
    let mut names = Vec::new();
    for root in [&gpu.root, &peer.root] {
        let Some(bridge) = places.host_bridge(root) else {
            return Host::Unknown(format!("the host bridge of {root} cannot be seen"));
        };
        let (Some(vendor), Some(device)) = (bridge.vendor.value(), bridge.device.value()) else {
            return Host::Unknown(format!("the ids of the host bridge {} cannot be seen", bridge.address));
        };
        let listed = HOST_BRIDGES.iter().find(|(id, _)| vendor.0 == 0x8086 && *id == device.0);
        match listed {
            Some((_, needs_same)) if same || !needs_same => names.push(bridge.ids()),
            Some(_) => {
                return Host::Refused(format!(
                    "{family}, and host bridge {} passes nothing on to another host bridge",
                    bridge.ids()
                ));
            }
            None if vendor.0 == 0x8086 && RECENT_HOST_BRIDGES.contains(&device.0) => {
                return Host::Unknown(format!("host bridge {} is on some kernels' list only", bridge.ids()));
            }
            // Domains that the kernel made up are Intel VMD's, whose root ports are on no list.
            None if is_made_up(root) => {
                return Host::Refused(format!("{family}, and {root} is behind Intel's VMD"));
            }
            // The kernel refuses where a bus has no function 00.0; a capture may just lack it.
            None if !bridge.address.ends_with(":00.0") => {
                return Host::Unknown(format!("the host bridge of {root} cannot be seen"));
            }
            None => {
                return Host::Refused(format!(
                    "{family}, and host bridge {} is not on the kernel's list",
                    bridge.ids()
                ));
            }
        }
    }
    names.dedup();
    Host::Allowed(format!("host bridge {} is on the kernel's list", names.join(" and ")))
}
