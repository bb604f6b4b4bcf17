//! A part on a board: the numbers of its driver, and what the files call it.

use std::collections::BTreeMap;

use minijinja::{Environment, Value};

use super::board::Board;
use super::property::{Property, fixed};
use crate::kinds::{Conversion, Part, SensorSpec};

/// Steps of a curve; its points are one more.
const CURVE_STEPS: u32 = 16;

/// The numbers of a part's driver.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Driver {
    Linear { samples: u32, factor: i64, offset: i32, period: u32 },
    Curve { samples: u32, points: Vec<i32>, period: u32 },
    Swing { samples: u32, per_octave: i32, at_one: i32, period: u32 },
    Level,
    Counts { period: u32, reads: Vec<Counts> },
    Switch,
    Dimmer { least: i32, span: i64 },
    Battery { samples: u32, factor: i64, offset: i32, period: u32 },
}

/// How the counts of one quantity become a property's value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Counts {
    /// The quantity, which is the driver's method.
    pub(super) quantity: String,
    /// In 1/65536 of the property's steps.
    pub(super) factor: i64,
    /// In steps.
    pub(super) offset: i32,
}

/// A part's name as C++ has it: `some-part` is `SomePart`.
pub(super) fn class(name: &str) -> String {
    let words = name.split('-').map(|word| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_uppercase() + rest
    });
    words.collect()
}

/// The name of a part's C++ file in a sketch.
pub(super) fn header(name: &str) -> String {
    format!("et_part_{}.h", name.replace('-', "_"))
}

/// The driver of a sensor.
///
/// * `properties`: the sensor's own, with the quantity of each.
pub(super) fn driver(
    part: &Part,
    board: &Board,
    sensor: &SensorSpec,
    period: u32,
    properties: &[(&str, &Property)],
) -> Option<Driver> {
    let (quantity, first) = *properties.first()?;
    let quantity = part.measures.iter().find(|known| known.quantity == quantity)?;
    let step = 10_f64.powi(first.places.into());
    let (scale, offset) =
        sensor.calibration.as_ref().map_or((1.0, 0.0), |own| (own.scale, own.offset));
    let millivolts_of_count =
        f64::from(board.adc.millivolts) / f64::from((1_u32 << board.adc.bits) - 1);
    let samples = part.samples;
    Some(match part.conversion.as_ref()? {
        Conversion::Linear { per_millivolt } => Driver::Linear {
            samples,
            factor: (per_millivolt * millivolts_of_count * scale * step * 65_536.0).round() as i64,
            offset: fixed(offset, first.places),
            period,
        },
        Conversion::Divider { resistor, formula, constants } => {
            let mut constants = constants.clone();
            if let Some(beta) = sensor.calibration.as_ref().and_then(|own| own.beta) {
                constants.insert("beta".to_owned(), beta);
            }
            let points = (0..=CURVE_STEPS).map(|at| {
                let share = (f64::from(at) / f64::from(CURVE_STEPS)).clamp(0.001, 0.999);
                constants.insert("ohms".to_owned(), resistor * (1.0 - share) / share);
                let value = evaluate(formula, &constants) * scale + offset;
                let (least, most) = (quantity.minimum, quantity.maximum);
                fixed(
                    value.clamp(least.unwrap_or(f64::MIN), most.unwrap_or(f64::MAX)),
                    first.places,
                )
            });
            Driver::Curve { samples, points: points.collect(), period }
        }
        Conversion::Decibels { at_one_millivolt } => Driver::Swing {
            samples,
            per_octave: fixed(20.0 * 2_f64.log10() * scale, first.places),
            at_one: fixed(
                (at_one_millivolt + 20.0 * millivolts_of_count.log10()) * scale + offset,
                first.places,
            ),
            period,
        },
        Conversion::Level => Driver::Level,
        Conversion::Counts => Driver::Counts {
            period,
            reads: properties
                .iter()
                .map(|(name, property)| {
                    let known = part.measures.iter().find(|known| known.quantity == *name);
                    let count = known.and_then(|known| known.step).unwrap_or(1.0);
                    let step = 10_f64.powi(property.places.into());
                    Counts {
                        quantity: (*name).to_owned(),
                        factor: (scale * count * step * 65_536.0).round() as i64,
                        offset: fixed(offset, property.places),
                    }
                })
                .collect(),
        },
    })
}

/// A formula of a part's description. That each can be evaluated is a test.
fn evaluate(formula: &str, variables: &BTreeMap<String, f64>) -> f64 {
    let mut environment = Environment::new();
    environment.add_function("ln", f64::ln);
    let variables = variables.iter().map(|(name, value)| (name.as_str(), *value));
    environment
        .compile_expression(formula)
        .and_then(|expression| expression.eval(Value::from_pairs(variables)))
        .and_then(f64::try_from)
        .unwrap_or_else(|error| unreachable!("the formula {formula}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_formula_has_a_value_wherever_it_is_asked() {
        for part in Part::all() {
            let Some(Conversion::Divider { formula, constants, .. }) = &part.conversion else {
                continue;
            };
            for ohms in [1.0, 10_000.0, 1e7] {
                let mut variables = constants.clone();
                variables.insert("ohms".to_owned(), ohms);
                assert!(evaluate(formula, &variables).is_finite(), "{} at {ohms} Ohm", part.name);
            }
        }
    }

    #[test]
    fn names_in_cpp() {
        assert_eq!((class("x1"), class("a-big-one")), ("X1".into(), "ABigOne".into()));
        assert_eq!(header("a-big-one"), "et_part_a_big_one.h");
    }
}
