//! `pull` and `push`: what the far end of casync's protocol runs (`CASYNC_REMOTE_PATH=cairn`).

use std::os::fd::AsFd as _;
use std::path::Path;

use cairn_formats::HelloFlags;
use cairn_store::RateLimit;

use crate::cli::{Pull, Push};
use crate::context::Context;
use crate::engine;
use crate::engine::remote::{self, Offer, Pushed, Target};
use crate::failure::{Failure, Outcome};

/// An argument, unless it is `-`.
fn given(argument: &str) -> Option<&str> {
    (argument != "-").then_some(argument)
}

/// Gives what the other end asks for.
pub(crate) fn pull(context: &Context, rate: Option<std::num::NonZeroU64>, arguments: &Pull) -> Outcome<()> {
    let stores: Vec<String> = arguments.stores.iter().filter(|store| *store != "-").cloned().collect();
    let store = match &stores[..] {
        [] => None,
        stores => Some(context.chain(stores, &arguments.access)?),
    };
    let (index, archive) = (given(&arguments.index), given(&arguments.archive));
    if store.is_none() && index.is_none() && archive.is_none() {
        return Err(Failure::usage("nothing to give: name an archive, an index or a store"));
    }
    let rate = rate.map(RateLimit::new);
    let (input, output) = (std::io::stdin(), std::io::stdout());
    let mut wire = remote::Wire::new(input.as_fd(), output.as_fd(), rate.as_ref(), &context.progress);
    let result = remote::pull(
        &mut wire,
        store.as_deref(),
        index.map(Path::new),
        archive.map(Path::new),
    );
    ended(&mut wire, result)
}

/// Takes what the other end brings.
pub(crate) fn push(context: &Context, rate: Option<std::num::NonZeroU64>, arguments: &Push) -> Outcome<()> {
    let rate = rate.map(RateLimit::new);
    let (input, output) = (std::io::stdin(), std::io::stdout());
    let mut wire = remote::Wire::new(input.as_fd(), output.as_fd(), rate.as_ref(), &context.progress);
    let kept = take(context, &mut wire, arguments);
    match &kept {
        Ok(()) => wire.goodbye()?,
        Err(failure) => wire.abort(&failure.message),
    }
    kept
}

/// Nothing is made here before the other end has said what it brings: casync names a store even for an index alone.
fn take(context: &Context, wire: &mut remote::Wire<'_>, arguments: &Push) -> Outcome<()> {
    let (store, others) = match &arguments.stores[..] {
        [store, others @ ..] => (store.as_str(), others),
        [] => ("-", &[][..]),
    };
    let archive = given(&arguments.archive);
    let offer = Offer {
        store: given(store).is_some(),
        index: given(&arguments.index).is_some(),
        archive: archive.is_some(),
    };
    let wants = remote::greet_push(wire, offer)?;
    let chunks = given(store).filter(|_| wants.has(HelloFlags::PUSH_INDEX_CHUNKS));
    let store = chunks.map(|store| context.target(store, &arguments.access, &arguments.writing));
    let store = store.transpose()?;
    let others: Vec<String> = others.iter().filter(|store| *store != "-").cloned().collect();
    let others = match &others[..] {
        [] => None,
        others => Some(context.chain(others, &arguments.access)?),
    };
    let target = store.as_ref().map(|(store, _)| Target {
        store: &**store,
        others: others.as_deref(),
    });
    let mut temporary = archive
        .map(|path| engine::new_file(Path::new(path), None))
        .transpose()?;
    let file = temporary.as_mut().map(|temporary| temporary.as_file_mut());
    let pushed = remote::push(wire, wants, target.as_ref(), file)?;
    keep(context, arguments, pushed, temporary)
}

/// Gives what came its name, durable.
fn keep(
    context: &Context,
    arguments: &Push,
    pushed: Pushed,
    temporary: Option<tempfile::NamedTempFile>,
) -> Outcome<()> {
    if let Some(index) = pushed.index {
        context.put_index(&arguments.index, index, &arguments.access)?;
    }
    if let (Some(temporary), true) = (temporary, pushed.archive) {
        let path = Path::new(&arguments.archive);
        let synced = temporary.as_file().sync_all();
        synced.map_err(engine::file(path, "sync"))?;
        engine::name_file(temporary, path)?;
    }
    Ok(())
}

/// Tells the other end why this one gives up.
fn ended(wire: &mut remote::Wire<'_>, result: engine::Result<()>) -> Outcome<()> {
    if let Err(error) = &result {
        wire.abort(&error.to_string());
    }
    Ok(result?)
}
