//! From a request of HTTP/2 to a service, and back: places, deadlines, message sizes, counts.
//!
//! A call holds its place until its answer has been read to the end or let go. Its deadline is kept for the answer's body, too.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cairn_index::Objects;
use cairn_proto::DESCRIPTORS;
use cairn_proto::asset::fetch_server::FetchServer;
use cairn_proto::asset::push_server::PushServer;
use cairn_proto::cairn::v1::admin_server::AdminServer;
use cairn_proto::cairn::v1::buckets_server::BucketsServer;
use cairn_proto::cairn::v1::chunk_store_server::ChunkStoreServer;
use cairn_proto::cairn::v1::events_server::EventsServer;
use cairn_proto::cairn::v1::index_server::IndexServer;
use cairn_proto::cairn::v1::objects_server::ObjectsServer;
use cairn_proto::execution::action_cache_server::ActionCacheServer;
use cairn_proto::execution::capabilities_server::CapabilitiesServer;
use cairn_proto::execution::content_addressable_storage_server::ContentAddressableStorageServer;
use cairn_proto::google::bytestream::byte_stream_server::ByteStreamServer;
use cairn_roots::Body as Answer;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request, Response, Version};
use hyper::body::{Body as HttpBody, Frame};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Sleep;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tonic_reflection::pb as reflection;

use super::error::{busy, silent};
use super::{Core, GrpcOptions};
use crate::admin::Admin;
use crate::faces::ServiceToken;
use crate::outgoing::Outgoing;

type Answering = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;
type Route = Box<dyn Fn(Request<Body>) -> Answering + Send + Sync>;

/// Files of all that is served.
const DESCRIBED: [&[u8]; 4] = [
    DESCRIPTORS,
    tonic_health::pb::FILE_DESCRIPTOR_SET,
    reflection::v1::FILE_DESCRIPTOR_SET,
    reflection::v1alpha::FILE_DESCRIPTOR_SET,
];

/// A deadline that is further away is none: what a client can hold for so long it could for ever.
const DEADLINE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Of the calls at once, one in so many more may ask for health and reflection.
const OPEN_SHARE: usize = 8;
/// Calls that need not end by themselves: a server that leaves ends them.
const UNENDING: [&str; 5] = [
    "cairn.v1.ChunkStore/Watch",
    "cairn.v1.Events/Subscribe",
    "grpc.health.v1.Health/Watch",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// The gRPC door.
pub struct Grpc {
    core: Arc<Core>,
    routes: BTreeMap<&'static str, Route>,
    /// `/package.Service/Method` of all that there is, for counting.
    methods: BTreeMap<String, Arc<str>>,
    places: Arc<Semaphore>,
    /// Of what asks for nothing and tells nothing: health and reflection.
    open_places: Arc<Semaphore>,
    /// Whether the server leaves.
    leaving: watch::Sender<bool>,
}

impl fmt::Debug for Grpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grpc").field("core", &self.core).finish_non_exhaustive()
    }
}

impl Grpc {
    /// A door to these objects.
    pub fn new(objects: Arc<Objects>, options: GrpcOptions) -> Self {
        let (calls, len_max) = (options.calls, options.message_len_max);
        let core = Arc::new(Core::new(objects, options));
        let mut door = Self {
            routes: BTreeMap::new(),
            methods: methods(),
            places: Arc::new(Semaphore::new(calls.max(1))),
            open_places: Arc::new(Semaphore::new((calls / OPEN_SHARE).max(1))),
            leaving: watch::Sender::new(false),
            core: Arc::clone(&core),
        };
        macro_rules! serve {
            ($server:ident, $service:expr) => {
                door.add(
                    $server::new($service)
                        .max_decoding_message_size(len_max)
                        .max_encoding_message_size(len_max),
                );
            };
        }
        serve!(CapabilitiesServer, super::capabilities::Capabilities(Arc::clone(&core)));
        serve!(ContentAddressableStorageServer, super::cas::Cas(Arc::clone(&core)));
        serve!(ByteStreamServer, super::byte_stream::ByteStream(Arc::clone(&core)));
        serve!(ActionCacheServer, super::action_cache::ActionCache(Arc::clone(&core)));
        serve!(FetchServer, super::asset::Assets(Arc::clone(&core)));
        serve!(PushServer, super::asset::Assets(Arc::clone(&core)));
        serve!(ChunkStoreServer, super::v1::ChunkStore(Arc::clone(&core)));
        serve!(ObjectsServer, super::v1::Objects(Arc::clone(&core)));
        serve!(BucketsServer, super::v1::AdminServices(Arc::clone(&core)));
        serve!(IndexServer, super::v1::AdminServices(Arc::clone(&core)));
        serve!(AdminServer, super::v1::AdminServices(Arc::clone(&core)));
        serve!(EventsServer, super::v1::Events(core));
        door.add_health();
        door.add_reflection();
        door
    }

    /// The admin API, which some services are another face of. Without it they answer that it is not served.
    /// It is not kept: it is theirs who serve it.
    pub fn set_admin(&self, admin: &Arc<Admin>) {
        // It is set once, when the server starts.
        let _ = self.core.admin.set(Arc::downgrade(admin));
    }

    /// From now on these tokens are taken, and no others.
    pub fn set_tokens(&self, tokens: Vec<ServiceToken>) {
        let mut kept = self
            .core
            .tokens
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *kept = tokens.into();
    }

    /// From now on what is fetched is asked for so.
    ///
    /// - `outgoing`: `None`: nothing is.
    pub fn set_outgoing(&self, outgoing: Option<Outgoing>) {
        self.core.fetches.set_outgoing(outgoing);
    }

    /// From now on who follows something is told to go on elsewhere; all other calls go on to their ends.
    pub fn leave(&self) {
        self.leaving.send_replace(true);
    }

    fn add<S>(&mut self, service: S)
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        let route = move |request| -> Answering {
            // Generated services are always ready.
            let answered = service.clone().call(request);
            Box::pin(async move {
                match answered.await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            })
        };
        self.routes.insert(S::NAME, Box::new(route));
    }

    fn add_health(&mut self) {
        // What keeps the server from serving is told at `/health/ready`; who reaches this is served.
        let (_reporter, service) = tonic_health::server::health_reporter();
        self.add(service);
    }

    fn add_reflection(&mut self) {
        let builder = |served: &[&'static str]| {
            let builder = tonic_reflection::server::Builder::configure().include_reflection_service(false);
            let builder = DESCRIBED.into_iter().fold(builder, |builder, files| {
                builder.register_encoded_file_descriptor_set(files)
            });
            served
                .iter()
                .fold(builder, |builder, name| builder.with_service_name(*name))
        };
        // Itself, too.
        let own = [
            reflection::v1::server_reflection_server::SERVICE_NAME,
            reflection::v1alpha::server_reflection_server::SERVICE_NAME,
        ];
        let served: Vec<&'static str> = self.routes.keys().copied().chain(own).collect();
        // Built of what was compiled in: that it fails is found by the tests.
        if let Ok(service) = builder(&served).build_v1() {
            self.add(service);
        }
        if let Ok(service) = builder(&served).build_v1alpha() {
            self.add(service);
        }
    }

    #[cfg(test)]
    pub(super) fn objects(&self) -> &Arc<Objects> {
        &self.core.objects
    }

    /// Names of the services.
    pub fn services(&self) -> impl Iterator<Item = &'static str> {
        self.routes.keys().copied()
    }

    /// Whether a request is a call.
    pub fn takes<B>(request: &Request<B>) -> bool {
        let is_grpc = |value: &http::HeaderValue| value.as_bytes().starts_with(b"application/grpc");
        request.version() == Version::HTTP_2
            && request.method() == Method::POST
            && request.headers().get(CONTENT_TYPE).is_some_and(is_grpc)
    }

    /// Answers a call.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<Answer>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.call(request.map(Body::new))
            .await
            .map(|body| Answer::streamed(IoBody(body)))
    }

    /// [`Grpc::answer`] with the bodies of tonic.
    pub(super) async fn call(&self, request: Request<Body>) -> Response<Body> {
        let begun = Instant::now();
        let method = self.methods.get(request.uri().path()).cloned();
        let method = method.unwrap_or_else(|| Arc::from("other"));
        let refused = |status: Status| {
            count(&method, status.code() as i32, begun);
            status.into_http()
        };
        let service = request.uri().path().split('/').nth(1).unwrap_or_default();
        // Nobody needs to be known for these, and they may never end.
        let is_open = service.starts_with("grpc.");
        let places = if is_open { &self.open_places } else { &self.places };
        let Ok(place) = Arc::clone(places).try_acquire_owned() else {
            return refused(busy("too many calls at a time"));
        };
        let Some(route) = self.routes.get(service) else {
            return refused(Status::unimplemented("there is no such service here"));
        };
        let left = match timeout_of(request.headers()) {
            Ok(left) => left.unwrap_or(DEADLINE_MAX).min(DEADLINE_MAX),
            Err(status) => return refused(status),
        };
        let mut deadline = Box::pin(tokio::time::sleep(left));
        let idle = self.core.options.idle;
        let request = request.map(|inner| {
            Body::new(AskedBody {
                inner,
                idle,
                silence: Box::pin(tokio::time::sleep(idle)),
            })
        });
        let response = tokio::select! {
            biased;
            response = route(request) => response,
            () = &mut deadline => return refused(late()),
        };
        let (parts, body) = response.into_parts();
        let code = code_of(&parts.headers);
        let cut: Ending = match UNENDING.contains(&&*method) {
            true => Box::pin(left_or_late(self.leaving.subscribe(), deadline)),
            false => Box::pin(async move {
                deadline.await;
                late()
            }),
        };
        let body = CallBody {
            inner: body,
            cut,
            end: End {
                method,
                begun,
                code,
                _place: place,
            },
            is_over: code.is_some(),
        };
        Response::from_parts(parts, Body::new(body))
    }
}

/// Paths of all methods that are described.
fn methods() -> BTreeMap<String, Arc<str>> {
    use prost::Message as _;
    let mut methods = BTreeMap::new();
    for set in DESCRIBED {
        let files = prost_types::FileDescriptorSet::decode(set).unwrap_or_default().file;
        for file in &files {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    methods.insert(path.clone(), Arc::from(&path[1..]));
                }
            }
        }
    }
    methods
}

/// Why a call that need not end is ended.
async fn left_or_late(mut leaving: watch::Receiver<bool>, deadline: Pin<Box<Sleep>>) -> Status {
    tokio::select! {
        () = deadline => late(),
        // Nobody can say so any more: it is over as well.
        _ = leaving.wait_for(|leaving| *leaving) => Status::unavailable("the server stops: ask again where you were"),
    }
}

fn late() -> Status {
    Status::deadline_exceeded("the call's time was over")
}

/// How much time a call has: `grpc-timeout`, up to eight digits and a unit.
fn timeout_of(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get("grpc-timeout") else {
        return Ok(None);
    };
    let wrong = || Status::invalid_argument("grpc-timeout is up to eight digits and one of H, M, S, m, u, n");
    let value = value.to_str().map_err(|_| wrong())?;
    let (digits, unit) = value
        .split_at_checked(value.len().saturating_sub(1))
        .ok_or_else(wrong)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    Ok(Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return Err(wrong()),
    }))
}

/// The code in headers or trailers.
fn code_of(headers: &HeaderMap) -> Option<i32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

fn count(method: &Arc<str>, code: i32, begun: Instant) {
    let code = Code::from(code);
    metrics::counter!("grpc_calls_total", "method" => Arc::clone(method), "code" => format!("{code:?}")).increment(1);
    metrics::histogram!("grpc_call_seconds", "method" => Arc::clone(method)).record(begun.elapsed().as_secs_f64());
}

/// What is told of a call at its end, whichever that is.
struct End {
    method: Arc<str>,
    begun: Instant,
    code: Option<i32>,
    _place: OwnedSemaphorePermit,
}

impl Drop for End {
    fn drop(&mut self) {
        count(&self.method, self.code.unwrap_or(Code::Cancelled as i32), self.begun);
    }
}

/// The body of a call, whose sender may not pause for too long.
struct AskedBody {
    inner: Body,
    idle: Duration,
    silence: Pin<Box<Sleep>>,
}

impl HttpBody for AskedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            let until = tokio::time::Instant::now() + self.idle;
            self.silence.as_mut().reset(until);
            return Poll::Ready(frame);
        }
        ready!(self.silence.as_mut().poll(cx));
        Poll::Ready(Some(Err(silent())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
}

/// What ends an answer that does not come to its end.
type Ending = Pin<Box<dyn Future<Output = Status> + Send>>;

/// The body of an answer, until the call's deadline.
struct CallBody {
    inner: Body,
    cut: Ending,
    end: End,
    is_over: bool,
}

impl HttpBody for CallBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            let trailers = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.trailers_ref());
            if let Some(code) = trailers.and_then(code_of) {
                self.end.code = Some(code);
            }
            return Poll::Ready(frame);
        }
        let why = ready!(self.cut.as_mut().poll(cx));
        self.is_over = true;
        self.inner = Body::empty();
        self.end.code = Some(why.code() as i32);
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(why.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.inner.is_end_stream()
    }
}

/// A body of tonic with the errors of our listeners.
struct IoBody(Body);

impl HttpBody for IoBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let frame = ready!(Pin::new(&mut self.0).poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_outs_are_read_in_all_units_and_nothing_else_is_one() {
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", value.parse().unwrap());
            timeout_of(&headers).map(Option::unwrap)
        };
        for (value, nanos) in [
            ("1H", 3_600_000_000_000_u128),
            ("2M", 120_000_000_000),
            ("3S", 3_000_000_000),
            ("4m", 4_000_000),
            ("5u", 5000),
            ("6n", 6),
            ("99999999H", 99_999_999 * 3_600_000_000_000),
        ] {
            assert_eq!(read(value).unwrap().as_nanos(), nanos);
        }
        for wrong in ["", "S", "1", "1s", "-1S", "123456789S", "1.5S"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(timeout_of(&HeaderMap::new()).unwrap().is_none());
    }
}
