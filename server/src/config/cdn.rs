//! The CDN's door: what its answers say, whose links it takes, who in front of it is believed.

use std::collections::BTreeMap;

use cairn_gateway::cdn::{CdnOptions, CdnSettings};
use cairn_identity::{AddressRange, LinkKey};
use cairn_index::Tenant;
use cairn_index::names::BucketName;
use serde::{Deserialize, Serialize};

use super::outgoing::{Outgoing, Purge};
use super::{BucketToken, ConfigError, Secret};

/// Ranges of a request, at most whatever is set: each costs a header and a read.
const RANGES_MOST: usize = 256;
/// One reader ahead, and pieces for others.
const BUFFER_LEAST: usize = 16 << 20;

/// Objects for caches and browsers, at `/cdn/{bucket}/{key}` of the public listener, where the S3 door is served.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Cdn {
    /// Serve it. Default `true`.
    pub(crate) enabled: bool,
    /// Seconds for which caches keep an answer, where neither the object (`Cache-Control`) nor the bucket (`cdn_max_age`) say. Default `300`.
    pub(crate) max_age_seconds: u32,
    /// As that, of live playlists and manifests: `.m3u8`, `.mpd` and their types. Default `5`.
    pub(crate) live_seconds: u32,
    /// As that, of the answer that nothing is there (404). Default `5`.
    pub(crate) missing_seconds: u32,
    /// Seconds for which caches may answer with what is no longer fresh while they ask. Default `30`.
    pub(crate) stale_while_revalidate_seconds: u32,
    /// Seconds for which they may while this server does not answer. Default `86400`.
    pub(crate) stale_if_error_seconds: u32,
    /// Ranges of a request, 1 to 256; more is 416. Default `16`.
    pub(crate) ranges: usize,
    /// Bytes of objects that answers hold for their clients, all together; many have less each. Default `268435456`.
    pub(crate) buffer_bytes: usize,
    /// Addresses and ranges of proxies whose `X-Forwarded-For` is believed, for links that are bound to an address. Default: none.
    pub(crate) trusted_proxies: Vec<String>,
    /// Keys of signed links by id. Several count at once: a new one is added first, and an old one goes when its links have ended. Default: none.
    pub(crate) keys: BTreeMap<String, CdnKey>,
    /// Caches in front that are told when an object changes, by name. Default: none.
    pub(crate) purge: BTreeMap<String, Purge>,
}

/// A key of signed links.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CdnKey {
    /// The secret, 32 characters or more. Needed.
    pub(crate) secret: Option<Secret>,
    /// In whose tenant it opens buckets. Default `default`.
    pub(crate) tenant: String,
    /// The buckets that it opens. Default: all of the tenant's.
    pub(crate) buckets: Vec<String>,
}

impl Default for Cdn {
    fn default() -> Self {
        let options = CdnOptions::default();
        Self {
            enabled: true,
            max_age_seconds: options.max_age,
            live_seconds: options.live_max_age,
            missing_seconds: options.missing_max_age,
            stale_while_revalidate_seconds: options.stale_while_revalidate,
            stale_if_error_seconds: options.stale_if_error,
            ranges: options.ranges,
            buffer_bytes: options.buffer_bytes,
            trusted_proxies: Vec::new(),
            keys: BTreeMap::new(),
            purge: BTreeMap::new(),
        }
    }
}

impl Default for CdnKey {
    fn default() -> Self {
        Self {
            secret: None,
            tenant: Tenant::default().as_str().to_owned(),
            buckets: Vec::new(),
        }
    }
}

impl Cdn {
    pub(super) fn check(&self, outgoing: &Outgoing) -> Result<(), ConfigError> {
        let wrong = |name: String, rule: String| ConfigError::Value { name, rule };
        if !(1..=RANGES_MOST).contains(&self.ranges) {
            return Err(wrong(
                "cdn.ranges".to_owned(),
                format!("{} is not from 1 to {RANGES_MOST}", self.ranges),
            ));
        }
        if self.buffer_bytes < BUFFER_LEAST {
            let rule = format!("{} is below the least, {BUFFER_LEAST}", self.buffer_bytes);
            return Err(wrong("cdn.buffer_bytes".to_owned(), rule));
        }
        for proxy in &self.trusted_proxies {
            let parsed: Result<AddressRange, _> = proxy.parse();
            parsed.map_err(|error| wrong("cdn.trusted_proxies".to_owned(), format!("{proxy} is {error}")))?;
        }
        for (name, purge) in &self.purge {
            purge.check(name, outgoing)?;
        }
        for (id, key) in &self.keys {
            let wrong = |field: &str, rule: String| wrong(format!("cdn.keys.{id}{field}"), rule);
            let Some(secret) = &key.secret else {
                return Err(wrong(".secret", "give it, 32 characters or more".to_owned()));
            };
            Tenant::new(&key.tenant).map_err(|error| wrong(".tenant", error.to_string()))?;
            for bucket in &key.buckets {
                BucketName::new(bucket).map_err(|error| wrong(".buckets", error.to_string()))?;
            }
            LinkKey::new(id, &secret.0, key.tenant.as_str(), key.buckets.clone())
                .map_err(|error| wrong("", error.to_string()))?;
        }
        Ok(())
    }

    /// As the door takes it.
    ///
    /// - `tokens`: of services.
    pub(crate) fn settings<'a>(&self, tokens: impl Iterator<Item = &'a BucketToken>) -> CdnSettings {
        let key = |(id, key): (&String, &CdnKey)| {
            let secret = key.secret.as_ref()?;
            LinkKey::new(id, &secret.0, key.tenant.as_str(), key.buckets.clone()).ok()
        };
        CdnSettings {
            options: CdnOptions {
                max_age: self.max_age_seconds,
                live_max_age: self.live_seconds,
                missing_max_age: self.missing_seconds,
                stale_while_revalidate: self.stale_while_revalidate_seconds,
                stale_if_error: self.stale_if_error_seconds,
                ranges: self.ranges,
                buffer_bytes: self.buffer_bytes,
            },
            tokens: tokens.filter_map(BucketToken::service).collect(),
            keys: self.keys.iter().filter_map(key).collect(),
            proxies: self
                .trusted_proxies
                .iter()
                .filter_map(|proxy| proxy.parse().ok())
                .collect(),
        }
    }
}
