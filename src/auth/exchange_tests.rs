//! Tests of the conversations, as clients see them.

use super::*;
use crate::auth::mock::{Mocks, Sought};
use crate::auth::scram::client::{Binding, Client, Proof};
use crate::auth::scram::tests::DONE;

const KEY: [u8; 32] = [1; 32];

/// Somebody who is known, or `None`.
type Known = Option<Arc<Account>>;

fn begin(method: Method, account: &Known, mocks: &Mocks) -> (Exchange, Option<AuthRequest>) {
    let (account, standing) = mocks.account_for(account.clone(), "me", method, Sought::File, &KEY, 10);
    Exchange::begin(Begin {
        method,
        user: "me".into(),
        account,
        standing,
        entropy: [7; NONCE],
        mock_key: KEY,
        scram_iterations: 10,
        binding: ChannelBinding::None,
    })
}

fn account(text: &str) -> Known {
    Some(Arc::new(Account::new("me", Secret::parse(text))))
}

fn log_in(method: Method, account: &Known, password: &str) -> Result<Learned, Failure> {
    answer(method, account, &Mocks::default(), password).1
}

/// Answers whatever is asked with this password; says what was asked and whether the answer is right.
fn answer(
    method: Method,
    account: &Known,
    mocks: &Mocks,
    password: &str,
) -> (Vec<AuthRequest>, Result<Learned, Failure>) {
    let (mut exchange, mut request) = begin(method, account, mocks);
    let mut asked = Vec::new();
    let mut scram = None;
    let mut body = Vec::new();
    loop {
        match request {
            None => {}
            Some(AuthRequest::CleartextPassword) => body = [password.as_bytes(), b"\0"].concat(),
            Some(AuthRequest::Md5Password(salt)) => {
                body = postgres_protocol::authentication::md5_hash(b"me", password.as_bytes(), salt)
                    .into_bytes();
                body.push(0);
            }
            Some(AuthRequest::Sasl { plus }) => {
                assert!(!plus);
                let (client, first) = Client::new(Binding::Unsupported, [9; NONCE]);
                scram = Some(client);
                body =
                    [b"SCRAM-SHA-256\0", &(first.len() as u32).to_be_bytes()[..], first.as_bytes()].concat();
            }
            Some(AuthRequest::SaslContinue(ref text)) => {
                let client = scram.take().unwrap();
                body = client.answer(text.as_bytes(), &Proof::Password(password)).unwrap().1.into_bytes();
            }
            Some(AuthRequest::SaslFinal(_)) => unreachable!(),
        }
        asked.extend(request);
        match exchange.handle(&body) {
            Progress::Continue(next, more) => (exchange, request) = (next, Some(more)),
            Progress::Accepted(authenticated, _) => return (asked, Ok(authenticated.learned)),
            Progress::Rejected(failure) => return (asked, Err(failure)),
        }
    }
}

#[test]
fn each_method_takes_each_secret_it_can() {
    let md5 = md5::stored("secret", "me");
    let scram = postgres_protocol::password::scram_sha_256(b"secret");
    for (method, secret, possible) in [
        (Method::Plain, "secret", true),
        (Method::Plain, &*md5, true),
        (Method::Plain, &*scram, true),
        (Method::Md5, "secret", true),
        (Method::Md5, &*md5, true),
        (Method::Md5, &*scram, true),
        (Method::Scram, "secret", true),
        (Method::Scram, &*md5, false),
        (Method::Scram, &*scram, true),
    ] {
        let account = account(secret);
        assert_eq!(log_in(method, &account, "secret").is_ok(), possible, "{method:?} {account:?}");
        assert!(log_in(method, &account, "Secret").is_err(), "{method:?} {account:?}");
        assert!(log_in(method, &account, "").is_err());
    }
}

/// PostgreSQL prepares the password here as well (`scram_verify_plain_password`).
#[test]
fn a_verifier_takes_what_saslprep_makes_the_same_password() {
    let scram = postgres_protocol::password::scram_sha_256(b"secret");
    for (secret, possible) in [(&*scram, true), ("secret", false), (&*md5::stored("secret", "me"), false)] {
        let result = log_in(Method::Plain, &account(secret), "\u{fe0a}secret");
        assert_eq!(result.is_ok(), possible, "{secret}");
    }
}

#[test]
fn unknown_users_fail_at_the_end_only() {
    for (method, kind) in [
        (Method::Plain, FailureKind::Password),
        (Method::Md5, FailureKind::Password),
        (Method::Scram, FailureKind::Sasl),
    ] {
        let failure = log_in(method, &None, "").unwrap_err();
        assert_eq!(failure.kind, kind);
    }
    assert_eq!(log_in(Method::Trust, &None, "").unwrap_err().kind, FailureKind::Trust);
    assert!(log_in(Method::Any, &None, "").is_ok());
    assert!(log_in(Method::Trust, &account(""), "").is_ok());
}

/// The empty password, what md5 and SCRAM make of it, and a soft hyphen, of which SASLprep leaves nothing.
#[test]
fn no_secret_is_right_if_it_is_empty() {
    let of_empty = [
        String::new(),
        postgres_protocol::password::md5(b"", "me"),
        postgres_protocol::password::scram_sha_256(b""),
    ];
    for secret in &of_empty {
        for method in [Method::Plain, Method::Md5, Method::Scram] {
            let failure = log_in(method, &account(secret), "").unwrap_err();
            let (_, unknown) = answer(method, &None, &Mocks::new(Secret::parse(secret).iter()), "");
            assert_eq!(failure.kind, unknown.unwrap_err().kind, "{method:?} {secret}");
        }
    }
    for method in [Method::Plain, Method::Md5, Method::Scram] {
        assert!(log_in(method, &account("\u{ad}"), "").is_err(), "{method:?}");
    }
    // These need no secret.
    assert!(log_in(Method::Trust, &account(""), "").is_ok() && log_in(Method::Any, &account(""), "").is_ok());
}

/// What is asked, what is said in the end, and how many iterations of PBKDF2 all of it takes.
#[test]
fn unknown_users_cannot_be_told_from_known_ones() {
    let secrets = [
        "secret".to_owned(),
        md5::stored("secret", "me"),
        postgres_protocol::password::scram_sha_256(b"secret"),
    ];
    for secret in &secrets {
        for method in [Method::Plain, Method::Md5, Method::Scram] {
            let known = account(secret);
            let mocks = || Mocks::new(known.as_ref().unwrap().secret.iter());
            let both = [(&known, mocks()), (&None, mocks())];
            // The first attempt may take longer than the second.
            for _ in 0..2 {
                let seen = both.each_ref().map(|(who, mocks)| {
                    let before = DONE.with(std::cell::Cell::get);
                    let (asked, outcome) = answer(method, who, mocks, "wrong");
                    let kinds: Vec<_> = asked.iter().map(shape).collect();
                    (kinds, outcome.unwrap_err().kind, DONE.with(std::cell::Cell::get) - before)
                });
                assert_eq!(seen[0], seen[1], "{method:?} {secret}");
            }
        }
    }
}

/// A request without what is different each time.
fn shape(request: &AuthRequest) -> String {
    match request {
        AuthRequest::SaslContinue(text) => {
            let parts: Vec<&str> = text.split(',').collect();
            format!("{} {}", parts[1].len(), parts[2])
        }
        other => format!("{other:?}"),
    }
}

/// What takes long is announced, so that it can be done elsewhere.
#[test]
fn work_is_announced() {
    let verifier = postgres_protocol::password::scram_sha_256(b"secret");
    for (method, secret, [start, end]) in [
        (Method::Plain, &*verifier, [0, 4096]),
        (Method::Plain, "secret", [0, 0]),
        (Method::Md5, "secret", [0, 0]),
        (Method::Scram, "secret", [10, 0]),
    ] {
        let count = || DONE.with(std::cell::Cell::get);
        let account = account(secret).unwrap();
        let begin = Begin {
            method,
            user: "me".into(),
            account,
            standing: Standing::Known,
            entropy: [7; NONCE],
            mock_key: KEY,
            scram_iterations: 10,
            binding: ChannelBinding::None,
        };
        let (announced, before) = (begin.work(), count());
        let exchange = Exchange::begin(begin).0;
        assert_eq!((announced, count() - before), (start, start.into()), "{method:?} {secret}");
        let (announced, before) = (exchange.work(), count());
        drop(exchange.handle(b"wrong\0"));
        assert_eq!((announced, count() - before), (end, end.into()), "{method:?} {secret}");
    }
}

#[test]
fn malformed_messages_are_refused() {
    for method in [Method::Plain, Method::Md5, Method::Scram] {
        for body in [
            &b""[..],
            b"\0\0",
            b"x",
            b"SCRAM-SHA-256\0",
            b"SCRAM-SHA-256\0\0\0\0\x09n,,",
            b"X\0\0\0\0\0",
            b"\xff\0",
        ] {
            let exchange = begin(method, &account("secret"), &Mocks::default()).0;
            assert!(matches!(exchange.handle(body), Progress::Rejected(_)), "{method:?} {body:?}");
        }
    }
}

#[test]
fn sasl_keys_are_learned() {
    let account = account("secret");
    let Ok(Learned::Keys(keys)) = log_in(Method::Scram, &account, "secret") else { panic!("no keys") };
    assert_eq!(scram::stored_key(&keys.client_key), account.unwrap().derived.get().unwrap().stored_key);
}
