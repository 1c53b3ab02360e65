//! `pg_isready`: the same words and exit codes as the original, beside which it is run.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Output;

use crate::support::{Pooler, cluster, exe, free_port, run, unprivileged};

/// The program under the name that probes call.
fn link() -> PathBuf {
    let link = Pooler::new_dir().join("pg_isready");
    std::os::unix::fs::symlink(exe(), &link).unwrap();
    link
}

fn ours(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = unprivileged(link().to_str().unwrap());
    command.args(arguments).env_clear().envs(variables.iter().copied()).output().unwrap()
}

/// What was printed, and the exit code.
fn told(output: &Output) -> (String, Option<i32>) {
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code())
}

/// Asks both programs. They have to agree.
fn both(arguments: &[&str]) -> (String, Option<i32>) {
    let original = cluster().program("pg_isready");
    let mut original = unprivileged(original.get_program().to_str().unwrap());
    let expected = told(&original.args(arguments).env_clear().output().unwrap());
    let found = told(&ours(arguments, &[]));
    assert_eq!(found, expected, "{arguments:?}");
    found
}

/// A server that says this to everybody, until the test is over.
fn server(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut packet = [0; 1024];
                // The original asks for TLS first.
                let n = stream.read(&mut packet).unwrap_or(0);
                if packet[..n].ends_with(&[4, 210, 22, 47]) {
                    let _ = stream.write_all(b"N");
                    let _ = stream.read(&mut packet);
                }
                let _ = stream.write_all(answer);
                // Silence until the other side has had enough.
                while stream.read(&mut packet).is_ok_and(|n| n > 0) {}
            });
        }
    });
    port
}

#[test]
fn pg_isready_says_what_the_original_says() {
    let pooler = Pooler::start("");
    let (port, primary, free) =
        (pooler.port.to_string(), cluster().primary.to_string(), free_port().to_string());
    let at = |port: &str, what: &str| format!("127.0.0.1:{port} - {what}\n");
    for port in [&port, &primary] {
        let accepts = (at(port, "accepting connections"), Some(0));
        assert_eq!(both(&["-h", "127.0.0.1", "-p", port]), accepts);
        assert_eq!(both(&["--host=127.0.0.1", &format!("--port={port}"), "-U", "app", "-d", "app"]), accepts);
        // A server that refuses is up.
        assert_eq!(both(&["-h", "127.0.0.1", "-p", port, "-U", "nobody", "-d", "nothing"]), accepts);
        assert_eq!(both(&["-q", "-h", "127.0.0.1", "-p", port]), (String::new(), Some(0)));
        assert_eq!(both(&["-d", &format!("host=127.0.0.1 port={port} user=app")]), accepts);
        assert_eq!(both(&["-d", &format!("postgresql://app@127.0.0.1:{port}/app")]), accepts);
    }
    let directory = pooler.dir.to_str().unwrap();
    assert_eq!(both(&["-h", directory, "-p", &port]).1, Some(0));
    assert_eq!(both(&["-h", "/nowhere", "-p", &port]).1, Some(2));
    assert_eq!(both(&["-h", "127.0.0.1", "-p", &free]), (at(&free, "no response"), Some(2)));

    let starting = server(b"E\0\0\0\x1cSFATAL\0C57P03\0Mstarting\0\0");
    let rejects = (at(&starting, "rejecting connections"), Some(1));
    assert_eq!(both(&["-h", "127.0.0.1", "-p", &starting]), rejects);
    let silent = server(b"");
    assert_eq!(both(&["-t", "2", "-h", "127.0.0.1", "-p", &silent]), (at(&silent, "no response"), Some(2)));
    let other = server(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    assert_eq!(both(&["-h", "127.0.0.1", "-p", &other]).1, Some(2));
    let several = format!("{free},{port}");
    assert_eq!(both(&["-h", "127.0.0.1,127.0.0.1", "-p", &several]).1, Some(0));

    for mistake in [&["-x"][..], &["name"], &["-h"]] {
        assert_eq!(both(mistake), (String::new(), Some(3)));
    }
}

/// The image's own port is not PostgreSQL's, and probes that came with other images name none.
#[test]
fn pg_isready_without_arguments_asks_the_pooler_of_this_machine() {
    let pooler = Pooler::start("");
    let port = pooler.port.to_string();
    let variables = [("DATABASE_URL", "postgres://app@127.0.0.1/app"), ("PGBOUNCER_LISTEN_PORT", &*port)];
    let accepts = |host: &str| (format!("{host}:{port} - accepting connections\n"), Some(0));
    assert_eq!(told(&ours(&[], &variables)), accepts("127.0.0.1"));
    assert_eq!(told(&ours(&["-h", "localhost"], &variables)), accepts("localhost"));
    let variables = [("PGHOST", "127.0.0.1"), ("PGPORT", &*port)];
    assert_eq!(told(&ours(&[], &variables)), accepts("127.0.0.1"));
    // It costs no server connection.
    let shown = run(pooler.console("SHOW SERVERS"));
    assert!(shown.is_empty(), "{shown:?}");
}
