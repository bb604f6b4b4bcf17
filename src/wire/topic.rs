//! Topics of nodes: `et/v1/<namespace>/<name>/<leaf>`.

use std::fmt;

use super::error::PayloadError;
use crate::twin::ThingId;
use crate::twin::path::is_key;

/// What a message of a node is about: the last part of its topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leaf {
    /// `state`: what the node is, retained, with the last will `{"up": 0, "boot": B}`. Of any MQTT
    /// client `{"up": 1, "boot": B}` will do, and `rssi` (dBm, negative) and `battery` (percent, 0 to
    /// 100) may stand beside them; see [`super::State`].
    State,
    /// `data`: a reading.
    Data,
    /// `feat`: features computed by the node.
    Features,
    /// `event`: lease, overflow, sensor fault.
    Event,
    /// `ack`: of a command.
    Ack,
    /// `cmd`: a command, from the edge.
    Command,
    /// `desired`: retained configuration, from the edge.
    Desired,
    /// `fw`: retained firmware manifest, from the edge.
    Firmware,
    /// `verdict/<service>`, from the edge.
    Verdict(String),
}

/// A topic of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// The node's twin.
    pub thing: ThingId,
    /// What it is about.
    pub leaf: Leaf,
}

impl Topic {
    /// Parses a topic; `None` for one that is not below `et/v1/`, an error for one that is and
    /// names no node or leaf.
    pub fn parse(topic: &str) -> Option<Result<Self, PayloadError>> {
        let rest = topic.strip_prefix("et/v1/")?;
        let mut parts = rest.splitn(3, '/');
        let (namespace, name) =
            (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let bad = || PayloadError::Topic(topic.chars().take(200).collect());
        let leaf = match parts.next() {
            Some("state") => Leaf::State,
            Some("data") => Leaf::Data,
            Some("feat") => Leaf::Features,
            Some("event") => Leaf::Event,
            Some("ack") => Leaf::Ack,
            Some("cmd") => Leaf::Command,
            Some("desired") => Leaf::Desired,
            Some("fw") => Leaf::Firmware,
            Some(other) => match other.strip_prefix("verdict/") {
                Some(service) if is_key(service) => Leaf::Verdict(service.to_owned()),
                _ => return Some(Err(bad())),
            },
            None => return Some(Err(bad())),
        };
        match ThingId::parse(&format!("{namespace}:{name}")) {
            Ok(thing) => Some(Ok(Self { thing, leaf })),
            Err(_) => Some(Err(bad())),
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "et/v1/{}/{}/", self.thing.namespace(), self.thing.name())?;
        match &self.leaf {
            Leaf::State => f.write_str("state"),
            Leaf::Data => f.write_str("data"),
            Leaf::Features => f.write_str("feat"),
            Leaf::Event => f.write_str("event"),
            Leaf::Ack => f.write_str("ack"),
            Leaf::Command => f.write_str("cmd"),
            Leaf::Desired => f.write_str("desired"),
            Leaf::Firmware => f.write_str("fw"),
            Leaf::Verdict(service) => write!(f, "verdict/{service}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_as_they_are_written() {
        let topic = Topic::parse("et/v1/farm/node-17/data").unwrap().unwrap();
        assert_eq!((topic.thing.as_str(), &topic.leaf), ("farm:node-17", &Leaf::Data));
        assert_eq!(topic.to_string(), "et/v1/farm/node-17/data");
        assert!(Topic::parse("home/lamp").is_none());
    }

    #[test]
    fn topics_below_ours_that_name_no_node_are_malformed() {
        for topic in [
            "et/v1/",
            "et/v1/a/b",
            "et/v1/1a/b/data",
            "et/v1/a//data",
            "et/v1/a/b/x",
            "et/v1/a/b/data/c",
        ] {
            assert!(Topic::parse(topic).unwrap().is_err(), "{topic}");
        }
    }
}
