//! What answers a client: configuration space, windows, resets, and faults.
//!
//! No answer is an error but that to a reset that is refused: `vfio_user` sends errors without a number, which QEMU takes
//! for success. What does not exist reads as ones, as on a bus.

use crate::config_space::ConfigSpace;
use crate::error::Result;
use crate::function::Function;
use crate::memory::Memory;
use crate::server::Counters;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use vfio_bindings::bindings::vfio::{
    VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_NUM_REGIONS, VFIO_REGION_INFO_FLAG_MMAP,
    VFIO_REGION_INFO_FLAG_READ, VFIO_REGION_INFO_FLAG_WRITE, vfio_region_info, vfio_region_sparse_mmap_area,
};
use vfio_user::{DmaMapFlags, DmaUnmapFlags, ServerBackend, ServerRegion, SparseArea};

/// A function with the state that it is in.
#[derive(Debug)]
pub(crate) struct Device {
    function: Function,
    config: ConfigSpace,
    /// By region, as the windows are.
    memory: Vec<Option<Memory>>,
    /// Reads of the registers since the last reset.
    reads: u32,
    gone: bool,
    counters: Arc<Counters>,
}

impl Device {
    pub(crate) fn new(function: Function, counters: Arc<Counters>) -> Result<Device> {
        let mut memory: Vec<Option<Memory>> = (0..VFIO_PCI_NUM_REGIONS).map(|_| None).collect();
        for bar in function.bars.iter().filter(|bar| bar.memory) {
            memory[usize::from(bar.index)] = Some(Memory::new(bar.size)?);
        }
        let config = ConfigSpace::new(&function);
        Ok(Device { function, config, memory, reads: 0, gone: false, counters })
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The regions as a client is told of them. Windows with memory can be mapped, unless reading them must be seen.
    pub(crate) fn regions(&self) -> Vec<ServerRegion> {
        (0..VFIO_PCI_NUM_REGIONS).map(|index| self.region(index)).collect()
    }

    fn region(&self, index: u32) -> ServerRegion {
        let bar = self.function.bars.iter().find(|bar| u32::from(bar.index) == index);
        let size = match bar {
            Some(bar) => bar.size.bytes(),
            None if index == VFIO_PCI_CONFIG_REGION_INDEX => self.config.bytes().len() as u64,
            None => 0,
        };
        let mappable = self.memory[index as usize].as_ref().filter(|_| self.function.gone_after.is_none());
        let mut flags = if size > 0 { VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE } else { 0 };
        if mappable.is_some() {
            flags |= VFIO_REGION_INFO_FLAG_MMAP;
        }
        let argsz = size_of::<vfio_region_info>() as u32;
        ServerRegion {
            region_info: vfio_region_info { argsz, flags, index, size, ..Default::default() },
            sparse_areas: mappable
                .map(|_| SparseArea { area: vfio_region_sparse_mmap_area { offset: 0, size } })
                .into_iter()
                .collect(),
            mmap_fd: mappable.map(Memory::fd),
        }
    }

    /// Counts a read of the registers, after which the function may be gone.
    fn registers_are_read(&mut self) {
        self.counters.register_reads.fetch_add(1, Relaxed);
        self.gone |= self.function.gone_after.is_some_and(|limit| self.reads >= limit);
        self.reads = self.reads.saturating_add(1);
    }

    /// Bytes of the first window that are no memory.
    fn read_registers(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        for (at, value) in &self.function.registers {
            for (byte, place) in value.to_le_bytes().iter().zip(*at..) {
                let target = place.checked_sub(offset).and_then(|n| data.get_mut(usize::try_from(n).ok()?));
                if let Some(target) = target {
                    *target = *byte;
                }
            }
        }
    }

    fn is_reset(&mut self) {
        (self.reads, self.gone) = (0, false);
        self.counters.resets.fetch_add(1, Relaxed);
    }
}

impl ServerBackend for Device {
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.counters.talked.store(true, Relaxed);
        let bar = self.function.bars.iter().find(|bar| u32::from(bar.index) == region).copied();
        if region == 0 && bar.is_some() {
            self.registers_are_read();
        }
        match (bar, &self.memory[region as usize]) {
            _ if self.gone => data.fill(0xff),
            (Some(_), Some(memory)) => memory.read(offset, data)?,
            (Some(bar), None) if offset < bar.size.bytes() => self.read_registers(offset, data),
            (None, _) if region == VFIO_PCI_CONFIG_REGION_INDEX => self.config.read(offset, data),
            _ => data.fill(0xff),
        }
        Ok(())
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        self.counters.talked.store(true, Relaxed);
        if self.gone {
            return Ok(());
        }
        if region == VFIO_PCI_CONFIG_REGION_INDEX {
            if self.config.write(offset, data) == crate::config_space::Effect::Reset {
                self.is_reset();
            }
            return Ok(());
        }
        match &self.memory[region as usize] {
            Some(memory) => memory.write(offset, data),
            // Registers keep nothing.
            None => Ok(()),
        }
    }

    fn dma_map(&mut self, _: DmaMapFlags, _: u64, _: u64, _: u64, _: Option<File>) -> io::Result<()> {
        self.counters.talked.store(true, Relaxed);
        // The function starts no transfers: the guest's memory is none of its business.
        Ok(())
    }

    fn dma_unmap(&mut self, _: DmaUnmapFlags, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn reset(&mut self) -> io::Result<()> {
        if !self.function.resettable {
            self.counters.refused_resets.fetch_add(1, Relaxed);
            return Err(io::Error::other("this function refuses to be reset"));
        }
        self.config.reset();
        self.is_reset();
        Ok(())
    }

    fn set_irqs(&mut self, _: u32, _: u32, _: u32, _: u32, _: Vec<File>) -> io::Result<()> {
        // It raises none.
        Ok(())
    }
}
