//! The exchange block: requests in, responses out.

use crate::{abi::*, error, Call, Event, Policy, Verdict};

// All of this is inlined into the policy's crate: what a policy does not look at
// is not read.

const REQUEST: usize = RESPONSE_OFFSET as usize;
type Half = [u8; REQUEST];
const HEADER: usize = RESPONSE_HEADER as usize;
const MAX_CONFIG: usize = 65536;

#[repr(C, align(64))]
pub struct Block(pub [Half; 2]);

/// All that an instance has. The configuration comes in chunks.
pub struct Guest<P> {
    pub block: Block,
    policy: P,
    config: [u8; MAX_CONFIG],
    len: usize,
}

impl<P> Guest<P> {
    pub const fn new(policy: P) -> Self {
        Guest { block: Block([[0; REQUEST]; 2]), policy, config: [0; MAX_CONFIG], len: 0 }
    }
}

#[inline(always)]
fn get16(b: &Half, at: u32) -> u16 {
    let at = at as usize;
    u16::from_le_bytes([b[at], b[at + 1]])
}

#[inline(always)]
fn get32(b: &Half, at: u32) -> u32 {
    let at = at as usize;
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

#[inline(always)]
fn get64(b: &Half, at: u32) -> u64 {
    u64::from(get32(b, at)) | u64::from(get32(b, at + 4)) << 32
}

#[inline(always)]
fn put32(b: &mut Half, at: u32, v: u32) {
    b[at as usize..at as usize + 4].copy_from_slice(&v.to_le_bytes());
}

/// An item of the request, or `None` if it is outside. Offset 0 is nothing.
#[inline(always)]
fn item(b: &Half, off: u32, len: u32) -> Option<&[u8]> {
    if len == 0 || off == 0 {
        return Some(&[]);
    }
    let end = u64::from(off) + u64::from(len);
    if off < REQUEST_HEADER || end > u64::from(RESPONSE_OFFSET) {
        return None;
    }
    b.get(off as usize..end as usize)
}

#[inline(always)]
fn item32(b: &Half, at: u32) -> Option<&[u8]> {
    item(b, get32(b, at), get32(b, at + 4))
}

#[inline(always)]
fn address(b: &Half, at: u32) -> [u8; 16] {
    let mut a = [0; 16];
    a.copy_from_slice(&b[at as usize..at as usize + 16]);
    a
}

#[inline(always)]
fn read(b: &Half) -> Option<Call<'_>> {
    Some(Call {
        layer: get16(b, REQ_LAYER),
        protocol: b[REQ_PROTOCOL as usize],
        inbound: b[REQ_DIRECTION as usize] == 1,
        flags: get32(b, REQ_CONDITION_FLAGS),
        connection: get64(b, REQ_CONNECTION),
        filter: get64(b, REQ_FILTER),
        present: get32(b, REQ_PRESENT),
        pid: get32(b, REQ_PID),
        uid: get32(b, REQ_UID),
        ip_version: b[REQ_IP_VERSION as usize],
        redirect_state: b[REQ_REDIRECT_STATE as usize],
        local_port: get16(b, REQ_LOCAL_PORT),
        remote_port: get16(b, REQ_REMOTE_PORT),
        local: address(b, REQ_LOCAL),
        remote: address(b, REQ_REMOTE),
        monotonic: get64(b, REQ_MONOTONIC),
        interface: get32(b, REQ_INTERFACE),
        app: item32(b, REQ_APP)?,
        user: item32(b, REQ_USER)?,
        hostname: item(b, u32::from(get16(b, REQ_HOSTNAME)), u32::from(get16(b, REQ_HOSTNAME + 2)))?,
        record: item32(b, REQ_RECORD)?,
        context: item32(b, REQ_CONTEXT)?,
        context_size: get32(b, REQ_CONTEXT + 4),
    })
}

/// Shortens a text to `n` bytes and keeps its last character whole.
#[inline(always)]
fn cut(s: &str, mut n: usize) -> &str {
    if s.len() <= n {
        return s;
    }
    while !s.is_char_boundary(n) {
        n -= 1;
    }
    &s[..n]
}

/// Copies an item to the response and says where it is. `r` begins at +8192.
#[inline(always)]
fn append(r: &mut Half, at: usize, item: &[u8], off: u32, len: u32) -> usize {
    if !item.is_empty() {
        r[at..at + item.len()].copy_from_slice(item);
    }
    put32(r, off, RESPONSE_OFFSET + at as u32);
    put32(r, len, item.len() as u32);
    at + item.len()
}

/// Writes the response and returns the packed answer.
#[inline(always)]
fn write(r: &mut Half, verdict: Verdict) -> u64 {
    let v = if verdict.record.len() > MAX_RECORD as usize {
        error("the record is over the limit of 3456 bytes")
    } else if verdict.context.len() > MAX_CONTEXT as usize {
        error("the context is over the limit of 4096 bytes")
    } else {
        verdict
    };
    let room = r.len() - HEADER - v.record.len() - v.context.len();
    let reason = cut(v.reason, room.min(MAX_REASON as usize));
    let packed = u64::from(v.action) | u64::from(v.flags) << PACK_FLAGS;
    if !v.is_redirect() && reason.is_empty() && v.cookie == 0 {
        return packed;
    }
    put32(r, RESP_ACTION, u32::from(v.action));
    put32(r, RESP_FLAGS, u32::from(v.flags));
    put32(r, RESP_COOKIE, v.cookie as u32);
    put32(r, RESP_COOKIE + 4, (v.cookie >> 32) as u32);
    if !v.is_redirect() {
        append(r, HEADER, reason.as_bytes(), RESP_REASON, RESP_REASON + 4);
        return packed;
    }
    r[RESP_PORT as usize..RESP_PORT as usize + 2].copy_from_slice(&v.port.to_le_bytes());
    r[RESP_IP_VERSION as usize] = v.ip_version;
    put32(r, RESP_TARGET_PID, v.pid);
    r[RESP_ADDRESS as usize..RESP_ADDRESS as usize + 16].copy_from_slice(&v.address);
    let at = append(r, HEADER, v.record, RESP_RECORD_OFF, RESP_RECORD_LEN);
    let at = append(r, at, v.context, RESP_CONTEXT_OFF, RESP_CONTEXT_LEN);
    append(r, at, reason.as_bytes(), RESP_REASON, RESP_REASON + 4);
    packed | u64::from(v.port) << PACK_PORT | (v.record.len() as u64) << PACK_RECORD
}

/// Answers the request in the block.
#[inline(always)]
pub fn classify<P: Policy>(g: &mut Guest<P>) -> u64 {
    let [request, response] = &mut g.block.0;
    match read(request) {
        Some(call) => write(response, g.policy.classify(&call)),
        None => write(response, error("a request item is outside the request")),
    }
}

/// Takes one chunk of the configuration; the last one ends it.
pub fn init<P: Policy>(g: &mut Guest<P>, arg: u32) -> i32 {
    let n = (arg & !INIT_MORE) as usize;
    let [request, response] = &mut g.block.0;
    let granted = get32(response, INIT_GRANTED);
    let result = if n > request.len() || n > MAX_CONFIG - g.len {
        Err("the configuration is over the limit")
    } else {
        g.config[g.len..g.len + n].copy_from_slice(&request[..n]);
        g.len += n;
        if arg & INIT_MORE != 0 {
            return 0;
        }
        g.policy.configure(&g.config[..g.len], granted)
    };
    match result {
        Ok(()) => 0,
        Err(why) => refuse(response, why),
    }
}

fn refuse(response: &mut Half, why: &str) -> i32 {
    response[..HEADER].fill(0);
    write(response, error(why));
    -1
}

/// Tells the policy of the event in the block.
pub fn notify<P: Policy>(g: &mut Guest<P>, kind: u32) -> i32 {
    let [request, response] = &mut g.block.0;
    let event = Event { kind, layer: get16(request, REQ_LAYER), filter: get64(request, REQ_FILTER), connection: get64(request, REQ_CONNECTION), cookie: get64(response, RESP_COOKIE) };
    match g.policy.notify(&event) {
        Ok(()) => 0,
        Err(why) => refuse(response, why),
    }
}
