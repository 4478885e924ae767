//! PutObject: bytes are decoded, cut and stored as they come; the object is named when all of its promises are kept.

use std::sync::Arc;

use bytes::Bytes;
use cairn_identity::Permit;
use cairn_index::names::{Bucket, EtagKind, Headers, NewVersion, StorageClass, Versioning, Written};
use cairn_index::{DigestsWanted, IngestCounts, ObjectWriter, Objects};
use cairn_roots::Body;
use http::{Response, StatusCode};
use hyper::body::Body as HttpBody;

use crate::s3::body::{Arriving, Incoming, Promise, consume};
use crate::s3::checksum::Algorithm;
use crate::s3::condition;
use crate::s3::error::{Code, S3Result};
use crate::s3::metadata::Metadata;
use crate::s3::ops::delete::{condition_of, conflict};
use crate::s3::ops::find::show_checksum;
use crate::s3::request::{Ask, empty, owner_of, set};
use crate::s3::service::Core;
use crate::s3::tagging;

/// Content that is arriving at a bucket.
pub(in crate::s3) struct Arrival {
    objects: Arc<Objects>,
    bucket: Arc<Bucket>,
    arriving: Arriving,
    /// The check sum that is kept.
    kept: Algorithm,
    wanted: DigestsWanted,
    /// From the first bytes on.
    writer: Option<ObjectWriter>,
    is_part: bool,
}

impl Arrival {
    /// - `kept`: the check sum that is kept where the client announced none.
    pub(in crate::s3) fn new(core: &Core, bucket: Arc<Bucket>, promise: Promise, kept: Algorithm) -> Self {
        let algorithms = promise.wanted(kept);
        Self {
            objects: core.objects(),
            wanted: DigestsWanted {
                md5: bucket.record.settings.etag == EtagKind::Md5 || promise.md5().is_some(),
                checksums: algorithms.into_iter().map(Algorithm::to_formats).collect(),
            },
            bucket,
            arriving: promise.arrive(core.bodies()),
            kept,
            writer: None,
            is_part: false,
        }
    }

    /// Content of a part, which has an MD5 whatever the bucket's settings are.
    pub(in crate::s3) fn of_part(mut self) -> Self {
        self.is_part = true;
        self.wanted.md5 = true;
        self
    }

    pub(in crate::s3) fn take(&mut self, pieces: Vec<Bytes>) -> S3Result<()> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            empty if self.is_part => empty.insert(self.objects.part_writer(&self.bucket, &self.wanted)?),
            empty => empty.insert(self.objects.writer(&self.bucket, &self.wanted)?),
        };
        let mut decoded = Vec::new();
        for piece in pieces {
            self.arriving.decode(piece, |bytes| decoded.push(bytes))?;
        }
        for bytes in decoded {
            writer.push(&bytes)?;
        }
        Ok(())
    }

    /// All has come, and is compared with what was promised of it: the content, and which check sum of it is kept.
    pub(in crate::s3) fn finish(self) -> S3Result<(cairn_index::Body, Algorithm)> {
        let arrived = self.arriving.finish()?;
        let body = self.writer.ok_or(Code::InternalError)?.finish()?;
        let digested = body.digested();
        arrived.compare(digested.md5, |algorithm| {
            let found = digested.checksum(algorithm.to_formats());
            found.map(|checksum| checksum.as_bytes().to_vec())
        })?;
        count(body.counts());
        Ok((body, self.kept))
    }
}

fn count(counts: &IngestCounts) {
    let IngestCounts {
        bytes,
        chunks,
        new_chunks,
        new_bytes,
        stored_bytes,
    } = *counts;
    for (what, bytes) in [("received", bytes), ("new", new_bytes), ("stored", stored_bytes)] {
        metrics::counter!("s3_ingest_bytes_total", "what" => what).increment(bytes);
    }
    for (what, chunks) in [("cut", chunks), ("new", new_chunks)] {
        metrics::counter!("s3_ingest_chunks_total", "what" => what).increment(chunks);
    }
}

/// The content headers and the like of a request, as rows have them.
pub(in crate::s3) fn headers_of(metadata: &Metadata) -> Headers {
    let text = |name: &str| {
        let found = metadata.headers.iter().find(|(own, _)| *own == name);
        found.map(|(_, value)| value.clone())
    };
    Headers {
        content_type: text("content-type"),
        content_encoding: text("content-encoding"),
        content_language: text("content-language"),
        content_disposition: text("content-disposition"),
        cache_control: text("cache-control"),
        expires: text("expires"),
        website_redirect: text("x-amz-website-redirect-location"),
    }
}

pub(in crate::s3) fn storage_class_of(metadata: &Metadata) -> StorageClass {
    match metadata.storage_class {
        None => StorageClass::Standard,
        Some(_) => StorageClass::ReducedRedundancy,
    }
}

/// Tags of the header `x-amz-tagging`.
pub(in crate::s3) fn tags_of(ask: &Ask) -> S3Result<tagging::Tags> {
    ask.header("x-amz-tagging").map_or(Ok(Vec::new()), tagging::of_header)
}

/// PutObject.
pub(in crate::s3) async fn put<B>(
    core: &Core,
    permit: Permit,
    mut ask: Ask,
    body: Incoming<B>,
) -> S3Result<Response<Body>>
where
    B: HttpBody<Data = Bytes, Error: std::fmt::Display> + Unpin,
{
    let metadata = Metadata::read(&ask.headers)?;
    let tags = tags_of(&ask)?;
    let condition = condition_of(condition::of_write(&ask.headers)?)?;
    let (bucket, key) = (ask.bucket()?, ask.key()?);
    let (owner, cause) = (owner_of(permit.user())?, ask.cause(permit.user()));
    let promise = ask.promise()?;
    let kept = promise.announced.algorithm().unwrap_or(Algorithm::Crc64Nvme);
    let arrival = Arrival::new(core, bucket, promise, kept);
    let end = move |arrival: Arrival| -> S3Result<Written> {
        let (body, kept) = arrival.finish()?;
        let describe = |new: &mut NewVersion| {
            let record = &mut new.record;
            record.headers = headers_of(&metadata);
            record.storage_class = storage_class_of(&metadata);
            record.metadata = metadata.user;
            record.tags = tags;
            // Others were worked out to be compared with.
            record
                .checksums
                .retain(|checksum| Algorithm::of(checksum.algorithm()) == kept);
        };
        body.put(&key, &owner, describe, &condition, &cause)
            .map_err(conflict(&condition))
    };
    let written = consume(core.pool(), body, arrival, Arrival::take, end).await?;
    let mut response = empty(StatusCode::OK);
    let headers = response.headers_mut();
    if let Some(record) = written.version.object() {
        set(headers, "etag", format!("\"{}\"", record.etag));
        show_checksum(headers, record);
    }
    show_written(headers, &written);
    Ok(response)
}

/// The version's id where the bucket keeps versions.
pub(in crate::s3) fn show_written(headers: &mut http::HeaderMap, written: &Written) {
    if written.versioning != Versioning::Unset {
        set(headers, "x-amz-version-id", written.version.id.to_string());
    }
}
