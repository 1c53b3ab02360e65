//! The result of a walk over a buffer: usually one slice of it, copied only when something was cut or put in.

/// Collects what goes to the other side.
///
/// As long as the kept ranges touch each other, nothing is copied: [`Output::bytes`] is a slice of the input.
/// The scratch space is handed in by the caller, who reuses it, so that rewriting does not allocate either.
pub struct Output<'a> {
    input: &'a [u8],
    start: usize,
    end: usize,
    scratch: &'a mut Vec<u8>,
    copied: bool,
}

impl<'a> Output<'a> {
    /// Nothing kept yet. `scratch` is emptied.
    pub fn new(input: &'a [u8], scratch: &'a mut Vec<u8>) -> Self {
        scratch.clear();
        Self { input, start: 0, end: 0, scratch, copied: false }
    }

    /// Keeps `input[from..to]`.
    #[inline]
    pub fn keep(&mut self, from: usize, to: usize) {
        if !self.copied && self.end == from {
            self.end = to;
        } else {
            self.keep_apart(from, to);
        }
    }

    /// Not right behind what was kept before.
    fn keep_apart(&mut self, from: usize, to: usize) {
        if !self.copied && self.start == self.end {
            (self.start, self.end) = (from, to);
        } else {
            let input = self.input;
            self.insert().extend_from_slice(&input[from..to]);
        }
    }

    /// Puts bytes of our own here: the caller appends them to the returned buffer.
    pub fn insert(&mut self) -> &mut Vec<u8> {
        if !self.copied {
            self.copied = true;
            self.scratch.extend_from_slice(&self.input[self.start..self.end]);
        }
        self.scratch
    }

    /// What goes to the other side.
    pub fn bytes(&self) -> &[u8] {
        if self.copied { self.scratch } else { &self.input[self.start..self.end] }
    }

    /// Whether nothing was kept or put in.
    pub fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touching_ranges_are_not_copied() {
        let mut scratch = Vec::new();
        let mut out = Output::new(b"abcdef", &mut scratch);
        out.keep(1, 3);
        out.keep(3, 5);
        assert_eq!(out.bytes(), b"bcde");
        assert!(!out.copied);
    }

    #[test]
    fn cuts_and_insertions_are() {
        let mut scratch = vec![1];
        let mut out = Output::new(b"abcdef", &mut scratch);
        assert!(out.is_empty());
        out.keep(0, 1);
        out.keep(2, 3);
        out.insert().extend(b"--");
        out.keep(3, 6);
        assert_eq!(out.bytes(), b"ac--def");
    }
}
