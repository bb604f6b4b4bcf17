//! The nodes of a benchmark and the one who watches their verdicts: MQTT clients on sockets of
//! their own, all on one thread, so that nothing but the runtime's work is between a reading and
//! its verdict.
//!
//! Every twin has at most one reading under way, so it is known which revision a verdict has to be
//! about: one that is about another, has another label than the model gives, or comes twice ends
//! the benchmark. In an open loop a reading is due at its time whether or not former ones are
//! answered, and its latency counts from then.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Deserialize;
use serde_json::Value;

use super::{Error, Watch, failed, histogram, nanos};
use crate::edgeai::generate::{CHANNELS, SyntheticWorld as World};
use crate::edgeai::{Model, Prediction};

/// A reading without an answer for this long counts as lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// How often progress is shown and an interruption is looked for.
const TICK: Duration = Duration::from_millis(50);
const BUFFER_LEN: usize = 64 * 1024;

/// A reading to send, and what the model says about it.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    /// The payload behind the sequence number.
    pub(super) tail: String,
    /// The label that the verdict has to have.
    pub(super) label: String,
}

/// How the readings come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Readings under way at a time, at most.
    pub(super) in_flight: usize,
    /// Readings a second, of an open loop; without it a reading follows when one was answered.
    pub(super) rate: Option<f64>,
    /// For how long.
    pub(super) duration: Duration,
    /// So many readings, if that takes less time.
    pub(super) count: u64,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Outcome {
    /// From the time at which a reading was due to its answer, nanoseconds.
    pub(super) latency: Histogram<u64>,
    /// Readings, all of them answered.
    pub(super) count: u64,
    /// From the first reading to the last answer.
    pub(super) took: Duration,
}

#[derive(Debug)]
struct Twin {
    topic: String,
    revision: u64,
    seq: u64,
    /// The reading under way: when it was due, and its sample.
    waiting: Option<(Instant, usize)>,
}

/// The part of a verdict that is checked.
#[derive(Deserialize)]
struct Verdict<'a> {
    #[serde(rename = "ofRevision")]
    of_revision: u64,
    label: &'a str,
}

/// All clients of one run.
pub(super) struct Driver {
    nodes: Vec<Client>,
    watcher: Option<Client>,
    twins: Vec<Twin>,
    free: VecDeque<usize>,
    samples: Vec<Sample>,
    next_sample: usize,
    under_way: usize,
    /// Verdicts beyond the first of a reading are no mistake; while services settle.
    lenient: bool,
    payload: String,
}

impl Driver {
    /// Connects nodes and, where `service` judges, the one who watches.
    pub(super) fn connect(
        broker: SocketAddr,
        connections: usize,
        twins: usize,
        service: Option<&str>,
        samples: Vec<Sample>,
    ) -> Result<Self, Error> {
        // Sleeping until the next reading is due must not take longer than that.
        rustix::thread::set_current_timer_slack(std::num::NonZero::new(1))
            .map_err(|error| failed(format!("the timer cannot be made exact: {error}")))?;
        let connect = |name: &str| {
            Client::connect(broker, name).map_err(|error| failed(format!("MQTT: {error}")))
        };
        let mut watcher = match service {
            Some(_) => Some(connect("bench-watcher")?),
            None => None,
        };
        if let (Some(watcher), Some(service)) = (&mut watcher, service) {
            watcher
                .subscribe(&format!("et/v1/bench/+/verdict/{service}"))
                .map_err(|error| failed(format!("MQTT: {error}")))?;
        }
        let nodes = (0..connections).map(|n| connect(&format!("bench-node-{n}")));
        let topic = |n: usize| format!("et/v1/bench/n-{}/data", n + 1);
        let new = |n| Twin { topic: topic(n), revision: 0, seq: 0, waiting: None };
        Ok(Self {
            nodes: nodes.collect::<Result<_, _>>()?,
            watcher,
            twins: (0..twins).map(new).collect(),
            free: (0..twins).collect(),
            samples,
            next_sample: 0,
            under_way: 0,
            lenient: false,
            payload: String::new(),
        })
    }

    /// How many twins there are.
    pub(super) fn twins(&self) -> usize {
        self.twins.len()
    }

    /// Each twin's revision, in order: as it is known here.
    pub(super) fn revisions(&self) -> Vec<u64> {
        self.twins.iter().map(|twin| twin.revision).collect()
    }

    /// Takes the twins' revisions as they are.
    pub(super) fn set_revisions(&mut self, revisions: &[u64]) {
        for (twin, revision) in self.twins.iter_mut().zip(revisions) {
            twin.revision = *revision;
        }
    }

    /// One reading for each twin, not measured.
    pub(super) fn warm_up(&mut self, watch: &dyn Watch) -> Result<(), Error> {
        let count = self.twins.len() as u64;
        let load = Load { in_flight: 8, rate: None, duration: ANSWER_TIMEOUT, count };
        self.lenient = true;
        self.run(&load, watch)?;
        // What a service judges again because it was not there before comes now.
        let quiet = Instant::now() + Duration::from_millis(400);
        while Instant::now() < quiet {
            self.wait(quiet.saturating_duration_since(Instant::now()))?;
            self.receive(&mut histogram())?;
        }
        self.lenient = false;
        Ok(())
    }

    /// Sends readings as `load` says and takes their answers.
    pub(super) fn run(&mut self, load: &Load, watch: &dyn Watch) -> Result<Outcome, Error> {
        let mut latency = histogram();
        let (mut sent, mut answered) = (0_u64, 0_u64);
        let started = Instant::now();
        let ends = started + load.duration;
        let due_at =
            |n: u64| load.rate.map(|rate| started + Duration::from_secs_f64(n as f64 / rate));
        let count = match load.rate {
            Some(rate) => load.count.min((load.duration.as_secs_f64() * rate) as u64),
            None => load.count,
        };
        let (mut tick, mut last_answer) = (started, started);
        loop {
            let mut now = Instant::now();
            while sent < count && self.under_way < load.in_flight {
                let due = due_at(sent).unwrap_or(now);
                if due > now || (load.rate.is_none() && now >= ends) {
                    break;
                }
                let Some(twin) = self.free.pop_front() else { break };
                self.send(twin, due)?;
                sent += 1;
            }
            for node in &mut self.nodes {
                node.flush().map_err(lost)?;
            }
            let over = sent == count || (load.rate.is_none() && now >= ends);
            if over && self.under_way == 0 && self.nodes.iter().all(|node| node.unacked.is_empty())
            {
                break;
            }
            let mut pause = TICK;
            if let Some(due) = due_at(sent)
                && sent < count
                && self.under_way < load.in_flight
                && !self.free.is_empty()
            {
                pause = pause.min(due.saturating_duration_since(Instant::now()));
            }
            self.wait(pause)?;
            let new = self.receive(&mut latency)?;
            answered += new;
            now = Instant::now();
            if new > 0 {
                last_answer = now;
            }
            if now.duration_since(tick) >= TICK {
                tick = now;
                watch.tick(started.elapsed().as_secs_f64() / load.duration.as_secs_f64());
                if watch.stopped() {
                    return Err(Error::Interrupted);
                }
                if self.under_way > 0 && now.duration_since(last_answer) > ANSWER_TIMEOUT {
                    return Err(failed(format!(
                        "{} of {sent} readings have no verdict after {} s",
                        self.under_way,
                        ANSWER_TIMEOUT.as_secs()
                    )));
                }
            }
        }
        if answered != sent {
            return Err(failed(format!("{sent} readings were sent, {answered} were answered")));
        }
        Ok(Outcome { latency, count: sent, took: last_answer - started })
    }

    fn send(&mut self, index: usize, due: Instant) -> Result<(), Error> {
        let sample = self.next_sample;
        self.next_sample = (sample + 1) % self.samples.len();
        let connections = self.nodes.len();
        let twin = &mut self.twins[index];
        self.payload.clear();
        // Writing to a string cannot fail.
        let _infallible = write!(self.payload, "{{\"seq\":{},\"boot\":1,", twin.seq);
        self.payload.push_str(&self.samples[sample].tail);
        twin.seq += 1;
        twin.waiting = Some((due, sample));
        self.under_way += 1;
        let node = &mut self.nodes[index % connections];
        node.publish(&twin.topic, self.payload.as_bytes(), index);
        // As soon as it is there: a node does not wait for others.
        node.flush().map_err(lost)
    }

    /// Returns when there is something to read or to write, or after `pause`.
    fn wait(&mut self, pause: Duration) -> Result<(), Error> {
        let clients = self.watcher.iter().chain(&self.nodes);
        let mut waiting: Vec<PollFd<'_>> = clients
            .map(|client| {
                let mut events = PollFlags::IN;
                if client.written < client.out.len() {
                    events |= PollFlags::OUT;
                }
                PollFd::new(&client.stream, events)
            })
            .collect();
        let pause =
            Timespec { tv_sec: pause.as_secs() as i64, tv_nsec: i64::from(pause.subsec_nanos()) };
        match poll(&mut waiting, Some(&pause)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(lost(error.into())),
        }
        let ready: Vec<bool> = waiting.iter().map(|fd| !fd.revents().is_empty()).collect();
        let clients = self.watcher.iter_mut().chain(&mut self.nodes);
        for (client, ready) in clients.zip(ready) {
            client.ready = ready;
        }
        Ok(())
    }

    /// Takes what came; the number of readings that it answered.
    fn receive(&mut self, latency: &mut Histogram<u64>) -> Result<u64, Error> {
        let mut answered = 0;
        if let Some(watcher) = &mut self.watcher
            && watcher.ready
        {
            watcher.fill().map_err(lost)?;
            let now = Instant::now();
            while let Some(packet) = watcher.next_packet().map_err(lost)? {
                let Packet::Publish { id, topic, payload } = packet else { continue };
                let number = watcher.text(topic.clone()).and_then(|topic| {
                    topic.strip_prefix("et/v1/bench/n-")?.split('/').next()?.parse().ok()
                });
                let twin: Option<&mut Twin> =
                    number.and_then(|n: usize| self.twins.get_mut(n.checked_sub(1)?));
                let Some(twin) = twin else { return Err(failed("a verdict is about no twin")) };
                let verdict: Verdict<'_> = serde_json::from_slice(&watcher.input[payload])
                    .map_err(|error| failed(format!("a verdict is none: {error}")))?;
                match twin.waiting.take() {
                    Some((due, sample)) => {
                        let wanted = &self.samples[sample].label;
                        let right =
                            verdict.of_revision == twin.revision + 1 && verdict.label == wanted;
                        if !right && !self.lenient {
                            return Err(failed(format!(
                                "a verdict on {} is about revision {} and says {}; the reading \
                                 made revision {} and is {wanted}",
                                twin.topic,
                                verdict.of_revision,
                                verdict.label,
                                twin.revision + 1
                            )));
                        }
                        twin.revision = verdict.of_revision + 1;
                        latency.saturating_record(nanos(now.duration_since(due)));
                        let index = number.unwrap_or(1) - 1;
                        self.free.push_back(index);
                        self.under_way -= 1;
                        answered += 1;
                    }
                    None if self.lenient => {}
                    None => return Err(failed(format!("{} has a verdict too many", twin.topic))),
                }
                if let Some(id) = id {
                    watcher.acknowledge(id);
                }
            }
            watcher.flush().map_err(lost)?;
        }
        for node in self.nodes.iter_mut().filter(|node| node.ready) {
            node.fill().map_err(lost)?;
            let now = Instant::now();
            while let Some(packet) = node.next_packet().map_err(lost)? {
                let Packet::Puback(id) = packet else { continue };
                let index = match node.unacked.pop_front() {
                    Some((expected, index)) if expected == id => index,
                    _ => return Err(failed(format!("PUBACK {id} came out of order"))),
                };
                if self.watcher.is_none() {
                    let twin = &mut self.twins[index];
                    if let Some((due, _)) = twin.waiting.take() {
                        latency.saturating_record(nanos(now.duration_since(due)));
                    }
                    twin.revision += 1;
                    self.free.push_back(index);
                    self.under_way -= 1;
                    answered += 1;
                }
            }
            node.flush().map_err(lost)?;
        }
        Ok(answered)
    }
}

fn lost(error: io::Error) -> Error {
    failed(format!("an MQTT connection failed: {error}"))
}

/// What a client takes notice of; places are in its input.
enum Packet {
    Publish { id: Option<u16>, topic: std::ops::Range<usize>, payload: std::ops::Range<usize> },
    Puback(u16),
    Other(u8),
}

/// An MQTT 3.1.1 client that does not wait.
struct Client {
    stream: TcpStream,
    out: Vec<u8>,
    written: usize,
    input: Vec<u8>,
    /// Where unread input starts and ends.
    start: usize,
    end: usize,
    next_id: u16,
    /// Packet identifier and twin of what was published, in order.
    unacked: VecDeque<(u16, usize)>,
    ready: bool,
}

impl Client {
    fn connect(broker: SocketAddr, name: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(broker)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        let mut client = Self {
            stream,
            out: Vec::new(),
            written: 0,
            input: vec![0; 2 * BUFFER_LEN],
            start: 0,
            end: 0,
            next_id: 1,
            unacked: VecDeque::new(),
            ready: false,
        };
        // Protocol level 4, clean session, no keep-alive.
        let mut body = b"\x00\x04MQTT\x04\x02\x00\x00".to_vec();
        string(&mut body, name);
        client.packet(0x10, &body);
        client.handshake(2)?;
        client.stream.set_nonblocking(true)?;
        Ok(client)
    }

    fn subscribe(&mut self, filter: &str) -> io::Result<()> {
        let mut body = vec![0, 1];
        string(&mut body, filter);
        body.push(1);
        self.packet(0x82, &body);
        self.stream.set_nonblocking(false)?;
        self.handshake(9)?;
        self.stream.set_nonblocking(true)
    }

    /// Sends what is there and waits for a packet of the type.
    fn handshake(&mut self, kind: u8) -> io::Result<()> {
        self.flush()?;
        loop {
            self.fill()?;
            match self.next_packet()? {
                Some(Packet::Other(found)) if found == kind => return Ok(()),
                Some(_) => return Err(io::Error::other("refused")),
                None => {}
            }
        }
    }

    fn packet(&mut self, first: u8, body: &[u8]) {
        self.out.push(first);
        length(&mut self.out, body.len());
        self.out.extend_from_slice(body);
    }

    fn publish(&mut self, topic: &str, payload: &[u8], twin: usize) {
        let id = self.next_id;
        self.next_id = if id == u16::MAX { 1 } else { id + 1 };
        self.out.push(0x32);
        length(&mut self.out, 2 + topic.len() + 2 + payload.len());
        string(&mut self.out, topic);
        self.out.extend_from_slice(&id.to_be_bytes());
        self.out.extend_from_slice(payload);
        self.unacked.push_back((id, twin));
    }

    fn acknowledge(&mut self, id: u16) {
        self.packet(0x40, &id.to_be_bytes());
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => self.written += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }

    fn fill(&mut self) -> io::Result<()> {
        if self.start > 0 {
            self.input.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        match self.stream.read(&mut self.input[self.end..]) {
            Ok(0) => Err(io::Error::other("the runtime closed it")),
            Ok(len) => {
                self.end += len;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn next_packet(&mut self) -> io::Result<Option<Packet>> {
        let input = &self.input[self.start..self.end];
        let mut len = 0_usize;
        let mut head = 1;
        loop {
            let Some(&byte) = input.get(head) else { return Ok(None) };
            len |= usize::from(byte & 0x7f) << (7 * (head - 1));
            head += 1;
            if byte & 0x80 == 0 {
                break;
            }
            if head > 4 {
                return Err(io::Error::other("a packet without a length"));
            }
        }
        if head + len > self.input.len() {
            return Err(io::Error::other("a packet that is too long"));
        }
        let Some(body) = input.get(head..head + len) else { return Ok(None) };
        let first = input[0];
        let at = self.start + head;
        self.start = at + len;
        let number = |at: usize| Some(u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?]));
        let short = || io::Error::other("a packet that is too short");
        Ok(Some(match first >> 4 {
            3 => {
                let topic_len = usize::from(number(0).ok_or_else(short)?);
                let topic = at + 2..at + 2 + topic_len;
                let (id, used) = if first & 0x06 == 0 {
                    (None, 2 + topic_len)
                } else {
                    (Some(number(2 + topic_len).ok_or_else(short)?), 4 + topic_len)
                };
                if used > len {
                    return Err(short());
                }
                Packet::Publish { id, topic, payload: at + used..at + len }
            }
            4 => Packet::Puback(number(0).ok_or_else(short)?),
            kind => Packet::Other(kind),
        }))
    }

    fn text(&self, range: std::ops::Range<usize>) -> Option<&str> {
        std::str::from_utf8(self.input.get(range)?).ok()
    }
}

fn string(to: &mut Vec<u8>, text: &str) {
    to.extend_from_slice(&(text.len() as u16).to_be_bytes());
    to.extend_from_slice(text.as_bytes());
}

fn length(to: &mut Vec<u8>, mut len: usize) {
    while len > 0x7f {
        to.push((len as u8 & 0x7f) | 0x80);
        len >>= 7;
    }
    to.push(len as u8);
}

/// Different readings that are sent, one after the other and over again.
const SAMPLES: usize = 997;

/// Readings that nobody was trained on.
pub(super) fn rows(seed: u64) -> Vec<Vec<f32>> {
    let world = World { seed: seed.wrapping_add(1), nodes: 1, days: 7.0, interval_s: 600.0 };
    let rounded = |value: &f32| ((f64::from(*value) * 100.0).round() / 100.0) as f32;
    let samples = world.samples().take(SAMPLES);
    samples.map(|(_, _, sample)| sample.values.iter().map(rounded).collect()).collect()
}

/// The reading of a row, and what the model says about it.
pub(super) fn sample(row: &[f32], model: Option<&Model>) -> Result<Sample, Error> {
    let mut values = serde_json::Map::new();
    let mut sent = Vec::new();
    for (name, value) in CHANNELS.iter().zip(row) {
        let value = (f64::from(*value) * 100.0).round() / 100.0;
        values.insert((*name).to_owned(), value.into());
        sent.push(value as f32);
    }
    let label = match model {
        Some(model) => {
            let mut prediction = Prediction::default();
            model.predict(&sent, &mut prediction).map_err(|error| failed(error.to_string()))?;
            model.label(prediction.label).to_owned()
        }
        None => String::new(),
    };
    Ok(Sample { tail: format!("\"environment\":{}}}", Value::Object(values)), label })
}
