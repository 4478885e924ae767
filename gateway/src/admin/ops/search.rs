//! `objects/search`: objects of a tenant, or of one bucket, by what is said of them.
//!
//! No request reads more than [`cairn_index::names::SEARCH_KEYS_MAX`] rows: a page may be short, or empty, and still say where to go on.

use std::ops::RangeInclusive;

use cairn_identity::Permit;
use cairn_index::names::{BucketName, Owner, SEARCH_PAIRS_MAX, Search, TenantSearchPlace};
use serde_json::json;

use crate::admin::error::{AdminError, AdminResult};
use crate::admin::query::{Query, cursor};
use crate::admin::request::{Answer, Ask};
use crate::admin::service::Core;
use crate::admin::shapes;

/// Objects to which all that is asked applies.
pub(in crate::admin) fn objects(core: &Core, _permit: Permit, mut ask: Ask) -> AdminResult<Answer> {
    let (tenant, limit) = (ask.tenant()?, ask.query.take_limit()?);
    let only = ask
        .query
        .take("bucket")
        .map(|name| BucketName::new(&name))
        .transpose()?;
    let place = ask.query.take_cursor()?;
    let place = place.map(|place| TenantSearchPlace::from_bytes(&place)).transpose()?;
    let search = read(&mut ask.query)?;
    ask.end()?;
    let buckets = core.names().buckets(&tenant);
    let page = buckets.search(&search, only.as_ref(), place.as_ref(), limit)?;
    let shown = page.objects.iter().map(|found| {
        let object = &found.object;
        shapes::version(&found.bucket, &object.key, &object.version).into()
    });
    let next = page.next.map(|next| cursor(next.to_bytes()));
    let mut answer = shapes::page("objects", shown.collect(), next);
    answer["scanned"] = json!(page.scanned);
    Ok(Answer::ok(answer))
}

fn read(query: &mut Query) -> AdminResult<Search> {
    let pairs = |query: &mut Query, prefix: &str| {
        let pairs = query.take_all(prefix);
        if pairs.len() > SEARCH_PAIRS_MAX {
            return Err(AdminError::field(prefix, "at most 10 of them"));
        }
        Ok(pairs)
    };
    let size = (query.take_number("size_min")?, query.take_number("size_max")?);
    let created = (query.take_time("created_from")?, query.take_time("created_to")?);
    Ok(Search {
        prefix: query.take("prefix").unwrap_or_default(),
        tags: pairs(query, "tag.")?,
        metadata: pairs(query, "meta.")?,
        content_type: query.take("content_type"),
        owner: query.take("owner").map(|owner| Owner::new(&owner)).transpose()?,
        size: range(size),
        created_ms: range(created),
    })
}

/// Both ends are included.
fn range(ends: (Option<u64>, Option<u64>)) -> Option<RangeInclusive<u64>> {
    match ends {
        (None, None) => None,
        (from, to) => Some(from.unwrap_or(0)..=to.unwrap_or(u64::MAX)),
    }
}
