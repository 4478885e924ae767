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
    /// Where the log stood when each upload began.
    open: BTreeMap<u64, LogPosition>,
    next: u64,
    /// Of the row, in seconds; 0: there is none.
    until: u64,
    /// Of the row, once there is one.
    id: Option<[u8; 16]>,
}

/// An upload that goes on.
#[derive(Debug)]
pub(super) struct Covered {
    leases: Arc<Leases>,
    ticket: u64,
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
            state.open.insert(ticket, self.packs.position_passed());
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
        let (leases, now) = (&self.leases, names.now_ms() / 1000);
        let mut state = leases.state();
        if state.until >= now + leases.time / 2 {
            return Ok(());
        }
        let begun = state.open.values().min().copied().unwrap_or_default();
        let until = now + leases.time;
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
