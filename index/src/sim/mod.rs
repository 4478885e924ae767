//! Index, collector, snapshots and scrub over packs on the pack store's simulated disk: any order of calls, faults and power cuts
//! that a seed gives, and every promise held up against it (`store/DURABILITY.md`).
//!
//! `SEEDS=n` runs so many (2 000 if it is not set), `SEED=n` one of them, telling what it does. The same seed does the same
//! every time, on any machine.

mod rows;
mod workload;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use cairn_store::sim::{Bug, plant};

use workload::World;

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

/// Goal: what a manifest names is there and right, whatever disk, collector and writers do; nothing leaks; a lost index comes back.
#[test]
fn no_seed_breaks_a_promise() {
    if let Some(seed) = number("SEED") {
        if let Err(why) = simulate(seed, None, true) {
            panic!("seed {seed}: {why}");
        }
        return;
    }
    let (first, seeds) = (number("FIRST_SEED").unwrap_or(0), number("SEEDS").unwrap_or(SEEDS));
    let next = AtomicU64::new(first);
    let failed = Mutex::new(Vec::new());
    let sums = [const { AtomicU64::new(0) }; 7];
    let began = Instant::now();
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds {
                break;
            }
            match simulate(seed, None, false) {
                Ok(world) => {
                    for (sum, count) in sums.iter().zip(world.counts()) {
                        sum.fetch_add(count, Ordering::Relaxed);
                    }
                }
                Err(why) => failed.lock().unwrap().push((seed, why)),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let [operations, cuts, faults, damages, reopened, collected, sealed] = sums.map(AtomicU64::into_inner);
    println!(
        "{seeds} seeds from {first} on in {:.0?}: {operations} disk operations, {cuts} power cuts, {faults} faults, \
         {damages} silent damages, {reopened} openings, {collected} collections, {sealed} snapshots",
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
/// Method: one line of collector or pack store is turned around; some seed must fail.
#[test]
fn planted_bugs_are_found() {
    let bugs = [
        Bug::MissingRemark,
        Bug::SweepById,
        Bug::HalfSnapshot,
        Bug::ForgottenPieces,
        Bug::UnlinkFirst,
        Bug::UncheckedFrame,
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
    let counts = || simulate(11, None, false).map(|world| world.counts());
    assert_eq!(counts(), counts());
}
