//! Sockets by io_uring, against the kernel. Where it does not let us there is nothing to test.

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::runtime::{Builder, LocalOptions};

use super::{Driver, Socket, is_here};
use crate::net::stream::Stream;

/// Runs this where there is a ring.
fn with_ring(test: impl Future<Output = ()>) {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async {
        match Driver::new() {
            Ok(driver) => driver.start(),
            Err(error) => return eprintln!("skipped: {error}"),
        }
        tokio::time::timeout(Duration::from_secs(30), test).await.unwrap();
    });
}

/// A connection of ours and its other end.
async fn tcp() -> (Stream, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (theirs, _) = listener.accept().await.unwrap();
    let ours = by_uring(Stream::Tcp(ours));
    assert!(matches!(ours, Stream::Uring(_)));
    (ours, theirs)
}

fn by_uring(mut stream: Stream) -> Stream {
    stream.use_uring();
    stream
}

/// A connection of ours that is about to wait for something, and its other end.
async fn waiting() -> (Stream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut ours = by_uring(Stream::Unix(ours));
    let waits = std::future::poll_fn(|cx| Poll::Ready(ours.poll_read(cx, &mut [0; 8]).is_pending())).await;
    assert!(waits);
    (ours, theirs)
}

/// Waits in the socket's ring for what is not there.
async fn wait_in_vain(stream: &mut Stream) {
    let waited = tokio::time::timeout(Duration::from_millis(20), stream.read(&mut [0; 64])).await;
    assert!(waited.is_err());
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

#[test]
fn bytes_go_both_ways() {
    with_ring(async {
        let (mut ours, mut theirs) = tcp().await;
        for len in [1, 100, 2047, 2048, 2049, 8192, 8193, 100_000] {
            let bytes = pattern(len);
            let mut received = vec![0; len];
            let (sent, _) = tokio::join!(theirs.write_all(&bytes), ours.read_exact(&mut received));
            sent.unwrap();
            assert_eq!(received, bytes);
            received.fill(0);
            let (sent, _) = tokio::join!(ours.write_all(&bytes), theirs.read_exact(&mut received));
            sent.unwrap();
            assert_eq!(received, bytes);
        }
        drop(theirs);
        assert_eq!(ours.read(&mut [0; 8]).await.unwrap(), 0);
        assert_eq!(ours.read(&mut [0; 8]).await.unwrap(), 0, "the end stays the end");
    });
}

#[test]
fn unix_sockets_too() {
    with_ring(async {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut ours = by_uring(Stream::Unix(ours));
        theirs.write_all(b"question").await.unwrap();
        let mut buf = [0; 64];
        assert_eq!(ours.read(&mut buf).await.unwrap(), 8);
        ours.write_all(b"answer").await.unwrap();
        assert_eq!(theirs.read(&mut buf).await.unwrap(), 6);
    });
}

#[test]
fn a_small_buffer_loses_nothing() {
    with_ring(async {
        let (mut ours, mut theirs) = tcp().await;
        theirs.write_all(&pattern(5000)).await.unwrap();
        let mut all = Vec::new();
        while all.len() < 5000 {
            let mut buf = [0; 7];
            let n = ours.read(&mut buf).await.unwrap();
            all.extend_from_slice(&buf[..n]);
        }
        assert_eq!(all, pattern(5000));
    });
}

/// The other side reads nothing for a while: everything arrives all the same, and in order.
#[test]
fn a_full_socket_takes_the_rest_later() {
    with_ring(async {
        let (mut ours, mut theirs) = tcp().await;
        let bytes = pattern(20_000_000);
        let slow = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let mut received = vec![0; bytes.len()];
            theirs.read_exact(&mut received).await.unwrap();
            assert!(received == bytes);
        };
        let (sent, ()) = tokio::join!(ours.write_all(&bytes), slow);
        sent.unwrap();
    });
}

/// Last words: several writes and the end, without a pause.
#[test]
fn what_was_written_arrives_before_the_end() {
    with_ring(async {
        for waits in [false, true] {
            let (mut ours, mut theirs) = tcp().await;
            if waits {
                wait_in_vain(&mut ours).await;
            }
            for part in [&b"the answer, "[..], b"and why it is ", b"the last"] {
                ours.write_all(part).await.unwrap();
            }
            drop(ours);
            let mut received = String::new();
            theirs.read_to_string(&mut received).await.unwrap();
            assert_eq!(received, "the answer, and why it is the last");
        }
    });
}

#[test]
fn an_abandoned_socket_is_closed() {
    with_ring(async {
        let (mut ours, mut theirs) = tcp().await;
        wait_in_vain(&mut ours).await;
        drop(ours);
        assert_eq!(theirs.read(&mut [0; 8]).await.unwrap(), 0);
        // The other side takes nothing any more, so that most of it cannot be sent.
        let (mut ours, theirs) = tcp().await;
        let endless =
            tokio::time::timeout(Duration::from_millis(50), ours.write_all(&pattern(20_000_000))).await;
        assert!(endless.is_err());
        drop(ours);
        let mut theirs = theirs;
        let mut received = 0;
        while let Ok(n @ 1..) = theirs.read(&mut [0; 65536]).await {
            received += n;
        }
        assert!(received < 20_000_000);
    });
}

#[test]
fn errors_are_met_by_the_next_write() {
    with_ring(async {
        let (mut ours, theirs) = tcp().await;
        socket2::SockRef::from(&theirs).set_linger(Some(Duration::ZERO)).unwrap();
        drop(theirs);
        assert_eq!(ours.read(&mut [0; 8]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        // The first one is left to the ring.
        let mut result = Ok(());
        for _ in 0..3 {
            result = result.and(ours.write_all(b"hello").await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    });
}

/// At rest it may go to another thread, and what has come meanwhile goes with it.
#[test]
fn a_socket_at_rest_can_go_elsewhere() {
    with_ring(async {
        let (mut ours, mut theirs) = tcp().await;
        assert!(ours.rest());
        wait_in_vain(&mut ours).await;
        assert!(ours.rest() && !ours.has_early() && ours.must_be_asked());
        assert_eq!(ours.try_read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        wait_in_vain(&mut ours).await;
        theirs.write_all(b"early").await.unwrap();
        assert!(ours.rest());
        if ours.has_early() {
            // The ring was faster than we.
            assert!(!ours.must_be_asked());
        }
        ours.write_all(b"words").await.unwrap();
        assert!(ours.rest());
        let elsewhere = std::thread::spawn(move || {
            assert!(!is_here());
            let mut buf = [0; 64];
            let n = ours.try_read(&mut buf).unwrap();
            assert_eq!(&buf[..n], b"early");
            let Stream::Uring(socket) = ours else { unreachable!() };
            socket.into_fd().unwrap()
        });
        let _fd: OwnedFd = elsewhere.join().unwrap();
        let mut buf = [0; 64];
        let n = theirs.read(&mut buf).await.unwrap();
        assert_eq!(&buf[..n], b"words");
    });
}

/// With something under way it must not: another thread's ring would hand out what is another's.
#[test]
fn a_socket_that_is_not_at_rest_must_stay() {
    with_ring(async {
        let (mut ours, _theirs) = tcp().await;
        wait_in_vain(&mut ours).await;
        let elsewhere = std::thread::spawn(move || {
            with_ring(async {
                let (mut other, _end) = tcp().await;
                wait_in_vain(&mut other).await;
                let read = tokio::task::spawn_local(async move { ours.read(&mut [0; 8]).await.map(drop) });
                if is_here() {
                    assert!(read.await.unwrap_err().is_panic());
                }
            });
        });
        elsewhere.join().unwrap();
    });
}

/// More sockets than the ring has buffers, all of which have received something.
#[test]
fn buffers_may_run_out() {
    with_ring(async {
        let mut pairs = Vec::new();
        for _ in 0..300 {
            pairs.push(waiting().await);
        }
        for (i, (_, theirs)) in pairs.iter_mut().enumerate() {
            theirs.write_all(format!("{i}").as_bytes()).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        for (i, (ours, _)) in pairs.iter_mut().enumerate() {
            let mut buf = [0; 8];
            let n = ours.read(&mut buf).await.unwrap();
            assert_eq!(&buf[..n], format!("{i}").as_bytes());
        }
        // All of them are there again.
        for (i, (ours, theirs)) in pairs.iter_mut().enumerate() {
            ours.write_all(format!("{i}").as_bytes()).await.unwrap();
            let mut buf = [0; 8];
            let n = theirs.read(&mut buf).await.unwrap();
            assert_eq!(&buf[..n], format!("{i}").as_bytes());
        }
    });
}

/// The kernel has put off more than it does in a turn or two when one of many is called off.
#[test]
fn what_is_called_off_ends_however_busy_the_ring_is() {
    with_ring(async {
        let mut pairs = Vec::new();
        for _ in 0..400 {
            pairs.push(waiting().await);
        }
        tokio::task::yield_now().await;
        for (_, theirs) in pairs.iter_mut().skip(1) {
            theirs.try_write(b"x").unwrap();
        }
        let (first, theirs) = &mut pairs[0];
        assert!(first.rest());
        theirs.try_write(b"y").unwrap();
        let mut buf = [0; 8];
        assert_eq!(first.read(&mut buf).await.unwrap(), 1);
        assert_eq!(buf[0], b'y');
    });
}

/// Somebody sends without a pause and is read without a pause: others have their turn all the same.
#[test]
fn nobody_keeps_the_thread() {
    with_ring(async {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        for socket in [&ours, &theirs] {
            socket.set_nonblocking(true).unwrap();
        }
        let ours = UnixStream::from_std(ours).unwrap();
        let mut theirs = theirs;
        let mut ours = by_uring(Stream::Unix(ours));
        let rounds = Rc::new(Cell::new(0));
        let counted = Rc::clone(&rounds);
        let greedy = tokio::task::spawn_local(async move {
            let mut buf = vec![0; 65536];
            while counted.replace(counted.get() + 1) < 1_000_000 {
                io::Write::write_all(&mut theirs, &[0; 65536]).unwrap();
                assert!(ours.read(&mut buf).await.unwrap() > 0);
            }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!((100..1_000_000).contains(&rounds.get()), "{rounds:?}");
        greedy.abort();
    });
}

#[test]
fn a_socket_needs_a_ring() {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert!(matches!(by_uring(Stream::Unix(ours)), Stream::Unix(_)));
    });
}

/// A socket's size is what every client and server pays for.
#[test]
fn sockets_are_small() {
    assert!(size_of::<Socket>() <= 64);
}
