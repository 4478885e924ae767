//! The events of a tenant, in the order of their commits: read by consumers who remember how far they have come, and bounded.
//!
//! An event's position is its shard and a number that the commit itself gives (`Batch::append`), so that whoever has read up to a
//! number has missed none before it. What is too old or too much is handed to a sink, which keeps it elsewhere, and only then taken away.

use super::event::{Event, SHARDS};
use super::{Names, rows};
use crate::kv::{Batch, Check, Commit, Order, Row, ViewExt as _};
use crate::{Error, KeyReader, Result, Tenant};

/// Events of a segment, at most.
const SEGMENT_EVENTS: usize = 10_000;

/// Bytes of a segment after which it ends.
const SEGMENT_LEN: usize = 8 << 20;

/// The events of a tenant.
#[derive(Clone, Copy, Debug)]
pub struct Outbox<'a> {
    names: &'a Names,
    tenant: &'a Tenant,
}

/// A shard of the events: 0 to [`Shard::COUNT`] - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(u8);

impl Shard {
    /// How many there are.
    pub const COUNT: u8 = SHARDS;

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SHARDS).map(Self)
    }

    /// As a number.
    pub fn get(self) -> u8 {
        self.0
    }
}

/// When events leave the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxBound {
    /// Milliseconds after which an event leaves.
    pub age_ms: u64,
    /// Events of a tenant above which the oldest leave.
    pub events: u64,
}

impl Default for OutboxBound {
    /// Seven days, a million events.
    fn default() -> Self {
        Self {
            age_ms: 7 * 86_400_000,
            events: 1_000_000,
        }
    }
}

/// Events that are about to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The shard they are in.
    pub shard: Shard,
    /// Position of the first.
    pub first: u64,
    /// Position of the last.
    pub last: u64,
    /// When the first happened, in milliseconds since 1970 UTC.
    pub first_ms: u64,
    /// When the last happened.
    pub last_ms: u64,
    /// One line of JSON for each: the envelope.
    pub lines: Vec<u8>,
}

impl Names {
    /// The events of a tenant.
    pub fn outbox<'a>(&'a self, tenant: &'a Tenant) -> Outbox<'a> {
        Outbox { names: self, tenant }
    }
}

impl Outbox<'_> {
    /// Events of a shard by position, the first behind `after` (0: from the beginning).
    ///
    /// Errors: [`Error::EventsGone`] when some behind `after` have left.
    pub fn read(&self, shard: Shard, after: u64, limit: usize) -> Result<Vec<(u64, Event)>> {
        let range = rows::events(self.tenant, shard.0).range();
        let range = range.after(rows::events(self.tenant, shard.0).u64(after).as_bytes());
        let page = self.names.kv.scan(&range, Order::Forward, limit)?;
        let sealed = self.sealed(shard)?;
        if after < sealed {
            return Err(Error::EventsGone { shard: shard.0, sealed });
        }
        page.rows.iter().map(|(key, row)| self.decode(key, row)).collect()
    }

    fn decode(&self, key: &[u8], row: &Row) -> Result<(u64, Event)> {
        Ok((rows::read_event(self.tenant, key)?, Event::decode(&row.value)?))
    }

    /// Position of the last event of a shard; 0: there was none yet.
    pub fn end(&self, shard: Shard) -> Result<u64> {
        let row = self.names.kv.get(rows::events_end(self.tenant, shard.0))?;
        Ok(row
            .as_ref()
            .and_then(Row::counter)
            .and_then(|end| u64::try_from(end).ok())
            .unwrap_or(0))
    }

    /// Position of the last event of a shard that has left; 0: none has.
    pub fn sealed(&self, shard: Shard) -> Result<u64> {
        self.position("", shard)
    }

    /// How far a consumer has come in a shard; 0: nowhere.
    pub fn cursor(&self, consumer: &str, shard: Shard) -> Result<u64> {
        check_consumer(consumer)?;
        self.position(consumer, shard)
    }

    /// Remembers that a consumer is done with all events of a shard up to one.
    pub fn advance(&self, consumer: &str, shard: Shard, to: u64) -> Result<()> {
        check_consumer(consumer)?;
        let mut batch = Batch::new();
        batch.put(rows::cursor(self.tenant, consumer, shard.0), to.to_be_bytes().to_vec());
        match self.names.kv.commit(batch)? {
            Commit::Done(_) => Ok(()),
            Commit::Conflict(_) => unreachable!("a batch without checks has no conflict"),
        }
    }

    fn position(&self, consumer: &str, shard: Shard) -> Result<u64> {
        let row = self.names.kv.get(rows::cursor(self.tenant, consumer, shard.0))?;
        row.map_or(Ok(0), |row| KeyReader::new(&row.value).u64())
    }

    /// Events that are there, and how many a consumer has not seen (all, if it has seen none).
    pub fn lag(&self, consumer: &str) -> Result<u64> {
        Shard::all()
            .map(|shard| Ok(self.end(shard)?.saturating_sub(self.cursor(consumer, shard)?)))
            .sum()
    }

    /// Takes away what is too old or too much, the oldest first, each segment after `sink` has kept it. Returns how many events.
    ///
    /// A segment may be handed over again after a crash: [`Segment::shard`] and [`Segment::first`] name it.
    ///
    /// - Errors: those of `sink`, after which what it did not keep is still there.
    pub fn seal(&self, bound: &OutboxBound, sink: &mut dyn FnMut(&Segment) -> Result<()>) -> Result<u64> {
        let mut count = 0;
        let too_old = self.names.now_ms().saturating_sub(bound.age_ms);
        for shard in Shard::all() {
            while let Some(segment) = self.segment(shard, |event| event.timestamp_ms < too_old)? {
                count += self.leave(&segment, sink)?;
            }
        }
        loop {
            let mut total = 0;
            let mut most = (0, Shard(0));
            for shard in Shard::all() {
                let there = self.end(shard)?.saturating_sub(self.sealed(shard)?);
                total += there;
                most = most.max((there, shard));
            }
            let mut excess = total.saturating_sub(bound.events);
            if excess == 0 {
                return Ok(count);
            }
            let segment = self.segment(most.1, |_| {
                let wanted = excess > 0;
                excess = excess.saturating_sub(1);
                wanted
            })?;
            let Some(segment) = segment else {
                return Ok(count);
            };
            count += self.leave(&segment, sink)?;
        }
    }

    /// The first events of a shard, as long as they are wanted.
    fn segment(&self, shard: Shard, mut wanted: impl FnMut(&Event) -> bool) -> Result<Option<Segment>> {
        let mut segment: Option<Segment> = None;
        let mut rest = Some(rows::events(self.tenant, shard.0).range());
        let mut count = 0;
        while let Some(range) = rest {
            let page = self.names.kv.scan(&range, Order::Forward, SEGMENT_EVENTS - count)?;
            for (key, row) in &page.rows {
                let (position, event) = self.decode(key, row)?;
                let is_full = |segment: &Segment| segment.lines.len() >= SEGMENT_LEN;
                if segment.as_ref().is_some_and(is_full) || !wanted(&event) {
                    return Ok(segment);
                }
                let segment = segment.get_or_insert_with(|| Segment {
                    shard,
                    first: position,
                    last: position,
                    first_ms: event.timestamp_ms,
                    last_ms: event.timestamp_ms,
                    lines: Vec::new(),
                });
                (segment.last, segment.last_ms) = (position, event.timestamp_ms);
                segment
                    .lines
                    .extend_from_slice(event.to_json(self.tenant).to_string().as_bytes());
                segment.lines.push(b'\n');
                count += 1;
            }
            rest = page.rest.filter(|_| count < SEGMENT_EVENTS);
        }
        Ok(segment)
    }

    fn leave(&self, segment: &Segment, sink: &mut dyn FnMut(&Segment) -> Result<()>) -> Result<u64> {
        sink(segment)?;
        let cursor = rows::cursor(self.tenant, "", segment.shard.0);
        let before = self.names.kv.get(&cursor)?;
        let mut batch = Batch::new();
        batch
            .check(&cursor, Check::unchanged(before.as_ref()))
            .put(cursor, segment.last.to_be_bytes().to_vec());
        for position in segment.first..=segment.last {
            batch.delete(rows::events(self.tenant, segment.shard.0).u64(position));
        }
        match self.names.kv.commit(batch)? {
            Commit::Done(_) => Ok(segment.last - segment.first + 1),
            // Another seals too, and has come further.
            Commit::Conflict(_) => Err(Error::Contended { what: "the outbox" }),
        }
    }
}

fn check_consumer(consumer: &str) -> Result<()> {
    if consumer.is_empty() || consumer.len() > 128 {
        return Err(Error::BadName {
            what: "consumer",
            name: consumer.chars().take(64).collect(),
            rule: "1 to 128 bytes",
        });
    }
    Ok(())
}
