//! Index, collector, snapshots and scrub over packs on the pack store's simulated disk: any order of calls, faults and power cuts
//! that a seed gives, and every promise held up against it (`store/DURABILITY.md`). How runs are asked for:
//! `cairn_store::sim::runs`.

mod bucket;
mod objects;
mod process;
mod rows;
mod workload;

use cairn_store::sim::{Bug, runs};

use workload::World;

/// Goal: what a manifest names is there and right, whatever disk, collector and writers do; nothing leaks; a lost index comes back.
#[test]
fn no_seed_breaks_a_promise() {
    runs::no_seed_breaks_a_promise::<World>();
}

/// Goal: the simulator finds what it is for.
/// Method: one line of collector or pack store is turned around; some seed must fail.
#[test]
fn planted_bugs_are_found() {
    runs::planted_bugs_are_found::<World>(&[
        Bug::MissingRemark,
        Bug::SweepById,
        Bug::HalfSnapshot,
        Bug::ForgottenPieces,
        Bug::UnlinkFirst,
        Bug::UncheckedFrame,
    ]);
}

/// Goal: a seed that failed fails again.
#[test]
fn a_seed_always_does_the_same() {
    runs::a_seed_always_does_the_same::<World>();
}

/// Goal: objects that were acknowledged read back, whatever disk, collector and other uploads do; nothing of what was not is seen or
/// left.
#[test]
fn no_seed_loses_an_object() {
    runs::no_seed_breaks_a_promise::<objects::World>();
}

/// Goal: the simulator finds what it is for on the object path, too.
#[test]
fn planted_bugs_of_objects_are_found() {
    runs::planted_bugs_are_found::<objects::World>(&[
        Bug::UnfencedVersion,
        Bug::KeptParts,
        Bug::EventOutside,
        Bug::StaleSeam,
        Bug::SqueezeFirst,
        Bug::KeptPages,
        Bug::AheadOfLog,
    ]);
}

/// Goal: as above, of objects.
#[test]
fn a_seed_of_objects_always_does_the_same() {
    runs::a_seed_always_does_the_same::<objects::World>();
}
