//! `cairnd migrate`: the schema of the rows of buckets and objects, or of a store, while no server uses it.
//!
//! A server brings older rows up to its own schema when it opens them; this tells what it would do, does it beforehand, and goes back,
//! so that an older release can open the folder again. Rows of a newer schema are refused by whatever opens them. The data folder is
//! locked for the time of the verb. Not here: the steps (`cairn_index`).

use std::process::ExitCode;
use std::sync::Arc;

use cairn_index::{CommitLog, Database, RocksEngine, SCHEMA, SchemaRun, SchemaStep, migrate_schema, schema_of};
use cairn_store::{PackOptions, PackStore};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::config::Config;
use crate::data::DataFolder;
use crate::objects::FOLDER_NAME;
use crate::places::Packs;
use crate::routes::chain;
use crate::store_verbs::{Own, Say, chosen, print};

const AFTER_HELP: &str = "\
The server must not run: the data folder is locked meanwhile. A step back is refused while the rows hold what the older schema has
no place for; which rows, the error says.

EXAMPLES
  cairnd migrate status
  cairnd migrate up --dry-run
  cairnd migrate down 1                       before an older cairnd opens the folder";

/// `migrate`
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct MigrateArgs {
    /// A store; without this the rows of buckets and objects
    #[arg(long, global = true, value_name = "NAME")]
    store: Option<String>,
    /// Reports as JSON objects
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: MigrateVerb,
}

#[derive(Debug, Subcommand)]
enum MigrateVerb {
    /// Tell which schema the rows have, and which this release writes
    Status,
    /// Bring the rows up to the schema of this release
    Up {
        /// Tell the steps, take none
        #[arg(long)]
        dry_run: bool,
    },
    /// Go back to an older schema
    Down {
        /// The schema
        #[arg(value_name = "N")]
        to: u32,
        /// Tell the steps, and whether they can be taken; take none
        #[arg(long)]
        dry_run: bool,
    },
}

/// The rows that are meant.
struct Opened {
    name: String,
    place: String,
    rows: Database<RocksEngine>,
}

impl Opened {
    fn open(config: &Config, store: Option<&str>) -> Result<Self, String> {
        let objects = config.data.join(FOLDER_NAME);
        if store.is_none() && PackStore::is_at(&objects) {
            let (packs, _) = Packs::open(&objects, &PackOptions::default(), config.s3.places_cache, None)?;
            return Ok(Self {
                name: FOLDER_NAME.to_owned(),
                place: objects.display().to_string(),
                rows: Database::logged(packs.index, packs.engine as Arc<dyn CommitLog>),
            });
        }
        let (name, settings) = chosen(config, store)?;
        let own = Own::open(config, name, settings, true, None)?;
        let (Some(packs), Some(index)) = (&own.packs, &own.index) else {
            return Err(format!(
                "stores.{name} keeps no rows: it is no folder of packs, or was never used"
            ));
        };
        let log = Arc::clone(packs.engine()) as Arc<dyn CommitLog>;
        Ok(Self {
            name: name.to_owned(),
            place: own.folder.display().to_string(),
            rows: Database::logged(Arc::clone(index), log),
        })
    }
}

/// Does what is asked.
pub(crate) fn run(config: &Config, arguments: &MigrateArgs) -> Result<ExitCode, String> {
    // A mistyped folder is not made.
    if !config.data.join("FORMAT").is_file() {
        return Err(format!("{} is no data folder: it has no FORMAT", config.data.display()));
    }
    let _data = DataFolder::open(&config.data).map_err(|error| error.to_string())?;
    let say: &Say<'_> = &|object, lines| print(arguments.json, &object, lines);
    let Opened { name, place, rows } = Opened::open(config, arguments.store.as_deref())?;
    let (to, dry_run) = match arguments.verb {
        MigrateVerb::Status => {
            let found = schema_of(&rows).map_err(|error| chain(&error))?;
            let words = found.map_or("none yet".to_owned(), |found| found.to_string());
            let object = json!({"store": name, "schema": found, "known": SCHEMA});
            say(object, &format!("schema: {words}; this release writes {SCHEMA}"))?;
            return Ok(ExitCode::SUCCESS);
        }
        MigrateVerb::Up { dry_run } => (SCHEMA, dry_run),
        MigrateVerb::Down { to, dry_run } => (to, dry_run),
    };
    let run = if dry_run { SchemaRun::Dry } else { SchemaRun::Real };
    let steps = migrate_schema(&rows, to, run, &place).map_err(|error| chain(&error))?;
    let done = if dry_run { "would be taken" } else { "taken" };
    for SchemaStep { from, to, what } in &steps {
        let object = json!({"store": name, "from": from, "to": to, "what": what, "dry-run": dry_run});
        say(object, &format!("step from schema {from} to {to} {done}: {what}"))?;
    }
    if steps.is_empty() {
        let object = json!({"store": name, "schema": schema_of(&rows).map_err(|error| chain(&error))?, "steps": 0});
        say(object, "nothing is to be done")?;
    }
    Ok(ExitCode::SUCCESS)
}
