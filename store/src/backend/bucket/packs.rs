//! Packs as objects: ranged reads, objects that are made only where none is, and uploads in parts of which the same holds; where
//! a service promises it of whole objects alone, packs are sent whole.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, MultipartId, PutMode, PutOptions};
use reqwest::StatusCode;

use super::service::ServiceFault;
use super::{Bucket, failed};
use crate::backend::remote::packs::{FOLDER, PackFiles};
use crate::backend::remote::patience::Patience;
use crate::backend::remote::{Fault, Files as _, Page, Try};
use crate::rate;

/// Bytes a second below which an upload is taken for stuck; the time for one request comes on top.
const SLOWEST: u64 = 128 << 10;

/// S3's own limit, for all parts but the last.
const PART_LEN_MIN: usize = 5 << 20;

impl PackFiles for Bucket {
    async fn read_range(&self, name: &str, start: u64, end: u64) -> Try<Option<Bytes>> {
        self.read_bounded(name, start, end, None).await
    }

    async fn create(&self, name: &str, body: Bytes) -> Try<bool> {
        rate::pause_for(self.options.rate_limit.as_deref(), body.len()).await;
        let limit = self.upload_limit(body.len());
        let put = async {
            let path = self.path(name)?;
            let options = PutOptions {
                mode: PutMode::Create,
                ..PutOptions::default()
            };
            match self.client.objects.put_opts(&path, body.into(), options).await {
                Ok(_) => Ok(true),
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(false),
                // Nothing but the bucket can be missing.
                Err(error @ object_store::Error::NotFound { .. }) => Err(Fault::refused(error)),
                Err(error) => Err(failed(error)),
            }
        };
        self.timed(limit, put).await
    }

    async fn create_in_parts(
        &self,
        name: &str,
        body: Bytes,
        part_len: usize,
        patience: &Patience,
    ) -> Result<bool, Fault> {
        let Some(parts) = self.client.parts.as_deref() else {
            let created = patience.insist(|| self.create(name, body.clone())).await;
            return match created {
                Ok(created) => Ok(created),
                Err(given_up) => self.unless_there(name, given_up.into(), patience).await,
            };
        };
        let path = &Path::parse(format!("{}{name}", self.prefix)).map_err(|error| Fault::Refused(error.into()))?;
        let begin = || async {
            let begun = async { parts.create_multipart(path).await.map_err(failed) };
            self.timed(self.options.timeout, begun).await
        };
        let upload = &patience.insist(begin).await.map_err(Fault::from)?;
        // As equal as they can be.
        let count = body.len().div_ceil(part_len.max(2 * PART_LEN_MIN)).max(1);
        let part_len = body.len().div_ceil(count).max(1);
        let finish = async {
            // One after the other: several packs are on their way at once.
            let mut ids = Vec::new();
            for part in 0..body.len().div_ceil(part_len) {
                let piece = body.slice(part * part_len..body.len().min((part + 1) * part_len));
                ids.push(self.put_part(parts, (path, upload), part, piece, patience).await?);
            }
            let complete = || async {
                let completed = parts.complete_multipart(path, upload, ids.clone());
                let completed = async { completed.await.map(|_| true).map_err(failed) };
                self.timed(self.upload_limit(body.len()), completed).await
            };
            patience.insist(complete).await.map_err(Fault::from)
        };
        let fault = match finish.await {
            Ok(created) => return Ok(created),
            Err(fault) => fault,
        };
        let told = self.unless_there(name, fault, patience).await;
        if told.is_err() {
            // Its parts cost room until the upload is given up; the first error is the one to tell.
            let abort = async { parts.abort_multipart(path, upload).await.map_err(failed) };
            let _ = self.timed(self.options.timeout, abort).await;
        }
        told
    }

    async fn list_packs(&self, after: Option<&str>) -> Try<Page> {
        self.list_below(self.path(FOLDER)?, after).await
    }

    async fn any_name(&self) -> Try<Option<String>> {
        let page = self.list("", None).await?;
        Ok(page.files.into_iter().next().map(|(name, _)| name))
    }

    fn may_be_missing(&self, fault: &Fault) -> bool {
        let Fault::Refused(source) = fault else {
            return false;
        };
        matches!(source.downcast_ref(), Some(ServiceFault::Status { status, .. }) if *status == StatusCode::FORBIDDEN)
    }
}

impl Bucket {
    /// Bytes of an object.
    ///
    /// - `tag`: the object has to have this entity tag still.
    pub(super) async fn read_bounded(&self, name: &str, start: u64, end: u64, tag: Option<&str>) -> Try<Option<Bytes>> {
        let path = self.path(name)?;
        let options = GetOptions {
            range: Some(GetRange::Bounded(start..end)),
            if_match: tag.map(str::to_owned),
            ..GetOptions::default()
        };
        let begin = async { self.found(self.client.objects.get_opts(&path, options).await) };
        let Some(result) = self.timed(self.options.timeout, begin).await? else {
            return Ok(None);
        };
        let len = end - start;
        let mut bytes = BytesMut::with_capacity(usize::try_from(len).unwrap_or(0));
        let mut pieces = result.into_stream();
        let idle = self.options.idle_timeout;
        // It may take as long as it keeps coming.
        loop {
            match tokio::time::timeout(idle, pieces.next()).await {
                Ok(Some(piece)) => {
                    let piece = piece.map_err(failed)?;
                    rate::pause_for(self.options.rate_limit.as_deref(), piece.len()).await;
                    bytes.extend_from_slice(&piece);
                }
                Ok(None) => break,
                Err(_) => return Err(Fault::passing(format!("nothing more of the object within {idle:?}"))),
            }
        }
        if bytes.len() as u64 != len {
            let came = bytes.len();
            return Err(Fault::passing(format!(
                "{came} bytes came of {len} that were asked for"
            )));
        }
        Ok(Some(bytes.freeze()))
    }

    /// What an upload that failed came to. Its answer may have been lost, or have come before the server had heard all and broken
    /// the connection: if the name is taken, whoever called looks by whom.
    async fn unless_there(&self, name: &str, fault: Fault, patience: &Patience) -> Result<bool, Fault> {
        match patience.insist(|| self.len(name)).await {
            Ok(Some(_)) => Ok(false),
            _ => Err(fault),
        }
    }

    async fn put_part(
        &self,
        parts: &dyn MultipartStore,
        (path, upload): (&Path, &MultipartId),
        part: usize,
        piece: Bytes,
        patience: &Patience,
    ) -> Result<PartId, Fault> {
        let put = || async {
            rate::pause_for(self.options.rate_limit.as_deref(), piece.len()).await;
            let put = async {
                let put = parts.put_part(path, upload, part, piece.clone().into());
                put.await.map_err(failed)
            };
            self.timed(self.upload_limit(piece.len()), put).await
        };
        patience.insist(put).await.map_err(Fault::from)
    }

    /// How long one try of an upload may take.
    fn upload_limit(&self, len: usize) -> Option<Duration> {
        let transfer = Duration::from_secs(len as u64 / SLOWEST);
        self.options.timeout.map(|timeout| timeout + transfer)
    }
}
