//! TLS towards clients and towards servers, as OpenSSL and PostgreSQL see it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::raw::{Raw, message, startup};
use crate::support::tls::{Authority, TlsClient, make_private, psql, tls_server};
use crate::support::{Ends, PASSWORD, Pooler, USER, cluster, eventually, free_port, run};

const V3_0: u32 = 3 << 16;

/// The database `app`, on the server without TLS.
fn databases() -> String {
    format!("app = host=127.0.0.1 port={}\n", cluster().primary)
}

/// A pooler with a certificate for `localhost`; its authority's is `ca.crt` in its folder.
fn encrypted(settings: &str) -> (Pooler, Authority) {
    let authority = Authority::new("Authority of the poolers");
    let pooler = Pooler::prepared(|dir| {
        authority.issue("a pooler", &["localhost"]).write(dir, "pooler");
        std::fs::write(dir.join("ca.crt"), authority.pem()).unwrap();
        let dir = dir.display();
        let files =
            format!("client_tls_cert_file = {dir}/pooler.crt\nclient_tls_key_file = {dir}/pooler.key\n");
        (databases(), format!("client_tls_sslmode = require\n{files}{settings}"))
    });
    (pooler, authority)
}

fn ca(pooler: &Pooler) -> String {
    pooler.dir.join("ca.crt").display().to_string()
}

#[test]
fn clients_check_the_pooler_as_they_check_postgresql() {
    let (pooler, _) = encrypted("");
    let (port, ca) = (pooler.port, ca(&pooler));
    let ask = |conninfo: &str| psql(&format!("port={port} {conninfo}"), "SELECT current_user");
    assert_eq!(ask("sslmode=require").unwrap(), USER);
    assert_eq!(ask(&format!("sslmode=verify-ca sslrootcert={ca}")).unwrap(), USER);
    let full = format!("sslmode=verify-full sslrootcert={ca}");
    assert_eq!(ask(&format!("{full} host=localhost")).unwrap(), USER);
    let error = ask(&full).unwrap_err();
    assert!(error.contains("does not match host name \"127.0.0.1\""), "{error}");
    let error = ask("sslmode=disable").unwrap_err();
    assert!(error.contains("SSL required"), "{error}");
    assert_eq!(
        ask("sslmode=require ssl_min_protocol_version=TLSv1.2 ssl_max_protocol_version=TLSv1.2").unwrap(),
        USER
    );
    let error =
        ask("sslmode=require ssl_min_protocol_version=TLSv1.1 ssl_max_protocol_version=TLSv1.1").unwrap_err();
    assert!(error.contains("SSL"), "{error}");
}

#[test]
fn scram_is_bound_to_the_channel() {
    let (pooler, _) = encrypted("");
    let conninfo = format!("port={} sslmode=require channel_binding=require", pooler.port);
    assert_eq!(psql(&conninfo, "SELECT 1").unwrap(), "1");
    // Without TLS there is nothing to be bound to, and the client notices.
    let plain = Pooler::start("");
    let error = psql(&format!("port={} channel_binding=require", plain.port), "SELECT 1").unwrap_err();
    assert!(error.contains("channel binding"), "{error}");
}

#[test]
fn consoles_show_what_connections_are_encrypted_with() {
    let (pooler, _) = encrypted("auth_type = trust\nclient_tls_sslmode = allow\nadmin_users = app");
    let mut client = TlsClient::connect(pooler.port).log_in();
    assert_eq!(client.value("SELECT 1"), "1");
    run(async {
        let mut console = Raw::log_in(pooler.port, "pgbouncer").await;
        let (columns, rows) = console.table("SHOW CLIENTS").await;
        let at = columns.iter().position(|(name, _)| name == "tls").unwrap();
        let tls: Vec<_> = rows.iter().map(|row| (row[1].as_str(), row[at].as_str())).collect();
        assert!(tls.contains(&("trusted", "TLSv1.3/TLS_AES_256_GCM_SHA384/ECDH=X25519")), "{tls:?}");
        assert!(tls.contains(&("app", "")), "{tls:?}");
    });
    assert!(pooler.log().contains("tls=TLSv1.3/TLS_AES_256_GCM_SHA384/ECDH=X25519"), "{}", pooler.log());
}

#[test]
fn direct_tls_must_say_that_it_means_postgresql() {
    let (pooler, _) = encrypted("auth_type = trust");
    let client = TlsClient::connect_directly(pooler.port, &[b"postgresql"]).unwrap();
    assert_eq!(client.log_in().value("SELECT 1"), "1");
    let mut silent = TlsClient::connect_directly(pooler.port, &[]).unwrap();
    assert_eq!(silent.receive(), None);
    assert!(TlsClient::connect_directly(pooler.port, &[b"h2"]).is_err());
    assert!(pooler.log().contains("direct TLS connection without ALPN protocol \"postgresql\""));

    // OpenSSL's view of the same.
    let output = Command::new("openssl")
        .args([
            "s_client",
            "-brief",
            "-alpn",
            "postgresql",
            "-servername",
            "localhost",
            "-verify_return_error",
        ])
        .args(["-CAfile", &ca(&pooler), "-connect", &format!("127.0.0.1:{}", pooler.port)])
        .stdin(Stdio::null())
        .ended();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("Verification: OK"), "{said}");

    // Without TLS a ClientHello is no startup packet.
    let plain = Pooler::start("");
    assert!(TlsClient::connect_directly(plain.port, &[b"postgresql"]).is_err());
}

/// The class of CVE-2021-23214 and CVE-2021-3935: what somebody in between sends before the handshake must not be taken
/// for the client's.
#[test]
fn plain_text_before_the_handshake_is_not_the_clients() {
    let (pooler, _) = encrypted("auth_type = trust");
    let request = [8u32.to_be_bytes(), 80_877_103u32.to_be_bytes()].concat();
    let injected = startup(V3_0, &[("user", "trusted"), ("database", "app")]);
    for together in [true, false] {
        let mut tcp = TcpStream::connect(("127.0.0.1", pooler.port)).unwrap();
        let mut answer = Vec::new();
        if together {
            tcp.write_all(&[&request[..], &injected].concat()).unwrap();
        } else {
            tcp.write_all(&request).unwrap();
            answer.push(0);
            tcp.read_exact(&mut answer).unwrap();
            tcp.write_all(&injected).unwrap();
        }
        let _ = tcp.read_to_end(&mut answer);
        // At most an S and a TLS alert, and the connection is closed.
        assert!(answer.is_empty() || answer == b"S" || answer.starts_with(b"S\x15"), "{answer:?}");
    }
    for reason in ["received unencrypted data after SSL request", "TLS handshake error"] {
        eventually(reason, || pooler.log().contains(reason));
    }
    assert!(!pooler.log().contains("login attempt"), "{}", pooler.log());
}

/// The class of CVE-2021-23222, the other direction.
#[test]
fn plain_text_before_the_handshake_is_not_the_servers() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut tcp, _) = listener.accept().unwrap();
        let mut request = [0; 8];
        tcp.read_exact(&mut request).unwrap();
        // "S", and in plain text with it: you are in, and here I am.
        let welcome = [message(b'R', &[0; 4]), message(b'Z', b"I")].concat();
        tcp.write_all(&[&b"S"[..], &welcome].concat()).unwrap();
        let mut sent = Vec::new();
        let _ = tcp.read_to_end(&mut sent);
        sent
    });
    let databases = format!("app = host=127.0.0.1 port={port}\n");
    let pooler = Pooler::with_databases(&databases, "server_tls_sslmode = require\nquery_wait_timeout = 2");
    run(async {
        let parameters = [("user", USER), ("database", "app")];
        assert!(Raw::log_in_with(pooler.port, V3_0, &parameters, PASSWORD).await.is_err());
    });
    eventually("the server has seen the end", || server.is_finished());
    let sent = server.join().unwrap();
    assert_eq!(sent.first(), Some(&0x16), "a ClientHello");
    assert!(!sent.windows(4).any(|bytes| bytes == b"user"), "the startup packet is not for everybody");
    assert!(pooler.log().contains("TLS handshake error"), "{}", pooler.log());
}

#[test]
fn certificates_as_postgresqls_documentation_makes_them() {
    // Section "Creating Certificates": an authority of its own, and a leaf of X.509 version 1.
    let make = |dir: &Path, name: &str, common_name: &str| {
        let openssl = |arguments: &str| {
            let status = Command::new("openssl")
                .args(arguments.split(' '))
                .current_dir(dir)
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
                .ended();
            assert!(status.success(), "openssl {arguments}");
        };
        if !dir.join("root.crt").exists() {
            std::fs::write(dir.join("v3.conf"), "[v3_ca]\nbasicConstraints = CA:true\n").unwrap();
            openssl("req -new -nodes -text -out root.csr -keyout root.key -subj /CN=root.example.org");
            openssl(
                "x509 -req -in root.csr -text -days 3650 -extfile v3.conf -extensions v3_ca -signkey root.key -out root.crt",
            );
        }
        openssl(&format!("req -new -nodes -text -out {name}.csr -keyout {name}.key -subj /CN={common_name}"));
        openssl(&format!(
            "x509 -req -in {name}.csr -text -days 365 -CA root.crt -CAkey root.key -CAcreateserial -out {name}.crt"
        ));
        let text = Command::new("openssl")
            .args(["x509", "-text", "-noout", "-in"])
            .arg(dir.join(format!("{name}.crt")))
            .ended();
        assert!(String::from_utf8_lossy(&text.stdout).contains("Version: 1 "), "of version 1");
        std::fs::set_permissions(
            dir.join(format!("{name}.key")),
            std::os::unix::fs::PermissionsExt::from_mode(0o644),
        )
        .unwrap();
    };
    let server = Pooler::prepared(|dir| {
        make(dir, "server", "localhost");
        make(dir, "client", USER);
        let dir = dir.display();
        let settings = format!(
            "client_tls_sslmode = verify-full\nclient_tls_cert_file = {dir}/server.crt\nclient_tls_key_file = {dir}/server.key\n\
             client_tls_ca_file = {dir}/root.crt\nauth_type = cert\n"
        );
        (databases(), settings)
    });
    let dir = server.dir.display();
    // libpq on its side …
    let key = server.dir.join("psql.key");
    std::fs::copy(server.dir.join("client.key"), &key).unwrap();
    make_private(&key);
    let conninfo = format!(
        "host=localhost port={} sslmode=verify-full sslrootcert={dir}/root.crt sslcert={dir}/client.crt sslkey={}",
        server.port,
        key.display()
    );
    assert_eq!(psql(&conninfo, "SELECT current_user").unwrap(), USER);
    // … and a pooler as the client of a pooler.
    let databases = format!("app = host=localhost port={}\n", server.port);
    let settings = format!(
        "server_tls_sslmode = verify-full\nserver_tls_ca_file = {dir}/root.crt\nserver_tls_cert_file = {dir}/client.crt\n\
         server_tls_key_file = {dir}/client.key"
    );
    let pooler = Pooler::with_databases(&databases, &settings);
    run(async { assert_eq!(pooler.raw().await.value("SELECT current_user").await, USER) });
}

#[test]
fn a_certificate_says_who_the_client_is() {
    let authority = Authority::new("Authority of the clients");
    let pooler = Pooler::prepared(|dir| {
        authority.issue("pooler", &["localhost"]).write(dir, "pooler");
        std::fs::write(dir.join("clients.crt"), authority.pem()).unwrap();
        let revoked = authority.issue(USER, &[]);
        revoked.write(dir, "revoked");
        std::fs::write(dir.join("clients.crl"), authority.revoke(&revoked)).unwrap();
        authority.issue(USER, &[]).write(dir, "app");
        authority.issue("somebody", &[]).write(dir, "somebody");
        Authority::new("Authority of the clients").issue(USER, &[]).write(dir, "stranger");
        for name in ["revoked", "app", "somebody", "stranger"] {
            make_private(&dir.join(format!("{name}.key")));
        }
        std::fs::write(
            dir.join("hba"),
            "hostssl app app 127.0.0.1/32 cert\nhostssl app other 127.0.0.1/32 cert map=m\n",
        )
        .unwrap();
        std::fs::write(dir.join("ident"), "m somebody other\n").unwrap();
        let dir = dir.display();
        let settings = format!(
            "client_tls_sslmode = require\nclient_tls_cert_file = {dir}/pooler.crt\nclient_tls_key_file = {dir}/pooler.key\n\
             client_tls_ca_file = {dir}/clients.crt\nclient_tls_crl_file = {dir}/clients.crl\nauth_type = hba\n\
             auth_hba_file = {dir}/hba\nauth_ident_file = {dir}/ident\n"
        );
        (databases(), settings)
    });
    let ask = |user: &str, certificate: &str| {
        let file = |extension| pooler.dir.join(format!("{certificate}.{extension}")).display().to_string();
        let conninfo = format!(
            "port={} user={user} sslmode=require sslcert={} sslkey={}",
            pooler.port,
            file("crt"),
            file("key")
        );
        psql(&conninfo, "SELECT current_user")
    };
    assert_eq!(ask(USER, "app").unwrap(), USER);
    assert_eq!(ask("other", "somebody").unwrap(), "other");
    for (user, certificate, said, logged) in [
        (USER, "somebody", "certificate authentication failed", "TLS certificate name mismatch"),
        ("other", "app", "certificate authentication failed", "ident map: m does not have a match"),
        (USER, "none", "certificate authentication failed", "TLS client certificate required"),
        (USER, "revoked", "SSL", "Revoked"),
        (USER, "stranger", "SSL", "certificate verify failed"),
    ] {
        let error = ask(user, certificate).unwrap_err();
        assert!(error.contains(said), "{certificate}: {error}");
        eventually(logged, || pooler.log().contains(logged));
    }
}

#[test]
fn renewed_files_are_used_without_a_reload_and_nobody_loses_a_connection() {
    let authority = Authority::new("Authority of the poolers");
    let before = authority.issue("pooler", &["localhost"]);
    // As Kubernetes writes secrets: the names lead through a link that is replaced in one go.
    let put = |dir: &Path, version: &str, issued: &crate::support::tls::Issued| {
        let folder = dir.join(version);
        std::fs::create_dir(&folder).unwrap();
        issued.write(&folder, "tls");
        let new = dir.join("..data_tmp");
        std::os::unix::fs::symlink(version, &new).unwrap();
        std::fs::rename(&new, dir.join("..data")).unwrap();
    };
    let pooler = Pooler::prepared(|dir| {
        put(dir, "..2024_01", &before);
        for name in ["tls.crt", "tls.key"] {
            std::os::unix::fs::symlink(format!("..data/{name}"), dir.join(name)).unwrap();
        }
        let dir = dir.display();
        let settings = format!(
            "client_tls_sslmode = require\nclient_tls_cert_file = {dir}/tls.crt\nclient_tls_key_file = {dir}/tls.key\nauth_type = trust\n"
        );
        (databases(), settings)
    });
    let mut client = TlsClient::connect(pooler.port).log_in();
    assert_eq!(client.certificate(), before.der);
    let after = authority.issue("pooler", &["localhost"]);
    put(&pooler.dir, "..2024_02", &after);
    eventually("the new certificate is shown", || TlsClient::connect(pooler.port).certificate() == after.der);
    assert_eq!(client.value("SELECT 1"), "1", "the old connection lives on");
}

#[test]
fn reload_takes_new_certificates_and_what_does_not_fit_changes_nothing() {
    let (pooler, authority) = encrypted("auth_type = trust");
    let console = |command: &str| {
        let output = crate::support::unprivileged(cluster().program("psql").get_program().to_str().unwrap())
            .args([
                "-XAtq",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                "pgbouncer",
                "-d",
                "pgbouncer",
                "-c",
                command,
                "-h",
            ])
            .arg(&pooler.dir)
            .args(["-p", &pooler.port.to_string()])
            .ended();
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    };
    let mut client = TlsClient::connect(pooler.port).log_in();
    let first = client.certificate();

    // The key of another certificate, by SET and then in the file itself.
    authority.issue("another", &[]).write(&pooler.dir, "another");
    let another = pooler.dir.join("another.key");
    let _ = console(&format!("SET client_tls_key_file = '{}'", another.display()));
    assert!(pooler.log().contains("private/public key mismatch"), "{}", pooler.log());
    assert_eq!(TlsClient::connect(pooler.port).certificate(), first);
    let key = std::fs::read(pooler.dir.join("pooler.key")).unwrap();
    std::fs::copy(&another, pooler.dir.join("pooler.key")).unwrap();
    for _ in 0..2 {
        let error = console("RELOAD").unwrap_err();
        assert!(error.contains("private/public key mismatch"), "{error}");
    }
    assert_eq!(TlsClient::connect(pooler.port).certificate(), first);
    std::fs::write(pooler.dir.join("pooler.key"), key).unwrap();
    console("RELOAD").unwrap();

    let renewed = authority.issue("a pooler", &["localhost"]);
    renewed.write(&pooler.dir, "pooler");
    console("RELOAD").unwrap();
    assert_eq!(TlsClient::connect(pooler.port).certificate(), renewed.der);
    assert_eq!(client.value("SELECT 1"), "1", "the old connection lives on");
}

/// What comes of a login through a pooler with these settings towards the server with TLS, known as `host`.
fn towards_the_server(
    host: &str,
    settings: impl FnOnce(&Path) -> String,
) -> (Result<String, String>, Pooler) {
    let pooler = Pooler::prepared(|dir| {
        std::fs::write(dir.join("ca.crt"), tls_server().authority.pem()).unwrap();
        std::fs::write(dir.join("server.crl"), tls_server().authority.revoke(&tls_server().certificate))
            .unwrap();
        let databases = format!("app = host={host} port={}\n", tls_server().port);
        (databases, format!("query_wait_timeout = 2\n{}", settings(dir)))
    });
    let result = run(async {
        let parameters = [("user", USER), ("database", "app")];
        match Raw::log_in_with(pooler.port, V3_0, &parameters, PASSWORD).await {
            Ok(mut raw) => {
                Ok(raw.value("SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()").await)
            }
            Err(error) => Err(error.field('M')),
        }
    });
    (result, pooler)
}

#[test]
fn without_a_file_the_systems_authorities_count() {
    let (port, dir) = (free_port(), Pooler::new_dir());
    std::fs::write(dir.join("system.crt"), tls_server().authority.pem()).unwrap();
    let databases = format!("app = host=localhost port={}\n", tls_server().port);
    std::fs::write(
        dir.join("pgweir.ini"),
        Pooler::ini(&dir, port, &databases, "server_tls_sslmode = verify-full\nquery_wait_timeout = 2"),
    )
    .unwrap();
    let pooler = Pooler::launch_with(port, dir, &[("SSL_CERT_FILE", "system.crt")]);
    let answer = run(async { pooler.raw().await.value("SELECT 1").await });
    assert_eq!(answer, "1", "{}", pooler.log());
}

#[test]
fn servers_are_checked_as_server_tls_sslmode_says() {
    let check = |mode: &str, host: &str| {
        towards_the_server(host, |dir| {
            format!("server_tls_sslmode = {mode}\nserver_tls_ca_file = {}/ca.crt", dir.display())
        })
    };
    for (mode, host) in [
        ("prefer", "127.0.0.1"),
        ("require", "127.0.0.1"),
        ("verify-ca", "127.0.0.1"),
        ("verify-full", "localhost"),
    ] {
        let (result, pooler) = check(mode, host);
        assert_eq!(result.as_deref(), Ok("TLSv1.3"), "{mode}");
        run(async {
            let mut console = Raw::log_in(pooler.port, "pgbouncer").await;
            let (columns, rows) = console.table("SHOW SERVERS").await;
            let at = columns.iter().position(|(name, _)| name == "tls").unwrap();
            assert_eq!(rows[0][at], "TLSv1.3/TLS_AES_256_GCM_SHA384/ECDH=prime256v1");
        });
    }
    let (result, pooler) = check("verify-full", "127.0.0.1");
    assert!(result.is_err());
    assert!(pooler.log().contains("certificate verify failed"), "{}", pooler.log());
    // The server's rules admit nobody in plain text.
    assert!(check("disable", "127.0.0.1").0.unwrap_err().contains("no encryption"));

    let (result, pooler) = towards_the_server("localhost", |dir| {
        std::fs::write(dir.join("other.crt"), Authority::new("Authority of the servers").pem()).unwrap();
        format!("server_tls_sslmode = verify-ca\nserver_tls_ca_file = {}/other.crt", dir.display())
    });
    assert!(result.is_err());
    assert!(pooler.log().contains("certificate verify failed"), "{}", pooler.log());

    let (result, pooler) = towards_the_server("localhost", |dir| {
        let dir = dir.display();
        format!(
            "server_tls_sslmode = verify-ca\nserver_tls_ca_file = {dir}/ca.crt\nserver_tls_crl_file = {dir}/server.crl"
        )
    });
    assert!(result.is_err());
    assert!(
        pooler.log().contains("certificate verify failed: Revoked") || pooler.log().contains("revoked"),
        "{}",
        pooler.log()
    );
}

#[test]
fn a_server_without_tls_is_refused_if_it_is_required() {
    let pooler = Pooler::start("server_tls_sslmode = require\nquery_wait_timeout = 2");
    run(async {
        let parameters = [("user", USER), ("database", "app")];
        assert!(Raw::log_in_with(pooler.port, V3_0, &parameters, PASSWORD).await.is_err());
    });
    assert!(pooler.log().contains("server refused SSL"), "{}", pooler.log());
    let pooler = Pooler::start("server_tls_sslmode = prefer");
    run(async { assert_eq!(pooler.raw().await.value("SELECT 1").await, "1") });
}

#[test]
fn the_pooler_shows_servers_its_certificate() {
    let pooler = Pooler::prepared(|dir| {
        tls_server().authority.issue("certuser", &[]).write(dir, "certuser");
        let databases = format!("app = host=127.0.0.1 port={} user=certuser\n", tls_server().port);
        let dir = dir.display();
        let files =
            format!("server_tls_cert_file = {dir}/certuser.crt\nserver_tls_key_file = {dir}/certuser.key\n");
        (databases, format!("server_tls_sslmode = require\n{files}"))
    });
    run(async { assert_eq!(pooler.raw().await.value("SELECT current_user").await, "certuser") });
}

/// Text that looks random and is the same in each run: some million bytes in lines of all lengths.
fn text() -> String {
    let (mut text, mut n) = (String::new(), 0x9e37_79b9_7f4a_7c15_u64);
    for line in 0..20_000 {
        text.push_str(&line.to_string());
        n ^= n << 13;
        n ^= n >> 7;
        n ^= n << 17;
        let len = if line % 1000 == 0 { 70_000 } else { usize::try_from(n % 300).unwrap() };
        text.push('\t');
        text.extend((0..len).map(|i| char::from(b'a' + u8::try_from((n >> (i % 50)) % 26).unwrap())));
        text.push('\n');
    }
    text
}

#[test]
fn large_results_and_copies_arrive_byte_for_byte() {
    let authority = Authority::new("Authority of the poolers");
    let pooler = Pooler::prepared(|dir| {
        authority.issue("pooler", &["localhost"]).write(dir, "pooler");
        let databases = format!("app = host=127.0.0.1 port={}\n", tls_server().port);
        let dir = dir.display();
        let files =
            format!("client_tls_cert_file = {dir}/pooler.crt\nclient_tls_key_file = {dir}/pooler.key\n");
        (databases, format!("client_tls_sslmode = require\nserver_tls_sslmode = require\n{files}"))
    });
    let text = text();
    assert!(text.len() > 4_000_000);
    let file = pooler.dir.join("text");
    std::fs::write(&file, &text).unwrap();
    for version in ["TLSv1.2", "TLSv1.3"] {
        let conninfo = format!(
            "port={} sslmode=require ssl_min_protocol_version={version} ssl_max_protocol_version={version}",
            pooler.port
        );
        let ask = |sql: &str| psql(&conninfo, sql).unwrap();
        ask("DROP TABLE IF EXISTS lines; CREATE TABLE lines (n int, line text)");
        ask(&format!("\\copy lines FROM '{}'", file.display()));
        assert!(
            ask("COPY (SELECT * FROM lines ORDER BY n) TO STDOUT") == text.trim_end(),
            "{version}: COPY TO"
        );
        let rows = ask("SELECT n || E'\\t' || line FROM lines ORDER BY n");
        assert!(rows == text.trim_end(), "{version}: SELECT");
    }
}
