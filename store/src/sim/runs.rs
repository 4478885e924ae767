//! Runs of a simulator over many seeds, and the hunt for planted bugs: what every simulator on this disk shares.
//!
//! `SEEDS=n` runs so many (2 000 if it is not set) from `FIRST_SEED` on, `SEED=n` one of them, telling what it does. The same
//! seed does the same every time, on any machine. For tests only: what fails is a panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::{Bug, Counts, plant};

/// Seeds of a run that nobody asked more of, and of a hunt.
const SEEDS: u64 = 2000;

/// Seeds that a failed run names.
const NAMED: usize = 20;

/// One run of a simulator.
pub trait Simulated: Sized {
    /// What it counts besides the disk's own, in words.
    const COUNTED: &'static [&'static str];

    /// Everything that happens follows from the seed.
    ///
    /// - `talk`: it tells what it does.
    fn new(seed: u64, talk: bool) -> Self;

    /// To its end. Errors: the first promise that was broken.
    fn run(&mut self) -> Result<(), String>;

    /// What the disk did.
    fn disk(&self) -> Counts;

    /// As many as [`Simulated::COUNTED`] names.
    fn counts(&self) -> Vec<u64>;
}

/// Runs one seed, with a bug in the engine or without. Errors: the promise that was broken.
pub fn simulate<W: Simulated>(seed: u64, bug: Option<Bug>, talk: bool) -> Result<W, String> {
    plant(bug);
    let run = || {
        let mut world = W::new(seed, talk);
        let outcome = world.run();
        outcome.map(|()| world)
    };
    let outcome = catch_unwind(AssertUnwindSafe(run));
    plant(None);
    outcome.unwrap_or_else(|_| Err("it panicked".to_owned()))
}

/// Runs the seeds that were asked for, and panics with those that broke a promise.
pub fn no_seed_breaks_a_promise<W: Simulated>() {
    if let Some(seed) = number("SEED") {
        if let Err(why) = simulate::<W>(seed, None, true) {
            panic!("seed {seed}: {why}");
        }
        return;
    }
    let (first, seeds) = (number("FIRST_SEED").unwrap_or(0), number("SEEDS").unwrap_or(SEEDS));
    let names = ["disk operations", "power cuts", "faults", "silent damages"];
    let names = || names.iter().chain(W::COUNTED);
    let sums: Vec<AtomicU64> = names().map(|_| AtomicU64::new(0)).collect();
    let (next, failed, began) = (AtomicU64::new(first), Mutex::new(Vec::new()), Instant::now());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds {
                break;
            }
            match simulate::<W>(seed, None, false) {
                Ok(world) => {
                    let disk = world.disk();
                    let disk = [disk.operations, disk.power_cuts, disk.faults, disk.damages];
                    for (sum, count) in sums.iter().zip(disk.into_iter().chain(world.counts())) {
                        sum.fetch_add(count, Ordering::Relaxed);
                    }
                }
                Err(why) => failed.lock().unwrap_or_else(PoisonError::into_inner).push((seed, why)),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(work);
        }
    });
    let sums = names()
        .zip(sums)
        .map(|(name, sum)| format!("{} {name}", sum.into_inner()));
    println!(
        "{seeds} seeds from {first} on in {:.0?}: {}",
        began.elapsed(),
        sums.collect::<Vec<_>>().join(", ")
    );
    let mut failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.sort();
    let some = failed
        .iter()
        .take(NAMED)
        .map(|(seed, why)| format!("SEED={seed}: {why}"));
    assert!(
        failed.is_empty(),
        "{} of {seeds} seeds failed\n{}",
        failed.len(),
        some.collect::<Vec<_>>().join("\n")
    );
}

/// Each bug makes some seed fail; panics with one that does not.
pub fn planted_bugs_are_found<W: Simulated>(bugs: &[Bug]) {
    let hunt = |bug| (0..SEEDS).find_map(|seed| Some((seed, simulate::<W>(seed, Some(bug), false).err()?)));
    std::thread::scope(|scope| {
        let hunts: Vec<_> = bugs.iter().map(|&bug| (bug, scope.spawn(move || hunt(bug)))).collect();
        for (bug, hunt) in hunts {
            match hunt.join() {
                Ok(Some((seed, why))) => println!("{bug:?}: seed {seed}: {why}"),
                _ => panic!("{bug:?} was not found"),
            }
        }
    });
}

/// A seed that failed fails again: two runs of one do the same.
pub fn a_seed_always_does_the_same<W: Simulated>() {
    let counts = || simulate::<W>(11, None, false).map(|world| (world.disk().operations, world.counts()));
    assert_eq!(counts(), counts());
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().expect("a number of seeds, or of one"))
}
