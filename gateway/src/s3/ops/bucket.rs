//! Buckets: list, make, look at, delete, and whether they keep versions.

use std::sync::Arc;

use bytes::Bytes;
use cairn_identity::Permit;
use cairn_index::names::{BucketName, ListBuckets, NewBucket, Switch, Versioning};
use cairn_roots::Body;
use http::header::LOCATION;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use hyper::body::Body as HttpBody;

use crate::s3::body::Incoming;
use crate::s3::document::{self, VersioningStatus};
use crate::s3::error::{Code, S3Error, S3Result};
use crate::s3::listing;
use crate::s3::metadata::check_acl;
use crate::s3::request::{Ask, empty, owner_of, set, tenant_of, xml};
use crate::s3::service::Core;
use crate::s3::uri::{decode, encode};
use crate::s3::xml::Writer;
use crate::s3::{date, range};
use crate::settings::{Draft, HEADER_PREFIX, Wrong, WrongSetting, domain_of, show_headers};

/// Buckets of one page.
const BUCKETS_MAX: usize = 10_000;
/// The region whose buckets have no `LocationConstraint`.
const PLAIN_REGION: &str = "us-east-1";

/// ListBuckets: the caller's own, by name.
pub(in crate::s3) async fn list(core: &Core, permit: Permit, ask: Ask) -> S3Result<Response<Body>> {
    let (tenant, owner) = (tenant_of(permit.user())?, owner_of(permit.user())?);
    let limit = match ask.query.filled("max-buckets") {
        None => BUCKETS_MAX,
        Some(text) => match range::number(text).and_then(|number| usize::try_from(number).ok()) {
            Some(number @ 1..=BUCKETS_MAX) => number,
            _ => return Err(Code::InvalidArgument.argument("max-buckets", text)),
        },
    };
    let prefix = ask.query.get("prefix").unwrap_or("").to_owned();
    let after = match ask.query.filled("continuation-token") {
        None => None,
        Some(token) => {
            let wrong = |_| Code::ContinuationTokenInvalid.argument("continuation-token", token);
            Some(BucketName::new(&decode(token).map_err(|_| wrong(()))?).map_err(|_| wrong(()))?)
        }
    };
    let (names, listed_prefix, listed_owner) = (core.names(), prefix.clone(), owner.clone());
    let page = core
        .run(move || {
            let list = ListBuckets {
                prefix: &listed_prefix,
                owner: Some(&listed_owner),
                after: after.as_ref(),
                limit,
            };
            Ok(names.buckets(&tenant).list(&list)?)
        })
        .await?;
    let mut document = Writer::root("ListAllMyBucketsResult");
    listing::owner(&mut document, "Owner", &owner);
    document.open("Buckets");
    for bucket in &page.buckets {
        document.open("Bucket");
        document.text("Name", bucket.name().as_str());
        document.text("CreationDate", date::iso(bucket.record.created_ms));
        document.text("BucketRegion", &bucket.record.region);
        document.close("Bucket");
    }
    document.close("Buckets");
    if !prefix.is_empty() {
        document.text("Prefix", prefix);
    }
    document.optional("ContinuationToken", page.next.map(|next| encode(next.as_str())));
    Ok(xml(document.end("ListAllMyBucketsResult")))
}

/// CreateBucket.
pub(in crate::s3) async fn create<B>(
    core: &Core,
    permit: Permit,
    mut ask: Ask,
    body: Incoming<B>,
) -> S3Result<Response<Body>>
where
    B: HttpBody<Data = Bytes, Error: std::fmt::Display> + Unpin,
{
    let document = ask.document(body).await?;
    let region = core.options().region.clone();
    if let Some(wanted) = document::location_constraint(&document)?
        && wanted != region
    {
        return Err(Code::InvalidLocationConstraint.with("LocationConstraint", wanted));
    }
    check_acl(&ask.headers)?;
    let (tenant, owner) = (tenant_of(permit.user())?, owner_of(permit.user())?);
    let name = BucketName::new(ask.target.bucket().unwrap_or(""))?;
    let locked = ask
        .header("x-amz-bucket-object-lock-enabled")
        .is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let mut new = NewBucket::of(owner.clone());
    new.region = region;
    if locked {
        new.versioning = Versioning::Enabled;
        new.settings.object_lock = Switch::On;
    }
    let mut draft = Draft::of_new(&new);
    let said = ask.headers.iter();
    // What is no text is no setting either.
    let said = said.map(|(name, value)| (name.as_str(), value.to_str().unwrap_or("\u{fffd}")));
    if let Some(wrong) = draft.take_headers(said).into_iter().next() {
        return Err(refuse_setting(&wrong));
    }
    let (names, bucket) = (core.names(), name.clone());
    core.run(
        move || match names.buckets(&tenant).create(&bucket, draft.into_new(&names, &tenant)?) {
            Ok(_) => Ok(()),
            Err(cairn_index::Error::BucketExists { .. }) => {
                let is_own = names.buckets(&tenant).get(&bucket)?.record.owner == owner;
                let code = if is_own {
                    Code::BucketAlreadyOwnedByYou
                } else {
                    Code::BucketAlreadyExists
                };
                Err(code.with("BucketName", bucket.as_str()))
            }
            Err(error) => Err(error.into()),
        },
    )
    .await?;
    let mut response = empty(StatusCode::OK);
    if let Ok(location) = HeaderValue::try_from(format!("/{name}")) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// A setting in a header that cannot be.
fn refuse_setting(setting: &WrongSetting) -> S3Error {
    let header = format!("{HEADER_PREFIX}{}", setting.name.replace('_', "-"));
    match setting.wrong {
        Wrong::NotImplemented(_) => Code::NotImplemented.with("Header", header),
        Wrong::Rule(rule) => Code::InvalidArgument.with("ArgumentName", header).with("Rule", rule),
    }
}

/// HeadBucket. Our own settings are headers of the answer.
pub(in crate::s3) async fn head(core: &Core, _permit: Permit, ask: Ask) -> S3Result<Response<Body>> {
    let bucket = ask.bucket()?;
    let (names, of) = (core.names(), Arc::clone(&bucket));
    let domain = core
        .run(move || Ok(domain_of(&names, of.tenant(), &of.record)?))
        .await?;
    let mut response = empty(StatusCode::OK);
    for (name, text) in show_headers(&bucket.record, domain) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(text)) {
            response.headers_mut().insert(name, value);
        }
    }
    set(response.headers_mut(), "x-amz-bucket-region", &bucket.record.region);
    set(response.headers_mut(), "x-amz-access-point-alias", "false");
    Ok(response)
}

/// GetBucketLocation.
pub(in crate::s3) async fn location(_core: &Core, _permit: Permit, ask: Ask) -> S3Result<Response<Body>> {
    let bucket = ask.bucket()?;
    let mut document = Writer::root("LocationConstraint");
    if bucket.record.region != PLAIN_REGION {
        document.raw(&bucket.record.region);
    }
    Ok(xml(document.end("LocationConstraint")))
}

/// DeleteBucket.
pub(in crate::s3) async fn delete(core: &Core, permit: Permit, ask: Ask) -> S3Result<Response<Body>> {
    let tenant = tenant_of(permit.user())?;
    let (names, bucket) = (core.names(), ask.bucket()?);
    core.run(move || Ok(names.buckets(&tenant).delete(bucket.name())?))
        .await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// GetBucketVersioning.
pub(in crate::s3) async fn versioning(_core: &Core, _permit: Permit, ask: Ask) -> S3Result<Response<Body>> {
    let status = match ask.bucket()?.record.versioning {
        Versioning::Unset => None,
        Versioning::Enabled => Some("Enabled"),
        Versioning::Suspended => Some("Suspended"),
    };
    let mut document = Writer::root("VersioningConfiguration");
    document.optional("Status", status);
    Ok(xml(document.end("VersioningConfiguration")))
}

/// PutBucketVersioning.
pub(in crate::s3) async fn put_versioning<B>(
    core: &Core,
    permit: Permit,
    mut ask: Ask,
    body: Incoming<B>,
) -> S3Result<Response<Body>>
where
    B: HttpBody<Data = Bytes, Error: std::fmt::Display> + Unpin,
{
    let versioning = match document::versioning(&ask.document(body).await?)? {
        VersioningStatus::Enabled => Versioning::Enabled,
        VersioningStatus::Suspended => Versioning::Suspended,
    };
    let tenant = tenant_of(permit.user())?;
    let (names, bucket) = (core.names(), ask.bucket()?);
    core.run(move || {
        let mut is_locked = false;
        let change = |record: &mut cairn_index::names::BucketRecord| {
            // Locks of versions hold only while there are versions.
            is_locked = record.settings.object_lock == Switch::On && versioning == Versioning::Suspended;
            if !is_locked {
                record.versioning = versioning;
            }
            Ok(())
        };
        names.buckets(&tenant).update(bucket.name(), change)?;
        if is_locked {
            return Err(Code::InvalidBucketState.into());
        }
        Ok(())
    })
    .await?;
    Ok(empty(StatusCode::OK))
}

/// GetBucketAcl and GetObjectAcl: ownership is enforced, so the owner has everything and nobody else anything.
pub(in crate::s3) async fn acl(_core: &Core, _permit: Permit, ask: Ask) -> S3Result<Response<Body>> {
    let bucket = ask.bucket()?;
    let owner = &bucket.record.owner;
    let mut document = Writer::root("AccessControlPolicy");
    listing::owner(&mut document, "Owner", owner);
    document.open("AccessControlList");
    document.open("Grant");
    document.raw("<Grantee xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xsi:type=\"CanonicalUser\">");
    document.text("ID", owner.as_str());
    document.text("DisplayName", owner.as_str());
    document.close("Grantee");
    document.text("Permission", "FULL_CONTROL");
    document.close("Grant");
    document.close("AccessControlList");
    Ok(xml(document.end("AccessControlPolicy")))
}

/// GetBucketRequestPayment: the default, which cannot be changed.
pub(in crate::s3) async fn request_payment(_core: &Core, _permit: Permit, _ask: Ask) -> S3Result<Response<Body>> {
    let mut document = Writer::root("RequestPaymentConfiguration");
    document.text("Payer", "BucketOwner");
    Ok(xml(document.end("RequestPaymentConfiguration")))
}

/// GetBucketAccelerateConfiguration: never set.
pub(in crate::s3) async fn accelerate(_core: &Core, _permit: Permit, _ask: Ask) -> S3Result<Response<Body>> {
    let document = Writer::root("AccelerateConfiguration");
    Ok(xml(document.end("AccelerateConfiguration")))
}
