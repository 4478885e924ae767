//! A request that was allowed, as handlers see it, and what they answer.

use cairn_identity::User;
use cairn_index::Tenant;
use cairn_index::names::{BucketName, Cause, ObjectKey, VersionId};
use http::StatusCode;
use serde_json::{Map, Value};

use crate::admin::error::{AdminError, AdminResult};
use crate::admin::query::Query;

/// A request that was allowed.
#[derive(Debug)]
pub(crate) struct Ask {
    /// What the route's path has in its places, in order.
    pub(crate) places: Vec<String>,
    pub(crate) query: Query,
    /// The body's members; none of a request that has no body.
    pub(crate) body: Map<String, Value>,
    pub(crate) trace_id: String,
}

/// What a handler answers.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn ok(body: impl Into<Value>) -> Self {
        Self {
            status: StatusCode::OK,
            body: body.into(),
        }
    }

    pub(crate) fn created(body: impl Into<Value>) -> Self {
        Self {
            status: StatusCode::CREATED,
            body: body.into(),
        }
    }

    /// Done, and nothing to tell.
    pub(crate) fn done() -> Self {
        Self {
            status: StatusCode::NO_CONTENT,
            body: Value::Null,
        }
    }
}

impl Ask {
    /// The tenant that the request is about; `default` if it does not say.
    pub(crate) fn tenant(&mut self) -> AdminResult<Tenant> {
        let named = self.query.take("tenant");
        Ok(named.map_or(Ok(Tenant::default()), |name| Tenant::new(&name))?)
    }

    /// The bucket that the path names.
    pub(crate) fn bucket(&self) -> AdminResult<BucketName> {
        Ok(BucketName::new(self.place())?)
    }

    /// The first place of the path.
    pub(crate) fn place(&self) -> &str {
        self.places.first().map_or("", String::as_str)
    }

    /// A text that has to be in the body.
    pub(crate) fn text(&mut self, name: &str) -> AdminResult<String> {
        self.optional_text(name)?
            .ok_or_else(|| AdminError::field(name, "it has to be there"))
    }

    /// A text of the body.
    pub(crate) fn optional_text(&mut self, name: &str) -> AdminResult<Option<String>> {
        match self.body.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(AdminError::field(name, "a text")),
        }
    }

    /// Nothing may be left of query and body.
    pub(crate) fn end(&mut self) -> AdminResult<()> {
        std::mem::take(&mut self.query).end()?;
        match self.body.keys().next() {
            None => Ok(()),
            Some(name) => Err(AdminError::field(name.clone(), "there is no such member here")),
        }
    }

    /// Who and what caused a change.
    pub(crate) fn cause(&self, user: &User) -> Cause {
        Cause {
            source: "api".to_owned(),
            actor: Some(user.id.clone()),
            trace_id: Some(self.trace_id.clone()),
        }
    }
}

/// A key of an object, of a parameter or member.
pub(crate) fn object_key(text: String) -> AdminResult<ObjectKey> {
    Ok(ObjectKey::new(text)?)
}

/// A version's id, of a parameter or member.
pub(crate) fn version_id(name: &str, text: &str) -> AdminResult<VersionId> {
    VersionId::parse(text).map_err(|_| AdminError::field(name, "null, or 40 of 0-9 and a-f"))
}
