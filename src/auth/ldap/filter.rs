//! Search filters: from the text of RFC 4515, `(|(uid=$username)(mail=$username))`, to the bytes of RFC 4511.

use super::message::element;

/// How deep a filter may be nested.
const MAX_DEPTH: usize = 32;

/// What is wrong with a filter.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} at byte {at}")]
pub struct FilterError {
    /// Where, counted from 1.
    pub at: usize,
    /// What.
    pub message: &'static str,
}

/// Encodes a filter. The outermost parentheses may be left out, as OpenLDAP allows.
pub fn encode(text: &str) -> Result<Vec<u8>, FilterError> {
    let mut parser = Parser { text, rest: text.trim() };
    let encoded = match parser.rest.starts_with('(') {
        true => parser.filter(0)?,
        false => {
            let item = std::mem::take(&mut parser.rest);
            parser.item(item)?
        }
    };
    if parser.rest.trim_start().is_empty() { Ok(encoded) } else { Err(parser.error("unexpected text")) }
}

struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn error(&self, message: &'static str) -> FilterError {
        FilterError { at: self.text.trim_end().len().saturating_sub(self.rest.len()) + 1, message }
    }

    fn eat(&mut self, c: char) -> bool {
        self.rest = self.rest.trim_start();
        let after = self.rest.strip_prefix(c);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    /// A filter in parentheses.
    fn filter(&mut self, depth: usize) -> Result<Vec<u8>, FilterError> {
        if depth == MAX_DEPTH {
            return Err(self.error("nested too deep"));
        }
        if !self.eat('(') {
            return Err(self.error("expected ("));
        }
        let encoded = if self.eat('&') {
            element(0xa0, &self.filters(depth)?)
        } else if self.eat('|') {
            element(0xa1, &self.filters(depth)?)
        } else if self.eat('!') {
            element(0xa2, &self.filter(depth + 1)?)
        } else {
            let end = self.rest.find(['(', ')']).ok_or_else(|| self.error("expected )"))?;
            let (item, rest) = self.rest.split_at(end);
            let encoded = self.item(item)?;
            self.rest = rest;
            encoded
        };
        if self.eat(')') { Ok(encoded) } else { Err(self.error("expected )")) }
    }

    fn filters(&mut self, depth: usize) -> Result<Vec<u8>, FilterError> {
        let mut encoded = Vec::new();
        while self.rest.trim_start().starts_with('(') {
            encoded.extend(self.filter(depth + 1)?);
        }
        Ok(encoded)
    }

    /// `attribute OPERATOR value`.
    fn item(&self, item: &'a str) -> Result<Vec<u8>, FilterError> {
        let (left, value) = item.split_once('=').ok_or_else(|| self.error("expected attribute=value"))?;
        let operator = |c| left.strip_suffix(c).map(str::trim);
        if let Some(left) = operator(':') {
            return self.extensible(left, value);
        }
        let compare = [('>', 0xa5), ('<', 0xa6), ('~', 0xa8)];
        if let Some((attribute, tag)) = compare.iter().find_map(|(c, tag)| Some((operator(*c)?, *tag))) {
            return self.comparison(tag, attribute, value);
        }
        let attribute = left.trim();
        match value.split_once('*') {
            None => self.comparison(0xa3, attribute, value),
            Some(("", "")) => Ok(element(0x87, self.attribute(attribute)?.as_bytes())),
            Some((initial, rest)) => self.substrings(attribute, initial, rest),
        }
    }

    fn comparison(&self, tag: u8, attribute: &str, value: &str) -> Result<Vec<u8>, FilterError> {
        let content =
            [element(0x04, self.attribute(attribute)?.as_bytes()), element(0x04, &self.unescaped(value)?)];
        Ok(element(tag, &content.concat()))
    }

    /// `initial*any*final`; `rest` is what stands behind the first `*`.
    fn substrings(&self, attribute: &str, initial: &str, rest: &str) -> Result<Vec<u8>, FilterError> {
        let (any, last) = rest.rsplit_once('*').unwrap_or(("", rest));
        let mut parts = Vec::new();
        let texts = std::iter::once((0x80, initial))
            .chain(any.split('*').map(|text| (0x81, text)))
            .chain([(0x82, last)]);
        for (tag, text) in texts.filter(|(_, text)| !text.is_empty()) {
            parts.extend(element(tag, &self.unescaped(text)?));
        }
        let content = [element(0x04, self.attribute(attribute)?.as_bytes()), element(0x30, &parts)];
        Ok(element(0xa4, &content.concat()))
    }

    /// `[attribute][:dn][:rule]:=value`; `left` is what stands before `:=`.
    fn extensible(&self, left: &str, value: &str) -> Result<Vec<u8>, FilterError> {
        let mut parts = left.split(':');
        let attribute = parts.next().unwrap_or_default();
        let mut parts: Vec<_> = parts.collect();
        let with_dn = parts.first().is_some_and(|part| part.eq_ignore_ascii_case("dn"));
        if with_dn {
            parts.remove(0);
        }
        let mut content = Vec::new();
        match parts[..] {
            [] if attribute.is_empty() => return Err(self.error("expected an attribute or a matching rule")),
            [] => {}
            [rule] if !rule.is_empty() => content.extend(element(0x81, rule.as_bytes())),
            _ => return Err(self.error("expected one matching rule")),
        }
        if !attribute.is_empty() {
            content.extend(element(0x82, self.attribute(attribute)?.as_bytes()));
        }
        content.extend(element(0x83, &self.unescaped(value)?));
        if with_dn {
            content.extend(element(0x84, &[0xff]));
        }
        Ok(element(0xa9, &content))
    }

    /// The name of an attribute, with options if it has some.
    fn attribute<'b>(&self, name: &'b str) -> Result<&'b str, FilterError> {
        let valid = |c: char| c.is_ascii_alphanumeric() || "-.;_".contains(c);
        if name.is_empty() || !name.chars().all(valid) {
            return Err(self.error("invalid attribute name"));
        }
        Ok(name)
    }

    /// A value with bytes in place of their `\XX`.
    fn unescaped(&self, value: &str) -> Result<Vec<u8>, FilterError> {
        let mut parts = value.split('\\');
        let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
        for part in parts {
            let byte = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
            bytes.push(byte.ok_or_else(|| self.error("expected two hexadecimal digits behind \\"))?);
            bytes.extend(&part.as_bytes()[2..]);
        }
        Ok(bytes)
    }
}
