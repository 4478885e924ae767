//! Objects by a digest of their bytes: which object a path `/cdn/-/{algorithm}/{digest}` is answered with, and who may.
//!
//! What is for whoever shows something is found first (an access key and a token find what their owner may read, a link opens the digest
//! that it was signed for, in its key's tenant, with `-` for the bucket), then what everybody reads. Of that nothing is said but the bytes:
//! whoever has the same bytes in a bucket of their own could have any type or coding said of them. For all else there is one answer,
//! 404, which says neither whether others have it nor, by its time, whether other tenants do (`Names::shown_by_digest`). It is kept by no cache:
//! another who asks may find something.

use cairn_identity::{Action, Permit, Principal, Resource, authorize};
use cairn_index::Tenant;
use cairn_index::names::{Bucket, DigestHolder, ObjectDigest, ObjectKey, ObjectVersion};
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
    let missing = || Refused::Missing("no-store".to_owned());
    let shown = caller::shown_outright(core, ask)?;
    if let Some(shown) = &shown
        && let Some(own) = own(core, shown, digest)?
    {
        return Ok(own);
    }
    if let Some(found) = core.objects.names().shown_by_digest(digest)? {
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
    // A browser sends its cookie along whatever it asks for.
    let by_cookie = match shown {
        None => caller::shown_by_cookie(ask)?,
        Some(_) => None,
    };
    let by_cookie = by_cookie.map(|shown| own(core, &shown, digest)).transpose()?;
    by_cookie.flatten().ok_or_else(missing)
}

/// An object that is for who shows this.
fn own(core: &Core, shown: &Shown, digest: &ObjectDigest) -> Answer<Option<Holder>> {
    let Some(tenant) = tenant_of(&shown.principal) else {
        return Ok(None);
    };
    let opens = |bucket: &Bucket| permit_of(shown, digest, bucket, "").is_some();
    let Some(found) = core.objects.names().find_by_digest(&tenant, digest, opens)? else {
        return Ok(None);
    };
    let permit = permit_of(shown, digest, &found.bucket, found.key.as_str());
    Ok(permit.map(|permit| holder(found, permit, shown.audience)))
}

fn holder(mut found: DigestHolder, permit: Permit, audience: Audience) -> Holder {
    if audience == Audience::Everybody {
        found.version.keep_type_alone("application/octet-stream");
    }
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
