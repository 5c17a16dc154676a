//! allow-list: a connection passes if a rule names its program, where it goes and
//! its port; everything else is blocked. See README.md for the configuration.
//!
//! A rule with host names needs to know the name: such a connection is redirected
//! to a proxy that looks at whom it asks for, and judged when the proxy connects.

#[path = "../config.rs"]
mod config;

use callout::json::Value;
use callout::{abi, block, error, host, proceed, redirect, v4, Call, Policy, Verdict, Version};
use std::net::SocketAddrV4;
use std::ops::RangeInclusive;

const CONNECT_REDIRECT: [u16; 2] = [66, 67]; // FWPS_LAYER_ALE_CONNECT_REDIRECT_V4, _V6
const REDIRECTED: u32 = 0x0010_0000; // FWP_CONDITION_FLAG_IS_CONNECTION_REDIRECTED
const TCP: u8 = 6;

struct Rule {
    programs: Option<Vec<String>>,
    ports: Option<Vec<RangeInclusive<u16>>>,
    networks: Option<u32>,
    hosts: Option<Vec<String>>,
}

struct Peek {
    proxy: SocketAddrV4,
    pid: u32,
}

struct AllowList {
    rules: Vec<Rule>,
    peek: Option<Peek>,
    context: Vec<u8>,
    record: Vec<u8>,
    said: String,
}

/// Whether a set of the policy has the destination.
type InSet<'a> = &'a dyn Fn(u32) -> Result<bool, host::Error>;

impl Rule {
    fn read(v: Value, at: &str) -> Result<Self, String> {
        config::keys(v, at, &["name", "programs", "ports", "networks", "hosts"])?;
        let in_rule = |key: &str| format!("{at}.{key}");
        if let Some(name) = v.get("name") {
            config::text(name, &in_rule("name"))?;
        }
        let networks = v.get("networks").map(|v| config::number(v, &in_rule("networks"), "${set:ID}")).transpose()?;
        Ok(Rule {
            programs: config::list(v.get("programs"), &in_rule("programs"), config::program)?,
            ports: config::list(v.get("ports"), &in_rule("ports"), config::ports)?,
            networks,
            hosts: config::list(v.get("hosts"), &in_rule("hosts"), pattern)?,
        })
    }

    /// Whether the rule is about such a connection, wherever it goes.
    fn concerns(&self, call: &Call) -> bool {
        let program = self.programs.as_ref().map_or(true, |all| all.iter().any(|p| p.as_bytes() == call.app));
        program && self.ports.as_ref().map_or(true, |all| all.iter().any(|r| r.contains(&call.remote_port)))
    }

    /// Whether it names the address. A rule with neither networks nor hosts names all.
    fn reaches(&self, in_set: InSet) -> Result<bool, host::Error> {
        self.networks.map_or(Ok(self.hosts.is_none()), in_set)
    }

    fn names(&self, host: &str) -> bool {
        self.hosts.iter().flatten().any(|p| match p.strip_prefix('*') {
            Some(end) => host.len() > end.len() && host.ends_with(end),
            None => p == host,
        })
    }
}

/// A host name, or *. and one: every name below it.
fn pattern(v: Value, at: &str) -> Result<String, String> {
    let name = config::text(v, at)?.to_ascii_lowercase();
    let plain = name.strip_prefix("*.").unwrap_or(&name);
    if plain.is_empty() || !plain.bytes().all(|c| c.is_ascii_alphanumeric() || b".-_".contains(&c)) {
        return Err(format!("{at}: {name:?} is no host name such as example.org or *.example.org"));
    }
    Ok(name)
}

impl Peek {
    fn read(v: Value) -> Result<Self, String> {
        config::keys(v, "peek", &["proxy", "pid"])?;
        let proxy = config::text(config::required(v, "peek.", "proxy", "as ${proxy:ID}")?, "peek.proxy")?;
        let pid = config::number(config::required(v, "peek.", "pid", "as ${pid}")?, "peek.pid", "the proxy's process, ${pid}")?;
        let proxy = proxy.parse().map_err(|_| format!("peek.proxy: {proxy:?} is no IPv4 address and port"))?;
        if pid == 0 {
            return Err("peek.pid: expected the proxy's process, ${pid}".into());
        }
        Ok(Peek { proxy, pid })
    }
}

impl AllowList {
    const fn new() -> Self {
        AllowList { rules: Vec::new(), peek: None, context: Vec::new(), record: Vec::new(), said: String::new() }
    }

    fn read(text: &[u8]) -> Result<Self, String> {
        let v = config::read(text)?;
        config::keys(v, "the configuration", &["rules", "peek"])?;
        let rules = config::list(Some(config::required(v, "", "rules", "[] permits nothing")?), "rules", Rule::read)?.unwrap_or_default();
        let peek = v.get("peek").map(Peek::read).transpose()?;
        if let (Some(i), None) = (rules.iter().position(|r| r.hosts.is_some()), &peek) {
            return Err(format!("rules[{i}].hosts: names need peek, a proxy that learns them"));
        }
        if rules.len() > 256 {
            return Err("rules: more than 256".into()); // Their numbers are bytes of the record.
        }
        Ok(AllowList { rules, peek, ..AllowList::new() })
    }

    fn decide<'a>(&'a mut self, call: &Call<'a>, in_set: InSet) -> Verdict<'a> {
        let asks = CONNECT_REDIRECT.contains(&call.layer);
        match call.redirect_state {
            1 | 3 if asks => return proceed(),
            1 | 3 => return self.named(call),
            _ if !asks && self.is_handed_on(call) => return proceed().with_reason("judged by its name when the proxy connects"),
            _ => {}
        }
        for rule in self.rules.iter().filter(|r| r.concerns(call)) {
            match rule.reaches(in_set) {
                Ok(true) => return proceed().with_reason("on the allow list"),
                Ok(false) => {}
                Err(_) => return error("the sets of networks cannot be asked"),
            }
        }
        if asks {
            self.ask_name(call)
        } else {
            self.deny(call)
        }
    }

    /// Whether this is a program's connection to the proxy that its redirect made.
    fn is_handed_on(&self, call: &Call) -> bool {
        self.peek.as_ref().map_or(false, |p| {
            call.flags & REDIRECTED != 0 && v4(&call.remote) == Some((*p.proxy.ip()).into()) && call.remote_port == p.proxy.port()
        })
    }

    /// Sends what a rule with hosts may permit to the proxy, with the rules' numbers.
    fn ask_name<'a>(&'a mut self, call: &Call<'a>) -> Verdict<'a> {
        self.record.clear();
        self.record.extend(self.rules.iter().enumerate().filter(|(_, r)| r.hosts.is_some() && r.concerns(call)).map(|(i, _)| i as u8));
        let (peek, v4) = match (&self.peek, v4(&call.remote)) {
            (Some(peek), Some(v4)) if call.protocol == TCP && !self.record.is_empty() => (peek, v4),
            _ => return proceed(), // AUTH_CONNECT says no: a block counts for nothing here (CH-16).
        };
        self.context.clear();
        self.context.resize(128, 0); // SOCKADDR_STORAGE
        let [a, b, c, d] = peek.proxy.ip().octets();
        let to = if call.version() == Version::V4 {
            self.context[0] = 2; // AF_INET
            self.context[4..8].copy_from_slice(&v4.to_be_bytes());
            redirect([a, b, c, d], peek.proxy.port(), peek.pid)
        } else {
            self.context[0] = 23; // AF_INET6
            self.context[8..24].copy_from_slice(&call.remote);
            redirect([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d], peek.proxy.port(), peek.pid)
        };
        self.context[2..4].copy_from_slice(&call.remote_port.to_be_bytes());
        to.with_context(&self.context).with_record(&self.record)
    }

    /// The proxy's own connection, whose name is known.
    fn named<'a>(&'a mut self, call: &Call<'a>) -> Verdict<'a> {
        let host = String::from_utf8_lossy(call.hostname);
        if host.is_empty() {
            return block("the program did not say by which name, and no rule names the address");
        }
        if call.record.iter().filter_map(|i| self.rules.get(usize::from(*i))).any(|r| r.names(&host)) {
            return proceed().with_reason("on the allow list by its name");
        }
        self.said = format!("{host} is not on the allow list");
        block(&self.said)
    }

    fn deny<'a>(&'a mut self, call: &Call<'a>) -> Verdict<'a> {
        if call.app.is_empty() || !self.rules.iter().any(|r| r.programs.as_ref().map_or(true, |all| all.iter().any(|p| p.as_bytes() == call.app))) {
            return block("no rule of the allow list names this program");
        }
        block("no rule of the allow list names this destination and port for this program")
    }
}

impl Policy for AllowList {
    const OPTIONAL: u32 = abi::CAP_SETS;

    fn configure(&mut self, text: &[u8], _: u32) -> Result<(), &'static str> {
        *self = AllowList::read(text).map_err(config::because)?;
        Ok(())
    }

    fn classify<'a>(&'a mut self, call: &Call<'a>) -> Verdict<'a> {
        self.decide(call, &host::cidr_match)
    }
}

callout::export!(AllowList, AllowList::new());

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"peek": {"proxy": "127.0.0.1:9", "pid": 7}, "rules": [
        {"networks": 0, "ports": [53]},
        {"programs": ["/usr/bin/apt"], "hosts": ["Deb.example", "*.mirror.example"], "ports": ["80-443"]},
        {"programs": ["/usr/bin/curl"], "networks": 1}]}"#;

    fn list() -> AllowList {
        let mut l = AllowList::new();
        l.configure(CONFIG.as_bytes(), 0).unwrap();
        l
    }

    fn call(app: &'static str, port: u16) -> Call<'static> {
        let remote = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 7];
        Call { layer: 48, protocol: TCP, ip_version: 4, remote, remote_port: port, app: app.as_bytes(), ..Call::default() }
    }

    #[test]
    fn what_no_rule_names_is_blocked() {
        let ok = proceed().with_reason("on the allow list");
        let nobody = block("no rule of the allow list names this destination and port for this program");
        for (name, app, port, sets, want) in [
            ("a network for everybody", "/bin/x", 53, &[0][..], ok),
            ("another port", "/bin/x", 54, &[0], nobody),
            ("a program's network", "/usr/bin/curl", 1, &[1], ok),
            ("not another's", "/usr/bin/wget", 1, &[1], nobody),
        ] {
            assert_eq!(list().decide(&call(app, port), &|s| Ok(sets.contains(&s))), want, "{name}");
        }
        assert_eq!(list().decide(&call("/x", 53), &|_| Err(abi::ERR_NOT_FOUND)), error("the sets of networks cannot be asked"));
    }

    #[test]
    fn a_name_is_judged_when_the_proxy_connects() {
        let mut l = list();
        let asked = Call { layer: 66, ..call("/usr/bin/apt", 443) };
        let v = l.decide(&asked, &|_| Ok(false));
        assert!(v.is_redirect());
        assert_eq!(v.record(), [1], "the rules that may permit it");
        for (host, want) in [
            ("deb.example", proceed().with_reason("on the allow list by its name")),
            ("a.mirror.example", proceed().with_reason("on the allow list by its name")),
            ("mirror.example", block("mirror.example is not on the allow list")),
            (".mirror.example", block(".mirror.example is not on the allow list")),
            ("evil-deb.example", block("evil-deb.example is not on the allow list")),
            ("", block("the program did not say by which name, and no rule names the address")),
        ] {
            let own = Call { redirect_state: 1, record: &[1], hostname: host.as_bytes(), ..call("calloutd", 443) };
            assert_eq!(list().decide(&own, &|_| Ok(false)), want, "{host}");
        }
        let other = Call { redirect_state: 1, record: &[0, 9], hostname: b"deb.example", ..call("calloutd", 443) };
        assert_eq!(list().decide(&other, &|_| Ok(false)), block("deb.example is not on the allow list"));
    }

    #[test]
    fn only_a_redirected_connection_reaches_the_proxy() {
        let mut to_proxy = call("/usr/bin/apt", 9);
        to_proxy.remote[12..].copy_from_slice(&[127, 0, 0, 1]);
        assert_eq!(list().decide(&to_proxy, &|_| Ok(false)), block("no rule of the allow list names this destination and port for this program"));
        to_proxy.flags = REDIRECTED;
        assert_eq!(list().decide(&to_proxy, &|_| Ok(false)), proceed().with_reason("judged by its name when the proxy connects"));
    }
}
