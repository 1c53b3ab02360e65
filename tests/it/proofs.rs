//! Who has to prove what, by which method, with how much work: to us, and we to a server.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use crate::hostile::{check_alive, log_in_to_hostile, pooler_before, read_message, server, welcome};
use crate::support::raw::{Message, Raw, message, startup};
use crate::support::{PASSWORD, Pooler, USER, cluster, eventually, run, run_for};

const V3_0: u32 = 3 << 16;

/// A pooler with these lines of a userlist, and these settings.
fn pooler(userlist: &str, settings: &str) -> Pooler {
    Pooler::prepared(|dir: &Path| {
        std::fs::write(dir.join("userlist.txt"), userlist).unwrap();
        (format!("app = host=127.0.0.1 port={}\n", cluster().primary), settings.to_owned())
    })
}

/// A login that fails: what was asked, without what is random or tells the name, and the error.
async fn refused(pooler: &Pooler, database: &str, user: &str, password: &str) -> (Vec<String>, Message) {
    let mut raw = Raw::connect(pooler.port).await;
    raw.send(&startup(V3_0, &[("user", user), ("database", database)])).await;
    let error = raw.authenticate(user, password).await.expect_err(user);
    let asked = raw.asked.iter().map(|body| match body[3] {
        5 => "md5".to_owned(),
        11 => {
            let text = String::from_utf8_lossy(&body[4..]).into_owned();
            let parts: Vec<&str> = text.split(',').collect();
            format!("SCRAM salt={} {}", parts[1].len(), parts[2])
        }
        _ => String::from_utf8_lossy(body).into_owned(),
    });
    (asked.collect(), error)
}

/// What of an error must not tell users apart.
fn words(error: &Message, user: &str) -> [String; 4] {
    ['C', 'M', 'D', 'H'].map(|field| error.field(field).replace(user, "<user>"))
}

#[test]
fn an_empty_secret_lets_nobody_in() {
    // An md5 hash and a verifier of the empty password are no better.
    let md5 = postgres_protocol::password::md5(b"", "hash");
    let scram = postgres_protocol::password::scram_sha_256(b"");
    let users = format!(
        "\"{USER}\" \"{PASSWORD}\"\n\"nothing\" \"\"\n\"hash\" \"{md5}\"\n\"verifier\" \"{scram}\"\n"
    );
    for auth_type in ["scram-sha-256", "md5", "plain"] {
        let names = "nothing,hash,verifier";
        let settings = format!("auth_type = {auth_type}\nadmin_users = {names}\nstats_users = {names}");
        let pooler = pooler(&users, &settings);
        run(async {
            for user in names.split(',') {
                for database in ["app", "pgbouncer"] {
                    let (_, error) = refused(&pooler, database, user, "").await;
                    assert_eq!(error.field('C'), "28P01", "{auth_type} {user} {database}");
                    let (_, other) = refused(&pooler, database, USER, "wrong").await;
                    assert_eq!(words(&error, user)[..2], words(&other, USER)[..2]);
                }
            }
        });
    }
    // Who needs no secret still gets in.
    let pooler = pooler(&users, "auth_type = trust\nstats_users = nothing");
    run(async {
        let parameters = [("user", "nothing"), ("database", "pgbouncer")];
        assert!(Raw::log_in_with(pooler.port, V3_0, &parameters, "").await.is_ok());
    });
}

#[test]
fn an_empty_secret_that_is_looked_up_lets_nobody_in() {
    for auth_type in ["scram-sha-256", "md5", "plain"] {
        let lookup = format!("empty_lookup_{}", &auth_type[..2]);
        cluster().admin(cluster().primary, &format!("CREATE ROLE {lookup} SUPERUSER LOGIN PASSWORD 'x'"));
        let query = "SELECT rolname, ''::text FROM pg_authid WHERE rolname = $1";
        let settings = format!("auth_type = {auth_type}\nauth_user = {lookup}\nauth_query = {query}");
        let pooler = pooler(&format!("\"{lookup}\" \"x\"\n"), &settings);
        run(async {
            assert_eq!(refused(&pooler, "app", "trusted", "").await.1.field('C'), "28P01", "{auth_type}");
        });
    }
}

#[test]
fn that_there_is_no_password_for_the_server_is_said() {
    let port = cluster().primary;
    let databases = format!("stranger = host=127.0.0.1 port={port} dbname=app user=stranger password=''\n");
    let pooler = Pooler::with_databases(&databases, "");
    run(async {
        let (_, error) = refused(&pooler, "stranger", USER, PASSWORD).await;
        assert!(error.field('M').ends_with("no password of user \"stranger\" is known"), "{error:?}");
        assert!(error.field('H').contains("An empty password is none"), "{error:?}");
    });
}

/// A login whose proof takes a million hashes, and a query that comes after it.
#[test]
fn much_hashing_does_not_hold_others_up() {
    let verifier = postgres_protocol::password::scram_sha_256(b"x").replace("4096:", "1000000:");
    let users = format!("\"{USER}\" \"{PASSWORD}\"\n\"slow\" \"{verifier}\"\n");
    let pooler = pooler(&users, "auth_type = plain\nworkers = 1");
    run_for(Duration::from_secs(120), async {
        let mut raw = pooler.raw().await;
        assert_eq!(raw.value("SELECT 1").await, "1");
        let mut slow = Vec::new();
        for _ in 0..6 {
            let mut login = Raw::connect(pooler.port).await;
            login.send(&startup(V3_0, &[("user", "slow"), ("database", "app")])).await;
            assert_eq!(login.receive().await.unwrap().tag, 'R');
            slow.push(login);
        }
        for login in &mut slow {
            login.send(&message(b'p', b"wrong\0")).await;
        }
        assert_eq!(raw.value("SELECT 1").await, "1");
        for login in &slow {
            let answered = login.stream.try_read(&mut [0]);
            assert!(answered.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock), "was hashed first");
        }
    });
}

#[test]
fn a_server_does_not_decide_how_much_is_hashed() {
    let port = server(|stream| {
        stream.write_all(&message(b'R', &[&10u32.to_be_bytes()[..], b"SCRAM-SHA-256\0\0"].concat()))?;
        let first = String::from_utf8_lossy(&read_message(stream)?).into_owned();
        let nonce = first.split("r=").last().unwrap_or_default().to_owned();
        let challenge = format!("r={nonce}x,s=QUJD,i=1000001");
        stream.write_all(&message(b'R', &[&11u32.to_be_bytes()[..], challenge.as_bytes()].concat()))?;
        read_message(stream).map(drop)
    });
    let pooler = pooler_before(port, "");
    run(async {
        let error = log_in_to_hostile(&pooler).await.err().unwrap();
        assert!(error.field('M').contains("at most 1000000"), "{error:?}");
    });
}

/// A server that asks for the password itself; what it was sent.
fn greedy(address: &str) -> (u16, std::sync::mpsc::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream: TcpStream = stream.unwrap();
            let mut len = [0; 4];
            let _ = stream.read_exact(&mut len);
            let _ = stream.read_exact(&mut vec![0; u32::from_be_bytes(len) as usize - 4]);
            let _ = stream.write_all(&message(b'R', &3u32.to_be_bytes()));
            if let Ok(sent) = read_message(&mut stream) {
                let _ = tell.send(sent);
                let _ = stream.write_all(&welcome());
                let _ = read_message(&mut stream);
            }
        }
    });
    (port, told)
}

/// An address of this machine that is not the loopback's, if it has one. Nothing is sent.
fn outer_address() -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then(|| address.to_string())
}

#[test]
fn a_password_is_not_shown_to_a_server_that_others_could_listen_to() {
    let Some(address) = outer_address() else { return };
    let (port, told) = greedy(&address);
    let host = format!("host={address} port={port}");
    let databases = format!("app = {host}\nallowed = {host} server_require_auth=password\n");
    let pooler = Pooler::with_databases(&databases, "server_tls_sslmode = disable");
    run(async {
        let (_, error) = refused(&pooler, "app", USER, PASSWORD).await;
        assert!(error.field('M').contains("a cleartext password over a connection that is not encrypted"));
        assert!(error.field('H').contains("server_require_auth=password"), "{error:?}");
        assert!(told.try_recv().is_err());
        let parameters = [("user", USER), ("database", "allowed")];
        assert!(Raw::log_in_with(pooler.port, V3_0, &parameters, PASSWORD).await.is_ok());
        assert_eq!(told.recv_timeout(Duration::from_secs(5)).unwrap(), format!("{PASSWORD}\0").into_bytes());
    });
}

#[test]
fn servers_use_the_methods_they_may() {
    let (port, told) = greedy("127.0.0.1");
    let believed = server(|stream| {
        stream.write_all(&welcome())?;
        read_message(stream).map(drop)
    });
    let databases = format!(
        "strict = host=127.0.0.1 port={port}\nlocal = host=127.0.0.1 port={port} server_require_auth=''\n\
         unasked = host=127.0.0.1 port={believed}\nfree = host=127.0.0.1 port={believed} server_require_auth=none\n\
         app = host=127.0.0.1 port={}\n",
        cluster().primary
    );
    let settings = "server_tls_sslmode = disable\nserver_require_auth = scram-sha-256";
    let pooler = Pooler::with_databases(&databases, settings);
    run(async {
        for (database, did) in [("strict", "requested a cleartext password"), ("unasked", "did not ask")] {
            let (_, error) = refused(&pooler, database, USER, PASSWORD).await;
            let text = error.field('M');
            let expected = "authentication method requirement \"scram-sha-256\" failed: server ";
            assert!(text.starts_with(&format!("{expected}{did}")), "{database}: {text}");
        }
        assert!(told.try_recv().is_err());
        for database in ["local", "free", "app"] {
            let parameters = [("user", USER), ("database", database)];
            assert!(Raw::log_in_with(pooler.port, V3_0, &parameters, PASSWORD).await.is_ok(), "{database}");
        }
        let change = |value: &str| format!("SET server_require_auth = '{value}'");
        let mut console = Raw::log_in(pooler.port, "pgbouncer").await;
        console.rows(&change("!password,!none")).await;
        let shown = console.rows("SHOW CONFIG").await;
        assert!(shown.iter().any(|row| row[0] == "server_require_auth" && row[1] == "!password,!none"));
        console.send(&crate::support::raw::query(&change("kerberos"))).await;
        let error = console.until_ready().await.remove(0);
        assert!(error.field('D').contains("expected a list of password, md5"), "{error:?}");
    });
}

#[test]
fn unknown_users_look_like_known_ones() {
    let md5 = postgres_protocol::password::md5(b"x", "known");
    let scram = postgres_protocol::password::scram_sha_256(b"x").replace("4096:", "5000:");
    for secret in [&md5, &scram, "x"] {
        for auth_type in ["scram-sha-256", "md5", "plain"] {
            let pooler = pooler(&format!("\"known\" \"{secret}\"\n"), &format!("auth_type = {auth_type}"));
            run(async {
                let known = refused(&pooler, "app", "known", "wrong").await;
                for user in ["not_there", "nobody"] {
                    let unknown = refused(&pooler, "app", user, "wrong").await;
                    assert_eq!(unknown.0, known.0, "{auth_type} {secret}");
                    assert_eq!(words(&unknown.1, user), words(&known.1, "known"), "{auth_type} {secret}");
                }
            });
            assert!(pooler.log().contains("no such user: nobody"), "{}", pooler.log());
        }
    }
}

#[test]
fn unknown_users_look_like_those_who_are_looked_up() {
    let (database, primary) = ("app", cluster().primary);
    cluster().admin(
        primary,
        "SET password_encryption = md5; CREATE ROLE enumerated_md5 LOGIN PASSWORD 'x'; RESET password_encryption;
         CREATE ROLE enumerated_scram LOGIN PASSWORD 'x'; CREATE ROLE enumerated_null LOGIN;
         CREATE ROLE enumerator SUPERUSER LOGIN PASSWORD 'y'",
    );
    for (auth_type, known) in [
        ("scram-sha-256", "enumerated_scram"),
        ("md5", "enumerated_scram"),
        ("md5", "enumerated_md5"),
        ("plain", "enumerated_scram"),
    ] {
        let settings = format!("auth_type = {auth_type}\nauth_user = enumerator");
        let pooler = pooler("\"enumerator\" \"y\"\n", &settings);
        run(async {
            let expected = refused(&pooler, database, known, "wrong").await;
            for user in ["not_there", "enumerated_null", known] {
                let seen = refused(&pooler, database, user, "wrong").await;
                assert_eq!(seen.0, expected.0, "{auth_type} {user}");
                assert_eq!(words(&seen.1, user), words(&expected.1, known), "{auth_type} {user}");
            }
            assert!(expected.1.field('D').contains("no such user"), "as PgBouncer says it");
        });
        let log = pooler.log();
        assert!(log.contains("login failed: db="), "{log}");
        assert!(log.contains("closing because: no such user (age="), "{log}");
    }
    // Where no password is asked for PgBouncer's words stay.
    let settings = "auth_type = trust\nauth_user = enumerator";
    let pooler = pooler("\"enumerator\" \"y\"\n", settings);
    run(async {
        let (_, error) = refused(&pooler, database, "not_there", "").await;
        assert_eq!((error.field('C').as_str(), error.field('D').as_str()), ("28000", "no such user"));
    });
}

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
