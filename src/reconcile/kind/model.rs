//! Models: loaded from an artefact whose digest is pinned, or trained by a recipe and kept under
//! the recipe's digest, so that the same recipe is trained once.
//!
//! Training takes seconds to minutes. It runs on a thread of its own, one at a time. Nothing waits
//! for the thread: when it ends it queues the Model again, and a program that ends does not wait.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;

use crate::edgeai::generate::{CHANNELS, SyntheticWorld};
use crate::edgeai::train::{self, Dataset, Recipe};
use crate::edgeai::{self, Model};
use crate::kinds::{Classifier, DATA_ANNOTATION, ModelSpec, TrainingParameters, TrainingRecipe};
use crate::reconcile::digest::digest_of;
use crate::reconcile::key::ObjectKey;
use crate::reconcile::reconciler::Reconciler;
use crate::reconcile::status::Finding;
use crate::reconcile::working::{Training, lock};

/// Rises when training gives other models for the same recipe; kept models are then made anew.
const TRAINER: u32 = 2;

/// Rows that a generator makes where a recipe names no number.
const ROWS_DEFAULT: u32 = 4000;

/// The generator's world: so many rooms, watched for a week, so that nights and weekends are in.
const ROOMS: u32 = 8;
const DAYS: f64 = 7.0;

/// Time between two looks at whether it is a model's turn to be trained.
const TURN: Duration = Duration::from_millis(200);

impl Reconciler {
    /// Forgets a deleted Model.
    pub(super) fn remove_model(&self, key: &ObjectKey) {
        let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
        models.remove(&key.global_name());
    }

    pub(super) fn model(
        self: &Arc<Self>,
        key: &ObjectKey,
        annotations: &BTreeMap<String, String>,
        spec: &ModelSpec,
    ) -> Finding {
        let Some(classifier) = loaded(spec.classifier) else {
            return Finding::not_acted_on("ONNX models are not loaded yet");
        };
        let data = annotations.get(DATA_ANNOTATION).map(|digest| plain(digest));
        let Some(source) = source(spec, data) else {
            return Finding::stalled("NoSource", "it has no file and no recipe");
        };
        {
            let training = self.training();
            if let Some((from, words)) = training.loaded.get(key)
                && *from == source
                && self.has_model(key)
            {
                return Finding::ready("Loaded", words.clone());
            }
        }
        let (bytes, words) = match &spec.train {
            None => match self.artefacts.get(&source) {
                Ok(bytes) => (bytes, String::new()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Finding::stalled(
                        "ArtefactMissing",
                        "the model file is not here; apply the manifest from where the file is",
                    );
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return Finding::stalled("ArtefactDamaged", error.to_string());
                }
                Err(error) => return Finding::failed("ArtefactUnreadable", error.to_string()),
            },
            Some(recipe) => match self.artefacts.trained(&source) {
                Ok(kept) => kept,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return self.train(key, &source, spec, recipe, classifier, data);
                }
                Err(error) => return Finding::failed("ArtefactUnreadable", error.to_string()),
            },
        };
        let model = match Model::from_bytes(&bytes) {
            Ok(model) => model,
            Err(error) => return Finding::stalled("NotAModel", error.to_string()),
        };
        if let Err(why) = fits(spec, classifier, &model) {
            return Finding::stalled("NotAsDeclared", why);
        }
        let words = format!("{} {}; {words}", model.meta().classifier, model.version());
        let words = words.trim_end_matches("; ").to_owned();
        self.training().loaded.insert(key.clone(), (source, words.clone()));
        self.models
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key.global_name(), Arc::new(model));
        self.wake_dependents(std::slice::from_ref(key));
        Finding::ready("Loaded", words)
    }

    fn has_model(&self, key: &ObjectKey) -> bool {
        let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
        models.contains_key(&key.global_name())
    }

    fn training(&self) -> MutexGuard<'_, Training> {
        lock(&self.working.training)
    }

    /// Starts training, if it is this recipe's turn.
    fn train(
        self: &Arc<Self>,
        key: &ObjectKey,
        source: &str,
        spec: &ModelSpec,
        recipe: &TrainingRecipe,
        classifier: edgeai::Classifier,
        data: Option<&str>,
    ) -> Finding {
        {
            let mut training = self.training();
            if let Some(why) = training.failed.get(source) {
                return Finding::stalled("TrainingFailed", why.clone());
            }
            match &training.running {
                Some(other) if other == source => {
                    return Finding::waiting("Training", "it is being trained").again(TURN);
                }
                Some(_) => {
                    let message = "another model is being trained first";
                    return Finding::waiting("Training", message).again(TURN);
                }
                None => training.running = Some(source.to_owned()),
            }
        }
        let csv = match (&recipe.data, data) {
            (None, _) => None,
            (Some(_), Some(digest)) => match self.artefacts.get(digest) {
                Ok(bytes) => Some(bytes),
                Err(error) => {
                    self.training().running = None;
                    return Finding::stalled("ArtefactMissing", format!("training data: {error}"));
                }
            },
            (Some(name), None) => {
                self.training().running = None;
                let message = format!("`{name}` was not sent along; use `edgetwin apply`");
                return Finding::stalled("ArtefactMissing", message);
            }
        };
        let (this, key, source) = (self.clone(), key.clone(), source.to_owned());
        let (spec, recipe) = (spec.clone(), recipe.clone());
        let started = std::thread::Builder::new().name("training".to_owned()).spawn(move || {
            let trained = fit(&spec, &recipe, classifier, csv.as_deref());
            let kept = trained.and_then(|(bytes, report)| {
                this.artefacts
                    .keep_trained(&source, &bytes, &report)
                    .map_err(|error| format!("the model cannot be kept: {error}"))
            });
            let mut training = this.training();
            training.running = None;
            if let Err(why) = kept {
                training.failed.insert(source, why);
            }
            drop(training);
            this.queue.add(key);
        });
        match started {
            Ok(_) => Finding::waiting("Training", "it is being trained"),
            Err(error) => {
                self.training().running = None;
                Finding::failed("Training", error.to_string())
            }
        }
    }
}

/// A digest without the name of its function.
fn plain(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

/// The digest under which a model is kept: of its file, or of its recipe.
pub(super) fn source(spec: &ModelSpec, data: Option<&str>) -> Option<String> {
    match (&spec.digest, &spec.train) {
        (Some(digest), _) => Some(plain(digest).to_owned()),
        (None, Some(recipe)) => Some(recipe_digest(spec, recipe, data)),
        (None, None) => None,
    }
}

/// The digests of all artefacts that a Model needs.
pub(in crate::reconcile) fn needs(
    spec: &ModelSpec,
    annotations: &BTreeMap<String, String>,
) -> Vec<String> {
    let data = annotations.get(DATA_ANNOTATION).map(|digest| plain(digest));
    source(spec, data).into_iter().chain(data.map(str::to_owned)).collect()
}

/// What decides which model comes out, as a digest.
fn recipe_digest(spec: &ModelSpec, recipe: &TrainingRecipe, data: Option<&str>) -> String {
    let all = json!({
        "trainer": TRAINER,
        "classifier": spec.classifier,
        "inputs": spec.inputs,
        "recipe": recipe,
        "data": data,
    });
    digest_of(all.to_string().as_bytes())
}

/// Whether a model is what its object says.
pub(super) fn fits(
    spec: &ModelSpec,
    classifier: edgeai::Classifier,
    model: &Model,
) -> Result<(), String> {
    let meta = model.meta();
    if meta.classifier != classifier {
        return Err(format!("the model is of the sort {}, not {classifier}", meta.classifier));
    }
    if !spec.inputs.is_empty() && spec.inputs != meta.inputs {
        return Err(format!("the model's inputs are {}", meta.inputs.join(", ")));
    }
    let mut labels = spec.labels.clone();
    labels.sort();
    let mut own = meta.labels.clone();
    own.sort();
    if !labels.is_empty() && labels != own {
        return Err(format!("the model's labels are {}", meta.labels.join(", ")));
    }
    Ok(())
}

/// The classifier that models of a sort are loaded as; `None` for a sort that is not loaded yet.
pub(super) fn loaded(classifier: Classifier) -> Option<edgeai::Classifier> {
    match classifier {
        Classifier::Forest => Some(edgeai::Classifier::Forest),
        Classifier::Svm => Some(edgeai::Classifier::Svm),
        Classifier::Mlp => Some(edgeai::Classifier::Mlp),
        Classifier::Onnx => None,
    }
}

/// Trains; the model's bytes, and a line about how good it is.
pub(super) fn fit(
    spec: &ModelSpec,
    recipe: &TrainingRecipe,
    classifier: edgeai::Classifier,
    csv: Option<&[u8]>,
) -> Result<(Vec<u8>, String), String> {
    let data = match csv {
        Some(csv) => Dataset::from_csv_rows(csv, &recipe.target, &spec.inputs, recipe.rows),
        None => generated(recipe, &spec.inputs),
    };
    let data = data.map_err(|error| error.to_string())?;
    let recipe = train_recipe(recipe, classifier, data.inputs().len())?;
    let (model, report) = train::fit_and_test(&data, &recipe).map_err(|error| error.to_string())?;
    let words = match &report.test {
        None => format!("fitted to {} rows, not tested", report.rows_train),
        Some(test) => {
            let scores: Vec<String> = test
                .by_label
                .iter()
                .map(|label| format!("{} {:.3}", label.label, label.f1))
                .collect();
            format!("F1 {} on {} rows kept back", scores.join(", "), test.rows)
        }
    };
    Ok((model.to_bytes(), words))
}

fn train_recipe(
    recipe: &TrainingRecipe,
    classifier: edgeai::Classifier,
    inputs: usize,
) -> Result<Recipe, String> {
    let mut all = Recipe::new(classifier);
    all.seed = recipe.seed;
    all.threads = std::thread::available_parallelism().map_or(1, |n| n.get().max(2) - 1);
    all.set_test(recipe.test.as_fraction()).map_err(|error| error.to_string())?;
    let known: Vec<&str> = all.named().into_iter().map(|(name, _)| name).collect();
    for (name, value) in parameters(&recipe.parameters, inputs) {
        // Parameters of other classifiers were warned of when the manifest was checked.
        if known.contains(&name) {
            all.set(name, &value).map_err(|error| error.to_string())?;
        }
    }
    Ok(all)
}

/// The settings of a manifest in the trainer's names.
fn parameters(given: &TrainingParameters, inputs: usize) -> Vec<(&'static str, String)> {
    let hidden = given
        .hidden
        .as_ref()
        .map(|units| units.iter().map(ToString::to_string).collect::<Vec<_>>().join("-"));
    [
        ("trees", given.trees.map(|n| n.to_string())),
        ("depth", given.depth.map(|n| n.min(30).to_string())),
        ("min-leaf", given.min_leaf.map(|n| n.to_string())),
        (
            "features",
            given
                .features
                .map(|share| (share.as_fraction() * inputs as f64).ceil().max(1.0).to_string()),
        ),
        ("c", given.c.map(|x| x.to_string())),
        ("gamma", given.gamma.map(|x| x.to_string())),
        ("hidden", hidden),
        ("epochs", given.epochs.map(|n| n.to_string())),
        ("rate", given.learning_rate.map(|x| x.to_string())),
        ("batch", given.batch.map(|n| n.to_string())),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}

/// Rows of the example generator: the columns that are asked for, in their order.
fn generated(recipe: &TrainingRecipe, inputs: &[String]) -> Result<Dataset, train::DataError> {
    let rows = recipe.rows.unwrap_or(ROWS_DEFAULT).max(ROOMS);
    let each = f64::from(rows / ROOMS);
    let plan = SyntheticWorld {
        seed: recipe.seed,
        nodes: ROOMS,
        days: DAYS,
        // A hair less than the even share, so that no row is lost to rounding.
        interval_s: DAYS * 86_400.0 / (each + 0.5),
    };
    let all: Vec<String> = CHANNELS.iter().map(|name| (*name).to_owned()).collect();
    let names = if inputs.is_empty() { &all[..] } else { inputs };
    let columns: Vec<usize> = names
        .iter()
        .filter_map(|name| CHANNELS.iter().position(|channel| channel == name))
        .collect();
    let samples: Vec<(Vec<f32>, &'static str)> = plan
        .training_samples()
        .map(|(_, _, sample)| {
            (columns.iter().map(|&column| sample.values[column]).collect(), sample.label())
        })
        .collect();
    Dataset::from_rows(names, samples.iter().map(|(row, label)| (&row[..], *label)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_gives_the_rows_and_columns_that_are_asked_for() {
        let recipe = |rows| TrainingRecipe {
            data: None,
            generator: None,
            rows,
            target: "label".to_owned(),
            seed: 7,
            test: crate::base::units::Percent::new(25.0),
            parameters: TrainingParameters::default(),
        };
        let names = ["light".to_owned(), "temperature".to_owned()];
        let data = generated(&recipe(Some(1000)), &names).unwrap();
        assert_eq!((data.len(), data.inputs()), (1000, &names[..]));
        assert_eq!(generated(&recipe(None), &[]).unwrap().len(), ROWS_DEFAULT as usize);
    }

    /// What the quickstart shows first: a room in which people talk in the dark is not normal.
    #[test]
    fn the_quickstart_forest_judges_what_people_see_at_once_as_they_would() {
        use crate::kinds::Spec;
        let objects = crate::manifest::load(&["manifests/quickstart".to_owned()], &[]).objects;
        let spec = objects.iter().find_map(|object| match &object.spec {
            Spec::Model(spec) if object.metadata.name == "anomaly-forest" => Some(spec.clone()),
            _ => None,
        });
        let spec = spec.unwrap();
        let (bytes, words) =
            fit(&spec, spec.train.as_ref().unwrap(), edgeai::Classifier::Forest, None).unwrap();
        let model = Model::from_bytes(&bytes).unwrap();
        let mut prediction = edgeai::Prediction::default();
        for (row, label) in [
            // Temperature, humidity, loudness, light.
            ([21.1, 43.7, 47.6, 643.0], "normal"),
            ([20.5, 44.0, 34.0, 0.0], "normal"),
            ([22.4, 44.0, 50.0, 480.0], "normal"),
            ([21.4, 43.0, 53.0, 0.0], "anomalous"),
            ([21.4, 42.7, 45.9, 0.0], "anomalous"),
            ([50.0, 40.0, 40.0, 300.0], "anomalous"),
            ([21.4, 0.0, 34.0, 0.0], "anomalous"),
        ] {
            model.predict(&row, &mut prediction).unwrap();
            let given = (model.label(prediction.label), prediction.score);
            assert_eq!(given.0, label, "{row:?}: {given:?}; {words}");
        }
        let f1: f64 = words.split("anomalous ").nth(1).unwrap()[..5].parse().unwrap();
        assert!(f1 > 0.88, "{words}");
    }
}
