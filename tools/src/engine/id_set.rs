//! Sets of chunk ids that may be huge: every set is an index (mapped where it is long) and a table over it, so membership
//! costs four bytes a chunk, in a file when they are many.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::path::Path;

use bytes::Bytes;
use cairn_formats::{ChunkId, ChunkIndex, ChunkSizes, ChunkSpan, DigestAlgorithm, FeatureFlags, IndexEncoder};

use super::error::file;
use super::position::PositionTable;
use super::{Error, Result};

/// The chunks of some indexes and lists.
#[derive(Debug, Default)]
pub(crate) struct IdSet {
    parts: Vec<(ChunkIndex, PositionTable)>,
}

impl IdSet {
    /// Adds the chunks of an index. Errors: no temporary file for a big one.
    pub(crate) fn add(&mut self, index: ChunkIndex) -> Result<()> {
        let table = PositionTable::build(&index).map_err(file(Path::new("a temporary file"), "plan in"))?;
        self.parts.push((index, table));
        Ok(())
    }

    /// Adds the ids of a text file, one a line; empty lines are passed over.
    pub(crate) fn add_list(&mut self, path: &Path) -> Result<()> {
        let opened = File::open(path).map_err(file(path, "open the list of chunks"))?;
        let mut spool = IndexSpool::new(FeatureFlags::blob(DigestAlgorithm::default()), ChunkSizes::DEFAULT)?;
        for (number, line) in BufReader::new(opened).lines().enumerate() {
            let line = line.map_err(file(path, "read"))?;
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            let id = line.parse::<ChunkId>().map_err(|error| {
                let wrong = io::Error::new(io::ErrorKind::InvalidData, format!("line {}: {error}", number + 1));
                file(path, "read the list of chunks")(wrong)
            })?;
            spool.push(id, 1)?;
        }
        let index = ChunkIndex::parse(spool.finish()?).expect("the spool writes sound indexes");
        self.add(index)
    }

    /// Whether a chunk is in the set.
    pub(crate) fn contains(&self, id: ChunkId) -> bool {
        self.parts.iter().any(|(index, table)| table.find(id, index).is_some())
    }

    /// Each chunk once, at its first place in the first index that names it.
    pub(crate) fn unique(&self) -> impl Iterator<Item = ChunkSpan> + '_ {
        self.parts.iter().enumerate().flat_map(move |(number, (index, table))| {
            index.spans().enumerate().filter_map(move |(at, span)| {
                let first = table.find(span.id, index) == Some(at)
                    && !self.parts[..number]
                        .iter()
                        .any(|(index, table)| table.find(span.id, index).is_some());
                first.then_some(span)
            })
        })
    }
}

/// An index that is being written, in a file without a name.
pub(crate) struct IndexSpool {
    file: BufWriter<File>,
    encoder: IndexEncoder,
    bytes: Vec<u8>,
}

impl IndexSpool {
    /// Starts one.
    pub(crate) fn new(flags: FeatureFlags, sizes: ChunkSizes) -> Result<Self> {
        let file = tempfile::tempfile().map_err(spool_error)?;
        let mut bytes = Vec::new();
        let encoder = IndexEncoder::start(flags, sizes, &mut bytes);
        Ok(Self {
            file: BufWriter::with_capacity(1 << 16, file),
            encoder,
            bytes,
        })
    }

    /// Adds the next chunk.
    pub(crate) fn push(&mut self, id: ChunkId, len: usize) -> Result<()> {
        self.encoder.push(id, len, &mut self.bytes);
        self.file.write_all(&self.bytes).map_err(spool_error)?;
        self.bytes.clear();
        Ok(())
    }

    /// The whole index, mapped.
    pub(crate) fn finish(mut self) -> Result<Bytes> {
        self.encoder.finish(&mut self.bytes);
        self.file.write_all(&self.bytes).map_err(spool_error)?;
        let file = self
            .file
            .into_inner()
            .map_err(|error| spool_error(error.into_error()))?;
        #[allow(unsafe_code)] // the only way to map a file
        // SAFETY: the file has no name and this was its only handle, so nobody can change or cut it while it is mapped.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(spool_error)?;
        Ok(Bytes::from_owner(map))
    }
}

fn spool_error(source: io::Error) -> Error {
    file(&std::env::temp_dir(), "write a temporary file in")(source)
}
