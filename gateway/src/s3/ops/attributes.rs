//! GetObjectAttributes.

use cairn_identity::Permit;
use cairn_index::names::PartRecord;
use cairn_roots::Body;
use http::Response;
use http::header::LAST_MODIFIED;

use crate::s3::checksum::{Algorithm, Kind, base64};
use crate::s3::error::{Code, S3Result};
use crate::s3::ops::find::{Found, checksum_text, find, show_validators, show_version};
use crate::s3::request::{Ask, xml};
use crate::s3::service::Core;
use crate::s3::xml::Writer;
use crate::s3::{listing, range};

const KNOWN: [&str; 5] = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"];

/// GetObjectAttributes.
pub(in crate::s3) async fn get(core: &Core, _permit: Permit, ask: Ask) -> S3Result<Response<Body>> {
    let mut wanted = Vec::new();
    for value in ask.headers.get_all("x-amz-object-attributes") {
        for name in value
            .to_str()
            .unwrap_or("")
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
        {
            if !KNOWN.contains(&name) {
                return Err(Code::AttributesInvalid.argument("x-amz-object-attributes", name));
            }
            wanted.push(name.to_owned());
        }
    }
    if wanted.is_empty() {
        return Err(Code::AttributesInvalid.argument("x-amz-object-attributes", ""));
    }
    let wants = |name: &str| wanted.iter().any(|own| own == name);
    let found = find(core, &ask).await?;
    let record = found.record()?;
    let mut document = Writer::root("GetObjectAttributesResponse");
    if wants("ETag") {
        // Alone among documents without quotes.
        document.text("ETag", record.etag.as_str());
    }
    if wants("Checksum") && !record.checksums.is_empty() {
        document.open("Checksum");
        for checksum in &record.checksums {
            document.text(
                Algorithm::of(checksum.algorithm()).element(),
                checksum_text(record, checksum),
            );
            document.text("ChecksumType", Kind::of(checksum.kind()).name());
        }
        document.close("Checksum");
    }
    if wants("ObjectParts") && record.parts.count() > 0 {
        parts(core, &ask, &found, &mut document).await?;
    }
    if wants("StorageClass") {
        document.text("StorageClass", listing::storage_class(record.storage_class));
    }
    if wants("ObjectSize") {
        document.display("ObjectSize", record.size);
    }
    let mut response = xml(document.end("GetObjectAttributesResponse"));
    let headers = response.headers_mut();
    show_validators(headers, &found.version, record);
    headers.remove("etag");
    debug_assert!(headers.contains_key(LAST_MODIFIED));
    show_version(headers, &ask, &found.version)?;
    Ok(response)
}

async fn parts(core: &Core, ask: &Ask, found: &Found, document: &mut Writer) -> S3Result<()> {
    let number = |header: &'static str, query: &str, default: usize| -> S3Result<usize> {
        let Some(text) = ask.header(header).or_else(|| ask.query.filled(query)) else {
            return Ok(default);
        };
        let number = range::number(text).and_then(|number| usize::try_from(number).ok());
        number.ok_or_else(|| Code::InvalidArgument.argument(header, text))
    };
    let limit = number("x-amz-max-parts", "max-parts", listing::PAGE_MAX)?.min(listing::PAGE_MAX);
    let marker = number("x-amz-part-number-marker", "part-number-marker", 0)?;
    let count = found.record()?.parts.count();
    let (names, bucket, version) = (core.names(), ask.bucket()?, found.version.clone());
    // Parts of an object are numbered anew, from 1 on.
    let from = u32::try_from(marker).unwrap_or(u32::MAX);
    let parts: Vec<PartRecord> = core
        .run(move || Ok(names.objects(&bucket).parts(&version, from, limit)?))
        .await?;
    let next = marker + parts.len();
    document.open("ObjectParts");
    document.display("TotalPartsCount", count);
    document.display("PartsCount", count);
    document.display("PartNumberMarker", marker);
    document.display("NextPartNumberMarker", next);
    document.display("MaxParts", limit);
    document.display("IsTruncated", (next as u64) < u64::from(count));
    for (place, part) in parts.iter().enumerate() {
        document.open("Part");
        if let Some(checksum) = &part.checksum {
            document.text(Algorithm::of(checksum.algorithm()).element(), base64(checksum.value()));
        }
        document.display("PartNumber", marker + place + 1);
        document.display("Size", part.size);
        document.close("Part");
    }
    document.close("ObjectParts");
    Ok(())
}
