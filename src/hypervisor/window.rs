//! How much room a guest's firmware must have for the windows of its devices.
//!
//! A root port's window begins at a multiple of the largest BAR below it, so that a device takes the sum of its 64-bit
//! BARs, rounded up to a multiple of its largest. All devices together take the sum of that. OVMF has 32 GiB of its own. Where it believes
//! the CPU's width of addresses it takes 1/8 of them, of at most 46 bits, and what
//! `opt/ovmf/X-PciMmio64Mb` says where that is more (edk2: OvmfPkg/Library/PlatformInitLib/MemDetect.c,
//! `PlatformAddressWidthFromCpuid`, `PlatformDynamicMmioWindow`).

use super::context::{Context, What};
use crate::facts::pci::PciDevice;

/// OVMF's window where nothing else is known.
pub const CLASSIC: u64 = 32 << 30;
/// The name by which OVMF is told another size, in MiB.
pub const FW_CFG: &str = "opt/ovmf/X-PciMmio64Mb";
/// OVMF uses no more bits of an address.
const MOST_BITS: u32 = 46;

/// What one device takes.
pub fn of_sizes(sizes: &[u64]) -> u64 {
    let largest = sizes.iter().copied().max().unwrap_or(0);
    let sum = sizes.iter().fold(0u64, |sum, size| sum.saturating_add(*size));
    if largest == 0 { 0 } else { sum.checked_next_multiple_of(largest).unwrap_or(u64::MAX) }
}

/// What a function of the host takes: its BARs that lie above 4 GiB, which behind a port are the prefetchable ones alone (edk2:
/// `DegradeResource` of PciBusDxe; a port's other window has 32 bits).
pub fn of_function(device: &PciDevice) -> u64 {
    let bars = device.bars.value().into_iter().flatten();
    let sizes: Vec<u64> = bars
        .filter(|bar| bar.index < 6 && bar.is_64_bit() && bar.is_prefetchable())
        .map(|bar| bar.size)
        .collect();
    of_sizes(&sizes)
}

/// What all passed devices take; `None` where a GPU's BARs are not known.
pub fn needed(context: &Context<'_>) -> Option<u64> {
    let mut sum = 0u64;
    let mut has_gpu = false;
    for passed in &context.machine.passed {
        let functions = context.functions(passed);
        let own = functions.iter().fold(0u64, |sum, device| sum.saturating_add(of_function(device)));
        let is_gpu = context.what(passed) == What::Gpu;
        has_gpu |= is_gpu;
        let own = match context.hints.bar {
            Some(bar) if is_gpu => own.max(of_sizes(&[bar, 32 << 20])),
            _ => own,
        };
        if is_gpu && own == 0 {
            return None;
        }
        sum = sum.saturating_add(own);
    }
    has_gpu.then_some(sum)
}

/// The size to tell OVMF: the next power of two, by which the window's place is aligned.
pub fn rounded(needed: u64) -> u64 {
    needed.checked_next_power_of_two().unwrap_or(1 << 63).max(CLASSIC)
}

/// The window that OVMF takes by a width of addresses.
pub fn of_width(bits: u32) -> u64 {
    // QEMU's 40 bits are its default and may be more than the CPU has: OVMF does not believe them.
    if bits <= 40 && ![36, 39].contains(&bits) {
        CLASSIC
    } else {
        (1u64 << (bits.clamp(4, MOST_BITS) - 3)).max(CLASSIC)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_of_known_gpus() {
        // H100: BAR1 of 128 GiB, BAR3 of 32 MiB.
        assert_eq!(of_sizes(&[128 << 30, 32 << 20]), 256 << 30);
        assert_eq!(of_sizes(&[64 << 30]), 64 << 30);
        assert_eq!(of_sizes(&[]), 0);
        assert_eq!(of_sizes(&[u64::MAX, 1 << 60]), u64::MAX);
        assert_eq!(rounded(8 * (256 << 30)), 2 << 40);
        assert_eq!((rounded(0), rounded(u64::MAX)), (CLASSIC, 1 << 63));
    }

    #[test]
    fn only_prefetchable_windows_lie_above_4_gib() {
        use crate::facts::Fact;
        use crate::facts::pci::Bar;
        let bar = |index, size, flags| Bar { index, start: 0, size, flags };
        // A GPU's BAR1, and an NVMe controller's BAR0.
        let bars = vec![bar(1, 64 << 30, 0x14_220c), bar(0, 16 << 10, 0x14_0204)];
        let device = PciDevice { bars: Fact::known("resource", bars), ..PciDevice::default() };
        assert_eq!(of_function(&device), 64 << 30);
    }

    #[test]
    fn windows_by_the_width_of_addresses() {
        assert_eq!(of_width(46), 8 << 40);
        assert_eq!(of_width(52), 8 << 40);
        assert_eq!(of_width(39), 64 << 30);
        assert_eq!(of_width(40), CLASSIC);
        assert_eq!(of_width(0), CLASSIC);
    }
}
