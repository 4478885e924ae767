//! Names whose chunks an object's version names, and no manifest: put, deleted and read as the object path does.

use std::sync::Arc;

use cairn_formats::{ChunkId, DomainId};
use cairn_store::{ChunkStore as _, PackStore};

use super::rows::SimRows;
use crate::liveness::{Fence, ManifestChunk, manifest_page};
use crate::names::{
    Bucket, BucketName, Cause, Condition, Content, Current, Deleted, Etag, FixedSurroundings, Names, NewBucket,
    NewContent, NewVersion, ObjectKey, ObjectVersion, Owner, Shard,
};
use crate::{Database, Error, Result, Tenant};

/// A bucket in the simulated store.
pub(super) struct SimBucket<'a> {
    names: Names,
    store: &'a PackStore,
    tenant: Tenant,
}

/// What is found under a name.
pub(super) struct Found {
    /// Its chunks; `None`: there is no object.
    pub(super) ids: Option<Vec<ChunkId>>,
    /// What is wrong with its last event, in words.
    pub(super) wrong: Option<String>,
}

fn owner() -> Result<Owner> {
    Owner::new("sim")
}

impl<'a> SimBucket<'a> {
    pub(super) fn new(kv: &Arc<Database<SimRows>>, store: &'a PackStore, seed: u64) -> Self {
        let surroundings = Arc::new(FixedSurroundings::new(1, seed));
        Self {
            names: Names::with_surroundings(kv.clone(), surroundings),
            store,
            tenant: Tenant::default(),
        }
    }

    fn bucket(&self) -> Result<Bucket> {
        let name = BucketName::new("sim")?;
        match self.names.buckets(&self.tenant).get(&name) {
            Err(Error::NoBucket { .. }) => self.names.buckets(&self.tenant).create(&name, NewBucket::of(owner()?)),
            found => found,
        }
    }

    /// Puts an object of these chunks, in its row or in pages.
    ///
    /// - `etag`: never used before.
    /// - `send`: sends chunks that have gone meanwhile.
    pub(super) fn put(
        &self,
        key: &str,
        etag: &str,
        chunks: &[ManifestChunk],
        mut fence: Fence,
        pages: Option<[u8; 16]>,
        send: &mut dyn FnMut(Vec<ChunkId>) -> Result<()>,
    ) -> Result<()> {
        let (bucket, key) = (self.bucket()?, ObjectKey::new(key)?);
        loop {
            let domain = DomainId::default();
            let content = match pages {
                Some(id) => NewContent::pages(&self.tenant, domain, id, chunks, fence)?,
                None => NewContent::chunks(domain, chunks.to_vec(), fence)?,
            };
            let new = NewVersion::new(owner()?, content, Etag::opaque(etag)?);
            let objects = self.names.objects(&bucket);
            match objects.put(&key, &new, &Condition::Always, &Cause::default()) {
                Err(Error::FenceMoved) => {}
                put => return put.map(drop),
            }
            fence = Fence::now(self.names.kv().as_ref())?;
            let ids: Vec<ChunkId> = chunks.iter().map(|chunk| chunk.id).collect();
            let there = self.store.has_many(&ids)?;
            let gone = ids.into_iter().zip(there).filter(|(_, there)| !there);
            send(gone.map(|(id, _)| id).collect())?;
        }
    }

    /// Returns whether there was one.
    pub(super) fn delete(&self, key: &str) -> Result<bool> {
        let (bucket, key) = (self.bucket()?, ObjectKey::new(key)?);
        let objects = self.names.objects(&bucket);
        let deleted = objects.delete(&key, None, &owner()?, &Condition::Always, &Cause::default())?;
        Ok(deleted != Deleted::Nothing)
    }

    /// Reads without writing: there may be no bucket.
    pub(super) fn find(&self, key: &str) -> Result<Found> {
        let name = BucketName::new("sim")?;
        let bucket = match self.names.buckets(&self.tenant).get(&name) {
            Err(Error::NoBucket { .. }) => {
                return Ok(Found { ids: None, wrong: None });
            }
            bucket => bucket?,
        };
        let key = ObjectKey::new(key)?;
        let version = match self.names.objects(&bucket).get(&key)? {
            Current::Object(version) => Some(*version),
            Current::Deleted(_) | Current::Nothing => None,
        };
        let ids = version.as_ref().map(|version| self.ids(version)).transpose()?;
        let last = self.last_event(&format!("{name}/{key}"))?;
        let etag = version
            .as_ref()
            .and_then(ObjectVersion::object)
            .map(|object| &object.etag);
        let expected = etag.map_or("object.deleted".to_owned(), |etag| format!("object.created {etag}"));
        let wrong = match last {
            None => version.map(|_| "an object has no event".to_owned()),
            Some(last) => (last != expected).then(|| format!("the last event is {last}, not {expected}")),
        };
        Ok(Found { ids, wrong })
    }

    fn ids(&self, version: &ObjectVersion) -> Result<Vec<ChunkId>> {
        let chunks = match version.object().map(|object| &object.content) {
            Some(Content::Chunks { chunks, .. }) => chunks.clone(),
            Some(Content::Manifest(pages)) => manifest_page(self.names.kv().as_ref(), &self.tenant, pages, 0)?,
            _ => Vec::new(),
        };
        Ok(chunks.iter().map(|chunk| chunk.id).collect())
    }

    fn last_event(&self, aggregate: &str) -> Result<Option<String>> {
        let outbox = self.names.outbox(&self.tenant);
        for shard in Shard::all() {
            let events = outbox.read(shard, 0, usize::MAX)?;
            let last = events.iter().rev().find(|(_, event)| event.aggregate_id == aggregate);
            if let Some((_, event)) = last {
                let etag = event.payload.get("etag").and_then(|etag| etag.as_str());
                let words = [Some(event.event_type.as_str()), etag];
                return Ok(Some(words.into_iter().flatten().collect::<Vec<_>>().join(" ")));
            }
        }
        Ok(None)
    }
}
