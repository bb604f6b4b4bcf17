//! One record of the log, as bytes: layout, checksum, alignment. A pure codec.
//!
//! ```text
//! offset  size  field
//!      0     4  length of everything after the checksum, before padding (u32, little endian)
//!      4     4  CRC-32 (IEEE) over the length and everything after the checksum
//!      8     1  kind, opaque to the store
//!      9     1  key length in bytes
//!     10     2  format version of the payload, opaque to the store
//!     12     4  offset in the segment at which the record's batch begins
//!     16     8  revision of the key
//!     24     8  time, microseconds since 1970-01-01 UTC (i64)
//!     32     8  position of the key's previous record, 0 for none
//!     40     k  key (UTF-8)
//!   40+k     …  payload
//! ```
//! Records start on multiples of [`ALIGN`]; the padding is zero. The batch offset tells a torn
//! tail from damage: a batch is written only after the one before it was synced, so a bad record
//! in front of a valid record of a *later* batch was once acknowledged (see `scan` in the module above).

/// Records start on multiples of this many bytes, so that a scan past damage is cheap.
pub const ALIGN: usize = 8;
/// Bytes in front of the key.
pub const HEADER_LEN: usize = 40;
/// Longest key, bytes. A thing ID has at most 256 characters of which all but the name are ASCII;
/// the length field is one byte.
pub const KEY_LEN_MAX: usize = 255;
/// Largest payload, bytes: twice the largest thing (100 KiB), with room for the envelope.
pub const PAYLOAD_LEN_MAX: usize = 1 << 20;

/// Where a record lies: segment number and byte offset in it. Zero is no position, since every
/// segment starts with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(u64);

impl Position {
    /// No record.
    pub const NONE: Self = Self(0);

    /// The position of `offset` in `segment`.
    pub fn new(segment: u32, offset: u32) -> Self {
        Self(u64::from(segment) << 32 | u64::from(offset))
    }

    /// Segment number.
    pub fn segment(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Byte offset in the segment.
    pub fn offset(self) -> u32 {
        self.0 as u32
    }

    /// Whether this names no record.
    pub fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// A record to append. `kind`, `format` and `payload` mean nothing to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// What the payload is.
    pub kind: u8,
    /// Version of the payload's format.
    pub format: u16,
    /// What the record is about; at most [`KEY_LEN_MAX`] bytes.
    pub key: &'a str,
    /// Revision of the key.
    pub revision: u64,
    /// Microseconds since 1970-01-01 UTC.
    pub time_us: i64,
    /// The key's record before this one.
    pub previous: Position,
    /// At most [`PAYLOAD_LEN_MAX`] bytes.
    pub payload: &'a [u8],
}

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadRecord {
    /// The length field is zero: never written.
    Zero,
    /// The length field is impossible, or reaches past the end.
    Length,
    /// The checksum does not match.
    Checksum,
    /// The checksum matches and the content is impossible; a programming error of a writer.
    Content,
}

impl Record<'_> {
    /// Bytes that this record takes in a segment, padding included.
    pub fn encoded_len(&self) -> usize {
        align(HEADER_LEN + self.key.len() + self.payload.len())
    }

    /// Appends the record to `out`. `batch_start` is the segment offset of the batch.
    pub fn encode(&self, batch_start: u32, out: &mut Vec<u8>) {
        debug_assert!(self.key.len() <= KEY_LEN_MAX && self.payload.len() <= PAYLOAD_LEN_MAX);
        let start = out.len();
        let body = HEADER_LEN - 8 + self.key.len() + self.payload.len();
        out.extend_from_slice(&(body as u32).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.push(self.kind);
        out.push(self.key.len() as u8);
        out.extend_from_slice(&self.format.to_le_bytes());
        out.extend_from_slice(&batch_start.to_le_bytes());
        out.extend_from_slice(&self.revision.to_le_bytes());
        out.extend_from_slice(&self.time_us.to_le_bytes());
        out.extend_from_slice(&self.previous.0.to_le_bytes());
        out.extend_from_slice(self.key.as_bytes());
        out.extend_from_slice(self.payload);
        let crc = checksum(&out[start..]);
        out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
        out.resize(start + align(8 + body), 0);
    }
}

/// Reads the record at the start of `bytes`.
///
/// Returns the record, the offset of its batch, and the bytes it takes with padding.
///
/// # Errors
/// See [`BadRecord`]. Never reads past `bytes`, never allocates.
pub fn decode(bytes: &[u8]) -> Result<(Record<'_>, u32, usize), BadRecord> {
    let Some(head) = bytes.get(..HEADER_LEN) else {
        let zero = bytes.iter().all(|&b| b == 0);
        return Err(if zero { BadRecord::Zero } else { BadRecord::Length });
    };
    let body = le_u32(head, 0) as usize;
    if body == 0 {
        return Err(BadRecord::Zero);
    }
    let most = HEADER_LEN - 8 + KEY_LEN_MAX + PAYLOAD_LEN_MAX;
    if body < HEADER_LEN - 8 || body > most || bytes.len() < 8 + body {
        return Err(BadRecord::Length);
    }
    let record = &bytes[..8 + body];
    if checksum(record) != le_u32(head, 4) {
        return Err(BadRecord::Checksum);
    }
    let key_end = HEADER_LEN + usize::from(head[9]);
    let key = record.get(HEADER_LEN..key_end).ok_or(BadRecord::Content)?;
    let record = Record {
        kind: head[8],
        format: u16::from_le_bytes([head[10], head[11]]),
        key: std::str::from_utf8(key).map_err(|_| BadRecord::Content)?,
        revision: le_u64(head, 16),
        time_us: le_u64(head, 24) as i64,
        previous: Position(le_u64(head, 32)),
        payload: &record[key_end..],
    };
    Ok((record, le_u32(head, 12), align(8 + body)))
}

/// Rounds up to [`ALIGN`].
pub fn align(len: usize) -> usize {
    len.next_multiple_of(ALIGN)
}

fn checksum(record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&record[..4]);
    hasher.update(&record[8..]);
    hasher.finalize()
}

fn le_u32(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn le_u64(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample<'a>(key: &'a str, payload: &'a [u8]) -> Record<'a> {
        Record {
            kind: 3,
            format: 1,
            key,
            revision: 42,
            time_us: -7,
            previous: Position::new(2, 4096),
            payload,
        }
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let mut bytes = Vec::new();
        sample("farm:node-1", br#"{"temperature":21.5}"#).encode(64, &mut bytes);
        let used = 8 + le_u32(&bytes, 0) as usize;
        for bit in 0..used * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad).is_err(), "bit {bit} went unnoticed");
        }
    }

    proptest! {
        #[test]
        fn a_record_reads_back_as_it_was_written(
            key in "[a-z:0-9]{0,40}",
            payload in proptest::collection::vec(any::<u8>(), 0..300),
            revision in any::<u64>(),
            batch in any::<u32>(),
        ) {
            let record = Record { revision, ..sample(&key, &payload) };
            let mut bytes = Vec::new();
            record.encode(batch, &mut bytes);
            prop_assert_eq!(bytes.len(), record.encoded_len());
            prop_assert_eq!(bytes.len() % ALIGN, 0);
            let (read, read_batch, len) = decode(&bytes).unwrap();
            prop_assert_eq!(read, record);
            prop_assert_eq!(read_batch, batch);
            prop_assert_eq!(len, bytes.len());
            // What was read encodes to the same bytes.
            let mut again = Vec::new();
            read.encode(read_batch, &mut again);
            prop_assert_eq!(again, bytes);
        }

        #[test]
        fn no_bytes_make_decode_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            assert!(decode(&bytes).map(|(_, _, len)| len).is_ok_and(|len| len > 0) || decode(&bytes).is_err());
        }
    }
}
