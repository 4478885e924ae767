//! Tenants: who they are, and what they hold. One comes to be with its first access key or bucket.

use cairn_identity::Permit;
use cairn_index::Tenant;
use serde_json::json;

use crate::admin::error::{AdminResult, Code};
use crate::admin::query::cursor;
use crate::admin::request::{Answer, Ask};
use crate::admin::service::Core;
use crate::admin::shapes;

/// Tenants by name.
pub(in crate::admin) fn list(core: &Core, _permit: Permit, mut ask: Ask) -> AdminResult<Answer> {
    let limit = ask.query.take_limit()?;
    let after = match ask.query.take_name_cursor()? {
        None => None,
        Some(name) => Some(Tenant::new(&name).map_err(|_| Code::BadCursor)?),
    };
    ask.end()?;
    let page = core.names().tenants(after.as_ref(), limit)?;
    let shown = page.tenants.iter().map(|tenant| json!({ "name": tenant.as_str() }));
    let next = page.next.map(|next| cursor(next.as_str()));
    Ok(Answer::ok(shapes::page("tenants", shown.collect(), next)))
}

/// A tenant, and what all of its buckets hold.
pub(in crate::admin) fn get(core: &Core, _permit: Permit, mut ask: Ask) -> AdminResult<Answer> {
    let tenant = Tenant::new(ask.place())?;
    ask.end()?;
    if !core.names().has_tenant(&tenant)? {
        return Err(Code::NoTenant.into());
    }
    let usage = core.names().buckets(&tenant).usage()?;
    Ok(Answer::ok(
        json!({ "name": tenant.as_str(), "usage": shapes::usage(&usage) }),
    ))
}
