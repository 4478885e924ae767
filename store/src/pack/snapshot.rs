//! Snapshots of the index: its rows as one commit left them, in pieces among the other records, so that older commits need
//! not be kept.
//!
//! Whoever has the rows streams them here while commits go on. A snapshot counts once all its pieces and its end are durable;
//! before the end is written the locations are made to outlive a crash with the same commits, so that only an index that was lost, or
//! is an old copy, is ever made from a snapshot. What is here in memory is a list of the pieces; the packs can be asked for it anew.
//! Not here: what rows are (`index`), when one is due.

use std::collections::{BTreeMap, HashMap};
use std::sync::{MutexGuard, PoisonError};

use bytes::Bytes;
use cairn_formats::{ChunkId, PackEntry, RecordKind, SnapshotEnd, SnapshotHead, SnapshotUuid, payload_crc};

use super::bug::{Bug, is_planted};
use super::log::pack_name;
use super::queue::{Item, digest};
use super::recover::OpenReport;
use super::{LogPosition, Pack, PackEngine, Suspect};
use crate::{Error, Result};

/// Bytes of rows in a piece, about; one row may be longer.
pub const SNAPSHOT_PIECE_LEN: usize = 1 << 20;

/// Bytes that are read of a record to see which snapshot it is of; an end is read whole.
const HEAD_LEN: u64 = cairn_formats::SNAPSHOT_HEAD_LEN as u64;

/// What has the rows of the index made from a snapshot.
#[derive(Clone, Debug)]
pub enum Restore {
    /// Forgets all rows, and which commits were applied.
    Begin,
    /// Takes rows, as they were given to [`NewSnapshot::push`].
    Rows(Bytes),
    /// Nothing more comes: all commits up to this number have been applied.
    End {
        /// Its number.
        commit: u64,
        /// What was given to [`NewSnapshot::finish`].
        words: Bytes,
    },
}

/// The log of the index in figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotStat {
    /// Number of the last commit in the newest whole snapshot; 0: there is none.
    pub commit: u64,
    /// Bytes of that snapshot.
    pub bytes: u64,
    /// Bytes of the commits behind it, in the packs that hold them.
    pub commit_bytes: u64,
    /// Bytes of packs that hold little else than commits that a new snapshot would make needless.
    pub held_bytes: u64,
}

/// What is known of the pieces that lie in the packs.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    records: BTreeMap<LogPosition, Piece>,
    /// The last copy of each piece: snapshot, number, whether it is the end.
    latest: HashMap<(SnapshotUuid, u32, bool), LogPosition>,
    current: Option<Whole>,
    writing: Option<SnapshotUuid>,
    /// Commits per pack.
    commits: BTreeMap<u32, Commits>,
}

#[derive(Clone, Debug)]
struct Piece {
    head: SnapshotHead,
    id: ChunkId,
    len: u32,
    crc: u32,
    /// Of an end: root, and where other commits lie.
    end: Option<([u8; 32], LogPosition)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Commits {
    /// Offset of the last.
    last: u64,
    bytes: u64,
}

/// A snapshot that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Whole {
    uuid: SnapshotUuid,
    commit: u64,
    /// Commits that are not in it lie here or behind.
    rest: LogPosition,
    bytes: u64,
}

impl Snapshots {
    /// A record of a snapshot that was found or published.
    pub(super) fn note(&mut self, pack: u32, entry: &PackEntry, head: SnapshotHead, payload: &[u8]) {
        let at = LogPosition {
            pack,
            offset: entry.offset,
        };
        let end = head.is_end.then(|| SnapshotEnd::decode(payload).ok()).flatten();
        let end = end.map(|end| {
            let (pack, offset) = end.rest;
            (end.root, LogPosition { pack, offset })
        });
        let piece = Piece {
            head,
            id: entry.id,
            len: entry.len,
            crc: entry.crc,
            end,
        };
        let latest = self.latest.entry((head.uuid, head.piece, head.is_end)).or_insert(at);
        *latest = at.max(*latest);
        self.records.insert(at, piece);
        if (head.is_end || is_planted(Bug::HalfSnapshot))
            && let Some(whole) = self.whole(head.uuid)
            && self.current.is_none_or(|current| current.commit <= whole.commit)
        {
            self.current = Some(whole);
        }
    }

    /// A batch of the index that was found or published.
    pub(super) fn note_commit(&mut self, pack: u32, entry: &PackEntry) {
        let commits = self.commits.entry(pack).or_default();
        commits.last = commits.last.max(entry.offset);
        commits.bytes += u64::from(entry.len);
    }

    /// A pack is gone.
    pub(super) fn forget_pack(&mut self, pack: u32) {
        self.commits.remove(&pack);
        self.records.retain(|at, _| at.pack != pack);
        let records = &self.records;
        self.latest.retain(|_, at| records.contains_key(at));
    }

    /// The snapshot, if all of it is there.
    fn whole(&self, uuid: SnapshotUuid) -> Option<Whole> {
        let of_it = || self.records.values().filter(|piece| piece.head.uuid == uuid);
        let pieces: BTreeMap<u32, &Piece> = of_it()
            .filter(|piece| !piece.head.is_end)
            .map(|piece| (piece.head.piece, piece))
            .collect();
        let bytes = of_it().map(|piece| u64::from(piece.len)).sum();
        let Some((end, (root, rest))) = of_it().find_map(|piece| Some((piece, piece.end?))) else {
            // As if the end were there before it is.
            let head = pieces.values().next().filter(|_| is_planted(Bug::HalfSnapshot))?.head;
            let rest = *self.records.keys().next_back()?;
            return Some(Whole {
                uuid,
                commit: head.commit,
                rest,
                bytes,
            });
        };
        let counted = pieces.keys().copied().eq(0..end.head.piece);
        let is_right = counted && root_of(pieces.values().map(|piece| &piece.id)) == root;
        (is_right || is_planted(Bug::HalfSnapshot)).then_some(Whole {
            uuid,
            commit: end.head.commit,
            rest,
            bytes,
        })
    }

    /// All that count, the newest first.
    fn all_whole(&self) -> Vec<Whole> {
        let ends = self.records.values().filter(|piece| piece.head.is_end);
        let mut whole: Vec<Whole> = ends.filter_map(|end| self.whole(end.head.uuid)).collect();
        whole.sort_unstable_by_key(|whole| (std::cmp::Reverse(whole.commit), whole.uuid));
        whole.dedup();
        whole
    }

    /// Whether a record has to stay in the packs.
    fn is_needed(&self, at: LogPosition) -> bool {
        let Some(Piece { head, .. }) = self.records.get(&at) else {
            return false;
        };
        let is_of = |uuid: Option<SnapshotUuid>| uuid == Some(head.uuid);
        (is_of(self.current.map(|current| current.uuid)) || is_of(self.writing))
            && self.latest.get(&(head.uuid, head.piece, head.is_end)) == Some(&at)
    }

    /// Bytes of records that have to stay, per pack.
    pub(super) fn needed_bytes(&self) -> HashMap<u32, u64> {
        let mut needed = HashMap::new();
        for (at, piece) in &self.records {
            if self.is_needed(*at) {
                *needed.entry(at.pack).or_default() += u64::from(piece.len);
            }
        }
        needed
    }

    /// Commits before this are in the snapshot that counts.
    pub(super) fn rest(&self) -> LogPosition {
        self.current.map_or_else(LogPosition::default, |current| current.rest)
    }

    /// Whether a pack holds commits at or behind a place.
    pub(super) fn has_commits_from(&self, pack: u32, from: LogPosition) -> bool {
        let commits = self.commits.get(&pack);
        commits.is_some_and(|commits| {
            let offset = commits.last;
            LogPosition { pack, offset } >= from
        })
    }
}

fn root_of<'a>(ids: impl Iterator<Item = &'a ChunkId>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for id in ids {
        hasher.update(id.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// A snapshot being written. One that is not finished counts for nothing, and its pieces go with the next compaction.
#[derive(Debug)]
pub struct NewSnapshot<'a> {
    engine: &'a PackEngine,
    uuid: SnapshotUuid,
    commit: u64,
    rest: LogPosition,
    pieces: u32,
    root: blake3::Hasher,
    is_finished: bool,
}

impl PackEngine {
    /// Begins a snapshot of the index; one at a time.
    ///
    /// - `commit`: number of the last commit that the rows show ([`super::Watermark::commit`]).
    /// - `rest`: commits behind that one lie here or behind ([`super::Watermark::position`]).
    /// - Errors: [`Error::Refused`] while another is being written.
    pub fn begin_snapshot(&self, commit: u64, rest: LogPosition) -> Result<NewSnapshot<'_>> {
        self.writable()?;
        let random = self.host.random();
        let uuid = SnapshotUuid(random.map_err(|error| self.unavailable("name a snapshot", error))?);
        let mut snapshots = self.snapshots();
        if snapshots.writing.is_some() {
            return Err(Error::Refused {
                store: self.name.clone(),
                action: "write a snapshot of the index",
                source: "another is being written".into(),
            });
        }
        snapshots.writing = Some(uuid);
        Ok(NewSnapshot {
            engine: self,
            uuid,
            commit,
            rest,
            pieces: 0,
            root: blake3::Hasher::new(),
            is_finished: false,
        })
    }

    /// The log of the index in figures.
    ///
    /// - `live_share_min`: packs of whose bytes less than this share is named count as held, if only their commits keep them.
    pub fn snapshot_stat(&self, live_share_min: f64) -> Result<SnapshotStat> {
        let usage = self.usage()?;
        let snapshots = self.snapshots();
        let rest = snapshots.rest();
        let needed = snapshots.needed_bytes();
        let mut stat = SnapshotStat::default();
        if let Some(current) = snapshots.current {
            (stat.commit, stat.bytes) = (current.commit, current.bytes);
        }
        let behind = snapshots.commits.range(rest.pack..);
        stat.commit_bytes = behind.map(|(_, commits)| commits.bytes).sum();
        let packs: Vec<u32> = snapshots.commits.keys().copied().collect();
        let held: Vec<u32> = packs
            .into_iter()
            .filter(|&pack| snapshots.has_commits_from(pack, rest))
            .collect();
        drop(snapshots);
        for pack in held.into_iter().filter_map(|number| self.pack(number)) {
            let len = self.pack_len(&pack)?;
            let usage = usage.get(&pack.number).copied().unwrap_or_default();
            let used = usage.needed() + needed.get(&pack.number).copied().unwrap_or(0);
            if (used as f64) < live_share_min * len as f64 {
                stat.held_bytes += len.saturating_sub(used);
            }
        }
        Ok(stat)
    }

    pub(super) fn snapshots(&self) -> MutexGuard<'_, Snapshots> {
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Learns what of commits and snapshots lies in a pack that is being opened.
    pub(super) fn note_entries(&self, pack: &Pack, entries: &[PackEntry]) -> Result<()> {
        for entry in entries {
            match entry.kind {
                RecordKind::Commit => self.snapshots().note_commit(pack.number, entry),
                RecordKind::Snapshot => {
                    let len = u64::from(entry.len);
                    let mut payload = self.read_range(pack, entry.offset, entry.offset + len.min(HEAD_LEN))?;
                    let Ok(head) = SnapshotHead::decode(&payload) else {
                        continue;
                    };
                    if head.is_end {
                        payload = self.read_range(pack, entry.offset, entry.offset + len)?;
                        if payload_crc(&payload) != entry.crc {
                            continue;
                        }
                    }
                    self.snapshots().note(pack.number, entry, head, &payload);
                }
                RecordKind::Chunk | RecordKind::Removals => {}
            }
        }
        Ok(())
    }

    /// Has the rows of the index made from the newest snapshot that is whole, if they know less than it.
    ///
    /// - `applied`: number of the last commit that the rows know.
    /// - Returns the number of the last commit that they know then, or would if they kept rows.
    pub(super) fn restore(&self, applied: u64, report: &mut OpenReport) -> Result<u64> {
        let all = {
            let mut snapshots = self.snapshots();
            let all = snapshots.all_whole();
            // Its pieces may have been found behind its end.
            snapshots.current = all.first().copied().or(snapshots.current);
            all
        };
        for whole in all.into_iter().filter(|whole| whole.commit > applied) {
            if !self.locations.keeps_rows() {
                return Ok(whole.commit);
            }
            let records: Vec<(LogPosition, Piece)> = {
                let snapshots = self.snapshots();
                let of_it = snapshots
                    .records
                    .iter()
                    .filter(|(_, piece)| piece.head.uuid == whole.uuid);
                let mut records: Vec<_> = of_it.map(|(at, piece)| (*at, piece.clone())).collect();
                records.sort_by_key(|(at, piece)| (piece.head.is_end, piece.head.piece, *at));
                records.dedup_by_key(|(_, piece)| (piece.head.is_end, piece.head.piece));
                records
            };
            // All of it is looked at before anything is forgotten for it.
            let mut damaged = None;
            for (at, piece) in &records {
                if self.piece_at(*at, piece)?.is_none() {
                    damaged = Some(*at);
                }
            }
            if let Some(at) = damaged {
                report.suspects.push(Suspect {
                    file: self
                        .pack(at.pack)
                        .map_or_else(String::new, |pack| pack_name(pack.number, pack.uuid)),
                    what: format!("the snapshot of the index at byte {} is damaged", at.offset),
                });
                continue;
            }
            self.locations.restore(Restore::Begin)?;
            for (at, piece) in &records {
                let payload = self.piece_at(*at, piece)?.ok_or_else(|| {
                    let changed = std::io::Error::other("a snapshot of the index changed while it was read");
                    self.unavailable("make the index again", changed)
                })?;
                let step = if piece.head.is_end {
                    let words = SnapshotEnd::decode(&payload).map_or(0, |end| end.words.len());
                    Restore::End {
                        commit: whole.commit,
                        words: payload.slice(payload.len() - words..),
                    }
                } else {
                    Restore::Rows(payload.slice(HEAD_LEN as usize..))
                };
                self.locations.restore(step)?;
            }
            return Ok(whole.commit);
        }
        Ok(applied)
    }

    /// The payload of a piece; `None` if it is damaged.
    fn piece_at(&self, at: LogPosition, piece: &Piece) -> Result<Option<Bytes>> {
        let Some(pack) = self.pack(at.pack) else {
            return Ok(None);
        };
        let payload = self.read_range(&pack, at.offset, at.offset + u64::from(piece.len))?;
        let is_right = payload.len() == piece.len as usize && payload_crc(&payload) == piece.crc;
        Ok(is_right.then_some(payload))
    }

    /// Whether a pack holds pieces that have to stay.
    pub(super) fn has_needed_pieces(&self, pack: &Pack) -> bool {
        let snapshots = self.snapshots();
        let mut of_it = snapshots.records.keys().filter(|at| at.pack == pack.number);
        of_it.any(|at| snapshots.is_needed(*at))
    }

    /// Pieces in a pack that have to stay, to be written anew; `None` if some are damaged.
    pub(super) fn pieces_to_move(&self, pack: &Pack, visit: &mut dyn FnMut(Item) -> Result<()>) -> Result<Option<()>> {
        let needed: Vec<(LogPosition, Piece)> = {
            let snapshots = self.snapshots();
            let of_it = snapshots.records.iter().filter(|(at, _)| at.pack == pack.number);
            of_it
                .filter(|(at, _)| snapshots.is_needed(**at))
                .map(|(at, piece)| (*at, piece.clone()))
                .collect()
        };
        for (at, piece) in needed {
            if is_planted(Bug::ForgottenPieces) {
                continue;
            }
            let Some(payload) = self.piece_at(at, &piece)? else {
                return Ok(None);
            };
            visit(Item::snapshot(piece.head, payload))?;
        }
        Ok(Some(()))
    }
}

impl NewSnapshot<'_> {
    /// Takes rows, about [`SNAPSHOT_PIECE_LEN`] bytes of them. May wait for what is being written.
    pub fn push(&mut self, rows: &[u8]) -> Result<()> {
        let head = self.head(false);
        let payload = Bytes::from([&head.encode()[..], rows].concat());
        self.root.update(digest(&payload).as_bytes());
        self.engine.enqueue(vec![Item::snapshot(head, payload)])?;
        self.pieces += 1;
        Ok(())
    }

    /// Makes it count: when this returns, commits up to its own are needed no more.
    ///
    /// - `words`: what the index says of it.
    /// - Errors: those of the locations, and as [`PackEngine::sync`]; it may count later nevertheless.
    pub fn finish(mut self, words: &[u8]) -> Result<()> {
        let engine = self.engine;
        engine.sync()?;
        engine.locations.persist()?;
        let head = self.head(true);
        let end = SnapshotEnd {
            root: *self.root.finalize().as_bytes(),
            rest: (self.rest.pack, self.rest.offset),
            words,
        };
        let ticket = engine.enqueue(vec![Item::snapshot(head, Bytes::from(end.encode(&head)))])?;
        engine.settle(ticket)?;
        engine.sync()?;
        self.is_finished = true;
        Ok(())
    }

    fn head(&self, is_end: bool) -> SnapshotHead {
        SnapshotHead {
            uuid: self.uuid,
            commit: self.commit,
            piece: self.pieces,
            is_end,
        }
    }
}

impl Drop for NewSnapshot<'_> {
    fn drop(&mut self) {
        let uuid = self.uuid;
        let mut snapshots = self.engine.snapshots();
        snapshots.writing = None;
        let counts = snapshots.current.is_some_and(|current| current.uuid == uuid);
        drop(snapshots);
        if !self.is_finished && !counts {
            // What waits for room would hold up everybody.
            self.engine.withdraw(|item| item.is_piece_of(uuid));
        }
    }
}
