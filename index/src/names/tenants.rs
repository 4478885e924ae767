//! Tenants: there is one as long as it has a row of any kind, an access key for instance.

use super::Names;
use crate::kv::Order;
use crate::liveness::tenants_after;
use crate::{Key, Result, Tenant};

/// Tenants by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantPage {
    /// The tenants.
    pub tenants: Vec<Tenant>,
    /// Go on behind this one; `None`: these were the last.
    pub next: Option<Tenant>,
}

impl Names {
    /// Tenants by name: one seek for each.
    ///
    /// - `after`: behind this one, which need not be there.
    pub fn tenants(&self, after: Option<&Tenant>, limit: usize) -> Result<TenantPage> {
        let mut tenants = tenants_after(self.kv.as_ref(), after, limit.saturating_add(1))?;
        let has_more = tenants.len() > limit;
        tenants.truncate(limit);
        let next = tenants.last().filter(|_| has_more).cloned();
        Ok(TenantPage { tenants, next })
    }

    /// Whether there is such a tenant.
    pub fn has_tenant(&self, tenant: &Tenant) -> Result<bool> {
        let range = Key::of_tenant(tenant).range();
        Ok(!self.kv.scan(&range, Order::Forward, 1)?.rows.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::names::Owner;
    use crate::{Database, MemoryEngine};

    #[test]
    fn tenants_are_listed_page_by_page() {
        let names = Names::new(Arc::new(Database::new(Arc::new(MemoryEngine::new()))));
        let tenant = |name: &str| Tenant::new(name).unwrap();
        assert_eq!(names.tenants(None, 2).unwrap(), TenantPage::default());
        for name in ["c", "a", "b", "a.b"] {
            let made = names.create_access_key(&tenant(name), &Owner::new("me").unwrap());
            made.unwrap();
        }
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            let page = names.tenants(after.as_ref(), 2).unwrap();
            assert!(page.tenants.len() <= 2);
            listed.extend(page.tenants);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(listed, ["a", "a.b", "b", "c"].map(tenant));
        assert!(names.has_tenant(&tenant("b")).unwrap());
        assert!(!names.has_tenant(&tenant("bb")).unwrap());
    }
}
