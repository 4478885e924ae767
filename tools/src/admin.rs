//! A caller of `cairnd`'s admin API: one request at a time, its answer a document or a failure in the server's own words.
//!
//! Not here: what is asked (`verbs/admin.rs`). Source of shapes and codes: `docs/admin.md`.

use std::time::Duration;

use reqwest::{Client, Method, Url};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::cli::Reaching;
use crate::context::Context;
use crate::failure::{Failure, Outcome, chain};

/// Where a server listens that was told nothing.
const URL_DEFAULT: &str = "http://127.0.0.1:8001";
/// Holds the token itself.
const TOKEN_VARIABLE: &str = "CAIRN_ADMIN_TOKEN";
/// Names a file that holds it.
const TOKEN_FILE_VARIABLE: &str = "CAIRN_ADMIN_TOKEN_FILE";
/// A restore or a comparison of a large object takes its time.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(600);

/// Parameters of a request.
pub(crate) type Parameters<'a> = [(&'a str, &'a str)];

/// A caller.
pub(crate) struct Caller {
    base: Url,
    token: String,
    client: Client,
    runtime: Runtime,
}

impl Caller {
    /// A caller of the server that arguments, variables and configuration name.
    pub(crate) fn new(context: &Context, reaching: &Reaching) -> Outcome<Self> {
        let configured = context.config.admin.as_ref();
        let url = reaching.admin_url.as_deref();
        let url = url.or(configured.and_then(|admin| admin.url.as_deref()));
        let url = url.unwrap_or(URL_DEFAULT);
        let base = Url::parse(url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| Failure::usage(format!("{url}: not the URL of a server, as {URL_DEFAULT}")))?;
        // One that somebody has chosen is kept.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().timeout(ANSWER_TIME_MAX).build();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self {
            base,
            token: token(context, reaching)?,
            client: client.map_err(|error| Failure::new(chain(&error)))?,
            runtime: runtime.map_err(|error| Failure::new(format!("cannot start: {error}")))?,
        })
    }

    /// Asks. An answer without a body is `null`.
    ///
    /// - `path`: its places below `/api/v1`, each as it is named, whatever it holds.
    pub(crate) fn ask(
        &self,
        method: Method,
        path: &[&str],
        parameters: &Parameters<'_>,
        body: Option<&Value>,
    ) -> Outcome<Value> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        let said = parameters.iter().filter(|(_, value)| !value.is_empty());
        url.query_pairs_mut().extend_pairs(said);
        let mut request = self.client.request(method, url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let answered = self.runtime.block_on(async {
            let answer = request.send().await?;
            Ok::<_, reqwest::Error>((answer.status(), answer.bytes().await?))
        });
        let (status, bytes) = answered.map_err(|error| {
            let failure = Failure::new(chain(&error.without_url()));
            Failure {
                message: format!("{}: {}", self.base, failure.message),
                ..failure.try_this("is cairnd running there? --admin-url names another address")
            }
        })?;
        let document: Value = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes)
                .map_err(|_| Failure::new(format!("{}: answered {status} with no JSON", self.base)))?
        };
        if status.is_success() {
            return Ok(document);
        }
        Err(refusal(&document, status.as_u16()))
    }

    /// Hands over all entries of a listing, page by page.
    ///
    /// - `name`: the member that holds them.
    pub(crate) fn list(
        &self,
        path: &[&str],
        name: &str,
        parameters: &Parameters<'_>,
        mut take: impl FnMut(&Value) -> Outcome,
    ) -> Outcome {
        let mut cursor = String::new();
        loop {
            let mut parameters = parameters.to_vec();
            parameters.extend([("limit", "200"), ("cursor", cursor.as_str())]);
            let page = self.ask(Method::GET, path, &parameters, None)?;
            for entry in page[name].as_array().into_iter().flatten() {
                take(entry)?;
            }
            match page["next_cursor"].as_str() {
                None => return Ok(()),
                Some(next) => cursor = next.to_owned(),
            }
        }
    }
}

/// What a server has refused, in its own words.
fn refusal(document: &Value, status: u16) -> Failure {
    let message = document["message"].as_str().unwrap_or("no word of why");
    let fields = document["field_errors"].as_array().into_iter().flatten();
    let fields: Vec<String> = fields
        .map(|field| {
            let word = |name: &str| field[name].as_str().unwrap_or_default().to_owned();
            format!("{}: {}", word("field"), word("message"))
        })
        .collect();
    let mut words = format!("the server answered {status}: {message}");
    if !fields.is_empty() {
        words = format!("the server answered {status}: {}", fields.join("; "));
    }
    let failure = Failure::new(words);
    match status {
        401 => failure.try_this("--token-file names the file, DATA/admin-token of the server"),
        _ => failure,
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
