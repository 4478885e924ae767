//! Events: what happened, in the words of the product's envelope. Each is written by the commit that makes it true.

use std::fmt;

use serde_json::{Map, Value, json};

use super::fields::{Fields, malformed, read};
use crate::{Result, Tenant};

/// Shards of the events of a tenant: those of one aggregate are in one, in order.
pub(super) const SHARDS: u8 = 16;

/// Names an event: a UUID. Consumers that see one twice know it by this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(pub(super) [u8; 16]);

impl EventId {
    /// A random UUID (version 4) of these bytes.
    pub(super) fn of_chance(mut bytes: [u8; 16]) -> Self {
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(bytes)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, byte) in self.0.iter().enumerate() {
            if [4, 6, 8, 10].contains(&n) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// Who makes a change, for its event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Which component: `api`, `scheduler`, …
    pub source: String,
    /// Whose request it was.
    pub actor: Option<String>,
    /// The request's trace.
    pub trace_id: Option<String>,
}

/// The source of what keeps events that leave the outbox.
const OUTBOX: &str = "outbox";

impl Cause {
    /// Events that leave the outbox become an object. That is no event itself: there would be no end to it.
    pub fn outbox() -> Self {
        Self::of(OUTBOX)
    }

    pub(super) fn makes_events(&self) -> bool {
        self.source != OUTBOX
    }

    /// A change by a component alone.
    pub fn of(source: &str) -> Self {
        Self {
            source: source.to_owned(),
            actor: None,
            trace_id: None,
        }
    }
}

impl Default for Cause {
    fn default() -> Self {
        Self::of("api")
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its name.
    pub id: EventId,
    /// What kind of thing: `object.created`, …
    pub event_type: String,
    /// When, in milliseconds since 1970 UTC.
    pub timestamp_ms: u64,
    /// Who did it.
    pub cause: Cause,
    /// To what: `bucket/key`.
    pub aggregate_id: String,
    /// The fields of its type.
    pub payload: Map<String, Value>,
}

impl Event {
    /// The envelope as JSON.
    pub fn to_json(&self, tenant: &Tenant) -> Value {
        let mut envelope = json!({
            "event_type": self.event_type,
            "event_id": self.id.to_string(),
            "timestamp": rfc3339(self.timestamp_ms),
            "source": self.cause.source,
            "payload": self.payload,
            "tenant": tenant.as_str(),
            "aggregate_id": self.aggregate_id,
            "schema_version": 1,
        });
        if let Some(actor) = &self.cause.actor {
            envelope["payload"]["actor"] = json!(actor);
        }
        if let Some(trace_id) = &self.cause.trace_id {
            envelope["trace_id"] = json!(trace_id);
        }
        envelope
    }

    /// Which shard its aggregate's events are in.
    pub(super) fn shard(&self) -> u8 {
        // FNV-1a: the same in each release, since order is kept within a shard alone.
        let hash = self.aggregate_id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        ((hash ^ hash >> 32) % u64::from(SHARDS)) as u8
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut fields = Fields::default();
        fields
            .bytes(ID, &self.id.0)
            .text(TYPE, &self.event_type)
            .number(TIMESTAMP, self.timestamp_ms)
            .text(SOURCE, &self.cause.source)
            .optional_text(ACTOR, self.cause.actor.as_deref())
            .optional_text(TRACE, self.cause.trace_id.as_deref())
            .text(AGGREGATE, &self.aggregate_id)
            .text(PAYLOAD, &Value::Object(self.payload.clone()).to_string());
        fields.into_value()
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self> {
        let mut id = None;
        let mut event = Self {
            id: EventId([0; 16]),
            event_type: String::new(),
            timestamp_ms: 0,
            cause: Cause::default(),
            aggregate_id: String::new(),
            payload: Map::new(),
        };
        for field in read(value, WHAT)? {
            let field = field?;
            match field.tag {
                ID => id = Some(EventId(field.fixed()?)),
                TYPE => event.event_type = field.text()?,
                TIMESTAMP => event.timestamp_ms = field.number()?,
                SOURCE => event.cause.source = field.text()?,
                ACTOR => event.cause.actor = Some(field.text()?),
                TRACE => event.cause.trace_id = Some(field.text()?),
                AGGREGATE => event.aggregate_id = field.text()?,
                PAYLOAD => {
                    event.payload =
                        serde_json::from_slice(field.bytes).map_err(|_| field.malformed("its payload is no JSON"))?;
                }
                _ => return Err(field.unknown()),
            }
        }
        event.id = id.ok_or(malformed(WHAT, "it has no id"))?;
        Ok(event)
    }
}

const WHAT: &str = "event";

const ID: u8 = 1;
const TYPE: u8 = 2;
const TIMESTAMP: u8 = 3;
const SOURCE: u8 = 4;
const ACTOR: u8 = 5;
const TRACE: u8 = 6;
const AGGREGATE: u8 = 7;
const PAYLOAD: u8 = 8;

/// A time as RFC 3339 writes it, in UTC with milliseconds.
fn rfc3339(ms: u64) -> String {
    let (days, of_day) = (ms / 86_400_000, ms % 86_400_000);
    // Days to a date of the Gregorian calendar, in years that begin in March (H. Hinnant, "chrono-compatible low-level date algorithms").
    let z = days + 719_468;
    let (era, of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1000 % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
        of_day % 1000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(rfc3339(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(rfc3339(1_795_278_830_123), "2026-11-21T16:33:50.123Z");
    }

    #[test]
    fn an_event_is_read_as_it_was_written() {
        let event = Event {
            id: EventId::of_chance([0xff; 16]),
            event_type: "object.created".to_owned(),
            timestamp_ms: 7,
            cause: Cause {
                source: "api".to_owned(),
                actor: Some("me".to_owned()),
                trace_id: Some("t".to_owned()),
            },
            aggregate_id: "bucket/key".to_owned(),
            payload: json!({"size": 5}).as_object().cloned().unwrap(),
        };
        assert_eq!(Event::decode(&event.encode()).unwrap(), event);
        assert!(event.shard() < SHARDS);
        let json = event.to_json(&Tenant::default());
        assert_eq!(json["event_id"], "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(json["payload"], json!({"size": 5, "actor": "me"}));
    }
}
