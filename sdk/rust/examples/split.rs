//! split: sends HTTPS of the programs under /usr/bin to a local proxy, but for
//! networks on a list.
//!
//! Configuration: "proxy PORT PID" on the first line, then a network such as
//! 198.51.100.0/24 on each line.
#![cfg_attr(target_arch = "wasm32", no_std)]

use callout::{begins, permit, redirect, Call, Policy, State, Verdict};

#[cfg(target_arch = "wasm32")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    core::arch::wasm32::unreachable()
}

struct Split {
    proxy: (u16, u32),
    networks: [(u32, u32); 256], // network and mask
    count: usize,
    record: [u8; 48],
}

/// Reads the next number up to `max`, after anything that is no digit.
fn number(text: &mut &[u8], max: u32) -> Option<u32> {
    let start = text.iter().position(u8::is_ascii_digit)?;
    let digits = &text[start..];
    let end = digits.iter().position(|c| !c.is_ascii_digit()).unwrap_or(digits.len());
    *text = &digits[end..];
    let n = digits[..end].iter().try_fold(0u32, |n, c| n.checked_mul(10)?.checked_add(u32::from(c - b'0')))?;
    (n <= max).then_some(n)
}

impl Split {
    const fn new() -> Self {
        Split { proxy: (0, 0), networks: [(0, 0); 256], count: 0, record: [0; 48] }
    }

    fn listed(&self, address: u32) -> bool {
        self.networks[..self.count].iter().any(|(net, mask)| address & mask == *net)
    }

    /// What is to be known when the proxy's own connection is decided.
    fn remember(&mut self, call: &Call) {
        let r = &mut self.record;
        r[..4].copy_from_slice(b"SPL1");
        r[4..20].copy_from_slice(&call.remote);
        r[20..22].copy_from_slice(&call.remote_port.to_le_bytes());
        r[22] = call.protocol;
        r[23] = call.ip_version;
        r[24..28].copy_from_slice(&call.pid.to_le_bytes());
        r[40..48].copy_from_slice(&call.connection.to_le_bytes());
    }
}

impl Policy for Split {
    fn configure(&mut self, config: &[u8], _: u32) -> Result<(), &'static str> {
        let mut text = config;
        const FIRST: &str = "the first line is not: proxy PORT PID";
        let port = number(&mut text, 65535).ok_or(FIRST)?;
        let pid = number(&mut text, 0x7fff_ffff).filter(|n| *n != 0).ok_or(FIRST)?;
        self.proxy = (port as u16, pid);
        self.count = 0;
        while text.iter().any(u8::is_ascii_digit) {
            const NETWORK: &str = "a network is not like 198.51.100.0/24";
            let mut net = 0;
            for _ in 0..4 {
                net = net << 8 | number(&mut text, 255).ok_or(NETWORK)?;
            }
            let bits = number(&mut text, 32).ok_or(NETWORK)?;
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            *self.networks.get_mut(self.count).ok_or("more than 256 networks")? = (net & mask, mask);
            self.count += 1;
        }
        Ok(())
    }

    #[inline(always)]
    fn classify<'a>(&'a mut self, call: &Call<'a>) -> Verdict<'a> {
        match call.state() {
            State::RedirectedBySelf | State::PreviouslyRedirectedBySelf => return permit().with_reason("the proxy's own connection"),
            _ => {}
        }
        match call.remote_v4() {
            // ::ffff:a.b.c.d of a dual-stack socket is IPv4 too.
            Some(to) if call.protocol == 6 && call.remote_port == 443 && begins(call.app, "/usr/bin/") && !self.listed(to) => {}
            _ => return permit(),
        }
        self.remember(call);
        redirect([127, 0, 0, 1], self.proxy.0, self.proxy.1).with_record(&self.record)
    }
}

callout::export!(Split, Split::new());

#[cfg(test)]
mod tests {
    use super::*;

    fn call(address: [u8; 4], port: u16, app: &str) -> Call<'_> {
        let mut remote = [0; 16];
        remote[10..12].fill(0xff);
        remote[12..].copy_from_slice(&address);
        Call { protocol: 6, ip_version: 4, remote, remote_port: port, app: app.as_bytes(), ..Call::default() }
    }

    fn split() -> Split {
        let mut s = Split::new();
        s.configure(b"proxy 8443 77\n198.51.100.0/24\n203.0.113.0/25\n", 0).unwrap();
        s
    }

    #[test]
    fn programs_of_the_system_are_redirected() {
        let mut s = split();
        let c = call([93, 184, 216, 34], 443, "/usr/bin/curl");
        for c in [c, Call { ip_version: 6, ..c }] {
            // A dual-stack socket's second.
            let v = s.classify(&c);
            assert_eq!(v.record()[4..20], c.remote);
            assert_eq!(v, redirect([127, 0, 0, 1], 8443, 77).with_record(v.record()));
        }
    }

    #[test]
    fn nothing_else_is() {
        let by_self = Call { redirect_state: 1, ..call([93, 184, 216, 34], 443, "/usr/bin/curl") };
        for (name, c) in [
            ("a network on the list", call([198, 51, 100, 7], 443, "/usr/bin/curl")),
            ("another program", call([93, 184, 216, 34], 443, "/opt/browser")),
            ("one whose name only begins so", call([93, 184, 216, 34], 443, "/usr/binary")),
            ("another port", call([93, 184, 216, 34], 80, "/usr/bin/curl")),
            ("UDP", Call { protocol: 17, ..call([93, 184, 216, 34], 443, "/usr/bin/curl") }),
            ("IPv6", Call { ip_version: 6, remote: [0x20; 16], ..call([93, 184, 216, 34], 443, "/usr/bin/curl") }),
        ] {
            assert_eq!(split().classify(&c), permit(), "{name}");
        }
        assert_eq!(split().classify(&by_self), permit().with_reason("the proxy's own connection"));
    }

    #[test]
    fn a_wrong_configuration_is_refused() {
        for text in ["", "proxy 8443 0", "proxy 65536 77", "proxy 8443 77\n198.51.100/24", "proxy 8443 77\n198.51.100.256/24",
            "proxy 8443 77\n198.51.100.0/33", "proxy 99999999999 77"] {
            assert!(Split::new().configure(text.as_bytes(), 0).is_err(), "{text}");
        }
    }
}
