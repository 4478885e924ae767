//! An archive's bytes taken apart, and handed to whoever makes something of them.

use bytes::Bytes;
use cairn_formats::{ArchiveDecoder, ArchiveLimits, FeatureFlags, Node, Step};

use crate::engine::Result;

/// Takes an archive's entries in order.
pub(crate) trait TreeSink {
    /// The archive's feature flags; the first call.
    fn start(&mut self, flags: FeatureFlags) -> Result<()>;

    /// An entry; the root has no name. A folder's entries follow until [`TreeSink::leave`], a file's bytes at once.
    fn enter(&mut self, name: Option<Bytes>, node: Box<Node>) -> Result<()>;

    /// Bytes of the file entered last.
    fn payload(&mut self, bytes: Bytes) -> Result<()>;

    /// A name without an inode.
    fn orphan(&mut self, name: Bytes) -> Result<()>;

    /// The folder that is open has ended.
    fn leave(&mut self) -> Result<()>;
}

/// Feeds a sink from bytes that come in any pieces.
pub(crate) struct Unpacker<'a> {
    decoder: ArchiveDecoder,
    sink: &'a mut dyn TreeSink,
    started: bool,
}

impl<'a> Unpacker<'a> {
    pub(crate) fn new(sink: &'a mut dyn TreeSink) -> Self {
        Self {
            decoder: ArchiveDecoder::new(ArchiveLimits::default()),
            sink,
            started: false,
        }
    }

    /// Takes the next bytes. Errors: the archive breaks a rule, or the sink's.
    pub(crate) fn push(&mut self, bytes: Bytes) -> Result<()> {
        self.decoder.push(bytes);
        self.run()
    }

    /// The end of the bytes. Errors: the archive is not whole.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.decoder.finish();
        self.run()
    }

    fn run(&mut self) -> Result<()> {
        loop {
            let step = self.decoder.next()?;
            if !self.started
                && let Some(flags) = self.decoder.flags()
            {
                self.started = true;
                self.sink.start(flags)?;
            }
            match step {
                Step::NeedBytes | Step::End => return Ok(()),
                Step::Enter { name, node, .. } => self.sink.enter(name, node)?,
                Step::Payload(bytes) => self.sink.payload(bytes)?,
                Step::Orphan { name } => self.sink.orphan(name)?,
                Step::Leave => self.sink.leave()?,
            }
        }
    }
}
