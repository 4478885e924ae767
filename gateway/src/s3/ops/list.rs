//! Listings of keys and of versions.

use cairn_identity::Permit;
use cairn_index::names::{List, ListStart, ObjectKey, VersionStart};
use cairn_roots::Body;
use http::Response;

use crate::s3::archive::may_lead_inside;
use crate::s3::error::{Code, S3Result};
use crate::s3::listing::{self, Asked};
use crate::s3::request::{Ask, version_id, xml};
use crate::s3::service::Core;
use crate::s3::xml::Writer;

/// ListObjectsV2.
pub(in crate::s3) async fn objects_v2(core: &Core, _permit: Permit, ask: Ask) -> S3Result<Response<Body>> {
    let bucket = ask.bucket()?;
    let asked = Asked::read(bucket.name().as_str(), &ask.query, "max-keys")?;
    let token = ask.query.get("continuation-token");
    let start_after = ask.query.filled("start-after");
    let start = match token {
        Some(token) => ListStart::from_token(token)
            .map_err(|_| Code::ContinuationTokenInvalid.argument("continuation-token", token))?,
        None => asked.start_after(start_after.unwrap_or("")),
    };
    let page = page_of_objects(core, &ask, &asked, start).await?;
    let next = page.next.as_ref().and_then(ListStart::to_token);
    let with_owner = ask
        .query
        .get("fetch-owner")
        .is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let key_count = page.entries.len();
    let (objects, prefixes) = listing::split(page.entries);

    let mut document = Writer::root("ListBucketResult");
    document.text("Name", asked.bucket);
    asked.elements(&mut document, "MaxKeys");
    document.display("KeyCount", key_count);
    document.display("IsTruncated", next.is_some());
    document.optional("ContinuationToken", token);
    document.optional("NextContinuationToken", next);
    if let Some(start_after) = start_after {
        asked.encoding.text(&mut document, "StartAfter", start_after);
    }
    for object in &objects {
        listing::object(&mut document, asked.encoding, object, with_owner);
    }
    for prefix in &prefixes {
        asked.common_prefix(&mut document, prefix);
    }
    Ok(xml(document.end("ListBucketResult")))
}

/// ListObjects, the first version.
pub(in crate::s3) async fn objects(core: &Core, _permit: Permit, ask: Ask) -> S3Result<Response<Body>> {
    let bucket = ask.bucket()?;
    let asked = Asked::read(bucket.name().as_str(), &ask.query, "max-keys")?;
    let marker = ask.query.get("marker").unwrap_or("");
    let page = page_of_objects(core, &ask, &asked, asked.start_after(marker)).await?;
    let next = match page.next {
        Some(ListStart::After(key) | ListStart::AfterPrefix(key)) => Some(key),
        Some(ListStart::Beginning) | None => None,
    };
    let (objects, prefixes) = listing::split(page.entries);

    let mut document = Writer::root("ListBucketResult");
    document.text("Name", asked.bucket);
    asked.encoding.text(&mut document, "Marker", marker);
    asked.elements(&mut document, "MaxKeys");
    document.display("IsTruncated", next.is_some());
    if let Some(next) = next.filter(|_| !asked.delimiter.is_empty()) {
        asked.encoding.text(&mut document, "NextMarker", &next);
    }
    for object in &objects {
        listing::object(&mut document, asked.encoding, object, true);
    }
    for prefix in &prefixes {
        asked.common_prefix(&mut document, prefix);
    }
    Ok(xml(document.end("ListBucketResult")))
}

async fn page_of_objects(
    core: &Core,
    ask: &Ask,
    asked: &Asked<'_>,
    start: ListStart,
) -> S3Result<cairn_index::names::ListPage<cairn_index::names::ListedObject>> {
    let (names, bucket) = (core.names(), ask.bucket()?);
    let (archives, objects_of_server) = (core.archives(), core.objects());
    let (prefix, delimiter, limit) = (asked.prefix.to_owned(), asked.delimiter.to_owned(), asked.limit);
    core.run(move || {
        let list = List {
            prefix: &prefix,
            delimiter: &delimiter,
            start,
            limit,
        };
        if may_lead_inside(&bucket, &prefix)
            && let Some(page) = archives.list(&objects_of_server, &bucket, &list)?
        {
            return Ok(page);
        }
        Ok(names.objects(&bucket).list(&list)?)
    })
    .await
}

/// ListObjectVersions.
pub(in crate::s3) async fn versions(core: &Core, _permit: Permit, ask: Ask) -> S3Result<Response<Body>> {
    let bucket = ask.bucket()?;
    let asked = Asked::read(bucket.name().as_str(), &ask.query, "max-keys")?;
    let key_marker = ask.query.get("key-marker").unwrap_or("");
    let version_marker = ask.query.get("version-id-marker");
    let from = match version_marker {
        None => VersionStart::AsListed,
        Some(_) if key_marker.is_empty() => {
            return Err(Code::VersionMarkerAlone.argument("version-id-marker", version_marker.unwrap_or("")));
        }
        Some(version) => VersionStart::Version(ObjectKey::new(key_marker)?, version_id(version)?),
    };
    let (names, listed_bucket) = (core.names(), ask.bucket()?);
    let (prefix, delimiter, limit) = (asked.prefix.to_owned(), asked.delimiter.to_owned(), asked.limit);
    let start = asked.start_after(key_marker);
    let page = core
        .run(move || {
            let list = List {
                prefix: &prefix,
                delimiter: &delimiter,
                start,
                limit,
            };
            Ok(names.objects(&listed_bucket).list_versions(&list, &from)?)
        })
        .await?;
    let (versions, prefixes) = listing::split(page.entries);

    let mut document = Writer::root("ListVersionsResult");
    document.text("Name", asked.bucket);
    asked.encoding.text(&mut document, "KeyMarker", key_marker);
    document.text("VersionIdMarker", version_marker.unwrap_or(""));
    asked.elements(&mut document, "MaxKeys");
    document.display("IsTruncated", page.next.is_some());
    match &page.next {
        Some(VersionStart::Version(key, id)) => {
            asked.encoding.text(&mut document, "NextKeyMarker", key.as_str());
            document.display("NextVersionIdMarker", id);
        }
        Some(VersionStart::AfterPrefix(prefix)) => asked.encoding.text(&mut document, "NextKeyMarker", prefix),
        Some(VersionStart::AsListed) | None => {}
    }
    for version in &versions {
        listing::version(&mut document, asked.encoding, version);
    }
    for prefix in &prefixes {
        asked.common_prefix(&mut document, prefix);
    }
    Ok(xml(document.end("ListVersionsResult")))
}
