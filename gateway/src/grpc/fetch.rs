//! Assets that nobody has pushed: fetched from where their address says, compared with what the caller says of them, and kept as blobs.
//!
//! Only from hosts that settings name, through the one policy of outgoing requests (`outgoing`), for callers who may write. A fetch goes
//! on when its caller has gone; calls for the same asset wait for one fetch. What came with a checksum is remembered under its address
//! and under the checksum, so that another mirror's address finds it; without one an address may say something else tomorrow, and is asked
//! again. Not here: what was pushed (`asset`), redirects to hosts that are not named.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use cairn_index::names::{BlobDigest, BlobFunction, BlobKey};
use cairn_index::{AnyBlobWriter, BlobHasher};
use cairn_proto::asset::{FetchBlobRequest, FetchBlobResponse, PushBlobRequest, Qualifier};
use http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, EXPECT, HOST, LOCATION, RANGE, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use reqwest::Url;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status};

use super::asset::{Kind, asset_key, fetcher, found, now_ms, recall, record_of};
use super::error::{Answer, beside, wrong_fields};
use super::names::{function_of, function_value, message_of};
use super::{Admitted, Ask, Core};
use crate::outgoing::{OpenAnswer, Outgoing, OutgoingError, OutgoingRequest};

/// Redirects of one address that are followed.
const REDIRECTS_MAX: usize = 5;
/// Bytes that are stored in one job.
const STORED_LEN: usize = 512 << 10;
/// The qualifier of a checksum, as subresource integrity writes it.
const CHECKSUM: &str = "checksum.sri";
/// Qualifiers of headers: for all addresses, and for one by its place.
const HEADER: &str = "http_header:";
const HEADER_OF_ADDRESS: &str = "http_header_url:";
/// Says which of two downloads of one address is meant: a part of the name, and nothing besides.
const CANONICAL_ID: &str = "bazel.canonical_id";
/// Digest functions of checksums, the strongest first.
const CHECKSUM_FUNCTIONS: [(&str, BlobFunction); 3] = [
    ("sha512-", BlobFunction::Sha512),
    ("sha384-", BlobFunction::Sha384),
    ("sha256-", BlobFunction::Sha256),
];

/// What may be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchOptions {
    /// Hosts that assets are fetched from, in lower case, of those that go out at all. None: nothing is fetched.
    pub hosts: Vec<String>,
    /// Bytes of an asset.
    pub len_max: u64,
    /// Fetches at once; further ones wait.
    pub at_once: usize,
    /// For how long a fetch may take, waiting included; a caller may say less.
    pub patience: Duration,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            len_max: 1 << 30,
            at_once: 8,
            patience: Duration::from_secs(600),
        }
    }
}

/// Who holds it fetches.
type Turn = Arc<tokio::sync::Mutex<()>>;

/// What fetches work with.
#[derive(Debug)]
pub(super) struct Fetches {
    options: FetchOptions,
    outgoing: RwLock<Option<Outgoing>>,
    places: Arc<Semaphore>,
    /// Those under way, by bucket and asset.
    under_way: Mutex<HashMap<(u64, BlobKey), Turn>>,
}

/// What qualifiers ask for.
#[derive(Debug, Default)]
struct Wanted {
    checksum: Option<Checksum>,
    /// For all addresses.
    headers: HeaderMap,
    /// For one, by its place.
    headers_of: HashMap<usize, HeaderMap>,
}

/// Any of these digests, of one function.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Checksum {
    function: BlobFunction,
    digests: Vec<Vec<u8>>,
}

impl Fetches {
    pub(super) fn new(options: FetchOptions) -> Self {
        Self {
            outgoing: RwLock::new(None),
            places: Arc::new(Semaphore::new(options.at_once.max(1))),
            under_way: Mutex::default(),
            options,
        }
    }

    pub(super) fn set_outgoing(&self, outgoing: Option<Outgoing>) {
        *self.outgoing.write().unwrap_or_else(PoisonError::into_inner) = outgoing;
    }

    fn outgoing(&self) -> Option<Outgoing> {
        self.outgoing.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether anything is fetched at all.
    pub(super) fn is_open(&self) -> bool {
        !self.options.hosts.is_empty() && self.outgoing().is_some()
    }

    fn turn(&self, key: (u64, BlobKey)) -> Turn {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(under_way.entry(key).or_default())
    }
}

/// What is known of a checksum's content: the key that only a fetch that has compared it writes.
pub(super) fn checksum_key(instance: &str, qualifiers: &[Qualifier]) -> Option<BlobKey> {
    let given = qualifiers.iter().find(|one| one.name == CHECKSUM)?;
    Some(asset_key(instance, Kind::Checksum, &given.value, &[]))
}

/// Digests of content that would do, of unknown size; none where the checksum is not understood, or is not there.
pub(super) fn content_of(qualifiers: &[Qualifier]) -> Vec<BlobDigest> {
    let given = qualifiers.iter().find(|one| one.name == CHECKSUM);
    let Some(Ok(Checksum { function, digests })) = given.map(|given| Checksum::parse(&given.value)) else {
        return Vec::new();
    };
    let digests = digests.iter().filter_map(|digest| BlobDigest::new(function, digest, 0));
    digests.collect()
}

/// Whether an address is one that could be fetched.
pub(super) fn is_web(uri: &str) -> bool {
    ["https://", "http://"].iter().any(|scheme| uri.starts_with(scheme))
}

/// Fetches an asset that is not known, for a caller who may have it done.
///
/// Errors: what is wrong with the call. What is wrong with the asset is told within the answer.
pub(super) async fn fetch(
    core: &Arc<Core>,
    ask: Ask,
    admitted: Admitted,
    request: FetchBlobRequest,
) -> Result<FetchBlobResponse, Status> {
    let wanted = Wanted::of(&request.qualifiers, request.uris.len())?;
    let until = Instant::now() + patience(&request, core.fetches.options.patience)?;
    let answer = match timeout_at(until, fetch_in_turn(core, ask, admitted, request, wanted, until)).await {
        Ok(answer) => answer?,
        Err(_) => lost(&Status::deadline_exceeded("the fetch took too long"), ""),
    };
    let outcome = match answer.status.as_ref().map_or(0, |status| status.code) {
        0 => "fetched",
        code if code == Code::PermissionDenied as i32 => "refused",
        _ => "failed",
    };
    metrics::counter!("asset_fetches_total", "outcome" => outcome).increment(1);
    Ok(answer)
}

/// For how long a fetch may take.
fn patience(request: &FetchBlobRequest, most: Duration) -> Result<Duration, Status> {
    let Some(asked) = request.timeout else { return Ok(most) };
    let asked = Duration::try_from(asked).ok().filter(|asked| !asked.is_zero());
    let asked = asked.ok_or_else(|| Status::invalid_argument("a timeout that is no time"))?;
    Ok(asked.min(most))
}

/// Waits until nobody fetches the same and there is a place; from then on the fetch goes on without who asked, too.
async fn fetch_in_turn(
    core: &Arc<Core>,
    ask: Ask,
    admitted: Admitted,
    request: FetchBlobRequest,
    wanted: Wanted,
    until: Instant,
) -> Result<FetchBlobResponse, Status> {
    let uri = request.uris.first().map_or("", String::as_str);
    let key = asset_key(&admitted.instance, Kind::Blob, uri, &request.qualifiers);
    let turn = core.fetches.turn((admitted.bucket.id(), key));
    let turn = turn.lock_owned().await;
    let place = Arc::clone(&core.fetches.places).acquire_owned().await;
    let place = place.expect("the semaphore is never closed");
    let core = Arc::clone(core);
    let fetching = tokio::spawn(async move {
        let _held = (turn, place);
        let words = "the fetch took too long";
        let fetched = timeout_at(until, fetch_any(&core, ask, request, &wanted)).await;
        fetched.unwrap_or_else(|_| Ok(lost(&Status::deadline_exceeded(words), "")))
    });
    fetching.await.map_err(|_| Status::internal("internal error"))?
}

/// The first of the addresses that gives what is wanted.
async fn fetch_any(
    core: &Arc<Core>,
    ask: Ask,
    request: FetchBlobRequest,
    wanted: &Wanted,
) -> Result<FetchBlobResponse, Status> {
    // While they waited, their right may have been taken away, or the bucket.
    let admitted = core.admitted(ask, fetcher).await?;
    let (admitted, request) = (Arc::new(admitted), Arc::new(request));
    // Whoever had the turn before may have brought it, even one who has ended since this one looked first.
    let work = {
        let (core, admitted, request) = (Arc::clone(core), Arc::clone(&admitted), Arc::clone(&request));
        move || recall(&core, &admitted, Kind::Blob, &request)
    };
    if let Some(answer) = core.pool.run_patiently(work).await? {
        return Ok(answer);
    }
    let mut last = FetchBlobResponse::default();
    for (at, uri) in request.uris.iter().enumerate() {
        match fetch_one(core, &admitted, &request, wanted, at).await {
            Ok(digest) => return Ok(found(uri, &request.qualifiers, None, &digest)),
            Err(status) => last = lost(&status, uri),
        }
    }
    Ok(last)
}

fn lost(status: &Status, uri: &str) -> FetchBlobResponse {
    FetchBlobResponse {
        status: Some(beside(status)),
        uri: uri.to_owned(),
        ..Default::default()
    }
}

/// Fetches one address and stores what it answers.
async fn fetch_one(
    core: &Arc<Core>,
    admitted: &Arc<Admitted>,
    request: &Arc<FetchBlobRequest>,
    wanted: &Wanted,
    at: usize,
) -> Result<BlobDigest, Status> {
    let begun_ms = now_ms();
    let functions = &core.options.functions;
    let default = [BlobFunction::Sha256].into_iter().chain(functions.iter().copied());
    let default = default.into_iter().find(|function| functions.contains(function));
    let function = function_of(request.digest_function, functions)?.or(default);
    let function = function.ok_or_else(|| Status::invalid_argument("no digest function is served"))?;
    let mut answer = open(core, wanted, at, &request.uris[at]).await?;
    let len_max = core.fetches.options.len_max;
    let too_long = || Status::resource_exhausted(format!("it has more than the {len_max} bytes of grpc.fetch_bytes"));
    if answer.content_len().is_some_and(|len| len > len_max) {
        return Err(too_long());
    }
    let checksum = wanted.checksum.clone();
    let begin = {
        let (objects, admitted) = (Arc::clone(&core.objects), Arc::clone(admitted));
        let other = checksum
            .as_ref()
            .map(|checksum| checksum.function)
            .filter(|&other| other != function);
        move || -> Answer<Taken> {
            Ok(Taken {
                writer: objects.any_blob_writer(&admitted.bucket, function)?,
                other: other.map(BlobHasher::new),
            })
        }
    };
    let mut taken = core.pool.run_patiently(begin).await?;
    let (mut waiting, mut len, mut total) = (Vec::new(), 0, 0_u64);
    while let Some(piece) = answer.chunk().await.map_err(|error| status_of(&error))? {
        total += piece.len() as u64;
        if total > len_max {
            return Err(too_long());
        }
        len += piece.len();
        waiting.push(piece);
        if len >= STORED_LEN {
            len = 0;
            let pieces = std::mem::take(&mut waiting);
            taken = core.pool.run_patiently(move || taken.push(&pieces)).await?;
        }
    }
    metrics::counter!("asset_fetched_bytes_total").increment(total);
    let finish = {
        let (core, admitted, request) = (Arc::clone(core), Arc::clone(admitted), Arc::clone(request));
        move || -> Answer<BlobDigest> {
            let taken = taken.push(&waiting)?;
            if let Some(checksum) = &checksum
                && !checksum.digests.contains(&taken.digest())
            {
                return Err(Status::aborted("what came is not what checksum.sri says").into());
            }
            let mut digest = taken.writer.digest();
            // No bytes are always there, and never kept.
            if !Core::is_empty(&digest) {
                digest = taken.writer.finish()?;
            }
            if checksum.is_some() {
                remember(&core, &admitted, &request, &request.uris[at], &digest, begun_ms)?;
            }
            Ok(digest)
        }
    };
    Ok(core.pool.run_patiently(finish).await?)
}

/// What has come of an asset.
struct Taken {
    writer: AnyBlobWriter,
    /// Of the checksum's function, where that is another.
    other: Option<BlobHasher>,
}

impl Taken {
    fn push(mut self, pieces: &[Bytes]) -> Answer<Self> {
        for piece in pieces {
            if let Some(other) = &mut self.other {
                other.update(piece);
            }
            self.writer.push(piece)?;
        }
        Ok(self)
    }

    /// To be compared with a checksum.
    fn digest(&self) -> Vec<u8> {
        match &self.other {
            Some(other) => other.clone().finish(),
            None => self.writer.digest().hash().to_vec(),
        }
    }
}

/// From now on the asset is known by this address and by its checksum. Of headers, which may hold secrets, nothing is kept but within the
/// name's digest.
fn remember(
    core: &Core,
    admitted: &Admitted,
    request: &FetchBlobRequest,
    uri: &str,
    digest: &BlobDigest,
    begun_ms: u64,
) -> Answer<()> {
    let record = PushBlobRequest {
        blob_digest: Some(message_of(digest)),
        digest_function: function_value(digest.function()) as i32,
        ..Default::default()
    };
    let record = record_of(&record, begun_ms);
    let mut rows = vec![(
        asset_key(&admitted.instance, Kind::Blob, uri, &request.qualifiers),
        record.clone(),
    )];
    rows.extend(checksum_key(&admitted.instance, &request.qualifiers).map(|key| (key, record)));
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    core.objects.put_blobs(&admitted.bucket, &rows)?;
    Ok(())
}

/// Asks an address, and those that it leads to.
async fn open(core: &Core, wanted: &Wanted, at: usize, uri: &str) -> Result<OpenAnswer, Status> {
    let outgoing = core
        .fetches
        .outgoing()
        .ok_or_else(|| Status::permission_denied(NO_HOST))?;
    let hosts = &core.fetches.options.hosts;
    let mut headers = wanted.headers.clone();
    headers.extend(wanted.headers_of.get(&at).cloned().unwrap_or_default());
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let mut url = Url::parse(uri).map_err(|_| Status::invalid_argument("the address is no URL"))?;
    for _ in 0..=REDIRECTS_MAX {
        if !hosts
            .iter()
            .any(|host| url.host_str().is_some_and(|own| own.eq_ignore_ascii_case(host)))
        {
            return Err(Status::permission_denied(NO_HOST));
        }
        let request = OutgoingRequest {
            method: Method::GET,
            url: url.to_string(),
            headers: headers.clone(),
            body: Bytes::new(),
        };
        let answer = outgoing
            .open(request, Some(core.fetches.options.patience))
            .await
            .map_err(|error| status_of(&error))?;
        if let Some(next) = redirect(&url, answer.status(), answer.headers()) {
            let next = next?;
            if next.origin() != url.origin() {
                // They were for the other.
                headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))]);
            }
            url = next;
            continue;
        }
        let coding = answer.headers().get(CONTENT_ENCODING);
        return match answer.status() {
            StatusCode::OK if coding.is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity")) => {
                Ok(answer)
            }
            StatusCode::OK => Err(Status::aborted("it came in a content coding that nobody asked for")),
            StatusCode::NOT_FOUND | StatusCode::GONE => Err(Status::not_found("there is nothing at this address")),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(Status::permission_denied("the address does not give it to us"))
            }
            other => Err(Status::unavailable(format!("the address answers {}", other.as_u16()))),
        };
    }
    Err(Status::aborted(format!("it leads on more than {REDIRECTS_MAX} times")))
}

const NO_HOST: &str = "nothing is fetched from this host: it is not in grpc.fetch_hosts";

/// Where an answer leads, if it does.
fn redirect(from: &Url, status: StatusCode, headers: &HeaderMap) -> Option<Result<Url, Status>> {
    let leads = [
        StatusCode::MOVED_PERMANENTLY,
        StatusCode::FOUND,
        StatusCode::SEE_OTHER,
        StatusCode::TEMPORARY_REDIRECT,
        StatusCode::PERMANENT_REDIRECT,
    ];
    leads.contains(&status).then(|| {
        let to = headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let to = to.and_then(|to| from.join(to).ok());
        to.ok_or_else(|| Status::aborted("it leads to what is no address"))
    })
}

fn status_of(error: &OutgoingError) -> Status {
    match error {
        OutgoingError::Refused { .. } => Status::permission_denied(error.to_string()),
        OutgoingError::TooLong { .. } => Status::resource_exhausted(error.to_string()),
        _ => Status::unavailable(error.to_string()),
    }
}

impl Wanted {
    /// Errors: `INVALID_ARGUMENT` for what is not understood, twice there or malformed.
    fn of(qualifiers: &[Qualifier], addresses: usize) -> Result<Self, Status> {
        let mut wanted = Self::default();
        let mut names: Vec<&str> = qualifiers.iter().map(|one| &*one.name).collect();
        names.sort_unstable();
        if names.windows(2).any(|two| two[0] == two[1]) {
            return Err(Status::invalid_argument("a qualifier is there twice"));
        }
        for Qualifier { name, value } in qualifiers {
            if name == CHECKSUM {
                wanted.checksum = Some(Checksum::parse(value)?);
            } else if let Some(header) = name.strip_prefix(HEADER) {
                insert(&mut wanted.headers, header, value)?;
            } else if let Some(rest) = name.strip_prefix(HEADER_OF_ADDRESS) {
                let (at, header) = rest.split_once(':').unwrap_or((rest, ""));
                let at = at.parse::<usize>().ok().filter(|at| *at < addresses);
                let at =
                    at.ok_or_else(|| Status::invalid_argument(format!("{name} is of an address that is not there")))?;
                insert(wanted.headers_of.entry(at).or_default(), header, value)?;
            } else if name != CANONICAL_ID {
                let words = format!("\"{name}\" not supported");
                return Err(wrong_fields(&words, &[("qualifiers.name".to_owned(), words.clone())]));
            }
        }
        Ok(wanted)
    }
}

/// Headers that say how a request is sent, and not what it asks for, are ours.
fn insert(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), Status> {
    let own = [
        HOST,
        CONNECTION,
        CONTENT_LENGTH,
        TRANSFER_ENCODING,
        TE,
        UPGRADE,
        EXPECT,
        RANGE,
        ACCEPT_ENCODING,
    ];
    let wrong = || Status::invalid_argument(format!("{name} is no header that can be sent along"));
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
    let mut value = HeaderValue::from_str(value).map_err(|_| wrong())?;
    if own.contains(&name) {
        return Err(wrong());
    }
    value.set_sensitive(true);
    headers.insert(name, value);
    Ok(())
}

impl Checksum {
    /// As subresource integrity is written: digests in base64 behind their function, of which the strongest count (W3C, SRI, 3.3).
    fn parse(text: &str) -> Result<Self, Status> {
        use base64::Engine as _;
        let wrong = || Status::invalid_argument("checksum.sri holds no digest of sha256, sha384 or sha512 in base64");
        for (prefix, function) in CHECKSUM_FUNCTIONS {
            let of_it = text
                .split_ascii_whitespace()
                .filter_map(|word| word.strip_prefix(prefix));
            let digests = of_it.map(|word| {
                // What is behind a question mark are options, of which there are none.
                let word = word.split('?').next().unwrap_or_default();
                let digest = base64::engine::general_purpose::STANDARD
                    .decode(word)
                    .map_err(|_| wrong())?;
                BlobDigest::new(function, &digest, 0).ok_or_else(wrong)?;
                Ok(digest)
            });
            let digests: Vec<Vec<u8>> = digests.collect::<Result<_, Status>>()?;
            if !digests.is_empty() {
                return Ok(Self { function, digests });
            }
        }
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn qualifier(name: &str, value: &str) -> Qualifier {
        Qualifier {
            name: name.to_owned(),
            value: value.to_owned(),
        }
    }

    #[test]
    fn the_strongest_checksums_count() {
        use base64::Engine as _;
        let base64 = |byte, len| base64::engine::general_purpose::STANDARD.encode(vec![byte; len]);
        let text = format!(
            "sha256-{} sha384-{} sha384-{}?x",
            base64(1, 32),
            base64(2, 48),
            base64(3, 48)
        );
        let parsed = Checksum::parse(&text).unwrap();
        assert_eq!(parsed.function, BlobFunction::Sha384);
        assert_eq!(parsed.digests, [vec![2; 48], vec![3; 48]]);
        for text in ["", "md5-aaaa", "sha256-", "sha256-####", "sha256-AAAA"] {
            assert_eq!(
                Checksum::parse(text).unwrap_err().code(),
                Code::InvalidArgument,
                "{text}"
            );
        }
    }

    #[test]
    fn qualifiers_say_which_headers_are_sent_and_no_others() {
        let wanted = Wanted::of(
            &[
                qualifier("http_header:X-One", "1"),
                qualifier("http_header_url:1:Authorization", "Bearer x"),
                qualifier("bazel.canonical_id", "anything"),
            ],
            2,
        )
        .unwrap();
        assert_eq!(wanted.headers["x-one"], "1");
        assert_eq!(wanted.headers_of[&1]["authorization"], "Bearer x");
        for (name, value) in [
            ("http_header:Host", "other"),
            ("http_header:Range", "bytes=0-1"),
            ("http_header:a b", "x"),
            ("http_header:X", "a\nb"),
            ("http_header_url:2:X", "x"),
            ("http_header_url:x:X", "x"),
            ("vcs.branch", "main"),
            ("checksum.sri", "sha256-nothing"),
        ] {
            let status = Wanted::of(&[qualifier(name, value)], 2).unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{name}");
        }
        let twice = [qualifier("http_header:X", "1"), qualifier("http_header:X", "2")];
        assert_eq!(Wanted::of(&twice, 1).unwrap_err().code(), Code::InvalidArgument);
    }
}
