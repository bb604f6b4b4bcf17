//! Which readings of a node were taken: duplicates are recognised across restarts of either side.
//!
//! A node numbers its readings. QoS 1 delivers at least once, so a reading that was taken and
//! whose acknowledgement was lost arrives again, with the same number. Numbers that were skipped are
//! remembered as gaps, so that a resend from the node's buffer is taken once, as history.
//!
//! A node that also sends its boot number starts a new count with each boot. A node that does not,
//! and counts from 0 or 1 again, is taken to have restarted when the count so far is too far ahead
//! for a redelivery ([`REDELIVERY_MAX`]).
//!
//! Readings of a boot before the newest count as duplicates. If the boot counter itself went back,
//! as after a node's memory was erased or its board was replaced, the node has to announce its boot
//! number ([`Sequence::begin`]). From then on, of all boot numbers up to the greatest one before,
//! only the announced one counts, so that queued readings of earlier boots are not taken again.
//! (They are, if the node reaches the same boot number a second time.)

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

/// How a reading relates to those before it, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
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
    /// Boots were numbered anew: the boot that the node announced last, and the greatest before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    anew: Option<(u64, u64)>,
}

impl Sequence {
    /// Judges a number.
    pub fn judge(&self, stamp: Stamp) -> Arrival {
        let Some(last) = self.last else { return Arrival::Next };
        if stamp.boot != last.boot {
            // A will or a late message of an earlier boot is history; without numbers it is unknown.
            return match (stamp.boot, last.boot, self.anew) {
                (Some(boot), _, Some((announced, most))) if boot <= most => {
                    if boot == announced {
                        Arrival::Next
                    } else {
                        Arrival::Duplicate
                    }
                }
                (Some(boot), Some(newest), None) if boot < newest => Arrival::Duplicate,
                _ => Arrival::Next,
            };
        }
        if stamp.seq > last.seq || self.restarted(stamp) {
            return Arrival::Next;
        }
        if self.gaps.iter().any(|&(first, end)| (first..=end).contains(&stamp.seq)) {
            Arrival::Late
        } else {
            Arrival::Duplicate
        }
    }

    /// Takes a number that was not judged a duplicate.
    pub fn note(&mut self, stamp: Stamp) {
        match self.judge(stamp) {
            Arrival::Duplicate => {}
            Arrival::Late => {
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
            Arrival::Next => {
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

    /// Whether a node that announces this boot has numbered its boots anew, and has not announced it
    /// before.
    pub fn is_anew(&self, boot: u64) -> bool {
        let newest = self.last.and_then(|last| last.boot);
        let (announced, most) =
            self.anew.or(newest.map(|newest| (newest, newest))).unwrap_or_default();
        boot <= most && boot != announced
    }

    /// The node is at this boot, whatever it sent before.
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
    #[cfg(test)]
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
        assert_eq!(sequence.judge(at(4)), Arrival::Late);
        sequence.note(at(4));
        assert_eq!(sequence.judge(at(4)), Arrival::Duplicate);
        assert_eq!((sequence.judge(at(3)), sequence.judge(at(5))), (Arrival::Late, Arrival::Late));
        assert_eq!(sequence.judge(at(2)), Arrival::Duplicate);
        assert_eq!(sequence.judge(at(7)), Arrival::Next);
    }

    #[test]
    fn a_restart_counts_anew_and_a_redelivery_does_not() {
        let sequence = taken(&[5000]);
        assert_eq!(sequence.judge(at(0)), Arrival::Next);
        assert_eq!(sequence.judge(at(4000)), Arrival::Duplicate);
        assert_eq!(taken(&[0, 1, 2, 3]).judge(at(0)), Arrival::Duplicate);
        let mut booted = Sequence::default();
        booted.note(Stamp { seq: 9, boot: Some(3) });
        assert_eq!(booted.judge(Stamp { seq: 0, boot: Some(4) }), Arrival::Next);
        assert_eq!(booted.judge(Stamp { seq: 10, boot: Some(2) }), Arrival::Duplicate);
    }

    fn of(boot: u64, seq: u64) -> Stamp {
        Stamp { seq, boot: Some(boot) }
    }

    #[test]
    fn a_counter_that_went_back_is_believed_once_the_node_says_so() {
        let mut sequence = Sequence::default();
        assert!(!sequence.is_anew(0));
        (0..5).for_each(|seq| sequence.note(of(7, seq)));
        assert_eq!(sequence.judge(of(1, 0)), Arrival::Duplicate);
        assert_eq!((sequence.is_anew(7), sequence.is_anew(8)), (false, false));
        assert!(sequence.is_anew(1));
        sequence.begin(1);
        assert!(!sequence.is_anew(1), "it counts once");
        // What was not taken of the former life still may be; what was is not.
        assert_eq!(
            (sequence.judge(of(7, 4)), sequence.judge(of(7, 5))),
            (Arrival::Duplicate, Arrival::Next)
        );
        assert_eq!(sequence.judge(of(1, 0)), Arrival::Next);
        sequence.note(of(1, 0));
        assert_eq!(
            (sequence.judge(of(1, 0)), sequence.judge(of(1, 1))),
            (Arrival::Duplicate, Arrival::Next)
        );
        for former in [(7, 0), (7, 9), (3, 0)] {
            assert_eq!(sequence.judge(of(former.0, former.1)), Arrival::Duplicate, "{former:?}");
        }
        // A boot number that occurred before has to be announced, a greater one does not.
        assert_eq!(sequence.judge(of(2, 0)), Arrival::Duplicate);
        sequence.begin(2);
        sequence.note(of(2, 0));
        assert_eq!(sequence.judge(of(1, 1)), Arrival::Duplicate);
        sequence.note(of(8, 0));
        assert_eq!((sequence.last(), sequence.anew), (Some(of(8, 0)), None));
        assert_eq!(sequence.judge(of(2, 1)), Arrival::Duplicate);
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
                            prop_assert_ne!(judged, Arrival::Duplicate);
                        }
                        sequence.note(of(boot, seq));
                        sent.push((boot, seq));
                        if let Some(index) = again.next() {
                            let (old, seq) = *index.get(&sent);
                            if old != boot {
                                prop_assert_eq!(sequence.judge(of(old, seq)), Arrival::Duplicate);
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
                prop_assert_eq!(sequence.judge(at(again)), Arrival::Duplicate);
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
