//! gdsboot: parse, dispatch, print the error and its hint.

fn main() {}
