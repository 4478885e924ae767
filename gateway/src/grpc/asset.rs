//! Assets: which blob or directory an address and some qualifiers stand for, as somebody has said who may.
//!
//! What was pushed is answered as long as it has not expired and all that it names is there, which lives on with the answer. A blob
//! whose checksum is asked for is answered if its bytes are there, whoever brought them. One that nobody has pushed is fetched (`fetch`)
//! where settings have it; a directory is not.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use cairn_identity::{Action, Permit};
use cairn_index::BlobHasher;
use cairn_index::names::{BlobDigest, BlobFunction, BlobKey};
use cairn_proto::asset::fetch_server;
use cairn_proto::asset::push_server;
use cairn_proto::asset::{
    FetchBlobRequest, FetchBlobResponse, FetchDirectoryRequest, FetchDirectoryResponse, PushBlobRequest,
    PushBlobResponse, PushDirectoryRequest, PushDirectoryResponse, Qualifier,
};
use prost::Message as _;
use prost_types::Timestamp;
use tonic::{Code, Request, Response, Status};

use super::error::{Answer, beside, missing};
use super::names::{digest_of, function_of, function_value, message_of};
use super::{Admitted, Ask, Core, fetch};

/// Addresses and qualifiers of a call, at most, and bytes of each.
const WORDS_MAX: usize = 64;
const WORD_LEN_MAX: usize = 8 << 10;
/// Blobs and directories that an asset may name besides, at most.
const REFERENCES_MAX: usize = 10_000;

#[derive(Clone, Debug)]
pub(super) struct Assets(pub(super) Arc<Core>);

/// What an asset is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A blob by its address.
    Blob,
    /// A directory by its address.
    Directory,
    /// A blob by its checksum, once it was compared with it.
    Checksum,
}

#[tonic::async_trait]
impl fetch_server::Fetch for Assets {
    async fn fetch_blob(&self, request: Request<FetchBlobRequest>) -> Result<Response<FetchBlobResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let (request, known) = self.find(&metadata, Kind::Blob, request).await?;
        if let Some(known) = known {
            return Ok(Response::new(known));
        }
        if !self.0.fetches.is_open() || !request.uris.iter().any(|uri| fetch::is_web(uri)) {
            return Ok(Response::new(unknown(
                "nobody has pushed this asset, or what it named is gone",
            )));
        }
        let ask = Ask::new(&metadata, &request.instance_name, Action::FetchAsset)?;
        match self.0.admitted(ask.clone(), fetcher).await {
            Ok(admitted) => fetch::fetch(&self.0, ask, admitted, request).await.map(Response::new),
            Err(status) if status.code() == Code::PermissionDenied => Ok(Response::new(unknown(
                "nobody has pushed this asset, and only who may write can have it fetched",
            ))),
            Err(status) => Err(status),
        }
    }

    async fn fetch_directory(
        &self,
        request: Request<FetchDirectoryRequest>,
    ) -> Result<Response<FetchDirectoryResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let request = FetchBlobRequest {
            instance_name: request.instance_name,
            timeout: request.timeout,
            oldest_content_accepted: request.oldest_content_accepted,
            uris: request.uris,
            qualifiers: request.qualifiers,
            digest_function: request.digest_function,
        };
        let (_, found) = self.find(&metadata, Kind::Directory, request).await?;
        let found = found.unwrap_or_else(|| unknown("nobody has pushed this directory, or what it named is gone"));
        Ok(Response::new(FetchDirectoryResponse {
            status: found.status,
            uri: found.uri,
            qualifiers: found.qualifiers,
            expires_at: found.expires_at,
            root_directory_digest: found.blob_digest,
            digest_function: found.digest_function,
        }))
    }
}

#[tonic::async_trait]
impl push_server::Push for Assets {
    async fn push_blob(&self, request: Request<PushBlobRequest>) -> Result<Response<PushBlobResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.push(&metadata, Kind::Blob, request).await?;
        Ok(Response::new(PushBlobResponse {}))
    }

    async fn push_directory(
        &self,
        request: Request<PushDirectoryRequest>,
    ) -> Result<Response<PushDirectoryResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let request = PushBlobRequest {
            instance_name: request.instance_name,
            uris: request.uris,
            qualifiers: request.qualifiers,
            expire_at: request.expire_at,
            blob_digest: request.root_directory_digest,
            references_blobs: request.references_blobs,
            references_directories: request.references_directories,
            digest_function: request.digest_function,
        };
        self.push(&metadata, Kind::Directory, request).await?;
        Ok(Response::new(PushDirectoryResponse {}))
    }
}

impl Assets {
    async fn find(
        &self,
        metadata: &tonic::metadata::MetadataMap,
        kind: Kind,
        request: FetchBlobRequest,
    ) -> Result<(FetchBlobRequest, Option<FetchBlobResponse>), Status> {
        let ask = Ask::new(metadata, &request.instance_name, Action::GetAsset)?;
        let work = move |core: &Arc<Core>, admitted: Admitted| {
            let known = find(core, admitted.permit.clone(), &admitted, kind, &request)?;
            Ok((request, known))
        };
        self.0.admitted(ask, work).await
    }

    async fn push(
        &self,
        metadata: &tonic::metadata::MetadataMap,
        kind: Kind,
        request: PushBlobRequest,
    ) -> Result<(), Status> {
        let ask = Ask::new(metadata, &request.instance_name, Action::PutAsset)?;
        let work =
            move |core: &Arc<Core>, admitted: Admitted| push(core, admitted.permit.clone(), &admitted, kind, request);
        self.0.admitted(ask, work).await
    }
}

/// Who may have something fetched.
pub(super) fn fetcher(core: &Arc<Core>, admitted: Admitted) -> Answer<Admitted> {
    Ok(may_fetch(core, admitted.permit.clone(), admitted))
}

fn may_fetch(_core: &Core, _permit: Permit, admitted: Admitted) -> Admitted {
    admitted
}

fn find(
    core: &Core,
    _permit: Permit,
    admitted: &Admitted,
    kind: Kind,
    wanted: &FetchBlobRequest,
) -> Answer<Option<FetchBlobResponse>> {
    // A blob may be asked for by its checksum alone, as caches do that know no size.
    let is_named = kind == Kind::Blob && !fetch::content_of(&wanted.qualifiers).is_empty();
    check_words(&wanted.uris, &wanted.qualifiers, is_named)?;
    recall(core, admitted, kind, wanted)
}

/// What is known of an asset, and all there.
pub(super) fn recall(
    core: &Core,
    admitted: &Admitted,
    kind: Kind,
    wanted: &FetchBlobRequest,
) -> Answer<Option<FetchBlobResponse>> {
    let function = function_of(wanted.digest_function, &core.options.functions)?;
    let instance = &admitted.instance;
    let by_address = wanted
        .uris
        .iter()
        .map(|uri| (uri, Some(asset_key(instance, kind, uri, &wanted.qualifiers))));
    let by_checksum = wanted.uris.first().filter(|_| kind == Kind::Blob);
    let by_checksum = by_checksum.map(|uri| (uri, fetch::checksum_key(instance, &wanted.qualifiers)));
    let (uris, keys): (Vec<_>, Vec<_>) = by_address
        .chain(by_checksum)
        .filter_map(|(uri, key)| Some((uri, key?)))
        .unzip();
    let blobs = core.objects.names().blobs(&admitted.bucket);
    for (at, (uri, row)) in uris.into_iter().zip(blobs.get_many(&keys)?).enumerate() {
        let Some(row) = row else { continue };
        let mut bytes = core.objects.blob_bytes(admitted.bucket.tenant(), &row)?;
        let Ok(said_ms) = bytes.try_get_u64() else { continue };
        let Ok(record) = PushBlobRequest::decode(bytes) else {
            continue;
        };
        // What has this checksum had it at any time.
        let is_old = at < wanted.uris.len()
            && wanted
                .oldest_content_accepted
                .as_ref()
                .is_some_and(|oldest| said_ms < ms_of(oldest));
        let is_over = record.expire_at.as_ref().is_some_and(|at| ms_of(at) <= now_ms());
        let digests = named(core, &record)?;
        let Some(first) = digests.first() else { continue };
        if is_old || is_over || function.is_some_and(|function| function != first.function()) {
            continue;
        }
        if absent(core, admitted, &digests)?.is_empty() {
            return Ok(Some(found(uri, &wanted.qualifiers, record.expire_at, first)));
        }
    }
    let uri = wanted.uris.first().map_or("", String::as_str);
    let is_served = |digest: &BlobDigest| core.options.functions.contains(&digest.function());
    let is_wanted = |digest: &BlobDigest| function.is_none_or(|function| function == digest.function());
    // That the bytes are there says nothing of the address, whose time does not count.
    let content = match kind {
        Kind::Blob => fetch::content_of(&wanted.qualifiers),
        _ => Vec::new(),
    };
    for digest in content.into_iter().filter(is_served).filter(is_wanted) {
        if let Some(digest) = blobs.of_hash(digest)?
            && absent(core, admitted, &[digest])?.is_empty()
        {
            return Ok(Some(found(uri, &wanted.qualifiers, None, &digest)));
        }
    }
    Ok(None)
}

/// The answer of what is there.
pub(super) fn found(
    uri: &str,
    qualifiers: &[Qualifier],
    expires_at: Option<Timestamp>,
    digest: &BlobDigest,
) -> FetchBlobResponse {
    FetchBlobResponse {
        status: Some(beside(&Status::ok(""))),
        uri: uri.to_owned(),
        qualifiers: qualifiers.to_vec(),
        expires_at,
        blob_digest: Some(message_of(digest)),
        digest_function: function_value(digest.function()) as i32,
    }
}

/// The answer of what is not there: within it.
fn unknown(words: &str) -> FetchBlobResponse {
    FetchBlobResponse {
        status: Some(beside(&Status::not_found(words))),
        ..Default::default()
    }
}

fn push(core: &Core, _permit: Permit, admitted: &Admitted, kind: Kind, mut request: PushBlobRequest) -> Answer<()> {
    check_words(&request.uris, &request.qualifiers, false)?;
    if request.references_blobs.len() + request.references_directories.len() > REFERENCES_MAX {
        return Err(Status::invalid_argument(format!("more than {REFERENCES_MAX} references")).into());
    }
    let digests = named(core, &request)?;
    let gone = absent(core, admitted, &digests)?;
    if !gone.is_empty() {
        let subjects = gone.iter().map(|digest| format!("blobs/{digest}"));
        return Err(missing("what an asset names has to be sent before it", subjects).into());
    }
    // Of digests that say no function, what they were taken for.
    if let Some(first) = digests.first() {
        request.digest_function = function_value(first.function()) as i32;
    }
    let uris = std::mem::take(&mut request.uris);
    let record = record_of(&request, now_ms());
    let mut rows: Vec<(BlobKey, Bytes)> = uris
        .iter()
        .map(|uri| {
            (
                asset_key(&admitted.instance, kind, uri, &request.qualifiers),
                record.clone(),
            )
        })
        .collect();
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    rows.dedup_by(|a, b| a.0 == b.0);
    core.objects.put_blobs(&admitted.bucket, &rows)?;
    Ok(())
}

/// What is kept of an asset, and since when.
pub(super) fn record_of(said: &PushBlobRequest, said_ms: u64) -> Bytes {
    let mut record = BytesMut::new();
    record.put_u64(said_ms);
    record.extend_from_slice(&said.encode_to_vec());
    record.freeze()
}

/// All that an asset names, itself first.
fn named(core: &Core, record: &PushBlobRequest) -> Answer<Vec<BlobDigest>> {
    let served = &core.options.functions;
    let function = function_of(record.digest_function, served)?;
    let first = digest_of(record.blob_digest.as_ref(), function, served)?;
    let mut digests = vec![first];
    for digest in record.references_blobs.iter().chain(&record.references_directories) {
        digests.push(digest_of(Some(digest), Some(first.function()), served)?);
    }
    Ok(digests)
}

/// Those that are not there; the others live on.
fn absent(core: &Core, admitted: &Admitted, digests: &[BlobDigest]) -> Answer<Vec<BlobDigest>> {
    let kept: Vec<BlobDigest> = digests
        .iter()
        .copied()
        .filter(|digest| !Core::is_empty(digest))
        .collect();
    let keys: Vec<BlobKey> = kept.iter().map(|&digest| BlobKey::Content(digest)).collect();
    let present = core.objects.names().blobs(&admitted.bucket).present(&keys)?;
    Ok(kept
        .into_iter()
        .zip(present)
        .filter_map(|(digest, there)| (!there).then_some(digest))
        .collect())
}

/// - `is_named`: it needs no address.
fn check_words(uris: &[String], qualifiers: &[Qualifier], is_named: bool) -> Answer<()> {
    let is_short = |text: &String| text.len() <= WORD_LEN_MAX;
    let is_fine = (is_named || !uris.is_empty())
        && uris.len() <= WORDS_MAX
        && qualifiers.len() <= WORDS_MAX
        && uris.iter().all(|uri| is_short(uri) && !uri.is_empty())
        && qualifiers
            .iter()
            .all(|one| is_short(&one.name) && is_short(&one.value) && !one.name.is_empty());
    if !is_fine {
        let words = format!("1 to {WORDS_MAX} addresses and up to {WORDS_MAX} qualifiers of {WORD_LEN_MAX} bytes each");
        return Err(Status::invalid_argument(words).into());
    }
    Ok(())
}

/// Under which name an asset is kept: the order of qualifiers says nothing.
pub(super) fn asset_key(instance: &str, kind: Kind, uri: &str, qualifiers: &[Qualifier]) -> BlobKey {
    let mut pairs: Vec<(&str, &str)> = qualifiers.iter().map(|one| (&*one.name, &*one.value)).collect();
    pairs.sort_unstable();
    let mut hasher = BlobHasher::new(BlobFunction::Sha256);
    let mut text = |text: &str| {
        hasher.update(&(text.len() as u64).to_be_bytes());
        hasher.update(text.as_bytes());
    };
    text(match kind {
        Kind::Blob => "blob",
        Kind::Directory => "directory",
        Kind::Checksum => "checksum",
    });
    text(uri);
    for (name, value) in pairs {
        text(name);
        text(value);
    }
    BlobKey::Asset {
        instance: instance.to_owned(),
        request: hasher.finish().try_into().expect("a SHA-256 has 32 bytes"),
    }
}

pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn ms_of(at: &Timestamp) -> u64 {
    let seconds = u64::try_from(at.seconds).unwrap_or(0);
    seconds
        .saturating_mul(1000)
        .saturating_add(u64::try_from(at.nanos).unwrap_or(0) / 1_000_000)
}
