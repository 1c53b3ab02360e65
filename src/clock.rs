//! The program's one clock.
//!
//! Pure code takes a [`Micros`] as an argument; only the shell calls [`now`]. A plain `u64` fits into an
//! atomic, so that SHOW can read when a client last did something without a lock.

use std::ops::{Add, Sub};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// Microseconds on the kernel's monotonic clock; never 0 when it comes from [`now`], so that 0 can stand for "never"
/// in an atomic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Micros(pub u64);

impl Micros {
    /// Time that has passed since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Micros {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(
            self.0
                .saturating_add(rhs.as_secs().saturating_mul(1_000_000))
                .saturating_add(rhs.subsec_micros().into()),
        )
    }
}

impl Sub for Micros {
    type Output = u64;
    /// Microseconds between the two; zero if `rhs` is later.
    fn sub(self, rhs: Self) -> u64 {
        self.0.saturating_sub(rhs.0)
    }
}

/// A moment that one task writes and others read; 0 stands for "none".
#[derive(Debug, Default)]
pub struct AtomicMicros(AtomicU64);

impl AtomicMicros {
    /// Starts with a moment.
    pub fn new(at: Micros) -> Self {
        Self(AtomicU64::new(at.0))
    }

    /// The moment.
    #[inline]
    pub fn get(&self) -> Micros {
        Micros(self.0.load(Relaxed))
    }

    /// Changes it.
    #[inline]
    pub fn set(&self, at: Micros) {
        self.0.store(at.0, Relaxed);
    }

    /// Changes it to a later moment.
    #[inline]
    pub fn set_max(&self, at: Micros) {
        self.0.fetch_max(at.0, Relaxed);
    }
}

/// The monotonic time.
///
/// Asked of the kernel's clock directly: the standard library's `Instant` costs four times as many instructions to
/// come to the same number, and this is called twice per transaction.
#[inline]
pub fn now() -> Micros {
    let Ok(time) = clock_gettime(ClockId::CLOCK_MONOTONIC) else {
        unreachable!("Linux always has this clock")
    };
    Micros(time.tv_sec().unsigned_abs() * 1_000_000 + time.tv_nsec().unsigned_abs() / 1000)
}

/// Seconds since 1970 of a moment on this clock, for columns such as `connect_time`.
pub fn unix_seconds(at: Micros) -> i64 {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let then = wall.saturating_sub(now().since(at));
    i64::try_from(then.as_secs()).unwrap_or(i64::MAX)
}

/// The local time now, with milliseconds and zone, as the log writes it.
pub fn local_time_millis() -> String {
    format_local(chrono::Local::now(), "%Y-%m-%d %H:%M:%S%.3f")
}

/// The local time now, as syslog writes it (RFC 3164).
pub fn local_time_syslog() -> String {
    chrono::Local::now().format("%b %e %H:%M:%S").to_string()
}

/// The local time of a moment on this clock, in seconds and with its zone.
pub fn local_time(at: Micros) -> String {
    let time = chrono::DateTime::from_timestamp(unix_seconds(at), 0).unwrap_or_default();
    format_local(time.with_timezone(&chrono::Local), "%Y-%m-%d %H:%M:%S")
}

/// Zones without a name of their own are shown as an offset, as the time zone database does.
fn format_local(time: chrono::DateTime<chrono::Local>, format: &str) -> String {
    let offset = time.offset().local_minus_utc() / 60;
    let zone = match (offset, offset % 60) {
        (0, _) => "UTC".to_owned(),
        (_, 0) => format!("{:+03}", offset / 60),
        (_, minutes) => format!("{:+03}{:02}", offset / 60, minutes.abs()),
    };
    format!("{} {zone}", time.format(format))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_passes_and_is_now() {
        let start = now();
        std::thread::sleep(Duration::from_millis(20));
        let passed = now().since(start);
        assert!(passed >= Duration::from_millis(20) && passed < Duration::from_secs(10), "{passed:?}");
        assert_eq!(start.since(now()), Duration::ZERO);
        assert_eq!(start + Duration::from_micros(1_500_000) - start, 1_500_000);
        let year: i32 = local_time(now())[..4].parse().unwrap();
        assert!((2025..2100).contains(&year));
    }
}
