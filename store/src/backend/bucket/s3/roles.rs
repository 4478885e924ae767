//! Keys that Amazon gives to a program for where it runs: to a pod or a job by its identity, to a container, to a machine.
//!
//! `object_store` fetches and renews them; here is where they are asked for, and of whom: roles are used with Amazon's own hosts
//! unless the configuration says `aws-role` of a server. Nothing is asked on a machine that is not Amazon's (its firmware says
//! so), and what is asked of the machine itself goes past proxies and has to be answered within two seconds.

use std::path::{Path, PathBuf};

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as Key};

use super::super::is_near;

/// Where a machine tells its role's keys.
const MACHINE: &str = "http://169.254.169.254";
/// Where a container's host does.
const CONTAINER: &str = "http://169.254.170.2";
/// Where the firmware names the maker of a virtual machine.
const MAKER: &str = "/sys/devices/virtual/dmi/id/sys_vendor";

/// A role, and how its keys are had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Role {
    /// Who gives them.
    pub source: S3RoleSource,
    /// Use them also with servers that are not Amazon's.
    pub anywhere: bool,
}

/// Who gives a role's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum S3RoleSource {
    /// Amazon's token service, for a token in a file.
    WebIdentity {
        /// The file, which somebody renews.
        token_file: PathBuf,
        /// The role's name (ARN).
        role: String,
        /// What the session is called.
        session: Option<String>,
        /// The service, if it is not Amazon's of the region.
        service: Option<String>,
    },
    /// The host of an ECS container, at this path.
    Container {
        /// Begins with `/`.
        path: String,
    },
    /// The agent of an EKS pod.
    Pod {
        /// Where it is.
        url: String,
        /// The file with what it wants to see.
        token_file: PathBuf,
    },
    /// The machine (EC2), by version 2 of its protocol.
    Machine {
        /// Where it tells, if it is not the usual place.
        url: Option<String>,
    },
}

impl S3RoleSource {
    /// Reads what Amazon sets in the environment of a pod or job.
    pub(super) fn of_identity(set: &dyn Fn(&str) -> Option<String>) -> Option<Self> {
        Some(Self::WebIdentity {
            token_file: set("AWS_WEB_IDENTITY_TOKEN_FILE")?.into(),
            role: set("AWS_ROLE_ARN")?,
            session: set("AWS_ROLE_SESSION_NAME"),
            service: set("AWS_ENDPOINT_URL_STS"),
        })
    }

    /// Reads what Amazon sets in the environment of a container; else the machine's role, if it is a machine of Amazon's or
    /// somebody says where to ask.
    pub(super) fn of_place(set: &dyn Fn(&str) -> Option<String>) -> Option<Self> {
        if let Some(path) = set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
            return Some(Self::Container { path });
        }
        let pod = |url| {
            let token_file = set("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")?.into();
            Some(Self::Pod { url, token_file })
        };
        if let Some(pod) = set("AWS_CONTAINER_CREDENTIALS_FULL_URI").and_then(pod) {
            return Some(pod);
        }
        if set("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return None;
        }
        let url = set("AWS_EC2_METADATA_SERVICE_ENDPOINT");
        (url.is_some() || is_made_by_amazon(Path::new(MAKER))).then_some(Self::Machine { url })
    }
}

impl S3Role {
    /// Whether it is used with this host.
    pub(super) fn fits(&self, host: &str) -> bool {
        self.anywhere || host.ends_with(".amazonaws.com")
    }

    /// The place on this machine or beside it that is asked, if it is one: without proxies and without patience.
    pub(super) fn metadata_url(&self) -> Option<&str> {
        match &self.source {
            S3RoleSource::WebIdentity { .. } => None,
            S3RoleSource::Container { .. } => Some(CONTAINER),
            S3RoleSource::Pod { url, .. } => Some(url),
            S3RoleSource::Machine { url } => Some(url.as_deref().unwrap_or(MACHINE)),
        }
    }

    /// - Errors: a place that keys must not be asked of.
    pub(super) fn apply(&self, builder: AmazonS3Builder) -> Result<AmazonS3Builder, String> {
        let text = |path: &Path| path.display().to_string();
        Ok(match &self.source {
            S3RoleSource::WebIdentity {
                token_file,
                role,
                session,
                service,
            } => {
                let mut builder = builder
                    .with_config(Key::WebIdentityTokenFile, text(token_file))
                    .with_config(Key::RoleArn, role);
                if let Some(session) = session {
                    builder = builder.with_config(Key::RoleSessionName, session);
                }
                match service {
                    Some(service) => builder.with_config(Key::StsEndpoint, service),
                    None => builder,
                }
            }
            S3RoleSource::Container { path } => builder.with_config(Key::ContainerCredentialsRelativeUri, path),
            S3RoleSource::Pod { url, token_file } => {
                if !is_near(url) {
                    return Err(format!(
                        "{url}: keys are asked of this machine's own addresses or over https alone"
                    ));
                }
                builder
                    .with_config(Key::ContainerCredentialsFullUri, url)
                    .with_config(Key::ContainerAuthorizationTokenFile, text(token_file))
            }
            S3RoleSource::Machine { .. } => {
                let url = self.metadata_url().unwrap_or(MACHINE).trim_end_matches('/');
                builder.with_config(Key::MetadataEndpoint, url)
            }
        })
    }
}

fn is_made_by_amazon(maker: &Path) -> bool {
    std::fs::read_to_string(maker).is_ok_and(|maker| maker.starts_with("Amazon EC2"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(set: &[(&str, &str)]) -> Option<S3RoleSource> {
        S3RoleSource::of_place(&|name| {
            let found = set.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_container_goes_before_the_machine() {
        let relative = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/x");
        let machine = ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1");
        let path = "/v2/x".to_owned();
        assert_eq!(place(&[machine, relative]), Some(S3RoleSource::Container { path }));
        let pod = [
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1"),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/t"),
        ];
        assert!(matches!(place(&pod), Some(S3RoleSource::Pod { .. })));
        assert!(matches!(
            place(&[machine]),
            Some(S3RoleSource::Machine { url: Some(_) })
        ));
        assert_eq!(place(&[machine, ("AWS_EC2_METADATA_DISABLED", "TRUE")]), None);
    }

    #[test]
    fn a_machine_of_another_maker_is_not_asked() {
        let folder = tempfile::tempdir().unwrap();
        let maker = folder.path().join("sys_vendor");
        assert!(!is_made_by_amazon(&maker));
        std::fs::write(&maker, "LENOVO\n").unwrap();
        assert!(!is_made_by_amazon(&maker));
        std::fs::write(&maker, "Amazon EC2\n").unwrap();
        assert!(is_made_by_amazon(&maker));
    }
}
