//! Names as the Remote Execution API writes them: digests, instances, resources of ByteStream.
//!
//! Source: `remote_execution.proto`, the comment of `ContentAddressableStorage`. Pure functions; nothing here is looked up.

use cairn_index::names::{BlobDigest, BlobFunction};
use cairn_proto::execution::digest_function::Value as Function;
use cairn_proto::execution::{Digest, compressor};
use tonic::Status;

/// Bytes of an instance's name, at most.
const INSTANCE_LEN_MAX: usize = 255;
/// Bytes of an upload's name, at most.
const UPLOAD_LEN_MAX: usize = 128;
/// What no part of an instance's name may be.
const RESERVED: [&str; 7] = [
    "blobs",
    "uploads",
    "actions",
    "actionResults",
    "operations",
    "capabilities",
    "compressed-blobs",
];

/// Refuses what is no name of an instance.
pub(super) fn check_instance(instance: &str) -> Result<(), Status> {
    let is_part = |part: &str| !part.is_empty() && !RESERVED.contains(&part) && !part.contains(char::is_control);
    if instance.len() > INSTANCE_LEN_MAX || !(instance.is_empty() || instance.split('/').all(is_part)) {
        return Err(Status::invalid_argument(
            "an instance name is parts between slashes, none of them empty or a reserved word, 255 bytes at most",
        ));
    }
    Ok(())
}

/// As the protocol's numbers have it.
pub(super) fn function_value(function: BlobFunction) -> Function {
    match function {
        BlobFunction::Sha1 => Function::Sha1,
        BlobFunction::Md5 => Function::Md5,
        BlobFunction::Sha384 => Function::Sha384,
        BlobFunction::Sha512 => Function::Sha512,
        BlobFunction::Blake3 => Function::Blake3,
        // What is added behind this release is not served by it.
        _ => Function::Sha256,
    }
}

/// The function of a call. Where it says none, the length of its digests does.
///
/// - `served`: those that are.
/// - Errors: one that is not served.
pub(super) fn function_of(value: i32, served: &[BlobFunction]) -> Result<Option<BlobFunction>, Status> {
    if value == Function::Unknown as i32 {
        return Ok(None);
    }
    let function = served
        .iter()
        .copied()
        .find(|&function| function_value(function) as i32 == value);
    match function {
        Some(function) => Ok(Some(function)),
        None => Err(Status::invalid_argument(
            "this digest function is not served here: see the capabilities",
        )),
    }
}

/// The function whose digests have so many bytes, of those that need not be named.
fn by_len(len: usize) -> Option<BlobFunction> {
    [
        BlobFunction::Sha256,
        BlobFunction::Sha1,
        BlobFunction::Md5,
        BlobFunction::Sha384,
        BlobFunction::Sha512,
    ]
    .into_iter()
    .find(|function| function.hash_len() == len)
}

/// Takes a digest apart.
///
/// - `function`: that of the call; `None`: by the digest's length.
pub(super) fn digest_of(
    digest: Option<&Digest>,
    function: Option<BlobFunction>,
    served: &[BlobFunction],
) -> Result<BlobDigest, Status> {
    let digest = digest.ok_or_else(|| Status::invalid_argument("a digest is missing"))?;
    parse(&digest.hash, digest.size_bytes, function, served)
}

/// What the result of an action is found by: its hash alone. Caches that pass results on know no more of the action, and send a size of -1
/// (bazel-remote), or that of the result.
pub(super) fn action_of(
    digest: Option<&Digest>,
    function: Option<BlobFunction>,
    served: &[BlobFunction],
) -> Result<BlobDigest, Status> {
    let digest = digest.ok_or_else(|| Status::invalid_argument("a digest is missing"))?;
    parse(&digest.hash, 0, function, served)
}

fn parse(hash: &str, size: i64, function: Option<BlobFunction>, served: &[BlobFunction]) -> Result<BlobDigest, Status> {
    let wrong =
        || Status::invalid_argument("a digest is lower-case hexadecimal digits of its function, and a size from 0 on");
    let hash = unhex(hash).ok_or_else(wrong)?;
    let size = u64::try_from(size).map_err(|_| wrong())?;
    let function = function.or_else(|| by_len(hash.len())).ok_or_else(wrong)?;
    if !served.contains(&function) {
        return Err(Status::invalid_argument(
            "this digest function is not served here: see the capabilities",
        ));
    }
    BlobDigest::new(function, &hash, size).ok_or_else(wrong)
}

/// A call may name ten thousand digests: none of this is left to chance by branches.
fn unhex(text: &str) -> Option<Vec<u8>> {
    const WRONG: u8 = 0xff;
    const DIGITS: [u8; 256] = {
        let mut digits = [WRONG; 256];
        let mut value = 0;
        while value < 16 {
            digits[b"0123456789abcdef"[value] as usize] = value as u8;
            value += 1;
        }
        digits
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() || pairs.is_empty() {
        return None;
    }
    let mut bytes = Vec::with_capacity(pairs.len());
    let mut seen = 0;
    for &[high, low] in pairs {
        let (high, low) = (DIGITS[high as usize], DIGITS[low as usize]);
        seen |= high | low;
        bytes.push(high << 4 | low & 15);
    }
    (seen < 16).then_some(bytes)
}

/// As messages have it.
pub(super) fn message_of(digest: &BlobDigest) -> Digest {
    let shown = digest.to_string();
    Digest {
        hash: shown.split('/').next().unwrap_or_default().to_owned(),
        size_bytes: i64::try_from(digest.size()).unwrap_or(i64::MAX),
    }
}

/// How bytes go over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Form {
    /// As they are.
    Identity,
    /// zstd, of any number of frames.
    Zstd,
}

impl Form {
    /// A compressor of a message.
    pub(super) fn of(value: i32) -> Result<Self, Status> {
        match compressor::Value::try_from(value) {
            Ok(compressor::Value::Identity) => Ok(Self::Identity),
            Ok(compressor::Value::Zstd) => Ok(Self::Zstd),
            _ => Err(Status::invalid_argument("of compressors only zstd is served here")),
        }
    }
}

/// What ByteStream reads or writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resource {
    pub(super) instance: String,
    /// Of an upload, its name.
    pub(super) upload: Option<String>,
    pub(super) form: Form,
    pub(super) digest: BlobDigest,
}

impl Resource {
    /// `{instance/}blobs/{fn/}{hash}/{size}` or `{instance/}compressed-blobs/zstd/{fn/}{hash}/{size}`.
    pub(super) fn of_read(name: &str, served: &[BlobFunction]) -> Result<Self, Status> {
        Self::parse(name, served).filter_or(|resource| resource.upload.is_none(), name)
    }

    /// `{instance/}uploads/{uuid}/` and what [`Resource::of_read`] takes, and `/` and anything behind it.
    pub(super) fn of_write(name: &str, served: &[BlobFunction]) -> Result<Self, Status> {
        Self::parse(name, served).filter_or(|resource| resource.upload.is_some(), name)
    }

    fn parse(name: &str, served: &[BlobFunction]) -> Result<Self, Status> {
        let wrong = || wrong_name(name);
        let parts: Vec<&str> = name.split('/').collect();
        let begins = parts
            .iter()
            .position(|part| RESERVED.contains(part))
            .ok_or_else(wrong)?;
        let (instance, mut rest) = parts.split_at(begins);
        if instance == [""] {
            return Err(wrong());
        }
        let instance = instance.join("/");
        check_instance(&instance)?;
        let mut upload = None;
        if let ["uploads", uuid, behind @ ..] = rest {
            if uuid.is_empty() || uuid.len() > UPLOAD_LEN_MAX {
                return Err(wrong());
            }
            (upload, rest) = (Some((*uuid).to_owned()), behind);
        }
        let (form, rest) = match rest {
            ["blobs", behind @ ..] => (Form::Identity, behind),
            ["compressed-blobs", "zstd", behind @ ..] => (Form::Zstd, behind),
            ["compressed-blobs", ..] => {
                return Err(Status::invalid_argument("of compressors only zstd is served here"));
            }
            _ => return Err(wrong()),
        };
        let (function, rest) = match rest {
            ["blake3", behind @ ..] => (Some(BlobFunction::Blake3), behind),
            behind => (None, behind),
        };
        let [hash, size, metadata @ ..] = rest else {
            return Err(wrong());
        };
        if upload.is_none() && !metadata.is_empty() {
            return Err(wrong());
        }
        let is_number = size.bytes().all(|byte| byte.is_ascii_digit());
        let size: i64 = size.parse().ok().filter(|_| is_number).ok_or_else(wrong)?;
        Ok(Self {
            instance,
            upload,
            form,
            digest: parse(hash, size, function, served)?,
        })
    }
}

fn wrong_name(name: &str) -> Status {
    let shown: String = name.chars().take(200).collect();
    Status::invalid_argument(format!("{shown:?} is no name of a blob or an upload"))
}

trait FilterOr<T> {
    fn filter_or(self, holds: impl FnOnce(&T) -> bool, name: &str) -> Result<T, Status>;
}

impl<T> FilterOr<T> for Result<T, Status> {
    fn filter_or(self, holds: impl FnOnce(&T) -> bool, name: &str) -> Self {
        self.and_then(|value| {
            if holds(&value) {
                Ok(value)
            } else {
                Err(wrong_name(name))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: &[BlobFunction] = &BlobFunction::ALL;
    const SHA256: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn names_of_blobs_are_taken_apart() {
        let read = |name: &str| Resource::of_read(name, ALL);
        let plain = read(&format!("blobs/{SHA256}/3")).unwrap();
        assert_eq!((&*plain.instance, plain.form), ("", Form::Identity));
        assert_eq!(plain.digest.function(), BlobFunction::Sha256);
        let zstd = read(&format!("a/b/compressed-blobs/zstd/blake3/{SHA256}/3")).unwrap();
        assert_eq!((&*zstd.instance, zstd.form), ("a/b", Form::Zstd));
        assert_eq!(zstd.digest.function(), BlobFunction::Blake3);
        for wrong in [
            String::new(),
            format!("/blobs/{SHA256}/3"),
            format!("a//blobs/{SHA256}/3"),
            format!("blobs/sha256/{SHA256}/3"),
            format!("blobs/{SHA256}"),
            format!("blobs/{SHA256}/-3"),
            format!("blobs/{SHA256}/+3"),
            format!("blobs/{SHA256}/3/more"),
            format!("blobs/{}/3", SHA256.to_uppercase()),
            format!("blobs/{}/3", &SHA256[1..]),
            format!("compressed-blobs/deflate/{SHA256}/3"),
            format!("uploads/u/blobs/{SHA256}/3"),
            format!("blobs/{SHA256}/99999999999999999999"),
            format!("actions/blobs/{SHA256}/3"),
        ] {
            assert!(read(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_of_uploads_are_taken_apart() {
        let write = |name: &str| Resource::of_write(name, ALL);
        let upload = write(&format!("main/uploads/u-1/blobs/{SHA256}/3/anything/at all")).unwrap();
        assert_eq!((&*upload.instance, upload.upload.as_deref()), ("main", Some("u-1")));
        assert!(write(&format!("uploads/u/compressed-blobs/zstd/{SHA256}/3")).is_ok());
        assert!(write(&format!("blobs/{SHA256}/3")).is_err());
        assert!(write(&format!("uploads//blobs/{SHA256}/3")).is_err());
    }

    #[test]
    fn functions_are_named_or_told_by_length() {
        let digest = |hash: &str| Digest {
            hash: hash.to_owned(),
            size_bytes: 3,
        };
        for function in BlobFunction::ALL {
            let hash = "0a".repeat(function.hash_len());
            let value = function_value(function) as i32;
            let named = function_of(value, ALL).unwrap();
            assert_eq!(named, Some(function));
            let found = digest_of(Some(&digest(&hash)), named, ALL).unwrap();
            assert_eq!(message_of(&found), digest(&hash));
            let told = digest_of(Some(&digest(&hash)), None, ALL).unwrap().function();
            assert!(told == function || function == BlobFunction::Blake3);
        }
        assert!(function_of(4, ALL).is_err(), "VSO is not served");
        assert!(function_of(9, &[BlobFunction::Sha256]).is_err());
        assert!(digest_of(Some(&digest(&"0a".repeat(16))), None, &[BlobFunction::Sha256]).is_err());
        assert!(digest_of(None, None, ALL).is_err());
    }

    #[test]
    fn instances_are_paths_without_reserved_words() {
        for right in ["", "main", "a/b/c", "über"] {
            assert!(check_instance(right).is_ok(), "{right}");
        }
        for wrong in ["/", "a/", "/a", "a//b", "a/blobs", "uploads", "a\nb", &"a".repeat(256)] {
            assert!(check_instance(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_name_makes_the_reader_panic(name in "[a-z0-9/é-]{0,120}", tail in "(blobs|uploads|compressed-blobs/zstd)/.{0,90}") {
            for name in [name.clone(), tail.clone(), format!("{name}/{tail}")] {
                let _ = (Resource::of_read(&name, ALL), Resource::of_write(&name, ALL));
            }
        }
    }
}
