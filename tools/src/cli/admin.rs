//! Verbs that speak to a `cairnd`'s admin API: buckets, objects, access keys, tenants.

use std::path::PathBuf;

use clap::{Args, Subcommand};

const AFTER_HELP: &str = "\
These verbs speak to the admin API of a running cairnd (docs/admin.md), on its internal listener, and show its admin token: that of \
--token-file, else of the variable CAIRN_ADMIN_TOKEN, else of the file that CAIRN_ADMIN_TOKEN_FILE names, else of `admin` in the \
configuration file ({\"admin\": {\"url\": \"http://127.0.0.1:8001\", \"token-file\": \"/var/lib/cairn/admin-token\"}}). The server keeps \
its token in DATA/admin-token unless its settings have one. With --json the server's answers are printed as they are.";

const SETTINGS_HELP: &str = "\
Settings: versioning=enabled|suspended, chunk_sizes=MIN:AVG:MAX (bytes), dialect=casync|desync, level=-7..22|null, \
durability=sync|batch|volatile, etag=md5|opaque, inline_len=BYTES, browse=true|false, search=true|false, quota_bytes=BYTES|null, \
quota_objects=NUMBER|null, public_read=[\"BEGINNING\",…], cors_origins=[\"ORIGIN\",…], cdn_max_age=SECONDS|null, cdn_zstd=true|false, \
cdn_precompressed=true|false, digests=[\"sha256\",\"blake3\"]; when a bucket is made also domain=shared|own and object_lock=true. docs/admin.md says what each does.

Examples:
  cairn bucket create releases versioning=enabled durability=batch
  cairn bucket set releases quota_bytes=1000000000 level=null";

const OBJECT_HELP: &str = "\
Examples:
  cairn object versions releases usr.tar
  cairn object diff releases usr.tar 0006…  0007…        what would somebody with the first fetch for the second?
  cairn object restore releases usr.tar 0006…            the old version is the newest again
  cairn object search --tag stage=done --size-min 1000000";

/// How the server is reached.
#[derive(Debug, Args)]
pub(crate) struct Reaching {
    /// Address of the server's internal listener [default: http://127.0.0.1:8001]
    #[arg(long, value_name = "URL", env = "CAIRN_ADMIN_URL", global = true)]
    pub(crate) admin_url: Option<String>,
    /// File with the server's admin token
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) token_file: Option<PathBuf>,
    /// Tenant that the verb is about
    #[arg(long, value_name = "NAME", default_value = "default", global = true)]
    pub(crate) tenant: String,
}

/// `bucket`
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct BucketArgs {
    #[command(flatten)]
    pub(crate) reaching: Reaching,
    #[command(subcommand)]
    pub(crate) verb: BucketVerb,
}

/// What is done with buckets.
#[derive(Debug, Subcommand)]
pub(crate) enum BucketVerb {
    /// List buckets by name
    List {
        /// Those whose names begin so
        #[arg(long, default_value = "")]
        prefix: String,
        /// Those of this owner
        #[arg(long, default_value = "")]
        owner: String,
    },
    /// Tell a bucket's settings, and what it holds
    Show {
        /// The bucket
        bucket: String,
    },
    /// Make a bucket
    #[command(after_long_help = SETTINGS_HELP)]
    Create {
        /// Its name
        bucket: String,
        /// Settings that are not as by default
        #[arg(value_name = "SETTING=VALUE")]
        settings: Vec<String>,
        /// Whose it is: the owner of an access key [default: admin]
        #[arg(long)]
        owner: Option<String>,
    },
    /// Change settings of a bucket
    #[command(after_long_help = SETTINGS_HELP)]
    Set {
        /// The bucket
        bucket: String,
        /// What is to change; the rest stays
        #[arg(value_name = "SETTING=VALUE", required = true)]
        settings: Vec<String>,
    },
    /// Delete a bucket that is empty
    Delete {
        /// The bucket
        bucket: String,
    },
}

/// `object`
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct ObjectArgs {
    #[command(flatten)]
    pub(crate) reaching: Reaching,
    #[command(subcommand)]
    pub(crate) verb: ObjectVerb,
}

/// What is done with objects.
#[derive(Debug, Subcommand)]
#[command(after_long_help = OBJECT_HELP)]
pub(crate) enum ObjectVerb {
    /// List versions, the newest of each key first
    Versions {
        /// The bucket
        bucket: String,
        /// The key; without one all keys
        key: Option<String>,
        /// Keys that begin so
        #[arg(long, conflicts_with = "key")]
        prefix: Option<String>,
    },
    /// Tell how two versions differ, in chunks and bytes
    Diff {
        /// The bucket
        bucket: String,
        /// The key
        key: String,
        /// A version [default: the newest]
        from: Option<String>,
        /// Another [default: the newest]
        to: Option<String>,
        /// The second version is of this key
        #[arg(long)]
        other_key: Option<String>,
    },
    /// Make a version the newest of its key again, as a new version
    Restore {
        /// The bucket
        bucket: String,
        /// The key
        key: String,
        /// The version
        version: String,
        /// Only if the key's object has this entity tag now
        #[arg(long, value_name = "ETAG")]
        if_match: Option<String>,
    },
    /// Find objects by what is said of them: all of it has to apply
    Search(Search),
}

/// `object search`
#[derive(Debug, Args)]
pub(crate) struct Search {
    /// In this bucket [default: in all of the tenant's]
    #[arg(long)]
    pub(crate) bucket: Option<String>,
    /// The key begins so
    #[arg(long)]
    pub(crate) prefix: Option<String>,
    /// It has this tag; may be given again
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) tag: Vec<String>,
    /// It has this metadata; may be given again
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) meta: Vec<String>,
    /// Its type, exactly
    #[arg(long)]
    pub(crate) content_type: Option<String>,
    /// Whose it is
    #[arg(long)]
    pub(crate) owner: Option<String>,
    /// Bytes, at least
    #[arg(long, value_name = "BYTES")]
    pub(crate) size_min: Option<u64>,
    /// Bytes, at most
    #[arg(long, value_name = "BYTES")]
    pub(crate) size_max: Option<u64>,
    /// Made then or later, as 2026-11-21T20:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) created_from: Option<String>,
    /// Made then or earlier
    #[arg(long, value_name = "TIME")]
    pub(crate) created_to: Option<String>,
}

/// `key`
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct KeyArgs {
    #[command(flatten)]
    pub(crate) reaching: Reaching,
    #[command(subcommand)]
    pub(crate) verb: KeyVerb,
}

/// What is done with access keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyVerb {
    /// List the keys of a tenant
    List,
    /// Make a key, and tell its secret: the only time
    Create {
        /// Who speaks with it, and owns what they make; a tenant that is new comes to be
        owner: String,
    },
    /// Switch a key on
    Enable {
        /// Its id
        id: String,
    },
    /// Switch a key off: it opens nothing from now on
    Disable {
        /// Its id
        id: String,
    },
    /// Take a key away; what its owner has stays
    Revoke {
        /// Its id
        id: String,
    },
}

/// `tenant`
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct TenantArgs {
    #[command(flatten)]
    pub(crate) reaching: Reaching,
    #[command(subcommand)]
    pub(crate) verb: TenantVerb,
}

/// What is done with tenants.
#[derive(Debug, Subcommand)]
pub(crate) enum TenantVerb {
    /// List tenants by name
    List,
    /// Tell what the tenant of --tenant holds
    Show,
}
