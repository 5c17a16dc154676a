//! Reads a configuration, which is JSON, where it lies: nothing is copied and
//! nothing allocated.
//!
//! ```
//! let config = callout::json::parse(br#"{"ports": [53, 853]}"#).unwrap();
//! let ports: Vec<i64> = config.get("ports").unwrap().items().unwrap().filter_map(|p| p.number()).collect();
//! assert_eq!(ports, [53, 853]);
//! ```

/// How deep lists and objects may be in each other.
const MAX_DEPTH: usize = 32;

/// A value: text that is known to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a>(&'a str);

/// A text as JSON writes it, without its quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'a>(&'a str);

/// Checks a whole document. The error is the place, in bytes, of what is none.
pub fn parse(document: &[u8]) -> Result<Value<'_>, usize> {
    let text = core::str::from_utf8(document).map_err(|e| e.valid_up_to())?;
    let start = space(document, 0);
    let end = value(document, start, MAX_DEPTH)?;
    match space(document, end) {
        n if n == document.len() => Ok(Value(&text[start..end])),
        n => Err(n),
    }
}

fn space(b: &[u8], at: usize) -> usize {
    at + b[at..].iter().take_while(|c| matches!(c, b' ' | b'\t' | b'\n' | b'\r')).count()
}

/// The end of the value that begins at `at`.
fn value(b: &[u8], at: usize, depth: usize) -> Result<usize, usize> {
    match b.get(at) {
        Some(b'"') => string(b, at),
        Some(b'{') if depth > 0 => list(b, at, b'}', |b, at| {
            let colon = space(b, string(b, at)?);
            expect(b, colon, b':')?;
            value(b, space(b, colon + 1), depth - 1)
        }),
        Some(b'[') if depth > 0 => list(b, at, b']', |b, at| value(b, at, depth - 1)),
        Some(b'-' | b'0'..=b'9') => number(b, at),
        _ => ["true", "false", "null"].iter().find(|w| b[at..].starts_with(w.as_bytes())).map(|w| at + w.len()).ok_or(at),
    }
}

fn expect(b: &[u8], at: usize, c: u8) -> Result<usize, usize> {
    if b.get(at) == Some(&c) {
        Ok(at + 1)
    } else {
        Err(at)
    }
}

/// Items with commas between them, up to `close`.
fn list(b: &[u8], open: usize, close: u8, item: impl Fn(&[u8], usize) -> Result<usize, usize>) -> Result<usize, usize> {
    let mut at = space(b, open + 1);
    if b.get(at) == Some(&close) {
        return Ok(at + 1);
    }
    loop {
        at = space(b, item(b, at)?);
        if b.get(at) == Some(&close) {
            return Ok(at + 1);
        }
        at = space(b, expect(b, at, b',')?);
    }
}

fn string(b: &[u8], open: usize) -> Result<usize, usize> {
    let mut at = expect(b, open, b'"')?;
    loop {
        at += match b.get(at).ok_or(at)? {
            b'"' => return Ok(at + 1),
            b'\\' => match b.get(at + 1).ok_or(at)? {
                b'u' if b.len() > at + 5 && b[at + 2..at + 6].iter().all(u8::is_ascii_hexdigit) => 6,
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
                _ => return Err(at),
            },
            0..=0x1f => return Err(at),
            _ => 1,
        }
    }
}

fn digits(b: &[u8], at: usize) -> Result<usize, usize> {
    match b[at..].iter().take_while(|c| c.is_ascii_digit()).count() {
        0 => Err(at),
        n => Ok(at + n),
    }
}

fn number(b: &[u8], start: usize) -> Result<usize, usize> {
    let first = start + usize::from(b[start] == b'-');
    let mut at = digits(b, first)?;
    if b[first] == b'0' && at > first + 1 {
        return Err(first);
    }
    if b.get(at) == Some(&b'.') {
        at = digits(b, at + 1)?;
    }
    if matches!(b.get(at), Some(b'e' | b'E')) {
        at = digits(b, at + 1 + usize::from(matches!(b.get(at + 1), Some(b'+' | b'-'))))?;
    }
    Ok(at)
}

impl<'a> Value<'a> {
    /// The members of an object, `None` of anything else.
    pub fn members(self) -> Option<impl Iterator<Item = (Text<'a>, Value<'a>)>> {
        let mut rest = Rest::of(self, '{')?;
        Some(core::iter::from_fn(move || {
            let key = rest.next()?;
            Some((key.text()?, rest.next()?))
        }))
    }

    /// The items of a list, `None` of anything else.
    pub fn items(self) -> Option<impl Iterator<Item = Value<'a>>> {
        let mut rest = Rest::of(self, '[')?;
        Some(core::iter::from_fn(move || rest.next()))
    }

    /// The member of an object.
    pub fn get(self, key: &str) -> Option<Value<'a>> {
        self.members()?.find(|(k, _)| k.is(key)).map(|(_, v)| v)
    }

    /// The first key of an object that is not known.
    pub fn unknown(self, known: &[&str]) -> Option<Text<'a>> {
        self.members()?.map(|(k, _)| k).find(|k| !known.iter().any(|name| k.is(name)))
    }

    pub fn text(self) -> Option<Text<'a>> {
        self.0.strip_prefix('"')?.strip_suffix('"').map(Text)
    }

    /// A whole number.
    pub fn number(self) -> Option<i64> {
        self.0.parse().ok()
    }

    pub fn boolean(self) -> Option<bool> {
        self.0.parse().ok()
    }
}

/// What is left of a list or an object, up to its end.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn of(v: Value<'a>, open: char) -> Option<Self> {
        v.0.strip_prefix(open).map(Rest)
    }

    fn next(&mut self) -> Option<Value<'a>> {
        let start = self.0.find(|c| !matches!(c, ' ' | '\t' | '\n' | '\r' | ',' | ':'))?;
        let end = value(self.0.as_bytes(), start, MAX_DEPTH).ok()?; // The closing one is no value.
        let (v, rest) = self.0.split_at(end);
        self.0 = rest;
        Some(Value(&v[start..]))
    }
}

impl<'a> Text<'a> {
    /// Reports whether it says `s`.
    pub fn is(self, s: &str) -> bool {
        self.chars().eq(s.chars())
    }

    /// What it says. Half of a surrogate pair is U+FFFD.
    pub fn chars(self) -> impl Iterator<Item = char> + 'a {
        let mut rest = self.0.chars();
        core::iter::from_fn(move || match rest.next()? {
            '\\' => Some(match rest.next()? {
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => escaped(&mut rest),
                c => c,
            }),
            c => Some(c),
        })
    }
}

fn escaped(rest: &mut core::str::Chars<'_>) -> char {
    let first = hex(rest);
    let after = rest.as_str();
    if (0xd800..0xdc00).contains(&first) && after.starts_with("\\u") {
        let mut low = after[2..].chars();
        let second = hex(&mut low);
        if (0xdc00..0xe000).contains(&second) {
            *rest = low;
            return char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)).unwrap_or('\u{fffd}');
        }
    }
    char::from_u32(first).unwrap_or('\u{fffd}')
}

fn hex(rest: &mut core::str::Chars<'_>) -> u32 {
    (0..4).fold(0, |n, _| n << 4 | rest.next().and_then(|c| c.to_digit(16)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::{string::String, vec::Vec};

    #[test]
    fn values_are_found_where_they_lie() {
        let v = parse(b" {\"a\": [1, -2, true, \"x,]\"], \"b\": {}, \"c\" : null} ").unwrap();
        let keys: Vec<String> = v.members().unwrap().map(|(k, _)| k.chars().collect()).collect();
        assert_eq!(keys, ["a", "b", "c"]);
        let a: Vec<Value> = v.get("a").unwrap().items().unwrap().collect();
        assert_eq!((a[0].number(), a[1].number(), a[2].boolean(), a.len()), (Some(1), Some(-2), Some(true), 4));
        assert!(a[3].text().unwrap().is("x,]"));
        assert_eq!(v.get("b").unwrap().members().unwrap().count(), 0);
        assert!(v.unknown(&["a", "c"]).unwrap().is("b"));
        assert!(v.get("c").unwrap().text().is_none() && v.get("d").is_none() && v.items().is_none());
    }

    #[test]
    fn escapes_are_what_they_stand_for() {
        let v = parse(br#""a\u0026\n\"\\\ud83d\ude00\ud83d\u00e9""#).unwrap();
        let said: String = v.text().unwrap().chars().collect();
        assert_eq!(said, "a&\n\"\\\u{1f600}\u{fffd}\u{e9}");
    }

    #[test]
    fn what_is_no_json_is_refused_at_its_place() {
        for (text, at) in [
            ("", 0), ("{", 1), ("[1,]", 3), ("[1 2]", 3), ("{\"a\" 1}", 5), ("\"a", 2), ("\"\\x\"", 1), ("01", 0), ("1.", 2),
            ("1e+", 3), ("tru", 0), ("1 1", 2), ("\"\n\"", 1), ("\"\\u12\"", 1), ("{1:2}", 1),
        ] {
            assert_eq!(parse(text.as_bytes()), Err(at), "{text}");
        }
        assert_eq!(parse(b"\"\xff\""), Err(1));
        assert_eq!(parse("[".repeat(40).as_bytes()), Err(32));
    }

    /// Every text that is cut or changed somewhere is read to its end or refused.
    #[test]
    fn hostile_text_is_read_or_refused() {
        const GOOD: &[u8] = br#"{"a":[1,-2.5e3,true,"\u00e9\ud83d\ude00"],"b":{"c":null}}"#;
        fn walk(v: Value) -> usize {
            let inner = v.items().map_or(0, |i| i.map(walk).sum::<usize>());
            inner + v.members().map_or(0, |m| m.map(|(k, v)| k.chars().count() + walk(v)).sum()) + v.text().map_or(0, |t| t.chars().count())
        }
        let mut read = 0;
        for at in 0..GOOD.len() {
            for c in 0..=255 {
                let mut text = GOOD.to_vec();
                text[at] = c;
                read += usize::from(parse(&text).map(walk).is_ok());
            }
            assert!(parse(&GOOD[..at]).is_err(), "a text that ends early");
        }
        assert!(read > GOOD.len());
    }
}
