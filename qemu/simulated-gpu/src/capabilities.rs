//! The capabilities of a function, each as the bytes that it is made of and what of them can be written.
//!
//! Follows the PCI Express Base Specification, chapter 7 (numbers as in linux/pci_regs.h). What Linux and NVIDIA's driver
//! do not look at is left at zero.

use crate::config_space::Register;
use crate::function::Function;
use crate::model::SizeRange;
use crate::size::Size;

/// The mark in a vendor-specific capability of the first 256 bytes, which a guest on any bus can see: cap id 09, next,
/// length 11, then these letters.
pub const MARK: &[u8; 8] = b"SIMULATE";

/// The first six bytes of every serial number: "SIMGPU". Bit 1 of the first byte is set, which says that the number was
/// assigned locally (EUI-64): no manufacturer's begins so.
pub const SERIAL: &[u8; 6] = b"SIMGPU";

/// Where the capabilities stand: the first three as on NVIDIA's GPUs from Pascal to Ada, the mark behind them, and the
/// clique where NVIDIA's specification of it, and QEMU with it, puts it.
const PM: u8 = 0x60;
const MSI: u8 = 0x68;
/// The PCI Express capability.
pub(crate) const EXPRESS: u8 = 0x78;
const SIMULATED: u8 = 0xb8;
const CLIQUE: u8 = 0xc8;

/// A capability of the first 256 bytes: its offset, and its registers behind the pointer to the next one.
pub(crate) struct Capability {
    pub offset: u8,
    pub id: u8,
    /// From byte 2 on.
    pub registers: Vec<Register>,
}

/// A capability of the extended configuration space, from byte 4 on.
pub(crate) struct Extended {
    pub id: u16,
    pub version: u8,
    pub registers: Vec<Register>,
}

/// The list of the first 256 bytes, in its order.
pub(crate) fn standard(function: &Function) -> Vec<Capability> {
    let mut list = vec![power_management(), msi(), express(function), simulated()];
    // NVIDIA's specification wants it at the end of the list.
    list.extend(function.clique.map(clique));
    list
}

/// The extended list, in its order.
pub(crate) fn extended(function: &Function) -> Vec<Extended> {
    let mut list = vec![serial_number(function.serial)];
    if let Some((bar, range)) = function.resizable {
        let size = function.bars.iter().find(|b| b.index == bar).map_or(range.to, |bar| bar.size);
        list.push(resizable_bar(bar, range, size));
    }
    list.extend(function.acs.then(access_control));
    list.extend(function.ats.then(address_translation));
    list
}

fn power_management() -> Capability {
    Capability {
        offset: PM,
        id: 0x01,
        registers: vec![
            // Version 3, PME from D0 and D3hot.
            Register::word(0x4803),
            // D0, and no state is lost on the way from D3hot. The state, whether PME is enabled, and whether there was one.
            Register::word(0x0008).writable(0x0103).cleared_by_one(0x8000),
            Register::word(0),
        ],
    }
}

fn msi() -> Capability {
    Capability {
        offset: MSI,
        id: 0x05,
        // One vector, addresses of 64 bits, no masks.
        registers: vec![
            Register::word(0x0080).writable(0x0001),
            Register::long(0).writable(0xffff_fffc),
            Register::long(0).writable(0xffff_ffff),
            Register::word(0).writable(0xffff),
        ],
    }
}

fn express(function: &Function) -> Capability {
    let (most, now) = (function.link_capability, function.link);
    // Payloads up to 256 bytes, extended tags, L1 within 64 us, errors by role; function level reset.
    let device = 1 | 1 << 5 | 6 << 9 | 1 << 15 | u32::from(function.resettable) << 28;
    // L1 on request, and ASPM optionality.
    let link = u32::from(most.generation()) | u32::from(most.width()) << 4 | 2 << 10 | 1 << 22;
    let speeds = ((1 << most.generation()) - 1) << 1;
    let kind = if function.legacy_endpoint { 1 } else { 0 };
    Capability {
        offset: EXPRESS,
        id: 0x10,
        registers: vec![
            Register::word(2 | kind << 4),
            Register::long(device),
            // Relaxed ordering, extended tags, no snooping, requests of 512 bytes. Bit 15 starts a reset and reads as 0.
            Register::word(0x2910).writable(0x7fff),
            Register::word(0).cleared_by_one(0x000f),
            Register::long(link),
            Register::word(0).writable(0x0fdb),
            // The slot's clock is used.
            Register::word(u16::from(now.generation()) | u16::from(now.width()) << 4 | 1 << 12),
            // Slot and root registers: none of an endpoint's.
            Register::long(0),
            Register::long(0),
            Register::long(0),
            Register::long(0),
            // Completion timeouts of ranges A and B, which can be disabled.
            Register::long(0x0013),
            Register::word(0).writable(0x001f),
            Register::word(0),
            Register::long(speeds),
            Register::word(u16::from(most.generation())).writable(0x000f),
            Register::word(0),
        ],
    }
}

fn simulated() -> Capability {
    let mut registers = vec![Register::byte(3 + MARK.len() as u8)];
    registers.extend(MARK.map(Register::byte));
    Capability { offset: SIMULATED, id: 0x09, registers }
}

/// NVIDIA's "GPUDirect with PCI pass-through virtualization": length 8, "P2P", then version 0 in bits 2:0 and the clique
/// in bits 6:3, as QEMU's vfio-pci writes it for `x-nv-gpudirect-clique`.
fn clique(clique: u8) -> Capability {
    let registers = [8, b'P', b'2', b'P', clique << 3, 0].map(Register::byte).into();
    Capability { offset: CLIQUE, id: 0x09, registers }
}

fn serial_number(serial: [u8; 8]) -> Extended {
    let number = u64::from_be_bytes(serial);
    Extended {
        id: 0x03,
        version: 1,
        registers: vec![Register::long(number as u32), Register::long((number >> 32) as u32)],
    }
}

/// The size stays what it is: a client of vfio-user is told a window's size once, so that the kernel's own vfio-pci does not
/// let it be changed either.
fn resizable_bar(bar: u8, range: SizeRange, size: Size) -> Extended {
    let exponent = |size: Size| size.bytes().trailing_zeros() - 20;
    // Bit 4 is 1 MiB, bit 31 is 128 TiB.
    let sizes = (exponent(range.from)..=exponent(range.to)).fold(0, |sizes, n| sizes | 1u32 << (n + 4));
    Extended {
        id: 0x15,
        version: 1,
        // One window, and which.
        registers: vec![Register::long(sizes), Register::long(u32::from(bar) | 1 << 5 | exponent(size) << 8)],
    }
}

fn access_control() -> Extended {
    // Requests and completions to peers are redirected, and direct translated requests pass.
    Extended {
        id: 0x0d,
        version: 1,
        registers: vec![Register::word(0x004c), Register::word(0).writable(0x004c)],
    }
}

fn address_translation() -> Extended {
    // Page-aligned requests; the smallest unit, and whether it is enabled.
    Extended {
        id: 0x0f,
        version: 1,
        registers: vec![Register::word(0x0020), Register::word(0).writable(0x801f)],
    }
}
