//! The texts that manifests are read from.

/// One text to parse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What the user calls it: a path as given, or `<stdin>`.
    pub name: String,
    /// The text.
    pub text: String,
}
