//! TwinModels: what readings of their twins are checked against.

use std::sync::Arc;

use crate::kinds::{Kind, Spec, TwinModelSpec, ValueType};
use crate::reconcile::key::ObjectKey;
use crate::reconcile::reconciler::Reconciler;
use crate::reconcile::working::lock;
use crate::wire::{NodeModel, PropertyRule, ValueKind};

impl Reconciler {
    /// The model that a reference means, as readings are checked against it.
    pub(super) fn node_model(
        &self,
        namespace: &str,
        name: &str,
    ) -> Option<(ObjectKey, Arc<NodeModel>)> {
        let (key, stored) = self.find(Kind::TwinModel, namespace, name)?;
        let mut models = lock(&self.working.node_models);
        if let Some((revision, made)) = models.get(&key)
            && *revision == stored.revision
        {
            return Some((key, made.clone()));
        }
        let Spec::TwinModel(model) = stored.object().ok()?.spec else { return None };
        let made = Arc::new(rules(&model));
        models.insert(key.clone(), (stored.revision, made.clone()));
        Some((key, made))
    }

    /// Forgets a deleted TwinModel.
    pub(super) fn remove_twin_model(&self, key: &ObjectKey) {
        lock(&self.working.node_models).remove(key);
    }
}

pub(super) fn rules(model: &TwinModelSpec) -> NodeModel {
    let features = model.features.iter().map(|(feature, of)| {
        let properties = of.properties.iter().map(|(name, property)| {
            let kind = match property.value_type {
                ValueType::Number => ValueKind::Number,
                ValueType::Integer => ValueKind::Integer,
                ValueType::Boolean => ValueKind::Boolean,
                ValueType::String => ValueKind::Text,
                ValueType::Object => ValueKind::Object,
                ValueType::Array => ValueKind::Array,
            };
            let (minimum, maximum) = (property.minimum, property.maximum);
            (name.clone(), PropertyRule { kind, minimum, maximum })
        });
        (feature.clone(), properties.collect())
    });
    NodeModel::new(features.collect())
}
