//! Access keys: who may speak for whom at the S3 door. An id is one for the whole server and tells the tenant.
//!
//! The secret is needed in clear to check a signature, so it is kept in clear, in folders that only the server's user opens; it is
//! never shown by `Debug`, and compared nowhere.

use std::fmt;

use super::fields::{Fields, malformed, read};
use super::name::Owner;
use super::{Names, TRIES_MAX, rows};
use crate::kv::{Batch, Check, Commit, Order, Version, ViewExt as _};
use crate::{Error, Key, Result, Table, Tenant};

/// Letters of ids that we make.
const ID_LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Letters of secrets that we make: those that stand in a URL as they are, for `http://id:secret@host/`.
const SECRET_LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Characters of ids and of secrets that we make.
const ID_LEN: usize = 20;
const SECRET_LEN: usize = 40;

/// Id of an access key: 3 to 128 letters, digits, `-` and `_`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccessKeyId(String);

impl AccessKeyId {
    /// An id.
    ///
    /// Errors: [`Error::BadName`].
    pub fn new(id: &str) -> Result<Self> {
        let inside = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if !(3..=128).contains(&id.len()) || !id.bytes().all(inside) {
            return Err(Error::BadName {
                what: "access key",
                name: id.chars().take(64).collect(),
                rule: "3 to 128 letters, digits, '-' and '_'",
            });
        }
        Ok(Self(id.to_owned()))
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccessKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The secret of an access key: 8 to 128 visible ASCII characters. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessSecret(String);

impl AccessSecret {
    /// A secret; the error does not show it.
    ///
    /// Errors: [`Error::BadName`].
    pub fn new(secret: &str) -> Result<Self> {
        if !(8..=128).contains(&secret.len()) || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::BadName {
                what: "secret",
                name: "…".to_owned(),
                rule: "8 to 128 visible ASCII characters",
            });
        }
        Ok(Self(secret.to_owned()))
    }

    /// In clear.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AccessSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessSecret(…)")
    }
}

/// Whether a key opens anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// It does.
    Enabled,
    /// Not now.
    Disabled,
}

/// An access key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessKey {
    /// Its id.
    pub id: AccessKeyId,
    /// Its secret.
    pub secret: AccessSecret,
    /// The tenant whose rows it opens.
    pub tenant: Tenant,
    /// Who speaks with it.
    pub owner: Owner,
    /// When it was made, in milliseconds since 1970 UTC.
    pub created_ms: u64,
    /// Whether it opens anything.
    pub state: KeyState,
}

impl AccessKey {
    fn encode(&self) -> Vec<u8> {
        let mut fields = Fields::default();
        fields
            .text(SECRET, self.secret.reveal())
            .text(TENANT, self.tenant.as_str())
            .text(OWNER, self.owner.as_str())
            .number(CREATED, self.created_ms);
        if self.state == KeyState::Disabled {
            fields.number(DISABLED, 1);
        }
        fields.into_value()
    }

    fn decode(id: &AccessKeyId, value: &[u8]) -> Result<Self> {
        let (mut secret, mut tenant, mut owner, mut created_ms) = (None, None, None, 0);
        let mut state = KeyState::Enabled;
        for field in read(value, WHAT)? {
            let field = field?;
            match field.tag {
                SECRET => secret = Some(AccessSecret::new(field.str()?)?),
                TENANT => tenant = Some(Tenant::new(field.str()?)?),
                OWNER => owner = Some(Owner::new(field.str()?)?),
                CREATED => created_ms = field.number()?,
                DISABLED => state = KeyState::Disabled,
                _ => return Err(field.unknown()),
            }
        }
        match (secret, tenant, owner) {
            (Some(secret), Some(tenant), Some(owner)) => Ok(Self {
                id: id.clone(),
                secret,
                tenant,
                owner,
                created_ms,
                state,
            }),
            _ => Err(malformed(WHAT, "half of it is missing")),
        }
    }
}

/// Access keys by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessKeyPage {
    /// The keys.
    pub keys: Vec<AccessKey>,
    /// Go on behind this one; `None`: these were the last.
    pub next: Option<AccessKeyId>,
}

/// Whether the first key was there, or has been made just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstKey {
    /// Made now: the only time at which anybody is told its secret unasked.
    Made(AccessKey),
    /// There are keys.
    There,
}

impl Names {
    /// The key of an id; `None`: there is none. Whether it is enabled is for the caller to see.
    pub fn access_key(&self, id: &AccessKeyId) -> Result<Option<AccessKey>> {
        Ok(self.access_key_row(id)?.map(|(key, _)| key))
    }

    fn access_key_row(&self, id: &AccessKeyId) -> Result<Option<(AccessKey, Version)>> {
        let row = self.kv.get(rows::access_key(id))?;
        row.map(|row| Ok((AccessKey::decode(id, &row.value)?, row.version)))
            .transpose()
    }

    /// Makes a key of random id and secret.
    pub fn create_access_key(&self, tenant: &Tenant, owner: &Owner) -> Result<AccessKey> {
        loop {
            let id = self.letters::<ID_LEN>(ID_LETTERS)?;
            let secret = self.letters::<SECRET_LEN>(SECRET_LETTERS)?;
            let key = AccessKey {
                id: AccessKeyId::new(&id)?,
                secret: AccessSecret::new(&secret)?,
                tenant: tenant.clone(),
                owner: owner.clone(),
                created_ms: self.now_ms(),
                state: KeyState::Enabled,
            };
            if self.put_access_key(&key)? {
                return Ok(key);
            }
        }
    }

    /// Adds a key as it is given. `false`: there is one of its id, which stays as it is.
    pub fn put_access_key(&self, key: &AccessKey) -> Result<bool> {
        let row = rows::access_key(&key.id);
        let mut batch = Batch::new();
        batch.check(&row, Check::Absent).put(row, key.encode());
        batch.put(rows::tenant_key(&key.tenant, &key.id), Vec::new());
        Ok(matches!(self.kv.commit(batch)?, Commit::Done(_)))
    }

    /// Makes the first key of a tenant if it has none.
    pub fn first_access_key(&self, tenant: &Tenant, owner: &Owner) -> Result<FirstKey> {
        let range = Key::of(tenant, Table::TenantKeys).range();
        if self.kv.scan(&range, Order::Forward, 1)?.rows.is_empty() {
            return self.create_access_key(tenant, owner).map(FirstKey::Made);
        }
        Ok(FirstKey::There)
    }

    /// The keys of a tenant by id.
    pub fn access_keys(&self, tenant: &Tenant) -> Result<Vec<AccessKey>> {
        let mut keys = Vec::new();
        self.kv.for_each(Key::of(tenant, Table::TenantKeys).range(), |row, _| {
            let id = rows::read_tenant_key(tenant, &row)?;
            keys.extend(self.access_key(&id)?);
            Ok::<_, Error>(())
        })?;
        Ok(keys)
    }

    /// The key of an id, if it is a tenant's.
    pub fn access_key_of(&self, tenant: &Tenant, id: &AccessKeyId) -> Result<Option<AccessKey>> {
        Ok(self.access_key(id)?.filter(|key| key.tenant == *tenant))
    }

    /// The keys of a tenant by id, page by page.
    ///
    /// - `after`: behind this one, which need not be there.
    pub fn list_access_keys(
        &self,
        tenant: &Tenant,
        after: Option<&AccessKeyId>,
        limit: usize,
    ) -> Result<AccessKeyPage> {
        let mut range = Key::of(tenant, Table::TenantKeys).range();
        if let Some(after) = after {
            range = range.after(rows::tenant_key(tenant, after).as_bytes());
        }
        let scanned = self.kv.scan(&range, Order::Forward, limit)?;
        let ids: Vec<AccessKeyId> = scanned
            .rows
            .iter()
            .map(|(row, _)| rows::read_tenant_key(tenant, row))
            .collect::<Result<_>>()?;
        let next = scanned.rest.and(ids.last().cloned());
        let mut keys = Vec::with_capacity(ids.len());
        for id in &ids {
            keys.extend(self.access_key_of(tenant, id)?);
        }
        Ok(AccessKeyPage { keys, next })
    }

    /// Enables or disables a key of a tenant. `false`: it has none of this id.
    pub fn set_access_key(&self, tenant: &Tenant, id: &AccessKeyId, state: KeyState) -> Result<bool> {
        self.change_access_key(tenant, id, |batch, mut key| {
            key.state = state;
            batch.put(rows::access_key(id), key.encode());
        })
    }

    /// Takes a key of a tenant away. `false`: it has none of this id.
    pub fn delete_access_key(&self, tenant: &Tenant, id: &AccessKeyId) -> Result<bool> {
        self.change_access_key(tenant, id, |batch, _| {
            batch.delete(rows::access_key(id));
            batch.delete(rows::tenant_key(tenant, id));
        })
    }

    fn change_access_key(
        &self,
        tenant: &Tenant,
        id: &AccessKeyId,
        change: impl Fn(&mut Batch, AccessKey),
    ) -> Result<bool> {
        for _ in 0..TRIES_MAX {
            let Some((key, row)) = self.access_key_row(id)?.filter(|(key, _)| key.tenant == *tenant) else {
                return Ok(false);
            };
            let mut batch = Batch::new();
            batch.check(rows::access_key(id), Check::Version(row));
            change(&mut batch, key);
            if let Commit::Done(_) = self.kv.commit(batch)? {
                return Ok(true);
            }
        }
        Err(Error::Contended { what: "an access key" })
    }

    /// Random letters, each as likely as the next.
    fn letters<const N: usize>(&self, letters: &[u8]) -> Result<String> {
        // The number of letters divides 256.
        let chance: [u8; N] = self.chance()?;
        Ok(chance
            .iter()
            .map(|byte| char::from(letters[usize::from(*byte) % letters.len()]))
            .collect())
    }
}

const WHAT: &str = "row of an access key";

const SECRET: u8 = 1;
const TENANT: u8 = 2;
const OWNER: u8 = 3;
const CREATED: u8 = 4;
const DISABLED: u8 = 5;
