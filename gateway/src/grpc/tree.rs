//! A tree of directories, page by page: each directory once, breadth first, those that are missing left out.
//!
//! A page's token says how many directories came before it; who comes back with one has the tree walked again up to there, which is
//! of one order because a tree is named by its content.

use std::collections::{HashSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;

use cairn_identity::{Action, Permit};
use cairn_index::names::{BlobDigest, BlobFunction, BlobKey, Bucket};
use cairn_proto::execution::{Directory, GetTreeRequest, GetTreeResponse};
use futures_util::stream::{self, Stream};
use prost::Message as _;
use tonic::Status;

use super::error::Answer;
use super::names::{digest_of, function_of};
use super::{Ask, Core};

/// Bytes of an encoded directory that is read.
const DIRECTORY_LEN_MAX: u64 = 16 << 20;
/// Directories looked up together.
const AT_ONCE: usize = 256;
/// Bytes of directories after which a page ends: most clients take no longer messages.
const PAGE_LEN: usize = 2 << 20;

pub(super) type TreePages = Pin<Box<dyn Stream<Item = Result<GetTreeResponse, Status>> + Send>>;

/// A walk that goes on.
struct Walk {
    core: Arc<Core>,
    bucket: Bucket,
    _permit: Permit,
    function: BlobFunction,
    queue: VecDeque<BlobDigest>,
    seen: HashSet<BlobDigest>,
    /// Read and not sent.
    ready: VecDeque<Directory>,
    /// Directories that were sent, or skipped.
    sent: usize,
    page: usize,
}

/// Begins a tree.
///
/// Errors: `NOT_FOUND` for the root alone.
pub(super) async fn get(core: &Arc<Core>, ask: Ask, request: GetTreeRequest) -> Result<TreePages, Status> {
    debug_assert_eq!(ask.action, Action::GetBlob, "a tree is blobs");
    let walk = core.admitted(ask, move |core, admitted| {
        let served = &core.options.functions;
        let function = function_of(request.digest_function, served)?;
        let root = digest_of(request.root_digest.as_ref(), function, served)?;
        let skip = match request.page_token.as_str() {
            "" => 0,
            token => token
                .parse()
                .map_err(|_| Status::invalid_argument("this page token was not given out here"))?,
        };
        let page = match usize::try_from(request.page_size) {
            Ok(0) => core.options.page,
            Ok(page) => page.min(core.options.page),
            Err(_) => return Err(Status::invalid_argument("a page size below 0").into()),
        };
        let mut walk = Walk {
            core: Arc::clone(core),
            bucket: admitted.bucket,
            _permit: admitted.permit,
            function: root.function(),
            queue: VecDeque::from([root]),
            seen: HashSet::from([root]),
            ready: VecDeque::new(),
            sent: 0,
            page,
        };
        walk.read_on()?;
        if walk.ready.is_empty() {
            return Err(Status::not_found("the root of the tree is not there").into());
        }
        while walk.sent < skip && (!walk.ready.is_empty() || !walk.queue.is_empty()) {
            match walk.ready.pop_front() {
                Some(_) => walk.sent += 1,
                None => walk.read_on()?,
            }
        }
        let (page, walk) = walk.next_page()?;
        Ok((Some(page), walk))
    });
    let pages = stream::try_unfold(walk.await?, |(first, walk)| async move {
        if let Some(page) = first {
            return Ok(Some((page, (None, walk))));
        }
        let Some(walk) = walk else { return Ok(None) };
        let pool = walk.core.pool.clone();
        let (page, walk) = pool.run_patiently(move || walk.next_page()).await?;
        Ok::<_, Status>(Some((page, (None, walk))))
    });
    Ok(Box::pin(pages))
}

impl Walk {
    /// Reads the next directories of the queue.
    fn read_on(&mut self) -> Answer<()> {
        let count = self.queue.len().min(AT_ONCE);
        let digests: Vec<BlobDigest> = self.queue.drain(..count).collect();
        let keys: Vec<BlobKey> = digests.iter().map(|&digest| BlobKey::Content(digest)).collect();
        let blobs = self.core.objects.names().blobs(&self.bucket).get_many(&keys)?;
        for (digest, blob) in digests.iter().zip(blobs) {
            let bytes = match blob {
                Some(blob) if blob.len > DIRECTORY_LEN_MAX => {
                    return Err(Status::invalid_argument("what should be a directory is too large for one").into());
                }
                Some(blob) => self.core.objects.blob_bytes(self.bucket.tenant(), &blob)?,
                None if Core::is_empty(digest) => bytes::Bytes::new(),
                None => continue,
            };
            let directory =
                Directory::decode(bytes).map_err(|_| Status::invalid_argument("what should be a directory is none"))?;
            for child in &directory.directories {
                let child = digest_of(child.digest.as_ref(), Some(self.function), &self.core.options.functions)?;
                if self.seen.insert(child) {
                    self.queue.push_back(child);
                }
            }
            if self.seen.len() > self.core.options.tree_directories {
                let words = format!("a tree of more than {} directories", self.core.options.tree_directories);
                return Err(Status::invalid_argument(words).into());
            }
            self.ready.push_back(directory);
        }
        Ok(())
    }

    /// The next page, and what is left of the walk.
    fn next_page(mut self) -> Answer<(GetTreeResponse, Option<Self>)> {
        let (mut directories, mut len) = (Vec::new(), 0);
        while directories.len() < self.page && len < PAGE_LEN {
            match self.ready.pop_front() {
                Some(directory) => {
                    len += directory.encoded_len();
                    directories.push(directory);
                }
                None if self.queue.is_empty() => break,
                None => self.read_on()?,
            }
        }
        self.sent += directories.len();
        // What is queued may be missing: then the last page is empty.
        let is_last = self.ready.is_empty() && self.queue.is_empty();
        let next_page_token = if is_last { String::new() } else { self.sent.to_string() };
        let page = GetTreeResponse {
            directories,
            next_page_token,
        };
        Ok((page, (!is_last).then_some(self)))
    }
}
