//! Dedup domains: each tenant has its own, and a bucket may have one to itself. Numbers are given once.

use cairn_formats::DomainId;

use super::{Names, TRIES_MAX};
use crate::kv::{Batch, Check, Commit, ViewExt as _};
use crate::{Error, Key, KeyReader, Result, Table, Tenant};

fn last_given() -> Key {
    Key::of_index(Table::Domains)
}

fn of_tenant(tenant: &Tenant) -> Key {
    Key::of(tenant, Table::Domains)
}

impl Names {
    /// The domain that the buckets of a tenant share. That of the tenant `default` is 0.
    pub fn domain_of_tenant(&self, tenant: &Tenant) -> Result<DomainId> {
        if *tenant == Tenant::default() {
            return Ok(DomainId::default());
        }
        for _ in 0..TRIES_MAX {
            let row = of_tenant(tenant);
            if let Some(row) = self.kv.get(&row)? {
                return Ok(DomainId(KeyReader::new(&row.value).u32()?));
            }
            if let Some(domain) = self.give_domain(Some(tenant))? {
                return Ok(domain);
            }
        }
        Err(Error::Contended { what: "domains" })
    }

    /// A domain that nobody has.
    pub fn new_domain(&self) -> Result<DomainId> {
        for _ in 0..TRIES_MAX {
            if let Some(domain) = self.give_domain(None)? {
                return Ok(domain);
            }
        }
        Err(Error::Contended { what: "domains" })
    }

    /// `None`: others came between.
    fn give_domain(&self, tenant: Option<&Tenant>) -> Result<Option<DomainId>> {
        let last = self.kv.get(last_given())?;
        let number = last.as_ref().map_or(Ok(0), |row| KeyReader::new(&row.value).u32())?;
        let next = number.checked_add(1).ok_or(Error::Malformed {
            what: "domains",
            reason: "all numbers have been given",
        })?;
        let mut batch = Batch::new();
        batch
            .check(last_given(), Check::unchanged(last.as_ref()))
            .put(last_given(), next.to_be_bytes().to_vec());
        if let Some(tenant) = tenant {
            batch
                .check(of_tenant(tenant), Check::Absent)
                .put(of_tenant(tenant), next.to_be_bytes().to_vec());
        }
        Ok(match self.kv.commit(batch)? {
            Commit::Done(_) => Some(DomainId(next)),
            Commit::Conflict(_) => None,
        })
    }
}
