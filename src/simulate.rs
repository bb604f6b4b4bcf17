//! Simulated nodes: they read a made-up office and send what they read over real MQTT sockets.
//!
//! A node stands for every twin that names a NodeProfile. It is an ordinary MQTT client: QoS 1,
//! numbered readings, reconnecting with backoff. Faults come and go in its sensors, so anomalies
//! are among the readings.
//!
//! Not here: how a room behaves (`edgeai::generate`), scenarios in virtual time (later).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rumqttc::{AsyncClient, EventLoop, MqttOptions, NetworkOptions, QoS};
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::edgeai::generate::{CHANNELS, Generator};
use crate::http::stopped;
use crate::manifest::{Object, Spec};
use crate::node::external::Broker;
use crate::node::{Leaf, Topic};
use crate::twin::ThingId;

/// Simulated nodes in one process; more twins than this are left without. A thousand sockets fit
/// the usual limit of open files.
pub const NODES_MAX: usize = 800;
/// Samples between two faults of a node, on average: at one a second, an anomaly every quarter of
/// a minute somewhere among eight.
const FAULT_GAP: u32 = 60;
/// Seconds of the made-up office that pass in a second here, so that a day shows.
const SPEED: f64 = 30.0;
/// The simulation begins on a Monday at nine.
const START_S: f64 = 9.0 * 3600.0;
/// A reading that the broker did not take for so long that this many wait is left out.
const WAITING_MAX: usize = 64;

/// One node to simulate.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its twin.
    pub thing: ThingId,
    /// For each of the generator's channels, the feature and property that it is sent as.
    pub channels: Vec<(usize, String, String)>,
    /// Time between readings.
    pub interval: Duration,
}

/// The nodes of the twins that name a profile, by thing ID.
pub fn nodes(objects: &[Object]) -> Vec<Node> {
    let expanded: Vec<Object> = objects
        .iter()
        .flat_map(|object| match &object.spec {
            Spec::TwinSet(_) => object.expand(),
            Spec::Twin(_) => vec![object.clone()],
            _ => Vec::new(),
        })
        .collect();
    let named = |name: String| objects.iter().filter(move |object| object.metadata.name == name);
    let mut found = BTreeMap::new();
    for object in &expanded {
        let Spec::Twin(twin) = &object.spec else { continue };
        let Some(profile) = twin.node.as_ref().and_then(|node| node.profile.as_deref()) else {
            continue;
        };
        let Ok(thing) = ThingId::parse(&object.thing_id()) else { continue };
        let bare = |name: &str| name.rsplit('/').next().unwrap_or(name).to_owned();
        let profile = named(bare(profile)).find_map(|object| match &object.spec {
            Spec::NodeProfile(profile) => Some(profile),
            _ => None,
        });
        let model = twin.model.as_deref().map(bare).and_then(|name| {
            named(name).find_map(|object| match &object.spec {
                Spec::TwinModel(model) => Some(model),
                _ => None,
            })
        });
        let Some(model) = model else { continue };
        let channels: Vec<(usize, String, String)> = CHANNELS
            .iter()
            .enumerate()
            .filter_map(|(index, name)| {
                let feature = model.feature_of(name)?;
                Some((index, feature.to_owned(), (*name).to_owned()))
            })
            .collect();
        if channels.is_empty() {
            continue;
        }
        let transmission = twin
            .transmission
            .as_ref()
            .or_else(|| profile.and_then(|profile| profile.transmission.as_ref()));
        let interval = transmission.and_then(|transmission| transmission.interval);
        let interval = interval.map_or(Duration::from_secs(1), |interval| interval.as_std());
        let interval = interval.max(Duration::from_millis(10));
        found.insert(thing.clone(), Node { thing, channels, interval });
    }
    found.into_values().take(NODES_MAX).collect()
}

/// Runs `nodes` against the broker until `stop` turns true.
pub async fn run(nodes: Vec<Node>, broker: Broker, seed: u64, stop: watch::Receiver<bool>) {
    let mut running = tokio::task::JoinSet::new();
    for (number, node) in nodes.into_iter().enumerate() {
        running.spawn(run_node(node, number as u32, broker.clone(), seed, stop.clone()));
    }
    while running.join_next().await.is_some() {}
}

async fn run_node(
    node: Node,
    number: u32,
    broker: Broker,
    seed: u64,
    mut stop: watch::Receiver<bool>,
) {
    let name = format!("sim-{}-{}", node.thing.namespace(), node.thing.name());
    let mut options = MqttOptions::new(name, broker.host, broker.port);
    options.set_keep_alive(Duration::from_secs(30)).set_clean_session(true);
    let (client, mut events) = AsyncClient::new(options, WAITING_MAX);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    events.set_network_options(network);

    let topic = Topic { thing: node.thing.clone(), leaf: Leaf::Data }.to_string();
    let mut generator = Generator::new(seed, number).fault_gap(FAULT_GAP);
    let mut tick = tokio::time::interval(node.interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    // Each start is a new boot, so that readings of different starts are never mixed up.
    let boot = crate::telemetry::now_us() / 1_000_000;
    let started = Instant::now();
    let mut seq = 0_u64;
    let connection = keep_connected(&mut events);
    let mut connection = std::pin::pin!(connection);
    loop {
        tokio::select! {
            () = stopped(&mut stop) => return,
            () = &mut connection => return,
            _ = tick.tick() => {}
        }
        let t = START_S + started.elapsed().as_secs_f64() * SPEED;
        let sample = generator.next(t);
        let mut payload = Map::from_iter([
            ("seq".to_owned(), Value::from(seq)),
            ("boot".to_owned(), Value::from(boot)),
        ]);
        for (channel, feature, property) in &node.channels {
            let value = (f64::from(sample.values[*channel]) * 100.0).round() / 100.0;
            let feature = payload.entry(feature.clone()).or_insert_with(|| json!({}));
            feature[property] = value.into();
        }
        let payload = Value::Object(payload).to_string();
        // A full queue means that the broker is away: like a node without a buffer, skip.
        if client.try_publish(&topic, QoS::AtLeastOnce, false, payload).is_ok() {
            seq += 1;
        }
    }
}

async fn keep_connected(events: &mut EventLoop) {
    let mut wait = Duration::from_millis(100);
    loop {
        match events.poll().await {
            Ok(_) => wait = Duration::from_millis(100),
            Err(error) => {
                tracing::debug!(%error, "a simulated node reconnects");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(5));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest;

    #[test]
    fn every_twin_with_a_profile_gets_a_node() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/quickstart");
        let parsed = manifest::load(&[path.to_owned()], &[]);
        assert!(!parsed.has_errors());
        let nodes = nodes(&parsed.objects);
        assert!(nodes.len() >= 8, "{}", nodes.len());
        let first = &nodes[0];
        assert_eq!(first.thing.as_str(), "lab:bench");
        assert_eq!(first.channels.len(), 4);
        assert_eq!(first.interval, Duration::from_secs(1));
    }
}
