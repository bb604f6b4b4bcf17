//! The model file: bytes in, bytes out, nothing else.
//!
//! One layout for every classifier, little-endian:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | magic `etmodel\n` |
//! | 8 | 4 | format version, [`VERSION`] |
//! | 12 | 4 | CRC-32 (IEEE 802.3) of every byte from 16 to the end |
//! | 16 | 4 + n | length and text of the description ([`super::Meta`] as JSON) |
//! | then | | the classifier's flat arrays, each a `u32` count and its elements |
//!
//! A file ends where its last array ends. The same model always encodes to the same bytes, and a
//! file that would not is refused when read ([`ModelError::NotCanonical`]): one model, one digest.
//!
//! [`Reader`] never allocates more than the bytes that are really there, whatever a count claims.
//!
//! Not here: what the arrays mean (`forest`, `svm`, `mlp`), files on disk (the command line).

use std::fmt;

/// Version written into new files; the only one read. A change of layout raises it.
pub(super) const VERSION: u32 = 1;

/// Largest model file, in bytes (64 MiB).
///
/// Why: ten times the largest forest that the default recipe can grow. Larger files are refused
/// before anything is allocated ([`ModelError::TooLarge`]).
pub const MODEL_BYTES_MAX: usize = 64 << 20;

const MAGIC: &[u8; 8] = b"etmodel\n";
const HEADER_LEN: usize = 16;

/// Why bytes are not a model. Reading the same bytes again gives the same answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelError {
    /// The first bytes are not those of a model file.
    NotAModel,
    /// Written by a newer (or unknown) release: its format version.
    Version(u32),
    /// More than [`MODEL_BYTES_MAX`] bytes.
    TooLarge,
    /// The checksum does not match: the file was cut short or changed.
    Checksum,
    /// The checksum matches, but the content breaks a rule of the format; which one.
    Invalid(&'static str),
    /// Readable, but not the bytes that this model encodes to.
    NotCanonical,
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAModel => write!(f, "this is not a model file (`edgetwin train` writes them)"),
            Self::Version(v) => {
                write!(f, "the model has format version {v}; this release reads version {VERSION}")
            }
            Self::TooLarge => write!(f, "the model is larger than {MODEL_BYTES_MAX} bytes"),
            Self::Checksum => {
                write!(f, "the model is damaged: its checksum does not match its content")
            }
            Self::Invalid(what) => write!(f, "the model breaks its format: {what}"),
            Self::NotCanonical => write!(f, "the model was not written by `edgetwin train`"),
        }
    }
}

impl std::error::Error for ModelError {}

/// Builds a model file.
pub(super) struct Writer(Vec<u8>);

impl Writer {
    /// Starts a file with its description.
    pub(super) fn new(meta: &[u8]) -> Self {
        let mut w = Self(Vec::with_capacity(1024 + meta.len()));
        w.0.extend_from_slice(MAGIC);
        w.0.extend_from_slice(&VERSION.to_le_bytes());
        w.0.extend_from_slice(&[0; 4]);
        w.count(meta.len());
        w.0.extend_from_slice(meta);
        w
    }

    /// Ends the file: fills in the checksum.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let crc = crc32fast::hash(&self.0[HEADER_LEN..]);
        self.0[12..16].copy_from_slice(&crc.to_le_bytes());
        self.0
    }

    fn count(&mut self, n: usize) {
        // Every array is far below 2^32 elements: MODEL_BYTES_MAX bounds a file that can be read.
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&n.to_le_bytes());
    }

    /// Appends an array of `f32`.
    pub(super) fn f32s(&mut self, values: &[f32]) {
        self.count(values.len());
        for v in values {
            self.0.extend_from_slice(&v.to_le_bytes());
        }
    }

    /// Appends an array of `u32`.
    pub(super) fn u32s(&mut self, values: &[u32]) {
        self.count(values.len());
        for v in values {
            self.0.extend_from_slice(&v.to_le_bytes());
        }
    }

    /// Appends an array of `u16`.
    pub(super) fn u16s(&mut self, values: &[u16]) {
        self.count(values.len());
        for v in values {
            self.0.extend_from_slice(&v.to_le_bytes());
        }
    }
}

/// Reads a model file whose checksum has been checked.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Checks size, magic, version and checksum, in this order; returns the description too.
    pub(super) fn new(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), ModelError> {
        if bytes.len() > MODEL_BYTES_MAX {
            return Err(ModelError::TooLarge);
        }
        let (header, body) = bytes.split_at_checked(HEADER_LEN).ok_or(ModelError::NotAModel)?;
        let word = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        if header[..8] != MAGIC[..] {
            return Err(ModelError::NotAModel);
        }
        if word(8) != VERSION {
            return Err(ModelError::Version(word(8)));
        }
        if word(12) != crc32fast::hash(body) {
            return Err(ModelError::Checksum);
        }
        let mut reader = Self(body);
        let meta = reader.take(1)?;
        Ok((reader, meta))
    }

    /// The next array as bytes, `size` bytes an element.
    fn take(&mut self, size: usize) -> Result<&'a [u8], ModelError> {
        const SHORT: ModelError = ModelError::Invalid("an array is longer than the file");
        let (count, rest) = self.0.split_first_chunk::<4>().ok_or(SHORT)?;
        let len = usize::try_from(u32::from_le_bytes(*count))
            .ok()
            .and_then(|n| n.checked_mul(size))
            .ok_or(SHORT)?;
        let (array, rest) = rest.split_at_checked(len).ok_or(SHORT)?;
        self.0 = rest;
        Ok(array)
    }

    /// The next array, every element a finite number.
    pub(super) fn f32s(&mut self) -> Result<Vec<f32>, ModelError> {
        let values: Vec<f32> = self
            .take(4)?
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        if values.iter().all(|v| v.is_finite()) {
            Ok(values)
        } else {
            Err(ModelError::Invalid("a number is not finite"))
        }
    }

    /// The next array of `u32`.
    pub(super) fn u32s(&mut self) -> Result<Vec<u32>, ModelError> {
        Ok(self
            .take(4)?
            .chunks_exact(4)
            .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect())
    }

    /// The next array of `u16`.
    pub(super) fn u16s(&mut self) -> Result<Vec<u16>, ModelError> {
        Ok(self.take(2)?.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect())
    }

    /// Checks that nothing is left.
    pub(super) fn finish(self) -> Result<(), ModelError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(ModelError::Invalid("bytes after the last array"))
        }
    }
}
