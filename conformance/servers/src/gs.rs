//! A server of Google Cloud Storage's XML interface over a folder, in this process: `s3s-fs` behind a door that knows what Google
//! does otherwise. It wants a token, puts where nothing is by generation, deletes nothing that is not there.

use std::ops::Deref;

use futures_util::future::FutureExt as _;
use hyper::header::{AUTHORIZATION, HeaderValue, IF_NONE_MATCH};
use hyper::{Method, Request, Response, StatusCode};
use s3s::service::S3Service;
use s3s::{Body, HttpError};

use crate::S3Server;
use crate::s3::Door;

/// Whoever shows it may do everything.
pub const TOKEN: &str = "ya29.a-token-of-the-tests";

/// A server on a free port, with one bucket. Counts and troubles are those of [`S3Server`].
pub struct GsServer(S3Server);

impl GsServer {
    /// Starts it.
    pub fn start() -> Self {
        Self::start_behind(|service, request| guarded(service, request).boxed())
    }

    /// Starts one that knows nobody and lets everybody in, as emulators do.
    pub fn start_open() -> Self {
        Self::start_behind(|service, request| answered(service, request).boxed())
    }

    fn start_behind(door: Door) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(S3Server::BUCKET)).unwrap();
        Self(S3Server::start_in(folder, move |_| Some(door)))
    }

    /// `http://host:port`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.0.address())
    }

    /// `gs://BUCKET/place`.
    pub fn url(&self, place: &str) -> String {
        format!("gs://{}/{place}", S3Server::BUCKET)
    }
}

impl Deref for GsServer {
    type Target = S3Server;

    fn deref(&self) -> &S3Server {
        &self.0
    }
}

/// Lets in who shows the token.
async fn guarded(service: S3Service, mut request: Request<Body>) -> Result<Response<Body>, HttpError> {
    let shown = request.headers_mut().remove(AUTHORIZATION);
    if shown.is_none_or(|shown| shown != format!("Bearer {TOKEN}").as_str()) {
        return Ok(said(StatusCode::UNAUTHORIZED, "AuthenticationRequired", "who are you?"));
    }
    answered(service, request).await
}

/// What Google does and S3 does not.
async fn answered(service: S3Service, mut request: Request<Body>) -> Result<Response<Body>, HttpError> {
    // Generation 0 is that of what is not there; nothing here knows another.
    let new_alone = request.headers_mut().remove("x-goog-if-generation-match");
    let in_parts = request.uri().query().is_some_and(|query| query.contains("upload"));
    match new_alone {
        Some(zero) if zero == "0" && !in_parts => {
            let any = HeaderValue::from_static("*");
            request.headers_mut().insert(IF_NONE_MATCH, any);
        }
        Some(_) => return Ok(said(StatusCode::NOT_IMPLEMENTED, "NotImplemented", "conditions")),
        None => {}
    }
    if request.method() == Method::DELETE {
        // S3 is content with what is not there.
        let path = request.uri().path();
        let head = Request::builder().method(Method::HEAD).uri(path).body(Body::empty());
        let there = service.call(head.unwrap()).await?;
        if there.status() == StatusCode::NOT_FOUND {
            return Ok(said(StatusCode::NOT_FOUND, "NoSuchKey", "no such object"));
        }
    }
    let mut answer = service.call(request).await?;
    let generation = HeaderValue::from_static("1");
    answer.headers_mut().insert("x-goog-generation", generation);
    Ok(answer)
}

fn said(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let text =
        format!("<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{message}</Message></Error>");
    let mut answer = Response::new(Body::from(text));
    *answer.status_mut() = status;
    answer
}
