//! TwinModel: the features and properties of a kind of twin.
//!
//! Not here: readings against it (`node`).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Unit;
use super::default::yes;
use super::pending::{KindSpec, Pending, Values};
use crate::base::text::list_words;

/// The features and properties of a kind of twin, with types, units and ranges. A subset of a W3C
/// WoT Thing Model. Readings are checked against it, and firmware takes its C++ types from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TwinModelSpec {
    /// A description of these twins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The features by id.
    pub features: BTreeMap<String, FeatureModel>,
}

impl KindSpec for TwinModelSpec {
    const PENDING: &'static [Pending] = &[Pending::Field(
        "features.*.properties.*.observable",
        Values::Only(&["false"]),
        "the node sends it with the others",
    )];
}

/// A group of properties that belong together, such as `environment`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FeatureModel {
    /// A description of the feature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The properties by name.
    pub properties: BTreeMap<String, PropertyModel>,
}

/// A property: its type, its unit and the values that it can have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PropertyModel {
    /// The JSON type of the value.
    #[serde(rename = "type")]
    pub value_type: ValueType,
    /// The unit of a number: a UCUM code or SenML name, such as `Cel`, `%RH`, `dB`, `lx`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
    /// The minimum; a reading below it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum: Option<f64>,
    /// The maximum; a reading above it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum: Option<f64>,
    /// The values that a string may have.
    #[serde(default, rename = "enum", skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<String>>,
    /// True for a sensor; false for an actuator that a rule or a client may set.
    #[serde(default = "yes")]
    pub read_only: bool,
    /// Whether the node sends it by itself; false means that it has to be requested.
    #[serde(default = "yes")]
    pub observable: bool,
    /// A description of the property.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

impl PropertyModel {
    /// Why a value does not fit, as words that follow the property's name; none if it fits.
    pub fn misfit(&self, value: &Value) -> Option<String> {
        let fits = match self.value_type {
            ValueType::Number => value.is_number(),
            ValueType::Integer => value.is_i64() || value.is_u64(),
            ValueType::Boolean => value.is_boolean(),
            ValueType::String => value.is_string(),
            ValueType::Object => value.is_object(),
            ValueType::Array => value.is_array(),
        };
        if !fits {
            return Some(format!("is {} in its model, not `{value}`", self.value_type.name()));
        }
        if let Some(number) = value.as_f64() {
            if self.minimum.is_some_and(|minimum| number < minimum) {
                return Some(format!(
                    "is at least {}, not {value}",
                    self.minimum.unwrap_or_default()
                ));
            }
            if self.maximum.is_some_and(|maximum| number > maximum) {
                return Some(format!(
                    "is at most {}, not {value}",
                    self.maximum.unwrap_or_default()
                ));
            }
        }
        match (&self.values, value.as_str()) {
            (Some(words), Some(word)) if !words.iter().any(|known| known == word) => Some(format!(
                "is one of {}, not `{word}`",
                list_words(words.iter().map(String::as_str))
            )),
            _ => None,
        }
    }
}

impl TwinModelSpec {
    /// A property by feature and name.
    pub fn property(&self, feature: &str, name: &str) -> Option<&PropertyModel> {
        self.features.get(feature)?.properties.get(name)
    }

    /// The feature of a property that only one feature has; none if no feature or several have it.
    pub fn feature_of(&self, name: &str) -> Option<&str> {
        let mut found = self.features.iter().filter(|(_, of)| of.properties.contains_key(name));
        let (feature, _) = found.next()?;
        found.next().is_none().then_some(feature)
    }
}

/// The JSON type of a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ValueType {
    /// A decimal number.
    Number,
    /// A whole number.
    Integer,
    /// True or false.
    Boolean,
    /// Text.
    String,
    /// A JSON object.
    Object,
    /// A JSON array.
    Array,
}

impl ValueType {
    /// As written in a manifest.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Integer => "integer",
            Self::Boolean => "boolean",
            Self::String => "string",
            Self::Object => "object",
            Self::Array => "array",
        }
    }
}
