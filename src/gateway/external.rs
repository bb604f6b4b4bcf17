//! An external MQTT broker instead of the built-in listener: readings come in, verdicts go out.
//!
//! Readings are acknowledged by hand, when their update is durable; until then the broker keeps
//! them for this client's session and sends them again after a reconnect, and their sequence
//! numbers show which were applied already. So nothing that the broker has acknowledged to a node is
//! lost when this runtime is killed. What the broker loses when it is killed itself stays lost.
//!
//! Malformed readings are acknowledged, counted and reported: the broker would send them for ever.

use std::collections::VecDeque;
use std::time::Duration;

use rumqttc::{
    AsyncClient, Event, MqttOptions, NetworkOptions, Packet, Publish, QoS, SubscribeFilter,
};
use tokio::sync::watch;

use crate::base::clock::now_us;
use crate::base::http::stopped;
use crate::base::telemetry::Severity;
use crate::gateway::intake::{IntakeContext, PACKET_LEN_MAX};
use crate::gateway::intake::{Taken, take_reading};

/// Readings that the broker may send before the first of them is acknowledged.
const IN_FLIGHT_MAX: u16 = 1024;
/// Requests that wait for the connection: acknowledgements and verdicts.
const REQUESTS_MAX: usize = 4096;
/// First and longest wait before connecting again; doubled in between, give or take half.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// What nodes publish readings to.
const UPLINKS: [&str; 5] =
    ["et/v1/+/+/data", "et/v1/+/+/feat", "et/v1/+/+/ack", "et/v1/+/+/event", "et/v1/+/+/state"];

/// Where the broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl Broker {
    /// Parses `mqtt://host[:port]`.
    ///
    /// # Errors
    /// One sentence.
    pub fn parse(url: &str) -> Result<Self, String> {
        let rest =
            url.strip_prefix("mqtt://").ok_or("a broker is mqtt://HOST[:PORT]".to_owned())?;
        let rest = rest.trim_end_matches('/');
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) => {
                (host, port.parse().map_err(|_| format!("`{port}` is not a port"))?)
            }
            None => (rest, 1883),
        };
        if host.is_empty() || host.contains(['/', '@']) {
            return Err(format!("`{host}` is not a host"));
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

struct Waiting {
    batch: u64,
    publish: Publish,
}

/// Takes readings from `broker` and publishes verdicts there until `stop` turns true.
///
/// * `session`: the client identifier; the same after a restart, another for each runtime.
pub async fn run(
    broker: Broker,
    session: String,
    context: IntakeContext,
    mut stop: watch::Receiver<bool>,
) {
    let mut options = MqttOptions::new(session, &broker.host, broker.port);
    options
        .set_keep_alive(Duration::from_secs(20))
        .set_clean_session(false)
        .set_manual_acks(true)
        .set_inflight(IN_FLIGHT_MAX)
        .set_max_packet_size(PACKET_LEN_MAX as usize, PACKET_LEN_MAX as usize);
    let (client, mut events) = AsyncClient::new(options, REQUESTS_MAX);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    events.set_network_options(network);

    let mut durable = context.writer.durable();
    let mut waiting: VecDeque<Waiting> = VecDeque::new();
    let mut last_batch = 0;
    let mut wait = RECONNECT.0;
    loop {
        let event = tokio::select! {
            () = stopped(&mut stop) => break,
            event = events.poll() => Some(event),
            changed = durable.changed() => {
                if changed.is_err() { break }
                None
            }
            () = context.outbox.filled() => None,
        };
        match event {
            Some(Ok(Event::Incoming(Packet::ConnAck(_)))) => {
                wait = RECONNECT.0;
                // What was in flight comes again under new numbers.
                waiting.clear();
                let filters =
                    UPLINKS.map(|path| SubscribeFilter::new(path.to_owned(), QoS::AtLeastOnce));
                if let Err(error) = client.try_subscribe_many(filters) {
                    let remedy = "nothing, unless it repeats; then restart the runtime";
                    tracing::warn!(%error, remedy, "no room to subscribe; the connection is made again");
                    events.clean();
                }
            }
            Some(Ok(Event::Incoming(Packet::Publish(publish)))) => {
                let taken = take_reading(
                    &context,
                    &publish.topic,
                    &publish.payload,
                    !publish.retain && !publish.dup,
                    &"the broker",
                );
                match taken {
                    Taken::Staged(batch) => {
                        last_batch = batch;
                        waiting.push_back(Waiting { batch, publish });
                        context.writer.wake_committer();
                    }
                    Taken::Duplicate => waiting.push_back(Waiting { batch: last_batch, publish }),
                    Taken::Refused(_) | Taken::NotAReading => {
                        waiting.push_back(Waiting { batch: 0, publish });
                    }
                    Taken::NotStored(_) => {
                        context.telemetry.readings_not_stored.inc();
                        // Not acknowledged: the broker keeps it and sends it to the next
                        // connection.
                        waiting.clear();
                        events.clean();
                        pause(&mut wait, &mut stop).await;
                    }
                }
            }
            Some(Ok(_)) | None => {}
            Some(Err(error)) => {
                waiting.clear();
                context.telemetry.event(
                    now_us(),
                    Severity::Warning,
                    "BrokerUnreachable",
                    format!("Broker/{}:{}", broker.host, broker.port),
                    error.to_string(),
                );
                pause(&mut wait, &mut stop).await;
            }
        }
        let reached = durable.borrow_and_update().batch;
        while waiting.front().is_some_and(|waiting| waiting.batch <= reached) {
            if let Some(Waiting { publish, .. }) = waiting.pop_front()
                && client.try_ack(&publish).is_err()
            {
                // No room: it is sent again, and its number shows that it was applied.
                break;
            }
        }
        for (topic, payload, retain) in context.outbox.take() {
            if let Err(error) = client.try_publish(topic, QoS::AtLeastOnce, retain, payload) {
                context.telemetry.mqtt_dropped.inc();
                let remedy = "check that the broker runs and keeps up";
                tracing::warn!(%error, remedy, "a message to the external broker was dropped");
            }
        }
    }
    if client.try_disconnect().is_ok() {
        // Says goodbye, if the connection is there.
        let goodbye = async { while events.poll().await.is_ok() {} };
        if tokio::time::timeout(Duration::from_millis(300), goodbye).await.is_err() {
            tracing::debug!("the broker did not confirm the disconnect in time");
        }
    }
}

async fn pause(wait: &mut Duration, stop: &mut watch::Receiver<bool>) {
    let jitter = 0.5 + rand::random::<f64>();
    tokio::select! {
        () = tokio::time::sleep(wait.mul_f64(jitter)) => {}
        () = stopped(stop) => {}
    }
    *wait = (*wait * 2).min(RECONNECT.1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_a_url() {
        let broker = Broker::parse("mqtt://edge.local").unwrap();
        assert_eq!((broker.host.as_str(), broker.port), ("edge.local", 1883));
        assert_eq!(Broker::parse("mqtt://127.0.0.1:2883/").unwrap().port, 2883);
        for url in ["edge.local", "http://x", "mqtt://", "mqtt://a:b", "mqtt://user@host"] {
            assert!(Broker::parse(url).is_err(), "{url}");
        }
    }
}
