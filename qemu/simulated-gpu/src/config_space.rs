//! A function's 4096 bytes of configuration space, and what writing to them does.
//!
//! QEMU emulates some of it itself and passes the rest on, so that nothing here may rely on QEMU.

use crate::capabilities::{self, EXPRESS};
use crate::function::{Bar, Function};

/// Bytes: PCI Express's.
pub const LENGTH: usize = 4096;

const BAR0: usize = 0x10;
/// NVIDIA's own register, whose bit 25 enables the audio function (Linux, quirk_nvidia_hda in drivers/pci/quirks.c).
const AUDIO: usize = 0x488;
const AUDIO_ENABLED: u32 = 1 << 25;
/// PMCSR in the power management capability.
const POWER: usize = 0x64;
const DEVICE_CONTROL: usize = EXPRESS as usize + 8;

/// A register: its value, which of its bits can be written, and which are cleared by writing 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Register {
    length: usize,
    value: u32,
    writable: u32,
    cleared_by_one: u32,
}

impl Register {
    pub(crate) const fn byte(value: u8) -> Register {
        Register { length: 1, value: value as u32, writable: 0, cleared_by_one: 0 }
    }

    pub(crate) const fn word(value: u16) -> Register {
        Register { length: 2, value: value as u32, writable: 0, cleared_by_one: 0 }
    }

    pub(crate) const fn long(value: u32) -> Register {
        Register { length: 4, value, writable: 0, cleared_by_one: 0 }
    }

    pub(crate) const fn writable(self, writable: u32) -> Register {
        Register { writable, ..self }
    }

    pub(crate) const fn cleared_by_one(self, cleared_by_one: u32) -> Register {
        Register { cleared_by_one, ..self }
    }
}

/// What a write asked for beside the bytes that it changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// A function level reset: bit 15 of Device Control, where the function offers one.
    Reset,
}

/// The configuration space of a function.
#[derive(Clone)]
pub struct ConfigSpace {
    bytes: Box<[u8; LENGTH]>,
    writable: Box<[u8; LENGTH]>,
    cleared_by_one: Box<[u8; LENGTH]>,
    at_reset: Box<[u8; LENGTH]>,
    resettable: bool,
}

impl std::fmt::Debug for ConfigSpace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.lspci("00:00.0"))
    }
}

impl ConfigSpace {
    /// As the function comes out of a reset.
    pub fn new(function: &Function) -> ConfigSpace {
        let zeros = || Box::new([0; LENGTH]);
        let mut space = ConfigSpace {
            bytes: zeros(),
            writable: zeros(),
            cleared_by_one: zeros(),
            at_reset: zeros(),
            resettable: function.resettable,
        };
        space.put_header(function);
        space.put_capabilities(function);
        space.put_extended(function);
        if function.audio_enabled {
            space.put(AUDIO, Register::long(AUDIO_ENABLED));
        }
        space.at_reset = space.bytes.clone();
        space
    }

    fn put_header(&mut self, function: &Function) {
        let [vendor, device, subsystem_vendor, subsystem] = function.ids;
        self.put_all(
            0,
            &[
                Register::word(vendor),
                Register::word(device),
                // Memory, bus master, parity errors, system errors, no INTx. There are no I/O windows.
                Register::word(0).writable(0x0546),
                // There are capabilities; errors are cleared by ones.
                Register::word(0x0010).cleared_by_one(0xf900),
                Register::long(u32::from(function.revision) | function.class << 8),
                // The cache line's size; no latency timer on PCI Express; header type 0, and whether there are several
                // functions is QEMU's to say.
                Register::byte(0).writable(0xff),
            ],
        );
        for bar in &function.bars {
            self.put_bar(bar);
        }
        self.put_all(0x2c, &[Register::word(subsystem_vendor), Register::word(subsystem)]);
        // The line that firmware chose; INTA for function 0, INTB for 1.
        self.put_all(0x3c, &[Register::byte(0).writable(0xff), Register::byte(function.number + 1)]);
    }

    fn put_bar(&mut self, bar: &Bar) {
        let at = BAR0 + 4 * usize::from(bar.index);
        let kind = u32::from(bar.is_64bit) << 2 | u32::from(bar.prefetchable) << 3;
        // Address bits below the size stay zero, by which the size is found.
        let mask = !(bar.size.bytes() - 1);
        self.put(at, Register::long(kind).writable(mask as u32));
        if bar.is_64bit {
            self.put(at + 4, Register::long(0).writable((mask >> 32) as u32));
        }
    }

    fn put_capabilities(&mut self, function: &Function) {
        let mut pointer = 0x34;
        for capability in capabilities::standard(function) {
            let at = usize::from(capability.offset);
            self.bytes[pointer] = capability.offset;
            self.bytes[at] = capability.id;
            let end = self.put_all(at + 2, &capability.registers);
            debug_assert!(end <= 0x100);
            pointer = at + 1;
        }
    }

    fn put_extended(&mut self, function: &Function) {
        let list = capabilities::extended(function);
        let mut at = 0x100;
        for (n, capability) in list.iter().enumerate() {
            let end = self.put_all(at + 4, &capability.registers);
            let next = if n + 1 < list.len() { end.next_multiple_of(16) } else { 0 };
            let header = u32::from(capability.id) | u32::from(capability.version) << 16 | (next as u32) << 20;
            self.put(at, Register::long(header));
            debug_assert!(end <= AUDIO);
            at = next;
        }
    }

    fn put_all(&mut self, at: usize, registers: &[Register]) -> usize {
        registers.iter().fold(at, |at, register| {
            self.put(at, *register);
            at + register.length
        })
    }

    fn put(&mut self, at: usize, register: Register) {
        let to = at..at + register.length;
        self.bytes[to.clone()].copy_from_slice(&register.value.to_le_bytes()[..register.length]);
        self.writable[to.clone()].copy_from_slice(&register.writable.to_le_bytes()[..register.length]);
        self.cleared_by_one[to].copy_from_slice(&register.cleared_by_one.to_le_bytes()[..register.length]);
    }

    /// The bytes from `offset` on; ones where there is nothing.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let from = usize::try_from(offset).unwrap_or(LENGTH).min(LENGTH);
        let inside = data.len().min(LENGTH - from);
        data[inside..].fill(0xff);
        data[..inside].copy_from_slice(&self.bytes[from..from + inside]);
    }

    /// Writes what can be written. Every other bit stays what it is.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        let power = self.bytes[POWER];
        let from = usize::try_from(offset).unwrap_or(LENGTH).min(LENGTH);
        for (at, new) in (from..LENGTH).zip(data) {
            let (old, mask) = (self.bytes[at], self.writable[at]);
            self.bytes[at] = (old & !mask | new & mask) & !(new & self.cleared_by_one[at]);
        }
        // D1 and D2 are not there: the function stays in its state.
        if matches!(self.bytes[POWER] & 3, 1 | 2) {
            self.bytes[POWER] = self.bytes[POWER] & !3 | power & 3;
        }
        let high = (DEVICE_CONTROL as u64 + 1)
            .checked_sub(offset)
            .and_then(|at| data.get(usize::try_from(at).ok()?));
        if self.resettable && high.is_some_and(|byte| byte & 0x80 != 0) {
            self.reset();
            return Effect::Reset;
        }
        Effect::None
    }

    /// Back to what it was at first.
    pub fn reset(&mut self) {
        self.bytes = self.at_reset.clone();
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8; LENGTH] {
        &self.bytes
    }

    /// As `lspci -xxxx` shows it and `lspci -F FILE -vvv` reads it, without the lines that are all zeros beyond the first
    /// 256 bytes.
    pub fn lspci(&self, address: &str) -> String {
        let mut text = format!("{address} function\n");
        for (n, line) in self.bytes.chunks(16).enumerate() {
            if n < 16 || line.iter().any(|byte| *byte != 0) {
                let bytes: String = line.iter().map(|byte| format!(" {byte:02x}")).collect();
                text.push_str(&format!("{:02x}:{bytes}\n", n * 16));
            }
        }
        text
    }
}

#[cfg(test)]
#[path = "config_space_tests.rs"]
mod tests;
