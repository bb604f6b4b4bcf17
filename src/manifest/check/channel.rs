//! Channels: their alternatives exist.
//!
//! Not here: who transmits on them (`transmission`).

use super::checker::Checker;
use crate::kinds::ChannelSpec;
use crate::kinds::Kind;
use crate::manifest::diagnostic::Code;

impl Checker<'_, '_> {
    pub(super) fn channel(&mut self, channel: &ChannelSpec) {
        for (at, name) in channel.alternatives.iter().enumerate() {
            let path = ["spec", "alternatives", &at.to_string()];
            if self.reference(Kind::Channel, name, &path) && name == self.item.name {
                self.error(
                    Code::Contradiction,
                    &path,
                    format!("`{name}` lists itself as an alternative"),
                );
            }
        }
    }
}
