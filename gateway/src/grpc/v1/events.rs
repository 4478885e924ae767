//! `cairn.v1.Events`, and `Watch` of a chunk store: the outbox of a tenant, from a cursor on, all of it or a bucket's part.
//!
//! Events of a shard come in their order and each once; between shards there is no order. A subscriber that follows is told what happens
//! within [`LOOK_EVERY`]. Who watches a bucket is let in again before each look, and is told of no event from before the bucket was made.
//! Not here: keeping events, which the outbox does for a while, and nobody behind it yet.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use cairn_identity::Action;
use cairn_index::names::{Bucket, Event, Shard};
use cairn_index::{Error, Tenant};
use cairn_proto::cairn::v1 as proto;
use cairn_proto::cairn::v1::events_server;
use futures_util::stream::{self, Stream};
use tonic::{Request, Response, Status};

use super::admin::{admin_of, status_of};
use super::{Asked, admit, of_index};
use crate::grpc::Core;
use crate::grpc::error::{Answer, Failed, busy};

/// How often a follower's shards are looked at when there was nothing new.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Events read at once of a shard.
const EVENTS: usize = 100;

#[derive(Clone, Debug)]
pub(in crate::grpc) struct Events(pub(in crate::grpc) Arc<Core>);

/// What subscribers are told.
pub(super) type Told = Pin<Box<dyn Stream<Item = Result<proto::SubscribeResponse, Status>> + Send>>;

/// Where a subscriber begins, of each shard; `None`: with the first event that is there.
#[derive(Clone, Debug)]
pub(super) struct Cursor(Vec<Option<u64>>);

/// A bucket whose events alone are told.
pub(super) struct Watched {
    pub(super) asked: Asked,
    pub(super) bucket: Bucket,
}

/// How far a subscriber has come.
pub(super) struct Place {
    tenant: Tenant,
    /// `None`: all events are told.
    watched: Option<Watched>,
    /// Of each shard, the last that was told.
    seen: Vec<u64>,
    ready: VecDeque<proto::SubscribeResponse>,
    follow: bool,
}

#[tonic::async_trait]
impl events_server::Events for Events {
    type SubscribeStream = Told;

    async fn subscribe(
        &self,
        request: Request<proto::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let permit = admin_of(&self.0)?.permit(request.metadata().as_ref(), Action::ReadEvents);
        let _permit = permit.map_err(|error| status_of(&error))?;
        let request = request.into_inner();
        let tenant = match request.tenant.as_str() {
            "" => Tenant::default(),
            name => Tenant::new(name).map_err(|error| Status::invalid_argument(error.to_string()))?,
        };
        let cursor = Cursor::of(&request.cursor)?;
        let core = Arc::clone(&self.0);
        let first = self
            .0
            .pool
            .run(move || Place::begin(&core, tenant, &cursor, None, request.follow));
        Ok(Response::new(told(&self.0, first.await?)))
    }
}

impl Cursor {
    /// Errors: `INVALID_ARGUMENT` for a shard that there is not.
    pub(super) fn of(positions: &HashMap<u32, u64>) -> Result<Self, Status> {
        let mut seen = vec![None; usize::from(Shard::COUNT)];
        for (&shard, &position) in positions {
            let place = usize::try_from(shard).ok().and_then(|shard| seen.get_mut(shard));
            *place.ok_or_else(|| Status::invalid_argument("a shard is a number from 0 to 15"))? = Some(position);
        }
        Ok(Self(seen))
    }
}

impl Place {
    /// Looks for the first time, so that a cursor whose events have left is an answer and no broken stream. May block.
    pub(super) fn begin(
        core: &Core,
        tenant: Tenant,
        cursor: &Cursor,
        watched: Option<Watched>,
        follow: bool,
    ) -> Answer<Self> {
        let outbox = core.objects.names().outbox(&tenant);
        let begins = Shard::all().zip(&cursor.0).map(|(shard, seen)| match seen {
            Some(seen) => Ok(*seen),
            None => outbox.sealed(shard).map_err(of_index),
        });
        let seen = begins.collect::<Answer<Vec<u64>>>()?;
        let mut place = Self {
            tenant,
            watched,
            seen,
            ready: VecDeque::new(),
            follow,
        };
        place.look(core)?;
        Ok(place)
    }

    /// Reads what comes next in each shard.
    fn look(&mut self, core: &Core) -> Answer<()> {
        if let Some(Watched { asked, bucket }) = &self.watched
            && admit(core, asked)?.bucket.id() != bucket.id()
        {
            return Err(Status::not_found("there is no such bucket any more").into());
        }
        let outbox = core.objects.names().outbox(&self.tenant);
        for (shard, seen) in Shard::all().zip(&mut self.seen) {
            let events = outbox.read(shard, *seen, EVENTS).map_err(|error| match error {
                Error::EventsGone { .. } => Failed(Status::out_of_range(error.to_string())),
                error => of_index(error),
            })?;
            let mut passed_over = None;
            for (position, event) in events {
                *seen = position;
                let mut message = proto::SubscribeResponse {
                    shard: u32::from(shard.get()),
                    position,
                    event: String::new(),
                };
                if self.watched.as_ref().is_some_and(|watched| !watched.has(&event)) {
                    passed_over = Some(message);
                    continue;
                }
                passed_over = None;
                message.event = event.to_json(&self.tenant).to_string();
                self.ready.push_back(message);
            }
            // So that a cursor does not fall behind what has left the outbox.
            self.ready.extend(passed_over);
        }
        Ok(())
    }
}

impl Watched {
    fn has(&self, event: &Event) -> bool {
        // The event is of `bucket/key`.
        let of_bucket = event.aggregate_id.strip_prefix(self.bucket.name().as_str());
        of_bucket.is_some_and(|rest| rest.starts_with('/')) && event.timestamp_ms >= self.bucket.record.created_ms
    }
}

/// Tells a subscriber, until all has been told or for as long as it follows.
pub(super) fn told(core: &Arc<Core>, place: Place) -> Told {
    let core = Arc::clone(core);
    let events = stream::try_unfold((place, None), move |(mut place, mut follows)| {
        let core = Arc::clone(&core);
        async move {
            loop {
                if let Some(event) = place.ready.pop_front() {
                    return Ok(Some((event, (place, follows))));
                }
                let inner = Arc::clone(&core);
                let looked = core.pool.run_patiently(move || {
                    place.look(&inner)?;
                    Ok::<_, Failed>(place)
                });
                place = looked.await.map_err(Status::from)?;
                if !place.ready.is_empty() {
                    continue;
                }
                if !place.follow {
                    return Ok(None);
                }
                if follows.is_none() {
                    let place = Arc::clone(&core.followers).try_acquire_owned();
                    follows = Some(place.map_err(|_| busy("too many follow events at a time"))?);
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    });
    Box::pin(events)
}
