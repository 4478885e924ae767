//! Buckets: list, make with settings, look at, change settings, delete, and what they hold.

use cairn_identity::Permit;
use cairn_index::Tenant;
use cairn_index::names::{Bucket, BucketName, BucketRecord, ListBuckets, NewBucket, Owner};
use serde_json::{Map, Value, json};

use super::keys::tenant_in_body;
use crate::admin::error::{AdminError, AdminResult, Code};
use crate::admin::query::cursor;
use crate::admin::request::{Answer, Ask};
use crate::admin::service::Core;
use crate::admin::shapes;
use crate::settings::{Draft, IsNew, domain_of};

/// Owner of a bucket that is made without one: that of the first access key.
const OWNER_DEFAULT: &str = "admin";

/// Buckets of a tenant by name.
pub(in crate::admin) fn list(core: &Core, _permit: Permit, mut ask: Ask) -> AdminResult<Answer> {
    let (tenant, limit) = (ask.tenant()?, ask.query.take_limit()?);
    let prefix = ask.query.take("prefix").unwrap_or_default();
    let owner = ask.query.take("owner").map(|owner| Owner::new(&owner)).transpose()?;
    let after = match ask.query.take_name_cursor()? {
        None => None,
        Some(name) => Some(BucketName::new(&name).map_err(|_| Code::BadCursor)?),
    };
    ask.end()?;
    let list = ListBuckets {
        prefix: &prefix,
        owner: owner.as_ref(),
        after: after.as_ref(),
        limit,
    };
    let page = core.names().buckets(&tenant).list(&list)?;
    let mut shown = Vec::with_capacity(page.buckets.len());
    for bucket in &page.buckets {
        shown.push(show(core, bucket)?);
    }
    let next = page.next.map(|next| cursor(next.as_str()));
    Ok(Answer::ok(shapes::page("buckets", shown, next)))
}

/// Makes a bucket.
pub(in crate::admin) fn create(core: &Core, _permit: Permit, mut ask: Ask) -> AdminResult<Answer> {
    let tenant = tenant_in_body(&mut ask)?;
    let name = BucketName::new(&ask.text("name")?)?;
    let owner = ask.optional_text("owner")?;
    let mut new = NewBucket::of(Owner::new(owner.as_deref().unwrap_or(OWNER_DEFAULT))?);
    new.region = core.region().to_owned();
    let said = settings_in(&mut ask)?;
    ask.end()?;
    let mut draft = Draft::of_new(&new);
    if let Some(error) = AdminError::of_settings(draft.take(&said, IsNew::Yes)) {
        return Err(error);
    }
    let new = draft.into_new(core.names(), &tenant)?;
    let bucket = core.names().buckets(&tenant).create(&name, new)?;
    Ok(Answer::created(show(core, &bucket)?))
}

/// A bucket, and what it holds.
pub(in crate::admin) fn get(core: &Core, _permit: Permit, mut ask: Ask) -> AdminResult<Answer> {
    let bucket = find(core, &mut ask)?;
    let mut shown = show(core, &bucket)?;
    let usage = core.names().buckets(bucket.tenant()).usage_of(&bucket)?;
    shown["usage"] = shapes::usage(&usage);
    Ok(Answer::ok(shown))
}

/// Changes settings: those that are named.
pub(in crate::admin) fn change(core: &Core, _permit: Permit, mut ask: Ask) -> AdminResult<Answer> {
    let (tenant, name) = (ask.tenant()?, ask.bucket()?);
    let said = settings_in(&mut ask)?;
    ask.end()?;
    let mut wrongs = Vec::new();
    let change = |record: &mut BucketRecord| {
        let mut draft = Draft::of(record);
        wrongs = draft.take(&said, IsNew::No);
        if wrongs.is_empty() {
            *record = draft.record;
        }
        Ok(())
    };
    let bucket = core.names().buckets(&tenant).update(&name, change)?;
    match AdminError::of_settings(wrongs) {
        Some(error) => Err(error),
        None => Ok(Answer::ok(show(core, &bucket)?)),
    }
}

/// Deletes a bucket that is empty.
pub(in crate::admin) fn delete(core: &Core, _permit: Permit, mut ask: Ask) -> AdminResult<Answer> {
    let (tenant, name) = (ask.tenant()?, ask.bucket()?);
    ask.end()?;
    core.names().buckets(&tenant).delete(&name)?;
    Ok(Answer::done())
}

/// What a bucket holds, and what it may hold.
pub(in crate::admin) fn usage(core: &Core, _permit: Permit, mut ask: Ask) -> AdminResult<Answer> {
    let bucket = find(core, &mut ask)?;
    let usage = core.names().buckets(bucket.tenant()).usage_of(&bucket)?;
    let settings = &bucket.record.settings;
    Ok(Answer::ok(json!({
        "usage": shapes::usage(&usage),
        "quota": { "bytes": settings.quota_bytes, "objects": settings.quota_objects },
    })))
}

/// The bucket of a path whose query says no more than the tenant.
fn find(core: &Core, ask: &mut Ask) -> AdminResult<Bucket> {
    let (tenant, name) = (ask.tenant()?, ask.bucket()?);
    ask.end()?;
    find_in(core, &tenant, &name)
}

/// A bucket of a tenant.
pub(super) fn find_in(core: &Core, tenant: &Tenant, name: &BucketName) -> AdminResult<Bucket> {
    Ok(core.names().buckets(tenant).get(name)?)
}

fn show(core: &Core, bucket: &Bucket) -> AdminResult<Value> {
    let domain = domain_of(core.names(), bucket.tenant(), &bucket.record)?;
    Ok(shapes::bucket(bucket, domain))
}

fn settings_in(ask: &mut Ask) -> AdminResult<Map<String, Value>> {
    match ask.body.remove("settings") {
        None => Ok(Map::new()),
        Some(Value::Object(settings)) => Ok(settings),
        Some(_) => Err(AdminError::field(
            "settings",
            "an object with a member for each setting",
        )),
    }
}
