//! Defaults that serde names by function.

pub(super) const fn yes() -> bool {
    true
}

pub(super) const fn is_false(value: &bool) -> bool {
    !*value
}

pub(super) const fn seed_default() -> u64 {
    1
}
