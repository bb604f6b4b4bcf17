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
