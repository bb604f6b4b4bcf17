//! References: names and selectors, and the objects that they reach.
//!
//! Not here: how an object is found (`index`).

use std::collections::BTreeMap;

use super::checker::Checker;
use super::index::reaches;
use crate::base::text::suggest;
use crate::kinds::Kind;
use crate::kinds::{LabelExpression, LabelOperator, MemberSelector};
use crate::manifest::diagnostic::{Code, Diagnostic, plural};

impl Checker<'_, '_> {
    /// Whether a named object exists; reports it if not.
    pub(super) fn reference(&mut self, kind: Kind, name: &str, path: &[&str]) -> bool {
        if self.index.find(kind, self.item.namespace, name).is_some() {
            return true;
        }
        let guess = suggest(name, self.index.names(kind).map(|item| item.name));
        let guess = guess.and_then(|guess| self.index.names(kind).find(|item| item.name == guess));
        let (mut help, mut elsewhere) = (Vec::new(), None);
        if let Some(guess) = guess {
            let shown = if reaches(self.item.namespace, guess.namespace) {
                guess.name.to_owned()
            } else {
                format!("{}/{}", guess.namespace, guess.name)
            };
            if guess.name == name {
                elsewhere = Some(guess.namespace);
            }
            help.push(format!("did you mean `{shown}`{}?", guess.place()));
        }
        let files = match self.index.files {
            1 => "file".to_owned(),
            files => plural(files, "file"),
        };
        let words = self.item.words();
        let (code, message) = match kind {
            Kind::Service => {
                help.push(
                    "a service that registers itself needs `external: true` in a Service document"
                        .to_owned(),
                );
                (Code::UnknownService, format!("{words} names a service that nobody declares"))
            }
            _ => (Code::UnknownReference, format!("{words} names a {kind} that nobody declares")),
        };
        let label = match elsewhere {
            Some(other) => {
                format!("no {kind} `{name}` in this namespace or `default`, only in `{other}`")
            }
            None => format!("no {kind} `{name}` in the {files} read"),
        };
        let label =
            if self.root.region.at.line == 0 { format!("no {kind} `{name}`") } else { label };
        // A name written as a map's key is marked there.
        let region = match self.root.at(path) {
            Some(node) if node.as_str().is_some() => node.region,
            _ => self.root.key_region_at(path),
        };
        let message = if region.at.line == 0 { format!("{message}: {label}") } else { message };
        let diagnostic = Diagnostic::error(code, self.item.file, region, message).label(label);
        self.push(diagnostic, path).help.extend(help);
        false
    }

    fn twin_reference(&mut self, name: &str, path: &[&str]) -> Option<usize> {
        match self.index.twin(self.item.namespace, name) {
            Some(found) => found,
            None => {
                let names = self.index.twins.keys().map(|(_, name)| name.as_ref());
                let guess =
                    if self.index.twins.len() <= 20_000 { suggest(name, names) } else { None };
                let message = format!("{} names a twin that nobody declares", self.item.words());
                let diagnostic = self.error(Code::UnknownReference, path, message);
                diagnostic.label = format!("no twin `{name}`");
                if let Some(guess) = guess {
                    diagnostic.help.push(format!("did you mean `{guess}`?"));
                }
                None
            }
        }
    }

    /// Groups that a selector of twins reaches; see [`Checker::selector`].
    pub(super) fn members(&mut self, of: &MemberSelector, path: &[&str]) -> Vec<usize> {
        self.selector(&of.names, &of.match_labels, &of.match_expressions, path)
    }

    /// Groups that a selector reaches; reports names that do not exist, and a selector that asks
    /// for nothing or finds nothing.
    pub(super) fn selector(
        &mut self,
        names: &[String],
        equal: &BTreeMap<String, String>,
        expressions: &[LabelExpression],
        path: &[&str],
    ) -> Vec<usize> {
        let mut groups = Vec::new();
        let step = |more: &[&'static str]| {
            path.iter().copied().chain(more.iter().copied()).collect::<Vec<_>>()
        };
        let names_path = step(&["names"]);
        for (at, name) in names.iter().enumerate() {
            let at = at.to_string();
            let path: Vec<&str> = names_path.iter().copied().chain([at.as_str()]).collect();
            groups.extend(self.twin_reference(name, &path));
        }
        let expressions_path = step(&["matchExpressions"]);
        for (at, expression) in expressions.iter().enumerate() {
            let wants_values =
                matches!(expression.operator, LabelOperator::In | LabelOperator::NotIn);
            if wants_values == expression.values.is_empty() {
                let at = at.to_string();
                let path: Vec<&str> =
                    expressions_path.iter().copied().chain([at.as_str(), "operator"]).collect();
                let needs = if wants_values { "needs `values`" } else { "takes no `values`" };
                self.error(Code::Contradiction, &path, format!("this operator {needs}"));
            }
        }
        if equal.is_empty() && expressions.is_empty() {
            if names.is_empty() {
                let message = format!("{} selects no twins", self.item.words());
                self.key_error(Code::Contradiction, path, message)
                    .help
                    .push("give `names`, `matchLabels` or `matchExpressions`".to_owned());
            }
            return groups;
        }
        let before = groups.len();
        groups.extend(self.index.selected(self.item.namespace, equal, expressions));
        if groups.len() == before {
            let which = if equal.is_empty() { "matchExpressions" } else { "matchLabels" };
            let asked = equal
                .iter()
                .map(|(key, value)| format!("{key}: {value}"))
                .collect::<Vec<_>>()
                .join(", ");
            let message = match asked.as_str() {
                "" => format!("{} selects labels that no twin has", self.item.words()),
                asked => format!("{} selects `{asked}`, which no twin has", self.item.words()),
            };
            let path = step(&[which]);
            let region = self.root.key_region_at(&path);
            let diagnostic =
                Diagnostic::warning(Code::SelectsNothing, self.item.file, region, message);
            let key_guess = equal.iter().find_map(|(key, value)| {
                let values = self
                    .index
                    .groups
                    .iter()
                    .filter_map(|group| group.labels.get(key))
                    .map(String::as_str);
                match suggest(value, values).filter(|guess| guess != value) {
                    Some(guess) => Some(format!("did you mean `{key}: {guess}`?")),
                    None => {
                        let keys = self
                            .index
                            .groups
                            .iter()
                            .flat_map(|group| group.labels.keys())
                            .map(String::as_str);
                        suggest(key, keys)
                            .filter(|guess| guess != key)
                            .map(|guess| format!("did you mean `{guess}: {value}`?"))
                    }
                }
            });
            let help = &mut self.push(diagnostic, &path).help;
            help.extend(key_guess);
            help.push("selectors are live: twins may come later".to_owned());
        }
        groups.sort_unstable();
        groups.dedup();
        groups
    }
}
