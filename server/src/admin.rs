//! The admin door's token: that of the settings, else one that is made at the first start and kept in the data folder.
//!
//! The file is its owner's alone to read, so whoever may be the server's user on this machine may administer it, and nobody else
//! unless they are told. Not here: what the door does (`cairn_gateway::admin`).

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_gateway::PoolOptions;
use cairn_gateway::admin::{Admin, AdminOptions};
use cairn_roots::Token;

use crate::backup::Backups;
use crate::config::Config;
use crate::objects::ObjectStore;
use crate::routes::App;

/// The file of the token, in the data folder.
const FILE_NAME: &str = "admin-token";
/// Random bytes of a token that we make.
const TOKEN_BYTES: usize = 32;

/// An admin door, and where people find its token.
#[derive(Debug)]
pub(crate) struct AdminDoor {
    pub(crate) door: Arc<Admin>,
    /// `None`: in the settings.
    pub(crate) token_file: Option<PathBuf>,
}

impl AdminDoor {
    /// The door, where the settings want one.
    ///
    /// - `app`: whose stores backups have too.
    /// - Errors, in words: the token can be neither read nor made.
    pub(crate) fn open(config: &Config, objects: Option<&ObjectStore>, app: &Arc<App>) -> Result<Option<Self>, String> {
        let Some(objects) = objects.filter(|_| config.admin.enabled) else {
            return Ok(None);
        };
        let (token, token_file) = match &config.admin.token {
            Some(token) => (Token::new(&token.0), None),
            None => {
                let file = config.data.join(FILE_NAME);
                let token =
                    read_or_make(&file).map_err(|error| format!("the admin token in {}: {error}", file.display()))?;
                (Token::new(token), Some(file))
            }
        };
        let options = AdminOptions {
            token,
            region: config.s3.region.clone(),
            pool: PoolOptions {
                jobs: config.s3.jobs,
                waiting: config.s3.waiting,
                patience: std::time::Duration::from_secs(config.s3.wait_seconds),
            },
            backups: Arc::new(Backups::new(config, objects.backup_part(), app)),
            upkeep: Arc::new(objects.upkeep()),
        };
        Ok(Some(Self {
            door: Arc::new(Admin::new(Arc::clone(objects.objects()), options)),
            token_file,
        }))
    }
}

fn read_or_make(file: &Path) -> io::Result<String> {
    match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        text => {
            let token = text?.trim().to_owned();
            if token.is_empty() {
                return Err(io::Error::other("the file is empty; remove it to have a token made"));
            }
            return Ok(token);
        }
    }
    let mut bytes = [0; TOKEN_BYTES];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    // Whole under its name, or not there.
    let half = file.with_extension("half");
    let mut written = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&half)?;
    writeln!(written, "{token}")?;
    written.sync_all()?;
    fs::rename(&half, file)?;
    if let Some(folder) = file.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_token_is_made_once_and_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(FILE_NAME);
        let token = read_or_make(&file).unwrap();
        assert_eq!(token.len(), 2 * TOKEN_BYTES);
        assert_eq!(read_or_make(&file).unwrap(), token);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let other = folder.path().join("other");
        assert_ne!(read_or_make(&other).unwrap(), token);
        fs::write(&other, " \n").unwrap();
        read_or_make(&other).unwrap_err();
    }
}
