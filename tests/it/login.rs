//! Who gets in, how, and what the others are told.

use crate::support::raw::{self, Raw, message, startup};
use crate::support::{PASSWORD, Pooler, USER, cluster, run};

const V3_0: u32 = 3 << 16;
const V3_2: u32 = 3 << 16 | 2;

fn databases() -> String {
    let port = cluster().primary;
    format!(
        "app = host=127.0.0.1 port={port}\nforced = host=127.0.0.1 port={port} dbname=app user={USER} password='{PASSWORD}'\n"
    )
}

#[test]
fn scram_with_a_plain_secret() {
    let pooler = Pooler::start("");
    run(async {
        let client = pooler.connect("app").await;
        assert_eq!(client.query_one("SELECT current_user::text", &[]).await.unwrap().get::<_, &str>(0), USER);
    });
}

#[test]
fn scram_with_a_stored_verifier_logs_in_to_the_server_with_the_clients_key() {
    let verifier =
        cluster().admin(cluster().primary, "SELECT rolpassword FROM pg_authid WHERE rolname = 'app'");
    assert!(verifier.starts_with("SCRAM-SHA-256$"), "{verifier}");
    let dir = Pooler::new_dir();
    std::fs::write(dir.join("userlist.txt"), format!("\"{USER}\" \"{verifier}\"\n")).unwrap();
    let port = crate::support::free_port();
    std::fs::write(dir.join("pgweir.ini"), Pooler::ini(&dir, port, &databases(), "")).unwrap();
    let pooler = Pooler::launch(port, dir);
    run(async {
        assert!(pooler.try_connect(&format!("user={USER} password=wrong dbname=app")).await.is_err());
        let client = pooler.connect("app").await;
        assert_eq!(client.query_one("SELECT current_user::text", &[]).await.unwrap().get::<_, &str>(0), USER);
    });
}

#[test]
fn every_method_towards_clients_and_servers() {
    for (auth_type, user, password) in [
        ("md5", "md5user", "md5 secret"),
        ("md5", "plainuser", "plain secret"),
        ("plain", "plainuser", "plain secret"),
        ("scram-sha-256", "md5user", "md5 secret"),
        ("trust", "trusted", "anything"),
    ] {
        let pooler = Pooler::start(&format!("auth_type = {auth_type}"));
        run(async {
            let mut raw =
                Raw::log_in_with(pooler.port, V3_0, &[("user", user), ("database", "app")], password)
                    .await
                    .unwrap();
            assert_eq!(raw.value("SELECT current_user").await, user, "{auth_type}");
            if auth_type != "trust" {
                let wrong =
                    Raw::log_in_with(pooler.port, V3_0, &[("user", user), ("database", "app")], "wrong")
                        .await;
                assert_eq!(wrong.err().unwrap().field('C'), "28P01", "{auth_type}");
            }
        });
    }
}

#[test]
fn any_lets_everybody_use_the_forced_user() {
    let pooler = Pooler::with_databases(&databases(), "auth_type = any");
    run(async {
        let mut raw =
            Raw::log_in_with(pooler.port, V3_0, &[("user", "somebody"), ("database", "forced")], "")
                .await
                .unwrap();
        assert_eq!(raw.value("SELECT current_user").await, USER);
    });
}

#[test]
fn unknown_users_wrong_passwords_and_unknown_databases_are_told_what_postgresql_tells() {
    let pooler = Pooler::start("");
    run(async {
        for user in [USER, "nobody_known"] {
            let error = Raw::log_in_with(pooler.port, V3_0, &[("user", user), ("database", "app")], "wrong")
                .await
                .err()
                .unwrap();
            assert_eq!(error.field('S'), "FATAL");
            assert_eq!(error.field('C'), "28P01");
            assert_eq!(error.field('M'), format!("password authentication failed for user \"{user}\""));
        }
        // Without the right password nothing is said about the database.
        let unknown = [("user", USER), ("database", "nothing")];
        assert_eq!(
            Raw::log_in_with(pooler.port, V3_0, &unknown, "wrong").await.err().unwrap().field('C'),
            "28P01"
        );
        let error = Raw::log_in_with(pooler.port, V3_0, &unknown, PASSWORD).await.err().unwrap();
        assert_eq!(
            (error.field('C').as_str(), error.field('M').as_str()),
            ("3D000", "database \"nothing\" does not exist")
        );
    });
    let log = pooler.log();
    assert!(
        log.contains("app/nobody_known@127.0.0.1")
            && log.contains("closing because: no such database: nothing"),
        "{log}"
    );
}

#[test]
fn a_user_the_server_refuses_is_told_why() {
    let dir = Pooler::new_dir();
    std::fs::write(dir.join("userlist.txt"), format!("\"{USER}\" \"not the servers password\"\n")).unwrap();
    let port = crate::support::free_port();
    std::fs::write(dir.join("pgweir.ini"), Pooler::ini(&dir, port, &databases(), "")).unwrap();
    let pooler = Pooler::launch(port, dir);
    run(async {
        let parameters = [("user", USER), ("database", "app")];
        let password = "not the servers password";
        let error = Raw::log_in_with(pooler.port, V3_0, &parameters, password).await.err().unwrap();
        assert_eq!(error.field('C'), "28P01");
        assert!(error.field('M').contains("password authentication failed for user \"app\""), "{error:?}");
        // The next one is told at once: the server is asked again after server_login_retry.
        let error = Raw::log_in_with(pooler.port, V3_0, &parameters, password).await.err().unwrap();
        assert!(error.field('M').starts_with("server login has been failing, cached error: "), "{error:?}");
    });
}

#[test]
fn encryption_is_declined_and_asked_for_once_only() {
    let pooler = Pooler::start("");
    run(async {
        let mut raw = Raw::connect(pooler.port).await;
        for code in [80_877_104u32, 80_877_103] {
            raw.send(&[&8u32.to_be_bytes()[..], &code.to_be_bytes()].concat()).await;
            let mut answer = [0];
            tokio::io::AsyncReadExt::read_exact(&mut raw.stream, &mut answer).await.unwrap();
            assert_eq!(answer, *b"N");
        }
        raw.send(&startup(V3_0, &[("user", USER), ("database", "app")])).await;
        raw.authenticate(USER, PASSWORD).await.unwrap();
        assert_eq!(raw.value("SELECT 1").await, "1");

        let mut raw = Raw::connect(pooler.port).await;
        for _ in 0..2 {
            raw.send(&[&8u32.to_be_bytes()[..], &80_877_103u32.to_be_bytes()].concat()).await;
        }
        let mut answer = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut raw.stream, &mut answer).await.unwrap();
        assert_eq!(answer, b"N");
    });
}

#[test]
fn protocol_versions_are_negotiated() {
    let pooler = Pooler::start("");
    let parameters = [("user", USER), ("database", "app")];
    run(async {
        let raw = Raw::log_in_with(pooler.port, V3_0, &parameters, PASSWORD).await.unwrap();
        assert_eq!(raw.key.1.len(), 4);
        let raw = Raw::log_in_with(pooler.port, V3_2, &parameters, PASSWORD).await.unwrap();
        assert_eq!(raw.key.1.len(), 32);

        // A version of the future, and an option nobody knows.
        let mut raw = Raw::connect(pooler.port).await;
        let grease = 3 << 16 | 9999;
        raw.send(&startup(grease, &[("user", USER), ("database", "app"), ("_pq_.test", "1")])).await;
        let negotiate = raw.receive().await.unwrap();
        assert_eq!(negotiate.tag, 'v');
        assert_eq!(negotiate.body, [&V3_2.to_be_bytes()[..], &1u32.to_be_bytes(), b"_pq_.test\0"].concat());
        raw.authenticate(USER, PASSWORD).await.unwrap();

        let mut raw = Raw::connect(pooler.port).await;
        raw.send(&startup(2 << 16, &parameters)).await;
        let error = raw.receive().await.unwrap();
        assert_eq!((error.tag, error.field('C').as_str()), ('E', "0A000"));
    });
}

#[test]
fn what_is_no_startup_packet_gets_no_answer() {
    let pooler = Pooler::start("");
    run(async {
        let too_long = 10_001u32.to_be_bytes();
        for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0, 0, 0, 4, 0], &[0, 0, 0, 0], &[0xff; 40], &too_long]
        {
            let mut raw = Raw::connect(pooler.port).await;
            raw.send(bytes).await;
            assert_eq!(raw.receive().await, None, "{bytes:?}");
        }
        let mut raw = Raw::connect(pooler.port).await;
        raw.send(&startup(V3_0, &[("database", "app")])).await;
        assert_eq!(raw.receive().await.unwrap().field('C'), "28000");
        // Something else than a password where one is due, and one that is far too long.
        for answer in
            [message(b'Q', b"SELECT 1\0"), [&b"p"[..], &0x4000_0000u32.to_be_bytes(), b"x"].concat()]
        {
            let mut raw = Raw::connect(pooler.port).await;
            raw.send(&startup(V3_0, &[("user", USER), ("database", "app")])).await;
            assert_eq!(raw.receive().await.unwrap().tag, 'R');
            raw.send(&answer).await;
            assert!(raw.receive().await.is_none_or(|m| m.tag == 'E'));
        }
        assert_eq!(pooler.raw().await.value("SELECT 1").await, "1");
    });
}

#[test]
fn logins_take_no_longer_than_they_may() {
    let pooler = Pooler::start("client_login_timeout = 0.5");
    run(async {
        for bytes in [&[][..], &[0, 0], &startup(V3_0, &[("user", USER), ("database", "app")])] {
            let mut raw = Raw::connect(pooler.port).await;
            raw.send(bytes).await;
            let mut last = None;
            while let Some(message) = raw.receive().await {
                last = Some(message);
            }
            assert_eq!(last.unwrap().field('M'), "client_login_timeout");
        }
    });
}

#[test]
fn the_house_is_full_at_max_client_conn() {
    let pooler = Pooler::start("max_client_conn = 2");
    run(async {
        let (_a, b) = (pooler.raw().await, pooler.raw().await);
        let parameters = [("user", USER), ("database", "app")];
        let error = Raw::log_in_with(pooler.port, V3_0, &parameters, PASSWORD).await.err().unwrap();
        assert_eq!(error.field('C'), "53300");
        assert!(error.field('M').contains("max_client_conn"), "{error:?}");
        drop(b);
        // It is free a moment after the log says why the client has gone.
        let mut attempts = 0;
        while let Err(error) = Raw::log_in_with(pooler.port, V3_0, &parameters, PASSWORD).await {
            attempts += 1;
            assert!(error.field('C') == "53300" && attempts < 100, "{error:?}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
}

#[test]
fn parameters_of_the_server_are_relayed_and_those_of_the_client_heeded() {
    let pooler = Pooler::start("ignore_startup_parameters = extra_float_digits, search_path");
    run(async {
        let parameters = [
            ("user", USER),
            ("database", "app"),
            ("application_name", "it's me"),
            ("extra_float_digits", "3"),
            ("options", "-c DateStyle=German -c search_path=x"),
        ];
        let mut raw = Raw::log_in_with(pooler.port, V3_0, &parameters, PASSWORD).await.unwrap();
        assert!(
            raw.parameter("server_version")
                .split('.')
                .next()
                .is_some_and(|major| major.parse::<u8>().is_ok()),
            "{:?}",
            raw.parameters
        );
        assert_eq!(raw.value("SHOW application_name").await, "it's me");
        assert!(raw.value("SHOW DateStyle").await.starts_with("German"));

        for (name, value, message) in [
            ("work_mem", "1MB", "unsupported startup parameter: work_mem"),
            ("options", "-c work_mem=1MB", "unsupported startup parameter in options: work_mem"),
            ("replication", "maybe", "invalid value for parameter \"replication\": \"maybe\""),
        ] {
            let parameters = [("user", USER), ("database", "app"), (name, value)];
            let error = Raw::log_in_with(pooler.port, V3_0, &parameters, PASSWORD).await.err().unwrap();
            assert_eq!(error.field('M'), message);
        }
    });
}

#[test]
fn unknown_users_take_the_same_steps() {
    let pooler = Pooler::start("");
    run(async {
        let mut first = Vec::new();
        for user in [USER, "nobody_known", "nobody_known"] {
            let mut raw = Raw::connect(pooler.port).await;
            raw.send(&startup(V3_0, &[("user", user), ("database", "app")])).await;
            assert_eq!(raw.receive().await.unwrap().body[..4], [0, 0, 0, 10]);
            let hello = b"SCRAM-SHA-256\0\0\0\0\x13n,,n=,r=abcdefghijk";
            raw.send(&message(b'p', &[&hello[..14], &19u32.to_be_bytes(), &hello[18..]].concat())).await;
            let challenge = String::from_utf8(raw.receive().await.unwrap().body[4..].to_vec()).unwrap();
            let parts: Vec<String> = challenge.split(',').map(str::to_owned).collect();
            assert_eq!(parts[2], "i=4096", "{challenge}");
            first.push(parts[1].clone());
        }
        assert_ne!(first[0], first[1]);
        assert_eq!(first[1], first[2], "an unknown user has the same salt each time");
    });
    let _ = raw::sync();
}
