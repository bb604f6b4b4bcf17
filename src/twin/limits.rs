//! How large a thing and its name may be.

/// Largest thing as JSON, bytes: Ditto's `ditto.limits.things.max-size`. A change beyond it is
/// refused.
pub const THING_LEN_MAX: usize = 100 * 1024;
/// Longest thing ID, characters (Ditto).
pub const THING_ID_LEN_MAX: usize = 256;
