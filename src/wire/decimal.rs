//! Decimal numbers: exact in a command's text and in a node's fixed point alike.
//!
//! Not here: which places a property has (`firmware`).

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A decimal number with at most six places, exact: thresholds and actuator values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Decimal {
    millionths: i64,
}

/// Greatest magnitude of a [`Decimal`]: what a node's 32-bit fixed point holds without places.
pub const DECIMAL_MAX: i64 = 2_147_483_647;

impl Decimal {
    /// The nearest decimal; `None` for what is no number or beyond [`DECIMAL_MAX`].
    pub fn from_f64(number: f64) -> Option<Self> {
        let scaled = (number * 1e6).round();
        // NaN fails the comparison too.
        (scaled.abs() <= DECIMAL_MAX as f64 * 1e6).then_some(Self { millionths: scaled as i64 })
    }

    /// The nearest floating-point number.
    pub fn as_f64(self) -> f64 {
        self.millionths as f64 / 1e6
    }

    /// The number times 10^`places` (0 to 6), rounded half away from zero: a node's fixed point.
    pub fn scaled(self, places: u8) -> i64 {
        let unit = 10_i64.pow(u32::from(6 - places.min(6)));
        let half = if self.millionths < 0 { -unit / 2 } else { unit / 2 };
        (self.millionths + half) / unit
    }

    /// `units` / 10^`places` (0 to 6).
    pub fn from_scaled(units: i64, places: u8) -> Self {
        Self { millionths: units * 10_i64.pow(u32::from(6 - places.min(6))) }
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.millionths < 0 { "-" } else { "" };
        let (whole, part) = (
            self.millionths.unsigned_abs() / 1_000_000,
            self.millionths.unsigned_abs() % 1_000_000,
        );
        if part == 0 {
            return write!(f, "{sign}{whole}");
        }
        let places = format!("{part:06}");
        write!(f, "{sign}{whole}.{}", places.trim_end_matches('0'))
    }
}

impl FromStr for Decimal {
    type Err = ();

    /// `-?DIGITS[.DIGITS]`, one to six places.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, part) = digits.split_once('.').unwrap_or((digits, "0"));
        let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !all_digits(whole) || !all_digits(part) || part.len() > 6 || whole.len() > 10 {
            return Err(());
        }
        let whole: i64 = whole.parse().map_err(drop)?;
        let part: i64 = format!("{part:0<6}").parse().map_err(drop)?;
        let millionths = whole * 1_000_000 + part;
        if millionths > DECIMAL_MAX * 1_000_000 {
            return Err(());
        }
        Ok(Self { millionths: if negative { -millionths } else { millionths } })
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.millionths % 1_000_000 == 0 {
            serializer.serialize_i64(self.millionths / 1_000_000)
        } else {
            serializer.serialize_f64(self.as_f64())
        }
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = f64::deserialize(deserializer)?;
        Self::from_f64(number).ok_or_else(|| D::Error::custom("the number is too large"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::decimal;

    proptest! {
        #[test]
        fn a_decimal_is_read_back(decimal in decimal()) {
            prop_assert_eq!(decimal.to_string().parse(), Ok(decimal));
        }
    }
}
