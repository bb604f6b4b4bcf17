//! x
use super::{Draft, Object, Source, Diagnostic};
pub(super) fn check(_drafts: &[Draft], _sources: &[Source], _known: &[Object], _diagnostics: &mut Vec<Diagnostic>) {}
