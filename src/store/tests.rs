//! What the log promises, tried on a disk that fails and crashes on purpose.

use super::disk::{Directory, Disk, DiskFile};
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// A disk in memory. Writes are pending until a sync; a crash keeps any sectors of them.
#[derive(Default)]
pub(crate) struct FakeDisk {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By inode.
    files: BTreeMap<u32, Content>,
    /// The directory as programs see it, and as the medium has it.
    names: BTreeMap<String, u32>,
    durable_names: BTreeMap<String, u32>,
    calls: u32,
    /// The n-th call fails, with this error; later ones too when it is `StorageFull`.
    fail: Option<(u32, io::ErrorKind)>,
    /// Taken before each call: what the medium may hold, for every possible crash.
    log: Vec<String>,
}

#[derive(Default, Clone)]
struct Content {
    durable: Vec<u8>,
    pending: Vec<(u64, Vec<u8>)>,
}

const SECTOR: usize = 512;

impl State {
    fn call(&mut self, what: &str, allocates: bool) -> io::Result<()> {
        self.calls += 1;
        self.log.push(what.to_owned());
        match self.fail {
            Some((at, io::ErrorKind::StorageFull)) if self.calls >= at && allocates => {
                Err(io::ErrorKind::StorageFull.into())
            }
            Some((at, kind)) if self.calls == at && kind != io::ErrorKind::StorageFull => {
                Err(kind.into())
            }
            _ => Ok(()),
        }
    }
}

impl Content {
    fn seen(&self) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for (offset, write) in &self.pending {
            overlay(&mut bytes, *offset as usize, write);
        }
        bytes
    }
}

fn overlay(bytes: &mut Vec<u8>, offset: usize, write: &[u8]) {
    bytes.resize(bytes.len().max(offset + write.len()), 0);
    bytes[offset..offset + write.len()].copy_from_slice(write);
}

impl FakeDisk {
    /// What a power cut leaves: of each unsynced write any sectors, of each unsynced name either.
    pub(crate) fn crash(&self, mut coin: impl FnMut() -> bool) -> Arc<Self> {
        let state = self.state.lock().unwrap();
        let mut names = state.durable_names.clone();
        for (name, inode) in &state.names {
            if names.get(name) != Some(inode) && coin() {
                names.insert(name.clone(), *inode);
            }
        }
        let mut files = BTreeMap::new();
        for (inode, content) in &state.files {
            let mut bytes = content.durable.clone();
            for (offset, write) in &content.pending {
                let mut from = 0;
                while from < write.len() {
                    let at = *offset as usize + from;
                    let len = (SECTOR - at % SECTOR).min(write.len() - from);
                    if coin() {
                        overlay(&mut bytes, at, &write[from..from + len]);
                    }
                    from += len;
                }
            }
            files.insert(*inode, Content { durable: bytes, pending: Vec::new() });
        }
        Arc::new(Self {
            state: Mutex::new(State {
                files,
                durable_names: names.clone(),
                names,
                ..State::default()
            }),
        })
    }

    pub(crate) fn fail(&self, nth: u32, kind: io::ErrorKind) {
        let mut state = self.state.lock().unwrap();
        state.fail = Some((state.calls + nth, kind));
    }

    /// Flips a bit of what is on the medium.
    pub(crate) fn flip(&self, name: &str, byte: usize) {
        let mut state = self.state.lock().unwrap();
        let inode = state.names[name];
        state.files.get_mut(&inode).unwrap().durable[byte] ^= 1;
    }

    pub(crate) fn heal(&self) {
        self.state.lock().unwrap().fail = None;
    }
}

struct FakeFile {
    disk: Arc<FakeDisk>,
    inode: u32,
    name: String,
}

impl Disk for Arc<FakeDisk> {
    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock().unwrap();
        state.call(&format!("create {name}"), true)?;
        let inode = state.files.len() as u32 + 1;
        state.files.insert(inode, Content { durable: vec![0; len as usize], pending: Vec::new() });
        state.names.insert(name.to_owned(), inode);
        Ok(Arc::new(FakeFile { disk: self.clone(), inode, name: name.to_owned() }))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.state.lock().unwrap();
        let inode = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(FakeFile { disk: self.clone(), inode, name: name.to_owned() }))
    }
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state.lock().unwrap().names.keys().cloned().collect())
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.call("rename", false)?;
        let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), inode);
        Ok(())
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(())
    }
    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.call("sync_dir", false)?;
        state.durable_names = state.names.clone();
        Ok(())
    }
}

impl DiskFile for FakeFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state.lock().unwrap();
        state.call(&format!("write {} {}", self.name, bytes.len()), false)?;
        let file = state.files.get_mut(&self.inode).unwrap();
        file.pending.push((offset, bytes.to_vec()));
        Ok(())
    }
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let state = self.disk.state.lock().unwrap();
        let seen = state.files[&self.inode].seen();
        let offset = offset as usize;
        let from = seen.get(offset..offset + bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(from);
        Ok(())
    }
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.state.lock().unwrap().files[&self.inode].seen().len() as u64)
    }
    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state.lock().unwrap();
        state.call(&format!("sync {}", self.name), false)?;
        let file = state.files.get_mut(&self.inode).unwrap();
        file.durable = file.seen();
        file.pending.clear();
        Ok(())
    }
}

fn small() -> StoreOptions {
    StoreOptions { segment_len: 4096, history_bytes_max: 0 }
}

/// Records as `(key, revision)`, in order.
fn reopen(disk: &Arc<FakeDisk>) -> (Log, Recovery, Vec<(String, u64)>) {
    let mut found = Vec::new();
    let (log, recovery) = Log::open(Arc::new(disk.clone()), small(), |recovered| {
        let (Recovered::State(record) | Recovered::Appended(record, _)) = recovered;
        found.push((record.key.to_owned(), record.revision));
    })
    .unwrap();
    (log, recovery, found)
}

fn append(log: &mut Log, number: u64, len: usize) -> Result<(), AppendError> {
    let payload = vec![number as u8 | 1; len];
    let key = format!("lab:node-{}", number % 7);
    let record = Record {
        kind: 1,
        format: 1,
        key: &key,
        revision: number,
        time_us: 0,
        previous: Position::NONE,
        payload: &payload,
    };
    log.reserve(record.encoded_len())?;
    log.stage(&record);
    Ok(())
}

fn commit(log: &mut Log) -> io::Result<()> {
    match log.take(Vec::new()) {
        Some(batch) => batch.commit().map(drop),
        None => Ok(()),
    }
}

/// A stream of coin tosses from a seed.
fn coins(mut seed: u64) -> impl FnMut() -> bool {
    move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 63 == 1
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Crash images at every call of the disk, several each: what was committed is there, nothing
    /// is there twice, and what is there is a prefix of what was staged.
    #[test]
    fn a_crash_at_any_call_keeps_what_was_committed(
        batches in proptest::collection::vec(proptest::collection::vec(0_usize..700, 1..6), 1..8),
        seed in any::<u64>(),
    ) {
        let disk = Arc::new(FakeDisk::default());
        let (mut log, ..) = reopen(&disk);
        let mut number = 0;
        let mut committed = 0;
        let check = |committed: u64, staged: u64, salt: u64| {
            for image in 0..4 {
                let crashed = disk.crash(coins(seed ^ salt << 8 ^ image));
                let (mut log, recovery, found) = reopen(&crashed);
                prop_assert!(recovery.damage.is_empty(), "damage without any: {recovery:?}");
                let revisions: Vec<u64> = found.iter().map(|(_, revision)| *revision).collect();
                let expected: Vec<u64> = (1..=revisions.len() as u64).collect();
                prop_assert_eq!(&revisions, &expected);
                prop_assert!(revisions.len() as u64 >= committed, "lost: {} of {committed}", revisions.len());
                prop_assert!(revisions.len() as u64 <= staged);
                // The log goes on, and a second start reads the same and more.
                append(&mut log, expected.len() as u64 + 1, 10).unwrap();
                commit(&mut log).unwrap();
                let (_, recovery, again) = reopen(&crashed);
                prop_assert_eq!(recovery.torn_bytes, 0);
                prop_assert_eq!(again.len(), revisions.len() + 1);
            }
            Ok(())
        };
        for batch in batches {
            for len in batch {
                number += 1;
                append(&mut log, number, len).unwrap();
            }
            let batch = log.take(Vec::new()).unwrap();
            // Between the writes and the sync of each chunk.
            if batch.sync_dir { batch.disk.sync_dir().unwrap(); }
            for chunk in batch.chunks {
                check(committed, number, number)?;
                chunk.file.write_at(u64::from(chunk.offset), &chunk.bytes).unwrap();
                check(committed, number, number + 1000)?;
                chunk.file.sync().unwrap();
            }
            committed = number;
            check(committed, number, number + 2000)?;
        }
    }

    /// Full disks and I/O errors at the n-th call: refused or read-only, and a restart finds at
    /// least what was committed.
    #[test]
    fn a_failing_call_refuses_and_damages_nothing(
        nth in 1_u32..40,
        full in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let disk = Arc::new(FakeDisk::default());
        let (mut log, ..) = reopen(&disk);
        let kind = if full { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
        disk.fail(nth, kind);
        let mut committed = 0;
        let mut number = 0;
        for _ in 0..30 {
            match append(&mut log, number + 1, 400) {
                Ok(()) => number += 1,
                Err(AppendError::Full) => {
                    prop_assert!(full);
                    // Reading goes on, and so does writing once there is space.
                    disk.heal();
                    append(&mut log, number + 1, 400).unwrap();
                    number += 1;
                }
                Err(AppendError::ReadOnly(_)) => break,
            }
            match commit(&mut log) {
                Ok(()) => committed = number,
                Err(error) => {
                    log.poison(&error);
                    prop_assert!(matches!(append(&mut log, 999, 1), Err(AppendError::ReadOnly(_))));
                    break;
                }
            }
        }
        if full {
            prop_assert_eq!(committed, 30);
        }
        disk.heal();
        let crashed = disk.crash(coins(seed));
        let (_, recovery, found) = reopen(&crashed);
        prop_assert!(recovery.damage.is_empty());
        prop_assert!(found.len() as u64 >= committed);
    }
}

/// Every bit of a small store, flipped one at a time.
#[test]
fn a_flipped_bit_is_reported_or_cut_off_and_never_skipped() {
    let disk = Arc::new(FakeDisk::default());
    let (mut log, ..) = reopen(&disk);
    let mut first_of_segment_two = 0;
    for number in 1..=14 {
        append(&mut log, number, 400).unwrap();
        commit(&mut log).unwrap();
        if log.segment() == 2 && first_of_segment_two == 0 {
            first_of_segment_two = number;
        }
    }
    assert_eq!(log.segment(), 2);
    let names = disk.state.lock().unwrap().names.clone();
    for (segment, last) in [("seg-00000001.log", false), ("seg-00000002.log", true)] {
        let clean = disk.state.lock().unwrap().files[&names[segment]].seen();
        let used = clean.iter().rposition(|&b| b != 0).unwrap();
        // Every bit of headers, every 61st of payloads.
        for bit in (64 * 8..used * 8).filter(|bit| bit % 61 == 0 || (bit / 8) % 448 < 64) {
            let crashed = disk.crash(|| true);
            {
                let mut state = crashed.state.lock().unwrap();
                state.files.get_mut(&names[segment]).unwrap().durable[bit / 8] ^= 1 << (bit % 8);
            }
            let (_, recovery, found) = reopen(&crashed);
            if found.len() == 14 {
                // Only padding is outside the checksum, and it is zero by construction.
                assert!(
                    decode_all_covers_padding(&clean, bit / 8),
                    "{segment} bit {bit} unnoticed"
                );
                continue;
            }
            assert_eq!(found.len(), 13, "{segment} bit {bit}");
            if recovery.damage.is_empty() {
                assert!(last && recovery.torn_bytes > 0, "{segment} bit {bit}: {recovery:?}");
                assert!(bit / 8 >= used - 448, "only the very last batch can look torn");
            } else {
                assert_eq!(recovery.damage.len(), 1);
                assert!(!recovery.damage[0].keys.is_empty());
            }
        }
    }
}

/// Whether byte `at` is padding between records.
fn decode_all_covers_padding(segment: &[u8], at: usize) -> bool {
    let mut offset = FILE_HEADER_LEN as usize;
    while let Ok((record, _, len)) = decode(&segment[offset..]) {
        if at < offset + len {
            return at >= offset + record::HEADER_LEN + record.key.len() + record.payload.len();
        }
        offset += len;
    }
    false
}

#[test]
fn a_lost_segment_is_reported() {
    let disk = Arc::new(FakeDisk::default());
    let (mut log, ..) = reopen(&disk);
    for number in 1..=30 {
        append(&mut log, number, 400).unwrap();
        commit(&mut log).unwrap();
    }
    assert!(log.segment() >= 3);
    let crashed = disk.crash(|| true);
    crashed.state.lock().unwrap().names.remove("seg-00000002.log");
    let (_, recovery, _) = reopen(&crashed);
    assert_eq!(recovery.damage, [missing(2)]);
}

fn snapshot_of(disk: &Arc<FakeDisk>, boundary: u32, states: u64) -> io::Result<()> {
    let mut states = (0..states).map(|n| {
        let record = Record {
            kind: 2,
            format: 1,
            key: "lab:node-0",
            revision: n,
            time_us: 0,
            previous: Position::NONE,
            payload: &[],
        };
        (record, vec![7; 20])
    });
    write_snapshot(disk, boundary, 0, &mut states)
}

#[test]
fn a_snapshot_replaces_the_segments_before_it_and_a_bad_one_does_not() {
    let disk = Arc::new(FakeDisk::default());
    let (mut log, ..) = reopen(&disk);
    while log.segment() < 3 {
        append(&mut log, 1, 400).unwrap();
        commit(&mut log).unwrap();
    }
    snapshot_of(&disk, 2, 5).unwrap();
    snapshot_of(&disk, 3, 6).unwrap();
    // Segment 1 was before the older of two snapshots, segment 2 is what the older one needs.
    let names = disk.list().unwrap();
    assert_eq!(numbers(&names, "seg-"), [2, 3]);
    assert_eq!(numbers(&names, "snap-"), [2, 3]);
    let (_, recovery, found) = reopen(&disk);
    assert!(recovery.damage.is_empty() && recovery.bad_snapshots.is_empty());
    assert_eq!(found.len(), 6 + 1, "six states and the one record of segment 3");

    // The newest snapshot is damaged: the one before and its segments give the same state.
    let inode = disk.state.lock().unwrap().names["snap-00000003.log"];
    disk.state.lock().unwrap().files.get_mut(&inode).unwrap().durable[100] ^= 1;
    let (_, recovery, found) = reopen(&disk);
    assert_eq!(recovery.bad_snapshots, ["snap-00000003.log"]);
    assert!(recovery.damage.is_empty());
    assert!(found.len() > 5 + 1);
}

#[test]
fn a_snapshot_that_fails_leaves_the_older_one_in_force() {
    for nth in 1..6 {
        let disk = Arc::new(FakeDisk::default());
        let (mut log, ..) = reopen(&disk);
        while log.segment() < 3 {
            append(&mut log, 1, 400).unwrap();
            commit(&mut log).unwrap();
        }
        snapshot_of(&disk, 2, 5).unwrap();
        disk.fail(nth, io::ErrorKind::Other);
        let failed = snapshot_of(&disk, 3, 6);
        disk.heal();
        for seed in 0..8 {
            let (_, recovery, found) = reopen(&disk.crash(coins(seed)));
            assert!(recovery.damage.is_empty(), "{nth}: {recovery:?}");
            assert!(found.len() == 7 || found.len() > 7 && failed.is_err(), "{nth} {seed}");
        }
    }
}

#[test]
fn the_batch_is_written_before_it_is_synced_and_new_files_are_linked_first() {
    let disk = Arc::new(FakeDisk::default());
    let (mut log, ..) = reopen(&disk);
    append(&mut log, 1, 900).unwrap();
    commit(&mut log).unwrap();
    disk.state.lock().unwrap().log.clear();
    while log.segment() == 1 {
        append(&mut log, 1, 900).unwrap();
    }
    commit(&mut log).unwrap();
    let calls = disk.state.lock().unwrap().log.clone();
    let kinds: Vec<&str> = calls.iter().map(|call| call.split(' ').next().unwrap()).collect();
    assert_eq!(kinds, ["create", "sync_dir", "write", "sync", "write", "sync"], "{calls:?}");
}

#[test]
fn records_read_back_from_a_real_directory() {
    let folder = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(Directory::open(folder.path()).unwrap());
    let (mut log, _) = Log::open(disk.clone(), small(), |_| {}).unwrap();
    let mut positions = Vec::new();
    for number in 1..=20 {
        let payload = vec![3; number as usize * 10];
        let record = Record {
            kind: 1,
            format: 1,
            key: "lab:a",
            revision: number,
            time_us: 5,
            previous: positions.last().copied().unwrap_or(Position::NONE),
            payload: &payload,
        };
        log.reserve(record.encoded_len()).unwrap();
        positions.push(log.stage(&record));
        commit(&mut log).unwrap();
    }
    // The chain of previous positions is the history.
    let mut at = positions[19];
    for revision in (1..=20).rev() {
        at = read(&*disk, at, |record| {
            assert_eq!(record.revision, revision);
            assert_eq!(record.payload.len(), revision as usize * 10);
            record.previous
        })
        .unwrap();
    }
    assert!(at.is_none());
}

#[test]
fn a_directory_is_read_again_and_a_segment_that_was_never_written_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(Directory::open(folder.path()).unwrap());
    let (mut log, _) = Log::open(disk.clone(), small(), |_| {}).unwrap();
    for number in 1..=3 {
        append(&mut log, number, 40).unwrap();
        commit(&mut log).unwrap();
    }
    drop(log);
    disk.create(&segment_name(2), u64::from(small().segment_len)).unwrap();
    let mut found = 0;
    let (log, recovery) = Log::open(disk.clone(), small(), |_| found += 1).unwrap();
    assert_eq!((found, log.segment()), (3, 1));
    assert!(recovery.damage.is_empty(), "{recovery:?}");
    assert_eq!(numbers(&disk.list().unwrap(), "seg-"), [1]);
}
