//! `cairn.v1.Objects`: objects as S3 has them, without S3's words.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use cairn_identity::{Action, Permit};
use cairn_index::names::{
    Bucket, Cause, Condition, Current, Deleted, Etag, EtagKind, List, ListStart, Listed, NewVersion, ObjectKey,
    ObjectVersion, Owner, VersionId, VersionStart, Written,
};
use cairn_index::{Body, DigestsWanted, ObjectWriter};
use cairn_proto::cairn::v1 as proto;
use cairn_proto::cairn::v1::{get_object_response, objects_server, put_object_request};
use futures_util::stream::{self, Stream};
use tonic::{Request, Response, Status, Streaming};

use super::{Asked, admit, in_bucket, in_bucket_slowly, of_index};
use crate::faces::caller::Need;
use crate::grpc::Core;
use crate::grpc::byte_stream::{STORED_LEN, batch_len};
use crate::grpc::error::{Answer, Failed};

/// Entries of a page, at most and where nothing is said.
const PAGE_MAX: usize = 1000;
/// Bytes of a message that is sent.
const MESSAGE_LEN: usize = 1 << 20;
/// Bytes of names and values of metadata and tags together, as S3 has it.
const METADATA_LEN_MAX: usize = 2048;
/// Tags of an object, as S3 has it.
const TAGS_MAX: usize = 10;
/// Bytes of an object, as S3 has it.
pub(super) const OBJECT_LEN_MAX: u64 = 5 << 40;

#[derive(Clone, Debug)]
pub(in crate::grpc) struct Objects(pub(in crate::grpc) Arc<Core>);

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Pieces = Box<dyn Iterator<Item = cairn_index::Result<Bytes>> + Send>;

#[tonic::async_trait]
impl objects_server::Objects for Objects {
    async fn head_object(&self, request: Request<proto::HeadObjectRequest>) -> Result<Response<proto::Object>, Status> {
        let (metadata, _, request) = request.into_parts();
        let action = read_action(&request.version_id);
        let asked = Asked::of_object(&metadata, &request.bucket, &request.key, action, Need::Read);
        let found = in_bucket(&self.0, asked, move |core, admitted| {
            let version = object_of(core, &admitted.bucket, &request.key, &request.version_id)?;
            Ok(show(&admitted.bucket, &request.key, &version))
        });
        found.await.map(Response::new)
    }

    type GetObjectStream = Messages<proto::GetObjectResponse>;

    async fn get_object(
        &self,
        request: Request<proto::GetObjectRequest>,
    ) -> Result<Response<Self::GetObjectStream>, Status> {
        let (metadata, _, request) = request.into_parts();
        let action = read_action(&request.version_id);
        let asked = Asked::of_object(&metadata, &request.bucket, &request.key, action, Need::Read);
        let (object, pieces) = in_bucket(&self.0, asked, move |core, admitted| {
            let version = object_of(core, &admitted.bucket, &request.key, &request.version_id)?;
            let record = version.object().ok_or_else(nothing)?;
            if request.offset > record.size {
                return Err(Status::out_of_range(format!("the object has {} bytes", record.size)).into());
            }
            let end = match request.length {
                0 => record.size,
                length => record.size.min(request.offset.saturating_add(length)),
            };
            let read = core
                .objects
                .read(admitted.bucket.tenant(), &record.content, request.offset..end);
            let pieces: Pieces = Box::new(read.map_err(of_index)?);
            Ok((show(&admitted.bucket, &request.key, &version), pieces))
        })
        .await?;
        let first = proto::GetObjectResponse {
            part: Some(get_object_response::Part::Object(object)),
        };
        let core = Arc::clone(&self.0);
        let counted = Arc::new(core.pool.answer());
        let state = (Some(pieces), vec![first].into_iter());
        let messages = stream::try_unfold(state, move |(mut pieces, mut ready)| {
            let (core, counted) = (Arc::clone(&core), Arc::clone(&counted));
            async move {
                loop {
                    if let Some(message) = ready.next() {
                        return Ok(Some((message, (pieces, ready))));
                    }
                    let Some(rest) = pieces else { return Ok(None) };
                    let len = batch_len(&counted);
                    let read = core.pool.run_patiently(move || read(rest, len)).await;
                    let (left, messages) = read.map_err(Status::from)?;
                    (pieces, ready) = (left, messages.into_iter());
                }
            }
        });
        Ok(Response::new(Box::pin(messages)))
    }

    async fn put_object(
        &self,
        request: Request<Streaming<proto::PutObjectRequest>>,
    ) -> Result<Response<proto::Object>, Status> {
        let (metadata, _, mut messages) = request.into_parts();
        let first = self.0.next(&mut messages).await?.and_then(|first| first.part);
        let Some(put_object_request::Part::Header(header)) = first else {
            return Err(Status::invalid_argument("the first message is the header"));
        };
        let condition = condition_of(&header)?;
        check_described(&header)?;
        let asked = Asked::of_object(&metadata, &header.bucket, &header.key, Action::PutObject, Need::Write);
        let key = key_of(&header.key)?;
        let (mut writer, permit) = in_bucket(&self.0, asked, |core, admitted| {
            let wanted = DigestsWanted {
                md5: admitted.bucket.record.settings.etag == EtagKind::Md5,
                ..DigestsWanted::default()
            };
            let writer = core.objects.writer(&admitted.bucket, &wanted).map_err(of_index)?;
            Ok((writer, admitted.permit))
        })
        .await?;
        let (mut len, mut waiting, mut waiting_len) = (0_u64, Vec::new(), 0);
        while let Some(message) = self.0.next(&mut messages).await? {
            let Some(put_object_request::Part::Data(data)) = message.part else {
                return Err(Status::invalid_argument("the header comes once, and bytes behind it"));
            };
            len += data.len() as u64;
            if len > OBJECT_LEN_MAX {
                return Err(Status::invalid_argument("an object has 5 TiB at most"));
            }
            waiting_len += data.len();
            // Messages without bytes would be held without a bound.
            if !data.is_empty() {
                waiting.push(data);
            }
            if waiting_len >= STORED_LEN {
                let pieces = std::mem::take(&mut waiting);
                waiting_len = 0;
                let pushed = self.0.pool.run_patiently(move || push(writer, &pieces));
                writer = pushed.await.map_err(Status::from)?;
            }
        }
        let put = self.0.pool.run_patiently(move || {
            let writer = push(writer, &waiting)?;
            finish(writer, &permit, &key, header, &condition)
        });
        put.await.map(Response::new).map_err(Status::from)
    }

    async fn list_objects(
        &self,
        request: Request<proto::ListObjectsRequest>,
    ) -> Result<Response<proto::ListObjectsResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let asked = Asked::of_bucket(&metadata, &request.bucket, Action::ListBucket, Need::Read);
        let listed = in_bucket(&self.0, asked, move |core, admitted| {
            let start = match request.page_token.is_empty() {
                true => ListStart::Beginning,
                false => ListStart::from_token(&request.page_token).map_err(of_index)?,
            };
            let list = List {
                prefix: &request.prefix,
                delimiter: &request.delimiter,
                start,
                limit: page_of(request.page_size)?,
            };
            let page = core.objects.names().objects(&admitted.bucket).list(&list);
            let page = page.map_err(of_index)?;
            let mut answer = proto::ListObjectsResponse {
                next_page_token: page.next.and_then(|next| next.to_token()).unwrap_or_default(),
                ..Default::default()
            };
            for entry in page.entries {
                match entry {
                    Listed::Item(item) => {
                        answer
                            .objects
                            .push(show(&admitted.bucket, item.key.as_str(), &item.version));
                    }
                    Listed::Prefix(prefix) => answer.prefixes.push(prefix),
                }
            }
            Ok(answer)
        });
        listed.await.map(Response::new)
    }

    async fn list_versions(
        &self,
        request: Request<proto::ListVersionsRequest>,
    ) -> Result<Response<proto::ListVersionsResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let asked = Asked::of_bucket(&metadata, &request.bucket, Action::ListBucketVersions, Need::Read);
        let listed = in_bucket(&self.0, asked, move |core, admitted| {
            let from = match request.page_token.is_empty() {
                true => VersionStart::AsListed,
                false => place_of(&request.page_token)?,
            };
            let list = List {
                prefix: &request.prefix,
                limit: page_of(request.page_size)?,
                ..List::default()
            };
            let page = core
                .objects
                .names()
                .objects(&admitted.bucket)
                .list_versions(&list, &from);
            let page = page.map_err(of_index)?;
            let mut answer = proto::ListVersionsResponse::default();
            for entry in page.entries {
                if let Listed::Item(item) = entry {
                    answer
                        .versions
                        .push(show(&admitted.bucket, item.key.as_str(), &item.version));
                }
            }
            if let (Some(_), Some(last)) = (page.next, answer.versions.last()) {
                answer.next_page_token = format!("{} {}", last.version_id, last.key);
            }
            Ok(answer)
        });
        listed.await.map(Response::new)
    }

    async fn delete_object(
        &self,
        request: Request<proto::DeleteObjectRequest>,
    ) -> Result<Response<proto::DeleteObjectResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let action = match request.version_id.is_empty() {
            true => Action::DeleteObject,
            false => Action::DeleteObjectVersion,
        };
        let asked = Asked::of_object(&metadata, &request.bucket, &request.key, action, Need::Write);
        let deleted = in_bucket(&self.0, asked, move |core, admitted| {
            let (key, id) = (key_of(&request.key)?, id_of(&request.version_id)?);
            let (owner, cause) = (owner_of(&admitted.permit)?, cause_of(&admitted.permit));
            let objects = core.objects.names().objects(&admitted.bucket);
            let deleted = objects.delete(&key, id, &owner, &Condition::Always, &cause);
            Ok(match deleted.map_err(of_index)? {
                Deleted::Nothing => proto::DeleteObjectResponse::default(),
                Deleted::MarkerPut(id) => proto::DeleteObjectResponse {
                    deleted: true,
                    version_id: id.to_string(),
                    marker_put: true,
                },
                Deleted::Version { id, .. } => proto::DeleteObjectResponse {
                    deleted: true,
                    version_id: id.to_string(),
                    marker_put: false,
                },
            })
        });
        deleted.await.map(Response::new)
    }

    async fn copy_object(&self, request: Request<proto::CopyObjectRequest>) -> Result<Response<proto::Object>, Status> {
        let (metadata, _, request) = request.into_parts();
        let to = Asked::of_object(&metadata, &request.bucket, &request.key, Action::PutObject, Need::Write);
        let action = read_action(&request.from_version_id);
        let from = to.and_object(&request.from_bucket, &request.from_key, action, Need::Read);
        let copied = in_bucket_slowly(&self.0, to, move |core, to| {
            let from = admit(core, &from)?;
            let version = object_of(core, &from.bucket, &request.from_key, &request.from_version_id)?;
            let record = version.object().ok_or_else(nothing)?.clone();
            let key = key_of(&request.key)?;
            let (owner, cause) = (owner_of(&to.permit)?, cause_of(&to.permit));
            let body = core
                .objects
                .copy(&from.bucket, &version, &to.bucket)
                .map_err(of_index)?;
            let describe = |new: &mut NewVersion| {
                new.record.headers = record.headers;
                new.record.metadata = record.metadata;
                new.record.tags = record.tags;
            };
            let written = body.put(&key, &owner, describe, &Condition::Always, &cause);
            let written = written.map_err(of_index)?;
            Ok(show(&to.bucket, &request.key, &written.version))
        });
        copied.await.map(Response::new)
    }
}

fn nothing() -> Failed {
    Failed(Status::not_found("there is no such object"))
}

fn read_action(version_id: &str) -> Action {
    match version_id.is_empty() {
        true => Action::GetObject,
        false => Action::GetObjectVersion,
    }
}

pub(super) fn key_of(key: &str) -> Result<ObjectKey, Status> {
    ObjectKey::new(key).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn id_of(version_id: &str) -> Result<Option<VersionId>, Status> {
    if version_id.is_empty() {
        return Ok(None);
    }
    let id = VersionId::parse(version_id);
    id.map(Some)
        .map_err(|_| Status::invalid_argument("a version's id is null, or 40 of 0-9 and a-f"))
}

fn owner_of(permit: &Permit) -> Answer<Owner> {
    Ok(Owner::new(&permit.user().id)?)
}

fn cause_of(permit: &Permit) -> Cause {
    Cause {
        source: "api".to_owned(),
        actor: Some(permit.user().id.clone()),
        trace_id: None,
    }
}

fn page_of(page_size: u32) -> Result<usize, Status> {
    match usize::try_from(page_size).unwrap_or(usize::MAX) {
        0 => Ok(PAGE_MAX),
        size if size <= PAGE_MAX => Ok(size),
        _ => Err(Status::invalid_argument(format!(
            "a page has {PAGE_MAX} entries at most"
        ))),
    }
}

fn place_of(token: &str) -> Answer<VersionStart> {
    let bad = || Status::invalid_argument("the page token is none that was given out for this");
    let (id, key) = token.split_once(' ').ok_or_else(bad)?;
    let id = VersionId::parse(id).map_err(|_| bad())?;
    let key = ObjectKey::new(key).map_err(|_| bad())?;
    Ok(VersionStart::Version(key, id))
}

/// The version that is asked for: the newest if none is named. It may be a delete marker if one is.
pub(super) fn version_of(core: &Core, bucket: &Bucket, key: &str, version_id: &str) -> Answer<ObjectVersion> {
    let (key, objects) = (key_of(key)?, core.objects.names().objects(bucket));
    match id_of(version_id)? {
        Some(id) => objects.version(&key, id).map_err(of_index),
        None => match objects.get(&key).map_err(of_index)? {
            Current::Object(version) => Ok(*version),
            Current::Deleted(_) | Current::Nothing => Err(nothing()),
        },
    }
}

/// [`version_of`] that is an object.
fn object_of(core: &Core, bucket: &Bucket, key: &str, version_id: &str) -> Answer<ObjectVersion> {
    let version = version_of(core, bucket, key, version_id)?;
    match version.object() {
        Some(_) => Ok(version),
        None => Err(nothing()),
    }
}

pub(super) fn condition_of(header: &put_object_request::Header) -> Result<Condition, Status> {
    match (header.if_absent, header.if_match.as_str()) {
        (true, "") => Ok(Condition::Absent),
        (true, _) => Err(Status::invalid_argument("if_absent and if_match exclude each other")),
        (false, "") => Ok(Condition::Always),
        (false, tag) => {
            let tag = Etag::opaque(tag).map_err(|error| Status::invalid_argument(error.to_string()))?;
            Ok(Condition::Matches(vec![tag]))
        }
    }
}

/// Bounds of what is said of an object, which S3 has too.
pub(super) fn check_described(header: &put_object_request::Header) -> Result<(), Status> {
    let len = |pairs: &HashMap<String, String>| {
        pairs
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum::<usize>()
    };
    if len(&header.metadata) > METADATA_LEN_MAX {
        let words = format!("metadata has {METADATA_LEN_MAX} bytes at most, names and values together");
        return Err(Status::invalid_argument(words));
    }
    let is_name = |name: &String| {
        let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
        !name.is_empty() && name.bytes().all(letters)
    };
    if !header.metadata.keys().all(is_name) || header.metadata.values().any(|value| value.contains(['\r', '\n', '\0']))
    {
        return Err(Status::invalid_argument(
            "names of metadata are of a-z, 0-9, '-', '_' and '.', and values have no line breaks",
        ));
    }
    let is_tag =
        |(name, value): (&String, &String)| (1..=128).contains(&name.chars().count()) && value.chars().count() <= 256;
    if header.tags.len() > TAGS_MAX || !header.tags.iter().all(is_tag) {
        return Err(Status::invalid_argument(
            "an object has 10 tags at most, with names of 1 to 128 characters and values of up to 256",
        ));
    }
    if header.content_type.len() > 256
        || header
            .content_type
            .contains(|letter: char| !(' '..='~').contains(&letter))
    {
        return Err(Status::invalid_argument(
            "a content type is of up to 256 printable characters",
        ));
    }
    Ok(())
}

fn push(mut writer: ObjectWriter, pieces: &[Bytes]) -> Answer<ObjectWriter> {
    for piece in pieces {
        writer.push(piece).map_err(of_index)?;
    }
    Ok(writer)
}

fn finish(
    writer: ObjectWriter,
    permit: &Permit,
    key: &ObjectKey,
    header: put_object_request::Header,
    condition: &Condition,
) -> Answer<proto::Object> {
    let bucket = writer.bucket().clone();
    let body = writer.finish().map_err(of_index)?;
    let written = name(body, permit, key, header, condition)?.map_err(of_index)?;
    Ok(show(&bucket, key.as_str(), &written.version))
}

/// Gives a body its name, with what its header says of it.
pub(super) fn name(
    body: Body,
    permit: &Permit,
    key: &ObjectKey,
    header: put_object_request::Header,
    condition: &Condition,
) -> Answer<cairn_index::Result<Written>> {
    let sorted = |pairs: HashMap<String, String>| {
        let mut pairs: Vec<_> = pairs.into_iter().collect();
        pairs.sort();
        pairs
    };
    let describe = |new: &mut NewVersion| {
        new.record.headers.content_type = Some(header.content_type).filter(|kind| !kind.is_empty());
        new.record.metadata = sorted(header.metadata);
        new.record.tags = sorted(header.tags);
    };
    Ok(body.put(key, &owner_of(permit)?, describe, condition, &cause_of(permit)))
}

/// Reads the next messages; no pieces come back at the end.
fn read(mut pieces: Pieces, batch_len: usize) -> Answer<(Option<Pieces>, Vec<proto::GetObjectResponse>)> {
    let (mut messages, mut len) = (Vec::new(), 0);
    while len < batch_len {
        let Some(piece) = pieces.next() else {
            return Ok((None, messages));
        };
        let mut piece = piece.map_err(of_index)?;
        len += piece.len();
        while !piece.is_empty() {
            let data = piece.split_to(piece.len().min(MESSAGE_LEN));
            messages.push(proto::GetObjectResponse {
                part: Some(get_object_response::Part::Data(data)),
            });
        }
    }
    Ok((Some(pieces), messages))
}

pub(super) fn show(bucket: &Bucket, key: &str, version: &ObjectVersion) -> proto::Object {
    let mut shown = proto::Object {
        bucket: bucket.name().to_string(),
        key: key.to_owned(),
        version_id: version.id.to_string(),
        created_ms: version.created_ms(),
        owner: version.owner.as_str().to_owned(),
        delete_marker: version.object().is_none(),
        ..Default::default()
    };
    if let Some(record) = version.object() {
        shown.size = record.size;
        shown.etag = record.etag.to_string();
        shown.content_type = record.headers.content_type.clone().unwrap_or_default();
        shown.metadata = record.metadata.iter().cloned().collect();
        shown.tags = record.tags.iter().cloned().collect();
    }
    shown
}
