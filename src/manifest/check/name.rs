//! Names and labels: what an object, its parts and its labels may be called.
//!
//! Not here: names that refer to something (`reference`).

use std::collections::BTreeMap;

use super::checker::Checker;
use crate::manifest::diagnostic::Code;

/// Longest object name; see [`Code::BadName`].
const NAME_LEN_MAX: usize = 128;

/// Longest thing id, Ditto's own limit.
const THING_ID_LEN_MAX: usize = 256;

impl Checker<'_, '_> {
    pub(super) fn metadata(&mut self) {
        let (namespace, name) = (self.item.namespace, self.item.name);
        self.object_name(name, &["metadata", "name"]);
        if !is_namespace(namespace) {
            let message = format!("`{namespace}` cannot be a namespace");
            self.error(Code::BadName, &["metadata", "namespace"], message).help.push(
                "start with a letter; then letters, digits and `_`; `.` and `-` join parts that start with a letter".to_owned(),
            );
        }
        if let Some(metadata) = self.item.metadata {
            self.labels(&metadata.labels, &["metadata", "labels"]);
        }
    }

    pub(super) fn object_name(&mut self, name: &str, path: &[&str]) {
        let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        let length = name.chars().count();
        let good =
            edge(name.chars().next()) && edge(name.chars().last()) && name.chars().all(inner);
        if !good || length > NAME_LEN_MAX {
            self.error(Code::BadName, path, format!("`{name}` cannot be a name"))
                .help
                .push(format!("use letters, digits, `.`, `_` and `-`, a letter or digit at both ends, at most {NAME_LEN_MAX}"));
        } else if self.item.namespace.len() + 1 + length > THING_ID_LEN_MAX {
            let message = format!(
                "namespace and name together are longer than {THING_ID_LEN_MAX} characters"
            );
            self.error(Code::BadName, path, message);
        }
    }

    pub(super) fn member_name(&mut self, name: &str, what: &str, path: &[&str]) {
        let first = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
        let inner = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
        if !first || !inner || name.len() > NAME_LEN_MAX {
            self.key_error(Code::BadName, path, format!("`{name}` cannot be the name of a {what}"))
                .help
                .push(
                    "start with a letter or `_`; then letters, digits, `_`, `-` and `.`".to_owned(),
                );
        }
    }

    pub(super) fn labels(&mut self, labels: &BTreeMap<String, String>, path: &[&str]) {
        for (key, value) in labels {
            if key.is_empty()
                || key.len() > 128
                || value.len() > 256
                || (key.clone() + value).contains(char::is_control)
                || key.contains('/')
            {
                let mut path = path.to_vec();
                path.push(key);
                self.key_error(Code::BadName, &path, format!("`{key}` cannot be a label"))
                    .help
                    .push(
                    "keys have 1 to 128 bytes and no `/`, values up to 256, neither with control characters"
                        .to_owned(),
                );
            }
        }
    }
}

/// Ditto's rule for namespaces: `[a-zA-Z]\w*([.-][a-zA-Z]\w*)*`.
fn is_namespace(text: &str) -> bool {
    !text.is_empty()
        && text.split(['.', '-']).all(|part| {
            part.starts_with(|c: char| c.is_ascii_alphabetic())
                && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        })
}
