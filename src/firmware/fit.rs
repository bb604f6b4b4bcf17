//! Sensors, actuators and battery on the pins of a board, and their properties in fixed point.

use std::collections::BTreeMap;

use serde_json::Value;

use super::board::{Board, Place, is_free, pin};
use super::part::{Driver, driver};
use super::problem::{Fault, Field, Problems};
use super::property::{Property, fixed, ms};
use crate::base::text::suggest;
use crate::base::units::PropertyPath;
use crate::kinds::{
    ActuatorSpec, BatterySpec, Connection, Conversion, Cost, NodeProfileSpec, Part, PropertyModel,
    Quantity, SensorSpec, Setting, TwinModelSpec, ValueType,
};

/// Longest name of a feature or property in firmware, bytes.
pub const NAME_LEN_MAX: usize = 31;

/// How often a battery is measured at most, ms.
const BATTERY_PERIOD_MS: u32 = 1000;

/// Coarsest step of a battery's percentage.
const PERCENT_OF_COUNT_MAX: f64 = 5.0;

/// What measuring a battery takes of an Uno.
const BATTERY_COST: Cost = Cost { flash: 950, ram: 22 };

/// A sensor, an actuator or the battery at its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fitted {
    /// The part's name, or `battery`.
    pub(super) label: String,
    pub(super) part: Option<&'static Part>,
    pub(super) place: Place,
    pub(super) cost: Cost,
    pub(super) driver: Driver,
    /// Indices of its properties.
    pub(super) properties: Vec<usize>,
}

/// What is taken of a board, and by which part.
#[derive(Default)]
struct Taken {
    pins: BTreeMap<u8, String>,
    addresses: BTreeMap<u8, String>,
}

/// Sensors and actuators at their places.
pub(super) fn fit(
    spec: &NodeProfileSpec,
    board: &Board,
    model: Option<&TwinModelSpec>,
    problems: &mut Problems,
) -> (Vec<Property>, Vec<Property>, Vec<Fitted>) {
    let mut taken = Taken::default();
    let mut fitted = Vec::new();
    let mut sensors: Vec<Property> = Vec::new();
    for (at, sensor) in spec.sensors.iter().enumerate() {
        let at = at.to_string();
        let Some(part) = sensor.part.part() else {
            no_driver(sensor.part.as_str(), true, Field::at(&["sensors", &at, "type"]), problems);
            continue;
        };
        let place = sensor_place(part, sensor, board, &at, &mut taken, problems);
        fitted.extend(fit_sensor(part, sensor, place, board, model, &at, &mut sensors, problems));
    }
    // Those of one feature stand together in a message, so they are neighbours.
    sort_by_feature(&mut sensors, &mut fitted);

    let mut actuators: Vec<Property> = Vec::new();
    for (at, actuator) in spec.actuators.iter().enumerate() {
        let at = at.to_string();
        let Some(part) = actuator.part.part() else {
            let field = Field::at(&["actuators", &at, "type"]);
            no_driver(actuator.part.as_str(), false, field, problems);
            continue;
        };
        let path = &actuator.property;
        let declared = model.and_then(|model| model.property(&path.feature, &path.property));
        let setting = match declared {
            Some(declared) if declared.value_type == ValueType::Boolean => Setting::Boolean,
            Some(_) => Setting::Number,
            None => part.sets.first().copied().unwrap_or(Setting::Boolean),
        };
        let field = |name: &'static str| Field::at(&["actuators", &at, name]);
        if !part.sets.contains(&setting) {
            let message = match setting {
                Setting::Number => {
                    format!("a {} is on or off, its property is a number", part.name)
                }
                Setting::Boolean => format!("a {} takes a number, its property is not", part.name),
            };
            problems.not_made(field("property"), &message);
        }
        let place = actuator_place(part, actuator, setting, board, field, &mut taken, problems);
        let property = actuator_property(part, actuator, setting, declared, model, field, problems);
        let driver = match setting {
            Setting::Boolean => Driver::Switch,
            Setting::Number => {
                let (least, most) = property.range;
                Driver::Dimmer { least, span: (i64::from(most) - i64::from(least)).max(1) }
            }
        };
        let properties = vec![actuators.len()];
        actuators.push(property);
        let Some(place) = place else { continue };
        let (label, cost) = (part.name.clone(), part.cost);
        fitted.push(Fitted { label, part: Some(part), place, cost, driver, properties });
    }
    if let Some(battery) = &spec.battery {
        fitted.extend(fit_battery(battery, board, &mut taken, problems));
    }
    (sensors, actuators, fitted)
}

/// Reports a part that no folder describes.
fn no_driver(name: &str, sensor: bool, field: Field, problems: &mut Problems) {
    let known = Part::all().iter().filter(|part| part.is_sensor() == sensor);
    let known: Vec<&str> = known.map(|part| part.name.as_str()).collect();
    let message = format!("firmware has no driver for a part `{name}`");
    problems.not_made(field, &message).help = suggest(name, known.iter().copied())
        .map(|guess| format!("did you mean `{guess}`?"))
        .into_iter()
        .chain([format!("the parts are {}", known.join(", "))])
        .collect();
}

/// Where a sensor is connected, if that is free and can do it.
fn sensor_place(
    part: &Part,
    sensor: &SensorSpec,
    board: &Board,
    at: &str,
    taken: &mut Taken,
    problems: &mut Problems,
) -> Option<Place> {
    let field = |name: &'static str| Field::at(&["sensors", at, name]);
    if part.connection == Connection::I2c {
        return bus_place(part, sensor, board, at, taken, problems);
    }
    if sensor.address.is_some() {
        let message = format!("a {} is not on the I2C bus and has no address", part.name);
        problems.always(Fault::BadPin, field("address"), &message);
    }
    let place = pin(board, sensor.pin.as_ref(), part.connection, &part.name, field, problems)?;
    is_free(&mut taken.pins, &place, &part.name, field("pin"), problems).then_some(place)
}

/// The bus's own pins, which a part on it takes for all that are.
const BUS: &str = "I2C bus";

/// Where a sensor is on the I2C bus, if that is free.
fn bus_place(
    part: &Part,
    sensor: &SensorSpec,
    board: &Board,
    at: &str,
    taken: &mut Taken,
    problems: &mut Problems,
) -> Option<Place> {
    let field = |name: &'static str| Field::at(&["sensors", at, name]);
    let Some(bus) = &board.i2c else {
        let message = format!("the {} has no I2C bus, which a {} needs", board.name, part.name);
        problems.not_made(field("type"), &message);
        return None;
    };
    if sensor.pin.is_some() {
        let message = format!("a {} is on the I2C bus and has no pin of its own", part.name);
        problems.always(Fault::BadPin, field("pin"), &message).help =
            vec![format!("leave `pin` out, and connect SDA to {} and SCL to {}", bus.sda, bus.scl)];
        return None;
    }
    for line in [&bus.sda, &bus.scl] {
        let number = *board.pins.digital.get(line)?;
        match taken.pins.get(&number) {
            Some(holder) if holder != BUS => {
                let message = format!("`{line}` of the I2C bus is taken by the {holder} above");
                problems.always(Fault::PinTwice, field("type"), &message);
                return None;
            }
            _ => taken.pins.insert(number, BUS.to_owned()),
        };
    }
    let address = sensor.address.or(part.addresses.first().copied())?;
    let known: Vec<String> = part.addresses.iter().map(|one| format!("{one:#04x}")).collect();
    if !part.addresses.contains(&address) {
        let message = format!("a {} cannot have the address {address:#04x}", part.name);
        problems.always(Fault::BadPin, field("address"), &message).help =
            vec![format!("it can have {}", known.join(" or "))];
        return None;
    }
    if let Some(holder) = taken.addresses.insert(address, part.name.clone()) {
        let message = format!("the address {address:#04x} is taken by the {holder} above");
        let given = if sensor.address.is_some() { "address" } else { "type" };
        problems.always(Fault::PinTwice, field(given), &message).help =
            vec![format!("a {} can have {}", part.name, known.join(" or "))];
        return None;
    }
    Some(Place { name: format!("I2C {address:#04x}"), number: address })
}

/// Adds a sensor's properties, and gives it its driver.
#[expect(clippy::too_many_arguments, reason = "one sensor of a plan, with the plan so far")]
fn fit_sensor(
    part: &'static Part,
    sensor: &SensorSpec,
    place: Option<Place>,
    board: &Board,
    model: Option<&TwinModelSpec>,
    at: &str,
    sensors: &mut Vec<Property>,
    problems: &mut Problems,
) -> Option<Fitted> {
    let label = part.name.clone();
    let (least, usual) = part.period.map_or((0, 0), |period| (period.least, period.default));
    let period = sensor.period.map_or(usual, |period| ms(period.as_ms()));
    if period < least {
        let message = format!("a {label} cannot be read more often than every {least} ms");
        problems.always(Fault::TooFast, Field::at(&["sensors", at, "period"]), &message);
    }
    let period = period.min(u32::from(u16::MAX));
    let first = part.measures.first().map(|first| first.quantity.as_str()).unwrap_or_default();
    let paths = sensor
        .property
        .iter()
        .map(|path| (first, path))
        .chain(sensor.properties.iter().map(|(quantity, path)| (quantity.as_str(), path)));
    let mut measured = Vec::new();
    let from = sensors.len();
    for (name, path) in paths {
        let Some(quantity) = part.measures.iter().find(|known| known.quantity == name) else {
            let known: Vec<&str> = part.measures.iter().map(|one| one.quantity.as_str()).collect();
            let message = format!("a {label} does not measure `{name}`");
            let field = Field::at(&["sensors", at, "properties", name]);
            problems.always(Fault::UnknownQuantity, field, &message).help =
                vec![format!("it measures {}", known.join(" and "))];
            continue;
        };
        if let Some(property) = sensor_property(path, quantity, part, model, at, problems) {
            measured.push(name);
            sensors.push(property);
        }
    }
    let place = place?;
    let properties: Vec<(&str, &Property)> = measured.into_iter().zip(&sensors[from..]).collect();
    let driver = driver(part, board, sensor, period, &properties)?;
    let properties = (from..sensors.len()).collect();
    Some(Fitted { label, part: Some(part), place, cost: part.cost, driver, properties })
}

/// The pin of an actuator, if it is free and can do it.
fn actuator_place(
    part: &Part,
    actuator: &ActuatorSpec,
    setting: Setting,
    board: &Board,
    field: impl Fn(&'static str) -> Field,
    taken: &mut Taken,
    problems: &mut Problems,
) -> Option<Place> {
    let place = pin(board, Some(&actuator.pin), part.connection, &part.name, &field, problems)?;
    if !is_free(&mut taken.pins, &place, &part.name, field("pin"), problems) {
        return None;
    }
    let name = &place.name;
    if board.pins.input_only.contains(name) {
        let message = format!("`{name}` of the {} is an input only", board.name);
        problems.always(Fault::BadPin, field("pin"), &message);
    } else if setting == Setting::Number && !board.pins.pwm.contains(name) {
        let message = format!("`{name}` of the {} cannot be dimmed", board.name);
        let pins = board.pins.pwm.iter().cloned().collect::<Vec<_>>().join(", ");
        problems.always(Fault::BadPin, field("pin"), &message).help =
            vec![format!("these can: {pins}")];
    }
    Some(place)
}

fn actuator_property(
    part: &Part,
    actuator: &ActuatorSpec,
    setting: Setting,
    declared: Option<&PropertyModel>,
    model: Option<&TwinModelSpec>,
    field: impl Fn(&'static str) -> Field,
    problems: &mut Problems,
) -> Property {
    let path = actuator.property.clone();
    let boolean = setting == Setting::Boolean;
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
        Some(other) => {
            let (is, write) = match setting {
                Setting::Boolean => ("true or false", "`true` or `false`"),
                Setting::Number => ("a number", "a number from its minimum to its maximum"),
            };
            let message = format!("`{path}` is {is}, and `safe` is {other}");
            let problem = problems.always(Fault::WrongType, field("safe"), &message);
            problem.help = vec![format!("write {write}")];
            // Without a model the property may be of any type that sets the part.
            problem.always = !part.sets.iter().any(|setting| match setting {
                Setting::Boolean => other.is_boolean(),
                Setting::Number => other.is_number(),
            });
            None
        }
    };
    let nested = is_nested(&path, model);
    names_fit(&path, field("property"), problems);
    Property { path, nested, places: 0, range, boolean, safe }
}

/// The battery on its pin. Its percentage is a straight line, as the linear sensors are.
fn fit_battery(
    battery: &BatterySpec,
    board: &Board,
    taken: &mut Taken,
    problems: &mut Problems,
) -> Option<Fitted> {
    let label = "battery".to_owned();
    let field = |name: &'static str| Field::at(&["battery", name]);
    let place = pin(board, Some(&battery.pin), Connection::Analog, &label, field, problems);
    let place =
        place.filter(|place| is_free(&mut taken.pins, place, &label, field("pin"), problems));
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
        return None; // reported by the checks of manifests
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
        samples: 8,
        factor: (percent_of_count * 65_536.0).round() as i64,
        offset: fixed(-100.0 * battery.empty_volts / span, 0),
        period: BATTERY_PERIOD_MS,
    };
    let properties = Vec::new();
    Some(Fitted { label, part: None, place: place?, cost: BATTERY_COST, driver, properties })
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

fn sensor_property(
    path: &PropertyPath,
    quantity: &Quantity,
    part: &Part,
    model: Option<&TwinModelSpec>,
    at: &str,
    problems: &mut Problems,
) -> Option<Property> {
    let field = Field::at(&["sensors", at, "type"]);
    names_fit(path, field.clone(), problems);
    let declared: Option<&PropertyModel> =
        model.and_then(|model| model.property(&path.feature, &path.property));
    let boolean = part.conversion == Some(Conversion::Level);
    let places = match declared.map(|declared| declared.value_type) {
        Some(ValueType::Integer) => 0,
        Some(ValueType::Number) | None if !boolean => quantity.places,
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
    let least = tighter(quantity.minimum, declared.and_then(|d| d.minimum), f64::max);
    let most = tighter(quantity.maximum, declared.and_then(|d| d.maximum), f64::min);
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
