//! A whole session, twice: once a client talks to a server directly, once through the proxy, which gives it another
//! server now and then. What comes back must be the same, byte for byte. The input says what the client sends, how much
//! of it has arrived, and how much of the answers.

use std::collections::{BTreeMap, VecDeque};

use pgweir::wire::backend::error_fields;
use pgweir::wire::frame::{Frame, peek};

use super::bytes::{Bytes, message, messages};
use super::session::Link;

/// A server, as far as it matters who gets which answer: prepared statements, transactions, errors, COPY.
///
/// The first word of a statement says what it does; a row consists of its text and the parameters it was bound to.
#[derive(Default)]
struct Postgres {
    input: Vec<u8>,
    statements: BTreeMap<Vec<u8>, Vec<u8>>,
    portal: Option<Vec<u8>>,
    status: Status,
    /// After an error in the extended protocol.
    skips: bool,
    copy: Option<Copy>,
    /// DEALLOCATE ALL was run. Whether the proxy takes it for the reason that there is no statement depends on when it was answered.
    has_forgotten: bool,
    output: Vec<u8>,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Status {
    #[default]
    Idle = b'I' as isize,
    Transaction = b'T' as isize,
    Failed = b'E' as isize,
}

#[derive(Clone, Copy, PartialEq)]
enum Copy {
    Simple,
    Extended,
}

/// An error, by its SQLSTATE and its message.
struct Failed(&'static str, &'static str);

const SOME_ERROR: Failed = Failed("22000", "failed");
const UNKNOWN: Failed = Failed("26000", "unknown");
/// The same after DEALLOCATE ALL.
const FORGOTTEN: Failed = Failed("26000", "forgotten");
const EXISTS: Failed = Failed("42P05", "exists");

impl Postgres {
    /// Deals with all that has come; an incomplete message waits.
    fn work(&mut self) -> Vec<u8> {
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        while let Some(frame) = peek(rest).unwrap().filter(|frame| frame.is_complete()) {
            self.message(frame.tag, frame.body);
            rest = &rest[frame.len..];
        }
        self.input = rest.to_vec();
        std::mem::take(&mut self.output)
    }

    fn say(&mut self, tag: u8, body: &[u8]) {
        self.output.extend(message(tag, body));
    }

    fn ready(&mut self) {
        if self.status == Status::Idle {
            self.portal = None;
        }
        self.say(b'Z', &[self.status as u8]);
    }

    fn fail(&mut self, Failed(sqlstate, message): Failed) {
        self.say(b'E', format!("SERROR\0VERROR\0C{sqlstate}\0M{message}\0\0").as_bytes());
        if self.status == Status::Transaction {
            self.status = Status::Failed;
        }
    }

    fn message(&mut self, tag: u8, body: &[u8]) {
        if let Some(copy) = self.copy {
            return self.copy_message(copy, tag);
        }
        if self.skips && tag != b'S' {
            return;
        }
        match tag {
            b'Q' => {
                self.statements.remove(&b""[..]);
                if let Err(failed) = self.run(body.strip_suffix(b"\0").unwrap(), Copy::Simple) {
                    self.fail(failed);
                }
                if self.copy.is_none() {
                    self.ready();
                }
            }
            b'S' => {
                self.skips = false;
                self.ready();
            }
            b'd' | b'c' | b'f' | b'H' => {}
            b'F' => {
                self.say(b'V', b"\0\0\0\0");
                self.ready();
            }
            _ => {
                if let Err(failed) = self.extended(tag, body) {
                    self.fail(failed);
                    self.skips = true;
                }
            }
        }
    }

    /// Everything but the end is swallowed.
    fn copy_message(&mut self, copy: Copy, tag: u8) {
        match tag {
            b'c' => self.say(b'C', b"COPY 1\0"),
            b'f' => {
                self.fail(SOME_ERROR);
                self.skips = copy == Copy::Extended;
            }
            _ => return,
        }
        self.copy = None;
        if copy == Copy::Simple {
            self.ready();
        }
    }

    fn extended(&mut self, tag: u8, body: &[u8]) -> Result<(), Failed> {
        let mut strings = body.split(|&byte| byte == 0);
        let mut string = || strings.next().unwrap_or_default();
        match tag {
            b'P' => {
                let (name, text) = (string(), string());
                if name.is_empty() {
                    self.statements.remove(name);
                }
                // In a failed transaction a real server refuses this one, too. The proxy knows that the statement is good.
                if text.starts_with(b"wrong") {
                    return Err(SOME_ERROR);
                }
                if self.statements.contains_key(name) {
                    return Err(EXISTS);
                }
                self.statements.insert(name.to_vec(), text.to_vec());
                self.say(b'1', b"");
            }
            b'B' => {
                let (_, name, parameter) = (string(), string(), string());
                let text = self.statement(name)?;
                let bound = [text, &b" "[..], parameter].concat();
                self.refuse_if_failed(&bound)?;
                self.portal = Some(bound);
                self.say(b'2', b"");
            }
            b'D' if body[0] == b'P' => {
                let text = self.portal.clone().ok_or(SOME_ERROR)?;
                self.refuse_if_failed(&text)?;
                // What it is bound to makes no difference to its columns.
                let statement = text.iter().rposition(|&byte| byte == b' ').unwrap();
                self.columns(&text[..statement]);
            }
            b'D' => {
                let text = self.statement(&body[1..body.len() - 1])?.clone();
                self.refuse_if_failed(&text)?;
                self.say(b't', &text);
                self.columns(&text);
            }
            b'E' => {
                let text = self.portal.clone().ok_or(SOME_ERROR)?;
                self.run(&text, Copy::Extended)?;
            }
            b'C' => {
                match body[0] {
                    b'S' => drop(self.statements.remove(&body[1..body.len() - 1])),
                    _ if body == b"P\0" => self.portal = None,
                    _ => {}
                }
                self.say(b'3', b"");
            }
            other => panic!("message {other}"),
        }
        Ok(())
    }

    fn columns(&mut self, statement: &[u8]) {
        if statement.starts_with(b"begin") {
            self.say(b'n', b"");
        } else {
            self.say(b'T', statement);
        }
    }

    fn statement(&self, name: &[u8]) -> Result<&Vec<u8>, Failed> {
        self.statements.get(name).ok_or(if self.has_forgotten { FORGOTTEN } else { UNKNOWN })
    }

    /// In a failed transaction there is nothing to do but to end it.
    fn refuse_if_failed(&self, text: &[u8]) -> Result<(), Failed> {
        if self.status == Status::Failed && !text.starts_with(b"end") { Err(SOME_ERROR) } else { Ok(()) }
    }

    fn run(&mut self, text: &[u8], protocol: Copy) -> Result<(), Failed> {
        self.refuse_if_failed(text)?;
        match text {
            [] => self.say(b'I', b""),
            [b'b', b'e', b'g', ..] => {
                self.status = Status::Transaction;
                self.say(b'C', b"BEGIN\0");
            }
            [b'e', b'n', b'd', ..] => {
                let tag: &[u8] = if self.status == Status::Failed { b"ROLLBACK\0" } else { b"COMMIT\0" };
                self.status = Status::Idle;
                self.say(b'C', tag);
            }
            [b'c', b'o', b'p', b'y', ..] => {
                self.copy = Some(protocol);
                // It cannot be run twice.
                self.portal = None;
                self.say(b'G', b"\0\0\0");
            }
            [b's', b'e', b't', ..] => {
                self.say(b'S', b"application_name\0x\0");
                self.say(b'C', b"SET\0");
            }
            b"DEALLOCATE ALL" => {
                self.statements.retain(|name, _| name.is_empty());
                self.has_forgotten = true;
                self.say(b'C', b"DEALLOCATE ALL\0");
            }
            [b'w', b'r', ..] => return Err(SOME_ERROR),
            _ => {
                if protocol == Copy::Simple {
                    self.say(b'T', b"");
                }
                self.say(b'D', text);
                if text.starts_with(b"f") {
                    return Err(SOME_ERROR);
                }
                self.say(b'C', b"SELECT 1\0");
            }
        }
        Ok(())
    }
}

/// The session through the proxy and the one without it.
struct Session {
    link: Link,
    direct: Postgres,
    /// All that the client should be told.
    expected: Vec<u8>,
    /// How much of that it has been told, and in how many bytes.
    told: (usize, usize),
    server: Postgres,
    /// Answers on their way.
    answers: VecDeque<u8>,
    /// What makes texts different.
    serial: u8,
    /// The client has used a statement without a name that it had prepared.
    has_used_unnamed: bool,
    /// The proxy has lost it, and says so.
    has_lost_unnamed: bool,
}

/// The proxy has ended the session, which is not what a server would do, but harmless.
struct Ended;

impl Session {
    fn send(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        self.direct.input.extend_from_slice(bytes);
        self.expected.extend(self.direct.work());
        let sent = self.link.client_sends(bytes);
        self.pass_on(bytes.first() == Some(&b'C'));
        if self.has_lost_unnamed { Err(Ended) } else { sent.map(drop).map_err(|_| Ended) }
    }

    /// What the proxy sends goes to the server.
    fn pass_on(&mut self, closes: bool) {
        let close_unnamed = message(b'C', b"S\0");
        let sent = &mut self.link.to_server;
        let is_lost = !closes && sent.windows(close_unnamed.len()).any(|part| part == close_unnamed);
        self.has_lost_unnamed |= is_lost && self.has_used_unnamed;
        self.server.input.append(sent);
    }

    /// The server does what it has been told so far.
    fn work(&mut self) {
        let answers = self.server.work();
        self.answers.extend(answers);
    }

    fn deliver(&mut self, most: usize) {
        let len = most.min(self.answers.len());
        let answers: Vec<_> = self.answers.drain(..len).collect();
        self.link.server_sends(&answers).unwrap_or_else(|fault| panic!("the server is blamed: {fault}"));
        // What was held back may go now.
        _ = self.link.client_sends(b"");
        self.pass_on(false);
        self.compare();
    }

    /// Compares what the client has been told since the last time.
    fn compare(&mut self) {
        while !self.has_lost_unnamed {
            let (expected, got) = (&self.expected[self.told.0..], &self.link.to_client[self.told.1..]);
            let Some(got) = peek(got).unwrap().filter(Frame::is_complete) else { return };
            let expected = peek(expected).unwrap().filter(|expected| is_same(expected, &got));
            let expected = expected.unwrap_or_else(|| panic!("{}", self.difference()));
            self.told = (self.told.0 + expected.len, self.told.1 + got.len);
        }
    }

    fn settle(&mut self) {
        loop {
            self.work();
            if self.answers.is_empty() {
                return;
            }
            self.deliver(usize::MAX);
        }
    }

    fn is_idle(&self) -> bool {
        self.link.is_quiet()
            && self.link.server.is_settled()
            && self.answers.is_empty()
            && self.server.input.is_empty()
    }

    /// The client gets another server if it can do without the one it has.
    fn change_server(&mut self) {
        self.settle();
        let is_spent = self.link.server.pipeline.is_spent();
        if !(self.is_idle() || is_spent && self.link.is_quiet()) {
            return;
        }
        self.link.change_server();
        // Somebody else has been there and has left a statement without a name.
        self.server = Postgres::default();
        self.server.statements.insert(Vec::new(), b"somebody else's".to_vec());
    }

    fn difference(&self) -> String {
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).escape_debug().to_string();
        let (expected, got) = self.told;
        format!(
            "\n   after {}\nexpected {}\n     got {}",
            shown(&self.link.to_client[..got]),
            shown(&self.expected[expected..]),
            shown(&self.link.to_client[got..])
        )
    }

    /// One step; the input chooses.
    fn step(&mut self, bytes: &mut Bytes<'_>) -> Result<(), Ended> {
        let (kind, choice) = (bytes.choice(), bytes.choice());
        let name = [&b"a\0"[..], b"b\0", b"c\0", b"\0"][usize::from(choice & 3)];
        self.serial = self.serial.wrapping_add(1);
        let fresh = format!("{}\0", self.serial).into_bytes();
        if self.direct.copy.is_some() && matches!(kind % 16, 0..=10 | 12) {
            // All that makes sense now is data, and to end it.
            let sent: (u8, &[u8]) =
                [(b'd', &b"2\n"[..]), (b'H', b""), (b'c', b""), (b'f', b"no\0")][usize::from(choice & 3)];
            return self.send(&messages(&[sent]));
        }
        // The proxy may send its answer only when the client has sent more, and has ended the statement.
        let uses_unnamed = matches!(kind % 16, 3..=5) && name == b"\0";
        self.has_used_unnamed |= uses_unnamed && self.direct.statements.contains_key(&b""[..]);
        match kind % 16 {
            0 => {
                let texts: [&[u8]; 6] = [b"select ", b"begin", b"end", b"wrong", b"set", b""];
                let text = [texts[usize::from(choice) % 6], &fresh].concat();
                self.send(&message(b'Q', if choice % 6 == 5 { b"\0" } else { &text }))
            }
            // A name has its text, so that closed statements come back. What cannot be prepared is different each time.
            1 | 2 => {
                let texts: [&[u8]; 6] = [b"select ", b"begin ", b"end ", b"fails ", b"set ", b"wrong "];
                let text = texts[usize::from(choice >> 2) % 6];
                let text = [text, if text == b"wrong " { &fresh } else { name }].concat();
                self.send(&message(b'P', &[name, text.strip_suffix(b"\0").unwrap(), b"\0\0\0"].concat()))
            }
            3 | 4 => self.send(&message(b'B', &[b"\0", name, &fresh].concat())),
            5 => self.send(&message(b'D', &[b"S", name].concat())),
            6 => self.send(&message(b'D', b"P\0")),
            7 | 8 => self.send(&message(b'E', b"\0\0\0\0\0")),
            9 => self.send(&message(b'C', &[b"S", name].concat())),
            10 if choice < 64 => self.send(&message(b'C', b"P\0")),
            10 if choice < 128 => self.send(&message(b'H', b"")),
            10 if choice < 192 => self.send(&message(b'F', b"\0\0\0\0")),
            10 => self.send(&message(b'Q', b"DEALLOCATE ALL\0")),
            11 => self.send(&message(b'S', b"")),
            12 => self.copy(choice),
            13 => {
                self.work();
                Ok(())
            }
            14 => {
                self.deliver(usize::from(choice) % 40 + 1);
                Ok(())
            }
            _ => {
                self.change_server();
                Ok(())
            }
        }
    }

    fn copy(&mut self, choice: u8) -> Result<(), Ended> {
        let text = if choice & 1 > 0 { "copy" } else { "wrong copy" };
        let end: (u8, &[u8]) = if choice & 2 > 0 { (b'c', b"") } else { (b'f', b"no\0") };
        // Before it nothing is under way: a client that copies waits for what comes before.
        self.send(&message(b'S', b""))?;
        self.settle();
        if choice & 4 > 0 {
            self.send(&messages(&[(b'Q', format!("{text}\0").as_bytes())]))?;
        } else {
            let parse = format!("\0{text}\0\0\0");
            self.send(&messages(&[(b'P', parse.as_bytes()), (b'B', b"\0\0\0"), (b'E', b"\0\0\0\0\0")]))?;
            // libpq sends this at once.
            self.send(&message(b'S', b""))?;
        }
        if choice & 8 > 0 {
            self.settle();
        }
        self.send(&messages(&[(b'd', b"1\n"), end]))?;
        if choice & 4 == 0 {
            self.send(&message(b'S', b""))?;
        }
        Ok(())
    }
}

/// Whether two messages are the same; errors, if they have the same SQLSTATE: the proxy has its own words for some, and
/// PgBouncer's SQLSTATE for a name that DEALLOCATE ALL has removed.
fn is_same(expected: &Frame<'_>, got: &Frame<'_>) -> bool {
    if (expected.tag, got.tag) != (b'E', b'E') {
        return (expected.tag, expected.body) == (got.tag, got.body);
    }
    let (expected, got) = (error_fields(expected.body), error_fields(got.body));
    let is_forgotten = expected.message == FORGOTTEN.1.as_bytes();
    expected.sqlstate == got.sqlstate || is_forgotten && got.sqlstate == b"08P01"
}

pub(super) fn conversation(input: &[u8]) {
    let mut bytes = Bytes(input);
    let mut session = Session {
        link: Link::new(),
        direct: Postgres::default(),
        expected: Vec::new(),
        told: (0, 0),
        server: Postgres::default(),
        answers: VecDeque::new(),
        serial: 0,
        has_used_unnamed: false,
        has_lost_unnamed: false,
    };
    session.link.max_prepared = [1, 2, 100][usize::from(bytes.choice()) % 3];
    while !bytes.0.is_empty() {
        if session.step(&mut bytes).is_err() {
            session.settle();
            return;
        }
    }
    if session.send(&message(b'S', b"")).is_ok() {
        session.settle();
        if session.has_lost_unnamed {
            return;
        }
        let all = (session.expected.len(), session.link.to_client.len());
        assert_eq!(session.told, all, "{}", session.difference());
        let is_copying = session.direct.copy.is_some();
        assert!(session.link.is_quiet() && (is_copying || session.link.server.pipeline.is_empty()));
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    vec![
        b"\x01\x00\x00\x01\x00\x03\x00\x07\x00\x0b\x00\x0d\x00\x0e\x05\x0e\xff\x0f\x00\x03\x00\x07\x00\x0b\x00".to_vec(),
        b"\x00\x01\x00\x01\x01\x01\x02\x0b\x00\x0d\x00\x0e\xff\x03\x00\x05\x01\x09\x00\x01\x00\x07\x00\x0b\x00".to_vec(),
        b"\x02\x00\x01\x01\x0d\x0b\x00\x03\x01\x07\x00\x0b\x00\x00\x02\x0f\x00\x0c\x05\x0c\x01\x0f\x00\x0a\xff".to_vec(),
        b"\x01\x01\x03\x0b\x00\x0f\x00\x03\x03\x06\x00\x07\x00\x0b\x00\x0c\x0b\x0c\x03\x0c\x08\x0f\x00\x0c\x02".to_vec(),
        b"\x01\x00\x01\x01\x14\x0b\x00\x0f\x00\x00\x02\x03\x00\x07\x00\x07\x00\x05\x00\x0b\x00\x0d\x00\x0f\x00".to_vec(),
        b"\x01\x07\x00\x01\x0f\x0b\x00\x03\x03\x03\x03".to_vec(),
    ]
}
