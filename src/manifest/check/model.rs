//! Models: a file with its digest or a recipe, whose settings fit its classifier.
//!
//! Not here: TwinModels (`twin_model`).

use std::collections::HashSet;

use super::checker::Checker;
use crate::base::text::list_words;
use crate::base::text::suggest;
use crate::kinds::{Classifier, Generator, ModelSpec};
use crate::manifest::diagnostic::{Code, Diagnostic};

/// The columns that `generator: environment` makes, without the label.
pub(super) const ENVIRONMENT_COLUMNS: &[&str] = &["temperature", "humidity", "loudness", "light"];

impl Checker<'_, '_> {
    pub(super) fn model(&mut self, model: &ModelSpec) {
        let words = self.item.words();
        match (&model.file, &model.train) {
            (None, None) => {
                self.key_error(
                    Code::Contradiction,
                    &["spec"],
                    format!("{words} has neither a `file` nor a recipe to `train`"),
                );
            }
            (Some(_), Some(_)) => {
                self.key_error(
                    Code::Contradiction,
                    &["spec", "train"],
                    format!("{words} has both a `file` and a recipe to `train`"),
                );
            }
            (Some(_), None) if model.digest.is_none() => {
                self.key_error(
                    Code::Contradiction,
                    &["spec", "file"],
                    format!("{words} has a `file` without its `digest`"),
                )
                .help
                .push("`sha256sum FILE` prints it; write `digest: sha256:…`".to_owned());
            }
            (None, Some(_)) if model.digest.is_some() => {
                self.key_error(
                    Code::Contradiction,
                    &["spec", "digest"],
                    "a `digest` belongs to a `file`".to_owned(),
                );
            }
            _ => {}
        }
        let mut seen = HashSet::new();
        for (at, input) in model.inputs.iter().enumerate() {
            if !seen.insert(input) {
                let at = at.to_string();
                self.error(
                    Code::Contradiction,
                    &["spec", "inputs", &at],
                    format!("`{input}` is listed twice as an input"),
                );
            }
        }
        let Some(train) = &model.train else { return };
        if model.classifier == Classifier::Onnx {
            self.error(
                Code::Contradiction,
                &["spec", "classifier"],
                "an ONNX model is trained elsewhere: give its `file`".to_owned(),
            );
        }
        if train.data.is_some() == train.generator.is_some() {
            let message = format!("`train` of {words} needs either `data` or a `generator`");
            self.key_error(Code::Contradiction, &["spec", "train"], message);
        }
        if let Some(Generator::Environment) = train.generator {
            for (at, input) in model.inputs.iter().enumerate() {
                if !ENVIRONMENT_COLUMNS.contains(&input.as_str()) {
                    let at = at.to_string();
                    let guess = suggest(input, ENVIRONMENT_COLUMNS.iter().copied());
                    let message = format!("the generator `environment` has no column `{input}`");
                    let diagnostic =
                        self.error(Code::UnknownReference, &["spec", "inputs", &at], message);
                    if let Some(guess) = guess {
                        diagnostic.help.push(format!("did you mean `{guess}`?"));
                    }
                    diagnostic.help.push(format!(
                        "it has {}",
                        list_words(ENVIRONMENT_COLUMNS.iter().copied())
                    ));
                }
            }
            if train.target != "label" {
                let message =
                    format!("the generator `environment` has no column `{}`", train.target);
                self.error(Code::UnknownReference, &["spec", "train", "target"], message)
                    .help
                    .push("its labels are in `label`".to_owned());
            }
        }
        let share = train.test.as_percent();
        if share <= 0.0 || share >= 100.0 {
            let message =
                "`test` must be more than 0% and less than 100%, so that both sides have rows"
                    .to_owned();
            self.error(Code::OutOfRange, &["spec", "train", "test"], message);
        }
        let of = &train.parameters;
        for (given, owner, field) in [
            (of.trees.is_some(), Classifier::Forest, "trees"),
            (of.depth.is_some(), Classifier::Forest, "depth"),
            (of.min_leaf.is_some(), Classifier::Forest, "minLeaf"),
            (of.features.is_some(), Classifier::Forest, "features"),
            (of.c.is_some(), Classifier::Svm, "c"),
            (of.gamma.is_some(), Classifier::Svm, "gamma"),
            (of.hidden.is_some(), Classifier::Mlp, "hidden"),
            (of.epochs.is_some(), Classifier::Mlp, "epochs"),
            (of.learning_rate.is_some(), Classifier::Mlp, "learningRate"),
            (of.batch.is_some(), Classifier::Mlp, "batch"),
        ] {
            if given && owner != model.classifier {
                let message = format!(
                    "`{field}` is a parameter of `{}`, and this model is `{}`",
                    owner.name(),
                    model.classifier.name()
                );
                let path = ["spec", "train", "parameters", field];
                let region = self.root.key_region_at(&path);
                let diagnostic = Diagnostic::warning(Code::Unused, self.item.file, region, message);
                self.push(diagnostic, &path);
            }
        }
    }
}
