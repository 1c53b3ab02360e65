//! What the console and signals can still do while a shutdown waits.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::raw::{Raw, message, query};
use crate::support::{Pooler, eventually, run};

const PAUSED: &str = "already suspended/paused";
const ENDING: &str = "pooler is shutting down";
const RUNNING: &str = "pooler is not paused/suspended";

/// Commands in their order, and the error of each without a shutdown, and with one that waits for clients and for servers.
const COMMANDS: &[(&str, [&str; 3])] = &[
    ("RESUME", [RUNNING, ENDING, ENDING]),
    ("PAUSE", ["", "", PAUSED]),
    ("PAUSE", [PAUSED, PAUSED, PAUSED]),
    ("KILL", [PAUSED, PAUSED, PAUSED]),
    ("SUSPEND", [PAUSED, PAUSED, PAUSED]),
    ("RESUME", ["", "", ENDING]),
    ("PAUSE app", ["", "", PAUSED]),
    ("RESUME app", ["", "", "database app is not paused"]),
    ("SUSPEND", ["", "", PAUSED]),
    ("RESUME", ["", "", ENDING]),
    ("DISABLE app", ["", "", ""]),
    ("ENABLE app", ["", "", ""]),
    ("RECONNECT", ["", "", ""]),
    ("RECONNECT app", ["", "", ""]),
    ("RELOAD", ["", "", ""]),
    ("KILL_CLIENT 999999", ["client not found", "client not found", "client not found"]),
    ("KILL app", ["", "", PAUSED]),
];

#[test]
fn commands_do_what_they_can_while_a_shutdown_waits() {
    for (column, shutdown) in
        ["", "SHUTDOWN WAIT_FOR_CLIENTS", "SHUTDOWN WAIT_FOR_SERVERS"].iter().enumerate()
    {
        let mut pooler = Pooler::start("");
        run(async {
            let mut raw = pooler.raw().await;
            assert_eq!(raw.value("SELECT 1").await, "1");
            let mut console = Raw::log_in(pooler.port, "pgbouncer").await;
            if column == 2 {
                raw.rows("BEGIN").await;
            }
            if column > 0 {
                console.rows(shutdown).await;
                // The console answers before the program has begun to end.
                eventually("the end has begun", || pooler.log().contains("got SHUTDOWN, shutting down"));
            }
            for (command, errors) in COMMANDS {
                console.send(&query(command)).await;
                let messages = console.until_ready().await;
                let error = messages.iter().find(|m| m.tag == 'E').map_or(String::new(), |m| m.field('M'));
                assert_eq!(error, errors[column], "{command}, {shutdown}");
            }
            if column == 2 {
                raw.rows("COMMIT").await;
            } else {
                assert_eq!(raw.receive().await.unwrap().field('C'), "57P01");
            }
        });
        if column > 0 {
            assert!(pooler.wait().success());
        }
    }
}

/// Clients that wait for a server when the end begins get it when the operator says so, or at once if they are only held.
#[test]
fn clients_that_are_paused_can_go_on_and_leave() {
    for (stop, go_on) in [("PAUSE", "RESUME"), ("PAUSE app", "RESUME"), ("PAUSE", "SIGUSR2"), ("SUSPEND", "")]
    {
        let mut pooler = Pooler::start("");
        run(async {
            let mut raw = pooler.raw().await;
            assert_eq!(raw.value("SELECT 1").await, "1");
            let mut console = Raw::log_in(pooler.port, "pgbouncer").await;
            console.rows(stop).await;
            raw.send(&query("SELECT 'at last'")).await;
            if go_on.is_empty() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            } else {
                while console.rows("SHOW POOLS").await.iter().all(|row| row[0] != "app" || row[3] != "1") {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            pooler.signal(Signal::SIGTERM);
            eventually("it has noticed", || pooler.log().contains("waiting for all clients"));
            match go_on {
                "" => {}
                "SIGUSR2" => pooler.signal(Signal::SIGUSR2),
                command => drop(console.rows(command).await),
            }
            assert_eq!(raw.until_ready().await[1].values(), ["at last"], "{stop}, {go_on}");
            raw.send(&message(b'X', b"")).await;
        });
        assert!(pooler.wait().success());
    }
}
