//! How much room a guest's firmware must have for the windows of its devices.
//!
//! A root port's window begins at a multiple of the largest BAR below it and is as long as the BARs in it take (edk2:
//! PciBusDxe/PciLib.c, `CalculateResourceAperture`). Only prefetchable 64-bit BARs lie there: a bridge has no other window
//! above 4 GiB, and the rest is moved below. A large device is counted with the sum of its BARs, rounded up to a multiple of its largest;
//! small ones lie in the gaps that this leaves, or behind. OVMF has 32 GiB of its own. Where it believes
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

/// So large is the window at most that it takes by itself: 1/8 of them.
pub const MOST: u64 = 1 << (MOST_BITS - 3);

/// What the hypervisor's own devices and empty ports take beside those that are passed: a virtual disk has 16 KiB, each port
/// at least 1 MiB.
const REST: u64 = 1 << 30;
/// A GPU's registers beside its memory.
const REGISTERS: u64 = 32 << 20;

/// What one device takes, by the sizes of its BARs.
fn of_device(sizes: &[u64]) -> u64 {
    let largest = sizes.iter().copied().max().unwrap_or(0);
    round(sum(sizes), largest)
}

fn sum(sizes: &[u64]) -> u64 {
    sizes.iter().fold(0u64, |sum, size| sum.saturating_add(*size))
}

/// Up to a multiple.
fn round(size: u64, multiple: u64) -> u64 {
    if multiple == 0 { size } else { size.checked_next_multiple_of(multiple).unwrap_or(u64::MAX) }
}

/// What all devices and the rest take together; each device is the sizes of its BARs.
pub fn of_devices(devices: &[Vec<u64>]) -> u64 {
    let largest = |sizes: &Vec<u64>| sizes.iter().copied().max().unwrap_or(0);
    let mut sorted: Vec<&Vec<u64>> = devices.iter().collect();
    sorted.sort_by_key(|sizes| std::cmp::Reverse(largest(sizes)));
    let end = sorted.iter().fold(0u64, |end, sizes| round(end, largest(sizes)).saturating_add(sum(sizes)));
    let large = devices.iter().filter(|sizes| largest(sizes) > REST);
    let large = large.fold(0u64, |sum, sizes| sum.saturating_add(of_device(sizes)));
    large.max(end.saturating_add(REST))
}

/// The sizes of a function's BARs that lie above 4 GiB.
pub fn of_function(device: &PciDevice) -> Vec<u64> {
    let bars = device.bars.value().into_iter().flatten();
    bars.filter(|bar| bar.index < 6 && bar.is_64_bit() && bar.is_prefetchable()).map(|bar| bar.size).collect()
}

/// A GPU's BARs, by its functions and by what a user says of the largest; `None` where neither tells.
pub fn of_gpu<'a>(functions: impl IntoIterator<Item = &'a PciDevice>, told: Option<u64>) -> Option<Vec<u64>> {
    let known: Vec<u64> = functions.into_iter().flat_map(of_function).collect();
    let told = told.map_or_else(Vec::new, |bar| vec![bar, REGISTERS]);
    let larger = if of_device(&known) >= of_device(&told) { known } else { told };
    (!larger.is_empty()).then_some(larger)
}

/// What all passed devices take; `None` where a GPU's BARs are not known.
pub fn needed(context: &Context<'_>) -> Option<u64> {
    let mut devices = Vec::new();
    let mut has_gpu = false;
    for passed in &context.machine.passed {
        let functions = context.functions(passed);
        if context.what(passed) == What::Gpu {
            has_gpu = true;
            devices.push(of_gpu(functions, context.hints.bar)?);
        } else {
            devices.push(functions.into_iter().flat_map(of_function).collect());
        }
    }
    has_gpu.then(|| of_devices(&devices))
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
        (1u64 << (bits.clamp(4, MOST_BITS) - 3)).clamp(CLASSIC, MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_of_known_gpus() {
        // H100: BAR1 of 128 GiB, BAR3 of 32 MiB. What else there is lies behind the registers.
        let h100 = vec![128 << 30, 32 << 20];
        assert_eq!(of_devices(std::slice::from_ref(&h100)), 256 << 30);
        assert_eq!(of_devices(&vec![h100.clone(); 8]), 8 * (256 << 30));
        // A drive's small BAR lies there too.
        assert_eq!(of_devices(&[h100, vec![256 << 20]]), 256 << 30);
        // Where the devices fill the window to its end, the rest needs room.
        assert_eq!(of_devices(&[vec![64 << 30]]), 65 << 30);
        assert_eq!(of_devices(&[]), REST);
        assert_eq!(of_devices(&[vec![u64::MAX, 1 << 60]]), u64::MAX);
    }

    #[test]
    fn only_prefetchable_windows_lie_above_4_gib() {
        use crate::facts::Fact;
        use crate::facts::pci::Bar;
        let bar = |index, size, flags| Bar { index, start: 0, size, flags };
        let bars = vec![
            bar(0, 16 << 10, 0x14_0204),
            bar(2, 1 << 20, 0x14_220c),
            bar(4, 1 << 20, 0x4_0200),
            bar(7, 1 << 30, 0x14_220c),
        ];
        let device = PciDevice { bars: Fact::known("resource", bars), ..PciDevice::default() };
        assert_eq!(of_function(&device), [1 << 20]);
        assert_eq!(of_gpu([&device], None), Some(vec![1 << 20]));
        assert_eq!(of_gpu([&device], Some(8 << 30)), Some(vec![8 << 30, REGISTERS]));
        assert_eq!(of_gpu([], None), None);
    }

    #[test]
    fn windows_are_powers_of_two() {
        assert_eq!(rounded(8 * (256 << 30)), 2 << 40);
        assert_eq!((rounded(0), rounded(u64::MAX)), (CLASSIC, 1 << 63));
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
