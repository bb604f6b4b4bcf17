//! Which objects are looked at again when others change.

use std::collections::HashSet;

use super::key::ObjectKey;
use super::reconciler::Reconciler;
use super::stored::Stored;
use crate::kinds::Kind;

impl Reconciler {
    /// Queues the objects that refer to objects that changed.
    pub(super) fn wake_dependents(&self, changed: &[ObjectKey]) {
        let names = |kind| -> HashSet<&str> {
            let of_kind = changed.iter().filter(|key| key.kind == kind);
            of_kind.map(|key| key.name.as_str()).collect()
        };
        let (twin_models, models, services) =
            (names(Kind::TwinModel), names(Kind::Model), names(Kind::Service));
        let twins = changed
            .iter()
            .any(|key| matches!(key.kind, Kind::Twin | Kind::TwinSet | Kind::TwinAggregate));
        let any = |kind| changed.iter().any(|key| key.kind == kind);
        let profiles = any(Kind::NodeProfile);
        let rules_refer = any(Kind::Service) || any(Kind::Channel);
        // References may be `NAMESPACE/NAME`; a wrong guess costs one look.
        let refers = |stored: &Stored, among: &HashSet<&str>| {
            stored.model().is_some_and(|name| {
                among.contains(name.split_once('/').map_or(name, |(_, name)| name))
            })
        };
        let wakes = |key: &ObjectKey, stored: &Stored| match key.kind {
            Kind::Twin | Kind::TwinSet => refers(stored, &twin_models) || profiles,
            Kind::TwinAggregate => twins && stored.names_members(),
            Kind::Service => refers(stored, &models) || services.contains(key.name.as_str()),
            Kind::ContextRule => rules_refer,
            _ => false,
        };
        let woken: Vec<ObjectKey> = {
            let objects = self.objects();
            let found = objects.iter().filter(|(key, stored)| wakes(key, stored));
            found.map(|(key, _)| key.clone()).collect()
        };
        woken.into_iter().for_each(|key| self.queue.add(key));
    }

    /// Artefacts came: Models that miss one are looked at again.
    pub(super) fn wake_models(&self) {
        let keys: Vec<ObjectKey> = {
            let objects = self.objects();
            let models = objects.keys().filter(|key| key.kind == Kind::Model);
            models.cloned().collect()
        };
        keys.into_iter().for_each(|key| self.queue.add(key));
    }
}
