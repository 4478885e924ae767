//! `cairn`: one binary, a verb per job. This file reads the command line and turns the end of a verb into an exit code.

mod admin;
mod bar;
mod cli;
mod config;
mod context;
mod engine;
mod failure;
mod sizes;
mod verbs;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Verb};
use crate::context::Context;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{}", failure.line(cli.global.json));
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn run(cli: &Cli) -> failure::Outcome<()> {
    let context = Context::new(&cli.global)?;
    // These stay until a signal, and have their own ways to end.
    let stays = matches!(
        cli.verb,
        Verb::ChunkServer(_) | Verb::IndexServer(_) | Verb::Mount(_) | Verb::MountIndex(_)
    );
    if !stays {
        context.obey_signals()?;
    }
    let outcome = match &cli.verb {
        Verb::Make(arguments) => verbs::make::make(&context, arguments),
        Verb::Chop(arguments) => verbs::make::chop(&context, arguments),
        Verb::Chunk(arguments) => verbs::make::chunk(&context, arguments),
        Verb::Extract(arguments) => verbs::extract::extract(&context, arguments),
        Verb::Cat(arguments) => verbs::extract::cat(&context, arguments),
        Verb::Verify(arguments) => verbs::verify::verify(&context, arguments),
        Verb::VerifyIndex(arguments) => verbs::verify::verify_index(&context, arguments),
        Verb::Info(arguments) => verbs::inspect::info(&context, arguments),
        Verb::InspectChunks(arguments) => verbs::inspect::inspect_chunks(&context, arguments),
        Verb::ListChunks(arguments) => verbs::inspect::list_chunks(&context, arguments),
        Verb::Diff(arguments) => verbs::inspect::diff(&context, arguments),
        Verb::Cache(arguments) => verbs::copy::cache(&context, arguments),
        Verb::Convert(arguments) => verbs::copy::convert(&context, arguments),
        Verb::Prune(arguments) => verbs::prune::prune(&context, arguments),
        Verb::Store(arguments) => verbs::store::store(&context, arguments),
        Verb::Tar(arguments) => verbs::tar::tar(&context, arguments),
        Verb::Mount(arguments) => verbs::mount::mount(&context, arguments),
        Verb::MountIndex(arguments) => verbs::mount_index::mount_index(&context, arguments),
        Verb::Untar(arguments) => verbs::untar::untar(&context, arguments),
        Verb::List(arguments) => verbs::list::list(&context, arguments),
        Verb::Mtree(arguments) => verbs::list::mtree(&context, arguments),
        Verb::Pull(arguments) => verbs::remote::pull(&context, cli.global.rate_limit_bps, arguments),
        Verb::Push(arguments) => verbs::remote::push(&context, cli.global.rate_limit_bps, arguments),
        Verb::ChunkServer(arguments) => verbs::serve::chunk_server(&context, arguments),
        Verb::IndexServer(arguments) => verbs::serve::index_server(&context, arguments),
        Verb::Bucket(arguments) => verbs::admin::bucket(&context, arguments),
        Verb::Object(arguments) => verbs::admin::object(&context, arguments),
        Verb::Key(arguments) => verbs::admin::key(&context, arguments),
        Verb::Tenant(arguments) => verbs::admin::tenant(&context, arguments),
        Verb::Sign(arguments) => verbs::sign::sign(&context, arguments),
        Verb::Config(arguments) => verbs::about::config(&context, arguments),
        Verb::Completion(arguments) => verbs::about::completion(arguments),
        Verb::Manpage(arguments) => verbs::about::manpage(arguments),
    };
    outcome.map_err(|mut failure| {
        // Whatever was in the middle when Ctrl-C came, a request for instance.
        if context.progress.check().is_err() {
            failure.exit = failure::Exit::Interrupted;
        }
        failure
    })
}
