//! What clients publish: decoded, submitted, and acknowledged when it is durable.

use std::rc::Rc;
use std::time::{Duration, Instant};

use mqtt_protocol_core::mqtt::ArcPayload;
use mqtt_protocol_core::mqtt::packet::Property;
use mqtt_protocol_core::mqtt::result_code::{
    DisconnectReasonCode, PubackReasonCode, PubrecReasonCode,
};

use super::deliver::forwarded;
use super::{Ack, Context, Hub, Link, Pending, Reason, Taken, not_stored, take_reading};
use crate::node::broker::{self, Message, Will};
use crate::node::wire::Uplink;
use crate::node::{PayloadError, Topic};
use crate::telemetry::{Severity, now_us};
use crate::twin::path::Path;
use crate::twin::{Change, Refusal, ThingId};
use crate::writer::{Origin, Precondition, Rejected, Request};

impl Hub {
    pub(super) fn publish(
        self: &Rc<Self>,
        link: &Rc<Link>,
        incoming: &Incoming<'_>,
        arrived: Instant,
    ) {
        let telemetry = &self.context.telemetry;
        telemetry.mqtt_received.inc();
        if broker::check_topic(incoming.topic).is_err() {
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
            let lost: Vec<Pending> = self.pending.borrow_mut().drain(..).collect();
            for pending in lost {
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
            let message = Rc::new(Message {
                topic,
                payload: payload_of(&payload),
                qos: 1,
                retain,
                properties: Vec::new(),
                expires: None,
                sender: None,
            });
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
        // A node's last word is heard like its others. What became of it has nobody to be told.
        let told = take_reading(
            &self.context,
            &message.topic,
            message.payload.as_slice(),
            false,
            &"a will",
        );
        if matches!(told, Taken::Staged(_)) {
            self.staged.notify_one();
        }
        self.keep_retained(&message);
        self.route(&message);
    }
}

/// Hands on what a node says beside its readings.
pub(super) fn hear(
    context: &Context,
    topic: Topic,
    payload: &[u8],
    live: bool,
    from: &dyn std::fmt::Display,
) -> Taken {
    if payload.is_empty() {
        // A retained state is taken away.
        return Taken::NotAReading;
    }
    if context.writer.newest(topic.thing.as_str()).is_none() {
        // Whoever subscribes to it still gets it.
        context.telemetry.messages_unknown.inc();
        let refusal = Refusal::NotFound(topic.thing.clone(), Path::Thing);
        let object = format!("Twin/{}/{}", topic.thing.namespace(), topic.thing.name());
        let text = format!("a message from {from} was not heard: {}", refusal.message());
        context.telemetry.event(now_us(), Severity::Warning, "UnknownNode", object, text);
        return Taken::NotAReading;
    }
    match Uplink::decode_as(&topic.leaf, payload) {
        Ok(Some(uplink)) => {
            let taken = match &uplink {
                Uplink::State(state) if state.up && live => born(context, &topic.thing, state.boot),
                _ => Taken::NotAReading,
            };
            context.uplinks.heard(topic.thing, uplink);
            taken
        }
        Ok(None) => Taken::NotAReading,
        Err(error) => {
            let error = PayloadError::NotJson(error.to_string());
            refused(context, &error, topic.thing.as_str(), from)
        }
    }
}

/// A node says at which boot it is. If its counter went back, its readings are taken from here on.
fn born(context: &Context, thing: &ThingId, boot: u32) -> Taken {
    let request = Request {
        id: thing.clone(),
        change: Change::Boot(boot.into()),
        only_if: Precondition::Always,
        origin: Origin::Runtime,
        depth: 0,
    };
    match context.writer.submit(request, now_us()) {
        Ok(accepted) => {
            let object = format!("Twin/{}/{}", thing.namespace(), thing.name());
            let text = format!(
                "the node says that it is at boot {boot}, and later ones were heard before: its boots are \
                 numbered anew, as after its memory was erased or its board was replaced"
            );
            context.telemetry.event(now_us(), Severity::Warning, "BootReset", object, text);
            Taken::Staged(accepted.batch)
        }
        Err(Rejected::Refused(_)) => Taken::NotAReading,
        Err(Rejected::NotStored(error)) => not_stored(context, &error),
    }
}

pub(super) fn refused(
    context: &Context,
    error: &PayloadError,
    about: &str,
    from: &dyn std::fmt::Display,
) -> Taken {
    let telemetry = &context.telemetry;
    telemetry.readings_refused.inc();
    let object = match ThingId::parse(about) {
        Ok(id) => format!("Twin/{}/{}", id.namespace(), id.name()),
        Err(_) => format!("Topic/{about}"),
    };
    let text = format!("a reading from {from} was refused: {error}");
    telemetry.event(now_us(), Severity::Warning, error.reason(), object, text);
    Taken::Refused(match error {
        PayloadError::Topic(_) => Reason::TopicInvalid,
        PayloadError::TooLarge(_) => Reason::QuotaExceeded,
        _ => Reason::PayloadInvalid,
    })
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

pub(super) fn payload_of(bytes: &[u8]) -> ArcPayload {
    let len = bytes.len();
    ArcPayload::new(bytes.into(), 0, len)
}

pub(super) fn node_name(topic: &str) -> String {
    match Topic::parse(topic) {
        Some(Ok(topic)) => format!("Twin/{}/{}", topic.thing.namespace(), topic.thing.name()),
        _ => format!("Topic/{topic}"),
    }
}
