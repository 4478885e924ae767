//! Whose requests are sent: nobody's, those of two keys, of a profile in Amazon's credentials file, or of a role (`roles.rs`).

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use object_store::CredentialProvider;
use object_store::aws::{AmazonS3Builder, AwsCredential};
use tokio::sync::Mutex;

use super::S3Options;
use super::roles::{S3Role, S3RoleSource};

/// How long keys from a file are used before it is read again (desync's value): programs renew session tokens there.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Whose requests are sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum S3Credentials {
    /// Nobody's: requests are not signed, which public buckets allow.
    #[default]
    None,
    /// The owner's of these keys.
    Keys(S3Keys),
    /// Those of a profile in a file of Amazon's form, read again every minute.
    Profile {
        /// The file, usually `~/.aws/credentials`.
        file: PathBuf,
        /// What stands between `[` and `]`.
        profile: String,
    },
    /// Those of the role that the program runs in.
    Role(S3Role),
}

impl S3Credentials {
    /// - `host`: whom the requests are sent to.
    pub(super) fn apply(&self, builder: AmazonS3Builder, host: &str) -> Result<AmazonS3Builder, String> {
        Ok(match self {
            Self::None => builder.with_skip_signature(true),
            Self::Keys(keys) => {
                let builder = builder
                    .with_access_key_id(&keys.access_key)
                    .with_secret_access_key(&keys.secret_key);
                match &keys.session_token {
                    Some(token) => builder.with_token(token),
                    None => builder,
                }
            }
            Self::Profile { file, profile } => {
                builder.with_credentials(Arc::new(Profile::new(file.clone(), profile.clone())))
            }
            Self::Role(role) if role.fits(host) => role.apply(builder)?,
            Self::Role(_) => builder.with_skip_signature(true),
        })
    }

    /// The place beside this machine that is asked for keys.
    pub(super) fn metadata_url(&self) -> Option<&str> {
        match self {
            Self::Role(role) => role.metadata_url(),
            _ => None,
        }
    }

    /// Whether requests to a host are signed.
    pub(super) fn sign_for(&self, host: &str) -> bool {
        match self {
            Self::None => false,
            Self::Keys(_) | Self::Profile { .. } => true,
            Self::Role(role) => role.fits(host),
        }
    }
}

/// A pair of keys. `Debug` does not show the secret ones.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Keys {
    /// Names the account; no secret.
    pub access_key: String,
    /// Signs.
    pub secret_key: String,
    /// Goes with keys that end after some hours.
    pub session_token: Option<String>,
}

impl fmt::Debug for S3Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S3Keys({}, …)", self.access_key)
    }
}

/// What a configuration file says of a server's credentials, as far as it says anything.
#[derive(Clone, Debug, Default)]
pub struct S3Configured {
    /// Both keys.
    pub keys: Option<S3Keys>,
    /// A credentials file of Amazon's form.
    pub file: Option<PathBuf>,
    /// A profile in it.
    pub profile: Option<String>,
    /// The region of its buckets.
    pub region: Option<String>,
    /// Use the role's keys with it, although it is not Amazon's.
    pub role: bool,
}

impl S3Options {
    /// The usual chain: `S3_*` keys of the environment, `AWS_*` ones, those of the configuration, the identity of a pod or job,
    /// a profile of Amazon's credentials file (named, or `default`), the role of the container or the machine; else nobody's.
    /// As in desync, the environment goes before the configuration. Nothing is asked yet.
    ///
    /// - `environment`: the value of a variable; empty ones count as unset.
    pub fn from_chain(configured: &S3Configured, environment: &dyn Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| environment(name).filter(|value| !value.is_empty());
        let keys = |access: &str, secret: &str, token: &str| {
            Some(S3Credentials::Keys(S3Keys {
                access_key: set(access)?,
                secret_key: set(secret)?,
                session_token: set(token),
            }))
        };
        let in_environment = keys("S3_ACCESS_KEY", "S3_SECRET_KEY", "S3_SESSION_TOKEN")
            .or_else(|| keys("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"));
        let in_file = || {
            let profile = configured.profile.clone().or_else(|| set("AWS_PROFILE"));
            let named = configured
                .file
                .clone()
                .or_else(|| set("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from));
            if profile.is_some() || named.is_some() {
                let file = named.or_else(|| standard_file(&set))?;
                let profile = profile.unwrap_or_else(|| PROFILE.to_owned());
                return Some(S3Credentials::Profile { file, profile });
            }
            // Nobody asked for it: a file that says nothing is no error.
            let file = standard_file(&set)?;
            let text = std::fs::read_to_string(&file).ok()?;
            profile_in(&text, PROFILE)?;
            let profile = PROFILE.to_owned();
            Some(S3Credentials::Profile { file, profile })
        };
        let configured_keys = || configured.keys.clone().map(S3Credentials::Keys);
        let anywhere = configured.role;
        let role = |source| S3Credentials::Role(S3Role { source, anywhere });
        Self {
            credentials: in_environment
                .or_else(configured_keys)
                .or_else(|| S3RoleSource::of_identity(&set).map(role))
                .or_else(in_file)
                .or_else(|| S3RoleSource::of_place(&set).map(role))
                .unwrap_or_default(),
            region: set("S3_REGION")
                .or_else(|| configured.region.clone())
                .or_else(|| set("AWS_REGION"))
                .or_else(|| set("AWS_DEFAULT_REGION")),
        }
    }
}

/// The profile that is meant where none is named.
const PROFILE: &str = "default";

fn standard_file(set: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    Some(PathBuf::from(set("HOME")?).join(".aws/credentials"))
}

/// Reads a profile whenever it is asked and the last time is too long ago.
#[derive(Debug)]
pub(super) struct Profile {
    file: PathBuf,
    profile: String,
    last: Mutex<Option<(Instant, Arc<AwsCredential>)>>,
}

/// Why there are no credentials; `object_store` carries it on.
#[derive(Debug, thiserror::Error)]
enum ProfileError {
    #[error("cannot read {}", file.display())]
    Read { file: PathBuf, source: std::io::Error },
    #[error("{}: no profile [{profile}] with aws_access_key_id and aws_secret_access_key", file.display())]
    Incomplete { file: PathBuf, profile: String },
}

impl Profile {
    pub(super) fn new(file: PathBuf, profile: String) -> Self {
        Self {
            file,
            profile,
            last: Mutex::new(None),
        }
    }

    fn read(&self) -> Result<AwsCredential, ProfileError> {
        let text = std::fs::read_to_string(&self.file).map_err(|source| ProfileError::Read {
            file: self.file.clone(),
            source,
        })?;
        profile_in(&text, &self.profile).ok_or_else(|| ProfileError::Incomplete {
            file: self.file.clone(),
            profile: self.profile.clone(),
        })
    }
}

#[async_trait::async_trait]
impl CredentialProvider for Profile {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut last = self.last.lock().await;
        if let Some((read_at, credential)) = &*last
            && read_at.elapsed() < READ_AGAIN_AFTER
        {
            return Ok(credential.clone());
        }
        let credential = self.read().map_err(|error| object_store::Error::Generic {
            store: "S3",
            source: error.into(),
        })?;
        let credential = Arc::new(credential);
        *last = Some((Instant::now(), credential.clone()));
        Ok(credential)
    }
}

/// The keys of one profile of a credentials file.
fn profile_in(text: &str, profile: &str) -> Option<AwsCredential> {
    let mut here = false;
    let (mut key_id, mut secret_key, mut token) = (None, None, None);
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            here = name.trim() == profile;
        } else if let Some((name, value)) = line.split_once('=').filter(|_| here) {
            let value = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
            match name.trim() {
                "aws_access_key_id" => key_id = value,
                "aws_secret_access_key" => secret_key = value,
                "aws_session_token" => token = value,
                _ => {}
            }
        }
    }
    Some(AwsCredential {
        key_id: key_id?,
        secret_key: secret_key?,
        token,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_takes_the_first_that_is_whole() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        let file = home.path().join(".aws/credentials");
        std::fs::write(&file, "[default]\naws_access_key_id=f\naws_secret_access_key=g\n").unwrap();
        let keys = |access: &str| S3Keys {
            access_key: access.to_owned(),
            secret_key: "secret".to_owned(),
            session_token: None,
        };
        let found = |configured: &S3Configured, set: &[(&str, &str)]| {
            let options = S3Options::from_chain(configured, &|name| {
                let value = set.iter().find(|(known, _)| *known == name);
                value.map(|(_, value)| (*value).to_owned())
            });
            let who = match options.credentials {
                S3Credentials::None => "nobody".to_owned(),
                S3Credentials::Keys(keys) => keys.access_key,
                S3Credentials::Profile { profile, .. } => format!("[{profile}]"),
                S3Credentials::Role(S3Role {
                    source: S3RoleSource::WebIdentity { role, .. },
                    ..
                }) => role,
                S3Credentials::Role(_) => "the machine".to_owned(),
            };
            format!("{who} {}", options.region.unwrap_or_default())
        };
        let home = ("HOME", home.path().to_str().unwrap());
        let nothing = S3Configured::default();
        let configured = S3Configured {
            keys: Some(keys("c")),
            region: Some("cr".to_owned()),
            ..S3Configured::default()
        };
        let aws = [
            ("AWS_ACCESS_KEY_ID", "a"),
            ("AWS_SECRET_ACCESS_KEY", "x"),
            ("AWS_REGION", "ar"),
        ];
        assert_eq!(found(&nothing, &[]), "nobody ");
        assert_eq!(found(&nothing, &[home]), "[default] ");
        assert_eq!(found(&nothing, &[home, ("AWS_PROFILE", "p")]), "[p] ");
        assert_eq!(found(&configured, &[home]), "c cr");
        assert_eq!(found(&configured, &aws), "a cr");
        assert_eq!(found(&nothing, &aws), "a ar");
        // An identity is given on purpose, a machine has its role anyway.
        let identity = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"), ("AWS_ROLE_ARN", "arn")];
        let machine = ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1");
        assert_eq!(found(&nothing, &[home, machine, identity[0], identity[1]]), "arn ");
        assert_eq!(found(&nothing, &[home, machine]), "[default] ");
        assert_eq!(found(&nothing, &[machine]), "the machine ");
        let ours = [
            aws[0],
            aws[1],
            ("S3_ACCESS_KEY", "s"),
            ("S3_SECRET_KEY", "x"),
            ("S3_REGION", "sr"),
        ];
        assert_eq!(found(&configured, &ours), "s sr");
        assert_eq!(
            found(&nothing, &[("S3_ACCESS_KEY", "s"), ("S3_SECRET_KEY", "")]),
            "nobody "
        );
    }

    #[test]
    fn a_profile_is_found_by_name() {
        let text = "# mine\n[default]\naws_access_key_id = a\naws_secret_access_key=b=c\n\n[ other ]\n\
                    aws_access_key_id=d\naws_session_token=t\naws_secret_access_key=e\nregion=x\n[half]\naws_access_key_id=f\n";
        let shown = |profile| {
            profile_in(text, profile).map(|found| format!("{} {} {:?}", found.key_id, found.secret_key, found.token))
        };
        assert_eq!(shown("default").unwrap(), "a b=c None");
        assert_eq!(shown("other").unwrap(), "d e Some(\"t\")");
        assert_eq!(shown("half"), None);
        assert_eq!(shown("none"), None);
    }
}
