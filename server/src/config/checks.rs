//! What cannot be of the settings, each with a word that names it and says what to do.

use std::net::SocketAddr;
use std::path::Path;

use cairn_formats::{PACK_LEN_MAX, PULL_IDS_MAX};

use super::{Config, ConfigError, Kind, S3, STORE_NAME_LEN_MAX, Store};

/// Smaller packs would be files again.
const PACK_LEN_LEAST: u64 = 1 << 20;
const QUEUE_LEN_LEAST: usize = 64 << 10;
const ADMIN_TOKEN_LEN_LEAST: usize = 16;
const PLACES_CACHE_LEAST: usize = 8 << 20;

impl Config {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let wrong = |name: String, rule: &str| {
            Err(ConfigError::Value {
                name,
                rule: rule.to_owned(),
            })
        };
        let is_remote = |address: SocketAddr| !address.ip().is_loopback();
        for (name, address, plain) in [
            ("listen.public", self.listen.public, self.tls.is_none()),
            ("listen.internal", self.listen.internal, true),
            ("listen.s3", self.listen.s3, self.tls.is_none() && self.s3.enabled),
        ] {
            if is_remote(address) && plain && !self.listen.allow_plain_remote {
                return wrong(
                    name.to_owned(),
                    &format!(
                        "{address} can be reached from other machines without TLS; \
                         configure tls, or set listen.allow_plain_remote = true"
                    ),
                );
            }
        }
        self.s3.check()?;
        self.grpc.check(self)?;
        self.outgoing.check()?;
        self.cdn.check(&self.outgoing)?;
        self.tokens.iter().try_for_each(|(name, token)| token.check(name))?;
        if self
            .admin
            .token
            .as_ref()
            .is_some_and(|token| token.0.len() < ADMIN_TOKEN_LEN_LEAST)
        {
            return wrong(
                "admin.token".to_owned(),
                "whoever guesses it has everything: give 16 characters or more, or none to have one made",
            );
        }
        for (name, store) in &self.stores {
            if !is_store_name(name) {
                return wrong(
                    format!("stores.{name}"),
                    "a store's name is 1 to 63 of a-z, A-Z, 0-9, `.`, `_`, `-`, beginning with a letter or digit",
                );
            }
            if !store.upstream.is_empty() && store.kind.is_some() {
                return wrong(
                    format!("stores.{name}.kind"),
                    "a store with upstream has no chunks of its own; remove it",
                );
            }
            if !(PACK_LEN_LEAST..=PACK_LEN_MAX).contains(&store.pack_len) {
                return wrong(
                    format!("stores.{name}.pack_len"),
                    &format!("{} is not from {PACK_LEN_LEAST} to {PACK_LEN_MAX}", store.pack_len),
                );
            }
            if !(-7..=22).contains(&store.frame_level) {
                return wrong(
                    format!("stores.{name}.frame_level"),
                    &format!("{} is not from -7 to 22", store.frame_level),
                );
            }
            if store.queue_len < QUEUE_LEN_LEAST {
                return wrong(
                    format!("stores.{name}.queue_len"),
                    &format!("{} is below the least, {QUEUE_LEN_LEAST}", store.queue_len),
                );
            }
            if store.places_cache < PLACES_CACHE_LEAST {
                return wrong(
                    format!("stores.{name}.places_cache"),
                    &format!("{} is below the least, {PLACES_CACHE_LEAST}", store.places_cache),
                );
            }
            if store.rooted && (!store.upstream.is_empty() || Self::kind(store) == Kind::Flat) {
                return wrong(
                    format!("stores.{name}.rooted"),
                    "only chunks in packs of this server's own are collected; remove it, or set kind = \"packs\"",
                );
            }
            if store.rooted && !store.mirror.is_empty() {
                return wrong(
                    format!("stores.{name}.rooted"),
                    "the places of a mirror are not collected yet; remove it, or stores.NAME.mirror",
                );
            }
            let folder = self.chunk_folder(name, store);
            let is_mirrored =
                |(_, other): &(&String, &Store)| other.mirror.iter().any(|place| Path::new(place) == folder);
            if let Some((other, _)) = self.stores.iter().find(is_mirrored).filter(|_| store.rooted) {
                return wrong(
                    format!("stores.{name}.rooted"),
                    &format!(
                        "stores.{other}.mirror names its folder, and what is put there would be collected; remove either"
                    ),
                );
            }
            let shares = |(_, other): &(&String, &Store)| other.path.is_some() && other.path == store.path;
            if let Some((other, _)) = self
                .stores
                .iter()
                .filter(shares)
                .find(|(_, other)| other.rooted != store.rooted)
            {
                return wrong(
                    format!("stores.{name}.rooted"),
                    &format!("stores.{other} has the same path: both are rooted or neither is"),
                );
            }
            if store.write_token.is_some() && !store.writable {
                return wrong(
                    format!("stores.{name}.write_token"),
                    &format!("the store is not writable; set stores.{name}.writable = true or remove the token"),
                );
            }
            if !store.upstream.is_empty() && (store.writable || store.path.is_some()) {
                return wrong(
                    format!("stores.{name}.upstream"),
                    "a store with upstream is read-only and has no path; use cache for a folder",
                );
            }
            if store.upstream.is_empty() && (store.cache.is_some() || store.cache_bytes > 0) {
                return wrong(
                    format!("stores.{name}.upstream"),
                    "cache and cache_bytes need upstream, which is empty",
                );
            }
            if store.upstream.is_empty()
                && store.mirror.is_empty()
                && (store.upstream_authorization.is_some() || store.upstream_s3_access_key.is_some())
            {
                return wrong(
                    format!("stores.{name}.upstream"),
                    "upstream_authorization and upstream_s3_access_key need upstream or mirror, which are empty",
                );
            }
            if !store.mirror.is_empty() && !store.upstream.is_empty() {
                return wrong(
                    format!("stores.{name}.mirror"),
                    "a store with upstream has no chunks of its own; write `mirror:A|B` in upstream to read from a mirror",
                );
            }
            if store.mirror.iter().any(|place| place.is_empty() || place.contains('|')) {
                return wrong(
                    format!("stores.{name}.mirror"),
                    "each place is named by itself, without `|`",
                );
            }
            if store.mirror_quorum > store.mirror.len() + 1 {
                return wrong(
                    format!("stores.{name}.mirror_quorum"),
                    &format!(
                        "there are {} places, the store's own folder among them",
                        store.mirror.len() + 1
                    ),
                );
            }
            if store.upstream_s3_access_key.is_some() != store.upstream_s3_secret_key.is_some() {
                return wrong(
                    format!("stores.{name}.upstream_s3_secret_key"),
                    "the access key and the secret key are given together or not at all",
                );
            }
            if store.cache_bytes > 0 && store.cache.is_none() {
                return wrong(
                    format!("stores.{name}.cache_bytes"),
                    "there is no cache to limit; set cache too",
                );
            }
            for (field, token) in [("read_token", &store.read_token), ("write_token", &store.write_token)] {
                if token.as_ref().is_some_and(|token| token.0.is_empty()) {
                    return wrong(
                        format!("stores.{name}.{field}"),
                        "an empty token; remove it or give one",
                    );
                }
            }
            let is_open = store.writable && store.write_token.is_none();
            if is_open && is_remote(self.listen.public) && !self.listen.allow_anonymous_writes {
                return wrong(
                    format!("stores.{name}.writable"),
                    &format!(
                        "anybody who reaches {} could write; set stores.{name}.write_token, \
                         or listen.allow_anonymous_writes = true",
                        self.listen.public
                    ),
                );
            }
        }
        for (name, value, least) in [
            ("connections", self.limits.connections, 1),
            ("header_bytes", self.limits.header_bytes, 1024),
            ("headers", self.limits.headers, 8),
            ("jobs", self.limits.jobs, 1),
            ("body_bytes", self.limits.body_bytes, 1 << 20),
            ("index_bytes", self.limits.index_bytes, 104),
        ] {
            if value < least {
                return wrong(
                    format!("limits.{name}"),
                    &format!("{value} is below the least, {least}"),
                );
            }
        }
        if self.limits.pull_ids > PULL_IDS_MAX {
            return wrong(
                "limits.pull_ids".to_owned(),
                &format!("{} is above the most, {PULL_IDS_MAX}", self.limits.pull_ids),
            );
        }
        if !(self.collect.dead_share > 0.0 && self.collect.dead_share.is_finite()) {
            return wrong(
                "collect.dead_share".to_owned(),
                &format!("{} is not above 0", self.collect.dead_share),
            );
        }
        if !(0..=22).contains(&self.collect.recompress_level) {
            return wrong(
                "collect.recompress_level".to_owned(),
                &format!("{} is not from 0 to 22", self.collect.recompress_level),
            );
        }
        if self.limits.idle_seconds == 0 {
            return wrong(
                "limits.idle_seconds".to_owned(),
                "0 would close every connection; give at least 1",
            );
        }
        Ok(())
    }
}

impl S3 {
    fn check(&self) -> Result<(), ConfigError> {
        let is_label = |label: &str| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        let is_domain = |domain: &String| domain.split('.').all(is_label);
        let wrong = [
            (
                !is_label(&self.region),
                "s3.region",
                "lower-case letters, digits and '-', as eu-west-1",
            ),
            (
                !self.domains.iter().all(is_domain),
                "s3.domains",
                "domains in lower case without dots at their ends, as s3.example.net",
            ),
            (!(-7..=22).contains(&self.frame_level), "s3.frame_level", "-7 to 22"),
            (!(1..=22).contains(&self.rest_level), "s3.rest_level", "1 to 22"),
            (
                self.rest_bytes_per_second == 0,
                "s3.rest_bytes_per_second",
                "at least 1",
            ),
            (self.buffer_bytes < QUEUE_LEN_LEAST, "s3.buffer_bytes", "at least 65536"),
            (
                self.places_cache < PLACES_CACHE_LEAST,
                "s3.places_cache",
                "at least 8388608",
            ),
            (self.jobs == 0, "s3.jobs", "at least 1"),
            (self.body_idle_seconds == 0, "s3.body_idle_seconds", "at least 1"),
            (self.lease_seconds < 2, "s3.lease_seconds", "at least 2"),
        ];
        match wrong.into_iter().find(|(is_wrong, ..)| *is_wrong) {
            None => Ok(()),
            Some((_, name, rule)) => Err(ConfigError::Value {
                name: name.to_owned(),
                rule: rule.to_owned(),
            }),
        }
    }
}

fn is_store_name(name: &str) -> bool {
    (1..=STORE_NAME_LEN_MAX).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}
