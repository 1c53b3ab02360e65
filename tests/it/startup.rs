//! What a client asks for in its StartupMessage: heeded, or refused there and then.

use crate::support::raw::{Message, Raw};
use crate::support::{PASSWORD, Pooler, USER, run};

async fn log_in(pooler: &Pooler, asked: &[(&str, &str)]) -> Result<Raw, Message> {
    let parameters = [&[("user", USER), ("database", "app")], asked].concat();
    Raw::log_in_with(pooler.port, 3 << 16, &parameters, PASSWORD).await
}

#[test]
fn what_no_server_takes_is_refused_at_login() {
    let pooler = Pooler::start("default_pool_size = 1\ntrack_extra_parameters = work_mem");
    let refused = [
        ("TimeZone", "Middle/Earth", "22023", "invalid value for parameter \"TimeZone\": \"Middle/Earth\""),
        ("client_encoding", "what", "22023", "invalid value for parameter \"client_encoding\": \"what\""),
        ("DateStyle", "Stardate", "22023", "invalid value for parameter \"DateStyle\": \"Stardate\""),
        ("options", "-c timezone=Mars", "22023", "invalid value for parameter \"TimeZone\": \"Mars\""),
        ("work_mem", "much", "22023", "invalid value for parameter \"work_mem\": \"much\""),
    ];
    run(async {
        // Whether a server has to be asked or not.
        let mut busy = pooler.raw().await;
        for round in 0..3 {
            for (name, value, code, message) in refused {
                let error = log_in(&pooler, &[(name, value)]).await.err().unwrap();
                assert_eq!((error.field('S').as_str(), error.field('C').as_str()), ("FATAL", code));
                assert_eq!(error.field('M'), message);
            }
            for asked in [("TimeZone", "Asia/Ho_Chi_Minh"), ("work_mem", "5MB"), ("DateStyle", "German")] {
                log_in(&pooler, &[asked]).await.unwrap();
            }
            if round == 0 {
                // The only server is taken: none can be asked from now on.
                busy.rows("BEGIN").await;
            }
        }
        busy.rows("COMMIT").await;
        // Nothing of it is left behind.
        let mut other = pooler.raw().await;
        assert_eq!(other.value("SHOW TimeZone").await, other.parameter("TimeZone"));
        assert_eq!(other.value("SHOW DateStyle").await, "ISO, MDY");
        assert_eq!(other.value("SHOW work_mem").await, "4MB");
        let asked = [("TimeZone", "Asia/Ho_Chi_Minh"), ("work_mem", "5MB"), ("DateStyle", "SQL")];
        let mut raw = log_in(&pooler, &asked).await.unwrap();
        for (name, value) in
            [("TimeZone", "Asia/Ho_Chi_Minh"), ("work_mem", "5MB"), ("DateStyle", "SQL, MDY")]
        {
            assert_eq!(raw.value(&format!("SHOW {name}")).await, value);
        }
        assert_eq!(other.value("SHOW work_mem").await, "4MB");
    });
    assert_eq!(pooler.log().matches("new connection to server").count(), 1, "{}", pooler.log());
}

/// The servers that are asked may have gone without a word.
#[test]
fn servers_that_have_gone_are_not_the_answer() {
    let pooler = Pooler::start("");
    run(async {
        let mut raw = pooler.raw().await;
        let pid = raw.value("SELECT pg_backend_pid()").await;
        crate::support::cluster()
            .admin(crate::support::cluster().primary, &format!("SELECT pg_terminate_backend({pid}, 5000)"));
        let mut raw = log_in(&pooler, &[("TimeZone", "Asia/Tokyo")]).await.unwrap();
        assert_eq!(raw.value("SHOW TimeZone").await, "Asia/Tokyo");
    });
}

#[test]
fn any_name_of_an_application_will_do() {
    let pooler = Pooler::start("");
    run(async {
        for (name, expected) in
            [("it's \\ me", "it's \\ me"), ("né", "n??|n\\xc3\\xa9"), ("\u{1}x\u{7f}", "?x?|\\x01x\\x7f")]
        {
            let mut raw =
                log_in(&pooler, &[("application_name", name), ("client_encoding", "SJIS")]).await.unwrap();
            let shown = raw.value("SHOW application_name").await;
            assert!(expected.split('|').any(|expected| expected == shown), "{name}: {shown}");
        }
    });
}

/// They would make a client of one user the other one's.
#[test]
fn who_one_is_is_not_a_parameter() {
    let pooler = Pooler::start("track_extra_parameters = role");
    run(async {
        for name in ["role", "session_authorization", "Role", "SESSION_AUTHORIZATION"] {
            let options = [
                format!("-c {name}=other"),
                format!("-c{name}=other"),
                format!("--{}=other", name.replace('_', "-")),
            ];
            let replicates = [("replication", "database")];
            for more in [&[][..], &replicates] {
                let error = log_in(&pooler, &[&[(name, "other")], more].concat()).await.err().unwrap();
                assert_eq!(error.field('C'), "08P01");
                assert_eq!(error.field('M'), format!("unsupported startup parameter: {name}"));
                for options in &options {
                    let error =
                        log_in(&pooler, &[&[("options", &**options)], more].concat()).await.err().unwrap();
                    assert_eq!(
                        error.field('M'),
                        format!("unsupported startup parameter in options: {name}"),
                        "{options}"
                    );
                }
            }
            let odd = format!("-jc{name}=other");
            let error =
                log_in(&pooler, &[("options", &odd), ("replication", "database")]).await.err().unwrap();
            assert!(error.field('M').starts_with("unsupported options startup parameter"), "{error:?}");
        }
    });
    let pooler = Pooler::start("ignore_startup_parameters = role, session_authorization");
    run(async {
        for asked in [("role", "other"), ("Session_Authorization", "other"), ("options", "-c role=other")] {
            let mut raw = log_in(&pooler, &[asked]).await.unwrap();
            assert_eq!(raw.value("SELECT current_user").await, USER);
            assert_eq!(raw.value("SELECT session_user").await, USER);
        }
        // Without the right to replicate it comes as far as the server.
        let error = log_in(&pooler, &[("replication", "database"), ("role", "other")]).await.err().unwrap();
        assert!(error.field('M').contains("replication"), "{error:?}");
    });
}
