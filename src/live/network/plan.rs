//! How the machine gets an address, as the setting `net` says it.

use std::net::Ipv4Addr;
use std::str::FromStr;

/// How to get an address. IPv4 alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Plan {
    /// By DHCP, on whichever interface answers.
    #[default]
    Dhcp,
    /// As it was told.
    Static(Interface, Address),
}

/// Which interface is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interface {
    /// The first one that has a link.
    Any,
    /// By the address of its hardware.
    Mac([u8; 6]),
    /// By the kernel's name, such as `eth0`.
    Name(String),
}

/// What an interface is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Its address.
    pub ip: Ipv4Addr,
    /// How many bits of it are the network's.
    pub prefix: u8,
    /// Who forwards to other networks.
    pub gateway: Option<Ipv4Addr>,
    /// Who resolves names.
    pub dns: Vec<Ipv4Addr>,
}

impl Plan {
    /// Reads `dhcp`, or `INTERFACE,IP/PREFIX[,GATEWAY[,DNS...]]`: the interface is a MAC address, a name, or `any`; the prefix
    /// may be a netmask, which is how iPXE tells it; an empty gateway or name server is none.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence that begins with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "dhcp" {
            return Ok(Self::Dhcp);
        }
        let mut parts = text.split(',').map(str::trim);
        let interface = Interface::parse(parts.next().unwrap_or_default())?;
        let Some((ip, prefix)) = parts.next().and_then(|part| part.split_once('/')) else {
            return Err("is neither \"dhcp\" nor INTERFACE,IP/PREFIX,GATEWAY,DNS".into());
        };
        let optional = |part: &str| if part.is_empty() { Ok(None) } else { address(part).map(Some) };
        let gateway = parts.next().map(optional).transpose()?.flatten();
        let dns: Vec<Option<Ipv4Addr>> = parts.map(optional).collect::<Result<_, _>>()?;
        let address = Address {
            ip: address(ip)?,
            prefix: prefix_length(prefix)?,
            gateway,
            dns: dns.into_iter().flatten().collect(),
        };
        Ok(Self::Static(interface, address))
    }
}

impl Interface {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "any" {
            return Ok(Self::Any);
        }
        if let Some(mac) = mac(text) {
            return Ok(Self::Mac(mac));
        }
        // Linux: IFNAMSIZ is 16 with the NUL, and dev_valid_name() refuses these.
        let is_name = (1..16).contains(&text.len())
            && !matches!(text, "." | "..")
            && text.bytes().all(|b| b.is_ascii_graphic() && !b"/:".contains(&b));
        if is_name { Ok(Self::Name(text.to_owned())) } else { Err(format!("names no interface ({text:?})")) }
    }
}

/// `52:54:00:12:34:56`, or with dashes.
pub fn mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        let part =
            parts.next().filter(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

fn address(text: &str) -> Result<Ipv4Addr, String> {
    Ipv4Addr::from_str(text).map_err(|_| format!("has {text:?} for an IPv4 address"))
}

fn prefix_length(text: &str) -> Result<u8, String> {
    let mask = Ipv4Addr::from_str(text).ok().map(u32::from);
    match (text.parse(), mask) {
        (Ok(prefix @ 1..=32), _) => Ok(prefix),
        (_, Some(mask)) if mask.leading_ones() + mask.trailing_zeros() == 32 && mask != 0 => {
            Ok(mask.leading_ones() as u8)
        }
        _ => Err(format!("has {text:?} for the length of a prefix")),
    }
}

impl Address {
    /// The netmask of its prefix.
    pub fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0))
    }

    /// Is this in its network?
    pub fn reaches(&self, other: Ipv4Addr) -> bool {
        let network = |ip: Ipv4Addr| u32::from(ip) & u32::from(self.mask());
        network(self.ip) == network(other)
    }

    /// What the hook of udhcpc wrote: `ip=`, `mask=`, `router=`, `dns=`, a line each.
    ///
    /// # Errors
    /// What is missing or malformed.
    pub fn of_lease(text: &str) -> Result<Self, String> {
        let value =
            |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap_or("");
        let list = |key: &str| value(key).split_whitespace().map(address).collect::<Result<Vec<_>, _>>();
        let mask = value("mask");
        Ok(Self {
            ip: address(value("ip"))?,
            // A server that says nothing leaves the class's own; nobody has those any more, so one network is assumed.
            prefix: if mask.is_empty() { 24 } else { prefix_length(mask)? },
            gateway: list("router")?.first().copied(),
            dns: list("dns")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    #[test]
    fn plans() {
        assert_eq!(Plan::parse("dhcp"), Ok(Plan::Dhcp));
        let whole = Plan::parse("52:54:00:AB:34:56,192.0.2.10/24,192.0.2.1,192.0.2.53,192.0.2.54");
        let expected = Address {
            ip: ip("192.0.2.10"),
            prefix: 24,
            gateway: Some(ip("192.0.2.1")),
            dns: vec![ip("192.0.2.53"), ip("192.0.2.54")],
        };
        let mac = Interface::Mac([0x52, 0x54, 0, 0xab, 0x34, 0x56]);
        assert_eq!(whole, Ok(Plan::Static(mac, expected.clone())));
        // iPXE: a netmask, and nothing where there is nothing.
        let ipxe = Plan::parse("any,10.1.2.3/255.255.254.0,,");
        let bare = Address { ip: ip("10.1.2.3"), prefix: 23, gateway: None, dns: vec![] };
        assert_eq!(ipxe, Ok(Plan::Static(Interface::Any, bare.clone())));
        assert_eq!((bare.mask(), expected.mask()), (ip("255.255.254.0"), ip("255.255.255.0")));
        assert_eq!(Address { prefix: 32, ..bare }.mask(), ip("255.255.255.255"));
        for (bad, why) in [
            ("", "names no interface"),
            ("eth0", "is neither"),
            ("eth0,10.0.0.1", "is neither"),
            ("e/th,10.0.0.1/8", "names no interface"),
            ("averylonginterfacename,10.0.0.1/8", "names no interface"),
            ("eth0,10.0.0/8", "for an IPv4 address"),
            ("eth0,10.0.0.1/33", "length of a prefix"),
            ("eth0,10.0.0.1/255.0.255.0", "length of a prefix"),
            ("eth0,10.0.0.1/0", "length of a prefix"),
            ("eth0,10.0.0.1/8,gw", "for an IPv4 address"),
        ] {
            let error = Plan::parse(bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn leases() {
        let lease =
            Address::of_lease("ip=10.0.2.15\nmask=255.255.255.0\nrouter=10.0.2.2 10.0.2.9\ndns=10.0.2.3\n")
                .unwrap();
        assert_eq!(lease.gateway, Some(ip("10.0.2.2")));
        assert_eq!((lease.prefix, lease.dns), (24, vec![ip("10.0.2.3")]));
        assert_eq!(Address::of_lease("ip=10.0.2.15\nmask=\nrouter=\ndns=\n").unwrap().prefix, 24);
        assert!(Address::of_lease("").is_err());
        assert!(Address::of_lease("ip=10.0.2.15\nrouter=x\n").is_err());
    }

    proptest! {
        #[test]
        fn nothing_panics(text in ".{0,60}") {
            let _ = Plan::parse(&text);
            let _ = Address::of_lease(&text);
        }

        #[test]
        fn anything_after_an_interface(text in "[0-9./,:a-f]{0,40}") {
            let _ = Plan::parse(&format!("any,{text}"));
        }
    }
}
