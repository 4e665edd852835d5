//! gdsboot-dma's worker and its parent, end to end, with libraries that imitate NVIDIA's over the CPU's memory
//! (qemu/simulated-cufile). Files are read and written past the page cache.

mod data;
mod failures;
mod machine;
mod opening;
mod routes;
mod settings;
#[path = "../simulated/mod.rs"]
mod simulated;
mod states;
mod streams;
