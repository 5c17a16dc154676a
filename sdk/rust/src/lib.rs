//! Callouts in Rust: a policy gets a [`Call`] and answers with [`permit`], [`block`],
//! [`proceed`] (continue is a word of the language) or [`redirect`].
//!
//! ```
//! use callout::{block, proceed, Call, Policy, Verdict};
//!
//! struct NoHttp;
//!
//! impl Policy for NoHttp {
//!     fn classify<'a>(&'a mut self, call: &Call<'a>) -> Verdict<'a> {
//!         if call.remote_port == 80 {
//!             return block("no plain HTTP");
//!         }
//!         proceed()
//!     }
//! }
//!
//! callout::export!(NoHttp, NoHttp);
//! ```
//!
//! The crate needs neither `std` nor an allocator. Built for WebAssembly
//! [`export!`] defines the exports of the ABI; built for anything else it defines
//! none, so that tests call the policy.
#![no_std]

pub mod abi;
pub mod host;
pub mod json;
mod wire;

/// The family of an address as the socket has it: a v4-mapped address of an IPv6
/// socket is `V6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V4,
    V6,
}

/// Who redirected a connection: FWPS_CONNECTION_REDIRECT_STATE for this callout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum State {
    #[default]
    NotRedirected,
    RedirectedBySelf,
    RedirectedByOther,
    PreviouslyRedirectedBySelf,
}

/// One connection to decide. Its bytes are valid during the call only.
#[derive(Clone, Copy, Debug, Default)]
pub struct Call<'a> {
    pub layer: u16,
    pub protocol: u8,
    pub inbound: bool,
    /// abi::CONDITION_FLAG_*
    pub flags: u32,
    pub connection: u64,
    pub filter: u64,
    /// Which of the fields below are known: `abi::PRESENT_*`.
    pub present: u32,
    pub pid: u32,
    pub uid: u32,
    /// 4 or 6.
    pub ip_version: u8,
    /// `abi::STATE_*`; [`Call::state`] has it as a [`State`].
    pub redirect_state: u8,
    pub local_port: u16,
    pub remote_port: u16,
    /// v4 as v4-mapped.
    pub local: [u8; 16],
    /// v4 as v4-mapped.
    pub remote: [u8; 16],
    /// Nanoseconds.
    pub monotonic: u64,
    pub interface: u32,
    /// Path of the program.
    pub app: &'a [u8],
    pub user: &'a [u8],
    pub hostname: &'a [u8],
    /// What this callout once gave for the connection.
    pub record: &'a [u8],
    /// What it gave for the proxy: empty, with a size, where it did not fit.
    pub context: &'a [u8],
    pub context_size: u32,
}

impl Call<'_> {
    #[inline]
    pub fn state(&self) -> State {
        match u32::from(self.redirect_state) {
            abi::STATE_REDIRECTED_BY_SELF => State::RedirectedBySelf,
            abi::STATE_REDIRECTED_BY_OTHER => State::RedirectedByOther,
            abi::STATE_PREVIOUSLY_REDIRECTED_BY_SELF => State::PreviouslyRedirectedBySelf,
            _ => State::NotRedirected,
        }
    }

    /// Whether this callout has redirected the connection, which is then its proxy's
    /// own: it must not be sent to the proxy again.
    #[inline]
    pub fn by_self(&self) -> bool {
        matches!(self.state(), State::RedirectedBySelf | State::PreviouslyRedirectedBySelf)
    }

    #[inline]
    pub fn version(&self) -> Version {
        if self.ip_version == 4 {
            Version::V4
        } else {
            Version::V6
        }
    }

    /// The remote IPv4 address, or that in a v4-mapped one.
    #[inline]
    pub fn remote_v4(&self) -> Option<u32> {
        v4(&self.remote)
    }
}

/// The IPv4 address of 16 bytes, if it is one.
#[inline]
pub fn v4(address: &[u8; 16]) -> Option<u32> {
    let mapped = word(address) == 0 && address[8..12] == [0, 0, 0xff, 0xff];
    mapped.then(|| (word(&address[8..]) >> 32) as u32).map(u32::swap_bytes)
}

/// The first eight bytes as a little-endian number. It must have them.
#[inline(always)]
fn word(b: &[u8]) -> u64 {
    let mut w = [0; 8];
    w.copy_from_slice(&b[..8]);
    u64::from_le_bytes(w)
}

/// Whether bytes begin with a text: `starts_with`, eight bytes at a time. WebAssembly
/// has no instruction that compares memory, and the library's function goes byte by byte.
#[inline(always)]
pub fn begins(bytes: &[u8], prefix: &str) -> bool {
    let (prefix, mut i) = (prefix.as_bytes(), 0);
    if bytes.len() < prefix.len() {
        return false;
    }
    while prefix.len() - i >= 8 {
        if word(&bytes[i..]) != word(&prefix[i..]) {
            return false;
        }
        i += 8;
    }
    while i < prefix.len() {
        if bytes[i] != prefix[i] {
            return false;
        }
        i += 1;
    }
    true
}

/// An answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict<'a> {
    action: u16,
    flags: u16,
    port: u16,
    ip_version: u8,
    pid: u32,
    address: [u8; 16],
    cookie: u64,
    record: &'a [u8],
    context: &'a [u8],
    reason: &'a str,
}

#[inline]
fn answer<'a>(action: u32) -> Verdict<'a> {
    Verdict { action: action as u16, ..Verdict::default() }
}

/// Lets the connection pass.
#[inline]
pub fn permit<'a>() -> Verdict<'a> {
    answer(abi::ACTION_PERMIT)
}

/// Refuses it; `reason` is what the user reads.
#[inline]
pub fn block(reason: &str) -> Verdict<'_> {
    answer(abi::ACTION_BLOCK).with_reason(reason)
}

/// Continue: leaves the decision to the next filter.
#[inline]
pub fn proceed<'a>() -> Verdict<'a> {
    answer(abi::ACTION_CONTINUE)
}

/// Says that the callout failed. The connection is blocked.
#[inline]
pub fn error(reason: &str) -> Verdict<'_> {
    answer(abi::ACTION_GUEST_ERROR).with_reason(reason)
}

/// Sends it to a proxy: `pid` is the proxy's process, not zero for one on this host.
#[inline]
pub fn redirect<'a>(to: impl Into<Address>, port: u16, pid: u32) -> Verdict<'a> {
    let to = to.into();
    Verdict { port, pid, ip_version: to.ip_version, address: to.bytes, ..answer(abi::ACTION_REDIRECT) }
}

/// Where a connection is redirected to: four bytes are IPv4, sixteen are IPv6.
pub struct Address {
    ip_version: u8,
    bytes: [u8; 16],
}

impl From<[u8; 4]> for Address {
    #[inline]
    fn from(a: [u8; 4]) -> Self {
        let bytes = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a[0], a[1], a[2], a[3]];
        Address { ip_version: 4, bytes }
    }
}

impl From<[u8; 16]> for Address {
    #[inline]
    fn from(bytes: [u8; 16]) -> Self {
        Address { ip_version: 6, bytes }
    }
}

impl<'a> Verdict<'a> {
    /// Adds bytes that come back when the proxy's own connection is decided.
    #[inline]
    pub fn with_record(self, record: &'a [u8]) -> Self {
        Verdict { record, ..self }
    }

    /// Adds bytes for the proxy.
    #[inline]
    pub fn with_context(self, context: &'a [u8]) -> Self {
        Verdict { context, ..self }
    }

    /// Says why, for the trace.
    #[inline]
    pub fn with_reason(self, reason: &'a str) -> Self {
        Verdict { reason, ..self }
    }

    /// Makes a number, not zero, the context of an established flow: it comes back in
    /// the event `abi::EVENT_FLOW_DELETED`.
    #[inline]
    pub fn with_cookie(self, cookie: u64) -> Self {
        Verdict { cookie, ..self }
    }

    #[inline]
    fn flag(self, flag: u32) -> Self {
        Verdict { flags: self.flags | flag as u16, ..self }
    }

    /// Takes the right away from lighter sublayers to change the decision.
    #[inline]
    pub fn hard(self) -> Self {
        self.flag(abi::FLAG_HARD)
    }

    /// Keeps the context that the connection has.
    #[inline]
    pub fn keep_context(self) -> Self {
        self.flag(abi::FLAG_KEEP_CONTEXT)
    }

    /// Redirects without a redirect handle, as for a proxy on another host.
    #[inline]
    pub fn no_record(self) -> Self {
        self.flag(abi::FLAG_NO_RECORD)
    }

    /// Says that equal inputs get the same answer.
    #[inline]
    pub fn cacheable(self) -> Self {
        self.flag(abi::FLAG_CACHEABLE)
    }

    #[inline]
    pub fn is_redirect(&self) -> bool {
        u32::from(self.action) == abi::ACTION_REDIRECT
    }

    /// The bytes that come back, for tests.
    pub fn record(&self) -> &'a [u8] {
        self.record
    }
}

/// What a policy hears of that is exported with `notify`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Event {
    /// `abi::EVENT_*`
    pub kind: u32,
    pub layer: u16,
    /// Of an event about a filter, else for which the callout decided.
    pub filter: u64,
    /// Of `abi::EVENT_FLOW_ESTABLISHED` and `abi::EVENT_REDIRECT_DONE`, as of the call.
    pub connection: u64,
    /// Of a flow.
    pub cookie: u64,
}

/// A policy decides connections.
pub trait Policy {
    /// The capabilities it cannot do without, and those it can: `abi::CAP_*`.
    const REQUIRED: u32 = 0;
    const OPTIONAL: u32 = 0;

    /// Takes the configuration, once, before any call. `granted` are the
    /// capabilities that it has. Without it a policy takes no configuration.
    fn configure(&mut self, config: &[u8], granted: u32) -> Result<(), &'static str> {
        let _ = granted;
        if config.is_empty() {
            Ok(())
        } else {
            Err("this callout takes no configuration")
        }
    }

    fn classify<'a>(&'a mut self, call: &Call<'a>) -> Verdict<'a>;

    /// Hears of filters, flows and redirects, if the policy is exported with `notify`. An error
    /// refuses a filter that is added.
    fn notify(&mut self, event: &Event) -> Result<(), &'static str> {
        let _ = event;
        Ok(())
    }
}

#[doc(hidden)]
pub use wire::{classify, init, notify, Block, Guest};

/// Defines the exports of the ABI for a policy: its type and its first value,
/// which is a constant. In a crate without `std` it also defines what a panic
/// does: a trap, which blocks. With `notify` after them the policy hears of events.
#[macro_export]
macro_rules! export {
    (@ $policy:ty, $first:expr, $($more:item)*) => {
        #[cfg(target_arch = "wasm32")]
        mod callout_exports {
            use super::*;

            static mut GUEST: $crate::Guest<$policy> = $crate::Guest::new($first);

            #[no_mangle]
            pub unsafe extern "C" fn callout_abi_v1() -> *mut $crate::Block {
                core::ptr::addr_of_mut!(GUEST.block)
            }

            #[no_mangle]
            pub extern "C" fn callout_caps() -> u64 {
                u64::from(<$policy as $crate::Policy>::REQUIRED) | u64::from(<$policy as $crate::Policy>::OPTIONAL) << 32
            }

            #[no_mangle]
            pub unsafe extern "C" fn callout_init(arg: u32) -> i32 {
                $crate::init(&mut *core::ptr::addr_of_mut!(GUEST), arg)
            }

            #[no_mangle]
            pub unsafe extern "C" fn callout_classify() -> u64 {
                $crate::classify(&mut *core::ptr::addr_of_mut!(GUEST))
            }

            $($more)*
        }
    };
    ($policy:ty, $first:expr) => {
        $crate::export!(@ $policy, $first,);
    };
    ($policy:ty, $first:expr, notify) => {
        $crate::export!(@ $policy, $first,
            #[no_mangle]
            pub unsafe extern "C" fn callout_notify(kind: u32) -> i32 {
                $crate::notify(&mut *core::ptr::addr_of_mut!(GUEST), kind)
            }
        );
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_connection_it_is() {
        for redirect_state in 0..4 {
            let call = Call { redirect_state, ..Call::default() };
            assert_eq!(call.by_self(), redirect_state == 1 || redirect_state == 3);
        }
    }
}
