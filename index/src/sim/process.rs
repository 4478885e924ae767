//! How a simulated process ends, however it ends, and how the next one begins: the same for every simulator of the index.
//!
//! A process is closed, killed, or loses its power with the disk; the rows fall back to what their files had, and are lost altogether now
//! and then. Then the store is opened, however often that takes. Not here: what is done to it, and what has to be true of it then.

use std::fmt::Debug;
use std::sync::Arc;

use cairn_store::sim::{Disk, Faults};

use super::rows::SimRows;

/// What is wrong, in words.
pub(super) type Outcome<T = ()> = Result<T, String>;

/// Openings that may fail before the disk is good.
const ATTEMPTS: u32 = 5;

macro_rules! ensure {
    ($condition:expr, $($why:tt)*) => {
        if !$condition {
            return Err(format!($($why)*));
        }
    };
}
pub(super) use ensure;

macro_rules! say {
    ($world:expr, $($what:tt)*) => {{
        let machine = $world.machine();
        if machine.talk {
            eprintln!("{:4} {:6} {}", machine.step, machine.disk.counts().operations, format!($($what)*));
        }
    }};
}
pub(super) use say;

/// What stays from process to process, and what each simulator needs to know of itself.
pub(super) struct Machine {
    pub(super) random: fastrand::Rng,
    pub(super) disk: Disk,
    pub(super) rows: Arc<SimRows>,
    pub(super) step: u64,
    pub(super) talk: bool,
    /// Commits are refused.
    pub(super) is_broken: bool,
    pub(super) reopened: u64,
}

impl Machine {
    pub(super) fn new(mut random: fastrand::Rng, faults: Faults, talk: bool) -> Self {
        Self {
            disk: Disk::new(random.fork(), faults),
            random,
            rows: Arc::default(),
            step: 0,
            talk,
            is_broken: false,
            reopened: 0,
        }
    }
}

/// How a process ended that did not end in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crash {
    /// What it wrote is there.
    Killed,
    /// What was not synced may not be.
    PowerCut,
}

/// A simulator whose store is open in a process, on a machine.
pub(super) trait Process {
    /// A store that has just been opened.
    type Opened;
    /// Why one could not be.
    type Error: Debug;

    fn machine(&self) -> &Machine;

    fn machine_mut(&mut self) -> &mut Machine;

    /// The process is gone, and all that it alone knew.
    fn forget(&mut self);

    /// It did not end in order: what was not durable may be gone.
    fn crashed(&mut self, _crash: Crash) {}

    /// The rows are lost with one process in so many.
    fn rows_lost_in(&self) -> Option<u32>;

    fn try_open(&self) -> Result<Self::Opened, Self::Error>;

    /// Takes up what was opened, and looks at everything. The disk is good meanwhile.
    fn take_up(&mut self, opened: Self::Opened) -> Outcome;

    /// Does one thing.
    fn one_step(&mut self) -> Outcome;

    /// Opens the store and does so many things, whatever happens to it.
    fn do_steps(&mut self, steps: u32) -> Outcome {
        self.open()?;
        for _ in 0..steps {
            self.machine_mut().step += 1;
            self.one_step()?;
            let machine = self.machine_mut();
            if machine.disk.is_off() {
                say!(self, "the power went");
                self.lose_power();
                self.open()?;
            } else if machine.is_broken && machine.random.bool() {
                self.close()?;
            }
        }
        Ok(())
    }

    /// Something was refused, which is right as long as the disk had its part in it.
    fn failed(&mut self, what: &str, error: &impl Debug) {
        let words = format!("{error:?}");
        say!(self, "{what}: {words}");
        // A commit that failed, unless there was no room.
        self.machine_mut().is_broken |=
            words.contains("Broken") || words.contains("open the store again") || words.contains("the log");
    }

    fn end(&mut self) {
        self.forget();
        self.machine_mut().is_broken = false;
    }

    fn close(&mut self) -> Outcome {
        say!(self, "close");
        self.end();
        if self.machine().disk.is_off() {
            self.lose_power();
        }
        self.open()
    }

    fn kill(&mut self) -> Outcome {
        say!(self, "kill");
        self.machine().disk.stop();
        self.end();
        self.machine().disk.go_on();
        self.crash(Crash::Killed);
        self.open()
    }

    fn lose_power(&mut self) {
        // What ends with the process writes nothing any more.
        self.machine().disk.stop();
        self.end();
        self.machine().disk.lose_power();
        self.crash(Crash::PowerCut);
    }

    fn crash(&mut self, crash: Crash) {
        self.crashed(crash);
        let lost_in = self.rows_lost_in();
        let machine = self.machine_mut();
        machine.rows.lose_process(&mut machine.random);
        if lost_in.is_some_and(|one_in| machine.random.u32(..one_in) == 0) {
            machine.rows = Arc::default();
            say!(self, "the rows are lost");
        }
    }

    /// Opens the store, however often it takes.
    fn open(&mut self) -> Outcome {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let machine = self.machine_mut();
            if attempts > ATTEMPTS {
                machine.disk.set_calm(true);
            } else if machine.random.u32(..4) == 0 {
                machine.disk.cut_after(machine.random.u64(..60));
            }
            let faults = machine.disk.counts().faults;
            let opened = self.try_open();
            let is_off = self.machine().disk.is_off();
            match opened {
                Ok(opened) if !is_off => {
                    let machine = self.machine_mut();
                    machine.disk.set_calm(true);
                    machine.reopened += 1;
                    self.take_up(opened)?;
                    self.machine().disk.set_calm(false);
                    return Ok(());
                }
                // In the middle of something that may fail.
                Ok(opened) => {
                    drop(opened);
                    self.lose_power();
                }
                Err(error) if is_off => {
                    say!(self, "the power went while opening: {error:?}");
                    self.lose_power();
                }
                // As a server does: they are made again from the packs.
                Err(error) if self.machine().rows.is_refused() => {
                    say!(self, "the rows are ahead of the log: {error:?}");
                    self.machine_mut().rows = Arc::default();
                }
                Err(error) => {
                    ensure!(
                        self.machine().disk.counts().faults > faults,
                        "opening failed: {error:?}"
                    );
                    say!(self, "opening failed: {error:?}");
                }
            }
        }
    }
}
