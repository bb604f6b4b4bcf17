//! Scenarios: who takes part, what they measure, and when things go wrong.
//!
//! Not here: the simulation (`simulate`).

use super::checker::Checker;
use crate::kinds::Kind;
use crate::kinds::ScenarioSpec;
use crate::manifest::diagnostic::Code;

impl Checker<'_, '_> {
    pub(super) fn scenario(&mut self, scenario: &ScenarioSpec) {
        for (at, channel) in scenario.channels.iter().enumerate() {
            let at = at.to_string();
            self.reference(Kind::Channel, channel, &["spec", "channels", &at]);
        }
        for (at, nodes) in scenario.nodes.iter().enumerate() {
            let at = at.to_string();
            self.members(&nodes.twins, &["spec", "nodes", &at, "twins"]);
            if nodes.trace.is_some() == nodes.generator.is_some() {
                let message = "these nodes need either a `trace` or a `generator`".to_owned();
                self.error(Code::Contradiction, &["spec", "nodes", &at], message);
            }
            if let Some(channel) = &nodes.channel {
                self.reference(Kind::Channel, channel, &["spec", "nodes", &at, "channel"]);
            }
        }
        for (at, fault) in scenario.faults.iter().enumerate() {
            let at = at.to_string();
            if let Some(channel) = &fault.channel {
                self.reference(Kind::Channel, channel, &["spec", "faults", &at, "channel"]);
            }
            if let Some(twins) = &fault.twins {
                self.members(twins, &["spec", "faults", &at, "twins"]);
            }
            if fault.at > scenario.duration {
                let message = format!(
                    "this starts at {}, after the scenario ends at {}",
                    fault.at, scenario.duration
                );
                self.error(Code::OutOfRange, &["spec", "faults", &at, "at"], message);
            }
        }
    }
}
