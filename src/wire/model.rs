//! What the readings of a model's twins must look like.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::error::{PayloadError, ValueKind};

/// What a property of a model takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PropertyRule {
    /// Kind of value.
    pub kind: ValueKind,
    /// Least number.
    pub minimum: Option<f64>,
    /// Greatest number.
    pub maximum: Option<f64>,
}

/// What the twins of a model measure: properties by feature.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeModel {
    features: BTreeMap<String, BTreeMap<String, PropertyRule>>,
    /// The feature of each name that is in just one.
    short: HashMap<String, Option<String>>,
}

impl NodeModel {
    /// A model with these features.
    pub fn new(features: BTreeMap<String, BTreeMap<String, PropertyRule>>) -> Self {
        let mut short: HashMap<String, Option<String>> = HashMap::new();
        for (feature, properties) in &features {
            for property in properties.keys() {
                let only = short.entry(property.clone()).or_insert_with(|| Some(feature.clone()));
                if only.as_ref() != Some(feature) {
                    *only = None;
                }
            }
        }
        Self { features, short }
    }

    /// Properties by feature.
    pub fn features(&self) -> &BTreeMap<String, BTreeMap<String, PropertyRule>> {
        &self.features
    }

    /// The feature that holds a property of this name: `None` without such a property, `Some(None)`
    /// where several features have it.
    pub(super) fn feature_of(&self, property: &str) -> Option<Option<&str>> {
        self.short.get(property).map(Option::as_deref)
    }

    /// Whether a value may be written to a property.
    pub(super) fn check(
        &self,
        feature: &str,
        property: &str,
        value: &Value,
    ) -> Result<(), PayloadError> {
        let name = || format!("{feature}/{property}");
        let rule = self.features.get(feature).and_then(|properties| properties.get(property));
        let rule = rule.ok_or_else(|| PayloadError::Unknown(name()))?;
        let fits = match rule.kind {
            ValueKind::Number => value.is_number(),
            ValueKind::Integer => value.as_f64().is_some_and(|number| number.fract() == 0.0),
            ValueKind::Boolean => value.is_boolean(),
            ValueKind::Text => value.is_string(),
            ValueKind::Object => value.is_object(),
            ValueKind::Array => value.is_array(),
        };
        if !fits {
            return Err(PayloadError::Type(name(), rule.kind));
        }
        if let Some(number) = value.as_f64()
            && (rule.minimum.is_some_and(|least| number < least)
                || rule.maximum.is_some_and(|most| number > most))
        {
            return Err(PayloadError::Range(name(), number, rule.minimum, rule.maximum));
        }
        Ok(())
    }
}
