//! The admin API: requests with their parameters, answers as documents. Source of shapes and codes: `docs/admin.md`.

use std::time::Duration;

pub use reqwest::Method;
use serde_json::Value;

use crate::Server;
use crate::error::{ClientError, FieldError};

/// A restore or a comparison of a large object takes its time.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(600);

/// Parameters of a request; those that are empty are not sent.
pub type Parameters<'a> = [(&'a str, &'a str)];

/// A caller of the admin API.
pub struct Admin {
    server: Server,
    token: String,
}

impl Admin {
    /// A caller of the server whose internal listener is at `url`, who shows this token.
    ///
    /// Errors: [`ClientError::BadUrl`], [`ClientError::Start`].
    pub fn new(url: &str, token: String) -> Result<Self, ClientError> {
        let server = Server::new(url, ANSWER_TIME_MAX)?;
        Ok(Self { server, token })
    }

    /// Asks. An answer without a body is `null`.
    ///
    /// - `path`: its places below `/api/v1`, each as it is named, whatever it holds.
    /// - Errors: [`ClientError::Unreachable`], [`ClientError::NotOurs`], [`ClientError::Refused`].
    pub fn ask(
        &self,
        method: Method,
        path: &[&str],
        parameters: &Parameters<'_>,
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        let mut url = self.server.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        let said = parameters.iter().filter(|(_, value)| !value.is_empty());
        url.query_pairs_mut().extend_pairs(said);
        let mut request = self.server.client.request(method, url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let answered = self.server.runtime.block_on(async {
            let answer = request.send().await?;
            Ok::<_, reqwest::Error>((answer.status(), answer.bytes().await?))
        });
        let (status, bytes) = answered.map_err(|error| self.server.unreachable(error))?;
        let document: Value = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).map_err(|_| ClientError::NotOurs {
                server: self.server.shown(),
                status: status.as_u16(),
                what: "no JSON",
            })?
        };
        match status.is_success() {
            true => Ok(document),
            false => Err(refusal(&document, status.as_u16())),
        }
    }

    /// Hands over all entries of a listing, page by page.
    ///
    /// - `name`: the member that holds them.
    /// - Errors: those of [`Admin::ask`], and of `take`.
    pub fn list<E: From<ClientError>>(
        &self,
        path: &[&str],
        name: &str,
        parameters: &Parameters<'_>,
        mut take: impl FnMut(&Value) -> Result<(), E>,
    ) -> Result<(), E> {
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
fn refusal(document: &Value, status: u16) -> ClientError {
    let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let fields = document["field_errors"].as_array().into_iter().flatten();
    ClientError::Refused {
        status,
        code: text(document, "code"),
        message: document["message"].as_str().unwrap_or("no word of why").to_owned(),
        fields: fields
            .map(|field| FieldError {
                field: text(field, "field"),
                message: text(field, "message"),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_says_what_is_wrong_where_it_is_told() {
        let fields = json!([{ "field": "limit", "message": "1 to 200" }, { "field": "x", "message": "no" }]);
        let refused = refusal(
            &json!({ "code": "bad_request", "message": "wrong", "field_errors": fields }),
            400,
        );
        assert_eq!(refused.to_string(), "the server answered 400: limit: 1 to 200; x: no");
        assert_eq!(
            refusal(&json!({ "message": "gone" }), 404).to_string(),
            "the server answered 404: gone"
        );
        assert_eq!(
            refusal(&Value::Null, 500).to_string(),
            "the server answered 500: no word of why"
        );
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for url in ["", "host", "ftp://host", "http://"] {
            let refused = Admin::new(url, String::new());
            assert!(matches!(refused, Err(ClientError::BadUrl { .. })), "{url}");
        }
    }
}
