//! dns-guard: DNS goes to the chosen resolvers, and services that answer DNS over
//! HTTPS are closed. See README.md for the configuration.

#[path = "../config.rs"]
mod config;

use callout::{abi, block, error, host, proceed, Call, Policy, Verdict};

struct Guard {
    resolvers: u32,
    doh: Option<u32>,
    dns_ports: Vec<u16>,
    doh_ports: Vec<u16>,
    programs: Option<Vec<String>>,
}

impl Guard {
    const fn new() -> Self {
        Guard { resolvers: 0, doh: None, dns_ports: Vec::new(), doh_ports: Vec::new(), programs: None }
    }

    fn read(config: &[u8]) -> Result<Self, String> {
        let config = config::read(config)?;
        config::keys(config, "the configuration", &["resolvers", "doh", "dns_ports", "doh_ports", "programs"])?;
        let set = |v, at| config::number(v, at, "${set:ID}");
        let ports = |key| config::list(config.get(key), key, |v, at| config::number(v, at, "a port"));
        Ok(Guard {
            resolvers: set(config::required(config, "", "resolvers", "as ${set:ID}")?, "resolvers")?,
            doh: config.get("doh").map(|v| set(v, "doh")).transpose()?,
            dns_ports: ports("dns_ports")?.unwrap_or_else(|| vec![53, 853]),
            doh_ports: ports("doh_ports")?.unwrap_or_else(|| vec![443]),
            programs: config::list(config.get("programs"), "programs", config::program)?,
        })
    }

    /// What becomes of a connection. `in_set` asks whether it goes to a set.
    fn decide<'a>(&self, call: &Call, in_set: impl Fn(u32) -> Result<bool, host::Error>) -> Verdict<'a> {
        const FAILED: &str = "the sets of addresses cannot be asked";
        let dns = self.dns_ports.contains(&call.remote_port);
        if !dns && !self.doh_ports.contains(&call.remote_port) {
            return proceed();
        }
        match in_set(self.resolvers) {
            Ok(true) => return self.asks(call),
            Ok(false) => {}
            Err(_) => return error(FAILED),
        }
        if dns {
            return block("DNS goes to the chosen resolvers only");
        }
        match self.doh.map(in_set) {
            Some(Ok(true)) => block("this is a service for DNS over HTTPS: DNS goes to the chosen resolvers only"),
            Some(Err(_)) => error(FAILED),
            _ => proceed(),
        }
    }

    /// A connection to a chosen resolver.
    fn asks<'a>(&self, call: &Call) -> Verdict<'a> {
        match &self.programs {
            Some(named) if !named.iter().any(|p| p.as_bytes() == call.app) => block("this program may not ask the resolvers itself"),
            _ => proceed().with_reason("a chosen resolver"),
        }
    }
}

impl Policy for Guard {
    const REQUIRED: u32 = abi::CAP_SETS;

    fn configure(&mut self, config: &[u8], _: u32) -> Result<(), &'static str> {
        *self = Guard::read(config).map_err(config::because)?;
        Ok(())
    }

    fn classify<'a>(&'a mut self, call: &Call<'a>) -> Verdict<'a> {
        self.decide(call, host::cidr_match)
    }
}

callout::export!(Guard, Guard::new());

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(config: &str, app: &str, port: u16, sets: &[u32]) -> Verdict<'static> {
        let call = Call { remote_port: port, app: app.as_bytes(), ..Call::default() };
        let mut guard = Guard::new();
        guard.configure(config.as_bytes(), 0).unwrap();
        guard.decide(&call, |set| Ok(sets.contains(&set)))
    }

    #[test]
    fn only_the_chosen_resolvers_are_asked() {
        let only = block("DNS goes to the chosen resolvers only");
        let doh = block("this is a service for DNS over HTTPS: DNS goes to the chosen resolvers only");
        let chosen = proceed().with_reason("a chosen resolver");
        const SETS: &str = r#"{"resolvers": 0, "doh": 1}"#;
        for (name, port, sets, want) in [
            ("DNS to a chosen one", 53, &[0][..], chosen),
            ("DNS over TLS to a chosen one", 853, &[0], chosen),
            ("DNS over HTTPS to a chosen one", 443, &[0, 1], chosen),
            ("DNS to another", 53, &[], only),
            ("DNS over TLS or QUIC to another", 853, &[1], only),
            ("DNS over HTTPS to another", 443, &[1], doh),
            ("the web", 443, &[], proceed()),
            ("another port of a service", 80, &[1], proceed()),
        ] {
            assert_eq!(verdict(SETS, "/usr/bin/curl", port, sets), want, "{name}");
        }
    }

    #[test]
    fn only_named_programs_ask() {
        const NAMED: &str = r#"{"resolvers": 0, "programs": ["/usr/sbin/unbound"]}"#;
        assert_eq!(verdict(NAMED, "/usr/sbin/unbound", 53, &[0]), proceed().with_reason("a chosen resolver"));
        assert_eq!(verdict(NAMED, "/usr/bin/curl", 53, &[0]), block("this program may not ask the resolvers itself"));
        assert_eq!(verdict(NAMED, "", 53, &[0]), block("this program may not ask the resolvers itself"));
    }

    #[test]
    fn a_set_that_cannot_be_asked_is_a_failure() {
        let guard = Guard::read(br#"{"resolvers": 0, "doh": 7}"#).unwrap();
        let call = Call { remote_port: 443, ..Call::default() };
        assert_eq!(guard.decide(&call, |_| Err(abi::ERR_NOT_FOUND)), error("the sets of addresses cannot be asked"));
        assert_eq!(guard.decide(&call, |set| if set == 0 { Ok(false) } else { Err(abi::ERR_NOT_FOUND) }), error("the sets of addresses cannot be asked"));
    }
}
