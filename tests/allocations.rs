//! Forwarding allocates nothing.

#![allow(unsafe_code, reason = "only an allocator can count allocations")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use pgweir::session::forward::{self, ClientSession, Context, Judge, ServerSession};
use pgweir::session::output::Output;
use pgweir::session::prepared::Registry;
use pgweir::sql::{self, Catalog, Memo};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[tag][..], &len, body].concat()
}

// One test in this file: another one's allocations would be counted, too.
#[test]
fn no_frame_costs_an_allocation() {
    let registry = Registry::default();
    let context = Context {
        registry: &registry,
        max_prepared: 200,
        exclusive: false,
        one_at_a_time: false,
        refuse_simple: false,
    };
    let (mut client, mut server) = (ClientSession::default(), ServerSession::default());
    let mut scratch = Vec::new();
    let end = [message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat();
    let simple = message(b'Q', b"SELECT a FROM t WHERE b = 'c'\0");
    let rows = [message(b'T', &[0; 40]), message(b'D', &[b'x'; 90]).repeat(100), end.clone()].concat();
    let extended = [
        message(b'P', b"\0SELECT 1\0\0\0"),
        message(b'B', b"\0\0\0\0\0\0\0\0"),
        message(b'D', b"S\0"),
        message(b'E', b"\0\0\0\0\0"),
        message(b'S', b""),
    ]
    .concat();
    let extended_answer =
        [message(b'1', b""), message(b'2', b""), message(b'n', b""), message(b'D', &[0; 12]), end.clone()]
            .concat();
    let prepare = [message(b'P', b"s\0SELECT 1\0\0\0"), message(b'S', b"")].concat();
    let prepare_answer = [message(b'1', b""), message(b'Z', b"I")].concat();
    let execute =
        [message(b'B', b"\0s\0\0\0\0\0\0\0"), message(b'E', b"\0\0\0\0\0"), message(b'S', b"")].concat();
    let execute_answer = [message(b'2', b""), message(b'D', &[0; 12]), end].concat();
    let mut walk = |from_client: &[u8], from_server: &[u8]| {
        server.attach(&client, false);
        let mut out = Output::new(from_client, &mut scratch);
        forward::client_to_server(from_client, &mut client, &mut server, &context, &mut out).unwrap();
        assert!(!out.is_empty());
        let mut out = Output::new(from_server, &mut scratch);
        forward::server_to_client(from_server, &mut server, &mut client, &mut out).unwrap();
        assert!(server.is_settled());
        server.detach(&mut client);
    };
    walk(&prepare, &prepare_answer);
    for (name, from_client, from_server) in [
        ("simple", &simple, &rows),
        ("extended", &extended, &extended_answer),
        ("prepared", &execute, &execute_answer),
    ] {
        // The first time queues and buffers find their size.
        walk(from_client, from_server);
        let before = ALLOCATIONS.load(Relaxed);
        for _ in 0..1000 {
            walk(from_client, from_server);
        }
        assert_eq!(ALLOCATIONS.load(Relaxed) - before, 0, "{name}");
    }
    // Where reads are split from writes, what is no read is looked at for what it leaves in its session.
    let (catalog, mut memo) = (Catalog::default(), Memo::default());
    for (name, from_client) in [("simple", &simple), ("extended", &extended), ("prepared", &execute)] {
        let mut watch = || {
            let mut judge = Judge { memo: &mut memo, known: (Some(&catalog), 1) };
            assert_eq!(client.watch(from_client, false, &mut judge), from_client.len());
        };
        watch();
        let before = ALLOCATIONS.load(Relaxed);
        (0..1000).for_each(|_| watch());
        assert_eq!(ALLOCATIONS.load(Relaxed) - before, 0, "{name}");
    }
    let before = ALLOCATIONS.load(Relaxed);
    for _ in 0..1000 {
        sql::classify(b"SELECT a, lower(b), \"c\" FROM t WHERE d IN (1, 2)", Some(&catalog));
    }
    assert!(ALLOCATIONS.load(Relaxed) - before <= 20, "the list of functions is built once");
}
