//! The content-addressable storage: which blobs are there, small ones in batches, trees.
//!
//! Each blob of a batch has its own status; the call as a whole fails only for its own faults.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use cairn_identity::{Action, Permit};
use cairn_index::BlobHasher;
use cairn_index::names::{BlobDigest, BlobFunction, BlobKey};
use cairn_proto::execution::content_addressable_storage_server::ContentAddressableStorage;
use cairn_proto::execution::{
    BatchReadBlobsRequest, BatchReadBlobsResponse, BatchUpdateBlobsRequest, BatchUpdateBlobsResponse, Digest,
    FindMissingBlobsRequest, FindMissingBlobsResponse, GetChunkMappingRequest, GetChunkMappingResponse, GetTreeRequest,
    RegisterChunkMappingRequest, RegisterChunkMappingResponse, SpliceBlobRequest, SpliceBlobResponse, SplitBlobRequest,
    SplitBlobResponse, batch_read_blobs_response, batch_update_blobs_request, batch_update_blobs_response,
    chunking_function, compressor,
};
use futures_util::stream::{self, Stream};
use tonic::{Request, Response, Status, Streaming};

use super::error::{Answer, beside};
use super::names::{Form, digest_of, function_of, message_of};
use super::tree::{self, TreePages};
use super::{Admitted, Ask, Core, chunking, zstd};

/// Digests in a message of a mapping: the longest are some 140 bytes.
const DIGESTS_OF_PAGE: usize = 16 << 10;
/// Of a batch that is read, bytes that are no blobs: digests and codes.
const OVERHEAD_LEN: usize = 128;

#[derive(Clone, Debug)]
pub(super) struct Cas(pub(super) Arc<Core>);

type Pages = Pin<Box<dyn Stream<Item = Result<GetChunkMappingResponse, Status>> + Send>>;

#[tonic::async_trait]
impl ContentAddressableStorage for Cas {
    async fn find_missing_blobs(
        &self,
        request: Request<FindMissingBlobsRequest>,
    ) -> Result<Response<FindMissingBlobsResponse>, Status> {
        let ask = Ask::new(request.metadata(), &request.get_ref().instance_name, Action::GetBlob)?;
        let request = request.into_inner();
        let work =
            move |core: &Arc<Core>, admitted: Admitted| find_missing(core, admitted.permit.clone(), &admitted, request);
        self.0.admitted(ask, work).await.map(Response::new)
    }

    async fn batch_update_blobs(
        &self,
        request: Request<BatchUpdateBlobsRequest>,
    ) -> Result<Response<BatchUpdateBlobsResponse>, Status> {
        let ask = Ask::new(request.metadata(), &request.get_ref().instance_name, Action::PutBlob)?;
        let request = request.into_inner();
        let work =
            move |core: &Arc<Core>, admitted: Admitted| batch_update(core, admitted.permit.clone(), &admitted, request);
        self.0.admitted(ask, work).await.map(Response::new)
    }

    async fn batch_read_blobs(
        &self,
        request: Request<BatchReadBlobsRequest>,
    ) -> Result<Response<BatchReadBlobsResponse>, Status> {
        let ask = Ask::new(request.metadata(), &request.get_ref().instance_name, Action::GetBlob)?;
        let request = request.into_inner();
        let work =
            move |core: &Arc<Core>, admitted: Admitted| batch_read(core, admitted.permit.clone(), &admitted, request);
        self.0.admitted(ask, work).await.map(Response::new)
    }

    type GetTreeStream = TreePages;

    async fn get_tree(&self, request: Request<GetTreeRequest>) -> Result<Response<TreePages>, Status> {
        let ask = Ask::new(request.metadata(), &request.get_ref().instance_name, Action::GetBlob)?;
        tree::get(&self.0, ask, request.into_inner()).await.map(Response::new)
    }

    async fn split_blob(&self, request: Request<SplitBlobRequest>) -> Result<Response<SplitBlobResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let ask = Ask::new(&metadata, &request.instance_name, Action::GetBlob)?;
        let chunks = self.split(ask, request.blob_digest, request.digest_function).await?;
        Ok(Response::new(SplitBlobResponse {
            chunk_digests: chunks,
            chunking_function: chunking_function::Value::FastCdc2020 as i32,
        }))
    }

    async fn splice_blob(&self, request: Request<SpliceBlobRequest>) -> Result<Response<SpliceBlobResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let first = RegisterChunkMappingRequest {
            instance_name: request.instance_name,
            blob_digest: request.blob_digest,
            chunk_digests: request.chunk_digests,
            digest_function: request.digest_function,
            chunking_function: request.chunking_function,
        };
        let ask = Ask::new(&metadata, &first.instance_name, Action::PutBlob)?;
        let blob_digest = Some(self.splice(ask, first).await?);
        Ok(Response::new(SpliceBlobResponse { blob_digest }))
    }

    type GetChunkMappingStream = Pages;

    async fn get_chunk_mapping(&self, request: Request<GetChunkMappingRequest>) -> Result<Response<Pages>, Status> {
        let (metadata, _, request) = request.into_parts();
        let ask = Ask::new(&metadata, &request.instance_name, Action::GetBlob)?;
        let chunks = self.split(ask, request.blob_digest, request.digest_function).await?;
        let page = |chunks: &[Digest]| {
            Ok(GetChunkMappingResponse {
                chunk_digests: chunks.to_vec(),
                chunking_function: chunking_function::Value::FastCdc2020 as i32,
            })
        };
        let pages: Vec<_> = chunks.chunks(DIGESTS_OF_PAGE).map(page).collect();
        Ok(Response::new(Box::pin(stream::iter(pages))))
    }

    async fn register_chunk_mapping(
        &self,
        request: Request<Streaming<RegisterChunkMappingRequest>>,
    ) -> Result<Response<RegisterChunkMappingResponse>, Status> {
        let (metadata, _, mut messages) = request.into_parts();
        let mut all: Option<RegisterChunkMappingRequest> = None;
        loop {
            let next = tokio::time::timeout(self.0.options.idle, messages.message()).await;
            let next = next.map_err(|_| Status::deadline_exceeded("nothing was sent for too long"))?;
            let Some(next) = next? else { break };
            match &mut all {
                None => all = Some(next),
                // Of later messages the chunks alone count.
                Some(all) => all.chunk_digests.extend(next.chunk_digests),
            }
            let chunks = all.as_ref().map_or(0, |all| all.chunk_digests.len());
            if chunks > chunking::CHUNKS_MAX {
                let words = format!("more than {} chunks", chunking::CHUNKS_MAX);
                return Err(Status::invalid_argument(words));
            }
        }
        let all = all.ok_or_else(|| Status::invalid_argument("a mapping without a message"))?;
        let ask = Ask::new(&metadata, &all.instance_name, Action::PutBlob)?;
        let blob_digest = Some(self.splice(ask, all).await?);
        Ok(Response::new(RegisterChunkMappingResponse { blob_digest }))
    }
}

impl Cas {
    async fn split(&self, ask: Ask, digest: Option<Digest>, function: i32) -> Result<Vec<Digest>, Status> {
        let work = move |core: &Arc<Core>, admitted: Admitted| {
            chunking::split(core, admitted.permit.clone(), &admitted, digest.as_ref(), function)
        };
        let chunks = self.0.admitted(ask, work).await?;
        Ok(chunks.iter().map(message_of).collect())
    }

    async fn splice(&self, ask: Ask, request: RegisterChunkMappingRequest) -> Result<Digest, Status> {
        let work = move |core: &Arc<Core>, admitted: Admitted| {
            chunking::splice(core, admitted.permit.clone(), &admitted, &request)
        };
        Ok(message_of(&self.0.admitted(ask, work).await?))
    }
}

/// Those of some blobs that are not there; the others live on.
fn find_missing(
    core: &Core,
    _permit: Permit,
    admitted: &Admitted,
    request: FindMissingBlobsRequest,
) -> Answer<FindMissingBlobsResponse> {
    let served = &core.options.functions;
    let function = function_of(request.digest_function, served)?;
    let mut keys = Vec::with_capacity(request.blob_digests.len());
    for digest in &request.blob_digests {
        keys.push(BlobKey::Content(digest_of(Some(digest), function, served)?));
    }
    let present = core.objects.names().blobs(&admitted.bucket).present(&keys)?;
    let missing = request.blob_digests.into_iter().zip(&keys).zip(present);
    let missing = missing.filter_map(|((digest, key), present)| match key {
        _ if present => None,
        BlobKey::Content(blob) if Core::is_empty(blob) => None,
        _ => Some(digest),
    });
    Ok(FindMissingBlobsResponse {
        missing_blob_digests: missing.collect(),
    })
}

fn batch_update(
    core: &Core,
    _permit: Permit,
    admitted: &Admitted,
    request: BatchUpdateBlobsRequest,
) -> Answer<BatchUpdateBlobsResponse> {
    let function = function_of(request.digest_function, &core.options.functions)?;
    // What frames blow up to is bounded as what comes plain is.
    let sizes = request.requests.iter().filter_map(|one| one.digest.as_ref());
    check_total(core, sizes)?;
    let mut statuses = Vec::with_capacity(request.requests.len());
    let mut blobs = HashMap::new();
    for one in &request.requests {
        let checked = check_update(core, function, one);
        let status = match checked {
            Ok(None) => Status::ok(""),
            Ok(Some((digest, bytes))) => {
                blobs.insert(BlobKey::Content(digest), bytes);
                Status::ok("")
            }
            Err(failed) => failed.0,
        };
        statuses.push(beside(&status));
    }
    let keys: Vec<BlobKey> = blobs.keys().cloned().collect();
    let present = core.objects.names().blobs(&admitted.bucket).present(&keys)?;
    for (key, _) in keys.iter().zip(present).filter(|(_, present)| *present) {
        blobs.remove(key);
    }
    let new: Vec<(BlobKey, Bytes)> = blobs.into_iter().collect();
    core.objects.put_blobs(&admitted.bucket, &new)?;
    let respond = |(one, status): (batch_update_blobs_request::Request, _)| batch_update_blobs_response::Response {
        digest: one.digest,
        status: Some(status),
    };
    Ok(BatchUpdateBlobsResponse {
        responses: request.requests.into_iter().zip(statuses).map(respond).collect(),
    })
}

/// Errors: `INVALID_ARGUMENT` where blobs are more than a message takes.
fn check_total<'a>(core: &Core, digests: impl Iterator<Item = &'a Digest>) -> Answer<()> {
    let max = core.options.message_len_max;
    let len = |digest: &Digest| {
        u64::try_from(digest.size_bytes)
            .unwrap_or(0)
            .saturating_add(OVERHEAD_LEN as u64)
    };
    let total = digests.map(len).fold(0_u64, u64::saturating_add);
    if total > max as u64 {
        let words = format!("{total} bytes in one call; the limit is {max}: the capabilities say how many to send");
        return Err(Status::invalid_argument(words).into());
    }
    Ok(())
}

/// The bytes of one blob of a batch, which are its digest's. `None`: there are none to be kept.
fn check_update(
    core: &Core,
    function: Option<BlobFunction>,
    one: &batch_update_blobs_request::Request,
) -> Answer<Option<(BlobDigest, Bytes)>> {
    let digest = digest_of(one.digest.as_ref(), function, &core.options.functions)?;
    core.check_len(&digest)?;
    let bytes = match Form::of(one.compressor)? {
        Form::Identity => one.data.clone(),
        // Bounded by what was summed up before.
        Form::Zstd => zstd::decode(&one.data, usize::try_from(digest.size()).unwrap_or(usize::MAX))?.into(),
    };
    if BlobHasher::digest(digest.function(), &bytes) != digest {
        return Err(cairn_index::Error::WrongDigest {
            digest: digest.to_string(),
        }
        .into());
    }
    Ok((!bytes.is_empty()).then_some((digest, bytes)))
}

fn batch_read(
    core: &Core,
    _permit: Permit,
    admitted: &Admitted,
    request: BatchReadBlobsRequest,
) -> Answer<BatchReadBlobsResponse> {
    let function = function_of(request.digest_function, &core.options.functions)?;
    check_total(core, request.digests.iter())?;
    let takes_zstd = request
        .acceptable_compressors
        .contains(&(compressor::Value::Zstd as i32));
    let parse = |digest: &Digest| digest_of(Some(digest), function, &core.options.functions);
    let parsed: Vec<Result<BlobDigest, Status>> = request.digests.iter().map(parse).collect();
    let keys: Vec<BlobKey> = parsed
        .iter()
        .flatten()
        .map(|&digest| BlobKey::Content(digest))
        .collect();
    let mut blobs = core
        .objects
        .names()
        .blobs(&admitted.bucket)
        .get_many(&keys)?
        .into_iter();
    let tenant = admitted.bucket.tenant();
    let mut responses = Vec::with_capacity(parsed.len());
    for (digest, parsed) in request.digests.into_iter().zip(parsed) {
        let read = parsed.map_err(Into::into).and_then(|parsed| -> Answer<(Bytes, Form)> {
            let blob = blobs.next().flatten();
            if Core::is_empty(&parsed) {
                return Ok((Bytes::new(), Form::Identity));
            }
            let blob = blob.ok_or_else(|| Status::not_found("there is no such blob"))?;
            if takes_zstd {
                let mut frames = Vec::new();
                for frame in core.objects.blob_frames(tenant, &blob, 0)? {
                    frames.extend_from_slice(&frame?);
                }
                if (frames.len() as u64) < blob.len {
                    return Ok((frames.into(), Form::Zstd));
                }
            }
            Ok((core.objects.blob_bytes(tenant, &blob)?, Form::Identity))
        });
        let (data, form, status) = match read {
            Ok((data, form)) => (data, form, Status::ok("")),
            Err(failed) => (Bytes::new(), Form::Identity, failed.0),
        };
        responses.push(batch_read_blobs_response::Response {
            digest: Some(digest),
            data,
            compressor: match form {
                Form::Identity => compressor::Value::Identity as i32,
                Form::Zstd => compressor::Value::Zstd as i32,
            },
            status: Some(beside(&status)),
        });
    }
    Ok(BatchReadBlobsResponse { responses })
}
