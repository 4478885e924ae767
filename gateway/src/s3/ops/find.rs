//! The version that a request is about, and the headers that tell of one.

use cairn_index::names::{Current, ObjectRecord, ObjectVersion, VersionKind, Versioning};
use http::header::{ACCEPT_RANGES, LAST_MODIFIED};
use http::{HeaderMap, HeaderValue};

use crate::s3::archive::{Inside, may_lead_inside};
use crate::s3::checksum::{Algorithm, Kind, base64};
use crate::s3::error::{Code, S3Error, S3Result};
use crate::s3::request::{Ask, set};
use crate::s3::service::Core;
use crate::s3::{date, listing, metadata};

/// A version that was found, which is an object.
#[derive(Clone, Debug)]
pub(in crate::s3) struct Found {
    pub(in crate::s3) version: ObjectVersion,
    /// It is a file in an archive, and the version what it would be as an object.
    pub(in crate::s3) inside: Option<Inside>,
}

impl Found {
    /// The object. Errors: none; what was found is one.
    pub(in crate::s3) fn record(&self) -> S3Result<&ObjectRecord> {
        self.version.object().ok_or_else(|| Code::NoSuchKey.into())
    }
}

/// The version that a request is about: that of `versionId`, or the current one.
///
/// Errors: `NoSuchKey` (with `x-amz-delete-marker` where the current version is one), `NoSuchVersion`, `MethodNotAllowed` for a
/// marker by its id.
pub(in crate::s3) async fn find(core: &Core, ask: &Ask) -> S3Result<Found> {
    let (names, bucket, key, id) = (core.names(), ask.bucket()?, ask.key()?, ask.version_id()?);
    let (method, name) = (ask.method.clone(), ask.target.key().unwrap_or("").to_owned());
    core.run(move || {
        let objects = names.objects(&bucket);
        let version = match id {
            Some(id) => {
                let version = objects.version(&key, id)?;
                if matches!(version.kind, VersionKind::DeleteMarker) {
                    return Err(with_marker(S3Error::is_marker(&method), &version)
                        .header(LAST_MODIFIED, http_date(version.created_ms())));
                }
                version
            }
            None => match objects.get(&key)? {
                Current::Object(version) => *version,
                Current::Deleted(marker) => return Err(with_marker(Code::NoSuchKey.with("Key", name), &marker)),
                Current::Nothing => return Err(Code::NoSuchKey.with("Key", name)),
            },
        };
        Ok(Found { version, inside: None })
    })
    .await
}

/// [`find`], or the file inside an archive that the key leads to where there is no object of that key.
pub(in crate::s3) async fn find_or_browse(core: &Core, ask: &Ask) -> S3Result<Found> {
    let (bucket, name) = (ask.bucket()?, ask.target.key().unwrap_or("").to_owned());
    let found = find(core, ask).await;
    let is_nothing = |error: &S3Error| error.code == Code::NoSuchKey && error.headers.is_empty();
    match found {
        Err(error) if is_nothing(&error) && may_lead_inside(&bucket, &name) => {
            let (archives, objects) = (core.archives(), core.objects());
            let found = core.run(move || archives.find(&objects, &bucket, &name)).await?;
            let (version, inside) = found.ok_or(error)?;
            Ok(Found {
                version,
                inside: Some(inside),
            })
        }
        found => found,
    }
}

fn with_marker(error: S3Error, marker: &ObjectVersion) -> S3Error {
    let error = error.header(
        http::HeaderName::from_static("x-amz-delete-marker"),
        HeaderValue::from_static("true"),
    );
    match HeaderValue::try_from(marker.id.to_string()) {
        Ok(id) => error.header(http::HeaderName::from_static("x-amz-version-id"), id),
        Err(_) => error,
    }
}

fn http_date(milliseconds: u64) -> HeaderValue {
    HeaderValue::try_from(date::http(milliseconds)).unwrap_or(HeaderValue::from_static(""))
}

/// Tells the version's id where the bucket keeps versions, or was asked for one.
pub(in crate::s3) fn show_version(headers: &mut HeaderMap, ask: &Ask, version: &ObjectVersion) -> S3Result<()> {
    let keeps = ask.bucket()?.record.versioning != Versioning::Unset;
    if keeps || !version.id.is_null() || ask.query.has("versionId") {
        set(headers, "x-amz-version-id", version.id.to_string());
    }
    Ok(())
}

/// ETag and time of change.
pub(in crate::s3) fn show_validators(headers: &mut HeaderMap, version: &ObjectVersion, record: &ObjectRecord) {
    set(headers, "etag", format!("\"{}\"", record.etag));
    headers.insert(LAST_MODIFIED, http_date(version.created_ms()));
}

/// All that an object's headers say but those of its length.
pub(in crate::s3) fn show_object(headers: &mut HeaderMap, version: &ObjectVersion, record: &ObjectRecord) {
    show_validators(headers, version, record);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let kept = &record.headers;
    set(
        headers,
        "content-type",
        kept.content_type.as_deref().unwrap_or(metadata::DEFAULT_TYPE),
    );
    for (name, value) in [
        ("content-encoding", &kept.content_encoding),
        ("content-language", &kept.content_language),
        ("content-disposition", &kept.content_disposition),
        ("cache-control", &kept.cache_control),
        ("expires", &kept.expires),
        ("x-amz-website-redirect-location", &kept.website_redirect),
    ] {
        if let Some(value) = value {
            set(headers, name, value);
        }
    }
    for (name, value) in &record.metadata {
        let name = http::HeaderName::try_from(format!("x-amz-meta-{name}"));
        let value = HeaderValue::try_from(metadata::outgoing(value));
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.insert(name, value);
        }
    }
    if !record.tags.is_empty() {
        set(headers, "x-amz-tagging-count", record.tags.len().to_string());
    }
    if record.storage_class != cairn_index::names::StorageClass::Standard {
        set(
            headers,
            "x-amz-storage-class",
            listing::storage_class(record.storage_class),
        );
    }
}

/// An object's check sum and what it is of.
pub(in crate::s3) fn show_checksum(headers: &mut HeaderMap, record: &ObjectRecord) {
    for checksum in &record.checksums {
        set(
            headers,
            Algorithm::of(checksum.algorithm()).header(),
            checksum_text(record, checksum),
        );
        set(headers, "x-amz-checksum-type", Kind::of(checksum.kind()).name());
    }
}

/// A check sum as it is written: that of check sums says of how many.
pub(in crate::s3) fn checksum_text(record: &ObjectRecord, checksum: &cairn_index::names::Checksum) -> String {
    match Kind::of(checksum.kind()) {
        Kind::FullObject => base64(checksum.value()),
        Kind::Composite => format!("{}-{}", base64(checksum.value()), record.parts.count()),
    }
}
