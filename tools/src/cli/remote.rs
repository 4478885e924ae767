//! casync's far end over SSH. The words and their order are what casync writes when it starts the other side.

use clap::Args;

use super::groups::{Access, Writing};

/// `pull`
#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// Taken for casync's sake: -
    pub(crate) base: String,
    /// Archive to give, or -
    pub(crate) archive: String,
    /// Index to give, or -
    pub(crate) index: String,
    /// Stores of the chunks to give, asked in order, or -
    #[arg(required = true)]
    pub(crate) stores: Vec<String>,
    #[command(flatten)]
    pub(crate) access: Access,
}

/// `push`
#[derive(Debug, Args)]
pub(crate) struct Push {
    /// Taken for casync's sake: -
    pub(crate) base: String,
    /// Archive to write, or -
    pub(crate) archive: String,
    /// Index to write, or -
    pub(crate) index: String,
    /// Store of the chunks, or -; further ones are not written, but what they have is not asked for
    #[arg(required = true)]
    pub(crate) stores: Vec<String>,
    #[command(flatten)]
    pub(crate) writing: Writing,
    #[command(flatten)]
    pub(crate) access: Access,
}
