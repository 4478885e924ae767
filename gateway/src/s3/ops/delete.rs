//! Deleting: one key, one version, or up to a thousand of either.

use bytes::Bytes;
use cairn_identity::Permit;
use cairn_index::names::{Bucket, Cause, Condition, Deleted, Names, ObjectKey, Owner, VersionId};
use cairn_roots::Body;
use http::{Response, StatusCode};
use hyper::body::Body as HttpBody;

use crate::s3::body::Incoming;
use crate::s3::condition::{self, WriteCondition};
use crate::s3::document::{self, DeleteEntry};
use crate::s3::error::{Code, S3Error, S3Result};
use crate::s3::request::{Ask, empty, owner_of, set, version_id, xml};
use crate::s3::service::Core;
use crate::s3::xml::Writer;

/// What a write's condition is to the index. Errors: `NotImplemented`.
pub(in crate::s3) fn condition_of(condition: WriteCondition) -> S3Result<Condition> {
    Ok(condition.for_index())
}

/// Errors of a write, in the words of its condition: a race that was lost again and again is the condition's conflict.
pub(in crate::s3) fn conflict(condition: &Condition) -> impl Fn(cairn_index::Error) -> S3Error + use<> {
    let is_conditional = !matches!(condition, Condition::Always);
    move |error| match error {
        cairn_index::Error::Contended { .. } if is_conditional => Code::ConditionalRequestConflict.into(),
        error => error.into(),
    }
}

/// DeleteObject.
pub(in crate::s3) async fn object(core: &Core, permit: Permit, ask: Ask) -> S3Result<Response<Body>> {
    let (names, bucket, key, id) = (core.names(), ask.bucket()?, ask.key()?, ask.version_id()?);
    let condition = match condition::of_write(&ask.headers)? {
        WriteCondition::Absent => return Err(Code::NotImplemented.with("Header", "If-None-Match")),
        condition => condition_of(condition)?,
    };
    let (owner, cause) = (owner_of(permit.user())?, ask.cause(permit.user()));
    let deleted = core
        .run(move || {
            let deleted = names.objects(&bucket).delete(&key, id, &owner, &condition, &cause);
            deleted.map_err(conflict(&condition))
        })
        .await?;
    let mut response = empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    match (deleted, id) {
        (Deleted::MarkerPut(marker), _) => {
            set(headers, "x-amz-delete-marker", "true");
            set(headers, "x-amz-version-id", marker.to_string());
        }
        (Deleted::Version { id, was_marker }, Some(_)) => {
            if was_marker {
                set(headers, "x-amz-delete-marker", "true");
            }
            set(headers, "x-amz-version-id", id.to_string());
        }
        (Deleted::Nothing, Some(id)) => set(headers, "x-amz-version-id", id.to_string()),
        (Deleted::Version { .. } | Deleted::Nothing, None) => {}
    }
    Ok(response)
}

/// What became of one entry of DeleteObjects.
type Outcome = (DeleteEntry, S3Result<Deleted>);

/// DeleteObjects: entries in order, each for itself.
pub(in crate::s3) async fn objects<B>(
    core: &Core,
    permit: Permit,
    mut ask: Ask,
    body: Incoming<B>,
) -> S3Result<Response<Body>>
where
    B: HttpBody<Data = Bytes, Error: std::fmt::Display> + Unpin,
{
    let deletes = document::deletes(&ask.digested_document(body).await?)?;
    let (names, bucket) = (core.names(), ask.bucket()?);
    let (owner, cause) = (owner_of(permit.user())?, ask.cause(permit.user()));
    let outcomes: Vec<Outcome> = core
        .run(move || {
            let delete = |entry: DeleteEntry| {
                let deleted = delete_entry(&names, &bucket, &entry, &owner, &cause);
                (entry, deleted)
            };
            Ok(deletes.entries.into_iter().map(delete).collect())
        })
        .await?;
    let mut document = Writer::root("DeleteResult");
    for (entry, outcome) in &outcomes {
        match outcome {
            Ok(_) if deletes.quiet => {}
            Ok(deleted) => write_deleted(&mut document, entry, deleted),
            Err(error) => {
                let (_, code, message) = error.code.row();
                document.open("Error");
                document.text("Key", &entry.key);
                document.optional("VersionId", entry.version_id.as_ref());
                document.text("Code", code);
                document.text("Message", message);
                document.close("Error");
            }
        }
    }
    Ok(xml(document.end("DeleteResult")))
}

fn delete_entry(
    names: &Names,
    bucket: &Bucket,
    entry: &DeleteEntry,
    owner: &Owner,
    cause: &Cause,
) -> S3Result<Deleted> {
    crate::s3::uri::check_key(&entry.key)?;
    let key = ObjectKey::new(entry.key.as_str())?;
    let id: Option<VersionId> = entry.version_id.as_deref().map(version_id).transpose()?;
    let condition = match entry.etag.as_deref() {
        None => Condition::Always,
        Some("*") => Condition::Present,
        Some(etag) => condition_of(WriteCondition::Etag(etag.trim_matches('"').to_owned()))?,
    };
    names
        .objects(bucket)
        .delete(&key, id, owner, &condition, cause)
        .map_err(conflict(&condition))
}

fn write_deleted(document: &mut Writer, entry: &DeleteEntry, deleted: &Deleted) {
    document.open("Deleted");
    document.text("Key", &entry.key);
    document.optional("VersionId", entry.version_id.as_ref());
    match deleted {
        Deleted::MarkerPut(marker) => {
            document.text("DeleteMarker", "true");
            document.display("DeleteMarkerVersionId", marker);
        }
        Deleted::Version { id, was_marker: true } => {
            document.text("DeleteMarker", "true");
            document.display("DeleteMarkerVersionId", id);
        }
        Deleted::Version { .. } | Deleted::Nothing => {}
    }
    document.close("Deleted");
}
