//! The program's one clock.
//!
//! Pure code takes a [`Micros`] as an argument; only the shell calls [`now`]. A plain `u64` fits into an
//! atomic, so that SHOW can read when a client last did something without a lock.

use std::ops::{Add, Sub};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Microseconds since the program's first reading of the clock; never 0 when it comes from [`now`], so that 0
/// can stand for "never" in an atomic.
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

struct Origin {
    monotonic: Instant,
    wall: SystemTime,
}

fn origin() -> &'static Origin {
    static ORIGIN: OnceLock<Origin> = OnceLock::new();
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    ORIGIN.get_or_init(|| Origin { monotonic: Instant::now(), wall: SystemTime::now() })
}

/// The monotonic time.
pub fn now() -> Micros {
    let passed = Instant::now().duration_since(origin().monotonic);
    // as_micros() would compute with 128 bits.
    Micros(1 + passed.as_secs() * 1_000_000 + u64::from(passed.subsec_micros()))
}

/// Seconds since 1970 of a moment on this clock, for columns such as `connect_time`.
pub fn unix_seconds(at: Micros) -> i64 {
    let wall = origin().wall + Duration::from_micros(at.0);
    wall.duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

/// The local time now, with milliseconds and zone, as the log writes it.
pub fn local_time_millis() -> String {
    format_local(chrono::Local::now(), "%Y-%m-%d %H:%M:%S%.3f")
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
