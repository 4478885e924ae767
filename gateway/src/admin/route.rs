//! The table of routes: method, path, what is done, and the action that is asked for it. A test holds the page for people to it.

use cairn_identity::Action;
use percent_encoding::percent_decode_str;

use crate::admin::error::{AdminError, AdminResult, Code};

macro_rules! routes {
    ($($name:ident $method:literal $path:literal $action:ident;)*) => {
        /// What can be asked for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum Route {
            $($name,)*
        }

        impl Route {
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];

            /// Method, path below the base (`{}` is a place), and action.
            pub(crate) fn row(self) -> (&'static str, &'static str, Action) {
                match self {
                    $(Self::$name => ($method, $path, Action::$action),)*
                }
            }
        }
    };
}

routes! {
    ListTenants "GET" "admin/tenants" ReadTenants;
    GetTenant "GET" "admin/tenants/{}" ReadTenants;
    ListKeys "GET" "admin/keys" ReadKeys;
    CreateKey "POST" "admin/keys" WriteKeys;
    GetKey "GET" "admin/keys/{}" ReadKeys;
    ChangeKey "PATCH" "admin/keys/{}" WriteKeys;
    DeleteKey "DELETE" "admin/keys/{}" WriteKeys;
    ListBuckets "GET" "admin/buckets" ReadBuckets;
    CreateBucket "POST" "admin/buckets" WriteBuckets;
    GetBucket "GET" "admin/buckets/{}" ReadBuckets;
    ChangeBucket "PATCH" "admin/buckets/{}" WriteBuckets;
    DeleteBucket "DELETE" "admin/buckets/{}" WriteBuckets;
    GetUsage "GET" "admin/buckets/{}/usage" ReadBuckets;
    ListVersions "GET" "admin/buckets/{}/versions" ReadVersions;
    DiffVersions "GET" "admin/buckets/{}/diff" ReadVersions;
    RestoreVersion "POST" "admin/buckets/{}/restore" RestoreVersions;
    ListBackups "GET" "admin/backups" ReadBackups;
    CreateBackup "POST" "admin/backups" WriteBackups;
    GetUpkeep "GET" "admin/upkeep/{}" ReadUpkeep;
    StartUpkeep "POST" "admin/upkeep/{}" RunUpkeep;
    SearchObjects "GET" "objects/search" SearchObjects;
}

/// The base of all paths, and its alias.
const BASES: [&str; 2] = ["/api/v1/", "/v1/"];

/// The path below the base; `None`: it is no path of this API.
pub(crate) fn below_base(path: &str) -> Option<&str> {
    BASES.iter().find_map(|base| path.strip_prefix(base))
}

impl Route {
    /// The route of a request, with what its path has in its places.
    ///
    /// - `path`: below the base, as it came.
    /// - Errors: `NoRoute`, `MethodNotAllowed`.
    pub(crate) fn of(method: &str, path: &str) -> AdminResult<(Self, Vec<String>)> {
        let mut allowed = Vec::new();
        for &route in Self::ALL {
            let (of_method, pattern, _) = route.row();
            let Some(places) = match_path(pattern, path) else {
                continue;
            };
            // HEAD is GET without the body.
            if of_method == method || (of_method == "GET" && method == "HEAD") {
                return Ok((route, places));
            }
            allowed.push(of_method);
        }
        if allowed.is_empty() {
            return Err(Code::NoRoute.into());
        }
        Err(AdminError::allowing(&allowed))
    }

    /// What of the index it asks, for metrics.
    pub(crate) fn domain(self) -> &'static str {
        match self {
            Self::SearchObjects => "search",
            route => route.row().2.name().split(':').next().unwrap_or_default(),
        }
    }
}

fn match_path(pattern: &str, path: &str) -> Option<Vec<String>> {
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    let mut places = Vec::new();
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return Some(places),
            (Some("{}"), Some(segment)) if !segment.is_empty() => {
                places.push(percent_decode_str(segment).decode_utf8().ok()?.into_owned());
            }
            (Some(word), Some(segment)) if word == segment => {}
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_found_by_its_own_path_and_no_other() {
        for &route in Route::ALL {
            let (method, pattern, action) = route.row();
            assert!(action.is_administration(), "{pattern}");
            let (found, places) = Route::of(method, &pattern.replace("{}", "a%2Fb")).unwrap();
            assert_eq!(found, route);
            assert!(places.iter().all(|place| place == "a/b"));
        }
        for path in [
            "",
            "admin",
            "admin/",
            "admin/buckets/",
            "admin/buckets//usage",
            "admin/nothing",
            "objects/search/x",
        ] {
            assert_eq!(Route::of("GET", path).unwrap_err().code, Code::NoRoute, "{path}");
        }
        assert_eq!(
            Route::of("PUT", "admin/buckets").unwrap_err().code,
            Code::MethodNotAllowed
        );
        assert_eq!(Route::of("HEAD", "admin/buckets").unwrap().0, Route::ListBuckets);
    }

    #[test]
    fn both_bases_lead_here() {
        assert_eq!(below_base("/api/v1/admin/keys"), Some("admin/keys"));
        assert_eq!(below_base("/v1/admin/keys"), Some("admin/keys"));
        assert_eq!(below_base("/api/v2/admin/keys"), None);
    }

    /// Goal: the page for people names every route, and no other.
    #[test]
    fn the_page_names_every_route() {
        let page = include_str!("../../../docs/admin.md");
        let written: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("### ")).collect();
        let expected: Vec<String> = Route::ALL
            .iter()
            .map(|route| {
                let (method, pattern, _) = route.row();
                let path = match pattern {
                    pattern if pattern.starts_with("admin/buckets/") => pattern.replace("{}", "{bucket}"),
                    pattern if pattern.starts_with("admin/keys/") => pattern.replace("{}", "{id}"),
                    pattern if pattern.starts_with("admin/upkeep/") => pattern.replace("{}", "{task}"),
                    pattern => pattern.replace("{}", "{tenant}"),
                };
                format!("{method} /api/v1/{path}")
            })
            .collect();
        assert_eq!(written, expected);
    }
}
