//! Access keys: who may speak for whom at the S3 door. A secret is told once, by the request that makes it.

use cairn_identity::Permit;
use cairn_index::Tenant;
use cairn_index::names::{AccessKey, AccessKeyId, KeyState, Owner};
use serde_json::{Value, json};

use crate::admin::error::{AdminError, AdminResult, Code};
use crate::admin::query::cursor;
use crate::admin::request::{Answer, Ask};
use crate::admin::service::Core;
use crate::admin::shapes;

/// Keys of a tenant by id.
pub(in crate::admin) fn list(core: &Core, _permit: Permit, mut ask: Ask) -> AdminResult<Answer> {
    let (tenant, limit) = (ask.tenant()?, ask.query.take_limit()?);
    let after = match ask.query.take_name_cursor()? {
        None => None,
        Some(id) => Some(AccessKeyId::new(&id).map_err(|_| Code::BadCursor)?),
    };
    ask.end()?;
    let page = core.names().list_access_keys(&tenant, after.as_ref(), limit)?;
    let shown = page.keys.iter().map(|key| shapes::access_key(key).into());
    let next = page.next.map(|next| cursor(next.as_str()));
    Ok(Answer::ok(shapes::page("keys", shown.collect(), next)))
}

/// Makes a key.
pub(in crate::admin) fn create(core: &Core, _permit: Permit, mut ask: Ask) -> AdminResult<Answer> {
    let tenant = tenant_in_body(&mut ask)?;
    let owner = Owner::new(&ask.text("owner")?)?;
    ask.end()?;
    let key = core.names().create_access_key(&tenant, &owner)?;
    let mut shown = shapes::access_key(&key);
    shown.insert("secret".to_owned(), json!(key.secret.reveal()));
    Ok(Answer::created(shown))
}

/// A key.
pub(in crate::admin) fn get(core: &Core, _permit: Permit, mut ask: Ask) -> AdminResult<Answer> {
    let tenant = ask.tenant()?;
    ask.end()?;
    Ok(Answer::ok(shapes::access_key(&find(core, &tenant, &ask)?)))
}

/// Switches a key on or off.
pub(in crate::admin) fn change(core: &Core, _permit: Permit, mut ask: Ask) -> AdminResult<Answer> {
    let tenant = ask.tenant()?;
    let state = match ask.body.remove("enabled") {
        Some(Value::Bool(true)) => KeyState::Enabled,
        Some(Value::Bool(false)) => KeyState::Disabled,
        _ => return Err(AdminError::field("enabled", "true or false")),
    };
    ask.end()?;
    let id = id_of(&ask)?;
    if !core.names().set_access_key(&tenant, &id, state)? {
        return Err(Code::NoKey.into());
    }
    Ok(Answer::ok(shapes::access_key(&find(core, &tenant, &ask)?)))
}

/// Takes a key away.
pub(in crate::admin) fn delete(core: &Core, _permit: Permit, mut ask: Ask) -> AdminResult<Answer> {
    let tenant = ask.tenant()?;
    ask.end()?;
    let id = id_of(&ask)?;
    if !core.names().delete_access_key(&tenant, &id)? {
        return Err(Code::NoKey.into());
    }
    Ok(Answer::done())
}

/// The tenant that a body names; `default` if it does not.
pub(super) fn tenant_in_body(ask: &mut Ask) -> AdminResult<Tenant> {
    let named = ask.optional_text("tenant")?;
    Ok(named.map_or(Ok(Tenant::default()), |name| Tenant::new(&name))?)
}

fn id_of(ask: &Ask) -> AdminResult<AccessKeyId> {
    Ok(AccessKeyId::new(ask.place())?)
}

fn find(core: &Core, tenant: &Tenant, ask: &Ask) -> AdminResult<AccessKey> {
    let key = core.names().access_key_of(tenant, &id_of(ask)?)?;
    key.ok_or_else(|| Code::NoKey.into())
}
