//! Sensors, actuators and battery on the pins of a board, and their properties in fixed point.

use std::collections::BTreeMap;

use serde_json::Value;

use super::board::{Board, PinKind, is_free, pin};
use super::part::{Curve, Driver, Part, driver, part_name, part_names, parts};
use super::plan::ms;
use super::problem::{Fault, Field, Problems};
use crate::base::units::PropertyPath;
use crate::kinds::{
    ActuatorPart, BatterySpec, NodeProfileSpec, PropertyModel, TwinModelSpec, ValueType,
};

/// Longest name of a feature or property in firmware, bytes.
pub const NAME_LEN_MAX: usize = 31;

/// How often a battery is measured at most, ms.
const BATTERY_PERIOD_MS: u32 = 1000;

/// Coarsest step of a battery's percentage.
const PERCENT_OF_COUNT_MAX: f64 = 5.0;

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

/// A sensor or actuator on its pin.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fitted {
    pub(super) label: String,
    pub(super) pin: (String, u8),
    pub(super) driver: Driver,
    /// Indices of its properties.
    pub(super) properties: Vec<usize>,
}

/// Sensors and actuators on the board's pins.
pub(super) fn fit(
    spec: &NodeProfileSpec,
    board: &Board,
    model: Option<&TwinModelSpec>,
    problems: &mut Problems,
) -> (Vec<Property>, Vec<Property>, Vec<Fitted>) {
    let known = parts();
    let mut taken: BTreeMap<u8, String> = BTreeMap::new();
    let mut fitted = Vec::new();
    let mut sensors: Vec<Property> = Vec::new();
    for (at, sensor) in spec.sensors.iter().enumerate() {
        let at = at.to_string();
        let field = |name: &'static str| Field::at(&["sensors", &at, name]);
        let Some(part) = known.iter().find(|part| part.part == sensor.part) else {
            problems.not_made(field("type"), "firmware has no driver for this part yet").help =
                vec![format!("the parts are {}", part_names(&known))];
            continue;
        };
        let label = part_name(part.part);
        let pin = pin(board, sensor.pin.as_ref(), part.kind, &label, field, problems);
        let pin = pin.filter(|pin| is_free(&mut taken, pin, &label, field("pin"), problems));
        let period = sensor.period.map_or(part.period, |period| ms(period.as_ms()));
        if period < part.period_min {
            let message =
                format!("a {label} cannot be read more often than every {} ms", part.period_min);
            problems.always(Fault::TooFast, field("period"), &message);
        }
        let period = period.min(u32::from(u16::MAX));
        let paths: Vec<(Option<&str>, &PropertyPath)> = sensor
            .property
            .iter()
            .map(|path| (None, path))
            .chain(sensor.properties.iter().map(|(quantity, path)| (Some(quantity.as_str()), path)))
            .collect();
        let mut indices = Vec::new();
        let mut quantities = Vec::new();
        for (quantity, path) in paths {
            let quantity = match (quantity, part.quantities.as_slice()) {
                (None, []) => None,
                (None, [..]) => part.quantities.first().cloned(),
                (Some(quantity), known) if known.iter().any(|known| known == quantity) => {
                    Some(quantity.to_owned())
                }
                (Some(quantity), known) => {
                    let message = format!("a {label} does not measure `{quantity}`");
                    let field = Field::at(&["sensors", &at, "properties", quantity]);
                    problems.always(Fault::UnknownQuantity, field, &message).help =
                        vec![format!("it measures {}", known.join(" and "))];
                    continue;
                }
            };
            if let Some(property) = property(path, part.places, part, model, &at, problems) {
                indices.push(sensors.len());
                quantities.push(quantity);
                sensors.push(property);
            }
        }
        let Some(pin) = pin else { continue };
        if let Some(driver) = driver(part, board, sensor, period, &sensors, &indices, &quantities) {
            fitted.push(Fitted { label, pin, driver, properties: indices });
        }
    }
    // Those of one feature stand together in a message, so they are neighbours.
    sort_by_feature(&mut sensors, &mut fitted);

    let mut actuators: Vec<Property> = Vec::new();
    for (at, actuator) in spec.actuators.iter().enumerate() {
        let at = at.to_string();
        let field = |name: &'static str| Field::at(&["actuators", &at, name]);
        let label = format!("{:?}", actuator.part).to_lowercase();
        if matches!(actuator.part, ActuatorPart::Servo | ActuatorPart::Buzzer) {
            problems.not_made(field("type"), "firmware has no driver for this part yet").help =
                vec!["the parts are relay, led and pwm".to_owned()];
            continue;
        }
        let path = &actuator.property;
        let declared = model.and_then(|model| model.property(&path.feature, &path.property));
        let boolean = match declared {
            Some(declared) => declared.value_type == ValueType::Boolean,
            None => actuator.part != ActuatorPart::Pwm,
        };
        if actuator.part == ActuatorPart::Relay && !boolean {
            problems.not_made(field("property"), "a relay is on or off, its property is a number");
        }
        let pin = pin(board, Some(&actuator.pin), PinKind::Digital, &label, field, problems);
        let pin = pin.filter(|pin| is_free(&mut taken, pin, &label, field("pin"), problems));
        if let Some((name, _)) = &pin {
            if board.pins.input_only.contains(name) {
                let message = format!("`{name}` of the {} is an input only", board.name);
                problems.always(Fault::BadPin, field("pin"), &message);
            } else if !boolean && !board.pins.pwm.contains(name) {
                let message = format!("`{name}` of the {} cannot be dimmed", board.name);
                let pins = board.pins.pwm.iter().cloned().collect::<Vec<_>>().join(", ");
                problems.always(Fault::BadPin, field("pin"), &message).help =
                    vec![format!("these can: {pins}")];
            }
        }
        let bounds = declared.map_or((None, None), |declared| (declared.minimum, declared.maximum));
        let range = if boolean {
            (0, 1)
        } else {
            (fixed(bounds.0.unwrap_or(0.0), 0), fixed(bounds.1.unwrap_or(100.0), 0))
        };
        let safe = match &actuator.safe {
            None => None,
            Some(Value::Bool(on)) if boolean => Some(i32::from(*on)),
            Some(value) if !boolean && value.is_number() => {
                Some(fixed(value.as_f64().unwrap_or_default(), 0))
            }
            Some(_) => {
                problems.not_made(field("safe"), "the safe value is of another type");
                None
            }
        };
        let nested = is_nested(path, model);
        let index = actuators.len();
        let path = path.clone();
        names_fit(&path, field("property"), problems);
        actuators.push(Property { path, nested, places: 0, range, boolean, safe });
        let Some(pin) = pin else { continue };
        let driver = if boolean { Driver::Switch } else { Driver::Duty { property: index } };
        fitted.push(Fitted { label, pin, driver, properties: vec![index] });
    }
    if let Some(battery) = &spec.battery {
        fitted.extend(fit_battery(battery, board, &mut taken, problems));
    }
    (sensors, actuators, fitted)
}

/// The battery on its pin. Its percentage is a straight line, as the linear sensors are.
fn fit_battery(
    battery: &BatterySpec,
    board: &Board,
    taken: &mut BTreeMap<u8, String>,
    problems: &mut Problems,
) -> Option<Fitted> {
    let label = "battery".to_owned();
    let field = |name: &'static str| Field::at(&["battery", name]);
    let pin = pin(board, Some(&battery.pin), PinKind::Analog, &label, field, problems);
    let pin = pin.filter(|pin| is_free(taken, pin, &label, field("pin"), problems));
    let volts_most = f64::from(board.adc.millivolts) / 1000.0;
    let at_pin = battery.full_volts / battery.divider;
    if at_pin > volts_most {
        let message = format!(
            "a full battery puts {at_pin:.2} V on the pin; the {} measures up to {volts_most} V",
            board.name
        );
        let least = (battery.full_volts / volts_most * 10.0).ceil() / 10.0;
        problems.always(Fault::OutOfRange, field("fullVolts"), &message).help =
            vec![format!("put a divider between them, with `divider: {least}` or more")];
    }
    let span = battery.full_volts - battery.empty_volts;
    if span <= 0.0 {
        return None; // reported by the check of manifests
    }
    let percent_of_count =
        100.0 * battery.divider * volts_most / f64::from((1_u32 << board.adc.bits) - 1) / span;
    if percent_of_count > PERCENT_OF_COUNT_MAX {
        let message = format!(
            "from empty to full the {} sees {:.0} steps only; {:.0} are the least",
            board.name,
            100.0 / percent_of_count,
            100.0 / PERCENT_OF_COUNT_MAX
        );
        problems.always(Fault::OutOfRange, field("fullVolts"), &message).help =
            vec!["a smaller divider gives more of them".to_owned()];
    }
    let driver = Driver::Battery {
        burst: 8,
        factor: (percent_of_count * 65_536.0).round() as i64,
        offset: fixed(-100.0 * battery.empty_volts / span, 0),
        period: BATTERY_PERIOD_MS,
    };
    Some(Fitted { label, pin: pin?, driver, properties: Vec::new() })
}

pub(super) fn is_nested(path: &PropertyPath, model: Option<&TwinModelSpec>) -> bool {
    let only = model.and_then(|model| model.feature_of(&path.property));
    only != Some(path.feature.as_str()) || path.property == "n"
}

fn names_fit(path: &PropertyPath, field: Field, problems: &mut Problems) {
    if path.feature.len() > NAME_LEN_MAX || path.property.len() > NAME_LEN_MAX {
        let message = format!("a name in firmware has at most {NAME_LEN_MAX} bytes");
        problems.too_big(field, &message);
    }
}

pub(super) fn fixed(value: f64, places: u8) -> i32 {
    let scaled = (value * 10_f64.powi(places.into())).round();
    // i32::MIN is no value in firmware.
    scaled.clamp(f64::from(i32::MIN + 1), f64::from(i32::MAX)) as i32
}

fn property(
    path: &PropertyPath,
    places: u8,
    part: &Part,
    model: Option<&TwinModelSpec>,
    at: &str,
    problems: &mut Problems,
) -> Option<Property> {
    let field = Field::at(&["sensors", at, "type"]);
    names_fit(path, field.clone(), problems);
    let declared: Option<&PropertyModel> =
        model.and_then(|model| model.property(&path.feature, &path.property));
    let boolean = part.curve == Curve::Level;
    let places = match declared.map(|declared| declared.value_type) {
        Some(ValueType::Integer) => 0,
        Some(ValueType::Number) | None if !boolean => places,
        Some(ValueType::Boolean) | None => 0,
        Some(other) => {
            let message = format!(
                "`{path}` is {} in its model, which this part does not measure",
                other.name()
            );
            problems.not_made(field, &message);
            return None;
        }
    };
    if boolean != declared.is_none_or(|declared| declared.value_type == ValueType::Boolean)
        && declared.is_some()
    {
        let message = format!("`{path}` has another type in its model than this part measures");
        problems.not_made(field, &message);
        return None;
    }
    let tighter = |own: Option<f64>, declared: Option<f64>, pick: fn(f64, f64) -> f64| match (
        own, declared,
    ) {
        (Some(own), Some(declared)) => Some(pick(own, declared)),
        (own, declared) => own.or(declared),
    };
    let least = tighter(part.minimum, declared.and_then(|d| d.minimum), f64::max);
    let most = tighter(part.maximum, declared.and_then(|d| d.maximum), f64::min);
    let range = if boolean {
        (0, 1)
    } else {
        (
            least.map_or(i32::MIN + 1, |least| fixed(least, places)),
            most.map_or(i32::MAX, |most| fixed(most, places)),
        )
    };
    Some(Property {
        path: path.clone(),
        nested: is_nested(path, model),
        places,
        range,
        boolean,
        safe: None,
    })
}

fn sort_by_feature(sensors: &mut Vec<Property>, fitted: &mut [Fitted]) {
    let mut order: Vec<usize> = (0..sensors.len()).collect();
    let features: Vec<String> = sensors.iter().map(|p| p.path.feature.clone()).collect();
    let first = |feature: &str| features.iter().position(|other| other == feature);
    order.sort_by_key(|index| (first(&features[*index]), *index));
    let place = |old: usize| order.iter().position(|index| *index == old).unwrap_or(old);
    for part in fitted.iter_mut() {
        for index in &mut part.properties {
            *index = place(*index);
        }
    }
    *sensors = order.iter().map(|index| sensors[*index].clone()).collect();
}
