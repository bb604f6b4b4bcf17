//! What the tests of the wire share: the vectors of the firmware, and generated values.

use proptest::prelude::*;
use serde_json::Value;

use super::{Decimal, Program, decimal::DECIMAL_MAX};

pub(super) fn vectors(name: &str) -> Vec<Value> {
    let path = format!("{}/tests/firmware/vectors/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    serde_json::from_str(&text).unwrap()
}

pub(super) fn name() -> impl Strategy<Value = String> {
    "[a-z][a-zA-Z0-9_-]{0,7}(/[a-z]{1,4})?"
}

pub(super) fn decimal() -> impl Strategy<Value = Decimal> {
    (-DECIMAL_MAX * 1_000_000..=DECIMAL_MAX * 1_000_000)
        .prop_flat_map(|m| (Just(m), 0_u32..=6))
        .prop_map(|(m, cut)| Decimal::from_scaled(m / 10_i64.pow(cut) * 10_i64.pow(cut), 6))
}

pub(super) fn program() -> impl Strategy<Value = Program> {
    prop_oneof![
        Just(Program::Interval),
        Just(Program::OnChange),
        Just(Program::OnRequest),
        Just(Program::Features),
    ]
}
