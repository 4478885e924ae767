//! The settings of a bucket as doors write them: one table of names, of what each takes, and how it is shown.
//!
//! The admin door has them as members of a document (`chunk_sizes`), the S3 door as headers of CreateBucket (`x-cairn-chunk-sizes`),
//! which HeadBucket answers. What is wrong with a value is told in the words of its row. Not here: what settings do (`index`).

use cairn_formats::{ChunkSizes, CutRule, Dialect};
use cairn_index::names::{
    BucketRecord, DELIVERY_LIST_MAX, DELIVERY_WORD_LEN_MAX, DigestFunction, Durability, EtagKind, INLINE_LEN_MAX,
    Names, NewBucket, Switch, Versioning,
};
use cairn_index::{Result as IndexResult, Tenant};
use serde_json::{Map, Value, json};

/// What a header of a setting begins with.
pub(crate) const HEADER_PREFIX: &str = "x-cairn-";

/// Levels of zstd that a bucket may have.
const LEVEL_LEAST: i64 = -7;
const LEVEL_MOST: i64 = 22;

/// When a setting may be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// At any time.
    Always,
    /// When the bucket is made, and never again.
    AtFirst,
}

/// A row of the table.
struct Setting {
    name: &'static str,
    said: Said,
    read: fn(&mut Draft, &Value) -> Result<(), Wrong>,
    show: fn(&BucketRecord, Domain) -> Value,
}

/// Which dedup domain the chunks of a bucket are in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Domain {
    /// That of its tenant.
    #[default]
    Shared,
    /// One to itself.
    Own,
}

/// Settings being said: those of a bucket, changed.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) record: BucketRecord,
    pub(crate) domain: Domain,
}

/// What is wrong with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// It breaks this rule.
    Rule(&'static str),
    /// It is known, and not made yet.
    NotImplemented(&'static str),
}

/// A setting that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WrongSetting {
    pub(crate) name: String,
    pub(crate) wrong: Wrong,
}

/// Row by row, in the order in which they are shown.
const SETTINGS: &[Setting] = &[
    Setting {
        name: "versioning",
        said: Said::Always,
        read: |draft, value| {
            let versioning = match word(value)? {
                "enabled" => Versioning::Enabled,
                "suspended" => Versioning::Suspended,
                "unset" if draft.record.versioning == Versioning::Unset => Versioning::Unset,
                _ => {
                    return Err(Wrong::Rule(
                        "enabled or suspended; unset is what it was before it was ever set",
                    ));
                }
            };
            draft.record.versioning = versioning;
            Ok(())
        },
        show: |record, _| {
            json!(match record.versioning {
                Versioning::Unset => "unset",
                Versioning::Enabled => "enabled",
                Versioning::Suspended => "suspended",
            })
        },
    },
    Setting {
        name: "chunk_sizes",
        said: Said::Always,
        read: |draft, value| {
            let wrong = Wrong::Rule("MIN:AVG:MAX in bytes, 1 <= MIN <= AVG <= MAX <= 134217728");
            let words: Vec<u64> = word(value)?
                .split(':')
                .map(|number| number.parse().map_err(|_| wrong))
                .collect::<Result<_, _>>()?;
            let [min, avg, max] = words[..] else { return Err(wrong) };
            draft.record.settings.chunk_sizes = ChunkSizes::new(min, avg, max).map_err(|_| wrong)?;
            Ok(())
        },
        show: |record, _| {
            let sizes = record.settings.chunk_sizes;
            json!(format!("{}:{}:{}", sizes.min(), sizes.avg(), sizes.max()))
        },
    },
    Setting {
        name: "dialect",
        said: Said::Always,
        read: |draft, value| {
            draft.record.settings.dialect = match word(value)? {
                "casync" => Dialect::Casync,
                "desync" => Dialect::Desync,
                _ => return Err(Wrong::Rule("casync or desync")),
            };
            Ok(())
        },
        show: |record, _| {
            json!(match record.settings.dialect {
                Dialect::Casync => "casync",
                Dialect::Desync => "desync",
            })
        },
    },
    Setting {
        name: "level",
        said: Said::Always,
        read: |draft, value| {
            draft.record.settings.level = match optional_number(value) {
                Ok(None) => None,
                Ok(Some(level @ LEVEL_LEAST..=LEVEL_MOST)) => i32::try_from(level).ok(),
                _ => return Err(Wrong::Rule("a level of zstd, -7 to 22, or null for the server's")),
            };
            Ok(())
        },
        show: |record, _| json!(record.settings.level),
    },
    Setting {
        name: "durability",
        said: Said::Always,
        read: |draft, value| {
            draft.record.settings.durability = match word(value)? {
                "sync" => Durability::Sync,
                "batch" => Durability::Batch,
                "volatile" => Durability::Volatile,
                _ => return Err(Wrong::Rule("sync, batch or volatile")),
            };
            Ok(())
        },
        show: |record, _| {
            json!(match record.settings.durability {
                Durability::Sync => "sync",
                Durability::Batch => "batch",
                Durability::Volatile => "volatile",
            })
        },
    },
    Setting {
        name: "etag",
        said: Said::Always,
        read: |draft, value| {
            draft.record.settings.etag = match word(value)? {
                "md5" => EtagKind::Md5,
                "opaque" => EtagKind::Opaque,
                _ => return Err(Wrong::Rule("md5 or opaque")),
            };
            Ok(())
        },
        show: |record, _| {
            json!(match record.settings.etag {
                EtagKind::Md5 => "md5",
                EtagKind::Opaque => "opaque",
            })
        },
    },
    Setting {
        name: "domain",
        said: Said::AtFirst,
        read: |draft, value| {
            draft.domain = match word(value)? {
                "shared" => Domain::Shared,
                "own" => Domain::Own,
                "private" => {
                    return Err(Wrong::NotImplemented(
                        "private waits for sealing; nothing asked to be sealed is stored in clear",
                    ));
                }
                _ => return Err(Wrong::Rule("shared, own or private")),
            };
            Ok(())
        },
        show: |_, domain| {
            json!(match domain {
                Domain::Shared => "shared",
                Domain::Own => "own",
            })
        },
    },
    Setting {
        name: "inline_len",
        said: Said::Always,
        read: |draft, value| {
            let wrong = Wrong::Rule("bytes, 0 to 4096");
            let len = optional_number(value)?.and_then(|len| usize::try_from(len).ok());
            draft.record.settings.inline_len = len.filter(|len| *len <= INLINE_LEN_MAX).ok_or(wrong)?;
            Ok(())
        },
        show: |record, _| json!(record.settings.inline_len),
    },
    Setting {
        name: "browse",
        said: Said::Always,
        read: |draft, value| switch(value).map(|on| draft.record.settings.browse_archives = on),
        show: |record, _| json!(record.settings.browse_archives == Switch::On),
    },
    Setting {
        name: "search",
        said: Said::Always,
        read: |draft, value| switch(value).map(|on| draft.record.settings.search = on),
        show: |record, _| json!(record.settings.search == Switch::On),
    },
    Setting {
        name: "object_lock",
        said: Said::AtFirst,
        read: |draft, value| switch(value).map(|on| draft.record.settings.object_lock = on),
        show: |record, _| json!(record.settings.object_lock == Switch::On),
    },
    Setting {
        name: "quota_bytes",
        said: Said::Always,
        read: |draft, value| quota(value).map(|quota| draft.record.settings.quota_bytes = quota),
        show: |record, _| json!(record.settings.quota_bytes),
    },
    Setting {
        name: "quota_objects",
        said: Said::Always,
        read: |draft, value| quota(value).map(|quota| draft.record.settings.quota_objects = quota),
        show: |record, _| json!(record.settings.quota_objects),
    },
    Setting {
        name: "public_read",
        said: Said::Always,
        read: |draft, value| {
            let rule = "a list of up to 32 beginnings of keys, 1024 bytes each; \"\" is all";
            draft.record.settings.delivery.public_read = words(value, rule, |_| true)?;
            Ok(())
        },
        show: |record, _| json!(record.settings.delivery.public_read),
    },
    Setting {
        name: "cors_origins",
        said: Said::Always,
        read: |draft, value| {
            let rule = "a list of up to 32 origins as https://example.net, or *";
            draft.record.settings.delivery.cors_origins = words(value, rule, is_origin)?;
            Ok(())
        },
        show: |record, _| json!(record.settings.delivery.cors_origins),
    },
    Setting {
        name: "digests",
        said: Said::Always,
        read: |draft, value| {
            let rule = "a list of sha256 and blake3";
            let names = words(value, rule, |name| DigestFunction::of_name(name).is_some())?;
            let known = DigestFunction::ALL.into_iter();
            draft.record.settings.digests = known
                .filter(|function| names.iter().any(|name| name == function.name()))
                .collect();
            Ok(())
        },
        show: |record, _| {
            let names = record.settings.digests.iter().map(|function| function.name());
            json!(names.collect::<Vec<_>>())
        },
    },
    Setting {
        name: "cdn_max_age",
        said: Said::Always,
        read: |draft, value| {
            let wrong = Wrong::Rule("seconds, 0 to 31536000, or null for the server's");
            let seconds = quota(value).map_err(|_| wrong)?;
            if seconds.is_some_and(|seconds| seconds > CDN_MAX_AGE_MOST) {
                return Err(wrong);
            }
            draft.record.settings.delivery.max_age = seconds.and_then(|seconds| u32::try_from(seconds).ok());
            Ok(())
        },
        show: |record, _| json!(record.settings.delivery.max_age),
    },
    Setting {
        name: "cdn_zstd",
        said: Said::Always,
        read: |draft, value| switch(value).map(|on| draft.record.settings.delivery.zstd = on == Switch::On),
        show: |record, _| json!(record.settings.delivery.zstd),
    },
    Setting {
        name: "cdn_precompressed",
        said: Said::Always,
        read: |draft, value| switch(value).map(|on| draft.record.settings.delivery.precompressed = on == Switch::On),
        show: |record, _| json!(record.settings.delivery.precompressed),
    },
];

/// A year: caches count no further.
const CDN_MAX_AGE_MOST: u64 = 365 * 86_400;

/// A list of texts; in a header, which has no lists, the text of one in JSON.
fn words(value: &Value, rule: &'static str, is_one: fn(&str) -> bool) -> Result<Vec<String>, Wrong> {
    let parsed: Value;
    let list = match value {
        Value::String(text) => {
            parsed = serde_json::from_str(text).map_err(|_| Wrong::Rule(rule))?;
            &parsed
        }
        value => value,
    };
    let list = list.as_array().filter(|list| list.len() <= DELIVERY_LIST_MAX);
    let list = list.ok_or(Wrong::Rule(rule))?;
    let word = |value: &Value| {
        let word = value.as_str()?;
        (word.len() <= DELIVERY_WORD_LEN_MAX && is_one(word)).then(|| word.to_owned())
    };
    list.iter().map(|value| word(value).ok_or(Wrong::Rule(rule))).collect()
}

/// As browsers write an origin: scheme, host in lower case, and a port if it is not the usual one. `*`: any.
fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let is_host = |host: &str| {
        !host.is_empty()
            && host
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.:[]".contains(&byte))
    };
    text == "*" || host.is_some_and(is_host)
}

fn word(value: &Value) -> Result<&str, Wrong> {
    value.as_str().ok_or(Wrong::Rule("a text"))
}

fn switch(value: &Value) -> Result<Switch, Wrong> {
    match value {
        Value::Bool(true) => Ok(Switch::On),
        Value::Bool(false) => Ok(Switch::Off),
        _ => Err(Wrong::Rule("true or false")),
    }
}

fn optional_number(value: &Value) -> Result<Option<i64>, Wrong> {
    match value {
        Value::Null => Ok(None),
        value => value.as_i64().map(Some).ok_or(Wrong::Rule("a whole number, or null")),
    }
}

fn quota(value: &Value) -> Result<Option<u64>, Wrong> {
    match value {
        Value::Null => Ok(None),
        value => value
            .as_u64()
            .map(Some)
            .ok_or(Wrong::Rule("a whole number from 0 on, or null for none")),
    }
}

impl Draft {
    /// A bucket with all as it is by default.
    pub(crate) fn of_new(new: &NewBucket) -> Self {
        Self {
            record: BucketRecord {
                owner: new.owner.clone(),
                created_ms: 0,
                region: new.region.clone(),
                versioning: new.versioning,
                settings: new.settings.clone(),
            },
            domain: Domain::Shared,
        }
    }

    /// A bucket as it is, of whose domain nothing will be said.
    pub(crate) fn of(record: &BucketRecord) -> Self {
        Self {
            record: record.clone(),
            domain: Domain::Shared,
        }
    }

    /// Takes what a document says. All that is wrong with it is told.
    pub(crate) fn take(&mut self, document: &Map<String, Value>, is_new: IsNew) -> Vec<WrongSetting> {
        let mut wrongs = Vec::new();
        for (name, value) in document {
            let taken = match SETTINGS.iter().find(|setting| setting.name == name) {
                None => Err(Wrong::Rule("there is no such setting")),
                Some(setting) if setting.said == Said::AtFirst && is_new == IsNew::No => {
                    Err(Wrong::Rule("it is said when the bucket is made, and not changed"))
                }
                Some(setting) => (setting.read)(self, value),
            };
            wrongs.extend(taken.err().map(|wrong| WrongSetting {
                name: name.clone(),
                wrong,
            }));
        }
        wrongs.extend(self.check());
        wrongs
    }

    /// What does not go together.
    fn check(&self) -> Option<WrongSetting> {
        let settings = &self.record.settings;
        if CutRule::new(settings.chunk_sizes, settings.dialect).is_err() {
            return Some(WrongSetting {
                name: "chunk_sizes".to_owned(),
                wrong: Wrong::Rule(
                    "the tool of the dialect cannot cut by them: casync wants MAX >= 48 unless all are equal, desync MIN >= 48",
                ),
            });
        }
        let unlocked = settings.object_lock == Switch::On && self.record.versioning != Versioning::Enabled;
        unlocked.then(|| WrongSetting {
            name: "versioning".to_owned(),
            wrong: Wrong::Rule("locks of versions hold only while versions are kept: it has to be enabled"),
        })
    }

    /// Takes the headers of settings. Each has the name of its member in a document, with `-` for `_` behind [`HEADER_PREFIX`].
    pub(crate) fn take_headers<'a>(&mut self, headers: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<WrongSetting> {
        let mut document = Map::new();
        for (name, text) in headers {
            if let Some(name) = name.strip_prefix(HEADER_PREFIX) {
                document.insert(name.replace('-', "_"), value_of(text.trim()));
            }
        }
        self.take(&document, IsNew::Yes)
    }

    /// The bucket to be made.
    ///
    /// Errors: those of the index.
    pub(crate) fn into_new(self, names: &Names, tenant: &Tenant) -> IndexResult<NewBucket> {
        let mut settings = self.record.settings;
        settings.domain = match self.domain {
            Domain::Shared => names.domain_of_tenant(tenant)?,
            Domain::Own => names.new_domain()?,
        };
        Ok(NewBucket {
            owner: self.record.owner,
            region: self.record.region,
            versioning: self.record.versioning,
            settings,
        })
    }
}

/// Whether a bucket is being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IsNew {
    Yes,
    No,
}

/// A header's text as a member of a document would have it.
fn value_of(text: &str) -> Value {
    match text {
        "null" | "none" => Value::Null,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        text => text.parse::<i64>().map_or_else(|_| json!(text), |number| json!(number)),
    }
}

/// Which domain a bucket is in.
///
/// Errors: those of the index.
pub(crate) fn domain_of(names: &Names, tenant: &Tenant, record: &BucketRecord) -> IndexResult<Domain> {
    let shared = names.domain_of_tenant(tenant)?;
    Ok(if record.settings.domain == shared {
        Domain::Shared
    } else {
        Domain::Own
    })
}

/// All settings of a bucket, as a document.
pub(crate) fn show(record: &BucketRecord, domain: Domain) -> Map<String, Value> {
    let shown = |setting: &Setting| (setting.name.to_owned(), (setting.show)(record, domain));
    SETTINGS.iter().map(shown).collect()
}

/// All settings of a bucket, as headers. What is not set (`null`) has none.
pub(crate) fn show_headers(record: &BucketRecord, domain: Domain) -> Vec<(String, String)> {
    let shown = |(name, value): (String, Value)| {
        let text = match value {
            Value::Null => return None,
            Value::String(text) => text,
            value => value.to_string(),
        };
        Some((format!("{HEADER_PREFIX}{}", name.replace('_', "-")), text))
    };
    show(record, domain).into_iter().filter_map(shown).collect()
}

#[cfg(test)]
mod tests {
    use cairn_index::names::Owner;

    use super::*;

    fn draft() -> Draft {
        Draft::of_new(&NewBucket::of(Owner::new("anna").unwrap()))
    }

    fn members(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    /// Goal: what is shown of a bucket makes the same bucket, as a document and as headers.
    #[test]
    fn settings_are_taken_as_they_are_shown() {
        let said = members(json!({
            "versioning": "enabled", "chunk_sizes": "1024:4096:16384", "dialect": "desync", "level": -3,
            "durability": "batch", "etag": "opaque", "domain": "own", "inline_len": 100, "browse": true,
            "search": false, "object_lock": true, "quota_bytes": 7, "quota_objects": 0,
            "public_read": ["", "img/a b"], "cors_origins": ["https://a.example:8443", "*"], "cdn_max_age": 60,
            "cdn_zstd": true, "cdn_precompressed": true, "digests": ["sha256", "blake3"],
        }));
        let mut first = draft();
        assert_eq!(first.take(&said, IsNew::Yes), []);
        let shown = show(&first.record, first.domain);
        assert_eq!(shown, said);
        assert_eq!(shown.len(), SETTINGS.len());
        let headers = show_headers(&first.record, first.domain);
        let mut second = draft();
        let wrong = second.take_headers(headers.iter().map(|(name, text)| (name.as_str(), text.as_str())));
        assert_eq!(wrong, []);
        assert_eq!((&second.record, second.domain), (&first.record, first.domain));
    }

    #[test]
    fn what_cannot_be_is_named_with_its_rule() {
        for (name, value) in [
            ("versioning", json!("on")),
            ("versioning", json!(1)),
            ("chunk_sizes", json!("1:2")),
            ("chunk_sizes", json!("2:1:3")),
            ("chunk_sizes", json!("0:1:3")),
            ("chunk_sizes", json!("1:2:47")),
            ("chunk_sizes", json!("a:b:c")),
            ("dialect", json!("rsync")),
            ("level", json!(23)),
            ("level", json!(1.5)),
            ("durability", json!("none")),
            ("etag", json!("sha256")),
            ("domain", json!("other")),
            ("inline_len", json!(-1)),
            ("inline_len", json!(1 << 30)),
            ("inline_len", Value::Null),
            ("browse", json!("yes")),
            ("quota_bytes", json!(-1)),
            ("public_read", json!("img/")),
            ("public_read", json!([1])),
            ("cors_origins", json!(["example.net"])),
            ("cors_origins", json!(["https://a.example/path"])),
            ("cdn_max_age", json!(31_536_001)),
            ("cdn_zstd", json!("on")),
            ("digests", json!(["md5"])),
            ("digests", json!("sha256")),
            ("owner", json!("bert")),
        ] {
            let wrong = draft().take(&members(json!({ name: value.clone() })), IsNew::Yes);
            assert_eq!(wrong.len(), 1, "{name} {value}");
            assert!(
                wrong[0].name == name && matches!(wrong[0].wrong, Wrong::Rule(_)),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn the_private_domain_is_not_made_and_no_domain_changes() {
        let wrong = draft().take(&members(json!({ "domain": "private" })), IsNew::Yes);
        assert!(matches!(wrong[0].wrong, Wrong::NotImplemented(_)));
        let wrong = draft().take(&members(json!({ "domain": "shared" })), IsNew::No);
        assert!(matches!(wrong[0].wrong, Wrong::Rule(_)));
    }

    #[test]
    fn locked_buckets_keep_versions() {
        assert_eq!(
            draft().take(&members(json!({ "object_lock": true })), IsNew::Yes)[0].name,
            "versioning"
        );
        let both = members(json!({ "object_lock": true, "versioning": "enabled" }));
        assert_eq!(draft().take(&both, IsNew::Yes), []);
    }

    #[test]
    fn headers_that_are_not_ours_are_passed_over_and_unknown_ones_told() {
        let headers = [
            ("x-amz-acl", "private"),
            ("x-cairn-level", "none"),
            ("x-cairn-speed", "9"),
        ];
        let wrong = draft().take_headers(headers.into_iter());
        assert_eq!(wrong.len(), 1);
        assert_eq!(wrong[0].name, "speed");
    }
}
