//! An object as it is stored: its document as text, and the little that is asked for often.
//!
//! Ten thousand parsed objects would take a hundred megabytes, and most are looked at once in five
//! minutes; so the text is shared with the writer, and parsed when it is needed.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::key::ObjectKey;
use super::wanted::{self, Made};
use crate::kinds::Kind;
use crate::manifest::Object;

/// An object as it is stored. See the module.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Rises by one with each change of the spec.
    pub generation: u64,
    /// Rises by one with each change of anything declared.
    pub revision: u64,
    /// The set that owns it.
    pub set: Option<Box<str>>,
    /// When it was first applied, microseconds since 1970.
    pub created_us: i64,
    /// Whether it goes as soon as what it made is gone.
    pub deleting: bool,
    /// The document.
    text: Arc<str>,
    /// Where in it the object ends.
    object_end: usize,
    links: Links,
}

/// How other objects are found that an object has to do with.
#[derive(Debug, Clone, Default)]
enum Links {
    #[default]
    None,
    /// A TwinModel (of a Twin) or a Model (of a Service) that it refers to.
    Model(Box<str>),
    /// A TwinSet: which twins it makes, and their TwinModel.
    Makes(Box<Makes>),
    /// A TwinAggregate with members by name.
    Members,
}

#[derive(Debug, Clone, Default)]
struct Makes {
    count: u32,
    names: Option<HashSet<String>>,
    model: Option<Box<str>>,
}

/// The document, in the order in which it is written: the object comes first.
#[derive(Serialize)]
struct Document<'a> {
    object: &'a Value,
    generation: u64,
    revision: u64,
    set: Option<&'a str>,
    created: i64,
    deleting: bool,
    made: &'a Made,
}

const OBJECT_START: usize = r#"{"object":"#.len();

/// What decides about an object beside what it asks for.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// See [`Stored::generation`].
    pub generation: u64,
    /// See [`Stored::revision`].
    pub revision: u64,
    /// See [`Stored::set`].
    pub set: Option<String>,
    /// See [`Stored::created_us`].
    pub created_us: i64,
    /// See [`Stored::deleting`].
    pub deleting: bool,
    /// What it may have left in twins, by this generation or an earlier one.
    pub made: Made,
}

impl Stored {
    /// An object, to be stored.
    pub fn new(object: &Value, facts: &Facts) -> Self {
        let document = Document {
            object,
            generation: facts.generation,
            revision: facts.revision,
            set: facts.set.as_deref(),
            created: facts.created_us,
            deleting: facts.deleting,
            made: &facts.made,
        };
        // Maps with text for keys, and numbers: it always has a JSON form.
        let text = serde_json::to_string(&document).unwrap_or_default();
        Self {
            generation: facts.generation,
            revision: facts.revision,
            set: facts.set.as_deref().map(Into::into),
            created_us: facts.created_us,
            deleting: facts.deleting,
            object_end: OBJECT_START + object.to_string().len(),
            text: text.into(),
            links: links(object),
        }
    }

    /// Reads a document.
    ///
    /// # Errors
    /// What cannot be read.
    pub(super) fn read(text: &str) -> Result<(ObjectKey, Self), String> {
        #[derive(Deserialize)]
        struct Read {
            object: Value,
            generation: u64,
            revision: u64,
            set: Option<String>,
            created: i64,
            deleting: bool,
            made: Made,
        }
        let read: Read = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let part = |pointer: &str| {
            let found = read.object.pointer(pointer).and_then(Value::as_str);
            found.ok_or_else(|| format!("it has no {pointer}"))
        };
        let kind = part("/kind")?;
        let key = ObjectKey {
            kind: Kind::find(kind).ok_or_else(|| format!("there is no kind `{kind}`"))?,
            namespace: part("/metadata/namespace")?.to_owned(),
            name: part("/metadata/name")?.to_owned(),
        };
        let facts = Facts {
            generation: read.generation,
            revision: read.revision,
            set: read.set,
            created_us: read.created,
            deleting: read.deleting,
            made: read.made,
        };
        Ok((key, Self::new(&read.object, &facts)))
    }

    /// The document.
    pub(super) fn text(&self) -> Arc<str> {
        self.text.clone()
    }

    /// The object as it was declared, as JSON text.
    pub fn declared(&self) -> &str {
        self.text.get(OBJECT_START..self.object_end).unwrap_or_default()
    }

    /// The object as it was declared, as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(self.declared()).unwrap_or_default()
    }

    /// The object as it was declared.
    ///
    /// # Errors
    /// What cannot be read: another version stored it.
    pub fn object(&self) -> Result<Object, String> {
        Object::from_checked(self.json())
    }

    /// The object without its JSON; see [`Object::typed`].
    ///
    /// # Errors
    /// As [`Stored::object`].
    pub(super) fn typed(&self) -> Result<Object, String> {
        Object::typed(self.json())
    }

    /// What it may have left in twins, by this generation or an earlier one.
    pub fn made(&self) -> Made {
        #[derive(Deserialize)]
        struct OnlyMade {
            made: Made,
        }
        serde_json::from_str::<OnlyMade>(&self.text).map(|only| only.made).unwrap_or_default()
    }

    /// All facts, to be changed and stored anew.
    pub(super) fn facts(&self) -> Facts {
        Facts {
            generation: self.generation,
            revision: self.revision,
            set: self.set.as_deref().map(str::to_owned),
            created_us: self.created_us,
            deleting: self.deleting,
            made: self.made(),
        }
    }

    /// The same object, to be deleted.
    pub(super) fn to_delete(&self) -> Self {
        let revision = self.revision + 1;
        Self::new(&self.json(), &Facts { deleting: true, revision, ..self.facts() })
    }

    /// The same object without what earlier generations made; `None` if nothing is forgotten.
    pub(super) fn settled(&self) -> Option<Self> {
        let made = wanted::made(&self.typed().ok()?);
        (made != self.made()).then(|| Self::new(&self.json(), &Facts { made, ..self.facts() }))
    }

    /// Whether both are the same, as declared and as stored.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.text == other.text
    }

    /// The TwinModel (of Twin and TwinSet) or Model (of Service) that it refers to.
    pub(super) fn model(&self) -> Option<&str> {
        match &self.links {
            Links::Model(name) => Some(name),
            Links::Makes(makes) => makes.model.as_deref(),
            Links::None | Links::Members => None,
        }
    }

    /// Whether it is a TwinAggregate with members by name.
    pub(super) fn names_members(&self) -> bool {
        matches!(self.links, Links::Members)
    }

    /// How many twins a TwinSet makes.
    pub(super) fn made_now(&self) -> usize {
        match &self.links {
            Links::Makes(makes) => makes.names.as_ref().map_or(makes.count as usize, HashSet::len),
            _ => 0,
        }
    }

    /// Whether it is a TwinSet, called `set`, that makes a twin of this name.
    pub(super) fn makes(&self, set: &str, name: &str) -> bool {
        let Links::Makes(makes) = &self.links else { return false };
        if let Some(names) = &makes.names {
            return names.contains(name);
        }
        let number = name.strip_prefix(set).and_then(|rest| rest.strip_prefix('-'));
        number
            .filter(|digits| !digits.starts_with(['0', '+']))
            .and_then(|digits| digits.parse().ok())
            .is_some_and(|number: u32| (1..=makes.count).contains(&number))
    }
}

fn links(object: &Value) -> Links {
    let spec = &object["spec"];
    let text = |value: &Value| value.as_str().map(Box::from);
    match object["kind"].as_str().and_then(Kind::find) {
        Some(Kind::Twin | Kind::Service) => text(&spec["model"]).map_or(Links::None, Links::Model),
        Some(Kind::TwinSet) => {
            let names = spec["names"]
                .as_array()
                .map(|names| names.iter().filter_map(Value::as_str).map(str::to_owned).collect());
            let count = spec["count"].as_u64().and_then(|count| u32::try_from(count).ok());
            Links::Makes(Box::new(Makes {
                count: count.unwrap_or(0),
                names,
                model: text(&spec["template"]["spec"]["model"]),
            }))
        }
        Some(Kind::TwinAggregate) if spec["members"]["names"].is_array() => Links::Members,
        _ => Links::None,
    }
}

/// The objects of a kind in a namespace.
pub(super) fn in_namespace<'a>(
    objects: &'a BTreeMap<ObjectKey, Stored>,
    kind: Kind,
    namespace: &'a str,
) -> impl Iterator<Item = (&'a ObjectKey, &'a Stored)> {
    objects
        .range(ObjectKey::new(kind, namespace, "")..)
        .take_while(move |(key, _)| key.kind == kind && key.namespace == namespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn stored(spec: &Value, kind: &str) -> Stored {
        let object = json!({"apiVersion": "edgetwin.dev/v1alpha1", "kind": kind,
            "metadata": {"name": "x", "namespace": "lab"}, "spec": spec});
        let facts = Facts { generation: 3, set: Some("s".to_owned()), ..Facts::default() };
        Stored::new(&object, &facts)
    }

    #[test]
    fn a_document_reads_back() {
        let one = stored(&json!({"model": "m", "attributes": {"a": "\"object\":"}}), "Twin");
        let (key, read) = Stored::read(&one.text()).unwrap();
        assert_eq!(key.to_string(), "Twin/lab/x");
        assert!(read.is(&one));
        assert_eq!((read.json(), read.declared()), (one.json(), one.declared()));
        assert_eq!((read.generation, read.set.as_deref(), read.model()), (3, Some("s"), Some("m")));
        assert!(read.to_delete().deleting);
        assert!(Stored::read("{}").is_err());
    }

    #[test]
    fn a_set_knows_its_twins() {
        let counted = stored(&json!({"count": 3, "template": {"spec": {}}}), "TwinSet");
        for (name, made) in [
            ("x-1", true),
            ("x-3", true),
            ("x-4", false),
            ("x-0", false),
            ("x-01", false),
            ("x-+1", false),
            ("y-1", false),
            ("x", false),
        ] {
            assert_eq!(counted.makes("x", name), made, "{name}");
        }
        let named = stored(&json!({"names": ["a"], "template": {"spec": {}}}), "TwinSet");
        assert!(named.makes("x", "a") && !named.makes("x", "x-1"));
    }
}
