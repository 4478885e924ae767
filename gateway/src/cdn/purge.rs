//! Tells caches in front that an object is another one, or gone: a consumer of the outbox for each of them.
//!
//! Events are read in order, shard by shard, from where the consumer was; a position is remembered when all up to it were told or given
//! up, so a cache may be told twice and is never forgotten by a restart. A cache that does not answer is tried a few times for each
//! event, then that one is given up, counted and logged: it will find out when its copy ends. Not here: what goes out at all (`outgoing`).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cairn_index::names::{Event, Names, Shard};
use cairn_index::{Error, Tenant};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::json;
use tokio::task::{JoinHandle, JoinSet};

use super::caching::Tags;
use crate::outgoing::{Outgoing, OutgoingError, OutgoingRequest};
use crate::s3::uri;

/// Pause between two looks at the outbox: what was overwritten is told within this.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Events read at a time.
const EVENTS_MAX: usize = 256;
/// Requests at a time, of one cache.
const REQUESTS_MAX: usize = 8;
/// Tries of an event, and the pause behind the first; it doubles.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);
/// Pause after the index could not be read.
const TROUBLE_PAUSE: Duration = Duration::from_secs(5);
/// A consumer that is new begins so many events of a shard back.
const BACK_MAX: u64 = 1000;
/// Tenants at a time.
const TENANTS_MAX: usize = 1000;

/// Shows a cache that a purge is ours.
const PURGE_SECRET: HeaderName = HeaderName::from_static("x-cairn-purge");
/// What a cache bans by.
const PURGE_TAG: HeaderName = HeaderName::from_static("x-cairn-tag");

/// How a cache is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurgeKind {
    /// `PURGE` of the object's address, as Varnish and many CDNs have it.
    Purge,
    /// `BAN`, with the object's tag in `X-Cairn-Tag`: all of its addresses, links and versions, in Varnish.
    Ban,
    /// `HEAD` of the object's address, which nginx without modules makes a GET, passes its cache by for, and keeps the answer of.
    Refresh,
    /// `POST` of a document in JSON with addresses and tags, to whatever speaks to a CDN's own API.
    Webhook,
}

/// A cache in front.
#[derive(Clone, PartialEq, Eq)]
pub struct PurgeTarget {
    /// Its name, and that of its consumer.
    pub name: String,
    /// How it is told.
    pub kind: PurgeKind,
    /// Where: what `/cdn/…` comes behind, without a `/` at its end; of a webhook its own whole address.
    pub url: String,
    /// Value of `X-Cairn-Purge`, of a webhook of `Authorization`.
    pub secret: Option<String>,
    /// Buckets that it has; none: all.
    pub buckets: Vec<String>,
}

impl std::fmt::Debug for PurgeTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PurgeTarget({} {:?} {})", self.name, self.kind, self.url)
    }
}

/// Tells caches until it is dropped.
#[derive(Debug)]
pub struct Purger(Vec<JoinHandle<()>>);

impl Purger {
    /// Begins to tell these. Called within a runtime.
    pub fn start(names: &Names, outgoing: &Outgoing, targets: &[PurgeTarget]) -> Self {
        let consumer = |target: &PurgeTarget| {
            let consumer = Consumer {
                names: names.clone(),
                outgoing: outgoing.clone(),
                name: format!("purge {}", target.name),
                target: Arc::new(target.clone()),
            };
            tokio::spawn(consumer.run())
        };
        Self(targets.iter().map(consumer).collect())
    }
}

impl Drop for Purger {
    fn drop(&mut self) {
        // What they were at is told again by whoever comes next.
        self.0.iter().for_each(JoinHandle::abort);
    }
}

struct Consumer {
    names: Names,
    outgoing: Outgoing,
    /// In the outbox.
    name: String,
    target: Arc<PurgeTarget>,
}

/// Events of a shard that were read.
struct Batch {
    tenant: Tenant,
    shard: Shard,
    last: u64,
    objects: Vec<Object>,
}

/// An object that is another one now.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Object {
    bucket: String,
    key: String,
}

impl Consumer {
    async fn run(self) {
        let this = Arc::new(self);
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let reader = Arc::clone(&this);
            let batches = match tokio::task::spawn_blocking(move || reader.read()).await {
                Ok(Ok(batches)) => batches,
                Ok(Err(error)) => {
                    tracing::error!(
                        target = this.target.name,
                        error = cairn_store::error_chain(&error),
                        "events cannot be read"
                    );
                    tokio::time::sleep(TROUBLE_PAUSE).await;
                    continue;
                }
                // It panicked and has said so, or the runtime ends.
                Err(_) => continue,
            };
            for batch in batches {
                this.tell_all(batch.objects).await;
                let writer = Arc::clone(&this);
                let done = tokio::task::spawn_blocking(move || {
                    writer
                        .names
                        .outbox(&batch.tenant)
                        .advance(&writer.name, batch.shard, batch.last)
                });
                if let Ok(Err(error)) = done.await {
                    tracing::error!(
                        target = this.target.name,
                        error = cairn_store::error_chain(&error),
                        "a cursor cannot be kept"
                    );
                }
            }
        }
    }

    /// The next events of each shard that has any.
    fn read(&self) -> cairn_index::Result<Vec<Batch>> {
        let mut batches = Vec::new();
        for tenant in self.names.tenants(None, TENANTS_MAX)?.tenants {
            let outbox = self.names.outbox(&tenant);
            for shard in Shard::all() {
                let (end, mut after) = (outbox.end(shard)?, outbox.cursor(&self.name, shard)?);
                if after == 0 {
                    after = end.saturating_sub(BACK_MAX);
                }
                if after >= end {
                    continue;
                }
                let events = match outbox.read(shard, after, EVENTS_MAX) {
                    Err(Error::EventsGone { sealed, .. }) => {
                        tracing::warn!(
                            target = self.target.name,
                            "events have left before their purge was told"
                        );
                        outbox.read(shard, sealed, EVENTS_MAX)?
                    }
                    events => events?,
                };
                let Some((last, _)) = events.last() else { continue };
                let last = *last;
                let mut seen = HashSet::new();
                let objects = events.iter().filter_map(|(_, event)| self.object(event));
                let objects = objects.filter(|object| seen.insert(object.clone())).collect();
                batches.push(Batch {
                    tenant: tenant.clone(),
                    shard,
                    last,
                    objects,
                });
            }
        }
        Ok(batches)
    }

    /// The object that an event is of, if its caches are to know.
    fn object(&self, event: &Event) -> Option<Object> {
        if !event.event_type.starts_with("object.") {
            return None;
        }
        let word = |name: &str| event.payload.get(name)?.as_str().map(str::to_owned);
        let object = Object {
            bucket: word("bucket")?,
            key: word("key")?,
        };
        let buckets = &self.target.buckets;
        (buckets.is_empty() || buckets.contains(&object.bucket)).then_some(object)
    }

    /// Tells of all of them, a few at a time.
    async fn tell_all(self: &Arc<Self>, objects: Vec<Object>) {
        let mut telling = JoinSet::new();
        for object in objects {
            if telling.len() >= REQUESTS_MAX {
                telling.join_next().await;
            }
            let this = Arc::clone(self);
            telling.spawn(async move { this.tell(&object).await });
        }
        while telling.join_next().await.is_some() {}
    }

    async fn tell(&self, object: &Object) {
        let count = |result: &'static str| {
            metrics::counter!("cdn_purges_total", "target" => self.target.name.clone(), "result" => result)
                .increment(1);
        };
        let mut pause = PAUSE;
        let mut why = String::new();
        for _ in 0..TRIES {
            match self.outgoing.send(self.target.request(object)).await {
                Ok(answer) if self.target.is_told(answer.status) => return count("told"),
                Ok(answer) if answer.status.is_server_error() || answer.status.as_u16() == 429 => {
                    why = format!("it answers {}", answer.status);
                }
                Ok(answer) => {
                    why = format!("it answers {}", answer.status);
                    break;
                }
                Err(error @ OutgoingError::Refused { .. }) => {
                    why = error.to_string();
                    break;
                }
                Err(error) => why = cairn_store::error_chain(&error),
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        count("given_up");
        let (target, bucket) = (&self.target.name, &object.bucket);
        tracing::warn!(target, bucket, why, "a cache was not told that an object has changed");
    }
}

impl PurgeTarget {
    /// Whether an answer says that all is well: a cache that holds nothing of it answers 404, and one that asked us says what we say,
    /// which of what is not for everybody is 401.
    fn is_told(&self, status: StatusCode) -> bool {
        status.is_success()
            || status == StatusCode::NOT_FOUND
            || self.kind == PurgeKind::Refresh && status == StatusCode::UNAUTHORIZED
    }

    fn request(&self, object: &Object) -> OutgoingRequest {
        let path = format!("/cdn/{}/{}", object.bucket, uri::encode_path(&object.key));
        let tags = Tags::of(&object.bucket, &object.key);
        let mut headers = HeaderMap::new();
        let secret = self
            .secret
            .as_deref()
            .and_then(|secret| HeaderValue::from_str(secret).ok());
        if let Some(secret) = secret {
            let name = if self.kind == PurgeKind::Webhook {
                AUTHORIZATION
            } else {
                PURGE_SECRET
            };
            headers.insert(name, secret);
        }
        if let Ok(tag) = HeaderValue::from_str(&tags.object) {
            headers.insert(PURGE_TAG, tag);
        }
        let whole = format!("{}{path}", self.url);
        let (method, url, body) = match self.kind {
            PurgeKind::Purge => (method(b"PURGE"), whole, Bytes::new()),
            PurgeKind::Ban => (method(b"BAN"), whole, Bytes::new()),
            PurgeKind::Refresh => (Method::HEAD, whole, Bytes::new()),
            PurgeKind::Webhook => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                let document = json!({
                    "bucket": object.bucket, "key": object.key, "path": path, "tags": [tags.object],
                });
                (Method::POST, self.url.clone(), Bytes::from(document.to_string()))
            }
        };
        OutgoingRequest {
            method,
            url,
            headers,
            body,
        }
    }
}

fn method(name: &'static [u8]) -> Method {
    Method::from_bytes(name).expect("it is a word of letters")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(kind: PurgeKind) -> PurgeTarget {
        PurgeTarget {
            name: "t".to_owned(),
            kind,
            url: "http://cache.example:6081".to_owned(),
            secret: Some("s".to_owned()),
            buckets: Vec::new(),
        }
    }

    #[test]
    fn each_kind_is_told_in_its_own_way() {
        let object = Object {
            bucket: "abc".to_owned(),
            key: "a b/\u{e9}?".to_owned(),
        };
        let tag = Tags::of("abc", &object.key).object;
        for (kind, name) in [
            (PurgeKind::Purge, "PURGE"),
            (PurgeKind::Ban, "BAN"),
            (PurgeKind::Refresh, "HEAD"),
        ] {
            let request = target(kind).request(&object);
            assert_eq!(request.method.as_str(), name);
            assert_eq!(request.url, "http://cache.example:6081/cdn/abc/a%20b/%C3%A9%3F");
            assert_eq!(
                (&request.headers[PURGE_SECRET], &request.headers[PURGE_TAG]),
                (&"s".parse().unwrap(), &tag.parse().unwrap())
            );
        }
        let request = target(PurgeKind::Webhook).request(&object);
        assert_eq!(
            (request.method, request.url.as_str()),
            (Method::POST, "http://cache.example:6081")
        );
        assert_eq!(request.headers[AUTHORIZATION], "s");
        let document: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(document["path"], "/cdn/abc/a%20b/%C3%A9%3F");
        assert_eq!(document["tags"], json!([tag]));
    }
}
