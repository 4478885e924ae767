//! What the server answers where: roots by store name, health, metrics; and the counting and logging of each answer.
//!
//! The table of roots is exchanged as a whole when the configuration is read again; a request keeps the table that it
//! began with. Hot path: no allocation of paths, no log line for a read that went well.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use cairn_formats::{ChunkId, Level, PULL_HEADER, PULL_PATH};
use cairn_gateway::admin::Admin;
use cairn_gateway::cdn::{CDN_PATH, Cdn};
use cairn_gateway::faces::{Face, Faces};
use cairn_gateway::grpc::Grpc;
use cairn_index::RocksEngine;
use cairn_roots::{
    Access, Body, ChunkRoot, ChunkRootOptions, Grant, Handler, IndexKeeper, IndexNames, IndexRoot, IndexRootOptions,
    Token, VerifyReads, Workers, text,
};
use cairn_store::{
    Authorization, CacheOptions, CacheStore, ChunkStore, GsConfigured, GsOptions, HttpOptions, Location,
    MemoryCacheStore, MetricsStore, MirrorOptions, MirrorStore, S3Configured, S3Credentials, S3Keys, S3Options,
    SftpOptions, StoreOptions, StoreSpec, open_chain, open_store,
};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::backup::Part;
use crate::config::{self, Config, Kind, LogRequests};
use crate::folders::{Folder, Folders, digest_of, log_behind, log_suspect};
use crate::metrics::{EndpointMetrics, Metrics, measure_index};
pub(crate) use cairn_store::error_chain as chain;

/// A store that has not said so much as "no such chunk" after this time is not ready.
const READY_MAX: Duration = Duration::from_secs(5);

static STORE: EndpointMetrics = EndpointMetrics::new("/store/{name}/{chunk}");
static PULL: EndpointMetrics = EndpointMetrics::new("/store/{name}/-/chunks");
static INDEX: EndpointMetrics = EndpointMetrics::new("/index/{name}/{key}");
static CDN: EndpointMetrics = EndpointMetrics::new("/cdn/{bucket}/{key}");
static HEALTH: EndpointMetrics = EndpointMetrics::new("/health");
static HEALTH_LIVE: EndpointMetrics = EndpointMetrics::new("/health/live");
static HEALTH_READY: EndpointMetrics = EndpointMetrics::new("/health/ready");
static METRICS: EndpointMetrics = EndpointMetrics::new("/metrics");
static GRPC: EndpointMetrics = EndpointMetrics::new("/{grpc service}/{method}");
static ADMIN: EndpointMetrics = EndpointMetrics::new("/api/v1/{admin}");
static OTHER: EndpointMetrics = EndpointMetrics::new("other");

/// The roots of one store, and what they were made from.
#[derive(Debug)]
pub(crate) struct StoreRoots {
    made_from: MadeFrom,
    /// Open as long as a root needs them; the store's own first, then those of its mirror.
    folders: Vec<Arc<Folder>>,
    chunks: Arc<ChunkRoot>,
    indexes: IndexRoot,
}

#[derive(Debug, PartialEq, Eq)]
struct MadeFrom {
    settings: config::Store,
    chunk_folder: PathBuf,
    index_folder: PathBuf,
    index_bytes: usize,
}

/// All roots, by name.
#[derive(Debug)]
pub(crate) struct Roots {
    stores: BTreeMap<String, Arc<StoreRoots>>,
    folders: Folders,
    log: LogRequests,
    /// What tells readers of indexes that chunk roots here take requests for many chunks, where they do.
    pulls: Option<HeaderValue>,
}

/// State that all listeners share.
pub(crate) struct App {
    roots: ArcSwap<Roots>,
    /// Buckets as roots, under names that no configured store has.
    faces: Option<Faces>,
    grpc: Option<Grpc>,
    /// Objects of buckets for caches and browsers.
    cdn: Option<Cdn>,
    metrics: Metrics,
    leaving: AtomicBool,
}

/// Port 8000.
pub(crate) struct Public(pub(crate) Arc<App>);

/// Port 8001.
pub(crate) struct Internal {
    pub(crate) app: Arc<App>,
    /// Where there are objects to administer.
    pub(crate) admin: Option<Arc<Admin>>,
    /// The index of objects, where there are any.
    pub(crate) objects: Option<Arc<RocksEngine>>,
}

impl Roots {
    /// Opens what the configuration names. Stores that are the same as in `before` are kept as they are.
    pub(crate) fn open(config: &Config, workers: &Workers, before: Option<&Self>) -> Result<Self, String> {
        let mut stores = BTreeMap::new();
        let mut folders = before.map(|before| before.folders.clone()).unwrap_or_default();
        for (name, store) in &config.stores {
            let made_from = MadeFrom {
                settings: store.clone(),
                chunk_folder: config.chunk_folder(name, store),
                index_folder: config.index_folder(name, store),
                index_bytes: config.limits.index_bytes,
            };
            let kept = before
                .and_then(|before| before.stores.get(name))
                .filter(|kept| kept.made_from == made_from);
            let roots = match kept {
                Some(kept) => Arc::clone(kept),
                None => {
                    let opened = StoreRoots::open(config, name, made_from, workers, &mut folders);
                    Arc::new(opened.map_err(|error| format!("stores.{name}: {error}"))?)
                }
            };
            stores.insert(name.clone(), roots);
        }
        // Those that no store needs any more are closed with the last request that does.
        folders.retain(|_, folder| {
            let needs = |roots: &Arc<StoreRoots>| roots.folders.iter().any(|own| Arc::ptr_eq(own, folder));
            stores.values().any(needs)
        });
        folders.values().for_each(|folder| folder.configure(config));
        Ok(Self {
            stores,
            folders,
            log: config.log.requests,
            pulls: Some(config.limits.pull_ids)
                .filter(|&ids| ids > 0)
                .map(HeaderValue::from),
        })
    }

    /// Sets the gauges of what can only be asked for.
    fn measure(&self) {
        for (name, roots) in &self.stores {
            let Some(index) = roots.folders.first().and_then(|folder| folder.index()) else {
                continue;
            };
            if let Ok(count) = index.chunk_count() {
                metrics::gauge!("store_chunks", "store" => name.clone()).set(count as f64);
            }
            measure_index(name, index);
        }
    }

    /// What a backup takes of stores: packs with their rows, and folders of index files, by store.
    pub(crate) fn backup_parts(&self) -> (Vec<Part>, Vec<(String, PathBuf)>) {
        let parts = self
            .folders
            .iter()
            .filter_map(|(path, folder)| folder.backup_part(path));
        let indexes = self.stores.iter();
        let indexes = indexes.map(|(name, roots)| (name.clone(), roots.made_from.index_folder.clone()));
        (parts.collect(), indexes.collect())
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.stores.keys().map(String::as_str)
    }
}

impl StoreRoots {
    fn open(
        config: &Config,
        name: &str,
        made_from: MadeFrom,
        workers: &Workers,
        folders: &mut Folders,
    ) -> Result<Self, String> {
        let MadeFrom {
            settings,
            index_folder,
            index_bytes,
            ..
        } = &made_from;
        let make = |folder: &PathBuf| {
            std::fs::create_dir_all(folder).map_err(|error| format!("cannot make folder {}: {error}", folder.display()))
        };
        if settings.writable || settings.indexes.is_none() {
            make(index_folder)?;
        }
        let mut own = Vec::new();
        let (store, verify_reads) = if settings.upstream.is_empty() {
            own.push(Folder::open(config, name, settings, folders)?);
            let store = open_mirror(config, name, settings, &mut own, folders)?;
            (store, verify_reads(settings))
        } else {
            if let Some(cache) = &settings.cache {
                make(cache)?;
            }
            open_upstream(settings)?
        };
        let store: Arc<dyn ChunkStore> = match settings.memory_cache {
            0 => store,
            bytes_max => Arc::new(MemoryCacheStore::new(store, bytes_max)),
        };
        let token = |secret: &config::Secret| Token::new(&secret.0);
        let access = Access {
            read: match &settings.read_token {
                None => Grant::Anyone,
                Some(read) => Grant::Tokens(
                    [Some(read), settings.write_token.as_ref()]
                        .into_iter()
                        .flatten()
                        .map(token)
                        .collect(),
                ),
            },
            write: match &settings.write_token {
                _ if !settings.writable => Grant::Nobody,
                None => Grant::Anyone,
                Some(write) => Grant::Tokens(vec![token(write)]),
            },
        };
        let keeper = own.first().and_then(|folder| folder.keeper(name, index_folder));
        let ask_for_heads = keeper.is_some();
        let options = ChunkRootOptions {
            digest: digest_of(settings),
            access: access.clone(),
            verify_reads,
            frame_level: (Config::kind(settings) == Kind::Packs).then(|| Level::new(settings.frame_level)),
            ask_for_heads,
            pull_ids: config.limits.pull_ids,
        };
        let required_in = settings.require_chunks.then(|| Arc::clone(&store));
        let chunks = Arc::new(ChunkRoot::new(store, options, workers.clone()));
        let index_options = IndexRootOptions {
            access,
            names: IndexNames::Suffixed,
            len_max: *index_bytes,
            required_in,
            keeper: keeper.map(|keeper| keeper as Arc<dyn IndexKeeper>),
            deletes: true,
            chunks: Some(Arc::clone(&chunks)),
        };
        let indexes = IndexRoot::new(index_folder, index_options, workers.clone()).map_err(|error| chain(&error))?;
        Ok(Self {
            made_from,
            folders: own,
            chunks,
            indexes,
        })
    }
}

fn verify_reads(settings: &config::Store) -> VerifyReads {
    match settings.verify_hours {
        0 => VerifyReads::Never,
        hours => VerifyReads::After(Duration::from_secs(u64::from(hours) * 60 * 60)),
    }
}

/// Credentials of buckets: those of the settings, else those that Amazon's tools would find.
fn s3_options(settings: &config::Store) -> S3Options {
    let environment = |name: &str| std::env::var(name).ok();
    let mut options = S3Options::from_chain(&S3Configured::default(), &environment);
    if let (Some(access_key), Some(secret_key)) = (&settings.upstream_s3_access_key, &settings.upstream_s3_secret_key) {
        options.credentials = S3Credentials::Keys(S3Keys {
            access_key: access_key.clone(),
            secret_key: secret_key.0.clone(),
            session_token: None,
        });
    }
    if settings.upstream_s3_region.is_some() {
        options.region = settings.upstream_s3_region.clone();
    }
    options
}

/// Credentials of Google's buckets: as its tools find them, the settings' file before what is only there.
fn gs_options(settings: &config::Store) -> GsOptions {
    let configured = GsConfigured {
        file: settings.upstream_gs_credentials.clone(),
        endpoint: settings.upstream_gs_endpoint.clone(),
    };
    GsOptions::from_chain(&configured, &|name| std::env::var(name).ok())
}

fn sftp_options(settings: &config::Store) -> SftpOptions {
    let mut options = SftpOptions::from_environment(&|name| std::env::var(name).ok());
    if let Some(identity) = &settings.upstream_ssh_identity {
        options.identities = vec![identity.clone()];
    }
    if let Some(known_hosts) = &settings.upstream_ssh_known_hosts {
        options.known_hosts = vec![known_hosts.clone()];
    }
    options
}

/// The store of a folder, with the places that mirror it.
///
/// - `own`: the open folder; gets those of the mirror that are of this machine.
fn open_mirror(
    config: &Config,
    name: &str,
    settings: &config::Store,
    own: &mut Vec<Arc<Folder>>,
    folders: &mut Folders,
) -> Result<Arc<dyn ChunkStore>, String> {
    let mut members: Vec<Arc<dyn ChunkStore>> = own.iter().map(|folder| Arc::clone(folder.store())).collect();
    let options = remote_options(settings, !settings.writable);
    for place in &settings.mirror {
        let wrong = |error: &dyn std::error::Error| format!("mirror: {}", chain(error));
        match Location::parse(place).map_err(|error| wrong(&error))? {
            // Packs are locked while they are open: a folder keeps the handle that it has when settings change.
            Location::Local(path) => {
                let settings = config::Store {
                    path: Some(path),
                    kind: None,
                    mirror: Vec::new(),
                    ..settings.clone()
                };
                let folder = Folder::open(config, name, &settings, folders)?;
                if own.iter().any(|other| Arc::ptr_eq(other, &folder)) {
                    return Err(format!("mirror: {place} is named twice, or the store's own folder"));
                }
                if folder.is_rooted() {
                    return Err(format!(
                        "mirror: {place} is the folder of a rooted store, which would collect what is put there"
                    ));
                }
                members.push(Arc::clone(folder.store()));
                own.push(folder);
            }
            location => {
                let store = open_store(&StoreSpec::single(location, options.clone())).map_err(|error| wrong(&error))?;
                members.push(Arc::new(MetricsStore::new(store, "mirror")));
            }
        }
    }
    if members.len() == 1 {
        return Ok(members.remove(0));
    }
    for folder in own.iter() {
        let others = members.iter().filter(|member| !Arc::ptr_eq(member, folder.store()));
        folder.repair_from(others.cloned().collect());
    }
    let options = MirrorOptions {
        quorum: NonZeroUsize::new(settings.mirror_quorum),
        writable: settings.writable,
        on_behind: log_behind,
        ..MirrorOptions::default()
    };
    Ok(Arc::new(MirrorStore::new(members, options)))
}

/// How servers are talked to.
pub(crate) fn remote_options(settings: &config::Store, read_only: bool) -> StoreOptions {
    StoreOptions {
        read_only,
        on_suspect: log_suspect,
        on_behind: log_behind,
        http: HttpOptions {
            authorization: settings
                .upstream_authorization
                .as_ref()
                .map(|value| Authorization::Fixed(value.0.clone())),
            ..HttpOptions::default()
        },
        s3: s3_options(settings),
        gs: gs_options(settings),
        sftp: sftp_options(settings),
        ..StoreOptions::default()
    }
}

fn open_upstream(settings: &config::Store) -> Result<(Arc<dyn ChunkStore>, VerifyReads), String> {
    let options = remote_options(settings, true);
    let specs = settings
        .upstream
        .iter()
        .map(|text| StoreSpec::parse(text, |_| options.clone()).map_err(|error| format!("upstream: {error}")))
        .collect::<Result<Vec<_>, _>>()?;
    let store = open_chain(&specs).map_err(|error| chain(&error))?;
    let store: Arc<dyn ChunkStore> = Arc::new(MetricsStore::new(store, "upstream"));
    let Some(folder) = &settings.cache else {
        return Ok((store, VerifyReads::Always));
    };
    let options = CacheOptions {
        bytes_max: Some(settings.cache_bytes).filter(|&bytes| bytes > 0),
        // What went bad in the cache is fetched again instead of being an error for ever.
        repair: true,
        digest: digest_of(settings),
    };
    let store = CacheStore::open(store, folder, options).map_err(|error| chain(&error))?;
    // A fetched chunk that is damaged is not kept, but it is handed on: we look too.
    Ok((
        Arc::new(MetricsStore::new(Arc::new(store), "cache")),
        VerifyReads::Always,
    ))
}

impl App {
    pub(crate) fn new(
        roots: Roots,
        faces: Option<Faces>,
        grpc: Option<Grpc>,
        cdn: Option<Cdn>,
        metrics: Metrics,
    ) -> Self {
        Self {
            roots: ArcSwap::from_pointee(roots),
            faces,
            grpc,
            cdn,
            metrics,
            leaving: AtomicBool::new(false),
        }
    }

    pub(crate) fn roots(&self) -> Arc<Roots> {
        self.roots.load_full()
    }

    /// New requests use `roots`.
    pub(crate) fn replace_roots(&self, roots: Roots) {
        self.roots.store(Arc::new(roots));
    }

    /// From now on assets are fetched as these settings have it; none are where their client does not start.
    pub(crate) fn set_outgoing(&self, config: &Config) {
        let Some(grpc) = &self.grpc else { return };
        let outgoing = config.outgoing.sender();
        if let Err(error) = &outgoing {
            tracing::error!(error, "assets are fetched no longer");
        }
        grpc.set_outgoing(outgoing.ok());
    }

    /// New requests for buckets show these tokens, access keys, or links of these keys.
    pub(crate) fn set_tokens(&self, config: &Config) {
        let tokens = || {
            config
                .tokens
                .values()
                .filter_map(config::BucketToken::service)
                .collect()
        };
        if let Some(cdn) = &self.cdn {
            cdn.set(config.cdn.settings(config.tokens.values()));
        }
        if let Some(faces) = &self.faces {
            faces.set_tokens(tokens());
        }
        if let Some(grpc) = &self.grpc {
            grpc.set_tokens(tokens());
        }
    }

    /// The admin API, which gRPC has services for.
    pub(crate) fn set_admin(&self, admin: &Arc<Admin>) {
        if let Some(grpc) = &self.grpc {
            grpc.set_admin(admin);
        }
    }

    /// From now on the server is not ready, so that load balancers look elsewhere, and nobody follows it any more.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
        if let Some(grpc) = &self.grpc {
            grpc.leave();
        }
    }

    async fn health(&self, path: &str, method: &Method) -> Response<Body> {
        if *method != Method::GET && *method != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "health is read, nothing else");
        }
        let trouble = match path {
            "/health/live" => Vec::new(),
            _ => self.trouble().await,
        };
        let (status, word) = if trouble.is_empty() {
            (StatusCode::OK, "ok")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
        };
        let body = serde_json::json!({ "status": word, "version": env!("CARGO_PKG_VERSION"), "trouble": trouble });
        page(status, "application/json", body.to_string())
    }

    /// What keeps the server from serving, by store.
    async fn trouble(&self) -> Vec<String> {
        if self.leaving.load(Ordering::Relaxed) {
            return vec!["the server is shutting down".to_owned()];
        }
        let roots = self.roots();
        let looks = roots.stores.iter().map(|(name, roots)| {
            let store = Arc::clone(roots.chunks.store());
            // Not among the bounded jobs: readiness should not wait behind a queue that the time-out would call a failure.
            let look = tokio::task::spawn_blocking(move || store.has_many(&[ChunkId::from_bytes([0; 32])]));
            (name, tokio::time::timeout(READY_MAX, look))
        });
        let mut trouble = Vec::new();
        for (name, look) in looks.collect::<Vec<_>>() {
            match look.await {
                Ok(Ok(Ok(_))) => {}
                Ok(Ok(Err(error))) => {
                    tracing::warn!(store = name, error = chain(&error), "a store cannot be read");
                    trouble.push(format!("store {name} cannot be read"));
                }
                Ok(Err(_)) => trouble.push(format!("store {name} cannot be read")),
                Err(_) => trouble.push(format!("store {name} does not answer")),
            }
        }
        trouble
    }
}

impl Handler for Public {
    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let started = Instant::now();
        let roots = self.0.roots();
        let method = request.method().clone();
        let (endpoint, trace) = (endpoint_of(request.uri().path()), trace_of(request.headers()));
        let door = door_of(request.uri().path());
        let is_index = matches!(door, Some((Face::Indexes, ..)));
        let store = door.and_then(|(face, name, at)| Some((face, roots.stores.get(name)?, at)));
        // Of a configured store the name need not be kept.
        let bucket = match (&store, &self.0.faces) {
            (None, Some(faces)) => door.map(|(face, name, at)| (faces, face, name.to_owned(), at)),
            _ => None,
        };
        let cdn = self
            .0
            .cdn
            .as_ref()
            .filter(|_| request.uri().path().starts_with(CDN_PATH));
        let mut response = match (store, bucket, cdn) {
            (_, _, Some(cdn)) => cdn.answer(request).await,
            (Some((Face::Chunks, store, at)), ..) => store.chunks.answer(request, at).await,
            (Some((Face::Indexes, store, at)), ..) => store.indexes.answer(request, at).await,
            (None, Some((faces, face, name, at)), None) => faces.answer(request, face, &name, at).await,
            (None, None, None) => match request.uri().path() {
                path @ ("/health" | "/health/live" | "/health/ready") => self.0.health(path, &method).await,
                path => {
                    let known = roots.names().collect::<Vec<_>>().join(", ");
                    let word = if path.starts_with("/store/") || path.starts_with("/index/") {
                        "no store of this name; the paths are /store/{name}/… and /index/{name}/…".to_owned()
                    } else {
                        format!("nothing is here; try /health, /store/{{name}}/ or /index/{{name}}/ ({known})")
                    };
                    text(StatusCode::NOT_FOUND, word)
                }
            },
        };
        // A reader of an index wants its chunks next.
        if let (true, Some(pulls)) = (is_index, &roots.pulls)
            && (response.status().is_success() || response.status() == StatusCode::NOT_MODIFIED)
        {
            let headers = response.headers_mut();
            headers.insert(HeaderName::from_static(PULL_HEADER), pulls.clone());
        }
        record(roots.log, endpoint, &method, &response, started, trace);
        response
    }
}

impl Handler for Internal {
    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let started = Instant::now();
        let (method, trace) = (request.method().clone(), trace_of(request.headers()));
        if let Some(grpc) = self.app.grpc.as_ref().filter(|_| Grpc::takes(&request)) {
            let response = grpc.answer(request).await;
            // By their own codes calls are counted by the door.
            GRPC.count(&method, response.status(), started.elapsed());
            return response;
        }
        let endpoint = endpoint_of(request.uri().path());
        let response = match request.uri().path() {
            "/metrics" if method == Method::GET || method == Method::HEAD => {
                let (metrics, roots) = (self.app.metrics.clone(), self.app.roots());
                let objects = self.objects.clone();
                let page_of = move || {
                    roots.measure();
                    if let Some(index) = objects {
                        measure_index(crate::objects::STORE_NAME, &index);
                    }
                    metrics.page()
                };
                match tokio::task::spawn_blocking(page_of).await {
                    Ok(body) => page(StatusCode::OK, "text/plain; version=0.0.4", body),
                    Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "internal server error"),
                }
            }
            path @ ("/health" | "/health/live" | "/health/ready") => self.app.health(path, &method).await,
            path => match self.admin.as_ref().filter(|_| Admin::takes(path)) {
                Some(admin) => admin.answer(request).await,
                None => text(
                    StatusCode::NOT_FOUND,
                    "nothing is here; try /metrics, /health or /api/v1/admin/buckets",
                ),
            },
        };
        record(self.app.roots.load().log, endpoint, &method, &response, started, trace);
        response
    }
}

/// The door that a path is for, the name that follows, and where the part behind the name begins.
fn door_of(path: &str) -> Option<(Face, &str, usize)> {
    // "/store/" and "/index/" are of one length.
    let (door, rest) = path.split_at_checked(7)?;
    let door = match door {
        "/store/" => Face::Chunks,
        "/index/" => Face::Indexes,
        _ => return None,
    };
    let name_len = rest.find('/')?;
    Some((door, &rest[..name_len], 7 + name_len))
}

fn endpoint_of(path: &str) -> &'static EndpointMetrics {
    match path {
        "/health" => &HEALTH,
        "/health/live" => &HEALTH_LIVE,
        "/health/ready" => &HEALTH_READY,
        "/metrics" => &METRICS,
        _ if path.starts_with("/store/") && path.ends_with(PULL_PATH) => &PULL,
        _ if path.starts_with("/store/") => &STORE,
        _ if path.starts_with("/index/") => &INDEX,
        _ if path.starts_with(CDN_PATH) => &CDN,
        _ if Admin::takes(path) => &ADMIN,
        _ => &OTHER,
    }
}

/// The trace id of a W3C `traceparent` header, if there is one.
fn trace_of(headers: &HeaderMap) -> Option<String> {
    let id = headers.get("traceparent")?.to_str().ok()?.split('-').nth(1)?;
    (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_ascii_lowercase())
}

/// Counts an answer, and logs it where the settings ask for it.
fn record(
    log: LogRequests,
    endpoint: &EndpointMetrics,
    method: &Method,
    response: &Response<Body>,
    started: Instant,
    trace: Option<String>,
) {
    let (took, status) = (started.elapsed(), response.status());
    endpoint.count(method, status, took);
    let is_read = *method == Method::GET
        || *method == Method::HEAD
        || (*method == Method::POST && (std::ptr::eq(endpoint, &PULL) || std::ptr::eq(endpoint, &INDEX)));
    // A chunk that is not there is an everyday answer to a reader.
    let is_ordinary = is_read && (status.as_u16() < 400 || matches!(status.as_u16(), 404 | 416));
    if log == LogRequests::None || (log == LogRequests::Changes && is_ordinary) {
        return;
    }
    let trace_id = trace.unwrap_or_else(|| format!("{:032x}", fastrand::u128(..)));
    let duration_ms = took.as_micros() as f64 / 1000.0;
    tracing::info!(
        trace_id,
        endpoint = endpoint.endpoint(),
        method = method.as_str(),
        status_code = status.as_u16(),
        duration_ms,
        "request answered"
    );
}

fn page(status: StatusCode, content_type: &'static str, body: String) -> Response<Body> {
    let mut response = text(status, "");
    *response.body_mut() = Body::from(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
