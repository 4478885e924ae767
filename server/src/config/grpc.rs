//! The gRPC door: which bucket an instance is, and how much callers can make the server do.

use std::collections::BTreeMap;
use std::time::Duration;

use cairn_gateway::PoolOptions;
use cairn_gateway::grpc::{FetchOptions, GrpcOptions, SessionOptions};
use cairn_index::names::{BlobFunction, BucketName};
use cairn_roots::H2c;
use serde::{Deserialize, Serialize};

use super::{Config, ConfigError};

/// A batch of less would be slower than a stream for each blob.
const BATCH_BYTES_LEAST: usize = 64 << 10;
/// Nobody waits for so long, a week.
const SECONDS_MAX: u64 = 7 * 24 * 60 * 60;
/// Of a message, room for what is no blob.
const OVERHEAD_BYTES: usize = 64 << 10;

/// The gRPC door, on the internal listener.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Grpc {
    /// Serve it, where the S3 door is served. Default `true`.
    pub(crate) enabled: bool,
    /// The bucket of the instance without a name. Default: there is no such instance.
    pub(crate) default_bucket: Option<String>,
    /// Buckets of other instances, by name. Default: an instance is of the bucket that its first part names.
    pub(crate) instances: BTreeMap<String, String>,
    /// Name of a token in `tokens` as which calls are taken that show none. Default: they are refused.
    pub(crate) anonymous: Option<String>,
    /// Digest functions that are served: those to be preferred first. Default all: `sha256`, `blake3`, `sha512`, `sha384`, `sha1`, `md5`.
    pub(crate) digest_functions: Vec<String>,
    /// Bytes of a message that is taken. Default `16777216`.
    pub(crate) message_bytes: usize,
    /// Bytes of blobs that clients are told to put into one call. Default `4128768`.
    pub(crate) batch_bytes: usize,
    /// Bytes of a blob; `0` is no limit. Default `0`.
    pub(crate) blob_bytes: u64,
    /// Connections at once on the internal listener. Default `1024`.
    pub(crate) connections: usize,
    /// Calls at once on a connection. Default `256`.
    pub(crate) streams: u32,
    /// Calls at once, those included whose answer is being read; a further one is told to come again. Default `4096`.
    pub(crate) calls: usize,
    /// Bytes of a stream that are on their way to the disk; four times as many of a connection. Default `4194304`.
    pub(crate) window_bytes: u32,
    /// Uploads that go on or wait to be gone on with. Default `1024`.
    pub(crate) uploads: usize,
    /// Seconds for which an upload waits to be gone on with. Default `600`.
    pub(crate) upload_kept_seconds: u64,
    /// Sessions of chunk stores that go on at once; a further one is told to come again. Default `1024`.
    pub(crate) sessions: usize,
    /// Seconds without a call that names it after which a session ends. It ends after `collect.lease_seconds` in any case. Default `600`.
    pub(crate) session_seconds: u64,
    /// Seconds for which a client that writes may send nothing. Default `60`.
    pub(crate) idle_seconds: u64,
    /// Directories of a tree that is listed. Default `100000`.
    pub(crate) tree_directories: usize,
    /// Directories in a page of it. Default `1000`.
    pub(crate) tree_page: usize,
    /// Take the result of an action only once the action and its command are there. Default `true`.
    pub(crate) require_action: bool,
    /// Hosts of `outgoing.hosts` that assets are fetched from which nobody has pushed. Default: none, so that nothing is.
    pub(crate) fetch_hosts: Vec<String>,
    /// Bytes of an asset that is fetched. Default `1073741824`.
    pub(crate) fetch_bytes: u64,
    /// Fetches at once; further ones wait. Default `8`.
    pub(crate) fetches: usize,
    /// Seconds for a fetch, its waiting included; a caller may say less. Default `600`.
    pub(crate) fetch_seconds: u64,
}

impl Default for Grpc {
    fn default() -> Self {
        let functions = BlobFunction::ALL.iter().map(|&function| name_of(function).to_owned());
        let fetch = FetchOptions::default();
        Self {
            enabled: true,
            default_bucket: None,
            instances: BTreeMap::new(),
            anonymous: None,
            digest_functions: functions.collect(),
            message_bytes: 16 << 20,
            batch_bytes: (4 << 20) - (64 << 10),
            blob_bytes: 0,
            connections: 1024,
            streams: 256,
            calls: 4096,
            window_bytes: 4 << 20,
            uploads: 1024,
            upload_kept_seconds: 600,
            sessions: 1024,
            session_seconds: 600,
            idle_seconds: 60,
            tree_directories: 100_000,
            tree_page: 1000,
            require_action: true,
            fetch_hosts: fetch.hosts,
            fetch_bytes: fetch.len_max,
            fetches: fetch.at_once,
            fetch_seconds: fetch.patience.as_secs(),
        }
    }
}

fn name_of(function: BlobFunction) -> &'static str {
    match function {
        BlobFunction::Blake3 => "blake3",
        BlobFunction::Sha512 => "sha512",
        BlobFunction::Sha384 => "sha384",
        BlobFunction::Sha1 => "sha1",
        BlobFunction::Md5 => "md5",
        _ => "sha256",
    }
}

fn function_of(name: &str) -> Option<BlobFunction> {
    BlobFunction::ALL
        .into_iter()
        .find(|&function| name_of(function) == name)
}

impl Grpc {
    pub(super) fn check(&self, config: &Config) -> Result<(), ConfigError> {
        let wrong = |field: &str, rule: String| {
            Err(ConfigError::Value {
                name: format!("grpc.{field}"),
                rule,
            })
        };
        for bucket in self.default_bucket.iter().chain(self.instances.values()) {
            if let Err(error) = BucketName::new(bucket) {
                return wrong("default_bucket and grpc.instances", error.to_string());
            }
        }
        if let Some(name) = self
            .anonymous
            .as_ref()
            .filter(|name| !config.tokens.contains_key(*name))
        {
            return wrong("anonymous", format!("there is no tokens.{name}"));
        }
        if self.anonymous.is_some()
            && !config.listen.internal.ip().is_loopback()
            && !config.listen.allow_anonymous_writes
        {
            return wrong(
                "anonymous",
                format!(
                    "anybody who reaches {} could use this token; remove it, or set listen.allow_anonymous_writes = true",
                    config.listen.internal
                ),
            );
        }
        if let Some(name) = self.digest_functions.iter().find(|name| function_of(name).is_none()) {
            return wrong(
                "digest_functions",
                format!("{name} is none of sha256, blake3, sha512, sha384, sha1, md5"),
            );
        }
        if self.digest_functions.is_empty() {
            return wrong("digest_functions", "name one at least".to_owned());
        }
        if self.batch_bytes < BATCH_BYTES_LEAST || self.batch_bytes.saturating_add(OVERHEAD_BYTES) > self.message_bytes
        {
            let rule = format!("{BATCH_BYTES_LEAST} to {OVERHEAD_BYTES} less than grpc.message_bytes");
            return wrong("batch_bytes", rule);
        }
        if !(1 << 16..1 << 29).contains(&self.window_bytes) {
            return wrong("window_bytes", "65536 to 536870911".to_owned());
        }
        let counts = [
            ("connections", self.connections),
            ("streams", self.streams as usize),
            ("calls", self.calls),
            ("uploads", self.uploads),
            ("sessions", self.sessions),
            ("tree_directories", self.tree_directories),
            ("tree_page", self.tree_page),
            ("fetches", self.fetches),
        ];
        if let Some((field, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return wrong(field, "at least 1".to_owned());
        }
        for (field, seconds) in [
            ("idle_seconds", self.idle_seconds),
            ("fetch_seconds", self.fetch_seconds),
            ("session_seconds", self.session_seconds),
        ] {
            if !(1..=SECONDS_MAX).contains(&seconds) {
                return wrong(field, format!("1 to {SECONDS_MAX}"));
            }
        }
        let goes_out = |host: &&String| config.outgoing.hosts.iter().any(|own| own.eq_ignore_ascii_case(host));
        if let Some(host) = self.fetch_hosts.iter().find(|host| !goes_out(host)) {
            return wrong("fetch_hosts", format!("{host} is not in outgoing.hosts"));
        }
        Ok(())
    }

    /// As the door takes it.
    pub(crate) fn options(&self, config: &Config, pool: PoolOptions) -> GrpcOptions {
        let anonymous = self.anonymous.as_ref().and_then(|name| config.tokens.get(name));
        GrpcOptions {
            instances: self.instances.clone(),
            default_bucket: self.default_bucket.clone(),
            anonymous: anonymous.and_then(super::BucketToken::service),
            functions: self
                .digest_functions
                .iter()
                .filter_map(|name| function_of(name))
                .collect(),
            message_len_max: self.message_bytes,
            batch_len: self.batch_bytes,
            blob_len_max: self.blob_bytes,
            calls: self.calls,
            uploads: self.uploads,
            upload_kept: Duration::from_secs(self.upload_kept_seconds),
            sessions: SessionOptions {
                max: self.sessions,
                idle: Duration::from_secs(self.session_seconds),
                // For as long an answer that a chunk is there holds.
                life: Duration::from_secs(config.collect.lease_seconds),
            },
            idle: Duration::from_secs(self.idle_seconds),
            tree_directories: self.tree_directories,
            page: self.tree_page,
            require_action: self.require_action,
            fetch: FetchOptions {
                hosts: self.fetch_hosts.clone(),
                len_max: self.fetch_bytes,
                at_once: self.fetches,
                patience: Duration::from_secs(self.fetch_seconds),
            },
            pool,
            ..GrpcOptions::default()
        }
    }

    /// Bounds of a connection.
    pub(crate) fn h2c(&self) -> H2c {
        H2c {
            streams: self.streams,
            window: self.window_bytes,
        }
    }
}
