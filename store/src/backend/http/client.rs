//! One HTTP request done as well as it can be: time-outs, tries with back-off and jitter, redirects, bounded bodies.
//!
//! Knows nothing of chunks; chunk stores and indexes use it alike. Rules:
//! - "Missing" is 404 or 410 and nothing else. 403 is a refusal, a transport failure is never "missing".
//! - 5xx, 408, 425, 429, broken connections and bodies cut short are tried again; other answers are not.
//! - Bodies are asked for and kept as stored (`identity`), never decoded.
//! - Redirects are followed by hand: credentials stay with the server they were given for, an upload keeps its method or
//!   fails, and `https` never becomes `http`.

use std::error::Error as StdError;
use std::io;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HeaderMap};
use reqwest::header::{HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use url::Url;

use super::connect;
use super::options::{Authorization, HttpOptions};
use super::pull::Offer;
use crate::backend::remote::body::{Body, BodyFault, Spool};
use crate::backend::remote::patience::{self, GivenUp, Next, RETRY_AFTER_MAX};
use crate::location::{HttpLocation, shown};
use crate::{BoxError, rate};

/// Redirects followed for one request.
const REDIRECTS_MAX: usize = 5;
/// How much of an error answer is read and shown.
const REASON_LEN_MAX: usize = 200;

/// A client for one server, with its credentials.
pub(crate) struct HttpClient {
    /// For `http` URLs; holds no certificates, so that it opens quickly and on systems without any.
    plain: Client,
    /// For `https` URLs, made when first needed.
    tls: OnceLock<Client>,
    pub(super) options: HttpOptions,
    base: Url,
    /// What the server says of requests for many chunks.
    pub(super) offer: Offer,
}

/// What is asked of a server.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    /// GET with at most this many bytes of body.
    Get { len_max: usize, spool: Option<Spool> },
    /// HEAD.
    Head,
    /// PUT of this body.
    Put { body: Bytes, content_type: &'static str },
}

/// A definite answer.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It is there (GET, HEAD) or stored (PUT).
    Done {
        /// The body of a GET, else empty.
        body: Bytes,
        /// The `Content-Length` header.
        len: Option<u64>,
    },
    /// 404 or 410.
    Missing,
    /// 400: chunk servers answer so to a form of chunk that they do not serve.
    BadRequest(HttpFault),
}

/// Why there was no definite answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpFault {
    #[error("no answer from the server after {tries} tries")]
    Transport { tries: u32, source: BoxError },
    #[error("the server's certificate or ours was refused")]
    Tls { source: BoxError },
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error("it answered {status}{reason}")]
    Status { status: StatusCode, reason: String },
    #[error("it answered {status} and asks to wait {seconds} s, more than the {} s allowed", RETRY_AFTER_MAX.as_secs())]
    Busy { status: StatusCode, seconds: u64 },
    #[error("the answer is longer than the {len_max} bytes allowed")]
    TooLong { len_max: usize },
    #[error("given up: interrupted")]
    Cancelled,
    #[error("redirect refused: {0}")]
    Redirect(String),
    #[error("{what}")]
    Setup { what: String, source: Option<BoxError> },
}

impl HttpFault {
    /// Whether the server, or the request, must change before it can work.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::Transport { .. } | Self::TimedOut(_) | Self::Busy { .. } | Self::Cancelled => false,
            Self::Status { status, .. } => !is_passing(*status),
            Self::Tls { .. } | Self::TooLong { .. } | Self::Redirect(_) | Self::Setup { .. } => true,
        }
    }
}

pub(super) type Failure = patience::Failure<HttpFault>;

/// What is left of the time for one try. Only waiting for the network counts.
pub(super) struct Budget {
    pub(super) left: Option<Duration>,
    pub(super) idle: Duration,
}

impl HttpClient {
    /// A client for the server of `location`. Certificates are read now if that is an `https` URL.
    pub(crate) fn new(location: &HttpLocation, options: HttpOptions) -> Result<Self, HttpFault> {
        let plain = connect::plain(&options)?;
        let mut base = location.url().clone();
        if options.authorization.is_some() {
            // Neither fails on a URL that has a host.
            let _ = (base.set_username(""), base.set_password(None));
        }
        let client = Self {
            plain,
            tls: OnceLock::new(),
            offer: options.offers.of(&base),
            options,
            base,
        };
        if client.base.scheme() == "https" {
            client.client_for(&client.base)?;
        }
        Ok(client)
    }

    /// The URL that this client was made for, credentials included.
    pub(crate) fn base(&self) -> &Url {
        &self.base
    }

    /// Asks until there is a definite answer, the tries are used up, another try cannot help, or nobody wants to know any more.
    pub(crate) async fn ask(&self, url: &Url, ask: &Ask) -> Result<Answer, HttpFault> {
        let answer = self.options.patience().insist(|| self.try_once(url, ask)).await;
        answer.map_err(of_tries)
    }

    async fn try_once(&self, url: &Url, ask: &Ask) -> Result<Answer, Failure> {
        let mut budget = Budget::of(&self.options);
        if let Ask::Put { body, .. } = ask {
            self.pause_for(body.len()).await;
        }
        let mut url = url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let request = self.request(&url, ask).map_err(Failure::final_)?;
            // An upload is silent until the server has it all: only the whole budget bounds it.
            let quiet = if matches!(ask, Ask::Put { .. }) {
                None
            } else {
                Some(budget.idle)
            };
            let response = budget.wait(quiet, request.send()).await?;
            let status = response.status();
            if matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                url = self.redirected(&url, ask, &response).map_err(Failure::final_)?;
                continue;
            }
            if url.origin() == self.base.origin() {
                self.offer.note(response.headers());
            }
            return self.take_answer(response, ask, budget).await;
        }
        Err(Failure::final_(HttpFault::Redirect(format!(
            "more than {REDIRECTS_MAX} in a row"
        ))))
    }

    async fn take_answer(&self, response: Response, ask: &Ask, mut budget: Budget) -> Result<Answer, Failure> {
        budget.idle = self.options.idle_timeout;
        let status = response.status();
        let len = number(response.headers(), &CONTENT_LENGTH);
        let done = match ask {
            Ask::Get { .. } => status == StatusCode::OK,
            Ask::Head => matches!(status, StatusCode::OK | StatusCode::NO_CONTENT),
            Ask::Put { .. } => matches!(status, StatusCode::OK | StatusCode::CREATED | StatusCode::NO_CONTENT),
        };
        if done {
            let body = match ask {
                Ask::Get { len_max, spool } => self.read_body(response, *len_max, spool.as_ref(), &mut budget).await?,
                Ask::Head | Ask::Put { .. } => {
                    drain(response, &mut budget).await;
                    Bytes::new()
                }
            };
            return Ok(Answer::Done { body, len });
        }
        // A missing place to put to is not a missing chunk.
        let put = matches!(ask, Ask::Put { .. });
        if matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE) && !put {
            drain(response, &mut budget).await;
            return Ok(Answer::Missing);
        }
        let failure = not_done(response, &mut budget).await;
        match status {
            StatusCode::BAD_REQUEST => Ok(Answer::BadRequest(failure.fault)),
            _ => Err(failure),
        }
    }

    async fn read_body(
        &self,
        mut response: Response,
        len_max: usize,
        spool: Option<&Spool>,
        budget: &mut Budget,
    ) -> Result<Bytes, Failure> {
        let announced = number(response.headers(), &CONTENT_LENGTH).unwrap_or(0);
        let mut body = Body::new(announced, len_max, spool).map_err(not_taken)?;
        // The time for a whole request is meant for chunks; a long body may take as long as it keeps coming.
        if spool.is_some_and(|spool| announced > spool.memory_len_max as u64) {
            budget.left = None;
        }
        while let Some(piece) = budget.wait(Some(budget.idle), response.chunk()).await? {
            self.pause_for(piece.len()).await;
            if body.len() == 0 && piece.len() as u64 == announced {
                return Ok(piece);
            }
            body.push(&piece).map_err(not_taken)?;
            if body.is_spooled() {
                budget.left = None;
            }
        }
        body.finish().map_err(not_taken)
    }

    /// Waits until the rate limit allows so many bytes.
    pub(super) async fn pause_for(&self, bytes: usize) {
        rate::pause_for(self.options.rate_limit.as_deref(), bytes).await;
    }

    fn request(&self, url: &Url, ask: &Ask) -> Result<RequestBuilder, HttpFault> {
        let client = self.client_for(url)?;
        let mut request = match ask {
            Ask::Get { .. } => client.get(url.clone()),
            Ask::Head => client.head(url.clone()),
            Ask::Put { body, content_type } => client
                .request(Method::PUT, url.clone())
                .header(CONTENT_TYPE, *content_type)
                .body(body.clone()),
        };
        request = self.with_credentials(request, url)?;
        Ok(request.header(ACCEPT, "*/*").header(ACCEPT_ENCODING, "identity"))
    }

    /// The request with what the server asks for, if it goes to that server.
    pub(super) fn with_credentials(&self, mut request: RequestBuilder, url: &Url) -> Result<RequestBuilder, HttpFault> {
        if url.origin() == self.base.origin() {
            request = match &self.options.authorization {
                Some(Authorization::Fixed(value)) => request.header(AUTHORIZATION, secret(value)?),
                Some(Authorization::Bearer(token)) => {
                    request.header(AUTHORIZATION, secret(&format!("Bearer {token}"))?)
                }
                Some(Authorization::Basic { user, password }) => request.basic_auth(user, Some(password)),
                None => request,
            };
            if let Some(cookie) = &self.options.cookie {
                request = request.header(COOKIE, secret(&cookie.0)?);
            }
        }
        Ok(request)
    }

    /// Where a redirect leads, if it may be followed.
    fn redirected(&self, from: &Url, ask: &Ask, response: &Response) -> Result<Url, HttpFault> {
        let status = response.status();
        let refused = |why: &str| Err(HttpFault::Redirect(why.to_owned()));
        // Browsers turn these into GET; the answer to that would say nothing about the upload.
        if matches!(ask, Ask::Put { .. }) && !matches!(status.as_u16(), 307 | 308) {
            return refused(&format!("{status} does not carry an upload on"));
        }
        let target = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let Some(mut to) = target.and_then(|target| from.join(target).ok()) else {
            return refused("it does not say where to");
        };
        match (from.scheme(), to.scheme()) {
            (_, "https") | ("http", "http") => {}
            _ => return refused(&format!("from {} to {}", shown(from), shown(&to))),
        }
        let (user, password) = match to.origin() == self.base.origin() {
            true => (self.base.username(), self.base.password()),
            false => ("", None),
        };
        // Neither fails on a URL that has a host.
        let _ = (to.set_username(user), to.set_password(password));
        Ok(to)
    }

    pub(super) fn client_for(&self, url: &Url) -> Result<&Client, HttpFault> {
        if url.scheme() != "https" {
            return Ok(&self.plain);
        }
        if let Some(client) = self.tls.get() {
            return Ok(client);
        }
        let client = connect::tls(&self.options)?;
        Ok(self.tls.get_or_init(|| client))
    }
}

impl Budget {
    /// Of a request that begins.
    pub(super) fn of(options: &HttpOptions) -> Self {
        Self {
            left: options.timeout,
            idle: options.idle_timeout.max(options.connect_timeout),
        }
    }

    /// Waits for the network: at most `quiet`, and no longer than what is left.
    pub(super) async fn wait<T>(
        &mut self,
        quiet: Option<Duration>,
        future: impl Future<Output = reqwest::Result<T>>,
    ) -> Result<T, Failure> {
        let start = Instant::now();
        let limit = [quiet, self.left].into_iter().flatten().min();
        let result = match limit {
            None => Ok(future.await),
            Some(limit) => tokio::time::timeout(limit, future).await.map_err(|_| limit),
        };
        self.left = self.left.map(|left| left.saturating_sub(start.elapsed()));
        match result {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(Failure::transport(error)),
            Err(limit) => Err(Failure {
                fault: HttpFault::TimedOut(limit),
                next: Next::TryAgain {
                    not_before: Duration::ZERO,
                },
            }),
        }
    }
}

impl patience::Failure<HttpFault> {
    pub(super) fn final_(fault: HttpFault) -> Self {
        Self {
            fault,
            next: Next::GiveUp,
        }
    }

    fn transport(error: reqwest::Error) -> Self {
        let error = error.without_url();
        if error.is_builder() {
            return Self::final_(setup("the request cannot be made", error));
        }
        // A certificate that is refused now is refused again.
        if is_tls(&error) {
            return Self::final_(HttpFault::Tls { source: error.into() });
        }
        Self {
            fault: HttpFault::Transport {
                tries: 1,
                source: error.into(),
            },
            next: Next::TryAgain {
                not_before: Duration::ZERO,
            },
        }
    }
}

/// The fault behind tries that came to nothing.
pub(super) fn of_tries(given_up: GivenUp<HttpFault>) -> HttpFault {
    match given_up {
        GivenUp::Cancelled => HttpFault::Cancelled,
        GivenUp::Failed {
            fault: HttpFault::Transport { source, .. },
            tries,
        } => HttpFault::Transport { tries, source },
        GivenUp::Failed { fault, .. } => fault,
    }
}

/// What an answer with a status that is no success comes to.
pub(super) async fn not_done(response: Response, budget: &mut Budget) -> Failure {
    let (status, wait) = (response.status(), number(response.headers(), &RETRY_AFTER));
    let fault = HttpFault::Status {
        status,
        reason: reason(response, budget).await,
    };
    match (is_passing(status), wait) {
        (false, _) => Failure::final_(fault),
        (true, Some(seconds)) if seconds > RETRY_AFTER_MAX.as_secs() => {
            Failure::final_(HttpFault::Busy { status, seconds })
        }
        (true, wait) => Failure {
            fault,
            next: Next::TryAgain {
                not_before: Duration::from_secs(wait.unwrap_or(0)),
            },
        },
    }
}

/// Reads the rest of an answer that has no body of use, so that the connection can be used again. What goes wrong here does
/// not change the answer.
async fn drain(mut response: Response, budget: &mut Budget) {
    let mut read = 0;
    while read <= REASON_LEN_MAX * 10 {
        match budget.wait(Some(budget.idle), response.chunk()).await {
            Ok(Some(piece)) => read += piece.len(),
            _ => return,
        }
    }
}

/// `: ` and the first line of an error answer, made safe to print; empty when there is none.
async fn reason(mut response: Response, budget: &mut Budget) -> String {
    let mut body = Vec::new();
    while body.len() < REASON_LEN_MAX {
        match budget.wait(Some(budget.idle), response.chunk()).await {
            Ok(Some(piece)) => body.extend_from_slice(&piece),
            _ => break,
        }
    }
    body.truncate(REASON_LEN_MAX);
    let text = String::from_utf8_lossy(&body);
    let line: String = text
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .filter(|letter| !letter.is_control())
        .collect();
    // Web servers' error pages say nothing that the status does not.
    match line.trim() {
        "" => String::new(),
        page if page.starts_with('<') => String::new(),
        line => format!(": {line}"),
    }
}

/// Answers that another try may change.
pub(crate) fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429)
}

pub(crate) fn is_tls(error: &(dyn StdError + 'static)) -> bool {
    let mut source = error.source();
    while let Some(cause) = source {
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if cause.is::<rustls::Error>() || inner.is_some_and(|inner| inner.is::<rustls::Error>()) {
            return true;
        }
        source = cause.source();
    }
    false
}

/// A header that is a whole number. `Retry-After` may also be a date: then our own back-off is used.
pub(crate) fn number(headers: &HeaderMap, name: &reqwest::header::HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

fn secret(value: &str) -> Result<HeaderValue, HttpFault> {
    let mut value = HeaderValue::from_str(value).map_err(|error| {
        setup(
            "the configured Authorization or Cookie cannot be sent in a header",
            error,
        )
    })?;
    value.set_sensitive(true);
    Ok(value)
}

pub(super) fn setup(what: &str, source: impl Into<BoxError>) -> HttpFault {
    HttpFault::Setup {
        what: what.to_owned(),
        source: Some(source.into()),
    }
}

fn not_taken(fault: BodyFault) -> Failure {
    Failure::final_(match fault {
        BodyFault::TooLong { len_max } => HttpFault::TooLong { len_max },
        BodyFault::Spool { folder, source } => {
            setup(&format!("cannot keep the answer in {}", folder.display()), source)
        }
    })
}
