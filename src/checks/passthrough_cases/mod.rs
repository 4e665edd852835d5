//! Machines from public threads: hypervisors, guests and PCI Express hardware. Every test builds the folder that the owner
//! would have captured, names where the case was met, and asks that the true cause is among the first three findings,
//! that nothing else fails, and that no machine passes.

mod guests;
mod healthy;
mod hosts;
mod machine;
mod metal;
mod odd;
mod wordings;
