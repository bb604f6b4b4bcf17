//! Labelled rows to train and test on, in memory.
//!
//! From CSV with a header line (separated by commas, semicolons or tabs; plain or gzip), or row by
//! row. Labels are numbered in sorted order (by value if
//! all are whole numbers), so the order of rows decides nothing.
//!
//! Not here: files (the caller gives a reader), features over time (`generate`
//! and the twins' history give rows that have them).

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, BufReader, Cursor, Read};

use flate2::read::MultiGzDecoder;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::limits::{INPUTS_MAX, LABELS_MAX, NAME_BYTES_MAX};

/// Most values (rows × inputs) of a dataset. Why: 256 MiB of `f32`, what an edge server can spare
/// while it trains. Reading stops there with [`DataError::TooLarge`].
pub const VALUES_MAX: usize = 64 << 20;

/// Longest CSV once it is uncompressed, bytes; what follows is not read. Why: a few bytes of gzip can
/// stand for terabytes. [`VALUES_MAX`] values fit with 63 characters each.
const CSV_BYTES_MAX: u64 = (VALUES_MAX as u64) << 6;

/// Longest header line, bytes.
const HEADER_BYTES_MAX: u64 = 1 << 20;

/// Cells that mean that there is no value, beside an empty one: as R, pandas and spreadsheets write
/// them.
const MISSING: [&str; 7] = ["NA", "N/A", "NaN", "nan", "null", "NULL", "#N/A"];

/// Why rows are not a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataError {
    /// The CSV is malformed: the reader's message, with the line if it is known.
    Csv(String),
    /// No column of this name; the columns there are.
    NoColumn {
        /// The name asked for.
        name: String,
        /// The header's names.
        columns: Vec<String>,
    },
    /// A cell of an input is neither a number nor empty.
    NotANumber {
        /// Line of the file, from 1.
        line: u64,
        /// Name of the column.
        column: String,
        /// What the cell holds.
        value: String,
    },
    /// More than [`VALUES_MAX`] values.
    TooLarge,
    /// The names or counts of inputs or labels break a limit; which one.
    Limit(String),
    /// Fewer than two labels, or fewer than two rows of one.
    TooFew(String),
}

impl fmt::Display for DataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Csv(why) => write!(f, "the CSV cannot be read: {why}"),
            Self::NoColumn { name, columns } => {
                write!(f, "there is no column `{name}`; the columns are {}", columns.join(", "))
            }
            Self::NotANumber { line, column, value } => {
                write!(f, "line {line}, column `{column}`: `{value}` is not a number")
            }
            Self::TooLarge => write!(f, "the data has more than {VALUES_MAX} values"),
            Self::Limit(what) | Self::TooFew(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for DataError {}

/// Labelled rows, all complete: every value is finite.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    inputs: Vec<String>,
    labels: Vec<String>,
    /// Row after row, `inputs.len()` values each.
    values: Vec<f32>,
    /// Index in `labels` of each row.
    truth: Vec<u16>,
    skipped: usize,
}

impl Dataset {
    /// Reads CSV: a header line, then rows. Gzip is noticed; so is the separator, by the header: a
    /// comma, semicolon or tab. Beside a semicolon or tab, numbers may have a decimal comma.
    ///
    /// * `target`: the column that holds the label, as text.
    /// * `inputs`: the columns to learn from, in the order of the model's rows; empty means all
    ///   but the target.
    ///
    /// Rows without one of the inputs or the label (empty, `NA`, `nan` and the like) are left out and
    /// counted ([`Dataset::skipped`]).
    ///
    /// # Errors
    /// [`DataError`], the first one found.
    pub fn from_csv(reader: impl Read, target: &str, inputs: &[String]) -> Result<Self, DataError> {
        Self::from_csv_rows(reader, target, inputs, None)
    }

    /// The same for the first `rows_max` rows.
    ///
    /// # Errors
    /// As [`Dataset::from_csv`].
    pub fn from_csv_rows(
        reader: impl Read,
        target: &str,
        inputs: &[String],
        rows_max: Option<u32>,
    ) -> Result<Self, DataError> {
        let csv_error = |e: csv::Error| DataError::Csv(e.to_string());
        let (reader, separator) = opened(reader).map_err(|e| DataError::Csv(e.to_string()))?;
        let mut csv =
            csv::ReaderBuilder::new().trim(csv::Trim::All).delimiter(separator).from_reader(reader);
        let header = csv.headers().map_err(csv_error)?.clone();
        let find = |name: &str| {
            header.iter().position(|h| h == name).ok_or_else(|| DataError::NoColumn {
                name: name.to_owned(),
                columns: header.iter().map(str::to_owned).collect(),
            })
        };
        let target = find(target)?;
        let columns: Vec<usize> = if inputs.is_empty() {
            (0..header.len()).filter(|&c| c != target).collect()
        } else {
            inputs.iter().map(|i| find(i)).collect::<Result<_, _>>()?
        };
        let names = columns.iter().map(|&c| header[c].to_owned()).collect();
        let mut rows = Rows::new(names)?;
        let mut record = csv::StringRecord::new();
        let mut row = vec![0.0; columns.len()];
        let mut left = rows_max.unwrap_or(u32::MAX);
        while left > 0 && csv.read_record(&mut record).map_err(csv_error)? {
            left -= u32::from(rows_max.is_some());
            let cell = |c: usize| match record.get(c) {
                Some(text) if !MISSING.contains(&text) => text,
                _ => "",
            };
            let mut complete = !cell(target).is_empty();
            for (value, &c) in row.iter_mut().zip(&columns) {
                let text = cell(c);
                *value = if text.is_empty() {
                    f32::NAN
                } else {
                    let number = match text.split_once(',') {
                        Some((whole, decimals)) if separator != b',' => {
                            format!("{whole}.{decimals}").parse()
                        }
                        _ => text.parse(),
                    };
                    number.map_err(|_| DataError::NotANumber {
                        line: record.position().map_or(0, csv::Position::line),
                        column: header[c].to_owned(),
                        value: text.chars().take(40).collect(),
                    })?
                };
                complete &= value.is_finite();
            }
            if complete {
                rows.push(&row, cell(target))?;
            } else {
                rows.skipped += 1;
            }
        }
        rows.finish()
    }

    /// Takes rows that are in memory already.
    ///
    /// # Errors
    /// [`DataError::Limit`], [`DataError::TooFew`] or [`DataError::TooLarge`]; a row of the wrong
    /// length is `Limit`. Rows with a value that is not finite are left out and counted.
    pub fn from_rows<'a, I>(inputs: &[String], rows: I) -> Result<Self, DataError>
    where
        I: IntoIterator<Item = (&'a [f32], &'a str)>,
    {
        let mut all = Rows::new(inputs.to_vec())?;
        for (row, label) in rows {
            if row.len() != inputs.len() {
                return Err(DataError::Limit(format!(
                    "a row has {} values for {} inputs",
                    row.len(),
                    inputs.len()
                )));
            }
            if row.iter().all(|v| v.is_finite()) {
                all.push(row, label)?;
            } else {
                all.skipped += 1;
            }
        }
        all.finish()
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.truth.len()
    }

    /// Whether there are no rows (never, for a dataset that was read).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.truth.is_empty()
    }

    /// Rows left out because a value was missing.
    #[must_use]
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// Names of the inputs.
    #[must_use]
    pub fn inputs(&self) -> &[String] {
        &self.inputs
    }

    /// Names of the labels, sorted.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Values of row `i` (below [`Dataset::len`]).
    #[must_use]
    pub fn row(&self, i: usize) -> &[f32] {
        let k = self.inputs.len();
        &self.values[i * k..(i + 1) * k]
    }

    /// Index in [`Dataset::labels`] of row `i`'s label.
    #[must_use]
    pub fn label(&self, i: usize) -> usize {
        usize::from(self.truth[i])
    }

    /// Values of some rows, end to end.
    pub(super) fn gather(&self, rows: &[usize]) -> Vec<f32> {
        rows.iter().flat_map(|&i| self.row(i)).copied().collect()
    }

    /// Some rows as a dataset of their own, with the same inputs and labels.
    pub(super) fn select(&self, rows: &[usize]) -> Self {
        Self {
            inputs: self.inputs.clone(),
            labels: self.labels.clone(),
            values: self.gather(rows),
            truth: rows.iter().map(|&i| self.truth[i]).collect(),
            skipped: 0,
        }
    }
}

/// CSV as text, and what separates its cells.
fn opened<'a>(mut reader: impl Read + 'a) -> std::io::Result<(impl Read + 'a, u8)> {
    let mut magic = Vec::new();
    reader.by_ref().take(2).read_to_end(&mut magic)?;
    let packed = magic == [0x1f, 0x8b];
    let whole = Cursor::new(magic).chain(reader);
    let text: Box<dyn Read + 'a> =
        if packed { Box::new(MultiGzDecoder::new(whole)) } else { Box::new(whole) };
    let mut text = BufReader::new(text.take(CSV_BYTES_MAX));
    let mut header = Vec::new();
    text.by_ref().take(HEADER_BYTES_MAX).read_until(b'\n', &mut header)?;
    if header.starts_with(b"\xef\xbb\xbf") {
        header.drain(..3);
    }
    let mut quoted = false;
    let mut counts = [(b',', 0), (b';', 0), (b'\t', 0)];
    for byte in &header {
        quoted ^= *byte == b'"';
        for (separator, count) in &mut counts {
            *count += u32::from(!quoted && byte == separator);
        }
    }
    // The first of those that are as frequent: a comma, unless another is used more.
    let separator = counts.iter().rev().max_by_key(|(_, count)| *count).map_or(b',', |(s, _)| *s);
    Ok((Cursor::new(header).chain(text), separator))
}

/// A dataset being read: labels are numbered by first appearance until the end.
struct Rows {
    inputs: Vec<String>,
    values: Vec<f32>,
    truth: Vec<u16>,
    numbers: BTreeMap<String, u16>,
    skipped: usize,
}

impl Rows {
    fn new(inputs: Vec<String>) -> Result<Self, DataError> {
        let mut seen = std::collections::HashSet::new();
        if inputs.is_empty() || inputs.len() > INPUTS_MAX {
            return Err(DataError::Limit(format!(
                "{} inputs; a model has 1 to {INPUTS_MAX}",
                inputs.len()
            )));
        }
        for name in &inputs {
            check_name(name)?;
            if !seen.insert(name) {
                return Err(DataError::Limit(format!("input `{name}` is named twice")));
            }
        }
        Ok(Self {
            inputs,
            values: Vec::new(),
            truth: Vec::new(),
            numbers: BTreeMap::new(),
            skipped: 0,
        })
    }

    fn push(&mut self, row: &[f32], label: &str) -> Result<(), DataError> {
        if self.values.len() + row.len() > VALUES_MAX {
            return Err(DataError::TooLarge);
        }
        let number = match self.numbers.get(label) {
            Some(&number) => number,
            None => {
                check_name(label)?;
                if self.numbers.len() == LABELS_MAX {
                    return Err(DataError::Limit(format!(
                        "more than {LABELS_MAX} labels: is the target column a measurement?"
                    )));
                }
                let number = self.numbers.len() as u16;
                self.numbers.insert(label.to_owned(), number);
                number
            }
        };
        self.values.extend_from_slice(row);
        self.truth.push(number);
        Ok(())
    }

    fn finish(self) -> Result<Dataset, DataError> {
        if self.numbers.len() < 2 {
            return Err(DataError::TooFew(format!(
                "the target has {} label(s) in {} complete rows ({} were left out); at least 2 are \
                 needed",
                self.numbers.len(),
                self.truth.len(),
                self.skipped
            )));
        }
        let mut labels: Vec<(String, u16)> = self.numbers.into_iter().collect();
        let numeric = |l: &(String, u16)| l.0.parse::<i64>();
        if labels.iter().all(|l| numeric(l).is_ok()) {
            labels.sort_by_key(|l| numeric(l).unwrap_or_default());
        }
        let mut sorted = vec![0_u16; labels.len()];
        for (to, (_, from)) in labels.iter().enumerate() {
            sorted[usize::from(*from)] = to as u16;
        }
        let truth: Vec<u16> = self.truth.iter().map(|&t| sorted[usize::from(t)]).collect();
        let labels: Vec<String> = labels.into_iter().map(|(name, _)| name).collect();
        for (number, name) in labels.iter().enumerate() {
            if truth.iter().filter(|&&t| usize::from(t) == number).count() < 2 {
                return Err(DataError::TooFew(format!(
                    "label `{name}` has a single row; at least 2 are needed"
                )));
            }
        }
        Ok(Dataset {
            inputs: self.inputs,
            labels,
            values: self.values,
            truth,
            skipped: self.skipped,
        })
    }
}

fn check_name(name: &str) -> Result<(), DataError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(DataError::Limit(format!(
            "`{}` is no name: 1 to {NAME_BYTES_MAX} bytes",
            name.chars().take(40).collect::<String>()
        )));
    }
    Ok(())
}

/// Splits some rows in two so that each label keeps its share, at random but by the seed.
///
/// * `fraction`: of the rows, for the second part; 0 to 1. Below 1, the first part keeps at least
///   one row of each label that is there.
/// * Returns: row numbers of both parts, ascending.
pub(super) fn stratified_split(
    data: &Dataset,
    rows: &[usize],
    fraction: f64,
    random: &mut ChaCha8Rng,
) -> (Vec<usize>, Vec<usize>) {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for label in 0..data.labels().len() {
        let mut of_label: Vec<usize> =
            rows.iter().copied().filter(|&i| data.label(i) == label).collect();
        of_label.shuffle(random);
        let mut take = (of_label.len() as f64 * fraction).round() as usize;
        if fraction < 1.0 {
            take = take.min(of_label.len().saturating_sub(1));
        }
        second.extend_from_slice(&of_label[..take]);
        first.extend_from_slice(&of_label[take..]);
    }
    first.sort_unstable();
    second.sort_unstable();
    (first, second)
}
