//! What the benches of the hot path are about: a client and a server that talk to each other in memory, and what they say.

use pgweir::session::forward::{self, ClientSession, Context, ServerSession};
use pgweir::session::output::Output;
use pgweir::session::pipeline::{Action, Expect};
use pgweir::session::prepared::Registry;

/// A short select, as pgbench sends it.
pub(crate) const SELECT: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = 12345;";

/// What the client of one round sends, and what its server answers.
pub(crate) struct Exchange {
    /// From the client.
    pub(crate) request: Vec<u8>,
    /// From the server.
    pub(crate) answer: Vec<u8>,
}

/// A simple query.
pub(crate) fn simple_query() -> Exchange {
    let request = message(b'Q', format!("{SELECT}\0").as_bytes());
    Exchange { request, answer: [message(b'T', &[0; 30]), one_row()].concat() }
}

/// A statement without a name: Parse, Bind, Describe, Execute, Sync.
pub(crate) fn extended_batch() -> Exchange {
    let request = [
        message(b'P', format!("\0{SELECT}\0\0\0").as_bytes()),
        message(b'B', &[0; 8]),
        message(b'D', b"P\0"),
        message(b'E', &[0; 5]),
        message(b'S', b""),
    ];
    let answer = [message(b'1', b""), message(b'2', b""), message(b'T', &[0; 30]), one_row()];
    Exchange { request: request.concat(), answer: answer.concat() }
}

/// The statement that [`prepared_batch`] runs is given its name.
pub(crate) fn prepare() -> Exchange {
    let request = [message(b'P', format!("s\0{SELECT}\0\0\0").as_bytes()), message(b'S', b"")];
    Exchange { request: request.concat(), answer: [message(b'1', b""), message(b'Z', b"I")].concat() }
}

/// A statement that is prepared already: Bind, Execute, Sync.
pub(crate) fn prepared_batch() -> Exchange {
    let request = [message(b'B', b"\0s\0\0\0\0\0\0\0"), message(b'E', &[0; 5]), message(b'S', b"")];
    Exchange { request: request.concat(), answer: [message(b'2', b""), one_row()].concat() }
}

/// About 64 KB of rows, as one read of a large result.
pub(crate) fn rows() -> Vec<u8> {
    message(b'D', &[b'x'; 90]).repeat(680)
}

/// A select with as many columns as ORMs like to name.
pub(crate) fn orm_select() -> String {
    let columns: Vec<String> =
        (0..40).map(|n| format!("\"entity\".\"column_number_{n}\" AS \"alias_{n}\"")).collect();
    let columns = columns.join(", ");
    format!(
        "SELECT {columns} FROM \"entity\" WHERE \"entity\".\"id\" = $1 AND lower(\"entity\".\"name\") = $2"
    )
}

fn one_row() -> Vec<u8> {
    [message(b'D', &[0; 12]), message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat()
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len() + 4).unwrap_or(0).to_be_bytes();
    [&[tag][..], &len, body].concat()
}

/// A client and the server that it has.
#[derive(Default)]
pub(crate) struct Pair {
    registry: Registry,
    client: ClientSession,
    server: ServerSession,
    scratch: Vec<u8>,
}

impl Pair {
    /// A transaction of one round: the client gets the server, asks, reads the answer and leaves it.
    pub(crate) fn transaction(&mut self, exchange: &Exchange) {
        let Self { registry, client, server, scratch } = self;
        let context = Context {
            registry,
            max_prepared: 200,
            exclusive: false,
            one_at_a_time: false,
            refuse_simple: false,
        };
        server.attach(client, false);
        let mut out = Output::new(&exchange.request, scratch);
        let sent = forward::client_to_server(&exchange.request, client, server, &context, &mut out);
        assert!(sent.is_ok_and(|sent| sent.consumed == exchange.request.len()) && !out.is_empty());
        let mut out = Output::new(&exchange.answer, scratch);
        assert!(forward::server_to_client(&exchange.answer, server, client, &mut out).is_ok());
        assert!(server.is_settled());
        server.detach(client);
    }

    /// The server owes the rows of a query from now on.
    pub(crate) fn ask(&mut self) {
        self.server.pipeline.expect(Expect::Query, Action::Forward);
        self.result(&message(b'T', &[0; 30]));
    }

    /// A part of a result, whose length is given as the client gets it.
    pub(crate) fn result(&mut self, part: &[u8]) -> usize {
        let mut out = Output::new(part, &mut self.scratch);
        assert!(forward::server_to_client(part, &mut self.server, &mut self.client, &mut out).is_ok());
        out.bytes().len()
    }
}
