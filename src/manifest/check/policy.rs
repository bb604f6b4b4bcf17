//! Policies: what their entries are about.
//!
//! Not here: subjects, which are taken as they are.

use super::checker::Checker;
use crate::kinds::PolicySpec;
use crate::manifest::diagnostic::Code;

impl Checker<'_, '_> {
    pub(super) fn policy(&mut self, policy: &PolicySpec) {
        for (entry, content) in &policy.entries {
            for resource in content.resources.keys() {
                let known = ["thing:/", "policy:/", "message:/"];
                if !known.iter().any(|prefix| resource.starts_with(prefix)) {
                    let path = ["spec", "entries", entry, "resources", resource];
                    self.key_error(Code::BadText, &path, format!("`{resource}` is not a resource"))
                        .help
                        .push("write `thing:/…`, `policy:/…` or `message:/…`".to_owned());
                }
            }
        }
    }
}
