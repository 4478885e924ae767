//! `sign`: makes a link that the CDN's door of a `cairnd` takes, without asking one.

use std::time::{SystemTime, UNIX_EPOCH};

use cairn_identity::{AddressRange, Claims, LinkKey, LinkKeys};
use serde_json::json;
use url::Url;

use crate::cli::Sign;
use crate::context::Context;
use crate::failure::{Failure, Outcome};

/// Holds the secret where no file is named.
const SECRET_VARIABLE: &str = "CAIRN_LINK_SECRET";

/// Prints a signed address, the words to put behind addresses, or a cookie.
pub(crate) fn sign(context: &Context, arguments: &Sign) -> Outcome<()> {
    let secret = secret(arguments)?;
    let key = LinkKey::new(&arguments.key_id, &secret, "", Vec::new())
        .map_err(|error| Failure::usage(format!("key {}: {error}", arguments.key_id)))?;
    if let Some(address) = &arguments.address {
        let parsed: Result<AddressRange, _> = address.parse();
        parsed.map_err(|error| Failure::usage(format!("{address} is {error}")))?;
    }
    let url = Url::parse(&arguments.url).map_err(|error| Failure::usage(format!("{}: {error}", arguments.url)))?;
    let (bucket, name) = object(&arguments.url, &url)?;
    let version = url
        .query_pairs()
        .find(|(name, _)| name == "versionId")
        .map(|(_, id)| id.into_owned());
    let keys = match arguments.prefix {
        true if version.is_some() => {
            return Err(Failure::usage(
                "a prefix opens what is newest; take versionId out of the address",
            ));
        }
        true => LinkKeys::Under(name),
        false if name.is_empty() => {
            return Err(Failure::usage(
                "the address names no object; say --prefix for all of the bucket",
            ));
        }
        false => LinkKeys::One { key: name, version },
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs());
    let expires = arguments
        .expires_at
        .unwrap_or_else(|| now.saturating_add(arguments.expires_in));
    let words = key.sign(&Claims {
        bucket: &bucket,
        keys: &keys,
        expires,
        address: arguments.address.as_deref(),
    });
    let line = if arguments.cookie {
        let seconds = expires.saturating_sub(now);
        let secure = if url.scheme() == "https" { "; Secure" } else { "" };
        format!(
            "Set-Cookie: cairn-cdn={words}; Path={}; Max-Age={seconds}; HttpOnly{secure}",
            url.path()
        )
    } else if arguments.prefix {
        format!("?{words}")
    } else {
        let mark = if url.query().is_some() { '&' } else { '?' };
        format!("{}{mark}{words}", arguments.url)
    };
    context.report(&json!({ "signed": line, "expires": expires }), &line)
}

fn secret(arguments: &Sign) -> Outcome<String> {
    let text = match &arguments.secret_file {
        Some(file) => {
            std::fs::read_to_string(file).map_err(|error| Failure::io(file.display(), "read the secret in", &error))?
        }
        None => std::env::var(SECRET_VARIABLE)
            .map_err(|_| Failure::usage(format!("give --secret-file, or the secret in {SECRET_VARIABLE}")))?,
    };
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Bucket and key of an address, decoded.
fn object(text: &str, url: &Url) -> Outcome<(String, String)> {
    let wrong = || Failure::usage(format!("{text} is no address of an object: …/cdn/BUCKET/KEY"));
    let (bucket, key) = url
        .path()
        .strip_prefix("/cdn/")
        .and_then(|rest| rest.split_once('/'))
        .ok_or_else(wrong)?;
    let key = percent_encoding::percent_decode_str(key)
        .decode_utf8()
        .map_err(|_| wrong())?;
    Ok((bucket.to_owned(), key.into_owned()))
}
