//! Keys of the rows of names: the only place where they are made and taken apart.
//!
//! | table | key behind tenant and table | value |
//! |---|---|---|
//! | Buckets | name | `bucket.rs` |
//! | BucketNames (of the index) | name | tenant |
//! | BucketsGone | bucket u64 | |
//! | Objects, Markers | bucket u64, key | `version.rs` |
//! | Versions | bucket u64, key, order u64 inverted: newest first | `version.rs` |
//! | NullVersions | bucket u64, key | order u64 |
//! | InlineChunks | domain u32, chunk id, bucket u64, key, order u64 | |
//! | PartLists | id of 16 bytes, page u32 | parts |
//! | Uploads | bucket u64, key, upload's id | `uploads.rs` |
//! | Parts | upload's id, number u32 | `uploads.rs` |
//! | UploadsEnded | upload's id | |
//! | UploadsDone | bucket u64, upload's id | `uploads.rs` |
//! | AccessKeys (of the index) | id | `access_keys.rs` |
//! | TenantKeys | id of an access key | |
//! | Outbox | shard u8, position u64 | `event.rs` |
//! | OutboxEnds | shard u8 | counter: the last position |
//! | OutboxCursors | consumer (none: what has left), shard u8 | position u64 |
//! | Usage | bucket u64 (0: all of the tenant), what u8 | counter |
//! | Blobs | bucket u64, what is named and its name (`blob_key.rs`) | day of the last use u32 |
//! | BlobContents | as Blobs | `blobs.rs` |
//! | Digests | function u8, digest of 32 bytes, name of the bucket, key | |
//! | Shown (of the index) | name of the bucket | tenant |
//! | Undigested (of the index) | tenant, name of the bucket, key | |

use cairn_formats::{ChunkId, DomainId};
use cairn_store::ChunkKey;

use super::access_keys::AccessKeyId;
use super::blob_key::BlobKey;
use super::bucket::BucketId;
use super::ids::{PartNumber, UploadId, VersionOrder};
use super::name::{BucketName, ObjectKey};
use super::whole_digest::{DigestFunction, ObjectDigest};
use crate::{Error, Key, KeyReader, Result, Table, Tenant};

pub(super) fn bucket(tenant: &Tenant, name: &BucketName) -> Key {
    Key::of(tenant, Table::Buckets).bytes(name.as_str().as_bytes())
}

pub(super) fn bucket_name(name: &BucketName) -> Key {
    Key::of_index(Table::BucketNames).bytes(name.as_str().as_bytes())
}

pub(super) fn bucket_gone(tenant: &Tenant, id: BucketId) -> Key {
    Key::of(tenant, Table::BucketsGone).u64(id)
}

/// What all keys of a bucket in a table begin with.
pub(super) fn in_bucket(tenant: &Tenant, table: Table, id: BucketId) -> Key {
    Key::of(tenant, table).u64(id)
}

/// A row of a key in `Objects`, `Markers` or `NullVersions`; what all of its rows in `Versions` begin with.
pub(super) fn of_key(tenant: &Tenant, table: Table, id: BucketId, key: &ObjectKey) -> Key {
    in_bucket(tenant, table, id).bytes(key.as_str().as_bytes())
}

pub(super) fn version(tenant: &Tenant, id: BucketId, key: &ObjectKey, order: VersionOrder) -> Key {
    of_key(tenant, Table::Versions, id, key).u64(!order.0)
}

/// Takes the rest of a key apart that begins with [`in_bucket`] of this length: the object's key, and the order in `Versions`.
pub(super) fn read_of_key(key: &[u8], start: &Key, ordered: bool) -> Result<(ObjectKey, Option<VersionOrder>)> {
    let rest = key.get(start.as_bytes().len()..).unwrap_or_default();
    let mut reader = KeyReader::new(rest);
    let name = reader.bytes()?;
    let order = ordered.then(|| reader.u64()).transpose()?;
    reader.end()?;
    let name = String::from_utf8(name).map_err(|_| malformed("an object's key is no text"))?;
    Ok((ObjectKey::new(name)?, order.map(|order| VersionOrder(!order))))
}

/// What the rows of all objects begin with that hold a chunk within them.
pub(super) fn inline_chunk(tenant: &Tenant, chunk: &ChunkKey) -> Key {
    Key::of(tenant, Table::InlineChunks)
        .u32(chunk.domain.0)
        .fixed(chunk.id.as_bytes())
}

pub(super) fn inline_holder(
    tenant: &Tenant,
    chunk: &ChunkKey,
    id: BucketId,
    key: &ObjectKey,
    order: VersionOrder,
) -> Key {
    let start = inline_chunk(tenant, chunk);
    start.u64(id).bytes(key.as_str().as_bytes()).u64(order.0)
}

/// Takes a key of [`inline_holder`] apart.
pub(super) fn read_inline_holder(tenant: &Tenant, key: &[u8]) -> Result<(ChunkKey, BucketId, ObjectKey, VersionOrder)> {
    let mut reader = KeyReader::of(key, tenant, Table::InlineChunks)?;
    let chunk = ChunkKey {
        domain: DomainId(reader.u32()?),
        id: ChunkId::from_bytes(reader.fixed()?),
    };
    let id = reader.u64()?;
    let name = String::from_utf8(reader.bytes()?).map_err(|_| malformed("an object's key is no text"))?;
    let order = VersionOrder(reader.u64()?);
    reader.end()?;
    Ok((chunk, id, ObjectKey::new(name)?, order))
}

pub(super) fn part_list(tenant: &Tenant, id: &[u8; 16], page: u32) -> Key {
    Key::of(tenant, Table::PartLists).fixed(id).u32(page)
}

pub(super) fn upload(tenant: &Tenant, id: BucketId, key: &ObjectKey, upload: &UploadId) -> Key {
    of_key(tenant, Table::Uploads, id, key).fixed(upload.as_bytes())
}

/// Takes the rest of a key of [`upload`] apart.
pub(super) fn read_upload(key: &[u8], start: &Key) -> Result<(ObjectKey, UploadId)> {
    let mut reader = KeyReader::new(key.get(start.as_bytes().len()..).unwrap_or_default());
    let name = String::from_utf8(reader.bytes()?).map_err(|_| malformed("an object's key is no text"))?;
    let upload = UploadId::from_bytes(reader.fixed()?);
    reader.end()?;
    Ok((ObjectKey::new(name)?, upload))
}

/// What the parts of an upload begin with.
pub(super) fn parts(tenant: &Tenant, upload: &UploadId) -> Key {
    Key::of(tenant, Table::Parts).fixed(upload.as_bytes())
}

pub(super) fn part(tenant: &Tenant, upload: &UploadId, number: PartNumber) -> Key {
    parts(tenant, upload).u32(u32::from(number.get()))
}

/// Takes a key of [`part`] apart.
pub(super) fn read_part(tenant: &Tenant, key: &[u8]) -> Result<PartNumber> {
    let mut reader = KeyReader::of(key, tenant, Table::Parts)?;
    let _upload: [u8; 20] = reader.fixed()?;
    let number = PartNumber::new(u64::from(reader.u32()?));
    reader.end()?;
    number.ok_or(malformed("a part's number is out of range"))
}

pub(super) fn upload_ended(tenant: &Tenant, upload: &UploadId) -> Key {
    Key::of(tenant, Table::UploadsEnded).fixed(upload.as_bytes())
}

pub(super) fn upload_done(tenant: &Tenant, id: BucketId, upload: &UploadId) -> Key {
    Key::of(tenant, Table::UploadsDone).u64(id).fixed(upload.as_bytes())
}

/// What is counted. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Counted {
    /// Objects that are read when no version is named.
    Objects = 1,
    /// All versions, delete markers included.
    Versions = 2,
    /// Bytes of all versions.
    Bytes = 3,
}

/// A counter of a bucket, or of all of a tenant's.
pub(super) fn usage(tenant: &Tenant, id: Option<BucketId>, counted: Counted) -> Key {
    // Ids of buckets are not 0.
    Key::of(tenant, Table::Usage).u64(id.unwrap_or(0)).byte(counted as u8)
}

/// What the events of a shard begin with.
pub(super) fn events(tenant: &Tenant, shard: u8) -> Key {
    Key::of(tenant, Table::Outbox).byte(shard)
}

/// The position of the last event of a shard.
pub(super) fn events_end(tenant: &Tenant, shard: u8) -> Key {
    Key::of(tenant, Table::OutboxEnds).byte(shard)
}

/// Takes a key of an event apart: its position.
pub(super) fn read_event(tenant: &Tenant, key: &[u8]) -> Result<u64> {
    let mut reader = KeyReader::of(key, tenant, Table::Outbox)?;
    let _shard = reader.byte()?;
    let position = reader.u64()?;
    reader.end()?;
    Ok(position)
}

/// How far a consumer has come in a shard; without a name: what has left.
pub(super) fn cursor(tenant: &Tenant, consumer: &str, shard: u8) -> Key {
    Key::of(tenant, Table::OutboxCursors)
        .bytes(consumer.as_bytes())
        .byte(shard)
}

/// The row of a blob in `Blobs` or `BlobContents`.
pub(super) fn blob(tenant: &Tenant, table: Table, id: BucketId, blob: &BlobKey) -> Key {
    blob.append_to(in_bucket(tenant, table, id))
}

/// The row that each removal of blobs writes.
pub(super) fn blobs_removed(tenant: &Tenant) -> Key {
    Key::of(tenant, Table::BlobsRemoved)
}

/// The row in `BlobContents` of a blob whose row in `Blobs` has this key.
pub(super) fn blob_content(tenant: &Tenant, key: &[u8]) -> Key {
    let behind = Key::of(tenant, Table::Blobs).as_bytes().len();
    Key::of(tenant, Table::BlobContents).rest_of(key.get(behind..).unwrap_or_default())
}

/// What the rows of all objects of a digest begin with.
pub(super) fn digest(tenant: &Tenant, digest: &ObjectDigest) -> Key {
    Key::of(tenant, Table::Digests)
        .byte(digest.function as u8)
        .fixed(&digest.bytes)
}

/// What those of a bucket begin with; the object's key follows.
pub(super) fn digest_in(tenant: &Tenant, of: &ObjectDigest, bucket: &BucketName) -> Key {
    digest(tenant, of).bytes(bucket.as_str().as_bytes())
}

/// Takes the row of an object under its digest apart.
pub(super) fn read_digest(tenant: &Tenant, key: &[u8]) -> Result<(ObjectDigest, BucketName, ObjectKey)> {
    let mut reader = KeyReader::of(key, tenant, Table::Digests)?;
    let function = reader.byte()?;
    let function = DigestFunction::ALL.into_iter().find(|known| *known as u8 == function);
    let digest = ObjectDigest {
        function: function.ok_or(malformed("its digest is of a later release"))?,
        bytes: reader.fixed()?,
    };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|_| malformed("a name in it is no text"));
    let (bucket, name) = (text(reader.bytes()?)?, text(reader.bytes()?)?);
    reader.end()?;
    Ok((digest, BucketName::new(&bucket)?, ObjectKey::new(name)?))
}

/// The row of a bucket that shows something to everybody.
pub(super) fn shown(name: &BucketName) -> Key {
    Key::of_index(Table::Shown).bytes(name.as_str().as_bytes())
}

/// Takes a key of [`shown`] apart.
pub(super) fn read_shown(key: &[u8]) -> Result<BucketName> {
    let start = Key::of_index(Table::Shown);
    let mut reader = KeyReader::new(key.get(start.as_bytes().len()..).unwrap_or_default());
    let name = String::from_utf8(reader.bytes()?).map_err(|_| malformed("a name in it is no text"))?;
    reader.end()?;
    BucketName::new(&name)
}

/// The row of an object that lacks a digest.
pub(super) fn undigested(tenant: &Tenant, bucket: &BucketName, key: &ObjectKey) -> Key {
    Key::of_index(Table::Undigested)
        .bytes(tenant.as_str().as_bytes())
        .bytes(bucket.as_str().as_bytes())
        .bytes(key.as_str().as_bytes())
}

/// Takes a key of [`undigested`] apart.
pub(super) fn read_undigested(key: &[u8]) -> Result<(Tenant, BucketName, ObjectKey)> {
    let start = Key::of_index(Table::Undigested);
    let mut reader = KeyReader::new(key.get(start.as_bytes().len()..).unwrap_or_default());
    let mut text = || String::from_utf8(reader.bytes()?).map_err(|_| malformed("a name in it is no text"));
    let (tenant, bucket, name) = (text()?, text()?, text()?);
    reader.end()?;
    Ok((Tenant::new(&tenant)?, BucketName::new(&bucket)?, ObjectKey::new(name)?))
}

pub(super) fn access_key(id: &AccessKeyId) -> Key {
    Key::of_index(Table::AccessKeys).bytes(id.as_str().as_bytes())
}

pub(super) fn tenant_key(tenant: &Tenant, id: &AccessKeyId) -> Key {
    Key::of(tenant, Table::TenantKeys).bytes(id.as_str().as_bytes())
}

/// Takes a key of [`tenant_key`] apart.
pub(super) fn read_tenant_key(tenant: &Tenant, key: &[u8]) -> Result<AccessKeyId> {
    let mut reader = KeyReader::of(key, tenant, Table::TenantKeys)?;
    let id = String::from_utf8(reader.bytes()?).map_err(|_| malformed("an access key's id is no text"))?;
    reader.end()?;
    AccessKeyId::new(&id)
}

fn malformed(reason: &'static str) -> Error {
    Error::Malformed { what: "key", reason }
}
