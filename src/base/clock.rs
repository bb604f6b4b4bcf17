//! The wall clock. I/O boundary: pure code takes the time as an argument instead.

/// Microseconds since 1970-01-01 UTC.
pub fn now_us() -> i64 {
    match std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(_) => 0,
    }
}
