use super::*;
use crate::auth::scram::server::Server;
use crate::auth::scram::tests::DONE;
use crate::auth::secret::Verifier;

fn login(credential: Credential) -> ServerAuth {
    login_on(Terms { is_private: true, ..Terms::default() }, credential)
}

fn login_on(terms: Terms, credential: Credential) -> ServerAuth {
    ServerAuth::new("me", credential, terms, [3; NONCE])
}

fn password(text: &str) -> Credential {
    Credential::Password(Password::new(Cleartext::new(text).unwrap()))
}

#[test]
fn simple_methods() {
    let (_, step) = login(password("secret")).handle(BackendAuth::CleartextPassword).unwrap();
    assert_eq!(step, Step::Send(b"secret\0".to_vec()));
    let expected = postgres_protocol::authentication::md5_hash(b"me", b"secret", [1, 2, 3, 4]);
    for credential in [password("secret"), Credential::Md5(md5::stored("secret", "me").into())] {
        let (_, step) = login(credential).handle(BackendAuth::Md5Password([1, 2, 3, 4])).unwrap();
        assert_eq!(step, Step::Send([expected.as_bytes(), b"\0"].concat()));
    }
    let (auth, _) = login(Credential::None).handle(BackendAuth::Ok).unwrap();
    assert!(auth.is_done());
}

#[test]
fn scram_by_password_and_by_keys() {
    let verifier = Verifier::new("secret", b"salt", 50);
    let mut credential = password("secret");
    for _ in 0..2 {
        let (auth, step) = login(credential.clone()).handle(BackendAuth::Sasl(b"SCRAM-SHA-256\0\0")).unwrap();
        let Step::Send(first) = step else { panic!("nothing sent") };
        let server = Server::new(verifier.clone(), ChannelBinding::None, [4; NONCE]);
        let (server, challenge) = server.first(&first[18..], false).unwrap();
        let (auth, step) = auth.handle(BackendAuth::SaslContinue(challenge.as_bytes())).unwrap();
        let Step::Send(answer) = step else { panic!("nothing sent") };
        let (last, keys) = server.last(&answer).unwrap();
        let (auth, _) = auth.handle(BackendAuth::SaslFinal(last.as_bytes())).unwrap();
        assert!(auth.handle(BackendAuth::Ok).unwrap().0.is_done());
        credential = Credential::Keys(keys);
    }
}

#[test]
fn what_cannot_be_answered_is_said() {
    let error = login(Credential::VerifierOnly).handle(BackendAuth::Sasl(b"SCRAM-SHA-256\0\0")).unwrap_err();
    assert!(error.to_string().contains("wrong password type"), "{error}");
    let error = login(Credential::Md5("md5".into())).handle(BackendAuth::CleartextPassword).unwrap_err();
    assert!(error.to_string().contains("wrong password type"), "{error}");
    assert_eq!(BackendAuth::parse(&[0, 0, 0, 7]), Err(ServerAuthError::Unsupported(7)));
    for body in [&b""[..], b"\0\0\0", b"\0\0\0\x05abc"] {
        assert!(BackendAuth::parse(body).is_err());
    }
}

#[test]
fn a_password_is_shown_only_where_others_cannot_read_it() {
    let ask = |require: &str, is_private| {
        let require = RequireAuth::parse(require).unwrap();
        let terms = Terms { require, is_private, ..Terms::default() };
        login_on(terms, password("secret")).handle(BackendAuth::CleartextPassword).map(|(_, step)| step)
    };
    let sent = Ok(Step::Send(b"secret\0".to_vec()));
    assert_eq!(ask("", false), Err(ServerAuthError::Exposed));
    assert_eq!(ask("!md5", false), Err(ServerAuthError::Exposed));
    assert!(ServerAuthError::Exposed.hint().unwrap().contains("server_require_auth=password"));
    assert_eq!(ask("", true), sent);
    assert_eq!(ask("password,scram-sha-256", false), sent);
    for require in ["scram-sha-256", "!password", "none"] {
        let error = ask(require, true).unwrap_err().to_string();
        let words = "failed: server requested a cleartext password";
        assert_eq!(error, format!("authentication method requirement \"{require}\" {words}"));
    }
}

#[test]
fn a_server_uses_the_methods_it_may() {
    let sasl = || BackendAuth::Sasl(b"SCRAM-SHA-256\0\0");
    let requests = [BackendAuth::Ok, BackendAuth::Md5Password([1; 4]), sasl()];
    for (require, expected) in [
        ("", [true, true, true]),
        ("scram-sha-256", [false, false, true]),
        ("!none", [false, true, true]),
        ("none,md5", [true, true, false]),
        ("gss", [false, false, false]),
    ] {
        let terms = || Terms { require: RequireAuth::parse(require).unwrap(), ..Terms::default() };
        let allowed = requests.each_ref().map(|request| {
            let request = match request {
                BackendAuth::Ok => BackendAuth::Ok,
                BackendAuth::Md5Password(salt) => BackendAuth::Md5Password(*salt),
                _ => sasl(),
            };
            login_on(terms(), password("secret")).handle(request).is_ok()
        });
        assert_eq!(allowed, expected, "{require}");
    }
    // The end of SCRAM is not a login without a proof.
    let terms = Terms { require: RequireAuth::parse("scram-sha-256").unwrap(), ..Terms::default() };
    let mut auth = login_on(terms, password("secret"));
    auth.state = State::Proved;
    assert!(auth.handle(BackendAuth::Ok).unwrap().0.is_done());
}

#[test]
fn tls_without_channel_binding_is_told() {
    let first = |binding: ChannelBinding, offer: &'static [u8]| {
        let terms = Terms { binding, is_private: true, ..Terms::default() };
        match login_on(terms, password("x")).handle(BackendAuth::Sasl(offer)).unwrap().1 {
            Step::Send(sent) => String::from_utf8(sent).unwrap(),
            Step::Wait => panic!("nothing sent"),
        }
    };
    let tls = || ChannelBinding::ServerEndPoint(vec![7; 32]);
    assert!(first(tls(), b"SCRAM-SHA-256\0\0").contains("y,,n="));
    assert!(first(tls(), b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0").contains("p=tls-server-end-point,,"));
    for offer in [&b"SCRAM-SHA-256\0\0"[..], b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"] {
        assert!(first(ChannelBinding::None, offer).contains("n,,n="));
    }
}

#[test]
fn that_there_is_no_password_is_said() {
    for request in [
        BackendAuth::CleartextPassword,
        BackendAuth::Md5Password([1; 4]),
        BackendAuth::Sasl(b"SCRAM-SHA-256\0\0"),
    ] {
        let error = login(Credential::None).handle(request).unwrap_err();
        assert!(error.to_string().ends_with("but no password of user \"me\" is known"), "{error}");
        assert!(error.hint().unwrap().contains("An empty password is none"));
    }
}

/// Keys are derived once for all connections, and what it takes is announced.
#[test]
fn work_is_announced() {
    let credential = password("secret");
    let challenge = format!("r={}x,s=AAAA,i=50", base64_nonce());
    for expected in [50, 0] {
        let (auth, _) = login(credential.clone()).handle(BackendAuth::Sasl(b"SCRAM-SHA-256\0\0")).unwrap();
        let request = BackendAuth::SaslContinue(challenge.as_bytes());
        let before = DONE.with(std::cell::Cell::get);
        assert_eq!(auth.work(&request), expected);
        auth.handle(request).unwrap();
        assert_eq!(DONE.with(std::cell::Cell::get) - before, expected.into());
    }
    let (auth, _) = login(credential).handle(BackendAuth::Sasl(b"SCRAM-SHA-256\0\0")).unwrap();
    let far_too_many = format!("r={}x,s=AAAA,i=5000000", base64_nonce());
    let request = BackendAuth::SaslContinue(far_too_many.as_bytes());
    assert_eq!(auth.work(&request), 0);
    assert!(auth.handle(request).unwrap_err().to_string().contains("at most 1000000"));
}

fn base64_nonce() -> String {
    use base64::Engine;
    base64::prelude::BASE64_STANDARD.encode([3; NONCE])
}

#[test]
fn a_server_must_prove_itself_too() {
    let (auth, _) = login(password("x")).handle(BackendAuth::Sasl(b"SCRAM-SHA-256\0\0")).unwrap();
    assert_eq!(auth.handle(BackendAuth::Ok).unwrap_err(), ServerAuthError::Unexpected);
}
