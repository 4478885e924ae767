//! From a location to an SSH connection on which somebody is logged in: keys from files, then those of an ssh-agent.
//!
//! No passwords. RSA keys only in an agent: the library that would sign with them has a side channel.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, AuthResult, Handle};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{Algorithm, PrivateKey, PrivateKeyWithHashAlg};
use tokio::net::TcpStream;

use super::SftpOptions;
use super::trust::{Client, HandshakeError};
use crate::backend::remote::{Fault, Try};
use crate::location::SshLocation;

/// SSH's own port.
const PORT: u16 = 22;
/// Keepalives without an answer after which a connection is given up.
const KEEPALIVES_MAX: usize = 3;
/// Keys of an agent that are tried at most: servers end a login after a handful.
const AGENT_KEYS_MAX: usize = 16;

/// Connects and logs in.
///
/// - `quiet`: a connection on which nothing comes for so long, three times over, is given up.
pub(super) async fn connect(location: &SshLocation, options: &SftpOptions, quiet: Duration) -> Try<Handle<Client>> {
    let Some(user) = location.user().or(options.user.as_deref()) else {
        return Err(Fault::refused("nobody to log in as: write sftp://USER@HOST/PATH"));
    };
    let trust = Client {
        host: location.host().to_owned(),
        port: location.port().unwrap_or(PORT),
        known_hosts: options.known_hosts.clone(),
    };
    let config = client::Config {
        preferred: trust.preferred(),
        nodelay: true,
        keepalive_interval: Some(quiet),
        keepalive_max: KEEPALIVES_MAX,
        ..client::Config::default()
    };
    let stream = TcpStream::connect((trust.host.as_str(), trust.port)).await;
    let stream = stream.map_err(Fault::passing)?;
    // Without it small requests would wait for each other; a system that cannot do it is only slower.
    let _ = stream.set_nodelay(true);
    let mut ssh = match client::connect_stream(Arc::new(config), stream, trust).await {
        Ok(ssh) => ssh,
        Err(HandshakeError::Ssh(error @ russh::Error::NoCommonAlgo { .. })) => return Err(Fault::refused(error)),
        Err(HandshakeError::Ssh(error)) => return Err(Fault::passing(error)),
        Err(stranger) => return Err(Fault::refused(stranger)),
    };
    let mut refused = Vec::new();
    if with_files(&mut ssh, user, options, &mut refused).await?
        || with_agent(&mut ssh, user, options, &mut refused).await?
    {
        return Ok(ssh);
    }
    if refused.is_empty() {
        refused.push("there is no key: name one, or start ssh-agent".to_owned());
    }
    Err(Fault::refused(format!(
        "it does not let {user} in: {}",
        refused.join("; ")
    )))
}

/// Tries the keys in files. Errors: the connection broke.
async fn with_files(
    ssh: &mut Handle<Client>,
    user: &str,
    options: &SftpOptions,
    refused: &mut Vec<String>,
) -> Try<bool> {
    for file in &options.identities {
        let name = file.display();
        match load(file) {
            Ok(None) => {}
            Ok(Some(key)) => {
                let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
                let answer = ssh.authenticate_publickey(user, key).await.map_err(Fault::passing)?;
                if is_let_in(ssh, &answer, &name.to_string(), refused)? {
                    return Ok(true);
                }
            }
            Err(why) => refused.push(format!("{name} {why}")),
        }
    }
    Ok(false)
}

/// The key in a file, `None` where there is no file.
fn load(file: &Path) -> Result<Option<PrivateKey>, String> {
    match russh::keys::load_secret_key(file, None) {
        Ok(key) if matches!(key.algorithm(), Algorithm::Rsa { .. }) => {
            Err("is an RSA key, which only an ssh-agent can use here".to_owned())
        }
        Ok(key) => Ok(Some(key)),
        Err(russh::keys::Error::IO(error)) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(russh::keys::Error::KeyIsEncrypted) => {
            Err("needs a passphrase: give it to ssh-agent with `ssh-add`".to_owned())
        }
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

/// Tries the keys of the agent. Errors: the connection broke.
async fn with_agent(
    ssh: &mut Handle<Client>,
    user: &str,
    options: &SftpOptions,
    refused: &mut Vec<String>,
) -> Try<bool> {
    let Some(socket) = &options.agent else { return Ok(false) };
    let mut agent = match AgentClient::connect_uds(socket).await {
        Ok(agent) => agent,
        Err(error) => {
            refused.push(format!("ssh-agent at {} does not answer: {error}", socket.display()));
            return Ok(false);
        }
    };
    let keys = match agent.request_identities().await {
        Ok(keys) => keys,
        Err(error) => {
            refused.push(format!("ssh-agent does not list its keys: {error}"));
            return Ok(false);
        }
    };
    let hash = ssh.best_supported_rsa_hash().await.map_err(Fault::passing)?.flatten();
    for identity in keys.into_iter().take(AGENT_KEYS_MAX) {
        let AgentIdentity::PublicKey { key, comment } = identity else {
            continue;
        };
        let hash = hash.filter(|_| matches!(key.algorithm(), Algorithm::Rsa { .. }));
        match ssh.authenticate_publickey_with(user, key, hash, &mut agent).await {
            Ok(answer) => {
                if is_let_in(ssh, &answer, &format!("the agent's key {comment}"), refused)? {
                    return Ok(true);
                }
            }
            Err(error) => refused.push(format!("the agent's key {comment}: {error}")),
        }
    }
    Ok(false)
}

/// What an answer to a key means. Errors: there was none, because the connection ended. Servers also end those on which too
/// many keys were tried.
fn is_let_in(ssh: &Handle<Client>, answer: &AuthResult, key: &str, refused: &mut Vec<String>) -> Try<bool> {
    match answer {
        AuthResult::Success => Ok(true),
        // A server that refuses says what else it would take.
        AuthResult::Failure { remaining_methods, .. } if !remaining_methods.is_empty() && !ssh.is_closed() => {
            refused.push(format!("{key} was refused"));
            Ok(false)
        }
        AuthResult::Failure { .. } => {
            refused.push(format!("the connection ended at {key}"));
            Err(Fault::passing(refused.join("; ")))
        }
    }
}
