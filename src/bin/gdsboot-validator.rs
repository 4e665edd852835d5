//! gdsboot-validator
fn main() {}
