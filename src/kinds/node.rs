//! NodeProfile: what a sort of node is made of.
//!
//! Not here: what a board has (`firmware`), the node of one twin (`twin`).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::hardware::{ActuatorPart, BoardName, SensorPart};
use super::pending::{KindSpec, Pending};
use super::{Duration, Percent, PropertyPath, Size, Transmission};

/// The hardware of a kind of node: its board, sensors and actuators with their pins, transmission
/// programs, and memory. Firmware is generated from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeProfileSpec {
    /// The board.
    pub board: BoardName,
    /// How its nodes are connected to the edge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// The sensors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub sensors: Vec<SensorSpec>,
    /// The actuators.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub actuators: Vec<ActuatorSpec>,
    /// The battery, if the node measures it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub battery: Option<BatterySpec>,
    /// The transmission programs in the firmware. By default, all that fit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<String>,
    /// The default transmission of its nodes, to which they also return when their lease ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transmission: Option<Transmission>,
    /// How memory is divided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemorySpec>,
    /// How long a node goes without a message from the edge before it returns to its default
    /// transmission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Duration>,
    /// The Channels that it can use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<String>,
}

impl KindSpec for NodeProfileSpec {
    const PENDING: &'static [Pending] = &[
        Pending::Inside("transmission", Transmission::PENDING),
        Pending::field("channels", "nodes stay on the network that their firmware was made for"),
    ];
}

/// How a node reaches the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// MQTT over TCP, as WiFi boards do.
    Mqtt,
    /// Lines over a serial port, through the gateway.
    Serial,
}

/// One sensor of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SensorSpec {
    /// The part. `edgetwin explain parts` lists them with what they measure.
    #[serde(rename = "type")]
    pub part: SensorPart,
    /// The pin that it is connected to, as printed on the board: `A0`, `2`, `GPIO34`. A part on the
    /// I2C bus has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
    /// The twin property that it measures, for a part with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub property: Option<PropertyPath>,
    /// The twin properties that it measures, by quantity, for a part with several:
    /// `{temperature: environment/temperature, humidity: environment/humidity}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, PropertyPath>,
    /// The time between samples, if it differs from the part's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<Duration>,
    /// How a raw value becomes one in the property's unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// The I2C address, where the part has another one than usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 3, max = 119))]
    pub address: Option<u8>,
}

/// A pin as printed on the board: a number, or a name such as `A0` or `GPIO34`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Pin {
    /// A pin by number.
    Number(u8),
    /// A pin by name.
    Name(String),
}

/// How a raw value becomes one in the property's unit: `value = raw * scale + offset`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Calibration {
    /// Factor.
    #[serde(default = "unit_scale")]
    pub scale: f64,
    /// Added after the factor.
    #[serde(default)]
    pub offset: f64,
    /// Thermistor: the beta coefficient, K.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beta: Option<f64>,
}

/// One actuator of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ActuatorSpec {
    /// The part. `edgetwin explain parts` lists them.
    #[serde(rename = "type")]
    pub part: ActuatorPart,
    /// The pin that it is connected to, as printed on the board.
    pub pin: Pin,
    /// The twin property that sets it.
    pub property: PropertyPath,
    /// The value that it takes when contact with the edge is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safe: Option<Value>,
}

/// A node's battery, measured at an analog pin. Nodes report the remaining charge in percent,
/// interpolated linearly between `emptyVolts` and `fullVolts`; rules read it as `node.battery`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BatterySpec {
    /// The analog pin that it is connected to, as printed on the board: `A3`, `GPIO35`.
    pub pin: Pin,
    /// Its voltage when it is empty, in volts: 3.3 for a lithium cell.
    #[schemars(range(min = 0, max = 100))]
    pub empty_volts: f64,
    /// Its voltage when it is full, in volts: 4.2 for a lithium cell.
    #[schemars(range(min = 0, max = 100))]
    pub full_volts: f64,
    /// The ratio of a voltage divider in front of the pin: (R1 + R2) / R2, which is 2 with two equal
    /// resistors. By default there is no divider.
    #[serde(default = "unit_scale")]
    #[schemars(range(min = 1, max = 100))]
    pub divider: f64,
    /// The charge below which the node is low on battery; `15%` by default.
    #[serde(default = "low_default")]
    pub low: Percent,
}

/// How a node's memory is divided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemorySpec {
    /// The number of readings that the node keeps while it is disconnected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub ring: Option<u32>,
    /// RAM left free for the stack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve: Option<Size>,
}

const fn unit_scale() -> f64 {
    1.0
}

const fn low_default() -> Percent {
    Percent::new(15.0)
}
