//! Tests of the whole program: the real binary in front of a real PostgreSQL primary and its streaming replica, seen by
//! real drivers and by a client that speaks raw protocol where a driver would be too polite.
//!
//! All tests of a run share one cluster; each starts poolers of its own. [`support`] has what they need.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "tests live in real time, on runtimes of their own")]
#![allow(clippy::print_stdout, reason = "figures for whoever runs the test by hand")]

mod access;
mod bounds;
mod cancel;
mod coming_back;
mod command_line;
mod configuration;
mod consistency;
mod console;
mod console_commands;
mod console_protocol;
mod door;
mod drivers;
mod drop_in;
mod failover;
mod hostile;
mod integrity;
mod isready;
mod ldap;
mod leaving;
mod log_lines;
mod login;
mod metrics;
mod names;
mod overload;
mod peers;
mod pooling;
mod pools;
mod prepared;
mod proofs;
mod reload;
mod replication;
mod routing;
mod routing_hints;
mod routing_standby;
mod routing_state;
mod routing_table;
mod services;
mod shutdown;
mod startup;
mod support;
mod systemd;
mod takeover;
mod timeouts;
mod tls;
mod unix_sockets;
