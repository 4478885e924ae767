//! Verbs that serve over HTTP.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use super::groups::ReloadableSources;

/// What both servers take.
#[derive(Clone, Debug, Args)]
pub(crate) struct Listening {
    /// Address to listen on, host:port or :port; may be repeated [default: 127.0.0.1:8000]
    #[arg(short = 'l', long, value_name = "ADDRESS")]
    pub(crate) listen: Vec<String>,
    /// Take PUT
    #[arg(short = 'w', long, alias = "writeable")]
    pub(crate) writable: bool,
    /// PEM file with the server's certificate
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// PEM file with the key of --cert
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// Demand a client certificate
    #[arg(long, requires = "client_ca")]
    pub(crate) mutual_tls: bool,
    /// PEM file with the authority of client certificates
    #[arg(long, value_name = "FILE")]
    pub(crate) client_ca: Option<PathBuf>,
    /// The Authorization value, or bearer token, that requests must show
    #[arg(long, env = "DESYNC_HTTP_AUTH", hide_env_values = true, value_name = "VALUE")]
    pub(crate) authorization: Option<String>,
    /// File for a line per request; - for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
}

/// `chunk-server`
#[derive(Debug, Args)]
pub(crate) struct ChunkServer {
    #[command(flatten)]
    pub(crate) sources: ReloadableSources,
    #[command(flatten)]
    pub(crate) listening: Listening,
    /// Taken for desync's sake: both forms are always served, by path
    #[arg(short = 'u', long)]
    pub(crate) uncompressed: bool,
    /// Send and take chunks encrypted, however the store holds them; the key is --encryption-key or DESYNC_ENCRYPTION_KEY
    #[arg(long)]
    pub(crate) encryption: bool,
    /// 64 hex digits; turns --encryption on
    #[arg(long, value_name = "KEY")]
    pub(crate) encryption_key: Option<String>,
    /// xchacha20-poly1305 (default) or aes-256-gcm; turns --encryption on
    #[arg(long, value_name = "NAME")]
    pub(crate) encryption_algorithm: Option<String>,
    /// Taken for desync's sake
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) skip_verify_read: bool,
    /// Taken for desync's sake: what is written is always verified
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) skip_verify_write: bool,
}

/// `index-server`
#[derive(Debug, Args)]
pub(crate) struct IndexServer {
    /// Folder of indexes
    #[arg(short = 's', long, value_name = "DIR")]
    pub(crate) store: PathBuf,
    #[command(flatten)]
    pub(crate) listening: Listening,
}
