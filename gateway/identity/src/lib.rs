//! Who asks ([`Principal`]), for what ([`Action`]), on what ([`Resource`]): the one decision of every door, [`authorize`].
//!
//! Invariant: a [`Permit`] comes out of [`authorize`] and out of nowhere else, so a handler that takes one as an argument
//! cannot be reached without the decision. No async, no I/O: who the caller is has been found out before, and the owner of a
//! resource is part of what is asked. For now the owner may do everything with what is theirs, administrators what running the
//! server takes, whoever has a signed link (`link`) what it names, everybody what a bucket shows to everybody, and nobody else anything;
//! policies come here.

mod action;
mod address;
mod decide;
mod link;

pub use action::Action;
pub use address::{AddressRange, BadAddress};
pub use decide::{Permit, Principal, Refusal, Resource, User, authorize};
pub use link::{Asked, BadLinkKey, Claims, LINK_SECRET_LEN_MIN, Link, LinkKey, LinkKeys, LinkRefusal, ShownLink};
