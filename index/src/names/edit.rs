//! One change of a bucket's names being put together: its rows, what they depend on, what they count, and the event.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::Names;
use super::bucket::{Bucket, Switch};
use super::content::{Content, NewContent};
use super::event::{Cause, Event, EventId};
use super::ids::{VersionId, VersionOrder};
use super::name::ObjectKey;
use super::rows::{self, Counted};
use super::search::found_by;
use super::version::{ObjectVersion, PART_PAGE_LEN, PartRecord, Parts, encode_part};
use super::whole_digest::{digest_rows, lack_row};
use crate::bug::{Bug, is_planted};
use crate::kv::{Batch, Check, Commit, Version};
use crate::liveness::{Fence, given_up, join, retire};
use crate::{Error, Key, Result, Table};

/// Seconds for which the pages of what was deleted are still read by who had begun to.
pub(super) const READ_GRACE_S: u64 = 3600;

/// Why a change did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guard {
    /// The bucket is another, or gone.
    Bucket,
    /// Chunks have been collected.
    Fence,
    /// The pages of a manifest were given up.
    Pending,
    /// The upload has ended.
    Upload,
    /// Rows that it was decided by are others: decide anew.
    Rows,
}

/// A change.
#[derive(Debug)]
pub(super) struct Edit<'a> {
    names: &'a Names,
    bucket: &'a Bucket,
    pub(super) batch: Batch,
    guards: Vec<Guard>,
    /// Objects, versions, bytes: what is added.
    usage: [i64; 3],
    /// Rows by which what was current is found, and what is: those of the search and of digests.
    found_before: BTreeSet<Key>,
    found_after: BTreeSet<Key>,
    /// The row of what was current and lacks a digest, and of what is.
    lacked: Option<Key>,
    lacks: Option<Key>,
    now_ms: u64,
}

impl<'a> Edit<'a> {
    /// Begins one that depends on the bucket being as it is.
    pub(super) fn new(names: &'a Names, bucket: &'a Bucket) -> Self {
        let mut edit = Self {
            names,
            bucket,
            batch: Batch::new(),
            guards: Vec::new(),
            usage: [0; 3],
            found_before: BTreeSet::new(),
            found_after: BTreeSet::new(),
            lacked: None,
            lacks: None,
            now_ms: names.now_ms(),
        };
        let row = rows::bucket(&bucket.tenant, &bucket.name);
        edit.check(Guard::Bucket, row, Check::Version(bucket.row));
        edit
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    pub(super) fn check(&mut self, guard: Guard, key: Key, check: Check) {
        self.batch.check(key, check);
        self.guards.push(guard);
    }

    /// Has content count that a row of this change holds.
    pub(super) fn prove(&mut self, new: &NewContent) {
        if let Some(fence) = new.fence.as_ref().filter(|_| !is_planted(Bug::UnfencedVersion)) {
            self.fence(fence);
        }
        self.prove_unfenced(new);
    }

    /// [`Edit::prove`] of one among several of one fence, which is checked once for all.
    pub(super) fn prove_unfenced(&mut self, new: &NewContent) {
        for (row, value) in &new.rows {
            self.batch.put(row, value.clone());
        }
        if let (Content::Manifest(manifest), Some(pending)) = (&new.content, new.pending) {
            join(&mut self.batch, &self.bucket.tenant, &manifest.id, pending);
            self.guards.push(Guard::Pending);
        }
    }

    /// Has it depend on nothing having been collected since.
    pub(super) fn fence(&mut self, fence: &Fence) {
        fence.guard(&mut self.batch);
        self.guards.push(Guard::Fence);
    }

    /// Gives up what a row held that this change takes away.
    pub(super) fn give_up(&mut self, content: &Content) {
        if let Content::Manifest(manifest) = content {
            let until = self.now_ms / 1000 + READ_GRACE_S;
            retire(&mut self.batch, &self.bucket.tenant, &manifest.id, until);
        }
    }

    fn key(&self, table: Table, key: &ObjectKey) -> Key {
        rows::of_key(&self.bucket.tenant, table, self.bucket.id, key)
    }

    /// The row that says which object holds a chunk.
    fn holder(&self, key: &ObjectKey, version: &ObjectVersion) -> Option<Key> {
        match &version.object()?.content {
            Content::Inline { domain, id, bytes } if !bytes.is_empty() => {
                let chunk = cairn_store::ChunkKey {
                    domain: *domain,
                    id: *id,
                };
                let Bucket { tenant, id, .. } = self.bucket;
                Some(rows::inline_holder(tenant, &chunk, *id, key, version.order))
            }
            _ => None,
        }
    }

    /// Adds a version that is the newest of its key.
    pub(super) fn add_newest(&mut self, key: &ObjectKey, version: &ObjectVersion) {
        self.usage[1] += 1;
        self.usage[2] += len_of(version);
        if let Some(holder) = self.holder(key, version) {
            self.batch.put(holder, Vec::new());
        }
        self.write_newest(key, version);
    }

    fn write_newest(&mut self, key: &ObjectKey, version: &ObjectVersion) {
        let table = match version.object() {
            Some(_) => {
                self.usage[0] += 1;
                self.found_as(key, version);
                Table::Objects
            }
            None => Table::Markers,
        };
        self.batch.put(self.key(table, key), version.encode());
    }

    /// Takes the newest version's row away where the next newest is of the other kind, so that nothing is written over it.
    pub(super) fn clear_newest(&mut self, key: &ObjectKey, newest: &ObjectVersion, next: Option<&ObjectVersion>) {
        let is_object = newest.object().is_some();
        if is_object {
            self.usage[0] -= 1;
            self.no_more_found_as(key, newest);
        }
        if next.is_none_or(|next| next.object().is_some() != is_object) {
            let table = if is_object { Table::Objects } else { Table::Markers };
            self.batch.delete(self.key(table, key));
        }
    }

    /// Has an object be found: by the search, if the bucket has one, and by its digests.
    pub(super) fn found_as(&mut self, key: &ObjectKey, version: &ObjectVersion) {
        if self.bucket.record.settings.search == Switch::On {
            self.found_after.extend(found_by(self.bucket, key, version));
        }
        self.found_after.extend(digest_rows(self.bucket, key, version));
        self.lacks = lack_row(self.bucket, key, version);
    }

    /// Has an object be found no more, unless it is found by the same again.
    pub(super) fn no_more_found_as(&mut self, key: &ObjectKey, version: &ObjectVersion) {
        self.found_before.extend(found_by(self.bucket, key, version));
        self.found_before.extend(digest_rows(self.bucket, key, version));
        self.lacked = lack_row(self.bucket, key, version);
    }

    /// Keeps what was the newest version as an older one.
    pub(super) fn demote(&mut self, key: &ObjectKey, version: &ObjectVersion) {
        let row = rows::version(&self.bucket.tenant, self.bucket.id, key, version.order);
        self.batch.put(row, version.encode());
        if version.id.is_null() {
            let row = self.key(Table::NullVersions, key);
            self.batch.put(row, version.order.0.to_be_bytes().to_vec());
        }
    }

    /// Makes an older version the newest.
    pub(super) fn promote(&mut self, key: &ObjectKey, version: &ObjectVersion) {
        self.forget_older(key, version.id, version.order);
        self.write_newest(key, version);
    }

    /// Takes an older version's rows away.
    pub(super) fn forget_older(&mut self, key: &ObjectKey, id: VersionId, order: VersionOrder) {
        let row = rows::version(&self.bucket.tenant, self.bucket.id, key, order);
        self.batch.delete(row);
        if id.is_null() {
            self.batch.delete(self.key(Table::NullVersions, key));
        }
    }

    /// Gives up all that a version held, whose own row is taken away elsewhere.
    pub(super) fn drop_version(&mut self, key: &ObjectKey, version: &ObjectVersion) {
        self.usage[1] -= 1;
        self.usage[2] -= len_of(version);
        if let Some(holder) = self.holder(key, version) {
            self.batch.delete(holder);
        }
        let Some(object) = version.object() else {
            return;
        };
        self.give_up(&object.content);
        if let Parts::Paged { id, count } = &object.parts {
            for page in 0..count.div_ceil(PART_PAGE_LEN as u32) {
                self.batch.delete(rows::part_list(&self.bucket.tenant, id, page));
            }
        }
    }

    /// Writes parts in pages.
    pub(super) fn put_parts(&mut self, id: &[u8; 16], parts: &[PartRecord]) {
        for (page, parts) in (0..).zip(parts.chunks(PART_PAGE_LEN)) {
            let mut value = Vec::new();
            for part in parts {
                let part = encode_part(part);
                value.push(u8::try_from(part.len()).expect("a part is some sixty bytes"));
                value.extend_from_slice(&part);
            }
            self.batch.put(rows::part_list(&self.bucket.tenant, id, page), value);
        }
    }

    /// Says that an event happened, unless it is the outbox that made it happen.
    pub(super) fn event(
        &mut self,
        event_type: &str,
        key: &ObjectKey,
        cause: &Cause,
        payload: Map<String, Value>,
    ) -> Result<()> {
        if !cause.makes_events() {
            return Ok(());
        }
        let event = Event {
            id: EventId::of_chance(self.names.chance()?),
            event_type: event_type.to_owned(),
            timestamp_ms: self.now_ms,
            cause: cause.clone(),
            aggregate_id: format!("{}/{key}", self.bucket.name),
            payload,
        };
        let (tenant, shard) = (&self.bucket.tenant, event.shard());
        let end = rows::events_end(tenant, shard);
        if is_planted(Bug::EventOutside) {
            let mut alone = Batch::new();
            alone.append(end, rows::events(tenant, shard), event.encode());
            let _ = self.names.kv.commit(alone)?;
            return Ok(());
        }
        self.batch.append(end, rows::events(tenant, shard), event.encode());
        Ok(())
    }

    /// Does it.
    ///
    /// Errors: [`Error::FenceMoved`], [`Error::Malformed`] for a manifest that was given up.
    pub(super) fn commit(mut self) -> Result<std::result::Result<Version, Guard>> {
        for (counted, difference) in [Counted::Objects, Counted::Versions, Counted::Bytes]
            .into_iter()
            .zip(self.usage)
        {
            if difference != 0 {
                for id in [Some(self.bucket.id), None] {
                    let counter = rows::usage(&self.bucket.tenant, id, counted);
                    self.batch.add(counter, difference);
                }
            }
        }
        for gone in self.found_before.difference(&self.found_after) {
            self.batch.delete(gone);
        }
        for new in self.found_after.difference(&self.found_before) {
            self.batch.put(new, Vec::new());
        }
        // Written again even if it was there: it may have been there only by the bucket's settings of now.
        match (&self.lacked, &self.lacks) {
            (_, Some(lacks)) => _ = self.batch.put(lacks, Vec::new()),
            (Some(lacked), None) => _ = self.batch.delete(lacked),
            (None, None) => {}
        }
        self.batch.relax(self.bucket.record.settings.durability.sync());
        match self.names.kv.commit(self.batch)? {
            Commit::Done(version) => Ok(Ok(version)),
            Commit::Conflict(conflict) => match self.guards.get(conflict.check).copied() {
                Some(Guard::Fence) => Err(Error::FenceMoved),
                Some(Guard::Pending) => Err(given_up()),
                Some(guard) => Ok(Err(guard)),
                None => Ok(Err(Guard::Rows)),
            },
        }
    }
}

fn len_of(version: &ObjectVersion) -> i64 {
    i64::try_from(version.size()).unwrap_or(i64::MAX)
}
