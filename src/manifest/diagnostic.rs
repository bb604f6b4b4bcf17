//! Diagnostics: what is wrong with a manifest, where, and how to correct it; for people and programs.
//!
//! A code names one kind of mistake and never changes: scripts and documentation may rely on it.
//! `edgetwin explain CODE` prints its explanation.
//!
//! Not here: printing (`cli::output`) and exit codes (`cli::error`); [`render`] makes text.

use std::collections::HashMap;
use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};

use super::region::Region;
use super::source::Source;
use crate::base::text::cut;

/// Most diagnostics that one run keeps; the rest are counted. A file of another format makes
/// one for each line, and nobody reads ten thousand of them.
pub const DIAGNOSTICS_MAX: usize = 10_000;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing is applied.
    Error,
    /// It is applied, and probably not what was intended.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// Declares [`Code`] with its number, title and explanation.
macro_rules! codes {
    ($($name:ident = $code:literal, $title:literal, $text:literal;)*) => {
        /// The kind of mistake. The numbers are stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(#[doc = $title] $name,)*
        }

        impl Code {
            /// All codes, by number.
            pub const ALL: &'static [Code] = &[$(Code::$name),*];

            /// The stable name, such as `ET0203`.
            pub const fn id(self) -> &'static str {
                match self { $(Code::$name => $code),* }
            }

            /// A short title.
            pub const fn title(self) -> &'static str {
                match self { $(Code::$name => $title),* }
            }

            /// What it means and how to correct it, in a paragraph.
            pub const fn explanation(self) -> &'static str {
                match self { $(Code::$name => $text),* }
            }
        }
    };
}

codes! {
    Unreadable = "ET0001", "A file cannot be read",
        "The path does not exist, is not a file or directory, may not be read by this user, or a \
         directory holds no `*.yaml` or `*.yml` file. Nothing of the run is applied, because an \
         absent file could be one that others refer to.";
    NotUtf8 = "ET0002", "A file is not UTF-8",
        "Manifests are UTF-8 text. Another encoding, or a binary file with the wrong name, has \
         bytes that UTF-8 does not allow. Save the file as UTF-8.";
    Syntax = "ET0003", "A document is not YAML",
        "The text breaks YAML's own rules at the place shown: a bracket or quote that is not \
         closed, indentation that does not line up, a tab, or a `: ` inside an unquoted value. \
         The other documents of the file are still checked.";
    DuplicateKey = "ET0004", "A key is given twice in one map",
        "YAML does not allow this, because it is ambiguous. Keep one of the two. Many tools use the \
         last one without a warning; this one does not.";
    TooLarge = "ET0005", "A manifest exceeds a limit",
        "Files are limited to 16 MiB and 100,000 documents, documents to 64 levels and a million \
         values, aliases to 10,000 further values, a run to 100,000 files. A TwinSet declares \
         many twins that are alike in ten lines.";
    Yaml = "ET0006", "YAML that has no meaning in a manifest",
        "Manifests are YAML that can be written as JSON: keys are text, numbers are finite, and \
         there are no tags such as `!custom`.";
    NotAnObject = "ET0101", "A document is not an object",
        "Each document is a map with `kind`, `metadata` and `spec`. `apiVersion` may be left out.";
    UnknownKind = "ET0102", "The kind does not exist",
        "`kind` is one of TwinModel, Twin, TwinSet, TwinAggregate, Service, Model, NodeProfile, \
         Channel, ContextRule, Rollout, CloudSink, Policy, Scenario. `edgetwin explain KIND` says \
         what each is for.";
    UnknownApiVersion = "ET0103", "The apiVersion does not exist",
        "This program reads `edgetwin.dev/v1alpha1`. The line may be left out; the default is \
         the newest version.";
    UnknownField = "ET0104", "A field does not exist",
        "Unknown fields are errors, so that a typing mistake is never ignored \
         silently. `edgetwin explain KIND.path` lists the fields that do.";
    MissingField = "ET0105", "A field is missing",
        "The kind needs this field; `edgetwin explain KIND.path` says what it holds.";
    WrongType = "ET0106", "A value has the wrong type",
        "A number where text is expected, a list where a map is expected, and so on. Note that \
         YAML reads an unquoted `3` as a number and `true` as a boolean: quote it where text is \
         expected.";
    NotAllowed = "ET0107", "A value is not one of those allowed",
        "The field takes one of several values; the message lists them, and `edgetwin explain \
         KIND.path` explains each. Values are case-sensitive.";
    OutOfRange = "ET0108", "A value is out of its range",
        "A number below or above what the field, or the property's TwinModel, allows; or a list \
         or text that is too short or too long.";
    BadName = "ET0109", "A name is not allowed",
        "Names become twin ids, MQTT topics and URLs. An object's name starts and ends with a \
         letter or digit and holds letters, digits, `.`, `_` and `-`, at most 128. A namespace \
         follows Ditto's rule: it starts with a letter; letters, digits and `_`, in parts that \
         are joined by `.` or `-`, each starting with a letter. A feature or property starts \
         with a letter or `_` and holds letters, digits, `_`, `-` and `.`; `k`, `boot`, `seq`, `ms`, \
         `program`, `old` and `time` are reserved in a node's messages. Namespace, colon and \
         name together are at most 256 characters.";
    Contradiction = "ET0110", "Fields contradict each other",
        "Some fields exclude each other (a Model has a `file` or a recipe to `train`, not both), \
         some need each other (a `file` needs its `digest`), and of some at least one is required.";
    BadUnit = "ET0111", "A value has a wrong unit or none",
        "Durations, percentages, sizes and data rates carry their unit, without a space: `10s`, \
         `500ms`, `25%`, `8KiB`, `6Mbit/s`. The unit of a property is a UCUM code or SenML name, \
         such as `Cel`, `%RH`, `dB`, `lx`.";
    BadText = "ET0112", "Text does not have the required form",
        "Some fields need text of a certain form: a digest is `sha256:` and 64 hexadecimal digits, an \
         address starts with `https://`, a property of a twin is `feature/property`.";
    DuplicateObject = "ET0201", "Two objects have the same kind, namespace and name",
        "This is ambiguous. Twins that a TwinSet creates and TwinAggregates count as twins here, \
         because all of them are things with one id.";
    UnknownReference = "ET0202", "A named object does not exist",
        "A TwinModel, Model, NodeProfile, Channel, TwinAggregate or twin that is named is neither \
         in the files read nor in the runtime. References look in the object's own namespace \
         first, then in `default`.";
    UnknownService = "ET0203", "A twin names a service that is not declared",
        "A twin's `services` name Service objects. The Service is neither in the files read nor \
         in the runtime. A service that registers itself over the Eureka API also needs a Service \
         document, with `external: true` and its inputs.";
    UnknownProperty = "ET0204", "A property does not exist in the twin's model",
        "A service input, a derived property, a desired value or a rule names a property that the \
         TwinModel of the twin does not have.";
    Cycle = "ET0205", "Aggregates contain each other",
        "An aggregate is computed from its members. If it is, directly or through others, a \
         member of itself, it has no defined value. A selector that matches the aggregate's own labels \
         makes such a cycle too.";
    SelectsNothing = "ET0206", "A selector matches no twin",
        "No twin in the files read or in the runtime has the labels. This may be intended, \
         because selectors are live; often it is a typing mistake.";
    UnknownProgram = "ET0207", "A transmission program does not exist",
        "Programs are those of the firmware (`interval`, `on-change`, `burst`, `features`, `raw`, \
         `aggregate`, `predict`, `on-request`, `schedule`) and those that a NodeProfile lists.";
    InputsDiffer = "ET0208", "A service and its model disagree about inputs",
        "The Service's `inputs` are fed to the Model in order, so there must be as many as the \
         model has.";
    BadBounds = "ET0301", "A lower bound is above the upper bound",
        "`pmax` is at least `pmin`, `epmax` at least `epmin`, `maximum` at least `minimum`. \
         `interval` sets `pmin` and `pmax` together, so it excludes both.";
    WrongValue = "ET0302", "A value does not fit the property's model",
        "A desired value or an actuator value has a type other than that of its TwinModel, or is \
         out of range.";
    ReadOnly = "ET0303", "A property cannot be set",
        "The TwinModel declares it `readOnly` (the default, because most properties are sensors). \
         The property of an actuator has `readOnly: false`.";
    Unused = "ET0304", "A setting has no effect",
        "The setting belongs to another classifier, program or function than the one chosen.";
    ExpressionSyntax = "ET0401", "An expression is not CEL",
        "Conditions are written in the Common Expression Language: `&&`, `||`, `!`, comparisons, \
         arithmetic, `in`, and the functions that `edgetwin explain expressions` lists. \
         Durations are written `10s`, `1h`.";
    UnknownName = "ET0402", "An expression uses a name that does not exist",
        "A bare name is a property of the rule's twins; `feature.property` where two features \
         have it. `link`, `node` and `channel()` have health figures.";
    WrongOperand = "ET0403", "An expression combines values of different types",
        "Numbers compare with numbers, text with text, durations with durations. `age(p) > 10` \
         lacks a unit: write `age(p) > 10s`.";
    UnknownFunction = "ET0404", "An expression calls a function that does not exist",
        "The functions are verdict, age, avg, min, max, stddev, rate, count, any, all, value, \
         label, channel, has, abs. `edgetwin explain expressions` says what each does.";
    WrongArguments = "ET0405", "A function is called with the wrong arguments",
        "`avg`, `min`, `max`, `stddev`, `rate` and `count` take a property and a duration, `age` \
         and `any` a property, `verdict` a service's name in quotes.";
    NotACondition = "ET0406", "An expression is not true or false",
        "`when` and `until` are conditions. A number or text alone is not a condition: compare it with \
         something.";
    UnitsDiffer = "ET0407", "An expression compares values of different units",
        "Both sides have a unit in their TwinModel, and the units differ. Comparing a \
         temperature with a humidity is meaningless.";
    RulesConflict = "ET0408", "Two rules with the same priority contradict each other",
        "Both may be active for the same nodes at the same time, and set the same field to different \
         values. With the same priority and equally specific targets, the first by name wins. Give \
         one of them a higher `priority`.";
    BadPin = "ET0501", "A pin cannot be used for this",
        "The board has no such pin, or it cannot do what the part needs: measure a voltage, be an \
         output, be dimmed; or the board uses it itself. Pins are named as printed on the board.";
    PinTwice = "ET0502", "A pin is used twice",
        "Two parts share a pin. Each sensor and actuator needs one of its own.";
    TooFast = "ET0503", "A sensor is read too often",
        "The part needs more time between two readings than `period` gives it.";
    DoesNotFit = "ET0504", "Firmware does not fit",
        "Flash, RAM, the ring of readings, the length of a message or the capacity of a serial line \
         is exceeded. The sums are estimates on the safe side: the Uno's are measured with its \
         compiler, the ESP32's are rough.";
    NotGenerated = "ET0505", "Firmware for this cannot be generated yet",
        "`gen-firmware` has no board, driver or program of this name, or the board cannot do it. \
         `edgetwin explain NodeProfile.board` lists the boards, `edgetwin explain parts` the sensors \
         and actuators. The programs are interval, on-change, on-request and features; a program of \
         another name is for firmware that you write yourself.";
}

impl Code {
    /// Finds a code by its id, in any letter case.
    pub fn find(id: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.id().eq_ignore_ascii_case(id))
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The kind of mistake.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// The file as the user named it; of a value that came as JSON, `Kind/namespace/name`.
    pub file: String,
    /// Line from 1; 0 if there is no place in a file.
    pub line: u32,
    /// Column from 1, in characters; 0 if there is no place in a file.
    pub column: u32,
    /// How many characters are marked.
    pub width: u32,
    /// What is wrong.
    pub message: String,
    /// The label at the marked place; may be empty.
    pub label: String,
    /// What to do about it.
    pub help: Vec<String>,
    /// The line of the file, for showing it.
    pub source_line: Option<String>,
}

impl Diagnostic {
    /// An error at a place.
    pub fn error(
        code: Code,
        file: impl Into<String>,
        region: Region,
        message: impl Into<String>,
    ) -> Self {
        Self {
            code,
            severity: Severity::Error,
            file: file.into(),
            line: region.at.line,
            column: region.at.column,
            width: region.width,
            message: cut(&message.into(), TEXT_MAX).into_owned(),
            label: String::new(),
            help: Vec::new(),
            source_line: None,
        }
    }

    /// A warning at a place.
    pub fn warning(
        code: Code,
        file: impl Into<String>,
        region: Region,
        message: impl Into<String>,
    ) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, file, region, message) }
    }

    /// Sets the label at the marked place.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = cut(&label.into(), TEXT_MAX).into_owned();
        self
    }

    /// Adds a hint.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(cut(&help.into(), TEXT_MAX).into_owned());
        self
    }

    /// Whether it stops the run.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// The form for programs; `help` joins all cures with line breaks.
    pub fn to_json(&self) -> Value {
        json!({
            "code": self.code.id(),
            "severity": self.severity,
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "message": self.message,
            "help": self.help.join("\n"),
        })
    }

    /// The text for people, with ANSI colours if asked for; complete without them.
    ///
    /// ```text
    /// error[ET0203]: Twin `farm:node-17` names a service that nobody declares
    ///   --> farm/north.yaml:18:16
    ///    |
    /// 18 |     services: [anomaly-forrest]
    ///    |                ^^^^^^^^^^^^^^^ no Service `anomaly-forrest` in the 3 files read
    ///
    /// hint: did you mean `anomaly-forest` (farm/services.yaml:4)?
    /// ```
    pub fn render(&self, colour: bool) -> String {
        let (heading, bold, blue, cyan, reset) = match (colour, self.severity) {
            (false, _) => ("", "", "", "", ""),
            (true, Severity::Error) => {
                ("\x1b[1;31m", "\x1b[1m", "\x1b[1;34m", "\x1b[36m", "\x1b[0m")
            }
            (true, Severity::Warning) => {
                ("\x1b[1;33m", "\x1b[1m", "\x1b[1;34m", "\x1b[36m", "\x1b[0m")
            }
        };
        let mut out = String::new();
        out += &format!(
            "{heading}{}[{}]{reset}{bold}: {}{reset}\n",
            self.severity,
            self.code.id(),
            self.message
        );
        if self.line == 0 {
            if !self.file.is_empty() {
                out += &format!("  {blue}-->{reset} {}\n", self.file);
            }
        } else {
            let number = self.line.to_string();
            let gutter = " ".repeat(number.len());
            out +=
                &format!("{gutter}{blue}-->{reset} {}:{}:{}\n", self.file, self.line, self.column);
            if let Some(line) = &self.source_line {
                let (line, start, width) =
                    excerpt(line, self.column as usize - 1, self.width as usize);
                out += &format!("{gutter} {blue}|{reset}\n");
                out += &format!("{blue}{number} |{reset} {line}\n");
                let marks = "^".repeat(width.max(1));
                let label =
                    if self.label.is_empty() { String::new() } else { format!(" {}", self.label) };
                out += &format!(
                    "{gutter} {blue}|{reset} {}{heading}{marks}{label}{reset}\n",
                    " ".repeat(start)
                );
            }
        }
        if !self.help.is_empty() {
            out.push('\n');
            for help in &self.help {
                out += &format!("{cyan}hint{reset}: {help}\n");
            }
        }
        out
    }
}

/// Most characters of a line that are shown.
const EXCERPT_LEN_MAX: usize = 160;

/// Longest message, label or hint, in characters: names and values in it may be of any length.
const TEXT_MAX: usize = 600;

/// The part of a line around the marked place, with tabs as spaces and control characters out
/// of the way, and where the mark is in it.
fn excerpt(line: &str, start: usize, width: usize) -> (String, usize, usize) {
    let clean: Vec<char> = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let from = if clean.len() > EXCERPT_LEN_MAX {
        start.saturating_sub(EXCERPT_LEN_MAX / 2).min(clean.len())
    } else {
        0
    };
    let shown: String = clean.iter().skip(from).take(EXCERPT_LEN_MAX).collect();
    let visible = shown.chars().count();
    let start = (start - from).min(visible);
    (shown, start, width.min(visible.saturating_sub(start)))
}

/// Sorts by file and place, takes out repetitions, and attaches the source lines.
pub(super) fn finish(diagnostics: &mut Vec<Diagnostic>, sources: &[Source]) {
    let ranks: HashMap<&str, usize> =
        sources.iter().enumerate().map(|(rank, source)| (source.name.as_str(), rank)).collect();
    let rank = |diagnostic: &Diagnostic| ranks.get(diagnostic.file.as_str()).copied();
    diagnostics.sort_by(|a, b| {
        // What has no source comes last.
        let key = |d: &Diagnostic| (rank(d).unwrap_or(usize::MAX), d.line, d.column, d.code);
        key(a).cmp(&key(b))
    });
    diagnostics.dedup();
    diagnostics.truncate(DIAGNOSTICS_MAX);
    for group in diagnostics.chunk_by_mut(|a, b| a.file == b.file) {
        let Some(source) = group.first().and_then(rank).and_then(|rank| sources.get(rank)) else {
            continue;
        };
        let mut lines = source.text.lines().zip(1_u32..).peekable();
        for diagnostic in group {
            while lines.next_if(|(_, number)| *number < diagnostic.line).is_some() {}
            diagnostic.source_line = lines
                .peek()
                .filter(|(_, number)| *number == diagnostic.line)
                .map(|(line, _)| line.trim_end().to_owned());
        }
    }
}

/// All diagnostics for people, and the last line.
///
/// * `files`: how many files were read.
/// * `outcome`: what did not happen, such as `Nothing was applied.`; only printed after errors.
pub fn render(diagnostics: &[Diagnostic], files: usize, outcome: &str, colour: bool) -> String {
    let mut out = String::new();
    for diagnostic in diagnostics {
        out.push_str(&diagnostic.render(colour));
        out.push('\n');
    }
    let errors = diagnostics.iter().filter(|d| d.is_error()).count();
    let warnings = diagnostics.len() - errors;
    let mut parts = Vec::new();
    if errors > 0 {
        parts.push(plural(errors, "error"));
    }
    if warnings > 0 {
        parts.push(plural(warnings, "warning"));
    }
    if !parts.is_empty() {
        out += &format!("{} in {}.", parts.join(" and "), plural(files, "file"));
        if errors > 0 && !outcome.is_empty() {
            out += &format!(" {outcome}");
        }
        out.push('\n');
    }
    out
}

/// `1 error`, `2 errors`.
pub fn plural(count: usize, word: &str) -> String {
    let suffix = if count == 1 { "" } else { "s" };
    format!("{count} {word}{suffix}")
}

/// The form for programs: `{"diagnostics": […]}`.
pub fn to_json(diagnostics: &[Diagnostic]) -> Value {
    json!({ "diagnostics": diagnostics.iter().map(Diagnostic::to_json).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::region::Position;

    #[test]
    fn a_diagnostic_reads_as_documented() {
        let region = Region { at: Position { line: 18, column: 16 }, width: 15 };
        let diagnostic = Diagnostic {
            source_line: Some("    services: [anomaly-forrest]".to_owned()),
            ..Diagnostic::error(
                Code::UnknownService,
                "farm/north.yaml",
                region,
                "Twin `farm:node-17` names a service that nobody declares",
            )
            .label("no Service `anomaly-forrest` in the 3 files read")
            .help("did you mean `anomaly-forest` (farm/services.yaml:4)?")
        };
        assert_eq!(
            render(&[diagnostic], 3, "Nothing was applied.", false),
            "error[ET0203]: Twin `farm:node-17` names a service that nobody declares\n\
             \u{20} --> farm/north.yaml:18:16\n\
             \u{20}  |\n\
             18 |     services: [anomaly-forrest]\n\
             \u{20}  |                ^^^^^^^^^^^^^^^ no Service `anomaly-forrest` in the 3 files read\n\
             \n\
             hint: did you mean `anomaly-forest` (farm/services.yaml:4)?\n\
             \n\
             1 error in 3 files. Nothing was applied.\n"
        );
    }

    #[test]
    fn codes_are_unique_and_in_order() {
        let ids: Vec<_> = Code::ALL.iter().map(|code| code.id()).collect();
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
        for code in Code::ALL {
            assert_eq!(Code::find(&code.id().to_lowercase()), Some(*code));
            assert!(code.explanation().len() > 60, "{}", code.id());
        }
    }

    #[test]
    fn long_lines_are_cut_around_the_mark() {
        let line = format!("{}here{}", "x".repeat(500), "y".repeat(500));
        let (shown, start, width) = excerpt(&line, 500, 4);
        assert_eq!(&shown[start..start + width], "here");
    }
}
