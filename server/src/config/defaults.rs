//! What settings are where nobody says anything. Each is told in the comment of its field, and on the page for people.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use cairn_formats::PULL_IDS_MAX;

use super::{
    AdminApi, Cdn, Collect, Config, DEFAULT_STORE, Digest, Grpc, Limits, Listen, Log, LogRequests, Outgoing, S3, Scrub,
    Store, Sync,
};

impl Default for Config {
    fn default() -> Self {
        let open = Store {
            writable: true,
            ..Store::default()
        };
        Self {
            data: PathBuf::from("./data"),
            listen: Listen::default(),
            tls: None,
            stores: BTreeMap::from([(DEFAULT_STORE.to_owned(), open)]),
            collect: Collect::default(),
            scrub: Scrub::default(),
            s3: S3::default(),
            tokens: BTreeMap::new(),
            cdn: Cdn::default(),
            outgoing: Outgoing::default(),
            admin: AdminApi::default(),
            grpc: Grpc::default(),
            limits: Limits::default(),
            log: Log::default(),
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            path: None,
            kind: None,
            pack_len: 256 << 20,
            frame_level: 1,
            queue_len: 16 << 20,
            places_cache: 64 << 20,
            upstream: Vec::new(),
            mirror: Vec::new(),
            mirror_quorum: 0,
            upstream_authorization: None,
            upstream_s3_access_key: None,
            upstream_s3_secret_key: None,
            upstream_s3_region: None,
            upstream_gs_credentials: None,
            upstream_gs_endpoint: None,
            upstream_ssh_identity: None,
            upstream_ssh_known_hosts: None,
            cache: None,
            cache_bytes: 0,
            memory_cache: 0,
            indexes: None,
            writable: false,
            read_token: None,
            write_token: None,
            digest: Digest::default(),
            sync: Sync::default(),
            rooted: false,
            require_chunks: false,
            verify_hours: 24,
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            public: SocketAddr::from(([127, 0, 0, 1], 8000)),
            internal: SocketAddr::from(([127, 0, 0, 1], 8001)),
            s3: SocketAddr::from(([127, 0, 0, 1], 9000)),
            allow_plain_remote: false,
            allow_anonymous_writes: false,
        }
    }
}

impl Default for Collect {
    fn default() -> Self {
        Self {
            interval_seconds: 24 * 60 * 60,
            lease_seconds: 24 * 60 * 60,
            grace_seconds: 600,
            bytes_per_second: 64 << 20,
            dead_share: 0.03,
            recompress_level: 0,
            recompress_bytes_per_second: 4 << 20,
            blob_days: 30,
            paused: false,
        }
    }
}

impl Default for Scrub {
    fn default() -> Self {
        Self {
            interval_seconds: 30 * 24 * 60 * 60,
            bytes_per_second: 32 << 20,
            paused: false,
        }
    }
}

impl Default for S3 {
    fn default() -> Self {
        Self {
            enabled: true,
            region: "us-east-1".to_owned(),
            domains: Vec::new(),
            trust_forwarded: false,
            deferred: true,
            frame_level: 1,
            rest_level: 3,
            rest_seconds: 5,
            deferred_bytes: 4 << 30,
            rest_bytes_per_second: 32 << 20,
            plain_cache: 128 << 20,
            buffer_bytes: 128 << 20,
            places_cache: 128 << 20,
            jobs: 64,
            waiting: 4096,
            wait_seconds: 10,
            body_idle_seconds: 30,
            lease_seconds: 600,
            upload_age_seconds: 7 * 24 * 60 * 60,
        }
    }
}

impl Default for AdminApi {
    fn default() -> Self {
        Self {
            enabled: true,
            backups: None,
            token: None,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            header_bytes: 16 << 10,
            headers: 100,
            idle_seconds: 75,
            linger_seconds: 5,
            drain_seconds: 25,
            threads: 0,
            jobs: 64,
            body_bytes: 512 << 20,
            pull_ids: PULL_IDS_MAX,
            index_bytes: 1 << 30,
            convert_rate: 64 << 20,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            requests: LogRequests::default(),
        }
    }
}
