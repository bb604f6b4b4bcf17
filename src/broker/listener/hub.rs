//! What all connections share, and what is kept of each.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mqtt_protocol_core::mqtt::connection::Connection;
use mqtt_protocol_core::mqtt::connection::role::Server;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};

use crate::broker::frame::Framer;
use crate::broker::memory::{Broker, ClientId, Message};
use crate::gateway::intake::{IntakeContext, Reason};
use crate::writer::Durable;

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
/// Read from one socket before the next one has its turn, bytes.
pub(super) const READ_LEN: usize = 64 * 1024;

pub(super) struct Hub {
    pub(super) context: IntakeContext,
    pub(super) broker: RefCell<Broker>,
    pub(super) links: RefCell<HashMap<ClientId, Rc<Link>>>,
    /// Messages whose batch is not durable yet, in order.
    pub(super) pending: RefCell<VecDeque<Pending>>,
    /// Links with something to write.
    pub(super) touched: RefCell<Vec<Rc<Link>>>,
    pub(super) staged: Notify,
    pub(super) drained: Notify,
    pub(super) sessions_changed: Notify,
    pub(super) durable: watch::Receiver<Durable>,
    pub(super) scratch: RefCell<Vec<u8>>,
    pub(super) last_batch: Cell<u64>,
    pub(super) next_client: Cell<u64>,
    pub(super) open: Cell<usize>,
}

pub(super) struct Pending {
    pub(super) batch: u64,
    pub(super) link: Rc<Link>,
    pub(super) ack: Option<Ack>,
    pub(super) message: Option<Rc<Message>>,
    pub(super) arrived: Instant,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Ack {
    pub(super) packet: u16,
    pub(super) qos: u8,
    pub(super) reason: Reason,
}

/// One connection.
pub(super) struct Link {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) wake: Notify,
    pub(super) state: RefCell<LinkState>,
    pub(super) touched: Cell<bool>,
}

pub(super) struct LinkState {
    pub(super) framer: Framer,
    pub(super) protocol: Connection<Server>,
    pub(super) version: u8,
    pub(super) client: Option<ClientId>,
    pub(super) out: Vec<u8>,
    pub(super) written: usize,
    pub(super) closing: bool,
    /// Sent at QoS 1 or 2 and not settled; at most `in_flight_max`.
    pub(super) in_flight: usize,
    pub(super) in_flight_max: usize,
    /// DISCONNECT without a will came, so the will is withdrawn.
    pub(super) clean_end: bool,
    pub(super) keep_alive: Option<Duration>,
    pub(super) last_received: Instant,
    /// MQTT 5: the client requested reason strings.
    pub(super) problem_information: bool,
}
