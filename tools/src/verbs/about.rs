//! `config`, `completion` and `manpage`: the tool about itself.

use clap::CommandFactory as _;

use crate::cli::{Cli, Completion, ConfigArgs, Manpage};
use crate::context::{Context, print};
use crate::failure::{Failure, Outcome};

/// Prints the configuration in force or writes it where it is read from.
pub(crate) fn config(context: &Context, arguments: &ConfigArgs) -> Outcome<()> {
    let mut text = serde_json::to_string_pretty(&context.config).expect("the configuration is plain JSON");
    text.push('\n');
    if !arguments.write {
        return print(text.as_bytes());
    }
    let path = &context.config_path;
    let folder = path.parent().unwrap_or(path);
    let write = || {
        std::fs::create_dir_all(folder)?;
        // It may hold credentials: nobody else reads it (the temporary file is 0600).
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        std::io::Write::write_all(&mut file, text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    write().map_err(|error: std::io::Error| Failure::io(path.display(), "write the configuration", &error))?;
    context.report(
        &serde_json::json!({ "written": path }),
        &format!("wrote {}", path.display()),
    )
}

/// Prints a completion script.
pub(crate) fn completion(arguments: &Completion) -> Outcome<()> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "cairn", &mut script);
    print(&script)
}

/// Writes a page per verb.
pub(crate) fn manpage(arguments: &Manpage) -> Outcome<()> {
    let folder = &arguments.folder;
    let write = || {
        std::fs::create_dir_all(folder)?;
        clap_mangen::generate_to(Cli::command(), folder)
    };
    write().map_err(|error: std::io::Error| Failure::io(folder.display(), "write manual pages to", &error))
}
