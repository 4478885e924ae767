//! Uploads in parts: begun, sent, listed, completed, given up.

use std::sync::Arc;

use bytes::Bytes;
use cairn_identity::Permit;
use cairn_index::names::{
    Bucket, Checksum, ChecksumKind, CompletedUpload, Etag, List, Listed, ListedUpload, More, Names, NewVersion,
    ObjectKey, PartNumber, Upload, UploadId, UploadRecord,
};
use cairn_index::{ListedPart, Objects};
use cairn_roots::Body;
use http::{HeaderMap, Response, StatusCode};
use hyper::body::Body as HttpBody;

use crate::s3::body::{Incoming, consume};
use crate::s3::checksum::{Algorithm, Kind, base64};
use crate::s3::document::{self, CompletePart};
use crate::s3::error::{Code, S3Result};
use crate::s3::listing::{self, Asked, Encoding};
use crate::s3::metadata::Metadata;
use crate::s3::ops::delete::{condition_of, conflict};
use crate::s3::ops::write::{Arrival, headers_of, storage_class_of, tags_of};
use crate::s3::request::{Ask, empty, owner_of, set, xml};
use crate::s3::service::Core;
use crate::s3::slow::{self, Asker, Done};
use crate::s3::xml::Writer;
use crate::s3::{condition, date, range};

/// `uploadId`. Errors: `NoSuchUpload` for what is none of ours.
pub(in crate::s3) fn upload_id(ask: &Ask) -> S3Result<UploadId> {
    let text = ask.query.get("uploadId").unwrap_or("");
    UploadId::parse(text).ok_or_else(|| Code::NoSuchUpload.with("UploadId", text))
}

/// What an upload has that says nothing of check sums.
const UNSAID: (Algorithm, Kind) = (Algorithm::Crc64Nvme, Kind::FullObject);

/// What an upload says of check sums; `None`: nothing.
///
/// Errors: `InvalidRequest` for a kind without an algorithm, and for one that the algorithm cannot have.
fn checksum_rule(ask: &Ask) -> S3Result<Option<(Algorithm, Kind)>> {
    let algorithm = ask
        .header("x-amz-checksum-algorithm")
        .map(Algorithm::of_name)
        .transpose()?;
    let kind = ask.header("x-amz-checksum-type").map(Kind::of_name).transpose()?;
    match (algorithm, kind) {
        (None, Some(_)) => Err(Code::ChecksumTypeAlone.into()),
        (None, None) => Ok(None),
        (Some(algorithm @ (Algorithm::Sha1 | Algorithm::Sha256)), Some(Kind::FullObject)) => {
            Err(Code::ChecksumTypeUnfit.with("ChecksumAlgorithm", algorithm.name()))
        }
        (Some(Algorithm::Crc64Nvme), Some(Kind::Composite)) => Err(Code::ChecksumTypeUnfitComposite.into()),
        (Some(algorithm), kind) => Ok(Some((algorithm, kind.unwrap_or(algorithm.default_kind())))),
    }
}

/// CreateMultipartUpload.
pub(in crate::s3) async fn create(core: &Core, permit: Permit, ask: Ask) -> S3Result<Response<Body>> {
    let metadata = Metadata::read(&ask.headers)?;
    let rule = checksum_rule(&ask)?;
    let mut record = UploadRecord::of(owner_of(permit.user())?);
    record.headers = headers_of(&metadata);
    record.storage_class = storage_class_of(&metadata);
    record.metadata = metadata.user;
    record.tags = tags_of(&ask)?;
    record.checksum = rule.map(|(algorithm, kind)| (algorithm.to_index(), kind.to_index()));
    let (names, bucket, key) = (core.names(), ask.bucket()?, ask.key()?);
    let upload = core
        .run(move || Ok(names.uploads(&bucket).begin(&key, record)?))
        .await?;
    let mut document = Writer::root("InitiateMultipartUploadResult");
    document.text("Bucket", ask.target.bucket().unwrap_or(""));
    document.text("Key", ask.target.key().unwrap_or(""));
    document.display("UploadId", upload.id);
    let mut response = xml(document.end("InitiateMultipartUploadResult"));
    let (algorithm, kind) = rule.unwrap_or(UNSAID);
    set(response.headers_mut(), "x-amz-checksum-algorithm", algorithm.name());
    set(response.headers_mut(), "x-amz-checksum-type", kind.name());
    Ok(response)
}

/// Algorithm and kind of an upload's check sums.
fn rule_of(record: &UploadRecord) -> (Algorithm, Kind) {
    let rule = record.checksum;
    rule.map_or(UNSAID, |(algorithm, kind)| (Algorithm::of(algorithm), Kind::of(kind)))
}

/// The algorithm of an upload's check sums.
pub(in crate::s3) fn algorithm_of(upload: &Upload) -> Algorithm {
    rule_of(&upload.record).0
}

/// UploadPart.
pub(in crate::s3) async fn part<B>(
    core: &Core,
    _permit: Permit,
    mut ask: Ask,
    body: Incoming<B>,
) -> S3Result<Response<Body>>
where
    B: HttpBody<Data = Bytes, Error: std::fmt::Display> + Unpin,
{
    let number = part_number(&ask)?;
    let (names, bucket, key, id) = (core.names(), ask.bucket()?, ask.key()?, upload_id(&ask)?);
    let found = Arc::clone(&bucket);
    let upload = core.run(move || Ok(names.uploads(&found).get(&key, id)?)).await?;
    let algorithm = algorithm_of(&upload);
    let promise = ask.promise()?;
    // An upload that said nothing has CRC64NVME, and takes parts that are checked by another sum.
    if promise.announced.algorithm().is_some_and(|own| own != algorithm) && upload.record.checksum.is_some() {
        return Err(Code::PartChecksumMismatch.with("ChecksumAlgorithm", algorithm.name()));
    }
    let arrival = Arrival::new(core, bucket, promise, algorithm).of_part();
    let end = move |arrival: Arrival| {
        let (body, kept) = arrival.finish()?;
        let checksum = body.digested().checksum(kept.to_formats());
        let checksum =
            checksum.and_then(|sum| Checksum::new(kept.to_index(), ChecksumKind::FullObject, sum.as_bytes()));
        Ok(body.put_part(&upload, number, checksum)?)
    };
    let part = consume(core.pool(), body, arrival, Arrival::take, end).await?;
    let mut response = empty(StatusCode::OK);
    let headers = response.headers_mut();
    set(headers, "etag", format!("\"{}\"", Etag::of_md5(&part.md5)));
    if let Some(checksum) = &part.checksum {
        set(
            headers,
            Algorithm::of(checksum.algorithm()).header(),
            base64(checksum.value()),
        );
    }
    Ok(response)
}

/// `partNumber`. Errors: `InvalidArgument`.
pub(in crate::s3) fn part_number(ask: &Ask) -> S3Result<PartNumber> {
    let text = ask.query.get("partNumber").unwrap_or("");
    PartNumber::new(range::part_number(text)?.into()).ok_or_else(|| Code::PartNumberInvalid.into())
}

/// AbortMultipartUpload.
pub(in crate::s3) async fn abort(core: &Core, _permit: Permit, ask: Ask) -> S3Result<Response<Body>> {
    let (names, bucket, key, id) = (core.names(), ask.bucket()?, ask.key()?, upload_id(&ask)?);
    core.run(move || Ok(names.uploads(&bucket).abort(&key, id)?)).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// ListMultipartUploads.
pub(in crate::s3) async fn list(core: &Core, _permit: Permit, ask: Ask) -> S3Result<Response<Body>> {
    let bucket = ask.bucket()?;
    let asked = Asked::read(bucket.name().as_str(), &ask.query, "max-uploads")?;
    let key_marker = ask.query.get("key-marker").unwrap_or("");
    // Without a key marker it says nothing.
    let id_marker = ask.query.filled("upload-id-marker").filter(|_| !key_marker.is_empty());
    let after = match id_marker {
        None => None,
        Some(text) => {
            let id = UploadId::parse(text).ok_or_else(|| Code::InvalidArgument.argument("upload-id-marker", text))?;
            Some((ObjectKey::new(key_marker)?, id))
        }
    };
    let start = asked.start_after(key_marker);
    let (names, listed) = (core.names(), Arc::clone(&bucket));
    let (prefix, delimiter, limit) = (asked.prefix.to_owned(), asked.delimiter.to_owned(), asked.limit);
    let (entries, more) = core
        .run(move || {
            let list = List {
                prefix: &prefix,
                delimiter: &delimiter,
                start,
                limit,
            };
            let after = after.as_ref().map(|(key, id)| (key, *id));
            Ok(names.uploads(&listed).list(&list, after)?)
        })
        .await?;
    let next = entries.last().filter(|_| more == More::Yes).map(|last| match last {
        Listed::Item(upload) => (upload.key.as_str().to_owned(), Some(upload.id)),
        Listed::Prefix(prefix) => (prefix.clone(), None),
    });
    let (uploads, prefixes) = listing::split(entries);

    let mut document = Writer::root("ListMultipartUploadsResult");
    document.text("Bucket", asked.bucket);
    asked.encoding.text(&mut document, "KeyMarker", key_marker);
    document.text("UploadIdMarker", id_marker.unwrap_or(""));
    if let Some((key, id)) = &next {
        asked.encoding.text(&mut document, "NextKeyMarker", key);
        document.text("NextUploadIdMarker", id.map(|id| id.to_string()).unwrap_or_default());
    }
    asked.elements(&mut document, "MaxUploads");
    document.display("IsTruncated", next.is_some());
    for upload in &uploads {
        write_upload(&mut document, asked.encoding, upload);
    }
    for prefix in &prefixes {
        asked.common_prefix(&mut document, prefix);
    }
    Ok(xml(document.end("ListMultipartUploadsResult")))
}

fn write_upload(document: &mut Writer, encoding: Encoding, upload: &ListedUpload) {
    document.open("Upload");
    encoding.text(document, "Key", upload.key.as_str());
    document.display("UploadId", upload.id);
    listing::owner(document, "Initiator", &upload.record.owner);
    listing::owner(document, "Owner", &upload.record.owner);
    document.text("StorageClass", listing::storage_class(upload.record.storage_class));
    document.text("Initiated", date::iso(upload.id.initiated_ms()));
    write_rule(document, &upload.record);
    document.close("Upload");
}

fn write_rule(document: &mut Writer, record: &UploadRecord) {
    let (algorithm, kind) = rule_of(record);
    document.text("ChecksumAlgorithm", algorithm.name());
    document.text("ChecksumType", kind.name());
}

/// ListParts.
pub(in crate::s3) async fn parts(core: &Core, _permit: Permit, ask: Ask) -> S3Result<Response<Body>> {
    let limit = listing::limit(&ask.query, "max-parts")?;
    let marker = match ask.query.filled("part-number-marker") {
        None => 0,
        Some(text) => range::number(text).ok_or_else(|| Code::InvalidArgument.argument("part-number-marker", text))?,
    };
    let encoding = Encoding::read(&ask.query)?;
    let (names, bucket, key, id) = (core.names(), ask.bucket()?, ask.key()?, upload_id(&ask)?);
    let (upload, mut parts) = core
        .run(move || {
            let uploads = names.uploads(&bucket);
            let upload = uploads.get(&key, id)?;
            if marker > u64::from(range::PART_NUMBER_MAX) {
                return Ok((upload, Vec::new()));
            }
            let parts = uploads.parts(&upload, PartNumber::new(marker), limit + 1)?;
            Ok((upload, parts))
        })
        .await?;
    let is_truncated = parts.len() > limit;
    parts.truncate(limit);

    let mut document = Writer::root("ListPartsResult");
    document.text("Bucket", ask.target.bucket().unwrap_or(""));
    encoding.text(&mut document, "Key", upload.key.as_str());
    document.display("UploadId", upload.id);
    listing::owner(&mut document, "Initiator", &upload.record.owner);
    listing::owner(&mut document, "Owner", &upload.record.owner);
    document.text("StorageClass", listing::storage_class(upload.record.storage_class));
    document.display("PartNumberMarker", marker);
    document.display(
        "NextPartNumberMarker",
        parts.last().map_or(marker, |part| part.number.get().into()),
    );
    document.display("MaxParts", limit);
    document.display("IsTruncated", is_truncated);
    write_rule(&mut document, &upload.record);
    for part in &parts {
        document.open("Part");
        document.display("PartNumber", part.number);
        document.text("LastModified", date::iso(part.modified_ms));
        listing::etag(&mut document, Etag::of_md5(&part.md5).as_str());
        document.display("Size", part.size);
        if let Some(checksum) = &part.checksum {
            document.text(Algorithm::of(checksum.algorithm()).element(), base64(checksum.value()));
        }
        document.close("Part");
    }
    Ok(xml(document.end("ListPartsResult")))
}

/// What a request to complete says of the whole.
struct Expected {
    size: Option<u64>,
    checksum: Option<(Algorithm, String)>,
    kind: Option<Kind>,
}

impl Expected {
    fn read(ask: &Ask) -> S3Result<Self> {
        let size = match ask.header("x-amz-mp-object-size") {
            None => None,
            Some(text) => Some(range::number(text).ok_or(Code::MpObjectSizeInvalid)?),
        };
        let mut values = Algorithm::ALL
            .into_iter()
            .filter_map(|algorithm| Some((algorithm, ask.header(algorithm.header())?.to_owned())));
        let checksum = values.next();
        if values.next().is_some() {
            return Err(Code::SeveralChecksums.into());
        }
        Ok(Self {
            size,
            checksum,
            kind: ask.header("x-amz-checksum-type").map(Kind::of_name).transpose()?,
        })
    }

    /// What can be told from the upload and its parts, before anything is done.
    fn compare(&self, upload: &Upload, size: u64, value: Option<&str>) -> S3Result<()> {
        let (algorithm, kind) = rule_of(&upload.record);
        if self.kind.is_some_and(|own| own != kind) {
            return Err(Code::ChecksumTypeMismatch.with("ChecksumType", kind.name()));
        }
        if self.size.is_some_and(|own| own != size) {
            return Err(Code::MpObjectSizeMismatch.into());
        }
        if let Some((own, expected)) = &self.checksum
            && (*own != algorithm || value != Some(expected.as_str()))
        {
            return Err(Code::BadChecksum.with("ChecksumAlgorithm", own.name()));
        }
        Ok(())
    }
}

/// The check sum of the whole that an upload of these parts has. `None`: a part has none.
fn whole_checksum(upload: &Upload, parts: &[cairn_index::names::Part]) -> Option<Vec<u8>> {
    let (algorithm, kind) = rule_of(&upload.record);
    let values: Option<Vec<_>> = parts
        .iter()
        .map(|part| Some((part.checksum.as_ref()?.value().to_vec(), part.size)))
        .collect();
    crate::s3::checksum::join(algorithm, kind, &values?)
}

/// CompleteMultipartUpload.
pub(in crate::s3) async fn complete<B>(
    core: &Core,
    permit: Permit,
    mut ask: Ask,
    body: Incoming<B>,
) -> S3Result<Response<Body>>
where
    B: HttpBody<Data = Bytes, Error: std::fmt::Display> + Unpin,
{
    let condition = condition_of(condition::of_write(&ask.headers)?)?;
    let expected = Expected::read(&ask)?;
    // What it says of the whole is not said of the document.
    for algorithm in Algorithm::ALL {
        ask.headers.remove(algorithm.header());
    }
    let listed = document::complete(&ask.document(body).await?)?;
    let (objects, bucket, key, id) = (core.objects(), ask.bucket()?, ask.key()?, upload_id(&ask)?);
    let cause = ask.cause(permit.user());
    let asker = Asker {
        resource: ask.resource.clone(),
        request_id: ask.request_id.clone(),
        host_id: core.host_id().to_owned(),
    };
    let pool = core.slow_pool().clone();
    let job = move || {
        let names = objects.names();
        let complete = || -> S3Result<CompletedUpload> {
            let upload = names.uploads(&bucket).get(&key, id)?;
            let (parts, unsaid) = check_parts(&objects, &bucket, &upload, &listed, &expected)?;
            let describe = |new: &mut NewVersion| new.record.checksums.extend(unsaid);
            let completed = objects.complete(&bucket, &upload, &parts, describe, &condition, &cause);
            let completed = completed.map_err(conflict(&condition))?;
            metrics::counter!("s3_complete_read_bytes_total").absolute(objects.completion_bytes());
            metrics::counter!("s3_seam_read_bytes_total").absolute(objects.seam_bytes());
            let version = completed.written.version;
            let record = version.object().ok_or(Code::InternalError)?;
            Ok(CompletedUpload {
                version: version.id,
                etag: record.etag.clone(),
                checksums: record.checksums.clone(),
                completed_ms: version.created_ms(),
            })
        };
        let done = match complete() {
            Ok(done) => done,
            // Asked again after success, or at the same time as another: the same answer.
            Err(error) => names.uploads(&bucket).completed(&key, id)?.ok_or(error)?,
        };
        show_completed(names, &bucket, &key, &done)
    };
    let work = async move { pool.run(job).await };
    slow::answer(work, asker, slow::QUIET_MAX).await
}

/// Holds what is listed to what is there: ETags, check sums, sizes; and what is said of the whole. Returns the parts, and the check
/// sum of the whole that nobody asked for.
fn check_parts(
    objects: &Objects,
    bucket: &Bucket,
    upload: &Upload,
    listed: &[CompletePart],
    expected: &Expected,
) -> S3Result<(Vec<ListedPart>, Option<Checksum>)> {
    let there = objects
        .names()
        .uploads(bucket)
        .parts(upload, None, usize::from(range::PART_NUMBER_MAX))?;
    let mut found = Vec::with_capacity(listed.len());
    let mut parts = Vec::with_capacity(listed.len());
    for part in listed {
        let invalid = || {
            Code::InvalidPart
                .with("UploadId", upload.id.to_string())
                .with("PartNumber", part.number.to_string())
                .with("ETag", &part.etag)
        };
        let own = there
            .iter()
            .find(|own| own.number.get() == part.number)
            .ok_or_else(invalid)?;
        if Etag::of_md5(&own.md5).as_str() != part.etag {
            return Err(invalid());
        }
        for (algorithm, value) in &part.checksums {
            let same = own
                .checksum
                .as_ref()
                .is_some_and(|sum| Algorithm::of(sum.algorithm()) == *algorithm && sum.value() == value.as_slice());
            // A part that was checked by another sum than is kept says nothing of it.
            let is_kept = algorithm_of(upload) == *algorithm;
            if is_kept && !same {
                return Err(invalid());
            }
        }
        parts.push(ListedPart {
            number: own.number,
            etag: Some(Etag::of_md5(&own.md5)),
            checksum: None,
        });
        found.push(own.clone());
    }
    let size = found.iter().map(|part| part.size).sum();
    let (algorithm, kind) = rule_of(&upload.record);
    let value = whole_checksum(upload, &found);
    let text = value.as_deref().map(|value| match kind {
        Kind::FullObject => base64(value),
        Kind::Composite => format!("{}-{}", base64(value), found.len()),
    });
    expected.compare(upload, size, text.as_deref())?;
    let unsaid = value.filter(|_| upload.record.checksum.is_none());
    let unsaid = unsaid.and_then(|value| Checksum::new(algorithm.to_index(), kind.to_index(), &value));
    Ok((parts, unsaid))
}

fn show_completed(names: &Names, bucket: &Bucket, key: &ObjectKey, done: &CompletedUpload) -> S3Result<Done> {
    let mut headers = HeaderMap::new();
    if bucket.record.versioning != cairn_index::names::Versioning::Unset {
        set(&mut headers, "x-amz-version-id", done.version.to_string());
    }
    // The number of parts is in the tag, or with the version.
    let count = match done.etag.as_str().rsplit_once('-') {
        Some((_, count)) if count.parse::<u32>().is_ok() => count.to_owned(),
        _ => {
            let version = names.objects(bucket).version(key, done.version)?;
            version.object().map_or(0, |record| record.parts.count()).to_string()
        }
    };
    let name = bucket.name().as_str();
    let mut document = Writer::fragment_root("CompleteMultipartUploadResult");
    document.text(
        "Location",
        format!("/{name}/{}", crate::s3::uri::encode_path(key.as_str())),
    );
    document.text("Bucket", name);
    document.text("Key", key.as_str());
    listing::etag(&mut document, done.etag.as_str());
    for checksum in &done.checksums {
        let kind = Kind::of(checksum.kind());
        let value = match kind {
            Kind::FullObject => base64(checksum.value()),
            Kind::Composite => format!("{}-{count}", base64(checksum.value())),
        };
        document.text(Algorithm::of(checksum.algorithm()).element(), value);
        document.text("ChecksumType", kind.name());
    }
    Ok(Done {
        headers,
        document: document.end("CompleteMultipartUploadResult"),
    })
}
