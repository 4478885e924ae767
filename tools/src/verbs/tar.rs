//! `tar`: a tree becomes an archive, or the index of one.

use std::io::Write;
use std::num::NonZeroU32;
use std::path::Path;

use cairn_formats::FeatureFlags;

use super::make::{Destination, report_make};
use super::output::output;
use crate::bar::Unit;
use crate::cli::{ArchiveStyle, Keeping, Shifting, SourceFormat, Tar};
use crate::context::Context;
use crate::engine::tree::{
    MtreeTree, Notes, OwnerShift, TarReader, TreeReader, TreeSource, WalkOptions, raise_handle_limit,
};
use crate::engine::{self, IndexSpool, MakeReport};
use crate::failure::{Failure, Outcome};
use crate::sizes::OwnerNumber;

/// Bytes gathered before they are written to an archive file: big enough for few calls, small enough for the processor's cache.
const BUFFER_LEN: usize = 512 << 10;

/// Archives a tree.
pub(crate) fn tar(context: &Context, arguments: &Tar) -> Outcome<()> {
    raise_handle_limit();
    let options = WalkOptions {
        flags: flags(context, &arguments.keeping)?,
        shift: owner_shift(&arguments.shifting),
    };
    let mut reader: Box<dyn TreeSource> = match arguments.input_format {
        SourceFormat::Disk => Box::new(TreeReader::open(&arguments.source, &options)?),
        SourceFormat::Tar => Box::new(TarReader::open(&arguments.source, &options)?),
        SourceFormat::Mtree => Box::new(MtreeTree::open(&arguments.source, &options)?),
    };
    let reader = &mut *reader;
    let bar = context.bar("archiving", Unit::Bytes);
    let report = if arguments.index {
        index(context, arguments, &options, reader)?
    } else {
        archive(context, arguments, reader)?
    };
    drop(bar);
    let notes = reader.take_notes();
    if arguments.print_stats || context.json || context.verbose {
        report_make(context, &report, false)?;
    }
    tell(&notes, arguments.strict)
}

/// Cuts and stores the archive as it is made.
fn index(
    context: &Context,
    arguments: &Tar,
    options: &WalkOptions,
    reader: &mut dyn TreeSource,
) -> Outcome<MakeReport> {
    let destination = Destination::open(
        context,
        arguments.store.as_deref(),
        &arguments.output,
        &arguments.cutting,
        &arguments.storing,
    )?;
    let make = &destination.options;
    let mut spool = IndexSpool::new(options.flags, make.sizes)?;
    let source = &arguments.source;
    let made = engine::make(
        &mut *reader,
        source,
        destination.store(),
        make,
        &context.progress,
        &mut |id, len| spool.push(id, len),
    );
    let report = made.map_err(|error| reader.take_failure().unwrap_or(error))?;
    destination.put_index(context, &arguments.output, spool.finish()?, &arguments.storing.access)?;
    Ok(report)
}

/// Writes the archive to a file, which gets its name when it is whole, or to standard output.
fn archive(context: &Context, arguments: &Tar, reader: &mut dyn TreeSource) -> Outcome<MakeReport> {
    let bytes = output(Path::new(&arguments.output), |output, name| {
        copy(context, reader, output, name)
    })?;
    Ok(MakeReport {
        bytes,
        ..MakeReport::default()
    })
}

fn copy(context: &Context, reader: &mut dyn TreeSource, output: &mut dyn Write, name: &Path) -> Outcome<u64> {
    let mut buffer = vec![0; BUFFER_LEN];
    let mut bytes = 0;
    loop {
        context.progress.check().map_err(engine::Error::from)?;
        let len = reader.fill(&mut buffer)?;
        if len == 0 {
            return Ok(bytes);
        }
        let written = output.write_all(&buffer[..len]);
        written.map_err(|error| Failure::io(name.display(), "write", &error))?;
        bytes += len as u64;
        context.progress.advance(len as u64);
    }
}

/// The feature flags that the command line asks for.
pub(super) fn flags(context: &Context, keeping: &Keeping) -> Outcome<FeatureFlags> {
    let named = |names: &[String]| {
        names.iter().try_fold(0, |bits, name| {
            let flags = FeatureFlags::named(name).map_err(|error| Failure::usage(error.to_string()))?;
            Ok::<u64, Failure>(bits | flags.0)
        })
    };
    let (with, without) = (named(&keeping.with)?, named(&keeping.without)?);
    let mut flags = match keeping.style {
        // casync starts from everything, so that what is taken away uncovers what it stood for.
        ArchiveStyle::Casync => named(&["all".to_owned()])
            .map(FeatureFlags)?
            .with_digest(context.digest),
        ArchiveStyle::Desync => FeatureFlags::desync_archive().with_digest(context.digest),
    };
    if with != 0 {
        let how = FeatureFlags::EXCLUDE_FILE | FeatureFlags::EXCLUDE_NODUMP | FeatureFlags::SHA512_256;
        flags = FeatureFlags(flags.0 & how | with);
    }
    let mut bits = flags.0 & !without;
    if keeping.no_time {
        bits &=
            !(FeatureFlags::NSEC_TIME | FeatureFlags::USEC_TIME | FeatureFlags::SEC_TIME | FeatureFlags::TWO_SEC_TIME);
    }
    for (bit, on) in [
        (FeatureFlags::EXCLUDE_FILE, keeping.exclude_file),
        (FeatureFlags::EXCLUDE_NODUMP, keeping.exclude_nodump),
        (FeatureFlags::EXCLUDE_SUBMOUNTS, keeping.one_file_system),
    ] {
        bits = if on { bits | bit } else { bits & !bit };
    }
    // casync gives an ACL the owners that it needs.
    let owners = FeatureFlags::UIDS_16BIT | FeatureFlags::UIDS_32BIT | FeatureFlags::USER_NAMES;
    if bits & FeatureFlags::ACL != 0 && bits & owners == 0 {
        bits |= FeatureFlags::UIDS_32BIT | FeatureFlags::USER_NAMES;
    }
    if bits & FeatureFlags::SUBVOLUME_READ_ONLY != 0 {
        bits |= FeatureFlags::SUBVOLUME;
    }
    Ok(FeatureFlags(bits).normal_form())
}

/// Owners' numbers as the command line has them; one `no` is enough for none.
pub(super) fn owner_shift(arguments: &Shifting) -> Option<OwnerShift> {
    /// casync's: what a container gets.
    const COUNT: u32 = 0x10000;
    let given = [arguments.uid_shift, arguments.uid_range];
    if given == [None; 2] || given.contains(&Some(OwnerNumber::No)) {
        return None;
    }
    let number = |given| match given {
        Some(OwnerNumber::Is(number)) => Some(number),
        _ => None,
    };
    let first = number(arguments.uid_shift).unwrap_or_default();
    let count = number(arguments.uid_range).unwrap_or(COUNT.into());
    Some(OwnerShift {
        first: first as u32,
        // All 2^32 are no restriction.
        count: NonZeroU32::new(count as u32),
    })
}

/// Lists what could not be kept or restored.
pub(super) fn tell(notes: &Notes, strict: bool) -> Outcome<()> {
    for note in notes.kept() {
        eprintln!("cairn: {note}");
    }
    let more = notes.count() - notes.kept().len() as u64;
    if more > 0 {
        eprintln!("cairn: and {more} more");
    }
    if strict && notes.count() > 0 {
        return Err(Failure::incomplete(format!(
            "{} entries are not as they were",
            notes.count()
        )));
    }
    Ok(())
}
