//! Tokens of services: who may read and write buckets as chunk and index roots without an access key.

use cairn_gateway::faces::ServiceToken;
use cairn_index::Tenant;
use cairn_index::names::{BucketName, Owner};
use cairn_roots::Token;
use serde::{Deserialize, Serialize};

use super::{ConfigError, Secret};

/// A token has at least so many characters.
const TOKEN_LEN_LEAST: usize = 16;
/// Whose the first access key is.
pub(crate) const FIRST_OWNER: &str = "admin";

/// A token that opens buckets at `/store/{bucket}/` and `/index/{bucket}/`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BucketToken {
    /// What is shown: as bearer token, as whole `Authorization` value, or as password of Basic. Needed.
    pub(crate) token: Option<Secret>,
    /// In whose tenant it is. Default `default`.
    pub(crate) tenant: String,
    /// Whom it speaks for: it opens buckets of this owner. Default `admin`, whose the first access key is.
    pub(crate) owner: String,
    /// The buckets that it opens. Reading chunks is reading by name any chunk of the bucket's dedup domain. Default: all of the owner's.
    pub(crate) buckets: Vec<String>,
    /// It writes too. Default `false`.
    pub(crate) writable: bool,
    /// It writes results of actions at the gRPC door: what it says there others take for what their commands would make. Default `false`.
    pub(crate) action_cache: bool,
}

impl Default for BucketToken {
    fn default() -> Self {
        Self {
            token: None,
            tenant: Tenant::default().as_str().to_owned(),
            owner: FIRST_OWNER.to_owned(),
            buckets: Vec::new(),
            writable: false,
            action_cache: false,
        }
    }
}

impl BucketToken {
    pub(super) fn check(&self, name: &str) -> Result<(), ConfigError> {
        let wrong = |field: &str, rule: String| ConfigError::Value {
            name: format!("tokens.{name}.{field}"),
            rule,
        };
        let is_long = |token: &Secret| token.0.len() >= TOKEN_LEN_LEAST;
        if !self.token.as_ref().is_some_and(is_long) {
            let rule = format!("give it, {TOKEN_LEN_LEAST} characters or more: less can be guessed");
            return Err(wrong("token", rule));
        }
        Tenant::new(&self.tenant).map_err(|error| wrong("tenant", error.to_string()))?;
        Owner::new(&self.owner).map_err(|error| wrong("owner", error.to_string()))?;
        for bucket in &self.buckets {
            BucketName::new(bucket).map_err(|error| wrong("buckets", error.to_string()))?;
        }
        Ok(())
    }

    /// As the doors take it. `None`: it was not checked.
    pub(crate) fn service(&self) -> Option<ServiceToken> {
        Some(ServiceToken {
            secret: Token::new(&self.token.as_ref()?.0),
            tenant: Tenant::new(&self.tenant).ok()?,
            owner: Owner::new(&self.owner).ok()?,
            buckets: self.buckets.clone(),
            writable: self.writable,
            action_cache: self.action_cache,
        })
    }
}
