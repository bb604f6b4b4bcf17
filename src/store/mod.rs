//! The log: append records, make them durable once per batch, read them back after a crash.
//!
//! Segments of a fixed size are allocated in advance and filled from the front; what a batch adds
//! is written with one write and one sync. A snapshot holds the newest state of every key at a
//! segment boundary, so that a start reads one snapshot and the segments after it. Older segments
//! are history only, and are dropped whole.
//!
//! ```text
//! seg-00000007.log   header (64 bytes), records, zeros to the end
//! snap-00000007.log  header (64 bytes), one record a key: the state before segment 7, end record
//! ```
//!
//! Always true, and tested:
//! 1. a record that was committed is read back, or reported as damage; it is never skipped;
//! 2. what was torn by a crash is cut off, zeroed and counted, and only the last segment can be
//!    torn;
//! 3. no space shows in [`Log::reserve`], before anything changed;
//! 4. a failed write or sync is final: the log takes nothing more (the kernel may have dropped the
//!    pages that the next sync would claim to have written; Rebello et al., USENIX ATC 2020).
//!
//! Not here: what records mean. Kinds, keys and payloads are opaque.

#[expect(clippy::disallowed_methods, reason = "I/O boundary: the log's files")]
pub mod disk;
pub mod record;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use self::disk::{Disk, DiskFile};
use self::record::{BadRecord, Position, Record, align, decode};

/// Bytes of a segment. One allocation every 16 MiB is once in some 70,000 readings; a start reads
/// at most this much beyond the snapshot, plus what was appended while the snapshot was written.
pub const SEGMENT_LEN: u32 = 16 << 20;
/// Bytes in front of the first record of a file.
const FILE_HEADER_LEN: u32 = 64;
const MAGIC: &[u8; 8] = b"edgetwin";
const FILE_VERSION: u32 = 1;
/// Kind of the record that ends a snapshot; its revision is the number of records before it.
const SNAPSHOT_END: u8 = u8::MAX;
/// A snapshot is written in pieces of this size.
const SNAPSHOT_CHUNK: usize = 1 << 20;

/// Sizes that a user or a test may set.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Bytes of a segment, at least four times the largest record.
    pub segment_len: u32,
    /// History kept beyond the newest snapshot, bytes; whole segments are dropped above it.
    pub history_bytes_max: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { segment_len: SEGMENT_LEN, history_bytes_max: 1 << 30 }
    }
}

/// Why nothing was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppendError {
    /// No space for a new segment. Nothing changed; try again when there is space.
    Full,
    /// A write or sync failed, now or earlier; nothing is accepted until a restart.
    ReadOnly(String),
}

impl std::fmt::Display for AppendError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Full => f.write_str("no space left for the log"),
            Self::ReadOnly(cause) => write!(f, "the log is read-only until a restart: {cause}"),
        }
    }
}

impl std::error::Error for AppendError {}

/// A place where committed records can no longer be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Segment number.
    pub segment: u32,
    /// First bad byte.
    pub offset: u32,
    /// Bytes up to the next valid record, or to the segment's end.
    pub len: u32,
    /// Keys that the segment names: any of them may have lost a record here.
    pub keys: BTreeSet<String>,
}

/// What [`Log::open`] found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// Records read, snapshot included.
    pub records: u64,
    /// Bytes of a batch that a crash tore; they were never acknowledged.
    pub torn_bytes: u64,
    /// Places where acknowledged records are lost.
    pub damage: Vec<Damage>,
    /// Snapshots that did not read back and were passed over.
    pub bad_snapshots: Vec<String>,
}

/// A record handed to the visitor of [`Log::open`].
#[derive(Debug, Clone, Copy)]
pub enum Recovered<'a> {
    /// The newest state of a key, from a snapshot.
    State(Record<'a>),
    /// A record of a segment, in the order of appending.
    Appended(Record<'a>, Position),
}

/// The log of one state directory.
pub struct Log {
    disk: Arc<dyn Disk>,
    options: StoreOptions,
    segment: u32,
    file: Arc<dyn DiskFile>,
    /// Bytes of the segment that is being filled.
    capacity: u32,
    /// Where the next record goes, staged ones counted.
    end: u32,
    /// Where the batch that is being staged begins.
    batch_start: u32,
    staged: Vec<u8>,
    /// Chunks of segments that were filled by the batch being staged.
    full: Vec<Chunk>,
    rolled: bool,
    read_only: Option<String>,
}

struct Chunk {
    file: Arc<dyn DiskFile>,
    offset: u32,
    bytes: Vec<u8>,
}

/// A batch on its way to the disk. At most one exists at a time.
pub struct Batch {
    chunks: Vec<Chunk>,
    disk: Arc<dyn Disk>,
    sync_dir: bool,
}

impl Batch {
    /// Writes the batch and returns its buffer once all of it is durable.
    ///
    /// # Errors
    /// Any error of the disk. What is on the medium is then unknown: hand it to
    /// [`Log::poison`].
    pub fn commit(self) -> io::Result<Vec<u8>> {
        if self.sync_dir {
            self.disk.sync_dir()?;
        }
        let mut buffer = Vec::new();
        for chunk in self.chunks {
            chunk.file.write_at(u64::from(chunk.offset), &chunk.bytes)?;
            chunk.file.sync()?;
            buffer = chunk.bytes;
        }
        buffer.clear();
        Ok(buffer)
    }

    /// Bytes that go to the disk.
    pub fn len(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.bytes.len()).sum()
    }
}

impl Log {
    /// Opens the log of `disk`, handing every surviving record to `visit` in order.
    ///
    /// # Errors
    /// Errors of the disk, and `InvalidData` for files of a version that this release does not
    /// read. Damaged content is no error: it is in the [`Recovery`].
    pub fn open(
        disk: Arc<dyn Disk>,
        options: StoreOptions,
        mut visit: impl FnMut(Recovered<'_>),
    ) -> io::Result<(Self, Recovery)> {
        let mut recovery = Recovery::default();
        let names = disk.list()?;
        let mut segments = numbers(&names, "seg-");
        let mut snapshots = numbers(&names, "snap-");
        for name in names.iter().filter(|name| name.ends_with(".tmp")) {
            disk.remove(name)?;
        }

        let mut boundary = 0;
        while let Some(number) = snapshots.pop() {
            let bytes = read_all(&*disk.open(&snapshot_name(number))?)?;
            if snapshot_is_whole(&bytes)? {
                boundary = number;
                let body = FILE_HEADER_LEN as usize;
                each_record(&bytes, body, |record| {
                    if record.kind != SNAPSHOT_END {
                        recovery.records += 1;
                        visit(Recovered::State(record));
                    }
                });
                break;
            }
            recovery.bad_snapshots.push(snapshot_name(number));
        }

        // The newest segment may have been created and never written.
        if let Some(&last) = segments.last() {
            let file = disk.open(&segment_name(last))?;
            let mut head = [0; FILE_HEADER_LEN as usize];
            let blank = match file.read_at(0, &mut head) {
                Ok(()) => head.iter().all(|&b| b == 0),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => true,
                Err(error) => return Err(error),
            };
            if blank {
                disk.remove(&segment_name(last))?;
                segments.pop();
            }
        }

        let mut expected = None;
        let mut tail = None;
        let live: Vec<u32> = segments.iter().copied().filter(|&n| n >= boundary).collect();
        for (index, &number) in live.iter().enumerate() {
            if let Some(next) = expected
                && next != number
            {
                recovery.damage.push(missing(next));
            } else if index == 0 && boundary > 0 && number != boundary {
                recovery.damage.push(missing(boundary));
            } else if index == 0 && boundary == 0 && number != 1 {
                recovery.damage.push(missing(1));
            }
            expected = Some(number + 1);
            let file = disk.open(&segment_name(number))?;
            let bytes = read_all(&*file)?;
            let last = index + 1 == live.len();
            // A sealed segment's length stands in the header of the one after it.
            let sealed_len = match live.get(index + 1) {
                Some(&next) => sealed_len(&*disk.open(&segment_name(next))?)?,
                None => None,
            };
            let mut offsets = Vec::new();
            let found = scan(&bytes, sealed_len, last, |record, offset| {
                recovery.records += 1;
                offsets.push(record.key.to_owned());
                visit(Recovered::Appended(record, Position::new(number, offset)));
            })?;
            if !found.bad.is_empty() {
                let keys: BTreeSet<String> = offsets.into_iter().collect();
                recovery.damage.extend(found.bad.iter().map(|&(offset, len)| Damage {
                    segment: number,
                    offset,
                    len,
                    keys: keys.clone(),
                }));
            }
            if last {
                recovery.torn_bytes += u64::from(found.torn);
                if found.torn > 0 {
                    // What is left of the torn batch must not be taken for records later on.
                    file.write_at(u64::from(found.end), &vec![0; found.torn as usize])?;
                    file.sync()?;
                }
                tail = Some((number, file, found.end, bytes.len() as u32));
            }
        }

        let mut staged = Vec::new();
        let mut batch_start = None;
        let (segment, file, end, capacity) = match tail {
            Some(tail) => tail,
            None => {
                let number = boundary.max(1);
                let file = disk.create(&segment_name(number), u64::from(options.segment_len))?;
                staged.extend_from_slice(&file_header(number, 0));
                batch_start = Some(0);
                (number, file, FILE_HEADER_LEN, options.segment_len)
            }
        };
        let rolled = batch_start.is_some();
        let log = Self {
            disk,
            options,
            segment,
            file,
            capacity: capacity.max(FILE_HEADER_LEN),
            end,
            batch_start: batch_start.unwrap_or(end),
            staged,
            full: Vec::new(),
            rolled,
            read_only: None,
        };
        Ok((log, recovery))
    }

    /// Makes sure that `len` bytes of records can be staged, allocating a segment where needed.
    ///
    /// # Errors
    /// [`AppendError::Full`] with nothing changed, or [`AppendError::ReadOnly`].
    pub fn reserve(&mut self, len: usize) -> Result<(), AppendError> {
        if let Some(cause) = &self.read_only {
            return Err(AppendError::ReadOnly(cause.clone()));
        }
        if len <= (self.capacity - self.end) as usize {
            return Ok(());
        }
        self.roll(len)
    }

    /// Goes on in a new segment that has room for `len` bytes of records.
    ///
    /// # Errors
    /// See [`Log::reserve`].
    pub fn roll(&mut self, len: usize) -> Result<(), AppendError> {
        let wanted =
            (len as u64 + u64::from(FILE_HEADER_LEN)).max(u64::from(self.options.segment_len));
        let wanted = u32::try_from(wanted).map_err(|_| AppendError::Full)?;
        match self.disk.create(&segment_name(self.segment + 1), u64::from(wanted)) {
            Ok(file) => {
                self.flush_segment();
                self.segment += 1;
                self.file = file;
                // The header goes with the first batch, since it vouches for the segment before.
                self.staged.extend_from_slice(&file_header(self.segment, self.end));
                self.end = FILE_HEADER_LEN;
                self.batch_start = 0;
                self.capacity = wanted;
                self.rolled = true;
                Ok(())
            }
            Err(error)
                if error.kind() == io::ErrorKind::StorageFull
                    || error.kind() == io::ErrorKind::QuotaExceeded =>
            {
                Err(AppendError::Full)
            }
            Err(error) => {
                self.poison(&error);
                Err(AppendError::ReadOnly(error.to_string()))
            }
        }
    }

    /// Adds a record to the batch being staged. [`Log::reserve`] must have promised the room.
    pub fn stage(&mut self, record: &Record<'_>) -> Position {
        let len = record.encoded_len() as u32;
        assert!(len <= self.capacity - self.end, "staged without a reservation");
        let position = Position::new(self.segment, self.end);
        record.encode(self.batch_start, &mut self.staged);
        self.end += len;
        position
    }

    /// Takes what is staged as one batch; `None` when nothing is.
    ///
    /// `buffer` is reused for staging: the one that the last [`Batch::commit`] returned.
    pub fn take(&mut self, buffer: Vec<u8>) -> Option<Batch> {
        let mut chunks = std::mem::take(&mut self.full);
        if !self.staged.is_empty() {
            chunks.push(Chunk {
                file: self.file.clone(),
                offset: self.batch_start,
                bytes: std::mem::replace(&mut self.staged, buffer),
            });
        }
        if chunks.is_empty() {
            return None;
        }
        self.batch_start = self.end;
        Some(Batch { chunks, disk: self.disk.clone(), sync_dir: std::mem::take(&mut self.rolled) })
    }

    /// Records that a commit failed: nothing is accepted from now on.
    pub fn poison(&mut self, error: &io::Error) {
        self.read_only.get_or_insert_with(|| error.to_string());
    }

    /// Why the log takes nothing any more, if so.
    pub fn read_only(&self) -> Option<&str> {
        self.read_only.as_deref()
    }

    /// Whether [`Log::take`] would give a batch.
    pub fn has_staged(&self) -> bool {
        !self.staged.is_empty() || !self.full.is_empty()
    }

    /// The segment that is being filled.
    pub fn segment(&self) -> u32 {
        self.segment
    }

    fn flush_segment(&mut self) {
        if !self.staged.is_empty() {
            self.full.push(Chunk {
                file: self.file.clone(),
                offset: self.batch_start,
                bytes: std::mem::take(&mut self.staged),
            });
        }
    }
}

/// Reads one record for `use_record`.
///
/// # Errors
/// Errors of the disk, `NotFound` when retention dropped the segment, `InvalidData` when the
/// record is damaged.
pub fn read<T>(
    disk: &dyn Disk,
    position: Position,
    use_record: impl FnOnce(Record<'_>) -> T,
) -> io::Result<T> {
    let file = disk.open(&segment_name(position.segment()))?;
    let room = file.size()?.saturating_sub(u64::from(position.offset()));
    let mut bytes = vec![0; room.min(4096) as usize];
    file.read_at(u64::from(position.offset()), &mut bytes)?;
    if let Err(BadRecord::Length) = decode(&bytes) {
        let most = (record::HEADER_LEN + record::KEY_LEN_MAX + record::PAYLOAD_LEN_MAX) as u64;
        bytes = vec![0; room.min(most) as usize];
        file.read_at(u64::from(position.offset()), &mut bytes)?;
    }
    match decode(&bytes) {
        Ok((record, ..)) => Ok(use_record(record)),
        Err(bad) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} at byte {}: {bad:?}", segment_name(position.segment()), position.offset()),
        )),
    }
}

/// Hands `visit` the records from `since_us` on, oldest first, until it returns `false`; whether
/// none of them is missing because it was dropped or lies further back than `bytes_max`.
///
/// Reads whole segments while others append: what is appended meanwhile may be among it or not.
///
/// # Errors
/// Errors of the disk, and those of [`Log::open`].
pub fn read_since(
    disk: &dyn Disk,
    since_us: i64,
    bytes_max: u64,
    mut visit: impl FnMut(Record<'_>) -> bool,
) -> io::Result<bool> {
    let segments = numbers(&disk.list()?, "seg-");
    let (mut from, mut bytes, mut whole) = (segments.len(), 0, false);
    while from > 0 && !whole {
        let number = segments[from - 1];
        bytes += match disk.open(&segment_name(number)) {
            Ok(file) => file.size()?,
            // Dropped since the list was made, and so are those before it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        };
        if bytes > bytes_max {
            break;
        }
        from -= 1;
        let first = read(disk, Position::new(number, FILE_HEADER_LEN), |record| record.time_us);
        whole = number == 1 || first.is_ok_and(|time_us| time_us < since_us);
    }
    let mut going = true;
    for number in &segments[from..] {
        let file = match disk.open(&segment_name(*number)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                whole = false;
                continue;
            }
            Err(error) => return Err(error),
        };
        let bytes = read_all(&*file)?;
        if bytes[..bytes.len().min(FILE_HEADER_LEN as usize)].iter().all(|&b| b == 0) {
            // Allocated, and not begun.
            break;
        }
        scan(&bytes, None, true, |record, _| {
            going = going && (record.time_us < since_us || visit(record));
        })?;
        if !going {
            return Ok(false);
        }
    }
    Ok(whole)
}

/// Writes the snapshot of everything before segment `boundary`, then drops what it makes
/// superfluous.
///
/// `states` must be the newest state of every key as of that boundary.
///
/// # Errors
/// Errors of the disk; the older snapshot then stays valid.
pub fn write_snapshot<'a>(
    disk: &dyn Disk,
    boundary: u32,
    history_bytes_max: u64,
    states: &mut dyn Iterator<Item = (Record<'a>, Vec<u8>)>,
) -> io::Result<()> {
    let temporary = format!("{}.tmp", snapshot_name(boundary));
    let file = disk.create(&temporary, 0)?;
    let mut written = 0_u64;
    let mut count = 0_u64;
    let mut chunk = file_header(boundary, 0).to_vec();
    for (record, payload) in states {
        Record { payload: &payload, ..record }.encode(0, &mut chunk);
        count += 1;
        if chunk.len() >= SNAPSHOT_CHUNK {
            file.write_at(written, &chunk)?;
            written += chunk.len() as u64;
            chunk.clear();
        }
    }
    Record {
        kind: SNAPSHOT_END,
        format: 0,
        key: "",
        revision: count,
        time_us: 0,
        previous: Position::NONE,
        payload: &[],
    }
    .encode(0, &mut chunk);
    file.write_at(written, &chunk)?;
    file.sync()?;
    disk.rename(&temporary, &snapshot_name(boundary))?;
    disk.sync_dir()?;

    // The one before stays until the next, should this one not read back.
    let names = disk.list()?;
    let older: Vec<u32> = numbers(&names, "snap-").into_iter().filter(|&n| n < boundary).collect();
    let keep_from = older.last().copied().unwrap_or(0);
    for number in older.iter().filter(|&&n| n < keep_from) {
        disk.remove(&snapshot_name(*number))?;
    }
    let mut kept = 0;
    for number in numbers(&names, "seg-").into_iter().rev() {
        kept += disk.open(&segment_name(number))?.size()?;
        if number < keep_from && kept > history_bytes_max {
            disk.remove(&segment_name(number))?;
        }
    }
    disk.sync_dir()
}

struct Scan {
    end: u32,
    torn: u32,
    bad: Vec<(u32, u32)>,
}

/// Visits the valid records of a segment and distinguishes a torn tail from damage.
///
/// `sealed_len` is the length that the next segment's header records; `last` allows a torn tail.
fn scan(
    bytes: &[u8],
    sealed_len: Option<u32>,
    last: bool,
    mut visit: impl FnMut(Record<'_>, u32),
) -> io::Result<Scan> {
    check_header(bytes)?;
    let mut offset = FILE_HEADER_LEN as usize;
    let mut bad = Vec::new();
    loop {
        match decode(&bytes[offset.min(bytes.len())..]) {
            Ok((record, _, len)) => {
                visit(record, offset as u32);
                offset += len;
                continue;
            }
            Err(_) if offset >= bytes.len() => break,
            Err(_) => {}
        }
        // Not a record. Is there one behind it that was written after this place was synced?
        let known_end = sealed_len.map_or(bytes.len(), |len| (len as usize).min(bytes.len()));
        let next = (offset + record::ALIGN..known_end).step_by(record::ALIGN).find(|&at| {
            match decode(&bytes[at..]) {
                Ok((_, batch_start, _)) => !last || batch_start as usize > offset,
                Err(_) => false,
            }
        });
        match next {
            Some(next) => {
                bad.push((offset as u32, (next - offset) as u32));
                offset = next;
            }
            None if !last => {
                if offset < known_end && sealed_len.is_some() {
                    bad.push((offset as u32, (known_end - offset) as u32));
                } else if sealed_len.is_none() && bytes[offset..].iter().any(|&b| b != 0) {
                    bad.push((offset as u32, (bytes.len() - offset) as u32));
                }
                break;
            }
            None => break,
        }
    }
    let torn = match bytes[offset.min(bytes.len())..].iter().rposition(|&b| b != 0) {
        Some(at) if last => align(at + 1) as u32,
        _ => 0,
    };
    Ok(Scan {
        end: offset as u32,
        torn: torn.min((bytes.len() - offset.min(bytes.len())) as u32),
        bad,
    })
}

fn each_record(bytes: &[u8], mut offset: usize, mut visit: impl FnMut(Record<'_>)) -> bool {
    while offset < bytes.len() {
        match decode(&bytes[offset..]) {
            Ok((record, _, len)) => {
                visit(record);
                if record.kind == SNAPSHOT_END {
                    return offset + len == bytes.len();
                }
                offset += len;
            }
            Err(_) => return false,
        }
    }
    false
}

fn snapshot_is_whole(bytes: &[u8]) -> io::Result<bool> {
    if check_header(bytes).is_err() {
        return Ok(false);
    }
    let mut count = 0;
    let mut expected = None;
    let ended = each_record(bytes, FILE_HEADER_LEN as usize, |record| {
        if record.kind == SNAPSHOT_END {
            expected = Some(record.revision);
        } else {
            count += 1;
        }
    });
    Ok(ended && expected == Some(count))
}

fn file_header(number: u32, previous_len: u32) -> [u8; FILE_HEADER_LEN as usize] {
    let mut head = [0; FILE_HEADER_LEN as usize];
    head[..8].copy_from_slice(MAGIC);
    head[8..12].copy_from_slice(&FILE_VERSION.to_le_bytes());
    head[12..16].copy_from_slice(&number.to_le_bytes());
    head[16..20].copy_from_slice(&previous_len.to_le_bytes());
    let crc = crc32fast::hash(&head[..20]);
    head[20..24].copy_from_slice(&crc.to_le_bytes());
    head
}

/// Accepts a header of this version; a damaged one is passed over (its records carry checksums of
/// their own), one of another version is refused.
fn check_header(bytes: &[u8]) -> io::Result<()> {
    let Some(head) = bytes.get(..FILE_HEADER_LEN as usize) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a file of the log has no header"));
    };
    let whole = crc32fast::hash(&head[..20]).to_le_bytes() == head[20..24];
    let version = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
    if whole && version != FILE_VERSION {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the log has format {version}; this release reads format {FILE_VERSION}"),
        ));
    }
    Ok(())
}

fn sealed_len(next: &dyn DiskFile) -> io::Result<Option<u32>> {
    let mut head = [0; FILE_HEADER_LEN as usize];
    next.read_at(0, &mut head)?;
    let whole = crc32fast::hash(&head[..20]).to_le_bytes() == head[20..24];
    let len = u32::from_le_bytes([head[16], head[17], head[18], head[19]]);
    Ok((whole && len > 0).then_some(len))
}

fn missing(segment: u32) -> Damage {
    Damage { segment, offset: 0, len: 0, keys: BTreeSet::new() }
}

fn read_all(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let len = usize::try_from(file.size()?).map_err(io::Error::other)?;
    let mut bytes = vec![0; len];
    file.read_at(0, &mut bytes)?;
    Ok(bytes)
}

fn segment_name(number: u32) -> String {
    format!("seg-{number:08}.log")
}

fn snapshot_name(number: u32) -> String {
    format!("snap-{number:08}.log")
}

fn numbers(names: &[String], prefix: &str) -> Vec<u32> {
    let mut found: Vec<u32> = names
        .iter()
        .filter_map(|name| name.strip_prefix(prefix)?.strip_suffix(".log")?.parse().ok())
        .collect();
    found.sort_unstable();
    found
}
