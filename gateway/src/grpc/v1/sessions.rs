//! Sessions of `cairn.v1.ChunkStore`: a lease on what is put, from the first chunk to the manifest that names them.
//!
//! A session is found by its id, its bucket and who opened it; another's is not there. It ends when it is told to, when no call has
//! named it for [`SessionOptions::idle`], or after [`SessionOptions::life`], which is no longer than answers that a chunk is there hold. A
//! restart forgets it: what was promised then still holds, and a commit names what is missing. Not here: leases (`cairn_index`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cairn_index::names::BucketId;
use cairn_index::{ChunkLease, Objects};
use cairn_proto::cairn::v1 as proto;
use tonic::Status;

use super::InBucket;
use crate::grpc::error::{Answer, busy};

/// How many sessions there are, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// That go on at once; one more is told to come again.
    pub max: usize,
    /// Time without a call that names it after which a session ends.
    pub idle: Duration,
    /// Time after which it ends, whatever names it.
    pub life: Duration,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            max: 1024,
            idle: Duration::from_secs(600),
            life: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// Of all sessions, one in so many may be of one user.
const OWN_SHARE: usize = 4;

type SessionId = [u8; 16];

/// Sessions that go on.
#[derive(Debug)]
pub(in crate::grpc) struct Sessions {
    options: SessionOptions,
    open: Mutex<HashMap<SessionId, Session>>,
}

#[derive(Debug)]
struct Session {
    bucket: BucketId,
    /// Who opened it, in the bucket's tenant.
    user: String,
    tenant: String,
    begun: Instant,
    used: Instant,
    lease: Arc<ChunkLease>,
}

impl Sessions {
    pub(in crate::grpc) fn new(options: SessionOptions) -> Self {
        Self {
            options,
            open: Mutex::default(),
        }
    }

    /// Those that go on, without those that have ended by themselves, whose leases have run out.
    fn open(&self) -> MutexGuard<'_, HashMap<SessionId, Session>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let SessionOptions { idle, life, .. } = self.options;
        open.retain(|_, session| session.used.elapsed() < idle && session.begun.elapsed() < life);
        metrics::gauge!("grpc_sessions").set(open.len() as f64);
        open
    }

    /// May block.
    pub(super) fn begin(&self, objects: &Objects, admitted: &InBucket) -> Answer<proto::Session> {
        let full = || busy("too many sessions at a time");
        // Before the lease, which writes a row.
        if self.open().len() >= self.options.max {
            return Err(full().into());
        }
        let now = Instant::now();
        let session = Session {
            bucket: admitted.bucket.id(),
            user: admitted.permit.user().id.clone(),
            tenant: admitted.permit.user().tenant.clone(),
            begun: now,
            used: now,
            lease: Arc::new(objects.lease_chunks(self.options.idle)?),
        };
        let (id, shown) = (fastrand::u128(..).to_be_bytes(), self.show(&session));
        let mut open = self.open();
        let is_same = |other: &&Session| (&other.tenant, &other.user) == (&session.tenant, &session.user);
        let own = open.values().filter(is_same).count();
        if open.len() >= self.options.max || own >= self.options.max.div_ceil(OWN_SHARE) {
            return Err(full().into());
        }
        open.insert(id, session);
        metrics::gauge!("grpc_sessions").set(open.len() as f64);
        Ok(proto::Session {
            id: Bytes::copy_from_slice(&id),
            ..shown
        })
    }

    /// Has one go on. May block. Errors: `NOT_FOUND`.
    pub(super) fn renew(&self, admitted: &InBucket, id: &[u8]) -> Answer<proto::Session> {
        let (lease, shown) = {
            let mut open = self.open();
            let session = open
                .get_mut(id)
                .filter(|session| session.is_of(admitted))
                .ok_or_else(none)?;
            session.used = Instant::now();
            (Arc::clone(&session.lease), self.show(session))
        };
        lease.renew(self.options.idle)?;
        Ok(proto::Session {
            id: Bytes::copy_from_slice(id),
            ..shown
        })
    }

    /// [`Sessions::renew`] if one is named.
    pub(super) fn renew_named(&self, admitted: &InBucket, id: &[u8]) -> Answer<()> {
        match id.is_empty() {
            true => Ok(()),
            false => self.renew(admitted, id).map(drop),
        }
    }

    /// Ends one. Errors: `NOT_FOUND`.
    pub(super) fn end(&self, admitted: &InBucket, id: &[u8]) -> Answer<()> {
        let mut open = self.open();
        if !open.get(id).is_some_and(|session| session.is_of(admitted)) {
            return Err(none().into());
        }
        let ended = open.remove(id);
        metrics::gauge!("grpc_sessions").set(open.len() as f64);
        drop(open);
        drop(ended);
        Ok(())
    }

    fn show(&self, session: &Session) -> proto::Session {
        let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        proto::Session {
            id: Bytes::new(),
            idle_seconds: seconds(self.options.idle),
            left_seconds: seconds(self.options.life.saturating_sub(session.begun.elapsed())),
        }
    }
}

impl Session {
    fn is_of(&self, admitted: &InBucket) -> bool {
        self.bucket == admitted.bucket.id() && self.user == admitted.permit.user().id
    }
}

fn none() -> Status {
    Status::not_found("there is no such session, or no more: open another")
}
