//! Scalars that carry a unit: `10s`, `25%`, `8KiB`, `6Mbit/s`, `environment/temperature`, `Cel`.
//!
//! Each has one way to be written, so that a manifest says what it means and a slip is caught
//! where it stands: `10 s`, `10sec` and a bare `10` are errors that name the right spelling.
//! The JSON Schema marks each with `x-scalar`, so the validator can report the same words that
//! the parser here uses.
//!
//! Not here: positions and codes of errors (`manifest`).

use crate::base::text::suggest;
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest duration that a manifest may name: 10 years, in ms. Longer ones are slips of the unit.
pub const DURATION_MS_MAX: u64 = 10 * 365 * 24 * 3600 * 1000;

/// Why a scalar could not be read, in the user's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScalarError {
    /// What is wrong with it.
    pub message: String,
    /// What to write instead.
    pub help: String,
}

impl ScalarError {
    fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

impl fmt::Display for ScalarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.message, self.help)
    }
}

impl std::error::Error for ScalarError {}

/// Implements serde and JSON Schema for a scalar that is written as text.
macro_rules! text_scalar {
    ($type:ident, $name:literal, $description:literal, $pattern:literal, $example:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "description": $description,
                    "pattern": $pattern,
                    "x-scalar": $name,
                    "examples": [$example],
                })
            }
        }
    };
}

/// A time span, kept in ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Duration {
    ms: u64,
}

impl Duration {
    /// A span of `ms` milliseconds.
    pub const fn from_ms(ms: u64) -> Self {
        Self { ms }
    }

    /// The span in milliseconds.
    pub const fn as_ms(self) -> u64 {
        self.ms
    }

    /// The same span for the standard library.
    pub const fn as_std(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.ms)
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ms {
            0 => f.write_str("0s"),
            ms if ms % 86_400_000 == 0 => write!(f, "{}d", ms / 86_400_000),
            ms if ms % 3_600_000 == 0 => write!(f, "{}h", ms / 3_600_000),
            ms if ms % 60_000 == 0 => write!(f, "{}m", ms / 60_000),
            ms if ms % 1000 == 0 => write!(f, "{}s", ms / 1000),
            ms => write!(f, "{ms}ms"),
        }
    }
}

const DURATION_HELP: &str =
    "write a number and a unit without a space: `500ms`, `10s`, `5m`, `2h`, `1d`";

impl FromStr for Duration {
    type Err = ScalarError;

    fn from_str(text: &str) -> Result<Self, ScalarError> {
        let wrong = || {
            let guess = guess_duration(text);
            ScalarError::new(
                format!("`{text}` is not a duration"),
                guess.map_or(DURATION_HELP.to_owned(), |guess| {
                    format!("did you mean `{guess}`? {DURATION_HELP}")
                }),
            )
        };
        let mut rest = text;
        let mut total_ms = 0.0_f64;
        let mut last_unit_ms = f64::INFINITY;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            let (number, after) = rest.split_at(digits);
            let letters = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
            let (unit, after) = after.split_at(letters);
            let unit_ms = match unit {
                "ms" => 1.0,
                "s" => 1000.0,
                "m" => 60_000.0,
                "h" => 3_600_000.0,
                "d" => 86_400_000.0,
                _ => return Err(wrong()),
            };
            if unit_ms >= last_unit_ms || !is_decimal(number) {
                return Err(wrong());
            }
            last_unit_ms = unit_ms;
            total_ms += number.parse::<f64>().map_err(|_| wrong())? * unit_ms;
            rest = after;
        }
        if text.is_empty() || (total_ms - total_ms.round()).abs() > 1e-6 {
            return Err(wrong());
        }
        if total_ms > DURATION_MS_MAX as f64 {
            return Err(ScalarError::new(
                format!("`{text}` is longer than 10 years"),
                DURATION_HELP,
            ));
        }
        Ok(Self { ms: total_ms.round() as u64 })
    }
}

/// Digits with at most one point inside them.
fn is_decimal(number: &str) -> bool {
    let mut parts = number.splitn(2, '.');
    let whole = parts.next().unwrap_or_default();
    let fraction = parts.next().unwrap_or("0");
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    digits(whole) && digits(fraction)
}

/// The spelling that somebody who wrote `10 sec` had in mind.
fn guess_duration(text: &str) -> Option<String> {
    let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let split = compact.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(compact.len());
    let (number, unit) = compact.split_at(split);
    if !is_decimal(number) {
        return None;
    }
    let unit = match unit.to_lowercase().as_str() {
        "" | "s" | "sec" | "secs" | "second" | "seconds" => "s",
        "ms" | "msec" | "millis" | "milliseconds" => "ms",
        "m" | "min" | "mins" | "minute" | "minutes" => "m",
        "h" | "hr" | "hrs" | "hour" | "hours" => "h",
        "d" | "day" | "days" => "d",
        _ => return None,
    };
    Some(format!("{number}{unit}"))
}

text_scalar!(
    Duration,
    "duration",
    "A time span: a number and a unit (`ms`, `s`, `m`, `h`, `d`) without a space, such as `500ms`, `10s` or `1h30m`.",
    r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$",
    "10s"
);

/// A share of a whole, kept as 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default)]
pub struct Percent {
    percent: f64,
}

impl Percent {
    /// `percent` hundredths; the caller keeps it between 0 and 100.
    pub const fn new(percent: f64) -> Self {
        Self { percent }
    }

    /// 0 to 1.
    pub fn as_fraction(self) -> f64 {
        self.percent / 100.0
    }

    /// 0 to 100.
    pub const fn as_percent(self) -> f64 {
        self.percent
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.percent)
    }
}

impl FromStr for Percent {
    type Err = ScalarError;

    fn from_str(text: &str) -> Result<Self, ScalarError> {
        let help = "write 0 to 100 with a percent sign and no space: `25%`";
        let number = text
            .strip_suffix('%')
            .filter(|number| is_decimal(number))
            .and_then(|number| number.parse::<f64>().ok())
            .ok_or_else(|| ScalarError::new(format!("`{text}` is not a percentage"), help))?;
        if number > 100.0 {
            return Err(ScalarError::new(format!("`{text}` is more than the whole"), help));
        }
        Ok(Self { percent: number })
    }
}

text_scalar!(Percent, "percent", "A share from `0%` to `100%`.", r"^[0-9]+(\.[0-9]+)?%$", "25%");

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Size {
    bytes: u64,
}

impl Size {
    /// The size in bytes.
    pub const fn as_bytes(self) -> u64 {
        self.bytes
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, scale) in [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
            if self.bytes > 0 && self.bytes.is_multiple_of(scale) {
                return write!(f, "{}{unit}", self.bytes / scale);
            }
        }
        write!(f, "{}B", self.bytes)
    }
}

impl FromStr for Size {
    type Err = ScalarError;

    fn from_str(text: &str) -> Result<Self, ScalarError> {
        let bytes = with_unit(
            text,
            &[
                ("B", 1.0),
                ("kB", 1e3),
                ("MB", 1e6),
                ("GB", 1e9),
                ("KiB", 1024.0),
                ("MiB", 1_048_576.0),
                ("GiB", 1_073_741_824.0),
            ],
        )
        .ok_or_else(|| {
            ScalarError::new(
                format!("`{text}` is not a size"),
                "write a number and a unit without a space: `512B`, `8KiB`, `4MiB`, `10kB`, `1MB`",
            )
        })?;
        Ok(Self { bytes: bytes.round() as u64 })
    }
}

text_scalar!(
    Size,
    "size",
    "A number of bytes: `B`, `kB`, `MB`, `GB` count in thousands, `KiB`, `MiB`, `GiB` in 1024s.",
    r"^[0-9]+(\.[0-9]+)?(B|kB|MB|GB|KiB|MiB|GiB)$",
    "8KiB"
);

/// What a medium carries in a second, kept in bits per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct DataRate {
    bits_per_s: u64,
}

impl DataRate {}

impl fmt::Display for DataRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, scale) in [("Gbit/s", 1_000_000_000), ("Mbit/s", 1_000_000), ("kbit/s", 1000)] {
            if self.bits_per_s > 0 && self.bits_per_s.is_multiple_of(scale) {
                return write!(f, "{}{unit}", self.bits_per_s / scale);
            }
        }
        write!(f, "{}bit/s", self.bits_per_s)
    }
}

impl FromStr for DataRate {
    type Err = ScalarError;

    fn from_str(text: &str) -> Result<Self, ScalarError> {
        let bits = with_unit(
            text,
            &[
                ("bit/s", 1.0),
                ("kbit/s", 1e3),
                ("Mbit/s", 1e6),
                ("Gbit/s", 1e9),
                ("B/s", 8.0),
                ("kB/s", 8e3),
                ("MB/s", 8e6),
            ],
        )
        .ok_or_else(|| {
            ScalarError::new(
                format!("`{text}` is not a data rate"),
                "write a number and a unit without a space: `250kbit/s`, `6Mbit/s`, `11520B/s`",
            )
        })?;
        Ok(Self { bits_per_s: bits.round() as u64 })
    }
}

text_scalar!(
    DataRate,
    "data rate",
    "What a medium carries in a second: `bit/s`, `kbit/s`, `Mbit/s`, `Gbit/s`, `B/s`, `kB/s`, `MB/s`.",
    r"^[0-9]+(\.[0-9]+)?(bit/s|kbit/s|Mbit/s|Gbit/s|B/s|kB/s|MB/s)$",
    "6Mbit/s"
);

/// Reads `NUMBERUNIT` with one of the given units; `None` for anything else, also for sums
/// beyond 2^53, which no longer count single bytes.
fn with_unit(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(split);
    let scale = units.iter().find(|(name, _)| *name == unit)?.1;
    let value = number.parse::<f64>().ok().filter(|_| is_decimal(number))? * scale;
    (value <= 9_007_199_254_740_992.0).then_some(value)
}

/// A property of a twin by feature and name, written `feature/property`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PropertyPath {
    /// The feature's id.
    pub feature: String,
    /// The property's name; further slashes reach into an object.
    pub property: String,
}

impl fmt::Display for PropertyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.feature, self.property)
    }
}

impl FromStr for PropertyPath {
    type Err = ScalarError;

    fn from_str(text: &str) -> Result<Self, ScalarError> {
        match text.split_once('/') {
            Some((feature, property))
                if !feature.is_empty()
                    && property.split('/').all(|part| !part.is_empty())
                    && !text.contains(|c: char| c.is_control() || c.is_whitespace()) =>
            {
                Ok(Self { feature: feature.to_owned(), property: property.to_owned() })
            }
            _ => Err(ScalarError::new(
                format!("`{text}` is not a property of a twin"),
                "write the feature and the property: `environment/temperature`",
            )),
        }
    }
}

text_scalar!(
    PropertyPath,
    "property path",
    "A property of a twin, written `feature/property`.",
    r"^[^/\s]+(/[^/\s]+)+$",
    "environment/temperature"
);

/// A unit of measurement, by its UCUM code or its SenML name (RFC 8428, RFC 8798).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Unit(String);

impl Unit {}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Units that are common on an edge, with what each means; the list that `explain TwinModel` refers
/// to and editors complete. Any other UCUM code is taken, too (`base::ucum`).
pub const UNITS: &[(&str, &str)] = &[
    ("%", "percent"),
    ("%EL", "percent, remaining battery energy"),
    ("%RH", "percent, relative humidity"),
    ("/", "ratio, 0 to 1"),
    ("/min", "events per minute"),
    ("1", "plain number"),
    ("A", "ampere"),
    ("Bq", "becquerel"),
    ("Bspl", "bel, sound pressure level"),
    ("Cel", "degree Celsius"),
    ("EL", "seconds of battery left"),
    ("Gy", "gray"),
    ("Hz", "hertz"),
    ("J", "joule"),
    ("K", "kelvin"),
    ("L", "litre"),
    ("L/h", "litre per hour"),
    ("L/min", "litre per minute"),
    ("L/s", "litre per second"),
    ("MHz", "megahertz"),
    ("MPa", "megapascal"),
    ("MW", "megawatt"),
    ("N", "newton"),
    ("Ohm", "ohm"),
    ("Pa", "pascal"),
    ("S/m", "siemens per metre"),
    ("Sv", "sievert"),
    ("T", "tesla"),
    ("V", "volt"),
    ("[degF]", "degree Fahrenheit"),
    ("[psi]", "pound per square inch"),
    ("VA", "volt-ampere"),
    ("VAs", "volt-ampere second"),
    ("W", "watt"),
    ("W/m2", "watt per square metre"),
    ("Wh", "watt hour"),
    ("bar", "bar"),
    ("beat/m", "heart beats per minute"),
    ("beats", "heart beats"),
    ("bit", "bit"),
    ("bit/s", "bits per second"),
    ("By", "byte"),
    ("By/s", "bytes per second"),
    ("cd", "candela"),
    ("cd/m2", "candela per square metre"),
    ("cm", "centimetre"),
    ("count", "counter value"),
    ("dB", "decibel"),
    ("dBm", "decibel-milliwatt"),
    ("dBW", "decibel-watt"),
    ("deg", "angular degree"),
    ("deg/s", "angular degrees per second"),
    ("g", "gram"),
    ("g/L", "gram per litre"),
    ("g/m3", "gram per cubic metre"),
    ("gn", "standard gravity, 9.80665 m/s2"),
    ("h", "hour"),
    ("hPa", "hectopascal"),
    ("kHz", "kilohertz"),
    ("kPa", "kilopascal"),
    ("kV", "kilovolt"),
    ("kW", "kilowatt"),
    ("kWh", "kilowatt hour"),
    ("kg", "kilogram"),
    ("km", "kilometre"),
    ("km/h", "kilometre per hour"),
    ("kohm", "kilo-ohm"),
    ("l", "litre"),
    ("l/min", "litre per minute"),
    ("l/s", "litre per second"),
    ("lat", "degrees latitude, WGS 84"),
    ("lm", "lumen"),
    ("lon", "degrees longitude, WGS 84"),
    ("lx", "lux"),
    ("m", "metre"),
    ("m/s", "metre per second"),
    ("m/s2", "metre per second squared"),
    ("m2", "square metre"),
    ("m3", "cubic metre"),
    ("m3/h", "cubic metre per hour"),
    ("m3/s", "cubic metre per second"),
    ("mA", "milliampere"),
    ("mS/cm", "millisiemens per centimetre"),
    ("mbar", "millibar"),
    ("mV", "millivolt"),
    ("mW", "milliwatt"),
    ("mg", "milligram"),
    ("mg/L", "milligram per litre"),
    ("mg/dL", "milligram per decilitre"),
    ("min", "minute"),
    ("mm", "millimetre"),
    ("mm/h", "millimetre per hour"),
    ("mm/s", "millimetre per second"),
    ("mmHg", "millimetre of mercury"),
    ("mol", "mole"),
    ("mol/L", "mole per litre"),
    ("ms", "millisecond"),
    ("pH", "acidity"),
    ("ppb", "parts per billion"),
    ("ppm", "parts per million"),
    ("rad", "radian"),
    ("rad/s", "radian per second"),
    ("rpm", "revolutions per minute"),
    ("s", "second"),
    ("uS/cm", "microsiemens per centimetre"),
    ("ug/m3", "microgram per cubic metre"),
    ("um", "micrometre"),
    ("us", "microsecond"),
    ("var", "reactive power"),
];

/// Spellings that people use for a known unit.
const UNIT_ALIASES: &[(&str, &str)] = &[
    ("C", "Cel"),
    ("°C", "Cel"),
    ("degC", "Cel"),
    ("celsius", "Cel"),
    ("F", "[degF]"),
    ("°F", "[degF]"),
    ("degF", "[degF]"),
    ("fahrenheit", "[degF]"),
    ("psi", "[psi]"),
    ("µS/cm", "uS/cm"),
    ("l/m", "L/min"),
    ("lpm", "L/min"),
    ("m3h", "m3/h"),
    ("m³/h", "m3/h"),
    ("m³", "m3"),
    ("m²", "m2"),
    ("RH", "%RH"),
    ("rh", "%RH"),
    ("percent", "%"),
    ("lux", "lx"),
    ("lumen", "lm"),
    ("volt", "V"),
    ("amp", "A"),
    ("watt", "W"),
    ("ohm", "Ohm"),
    ("Ω", "Ohm"),
    ("bpm", "beat/m"),
    ("sec", "s"),
    ("µg/m3", "ug/m3"),
    ("µm", "um"),
    ("°", "deg"),
    ("g-force", "gn"),
    ("kelvin", "K"),
    ("metre", "m"),
    ("meter", "m"),
    ("decibel", "dB"),
];

impl FromStr for Unit {
    type Err = ScalarError;

    fn from_str(text: &str) -> Result<Self, ScalarError> {
        if UNITS.iter().any(|(code, _)| *code == text) {
            return Ok(Self(text.to_owned()));
        }
        let lower = text.to_lowercase();
        let alias = UNIT_ALIASES
            .iter()
            .find(|(alias, _)| alias.to_lowercase() == lower)
            .map(|(_, code)| *code);
        // `C` and `F` are coulomb and farad in UCUM, and never meant.
        if alias.is_none() && super::ucum::is_unit(text) {
            return Ok(Self(text.to_owned()));
        }
        let same_letters =
            UNITS.iter().map(|(code, _)| *code).find(|code| code.to_lowercase() == lower);
        let guess =
            alias.or(same_letters).or_else(|| suggest(text, UNITS.iter().map(|(code, _)| *code)));
        let help = match guess {
            Some(guess) => format!("did you mean `{guess}`? units are UCUM codes or SenML names"),
            None => "units are UCUM codes or SenML names, such as `Cel`, `%RH`, `lx`, `dB`, `ppm`"
                .to_owned(),
        };
        Err(ScalarError::new(format!("`{text}` is not a known unit"), help))
    }
}

impl Serialize for Unit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Unit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Unit {
    fn schema_name() -> Cow<'static, str> {
        "Unit".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let codes: Vec<&str> = UNITS.iter().map(|(code, _)| *code).collect();
        json_schema!({
            "type": "string",
            "description": "A unit of measurement: a UCUM code or SenML name, such as `Cel`, `%RH`, `dB`, `lx`.",
            "examples": codes,
            "x-scalar": "unit",
        })
    }
}

/// How much a value must change before it is worth a message: in the property's unit, or a
/// share of the range that the model gives it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Deadband {
    /// In the property's unit.
    Absolute(f64),
    /// Of `maximum - minimum` in the model.
    OfRange(Percent),
}

impl Serialize for Deadband {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Absolute(value) => serializer.serialize_f64(*value),
            Self::OfRange(percent) => percent.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Deadband {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(f64),
            Text(Percent),
        }
        Ok(match Written::deserialize(deserializer)? {
            Written::Number(value) => Self::Absolute(value),
            Written::Text(percent) => Self::OfRange(percent),
        })
    }
}

impl JsonSchema for Deadband {
    fn schema_name() -> Cow<'static, str> {
        "Deadband".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["number", "string"],
            "description": "A change in the property's unit, such as `0.5`, or a share of the model's range, such as `2%`.",
            "minimum": 0,
            "pattern": r"^[0-9]+(\.[0-9]+)?%$",
            "x-scalar": "percent",
            "examples": [0.5, "2%"],
        })
    }
}

/// Checks text against the scalar that a schema names in `x-scalar`.
///
/// # Errors
/// [`ScalarError`] with the words for the user; unknown names accept anything.
pub fn check(scalar: &str, text: &str) -> Result<(), ScalarError> {
    match scalar {
        "duration" => text.parse::<Duration>().map(drop),
        "percent" => text.parse::<Percent>().map(drop),
        "size" => text.parse::<Size>().map(drop),
        "data rate" => text.parse::<DataRate>().map(drop),
        "property path" => text.parse::<PropertyPath>().map(drop),
        "unit" => text.parse::<Unit>().map(drop),
        "digest" => match text.strip_prefix("sha256:") {
            Some(digits)
                if digits.len() == 64
                    && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) =>
            {
                Ok(())
            }
            _ => Err(ScalarError::new(
                format!("`{text}` is not a digest"),
                "write `sha256:` and 64 hexadecimal digits in lower case, as `sha256sum FILE` prints them",
            )),
        },
        "url" => {
            let schemes = ["http://", "https://", "mqtt://", "mqtts://"];
            let rest = schemes.iter().find_map(|scheme| text.strip_prefix(scheme));
            match rest {
                Some(rest) if !rest.is_empty() && !text.contains(char::is_whitespace) => Ok(()),
                _ => Err(ScalarError::new(
                    format!("`{text}` is not an address"),
                    "write `https://HOST/PATH` or `mqtts://HOST:PORT`",
                )),
            }
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_has_one_spelling() {
        for (text, ms) in [
            ("10s", 10_000),
            ("250ms", 250),
            ("1.5s", 1500),
            ("1h30m", 5_400_000),
            ("0s", 0),
            ("2d", 172_800_000),
        ] {
            assert_eq!(text.parse::<Duration>().unwrap().as_ms(), ms, "{text}");
        }
        for text in [
            "10 s", "10sec", "10", "", "s", "-1s", "1s1s", "1s2m", "1.s", "0.0001ms", "99999d",
            "1e3s", "1..5s",
        ] {
            assert!(text.parse::<Duration>().is_err(), "{text}");
        }
    }

    #[test]
    fn wrong_duration_names_the_right_one() {
        for (text, guess) in
            [("10 s", "`10s`"), ("10sec", "`10s`"), ("5 minutes", "`5m`"), ("10", "`10s`")]
        {
            let error = text.parse::<Duration>().unwrap_err();
            assert!(error.help.contains(guess), "{error}");
        }
    }

    #[test]
    fn scalars_print_as_they_are_read() {
        for text in ["10s", "250ms", "5m", "2h", "1d", "0s"] {
            assert_eq!(text.parse::<Duration>().unwrap().to_string(), text);
        }
        assert_eq!("25%".parse::<Percent>().unwrap().to_string(), "25%");
        assert_eq!("8KiB".parse::<Size>().unwrap().to_string(), "8KiB");
        assert_eq!("6Mbit/s".parse::<DataRate>().unwrap().to_string(), "6Mbit/s");
        assert_eq!("11520B/s".parse::<DataRate>().unwrap().to_string(), "92160bit/s");
    }

    #[test]
    fn shares_beyond_the_whole_are_refused() {
        for text in ["101%", "-1%", "5", "5 %", "%"] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
    }

    #[test]
    fn common_spellings_of_units_lead_to_the_code() {
        for (text, code) in [
            ("C", "Cel"),
            ("lux", "lx"),
            ("db", "dB"),
            ("cel", "Cel"),
            ("pa", "Pa"),
            ("Celsius", "Cel"),
        ] {
            let error = text.parse::<Unit>().unwrap_err();
            assert!(error.help.contains(&format!("`{code}`")), "{error}");
        }
        assert!("Cel".parse::<Unit>().is_ok());
    }

    #[test]
    fn units_of_ucum_are_taken_and_slips_are_not() {
        for text in [
            "L/min",
            "m3/h",
            "uS/cm",
            "mS/cm",
            "kHz",
            "[degF]",
            "umol/m2/s",
            "kW.h",
            "mm[Hg]",
            "m/s2",
            "10*3/uL",
            "GBy",
            "KiBy",
            "/h",
            "g.m-2",
            "1/s",
            "dB[SPL]",
            "[in_i]",
            "kg/(m.s2)",
            "mol{photons}",
        ] {
            assert_eq!(text.parse::<Unit>().map(|unit| unit.to_string()).as_deref(), Ok(text));
        }
        for text in [
            "C",
            "F",
            "Fahrenheit",
            "L/",
            "L//min",
            "min/x",
            "kmin",
            "m3 / h",
            "[degX]",
            "kg/(m",
            "",
            "s.",
            "m-",
            "mol{",
            "hours",
            "khz",
            "L/minute",
        ] {
            assert!(text.parse::<Unit>().is_err(), "{text}");
        }
    }
}
