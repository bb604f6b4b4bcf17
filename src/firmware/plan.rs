//! The plan of a sketch: everything that the files are made of.

use serde::Serialize;

use super::board::{Board, board, board_names};
use super::fit::{Fitted, fit, is_nested};
use super::problem::{Field, Problem, Problems};
use super::property::{Property, fixed, ms};
use crate::base::text::suggest;
use crate::base::units::{Deadband, PropertyPath};
use crate::kinds::{BoardName, Connection, NodeProfileSpec, Transmission, TwinModelSpec};

/// Sensor properties that one node has at most: they are bits of a 16-bit mask, and a record of
/// features of that many fits its length byte.
pub const SENSOR_PROPERTIES_MAX: usize = 12;

/// The programs that firmware has, in the order of their numbers there.
pub const PROGRAMS: [&str; 4] = ["interval", "on-change", "on-request", "features"];

/// Time between samples of `on-change` and `features` where the profile does not say, ms.
const SAMPLE_MS: u32 = 100;

/// Lease where the profile does not say, ms.
const LEASE_MS: u32 = 60_000;

/// Period where the profile does not say, ms.
const PERIOD_MS: u32 = 1000;

/// The default transmission of a node.
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
    pub(super) fitted: Vec<Fitted>,
    /// Whether it measures its battery.
    pub battery: bool,
    /// Bits by the index in [`PROGRAMS`].
    pub programs: u8,
    /// The default transmission.
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

/// A part at its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlacedPart<'a> {
    /// The part.
    pub part: &'a str,
    /// As printed on the board.
    pub place: &'a str,
    /// The pin's number, or the address on the bus.
    pub at: String,
}

/// What is wrong with a profile whatever it is used for: pins and periods of a board that
/// firmware is made for.
pub fn check(spec: &NodeProfileSpec) -> Vec<Problem> {
    let Some(board) = board(&spec.board) else { return Vec::new() };
    let mut problems = Problems::default();
    fit(spec, &board, None, &mut problems);
    programs(spec, &mut problems);
    problems.list.retain(|problem| problem.always || problem.warning);
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
        let Some(board) = board(&spec.board) else {
            let field = Field::at(&["board"]);
            let name = spec.board.as_str();
            let message = format!("firmware is not made for a board `{name}`");
            problems.not_made(field, &message).help = suggest(name, board_names())
                .map(|guess| format!("did you mean `{guess}`?"))
                .into_iter()
                .chain([format!("the boards are {}", board_names().collect::<Vec<_>>().join(", "))])
                .collect();
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

    /// Its parts at their places.
    pub fn parts(&self) -> Vec<PlacedPart<'_>> {
        let parts = self.fitted.iter().filter_map(|fitted| {
            let part = fitted.part?;
            let number = fitted.place.number;
            let at = match part.connection {
                Connection::I2c => format!("{number:#04x}"),
                Connection::Analog | Connection::Digital => number.to_string(),
            };
            let (part, place) = (part.name.as_str(), fitted.place.name.as_str());
            Some(PlacedPart { part, place, at })
        });
        parts.collect()
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
            board: BoardName::new("host"),
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
            || {
                board(&BoardName::new("esp32"))
                    .unwrap_or_else(|| unreachable!("the ESP32 is a board"))
            },
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
                let problem = problems.not_made(Field::at(&["programs", &at]), &message);
                problem.warning = true;
                problem.help = guess
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
