//! Objects by a digest of their bytes: which object a path `/cdn/-/{algorithm}/{digest}` is answered with, and who may.
//!
//! What everybody reads is found first, then what is for whoever shows something: an access key and a token find what their owner may
//! read, a link opens the digest that it was signed for, in its key's tenant, with `-` for the bucket. For all else there is one answer,
//! 404, which says neither whether others have it nor, by its time, whether other tenants do (`Names::shown_by_digest`). It is kept by no cache:
//! another who asks may find something.

use cairn_identity::{Action, Permit, Principal, Resource, authorize};
use cairn_index::names::{Bucket, DigestHolder, ObjectDigest, ObjectKey, ObjectVersion};
use cairn_index::{Objects, Tenant};
use http::StatusCode;

use super::caching::Audience;
use super::caller::{self, Admitted, Shown};
use super::{Answer, Ask, BY_DIGEST, Core, Refused};
use crate::faces::caller::Need;

/// An object that a digest is answered with.
pub(super) struct Holder {
    pub(super) admitted: Admitted,
    pub(super) key: ObjectKey,
    pub(super) version: Box<ObjectVersion>,
}

/// The digest of a path behind the `-`.
///
/// Errors: 400.
pub(super) fn parse(text: &str) -> Answer<ObjectDigest> {
    let words = "a digest is sha256/ or blake3/ and 64 hexadecimal digits in lower case";
    ObjectDigest::parse(text).ok_or_else(|| Refused::Words(StatusCode::BAD_REQUEST, words.to_owned()))
}

/// The bucket whose pages may ask for a digest: that of what everybody reads.
pub(super) fn bucket(objects: &Objects, text: &str) -> Answer<Option<Bucket>> {
    let Some(digest) = ObjectDigest::parse(text) else {
        return Ok(None);
    };
    let found = objects.names().shown_by_digest(&digest)?;
    Ok(found.map(|found| found.bucket))
}

/// Finds the object, and decides.
///
/// Errors: 400, 401, 403 for what the request shows; 404.
pub(super) fn admit(core: &Core, ask: &Ask, digest: &ObjectDigest) -> Answer<Holder> {
    let found = find(core, ask, digest);
    let result = match &found {
        Ok(_) => "found",
        Err(Refused::Missing(_)) => "missing",
        Err(_) => "refused",
    };
    metrics::counter!("cdn_digests_total", "result" => result).increment(1);
    found
}

fn find(core: &Core, ask: &Ask, digest: &ObjectDigest) -> Answer<Holder> {
    let names = core.objects.names();
    let missing = || Refused::Missing("no-store".to_owned());
    let mut shown = caller::shown_outright(core, ask)?;
    if let Some(found) = names.shown_by_digest(digest)? {
        let principal = shown.map_or(Principal::Anonymous, |shown| shown.principal);
        let (tenant, owner) = (found.bucket.tenant().as_str(), found.bucket.record.owner.as_str());
        let resource = Resource::PublicObject {
            tenant,
            owner,
            bucket: found.bucket.name().as_str(),
            key: found.key.as_str(),
        };
        let permit = authorize(&principal, Action::GetObject, resource).map_err(|_| missing())?;
        return Ok(holder(found, permit, Audience::Everybody));
    }
    if shown.is_none() {
        shown = caller::shown_by_cookie(ask)?;
    }
    let Some(shown) = shown else {
        return Err(missing());
    };
    let Some(tenant) = tenant_of(&shown.principal) else {
        return Err(missing());
    };
    let opens = |bucket: &Bucket| permit_of(&shown, digest, bucket, "").is_some();
    let found = names.find_by_digest(&tenant, digest, opens)?.ok_or_else(missing)?;
    let permit = permit_of(&shown, digest, &found.bucket, found.key.as_str()).ok_or_else(missing)?;
    Ok(holder(found, permit, shown.audience))
}

fn holder(found: DigestHolder, permit: Permit, audience: Audience) -> Holder {
    Holder {
        admitted: Admitted {
            permit,
            bucket: found.bucket,
            audience,
        },
        key: found.key,
        version: Box::new(found.version),
    }
}

/// In whose buckets they look.
fn tenant_of(principal: &Principal) -> Option<Tenant> {
    let name = match principal {
        Principal::User(user) => &user.tenant,
        Principal::Link(link) => &link.tenant,
        Principal::Anonymous | Principal::Administrator(_) => return None,
    };
    Tenant::new(name).ok()
}

/// Whether an object of a bucket is for who shows this.
///
/// - `key`: nothing before one is known: no right of an owner depends on it.
fn permit_of(shown: &Shown, digest: &ObjectDigest, bucket: &Bucket, key: &str) -> Option<Permit> {
    let (tenant, owner) = (bucket.tenant().as_str(), bucket.record.owner.as_str());
    let is_for = |bucket: &str| {
        let known = shown.known.as_ref();
        known.is_none_or(|known| known.check_need(bucket, Need::Read).is_ok())
    };
    let named = digest.to_string();
    let resource = match &shown.principal {
        // It was signed for the digest, wherever its bytes are.
        Principal::Link(_) => Resource::Object {
            tenant,
            owner,
            bucket: BY_DIGEST,
            key: &named,
        },
        _ => Resource::Object {
            tenant,
            owner,
            bucket: bucket.name().as_str(),
            key,
        },
    };
    if !is_for(bucket.name().as_str()) {
        return None;
    }
    authorize(&shown.principal, Action::GetObject, resource).ok()
}
