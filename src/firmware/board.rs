//! What a board has: pins, converter, memory, link. Read from `firmware-templates/boards`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::problem::{Fault, Field, Problems};
use crate::kinds::{BOARDS, BoardName, Connection, Pin, Transport, read};

/// A board that firmware is made for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Board {
    /// What it is.
    pub summary: String,
    /// As in a NodeProfile.
    pub name: String,
    pub(super) fqbn: String,
    pub(super) platform: String,
    #[serde(default)]
    pub(super) platform_index: Option<String>,
    /// The link that it has.
    pub link: Transport,
    pub(super) core: String,
    /// Flash for the sketch, bytes.
    pub flash: u64,
    /// RAM, bytes.
    pub ram: u64,
    /// RAM that is left to stacks and system, bytes.
    pub reserve: u64,
    pub(super) adc: Adc,
    pub(super) sample_us: u32,
    pub(super) period_min: u32,
    pub(super) groups: u32,
    pub(super) ring: u32,
    pub(super) cost: Cost,
    #[serde(default)]
    pub(super) i2c: Option<Bus>,
    pub(super) pins: Pins,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Adc {
    pub(super) bits: u8,
    pub(super) millivolts: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Cost {
    pub(super) flash: u64,
    pub(super) ram: u64,
    pub(super) ram_of_property: u64,
    /// How much more than on an Uno a part takes.
    pub(super) part: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Pins {
    pub(super) analog: BTreeMap<String, u8>,
    pub(super) digital: BTreeMap<String, u8>,
    pub(super) pwm: BTreeSet<String>,
    pub(super) input_only: BTreeSet<String>,
    pub(super) reserved: BTreeMap<String, String>,
}

/// The I2C bus of a board.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bus {
    pub(super) sda: String,
    pub(super) scl: String,
    pub(super) flash: u64,
    pub(super) ram: u64,
}

/// Where a part is connected.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Place {
    /// As printed on the board.
    pub(super) name: String,
    /// The number that C++ takes.
    pub(super) number: u8,
}

/// The names of the boards that firmware is made for.
pub(super) fn board_names() -> impl Iterator<Item = &'static str> {
    BOARDS.iter().map(|(name, _)| *name)
}

/// The board's description, if firmware is made for it.
pub fn board(name: &BoardName) -> Option<Board> {
    let (name, text) = BOARDS.iter().find(|(known, _)| *known == name.as_str())?;
    Some(read(text, name))
}

fn pin_text(pin: &Pin) -> String {
    match pin {
        Pin::Number(number) => number.to_string(),
        Pin::Name(name) => name.to_uppercase(),
    }
}

/// The pin by the board's own name and number, if it is there and can do it.
pub(super) fn pin(
    board: &Board,
    given: Option<&Pin>,
    connection: Connection,
    label: &str,
    field: impl Fn(&'static str) -> Field,
    problems: &mut Problems,
) -> Option<Place> {
    let Some(given) = given else {
        problems.always(Fault::BadPin, field("type"), &format!("this {label} has no `pin`"));
        return None;
    };
    let mut name = pin_text(given);
    if board.core == "esp32" && name.bytes().all(|b| b.is_ascii_digit()) {
        name = format!("GPIO{name}");
    }
    let (can, what) = match connection {
        Connection::Analog => (&board.pins.analog, "measure a voltage"),
        Connection::Digital | Connection::I2c => (&board.pins.digital, "be high or low"),
    };
    if let Some(number) = can.get(&name) {
        return Some(Place { name, number: *number });
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
    problems.always(Fault::BadPin, field("pin"), &message).help =
        vec![format!("pins that can {what}: {list}")];
    None
}

pub(super) fn is_free(
    taken: &mut BTreeMap<u8, String>,
    place: &Place,
    label: &str,
    field: Field,
    problems: &mut Problems,
) -> bool {
    if let Some(holder) = taken.get(&place.number) {
        let message = format!("`{}` is taken by the {holder} above", place.name);
        problems.always(Fault::PinTwice, field, &message);
        return false;
    }
    taken.insert(place.number, label.to_owned());
    true
}
