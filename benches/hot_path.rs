//! What a message costs in user time: looking at frames, classifying statements, keeping the books, walking buffers.
//!
//!     cargo bench --bench hot_path

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pgweir::session::forward::{self, ClientSession, Context, ServerSession};
use pgweir::session::output::Output;
use pgweir::session::pipeline::{Action, Expect, Pipeline};
use pgweir::session::prepared::Registry;
use pgweir::sql::{self, Catalog};
use pgweir::wire::frame;

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len() + 4).unwrap_or(0).to_be_bytes();
    [&[tag][..], &len, body].concat()
}

/// About 64 KB of rows, as one read of a large result.
fn rows() -> Vec<u8> {
    message(b'D', &[b'x'; 90]).repeat(680)
}

fn framing(c: &mut Criterion) {
    let buf = rows();
    let mut group = c.benchmark_group("framing");
    group.throughput(Throughput::Elements(680));
    group.bench_function("64 KB of rows", |b| {
        b.iter(|| {
            let mut at = 0;
            while let Ok(Some(frame)) = frame::peek(&buf[at..]) {
                at += frame.len;
            }
            black_box(at)
        });
    });
    group.finish();
}

fn classification(c: &mut Criterion) {
    let columns: Vec<String> =
        (0..40).map(|n| format!("\"entity\".\"column_number_{n}\" AS \"alias_{n}\"")).collect();
    let orm = format!(
        "SELECT {} FROM \"entity\" WHERE \"entity\".\"id\" = $1 AND lower(\"entity\".\"name\") = $2",
        columns.join(", ")
    );
    let catalog = Catalog::default();
    let mut group = c.benchmark_group("classification");
    for (name, text) in [
        ("pgbench select", "SELECT abalance FROM pgbench_accounts WHERE aid = 12345;"),
        ("select of an ORM", &*orm),
        ("insert", "INSERT INTO t (a, b, c) VALUES ($1, $2, now()) RETURNING id"),
        (
            "writing CTE",
            "WITH moved AS (UPDATE t SET a = 1 WHERE b = $1 RETURNING *) SELECT count(*) FROM moved",
        ),
        ("nextval", "SELECT nextval('s')"),
    ] {
        group.bench_function(name, |b| b.iter(|| sql::classify(black_box(text.as_bytes()), Some(&catalog))));
    }
    group.finish();
}

fn pipeline(c: &mut Criterion) {
    c.bench_function("pipeline/extended batch", |b| {
        let mut pipeline = Pipeline::default();
        b.iter(|| {
            for expect in [Expect::Parse, Expect::Bind, Expect::Describe, Expect::Execute, Expect::Sync] {
                pipeline.expect(expect, Action::Forward);
            }
            for tag in *b"12TDC" {
                let _ = black_box(pipeline.on_backend(tag, b""));
            }
            let _ = pipeline.on_backend(b'Z', b"I");
            assert!(pipeline.is_settled());
        });
    });
}

fn relay(c: &mut Criterion) {
    let registry = Registry::default();
    let context = Context {
        registry: &registry,
        max_prepared: 200,
        exclusive: false,
        one_at_a_time: false,
        refuse_simple: false,
    };
    let mut scratch = Vec::new();
    let (mut client, mut server) = (ClientSession::default(), ServerSession::default());
    server.attach(&client, false);
    let query = message(b'Q', b"SELECT abalance FROM pgbench_accounts WHERE aid = 12345;\0");
    let answer =
        [message(b'T', &[0; 30]), message(b'D', &[0; 12]), message(b'C', b"SELECT 1\0"), message(b'Z', b"I")]
            .concat();
    c.bench_function("relay/simple query and its answer", |b| {
        b.iter(|| {
            let mut out = Output::new(&query, &mut scratch);
            let sent = forward::client_to_server(&query, &mut client, &mut server, &context, &mut out);
            assert!(sent.is_ok() && out.bytes().len() == query.len());
            let mut out = Output::new(&answer, &mut scratch);
            let received = forward::server_to_client(&answer, &mut server, &mut client, &mut out);
            assert!(received.is_ok() && server.is_settled());
        });
    });

    let prepare = [message(b'P', b"s\0SELECT 1\0\0\0"), message(b'S', b"")].concat();
    let prepared = [message(b'1', b""), message(b'Z', b"I")].concat();
    let execute =
        [message(b'B', b"\0s\0\0\0\0\0\0\0"), message(b'E', b"\0\0\0\0\0"), message(b'S', b"")].concat();
    let executed =
        [message(b'2', b""), message(b'D', &[0; 12]), message(b'C', b"SELECT 1\0"), message(b'Z', b"I")]
            .concat();
    let mut walk = |from_client: &[u8], from_server: &[u8]| {
        let mut out = Output::new(from_client, &mut scratch);
        let sent = forward::client_to_server(from_client, &mut client, &mut server, &context, &mut out);
        assert!(sent.is_ok() && !out.is_empty());
        let mut out = Output::new(from_server, &mut scratch);
        assert!(
            forward::server_to_client(from_server, &mut server, &mut client, &mut out).is_ok()
                && server.is_settled()
        );
    };
    walk(&prepare, &prepared);
    c.bench_function("relay/prepared statement and its answer", |b| b.iter(|| walk(&execute, &executed)));

    let buf = rows();
    let mut group = c.benchmark_group("relay");
    group.throughput(Throughput::Bytes(buf.len() as u64));
    group.bench_function("64 KB of rows", |b| {
        let mut scratch = Vec::new();
        let (mut client, mut server) = (ClientSession::default(), ServerSession::default());
        server.pipeline.expect(Expect::Query, Action::Forward);
        b.iter(|| {
            let mut out = Output::new(&buf, &mut scratch);
            assert!(forward::server_to_client(&buf, &mut server, &mut client, &mut out).is_ok());
            black_box(out.bytes().len())
        });
    });
    group.finish();
}

criterion_group!(benches, framing, classification, pipeline, relay);
criterion_main!(benches);
