//! Indexes of a server, each with the chunks that a reader of it lacks, in one round trip (`formats/FORMATS.md`, "Many chunks at once").

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use cairn_formats::{ChunkIndex, PULL_CONTENT_TYPE, PULL_HEADER, PULL_IDS_MAX, PullIndexAnswer, PullIndexStep};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};

use crate::Server;
use crate::error::ClientError;

/// An answer of which nothing comes for so long is given up.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// A reader of a server's index root.
pub struct Indexes {
    server: Server,
    authorization: Option<String>,
}

impl Indexes {
    /// A reader of the root at `url`, as `http://host:8000/index/bucket/`.
    ///
    /// - `authorization`: the value of the header, as `Bearer TOKEN`.
    /// - Errors: [`ClientError::BadUrl`], [`ClientError::Start`].
    pub fn new(url: &str, authorization: Option<String>) -> Result<Self, ClientError> {
        let server = Server::new(url, IDLE_MAX)?;
        Ok(Self { server, authorization })
    }

    /// Gets an index and the chunks of it that are not named by `held`, as they come.
    ///
    /// - `held`: the file of an index whose chunks the caller has.
    /// - `take`: first the index, then its chunks, which are not proven; the last step is their end. What it answers with an error ends
    ///   the call with that error.
    /// - Errors: [`ClientError::Refused`] by a server that does not do this (405) or has no such index (404); [`ClientError::Cut`], after
    ///   which what was taken holds; and those of `take`.
    pub fn pull<E: From<ClientError>>(
        &self,
        name: &str,
        held: Option<Bytes>,
        mut take: impl FnMut(PullIndexStep) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut ids = HashSet::new();
        if let Some(file) = &held {
            let index = ChunkIndex::parse(file.clone()).map_err(|error| ClientError::Start { source: error.into() })?;
            ids.extend(index.spans().map(|span| span.id));
        }
        let mut url = self.server.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(name.split('/'));
        }
        let mut request = self.server.client.post(url).body(held.unwrap_or_default());
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let broken = |error| E::from(self.server.unreachable(error));
        self.server.runtime.block_on(async {
            let mut response = request.send().await.map_err(broken)?;
            let status = response.status().as_u16();
            let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
            if status != 200 {
                let message = response.text().await.unwrap_or_default();
                return Err(E::from(ClientError::Refused {
                    status,
                    code: String::new(),
                    message: message.lines().next().unwrap_or_default().to_owned(),
                    fields: Vec::new(),
                }));
            }
            if header(CONTENT_TYPE.as_str()) != Some(PULL_CONTENT_TYPE) {
                return Err(E::from(ClientError::NotOurs {
                    server: self.server.shown(),
                    status,
                    what: "something else",
                }));
            }
            let ids_max = header(PULL_HEADER)
                .and_then(|ids| ids.parse().ok())
                .unwrap_or(PULL_IDS_MAX);
            let mut answer = PullIndexAnswer::new(ids, ids_max);
            while let Some(piece) = response.chunk().await.map_err(broken)? {
                answer.push(piece);
                while let Some(step) = answer.next().map_err(|error| E::from(error.into()))? {
                    take(step)?;
                }
            }
            match answer.has_ended() {
                true => Ok(()),
                false => Err(E::from(ClientError::Cut {
                    server: self.server.shown(),
                })),
            }
        })
    }
}
