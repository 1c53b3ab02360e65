//! The unnamed prepared statement of a server.

use super::numbers::ChangeNumber;

/// The unnamed statement of a server while a client has it.
#[derive(Debug, Default)]
pub(super) struct Unnamed {
    /// The client itself has prepared it; without that it may be another client's.
    pub(super) valid: bool,
    /// It has been bound since.
    pub(super) bound: bool,
    /// Its Parse belongs to the batch at hand: if that was skipped after an error, so is what uses it.
    pub(super) in_batch: bool,
    /// The Parse, or a Close in its place, is the proxy's.
    is_ours: bool,
    /// An error has skipped the client's Parse: the server has what an earlier one has left there, or nothing.
    lost: bool,
    /// The change that its Parse is.
    pub(super) change: ChangeNumber,
    /// Its Parse, while that may be needed on another server. Kept for its capacity.
    text: Vec<u8>,
}

impl Unnamed {
    /// It is being prepared for the client. `text`: what follows its name, if it is to be kept.
    pub(super) fn prepare(&mut self, text: Option<&[u8]>, is_ours: bool, change: ChangeNumber) {
        (self.valid, self.bound, self.in_batch) = (true, false, true);
        (self.is_ours, self.lost, self.change) = (is_ours, false, change);
        self.text.clear();
        self.text.extend_from_slice(text.unwrap_or_default());
    }

    /// An error has come: the last change that does not happen is `last_skipped`. `was_answered`: the Parse had been by then.
    /// Returns the statement if the proxy has to prepare it once more.
    #[cold]
    pub(super) fn undo(&mut self, was_answered: bool, last_skipped: ChangeNumber) -> Option<Box<[u8]>> {
        if was_answered || self.change > last_skipped || !self.valid {
            return None;
        }
        self.valid = !self.is_ours;
        self.lost = true;
        (self.is_ours && !self.text.is_empty()).then(|| self.text.as_slice().into())
    }

    /// Whether it is not known what the server has, but that it is not what the client has prepared last.
    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    /// Its client leaves the server. Returns the statement if it was not used and can follow the client.
    pub(super) fn leave(&mut self) -> Option<Box<[u8]>> {
        let is_known = std::mem::take(&mut self.valid) && !self.bound && !self.lost && !self.text.is_empty();
        is_known.then(|| self.text.as_slice().into())
    }
}
