//! Uploads in parts: begun, sent part by part in any order, completed or given up.
//!
//! A part's row names its chunks, so they stay while the upload is there. Each commit of a part depends on the upload's row, so that
//! none comes behind its end. What it became is remembered for [`DONE_KEPT_MS`], so that who asks again gets the same answer. Seams
//! between parts are cut by the object path, which keeps what it knows with the part in front of the seam.

use bytes::Bytes;
use cairn_formats::ChunkId;

use super::bucket::Bucket;
use super::content::{Content, NewContent, within};
use super::edit::{Edit, Guard};
use super::etag::{Checksum, ChecksumAlgorithm, ChecksumKind, Etag};
use super::event::Cause;
use super::fields::{Fields, malformed, read};
use super::ids::{PartNumber, UploadId, VersionId};
use super::listing::{List, Listed, Stream, behind_prefix, common_prefix, range_of};
use super::name::{ObjectKey, Owner};
use super::objects::{Condition, Objects, Written};
use super::version::{Headers, NewVersion, PartRecord, StorageClass, decode_word, encode_words, validate_words};
use super::{Names, rows, sweep};
use crate::kv::{Check, Order, Version, View, ViewExt as _};
use crate::liveness::{Fence, ManifestChunk};
use crate::{Error, KeyReader, Result, Table};

/// Milliseconds for which it is remembered what an upload became: seven days.
pub const DONE_KEPT_MS: u64 = 7 * 86_400_000;

/// Chunks of a seam, at most.
pub const SEAM_CHUNKS_MAX: usize = 1024;

/// Bytes that the object path keeps with a part, at most.
pub const PART_STATE_LEN_MAX: usize = 16 << 10;

/// Uploads of a bucket.
#[derive(Clone, Copy, Debug)]
pub struct Uploads<'a> {
    names: &'a Names,
    bucket: &'a Bucket,
}

/// What is said of an upload when it begins, and then of its object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadRecord {
    /// Whose it is.
    pub owner: Owner,
    /// Headers kept with the object.
    pub headers: Headers,
    /// Metadata of users.
    pub metadata: Vec<(String, String)>,
    /// Tags.
    pub tags: Vec<(String, String)>,
    /// Storage class.
    pub storage_class: StorageClass,
    /// The check sum of each part, and what that of the object will be of.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
}

impl UploadRecord {
    /// One of which nothing is said.
    pub fn of(owner: Owner) -> Self {
        Self {
            owner,
            headers: Headers::default(),
            metadata: Vec::new(),
            tags: Vec::new(),
            storage_class: StorageClass::default(),
            checksum: None,
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut fields = Fields::default();
        fields.text(OWNER, self.owner.as_str());
        encode_words(&mut fields, &self.headers, &self.metadata, &self.tags);
        if self.storage_class != StorageClass::Standard {
            fields.number(STORAGE_CLASS, self.storage_class as u64);
        }
        if let Some((algorithm, kind)) = self.checksum {
            fields.bytes(CHECKSUM_RULE, &[algorithm as u8, kind as u8]);
        }
        fields.into_value()
    }

    fn decode(value: &[u8]) -> Result<Self> {
        const WHAT: &str = "row of an upload";
        let mut owner = None;
        let (mut headers, mut metadata, mut tags) = (Headers::default(), Vec::new(), Vec::new());
        let mut storage_class = StorageClass::default();
        let mut checksum = None;
        for field in read(value, WHAT)? {
            let field = field?;
            match field.tag {
                OWNER => owner = Some(Owner::new(field.str()?)?),
                STORAGE_CLASS if field.number()? == 1 => storage_class = StorageClass::ReducedRedundancy,
                CHECKSUM_RULE => {
                    let [algorithm, kind] = field.fixed()?;
                    let rule = ChecksumAlgorithm::of(algorithm).zip(ChecksumKind::of(kind));
                    checksum = Some(rule.ok_or_else(|| field.malformed("its check sums are of a later release"))?);
                }
                _ => {
                    if !decode_word(&field, &mut headers, &mut metadata, &mut tags)? {
                        return Err(field.unknown());
                    }
                }
            }
        }
        Ok(Self {
            owner: owner.ok_or(malformed(WHAT, "it has no owner"))?,
            headers,
            metadata,
            tags,
            storage_class,
            checksum,
        })
    }
}

/// An upload that goes on, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Its id.
    pub id: UploadId,
    /// The object's key.
    pub key: ObjectKey,
    /// What was said when it began.
    pub record: UploadRecord,
    row: Version,
}

/// A part to be written.
#[derive(Clone, Debug)]
pub struct NewPart {
    /// Its number.
    pub number: PartNumber,
    /// MD5 of it.
    pub md5: [u8; 16],
    /// Its check sum, if the upload has them.
    pub checksum: Option<Checksum>,
    /// Bytes of it.
    pub size: u64,
    /// What it is made of, as far as it has been cut: all of it, or what lies between its seams.
    pub content: NewContent,
    /// Anything that the object path wants to find again, up to [`PART_STATE_LEN_MAX`] bytes.
    pub state: Bytes,
}

/// A part that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its number.
    pub number: PartNumber,
    /// MD5 of it.
    pub md5: [u8; 16],
    /// Its check sum.
    pub checksum: Option<Checksum>,
    /// Bytes of it.
    pub size: u64,
    /// When it was finished, in milliseconds since 1970 UTC.
    pub modified_ms: u64,
    /// What it is made of.
    pub content: Content,
    /// Chunks of the seam behind it, as far as they are known.
    pub seam: Vec<ManifestChunk>,
    /// What the object path keeps with it.
    pub state: Bytes,
    /// The commit that wrote this row: it is another as soon as the part is sent again, or its seam is cut.
    pub row: Version,
}

impl Part {
    /// As the object lists it.
    pub fn record(&self) -> PartRecord {
        PartRecord {
            number: self.number.get(),
            size: self.size,
            md5: self.md5,
            checksum: self.checksum.clone(),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut fields = Fields::default();
        // First: the collector reads no further.
        fields.bytes(CONTENT, &self.content.encode());
        if !self.seam.is_empty() {
            let mut seam = Vec::with_capacity(36 * self.seam.len());
            for chunk in &self.seam {
                seam.extend_from_slice(chunk.id.as_bytes());
                seam.extend_from_slice(&chunk.len.to_be_bytes());
            }
            fields.bytes(SEAM, &seam);
        }
        fields
            .bytes(MD5, &self.md5)
            .number(SIZE, self.size)
            .number(MODIFIED, self.modified_ms);
        if let Some(checksum) = &self.checksum {
            fields.bytes(CHECKSUM, &checksum.encode());
        }
        fields.bytes(STATE, &self.state);
        fields.into_value()
    }

    pub(super) fn decode(number: PartNumber, value: &[u8], row: Version) -> Result<Self> {
        const WHAT: &str = "row of a part";
        let mut content = None;
        let mut part = Self {
            number,
            md5: [0; 16],
            checksum: None,
            size: 0,
            modified_ms: 0,
            content: Content::Chunks {
                domain: cairn_formats::DomainId::default(),
                chunks: Vec::new(),
            },
            seam: Vec::new(),
            state: Bytes::new(),
            row,
        };
        for field in read(value, WHAT)? {
            let field = field?;
            match field.tag {
                CONTENT => content = Some(Content::decode(&field)?),
                SEAM => part.seam = decode_seam(field.bytes)?,
                MD5 => part.md5 = field.fixed()?,
                SIZE => part.size = field.number()?,
                MODIFIED => part.modified_ms = field.number()?,
                CHECKSUM => {
                    let checksum = Checksum::decode(field.bytes);
                    part.checksum = Some(checksum.ok_or_else(|| field.malformed("its check sum has another length"))?);
                }
                STATE => part.state = Bytes::copy_from_slice(field.bytes),
                _ => return Err(field.unknown()),
            }
        }
        part.content = content.ok_or(malformed(WHAT, "it has no content"))?;
        Ok(part)
    }
}

fn decode_seam(bytes: &[u8]) -> Result<Vec<ManifestChunk>> {
    let mut reader = KeyReader::new(bytes);
    let mut seam = Vec::with_capacity(bytes.len() / 36);
    for _ in 0..bytes.len() / 36 {
        seam.push(ManifestChunk {
            id: ChunkId::from_bytes(reader.fixed()?),
            len: reader.u32()?,
        });
    }
    reader.end()?;
    Ok(seam)
}

/// What is learnt of a part later: its seam, and what goes with that.
#[derive(Clone, Debug)]
pub struct PartChange {
    /// The part as it was read.
    pub number: PartNumber,
    /// [`Part::row`] as it was read.
    pub row: Version,
    /// Chunks of the seam behind it, up to [`SEAM_CHUNKS_MAX`], of the domain of its content.
    pub seam: Vec<ManifestChunk>,
    /// What the object path keeps with it.
    pub state: Bytes,
}

/// What became of changes of parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum PartsChanged {
    /// They were made, all of them.
    Done,
    /// One of the parts was sent again or changed meanwhile: none was made.
    Stale,
}

/// What an upload became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompletedUpload {
    /// The version that it made.
    pub version: VersionId,
    /// Its tag.
    pub etag: Etag,
    /// Its check sums.
    pub checksums: Vec<Checksum>,
    /// When, in milliseconds since 1970 UTC.
    pub completed_ms: u64,
}

impl CompletedUpload {
    fn encode(&self, key: &ObjectKey) -> Vec<u8> {
        let mut fields = Fields::default();
        fields
            .text(KEY, key.as_str())
            .bytes(VERSION, self.version.encode())
            .text(ETAG, self.etag.as_str())
            .number(MODIFIED, self.completed_ms);
        for checksum in &self.checksums {
            fields.bytes(CHECKSUM, &checksum.encode());
        }
        fields.into_value()
    }

    pub(super) fn decode(value: &[u8]) -> Result<(ObjectKey, Self)> {
        const WHAT: &str = "row of a completed upload";
        let (mut key, mut version, mut etag) = (None, None, None);
        let (mut checksums, mut completed_ms) = (Vec::new(), 0);
        for field in read(value, WHAT)? {
            let field = field?;
            match field.tag {
                KEY => key = Some(ObjectKey::new(field.text()?)?),
                VERSION => version = VersionId::decode(field.bytes),
                ETAG => etag = Some(Etag::opaque(field.str()?)?),
                MODIFIED => completed_ms = field.number()?,
                CHECKSUM => checksums.extend(Checksum::decode(field.bytes)),
                _ => return Err(field.unknown()),
            }
        }
        let half = malformed(WHAT, "half of it is missing");
        match (key, version, etag) {
            (Some(key), Some(version), Some(etag)) => Ok((
                key,
                Self {
                    version,
                    etag,
                    checksums,
                    completed_ms,
                },
            )),
            _ => Err(half),
        }
    }
}

/// An upload in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedUpload {
    /// The object's key.
    pub key: ObjectKey,
    /// Its id.
    pub id: UploadId,
    /// What was said when it began.
    pub record: UploadRecord,
}

impl Names {
    /// The uploads of a bucket.
    pub fn uploads<'a>(&'a self, bucket: &'a Bucket) -> Uploads<'a> {
        Uploads { names: self, bucket }
    }
}

impl Uploads<'_> {
    /// Begins an upload.
    ///
    /// Errors: [`Error::NoBucket`], [`Error::TooLarge`].
    pub fn begin(&self, key: &ObjectKey, record: UploadRecord) -> Result<Upload> {
        validate_words(&record.headers, &record.metadata, &record.tags)?;
        let id = UploadId::made(self.names.now_ms(), self.names.chance()?);
        self.objects().change(|bucket| {
            let mut edit = Edit::new(self.names, bucket);
            let row = rows::upload(&bucket.tenant, bucket.id, key, &id);
            edit.check(Guard::Rows, row.clone(), Check::Absent);
            edit.batch.put(row, record.encode());
            Ok(edit.commit()?.map(|row| Upload {
                id,
                key: key.clone(),
                record: record.clone(),
                row,
            }))
        })
    }

    /// An upload that goes on.
    ///
    /// Errors: [`Error::NoUpload`].
    pub fn get(&self, key: &ObjectKey, id: UploadId) -> Result<Upload> {
        let row = rows::upload(&self.bucket.tenant, self.bucket.id, key, &id);
        let row = self.names.kv.get(row)?.ok_or_else(|| self.no_upload(key, id))?;
        Ok(Upload {
            id,
            key: key.clone(),
            record: UploadRecord::decode(&row.value)?,
            row: row.version,
        })
    }

    /// Writes a part, in place of one of the same number.
    ///
    /// Errors: [`Error::NoUpload`], [`Error::NoBucket`], [`Error::FenceMoved`], [`Error::TooLarge`].
    pub fn put_part(&self, upload: &Upload, new: &NewPart) -> Result<Part> {
        within("state of a part", new.state.len(), PART_STATE_LEN_MAX)?;
        self.objects()
            .change(|bucket| {
                let row = rows::part(&bucket.tenant, &upload.id, new.number);
                let before = self.names.kv.get(&row)?;
                let mut edit = Edit::new(self.names, bucket);
                edit.prove(&new.content);
                self.depend(&mut edit, bucket, upload);
                edit.check(Guard::Rows, row.clone(), Check::unchanged(before.as_ref()));
                if let Some(before) = &before {
                    edit.give_up(&Part::decode(new.number, &before.value, before.version)?.content);
                }
                let mut part = Part {
                    number: new.number,
                    md5: new.md5,
                    checksum: new.checksum.clone(),
                    size: new.size,
                    modified_ms: edit.now_ms(),
                    content: new.content.content.clone(),
                    seam: Vec::new(),
                    state: new.state.clone(),
                    row: Version::default(),
                };
                edit.batch.put(row, part.encode());
                Ok(edit.commit()?.map(|row| {
                    part.row = row;
                    part
                }))
            })
            .map_err(|error| self.told(error, upload))
    }

    /// Changes what is known of the seams of some parts, all in one commit; each must still be as it was read.
    ///
    /// - `fence`: taken before the chunks of the seams were found to be there, or sent.
    /// - Errors: [`Error::NoUpload`], [`Error::NoBucket`], [`Error::FenceMoved`], [`Error::TooLarge`].
    pub fn change_parts(&self, upload: &Upload, changes: &[PartChange], fence: &Fence) -> Result<PartsChanged> {
        for change in changes {
            within("seam", change.seam.len(), SEAM_CHUNKS_MAX)?;
            within("state of a part", change.state.len(), PART_STATE_LEN_MAX)?;
        }
        self.objects()
            .change(|bucket| {
                let mut edit = Edit::new(self.names, bucket);
                edit.fence(fence);
                self.depend(&mut edit, bucket, upload);
                for change in changes {
                    let at = rows::part(&bucket.tenant, &upload.id, change.number);
                    let row = self.names.kv.get(&at)?;
                    let Some(row) = row.filter(|row| row.version == change.row) else {
                        // Or the whole upload has ended.
                        self.get(&upload.key, upload.id)?;
                        return Ok(Ok(PartsChanged::Stale));
                    };
                    let mut part = Part::decode(change.number, &row.value, row.version)?;
                    (part.seam, part.state) = (change.seam.clone(), change.state.clone());
                    edit.check(Guard::Rows, at.clone(), Check::Version(row.version));
                    edit.batch.put(at, part.encode());
                }
                Ok(edit.commit()?.map(|_| PartsChanged::Done))
            })
            .map_err(|error| self.told(error, upload))
    }

    /// A part.
    pub fn part(&self, upload: &Upload, number: PartNumber) -> Result<Option<Part>> {
        let row = self.names.kv.get(rows::part(&self.bucket.tenant, &upload.id, number))?;
        row.map(|row| Part::decode(number, &row.value, row.version)).transpose()
    }

    /// Parts by number; fewer than `limit` only at the end.
    pub fn parts(&self, upload: &Upload, after: Option<PartNumber>, limit: usize) -> Result<Vec<Part>> {
        let mut range = rows::parts(&self.bucket.tenant, &upload.id).range();
        if let Some(after) = after {
            range = range.after(rows::part(&self.bucket.tenant, &upload.id, after).as_bytes());
        }
        let mut parts = Vec::new();
        let mut rest = Some(range);
        while let Some(range) = rest.filter(|_| parts.len() < limit) {
            let page = self.names.kv.scan(&range, Order::Forward, limit - parts.len())?;
            for (key, row) in page.rows {
                let number = rows::read_part(&self.bucket.tenant, &key)?;
                parts.push(Part::decode(number, &row.value, row.version)?);
            }
            rest = page.rest;
        }
        Ok(parts)
    }

    /// Makes the object, and ends the upload in the same commit.
    ///
    /// - `new`: as it was joined from the parts; what was said when the upload began is the caller's to copy.
    /// - Errors: [`Error::NoUpload`], those of [`Objects::put`].
    pub fn complete(&self, upload: &Upload, new: &NewVersion, condition: &Condition, cause: &Cause) -> Result<Written> {
        let written = self
            .objects()
            .put_with(&upload.key, new, condition, cause, &mut |edit, bucket, written| {
                self.depend(edit, bucket, upload);
                self.end(edit, bucket, &upload.key, &upload.id);
                let object = written.version.object();
                let object = object.ok_or(malformed("completed upload", "it made no object"))?;
                let done = CompletedUpload {
                    version: written.version.id,
                    etag: object.etag.clone(),
                    checksums: object.checksums.clone(),
                    completed_ms: written.version.created_ms(),
                };
                let row = rows::upload_done(&bucket.tenant, bucket.id, &upload.id);
                edit.batch.put(row, done.encode(&upload.key));
                Ok(())
            });
        let written = written.map_err(|error| self.told(error, upload))?;
        // What is not swept now is swept by the collector.
        sweep::sweep_upload(
            self.names.kv.as_ref(),
            &self.bucket.tenant,
            &upload.id,
            self.names.now_ms(),
        )?;
        Ok(written)
    }

    /// What an upload became; `None`: it was not completed, or too long ago.
    pub fn completed(&self, key: &ObjectKey, id: UploadId) -> Result<Option<CompletedUpload>> {
        let row = rows::upload_done(&self.bucket.tenant, self.bucket.id, &id);
        let Some(row) = self.names.kv.get(row)? else {
            return Ok(None);
        };
        let (of, done) = CompletedUpload::decode(&row.value)?;
        Ok((of == *key).then_some(done))
    }

    /// Gives an upload up.
    ///
    /// Errors: [`Error::NoUpload`], [`Error::NoBucket`].
    pub fn abort(&self, key: &ObjectKey, id: UploadId) -> Result<()> {
        self.give_up(key, id, None)
    }

    /// [`Uploads::abort`] of one that nobody has completed in time, which an event tells.
    pub fn expire(&self, key: &ObjectKey, id: UploadId, cause: &Cause) -> Result<()> {
        self.give_up(key, id, Some(cause))
    }

    fn give_up(&self, key: &ObjectKey, id: UploadId, cause: Option<&Cause>) -> Result<()> {
        let upload = self.get(key, id)?;
        self.objects()
            .change(|bucket| {
                let mut edit = Edit::new(self.names, bucket);
                self.depend(&mut edit, bucket, &upload);
                self.end(&mut edit, bucket, key, &id);
                if let Some(cause) = cause {
                    let mut payload = serde_json::Map::new();
                    for (name, word) in [
                        ("bucket", bucket.name.to_string()),
                        ("key", key.to_string()),
                        ("upload_id", id.to_string()),
                    ] {
                        payload.insert(name.to_owned(), word.into());
                    }
                    edit.event("upload.expired", key, cause, payload)?;
                }
                edit.commit()
            })
            .map_err(|error| self.told(error, &upload))?;
        sweep::sweep_upload(self.names.kv.as_ref(), &self.bucket.tenant, &id, self.names.now_ms())
    }

    /// Uploads by key, those of one key by the time at which they began.
    ///
    /// - `after`: behind this upload of a key, whatever [`List::start`] says.
    /// - The next page begins behind the last entry: for an upload its key and id, for a prefix [`super::ListStart::AfterPrefix`].
    pub fn list(
        &self,
        list: &List<'_>,
        after: Option<(&ObjectKey, UploadId)>,
    ) -> Result<(Vec<Listed<ListedUpload>>, More)> {
        let Bucket { tenant, id, .. } = self.bucket;
        let start = rows::in_bucket(tenant, Table::Uploads, *id);
        let mut entries = Vec::new();
        if list.limit == 0 {
            return Ok((entries, More::No));
        }
        let mut range = match after {
            None => range_of(&start, list.prefix, &list.start),
            Some(_) => range_of(&start, list.prefix, &super::ListStart::Beginning),
        };
        if let Some((key, upload)) = after {
            range = range.after(rows::upload(tenant, *id, key, &upload).as_bytes());
        }
        let kv: &dyn View = self.names.kv.as_ref();
        let mut stream = Stream::new(kv, range, list.limit.saturating_add(1));
        while let Some((row_key, _)) = stream.peek()? {
            if entries.len() == list.limit {
                return Ok((entries, More::Yes));
            }
            let (key, upload) = rows::read_upload(row_key, &start)?;
            if let Some(prefix) = common_prefix(key.as_str(), list.prefix, list.delimiter) {
                stream.skip_to(&behind_prefix(&start, prefix));
                entries.push(Listed::Prefix(prefix.to_owned()));
            } else if let Some((_, row)) = stream.take() {
                let record = UploadRecord::decode(&row.value)?;
                entries.push(Listed::Item(ListedUpload {
                    key,
                    id: upload,
                    record,
                }));
            }
        }
        Ok((entries, More::No))
    }

    fn objects(&self) -> Objects<'_> {
        self.names.objects(self.bucket)
    }

    /// Has a change depend on the upload going on.
    fn depend(&self, edit: &mut Edit<'_>, bucket: &Bucket, upload: &Upload) {
        let row = rows::upload(&bucket.tenant, bucket.id, &upload.key, &upload.id);
        edit.check(Guard::Upload, row, Check::Version(upload.row));
    }

    fn end(&self, edit: &mut Edit<'_>, bucket: &Bucket, key: &ObjectKey, id: &UploadId) {
        edit.batch.delete(rows::upload(&bucket.tenant, bucket.id, key, id));
        edit.batch.put(rows::upload_ended(&bucket.tenant, id), Vec::new());
    }

    /// An error in the words of an upload.
    fn told(&self, error: Error, upload: &Upload) -> Error {
        match error {
            Error::UploadEnded => self.no_upload(&upload.key, upload.id),
            error => error,
        }
    }

    fn no_upload(&self, key: &ObjectKey, id: UploadId) -> Error {
        Error::NoUpload {
            bucket: self.bucket.name.to_string(),
            key: key.to_string(),
            upload: id.to_string(),
        }
    }
}

/// Whether a listing goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    /// It does.
    Yes,
    /// That was all.
    No,
}

// Those of headers, metadata and tags (`version.rs`) lie between.
const CONTENT: u8 = 1;
const OWNER: u8 = 2;
const SIZE: u8 = 3;
const CHECKSUM: u8 = 22;
const STORAGE_CLASS: u8 = 26;
const CHECKSUM_RULE: u8 = 40;
const SEAM: u8 = 41;
const MD5: u8 = 42;
const MODIFIED: u8 = 43;
const STATE: u8 = 44;
const KEY: u8 = 45;
const VERSION: u8 = 46;
const ETAG: u8 = 47;
