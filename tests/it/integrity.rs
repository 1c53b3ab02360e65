//! The promise that matters most: no client ever sees another client's rows or settings.
//!
//! Many clients share few servers. Each sends queries that can only be answered with its own name and number, in every
//! way the protocol knows, cut into pieces, and now and then cancels, fails, disconnects or runs into a timeout. Every row is compared.
//! `PGWEIR_CHECK_SECONDS` makes it last longer than the few seconds of a normal run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::support::raw::{Message, Raw, bind, execute, message, parse, query, sync};
use crate::support::{Pooler, eventually, run};

/// Numbers that look random and are the same in each run.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

#[derive(Default)]
struct Tally {
    rows: AtomicU64,
    errors: AtomicU64,
    reconnects: AtomicU64,
    cancels: AtomicU64,
}

struct Checker {
    port: u16,
    name: String,
    dice: Dice,
    tally: Arc<Tally>,
    raw: Option<Raw>,
    number: u64,
}

impl Checker {
    async fn run(mut self, until: Instant) {
        while Instant::now() < until {
            if self.raw.is_none() {
                let parameters =
                    [("user", crate::support::USER), ("database", "app"), ("application_name", &*self.name)];
                let raw = Raw::log_in_with(self.port, 3 << 16, &parameters, crate::support::PASSWORD).await;
                self.raw = Some(raw.unwrap_or_else(|error| panic!("{}: {}", self.name, error.field('M'))));
                self.tally.reconnects.fetch_add(1, Relaxed);
                let prepare = format!("SELECT '{}-prepared', current_setting('application_name')", self.name);
                let batch = [parse("p", &prepare), sync()].concat();
                self.exchange(&batch, 1).await;
            }
            self.number += 1;
            let tag = format!("{}:{}", self.name, self.number);
            let select = format!("SELECT '{tag}', current_setting('application_name')");
            match self.dice.roll(16) {
                0..=3 => self.expect(&query(&select), 1, &tag).await,
                4 | 5 => {
                    self.expect(&[parse("", &select), bind(""), execute(), sync()].concat(), 1, &tag).await
                }
                6 | 7 => {
                    let prepared = format!("{}-prepared", self.name);
                    self.expect(&[bind("p"), execute(), sync()].concat(), 1, &prepared).await;
                }
                8 => {
                    let batch: Vec<u8> = (0..5).flat_map(|_| query(&select)).collect();
                    self.expect(&batch, 5, &tag).await;
                }
                9 => {
                    let all = [
                        query("BEGIN"),
                        query(&select),
                        query("SELECT 1/0"),
                        query("ROLLBACK"),
                        query(&select),
                    ]
                    .concat();
                    self.expect(&all, 5, &tag).await;
                }
                10 => {
                    let failing = [
                        parse("", "SELECT 1/0"),
                        bind(""),
                        execute(),
                        parse("", &select),
                        bind(""),
                        execute(),
                        sync(),
                    ];
                    let batch = [failing.concat(), parse("", &select), bind(""), execute(), sync()].concat();
                    self.expect(&batch, 2, &tag).await;
                }
                11 => {
                    let many = format!(
                        "SELECT '{tag}', current_setting('application_name') FROM generate_series(1, 500)"
                    );
                    self.expect(&query(&many), 1, &tag).await;
                }
                12 => {
                    let copy = format!("COPY (SELECT '{tag}' FROM generate_series(1, 50)) TO STDOUT");
                    self.copy(&copy, &tag).await;
                }
                13 => self.cancel(&tag).await,
                14 => {
                    // Leave in the middle of something.
                    let raw = self.raw.as_mut().unwrap();
                    let cut = usize::try_from(self.dice.roll(20)).unwrap();
                    let bytes = [query(&select), query("BEGIN"), query(&select)].concat();
                    raw.send(&bytes[..bytes.len() - cut]).await;
                    self.raw = None;
                }
                _ => {
                    let set = format!("SET TimeZone = 'Etc/GMT+{}'", self.dice.roll(12));
                    let zone = set.split('\'').nth(1).unwrap().to_owned();
                    let show = format!(
                        "SELECT '{tag}', current_setting('application_name'), current_setting('TimeZone')"
                    );
                    self.expect(&query(&set), 1, &tag).await;
                    for row in self.expect_rows(&query(&show), 1, &tag).await {
                        assert_eq!(row[2], zone, "{tag}: another client's setting");
                    }
                }
            }
        }
        if let Some(mut raw) = self.raw {
            raw.send(&message(b'X', b"")).await;
        }
    }

    /// Sends bytes in pieces; gives the messages up to the given number of ReadyForQuery.
    async fn exchange(&mut self, bytes: &[u8], batches: usize) -> Vec<Message> {
        let raw = self.raw.as_mut().unwrap();
        if self.dice.roll(4) == 0 {
            let mut rest = bytes;
            while !rest.is_empty() {
                let piece = usize::try_from(1 + self.dice.roll(40)).unwrap().min(rest.len());
                raw.send(&rest[..piece]).await;
                rest = &rest[piece..];
                tokio::task::yield_now().await;
            }
        } else {
            raw.send(bytes).await;
        }
        let mut messages = Vec::new();
        for _ in 0..batches {
            messages.extend(raw.until_ready().await);
        }
        if messages.last().is_none_or(|m| m.tag != 'Z') {
            let error = messages.iter().find(|m| m.tag == 'E').map(|m| m.field('M'));
            panic!("{}: the connection was closed: {error:?}", self.name);
        }
        messages
    }

    async fn expect(&mut self, bytes: &[u8], batches: usize, tag: &str) {
        self.expect_rows(bytes, batches, tag).await;
    }

    async fn expect_rows(&mut self, bytes: &[u8], batches: usize, tag: &str) -> Vec<Vec<String>> {
        let messages = self.exchange(bytes, batches).await;
        assert_eq!(messages.iter().filter(|m| m.tag == 'Z').count(), batches);
        self.tally.errors.fetch_add(messages.iter().filter(|m| m.tag == 'E').count() as u64, Relaxed);
        let rows: Vec<_> = messages.iter().filter(|m| m.tag == 'D').map(Message::values).collect();
        for row in &rows {
            assert_eq!(row[0], tag, "a foreign row");
            assert_eq!(row[1], self.name, "another client's setting");
        }
        self.tally.rows.fetch_add(rows.len() as u64, Relaxed);
        rows
    }

    async fn copy(&mut self, sql: &str, tag: &str) {
        let messages = self.exchange(&query(sql), 1).await;
        let lines: Vec<_> = messages.iter().filter(|m| m.tag == 'd').map(|m| m.text()).collect();
        assert_eq!(lines.len(), 50);
        assert!(lines.iter().all(|line| line.trim_end() == tag), "a foreign row");
        self.tally.rows.fetch_add(50, Relaxed);
    }

    /// A cancel request that races with the end of its own query: it may or may not hit that query, and nothing else.
    async fn cancel(&mut self, tag: &str) {
        let key = self.raw.as_ref().unwrap().key.clone();
        let pause = self.dice.roll(6);
        let sleep = format!(
            "SELECT '{tag}', current_setting('application_name'), pg_sleep(0.00{})",
            self.dice.roll(6)
        );
        let port = self.port;
        let request = async move {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let mut raw = Raw::connect(port).await;
            let body = [&80_877_102u32.to_be_bytes()[..], &key.0.to_be_bytes(), &key.1].concat();
            raw.send(&[&16u32.to_be_bytes()[..], &body].concat()).await;
            let _ = raw.receive().await;
        };
        let sleep = query(&sleep);
        let (messages, ()) = tokio::join!(self.exchange(&sleep, 1), request);
        self.tally.cancels.fetch_add(1, Relaxed);
        for message in messages {
            match message.tag {
                'D' => assert_eq!(message.values()[0], tag, "a foreign row"),
                'E' => assert_eq!(message.field('C'), "57014"),
                _ => {}
            }
        }
    }
}

#[test]
fn no_client_sees_anything_of_another() {
    let seconds = std::env::var("PGWEIR_CHECK_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(6);
    let clients = 200;
    let pooler = Pooler::start(
        "default_pool_size = 8\nmax_client_conn = 1000\nmax_prepared_statements = 20\nworkers = 2\nlog_connections = 0\nlog_disconnections = 0",
    );
    let tally = Arc::new(Tally::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let until = Instant::now() + Duration::from_secs(seconds);
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..clients {
            let checker = Checker {
                port: pooler.port,
                name: format!("client-{n}"),
                dice: Dice(0x9e37_79b9_7f4a_7c15 ^ (n + 1)),
                tally: Arc::clone(&tally),
                raw: None,
                number: 0,
            };
            tasks.spawn(checker.run(until));
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
    });
    let count = |counter: &AtomicU64| counter.load(Relaxed);
    println!(
        "{} rows compared, {} errors provoked, {} logins, {} cancel requests, {seconds} s",
        count(&tally.rows),
        count(&tally.errors),
        count(&tally.reconnects),
        count(&tally.cancels)
    );
    assert!(count(&tally.rows) > 1000 && count(&tally.cancels) > 10 && count(&tally.reconnects) > clients);
    eventually("all counters are back to zero", || {
        run(async {
            let busy = ["cl_active", "cl_waiting", "sv_active", "sv_being_canceled", "sv_tested", "sv_login"];
            let mut sum = 0;
            for column in busy {
                sum += pooler.figure("SHOW POOLS", "app", column).await;
            }
            sum == 0 && pooler.figure("SHOW POOLS", "app", "sv_idle").await <= 8
        })
    });
}
