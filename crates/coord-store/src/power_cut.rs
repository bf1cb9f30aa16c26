//! Power that goes in the middle of a write, on a disk that had promised nothing yet.

use super::Store;
use coord::NodeInfo;
use coord::state::{Change, NodeRecord, Standing, State, Write};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;
use redb::{Database, StorageBackend};
use std::io::{Error, Result};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

/// What a disk writes whole or not at all: its sector.
const SECTOR: usize = 512;

/// A disk that has power for a number of operations. What was not synchronised by then may be there, in part or not at all, in
/// any order.
#[derive(Debug, Default)]
struct Disk {
    synced: Vec<u8>,
    seen: Vec<u8>,
    /// Writes since the last synchronisation: place and bytes.
    pending: Vec<(usize, Vec<u8>)>,
    left: usize,
    operations: usize,
}

impl Disk {
    /// What is on it when the power is back, with that share of what was not synchronised.
    fn after_the_cut(&self, share: f64, rng: &mut ChaCha12Rng) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        for (place, data) in &self.pending {
            for (i, sector) in data.chunks(SECTOR).enumerate() {
                if rng.random_bool(share) {
                    let at = place + i * SECTOR;
                    let end = at + sector.len();
                    bytes.resize(bytes.len().max(end), 0);
                    bytes[at..end].copy_from_slice(sector);
                }
            }
        }
        bytes
    }

    fn operate(&mut self) -> Result<()> {
        self.operations += 1;
        self.left = self.left.checked_sub(1).ok_or_else(|| Error::other("no power"))?;
        Ok(())
    }
}

#[derive(Debug, Clone, Default)]
struct Shared(Arc<Mutex<Disk>>);

impl Shared {
    fn with(bytes: Vec<u8>, left: usize) -> Shared {
        let disk = Disk { synced: bytes.clone(), seen: bytes, left, ..Disk::default() };
        Shared(Arc::new(Mutex::new(disk)))
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn open(&self) -> std::result::Result<(Store, State), String> {
        let database =
            Database::builder().create_with_backend(self.clone()).map_err(|error| error.to_string())?;
        Store::over(Path::new("disk"), database).map_err(|error| error.to_string())
    }
}

impl StorageBackend for Shared {
    fn len(&self) -> Result<u64> {
        Ok(self.disk().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let disk = self.disk();
        let from = usize::try_from(offset).map_err(Error::other)?;
        let bytes = disk.seen.get(from..from + out.len()).ok_or_else(|| Error::other("past the end"))?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let mut disk = self.disk();
        disk.operate()?;
        let len = usize::try_from(len).map_err(Error::other)?;
        disk.seen.resize(len, 0);
        // A length is of the file system's journal: there at once, or not at all.
        disk.synced.resize(len, 0);
        disk.pending.retain(|(place, data)| place + data.len() <= len);
        Ok(())
    }

    fn sync_data(&self) -> Result<()> {
        let mut disk = self.disk();
        disk.operate()?;
        let Disk { synced, seen, pending, .. } = &mut *disk;
        synced.clone_from(seen);
        pending.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let mut disk = self.disk();
        let result = disk.operate();
        let from = usize::try_from(offset).map_err(Error::other)?;
        if disk.seen.len() < from + data.len() {
            return Err(Error::other("past the end"));
        }
        // The one during which the power goes may have come through in part as well.
        disk.seen[from..from + data.len()].copy_from_slice(data);
        disk.pending.push((from, data.to_vec()));
        result
    }
}

/// The nth write: three nodes that are new, or have another name.
fn write(n: u32) -> Write {
    let record = |id: u32| NodeRecord {
        info: NodeInfo {
            id,
            name: format!("machine-{n}"),
            node_key: [1; 32],
            disco_key: [2; 32],
            tunnel_ip: Ipv4Addr::new(100, 64, 0, 1).into(),
            tunnel_ip6: None,
            tags: Vec::new(),
            key_expires: None,
            endpoints: Vec::new(),
            home_relay: None,
            nat: None,
            online: false,
        },
        machine: [3; 32],
        standing: Standing::Approved,
        ephemeral: false,
        auth_key: None,
        created: 0,
    };
    let changes = (0..3).map(|i| Change::Node(Box::new(record(n % 5 + i)))).collect();
    Write { id: u64::from(n), changes }
}

const WRITES: u32 = 8;

/// A disk with an empty store: a file gets its name once it is one.
fn fresh() -> Vec<u8> {
    let disk = Shared::with(Vec::new(), usize::MAX);
    drop(disk.open().expect("it has power"));
    disk.disk().seen.clone()
}

/// Writes until the power goes or all is written; how many writes were promised to be there, and the disk.
fn use_it(fresh: &[u8], left: usize) -> (u32, Shared) {
    let disk = Shared::with(fresh.to_vec(), left);
    let mut promised = 0;
    if let Ok((mut store, _)) = disk.open() {
        while promised < WRITES && store.write(&write(promised)).is_ok() {
            promised += 1;
        }
    }
    (promised, disk)
}

fn state(writes: u32) -> State {
    let mut state = State::default();
    (0..writes).for_each(|n| state.apply(&write(n)));
    state
}

#[test]
fn whenever_the_power_goes_each_write_is_there_whole_or_not_at_all() {
    let fresh = fresh();
    let (all, disk) = use_it(&fresh, usize::MAX);
    assert_eq!(all, WRITES);
    let operations = disk.disk().operations;
    let (mut lost, mut kept) = (0, 0);
    for left in 0..operations {
        let (promised, disk) = use_it(&fresh, left);
        for (seed, share) in (0..).zip([0.0, 0.5, 0.5, 0.9, 1.0]) {
            let bytes = disk.disk().after_the_cut(share, &mut ChaCha12Rng::seed_from_u64(seed));
            let (_, found) = Shared::with(bytes, usize::MAX)
                .open()
                .unwrap_or_else(|error| panic!("after {left} operations, seed {seed}: {error}"));
            if found == state(promised) {
                lost += 1;
            } else {
                assert_eq!(found, state(promised + 1), "after {left} operations, seed {seed}");
                kept += 1;
            }
        }
    }
    // The power does go in the middle of writes.
    assert!(lost > 0 && kept > 0 && operations > 3 * WRITES as usize, "{lost} {kept} {operations}");
}
