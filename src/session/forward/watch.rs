//! What a client leaves in the session of a server and what does not follow it to another one: as long as there is something,
//! its reads go to the primary. Only where reads are split from writes; HOT there for what is no read.

use super::client::ClientSession;
use super::frames::MAX_NAME;
use crate::session::parameters::Parameters;
use crate::session::prepared::Statement;
use crate::sql::{self, Catalog, Effect, Memo, State};
use crate::wire::frame::peek;
use crate::wire::frontend;
use crate::wire::tag::frontend as tag;

/// OIDs below are those of PostgreSQL's own functions, none of which is called by OID and leaves something.
const FIRST_USER_OID: u32 = 16384;

/// What a client's statements are judged by.
pub struct Judge<'a> {
    /// What was found out before.
    pub memo: &'a mut Memo,
    /// What was last known to be in the database, and its number; see [`Memo::class`].
    pub known: (Option<&'a Catalog>, u32),
}

impl ClientSession {
    /// Looks at what is about to be sent, or only at the first batch of it. Says how much of it may be: a simple query has to be
    /// complete.
    pub fn watch(&mut self, buf: &[u8], one_batch: bool, judge: &mut Judge<'_>) -> usize {
        let (catalog, generation) = judge.known;
        let meaning = self.parameters.meaning();
        let is_usual = meaning.standard_strings && !meaning.ascii_in_characters;
        let generation = if is_usual { generation } else { 0 };
        let mut at = self.rest.left.min(buf.len());
        while let Ok(Some(frame)) = peek(&buf[at..]) {
            let parameters = &self.parameters;
            match frame.tag {
                tag::QUERY if frame.is_complete() => {
                    let effect = effect(frontend::text(frame.body), catalog, parameters);
                    self.kept.take(effect);
                }
                tag::QUERY if frame.len <= MAX_NAME => return at,
                tag::QUERY => self.kept.take(of_beginning(frame.body, catalog, parameters)),
                tag::PARSE if frame.is_complete() => {
                    if let Ok(parse) = frontend::parse(frame.body) {
                        let text = parse.text();
                        let effect =
                            judge.memo.effect(text, generation, || effect(text, catalog, parameters));
                        if parse.name.is_empty() {
                            self.kept.unnamed = effect;
                        } else {
                            // It may be bound before its name is known.
                            self.kept.take(Effect { takes_back: State::default(), ..effect });
                        }
                    }
                }
                tag::PARSE if frame.body.first() == Some(&0) && frame.len > MAX_NAME => {
                    self.kept.unnamed = of_beginning(&frame.body[1..], catalog, parameters);
                }
                tag::BIND => {
                    let effect = match frontend::bind(frame.body) {
                        Some(bind) if !bind.name.is_empty() => {
                            let of = |statement: &Statement| effect(statement.text(), catalog, parameters);
                            self.statements.effect(bind.name, generation, of)
                        }
                        Some(_) => Some(self.kept.unnamed),
                        None => None,
                    };
                    self.kept.take(effect.unwrap_or_default());
                }
                tag::FUNCTION_CALL => {
                    let oid = frame.body.first_chunk().map_or(0, |oid| u32::from_be_bytes(*oid));
                    if oid >= FIRST_USER_OID {
                        self.kept.take(Effect::unknown());
                    }
                }
                _ => {}
            }
            at += frame.available();
            if one_batch && matches!(frame.tag, tag::QUERY | tag::SYNC | tag::FUNCTION_CALL) {
                break;
            }
        }
        buf.len()
    }
}

fn effect(text: &[u8], catalog: Option<&Catalog>, parameters: &Parameters) -> Effect {
    if text.contains(&b'\\') && is_unclear(text, parameters) {
        return Effect::unknown();
    }
    // A text that does not end is not executed.
    sql::effect(text, catalog, &|name| parameters.is_tracked(name)).unwrap_or_default()
}

/// Whether a backslash in a text may end a string where none seems to end: it means something in each of them, or is half of a
/// character in one of those in which it does.
#[cold]
fn is_unclear(text: &[u8], parameters: &Parameters) -> bool {
    let meaning = parameters.meaning();
    let has_escapes = || text.windows(2).any(|two| two.eq_ignore_ascii_case(b"e'"));
    !meaning.standard_strings || meaning.ascii_in_characters && !text.is_ascii() && has_escapes()
}

/// Of a long text of which only the beginning is there.
#[cold]
fn of_beginning(text: &[u8], catalog: Option<&Catalog>, parameters: &Parameters) -> Effect {
    if !sql::is_about_rows(text) || !parameters.meaning().standard_strings {
        return Effect::unknown();
    }
    sql::effect(text, catalog, &|name| parameters.is_tracked(name)).unwrap_or_else(|so_far| so_far)
}

#[cfg(test)]
mod tests;
