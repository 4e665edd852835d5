//! Which GPUs are tried with which drives.

use super::{Ranks, Thoroughness};

/// Which pairs are tried, in which order.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    /// Those whose route is looked for.
    pub all: Vec<(usize, usize)>,
    /// Those among them that are measured: the nearest drive of each GPU, and one that is farther.
    pub measured: Vec<(usize, usize)>,
    /// Those that are left out.
    pub left_out: Vec<(usize, usize)>,
    /// Each drive with the GPU that is nearest to it, all at the same time.
    pub together: Vec<(usize, usize)>,
}

impl Pairs {
    pub fn new(thoroughness: Thoroughness, drives: usize, ranks: &Ranks) -> Self {
        let mut pairs = Self::default();
        let mut uses = vec![0_usize; drives];
        // Of drives that are equally far, the one that fewer GPUs have.
        let mut nearest = |gpu: usize, of: &dyn Fn(u8) -> bool| {
            let ranked = ranks[gpu].iter().enumerate().filter(|(_, rank)| of(**rank));
            let found =
                ranked.min_by_key(|(drive, rank)| (**rank, uses[*drive], *drive)).map(|(drive, _)| drive);
            found.inspect(|drive| uses[*drive] += 1)
        };
        let near: Vec<usize> = (0..ranks.len()).filter_map(|gpu| nearest(gpu, &|_| true)).collect();
        for (gpu, &drive) in near.iter().enumerate() {
            pairs.measured.push((gpu, drive));
        }
        // The farthest drive of the GPU that has the farthest one; of every GPU where there is time.
        let far = |gpu: usize| {
            let rank = *ranks[gpu].iter().max()?;
            (rank > ranks[gpu][near[gpu]]).then_some((rank, gpu))
        };
        let mut farthest: Vec<(u8, usize)> = (0..near.len()).filter_map(far).collect();
        farthest.sort_by_key(|(rank, gpu)| (std::cmp::Reverse(*rank), *gpu));
        if thoroughness != Thoroughness::Full {
            farthest.truncate(1);
        }
        for (rank, gpu) in farthest {
            pairs.measured.extend(nearest(gpu, &|other| other == rank).map(|drive| (gpu, drive)));
        }
        pairs.all = pairs.measured.clone();
        for gpu in 0..ranks.len() {
            let mut kinds: Vec<u8> = ranks[gpu].clone();
            kinds.sort_unstable();
            kinds.dedup();
            for kind in kinds {
                let is_there = |pairs: &Self| pairs.all.iter().any(|&(g, d)| g == gpu && ranks[g][d] == kind);
                if !is_there(&pairs) {
                    pairs.all.extend(nearest(gpu, &|rank| rank == kind).map(|drive| (gpu, drive)));
                }
            }
        }
        let mut busy = vec![0_usize; ranks.len()];
        for drive in 0..drives {
            let gpu = (0..ranks.len()).min_by_key(|&gpu| (ranks[gpu][drive], busy[gpu], gpu));
            let Some(gpu) = gpu else { break };
            busy[gpu] += 1;
            pairs.together.push((gpu, drive));
            if !pairs.all.iter().any(|&(_, tried)| tried == drive) {
                pairs.all.push((gpu, drive));
            }
        }
        // A GPU that no drive is nearest to reads from the one that is nearest to itself.
        for (gpu, &drive) in near.iter().enumerate() {
            if busy[gpu] == 0 {
                pairs.together.push((gpu, drive));
            }
        }
        for gpu in 0..ranks.len() {
            for drive in (0..drives).filter(|drive| !pairs.all.contains(&(gpu, *drive))).collect::<Vec<_>>() {
                if thoroughness == Thoroughness::Full {
                    pairs.all.push((gpu, drive));
                } else {
                    pairs.left_out.push((gpu, drive));
                }
            }
        }
        pairs
    }
}
