//! What was decided for a node: taken up, and shown in its twin.

use serde_json::{Map, json};

use super::actuators::ActuatorChange;
use super::event::SessionEvent;
use super::presence::Presence;
use super::state::{Session, Turn};
use super::transmission::tx_json;
use crate::cacc::cause::{Cause, Source};
use crate::cacc::decide::safety::Safety;
use crate::cacc::decide::{Decided, Layer, Winner};
use crate::cacc::effects::FeatureEdit;
use crate::cacc::facts::TRANSMISSION;

impl Session {
    /// Takes a decision, and shows what is desired in the twin, if the twin does not show it already.
    ///
    /// * `decided`: `None` where the last decision stays.
    /// * `layers`: the active rules, the strongest first.
    /// * `source`: what led to the state of a rule.
    pub fn decide(
        &mut self,
        decided: Option<Decided>,
        layers: &[Layer<'_>],
        source: impl Fn(&str) -> Option<Source>,
        turn: &mut Turn<'_>,
    ) {
        let before = self.transmission.decision.as_ref();
        let safety = before.and_then(|before| before.safety);
        let mut changed = false;
        if let Some(Decided { decision, by }) = decided {
            changed = before.map(|one| one.generation) != Some(decision.generation)
                || before.is_some_and(|one| one.schedule != decision.schedule);
            self.unsaved |= !before.is_some_and(|before| before.is_same(&decision));
            if changed {
                let source = match &by {
                    Winner::Rule(name) => source(name),
                    Winner::User => turn.twin.map(|twin| Source {
                        thing: twin.id.clone(),
                        revision: twin.revision,
                        time_us: twin.modified_us,
                    }),
                    Winner::Hold | Winner::Default => None,
                };
                let trace = match &source {
                    Some(source) => source.trace(),
                    None => self.transmission.cause.trace.clone(),
                };
                self.transmission.decided(Cause { by: by.to_string(), trace }, source);
            }
            self.transmission.decision = Some(decision);
        }
        if self.transmission.decision.is_none() {
            return;
        }
        let actuators = self.actuators.decide(&self.spec, layers);
        self.show_desired(&actuators, turn);
        if changed {
            self.retain(turn);
        }
        let now = self.transmission.decision.as_ref().and_then(|decision| decision.safety);
        if now != safety {
            self.events.push(SessionEvent::SafetyChanged(now));
            self.show_reported(turn);
        }
    }

    /// Shows in the twin what is desired of the transmission and the actuators.
    fn show_desired(&mut self, actuators: &[ActuatorChange], turn: &mut Turn<'_>) {
        let Some(decision) = &self.transmission.decision else { return };
        let twin = turn.twin;
        let shown =
            |feature: &str| twin.and_then(|twin| twin.features.get(feature)?.desired.as_ref());
        turn.pending.clear_desired(&self.id);
        let mut value = tx_json(&decision.tx, decision.schedule);
        value.insert("generation".to_owned(), decision.generation.into());
        if self.overrides.held {
            value.insert("hold".to_owned(), true.into());
        }
        if shown(TRANSMISSION) != Some(&value) {
            turn.pending.edit(FeatureEdit {
                thing: self.id.clone(),
                feature: TRANSMISSION.to_owned(),
                desired: true,
                value,
                merge: false,
            });
        }
        for ActuatorChange { key: (feature, name), before, wanted } in actuators {
            self.unsaved |= before != wanted;
            let is = shown(feature).and_then(|desired| desired.get(name));
            if is != wanted.as_ref() && (before.is_some() || wanted.is_some()) {
                turn.pending.edit(FeatureEdit {
                    thing: self.id.clone(),
                    feature: feature.clone(),
                    desired: true,
                    value: Map::from_iter([(name.clone(), json!(wanted))]),
                    merge: true,
                });
            }
        }
    }

    /// Retains what is desired of a node that is not online, where it finds that when it comes back.
    pub(super) fn retain(&mut self, turn: &mut Turn<'_>) {
        let needed = self.presence != Presence::Online && self.takes_commands();
        if let Some(text) = self.transmission.retain(needed) {
            self.unsaved = true;
            turn.pending.retain(&self.id, text);
        }
    }

    /// Shows in the twin how the node transmits, and whether it is online.
    pub fn show_reported(&self, turn: &mut Turn<'_>) {
        let Some(twin) = turn.twin else { return };
        let of = &self.transmission;
        let reported = of.reported.as_ref();
        let mut map = reported.map_or_else(Map::new, |tx| tx_json(tx, None));
        map.insert("online".to_owned(), (self.presence == Presence::Online).into());
        if of.decision.as_ref().is_some_and(|one| one.safety == Some(Safety::Quarantined)) {
            // Its values are kept; whoever reads them is to know.
            map.insert("quarantined".to_owned(), true.into());
        }
        if let Some(boot) = self.boot {
            map.insert("boot".to_owned(), boot.into());
        }
        if self.speaks {
            map.insert("lease".to_owned(), self.lease_s.into());
            map.insert("version".to_owned(), of.version.into());
        }
        if let Some(command) = self.commands.applied_transmission() {
            map.insert("command".to_owned(), json!(command.id));
            map.insert("trace".to_owned(), json!(command.cause.trace));
        }
        turn.pending.clear_reported(&self.id, TRANSMISSION);
        let shown = twin.features.get(TRANSMISSION).and_then(|f| f.properties.as_ref());
        if shown != Some(&map) {
            turn.pending.edit(FeatureEdit {
                thing: self.id.clone(),
                feature: TRANSMISSION.to_owned(),
                desired: false,
                value: map,
                merge: false,
            });
        }
    }
}
