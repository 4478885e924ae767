//! From locations and options to stores.

use std::sync::Arc;

use cairn_formats::{ChunkForm, DigestAlgorithm};

use crate::backend::remote::patience::Patience;
use crate::backend::remote::store::{RemoteOptions, RemoteStore};
use crate::backend::s3::{Bucket, S3Options};
use crate::backend::sftp::{Folder, Holds, SftpOptions};
use crate::location::{LaterLocation, Location, LocationError, S3Location, SshLocation};
use crate::{ChunkStore, Error, FailoverGroup, HttpOptions, HttpStore, LocalStore, Prune};
use crate::{Result, Sealing, SshOptions, SshStore, StoreChain, StoreName, Suspect, SyncPolicy};

/// How one location is opened. Where the values come from (flags, config, environment) is the caller's business.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Form in which chunks are written and looked for first; plain is desync's `uncompressed`. Both forms are read.
    pub form: ChunkForm,
    /// When chunks written to a local folder become durable, of either kind.
    pub sync: SyncPolicy,
    /// Refuse writes to a folder, bucket or SFTP store.
    pub read_only: bool,
    /// The caller need not verify what it reads from here (desync's `skip-verify`); stores themselves do not look at it.
    pub skip_verify: bool,
    /// How chunks are encrypted.
    pub sealing: Sealing,
    /// What new packs say of the digest that names their chunks.
    pub digest: DigestAlgorithm,
    /// Hears of what is not whole in a store of packs, which opens all the same.
    pub on_suspect: fn(&StoreName, &Suspect),
    /// How a server is talked to, S3 ones too.
    pub http: HttpOptions,
    /// How a bucket is opened.
    pub s3: S3Options,
    /// How a remote casync is reached.
    pub ssh: SshOptions,
    /// How an SFTP server is reached.
    pub sftp: SftpOptions,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            form: ChunkForm::Compressed,
            sync: SyncPolicy::default(),
            read_only: false,
            skip_verify: false,
            sealing: Sealing::default(),
            digest: DigestAlgorithm::default(),
            on_suspect: |_, _| {},
            http: HttpOptions::default(),
            s3: S3Options::default(),
            ssh: SshOptions::default(),
            sftp: SftpOptions::default(),
        }
    }
}

/// One store as people write it: a location, or a failover group of several (`a|b`).
#[derive(Clone, Debug)]
pub struct StoreSpec {
    /// The members, at least one, in the order in which they are tried.
    pub members: Vec<MemberSpec>,
}

/// A location and how it is opened.
#[derive(Clone, Debug)]
pub struct MemberSpec {
    /// Where it is.
    pub location: Location,
    /// How it is opened.
    pub options: StoreOptions,
}

impl StoreSpec {
    /// Reads a location or a group of them, divided by `|`.
    ///
    /// - `options_for`: the options of one member, from its text as written (which may hold secrets).
    pub fn parse(
        text: &str,
        mut options_for: impl FnMut(&str) -> StoreOptions,
    ) -> std::result::Result<Self, LocationError> {
        let members = text.split('|').map(|member| {
            Ok(MemberSpec {
                location: Location::parse(member)?,
                options: options_for(member),
            })
        });
        Ok(Self {
            members: members.collect::<std::result::Result<_, LocationError>>()?,
        })
    }

    /// A single location.
    pub fn single(location: Location, options: StoreOptions) -> Self {
        Self {
            members: vec![MemberSpec { location, options }],
        }
    }
}

/// Opens a store or a failover group. Servers are not asked for anything yet; folders must exist.
///
/// Errors: [`Error::Refused`] for a folder that cannot be read, a certificate that cannot be used, or a kind of store that
/// this release does not have.
pub fn open_store(spec: &StoreSpec) -> Result<Arc<dyn ChunkStore>> {
    let mut members = spec.members.iter().map(open_member).collect::<Result<Vec<_>>>()?;
    Ok(match members.len() {
        1 => members.remove(0),
        _ => Arc::new(FailoverGroup::new(members)),
    })
}

/// Opens stores that are asked in order for what the ones before do not have. A single one stays as it is.
///
/// Errors: as [`open_store`].
pub fn open_chain(specs: &[StoreSpec]) -> Result<Arc<dyn ChunkStore>> {
    let mut stores = specs.iter().map(open_store).collect::<Result<Vec<_>>>()?;
    Ok(match stores.len() {
        1 => stores.remove(0),
        _ => Arc::new(StoreChain::new(stores)),
    })
}

fn open_member(member: &MemberSpec) -> Result<Arc<dyn ChunkStore>> {
    let MemberSpec { location, options } = member;
    match location {
        Location::Local(path) => Ok(LocalStore::open(path, options)?.into_shared()),
        Location::Http(http) => Ok(Arc::new(HttpStore::open_sealed(
            http,
            options.form,
            options.http.clone(),
            options.sealing.clone(),
        )?)),
        Location::Ssh(ssh) => Ok(Arc::new(SshStore::open(
            ssh,
            options.ssh.clone(),
            options.sealing.clone(),
        ))),
        Location::S3(s3) => Ok(Arc::new(open_bucket(s3, options)?)),
        Location::Sftp(sftp) => Ok(Arc::new(open_sftp(sftp, options)?)),
        Location::Later(later) => Err(not_yet(location, later)),
    }
}

/// Opens a store whose chunks can be listed and deleted: a folder, a bucket, a folder behind SFTP.
///
/// Errors: as [`open_store`], and [`Error::Refused`] for other kinds.
pub fn open_prunable(member: &MemberSpec) -> Result<Arc<dyn Prune>> {
    match &member.location {
        Location::Local(path) => Ok(LocalStore::open(path, &member.options)?.into_prunable()),
        Location::S3(s3) => Ok(Arc::new(open_bucket(s3, &member.options)?)),
        Location::Sftp(sftp) => Ok(Arc::new(open_sftp(sftp, &member.options)?)),
        location => Err(Error::Refused {
            store: StoreName::new(location.to_string()),
            action: "open",
            source: "chunks of such a store cannot be listed or deleted".into(),
        }),
    }
}

fn open_bucket(location: &S3Location, options: &StoreOptions) -> Result<RemoteStore<Bucket>> {
    let name = StoreName::new(location.to_string());
    let bucket = Bucket::open(location, location.key(), &options.s3, &options.http)
        .map_err(|fault| fault.into_error(&name, "open"))?;
    RemoteStore::new(
        name,
        bucket,
        options.remote(options.http.concurrency, options.http.patience()),
    )
}

fn open_sftp(location: &SshLocation, options: &StoreOptions) -> Result<RemoteStore<Folder>> {
    let folder = Folder::open(
        location,
        location.path(),
        Holds::Chunks {
            read_only: options.read_only,
        },
        SftpOptions {
            sync: options.sftp.sync && options.sync == SyncPolicy::Sync,
            ..options.sftp.clone()
        },
        options.http.clone(),
    );
    RemoteStore::new(
        StoreName::new(location.to_string()),
        folder,
        options.remote(options.http.concurrency, options.http.patience()),
    )
}

impl StoreOptions {
    fn remote(&self, concurrency: usize, patience: Patience) -> RemoteOptions {
        RemoteOptions {
            form: self.form,
            read_only: self.read_only,
            sealing: self.sealing.clone(),
            concurrency,
            patience,
        }
    }
}

/// The answer to a location that a later release opens.
pub(crate) fn not_yet(location: &Location, later: &LaterLocation) -> Error {
    Error::Refused {
        store: StoreName::new(location.to_string()),
        action: "open: not in this release",
        source: later.answer().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_makes_a_group_and_each_member_has_its_own_options() {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("{}|http://u:p@127.0.0.1:9/x", folder.path().display());
        let mut asked = Vec::new();
        let spec = StoreSpec::parse(&text, |member| {
            asked.push(member.to_owned());
            StoreOptions::default()
        })
        .unwrap();
        assert_eq!(asked, text.split('|').collect::<Vec<_>>());
        let store = open_store(&spec).unwrap();
        assert_eq!(
            store.name().to_string(),
            format!("{}|http://127.0.0.1:9/x", folder.path().display())
        );
        let error = StoreSpec::parse("a||b", |_| StoreOptions::default()).unwrap_err();
        assert_eq!(error, LocationError::Empty);
    }

    #[test]
    fn stores_of_later_releases_say_so() {
        let location = Location::parse("gs://bucket?key=secret").unwrap();
        let error = open_store(&StoreSpec::single(location, StoreOptions::default())).unwrap_err();
        let source = std::error::Error::source(&error).unwrap();
        assert_eq!(
            format!("{error}: {source}"),
            "gs://bucket refused to open: not in this release: Google Cloud Storage comes with the store engine (release 0.3)"
        );
    }
}
