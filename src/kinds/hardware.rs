//! Boards, sensors and actuators that there are: the names that a NodeProfile may use, and what
//! each part is.
//!
//! They are the files of `firmware-templates/boards` and the folders of `firmware-templates/parts`,
//! embedded when the program is built. Adding one needs no change here.
//!
//! Not here: what a board has (`firmware::board`), what a part's driver needs (`firmware::part`).

use std::collections::BTreeMap;
use std::sync::OnceLock;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The files of one part's folder.
pub(crate) struct Folder {
    /// The folder's name, which is the part's.
    name: &'static str,
    /// `part.yaml`.
    description: &'static str,
    /// `driver.h`.
    pub(crate) driver: &'static str,
    /// `emulated.h`.
    pub(crate) emulated: &'static str,
}

include!(concat!(env!("OUT_DIR"), "/hardware.rs"));

/// A sensor or actuator, as its folder describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Part {
    /// As in a NodeProfile.
    #[serde(default)]
    pub name: String,
    /// What it is, in a sentence.
    pub summary: String,
    /// How it is connected.
    pub connection: Connection,
    /// The I2C addresses that it can have, the usual one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<u8>,
    /// What it measures; of a sensor.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measures: Vec<Quantity>,
    /// The types of property that set it, the usual one first; of an actuator.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<Setting>,
    /// How a reading becomes a value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversion: Option<Conversion>,
    /// Conversions of the board's converter that make one reading.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub samples: u32,
    /// Times between readings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<Period>,
    /// What it takes of an Uno.
    pub cost: Cost,
}

const fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_one(samples: &u32) -> bool {
    *samples == 1
}

/// How a part is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Connection {
    /// A pin that measures a voltage.
    Analog,
    /// A pin that is high or low.
    Digital,
    /// The I2C bus.
    I2c,
}

/// What a sensor measures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantity {
    /// Its name, as in `properties` of a NodeProfile.
    pub quantity: String,
    /// Its unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Least value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum: Option<f64>,
    /// Greatest value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum: Option<f64>,
    /// Decimal places that are sent.
    pub places: u8,
    /// What one count of the driver is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<f64>,
}

/// The type of a property that sets an actuator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Setting {
    /// On or off.
    Boolean,
    /// A number from its minimum to its maximum.
    Number,
}

/// How a reading becomes a value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Conversion {
    /// A voltage in proportion to the value.
    #[serde(rename_all = "camelCase")]
    Linear {
        /// Units in a millivolt.
        per_millivolt: f64,
    },
    /// A resistance that depends on the value: from the supply to the pin, and a resistor from there
    /// to ground.
    Divider {
        /// The resistor, Ohm.
        resistor: f64,
        /// The value by the part's resistance `ohms` and the constants; with `ln`.
        formula: String,
        /// What a NodeProfile may say otherwise under `calibration`.
        #[serde(default)]
        constants: BTreeMap<String, f64>,
    },
    /// The swing of a burst of readings, in decibels.
    #[serde(rename_all = "camelCase")]
    Decibels {
        /// The value at a swing of one millivolt.
        at_one_millivolt: f64,
    },
    /// True if the pin is high.
    Level,
    /// The driver gives counts, each of a quantity's `step`.
    Counts,
}

/// Times between readings, ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Period {
    /// Least.
    pub least: u32,
    /// Where a NodeProfile does not say.
    pub default: u32,
}

/// What a part takes of an Uno, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Flash.
    pub flash: u64,
    /// RAM.
    pub ram: u64,
}

impl Part {
    /// All parts, by name.
    pub fn all() -> &'static [Self] {
        static ALL: OnceLock<Vec<Part>> = OnceLock::new();
        ALL.get_or_init(|| {
            let parts = PARTS.iter().map(|folder| {
                let part: Self = read(folder.description, folder.name);
                Self { name: folder.name.to_owned(), ..part }
            });
            parts.collect()
        })
    }

    /// The part of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        Self::all().iter().find(|part| part.name == name)
    }

    /// The files of its folder.
    pub(crate) fn folder(&self) -> Option<&'static Folder> {
        PARTS.iter().find(|folder| folder.name == self.name)
    }

    /// Whether it is measured; if not, it is set.
    pub fn is_sensor(&self) -> bool {
        self.sets.is_empty()
    }
}

/// A description that is embedded. That each can be read is a test.
pub(crate) fn read<T: DeserializeOwned>(text: &str, name: &str) -> T {
    serde_yaml::from_str::<Value>(text)
        .map_err(|error| error.to_string())
        .and_then(|value| serde_json::from_value(value).map_err(|error| error.to_string()))
        .unwrap_or_else(|error| unreachable!("the description of {name}: {error}"))
}

/// What a name stands for, for the schema and for help.
fn choice<'a>(description: &str, choices: impl Iterator<Item = (&'a str, &'a str)>) -> Schema {
    let branches: Vec<Value> = choices
        .map(|(name, summary)| {
            serde_json::json!({ "type": "string", "const": name, "description": summary })
        })
        .collect();
    json_schema!({ "description": description, "oneOf": branches })
}

/// Types that are a name out of a list. Any text can be read, since what was stored under another
/// version may name what this one does not have; the schema refuses it in manifests.
macro_rules! named {
    ($($(#[$doc:meta])* $type:ident: $text:literal, $choices:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $type(String);

        impl $type {
            /// Its name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                choice($text, $choices)
            }
        }
    )*};
}

named! {
    /// A board that firmware can be generated for.
    BoardName: "A board that firmware can be generated for.", board_choices();
    /// A sensor that firmware has a driver for.
    SensorPart: "A sensor that firmware has a driver for.", part_choices(true);
    /// An actuator that firmware has a driver for.
    ActuatorPart: "An actuator that firmware has a driver for.", part_choices(false);
}

fn part_choices(sensors: bool) -> impl Iterator<Item = (&'static str, &'static str)> {
    let parts = Part::all().iter().filter(move |part| part.is_sensor() == sensors);
    parts.map(|part| (part.name.as_str(), part.summary.as_str()))
}

fn board_choices() -> impl Iterator<Item = (&'static str, &'static str)> {
    BOARDS.iter().map(|(name, text)| {
        let summary = text.lines().find_map(|line| line.strip_prefix("summary: "));
        (*name, summary.unwrap_or_default().trim_matches('"'))
    })
}

impl BoardName {
    /// The board of this name, whether there is one or not.
    pub fn new(name: &str) -> Self {
        Self(name.to_owned())
    }
}

impl SensorPart {
    /// What it is, if there is such a sensor.
    pub fn part(&self) -> Option<&'static Part> {
        Part::find(&self.0).filter(|part| part.is_sensor())
    }
}

impl ActuatorPart {
    /// What it is, if there is such an actuator.
    pub fn part(&self) -> Option<&'static Part> {
        Part::find(&self.0).filter(|part| !part.is_sensor())
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "it reads the templates and the sources")]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    const ROOT: &str = env!("CARGO_MANIFEST_DIR");

    /// The part's name as C++ and Rust have it.
    fn class(name: &str) -> String {
        let words = name.split('-').map(|word| word[..1].to_uppercase() + &word[1..]);
        words.collect()
    }

    fn files(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { files(&path, found) } else { found.push(path) }
        }
    }

    #[test]
    fn every_folder_describes_a_part() {
        assert!(Part::all().len() >= 12, "{}", Part::all().len());
        for part in Part::all() {
            let name = &part.name;
            let folder = part.folder().unwrap();
            assert_eq!(
                part.measures.is_empty(),
                !part.sets.is_empty(),
                "{name}: sensor or actuator"
            );
            assert_eq!(part.addresses.is_empty(), part.connection != Connection::I2c, "{name}");
            assert!(part.summary.ends_with('.'), "{name}: {}", part.summary);
            if part.is_sensor() {
                let period = part.period.unwrap();
                assert!(period.least <= period.default, "{name}");
                assert!(part.conversion.is_some(), "{name}");
            }
            let counts = part.conversion == Some(Conversion::Counts);
            for measured in &part.measures {
                assert_eq!(measured.step.is_some(), counts, "{name}");
                if let Some(unit) = &measured.unit {
                    assert!(unit.parse::<crate::base::units::Unit>().is_ok(), "{name}: {unit}");
                }
                let within = measured.minimum.zip(measured.maximum);
                assert!(within.is_none_or(|(least, most)| least < most), "{name}");
            }
            for of in [folder.driver, folder.emulated] {
                assert!(of.contains(&class(name)), "{name}: no class {}", class(name));
                assert!(of.contains("#pragma once"), "{name}");
            }
            let cases =
                Path::new(ROOT).join("firmware-templates/parts").join(name).join("test.json");
            let cases: Value = serde_json::from_slice(&fs::read(cases).unwrap()).unwrap();
            assert!(cases.as_array().is_some_and(|cases| !cases.is_empty()), "{name}");
        }
    }

    /// Words that mean more than a part: these are looked for as a part's name only, in quotes.
    const ORDINARY: [&str; 3] = ["led", "pwm", "relay"];

    #[test]
    fn no_part_is_named_outside_its_folder() {
        let mut searched = Vec::new();
        for folder in ["src", "firmware-templates", "tests/firmware"] {
            files(&Path::new(ROOT).join(folder), &mut searched);
        }
        searched.push(Path::new(ROOT).join("build.rs"));
        let mut wrong = Vec::new();
        for path in searched {
            // Manifests name parts, and so do the manifests in tests.
            let end = path.extension().and_then(|end| end.to_str()).unwrap_or_default();
            let manifest = path.starts_with(Path::new(ROOT).join("tests")) && end == "yaml";
            if manifest || path.ends_with("tests.rs") || ["md", "json", "txt"].contains(&end) {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let text = text.split("\nmod tests {").next().unwrap_or_default();
            let words: Vec<String> = text
                .split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
                .map(str::to_ascii_lowercase)
                .collect();
            for part in Part::all() {
                let name = part.name.as_str();
                if path.starts_with(Path::new(ROOT).join("firmware-templates/parts").join(name)) {
                    continue;
                }
                let class = class(name);
                let named = if ["analog", "digital"].contains(&name) || ORDINARY.contains(&name) {
                    // The connections have their names from these words.
                    let quoted = !["analog", "digital"].contains(&name)
                        && text.contains(&format!("\"{name}\""));
                    quoted || text.contains(&format!("parts::{class}"))
                } else {
                    words.iter().any(|word| *word == name || *word == class.to_ascii_lowercase())
                };
                if named {
                    wrong.push(format!("{}: {name}", path.display()));
                }
            }
        }
        assert!(wrong.is_empty(), "a part is described in its folder only:\n{wrong:#?}");
    }
}
