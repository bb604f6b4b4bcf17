//! Labels, and what selects by them. Pure.
//!
//! The labels of a twin are its attribute `labels`: an object of words. Whoever writes it, a
//! manifest or a client, decides what selects the twin.

use std::collections::BTreeMap;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::thing::Twin;
use crate::base::units::ScalarError;

/// One condition on a label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LabelExpression {
    /// The label's key.
    pub key: String,
    /// How the label is compared.
    pub operator: LabelOperator,
    /// The values of `In` and `NotIn`; none for the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LabelOperator {
    /// The label has one of the values.
    In,
    /// The label is absent or has none of the values.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is not there.
    DoesNotExist,
}

/// Whether labels satisfy both a map of equal labels and a list of conditions. Nothing asked
/// for selects nothing.
pub fn labels_match(
    labels: &BTreeMap<String, String>,
    equal: &BTreeMap<String, String>,
    expressions: &[LabelExpression],
) -> bool {
    satisfied(|key| labels.get(key).map(String::as_str), equal, expressions)
}

/// Whether the labels of a twin satisfy both; see [`labels_match`].
pub fn twin_matches(
    twin: &Twin,
    equal: &BTreeMap<String, String>,
    expressions: &[LabelExpression],
) -> bool {
    let labels = twin.attributes.as_deref().and_then(|map| map.get("labels")?.as_object());
    satisfied(|key| labels?.get(key)?.as_str(), equal, expressions)
}

fn satisfied<'a>(
    label: impl Fn(&str) -> Option<&'a str>,
    equal: &BTreeMap<String, String>,
    expressions: &[LabelExpression],
) -> bool {
    if equal.is_empty() && expressions.is_empty() {
        return false;
    }
    equal.iter().all(|(key, value)| label(key) == Some(value))
        && expressions.iter().all(|expression| {
            let value = label(&expression.key);
            let listed =
                value.is_some_and(|value| expression.values.iter().any(|other| other == value));
            match expression.operator {
                LabelOperator::In => listed,
                LabelOperator::NotIn => !listed,
                LabelOperator::Exists => value.is_some(),
                LabelOperator::DoesNotExist => value.is_none(),
            }
        })
}

/// A selector as typed: `room=north,floor!=2,zone in (a, b),app`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector {
    equal: BTreeMap<String, String>,
    expressions: Vec<LabelExpression>,
}

impl Selector {
    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.equal.is_empty() && self.expressions.is_empty()
    }

    /// Whether labels satisfy all of it.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.is_empty() || labels_match(labels, &self.equal, &self.expressions)
    }
}

impl FromStr for Selector {
    type Err = ScalarError;

    fn from_str(text: &str) -> Result<Self, ScalarError> {
        let mut selector = Self::default();
        for part in split(text) {
            let part = part.trim();
            if part.is_empty() {
                continue;
            }
            let wrong = || {
                ScalarError {
                message: format!("`{part}` selects no label"),
                help: "write `key=value`, `key!=value`, `key in (a, b)`, `key notin (a, b)`, `key` or `!key`".to_owned(),
            }
            };
            let mut push = |key: &str, operator, values: Vec<String>| {
                let key = key.trim();
                if key.is_empty() || key.contains(char::is_whitespace) {
                    return Err(wrong());
                }
                selector.expressions.push(LabelExpression {
                    key: key.to_owned(),
                    operator,
                    values,
                });
                Ok(())
            };
            let list = |values: &str| -> Option<Vec<String>> {
                let values = values.trim().strip_prefix('(')?.strip_suffix(')')?;
                Some(values.split(',').map(|value| value.trim().to_owned()).collect())
            };
            if let Some((key, value)) = part.split_once("!=") {
                push(key, LabelOperator::NotIn, vec![value.trim().to_owned()])?;
            } else if let Some((key, value)) = part.split_once("==").or(part.split_once('=')) {
                push(key, LabelOperator::In, vec![value.trim().to_owned()])?;
            } else if let Some((key, values)) = part.split_once(" notin ") {
                push(key, LabelOperator::NotIn, list(values).ok_or_else(wrong)?)?;
            } else if let Some((key, values)) = part.split_once(" in ") {
                push(key, LabelOperator::In, list(values).ok_or_else(wrong)?)?;
            } else if let Some(key) = part.strip_prefix('!') {
                push(key, LabelOperator::DoesNotExist, Vec::new())?;
            } else {
                push(part, LabelOperator::Exists, Vec::new())?;
            }
        }
        Ok(selector)
    }
}

/// Splits at commas that are not inside parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_usize);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selects(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels =
            labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        selector.parse::<Selector>().unwrap().matches(&labels)
    }

    #[test]
    fn a_selector_means_what_kubectl_means_by_it() {
        let labels = [("room", "north"), ("floor", "2")];
        for (selector, expected) in [
            ("", true),
            ("room=north", true),
            ("room==north, floor=2", true),
            ("room=south", false),
            ("room!=south", true),
            ("zone!=a", true),
            ("room in (south, north),floor", true),
            ("room notin (south,north)", false),
            ("!room", false),
            ("!zone", true),
            ("zone", false),
        ] {
            assert_eq!(selects(selector, &labels), expected, "{selector}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for text in ["=a", "room in north", "a b", "! "] {
            assert!(text.parse::<Selector>().is_err(), "{text}");
        }
    }
}
