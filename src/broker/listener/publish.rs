//! What clients publish: decoded, submitted, and acknowledged when it is durable.

use std::rc::Rc;
use std::time::{Duration, Instant};

use mqtt_protocol_core::mqtt::ArcPayload;
use mqtt_protocol_core::mqtt::packet::Property;
use mqtt_protocol_core::mqtt::result_code::{
    DisconnectReasonCode, PubackReasonCode, PubrecReasonCode,
};

use super::deliver::forwarded;
use super::hub::{Ack, Hub, Link, Pending};
use crate::broker::memory::{self, Message, Will};
use crate::gateway::intake::Reason;
use crate::gateway::intake::{Taken, take_reading};

impl Hub {
    pub(super) fn publish(
        self: &Rc<Self>,
        link: &Rc<Link>,
        incoming: &Incoming<'_>,
        arrived: Instant,
    ) {
        let telemetry = &self.context.telemetry;
        telemetry.mqtt_received.inc();
        if memory::check_topic(incoming.topic).is_err() {
            telemetry.mqtt_violations.inc();
            return self.violation(link, DisconnectReasonCode::TopicNameInvalid);
        }
        let client = link.state.borrow().client.clone();
        let message = Rc::new(Message {
            topic: incoming.topic.to_owned(),
            payload: incoming.payload.clone(),
            qos: incoming.qos,
            retain: incoming.retain,
            properties: forwarded(incoming.properties),
            expires: expiry_of(incoming.properties).and_then(|after| arrived.checked_add(after)),
            sender: client,
        });
        let ack = |reason| incoming.packet.map(|packet| Ack { packet, qos: incoming.qos, reason });
        let (batch, reason) = match take_reading(
            &self.context,
            &message.topic,
            message.payload.as_slice(),
            !incoming.dup,
            &link.peer,
        ) {
            Taken::NotAReading => {
                // Behind whatever waits for the disk, so that a client's order is kept.
                let reason = self.keep_retained(&message);
                let waiting = !self.pending.borrow().is_empty();
                if !waiting {
                    let routed = self.route(&message);
                    let reason = if routed || reason != Reason::Success {
                        reason
                    } else {
                        Reason::NoSubscribers
                    };
                    return self.acknowledge(link, ack(reason));
                }
                (self.last_batch.get(), reason)
            }
            Taken::Staged(batch) => {
                self.last_batch.set(batch);
                telemetry.stage_apply.record(arrived.elapsed());
                self.staged.notify_one();
                self.keep_retained(&message);
                (batch, Reason::Success)
            }
            Taken::Duplicate => (self.last_batch.get(), Reason::Success),
            Taken::Refused(reason) => {
                let ack = ack(reason);
                let pending = Pending { batch: 0, link: link.clone(), ack, message: None, arrived };
                return self.wait(pending);
            }
            Taken::NotStored(reason) => {
                telemetry.readings_not_stored.inc();
                return self.violation(link, reason);
            }
        };
        let ack = ack(reason);
        let message = Some(message);
        self.wait(Pending { batch, link: link.clone(), ack, message, arrived });
    }

    /// Acknowledges and routes now, if nothing is in front, or when its batch is durable.
    pub(super) fn wait(self: &Rc<Self>, pending: Pending) {
        let empty = self.pending.borrow().is_empty();
        if empty && self.durable.borrow().batch >= pending.batch {
            self.settle(pending);
        } else {
            self.pending.borrow_mut().push_back(pending);
        }
    }

    pub(super) fn settle(self: &Rc<Self>, pending: Pending) {
        if let Some(message) = &pending.message {
            self.route(message);
        }
        self.acknowledge(&pending.link, pending.ack);
        self.context.telemetry.stage_ack.record(pending.arrived.elapsed());
    }

    /// Settles what became durable and publishes what the runtime has to say.
    pub(super) fn drain(self: &Rc<Self>) {
        let durable = self.durable.borrow().clone();
        if durable.failed.is_some() {
            let unsaved: Vec<Pending> = self.pending.borrow_mut().drain(..).collect();
            for pending in unsaved {
                self.context.telemetry.readings_not_stored.inc();
                self.violation(&pending.link, DisconnectReasonCode::ImplementationSpecificError);
            }
        }
        loop {
            let next = {
                let mut pending = self.pending.borrow_mut();
                match pending.front() {
                    Some(front) if front.batch <= durable.batch => pending.pop_front(),
                    _ => None,
                }
            };
            let Some(next) = next else { break };
            self.settle(next);
        }
        for (topic, payload, retain) in self.context.outbox.take() {
            let message = Rc::new(message_of_runtime(topic, &payload, retain));
            self.keep_retained(&message);
            self.route(&message);
        }
        self.drained.notify_waiters();
    }

    pub(super) fn keep_retained(&self, message: &Rc<Message>) -> Reason {
        if !message.retain {
            return Reason::Success;
        }
        match self.broker.borrow_mut().retain(message) {
            Ok(()) => Reason::Success,
            Err(_) => Reason::QuotaExceeded,
        }
    }

    pub(super) fn publish_will(self: &Rc<Self>, will: Will) {
        let now = Instant::now();
        let message = match will.expiry {
            None => will.message,
            Some(expiry) => Rc::new(Message {
                topic: will.message.topic.clone(),
                payload: will.message.payload.clone(),
                qos: will.message.qos,
                retain: will.message.retain,
                properties: will.message.properties.clone(),
                expires: now.checked_add(expiry),
                sender: will.message.sender.clone(),
            }),
        };
        // A will is handled like any other message; its result has no receiver.
        let taken = take_reading(
            &self.context,
            &message.topic,
            message.payload.as_slice(),
            false,
            &"a will",
        );
        if matches!(taken, Taken::Staged(_)) {
            self.staged.notify_one();
        }
        self.keep_retained(&message);
        self.route(&message);
    }
}

pub(super) struct Incoming<'a> {
    pub(super) topic: &'a str,
    pub(super) payload: &'a ArcPayload,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) dup: bool,
    pub(super) packet: Option<u16>,
    pub(super) properties: &'a [Property],
}

/// A PUBLISH of either version: both have the same fields and no type in common.
macro_rules! incoming {
    ($publish:ident, $properties:expr) => {
        Incoming {
            topic: $publish.topic_name(),
            payload: $publish.payload(),
            qos: $publish.qos() as u8,
            retain: $publish.retain(),
            dup: $publish.dup(),
            packet: $publish.packet_id(),
            properties: $properties,
        }
    };
}
pub(super) use incoming;

impl Reason {
    pub(super) fn puback(self) -> PubackReasonCode {
        match self {
            Self::Success => PubackReasonCode::Success,
            Self::NoSubscribers => PubackReasonCode::NoMatchingSubscribers,
            Self::NotAuthorized => PubackReasonCode::NotAuthorized,
            Self::TopicInvalid => PubackReasonCode::TopicNameInvalid,
            Self::PayloadInvalid => PubackReasonCode::PayloadFormatInvalid,
            Self::QuotaExceeded => PubackReasonCode::QuotaExceeded,
        }
    }

    pub(super) fn pubrec(self) -> PubrecReasonCode {
        match self {
            Self::Success => PubrecReasonCode::Success,
            Self::NoSubscribers => PubrecReasonCode::NoMatchingSubscribers,
            Self::NotAuthorized => PubrecReasonCode::NotAuthorized,
            Self::TopicInvalid => PubrecReasonCode::TopicNameInvalid,
            Self::PayloadInvalid => PubrecReasonCode::PayloadFormatInvalid,
            Self::QuotaExceeded => PubrecReasonCode::QuotaExceeded,
        }
    }
}

pub(super) fn expiry_of(properties: &[Property]) -> Option<Duration> {
    properties.iter().find_map(|property| match property {
        Property::MessageExpiryInterval(seconds) => Some(Duration::from_secs(seconds.val().into())),
        _ => None,
    })
}

/// A message that the runtime itself publishes.
fn message_of_runtime(topic: String, payload: &[u8], retain: bool) -> Message {
    Message {
        topic,
        payload: payload_of(payload),
        qos: 1,
        retain,
        properties: Vec::new(),
        expires: None,
        sender: None,
    }
}

pub(super) fn payload_of(bytes: &[u8]) -> ArcPayload {
    let len = bytes.len();
    ArcPayload::new(bytes.into(), 0, len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtimes_messages_are_retained_as_asked() {
        for retain in [true, false] {
            let message = message_of_runtime("t".to_owned(), b"x", retain);
            assert_eq!(
                (message.retain, message.qos, message.payload.as_slice()),
                (retain, 1, &b"x"[..])
            );
        }
    }
}
