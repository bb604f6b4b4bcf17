//! Which instance to call next, and which to leave alone for a while.
//!
//! Two instances are drawn at random and the better one is taken ("power of two choices": nearly
//! as good as looking at all of them, at a fixed cost and without herding). Better is, by default,
//! the smaller product of recent latency and calls in flight, where the latency jumps up at once
//! and falls slowly ("peak EWMA"). An instance that answered fewer than [`SAMPLES_FAIR`] calls is compared
//! by its calls in flight alone, and its latency is the least one until then: a first call that had
//! to connect must not decide where all others go. The list of instances is an immutable snapshot that is swapped
//! when the registry changes; their state is in atomics. A pick takes no lock and allocates
//! nothing.
//!
//! An instance that refuses connections is ejected at once, one that fails
//! [`FAILURES_MAX`] times in a row likewise: for 1 s, doubled each time up to 60 s, give or take
//! half. Then one real call probes it. If nothing else is left, ejected instances are called all
//! the same: the ejection may be what is wrong.
//!
//! Sources: Mitzenmacher, IEEE TPDS 12(10), 2001 (two choices); Finagle and Linkerd (peak EWMA,
//! retry budget); Envoy (outlier ejection, panic).
//!
//! Not here: who is registered (`table`), the calls themselves and their deadlines (`trigger`),
//! slow start and zones (later).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;

use super::instance::Instance;
use crate::edgeai::service::Balancing;

/// Failures in a row that eject an instance; a refused connection counts as that many.
pub const FAILURES_MAX: u32 = 3;

/// First and longest ejection, in nanoseconds.
const EJECTED_NS: (u64, u64) = (1_000_000_000, 60_000_000_000);

/// Time constant by which a measured latency fades, in nanoseconds.
const DECAY_NS: f64 = 10e9;

/// Latency that a failed call counts as at least, in nanoseconds. Why: an instance that fails at
/// once must not look like the fastest one.
const LATENCY_FAILED_NS: f64 = 1e9;

/// Answers from which on an instance's latency counts. Why: the first ones open connections and fill
/// caches, and two instances that are as fast as each other would share calls 97 to 3 by that luck
/// until it fades.
pub const SAMPLES_FAIR: u32 = 16;

/// Most instances that one call is sent to. Why: a refused connection costs microseconds, so a
/// call outlives two or three dead instances that nobody has noticed yet; more than that is no
/// longer an accident.
pub const ATTEMPTS_MAX: usize = 4;

/// Random draws before all instances are looked at in turn.
const DRAWS_MAX: usize = 8;

/// How a call failed, as far as the instance's health is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// No connection: nothing was sent.
    Connect,
    /// No answer, none in time, or one that says that the instance failed.
    Failed,
}

/// What is known of one instance; outlives snapshots.
struct Member {
    instance: Arc<Instance>,
    active: AtomicU32,
    /// Latency in nanoseconds as `f64` bits; 0 while unknown.
    latency: AtomicU64,
    /// When it was measured.
    measured_ns: AtomicU64,
    /// Answers that it is taken from, up to [`SAMPLES_FAIR`].
    samples: AtomicU32,
    failures: AtomicU32,
    /// When the ejection ends; 0 if it is not ejected.
    ejected_until_ns: AtomicU64,
    /// How often in a row it was ejected.
    ejections: AtomicU32,
    /// Whether a probe is under way.
    probing: AtomicBool,
}

/// Whether an instance may be picked.
#[derive(PartialEq)]
enum Standing {
    Good,
    /// Its ejection is over: one call may find out.
    Due,
    Ejected,
}

impl Member {
    fn new(instance: Arc<Instance>) -> Self {
        Self {
            instance,
            active: AtomicU32::new(0),
            latency: AtomicU64::new(0),
            measured_ns: AtomicU64::new(0),
            samples: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            ejected_until_ns: AtomicU64::new(0),
            ejections: AtomicU32::new(0),
            probing: AtomicBool::new(false),
        }
    }

    fn standing(&self, now_ns: u64) -> Standing {
        match self.ejected_until_ns.load(Relaxed) {
            0 => Standing::Good,
            until if until <= now_ns && !self.probing.load(Relaxed) => Standing::Due,
            _ => Standing::Ejected,
        }
    }

    /// Whether too little is known of its latency to compare by it.
    fn is_new(&self) -> bool {
        self.samples.load(Relaxed) < SAMPLES_FAIR
    }

    /// Whether it is the better one of two.
    fn beats(&self, other: &Self, strategy: Balancing, now_ns: u64) -> bool {
        if strategy == Balancing::LeastRequest || self.is_new() || other.is_new() {
            return self.active.load(Relaxed) < other.active.load(Relaxed);
        }
        self.load(now_ns) < other.load(now_ns)
    }

    /// Expected latency of a further call, in nanoseconds.
    fn load(&self, now_ns: u64) -> f64 {
        let active = f64::from(self.active.load(Relaxed));
        let latency = f64::from_bits(self.latency.load(Relaxed));
        let idle_ns = now_ns.saturating_sub(self.measured_ns.load(Relaxed)) as f64;
        // A latency fades while it is not measured, so that a once slow instance is tried again.
        let faded = if idle_ns < DECAY_NS / 1000.0 {
            latency
        } else {
            latency * (-idle_ns / DECAY_NS).exp()
        };
        faded * (active + 1.0)
    }

    fn measured(&self, sample_ns: f64, began_new: bool, now_ns: u64) {
        let before = f64::from_bits(self.latency.load(Relaxed));
        let since_ns = now_ns.saturating_sub(self.measured_ns.load(Relaxed)) as f64;
        let samples = self.samples.load(Relaxed);
        let next = if began_new || samples < SAMPLES_FAIR {
            self.samples.store((samples + 1).min(SAMPLES_FAIR), Relaxed);
            if samples == 0 { sample_ns } else { before.min(sample_ns) }
        } else if sample_ns >= before {
            sample_ns
        } else {
            let kept = (-since_ns / DECAY_NS).exp();
            before * kept + sample_ns * (1.0 - kept)
        };
        // Two threads may overwrite each other's sample: one of both is lost, which is harmless.
        self.latency.store(next.max(1.0).to_bits(), Relaxed);
        self.measured_ns.store(now_ns, Relaxed);
    }

    fn forgive(&self) {
        self.failures.store(0, Relaxed);
        self.ejections.store(0, Relaxed);
        self.ejected_until_ns.store(0, Relaxed);
    }
}

/// Spreads the calls to one service over its instances. Share it; all methods take `&self`.
pub struct Balancer {
    strategy: AtomicU8,
    /// Sorted by id.
    members: ArcSwap<Vec<Arc<Member>>>,
    /// A counter that is hashed into random numbers.
    random: AtomicU64,
    turn: AtomicU32,
    budget: Budget,
}

impl fmt::Debug for Balancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members = self.members.load();
        let ids: Vec<&str> = members.iter().map(|m| m.instance.id.as_str()).collect();
        f.debug_struct("Balancer").field("members", &ids).finish_non_exhaustive()
    }
}

impl Balancer {
    /// A balancer without instances.
    #[must_use]
    pub fn new(strategy: Balancing, seed: u64) -> Self {
        let balancer = Self {
            strategy: AtomicU8::new(0),
            members: ArcSwap::default(),
            random: AtomicU64::new(seed),
            turn: AtomicU32::new(0),
            budget: Budget::default(),
        };
        balancer.set_strategy(strategy);
        balancer
    }

    /// Changes how instances are compared.
    pub fn set_strategy(&self, strategy: Balancing) {
        self.strategy.store(strategy as u8, Relaxed);
    }

    fn strategy(&self) -> Balancing {
        let code = self.strategy.load(Relaxed);
        [Balancing::LeastRequest, Balancing::RoundRobin, Balancing::Random]
            .into_iter()
            .find(|s| *s as u8 == code)
            .unwrap_or_default()
    }

    /// Number of instances that may be called, ejected ones included.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.members.load().len()
    }

    /// Whether there is nothing to call.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.load().is_empty()
    }

    /// The instances that may be called, sorted by id, and whether each is ejected.
    #[must_use]
    pub fn instances(&self, now_ns: u64) -> Vec<(Arc<Instance>, bool)> {
        let members = self.members.load();
        let ejected = |m: &Member| m.standing(now_ns) != Standing::Good;
        members.iter().map(|m| (Arc::clone(&m.instance), ejected(m))).collect()
    }

    /// Takes an instance in, replaces what was known of it, or leaves it out if it cannot be called.
    /// What was measured stays as long as its address does.
    pub fn set(&self, instance: &Arc<Instance>) {
        self.members.rcu(|members| {
            let mut next = Vec::clone(members);
            let at = next.binary_search_by(|m| m.instance.id.as_str().cmp(&instance.id));
            match (at, instance.callable()) {
                (Ok(at), true) if next[at].instance.endpoint == instance.endpoint => {
                    // The state is shared with calls in flight; only the description is replaced
                    // where it matters to them.
                    if next[at].instance.metadata != instance.metadata {
                        next[at] = Arc::new(Member::new(Arc::clone(instance)));
                    }
                }
                (Ok(at), true) => next[at] = Arc::new(Member::new(Arc::clone(instance))),
                (Ok(at), false) => drop(next.remove(at)),
                (Err(at), true) => next.insert(at, Arc::new(Member::new(Arc::clone(instance)))),
                (Err(_), false) => {}
            }
            next
        });
    }

    /// Leaves an instance out.
    pub fn remove(&self, id: &str) {
        self.members.rcu(|members| {
            let mut next = Vec::clone(members);
            next.retain(|m| m.instance.id != id);
            next
        });
    }

    /// Ends the ejection of an instance that has registered again.
    pub fn forgive(&self, id: &str) {
        let members = self.members.load();
        if let Ok(at) = members.binary_search_by(|m| m.instance.id.as_str().cmp(id)) {
            members[at].forgive();
        }
    }

    /// Begins a call; see [`Call`].
    #[must_use]
    pub fn call(&self) -> Call<'_> {
        self.budget.deposit();
        Call { balancer: self, tried: Default::default(), attempts: 0, failed: None }
    }

    /// Picks an instance that is not among `tried`; none if there is no other.
    fn pick(&self, now_ns: u64, tried: &[Option<Arc<Member>>]) -> Option<Pick> {
        let members = self.members.load();
        let n = members.len();
        if n == 0 {
            return None;
        }
        let fresh = |m: &Arc<Member>| !tried.iter().flatten().any(|t| Arc::ptr_eq(t, m));
        let strategy = self.strategy();
        let start = match strategy {
            Balancing::RoundRobin => self.turn.fetch_add(1, Relaxed) as usize % n,
            _ => self.below(n),
        };
        let wanted = match strategy {
            Balancing::PeakEwma | Balancing::LeastRequest => 2,
            Balancing::RoundRobin | Balancing::Random => 1,
        };
        // Draws: the first is `start`. In turn the next follows, else it is drawn.
        let mut best: Option<usize> = None;
        let (mut at, mut found) = (start, 0);
        for draw in 0..DRAWS_MAX.max(2) {
            if draw > 0 {
                at = match strategy {
                    Balancing::RoundRobin => (at + 1) % n,
                    // Another than the last one: with two instances both are looked at.
                    _ => (at + 1 + self.below((n - 1).max(1))) % n,
                };
            }
            let member = &members[at];
            if fresh(member) && best != Some(at) {
                match member.standing(now_ns) {
                    Standing::Due if !member.probing.swap(true, Relaxed) => {
                        return Some(Pick::new(member, true, now_ns));
                    }
                    Standing::Good => {
                        if best.is_none_or(|b| member.beats(&members[b], strategy, now_ns)) {
                            best = Some(at);
                        }
                        found += 1;
                    }
                    Standing::Due | Standing::Ejected => {}
                }
            }
            if found == wanted || (n <= 2 && draw + 1 == n) {
                break;
            }
        }
        if let Some(at) = best {
            return Some(Pick::new(&members[at], false, now_ns));
        }
        // Most are ejected: look at all, and if all are, take the one whose ejection ends first.
        let mut last_resort: Option<&Arc<Member>> = None;
        for offset in 0..n {
            let member = &members[(start + offset) % n];
            if !fresh(member) {
                continue;
            }
            if member.standing(now_ns) == Standing::Good {
                return Some(Pick::new(member, false, now_ns));
            }
            let until = |m: &Member| m.ejected_until_ns.load(Relaxed);
            if last_resort.is_none_or(|l| until(member) < until(l)) {
                last_resort = Some(member);
            }
        }
        let member = last_resort?;
        let probe = !member.probing.swap(true, Relaxed);
        Some(Pick::new(member, probe, now_ns))
    }

    /// A random number below `n`, at least 0 (splitmix64 over a shared counter).
    fn below(&self, n: usize) -> usize {
        let x = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let x = x ^ (x >> 31);
        // Multiplying maps the upper half onto 0..n without a division.
        (((x >> 32) * n as u64) >> 32) as usize
    }

    /// Ejects an instance, unless it is already.
    fn eject(&self, member: &Member, kind: FailureKind, probe: bool, now_ns: u64) {
        if member.standing(now_ns) == Standing::Ejected && !probe {
            return;
        }
        if kind == FailureKind::Failed {
            // Slow or failing answers may be the caller's or the network's doing: such ejections
            // leave at least half of the instances. Nobody listening is a fact.
            let members = self.members.load();
            let others = members.iter().filter(|m| !std::ptr::eq(&***m, member));
            let good = others.filter(|m| m.standing(now_ns) == Standing::Good).count();
            if good * 2 < members.len() {
                return;
            }
        }
        let doublings = member.ejections.fetch_add(1, Relaxed).min(6);
        let length_ns = (EJECTED_NS.0 << doublings).min(EJECTED_NS.1);
        let jitter = 0.5 + self.below(1 << 16) as f64 / f64::from(1 << 16);
        let until_ns = now_ns + (length_ns as f64 * jitter) as u64;
        member.ejected_until_ns.store(until_ns.max(1), Relaxed);
    }
}

/// One call to a service: up to [`ATTEMPTS_MAX`] instances, each a different one.
///
/// After a refused connection the next instance is always tried: nothing was sent. After another
/// failure one more is, if the service's retry budget allows: a fifth of its calls and ten a
/// second, so that retries do not bury a service that is failing as a whole.
#[derive(Debug)]
pub struct Call<'b> {
    balancer: &'b Balancer,
    tried: [Option<Arc<Member>>; ATTEMPTS_MAX],
    attempts: usize,
    failed: Option<FailureKind>,
}

impl Call<'_> {
    /// The next instance to send the call to; none if there is no other, or no more may be tried.
    ///
    /// * `now_ns`: nanoseconds since any fixed moment, never running backwards; the same clock in
    ///   all calls to a service.
    pub fn next(&mut self, now_ns: u64) -> Option<Pick> {
        let may = match self.failed {
            None => self.attempts == 0,
            Some(FailureKind::Connect) => self.attempts < ATTEMPTS_MAX,
            Some(FailureKind::Failed) => self.attempts < 2 && self.balancer.budget.withdraw(now_ns),
        };
        if !may {
            return None;
        }
        let pick = self.balancer.pick(now_ns, &self.tried[..self.attempts])?;
        self.tried[self.attempts] = Some(Arc::clone(&pick.member));
        self.attempts += 1;
        Some(pick)
    }

    /// The instance answered. An answer that refuses the request is one, too.
    pub fn succeeded(&mut self, pick: Pick, now_ns: u64) {
        self.failed = None;
        pick.succeeded(now_ns);
    }

    /// The instance did not answer, or answered with a failure.
    pub fn failed(&mut self, pick: Pick, kind: FailureKind, now_ns: u64) {
        self.failed = Some(kind);
        let member = Arc::clone(&pick.member);
        let probe = pick.probe;
        // A failure is known at once.
        member.samples.store(SAMPLES_FAIR, Relaxed);
        let took_ns = now_ns.saturating_sub(pick.start_ns) as f64;
        member.measured(LATENCY_FAILED_NS.max(took_ns), false, now_ns);
        let failures = match kind {
            FailureKind::Connect => FAILURES_MAX,
            FailureKind::Failed => 1,
        };
        let before = member.failures.fetch_add(failures, Relaxed);
        if probe || before.saturating_add(failures) >= FAILURES_MAX {
            member.failures.store(0, Relaxed);
            self.balancer.eject(&member, kind, probe, now_ns);
        }
        // Only now: until here nobody else could begin a probe.
        drop(pick);
    }

    /// Instances that it was sent to so far.
    #[must_use]
    pub fn attempts(&self) -> usize {
        self.attempts
    }
}

/// An instance that was picked; counts as a call in flight until it is dropped or finished.
pub struct Pick {
    member: Arc<Member>,
    probe: bool,
    /// Whether little was known of the instance when the call began.
    began_new: bool,
    start_ns: u64,
}

impl fmt::Debug for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pick").field("id", &self.member.instance.id).finish_non_exhaustive()
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("id", &self.instance.id).finish_non_exhaustive()
    }
}

impl Pick {
    fn new(member: &Arc<Member>, probe: bool, now_ns: u64) -> Self {
        member.active.fetch_add(1, Relaxed);
        let began_new = member.is_new();
        Self { member: Arc::clone(member), probe, began_new, start_ns: now_ns }
    }

    /// The instance to call.
    #[must_use]
    pub fn instance(&self) -> &Instance {
        &self.member.instance
    }

    fn succeeded(self, now_ns: u64) {
        let sample_ns = now_ns.saturating_sub(self.start_ns) as f64;
        self.member.failures.store(0, Relaxed);
        if self.member.ejected_until_ns.load(Relaxed) != 0 {
            // Back from an ejection: the latency of its failures says nothing any more.
            self.member.latency.store(0, Relaxed);
            self.member.samples.store(0, Relaxed);
            self.member.forgive();
        }
        self.member.measured(sample_ns, self.began_new, now_ns);
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        self.member.active.fetch_sub(1, Relaxed);
        if self.probe {
            self.member.probing.store(false, Relaxed);
        }
    }
}

/// Retries that a service may cost: a fifth of its calls, and ten a second.
///
/// Source: Finagle's `RetryBudget` (20 %, 10 a second, tokens live 10 s).
#[derive(Debug)]
struct Budget {
    /// Thousandths of a retry.
    balance: AtomicI64,
    refilled_ns: AtomicU64,
}

/// A retry, in the budget's unit.
const RETRY: i64 = 1000;

/// Most retries saved up: what ten seconds at rest earn.
const SAVED_MAX: i64 = 100 * RETRY;

impl Default for Budget {
    fn default() -> Self {
        Self { balance: AtomicI64::new(10 * RETRY), refilled_ns: AtomicU64::new(0) }
    }
}

impl Budget {
    fn deposit(&self) {
        if self.balance.load(Relaxed) < SAVED_MAX {
            self.balance.fetch_add(RETRY / 5, Relaxed);
        }
    }

    fn withdraw(&self, now_ns: u64) -> bool {
        let before_ns = self.refilled_ns.load(Relaxed);
        // Ten a second: a thousandth every 100 us.
        let earned = now_ns.saturating_sub(before_ns) / 100_000;
        // The first time only starts the clock.
        if earned > 0
            && self.refilled_ns.compare_exchange(before_ns, now_ns, Relaxed, Relaxed).is_ok()
            && before_ns > 0
        {
            let room = (SAVED_MAX - self.balance.load(Relaxed)).max(0);
            self.balance.fetch_add(room.min(i64::try_from(earned).unwrap_or(room)), Relaxed);
        }
        let spent =
            self.balance.fetch_update(Relaxed, Relaxed, |b| (b >= RETRY).then_some(b - RETRY));
        spent.is_ok()
    }
}
