//! What firmware knows of a sensor, and the numbers of its driver on a board.

use serde::Deserialize;

use super::board::{Board, PinKind};
use super::fit::{Property, fixed};
use crate::kinds::{SensorPart, SensorSpec};

const PARTS: &str = include_str!("../../firmware-templates/sensors/parts.yaml");

/// What firmware knows of a sensor.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Part {
    pub(super) part: SensorPart,
    pub(super) kind: PinKind,
    pub(super) period_min: u32,
    pub(super) period: u32,
    pub(super) curve: Curve,
    #[serde(default)]
    pub(super) per_millivolt: f64,
    #[serde(default)]
    pub(super) at_one_millivolt: f64,
    #[serde(default = "one")]
    pub(super) burst: u32,
    #[serde(default)]
    pub(super) quantities: Vec<String>,
    pub(super) places: u8,
    #[serde(default)]
    pub(super) minimum: Option<f64>,
    #[serde(default)]
    pub(super) maximum: Option<f64>,
}

const fn one() -> u32 {
    1
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Curve {
    Linear,
    Divider,
    Ntc,
    Swing,
    Dht,
    Level,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Driver {
    Linear { burst: u32, factor: i64, offset: i32, period: u32 },
    Curve { burst: u32, points: Vec<i32>, period: u32 },
    Swing { burst: u32, per_octave: i32, at_one: i32, period: u32 },
    Level,
    Dht { wide: bool, period: u32, calibration: Vec<(usize, i64, i32)> },
    Switch,
    Duty { property: usize },
    Battery { burst: u32, factor: i64, offset: i32, period: u32 },
}

pub(super) fn parts() -> Vec<Part> {
    serde_yaml::from_str(PARTS).unwrap_or_else(|error| unreachable!("parts.yaml: {error}"))
}

pub(super) fn part_name(part: SensorPart) -> String {
    serde_json::to_value(part)
        .ok()
        .and_then(|name| name.as_str().map(str::to_owned))
        .unwrap_or_default()
}

pub(super) fn part_names(known: &[Part]) -> String {
    known.iter().map(|part| part_name(part.part)).collect::<Vec<_>>().join(", ")
}

/// The numbers of a part's driver.
pub(super) fn driver(
    part: &Part,
    board: &Board,
    sensor: &SensorSpec,
    period: u32,
    sensors: &[Property],
    indices: &[usize],
    quantities: &[Option<String>],
) -> Option<Driver> {
    let first = sensors.get(*indices.first()?)?;
    let step = 10_f64.powi(first.places.into());
    let (scale, offset) =
        sensor.calibration.as_ref().map_or((1.0, 0.0), |own| (own.scale, own.offset));
    let counts = f64::from((1_u32 << board.adc.bits) - 1);
    let millivolts_of_count = f64::from(board.adc.millivolts) / counts;
    let beta = sensor.calibration.as_ref().and_then(|own| own.beta).unwrap_or(3950.0);
    let burst = part.burst;
    // Values at every sixteenth of the converter's range.
    let curve = |value: &dyn Fn(f64) -> f64| -> Vec<i32> {
        let points = (0..=16).map(|at| {
            let value = value(f64::from(at) / 16.0) * scale + offset;
            fixed(
                value.clamp(part.minimum.unwrap_or(f64::MIN), part.maximum.unwrap_or(f64::MAX)),
                first.places,
            )
        });
        points.collect()
    };
    Some(match part.curve {
        Curve::Linear => Driver::Linear {
            burst,
            factor: (part.per_millivolt * millivolts_of_count * scale * step * 65_536.0).round()
                as i64,
            offset: fixed(offset, first.places),
            period,
        },
        Curve::Divider => Driver::Curve {
            burst,
            // 10 lx at 15 kOhm, gamma 0.7; the divider's other half has 10 kOhm.
            points: curve(&|share| {
                if share <= 0.0 {
                    return 0.0;
                }
                let ohms = 10_000.0 * (1.0 - share) / share;
                10.0 * (ohms.max(1.0) / 15_000.0).powf(-1.0 / 0.7)
            }),
            period,
        },
        Curve::Ntc => Driver::Curve {
            burst,
            points: curve(&|share| {
                let share = share.clamp(0.001, 0.999);
                let ohms = 10_000.0 * (1.0 - share) / share;
                1.0 / (1.0 / 298.15 + (ohms / 10_000.0).ln() / beta) - 273.15
            }),
            period,
        },
        Curve::Swing => Driver::Swing {
            burst,
            per_octave: fixed(20.0 * 2_f64.log10() * scale, first.places),
            at_one: fixed(
                (part.at_one_millivolt + 20.0 * millivolts_of_count.log10()) * scale + offset,
                first.places,
            ),
            period,
        },
        Curve::Level => Driver::Level,
        Curve::Dht => Driver::Dht {
            wide: part.part == SensorPart::Dht22,
            period,
            calibration: indices
                .iter()
                .zip(quantities)
                .map(|(index, quantity)| {
                    let property = &sensors[*index];
                    let step = 10_f64.powi(property.places.into());
                    let which = usize::from(quantity.as_deref() == Some("humidity"));
                    let factor = (scale * step / 10.0 * 65_536.0).round() as i64;
                    (which, factor, fixed(offset, property.places))
                })
                .collect(),
        },
    })
}
