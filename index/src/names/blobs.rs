//! Blobs of a bucket: bytes that are found by a digest of them or of a request, and go when nobody has asked for them for long.
//!
//! A blob has two rows, made and taken away in one commit: a small one with the day of its last use, which is all that the question
//! whether it is there reads and writes, and one with what it is made of, which the collector walks as a root. A blob may be a part
//! of its content: then many blobs share chunks. Invariants: a row that is there means chunks that are there; an answer that a blob
//! is there is given only after the row says that it was used today. No events: they are a cache, and come by the thousand.

use cairn_store::SyncPolicy;

use super::blob_key::{BlobDigest, BlobKey};
use super::bucket::Bucket;
use super::content::{Content, NewContent};
use super::edit::{Edit, Guard, READ_GRACE_S};
use super::fields::{Fields, malformed, read};
use super::objects::Objects;
use super::seen::Moment;
use super::{Names, TRIES_MAX, rows};
use crate::kv::{Batch, Check, Commit, Kv, Order, Row, ViewExt as _};
use crate::liveness::retire;
use crate::{Error, Key, KeyReader, Result, Table, Tenant};

/// Blobs whose use is noted in one commit, at most: their keys twice are about a quarter of a batch.
const TOUCHED_AT_ONCE: usize = 4000;

/// Bytes of rows after which further blobs go into a commit of their own.
const COMMIT_LEN: usize = 1 << 20;

/// Blobs looked at together when old ones go.
const EXPIRED_AT_ONCE: usize = 500;

const DAY_MS: u64 = 86_400_000;

/// Blobs of a bucket.
#[derive(Clone, Copy, Debug)]
pub struct Blobs<'a> {
    names: &'a Names,
    bucket: &'a Bucket,
}

/// What becomes of blobs that are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Put {
    /// Those by content stay, others are replaced.
    New,
    /// They are replaced, and no others are made.
    Moved,
}

/// What a blob is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// It, or what it is a part of.
    pub content: Content,
    /// Bytes of the content before the blob's own.
    pub skip: u64,
    /// Bytes of the blob.
    pub len: u64,
}

/// A blob to be written.
#[derive(Clone, Debug)]
pub struct NewBlob {
    /// It, or what it is a part of.
    pub content: NewContent,
    /// Bytes of the content before the blob's own.
    pub skip: u64,
    /// Bytes of the blob.
    pub len: u64,
}

impl NewBlob {
    /// All of some content.
    pub fn whole(content: NewContent) -> Self {
        let len = content.content().byte_len();
        Self { content, skip: 0, len }
    }

    fn encode(&self) -> Vec<u8> {
        let mut fields = Fields::default();
        // First: the collector reads no further.
        fields
            .bytes(CONTENT, &self.content.content().encode())
            .number(LEN, self.len);
        if self.skip > 0 {
            fields.number(SKIP, self.skip);
        }
        fields.into_value()
    }
}

const CONTENT: u8 = 1;
const LEN: u8 = 2;
const SKIP: u8 = 3;

impl Blob {
    pub(super) fn decode(value: &[u8]) -> Result<Self> {
        const WHAT: &str = "row of a blob";
        let (mut content, mut skip, mut len) = (None, 0, 0);
        for field in read(value, WHAT)? {
            let field = field?;
            match field.tag {
                CONTENT => content = Some(Content::decode(&field)?),
                LEN => len = field.number()?,
                SKIP => skip = field.number()?,
                _ => return Err(field.unknown()),
            }
        }
        let content = content.ok_or(malformed(WHAT, "it has no content"))?;
        if u64::checked_add(skip, len).is_none_or(|end| end > content.byte_len()) {
            return Err(malformed(WHAT, "it goes on behind its content"));
        }
        Ok(Self { content, skip, len })
    }
}

impl Names {
    /// The blobs of a bucket.
    pub fn blobs<'a>(&'a self, bucket: &'a Bucket) -> Blobs<'a> {
        Blobs { names: self, bucket }
    }

    fn today(&self) -> u32 {
        u32::try_from(self.now_ms() / DAY_MS).unwrap_or(u32::MAX)
    }
}

fn day_of(row: &Row) -> Result<u32> {
    let day = row.value.as_ref().try_into().map(u32::from_be_bytes);
    day.map_err(|_| malformed("row of a blob", "the day of its last use is no number"))
}

impl Blobs<'_> {
    fn key(&self, table: Table, blob: &BlobKey) -> Key {
        rows::blob(&self.bucket.tenant, table, self.bucket.id, blob)
    }

    fn keys(&self, table: Table, blobs: &[BlobKey]) -> Vec<Key> {
        blobs.iter().map(|blob| self.key(table, blob)).collect()
    }

    fn rows(&self, keys: &[Key]) -> Result<Vec<Option<Row>>> {
        let keys: Vec<&[u8]> = keys.iter().map(Key::as_bytes).collect();
        self.names.kv.get_many(&keys)
    }

    /// Which of these are there; one answer each, in order. Those that are have been used today.
    ///
    /// One batched look-up, and a commit for those that had not been used today yet, which waits for no disk. Those that were found today
    /// before are looked up in memory (`seen`).
    pub fn present(&self, blobs: &[BlobKey]) -> Result<Vec<bool>> {
        let (seen, bucket) = (&self.names.seen, self.bucket.id);
        let removed = self.names.kv.get(rows::blobs_removed(&self.bucket.tenant))?;
        let now = Moment {
            day: self.names.today(),
            removed: removed.map(|row| row.version),
        };
        let mut present: Vec<bool> = blobs.iter().map(|blob| seen.has(bucket, blob, now)).collect();
        let asked: Vec<usize> = (0..blobs.len()).filter(|&at| !present[at]).collect();
        for asked in asked.chunks(TOUCHED_AT_ONCE) {
            let keys: Vec<Key> = asked.iter().map(|&at| self.key(Table::Blobs, &blobs[at])).collect();
            for (&at, is_there) in asked.iter().zip(self.touch(&keys)?) {
                present[at] = is_there;
                if is_there {
                    seen.note(bucket, &blobs[at], now);
                }
            }
        }
        Ok(present)
    }

    /// The digest with its size of a blob whose size is not known; `None`: there is none. It has not been used by that.
    ///
    /// - `digest`: of any size.
    pub fn of_hash(&self, digest: BlobDigest) -> Result<Option<BlobDigest>> {
        let start = digest.of_any_size(rows::in_bucket(&self.bucket.tenant, Table::Blobs, self.bucket.id));
        let page = self.names.kv.scan(&start.range(), Order::Forward, 1)?;
        let Some((key, _)) = page.rows.first() else {
            return Ok(None);
        };
        let mut reader = KeyReader::new(&key[start.as_bytes().len()..]);
        let size = reader.u64()?;
        reader.end()?;
        Ok(Some(digest.sized(size)))
    }

    /// - `keys`: rows in `Blobs`.
    fn touch(&self, keys: &[Key]) -> Result<Vec<bool>> {
        let today = self.names.today();
        for _ in 0..TRIES_MAX {
            let rows = self.rows(keys)?;
            let mut stale = std::collections::BTreeMap::new();
            for (key, row) in keys.iter().zip(&rows) {
                if let Some(row) = row
                    && day_of(row)? < today
                {
                    stale.insert(key, row.version);
                }
            }
            let mut batch = Batch::new();
            for (key, version) in stale {
                // Without the check a row could come back whose content has gone.
                batch
                    .check(key, Check::Version(version))
                    .put(key, today.to_be_bytes().to_vec());
            }
            // That it was used may be forgotten; until a day has passed that costs nothing.
            batch.relax(SyncPolicy::None);
            if batch.is_empty() || matches!(self.names.kv.commit(batch)?, Commit::Done(_)) {
                return Ok(rows.iter().map(Option::is_some).collect());
            }
        }
        Err(Error::Contended { what: "blobs" })
    }

    /// What these are made of; one answer each, in order. Those that are there have been used today.
    pub fn get_many(&self, blobs: &[BlobKey]) -> Result<Vec<Option<Blob>>> {
        let mut found = Vec::with_capacity(blobs.len());
        for blobs in blobs.chunks(TOUCHED_AT_ONCE) {
            let present = self.touch(&self.keys(Table::Blobs, blobs))?;
            let rows = self.rows(&self.keys(Table::BlobContents, blobs))?;
            for (row, present) in rows.iter().zip(present) {
                let row = row.as_ref().filter(|_| present);
                found.push(row.map(|row| Blob::decode(&row.value)).transpose()?);
            }
        }
        Ok(found)
    }

    /// [`Blobs::get_many`] of one.
    pub fn get(&self, blob: &BlobKey) -> Result<Option<Blob>> {
        Ok(self.get_many(std::slice::from_ref(blob))?.pop().flatten())
    }

    /// Writes blobs, each key once; durable when this returns, as its bucket is. Those found by their content that are there already
    /// stay as they are, others are replaced. Many become several commits.
    ///
    /// Errors: [`Error::FenceMoved`]: some may have been written; [`Error::NoBucket`], [`Error::TooLarge`].
    pub fn put_many(&self, blobs: &[(BlobKey, NewBlob)]) -> Result<()> {
        self.put_all(blobs, Put::New)
    }

    /// Has blobs that are there be made of something else, which is the same bytes; those that are not stay away.
    ///
    /// Errors: as [`Blobs::put_many`].
    pub(crate) fn move_many(&self, blobs: &[(BlobKey, NewBlob)]) -> Result<()> {
        self.put_all(blobs, Put::Moved)
    }

    fn put_all(&self, blobs: &[(BlobKey, NewBlob)], put: Put) -> Result<()> {
        let mut rest = blobs;
        while !rest.is_empty() {
            let mut len = 0;
            let fits = rest.iter().take_while(|(_, blob)| {
                let fits = len < COMMIT_LEN;
                len += 256 + blob.row_len();
                fits
            });
            let (now, later) = rest.split_at(fits.count().max(1));
            self.put_commit(now, put)?;
            rest = later;
        }
        Ok(())
    }

    fn put_commit(&self, blobs: &[(BlobKey, NewBlob)], put: Put) -> Result<()> {
        self.objects().change(|bucket| {
            let today = self.names.today().to_be_bytes().to_vec();
            let keys: Vec<BlobKey> = blobs.iter().map(|(key, _)| key.clone()).collect();
            let there = self.rows(&self.keys(Table::Blobs, &keys))?;
            let before = self.rows(&self.keys(Table::BlobContents, &keys))?;
            let mut edit = Edit::new(self.names, bucket);
            let mut fence = None;
            for (((key, new), there), before) in blobs.iter().zip(there).zip(before) {
                if put == Put::Moved && there.is_none() {
                    continue;
                }
                let row = self.key(Table::Blobs, key);
                edit.check(Guard::Rows, row.clone(), Check::unchanged(there.as_ref()));
                edit.batch.put(row, today.clone());
                if put == Put::New && there.is_some() && key.is_by_content() {
                    continue;
                }
                if let Some(before) = before {
                    edit.give_up(&Blob::decode(&before.value)?.content);
                }
                if new.content.fence != fence {
                    fence = new.content.fence;
                    if let Some(fence) = &fence {
                        edit.fence(fence);
                    }
                }
                edit.prove_unfenced(&new.content);
                edit.batch.put(self.key(Table::BlobContents, key), new.encode());
            }
            Ok(edit.commit()?.map(drop))
        })
    }

    /// Takes a blob away. That it is not there is no error.
    pub fn delete(&self, blob: &BlobKey) -> Result<()> {
        let key = self.key(Table::Blobs, blob);
        for _ in 0..TRIES_MAX {
            let Some(row) = self.names.kv.get(&key)? else {
                return Ok(());
            };
            let mut batch = Batch::new();
            let until = self.names.now_ms() / 1000 + READ_GRACE_S;
            remove(
                self.names.kv.as_ref(),
                &self.bucket.tenant,
                &mut batch,
                &[(key.as_bytes(), &row)],
                until,
            )?;
            if let Commit::Done(_) = self.names.kv.commit(batch)? {
                return Ok(());
            }
        }
        Err(Error::Contended { what: "blobs" })
    }

    fn objects(&self) -> Objects<'_> {
        Objects {
            names: self.names,
            bucket: self.bucket,
        }
    }
}

impl NewBlob {
    /// Bytes of its rows, about.
    fn row_len(&self) -> usize {
        let pages: usize = self.content.rows.iter().map(|(_, value)| value.len() + 64).sum();
        let row = match self.content.content() {
            Content::Inline { bytes, .. } => bytes.len(),
            Content::Chunks { chunks, .. } => 36 * chunks.len(),
            Content::Manifest(_) => 64,
        };
        pages + row
    }
}

/// Has a batch take blobs away, by their rows in `Blobs` as they were read.
///
/// - `until`: seconds since 1970 UTC until which readers may be at them.
fn remove(
    kv: &(impl Kv + ?Sized),
    tenant: &Tenant,
    batch: &mut Batch,
    blobs: &[(&[u8], &Row)],
    until: u64,
) -> Result<()> {
    let keys: Vec<Key> = blobs.iter().map(|(key, _)| rows::blob_content(tenant, key)).collect();
    if !blobs.is_empty() {
        batch.put(rows::blobs_removed(tenant), Vec::new());
    }
    let contents = kv.get_many(&keys.iter().map(Key::as_bytes).collect::<Vec<_>>())?;
    for (((key, row), content_key), content) in blobs.iter().zip(keys).zip(contents) {
        // Content changes with this row, and with it alone.
        batch
            .check(key, Check::Version(row.version))
            .delete(key)
            .delete(&content_key);
        if let Some(content) = content
            && let Content::Manifest(manifest) = Blob::decode(&content.value)?.content
        {
            retire(batch, tenant, &manifest.id, until);
        }
    }
    Ok(())
}

/// Takes away what has not been used for so many days, of one tenant. Returns how many.
pub(super) fn expire_blobs(kv: &(impl Kv + ?Sized), tenant: &Tenant, now_ms: u64, days: u32) -> Result<usize> {
    let today = u32::try_from(now_ms / DAY_MS).unwrap_or(u32::MAX);
    remove_where(kv, Key::of(tenant, Table::Blobs), tenant, now_ms, |day| {
        day.saturating_add(days) < today
    })
}

/// Takes away all blobs of a bucket that is gone.
pub(super) fn remove_blobs_of(kv: &(impl Kv + ?Sized), tenant: &Tenant, bucket: u64, now_ms: u64) -> Result<usize> {
    let start = rows::in_bucket(tenant, Table::Blobs, bucket);
    remove_where(kv, start, tenant, now_ms, |_| true)
}

fn remove_where(
    kv: &(impl Kv + ?Sized),
    start: Key,
    tenant: &Tenant,
    now_ms: u64,
    goes: impl Fn(u32) -> bool,
) -> Result<usize> {
    let (mut removed, mut rest) = (0, Some(start.range()));
    while let Some(range) = rest {
        let page = kv.scan(&range, Order::Forward, EXPIRED_AT_ONCE)?;
        let mut old = Vec::new();
        for (key, row) in &page.rows {
            if goes(day_of(row)?) {
                old.push((key.as_ref(), row));
            }
        }
        let mut batch = Batch::new();
        remove(kv, tenant, &mut batch, &old, now_ms / 1000 + READ_GRACE_S)?;
        rest = page.rest;
        if !batch.is_empty() {
            match kv.commit(batch)? {
                Commit::Done(_) => removed += old.len(),
                // Somebody has used one of them this moment: look again.
                Commit::Conflict(_) => rest = Some(range),
            }
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cairn_formats::{ChunkId, DomainId};

    use super::*;
    use crate::names::{BlobFunction, BucketName, FixedSurroundings, NewBucket, Owner};
    use crate::{Database, MemoryEngine};

    fn names() -> (Names, Arc<FixedSurroundings>) {
        let kv = Arc::new(Database::new(Arc::new(MemoryEngine::new())));
        let surroundings = Arc::new(FixedSurroundings::new(DAY_MS * 100, 1));
        (Names::with_surroundings(kv, surroundings.clone()), surroundings)
    }

    fn bucket(names: &Names) -> Bucket {
        let new = NewBucket::of(Owner::new("me").unwrap());
        let name = BucketName::new("bucket").unwrap();
        names.buckets(&Tenant::default()).create(&name, new).unwrap()
    }

    fn digest(n: u32) -> BlobDigest {
        let mut hash = [0; 32];
        hash[..4].copy_from_slice(&n.to_be_bytes());
        BlobDigest::new(BlobFunction::Sha256, &hash, 5).unwrap()
    }

    fn blob(bytes: &'static [u8]) -> NewBlob {
        let content = NewContent::inline(DomainId::default(), ChunkId::from_bytes([1; 32]), bytes);
        NewBlob::whole(content.unwrap())
    }

    fn keys(range: std::ops::Range<u32>) -> Vec<BlobKey> {
        range.map(|n| digest(n).into()).collect()
    }

    /// Goal: the answer that blobs are there makes them live on, for the price of one commit a day however many there are.
    #[test]
    fn an_answer_that_a_blob_is_there_extends_its_life() {
        let (names, surroundings) = names();
        let bucket = bucket(&names);
        let new: Vec<_> = keys(0..10).into_iter().map(|key| (key, blob(b"hello"))).collect();
        names.blobs(&bucket).put_many(&new).unwrap();
        let kv = names.kv().as_ref();
        let sweep = |now: u64| expire_blobs(kv, &Tenant::default(), now, 30).unwrap();
        surroundings.set_now(DAY_MS * 120);
        let present = names.blobs(&bucket).present(&keys(5..15)).unwrap();
        assert_eq!(present, [vec![true; 5], vec![false; 5]].concat());
        assert_eq!(sweep(DAY_MS * 130), 0);
        assert_eq!(sweep(DAY_MS * 131), 5);
        surroundings.set_now(DAY_MS * 131);
        let present = names.blobs(&bucket).present(&keys(0..10)).unwrap();
        assert_eq!(present, [vec![false; 5], vec![true; 5]].concat());
        let found = names.blobs(&bucket).get_many(&keys(4..6)).unwrap();
        assert!(found[0].is_none() && found[1].is_some());
        assert_eq!(sweep(DAY_MS * 200), 5);
    }

    /// Method: rows are counted by their versions: a second question on the same day writes nothing.
    #[test]
    fn asking_again_on_the_same_day_writes_nothing() {
        let (names, surroundings) = names();
        let bucket = bucket(&names);
        let asked = keys(0..9000);
        let new: Vec<_> = asked.iter().map(|key| (key.clone(), blob(b"hello"))).collect();
        names.blobs(&bucket).put_many(&new).unwrap();
        surroundings.set_now(DAY_MS * 101);
        let version = |n: usize| {
            let key = rows::blob(&Tenant::default(), Table::Blobs, bucket.id, &asked[n]);
            names.kv().get(key).unwrap().unwrap().version
        };
        let before = version(0);
        assert!(
            names
                .blobs(&bucket)
                .present(&asked)
                .unwrap()
                .into_iter()
                .all(|there| there)
        );
        let commits: std::collections::BTreeSet<_> = (0..9000).map(version).collect();
        assert_eq!(commits.len(), 9000_usize.div_ceil(TOUCHED_AT_ONCE));
        assert!(version(0) > before);
        names.blobs(&bucket).present(&asked).unwrap();
        assert_eq!(
            (0..9000).map(version).collect::<std::collections::BTreeSet<_>>(),
            commits
        );
    }

    /// Goal: who was told that a blob is there hears that it is gone as soon as it was taken away, and on the next day its row is used again.
    #[test]
    fn what_was_found_today_is_remembered_until_it_is_taken_away() {
        let (names, surroundings) = names();
        let bucket = bucket(&names);
        let new: Vec<_> = keys(0..3).into_iter().map(|key| (key, blob(b"hello"))).collect();
        let blobs = names.blobs(&bucket);
        blobs.put_many(&new).unwrap();
        for _ in 0..2 {
            assert_eq!(blobs.present(&keys(0..4)).unwrap(), [true, true, true, false]);
        }
        blobs.delete(&keys(1..2)[0]).unwrap();
        for _ in 0..2 {
            assert_eq!(blobs.present(&keys(0..4)).unwrap(), [true, false, true, false]);
        }
        // One that comes is seen at once.
        blobs.put_many(&new).unwrap();
        assert_eq!(blobs.present(&keys(0..3)).unwrap(), [true; 3]);
        let kv = names.kv().as_ref();
        surroundings.set_now(DAY_MS * 101);
        assert_eq!(blobs.present(&keys(0..1)).unwrap(), [true]);
        assert_eq!(expire_blobs(kv, &Tenant::default(), DAY_MS * 102, 1).unwrap(), 2);
        assert_eq!(blobs.present(&keys(0..3)).unwrap(), [true, false, false]);
        // Whatever clock the collector goes by.
        assert_eq!(expire_blobs(kv, &Tenant::default(), DAY_MS * 500, 1).unwrap(), 1);
        assert_eq!(blobs.present(&keys(0..3)).unwrap(), [false; 3]);
    }

    #[test]
    fn a_blob_whose_size_is_not_known_is_found_by_its_hash() {
        let (names, _) = names();
        let bucket = bucket(&names);
        let blobs = names.blobs(&bucket);
        blobs.put_many(&[(digest(1).into(), blob(b"hello"))]).unwrap();
        for size in [0, 5, u64::MAX] {
            assert_eq!(blobs.of_hash(digest(1).sized(size)).unwrap(), Some(digest(1)));
            assert_eq!(blobs.of_hash(digest(2).sized(size)).unwrap(), None);
        }
    }

    #[test]
    fn what_is_found_by_a_request_is_replaced_and_what_is_found_by_content_is_not() {
        let (names, _) = names();
        let bucket = bucket(&names);
        let blobs = names.blobs(&bucket);
        let action = |instance: &str| BlobKey::Action {
            instance: instance.to_owned(),
            action: digest(1),
        };
        let content = BlobKey::from(digest(1));
        for key in [&content, &action("a"), &action("a/b")] {
            blobs.put_many(&[(key.clone(), blob(b"first"))]).unwrap();
        }
        for key in [&content, &action("a")] {
            blobs.put_many(&[(key.clone(), blob(b"later"))]).unwrap();
        }
        for (key, bytes) in [
            (&content, b"first"),
            (&action("a"), b"later"),
            (&action("a/b"), b"first"),
        ] {
            let Some(Content::Inline { bytes: found, .. }) = blobs.get(key).unwrap().map(|blob| blob.content) else {
                panic!("{key:?} is not there");
            };
            assert_eq!(&found[..], bytes);
        }
        assert!(blobs.get(&action("b")).unwrap().is_none());
        blobs.delete(&content).unwrap();
        blobs.delete(&content).unwrap();
        assert_eq!(blobs.present(&[content, action("a")]).unwrap(), [false, true]);
    }
}
