//! Work by key: deduplicated, delayed, backed off, never twice at once for one key.
//!
//! A key that is added while it waits is one piece of work, at the earlier of the two times. One
//! that is added while it is worked on is worked on again afterwards. A key that fails comes back
//! after a delay that doubles from [`BACKOFF_MIN`] to [`BACKOFF_MAX`], with up to a fifth taken
//! off at random so that keys that failed together do not return together; it delays no other.
//!
//! Not here: what the work is.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::Rng;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Delay after the first failure.
pub const BACKOFF_MIN: Duration = Duration::from_millis(200);
/// Longest delay between two tries: what a person who repaired the cause is willing to wait.
pub const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// How a piece of work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done; the failures so far are forgotten.
    Done,
    /// Done for now; look again then.
    Again(Duration),
    /// Failed; try again after a growing delay.
    Failed,
}

/// See the module.
#[derive(Debug)]
pub struct Queue<K> {
    inner: Mutex<Inner<K>>,
    /// Something was added that may be due before what the waiter waits for.
    added: Notify,
}

#[derive(Debug)]
struct Inner<K> {
    waiting: HashMap<K, Instant>,
    by_time: BTreeSet<(Instant, K)>,
    working: HashSet<K>,
    failures: HashMap<K, u32>,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self {
            inner: Mutex::new(Inner {
                waiting: HashMap::new(),
                by_time: BTreeSet::new(),
                working: HashSet::new(),
                failures: HashMap::new(),
            }),
            added: Notify::new(),
        }
    }
}

impl<K: Clone + Eq + Hash + Ord> Inner<K> {
    fn put(&mut self, key: K, at: Instant) {
        match self.waiting.get(&key) {
            Some(&earlier) if earlier <= at => return,
            Some(&later) => {
                self.by_time.remove(&(later, key.clone()));
            }
            None => {}
        }
        self.waiting.insert(key.clone(), at);
        self.by_time.insert((at, key));
    }
}

impl<K: Clone + Eq + Hash + Ord> Queue<K> {
    /// Adds work that is due now. What failed before is tried at once: something changed.
    pub fn add(&self, key: K) {
        self.lock().put(key, Instant::now());
        self.added.notify_one();
    }

    /// Waits for the next key that is due and not being worked on. Whoever takes it calls
    /// [`Queue::done`].
    pub async fn next(&self) -> K {
        loop {
            let added = self.added.notified();
            let due = {
                let mut inner = self.lock();
                let now = Instant::now();
                let found = inner.by_time.iter().find(|(_, key)| !inner.working.contains(key));
                match found.cloned() {
                    Some((at, key)) if at <= now => {
                        inner.by_time.remove(&(at, key.clone()));
                        inner.waiting.remove(&key);
                        inner.working.insert(key.clone());
                        return key;
                    }
                    Some((at, _)) => Some(at),
                    None => None,
                }
            };
            match due {
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    () = added => {}
                },
                None => added.await,
            }
        }
    }

    /// Ends the work on a key that [`Queue::next`] gave.
    pub fn done(&self, key: K, outcome: Outcome) {
        let mut inner = self.lock();
        inner.working.remove(&key);
        match outcome {
            Outcome::Done => {
                inner.failures.remove(&key);
            }
            Outcome::Again(delay) => {
                inner.failures.remove(&key);
                inner.put(key, Instant::now() + delay);
            }
            Outcome::Failed => {
                let failures = inner.failures.entry(key.clone()).or_insert(0);
                let delay = backoff(*failures);
                *failures += 1;
                inner.put(key, Instant::now() + delay);
            }
        }
        drop(inner);
        self.added.notify_one();
    }

    /// Whether nothing is due now or worked on.
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        let inner = self.lock();
        let now = Instant::now();
        inner.working.is_empty() && inner.by_time.first().is_none_or(|(at, _)| *at > now)
    }

    fn lock(&self) -> MutexGuard<'_, Inner<K>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The delay after `failures` failures before this one.
fn backoff(failures: u32) -> Duration {
    let whole = BACKOFF_MIN.saturating_mul(1 << failures.min(16)).min(BACKOFF_MAX);
    whole.mul_f64(rand::thread_rng().gen_range(0.8..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::time::timeout;

    async fn nothing(queue: &Queue<&'static str>, within: Duration) {
        let got = timeout(within, queue.next()).await;
        assert!(got.is_err(), "{got:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_is_added_twice_is_worked_on_once() {
        let queue = Queue::default();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.done("a", Outcome::Done);
        nothing(&queue, Duration::from_secs(3600)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_never_worked_on_twice_at_once_and_not_forgotten() {
        let queue = Queue::default();
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        nothing(&queue, Duration::from_secs(60)).await;
        queue.done("a", Outcome::Done);
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_time_wins() {
        let queue = Queue::default();
        for delay in [10, 2, 5] {
            queue.lock().put("a", Instant::now() + Duration::from_secs(delay));
        }
        let start = Instant::now();
        assert_eq!(queue.next().await, "a");
        assert_eq!(start.elapsed(), Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_back_off_up_to_the_cap_and_delay_no_other() {
        let queue = Queue::default();
        queue.add("bad");
        let mut delays = Vec::new();
        for _ in 0..12 {
            let start = Instant::now();
            assert_eq!(queue.next().await, "bad");
            delays.push(start.elapsed());
            queue.done("bad", Outcome::Failed);
            queue.add("good");
            let start = Instant::now();
            assert_eq!(queue.next().await, "good");
            assert_eq!(start.elapsed(), Duration::ZERO);
            queue.done("good", Outcome::Done);
        }
        // sleep_until rounds up to whole milliseconds.
        let most = BACKOFF_MAX + Duration::from_millis(1);
        assert!(delays[1] >= BACKOFF_MIN.mul_f64(0.8) && delays[1] < BACKOFF_MIN * 2);
        assert!(delays.iter().all(|delay| *delay <= most), "{delays:?}");
        assert!(delays[11] >= BACKOFF_MAX.mul_f64(0.8), "{delays:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn success_forgets_failures_and_news_are_tried_at_once() {
        let queue = Queue::default();
        queue.add("a");
        for _ in 0..6 {
            queue.next().await;
            queue.done("a", Outcome::Failed);
        }
        queue.add("a");
        let start = Instant::now();
        queue.next().await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        queue.done("a", Outcome::Done);
        queue.add("a");
        queue.next().await;
        queue.done("a", Outcome::Failed);
        let start = Instant::now();
        queue.next().await;
        assert!(start.elapsed() <= BACKOFF_MIN + Duration::from_millis(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_is_woken_by_work_that_comes_later() {
        let queue = Arc::new(Queue::default());
        let waiter = tokio::spawn({
            let queue = queue.clone();
            async move { queue.next().await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        queue.add("late");
        assert_eq!(waiter.await.unwrap(), "late");
    }

    #[tokio::test(start_paused = true)]
    async fn again_looks_again_without_counting_as_failure() {
        let queue = Queue::default();
        queue.add("a");
        queue.next().await;
        queue.done("a", Outcome::Again(Duration::from_secs(5)));
        assert!(queue.is_idle());
        let start = Instant::now();
        assert_eq!(queue.next().await, "a");
        assert_eq!(start.elapsed(), Duration::from_secs(5));
    }
}
