//! Which of several replicas a read goes to. Pure.
//!
//! The one that has least to do for its weight; those with equally little share the reads in proportion to their weights. One
//! that has just come back counts for less than its weight at first, so that it is not flooded while its caches are cold. If
//! there is no other, the primary, which has served the reads meanwhile, hands them over little by little.

use std::time::Duration;

/// Warmth of a replica that counts in full.
pub const WARM: u64 = 1000;
/// Warmth of one that has come back this moment.
const COLD: u64 = 100;

/// A replica that may serve a read.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Its number.
    pub host: usize,
    /// Reads it has under way.
    pub busy: u64,
    /// Its share of the reads (`weight`), not zero.
    pub weight: u64,
    /// How much of that counts now, in thousandths.
    pub warmth: u64,
}

impl Candidate {
    fn strength(&self) -> u64 {
        self.weight * self.warmth
    }

    fn load(&self) -> u64 {
        self.busy * 1_000_000_000 / self.strength()
    }
}

/// How much of its weight counts for a replica that came back `ago`.
pub fn warmth(ago: Duration, warm_up: Duration) -> u64 {
    if ago >= warm_up {
        return WARM;
    }
    let done = u64::try_from(ago.as_micros() * u128::from(WARM - COLD) / warm_up.as_micros());
    done.map_or(WARM, |done| COLD + done)
}

/// Chooses; `None`: better the primary. `turn` is another number at each call.
pub fn choose(all: impl Iterator<Item = Candidate> + Clone, turn: u64) -> Option<usize> {
    let warmest = all.clone().map(|c| c.warmth).max()?;
    if spread(turn, TO_REPLICAS, WARM) >= warmest {
        return None;
    }
    let best = all.clone().min_by_key(Candidate::load)?;
    let least = best.load();
    let tied = all.filter(|c| c.load() == least);
    let mut point = spread(turn, AMONG_REPLICAS, tied.clone().map(|c| c.strength()).sum());
    for candidate in tied {
        match point.checked_sub(candidate.strength()) {
            None => return Some(candidate.host),
            Some(rest) => point = rest,
        }
    }
    // Somebody has finished or begun a read between the looks at it.
    Some(best.host)
}

/// Multiples of these two, modulo 1, are spread evenly over the unit square: 1/p and 1/p², where p³ = p + 1, times 2⁶⁴.
const TO_REPLICAS: u64 = 0xC13F_A9A9_02A6_328F;
const AMONG_REPLICAS: u64 = 0x91E1_0DA5_C79E_7B1D;

/// A number below `end`; those of successive turns are spread evenly.
fn spread(turn: u64, step: u64, end: u64) -> u64 {
    let fraction = u128::from(turn.wrapping_mul(step));
    ((fraction * u128::from(end)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(host: usize, busy: u64, weight: u64, warmth: u64) -> Candidate {
        Candidate { host, busy, weight, warmth }
    }

    /// How many of a thousand reads each host gets, and the primary.
    fn shares(all: &[Candidate]) -> [usize; 4] {
        let mut seen = [0; 4];
        (0..1000).for_each(|turn| seen[choose(all.iter().copied(), turn).unwrap_or(3)] += 1);
        seen
    }

    fn assert_about(shares: [usize; 4], expected: [usize; 4]) {
        assert!(
            shares.iter().zip(expected).all(|(s, e)| s.abs_diff(e) <= 10),
            "{shares:?}, not {expected:?}"
        );
    }

    #[test]
    fn replicas_with_nothing_to_do_share_reads_by_weight() {
        assert_about(shares(&[replica(0, 0, 1, WARM), replica(1, 0, 1, WARM)]), [500, 500, 0, 0]);
        assert_about(shares(&[replica(0, 0, 1, WARM), replica(1, 0, 3, WARM)]), [250, 750, 0, 0]);
        assert_about(shares(&[replica(0, 0, 1, WARM), replica(2, 0, 1, COLD)]), [909, 0, 91, 0]);
        assert_eq!(choose([].into_iter(), 7), None);
    }

    #[test]
    fn the_one_with_least_to_do_for_its_weight_is_next() {
        assert_eq!(shares(&[replica(0, 3, 1, WARM), replica(1, 2, 1, WARM)]), [0, 1000, 0, 0]);
        assert_eq!(shares(&[replica(0, 3, 1, WARM), replica(1, 8, 3, WARM)]), [0, 1000, 0, 0]);
        assert_eq!(shares(&[replica(0, 3, 1, WARM), replica(1, 10, 3, WARM)]), [1000, 0, 0, 0]);
        assert_about(shares(&[replica(0, 3, 1, WARM), replica(1, 9, 3, WARM)]), [250, 750, 0, 0]);
        // One that is cold has enough with a tenth of what the others have.
        assert_eq!(shares(&[replica(0, 30, 1, WARM), replica(1, 4, 1, COLD)]), [1000, 0, 0, 0]);
    }

    #[test]
    fn the_primary_hands_reads_over_little_by_little() {
        assert_about(shares(&[replica(0, 0, 1, COLD)]), [100, 0, 0, 900]);
        assert_about(shares(&[replica(0, 0, 1, 600)]), [600, 0, 0, 400]);
        assert_about(shares(&[replica(0, 0, 1, 600), replica(1, 0, 1, 300)]), [400, 200, 0, 400]);
    }

    #[test]
    fn warmth_grows_with_time() {
        let seconds = Duration::from_secs;
        assert_eq!([0, 5, 10, 11].map(|ago| warmth(seconds(ago), seconds(10))), [COLD, 550, WARM, WARM]);
        assert_eq!(warmth(seconds(0), seconds(0)), WARM);
    }
}
