//! The serial gateway: a node on a serial line takes part like one that speaks MQTT itself.
//!
//! One task a line. Checked lines of the node are published on its topics, by a client of the broker
//! that all nodes use, so they take the same way and are stored like any other; commands for the
//! node come down as frames. The node's state carries `via`. While the line cannot be opened, the
//! gateway says that the node is away, and tries again with backoff.
//!
//! Lines are lost on a serial link that nobody acknowledges, so the gateway watches the numbers
//! ([`Gaps`]) and asks the node to send what is missing from its ring.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, io};

use rumqttc::{
    AsyncClient, Event, EventLoop, LastWill, MqttOptions, NetworkOptions, Packet, QoS,
    SubscribeFilter,
};
use rustix::fs::{Mode, OFlags};
use rustix::termios::{self, OptionalActions};
use serde::Deserialize;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};

use crate::base::clock::now_us;
use crate::base::http::stopped;
use crate::base::telemetry::{Severity, Telemetry};
use crate::gateway::external::Broker;
use crate::twin::ThingId;
use crate::wire::{self, Command, LINE_LEN_MAX, Line, Op, Uplink};
use crate::wire::{Leaf, Topic};

/// Speed of the line.
const BAUD: u32 = 115_200;
/// First and longest wait before a line is opened again.
const REOPEN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// Bytes sent in one go. An Uno's receive buffer has 64, and it does not look at them while it
/// reads a sensor or writes a line, for at most [`PAUSE`].
const CHUNK: usize = 48;
const PAUSE: Duration = Duration::from_millis(30);
/// Commands that wait for the line; a further one is dropped, and its sender repeats it.
const COMMANDS_MAX: usize = 64;
/// Messages that wait for the broker. When they are all in use the line is not read, and the
/// system's buffer and then the node's ring take over.
const MESSAGES_MAX: usize = 1024;
/// The gateway's own commands have ids from here on; their answers go no further.
const OWN_IDS: u32 = 0xF000_0000;
/// How often missing readings are asked for, and how long each time is waited.
const ASKS_MAX: u32 = 3;
const ASK_WAIT: Duration = Duration::from_secs(1);
/// Gaps that are asked for at a time; of more the oldest are given up.
const GAPS_MAX: usize = 8;

/// A serial line and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The device.
    pub device: PathBuf,
    /// The node's twin.
    pub thing: ThingId,
}

impl Port {
    /// Parses `DEVICE=NAMESPACE/NAME`.
    ///
    /// # Errors
    /// One sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wanted = "write DEVICE=NAMESPACE/NAME, for example /dev/ttyACM0=lab/desk";
        let (device, node) = text.split_once('=').ok_or_else(|| wanted.to_owned())?;
        let (namespace, name) = node.split_once('/').ok_or_else(|| wanted.to_owned())?;
        if device.is_empty() {
            return Err(wanted.to_owned());
        }
        let thing = ThingId::parse(&format!("{namespace}:{name}"))
            .map_err(|_| format!("`{node}` names no twin; {wanted}"))?;
        Ok(Self { device: PathBuf::from(device), thing })
    }

    /// Opens the line if it is there. One that is missing, or may not be opened, can come later.
    ///
    /// # Errors
    /// The device is no serial line.
    pub fn open(&self) -> io::Result<Option<OwnedFd>> {
        match open(&self.device) {
            Ok(line) => Ok(Some(line)),
            Err(error) => match rustix::io::Errno::from_io_error(&error) {
                Some(rustix::io::Errno::NOTTY | rustix::io::Errno::ISDIR) => Err(error),
                _ => Ok(None),
            },
        }
    }

    /// What `via` says of it.
    fn via(&self) -> String {
        let name = self.device.strip_prefix("/dev").unwrap_or(&self.device);
        name.to_string_lossy().chars().filter(|c| c.is_ascii_alphanumeric()).collect()
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}/{}", self.device.display(), self.thing.namespace(), self.thing.name())
    }
}

/// What a line says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
struct Heading {
    #[serde(default)]
    boot: u32,
    seq: Option<u32>,
    id: Option<u32>,
    st: Option<String>,
}

/// Which readings did not come, and when to ask for them. Pure: `now` comes in, commands go out.
#[derive(Debug, Default)]
pub struct Gaps {
    boot: Option<u32>,
    next: u32,
    missing: VecDeque<Gap>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Gap {
    from: u32,
    to: u32,
    asked: u32,
    again_at: Instant,
}

impl Gaps {
    /// Takes the number of a reading that came. Of a new boot only what comes after its first
    /// reading is watched: what was before it may be of a time before this gateway.
    pub fn came(&mut self, boot: u32, seq: u32, now: Instant) {
        if self.boot != Some(boot) {
            *self = Self { boot: Some(boot), next: seq.wrapping_add(1), missing: VecDeque::new() };
            return;
        }
        let ahead = seq.wrapping_sub(self.next);
        if ahead < u32::MAX / 2 {
            if ahead > 0 {
                let (from, to) = (self.next, seq.wrapping_sub(1));
                self.missing.push_back(Gap { from, to, asked: 0, again_at: now });
                if self.missing.len() > GAPS_MAX {
                    self.missing.pop_front();
                }
            }
            self.next = seq.wrapping_add(1);
            return;
        }
        // A late one closes its gap, or cuts it in two.
        let Some(at) = self.missing.iter().position(|gap| gap.from <= seq && seq <= gap.to) else {
            return;
        };
        let Some(gap) = self.missing.remove(at) else { return };
        if seq < gap.to {
            self.missing.insert(at, Gap { from: seq + 1, ..gap.clone() });
        }
        if gap.from < seq {
            self.missing.insert(at, Gap { to: seq - 1, ..gap });
        }
    }

    /// The node does not have what was asked for any more.
    pub fn refused(&mut self) {
        if let Some(at) = self.missing.iter().position(|gap| gap.asked > 0) {
            self.missing.remove(at);
        }
    }

    /// The readings to ask for now, first and last.
    pub fn ask(&mut self, now: Instant) -> Option<(u32, u32)> {
        self.missing.retain(|gap| gap.asked < ASKS_MAX || now < gap.again_at);
        let gap = self.missing.iter_mut().find(|gap| gap.again_at <= now)?;
        gap.asked += 1;
        gap.again_at = now + ASK_WAIT;
        Some((gap.from, gap.to))
    }

    /// When [`Gaps::ask`] has something next.
    pub fn due(&self) -> Option<Instant> {
        self.missing.iter().map(|gap| gap.again_at).min()
    }
}

/// Cuts a stream of bytes into lines. Bounded: a line that is too long is dropped to its end.
#[derive(Debug, Default)]
pub struct Lines {
    open: Vec<u8>,
    overlong: bool,
    /// The first line is of before the opening, so it may begin anywhere.
    begun: bool,
}

impl Lines {
    /// Takes bytes; calls `each` with every whole line, without its end, and whether it may be
    /// cut at its beginning.
    pub fn push(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8], bool)) {
        for &byte in bytes {
            if byte != b'\n' {
                if self.open.len() == LINE_LEN_MAX {
                    self.overlong = true;
                } else {
                    self.open.push(byte);
                }
                continue;
            }
            if !self.overlong {
                each(&self.open, !self.begun);
            }
            self.begun = true;
            self.overlong = false;
            self.open.clear();
        }
    }
}

/// Carries one line until `stop` turns true.
///
/// * `line`: the line, where [`Port::open`] opened it.
pub async fn run(
    port: Port,
    line: Option<OwnedFd>,
    broker: Broker,
    telemetry: Arc<Telemetry>,
    mut stop: watch::Receiver<bool>,
) {
    let topic = |leaf| Topic { thing: port.thing.clone(), leaf }.to_string();
    let (down, commands) = mpsc::channel(COMMANDS_MAX);
    let name = format!("serial-{}-{}", port.thing.namespace(), port.thing.name());
    let mut options = MqttOptions::new(name, broker.host, broker.port);
    let will = LastWill::new(topic(Leaf::State), r#"{"up":0,"boot":0}"#, QoS::AtLeastOnce, true);
    options.set_keep_alive(Duration::from_secs(20)).set_clean_session(true).set_last_will(will);
    let (client, mut events) = AsyncClient::new(options, MESSAGES_MAX);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    events.set_network_options(network);
    let wanted = [topic(Leaf::Command), topic(Leaf::Desired)];
    let broker = route_commands(&mut events, &client, &wanted, down, &port);
    let mut gateway = Gateway {
        via: port.via(),
        port: &port,
        telemetry: &telemetry,
        client: client.clone(),
        commands,
        gaps: Gaps::default(),
        boot: 0,
        own_id: OWN_IDS,
        desired: None,
        version: 0,
    };
    tokio::select! {
        () = stopped(&mut stop) => {}
        () = broker => {}
        () = gateway.carry(line) => {}
    }
}

/// Hands what is published for the node to the line.
async fn route_commands(
    events: &mut EventLoop,
    client: &AsyncClient,
    wanted: &[String; 2],
    down: mpsc::Sender<Down>,
    port: &Port,
) {
    let mut wait = REOPEN.0;
    loop {
        let item = match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                wait = REOPEN.0;
                let filters = wanted
                    .iter()
                    .map(|topic| SubscribeFilter::new(topic.clone(), QoS::AtLeastOnce));
                if let Err(error) = client.try_subscribe_many(filters) {
                    let remedy = "restart the board; if it repeats, report it";
                    tracing::warn!(%port, %error, remedy, "commands do not reach a serial node");
                }
                continue;
            }
            Ok(Event::Incoming(Packet::SubAck(_))) => Down::Connected,
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                let text = String::from_utf8_lossy(&publish.payload).into_owned();
                match publish.topic == wanted[0] {
                    true => Down::Command(text),
                    false => Down::Desired(text),
                }
            }
            Ok(_) => continue,
            Err(error) => {
                let remedy = "check that the broker runs; the connection is tried again";
                tracing::warn!(%port, %error, remedy, "the serial gateway lost its broker");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(REOPEN.1);
                continue;
            }
        };
        if let Err(mpsc::error::TrySendError::Closed(_)) = down.try_send(item) {
            return;
        }
    }
}

/// What goes down to the node.
enum Down {
    /// The broker is there.
    Connected,
    /// The body of a command.
    Command(String),
    /// A retained desired transmission.
    Desired(String),
}

struct Gateway<'a> {
    port: &'a Port,
    telemetry: &'a Telemetry,
    via: String,
    client: AsyncClient,
    commands: mpsc::Receiver<Down>,
    gaps: Gaps,
    boot: u32,
    own_id: u32,
    /// The version of the desired transmission that went down, by the gateway's command for it, and
    /// the one that the node has: a line has no message of its own for that.
    desired: Option<(u32, u32)>,
    version: u32,
}

impl Gateway<'_> {
    /// Opens the line, serves it, opens it again.
    async fn carry(&mut self, mut line: Option<OwnedFd>) {
        let mut wait = REOPEN.0;
        let mut failing = false;
        loop {
            let opened = line.take().map_or_else(|| open(&self.port.device), Ok).and_then(watched);
            match opened {
                Ok(line) => {
                    (wait, failing) = (REOPEN.0, false);
                    let text = format!("the serial line {} is open", self.port);
                    self.telemetry.announce(now_us(), "SerialLineOpen", self.object(), text);
                    let error = self.serve(&line).await;
                    let text = format!("the serial line {} was closed: {error}", self.port);
                    self.warn("SerialLineClosed", text);
                    self.away().await;
                }
                Err(error) => {
                    let text = format!("the serial line {} cannot be opened: {error}", self.port);
                    self.warn("SerialLineUnavailable", text);
                    if !std::mem::replace(&mut failing, true) {
                        self.away().await;
                    }
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(REOPEN.1);
        }
    }

    fn object(&self) -> String {
        format!("Twin/{}/{}", self.port.thing.namespace(), self.port.thing.name())
    }

    fn warn(&self, reason: &'static str, text: String) {
        self.telemetry.event(now_us(), Severity::Warning, reason, self.object(), text);
    }

    /// Says that the node is away.
    async fn away(&mut self) {
        let text = format!("{{\"up\":0,\"boot\":{},\"via\":\"{}\"}}", self.boot, self.via);
        self.publish(Leaf::State, text).await;
    }

    async fn publish(&self, leaf: Leaf, text: String) {
        let retain = leaf == Leaf::State;
        let topic = Topic { thing: self.port.thing.clone(), leaf }.to_string();
        // Waits while the broker is away: then the line is not read either.
        if let Err(error) = self.client.publish(topic, QoS::AtLeastOnce, retain, text).await {
            let remedy = "check that the broker runs; the node sends it again";
            tracing::warn!(port = %self.port, %error, remedy, "a line was not published");
        }
    }

    /// Serves an open line until it fails.
    async fn serve(&mut self, line: &AsyncFd<OwnedFd>) -> io::Error {
        let mut lines = Lines::default();
        let mut buffer = [0_u8; 1024];
        let mut first = Some(Op::Info);
        loop {
            if let Some(op) = first.take()
                && let Err(error) = self.order(line, op).await
            {
                return error;
            }
            let due = self.gaps.due();
            let taken = tokio::select! {
                taken = read(line, &mut buffer) => taken,
                item = self.commands.recv() => {
                    let sent = match item {
                        None => return io::ErrorKind::BrokenPipe.into(),
                        Some(item) => self.send_down(line, item).await,
                    };
                    if let Err(error) = sent {
                        return error;
                    }
                    continue;
                }
                () = at(due) => {
                    if let Some((from, to)) = self.gaps.ask(Instant::now()) {
                        first = Some(Op::Resend { from, to });
                    }
                    continue;
                }
            };
            match taken {
                Ok(0) => return io::ErrorKind::UnexpectedEof.into(),
                Ok(len) => {
                    let mut whole = Vec::new();
                    lines.push(&buffer[..len], |line, cut| whole.push((line.to_vec(), cut)));
                    for (line, cut) in whole {
                        self.take(&line, cut).await;
                    }
                }
                Err(error) => return error,
            }
        }
    }

    /// Checks a line of the node and passes it on.
    async fn take(&mut self, line: &[u8], cut: bool) {
        let text = match wire::unframe(line) {
            Ok(Line::Up(text)) => text,
            Ok(Line::Down(_)) => return,
            Err(error) => {
                if !cut && !line.is_empty() {
                    tracing::debug!(port = %self.port, %error, "a line was dropped");
                }
                return;
            }
        };
        let heading = serde_json::from_str::<Heading>(text);
        let (Ok(leaf), Ok(heading)) = (Uplink::leaf_of(text), heading) else {
            tracing::debug!(port = %self.port, "a line of no known kind was dropped");
            return;
        };
        if self.boot != heading.boot {
            (self.boot, self.desired, self.version) = (heading.boot, None, 0);
        }
        if let Some(id) = heading.id.filter(|id| *id >= OWN_IDS && leaf == Leaf::Ack) {
            tracing::trace!(id, "answer to the gateway");
            let good = heading.st.as_deref() == Some("ok");
            match self.desired {
                Some((of, version)) if of == id => {
                    self.desired = None;
                    if good {
                        self.version = version;
                    }
                }
                _ if !good => self.gaps.refused(),
                _ => {}
            }
            return;
        }
        if let Some(seq) = heading.seq {
            self.gaps.came(heading.boot, seq, Instant::now());
        }
        let text = match (&leaf, text.strip_suffix('}')) {
            (Leaf::State, Some(open)) => {
                let version = format!("\"version\":{}", self.version);
                let open = open.replace("\"version\":0", &version);
                format!("{open},\"via\":\"{}\"}}", self.via)
            }
            _ => text.to_owned(),
        };
        self.publish(leaf, text).await;
    }

    async fn send_down(&mut self, line: &AsyncFd<OwnedFd>, item: Down) -> io::Result<()> {
        match item {
            // What the broker keeps of the node may be of an earlier time.
            Down::Connected => self.order(line, Op::Info).await,
            Down::Command(body) => {
                if body.bytes().any(|b| !(b' '..=b'~').contains(&b)) {
                    return Ok(());
                }
                write(line, &wire::frame_down(&body)).await
            }
            Down::Desired(text) => {
                let Ok(desired) = serde_json::from_str::<wire::Desired>(&text) else {
                    return Ok(());
                };
                let Ok(Command { op: op @ Op::Prog(_), .. }) = Command::parse(&desired.cmd) else {
                    return Ok(());
                };
                if desired.version <= self.version {
                    return Ok(());
                }
                self.order(line, op).await?;
                self.desired = Some((self.own_id, desired.version));
                // Its answer says that it has it; the state that follows says it to all.
                self.order(line, Op::Info).await
            }
        }
    }

    /// Sends a command of the gateway's own.
    async fn order(&mut self, line: &AsyncFd<OwnedFd>, op: Op) -> io::Result<()> {
        self.own_id = self.own_id.checked_add(1).unwrap_or(OWN_IDS);
        let Ok(body) = Command::new(self.own_id, op).encode() else { return Ok(()) };
        write(line, &wire::frame_down(&body)).await
    }
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when.into()).await,
        None => std::future::pending().await,
    }
}

fn open(device: &std::path::Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let line = rustix::fs::open(device, flags, Mode::empty())?;
    let mut settings = termios::tcgetattr(&line)?;
    settings.make_raw();
    settings.set_speed(BAUD)?;
    termios::tcsetattr(&line, OptionalActions::Now, &settings)?;
    Ok(line)
}

fn watched(line: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(deprecated, reason = "its safe form; an OwnedFd keeps the descriptor while it lives")]
    AsyncFd::new(line)
}

async fn read(line: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        let mut ready = line.readable().await?;
        let taken = ready.try_io(|line| Ok(rustix::io::read(line.get_ref(), &mut *buffer)?));
        if let Ok(taken) = taken {
            return taken;
        }
    }
}

async fn write(line: &AsyncFd<OwnedFd>, frame: &str) -> io::Result<()> {
    let bytes = format!("{frame}\n").into_bytes();
    for chunk in bytes.chunks(CHUNK) {
        let mut left = chunk;
        while !left.is_empty() {
            let mut ready = line.writable().await?;
            let sent = ready.try_io(|line| Ok(rustix::io::write(line.get_ref(), left)?));
            if let Ok(sent) = sent {
                left = &left[sent?..];
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_port_names_its_twin() {
        let port = Port::parse("/dev/ttyACM0=lab/desk").unwrap();
        assert_eq!((port.thing.as_str(), port.via().as_str()), ("lab:desk", "ttyACM0"));
        assert_eq!(port.to_string(), "/dev/ttyACM0=lab/desk");
        for text in ["/dev/ttyACM0", "=lab/desk", "/dev/ttyACM0=desk", "/dev/x=1lab/desk", "x=/"] {
            assert!(Port::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn missing_readings_are_asked_for_and_given_up_in_the_end() {
        let start = Instant::now();
        let mut gaps = Gaps::default();
        gaps.came(1, 7, start);
        assert_eq!(gaps.ask(start), None, "what was before this gateway is not asked for");
        gaps.came(1, 12, start);
        assert_eq!(gaps.ask(start), Some((8, 11)));
        assert_eq!(gaps.ask(start), None, "it is waited for");
        gaps.came(1, 9, start);
        assert_eq!(gaps.ask(start + ASK_WAIT), Some((8, 8)));
        assert_eq!(gaps.ask(start + ASK_WAIT), Some((10, 11)));
        gaps.came(1, 8, start);
        for seq in 10..=11 {
            gaps.came(1, seq, start);
        }
        assert_eq!(gaps.due(), None);
        gaps.came(1, 20, start);
        for ask in 0..ASKS_MAX {
            assert!(gaps.ask(start + ASK_WAIT * ask).is_some());
        }
        assert_eq!(gaps.ask(start + ASK_WAIT * ASKS_MAX), None);
        assert_eq!(gaps.due(), None);
    }

    #[test]
    fn a_new_boot_counts_anew_and_a_refusal_ends_the_asking() {
        let now = Instant::now();
        let mut gaps = Gaps::default();
        gaps.came(1, 0, now);
        gaps.came(1, 5, now);
        assert!(gaps.ask(now).is_some());
        gaps.refused();
        assert_eq!(gaps.due(), None);
        gaps.came(1, 9, now);
        gaps.came(2, 0, now);
        assert_eq!(gaps.due(), None);
    }

    proptest! {
        #[test]
        fn every_reading_that_is_missing_and_no_other_is_asked_for(
            came in proptest::collection::vec(0_u32..40, 1..60),
        ) {
            let now = Instant::now();
            let mut gaps = Gaps::default();
            let first = came[0];
            for seq in &came {
                gaps.came(3, *seq, now);
            }
            let newest = came.iter().copied().max().unwrap();
            let missing: Vec<u32> = (first..newest).filter(|seq| !came.contains(seq)).collect();
            let mut asked = Vec::new();
            while let Some((from, to)) = gaps.ask(now) {
                asked.extend(from..=to);
            }
            asked.sort_unstable();
            // Of too many gaps the oldest are given up.
            prop_assert!(missing.ends_with(&asked) || gaps.missing.len() >= GAPS_MAX);
            prop_assert!(asked.iter().all(|seq| missing.contains(seq)));
        }

        #[test]
        fn lines_come_whole_however_they_are_cut(
            lines in proptest::collection::vec("[ -~]{0,20}", 0..8),
            cuts in proptest::collection::vec(1_usize..9, 1..50),
        ) {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let mut found = Vec::new();
            let mut cutter = Lines::default();
            let mut rest = text.as_bytes();
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                cutter.push(now, |line, _| found.push(String::from_utf8(line.to_vec()).unwrap()));
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(found, lines);
        }
    }

    #[test]
    fn an_overlong_line_is_dropped_to_its_end() {
        let mut found = Vec::new();
        let mut cutter = Lines::default();
        cutter.push(&vec![b'x'; 3 * LINE_LEN_MAX], |_, _| panic!("no end"));
        cutter.push(b"x\nnext\n", |line, cut| found.push((line.to_vec(), cut)));
        assert_eq!(found, [(b"next".to_vec(), false)]);
        assert!(cutter.open.capacity() <= 2 * LINE_LEN_MAX);
    }
}
