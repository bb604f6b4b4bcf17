//! Clients come and go: CONNECT in both versions, sessions taken over, DISCONNECT.

use std::collections::HashSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mqtt_protocol_core::mqtt::packet::{
    AssignedClientIdentifier, Property, TopicAliasMaximum, v3_1_1, v5_0,
};
use mqtt_protocol_core::mqtt::result_code::{
    ConnectReasonCode, ConnectReturnCode, DisconnectReasonCode,
};

use super::deliver::forwarded;
use super::hub::{Hub, Link, TOPIC_ALIASES_MAX};
use super::publish::payload_of;
use crate::broker::frame::Violation;
use crate::broker::memory::{self, ClientId, Message, SESSIONS_MAX, Will};

impl Hub {
    pub(super) fn connect_v3(self: &Rc<Self>, link: &Rc<Link>, connect: &v3_1_1::Connect) {
        let clean = connect.clean_start();
        let refuse = |code| {
            let ack = v3_1_1::Connack::builder().session_present(false).return_code(code).build();
            if let Ok(ack) = ack {
                self.send(link, ack.into());
            }
            self.close(link);
        };
        if connect.client_id().is_empty() && !clean {
            return refuse(ConnectReturnCode::IdentifierRejected);
        }
        let client = self.client_id(connect.client_id());
        let will = connect.will_topic().map(|topic| Will {
            message: Rc::new(Message {
                topic: topic.to_owned(),
                payload: payload_of(connect.will_payload().unwrap_or_default()),
                qos: connect.will_qos() as u8,
                retain: connect.will_retain(),
                properties: Vec::new(),
                expires: None,
                sender: Some(client.clone()),
            }),
            delay: Duration::ZERO,
            expiry: None,
        });
        if will.as_ref().is_some_and(|will| memory::check_topic(&will.message.topic).is_err()) {
            return self.close(link);
        }
        let expiry = if clean { Some(Duration::ZERO) } else { None };
        let Some(present) = self.attach(link, &client, 3, clean, expiry, will) else {
            return refuse(ConnectReturnCode::ServerUnavailable);
        };
        self.keep_alive(link, connect.keep_alive());
        let builder = v3_1_1::Connack::builder().session_present(present);
        if let Ok(ack) = builder.return_code(ConnectReturnCode::Accepted).build() {
            self.send(link, ack.into());
        }
        self.pump(link);
    }

    pub(super) fn connect_v5(self: &Rc<Self>, link: &Rc<Link>, connect: &v5_0::Connect) {
        let refuse = |code| {
            let ack = v5_0::Connack::builder().session_present(false).reason_code(code).build();
            if let Ok(ack) = ack {
                self.send(link, ack.into());
            }
            self.close(link);
        };
        let mut expiry = Some(Duration::ZERO);
        let mut problem_information = true;
        for property in connect.props() {
            match property {
                Property::SessionExpiryInterval(seconds) => expiry = session_expiry(seconds.val()),
                Property::RequestProblemInformation(wanted) => {
                    problem_information = wanted.val() != 0;
                }
                Property::ReceiveMaximum(most) => {
                    link.state.borrow_mut().in_flight_max = usize::from(most.val());
                }
                Property::AuthenticationMethod(_) => {
                    return refuse(ConnectReasonCode::BadAuthenticationMethod);
                }
                _ => {}
            }
        }
        link.state.borrow_mut().problem_information = problem_information;
        let client = self.client_id(connect.client_id());
        let will = connect.will_topic().map(|topic| {
            let mut will = Will {
                message: Rc::new(Message {
                    topic: topic.to_owned(),
                    payload: payload_of(connect.will_payload().unwrap_or_default()),
                    qos: connect.will_qos() as u8,
                    retain: connect.will_retain(),
                    properties: forwarded(&connect.will_props),
                    expires: None,
                    sender: Some(client.clone()),
                }),
                delay: Duration::ZERO,
                expiry: None,
            };
            for property in &connect.will_props {
                match property {
                    Property::WillDelayInterval(seconds) => {
                        will.delay = Duration::from_secs(seconds.val().into());
                    }
                    Property::MessageExpiryInterval(seconds) => {
                        will.expiry = Some(Duration::from_secs(seconds.val().into()));
                    }
                    _ => {}
                }
            }
            will
        });
        if will.as_ref().is_some_and(|will| memory::check_topic(&will.message.topic).is_err()) {
            return refuse(ConnectReasonCode::TopicNameInvalid);
        }
        let Some(present) = self.attach(link, &client, 5, connect.clean_start(), expiry, will)
        else {
            return refuse(ConnectReasonCode::QuotaExceeded);
        };
        self.keep_alive(link, connect.keep_alive());
        let mut properties: Vec<Property> = Vec::new();
        if connect.client_id().is_empty()
            && let Ok(assigned) = AssignedClientIdentifier::new(&*client)
        {
            properties.push(assigned.into());
        }
        if let Ok(aliases) = TopicAliasMaximum::new(TOPIC_ALIASES_MAX) {
            properties.push(aliases.into());
        }
        let builder = v5_0::Connack::builder()
            .session_present(present)
            .reason_code(ConnectReasonCode::Success)
            .props(properties);
        if let Ok(ack) = builder.build() {
            self.send(link, ack.into());
        }
        self.pump(link);
    }

    pub(super) fn client_id(&self, given: &str) -> ClientId {
        if !given.is_empty() {
            return given.into();
        }
        // Unique among the living: nobody else has a session of that name.
        loop {
            let number = self.next_client.get();
            self.next_client.set(number + 1);
            let id: ClientId = format!("edgetwin-{number}").into();
            if !self.broker.borrow().sessions.contains_key(&id) {
                return id;
            }
        }
    }

    pub(super) fn keep_alive(&self, link: &Link, seconds: u16) {
        let limit = (seconds > 0).then(|| Duration::from_millis(u64::from(seconds) * 1500));
        link.state.borrow_mut().keep_alive = limit;
    }

    /// Gives the client's session to this connection; `Some(present)`, or `None` if there is no
    /// room for another session.
    pub(super) fn attach(
        self: &Rc<Self>,
        link: &Rc<Link>,
        client: &ClientId,
        version: u8,
        clean: bool,
        expiry: Option<Duration>,
        will: Option<Will>,
    ) -> Option<bool> {
        let former = self.links.borrow().get(client).cloned();
        if let Some(former) = former {
            self.disconnect(&former, DisconnectReasonCode::SessionTakenOver);
            self.ended(&former);
        }
        let mut ended_wills = Vec::new();
        if clean && let Some(session) = self.broker.borrow_mut().remove(client) {
            ended_wills.extend(session.will);
        }
        let mut broker = self.broker.borrow_mut();
        let present = broker.sessions.contains_key(client);
        if !present && broker.sessions.len() >= SESSIONS_MAX {
            return None;
        }
        let session = broker.sessions.entry(client.clone()).or_default();
        session.expiry = expiry;
        session.connected = true;
        session.ended = None;
        session.will = will;
        let stored = std::mem::take(&mut session.stored);
        let same_version = session.version == version;
        session.version = version;
        let received: HashSet<u16> = session.received.iter().copied().collect();
        drop(broker);
        {
            let mut state = link.state.borrow_mut();
            state.client = Some(client.clone());
            state.version = version;
            if present {
                let received = received.into_iter().collect();
                state.protocol.restore_qos2_publish_handled(received);
                // What was in flight in the other version cannot be sent again as it was.
                if same_version {
                    state.in_flight = stored.len();
                    state.protocol.restore_packets(stored);
                }
            }
        }
        self.links.borrow_mut().insert(client.clone(), link.clone());
        for will in ended_wills {
            self.publish_will(will);
        }
        self.count_sessions();
        Some(present)
    }

    pub(super) fn disconnected_v5(self: &Rc<Self>, link: &Rc<Link>, disconnect: &v5_0::Disconnect) {
        let client = link.state.borrow().client.clone();
        let mut raised_from_zero = false;
        if let Some(client) = client
            && let Some(session) = self.broker.borrow_mut().sessions.get_mut(&client)
        {
            for property in disconnect.props().iter().flatten() {
                if let Property::SessionExpiryInterval(seconds) = property {
                    let wanted = session_expiry(seconds.val());
                    if session.expiry == Some(Duration::ZERO) && wanted != Some(Duration::ZERO) {
                        // A session that was to end cannot be kept after all (3.14.2.2.2).
                        raised_from_zero = true;
                        break;
                    }
                    session.expiry = wanted;
                }
            }
        }
        if raised_from_zero {
            return self.malformed(link, Violation::ProtocolError);
        }
        let with_will = disconnect.reason_code().is_some_and(|code| {
            code == DisconnectReasonCode::DisconnectWithWillMessage || code as u8 >= 0x80
        });
        link.state.borrow_mut().clean_end = !with_will;
        self.close(link);
    }

    /// The connection is over: keeps the session or ends it, and sees to the will.
    pub(super) fn ended(self: &Rc<Self>, link: &Rc<Link>) {
        let (client, clean_end, stored, received) = {
            let mut state = link.state.borrow_mut();
            state.closing = true;
            let Some(client) = state.client.take() else { return };
            let stored = state.protocol.get_stored_packets();
            let received = state.protocol.get_qos2_publish_handled();
            (client, state.clean_end, stored, received)
        };
        self.links.borrow_mut().remove(&client);
        let mut due = None;
        {
            let mut broker = self.broker.borrow_mut();
            if let Some(session) = broker.sessions.get_mut(&client) {
                session.connected = false;
                session.ended = Some(Instant::now());
                session.stored = stored;
                session.received = received.into_iter().collect();
                if clean_end {
                    session.will = None;
                }
                let ends = session.expiry == Some(Duration::ZERO);
                if ends || session.will.as_ref().is_some_and(|will| will.delay.is_zero()) {
                    due = session.will.take();
                }
                if ends {
                    broker.remove(&client);
                }
            }
        }
        if let Some(will) = due {
            self.publish_will(will);
        }
        self.count_sessions();
        self.sessions_changed.notify_one();
    }

    pub(super) fn count_sessions(&self) {
        let sessions = self.broker.borrow().sessions.len();
        self.context.telemetry.mqtt_sessions.set(sessions as i64);
    }
}

pub(super) fn session_expiry(seconds: u32) -> Option<Duration> {
    (seconds != u32::MAX).then(|| Duration::from_secs(seconds.into()))
}
