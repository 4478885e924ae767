//! `cairn.v1.Events`: the outbox of a tenant, from a cursor on.
//!
//! Events of a shard come in their order and each once; between shards there is no order. A subscriber that follows is told what happens
//! within [`LOOK_EVERY`]. Not here: keeping events, which the outbox does for a while, and nobody behind it yet.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use cairn_identity::Action;
use cairn_index::names::Shard;
use cairn_index::{Error, Tenant};
use cairn_proto::cairn::v1 as proto;
use cairn_proto::cairn::v1::events_server;
use futures_util::stream::{self, Stream};
use tonic::{Request, Response, Status};

use super::admin::{admin_of, status_of};
use super::of_index;
use crate::grpc::Core;
use crate::grpc::error::{Answer, Failed};

/// How often a follower's shards are looked at when there was nothing new.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Events read at once of a shard.
const EVENTS: usize = 100;

#[derive(Clone, Debug)]
pub(in crate::grpc) struct Events(pub(in crate::grpc) Arc<Core>);

/// How far a subscriber has come.
struct Place {
    tenant: Tenant,
    /// Of each shard, the last that was told.
    seen: Vec<u64>,
    ready: VecDeque<proto::SubscribeResponse>,
    follow: bool,
}

#[tonic::async_trait]
impl events_server::Events for Events {
    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<proto::SubscribeResponse, Status>> + Send>>;

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
        let mut seen = vec![None; usize::from(Shard::COUNT)];
        for (&shard, &position) in &request.cursor {
            let place = usize::try_from(shard).ok().and_then(|shard| seen.get_mut(shard));
            *place.ok_or_else(|| Status::invalid_argument("a shard is a number from 0 to 15"))? = Some(position);
        }
        let core = Arc::clone(&self.0);
        // At once, so that a cursor whose events have left is an answer and no broken stream.
        let first = self.0.pool.run(move || {
            let outbox = core.objects.names().outbox(&tenant);
            let begins = Shard::all().zip(seen).map(|(shard, seen)| match seen {
                Some(seen) => Ok(seen),
                None => outbox.sealed(shard).map_err(of_index),
            });
            let seen = begins.collect::<Answer<Vec<u64>>>()?;
            let mut place = Place {
                tenant: tenant.clone(),
                seen,
                ready: VecDeque::new(),
                follow: request.follow,
            };
            look(&core, &mut place)?;
            Ok::<_, Failed>(place)
        });
        let place = first.await?;
        let core = Arc::clone(&self.0);
        let events = stream::try_unfold(place, move |mut place| {
            let core = Arc::clone(&core);
            async move {
                loop {
                    if let Some(event) = place.ready.pop_front() {
                        return Ok(Some((event, place)));
                    }
                    let inner = Arc::clone(&core);
                    let looked = core.pool.run_patiently(move || {
                        look(&inner, &mut place)?;
                        Ok::<_, Failed>(place)
                    });
                    place = looked.await.map_err(Status::from)?;
                    if !place.ready.is_empty() {
                        continue;
                    }
                    if !place.follow {
                        return Ok(None);
                    }
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            }
        });
        Ok(Response::new(Box::pin(events)))
    }
}

/// Reads what comes next in each shard.
fn look(core: &Core, place: &mut Place) -> Answer<()> {
    let outbox = core.objects.names().outbox(&place.tenant);
    for (shard, seen) in Shard::all().zip(&mut place.seen) {
        let events = outbox.read(shard, *seen, EVENTS).map_err(|error| match error {
            Error::EventsGone { .. } => Failed(Status::out_of_range(error.to_string())),
            error => of_index(error),
        })?;
        for (position, event) in events {
            *seen = position;
            place.ready.push_back(proto::SubscribeResponse {
                shard: u32::from(shard.get()),
                position,
                event: event.to_json(&place.tenant).to_string(),
            });
        }
    }
    Ok(())
}
