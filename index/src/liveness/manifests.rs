//! Manifests: which chunks something is made of. They are what keeps chunks alive.
//!
//! A manifest is a head row under its name, and pages of chunks under an id of its own. Pages are written first, in as many
//! commits as they need; the head comes last, with the writer's fence, and makes all of it count at once. Before the first page
//! a row says that the id is *pending*; the head's commit takes it away, and puts the id of a manifest it replaces in its place.
//! So what a crash or a replacement leaves behind is always named by such a row, and [`sweep_manifests`] removes it.
//!
//! Values, big-endian: head: id, domain u32, chunks u64, bytes u64; page: a digest of 32 bytes and a length u32 each. Manifests of
//! more than [`MANIFEST_STARTS_EVERY`] chunks also have rows of starts, under the highest page numbers, downwards: the offset u64 of
//! every so many-th chunk, so that a place in a long object is found without reading all before it.

use bytes::Bytes;
use cairn_formats::{ChunkId, DomainId};
use cairn_store::{ChunkStore, ChunkStoreExt as _};

use super::Fence;
use crate::bug::{Bug, is_planted};
use crate::kv::{BATCH_LEN_MAX, Batch, Check, Commit, Kv, Order, Version, View, ViewExt as _};
use crate::{Error, Key, KeyRange, KeyReader, Result, Table, Tenant};

/// Chunks of a page: 36 KiB of value.
pub const MANIFEST_PAGE_CHUNKS: usize = 1024;

const CHUNK_LEN: usize = 32 + 4;

/// Chunks from one start that is kept to the next.
pub const MANIFEST_STARTS_EVERY: usize = 256;

/// Starts in a row: 62.5 KiB of value.
const STARTS_OF_ROW: usize = 8000;

/// Chunks of a manifest whose pages go into one commit with the row that names it, at most: some 600 KiB.
pub const COMMIT_CHUNKS_MAX: usize = 16 << 10;

/// Bytes of keys of manifests that are removed in one commit, about.
const SWEEP_LEN: usize = 256 << 10;

/// Names a manifest's pages. Chosen at random by who writes it; never used twice.
pub type ManifestId = [u8; 16];

/// A chunk of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestChunk {
    /// Its name.
    pub id: ChunkId,
    /// Bytes of the plain chunk.
    pub len: u32,
}

/// A manifest's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Names its pages.
    pub id: ManifestId,
    /// The domain its chunks are in.
    pub domain: DomainId,
    /// How many chunks.
    pub chunks: u64,
    /// Bytes of all chunks.
    pub len: u64,
    /// The commit that made it.
    pub version: Version,
}

impl Manifest {
    /// How many pages it has.
    pub fn pages(&self) -> u32 {
        u32::try_from(self.chunks.div_ceil(MANIFEST_PAGE_CHUNKS as u64)).unwrap_or(u32::MAX)
    }
}

/// What became of a manifest that was to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Published {
    /// It counts, as of this version.
    Done(Version),
    /// Chunks have been condemned or swept since the fence: take a new one, look all chunks up again, and publish again.
    FenceMoved,
    /// The name has got or lost a manifest meanwhile: decide again.
    NameTaken,
}

/// What became of a manifest whose chunks were looked up again as often as it took.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Settled {
    /// It counts, as of this version.
    Done(Version),
    /// Chunks of it are not there, or no more: send them, then publish again with this fence.
    Missing {
        /// Which, each once.
        ids: Vec<ChunkId>,
        /// Taken before they were looked up.
        fence: Fence,
    },
    /// The name has got or lost a manifest meanwhile: decide again.
    NameTaken,
}

fn head_key(tenant: &Tenant, name: &[u8]) -> Key {
    Key::of(tenant, Table::Manifests).bytes(name)
}

fn page_key(tenant: &Tenant, id: &ManifestId, page: u32) -> Key {
    Key::of(tenant, Table::ManifestPages).fixed(id).u32(page)
}

fn pending_key(tenant: &Tenant, id: &ManifestId) -> Key {
    Key::of(tenant, Table::ManifestsPending).fixed(id)
}

/// A manifest being written.
#[derive(Debug)]
pub struct NewManifest<'a, K: ?Sized> {
    kv: &'a K,
    tenant: &'a Tenant,
    head: Manifest,
    /// The row that says so, which is gone when this was given up.
    pending: Check,
    /// Chunks not yet in a page row, and pages not yet committed.
    open: Vec<u8>,
    starts: Vec<u8>,
    batch: Batch,
    pages: u32,
}

impl<'a, K: Kv + ?Sized> NewManifest<'a, K> {
    /// Begins one.
    ///
    /// - `pending_until`: seconds since 1970 UTC after which [`sweep_manifests`] takes it for left behind.
    pub fn begin(kv: &'a K, tenant: &'a Tenant, id: ManifestId, domain: DomainId, pending_until: u64) -> Result<Self> {
        let mut batch = Batch::new();
        batch
            .check(pending_key(tenant, &id), Check::Absent)
            .put(pending_key(tenant, &id), pending_until.to_be_bytes().to_vec());
        let Commit::Done(pending) = kv.commit(batch)? else {
            return Err(malformed("its id is in use"));
        };
        Ok(Self {
            kv,
            tenant,
            head: Manifest {
                id,
                domain,
                chunks: 0,
                len: 0,
                version: Version::default(),
            },
            pending: Check::Version(pending),
            open: Vec::new(),
            starts: Vec::new(),
            batch: Batch::new(),
            pages: 0,
        })
    }

    /// Appends chunks.
    pub fn push(&mut self, chunks: &[ManifestChunk]) -> Result<()> {
        for chunk in chunks {
            if self.head.chunks.is_multiple_of(MANIFEST_STARTS_EVERY as u64) {
                self.starts.extend_from_slice(&self.head.len.to_be_bytes());
            }
            self.open.extend_from_slice(chunk.id.as_bytes());
            self.open.extend_from_slice(&chunk.len.to_be_bytes());
            self.head.chunks += 1;
            self.head.len += u64::from(chunk.len);
            if self.open.len() == MANIFEST_PAGE_CHUNKS * CHUNK_LEN {
                self.end_page()?;
            }
        }
        Ok(())
    }

    fn end_page(&mut self) -> Result<()> {
        let page = std::mem::take(&mut self.open);
        self.batch.put(page_key(self.tenant, &self.head.id, self.pages), page);
        self.pages += 1;
        if self.batch.byte_len() > BATCH_LEN_MAX / 2 {
            self.write_pages()?;
        }
        Ok(())
    }

    fn write_pages(&mut self) -> Result<()> {
        let mut batch = std::mem::take(&mut self.batch);
        batch.check(pending_key(self.tenant, &self.head.id), self.pending);
        match self.kv.commit(batch)? {
            Commit::Done(_) => Ok(()),
            Commit::Conflict(_) => Err(given_up()),
        }
    }

    /// Writes the pages that are not there yet. Then [`NewManifest::publish`] can be tried as often as it takes.
    pub fn finish(&mut self) -> Result<()> {
        if !self.open.is_empty() {
            self.end_page()?;
        }
        let starts = std::mem::take(&mut self.starts);
        for (row, starts) in starts_rows(self.tenant, self.head.id, &starts) {
            self.batch.put(row, starts);
            if self.batch.byte_len() > BATCH_LEN_MAX / 2 {
                self.write_pages()?;
            }
        }
        self.write_pages()
    }

    /// Its head, for a row other than a manifest's, and what that row's commit has to check and take away ([`join`]).
    pub(crate) fn finished(&self) -> (Manifest, Check) {
        (self.head, self.pending)
    }

    /// Makes it count under a name, in place of what is there.
    ///
    /// - `fence`: taken before all of its chunks were found to be there, and not condemned.
    /// - `before`: the manifest that the name had, `None` for none.
    /// - Errors: [`Error::Malformed`] when it was not published in time and its pages have been removed.
    pub fn publish(&self, name: &[u8], fence: &Fence, before: Option<&Manifest>) -> Result<Published> {
        let head = head_key(self.tenant, name);
        let mut batch = Batch::new();
        fence.guard(&mut batch);
        let check = before.map_or(Check::Absent, |before| Check::Version(before.version));
        batch.check(&head, check).put(head, encode(&self.head));
        let pending = pending_key(self.tenant, &self.head.id);
        batch.check(&pending, self.pending).delete(pending);
        if let Some(before) = before {
            batch.put(pending_key(self.tenant, &before.id), 0_u64.to_be_bytes().to_vec());
        }
        Ok(match self.kv.commit(batch)? {
            Commit::Done(version) => Published::Done(version),
            Commit::Conflict(conflict) => match conflict.check {
                0 => Published::FenceMoved,
                1 => Published::NameTaken,
                _ => return Err(given_up()),
            },
        })
    }
}

impl<K: Kv + ?Sized> NewManifest<'_, K> {
    /// [`NewManifest::publish`]; whenever the fence has moved, looks all chunks up again and goes on if they are there.
    ///
    /// - `store`: the chunks of the manifest's domain, where what is condemned counts as missing.
    /// - Errors: as [`NewManifest::publish`]; those of the store.
    pub fn settle(
        &self,
        store: &(impl ChunkStore + ?Sized),
        name: &[u8],
        fence: &Fence,
        before: Option<&Manifest>,
    ) -> Result<Settled> {
        let mut fence = *fence;
        loop {
            match self.publish(name, &fence, before)? {
                Published::Done(version) => return Ok(Settled::Done(version)),
                Published::NameTaken => return Ok(Settled::NameTaken),
                // Every turn is one step of a collection, which has an end.
                Published::FenceMoved => {}
            }
            fence = Fence::now(self.kv)?;
            let ids = self.missing(store)?;
            if !ids.is_empty() {
                return Ok(Settled::Missing { ids, fence });
            }
        }
    }

    fn missing(&self, store: &(impl ChunkStore + ?Sized)) -> Result<Vec<ChunkId>> {
        let mut missing = Vec::new();
        for page in 0..self.head.pages() {
            let chunks = manifest_page(self.kv, self.tenant, &self.head, page)?;
            let ids: Vec<ChunkId> = chunks.iter().map(|chunk| chunk.id).collect();
            missing.extend(store.absent(&ids)?);
        }
        missing.sort_unstable();
        missing.dedup();
        Ok(missing)
    }
}

/// Has a batch make the pages of a finished manifest count, for a row in the batch that names its id. Adds one check.
///
/// - `pending`: as [`NewManifest::finished`] says.
pub(crate) fn join(batch: &mut Batch, tenant: &Tenant, id: &ManifestId, pending: Check) {
    let key = pending_key(tenant, id);
    batch.check(&key, pending).delete(key);
}

/// Has a batch give the pages of a manifest up: no row names its id any more.
///
/// - `until`: seconds since 1970 UTC before which they are still read by who found the id.
pub(crate) fn retire(batch: &mut Batch, tenant: &Tenant, id: &ManifestId, until: u64) {
    batch.put(pending_key(tenant, id), until.to_be_bytes().to_vec());
}

pub(crate) fn given_up() -> Error {
    malformed("it was not published in time, and its pages are gone")
}

/// The manifest of a name.
pub fn manifest(view: &(impl View + ?Sized), tenant: &Tenant, name: &[u8]) -> Result<Option<Manifest>> {
    let row = view.get(head_key(tenant, name))?;
    row.map(|row| decode(&row.value, row.version)).transpose()
}

/// The manifests of a tenant whose names begin so, with their names.
pub fn manifests_named(view: &(impl View + ?Sized), tenant: &Tenant, start: &[u8]) -> Result<Vec<(Vec<u8>, Manifest)>> {
    let table = Key::of(tenant, Table::Manifests);
    let mut found = Vec::new();
    view.for_each(table.clone().text_start(start).range(), |key, row| {
        let mut reader = KeyReader::new(&key[table.as_bytes().len()..]);
        let name = reader.bytes()?;
        reader.end()?;
        found.push((name, decode(&row.value, row.version)?));
        Ok::<_, Error>(())
    })?;
    Ok(found)
}

/// Chunks of a manifest, [`MANIFEST_PAGE_CHUNKS`] a page but for the last.
///
/// Errors: [`Error::Malformed`] when there is no such page: the manifest was dropped or replaced meanwhile.
pub fn manifest_page(
    view: &(impl View + ?Sized),
    tenant: &Tenant,
    manifest: &Manifest,
    page: u32,
) -> Result<Vec<ManifestChunk>> {
    let row = view.get(page_key(tenant, &manifest.id, page))?;
    let row = row.ok_or(malformed("a page of it is not there"))?;
    let mut reader = KeyReader::new(&row.value);
    let count = row.value.len() / CHUNK_LEN;
    let mut chunks = Vec::with_capacity(count);
    for _ in 0..count {
        chunks.push(ManifestChunk {
            id: ChunkId::from_bytes(reader.fixed()?),
            len: reader.u32()?,
        });
    }
    reader.end()?;
    Ok(chunks)
}

/// Rows with their keys.
pub(crate) type Rows = Vec<(Key, Vec<u8>)>;

/// Rows of starts; none where there is one only.
fn starts_rows<'a>(tenant: &'a Tenant, id: ManifestId, starts: &'a [u8]) -> impl Iterator<Item = (Key, Vec<u8>)> + 'a {
    let rows = if starts.len() > size_of::<u64>() { starts } else { &[] };
    let row = move |(n, starts): (u32, &[u8])| (page_key(tenant, &id, u32::MAX - n), starts.to_vec());
    (0..).zip(rows.chunks(STARTS_OF_ROW * size_of::<u64>())).map(row)
}

/// Where in the object every [`MANIFEST_STARTS_EVERY`]-th chunk of a manifest begins, from its first on.
///
/// Errors: as [`manifest_page`].
pub fn manifest_starts(view: &(impl View + ?Sized), tenant: &Tenant, manifest: &Manifest) -> Result<Vec<u64>> {
    let count = usize::try_from(manifest.chunks).map_err(|_| malformed("it has too many chunks"))?;
    let count = count.div_ceil(MANIFEST_STARTS_EVERY);
    if count <= 1 {
        return Ok(vec![0; count]);
    }
    let mut starts = Vec::with_capacity(count);
    for n in 0..u32::try_from(count.div_ceil(STARTS_OF_ROW)).unwrap_or(u32::MAX) {
        let Some(row) = view.get(page_key(tenant, &manifest.id, u32::MAX - n))? else {
            return all_starts(view, tenant, manifest);
        };
        let mut reader = KeyReader::new(&row.value);
        for _ in 0..row.value.len() / size_of::<u64>() {
            starts.push(reader.u64()?);
        }
    }
    let ascends = starts.windows(2).all(|pair| pair[0] < pair[1]);
    if starts.len() != count || starts.first() != Some(&0) || !ascends {
        return Err(malformed("its starts are not those of its chunks"));
    }
    Ok(starts)
}

/// [`manifest_starts`] of a manifest that has no rows of them: written before there were any.
fn all_starts(view: &(impl View + ?Sized), tenant: &Tenant, manifest: &Manifest) -> Result<Vec<u64>> {
    let (mut starts, mut at, mut start) = (Vec::new(), 0_usize, 0);
    for page in 0..manifest.pages() {
        for chunk in manifest_page(view, tenant, manifest, page)? {
            if at.is_multiple_of(MANIFEST_STARTS_EVERY) {
                starts.push(start);
            }
            at += 1;
            start += u64::from(chunk.len);
        }
    }
    Ok(starts)
}

/// The pages of a manifest that is committed together with the row that names it, so that nothing is left behind by a crash
/// between the two.
///
/// - `chunks`: at most [`COMMIT_CHUNKS_MAX`].
pub(crate) fn pages_in_commit(
    tenant: &Tenant,
    id: ManifestId,
    domain: DomainId,
    chunks: &[ManifestChunk],
) -> Result<(Manifest, Rows)> {
    if chunks.len() > COMMIT_CHUNKS_MAX {
        return Err(Error::TooLarge {
            what: "list of chunks",
            len: chunks.len(),
            max: COMMIT_CHUNKS_MAX,
        });
    }
    let (mut rows, mut starts, mut len) = (Vec::new(), Vec::new(), 0);
    for (page, chunks) in (0..).zip(chunks.chunks(MANIFEST_PAGE_CHUNKS)) {
        let mut value = Vec::with_capacity(chunks.len() * CHUNK_LEN);
        for (at, chunk) in chunks.iter().enumerate() {
            if at.is_multiple_of(MANIFEST_STARTS_EVERY) {
                starts.extend_from_slice(&u64::to_be_bytes(len));
            }
            value.extend_from_slice(chunk.id.as_bytes());
            value.extend_from_slice(&chunk.len.to_be_bytes());
            len += u64::from(chunk.len);
        }
        rows.push((page_key(tenant, &id, page), value));
    }
    rows.extend(starts_rows(tenant, id, &starts));
    let manifest = Manifest {
        id,
        domain,
        chunks: chunks.len() as u64,
        len,
        version: Version::default(),
    };
    Ok((manifest, rows))
}

/// Takes a name's manifest away; its chunks may then be collected. Returns whether the name still had this one.
pub fn drop_manifest(kv: &(impl Kv + ?Sized), tenant: &Tenant, name: &[u8], manifest: &Manifest) -> Result<bool> {
    let head = head_key(tenant, name);
    let mut batch = Batch::new();
    batch.check(&head, Check::Version(manifest.version)).delete(head);
    batch.put(pending_key(tenant, &manifest.id), 0_u64.to_be_bytes().to_vec());
    Ok(matches!(kv.commit(batch)?, Commit::Done(_)))
}

/// Visits the manifests of all tenants, with tenant and name, until an error, which is returned.
///
/// - `since`: only those committed after this version: what a re-mark looks at.
pub fn for_each_manifest<E: From<Error>>(
    view: &(impl View + ?Sized),
    since: Version,
    mut visit: impl FnMut(&Tenant, &[u8], Manifest) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    for_each_tenant(view, |tenant| {
        let table = Key::of(tenant, Table::Manifests);
        view.for_each(table.range(), |key, row| {
            if row.version <= since {
                return Ok(());
            }
            let mut reader = KeyReader::new(&key[table.as_bytes().len()..]);
            let name = reader.bytes()?;
            reader.end()?;
            visit(tenant, &name, decode(&row.value, row.version)?)
        })
    })
}

/// Visits all tenants that have rows, until an error, which is returned.
pub(crate) fn for_each_tenant<E: From<Error>>(
    view: &(impl View + ?Sized),
    mut visit: impl FnMut(&Tenant) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    // They are found by leaping from one to the next behind its last key.
    let mut rest = KeyRange::of_tenants();
    while let Some(tenant) = next_tenant(view, &rest)? {
        visit(&tenant)?;
        let all = Key::of_tenant(&tenant).range();
        rest.start = all.end.ok_or(malformed("its tenant has no end"))?;
    }
    Ok(())
}

/// Tenants that have rows, by name.
///
/// - `after`: behind this one, which need not be there.
pub(crate) fn tenants_after(view: &(impl View + ?Sized), after: Option<&Tenant>, limit: usize) -> Result<Vec<Tenant>> {
    let behind = |tenant: &Tenant| {
        let all = Key::of_tenant(tenant).range();
        all.end.ok_or(malformed("its tenant has no end"))
    };
    let mut rest = KeyRange::of_tenants();
    if let Some(after) = after {
        rest.start = behind(after)?;
    }
    let mut tenants = Vec::new();
    while tenants.len() < limit {
        let Some(tenant) = next_tenant(view, &rest)? else { break };
        rest.start = behind(&tenant)?;
        tenants.push(tenant);
    }
    Ok(tenants)
}

/// [`sweep_manifests`] of every tenant.
pub fn sweep_all_manifests(kv: &(impl Kv + ?Sized), now: u64) -> Result<usize> {
    let mut swept = 0;
    for_each_tenant(kv, |tenant| {
        swept += sweep_manifests(kv, tenant, now)?;
        Ok::<_, Error>(())
    })?;
    Ok(swept)
}

fn next_tenant(view: &(impl View + ?Sized), rest: &KeyRange) -> Result<Option<Tenant>> {
    let page = view.scan(rest, Order::Forward, 1)?;
    let Some((key, _)) = page.rows.first() else {
        return Ok(None);
    };
    let name = KeyReader::new(key).bytes()?;
    let name = std::str::from_utf8(&name).map_err(|_| malformed("its tenant is no text"))?;
    Tenant::new(name).map(Some)
}

/// Removes the pages of manifests that were replaced, dropped, or left behind unfinished. Returns how many manifests.
///
/// - `now`: seconds since 1970 UTC.
pub fn sweep_manifests(kv: &(impl Kv + ?Sized), tenant: &Tenant, now: u64) -> Result<usize> {
    let table = Key::of(tenant, Table::ManifestsPending);
    let mut gone = Vec::new();
    kv.for_each(table.range(), |key, row| {
        let until = KeyReader::new(&row.value).u64()?;
        if until < now {
            gone.push((KeyReader::new(&key[table.as_bytes().len()..]).fixed()?, row.version));
        }
        Ok::<_, Error>(())
    })?;
    let mut swept = 0;
    let (mut batch, mut in_batch) = (Batch::new(), Vec::new());
    for (id, version) in gone {
        let pages = page_keys(kv, tenant, &id)?;
        let len: usize = pages.iter().map(Bytes::len).sum();
        if !in_batch.is_empty() && batch.byte_len() + len > SWEEP_LEN {
            swept += commit_sweep(kv, tenant, std::mem::take(&mut batch), &in_batch)?;
            in_batch.clear();
        }
        forget(&mut batch, tenant, &id, version, &pages);
        in_batch.push((id, version));
    }
    Ok(swept + commit_sweep(kv, tenant, batch, &in_batch)?)
}

/// Commits what was gathered; if somebody has come in between, one manifest at a time.
fn commit_sweep(
    kv: &(impl Kv + ?Sized),
    tenant: &Tenant,
    batch: Batch,
    gone: &[(ManifestId, Version)],
) -> Result<usize> {
    if gone.is_empty() {
        return Ok(0);
    }
    if let Commit::Done(_) = kv.commit(batch)? {
        return Ok(gone.len());
    }
    let mut swept = 0;
    for (id, version) in gone {
        let mut batch = Batch::new();
        forget(&mut batch, tenant, id, *version, &page_keys(kv, tenant, id)?);
        swept += usize::from(matches!(kv.commit(batch)?, Commit::Done(_)));
    }
    Ok(swept)
}

/// Has a batch remove a manifest's pages, with the row that says that it is pending.
///
/// Its writer, if there is one after all, can write no page and no head once the row is gone.
fn forget(batch: &mut Batch, tenant: &Tenant, id: &ManifestId, version: Version, pages: &[Bytes]) {
    let pending = pending_key(tenant, id);
    batch.check(&pending, Check::Version(version)).delete(pending);
    for page in pages.iter().filter(|_| !is_planted(Bug::KeptPages)) {
        batch.delete(page.clone());
    }
}

fn page_keys(view: &(impl View + ?Sized), tenant: &Tenant, id: &ManifestId) -> Result<Vec<Bytes>> {
    let mut keys = Vec::new();
    view.for_each(Key::of(tenant, Table::ManifestPages).fixed(id).range(), |key, _| {
        keys.push(key);
        Ok::<_, Error>(())
    })?;
    Ok(keys)
}

fn encode(manifest: &Manifest) -> Vec<u8> {
    let value = Key::default().fixed(&manifest.id).u32(manifest.domain.0);
    value.u64(manifest.chunks).u64(manifest.len).into_bytes()
}

fn decode(value: &[u8], version: Version) -> Result<Manifest> {
    let mut reader = KeyReader::new(value);
    let manifest = Manifest {
        id: reader.fixed()?,
        domain: DomainId(reader.u32()?),
        chunks: reader.u64()?,
        len: reader.u64()?,
        version,
    };
    reader.end()?;
    Ok(manifest)
}

fn malformed(reason: &'static str) -> Error {
    Error::Malformed {
        what: "manifest",
        reason,
    }
}
