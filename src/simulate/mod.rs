//! Simulated nodes: they send synthetic data over real MQTT sockets, and obey commands.
//!
//! A node stands for every twin that names a NodeProfile. It is an ordinary MQTT client that obeys
//! what firmware obeys ([`node`]): commands, lease, programs, store and forward. Faults come and go
//! in its sensors, so anomalies are among the readings.
//!
//! Not here: how a room behaves (`edgeai::generate`), scenarios in virtual time (later).

pub mod node;
pub mod process;
mod subject;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rumqttc::{
    AsyncClient, Event, EventLoop, LastWill, MqttOptions, NetworkOptions, Packet, Publish, QoS,
    SubscribeFilter,
};
use tokio::sync::{mpsc, watch};

pub use subject::SimulatedNode;
use subject::{FAULT_GAP, SPEED, START_S, battery};

use crate::base::http::stopped;
use crate::base::units::PropertyPath;
use crate::edgeai::generate::{CHANNELS, Generator};
use crate::firmware::Firmware;
use crate::gateway::external::Broker;
use crate::kinds::Spec;
use crate::kinds::Transport;
use crate::manifest::Object;
use crate::twin::ThingId;
use crate::wire::{Desired, Uplink};
use crate::wire::{Leaf, Topic};

/// Simulated nodes in one process; more twins than this are left without. A thousand sockets fit
/// the usual limit of open files.
pub const NODES_MAX: usize = 800;
/// A reading that the broker did not take for so long that this many wait is left out.
const WAITING_MAX: usize = 64;
/// The signal that every simulated node has, dBm: that of the board which is a process.
const RSSI: i16 = -60;
/// What firmware is built with, and where it is kept.
#[derive(Debug, Clone)]
pub struct Workshop {
    /// The C++ compiler.
    pub compiler: PathBuf,
    /// The directory of built programs.
    pub folder: PathBuf,
}

/// The firmware that was built for nodes, and what came of it.
#[derive(Debug, Default)]
pub struct Programs {
    /// The program of each profile whose firmware was built.
    built: BTreeMap<String, PathBuf>,
    /// Why the firmware of other profiles was not.
    pub failed: Vec<String>,
}

impl Programs {
    /// How many of the nodes run their firmware, each as a process.
    pub fn count(&self, nodes: &[SimulatedNode]) -> usize {
        nodes.iter().filter(|node| self.of(node).is_some()).count()
    }

    fn of(&self, node: &SimulatedNode) -> Option<(PathBuf, Arc<Firmware>)> {
        let image = node.image.clone()?;
        Some((self.built.get(&image.profile)?.clone(), image))
    }
}

/// Builds the firmware of nodes, unless they are too many to be processes.
pub async fn build(nodes: &[SimulatedNode], workshop: Option<&Workshop>) -> Programs {
    let mut programs = Programs::default();
    let able = nodes.iter().filter(|node| node.image.is_some()).count();
    let Some(Workshop { compiler, folder }) = workshop.filter(|_| able <= process::PROCESSES_MAX)
    else {
        return programs;
    };
    let mut tried = BTreeSet::new();
    for image in nodes.iter().filter_map(|node| node.image.as_ref()) {
        let profile = &image.profile;
        if !tried.insert(profile.clone()) {
            continue;
        }
        match process::build(image, folder, compiler).await {
            Ok(program) => {
                programs.built.insert(profile.clone(), program);
            }
            Err(error) => {
                let remedy = "name a C++ compiler with CXX; until then these nodes are simulated";
                tracing::debug!(%error, %profile, remedy, "the firmware was not built");
                programs.failed.push(format!(
                    "the firmware of `{profile}` was not built by {}: {error}",
                    compiler.display()
                ));
            }
        }
    }
    programs
}

/// The nodes of the twins that name a profile, by thing ID.
pub fn nodes(objects: &[Object]) -> Vec<SimulatedNode> {
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
        let name = bare(profile);
        let profile = named(name.clone()).find_map(|object| match &object.spec {
            Spec::NodeProfile(profile) => Some(&**profile),
            _ => None,
        });
        let model = twin.model.as_deref().map(bare).and_then(|name| {
            named(name).find_map(|object| match &object.spec {
                Spec::TwinModel(model) => Some(model),
                _ => None,
            })
        });
        let Some(model) = model else { continue };
        let (channels, sensors): (Vec<usize>, Vec<PropertyPath>) = CHANNELS
            .iter()
            .enumerate()
            .filter_map(|(index, name)| {
                let feature = model.feature_of(name)?;
                Some((index, format!("{feature}/{name}").parse().ok()?))
            })
            .unzip();
        if channels.is_empty() {
            continue;
        }
        let own = twin.transmission.as_ref();
        let image = profile.and_then(|spec| Firmware::plan(&name, spec, Some(model)).ok());
        let image = image.filter(|image| {
            image.board.link == Transport::Mqtt
                && image.sensors.iter().all(|s| CHANNELS.contains(&s.path.property.as_str()))
        });
        let firmware = Arc::new(Firmware::simulated(&name, profile, model, &sensors, own));
        found.insert(
            thing.clone(),
            SimulatedNode { thing, channels, firmware, image: image.map(Arc::new) },
        );
    }
    found.into_values().take(NODES_MAX).collect()
}

/// Runs `nodes` against the broker until `stop` turns true. Those whose firmware was built run it as
/// processes; the others are simulated here.
pub async fn run(
    nodes: Vec<SimulatedNode>,
    broker: Broker,
    seed: u64,
    programs: Programs,
    stop: watch::Receiver<bool>,
) {
    let mut running = tokio::task::JoinSet::new();
    for (number, node) in nodes.into_iter().enumerate() {
        let (number, broker, stop) = (number as u32, broker.clone(), stop.clone());
        match programs.of(&node) {
            Some((program, image)) => running.spawn(async move {
                process::run(node, &image, number, program, broker, seed, stop).await;
            }),
            None => running.spawn(run_node(node, number, broker, seed, stop)),
        };
    }
    while running.join_next().await.is_some() {}
}

/// What a simulated node runs on: its synthetic data and its MQTT client.
struct Lab<'a> {
    thing: &'a ThingId,
    channels: &'a [usize],
    generator: Generator,
    /// The office at this moment, and which moment that is.
    sample: (u32, Vec<f32>),
    sample_ms: u32,
    /// Which of the nodes it is, if it runs on a battery.
    battery: Option<u32>,
    now: u32,
    started: Instant,
    client: AsyncClient,
    connected: bool,
    full: bool,
}

impl node::Environment for Lab<'_> {
    fn read(&mut self, sensor: usize) -> Option<i32> {
        // All sensors of a moment see the same office, and no faster than it is looked at.
        if self.sample.1.is_empty() || self.now.wrapping_sub(self.sample.0) >= self.sample_ms {
            let t = START_S + self.started.elapsed().as_secs_f64() * SPEED;
            self.sample = (self.now, self.generator.next(t).values.to_vec());
        }
        let value = self.sample.1.get(*self.channels.get(sensor)?)?;
        Some((f64::from(*value) * 100.0).round() as i32)
    }

    fn rssi(&mut self) -> Option<i16> {
        Some(RSSI)
    }

    fn battery(&mut self) -> Option<u8> {
        self.battery.map(|number| battery(number, self.started.elapsed()))
    }

    fn ready(&self) -> bool {
        self.connected && !self.full
    }

    fn send(&mut self, message: Uplink) {
        let leaf = message.leaf();
        // Readings are numbered and safe when acknowledged; the rest is repeated by who asked.
        let (quality, retain) = match leaf {
            Leaf::State => (QoS::AtLeastOnce, true),
            Leaf::Data | Leaf::Features => (QoS::AtLeastOnce, false),
            _ => (QoS::AtMostOnce, false),
        };
        let topic = Topic { thing: self.thing.clone(), leaf }.to_string();
        let sent = self.client.try_publish(topic, quality, retain, message.encode());
        self.full = sent.is_err();
    }
}

/// What comes to a node.
enum Arrival {
    Connected,
    Gone,
    Message(Publish),
}

async fn run_node(
    node: SimulatedNode,
    number: u32,
    broker: Broker,
    seed: u64,
    mut stop: watch::Receiver<bool>,
) {
    let name = format!("sim-{}-{}", node.thing.namespace(), node.thing.name());
    let topic = |leaf| Topic { thing: node.thing.clone(), leaf }.to_string();
    // Each start is a new boot, so that readings of different starts are never mixed up.
    let mut boot = u32::try_from(crate::base::clock::now_us() / 1_000_000).unwrap_or(1);
    let will = LastWill::new(
        topic(Leaf::State),
        format!("{{\"up\":0,\"boot\":{boot}}}"),
        QoS::AtLeastOnce,
        true,
    );
    let mut options = MqttOptions::new(name, broker.host, broker.port);
    options.set_keep_alive(Duration::from_secs(30)).set_clean_session(true).set_last_will(will);
    let (client, mut events) = AsyncClient::new(options, WAITING_MAX);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    events.set_network_options(network);
    let (arrivals, mut arrived) = mpsc::channel(WAITING_MAX);
    let wanted = [topic(Leaf::Command), topic(Leaf::Desired)];
    let connection = keep_connected(&mut events, &client, &wanted, arrivals);
    let mut connection = std::pin::pin!(connection);

    let started = Instant::now();
    let build = "simulated".to_owned();
    let uptime = || started.elapsed().as_millis() as u32;
    let mut state = node::Node::new(node.firmware.clone(), build.clone(), boot, uptime());
    let period = node.firmware.transmission.pmin.max(10);
    let mut lab = Lab {
        thing: &node.thing,
        channels: &node.channels,
        generator: Generator::new(seed, number).fault_gap(FAULT_GAP),
        sample: (0, Vec::new()),
        // The office's faults come and go by samples: looking more often must not hurry them.
        sample_ms: period,
        battery: node.firmware.battery.then_some(number),
        now: uptime(),
        started,
        client: client.clone(),
        connected: false,
        full: false,
    };
    loop {
        // A full queue is tried again a little later.
        let most = if lab.full { 20 } else { 60_000 };
        let wait = state.next_due(uptime(), most).max(1);
        let arrival = tokio::select! {
            () = stopped(&mut stop) => return,
            () = &mut connection => return,
            arrival = arrived.recv() => arrival,
            () = tokio::time::sleep(Duration::from_millis(wait.into())) => None,
        };
        lab.now = uptime();
        lab.full = false;
        match arrival {
            Some(Arrival::Connected) => {
                lab.connected = true;
                state.connected();
            }
            Some(Arrival::Gone) => lab.connected = false,
            Some(Arrival::Message(publish)) => {
                let body = String::from_utf8_lossy(&publish.payload);
                if publish.topic == wanted[0] {
                    state.command(&body, lab.now, &mut lab);
                } else if let Ok(desired) = serde_json::from_str::<Desired>(&body) {
                    state.desired(desired.version, &desired.cmd, lab.now, &mut lab);
                }
            }
            None => {}
        }
        state.poll(lab.now, &mut lab);
        if state.wants_restart() {
            boot = boot.wrapping_add(1);
            state = node::Node::new(node.firmware.clone(), build.clone(), boot, lab.now);
        }
    }
}

async fn keep_connected(
    events: &mut EventLoop,
    client: &AsyncClient,
    topics: &[String; 2],
    arrivals: mpsc::Sender<Arrival>,
) {
    let mut wait = Duration::from_millis(100);
    loop {
        let arrival = match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                wait = Duration::from_millis(100);
                let filters = topics
                    .iter()
                    .map(|topic| SubscribeFilter::new(topic.clone(), QoS::AtLeastOnce));
                if let Err(error) = client.try_subscribe_many(filters) {
                    let remedy = "nothing, unless it repeats; the node connects again";
                    tracing::warn!(%error, remedy, "a simulated node gets no commands");
                }
                continue;
            }
            Ok(Event::Incoming(Packet::SubAck(_))) => Arrival::Connected,
            Ok(Event::Incoming(Packet::Publish(publish))) => Arrival::Message(publish),
            Ok(_) => continue,
            Err(error) => {
                let remedy = "check that the broker runs; the node connects again";
                tracing::warn!(%error, remedy, "a simulated node lost its connection");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(5));
                Arrival::Gone
            }
        };
        if arrivals.send(arrival).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest;

    #[test]
    fn a_simulated_battery_runs_down_and_is_charged() {
        let of = |number, share: f64| {
            battery(number, Duration::from_secs_f64(subject::BATTERY_S / SPEED * share))
        };
        assert_eq!(
            [of(0, 0.0), of(1, 0.0), of(0, 0.505), of(0, 0.995), of(0, 1.005)],
            [100, 95, 50, 1, 100]
        );
    }

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
        assert_eq!(first.firmware.transmission.pmin, 1000);
    }
}
