//! `cairn.v1.Buckets`, `Index` and `Admin`: each call is a request of the admin API, done by its handlers, within its bounds, for those who
//! show its token. What is right or wrong, and what it is called, is decided there; here are only the shapes.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use cairn_proto::cairn::v1 as proto;
use cairn_proto::cairn::v1::{admin_server, buckets_server, index_server};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use prost_types::value::Kind;
use prost_types::{ListValue, Struct};
use serde_json::{Map, Value, json};
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status};

use crate::admin::Admin;
use crate::admin::error::AdminError;
use crate::grpc::Core;
use crate::grpc::error::{busy, wrong_fields};

/// The three services.
#[derive(Clone, Debug)]
pub(in crate::grpc) struct AdminServices(pub(in crate::grpc) Arc<Core>);

/// A request of the admin API that is being put together.
struct Call<'a> {
    metadata: &'a MetadataMap,
    method: &'static str,
    path: String,
    query: String,
    body: Map<String, Value>,
}

impl<'a> Call<'a> {
    /// - `places`: what the path has in place of each `{}`.
    fn new(metadata: &'a MetadataMap, method: &'static str, path: &str, places: &[&str]) -> Self {
        let mut places = places.iter();
        let segments = path.split('/').map(|segment| match segment {
            "{}" => utf8_percent_encode(places.next().unwrap_or(&""), NON_ALPHANUMERIC).to_string(),
            segment => segment.to_owned(),
        });
        Self {
            metadata,
            method,
            path: segments.collect::<Vec<_>>().join("/"),
            query: String::new(),
            body: Map::new(),
        }
    }

    /// A parameter; an empty one is not sent.
    fn ask(mut self, name: &str, value: impl ToString) -> Self {
        let value = value.to_string();
        if !value.is_empty() {
            let name = utf8_percent_encode(name, NON_ALPHANUMERIC);
            let value = utf8_percent_encode(&value, NON_ALPHANUMERIC);
            self.query += &format!("&{name}={value}");
        }
        self
    }

    fn page(self, size: u32, token: &str) -> Self {
        let size = Some(size).filter(|&size| size > 0);
        self.ask("limit", size.map(|size| size.to_string()).unwrap_or_default())
            .ask("cursor", token)
    }

    /// A member of the body; an empty text is not sent.
    fn say(mut self, name: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        if value != json!("") {
            self.body.insert(name.to_owned(), value);
        }
        self
    }

    async fn done(self, core: &Core) -> Result<Value, Status> {
        let admin = admin_of(core)?;
        let query = self.query.strip_prefix('&');
        let answered = admin.call(self.metadata.as_ref(), self.method, &self.path, query, self.body);
        answered.await.map_err(|mut error| {
            for (field, _) in &mut error.fields {
                *field = field_of(&self.path, field);
            }
            status_of(&error)
        })
    }
}

/// The field of our message that a parameter or member of the admin API is.
fn field_of(path: &str, theirs: &str) -> String {
    let ours = match theirs {
        "limit" => "page_size",
        "cursor" => "page_token",
        "tag." => "tags",
        "meta." => "metadata",
        "bucket" | "name" if path.starts_with("admin/buckets") => "name",
        "tenant" | "owner" | "prefix" | "settings" => theirs,
        setting if path.starts_with("admin/buckets") => return format!("settings.{setting}"),
        _ => theirs,
    };
    ours.to_owned()
}

/// The admin API, where it is served.
pub(super) fn admin_of(core: &Core) -> Result<Arc<Admin>, Status> {
    let none = || Status::unimplemented("the admin API is not served here: the setting admin.enabled says so");
    core.admin.get().and_then(Weak::upgrade).ok_or_else(none)
}

/// The admin API's errors: its message, with its code and the fields that are wrong as details.
pub(super) fn status_of(error: &AdminError) -> Status {
    let (status, code, message) = error.code.row();
    let message = format!("{message} ({code})");
    match status {
        400 | 408 | 413 => wrong_fields(&message, &error.fields),
        401 => Status::unauthenticated(message),
        403 if code == "quota_exceeded" => Status::resource_exhausted(message),
        403 => Status::permission_denied(message),
        404 => Status::not_found(message),
        409 | 412 => match code {
            "bucket_exists" | "bucket_name_taken" | "backup_exists" => Status::already_exists(message),
            "contended" | "upkeep_running" => Status::aborted(message),
            _ => Status::failed_precondition(message),
        },
        501 => Status::new(Code::Unimplemented, message),
        503 => busy(&message),
        507 => Status::resource_exhausted(message),
        _ => Status::internal("internal error"),
    }
}

#[tonic::async_trait]
impl buckets_server::Buckets for AdminServices {
    async fn list_buckets(
        &self,
        request: Request<proto::ListBucketsRequest>,
    ) -> Result<Response<proto::ListBucketsResponse>, Status> {
        let asked = request.get_ref();
        let call = Call::new(request.metadata(), "GET", "admin/buckets", &[])
            .ask("tenant", &asked.tenant)
            .ask("prefix", &asked.prefix)
            .ask("owner", &asked.owner)
            .page(asked.page_size, &asked.page_token);
        let answer = call.done(&self.0).await?;
        Ok(Response::new(proto::ListBucketsResponse {
            buckets: entries(&answer, "buckets", bucket),
            next_page_token: text(&answer, "next_cursor"),
        }))
    }

    async fn create_bucket(
        &self,
        request: Request<proto::CreateBucketRequest>,
    ) -> Result<Response<proto::Bucket>, Status> {
        let asked = request.get_ref();
        let mut call = Call::new(request.metadata(), "POST", "admin/buckets", &[])
            .say("tenant", asked.tenant.clone())
            .say("name", asked.name.clone())
            .say("owner", asked.owner.clone());
        if let Some(settings) = &asked.settings {
            call = call.say("settings", json_of(settings)?);
        }
        Ok(Response::new(bucket(&call.done(&self.0).await?)))
    }

    async fn get_bucket(&self, request: Request<proto::GetBucketRequest>) -> Result<Response<proto::Bucket>, Status> {
        let asked = request.get_ref();
        let call =
            Call::new(request.metadata(), "GET", "admin/buckets/{}", &[&asked.name]).ask("tenant", &asked.tenant);
        Ok(Response::new(bucket(&call.done(&self.0).await?)))
    }

    async fn change_bucket(
        &self,
        request: Request<proto::ChangeBucketRequest>,
    ) -> Result<Response<proto::Bucket>, Status> {
        let asked = request.get_ref();
        let mut call =
            Call::new(request.metadata(), "PATCH", "admin/buckets/{}", &[&asked.name]).ask("tenant", &asked.tenant);
        if let Some(settings) = &asked.settings {
            call = call.say("settings", json_of(settings)?);
        }
        Ok(Response::new(bucket(&call.done(&self.0).await?)))
    }

    async fn delete_bucket(
        &self,
        request: Request<proto::DeleteBucketRequest>,
    ) -> Result<Response<proto::DeleteBucketResponse>, Status> {
        let asked = request.get_ref();
        let call =
            Call::new(request.metadata(), "DELETE", "admin/buckets/{}", &[&asked.name]).ask("tenant", &asked.tenant);
        call.done(&self.0).await?;
        Ok(Response::new(proto::DeleteBucketResponse {}))
    }
}

#[tonic::async_trait]
impl index_server::Index for AdminServices {
    async fn search(&self, request: Request<proto::SearchRequest>) -> Result<Response<proto::SearchResponse>, Status> {
        let asked = request.get_ref();
        let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
        let mut call = Call::new(request.metadata(), "GET", "objects/search", &[])
            .ask("tenant", &asked.tenant)
            .ask("bucket", &asked.bucket)
            .ask("prefix", &asked.prefix)
            .ask("content_type", &asked.content_type)
            .ask("owner", &asked.owner)
            .ask("size_min", number(asked.size_min))
            .ask("size_max", number(asked.size_max))
            .ask("created_from", &asked.created_from)
            .ask("created_to", &asked.created_to)
            .page(asked.page_size, &asked.page_token);
        for (prefix, pairs) in [("tag.", &asked.tags), ("meta.", &asked.metadata)] {
            for (name, value) in pairs {
                call = call.ask(&format!("{prefix}{name}"), value);
            }
        }
        let answer = call.done(&self.0).await?;
        Ok(Response::new(proto::SearchResponse {
            objects: entries(&answer, "objects", found),
            scanned: number_of(&answer, "scanned"),
            next_page_token: text(&answer, "next_cursor"),
        }))
    }
}

#[tonic::async_trait]
impl admin_server::Admin for AdminServices {
    async fn get_stats(&self, request: Request<proto::GetStatsRequest>) -> Result<Response<proto::Usage>, Status> {
        let tenant = match request.get_ref().tenant.as_str() {
            "" => "default",
            tenant => tenant,
        };
        let call = Call::new(request.metadata(), "GET", "admin/tenants/{}", &[tenant]);
        Ok(Response::new(usage(&call.done(&self.0).await?["usage"])))
    }

    async fn list_keys(
        &self,
        request: Request<proto::ListKeysRequest>,
    ) -> Result<Response<proto::ListKeysResponse>, Status> {
        let asked = request.get_ref();
        let call = Call::new(request.metadata(), "GET", "admin/keys", &[])
            .ask("tenant", &asked.tenant)
            .page(asked.page_size, &asked.page_token);
        let answer = call.done(&self.0).await?;
        Ok(Response::new(proto::ListKeysResponse {
            keys: entries(&answer, "keys", key),
            next_page_token: text(&answer, "next_cursor"),
        }))
    }

    async fn create_key(
        &self,
        request: Request<proto::CreateKeyRequest>,
    ) -> Result<Response<proto::AccessKey>, Status> {
        let asked = request.get_ref();
        let call = Call::new(request.metadata(), "POST", "admin/keys", &[])
            .say("tenant", asked.tenant.clone())
            .say("owner", asked.owner.clone());
        Ok(Response::new(key(&call.done(&self.0).await?)))
    }

    async fn change_key(
        &self,
        request: Request<proto::ChangeKeyRequest>,
    ) -> Result<Response<proto::AccessKey>, Status> {
        let asked = request.get_ref();
        let call = Call::new(request.metadata(), "PATCH", "admin/keys/{}", &[&asked.id])
            .ask("tenant", &asked.tenant)
            .say("enabled", asked.enabled);
        Ok(Response::new(key(&call.done(&self.0).await?)))
    }

    async fn delete_key(
        &self,
        request: Request<proto::DeleteKeyRequest>,
    ) -> Result<Response<proto::DeleteKeyResponse>, Status> {
        let asked = request.get_ref();
        let call = Call::new(request.metadata(), "DELETE", "admin/keys/{}", &[&asked.id]).ask("tenant", &asked.tenant);
        call.done(&self.0).await?;
        Ok(Response::new(proto::DeleteKeyResponse {}))
    }

    async fn start_collection(
        &self,
        request: Request<proto::StartCollectionRequest>,
    ) -> Result<Response<proto::Upkeep>, Status> {
        self.upkeep(request.metadata(), "POST", "collection").await
    }

    async fn get_collection(
        &self,
        request: Request<proto::GetCollectionRequest>,
    ) -> Result<Response<proto::Upkeep>, Status> {
        self.upkeep(request.metadata(), "GET", "collection").await
    }

    async fn start_scrub(&self, request: Request<proto::StartScrubRequest>) -> Result<Response<proto::Upkeep>, Status> {
        self.upkeep(request.metadata(), "POST", "scrub").await
    }

    async fn get_scrub(&self, request: Request<proto::GetScrubRequest>) -> Result<Response<proto::Upkeep>, Status> {
        self.upkeep(request.metadata(), "GET", "scrub").await
    }
}

impl AdminServices {
    async fn upkeep(
        &self,
        metadata: &MetadataMap,
        method: &'static str,
        task: &str,
    ) -> Result<Response<proto::Upkeep>, Status> {
        let call = Call::new(metadata, method, "admin/upkeep/{}", &[task]);
        let answer = call.done(&self.0).await?;
        Ok(Response::new(proto::Upkeep {
            running: run(&answer["running"]),
            last: run(&answer["last"]),
        }))
    }
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}

fn number_of(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_default()
}

fn entries<T>(answer: &Value, name: &str, of: fn(&Value) -> T) -> Vec<T> {
    answer[name].as_array().into_iter().flatten().map(of).collect()
}

fn pairs(value: &Value) -> HashMap<String, String> {
    let members = value.as_object().into_iter().flatten();
    members
        .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect()
}

fn usage(value: &Value) -> proto::Usage {
    proto::Usage {
        objects: number_of(value, "objects"),
        versions: number_of(value, "versions"),
        bytes: number_of(value, "bytes"),
    }
}

fn bucket(value: &Value) -> proto::Bucket {
    proto::Bucket {
        name: text(value, "name"),
        tenant: text(value, "tenant"),
        owner: text(value, "owner"),
        region: text(value, "region"),
        created_at: text(value, "created_at"),
        settings: value["settings"].as_object().map(struct_of),
        usage: value.get("usage").map(usage),
    }
}

fn key(value: &Value) -> proto::AccessKey {
    proto::AccessKey {
        id: text(value, "id"),
        tenant: text(value, "tenant"),
        owner: text(value, "owner"),
        created_at: text(value, "created_at"),
        enabled: value["enabled"] == json!(true),
        secret: text(value, "secret"),
    }
}

fn run(value: &Value) -> Option<proto::UpkeepRun> {
    let counts = value.as_object()?.get("counts")?.as_object()?;
    let counts = counts
        .iter()
        .filter_map(|(name, count)| Some((name.clone(), count.as_u64()?)));
    Some(proto::UpkeepRun {
        begun_at: text(value, "begun_at"),
        ended_at: text(value, "ended_at"),
        state: text(value, "state"),
        counts: counts.collect(),
    })
}

fn found(value: &Value) -> proto::FoundObject {
    proto::FoundObject {
        bucket: text(value, "bucket"),
        key: text(value, "key"),
        version_id: text(value, "version_id"),
        owner: text(value, "owner"),
        created_at: text(value, "created_at"),
        size: number_of(value, "size"),
        etag: text(value, "etag"),
        content_type: text(value, "content_type"),
        tags: pairs(&value["tags"]),
        metadata: pairs(&value["metadata"]),
    }
}

fn struct_of(members: &Map<String, Value>) -> Struct {
    let fields = members.iter().map(|(name, value)| (name.clone(), value_of(value)));
    Struct {
        fields: fields.collect(),
    }
}

fn value_of(value: &Value) -> prost_types::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(values) => Kind::ListValue(ListValue {
            values: values.iter().map(value_of).collect(),
        }),
        Value::Object(members) => Kind::StructValue(struct_of(members)),
    };
    prost_types::Value { kind: Some(kind) }
}

/// Settings as the admin API has them. Errors: what no setting is: lists, members of members, numbers that are not whole.
fn json_of(settings: &Struct) -> Result<Value, Status> {
    let mut members = Map::new();
    for (name, value) in &settings.fields {
        let wrong = || {
            Err(Status::invalid_argument(format!(
                "settings.{name} is no text, whole number, truth or null"
            )))
        };
        let value = match &value.kind {
            None | Some(Kind::NullValue(_)) => Value::Null,
            Some(Kind::BoolValue(value)) => json!(value),
            Some(Kind::StringValue(text)) => json!(text),
            // What a double holds exactly.
            Some(Kind::NumberValue(number))
                if number.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(number) =>
            {
                json!(*number as u64)
            }
            Some(Kind::NumberValue(number)) if number.fract() == 0.0 && (-1e9..0.0).contains(number) => {
                json!(*number as i64)
            }
            Some(_) => return wrong(),
        };
        members.insert(name.clone(), value);
    }
    Ok(Value::Object(members))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_fields_have_the_names_of_the_messages() {
        for (path, theirs, ours) in [
            ("admin/keys", "limit", "page_size"),
            ("admin/keys", "id", "id"),
            ("admin/buckets", "bucket", "name"),
            ("admin/buckets", "owner", "owner"),
            ("admin/buckets/abc", "chunk_sizes", "settings.chunk_sizes"),
            ("objects/search", "bucket", "bucket"),
            ("objects/search", "tag.", "tags"),
        ] {
            assert_eq!(field_of(path, theirs), ours);
        }
    }
}
