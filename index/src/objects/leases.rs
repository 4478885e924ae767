//! One lease for all uploads of this process: what they store is not condemned before their commits name it.
//!
//! A small upload must not cost a commit more than its own, so the lease is a row that is there already: it reaches back to where
//! the log stood when the oldest upload began that goes on, and is renewed by whoever finds less than half of its time left.
//! A process that dies leaves a lease that runs out; an upload that stands still for longer than a lease loses its cover, and may
//! be told at its commit to send chunks again. That nothing is lost is the fence's doing (`liveness/`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cairn_store::{LogPosition, PackEngine};

use super::Objects;
use crate::Result;
use crate::kv::Kv;
use crate::liveness::{Lease, end_lease, hold_lease};
use crate::names::Names;

/// Seconds after its end for which a lease's row is left where it is.
const KEPT_SECONDS: u64 = 24 * 60 * 60;

#[derive(Debug)]
pub(super) struct Leases {
    kv: Arc<dyn Kv>,
    packs: Arc<PackEngine>,
    /// Seconds.
    time: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Who is covered.
    open: BTreeMap<u64, Holder>,
    next: u64,
    /// Of the row, in seconds; 0: there is none.
    until: u64,
    /// Of the row, once there is one.
    id: Option<[u8; 16]>,
}

#[derive(Clone, Copy, Debug)]
struct Holder {
    /// Where the log stood when it began.
    begun: LogPosition,
    /// In seconds; an upload is covered until it ends.
    until: u64,
}

/// An upload that goes on.
#[derive(Debug)]
pub(super) struct Covered {
    leases: Arc<Leases>,
    ticket: u64,
}

/// Covers chunks that are stored one by one while it is held, for whoever names them later.
#[derive(Debug)]
pub struct ChunkLease {
    names: Names,
    covered: Covered,
}

impl Objects {
    /// What is stored from now on stays until the lease ends, or for so long after it was last renewed.
    pub fn lease_chunks(&self, time: Duration) -> Result<ChunkLease> {
        let lease = ChunkLease {
            names: self.names.clone(),
            covered: self.leases.begin(&self.names)?,
        };
        lease.renew(time)?;
        Ok(lease)
    }
}

impl ChunkLease {
    /// Sees to it that the lease goes on for so long. Costs nothing most times.
    pub fn renew(&self, time: Duration) -> Result<()> {
        let whole = time.as_secs() + u64::from(time.subsec_nanos() > 0);
        self.covered.renew_for(&self.names, whole)
    }
}

impl Leases {
    pub(super) fn new(names: &Names, packs: Arc<PackEngine>, time: Duration) -> Self {
        Self {
            kv: Arc::clone(names.kv()),
            packs,
            time: time.as_secs().max(2),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Covers an upload that begins now.
    pub(super) fn begin(self: &Arc<Self>, names: &Names) -> Result<Covered> {
        let ticket = {
            let mut state = self.state();
            let ticket = state.next;
            state.next += 1;
            // Not the end itself: for that it would have to wait for whoever syncs.
            let holder = Holder {
                begun: self.packs.position_passed(),
                until: u64::MAX,
            };
            state.open.insert(ticket, holder);
            ticket
        };
        let covered = Covered {
            leases: Arc::clone(self),
            ticket,
        };
        covered.renew(names)?;
        Ok(covered)
    }
}

impl Covered {
    /// Sees to it that the lease goes on. Costs nothing while there is time left.
    pub(super) fn renew(&self, names: &Names) -> Result<()> {
        let (now, mut state) = (names.now_ms() / 1000, self.leases.state());
        self.hold(names, &mut state, now, self.leases.time / 2)
    }

    /// Is covered for so many seconds, and no longer.
    fn renew_for(&self, names: &Names, seconds: u64) -> Result<()> {
        let (now, mut state) = (names.now_ms() / 1000, self.leases.state());
        if let Some(holder) = state.open.get_mut(&self.ticket) {
            holder.until = now + seconds;
        }
        self.hold(names, &mut state, now, seconds)
    }

    /// Writes the row if it has less than so many seconds left.
    fn hold(&self, names: &Names, state: &mut State, now: u64, seconds: u64) -> Result<()> {
        let leases = &self.leases;
        if state.until >= now + seconds {
            return Ok(());
        }
        let covered = state.open.values().filter(|holder| holder.until >= now);
        let begun = covered.map(|holder| holder.begun).min().unwrap_or_default();
        let until = now + leases.time.max(seconds.saturating_mul(2));
        let id = match state.id {
            Some(id) => id,
            None => {
                forget_old(leases.kv.as_ref(), now)?;
                *state.id.insert(names.chance()?)
            }
        };
        // Others wait meanwhile: they need it, too.
        hold_lease(leases.kv.as_ref(), &Lease { id, begun, until })?;
        state.until = until;
        Ok(())
    }
}

/// Takes away what processes that were killed have left long ago.
fn forget_old(kv: &dyn Kv, now: u64) -> Result<()> {
    for lease in crate::liveness::leases(kv)? {
        if lease.until.saturating_add(KEPT_SECONDS) < now {
            end_lease(kv, &lease.id)?;
        }
    }
    Ok(())
}

impl Drop for Leases {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = state.id {
            // If that fails it runs out.
            let _ = end_lease(self.kv.as_ref(), &id);
        }
    }
}

impl Drop for Covered {
    fn drop(&mut self) {
        self.leases.state().open.remove(&self.ticket);
    }
}
