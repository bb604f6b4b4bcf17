//! An MQTT client as anybody would use it: rumqttc, in a thread of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rumqttc::{Event, LastWill, MqttOptions, Packet, QoS};
use serde_json::{Value, json};

use super::PATIENCE;

/// A connected client with its subscriptions.
pub(crate) struct Client {
    pub(crate) client: rumqttc::Client,
    acknowledged: Receiver<()>,
    /// Topic and payload of what arrives.
    pub(crate) messages: Receiver<(String, String)>,
    power: Arc<AtomicBool>,
}

impl Client {
    /// Connects and returns when every subscription is acknowledged.
    pub(crate) fn connect(
        broker: SocketAddr,
        name: &str,
        will: Option<LastWill>,
        topics: &[&str],
    ) -> Self {
        let mut options = MqttOptions::new(name, broker.ip().to_string(), broker.port());
        options.set_keep_alive(Duration::from_secs(30));
        if let Some(will) = will {
            options.set_last_will(will);
        }
        let (client, mut connection) = rumqttc::Client::new(options, 1000);
        for topic in topics {
            client.subscribe(*topic, QoS::AtLeastOnce).unwrap();
        }
        let (acknowledge, acknowledged) = channel();
        let (deliver, messages) = channel();
        let (ready, subscribed) = channel();
        let power = Arc::new(AtomicBool::new(true));
        let on = power.clone();
        std::thread::spawn(move || {
            while on.load(Ordering::Relaxed) {
                let Ok(event) = connection.recv_timeout(Duration::from_millis(20)) else {
                    continue;
                };
                // The test may be over.
                match event {
                    Ok(Event::Incoming(Packet::SubAck(_))) => drop(ready.send(())),
                    Ok(Event::Incoming(Packet::PubAck(_))) => drop(acknowledge.send(())),
                    Ok(Event::Incoming(Packet::Publish(message))) => {
                        let text = String::from_utf8(message.payload.to_vec()).unwrap();
                        drop(deliver.send((message.topic, text)));
                    }
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        });
        topics.iter().for_each(|_| subscribed.recv_timeout(PATIENCE).unwrap());
        Self { client, acknowledged, messages, power }
    }

    /// Publishes at QoS 1; a connection that is gone is the broker's business.
    pub(crate) fn publish(&self, topic: &str, retain: bool, payload: &Value) {
        drop(self.client.publish(topic, QoS::AtLeastOnce, retain, payload.to_string()));
    }

    /// Waits for a PUBACK.
    #[track_caller]
    pub(crate) fn acknowledged(&self) {
        self.acknowledged.recv_timeout(PATIENCE).unwrap();
    }

    /// Drops the connection without a DISCONNECT, as a power failure does.
    pub(crate) fn power_off(&self) {
        self.power.store(false, Ordering::Relaxed);
    }
}

/// A node that only sends, and receives the verdicts of `judge`.
pub(crate) struct Node {
    pub(crate) mqtt: Client,
}

impl Node {
    /// Connects and subscribes to the verdicts of `judge`.
    pub(crate) fn connect(broker: SocketAddr, name: &str) -> Self {
        Self { mqtt: Client::connect(broker, name, None, &["et/v1/lab/+/verdict/judge"]) }
    }

    /// Sends a reading of `lab:n-<n>`.
    pub(crate) fn send(&self, n: u32, x: u32) {
        self.publish(n, "data", &json!({"environment": {"x": x}}));
    }

    /// Sends a numbered reading of `lab:n-<n>`.
    pub(crate) fn send_numbered(&self, n: u32, x: u32, boot: u32, seq: u32) {
        self.publish(n, "data", &json!({"seq": seq, "boot": boot, "environment": {"x": x}}));
    }

    /// Sends the retained state of `lab:n-<n>`.
    pub(crate) fn send_state(&self, n: u32, boot: u32) {
        self.publish(n, "state", &json!({"up": 1, "boot": boot}));
    }

    fn publish(&self, n: u32, leaf: &str, payload: &Value) {
        self.mqtt.publish(&format!("et/v1/lab/n-{n}/{leaf}"), leaf == "state", payload);
    }

    /// Waits for a PUBACK.
    #[track_caller]
    pub(crate) fn acknowledged(&self) {
        self.mqtt.acknowledged();
    }

    /// The next verdict with its topic.
    #[track_caller]
    pub(crate) fn verdict(&self) -> (String, Value) {
        let (topic, text) = self.mqtt.messages.recv_timeout(PATIENCE).unwrap();
        (topic, serde_json::from_str(&text).unwrap())
    }
}
