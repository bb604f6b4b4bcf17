//! The MQTT listener: 3.1.1 and 5, and PUBACK after the update is durable.
//!
//! All connections live on one thread. A reading is judged and staged as soon as it is decoded;
//! when every socket that was ready has been read, the same thread makes the batch durable and
//! only then acknowledges, so a lone reading is never handed from thread to thread and a crowd
//! shares one sync. On a slow disk (see [`INLINE_COMMIT_MAX`]) the committing is left to the
//! writer's own thread, so that sockets stay alive.
//!
//! The protocol's state machine is `mqtt-protocol-core`, which never acknowledges by itself; what
//! a broker remembers is `node::broker`.
//!
//! What is not taken is refused in the protocol's own terms: MQTT 5 has a reason code in PUBACK;
//! 3.1.1 has none, so a reading that can never be taken is acknowledged, counted and reported. A
//! reading that was not *stored* is not acknowledged in either version: the connection ends, and
//! the node keeps it.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::role::Server;
use mqtt_protocol_core::mqtt::connection::{Connection, ConnectionOptions, Event, TimerKind};
use mqtt_protocol_core::mqtt::packet::{
    AssignedClientIdentifier, GenericPacketTrait, MessageExpiryInterval, Packet, Property, Qos,
    RetainHandling, SubscriptionIdentifier, TopicAliasMaximum, v3_1_1, v5_0,
};
use mqtt_protocol_core::mqtt::result_code::{
    ConnectReasonCode, ConnectReturnCode, DisconnectReasonCode, MqttError, PubackReasonCode,
    PubrecReasonCode, SubackReasonCode, SubackReturnCode, UnsubackReasonCode,
};
use mqtt_protocol_core::mqtt::{ArcPayload, Version};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::LocalSet;

use super::broker::{
    self, Broker, ClientId, Delivery, Message, SESSIONS_MAX, SUBSCRIPTIONS_MAX, Subscription, Will,
};
use super::frame::{Framer, Violation};
use super::wire::Uplink;
use super::{Directory, Leaf, PayloadError, Topic, Uplinks};
use crate::telemetry::{Severity, Telemetry, now_us};
use crate::twin::{Change, Refusal, ThingId};
use crate::writer::{Committed, Origin, Precondition, Rejected, Request, Sink, Writer};

/// Largest packet taken, bytes; announced to MQTT 5 clients, others are disconnected.
pub const PACKET_LEN_MAX: u32 = 1 << 20;
/// Messages that a client may have unacknowledged towards us; announced to MQTT 5 clients.
pub const RECEIVE_MAX: u16 = 1024;
/// Topic aliases that a client may use.
pub const TOPIC_ALIASES_MAX: u16 = 32;
/// Open connections; a further one is closed at once.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Time from connecting to CONNECT.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes on their way to one socket beyond which messages are queued or, at QoS 0, dropped.
pub const OUTGOING_BYTES_MAX: usize = 1 << 20;
/// Messages waiting for the disk beyond which no socket is read.
pub const PENDING_MAX: usize = 65_536;
/// A disk whose batches take longer is left to the writer's own thread.
pub const INLINE_COMMIT_MAX: Duration = Duration::from_millis(2);
/// Read from one socket before the next one has its turn, bytes.
const READ_LEN: usize = 64 * 1024;

/// What the listener works with.
#[derive(Clone)]
pub struct Context {
    /// Takes readings.
    pub writer: Arc<Writer>,
    /// Knows the models.
    pub directory: Arc<Directory>,
    /// Counts.
    pub telemetry: Arc<Telemetry>,
    /// Verdicts to publish; a [`Sink`] of the writer.
    pub outbox: Arc<Outbox>,
    /// Has the writer's own thread commit.
    pub kick: Arc<dyn Fn() + Send + Sync>,
    /// Is told what nodes say beside their readings.
    pub uplinks: Arc<dyn Uplinks>,
}

/// Messages of the runtime on their way to subscribers: verdicts that became durable, and whatever
/// else it publishes.
#[derive(Default)]
pub struct Outbox {
    waiting: Mutex<VecDeque<(String, Vec<u8>, bool)>>,
    wake: Notify,
}

/// Messages of the runtime that wait for the listener; beyond it the oldest is dropped.
const OUTBOX_MAX: usize = 65_536;

impl Outbox {
    /// Publishes a message at QoS 1.
    pub fn publish(&self, topic: String, payload: Vec<u8>, retain: bool) {
        self.publish_all([(topic, payload, retain)]);
    }

    fn publish_all(&self, messages: impl IntoIterator<Item = (String, Vec<u8>, bool)>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for message in messages {
            if waiting.len() == OUTBOX_MAX {
                waiting.pop_front();
            }
            waiting.push_back(message);
        }
        let any = !waiting.is_empty();
        drop(waiting);
        if any {
            self.wake.notify_one();
        }
    }

    /// What waits, oldest first.
    pub(super) fn take(&self) -> VecDeque<(String, Vec<u8>, bool)> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Outbox {
    /// Returns when something may wait.
    pub(super) async fn filled(&self) {
        self.wake.notified().await;
    }
}

impl Sink for Outbox {
    fn committed(&self, changes: &[Committed]) {
        // Once for all of them: each lock and each wake-up may cost another thread's time.
        let mut messages = Vec::new();
        for change in changes {
            let Origin::Service(service) = &change.origin else { continue };
            let (Some(value), Some(_)) = (&change.event.value, &change.after) else { continue };
            let topic =
                Topic { thing: change.id.clone(), leaf: Leaf::Verdict(service.to_string()) };
            messages.push((topic.to_string(), value.to_string().into_bytes(), false));
        }
        if !messages.is_empty() {
            self.publish_all(messages);
        }
    }
}

/// Serves `listener` until `stop` turns true; then says goodbye and returns.
pub async fn serve(listener: TcpListener, context: Context, mut stop: watch::Receiver<bool>) {
    let hub = Rc::new(Hub {
        durable: context.writer.durable(),
        context,
        broker: RefCell::default(),
        links: RefCell::default(),
        pending: RefCell::default(),
        touched: RefCell::default(),
        staged: Notify::new(),
        drained: Notify::new(),
        sessions_changed: Notify::new(),
        scratch: RefCell::new(vec![0; READ_LEN]),
        last_batch: Cell::new(0),
        next_client: Cell::new(1),
        open: Cell::new(0),
    });
    let tasks = LocalSet::new();
    tasks.spawn_local(commit_what_is_staged(hub.clone()));
    tasks.spawn_local(drain_what_others_committed(hub.clone()));
    tasks.spawn_local(end_sessions(hub.clone()));
    let accepting = {
        let hub = hub.clone();
        async move {
            loop {
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        if hub.open.get() >= CONNECTIONS_MAX {
                            hub.context.telemetry.mqtt_dropped.inc();
                            continue;
                        }
                        tokio::task::spawn_local(connection(hub.clone(), stream, peer));
                    }
                    // Out of file descriptors, or the peer is gone: others may still work.
                    Err(error) => {
                        tracing::warn!(%error, "an MQTT connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            }
        }
    };
    tasks
        .run_until(async {
            tokio::select! {
                () = accepting => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
            hub.context.writer.commit();
            hub.drain();
            let links: Vec<Rc<Link>> = hub.links.borrow().values().cloned().collect();
            for link in links {
                hub.disconnect(&link, DisconnectReasonCode::ServerShuttingDown);
            }
            hub.flush();
        })
        .await;
}

struct Hub {
    context: Context,
    broker: RefCell<Broker>,
    links: RefCell<HashMap<ClientId, Rc<Link>>>,
    /// Messages whose batch is not durable yet, in order.
    pending: RefCell<VecDeque<Pending>>,
    /// Links with something to write.
    touched: RefCell<Vec<Rc<Link>>>,
    staged: Notify,
    drained: Notify,
    sessions_changed: Notify,
    durable: watch::Receiver<crate::writer::Durable>,
    scratch: RefCell<Vec<u8>>,
    last_batch: Cell<u64>,
    next_client: Cell<u64>,
    open: Cell<usize>,
}

struct Pending {
    batch: u64,
    link: Rc<Link>,
    ack: Option<Ack>,
    message: Option<Rc<Message>>,
    arrived: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Ack {
    packet: u16,
    qos: u8,
    reason: Reason,
}

/// Outcome of a PUBLISH, as MQTT 5 says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    Success,
    NoSubscribers,
    NotAuthorized,
    TopicInvalid,
    PayloadInvalid,
    QuotaExceeded,
}

/// One connection.
struct Link {
    stream: TcpStream,
    peer: SocketAddr,
    wake: Notify,
    state: RefCell<LinkState>,
    touched: Cell<bool>,
}

struct LinkState {
    framer: Framer,
    protocol: Connection<Server>,
    version: u8,
    client: Option<ClientId>,
    out: Vec<u8>,
    written: usize,
    closing: bool,
    /// Sent at QoS 1 or 2 and not settled; at most `in_flight_max`.
    in_flight: usize,
    in_flight_max: usize,
    /// DISCONNECT without a will came, so the will is withdrawn.
    clean_end: bool,
    keep_alive: Option<Duration>,
    last_received: Instant,
    /// MQTT 5: the client wants reasons in words.
    problem_information: bool,
}

async fn commit_what_is_staged(hub: Rc<Hub>) {
    loop {
        hub.staged.notified().await;
        if hub.context.writer.counts().commit_time > INLINE_COMMIT_MAX {
            (hub.context.kick)();
        } else {
            // What waits for its batch waits for one more at most: often that is the verdict from a
            // service elsewhere, which would otherwise wait for two more wake-ups.
            let writer = &hub.context.writer;
            while writer.commit_batch() && writer.commit_batch() {
                hub.drain();
                hub.flush();
                tokio::task::yield_now().await;
            }
            hub.drain();
            hub.flush();
        }
    }
}

async fn drain_what_others_committed(hub: Rc<Hub>) {
    let mut durable = hub.durable.clone();
    loop {
        tokio::select! {
            changed = durable.changed() => if changed.is_err() { return },
            () = hub.context.outbox.filled() => {}
        }
        hub.drain();
        hub.flush();
    }
}

async fn end_sessions(hub: Rc<Hub>) {
    loop {
        let due = hub.broker.borrow().next_due();
        tokio::select! {
            () = hub.sessions_changed.notified() => continue,
            () = sleep_until(due) => {}
        }
        let wills = hub.broker.borrow_mut().due(Instant::now());
        for will in wills {
            hub.publish_will(will);
        }
        hub.count_sessions();
        hub.flush();
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

async fn connection(hub: Rc<Hub>, stream: TcpStream, peer: SocketAddr) {
    let telemetry = hub.context.telemetry.clone();
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, %peer, "no TCP_NODELAY");
    }
    hub.open.set(hub.open.get() + 1);
    telemetry.mqtt_accepted.inc();
    telemetry.mqtt_connections.add(1);
    let options = ConnectionOptions::default();
    let mut protocol = Connection::<Server>::with_options(Version::Undetermined, limits(options));
    protocol.set_auto_ping_response(true);
    let link = Rc::new(Link {
        stream,
        peer,
        wake: Notify::new(),
        state: RefCell::new(LinkState {
            framer: Framer::new(PACKET_LEN_MAX, TOPIC_ALIASES_MAX),
            protocol,
            version: 0,
            client: None,
            out: Vec::new(),
            written: 0,
            closing: false,
            in_flight: 0,
            in_flight_max: usize::from(u16::MAX),
            clean_end: false,
            keep_alive: Some(CONNECT_TIMEOUT),
            last_received: Instant::now(),
            problem_information: true,
        }),
        touched: Cell::new(false),
    });
    let open = Open { hub, link };
    if let Err(error) = run(&open.hub, &open.link).await {
        tracing::debug!(%error, %peer, "connection ended");
    }
}

/// A connection that is counted; its end is seen to however it comes.
struct Open {
    hub: Rc<Hub>,
    link: Rc<Link>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.hub.ended(&self.link);
        self.hub.open.set(self.hub.open.get() - 1);
        self.hub.context.telemetry.mqtt_connections.add(-1);
        self.hub.flush();
    }
}

fn limits(mut options: ConnectionOptions) -> ConnectionOptions {
    options.maximum_packet_size_recv = PACKET_LEN_MAX;
    options.receive_maximum = Some(RECEIVE_MAX);
    options
}

async fn run(hub: &Rc<Hub>, link: &Rc<Link>) -> io::Result<()> {
    use tokio::io::Interest;
    loop {
        let (closing, waiting, deadline) = {
            let state = link.state.borrow();
            let deadline = state.keep_alive.map(|limit| state.last_received + limit);
            (state.closing, !state.out.is_empty(), deadline)
        };
        if closing {
            // What was to be said was written as far as the socket took it.
            return Ok(());
        }
        let full = hub.pending.borrow().len() >= PENDING_MAX;
        let interest = match (full, waiting) {
            (false, false) => Interest::READABLE,
            (false, true) => Interest::READABLE | Interest::WRITABLE,
            (true, _) => Interest::WRITABLE,
        };
        if full && !waiting {
            tokio::select! {
                () = hub.drained.notified() => {}
                () = link.wake.notified() => {}
            }
            continue;
        }
        let ready = tokio::select! {
            biased;
            ready = link.stream.ready(interest) => Some(ready?),
            () = link.wake.notified() => None,
            () = sleep_until(deadline) => {
                let late = {
                    let state = link.state.borrow();
                    state.keep_alive.is_some_and(|limit| state.last_received.elapsed() >= limit)
                };
                if late {
                    hub.timed_out(link);
                }
                None
            }
        };
        if let Some(ready) = ready {
            if ready.is_writable() {
                hub.write(link)?;
                hub.pump(link);
            }
            if ready.is_readable() && hub.read(link)? == Read::Ended {
                return Ok(());
            }
            hub.flush();
        }
    }
}

#[derive(PartialEq, Eq)]
enum Read {
    Some,
    Ended,
}

impl Hub {
    fn read(self: &Rc<Self>, link: &Rc<Link>) -> io::Result<Read> {
        let mut scratch = self.scratch.borrow_mut();
        let len = match link.stream.try_read(&mut scratch) {
            Ok(0) => return Ok(Read::Ended),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Read::Some),
            Err(error) => return Err(error),
        };
        let arrived = Instant::now();
        {
            let mut state = link.state.borrow_mut();
            state.last_received = arrived;
            state.framer.push(&scratch[..len]);
        }
        drop(scratch);
        loop {
            let events = {
                let mut state = link.state.borrow_mut();
                if state.closing {
                    break;
                }
                let LinkState { framer, protocol, .. } = &mut *state;
                match framer.next_packet() {
                    Ok(None) => break,
                    Ok(Some(packet)) => Ok(protocol.recv(&mut Cursor::new(packet))),
                    Err(violation) => Err(violation),
                }
            };
            match events {
                Ok(events) => self.handle(link, events, arrived),
                Err(violation) => self.malformed(link, violation),
            }
        }
        Ok(Read::Some)
    }

    /// Ends a connection whose client broke the protocol.
    fn malformed(self: &Rc<Self>, link: &Rc<Link>, violation: Violation) {
        self.context.telemetry.mqtt_violations.inc();
        let reason = match violation {
            Violation::UnsupportedVersion => {
                // Answered in the words of 3.1.1, which every client knows.
                self.push_bytes(link, &[0x20, 2, 0, 1]);
                return self.close(link);
            }
            Violation::BadCredentials => {
                self.push_bytes(link, &[0x20, 3, 0, 0x86, 0]);
                return self.close(link);
            }
            Violation::Malformed => DisconnectReasonCode::MalformedPacket,
            Violation::ProtocolError => DisconnectReasonCode::ProtocolError,
            Violation::TopicNameInvalid => DisconnectReasonCode::TopicNameInvalid,
            Violation::TopicAliasInvalid => DisconnectReasonCode::TopicAliasInvalid,
            Violation::TooLarge => DisconnectReasonCode::PacketTooLarge,
        };
        let unconnected = link.state.borrow().client.is_none();
        if unconnected && link.state.borrow().framer.speaks_five() {
            // CONNACK before CONNECT was taken: only the reason counts.
            self.push_bytes(link, &[0x20, 3, 0, reason as u8, 0]);
        }
        self.disconnect(link, reason);
    }

    fn handle(self: &Rc<Self>, link: &Rc<Link>, events: Vec<Event>, arrived: Instant) {
        for event in events {
            match event {
                Event::NotifyPacketReceived(packet) => self.received(link, packet, arrived),
                Event::RequestSendPacket { packet, release_packet_id_if_send_error: _ } => {
                    self.push(link, &packet);
                }
                Event::RequestTimerReset { kind: TimerKind::PingreqRecv, duration_ms } => {
                    link.state.borrow_mut().keep_alive = Some(Duration::from_millis(duration_ms));
                }
                Event::RequestTimerCancel(TimerKind::PingreqRecv) => {
                    let mut state = link.state.borrow_mut();
                    if state.client.is_some() {
                        state.keep_alive = None;
                    }
                }
                Event::NotifyError(error) => {
                    if is_violation(error) {
                        self.context.telemetry.mqtt_violations.inc();
                        tracing::debug!(peer = %link.peer, ?error, "protocol violation");
                    }
                }
                Event::RequestClose => self.close(link),
                Event::NotifyPacketIdReleased(_) => {
                    let mut state = link.state.borrow_mut();
                    state.in_flight = state.in_flight.saturating_sub(1);
                }
                Event::RequestTimerReset { .. } | Event::RequestTimerCancel(_) => {}
            }
        }
    }

    fn received(self: &Rc<Self>, link: &Rc<Link>, packet: Packet, arrived: Instant) {
        match packet {
            Packet::V3_1_1Connect(connect) => self.connect_v3(link, &connect),
            Packet::V5_0Connect(connect) => self.connect_v5(link, &connect),
            Packet::V3_1_1Publish(publish) => {
                let incoming = Incoming {
                    topic: publish.topic_name(),
                    payload: publish.payload(),
                    qos: publish.qos() as u8,
                    retain: publish.retain(),
                    packet: publish.packet_id(),
                    properties: &[],
                };
                self.publish(link, &incoming, arrived);
            }
            Packet::V5_0Publish(publish) => {
                let incoming = Incoming {
                    topic: publish.topic_name(),
                    payload: publish.payload(),
                    qos: publish.qos() as u8,
                    retain: publish.retain(),
                    packet: publish.packet_id(),
                    properties: publish.props(),
                };
                self.publish(link, &incoming, arrived);
            }
            Packet::V3_1_1Pubrel(release) => {
                let id = release.packet_id();
                if let Ok(complete) = v3_1_1::Pubcomp::builder().packet_id(id).build() {
                    self.send(link, complete.into());
                }
            }
            Packet::V5_0Pubrel(release) => {
                let complete = v5_0::Pubcomp::builder().packet_id(release.packet_id()).build();
                if let Ok(complete) = complete {
                    self.send(link, complete.into());
                }
            }
            Packet::V3_1_1Pubrec(received) => {
                let id = received.packet_id();
                if let Ok(release) = v3_1_1::Pubrel::builder().packet_id(id).build() {
                    self.send(link, release.into());
                }
            }
            Packet::V5_0Pubrec(received) => {
                let failed = received.reason_code().is_some_and(|code| code as u8 >= 0x80);
                if !failed
                    && let Ok(release) =
                        v5_0::Pubrel::builder().packet_id(received.packet_id()).build()
                {
                    self.send(link, release.into());
                }
                self.pump(link);
            }
            Packet::V3_1_1Puback(_)
            | Packet::V5_0Puback(_)
            | Packet::V3_1_1Pubcomp(_)
            | Packet::V5_0Pubcomp(_) => self.pump(link),
            Packet::V3_1_1Subscribe(subscribe) => {
                let wanted: Vec<_> = subscribe
                    .entries()
                    .iter()
                    .map(|entry| {
                        let qos = entry.sub_opts().qos() as u8;
                        let options = Subscription {
                            qos,
                            no_local: false,
                            retain_as_published: false,
                            identifier: None,
                        };
                        (entry.topic_filter().to_owned(), options, RetainHandling::SendRetained)
                    })
                    .collect();
                let (codes, retained) = self.subscribe(link, wanted);
                let codes = codes
                    .into_iter()
                    .map(|code| match code {
                        Ok(0) => SubackReturnCode::SuccessMaximumQos0,
                        Ok(1) => SubackReturnCode::SuccessMaximumQos1,
                        Ok(_) => SubackReturnCode::SuccessMaximumQos2,
                        Err(_) => SubackReturnCode::Failure,
                    })
                    .collect();
                let builder = v3_1_1::Suback::builder().packet_id(subscribe.packet_id());
                if let Ok(suback) = builder.return_codes(codes).build() {
                    self.send(link, suback.into());
                }
                self.deliver_all(link, retained);
            }
            Packet::V5_0Subscribe(subscribe) => self.subscribe_v5(link, &subscribe),
            Packet::V3_1_1Unsubscribe(unsubscribe) => {
                let filters = unsubscribe.entries().iter().map(|filter| filter.as_str().to_owned());
                self.unsubscribe(link, filters.collect());
                if let Ok(ack) =
                    v3_1_1::Unsuback::builder().packet_id(unsubscribe.packet_id()).build()
                {
                    self.send(link, ack.into());
                }
            }
            Packet::V5_0Unsubscribe(unsubscribe) => {
                let filters = unsubscribe.entries().iter().map(|filter| filter.as_str().to_owned());
                let codes = self
                    .unsubscribe(link, filters.collect())
                    .into_iter()
                    .map(|known| match known {
                        Some(true) => UnsubackReasonCode::Success,
                        Some(false) => UnsubackReasonCode::NoSubscriptionExisted,
                        None => UnsubackReasonCode::TopicFilterInvalid,
                    })
                    .collect();
                let builder = v5_0::Unsuback::builder().packet_id(unsubscribe.packet_id());
                if let Ok(ack) = builder.reason_codes(codes).build() {
                    self.send(link, ack.into());
                }
            }
            Packet::V3_1_1Disconnect(_) => {
                link.state.borrow_mut().clean_end = true;
                self.close(link);
            }
            Packet::V5_0Disconnect(disconnect) => self.disconnected_v5(link, &disconnect),
            Packet::V5_0Auth(_) => {
                // No authentication method was agreed on, so AUTH is a protocol error.
                self.violation(link, DisconnectReasonCode::ProtocolError);
            }
            _ => {}
        }
    }

    // ---- connecting -----------------------------------------------------------------------

    fn connect_v3(self: &Rc<Self>, link: &Rc<Link>, connect: &v3_1_1::Connect) {
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
        if will.as_ref().is_some_and(|will| broker::check_topic(&will.message.topic).is_err()) {
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

    fn connect_v5(self: &Rc<Self>, link: &Rc<Link>, connect: &v5_0::Connect) {
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
        if will.as_ref().is_some_and(|will| broker::check_topic(&will.message.topic).is_err()) {
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

    fn client_id(&self, given: &str) -> ClientId {
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

    fn keep_alive(&self, link: &Link, seconds: u16) {
        let limit = (seconds > 0).then(|| Duration::from_millis(u64::from(seconds) * 1500));
        link.state.borrow_mut().keep_alive = limit;
    }

    /// Gives the client's session to this connection; `Some(present)`, or `None` if there is no
    /// room for another session.
    fn attach(
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

    fn disconnected_v5(self: &Rc<Self>, link: &Rc<Link>, disconnect: &v5_0::Disconnect) {
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
    fn ended(self: &Rc<Self>, link: &Rc<Link>) {
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

    fn count_sessions(&self) {
        let sessions = self.broker.borrow().sessions.len();
        self.context.telemetry.mqtt_sessions.set(sessions as i64);
    }

    // ---- publishing -----------------------------------------------------------------------

    fn publish(self: &Rc<Self>, link: &Rc<Link>, incoming: &Incoming<'_>, arrived: Instant) {
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
    fn wait(self: &Rc<Self>, pending: Pending) {
        let empty = self.pending.borrow().is_empty();
        if empty && self.durable.borrow().batch >= pending.batch {
            self.settle(pending);
        } else {
            self.pending.borrow_mut().push_back(pending);
        }
    }

    fn settle(self: &Rc<Self>, pending: Pending) {
        if let Some(message) = &pending.message {
            self.route(message);
        }
        self.acknowledge(&pending.link, pending.ack);
        self.context.telemetry.stage_ack.record(pending.arrived.elapsed());
    }

    /// Settles what became durable and publishes what the runtime has to say.
    fn drain(self: &Rc<Self>) {
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

    fn keep_retained(&self, message: &Rc<Message>) -> Reason {
        if !message.retain {
            return Reason::Success;
        }
        match self.broker.borrow_mut().retain(message) {
            Ok(()) => Reason::Success,
            Err(_) => Reason::QuotaExceeded,
        }
    }

    fn publish_will(self: &Rc<Self>, will: Will) {
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
        let told =
            take_reading(&self.context, &message.topic, message.payload.as_slice(), &"a will");
        if matches!(told, Taken::Staged(_)) {
            self.staged.notify_one();
        }
        self.keep_retained(&message);
        self.route(&message);
    }

    /// Hands a message to everyone who subscribed; `false` if nobody did.
    fn route(self: &Rc<Self>, message: &Rc<Message>) -> bool {
        let routed = self.broker.borrow_mut().route(message);
        let any = !routed.is_empty();
        for (client, delivery) in routed {
            self.deliver(&client, delivery);
        }
        any
    }

    fn deliver_all(self: &Rc<Self>, link: &Rc<Link>, deliveries: Vec<Delivery>) {
        let client = link.state.borrow().client.clone();
        if let Some(client) = client {
            for delivery in deliveries {
                self.deliver(&client, delivery);
            }
        }
    }

    fn deliver(self: &Rc<Self>, client: &ClientId, delivery: Delivery) {
        let link = self.links.borrow().get(client).cloned();
        let mut broker = self.broker.borrow_mut();
        let Some(session) = broker.sessions.get_mut(client) else { return };
        let sent = match &link {
            Some(link) if delivery.qos == 0 || !session.has_queued() => {
                match self.send_publish(link, &delivery) {
                    Sent::Yes => true,
                    Sent::Never => return self.context.telemetry.mqtt_dropped.inc(),
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
            self.context.telemetry.mqtt_dropped.inc();
        }
    }

    /// Sends what waits in the session, as far as the client and the socket take it.
    fn pump(self: &Rc<Self>, link: &Rc<Link>) {
        let Some(client) = link.state.borrow().client.clone() else { return };
        let now = Instant::now();
        let mut broker = self.broker.borrow_mut();
        let Some(session) = broker.sessions.get_mut(&client) else { return };
        while let Some(delivery) = session.pop(now) {
            match self.send_publish(link, &delivery) {
                Sent::Yes => {}
                Sent::Never => self.context.telemetry.mqtt_dropped.inc(),
                Sent::NotNow => {
                    session.unpop(delivery);
                    return;
                }
            }
        }
    }

    fn send_publish(&self, link: &Rc<Link>, delivery: &Delivery) -> Sent {
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

    fn acknowledge(self: &Rc<Self>, link: &Rc<Link>, ack: Option<Ack>) {
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

    // ---- subscribing ----------------------------------------------------------------------

    fn subscribe_v5(self: &Rc<Self>, link: &Rc<Link>, subscribe: &v5_0::Subscribe) {
        let identifier = subscribe.props().iter().find_map(|property| match property {
            Property::SubscriptionIdentifier(identifier) => Some(identifier.val()),
            _ => None,
        });
        let mut wanted = Vec::new();
        for entry in subscribe.entries() {
            let options = entry.sub_opts();
            let shared = entry.topic_filter().starts_with("$share/");
            if shared && options.nl() {
                // MQTT-3.8.3-4
                return self.violation(link, DisconnectReasonCode::ProtocolError);
            }
            let subscription = Subscription {
                qos: options.qos() as u8,
                no_local: options.nl(),
                retain_as_published: options.rap(),
                identifier,
            };
            wanted.push((entry.topic_filter().to_owned(), subscription, options.rh()));
        }
        let (codes, retained) = self.subscribe(link, wanted);
        let codes = codes
            .into_iter()
            .map(|code| match code {
                Ok(0) => SubackReasonCode::GrantedQos0,
                Ok(1) => SubackReasonCode::GrantedQos1,
                Ok(_) => SubackReasonCode::GrantedQos2,
                Err(code) => code,
            })
            .collect();
        let builder = v5_0::Suback::builder().packet_id(subscribe.packet_id());
        if let Ok(suback) = builder.reason_codes(codes).build() {
            self.send(link, suback.into());
        }
        self.deliver_all(link, retained);
    }

    fn subscribe(
        &self,
        link: &Link,
        wanted: Vec<(String, Subscription, RetainHandling)>,
    ) -> (Vec<Result<u8, SubackReasonCode>>, Vec<Delivery>) {
        let Some(client) = link.state.borrow().client.clone() else { return Default::default() };
        let mut broker = self.broker.borrow_mut();
        let mut retained = Vec::new();
        let mut codes = Vec::new();
        let now = Instant::now();
        for (filter, subscription, handling) in wanted {
            let shared = match broker::parse_filter(&filter) {
                Ok((share, _)) => share.is_some(),
                Err(_) => {
                    codes.push(Err(SubackReasonCode::TopicFilterInvalid));
                    continue;
                }
            };
            let count = broker.sessions.get(&client).map_or(0, |s| s.subscriptions.len());
            if count >= SUBSCRIPTIONS_MAX {
                codes.push(Err(SubackReasonCode::QuotaExceeded));
                continue;
            }
            let new = broker.subscribe(&client, &filter, subscription);
            let send = match handling {
                RetainHandling::SendRetained => true,
                RetainHandling::SendRetainedIfNotExists => new,
                RetainHandling::DoNotSendRetained => false,
            };
            if send && !shared {
                retained.extend(broker.retained(&filter, &subscription, now));
            }
            codes.push(Ok(subscription.qos));
        }
        (codes, retained)
    }

    /// `None` for a filter that is none, else whether there was such a subscription.
    fn unsubscribe(&self, link: &Link, filters: Vec<String>) -> Vec<Option<bool>> {
        let Some(client) = link.state.borrow().client.clone() else { return Vec::new() };
        let mut broker = self.broker.borrow_mut();
        let each = filters.iter().map(|filter| {
            broker::parse_filter(filter).ok().map(|_| broker.unsubscribe(&client, filter))
        });
        each.collect()
    }

    // ---- ending ---------------------------------------------------------------------------

    fn timed_out(self: &Rc<Self>, link: &Rc<Link>) {
        if link.state.borrow().client.is_some() {
            self.disconnect(link, DisconnectReasonCode::KeepAliveTimeout);
        }
        self.close(link);
    }

    fn violation(self: &Rc<Self>, link: &Rc<Link>, reason: DisconnectReasonCode) {
        self.disconnect(link, reason);
    }

    /// Says why, where the version has words for it, and closes.
    fn disconnect(self: &Rc<Self>, link: &Rc<Link>, reason: DisconnectReasonCode) {
        let (version, connected) = {
            let state = link.state.borrow();
            (state.version, state.client.is_some() && !state.closing)
        };
        if version == 5
            && connected
            && let Ok(packet) = v5_0::Disconnect::builder().reason_code(reason).build()
        {
            self.send(link, packet.into());
        }
        self.close(link);
    }

    fn close(&self, link: &Rc<Link>) {
        link.state.borrow_mut().closing = true;
        self.touch(link);
        link.wake.notify_one();
    }

    // ---- writing --------------------------------------------------------------------------

    fn send(self: &Rc<Self>, link: &Rc<Link>, packet: Packet) {
        let events = link.state.borrow_mut().protocol.send(packet);
        self.handle(link, events, Instant::now());
    }

    fn push(&self, link: &Rc<Link>, packet: &Packet) {
        self.push_bytes(link, &packet.to_continuous_buffer());
    }

    fn push_bytes(&self, link: &Rc<Link>, bytes: &[u8]) {
        link.state.borrow_mut().out.extend_from_slice(bytes);
        self.touch(link);
    }

    fn touch(&self, link: &Rc<Link>) {
        if !link.touched.replace(true) {
            self.touched.borrow_mut().push(link.clone());
        }
    }

    /// Writes to every socket that has something.
    fn flush(self: &Rc<Self>) {
        loop {
            let touched = std::mem::take(&mut *self.touched.borrow_mut());
            if touched.is_empty() {
                return;
            }
            for link in touched {
                link.touched.set(false);
                if self.write(&link).is_err() {
                    link.state.borrow_mut().closing = true;
                }
                // Its own task waits for the socket, or ends.
                let state = link.state.borrow();
                if !state.out.is_empty() || state.closing {
                    link.wake.notify_one();
                }
            }
        }
    }

    fn write(&self, link: &Link) -> io::Result<()> {
        let mut state = link.state.borrow_mut();
        while state.written < state.out.len() {
            match link.stream.try_write(&state.out[state.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => state.written += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        state.out.clear();
        state.out.shrink_to(READ_LEN);
        state.written = 0;
        Ok(())
    }
}

/// Judges and stages a message that may be a reading.
///
/// * `from`: who sent it, for events.
pub(super) fn take_reading(
    context: &Context,
    topic_name: &str,
    payload: &[u8],
    from: &dyn std::fmt::Display,
) -> Taken {
    let topic = match Topic::parse(topic_name) {
        None => return Taken::NotAReading,
        Some(Err(error)) => return refused(context, &error, topic_name, from),
        Some(Ok(topic)) => topic,
    };
    let model = || context.directory.model(&topic.thing);
    let decoded = match topic.leaf {
        Leaf::Data => super::decode(payload, model().as_deref()),
        Leaf::Features => super::decode_features(payload, model().as_deref()),
        Leaf::Ack | Leaf::Event | Leaf::State => return hear(context, topic, payload, from),
        _ => return Taken::NotAReading,
    };
    let reading = match decoded {
        Ok(reading) => reading,
        Err(error) => return refused(context, &error, topic.thing.as_str(), from),
    };
    let request = Request {
        id: topic.thing,
        change: Change::Reading { values: reading.values, stamp: reading.stamp },
        only_if: Precondition::Always,
        origin: Origin::Node,
        depth: 0,
    };
    let telemetry = &context.telemetry;
    match context.writer.submit(request, now_us()) {
        Ok(accepted) => {
            telemetry.readings.inc();
            Taken::Staged(accepted.batch)
        }
        Err(Rejected::Refused(Refusal::Duplicate)) => {
            telemetry.readings_duplicate.inc();
            Taken::Duplicate
        }
        Err(Rejected::Refused(refusal)) => {
            telemetry.readings_refused.inc();
            let (reason, word) = match &refusal {
                Refusal::NotFound(..) => (Reason::NotAuthorized, "UnknownNode"),
                Refusal::TooLarge(_) => (Reason::QuotaExceeded, "TwinTooLarge"),
                Refusal::Stalled(_) => {
                    return Taken::NotStored(DisconnectReasonCode::ImplementationSpecificError);
                }
                _ => (Reason::PayloadInvalid, "InvalidReading"),
            };
            let object = node_name(topic_name);
            let text = format!("a reading from {from} was refused: {}", refusal.message());
            telemetry.event(now_us(), Severity::Warning, word, object, text);
            Taken::Refused(reason)
        }
        Err(Rejected::NotStored(error)) => {
            let text = format!("a reading was not taken: {error}");
            telemetry.event(now_us(), Severity::Warning, "NotStored", "Store", text);
            Taken::NotStored(DisconnectReasonCode::QuotaExceeded)
        }
    }
}

/// Hands on what a node says beside its readings.
fn hear(context: &Context, topic: Topic, payload: &[u8], from: &dyn std::fmt::Display) -> Taken {
    if payload.is_empty() {
        // A retained state is taken away.
        return Taken::NotAReading;
    }
    match Uplink::decode_as(&topic.leaf, payload) {
        Ok(Some(uplink)) => {
            context.uplinks.heard(topic.thing, uplink);
            Taken::NotAReading
        }
        Ok(None) => Taken::NotAReading,
        Err(error) => {
            let error = PayloadError::NotJson(error.to_string());
            refused(context, &error, topic.thing.as_str(), from)
        }
    }
}

fn refused(
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

enum Sent {
    Yes,
    NotNow,
    Never,
}

/// What became of a message.
pub(super) enum Taken {
    /// An ordinary message.
    NotAReading,
    /// Durable with this batch.
    Staged(u64),
    /// Taken before.
    Duplicate,
    /// Never to be taken.
    Refused(Reason),
    /// Not stored; the node should keep it.
    NotStored(DisconnectReasonCode),
}

struct Incoming<'a> {
    topic: &'a str,
    payload: &'a ArcPayload,
    qos: u8,
    retain: bool,
    packet: Option<u16>,
    properties: &'a [Property],
}

impl Reason {
    fn puback(self) -> PubackReasonCode {
        match self {
            Self::Success => PubackReasonCode::Success,
            Self::NoSubscribers => PubackReasonCode::NoMatchingSubscribers,
            Self::NotAuthorized => PubackReasonCode::NotAuthorized,
            Self::TopicInvalid => PubackReasonCode::TopicNameInvalid,
            Self::PayloadInvalid => PubackReasonCode::PayloadFormatInvalid,
            Self::QuotaExceeded => PubackReasonCode::QuotaExceeded,
        }
    }

    fn pubrec(self) -> PubrecReasonCode {
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

fn publish_packet(version: u8, delivery: &Delivery, packet_id: Option<u16>) -> Option<Packet> {
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
fn forwarded(properties: &[Property]) -> Vec<Property> {
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

fn expiry_of(properties: &[Property]) -> Option<Duration> {
    properties.iter().find_map(|property| match property {
        Property::MessageExpiryInterval(seconds) => Some(Duration::from_secs(seconds.val().into())),
        _ => None,
    })
}

fn session_expiry(seconds: u32) -> Option<Duration> {
    (seconds != u32::MAX).then(|| Duration::from_secs(seconds.into()))
}

fn payload_of(bytes: &[u8]) -> ArcPayload {
    let len = bytes.len();
    ArcPayload::new(bytes.into(), 0, len)
}

fn node_name(topic: &str) -> String {
    match Topic::parse(topic) {
        Some(Ok(topic)) => format!("Twin/{}/{}", topic.thing.namespace(), topic.thing.name()),
        _ => format!("Topic/{topic}"),
    }
}

fn is_violation(error: MqttError) -> bool {
    error != MqttError::KeepAliveTimeout
}
