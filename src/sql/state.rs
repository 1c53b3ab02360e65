//! What is left in a session: settings that no server reports, a role, temporary objects.

use std::fmt;

/// What is left in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// A setting, until RESET ALL.
    Setting,
    /// SET ROLE.
    Role,
    /// SET SESSION AUTHORIZATION.
    Authorization,
    /// A temporary object.
    Temporary,
    /// Any of these, or something else: DO, LOAD, and what calls a function that leaves something.
    Something,
}

impl Left {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Setting, "a setting"),
        (Self::Role, "a role"),
        (Self::Authorization, "a session authorization"),
        (Self::Temporary, "a temporary object"),
        (Self::Something, "something unknown"),
    ];
}

/// Several of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State(u8);

impl State {
    /// Everything.
    pub const ALL: Self = Self(u8::MAX);

    /// Whether there is nothing.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Without those.
    pub fn without(self, those: Self) -> Self {
        Self(self.0 & !those.0)
    }

    /// As one byte, for another process.
    pub fn byte(self) -> u8 {
        self.0
    }

    /// See [`State::byte`].
    pub fn from_byte(byte: u8) -> Self {
        Self(byte)
    }
}

impl From<Left> for State {
    fn from(left: Left) -> Self {
        Self(1 << left as u8)
    }
}

impl std::ops::BitOrAssign for State {
    fn bitor_assign(&mut self, those: Self) {
        self.0 |= those.0;
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (left, name) in Left::ALL {
            if self.0 & Self::from(left).0 != 0 {
                write!(f, "{separator}{name}")?;
                separator = ", ";
            }
        }
        Ok(())
    }
}

/// What the statements of a text do to the state of their session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// What they leave there.
    pub leaves: State,
    /// What is not there any more if all goes well. Only of a text that is a single statement.
    pub takes_back: State,
}

impl Effect {
    /// Of a statement of which nothing is known.
    pub fn unknown() -> Self {
        Self { leaves: Left::Something.into(), takes_back: State::default() }
    }
}
