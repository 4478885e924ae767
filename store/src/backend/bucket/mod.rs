//! Chunks, packs and indexes as objects of a bucket, in the layout of desync (`prefix/<4 hex>/<64 hex>[.cacnk]`) or of packs.
//!
//! `object_store` signs, lists and deletes; connections, time-outs and tries are those of the HTTP backend (`service.rs`). What
//! differs between services, whose requests are sent and where to, is a folder each (`s3/`, `gs/`). A PUT is atomic by itself.
//! "Missing" is 404 for the object: a bucket that is not there is an error, and so is 403, which servers answer for any missing
//! object to those who may not list.

pub(crate) mod gs;
pub(crate) mod input;
mod packs;
pub(crate) mod s3;
mod service;

use std::error::Error as StdError;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{Attribute, Attributes, GetOptions, GetResult, ObjectStore, PutOptions, RetryConfig};

use url::Url;

use super::http::HttpOptions;
use super::http::client::is_tls;
use super::remote::body::{Body, Spool};
use super::remote::{Fault, Files, Page, Try};
use crate::{Location, StoreOptions, error_chain, rate};
use service::ServiceFault;

/// Objects taken of a listing at once (the services' own limit for a page).
const PAGE_LEN: usize = 1000;
/// A body longer than this may take longer than the time for one request, which is meant for chunks.
const TIMED_LEN_MAX: usize = 16 << 20;

/// The objects below a prefix of a bucket.
pub(crate) struct Bucket {
    client: Client,
    /// Empty, or ends with `/`.
    prefix: String,
    options: HttpOptions,
    /// The bucket is known to be there: 404 without a body (HEAD) speaks of the object.
    seen: AtomicBool,
}

/// A service's client for one bucket, and what it can do.
struct Client {
    objects: Box<dyn ObjectStore>,
    /// Uploads in parts that end only if nothing has the name; `None` where the service knows no such end.
    parts: Option<Box<dyn MultipartStore>>,
    /// Objects that one request deletes.
    removed_together: usize,
}

impl Bucket {
    /// Prepares a client; nothing is asked yet.
    ///
    /// - `prefix`: a place in the bucket, without `/` at either end.
    /// - Errors: a location without a bucket; a certificate, proxy, region, file of credentials or address that cannot be used.
    pub(crate) fn open(location: &Location, prefix: &str, options: &StoreOptions) -> Result<Self, Fault> {
        let client = match location {
            Location::S3(s3) => s3::client(s3, &options.s3, &options.http)?,
            Location::Gs(gs) => gs::client(gs, &options.gs, &options.http)?,
            location => return Err(Fault::Refused(format!("{location} is no bucket").into())),
        };
        Ok(Self {
            client,
            prefix: match prefix {
                "" => String::new(),
                prefix => format!("{prefix}/"),
            },
            options: options.http.clone(),
            seen: AtomicBool::new(false),
        })
    }

    fn path(&self, name: &str) -> Try<Path> {
        Path::parse(format!("{}{name}", self.prefix)).map_err(Fault::refused)
    }

    /// Waits for an operation as long as one try may take.
    async fn timed<T>(&self, limit: Option<Duration>, operation: impl Future<Output = Try<T>>) -> Try<T> {
        match limit {
            None => operation.await,
            Some(limit) => tokio::time::timeout(limit, operation)
                .await
                .unwrap_or_else(|_| Err(Fault::passing(format!("no answer within {limit:?}")))),
        }
    }

    /// `None` for an object that is not there.
    fn found<T>(&self, answer: object_store::Result<T>) -> Try<Option<T>> {
        let missing = matches!(answer, Err(object_store::Error::NotFound { .. }));
        match answer {
            _ if missing => Ok(None),
            Ok(answer) => {
                self.seen.store(true, Ordering::Relaxed);
                Ok(Some(answer))
            }
            Err(error) => Err(failed(error)),
        }
    }

    async fn get(&self, path: &Path) -> Try<Option<GetResult>> {
        let answer = self.found(self.client.objects.get_opts(path, GetOptions::default()).await)?;
        // A missing bucket would have been told apart by the answer's body.
        self.seen.store(true, Ordering::Relaxed);
        Ok(answer)
    }

    async fn read_once(&self, name: &str, len_max: usize, spool: Option<&Spool>) -> Try<Option<Bytes>> {
        let path = self.path(name)?;
        let Some(result) = self.get(&path).await? else {
            return Ok(None);
        };
        let announced = result.meta.size;
        let mut body = Body::new(announced, len_max, spool).map_err(Fault::refused)?;
        let mut pieces = result.into_stream();
        let idle = self.options.idle_timeout;
        loop {
            let piece = match tokio::time::timeout(idle, pieces.next()).await {
                Ok(Some(piece)) => piece.map_err(failed)?,
                Ok(None) => break,
                Err(_) => return Err(Fault::passing(format!("nothing more of the object within {idle:?}"))),
            };
            rate::pause_for(self.options.rate_limit.as_deref(), piece.len()).await;
            if body.len() == 0 && piece.len() as u64 == announced {
                return Ok(Some(piece));
            }
            body.push(&piece).map_err(Fault::refused)?;
        }
        if body.len() as u64 != announced {
            let len = body.len();
            return Err(Fault::passing(format!("{len} bytes came of an object of {announced}")));
        }
        Ok(Some(body.finish().map_err(Fault::refused)?))
    }
}

impl Files for Bucket {
    fn removed_together(&self) -> usize {
        self.client.removed_together
    }

    async fn read(&self, name: &str, len_max: usize, spool: Option<&Spool>) -> Try<Option<Bytes>> {
        // An index may take as long as it keeps coming.
        let limit = if spool.is_some() { None } else { self.options.timeout };
        self.timed(limit, self.read_once(name, len_max, spool)).await
    }

    async fn len(&self, name: &str) -> Try<Option<u64>> {
        let look = async {
            let path = self.path(name)?;
            let options = GetOptions {
                head: true,
                ..GetOptions::default()
            };
            let found = match self.found(self.client.objects.get_opts(&path, options).await) {
                // An answer to HEAD has no body, which would say why.
                Err(failure) if matches!(failure.fault, Fault::Refused(_)) => {
                    return Ok(self.get(&path).await?.map(|result| result.meta.size));
                }
                found => found?,
            };
            if found.is_none() && !self.seen.load(Ordering::Relaxed) {
                return Ok(self.get(&path).await?.map(|result| result.meta.size));
            }
            Ok(found.map(|result| result.meta.size))
        };
        self.timed(self.options.timeout, look).await
    }

    async fn write(&self, name: &str, body: Bytes, content_type: &'static str) -> Try<()> {
        let limit = self.options.timeout.filter(|_| body.len() <= TIMED_LEN_MAX);
        rate::pause_for(self.options.rate_limit.as_deref(), body.len()).await;
        let put = async {
            let path = self.path(name)?;
            let mut attributes = Attributes::new();
            attributes.insert(Attribute::ContentType, content_type.into());
            let options = PutOptions {
                attributes,
                ..PutOptions::default()
            };
            match self.client.objects.put_opts(&path, body.into(), options).await {
                Ok(_) => Ok(()),
                // Nothing but the bucket can be missing.
                Err(error @ object_store::Error::NotFound { .. }) => Err(Fault::refused(error)),
                Err(error) => Err(failed(error)),
            }
        };
        self.timed(limit, put).await
    }

    async fn remove(&self, names: Vec<String>) -> Try<()> {
        let remove = async {
            let paths = names.iter().map(|name| self.path(name).map(Ok));
            let paths: Vec<_> = paths.collect::<Try<_>>()?;
            let mut removed = self
                .client
                .objects
                .delete_stream(futures_util::stream::iter(paths).boxed());
            while let Some(answer) = removed.next().await {
                self.found(answer)?;
            }
            Ok(())
        };
        self.timed(self.options.timeout, remove).await
    }

    async fn parts(&self) -> Try<Vec<String>> {
        Ok(vec![String::new()])
    }

    async fn list(&self, _part: &str, after: Option<&str>) -> Try<Page> {
        let prefix = Path::parse(&self.prefix).map_err(Fault::refused)?;
        self.list_below(prefix, after).await
    }
}

impl Bucket {
    /// A page of the objects below a path of the bucket. What comes after it is asked for anew, so that a failure there does not
    /// cost what is here.
    async fn list_below(&self, path: Path, after: Option<&str>) -> Try<Page> {
        let list = async {
            let path = Some(&path).filter(|path| !path.as_ref().is_empty());
            let objects = match after {
                None => self.client.objects.list(path),
                Some(after) => self.client.objects.list_with_offset(path, &self.path(after)?),
            };
            let mut objects = objects.take(PAGE_LEN);
            let mut page = Page::default();
            while let Some(object) = objects.next().await {
                let object = object.map_err(failed)?;
                let name = object.location.as_ref().strip_prefix(&self.prefix);
                page.files.extend(name.map(|name| (name.to_owned(), object.size)));
            }
            self.seen.store(true, Ordering::Relaxed);
            if page.files.len() == PAGE_LEN {
                page.more_after = page.files.last().map(|(name, _)| name.clone());
            }
            Ok(page)
        };
        self.timed(self.options.timeout, list).await
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bucket").field(&self.prefix).finish()
    }
}

/// What is wrong, from the chain of causes that `object_store` gives.
fn failed(error: object_store::Error) -> super::remote::patience::Failure<Fault> {
    let mut transport = None;
    let mut cause: Option<&(dyn StdError + 'static)> = Some(&error);
    while let Some(this) = cause {
        if let Some(fault) = this.downcast_ref::<ServiceFault>() {
            return fault.clone().into_failure();
        }
        if let Some(error) = this.downcast_ref::<object_store::client::HttpError>() {
            transport.get_or_insert(error);
        }
        if is_tls(this) {
            return Fault::refused(error);
        }
        cause = this.source();
    }
    match transport.and_then(|error| error.source()) {
        Some(error) => Fault::passing(error_chain(error)),
        None => Fault::refused(error),
    }
}

/// Tries are counted by us, who also count what is wrong with a body.
fn tried_once() -> RetryConfig {
    RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    }
}

/// Whether a token may be sent there: over https, or to this machine or its host (the rule of Amazon's tools).
fn is_near(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    url.scheme() == "https"
        || match host.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
            Ok(IpAddr::V6(address)) => address.is_loopback() || address.segments()[..2] == [0xfd00, 0xec2],
            Err(_) => host == "localhost",
        }
}

#[cfg(test)]
mod tests;
