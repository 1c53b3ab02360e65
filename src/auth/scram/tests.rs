use proptest::prelude::*;

use super::client::{Binding, Client, Proof};
use super::server::Server;
use super::*;
use crate::auth::secret::Verifier;

thread_local! {
    /// Iterations of PBKDF2 that a test's thread has done.
    pub(in crate::auth) static DONE: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// What a client makes of what TLS offers.
fn bound(binding: &ChannelBinding) -> Binding<'_> {
    match binding {
        ChannelBinding::None => Binding::Unsupported,
        ChannelBinding::ServerEndPoint(hash) => Binding::ServerEndPoint(hash),
    }
}

fn converse(
    verifier: &Verifier,
    proof: &Proof<'_>,
    binding: &ChannelBinding,
) -> Result<ScramKeys, &'static str> {
    let plus = *binding != ChannelBinding::None;
    let (client, first) = Client::new(bound(binding), [1; NONCE]);
    let (server, challenge) =
        Server::new(verifier.clone(), binding.clone(), [2; NONCE]).first(first.as_bytes(), plus)?;
    let (client, answer) = client.answer(challenge.as_bytes(), proof)?;
    let (last, keys) = server.last(answer.as_bytes())?;
    client.verify(last.as_bytes())?;
    Ok(keys)
}

#[test]
fn rfc_7677() {
    let salt = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, "W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    let salted = salted_password("pencil", &salt, 4096);
    let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    let transcript =
        format!("n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r={nonce}");
    let key = client_key(&salted);
    let mut proof = hmac(&stored_key(&key), transcript.as_bytes());
    xor(&mut proof, &key);
    let encode = |bytes: &[u8]| base64::Engine::encode(&base64::prelude::BASE64_STANDARD, bytes);
    assert_eq!(encode(&proof), "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
    assert_eq!(
        encode(&hmac(&server_key(&salted), transcript.as_bytes())),
        "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    );
}

#[test]
fn keys_from_one_login_are_good_for_another() {
    let verifier = Verifier::new("pässword", b"salt", 100);
    for binding in [ChannelBinding::None, ChannelBinding::ServerEndPoint(vec![7; 32])] {
        let keys = converse(&verifier, &Proof::Password("pässword"), &binding).unwrap();
        assert_eq!(converse(&verifier, &Proof::Keys(&keys), &binding), Ok(keys));
    }
    let wrong = converse(&verifier, &Proof::Password("password"), &ChannelBinding::None);
    assert_eq!(wrong, Err("wrong password"));
}

#[test]
fn another_client_gets_in() {
    use postgres_protocol::authentication::sasl;
    for (theirs, ours, plus) in [
        (sasl::ChannelBinding::unsupported(), ChannelBinding::None, false),
        (sasl::ChannelBinding::unrequested(), ChannelBinding::None, false),
        (
            sasl::ChannelBinding::tls_server_end_point(vec![9; 32]),
            ChannelBinding::ServerEndPoint(vec![9; 32]),
            true,
        ),
    ] {
        let mut client = sasl::ScramSha256::new(b"secret", theirs);
        let server = Server::new(Verifier::new("secret", b"salty", 4096), ours, [3; NONCE]);
        let (server, challenge) = server.first(client.message(), plus).unwrap();
        client.update(challenge.as_bytes()).unwrap();
        let (last, _) = server.last(client.message()).unwrap();
        client.finish(last.as_bytes()).unwrap();
    }
}

#[test]
fn downgrades_and_mismatches_are_refused() {
    let server =
        |binding: &ChannelBinding| Server::new(Verifier::new("x", b"s", 1), binding.clone(), [0; NONCE]);
    let tls = ChannelBinding::ServerEndPoint(vec![1]);
    assert!(server(&tls).first(b"y,,n=,r=abc", false).is_err());
    assert!(server(&tls).first(b"p=tls-unique,,n=,r=abc", true).is_err());
    assert!(server(&tls).first(b"n,,n=,r=abc", true).is_err());
    assert!(server(&ChannelBinding::None).first(b"p=tls-server-end-point,,n=,r=abc", true).is_err());
    for message in
        ["", "n", "n,", "n,,", "n,,n=", "n,,n=,r=", "n,a=x,n=,r=a", "n,,m=x,n=,r=a", "n,,n=,r=\u{e9}"]
    {
        assert!(server(&ChannelBinding::None).first(message.as_bytes(), false).is_err(), "{message}");
    }
}

#[test]
fn the_salt_of_an_unknown_user_is_the_same_each_time() {
    use super::server::mock_salt;
    assert_eq!(mock_salt("a", &[5; 32]), mock_salt("a", &[5; 32]));
    assert_ne!(mock_salt("a", &[5; 32]), mock_salt("b", &[5; 32]));
    assert_ne!(mock_salt("a", &[5; 32]), mock_salt("a", &[6; 32]));
}

/// A server that does offer it knows then that somebody has taken the offer away.
#[test]
fn a_client_says_that_channel_binding_was_not_offered() {
    let (_, first) = Client::new(Binding::NotOffered, [1; NONCE]);
    assert!(first.starts_with("y,,n=,r="), "{first}");
    let server = |binding| Server::new(Verifier::new("x", b"s", 1), binding, [0; NONCE]);
    assert!(server(ChannelBinding::ServerEndPoint(vec![1])).first(first.as_bytes(), false).is_err());
    let (client, first) = Client::new(Binding::NotOffered, [1; NONCE]);
    let (server, challenge) = server(ChannelBinding::None).first(first.as_bytes(), false).unwrap();
    let (client, last) = client.answer(challenge.as_bytes(), &Proof::Password("x")).unwrap();
    let (signature, _) = server.last(last.as_bytes()).unwrap();
    client.verify(signature.as_bytes()).unwrap();
}

#[test]
fn what_saslprep_leaves_nothing_of_is_not_the_empty_password() {
    assert_ne!(salted_password("\u{ad}", b"salt", 1), salted_password("", b"salt", 1));
}

#[test]
fn a_hostile_server_is_refused() {
    let answer = |message: &str| {
        let (client, _) = Client::new(Binding::Unsupported, [0; NONCE]);
        client.answer(message.as_bytes(), &Proof::Password("x")).map(drop)
    };
    let ours = "A".repeat(24);
    assert!(answer(&format!("r={ours}x,s=AAAA,i=1")).is_ok());
    for message in [
        String::new(),
        format!("r={ours},s=AAAA,i=1"),
        "r=other,s=AAAA,i=1".into(),
        format!("r={ours}x,s=AAAA,i=0"),
        format!("r={ours}x,s=AAAA,i=1000001"),
        format!("r={ours}x,s=AAAA,i=4294967295"),
        format!("r={ours}x,s=!,i=1"),
        format!("r={ours}{},s=AAAA,i=1", "x".repeat(5000)),
        format!("m=ext,r={ours}x,s=AAAA,i=1"),
    ] {
        let before = DONE.with(std::cell::Cell::get);
        assert!(answer(&message).is_err(), "{message}");
        assert_eq!(DONE.with(std::cell::Cell::get), before, "not a hash of work: {message}");
    }
}

proptest! {
    #[test]
    fn every_password_round_trips(password: String, salt in prop::collection::vec(any::<u8>(), 1..40), iterations in 1u32..20) {
        let verifier = Verifier::new(&password, &salt, iterations);
        prop_assert!(converse(&verifier, &Proof::Password(&password), &ChannelBinding::None).is_ok());
    }

    #[test]
    fn no_message_panics(message: Vec<u8>) {
        let server = || Server::new(Verifier::new("x", b"s", 1), ChannelBinding::None, [0; NONCE]);
        let _ = server().first(&message, false);
        let (challenged, _) = server().first(b"n,,n=,r=abc", false).unwrap();
        prop_assert!(challenged.last(&message).is_err());
        let (client, _) = Client::new(Binding::Unsupported, [0; NONCE]);
        prop_assert!(client.answer(&message, &Proof::Password("x")).is_err());
    }
}
