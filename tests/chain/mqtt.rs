//! The broker: what clients publish arrives, once, and what nodes send that nobody knows is counted.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::channel;
use std::time::Duration;

use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use serde_json::json;

use crate::support::PATIENCE;
use crate::support::mqtt::Node;
use crate::support::runtime::Runtime;

/// What each version's client published at each quality of service arrives at the other's, once.
#[test]
fn rumqttc_talks_with_itself_in_both_versions() {
    let runtime = Runtime::start();
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

/// Publishes a message that says of itself that it was sent before, and waits for its PUBACK.
fn send_again(broker: SocketAddr, topic: &str, payload: &str) {
    let mut stream = TcpStream::connect(broker).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01r").unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [0x20, 2, 0, 0]);
    let len = u8::try_from(2 + topic.len() + 2 + payload.len()).unwrap();
    let head = [0x3a, len, 0, topic.len() as u8];
    let packet = [&head, topic.as_bytes(), &[0, 9], payload.as_bytes()].concat();
    stream.write_all(&packet).unwrap();
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [0x40, 2, 0, 9]);
}

#[test]
fn a_node_whose_memory_was_erased_is_heard_once_it_says_its_boot_and_over_kill_nine() {
    let runtime = Runtime::start();
    assert_eq!(runtime.put("/api/2/things/lab:n-1", &json!({})), 201);
    let x = |runtime: &Runtime| {
        runtime.thing("lab:n-1")["features"]["environment"]["properties"]["x"].clone()
    };
    let told = |runtime: &Runtime, reason: &str| {
        let event = runtime.events(reason).pop();
        event.map(|event| (event["object"].clone(), event["count"].clone()))
    };
    let once = Some((json!("Twin/lab/n-1"), json!(1)));
    let node = Node::connect(runtime.mqtt, "node");
    let send = |node: &Node, value: u32, boot: u32, seq: u32| {
        node.send_numbered(1, value, boot, seq);
        node.acknowledged();
    };
    node.send_state(1, 7);
    node.acknowledged();
    send(&node, 70, 7, 0);
    send(&node, 71, 7, 1);
    send(&node, 10, 1, 0);
    assert_eq!((x(&runtime), told(&runtime, "OldBoot")), (json!(71), once.clone()));
    assert_eq!(told(&runtime, "BootReset"), None);
    // A birth message of earlier that is sent again says nothing.
    send_again(runtime.mqtt, "et/v1/lab/n-1/state", r#"{"up":1,"boot":1}"#);
    assert_eq!(told(&runtime, "BootReset"), None);
    // The board that came in its place says so. It is acknowledged when that is durable.
    node.send_state(1, 1);
    node.acknowledged();
    assert_eq!(told(&runtime, "BootReset"), once);
    let runtime = runtime.restart();
    let node = Node::connect(runtime.mqtt, "node");
    send(&node, 10, 1, 0);
    assert_eq!(x(&runtime), 10);
    // What was queued of the former one is not taken again, nor is what is sent again.
    let revision = runtime.thing("lab:n-1")["_revision"].clone();
    for (value, boot, seq) in [(70, 7, 0), (71, 7, 1), (10, 1, 0)] {
        send(&node, value, boot, seq);
    }
    assert_eq!((x(&runtime), &runtime.thing("lab:n-1")["_revision"]), (json!(10), &revision));
    node.send_state(1, 1);
    node.acknowledged();
    send(&node, 11, 1, 1);
    assert_eq!((x(&runtime), told(&runtime, "BootReset")), (json!(11), None));
}

#[test]
fn messages_of_nodes_without_a_twin_are_counted_and_told() {
    let runtime = Runtime::start();
    let node = Node::connect(runtime.mqtt, "node");
    node.send_state(9, 1);
    node.send_state(9, 1);
    node.send_state(8, 1);
    for leaf in ["ack", "event"] {
        let topic = format!("et/v1/lab/n-7/{leaf}");
        node.mqtt.client.publish(topic, QoS::AtLeastOnce, false, r#"{"boot":1}"#).unwrap();
    }
    (0..5).for_each(|_| node.acknowledged());
    let told = runtime.events("UnknownNode");
    let told: Vec<_> = told
        .iter()
        .map(|event| (event["object"].as_str().unwrap(), event["count"].as_u64().unwrap()))
        .collect();
    assert_eq!(told, [("Twin/lab/n-9", 2), ("Twin/lab/n-8", 1), ("Twin/lab/n-7", 2)]);
    assert!(runtime.metrics().contains("\nedgetwin_messages_unknown_total 5\n"));
}
