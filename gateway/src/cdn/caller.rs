//! Who asks: everybody, whoever has a signed link, an access key, a service; and the one decision.
//!
//! Words that are shown in the request itself have to be right: an `Authorization` that opens nothing is 401, a link in the URL that does
//! not 403. A cookie is sent by browsers to all that is below its path: one that opens nothing counts as not sent.

use std::net::IpAddr;
use std::sync::Arc;

use cairn_identity::{
    Action, AddressRange, Asked, LinkRefusal, Permit, Principal, Resource, ShownLink, User, authorize,
};
use cairn_index::Objects;
use cairn_index::names::{Bucket, BucketName};
use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, StatusCode};

use super::caching::Audience;
use super::{Answer, Ask, Core, Refused};
use crate::faces::caller::{self, Caller, Need};
use crate::s3::uri::Query;

/// Name of the cookie that holds a signed link.
const COOKIE_NAME: &str = "cairn-cdn";
/// Cookies of that name that are looked at: a browser sends one for each path that fits.
const COOKIES_MAX: usize = 8;
/// Addresses in `X-Forwarded-For` that are looked at.
const HOPS_MAX: usize = 16;

/// A request that is allowed.
pub(super) struct Admitted {
    pub(super) permit: Permit,
    pub(super) bucket: Bucket,
    pub(super) audience: Audience,
}

/// A bucket by its name, which is one for the whole server.
pub(super) fn bucket(objects: &Objects, name: &str) -> cairn_index::Result<Option<Bucket>> {
    let (names, name) = (objects.names(), BucketName::new(name)?);
    let Some(tenant) = names.tenant_of_bucket(&name)? else {
        return Ok(None);
    };
    match names.buckets(&tenant).get(&name) {
        Err(cairn_index::Error::NoBucket { .. }) => Ok(None),
        found => found.map(Some),
    }
}

/// The client's address: that of the connection, or what proxies that are believed say it is.
pub(super) fn address(peer: IpAddr, headers: &HeaderMap, proxies: &[AddressRange]) -> IpAddr {
    let is_believed = |address: IpAddr| proxies.iter().any(|range| range.contains(address));
    let values = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok());
    let hops: Vec<&str> = values.flat_map(|value| value.split(',')).map(str::trim).collect();
    let mut client = peer;
    // The last is who spoke to the nearest proxy; what stands in front of somebody who is not believed says nothing.
    for hop in hops.iter().rev().take(HOPS_MAX) {
        if !is_believed(client) {
            break;
        }
        match hop.parse::<IpAddr>() {
            Ok(address) => client = address.to_canonical(),
            Err(_) => break,
        }
    }
    client
}

/// Finds out who asks, and decides.
///
/// - `found`: the bucket, if there is one.
/// - Errors: 401, 403; 404 for a bucket that is not there, to those alone who show something.
pub(super) fn admit(core: &Core, ask: &Ask, found: Option<Bucket>) -> Answer<Admitted> {
    let (principal, shown) = identify(core, ask, found.as_ref())?;
    let missing = || Refused::Missing("no-store".to_owned());
    let Some(bucket) = found else {
        return Err(match principal {
            Principal::Anonymous => unknown("missing", UNKNOWN),
            _ => missing(),
        });
    };
    let (tenant, owner) = (bucket.tenant().as_str(), bucket.record.owner.as_str());
    let (name, key) = (bucket.name().as_str(), ask.key.as_str());
    let is_public = is_public(ask, &bucket);
    let resource = if is_public {
        Resource::PublicObject {
            tenant,
            owner,
            bucket: name,
            key,
        }
    } else {
        Resource::Object {
            tenant,
            owner,
            bucket: name,
            key,
        }
    };
    let action = match ask.version {
        Some(_) => Action::GetObjectVersion,
        None => Action::GetObject,
    };
    let permit = authorize(&principal, action, resource).map_err(|_| match principal {
        Principal::Anonymous => unknown("missing", UNKNOWN),
        // Another's bucket is not there.
        _ => missing(),
    })?;
    let audience = if is_public { Audience::Everybody } else { shown };
    Ok(Admitted {
        permit,
        bucket,
        audience,
    })
}

const UNKNOWN: &str = "this is not for everybody: it needs a signed link, or an authorization";

/// Whether everybody reads it. Older versions are for those who show something.
fn is_public(ask: &Ask, bucket: &Bucket) -> bool {
    ask.version.is_none() && bucket.record.settings.delivery.shows(ask.key.as_str())
}

/// What a request shows.
pub(super) struct Shown {
    pub(super) principal: Principal,
    /// For whom the answer is, unless it is for everybody anyway.
    pub(super) audience: Audience,
    /// Of an authorization: what it is for may be less than what its owner may.
    pub(super) known: Option<Caller>,
}

/// Who asks, and for whom the answer is, unless it is for everybody anyway.
fn identify(core: &Core, ask: &Ask, bucket: Option<&Bucket>) -> Answer<(Principal, Audience)> {
    if let Some(shown) = shown_outright(core, ask)? {
        if let Some(known) = &shown.known {
            let check = known.check_need(&ask.bucket, Need::Read);
            check.map_err(|words| Refused::Words(StatusCode::FORBIDDEN, words.to_owned()))?;
        }
        return Ok((shown.principal, shown.audience));
    }
    if bucket.is_some_and(|bucket| is_public(ask, bucket)) {
        return Ok((Principal::Anonymous, Audience::Everybody));
    }
    Ok(match shown_by_cookie(ask)? {
        Some(shown) => (shown.principal, shown.audience),
        None => (Principal::Anonymous, Audience::Caller),
    })
}

/// What is shown in the request itself, which has to be right.
///
/// Errors: 400, 401, 403.
pub(super) fn shown_outright(core: &Core, ask: &Ask) -> Answer<Option<Shown>> {
    let known_here = &ask.settings;
    if let Some(given) = ask.headers.get(AUTHORIZATION) {
        let wrong = || unknown("wrong", "this authorization opens nothing here");
        let known = caller::identify(core.objects.names(), &known_here.tokens, given.as_bytes())?.ok_or_else(wrong)?;
        let user: Arc<User> = Arc::clone(known.user());
        return Ok(Some(Shown {
            principal: Principal::User(user),
            audience: Audience::Caller,
            known: Some(known),
        }));
    }
    let Some(shown) = ShownLink::of(ask.query.pairs()).map_err(refusal)? else {
        return Ok(None);
    };
    let version = ask.version.map(|id| id.to_string());
    let asked = asked(ask, version.as_deref());
    let (link, expires) = shown.check(&known_here.keys, &asked).map_err(refusal)?;
    let audience = match shown.is_bound() {
        true => Audience::Caller,
        false => Audience::Url(expires.saturating_sub(ask.now)),
    };
    Ok(Some(Shown {
        principal: Principal::Link(Arc::new(link)),
        audience,
        known: None,
    }))
}

/// The first link of a cookie that opens what is asked for.
///
/// Errors: what is wrong with the last one, if none does.
pub(super) fn shown_by_cookie(ask: &Ask) -> Answer<Option<Shown>> {
    let version = ask.version.map(|id| id.to_string());
    let asked = asked(ask, version.as_deref());
    let mut why = None;
    for cookie in cookies(&ask.headers).take(COOKIES_MAX) {
        let opened = Query::parse(Some(cookie))
            .map_err(|_| LinkRefusal::Malformed)
            .and_then(|words| {
                let shown = ShownLink::of(words.pairs())?.ok_or(LinkRefusal::Malformed)?;
                shown.check(&ask.settings.keys, &asked)
            });
        match opened {
            Ok((link, _)) => {
                return Ok(Some(Shown {
                    principal: Principal::Link(Arc::new(link)),
                    audience: Audience::Caller,
                    known: None,
                }));
            }
            Err(refused) => why = Some(refused),
        }
    }
    why.map_or(Ok(None), |refused| Err(refusal(refused)))
}

/// What a link has to be for.
fn asked<'a>(ask: &'a Ask, version: Option<&'a str>) -> Asked<'a> {
    Asked {
        bucket: &ask.bucket,
        key: ask.key.as_str(),
        version,
        address: ask.address,
        now: ask.now,
    }
}

/// Values of the cookies that hold links.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = values
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    pairs
        .filter(|(name, _)| *name == COOKIE_NAME)
        .map(|(_, value)| value.trim_matches('"'))
}

fn unknown(reason: &'static str, words: &'static str) -> Refused {
    metrics::counter!("auth_failures_total", "reason" => reason).increment(1);
    Refused::Unknown(words)
}

fn refusal(refused: LinkRefusal) -> Refused {
    metrics::counter!("auth_failures_total", "reason" => "link").increment(1);
    let status = match refused {
        LinkRefusal::Malformed => StatusCode::BAD_REQUEST,
        _ => StatusCode::FORBIDDEN,
    };
    Refused::Words(status, refused.to_string())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn proxies_that_are_believed_say_who_asks_and_nobody_else_does() {
        let proxies: Vec<AddressRange> = ["10.0.0.0/8", "127.0.0.1"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        let client = |peer: &str, forwarded: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", HeaderValue::from_static(forwarded));
            address(peer.parse().unwrap(), &headers, &proxies).to_string()
        };
        assert_eq!(client("192.0.2.1", "198.51.100.7"), "192.0.2.1");
        assert_eq!(client("127.0.0.1", "198.51.100.7"), "198.51.100.7");
        assert_eq!(client("127.0.0.1", "1.1.1.1, 198.51.100.7, 10.1.1.1"), "198.51.100.7");
        assert_eq!(client("127.0.0.1", "198.51.100.7, nonsense"), "127.0.0.1");
        assert_eq!(client("127.0.0.1", "::ffff:198.51.100.7"), "198.51.100.7");
    }

    #[test]
    fn cookies_are_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(
            COOKIE,
            HeaderValue::from_static("a=b; cairn-cdn=exp=1&sig=2; cairn-cdn=\"x\""),
        );
        headers.append(COOKIE, HeaderValue::from_static("cairn-cdn2=y"));
        assert_eq!(cookies(&headers).collect::<Vec<_>>(), ["exp=1&sig=2", "x"]);
    }
}
