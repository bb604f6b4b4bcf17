//! CloudSinks: the twins whose values may leave exist.
//!
//! Not here: addresses, which the schema checks.

use super::checker::Checker;
use crate::kinds::CloudSinkSpec;

impl Checker<'_, '_> {
    pub(super) fn sink(&mut self, sink: &CloudSinkSpec) {
        for (at, allowance) in sink.allow.iter().enumerate() {
            let at = at.to_string();
            self.members(&allowance.twins, &["spec", "allow", &at, "twins"]);
        }
    }
}
