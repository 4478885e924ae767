//! How things are shown: buckets, keys, versions, pages, as JSON. Times are RFC 3339 in UTC, sizes bytes.

use cairn_index::names::{AccessKey, Bucket, BucketName, KeyState, ObjectKey, ObjectVersion, Usage};
use cairn_roots::{Body, text};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Map, Value, json};

use crate::date::rfc3339;
use crate::settings::{self, Domain};

/// An answer that is a document.
pub(crate) fn document(status: StatusCode, value: &Value) -> Response<Body> {
    // For the headers that all answers carry.
    let mut response = text(status, "");
    *response.body_mut() = Body::from(format!("{value}\n"));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A page of a listing: its entries, and where to go on.
pub(crate) fn page(name: &str, entries: Vec<Value>, next: Option<String>) -> Value {
    json!({ name: entries, "next_cursor": next })
}

/// A bucket without what it holds.
pub(crate) fn bucket(bucket: &Bucket, domain: Domain) -> Value {
    json!({
        "name": bucket.name().as_str(),
        "tenant": bucket.tenant().as_str(),
        "owner": bucket.record.owner.as_str(),
        "region": bucket.record.region,
        "created_at": rfc3339(bucket.record.created_ms),
        "settings": settings::show(&bucket.record, domain),
    })
}

/// What a bucket or a tenant holds.
pub(crate) fn usage(usage: &Usage) -> Value {
    json!({ "objects": usage.objects, "versions": usage.versions, "bytes": usage.bytes })
}

/// An access key without its secret.
pub(crate) fn access_key(key: &AccessKey) -> Map<String, Value> {
    let mut shown = Map::new();
    shown.insert("id".to_owned(), json!(key.id.as_str()));
    shown.insert("tenant".to_owned(), json!(key.tenant.as_str()));
    shown.insert("owner".to_owned(), json!(key.owner.as_str()));
    shown.insert("created_at".to_owned(), json!(rfc3339(key.created_ms)));
    shown.insert("enabled".to_owned(), json!(key.state == KeyState::Enabled));
    shown
}

/// A version of an object.
pub(crate) fn version(bucket: &BucketName, key: &ObjectKey, version: &ObjectVersion) -> Map<String, Value> {
    let mut shown = Map::new();
    let mut say = |name: &str, value: Value| _ = shown.insert(name.to_owned(), value);
    say("bucket", json!(bucket.as_str()));
    say("key", json!(key.as_str()));
    say("version_id", json!(version.id.to_string()));
    say("owner", json!(version.owner.as_str()));
    say("created_at", json!(rfc3339(version.created_ms())));
    say("delete_marker", json!(version.object().is_none()));
    if let Some(object) = version.object() {
        say("size", json!(object.size));
        say("etag", json!(object.etag.as_str()));
        say("content_type", json!(object.headers.content_type));
        say("tags", pairs(&object.tags));
        say("metadata", pairs(&object.metadata));
    }
    shown
}

fn pairs(pairs: &[(String, String)]) -> Value {
    pairs
        .iter()
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect::<Map<_, _>>()
        .into()
}
