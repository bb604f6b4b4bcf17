//! What happens to calls that come faster than a service answers: which start, which wait, and
//! which are dropped. Pure.
//!
//! Not here: who makes the calls (`trigger`), what a manifest says of it (`edgeai::service`).

use std::collections::VecDeque;

use crate::edgeai::service::{Overload, OverloadPolicy};
use crate::twin::ThingId;

/// Calls of a service that are made at the same time.
pub(super) const CALLS_MAX: usize = 64;

/// One call that is due.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Job {
    /// The twin to judge.
    pub(super) id: ThingId,
    /// The service's inputs, in its order.
    pub(super) row: Vec<f32>,
    /// The revision that the inputs are of.
    pub(super) of_revision: u64,
    /// How many services lie between a reading and this call.
    pub(super) depth: u8,
}

/// What becomes of a call.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Admission {
    /// It is made now, and [`Line::next`] is asked when it is over.
    Starts(Job),
    /// It waits.
    Waits,
    /// A call is dropped, this one or one that waited: its twin keeps the older verdict, and is
    /// judged again at its next change.
    Drops,
}

/// The calls of a service.
#[derive(Debug, Default)]
pub(super) struct Line {
    jobs: VecDeque<Job>,
    running: usize,
    sampled: u64,
}

impl Line {
    /// Takes a call, in constant time but for `Latest`, which looks at those that wait.
    pub(super) fn admit(&mut self, overload: Overload, job: Job) -> Admission {
        if self.running < CALLS_MAX {
            self.running += 1;
            return Admission::Starts(job);
        }
        let limit = overload.limit as usize;
        match overload.policy {
            OverloadPolicy::Queue => {}
            OverloadPolicy::Latest => {
                if let Some(same) = self.jobs.iter_mut().find(|other| other.id == job.id) {
                    *same = job;
                    return Admission::Drops;
                }
            }
            OverloadPolicy::Sample => {
                // The fuller the line, the fewer are taken: one in nine when it is full.
                self.sampled = self.sampled.wrapping_add(1);
                let every = 1 + 8 * self.jobs.len() as u64 / limit.max(1) as u64;
                if !self.sampled.is_multiple_of(every) {
                    return Admission::Drops;
                }
            }
        }
        if self.jobs.len() >= limit {
            return Admission::Drops;
        }
        self.jobs.push_back(job);
        Admission::Waits
    }

    /// The call to make when one is over.
    pub(super) fn next(&mut self) -> Option<Job> {
        let next = self.jobs.pop_front();
        if next.is_none() {
            self.running -= 1;
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(twin: usize, of_revision: u64) -> Job {
        let id = ThingId::parse(&format!("t:n-{twin}")).unwrap();
        Job { id, row: Vec::new(), of_revision, depth: 1 }
    }

    /// A line with as many calls under way as may be.
    fn busy() -> Line {
        let mut line = Line::default();
        for n in 0..CALLS_MAX {
            let admission = line.admit(Overload::default(), job(n, 1));
            assert_eq!(admission, Admission::Starts(job(n, 1)));
        }
        line
    }

    fn waiting(line: &mut Line) -> Vec<(String, u64)> {
        std::iter::from_fn(|| line.next())
            .map(|job| (job.id.name().to_owned(), job.of_revision))
            .collect()
    }

    #[test]
    fn a_queue_keeps_the_order_and_drops_the_newest_beyond_its_limit() {
        let mut line = busy();
        let overload = Overload { policy: OverloadPolicy::Queue, limit: 3 };
        let admitted: Vec<_> = (1..=5).map(|n| line.admit(overload, job(7, n))).collect();
        assert_eq!(
            admitted,
            [
                Admission::Waits,
                Admission::Waits,
                Admission::Waits,
                Admission::Drops,
                Admission::Drops
            ]
        );
        let wanted: Vec<_> = (1..=3).map(|n| ("n-7".to_owned(), n)).collect();
        assert_eq!(waiting(&mut line), wanted);
        assert_eq!(line.admit(overload, job(7, 6)), Admission::Starts(job(7, 6)));
    }

    #[test]
    fn the_latest_of_each_twin_waits_in_the_twins_place() {
        let mut line = busy();
        let overload = Overload { policy: OverloadPolicy::Latest, limit: 2 };
        assert_eq!(line.admit(overload, job(1, 10)), Admission::Waits);
        assert_eq!(line.admit(overload, job(2, 20)), Admission::Waits);
        assert_eq!(line.admit(overload, job(1, 11)), Admission::Drops);
        assert_eq!(line.admit(overload, job(3, 30)), Admission::Drops);
        assert_eq!(line.admit(overload, job(2, 21)), Admission::Drops);
        assert_eq!(waiting(&mut line), [("n-1".to_owned(), 11), ("n-2".to_owned(), 21)]);
    }

    #[test]
    fn a_sample_takes_all_while_there_is_room_and_thins_evenly_as_it_fills() {
        let mut line = busy();
        let overload = Overload { policy: OverloadPolicy::Sample, limit: 80 };
        let mut taken = [0; 2];
        for n in 0..10_000 {
            if line.admit(overload, job(n % 2, n as u64)) == Admission::Waits {
                taken[n % 2] += 1;
            }
            // The service answers one in five.
            if n % 5 == 0 && !line.jobs.is_empty() {
                line.next();
            }
            assert!(line.jobs.len() <= 80);
        }
        assert!(line.jobs.len() > 10, "{}", line.jobs.len());
        let share = f64::from(taken[0]) / f64::from(taken[0] + taken[1]);
        assert!((0.3..0.7).contains(&share), "{taken:?}");
    }

    #[test]
    fn as_many_calls_end_as_began() {
        let mut line = busy();
        let overload = Overload { policy: OverloadPolicy::Queue, limit: 10 };
        (0..10).for_each(|n| assert_eq!(line.admit(overload, job(n, 2)), Admission::Waits));
        let ended = (0..CALLS_MAX + 10).filter(|_| line.next().is_some()).count();
        assert_eq!((ended, line.running), (10, 0));
    }
}
