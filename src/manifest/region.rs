//! Places in a file.

/// A place in a file. Line and column count characters from 1; 0 is "no place", for values that
/// came as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1, in characters.
    pub column: u32,
}

/// A place and how many characters from there on are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Region {
    /// Where it starts.
    pub at: Position,
    /// How many characters, on the first line.
    pub width: u32,
}
