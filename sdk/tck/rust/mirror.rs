//! The guest of the TCK: answers by the destination port. See ../mirror.md.
#![no_std]

use callout::{abi, block, error, permit, proceed, redirect, Call, Event, Policy, Verdict};

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    core::arch::wasm32::unreachable()
}

struct Mirror {
    out: [u8; abi::MAX_RECORD as usize + 1],
    len: usize,
    big: [u8; abi::MAX_CONTEXT as usize + 1],
    text: [u8; 1999],
    granted: u32,
    config_len: u32,
    ends: [u8; 32],
}

impl Mirror {
    fn put(&mut self, b: &[u8]) {
        self.out[self.len..self.len + b.len()].copy_from_slice(b);
        self.len += b.len();
    }

    fn item(&mut self, b: &[u8], len: u32) {
        self.put(&len.to_le_bytes());
        self.put(b);
    }

    fn mirror(&mut self, c: &Call) {
        self.len = 0;
        self.put(&c.layer.to_le_bytes());
        self.put(&[c.protocol, c.inbound as u8]);
        self.put(&c.flags.to_le_bytes());
        self.put(&c.connection.to_le_bytes());
        self.put(&c.filter.to_le_bytes());
        self.put(&c.present.to_le_bytes());
        self.put(&c.pid.to_le_bytes());
        self.put(&c.uid.to_le_bytes());
        self.put(&[c.ip_version, c.redirect_state]);
        self.put(&c.local_port.to_le_bytes());
        self.put(&c.remote_port.to_le_bytes());
        self.put(&c.local);
        self.put(&c.remote);
        self.put(&c.monotonic.to_le_bytes());
        self.put(&c.interface.to_le_bytes());
        self.item(c.app, c.app.len() as u32);
        self.item(c.user, c.user.len() as u32);
        self.item(c.hostname, c.hostname.len() as u32);
        self.item(c.record, c.record.len() as u32);
        self.item(c.context, c.context_size);
    }
}

fn to<'a>() -> Verdict<'a> {
    redirect([127, 0, 0, 1], 8080, 77)
}

impl Policy for Mirror {
    const OPTIONAL: u32 = 0xff;

    fn configure(&mut self, config: &[u8], granted: u32) -> Result<(), &'static str> {
        if config.first() == Some(&b'!') {
            return Err("refused");
        }
        self.granted = granted;
        self.config_len = config.len() as u32;
        for (i, c) in config.iter().take(16).enumerate() {
            self.ends[i] = *c;
        }
        for (i, c) in config.iter().rev().take(16).enumerate() {
            self.ends[16 + i] = *c;
        }
        Ok(())
    }

    fn classify<'a>(&'a mut self, c: &Call<'a>) -> Verdict<'a> {
        match c.remote_port {
            1 => permit(),
            2 => block("no such place"),
            3 => proceed(),
            4 => {
                self.mirror(c);
                to().with_record(&self.out[..self.len]).with_context(b"context")
            }
            5 => permit().hard(),
            6 => redirect([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], 8080, 0).no_record(),
            7 => to().with_record(b"again").keep_context(),
            9 => to().with_record(&self.out),
            10 => to().with_context(&self.big),
            11 => {
                self.out.fill(b'r');
                self.big.fill(b'c');
                to().with_record(&self.out[1..]).with_context(&self.big[1..])
            }
            12 => permit().cacheable().with_reason("because"),
            13 => {
                for pair in self.text.chunks_mut(2) {
                    pair.copy_from_slice(&"é".as_bytes()[..pair.len()]);
                }
                self.text.rotate_right(1);
                self.text[0] = b'a';
                block(core::str::from_utf8(&self.text).unwrap_or(""))
            }
            14 => error("it broke"),
            15 => permit().with_cookie(0x8122334455667788),
            _ => {
                self.len = 0;
                self.put(&self.granted.to_le_bytes());
                self.put(&self.config_len.to_le_bytes());
                let ends = self.ends;
                self.put(&ends);
                to().with_record(&self.out[..self.len])
            }
        }
    }

    fn notify(&mut self, e: &Event) -> Result<(), &'static str> {
        if e.kind == abi::EVENT_FILTER_ADDED && e.filter == 0x800000000000000d {
            return Err("no such filter");
        }
        if e.kind == abi::EVENT_FLOW_DELETED && (e.cookie != 0x8122334455667788 || e.layer != 0x44) {
            return Err("no such flow");
        }
        if (e.kind == abi::EVENT_FLOW_ESTABLISHED || e.kind == abi::EVENT_REDIRECT_DONE) && e.connection != 0x9000000000000009 {
            return Err("no such connection");
        }
        Ok(())
    }
}

callout::export!(
    Mirror,
    Mirror {
        out: [0; abi::MAX_RECORD as usize + 1],
        len: 0,
        big: [0; abi::MAX_CONTEXT as usize + 1],
        text: [0; 1999],
        granted: 0,
        config_len: 0,
        ends: [0; 32],
    },
    notify
);
