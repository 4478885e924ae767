//! Runs of the pack store's simulator, and proof that it finds what it is for.

use super::workload::World;
use super::{Bug, runs};

/// Goal: nothing that was acknowledged is lost, nothing wrong is read, whatever the disk does.
#[test]
fn no_seed_breaks_a_promise() {
    runs::no_seed_breaks_a_promise::<World>();
}

/// Goal: the simulator finds what it is for.
/// Method: one line of the engine is turned around; some seed must fail.
#[test]
fn planted_bugs_are_found() {
    runs::planted_bugs_are_found::<World>(&[
        Bug::MissingSync,
        Bug::MissingNameSync,
        Bug::TrustAfterFailedSync,
        Bug::UnlinkFirst,
        Bug::UncheckedFrame,
        Bug::EarlyWatermark,
        Bug::CommitBehindGap,
        Bug::ForgottenRemovals,
        Bug::HalfSnapshot,
        Bug::ForgottenPieces,
    ]);
}

/// Goal: a seed that failed fails again.
#[test]
fn a_seed_always_does_the_same() {
    runs::a_seed_always_does_the_same::<World>();
}
