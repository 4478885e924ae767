//! The configuration file: desync's JSON, so that one file serves both.
//!
//! Read from `--config`, else `~/.config/cairn/config.json`, else desync's own. What belongs to kinds of stores that this
//! release does not open (`oci-credentials`) is kept as it is and not looked at.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cairn_store::{S3Configured, S3Keys, S3Location};
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Outcome};

/// The whole file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Config {
    /// Credentials by `scheme://host[:port]`.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(crate) s3_credentials: BTreeMap<String, S3Entry>,
    /// Kept for a release that opens registries.
    #[serde(default)]
    pub(crate) oci_credentials: Opaque,
    /// Options by location; `*` and `?` stand for anything but `/`.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(crate) store_options: BTreeMap<String, StoreEntry>,
    /// Stores by name, for `@NAME` in place of a location. Not desync's.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub(crate) stores: BTreeMap<String, NamedStore>,
    /// The server that `bucket`, `object`, `key` and `tenant` speak to. Not desync's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) admin: Option<AdminEntry>,
}

/// A server's admin API.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct AdminEntry {
    /// Its internal listener, as `http://127.0.0.1:8001`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<String>,
    /// File with its token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
}

/// Stores that go by one name.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct NamedStore {
    /// Read in order, each for what those before it do not have; the first is the one that is written, checked and pruned.
    pub(crate) stores: Vec<String>,
    /// Folder that keeps what was read of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cache: Option<PathBuf>,
    /// Most bytes that it may hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cache_limit: Option<u64>,
}

/// JSON that is passed on and never shown in debug output: it holds secrets.
#[derive(Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Opaque(serde_json::Value);

impl fmt::Debug for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Credentials of one S3 server.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct S3Entry {
    /// Names the account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) access_key: Option<String>,
    /// Signs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) secret_key: Option<String>,
    /// A credentials file of Amazon's form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) aws_credentials_file: Option<PathBuf>,
    /// A profile in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) aws_profile: Option<String>,
    /// The region of its buckets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) aws_region: Option<String>,
    /// Use the keys of the pod's, container's or machine's role with it, although it is not Amazon's. Not desync's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) aws_role: bool,
}

impl fmt::Debug for S3Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("S3Entry { … }")
    }
}

/// Options of one location.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct StoreEntry {
    /// Nanoseconds for a whole request; 0 for the default of a minute, negative for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timeout: Option<i64>,
    /// Tries in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error_retry: Option<u32>,
    /// Nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error_retry_base_interval: Option<u64>,
    /// PEM file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_cert: Option<PathBuf>,
    /// PEM file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_key: Option<PathBuf>,
    /// PEM file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca_cert: Option<PathBuf>,
    /// Take any certificate.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) trust_insecure: bool,
    /// Taken for desync's sake: chunks are always verified.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) skip_verify: bool,
    /// Chunks are written plain.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) uncompressed: bool,
    /// The Authorization header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) http_auth: Option<String>,
    /// The Cookie header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) http_cookie: Option<String>,
    /// Requests in flight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) n: Option<usize>,
    /// Private key for SFTP, in place of those in `~/.ssh`. Not desync's: it starts `ssh`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ssh_identity: Option<PathBuf>,
    /// `known_hosts` file for SFTP, in place of the user's and the system's. Not desync's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ssh_known_hosts: Option<PathBuf>,
    /// File of credentials for `gs://`, as Google's tools write them. Not desync's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gs_credentials: Option<PathBuf>,
    /// Address of the server of `gs://`, if it is not Google's. Not desync's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gs_endpoint: Option<String>,
    /// A pack behind a network grows to so many bytes. Not desync's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pack_size: Option<u64>,
    /// Bytes of packs behind a network that are kept on this machine's disk. Not desync's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pack_cache_limit: Option<u64>,
    /// Chunks are encrypted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) encryption: bool,
    /// 64 hex digits; turns encryption on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) encryption_key: Option<String>,
    /// `xchacha20-poly1305` or `aes-256-gcm`; turns encryption on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) encryption_algorithm: Option<String>,
}

impl fmt::Debug for StoreEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreEntry { … }")
    }
}

impl StoreEntry {
    /// `timeout` as a time: `None` when the file does not say, `Some(None)` for none at all.
    pub(crate) fn timeout(&self) -> Option<Option<Duration>> {
        match self.timeout {
            None | Some(0) => None,
            Some(nanoseconds) => Some(u64::try_from(nanoseconds).ok().map(Duration::from_nanos)),
        }
    }
}

impl Config {
    /// Reads the file in force; none at all is an empty one.
    pub(crate) fn load(named: Option<&Path>) -> Outcome<(PathBuf, Self)> {
        let folder = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
        let folder = folder.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")));
        let standard = |tool: &str| folder.as_ref().map(|folder| folder.join(tool).join("config.json"));
        let path = match named {
            Some(path) => path.to_owned(),
            None => {
                let ours = standard("cairn").unwrap_or_else(|| PathBuf::from("config.json"));
                let theirs = standard("desync").filter(|path| path.exists() && !ours.exists());
                theirs.unwrap_or(ours)
            }
        };
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => {
                return Ok((path, Self::default()));
            }
            Err(error) => return Err(Failure::io(path.display(), "read the configuration", &error)),
        };
        let config = serde_json::from_slice(&text)
            .map_err(|error| Failure::new(format!("{}: not a configuration: {error}", path.display())))?;
        Ok((path, config))
    }

    /// What is said of the credentials of an S3 server. Errors: one key without the other.
    ///
    /// - `server`: `scheme://host[:port]`.
    pub(crate) fn s3(&self, server: &str) -> Outcome<S3Configured> {
        let fits = |key: &str| S3Location::parse(&format!("s3+{}/b", key.trim_end_matches('/')));
        let entry = self.s3_credentials.iter().find(|(key, _)| {
            key.trim_end_matches('/') == server || fits(key).is_ok_and(|location| location.server() == server)
        });
        let Some((key, entry)) = entry else {
            return Ok(S3Configured::default());
        };
        let keys = match (&entry.access_key, &entry.secret_key) {
            (Some(access_key), Some(secret_key)) => Some(S3Keys {
                access_key: access_key.clone(),
                secret_key: secret_key.clone(),
                session_token: None,
            }),
            (None, None) => None,
            _ => {
                return Err(Failure::new(format!(
                    "s3-credentials: `{key}` has one of access-key and secret-key; give both"
                )));
            }
        };
        Ok(S3Configured {
            keys,
            file: entry.aws_credentials_file.clone(),
            profile: entry.aws_profile.clone(),
            region: entry.aws_region.clone(),
            role: entry.aws_role,
        })
    }

    /// What `@NAME` stands for; `None` for every other text. Errors: a name that is not known, or that stands for another one.
    pub(crate) fn named(&self, store: &str) -> Outcome<Option<&NamedStore>> {
        let Some(name) = store.strip_prefix('@') else {
            return Ok(None);
        };
        let Some(named) = self.stores.get(name) else {
            let failure = Failure::usage(format!("{store}: the configuration has no store of this name"));
            return Err(failure.try_this("add it to the configuration under `stores`, or write ./@… for a folder"));
        };
        if named.stores.is_empty() || named.stores.iter().any(|store| store.starts_with('@')) {
            return Err(Failure::new(format!(
                "stores: `{name}` needs `stores`, a list of locations, without other names"
            )));
        }
        Ok(Some(named))
    }

    /// The location that is written where a store is named. Errors: as [`Config::named`].
    pub(crate) fn written<'a>(&'a self, store: &'a str) -> Outcome<&'a str> {
        Ok(self.named(store)?.map_or(store, |named| &named.stores[0]))
    }

    /// The options of a location. Errors: two keys fit it.
    pub(crate) fn options(&self, location: &str) -> Outcome<StoreEntry> {
        let bare = location.trim_end_matches('/');
        let mut fitting = self.store_options.iter().filter(|(pattern, _)| {
            let pattern = pattern.trim_end_matches('/');
            pattern == bare || glob(pattern.as_bytes(), bare.as_bytes())
        });
        let Some((first, entry)) = fitting.next() else {
            return Ok(StoreEntry::default());
        };
        match fitting.next() {
            None => Ok(entry.clone()),
            Some((second, _)) => Err(Failure::new(format!(
                "store-options: both `{first}` and `{second}` fit one location; make one of them narrower"
            ))),
        }
    }
}

/// Whether a text fits a pattern of Go's `path.Match` kind: `*`, `?` and `[a-z]`, none of which stand for `/`.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let Some((&first, rest)) = pattern.split_first() else {
        return text.is_empty();
    };
    match first {
        b'*' => {
            let reach = text.iter().position(|&byte| byte == b'/').unwrap_or(text.len());
            (0..=reach).any(|skipped| glob(rest, &text[skipped..]))
        }
        b'[' => {
            let Some(end) = rest.iter().position(|&byte| byte == b']') else {
                return false;
            };
            let Some((&byte, after)) = text.split_first() else {
                return false;
            };
            in_class(&rest[..end], byte) && glob(&rest[end + 1..], after)
        }
        _ => text.split_first().is_some_and(|(&byte, after)| {
            (if first == b'?' { byte != b'/' } else { byte == first }) && glob(rest, after)
        }),
    }
}

fn in_class(class: &[u8], byte: u8) -> bool {
    let (negated, mut class) = match class.split_first() {
        Some((b'^', rest)) => (true, rest),
        _ => (false, class),
    };
    let mut found = false;
    while let Some((&low, rest)) = class.split_first() {
        class = match rest {
            [b'-', high, after @ ..] => {
                found |= (low..=*high).contains(&byte);
                after
            }
            _ => {
                found |= byte == low;
                rest
            }
        };
    }
    found != negated
}

fn null_is_empty<'de, T, D>(deserializer: D) -> Result<BTreeMap<String, T>, D::Error>
where
    T: Deserialize<'de>,
    D: serde::Deserializer<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_in_go() {
        for (pattern, text, fits) in [
            ("http://h/*", "http://h/store", true),
            ("http://h/*", "http://h/a/b", false),
            ("http://h/*/b", "http://h/a/b", true),
            ("/srv/?", "/srv/a", true),
            ("/srv/[a-c]*", "/srv/build", true),
            ("/srv/[^a-c]*", "/srv/build", false),
            ("/srv/[", "/srv/[", false),
            ("", "", true),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), fits, "{pattern} on {text}");
        }
    }

    #[test]
    fn s3_servers_are_known_by_scheme_host_and_port() {
        let config: Config = serde_json::from_str(
            r#"{"s3-credentials": {"http://h:9000/": {"access-key": "a", "secret-key": "b", "aws-region": "r"},
                "https://h:443": {"aws-credentials-file": "/f", "aws-profile": "p"}, "http://half": {"access-key": "a"}}}"#,
        )
        .unwrap();
        let found = config.s3("http://h:9000").unwrap();
        assert_eq!(found.keys.unwrap().secret_key, "b");
        assert_eq!(found.region.as_deref(), Some("r"));
        assert_eq!(config.s3("https://h").unwrap().profile.as_deref(), Some("p"));
        assert!(config.s3("http://h").unwrap().keys.is_none());
        assert!(config.s3("http://half").unwrap_err().message.contains("give both"));
        assert!(!format!("{config:?}").contains("\"b\""));
    }

    #[test]
    fn two_keys_for_one_location_are_an_error() {
        let config: Config = serde_json::from_str(
            r#"{"s3-credentials": null, "store-options": {"http://h/*": {"error-retry": 7}, "http://h/a": {}}}"#,
        )
        .unwrap();
        assert!(
            config
                .options("http://h/a/")
                .unwrap_err()
                .message
                .contains("http://h/*")
        );
        assert_eq!(config.options("http://h/b/").unwrap().error_retry, Some(7));
        assert_eq!(config.options("elsewhere").unwrap().error_retry, None);
    }
}
