//! Transactions through the real program and a real PostgreSQL, as many clients as servers and many more.
//!
//!     cargo bench --bench pooled
//!
//! Wall-clock time: good for a comparison of two versions in one sitting. `benches/peers.py` measures CPU.

#![allow(missing_docs, reason = "criterion's macro makes a function that has none")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a bench that cannot go on has failed")]

#[path = "../tests/it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests' support is more than is needed here")]
mod support;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use support::Pooler;
use support::raw::query;

/// Transactions of each client per iteration.
const EACH: usize = 50;

fn pooled(c: &mut Criterion) {
    let pooler = Pooler::start("default_pool_size = 8\nmax_client_conn = 1000\nlog_connections = 0");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut group = c.benchmark_group("pooled");
    group.sample_size(10);
    for count in [8, 64] {
        let mut clients: Vec<_> = (0..count).map(|_| runtime.block_on(pooler.raw())).collect();
        group.throughput(Throughput::Elements((count * EACH) as u64));
        group.bench_function(format!("{count} clients, 8 servers"), |b| {
            b.iter(|| {
                runtime.block_on(async {
                    let work = clients.iter_mut().map(|client| async move {
                        for _ in 0..EACH {
                            client.send(&query("SELECT 1")).await;
                            client.until_ready().await;
                        }
                    });
                    futures_join(work).await;
                });
            });
        });
    }
    group.finish();
}

/// Polls all of them on this task until each is done.
async fn futures_join(work: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut all: Vec<_> = work.map(|future| Some(Box::pin(future))).collect();
    std::future::poll_fn(move |cx| {
        let mut pending = false;
        for slot in &mut all {
            if let Some(future) = slot {
                if future.as_mut().poll(cx).is_ready() {
                    *slot = None;
                } else {
                    pending = true;
                }
            }
        }
        if pending { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
}

criterion_group!(benches, pooled);
criterion_main!(benches);
