//! A property of a node in fixed point, and the whole numbers that firmware counts in.

use crate::base::units::PropertyPath;

/// A property of a node, in fixed point.
#[derive(Debug, Clone, PartialEq)]
pub struct Property {
    /// The feature and property of the twin.
    pub path: PropertyPath,
    /// The name alone would be ambiguous: on the wire its feature stands beside it.
    pub nested: bool,
    /// Decimal places.
    pub places: u8,
    /// Least and greatest value, in units of 10^-places.
    pub range: (i32, i32),
    /// True or false instead of a number.
    pub boolean: bool,
    /// An actuator's value when the edge is lost.
    pub safe: Option<i32>,
}

impl Property {
    /// As in commands.
    pub fn name(&self) -> String {
        if self.nested { self.path.to_string() } else { self.path.property.clone() }
    }

    pub(super) fn digits(&self) -> usize {
        if self.boolean {
            return 5;
        }
        let widest = [self.range.0, self.range.1]
            .map(|value| crate::wire::Decimal::from_scaled(value.into(), self.places))
            .map(|value| value.to_string().len());
        // All of the places, which the ends of the range may not show, and their point.
        widest[0].max(widest[1]) + usize::from(self.places) + 1
    }
}

pub(super) fn fixed(value: f64, places: u8) -> i32 {
    let scaled = (value * 10_f64.powi(places.into())).round();
    // i32::MIN is no value in firmware.
    scaled.clamp(f64::from(i32::MIN + 1), f64::from(i32::MAX)) as i32
}

pub(super) fn ms(ms: u64) -> u32 {
    u32::try_from(ms).unwrap_or(u32::MAX)
}
