//! What names keep alive: the chunks of all versions, of all parts of uploads and of all blobs. The collector marks them beside manifests.

use cairn_formats::DomainId;

use super::blobs::Blob;
use super::content::Content;
use super::rows;
use super::uploads::Part;
use super::version::content_of;
use crate::kv::{Version, View, ViewExt as _};
use crate::liveness::{Manifest, ManifestChunk, for_each_tenant};
use crate::{Error, Key, Result, Table, Tenant};

/// Chunks that a row keeps.
#[derive(Debug)]
pub(crate) enum Root {
    /// Those in the row.
    Chunks(DomainId, Vec<ManifestChunk>),
    /// Those of a manifest's pages.
    Manifest(Manifest),
}

/// Visits what rows keep that were committed after a version, of all tenants, until an error, which is returned.
pub(crate) fn for_each_root<E: From<Error>>(
    view: &(impl View + ?Sized),
    since: Version,
    mut visit: impl FnMut(&Tenant, Root) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    for_each_tenant(view, |tenant| {
        for table in [Table::Objects, Table::Versions] {
            view.for_each(Key::of(tenant, table).range(), |_, row| {
                let content = if row.version > since {
                    content_of(&row.value)?
                } else {
                    None
                };
                content.and_then(root).map_or(Ok(()), |root| visit(tenant, root))
            })?;
        }
        view.for_each(Key::of(tenant, Table::Parts).range(), |key, row| {
            if row.version <= since {
                return Ok(());
            }
            let part = Part::decode(rows::read_part(tenant, &key)?, &row.value, row.version)?;
            if !part.seam.is_empty() {
                visit(tenant, Root::Chunks(part.content.domain(), part.seam))?;
            }
            root(part.content).map_or(Ok(()), |root| visit(tenant, root))
        })?;
        view.for_each(Key::of(tenant, Table::BlobContents).range(), |_, row| {
            let content = (row.version > since).then(|| Blob::decode(&row.value)).transpose()?;
            content
                .and_then(|blob| root(blob.content))
                .map_or(Ok(()), |root| visit(tenant, root))
        })
    })
}

/// What content keeps in the store; bytes in a row keep nothing there.
fn root(content: Content) -> Option<Root> {
    match content {
        Content::Inline { .. } => None,
        Content::Chunks { domain, chunks } => Some(Root::Chunks(domain, chunks)),
        Content::Manifest(manifest) => Some(Root::Manifest(manifest)),
    }
}

impl Root {
    /// How many chunks, repeats included.
    pub(crate) fn count(&self) -> u64 {
        match self {
            Self::Chunks(_, chunks) => chunks.len() as u64,
            Self::Manifest(manifest) => manifest.chunks,
        }
    }

    /// Plain bytes of them.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Chunks(_, chunks) => chunks.iter().map(|chunk| u64::from(chunk.len)).sum(),
            Self::Manifest(manifest) => manifest.len,
        }
    }
}

/// Whether there is any blob, which only this release keeps alive.
pub(crate) fn any_blobs(view: &(impl View + ?Sized)) -> Result<bool> {
    let mut any = false;
    for_each_tenant(view, |tenant| {
        let page = view.scan(&Key::of(tenant, Table::Blobs).range(), crate::Order::Forward, 1)?;
        any |= !page.rows.is_empty();
        Ok::<_, Error>(())
    })?;
    Ok(any)
}

/// Whether any row of names keeps chunks alive.
pub(crate) fn any_names(view: &(impl View + ?Sized)) -> Result<bool> {
    let mut any = false;
    for_each_tenant(view, |tenant| {
        for table in [Table::Buckets, Table::Objects, Table::Versions, Table::Parts] {
            let page = view.scan(&Key::of(tenant, table).range(), crate::Order::Forward, 1)?;
            any |= !page.rows.is_empty();
        }
        Ok::<_, Error>(())
    })?;
    Ok(any)
}
