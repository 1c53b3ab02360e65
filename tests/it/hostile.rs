//! Bytes meant to harm, from clients who have proved nothing and from servers. Nothing of it may end the process, be taken
//! for something else, or keep others from working. Named after the defects of other poolers that it would have found.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::support::raw::{Raw, message, query, startup};
use crate::support::{PASSWORD, Pooler, USER, cluster, run};

const V3_0: u32 = 3 << 16;
const LOGIN: [(&str, &str); 2] = [("user", USER), ("database", "app")];

/// Others are served as ever.
pub(crate) async fn check_alive(pooler: &Pooler) {
    assert_eq!(pooler.raw().await.value("SELECT 1").await, "1");
}

/// Sends each of these on a connection of its own; the tags of what comes back until it is closed, by the pooler or,
/// half a second later, by us.
async fn provoke(pooler: &Pooler, all: Vec<Vec<u8>>) -> Vec<(Vec<u8>, String)> {
    let port = pooler.port;
    let mut attempts = tokio::task::JoinSet::new();
    for bytes in all {
        attempts.spawn(async move {
            let mut raw = Raw::connect(port).await;
            raw.send(&bytes).await;
            let mut tags = String::new();
            while let Ok(Some(message)) =
                tokio::time::timeout(Duration::from_millis(500), raw.receive()).await
            {
                tags.push(message.tag);
            }
            (bytes, tags)
        });
    }
    attempts.join_all().await
}

/// CVE-2012-4575: a name from the network reached a fatal error.
#[test]
fn names_of_any_length_and_kind() {
    let pooler = Pooler::with_databases(
        &format!("* = host=127.0.0.1 port={}\n", cluster().primary),
        "auth_type = trust",
    );
    let long = "x".repeat(9000);
    run(async {
        for name in [
            &*long,
            "a\nb = host=elsewhere",
            "\u{1}\u{7f}",
            "'; DROP DATABASE app; --",
            "%s%n%d",
            "../../etc",
            "*",
            "=",
            " ",
        ] {
            for parameters in [[("user", USER), ("database", name)], [("user", name), ("database", "app")]] {
                let Err(error) = Raw::log_in_with(pooler.port, V3_0, &parameters, PASSWORD).await else {
                    panic!("{name}")
                };
                assert_eq!(error.field('S'), "FATAL", "{name}");
            }
        }
        let mut bytes = startup(V3_0, &[("user", USER), ("database", "??")]);
        let at = bytes.windows(2).position(|two| two == b"??").unwrap();
        bytes[at] = 0xff;
        assert!(!provoke(&pooler, vec![bytes]).await[0].1.contains('Z'));
        check_alive(&pooler).await;
    });
}

/// The crash fixed in PgBouncer 1.5.5: messages before the one that must come first. And those that come too early.
#[test]
fn messages_out_of_order() {
    let pooler = Pooler::start("");
    run(async {
        let strays = b"QPBCDEHSXFdcfp\0R~".map(|tag| message(tag, b"SELECT 1\0"));
        let mut all: Vec<_> =
            strays.iter().map(|stray| [startup(V3_0, &LOGIN), stray.clone()].concat()).collect();
        all.extend(strays);
        all.push([startup(V3_0, &LOGIN), startup(V3_0, &LOGIN)].concat());
        for (bytes, tags) in provoke(&pooler, all).await {
            assert!(!tags.contains(['Z', 'D', 'K', 'T']), "{bytes:?}: {tags}");
        }
        check_alive(&pooler).await;
    });
}

/// CVE-2026-6664: lengths that overflow, in SCRAM messages and around them.
#[test]
fn lengths_that_lie() {
    let pooler = Pooler::start("");
    run(async {
        let sasl = |len: u32, data: &[u8]| {
            message(b'p', &[b"SCRAM-SHA-256\0", &len.to_be_bytes()[..], data].concat())
        };
        let mut answers = vec![
            message(b'p', b""),
            message(b'p', b"SCRAM-SHA-256"),
            message(b'p', b"SCRAM-SHA-256\0"),
            message(b'p', b"SCRAM-SHA-256\0\0\0"),
            message(b'p', b"SCRAM-SHA-256-PLUS\0\0\0\0\x01n"),
            message(b'p', b"\0\0\0\0\0"),
            sasl(0, b""),
        ];
        for len in [1, 4, 1000, 0x7fff_ffff, 0x8000_0000, 0xffff_fffb, 0xffff_fffc, u32::MAX] {
            answers.push(sasl(len, b"n,,n=,r=abc"));
            // The frame's own length.
            answers.push([&b"p"[..], &len.to_be_bytes(), b"SCRAM-SHA-256\0\0\0\0\x0bn,,n=,r=abc"].concat());
        }
        for first in [
            "",
            "n",
            "n,,",
            ",,,,",
            "n,,n=,r=",
            "y,,r=x,n=",
            "p=x,,n=,r=abc",
            "n,,m=x,n=,r=abc",
            "n,a=\u{1f4a9},n=,r=abc",
        ] {
            answers.push(sasl(u32::try_from(first.len()).unwrap(), first.as_bytes()));
        }
        let all = answers.iter().map(|answer| [startup(V3_0, &LOGIN), answer.clone()].concat());
        for (bytes, tags) in provoke(&pooler, all.collect()).await {
            assert!(tags.starts_with('R') && !tags.contains(['Z', 'K', 'S']), "{bytes:?}: {tags}");
        }
        for last in ["", "c=", "c=biws", "c=biws,r=", "c=biws,r=abc,p=", "c=biws,r=abc,p=AAAA", "\0\0\0"] {
            let mut raw = Raw::connect(pooler.port).await;
            raw.send(&startup(V3_0, &LOGIN)).await;
            assert_eq!(raw.receive().await.unwrap().tag, 'R');
            raw.send(&sasl(11, b"n,,n=,r=abc")).await;
            assert_eq!(raw.receive().await.unwrap().tag, 'R');
            raw.send(&message(b'p', last.as_bytes())).await;
            assert!(raw.receive().await.is_none_or(|message| message.tag == 'E'), "{last}");
        }
        check_alive(&pooler).await;
    });
}

/// Passwords longer than a buffer ended PgBouncer 1.25.0.
#[test]
fn passwords_of_any_length() {
    let password = "x".repeat(20_000);
    let pooler = Pooler::prepared(|dir| {
        std::fs::write(
            dir.join("userlist.txt"),
            format!("\"{USER}\" \"{PASSWORD}\"\n\"trusted\" \"{password}\"\n"),
        )
        .unwrap();
        (format!("app = host=127.0.0.1 port={}\n", cluster().primary), "auth_type = plain".into())
    });
    run(async {
        let parameters = [("user", "trusted"), ("database", "app")];
        assert!(Raw::log_in_with(pooler.port, V3_0, &parameters, &password).await.is_ok());
        assert!(Raw::log_in_with(pooler.port, V3_0, &parameters, &password[1..]).await.is_err());
        check_alive(&pooler).await;
    });
}

/// A server that follows a script on each connection. It goes on until the process ends.
pub(crate) fn server(serve: impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
            let _ = read_startup(&mut stream).and_then(|()| serve(&mut stream));
        }
    });
    port
}

fn read_startup(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut len = [0; 4];
    stream.read_exact(&mut len)?;
    stream.read_exact(&mut vec![0; u32::from_be_bytes(len) as usize - 4])
}

pub(crate) fn read_message(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut header = [0; 5];
    stream.read_exact(&mut header)?;
    let mut body = vec![0; u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize - 4];
    stream.read_exact(&mut body)?;
    Ok(body)
}

/// The end of a login. With these parameters the pooler asks for no others.
pub(crate) fn welcome() -> Vec<u8> {
    let parameters = ["IntervalStyle\0postgres\0", "in_hot_standby\0off\0"];
    let parameters: Vec<u8> = parameters.iter().flat_map(|text| message(b'S', text.as_bytes())).collect();
    let key = message(b'K', &[0, 0, 0, 1, 0, 0, 0, 2]);
    [message(b'R', &[0; 4]), parameters, key, message(b'Z', b"I")].concat()
}

/// A pooler with this server as `hostile`, and the ordinary one.
pub(crate) fn pooler_before(port: u16, settings: &str) -> Pooler {
    let databases =
        format!("app = host=127.0.0.1 port={}\nhostile = host=127.0.0.1 port={port}\n", cluster().primary);
    let settings = format!("server_tls_sslmode = disable\nquery_wait_timeout = 0.5\n{settings}");
    Pooler::with_databases(&databases, &settings)
}

pub(crate) async fn log_in_to_hostile(pooler: &Pooler) -> Result<Raw, crate::support::raw::Message> {
    let parameters = [("user", USER), ("database", "hostile")];
    Raw::log_in_with(pooler.port, V3_0, &parameters, PASSWORD).await
}

/// What a server says to a client's nonce.
type Challenge = Box<dyn Fn(&str) -> String + Send>;

/// CVE-2026-6665: a nonce longer than the stack. And other challenges that make no sense.
#[test]
fn challenges_of_a_hostile_server() {
    let long = |prefix: &str, n: usize| format!("{prefix}{}", "A".repeat(n));
    let challenges: Vec<Challenge> = vec![
        Box::new(move |nonce| long(&format!("r={nonce}"), 900_000) + ",s=QUJD,i=4096"),
        Box::new(move |nonce| format!("r={nonce}x,s={},i=4096", "QUJD".repeat(200_000))),
        Box::new(|nonce| format!("r={nonce}x,s=QUJD,i=2147483647")),
        Box::new(|nonce| format!("r={nonce}x,s=QUJD,i=-1")),
        Box::new(|nonce| format!("r={nonce},s=QUJD,i=4096")),
        Box::new(|_| "r=another,s=QUJD,i=4096".into()),
        Box::new(|_| String::new()),
    ];
    for challenge in challenges {
        let port = server(move |stream| {
            stream.write_all(&message(b'R', &[&10u32.to_be_bytes()[..], b"SCRAM-SHA-256\0\0"].concat()))?;
            let first = read_message(stream)?;
            let text = String::from_utf8_lossy(&first).into_owned();
            let nonce = text.split("r=").last().unwrap_or_default();
            stream.write_all(&message(
                b'R',
                &[&11u32.to_be_bytes()[..], challenge(nonce).as_bytes()].concat(),
            ))?;
            // Whatever is answered, the server says that all is well.
            let _ = read_message(stream);
            stream.write_all(&[message(b'R', &[0; 4]), message(b'Z', b"I")].concat())
        });
        let pooler = pooler_before(port, "");
        run(async {
            assert!(
                log_in_to_hostile(&pooler).await.is_err(),
                "the server has not shown that it knows the password"
            );
            check_alive(&pooler).await;
        });
    }
}

/// CVE-2026-6666: errors without a SQLSTATE, during a login …
#[test]
fn errors_of_which_parts_are_missing() {
    let bodies: [&[u8]; 8] = [
        b"SFATAL\0Mno code\0\0",
        b"C28P01\0\0",
        b"C\0M\0S\0\0",
        b"Mno end",
        b"C2\0Mshort code\0\0",
        b"\0",
        b"",
        b"\xff\xff\0\xff\0\0\0\0",
    ];
    for body in bodies {
        let port = server(move |stream| stream.write_all(&message(b'E', body)));
        let pooler = pooler_before(port, "");
        run(async {
            let Err(error) = log_in_to_hostile(&pooler).await else { panic!("{body:?}") };
            assert_eq!(error.field('C').len(), 5, "the client gets a whole error: {error:?}");
            check_alive(&pooler).await;
        });
        // … and later: then they are for the client, as they are.
        let port = server(move |stream| {
            stream.write_all(&welcome())?;
            loop {
                read_message(stream)?;
                stream.write_all(&[message(b'E', body), message(b'Z', b"I")].concat())?;
            }
        });
        let pooler = pooler_before(port, "");
        run(async {
            let mut raw = log_in_to_hostile(&pooler).await.unwrap();
            for _ in 0..2 {
                raw.send(&query("SELECT 1")).await;
                let messages = raw.until_ready().await;
                // One that PostgreSQL's own clients could not read may end the session instead.
                assert!(messages.iter().any(|m| m.tag == 'E'), "{body:?}: {messages:?}");
                if messages.last().map(|m| m.tag) != Some('Z') {
                    break;
                }
            }
            check_alive(&pooler).await;
        });
    }
}

/// Frames that cannot be: in the login and in answer to a query.
#[test]
fn frames_of_a_hostile_server() {
    let frames: [&[u8]; 8] = [
        b"R\0\0\0\0",
        b"R\0\0\0\x04",
        b"R\0\0\0\x07\0\0\0",
        b"R\x7f\xff\xff\xff",
        b"E\xff\xff\xff\xff",
        b"S\0\0\0\x05x",
        b"K\0\0\0\x05x",
        b"Z\0\0\0\x04",
    ];
    for frame in frames {
        let port = server(move |stream| stream.write_all(frame));
        let pooler = pooler_before(port, "");
        run(async {
            assert!(log_in_to_hostile(&pooler).await.is_err(), "{frame:?}");
            check_alive(&pooler).await;
        });
        let port = server(move |stream| {
            stream.write_all(&welcome())?;
            read_message(stream)?;
            stream.write_all(frame)
        });
        let pooler = pooler_before(port, "");
        run(async {
            let mut raw = log_in_to_hostile(&pooler).await.unwrap();
            raw.send(&query("SELECT 1")).await;
            let messages = raw.until_ready().await;
            assert!(!messages.iter().any(|m| m.tag == 'D'), "{messages:?}");
            check_alive(&pooler).await;
        });
    }
}

/// A server that lets everybody in and then hangs up must not be tried without end.
#[test]
fn a_server_that_hangs_up_at_once() {
    let logins = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = std::sync::Arc::clone(&logins);
    let port = server(move |stream| {
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        stream.write_all(&welcome())
    });
    let pooler = pooler_before(port, "");
    run(async {
        let mut raw = log_in_to_hostile(&pooler).await.unwrap();
        raw.send(&query("SELECT 1")).await;
        assert_eq!(crate::support::raw::error(&raw.until_ready().await).field('C'), "08006");
        check_alive(&pooler).await;
    });
    assert!(logins.load(std::sync::atomic::Ordering::Relaxed) < 5);
}

/// A server that answers queries one after the other, each with what comes behind the last answer that the client waits for.
fn extra_server(extra: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                read_startup(&mut stream)?;
                stream.write_all(&welcome())?;
                let answer = [
                    message(b'T', b"\0\x01a\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0"),
                    message(b'D', b"\0\x01\0\0\0\x04mine"),
                    message(b'C', b"SELECT 1\0"),
                    message(b'Z', b"I"),
                ]
                .concat();
                loop {
                    let mut header = [0; 5];
                    stream.read_exact(&mut header)?;
                    let len = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
                    stream.read_exact(&mut vec![0; len - 4])?;
                    if header[0] == b'Q' {
                        stream.write_all(&[&answer[..], extra].concat())?;
                    }
                    if header[0] == b'X' {
                        return std::io::Result::Ok(());
                    }
                }
            });
        }
    });
    port
}

/// What a server says that nobody has asked for ends its connection, and reaches no other client.
#[test]
fn what_nobody_asked_for_reaches_nobody() {
    let row = b"D\0\0\0\x10\0\x01\0\0\0\x06stray!";
    let extras: [&[u8]; 4] = [row, b"C\0\0\0\x0dSELECT 1\0", b"T\0\0\0\x06\0\0", b"Z\0\0\0\x05I"];
    for extra in extras {
        let port = extra_server(extra);
        let pooler = Pooler::with_databases(
            &format!("hostile = host=127.0.0.1 port={port} pool_size=1\n"),
            "auth_type = trust\nserver_tls_sslmode = disable",
        );
        run(async {
            let parameters = [("user", USER), ("database", "hostile")];
            let mut clients = Vec::new();
            for _ in 0..2 {
                clients.push(Raw::log_in_with(pooler.port, V3_0, &parameters, "").await.unwrap());
            }
            for _ in 0..5 {
                for client in &mut clients {
                    client.send(&query("SELECT 'mine'")).await;
                    let messages = client.until_ready().await;
                    let tags: String = messages.iter().map(|m| m.tag).collect();
                    assert_eq!((tags.as_str(), &*messages[1].values()[0]), ("TDCZ", "mine"), "{extra:?}");
                }
            }
        });
        assert!(pooler.log().contains("unexpected message"), "{}", pooler.log());
    }
}

/// A server that says FATAL has ended its connection, whether or not it closes the socket; its client learns why, or at least
/// that.
#[test]
fn fatal_is_the_end_of_a_connection() {
    for (fatal, expected) in [
        (&b"SFATAL\0VFATAL\0C57P01\0Mgoing down\0\0"[..], "57P01 going down"),
        (b"SFATAL\0VFATAL\0C57P01\0M\0\0", "08006 server conn crashed?"),
        (b"SFATAL\0VFATAL\0C57P01\0\0", "08006 server conn crashed?"),
        (b"SPANIC\0VPANIC\0CXX000\0Mbroken\0\0", "XX000 broken"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let _ = read_startup(&mut stream);
                let _ = stream.write_all(&welcome());
                let _ = stream.read_exact(&mut [0; 5]);
                let _ = stream.write_all(&message(b'E', fatal));
                // The socket stays open.
                kept.push(stream);
            }
        });
        let pooler = Pooler::with_databases(
            &format!("hostile = host=127.0.0.1 port={port} pool_size=1\n"),
            "auth_type = trust\nserver_tls_sslmode = disable",
        );
        run(async {
            let parameters = [("user", USER), ("database", "hostile")];
            let mut client = Raw::log_in_with(pooler.port, V3_0, &parameters, "").await.unwrap();
            client.send(&query("SELECT 1")).await;
            let messages = tokio::time::timeout(Duration::from_secs(5), client.until_ready()).await;
            let messages = messages.unwrap_or_else(|_| panic!("{expected}: {}", pooler.log()));
            assert_eq!(messages.len(), 1, "and the connection is closed");
            let error = &messages[0];
            assert_eq!(format!("{} {}", error.field('C'), error.field('M')), expected);
        });
    }
}
