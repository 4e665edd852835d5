//! One thread's transfers, whichever way they are made, and the comparison of what arrived.

use crate::cuda::{Cuda, GpuMemory, Pinned};
use crate::cufile::{Batch, FileStream, Handle};
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
    /// One on each of several streams.
    Streams(&'a Handle<'a>, Vec<FileStream<'a>>),
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

/// What came of a comparison.
pub struct Compared {
    /// What is wrong.
    pub wrong: Option<String>,
    /// Is it one and the same byte throughout, so that data from another place would not be noticed?
    pub is_uniform: bool,
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

    /// Makes the transfers to or from these offsets, one for each buffer from the first on; what each made is added to
    /// `results`.
    pub fn transfer(&mut self, offsets: &[u64], results: &mut Vec<Result<usize, Failure>>) {
        let Job { direction, block, .. } = *self.job;
        let bytes = block as usize;
        let pairs = self.memory.iter().zip(offsets.iter().copied());
        match &mut self.way {
            Way::Cufile(handle) => {
                results
                    .extend(pairs.map(|(memory, offset)| handle.transfer(direction, memory, bytes, offset)));
            }
            Way::Batch(handle, batch) => {
                let pairs: Vec<_> = pairs.collect();
                match batch.transfer(handle, direction, bytes, &pairs) {
                    Ok(done) => results.extend(done),
                    Err(failure) => results.extend(std::iter::repeat_n(Err(failure), offsets.len())),
                }
            }
            Way::Streams(handle, streams) => {
                let begun: Vec<_> = (streams.iter_mut().zip(pairs))
                    .map(|(stream, (memory, offset))| stream.begin(handle, direction, memory, offset))
                    .collect();
                let ended = streams.iter_mut().zip(begun);
                results.extend(ended.map(|(stream, begun)| begun.and_then(|()| stream.end(direction))));
            }
            Way::Bounce(pinned) => {
                results.extend(
                    pairs.map(|(memory, offset)| bounce(self.file, pinned, direction, memory, offset)),
                );
            }
            Way::HostCopy(pinned) => {
                let mut one = |memory: &GpuMemory<'_>| match direction {
                    Direction::Read => pinned.copy_to_gpu(memory),
                    Direction::Write => pinned.copy_from_gpu(memory),
                };
                results.extend(pairs.map(|(memory, _)| one(memory).map(|()| bytes)));
            }
        }
    }

    /// Compares what a transfer made, at its destination, with what it had to make. The error says that it could not be
    /// compared.
    pub fn compare(&mut self, slot: usize, offset: u64) -> Result<Compared, Failure> {
        let Job { direction, seed, block, .. } = *self.job;
        let mut aligned = Buffers::new(1, block as usize).map_err(|error| io("taking memory", &error))?;
        let wanted = aligned.get_mut(0);
        let pattern = Pattern { seed };
        let of_pattern = |bytes: &[u8]| Compared {
            wrong: pattern.check(bytes, offset).err().map(|mismatch| mismatch.to_string()),
            is_uniform: false,
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
                Ok(as_the_cpu_reads(&arrived, wanted, offset))
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

/// From the drive into the CPU's memory and on to the GPU, or back.
fn bounce(
    file: &File,
    pinned: &mut Pinned<'_>,
    direction: Direction,
    memory: &GpuMemory<'_>,
    offset: u64,
) -> Result<usize, Failure> {
    match direction {
        Direction::Read => {
            let buffer = pinned.bytes();
            let wanted = buffer.len();
            let done = file.read_at(buffer, offset).map_err(|error| io("pread", &error))?;
            if done == wanted {
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

fn as_the_cpu_reads(arrived: &[u8], wanted: &[u8], offset: u64) -> Compared {
    let wrong = arrived.iter().zip(wanted).position(|(found, wanted)| found != wanted).map(|at| {
        let (found, wanted) = (arrived[at], wanted[at]);
        format!("at byte {}: {found:#04x} instead of {wanted:#04x}, as the CPU reads it", offset + at as u64)
    });
    Compared { wrong, is_uniform: wanted.iter().all(|byte| *byte == wanted[0]) }
}

fn io(function: &str, error: &std::io::Error) -> Failure {
    Failure { function: Some(function.into()), text: words(error), ..Failure::default() }
}
