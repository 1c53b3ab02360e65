//! Host names of servers, looked up and remembered.
//!
//! The system's resolver does the work (`getaddrinfo`, so /etc/hosts and /etc/resolv.conf count); what it says is kept for
//! `dns_max_ttl`, its failures for `dns_nxdomain_ttl`, but for half a second at most where a connection is to be opened:
//! clients may wait for it. The real TTL of a name is not known here, as in PgBouncer.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::{self, Micros};

/// Names that were looked up, and until when the answers hold.
#[derive(Debug, Default)]
pub struct Resolver {
    names: Mutex<BTreeMap<String, Entry>>,
    ttl: Mutex<Ttl>,
    /// Look-ups under way: a name is looked up once, however many want to know.
    under_way: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// How long a failure is believed by those who want a connection.
const PATIENCE: Duration = Duration::from_millis(400);

#[derive(Debug)]
struct Entry {
    answer: Result<Vec<IpAddr>, String>,
    /// The last ones that were found.
    addresses: Vec<IpAddr>,
    asked: Micros,
    expires: Micros,
    /// Counts connections: each starts with the next address.
    turn: usize,
}

/// How long answers are kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ttl {
    /// `dns_max_ttl`.
    pub found: Duration,
    /// `dns_nxdomain_ttl`.
    pub failed: Duration,
}

/// A name, for SHOW DNS_HOSTS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// As it stands in the configuration.
    pub name: String,
    /// How long the answer still holds.
    pub ttl: Duration,
    /// None: it could not be found.
    pub addresses: Vec<IpAddr>,
}

impl Resolver {
    /// Changes how long answers are kept, from the next look-up on.
    pub fn set_ttl(&self, ttl: Ttl) {
        *self.ttl.lock() = ttl;
    }

    /// The addresses of a host, the one to try first coming first; each call begins with the next one. An address
    /// needs no look-up.
    pub async fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let host = bare(host);
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![(address, port).into()]);
        }
        let known = self.known(host, clock::now());
        let answer = match known {
            Some(answer) => answer,
            None => self.look_up(host).await,
        };
        let addresses = answer.map_err(|error| io::Error::new(io::ErrorKind::NotFound, error))?;
        Ok(addresses.into_iter().map(|address| (address, port).into()).collect())
    }

    /// Looks a name up although its last answer may still hold. If it is not found that answer stays.
    pub async fn look_again(&self, host: &str) {
        if let answer @ Ok(_) = ask(host).await {
            self.remember(host, answer, clock::now());
        }
    }

    /// Whether an address is no longer one of a name's: those that were found last are others.
    pub fn has_lost(&self, host: &str, address: IpAddr) -> bool {
        let names = self.names.lock();
        let known = names.get(bare(host)).map(|entry| &entry.addresses);
        known.is_some_and(|addresses| !addresses.is_empty() && !addresses.contains(&address))
    }

    async fn look_up(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        let turn = Arc::clone(self.under_way.lock().entry(host.to_owned()).or_default());
        let mine = turn.lock().await;
        let answer = match self.known(host, clock::now()) {
            // While this one waited for its turn another has asked.
            Some(answer) => answer,
            None => {
                let answer = ask(host).await;
                self.remember(host, answer.clone(), clock::now());
                self.known(host, clock::now()).unwrap_or(answer)
            }
        };
        drop(mine);
        // The map and this task have it, if nobody else waits.
        let mut under_way = self.under_way.lock();
        if Arc::strong_count(&turn) == 2 {
            under_way.remove(host);
        }
        answer
    }

    /// What is known of a name and still holds.
    fn known(&self, host: &str, now: Micros) -> Option<Result<Vec<IpAddr>, String>> {
        let mut names = self.names.lock();
        let holds = |entry: &&mut Entry| {
            now < entry.expires && (entry.answer.is_ok() || now.since(entry.asked) < PATIENCE)
        };
        let entry = names.get_mut(host).filter(holds)?;
        let mut answer = entry.answer.clone();
        if let Ok(addresses) = &mut answer {
            let by = entry.turn % addresses.len().max(1);
            addresses.rotate_left(by);
            entry.turn = entry.turn.wrapping_add(1);
        }
        Some(answer)
    }

    fn remember(&self, host: &str, answer: Result<Vec<IpAddr>, String>, now: Micros) {
        let ttl = *self.ttl.lock();
        let ttl = if answer.is_ok() { ttl.found } else { ttl.failed };
        let mut names = self.names.lock();
        let before = names.remove(host);
        let turn = before.as_ref().map_or(0, |entry| entry.turn);
        let addresses =
            answer.clone().unwrap_or_else(|_| before.map(|entry| entry.addresses).unwrap_or_default());
        names.insert(host.to_owned(), Entry { answer, addresses, asked: now, expires: now + ttl, turn });
    }

    /// Everything that is known, by name.
    pub fn snapshot(&self) -> Vec<Known> {
        let now = clock::now();
        let known = |(name, entry): (&String, &Entry)| Known {
            name: name.clone(),
            ttl: entry.expires.since(now),
            addresses: entry.answer.clone().unwrap_or_default(),
        };
        self.names.lock().iter().map(known).collect()
    }
}

/// A name without the brackets that an address may have.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

async fn ask(host: &str) -> Result<Vec<IpAddr>, String> {
    let found = tokio::net::lookup_host((host, 0)).await.map_err(|error| error.to_string())?;
    let addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    if addresses.is_empty() { Err("it has no address".to_owned()) } else { Ok(addresses) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Ttl = Ttl { found: Duration::from_secs(10), failed: Duration::from_secs(2) };

    fn resolver() -> Resolver {
        let resolver = Resolver::default();
        resolver.set_ttl(TTL);
        resolver
    }

    fn address(last: u8) -> IpAddr {
        [127, 0, 0, last].into()
    }

    #[test]
    fn answers_are_kept_and_addresses_take_turns() {
        let resolver = resolver();
        let now = clock::now();
        assert_eq!(resolver.known("a", now), None);
        resolver.remember("a", Ok(vec![address(1), address(2)]), now);
        for first in [1, 2, 1] {
            assert_eq!(resolver.known("a", now).unwrap().unwrap()[0], address(first));
        }
        assert_eq!(resolver.known("a", now + TTL.found), None, "no longer than dns_max_ttl");
        // The next answer goes on where this one ended.
        resolver.remember("a", Ok(vec![address(1), address(2)]), now + TTL.found);
        assert_eq!(resolver.known("a", now + TTL.found).unwrap().unwrap()[0], address(2));
    }

    #[test]
    fn failures_are_kept_for_their_own_time() {
        let resolver = resolver();
        let now = clock::now();
        resolver.remember("b", Err("no".into()), now);
        assert_eq!(resolver.known("b", now), Some(Err("no".into())));
        assert_eq!(
            resolver.known("b", now + PATIENCE),
            None,
            "whoever wants a connection does not wait longer"
        );
        let brief = Ttl { failed: Duration::from_millis(5), ..TTL };
        resolver.set_ttl(brief);
        resolver.remember("c", Err("no".into()), now);
        assert_eq!(resolver.known("c", now + brief.failed), None);
        let snapshot = resolver.snapshot();
        assert_eq!((snapshot[0].name.as_str(), &snapshot[0].addresses), ("b", &Vec::new()));
        assert!(snapshot[0].ttl <= TTL.failed && snapshot[0].ttl > Duration::from_secs(1));
    }

    fn is_pending<F: Future>(future: &mut std::pin::Pin<Box<F>>) -> bool {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        future.as_mut().poll(&mut cx).is_pending()
    }

    /// However many connections are to be opened the system's resolver is asked once.
    #[tokio::test]
    async fn a_name_is_looked_up_once_at_a_time() {
        let resolver = resolver();
        let asked = || resolver.names.lock().get("localhost").map(|entry| entry.asked);
        // An answer may be there at once: then it is asked again.
        let (one, other) = loop {
            let mut one = Box::pin(resolver.addresses("localhost", 5));
            let mut other = Box::pin(resolver.addresses("localhost", 5));
            if is_pending(&mut one) && is_pending(&mut other) {
                break (one, other);
            }
            resolver.names.lock().clear();
        };
        one.await.unwrap();
        let first = asked();
        std::thread::sleep(Duration::from_millis(2));
        other.await.unwrap();
        assert_eq!(asked(), first);
        assert!(resolver.under_way.lock().is_empty());
        // One that is given up holds nobody else up.
        let given_up = loop {
            resolver.names.lock().clear();
            let mut given_up = Box::pin(resolver.addresses("localhost", 5));
            if is_pending(&mut given_up) {
                break given_up;
            }
        };
        drop(given_up);
        assert!(resolver.addresses("localhost", 5).await.is_ok() && resolver.under_way.lock().is_empty());
    }

    #[test]
    fn a_name_loses_the_addresses_that_are_not_among_those_found_last() {
        let resolver = resolver();
        let now = clock::now();
        assert!(!resolver.has_lost("a", address(1)), "nobody has asked yet");
        resolver.remember("a", Err("no".into()), now);
        assert!(!resolver.has_lost("a", address(1)), "no answer is not another answer");
        resolver.remember("a", Ok(vec![address(1), address(2)]), now);
        assert!(!resolver.has_lost("a", address(1)) && !resolver.has_lost("a", address(2)));
        resolver.remember("a", Err("no".into()), now);
        resolver.remember("b", Ok(vec![address(2)]), now);
        assert!(!resolver.has_lost("a", address(1)), "what was found before is still the last that is known");
        assert!(resolver.has_lost("a", address(3)));
        resolver.remember("a", Ok(vec![address(2), address(3)]), now);
        assert!(resolver.has_lost("a", address(1)));
        assert!(!resolver.has_lost("a", address(2)) && !resolver.has_lost("a", address(3)));
    }

    #[test]
    fn looking_again_does_not_wait_for_the_last_answer_to_expire() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let resolver = resolver();
        for (name, is_found) in [("localhost", true), ("unknown.invalid", false)] {
            resolver.remember(name, Ok(vec![address(77)]), clock::now());
            runtime.block_on(resolver.look_again(name));
            assert_eq!(resolver.has_lost(name, address(77)), is_found, "{name}");
            let found = runtime.block_on(resolver.addresses(name, 5)).unwrap();
            assert_eq!(found == ["127.0.0.77:5".parse().unwrap()], !is_found, "{name}: {found:?}");
        }
    }

    #[test]
    fn addresses_need_no_look_up() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let resolver = resolver();
        for host in ["::1", "[::1]"] {
            let found = runtime.block_on(resolver.addresses(host, 5)).unwrap();
            assert_eq!(found, ["[::1]:5".parse().unwrap()]);
        }
        assert!(resolver.snapshot().is_empty());
    }
}
