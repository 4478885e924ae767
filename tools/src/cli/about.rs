//! Verbs about the tool itself.

use std::path::PathBuf;

use clap::Args;

/// `config`
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// Write it to the configuration file
    #[arg(short = 'w', long)]
    pub(crate) write: bool,
}

/// `completion`
#[derive(Debug, Args)]
pub(crate) struct Completion {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// `manpage`
#[derive(Debug, Args)]
pub(crate) struct Manpage {
    /// Folder for the pages
    pub(crate) folder: PathBuf,
}
