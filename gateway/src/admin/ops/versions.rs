//! Versions of objects: list them, compare two, make an old one the newest.

use cairn_identity::Permit;
use cairn_index::ChunkSum;
use cairn_index::names::{
    Bucket, Condition, Etag, List, ListStart, Listed, ListedVersion, ObjectKey, ObjectVersion, VersionStart,
};
use serde_json::{Value, json};

use super::buckets::find_in;
use crate::admin::error::{AdminError, AdminResult, Code};
use crate::admin::query::cursor;
use crate::admin::request::{Answer, Ask, object_key, version_id};
use crate::admin::service::Core;
use crate::admin::shapes;

/// Versions of a key, or of all keys that begin so, the newest of each first.
pub(in crate::admin) fn list(core: &Core, _permit: Permit, mut ask: Ask) -> AdminResult<Answer> {
    let (tenant, name) = (ask.tenant()?, ask.bucket()?);
    let limit = ask.query.take_limit()?;
    let key = ask.query.take("key").map(object_key).transpose()?;
    let prefix = ask.query.take("prefix");
    if key.is_some() && prefix.is_some() {
        return Err(AdminError::field("prefix", "it is not said together with key"));
    }
    let from = match ask.query.take_cursor()? {
        None => VersionStart::AsListed,
        Some(place) => read_place(&place)?,
    };
    ask.end()?;
    let bucket = find_in(core, &tenant, &name)?;
    let prefix = key.as_ref().map(ToString::to_string).or(prefix).unwrap_or_default();
    let list = List {
        prefix: &prefix,
        delimiter: "",
        start: ListStart::Beginning,
        limit,
    };
    let page = core.names().objects(&bucket).list_versions(&list, &from)?;
    let is_asked = |listed: &ListedVersion| key.as_ref().is_none_or(|key| listed.key == *key);
    let mut shown = Vec::new();
    let mut last = None;
    let mut is_behind = false;
    for entry in page.entries {
        // Keys that only begin as the one that was asked for come behind it.
        let Listed::Item(listed) = entry else { continue };
        if !is_asked(&listed) {
            is_behind = true;
            break;
        }
        let mut words = shapes::version(bucket.name(), &listed.key, &listed.version);
        words.insert("latest".to_owned(), json!(listed.is_latest));
        shown.push(words.into());
        last = Some(place_of(&listed));
    }
    let next = page.next.and(last).filter(|_| !is_behind);
    Ok(Answer::ok(shapes::page("versions", shown, next.map(cursor))))
}

fn place_of(listed: &ListedVersion) -> Vec<u8> {
    let id = listed.version.id.to_string();
    [id.as_bytes(), b" ", listed.key.as_str().as_bytes()].concat()
}

fn read_place(place: &[u8]) -> AdminResult<VersionStart> {
    let text = std::str::from_utf8(place).map_err(|_| Code::BadCursor)?;
    let (id, key) = text.split_once(' ').ok_or(Code::BadCursor)?;
    let id = version_id("cursor", id).map_err(|_| Code::BadCursor)?;
    let key = ObjectKey::new(key).map_err(|_| Code::BadCursor)?;
    Ok(VersionStart::Version(key, id))
}

/// Compares two versions: of one key, or of two.
pub(in crate::admin) fn diff(core: &Core, _permit: Permit, mut ask: Ask) -> AdminResult<Answer> {
    let (tenant, name) = (ask.tenant()?, ask.bucket()?);
    let key = ask
        .query
        .take("key")
        .ok_or_else(|| AdminError::field("key", "it has to be there"))?;
    let key = object_key(key)?;
    let other = ask.query.take("other_key").map(object_key).transpose()?;
    let mut sides = Vec::new();
    for name in ["from", "to"] {
        let id = ask.query.take(name).map(|id| version_id(name, &id)).transpose()?;
        sides.push(id);
    }
    ask.end()?;
    let bucket = find_in(core, &tenant, &name)?;
    let objects = core.names().objects(&bucket);
    let find = |key: &ObjectKey, id| match id {
        None => objects.current(key),
        Some(id) => objects.version(key, id),
    };
    let to_key = other.as_ref().unwrap_or(&key);
    let (from, to) = (find(&key, sides[0])?, find(to_key, sides[1])?);
    if from.object().is_none() || to.object().is_none() {
        return Err(Code::DeleteMarker.into());
    }
    let diff = core.objects().diff((&bucket, &from), (&bucket, &to))?;
    let side = |key: &ObjectKey, version: &ObjectVersion, listed: ChunkSum, only: ChunkSum| {
        json!({
            "key": key.as_str(),
            "version_id": version.id.to_string(),
            "size": version.size(),
            "chunks_listed": listed.chunks,
            "only": sum(only),
        })
    };
    Ok(Answer::ok(json!({
        "from": side(&key, &from, diff.listed[0], diff.only[0]),
        "to": side(to_key, &to, diff.listed[1], diff.only[1]),
        "shared": sum(diff.shared),
    })))
}

fn sum(sum: ChunkSum) -> Value {
    json!({ "chunks": sum.chunks, "bytes": sum.bytes })
}

/// Makes a version the newest of its key, as a new one.
pub(in crate::admin) fn restore(core: &Core, permit: Permit, mut ask: Ask) -> AdminResult<Answer> {
    let (tenant, name) = (ask.tenant()?, ask.bucket()?);
    let key = object_key(ask.text("key")?)?;
    let id = version_id("version_id", &ask.text("version_id")?)?;
    let condition = match ask.optional_text("if_match")? {
        None => Condition::Always,
        Some(etag) => Condition::Matches(vec![Etag::opaque(&etag)?]),
    };
    ask.end()?;
    let bucket = find_in(core, &tenant, &name)?;
    if core.names().objects(&bucket).version(&key, id)?.object().is_none() {
        return Err(Code::DeleteMarker.into());
    }
    let cause = ask.cause(permit.user());
    let written = core.objects().restore(&bucket, &key, id, &condition, &cause)?;
    Ok(Answer::created(show(&bucket, &key, &written.version, id.to_string())))
}

fn show(bucket: &Bucket, key: &ObjectKey, version: &ObjectVersion, of: String) -> Value {
    let mut shown = shapes::version(bucket.name(), key, version);
    shown.insert("restored_from".to_owned(), json!(of));
    shown.into()
}
