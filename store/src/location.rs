//! Where a store or an index is: the URL forms that desync users know, and local paths.
//!
//! Only `scheme://` makes a URL; everything else is a path, `a_b:c.caibx` and `host:path` included (casync takes the second
//! for a host over SSH, desync refuses the first). A path that looks like a URL is written `./htp://x`. `-` (standard input
//! or output) is the tool's own. Several locations in one text are [`crate::StoreSpec`]'s: `a|b`, `mirror:a|b`. A location is shown without user, password and query: those are secrets.

use std::fmt;
use std::path::PathBuf;

use url::Url;

/// A parsed location of a store or an index.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location {
    /// A path on this machine, or `file://`.
    Local(PathBuf),
    /// `http://` or `https://`.
    Http(HttpLocation),
    /// `ssh://`, a remote casync.
    Ssh(SshLocation),
    /// `s3+http://` or `s3+https://`, a bucket and a place in it.
    S3(S3Location),
    /// `gs://`, a bucket of Google Cloud Storage and a place in it.
    Gs(GsLocation),
    /// `sftp://`, a folder or file behind an SSH server.
    Sftp(SshLocation),
    /// A URL form that later releases open.
    Later(LaterLocation),
}

/// A place in a bucket of an S3 server.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Location {
    /// Scheme, host and port alone.
    endpoint: Url,
    bucket: String,
    /// Without `/` at either end; empty for the bucket itself.
    key: String,
    lookup: S3Lookup,
}

/// A place in a bucket of Google Cloud Storage.
#[derive(Clone, PartialEq, Eq)]
pub struct GsLocation {
    bucket: String,
    /// Without `/` at either end; empty for the bucket itself.
    key: String,
}

/// How a bucket is named in requests (desync's `?lookup=`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum S3Lookup {
    /// In the host name with Amazon, in the path with all others.
    #[default]
    Auto,
    /// In the host name: `bucket.host`.
    Dns,
    /// In the path: `host/bucket`.
    Path,
}

/// An `http` or `https` URL; may carry secrets, which its `Debug` and `Display` leave out.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpLocation {
    url: Url,
}

/// A host that is reached by SSH, and a path on it.
#[derive(Clone, PartialEq, Eq)]
pub struct SshLocation {
    scheme: &'static str,
    user: Option<String>,
    host: String,
    port: Option<u16>,
    path: String,
}

/// A location that this release understands but cannot open.
#[derive(Clone, PartialEq, Eq)]
pub struct LaterLocation {
    url: String,
    /// Which kind of store it is, and which release opens it.
    answer: &'static str,
}

/// Why a text is not a location.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LocationError {
    /// Nothing at all, or nothing between two `|`.
    #[error("empty location (a group is `a|b`, quoted for the shell)")]
    Empty,
    /// `mirror:` with too few members.
    #[error("{text}: a mirror is `mirror:a|b`, or `mirror-N:a|b` with N from 1 to the number of its stores")]
    BadMirror {
        /// What stands before the first member.
        text: String,
    },
    /// No store is named so.
    #[error("{location}: no store or index is named by `{scheme}://` (write ./{scheme}://… for a file of that name)")]
    UnknownScheme {
        /// The location, without secrets.
        location: String,
        /// What stands before `://`.
        scheme: String,
    },
    /// Not a URL by the rules of URLs.
    #[error("{location}: not a URL: {reason}")]
    BadUrl {
        /// The location, without secrets.
        location: String,
        /// What is wrong.
        reason: String,
    },
}

const OCI: &str = "registries as stores are not in a planned release yet";
const FTP: &str = "FTP is not planned: serve the folder over HTTP";

impl Location {
    /// Reads one location; a group (`a|b`) is [`crate::StoreSpec`]'s.
    pub fn parse(text: &str) -> Result<Self, LocationError> {
        if text.is_empty() {
            return Err(LocationError::Empty);
        }
        let Some(scheme) = scheme_of(text) else {
            return Ok(Self::Local(PathBuf::from(text)));
        };
        let later = |answer| {
            Ok(Self::Later(LaterLocation {
                url: without_secrets(text),
                answer,
            }))
        };
        match scheme.to_ascii_lowercase().as_str() {
            "http" | "https" => HttpLocation::parse(text).map(Self::Http),
            "file" => match parse_url(text)?.to_file_path() {
                Ok(path) => Ok(Self::Local(path)),
                Err(()) => Err(LocationError::BadUrl {
                    location: text.to_owned(),
                    reason: "a file URL has three slashes and an absolute path".to_owned(),
                }),
            },
            "s3+http" | "s3+https" => S3Location::parse(text).map(Self::S3),
            "gs" => GsLocation::parse(text).map(Self::Gs),
            "sftp" => SshLocation::parse(text).map(Self::Sftp),
            "ssh" => SshLocation::parse(text).map(Self::Ssh),
            "oci+http" | "oci+https" => later(OCI),
            "ftp" | "ftps" => later(FTP),
            _ => Err(LocationError::UnknownScheme {
                location: without_secrets(text),
                scheme: scheme.to_owned(),
            }),
        }
    }
}

impl Location {
    /// The place in a bucket, without `/` at either end; empty where there is no bucket.
    pub(crate) fn key(&self) -> &str {
        match self {
            Self::S3(s3) => s3.key(),
            Self::Gs(gs) => gs.key(),
            _ => "",
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => path.display().fmt(f),
            Self::Http(http) => http.fmt(f),
            Self::Ssh(ssh) | Self::Sftp(ssh) => ssh.fmt(f),
            Self::S3(s3) => s3.fmt(f),
            Self::Gs(gs) => gs.fmt(f),
            Self::Later(later) => f.write_str(&later.url),
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl HttpLocation {
    /// Reads an `http` or `https` URL.
    pub fn parse(text: &str) -> Result<Self, LocationError> {
        let mut url = parse_url(text)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(LocationError::UnknownScheme {
                location: without_secrets(text),
                scheme: url.scheme().to_owned(),
            });
        }
        url.set_fragment(None);
        Ok(Self { url })
    }

    /// The URL, with its secrets.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }
}

impl fmt::Display for HttpLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.url))
    }
}

impl fmt::Debug for HttpLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl S3Location {
    /// Reads `s3+http[s]://host[:port]/bucket[/prefix][?lookup=auto|dns|path]`.
    ///
    /// Errors: no host or bucket, credentials in the URL, a key that S3 could not hold, another query.
    pub fn parse(text: &str) -> Result<Self, LocationError> {
        let bad = |reason: &str| LocationError::BadUrl {
            location: without_secrets(text),
            reason: reason.to_owned(),
        };
        // The scheme is desync's own; `Url` knows ports and paths only of those that it knows.
        let url = text.split_at_checked(3).map_or(text, |(_, url)| url);
        let mut url = parse_url(url)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad("it has to be s3+http:// or s3+https://"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad(
                "credentials do not belong into the URL: set S3_ACCESS_KEY and S3_SECRET_KEY, or s3-credentials",
            ));
        }
        let mut lookup = S3Lookup::Auto;
        for (name, value) in url.query_pairs() {
            lookup = match (&*name, &*value) {
                ("lookup", "auto") => S3Lookup::Auto,
                ("lookup", "dns") => S3Lookup::Dns,
                ("lookup", "path") => S3Lookup::Path,
                _ => return Err(bad("after ? there can only be lookup=auto, lookup=dns or lookup=path")),
            };
        }
        let path = percent_encoding::percent_decode_str(url.path()).decode_utf8();
        let path = path.map_err(|_| bad("it is not UTF-8"))?.trim_matches('/').to_owned();
        let (bucket, key) = path.split_once('/').unwrap_or((&path, ""));
        if bucket.is_empty() {
            return Err(bad("no bucket: it has to be s3+https://host[:port]/bucket[/prefix]"));
        }
        check_key(bucket, key).map_err(bad)?;
        url.set_query(None);
        url.set_fragment(None);
        url.set_path("");
        Ok(Self {
            endpoint: url,
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            lookup,
        })
    }

    /// Scheme, host and port.
    pub(crate) fn endpoint(&self) -> &Url {
        &self.endpoint
    }

    /// The bucket's name.
    pub(crate) fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The place in the bucket, without `/` at either end.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// How the bucket is named in requests.
    pub(crate) fn lookup(&self) -> S3Lookup {
        self.lookup
    }

    /// `scheme://host[:port]`, by which desync's configuration knows credentials.
    pub fn server(&self) -> String {
        self.endpoint.as_str().trim_end_matches('/').to_owned()
    }
}

impl fmt::Display for S3Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3+{}/{}", self.server(), self.bucket)?;
        if !self.key.is_empty() {
            write!(f, "/{}", self.key)?;
        }
        Ok(())
    }
}

impl fmt::Debug for S3Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl GsLocation {
    /// Reads `gs://bucket[/prefix]`.
    ///
    /// Errors: no bucket, credentials, a port or a query in the URL, a key that cannot be an object's.
    pub fn parse(text: &str) -> Result<Self, LocationError> {
        let bad = |reason: &str| LocationError::BadUrl {
            location: without_secrets(text),
            reason: reason.to_owned(),
        };
        let url = parse_url(text)?;
        if url.scheme() != "gs" {
            return Err(bad("it has to be gs://bucket[/prefix]"));
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err(bad(
                "credentials and options do not belong into the URL: set GOOGLE_APPLICATION_CREDENTIALS",
            ));
        }
        let bucket = url.host_str().unwrap_or_default();
        if bucket.is_empty() || url.port().is_some() {
            return Err(bad("it has to be gs://bucket[/prefix]"));
        }
        let path = percent_encoding::percent_decode_str(url.path()).decode_utf8();
        let path = path.map_err(|_| bad("it is not UTF-8"))?;
        let key = path.trim_matches('/');
        check_key(bucket, key).map_err(bad)?;
        Ok(Self {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
        })
    }

    /// The bucket's name.
    pub(crate) fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The place in the bucket, without `/` at either end.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }
}

impl fmt::Display for GsLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gs://{}", self.bucket)?;
        if !self.key.is_empty() {
            write!(f, "/{}", self.key)?;
        }
        Ok(())
    }
}

impl fmt::Debug for GsLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether objects can lie there. Errors: a word on why not.
fn check_key(bucket: &str, key: &str) -> Result<(), &'static str> {
    if !key.is_empty() && key.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("a prefix cannot have empty parts, `.` or `..`");
    }
    if [bucket, key]
        .concat()
        .contains(|letter: char| letter.is_ascii_control())
    {
        return Err("a control character");
    }
    Ok(())
}

impl SshLocation {
    /// Reads `ssh://[user@]host[:port]/path`, or the same with `sftp`.
    ///
    /// Errors: no host or path, a password, or a host or user that `ssh` would take for an option.
    pub fn parse(text: &str) -> Result<Self, LocationError> {
        let url = parse_url(text)?;
        let bad = |reason: &str| LocationError::BadUrl {
            location: without_secrets(text),
            reason: reason.to_owned(),
        };
        let decode = |part: &str| {
            let bytes = percent_encoding::percent_decode_str(part);
            bytes
                .decode_utf8()
                .map(String::from)
                .map_err(|_| bad("it is not UTF-8"))
        };
        let user = decode(url.username())?;
        let host = decode(url.host_str().unwrap_or_default())?;
        let path = decode(url.path())?;
        if host.is_empty() || path.is_empty() || path.contains('\0') {
            return Err(bad("it has to be ssh://[user@]host[:port]/path, or the same with sftp"));
        }
        if url.password().is_some() {
            return Err(bad(
                "a password does not belong here: ssh asks for it itself, sftp takes keys",
            ));
        }
        if host.starts_with('-') || user.starts_with('-') || user.contains(['@', '\0']) || host.contains('\0') {
            return Err(bad("a host or user that ssh would take for something else"));
        }
        Ok(Self {
            scheme: match url.scheme() {
                "sftp" => "sftp",
                _ => "ssh",
            },
            user: (!user.is_empty()).then_some(user),
            host,
            port: url.port(),
            path,
        })
    }

    /// `[user@]host`, as `ssh` takes it.
    pub fn destination(&self) -> String {
        let host = self.host();
        match &self.user {
            Some(user) => format!("{user}@{host}"),
            None => host.to_owned(),
        }
    }

    /// The user, if one is named.
    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The host alone, without the brackets of an IPv6 address.
    pub(crate) fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The port, if it is not ssh's own choice.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The path on the host.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for SshLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        f.write_str(&self.path)
    }
}

impl fmt::Debug for SshLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl LaterLocation {
    /// Which kind of store it is, and which release opens it.
    pub fn answer(&self) -> &'static str {
        self.answer
    }
}

/// A URL without user, password, query and fragment.
pub(crate) fn shown(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

/// What stands before `://`, if it can be a scheme (RFC 3986, section 3.1).
fn scheme_of(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once("://")?;
    let mut letters = scheme.bytes();
    let well_formed = letters.next().is_some_and(|first| first.is_ascii_alphabetic())
        && letters.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    well_formed.then_some(scheme)
}

fn parse_url(text: &str) -> Result<Url, LocationError> {
    Url::parse(text).map_err(|error| LocationError::BadUrl {
        location: without_secrets(text),
        reason: error.to_string(),
    })
}

/// `scheme://user:password@host/path?query` as `scheme://host/path`, for texts that need not be URLs.
fn without_secrets(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(text: &str, expected: Expect) {
        let answer = match Location::parse(text) {
            Ok(Location::Local(path)) => format!("path {}", path.display()),
            Ok(Location::Http(http)) => format!("http {http}"),
            Ok(Location::Ssh(ssh)) => format!("ssh {} {:?} {}", ssh.destination(), ssh.port(), ssh.path()),
            Ok(Location::Sftp(ssh)) => format!("{ssh} {} {:?} {}", ssh.destination(), ssh.port(), ssh.path()),
            Ok(Location::S3(s3)) => format!("{s3} {} {} {} {:?}", s3.server(), s3.bucket(), s3.key(), s3.lookup()),
            Ok(Location::Gs(gs)) => format!("{gs} {} {}", gs.bucket(), gs.key()),
            Ok(Location::Later(later)) => format!("later {}: {}", later.url, later.answer),
            Err(error) => format!("error {error}"),
        };
        expected.assert_eq(&answer);
    }

    #[test]
    fn paths() {
        check("store.castr", expect!["path store.castr"]);
        check("/srv/a b", expect!["path /srv/a b"]);
        check("a_b:c.caibx", expect!["path a_b:c.caibx"]);
        check("./a_b:c.caibx", expect!["path ./a_b:c.caibx"]);
        check("host:path", expect!["path host:path"]);
        check("./htp://x", expect!["path ./htp://x"]);
        check("file:///srv/a%20b", expect!["path /srv/a b"]);
        check(
            "file://host/srv",
            expect!["error file://host/srv: not a URL: a file URL has three slashes and an absolute path"],
        );
        check(
            "",
            expect!["error empty location (a group is `a|b`, quoted for the shell)"],
        );
    }

    #[test]
    fn places_in_buckets() {
        check(
            "s3+http://h:9000/b/p%20q/r/?lookup=path",
            expect!["s3+http://h:9000/b/p q/r http://h:9000 b p q/r Path"],
        );
        check("S3+HTTPS://h/b", expect!["s3+https://h/b https://h b  Auto"]);
        check(
            "s3+https://h/",
            expect!["error s3+https://h/: not a URL: no bucket: it has to be s3+https://host[:port]/bucket[/prefix]"],
        );
        check(
            "s3+https://h/b//p",
            expect!["error s3+https://h/b//p: not a URL: a prefix cannot have empty parts, `.` or `..`"],
        );
        check(
            "s3+https://h/b?region=x",
            expect![
                "error s3+https://h/b: not a URL: after ? there can only be lookup=auto, lookup=dns or lookup=path"
            ],
        );
        check("gs://b", expect!["gs://b b "]);
        check("GS://b.x_1/p%20q/r/", expect!["gs://b.x_1/p q/r b.x_1 p q/r"]);
        check(
            "gs:///p",
            expect!["error gs:///p: not a URL: it has to be gs://bucket[/prefix]"],
        );
        check(
            "gs://b/p//q",
            expect!["error gs://b/p//q: not a URL: a prefix cannot have empty parts, `.` or `..`"],
        );
        check(
            "gs://b?key=x",
            expect![
                "error gs://b: not a URL: credentials and options do not belong into the URL: set GOOGLE_APPLICATION_CREDENTIALS"
            ],
        );
    }

    #[test]
    fn urls_show_no_secrets() {
        check(
            "http://h:8000/store/default",
            expect!["http http://h:8000/store/default"],
        );
        check("HTTPS://u:p@h/x/?token=t#f", expect!["http https://h/x/"]);
        check(
            "s3+https://key:secret@h/b/p?lookup=dns",
            expect![
                "error s3+https://h/b/p: not a URL: credentials do not belong into the URL: set S3_ACCESS_KEY and S3_SECRET_KEY, or s3-credentials"
            ],
        );
        check(
            "gs://u:secret@b/p",
            expect![
                "error gs://b/p: not a URL: credentials and options do not belong into the URL: set GOOGLE_APPLICATION_CREDENTIALS"
            ],
        );
        check("sftp://u@h/p", expect!["sftp://h/p u@h None /p"]);
        check("ssh://u@h:2222/p%20q", expect!["ssh u@h Some(2222) /p q"]);
        check("ssh://[::1]/p", expect!["ssh ::1 None /p"]);
        check(
            "ssh://-oProxyCommand=x/p",
            expect!["error ssh://-oProxyCommand=x/p: not a URL: a host or user that ssh would take for something else"],
        );
        check(
            "ssh://u:secret@h/p",
            expect![
                "error ssh://h/p: not a URL: a password does not belong here: ssh asks for it itself, sftp takes keys"
            ],
        );
        check(
            "oci+http://h/r",
            expect!["later oci+http://h/r: registries as stores are not in a planned release yet"],
        );
        check(
            "htp://u:p@h/x?y",
            expect![
                "error htp://h/x: no store or index is named by `htp://` (write ./htp://… for a file of that name)"
            ],
        );
        check("http://u:p@:x/", expect!["error http://:x/: not a URL: empty host"]);
        let debug = format!("{:?}", Location::parse("https://u:secret@h/?token=t").unwrap());
        assert_eq!(debug, "https://h/");
    }
}
