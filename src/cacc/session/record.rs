//! What is stored of a session, so that it goes on after a restart.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::actuators::{ActuatorRecord, Actuators};
use super::overrides::TransmissionOverride;
use super::queue::CommandQueue;
use super::state::Session;
use super::transmission::{Delivery, Transmission};
use crate::cacc::cause::Cause;
use crate::cacc::command::{Command, Purpose};
use crate::cacc::decide::Decision;
use crate::cacc::decide::safety::Standing;
use crate::cacc::rule::{Asked, RuleState};
use crate::wire::Tx;

/// What is stored of a node.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionRecord {
    /// The twin's name.
    pub thing: String,
    decision: Option<Decision>,
    cause: Cause,
    user: Asked,
    #[serde(skip_serializing_if = "Standing::is_usual")]
    standing: Standing,
    /// As a list, since JSON has no pairs as keys.
    acts: Vec<(String, String, ActuatorRecord)>,
    last_id: u32,
    version: u32,
    /// The generation that is retained for it.
    #[serde(rename = "said")]
    retained: u32,
    settled: Option<(Arc<Tx>, Tx)>,
    given_up: Option<(u32, String)>,
    commands: Vec<Command>,
    /// The states of the rules about it.
    pub rules: BTreeMap<String, RuleState>,
}

impl Session {
    /// What is to be stored, if it changed since the last call.
    ///
    /// * `rules`: the states of the rules about it.
    pub fn take_record(
        &mut self,
        rules: impl FnOnce() -> BTreeMap<String, RuleState>,
    ) -> Option<SessionRecord> {
        if !std::mem::take(&mut self.unsaved) {
            return None;
        }
        let of = &self.transmission;
        Some(SessionRecord {
            thing: self.id.to_string(),
            decision: of.decision.clone(),
            cause: of.cause.clone(),
            user: self.overrides.asked.clone(),
            standing: self.standing(),
            acts: self.actuators.to_records(),
            last_id: self.commands.last_id(),
            version: of.version,
            retained: of.retained,
            settled: of.accepted.clone(),
            given_up: match &of.delivery {
                Delivery::GivenUp { generation, reason } => Some((*generation, reason.clone())),
                _ => None,
            },
            commands: self.commands.all().iter().cloned().collect(),
            rules: rules(),
        })
    }

    /// Goes on from what was stored.
    pub fn restore(&mut self, record: SessionRecord) {
        self.commands = CommandQueue::restore(record.commands, record.last_id);
        let delivery = match (self.commands.open_transmission(), record.given_up) {
            (Some(command), _) => Delivery::Commanded { command: command.id },
            (None, Some((generation, reason))) => Delivery::GivenUp { generation, reason },
            (None, None) => Delivery::Idle,
        };
        self.overrides = TransmissionOverride { asked: record.user, held: record.standing.held };
        self.battery_low = record.standing.low;
        self.actuators = Actuators::restore(record.acts, |(feature, name)| {
            let mut open = self.commands.open();
            let of = Purpose::Act(feature.clone(), name.clone());
            open.find(|one| one.purpose == of).map(|one| one.id)
        });
        self.transmission = Transmission {
            decision: record.decision,
            cause: record.cause,
            delivery,
            version: record.version,
            retained: record.retained,
            accepted: record.settled,
            ..Transmission::default()
        };
    }
}
