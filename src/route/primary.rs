//! What the log has said of the primary. Pure.

use std::time::Duration;

use crate::clock::Micros;

/// The primary that was last logged.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoggedPrimary {
    primary: Option<usize>,
    /// When it was found to be lost.
    lost: Option<Micros>,
}

/// Another host takes writes than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrimaryChange {
    /// None does.
    Lost,
    /// This one does.
    Found {
        /// Its number.
        primary: usize,
        /// How long there was none; `None`: there has always been one, or never yet.
        without: Option<Duration>,
    },
}

impl LoggedPrimary {
    /// What has changed since the last call.
    pub fn change(&mut self, primary: Option<usize>, now: Micros) -> Option<PrimaryChange> {
        if primary == self.primary {
            return None;
        }
        let before = std::mem::replace(self, Self { primary, lost: primary.is_none().then_some(now) });
        Some(match primary {
            None => PrimaryChange::Lost,
            Some(primary) => {
                PrimaryChange::Found { primary, without: before.lost.map(|lost| now.since(lost)) }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_logged_once() {
        let mut logged = LoggedPrimary::default();
        let mut change = |primary, at| logged.change(primary, Micros(at));
        let found = |primary, without: Option<u64>| {
            Some(PrimaryChange::Found { primary, without: without.map(Duration::from_micros) })
        };
        assert_eq!(change(None, 10), None);
        assert_eq!((change(Some(0), 110), change(Some(0), 120)), (found(0, None), None));
        assert_eq!((change(None, 200), change(None, 300)), (Some(PrimaryChange::Lost), None));
        assert_eq!(change(Some(1), 450), found(1, Some(250)));
        assert_eq!(change(Some(2), 600), found(2, None));
    }
}
