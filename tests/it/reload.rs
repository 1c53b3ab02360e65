//! RELOAD of files that are being written at this very moment: what cannot be the whole of it changes nothing.

use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::support::raw::Raw;
use crate::support::{PASSWORD, Pooler, USER, cluster, eventually, exe, free_port, run, unprivileged};

async fn reload_error(pooler: &Pooler) -> String {
    Raw::log_in(pooler.port, "pgbouncer").await.error("RELOAD").await.field('D')
}

#[test]
fn a_file_that_is_not_finished_changes_nothing() {
    let pooler = Pooler::start("");
    let ini = pooler.dir.join("pgweir.ini");
    let whole = std::fs::read_to_string(&ini).unwrap();
    let (databases, settings) = whole.split_once("[pgbouncer]").unwrap();
    run(async {
        let mut client = pooler.raw().await;
        for (text, missing) in [
            ("", "[pgbouncer]"),
            ("; nothing yet\n", "[pgbouncer]"),
            (databases, "[pgbouncer]"),
            (&format!("[pgbouncer]{settings}"), "[databases]"),
        ] {
            std::fs::write(&ini, text).unwrap();
            let error = reload_error(&pooler).await;
            assert!(error.contains(&format!("pgweir.ini has no {missing} section")), "{text}: {error}");
            let before = pooler.log().matches("got SIGHUP").count();
            pooler.signal(Signal::SIGHUP);
            eventually("SIGHUP is heeded", || pooler.log().matches("got SIGHUP").count() > before);
        }
        assert_eq!(client.value("SELECT 1").await, "1");
        assert_eq!(pooler.raw().await.value("SELECT 1").await, "1");
        // What is included counts.
        let [first, second] = ["first.ini", "second.ini"].map(|name| pooler.dir.join(name));
        std::fs::write(&first, databases).unwrap();
        std::fs::write(&second, "").unwrap();
        std::fs::write(&ini, format!("%include {}\n%include {}\n", first.display(), second.display()))
            .unwrap();
        assert!(reload_error(&pooler).await.contains("no [pgbouncer] section"));
        std::fs::write(&second, format!("[pgbouncer]{settings}")).unwrap();
        pooler.console("RELOAD").await;
        std::fs::remove_file(&second).unwrap();
        assert!(reload_error(&pooler).await.contains("second.ini"));
        assert_eq!(client.value("SELECT 1").await, "1");
        // Who says that there are no databases is believed.
        std::fs::write(&ini, format!("[databases]\n[pgbouncer]{settings}")).unwrap();
        pooler.console("RELOAD").await;
        assert_eq!(client.receive().await.unwrap().field('M'), "database removed");
    });
}

#[test]
fn the_same_as_toml() {
    let (dir, port) = (Pooler::new_dir(), free_port());
    let ini = Pooler::ini(&dir, port, &format!("app = \"host=127.0.0.1 port={}\"\n", cluster().primary), "");
    let text: Vec<String> = ini
        .lines()
        .map(|line| match line.split_once(" = ") {
            Some((key, value)) if !value.starts_with('"') => format!("{key} = \"{value}\"\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let file = dir.join("pgweir.toml");
    std::fs::write(&file, text.concat()).unwrap();
    let mut child = unprivileged(exe().to_str().unwrap())
        .arg("-q")
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("it listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    run(async {
        let mut client = Raw::log_in(port, "app").await;
        std::fs::write(&file, "").unwrap();
        let error = Raw::log_in(port, "pgbouncer").await.error("RELOAD").await.field('D');
        assert!(error.contains("no [pgbouncer] section"), "{error}");
        assert_eq!(client.value("SELECT 1").await, "1");
    });
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn users_stay_if_their_file_cannot_be_read() {
    let pooler = Pooler::start("");
    let (file, away) = (pooler.dir.join("userlist.txt"), pooler.dir.join("away"));
    run(async {
        std::fs::rename(&file, &away).unwrap();
        pooler.console("RELOAD").await;
        assert_eq!(pooler.raw().await.value("SELECT 1").await, "1");
        let log = pooler.log();
        assert!(
            log.contains("could not open auth_file") && log.contains("its users stay as they were"),
            "{log}"
        );
        std::fs::create_dir(&file).unwrap();
        std::fs::write(file.join(USER), PASSWORD).unwrap();
        std::fs::write(file.join("broken"), [0xff]).unwrap();
        pooler.console("RELOAD").await;
        assert_eq!(pooler.raw().await.value("SELECT 1").await, "1");
        std::fs::remove_dir_all(&file).unwrap();
        // One that can be read counts.
        std::fs::write(&file, format!("\"{USER}\" \"{PASSWORD}\"\n")).unwrap();
        pooler.console("RELOAD").await;
        let parameters = [("user", "plainuser"), ("database", "app")];
        let error = Raw::log_in_with(pooler.port, 3 << 16, &parameters, "plain secret").await.err().unwrap();
        assert_eq!(error.field('C'), "28P01");
        pooler.raw().await;
    });
}

#[test]
fn rules_stay_if_there_is_none_in_their_file() {
    let pooler = Pooler::prepared(|dir| {
        std::fs::write(dir.join("hba"), "host all all 127.0.0.1/32 scram-sha-256\n").unwrap();
        std::fs::write(dir.join("ident"), "map system user\n").unwrap();
        let line = format!("app = host=127.0.0.1 port={}\n", cluster().primary);
        let dir = dir.display();
        (line, format!("auth_type = hba\nauth_hba_file = {dir}/hba\nauth_ident_file = {dir}/ident"))
    });
    let (hba, ident) = (pooler.dir.join("hba"), pooler.dir.join("ident"));
    run(async {
        for text in ["", "# nothing\n", "nonsense\n"] {
            std::fs::write(&hba, text).unwrap();
            assert!(reload_error(&pooler).await.contains("contains no rule"), "{text}");
            pooler.raw().await;
        }
        std::fs::remove_file(&hba).unwrap();
        assert!(reload_error(&pooler).await.contains("could not open auth_hba_file"));
        std::fs::write(&hba, "host all all 127.0.0.1/32 scram-sha-256\n").unwrap();
        std::fs::remove_file(&ident).unwrap();
        assert!(reload_error(&pooler).await.contains("could not open auth_ident_file"));
        pooler.raw().await;
    });
}
