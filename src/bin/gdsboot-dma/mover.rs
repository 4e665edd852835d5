//! One thread's transfers, whichever way they are made, and the comparison of what arrived.

use crate::cuda::{Cuda, GpuMemory, Pinned};
use crate::cufile::{Batch, Handle, Streams};
use gdsboot::bench::storage::Buffers;
use gdsboot::bench::transfer::job::{Direction, Job};
use gdsboot::bench::transfer::pattern::Pattern;
use gdsboot::bench::transfer::threads::words;
use gdsboot::bench::worker::{Failure, Holds};
use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// What the GPU's memory holds before a read that is compared, so that what was there before is not taken for what
/// arrived.
const POISON: u8 = 0xa5;

/// How a thread's bytes travel.
pub enum Way<'a> {
    /// cuFileRead and cuFileWrite.
    Cufile(&'a Handle<'a>),
    /// Several of them at a time.
    Batch(&'a Handle<'a>, Batch<'a>),
    /// Several of them at a time, each on a stream of its own.
    Streams(&'a Handle<'a>, Streams<'a>),
    /// By the CPU's memory.
    Bounce(Pinned<'a>),
    /// Between the CPU's memory and the GPU's.
    HostCopy(Pinned<'a>),
}

/// What one thread needs for its transfers.
pub struct Mover<'a> {
    pub cuda: &'a Cuda,
    pub file: &'a File,
    pub way: Way<'a>,
    /// A buffer for each transfer that is under way at a time.
    pub memory: &'a [GpuMemory<'a>],
    pub job: &'a Job,
    pub holds: Holds,
}

/// A block that was compared.
pub struct Compared {
    /// What is wrong with it.
    pub wrong: Option<String>,
    /// Is it one and the same byte throughout?
    pub uniform: bool,
}

impl Mover<'_> {
    /// Fills the memory with what a job writes that compares nothing.
    pub fn fill(&mut self) -> Result<(), Failure> {
        for slot in 0..self.memory.len() {
            self.prepare(slot, slot as u64 * 8)?;
        }
        Ok(())
    }

    /// Readies a buffer for a transfer that will be compared.
    pub fn prepare(&mut self, slot: usize, offset: u64) -> Result<(), Failure> {
        let Self { job: Job { direction, seed, block, .. }, memory, way, .. } = self;
        let pattern = Pattern { seed: *seed };
        if let Way::HostCopy(pinned) = way {
            pattern.fill(pinned.bytes(), offset);
        }
        match direction {
            Direction::Read => memory[slot].fill(POISON),
            Direction::Write => {
                let mut bytes = vec![0; *block as usize];
                pattern.fill(&mut bytes, offset);
                if let Way::HostCopy(pinned) = way {
                    pinned.bytes().fill(POISON);
                }
                memory[slot].set(&bytes)
            }
        }
    }

    /// Makes the transfers to or from these offsets, one for each buffer from the first on; `results` becomes what each
    /// made. It is the caller's, so that nothing is allocated for a transfer.
    pub fn transfer(&mut self, offsets: &[u64], results: &mut Vec<Result<usize, Failure>>) {
        let Self { file, way, memory, job: Job { direction, block, .. }, .. } = self;
        let (direction, bytes) = (*direction, *block as usize);
        let pairs = memory.iter().zip(offsets.iter().copied());
        results.clear();
        match way {
            Way::Cufile(handle) => {
                results
                    .extend(pairs.map(|(memory, offset)| handle.transfer(direction, memory, bytes, offset)));
            }
            Way::Batch(handle, batch) => {
                let pairs: Vec<_> = pairs.collect();
                match batch.transfer(handle, direction, bytes, &pairs) {
                    Ok(made) => results.extend(made),
                    Err(failure) => results.resize(offsets.len(), Err(failure)),
                }
            }
            Way::Streams(handle, streams) => streams.transfer(handle, bytes, pairs, results),
            Way::Bounce(pinned) => {
                results.extend(pairs.map(|(memory, offset)| bounce(file, pinned, direction, memory, offset)));
            }
            Way::HostCopy(pinned) => {
                let copied = pairs.map(|(memory, _)| match direction {
                    Direction::Read => pinned.copy_to_gpu(memory),
                    Direction::Write => pinned.copy_from_gpu(memory),
                });
                results.extend(copied.map(|copied| copied.map(|()| bytes)));
            }
        }
    }

    /// Compares what a transfer made, at its destination, with what it had to make. The error says why it could not be
    /// compared.
    pub fn compare(&mut self, slot: usize, offset: u64) -> Result<Compared, Failure> {
        let Job { direction, seed, block, .. } = *self.job;
        let mut aligned = Buffers::new(1, block as usize).map_err(|error| io("taking memory", &error))?;
        let wanted = aligned.get_mut(0);
        let pattern = Pattern { seed };
        let of_pattern = |bytes: &[u8]| {
            let wrong = pattern.check(bytes, offset).err().map(|mismatch| mismatch.to_string());
            Compared { wrong, uniform: false }
        };
        if let (Way::HostCopy(pinned), Direction::Write) = (&mut self.way, direction) {
            return Ok(of_pattern(pinned.bytes()));
        }
        match direction {
            Direction::Write => {
                self.read_by_cpu(wanted, offset)?;
                Ok(of_pattern(wanted))
            }
            Direction::Read => {
                let mut arrived = vec![0; block as usize];
                self.memory[slot].get(&mut arrived)?;
                if self.holds == Holds::Pattern || matches!(self.way, Way::HostCopy(_)) {
                    return Ok(of_pattern(&arrived));
                }
                self.read_by_cpu(wanted, offset)?;
                let wrong = arrived.iter().zip(&*wanted).position(|(found, wanted)| found != wanted);
                let said = |at: usize| {
                    let (place, found, wanted) = (offset + at as u64, arrived[at], wanted[at]);
                    format!("at byte {place}: {found:#04x} instead of {wanted:#04x}, as the CPU reads it")
                };
                Ok(Compared { wrong: wrong.map(said), uniform: wanted[1..] == wanted[..wanted.len() - 1] })
            }
        }
    }

    fn read_by_cpu(&self, buffer: &mut [u8], offset: u64) -> Result<(), Failure> {
        let done = self.file.read_at(buffer, offset).map_err(|error| io("pread", &error))?;
        if done == buffer.len() {
            return Ok(());
        }
        Err(Failure {
            function: Some("pread".into()),
            text: format!("{done} of {} bytes", buffer.len()),
            ..Failure::default()
        })
    }
}

fn io(function: &str, error: &std::io::Error) -> Failure {
    Failure { function: Some(function.into()), text: words(error), ..Failure::default() }
}

/// One transfer between the drive and the GPU by way of the CPU's memory.
fn bounce(
    file: &File,
    pinned: &mut Pinned<'_>,
    direction: Direction,
    memory: &GpuMemory<'_>,
    offset: u64,
) -> Result<usize, Failure> {
    match direction {
        Direction::Read => {
            let done = file.read_at(pinned.bytes(), offset).map_err(|error| io("pread", &error))?;
            if done == pinned.bytes().len() {
                pinned.copy_to_gpu(memory)?;
            }
            Ok(done)
        }
        Direction::Write => {
            pinned.copy_from_gpu(memory)?;
            file.write_at(pinned.bytes(), offset).map_err(|error| io("pwrite", &error))
        }
    }
}
