//! What a message costs in user time: looking at frames, classifying statements, keeping the books, walking buffers.
//!
//!     cargo bench --bench hot_path

#![allow(missing_docs, reason = "criterion's macro makes a function that has none")]

mod scenarios;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pgweir::session::pipeline::{Action, Expect, Pipeline};
use pgweir::sql::{self, Catalog};
use pgweir::wire::frame;
use scenarios::{Pair, rows};

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
    let orm = scenarios::orm_select();
    let catalog = Catalog::default();
    let mut group = c.benchmark_group("classification");
    for (name, text) in [
        ("pgbench select", scenarios::SELECT),
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
    let mut pair = Pair::default();
    pair.transaction(&scenarios::prepare());
    for (name, exchange) in [
        ("simple query and its answer", scenarios::simple_query()),
        ("statement without a name and its answer", scenarios::extended_batch()),
        ("prepared statement and its answer", scenarios::prepared_batch()),
    ] {
        c.bench_function(&format!("relay/{name}"), |b| b.iter(|| pair.transaction(black_box(&exchange))));
    }

    let buf = rows();
    let mut group = c.benchmark_group("relay");
    group.throughput(Throughput::Bytes(buf.len() as u64));
    group.bench_function("64 KB of rows", |b| {
        let mut pair = Pair::default();
        pair.ask();
        b.iter(|| black_box(pair.result(&buf)));
    });
    group.finish();
}

criterion_group!(benches, framing, classification, pipeline, relay);
criterion_main!(benches);
