//! TwinModels: names, bounds, and what has no effect.
//!
//! Not here: Models that judge (`model`).

use super::checker::Checker;
use crate::base::text::list_words;
use crate::kinds::{FeatureModel, TwinModelSpec, ValueType};
use crate::manifest::diagnostic::Code;
use crate::wire::RESERVED;

impl Checker<'_, '_> {
    pub(super) fn twin_model(&mut self, model: &TwinModelSpec) {
        for (feature, FeatureModel { properties, .. }) in &model.features {
            self.member_name(feature, "feature", &["spec", "features", feature]);
            self.not_reserved(feature, &["spec", "features", feature]);
            for (name, property) in properties {
                let path = ["spec", "features", feature, "properties", name];
                self.member_name(name, "property", &path);
                self.not_reserved(name, &path);
                let at = |field: &'static str| [&path[..], &[field]].concat();
                if let (Some(minimum), Some(maximum)) = (property.minimum, property.maximum)
                    && minimum > maximum
                {
                    let message = format!(
                        "`{name}` of {} has its minimum {minimum} above its maximum {maximum}",
                        self.item.words()
                    );
                    self.error(Code::BadBounds, &at("maximum"), message);
                }
                let numeric = matches!(property.value_type, ValueType::Number | ValueType::Integer);
                for (given, field) in [
                    (property.minimum.is_some(), "minimum"),
                    (property.maximum.is_some(), "maximum"),
                    (property.unit.is_some(), "unit"),
                ] {
                    if given && !numeric {
                        let message = format!(
                            "`{name}` is {}, so its {field} has no effect",
                            property.value_type.name()
                        );
                        self.warning(Code::Unused, &at(field), message);
                    }
                }
                if property.values.is_some() && property.value_type != ValueType::String {
                    let message = format!(
                        "`{name}` is {}, so its `enum` has no effect",
                        property.value_type.name()
                    );
                    self.warning(Code::Unused, &at("enum"), message);
                }
            }
        }
    }

    /// Features and properties share a message with its own members.
    fn not_reserved(&mut self, name: &str, path: &[&str]) {
        if RESERVED.contains(&name) {
            let message = format!("`{name}` is reserved in a node's messages");
            self.key_error(Code::BadName, path, message)
                .help
                .push(format!("the reserved names are {}", list_words(RESERVED.iter().copied())));
        }
    }
}
