//! What is simulated: a node, its battery, and how fast time passes.

use std::sync::Arc;
use std::time::Duration;

use crate::firmware::Firmware;
use crate::twin::ThingId;

/// Samples between two faults of a node, on average: at one a second, an anomaly every quarter of
/// a minute somewhere among eight.
pub(super) const FAULT_GAP: u32 = 60;
/// Seconds of simulated time that pass in a second here, so that a day becomes visible.
pub(super) const SPEED: f64 = 30.0;
/// The simulation begins on a Monday at nine.
pub(super) const START_S: f64 = 9.0 * 3600.0;

/// How long a simulated battery lasts, simulated seconds.
pub(super) const BATTERY_S: f64 = 2.0 * 86_400.0;

/// What is left in a simulated node's battery, percent. They are not all charged at once, and one
/// that is empty is charged anew.
pub(super) fn battery(number: u32, elapsed: Duration) -> u8 {
    let gone = elapsed.as_secs_f64() * SPEED / BATTERY_S + f64::from(number % 10) / 20.0;
    100 - (gone.fract() * 100.0) as u8
}

/// One node to simulate.
#[derive(Debug, Clone, PartialEq)]
pub struct SimulatedNode {
    /// Its twin.
    pub thing: ThingId,
    /// The generator's channel of each of its sensors.
    pub channels: Vec<usize>,
    /// What it obeys.
    pub firmware: Arc<Firmware>,
    /// The firmware that is made of its profile, if it can run as a process here.
    pub image: Option<Arc<Firmware>>,
}
