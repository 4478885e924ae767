//! Whose requests are sent: nobody's, those of a token, of a file as Google's tools write them, or of the machine.
//!
//! `object_store` reads the files and makes or renews their tokens. The machine's token is asked for here: of whom, the caller's
//! environment says, which this crate does not read.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use object_store::CredentialProvider;
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder};
use reqwest::header::HeaderValue;
use tokio::sync::Mutex;

use super::super::service::{Connector, short_text};
use super::{GsOptions, TOKEN_LEFT_MIN};

/// Where a machine of Google's tells its tokens.
const MACHINE: &str = "http://metadata.google.internal";
/// Where the firmware names the maker of a virtual machine.
const MAKER: &str = "/sys/devices/virtual/dmi/id/sys_vendor";
/// Where the machine is asked.
const TOKEN_PATH: &str = "/computeMetadata/v1/instance/service-accounts/default/token";

/// Whose requests are sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum GsCredentials {
    /// Nobody's: requests carry no token, which public buckets and emulators allow.
    #[default]
    None,
    /// Whoever's this access token is, for as long as it is good.
    Token(GsToken),
    /// Those of a service account or a user, in a file as Google's tools write them.
    File {
        /// The file.
        file: PathBuf,
        /// Somebody named it: it is used also with servers that are not Google's.
        anywhere: bool,
    },
    /// The machine's own service account.
    Machine {
        /// `http://host[:port]` where it tells.
        url: String,
    },
}

/// An access token, which `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct GsToken(pub String);

impl fmt::Debug for GsToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GsToken(…)")
    }
}

/// What a configuration says of buckets, as far as it says anything.
#[derive(Clone, Debug, Default)]
pub struct GsConfigured {
    /// A file of credentials.
    pub file: Option<PathBuf>,
    /// `http[s]://host[:port]` of the server.
    pub endpoint: Option<String>,
}

impl GsOptions {
    /// The usual chain: a token in the environment, the file that it names, that of the configuration, the one that `gcloud`
    /// writes, the machine's account; else nobody's. Where the environment names an emulator, nobody's. Nothing is asked yet.
    ///
    /// - `environment`: the value of a variable; empty ones count as unset.
    pub fn from_chain(configured: &GsConfigured, environment: &dyn Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| environment(name).filter(|value| !value.is_empty());
        let with_scheme = |host: String| match host.contains("://") {
            true => host,
            false => format!("http://{host}"),
        };
        if configured.endpoint.is_none()
            && let Some(emulator) = set("STORAGE_EMULATOR_HOST")
        {
            return Self {
                credentials: GsCredentials::None,
                endpoint: Some(with_scheme(emulator)),
            };
        }
        let named = |file: PathBuf| GsCredentials::File { file, anywhere: true };
        let in_environment = set("CLOUDSDK_AUTH_ACCESS_TOKEN").map(|token| GsCredentials::Token(GsToken(token)));
        let standard = || {
            let folder = set("CLOUDSDK_CONFIG").map(PathBuf::from);
            let folder = folder.or_else(|| set("HOME").map(|home| Path::new(&home).join(".config/gcloud")))?;
            let file = folder.join("application_default_credentials.json");
            let anywhere = false;
            file.exists().then_some(GsCredentials::File { file, anywhere })
        };
        let machine = || {
            if set("NO_GCE_CHECK").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
                return None;
            }
            let host = set("GCE_METADATA_HOST").map(with_scheme);
            let url = host.or_else(|| is_made_by_google(Path::new(MAKER)).then(|| MACHINE.to_owned()))?;
            Some(GsCredentials::Machine { url })
        };
        Self {
            credentials: in_environment
                .or_else(|| set("GOOGLE_APPLICATION_CREDENTIALS").map(PathBuf::from).map(named))
                .or_else(|| configured.file.clone().map(named))
                .or_else(standard)
                .or_else(machine)
                .unwrap_or_default(),
            endpoint: configured.endpoint.clone(),
        }
    }
}

impl GsCredentials {
    /// Whether they are used with a server: what nobody named is for Google's own.
    pub(super) fn fits(&self, is_google: bool) -> bool {
        match self {
            Self::None | Self::Token(_) => true,
            Self::File { anywhere, .. } => *anywhere || is_google,
            Self::Machine { .. } => is_google,
        }
    }

    /// The place beside this machine that is asked for tokens.
    pub(super) fn metadata_url(&self) -> Option<&str> {
        match self {
            Self::Machine { url } => Some(url),
            _ => None,
        }
    }

    pub(super) fn apply(&self, builder: GoogleCloudStorageBuilder, connector: &Connector) -> GoogleCloudStorageBuilder {
        match self {
            Self::None => {
                // An empty one, or a file and the machine would be looked for; it is taken off before it is sent.
                builder.with_credentials(Fixed::provider("")).with_skip_signature(true)
            }
            Self::Token(token) => builder.with_credentials(Fixed::provider(&token.0)),
            Self::File { file, .. } => builder.with_application_credentials(file.display().to_string()),
            Self::Machine { url } => builder.with_credentials(Arc::new(Machine {
                url: format!("{}{TOKEN_PATH}", url.trim_end_matches('/')),
                client: connector.client(),
                last: Mutex::new(None),
            })),
        }
    }
}

fn is_made_by_google(maker: &Path) -> bool {
    std::fs::read_to_string(maker).is_ok_and(|maker| maker.trim() == "Google")
}

/// A token that stays. `Debug` does not show it.
struct Fixed(Arc<GcpCredential>);

impl Fixed {
    fn provider(bearer: &str) -> Arc<Self> {
        let bearer = bearer.to_owned();
        Arc::new(Self(Arc::new(GcpCredential { bearer })))
    }
}

impl fmt::Debug for Fixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fixed(…)")
    }
}

#[async_trait::async_trait]
impl CredentialProvider for Fixed {
    type Credential = GcpCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<GcpCredential>> {
        Ok(self.0.clone())
    }
}

/// The machine's account. One question at a time; its answer serves until the token is about to end.
struct Machine {
    url: String,
    client: HttpClient,
    last: Mutex<Option<(Instant, Arc<GcpCredential>)>>,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Machine({})", self.url)
    }
}

/// What is no token, although the machine answered.
#[derive(Debug, thiserror::Error)]
#[error("{url} gave no token")]
struct NoToken {
    url: String,
}

#[async_trait::async_trait]
impl CredentialProvider for Machine {
    type Credential = GcpCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<GcpCredential>> {
        let failed =
            |source: Box<dyn std::error::Error + Send + Sync>| object_store::Error::Generic { store: "GCS", source };
        let mut last = self.last.lock().await;
        if let Some((until, credential)) = &*last
            && *until > Instant::now() + TOKEN_LEFT_MIN
        {
            return Ok(credential.clone());
        }
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() = self.url.parse().map_err(|error| failed(Box::new(error)))?;
        request
            .headers_mut()
            .insert("metadata-flavor", HeaderValue::from_static("Google"));
        let answer = self
            .client
            .execute(request)
            .await
            .map_err(|error| failed(error.into()))?;
        let text = short_text(answer.into_body()).await;
        let fields: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let (Some(bearer), Some(seconds)) = (fields["access_token"].as_str(), fields["expires_in"].as_u64()) else {
            let url = self.url.clone();
            return Err(failed(Box::new(NoToken { url })));
        };
        let until = Instant::now() + Duration::from_secs(seconds.min(SECONDS_MAX));
        let bearer = bearer.to_owned();
        let credential = Arc::new(GcpCredential { bearer });
        *last = Some((until, credential.clone()));
        Ok(credential)
    }
}

/// Longest life of a token that is believed in; Google's are good for an hour, at most twelve.
const SECONDS_MAX: u64 = 12 * 60 * 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_takes_the_first_that_is_there() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join(".config/gcloud")).unwrap();
        let standard = home.path().join(".config/gcloud/application_default_credentials.json");
        std::fs::write(&standard, "{}").unwrap();
        let found = |configured: &GsConfigured, set: &[(&str, &str)]| {
            let options = GsOptions::from_chain(configured, &|name| {
                let value = set.iter().find(|(known, _)| *known == name);
                value.map(|(_, value)| (*value).to_owned())
            });
            let who = match options.credentials {
                GsCredentials::None => "nobody".to_owned(),
                GsCredentials::Token(token) => token.0,
                GsCredentials::File { file, anywhere: true } => file.display().to_string(),
                GsCredentials::File { file, .. } if file == standard => "standard".to_owned(),
                GsCredentials::File { file, .. } => format!("{}?", file.display()),
                GsCredentials::Machine { url } => url,
            };
            format!("{who} {}", options.endpoint.unwrap_or_default())
        };
        let home = ("HOME", home.path().to_str().unwrap());
        let nothing = GsConfigured::default();
        let configured = GsConfigured {
            file: Some("/c".into()),
            endpoint: Some("https://e".to_owned()),
        };
        let file = ("GOOGLE_APPLICATION_CREDENTIALS", "/f");
        let token = ("CLOUDSDK_AUTH_ACCESS_TOKEN", "t");
        let machine = ("GCE_METADATA_HOST", "127.0.0.1:1");
        let emulator = ("STORAGE_EMULATOR_HOST", "localhost:4443");
        assert_eq!(found(&nothing, &[]), "nobody ");
        assert_eq!(found(&nothing, &[machine]), "http://127.0.0.1:1 ");
        assert_eq!(found(&nothing, &[machine, ("NO_GCE_CHECK", "true")]), "nobody ");
        assert_eq!(found(&nothing, &[machine, home]), "standard ");
        assert_eq!(
            found(&nothing, &[machine, home, ("CLOUDSDK_CONFIG", "/none")]),
            "http://127.0.0.1:1 "
        );
        assert_eq!(found(&configured, &[home]), "/c https://e");
        assert_eq!(found(&configured, &[home, file]), "/f https://e");
        assert_eq!(found(&nothing, &[home, file, token]), "t ");
        assert_eq!(found(&nothing, &[file, ("CLOUDSDK_AUTH_ACCESS_TOKEN", "")]), "/f ");
        // An emulator knows nobody, and no token is to be seen by it.
        assert_eq!(
            found(&nothing, &[file, token, emulator]),
            "nobody http://localhost:4443"
        );
        assert_eq!(found(&configured, &[emulator]), "/c https://e");
    }

    #[test]
    fn a_machine_of_another_maker_is_not_asked() {
        let folder = tempfile::tempdir().unwrap();
        let maker = folder.path().join("sys_vendor");
        assert!(!is_made_by_google(&maker));
        std::fs::write(&maker, "Amazon EC2\n").unwrap();
        assert!(!is_made_by_google(&maker));
        std::fs::write(&maker, "Google\n").unwrap();
        assert!(is_made_by_google(&maker));
    }
}
