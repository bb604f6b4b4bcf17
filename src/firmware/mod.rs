//! Firmware from a NodeProfile: what a sketch needs to know, checked before anything is written.
//! Pure.
//!
//! [`Firmware::plan`] turns a profile, and the model of the twins that use it, into properties in
//! fixed point, parts on pins, and sizes; every mistake is a [`Problem`] with the path of the field
//! that it is about. [`render`] makes the files of it: the same bytes for the same profile.
//!
//! Boards and sensors are described in `firmware-templates/`, the C++ lives there too.
//!
//! Not here: compilers, the disk (`cli::gen_firmware`), positions in YAML (`manifest`).

mod problem;
pub mod render;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::text::suggest;
use crate::base::units::{Deadband, PropertyPath};
use crate::kinds::{
    ActuatorPart, BatterySpec, Board as BoardName, NodeProfileSpec, Pin, PropertyModel, SensorPart,
    SensorSpec, Transmission, Transport, TwinModelSpec, ValueType,
};
use crate::manifest::diagnostic::Code;

pub use problem::Problem;
use problem::{Field, Problems};

/// Sensor properties that one node has at most: they are bits of a 16-bit mask, and a record of
/// features of that many fits its length byte.
pub const SENSOR_PROPERTIES_MAX: usize = 12;
/// Longest name of a feature or property in firmware, bytes.
pub const NAME_LEN_MAX: usize = 31;
/// The bytes that a serial line of 115,200 Bd carries in a second.
pub const SERIAL_BYTES_PER_S: u64 = 11_520;
/// Share of a serial line that one node's own transmission may take, so that answers and resends
/// find room.
const SERIAL_SHARE: f64 = 0.7;
/// The programs that firmware has, in the order of their numbers there.
pub const PROGRAMS: [&str; 4] = ["interval", "on-change", "on-request", "features"];
/// Time between samples of `on-change` and `features` where the profile does not say, ms.
const SAMPLE_MS: u32 = 100;
/// Lease where the profile does not say, ms.
const LEASE_MS: u32 = 60_000;
/// Period where the profile does not say, ms.
const PERIOD_MS: u32 = 1000;
/// How often a battery is measured at most, ms.
const BATTERY_PERIOD_MS: u32 = 1000;
/// Coarsest step of a battery's percentage.
const PERCENT_OF_COUNT_MAX: f64 = 5.0;

const BOARDS: [(BoardName, &str); 2] = [
    (BoardName::Uno, include_str!("../../firmware-templates/boards/uno.yaml")),
    (BoardName::Esp32, include_str!("../../firmware-templates/boards/esp32.yaml")),
];
const PARTS: &str = include_str!("../../firmware-templates/sensors/parts.yaml");

/// A board that firmware is made for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Board {
    /// As in a NodeProfile.
    pub name: String,
    fqbn: String,
    platform: String,
    #[serde(default)]
    platform_index: Option<String>,
    /// The link that it has.
    pub link: Transport,
    core: String,
    /// Flash for the sketch, bytes.
    pub flash: u64,
    /// RAM, bytes.
    pub ram: u64,
    /// RAM that is left to stacks and system, bytes.
    pub reserve: u64,
    adc: Adc,
    sample_us: u32,
    period_min: u32,
    groups: u32,
    ring: u32,
    cost: Cost,
    pins: Pins,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Adc {
    bits: u8,
    millivolts: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Cost {
    flash: u64,
    ram: u64,
    flash_of_part: u64,
    ram_of_property: u64,
    ram_of_part: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Pins {
    analog: BTreeMap<String, u8>,
    digital: BTreeMap<String, u8>,
    pwm: BTreeSet<String>,
    input_only: BTreeSet<String>,
    reserved: BTreeMap<String, String>,
}

/// What firmware knows of a sensor.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Part {
    part: SensorPart,
    kind: PinKind,
    period_min: u32,
    period: u32,
    curve: Curve,
    #[serde(default)]
    per_millivolt: f64,
    #[serde(default)]
    at_one_millivolt: f64,
    #[serde(default = "one")]
    burst: u32,
    #[serde(default)]
    quantities: Vec<String>,
    places: u8,
    #[serde(default)]
    minimum: Option<f64>,
    #[serde(default)]
    maximum: Option<f64>,
}

const fn one() -> u32 {
    1
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PinKind {
    Analog,
    Digital,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Curve {
    Linear,
    Divider,
    Ntc,
    Swing,
    Dht,
    Level,
}

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

    fn digits(&self) -> usize {
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

/// How a node talks by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct DefaultTransmission {
    /// Index in [`PROGRAMS`].
    pub program: usize,
    /// Least time between messages, ms.
    pub pmin: u32,
    /// Longest silence, ms; 0: none.
    pub pmax: u32,
    /// Thresholds by property, in fixed point.
    pub st: Vec<Option<i32>>,
    /// Thresholds by property, in fixed point.
    pub gt: Vec<Option<i32>>,
    /// Thresholds by property, in fixed point.
    pub lt: Vec<Option<i32>>,
}

/// A sensor or actuator on its pin.
#[derive(Debug, Clone, PartialEq)]
struct Fitted {
    label: String,
    pin: (String, u8),
    driver: Driver,
    /// Indices of its properties.
    properties: Vec<usize>,
}

#[derive(Debug, Clone, PartialEq)]
enum Driver {
    Linear { burst: u32, factor: i64, offset: i32, period: u32 },
    Curve { burst: u32, points: Vec<i32>, period: u32 },
    Swing { burst: u32, per_octave: i32, at_one: i32, period: u32 },
    Level,
    Dht { wide: bool, period: u32, calibration: Vec<(usize, i64, i32)> },
    Switch,
    Duty { property: usize },
    Battery { burst: u32, factor: i64, offset: i32, period: u32 },
}

/// Everything that a sketch is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Firmware {
    /// The NodeProfile's name.
    pub profile: String,
    /// The board.
    pub board: Board,
    /// What is measured.
    pub sensors: Vec<Property>,
    /// What can be set.
    pub actuators: Vec<Property>,
    fitted: Vec<Fitted>,
    /// Whether it measures its battery.
    pub battery: bool,
    /// Bits by the index in [`PROGRAMS`].
    pub programs: u8,
    /// How it talks by itself.
    pub transmission: DefaultTransmission,
    /// Least period that a command may ask for, ms.
    pub period_min: u32,
    /// Time between samples of `on-change` and `features`, ms.
    pub sample_ms: u32,
    /// Lease, ms.
    pub lease_ms: u32,
    /// Transmissions at once.
    pub groups: u32,
    /// Bytes for readings that wait.
    pub ring: u32,
    /// Longest message, bytes.
    pub line: usize,
    /// Flash that it takes, estimated, bytes.
    pub flash: u64,
    /// RAM that it takes, estimated, bytes.
    pub ram: u64,
}

/// The board's description, if firmware is made for it.
pub fn board(name: BoardName) -> Option<Board> {
    let (_, text) = BOARDS.iter().find(|(board, _)| *board == name)?;
    Some(serde_yaml::from_str(text).unwrap_or_else(|error| unreachable!("boards/*.yaml: {error}")))
}

fn parts() -> Vec<Part> {
    serde_yaml::from_str(PARTS).unwrap_or_else(|error| unreachable!("parts.yaml: {error}"))
}

/// What is wrong with a profile whatever it is used for: pins and periods of a board that
/// firmware is made for.
pub fn check(spec: &NodeProfileSpec) -> Vec<Problem> {
    let Some(board) = board(spec.board) else { return Vec::new() };
    let mut problems = Problems::default();
    fit(spec, &board, None, &mut problems);
    problems.list.retain(|problem| problem.always);
    problems.list
}

impl Firmware {
    /// Plans the firmware of a profile.
    ///
    /// * `model`: of the twins that use the profile; without one, properties go by
    ///   `feature/property` and take the parts' own ranges.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn plan(
        name: &str,
        spec: &NodeProfileSpec,
        model: Option<&TwinModelSpec>,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems::default();
        let Some(board) = board(spec.board) else {
            let field = Field::at(&["board"]);
            let known = BOARDS.map(|(board, _)| format!("{board:?}").to_lowercase()).join(", ");
            problems.not_made(field, "firmware is not made for this board yet").help =
                vec![format!("the boards are {known}")];
            return Err(problems.list);
        };
        if spec.transport.is_some_and(|transport| transport != board.link) {
            let message = format!("the {} reaches the edge over {:?} only", board.name, board.link);
            problems.not_made(Field::at(&["transport"]), &message.to_lowercase());
        }
        let (sensors, actuators, fitted) = fit(spec, &board, model, &mut problems);
        if sensors.is_empty() && actuators.is_empty() {
            problems
                .not_made(Field::at(&["board"]), "a profile without sensors has nothing to say");
        }
        if sensors.len() > SENSOR_PROPERTIES_MAX {
            let message = format!(
                "{} properties are measured; {SENSOR_PROPERTIES_MAX} are the most",
                sensors.len()
            );
            problems.too_big(Field::at(&["sensors"]), &message);
        }
        let programs = programs(spec, &mut problems);
        let sample_ms = spec.transmission.as_ref().and_then(|t| t.epmin.or(t.epmax));
        let sample_ms = sample_ms.map_or(SAMPLE_MS, |period| ms(period.as_ms()).max(5));
        let transmission = default_transmission(spec, &sensors, model, programs, &mut problems);
        let mut firmware = Self {
            profile: name.to_owned(),
            period_min: board.period_min,
            lease_ms: spec
                .lease
                .map_or(LEASE_MS, |lease| ms(lease.as_ms()).clamp(1000, 86_400_000)),
            groups: board.groups.min(sensors.len().max(1) as u32),
            sensors,
            actuators,
            fitted,
            battery: spec.battery.is_some(),
            programs,
            transmission,
            sample_ms,
            ring: 0,
            line: 0,
            flash: 0,
            ram: 0,
            board,
        };
        firmware.measure(spec, &mut problems);
        if problems.list.is_empty() { Ok(firmware) } else { Err(problems.list) }
    }

    /// The firmware of a simulated node: it measures `sensors`, obeys what the profile's would, and
    /// fits on any board.
    ///
    /// * `transmission`: the twin's own, in place of the profile's.
    pub fn simulated(
        name: &str,
        spec: Option<&NodeProfileSpec>,
        model: &TwinModelSpec,
        sensors: &[PropertyPath],
        transmission: Option<&Transmission>,
    ) -> Self {
        let planned = spec.and_then(|spec| Self::plan(name, spec, Some(model)).ok());
        let sensors: Vec<Property> = sensors
            .iter()
            .take(SENSOR_PROPERTIES_MAX)
            .map(|path| {
                let declared = model.property(&path.feature, &path.property);
                let least = declared.and_then(|declared| declared.minimum);
                let most = declared.and_then(|declared| declared.maximum);
                let range = (
                    least.map_or(i32::MIN + 1, |least| fixed(least, 2)),
                    most.map_or(i32::MAX, |most| fixed(most, 2)),
                );
                let nested = is_nested(path, Some(model));
                Property {
                    path: path.clone(),
                    nested,
                    places: 2,
                    range,
                    boolean: false,
                    safe: None,
                }
            })
            .collect();
        let mut own = spec.cloned().unwrap_or_else(|| NodeProfileSpec {
            board: BoardName::Host,
            transport: None,
            sensors: Vec::new(),
            actuators: Vec::new(),
            battery: None,
            programs: Vec::new(),
            transmission: None,
            memory: None,
            lease: None,
            channels: Vec::new(),
        });
        // What firmware does not have yet, a simulated node does without.
        own.programs.retain(|program| PROGRAMS.contains(&program.as_str()));
        own.transmission = transmission.cloned().or(own.transmission);
        let mut ignored = Problems::default();
        let programs = programs(&own, &mut ignored);
        let mut board = planned.as_ref().map_or_else(
            || board(BoardName::Esp32).unwrap_or_else(|| unreachable!("the ESP32 is a board")),
            |planned| planned.board.clone(),
        );
        if planned.is_none() {
            board.name = "host".to_owned();
        }
        let sample_ms = own.transmission.as_ref().and_then(|t| t.epmin.or(t.epmax));
        let readings = own.memory.as_ref().and_then(|memory| memory.ring).unwrap_or(board.ring);
        Self {
            profile: name.to_owned(),
            transmission: default_transmission(&own, &sensors, Some(model), programs, &mut ignored),
            actuators: planned.map_or_else(Vec::new, |planned| planned.actuators),
            fitted: Vec::new(),
            battery: own.battery.is_some(),
            programs,
            period_min: board.period_min,
            sample_ms: sample_ms.map_or(SAMPLE_MS, |period| ms(period.as_ms()).max(5)),
            lease_ms: own.lease.map_or(LEASE_MS, |lease| ms(lease.as_ms()).clamp(1000, 86_400_000)),
            groups: board.groups.min(sensors.len().max(1) as u32),
            ring: readings.clamp(1, 2000) * (10 + 5 * sensors.len() as u32),
            line: 0,
            flash: 0,
            ram: 0,
            sensors,
            board,
        }
    }

    /// Sizes, and whether they fit.
    fn measure(&mut self, spec: &NodeProfileSpec, problems: &mut Problems) {
        let sample_record = 1 + 5 + 1 + 3 + 5 * self.sensors.len() as u32;
        let readings = spec.memory.as_ref().and_then(|memory| memory.ring);
        let wanted = readings.unwrap_or(self.board.ring);
        // A record of features has to fit, too.
        let features = if self.programs & 8 == 0 { 0 } else { 15 + 20 * self.sensors.len() as u32 };
        self.ring = (wanted.saturating_mul(sample_record)).max(features + 1).max(64);
        self.line = self.longest();
        let cost = &self.board.cost;
        self.flash = cost.flash + cost.flash_of_part * self.fitted.len() as u64;
        let lines = if self.board.link == Transport::Mqtt { self.line as u64 } else { 0 };
        self.ram = cost.ram
            + cost.ram_of_property * self.sensors.len() as u64
            + cost.ram_of_part * self.fitted.len() as u64
            + u64::from(self.ring)
            + lines;
        let at_ring = match readings {
            Some(_) => Field::at(&["memory", "ring"]),
            None => Field::at(&["sensors"]),
        };
        let reserve = spec.memory.as_ref().and_then(|memory| memory.reserve);
        let reserve = reserve.map_or(self.board.reserve, |size| size.as_bytes());
        if self.ram + reserve > self.board.ram {
            let over = self.ram + reserve - self.board.ram;
            let message = format!(
                "this takes about {} of the {}'s {} bytes of RAM and leaves less than {reserve} for \
                 the stack",
                self.ram, self.board.name, self.board.ram
            );
            let most = u64::from(wanted).saturating_sub(over.div_ceil(sample_record.into()));
            problems.too_big(at_ring.clone(), &message).help =
                vec![format!("a ring of {most} readings would fit")];
        }
        if self.ring > 60_000 {
            let message = format!("the ring takes {} bytes; 60000 are the most", self.ring);
            problems.too_big(at_ring, &message).help =
                vec![format!("a ring of {} readings would fit", 60_000 / sample_record)];
        }
        if self.flash > self.board.flash {
            let message = format!(
                "this takes about {} of the {}'s {} bytes of flash",
                self.flash, self.board.name, self.board.flash
            );
            problems.too_big(Field::at(&["sensors"]), &message);
        }
        if self.board.link == Transport::Serial {
            self.fit_line(spec, problems);
        }
    }

    /// What a serial line carries.
    fn fit_line(&mut self, spec: &NodeProfileSpec, problems: &mut Problems) {
        let frame = self.sample_line() + "*0000\n".len();
        let budget = SERIAL_BYTES_PER_S as f64 * SERIAL_SHARE;
        let least = (frame as f64 * 1000.0 / budget).ceil() as u32;
        self.period_min = self.period_min.max(least);
        let fastest = match PROGRAMS[self.transmission.program] {
            "on-request" => return,
            _ => self.transmission.pmin,
        };
        if fastest < self.period_min {
            let message = format!(
                "a message of up to {frame} bytes every {fastest} ms does not fit the serial line"
            );
            let field = ["interval", "pmin"].into_iter().find(|field| {
                let transmission = spec.transmission.as_ref();
                transmission.is_some_and(|t| match *field {
                    "interval" => t.interval.is_some(),
                    _ => t.pmin.is_some(),
                })
            });
            let field = field
                .map_or(Field::at(&["transmission"]), |field| Field::at(&["transmission", field]));
            problems.too_big(field, &message).help =
                vec![format!("at 115,200 Bd, {} ms or more do", self.period_min)];
        }
    }

    /// Longest data message without its frame, bytes.
    fn sample_line(&self) -> usize {
        let head = r#"{"k":"s","boot":,"seq":,"ms":,"program":"on-request","old":1,"time":}"#.len()
            + 30
            + 20;
        head + self.sensors.iter().map(|p| p.name().len() + 8 + p.digits()).sum::<usize>()
    }

    /// Longest message of all, bytes: what a buffer must hold.
    fn longest(&self) -> usize {
        let numbers = |property: &Property| property.name().len() + 4 + property.digits();
        let features = if self.programs & 8 == 0 {
            0
        } else {
            let stats = r#"{"min":,"max":,"mean":,"var":}"#.len();
            let each = |p: &Property| p.name().len() + 8 + stats + 3 * p.digits() + 12;
            120 + self.sensors.iter().map(each).sum::<usize>()
        };
        // A transmission: every property with three thresholds, every group with its head.
        let group =
            r#""":{"program":"on-request","pmin":,"pmax":,"st":{},"gt":{},"lt":{}},"#.len() + 16;
        let transmission = self.groups as usize * group
            + self.sensors.iter().map(|p| 3 * numbers(p) + p.name().len() + 1).sum::<usize>()
            + r#""tx":,"kept":0,"groups":{}"#.len();
        let state = r#"{"k":"b","up":1,"boot":,"ms":,"build":"","profile":"","board":"","cause":"power","lost":,"lease":,"rssi":-200,"battery":100,"version":}"#
            .len()
            + 8
            + 50
            + self.profile.len()
            + self.board.name.len();
        let topic = 256 + "et/v1//state".len() + 8;
        topic + (state + transmission).max(features).max(self.sample_line())
    }
}

fn ms(ms: u64) -> u32 {
    u32::try_from(ms).unwrap_or(u32::MAX)
}

fn programs(spec: &NodeProfileSpec, problems: &mut Problems) -> u8 {
    if spec.programs.is_empty() {
        return 0b1111;
    }
    let mut bits = 0;
    for (at, program) in spec.programs.iter().enumerate() {
        match PROGRAMS.iter().position(|known| known == program) {
            Some(index) => bits |= 1 << index,
            None => {
                let at = at.to_string();
                let message = format!("firmware has no program `{program}` yet");
                let guess = suggest(program, PROGRAMS);
                problems.not_made(Field::at(&["programs", &at]), &message).help = guess
                    .map(|guess| format!("did you mean `{guess}`?"))
                    .into_iter()
                    .chain([format!("the programs are {}", PROGRAMS.join(", "))])
                    .collect();
            }
        }
    }
    bits
}

fn default_transmission(
    spec: &NodeProfileSpec,
    sensors: &[Property],
    model: Option<&TwinModelSpec>,
    programs: u8,
    problems: &mut Problems,
) -> DefaultTransmission {
    let none = || vec![None; sensors.len()];
    let own = spec.transmission.clone().unwrap_or_default();
    let name = own.program.as_deref().unwrap_or("interval");
    let found = PROGRAMS.iter().position(|known| *known == name);
    let program = match found {
        Some(program) if programs >> program & 1 == 1 => program,
        _ => {
            let message = format!("the firmware of this profile has no program `{name}`");
            problems.not_made(Field::at(&["transmission", "program"]), &message);
            0
        }
    };
    let interval = own.interval.map(|interval| ms(interval.as_ms()));
    let pmin = interval.or(own.pmin.map(|pmin| ms(pmin.as_ms())));
    let pmax = interval.or(own.pmax.map(|pmax| ms(pmax.as_ms())));
    let (pmin, pmax) = match name {
        "on-change" => (pmin.unwrap_or(PERIOD_MS), pmax.unwrap_or(0)),
        "on-request" => (0, 0),
        _ => {
            let period = pmin.or(pmax).unwrap_or(PERIOD_MS);
            (period, period)
        }
    };
    let scaled = |property: &Property, value: f64| {
        let scaled = (value * 10_f64.powi(property.places.into())).round();
        (scaled.abs() < f64::from(i32::MAX)).then_some(scaled as i32)
    };
    let each = |value: Option<f64>| -> Vec<Option<i32>> {
        let of = |p: &Property| value.filter(|_| !p.boolean).and_then(|value| scaled(p, value));
        sensors.iter().map(of).collect()
    };
    let st = match own.st {
        None => none(),
        Some(Deadband::Absolute(value)) => each(Some(value)),
        Some(Deadband::OfRange(share)) => sensors
            .iter()
            .map(|property| {
                let model = model?.property(&property.path.feature, &property.path.property)?;
                scaled(property, (model.maximum? - model.minimum?) * share.as_fraction())
            })
            .collect(),
    };
    DefaultTransmission { program, pmin, pmax, st, gt: each(own.gt), lt: each(own.lt) }
}

/// Sensors and actuators on the board's pins.
fn fit(
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
            problems.always(Code::TooFast, field("period"), &message);
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
                    problems.always(Code::UnknownProperty, field, &message).help =
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
                problems.always(Code::BadPin, field("pin"), &message);
            } else if !boolean && !board.pins.pwm.contains(name) {
                let message = format!("`{name}` of the {} cannot be dimmed", board.name);
                let pins = board.pins.pwm.iter().cloned().collect::<Vec<_>>().join(", ");
                problems.always(Code::BadPin, field("pin"), &message).help =
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
        problems.always(Code::OutOfRange, field("fullVolts"), &message).help =
            vec![format!("put a divider between them, with `divider: {least}` or more")];
    }
    let span = battery.full_volts - battery.empty_volts;
    if span <= 0.0 {
        return None; // told by whoever checks manifests
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
        problems.always(Code::OutOfRange, field("fullVolts"), &message).help =
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

fn part_name(part: SensorPart) -> String {
    serde_json::to_value(part)
        .ok()
        .and_then(|name| name.as_str().map(str::to_owned))
        .unwrap_or_default()
}

fn part_names(known: &[Part]) -> String {
    known.iter().map(|part| part_name(part.part)).collect::<Vec<_>>().join(", ")
}

fn pin_text(pin: &Pin) -> String {
    match pin {
        Pin::Number(number) => number.to_string(),
        Pin::Name(name) => name.to_uppercase(),
    }
}

/// The pin by the board's own name and number, if it is there and can do it.
fn pin(
    board: &Board,
    given: Option<&Pin>,
    kind: PinKind,
    label: &str,
    field: impl Fn(&'static str) -> Field,
    problems: &mut Problems,
) -> Option<(String, u8)> {
    let Some(given) = given else {
        problems.always(Code::BadPin, field("type"), &format!("this {label} has no `pin`"));
        return None;
    };
    let mut name = pin_text(given);
    if board.core == "esp32" && name.bytes().all(|b| b.is_ascii_digit()) {
        name = format!("GPIO{name}");
    }
    let (can, what) = match kind {
        PinKind::Analog => (&board.pins.analog, "measure a voltage"),
        PinKind::Digital => (&board.pins.digital, "be high or low"),
    };
    if let Some(number) = can.get(&name) {
        return Some((name, *number));
    }
    let mut list: Vec<(&String, &u8)> = can.iter().collect();
    list.sort_by_key(|(_, number)| **number);
    let list = list.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    let message = if let Some(holder) = board.pins.reserved.get(&name) {
        format!("`{name}` of the {} belongs to {holder}", board.name)
    } else if board.pins.digital.contains_key(&name) {
        format!("`{name}` of the {} cannot {what}", board.name)
    } else {
        format!("the {} has no pin `{name}`", board.name)
    };
    problems.always(Code::BadPin, field("pin"), &message).help =
        vec![format!("pins that can {what}: {list}")];
    None
}

fn is_free(
    taken: &mut BTreeMap<u8, String>,
    pin: &(String, u8),
    label: &str,
    field: Field,
    problems: &mut Problems,
) -> bool {
    if let Some(holder) = taken.get(&pin.1) {
        let message = format!("`{}` is taken by the {holder} above", pin.0);
        problems.always(Code::PinTwice, field, &message);
        return false;
    }
    taken.insert(pin.1, label.to_owned());
    true
}

fn is_nested(path: &PropertyPath, model: Option<&TwinModelSpec>) -> bool {
    let only = model.and_then(|model| model.feature_of(&path.property));
    only != Some(path.feature.as_str()) || path.property == "n"
}

fn names_fit(path: &PropertyPath, field: Field, problems: &mut Problems) {
    if path.feature.len() > NAME_LEN_MAX || path.property.len() > NAME_LEN_MAX {
        let message = format!("a name in firmware has at most {NAME_LEN_MAX} bytes");
        problems.too_big(field, &message);
    }
}

fn fixed(value: f64, places: u8) -> i32 {
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

/// The numbers of a part's driver.
fn driver(
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
