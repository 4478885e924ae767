//! Blobs as streams of bytes: reading from any place on, writing with a way to go on, plain and as zstd.
//!
//! What is read compressed is what lies in the packs. The next piece is read while the last is on its way. An upload whose stream
//! ends before its bytes waits (`uploads`). A blob that is there already ends its upload at once.

use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use cairn_identity::{Action, Permit};
use cairn_index::names::BlobKey;
use cairn_proto::google::bytestream::byte_stream_server;
use cairn_proto::google::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, ReadResponse, WriteRequest, WriteResponse,
};
use futures_util::stream::{self, Stream};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::error::Answer;
use super::names::{Form, Resource};
use super::uploads::{Held, Uploads, lock};
use super::{Admitted, Ask, Core};
use crate::pool::Counted;

/// Bytes of a message that is sent, at most ...
const MESSAGE_LEN: usize = 1 << 20;
/// ... and pieces below this are sent together.
const SMALL_LEN: usize = 64 << 10;
/// Bytes that are read in one job, at least and at most ...
const BATCH_LEN: (usize, usize) = (64 << 10, 1 << 20);
/// ... and in those of all calls together.
const BATCHES_LEN: usize = 64 << 20;
/// Bytes that are stored in one job, unless a client sends longer messages.
pub(super) const STORED_LEN: usize = 512 << 10;
/// May say again what is read or written, for who sends calls on.
const NAME_HEADER: &str = "build.bazel.remote.execution.v2.resource-name";

#[derive(Clone, Debug)]
pub(super) struct ByteStream(pub(super) Arc<Core>);

/// Bytes in pieces, in order; ends behind the first error.
type Pieces = Box<dyn Iterator<Item = cairn_index::Result<Bytes>> + Send>;

#[tonic::async_trait]
impl byte_stream_server::ByteStream for ByteStream {
    type ReadStream = Pin<Box<dyn Stream<Item = Result<ReadResponse, Status>> + Send>>;

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let resource = Resource::of_read(&request.get_ref().resource_name, &self.0.options.functions)?;
        check_header(request.metadata(), &request.get_ref().resource_name)?;
        let ask = Ask::new(request.metadata(), &resource.instance, Action::GetBlob)?;
        let request = request.into_inner();
        let counted = self.0.pool.answer();
        let len = batch_len(&counted);
        let work = move |core: &Arc<Core>, admitted: Admitted| {
            let pieces = open(core, admitted.permit.clone(), &admitted, &resource, &request)?;
            read(pieces, len)
        };
        let (rest, first) = self.0.admitted(ask, work).await?;
        let core = Arc::clone(&self.0);
        let counted = Arc::new(counted);
        let messages = stream::try_unfold((rest, first.into_iter()), move |(mut rest, mut ready)| {
            let (core, counted) = (Arc::clone(&core), Arc::clone(&counted));
            async move {
                loop {
                    if let Some(data) = ready.next() {
                        return Ok(Some((ReadResponse { data }, (rest, ready))));
                    }
                    let Some(pieces) = rest else { return Ok(None) };
                    let len = batch_len(&counted);
                    let read = core.pool.run_patiently(move || read(pieces, len));
                    let (left, batch) = read.await.map_err(Status::from)?;
                    (rest, ready) = (left, batch.into_iter());
                }
            }
        });
        Ok(Response::new(Box::pin(messages)))
    }

    async fn write(&self, request: Request<Streaming<WriteRequest>>) -> Result<Response<WriteResponse>, Status> {
        let (metadata, _, mut messages) = request.into_parts();
        let Some(first) = self.0.next(&mut messages).await? else {
            return Err(Status::invalid_argument("a write without a message"));
        };
        check_header(&metadata, &first.resource_name)?;
        let resource = Resource::of_write(&first.resource_name, &self.0.options.functions)?;
        let ask = Ask::new(&metadata, &resource.instance, Action::PutBlob)?;
        let (name, offset) = (first.resource_name.clone(), first.write_offset);
        let size = resource.digest.size();
        let begun = {
            let name = name.clone();
            let work = move |core: &Arc<Core>, admitted: Admitted| {
                begin(core, admitted.permit.clone(), &admitted, &resource, name, offset)
            };
            self.0.admitted(ask, work).await?
        };
        let committed_size = match begun {
            Begun::There(size) => size,
            Begun::Open(held) => self.take(held, size, first, &mut messages).await?,
        };
        Ok(Response::new(WriteResponse { committed_size }))
    }

    async fn query_write_status(
        &self,
        request: Request<QueryWriteStatusRequest>,
    ) -> Result<Response<QueryWriteStatusResponse>, Status> {
        let name = request.get_ref().resource_name.clone();
        let resource = Resource::of_write(&name, &self.0.options.functions)?;
        check_header(request.metadata(), &name)?;
        let ask = Ask::new(request.metadata(), &resource.instance, Action::PutBlob)?;
        let work = move |core: &Arc<Core>, admitted: Admitted| {
            status(core, admitted.permit.clone(), &admitted, &resource, name)
        };
        self.0.admitted(ask, work).await.map(Response::new)
    }
}

fn check_header(metadata: &MetadataMap, name: &str) -> Result<(), Status> {
    match metadata.get(NAME_HEADER) {
        Some(value) if value.as_bytes() != name.as_bytes() => Err(Status::invalid_argument(
            "the header names another resource than the message",
        )),
        _ => Ok(()),
    }
}

/// The bytes that a call asks for.
fn open(
    core: &Core,
    _permit: Permit,
    admitted: &Admitted,
    resource: &Resource,
    request: &ReadRequest,
) -> Answer<Pieces> {
    let size = resource.digest.size();
    let from = u64::try_from(request.read_offset).ok().filter(|from| *from <= size);
    let from = from.ok_or_else(|| Status::out_of_range(format!("the blob has {size} bytes")))?;
    let limit = u64::try_from(request.read_limit).map_err(|_| Status::invalid_argument("a read limit below 0"))?;
    if resource.form == Form::Zstd && limit > 0 {
        return Err(Status::invalid_argument("a compressed blob is read to its end: no read limit").into());
    }
    if Core::is_empty(&resource.digest) {
        return Ok(Box::new(std::iter::empty()));
    }
    let blob = core
        .objects
        .names()
        .blobs(&admitted.bucket)
        .get(&BlobKey::Content(resource.digest))?;
    let blob = blob.ok_or_else(|| Status::not_found("there is no such blob"))?;
    let tenant = admitted.bucket.tenant();
    Ok(match resource.form {
        Form::Zstd => Box::new(core.objects.blob_frames(tenant, &blob, from)?),
        Form::Identity => {
            let to = if limit == 0 {
                size
            } else {
                size.min(from.saturating_add(limit))
            };
            Box::new(core.objects.read_blob(tenant, &blob, from..to)?)
        }
    })
}

/// Bytes that a call's next job reads.
pub(super) fn batch_len(counted: &Counted) -> usize {
    (BATCHES_LEN / counted.count()).clamp(BATCH_LEN.0, BATCH_LEN.1)
}

/// Reads the next messages; no pieces come back at the end.
fn read(mut pieces: Pieces, batch_len: usize) -> Answer<(Option<Pieces>, Vec<Bytes>)> {
    let (mut messages, mut small, mut len) = (Vec::new(), BytesMut::new(), 0);
    let rest = loop {
        if len >= batch_len {
            break Some(pieces);
        }
        let Some(piece) = pieces.next() else { break None };
        let mut piece = piece?;
        len += piece.len();
        if piece.len() < SMALL_LEN {
            small.extend_from_slice(&piece);
            if small.len() >= SMALL_LEN {
                messages.push(small.split().freeze());
            }
            continue;
        }
        if !small.is_empty() {
            messages.push(small.split().freeze());
        }
        while !piece.is_empty() {
            messages.push(piece.split_to(piece.len().min(MESSAGE_LEN)));
        }
    };
    if !small.is_empty() {
        messages.push(small.freeze());
    }
    Ok((rest, messages))
}

/// What a write begins with.
enum Begun {
    /// The blob is there: what is answered.
    There(i64),
    /// Its bytes are wanted.
    Open(Held),
}

fn begin(
    core: &Arc<Core>,
    _permit: Permit,
    admitted: &Admitted,
    resource: &Resource,
    name: String,
    offset: i64,
) -> Answer<Begun> {
    let digest = resource.digest;
    core.check_len(&digest)?;
    let offset = u64::try_from(offset).map_err(|_| Status::invalid_argument("a write offset below 0"))?;
    let there = match resource.form {
        Form::Identity => i64::try_from(digest.size()).unwrap_or(i64::MAX),
        Form::Zstd => -1,
    };
    let key = [BlobKey::Content(digest)];
    if Core::is_empty(&digest) || core.objects.names().blobs(&admitted.bucket).present(&key)? == [true] {
        return Ok(Begun::There(there));
    }
    let key = (admitted.bucket.id(), name);
    let held = if offset > 0 {
        Uploads::resume(core, key, offset)?
    } else {
        Uploads::begin(core, key, || core.objects.blob_writer(&admitted.bucket, digest))?
    };
    {
        let mut upload = lock(&held.upload);
        match resource.form {
            Form::Identity => upload.begin_plain(),
            Form::Zstd => upload.begin_frames()?,
        }
    }
    Ok(Begun::Open(held))
}

fn status(
    core: &Core,
    _permit: Permit,
    admitted: &Admitted,
    resource: &Resource,
    name: String,
) -> Answer<QueryWriteStatusResponse> {
    let digest = resource.digest;
    let key = [BlobKey::Content(digest)];
    if Core::is_empty(&digest) || core.objects.names().blobs(&admitted.bucket).present(&key)? == [true] {
        return Ok(QueryWriteStatusResponse {
            committed_size: i64::try_from(digest.size()).unwrap_or(i64::MAX),
            complete: true,
        });
    }
    let committed = core.uploads.committed(&(admitted.bucket.id(), name));
    let committed = committed.ok_or_else(|| Status::not_found("there is no such upload"))?;
    Ok(QueryWriteStatusResponse {
        committed_size: i64::try_from(committed).unwrap_or(i64::MAX),
        complete: false,
    })
}

impl ByteStream {
    /// Takes the messages of an upload. Returns what is answered.
    ///
    /// What is left out is taken for what it can only be, as bazel-remote leaves it out: 0 as the offset of a later message goes on behind the
    /// one before, and a stream that ends when all is there is finished. The digest is compared in any case.
    ///
    /// - `size`: of the blob.
    async fn take(
        &self,
        held: Held,
        size: u64,
        first: WriteRequest,
        messages: &mut Streaming<WriteRequest>,
    ) -> Result<i64, Status> {
        // Where the next message has to go on: of what is compressed, the plain place of the beginning and compressed bytes since.
        let (mut place, name) = (first.write_offset, first.resource_name.clone());
        let mut message = Some(first);
        let (mut waiting, mut len) = (Vec::new(), 0);
        loop {
            let mut is_finished = false;
            let next = match message.take() {
                Some(first) => Some(first),
                None => match self.0.next(messages).await {
                    Ok(next) => next,
                    Err(status) => {
                        // What has come is kept for who goes on.
                        self.store(&held, std::mem::take(&mut waiting)).await?;
                        return Err(status);
                    }
                },
            };
            if let Some(next) = &next {
                let is_named = next.resource_name.is_empty() || next.resource_name == name;
                if !is_named || ![0, place].contains(&next.write_offset) {
                    return Err(Status::invalid_argument(format!(
                        "a message of another resource, or not for offset {place}"
                    )));
                }
                place = place.saturating_add(i64::try_from(next.data.len()).unwrap_or(i64::MAX));
                is_finished = next.finish_write;
            }
            let at_end = next.is_none() || is_finished;
            // Messages without bytes would be held without a bound.
            if let Some(next) = next
                && !next.data.is_empty()
            {
                len += next.data.len();
                waiting.push(next.data);
            }
            if len >= STORED_LEN || at_end {
                len = 0;
                if let Err(status) = self.store(&held, std::mem::take(&mut waiting)).await {
                    held.end();
                    return Err(status);
                }
            }
            if is_finished {
                return self.finish(held, place).await;
            }
            if at_end {
                let committed = lock(&held.upload).byte_len().unwrap_or(0);
                if committed == size {
                    return self.finish(held, place).await;
                }
                // Half-closed in the middle: it waits for who goes on.
                return Ok(i64::try_from(committed).unwrap_or(i64::MAX));
            }
        }
    }

    async fn store(&self, held: &Held, pieces: Vec<Bytes>) -> Result<(), Status> {
        let upload = Arc::clone(&held.upload);
        let job = move || {
            let mut upload = lock(&upload);
            pieces.iter().try_for_each(|piece| upload.push(piece))
        };
        Ok(self.0.pool.run_patiently(job).await?)
    }

    async fn finish(&self, held: Held, place: i64) -> Result<i64, Status> {
        let upload = Arc::clone(&held.upload);
        let finished = self.0.pool.run_patiently(move || lock(&upload).finish()).await;
        held.end();
        finished?;
        // All of it; of what was compressed, the place behind its last byte.
        Ok(place)
    }
}
