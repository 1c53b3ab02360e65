//! Who has to prove what, by which method, with how much work: to us, and we to a server.

use std::io::{Read, Write};

use crate::hostile::{check_alive, log_in_to_hostile, pooler_before, server};
use crate::support::raw::{Raw, message, startup};
use crate::support::{Pooler, USER, eventually, run};

const V3_0: u32 = 3 << 16;

/// Another startup packet where a password is due looks like the beginning of a message of 21 kB.
#[test]
fn what_does_not_belong_in_a_login_ends_it_at_once() {
    let pooler = Pooler::start("client_login_timeout = 60");
    let login = startup(V3_0, &[("user", USER), ("database", "app")]);
    let first = b"n,,n=,r=abc";
    let initial = [&b"SCRAM-SHA-256\0"[..], &11u32.to_be_bytes(), first].concat();
    // Those that announce more than they send, too.
    let mut wrong = vec![login.clone(), vec![0]];
    for tag in b"QPBDECSHdcfFX" {
        wrong.push(vec![*tag]);
        wrong.push([&[*tag][..], &60_000u32.to_be_bytes()].concat());
    }
    run(async {
        for steps in [vec![], vec![message(b'p', &initial)]] {
            for last in &wrong {
                let mut raw = Raw::connect(pooler.port).await;
                raw.send(&login).await;
                assert_eq!(raw.receive().await.unwrap().tag, 'R');
                for step in &steps {
                    raw.send(step).await;
                    assert_eq!(raw.receive().await.unwrap().tag, 'R');
                }
                raw.send(last).await;
                let error = raw.receive().await.unwrap();
                assert_eq!((error.tag, error.field('C').as_str()), ('E', "08P01"), "{last:?}");
                let expected = format!("expected password response, got message type {}", last[0]);
                assert_eq!(error.field('M'), expected);
                assert_eq!(raw.receive().await, None);
            }
        }
        // A length that cannot be.
        let mut raw = Raw::connect(pooler.port).await;
        raw.send(&[&login[..], b"p\0\0\0\0"].concat()).await;
        assert_eq!(raw.receive().await.unwrap().tag, 'R');
        assert_eq!(raw.receive().await.unwrap().field('C'), "08P01");
        check_alive(&pooler).await;
    });
}

/// A server's messages, too, are judged before all of them has come.
#[test]
fn what_does_not_belong_in_a_servers_login_ends_it_at_once() {
    for (before, tag) in [("", b'D'), ("", b'S'), ("", b'K'), ("", b'Z'), ("in", b'R'), ("in", b'T')] {
        let port = server(move |stream| {
            if before == "in" {
                stream.write_all(&message(b'R', &[0; 4]))?;
            }
            stream.write_all(&[&[tag][..], &1_000_000u32.to_be_bytes()].concat())?;
            // Keeps the connection for as long as the pooler does.
            stream.read(&mut [0; 1]).map(drop)
        });
        let pooler = pooler_before(port, "server_connect_timeout = 60");
        run(async {
            assert!(log_in_to_hostile(&pooler).await.is_err());
        });
        let expected = format!("unexpected message {:?} during login", char::from(tag));
        eventually("the login is given up", || pooler.log().contains(&expected));
    }
}
