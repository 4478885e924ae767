//! The pack store on a simulated disk: any order of calls, faults and power cuts that a seed gives, and every promise held up
//! against it (`store/DURABILITY.md`).
//!
//! With the feature `sim` the disk and the bugs that can be planted are there for the tests of other crates, which have
//! simulators of their own (`index`: the collector). Not in any program.

mod disk;
#[cfg(test)]
mod rows;
pub mod runs;
#[cfg(test)]
mod seeds;
mod trouble;
#[cfg(test)]
mod workload;

pub use crate::pack::bug::{Bug, is_planted, plant};
pub use disk::{Counts, Disk, Faults};
pub use trouble::chunks;
