//! Connection URLs.

/// A connection URL as libpq reads it, but for passwords: they may hold `/`, `+` and `=` as they are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) hosts: String,
    pub(super) ports: Option<String>,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) database: Option<String>,
    pub(super) parameters: Vec<(String, String)>,
}

impl Url {
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let rest =
            ["postgres://", "postgresql://"].iter().find_map(|scheme| text.trim().strip_prefix(scheme));
        let rest = rest.ok_or("expected a URL that begins with postgres://")?;
        let (account, rest) =
            rest.rsplit_once('@').map_or((None, rest), |(account, rest)| (Some(account), rest));
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (hosts, database) = rest.split_once('/').unwrap_or((rest, ""));
        let mut url = Self { database: Some(decode(database)).filter(|d| !d.is_empty()), ..Self::default() };
        if let Some(account) = account {
            let (user, password) = account.split_once(':').map_or((account, None), |(u, p)| (u, Some(p)));
            url.user = Some(decode(user));
            url.password = password.map(decode);
        }
        let mut ports = Vec::new();
        let mut names = Vec::new();
        for host in hosts.split(',') {
            let bracketed = host.starts_with('[');
            let end = if bracketed {
                host.find(']').ok_or("unclosed [ in host")? + 1
            } else {
                host.find(':').unwrap_or(host.len())
            };
            let (name, port) = host.split_at(end);
            names.push(decode(name.trim_start_matches('[').trim_end_matches(']')));
            ports.push(port.strip_prefix(':').filter(|p| !p.is_empty()).unwrap_or("5432").to_owned());
        }
        if names.iter().any(String::is_empty) {
            return Err("the URL names no host");
        }
        url.hosts = names.join(",");
        url.ports = Some(ports.join(","));
        for parameter in query.split('&').filter(|p| !p.is_empty()) {
            let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            url.parameters.push((decode(key), decode(value)));
        }
        Ok(url)
    }
}

/// A connection URL as the pairs of a connect string.
pub fn url_pairs(text: &str) -> Result<Vec<(String, String)>, &'static str> {
    let url = Url::parse(text)?;
    let known =
        [("host", Some(url.hosts)), ("port", url.ports), ("user", url.user), ("dbname", url.database)];
    let known = known.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Ok(known.chain(url.parameters).collect())
}

/// Replaces `%XX`; a `%` that is not followed by two hexadecimal digits stands for itself.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
        let hex = hex.filter(|pair| pair.bytes().all(|b| b.is_ascii_hexdigit()));
        match hex.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) if bytes[at] == b'%' => {
                out.push(byte);
                at += 3;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
