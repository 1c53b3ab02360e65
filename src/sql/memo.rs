//! Statements whose text comes again and again, as those of the extended protocol do, are judged once. HOT.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;

use super::classify::Class;
use super::state::Effect;

/// How many are remembered, the latest of those that share a place.
const PLACES: usize = 128;
/// Longest text that is remembered, in bytes.
const LONGEST: usize = 1024;

/// Classes and effects by text, for one thread.
#[derive(Debug, Default)]
pub struct Memo {
    /// None until the first is remembered.
    places: Vec<Judged>,
    hasher: RandomState,
}

#[derive(Clone, Debug, Default)]
struct Judged {
    text: Vec<u8>,
    generation: u32,
    class: Option<Class>,
    effect: Option<Effect>,
}

impl Memo {
    /// The class of a text; `classify` is called if it is not remembered. `generation`: the number of the catalog it is
    /// judged by, which no other one has; with 0 nothing is remembered.
    #[inline]
    pub fn class(&mut self, text: &[u8], generation: u32, classify: impl FnOnce() -> Class) -> Class {
        match self.place(text, generation) {
            Some(place) => *place.class.get_or_insert_with(classify),
            None => classify(),
        }
    }

    /// The effect of a text, in the same way.
    #[inline]
    pub fn effect(&mut self, text: &[u8], generation: u32, effect: impl FnOnce() -> Effect) -> Effect {
        match self.place(text, generation) {
            Some(place) => *place.effect.get_or_insert_with(effect),
            None => effect(),
        }
    }

    #[inline]
    fn place(&mut self, text: &[u8], generation: u32) -> Option<&mut Judged> {
        if generation == 0 || text.len() > LONGEST {
            return None;
        }
        if self.places.is_empty() {
            self.places.resize(PLACES, Judged::default());
        }
        let place = &mut self.places[self.hasher.hash_one(text) as usize % PLACES];
        if place.generation != generation || place.text != text {
            (place.class, place.effect) = (None, None);
            place.generation = generation;
            place.text.clear();
            place.text.extend_from_slice(text);
        }
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_judged_once_per_catalog() {
        let mut memo = Memo::default();
        assert_eq!(memo.class(b"a", 7, || Class::Read), Class::Read);
        assert_eq!(memo.class(b"a", 7, || unreachable!()), Class::Read);
        assert_eq!(memo.class(b"a", 8, || Class::Write), Class::Write);
        assert_eq!(memo.class(b"a", 0, || Class::Read), Class::Read);
        assert_eq!(memo.class(b"a", 8, || unreachable!()), Class::Write);
        assert_eq!(memo.effect(b"a", 8, Effect::unknown), Effect::unknown());
        assert_eq!(memo.effect(b"a", 8, || unreachable!()), Effect::unknown());
        assert_eq!(memo.class(b"a", 8, || unreachable!()), Class::Write);
        assert_eq!(memo.effect(b"a", 9, Effect::default), Effect::default());
        let long = [b'a'; LONGEST + 1];
        assert_eq!(memo.class(&long, 8, || Class::Read), Class::Read);
        assert_eq!(memo.class(&long, 8, || Class::Write), Class::Write);
    }

    #[test]
    fn texts_that_share_a_place_are_told_apart() {
        let mut memo = Memo::default();
        let class = |n: usize| if n % 3 == 0 { Class::Read } else { Class::Write };
        for round in 0..3 {
            for n in 0..10 * PLACES {
                let text = format!("select {n}");
                assert_eq!(memo.class(text.as_bytes(), 1, || class(n)), class(n), "{round}");
            }
        }
    }
}
