//! YAML text in, a tree of values with positions out.
//!
//! Scalars are those of YAML 1.2 (`on` and `no` are strings). Each document of a file is parsed by
//! itself, so a broken one does not hide the errors of the next; what was read of a broken one
//! before the fault is kept, so that others can still refer to it by name.
//!
//! Limits, because manifests also come from strangers over HTTP: [`SOURCE_BYTES_MAX`],
//! [`DOCUMENTS_MAX`], [`DEPTH_MAX`], [`NODES_MAX`], [`ALIAS_NODES_MAX`]. Each ends the document
//! (or file) with a diagnostic.
//!
//! Not here: what the values mean (`schema`, `kinds`), files (`disk`).

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};
use serde_json::{Map, Number, Value};

use super::diagnostic::{Code, Diagnostic};
use super::region::{Position, Region};

/// Most bytes of one file: 16 MiB. 10,000 twins written out take about 3 MiB.
pub const SOURCE_BYTES_MAX: usize = 16 << 20;
/// Most documents of one file. A TwinSet declares more in fewer lines.
pub const DOCUMENTS_MAX: usize = 100_000;
/// Deepest nesting of one document. The deepest field of any kind is at 8.
pub const DEPTH_MAX: usize = 64;
/// Most values of one document.
pub const NODES_MAX: usize = 1_000_000;
/// Most values that aliases (`*name`) may add to one document: beyond it, a few lines could ask
/// for all memory.
pub const ALIAS_NODES_MAX: usize = 10_000;

/// How a scalar was written; needed to find a place inside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Without quotes.
    Plain,
    /// `'…'`.
    Single,
    /// `"…"`.
    Double,
    /// `|` or `>`.
    Block,
}

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct YamlNode {
    /// The value.
    pub value: NodeValue,
    /// Where it stands.
    pub region: Region,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeValue {
    /// Nothing: `null`, `~` or an empty value.
    Null,
    /// True or false.
    Bool(bool),
    /// A number.
    Number(Number),
    /// Text.
    String(String, Style),
    /// A list.
    List(Vec<YamlNode>),
    /// A map, in the order written.
    Map(Vec<Entry>),
}

/// One key of a map with its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub key_region: Region,
    /// The value.
    pub value: YamlNode,
}

impl YamlNode {
    /// The value of a key, if this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&YamlNode> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The entry of a key, if this is a map that has it.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            NodeValue::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// The text, if this is a string.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            NodeValue::String(text, _) => Some(text),
            _ => None,
        }
    }

    /// Follows keys and list indices.
    pub fn at(&self, path: &[&str]) -> Option<&YamlNode> {
        path.iter().try_fold(self, |node, step| match &node.value {
            NodeValue::List(items) => step.parse::<usize>().ok().and_then(|index| items.get(index)),
            _ => node.get(step),
        })
    }

    /// The region of the value at a path, or of the nearest value above it that exists.
    pub fn region_at(&self, path: &[&str]) -> Region {
        (0..=path.len())
            .rev()
            .find_map(|len| self.at(&path[..len]))
            .map_or(Region::default(), |node| node.region)
    }

    /// The region of the last key of a path; of the value where there is no key.
    pub fn key_region_at(&self, path: &[&str]) -> Region {
        let key = path.split_last().and_then(|(key, above)| self.at(above)?.entry(key));
        key.map_or_else(|| self.region_at(path), |entry| entry.key_region)
    }

    /// The same value as JSON.
    pub fn to_json(&self) -> Value {
        match &self.value {
            NodeValue::Null => Value::Null,
            NodeValue::Bool(value) => Value::Bool(*value),
            NodeValue::Number(number) => Value::Number(number.clone()),
            NodeValue::String(text, _) => Value::String(text.clone()),
            NodeValue::List(items) => Value::Array(items.iter().map(YamlNode::to_json).collect()),
            NodeValue::Map(entries) => {
                let map: Map<String, Value> = entries
                    .iter()
                    .map(|entry| (entry.key.clone(), entry.value.to_json()))
                    .collect();
                Value::Object(map)
            }
        }
    }

    /// A tree without places, from JSON. Deeper than [`DEPTH_MAX`] is cut to null; `serde_json`
    /// refuses more than 128 levels before that.
    pub fn from_json(value: &Value) -> Self {
        Self::from_json_at(value, 0)
    }

    fn from_json_at(value: &Value, depth: usize) -> Self {
        let value = match value {
            _ if depth > DEPTH_MAX => NodeValue::Null,
            Value::Null => NodeValue::Null,
            Value::Bool(value) => NodeValue::Bool(*value),
            Value::Number(number) => NodeValue::Number(number.clone()),
            Value::String(text) => NodeValue::String(text.clone(), Style::Plain),
            Value::Array(items) => NodeValue::List(
                items.iter().map(|item| Self::from_json_at(item, depth + 1)).collect(),
            ),
            Value::Object(map) => NodeValue::Map(
                map.iter()
                    .map(|(key, value)| Entry {
                        key: key.clone(),
                        key_region: Region::default(),
                        value: Self::from_json_at(value, depth + 1),
                    })
                    .collect(),
            ),
        };
        Self { value, region: Region::default() }
    }

    /// The kind of value, for messages.
    pub fn describe(&self) -> &'static str {
        match &self.value {
            NodeValue::Null => "nothing",
            NodeValue::Bool(_) => "true or false",
            NodeValue::Number(_) => "a number",
            NodeValue::String(..) => "text",
            NodeValue::List(_) => "a list",
            NodeValue::Map(_) => "a map",
        }
    }
}

/// One document of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The root value; of a broken document, what was read before the fault.
    pub root: YamlNode,
    /// Whether a syntax error or a limit ended it early.
    pub broken: bool,
}

/// Reads all documents of one text. Empty documents are left out.
///
/// * `file`: the name that diagnostics carry.
/// * Every fault is pushed to `diagnostics`; none stops the next document.
pub fn read(file: &str, text: &str, diagnostics: &mut Vec<Diagnostic>) -> Vec<Document> {
    if text.len() > SOURCE_BYTES_MAX {
        diagnostics.push(
            Diagnostic::error(
                Code::TooLarge,
                file,
                Region::default(),
                format!("`{file}` is larger than 16 MiB"),
            )
            .help("split it, or use a TwinSet"),
        );
        return Vec::new();
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    for (lines_before, part) in split_documents(text) {
        if documents.len() == DOCUMENTS_MAX {
            let region = Region { at: Position { line: lines_before + 1, column: 1 }, width: 3 };
            diagnostics.push(
                Diagnostic::error(
                    Code::TooLarge,
                    file,
                    region,
                    format!("`{file}` has more than {DOCUMENTS_MAX} documents"),
                )
                .help("use a TwinSet, or split the file"),
            );
            break;
        }
        let mut builder = Builder::new(file, lines_before, diagnostics);
        // What a merge would have brought is not missed.
        let broken = builder.run(part).is_err() || builder.merges;
        if let Some(root) = builder.into_root() {
            let empty = root.value == NodeValue::Null;
            if !empty {
                documents.push(Document { root, broken });
            }
        }
    }
    documents
}

/// Cuts a text at its `---` and `...` lines, which YAML reserves at column 1 of any line.
/// Yields the number of lines before each part.
fn split_documents(text: &str) -> Vec<(u32, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 0, 0);
    for (line, content) in (0_u32..).zip(text.split_inclusive('\n')) {
        let marker = |word: &str| {
            content
                .strip_prefix(word)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
        };
        // A directive (`%YAML 1.2`) belongs to the document whose `---` follows it.
        let directives_only = text[start..offset].lines().all(|line| {
            line.is_empty()
                || line.starts_with('%')
                || line.trim_start().starts_with('#')
                || line.trim().is_empty()
        });
        if marker("---") && offset > start && !directives_only {
            parts.push((start_line, &text[start..offset]));
            (start, start_line) = (offset, line);
        } else if marker("...") {
            parts.push((start_line, &text[start..offset]));
            (start, start_line) = (offset + content.len(), line + 1);
        }
        offset += content.len();
    }
    parts.push((start_line, &text[start..]));
    parts
}

/// The document cannot be read further; the diagnostic has been pushed.
struct Stopped;

/// Builds the tree of one document from the parser's events.
struct Builder<'a> {
    file: &'a str,
    lines_before: u32,
    diagnostics: &'a mut Vec<Diagnostic>,
    stack: Vec<Frame>,
    root: Option<YamlNode>,
    anchors: HashMap<usize, (YamlNode, usize)>,
    nodes: usize,
    alias_nodes: usize,
    /// Whether there was a merge key, which is refused.
    merges: bool,
}

/// A list or map that has not ended yet.
struct Frame {
    region: Region,
    anchor: usize,
    nodes_before: usize,
    content: Content,
}

enum Content {
    List(Vec<YamlNode>),
    Map { entries: Vec<Entry>, index: HashMap<String, usize>, key: Option<Key> },
}

/// A key whose value has not come yet.
enum Key {
    Good(String, Region),
    /// Reported already; its value is dropped.
    Bad,
}

impl<'a> Builder<'a> {
    fn new(file: &'a str, lines_before: u32, diagnostics: &'a mut Vec<Diagnostic>) -> Self {
        Self {
            file,
            lines_before,
            diagnostics,
            stack: Vec::new(),
            root: None,
            anchors: HashMap::new(),
            nodes: 0,
            alias_nodes: 0,
            merges: false,
        }
    }

    fn region(&self, span: Span) -> Region {
        let line =
            u32::try_from(span.start.line()).unwrap_or(u32::MAX).saturating_add(self.lines_before);
        let column = u32::try_from(span.start.col()).unwrap_or(u32::MAX).saturating_add(1);
        let width = if span.end.line() == span.start.line() {
            span.end.col().saturating_sub(span.start.col())
        } else {
            1
        };
        Region { at: Position { line, column }, width: u32::try_from(width.max(1)).unwrap_or(1) }
    }

    fn push(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    fn run(&mut self, text: &str) -> Result<(), Stopped> {
        let mut parser = Parser::new_from_str(text);
        while let Some(event) = parser.next_event() {
            match event {
                Ok((event, span)) => self.event(event, span)?,
                Err(error) => {
                    let mut region = self.region(Span::empty(*error.marker()));
                    let lines: Vec<&str> = text.lines().collect();
                    let last = lines.iter().rposition(|line| !line.trim().is_empty()).unwrap_or(0);
                    let end = u32::try_from(last + 1).unwrap_or(u32::MAX) + self.lines_before;
                    if region.at.line > end {
                        // Noticed at the end of the text: show where the text ends.
                        let columns =
                            lines.get(last).map_or(0, |line| line.trim_end().chars().count());
                        region.at =
                            Position { line: end, column: u32::try_from(columns).unwrap_or(0) + 1 };
                    }
                    let (message, help) = explain_syntax(error.info());
                    let mut diagnostic =
                        Diagnostic::error(Code::Syntax, self.file, region, message);
                    if let Some(help) = help {
                        diagnostic = diagnostic.help(help);
                    }
                    self.push(diagnostic);
                    return Err(Stopped);
                }
            }
        }
        Ok(())
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Stopped> {
        let region = self.region(span);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = self.scalar(&text, style, tag.as_deref(), region);
                self.count(1, region)?;
                let node = YamlNode { value, region };
                if anchor > 0 {
                    self.anchors.insert(anchor, (node.clone(), 1));
                }
                self.complete(node, Some(&text));
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), region);
                self.open(Content::List(Vec::new()), anchor, region)?;
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), region);
                let content =
                    Content::Map { entries: Vec::new(), index: HashMap::new(), key: None };
                self.open(content, anchor, region)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(id) => {
                let Some((node, nodes)) = self.anchors.get(&id) else {
                    let message = "an alias inside the value that it names".to_owned();
                    self.push(Diagnostic::error(Code::Yaml, self.file, region, message));
                    return Err(Stopped);
                };
                let (mut node, nodes) = (node.clone(), *nodes);
                self.alias_nodes += nodes;
                if self.alias_nodes > ALIAS_NODES_MAX {
                    let message = format!(
                        "aliases make this document larger by more than {ALIAS_NODES_MAX} values"
                    );
                    self.push(
                        Diagnostic::error(Code::TooLarge, self.file, region, message)
                            .help("write the values out, or use a TwinSet"),
                    );
                    return Err(Stopped);
                }
                self.count(nodes, region)?;
                node.region = region;
                let text = node.as_str().map(str::to_owned);
                self.complete(node, text.as_deref());
            }
            Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::Nothing => {}
        }
        Ok(())
    }

    fn count(&mut self, nodes: usize, region: Region) -> Result<(), Stopped> {
        self.nodes += nodes;
        if self.nodes > NODES_MAX {
            let message = format!("this document has more than {NODES_MAX} values");
            self.push(Diagnostic::error(Code::TooLarge, self.file, region, message));
            return Err(Stopped);
        }
        Ok(())
    }

    fn open(&mut self, content: Content, anchor: usize, region: Region) -> Result<(), Stopped> {
        if self.stack.len() == DEPTH_MAX {
            let message = format!("this document is nested more than {DEPTH_MAX} levels deep");
            self.push(Diagnostic::error(Code::TooLarge, self.file, region, message));
            return Err(Stopped);
        }
        self.count(1, region)?;
        self.stack.push(Frame { region, anchor, nodes_before: self.nodes, content });
        Ok(())
    }

    fn close(&mut self) {
        let Some(frame) = self.stack.pop() else {
            return;
        };
        let value = match frame.content {
            Content::List(items) => NodeValue::List(items),
            Content::Map { entries, .. } => NodeValue::Map(entries),
        };
        let node = YamlNode { value, region: frame.region };
        if frame.anchor > 0 {
            self.anchors.insert(frame.anchor, (node.clone(), self.nodes - frame.nodes_before + 1));
        }
        self.complete(node, None);
    }

    /// Puts a finished value where it belongs. `text` is a scalar's text, which makes a key.
    fn complete(&mut self, node: YamlNode, text: Option<&str>) {
        let Some(frame) = self.stack.last_mut() else {
            self.root.get_or_insert(node);
            return;
        };
        let (entries, index, key) = match &mut frame.content {
            Content::List(items) => {
                items.push(node);
                return;
            }
            Content::Map { entries, index, key } => (entries, index, key),
        };
        match key.take() {
            Some(Key::Good(name, key_region)) => {
                index.insert(name.clone(), entries.len());
                entries.push(Entry { key: name, key_region, value: node });
            }
            Some(Key::Bad) => {}
            None => {
                let Some(text) = text else {
                    *key = Some(Key::Bad);
                    let message = format!("{} is used as a key", node.describe());
                    let diagnostic = Diagnostic::error(Code::Yaml, self.file, node.region, message)
                        .help("keys are text");
                    self.push(diagnostic);
                    return;
                };
                if let Some(first) = index.get(text).and_then(|at| entries.get(*at)) {
                    let first = first.key_region.at;
                    *key = Some(Key::Bad);
                    let diagnostic = Diagnostic::error(
                        Code::DuplicateKey,
                        self.file,
                        node.region,
                        format!("`{text}` is given twice"),
                    )
                    .label("the second time here")
                    .help(format!(
                        "the first is at line {}, column {}; keep one",
                        first.line, first.column
                    ));
                    self.push(diagnostic);
                    return;
                }
                if text == "<<" && matches!(node.value, NodeValue::String(_, Style::Plain)) {
                    *key = Some(Key::Bad);
                    self.merges = true;
                    let message = "`<<` merge keys are not supported".to_owned();
                    let diagnostic = Diagnostic::error(Code::Yaml, self.file, node.region, message)
                        .help("write the fields out, or give an alias to a whole value: `spec: *base`")
                        .help("what many twins have in common goes into a TwinSet's `template`");
                    self.push(diagnostic);
                    return;
                }
                *key = Some(Key::Good(text.to_owned(), node.region));
            }
        }
    }

    fn refuse_tag(&mut self, tag: Option<&Tag>, region: Region) {
        if let Some(tag) = tag {
            let message = format!("the tag `{tag}` is not supported");
            let diagnostic =
                Diagnostic::error(Code::Yaml, self.file, region, message).help("leave it out");
            self.push(diagnostic);
        }
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        region: Region,
    ) -> NodeValue {
        let style = match style {
            ScalarStyle::Plain => Style::Plain,
            ScalarStyle::SingleQuoted => Style::Single,
            ScalarStyle::DoubleQuoted => Style::Double,
            ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
        };
        if let Some(tag) = tag {
            if tag.is_yaml_core_schema() && tag.suffix == "str" {
                return NodeValue::String(text.to_owned(), style);
            }
            self.refuse_tag(Some(tag), region);
        }
        if style != Style::Plain {
            return NodeValue::String(text.to_owned(), style);
        }
        let value = resolve_plain(text);
        if let Resolved::NotFinite = value {
            let message = format!("`{text}` is not a finite number");
            let diagnostic = Diagnostic::error(Code::Yaml, self.file, region, message)
                .help("leave the field out to set no bound; quote it if it is text");
            self.push(diagnostic);
        }
        match value {
            Resolved::Null => NodeValue::Null,
            // Reported; a number in its place keeps the field's type right.
            Resolved::NotFinite => {
                NodeValue::Number(Number::from_f64(f64::MAX).unwrap_or_else(|| 0.into()))
            }
            Resolved::Bool(value) => NodeValue::Bool(value),
            Resolved::Number(number) => NodeValue::Number(number),
            Resolved::Text => NodeValue::String(text.to_owned(), Style::Plain),
        }
    }

    /// The root; of a broken document, what there is of it.
    fn into_root(mut self) -> Option<YamlNode> {
        let reported = self.diagnostics.len();
        while !self.stack.is_empty() {
            self.close();
        }
        // What looks odd only because it is unfinished needs no diagnostic.
        self.diagnostics.truncate(reported);
        self.root
    }
}

enum Resolved {
    Null,
    Bool(bool),
    Number(Number),
    NotFinite,
    Text,
}

/// What a plain scalar means in the core schema of YAML 1.2.2, §10.3.2.
fn resolve_plain(text: &str) -> Resolved {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Resolved::Null,
        "true" | "True" | "TRUE" => return Resolved::Bool(true),
        "false" | "False" | "FALSE" => return Resolved::Bool(false),
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF"
        | "-.inf" | "-.Inf" | "-.INF" => return Resolved::NotFinite,
        _ => {}
    }
    // Only text that starts like a number can be one; most scalars are distinguished here.
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.')) {
        return Resolved::Text;
    }
    let radix = |prefix: &str, radix| {
        text.strip_prefix(prefix).and_then(|digits| u64::from_str_radix(digits, radix).ok())
    };
    if let Some(number) = radix("0x", 16).or_else(|| radix("0o", 8)) {
        return Resolved::Number(number.into());
    }
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    if let Ok(number) = unsigned.parse::<i64>() {
        return Resolved::Number(number.into());
    }
    if let Ok(number) = unsigned.parse::<u64>() {
        return Resolved::Number(number.into());
    }
    let like_number =
        text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.' | b'e' | b'E'))
            && text.bytes().any(|b| b.is_ascii_digit());
    match text.parse::<f64>() {
        Ok(number) if like_number => {
            Number::from_f64(number).map_or(Resolved::NotFinite, Resolved::Number)
        }
        _ => Resolved::Text,
    }
}

/// The parser's message in plainer terms, and what usually helps.
fn explain_syntax(info: &str) -> (String, Option<&'static str>) {
    let help = if info.contains("mapping values are not allowed") {
        Some(
            "a `: ` inside an unquoted value starts a map: quote the value; or the indentation is off",
        )
    } else if info.contains('\t') || info.contains("tab") {
        Some("indent with spaces; YAML does not allow tabs there")
    } else if info.contains("unexpected end") || info.contains("eof") || info.contains("EOF") {
        Some("a quote or bracket is not closed")
    } else if info.contains("did not find expected key") || info.contains("block mapping") {
        Some("check the indentation: keys of one map start in the same column")
    } else if info.contains("',' or") || info.contains("flow") {
        Some("a `[` or `{` is not closed, or a comma is missing")
    } else if info.contains("unknown anchor") {
        Some("an alias (`*name`) needs its anchor (`&name`) earlier in the same document")
    } else {
        None
    };
    (format!("this is not YAML: {info}"), help)
}

/// Finds the place of a byte of a scalar's text in the file.
///
/// * `source`: the file's text.
/// * `node`: the scalar; anything else gives its own place.
/// * `offset`: a byte offset into the scalar's text; the end is allowed.
///
/// The text and the file differ where quotes escape, where lines fold, and where a block is
/// indented. Both are walked together; runs of white space may differ in length, all else is
/// matched character by character.
pub fn position_in_scalar(source: &str, node: &YamlNode, offset: usize) -> Position {
    let NodeValue::String(text, style) = &node.value else {
        return node.region.at;
    };
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    let mut raw = RawCursor::new(source, node.region.at);
    match style {
        Style::Single | Style::Double => raw.skip(),
        Style::Block => raw.skip_header(),
        Style::Plain => {}
    }
    let mut chars = text.char_indices().peekable();
    while let Some(&(at, c)) = chars.peek() {
        if *style == Style::Double && raw.at_escaped_break() {
            raw.skip();
            raw.skip_blank();
            continue;
        }
        let blank = matches!(c, ' ' | '\t' | '\n');
        let raw_blank = raw.peek().is_some_and(|r| matches!(r, ' ' | '\t' | '\n' | '\r'));
        if blank && raw_blank {
            // Runs that hold no line break are equal; else the text's run stands for the whole.
            let folded = raw.run_has_break();
            while let Some(&(at, _)) = chars.peek().filter(|(_, c)| matches!(c, ' ' | '\t' | '\n'))
            {
                if at >= offset {
                    return raw.position();
                }
                chars.next();
                if !folded {
                    raw.skip();
                }
            }
            if folded {
                raw.skip_blank();
            }
            continue;
        }
        if !blank && raw_blank {
            // White space that the text does not have: a fold that was escaped, or indentation.
            raw.skip_blank();
        }
        if at >= offset {
            return raw.position();
        }
        chars.next();
        match (style, raw.peek()) {
            (Style::Single, Some('\'')) => {
                raw.skip();
                raw.skip();
            }
            (Style::Double, Some('\\')) => raw.skip_escape(),
            _ => raw.skip(),
        }
    }
    raw.position()
}

/// Walks the file's characters and knows the line and column.
struct RawCursor<'a> {
    rest: std::str::Chars<'a>,
    at: Position,
}

impl<'a> RawCursor<'a> {
    fn new(source: &'a str, at: Position) -> Self {
        let line = source.split_inclusive('\n').skip(at.line.saturating_sub(1) as usize);
        let start = line.clone().next().map_or(source.len(), |line| {
            let columns = at.column.saturating_sub(1) as usize;
            let in_line = line.char_indices().nth(columns).map_or(line.len(), |(byte, _)| byte);
            line.as_ptr().addr() - source.as_ptr().addr() + in_line
        });
        Self { rest: source[start..].chars(), at }
    }

    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    fn position(&self) -> Position {
        self.at
    }

    fn skip(&mut self) {
        match self.rest.next() {
            Some('\n') => self.at = Position { line: self.at.line + 1, column: 1 },
            Some(_) => self.at.column += 1,
            None => {}
        }
    }

    fn skip_blank(&mut self) {
        while self.peek().is_some_and(|c| matches!(c, ' ' | '\t' | '\n' | '\r')) {
            self.skip();
        }
    }

    fn run_has_break(&self) -> bool {
        self.rest.clone().take_while(|c| matches!(c, ' ' | '\t' | '\n' | '\r')).any(|c| c == '\n')
    }

    /// A backslash at the end of a line joins it with the next.
    fn at_escaped_break(&self) -> bool {
        let mut rest = self.rest.clone();
        rest.next() == Some('\\') && matches!(rest.next(), Some('\n' | '\r'))
    }

    /// `|` or `>` with its indicators and comment, up to the first character of the content.
    fn skip_header(&mut self) {
        if self.peek().is_some_and(|c| matches!(c, '|' | '>')) {
            while self.peek().is_some_and(|c| c != '\n') {
                self.skip();
            }
            self.skip_blank();
        }
    }

    /// One escape of a double-quoted scalar.
    fn skip_escape(&mut self) {
        self.skip();
        let digits = match self.peek() {
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            _ => 0,
        };
        (0..=digits).for_each(|_| self.skip());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn one(text: &str) -> Value {
        let mut diagnostics = Vec::new();
        let documents = read("t.yaml", text, &mut diagnostics);
        assert_eq!(diagnostics, [], "{text}");
        documents[0].root.to_json()
    }

    fn faults(text: &str) -> Vec<(Code, u32, u32)> {
        let mut diagnostics = Vec::new();
        read("t.yaml", text, &mut diagnostics);
        diagnostics.iter().map(|d| (d.code, d.line, d.column)).collect()
    }

    #[test]
    fn words_are_those_of_yaml_1_2() {
        let value = one(
            "a: on\nb: no\nc: true\nd: 017\ne: 0x1f\nf: 1.5e3\ng: ~\nh: 'true'\ni: 1_000\nj: -\u{e9}\nk: 1.2.3\n",
        );
        assert_eq!(
            value,
            json!({"a": "on", "b": "no", "c": true, "d": 17, "e": 31, "f": 1500.0, "g": null, "h": "true",
                "i": "1_000", "j": "-é", "k": "1.2.3"})
        );
    }

    #[test]
    fn a_broken_document_does_not_hide_the_next_ones_errors() {
        let text = "a: [1, 2\n---\nb: 1\nb: 2\n---\nc: {x: 1, x: 2}\n";
        let faults = faults(text);
        assert_eq!(faults[1..], [(Code::DuplicateKey, 4, 1), (Code::DuplicateKey, 6, 11)]);
        assert_eq!(faults[0].0, Code::Syntax);
    }

    #[test]
    fn a_merge_key_is_one_mistake_with_its_cure() {
        let text = "a: &b {x: 1}\nc:\n  <<: *b\n  y: 2\n";
        let mut diagnostics = Vec::new();
        let documents = read("f", text, &mut diagnostics);
        assert!(documents[0].broken);
        let [one] = &diagnostics[..] else { panic!("{diagnostics:?}") };
        assert_eq!((one.code, one.line, one.column), (Code::Yaml, 3, 3));
        assert!(one.message.contains("not supported") && one.help[0].contains("alias"), "{one:?}");
        // In quotes it is a key like any other.
        assert_eq!(faults("'<<': 1\n"), []);
    }

    #[test]
    fn what_was_read_of_a_broken_document_is_kept() {
        let mut diagnostics = Vec::new();
        let documents =
            read("t.yaml", "kind: Twin\nmetadata: {name: a}\nspec: [\n", &mut diagnostics);
        assert!(documents[0].broken);
        assert_eq!(documents[0].root.at(&["metadata", "name"]).unwrap().as_str(), Some("a"));
    }

    #[test]
    fn empty_documents_are_left_out() {
        let mut diagnostics = Vec::new();
        let documents =
            read("t.yaml", "---\n# nothing\n---\na: 1\n...\n---\n---\nb: 2\n", &mut diagnostics);
        assert_eq!(diagnostics, []);
        assert_eq!(documents.len(), 2);
        assert_eq!(
            documents[1].root.entry("b").unwrap().key_region.at,
            Position { line: 8, column: 1 }
        );
    }

    #[test]
    fn directives_belong_to_the_next_document() {
        assert_eq!(one("%YAML 1.2\n---\na: 1\n"), json!({"a": 1}));
    }

    #[test]
    fn alias_bombs_are_refused() {
        let mut text = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for (name, before) in [('b', 'a'), ('c', 'b'), ('d', 'c'), ('e', 'd'), ('f', 'e')] {
            text += &format!(
                "{name}: &{name} [*{before}, *{before}, *{before}, *{before}, *{before}, *{before}]\n"
            );
        }
        let faults = faults(&text);
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert_eq!(faults[0].0, Code::TooLarge);
    }

    #[test]
    fn deep_nesting_is_refused() {
        for text in ["[".repeat(100_000), "- ".repeat(1000), "{a: ".repeat(5000)] {
            let faults = faults(&text);
            assert!(matches!(faults[0].0, Code::TooLarge | Code::Syntax), "{faults:?}");
        }
    }

    #[test]
    fn alias_inside_its_own_anchor_is_refused() {
        assert!(!faults("a: &a [1, *a]\n").is_empty());
    }

    #[test]
    fn odd_values_are_refused_where_they_stand() {
        assert_eq!(faults("a: .nan\n"), [(Code::Yaml, 1, 4)]);
        assert_eq!(faults("? [a]\n: 1\n"), [(Code::Yaml, 1, 3)]);
        assert_eq!(faults("a: !x 1\n"), [(Code::Yaml, 1, 4)]);
    }

    /// Marks the place of `needle` in the scalar under `key` and returns it.
    fn place(text: &str, needle: &str) -> (u32, u32) {
        let mut diagnostics = Vec::new();
        let documents = read("t.yaml", text, &mut diagnostics);
        assert_eq!(diagnostics, [], "{text}");
        let node = documents[0].root.get("when").unwrap();
        let offset = node.as_str().unwrap().find(needle).unwrap();
        let at = position_in_scalar(text, node, offset);
        (at.line, at.column)
    }

    #[test]
    fn places_inside_scalars_survive_every_style() {
        assert_eq!(place("when: aa && bb\n", "bb"), (1, 13));
        assert_eq!(place("when: 'aa && bb'\n", "bb"), (1, 14));
        assert_eq!(place("when: 'a == ''x'' && bb'\n", "bb"), (1, 22));
        assert_eq!(place("when: \"a == \\\"x\\\" && bb\"\n", "bb"), (1, 22));
        assert_eq!(place("when: \"\\u00e9\\x41 bb\"\n", "bb"), (1, 19));
        assert_eq!(place("when: |\n  aa &&\n  bb\n", "bb"), (3, 3));
        assert_eq!(place("when: >-\n  aa &&\n\n    bb cc\n  dd\n", "cc"), (4, 8));
        assert_eq!(place("when: >-\n  aa &&\n\n    bb cc\n  dd\n", "dd"), (5, 3));
        assert_eq!(place("when:\n  aa &&\n  bb\n", "bb"), (3, 3));
        assert_eq!(place("when: 'aa &&\n\n  bb'\n", "bb"), (3, 3));
        assert_eq!(place("when: \"aa \\\n  bb\"\n", "bb"), (2, 3));
        assert_eq!(place("x: é\nwhen: 'é && bb'\n", "bb"), (2, 13));
    }
}
