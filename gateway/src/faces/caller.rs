//! Who asks: an access key with its secret, or a token of the configuration.
//!
//! An access key comes as HTTP's Basic authorization, which casync and desync send for `http://id:secret@host/…`; it may what its
//! owner may. A token comes as bearer token, as whole `Authorization` value, or as the password of Basic; it is a service's, speaks
//! for an owner, and may be bound to buckets and to reading. Secrets are compared in constant time.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cairn_identity::User;
use cairn_index::Tenant;
use cairn_index::names::{AccessKeyId, KeyState, Names, Owner};
use cairn_roots::Token;
use http::StatusCode;

use super::{Answer, Refused};

/// A token of the configuration, and what it opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceToken {
    /// What is shown.
    pub secret: Token,
    /// In whose tenant it is.
    pub tenant: Tenant,
    /// Whom it speaks for.
    pub owner: Owner,
    /// The buckets that it opens; none are named: all of the owner's.
    pub buckets: Vec<String>,
    /// Whether it writes too.
    pub writable: bool,
    /// Whether it writes results of actions, which others take for what their own commands would make.
    pub action_cache: bool,
}

/// What of a token's rights something takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Writing results of actions.
    WriteResults,
}

/// Somebody who is known.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    user: Arc<User>,
    /// Of a token.
    scope: Option<Scope>,
}

#[derive(Clone, Debug)]
struct Scope {
    buckets: Vec<String>,
    writable: bool,
    action_cache: bool,
}

impl Caller {
    /// Whose rights they have.
    pub(crate) fn user(&self) -> &Arc<User> {
        &self.user
    }

    /// Whom a token speaks for.
    pub(crate) fn of_token(token: &ServiceToken) -> Self {
        Self {
            user: user(&token.tenant, &token.owner),
            scope: Some(Scope {
                buckets: token.buckets.clone(),
                writable: token.writable,
                action_cache: token.action_cache,
            }),
        }
    }

    /// Refuses what a token is not for, before it is asked what its owner may. The error is for people.
    pub(crate) fn check_need(&self, bucket: &str, need: Need) -> Result<(), &'static str> {
        let Some(scope) = &self.scope else { return Ok(()) };
        if !scope.buckets.is_empty() && !scope.buckets.iter().any(|own| own == bucket) {
            return Err("this token is not for this bucket");
        }
        match need {
            Need::Write | Need::WriteResults if !scope.writable => Err("this token only reads"),
            Need::WriteResults if !scope.action_cache => Err("this token writes no results of actions"),
            Need::Read | Need::Write | Need::WriteResults => Ok(()),
        }
    }

    /// [`Caller::check_need`] as an answer.
    pub(super) fn check_scope(&self, bucket: &str, writes: bool) -> Answer<()> {
        let need = if writes { Need::Write } else { Need::Read };
        self.check_need(bucket, need)
            .map_err(|words| Refused::words(StatusCode::FORBIDDEN, words))
    }
}

/// Who shows this `Authorization` value; `None`: nobody that is known.
pub(crate) fn identify(names: &Names, tokens: &[ServiceToken], given: &[u8]) -> cairn_index::Result<Option<Caller>> {
    let basic = basic(given);
    // All of them are looked at, whichever it is.
    let found = tokens.iter().fold(None, |found, token| {
        let shown = token.secret.is_shown_by(given);
        let as_password = basic.as_ref().is_some_and(|(_, password)| token.secret.is(password));
        if shown | as_password { Some(token) } else { found }
    });
    if let Some(token) = found {
        return Ok(Some(Caller::of_token(token)));
    }
    let Some((id, secret)) = basic else { return Ok(None) };
    let Some(id) = std::str::from_utf8(&id).ok().and_then(|id| AccessKeyId::new(id).ok()) else {
        return Ok(None);
    };
    let key = names.access_key(&id)?.filter(|key| key.state == KeyState::Enabled);
    let key = key.filter(|key| Token::new(key.secret.reveal()).is(&secret));
    Ok(key.map(|key| Caller {
        user: user(&key.tenant, &key.owner),
        scope: None,
    }))
}

fn user(tenant: &Tenant, owner: &Owner) -> Arc<User> {
    Arc::new(User {
        tenant: tenant.as_str().to_owned(),
        id: owner.as_str().to_owned(),
        name: owner.as_str().to_owned(),
    })
}

/// User and password of a Basic authorization.
fn basic(given: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (scheme, coded) = given.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"Basic ") {
        return None;
    }
    let mut user = BASE64_STANDARD.decode(coded.trim_ascii()).ok()?;
    let at = user.iter().position(|&byte| byte == b':')?;
    let password = user.split_off(at + 1);
    user.pop();
    Some((user, password))
}

#[cfg(test)]
mod tests {
    use cairn_index::MemoryEngine;

    use super::*;

    fn names() -> Names {
        Names::new(Arc::new(cairn_index::Database::new(Arc::new(MemoryEngine::new()))))
    }

    fn token(secret: &str, buckets: &[&str], writable: bool) -> ServiceToken {
        ServiceToken {
            secret: Token::new(secret),
            tenant: Tenant::default(),
            owner: Owner::new("anna").unwrap(),
            buckets: buckets.iter().map(|&bucket| bucket.to_owned()).collect(),
            writable,
            action_cache: false,
        }
    }

    fn basic_of(user: &str, password: &str) -> Vec<u8> {
        format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))).into_bytes()
    }

    #[test]
    fn a_token_is_shown_in_three_ways_and_opens_what_it_is_for() {
        let (names, tokens) = (names(), [token("other", &[], true), token("s:e", &["abc"], false)]);
        for given in [
            b"Bearer s:e".to_vec(),
            b"s:e".to_vec(),
            basic_of("anybody", "s:e"),
            basic_of("", "s:e"),
        ] {
            let caller = identify(&names, &tokens, &given).unwrap().unwrap();
            assert_eq!(caller.user().id, "anna");
            assert!(caller.check_scope("abc", false).is_ok());
            assert!(caller.check_scope("abc", true).is_err());
            assert!(caller.check_scope("xyz", false).is_err());
        }
        for given in [
            &b"Bearer s"[..],
            b"",
            b"Basic",
            b"Basic !",
            b"Bearer ",
            &basic_of("s:e", ""),
        ] {
            assert!(identify(&names, &tokens, given).unwrap().is_none(), "{given:?}");
        }
        let all = identify(&names, &tokens, b"Bearer other").unwrap().unwrap();
        assert!(all.check_scope("xyz", true).is_ok());
        assert!(all.check_need("xyz", Need::WriteResults).is_err(), "a right of its own");
        let mut token = token("results", &[], true);
        token.action_cache = true;
        assert!(Caller::of_token(&token).check_need("xyz", Need::WriteResults).is_ok());
    }

    #[test]
    fn an_access_key_opens_with_its_own_secret_while_it_is_enabled() {
        let names = names();
        let tenant = Tenant::new("second").unwrap();
        let key = names.create_access_key(&tenant, &Owner::new("bert").unwrap()).unwrap();
        let other = names.create_access_key(&tenant, &Owner::new("carl").unwrap()).unwrap();
        let (id, secret) = (key.id.as_str(), key.secret.reveal());
        let caller = identify(&names, &[], &basic_of(id, secret)).unwrap().unwrap();
        assert_eq!((&*caller.user().tenant, &*caller.user().id), ("second", "bert"));
        assert!(caller.check_scope("any", true).is_ok());
        for given in [
            basic_of(id, other.secret.reveal()),
            basic_of(id, ""),
            basic_of("NOBODY", secret),
            format!("Bearer {secret}").into_bytes(),
        ] {
            assert!(identify(&names, &[], &given).unwrap().is_none());
        }
        names.set_access_key(&tenant, &key.id, KeyState::Disabled).unwrap();
        assert!(identify(&names, &[], &basic_of(id, secret)).unwrap().is_none());
    }
}
