//! Blobs as lists of chunks that clients know: cut by FastCDC for who reads, put together for who writes.
//!
//! The chunks are slices of the blob (`cairn_index`), so no byte is kept twice. A list that was made, or sent, is remembered and answered as long
//! as all of its chunks are there. Source: `FastCdc2020Params` in `remote_execution.proto`; the crate is the reference implementation that
//! it names, at normalization level 2.

use std::io::{self, Read};
use std::ops::Range;

use bytes::{Buf as _, Bytes};
use cairn_identity::Permit;
use cairn_index::names::{Blob, BlobDigest, BlobFunction, BlobKey};
use cairn_index::{BlobHasher, ObjectReader};
use cairn_proto::execution::chunking_function::Value as Chunking;
use cairn_proto::execution::{Digest, FastCdc2020Params, RegisterChunkMappingRequest};
use fastcdc::v2020::{Normalization, StreamCDC};
use tonic::Status;

use super::error::Answer;
use super::names::{digest_of, function_of};
use super::{Admitted, Core};

/// Bytes of a chunk on average, as the protocol recommends; chunks have a quarter to four times as many.
const AVG_LEN: usize = 512 << 10;
const MIN_LEN: usize = AVG_LEN / 4;
const MAX_LEN: usize = AVG_LEN * 4;
const SEED: u32 = 0;
/// Bytes of a chunk that a client names, at most.
const CHUNK_LEN_MAX: u64 = 16 << 20;
/// Chunks of a list, at most: 32 GiB of average ones.
pub(super) const CHUNKS_MAX: usize = 64 << 10;
/// Number of the rule in keys: on disk.
const RULE: u8 = 1;

/// What is said of it in the capabilities.
pub(super) fn params() -> FastCdc2020Params {
    FastCdc2020Params {
        avg_chunk_size_bytes: AVG_LEN as u64,
        seed: SEED,
    }
}

/// The chunks of a blob, in order; made where they are not there.
pub(super) fn split(
    core: &Core,
    _permit: Permit,
    admitted: &Admitted,
    digest: Option<&Digest>,
    function: i32,
) -> Answer<Vec<BlobDigest>> {
    let served = &core.options.functions;
    let function = function_of(function, served)?;
    let digest = digest_of(digest, function, served)?;
    if Core::is_empty(&digest) {
        return Ok(Vec::new());
    }
    let blobs = core.objects.names().blobs(&admitted.bucket);
    let blob = blobs.get(&BlobKey::Content(digest))?;
    let blob = blob.ok_or_else(|| Status::not_found("there is no such blob"))?;
    if digest.size() < MAX_LEN as u64 {
        return Ok(vec![digest]);
    }
    if let Some(known) = known(core, admitted, &digest)? {
        return Ok(known);
    }
    let parts = cut(core, admitted, &blob, digest.function())?;
    core.objects.slice_blob(&admitted.bucket, &blob, &parts)?;
    let chunks: Vec<BlobDigest> = parts.into_iter().map(|(chunk, _)| chunk).collect();
    remember(core, admitted, digest, &chunks)?;
    Ok(chunks)
}

/// Puts a blob together of chunks that are there.
pub(super) fn splice(
    core: &Core,
    _permit: Permit,
    admitted: &Admitted,
    request: &RegisterChunkMappingRequest,
) -> Answer<BlobDigest> {
    let served = &core.options.functions;
    let function = function_of(request.digest_function, served)?;
    let digest = digest_of(request.blob_digest.as_ref(), function, served)?;
    core.check_len(&digest)?;
    let chunks = &request.chunk_digests;
    if chunks.len() > CHUNKS_MAX {
        return Err(Status::invalid_argument(format!("more than {CHUNKS_MAX} chunks")).into());
    }
    let mut named = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        let chunk = digest_of(Some(chunk), Some(digest.function()), served)?;
        if chunk.size() > CHUNK_LEN_MAX {
            return Err(Status::invalid_argument(format!("a chunk of more than {CHUNK_LEN_MAX} bytes")).into());
        }
        named.push(chunk);
    }
    let sum = named.iter().map(BlobDigest::size).fold(0, u64::saturating_add);
    if sum != digest.size() {
        return Err(Status::invalid_argument("the chunks have not as many bytes as the blob together").into());
    }
    named.retain(|chunk| !Core::is_empty(chunk));
    let blobs = core.objects.names().blobs(&admitted.bucket);
    let keys: Vec<BlobKey> = named.iter().map(|&chunk| BlobKey::Content(chunk)).collect();
    let whole = [BlobKey::Content(digest)];
    if Core::is_empty(&digest) || blobs.present(&whole)? == [true] {
        // Its chunks live on, those that are there.
        blobs.present(&keys)?;
        return Ok(digest);
    }
    let mut parts = Vec::with_capacity(named.len());
    for (&chunk, blob) in named.iter().zip(blobs.get_many(&keys)?) {
        let blob = blob.ok_or_else(|| Status::not_found(format!("chunk {chunk} is not there")))?;
        parts.push((chunk, blob));
    }
    core.objects.splice_blob(&admitted.bucket, digest, &parts)?;
    if request.chunking_function == Chunking::FastCdc2020 as i32 && digest.size() >= MAX_LEN as u64 {
        remember(core, admitted, digest, &named)?;
    }
    Ok(digest)
}

/// Where FastCDC cuts a blob, and what the pieces are called.
fn cut(core: &Core, admitted: &Admitted, blob: &Blob, function: BlobFunction) -> Answer<Vec<(BlobDigest, Range<u64>)>> {
    let mut source = Source {
        reader: core.objects.read_blob(admitted.bucket.tenant(), blob, 0..blob.len)?,
        piece: Bytes::new(),
        failed: None,
    };
    let mut parts = Vec::new();
    let cuts = StreamCDC::with_level_and_seed(
        &mut source,
        MIN_LEN,
        AVG_LEN,
        MAX_LEN,
        Normalization::Level2,
        u64::from(SEED),
    );
    for chunk in cuts {
        // Why it failed is kept by the source.
        let Ok(chunk) = chunk else { break };
        if parts.len() == CHUNKS_MAX {
            return Err(Status::not_found(format!("the blob has more than {CHUNKS_MAX} chunks: it is not cut")).into());
        }
        let place = chunk.offset..chunk.offset + chunk.length as u64;
        parts.push((BlobHasher::digest(function, &chunk.data), place));
    }
    match source.failed {
        Some(error) => Err(error.into()),
        None => Ok(parts),
    }
}

/// A blob as the cutter reads it.
struct Source {
    reader: ObjectReader,
    piece: Bytes,
    failed: Option<cairn_index::Error>,
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.reader.next() {
                None => return Ok(0),
                Some(Ok(piece)) => self.piece = piece,
                Some(Err(error)) => {
                    self.failed = Some(error);
                    return Err(io::ErrorKind::Other.into());
                }
            }
        }
        let len = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..len]);
        Ok(len)
    }
}

fn layout(digest: BlobDigest) -> BlobKey {
    BlobKey::Layout {
        blob: digest,
        rule: RULE,
    }
}

/// The list that is remembered of a blob, if all of it is there.
fn known(core: &Core, admitted: &Admitted, digest: &BlobDigest) -> Answer<Option<Vec<BlobDigest>>> {
    let blobs = core.objects.names().blobs(&admitted.bucket);
    let Some(list) = blobs.get(&layout(*digest))? else {
        return Ok(None);
    };
    let bytes = core.objects.blob_bytes(admitted.bucket.tenant(), &list)?;
    let entry_len = digest.function().hash_len() + size_of::<u64>();
    let mut chunks = Vec::with_capacity(bytes.len() / entry_len);
    for entry in bytes.chunks_exact(entry_len) {
        let (hash, mut size) = entry.split_at(digest.function().hash_len());
        chunks.extend(BlobDigest::new(digest.function(), hash, size.get_u64()));
    }
    let keys: Vec<BlobKey> = chunks.iter().map(|&chunk| BlobKey::Content(chunk)).collect();
    let is_whole = blobs.present(&keys)?.into_iter().all(|present| present);
    Ok(is_whole.then_some(chunks))
}

fn remember(core: &Core, admitted: &Admitted, digest: BlobDigest, chunks: &[BlobDigest]) -> Answer<()> {
    let mut list = Vec::new();
    for chunk in chunks {
        list.extend_from_slice(chunk.hash());
        list.extend_from_slice(&chunk.size().to_be_bytes());
    }
    core.objects
        .put_blobs(&admitted.bucket, &[(layout(digest), list.into())])?;
    Ok(())
}
