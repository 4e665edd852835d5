//! A PCI function's configuration space (PCI Express Base Specification, chapter 7; include/uapi/linux/pci_regs.h).
//!
//! Linux shows 64 bytes of it to everybody and the rest to root: 256 bytes on a conventional bus, 4096 on PCI Express.
//! What lies beyond the bytes that were read is unknown, not absent: ask [`PciConfig::sees_capabilities`] and
//! [`PciConfig::sees_extended`] first.

use serde::{Deserialize, Serialize};

/// What stands in a configuration space.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct PciConfig {
    /// How many bytes could be read.
    pub length: u32,
    /// Vendor and device id are all ones: the device does not answer, it has fallen off the bus or sleeps without power. For
    /// one that was passed through, a hypervisor goes on to answer for some of the other bytes.
    pub all_ones: bool,
    /// The device decodes accesses to its memory windows.
    pub memory_enabled: bool,
    /// The device may start transfers of its own.
    pub bus_master: bool,
    /// For a bridge: the bus right below it.
    pub secondary_bus: Option<u8>,
    /// The PCI Express capability.
    pub express: Option<Express>,
    /// The clique that a hypervisor put the GPU into, NVIDIA's GPUDirect P2P capability: GPUs of one clique may reach
    /// each other. It says nothing about NVMe controllers.
    pub p2p_clique: Option<u8>,
    /// The device says of itself that it is simulated: the vendor-specific capability of gdsboot's own GPUs for QEMU.
    pub simulated: bool,
    /// Access Control Services.
    pub acs: Option<Acs>,
    /// Address Translation Service: is it enabled? `None` where the device has none.
    pub ats: Option<bool>,
    /// SR-IOV: the most virtual functions, and those in use.
    pub sriov: Option<(u16, u16)>,
    /// The windows whose size can be changed.
    pub resizable_bars: Vec<ResizableBar>,
    /// The device's serial number, sixteen hex digits as `lspci` prints them without dashes.
    pub serial: Option<String>,
    /// Advanced Error Reporting is there.
    pub aer: bool,
}

/// The PCI Express capability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Express {
    /// What kind of port or device it is: 0 endpoint, 1 legacy endpoint, 4 root port, 5 a switch's upstream port, 6 a
    /// switch's downstream port, 7 bridge to conventional PCI, 9 integrated endpoint.
    pub kind: u8,
    /// The link's generation now: 1 is 2.5 GT/s, 5 is 32 GT/s; 0 where there is no link.
    pub speed: u8,
    /// The highest generation that it can do.
    pub speed_max: u8,
    /// The link's lanes now.
    pub width: u8,
    /// The most lanes that it can do.
    pub width_max: u8,
    /// The largest payload that it may send, in bytes.
    pub max_payload: u16,
    /// The largest read that it may request, in bytes.
    pub max_read_request: u16,
}

/// A root port.
pub const ROOT_PORT: u8 = 4;
/// A switch's upstream port.
pub const UPSTREAM_PORT: u8 = 5;
/// A switch's downstream port.
pub const DOWNSTREAM_PORT: u8 = 6;
/// A bridge from PCI Express to conventional PCI.
pub const PCI_BRIDGE: u8 = 7;

/// Access Control Services, which decide whether a port lets its devices reach each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Acs {
    /// Offset of the capability: its control register stands 6 bytes behind.
    pub offset: u16,
    /// What the port can do.
    pub capabilities: u16,
    /// What is switched on.
    pub control: u16,
}

impl Acs {
    /// Are requests and completions between devices sent up to the root complex? The kernel's p2pdma asks this
    /// (`pci_bridge_has_acs_redir`): request redirect, completion redirect, egress control.
    pub fn redirects(self) -> bool {
        self.control & (0x04 | 0x08 | 0x20) != 0
    }

    /// Is anything switched on? nvidia-fs and gdscheck ask this (`nvfs_pcie_acs_enabled`).
    pub fn is_enabled(self) -> bool {
        self.capabilities != 0 && self.control & 0x7f != 0
    }
}

/// One window of the Resizable BAR capability.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct ResizableBar {
    /// The BAR's number.
    pub index: u8,
    /// Its size now, in bytes.
    pub current: u64,
    /// The sizes that it can have, in bytes, ascending.
    pub sizes: Vec<u64>,
}

/// The capability ids of the first 256 bytes.
const CAP_VENDOR: u8 = 0x09;
const CAP_EXPRESS: u8 = 0x10;
/// What follows id, next and length in the capability of a simulated device (qemu/simulated-gpu/README.md).
const SIMULATED: &[u8] = b"SIMULATE";
/// The capability ids behind them.
const EXT_AER: u16 = 0x0001;
const EXT_SERIAL: u16 = 0x0003;
const EXT_ACS: u16 = 0x000d;
const EXT_ATS: u16 = 0x000f;
const EXT_SRIOV: u16 = 0x0010;
const EXT_RESIZABLE_BAR: u16 = 0x0015;

impl PciConfig {
    /// Reads a configuration space of any length from 64 bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() < 64 {
            return Err(format!("{} bytes, a configuration space has at least 64", bytes.len()));
        }
        let space = Space(bytes);
        let mut config = Self {
            length: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            all_ones: bytes.starts_with(&[0xff; 4]),
            ..Self::default()
        };
        if config.all_ones {
            return Ok(config);
        }
        let command = space.u16(0x04).unwrap_or(0);
        config.memory_enabled = command & 0x2 != 0;
        config.bus_master = command & 0x4 != 0;
        let is_bridge = bytes[0x0e] & 0x7f == 1;
        config.secondary_bus = is_bridge.then(|| bytes[0x19]);
        for (id, at) in space.capabilities() {
            match id {
                CAP_EXPRESS if config.express.is_none() => config.express = space.express(at),
                CAP_VENDOR if space.is_mark(at) => config.simulated = true,
                CAP_VENDOR if config.p2p_clique.is_none() => config.p2p_clique = space.p2p_clique(at),
                _ => {}
            }
        }
        for (id, at) in space.extended() {
            match id {
                EXT_AER => config.aer = true,
                EXT_SERIAL => config.serial = space.serial(at).or(config.serial),
                EXT_ACS => config.acs = space.acs(at).or(config.acs),
                EXT_ATS => config.ats = space.u16(at + 6).map(|control| control & 0x8000 != 0),
                EXT_SRIOV => config.sriov = space.u16(at + 0x0e).zip(space.u16(at + 0x10)),
                EXT_RESIZABLE_BAR => config.resizable_bars = space.resizable_bars(at),
                _ => {}
            }
        }
        Ok(config)
    }

    /// Are the capabilities of the first 256 bytes known? Where they are not, `express` and `p2p_clique` say nothing.
    pub fn sees_capabilities(&self) -> bool {
        self.length >= 256 && !self.all_ones
    }

    /// Are the extended capabilities known? Where they are not, `acs` and what follows it say nothing.
    pub fn sees_extended(&self) -> bool {
        self.length >= 4096 && !self.all_ones
    }
}

/// Bytes with little-endian numbers in them; what lies outside is `None`.
struct Space<'a>(&'a [u8]);

impl Space<'_> {
    fn u8(&self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    fn u16(&self, at: usize) -> Option<u16> {
        Some(u16::from_le_bytes(self.0.get(at..at + 2)?.try_into().ok()?))
    }

    fn u32(&self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(self.0.get(at..at + 4)?.try_into().ok()?))
    }

    /// The list of the first 256 bytes: ids and offsets. A list that leads in a circle ends, as it does in the kernel,
    /// after as many entries as fit.
    fn capabilities(&self) -> Vec<(u8, usize)> {
        const MOST: usize = (256 - 64) / 4;
        let has_list = self.u16(0x06).is_some_and(|status| status & 0x10 != 0);
        let mut found = Vec::new();
        let mut next = if has_list { self.u8(0x34) } else { None };
        while let Some(at) = next.map(|at| usize::from(at & !3)).filter(|at| *at >= 0x40) {
            let Some(id) = self.u8(at).filter(|id| *id != 0xff) else { break };
            if found.len() == MOST {
                break;
            }
            found.push((id, at));
            next = self.u8(at + 1);
        }
        found
    }

    /// The list from byte 256 on.
    fn extended(&self) -> Vec<(u16, usize)> {
        const MOST: usize = (4096 - 256) / 8;
        let mut found = Vec::new();
        let mut at = 0x100;
        while let Some(header) = self.u32(at).filter(|header| !matches!(header, 0 | 0xffff_ffff)) {
            if found.len() == MOST {
                break;
            }
            found.push((header as u16, at));
            at = (header >> 20) as usize & !3;
            if at < 0x100 {
                break;
            }
        }
        found
    }

    fn express(&self, at: usize) -> Option<Express> {
        let kind = (self.u16(at + 2)? >> 4 & 0xf) as u8;
        let device_control = self.u16(at + 8)?;
        let (link, status) = (self.u32(at + 0x0c)?, self.u16(at + 0x12)?);
        // Both are powers of two from 128 on; 6 and 7 are reserved.
        let bytes = |code: u16| 128u16.checked_shl(code.into()).filter(|_| code <= 5).unwrap_or(0);
        Some(Express {
            kind,
            speed: (status & 0xf) as u8,
            speed_max: (link & 0xf) as u8,
            width: (status >> 4 & 0x3f) as u8,
            width_max: (link >> 4 & 0x3f) as u8,
            max_payload: bytes(device_control >> 5 & 7),
            max_read_request: bytes(device_control >> 12 & 7),
        })
    }

    fn is_mark(&self, at: usize) -> bool {
        self.0.get(at + 3..).is_some_and(|bytes| bytes.starts_with(SIMULATED))
    }

    /// NVIDIA's capability of 8 bytes: id, next, length, "P2P", then a byte with the version in bits 0 to 2 and the clique
    /// in bits 3 to 6 (QEMU: hw/vfio/pci-quirks.c; the driver: `NV_PCI_VIRTUAL_P2P_APPROVAL_CAP`).
    fn p2p_clique(&self, at: usize) -> Option<u8> {
        (self.0.get(at + 2..at + 6)? == b"\x08P2P").then_some(())?;
        Some(self.u8(at + 6)? >> 3 & 0xf)
    }

    fn serial(&self, at: usize) -> Option<String> {
        Some(format!("{:08x}{:08x}", self.u32(at + 8)?, self.u32(at + 4)?))
    }

    fn acs(&self, at: usize) -> Option<Acs> {
        Some(Acs { offset: at as u16, capabilities: self.u16(at + 4)?, control: self.u16(at + 6)? })
    }

    fn resizable_bars(&self, at: usize) -> Vec<ResizableBar> {
        // The first control register says how many there are.
        let count = self.u32(at + 8).map_or(0, |control| control >> 5 & 7).min(6) as usize;
        let one = |n: usize| {
            let (capability, control) = (self.u32(at + 4 + 8 * n)?, self.u32(at + 8 + 8 * n)?);
            // Bits 4 to 31 of the capability are 1 MiB to 128 TiB, bits 16 to 31 of the control 256 TiB to 8 EiB.
            let low = (4..32).filter(|bit| capability >> bit & 1 == 1).map(|bit| 1u64 << (bit + 16));
            let high = (16..32).filter(|bit| control >> bit & 1 == 1).map(|bit| 1u64 << (bit + 32));
            let size = control >> 8 & 0x3f;
            Some(ResizableBar {
                index: (control & 7) as u8,
                current: 1u64.checked_shl(size + 20).unwrap_or(0),
                sizes: low.chain(high.filter(|size| *size != 0)).collect(),
            })
        };
        (0..count).map_while(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
        bytes[at..at + value.len()].copy_from_slice(value);
    }

    /// A GPU as a guest may see it: PCI Express at 0x78, the clique at 0xc8, and an extended list.
    fn gpu() -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        put(&mut bytes, 0x04, &[0x06, 0x00, 0x10, 0x00]);
        bytes[0x34] = 0x78;
        // Endpoint, 256 bytes of payload, 512 of read request; x16 of generation 5, now x8 of generation 4.
        put(&mut bytes, 0x78, &[0x10, 0xc8, 0x02, 0x00]);
        put(&mut bytes, 0x80, &[0x20, 0x20]);
        put(&mut bytes, 0x84, &[0x05, 0x01, 0x00, 0x00]);
        put(&mut bytes, 0x8a, &[0x84, 0x10]);
        put(&mut bytes, 0xc8, &[0x09, 0x00, 0x08, b'P', b'2', b'P', 3 << 3, 0]);
        let header = |id: u16, next: u32| (u32::from(id) | 1 << 16 | next << 20).to_le_bytes();
        put(&mut bytes, 0x100, &header(EXT_AER, 0x150));
        put(&mut bytes, 0x150, &header(EXT_ACS, 0x160));
        put(&mut bytes, 0x154, &[0x7f, 0x00, 0x1d, 0x00]);
        put(&mut bytes, 0x160, &header(EXT_RESIZABLE_BAR, 0x180));
        // BAR 1, one window, now 2^16 MiB; 256 MiB and 64 GiB are possible.
        put(&mut bytes, 0x164, &(1u32 << 12 | 1 << 20).to_le_bytes());
        put(&mut bytes, 0x168, &(1u32 | 1 << 5 | 16 << 8).to_le_bytes());
        put(&mut bytes, 0x180, &header(EXT_SERIAL, 0x190));
        put(&mut bytes, 0x184, &[0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88]);
        put(&mut bytes, 0x190, &header(EXT_ATS, 0x1a0));
        put(&mut bytes, 0x196, &[0x00, 0x80]);
        put(&mut bytes, 0x1a0, &header(EXT_SRIOV, 0));
        put(&mut bytes, 0x1ae, &[32, 0, 4, 0]);
        bytes
    }

    #[test]
    fn all_capabilities_of_a_gpu() {
        let config = PciConfig::parse(&gpu()).unwrap();
        let express = Express {
            kind: 0,
            speed: 4,
            speed_max: 5,
            width: 8,
            width_max: 16,
            max_payload: 256,
            max_read_request: 512,
        };
        assert_eq!(config.express, Some(express));
        assert_eq!(config.p2p_clique, Some(3));
        assert_eq!(config.acs, Some(Acs { offset: 0x150, capabilities: 0x7f, control: 0x1d }));
        assert!(config.acs.unwrap().redirects() && config.acs.unwrap().is_enabled());
        let bar = ResizableBar { index: 1, current: 64 << 30, sizes: vec![256 << 20, 64 << 30] };
        assert_eq!(config.resizable_bars, [bar]);
        assert_eq!(config.serial.as_deref(), Some("8877665544332211"));
        assert_eq!((config.ats, config.sriov, config.aer), (Some(true), Some((32, 4)), true));
        assert!(config.memory_enabled && config.bus_master && config.sees_extended());
    }

    #[test]
    fn fewer_bytes_show_less_and_say_so() {
        let config = PciConfig::parse(&gpu()[..256]).unwrap();
        assert!(config.sees_capabilities() && !config.sees_extended());
        assert!(config.express.is_some() && config.acs.is_none());
        let config = PciConfig::parse(&gpu()[..64]).unwrap();
        assert!(!config.sees_capabilities() && config.express.is_none() && config.memory_enabled);
        assert!(PciConfig::parse(&gpu()[..63]).is_err());
        assert!(PciConfig::parse(b"").is_err());
    }

    #[test]
    fn a_device_that_fell_off_the_bus_answers_ones() {
        for length in [64, 256, 4096] {
            let config = PciConfig::parse(&vec![0xff; length]).unwrap();
            assert!(config.all_ones && config.express.is_none() && !config.sees_capabilities());
        }
        // As QEMU shows a device that is gone behind vfio.
        let mut bytes = gpu();
        put(&mut bytes, 0, &[0xff; 4]);
        assert!(PciConfig::parse(&bytes).unwrap().all_ones);
    }

    #[test]
    fn a_simulated_device_says_so() {
        assert!(!PciConfig::parse(&gpu()).unwrap().simulated);
        let mut bytes = gpu();
        bytes[0xc9] = 0xd8;
        put(&mut bytes, 0xd8, b"\x09\x00\x0bSIMULATE");
        let config = PciConfig::parse(&bytes).unwrap();
        assert!(config.simulated && config.p2p_clique == Some(3));
    }

    #[test]
    fn lists_that_lead_in_a_circle_end() {
        let mut bytes = gpu();
        bytes[0xc9] = 0x78;
        put(&mut bytes, 0x1a0, &(u32::from(EXT_SRIOV) | 0x100 << 20).to_le_bytes());
        assert_eq!(PciConfig::parse(&bytes).unwrap(), PciConfig::parse(&gpu()).unwrap());
        // A capability that points at itself.
        bytes[0x79] = 0x78;
        assert!(PciConfig::parse(&bytes).unwrap().express.is_some());
    }

    #[test]
    fn redirect_and_enabled_are_two_questions() {
        let acs = |control| Acs { offset: 0, capabilities: 0x7f, control };
        // Source validation alone: nvidia-fs calls that enabled, p2pdma does not mind.
        assert!(acs(0x01).is_enabled() && !acs(0x01).redirects());
        assert!(acs(0x04).redirects() && acs(0x08).redirects() && acs(0x20).redirects());
        assert!(!acs(0).is_enabled() && !acs(0).redirects());
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..600), at in 0usize..4096) {
            let mut long = vec![0x10; 4096];
            let end = (at + bytes.len()).min(4096);
            long[at..end].copy_from_slice(&bytes[..end - at]);
            let _ = PciConfig::parse(&bytes);
            let _ = PciConfig::parse(&long);
        }
    }
}
