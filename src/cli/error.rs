//! Errors of the command line: a kind, a chain of causes, hints; one renderer, one exit code.
//!
//! Verbs make a [`CliError`] from the errors of the modules they call, in terms of the user, and
//! add a hint where the cure is known. Nothing else prints an error.
//!
//! Not here: mistakes in manifests (`manifest::diagnostic`), which a [`CliError`] can carry.

use serde_json::{Value, json};

use crate::base::text::cut;
use crate::manifest::diagnostic::{self, Diagnostic};

/// What sort of failure it is; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorKind {
    /// It did not work: 1.
    Failed,
    /// It was not ready in the time given: 3.
    NotReady,
    /// Something else changed it meanwhile, or is in the way: 5.
    Conflict,
    /// Not allowed, or not known who asks: 6.
    Unauthorised,
    /// The arguments make no sense: 64.
    Usage,
    /// No runtime answers: 69.
    Unreachable,
    /// A manifest has mistakes: 78.
    InvalidManifest,
    /// Ended by Ctrl-C: 130.
    Interrupted,
}

impl ErrorKind {
    /// All kinds, by exit code.
    pub(super) const ALL: &'static [Self] = &[
        Self::Failed,
        Self::NotReady,
        Self::Conflict,
        Self::Unauthorised,
        Self::Usage,
        Self::Unreachable,
        Self::InvalidManifest,
        Self::Interrupted,
    ];

    /// What the exit code means, for the reference.
    pub(super) const fn meaning(self) -> &'static str {
        match self {
            Self::Failed => "The command failed.",
            Self::NotReady => "The objects were not ready in the time given.",
            Self::Conflict => "Something else changed the object meanwhile, or is in the way.",
            Self::Unauthorised => "The caller is unknown or lacks a permission.",
            Self::Usage => "The arguments are wrong.",
            Self::Unreachable => "No runtime answers.",
            Self::InvalidManifest => "A manifest has mistakes.",
            Self::Interrupted => "Ended by Ctrl-C.",
        }
    }

    /// The process's exit code.
    pub(super) const fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::NotReady => 3,
            Self::Conflict => 5,
            Self::Unauthorised => 6,
            Self::Usage => 64,
            Self::Unreachable => 69,
            Self::InvalidManifest => 78,
            Self::Interrupted => 130,
        }
    }

    /// The name in JSON.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::NotReady => "not-ready",
            Self::Conflict => "conflict",
            Self::Unauthorised => "unauthorised",
            Self::Usage => "usage",
            Self::Unreachable => "unreachable",
            Self::InvalidManifest => "invalid-manifest",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Longest message, cause or hint that is printed, in characters: what a manifest or a runtime put
/// into it may be of any length.
pub(super) const TEXT_MAX: usize = 600;

/// Why a verb failed.
#[derive(Debug, Clone)]
pub(super) struct CliError(Box<Content>);

#[derive(Debug, Clone)]
struct Content {
    kind: ErrorKind,
    message: String,
    causes: Vec<String>,
    hints: Vec<String>,
    mistakes: Option<Mistakes>,
}

#[derive(Debug, Clone)]
struct Mistakes {
    diagnostics: Vec<Diagnostic>,
    files: usize,
    outcome: String,
}

impl CliError {
    /// A failure, in terms of the user.
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Content {
            kind,
            message: cut(&message.into(), TEXT_MAX).into_owned(),
            causes: Vec::new(),
            hints: Vec::new(),
            mistakes: None,
        }))
    }

    /// Mistakes in manifests. `outcome` says what did not happen: `Nothing was applied.`
    pub(super) fn invalid(diagnostics: Vec<Diagnostic>, files: usize, outcome: &str) -> Self {
        let errors = diagnostics.iter().filter(|d| d.is_error()).count();
        let message = format!(
            "{} in {}",
            diagnostic::plural(errors, "error"),
            diagnostic::plural(files, "file")
        );
        let mistakes = Mistakes { diagnostics, files, outcome: outcome.to_owned() };
        let mut error = Self::new(ErrorKind::InvalidManifest, message);
        error.0.mistakes = Some(mistakes);
        error
    }

    /// A failure that has been printed as data already: only the exit code is left.
    pub(super) fn silent(kind: ErrorKind) -> Self {
        Self::new(kind, String::new())
    }

    /// Adds an error and all its sources as causes.
    #[must_use]
    pub(super) fn because(mut self, error: &dyn std::error::Error) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            self.0.causes.push(cut(&error.to_string(), TEXT_MAX).into_owned());
            next = error.source();
        }
        self
    }

    /// Adds a cure.
    #[must_use]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hints.push(cut(&hint.into(), TEXT_MAX).into_owned());
        self
    }

    /// `{"error": {"kind", "message", "causes", "hints"}}`; `diagnostics` too, where manifests
    /// have mistakes.
    pub(super) fn to_json(&self) -> Value {
        let mut error = json!({
            "kind": self.0.kind.name(),
            "message": self.0.message,
            "causes": self.0.causes,
            "hints": self.0.hints,
        });
        if let Some(mistakes) = &self.0.mistakes {
            error["diagnostics"] = diagnostic::to_json(&mistakes.diagnostics)["diagnostics"].take();
        }
        json!({ "error": error })
    }

    /// The text for people.
    pub(super) fn render(&self, colour: bool) -> String {
        if let Some(mistakes) = &self.0.mistakes {
            return diagnostic::render(
                &mistakes.diagnostics,
                mistakes.files,
                &mistakes.outcome,
                colour,
            );
        }
        let (red, cyan, bold, reset) = if colour {
            ("\x1b[1;31m", "\x1b[36m", "\x1b[1m", "\x1b[0m")
        } else {
            ("", "", "", "")
        };
        let mut text = format!("{red}error{reset}{bold}: {}{reset}\n", self.0.message);
        for cause in &self.0.causes {
            text += &format!("  because {cause}\n");
        }
        if !self.0.hints.is_empty() {
            text.push('\n');
            for hint in &self.0.hints {
                text += &format!("{cyan}hint{reset}: {hint}\n");
            }
        }
        text
    }

    /// Whether everything was printed already.
    pub(super) fn is_silent(&self) -> bool {
        self.0.message.is_empty()
    }

    /// The exit code of its kind.
    pub(super) fn exit_code(&self) -> u8 {
        self.0.kind.exit_code()
    }
}
