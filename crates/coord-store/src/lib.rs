//! The coordination server's records in one file.
//!
//! The server's core says what it must not forget ([`coord::server::Server::poll_store`]); a [`Store`] writes it to a file of
//! [`redb`], in which a transaction is there whole or not at all, whatever happens to the process or the machine at that moment.
//! Records are JSON, so that a later version reads those of an earlier one as long as fields are only added.
//!
//! ```no_run
//! # fn run(config: coord::server::ServerConfig, rng: rand_chacha::ChaCha12Rng, now: std::time::Instant) -> Result<(), coord_store::StoreError> {
//! let (mut store, state) = coord_store::Store::open("/var/lib/punchbag/coord.redb".as_ref())?;
//! let mut server = coord::server::Server::load(config, state, rng, now);
//! // After each input of the server:
//! while let Some(write) = server.poll_store() {
//!     store.write(&write)?; // waits for the disk; may be done on another thread
//!     server.stored(write.id, now);
//! }
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::path::{Path, PathBuf};

use coord::state::{Change, SCHEMA, Settings, State, Write};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use serde::Serialize;
use serde::de::DeserializeOwned;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const NODES: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("nodes");
const KEYS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("keys");
const SCHEMA_KEY: &str = "schema";
const SETTINGS_KEY: &str = "settings";

/// Why a store cannot be opened or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file cannot be opened, read or written.
    #[error("{path}: {source}")]
    Database {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<redb::Error>,
    },
    /// The file is of a later version of the program.
    #[error(
        "{path} was written by a later version (schema {found}, this one knows {SCHEMA}): start that version"
    )]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u32,
    },
    /// The file is of an earlier version of the program that cannot be read any more.
    #[error(
        "{path} was written by an earlier version (schema {found}, this one knows {SCHEMA}): move it away to start anew"
    )]
    TooOld {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u32,
    },
    /// A record is not what was written.
    #[error("{path}: {what} is damaged: {why}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which record.
        what: String,
        /// How.
        why: String,
    },
    /// It is a database of something else.
    #[error("{path} is a database, but not of a coordination server: choose another path")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
}

/// An open file. One process at a time has it.
pub struct Store {
    path: PathBuf,
    database: Database,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens a file, or makes it, and reads what is in it.
    ///
    /// # Errors
    /// The file cannot be used, is of another version, or is damaged.
    pub fn open(path: &Path) -> Result<(Store, State), StoreError> {
        let at = |error: redb::Error| StoreError::Database { path: path.to_owned(), source: Box::new(error) };
        if !path.exists() {
            // A file whose making was interrupted is no database yet: it gets its name once it is one.
            let fresh = path.with_extension("new");
            let failed = |error: std::io::Error| at(redb::Error::Io(error));
            if fresh.exists() {
                std::fs::remove_file(&fresh).map_err(failed)?;
            }
            drop(Store::over(&fresh, Database::create(&fresh).map_err(|error| at(error.into()))?)?);
            std::fs::rename(&fresh, path).map_err(failed)?;
        }
        Store::over(path, Database::create(path).map_err(|error| at(error.into()))?)
    }

    /// What is in a database, whatever it is on.
    fn over(path: &Path, database: Database) -> Result<(Store, State), StoreError> {
        let at = |error: redb::Error| StoreError::Database { path: path.to_owned(), source: Box::new(error) };
        let mut store = Store { path: path.to_owned(), database };
        let state = match store.schema()? {
            Some(SCHEMA) => store.read()?,
            Some(found) if found > SCHEMA => return Err(StoreError::TooNew { path: path.to_owned(), found }),
            Some(found) => return Err(StoreError::TooOld { path: path.to_owned(), found }),
            None => {
                store.make().map_err(at)?;
                State::default()
            }
        };
        Ok((store, state))
    }

    /// Writes some changes, all of them or none. When it returns, they are on the disk.
    ///
    /// # Errors
    /// The file cannot be written. What was in it before stays.
    pub fn write(&mut self, write: &Write) -> Result<(), StoreError> {
        self.commit(write).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: redb::Error) -> StoreError {
        StoreError::Database { path: self.path.clone(), source: Box::new(error) }
    }

    /// The schema of what is in the file; `None` if it is new.
    fn schema(&self) -> Result<Option<u32>, StoreError> {
        let read = || -> Result<Option<Option<u32>>, redb::Error> {
            let transaction = self.database.begin_read()?;
            let table = match transaction.open_table(META) {
                Ok(table) => table,
                Err(TableError::TableDoesNotExist(_)) => {
                    let empty = transaction.list_tables()?.next().is_none();
                    return Ok(empty.then_some(None));
                }
                Err(error) => return Err(error.into()),
            };
            let value = table.get(SCHEMA_KEY)?;
            Ok(value
                .and_then(|value| value.value().try_into().ok())
                .map(|bytes| Some(u32::from_be_bytes(bytes))))
        };
        read().map_err(|error| self.failed(error))?.ok_or(StoreError::Foreign { path: self.path.clone() })
    }

    fn make(&mut self) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        transaction.open_table(META)?.insert(SCHEMA_KEY, SCHEMA.to_be_bytes().as_slice())?;
        transaction.open_table(NODES)?;
        transaction.open_table(KEYS)?;
        transaction.commit()?;
        Ok(())
    }

    fn read(&self) -> Result<State, StoreError> {
        let mut state = State::default();
        let read = || -> Result<_, redb::Error> {
            let transaction = self.database.begin_read()?;
            let settings =
                transaction.open_table(META)?.get(SETTINGS_KEY)?.map(|value| value.value().to_vec());
            let all =
                |table: TableDefinition<'_, u32, &'static [u8]>| -> Result<Vec<(u32, Vec<u8>)>, redb::Error> {
                    let table = transaction.open_table(table)?;
                    let entries = table.iter()?.map(|entry| {
                        let (id, value) = entry?;
                        Ok((id.value(), value.value().to_vec()))
                    });
                    entries.collect()
                };
            Ok((settings, all(NODES)?, all(KEYS)?))
        };
        let (settings, nodes, keys) = read().map_err(|error| self.failed(error))?;
        if let Some(settings) = settings {
            state.settings = self.record::<Settings>("the settings", &settings)?;
        }
        for (id, bytes) in nodes {
            state.nodes.insert(id, self.record(&format!("node {id}"), &bytes)?);
        }
        for (id, bytes) in keys {
            state.keys.insert(id, self.record(&format!("key {id}"), &bytes)?);
        }
        Ok(state)
    }

    fn record<T: DeserializeOwned>(&self, what: &str, bytes: &[u8]) -> Result<T, StoreError> {
        serde_json::from_slice(bytes).map_err(|error| StoreError::Damaged {
            path: self.path.clone(),
            what: what.to_owned(),
            why: error.to_string(),
        })
    }

    fn commit(&self, write: &Write) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut meta = transaction.open_table(META)?;
            let mut nodes = transaction.open_table(NODES)?;
            let mut keys = transaction.open_table(KEYS)?;
            for change in &write.changes {
                match change {
                    Change::Node(node) => {
                        nodes.insert(node.info.id, json(node).as_slice())?;
                    }
                    Change::NodeGone(id) => {
                        nodes.remove(id)?;
                    }
                    Change::Key(key) => {
                        keys.insert(key.id, json(key).as_slice())?;
                    }
                    Change::KeyGone(id) => {
                        keys.remove(id)?;
                    }
                    Change::Settings(settings) => {
                        meta.insert(SETTINGS_KEY, json(settings).as_slice())?;
                    }
                }
            }
        }
        // With redb's default durability, which waits for the disk.
        transaction.commit()?;
        Ok(())
    }
}

fn json(record: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(record).expect("plain data with text as keys serializes into memory")
}

#[cfg(test)]
mod power_cut;
