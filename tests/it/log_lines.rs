//! Lines of the log that programs look for, as PgBouncer writes them.

use crate::support::raw::Raw;
use crate::support::{PASSWORD, Pooler, USER, cluster, run};

/// What stands behind the client's name in the lines of this connection, each with its level.
fn lines(pooler: &Pooler, database: &str, user: &str) -> Vec<String> {
    let name = format!(": {database}/{user}@127.0.0.1:");
    let log = pooler.log();
    let of_client = log.lines().filter_map(|line| {
        let (before, after) = line.split_once(&name)?;
        let level = before.split_whitespace().rev().nth(1)?;
        let text = after.split_once(' ')?.1;
        Some(format!("{level} {}", text.split(" (age=").next()?))
    });
    of_client.filter(|line| !line.contains("login attempt")).collect()
}

fn refused(pooler: &Pooler, database: &str, user: &str, password: &str) -> Vec<String> {
    run(async {
        let parameters = [("user", user), ("database", database)];
        assert!(Raw::log_in_with(pooler.port, 3 << 16, &parameters, password).await.is_err());
    });
    lines(pooler, database, user)
}

#[test]
fn logins_that_fail_leave_pgbouncers_lines() {
    let scram = Pooler::start("");
    let wrong = [
        "ERROR password authentication failed",
        "LOG closing because: SASL authentication failed",
        "WARNING pooler error: SASL authentication failed",
    ];
    assert_eq!(refused(&scram, "app", USER, "wrong"), wrong);
    assert_eq!(refused(&scram, "app", "nobody", "x"), [&["LOG no such user: nobody"][..], &wrong].concat());
    assert_eq!(
        refused(&scram, "nowhere", USER, PASSWORD),
        [
            "LOG login failed: db=nowhere user=app",
            "LOG closing because: no such database: nowhere",
            "WARNING pooler error: no such database: nowhere",
        ]
    );
    let md5 = Pooler::start("auth_type = md5");
    let wrong = [
        "LOG closing because: password authentication failed",
        "WARNING pooler error: password authentication failed",
    ];
    assert_eq!(refused(&md5, "app", "md5user", "wrong"), wrong);
    assert_eq!(refused(&md5, "app", "nobody", "x"), [&["LOG no such user: nobody"][..], &wrong].concat());
}

#[test]
fn a_user_that_auth_query_does_not_know_leaves_a_line() {
    let databases = format!("app = host=127.0.0.1 port={} auth_user=postgres\n", cluster().primary);
    let users = |dir: &std::path::Path| {
        std::fs::write(dir.join("userlist.txt"), "\"postgres\" \"postgres\"\n").unwrap();
        (databases, String::new())
    };
    let pooler = Pooler::prepared(users);
    assert_eq!(refused(&pooler, "app", "nobody", "x")[0], "LOG login failed: db=app");
}
