//! Whom the server asks of its own accord, and the caches that are told of changes.

use std::time::Duration;

use cairn_gateway::cdn::{PurgeKind, PurgeTarget};
use cairn_gateway::outgoing::{Outgoing as Sender, OutgoingPolicy};
use cairn_identity::AddressRange;
use cairn_index::names::BucketName;
use serde::{Deserialize, Serialize};

use super::{ConfigError, Secret};

/// Bytes of the name of a cache, which is that of its cursor among the events.
const NAME_LEN_MAX: usize = 64;

/// Requests that the server sends of its own accord: purges, and fetches of assets.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Outgoing {
    /// Hosts that are asked, by name or address. Default: none, so that nothing goes out.
    pub(crate) hosts: Vec<String>,
    /// Addresses and ranges that are asked though they are not of the public network. Default: none.
    pub(crate) private: Vec<String>,
    /// Speak plain HTTP too. Default `false`.
    pub(crate) plain: bool,
    /// Seconds for a request and its answer. Default `10`.
    pub(crate) seconds: u64,
    /// Bytes of an answer that are read. Default `1048576`.
    pub(crate) body_bytes: usize,
}

/// How a cache is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// `PURGE` of the address.
    #[default]
    Purge,
    /// `BAN` by tag.
    Ban,
    /// A request that passes the cache by.
    Refresh,
    /// A document in JSON.
    Webhook,
}

/// A cache in front that is told of changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Purge {
    /// Its address, behind which `/cdn/…` comes; a webhook's own. Its host has to be in `outgoing.hosts`. Needed.
    pub(crate) url: String,
    /// How it is told: `purge`, `ban`, `refresh` or `webhook`. Default `purge`.
    pub(crate) kind: Kind,
    /// Sent as `X-Cairn-Purge`, to a webhook as `Authorization`. Default: none.
    pub(crate) secret: Option<Secret>,
    /// The buckets that it has. Default: all.
    pub(crate) buckets: Vec<String>,
}

impl Default for Outgoing {
    fn default() -> Self {
        let policy = OutgoingPolicy::default();
        Self {
            hosts: policy.hosts,
            private: Vec::new(),
            plain: policy.plain,
            seconds: policy.patience.as_secs(),
            body_bytes: policy.body_len_max,
        }
    }
}

impl Outgoing {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let wrong = |name: &str, rule: String| {
            Err(ConfigError::Value {
                name: format!("outgoing.{name}"),
                rule,
            })
        };
        for range in &self.private {
            if let Err(error) = range.parse::<AddressRange>() {
                return wrong("private", format!("{range} is {error}"));
            }
        }
        if self.seconds == 0 {
            return wrong("seconds", "at least 1".to_owned());
        }
        Ok(())
    }

    fn policy(&self) -> OutgoingPolicy {
        OutgoingPolicy {
            hosts: self.hosts.clone(),
            plain: self.plain,
            private: self.private.iter().filter_map(|range| range.parse().ok()).collect(),
            patience: Duration::from_secs(self.seconds),
            body_len_max: self.body_bytes,
        }
    }

    /// What goes out.
    ///
    /// Errors, in words: the HTTP client does not start.
    pub(crate) fn sender(&self) -> Result<Sender, String> {
        Sender::new(self.policy()).map_err(|error| format!("the client of outgoing requests does not start: {error}"))
    }
}

impl Purge {
    pub(super) fn check(&self, name: &str, outgoing: &Outgoing) -> Result<(), ConfigError> {
        let wrong = |field: &str, rule: String| ConfigError::Value {
            name: format!("cdn.purge.{name}.{field}"),
            rule,
        };
        if name.is_empty() || name.len() > NAME_LEN_MAX {
            return Err(ConfigError::Value {
                name: format!("cdn.purge.{name}"),
                rule: format!("a name has 1 to {NAME_LEN_MAX} bytes"),
            });
        }
        outgoing
            .policy()
            .allows(&self.url)
            .map_err(|error| wrong("url", error.to_string()))?;
        for bucket in &self.buckets {
            BucketName::new(bucket).map_err(|error| wrong("buckets", error.to_string()))?;
        }
        Ok(())
    }

    /// As the door takes it.
    pub(crate) fn target(&self, name: &str) -> PurgeTarget {
        PurgeTarget {
            name: name.to_owned(),
            kind: match self.kind {
                Kind::Purge => PurgeKind::Purge,
                Kind::Ban => PurgeKind::Ban,
                Kind::Refresh => PurgeKind::Refresh,
                Kind::Webhook => PurgeKind::Webhook,
            },
            url: self.url.trim_end_matches('/').to_owned(),
            secret: self.secret.as_ref().map(|secret| secret.0.clone()),
            buckets: self.buckets.clone(),
        }
    }
}
