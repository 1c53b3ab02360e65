//! Two clients share one server, and each has a prepared statement with the name `s`. No socket and no PostgreSQL is
//! needed: the room `session` looks at bytes and says which bytes the other side gets.
//!
//!     cargo run --example session

use std::error::Error;
use std::io::{self, Write};

use pgweir::session::forward::{self, ClientSession, Context, ServerSession};
use pgweir::session::output::Output;
use pgweir::session::prepared::Registry;
use pgweir::wire::write::{self, cstr, frame};
use pgweir::wire::{frame as frames, frontend};

fn main() -> Result<(), Box<dyn Error>> {
    // One for the whole program: a text that two clients prepare is one statement on servers.
    let registry = Registry::default();
    let (mut ann, mut bob) = (ClientSession::default(), ClientSession::default());
    let mut server = ServerSession::default();

    transaction("Ann prepares and runs", &mut ann, &mut server, &registry, Some("SELECT 1"))?;
    transaction("Bob prepares and runs", &mut bob, &mut server, &registry, Some("SELECT 2"))?;
    // The server still has it, under the name that the pooler has given it.
    transaction("Ann runs", &mut ann, &mut server, &registry, None)?;
    // Another one does not: the Parse is put in front, and its answer does not go to Ann.
    let mut other = ServerSession::default();
    transaction("Ann runs, on another server", &mut ann, &mut other, &registry, None)
}

/// One batch and its answer. The server is the client's from the first byte to the ReadyForQuery.
fn transaction(
    title: &str,
    client: &mut ClientSession,
    server: &mut ServerSession,
    registry: &Registry,
    prepare: Option<&str>,
) -> Result<(), Box<dyn Error>> {
    let mut request = Vec::new();
    if let Some(text) = prepare {
        // The text, its NUL, and no parameter types.
        write::parse(&mut request, b"s", format!("{text}\0\0\0").as_bytes());
    }
    frame(&mut request, b'B', |out| {
        cstr(out, b"");
        cstr(out, b"s");
        out.extend([0; 6]);
    });
    frame(&mut request, b'E', |out| out.extend([0; 5]));
    frame(&mut request, b'S', |_| {});

    let context =
        Context { registry, max_prepared: 200, exclusive: false, one_at_a_time: false, refuse_simple: false };
    let mut scratch = Vec::new();
    server.attach(client, false);
    let mut to_server = Output::new(&request, &mut scratch);
    forward::client_to_server(&request, client, server, &context, &mut to_server)?;
    let (asked, answer) = (names(to_server.bytes())?, answer(to_server.bytes())?);

    // The server owes replies: no other client may have it now.
    assert!(!server.is_settled());
    let mut to_client = Output::new(&answer, &mut scratch);
    forward::server_to_client(&answer, server, client, &mut to_client)?;
    let told = names(to_client.bytes())?;
    // All of them have come, and no transaction is open: the next client may have it.
    assert!(server.is_settled());
    server.detach(client);

    let (sent, came) = (names(&request)?, names(&answer)?);
    writeln!(
        io::stdout(),
        "{title}\n  client sends: {sent}\n  server gets:  {asked}\n  server sends: {came}\n  client gets:  {told}"
    )?;
    Ok(())
}

/// What a server says to that.
fn answer(request: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut out = Vec::new();
    for (tag, _) in split(request)? {
        match tag {
            b'P' => frame(&mut out, b'1', |_| {}),
            b'B' => frame(&mut out, b'2', |_| {}),
            b'E' => write::command_complete(&mut out, "SELECT 0"),
            b'S' => write::ready_for_query(&mut out, b'I'),
            _ => return Err("an example that does not know this message".into()),
        }
    }
    Ok(out)
}

/// The messages by their tags, and the statement that each is about.
fn names(bytes: &[u8]) -> Result<String, Box<dyn Error>> {
    let text = split(bytes)?.into_iter().map(|(tag, body)| {
        let name = match tag {
            b'P' => frontend::parse_name(body),
            b'B' => frontend::bind(body).map(|bind| bind.name),
            _ => None,
        };
        match name {
            Some(name) => format!("{}({})", char::from(tag), String::from_utf8_lossy(name)),
            None => char::from(tag).to_string(),
        }
    });
    Ok(text.collect::<Vec<_>>().join(" "))
}

fn split(mut bytes: &[u8]) -> Result<Vec<(u8, &[u8])>, frames::FrameError> {
    let mut messages = Vec::new();
    while let Some(frame) = frames::peek(bytes)? {
        messages.push((frame.tag, frame.body));
        bytes = &bytes[frame.available()..];
    }
    Ok(messages)
}
