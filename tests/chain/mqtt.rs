//! A node, and one who watches verdicts: rumqttc as anybody would use it.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use serde_json::{Value, json};

use crate::PATIENCE;

pub(crate) struct Node {
    client: Client,
    acknowledged: Receiver<()>,
    messages: Receiver<(String, Value)>,
}

impl Node {
    /// Connects and subscribes to the verdicts of `judge`.
    pub(crate) fn connect(broker: SocketAddr, name: &str) -> Self {
        let mut options = MqttOptions::new(name, broker.ip().to_string(), broker.port());
        options.set_keep_alive(Duration::from_secs(30));
        let (client, mut connection) = Client::new(options, 1000);
        client.subscribe("et/v1/lab/+/verdict/judge", QoS::AtLeastOnce).unwrap();
        let (acknowledge, acknowledged) = channel();
        let (tell, messages) = channel();
        let (ready, subscribed) = channel();
        std::thread::spawn(move || {
            for event in connection.iter() {
                // Whoever does not listen any more does not miss it.
                match event {
                    Ok(Event::Incoming(Packet::SubAck(_))) => drop(ready.send(())),
                    Ok(Event::Incoming(Packet::PubAck(_))) => drop(acknowledge.send(())),
                    Ok(Event::Incoming(Packet::Publish(message))) => {
                        let value = serde_json::from_slice(&message.payload).unwrap();
                        drop(tell.send((message.topic, value)));
                    }
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        });
        subscribed.recv_timeout(PATIENCE).unwrap();
        Self { client, acknowledged, messages }
    }

    /// Sends a reading of `lab:n-<n>`.
    pub(crate) fn send(&self, n: u32, x: u32) {
        let payload = json!({"environment": {"x": x}}).to_string();
        let topic = format!("et/v1/lab/n-{n}/data");
        self.client.publish(topic, QoS::AtLeastOnce, false, payload).unwrap();
    }

    /// Sends a numbered reading of `lab:n-<n>`.
    pub(crate) fn send_numbered(&self, n: u32, x: u32, boot: u32, seq: u32) {
        let payload = json!({"seq": seq, "boot": boot, "environment": {"x": x}}).to_string();
        let topic = format!("et/v1/lab/n-{n}/data");
        self.client.publish(topic, QoS::AtLeastOnce, false, payload).unwrap();
    }

    /// Waits for a PUBACK.
    pub(crate) fn acknowledged(&self) {
        self.acknowledged.recv_timeout(PATIENCE).unwrap();
    }

    /// The next verdict with its topic.
    pub(crate) fn verdict(&self) -> (String, Value) {
        self.messages.recv_timeout(PATIENCE).unwrap()
    }
}

/// What each version's client published at each quality of service arrives at the other's, once.
#[test]
fn rumqttc_talks_with_itself_in_both_versions() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = crate::Runtime::start(directory.path());
    let address = runtime.mqtt;
    let (tell, heard) = channel::<(u8, String)>();

    let mut options = MqttOptions::new("three", address.ip().to_string(), address.port());
    options.set_keep_alive(Duration::from_secs(30));
    let (three, mut events) = Client::new(options, 64);
    let told = tell.clone();
    let (ready, both_ready) = channel();
    let three_ready = ready.clone();
    std::thread::spawn(move || {
        for event in events.iter() {
            match event {
                Ok(Event::Incoming(Packet::SubAck(_))) => three_ready.send(()).unwrap(),
                Ok(Event::Incoming(Packet::Publish(message))) => {
                    drop(told.send((3, String::from_utf8(message.payload.to_vec()).unwrap())));
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    });

    use rumqttc::v5;
    let mut options = v5::MqttOptions::new("five", address.ip().to_string(), address.port());
    options.set_keep_alive(Duration::from_secs(30));
    let (five, mut events) = v5::Client::new(options, 64);
    std::thread::spawn(move || {
        for event in events.iter() {
            match event {
                Ok(v5::Event::Incoming(v5::Incoming::SubAck(_))) => ready.send(()).unwrap(),
                Ok(v5::Event::Incoming(v5::Incoming::Publish(message))) => {
                    drop(tell.send((5, String::from_utf8(message.payload.to_vec()).unwrap())));
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    });

    three.subscribe("from/five/#", QoS::ExactlyOnce).unwrap();
    five.subscribe("from/three/#", v5::mqttbytes::QoS::ExactlyOnce).unwrap();
    for _ in 0..2 {
        both_ready.recv_timeout(PATIENCE).unwrap();
    }
    for n in 0..3 {
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][n];
        three.publish(format!("from/three/{n}"), qos, false, format!("3 at {n}")).unwrap();
        let qos = v5::mqttbytes::qos(n as u8).unwrap();
        five.publish(format!("from/five/{n}"), qos, false, format!("5 at {n}")).unwrap();
    }
    let mut all: Vec<(u8, String)> =
        (0..6).map(|_| heard.recv_timeout(PATIENCE).unwrap()).collect();
    all.sort();
    let wanted = |to: u8, from: u8| (0..3).map(move |n| (to, format!("{from} at {n}")));
    assert_eq!(all, wanted(3, 5).chain(wanted(5, 3)).collect::<Vec<_>>());
    // A round trip behind them: nothing came twice.
    three.publish("from/three/end", QoS::ExactlyOnce, false, "end").unwrap();
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), (5, "end".to_owned()));
    assert!(heard.try_recv().is_err());
}
