//! Benchmarks of `cairn` beside casync and desync.

fn main() {}
