//! Machines whose software is at fault, captured as their owners would have captured them, after cases that people told in
//! public. Each test names its case; the true causes must be among the first three findings, and nothing else may fail.
//!
//! | file | what is at fault |
//! |---|---|
//! | [`good`] | nothing |
//! | [`driver`] | NVIDIA's driver, its firmware and the kernel's trust in it |
//! | [`nvidia_fs`] | nvidia-fs and the patched nvme driver |
//! | [`p2pdma`] | the kernel's PCI P2PDMA and its settings |
//! | [`storage`] | filesystems, RAID, device-mapper, drives |
//! | [`userland`] | cuFile's libraries and settings, containers, WSL |
//! | [`forms`] | the same in other forms |
//! | [`two_faults`] | two things at once |
//! | [`odd`] | the capture itself |

mod driver;
mod forms;
mod good;
mod machine;
mod nvidia_fs;
mod odd;
mod p2pdma;
mod printed;
mod storage;
mod two_faults;
mod userland;
