//! Writing: one writer at a time empties the queue of records (`queue.rs`) for everybody (group commit).
//!
//! There is no thread: the first who needs something durable becomes the writer of all that is queued; who comes
//! meanwhile waits and finds it done, or becomes the next writer. Writers that come and go in two groups, each waiting for the
//! other's sync, would pay two syncs where one does: so who writes first waits for as many as waited when the last write ended, no
//! longer than half of what a sync takes at the least: where syncs are cheap, two groups that take turns are faster. Who is alone
//! waits for nobody. Order: records, one sync, places published, waiters
//! let go.
//! A failed sync spoils the file for good: the pack is cut back to what was durable and left, and the records, still in memory,
//! go into a new one. Hot path: keep out copies of payloads.

use std::collections::HashSet;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use cairn_formats::{
    DomainId, PACK_HAS_SNAPSHOTS, PACK_HEADER_LEN, PackEntry, PackFooter, PackHeader, PackUuid, Removal, StorableChunk,
    payload_crc,
};

use super::bug::{Bug, is_planted};
use super::queue::{Content, Item, Queue, commit_extra, key_of};
use super::{BATCH_TIME, Change, ChunkKey, ChunkPlace, EARLY_TIME, LogPosition, Pack, PackEngine, removal};
use crate::{Result, SyncPolicy};

/// Where chunks are, in the order in which they were asked for.
type Found = Result<Vec<Option<ChunkPlace>>>;

/// What only who writes may touch.
#[derive(Debug, Default)]
pub(super) struct Writer {
    open: Option<OpenPack>,
    /// Number of the pack begun last.
    pub(super) last_number: u32,
    /// Number of the commit written last.
    pub(super) last_commit: u64,
    /// What was written could not be published.
    failed: bool,
    /// What was written and could not be published for want of room: the first records of those that wait.
    unpublished: Option<Written>,
    /// Records that wait may lie in a pack that was left.
    left_behind: bool,
}

/// Records that are in a pack.
#[derive(Debug)]
struct Written {
    entries: Vec<PackEntry>,
    /// Where they lie in the log.
    begin: LogPosition,
    end: LogPosition,
    first_commit: u64,
    /// Batches of the index among what is not durable yet, these or earlier ones.
    ahead: bool,
}

/// The pack that is being appended to.
#[derive(Debug)]
struct OpenPack {
    pack: Arc<Pack>,
    /// Where the next record begins.
    end: u64,
    /// Up to where the file is durable.
    synced: u64,
    synced_at: Duration,
    entries: Vec<PackEntry>,
    /// How many of the entries are durable.
    synced_entries: usize,
    hasher: Box<blake3::Hasher>,
    /// Its header says that there may be pieces of a snapshot in it.
    takes_snapshots: bool,
    /// There are batches of the index behind what is durable.
    early: bool,
    /// When the first of those came that is to be durable soon.
    early_since: Option<Duration>,
}

impl PackEngine {
    /// Takes chunks that are neither in the store nor on their way into it. One that is condemned, or is to be pinned and is
    /// not, is written anew.
    ///
    /// - `sync`: of chunks that are new.
    pub(super) fn put_many(
        &self,
        domain: DomainId,
        pinned: bool,
        sync: SyncPolicy,
        chunks: &[StorableChunk],
    ) -> Result<()> {
        self.writable()?;
        // On a full disk what waits already would grow with every call.
        self.keep_queue_short(self.queue())?;
        let keys: Vec<ChunkKey> = chunks.iter().map(|chunk| ChunkKey { domain, id: chunk.id() }).collect();
        let (done_before, leaving) = {
            let queue = self.queue();
            let leaving: HashSet<ChunkKey> = keys.iter().filter(|key| queue.leaves(key)).copied().collect();
            (queue.done, leaving)
        };
        let found = self.locations.find_many(&keys)?;
        let places = self.relied_on(&keys, found.clone(), pinned)?;
        let absent = (0..keys.len()).filter(|&n| places[n].is_none() || leaving.contains(&keys[n]));
        let items: Vec<Item> = absent
            .map(|n| Item::chunk(keys[n], pinned, found[n].is_some(), &chunks[n], sync))
            .collect();
        if items.is_empty() {
            return Ok(());
        }
        let mut queue = self.queue();
        let keys: Vec<ChunkKey> = items.iter().filter_map(Item::new_chunk).collect();
        // Somebody may have published the same chunks since they were looked up.
        let places = if queue.done == done_before {
            vec![None; keys.len()]
        } else {
            let places = self.locations.find_many(&keys)?;
            self.relied_on(&keys, places, pinned)?
        };
        for ((item, key), place) in items.into_iter().zip(keys).zip(places) {
            let coming = queue.pending.get(&key).is_some_and(|&(_, will_be)| will_be || !pinned);
            if queue.leaves(&key) || (place.is_none() && !coming) {
                queue.push(item);
            }
        }
        self.keep_queue_short(queue)
    }

    /// Queues records as they are; returns the ticket of the last.
    pub(super) fn enqueue(&self, items: Vec<Item>) -> Result<u64> {
        self.writable()?;
        let mut queue = self.queue();
        items.into_iter().for_each(|item| queue.push(item));
        let ticket = queue.enqueued;
        self.keep_queue_short(queue)?;
        Ok(ticket)
    }

    /// Queues a chunk to be written anew if it still is where it was; returns the ticket. One that is being taken away must not
    /// follow its own removal: a crash behind it would bring the chunk back.
    pub(super) fn enqueue_moved(&self, key: ChunkKey, place: ChunkPlace, item: Item) -> Result<Option<u64>> {
        self.writable()?;
        loop {
            let mut queue = self.queue();
            if let Some(&ticket) = queue.leaving.get(&key) {
                drop(queue);
                self.settle(ticket)?;
                continue;
            }
            let now = self.locations.find_many(&[key])?[0];
            if !now.is_some_and(|now| now.is_at(place.pack, place.offset)) {
                return Ok(None);
            }
            queue.push(item);
            let ticket = queue.enqueued;
            self.keep_queue_short(queue)?;
            return Ok(Some(ticket));
        }
    }

    /// Takes out of the queue what nobody waits for any more: chunks to be written anew, pieces of snapshots.
    ///
    /// Nothing is taken out while records may lie in a pack that was left: a crash may show them, and only what is written after
    /// them takes them back.
    pub(super) fn withdraw(&self, goes: impl Fn(&Item) -> bool) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if writer.left_behind {
            return;
        }
        let mut queue = self.queue();
        let Queue { items, bytes, .. } = &mut *queue;
        for item in items {
            if goes(item) {
                *bytes -= item.payload.len();
                // Tickets count records.
                *item = Item::removals(Vec::new());
            }
        }
    }

    fn keep_queue_short(&self, queue: MutexGuard<'_, Queue>) -> Result<()> {
        if queue.bytes <= self.options.queue_len {
            return Ok(());
        }
        // Half of it may go on waiting: whoever waits here should not wait for those who came after.
        let ticket = queue.enqueued;
        drop(queue);
        self.settle(ticket)
    }

    /// Where chunks are; those that are on their way are waited for.
    pub(super) fn places(&self, keys: &[ChunkKey]) -> Result<Vec<Option<ChunkPlace>>> {
        self.look_up(keys, &|keys| self.locations.get_many(keys))
    }

    /// The same, as far as [`Locations::find_many`] tells.
    ///
    /// [`Locations::find_many`]: super::Locations::find_many
    pub(super) fn find(&self, keys: &[ChunkKey]) -> Found {
        self.look_up(keys, &|keys| self.locations.find_many(keys))
    }

    fn look_up(&self, keys: &[ChunkKey], locations: &dyn Fn(&[ChunkKey]) -> Found) -> Found {
        let done_before = self.queue().done;
        let places = locations(keys)?;
        if places.iter().all(Option::is_some) {
            return Ok(places);
        }
        let ticket = {
            let queue = self.queue();
            let absent = keys.iter().zip(&places).filter(|(_, place)| place.is_none());
            absent.filter_map(|(key, _)| Some(queue.pending.get(key)?.0)).max()
        };
        match ticket {
            Some(ticket) => {
                self.settle(ticket)?;
                locations(keys)
            }
            // Nothing is on its way; but what was when we looked first may have arrived before we looked second.
            None if self.queue().done == done_before => Ok(places),
            None => locations(keys),
        }
    }

    /// Waits for everything that was queued before.
    pub(super) fn settle_all(&self) -> Result<()> {
        let ticket = self.queue().enqueued;
        self.settle(ticket)
    }

    /// Waits until a record is published, writing it and all others that wait if nobody else does.
    pub(super) fn settle(&self, ticket: u64) -> Result<()> {
        let mut queue = self.queue();
        if queue.done >= ticket {
            return Ok(());
        }
        queue.waiting.push(ticket);
        if queue.waiting.len() >= queue.expected {
            self.gathered.notify_one();
        }
        while queue.done < ticket {
            if queue.writing {
                queue = self.settled.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            queue.writing = true;
            // Who waits for no sync shares none.
            if queue.items.iter().any(|item| item.sync() == SyncPolicy::Sync) {
                queue = self.gather(queue);
            }
            let mut items = std::mem::take(&mut queue.items);
            drop(queue);
            let (written, outcome) = self.write(&items);
            queue = self.queue();
            let rest = items.split_off(written);
            queue.done += written as u64;
            queue.expected = queue.waiting.len();
            let done = queue.done;
            for item in &items {
                queue.bytes -= item.payload.len();
                // Unless the same chunk was queued once more.
                if let Some(key) = item.new_chunk()
                    && queue.pending.get(&key).is_some_and(|&(ticket, _)| ticket <= done)
                {
                    queue.pending.remove(&key);
                }
                if let Content::Removals(_) = item.content {
                    queue.leaving.retain(|_, ticket| *ticket > done);
                }
            }
            let later = std::mem::replace(&mut queue.items, rest);
            queue.items.extend(later);
            queue.writing = false;
            queue.waiting.retain(|waiting| *waiting > done);
            self.settled.notify_all();
            if let Err(error) = outcome {
                // Others try again; who tells of the error does not.
                if let Some(mine) = queue.waiting.iter().position(|waiting| *waiting == ticket) {
                    queue.waiting.swap_remove(mine);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Waits a little for those who are to be expected.
    fn gather<'a>(&self, queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        let patience = Duration::from_nanos(self.sync_least_ns.load(Ordering::Relaxed) / 2);
        let (queue, _) = self
            .gathered
            .wait_timeout_while(queue, patience, |queue| queue.waiting.len() < queue.expected)
            .unwrap_or_else(PoisonError::into_inner);
        queue
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends records and publishes them. Returns how many of them, from the first on.
    fn write(&self, items: &[Item]) -> (usize, Result<()>) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done = 0;
        let mut tried_again = false;
        while done < items.len() {
            match self.write_some(&mut writer, &items[done..]) {
                Ok(written) => done += written,
                // The records are still here: a new file may do better, unless there is no room for it.
                Err((action, error)) => {
                    if tried_again || is_full(&error) {
                        return (done, Err(self.unavailable(action, error)));
                    }
                    tried_again = true;
                }
            }
        }
        writer.left_behind = false;
        let ended = writer.position();
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
        (done, Ok(()))
    }

    /// Appends as many records as the open pack has room for; at least one, or else seals it.
    fn write_some(&self, writer: &mut Writer, items: &[Item]) -> std::result::Result<usize, (&'static str, io::Error)> {
        writer.check().map_err(|error| ("write", error))?;
        if let Some(written) = writer.unpublished.take() {
            return self.publish_written(writer, items, written);
        }
        if writer.open.is_none() {
            let takes_snapshots = items.iter().any(Item::is_snapshot);
            let begun = self.begin_pack(writer.last_number + 1, takes_snapshots);
            writer.open = Some(begun.map_err(|error| ("begin a pack", error))?);
            writer.last_number += 1;
        }
        let open = writer.open.as_mut().expect("begun above");
        let fitting = open.fitting(items, self.options.pack_len);
        if fitting == 0 {
            self.seal(writer).map_err(|error| ("seal a pack", error))?;
            return Ok(0);
        }
        let items = &items[..fitting];
        let begin = open.position(open.end);
        let first_commit = writer.last_commit + 1;
        let appended = open.append(items, first_commit);
        if let Err(error) = appended {
            // Nothing relies on the bytes behind the end; but a file that fails otherwise than for want of room is left.
            let cut = open.pack.file.truncate(open.end);
            if cut.is_err() || !is_full(&error) {
                self.abandon(writer);
            }
            return Err(("write to a pack", error));
        }
        let commits = items
            .iter()
            .filter(|item| matches!(item.content, Content::Commit))
            .count();
        let begun = self.host.now();
        for item in items.iter().filter(|item| item.is_early_commit()) {
            open.early = true;
            if item.sync() == SyncPolicy::Batch {
                open.early_since.get_or_insert(begun);
            }
        }
        // What a batch of the index names is before it in the log, and is not lost if the batch is not.
        let wants = |wanted: SyncPolicy| {
            items
                .iter()
                .any(|item| !item.is_early_commit() && item.sync() == wanted)
        };
        let is_late = |since: Duration, most: Duration| begun.saturating_sub(since) >= most;
        let sync = wants(SyncPolicy::Sync)
            || wants(SyncPolicy::Batch) && is_late(open.synced_at, BATCH_TIME)
            || open.early_since.is_some_and(|since| is_late(since, EARLY_TIME));
        if sync && let Err(error) = open.sync(begun) {
            // These are still in memory, and nobody has been told of them.
            open.entries.truncate(open.entries.len() - fitting);
            self.abandon(writer);
            return Err(("sync a pack", error));
        }
        if sync {
            let took = self.host.now().saturating_sub(begun).as_nanos();
            let took = u64::try_from(took).unwrap_or(u64::MAX);
            // None yet is 0.
            let least = |least: u64| Some(if least == 0 { took } else { least.min(took) });
            let _ = self
                .sync_least_ns
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, least);
        }
        writer.last_commit += commits as u64;
        let written = Written {
            entries: open.entries[open.entries.len() - fitting..].to_vec(),
            begin,
            end: open.position(open.end),
            first_commit,
            ahead: open.early,
        };
        self.publish_written(writer, items, written)
    }

    /// Publishes what is in the pack, the first of the records. Returns how many they are.
    fn publish_written(
        &self,
        writer: &mut Writer,
        items: &[Item],
        written: Written,
    ) -> std::result::Result<usize, (&'static str, io::Error)> {
        let count = written.entries.len();
        // Durable, but not found: only the next opening can put that right, or room where the locations lie.
        writer.failed = true;
        if let Err(error) = self.publish(&items[..count], &written) {
            let kind = if error.is_full() {
                writer.failed = false;
                writer.unpublished = Some(written);
                io::ErrorKind::StorageFull
            } else {
                io::ErrorKind::Other
            };
            return Err(("publish what was written", io::Error::new(kind, error)));
        }
        writer.failed = false;
        Ok(count)
    }

    /// Tells the locations what is durable now. Told twice, it is the same.
    fn publish(&self, items: &[Item], written: &Written) -> Result<()> {
        let Written {
            ref entries,
            begin,
            end,
            first_commit,
            ahead,
        } = *written;
        if is_planted(Bug::EarlyWatermark) {
            self.locations.apply(&[], end)?;
        }
        let mut changes = Vec::with_capacity(items.len());
        let mut orphans = Vec::new();
        let mut commit = first_commit;
        for (item, entry) in items.iter().zip(entries) {
            match &item.content {
                Content::Chunk { key, is_moved, .. } => {
                    let place = ChunkPlace::of(end.pack, entry);
                    if *is_moved {
                        self.apply(&mut changes, begin)?;
                        if self.locations.find_many(&[*key])?[0].is_none() {
                            // Removed while it was on its way: it must not come back with the next opening either. (Put again
                            // meanwhile, this is as good a copy.)
                            orphans.push(removal(*key, &place));
                            continue;
                        }
                    }
                    changes.push(Change::Put(*key, place));
                }
                Content::Commit => {
                    changes.push(Change::Commit(commit, item.payload.clone()));
                    commit += 1;
                }
                Content::Removals(removals) => self.apply_removals(removals, &mut changes, begin)?,
                Content::Snapshot(_) => {}
            }
        }
        if !ahead {
            self.apply(&mut changes, end)?;
        } else if !changes.is_empty() {
            self.locations.apply_ahead(&changes, end)?;
        }
        for (item, entry) in items.iter().zip(entries) {
            match &item.content {
                Content::Commit => self.snapshots().note_commit(end.pack, entry),
                Content::Snapshot(head) => self.snapshots().note(end.pack, entry, *head, &item.payload),
                _ => {}
            }
        }
        if !orphans.is_empty() {
            self.queue().push(Item::removals(orphans));
        }
        Ok(())
    }

    /// Applies changes that were gathered, and forgets them.
    pub(super) fn apply(&self, changes: &mut Vec<Change>, watermark: LogPosition) -> Result<()> {
        if !changes.is_empty() {
            self.locations.apply(changes, watermark)?;
            changes.clear();
        }
        Ok(())
    }

    /// Removes chunks that are where a record says that they were, or further back in the log: a chunk that is found there
    /// again is an older copy, such as a crash in the middle of moving a pack leaves.
    pub(super) fn apply_removals(
        &self,
        removals: &[Removal],
        changes: &mut Vec<Change>,
        watermark: LogPosition,
    ) -> Result<()> {
        self.apply(changes, watermark)?;
        let keys: Vec<ChunkKey> = removals.iter().map(key_of).collect();
        let places = self.locations.find_many(&keys)?;
        for ((removal, key), place) in removals.iter().zip(keys).zip(places) {
            if place.is_some_and(|place| (place.pack, place.offset) <= (removal.pack, removal.offset)) {
                changes.push(Change::Remove(key));
            }
        }
        self.apply(changes, watermark)
    }

    fn begin_pack(&self, number: u32, takes_snapshots: bool) -> io::Result<OpenPack> {
        let uuid = PackUuid(self.host.random()?);
        let created = u32::try_from(self.host.unix_seconds()).unwrap_or(u32::MAX);
        let header = PackHeader {
            incompat: if takes_snapshots { PACK_HAS_SNAPSHOTS } else { 0 },
            ..PackHeader::new(uuid, number, self.options.algorithm, created)
        };
        let header = header.encode();
        let name = pack_name(number, uuid);
        let file = self.host.create(&name)?;
        let begun = (|| {
            file.write_at(0, &[&header])?;
            // Whatever the policy is: a batch of the index in this pack is durable only if the pack's name is.
            file.sync()?;
            if is_planted(Bug::MissingNameSync) {
                return Ok(());
            }
            self.host.sync_names()
        })();
        if let Err(error) = begun {
            // The first error is the one to tell; a file without records is passed over when the store is opened.
            let _ = self.host.remove(&name);
            return Err(error);
        }
        let pack = Arc::new(Pack { number, uuid, file });
        let mut packs = self.packs.write().unwrap_or_else(PoisonError::into_inner);
        packs.insert(number, pack.clone());
        let mut hasher = Box::new(blake3::Hasher::new());
        hasher.update(&header);
        Ok(OpenPack {
            pack,
            end: PACK_HEADER_LEN as u64,
            synced: PACK_HEADER_LEN as u64,
            synced_at: self.host.now(),
            entries: Vec::new(),
            synced_entries: 0,
            hasher,
            takes_snapshots,
            early: false,
            early_since: None,
        })
    }

    /// Ends the open pack. One that cannot be sealed stays as a crash would leave it; its records are durable.
    fn seal(&self, writer: &mut Writer) -> io::Result<()> {
        let Some(mut open) = writer.open.take() else {
            return Ok(());
        };
        if open.synced < open.end
            && let Err(error) = open.sync(self.host.now())
        {
            writer.open = Some(open);
            self.abandon(writer);
            return Err(error);
        }
        let footer = PackFooter::new(open.entries, *open.hasher.finalize().as_bytes(), open.end).encode();
        let file = &open.pack.file;
        let sealed = file.write_at(open.end, &[&footer]).and_then(|()| file.sync());
        if sealed.is_err() {
            // The next opening must not take a footer for durable that only reads show, and then not look behind it.
            let _ = file.truncate(open.end);
        }
        sealed
    }

    /// Leaves the open pack for good. All its entries have been published.
    fn abandon(&self, writer: &mut Writer) {
        let Some(open) = writer.open.take() else {
            return;
        };
        writer.left_behind = true;
        if open.synced_entries < open.entries.len() {
            // Acknowledged before they were durable, by policy. They can still be read, and the next opening writes them once
            // more; until then nothing may be acknowledged that relies on them.
            writer.failed = true;
            return;
        }
        // If not even that works, what is behind is told from the rest by its check sums when the store is opened; it was
        // never acknowledged, and is written again elsewhere.
        let _ = open.pack.file.truncate(open.synced);
    }

    pub(super) fn sync_writer(&self) -> Result<()> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.check().map_err(|error| self.unavailable("sync a pack", error))?;
        let Some(open) = writer.open.as_mut() else {
            return Ok(());
        };
        if open.synced == open.end {
            return Ok(());
        }
        if let Err(error) = open.sync(self.host.now()) {
            self.abandon(&mut writer);
            return Err(self.unavailable("sync a pack", error));
        }
        Ok(())
    }

    /// Makes batches of the index durable that were acknowledged early and are to be durable soon ([`SyncPolicy::Batch`]). Costs
    /// nothing where there are none; for who calls it now and then.
    pub fn sync_early(&self) -> Result<()> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        // Some may be among what was lost.
        writer.check().map_err(|error| self.unavailable("sync a pack", error))?;
        let has_some = writer.open.as_ref().is_some_and(|open| open.early_since.is_some());
        drop(writer);
        if has_some { self.sync_writer() } else { Ok(()) }
    }

    /// Where the log ends: what is published later lies at or behind this.
    pub fn position(&self) -> LogPosition {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).position()
    }

    /// A place that the log had come to already, without waiting for who writes and syncs: what is published later lies at or behind
    /// it, and some of what was published before may.
    pub fn position_passed(&self) -> LogPosition {
        let ended = *self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.unwrap_or_else(|| self.position())
    }

    /// Number of the pack that is being appended to, or that would be begun next: only older ones may be compacted.
    pub(super) fn open_number(&self) -> u32 {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        match &writer.open {
            Some(open) => open.pack.number,
            None => writer.last_number + 1,
        }
    }

    /// Ends the open pack, so that it may be compacted too.
    pub fn seal_open(&self) -> Result<()> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.seal(&mut writer)
            .map_err(|error| self.unavailable("seal a pack", error))
    }

    /// Writes what waits and seals. Nothing can be told to anybody any more: who needs to know has flushed.
    pub(super) fn close(&self) {
        if !self.options.read_only {
            let _ = self.settle_all();
            let _ = self.seal_open();
            let _ = self.locations.persist();
        }
    }
}

impl Writer {
    /// Where the log ends: what is published later lies at or behind this.
    fn position(&self) -> LogPosition {
        if let Some(written) = &self.unpublished {
            return written.begin;
        }
        match &self.open {
            Some(open) => open.position(open.end),
            None => LogPosition {
                pack: self.last_number + 1,
                offset: 0,
            },
        }
    }

    /// Errors: it may not go on.
    fn check(&self) -> io::Result<()> {
        if self.failed {
            let message = "an earlier write was lost or could not be published: open the store again";
            return Err(io::Error::other(message));
        }
        Ok(())
    }
}

impl OpenPack {
    fn position(&self, offset: u64) -> LogPosition {
        LogPosition {
            pack: self.pack.number,
            offset,
        }
    }

    /// How many of the records, from the first on, the pack has room for; one longer than a whole pack gets one of its own.
    fn fitting(&self, items: &[Item], pack_len: u64) -> usize {
        let mut end = self.end;
        let items = match items.iter().position(Item::is_snapshot) {
            Some(0) if !self.takes_snapshots => return 0,
            Some(before) if !self.takes_snapshots => &items[..before],
            _ => items,
        };
        let fits = |item: &&Item| {
            end = cairn_formats::RecordSpan::at(end, item.payload.len() + commit_extra(item)).end;
            end <= pack_len
        };
        let fitting = items.iter().take_while(fits).count();
        if fitting == 0 && self.entries.is_empty() {
            1
        } else {
            fitting
        }
    }

    /// Writes records at the end. After an error the pack is as before but for bytes behind its end.
    fn append(&mut self, items: &[Item], first_commit: u64) -> io::Result<()> {
        let mut commit = first_commit;
        let mut prefixes = Vec::with_capacity(items.len() * 80);
        let mut entries = Vec::with_capacity(items.len());
        let mut cuts = Vec::with_capacity(items.len());
        let mut end = self.end;
        for item in items {
            let mut head = item.head(self.synced);
            let from = prefixes.len();
            let number = commit.to_le_bytes();
            if let Content::Commit = item.content {
                head.len += number.len() as u32;
                head.crc = payload_crc(&[&number[..], &item.payload].concat());
            }
            let span = head.push(&self.pack.uuid, end, &mut prefixes);
            if let Content::Commit = item.content {
                prefixes.extend_from_slice(&number);
                commit += 1;
            }
            entries.push(head.entry(span));
            cuts.push(from..prefixes.len());
            end = span.end;
        }
        let mut pieces: Vec<&[u8]> = Vec::with_capacity(2 * items.len());
        for (item, cut) in items.iter().zip(cuts) {
            pieces.push(&prefixes[cut]);
            pieces.push(&item.payload);
        }
        self.pack.file.write_at(self.end, &pieces)?;
        // The disk works while we hash.
        self.pack.file.hurry(self.end, end - self.end);
        for piece in pieces {
            self.hasher.update(piece);
        }
        self.end = end;
        self.entries.extend(entries);
        Ok(())
    }

    fn sync(&mut self, now: Duration) -> io::Result<()> {
        if !is_planted(Bug::MissingSync) {
            let synced = self.pack.file.sync();
            if !is_planted(Bug::TrustAfterFailedSync) || synced.is_ok() {
                synced?;
            }
        }
        self.synced = self.end;
        self.synced_at = now;
        (self.early, self.early_since) = (false, None);
        self.synced_entries = self.entries.len();
        Ok(())
    }
}

/// Whether something failed for want of room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The file name of a pack: its number and its name.
pub(super) fn pack_name(number: u32, uuid: PackUuid) -> String {
    format!("{number:08x}-{uuid}.pack")
}
