//! What a schema cannot say: names, references, cycles, bounds, and expressions, over all
//! documents of a run together with what a runtime already has.
//!
//! A reference looks in the object's own namespace first, then in `default`. A selector of an
//! object in `default` reaches all namespaces, any other only its own.
//!
//! Twins are checked as the groups that they are written as: a TwinSet's template once, however
//! many twins it makes, so the work grows with the text.
//!
//! Documents that are broken still count as declared if their kind and name could be read: one
//! mistake makes one diagnostic, not one for each reference to it.
//!
//! Here: which checks an object goes through. `checker` collects its diagnostics, `index` knows what there
//! is; each kind has a file of its name, as in `kinds`, and so has what several kinds share.
//!
//! Not here: shapes and types (`schema`), the texts themselves (`yaml`).

mod aggregate;
mod channel;
mod checker;
mod cloud;
mod expression;
mod index;
mod model;
mod name;
mod node;
mod policy;
mod reference;
mod rollout;
mod rule;
mod scenario;
mod service;
mod transmission;
mod twin;
mod twin_model;

use checker::Checker;
use index::Index;
pub(super) use node::code_of;

use super::diagnostic::{Code, Diagnostic};
use super::draft::Draft;
use super::object::Object;
use super::region::Region;
use super::source::Source;
use crate::kinds::Spec;

/// Checks all drafts together and pushes everything that is wrong.
pub(super) fn check(
    drafts: &[Draft],
    sources: &[Source],
    known: &[Object],
    diagnostics: &mut Vec<Diagnostic>,
) {
    let index = Index::new(drafts, known, diagnostics);
    let mut dropped = Diagnostic::error(Code::Contradiction, "", Region::default(), "");
    for item in &index.items {
        if let (Some(root), Some(spec)) = (item.root, item.spec.or(item.partial)) {
            let mut checker =
                Checker { index: &index, item, root, sources, diagnostics, dropped: &mut dropped };
            checker.object(spec);
        }
    }
    aggregate::check_cycles(&index, diagnostics);
}

impl<'a> Checker<'a, '_> {
    fn object(&mut self, spec: &'a Spec) {
        self.metadata();
        match spec {
            Spec::TwinModel(model) => self.twin_model(model),
            Spec::Twin(twin) => self.twin(twin, &["spec"]),
            Spec::TwinSet(set) => self.twin_set(set),
            Spec::TwinAggregate(aggregate) => self.aggregate(aggregate),
            Spec::Service(service) => self.service(service),
            Spec::Model(model) => self.model(model),
            Spec::NodeProfile(profile) => self.profile(profile),
            Spec::Channel(channel) => self.channel(channel),
            Spec::ContextRule(rule) => self.rule(rule),
            Spec::Rollout(rollout) => self.rollout(rollout),
            Spec::CloudSink(sink) => self.sink(sink),
            Spec::Policy(policy) => self.policy(policy),
            Spec::Scenario(scenario) => self.scenario(scenario),
        }
    }
}
