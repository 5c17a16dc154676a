//! What the plugins in Rust share: reading a configuration, and saying what is
//! wrong with it and where.

use callout::json::{self, Value};
use std::ops::RangeInclusive;

/// Why a configuration is refused. It stays: the instance that refuses is gone.
pub fn because(why: String) -> &'static str {
    Box::leak(why.into_boxed_str())
}

/// The whole configuration.
pub fn read(config: &[u8]) -> Result<Value<'_>, String> {
    json::parse(config).map_err(|at| format!("the configuration is no JSON at byte {at}"))
}

/// Refuses what is no object or has a key that is not known.
pub fn keys(v: Value, at: &str, known: &[&str]) -> Result<(), String> {
    match (v.members(), v.unknown(known)) {
        (None, _) => Err(format!("{at}: expected keys and values")),
        (_, Some(key)) => Err(format!("{at} has no key {:?}", string(key))),
        _ => Ok(()),
    }
}

fn string(text: json::Text) -> String {
    text.chars().collect()
}

pub fn required<'a>(v: Value<'a>, at: &str, key: &str, like: &str) -> Result<Value<'a>, String> {
    v.get(key).ok_or_else(|| format!("{at}{key}: required, {like}"))
}

pub fn number<T: TryFrom<i64>>(v: Value, at: &str, like: &str) -> Result<T, String> {
    v.number().and_then(|n| T::try_from(n).ok()).ok_or_else(|| format!("{at}: expected {like}"))
}

pub fn text(v: Value, at: &str) -> Result<String, String> {
    v.text().map(string).filter(|s| !s.is_empty()).ok_or_else(|| format!("{at}: expected a text"))
}

/// The items of a list, each read by a function that gets its place; `None` if
/// there is no list.
pub fn list<T>(v: Option<Value>, at: &str, read: impl Fn(Value, &str) -> Result<T, String>) -> Result<Option<Vec<T>>, String> {
    let v = match v {
        None => return Ok(None),
        Some(v) => v,
    };
    let items = v.items().ok_or_else(|| format!("{at}: expected a list"))?;
    items.enumerate().map(|(i, v)| read(v, &format!("{at}[{i}]"))).collect::<Result<_, _>>().map(Some)
}

/// The whole path of a program.
pub fn program(v: Value, at: &str) -> Result<String, String> {
    let path = text(v, at)?;
    if path.starts_with('/') {
        Ok(path)
    } else {
        Err(format!("{at}: {path:?} is not a whole path such as /usr/bin/curl"))
    }
}

/// A port, or a range of them.
#[allow(dead_code)] // Not every plugin has ranges.
pub fn ports(v: Value, at: &str) -> Result<RangeInclusive<u16>, String> {
    let wrong = || format!("{at}: expected a port or a range such as 8000-8999");
    if let Some(n) = v.number() {
        return u16::try_from(n).map(|n| n..=n).map_err(|_| wrong());
    }
    let range = text(v, at).map_err(|_| wrong())?;
    let (low, high) = range.split_once('-').unwrap_or((&range, &range));
    match (low.parse(), high.parse()) {
        (Ok(low), Ok(high)) if low <= high => Ok(low..=high),
        _ => Err(wrong()),
    }
}
