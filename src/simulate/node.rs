//! A node as firmware is one: programs, commands, lease, trial, ring. Pure.
//!
//! The same rules as `firmware-templates/core`, in the same order, on the same whole numbers:
//! `tests/firmware/vectors/sessions.json` is replayed by both and gives the same bytes.
//!
//! Time is the node's uptime in ms, which wraps; a caller polls about once a millisecond, or sleeps
//! as long as [`Node::next_due`] says.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::firmware::{Firmware, PROGRAMS, Property};
use crate::wire::{
    Ack, AckStatus, ActValue, Cause, Command, Decimal, Event, EventKind, Features, Head, Measured,
    Op, Pairs, Prog, Program, PropertyStats, Sample, State, Stats, Tx, Uplink,
};

const INTERVAL: usize = 0;
const ON_CHANGE: usize = 1;
const ON_REQUEST: usize = 2;
const FEATURES: usize = 3;
/// Longest period that a node takes, ms: a day.
const PERIOD_MAX: u32 = 86_400_000;
/// A reading that is sent later than this after it was measured is marked as old, ms.
const OLD_MS: u32 = 2000;
/// Overflow is reported no more often than this, ms.
const OVERFLOW_EVERY_MS: u32 = 10_000;
/// Answers that are kept.
const IDS: usize = 4;
/// Samples of a period of features; further ones are left out, as the sums have their bounds.
const SAMPLES_MAX: u32 = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Group {
    members: u16,
    program: usize,
    pmin: u32,
    pmax: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Transmission {
    groups: Vec<Group>,
    st: Vec<Option<i32>>,
    gt: Vec<Option<i32>>,
    lt: Vec<Option<i32>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Timing {
    due: u32,
    sent_at: u32,
    samples: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    first: Option<i32>,
    least: i32,
    most: i32,
    sum: i64,
    squares: u64,
    count: i64,
}

#[derive(Debug, Clone)]
enum Values {
    Sample(Vec<(usize, i32)>),
    /// Property, minimum, maximum, mean, variance.
    Features(u32, Vec<(usize, [i32; 4])>),
}

#[derive(Debug, Clone)]
struct Record {
    ms: u32,
    program: usize,
    values: Values,
    len: u32,
}

#[derive(Debug, Clone)]
struct Answer {
    id: u32,
    status: AckStatus,
    why: &'static str,
    shown: Shown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Nothing,
    Transmission,
    Health,
    HealthAndTransmission,
    Actuator(usize),
}

type Refusal = (AckStatus, &'static str);

/// What a node measures and what it runs on.
pub trait Environment {
    /// A sensor's value in its property's fixed point; none if it does not answer.
    fn read(&mut self, sensor: usize) -> Option<i32>;
    /// The received signal, dBm; none without a radio.
    fn rssi(&mut self) -> Option<i16>;
    /// What is left in the battery, percent; none without one.
    fn battery(&mut self) -> Option<u8>;
    /// Whether a message would leave now.
    fn ready(&self) -> bool;
    /// Sends a message.
    fn send(&mut self, message: Uplink);
}

/// A node.
#[derive(Debug)]
pub struct Node {
    firmware: Arc<Firmware>,
    build: String,
    tx: Transmission,
    before: Transmission,
    stored: Option<Transmission>,
    timing: Vec<Timing>,
    last: Vec<Option<i32>>,
    pending: u16,
    silent: u16,
    sums: Vec<Sums>,
    acts: Vec<i32>,
    answers: VecDeque<Answer>,
    /// Events that wait for the link, in the order in which firmware sends them.
    lease_event: bool,
    overflow_event: bool,
    fault_event: Option<usize>,
    reverted_event: bool,
    overflow_at: Option<u32>,
    leased: bool,
    kept: bool,
    trial: Option<(u32, u32)>,
    state_due: bool,
    restart: bool,
    lease_ms: u32,
    renewed: u32,
    boot: u32,
    lost: u32,
    version: u32,
    ring: VecDeque<Record>,
    ring_bytes: u32,
    next: u32,
    sent: u32,
    resend: (u32, u32),
    unix: Option<(u64, u32)>,
}

fn bit(index: usize) -> u16 {
    1 << index
}

fn has(members: u16, index: usize) -> bool {
    members >> index & 1 == 1
}

/// `a` is before `b` on a clock or count that wraps.
fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

fn varint(number: u32) -> u32 {
    (32 - number.max(1).leading_zeros()).div_ceil(7)
}

fn varint_signed(number: i32) -> u32 {
    varint(((number << 1) ^ (number >> 31)) as u32)
}

fn divide(number: i64, by: i64) -> i64 {
    let half = by / 2;
    if number >= 0 { (number + half) / by } else { -((-number + half) / by) }
}

fn decimal(property: &Property, value: i32) -> Decimal {
    Decimal::from_scaled(value.into(), property.places)
}

fn number(property: &Property, value: i32) -> serde_json::Number {
    match serde_json::to_value(decimal(property, value)) {
        Ok(serde_json::Value::Number(number)) => number,
        _ => unreachable!("a decimal is a number"),
    }
}

impl Node {
    /// A node that starts, with nothing kept from earlier.
    ///
    /// * `boot`: its boot counter.
    /// * `now`: its uptime.
    pub fn new(firmware: Arc<Firmware>, build: String, boot: u32, now: u32) -> Self {
        let sensors = firmware.sensors.len();
        let tx = own(&firmware);
        let mut node = Self {
            before: tx.clone(),
            stored: None,
            timing: vec![Timing::default(); firmware.groups as usize],
            last: vec![None; sensors],
            pending: 0,
            silent: 0,
            sums: vec![Sums::default(); sensors],
            acts: firmware.actuators.iter().map(|actuator| actuator.safe.unwrap_or(0)).collect(),
            answers: VecDeque::new(),
            lease_event: false,
            overflow_event: false,
            fault_event: None,
            reverted_event: false,
            overflow_at: None,
            leased: true,
            kept: true,
            trial: None,
            state_due: true,
            restart: false,
            lease_ms: firmware.lease_ms,
            renewed: now,
            boot,
            lost: 0,
            version: 0,
            ring: VecDeque::new(),
            ring_bytes: 0,
            next: 0,
            sent: 0,
            resend: (0, 0),
            unix: None,
            tx,
            build,
            firmware,
        };
        for (timing, group) in node.timing.iter_mut().zip(&node.tx.groups) {
            let back = if group.program == FEATURES { 0 } else { group.pmin };
            *timing = Timing { due: now, sent_at: now.wrapping_sub(back), samples: 0 };
        }
        node
    }

    /// Whether a command requested a restart: the caller starts a new node.
    pub fn wants_restart(&self) -> bool {
        self.restart
    }

    /// The link is new: the state is sent first.
    pub fn connected(&mut self) {
        self.state_due = true;
    }

    /// How long nothing is due, ms, at most `most`.
    pub fn next_due(&self, now: u32, most: u32) -> u32 {
        let until = |at: u32| if before(now, at) { at.wrapping_sub(now) } else { 0 };
        let mut least = most;
        for (group, timing) in self.tx.groups.iter().zip(&self.timing) {
            if group.members != 0 && group.program != ON_REQUEST {
                least = least.min(until(timing.due));
            }
        }
        if self.leased {
            least = least.min(until(self.renewed.wrapping_add(self.lease_ms)));
        }
        if let Some((from, ms)) = self.trial {
            least = least.min(until(from.wrapping_add(ms)));
        }
        least
    }

    /// Does what is due.
    pub fn poll(&mut self, now: u32, env: &mut dyn Environment) {
        if self.leased && now.wrapping_sub(self.renewed) >= self.lease_ms {
            self.leased = false;
            self.fall_back(now);
            self.lease_event = true;
        }
        if self.trial.is_some_and(|(from, ms)| now.wrapping_sub(from) >= ms) {
            self.trial = None;
            self.adopt(self.before.clone(), now);
            self.reverted_event = true;
        }
        if self.state_due && env.ready() {
            self.state_due = false;
            let state = self.state(now, env);
            env.send(state);
        }
        if env.ready() {
            self.send_events(now, env);
        }
        for index in 0..self.tx.groups.len() {
            self.run(index, now, env);
        }
        self.forward(now, env);
    }

    fn send_events(&mut self, now: u32, env: &mut dyn Environment) {
        let (boot, ms) = (self.boot, now);
        let event = |ev, lost, why, tx| Uplink::Event(Event { boot, ms, ev, lost, why, tx });
        if std::mem::take(&mut self.lease_event) {
            env.send(event(EventKind::Lease, None, None, Some(self.report())));
        }
        let rested = self.overflow_at.is_none_or(|at| now.wrapping_sub(at) >= OVERFLOW_EVERY_MS);
        if self.overflow_event && rested {
            self.overflow_event = false;
            self.overflow_at = Some(now | 1);
            env.send(event(EventKind::Overflow, Some(self.lost), None, None));
        }
        if let Some(sensor) = self.fault_event.take() {
            let name = self.firmware.sensors[sensor].name();
            env.send(event(EventKind::Fault, None, Some(name), None));
        }
        if std::mem::take(&mut self.reverted_event) {
            env.send(event(EventKind::Reverted, None, None, Some(self.report())));
        }
    }

    // ---- programs -------------------------------------------------------------------------

    fn measure(&mut self, sensor: usize, env: &mut dyn Environment) -> Option<i32> {
        let (least, most) = self.firmware.sensors[sensor].range;
        let value = env.read(sensor).filter(|value| (least..=most).contains(value));
        if value.is_some() {
            self.silent &= !bit(sensor);
        } else if !has(self.silent, sensor) {
            self.silent |= bit(sensor);
            self.fault_event = Some(sensor);
        }
        value
    }

    fn members(&self, members: u16) -> Vec<usize> {
        (0..self.firmware.sensors.len()).filter(|index| has(members, *index)).collect()
    }

    fn run(&mut self, index: usize, now: u32, env: &mut dyn Environment) {
        let group = self.tx.groups[index];
        let due = self.timing[index].due;
        if group.members == 0 || group.program == ON_REQUEST || before(now, due) {
            return;
        }
        let step = if group.program == INTERVAL { group.pmin } else { self.firmware.sample_ms };
        let next = due.wrapping_add(step);
        self.timing[index].due = if before(now, next) { next } else { now.wrapping_add(step) };
        if group.program == INTERVAL {
            self.timing[index].sent_at = now;
            return self.sample(group.members, INTERVAL, now, env);
        }
        if group.program == FEATURES {
            self.accumulate(index, env);
            if now.wrapping_sub(self.timing[index].sent_at) >= group.pmin {
                self.push_features(index, now);
            }
            return;
        }
        let members = self.members(group.members);
        let unset = |list: &[Option<i32>]| members.iter().all(|index| list[*index].is_none());
        let any = unset(&self.tx.st) && unset(&self.tx.gt) && unset(&self.tx.lt);
        for sensor in members {
            if let Some(value) = self.measure(sensor, env)
                && self.changed(sensor, value, any)
            {
                self.pending |= bit(sensor);
            }
        }
        let silence = now.wrapping_sub(self.timing[index].sent_at);
        let mut which = self.pending & group.members;
        if silence < group.pmin {
            which = 0;
        }
        if group.pmax != 0 && silence >= group.pmax {
            which = group.members;
        }
        if which != 0 {
            self.timing[index].sent_at = now;
            self.sample(which, ON_CHANGE, now, env);
        }
    }

    fn changed(&self, sensor: usize, value: i32, any: bool) -> bool {
        let Some(last) = self.last[sensor] else { return true };
        if any || self.firmware.sensors[sensor].boolean {
            return value != last;
        }
        let difference = value.abs_diff(last);
        let far = |st: i32| difference != 0 && i64::from(difference) >= i64::from(st);
        let over = |gt: i32| (last > gt) != (value > gt);
        let under = |lt: i32| (last < lt) != (value < lt);
        self.tx.st[sensor].is_some_and(far)
            || self.tx.gt[sensor].is_some_and(over)
            || self.tx.lt[sensor].is_some_and(under)
    }

    fn sample(&mut self, members: u16, program: usize, now: u32, env: &mut dyn Environment) {
        let mut values = Vec::new();
        for sensor in self.members(members) {
            let value = self.measure(sensor, env);
            self.pending &= !bit(sensor);
            if let Some(value) = value {
                self.last[sensor] = Some(value);
                values.push((sensor, value));
            }
        }
        if values.is_empty() {
            return;
        }
        let mask: u16 = values.iter().map(|(sensor, _)| bit(*sensor)).sum();
        let numbers: u32 = values.iter().map(|(_, value)| varint_signed(*value)).sum();
        let len = varint(now) + varint(program as u32) + varint(mask.into()) + numbers;
        self.push(Record { ms: now, program, values: Values::Sample(values), len });
    }

    fn accumulate(&mut self, index: usize, env: &mut dyn Environment) {
        let begin = self.timing[index].samples == 0;
        if self.timing[index].samples >= SAMPLES_MAX {
            return;
        }
        self.timing[index].samples += 1;
        for sensor in self.members(self.tx.groups[index].members) {
            let value = self.measure(sensor, env);
            let sums = &mut self.sums[sensor];
            if begin {
                sums.first = None;
            }
            let Some(value) = value else { continue };
            let first = match sums.first {
                Some(first) => first,
                None => {
                    *sums =
                        Sums { first: Some(value), least: value, most: value, ..Sums::default() };
                    value
                }
            };
            let step = i64::from(value.wrapping_sub(first)).clamp(-0x7_FFFF, 0x7_FFFF);
            sums.count += 1;
            sums.sum += step;
            sums.squares += (step * step) as u64;
            sums.least = sums.least.min(value);
            sums.most = sums.most.max(value);
        }
    }

    fn push_features(&mut self, index: usize, now: u32) {
        let timing = &mut self.timing[index];
        let (n, pmin) = (timing.samples, self.tx.groups[index].pmin);
        timing.sent_at = timing.sent_at.wrapping_add(pmin);
        if now.wrapping_sub(timing.sent_at) >= pmin {
            timing.sent_at = now;
        }
        timing.samples = 0;
        let mut values = Vec::new();
        for sensor in self.members(self.tx.groups[index].members) {
            let sums = self.sums[sensor];
            let Some(first) = sums.first else { continue };
            let unit = 10_u64.pow(self.firmware.sensors[sensor].places.into());
            let square = sums.sum * sums.sum / sums.count;
            let spread = (sums.squares - square as u64) / sums.count as u64;
            let spread = ((spread + unit / 2) / unit).min(0x7FFF_FFFF) as i32;
            let mean = first.wrapping_add(divide(sums.sum, sums.count) as i32);
            self.last[sensor] = Some(mean);
            values.push((sensor, [sums.least, sums.most, mean, spread]));
        }
        if n == 0 || values.is_empty() {
            return;
        }
        let mask: u16 = values.iter().map(|(sensor, _)| bit(*sensor)).sum();
        let numbers: u32 =
            values.iter().flat_map(|(_, four)| four).map(|value| varint_signed(*value)).sum();
        let len = varint(now) + varint(FEATURES as u32) + varint(mask.into()) + varint(n) + numbers;
        self.push(Record { ms: now, program: FEATURES, values: Values::Features(n, values), len });
    }

    // ---- ring -----------------------------------------------------------------------------

    fn oldest(&self) -> u32 {
        self.next.wrapping_sub(self.ring.len() as u32)
    }

    fn push(&mut self, record: Record) {
        let room = self.firmware.ring;
        let safe = self.sent;
        let mut lost = 0;
        while !self.ring.is_empty() && room - self.ring_bytes < record.len + 1 {
            if !before(self.oldest(), safe) {
                lost += 1;
            }
            if let Some(gone) = self.ring.pop_front() {
                self.ring_bytes -= gone.len + 1;
            }
        }
        self.next = self.next.wrapping_add(1);
        if room - self.ring_bytes < record.len + 1 {
            lost += 1;
        } else {
            self.ring_bytes += record.len + 1;
            self.ring.push_back(record);
        }
        self.lost += lost;
        self.overflow_event |= lost > 0;
    }

    fn forward(&mut self, now: u32, env: &mut dyn Environment) {
        for _ in 0..8 {
            if !env.ready() {
                return;
            }
            let oldest = self.oldest();
            if before(self.sent, oldest) {
                self.sent = oldest;
            }
            if self.sent != self.next {
                self.send_record(self.sent, false, now, env);
                self.sent = self.sent.wrapping_add(1);
                continue;
            }
            let (from, end) = &mut self.resend;
            if before(*from, oldest) {
                *from = if before(*end, oldest) { *end } else { oldest };
            }
            if from == end {
                return;
            }
            let seq = *from;
            *from = seq.wrapping_add(1);
            self.send_record(seq, true, now, env);
        }
    }

    fn send_record(&mut self, seq: u32, again: bool, now: u32, env: &mut dyn Environment) {
        let index = seq.wrapping_sub(self.oldest()) as usize;
        let Some(record) = self.ring.get(index) else { return };
        let old = again || now.wrapping_sub(record.ms) > OLD_MS;
        // Its arrival says nothing about when it was measured.
        let time = self.unix.filter(|_| old).map(|(unix_ms, at)| {
            unix_ms.wrapping_add_signed(i64::from(record.ms.wrapping_sub(at) as i32))
        });
        let program = PROGRAMS[record.program].to_owned();
        let head = Head { boot: self.boot, seq, ms: record.ms, program, old, time };
        let place = |sensor: &usize| {
            let property = &self.firmware.sensors[*sensor];
            let feature = property.nested.then(|| property.path.feature.clone());
            (feature, property.path.property.clone(), property)
        };
        let message = match &record.values {
            Values::Sample(values) => {
                let values = values.iter().map(|(sensor, value)| {
                    let (feature, property, rule) = place(sensor);
                    let value = if rule.boolean {
                        serde_json::Value::Bool(*value != 0)
                    } else {
                        serde_json::Value::Number(number(rule, *value))
                    };
                    Measured { feature, property, value }
                });
                let values = values.collect();
                Uplink::Sample(Sample { head, values })
            }
            Values::Features(n, values) => {
                let values = values.iter().map(|(sensor, four)| {
                    let (feature, property, rule) = place(sensor);
                    let [min, max, mean, var] = four.map(|value| number(rule, value));
                    PropertyStats { feature, property, stats: Stats { min, max, mean, var } }
                });
                let (n, values) = (*n, values.collect());
                Uplink::Features(Features { head, n, values })
            }
        };
        env.send(message);
    }

    // ---- transmission -----------------------------------------------------------------------

    fn adopt(&mut self, next: Transmission, now: u32) {
        for (index, group) in next.groups.iter().enumerate() {
            if self.tx.groups.get(index) == Some(group) {
                continue;
            }
            let wait = if group.program == INTERVAL { group.pmin } else { 0 };
            self.timing[index] = Timing { due: now.wrapping_add(wait), sent_at: now, samples: 0 };
        }
        self.tx = next;
        self.pending = 0;
        self.look_if_kept();
    }

    fn look_if_kept(&mut self) {
        self.kept = match &self.stored {
            Some(stored) => *stored == self.tx,
            None => own(&self.firmware) == self.tx,
        };
    }

    fn fall_back(&mut self, now: u32) {
        self.trial = None;
        self.adopt(own(&self.firmware), now);
        for (act, actuator) in self.acts.iter_mut().zip(&self.firmware.actuators) {
            if let Some(safe) = actuator.safe {
                *act = safe;
            }
        }
    }

    /// Its transmission, as it reports it.
    pub fn report(&self) -> Tx {
        let mut tx = self.report_group(&self.tx.groups[0]);
        tx.kept = Some(self.kept);
        for group in &self.tx.groups[1..] {
            let names: Vec<String> = self
                .members(group.members)
                .into_iter()
                .map(|sensor| self.firmware.sensors[sensor].name())
                .collect();
            tx.groups.0.push((names.join(","), self.report_group(group)));
        }
        tx
    }

    fn report_group(&self, group: &Group) -> Tx {
        let program = Program::from(PROGRAMS[group.program]);
        let paced = group.program != ON_REQUEST;
        let pmax = Some(group.pmax).filter(|pmax| paced && *pmax != 0);
        let thresholds = |list: &[Option<i32>]| {
            let of = |sensor: usize| {
                let property = &self.firmware.sensors[sensor];
                Some((property.name(), decimal(property, list[sensor]?)))
            };
            Pairs(self.members(group.members).into_iter().filter_map(of).collect())
        };
        Tx {
            st: thresholds(&self.tx.st),
            gt: thresholds(&self.tx.gt),
            lt: thresholds(&self.tx.lt),
            ..Tx::new(program, paced.then_some(group.pmin), pmax)
        }
    }

    fn state(&self, now: u32, env: &mut dyn Environment) -> Uplink {
        Uplink::State(State {
            up: true,
            boot: self.boot,
            ms: Some(now),
            build: Some(self.build.clone()),
            profile: Some(self.firmware.profile.clone()),
            board: Some(self.firmware.board.name.clone()),
            cause: Some(Cause::Power),
            lost: Some(self.lost),
            lease: Some(self.lease_ms / 1000),
            rssi: env.rssi(),
            battery: env.battery(),
            tx: Some(self.report()),
            version: Some(self.version),
            via: None,
        })
    }

    // ---- commands -------------------------------------------------------------------------

    /// Takes a command.
    pub fn command(&mut self, body: &str, now: u32, env: &mut dyn Environment) {
        let parsed = Command::parse(body);
        let id = match &parsed {
            Ok(command) => command.id,
            Err(error) => error.id.unwrap_or(0),
        };
        if id == 0 {
            let why = "id";
            let refusal = Answer { id, status: AckStatus::Range, why, shown: Shown::Nothing };
            return self.send_answer(&refusal, false, now, env);
        }
        if let Some(known) = self.answers.iter().find(|answer| answer.id == id).cloned() {
            if known.status == AckStatus::Ok {
                self.renew(now);
            }
            return self.send_answer(&known, true, now, env);
        }
        let done = match parsed {
            Err(error) if error.why == "length" => {
                // Nothing of it was looked at: it is not remembered either.
                let (status, why) = (error.status, error.why);
                let refusal = Answer { id, status, why, shown: Shown::Nothing };
                return self.send_answer(&refusal, false, now, env);
            }
            Err(error) => Err((error.status, error.why)),
            Ok(command) => {
                let late = command.ttl.is_some_and(|ttl| {
                    before(ttl.from_ms, now) && now.wrapping_sub(ttl.from_ms) > ttl.ms
                });
                if late { Err((AckStatus::Late, "")) } else { self.obey(command.op, now, env) }
            }
        };
        let (status, why, shown) = match done {
            Ok(shown) => (AckStatus::Ok, "", shown),
            Err((status, why)) => (status, why, Shown::Nothing),
        };
        if status == AckStatus::Ok {
            self.renew(now);
        }
        let answer = Answer { id, status, why, shown };
        self.send_answer(&answer, false, now, env);
        if self.answers.len() == IDS {
            self.answers.pop_front();
        }
        self.answers.push_back(answer);
    }

    /// Takes the retained desired transmission.
    pub fn desired(&mut self, version: u32, body: &str, now: u32, env: &mut dyn Environment) {
        if version <= self.version {
            return;
        }
        let Ok(Command { id: 0, op: op @ Op::Prog(_), .. }) = Command::parse(body) else { return };
        if self.obey(op, now, env).is_ok() {
            self.version = version;
            self.renew(now);
            self.state_due = true;
        }
    }

    fn renew(&mut self, now: u32) {
        self.renewed = now;
        self.leased = true;
    }

    fn send_answer(&self, what: &Answer, dup: bool, now: u32, env: &mut dyn Environment) {
        let good = what.status == AckStatus::Ok;
        let trial = self
            .trial
            .filter(|_| good)
            .map(|(from, ms)| (ms - now.wrapping_sub(from)).div_ceil(1000));
        let act = match what.shown {
            Shown::Actuator(index) if good => {
                let property = &self.firmware.actuators[index];
                let value = match property.boolean {
                    true => ActValue::Bool(self.acts[index] != 0),
                    false => ActValue::Number(decimal(property, self.acts[index])),
                };
                Some(Pairs(vec![(property.name(), value)]))
            }
            _ => None,
        };
        let (health, transmission) = match what.shown {
            _ if !good => (false, false),
            Shown::Nothing | Shown::Actuator(_) => (false, false),
            Shown::Transmission => (false, true),
            Shown::Health => (true, false),
            Shown::HealthAndTransmission => (true, true),
        };
        let (rssi, battery) = if health { (env.rssi(), env.battery()) } else { (None, None) };
        env.send(Uplink::Ack(Ack {
            boot: self.boot,
            ms: now,
            id: what.id,
            st: what.status.clone(),
            dup,
            why: (what.status == AckStatus::Range).then(|| what.why.to_owned()),
            lease: good.then_some(self.lease_ms / 1000),
            trial,
            rssi,
            battery,
            tx: transmission.then(|| self.report()),
            act,
        }));
    }

    fn find(properties: &[Property], name: &str) -> Option<usize> {
        properties.iter().position(|property| {
            property.path.to_string() == name || !property.nested && property.path.property == name
        })
    }

    fn sensor(&self, name: &str) -> Option<usize> {
        Self::find(&self.firmware.sensors, name)
    }

    fn obey(&mut self, op: Op, now: u32, env: &mut dyn Environment) -> Result<Shown, Refusal> {
        let range = |why| (AckStatus::Range, why);
        match op {
            Op::Heartbeat => return Ok(Shown::Health),
            Op::Prog(prog) => {
                self.program(&prog, now).map_err(range)?;
                return Ok(Shown::Transmission);
            }
            Op::Keep => {
                self.trial = None;
                self.stored = Some(self.tx.clone());
                self.kept = true;
                return Ok(Shown::Transmission);
            }
            Op::Lease { s } => {
                if !(1..=86_400).contains(&s) {
                    return Err(range("lease"));
                }
                self.lease_ms = s * 1000;
            }
            Op::Get { property } => {
                let members = match property {
                    None => self.all(),
                    Some(name) => bit(self.sensor(&name).ok_or(range("prop"))?),
                };
                self.sample(members, ON_REQUEST, now, env);
            }
            Op::Safe => {
                self.fall_back(now);
                return Ok(Shown::Transmission);
            }
            Op::Resend { from, to } => {
                if before(to, self.oldest()) || !before(from, self.sent) {
                    return Err(range("resend"));
                }
                let end = if before(to, self.sent) { to.wrapping_add(1) } else { self.sent };
                self.resend = (from, end);
            }
            Op::Time { unix_ms } => self.unix = Some((unix_ms, now)),
            Op::Info => {
                self.state_due = true;
                return Ok(Shown::HealthAndTransmission);
            }
            Op::Reset => self.restart = true,
            Op::Act { property, value } => {
                let index = Self::find(&self.firmware.actuators, &property);
                let index = index.ok_or(range("prop"))?;
                let rule = &self.firmware.actuators[index];
                let value = match value {
                    ActValue::Bool(on) if rule.boolean => i64::from(on),
                    ActValue::Number(number) if !rule.boolean => number.scaled(rule.places),
                    _ => return Err(range("value")),
                };
                if value < rule.range.0.into() || value > rule.range.1.into() {
                    return Err(range("value"));
                }
                self.acts[index] = value as i32;
                return Ok(Shown::Actuator(index));
            }
            Op::Period { ms } => {
                if !(self.firmware.period_min..=PERIOD_MAX).contains(&ms) {
                    return Err(range("period"));
                }
                let mut next = self.tx.clone();
                let mut any = false;
                for group in next.groups.iter_mut().filter(|group| group.program != ON_REQUEST) {
                    any = true;
                    group.pmin = ms;
                    if group.program != ON_CHANGE || group.pmax != 0 && group.pmax < ms {
                        group.pmax = ms;
                    }
                }
                if !any {
                    return Err(range("program"));
                }
                self.adopt(next, now);
                return Ok(Shown::Transmission);
            }
            Op::Threshold { property, value } => {
                let sensor = self.sensor(&property).ok_or(range("prop"))?;
                let mut next = self.tx.clone();
                next.st[sensor] = Some(self.threshold(sensor, value, true).ok_or(range("st"))?);
                self.adopt(next, now);
                return Ok(Shown::Transmission);
            }
            Op::Radio { .. } => return Err((AckStatus::Op, "op")),
        }
        Ok(Shown::Nothing)
    }

    fn all(&self) -> u16 {
        ((1_u32 << self.firmware.sensors.len()) - 1) as u16
    }

    fn threshold(&self, sensor: usize, value: Decimal, positive: bool) -> Option<i32> {
        let scaled = i32::try_from(value.scaled(self.firmware.sensors[sensor].places)).ok()?;
        (scaled != i32::MIN && !(positive && scaled < 0)).then_some(scaled)
    }

    fn program(&mut self, prog: &Prog, now: u32) -> Result<(), &'static str> {
        let known = PROGRAMS.iter().position(|known| *known == prog.program.as_str());
        let program = known.filter(|program| self.firmware.programs >> program & 1 == 1);
        let program = program.ok_or("program")?;
        let mut members = if prog.on.is_empty() { self.all() } else { 0 };
        for name in &prog.on {
            members |= bit(self.sensor(name).ok_or("on")?);
        }
        let own_pmin = self.firmware.transmission.pmin;
        let steady = program != ON_CHANGE;
        let default = match (steady, own_pmin) {
            (true, 0) => 1000,
            (true, period) => period,
            (false, _) => self.firmware.period_min,
        };
        let same = prog.pmin.is_some() && prog.pmin == prog.pmax;
        let pmin = prog.pmin.or(prog.pmax.filter(|_| steady)).unwrap_or(default);
        let pmax = if steady { pmin } else { prog.pmax.unwrap_or(0) };
        let mut group = Group { members, program, pmin, pmax };
        if program == ON_REQUEST {
            (group.pmin, group.pmax) = (0, 0);
        } else {
            let why = if same { "period" } else { "pmin" };
            let least = match program {
                FEATURES => self.firmware.period_min.max(2 * self.firmware.sample_ms),
                _ => self.firmware.period_min,
            };
            if !(least..=PERIOD_MAX).contains(&pmin) {
                return Err(why);
            }
            if pmax > PERIOD_MAX || pmax != 0 && pmax < pmin {
                return Err("pmax");
            }
        }
        if prog.trial.is_some_and(|trial| !(1..=86_400).contains(&trial)) {
            return Err("trial");
        }
        let mut next = self.tx.clone();
        for sensor in self.members(members) {
            (next.st[sensor], next.gt[sensor], next.lt[sensor]) = (None, None, None);
        }
        for (list, given, why) in [
            (&mut next.st, &prog.st, "st"),
            (&mut next.gt, &prog.gt, "gt"),
            (&mut next.lt, &prog.lt, "lt"),
        ] {
            for (name, value) in given {
                let sensor = self.sensor(name).filter(|sensor| has(members, *sensor)).ok_or(why)?;
                list[sensor] = Some(self.threshold(sensor, *value, why == "st").ok_or(why)?);
            }
        }
        if members == self.all() {
            next.groups = vec![group];
        } else {
            for other in &mut next.groups {
                other.members &= !members;
            }
            let mut first = true;
            next.groups.retain(|other| std::mem::take(&mut first) || other.members != 0);
            if next.groups.len() == self.firmware.groups as usize {
                return Err("on");
            }
            next.groups.push(group);
        }
        match prog.trial {
            Some(trial) => {
                if self.trial.is_none() {
                    self.before = self.tx.clone();
                }
                self.trial = Some((now, trial * 1000));
            }
            None => self.trial = None,
        }
        self.adopt(next, now);
        Ok(())
    }
}

/// The firmware's own transmission.
fn own(firmware: &Firmware) -> Transmission {
    let transmission = &firmware.transmission;
    let members = ((1_u32 << firmware.sensors.len()) - 1) as u16;
    let group = Group {
        members,
        program: transmission.program,
        pmin: transmission.pmin,
        pmax: transmission.pmax,
    };
    Transmission {
        groups: vec![group],
        st: transmission.st.clone(),
        gt: transmission.gt.clone(),
        lt: transmission.lt.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest;

    /// Sensors that are set by hand, and all that was said.
    #[derive(Default)]
    struct Bench {
        values: Vec<Option<i32>>,
        rssi: Option<i16>,
        battery: Option<u8>,
        link: bool,
        lines: Vec<String>,
    }

    impl Environment for Bench {
        fn read(&mut self, sensor: usize) -> Option<i32> {
            self.values[sensor]
        }

        fn rssi(&mut self) -> Option<i16> {
            self.rssi
        }

        fn battery(&mut self) -> Option<u8> {
            self.battery
        }

        fn ready(&self) -> bool {
            self.link
        }

        fn send(&mut self, message: Uplink) {
            self.lines.push(message.encode());
        }
    }

    fn firmware() -> Arc<Firmware> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/firmware/session.yaml");
        let (sources, _) = manifest::disk::read(&[path.to_owned()]);
        let (parsed, mut planned) = manifest::plan_firmware(&sources, |_| true);
        assert!(!parsed.has_errors(), "{:?}", parsed.diagnostics);
        Arc::new(planned.remove(0))
    }

    fn replay(steps: &[serde_json::Value]) -> Vec<String> {
        let firmware = firmware();
        let values = vec![None; firmware.sensors.len()];
        let mut bench = Bench { values, link: true, ..Bench::default() };
        let mut node = Node::new(firmware, "00000000".to_owned(), 1, 0);
        let mut now = 0;
        for step in steps {
            let step = step.as_str().unwrap();
            let (word, rest) = step.split_once(' ').unwrap();
            match word {
                "set" => {
                    let (sensor, value) = rest.split_once(' ').unwrap();
                    bench.values[sensor.parse::<usize>().unwrap()] = value.parse().ok();
                }
                "run" => {
                    for _ in 0..rest.parse::<u32>().unwrap() {
                        node.poll(now, &mut bench);
                        now += 1;
                    }
                }
                "cmd" => node.command(rest, now, &mut bench),
                "desired" => {
                    let (version, body) = rest.split_once(' ').unwrap();
                    node.desired(version.parse().unwrap(), body, now, &mut bench);
                }
                "rssi" => bench.rssi = rest.parse().ok(),
                "battery" => bench.battery = rest.parse().ok(),
                "link" => {
                    bench.link = rest == "up";
                    if bench.link {
                        node.connected();
                    }
                }
                other => panic!("{other}"),
            }
        }
        bench.lines
    }

    #[test]
    fn sessions_give_the_lines_that_firmware_writes() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/firmware/vectors/sessions.json");
        let text = std::fs::read_to_string(path).unwrap();
        let sessions: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        assert!(sessions.len() >= 8);
        for session in sessions {
            let lines = replay(session["steps"].as_array().unwrap());
            let expected: Vec<&str> =
                session["lines"].as_array().unwrap().iter().map(|l| l.as_str().unwrap()).collect();
            assert_eq!(lines, expected, "{}", session["name"]);
            for line in lines {
                assert_eq!(Uplink::decode(&line).unwrap().encode(), line);
            }
        }
    }
}
