//! The diagnostics of one object under check.

use super::index::{Index, Item};
use crate::manifest::diagnostic::{Code, Diagnostic};
use crate::manifest::source::Source;
use crate::manifest::yaml::YamlNode;

/// Checks one object.
pub(super) struct Checker<'a, 'i> {
    pub(super) index: &'i Index<'a>,
    pub(super) item: &'i Item<'a>,
    pub(super) root: &'a YamlNode,
    pub(super) sources: &'a [Source],
    pub(super) diagnostics: &'i mut Vec<Diagnostic>,
    /// The last diagnostic that was not worth reporting.
    pub(super) dropped: &'i mut Diagnostic,
}

impl<'a> Checker<'a, '_> {
    pub(super) fn error(&mut self, code: Code, path: &[&str], message: String) -> &mut Diagnostic {
        let region = self.root.region_at(path);
        self.push(Diagnostic::error(code, self.item.file, region, message), path)
    }

    pub(super) fn warning(
        &mut self,
        code: Code,
        path: &[&str],
        message: String,
    ) -> &mut Diagnostic {
        let region = self.root.region_at(path);
        self.push(Diagnostic::warning(code, self.item.file, region, message), path)
    }

    pub(super) fn key_error(
        &mut self,
        code: Code,
        path: &[&str],
        message: String,
    ) -> &mut Diagnostic {
        let region = self.root.key_region_at(path);
        self.push(Diagnostic::error(code, self.item.file, region, message), path)
    }

    pub(super) fn push(&mut self, mut diagnostic: Diagnostic, path: &[&str]) -> &mut Diagnostic {
        if self.item.spec.is_none() && follows_from_a_gap(diagnostic.code) {
            // What is missing here may be just what was taken out for its shape.
            *self.dropped = diagnostic;
            return self.dropped;
        }
        if diagnostic.line == 0 {
            diagnostic = diagnostic.help(format!("at `{}`", path.join(".")));
        }
        self.diagnostics.push(diagnostic);
        let last = self.diagnostics.len() - 1;
        &mut self.diagnostics[last]
    }
}

/// Whether a mistake of this sort can follow from a value that is left out.
fn follows_from_a_gap(code: Code) -> bool {
    matches!(code, Code::Contradiction | Code::MissingField | Code::InputsDiffer)
}
