//! A server's side of the conversation, and how it passes from client to client.

use std::sync::Arc;

use super::client::ClientSession;
use super::frames::{MAX_NAME, Rest};
use crate::session::command::{self, Ddl};
use crate::session::parameters::{self, Parameters, ReportError};
use crate::session::pipeline::{Action, Expect, Pipeline, Unexpected};
use crate::session::prepared::ServerStatements;
use crate::session::unnamed::Unnamed;
use crate::wire::frame::{FrameError, peek};
use crate::wire::tag::backend;
use crate::wire::write;

/// How much a server may say to messages of the proxy's own, up to a ReadyForQuery.
pub(super) const MAX_ANSWER: usize = 1024 * 1024;

/// A server's side of the conversation. It moves with the server connection.
#[derive(Debug, Default)]
pub struct ServerSession {
    /// Parameters as last reported.
    pub parameters: Arc<Parameters>,
    /// Prepared statements.
    pub statements: ServerStatements,
    /// Replies owed.
    pub pipeline: Pipeline,
    pub(super) unnamed: Unnamed,
    pub(super) rest: Rest,
    /// What the transaction has changed in the database's catalog.
    pub(super) ddl: Ddl,
    /// Its client's first transaction may be over: what it does now may be part of another one.
    pub(super) past_first: bool,
    /// One client has it for a whole session.
    pub(super) exclusive: bool,
    /// A client has it for one statement: there are no transaction blocks.
    pub(super) by_statement: bool,
    /// It has said FATAL: it ends the connection.
    pub(super) has_ended: bool,
    /// … and its client has been told why.
    pub(super) has_said_why: bool,
    /// Bytes of its answer that nobody gets, since the last ReadyForQuery.
    pub(super) dropped: usize,
}

/// The server sent something that cannot be; it must be closed.
#[derive(Debug, thiserror::Error)]
pub enum ServerFault {
    /// A broken frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A message out of order.
    #[error(transparent)]
    Unexpected(#[from] Unexpected),
    /// More parameters than can be kept.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// A message longer than `max_packet_size`.
    #[error("message of {0} bytes from server is longer than max_packet_size")]
    TooLong(usize),
    /// An answer without an end to a question of the proxy's own.
    #[error("server answers a query of the pooler with more than {MAX_ANSWER} bytes")]
    TooMuch,
    /// It refused something the proxy itself had asked for: parameters or a check query.
    #[error("{0}")]
    Setup(String),
    /// It goes away, and has not seen anything of the client's.
    #[error("{0}")]
    Leaving(String),
    /// Its client has begun a transaction block, and the pool mode is `statement`.
    #[error("transaction blocks not allowed in statement pooling mode")]
    Transaction,
}

impl ServerSession {
    /// A server that has just let us in and reported these parameters.
    pub fn new(parameters: Parameters) -> Self {
        Self { parameters: Arc::new(parameters), ..Self::default() }
    }

    /// Whether another client may have this server: nothing is owed and no frame is under way.
    pub fn is_settled(&self) -> bool {
        self.pipeline.is_settled() && self.rest.left == 0
    }

    /// A client gets this server. Its unnamed statement, if there is one, belongs to another client.
    /// `exclusive`: for as long as it wants.
    pub fn attach(&mut self, client: &ClientSession, exclusive: bool) {
        self.pipeline.catch_up(client.last_change);
        self.unnamed.valid = false;
        self.past_first = false;
        self.exclusive = exclusive;
    }

    /// Whether the client that has this server may not begin transaction blocks (`pool_mode = statement`).
    pub fn refuse_blocks(&mut self, refuse: bool) {
        self.by_statement = refuse;
    }

    /// Whether its client has been told that it ends the connection, and why.
    pub fn has_said_why(&self) -> bool {
        self.has_said_why
    }

    /// A client leaves this settled server: it takes along what the server knows of it.
    pub fn detach(&mut self, client: &mut ClientSession) {
        if !Arc::ptr_eq(&client.parameters, &self.parameters) {
            client.parameters = Arc::clone(&self.parameters);
        }
        if let Some(unnamed) = self.unnamed.leave() {
            client.unnamed = Some(unnamed);
        }
        client.last_change = self.pipeline.changes().made;
        if let Some(known) = client.statements.any() {
            known.bound = None;
        }
    }

    /// The server is lost: what it was told and has not answered has not happened.
    pub fn lose(&self, client: &mut ClientSession) {
        client.last_change = self.pipeline.changes().made;
        if let Some(known) = client.statements.any() {
            known.lose_server();
        }
    }

    /// Puts a query of the proxy's own in; nobody will see its answer.
    pub fn ask(&mut self, sql: &[u8], out: &mut Vec<u8>) {
        write::query(out, sql);
        self.pipeline.expect(Expect::Query, Action::Skip);
    }

    /// Takes what a server says while no client has it. `Err` if it must be closed: it is going away, or says
    /// what nobody asked for.
    pub fn on_idle_bytes(&mut self, buf: &[u8]) -> Result<usize, ServerFault> {
        let mut at = 0;
        while let Some(frame) = peek(&buf[at..])? {
            if !frame.is_complete() && frame.len <= MAX_NAME {
                break;
            }
            match frame.tag {
                backend::PARAMETER_STATUS if frame.is_complete() => self.report(frame.body)?,
                backend::NOTICE_RESPONSE | backend::NOTIFICATION_RESPONSE if frame.is_complete() => {}
                other => return Err(Unexpected(other).into()),
            }
            at += frame.len;
        }
        Ok(at)
    }

    /// Takes the ParameterStatus and CommandComplete messages of an answer that no client gets.
    pub fn note(&mut self, tag: u8, body: &[u8]) -> Result<(), ReportError> {
        match tag {
            backend::PARAMETER_STATUS => return self.report(body),
            backend::COMMAND_COMPLETE if command::forgets_statements(body) => {
                self.statements.copies_mut().forget(self.pipeline.changes().made);
            }
            _ => {}
        }
        Ok(())
    }

    /// The server has taken a value that the proxy itself has set, and may not say so.
    pub fn note_set(&mut self, name: &[u8], value: &[u8]) {
        Arc::make_mut(&mut self.parameters).note_set(name, value);
    }

    /// Takes a ParameterStatus.
    pub fn report(&mut self, body: &[u8]) -> Result<(), ReportError> {
        let (name, value) =
            crate::wire::backend::parameter_status(body).ok_or(FrameError::Body("ParameterStatus"))?;
        if self.parameters.get(name) != Some(value) {
            parameters::report(Arc::make_mut(&mut self.parameters), body)?;
        }
        Ok(())
    }
}

/// Makes a server's parameters equal to a client's: appends a query to `out` if they differ, whose answers the
/// client will not see. Equal parameters become one shared value, so that the next comparison is one of pointers.
pub fn align_parameters(client: &mut ClientSession, server: &mut ServerSession, out: &mut Vec<u8>) -> bool {
    if Arc::ptr_eq(&client.parameters, &server.parameters) {
        return false;
    }
    if *client.parameters == *server.parameters {
        if Arc::as_ptr(&client.parameters) < Arc::as_ptr(&server.parameters) {
            server.parameters = Arc::clone(&client.parameters);
        } else {
            client.parameters = Arc::clone(&server.parameters);
        }
        return false;
    }
    let differs = client.parameters.write_difference(&mut server.parameters, out);
    if differs {
        server.pipeline.expect(Expect::Query, Action::Skip);
    }
    differs
}

/// Reads one ParameterStatus of a login.
pub fn login_parameter(parameters: &mut Parameters, body: &[u8]) -> Result<(), ReportError> {
    parameters::report(parameters, body).map(drop)
}
