//! The MQTT listener: 3.1.1 and 5, and PUBACK after the update is durable.
//!
//! All connections live on one thread. A reading is judged and staged as soon as it is decoded;
//! when every socket that was ready has been read, the same thread makes the batch durable and
//! only then acknowledges, so a lone reading is never handed from thread to thread and a crowd
//! shares one sync. On a slow disk (see [`is_slow`](crate::writer::Writer::is_slow)) the committing is left to the
//! writer's own thread, so that sockets stay alive.
//!
//! The protocol's state machine is `mqtt-protocol-core`, which never acknowledges by itself; what
//! a broker remembers is `broker::memory`.
//!
//! What is not taken is refused in the protocol's own terms: MQTT 5 has a reason code in PUBACK;
//! 3.1.1 has none, so a reading that can never be taken is acknowledged, counted and reported. A
//! reading that was not *stored* is not acknowledged in either version: the connection ends, and
//! the node keeps it.

mod deliver;
mod hub;
mod publish;
mod session;
mod subscribe;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mqtt_protocol_core::mqtt::Version;
use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::role::Server;
use mqtt_protocol_core::mqtt::connection::{Connection, ConnectionOptions, Event, TimerKind};
use mqtt_protocol_core::mqtt::packet::{GenericPacketTrait, Packet, RetainHandling, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::result_code::{
    DisconnectReasonCode, MqttError, SubackReturnCode, UnsubackReasonCode,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::LocalSet;

use crate::broker::frame::{Framer, Violation};
use crate::broker::memory::Subscription;
use crate::gateway::intake::{IntakeContext, PACKET_LEN_MAX};

use hub::{
    CONNECT_TIMEOUT, CONNECTIONS_MAX, Hub, Link, LinkState, PENDING_MAX, READ_LEN, RECEIVE_MAX,
    TOPIC_ALIASES_MAX,
};
use publish::{Incoming, incoming};

/// Serves `listener` until `stop` turns true; then says goodbye and returns.
pub async fn serve(listener: TcpListener, context: IntakeContext, mut stop: watch::Receiver<bool>) {
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
                            let remedy = "close connections that are not needed";
                            tracing::warn!(
                                remedy,
                                "an MQTT connection was refused: {CONNECTIONS_MAX} are open"
                            );
                            continue;
                        }
                        tracing::debug!(%peer, "an MQTT connection was opened");
                        tokio::task::spawn_local(connection(hub.clone(), stream, peer));
                    }
                    // Out of file descriptors, or the peer is gone: others may still work.
                    Err(error) => {
                        let remedy = "raise the limit of open files (`ulimit -n`)";
                        tracing::warn!(%error, remedy, "an MQTT connection could not be accepted");
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

async fn commit_what_is_staged(hub: Rc<Hub>) {
    loop {
        hub.staged.notified().await;
        if hub.context.writer.is_slow() {
            hub.context.writer.wake_committer();
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
            // The answer was written as far as the socket accepted it.
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
        let remedy = "check what the client sends; MQTT 5 clients receive the reason";
        tracing::warn!(
            peer = %link.peer.ip(),
            remedy,
            "an MQTT client broke the protocol and was disconnected: {violation:?}"
        );
        let reason = match violation {
            Violation::UnsupportedVersion => {
                // Answered as in 3.1.1, which every client knows.
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
                        let remedy = "look what the client sends";
                        tracing::warn!(peer = %link.peer.ip(), ?error, remedy, "an MQTT client broke the protocol");
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
                self.publish(link, &incoming!(publish, &[]), arrived);
            }
            Packet::V5_0Publish(publish) => {
                self.publish(link, &incoming!(publish, publish.props()), arrived);
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

    // ---- publishing -----------------------------------------------------------------------

    // ---- subscribing ----------------------------------------------------------------------

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

    /// Sends the reason, if the version has a reason code for it, and closes.
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

fn is_violation(error: MqttError) -> bool {
    error != MqttError::KeepAliveTimeout
}
