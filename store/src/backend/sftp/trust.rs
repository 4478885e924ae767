//! Whether a server is the one that it should be: its key against OpenSSH's `known_hosts` files.
//!
//! Stricter than `ssh`, which may ask: a key that is in none of the files is refused. A key that is marked `@revoked` there
//! is refused for every host. Patterns with `*` and `@cert-authority` lines are not understood, and do not make a host known.

use std::borrow::Cow;
use std::path::PathBuf;

use russh::Preferred;
use russh::client::Handler;
use russh::keys::known_hosts::known_host_keys_path;
use russh::keys::{Algorithm, HashAlg, PublicKey, PublicKeyOrCertificate};

/// Looks at what the server shows.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) known_hosts: Vec<PathBuf>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error(
        "its key is in none of {}: connect once with `ssh`, or add it with `ssh-keyscan` (it shows {shown})",
        files(known_hosts)
    )]
    Unknown { known_hosts: Vec<PathBuf>, shown: String },
    #[error("its key is not the one in {}:{line}: somebody may be in between, or the server is a new one (it shows {shown})", file.display())]
    Changed { file: PathBuf, line: usize, shown: String },
    #[error("its key {shown} is revoked in {}", file.display())]
    Revoked { file: PathBuf, shown: String },
    #[error("cannot read {}", file.display())]
    File { file: PathBuf, source: russh::keys::Error },
    #[error(transparent)]
    Ssh(#[from] russh::Error),
}

impl Handler for Client {
    type Error = HandshakeError;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, HandshakeError> {
        match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => self.check(key).map(|()| true),
            // Not offered, so not shown.
            PublicKeyOrCertificate::Certificate(_) => Ok(false),
        }
    }
}

impl Client {
    /// Proposals with the kinds of key first that this host is known by, as `ssh` has it: else a server that has another
    /// one too would look like a stranger.
    pub(super) fn preferred(&self) -> Preferred {
        let default = Preferred::default();
        let known: Vec<Algorithm> = self.recorded().into_iter().map(|(_, _, key)| key.algorithm()).collect();
        let is_known = |wanted: &Algorithm| known.iter().any(|known| same_kind(known, wanted));
        let mut keys = default.key.to_vec();
        keys.sort_by_key(|wanted| !is_known(wanted));
        Preferred {
            key: Cow::Owned(keys),
            ..default
        }
    }

    /// Keys recorded for the host, with their file and line. What cannot be read has none: [`Client::check`] says so.
    fn recorded(&self) -> Vec<(PathBuf, usize, PublicKey)> {
        let of = |file: &PathBuf| {
            let keys = known_host_keys_path(&self.host, self.port, file).unwrap_or_default();
            let file = file.clone();
            keys.into_iter().map(move |(line, key)| (file.clone(), line, key))
        };
        self.known_hosts.iter().flat_map(of).collect()
    }

    fn check(&self, key: &PublicKey) -> Result<(), HandshakeError> {
        let shown = || format!("{} {}", key.algorithm(), key.fingerprint(HashAlg::Sha256));
        for file in &self.known_hosts {
            if is_revoked(key, &std::fs::read_to_string(file).unwrap_or_default()) {
                return Err(HandshakeError::Revoked {
                    file: file.clone(),
                    shown: shown(),
                });
            }
        }
        let mut changed = None;
        for file in &self.known_hosts {
            let keys = known_host_keys_path(&self.host, self.port, file).map_err(|source| HandshakeError::File {
                file: file.clone(),
                source,
            })?;
            for (line, recorded) in keys {
                if recorded.key_data() == key.key_data() {
                    return Ok(());
                }
                if same_kind(&recorded.algorithm(), &key.algorithm()) {
                    changed.get_or_insert((file.clone(), line));
                }
            }
        }
        Err(match changed {
            Some((file, line)) => HandshakeError::Changed {
                file,
                line,
                shown: shown(),
            },
            None => HandshakeError::Unknown {
                known_hosts: self.known_hosts.clone(),
                shown: shown(),
            },
        })
    }
}

/// RSA has one kind of key and several kinds of signature.
fn same_kind(one: &Algorithm, other: &Algorithm) -> bool {
    match (one, other) {
        (Algorithm::Rsa { .. }, Algorithm::Rsa { .. }) => true,
        _ => one == other,
    }
}

/// Whether a line of a `known_hosts` file revokes a key, for whatever host.
fn is_revoked(key: &PublicKey, text: &str) -> bool {
    text.lines().any(|line| {
        let mut words = line.split_ascii_whitespace();
        let marked = words.next() == Some("@revoked");
        let recorded = words
            .nth(2)
            .and_then(|word| russh::keys::parse_public_key_base64(word).ok());
        marked && recorded.is_some_and(|recorded| recorded.key_data() == key.key_data())
    })
}

fn files(files: &[PathBuf]) -> String {
    if files.is_empty() {
        return "no known_hosts file".to_owned();
    }
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const OTHER: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIA6rWI3G1sz07DnfFlrouTcysQlj2P+jpNSOEWD9OJ3X";

    fn verdict(text: &str, port: u16) -> String {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("known_hosts");
        fs::write(&file, text.replace("KEY", KEY).replace("OTHER", OTHER)).unwrap();
        let client = Client {
            host: "h.example".to_owned(),
            port,
            known_hosts: vec![folder.path().join("none"), file],
        };
        let key = russh::keys::parse_public_key_base64(KEY).unwrap();
        match client.check(&key) {
            Ok(()) => "known".to_owned(),
            Err(HandshakeError::Unknown { .. }) => "unknown".to_owned(),
            Err(HandshakeError::Changed { line, .. }) => format!("changed at {line}"),
            Err(HandshakeError::Revoked { .. }) => "revoked".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn only_a_recorded_key_is_trusted() {
        assert_eq!(verdict("", 22), "unknown");
        assert_eq!(verdict("other.example ssh-ed25519 KEY\n", 22), "unknown");
        assert_eq!(verdict("# h\nh.example,10.0.0.1 ssh-ed25519 KEY\n", 22), "known");
        assert_eq!(verdict("h.example ssh-ed25519 KEY\n", 2222), "unknown");
        assert_eq!(verdict("[h.example]:2222 ssh-ed25519 KEY\n", 2222), "known");
        assert_eq!(verdict("h.example ssh-ed25519 OTHER\n", 22), "changed at 1");
        assert_eq!(
            verdict("h.example ssh-ed25519 OTHER\nh.example ssh-ed25519 KEY\n", 22),
            "known"
        );
        assert_eq!(
            verdict("h.example ssh-ed25519 KEY\n@revoked * ssh-ed25519 KEY\n", 22),
            "revoked"
        );
    }
}
