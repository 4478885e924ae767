//! From locations and options to stores.

use std::num::NonZeroUsize;
use std::sync::Arc;

use cairn_formats::{ChunkForm, DigestAlgorithm};

use crate::backend::bucket::gs::GsOptions;
use crate::backend::bucket::s3::S3Options;
use crate::backend::remote::packs::RemotePackOptions;
use crate::backend::sftp::SftpOptions;
use crate::location::{LaterLocation, Location, LocationError};
use crate::remote::{open_bucket, open_sftp};
use crate::{Behind, ChunkStore, Error, FailoverGroup, HttpOptions, HttpStore, LocalStore, MirrorOptions, MirrorStore};
use crate::{Prune, Result, Sealing, SshOptions, SshStore, StoreChain, StoreName, Suspect, SyncPolicy};

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
    /// Hears of members of a mirror that fall behind, and of their catching up.
    pub on_behind: fn(&StoreName, &Behind),
    /// How packs in a bucket or behind SFTP are written and kept at hand.
    pub packs: RemotePackOptions,
    /// How a server is talked to, that of a bucket too.
    pub http: HttpOptions,
    /// How a bucket of S3 is opened.
    pub s3: S3Options,
    /// How a bucket of Google Cloud Storage is opened.
    pub gs: GsOptions,
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
            on_behind: |_, _| {},
            packs: RemotePackOptions::default(),
            http: HttpOptions::default(),
            s3: S3Options::default(),
            gs: GsOptions::default(),
            ssh: SshOptions::default(),
            sftp: SftpOptions::default(),
        }
    }
}

/// One store as people write it: a location, or several that are used together (`a|b`, `mirror:a|b`).
#[derive(Clone, Debug)]
pub struct StoreSpec {
    /// The members, at least one, in the order in which they are tried.
    pub members: Vec<MemberSpec>,
    /// What they are to one another, if there are several.
    pub together: Together,
}

/// What several stores are to one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Together {
    /// Copies of one store, of which any that works is read; none is written (`a|b`).
    Failover,
    /// All are written, the nearest is read (`mirror:a|b`).
    Mirror {
        /// How many must have everything (`mirror-N:`); `None` for all.
        quorum: Option<NonZeroUsize>,
    },
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
    /// Reads a location or several of them, divided by `|`.
    ///
    /// - `options_for`: the options of one member, from its text as written (which may hold secrets).
    pub fn parse(
        text: &str,
        mut options_for: impl FnMut(&str) -> StoreOptions,
    ) -> std::result::Result<Self, LocationError> {
        let mirror = mirror_prefix(text);
        let locations = mirror.map_or(text, |(_, locations)| locations);
        let members = locations.split('|').map(|member| {
            Ok(MemberSpec {
                location: Location::parse(member)?,
                options: options_for(member),
            })
        });
        let members = members.collect::<std::result::Result<Vec<_>, LocationError>>()?;
        let Some((count, _)) = mirror else {
            let together = Together::Failover;
            return Ok(Self { members, together });
        };
        if members.len() < 2 || count.is_some_and(|count| !(1..=members.len()).contains(&count)) {
            let text = text[..text.len() - locations.len()].to_owned();
            return Err(LocationError::BadMirror { text });
        }
        let together = Together::Mirror {
            quorum: count.and_then(NonZeroUsize::new),
        };
        Ok(Self { members, together })
    }

    /// A single location.
    pub fn single(location: Location, options: StoreOptions) -> Self {
        Self {
            members: vec![MemberSpec { location, options }],
            together: Together::Failover,
        }
    }

    fn mirror_options(&self, quorum: Option<NonZeroUsize>) -> MirrorOptions {
        let first = self.members.first();
        MirrorOptions {
            quorum,
            // HTTP stores do not look at it themselves.
            writable: !self.members.iter().any(|member| member.options.read_only),
            on_behind: first.map_or(|_, _| {}, |member| member.options.on_behind),
            ..MirrorOptions::default()
        }
    }
}

/// How many members of a mirror must have everything, and what follows `mirror:` or `mirror-N:`. Other texts, URLs among them,
/// name no mirror.
fn mirror_prefix(text: &str) -> Option<(Option<usize>, &str)> {
    let (head, locations) = text.split_once(':')?;
    let quorum = match head.strip_prefix("mirror")? {
        "" => None,
        count => Some(count.strip_prefix('-')?.parse().ok()?),
    };
    (!locations.starts_with("//")).then_some((quorum, locations))
}

/// Opens a store, a failover group or a mirror. Servers are not asked for anything yet; folders must exist.
///
/// Errors: [`Error::Refused`] for a folder that cannot be read, a certificate that cannot be used, or a kind of store that
/// this release does not have.
pub fn open_store(spec: &StoreSpec) -> Result<Arc<dyn ChunkStore>> {
    let mut members = spec.members.iter().map(open_member).collect::<Result<Vec<_>>>()?;
    Ok(match (spec.together, members.len()) {
        (_, 1) => members.remove(0),
        (Together::Failover, _) => Arc::new(FailoverGroup::new(members)),
        (Together::Mirror { quorum }, _) => Arc::new(MirrorStore::new(members, spec.mirror_options(quorum))),
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
        Location::S3(_) | Location::Gs(_) => Ok(Arc::new(open_bucket(location, options)?)),
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
        location @ (Location::S3(_) | Location::Gs(_)) => Ok(Arc::new(open_bucket(location, &member.options)?)),
        Location::Sftp(sftp) => Ok(Arc::new(open_sftp(sftp, &member.options)?)),
        location => Err(Error::Refused {
            store: StoreName::new(location.to_string()),
            action: "open",
            source: "chunks of such a store cannot be listed or deleted".into(),
        }),
    }
}

/// As [`open_prunable`], mirrors too.
///
/// Errors: [`Error::Refused`] for a failover group: changing one member would make them differ.
pub fn open_prunable_spec(spec: &StoreSpec) -> Result<Arc<dyn Prune>> {
    let mut members = spec.members.iter();
    match (spec.together, members.len()) {
        (Together::Mirror { quorum }, _) => {
            let members = members.map(open_prunable).collect::<Result<Vec<_>>>()?;
            Ok(Arc::new(MirrorStore::new(members, spec.mirror_options(quorum))))
        }
        (Together::Failover, 1) => members.next().map(open_prunable).expect("there is one"),
        (Together::Failover, _) => {
            let names: Vec<String> = members.map(|member| member.location.to_string()).collect();
            Err(Error::Refused {
                store: StoreName::new(names.join("|")),
                action: "open",
                source: "stores that stand in for each other are only read: name one of them".into(),
            })
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
    fn a_mirror_has_a_prefix_and_at_least_two_members() {
        let parse = |text: &str| StoreSpec::parse(text, |_| StoreOptions::default());
        let count = |text: &str| {
            let spec = parse(text).unwrap();
            let members = spec.members.iter().map(|member| member.location.to_string());
            (spec.together, members.collect::<Vec<_>>().join(" "))
        };
        let mirror = |quorum| Together::Mirror {
            quorum: NonZeroUsize::new(quorum),
        };
        assert_eq!(count("mirror:a|http://h/b"), (mirror(0), "a http://h/b".to_owned()));
        assert_eq!(count("mirror-1:a|b|c"), (mirror(1), "a b c".to_owned()));
        // Files and URLs as ever.
        for path in ["./mirror:a", "mirrors:a", "mirror-x:a", "mirror"] {
            assert_eq!(count(path), (Together::Failover, path.to_owned()));
        }
        assert!(matches!(
            parse("mirror://h/a"),
            Err(LocationError::UnknownScheme { .. })
        ));
        for text in ["mirror:a", "mirror-3:a|b", "mirror-0:a|b"] {
            let error = parse(text).unwrap_err();
            assert!(error.to_string().contains("`mirror:a|b`"), "{error}");
        }
        assert_eq!(parse("mirror:a|").unwrap_err(), LocationError::Empty);
    }

    #[test]
    fn stores_of_later_releases_say_so() {
        let location = Location::parse("oci+https://host/r?key=secret").unwrap();
        let error = open_store(&StoreSpec::single(location, StoreOptions::default())).unwrap_err();
        let source = std::error::Error::source(&error).unwrap();
        assert_eq!(
            format!("{error}: {source}"),
            "oci+https://host/r refused to open: not in this release: registries as stores are not in a planned release yet"
        );
    }
}
