//! CopyObject and UploadPartCopy: by reference within a dedup domain.

use std::ops::Range;
use std::sync::Arc;

use cairn_identity::{Action, Permit, Principal, Resource, authorize};
use cairn_index::names::{
    Bucket, BucketName, Checksum, ChecksumKind, Current, Etag, NewVersion, ObjectKey, ObjectVersion, PartRecord,
    StorageClass,
};
use cairn_index::{DigestsWanted, Objects};
use cairn_roots::Body;
use http::{HeaderMap, Response};

use crate::s3::body::BODY_LEN_MAX;
use crate::s3::checksum::{Algorithm, Hasher, Kind, base64};
use crate::s3::condition::{self, Held};
use crate::s3::copy_source::CopySource;
use crate::s3::error::{Code, S3Result};
use crate::s3::listing;
use crate::s3::metadata::Metadata;
use crate::s3::ops::delete::{condition_of, conflict};
use crate::s3::ops::find::checksum_text;
use crate::s3::ops::upload::{algorithm_of, part_number, upload_id};
use crate::s3::ops::write::{headers_of, storage_class_of, tags_of};
use crate::s3::request::{Ask, owner_of, set, tenant_of, version_id};
use crate::s3::service::{Core, now_seconds};
use crate::s3::slow::{self, Asker, Done};
use crate::s3::tagging::Tags;
use crate::s3::xml::Writer;
use crate::s3::{date, range};

/// Whether something is taken from the source or from the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Directive {
    Copy,
    Replace,
}

fn directive(ask: &Ask, header: &'static str, wrong: Code) -> S3Result<Directive> {
    match ask.header(header) {
        None | Some("" | "COPY") => Ok(Directive::Copy),
        Some("REPLACE") => Ok(Directive::Replace),
        Some(other) => Err(wrong.argument(header, other)),
    }
}

/// What is copied.
struct Source {
    bucket: Arc<Bucket>,
    key: ObjectKey,
    version: ObjectVersion,
    /// Whether it is the key's current version.
    is_current: bool,
}

/// Finds the source, and asks whether it may be read.
///
/// Errors: those of the header; `NoSuchBucket`, `NoSuchKey`, `NoSuchVersion`, `AccessDenied`; `PreconditionFailed`.
async fn source(core: &Core, permit: &Permit, ask: &Ask) -> S3Result<Source> {
    let header = ask.headers.get("x-amz-copy-source").ok_or(Code::CopySourceInvalid)?;
    let source = CopySource::parse(header.as_bytes())?;
    let id = source.version_id.as_deref().map(version_id).transpose()?;
    let (user, tenant) = (permit.user().clone(), tenant_of(permit.user())?);
    let expected_owner = ask.header("x-amz-source-expected-bucket-owner").map(str::to_owned);
    let names = core.names();
    let found = core
        .run(move || {
            let bucket = names.buckets(&tenant).get(&BucketName::new(&source.bucket)?)?;
            let owner = bucket.record.owner.as_str();
            let resource = Resource::Object {
                tenant: bucket.tenant().as_str(),
                owner,
                bucket: &source.bucket,
                key: &source.key,
            };
            let action = if id.is_some() {
                Action::GetObjectVersion
            } else {
                Action::GetObject
            };
            let _permit =
                authorize(&Principal::User(Arc::new(user)), action, resource).map_err(|_| Code::AccessDenied)?;
            if expected_owner.is_some_and(|expected| expected != owner) {
                return Err(Code::AccessDenied.into());
            }
            let key = ObjectKey::new(source.key.as_str())?;
            let objects = names.objects(&bucket);
            let current = objects.get(&key)?;
            let (version, is_current) = match (id, current) {
                (None, Current::Object(version)) => (*version, true),
                (None, _) => return Err(Code::NoSuchKey.with("Key", source.key)),
                (Some(id), current) => {
                    let is_current = matches!(&current, Current::Object(version) if version.id == id);
                    (objects.version(&key, id)?, is_current)
                }
            };
            if version.object().is_none() {
                return Err(Code::CopySourceDeleteMarker.into());
            }
            Ok(Source {
                bucket: Arc::new(bucket),
                key,
                version,
                is_current,
            })
        })
        .await?;
    let record = found.version.object().ok_or(Code::NoSuchKey)?;
    let held = Held {
        etag: record.etag.as_str(),
        modified: found.version.created_ms() / 1000,
        now: u64::try_from(now_seconds()).unwrap_or(0),
    };
    condition::of_copy(&ask.headers, held)?;
    Ok(found)
}

fn asker(core: &Core, ask: &Ask) -> Asker {
    Asker {
        resource: ask.resource.clone(),
        request_id: ask.request_id.clone(),
        host_id: core.host_id().to_owned(),
    }
}

/// What the request puts in place of what the source says.
struct Changes {
    metadata: Option<Metadata>,
    tags: Option<Tags>,
    storage_class: StorageClass,
    /// A check sum that the source does not have: worth one read.
    algorithm: Option<Algorithm>,
}

/// CopyObject.
pub(in crate::s3) async fn object(core: &Core, permit: Permit, ask: Ask) -> S3Result<Response<Body>> {
    let of_metadata = directive(&ask, "x-amz-metadata-directive", Code::MetadataDirectiveInvalid)?;
    let of_tags = directive(&ask, "x-amz-tagging-directive", Code::TaggingDirectiveInvalid)?;
    let condition = condition_of(condition::of_write(&ask.headers)?)?;
    let metadata = Metadata::read(&ask.headers)?;
    let tags = tags_of(&ask)?;
    let algorithm = ask
        .header("x-amz-checksum-algorithm")
        .map(Algorithm::of_name)
        .transpose()?;
    let source = source(core, &permit, &ask).await?;
    let (bucket, key) = (ask.bucket()?, ask.key()?);
    let record = source.version.object().ok_or(Code::NoSuchKey)?;
    if record.size > BODY_LEN_MAX {
        return Err(Code::CopyTooLarge.into());
    }
    let is_onto_itself = source.is_current && source.bucket.id() == bucket.id() && source.key == key;
    let class = storage_class_of(&metadata);
    let changes_nothing = of_metadata == Directive::Copy
        && class == record.storage_class
        && algorithm.is_none()
        && !ask.headers.contains_key("x-amz-website-redirect-location");
    if is_onto_itself && changes_nothing {
        return Err(Code::CopyOntoItself.into());
    }
    let has_sum = |algorithm: Algorithm| {
        let mut sums = record.checksums.iter();
        sums.any(|sum| Algorithm::of(sum.algorithm()) == algorithm)
    };
    let changes = Changes {
        metadata: (of_metadata == Directive::Replace).then_some(metadata),
        tags: (of_tags == Directive::Replace).then_some(tags),
        storage_class: class,
        algorithm: algorithm.filter(|algorithm| !has_sum(*algorithm)),
    };
    let (owner, cause) = (owner_of(permit.user())?, ask.cause(permit.user()));
    let (objects, pool, asker) = (core.objects(), core.slow_pool().clone(), asker(core, &ask));
    let job = move || {
        let parts = parts_of(&objects, &source)?;
        let sum = match changes.algorithm {
            Some(algorithm) => Some(read_sum(&objects, &source, algorithm)?),
            None => None,
        };
        let body = objects.copy(&source.bucket, &source.version, &bucket)?;
        let describe = |new: &mut NewVersion| describe(new, &source.version, parts, changes, sum);
        let written = body.put(&key, &owner, describe, &condition, &cause);
        let written = written.map_err(conflict(&condition))?;
        let mut headers = HeaderMap::new();
        super::write::show_written(&mut headers, &written);
        if source.bucket.record.versioning != cairn_index::names::Versioning::Unset {
            set(
                &mut headers,
                "x-amz-copy-source-version-id",
                source.version.id.to_string(),
            );
        }
        let record = written.version.object().ok_or(Code::InternalError)?;
        let mut document = Writer::fragment_root("CopyObjectResult");
        document.text("LastModified", date::iso(written.version.created_ms()));
        listing::etag(&mut document, record.etag.as_str());
        for checksum in &record.checksums {
            document.text(
                Algorithm::of(checksum.algorithm()).element(),
                checksum_text(record, checksum),
            );
            document.text("ChecksumType", Kind::of(checksum.kind()).name());
        }
        Ok(Done {
            headers,
            document: document.end("CopyObjectResult"),
        })
    };
    slow::answer(async move { pool.run(job).await }, asker, slow::QUIET_MAX).await
}

/// A copy has its source's tag, check sums and parts, and what else the request does not replace.
fn describe(
    new: &mut NewVersion,
    version: &ObjectVersion,
    parts: Vec<PartRecord>,
    changes: Changes,
    sum: Option<Checksum>,
) {
    let Some(source) = version.object() else { return };
    new.set_parts(parts);
    let record = &mut new.record;
    record.etag = source.etag.clone();
    record.checksums = match sum {
        Some(sum) => vec![sum],
        None => source.checksums.clone(),
    };
    record.storage_class = changes.storage_class;
    match changes.metadata {
        Some(metadata) => {
            record.headers = headers_of(&metadata);
            record.metadata = metadata.user;
        }
        None => {
            record.headers = source.headers.clone();
            record.metadata = source.metadata.clone();
        }
    }
    record.tags = changes.tags.unwrap_or_else(|| source.tags.clone());
}

fn parts_of(objects: &Objects, source: &Source) -> S3Result<Vec<PartRecord>> {
    let names = objects.names().objects(&source.bucket);
    Ok(names.parts(&source.version, 0, usize::from(range::PART_NUMBER_MAX))?)
}

/// Reads the source for a check sum that it does not have.
fn read_sum(objects: &Objects, source: &Source, algorithm: Algorithm) -> S3Result<Checksum> {
    let record = source.version.object().ok_or(Code::NoSuchKey)?;
    let mut hasher = Hasher::new(algorithm);
    for piece in objects.read(source.bucket.tenant(), &record.content, 0..record.size)? {
        hasher.update(&piece?);
    }
    let sum = Checksum::new(algorithm.to_index(), ChecksumKind::FullObject, &hasher.finish());
    Ok(sum.ok_or(Code::InternalError)?)
}

/// UploadPartCopy.
pub(in crate::s3) async fn part(core: &Core, permit: Permit, ask: Ask) -> S3Result<Response<Body>> {
    let number = part_number(&ask)?;
    let id = upload_id(&ask)?;
    let source = source(core, &permit, &ask).await?;
    let record = source.version.object().ok_or(Code::NoSuchKey)?;
    let range: Range<u64> = match ask.header("x-amz-copy-source-range") {
        None => 0..record.size,
        Some(header) => range::copied(header, record.size)?,
    };
    if range.end - range.start > BODY_LEN_MAX {
        return Err(Code::CopyTooLarge.into());
    }
    let (bucket, key) = (ask.bucket()?, ask.key()?);
    let (objects, pool, asker) = (core.objects(), core.slow_pool().clone(), asker(core, &ask));
    let job = move || {
        let upload = objects.names().uploads(&bucket).get(&key, id)?;
        let algorithm = algorithm_of(&upload);
        let wanted = DigestsWanted {
            md5: true,
            checksums: vec![algorithm.to_formats()],
        };
        let body = objects.copy_part(&source.bucket, &source.version, range, &bucket, &wanted)?;
        let sum = body.digested().checksum(algorithm.to_formats());
        let sum = sum.and_then(|sum| Checksum::new(algorithm.to_index(), ChecksumKind::FullObject, sum.as_bytes()));
        let part = body.put_part(&upload, number, sum)?;
        let mut headers = HeaderMap::new();
        if source.bucket.record.versioning != cairn_index::names::Versioning::Unset {
            set(
                &mut headers,
                "x-amz-copy-source-version-id",
                source.version.id.to_string(),
            );
        }
        let mut document = Writer::fragment_root("CopyPartResult");
        document.text("LastModified", date::iso(part.modified_ms));
        listing::etag(&mut document, Etag::of_md5(&part.md5).as_str());
        if let Some(checksum) = &part.checksum {
            document.text(Algorithm::of(checksum.algorithm()).element(), base64(checksum.value()));
        }
        Ok(Done {
            headers,
            document: document.end("CopyPartResult"),
        })
    };
    slow::answer(async move { pool.run(job).await }, asker, slow::QUIET_MAX).await
}
