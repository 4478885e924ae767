//! `cairn.v1.ChunkStore`: the chunks of a bucket's dedup domain, many in a call.
//!
//! What is sent was opened and hashed first; what comes is stored only if it is what its id says. Bounded: ids of a call, bytes read
//! together, bytes stored together. Sessions are `sessions`, what they end with is `commit`, watching is `events`.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use cairn_formats::{CHUNK_LEN_MAX, ChunkForm, ChunkId, DigestAlgorithm, EncodedChunk, Level, StorableChunk};
use cairn_identity::Action;
use cairn_proto::cairn::v1 as proto;
use cairn_proto::cairn::v1::chunk_store_server;
use cairn_proto::cairn::v1::resolve_range_response::Extent;
use futures_util::FutureExt as _;
use futures_util::stream::{self, Stream};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::commit::Commit;
use super::events::{Cursor, Place, Told, Watched, told};
use super::objects::version_of;
use super::{Asked, InBucket, admit, in_bucket, of_index};
use crate::faces::caller::Need;
use crate::grpc::Core;
use crate::grpc::byte_stream::batch_len;
use crate::grpc::error::{Answer, Failed};

/// Ids of a call at most.
pub(super) const IDS_MAX: usize = 65_536;
/// Chunks that are asked for together; a job asks until it has the bytes that one call may have in memory.
const READ_CHUNKS: usize = 8;
/// Of a message, what is no bytes of a chunk.
const OVERHEAD_LEN: usize = 64;
/// Bytes of room for each of them.
const READ_LEN: usize = 128 << 10;
/// Chunks stored in one job, and bytes after which no more are added to it.
const STORED_CHUNKS: usize = 64;
const STORED_LEN: usize = 2 << 20;
/// Extents of a message, and of a call.
const EXTENTS: usize = 4096;
const EXTENTS_MAX: usize = 1 << 14;

#[derive(Clone, Debug)]
pub(in crate::grpc) struct ChunkStore(pub(in crate::grpc) Arc<Core>);

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl chunk_store_server::ChunkStore for ChunkStore {
    async fn has_chunks(
        &self,
        request: Request<proto::HasChunksRequest>,
    ) -> Result<Response<proto::HasChunksResponse>, Status> {
        let asked = Asked::of_bucket(
            request.metadata(),
            &request.get_ref().bucket,
            Action::GetChunk,
            Need::Read,
        );
        let (ids, session) = (ids_of(&request.get_ref().ids)?, request.get_ref().session.clone());
        let present = in_bucket(&self.0, asked, move |core, admitted| {
            core.sessions.renew_named(&admitted, &session)?;
            let there = core.objects.chunk_store(&admitted.bucket).has_many(&ids);
            Ok(bits_of(&there.map_err(of_store)?))
        });
        let present = present.await?;
        Ok(Response::new(proto::HasChunksResponse { present }))
    }

    type PutChunksStream = Messages<proto::PutChunksResponse>;

    async fn put_chunks(
        &self,
        request: Request<Streaming<proto::PutChunksRequest>>,
    ) -> Result<Response<Self::PutChunksStream>, Status> {
        let (metadata, _, mut messages) = request.into_parts();
        let Some(first) = self.0.next(&mut messages).await? else {
            return Err(Status::invalid_argument(
                "a put without a message: the first names the bucket",
            ));
        };
        let (bucket, session) = (first.bucket.clone(), first.session.clone());
        let asked = to_write(&metadata, &bucket);
        let (begun, again) = (session.clone(), asked.clone());
        let opened = in_bucket(&self.0, asked, move |core, admitted| {
            core.sessions.renew_named(&admitted, &begun)?;
            Ok((core.objects.chunk_store(&admitted.bucket), admitted.bucket.id()))
        });
        let (store, opened) = opened.await?;
        let core = Arc::clone(&self.0);
        // The first may name the bucket and no more.
        let first = Some(first).filter(|first| !first.id.is_empty() || !first.data.is_empty());
        let state = (messages, first, 0_u64, false);
        let acks = stream::try_unfold(state, move |(mut messages, mut first, stored, ended)| {
            let (core, store, bucket) = (Arc::clone(&core), Arc::clone(&store), bucket.clone());
            let (again, session) = (again.clone(), session.clone());
            async move {
                if ended {
                    return Ok(None);
                }
                let (mut batch, mut len, mut ended) = (Vec::new(), 0, false);
                while batch.len() < STORED_CHUNKS && len < STORED_LEN {
                    let next = match first.take() {
                        Some(first) => Some(first),
                        None if batch.is_empty() => core.next(&mut messages).await?,
                        // Whoever waits for an acknowledgement sends nothing more.
                        None => match messages.message().now_or_never() {
                            Some(next) => next?,
                            None => break,
                        },
                    };
                    let Some(message) = next else {
                        ended = true;
                        break;
                    };
                    if !(message.bucket.is_empty() || message.bucket == bucket) {
                        return Err(Status::invalid_argument("the first message names the bucket of all"));
                    }
                    len += message.data.len();
                    batch.push(chunk_of(message)?);
                }
                if batch.is_empty() {
                    return Ok(None);
                }
                let count = batch.len() as u64;
                let (digest, len_max) = (
                    core.objects.options().digest,
                    core.options.message_len_max - OVERHEAD_LEN,
                );
                let inner = Arc::clone(&core);
                let put = core.pool.run_patiently(move || {
                    // Its right may have been taken away since.
                    let admitted = admit(&inner, &again)?;
                    if admitted.bucket.id() != opened {
                        return Err(Status::not_found("there is no such bucket any more").into());
                    }
                    inner.sessions.renew_named(&admitted, &session)?;
                    let chunks = prove(batch, digest, len_max)?;
                    store.put_many(&chunks).and_then(|()| store.flush()).map_err(of_store)
                });
                put.await.map_err(Status::from)?;
                let stored = stored + count;
                let ack = proto::PutChunksResponse {
                    stored,
                    durability: proto::Durability::Sync as i32,
                };
                Ok(Some((ack, (messages, first, stored, ended))))
            }
        });
        Ok(Response::new(Box::pin(acks)))
    }

    type GetChunksStream = Messages<proto::GetChunksResponse>;

    async fn get_chunks(
        &self,
        request: Request<proto::GetChunksRequest>,
    ) -> Result<Response<Self::GetChunksStream>, Status> {
        let asked = Asked::of_bucket(
            request.metadata(),
            &request.get_ref().bucket,
            Action::GetChunk,
            Need::Read,
        );
        let plain = request.get_ref().plain;
        let ids = ids_of(&request.get_ref().ids)?;
        let store = in_bucket(&self.0, asked, |core, admitted| {
            Ok(core.objects.chunk_store(&admitted.bucket))
        });
        let store = store.await?;
        let core = Arc::clone(&self.0);
        let counted = Arc::new(core.pool.answer());
        let state = (ids.into_iter(), Vec::new().into_iter());
        let chunks = stream::try_unfold(state, move |(mut ids, mut ready)| {
            let (core, store, counted) = (Arc::clone(&core), Arc::clone(&store), Arc::clone(&counted));
            async move {
                loop {
                    if let Some(message) = ready.next() {
                        return Ok(Some((message, (ids, ready))));
                    }
                    if ids.len() == 0 {
                        return Ok(None);
                    }
                    let (store, len) = (Arc::clone(&store), batch_len(&counted));
                    let form = GivenAs {
                        digest: core.objects.options().digest,
                        plain,
                        len_max: core.options.message_len_max - OVERHEAD_LEN,
                    };
                    let read = core.pool.run_patiently(move || {
                        let messages = read(&*store, &mut ids, form, len)?;
                        Ok::<_, Failed>((ids, messages))
                    });
                    let (rest, messages) = read.await.map_err(Status::from)?;
                    (ids, ready) = (rest, messages.into_iter());
                }
            }
        });
        Ok(Response::new(Box::pin(chunks)))
    }

    type ResolveRangeStream = Messages<proto::ResolveRangeResponse>;

    async fn resolve_range(
        &self,
        request: Request<proto::ResolveRangeRequest>,
    ) -> Result<Response<Self::ResolveRangeStream>, Status> {
        let (metadata, _, request) = request.into_parts();
        let action = match request.version_id.is_empty() {
            true => Action::GetObject,
            false => Action::GetObjectVersion,
        };
        let asked = Asked::of_object(&metadata, &request.bucket, &request.key, action, Need::Read);
        let extents = in_bucket(&self.0, asked, move |core, admitted| resolve(core, &admitted, &request)).await?;
        let messages: Vec<_> = extents
            .chunks(EXTENTS)
            .map(|extents| {
                Ok(proto::ResolveRangeResponse {
                    extents: extents.to_vec(),
                })
            })
            .collect();
        Ok(Response::new(Box::pin(stream::iter(messages))))
    }

    async fn open_session(
        &self,
        request: Request<proto::OpenSessionRequest>,
    ) -> Result<Response<proto::Session>, Status> {
        let asked = to_write(request.metadata(), &request.get_ref().bucket);
        let opened = in_bucket(&self.0, asked, |core, admitted| {
            core.sessions.begin(&core.objects, &admitted)
        });
        opened.await.map(Response::new)
    }

    async fn heartbeat(&self, request: Request<proto::HeartbeatRequest>) -> Result<Response<proto::Session>, Status> {
        let asked = to_write(request.metadata(), &request.get_ref().bucket);
        let session = request.into_inner().session;
        let renewed = in_bucket(&self.0, asked, move |core, admitted| {
            core.sessions.renew(&admitted, &session)
        });
        renewed.await.map(Response::new)
    }

    async fn commit_manifest(
        &self,
        request: Request<proto::CommitManifestRequest>,
    ) -> Result<Response<proto::CommitManifestResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let place = request.header.as_ref().map(|header| (&*header.bucket, &*header.key));
        let (bucket, key) = place.unwrap_or_default();
        let asked = Asked::of_object(&metadata, bucket, key, Action::PutObject, Need::Write);
        let committed = in_bucket(&self.0, asked, move |core, admitted| {
            Commit::read(request)?.run(core, &admitted)
        });
        committed.await.map(Response::new)
    }

    async fn abort_session(
        &self,
        request: Request<proto::AbortSessionRequest>,
    ) -> Result<Response<proto::AbortSessionResponse>, Status> {
        let asked = to_write(request.metadata(), &request.get_ref().bucket);
        let session = request.into_inner().session;
        let ended = in_bucket(&self.0, asked, move |core, admitted| {
            core.sessions.end(&admitted, &session)
        });
        ended
            .await
            .map(|()| Response::new(proto::AbortSessionResponse::default()))
    }

    type WatchStream = Told;

    async fn watch(&self, request: Request<proto::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (metadata, _, request) = request.into_parts();
        let cursor = Cursor::of(&request.cursor)?;
        let asked = Asked::of_bucket(&metadata, &request.bucket, Action::WatchBucket, Need::Read);
        let again = asked.clone();
        let place = in_bucket(&self.0, asked, move |core, InBucket { bucket, .. }| {
            let tenant = bucket.tenant().clone();
            let watched = Watched { asked: again, bucket };
            Place::begin(core, tenant, &cursor, Some(watched), request.follow)
        });
        Ok(Response::new(told(&self.0, place.await?)))
    }
}

fn to_write(metadata: &MetadataMap, bucket: &str) -> Asked {
    Asked::of_bucket(metadata, bucket, Action::PutChunk, Need::Write)
}

fn resolve(core: &Core, admitted: &InBucket, request: &proto::ResolveRangeRequest) -> Answer<Vec<Extent>> {
    let version = version_of(core, &admitted.bucket, &request.key, &request.version_id)?;
    let record = version
        .object()
        .ok_or_else(|| Status::not_found("there is no such object"))?;
    let end = match request.length {
        0 => record.size,
        length => record.size.min(request.offset.saturating_add(length)),
    };
    if request.offset > record.size {
        return Err(Status::out_of_range(format!("the object has {} bytes", record.size)).into());
    }
    let (mut extents, mut too_many) = (Vec::new(), false);
    let (tenant, range) = (admitted.bucket.tenant(), request.offset..end);
    let visited = core
        .objects
        .for_each_chunk_in(tenant, &record.content, range, |start, chunk| {
            if extents.len() == EXTENTS_MAX {
                too_many = true;
                return ControlFlow::Break(());
            }
            extents.push(Extent {
                id: Bytes::copy_from_slice(chunk.id.as_bytes()),
                offset: start,
                length: chunk.len,
            });
            ControlFlow::Continue(())
        });
    visited.map_err(of_index)?;
    if too_many {
        let words = format!("the range has more than {EXTENTS_MAX} chunks: ask for a shorter one");
        return Err(Status::out_of_range(words).into());
    }
    Ok(extents)
}

/// How chunks are given.
#[derive(Clone, Copy, Debug)]
struct GivenAs {
    digest: DigestAlgorithm,
    /// Even if they are compressed where they lie.
    plain: bool,
    /// Bytes of one, at most.
    len_max: usize,
}

/// The messages of the next chunks: no more are asked for once these have so many bytes.
fn read(
    store: &dyn cairn_store::ChunkStore,
    ids: &mut impl Iterator<Item = ChunkId>,
    form: GivenAs,
    len_max: usize,
) -> Answer<Vec<proto::GetChunksResponse>> {
    let (mut messages, mut len) = (Vec::new(), 0);
    while len < len_max {
        // With little room one at a time: how long they are is not known before.
        let count = (len_max / READ_LEN).clamp(1, READ_CHUNKS);
        let wanted: Vec<ChunkId> = ids.by_ref().take(count).collect();
        if wanted.is_empty() {
            break;
        }
        for (id, stored) in wanted.iter().zip(store.get_many(&wanted)) {
            let message = message_of(store, *id, stored, form)?;
            // So many that are missing are an answer, too.
            len += message.data.len() + id.as_bytes().len();
            messages.push(message);
        }
    }
    Ok(messages)
}

fn message_of(
    store: &dyn cairn_store::ChunkStore,
    id: ChunkId,
    stored: cairn_store::Result<EncodedChunk>,
    form: GivenAs,
) -> Answer<proto::GetChunksResponse> {
    let mut message = proto::GetChunksResponse {
        id: Bytes::copy_from_slice(id.as_bytes()),
        ..Default::default()
    };
    let stored = match stored {
        Err(cairn_store::Error::Missing { .. }) => {
            message.missing = true;
            return Ok(message);
        }
        stored => stored.map_err(of_store)?,
    };
    let corrupt = |source| cairn_store::Error::Corrupt {
        store: store.name().clone(),
        source,
    };
    let chunk = stored
        .open(form.digest, CHUNK_LEN_MAX)
        .map_err(|error| of_store(corrupt(error)))?;
    let (encoding, data) = match form.plain || stored.form == ChunkForm::Plain {
        true => (proto::ChunkEncoding::Plain, chunk.into_plain()),
        false => (proto::ChunkEncoding::Zstd, stored.bytes),
    };
    if data.len() > form.len_max {
        let words = format!(
            "chunk {id} has {} bytes, more than a message here may (grpc.message_bytes): get it from the chunk root",
            data.len()
        );
        return Err(Status::out_of_range(words).into());
    }
    message.encoding = encoding as i32;
    message.data = data;
    Ok(message)
}

/// Chunks that are what their ids say, each in one frame. Errors: `INVALID_ARGUMENT`, which names the one that is not.
///
/// - `len_max`: plain bytes of each, at most.
fn prove(chunks: Vec<EncodedChunk>, digest: DigestAlgorithm, len_max: usize) -> Answer<Vec<StorableChunk>> {
    let wrong = |error: cairn_formats::ChunkError| Failed(Status::invalid_argument(error.to_string()));
    let proven = chunks.into_iter().map(|chunk| match chunk.form {
        ChunkForm::Compressed => chunk.verify(digest, len_max),
        ChunkForm::Plain => {
            let chunk = chunk.open(digest, len_max)?;
            Ok(chunk.encode(ChunkForm::Compressed, Level::new(1)))
        }
    });
    proven.map(|chunk| chunk.map_err(wrong)).collect()
}

fn chunk_of(message: proto::PutChunksRequest) -> Result<EncodedChunk, Status> {
    let form = match proto::ChunkEncoding::try_from(message.encoding) {
        Ok(proto::ChunkEncoding::Zstd) => ChunkForm::Compressed,
        Ok(proto::ChunkEncoding::Plain) => ChunkForm::Plain,
        Err(_) => return Err(Status::invalid_argument("an encoding that is not known")),
    };
    let id: [u8; 32] = message.id[..]
        .try_into()
        .map_err(|_| Status::invalid_argument("an id is 32 bytes"))?;
    Ok(EncodedChunk {
        id: ChunkId::from_bytes(id),
        form,
        bytes: message.data,
    })
}

fn ids_of(packed: &[u8]) -> Result<Vec<ChunkId>, Status> {
    let (ids, rest) = packed.as_chunks::<32>();
    if !rest.is_empty() || ids.len() > IDS_MAX {
        return Err(Status::invalid_argument(format!(
            "ids are 32 bytes each, {IDS_MAX} at most"
        )));
    }
    Ok(ids.iter().map(|id| ChunkId::from_bytes(*id)).collect())
}

/// Ids one behind the other.
pub(super) fn packed(ids: &[ChunkId]) -> Bytes {
    ids.iter().flat_map(|id| *id.as_bytes()).collect()
}

fn bits_of(there: &[bool]) -> Bytes {
    let mut bits = BytesMut::zeroed(there.len().div_ceil(8));
    for (at, _) in there.iter().enumerate().filter(|(_, there)| **there) {
        bits[at / 8] |= 1 << (at % 8);
    }
    bits.freeze()
}

/// The store's errors, as all errors of the index.
fn of_store(error: cairn_store::Error) -> Failed {
    cairn_index::Error::from(error).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presence_is_a_bit_each_and_the_rest_of_the_last_byte_is_0() {
        assert!(bits_of(&[]).is_empty());
        assert_eq!(bits_of(&[true, false, true])[..], [0b101]);
        let many: Vec<bool> = (0..10).map(|at| at >= 8).collect();
        assert_eq!(bits_of(&many)[..], [0, 0b11]);
    }

    #[test]
    fn packed_ids_are_whole_and_bounded() {
        assert_eq!(ids_of(&[7; 64]).unwrap().len(), 2);
        assert!(ids_of(&[7; 63]).is_err());
        assert!(ids_of(&vec![0; 32 * (IDS_MAX + 1)]).is_err());
    }
}
