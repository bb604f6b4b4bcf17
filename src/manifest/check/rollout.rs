//! Rollouts: what is rolled out exists, and is one thing.
//!
//! Not here: waves and gates, which the schema shapes.

use super::checker::Checker;
use crate::kinds::Kind;
use crate::kinds::RolloutSpec;
use crate::manifest::diagnostic::Code;

impl Checker<'_, '_> {
    pub(super) fn rollout(&mut self, rollout: &RolloutSpec) {
        let firmware = rollout.profile.is_some();
        if firmware == (rollout.service.is_some() || rollout.model.is_some())
            || rollout.service.is_some() != rollout.model.is_some()
        {
            let message = format!(
                "{} needs either a `service` and its new `model`, or a `profile`",
                self.item.words()
            );
            self.key_error(Code::Contradiction, &["spec"], message);
        }
        for (kind, name, field) in [
            (Kind::Service, &rollout.service, "service"),
            (Kind::Model, &rollout.model, "model"),
            (Kind::NodeProfile, &rollout.profile, "profile"),
        ] {
            if let Some(name) = name {
                self.reference(kind, name, &["spec", field]);
            }
        }
    }
}
