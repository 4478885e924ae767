//! From a request to a handler: token, route, body, decision, one job; and from its answer back.
//!
//! Order: the token first, so that who has none learns nothing of what there is; nothing of a body is read before the route is known.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cairn_identity::{Action, Permit, Principal, Resource, User, authorize};
use cairn_index::Objects;
use cairn_index::names::Names;
use cairn_roots::{Body, Grant, Token};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body as HttpBody;
use serde_json::{Map, Value};

use crate::admin::backups::Backups;
use crate::admin::error::{AdminResult, Code};
use crate::admin::ops;
use crate::admin::query::Query;
use crate::admin::request::{Answer, Ask};
use crate::admin::route::{Route, below_base};
use crate::admin::shapes::document;
use crate::admin::upkeep::Upkeep;
use crate::pool::{Pool, PoolOptions};

/// Bytes of a request's body, at most.
const BODY_LEN_MAX: usize = 64 << 10;
/// Time in which a body has to come.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// What the admin door is told.
#[derive(Clone, Debug)]
pub struct AdminOptions {
    /// What callers have to show. An empty one opens nothing.
    pub token: Token,
    /// The label of new buckets.
    pub region: String,
    /// Its work.
    pub pool: PoolOptions,
    /// Who takes backups.
    pub backups: Arc<dyn Backups>,
    /// Who collects and scrubs.
    pub upkeep: Arc<dyn Upkeep>,
}

/// What handlers work with.
#[derive(Debug)]
pub(crate) struct Core {
    objects: Arc<Objects>,
    region: String,
    backups: Arc<dyn Backups>,
    upkeep: Arc<dyn Upkeep>,
}

impl Core {
    pub(crate) fn names(&self) -> &Names {
        self.objects.names()
    }

    pub(crate) fn objects(&self) -> &Arc<Objects> {
        &self.objects
    }

    pub(crate) fn region(&self) -> &str {
        &self.region
    }

    pub(crate) fn backups(&self) -> &dyn Backups {
        &*self.backups
    }

    pub(crate) fn upkeep(&self) -> &dyn Upkeep {
        &*self.upkeep
    }
}

/// The admin door.
#[derive(Debug)]
pub struct Admin {
    core: Arc<Core>,
    pool: Pool,
    grant: Grant,
    caller: Principal,
}

impl Admin {
    /// A door to these objects.
    pub fn new(objects: Arc<Objects>, options: AdminOptions) -> Self {
        let user = User {
            tenant: String::new(),
            id: "admin".to_owned(),
            name: "admin".to_owned(),
        };
        Self {
            core: Arc::new(Core {
                objects,
                region: options.region,
                backups: options.backups,
                upkeep: options.upkeep,
            }),
            pool: Pool::new("admin", options.pool),
            grant: Grant::Tokens(vec![options.token]),
            caller: Principal::Administrator(Arc::new(user)),
        }
    }

    /// Whether a path is one of this door's.
    pub fn takes(path: &str) -> bool {
        below_base(path).is_some()
    }

    /// Answers a request.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    {
        let method = request.method().clone();
        let trace_id = trace_of(request.headers()).unwrap_or_else(|| format!("{:032x}", fastrand::u128(..)));
        match self.try_answer(request, &trace_id).await {
            Ok(answer) if answer.status == StatusCode::NO_CONTENT => {
                let mut response = document(answer.status, &Value::Null);
                *response.body_mut() = Body::empty();
                response
            }
            Ok(answer) => document(answer.status, &answer.body),
            Err(error) => error.reply(&method, &trace_id),
        }
    }

    async fn try_answer<B>(&self, request: Request<B>, trace_id: &str) -> AdminResult<Answer>
    where
        B: HttpBody<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    {
        if !self.grant.admits(request.headers()) {
            return Err(Code::Unauthorized.into());
        }
        let (parts, body) = request.into_parts();
        let path = below_base(parts.uri.path()).ok_or(Code::NoRoute)?;
        let (route, places) = Route::of(parts.method.as_str(), path)?;
        let query = Query::parse(parts.uri.query())?;
        let body = match parts.method {
            Method::POST | Method::PATCH => read_document(body).await?,
            _ => Map::new(),
        };
        self.do_route(route, places, query, body, trace_id).await
    }

    /// The decision on what is asked of the server as a whole, of whoever shows the token.
    pub(crate) fn permit(&self, headers: &HeaderMap, action: Action) -> AdminResult<Permit> {
        if !self.grant.admits(headers) {
            return Err(Code::Unauthorized.into());
        }
        authorize(&self.caller, action, Resource::Service).map_err(|_| Code::Forbidden.into())
    }

    /// Does what a request asks that came another way, and answers with its document.
    ///
    /// - `path`: below the base of the paths.
    pub(crate) async fn call(
        &self,
        headers: &HeaderMap,
        method: &str,
        path: &str,
        query: Option<&str>,
        body: Map<String, Value>,
    ) -> AdminResult<Value> {
        if !self.grant.admits(headers) {
            return Err(Code::Unauthorized.into());
        }
        let (route, places) = Route::of(method, path)?;
        let trace_id = trace_of(headers).unwrap_or_else(|| format!("{:032x}", fastrand::u128(..)));
        let answer = self
            .do_route(route, places, Query::parse(query)?, body, &trace_id)
            .await?;
        Ok(answer.body)
    }

    /// Decides, and does it in one job.
    async fn do_route(
        &self,
        route: Route,
        places: Vec<String>,
        query: Query,
        body: Map<String, Value>,
        trace_id: &str,
    ) -> AdminResult<Answer> {
        let (_, _, action) = route.row();
        let permit = authorize(&self.caller, action, Resource::Service).map_err(|_| Code::Forbidden)?;
        let ask = Ask {
            places,
            query,
            body,
            trace_id: trace_id.to_owned(),
        };
        let core = Arc::clone(&self.core);
        let job = move || dispatch(&core, permit, route, ask);
        self.pool.run_of(route.domain(), job).await
    }
}

fn dispatch(core: &Core, permit: Permit, route: Route, ask: Ask) -> AdminResult<Answer> {
    match route {
        Route::ListTenants => ops::tenants::list(core, permit, ask),
        Route::GetTenant => ops::tenants::get(core, permit, ask),
        Route::ListKeys => ops::keys::list(core, permit, ask),
        Route::CreateKey => ops::keys::create(core, permit, ask),
        Route::GetKey => ops::keys::get(core, permit, ask),
        Route::ChangeKey => ops::keys::change(core, permit, ask),
        Route::DeleteKey => ops::keys::delete(core, permit, ask),
        Route::ListBuckets => ops::buckets::list(core, permit, ask),
        Route::CreateBucket => ops::buckets::create(core, permit, ask),
        Route::GetBucket => ops::buckets::get(core, permit, ask),
        Route::ChangeBucket => ops::buckets::change(core, permit, ask),
        Route::DeleteBucket => ops::buckets::delete(core, permit, ask),
        Route::GetUsage => ops::buckets::usage(core, permit, ask),
        Route::ListVersions => ops::versions::list(core, permit, ask),
        Route::DiffVersions => ops::versions::diff(core, permit, ask),
        Route::RestoreVersion => ops::versions::restore(core, permit, ask),
        Route::ListBackups => ops::backups::list(core, permit, ask),
        Route::CreateBackup => ops::backups::create(core, permit, ask),
        Route::GetUpkeep => ops::upkeep::get(core, permit, ask),
        Route::StartUpkeep => ops::upkeep::start(core, permit, ask),
        Route::SearchObjects => ops::search::objects(core, permit, ask),
    }
}

/// Reads a body that is a document, or nothing at all.
///
/// Errors: `BodyTooLarge`, `BodyTimeout`, `BadDocument`.
async fn read_document<B>(body: B) -> AdminResult<Map<String, Value>>
where
    B: HttpBody<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    let read = Limited::new(body, BODY_LEN_MAX).collect();
    let bytes = match tokio::time::timeout(BODY_TIME_MAX, read).await {
        Err(_) => return Err(Code::BodyTimeout.into()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(Code::BodyTooLarge.into()),
        Ok(Err(_)) => return Err(Code::BadDocument.into()),
        Ok(Ok(body)) => body.to_bytes(),
    };
    if bytes.is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(members)) => Ok(members),
        _ => Err(Code::BadDocument.into()),
    }
}

/// The trace id of a W3C `traceparent` header, if there is one.
fn trace_of(headers: &HeaderMap) -> Option<String> {
    let id = headers.get("traceparent")?.to_str().ok()?.split('-').nth(1)?;
    (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_ascii_lowercase())
}
