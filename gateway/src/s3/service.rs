//! From a connection's request to a handler: ids, address, signature, operation, bucket, decision; and from its answer back.
//!
//! Order: what needs nothing (address, form of the signature, operation), then one job that reads the key, checks the signature
//! and reads the bucket, then the decision, then the handler. Nothing of the body is read before. What waits for nothing but its
//! own jobs is one job from there on: each costs a change of threads. An absent bucket is told
//! before anything of the key.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use cairn_identity::{Action, Permit, Principal, Resource, User, authorize};
use cairn_index::Objects;
use cairn_index::names::{AccessKeyId, Bucket, BucketName, KeyState, Names};
use cairn_roots::{Body, Handler};
use http::header::{CONNECTION, CONTENT_SECURITY_POLICY, EXPECT, HOST, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Request, Response};
use hyper::body::{Body as _, Incoming as HyperIncoming};

use crate::pool::{Pool, PoolOptions};
use crate::s3::archive::Archives;
use crate::s3::bodies::{Bodies, BodyOptions};
use crate::s3::body::Incoming;
use crate::s3::error::{Code, S3Result};
use crate::s3::operation::Operation;
use crate::s3::ops;
use crate::s3::request::{Ask, tenant_of};
use crate::s3::signature::{self, ChunkSigner, Head, Payload, Signed};
use crate::s3::uri::{Query, Target};
use crate::s3::{metadata, uri};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-request-id");
const HOST_ID: HeaderName = HeaderName::from_static("x-amz-id-2");

/// What the S3 door is told.
#[derive(Clone, Debug)]
pub struct S3Options {
    /// The region that requests are signed for, and the label of new buckets.
    pub region: String,
    /// Domains under which `bucket.domain` is a bucket, in lower case.
    pub domains: Vec<String>,
    /// Believe `X-Forwarded-Host` and `X-Forwarded-Prefix`: clients sign what the proxy in front was asked.
    pub trust_forwarded: bool,
    /// Work of ordinary requests.
    pub pool: PoolOptions,
    /// Work of requests that may take long: Complete, Copy.
    pub slow_pool: PoolOptions,
    /// Memory and patience of bodies.
    pub bodies: BodyOptions,
    /// Requests that are logged.
    pub log: Arc<LogSwitch>,
}

/// Requests that are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogRequests {
    /// Each.
    All,
    /// Writes, refusals, failures.
    #[default]
    Changes,
    /// None.
    None,
}

/// Which requests are logged; changed while the door is open.
#[derive(Debug, Default)]
pub struct LogSwitch(ArcSwap<LogRequests>);

impl LogSwitch {
    /// From the next answer on.
    pub fn set(&self, requests: LogRequests) {
        self.0.store(Arc::new(requests));
    }

    fn logs(&self, is_ordinary: bool) -> bool {
        match **self.0.load() {
            LogRequests::All => true,
            LogRequests::Changes => !is_ordinary,
            LogRequests::None => false,
        }
    }
}

impl Default for S3Options {
    fn default() -> Self {
        Self {
            region: "us-east-1".to_owned(),
            domains: Vec::new(),
            trust_forwarded: false,
            pool: PoolOptions::default(),
            slow_pool: PoolOptions {
                jobs: 16,
                waiting: 1024,
                patience: Duration::from_secs(60),
            },
            bodies: BodyOptions::default(),
            log: Arc::default(),
        }
    }
}

/// What handlers work with.
#[derive(Debug)]
pub(crate) struct Core {
    objects: Arc<Objects>,
    options: S3Options,
    pool: Pool,
    slow_pool: Pool,
    bodies: Arc<Bodies>,
    archives: Arc<Archives>,
    /// Names this process in answers.
    host_id: String,
}

impl Core {
    pub(crate) fn names(&self) -> Names {
        self.objects.names().clone()
    }

    pub(crate) fn objects(&self) -> Arc<Objects> {
        Arc::clone(&self.objects)
    }

    pub(crate) fn options(&self) -> &S3Options {
        &self.options
    }

    pub(crate) fn host_id(&self) -> &str {
        &self.host_id
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(crate) fn bodies(&self) -> &Arc<Bodies> {
        &self.bodies
    }

    /// Archives that are browsed.
    pub(crate) fn archives(&self) -> Arc<Archives> {
        Arc::clone(&self.archives)
    }

    pub(crate) fn slow_pool(&self) -> &Pool {
        &self.slow_pool
    }

    /// Runs a job of an ordinary request.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> S3Result<T> + Send + 'static,
    ) -> S3Result<T> {
        self.pool.run(job).await
    }
}

/// The S3 door.
#[derive(Debug)]
pub struct S3 {
    core: Arc<Core>,
}

/// A request's head, taken apart.
struct Address {
    parts: Parts,
    query: Query,
    target: Target,
    /// What the client asked for: the host, and the path as it was signed.
    host: String,
    path: String,
}

impl Address {
    fn head(&self) -> Head<'_> {
        Head {
            method: self.parts.method.as_str(),
            path: &self.path,
            query: &self.query,
            headers: &self.parts.headers,
            host: &self.host,
        }
    }
}

/// What the job of admission finds out.
struct Admitted {
    address: Address,
    user: Arc<User>,
    signer: ChunkSigner,
    bucket: Option<Arc<Bucket>>,
}

impl S3 {
    /// A door to these objects.
    pub fn new(objects: Arc<Objects>, options: S3Options) -> Self {
        let core = Core {
            objects,
            pool: Pool::new("ordinary", options.pool),
            slow_pool: Pool::new("slow", options.slow_pool),
            bodies: Bodies::new(options.bodies),
            archives: Arc::default(),
            host_id: format!("{:032x}", fastrand::u128(..)),
            options,
        };
        Self { core: Arc::new(core) }
    }

    async fn answer(
        &self,
        parts: Parts,
        body: HyperIncoming,
        request_id: &str,
        seen: &mut Option<Operation>,
    ) -> S3Result<Response<Body>> {
        let core = &self.core;
        metadata::check_len(&parts.headers)?;
        let host = match parts.headers.get(HOST) {
            Some(host) => host.to_str().unwrap_or("").to_owned(),
            None => parts
                .uri
                .authority()
                .map(|authority| authority.to_string())
                .unwrap_or_default(),
        };
        let options = &core.options;
        let forwarded = |name: &str| {
            let value = parts.headers.get(name).filter(|_| options.trust_forwarded)?;
            value.to_str().ok().map(|value| value.trim().to_owned())
        };
        let host = forwarded("x-forwarded-host").unwrap_or(host);
        let prefix = forwarded("x-forwarded-prefix").unwrap_or_default();
        let path = format!("{}{}", prefix.trim_end_matches('/'), parts.uri.path());
        let target = Target::parse(Some(&host), parts.uri.path(), &options.domains, &options.region)?;
        let query = Query::parse(parts.uri.query())?;
        let (operation, action) = Operation::of(&parts.method, &target, &query, &parts.headers)?;
        *seen = Some(operation);
        let address = Address {
            parts,
            query,
            target,
            host,
            path,
        };
        let Some(signed) = signature::read(address.head(), &options.region, now_seconds())? else {
            return Err(refuse_anonymous(&address, action));
        };
        let payload = signed.payload;
        let (names, request_id) = (core.names(), request_id.to_owned());
        let own = Arc::clone(core);
        let request = async move {
            let core = &own;
            let admitted = core
                .run(move || admit(&names, address, &signed, operation == Operation::CreateBucket))
                .await?;
            let permit = decide(&admitted, action)?;
            let ask = ask(admitted, operation, payload, request_id);
            check_owner(&ask, "x-amz-expected-bucket-owner")?;
            if let Some(key) = ask.target.key() {
                uri::check_key(key)?;
            }
            dispatch(core, permit, ask, Incoming::new(body, core.bodies())).await
        };
        match operation.is_only_jobs() {
            true => core.pool.run_whole(request).await,
            false => request.await,
        }
    }
}

/// Reads the key, checks the signature, reads the bucket.
fn admit(names: &Names, address: Address, signed: &Signed, without_bucket: bool) -> S3Result<Admitted> {
    let unknown = || Code::InvalidAccessKeyId.with("AWSAccessKeyId", &signed.access_key_id);
    let id = AccessKeyId::new(&signed.access_key_id).map_err(|_| unknown())?;
    let key = names
        .access_key(&id)?
        .filter(|key| key.state == KeyState::Enabled)
        .ok_or_else(unknown)?;
    let signer = signed.verify(address.head(), key.secret.reveal())?;
    let user = User {
        tenant: key.tenant.as_str().to_owned(),
        id: key.owner.as_str().to_owned(),
        name: key.owner.as_str().to_owned(),
    };
    let bucket = match address.target.bucket().filter(|_| !without_bucket) {
        None => None,
        Some(name) => {
            // Of the caller's tenant: another's bucket is not there.
            let tenant = tenant_of(&user)?;
            Some(Arc::new(names.buckets(&tenant).get(&BucketName::new(name)?)?))
        }
    };
    Ok(Admitted {
        address,
        user: Arc::new(user),
        signer,
        bucket,
    })
}

/// The one decision.
fn decide(admitted: &Admitted, action: Action) -> S3Result<Permit> {
    let principal = Principal::User(Arc::clone(&admitted.user));
    let resource = match (&admitted.bucket, &admitted.address.target) {
        (Some(bucket), Target::Object { bucket: name, key }) => Resource::Object {
            tenant: bucket.tenant().as_str(),
            owner: bucket.record.owner.as_str(),
            bucket: name,
            key,
        },
        (Some(bucket), Target::Bucket(name)) => Resource::Bucket {
            tenant: bucket.tenant().as_str(),
            owner: bucket.record.owner.as_str(),
            bucket: name,
        },
        _ => Resource::Service,
    };
    authorize(&principal, action, resource).map_err(|_| Code::AccessDenied.into())
}

/// Nobody in particular may do anything yet; what they are told is that, or that they may not even ask so.
fn refuse_anonymous(address: &Address, action: Action) -> crate::s3::error::S3Error {
    if address.query.names().any(|(name, _)| name.starts_with("response-")) {
        return Code::ResponseHeadersAnonymous.into();
    }
    match authorize(&Principal::Anonymous, action, Resource::Service) {
        Err(_) | Ok(_) => Code::AccessDenied.into(),
    }
}

fn ask(admitted: Admitted, operation: Operation, payload: Payload, request_id: String) -> Ask {
    let Address {
        parts, query, target, ..
    } = admitted.address;
    Ask {
        method: parts.method,
        resource: parts.uri.path().to_owned(),
        headers: parts.headers,
        query,
        target,
        operation,
        payload,
        signer: Some(admitted.signer),
        bucket: admitted.bucket,
        request_id,
    }
}

/// `x-amz-expected-bucket-owner`. Errors: `AccessDenied`.
fn check_owner(ask: &Ask, header: &str) -> S3Result<()> {
    match (ask.header(header), &ask.bucket) {
        (Some(expected), Some(bucket)) if expected != bucket.record.owner.as_str() => Err(Code::AccessDenied.into()),
        _ => Ok(()),
    }
}

async fn dispatch(
    core: &Arc<Core>,
    permit: Permit,
    ask: Ask,
    body: Incoming<HyperIncoming>,
) -> S3Result<Response<Body>> {
    match ask.operation {
        Operation::ListBuckets => ops::bucket::list(core, permit, ask).await,
        Operation::CreateBucket => ops::bucket::create(core, permit, ask, body).await,
        Operation::HeadBucket => ops::bucket::head(core, permit, ask).await,
        Operation::DeleteBucket => ops::bucket::delete(core, permit, ask).await,
        Operation::GetBucketLocation => ops::bucket::location(core, permit, ask).await,
        Operation::GetBucketVersioning => ops::bucket::versioning(core, permit, ask).await,
        Operation::PutBucketVersioning => ops::bucket::put_versioning(core, permit, ask, body).await,
        Operation::GetBucketAcl | Operation::GetObjectAcl => ops::bucket::acl(core, permit, ask).await,
        Operation::GetBucketRequestPayment => ops::bucket::request_payment(core, permit, ask).await,
        Operation::GetBucketAccelerate => ops::bucket::accelerate(core, permit, ask).await,
        Operation::ListObjects => ops::list::objects(core, permit, ask).await,
        Operation::ListObjectsV2 => ops::list::objects_v2(core, permit, ask).await,
        Operation::ListObjectVersions => ops::list::versions(core, permit, ask).await,
        Operation::DeleteObject => ops::delete::object(core, permit, ask).await,
        Operation::DeleteObjects => ops::delete::objects(core, permit, ask, body).await,
        Operation::GetObjectTagging => ops::tags::get(core, permit, ask).await,
        Operation::PutObjectTagging => ops::tags::put(core, permit, ask, body).await,
        Operation::DeleteObjectTagging => ops::tags::delete(core, permit, ask).await,
        Operation::GetObjectAttributes => ops::attributes::get(core, permit, ask).await,
        Operation::HeadObject => ops::read::head(core, permit, ask).await,
        Operation::CreateMultipartUpload => ops::upload::create(core, permit, ask).await,
        Operation::AbortMultipartUpload => ops::upload::abort(core, permit, ask).await,
        Operation::ListMultipartUploads => ops::upload::list(core, permit, ask).await,
        Operation::ListParts => ops::upload::parts(core, permit, ask).await,
        Operation::GetObject => ops::read::get(core, permit, ask).await,
        Operation::PutObject => ops::write::put(core, permit, ask, body).await,
        Operation::CopyObject => ops::copy::object(core, permit, ask).await,
        Operation::UploadPart => ops::upload::part(core, permit, ask, body).await,
        Operation::UploadPartCopy => ops::copy::part(core, permit, ask).await,
        Operation::CompleteMultipartUpload => ops::upload::complete(core, permit, ask, body).await,
    }
}

/// Seconds since 1970 UTC.
pub(crate) fn now_seconds() -> i64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

impl Handler for S3 {
    async fn handle(&self, request: Request<HyperIncoming>) -> Response<Body> {
        let started = Instant::now();
        let request_id = format!("{:016X}", fastrand::u64(..));
        let host_id = &self.core.host_id;
        let (parts, body) = request.into_parts();
        // Of an empty body nothing is read, so nothing tells the client to go on. The botocore of aws-cli takes an answer
        // without that for one that leaves the connection in an unknown state, and then hangs on it.
        let waits_in_vain = parts.headers.contains_key(EXPECT) && body.is_end_stream();
        let (method, resource) = (parts.method.clone(), parts.uri.path().to_owned());
        let mut operation = None;
        let answer = self.answer(parts, body, &request_id, &mut operation).await;
        let mut response = match answer {
            Ok(response) => response,
            Err(error) => error.reply(&method, &resource, &request_id, host_id),
        };
        let headers = response.headers_mut();
        for (name, value) in [(REQUEST_ID, &request_id), (HOST_ID, host_id)] {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
        if waits_in_vain {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        // What was uploaded is hostile on our origin.
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
        let name = operation.map_or_else(|| "unknown".to_owned(), Operation::name);
        let status = response.status().as_u16();
        metrics::counter!("s3_requests_total", "operation" => name.clone(), "status" => status.to_string())
            .increment(1);
        metrics::histogram!("s3_request_seconds", "operation" => name.clone()).record(started.elapsed().as_secs_f64());
        let is_read = method == http::Method::GET || method == http::Method::HEAD;
        // What a client may well ask for, and what goes well, is in the counters.
        let is_ordinary = status < 500 && (is_read && status < 400 || matches!(status, 404 | 412 | 416));
        if self.core.options.log.logs(is_ordinary) {
            let duration_ms = started.elapsed().as_micros() as f64 / 1000.0;
            tracing::info!(
                request_id,
                operation = name,
                status_code = status,
                duration_ms,
                "S3 request answered"
            );
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use cairn_index::names::{AccessKey, NewBucket, Owner};
    use cairn_index::{Database, MemoryEngine, Tenant};
    use http::{HeaderMap, Method};

    use super::*;

    fn owner(id: &str) -> Owner {
        Owner::new(id).unwrap()
    }

    /// What admission and the decision say of a signed request.
    fn ask_for(names: &Names, key: &AccessKey, method: Method, path: &str) -> Result<Action, Code> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let query = Query::parse(Some(query)).unwrap();
        let target = Target::parse(None, path, &[], "us-east-1").unwrap();
        let now = now_seconds();
        let unsigned = HeaderMap::new();
        let head = Head {
            method: method.as_str(),
            path,
            query: &query,
            headers: &unsigned,
            host: "here",
        };
        let headers = signature::sign(head, key.id.as_str(), key.secret.reveal(), now);
        let head = Head {
            headers: &headers,
            ..head
        };
        let signed = signature::read(head, "us-east-1", now).unwrap().unwrap();
        let (operation, action) = Operation::of(&method, &target, &query, &headers).unwrap();
        let mut request = Request::builder().method(method.clone()).uri(path).body(()).unwrap();
        *request.headers_mut() = headers.clone();
        let address = Address {
            parts: request.into_parts().0,
            query: query.clone(),
            target,
            host: "here".to_owned(),
            path: path.to_owned(),
        };
        admit(names, address, &signed, operation == Operation::CreateBucket)
            .and_then(|admitted| decide(&admitted, action))
            .map(|permit| permit.action())
            .map_err(|error| error.code)
    }

    /// Goal: to a second tenant a bucket of the first is not there, and to a second owner it is closed, whatever is asked of it.
    #[test]
    fn buckets_of_others_are_not_there_or_closed() {
        let names = Names::new(Arc::new(Database::new(Arc::new(MemoryEngine::new()))));
        let (first, second) = (Tenant::new("first").unwrap(), Tenant::new("second").unwrap());
        let anna = names.create_access_key(&first, &owner("anna")).unwrap();
        let bert = names.create_access_key(&first, &owner("bert")).unwrap();
        // Of the same name: owners are of their tenant.
        let other = names.create_access_key(&second, &owner("anna")).unwrap();
        let bucket = BucketName::new("abc").unwrap();
        names
            .buckets(&first)
            .create(&bucket, NewBucket::of(owner("anna")))
            .unwrap();
        for (method, path) in [
            (Method::GET, "/abc"),
            (Method::GET, "/abc?list-type=2"),
            (Method::GET, "/abc?versions"),
            (Method::GET, "/abc?uploads"),
            (Method::GET, "/abc?location"),
            (Method::HEAD, "/abc"),
            (Method::DELETE, "/abc"),
            (Method::PUT, "/abc?versioning"),
            (Method::POST, "/abc?delete"),
            (Method::GET, "/abc/k"),
            (Method::GET, "/abc/k?versionId=null"),
            (Method::GET, "/abc/k?tagging"),
            (Method::GET, "/abc/k?attributes"),
            (Method::GET, "/abc/k?uploadId=u"),
            (Method::HEAD, "/abc/k"),
            (Method::PUT, "/abc/k"),
            (Method::PUT, "/abc/k?partNumber=1&uploadId=u"),
            (Method::POST, "/abc/k?uploads"),
            (Method::POST, "/abc/k?uploadId=u"),
            (Method::DELETE, "/abc/k"),
            (Method::DELETE, "/abc/k?uploadId=u"),
        ] {
            assert!(ask_for(&names, &anna, method.clone(), path).is_ok(), "{method} {path}");
            assert_eq!(
                ask_for(&names, &bert, method.clone(), path),
                Err(Code::AccessDenied),
                "{method} {path}"
            );
            assert_eq!(
                ask_for(&names, &other, method.clone(), path),
                Err(Code::NoSuchBucket),
                "{method} {path}"
            );
        }
    }

    #[test]
    fn a_key_that_is_disabled_or_was_deleted_opens_nothing() {
        let names = Names::new(Arc::new(Database::new(Arc::new(MemoryEngine::new()))));
        let tenant = Tenant::default();
        let key = names.create_access_key(&tenant, &owner("anna")).unwrap();
        assert!(ask_for(&names, &key, Method::GET, "/").is_ok());
        assert!(names.set_access_key(&tenant, &key.id, KeyState::Disabled).unwrap());
        assert_eq!(ask_for(&names, &key, Method::GET, "/"), Err(Code::InvalidAccessKeyId));
        assert!(names.delete_access_key(&tenant, &key.id).unwrap());
        assert_eq!(ask_for(&names, &key, Method::GET, "/"), Err(Code::InvalidAccessKeyId));
    }
}
