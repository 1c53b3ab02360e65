//! The result of a walk over a buffer: usually one slice of it, copied only when something was cut or put in.

use std::sync::Arc;

use super::prepared::Statement;
use crate::wire::write;

/// Statements longer than this are not copied.
const LONG: usize = 64 * 1024;

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
    texts: Vec<Text>,
}

/// A long statement that belongs between the bytes of an [`Output`]: its text and types, which all who use it share.
#[derive(Clone, Debug)]
pub struct Text {
    /// How many bytes come before it.
    pub at: usize,
    /// The statement.
    pub statement: Arc<Statement>,
}

impl<'a> Output<'a> {
    /// Nothing kept yet. `scratch` is emptied.
    pub fn new(input: &'a [u8], scratch: &'a mut Vec<u8>) -> Self {
        scratch.clear();
        Self { input, start: 0, end: 0, scratch, copied: false, texts: Vec::new() }
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

    /// Puts a Parse of this statement here.
    pub fn parse(&mut self, statement: &Arc<Statement>) {
        let (name, text) = (&*statement.name, &*statement.text_and_types);
        if text.len() <= LONG {
            return write::parse(self.insert(), name, text);
        }
        let out = self.insert();
        write::parse_without_text(out, name, text.len());
        let at = out.len();
        self.texts.push(Text { at, statement: Arc::clone(statement) });
    }

    /// Long texts that belong between the bytes, first the first one.
    pub fn texts(&self) -> &[Text] {
        &self.texts
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
