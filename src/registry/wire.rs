//! Eureka's instances as text, JSON and XML (pure).
//!
//! Reading is lenient, because clients are not careful: numbers as strings and the reverse, nulls,
//! either spelling of `overriddenStatus`, fields that are missing or unknown. Writing is strict,
//! because other clients are: every list is a list, ports are objects, and no field is added that
//! Eureka does not have.
//!
//! Both formats are read into one shape, JSON as Eureka's codec writes it, so there is one place
//! that knows what an instance means ([`instance_of`]). Source: Netflix/eureka,
//! `EurekaJacksonCodec`, `Converters` and `XmlXStream`; field by field as real clients send it.
//!
//! Not here: HTTP, and what a registration does (`table`).

use std::collections::BTreeMap;
use std::sync::Arc;

use quick_xml::XmlVersion;
use quick_xml::escape::{escape, resolve_predefined_entity};
use quick_xml::events::{BytesStart, Event};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::instance::{Action, DataCenter, Endpoint, Instance, Lease, Port, Status};

/// Deepest nesting of an XML body. Why: an instance has three levels; more is an attack or an
/// error, and is refused.
const XML_DEPTH_MAX: usize = 16;

const EMPTY_MAP: &str = "java.util.Collections$EmptyMap";

/// A format of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Xml,
}

impl Format {
    /// What an `Accept` header asks for: JSON only where it says so; nothing and `*/*` are XML.
    pub(super) fn accepted(accept: Option<&str>) -> Self {
        match accept {
            Some(accept) if accept.to_ascii_lowercase().contains("json") => Self::Json,
            _ => Self::Xml,
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Xml => "application/xml",
        }
    }
}

/// What a body is wrapped in.
pub(super) enum Document<'a> {
    /// Some applications with their instances, the number of the delta (1 for all, -1 for a part),
    /// and the hash of all.
    Applications { apps: &'a [(String, Vec<Arc<Instance>>)], version: i64, hash: &'a str },
    /// One application.
    Application { name: &'a str, instances: &'a [Arc<Instance>] },
    /// One instance.
    Instance(&'a Instance),
}

/// Writes a document.
///
/// * `compact`: leave out what callers need not know (`X-Eureka-Accept: compact`).
pub(super) fn write(document: &Document<'_>, format: Format, compact: bool) -> String {
    let instances =
        |list: &[Arc<Instance>]| Out::List(list.iter().map(|i| value_of(i, compact)).collect());
    let application = |name: &str, list: &[Arc<Instance>]| {
        Out::Map(vec![("name".to_owned(), text(name)), ("instance".to_owned(), instances(list))])
    };
    let (root, value) = match document {
        Document::Applications { apps, version, hash } => {
            let apps = apps.iter().map(|(name, list)| application(name, list)).collect();
            let value = Out::Map(vec![
                ("versions__delta".to_owned(), Out::Text(version.to_string())),
                ("apps__hashcode".to_owned(), text(hash)),
                ("application".to_owned(), Out::List(apps)),
            ]);
            ("applications", value)
        }
        Document::Application { name, instances } => ("application", application(name, instances)),
        Document::Instance(instance) => ("instance", value_of(instance, compact)),
    };
    match format {
        // Texts and numbers alone: serialising them cannot fail.
        Format::Json => {
            serde_json::to_string(&Out::Map(vec![(root.to_owned(), value)])).unwrap_or_default()
        }
        Format::Xml => {
            let mut out = String::new();
            write_xml(&mut out, root, &value);
            out
        }
    }
}

/// A document in the order in which it is written (a JSON map of the usual kind sorts its keys).
enum Out {
    Text(String),
    Number(i64),
    List(Vec<Out>),
    Map(Vec<(String, Out)>),
}

fn text(text: &str) -> Out {
    Out::Text(text.to_owned())
}

impl Serialize for Out {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Number(number) => serializer.serialize_i64(*number),
            Self::List(list) => serializer.collect_seq(list),
            Self::Map(entries) => serializer.collect_map(entries.iter().map(|(k, v)| (k, v))),
        }
    }
}

/// Entries of a map of texts.
fn texts(map: &BTreeMap<String, String>) -> Vec<(String, Out)> {
    map.iter().map(|(key, value)| (key.clone(), text(value))).collect()
}

/// An instance as Eureka's JSON has it, in the order of its XML.
fn value_of(i: &Instance, compact: bool) -> Out {
    let mut map = Vec::with_capacity(24);
    let mut put = |key: &str, value: Out| map.push((key.to_owned(), value));
    put("instanceId", text(&i.id));
    put("hostName", text(&i.host));
    put("app", text(&i.app));
    put("ipAddr", text(&i.ip));
    if let Some(sid) = i.sid.as_deref().filter(|s| !compact && !["na", "unknown"].contains(s)) {
        put("sid", text(sid));
    }
    put("status", text(i.status.name()));
    if !compact {
        put("overriddenStatus", text(i.overridden.name()));
    }
    for (key, port) in [("port", i.port), ("securePort", i.secure_port)] {
        let number = ("$".to_owned(), Out::Number(i64::from(port.number)));
        let enabled = ("@enabled".to_owned(), Out::Text(port.enabled.to_string()));
        put(key, Out::Map(vec![number, enabled]));
    }
    if !compact {
        put("countryId", Out::Number(i.country_id));
    }
    let class = if i.data_center.name == "Amazon" { AMAZON } else { MY_OWN };
    let mut center =
        vec![("@class".to_owned(), text(class)), ("name".to_owned(), text(&i.data_center.name))];
    if !i.data_center.metadata.is_empty() {
        center.push(("metadata".to_owned(), Out::Map(texts(&i.data_center.metadata))));
    }
    put("dataCenterInfo", Out::Map(center));
    if !compact {
        let lease = [
            ("renewalIntervalInSecs", i64::from(i.lease.renewal_s)),
            ("durationInSecs", i64::from(i.lease.duration_s)),
            ("registrationTimestamp", i.lease.registered_ms),
            ("lastRenewalTimestamp", i.lease.renewed_ms),
            ("evictionTimestamp", i.lease.evicted_ms),
            ("serviceUpTimestamp", i.lease.up_ms),
        ];
        let lease = lease.map(|(key, number)| (key.to_owned(), Out::Number(number)));
        put("leaseInfo", Out::Map(lease.into()));
        let metadata = if i.metadata.is_empty() {
            vec![("@class".to_owned(), text(EMPTY_MAP))]
        } else {
            texts(&i.metadata)
        };
        put("metadata", Out::Map(metadata));
    }
    let optional = [
        ("appGroupName", &i.app_group, compact),
        ("homePageUrl", &i.home_page, compact),
        ("statusPageUrl", &i.status_page, compact),
        ("healthCheckUrl", &i.health_check, compact),
        ("secureHealthCheckUrl", &i.secure_health_check, compact),
        ("vipAddress", &i.vip, false),
        ("secureVipAddress", &i.secure_vip, false),
    ];
    for (key, value, left_out) in optional {
        if let Some(value) = value.as_deref().filter(|_| !left_out) {
            put(key, text(value));
        }
    }
    if !compact {
        put("isCoordinatingDiscoveryServer", Out::Text(i.coordinating.to_string()));
    }
    put("lastUpdatedTimestamp", Out::Text(i.updated_ms.to_string()));
    if !compact {
        put("lastDirtyTimestamp", Out::Text(i.dirty_ms.to_string()));
    }
    put("actionType", text(i.action.name()));
    if let Some(asg) = &i.asg {
        put("asgName", text(asg));
    }
    Out::Map(map)
}

const MY_OWN: &str = "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo";
const AMAZON: &str = "com.netflix.appinfo.AmazonInfo";

/// Writes a value as XML: lists repeat their element, `@class` and `@enabled` are attributes, `$`
/// is the text.
fn write_xml(out: &mut String, name: &str, value: &Out) {
    let leaf = |out: &mut String, text: &str| {
        out.push_str(&format!("<{name}>{}</{name}>", xml_text(text)))
    };
    match value {
        Out::List(list) => list.iter().for_each(|v| write_xml(out, name, v)),
        Out::Text(text) => leaf(out, text),
        Out::Number(number) => leaf(out, &number.to_string()),
        Out::Map(map) => {
            out.push('<');
            out.push_str(name);
            for (key, value) in map {
                if let ("@class" | "@enabled", Out::Text(text)) = (key.as_str(), value) {
                    out.push_str(&format!(" {}=\"{}\"", &key[1..], xml_text(text)));
                }
            }
            out.push('>');
            for (key, value) in map {
                match (key.as_str(), value) {
                    ("@class" | "@enabled", Out::Text(_)) => {}
                    ("$", Out::Number(number)) => out.push_str(&format!("{number}")),
                    ("overriddenStatus", _) => write_xml(out, "overriddenstatus", value),
                    ("versions__delta" | "apps__hashcode", _) => write_xml(out, key, value),
                    _ => write_xml(out, &xml_name(key), value),
                }
            }
            out.push_str(&format!("</{name}>"));
        }
    }
}

/// Escapes text, and replaces what XML 1.0 cannot hold at all.
fn xml_text(text: &str) -> String {
    let allowed = |c: char| matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    let clean: String = text.chars().map(|c| if allowed(c) { c } else { '\u{fffd}' }).collect();
    escape(clean).into_owned()
}

/// A name as XStream's `XmlFriendlyNameCoder` writes it: `_` doubled, `$` as `_-`, what XML does
/// not allow in a name as `_.` and four hexadecimal digits for each UTF-16 unit.
fn xml_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for (at, c) in name.chars().enumerate() {
        match c {
            '_' => out.push_str("__"),
            '$' => out.push_str("_-"),
            'a'..='z' | 'A'..='Z' => out.push(c),
            '0'..='9' | '.' | '-' if at > 0 => out.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("_.{unit:04x}"));
                }
            }
        }
    }
    out
}

/// The reverse of [`xml_name`]; what is not coded stays.
fn plain_name(name: &str) -> String {
    let mut units: Vec<u16> = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        let coded = if c == '_' { rest.get(1..2) } else { None };
        let hex = rest.get(2..6).and_then(|h| u16::from_str_radix(h, 16).ok());
        let (unit, len) = match (coded, hex) {
            (Some("_"), _) => (u16::from(b'_'), 2),
            (Some("-"), _) => (u16::from(b'$'), 2),
            (Some("."), Some(unit)) => (unit, 6),
            _ => {
                units.extend(c.encode_utf16(&mut [0; 2]).iter());
                rest = &rest[c.len_utf8()..];
                continue;
            }
        };
        units.push(unit);
        rest = &rest[len..];
    }
    String::from_utf16_lossy(&units)
}

/// Reads the instance of a registration. `None` if the body cannot be parsed at all.
pub(super) fn read(body: &[u8], format: Format) -> Option<Value> {
    let root = match format {
        Format::Json => serde_json::from_slice::<Value>(body).ok()?,
        Format::Xml => read_xml(std::str::from_utf8(body).ok()?)?,
    };
    let instance = root.as_object()?.get("instance")?;
    instance.is_object().then(|| instance.clone())
}

/// An element that is being read.
struct Element {
    name: String,
    map: Map<String, Value>,
    text: String,
}

/// XML as JSON: attributes as `@name`, text beside attributes as `$`; a repeated element keeps
/// its last value. References other than the predefined ones, and document types, are refused.
fn read_xml(text: &str) -> Option<Value> {
    let mut reader = quick_xml::Reader::from_str(text);
    let mut open: Vec<Element> = Vec::new();
    let mut root = Map::new();
    loop {
        match reader.read_event().ok()? {
            Event::Start(start) => {
                if open.len() == XML_DEPTH_MAX {
                    return None;
                }
                open.push(element(&start)?);
            }
            Event::Empty(start) => close(element(&start)?, &mut open, &mut root),
            Event::End(_) => {
                let element = open.pop()?;
                close(element, &mut open, &mut root);
            }
            Event::Text(text) => {
                let text = text.xml_content(XmlVersion::Implicit1_0);
                match open.last_mut() {
                    Some(element) => element.text.push_str(&text),
                    None if text.trim().is_empty() => {}
                    None => return None,
                }
            }
            Event::CData(text) => {
                open.last_mut()?.text.push_str(&text.xml_content(XmlVersion::Implicit1_0));
            }
            Event::GeneralRef(reference) => {
                let text = &mut open.last_mut()?.text;
                match reference.resolve_char_ref().ok()? {
                    Some(c) => text.push(c),
                    None => {
                        let name = reference.xml_content(XmlVersion::Implicit1_0);
                        text.push_str(resolve_predefined_entity(&name)?);
                    }
                }
            }
            Event::DocType(_) => return None,
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::Eof => return open.is_empty().then_some(Value::Object(root)),
        }
    }
}

fn element(start: &BytesStart<'_>) -> Option<Element> {
    let mut map = Map::new();
    for attribute in start.attributes() {
        let attribute = attribute.ok()?;
        let value = attribute.normalized_value(XmlVersion::Implicit1_0).ok()?;
        map.insert(format!("@{}", name_of(attribute.key)?), json!(value));
    }
    Some(Element { name: plain_name(name_of(start.name())?), map, text: String::new() })
}

fn name_of<'a>(name: quick_xml::name::QName<'a>) -> Option<&'a str> {
    Some(name.0)
}

fn close(mut element: Element, open: &mut [Element], root: &mut Map<String, Value>) {
    let text = element.text.trim();
    let value = if element.map.is_empty() {
        json!(text)
    } else {
        if !text.is_empty() {
            element.map.insert("$".to_owned(), json!(text));
        }
        Value::Object(element.map)
    };
    let parent = open.last_mut().map_or(root, |e| &mut e.map);
    parent.insert(element.name, value);
}

/// A string, number or boolean as text; empty text and null are nothing.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(s) if s.is_empty() => None,
        Value::String(s) => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        Value::Bool(b) => Some(b.to_string()),
        _ => None,
    }
}

/// What a registration says, checked as Eureka checks it.
///
/// # Errors
/// The sentence of the 400, in Eureka's words.
pub(super) fn instance_of(value: &Value, app_in_path: &str) -> Result<Instance, String> {
    let text = |key: &str| value.get(key).and_then(text_of).filter(|t| !t.trim().is_empty());
    let number = |key: &str| text(key).and_then(|t| t.trim().parse::<i64>().ok());
    let center = value.get("dataCenterInfo").filter(|c| c.is_object());
    let center_text = |key: &str| center.and_then(|c| c.get(key)).and_then(text_of);
    let amazon = map_of(center.and_then(|c| c.get("metadata")));
    let id = text("instanceId")
        .or_else(|| amazon.get("instance-id").cloned())
        .or_else(|| text("hostName"))
        .ok_or("Missing instanceId")?;
    let host = text("hostName").ok_or("Missing hostname")?;
    let ip = text("ipAddr").ok_or("Missing ip address")?;
    let app = text("app").ok_or("Missing appName")?.to_uppercase();
    let expected = app_in_path.to_uppercase();
    if app != expected {
        return Err(format!("Mismatched appName, expecting {expected} but was {app}"));
    }
    if center.is_none() {
        return Err("Missing dataCenterInfo".to_owned());
    }
    let center_name = center_text("name").ok_or("Missing dataCenterInfo Name")?;

    let port = port_of(value.get("port"), Port { number: 7001, enabled: true });
    let secure_port = port_of(value.get("securePort"), Port { number: 7002, enabled: false });
    let lease = value.get("leaseInfo");
    let seconds = |key: &str, default: u32| {
        let given = lease.and_then(|l| l.get(key)).and_then(text_of);
        let given = given.and_then(|t| t.trim().parse::<i64>().ok()).filter(|s| *s > 0);
        given.map_or(default, |s| u32::try_from(s).unwrap_or(u32::MAX))
    };
    let status = |text: Option<String>| text.and_then(|t| Status::from_name(&t));
    let reported = text("status");
    Ok(Instance {
        endpoint: if port.enabled && port.number != 0 {
            Endpoint::Http { host: host.clone(), port: port.number }
        } else {
            Endpoint::Nowhere
        },
        id,
        app,
        host,
        ip,
        port,
        secure_port,
        vip: text("vipAddress"),
        secure_vip: text("secureVipAddress"),
        status: if reported.is_none() { Status::Up } else { status(reported).unwrap_or_default() },
        overridden: status(text("overriddenStatus").or_else(|| text("overriddenstatus")))
            .unwrap_or_default(),
        data_center: DataCenter { name: center_name, metadata: amazon },
        lease: Lease {
            renewal_s: seconds("renewalIntervalInSecs", 30),
            duration_s: seconds("durationInSecs", 90),
            ..Lease::default()
        },
        metadata: map_of(value.get("metadata")),
        home_page: text("homePageUrl"),
        status_page: text("statusPageUrl"),
        health_check: text("healthCheckUrl"),
        secure_health_check: text("secureHealthCheckUrl"),
        app_group: text("appGroupName"),
        asg: text("asgName"),
        sid: text("sid"),
        country_id: number("countryId").unwrap_or(1),
        coordinating: text("isCoordinatingDiscoveryServer").as_deref() == Some("true"),
        updated_ms: 0,
        dirty_ms: number("lastDirtyTimestamp").unwrap_or(0).max(0),
        action: Action::Added,
    })
}

/// A port as an object with `$` and `@enabled`, or as a bare number.
fn port_of(value: Option<&Value>, default: Port) -> Port {
    let Some(value) = value.filter(|v| !v.is_null()) else {
        return default;
    };
    let bare = text_of(value);
    let number = bare.or_else(|| value.get("$").and_then(text_of));
    let enabled = value.get("@enabled").and_then(text_of);
    Port {
        number: number.and_then(|n| n.trim().parse().ok()).unwrap_or(default.number),
        enabled: enabled.map_or(default.enabled, |e| e.trim().eq_ignore_ascii_case("true")),
    }
}

/// A map of texts, without the class that Java adds.
fn map_of(value: Option<&Value>) -> BTreeMap<String, String> {
    let entries = value.and_then(Value::as_object).into_iter().flatten();
    entries
        .filter(|(key, _)| !["@class", "class", "@", "$"].contains(&key.as_str()))
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| (key.clone(), text_of(value).unwrap_or_default()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{"instance": {"instanceId": "127.0.0.1:demo:9101", "hostName": "edge-2",
        "app": "demo", "ipAddr": "127.0.0.1", "port": {"$": "9101", "@enabled": true},
        "securePort": {"$": 9443, "@enabled": "false"}, "countryId": "1", "sid": "na",
        "dataCenterInfo": {"@class": "com.netflix.appinfo.MyDataCenterInfo", "name": "MyOwn"},
        "leaseInfo": {"renewalIntervalInSecs": 1, "durationInSecs": "3"}, "appGroupName": null,
        "metadata": {"@class": "java.util.HashMap", "zone": "a", "n": 7, "a_b": "x<y"},
        "vipAddress": "demo", "secureHealthCheckUrl": "", "overriddenstatus": "",
        "lastDirtyTimestamp": "1795506194240", "actionType": "ADDED", "unheardOf": {"x": [1]}}}"#;

    fn instance(text: &str, format: Format) -> Result<Instance, String> {
        instance_of(&read(text.as_bytes(), format).expect("it parses"), "DEMO")
    }

    #[test]
    fn careless_json_is_understood() {
        let i = instance(JSON, Format::Json).unwrap();
        assert_eq!((i.id.as_str(), i.app.as_str()), ("127.0.0.1:demo:9101", "DEMO"));
        assert_eq!(i.endpoint, Endpoint::Http { host: "edge-2".to_owned(), port: 9101 });
        assert_eq!((i.lease.renewal_s, i.lease.duration_s), (1, 3));
        assert_eq!((i.status, i.overridden), (Status::Up, Status::Unknown));
        assert_eq!(i.metadata.get("n").map(String::as_str), Some("7"));
        assert!(!i.metadata.contains_key("@class"));
        assert_eq!(i.dirty_ms, 1_795_506_194_240);
        assert_eq!((i.app_group, i.secure_health_check), (None, None));
    }

    #[test]
    fn what_is_written_reads_back_in_both_formats() {
        let mut i = instance(JSON, Format::Json).unwrap();
        i.metadata.insert("with space & 1".to_owned(), "\u{1}\"<&".to_owned());
        i.metadata.insert("1$é😀".to_owned(), String::new());
        i.sid = None;
        for format in [Format::Json, Format::Xml] {
            let text = write(&Document::Instance(&i), format, false);
            let mut again = instance(&text, format).unwrap();
            if format == Format::Xml {
                // XML cannot hold a control character.
                let odd = again.metadata.get_mut("with space & 1").unwrap();
                *odd = odd.replace('\u{fffd}', "\u{1}");
            }
            assert_eq!(again, i, "{text}");
        }
    }

    #[test]
    fn xml_is_as_picky_clients_want_it() {
        let i = instance(JSON, Format::Json).unwrap();
        let apps = [("DEMO".to_owned(), vec![Arc::new(i)])];
        let document = Document::Applications { apps: &apps, version: 1, hash: "UP_1_" };
        let text = write(&document, Format::Xml, false);
        for part in [
            "<applications><versions__delta>1</versions__delta><apps__hashcode>UP_1_</apps__hashcode>",
            "<application><name>DEMO</name><instance><instanceId>",
            "<overriddenstatus>UNKNOWN</overriddenstatus>",
            "<port enabled=\"true\">9101</port><securePort enabled=\"false\">9443</securePort>",
            "<dataCenterInfo class=\"com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo\">",
            "<a__b>x&lt;y</a__b>",
            "</instance></application></applications>",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }

    #[test]
    fn json_lists_are_lists_and_empty_metadata_has_its_class() {
        let empty = Document::Applications { apps: &[], version: 1, hash: "" };
        assert_eq!(
            serde_json::from_str::<Value>(&write(&empty, Format::Json, false)).unwrap(),
            json!({"applications": {"versions__delta": "1", "apps__hashcode": "", "application": []}})
        );
        let i = Instance::new("demo", "1", Endpoint::InProcess);
        let value = |compact| serde_json::to_value(value_of(&i, compact)).unwrap();
        let (value, compact) = (value(false), value(true));
        assert_eq!(value["metadata"], json!({"@class": EMPTY_MAP}));
        assert_eq!(value["port"], json!({"$": 0, "@enabled": "false"}));
        assert_eq!(value["lastDirtyTimestamp"], json!("0"));
        assert!(compact.get("leaseInfo").is_none());
    }

    #[test]
    fn xml_without_attributes_and_with_references_is_read() {
        let i = instance(
            "<?xml version=\"1.0\"?><!-- c --><instance><hostName>h</hostName><app>Demo</app>\
             <ipAddr>1.2.3.4</ipAddr><status>DOWN</status><port>9601</port><securePort>1</securePort>\
             <dataCenterInfo><name>MyOwn</name></dataCenterInfo><metadata class=\"x\"/>\
             <homePageUrl>http://h/?a=1&amp;b=&#50;<![CDATA[&3]]></homePageUrl></instance>",
            Format::Xml,
        )
        .unwrap();
        assert_eq!((i.id.as_str(), i.status), ("h", Status::Down));
        assert_eq!(i.port, Port { number: 9601, enabled: true });
        assert!(!i.secure_port.enabled);
        assert_eq!(i.home_page.as_deref(), Some("http://h/?a=1&b=2&3"));
        assert!(i.metadata.is_empty());
    }

    #[test]
    fn what_is_missing_is_said_in_eurekas_words() {
        let without = |key: &str| {
            let mut value = read(JSON.as_bytes(), Format::Json).unwrap();
            value.as_object_mut().unwrap().remove(key);
            instance_of(&value, "demo").map(|i| i.id)
        };
        assert_eq!(without("hostName"), Err("Missing hostname".to_owned()));
        assert_eq!(without("ipAddr"), Err("Missing ip address".to_owned()));
        assert_eq!(without("app"), Err("Missing appName".to_owned()));
        assert_eq!(without("dataCenterInfo"), Err("Missing dataCenterInfo".to_owned()));
        assert_eq!(without("instanceId"), Ok("edge-2".to_owned()));
        assert_eq!(
            instance_of(&read(JSON.as_bytes(), Format::Json).unwrap(), "x").map(|i| i.id),
            Err("Mismatched appName, expecting X but was DEMO".to_owned())
        );
    }

    #[test]
    fn hostile_bodies_are_refused() {
        let deep = "<a>".repeat(100_000);
        let bomb = "<!DOCTYPE x [<!ENTITY a \"aaaa\">]><instance>&a;</instance>";
        for text in ["", "<", "<instance>", "</instance>", "x", "<a>&unknown;</a>", bomb, &deep] {
            assert_eq!(read(text.as_bytes(), Format::Xml), None, "{text:.40}");
        }
        let nested = "[".repeat(100_000);
        for text in ["", "{", "[]", "{\"instance\": 1}", "null", &nested] {
            assert_eq!(read(text.as_bytes(), Format::Json), None, "{text:.40}");
        }
    }

    #[test]
    fn xml_is_the_default_answer() {
        assert_eq!(Format::accepted(None), Format::Xml);
        assert_eq!(Format::accepted(Some("*/*")), Format::Xml);
        assert_eq!(Format::accepted(Some("application/JSON, */*")), Format::Json);
    }
}
