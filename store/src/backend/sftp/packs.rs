//! Packs as files: parts of them, and new ones that replace nothing.

use std::sync::Arc;

use bytes::Bytes;

use super::session::{Session, Trouble};
use super::{Folder, TIMED_LEN_MAX};
use crate::backend::remote::Files as _;
use crate::backend::remote::packs::{FOLDER, PackFiles};
use crate::backend::remote::{Page, Try};
use crate::rate;

impl PackFiles for Folder {
    async fn read_range(&self, name: &str, start: u64, end: u64) -> Try<Option<Bytes>> {
        let path = self.path(name);
        let limit = self.network.timeout.filter(|_| end - start <= TIMED_LEN_MAX as u64);
        let rate = self.network.rate_limit.as_deref();
        let read = |session: Arc<Session>| async move { session.read_range(&path, start, end, rate).await };
        self.with(limit, read).await
    }

    async fn create(&self, name: &str, body: Bytes) -> Try<bool> {
        let path = self.path(name);
        // Each piece has to be answered in time, however many there are.
        let limit = self.network.timeout.filter(|_| body.len() <= TIMED_LEN_MAX);
        rate::pause_for(self.network.rate_limit.as_deref(), body.len()).await;
        let create = |session: Arc<Session>| async move {
            let temporary = self.write_temporary(&session, &path, &body).await?;
            let named = session.rename_to_new(&temporary, &path).await;
            if !matches!(named, Ok(true)) && !named.as_ref().is_err_and(Trouble::breaks_the_connection) {
                // What has the name stays; the first error is the one to tell.
                let _ = session.remove(&temporary).await;
            }
            named
        };
        self.with(limit, create).await
    }

    async fn list_packs(&self, _after: Option<&str>) -> Try<Page> {
        self.list(FOLDER, None).await
    }

    async fn any_name(&self) -> Try<Option<String>> {
        let path = format!("{}/", self.base);
        let list = |session: Arc<Session>| async move { Self::entries(&session, &path).await };
        let entries = self.with(self.network.timeout, list).await?;
        let mut names = entries.into_iter().map(|entry| entry.name);
        Ok(names.find(|name| name != "." && name != ".."))
    }
}
