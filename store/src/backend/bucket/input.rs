//! One object of a bucket as an input: bytes in order, read a few stretches ahead, all of one version of the object.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use object_store::{GetOptions, ObjectStore as _};

use super::Bucket;
use crate::backend::remote::patience::Patience;
use crate::backend::remote::workers::Workers;
use crate::backend::remote::{Fault, Try, lost};
use crate::{Error, Location, Result, StoreName, StoreOptions};

/// Bytes of a stretch, which is one request.
const STRETCH_LEN: u64 = 8 << 20;
/// Stretches that are read beside each other, and held.
const STRETCHES: usize = 4;

/// An object that is read from its beginning to its end. Blocks.
pub struct ObjectInput {
    name: StoreName,
    bucket: Arc<Bucket>,
    object: Arc<str>,
    /// What the object was when it was opened: what is put in its place meanwhile is not read in its stead.
    tag: Option<Arc<str>>,
    len: u64,
    /// Up to where it has been asked for.
    asked: u64,
    ready: VecDeque<Bytes>,
    patience: Arc<Patience>,
    workers: Workers,
}

impl ObjectInput {
    /// Finds the object.
    ///
    /// Errors: [`Error::Refused`] for a location without a key, and where there is no such object; what the server says.
    pub fn open(location: &Location, options: &StoreOptions) -> Result<Self> {
        let (name, action) = (StoreName::new(location.to_string()), "open the object");
        let refused = |words: &str| Error::Refused {
            store: name.clone(),
            action,
            source: words.into(),
        };
        if location.key().is_empty() {
            return Err(refused("it names a bucket and no object in it"));
        }
        let bucket = Bucket::open(location, "", options).map_err(|fault| fault.into_error(&name, action))?;
        let workers = Workers::start(STRETCHES).map_err(|source| Error::Unavailable {
            store: name.clone(),
            action: "start its network thread",
            source: source.into(),
        })?;
        let (bucket, object): (_, Arc<str>) = (Arc::new(bucket), location.key().into());
        let patience = Arc::new(options.http.patience());
        let look = {
            let (bucket, object, patience) = (bucket.clone(), object.clone(), patience.clone());
            async move {
                let found = patience.insist(|| bucket.look(&object)).await;
                found.map_err(Fault::from)
            }
        };
        let found = workers.run(look).ok_or_else(|| lost(&name, action))?;
        let found = found.map_err(|fault| fault.into_error(&name, action))?;
        let (len, tag) = found.ok_or_else(|| refused("there is no such object"))?;
        Ok(Self {
            name,
            bucket,
            object,
            tag: tag.map(Arc::from),
            len,
            asked: 0,
            ready: VecDeque::new(),
            patience,
            workers,
        })
    }

    /// Bytes of the object.
    pub fn byte_len(&self) -> u64 {
        self.len
    }

    /// Passes over bytes before the first is read; those behind its end are not there.
    pub fn skip(&mut self, bytes: u64) {
        self.asked = self.asked.saturating_add(bytes).min(self.len);
    }

    /// Reads the next stretches.
    fn read_ahead(&mut self) -> Result<()> {
        let action = "read the object";
        let start = self.asked;
        let left = self.len - start;
        let count = usize::try_from(left.div_ceil(STRETCH_LEN))
            .unwrap_or(STRETCHES)
            .min(STRETCHES);
        let end = self.len.min(start.saturating_add(count as u64 * STRETCH_LEN));
        let (bucket, object, tag) = (self.bucket.clone(), self.object.clone(), self.tag.clone());
        let patience = self.patience.clone();
        let read = move |at: usize| {
            let (bucket, object, tag, patience) = (bucket.clone(), object.clone(), tag.clone(), patience.clone());
            async move {
                let from = start + at as u64 * STRETCH_LEN;
                let to = end.min(from + STRETCH_LEN);
                let read = patience
                    .insist(|| bucket.read_bounded(&object, from, to, tag.as_deref()))
                    .await;
                read.map_err(Fault::from)
            }
        };
        let mut stretches: Vec<Option<Bytes>> = vec![None; count];
        let mut failure = None;
        self.workers.run_many(count, read, |at, answer| {
            match answer {
                Ok(bytes) => stretches[at] = bytes,
                Err(fault) => failure = Some(fault),
            }
            failure.is_none()
        });
        if let Some(fault) = failure {
            return Err(fault.into_error(&self.name, action));
        }
        for stretch in stretches {
            let gone = || Error::Refused {
                store: self.name.clone(),
                action,
                source: "it was deleted while it was read".into(),
            };
            let bytes = stretch.ok_or_else(gone)?;
            self.ready.push_back(bytes);
        }
        self.asked = end;
        Ok(())
    }
}

impl Read for ObjectInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ready.is_empty() && self.asked < self.len {
            self.read_ahead().map_err(io::Error::other)?;
        }
        let Some(first) = self.ready.front_mut() else {
            return Ok(0);
        };
        let len = first.len().min(buffer.len());
        first.copy_to_slice(&mut buffer[..len]);
        if first.is_empty() {
            self.ready.pop_front();
        }
        Ok(len)
    }
}

impl std::fmt::Debug for ObjectInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ObjectInput").field(&self.name).finish()
    }
}

impl Bucket {
    /// Length and entity tag of an object.
    async fn look(&self, name: &str) -> Try<Option<(u64, Option<String>)>> {
        let look = async {
            let path = self.path(name)?;
            let options = GetOptions {
                head: true,
                ..GetOptions::default()
            };
            let found = self.found(self.client.objects.get_opts(&path, options).await)?;
            Ok(found.map(|found| (found.meta.size, found.meta.e_tag)))
        };
        self.timed(self.options.timeout, look).await
    }
}
