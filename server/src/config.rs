//! Every setting of `cairnd`: read as written (TOML file, then `CAIRN_…` variables), then checked once.
//!
//! Invariants: an unknown name is refused, a secret is never shown. `docs/settings.md` is the page for people; a test at
//! the end of this file keeps it in step. Not here: acting on any of it.

mod cdn;
mod checks;
mod defaults;
mod grpc;
mod outgoing;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use cairn_store::PackStore;
use figment::Figment;
use figment::providers::{Env, Format as _, Toml};
use serde::{Deserialize, Serialize};

pub(crate) use cdn::Cdn;
pub(crate) use grpc::Grpc;
pub(crate) use outgoing::Outgoing;
pub(crate) use token::{BucketToken, FIRST_OWNER};

/// The store that a server without any configuration has.
pub(crate) const DEFAULT_STORE: &str = "default";
const STORE_NAME_LEN_MAX: usize = 63;
/// Variables of this prefix are settings; `__` separates levels: `CAIRN_LISTEN__PUBLIC`.
const ENV_PREFIX: &str = "CAIRN_";

/// All settings.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Folder of everything that the server keeps. One server at a time uses it. Default `./data`.
    pub(crate) data: PathBuf,
    /// Where the server listens.
    pub(crate) listen: Listen,
    /// Certificate and key of the public listener; without them it speaks plain HTTP. Default: none.
    pub(crate) tls: Option<TlsFiles>,
    /// Chunk and index roots by name, at `/store/{name}/` and `/index/{name}/`. Default: one, `default`, writable.
    pub(crate) stores: BTreeMap<String, Store>,
    /// How the chunks are collected that no index of a rooted store names.
    pub(crate) collect: Collect,
    /// How packs are read for damage.
    pub(crate) scrub: Scrub,
    /// The S3 door.
    pub(crate) s3: S3,
    /// Tokens of services by name, for buckets at `/store/{bucket}/` and `/index/{bucket}/`. Access keys open them anyway. Default: none.
    pub(crate) tokens: BTreeMap<String, BucketToken>,
    /// The CDN's door.
    pub(crate) cdn: Cdn,
    /// Requests of the server's own.
    pub(crate) outgoing: Outgoing,
    /// The admin API, on the internal listener.
    pub(crate) admin: AdminApi,
    /// The gRPC door, on the internal listener.
    pub(crate) grpc: Grpc,
    /// Bounds.
    pub(crate) limits: Limits,
    /// What is logged.
    pub(crate) log: Log,
}

/// Where the server listens.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Listen {
    /// Address and port of chunk roots, index roots and health. Default `127.0.0.1:8000`.
    pub(crate) public: SocketAddr,
    /// Address and port of gRPC, `/metrics` and the admin API, always plain HTTP. Default `127.0.0.1:8001`.
    pub(crate) internal: SocketAddr,
    /// Address and port of the S3 door. Default `127.0.0.1:9000`.
    pub(crate) s3: SocketAddr,
    /// Allow plain HTTP on an address that is not of this machine alone: tokens and data can be read on the way. Default `false`.
    pub(crate) allow_plain_remote: bool,
    /// Allow a writable store without a write token on such an address: anybody can fill the disk. Default `false`.
    pub(crate) allow_anonymous_writes: bool,
}

/// Certificate and key, PEM files; read again on SIGHUP.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsFiles {
    /// Certificate chain, the server's own first.
    pub(crate) certificate: PathBuf,
    /// Private key.
    pub(crate) key: PathBuf,
    /// Authorities of client certificates; clients must then show one. Default: no client certificate is asked for.
    #[serde(default)]
    pub(crate) client_ca: Option<PathBuf>,
}

/// One chunk root and its index root.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Store {
    /// Folder of chunks. Made when it is missing and the store is writable. Default `{data}/packs/{name}`, of a flat store
    /// `{data}/store/{name}`.
    pub(crate) path: Option<PathBuf>,
    /// How chunks lie in it: `packs`, or `flat` in the layout of casync and desync. Default `packs`; with `path` what the
    /// folder is, and `flat` if it is neither.
    pub(crate) kind: Option<Kind>,
    /// Bytes at which a pack is full and another is begun. Default `268435456`.
    pub(crate) pack_len: u64,
    /// zstd level, -7 to 22, of chunks that come plain to packs; those that come compressed stay as they are. Default `1`.
    pub(crate) frame_level: i32,
    /// Bytes of uploaded chunks that wait to be written to packs; further uploads wait. Default `16777216`.
    pub(crate) queue_len: usize,
    /// Bytes of memory for the index of places, what is cached of its files and what is not in them yet. Default `67108864`.
    pub(crate) places_cache: usize,
    /// Stores behind this one, asked in order for what the ones before do not have: URLs or folders, `a|b` for servers that
    /// stand in for each other. The store is then read-only, has no `path`, and checks each chunk it gets. Default: none.
    pub(crate) upstream: Vec<String>,
    /// Places that have every chunk of this store too: URLs or folders. Writes go to all, the nearest is read, and what one lacks
    /// or holds damaged is taken from another. Default: none.
    pub(crate) mirror: Vec<String>,
    /// Places, the store's own folder among them, that must have a chunk before it is acknowledged; `0` is all. Default `0`.
    pub(crate) mirror_quorum: usize,
    /// `Authorization` value that is sent to servers in `upstream` and `mirror`. Default: none.
    pub(crate) upstream_authorization: Option<Secret>,
    /// Access key for `s3+http(s)://` in `upstream` and `mirror`. Default: as Amazon's tools, `AWS_*` or `~/.aws/credentials`, else none.
    pub(crate) upstream_s3_access_key: Option<String>,
    /// Secret key that goes with it. Default: as that.
    pub(crate) upstream_s3_secret_key: Option<Secret>,
    /// Region of the buckets. Default: as Amazon's tools, else what the host name says, else `us-east-1`.
    pub(crate) upstream_s3_region: Option<String>,
    /// File of credentials for `gs://` in `upstream` and `mirror`. Default: as Google's tools, `GOOGLE_APPLICATION_CREDENTIALS`, what
    /// `gcloud` wrote or the machine's account, else none.
    pub(crate) upstream_gs_credentials: Option<PathBuf>,
    /// Address of the server of `gs://`. Default: `STORAGE_EMULATOR_HOST`, else Google's.
    pub(crate) upstream_gs_endpoint: Option<String>,
    /// Private key for `sftp://` in `upstream` and `mirror`. Default: those in `~/.ssh`, then those of ssh-agent.
    pub(crate) upstream_ssh_identity: Option<PathBuf>,
    /// `known_hosts` file with the keys of its servers. Default: the user's and the system's.
    pub(crate) upstream_ssh_known_hosts: Option<PathBuf>,
    /// Folder that keeps what was fetched from `upstream`; made when it is missing. Default: nothing is kept.
    pub(crate) cache: Option<PathBuf>,
    /// Bytes that `cache` may hold; the least recently used go. `0` is no limit. Default `0`.
    pub(crate) cache_bytes: u64,
    /// Bytes of chunks kept in memory, as they are stored; those asked for often stay. `0` keeps none. Default `0`.
    pub(crate) memory_cache: u64,
    /// Folder of indexes; made when it is missing. Default `{data}/index/{name}`.
    pub(crate) indexes: Option<PathBuf>,
    /// Take PUTs. Default `false`, but `true` for the store of a server without configuration.
    pub(crate) writable: bool,
    /// Reading needs this token, as bearer token or as whole `Authorization` value. Default: anybody reads.
    pub(crate) read_token: Option<Secret>,
    /// Writing needs this token, which reads too. Default: anybody writes, if the store is writable.
    pub(crate) write_token: Option<Secret>,
    /// Digest that names the chunks: `sha512-256` or `sha256`. Default `sha512-256`.
    pub(crate) digest: Digest,
    /// When an acknowledged chunk is durable: `sync` (before the answer), `batch` or `none`. Default `sync`.
    pub(crate) sync: Sync,
    /// All indexes that name its chunks are in its index root, so that chunks which none names may be deleted. Not for a store that
    /// clients put chunks to whose indexes they keep elsewhere. Default `false`.
    pub(crate) rooted: bool,
    /// Refuse an index (409) whose chunks are not all in the store. Default `false`.
    pub(crate) require_chunks: bool,
    /// Hours for which a chunk that was checked against its id while it was read is not checked again; `0` checks none. Default `24`.
    pub(crate) verify_hours: u32,
}

/// How chunks lie in a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// A few append-only files.
    Packs,
    /// A file per chunk, in the layout of casync and desync.
    Flat,
}

/// Digest that names chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize, Serialize)]
pub(crate) enum Digest {
    /// SHA-512/256.
    #[default]
    #[serde(rename = "sha512-256")]
    Sha512_256,
    /// SHA-256.
    #[serde(rename = "sha256")]
    Sha256,
}

/// When an acknowledged chunk is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Sync {
    /// Before the answer.
    #[default]
    #[serde(rename = "sync")]
    Always,
    /// With the next batch.
    Batch,
    /// When the system likes.
    None,
}

/// How the chunks of rooted stores are collected that no index names.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Collect {
    /// Seconds from the end of one collection to the next; `0` is never. Default `86400`.
    pub(crate) interval_seconds: u64,
    /// Seconds for which a chunk is kept that was put, or that somebody was told is there: who has the index in the making need not
    /// send it again. The first collection waits as long after the start. Default `86400`.
    pub(crate) lease_seconds: u64,
    /// Seconds between choosing chunks and deleting them, for readers who are at an index that was just taken away. Default `600`.
    pub(crate) grace_seconds: u64,
    /// Bytes a second of indexes read and of chunks moved to get space back; `0` is no limit. Default `67108864`.
    pub(crate) bytes_per_second: u64,
    /// Packs are written anew until what is deleted takes at most this share of what is not, above 0. Default `0.03`.
    pub(crate) dead_share: f64,
    /// zstd level, 1 to 22, at which packs are compressed anew after a collection once all in them is older than `lease_seconds`,
    /// where that makes them smaller; `0` is never. Default `0`.
    pub(crate) recompress_level: i32,
    /// Bytes a second that are compressed anew; `0` is no limit. Default `4194304`.
    pub(crate) recompress_bytes_per_second: u64,
    /// Days without use after which a blob of the gRPC door goes; `0` is never. Default `30`.
    pub(crate) blob_days: u32,
    /// Begin no collection, and have one that runs wait. Default `false`.
    pub(crate) paused: bool,
}

/// How packs are read for damage while they are served.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Scrub {
    /// Seconds within which each pack is read to its end; `0` is never. Default `2592000`.
    pub(crate) interval_seconds: u64,
    /// Bytes read a second, of each folder of packs; `0` is no limit. Default `33554432`.
    pub(crate) bytes_per_second: u64,
    /// Read nothing for now. Default `false`.
    pub(crate) paused: bool,
}

/// The S3 door: buckets and objects, in `{data}/objects`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct S3 {
    /// Serve it at all. Default `true`.
    pub(crate) enabled: bool,
    /// Region that requests are signed for, and label of new buckets. Default `us-east-1`.
    pub(crate) region: String,
    /// Domains under which `bucket.domain` is a bucket, beside the path style that always is. Default: none.
    pub(crate) domains: Vec<String>,
    /// Believe `X-Forwarded-Host` and `X-Forwarded-Prefix`: only where all requests come through a proxy that sets them. Default `false`.
    pub(crate) trust_forwarded: bool,
    /// Store chunks of objects as they come, and compress them when the door has been at rest; else they are compressed when they come.
    /// Default `true`.
    pub(crate) deferred: bool,
    /// zstd level, -7 to 22, of chunks of objects that are compressed when they come. Default `1`.
    pub(crate) frame_level: i32,
    /// zstd level, 1 to 22, of those that are compressed at rest. Default `3`.
    pub(crate) rest_level: i32,
    /// Seconds without a write after which the door is at rest. Default `5`.
    pub(crate) rest_seconds: u64,
    /// Bytes that wait to be compressed before that is done beside writes, too. Default `4294967296`.
    pub(crate) deferred_bytes: u64,
    /// Bytes a second that are compressed, and read for digests, beside writes. Default `33554432`.
    pub(crate) rest_bytes_per_second: u64,
    /// Bytes of memory for plain chunks that had to be decoded to be read; `0` is none. Default `134217728`.
    pub(crate) plain_cache: u64,
    /// Bytes of uploads that are cut and compressed at once, all together. Default `134217728`.
    pub(crate) buffer_bytes: usize,
    /// Bytes of memory for the index of objects and places, what is cached of its files and what is not in them yet. Default `134217728`.
    pub(crate) places_cache: usize,
    /// Requests at once that work on the index or on chunks. Default `64`.
    pub(crate) jobs: usize,
    /// Requests that wait for one of those; a further one is told to slow down (503). Default `4096`.
    pub(crate) waiting: usize,
    /// Seconds they wait; then they are told so too. Default `10`.
    pub(crate) wait_seconds: u64,
    /// Seconds for which a body that is sent may pause; less than 1 KiB a second all in all is no longer taken either. Default `30`.
    pub(crate) body_idle_seconds: u64,
    /// Seconds for which what an upload stored is kept while nothing is heard of it, from 2 on. Default `600`.
    pub(crate) lease_seconds: u64,
    /// Seconds after which an upload in parts that nobody has completed is given up; `0` is never. Default `604800`.
    pub(crate) upload_age_seconds: u64,
}

/// The admin API, on the internal listener: buckets and their settings, access keys, search, versions.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AdminApi {
    /// Serve it, where the S3 door is served. Default `true`.
    pub(crate) enabled: bool,
    /// Folder of the backups that are asked for. Default: `{data}/backups`.
    pub(crate) backups: Option<PathBuf>,
    /// What callers show, 16 characters or more. Default: made at the first start, in `{data}/admin-token`.
    pub(crate) token: Option<Secret>,
}

/// Bounds of what clients can make the server do.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    /// Connections at once on the public listener; further ones wait to be accepted. Default `4096`.
    pub(crate) connections: usize,
    /// Bytes of a request's line and headers; more is 431. Default `16384`.
    pub(crate) header_bytes: usize,
    /// Number of headers of a request; more is 431. Default `100`.
    pub(crate) headers: usize,
    /// Seconds a connection may take to send a request's head, waiting included; then it is closed. Default `75`.
    pub(crate) idle_seconds: u64,
    /// Seconds for which a connection of HTTP/1.1 that is closed goes on taking what its client sends, and drops it, so that a client
    /// that is refused before it has sent all reads why; `0`: none. Default `5`.
    pub(crate) linger_seconds: u64,
    /// Seconds that requests in flight have once shutdown has begun. Default `25`.
    pub(crate) drain_seconds: u64,
    /// Threads that serve connections; `0` is one per core. Default `0`.
    pub(crate) threads: usize,
    /// Requests at once that wait for disks or verify chunks; further ones queue. Default `64`.
    pub(crate) jobs: usize,
    /// Bytes of request bodies in memory at once; further ones wait. Default `536870912`.
    pub(crate) body_bytes: usize,
    /// Chunks that one request to a chunk root may name, `16384` at most; `0`: each chunk is asked for alone. Default `16384`.
    pub(crate) pull_ids: usize,
    /// Bytes of an index that is put; more is 413. Default `1073741824`.
    pub(crate) index_bytes: usize,
    /// Bytes a second at which a flat folder of an older release is taken over into packs; `0` is no limit. Default `67108864`.
    pub(crate) convert_rate: u64,
}

/// What is logged, as JSON lines on standard error.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    /// Least level: `error`, `warn`, `info`, `debug`, or a list by module as `info,cairn_roots=debug`. Default `info`.
    pub(crate) level: String,
    /// Requests that are logged: `all`, `changes` (writes, refusals and failures; reads are counted in the metrics) or `none`. Default `changes`.
    pub(crate) requests: LogRequests,
}

/// Requests that are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogRequests {
    /// Each.
    All,
    /// Writes, refusals, failures.
    #[default]
    Changes,
    /// None.
    None,
}

/// A setting that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) String);

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // serde's own message for a wrong type would show the value.
        String::deserialize(deserializer)
            .map(Self)
            .map_err(|_| serde::de::Error::custom("a token is text: put it in double quotes"))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("…")
    }
}

/// A setting is wrong; the message names it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file is not there or cannot be read.
    #[error("configuration {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It does not parse, or holds a name or value that is not known.
    #[error("configuration: {0}")]
    Parse(String),
    /// A value that cannot be.
    #[error("setting {name}: {rule}")]
    Value {
        /// The setting.
        name: String,
        /// What is wrong with it, and what to do.
        rule: String,
    },
}

/// What the command line sets; it wins over file and variables.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    pub(crate) data: Option<PathBuf>,
    pub(crate) public: Option<SocketAddr>,
    pub(crate) internal: Option<SocketAddr>,
    pub(crate) s3: Option<SocketAddr>,
}

impl Config {
    /// Reads and checks all settings.
    ///
    /// - `file`: a TOML file; `None` reads variables alone.
    pub(crate) fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigError> {
        let mut figment = Figment::new();
        if let Some(path) = file {
            let text = std::fs::read_to_string(path).map_err(|source| ConfigError::File {
                path: path.to_owned(),
                source,
            })?;
            figment = figment.merge(Toml::string(&text));
        }
        // The tool has variables of the same prefix, and a mistyped one of ours should not pass unseen: see unknown_variables.
        let env = Env::prefixed(ENV_PREFIX)
            .filter(|key| is_setting(key.as_str()))
            .split("__");
        let mut config: Self = figment
            .merge(env)
            .extract()
            .map_err(|error| ConfigError::Parse(one_line(&error, file)))?;
        if let Some(data) = &overrides.data {
            config.data.clone_from(data);
        }
        config.listen.public = overrides.public.unwrap_or(config.listen.public);
        config.listen.internal = overrides.internal.unwrap_or(config.listen.internal);
        config.listen.s3 = overrides.s3.unwrap_or(config.listen.s3);
        config.check()?;
        Ok(config)
    }

    /// How the store's chunks lie.
    pub(crate) fn kind(store: &Store) -> Kind {
        match (store.kind, &store.path) {
            (Some(kind), _) => kind,
            (None, Some(path)) if !PackStore::is_at(path) => Kind::Flat,
            (None, _) => Kind::Packs,
        }
    }

    /// Folder of the store's chunks.
    pub(crate) fn chunk_folder(&self, name: &str, store: &Store) -> PathBuf {
        match (&store.path, Self::kind(store)) {
            (Some(path), _) => path.clone(),
            (None, Kind::Packs) => self.own_packs(name),
            (None, Kind::Flat) => self.own_flat(name),
        }
    }

    /// Where the data folder has the packs of a store.
    pub(crate) fn own_packs(&self, name: &str) -> PathBuf {
        self.data.join("packs").join(name)
    }

    /// Where the data folder has the chunks of a flat store, and releases before 0.2 those of every store.
    pub(crate) fn own_flat(&self, name: &str) -> PathBuf {
        self.data.join("store").join(name)
    }

    /// Whether the data folder holds packs, which releases before 0.2 do not know.
    pub(crate) fn has_own_packs(&self) -> bool {
        let has = |store: &Store| store.path.is_none() && store.upstream.is_empty() && Self::kind(store) == Kind::Packs;
        self.stores.values().any(has)
    }

    /// Folder of the store's indexes.
    pub(crate) fn index_folder(&self, name: &str, store: &Store) -> PathBuf {
        store
            .indexes
            .clone()
            .unwrap_or_else(|| self.data.join("index").join(name))
    }
}

/// Variables with our prefix that are no setting and not the tool's known ones; worth a warning.
pub(crate) fn unknown_variables() -> Vec<String> {
    std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| {
            name.strip_prefix(ENV_PREFIX)
                .is_some_and(|key| key.contains("__") && !is_setting(key))
        })
        .collect()
}

fn is_setting(key: &str) -> bool {
    let first = key.split("__").next().unwrap_or(key);
    [
        "data", "listen", "tls", "stores", "collect", "scrub", "s3", "tokens", "cdn", "outgoing", "admin", "grpc",
        "limits", "log",
    ]
    .iter()
    .any(|known| first.eq_ignore_ascii_case(known))
}

fn one_line(error: &figment::Error, file: Option<&Path>) -> String {
    // figment may hold several; the first is enough to go on with.
    let first = error.clone().into_iter().next();
    let shown = first.map_or_else(|| error.to_string(), |error| error.to_string());
    let shown = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    match file {
        Some(path) => format!("{}: {shown}", path.display()),
        None => shown,
    }
}

mod token;

#[cfg(test)]
mod tests;
