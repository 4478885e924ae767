//! `sign`: links to objects at the CDN's door.

use std::path::PathBuf;

use clap::Args;

const AFTER_HELP: &str = "\
The key is one of the server's settings (cdn.keys.ID.secret; docs/cdn.md says what is signed, so that other programs can). Its secret is \
read from --secret-file, else from the variable CAIRN_LINK_SECRET, never from the command line. No server is asked.

Examples:
  cairn sign https://cdn.example.net/cdn/media/film/1.mp4 --key-id 2026
  cairn sign https://cdn.example.net/cdn/media/film/ --prefix --cookie --expires-in 86400 --key-id 2026";

/// `sign`
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct Sign {
    /// Address of the object, or with --prefix of what its key begins with: …/cdn/BUCKET/KEY
    pub(crate) url: String,
    /// Id of the key
    #[arg(long, value_name = "ID")]
    pub(crate) key_id: String,
    /// File with the key's secret [default: the variable CAIRN_LINK_SECRET]
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
    /// Seconds from now on for which the link opens
    #[arg(long, value_name = "SECONDS", default_value_t = 21_600)]
    pub(crate) expires_in: u64,
    /// Time at which it ends, in seconds since 1970, instead
    #[arg(long, value_name = "SECONDS", conflicts_with = "expires_in")]
    pub(crate) expires_at: Option<u64>,
    /// Open all objects whose keys begin so; print what to put behind their addresses
    #[arg(long)]
    pub(crate) prefix: bool,
    /// Address or range of addresses of the client, as 192.0.2.7 or 10.0.0.0/8
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) address: Option<String>,
    /// Print a Set-Cookie header instead of an address
    #[arg(long)]
    pub(crate) cookie: bool,
}
