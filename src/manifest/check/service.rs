//! Services: they run somewhere, and their model takes what they read.
//!
//! Not here: whether a twin has what a service reads (`twin`).

use super::checker::Checker;
use super::model::ENVIRONMENT_COLUMNS;
use crate::base::text::list_words;
use crate::kinds::{Generator, ServiceSpec};
use crate::kinds::{Kind, Spec};
use crate::manifest::diagnostic::{Code, plural};

impl Checker<'_, '_> {
    pub(super) fn service(&mut self, service: &ServiceSpec) {
        let words = self.item.words();
        if service.model.is_none() && service.process.is_none() && !service.external {
            self.key_error(
                Code::Contradiction,
                &["spec"],
                format!("{words} has neither a `model` nor a `process`, and is not `external`"),
            )
            .help
            .push("add a `model`, a `process`, or `external: true`".to_owned());
        }
        if service.inputs.is_empty() && !service.external {
            self.key_error(Code::MissingField, &["spec"], format!("{words} has no `inputs`"))
                .help
                .push(
                    "name the twin properties that it reads: `inputs: [environment/temperature]`"
                        .to_owned(),
                );
        }
        if service.timeout.as_ms() == 0 {
            self.error(
                Code::OutOfRange,
                &["spec", "timeout"],
                format!("`timeout` of {words} must be greater than 0"),
            );
        }
        if service.lease.as_ms() < 1000 {
            self.error(
                Code::OutOfRange,
                &["spec", "lease"],
                format!("`lease` of {words} must be at least 1s"),
            );
        }
        if let Some(name) = &service.model
            && self.reference(Kind::Model, name, &["spec", "model"])
            && let Some(Spec::Model(model)) =
                self.index.find(Kind::Model, self.item.namespace, name).and_then(|item| item.spec)
        {
            let takes =
                match (&model.inputs[..], model.train.as_ref().and_then(|train| train.generator)) {
                    ([], Some(Generator::Environment)) => ENVIRONMENT_COLUMNS.len(),
                    (inputs, _) => inputs.len(),
                };
            if takes > 0 && takes != service.inputs.len() && !service.inputs.is_empty() {
                let message = format!(
                    "{words} has {}, and Model `{name}` takes {takes}",
                    plural(service.inputs.len(), "input")
                );
                let names = list_words(model.inputs.iter().map(String::as_str));
                let diagnostic = self.key_error(Code::InputsDiffer, &["spec", "inputs"], message);
                if !model.inputs.is_empty() {
                    diagnostic.help.push(format!("the model takes {names}, in this order"));
                }
            }
        }
    }
}
