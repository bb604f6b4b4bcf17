//! Folding: the first message of a kind is shown at once, repetitions are counted.
//!
//! Messages belong to a *group* (a reason, or a place in the code) and are about a *subject* (a
//! twin, a device). A subject's first message is shown, the first [`SUBJECTS_MAX`] of a window;
//! everything else is counted and becomes one [`Summary`] a window and group. So a failure that goes
//! on, of one node or of a hundred thousand, is one line a minute after its first lines.
//!
//! Pure: the time is an argument.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How long repetitions are counted before their number is shown.
pub const WINDOW: Duration = Duration::from_secs(60);
/// Subjects whose first message is shown in one window. Why: a page of a terminal; when more fail
/// at once, their common cause is in the first lines.
pub const SUBJECTS_MAX: usize = 20;
/// Subjects that a group remembers. Further ones are counted without being remembered.
const REMEMBERED_MAX: usize = 4096;

/// What was counted in a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary<G, M> {
    /// Which group.
    pub group: G,
    /// Messages that were not shown.
    pub more: u64,
    /// The last of them.
    pub last: M,
    /// How long they were counted.
    pub over: Duration,
}

/// See the module. `G` names a group, `M` is a message.
#[derive(Debug)]
pub struct Fold<G, M> {
    groups: HashMap<G, Group<M>>,
}

#[derive(Debug)]
struct Group<M> {
    since: Instant,
    /// Hashes of the subjects, and whether each had a message in this window.
    subjects: HashMap<u64, bool>,
    shown: usize,
    held: u64,
    last: Option<M>,
}

impl<G, M> Default for Fold<G, M> {
    fn default() -> Self {
        Self { groups: HashMap::new() }
    }
}

impl<G: Hash + Eq + Clone, M> Fold<G, M> {
    /// Takes a message; gives it back if it is to be shown now.
    ///
    /// * `subject`: a hash of what it is about.
    pub fn take(&mut self, group: &G, subject: u64, message: M, now: Instant) -> Option<M> {
        let group = match self.groups.get_mut(group) {
            Some(group) => group,
            None => self.groups.entry(group.clone()).or_insert_with(|| Group {
                since: now,
                subjects: HashMap::new(),
                shown: 0,
                held: 0,
                last: None,
            }),
        };
        let room = group.subjects.len() < REMEMBERED_MAX;
        let known = match group.subjects.get_mut(&subject) {
            Some(seen) => {
                *seen = true;
                true
            }
            None => {
                if room {
                    group.subjects.insert(subject, true);
                }
                false
            }
        };
        if !known && room && group.shown < SUBJECTS_MAX {
            group.shown += 1;
            return Some(message);
        }
        group.held += 1;
        group.last = Some(message);
        None
    }

    /// Ends the windows that are over and says what was counted in them.
    pub fn due(&mut self, now: Instant) -> Vec<Summary<G, M>> {
        self.end(now, WINDOW)
    }

    /// Ends all windows, as at the end of the process.
    pub fn finish(&mut self, now: Instant) -> Vec<Summary<G, M>> {
        self.end(now, Duration::ZERO)
    }

    fn end(&mut self, now: Instant, least: Duration) -> Vec<Summary<G, M>> {
        let mut summaries = Vec::new();
        self.groups.retain(|name, group| {
            let over = now.saturating_duration_since(group.since);
            if over < least {
                return true;
            }
            if let Some(last) = group.last.take() {
                let more = std::mem::take(&mut group.held);
                summaries.push(Summary { group: name.clone(), more, last, over });
            }
            // A subject is new again after a whole window without a message.
            group.subjects.retain(|_, seen| std::mem::replace(seen, false));
            (group.since, group.shown) = (now, 0);
            !group.subjects.is_empty()
        });
        summaries
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests begin at the time it is")]
mod tests {
    use super::*;

    /// Messages of one group, and what was shown of them.
    struct World {
        fold: Fold<&'static str, u64>,
        start: Instant,
    }

    impl World {
        fn new() -> Self {
            Self { fold: Fold::default(), start: Instant::now() }
        }

        fn at(&self, s: u64) -> Instant {
            self.start + Duration::from_secs(s)
        }

        fn take(&mut self, s: u64, group: &'static str, subject: u64) -> bool {
            let now = self.at(s);
            self.fold.take(&group, subject, s, now).is_some()
        }

        /// Counts of the summaries.
        fn due(&mut self, s: u64) -> Vec<u64> {
            let now = self.at(s);
            self.fold.due(now).iter().map(|summary| summary.more).collect()
        }
    }

    #[test]
    fn the_first_is_shown_at_once_and_the_rest_is_counted() {
        let mut world = World::new();
        assert!(world.take(0, "refused", 1));
        assert!((1..=40).all(|s| !world.take(s, "refused", 1)));
        assert!(world.due(59).is_empty());
        let now = world.at(60);
        let summaries = world.fold.due(now);
        let counted = Summary { group: "refused", more: 40, last: 40, over: WINDOW };
        assert_eq!(summaries, [counted]);
    }

    #[test]
    fn what_goes_on_is_one_summary_a_window() {
        let mut world = World::new();
        let mut lines = 0;
        for s in 0..3600 {
            lines += usize::from(world.take(s, "refused", 1));
            lines += world.due(s).len();
        }
        assert!((59..=61).contains(&lines), "{lines}");
    }

    #[test]
    fn what_was_quiet_for_a_window_is_new() {
        let mut world = World::new();
        assert!(world.take(0, "lost", 1));
        assert!(world.due(60).is_empty());
        assert!(!world.take(61, "lost", 1), "it was there a moment ago");
        assert_eq!(world.due(120), [1]);
        assert!(world.due(180).is_empty());
        assert!(world.take(181, "lost", 1));
    }

    #[test]
    fn each_subject_is_shown_once_and_a_crowd_is_counted() {
        let mut world = World::new();
        let shown = (0..100_000).filter(|subject| world.take(1, "lost", *subject)).count();
        assert_eq!(shown, SUBJECTS_MAX);
        assert!(world.take(1, "other", 1), "groups do not share their room");
        assert_eq!(world.due(61), [100_000 - SUBJECTS_MAX as u64]);
        let remembered: usize = world.fold.groups.values().map(|one| one.subjects.len()).sum();
        assert!(remembered <= REMEMBERED_MAX + 1, "{remembered}");
    }

    #[test]
    fn a_new_subject_is_shown_beside_one_that_goes_on() {
        let mut world = World::new();
        assert!(world.take(0, "refused", 1));
        assert!(!world.take(30, "refused", 1));
        assert!(world.take(31, "refused", 2));
    }

    #[test]
    fn nothing_is_kept_of_what_is_over() {
        let mut world = World::new();
        world.take(0, "refused", 1);
        world.due(60);
        world.due(120);
        assert!(world.fold.groups.is_empty());
        world.take(121, "refused", 1);
        world.take(122, "refused", 1);
        let now = world.at(123);
        assert_eq!(world.fold.finish(now).len(), 1, "the end does not wait for the window");
    }
}
