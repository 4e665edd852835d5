//! The machine's network interfaces: which there are, and the few requests that give one an address (netdevice(7),
//! rtnetlink's older sister). They are all that is needed, and cost less than netlink.

use super::plan::{Address, mac};
use crate::error::Advise as _;
use crate::facts::Root;
use anyhow::{Context as _, Result};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd as _, RawFd};

const FOLDER: &str = "/sys/class/net";
/// Ethernet, in `type` (`ARPHRD_ETHER` of linux/if_arp.h).
const ETHERNET: &str = "1";

/// An Ethernet interface of real or virtual hardware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's name.
    pub name: String,
    /// The address of its hardware.
    pub mac: [u8; 6],
}

/// All that there are, by name.
pub fn list(root: &Root) -> Vec<Interface> {
    let names = root.list(FOLDER);
    let names = names.value().into_iter().flatten();
    names
        .filter_map(|name| {
            let word = |file: &str| root.text(&format!("{FOLDER}/{name}/{file}")).value().cloned();
            // Bridges, tunnels and the loopback have no device.
            let is_real = root.exists(&format!("{FOLDER}/{name}/device")) && word("type")? == ETHERNET;
            let mac = mac(&word("address")?)?;
            is_real.then(|| Interface { name: name.clone(), mac })
        })
        .collect()
}

impl Interface {
    /// Has it a link? Only one that is up can tell.
    pub fn has_link(&self, root: &Root) -> bool {
        root.text(&format!("{FOLDER}/{}/carrier", self.name)).value().is_some_and(|carrier| carrier == "1")
    }

    /// Starts it.
    pub fn up(&self) -> Result<()> {
        self.switch("starting", libc::IFF_UP | libc::IFF_RUNNING)
    }

    /// Stops it. Its routes go; Linux keeps its address.
    pub fn down(&self) -> Result<()> {
        self.switch("stopping", 0)
    }

    fn switch(&self, what: &str, flags: libc::c_int) -> Result<()> {
        self.ask(what, |socket, request| {
            request.ifr_ifru.ifru_flags = flags as libc::c_short;
            send(socket, libc::SIOCSIFFLAGS, request)
        })
    }

    /// Gives it an address, and the machine its way out.
    pub fn configure(&self, address: &Address) -> Result<()> {
        self.ask("giving an address to", |socket, request| {
            request.ifr_ifru.ifru_addr = socket_address(address.ip);
            send(socket, libc::SIOCSIFADDR, request)?;
            request.ifr_ifru.ifru_addr = socket_address(address.mask());
            send(socket, libc::SIOCSIFNETMASK, request)
        })?;
        routes(address).iter().try_for_each(|route| {
            self.ask("naming the gateway of", |socket, request| add_route(socket, request, route))
                .hint("correct the gateway in the setting net, or what the DHCP server says of it")
        })
    }

    fn ask(
        &self,
        what: &str,
        work: impl FnOnce(RawFd, &mut libc::ifreq) -> std::io::Result<()>,
    ) -> Result<()> {
        let asked = || {
            // Any socket of the family will do (netdevice(7)).
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            let mut request = request(&self.name);
            work(socket.as_raw_fd(), &mut request)
        };
        asked().with_context(|| format!("{what} the network interface {}", self.name))
    }
}

/// A way to other machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Route {
    /// To whom: one machine, or all where it is 0.0.0.0.
    to: Ipv4Addr,
    /// By whom; `None` where it needs nobody between.
    by: Option<Ipv4Addr>,
}

/// The routes that an address needs, in their order. A gateway outside of the network, as clouds that give each machine a
/// network of its own have it, must be known to be on the wire first.
fn routes(address: &Address) -> Vec<Route> {
    let Some(gateway) = address.gateway else { return Vec::new() };
    let wire = (!address.reaches(gateway)).then_some(Route { to: gateway, by: None });
    wire.into_iter().chain([Route { to: Ipv4Addr::UNSPECIFIED, by: Some(gateway) }]).collect()
}

#[allow(unsafe_code, reason = "C's structures have to be zero where nothing is said")]
fn request(name: &str) -> libc::ifreq {
    // SAFETY: `ifreq` is numbers and a union of such; all zero is a valid value of each.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let last = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..last].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

#[allow(unsafe_code, reason = "a sockaddr_in is handed over as a sockaddr")]
fn socket_address(ip: Ipv4Addr) -> libc::sockaddr {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) },
        sin_zero: [0; 8],
    };
    // SAFETY: both are plain data of 16 bytes without padding, and every bit pattern is a `sockaddr`.
    unsafe { std::mem::transmute(address) }
}

#[allow(unsafe_code, reason = "nix has none of these requests")]
fn send(socket: RawFd, number: libc::Ioctl, request: &mut libc::ifreq) -> std::io::Result<()> {
    // SAFETY: the requests that are made here read one `ifreq` (netdevice(7)), which lives as long as the call.
    let rc = unsafe { libc::ioctl(socket, number, std::ptr::from_mut(request)) };
    if rc < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

#[allow(unsafe_code, reason = "nix has no SIOCADDRT")]
fn add_route(socket: RawFd, request: &mut libc::ifreq, wanted: &Route) -> std::io::Result<()> {
    // SAFETY: `rtentry` is numbers, addresses and a pointer that may be null; all zero is a valid value of each.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    let is_host = wanted.to != Ipv4Addr::UNSPECIFIED;
    route.rt_dst = socket_address(wanted.to);
    route.rt_genmask = socket_address(if is_host { Ipv4Addr::BROADCAST } else { Ipv4Addr::UNSPECIFIED });
    route.rt_flags = libc::RTF_UP | if is_host { libc::RTF_HOST } else { 0 };
    if let Some(gateway) = wanted.by {
        route.rt_gateway = socket_address(gateway);
        route.rt_flags |= libc::RTF_GATEWAY;
    }
    route.rt_dev = request.ifr_name.as_mut_ptr();
    // SAFETY: SIOCADDRT reads one `rtentry` and the name that it points to, with its NUL; both live as long as the call.
    let rc = unsafe { libc::ioctl(socket, libc::SIOCADDRT, std::ptr::from_mut(&mut route)) };
    match if rc < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) } {
        // It is there already: the machine came up by it.
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ethernet_of_hardware_is_listed() {
        let dir = tempfile::tempdir().unwrap();
        for (name, kind, mac, device) in [
            ("eth0", "1", "52:54:00:12:34:56", true),
            ("br0", "1", "52:54:00:12:34:57", false),
            ("ib0", "32", "80:00:02:08:fe:80:00:00:00:00:00:00", true),
            ("lo", "772", "00:00:00:00:00:00", false),
        ] {
            let folder = dir.path().join("sys/class/net").join(name);
            fs_err::create_dir_all(if device { folder.join("device") } else { folder.clone() }).unwrap();
            fs_err::write(folder.join("type"), format!("{kind}\n")).unwrap();
            fs_err::write(folder.join("address"), format!("{mac}\n")).unwrap();
            fs_err::write(folder.join("carrier"), "1\n").unwrap();
        }
        let root = Root::at(dir.path());
        let listed = list(&root);
        let eth0 = Interface { name: "eth0".into(), mac: [0x52, 0x54, 0, 0x12, 0x34, 0x56] };
        assert_eq!(listed, [eth0]);
        assert!(listed[0].has_link(&root));
        assert_eq!(list(&Root::at(dir.path().join("none"))), []);
    }

    #[test]
    fn a_gateway_outside_of_the_network_is_put_on_the_wire_first() {
        let ip = |text: &str| text.parse::<Ipv4Addr>().unwrap();
        let default = |gateway: &str| Route { to: Ipv4Addr::UNSPECIFIED, by: Some(ip(gateway)) };
        let wire = |gateway: &str| Route { to: ip(gateway), by: None };
        for (net, expected) in [
            ("any,10.0.0.5/24", vec![]),
            ("any,10.0.0.5/24,10.0.0.1", vec![default("10.0.0.1")]),
            ("any,10.128.0.9/255.255.255.255,10.128.0.1", vec![wire("10.128.0.1"), default("10.128.0.1")]),
            ("any,10.0.0.5/24,10.0.1.1", vec![wire("10.0.1.1"), default("10.0.1.1")]),
            ("any,10.0.0.5/1,99.0.1.1", vec![default("99.0.1.1")]),
        ] {
            let Ok(super::super::Plan::Static(_, address)) = super::super::Plan::parse(net) else {
                panic!("{net}")
            };
            assert_eq!(routes(&address), expected, "{net}");
        }
    }

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        let none = Interface { name: "gdsboot-none0".into(), mac: [0; 6] };
        let error = format!("{:#}", none.up().unwrap_err());
        assert!(error.starts_with("starting the network interface gdsboot-none0: "), "{error}");
    }
}
