//! Runs of the simulator, and proof that it finds what it is for.
//!
//! `SEEDS=n` runs so many (2 000 if it is not set), `SEED=n` one of them, telling what it does. The same seed does the same
//! every time, on any machine.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::workload::World;
use crate::pack::bug::{Bug, plant};

/// Seeds of a run that nobody asked more of.
const SEEDS: u64 = 2000;

/// Runs one seed. The error says which promise was broken.
fn simulate(seed: u64, bug: Option<Bug>, talk: bool) -> Result<World, String> {
    plant(bug);
    let run = || {
        let mut world = World::new(seed, talk);
        let outcome = world.run();
        outcome.map(|()| world)
    };
    let outcome = catch_unwind(AssertUnwindSafe(run));
    plant(None);
    outcome.unwrap_or_else(|_| Err("it panicked".to_owned()))
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().expect("a number of seeds, or of one"))
}

/// Goal: nothing that was acknowledged is lost, nothing wrong is read, whatever the disk does.
#[test]
fn no_seed_breaks_a_promise() {
    if let Some(seed) = number("SEED") {
        if let Err(why) = simulate(seed, None, true) {
            panic!("seed {seed}: {why}");
        }
        return;
    }
    let seeds = number("SEEDS").unwrap_or(SEEDS);
    let first = number("FIRST_SEED").unwrap_or(0);
    let next = AtomicU64::new(first);
    let failed = Mutex::new(Vec::new());
    let sums = [const { AtomicU64::new(0) }; 5];
    let began = Instant::now();
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        break;
                    }
                    match simulate(seed, None, false) {
                        Ok(world) => {
                            let counts = world.disk().counts();
                            let counts = [
                                counts.operations,
                                counts.power_cuts,
                                counts.faults,
                                counts.damages,
                                world.reopened,
                            ];
                            for (sum, count) in sums.iter().zip(counts) {
                                sum.fetch_add(count, Ordering::Relaxed);
                            }
                        }
                        Err(why) => failed.lock().unwrap().push((seed, why)),
                    }
                }
            });
        }
    });
    let [operations, cuts, faults, damages, reopened] = sums.map(AtomicU64::into_inner);
    println!(
        "{seeds} seeds from {first} on in {:.0?}: {operations} disk operations, {cuts} power cuts, {faults} faults, \
         {damages} silent damages, {reopened} openings",
        began.elapsed()
    );
    let mut failed = failed.into_inner().unwrap();
    failed.sort();
    let some: Vec<String> = failed
        .iter()
        .take(20)
        .map(|(seed, why)| format!("SEED={seed}: {why}"))
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {seeds} seeds failed\n{}",
        failed.len(),
        some.join("\n")
    );
}

/// Goal: the simulator finds what it is for.
/// Method: one line of the engine is turned around; some seed must fail.
#[test]
fn planted_bugs_are_found() {
    let bugs = [
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
    ];
    let hunt = |bug| (0..SEEDS).find_map(|seed| Some((seed, simulate(seed, Some(bug), false).err()?)));
    std::thread::scope(|scope| {
        let hunts = bugs.map(|bug| (bug, scope.spawn(move || hunt(bug))));
        for (bug, hunt) in hunts {
            let (seed, why) = hunt.join().unwrap().unwrap_or_else(|| panic!("{bug:?} was not found"));
            println!("{bug:?}: seed {seed}: {why}");
        }
    });
}

/// Goal: a seed that failed fails again.
#[test]
fn a_seed_always_does_the_same() {
    let operations = || simulate(11, None, false).map(|world| world.disk().counts().operations);
    assert_eq!(operations(), operations());
}
