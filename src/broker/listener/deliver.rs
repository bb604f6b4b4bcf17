//! What clients are sent: routed, queued, and flowing as fast as each takes it.

use std::rc::Rc;
use std::time::Instant;

use mqtt_protocol_core::mqtt::connection::Event;
use mqtt_protocol_core::mqtt::packet::{
    GenericPacketTrait, MessageExpiryInterval, Packet, Property, Qos, SubscriptionIdentifier,
    v3_1_1, v5_0,
};
use mqtt_protocol_core::mqtt::result_code::{PubackReasonCode, PubrecReasonCode};

use super::hub::{Ack, Hub, Link, OUTGOING_BYTES_MAX};
use crate::broker::memory::{ClientId, Delivery, Message};

impl Hub {
    /// Hands a message to everyone who subscribed; `false` if nobody did.
    pub(super) fn route(self: &Rc<Self>, message: &Rc<Message>) -> bool {
        let routed = self.broker.borrow_mut().route(message);
        let any = !routed.is_empty();
        for (client, delivery) in routed {
            self.deliver(&client, delivery);
        }
        any
    }

    pub(super) fn deliver_all(self: &Rc<Self>, link: &Rc<Link>, deliveries: Vec<Delivery>) {
        let client = link.state.borrow().client.clone();
        if let Some(client) = client {
            for delivery in deliveries {
                self.deliver(&client, delivery);
            }
        }
    }

    pub(super) fn deliver(self: &Rc<Self>, client: &ClientId, delivery: Delivery) {
        let link = self.links.borrow().get(client).cloned();
        let mut broker = self.broker.borrow_mut();
        let Some(session) = broker.sessions.get_mut(client) else { return };
        let sent = match &link {
            Some(link) if delivery.qos == 0 || !session.has_queued() => {
                match self.send_publish(link, &delivery) {
                    Sent::Yes => true,
                    Sent::Never => {
                        return self.dropped(client, "it cannot take such a message now");
                    }
                    Sent::NotNow => false,
                }
            }
            _ => false,
        };
        if sent {
            return;
        }
        let kept = delivery.qos > 0 && session.push(delivery);
        if !kept {
            self.dropped(client, "it is too slow, or was offline for too long");
        }
    }

    /// Counts a message that a subscriber does not get, and logs it.
    fn dropped(&self, client: &ClientId, why: &str) {
        self.context.telemetry.mqtt_dropped.inc();
        let remedy = "have it read faster, or end its session with clean start";
        tracing::warn!(%client, remedy, "a message to an MQTT client was dropped: {why}");
    }

    /// Sends what waits in the session, as far as the client and the socket take it.
    pub(super) fn pump(self: &Rc<Self>, link: &Rc<Link>) {
        let Some(client) = link.state.borrow().client.clone() else { return };
        let now = Instant::now();
        let mut broker = self.broker.borrow_mut();
        let Some(session) = broker.sessions.get_mut(&client) else { return };
        while let Some(delivery) = session.pop(now) {
            match self.send_publish(link, &delivery) {
                Sent::Yes => {}
                Sent::Never => self.dropped(&client, "it cannot take such a message now"),
                Sent::NotNow => {
                    session.unpop(delivery);
                    return;
                }
            }
        }
    }

    pub(super) fn send_publish(&self, link: &Rc<Link>, delivery: &Delivery) -> Sent {
        let mut state = link.state.borrow_mut();
        if state.closing {
            return if delivery.qos == 0 { Sent::Never } else { Sent::NotNow };
        }
        if state.out.len() - state.written > OUTGOING_BYTES_MAX {
            return Sent::NotNow;
        }
        let mut packet_id = None;
        if delivery.qos > 0 {
            if state.in_flight >= state.in_flight_max {
                return Sent::NotNow;
            }
            match state.protocol.acquire_packet_id() {
                Ok(id) => packet_id = Some(id),
                Err(_) => return Sent::NotNow,
            }
        }
        let Some(packet) = publish_packet(state.version, delivery, packet_id) else {
            return Sent::Never;
        };
        let mut sent = Sent::Never;
        for event in state.protocol.send(packet) {
            match event {
                Event::RequestSendPacket { packet, .. } => {
                    state.out.extend_from_slice(&packet.to_continuous_buffer());
                    sent = Sent::Yes;
                }
                Event::NotifyError(error) => {
                    tracing::debug!(?error, peer = %link.peer, "a message was not sent");
                }
                _ => {}
            }
        }
        if let (Sent::Never, Some(id)) = (&sent, packet_id) {
            // Too large for this client, say; the number is free again.
            let _events = state.protocol.release_packet_id(id);
        }
        if matches!(sent, Sent::Yes) && packet_id.is_some() {
            state.in_flight += 1;
        }
        drop(state);
        if matches!(sent, Sent::Yes) {
            self.context.telemetry.mqtt_sent.inc();
            self.touch(link);
        }
        sent
    }

    pub(super) fn acknowledge(self: &Rc<Self>, link: &Rc<Link>, ack: Option<Ack>) {
        let Some(Ack { packet, qos, reason }) = ack else { return };
        let version = link.state.borrow().version;
        let packet: Option<Packet> = match (version, qos) {
            (3, 1) => v3_1_1::Puback::builder().packet_id(packet).build().ok().map(Into::into),
            (3, _) => v3_1_1::Pubrec::builder().packet_id(packet).build().ok().map(Into::into),
            (_, 1) => {
                let builder = v5_0::Puback::builder().packet_id(packet);
                let builder = match reason.puback() {
                    PubackReasonCode::Success => builder,
                    code => builder.reason_code(code),
                };
                builder.build().ok().map(Into::into)
            }
            _ => {
                let builder = v5_0::Pubrec::builder().packet_id(packet);
                let builder = match reason.pubrec() {
                    PubrecReasonCode::Success => builder,
                    code => builder.reason_code(code),
                };
                builder.build().ok().map(Into::into)
            }
        };
        if let Some(packet) = packet {
            self.send(link, packet);
        }
    }
}

pub(super) enum Sent {
    Yes,
    NotNow,
    Never,
}

pub(super) fn publish_packet(
    version: u8,
    delivery: &Delivery,
    packet_id: Option<u16>,
) -> Option<Packet> {
    let Delivery { message, qos, retain, identifiers } = delivery;
    let qos = match qos {
        0 => Qos::AtMostOnce,
        1 => Qos::AtLeastOnce,
        _ => Qos::ExactlyOnce,
    };
    if version == 3 {
        let builder = v3_1_1::Publish::builder()
            .topic_name(message.topic.as_str())
            .ok()?
            .qos(qos)
            .retain(*retain)
            .payload(message.payload.clone());
        let builder = match packet_id {
            Some(id) => builder.packet_id(id),
            None => builder,
        };
        return builder.build().ok().map(Into::into);
    }
    let mut properties = message.properties.clone();
    if let Some(expires) = message.expires {
        // What is left of it (MQTT-3.3.2-6), rounded up so that it is never 0 while it lives.
        let left = expires.saturating_duration_since(Instant::now()).as_secs_f64().ceil();
        properties.push(MessageExpiryInterval::new(left as u32).ok()?.into());
    }
    for identifier in identifiers {
        properties.push(SubscriptionIdentifier::new(*identifier).ok()?.into());
    }
    let builder = v5_0::Publish::builder()
        .topic_name(message.topic.as_str())
        .ok()?
        .qos(qos)
        .retain(*retain)
        .payload(message.payload.clone())
        .props(properties);
    let builder = match packet_id {
        Some(id) => builder.packet_id(id),
        None => builder,
    };
    builder.build().ok().map(Into::into)
}

/// The properties that go to subscribers unchanged, in order (MQTT 5, 3.3.2.3).
pub(super) fn forwarded(properties: &[Property]) -> Vec<Property> {
    let passes = |property: &&Property| {
        matches!(
            property,
            Property::PayloadFormatIndicator(_)
                | Property::ContentType(_)
                | Property::ResponseTopic(_)
                | Property::CorrelationData(_)
                | Property::UserProperty(_)
        )
    };
    properties.iter().filter(passes).cloned().collect()
}
