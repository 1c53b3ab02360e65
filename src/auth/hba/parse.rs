//! Reads the lines of an HBA file.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;

use super::ident::{IdentMap, IdentMaps};
use super::line::{Complaint, Line, Token, shown};
use super::problem::Problem;
use super::rule::{Address, Kind, Method, Names, Rule, masked};
use crate::auth::ldap::LdapOptions;

/// How deep name files may name others.
const MAX_DEPTH: usize = 10;

/// Reads a file to its text; the error is the system's message.
pub type ReadFile<'a> = &'a dyn Fn(&Path) -> Result<String, String>;

/// Reads a file: its rules, and what is wrong with it.
pub(super) fn rules(
    text: &str,
    path: &Path,
    maps: &IdentMaps,
    read: ReadFile<'_>,
) -> (Vec<Rule>, Vec<Problem>) {
    let (mut rules, mut problems) = (Vec::new(), Vec::new());
    for (index, text) in text.lines().enumerate() {
        let number = index + 1;
        let (line, files) = (Line::new(text), Files(read));
        let mut parser = Parser { line, number, path, maps, files, complaints: Vec::new() };
        match parser.rule() {
            Ok(rule) => rules.extend(rule),
            Err(complaint) => parser.complaints.push(complaint),
        }
        problems.extend(parser.complaints.into_iter().map(|complaint| complaint.on_rule(number, text)));
    }
    (rules, problems)
}

struct Parser<'a> {
    line: Line<'a>,
    number: usize,
    path: &'a Path,
    maps: &'a IdentMaps,
    files: Files<'a>,
    /// About what does not make the line useless.
    complaints: Vec<Complaint>,
}

impl Parser<'_> {
    /// A rule, or `None` if the line is empty.
    fn rule(&mut self) -> Result<Option<Rule>, Complaint> {
        if self.line.is_over() {
            return Ok(None);
        }
        let kind = self.kind()?;
        let databases = self.names("a database")?;
        if matches!(&self.line.token, Token::Word(word) if word == "replication") {
            let complaint = self.line.complaint("\"replication\" as a user matches nobody");
            self.complaints.push(complaint.hint("write it in double quotes if that is a user's name"));
        }
        let users = self.names("a user")?;
        let address = match kind {
            Kind::Local => Address::All,
            _ => self.address()?,
        };
        let method = self.method()?;
        let map = match method {
            Method::Ldap(_) => None,
            _ => {
                let map = self.map()?;
                self.line.end()?;
                map
            }
        };
        Ok(Some(Rule { line: self.number, kind, databases, users, address, method, map }))
    }

    fn kind(&mut self) -> Result<Kind, Complaint> {
        let kinds = [
            ("local", Kind::Local),
            ("host", Kind::Host),
            ("hostssl", Kind::HostSsl),
            ("hostnossl", Kind::HostNoSsl),
        ];
        match kinds.into_iter().find(|(word, _)| self.line.take(word)) {
            Some((_, kind)) => Ok(kind),
            None => Err(self
                .line
                .complaint("unknown type")
                .hint("a rule begins with local, host, hostssl or hostnossl")),
        }
    }

    /// The names of a column.
    fn names(&mut self, what: &str) -> Result<Names, Complaint> {
        let mut names = Names::default();
        loop {
            self.files.add_name(&mut self.line, &mut names, what, self.path, 0)?;
            if !self.line.take_comma() {
                return Ok(names);
            }
        }
    }

    fn address(&mut self) -> Result<Address, Complaint> {
        if self.line.take("all") {
            return Ok(Address::All);
        }
        let mut here = self.line.complaint("");
        let word = self.line.word("an address")?;
        let (network, bits) = match word.split_once('/') {
            Some((network, bits)) => (network, Some(bits)),
            None => (word.as_str(), None),
        };
        let Ok(network) = network.parse::<IpAddr>() else {
            here.message = format!("failed to parse address \"{}\"", shown(&word));
            return Err(
                here.hint("not all, IPv4 or IPv6; host names, samehost and samenet are not supported")
            );
        };
        let mask = match bits {
            Some(bits) => prefix_mask(network, bits),
            None => self.line.word("a mask")?.parse().ok(),
        };
        let Some((mask, masked)) = mask.and_then(|mask| Some((mask, masked(network, mask)?))) else {
            here.message = format!("address {} without a valid mask", shown(&word));
            return Err(
                here.hint("write 10.0.0.0/8, 10.0.0.0 255.0.0.0, or 10.0.0.1/32 for a single address")
            );
        };
        if masked != network {
            here.message = format!("address does not match mask in {word}: the rule matches nobody");
            self.complaints.push(here.hint("bits that the mask leaves free have to be zero"));
        }
        Ok(Address::Network { network, mask })
    }

    fn method(&mut self) -> Result<Method, Complaint> {
        let method = match &self.line.token {
            Token::Word(word) => match word.as_str() {
                "trust" => Method::Trust,
                "reject" => Method::Reject,
                "md5" => Method::Md5,
                "password" => Method::Password,
                "peer" => Method::Peer,
                "cert" => Method::Cert,
                "scram-sha-256" => Method::ScramSha256,
                "ldap" => self.ldap(),
                other => return Err(unsupported(&self.line, other)),
            },
            _ => return Err(unsupported(&self.line, "")),
        };
        self.line.advance();
        Ok(method)
    }

    fn ldap(&mut self) -> Method {
        match LdapOptions::parse(self.line.rest()) {
            Ok(options) => Method::Ldap(Some(Arc::new(options))),
            Err(error) => {
                let complaint = self.line.complaint(format!("{error}: the rule refuses whom it matches"));
                self.complaints.push(complaint);
                Method::Ldap(None)
            }
        }
    }

    fn map(&mut self) -> Result<Option<Arc<IdentMap>>, Complaint> {
        let Token::Word(word) = &self.line.token else { return Ok(None) };
        let Some(name) = word.strip_prefix("map=") else {
            let complaint = self.line.complaint(format!("unsupported parameter \"{}\"", shown(word)));
            return Err(complaint.hint("the only parameter of this method is map=NAME"));
        };
        let Some(map) = self.maps.get(name) else {
            return Err(self
                .line
                .complaint(format!("ident map \"{name}\" is not found in ident config file"))
                .hint("auth_ident_file names that file"));
        };
        let map = Some(Arc::clone(map));
        self.line.advance();
        Ok(map)
    }
}

fn unsupported(line: &Line<'_>, method: &str) -> Complaint {
    line.complaint(format!("unsupported method \"{}\"", shown(method))).hint(
        "methods are trust, reject, md5, password, peer, cert, scram-sha-256 and ldap; pam works as auth_type only",
    )
}

/// The mask of so many ones for addresses of the same family.
fn prefix_mask(address: IpAddr, bits: &str) -> Option<IpAddr> {
    let bits: u32 = bits.parse().ok()?;
    Some(match address {
        IpAddr::V4(_) => {
            Ipv4Addr::from_bits(u32::MAX.checked_shl(32_u32.checked_sub(bits)?).unwrap_or(0)).into()
        }
        IpAddr::V6(_) => {
            Ipv6Addr::from_bits(u128::MAX.checked_shl(128_u32.checked_sub(bits)?).unwrap_or(0)).into()
        }
    })
}

/// Reads names, and the files that contain names.
struct Files<'a>(ReadFile<'a>);

impl Files<'_> {
    /// Takes a name, a keyword that stands for names, or `@file`. The line stands in the file `path`.
    fn add_name(
        &self,
        line: &mut Line<'_>,
        names: &mut Names,
        what: &str,
        path: &Path,
        depth: usize,
    ) -> Result<(), Complaint> {
        let Token::Word(word) = &line.token else {
            names.names.insert(line.value(what)?);
            return Ok(());
        };
        match (word.as_str(), word.as_bytes().first()) {
            ("all", _) => names.all = true,
            ("sameuser", _) => names.same_user = true,
            ("replication", _) => names.replication = true,
            ("samerole" | "samegroup", _) => {
                return Err(line.complaint(format!("{word} is not supported")));
            }
            (_, Some(b'+')) => return Err(line.complaint("groups (+name) are not supported")),
            (_, Some(b'@')) => {
                let file = path.parent().unwrap_or(Path::new("")).join(&word[1..]);
                self.add_file(names, &file, depth).map_err(|message| line.complaint(message))?;
            }
            (name, _) => {
                names.names.insert(name.to_owned());
            }
        }
        line.advance();
        Ok(())
    }

    /// Adds the names in a file.
    fn add_file(&self, names: &mut Names, path: &Path, depth: usize) -> Result<(), String> {
        let file = path.display();
        if depth == MAX_DEPTH {
            return Err(format!("files of names are nested more than {MAX_DEPTH} deep"));
        }
        let text = (self.0)(path).map_err(|error| format!("cannot read \"{file}\": {error}"))?;
        for (index, text) in text.lines().enumerate() {
            let mut line = Line::new(text);
            while !line.is_over() {
                if !line.take_comma() {
                    self.add_name(&mut line, names, "a name", path, depth + 1).map_err(
                        |Complaint { message, .. }| format!("\"{file}\" line {}: {message}", index + 1),
                    )?;
                }
            }
        }
        Ok(())
    }
}
