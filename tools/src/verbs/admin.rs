//! `bucket`, `object`, `key`, `tenant`: what the admin API of a running server does, and what it says of it.

use serde_json::{Map, Value, json};

use crate::admin::{Caller, Method, Parameters};
use crate::cli::{BucketArgs, BucketVerb, KeyArgs, KeyVerb, ObjectArgs, ObjectVerb, Search, TenantArgs, TenantVerb};
use crate::context::{Context, print};
use crate::failure::{Failure, Outcome};

/// Buckets.
pub(crate) fn bucket(context: &Context, arguments: &BucketArgs) -> Outcome {
    let caller = Caller::new(context, &arguments.reaching)?;
    let tenant = arguments.reaching.tenant.as_str();
    let of_tenant = [("tenant", tenant)];
    match &arguments.verb {
        BucketVerb::List { prefix, owner } => {
            let parameters = [("tenant", tenant), ("prefix", prefix), ("owner", owner)];
            list(
                context,
                &caller,
                &["admin", "buckets"],
                "buckets",
                &parameters,
                |bucket| {
                    format!(
                        "{}  {}  {}",
                        word(bucket, "created_at"),
                        word(bucket, "owner"),
                        word(bucket, "name")
                    )
                },
            )
        }
        BucketVerb::Show { bucket } => {
            let shown = caller.ask(Method::GET, &["admin", "buckets", bucket], &of_tenant, None)?;
            context.report(&shown, &show_bucket(&shown))
        }
        BucketVerb::Create {
            bucket,
            settings,
            owner,
        } => {
            let mut body = json!({ "name": bucket, "tenant": tenant, "settings": settings_of(settings)? });
            if let Some(owner) = owner {
                body["owner"] = json!(owner);
            }
            let made = caller.ask(Method::POST, &["admin", "buckets"], &[], Some(&body))?;
            context.report(&made, &show_bucket(&made))
        }
        BucketVerb::Set { bucket, settings } => {
            let body = json!({ "settings": settings_of(settings)? });
            let changed = caller.ask(Method::PATCH, &["admin", "buckets", bucket], &of_tenant, Some(&body))?;
            context.report(&changed, &show_bucket(&changed))
        }
        BucketVerb::Delete { bucket } => {
            caller.ask(Method::DELETE, &["admin", "buckets", bucket], &of_tenant, None)?;
            context.report(&json!({ "deleted": bucket }), &format!("deleted {bucket}"))
        }
    }
}

/// Objects.
pub(crate) fn object(context: &Context, arguments: &ObjectArgs) -> Outcome {
    let caller = Caller::new(context, &arguments.reaching)?;
    let tenant = arguments.reaching.tenant.as_str();
    match &arguments.verb {
        ObjectVerb::Versions { bucket, key, prefix } => {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let (key, prefix) = (text(key), text(prefix));
            let parameters = [("tenant", tenant), ("key", &key), ("prefix", &prefix)];
            let path = ["admin", "buckets", bucket, "versions"];
            list(context, &caller, &path, "versions", &parameters, |version| {
                let what = match version["delete_marker"].as_bool() {
                    Some(true) => "deleted".to_owned(),
                    _ => version["size"].to_string(),
                };
                let latest = if version["latest"] == json!(true) { "*" } else { " " };
                let (id, at) = (word(version, "version_id"), word(version, "created_at"));
                format!("{id:40} {latest} {at} {what:>14}  {}", word(version, "key"))
            })
        }
        ObjectVerb::Diff {
            bucket,
            key,
            from,
            to,
            other_key,
        } => {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let (from, to, other) = (text(from), text(to), text(other_key));
            let parameters = [
                ("tenant", tenant),
                ("key", key),
                ("from", &from),
                ("to", &to),
                ("other_key", &other),
            ];
            let diff = caller.ask(Method::GET, &["admin", "buckets", bucket, "diff"], &parameters, None)?;
            context.report(&diff, &show_diff(&diff))
        }
        ObjectVerb::Restore {
            bucket,
            key,
            version,
            if_match,
        } => {
            let mut body = json!({ "key": key, "version_id": version });
            if let Some(etag) = if_match {
                body["if_match"] = json!(etag);
            }
            let path = ["admin", "buckets", bucket, "restore"];
            let made = caller.ask(Method::POST, &path, &[("tenant", tenant)], Some(&body))?;
            let words = format!("{key} is version {version} again, as {}", word(&made, "version_id"));
            context.report(&made, &words)
        }
        ObjectVerb::Search(search) => find(context, &caller, tenant, search),
    }
}

fn find(context: &Context, caller: &Caller, tenant: &str, search: &Search) -> Outcome {
    let mut said: Vec<(String, String)> = vec![("tenant".to_owned(), tenant.to_owned())];
    for (name, value) in [
        ("bucket", &search.bucket),
        ("prefix", &search.prefix),
        ("content_type", &search.content_type),
        ("owner", &search.owner),
        ("created_from", &search.created_from),
        ("created_to", &search.created_to),
    ] {
        said.extend(value.iter().map(|value| (name.to_owned(), value.clone())));
    }
    for (name, value) in [("size_min", search.size_min), ("size_max", search.size_max)] {
        said.extend(value.map(|value| (name.to_owned(), value.to_string())));
    }
    for (of, pairs) in [("tag", &search.tag), ("meta", &search.meta)] {
        for pair in pairs {
            let (name, value) = pair_of(pair)?;
            said.push((format!("{of}.{name}"), value.to_owned()));
        }
    }
    let parameters: Vec<(&str, &str)> = said
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    list(
        context,
        caller,
        &["objects", "search"],
        "objects",
        &parameters,
        |found| {
            let (at, size) = (word(found, "created_at"), found["size"].to_string());
            format!("{at} {size:>14}  {}/{}", word(found, "bucket"), word(found, "key"))
        },
    )
}

/// Access keys.
pub(crate) fn key(context: &Context, arguments: &KeyArgs) -> Outcome {
    let caller = Caller::new(context, &arguments.reaching)?;
    let tenant = arguments.reaching.tenant.as_str();
    let of_tenant = [("tenant", tenant)];
    let switch = |id: &str, enabled: bool| {
        let body = json!({ "enabled": enabled });
        let key = caller.ask(Method::PATCH, &["admin", "keys", id], &of_tenant, Some(&body))?;
        context.report(&key, &show_key(&key))
    };
    match &arguments.verb {
        KeyVerb::List => list(context, &caller, &["admin", "keys"], "keys", &of_tenant, show_key),
        KeyVerb::Create { owner } => {
            let body = json!({ "tenant": tenant, "owner": owner });
            let key = caller.ask(Method::POST, &["admin", "keys"], &[], Some(&body))?;
            let words = format!(
                "export AWS_ACCESS_KEY_ID={}\nexport AWS_SECRET_ACCESS_KEY={}",
                word(&key, "id"),
                word(&key, "secret")
            );
            context.report(&key, &words)
        }
        KeyVerb::Enable { id } => switch(id, true),
        KeyVerb::Disable { id } => switch(id, false),
        KeyVerb::Revoke { id } => {
            caller.ask(Method::DELETE, &["admin", "keys", id], &of_tenant, None)?;
            context.report(&json!({ "revoked": id }), &format!("revoked {id}"))
        }
    }
}

/// Tenants.
pub(crate) fn tenant(context: &Context, arguments: &TenantArgs) -> Outcome {
    let caller = Caller::new(context, &arguments.reaching)?;
    match &arguments.verb {
        TenantVerb::List => list(context, &caller, &["admin", "tenants"], "tenants", &[], |tenant| {
            word(tenant, "name").to_owned()
        }),
        TenantVerb::Show => {
            let path = ["admin", "tenants", arguments.reaching.tenant.as_str()];
            let shown = caller.ask(Method::GET, &path, &[], None)?;
            context.report(&shown, &lines_of("usage", &shown["usage"]))
        }
    }
}

/// Prints a listing as it comes: a line an entry, or an object.
fn list(
    context: &Context,
    caller: &Caller,
    path: &[&str],
    name: &str,
    parameters: &Parameters<'_>,
    line: impl Fn(&Value) -> String,
) -> Outcome {
    caller.list(path, name, parameters, |entry| {
        let line = if context.json { entry.to_string() } else { line(entry) };
        print(format!("{line}\n").as_bytes())
    })
}

fn word<'a>(of: &'a Value, name: &str) -> &'a str {
    of[name].as_str().unwrap_or_default()
}

fn pair_of(pair: &str) -> Outcome<(&str, &str)> {
    pair.split_once('=')
        .ok_or_else(|| Failure::usage(format!("{pair}: it is written NAME=VALUE")))
}

/// Settings as the server takes them: numbers, `true`, `false` and `null` are what they look like, all else is text.
fn settings_of(pairs: &[String]) -> Outcome<Map<String, Value>> {
    let mut settings = Map::new();
    for pair in pairs {
        let (name, text) = pair_of(pair)?;
        let value = match text {
            "null" | "none" => Value::Null,
            "true" => json!(true),
            "false" => json!(false),
            text => text.parse::<i64>().map_or_else(|_| json!(text), |number| json!(number)),
        };
        if settings.insert(name.to_owned(), value).is_some() {
            return Err(Failure::usage(format!("{name} is set twice")));
        }
    }
    Ok(settings)
}

fn show_bucket(bucket: &Value) -> String {
    let mut lines = String::new();
    for name in ["name", "tenant", "owner", "region", "created_at"] {
        lines += &format!("{name:16} {}\n", word(bucket, name));
    }
    lines += &lines_of("settings", &bucket["settings"]);
    lines += &lines_of("usage", &bucket["usage"]);
    lines
}

/// A line a member, its name behind that of what it is of where that says more.
fn lines_of(of: &str, members: &Value) -> String {
    let members = members.as_object().into_iter().flatten();
    let line = |(name, value): (&String, &Value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let name = if of == "settings" {
            name.clone()
        } else {
            format!("{of}.{name}")
        };
        format!("{name:16} {text}\n")
    };
    members.map(line).collect()
}

fn show_key(key: &Value) -> String {
    let state = if key["enabled"] == json!(true) { "on" } else { "off" };
    format!(
        "{}  {state:3}  {}  {}",
        word(key, "id"),
        word(key, "created_at"),
        word(key, "owner")
    )
}

fn show_diff(diff: &Value) -> String {
    let sum = |sum: &Value| format!("{} chunks, {} bytes", sum["chunks"], sum["bytes"]);
    let side = |name: &str| {
        let side = &diff[name];
        format!(
            "{name:6} {} of {} bytes: {} of its own\n",
            word(side, "version_id"),
            side["size"],
            sum(&side["only"])
        )
    };
    format!("{}{}{:6} {}\n", side("from"), side("to"), "both", sum(&diff["shared"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_what_they_look_like() {
        let settings = |pairs: &[&str]| settings_of(&pairs.iter().map(|pair| (*pair).to_owned()).collect::<Vec<_>>());
        let taken = settings(&[
            "level=-3",
            "browse=true",
            "quota_bytes=null",
            "chunk_sizes=1:2:3",
            "etag=a=b",
        ]);
        let expected =
            json!({ "level": -3, "browse": true, "quota_bytes": null, "chunk_sizes": "1:2:3", "etag": "a=b" });
        assert_eq!(Value::from(taken.unwrap()), expected);
        assert!(settings(&["level"]).is_err());
        assert!(settings(&["level=1", "level=2"]).is_err());
    }
}
