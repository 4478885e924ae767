//! The decision, and the proof that it was made.

use std::sync::Arc;

use crate::{Action, Link, LinkKeys};

/// Somebody who has shown who they are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct User {
    /// Whose data they see; no list, scan or count crosses it.
    pub tenant: String,
    /// Name of the owner that what they make belongs to; within the tenant.
    pub id: String,
    /// As people call them.
    pub name: String,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// Nobody in particular: the request was not signed.
    Anonymous,
    /// A user whose signature or token was checked.
    User(Arc<User>),
    /// Who runs the server, whose token was checked; of no tenant.
    Administrator(Arc<User>),
    /// Whoever has this link, whose signature, time and address were checked.
    Link(Arc<Link>),
}

/// What is asked for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource<'a> {
    /// The service itself: the caller's own list of buckets, a bucket that is not there yet.
    Service,
    /// A bucket.
    Bucket {
        /// Tenant that it is of.
        tenant: &'a str,
        /// Its owner's [`User::id`].
        owner: &'a str,
        /// Its name.
        bucket: &'a str,
    },
    /// A key of a bucket, whether an object is there or not.
    Object {
        /// Tenant of the bucket.
        tenant: &'a str,
        /// Owner of the bucket.
        owner: &'a str,
        /// The bucket.
        bucket: &'a str,
        /// The key, opaque.
        key: &'a str,
    },
    /// As [`Resource::Object`], of a key that its bucket's settings show to everybody.
    PublicObject {
        /// Tenant of the bucket.
        tenant: &'a str,
        /// Owner of the bucket.
        owner: &'a str,
        /// The bucket.
        bucket: &'a str,
        /// The key, opaque.
        key: &'a str,
    },
}

/// Proof that [`authorize`] said yes: who may, and what. Handlers take it as an argument.
#[derive(Clone, Debug)]
#[must_use]
pub struct Permit {
    user: Arc<User>,
    action: Action,
}

impl Permit {
    /// Who asks.
    pub fn user(&self) -> &User {
        &self.user
    }

    /// What was allowed.
    pub fn action(&self) -> Action {
        self.action
    }
}

/// Why not. The caller is told no more than that access is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request was not signed and nothing here is for everybody.
    #[error("nothing here is for everybody, and the request says not who it is from")]
    Anonymous,
    /// The user is known and may not.
    #[error("only its owner may")]
    NotOwner,
    /// It is for those who run the server, or they ask for what is its owner's alone.
    #[error("that is not for this kind of caller")]
    NotTheirs,
}

/// Whether `principal` may do `action` on `resource`.
///
/// Returns the proof that handlers ask for. Errors: [`Refusal`].
pub fn authorize(principal: &Principal, action: Action, resource: Resource<'_>) -> Result<Permit, Refusal> {
    // What is for everybody is so for whoever shows something, too.
    if let Resource::PublicObject { tenant, .. } = resource
        && action == Action::GetObject
    {
        return Ok(Permit {
            user: match principal {
                Principal::User(user) | Principal::Administrator(user) => Arc::clone(user),
                Principal::Anonymous | Principal::Link(_) => nobody(tenant),
            },
            action,
        });
    }
    let user = match (principal, action.is_administration()) {
        (Principal::Anonymous, _) => return Err(Refusal::Anonymous),
        (Principal::Link(link), _) => return follow(link, action, resource),
        (Principal::Administrator(user), true) => {
            return Ok(Permit {
                user: Arc::clone(user),
                action,
            });
        }
        (Principal::User(user), false) => user,
        (Principal::User(_), true) | (Principal::Administrator(_), false) => return Err(Refusal::NotTheirs),
    };
    let owns = match resource {
        Resource::Service => true,
        Resource::Bucket { tenant, owner, .. }
        | Resource::Object { tenant, owner, .. }
        | Resource::PublicObject { tenant, owner, .. } => user.tenant == tenant && user.id == owner,
    };
    if !owns {
        return Err(Refusal::NotOwner);
    }
    Ok(Permit {
        user: Arc::clone(user),
        action,
    })
}

/// What a link opens: reading, of the keys that it names, and of a version where it names one.
fn follow(link: &Link, action: Action, resource: Resource<'_>) -> Result<Permit, Refusal> {
    let (Resource::Object {
        tenant, bucket, key, ..
    }
    | Resource::PublicObject {
        tenant, bucket, key, ..
    }) = resource
    else {
        return Err(Refusal::NotTheirs);
    };
    let names_version = matches!(&link.keys, LinkKeys::One { version: Some(_), .. });
    let is_for = match action {
        Action::GetObject => !names_version,
        Action::GetObjectVersion => names_version,
        _ => false,
    };
    if !is_for || link.tenant != tenant || link.bucket != bucket || !link.keys.contains(key) {
        return Err(Refusal::NotTheirs);
    }
    Ok(Permit {
        user: nobody(tenant),
        action,
    })
}

/// Somebody without a name.
fn nobody(tenant: &str) -> Arc<User> {
    Arc::new(User {
        tenant: tenant.to_owned(),
        id: String::new(),
        name: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(tenant: &str, id: &str) -> Principal {
        Principal::User(Arc::new(User {
            tenant: tenant.to_owned(),
            id: id.to_owned(),
            name: id.to_owned(),
        }))
    }

    const BUCKET: Resource<'static> = Resource::Bucket {
        tenant: "t",
        owner: "anna",
        bucket: "b",
    };
    const OBJECT: Resource<'static> = Resource::Object {
        tenant: "t",
        owner: "anna",
        bucket: "b",
        key: "k",
    };

    fn of_owners() -> impl Iterator<Item = Action> {
        Action::ALL.iter().copied().filter(|action| !action.is_administration())
    }

    /// Goal: who runs the server may do what that takes, and does not speak for owners; owners may do none of it.
    #[test]
    fn administration_is_for_administrators_and_nothing_else_is() {
        let Principal::User(user) = user("default", "admin") else {
            unreachable!("made as one");
        };
        let (admin, owner) = (Principal::Administrator(Arc::clone(&user)), Principal::User(user));
        for &action in Action::ALL {
            for resource in [Resource::Service, BUCKET, OBJECT] {
                let asked = authorize(&admin, action, resource);
                assert_eq!(asked.is_ok(), action.is_administration(), "{}", action.name());
                if action.is_administration() {
                    assert_eq!(authorize(&owner, action, resource).unwrap_err(), Refusal::NotTheirs);
                }
            }
        }
    }

    #[test]
    fn the_owner_may_do_everything() {
        for action in of_owners() {
            for resource in [Resource::Service, BUCKET, OBJECT] {
                let permit = authorize(&user("t", "anna"), action, resource).unwrap();
                assert_eq!((permit.user().id.as_str(), permit.action()), ("anna", action));
            }
        }
    }

    #[test]
    fn nobody_else_may_do_anything_to_what_is_owned() {
        for action in of_owners() {
            for resource in [BUCKET, OBJECT] {
                // Another user; the same name in another tenant.
                for other in [user("t", "bert"), user("u", "anna")] {
                    assert_eq!(authorize(&other, action, resource).unwrap_err(), Refusal::NotOwner);
                }
            }
        }
    }

    #[test]
    fn who_is_not_known_may_do_nothing_at_all() {
        for &action in Action::ALL {
            for resource in [Resource::Service, BUCKET, OBJECT] {
                let refused = authorize(&Principal::Anonymous, action, resource);
                assert_eq!(refused.unwrap_err(), Refusal::Anonymous);
            }
        }
    }

    const PUBLIC: Resource<'static> = Resource::PublicObject {
        tenant: "t",
        owner: "anna",
        bucket: "b",
        key: "k",
    };

    #[test]
    fn what_is_shown_to_everybody_is_read_by_everybody_and_nothing_else_is_done_to_it() {
        let link = Principal::Link(Arc::new(Link {
            tenant: "t".to_owned(),
            bucket: "c".to_owned(),
            keys: LinkKeys::Under(String::new()),
        }));
        for principal in [Principal::Anonymous, user("u", "bert"), link] {
            for &action in Action::ALL {
                let asked = authorize(&principal, action, PUBLIC);
                assert_eq!(asked.is_ok(), action == Action::GetObject, "{}", action.name());
            }
        }
        assert!(authorize(&user("t", "anna"), Action::DeleteObject, PUBLIC).is_ok());
    }

    #[test]
    fn a_link_reads_the_keys_that_it_names_and_does_nothing_else() {
        let link = |tenant: &str, bucket: &str, keys: LinkKeys| {
            Principal::Link(Arc::new(Link {
                tenant: tenant.to_owned(),
                bucket: bucket.to_owned(),
                keys,
            }))
        };
        let one = |version: Option<&str>| LinkKeys::One {
            key: "k".to_owned(),
            version: version.map(str::to_owned),
        };
        for (principal, action) in [
            (link("t", "b", one(None)), Some(Action::GetObject)),
            (link("t", "b", one(Some("v"))), Some(Action::GetObjectVersion)),
            (link("t", "b", LinkKeys::Under("k".to_owned())), Some(Action::GetObject)),
            (link("t", "b", LinkKeys::Under("kk".to_owned())), None),
            (link("u", "b", one(None)), None),
            (link("t", "c", one(None)), None),
        ] {
            for &asked in Action::ALL {
                for resource in [Resource::Service, BUCKET] {
                    assert!(authorize(&principal, asked, resource).is_err());
                }
                let answer = authorize(&principal, asked, OBJECT);
                assert_eq!(answer.is_ok(), action == Some(asked), "{principal:?} {}", asked.name());
            }
        }
    }
}
