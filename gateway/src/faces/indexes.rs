//! The chunk index of an object, and an object by its chunk index.
//!
//! `{key}.caibx` is the index of object `key`, `{stem}.caidx` that of the archive `{stem}.catar`. An object whose own key is that
//! name wins: it is answered as it is, and no index is put in its place.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use cairn_formats::{ArchiveDecoder, ArchiveLimits, ChunkIndex, Dialect, FeatureFlags, PULL_INDEX_LEN_MAX, Step};
use cairn_identity::{Permit, User};
use cairn_index::names::{
    Bucket, Cause, ChunkerKind, Condition, Current, ObjectKey, ObjectVersion, Owner, Versioning, Written,
};
use cairn_index::{Error, Objects};
use cairn_roots::{Body, Upload, missing_words, reply};
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, LAST_MODIFIED};
use http::{HeaderValue, Method, Response, StatusCode};

use super::{Answer, Ask, Core, Refused};
use crate::date;
use crate::s3::condition::{self, Held, Verdict};
use crate::s3::content::{ContentBody, Pieces};
use crate::s3::error::{Code, S3Result};
use crate::s3::uri;

/// Bytes of an object at most, as S3 has it: an index may name one chunk any number of times.
const OBJECT_LEN_MAX: u64 = 5 << 40;
/// Bytes of an archive's start that tell its flags.
const ARCHIVE_HEAD_LEN: u64 = 4096;

/// Of what an index is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Blob,
    Archive,
}

/// The name of an index, and the object that it is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IndexName {
    /// An object may have this key itself; `None`: it is too long for one.
    own: Option<ObjectKey>,
    object: ObjectKey,
    kind: Kind,
}

impl IndexName {
    /// - `path`: behind the bucket's name, as it came, with its `/`.
    pub(super) fn parse(path: &str) -> Answer<Self> {
        let name = uri::decode(path.strip_prefix('/').unwrap_or(path))?;
        let (object, kind) = if let Some(object) = name.strip_suffix(".caibx") {
            (object.to_owned(), Kind::Blob)
        } else if let Some(stem) = name.strip_suffix(".caidx").filter(|stem| !stem.is_empty()) {
            (format!("{stem}.catar"), Kind::Archive)
        } else {
            return Err(Refused::words(
                StatusCode::BAD_REQUEST,
                "the path is /index/{bucket}/{key}.caibx, or /index/{bucket}/{stem}.caidx for the archive {stem}.catar",
            ));
        };
        uri::check_key(&object)?;
        Ok(Self {
            own: ObjectKey::new(name).ok(),
            object: ObjectKey::new(object)?,
            kind,
        })
    }

    /// The object's key.
    pub(super) fn object(&self) -> &ObjectKey {
        &self.object
    }
}

/// What is answered.
struct Found {
    version: ObjectVersion,
    etag: String,
    len: u64,
    pieces: Pieces,
}

/// GET and HEAD of an index.
pub(super) async fn get(core: &Core, _permit: Permit, ask: Ask, name: IndexName) -> Answer<Response<Body>> {
    let (objects, bucket) = (Arc::clone(&core.objects), Arc::clone(&ask.bucket));
    let found = core.pool.run(move || find(&objects, &bucket, &name)).await??;
    let held = Held {
        etag: &found.etag,
        modified: found.version.created_ms() / 1000,
        now: seconds(),
    };
    let mut response = match condition::of_read(ask.request.headers(), held) {
        Verdict::Failed(_) => return Err(Code::PreconditionFailed.into()),
        Verdict::NotModified => reply(StatusCode::NOT_MODIFIED, Body::empty()),
        Verdict::Go if *ask.request.method() == Method::HEAD => {
            let mut response = reply(StatusCode::OK, Body::empty());
            response.headers_mut().insert(CONTENT_LENGTH, found.len.into());
            response
        }
        Verdict::Go => {
            let pieces = found.pieces;
            let body = ContentBody::begin(&core.pool, move || Ok(pieces), found.len).await?;
            reply(StatusCode::OK, body)
        }
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    insert(headers, ETAG, format!("\"{}\"", found.etag));
    insert(headers, LAST_MODIFIED, date::http(found.version.created_ms()));
    Ok(response)
}

/// An index, and those of its chunks that its reader lacks.
pub(super) async fn cut(core: &Core, _permit: Permit, ask: Ask, name: IndexName) -> Answer<Response<Body>> {
    let (objects, bucket) = (Arc::clone(&core.objects), Arc::clone(&ask.bucket));
    let read = core.pool.run(move || -> S3Result<Answer<(String, Bytes)>> {
        let found = match find(&objects, &bucket, &name)? {
            Ok(found) => found,
            Err(refused) => return Ok(Err(refused)),
        };
        let len = usize::try_from(found.len).unwrap_or(usize::MAX);
        if len > PULL_INDEX_LEN_MAX {
            return Ok(Err(Refused::words(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the index is longer than 16 MiB: get it, and ask for its chunks",
            )));
        }
        let mut bytes = Vec::with_capacity(len);
        for piece in found.pieces {
            bytes.extend_from_slice(&piece?);
        }
        Ok(Ok((found.etag, bytes.into())))
    });
    let (etag, index) = read.await??;
    let root = core.roots.of(core, &ask.bucket);
    let mut response = root.answer_index(ask.request, index).await;
    if response.status().is_success() {
        insert(response.headers_mut(), ETAG, format!("\"{etag}\""));
    }
    Ok(response)
}

fn find(objects: &Objects, bucket: &Bucket, name: &IndexName) -> S3Result<Answer<Found>> {
    let rows = objects.names().objects(bucket);
    if let Some(own) = &name.own
        && let Current::Object(version) = rows.get(own)?
        && let Some(record) = version.object()
    {
        let (etag, len) = (record.etag.as_str().to_owned(), record.size);
        let pieces: Pieces = Box::new(objects.read(bucket.tenant(), &record.content, 0..len)?);
        return Ok(Ok(Found {
            version: *version,
            etag,
            len,
            pieces,
        }));
    }
    let Current::Object(version) = rows.get(&name.object)? else {
        return Ok(Err(Code::NoSuchKey.into()));
    };
    let record = version.object().ok_or(Code::NoSuchKey)?;
    let (flags, suffix) = match name.kind {
        Kind::Blob => (None, "caibx"),
        Kind::Archive => match archive_flags(objects, bucket, &version)? {
            Some(flags) => (Some(flags), "caidx"),
            None => {
                return Ok(Err(Refused::words(
                    StatusCode::NOT_FOUND,
                    "the object is no archive; as a blob its index ends in .catar.caibx",
                )));
            }
        },
    };
    let pieces = objects.index_pieces(bucket.tenant(), record, flags);
    let (etag, len) = (format!("{}-{suffix}", record.etag), pieces.byte_len());
    Ok(Ok(Found {
        etag,
        len,
        pieces: Box::new(pieces),
        version: *version,
    }))
}

/// The flags that an object's archive begins with, which are those of its index; `None`: it is none.
fn archive_flags(objects: &Objects, bucket: &Bucket, version: &ObjectVersion) -> S3Result<Option<FeatureFlags>> {
    let Some(record) = version.object() else {
        return Ok(None);
    };
    let mut decoder = ArchiveDecoder::new(ArchiveLimits::default());
    for piece in objects.read(bucket.tenant(), &record.content, 0..ARCHIVE_HEAD_LEN)? {
        decoder.push(piece?);
    }
    match decoder.next() {
        Ok(Step::Enter { .. }) => Ok(decoder.flags()),
        _ => Ok(None),
    }
}

/// PUT of an index, which makes the object.
pub(super) async fn put(core: &Core, permit: Permit, ask: Ask, name: IndexName) -> Answer<Response<Body>> {
    let (head, body) = ask.request.into_parts();
    let condition = condition::of_write(&head.headers)?.for_index();
    let upload = match Upload::read(&head.headers, body, core.options.index_len_max, &core.workers).await {
        Ok(upload) => upload,
        Err(answer) => return Ok(answer),
    };
    let (objects, bucket) = (Arc::clone(&core.objects), ask.bucket);
    let written = core
        .pool
        .run(move || -> S3Result<Answer<Written>> {
            Ok(make(&objects, &bucket, &name, &upload, permit.user(), &condition))
        })
        .await??;
    let mut response = reply(StatusCode::OK, Body::empty());
    let headers = response.headers_mut();
    if let Some(record) = written.version.object() {
        insert(headers, ETAG, format!("\"{}\"", record.etag));
    }
    if written.versioning != Versioning::Unset {
        let name = http::HeaderName::from_static("x-amz-version-id");
        insert(headers, name, written.version.id.to_string());
    }
    Ok(response)
}

/// Makes the object of an index that has come in whole.
fn make(
    objects: &Arc<Objects>,
    bucket: &Bucket,
    name: &IndexName,
    upload: &Upload,
    user: &User,
    condition: &Condition,
) -> Answer<Written> {
    let index = ChunkIndex::parse(upload.bytes.clone())
        .map_err(|error| Refused::words(StatusCode::UNSUPPORTED_MEDIA_TYPE, error.to_string()))?;
    if index.blob_len() > OBJECT_LEN_MAX {
        return Err(Code::EntityTooLarge.into());
    }
    if let Some(own) = &name.own
        && let Current::Object(_) = objects.names().objects(bucket).get(own)?
    {
        let words = format!(
            "an object of the key {:?} is in the bucket, and would be answered in place of this index; delete it, or choose \
             another name",
            own.as_str()
        );
        return Err(Refused::words(StatusCode::CONFLICT, words));
    }
    let kind = match (name.kind, index.flags().dialect()) {
        (Kind::Blob, Dialect::Desync) => ChunkerKind::Desync,
        _ => ChunkerKind::Casync,
    };
    let owner = Owner::new(&user.id)?;
    let cause = Cause {
        source: "api".to_owned(),
        actor: Some(user.id.clone()),
        trace_id: None,
    };
    let written = objects
        .body_of_index(bucket, &index, kind)
        .and_then(|body| body.put(&name.object, &owner, |_| {}, condition, &cause));
    written.map_err(|error| match error {
        Error::ChunksMissing { ids } => Refused::words(StatusCode::CONFLICT, missing_words(&ids)),
        error @ (Error::ChunkLength { .. }
        | Error::Malformed {
            what: "chunk index", ..
        }) => Refused::words(StatusCode::BAD_REQUEST, format!("the index is wrong: {error}")),
        error => error.into(),
    })
}

/// What cannot be a header is left out.
fn insert(headers: &mut HeaderMap, name: http::HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

/// Seconds since 1970 UTC.
fn seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_objects_by_their_endings() {
        let name = |path: &str| {
            let name = IndexName::parse(path).ok()?;
            Some((name.object.as_str().to_owned(), name.kind))
        };
        let blob = |key: &str| Some((key.to_owned(), Kind::Blob));
        assert_eq!(name("/a.caibx"), blob("a"));
        assert_eq!(name("/a/b//c%20%25.tar.caibx"), blob("a/b//c %.tar"));
        assert_eq!(name("/a.caibx.caibx"), blob("a.caibx"));
        assert_eq!(name("/a.catar.caibx"), blob("a.catar"));
        assert_eq!(name("/t.caidx"), Some(("t.catar".to_owned(), Kind::Archive)));
        for path in [
            "/.caibx",
            "/.caidx",
            "/a",
            "/a.caibx/",
            "/",
            "",
            "/%ff.caibx",
            "/a.CAIBX",
        ] {
            assert!(name(path).is_none(), "{path}");
        }
        let long = format!("/{}.caibx", "a".repeat(1024));
        let parsed = IndexName::parse(&long).unwrap();
        assert!(parsed.own.is_none() && parsed.object.as_str().len() == 1024);
        assert!(name(&format!("/{}.caibx", "a".repeat(1025))).is_none());
    }
}
