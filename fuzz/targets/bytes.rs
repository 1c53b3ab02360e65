//! Taking input apart, and putting messages together.

/// Takes choices off the front of the input; what is left is the material itself.
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    /// The next byte, 0 at the end.
    pub(super) fn choice(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Two bytes as a number.
    pub(super) fn number(&mut self) -> u16 {
        u16::from_be_bytes([self.choice(), self.choice()])
    }

    /// What comes up to the next `end`, which is dropped.
    pub(super) fn until(&mut self, end: u8) -> &'a [u8] {
        let len = self.0.iter().position(|&byte| byte == end).unwrap_or(self.0.len());
        let found = &self.0[..len];
        self.0 = self.0.get(len + 1..).unwrap_or_default();
        found
    }

    /// As text, replacement characters where it is none.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(self.0).into_owned()
    }
}

/// Cuts bytes into pieces; the seed says where. Seed 0 makes pieces of one byte.
pub(super) fn pieces(mut bytes: &[u8], seed: u16) -> Vec<&[u8]> {
    let mut state = u32::from(seed);
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        let len = if seed == 0 {
            1
        } else {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Short ones most of the time, for that is where headers are cut.
            1 + (state >> 16) as usize % if state >> 30 == 0 { 40 } else { 7 }
        };
        let (piece, rest) = bytes.split_at(len.min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

/// A message: tag, length, body.
pub(super) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[tag][..], &length, body].concat()
}

pub(super) fn messages(all: &[(u8, &[u8])]) -> Vec<u8> {
    all.iter().flat_map(|(tag, body)| message(*tag, body)).collect()
}

pub(super) fn texts(all: &[&str]) -> Vec<Vec<u8>> {
    all.iter().map(|text| text.as_bytes().to_vec()).collect()
}
