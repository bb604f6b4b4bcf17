//! Which readings of a node are in: duplicates are told from news across restarts of either side.
//!
//! A node numbers its readings. QoS 1 delivers at least once, so a reading that was taken and
//! whose acknowledgement was lost comes again; its number tells. Numbers that were skipped are
//! remembered as gaps, so that a resend from the node's buffer is taken once, as history.
//!
//! A node that says its boot number too starts a new count with each boot. One that does not, and
//! counts from 0 or 1 again, is believed to have restarted when the count so far is too far ahead
//! for a redelivery ([`REDELIVERY_MAX`]).
//!
//! Readings of a boot before the newest count as repeats. If the counter itself went back, as after a
//! node's memory was erased or its board was replaced, the node has to say at which boot it is
//! ([`Sequence::begin`]). From then on, of all boot numbers that were given before, only the one that
//! the node said last counts, so what is queued of its former life is not taken again. (It could be
//! only when the node is at that very boot number once more.)

use serde::{Deserialize, Serialize};

/// Gaps remembered; beyond it the oldest is forgotten, and a resend of it counts as duplicate.
pub const GAPS_MAX: usize = 16;
/// A message is redelivered while it is in flight; clients have at most this many in flight that
/// could come again behind newer ones.
pub const REDELIVERY_MAX: u64 = 1024;

/// The number of a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, Option<u64>)", into = "(u64, Option<u64>)")]
pub struct Stamp {
    /// Counts up by one a reading.
    pub seq: u64,
    /// Counts the node's boots, if it does.
    pub boot: Option<u64>,
}

impl From<(u64, Option<u64>)> for Stamp {
    fn from((seq, boot): (u64, Option<u64>)) -> Self {
        Self { seq, boot }
    }
}

impl From<Stamp> for (u64, Option<u64>) {
    fn from(stamp: Stamp) -> Self {
        (stamp.seq, stamp.boot)
    }
}

/// What a number says about its reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Newer than all before it.
    Next,
    /// Not taken yet, and a newer one was.
    Late,
    /// Taken already.
    Duplicate,
}

/// The numbers taken so far, in bounded memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequence {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<Stamp>,
    /// Skipped numbers, `first..=last`, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    gaps: Vec<(u64, u64)>,
    /// Boots were numbered anew: the one that the node said last, and the greatest given before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    anew: Option<(u64, u64)>,
}

impl Sequence {
    /// Judges a number.
    pub fn judge(&self, stamp: Stamp) -> Verdict {
        let Some(last) = self.last else { return Verdict::Next };
        if stamp.boot != last.boot {
            // A will or a straggler of an earlier boot is history; without numbers nobody knows.
            return match (stamp.boot, last.boot, self.anew) {
                (Some(boot), _, Some((said, most))) if boot <= most => {
                    if boot == said {
                        Verdict::Next
                    } else {
                        Verdict::Duplicate
                    }
                }
                (Some(boot), Some(newest), None) if boot < newest => Verdict::Duplicate,
                _ => Verdict::Next,
            };
        }
        if stamp.seq > last.seq || self.restarted(stamp) {
            return Verdict::Next;
        }
        if self.gaps.iter().any(|&(first, end)| (first..=end).contains(&stamp.seq)) {
            Verdict::Late
        } else {
            Verdict::Duplicate
        }
    }

    /// Takes a number that was not judged a duplicate.
    pub fn note(&mut self, stamp: Stamp) {
        match self.judge(stamp) {
            Verdict::Duplicate => {}
            Verdict::Late => {
                let at = self.gaps.iter().position(|&(a, b)| (a..=b).contains(&stamp.seq));
                if let Some(at) = at {
                    let (first, end) = self.gaps.remove(at);
                    let parts = [
                        (stamp.seq > first).then(|| (first, stamp.seq - 1)),
                        (stamp.seq < end).then(|| (stamp.seq + 1, end)),
                    ];
                    self.gaps.splice(at..at, parts.into_iter().flatten());
                    self.forget();
                }
            }
            Verdict::Next => {
                match self.last {
                    Some(last) if last.boot == stamp.boot && stamp.seq > last.seq => {
                        if stamp.seq > last.seq + 1 {
                            self.gaps.push((last.seq + 1, stamp.seq - 1));
                            self.forget();
                        }
                    }
                    _ => self.gaps.clear(),
                }
                // Beyond all that were given, numbers tell again by themselves.
                self.anew = self.anew.filter(|(_, most)| stamp.boot.is_none_or(|b| b <= *most));
                self.last = Some(stamp);
            }
        }
    }

    /// Whether a node that says that it is at this boot now has numbered its boots anew, and that is
    /// news.
    pub fn is_anew(&self, boot: u64) -> bool {
        let newest = self.last.and_then(|last| last.boot);
        let (said, most) = self.anew.or(newest.map(|newest| (newest, newest))).unwrap_or_default();
        boot <= most && boot != said
    }

    /// The node is at this boot, whatever was heard before.
    pub fn begin(&mut self, boot: u64) {
        if self.is_anew(boot) {
            let newest = self.last.and_then(|last| last.boot).unwrap_or_default();
            let most = self.anew.map_or(newest, |(_, most)| most);
            self.anew = Some((boot, most));
        }
    }

    /// The newest number taken.
    pub fn last(&self) -> Option<Stamp> {
        self.last
    }

    /// Numbers that are missing so far.
    pub fn missing(&self) -> u64 {
        self.gaps.iter().map(|(first, end)| end - first + 1).sum()
    }

    fn restarted(&self, stamp: Stamp) -> bool {
        stamp.boot.is_none()
            && stamp.seq <= 1
            && self.last.is_some_and(|last| last.seq > stamp.seq + REDELIVERY_MAX)
    }

    fn forget(&mut self) {
        if self.gaps.len() > GAPS_MAX {
            self.gaps.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seq: u64) -> Stamp {
        Stamp { seq, boot: None }
    }

    fn taken(numbers: &[u64]) -> Sequence {
        let mut sequence = Sequence::default();
        numbers.iter().for_each(|&n| sequence.note(at(n)));
        sequence
    }

    #[test]
    fn a_gap_is_filled_once() {
        let mut sequence = taken(&[1, 2, 6]);
        assert_eq!(sequence.missing(), 3);
        assert_eq!(sequence.judge(at(4)), Verdict::Late);
        sequence.note(at(4));
        assert_eq!(sequence.judge(at(4)), Verdict::Duplicate);
        assert_eq!((sequence.judge(at(3)), sequence.judge(at(5))), (Verdict::Late, Verdict::Late));
        assert_eq!(sequence.judge(at(2)), Verdict::Duplicate);
        assert_eq!(sequence.judge(at(7)), Verdict::Next);
    }

    #[test]
    fn a_restart_counts_anew_and_a_redelivery_does_not() {
        let sequence = taken(&[5000]);
        assert_eq!(sequence.judge(at(0)), Verdict::Next);
        assert_eq!(sequence.judge(at(4000)), Verdict::Duplicate);
        assert_eq!(taken(&[0, 1, 2, 3]).judge(at(0)), Verdict::Duplicate);
        let mut booted = Sequence::default();
        booted.note(Stamp { seq: 9, boot: Some(3) });
        assert_eq!(booted.judge(Stamp { seq: 0, boot: Some(4) }), Verdict::Next);
        assert_eq!(booted.judge(Stamp { seq: 10, boot: Some(2) }), Verdict::Duplicate);
    }

    fn of(boot: u64, seq: u64) -> Stamp {
        Stamp { seq, boot: Some(boot) }
    }

    #[test]
    fn a_counter_that_went_back_is_believed_once_the_node_says_so() {
        let mut sequence = Sequence::default();
        assert!(!sequence.is_anew(0));
        (0..5).for_each(|seq| sequence.note(of(7, seq)));
        assert_eq!(sequence.judge(of(1, 0)), Verdict::Duplicate);
        assert_eq!((sequence.is_anew(7), sequence.is_anew(8)), (false, false));
        assert!(sequence.is_anew(1));
        sequence.begin(1);
        assert!(!sequence.is_anew(1), "it is said once");
        // What was not taken of the former life still may be; what was is not.
        assert_eq!(
            (sequence.judge(of(7, 4)), sequence.judge(of(7, 5))),
            (Verdict::Duplicate, Verdict::Next)
        );
        assert_eq!(sequence.judge(of(1, 0)), Verdict::Next);
        sequence.note(of(1, 0));
        assert_eq!(
            (sequence.judge(of(1, 0)), sequence.judge(of(1, 1))),
            (Verdict::Duplicate, Verdict::Next)
        );
        for former in [(7, 0), (7, 9), (3, 0)] {
            assert_eq!(sequence.judge(of(former.0, former.1)), Verdict::Duplicate, "{former:?}");
        }
        // A later boot that was had before has to be said, one beyond them not.
        assert_eq!(sequence.judge(of(2, 0)), Verdict::Duplicate);
        sequence.begin(2);
        sequence.note(of(2, 0));
        assert_eq!(sequence.judge(of(1, 1)), Verdict::Duplicate);
        sequence.note(of(8, 0));
        assert_eq!((sequence.last(), sequence.anew), (Some(of(8, 0)), None));
        assert_eq!(sequence.judge(of(2, 1)), Verdict::Duplicate);
    }

    proptest! {
        /// Each life of a node counts boots from somewhere, says each, and sends readings; whatever was
        /// sent before comes again at any time.
        #[test]
        fn over_lives_each_reading_is_taken_once(
            lives in proptest::collection::vec(
                (0_u64..9, proptest::collection::vec(0_u64..6, 1..4)), 1..5),
            again in proptest::collection::vec(any::<proptest::sample::Index>(), 0..60),
        ) {
            let (mut sequence, mut sent) = (Sequence::default(), Vec::new());
            let mut again = again.into_iter();
            for (first, boots) in lives {
                for (boot, readings) in (first..).zip(boots) {
                    sequence.begin(boot);
                    for seq in 0..readings {
                        let fresh = !sent.contains(&(boot, seq));
                        let judged = sequence.judge(of(boot, seq));
                        // A life that begins at the boot where the last one ended is taken for it.
                        if fresh {
                            prop_assert_ne!(judged, Verdict::Duplicate);
                        }
                        sequence.note(of(boot, seq));
                        sent.push((boot, seq));
                        if let Some(index) = again.next() {
                            let (old, seq) = *index.get(&sent);
                            if old != boot {
                                prop_assert_eq!(sequence.judge(of(old, seq)), Verdict::Duplicate);
                            }
                        }
                        // A snapshot in between changes nothing.
                        let text = serde_json::to_string(&sequence).unwrap();
                        prop_assert_eq!(&serde_json::from_str::<Sequence>(&text).unwrap(), &sequence);
                    }
                }
            }
        }

        /// In-order delivery with any redeliveries takes each number once.
        #[test]
        fn no_number_is_taken_twice(start in 0_u64..50, resends in proptest::collection::vec(0_u64..100, 0..60)) {
            let mut sequence = Sequence::default();
            let mut next = start;
            for resend in resends {
                sequence.note(at(next));
                next += 1;
                let again = start + resend % (next - start);
                prop_assert_eq!(sequence.judge(at(again)), Verdict::Duplicate);
            }
            prop_assert_eq!(sequence.missing(), 0);
        }

        #[test]
        fn memory_is_bounded(numbers in proptest::collection::vec(any::<u32>(), 0..200)) {
            let mut sequence = Sequence::default();
            for number in numbers {
                sequence.note(at(u64::from(number)));
                prop_assert!(sequence.gaps.len() <= GAPS_MAX);
            }
        }
    }
}
