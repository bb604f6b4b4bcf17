//! How large a model may be.

/// Most inputs of a model. Why: a verdict is about a handful of a twin's properties; a thousand
/// covers a window over them. More is refused when training and when reading a file.
pub const INPUTS_MAX: usize = 1024;

/// Most labels of a model. Why: each costs a column in every leaf and answer. More is refused
/// when training and when reading a file (a numeric column taken for a label, as a rule).
pub const LABELS_MAX: usize = 256;

/// Longest name of an input or a label, in bytes; longer ones are refused likewise.
pub const NAME_BYTES_MAX: usize = 256;
