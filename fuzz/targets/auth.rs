//! Logins: what a client answers, what a server asks.

use std::sync::Arc;

use pgweir::auth::exchange::{Account, AuthRequest, Begin, Exchange, Learned, Method, Progress};
use pgweir::auth::md5;
use pgweir::auth::mock::{Mocks, Sought};
use pgweir::auth::scram::client::{Binding, Client, Proof};
use pgweir::auth::scram::{ChannelBinding, MECHANISM, MECHANISM_PLUS, NONCE};
use pgweir::auth::secret::{Cleartext, Secret, Verifier};
use pgweir::auth::server_login::{BackendAuth, Credential, Password, ServerAuth, Step, Terms};

use super::bytes::Bytes;

const USER: &str = "me";
const PASSWORD: &str = "correct horse battery staple";
const ITERATIONS: u32 = 2;
/// Ends a message of the input: no byte of UTF-8.
const END: u8 = 0xff;

fn binding(plus: bool) -> ChannelBinding {
    if plus { ChannelBinding::ServerEndPoint(vec![7; 32]) } else { ChannelBinding::None }
}

/// SASLInitialResponse.
fn initial(mechanism: &str, first: &[u8]) -> Vec<u8> {
    let length = u32::try_from(first.len()).unwrap().to_be_bytes();
    [mechanism.as_bytes(), b"\0", &length, first].concat()
}

/// A client that answers what it likes: it gets in with the right answer only.
pub(super) fn scram_server(input: &[u8]) {
    let mut bytes = Bytes(input);
    let choice = bytes.choice();
    let method = [Method::Plain, Method::Md5, Method::Scram, Method::Scram][usize::from(choice & 3)];
    let plus = choice & 4 > 0;
    let secret = match choice >> 3 & 3 {
        0 => Secret::parse(PASSWORD),
        1 => Secret::parse(&md5::stored(PASSWORD, USER)),
        2 => Some(Secret::Scram(Verifier::new(PASSWORD, b"salt", ITERATIONS))),
        _ => None,
    };
    let mocks = Mocks::new(secret.iter());
    let account = secret.map(|secret| Arc::new(Account::looked_up(USER, Some(secret))));
    let begin = || {
        let (account, standing) =
            mocks.account_for(account.clone(), USER, method, Sought::File, &[1; 32], ITERATIONS);
        Exchange::begin(Begin {
            method,
            user: USER.into(),
            account,
            standing,
            entropy: [7; NONCE],
            mock_key: [1; 32],
            scram_iterations: ITERATIONS,
            binding: binding(plus),
        })
    };
    let (exchange, request) = begin();
    match request.unwrap() {
        AuthRequest::CleartextPassword => {
            let right = account.is_some() && bytes.0 == [PASSWORD.as_bytes(), b"\0"].concat();
            // SASLprep may make another text the same password. It leaves ASCII as it is.
            let has_verifier =
                account.as_ref().is_some_and(|account| matches!(account.secret, Some(Secret::Scram(_))));
            let is_accepted = is_accepted(exchange.handle(bytes.0));
            assert!(is_accepted == right || has_verifier && !bytes.0.is_ascii());
        }
        AuthRequest::Md5Password(salt) => {
            let response = md5::response(&md5::stored(PASSWORD, USER), salt);
            let right = account.is_some() && bytes.0 == [response.as_bytes(), b"\0"].concat();
            assert_eq!(is_accepted(exchange.handle(bytes.0)), right);
        }
        AuthRequest::Sasl { .. } => {
            // Any first message, then any last one.
            let first = bytes.until(END);
            if let Progress::Continue(next, _) = exchange.handle(first) {
                assert!(!is_accepted(next.handle(bytes.0)));
            }
            // A right first message, and a last one that is right but for what the input does to it.
            proof(begin().0, plus, bytes, account.as_deref());
        }
        other => panic!("begins with {other:?}"),
    }
}

fn proof(exchange: Exchange, plus: bool, mut bytes: Bytes<'_>, account: Option<&Account>) {
    let hash = [7; 32];
    let bound = if plus { Binding::ServerEndPoint(&hash) } else { Binding::Unsupported };
    let (client, first) = Client::new(bound, [9; NONCE]);
    let mechanism = if plus { MECHANISM_PLUS } else { MECHANISM };
    let Progress::Continue(exchange, AuthRequest::SaslContinue(challenge)) =
        exchange.handle(&initial(mechanism, first.as_bytes()))
    else {
        panic!("refuses a right message")
    };
    let (client, last) = client.answer(challenge.as_bytes(), &Proof::Password(PASSWORD)).unwrap();
    let mut sent = last.clone().into_bytes();
    let (at, flip) = (usize::from(bytes.choice()) % (sent.len() + 1), bytes.choice());
    match sent.get_mut(at) {
        Some(byte) => *byte ^= flip,
        None => sent.push(flip),
    }
    let has_scram = account.is_some_and(|account| !matches!(account.secret, Some(Secret::Md5(_))));
    match exchange.handle(&sent) {
        Progress::Accepted(authenticated, Some(AuthRequest::SaslFinal(signature))) => {
            assert!(has_scram && sent == last.as_bytes(), "{:?}", String::from_utf8_lossy(&sent));
            client.verify(signature.as_bytes()).unwrap();
            assert!(matches!(authenticated.learned, Learned::Keys(_)));
        }
        Progress::Rejected(_) => assert!(!has_scram || sent != last.as_bytes()),
        other => panic!("{other:?}"),
    }
}

fn is_accepted(progress: Progress) -> bool {
    match progress {
        Progress::Accepted(..) => true,
        Progress::Rejected(_) => false,
        Progress::Continue(..) => panic!("goes on after the last answer"),
    }
}

pub(super) fn scram_server_seeds() -> Vec<Vec<u8>> {
    let with = |choice: u8, body: &[u8]| [&[choice][..], body].concat();
    let response = md5::response(&md5::stored(PASSWORD, USER), [7; 4]);
    vec![
        with(0, b"correct horse battery staple\0"),
        with(16, "\u{fe0a}correct horse battery staple\0".as_bytes()),
        with(1, &[response.as_bytes(), b"\0"].concat()),
        with(
            2,
            &[&initial(MECHANISM, b"n,,n=,r=abc")[..], b"\xffc=biws,r=abcBwcHBwcHBwcHBwcHBwcHBwcH,p=AAAA"]
                .concat(),
        ),
        with(2 | 16, &initial(MECHANISM, b"y,,n=me,r=fyko+d2lbbFgONRv9qkxdawL")),
        with(2 | 4, &initial(MECHANISM_PLUS, b"p=tls-server-end-point,,n=,r=abc")),
        with(3 | 24, &initial(MECHANISM, b"n,,n=,r=x")),
    ]
}

/// A server that asks what it likes. Messages are ended by [`END`]; the first two bytes say what we know of the user.
pub(super) fn scram_client(input: &[u8]) {
    let mut bytes = Bytes(input);
    let choice = bytes.choice();
    let password = Password::new(Cleartext::new(PASSWORD).unwrap());
    let credential = match choice & 3 {
        0 => Credential::Password(password),
        1 => Credential::Md5(md5::stored(PASSWORD, USER).into()),
        2 => Credential::VerifierOnly,
        _ => Credential::None,
    };
    let terms = Terms { binding: binding(choice & 4 > 0), is_private: true, ..Terms::default() };
    let mut auth = ServerAuth::new(USER, credential, terms, [0; NONCE]);
    let mut in_scram = false;
    while !bytes.0.is_empty() && !auth.is_done() {
        let message = bytes.until(END);
        let Ok(request) = BackendAuth::parse(message) else { return };
        if is_laborious(&request) {
            return;
        }
        // A server that has begun SCRAM has to prove that it knows the password, which this one does not.
        let proved = matches!(request, BackendAuth::Ok) && !in_scram;
        in_scram |= matches!(request, BackendAuth::Sasl(_));
        let Ok((next, step)) = auth.handle(request) else { return };
        assert_eq!(next.is_done(), proved);
        if let Step::Send(sent) = step {
            assert!(!in_scram || !sent.windows(PASSWORD.len()).any(|part| part == PASSWORD.as_bytes()));
        }
        auth = next;
    }
}

/// Up to half a second of hashing is what a server may ask for, too long for a fuzz target.
fn is_laborious(request: &BackendAuth<'_>) -> bool {
    let BackendAuth::SaslContinue(message) = request else { return false };
    let iterations = message.windows(3).position(|part| part == b",i=");
    iterations.is_some_and(|at| message.len() - at > 3 + 2)
}

pub(super) fn scram_client_seeds() -> Vec<Vec<u8>> {
    let nonce = "A".repeat(24);
    let request = |code: u8, rest: &[u8]| [&[0, 0, 0, code][..], rest, &[END]].concat();
    let begin = request(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0");
    let challenge = request(11, format!("r={nonce}x,s=AAAA,i=2").as_bytes());
    let last = request(12, b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    vec![
        [&[0][..], &begin, &challenge, &last, &request(0, b"")].concat(),
        [&[4][..], &begin, &challenge, &last].concat(),
        [&[0][..], &request(3, b""), &request(0, b"")].concat(),
        [&[1][..], &request(5, b"salt"), &request(0, b"")].concat(),
        [&[2][..], &begin, &request(0, b"")].concat(),
        [&[3][..], &request(0, b"")].concat(),
    ]
}
