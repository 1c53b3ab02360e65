//! `unix_socket_dir`: where clients find the pooler, and the pooler those servers that have no host.

use crate::support::raw::Raw;
use crate::support::{Ends, PASSWORD, Pooler, USER, cluster, exe, free_port, run, unprivileged};

/// Runs SQL with psql, and gives what it prints.
fn psql(host: &str, port: u16, sql: &str) -> Result<String, String> {
    let output = cluster()
        .program("psql")
        .args(["-XAtq", "-U", USER, "-d", "app", "-c", sql, "-h", host, "-p", &port.to_string()])
        .env("PGPASSWORD", PASSWORD)
        .ended();
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn a_server_without_a_host_is_where_clients_find_the_pooler() {
    let databases = format!("app = port={} user={USER} password='{PASSWORD}'\n", cluster().primary);
    let dir = cluster().dir.display();
    let pooler = Pooler::with_databases(&databases, &format!("unix_socket_dir = {dir}"));
    run(async {
        let mut raw = pooler.raw().await;
        assert_eq!(raw.value("SELECT inet_server_addr() IS NULL").await, "t");
        let hosts = pooler.console("SHOW HOSTS").await;
        assert_eq!(hosts[0][1], dir.to_string(), "{hosts:?}");
    });
    assert_eq!(psql(&dir.to_string(), pooler.port, "SELECT 1").unwrap(), "1");
    let nowhere = Pooler::with_databases(&databases, "unix_socket_dir =\nquery_wait_timeout = 1");
    run(async {
        let parameters = [("user", USER), ("database", "app")];
        assert!(Raw::log_in_with(nowhere.port, 3 << 16, &parameters, PASSWORD).await.is_err());
    });
    assert!(nowhere.log().contains("unix socket dir not configured"), "{}", nowhere.log());
}

/// One pooler listens there, and another has it for a server.
#[test]
fn abstract_sockets_are_for_clients_and_servers() {
    let name = format!("@pgweir-it-{}", std::process::id());
    let inner = Pooler::start(&format!("unix_socket_dir = {name}"));
    assert!(inner.log().contains(&format!("listening on unix:{name}/.s.PGSQL.{}", inner.port)));
    assert_eq!(psql(&name, inner.port, "SELECT 1").unwrap(), "1");
    let databases = format!(
        "app = host={name} port={} user={USER} password='{PASSWORD}'\nhere = port={} dbname=app user={USER} password='{PASSWORD}'\n",
        inner.port, inner.port
    );
    let outer = Pooler::with_databases(&databases, &format!("unix_socket_dir = {name}"));
    run(async {
        for database in ["app", "here"] {
            assert_eq!(Raw::log_in(outer.port, database).await.value("SELECT 2").await, "2");
        }
    });
    // Another process on the same name is told so, and one cannot take over.
    for (option, expected) in
        [("-q", "cannot listen on a unix socket"), ("-R", "cannot reboot with abstract")]
    {
        let dir = Pooler::new_dir();
        let settings = format!("unix_socket_dir = {name}\nlisten_port = {}\nlisten_addr =\n", inner.port);
        std::fs::write(dir.join("pgweir.ini"), Pooler::ini(&dir, free_port(), "", &settings)).unwrap();
        let program = exe().to_str().unwrap();
        let output = unprivileged(program).args([option, "pgweir.ini"]).current_dir(&dir).ended();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(expected), "{option}: {said}");
    }
}
