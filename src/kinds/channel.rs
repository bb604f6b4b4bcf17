//! Channel: a medium and what it carries.
//!
//! Not here: who transmits on it (`transmission`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pending::{KindSpec, Pending};
use super::{DataRate, Percent};

/// A shared medium and its capacity, which all transmissions on it share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChannelSpec {
    /// The medium, which determines the cost of a message.
    pub medium: Medium,
    /// The capacity.
    pub capacity: DataRate,
    /// The share of the capacity that is kept free.
    #[serde(default = "reserve_default")]
    pub reserve: Percent,
    /// Other Channels that its nodes could move to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alternatives: Vec<String>,
    /// WiFi: the network's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssid: Option<String>,
    /// WiFi: the radio channel. LoRa: the number of the frequency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 255))]
    pub number: Option<u16>,
    /// LoRa: the spreading factor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 5, max = 12))]
    pub spreading_factor: Option<u8>,
    /// LoRa: the share of time in which a node may transmit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duty_cycle: Option<Percent>,
    /// The most commands per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub commands_per_second: Option<f64>,
}

impl KindSpec for ChannelSpec {
    const PENDING: &'static [Pending] = &[Pending::Kind("no link budget acts on it yet")];
}

/// A medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Medium {
    /// WiFi.
    Wifi,
    /// LoRa.
    Lora,
    /// A serial line.
    Serial,
    /// A wire.
    Ethernet,
}

const fn reserve_default() -> Percent {
    Percent::new(20.0)
}
