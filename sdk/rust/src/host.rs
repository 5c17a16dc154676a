//! What the host offers. A policy asks for it with [`Policy::REQUIRED`] or
//! [`Policy::OPTIONAL`](crate::Policy::OPTIONAL). An error is one of `abi::ERR_*`.
//!
//! Outside of WebAssembly every function is an error: what a policy does then is
//! for its tests to see.
//!
//! [`Policy::REQUIRED`]: crate::Policy::REQUIRED

/// A number of `abi::ERR_*`.
pub type Error = i32;

#[cfg(target_arch = "wasm32")]
mod sys {
    #[link(wasm_import_module = "callout")]
    extern "C" {
        pub fn log(level: u32, text: *const u8, len: usize) -> i32;
        pub fn random(buf: *mut u8, len: usize) -> i32;
        pub fn wall() -> i64;
        pub fn kv_get(key: *const u8, klen: usize, buf: *mut u8, cap: usize) -> i32;
        pub fn kv_set(key: *const u8, klen: usize, value: *const u8, vlen: usize, ttl: u32) -> i32;
        pub fn kv_del(key: *const u8, klen: usize) -> i32;
        pub fn metric_add(name: *const u8, len: usize, delta: i64) -> i32;
        pub fn cidr_match(set: u32) -> i32;
        pub fn table_lookup(table: u32) -> i32;
        pub fn dns_names(buf: *mut u8, cap: usize) -> i32;
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod sys {
    use crate::abi::ERR_UNSUPPORTED;
    pub unsafe fn log(_: u32, _: *const u8, _: usize) -> i32 {
        ERR_UNSUPPORTED
    }
    pub unsafe fn random(_: *mut u8, _: usize) -> i32 {
        ERR_UNSUPPORTED
    }
    pub unsafe fn wall() -> i64 {
        ERR_UNSUPPORTED as i64
    }
    pub unsafe fn kv_get(_: *const u8, _: usize, _: *mut u8, _: usize) -> i32 {
        ERR_UNSUPPORTED
    }
    pub unsafe fn kv_set(_: *const u8, _: usize, _: *const u8, _: usize, _: u32) -> i32 {
        ERR_UNSUPPORTED
    }
    pub unsafe fn kv_del(_: *const u8, _: usize) -> i32 {
        ERR_UNSUPPORTED
    }
    pub unsafe fn metric_add(_: *const u8, _: usize, _: i64) -> i32 {
        ERR_UNSUPPORTED
    }
    pub unsafe fn cidr_match(_: u32) -> i32 {
        ERR_UNSUPPORTED
    }
    pub unsafe fn table_lookup(_: u32) -> i32 {
        ERR_UNSUPPORTED
    }
    pub unsafe fn dns_names(_: *mut u8, _: usize) -> i32 {
        ERR_UNSUPPORTED
    }
}

fn result(n: i32) -> Result<u32, Error> {
    u32::try_from(n).map_err(|_| n)
}

/// How much a line of the log matters.
#[derive(Clone, Copy)]
pub enum Level {
    Debug,
    Info,
    Warning,
    Error,
}

pub fn log(level: Level, text: &str) -> Result<(), Error> {
    result(unsafe { sys::log(level as u32, text.as_ptr(), text.len()) }).map(|_| ())
}

pub fn random(buf: &mut [u8]) -> Result<(), Error> {
    result(unsafe { sys::random(buf.as_mut_ptr(), buf.len()) }).map(|_| ())
}

/// Nanoseconds since 1970.
pub fn wall() -> Result<i64, Error> {
    match unsafe { sys::wall() } {
        n if n < 0 => Err(n as Error),
        n => Ok(n),
    }
}

/// Reads a value of the store that all instances share.
pub fn kv_get<'a>(key: &[u8], buf: &'a mut [u8]) -> Result<&'a [u8], Error> {
    let n = result(unsafe { sys::kv_get(key.as_ptr(), key.len(), buf.as_mut_ptr(), buf.len()) })?;
    Ok(&buf[..n as usize])
}

/// Writes a value that lasts for `ttl` seconds, or until it is deleted if `ttl` is 0.
pub fn kv_set(key: &[u8], value: &[u8], ttl: u32) -> Result<(), Error> {
    result(unsafe { sys::kv_set(key.as_ptr(), key.len(), value.as_ptr(), value.len(), ttl) }).map(|_| ())
}

pub fn kv_del(key: &[u8]) -> Result<(), Error> {
    result(unsafe { sys::kv_del(key.as_ptr(), key.len()) }).map(|_| ())
}

/// Adds to a counter of the callout.
pub fn metric_add(name: &str, delta: i64) -> Result<(), Error> {
    result(unsafe { sys::metric_add(name.as_ptr(), name.len(), delta) }).map(|_| ())
}

/// Whether the remote address of the request is in a set of the policy.
pub fn cidr_match(set: u32) -> Result<bool, Error> {
    result(unsafe { sys::cidr_match(set) }).map(|n| n != 0)
}

/// The value of the longest prefix of a table that holds the remote address.
pub fn table_lookup(table: u32) -> Result<u32, Error> {
    result(unsafe { sys::table_lookup(table) })
}

/// The names that the host saw resolve to the remote address, each with a zero
/// byte after it.
pub fn dns_names(buf: &mut [u8]) -> Result<&[u8], Error> {
    let n = result(unsafe { sys::dns_names(buf.as_mut_ptr(), buf.len()) })?;
    Ok(&buf[..n as usize])
}
