//! The admin API of a running server, as verbs ask it: where it is, whose token is shown, and failures with what to try.
//!
//! The requests themselves are `cairn-client`'s. Not here: what is asked (`verbs/admin.rs`).

use cairn_client::{Admin, ClientError};
use serde_json::Value;

use crate::cli::Reaching;
use crate::context::Context;
use crate::failure::{Failure, Outcome, chain};

pub(crate) use cairn_client::{Method, Parameters};

/// Where a server listens that was told nothing.
const URL_DEFAULT: &str = "http://127.0.0.1:8001";
/// Holds the token itself.
const TOKEN_VARIABLE: &str = "CAIRN_ADMIN_TOKEN";
/// Names a file that holds it.
const TOKEN_FILE_VARIABLE: &str = "CAIRN_ADMIN_TOKEN_FILE";

/// A caller.
pub(crate) struct Caller(Admin);

impl Caller {
    /// A caller of the server that arguments, variables and configuration name.
    pub(crate) fn new(context: &Context, reaching: &Reaching) -> Outcome<Self> {
        let configured = context.config.admin.as_ref();
        let url = reaching.admin_url.as_deref();
        let url = url.or(configured.and_then(|admin| admin.url.as_deref()));
        let admin = Admin::new(url.unwrap_or(URL_DEFAULT), token(context, reaching)?)?;
        Ok(Self(admin))
    }

    /// [`Admin::ask`].
    pub(crate) fn ask(
        &self,
        method: Method,
        path: &[&str],
        parameters: &Parameters<'_>,
        body: Option<&Value>,
    ) -> Outcome<Value> {
        Ok(self.0.ask(method, path, parameters, body)?)
    }

    /// [`Admin::list`].
    pub(crate) fn list(
        &self,
        path: &[&str],
        name: &str,
        parameters: &Parameters<'_>,
        take: impl FnMut(&Value) -> Outcome,
    ) -> Outcome {
        self.0.list(path, name, parameters, take)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match &error {
            ClientError::BadUrl { .. } => Self::usage(format!("{error}, as {URL_DEFAULT}")),
            ClientError::Unreachable { server, source } => {
                let failure = Self::new(chain(source));
                Self {
                    message: format!("{server}: {}", failure.message),
                    ..failure.try_this("is cairnd running there? --admin-url names another address")
                }
            }
            ClientError::Refused { status: 401, .. } => {
                Self::new(error.to_string()).try_this("--token-file names the file, DATA/admin-token of the server")
            }
            _ => Self::new(error.to_string()),
        }
    }
}

fn token(context: &Context, reaching: &Reaching) -> Outcome<String> {
    let of_file = |file: &std::path::Path| -> Outcome<String> {
        let text = std::fs::read_to_string(file);
        let text = text.map_err(|error| Failure::io(file.display(), "read the admin token", &error))?;
        Ok(text.trim().to_owned())
    };
    if let Some(file) = &reaching.token_file {
        return of_file(file);
    }
    if let Some(token) = std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty()) {
        return Ok(token);
    }
    if let Some(file) = std::env::var_os(TOKEN_FILE_VARIABLE) {
        return of_file(file.as_ref());
    }
    match context
        .config
        .admin
        .as_ref()
        .and_then(|admin| admin.token_file.as_ref())
    {
        Some(file) => of_file(file),
        None => Err(Failure::usage("no admin token")
            .try_this("name its file with --token-file or CAIRN_ADMIN_TOKEN_FILE: DATA/admin-token of the server")),
    }
}
