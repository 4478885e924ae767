//! Benchmarks of `cairn` beside casync and desync.

mod kernels;

fn main() {
    kernels::run(3);
}
