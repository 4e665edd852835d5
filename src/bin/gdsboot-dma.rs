//! gdsboot-dma
fn main() {}
