//! What a client and its server say to each other after login, without any I/O.
//!
//! * [`pipeline`]: which replies the server still owes, and to whom they go. **The safety rule lives here**: a
//!   server may be given to another client only while [`pipeline::Pipeline::is_settled`].
//! * [`forward`]: walks a buffer from one side and says which bytes go to the other.
//! * [`command`]: what a command that has ended means for where later ones may run.
//! * [`prepared`]: named prepared statements in transaction mode.
//! * [`parameters`]: run-time parameters that follow the client from server to server.
//! * [`startup`]: what a client asks for when it logs in.
//! * `journal`: a map whose changes can be undone while the server has not answered.
//! * `refused`: messages that the server is made to refuse.
//! * `columns`: the columns of a result as one number.
//! * [`numbers`]: numbers that say what they count.
//! * [`output`]: the bytes a walk produces: a slice of its input if nothing had to be changed.

mod columns;
pub mod command;
pub mod forward;
mod journal;
pub mod numbers;
pub mod output;
pub mod parameters;
pub mod pipeline;
pub mod prepared;
mod refused;
pub mod startup;
pub mod trials;
mod unnamed;
