//! The JSON Schema of all kinds, and the validator that walks it.
//!
//! The schema is draft-07, made from the types of `kinds`, and is what editors use. The walker
//! here understands just what those types produce, collects every fault with its place, and
//! picks the branch of a choice by what was written, so that its answers are precise. A test
//! holds it against an independent validator.
//!
//! Not here: rules that a schema cannot say (`check`).

use std::sync::OnceLock;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::diagnostic::{Code, Diagnostic};
use super::region::Region;
use super::yaml::{Entry, NodeValue, YamlNode};
use crate::base::text::{list_words, suggest};
use crate::base::units;
use crate::kinds::{API_VERSION, Kind, Metadata};

/// The JSON Schema (draft-07) of a manifest's document, all kinds.
pub fn json_schema() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(build)
}

fn build() -> Value {
    let mut generator = SchemaSettings::draft07().into_generator();
    let metadata = generator.subschema_for::<Metadata>();
    let specs: Vec<(Kind, Value)> =
        Kind::ALL.iter().map(|kind| (*kind, kind.spec_schema(&mut generator).to_value())).collect();
    let mut definitions = generator.take_definitions(true);
    for (kind, spec) in specs {
        let description = spec
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|name| definitions.get(name.rsplit('/').next().unwrap_or_default()))
            .and_then(|definition| definition.get("description"))
            .cloned()
            .unwrap_or_default();
        let document = json!({
            "type": "object",
            "description": description,
            "properties": {
                "apiVersion": {
                    "description": "The version of this format. The default is the newest.",
                    "type": "string",
                    "const": API_VERSION,
                },
                "kind": { "description": "The kind of object.", "type": "string", "enum": [kind.name()] },
                "metadata": metadata.clone(),
                "spec": spec,
                "status": {
                    "description": "Written by the runtime; ignored in a manifest.",
                    "type": "object",
                    "additionalProperties": true,
                },
            },
            "required": ["kind", "metadata", "spec"],
            "additionalProperties": false,
        });
        definitions.insert(kind.name().to_owned(), document);
    }
    let mut definitions = Value::Object(definitions);
    tidy(&mut definitions);
    let names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    // Editors that speak yaml-language-server pick the branch of a `oneOf` by an `enum` of one
    // word, and then complete just its fields; by `const`, or by `if`, they offer all kinds' fields.
    let branches: Vec<Value> =
        Kind::ALL.iter().map(|kind| json!({ "$ref": format!("#/definitions/{kind}") })).collect();
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "edgetwin manifest",
        "description": "One object of an edgetwin manifest.",
        "type": "object",
        "properties": {
            "apiVersion": { "type": "string", "const": API_VERSION },
            "kind": { "type": "string", "enum": names },
        },
        "required": ["kind", "metadata", "spec"],
        "oneOf": branches,
        "definitions": definitions,
    })
}

/// Makes the generated schema say what the parser does: unknown fields are errors, an empty
/// value is not a value, and number formats that only Rust knows are left out.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Object(map) => {
            tidy_object(map);
            for (key, value) in map.iter_mut() {
                if !matches!(key.as_str(), "default" | "examples" | "enum" | "const") {
                    tidy(value);
                }
            }
        }
        _ => {}
    }
}

fn tidy_object(map: &mut Map<String, Value>) {
    if map.get("properties").is_some_and(Value::is_object)
        && map.get("type").is_some_and(|t| t == "object")
    {
        map.entry("additionalProperties").or_insert(Value::Bool(false));
    }
    if map.get("format").is_some_and(Value::is_string) {
        map.remove("format");
    }
    if map.get("default").is_some_and(Value::is_null) {
        map.remove("default");
    }
    if let Some(Value::Array(types)) = map.get_mut("type") {
        types.retain(|t| t != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            map.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(branches)) = map.get_mut("anyOf") {
        branches.retain(|branch| branch.get("type").is_none_or(|t| t != "null"));
        if branches.len() == 1 {
            let branches = map.remove("anyOf").unwrap_or_default();
            map.insert("allOf".to_owned(), branches);
        }
    }
    // In draft-07 a `$ref` hides what stands beside it.
    if map.len() > 1
        && let Some(reference) = map.remove("$ref")
    {
        map.insert("allOf".to_owned(), json!([{ "$ref": reference }]));
    }
}

/// Checks the shape of one document and reports every fault.
///
/// * `file`: the name that diagnostics carry.
/// * `name`: the object for messages, such as "Twin `farm:node-17`".
/// * Returns the paths of the faulty values; none if the shape is right.
pub fn check(
    kind: Kind,
    root: &YamlNode,
    file: &str,
    name: &str,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<Vec<String>> {
    let mut walker = Walker {
        kind,
        file,
        name,
        diagnostics,
        definitions: &json_schema()["definitions"],
        path: Vec::new(),
        faulty: Vec::new(),
    };
    let schema = &walker.definitions[kind.name()];
    walker.walk(root, root.region, schema);
    walker.faulty
}

struct Walker<'a> {
    kind: Kind,
    file: &'a str,
    name: &'a str,
    diagnostics: &'a mut Vec<Diagnostic>,
    definitions: &'static Value,
    path: Vec<String>,
    /// The path of each fault, in the order of the diagnostics.
    faulty: Vec<Vec<String>>,
}

impl Walker<'_> {
    fn report(&mut self, code: Code, region: Region, message: String) -> &mut Diagnostic {
        let mut diagnostic = Diagnostic::error(code, self.file, region, message);
        if region.at.line == 0 && !self.path.is_empty() {
            diagnostic = diagnostic.help(format!("at `{}`", self.path.join(".")));
        }
        self.diagnostics.push(diagnostic);
        self.faulty.push(self.path.clone());
        let last = self.diagnostics.len() - 1;
        &mut self.diagnostics[last]
    }

    /// The last step of the path, for messages.
    fn field(&self) -> String {
        match self.path.last() {
            None => "the document".to_owned(),
            Some(step) if step.bytes().all(|b| b.is_ascii_digit()) && self.path.len() > 1 => {
                format!(
                    "entry {} of `{}`",
                    step.parse::<usize>().map_or(0, |i| i + 1),
                    self.path[self.path.len() - 2]
                )
            }
            Some(step) => format!("`{step}`"),
        }
    }

    /// * `owner`: where the key stands that holds this value.
    fn walk(&mut self, node: &YamlNode, owner: Region, schema: &'static Value) {
        let Value::Object(schema) = schema else {
            return;
        };
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let name = reference.rsplit('/').next().unwrap_or_default();
            return self.walk(node, owner, &self.definitions[name]);
        }
        if let Some(Value::Array(parts)) = schema.get("allOf") {
            for part in parts {
                self.walk(node, owner, part);
            }
        }
        if let Some(Value::Array(branches)) = schema.get("anyOf").or_else(|| schema.get("oneOf")) {
            return self.choose(node, owner, branches);
        }
        if !self.type_fits(node, owner, schema) {
            return;
        }
        match &node.value {
            NodeValue::String(text, _) => self.text(node, text, schema),
            NodeValue::Number(number) => {
                self.number(node, number.as_f64().unwrap_or_default(), schema)
            }
            NodeValue::List(items) => self.list(node, items, schema),
            NodeValue::Map(entries) => self.map(entries, owner, schema),
            NodeValue::Null | NodeValue::Bool(_) => {}
        }
    }

    fn type_fits(&mut self, node: &YamlNode, owner: Region, schema: &Map<String, Value>) -> bool {
        let types: Vec<&str> = match schema.get("type") {
            Some(Value::String(name)) => vec![name],
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            _ => return true,
        };
        if types.iter().any(|name| is_type(node, name)) {
            return true;
        }
        let field = self.field();
        if node.value == NodeValue::Null {
            let region = if owner.at.line == 0 { node.region } else { owner };
            let article =
                types.iter().map(|name| type_words(name)).collect::<Vec<_>>().join(" or ");
            self.report(Code::WrongType, region, format!("{field} is empty in {}", self.name))
                .set_help(format!("give it {article}, or leave the line out"));
            return false;
        }
        let scalar = schema.get("x-scalar").and_then(Value::as_str);
        let wanted = types.iter().map(|name| type_words(name)).collect::<Vec<_>>().join(" or ");
        let (code, message, help) = match (scalar, &node.value) {
            (
                Some(scalar @ ("duration" | "percent" | "size" | "data rate")),
                NodeValue::Number(number),
            ) => {
                let help = units::check(scalar, &number.to_string()).err().map(|error| error.help);
                let message = format!("{field} of {} is a {scalar} and lacks its unit", self.name);
                (Code::BadUnit, message, help)
            }
            (_, NodeValue::Number(_) | NodeValue::Bool(_)) if types == ["string"] => {
                let written = node.to_json().to_string();
                let help = format!(
                    "YAML reads `{written}` as {}; write `\"{written}\"` for text",
                    node.describe()
                );
                (
                    Code::WrongType,
                    format!("{field} of {} must be text, not {}", self.name, node.describe()),
                    Some(help),
                )
            }
            (_, NodeValue::String(text, _)) if types == ["boolean"] => {
                let guess = match text.to_lowercase().as_str() {
                    "yes" | "on" | "y" | "true" => Some("true"),
                    "no" | "off" | "n" | "false" => Some("false"),
                    _ => None,
                };
                let help =
                    guess.map(|guess| format!("YAML 1.2 reads `{text}` as text; write `{guess}`"));
                (
                    Code::WrongType,
                    format!("{field} of {} must be true or false, not text", self.name),
                    help,
                )
            }
            (_, NodeValue::String(text, _)) if types == ["number"] || types == ["integer"] => {
                let help =
                    text.parse::<f64>().ok().map(|_| format!("write it without quotes: `{text}`"));
                (
                    Code::WrongType,
                    format!("{field} of {} must be {wanted}, not text", self.name),
                    help,
                )
            }
            (_, NodeValue::Number(number)) if types == ["integer"] => (
                Code::WrongType,
                format!("{field} of {} must be a whole number, not {number}", self.name),
                None,
            ),
            _ => {
                let help =
                    (types == ["array"]).then(|| "write `[a, b]`, or one `- a` a line".to_owned());
                (
                    Code::WrongType,
                    format!("{field} of {} must be {wanted}, not {}", self.name, node.describe()),
                    help,
                )
            }
        };
        let diagnostic = self.report(code, node.region, message);
        if code == Code::WrongType {
            diagnostic.label = format!("{wanted} is needed here");
        }
        if let Some(help) = help {
            diagnostic.set_help(help);
        }
        false
    }

    /// Picks the branch that what was written belongs to.
    fn choose(&mut self, node: &YamlNode, owner: Region, branches: &'static [Value]) {
        let words: Vec<&'static str> =
            branches.iter().flat_map(|branch| constants(branch)).collect();
        if !words.is_empty() && words.len() >= branches.len() {
            if node.as_str().is_none() {
                let schema = Map::from_iter([("type".to_owned(), json!("string"))]);
                self.type_fits(node, owner, &schema);
                return;
            }
            return self.one_of(node, &words);
        }
        let fitting: Vec<&'static Value> =
            branches.iter().filter(|branch| self.could_be(node, branch)).collect();
        match fitting.as_slice() {
            [] => {
                let types: Vec<Value> = branches
                    .iter()
                    .flat_map(|branch| self.types_of(branch))
                    .map(Value::from)
                    .collect();
                let schema = Map::from_iter([("type".to_owned(), Value::Array(types))]);
                self.type_fits(node, owner, &schema);
            }
            [branch] => self.walk(node, owner, branch),
            several => {
                // The branch with the fewest faults is the one that was meant.
                let (start, paths_start) = (self.diagnostics.len(), self.faulty.len());
                let mut best: Option<(Vec<Diagnostic>, Vec<Vec<String>>)> = None;
                for branch in several {
                    self.walk(node, owner, branch);
                    let faults = self.diagnostics.split_off(start);
                    let paths = self.faulty.split_off(paths_start);
                    if best.as_ref().is_none_or(|(best, _)| faults.len() < best.len()) {
                        best = Some((faults, paths));
                    }
                }
                let (faults, paths) = best.unwrap_or_default();
                self.diagnostics.extend(faults);
                self.faulty.extend(paths);
            }
        }
    }

    fn types_of(&self, schema: &'static Value) -> Vec<&'static str> {
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            return self
                .types_of(&self.definitions[reference.rsplit('/').next().unwrap_or_default()]);
        }
        match schema.get("type") {
            Some(Value::String(name)) => vec![name],
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    fn could_be(&self, node: &YamlNode, schema: &'static Value) -> bool {
        let types = self.types_of(schema);
        types.is_empty() || types.iter().any(|name| is_type(node, name))
    }

    fn one_of(&mut self, node: &YamlNode, words: &[&'static str]) {
        let Some(text) = node.as_str() else { return };
        if words.contains(&text) {
            return;
        }
        let field = self.field();
        let message = format!("`{text}` is not a value of {field} in {}", self.name);
        let guess = suggest(text, words.iter().copied());
        let diagnostic = self.report(Code::NotAllowed, node.region, message);
        if let Some(guess) = guess {
            diagnostic.help.push(format!("did you mean `{guess}`?"));
        }
        diagnostic.help.push(format!("it is one of {}", list_words(words.iter().copied())));
    }

    fn text(&mut self, node: &YamlNode, text: &str, schema: &'static Map<String, Value>) {
        if let Some(scalar) = schema.get("x-scalar").and_then(Value::as_str) {
            if let Err(error) = units::check(scalar, text) {
                let code = match scalar {
                    "digest" | "url" | "property path" => Code::BadText,
                    _ => Code::BadUnit,
                };
                let field = self.field();
                let message = format!("{}, in {field} of {}", error.message, self.name);
                self.report(code, node.region, message).set_help(error.help);
            }
            return;
        }
        if let Some(word) = schema.get("const").and_then(Value::as_str) {
            if word != text {
                let field = self.field();
                let code = if self.path == ["apiVersion"] {
                    Code::UnknownApiVersion
                } else {
                    Code::NotAllowed
                };
                self.report(
                    code,
                    node.region,
                    format!("`{text}` is not a value of {field} in {}", self.name),
                )
                .set_help(format!("write `{word}`, or leave the line out"));
            }
            return;
        }
        if let Some(Value::Array(words)) = schema.get("enum") {
            let words: Vec<&'static str> = words.iter().filter_map(Value::as_str).collect();
            self.one_of(node, &words);
        }
    }

    fn number(&mut self, node: &YamlNode, value: f64, schema: &Map<String, Value>) {
        let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
        let (minimum, maximum) = (bound("minimum"), bound("maximum"));
        let below = minimum.is_some_and(|minimum| value < minimum);
        let above = maximum.is_some_and(|maximum| value > maximum);
        if below || above {
            let field = self.field();
            let range = match (minimum, maximum) {
                (Some(minimum), Some(maximum)) => format!("from {minimum} to {maximum}"),
                (Some(minimum), None) => format!("at least {minimum}"),
                (None, maximum) => format!("at most {}", maximum.unwrap_or_default()),
            };
            let message = format!("{field} of {} must be {range}, not {value}", self.name);
            self.report(Code::OutOfRange, node.region, message);
        }
    }

    fn list(&mut self, node: &YamlNode, items: &[YamlNode], schema: &'static Map<String, Value>) {
        let bound = |name: &str| {
            schema.get(name).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok())
        };
        let (least, most) =
            (bound("minItems").unwrap_or(0), bound("maxItems").unwrap_or(usize::MAX));
        if items.len() < least || items.len() > most {
            let field = self.field();
            let range = if items.len() < least {
                format!("at least {least}")
            } else {
                format!("at most {most}")
            };
            let message =
                format!("{field} of {} must have {range} entries, not {}", self.name, items.len());
            self.report(Code::OutOfRange, node.region, message);
        }
        if let Some(item_schema) = schema.get("items") {
            for (index, item) in items.iter().enumerate() {
                self.path.push(index.to_string());
                self.walk(item, item.region, item_schema);
                self.path.pop();
            }
        }
    }

    fn map(&mut self, entries: &[Entry], owner: Region, schema: &'static Map<String, Value>) {
        let empty = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object);
        for entry in entries {
            let property = properties.and_then(|properties| properties.get(&entry.key));
            match (property, schema.get("additionalProperties")) {
                (Some(property), _) => self.descend(entry, property),
                (None, Some(Value::Bool(false))) => {
                    self.unknown_field(entry, properties.unwrap_or(&empty), entries)
                }
                (None, Some(property @ Value::Object(_))) => self.descend(entry, property),
                (None, _) => {}
            }
        }
        for name in schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if entries.iter().all(|entry| entry.key != name) {
                let place = match self.path.last() {
                    None => self.name.to_owned(),
                    Some(_) => format!("{} of {}", self.field(), self.name),
                };
                let words = properties
                    .and_then(|properties| properties.get(name))
                    .and_then(|property| property.get("description"))
                    .and_then(Value::as_str)
                    .map(|text| {
                        text.split_inclusive(". ").next().unwrap_or(text).trim().replace('\n', " ")
                    });
                let diagnostic =
                    self.report(Code::MissingField, owner, format!("{place} has no `{name}`"));
                if let Some(words) = words {
                    diagnostic.help.push(format!("`{name}`: {words}"));
                }
            }
        }
    }

    fn descend(&mut self, entry: &Entry, schema: &'static Value) {
        self.path.push(entry.key.clone());
        self.walk(&entry.value, entry.key_region, schema);
        self.path.pop();
    }

    fn unknown_field(
        &mut self,
        entry: &Entry,
        properties: &Map<String, Value>,
        siblings: &[Entry],
    ) {
        let name = &entry.key;
        let place = match self.path.last() {
            None => self.name.to_owned(),
            Some(_) => format!("{} of {}", self.field(), self.name),
        };
        let top = self.path.is_empty();
        let spec_name = format!("{}Spec", self.kind);
        let in_spec = |name: &str| self.definitions[&spec_name]["properties"].get(name).is_some();
        let in_metadata =
            |name: &str| self.definitions["Metadata"]["properties"].get(name).is_some();
        let mut help = Vec::new();
        if top && in_spec(name) {
            help.push(format!("`{name}` belongs under `spec`"));
        } else if (top || self.path == ["spec"]) && in_metadata(name) {
            help.push(format!("`{name}` belongs under `metadata`"));
        } else {
            let free = properties
                .keys()
                .map(String::as_str)
                .filter(|key| siblings.iter().all(|entry| entry.key != *key));
            if let Some(guess) = suggest(name, free) {
                help.push(format!("did you mean `{guess}`?"));
            }
            help.push(format!(
                "the fields here are {}",
                list_words(properties.keys().map(String::as_str))
            ));
        }
        self.path.push(name.clone());
        let message = format!("{place} has no field `{name}`");
        self.report(Code::UnknownField, entry.key_region, message).help.extend(help);
        self.path.pop();
    }
}

impl Diagnostic {
    fn set_help(&mut self, help: String) {
        self.help.insert(0, help);
    }
}

/// The values that a branch of a choice stands for.
fn constants(branch: &'static Value) -> Vec<&'static str> {
    match (branch.get("const"), branch.get("enum")) {
        (Some(Value::String(word)), _) => vec![word],
        (_, Some(Value::Array(words))) => words.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn is_type(node: &YamlNode, name: &str) -> bool {
    match (&node.value, name) {
        (NodeValue::Number(number), "integer") => number.is_i64() || number.is_u64(),
        (NodeValue::Null, "null")
        | (NodeValue::Bool(_), "boolean")
        | (NodeValue::Number(_), "number")
        | (NodeValue::String(..), "string")
        | (NodeValue::List(_), "array")
        | (NodeValue::Map(_), "object") => true,
        _ => false,
    }
}

fn type_words(name: &str) -> &'static str {
    match name {
        "string" => "text",
        "number" => "a number",
        "integer" => "a whole number",
        "boolean" => "true or false",
        "array" => "a list",
        "object" => "a map",
        _ => "nothing",
    }
}

// ---------------------------------------------------------------------------------------------
// Explaining a field

/// What `edgetwin explain KIND.path` says of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The full path, such as `Twin.spec.services`.
    pub path: String,
    /// What is written there, such as `list of text`.
    pub type_words: String,
    /// What it means.
    pub description: String,
    /// The value that it takes when left out.
    pub default: Option<String>,
    /// The values that it can have, each with its meaning.
    pub values: Vec<(String, String)>,
    /// The fields below.
    pub fields: Vec<ExplainedField>,
}

/// One field below an explained one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainedField {
    /// The field's name; `NAME` for the entries of a map.
    pub name: String,
    /// What is written there.
    pub type_words: String,
    /// Whether it must be given.
    pub required: bool,
    /// What it means.
    pub description: String,
}

/// Explains a kind or a field of it. `spec` may be left out of the path.
///
/// # Errors
/// What is unknown, with a suggestion.
pub fn explain(path: &str) -> Result<Explanation, String> {
    let definitions = &json_schema()["definitions"];
    let mut steps = path.split('.').filter(|step| !step.is_empty());
    let word = steps.next().unwrap_or_default();
    let kind = Kind::find(word).ok_or_else(|| {
        let names = Kind::ALL.iter().map(|kind| kind.name());
        match suggest(word, names.clone()) {
            Some(guess) => format!("there is no kind `{word}`; did you mean `{guess}`?"),
            None => format!("there is no kind `{word}`; there are {}", list_words(names)),
        }
    })?;
    let mut schema = &definitions[kind.name()];
    let mut shown = kind.name().to_owned();
    let mut first = true;
    for step in steps {
        let step = step.trim_end_matches("[]");
        // A step into a list or a map's entries goes to what they hold.
        let mut found = child(definitions, schema, step);
        if found.is_none() && first {
            found = child(definitions, &schema["properties"]["spec"], step);
            if found.is_some() {
                shown.push_str(".spec");
            }
        }
        let names: Vec<String> =
            listed(definitions, schema, first).into_iter().map(|field| field.name).collect();
        first = false;
        schema = found.ok_or_else(|| {
            let names = names.iter().map(String::as_str);
            match suggest(step, names.clone()) {
                Some(guess) => format!("`{shown}` has no field `{step}`; did you mean `{guess}`?"),
                None => format!("`{shown}` has no field `{step}`; it has {}", list_words(names)),
            }
        })?;
        shown.push('.');
        shown.push_str(step);
    }
    let target = resolve(definitions, schema);
    let text = |value: &Value| value.get("description").and_then(Value::as_str).map(unwrap_lines);
    let own = text(schema);
    let below = text(target).filter(|below| own.as_ref() != Some(below));
    let description = match (own, below) {
        (Some(own), Some(below)) if target.get("properties").is_none() => {
            format!("{own}\n\n{below}")
        }
        (own, below) => own.or(below).unwrap_or_default(),
    };
    let default = schema.get("default").or_else(|| target.get("default"));
    let default = default.filter(|value| !is_empty(value)).map(|value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    });
    let values = target
        .get("oneOf")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .flat_map(|branch| {
            constants_of(branch).into_iter().map(|word| (word, text(branch).unwrap_or_default()))
        })
        .collect();
    Ok(Explanation {
        path: shown,
        type_words: describe_type(definitions, schema),
        description,
        default,
        values,
        fields: listed(definitions, schema, first),
    })
}

/// The fields to list: of a kind those of its `spec`, which are what is looked for.
fn listed(definitions: &Value, schema: &Value, kind: bool) -> Vec<ExplainedField> {
    if kind {
        fields_of(definitions, &schema["properties"]["spec"])
    } else {
        fields_of(definitions, schema)
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => value.is_null(),
    }
}

/// Doc comments are wrapped; readers' terminals wrap by themselves.
fn unwrap_lines(text: &str) -> String {
    text.split("\n\n")
        .map(|paragraph| paragraph.replace('\n', " "))
        .collect::<Vec<_>>()
        .join("\n\n")
}

fn constants_of(branch: &Value) -> Vec<String> {
    match (branch.get("const"), branch.get("enum")) {
        (Some(Value::String(word)), _) => vec![word.clone()],
        (_, Some(Value::Array(words))) => {
            words.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

/// Follows `$ref` and the `allOf` that wraps one.
fn resolve<'a>(definitions: &'a Value, mut schema: &'a Value) -> &'a Value {
    loop {
        let wrapped = schema.get("allOf").and_then(|parts| parts.get(0));
        if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
            schema = &definitions[name.rsplit('/').next().unwrap_or_default()];
        } else if let Some(inner) = wrapped {
            schema = inner;
        } else {
            return schema;
        }
    }
}

fn child<'a>(definitions: &'a Value, schema: &'a Value, step: &str) -> Option<&'a Value> {
    let schema = resolve(definitions, schema);
    if let Some(found) = schema.get("properties").and_then(|properties| properties.get(step)) {
        return Some(found);
    }
    let inner = match (schema.get("items"), schema.get("additionalProperties"), schema.get("anyOf"))
    {
        (Some(items), _, _) => items,
        (_, Some(entry @ Value::Object(_)), _) => {
            // Any name stands for a key of the map; a field of the entries may also come next.
            return child(definitions, entry, step).or(Some(entry));
        }
        (_, _, Some(Value::Array(branches))) => {
            return branches.iter().find_map(|branch| child(definitions, branch, step));
        }
        _ => return None,
    };
    child(definitions, inner, step)
}

fn fields_of(definitions: &Value, schema: &Value) -> Vec<ExplainedField> {
    let schema = resolve(definitions, schema);
    let inner = schema
        .get("items")
        .or_else(|| schema.get("additionalProperties").filter(|entry| entry.is_object()));
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        let required: Vec<&str> = schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let mut fields: Vec<ExplainedField> = properties
            .iter()
            .map(|(name, property)| ExplainedField {
                name: name.clone(),
                type_words: describe_type(definitions, property),
                required: required.contains(&name.as_str()),
                description: property
                    .get("description")
                    .or_else(|| resolve(definitions, property).get("description"))
                    .and_then(Value::as_str)
                    .map(unwrap_lines)
                    .unwrap_or_default(),
            })
            .collect();
        fields.sort_by_key(|field| !field.required);
        return fields;
    }
    inner.map(|inner| fields_of(definitions, inner)).unwrap_or_default()
}

fn describe_type(definitions: &Value, schema: &Value) -> String {
    let schema = resolve(definitions, schema);
    if let Some(scalar) = schema.get("x-scalar").and_then(Value::as_str) {
        return match schema.get("type") {
            Some(Value::Array(_)) => format!("number or {scalar}"),
            _ => scalar.to_owned(),
        };
    }
    if let Some(Value::Array(branches)) = schema.get("anyOf").or_else(|| schema.get("oneOf")) {
        if branches.iter().all(|branch| !constants_of(branch).is_empty()) {
            return "enum".to_owned();
        }
        return branches
            .iter()
            .map(|branch| describe_type(definitions, branch))
            .collect::<Vec<_>>()
            .join(" or ");
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("string") => "string".to_owned(),
        Some("array") => match schema.get("items") {
            Some(items) => format!("list of {}", describe_type(definitions, items)),
            None => "list".to_owned(),
        },
        Some("object") => match schema.get("additionalProperties") {
            Some(entry @ Value::Object(_)) => {
                format!("map of {}", describe_type(definitions, entry))
            }
            _ => "map".to_owned(),
        },
        Some("integer") => "integer".to_owned(),
        Some("boolean") => "boolean".to_owned(),
        Some(other) => other.to_owned(),
        None => "any value".to_owned(),
    }
}
