//! `object_store`'s requests over the HTTP backend's connections, and what a refusal says in words of our own.
//!
//! Answers that mean something to `object_store` go through: success, 404 for an object, 304, 409, 412. Everything else
//! becomes a [`ServiceFault`] here, with the service's code and message, because further up only text would be left of it.

use std::time::Duration;

use futures_util::StreamExt as _;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};
use reqwest::header::{AUTHORIZATION, HeaderValue, IF_NONE_MATCH};
use reqwest::{Client, Method, StatusCode};

use crate::backend::http::client::{HttpFault, is_passing, number};
use crate::backend::http::connect;
use crate::backend::http::{HttpOptions, Proxy};
use crate::backend::remote::Fault;
use crate::backend::remote::patience::{Failure, Next, RETRY_AFTER_MAX};

/// Most bytes of an error answer, or of one that gives a token.
const REASON_LEN_MAX: usize = 64 << 10;
/// Longest wait for an answer of the machine or the container's host.
const METADATA_WAIT: Duration = Duration::from_secs(2);
/// Most letters of the service's message that are repeated.
const MESSAGE_LEN_MAX: usize = 300;

/// An answer that is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum ServiceFault {
    #[error("it answered {status}{}{hint}", said(code, message))]
    Status {
        status: StatusCode,
        /// The service's own word for what is wrong, `NoSuchBucket`; empty where it says none.
        code: String,
        message: String,
        hint: String,
        /// `Retry-After`, in seconds.
        wait: u64,
    },
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error("no answer within {0:?} to the question for {1}")]
    NoRole(Duration, &'static str),
}

impl ServiceFault {
    /// What another try would make of it.
    pub(super) fn into_failure(self) -> Failure<Fault> {
        match &self {
            Self::TimedOut(_) | Self::NoRole(..) => Fault::passing(self),
            Self::Status { status, .. } if *status == StatusCode::INSUFFICIENT_STORAGE => Fault::lasting(self),
            Self::Status { code, .. } if is_full(code) => Fault::lasting(self),
            Self::Status { status, code, wait, .. } if is_passing(*status) || code == "RequestTimeout" => {
                let not_before = Duration::from_secs(*wait);
                let next = match not_before > RETRY_AFTER_MAX {
                    true => Next::GiveUp,
                    false => Next::TryAgain { not_before },
                };
                Failure {
                    fault: Fault::Unavailable(self.into()),
                    next,
                }
            }
            Self::Status { .. } => Fault::refused(self),
        }
    }
}

/// The words of several servers for "no room left".
fn is_full(code: &str) -> bool {
    matches!(
        code,
        "QuotaExceeded" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded" | "InsufficientCapacity"
    )
}

fn said(code: &str, message: &str) -> String {
    match (code, message) {
        ("", "") => String::new(),
        ("", words) | (words, "") => format!(": {words}"),
        (code, message) => format!(": {code}: {message}"),
    }
}

/// What a service's errors are explained with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words {
    /// What is asked for beside the service: "the keys of …".
    pub(super) secret: &'static str,
    /// A host that gives it, besides the place beside this machine.
    pub(super) issuer: Option<&'static str>,
    /// What to do when nobody's requests are refused.
    pub(super) nobody: &'static str,
}

/// Makes [`Service`]s.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    service: Service,
}

/// A client of the HTTP backend.
#[derive(Clone, Debug)]
struct Service {
    plain: Client,
    tls: Client,
    /// Longest silence before an answer begins.
    quiet: Duration,
    signed: bool,
    words: Words,
    metadata: Option<Metadata>,
}

/// Where a machine or its host tells keys: asked without proxies, and given up soon.
#[derive(Clone, Debug)]
struct Metadata {
    /// Host and port.
    authority: String,
    client: Client,
    wait: Duration,
}

impl Metadata {
    fn new(url: &str, options: &HttpOptions) -> Result<Option<Self>, HttpFault> {
        let Some(authority) = url.split('/').nth(2).map(str::to_owned) else {
            return Ok(None);
        };
        let wait = METADATA_WAIT.min(options.connect_timeout);
        let direct = HttpOptions {
            proxy: Proxy::Direct,
            connect_timeout: wait,
            ..HttpOptions::default()
        };
        let client = match url.starts_with("https:") {
            true => connect::tls(&direct)?,
            false => connect::plain(&direct)?,
        };
        Ok(Some(Self {
            authority,
            client,
            wait,
        }))
    }
}

impl Connector {
    /// - `metadata`: where keys are asked for beside this machine.
    pub(super) fn new(options: &HttpOptions, words: Words, metadata: Option<&str>) -> Result<Self, HttpFault> {
        let metadata = metadata.map(|url| Metadata::new(url, options)).transpose()?.flatten();
        Ok(Self {
            service: Service {
                plain: connect::plain(options)?,
                tls: connect::tls(options)?,
                quiet: options.idle_timeout.max(options.connect_timeout),
                signed: true,
                words,
                metadata,
            },
        })
    }

    /// - `signed`: whether there are keys, for a word on it where they are missed.
    pub(super) fn signed(mut self, signed: bool) -> Self {
        self.service.signed = signed;
        self
    }

    /// A client for questions beside the service.
    pub(super) fn client(&self) -> HttpClient {
        HttpClient::new(self.service.clone())
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(self.client())
    }
}

#[async_trait::async_trait]
impl HttpService for Service {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        // The end of an upload in parts: `object_store` has no word for "only if nothing is there", and S3 does not want this
        // header signed.
        let ends_an_upload = request.uri().query().is_some_and(|query| query.contains("uploadId="));
        if request.method() == Method::POST && ends_an_upload {
            request
                .headers_mut()
                .insert(IF_NONE_MATCH, HeaderValue::from_static("*"));
        }
        if !self.signed {
            // `object_store` puts with an empty token where it reads with none.
            request.headers_mut().remove(AUTHORIZATION);
        }
        let authority = request.uri().authority().map(|authority| authority.as_str());
        let for_secret = authority.is_some() && authority == self.words.issuer;
        let metadata = self.metadata.as_ref();
        let metadata = metadata.filter(|metadata| authority == Some(&metadata.authority));
        let client = match (metadata, request.uri().scheme_str()) {
            (Some(metadata), _) => &metadata.client,
            (None, Some("https")) => &self.tls,
            (None, _) => &self.plain,
        };
        let for_secret = for_secret || metadata.is_some();
        let quiet = metadata.map_or(self.quiet, |metadata| metadata.wait);
        let head = request.method() == Method::HEAD;
        // An upload is silent until the server has it all: only the time for the whole request bounds it.
        let response = match request.method() == Method::PUT && metadata.is_none() {
            true => HttpService::call(client, request).await?,
            false => match tokio::time::timeout(quiet, HttpService::call(client, request)).await {
                Ok(response) => response?,
                Err(_) if metadata.is_some() => {
                    return Err(HttpError::new(
                        HttpErrorKind::Timeout,
                        ServiceFault::NoRole(quiet, self.words.secret),
                    ));
                }
                Err(_) => return Err(HttpError::new(HttpErrorKind::Timeout, ServiceFault::TimedOut(quiet))),
            },
        };
        let status = response.status();
        let understood = matches!(
            status,
            StatusCode::NOT_MODIFIED | StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED
        );
        if status.is_success() || understood || (head && status == StatusCode::NOT_FOUND) {
            return Ok(response);
        }
        let (mut parts, body) = response.into_parts();
        let wait = number(&parts.headers, &reqwest::header::RETRY_AFTER).unwrap_or(0);
        let region = parts
            .headers
            .get("x-amz-bucket-region")
            .and_then(|value| value.to_str().ok());
        // What goes wrong here does not change the status.
        let text = tokio::time::timeout(quiet, short_text(body)).await.unwrap_or_default();
        let code = element(&text, "Code");
        // Google's: whom it is refused, and what.
        let details = Some(element(&text, "Details")).filter(|details| !details.is_empty());
        let message = details.unwrap_or_else(|| element(&text, "Message"));
        if status == StatusCode::NOT_FOUND && code != "NoSuchBucket" && !for_secret {
            parts.headers.remove(reqwest::header::CONTENT_LENGTH);
            return Ok(HttpResponse::from_parts(parts, String::new().into()));
        }
        let hint = match (status, region) {
            _ if for_secret => format!("; this was asked for {}", self.words.secret),
            (_, Some(region)) if status.is_redirection() || code == "AuthorizationHeaderMalformed" => {
                format!("; the bucket is in region {region}: say so with aws-region or S3_REGION")
            }
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) if !self.signed => {
                format!("; {}", self.words.nobody)
            }
            (StatusCode::FORBIDDEN, _) if head || code == "AccessDenied" => {
                "; without the right to list, a missing object is answered so too".to_owned()
            }
            _ => String::new(),
        };
        let fault = ServiceFault::Status {
            status,
            code,
            message,
            hint,
            wait,
        };
        Err(HttpError::new(HttpErrorKind::Unknown, fault))
    }
}

/// A short answer as text; empty if it does not come whole or is longer than it may be.
pub(super) async fn short_text(body: HttpResponseBody) -> String {
    let (mut text, mut pieces) = (Vec::new(), body.bytes_stream());
    while let Some(piece) = pieces.next().await {
        match piece {
            Ok(piece) if text.len() + piece.len() <= REASON_LEN_MAX => text.extend_from_slice(&piece),
            _ => return String::new(),
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The text of the first element of this name in an error, made safe to print.
fn element(text: &str, name: &str) -> String {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let inner = text.split_once(&open).and_then(|(_, rest)| rest.split_once(&close));
    let inner = inner.map_or("", |(inner, _)| inner);
    let letters = inner.chars().filter(|letter| !letter.is_control());
    letters.take(MESSAGE_LEN_MAX).collect()
}
