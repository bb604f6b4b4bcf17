//! A session: the state machines of one node, and what else is known of it.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::Value;

use super::actuators::Actuators;
use super::clock::NodeClock;
use super::event::SessionEvent;
use super::overrides::{FeatureOverride, TransmissionOverride, is_transmission};
use super::presence::{Presence, PresenceReason};
use super::queue::CommandQueue;
use super::transmission::Transmission;
use crate::cacc::command::Purpose;
use crate::cacc::decide::safety::{Safety, Standing, is_low};
use crate::cacc::decide::{Input, Layer, NodeSpec};
use crate::cacc::effects::Pending;
use crate::cacc::facts::{NodeStatus, TRANSMISSION};
use crate::twin::{ThingId, Twin};
use crate::wire::Tx;

/// The lease of a node that reports none, s.
pub const LEASE_DEFAULT_S: u32 = 60;

/// Properties that wait to be read; more are in the newest state anyway.
const READS_MAX: usize = 16;

/// What a session is worked on with.
#[derive(Debug)]
pub struct Turn<'a> {
    /// Now, microseconds since 1970.
    pub now_us: i64,
    /// The node's twin, once it is known.
    pub twin: Option<&'a Twin>,
    /// Where effects go.
    pub pending: &'a mut Pending,
}

/// What a node last reported of itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Health {
    /// Percent.
    pub battery: Option<u8>,
    /// dBm.
    pub rssi: Option<i16>,
    /// When it started, microseconds since 1970.
    pub started_us: Option<i64>,
}

/// See the module.
#[derive(Debug)]
pub struct Session {
    /// The twin's name.
    pub id: ThingId,
    /// What the manifest declares of it.
    pub spec: Arc<NodeSpec>,
    /// Whether it is online.
    pub presence: Presence,
    /// How it transmits.
    pub transmission: Transmission,
    /// What its actuators are to be.
    pub actuators: Actuators,
    /// The commands to it.
    pub commands: CommandQueue,
    /// What clients ask of the transmission.
    pub overrides: TransmissionOverride,
    /// What it last reported of itself.
    pub health: Health,
    pub(super) battery_low: bool,
    pub(super) clock: NodeClock,
    /// It has answered or sent its state: it knows the protocol, and silence means something.
    pub(super) speaks: bool,
    pub(super) boot: Option<u32>,
    pub(super) lease_s: u32,
    pub(super) last_seen_us: Option<i64>,
    pub(super) heartbeat_us: i64,
    /// Properties that are to be read once.
    pub(super) reads: VecDeque<String>,
    pub(super) unsaved: bool,
    pub(super) events: Vec<SessionEvent>,
    /// Something that a decision starts from changed.
    pub undecided: bool,
    /// When it is next to be looked at, microseconds since 1970.
    pub due_us: i64,
}

impl Session {
    /// A node of which nothing is known but its manifest.
    pub fn new(id: ThingId, spec: Arc<NodeSpec>) -> Self {
        Self {
            id,
            lease_s: if spec.lease_s > 0 { spec.lease_s } else { LEASE_DEFAULT_S },
            spec,
            presence: Presence::NeverSeen,
            transmission: Transmission::default(),
            actuators: Actuators::default(),
            commands: CommandQueue::default(),
            overrides: TransmissionOverride::default(),
            health: Health::default(),
            battery_low: false,
            clock: NodeClock::default(),
            speaks: false,
            boot: None,
            last_seen_us: None,
            heartbeat_us: 0,
            reads: VecDeque::new(),
            unsaved: false,
            events: Vec::new(),
            undecided: true,
            due_us: i64::MAX,
        }
    }

    /// The manifest declares something else of it.
    pub fn set_spec(&mut self, spec: Arc<NodeSpec>) {
        if self.spec != spec {
            self.lease_s = if spec.lease_s > 0 { spec.lease_s } else { self.lease_s };
            self.spec = spec;
            self.judge_battery();
        }
        self.undecided = true;
    }

    /// Its twin is known: what the node reported last is in it.
    pub fn set_twin(&mut self, twin: &Twin) {
        if self.transmission.reported.is_none() {
            let properties =
                twin.features.get(TRANSMISSION).and_then(|feature| feature.properties.clone());
            self.transmission.reported =
                properties.and_then(|map| serde_json::from_value::<Tx>(map.into()).ok());
        }
        self.undecided = true;
    }

    /// What safety needs to know.
    pub fn standing(&self) -> Standing {
        Standing { held: self.overrides.held, low: self.battery_low }
    }

    /// What a decision about it starts from.
    pub fn input<'a>(&'a self, active: Vec<Layer<'a>>) -> Input<'a> {
        Input {
            spec: &self.spec,
            user: &self.overrides.asked,
            active,
            standing: self.standing(),
            previous: self.transmission.decision.as_ref(),
        }
    }

    /// Whether time alone may change the decision: a raise waits, or the clock was set back.
    pub fn waits(&self, now_us: i64) -> bool {
        let decision = self.transmission.decision.as_ref();
        decision.is_some_and(|one| one.target.is_some() || one.changed_us > now_us)
    }

    /// What rules may read of it.
    pub fn status(&self) -> NodeStatus {
        let reported = self.transmission.reported.as_ref();
        NodeStatus {
            online: self.presence.as_fact(),
            battery: self.health.battery,
            rssi: self.health.rssi,
            program: reported.map(|tx| tx.program.clone()),
            started_us: self.health.started_us,
        }
    }

    /// Whether it may be a plain client that sends readings and knows no commands.
    pub fn is_mute(&self) -> bool {
        !self.speaks && self.transmission.reported.is_none()
    }

    /// Whether commands may be sent to it: a node without a profile gets none until it shows that it
    /// knows the protocol.
    pub fn takes_commands(&self) -> bool {
        self.spec.has_profile || !self.is_mute()
    }

    /// What happened since this was last called.
    pub fn take_events(&mut self) -> Vec<SessionEvent> {
        std::mem::take(&mut self.events)
    }

    /// What is stored is out of date.
    pub fn mark_unsaved(&mut self) {
        self.unsaved = true;
    }

    /// What was to be stored was not: it is to be stored, and shown, again.
    pub fn not_stored(&mut self, turn: &mut Turn<'_>) {
        self.unsaved = true;
        self.actuators.not_stored();
        if self.transmission.decision.is_some() {
            // Something may be retained for it.
            self.transmission.retained = self.transmission.retained.max(1);
            self.retain(turn);
        }
    }

    /// Properties that are to be read once.
    pub fn read_once(&mut self, properties: &[String]) {
        for property in properties {
            if self.reads.len() < READS_MAX && !self.reads.contains(property) {
                self.reads.push_back(property.clone());
            }
        }
    }

    /// Whether rules apply to it now.
    pub(super) fn follows_rules(&self) -> bool {
        let decision = self.transmission.decision.as_ref();
        let safety = decision.and_then(|decision| decision.safety);
        !matches!(safety, Some(Safety::Quarantined | Safety::Held))
    }

    /// A client wrote a feature's `desiredProperties`.
    pub fn set_override(&mut self, feature: &str, change: FeatureOverride) {
        let (map, whole) = match change {
            FeatureOverride::Removed => (serde_json::Map::new(), true),
            FeatureOverride::Whole(map) => (map, true),
            FeatureOverride::Part(map) => (map, false),
        };
        self.unsaved = true;
        self.undecided = true;
        if !is_transmission(feature) {
            self.actuators.set_overrides(feature, map, whole);
            return;
        }
        let unknown = self.overrides.write(map, whole);
        // What is written the second time is tried again.
        self.transmission.retry();
        if !unknown.is_empty() {
            self.events.push(SessionEvent::UnknownOverride(unknown));
        }
    }

    /// Takes what it reports of its battery and its radio.
    pub(super) fn set_health(&mut self, battery: Option<u8>, rssi: Option<i16>) {
        self.health.battery = battery.or(self.health.battery);
        self.health.rssi = rssi.or(self.health.rssi);
        self.judge_battery();
    }

    fn judge_battery(&mut self) {
        let low = is_low(self.battery_low, self.health.battery, self.spec.battery_low);
        if std::mem::replace(&mut self.battery_low, low) != low {
            self.unsaved = true;
            self.undecided = true;
        }
    }

    /// Its presence changes for a reason; whether it does.
    pub(super) fn step_presence(&mut self, reason: PresenceReason, now_us: i64) -> bool {
        let Some(presence) = self.presence.step(reason, now_us) else { return false };
        let returned = self.presence != Presence::NeverSeen;
        self.presence = presence;
        match presence {
            Presence::Online if returned => self.events.push(SessionEvent::CameBack),
            Presence::Offline { .. } => self.events.push(SessionEvent::WentOffline(reason)),
            _ => {}
        }
        true
    }

    /// Whether a command to an actuator is to be sent now.
    pub fn is_urgent(&self, twin: Option<&Twin>, now_us: i64) -> bool {
        !self.actuators.is_empty()
            && (twin.is_some_and(|twin| !self.actuators.due(twin).is_empty())
                || self.commands.open().any(|command| {
                    matches!(command.purpose, Purpose::Act(..)) && command.next_us <= now_us
                }))
    }

    /// The value of an actuator as the twin shows it.
    pub fn shown<'t>(twin: Option<&'t Twin>, feature: &str, name: &str) -> Option<&'t Value> {
        twin.and_then(|twin| twin.property_named(feature, name))
    }
}
