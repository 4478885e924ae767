//! Answers to work that may take long: headers, then blanks until it is done, then the document; so that nobody on the way takes
//! the connection for dead. What is done soon is answered as anything else, status and all.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use cairn_roots::Body;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response};
use hyper::body::{Body as HttpBody, Frame};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep};

use crate::s3::error::{Code, S3Result};
use crate::s3::request::xml;
use crate::s3::xml::Writer;

/// Work that takes longer is answered with blanks meanwhile.
pub(crate) const QUIET_MAX: Duration = Duration::from_secs(5);

/// What slow work comes to: headers, which come too late once blanks have gone out, and the document without its declaration.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) headers: HeaderMap,
    pub(crate) document: String,
}

/// Who to name in an error that comes late.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    pub(crate) resource: String,
    pub(crate) request_id: String,
    pub(crate) host_id: String,
}

/// Answers with what `work` comes to.
///
/// - `quiet`: for how long it is waited before blanks go out, and between them.
pub(crate) async fn answer(
    work: impl Future<Output = S3Result<Done>> + Send + 'static,
    asker: Asker,
    quiet: Duration,
) -> S3Result<Response<Body>> {
    // The answer's body owns it; it ends with its job.
    let mut work = tokio::spawn(work);
    match tokio::time::timeout(quiet, &mut work).await {
        Ok(done) => {
            let done = done.unwrap_or_else(|_| Err(Code::InternalError.into()))?;
            let mut response = xml(Writer::document().finish() + &done.document);
            response.headers_mut().extend(done.headers);
            Ok(response)
        }
        Err(_) => {
            let mut response = Response::new(Body::streamed(Blanks {
                work: Some(work),
                next: Box::pin(tokio::time::sleep(quiet)),
                quiet,
                asker,
                has_begun: false,
            }));
            response
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
            Ok(response)
        }
    }
}

struct Blanks {
    /// `None`: all has gone out.
    work: Option<JoinHandle<S3Result<Done>>>,
    next: Pin<Box<Sleep>>,
    quiet: Duration,
    asker: Asker,
    has_begun: bool,
}

impl HttpBody for Blanks {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        let Some(work) = &mut this.work else {
            return Poll::Ready(None);
        };
        // A document begins with its declaration, so that goes out before any blank.
        if !this.has_begun {
            this.has_begun = true;
            return Poll::Ready(Some(Ok(Frame::data(Writer::document().finish().into()))));
        }
        if let Poll::Ready(done) = pin!(work).poll(cx) {
            this.work = None;
            let document = match done.unwrap_or_else(|_| Err(Code::InternalError.into())) {
                Ok(done) => done.document,
                Err(error) => {
                    let Asker {
                        resource,
                        request_id,
                        host_id,
                    } = &this.asker;
                    error.element(resource, request_id, host_id)
                }
            };
            return Poll::Ready(Some(Ok(Frame::data(document.into()))));
        }
        if this.next.as_mut().poll(cx).is_ready() {
            this.next.as_mut().reset(Instant::now() + this.quiet);
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b" ")))));
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::s3::xml::Element;

    fn asker() -> Asker {
        Asker {
            resource: "/b/k".to_owned(),
            request_id: "R".to_owned(),
            host_id: "H".to_owned(),
        }
    }

    async fn text(response: Response<Body>) -> String {
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn done() -> Done {
        Done {
            headers: HeaderMap::new(),
            document: "<R>ok</R>".to_owned(),
        }
    }

    #[tokio::test]
    async fn what_is_done_soon_is_answered_with_its_status() {
        let long = Duration::from_secs(60);
        let response = answer(async { Ok(done()) }, asker(), long).await.unwrap();
        assert!(text(response).await.ends_with("?>\n<R>ok</R>"));
        let refused = answer(async { Err(Code::InvalidPart.into()) }, asker(), long).await;
        assert_eq!(refused.unwrap_err().code, Code::InvalidPart);
    }

    /// Goal: what takes long begins with the declaration, goes on with blanks, and ends with a document that can be read.
    #[tokio::test]
    async fn what_takes_long_is_answered_with_blanks_and_an_error_in_it_under_status_200() {
        for result in [Ok(()), Err(Code::InvalidPart)] {
            let (release, released) = tokio::sync::oneshot::channel::<()>();
            let work = async move {
                let _ = released.await;
                result.map(|()| done()).map_err(Into::into)
            };
            let response = answer(work, asker(), Duration::from_millis(1)).await.unwrap();
            assert_eq!(response.status(), 200);
            let mut body = response.into_body();
            let mut seen = String::new();
            while !seen.contains("  ") {
                let frame = body.frame().await.unwrap().unwrap();
                seen.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
            }
            release.send(()).unwrap();
            seen.push_str(&text(Response::new(body)).await);
            let root = Element::parse(seen.as_bytes()).unwrap();
            match result {
                Ok(()) => assert_eq!(root.text, "ok"),
                Err(_) => assert_eq!(root.text_of("Code"), Ok(Some("InvalidPart"))),
            }
        }
    }
}
