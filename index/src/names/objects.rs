//! The objects of a bucket: their versions are put, read, tagged and deleted, each in one commit.
//!
//! What a bucket keeps (unset, enabled, suspended) is read from its row, on which each commit depends; see section 4 of the S3
//! surface. An object that is replaced moves into `Versions` with its row's bytes as they are, or is given up.

use cairn_formats::DomainId;
use cairn_store::ChunkKey;
use serde_json::{Map, Value, json};

use super::bucket::{Bucket, Versioning};
use super::content::Content;
use super::edit::{Edit, Guard};
use super::etag::Etag;
use super::event::Cause;
use super::ids::{VersionId, VersionOrder};
use super::name::ObjectKey;
use super::version::{
    NewVersion, ObjectVersion, PART_PAGE_LEN, PartRecord, Parts, VersionKind, decode_part, validate_words,
};
use super::{Names, TRIES_MAX, rows};
use crate::kv::{Check, Order, Row, Version, ViewExt as _};
use crate::{Error, KeyReader, Result, Table, Tenant};

/// Bytes of a header that an event tells, at most; longer ones are looked up by who wants them.
const EVENT_WORD_LEN_MAX: usize = 256;

/// The objects of a bucket.
#[derive(Clone, Copy, Debug)]
pub struct Objects<'a> {
    pub(super) names: &'a Names,
    pub(super) bucket: &'a Bucket,
}

/// What a key has when no version is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Current {
    /// An object.
    Object(Box<ObjectVersion>),
    /// It was deleted, and this says so.
    Deleted(Box<ObjectVersion>),
    /// Nothing.
    Nothing,
}

/// What has to be true of a key for a change to happen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    #[default]
    Always,
    /// It has no object; a delete marker is none (`If-None-Match: *`).
    Absent,
    /// It has an object (`If-Match: *`).
    Present,
    /// It has an object with one of these tags (`If-Match`).
    Matches(Vec<Etag>),
}

impl Condition {
    /// Errors: [`Error::Precondition`], [`Error::NoObject`].
    fn test(&self, bucket: &Bucket, key: &ObjectKey, version: Option<&ObjectVersion>) -> Result<()> {
        let object = version.and_then(ObjectVersion::object);
        let failed = || Error::Precondition { key: key.to_string() };
        match (self, object) {
            (Self::Always, _) | (Self::Absent, None) | (Self::Present, Some(_)) => Ok(()),
            (Self::Absent, Some(_)) => Err(failed()),
            (Self::Present | Self::Matches(_), None) => Err(no_object(bucket, key)),
            (Self::Matches(tags), Some(object)) => tags.contains(&object.etag).then_some(()).ok_or_else(failed),
        }
    }
}

/// A version that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The version.
    pub version: ObjectVersion,
    /// What the bucket keeps: whether the id is told.
    pub versioning: Versioning,
    /// The commit.
    pub row: Version,
}

/// What was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// There was nothing to delete.
    Nothing,
    /// A delete marker of this id was put.
    MarkerPut(VersionId),
    /// A version is gone for good.
    Version {
        /// Its id.
        id: VersionId,
        /// Whether it was a delete marker.
        was_marker: bool,
    },
}

/// What a key has, as read for a change: the newest version and, if that is not the one, the version named `null`.
#[derive(Debug)]
pub(super) struct KeyState {
    newest: Option<ObjectVersion>,
    older_null: Option<ObjectVersion>,
    /// What the rows were that say so.
    read: Vec<(Table, Check)>,
    null_row: Option<Version>,
}

impl Objects<'_> {
    /// What a key has when no version is named: one read if that is an object.
    pub fn get(&self, key: &ObjectKey) -> Result<Current> {
        if let Some(row) = self.names.kv.get(self.row(Table::Objects, key))? {
            return Ok(Current::Object(Box::new(ObjectVersion::decode(&row.value)?)));
        }
        // Both of one moment: between two reads it may have come back.
        let [object, marker] = self.rows([Table::Objects, Table::Markers], key)?;
        Ok(match (object, marker) {
            (Some(row), _) => Current::Object(Box::new(ObjectVersion::decode(&row.value)?)),
            (None, Some(row)) => Current::Deleted(Box::new(ObjectVersion::decode(&row.value)?)),
            (None, None) => Current::Nothing,
        })
    }

    /// The object that a key has.
    ///
    /// Errors: [`Error::NoObject`].
    pub fn current(&self, key: &ObjectKey) -> Result<ObjectVersion> {
        match self.get(key)? {
            Current::Object(version) => Ok(*version),
            Current::Deleted(_) | Current::Nothing => Err(no_object(self.bucket, key)),
        }
    }

    /// A version, which may be a delete marker.
    ///
    /// Errors: [`Error::NoVersion`].
    pub fn version(&self, key: &ObjectKey, id: VersionId) -> Result<ObjectVersion> {
        // It may move from one table to another between two reads, which its key's newest row tells.
        for _ in 0..TRIES_MAX {
            let state = self.state(self.bucket, key)?;
            if let Some(newest) = state.newest.filter(|newest| newest.id == id) {
                return Ok(newest);
            }
            let older = match id.order() {
                None => state.older_null,
                Some(order) => self.older(self.bucket, key, order)?.map(|(version, _)| version),
            };
            if let Some(older) = older.filter(|older| older.id == id) {
                return Ok(older);
            }
            let now = self.state(self.bucket, key)?;
            if now.read == state.read && now.null_row == state.null_row {
                return Err(self.no_version(key, id));
            }
        }
        Err(Error::Contended { what: "a key" })
    }

    /// Parts of an object, in order, from one on.
    ///
    /// - `from`: how many are passed over.
    /// - Errors: [`Error::Malformed`] when the version has been deleted meanwhile.
    pub fn parts(&self, version: &ObjectVersion, from: u32, limit: usize) -> Result<Vec<PartRecord>> {
        let Some(object) = version.object() else {
            return Ok(Vec::new());
        };
        let (id, count) = match &object.parts {
            Parts::None => return Ok(Vec::new()),
            Parts::Listed(parts) => return Ok(parts.iter().skip(from as usize).take(limit).cloned().collect()),
            Parts::Paged { id, count } => (id, *count),
        };
        let mut found = Vec::new();
        let mut at = from;
        while at < count && found.len() < limit {
            let page = at / PART_PAGE_LEN as u32;
            let row = self.names.kv.get(rows::part_list(&self.bucket.tenant, id, page))?;
            let row = row.ok_or(malformed("a page of its parts is not there"))?;
            let parts = decode_parts(&row.value)?;
            let wanted = parts.into_iter().skip((at % PART_PAGE_LEN as u32) as usize);
            found.extend(wanted.take(limit - found.len()));
            at = (page + 1) * PART_PAGE_LEN as u32;
        }
        Ok(found)
    }

    /// Puts a version.
    ///
    /// Errors: [`Error::NoBucket`], [`Error::Precondition`], [`Error::NoObject`], [`Error::FenceMoved`], [`Error::OverQuota`],
    /// [`Error::TooLarge`].
    pub fn put(&self, key: &ObjectKey, new: &NewVersion, condition: &Condition, cause: &Cause) -> Result<Written> {
        self.put_with(key, new, condition, cause, &mut |_, _, _| Ok(()))
    }

    /// [`Objects::put`], with more in the same commit.
    pub(super) fn put_with(
        &self,
        key: &ObjectKey,
        new: &NewVersion,
        condition: &Condition,
        cause: &Cause,
        more: &mut dyn FnMut(&mut Edit<'_>, &Bucket, &Written) -> Result<()>,
    ) -> Result<Written> {
        let mut record = new.record.clone();
        record.content = new.proof.content.clone();
        if !new.many_parts.is_empty() {
            record.parts = Parts::Paged {
                id: self.names.chance()?,
                count: u32::try_from(new.many_parts.len()).unwrap_or(u32::MAX),
            };
        }
        record.validate()?;
        self.change(|bucket| {
            let state = self.state(bucket, key)?;
            condition.test(bucket, key, state.newest.as_ref())?;
            self.hold_quota(bucket, &state, record.size)?;
            let mut edit = Edit::new(self.names, bucket);
            edit.prove(&new.proof);
            let (id, order) = self.next_id(bucket, &state, edit.now_ms())?;
            let version = ObjectVersion {
                id,
                order,
                owner: new.owner.clone(),
                kind: VersionKind::Object(Box::new(record.clone())),
            };
            self.supersede(&mut edit, key, &state, &version);
            if let Parts::Paged { id, .. } = &record.parts {
                edit.put_parts(id, &new.many_parts);
            }
            let mut payload = self.payload(bucket, key, &version);
            payload.insert("size".to_owned(), json!(record.size));
            payload.insert("etag".to_owned(), json!(record.etag.as_str()));
            let content_type = record.headers.content_type.as_deref();
            let content_type = content_type.filter(|text| text.len() <= EVENT_WORD_LEN_MAX);
            payload.insert("content_type".to_owned(), json!(content_type));
            edit.event("object.created", key, cause, payload)?;
            let mut written = Written {
                version,
                versioning: bucket.record.versioning,
                row: Version::default(),
            };
            more(&mut edit, bucket, &written)?;
            Ok(match edit.commit()? {
                Ok(row) => {
                    written.row = row;
                    Ok(written)
                }
                Err(guard) => Err(guard),
            })
        })
    }

    /// Deletes what a key has, as its bucket keeps versions; or one version, for good.
    ///
    /// - `id`: the version; `None`: the key.
    /// - `condition`: on the key's object, or on that version.
    /// - Errors: [`Error::NoBucket`], [`Error::Precondition`], [`Error::NoObject`].
    pub fn delete(
        &self,
        key: &ObjectKey,
        id: Option<VersionId>,
        owner: &super::Owner,
        condition: &Condition,
        cause: &Cause,
    ) -> Result<Deleted> {
        self.change(|bucket| {
            let state = self.state(bucket, key)?;
            match id {
                Some(id) => self.delete_version(bucket, key, id, state, condition, cause),
                None => self.delete_key(bucket, key, owner, state, condition, cause),
            }
        })
    }

    fn delete_key(
        &self,
        bucket: &Bucket,
        key: &ObjectKey,
        owner: &super::Owner,
        state: KeyState,
        condition: &Condition,
        cause: &Cause,
    ) -> Result<std::result::Result<Deleted, Guard>> {
        condition.test(bucket, key, state.newest.as_ref())?;
        let mut edit = Edit::new(self.names, bucket);
        let (deleted, version) = if bucket.record.versioning == Versioning::Unset {
            self.depend(&mut edit, key, &state);
            let Some(newest) = &state.newest else {
                // True only while the bucket keeps no versions.
                return Ok(edit.commit()?.map(|_| Deleted::Nothing));
            };
            edit.clear_newest(key, newest, None);
            edit.drop_version(key, newest);
            let deleted = Deleted::Version {
                id: newest.id,
                was_marker: newest.object().is_none(),
            };
            (deleted, newest.clone())
        } else {
            let (id, order) = self.next_id(bucket, &state, edit.now_ms())?;
            let marker = ObjectVersion {
                id,
                order,
                owner: owner.clone(),
                kind: VersionKind::DeleteMarker,
            };
            self.supersede(&mut edit, key, &state, &marker);
            (Deleted::MarkerPut(id), marker)
        };
        let mut payload = self.payload(bucket, key, &version);
        let marker = matches!(deleted, Deleted::MarkerPut(_));
        payload.insert("delete_marker".to_owned(), json!(marker));
        edit.event("object.deleted", key, cause, payload)?;
        Ok(edit.commit()?.map(|_| deleted))
    }

    fn delete_version(
        &self,
        bucket: &Bucket,
        key: &ObjectKey,
        id: VersionId,
        state: KeyState,
        condition: &Condition,
        cause: &Cause,
    ) -> Result<std::result::Result<Deleted, Guard>> {
        let mut edit = Edit::new(self.names, bucket);
        let version = match &state.newest {
            Some(newest) if newest.id == id => {
                condition.test(bucket, key, Some(newest))?;
                self.depend(&mut edit, key, &state);
                let next = self.newest_older(&mut edit, bucket, key)?;
                edit.clear_newest(key, newest, next.as_ref());
                if let Some(next) = &next {
                    edit.promote(key, next);
                }
                newest.clone()
            }
            _ => {
                let order = match id.order() {
                    Some(order) => Some(order),
                    None => state.older_null.as_ref().map(|older| older.order),
                };
                let older = order.map(|order| self.older(bucket, key, order)).transpose()?.flatten();
                let Some((older, row)) = older.filter(|(older, _)| older.id == id) else {
                    condition.test(bucket, key, None)?;
                    // It may have moved between the two reads: only what has not changed since is an answer.
                    self.depend(&mut edit, key, &state);
                    return Ok(edit.commit()?.map(|_| Deleted::Nothing));
                };
                condition.test(bucket, key, Some(&older))?;
                let at = rows::version(&bucket.tenant, bucket.id, key, older.order);
                edit.check(Guard::Rows, at, Check::Version(row));
                edit.forget_older(key, id, older.order);
                older
            }
        };
        edit.drop_version(key, &version);
        let mut payload = self.payload(bucket, key, &version);
        payload.insert("delete_marker".to_owned(), json!(false));
        edit.event("object.deleted", key, cause, payload)?;
        let deleted = Deleted::Version {
            id,
            was_marker: version.object().is_none(),
        };
        Ok(edit.commit()?.map(|_| deleted))
    }

    /// Changes what is said of a version: its headers, metadata, tags, digests. Its content and size stay.
    ///
    /// - `id`: `None`: what the key has.
    /// - Errors: [`Error::NoBucket`], [`Error::NoObject`], [`Error::NoVersion`], [`Error::TooLarge`].
    pub fn update(
        &self,
        key: &ObjectKey,
        id: Option<VersionId>,
        cause: &Cause,
        mut change: impl FnMut(&mut super::ObjectRecord),
    ) -> Result<ObjectVersion> {
        self.change(|bucket| {
            let state = self.state(bucket, key)?;
            let mut edit = Edit::new(self.names, bucket);
            let (before, at, row) = self.named(bucket, key, id, &state)?;
            edit.check(Guard::Rows, at.clone(), Check::Version(row));
            let mut after = before.clone();
            let Some(object) = after.object_mut() else {
                return Err(self.no_version(key, before.id));
            };
            change(object);
            validate_words(&object.headers, &object.metadata, &object.tags)?;
            if let Some(kept) = before.object() {
                (object.content, object.size) = (kept.content.clone(), kept.size);
                object.parts = kept.parts.clone();
            }
            if state.newest.as_ref().is_some_and(|newest| newest.id == before.id) {
                edit.no_more_found_as(key, &before);
                edit.found_as(key, &after);
            }
            edit.batch.put(at, after.encode());
            let payload = self.payload(bucket, key, &after);
            edit.event("object.updated", key, cause, payload)?;
            Ok(edit.commit()?.map(|_| after.clone()))
        })
    }

    /// A version that is to be changed, with its row.
    fn named(
        &self,
        bucket: &Bucket,
        key: &ObjectKey,
        id: Option<VersionId>,
        state: &KeyState,
    ) -> Result<(ObjectVersion, crate::Key, Version)> {
        let is_newest = |newest: &&ObjectVersion| id.is_none_or(|id| newest.id == id);
        if let Some(newest) = state.newest.as_ref().filter(is_newest) {
            if id.is_none() && newest.object().is_none() {
                return Err(no_object(bucket, key));
            }
            let found = state.read.iter().find_map(|(table, check)| match check {
                Check::Version(row) => Some((*table, *row)),
                Check::Absent => None,
            });
            let (table, row) = found.ok_or(malformed("its row was not read"))?;
            let at = rows::of_key(&bucket.tenant, table, bucket.id, key);
            return Ok((newest.clone(), at, row));
        }
        let Some(id) = id else {
            return Err(no_object(bucket, key));
        };
        let order = id.order().or(state.older_null.as_ref().map(|older| older.order));
        let older = order.map(|order| self.older(bucket, key, order)).transpose()?.flatten();
        let (older, row) = older
            .filter(|(older, _)| older.id == id)
            .ok_or_else(|| self.no_version(key, id))?;
        let at = rows::version(&bucket.tenant, bucket.id, key, older.order);
        Ok((older, at, row))
    }

    /// Does a change until nobody has come between.
    pub(super) fn change<T>(
        &self,
        mut try_once: impl FnMut(&Bucket) -> Result<std::result::Result<T, Guard>>,
    ) -> Result<T> {
        let mut fresh = None;
        for _ in 0..TRIES_MAX {
            match try_once(fresh.as_ref().unwrap_or(self.bucket))? {
                Ok(done) => return Ok(done),
                Err(Guard::Bucket) => fresh = Some(self.refreshed()?),
                Err(Guard::Upload) => return Err(Error::UploadEnded),
                Err(_) => {}
            }
        }
        Err(Error::Contended { what: "a key" })
    }

    /// The bucket as it is now.
    fn refreshed(&self) -> Result<Bucket> {
        let Bucket { tenant, name, id, .. } = self.bucket;
        let fresh = self.names.buckets(tenant).writable(name)?;
        if fresh.id != *id {
            return Err(Error::NoBucket { name: name.to_string() });
        }
        Ok(fresh)
    }

    /// Puts a version in front of what the key has.
    fn supersede(&self, edit: &mut Edit<'_>, key: &ObjectKey, state: &KeyState, version: &ObjectVersion) {
        self.depend(edit, key, state);
        if let Some(newest) = &state.newest {
            edit.clear_newest(key, newest, Some(version));
            if version.id.is_null() && newest.id.is_null() {
                edit.drop_version(key, newest);
            } else {
                edit.demote(key, newest);
            }
        }
        if let Some(older) = state.older_null.as_ref().filter(|_| version.id.is_null()) {
            edit.forget_older(key, older.id, older.order);
            edit.drop_version(key, older);
        }
        edit.add_newest(key, version);
    }

    fn next_id(&self, bucket: &Bucket, state: &KeyState, now_ms: u64) -> Result<(VersionId, VersionOrder)> {
        let order = VersionOrder::next(now_ms, state.newest.as_ref().map(|newest| newest.order));
        let id = match bucket.record.versioning {
            Versioning::Enabled => VersionId::made(order, self.names.chance()?),
            Versioning::Unset | Versioning::Suspended => VersionId::NULL,
        };
        Ok((id, order))
    }

    fn hold_quota(&self, bucket: &Bucket, state: &KeyState, size: u64) -> Result<()> {
        let settings = &bucket.record.settings;
        if settings.quota_bytes.is_none() && settings.quota_objects.is_none() {
            return Ok(());
        }
        let used = self.names.buckets(&bucket.tenant).usage_of(bucket)?;
        let over = |what, quota| Error::OverQuota {
            name: bucket.name.to_string(),
            what,
            quota,
        };
        let freed = match (&state.newest, bucket.record.versioning) {
            (Some(newest), Versioning::Unset) => newest.size(),
            _ => 0,
        };
        if let Some(quota) = settings.quota_bytes
            && used.bytes.saturating_sub(freed).saturating_add(size) > quota
        {
            return Err(over("bytes", quota));
        }
        let is_new = state.newest.as_ref().is_none_or(|newest| newest.object().is_none());
        match settings.quota_objects {
            Some(quota) if is_new && used.objects >= quota => Err(over("objects", quota)),
            _ => Ok(()),
        }
    }

    fn payload(&self, bucket: &Bucket, key: &ObjectKey, version: &ObjectVersion) -> Map<String, Value> {
        let words = json!({
            "bucket": bucket.name.as_str(),
            "key": key.as_str(),
            "version_id": version.id.to_string(),
        });
        match words {
            Value::Object(words) => words,
            _ => Map::new(),
        }
    }

    fn row(&self, table: Table, key: &ObjectKey) -> crate::Key {
        rows::of_key(&self.bucket.tenant, table, self.bucket.id, key)
    }

    fn rows<const N: usize>(&self, tables: [Table; N], key: &ObjectKey) -> Result<[Option<Row>; N]> {
        let keys = tables.map(|table| self.row(table, key));
        let mut found = self
            .names
            .kv
            .get_many(&keys.each_ref().map(crate::Key::as_bytes))?
            .into_iter();
        Ok(tables.map(|_| found.next().flatten()))
    }

    fn state(&self, bucket: &Bucket, key: &ObjectKey) -> Result<KeyState> {
        let [object, marker, null] = self.rows([Table::Objects, Table::Markers, Table::NullVersions], key)?;
        let read = vec![
            (Table::Objects, Check::unchanged(object.as_ref())),
            (Table::Markers, Check::unchanged(marker.as_ref())),
        ];
        let newest = object.or(marker);
        let newest = newest.map(|row| ObjectVersion::decode(&row.value)).transpose()?;
        let mut older_null = None;
        if let Some(row) = &null {
            let order = VersionOrder(KeyReader::new(&row.value).u64()?);
            older_null = self.older(bucket, key, order)?.map(|(version, _)| version);
        }
        Ok(KeyState {
            newest,
            older_null,
            read,
            null_row: null.map(|row| row.version),
        })
    }

    /// Has a change depend on what was read of its key.
    fn depend(&self, edit: &mut Edit<'_>, key: &ObjectKey, state: &KeyState) {
        for (table, check) in &state.read {
            edit.check(Guard::Rows, self.row(*table, key), *check);
        }
        let check = state.null_row.map_or(Check::Absent, Check::Version);
        edit.check(Guard::Rows, self.row(Table::NullVersions, key), check);
        if let Some(null) = &state.older_null {
            // Its row was read after the one that names it; that one has not changed, so this one has not gone.
            debug_assert!(null.id.is_null());
        }
    }

    fn older(&self, bucket: &Bucket, key: &ObjectKey, order: VersionOrder) -> Result<Option<(ObjectVersion, Version)>> {
        let row = self
            .names
            .kv
            .get(rows::version(&bucket.tenant, bucket.id, key, order))?;
        row.map(|row| Ok((ObjectVersion::decode(&row.value)?, row.version)))
            .transpose()
    }

    /// The newest of a key's older versions, on which the change then depends.
    fn newest_older(&self, edit: &mut Edit<'_>, bucket: &Bucket, key: &ObjectKey) -> Result<Option<ObjectVersion>> {
        let range = rows::of_key(&bucket.tenant, Table::Versions, bucket.id, key).range();
        let page = self.names.kv.scan(&range, Order::Forward, 1)?;
        let Some((_, row)) = page.rows.into_iter().next() else {
            return Ok(None);
        };
        let version = ObjectVersion::decode(&row.value)?;
        let at = rows::version(&bucket.tenant, bucket.id, key, version.order);
        edit.check(Guard::Rows, at, Check::Version(row.version));
        Ok(Some(version))
    }

    fn no_version(&self, key: &ObjectKey, id: VersionId) -> Error {
        Error::NoVersion {
            bucket: self.bucket.name.to_string(),
            key: key.to_string(),
            version: id.to_string(),
        }
    }
}

impl Names {
    /// The bytes of a chunk that an object of the tenant holds in its row.
    ///
    /// Who is about to name the chunk elsewhere puts it into the store first: the object may go at any time.
    pub fn inline_chunk(&self, tenant: &Tenant, chunk: &ChunkKey) -> Result<Option<bytes::Bytes>> {
        for _ in 0..TRIES_MAX {
            let range = rows::inline_chunk(tenant, chunk).range();
            let page = self.kv.scan(&range, Order::Forward, 1)?;
            let Some((holder, _)) = page.rows.first() else {
                return Ok(None);
            };
            let (_, bucket, key, order) = rows::read_inline_holder(tenant, holder)?;
            let places = [
                rows::of_key(tenant, Table::Objects, bucket, &key),
                rows::version(tenant, bucket, &key, order),
            ];
            let found = self.kv.get_many(&places.each_ref().map(crate::Key::as_bytes))?;
            for row in found.into_iter().flatten() {
                let version = ObjectVersion::decode(&row.value)?;
                if let (true, Some(Content::Inline { bytes, .. })) =
                    (version.order == order, version.object().map(|object| &object.content))
                {
                    return Ok(Some(bytes.clone()));
                }
            }
            // It went, or moved, between the two reads.
        }
        Err(Error::Contended {
            what: "an inlined object",
        })
    }

    /// Which of these chunks objects of the tenant hold in their rows; one answer per chunk, in order.
    pub fn has_inline_chunks(
        &self,
        tenant: &Tenant,
        domain: DomainId,
        ids: &[cairn_formats::ChunkId],
    ) -> Result<Vec<bool>> {
        let has = |id: &cairn_formats::ChunkId| {
            let range = rows::inline_chunk(tenant, &ChunkKey { domain, id: *id }).range();
            Ok(!self.kv.scan(&range, Order::Forward, 1)?.rows.is_empty())
        };
        ids.iter().map(has).collect()
    }
}

fn decode_parts(value: &[u8]) -> Result<Vec<PartRecord>> {
    let mut parts = Vec::new();
    let mut rest = value;
    while let Some((&len, after)) = rest.split_first() {
        let split = after.split_at_checked(usize::from(len));
        let (part, after) = split.ok_or(malformed("a page of its parts ends early"))?;
        parts.push(decode_part(part)?);
        rest = after;
    }
    Ok(parts)
}

pub(super) fn no_object(bucket: &Bucket, key: &ObjectKey) -> Error {
    Error::NoObject {
        bucket: bucket.name.to_string(),
        key: key.to_string(),
    }
}

fn malformed(reason: &'static str) -> Error {
    Error::Malformed {
        what: "version of an object",
        reason,
    }
}
