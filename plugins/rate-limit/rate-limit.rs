//! rate-limit: so many connections in so many seconds, for each program, user or
//! destination, and no more. See README.md for the configuration.
//!
//! One number per subject is kept (GCRA): when its next connection would be due if
//! they came evenly. A burst may be early by all but one of a period's connections.

#[path = "../config.rs"]
mod config;

use callout::json::Value;
use callout::{abi, block, error, host, proceed, Call, Policy, Verdict};
use std::ops::RangeInclusive;

const REAUTHORIZE: u32 = 0x0000_0004; // FWP_CONDITION_FLAG_IS_REAUTHORIZE
const PROXY_CONNECTION: u32 = 0x0020_0000; // FWP_CONDITION_FLAG_IS_PROXY_CONNECTION
const SECOND: u64 = 1_000_000_000;
const MAX_KEY: usize = 256;

#[derive(Clone, Copy, PartialEq)]
enum Per {
    All,
    Program,
    User,
    Destination,
}

struct Limit {
    programs: Option<Vec<String>>,
    ports: Option<Vec<RangeInclusive<u16>>>,
    per: Per,
    period: u64, // nanoseconds
    every: u64,  // nanoseconds between connections that come evenly
    metric: String,
    reason: String,
}

struct RateLimit {
    limits: Vec<Limit>,
    metrics: bool,
    key: Vec<u8>,
}

/// The store that all instances share.
trait Store {
    fn get(&self, key: &[u8]) -> Result<u64, host::Error>;
    fn set(&self, key: &[u8], due: u64, seconds: u32) -> Result<(), host::Error>;
}

struct Host;

impl Store for Host {
    fn get(&self, key: &[u8]) -> Result<u64, host::Error> {
        let mut value = [0; 8];
        host::kv_get(key, &mut value)?;
        Ok(u64::from_le_bytes(value))
    }

    fn set(&self, key: &[u8], due: u64, seconds: u32) -> Result<(), host::Error> {
        host::kv_set(key, &due.to_le_bytes(), seconds)
    }
}

impl Limit {
    fn read(v: Value, at: &str) -> Result<Self, String> {
        config::keys(v, at, &["name", "programs", "ports", "per", "connections", "seconds"])?;
        let dot = format!("{at}.");
        let name = config::text(config::required(v, &dot, "name", "for denials and the metric")?, &format!("{at}.name"))?;
        if name.len() > 40 || !name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_') {
            return Err(format!("{at}.name: {name:?} is not at most 40 letters, digits, - and _"));
        }
        let number = |key: &str, like: &str| {
            let n: u32 = config::number(config::required(v, &dot, key, like)?, &format!("{at}.{key}"), like)?;
            if (1..=86400).contains(&n) { Ok(u64::from(n)) } else { Err(format!("{at}.{key}: expected {like}")) }
        };
        let (connections, seconds) = (number("connections", "how many, 1 to 86400")?, number("seconds", "in how many, 1 to 86400")?);
        let per = match v.get("per").map_or(Ok("program".into()), |v| config::text(v, &format!("{at}.per")))?.as_str() {
            "all" => Per::All,
            "program" => Per::Program,
            "user" => Per::User,
            "destination" => Per::Destination,
            other => return Err(format!("{at}.per: {other:?} is not all, program, user or destination")),
        };
        Ok(Limit {
            programs: config::list(v.get("programs"), &format!("{at}.programs"), config::program)?,
            ports: config::list(v.get("ports"), &format!("{at}.ports"), config::ports)?,
            per,
            period: seconds * SECOND,
            every: seconds * SECOND / connections,
            metric: format!("{name}.limited"),
            reason: format!("more than {connections} connections in {seconds} s (limit {name})"),
        })
    }

    fn concerns(&self, call: &Call) -> bool {
        let program = self.programs.as_ref().map_or(true, |all| all.iter().any(|p| p.as_bytes() == call.app));
        program && self.ports.as_ref().map_or(true, |all| all.iter().any(|r| r.contains(&call.remote_port)))
    }

    /// What the limit counts a connection for. Of a long path its end counts.
    fn key(&self, i: usize, call: &Call, key: &mut Vec<u8>) {
        key.clear();
        key.push(i as u8);
        match self.per {
            Per::All => {}
            Per::Program => key.extend_from_slice(&call.app[call.app.len().saturating_sub(MAX_KEY - 1)..]),
            Per::User if call.present & abi::PRESENT_UID == 0 => {} // All that are not known together.
            Per::User => key.extend_from_slice(&call.uid.to_le_bytes()),
            Per::Destination => {
                key.extend_from_slice(&call.remote);
                key.extend_from_slice(&call.remote_port.to_le_bytes());
            }
        }
    }

    /// When the next connection is due if this one passes; `None` if it is too early.
    fn next(&self, due: u64, now: u64) -> Option<u64> {
        let next = due.max(now) + self.every;
        (next <= now + self.period).then_some(next)
    }
}

impl RateLimit {
    const fn new() -> Self {
        RateLimit { limits: Vec::new(), metrics: false, key: Vec::new() }
    }

    fn read(text: &[u8]) -> Result<Vec<Limit>, String> {
        let v = config::read(text)?;
        config::keys(v, "the configuration", &["limits"])?;
        let limits = config::list(Some(config::required(v, "", "limits", "at least one")?), "limits", Limit::read)?.unwrap_or_default();
        match limits.len() {
            1..=32 => Ok(limits),
            n => Err(format!("limits: expected 1 to 32, found {n}")),
        }
    }

    /// Counts a connection for every limit that concerns it, up to the first that
    /// it breaks: that one is the result.
    fn broken(&mut self, call: &Call, store: &dyn Store) -> Result<Option<usize>, host::Error> {
        let now = call.monotonic;
        for (i, limit) in self.limits.iter().enumerate().filter(|(_, l)| l.concerns(call)) {
            limit.key(i, call, &mut self.key);
            let due = match store.get(&self.key) {
                Err(abi::ERR_NOT_FOUND) => 0,
                due => due?,
            };
            match limit.next(due, now) {
                Some(next) => store.set(&self.key, next, ((next - now) / SECOND) as u32 + 1)?,
                None => return Ok(Some(i)),
            }
        }
        Ok(None)
    }

    fn decide<'a>(&'a mut self, call: &Call<'a>, store: &dyn Store) -> Verdict<'a> {
        if call.flags & (REAUTHORIZE | PROXY_CONNECTION) != 0 {
            return proceed(); // It was counted when its program connected.
        }
        match self.broken(call, store) {
            Ok(None) => proceed(),
            Ok(Some(i)) => {
                let limit = &self.limits[i];
                if self.metrics {
                    let _ = host::metric_add(&limit.metric, 1); // A full table of metrics changes no decision.
                }
                block(&limit.reason)
            }
            Err(abi::ERR_FULL) => block("too many programs, users or destinations are counted at once"),
            Err(_) => error("the store of counts cannot be used"),
        }
    }
}

impl Policy for RateLimit {
    const REQUIRED: u32 = abi::CAP_KV;
    const OPTIONAL: u32 = abi::CAP_METRIC;

    fn configure(&mut self, text: &[u8], granted: u32) -> Result<(), &'static str> {
        self.limits = RateLimit::read(text).map_err(config::because)?;
        self.metrics = granted & abi::CAP_METRIC != 0;
        Ok(())
    }

    fn classify<'a>(&'a mut self, call: &Call<'a>) -> Verdict<'a> {
        self.decide(call, &Host)
    }
}

callout::export!(RateLimit, RateLimit::new());

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::collections::HashMap;

    #[derive(Default)]
    struct Map(RefCell<HashMap<Vec<u8>, u64>>, Option<host::Error>);

    impl Store for Map {
        fn get(&self, key: &[u8]) -> Result<u64, host::Error> {
            assert!((1..=MAX_KEY).contains(&key.len()));
            self.0.borrow().get(key).copied().ok_or(abi::ERR_NOT_FOUND)
        }

        fn set(&self, key: &[u8], due: u64, _: u32) -> Result<(), host::Error> {
            self.0.borrow_mut().insert(key.to_vec(), due);
            self.1.map_or(Ok(()), Err)
        }
    }

    fn limited(config: &str) -> RateLimit {
        let mut l = RateLimit::new();
        l.configure(config.as_bytes(), 0).unwrap();
        l
    }

    fn at(seconds: u64) -> Call<'static> {
        Call { monotonic: (1000 + seconds) * SECOND, app: b"/a", ..Call::default() }
    }

    #[test]
    fn a_burst_passes_then_one_a_while() {
        let mut l = limited(r#"{"limits": [{"name": "x", "connections": 3, "seconds": 30}]}"#);
        let store = Map::default();
        let passes: Vec<bool> = [0, 0, 0, 0, 9, 10, 10, 20, 90, 90, 90, 90].iter().map(|s| l.decide(&at(*s), &store) == proceed()).collect();
        assert_eq!(passes, [true, true, true, false, false, true, false, true, true, true, true, false]);
        assert_eq!(l.decide(&at(90), &store), block("more than 3 connections in 30 s (limit x)"));
    }

    #[test]
    fn subjects_are_counted_apart() {
        for (per, together, apart) in [
            ("program", Call { uid: 7, ..at(0) }, Call { app: b"/b", ..at(0) }),
            ("user", Call { app: b"/b", ..at(0) }, Call { uid: 7, present: abi::PRESENT_UID, ..at(0) }),
            ("destination", Call { app: b"/b", ..at(0) }, Call { remote_port: 1, ..at(0) }),
        ] {
            let mut l = limited(&format!(r#"{{"limits": [{{"name": "x", "per": "{per}", "connections": 1, "seconds": 9}}]}}"#));
            let store = Map::default();
            assert_eq!(l.decide(&at(0), &store), proceed());
            assert_ne!(l.decide(&together, &store), proceed(), "{per}");
            assert_eq!(l.decide(&apart, &store), proceed(), "{per}");
        }
    }

    #[test]
    fn long_paths_are_counted_by_their_end() {
        let mut l = limited(r#"{"limits": [{"name": "x", "connections": 1, "seconds": 9}]}"#);
        let (store, long, other) = (Map::default(), [b'a'; 4096], [b'b'; 4096]);
        assert_eq!(l.decide(&Call { app: &long, ..at(0) }, &store), proceed());
        assert_eq!(l.decide(&Call { app: &other, ..at(0) }, &store), proceed());
        assert_ne!(l.decide(&Call { app: &long, ..at(0) }, &store), proceed());
    }

    #[test]
    fn what_was_counted_already_is_not_counted_again() {
        let mut l = limited(r#"{"limits": [{"name": "x", "connections": 1, "seconds": 9}]}"#);
        let store = Map::default();
        for flags in [REAUTHORIZE, PROXY_CONNECTION, 0] {
            assert_eq!(l.decide(&Call { flags, ..at(0) }, &store), proceed());
        }
        assert_eq!(store.0.borrow().len(), 1);
    }

    #[test]
    fn a_store_that_fails_blocks() {
        let mut l = limited(r#"{"limits": [{"name": "x", "connections": 1, "seconds": 9}]}"#);
        assert_eq!(l.decide(&at(0), &Map(RefCell::default(), Some(abi::ERR_FULL))), block("too many programs, users or destinations are counted at once"));
        assert_eq!(l.decide(&at(0), &Map(RefCell::default(), Some(abi::ERR_DENIED))), error("the store of counts cannot be used"));
    }
}
