//! An apt archive that a test makes, signs and serves on loopback: Ubuntu-shaped, NVIDIA-shaped, Debian-shaped.
//!
//! | file | what it is about |
//! |---|---|
//! | `stanza` | paragraphs of fields |
//! | `date` | the spellings of a time |
//! | `body` | bytes in memory or on disk |
//! | `hash` | MD5, SHA-1, SHA-256, SHA-512 |
//! | `deb` | writes a .deb, reads one back to change it |
//! | `repository` | packages -> `Packages`, `Release`, by-hash, pool |
//! | `sign` | keys and signatures |
//! | `snapshots` | publications by time, `/<ID>/...` |
//! | `server` | serves it all, counts requests, misbehaves on request |
//! | `hostile` | packages that must be refused, and odd ones that must not |
//! | `artefacts` | kernel modules, loaders, kernels that can be looked into |
//! | `ubuntu` | an Ubuntu series and NVIDIA's repository, with their traps |
//! | `real` | the same with what Debian's mirror gives inside, so that it boots |
//! | `apt` | the host's apt-get in isolation, the judge of the above |

#![allow(dead_code, reason = "each test that includes this module takes what it needs")]

pub mod apt;
pub mod artefacts;
pub mod body;
pub mod date;
pub mod deb;
pub mod hash;
pub mod hostile;
pub mod real;
pub mod repository;
pub mod server;
pub mod sign;
pub mod snapshots;
pub mod stanza;
pub mod ubuntu;
