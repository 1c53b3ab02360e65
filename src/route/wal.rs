//! Positions in the write-ahead log, and what they say about how far a replica has come. Pure.

use std::collections::VecDeque;
use std::fmt;

use crate::clock::Micros;

/// A position in the write-ahead log (`pg_lsn`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lsn(pub u64);

/// PostgreSQL's usual `XLOG_BLCKSZ`. With another one a primary that writes nothing may look one page header ahead of its
/// replicas, which then get fewer reads.
const PAGE: u64 = 8192;
/// What a page begins with.
const SHORT_HEADER: u64 = 24;
/// What a segment's first page begins with.
const LONG_HEADER: u64 = 40;

impl Lsn {
    /// Reads the form `16/B374D848`.
    pub fn parse(text: &str) -> Option<Self> {
        let (high, low) = text.split_once('/')?;
        let half = |digits| u32::from_str_radix(digits, 16).ok().map(u64::from);
        Some(Self(half(high)? << 32 | half(low)?))
    }

    /// The end of the last record before this position, if this is where the next one will begin: behind the header of a page
    /// that holds nothing yet. The primary says where it will write, a replica where what it has replayed ends.
    pub fn end_of_record(self, segment_size: u64) -> Self {
        let header = if segment_size > 0 && self.0 % segment_size == LONG_HEADER {
            LONG_HEADER
        } else if self.0 % PAGE == SHORT_HEADER {
            SHORT_HEADER
        } else {
            0
        };
        Self(self.0 - header)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

/// Where the primary was when. Whatever it had acknowledged when it was asked lies before the position it answered with.
#[derive(Debug, Default)]
pub struct History {
    /// Moments and positions, both increasing.
    samples: VecDeque<(Micros, Lsn)>,
}

impl History {
    /// Enough for a replica that is a minute behind, if the primary is asked ten times a second.
    const MOST: usize = 600;

    /// The primary was asked at a moment, and has answered.
    pub fn note(&mut self, asked: Micros, at: Lsn) {
        if let Some(last) = self.samples.back_mut() {
            if asked < last.0 || at < last.1 {
                return;
            }
            if at == last.1 {
                last.0 = asked;
                return;
            }
        }
        if self.samples.len() == Self::MOST {
            self.samples.pop_front();
        }
        self.samples.push_back((asked, at));
    }

    /// The last moment up to which everything acknowledged lies before `replayed`; `None`: not even the oldest one known.
    pub fn moment(&self, replayed: Lsn) -> Option<Micros> {
        let behind = self.samples.partition_point(|(_, at)| *at <= replayed);
        Some(self.samples.get(behind.checked_sub(1)?)?.0)
    }

    /// Where the primary was when it was last asked.
    pub fn last(&self) -> Option<Lsn> {
        self.samples.back().map(|(_, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_and_written_as_postgresql_does() {
        assert_eq!(Lsn::parse("16/B374D848"), Some(Lsn(0x16_b374_d848)));
        assert_eq!(Lsn(0x16_0374_d848).to_string(), "16/374D848");
        for wrong in ["", "16", "/", "g/1", "1/100000000", "1/2/3"] {
            assert_eq!(Lsn::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_empty_page_is_not_something_written() {
        let segment = 16 << 20;
        let end = |at| Lsn(at).end_of_record(segment).0;
        assert_eq!(
            (end(8192 * 3), end(8192 * 3 + 24), end(8192 * 3 + 40)),
            (8192 * 3, 8192 * 3, 8192 * 3 + 40)
        );
        assert_eq!((end(segment + 40), end(segment + 48)), (segment, segment + 48));
        assert_eq!(Lsn(40).end_of_record(0), Lsn(40));
    }

    #[test]
    fn a_replica_is_caught_up_to_the_last_question_whose_answer_it_has_replayed() {
        let mut history = History::default();
        assert_eq!(history.moment(Lsn(1000)), None);
        for (asked, at) in [(10, 100), (20, 200), (30, 200), (40, 300)] {
            history.note(Micros(asked), Lsn(at));
        }
        let moment = |at| history.moment(Lsn(at)).map(|m| m.0);
        assert_eq!([moment(99), moment(100), moment(199)], [None, Some(10), Some(10)]);
        assert_eq!(
            [moment(200), moment(299), moment(300), moment(900)],
            [Some(30), Some(30), Some(40), Some(40)]
        );
        // Late or backward answers prove nothing.
        history.note(Micros(35), Lsn(400));
        history.note(Micros(50), Lsn(250));
        assert_eq!(history.moment(Lsn(400)), Some(Micros(40)));
        assert_eq!(history.last(), Some(Lsn(300)));
    }

    #[test]
    fn what_is_too_old_is_forgotten() {
        let mut history = History::default();
        for n in 1..=2000 {
            history.note(Micros(n), Lsn(n));
        }
        assert_eq!(history.samples.len(), History::MOST);
        assert_eq!(history.moment(Lsn(1400)), None);
        assert_eq!(history.moment(Lsn(1401)), Some(Micros(1401)));
    }
}
