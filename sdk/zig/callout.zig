//! Callouts in Zig: a policy gets a Call and answers with permit, block, proceed
//! (continue is a word of the language) or redirect.
//!
//!     const callout = @import("callout");
//!
//!     pub fn classify(call: *const callout.Call) callout.Verdict {
//!         if (call.remote_port == 80) return callout.block("no plain HTTP");
//!         return callout.proceed();
//!     }
//!
//!     comptime { callout.exportPolicy(@This()); }
//!
//! A policy may also have configure(config: []const u8, granted: u32) ?[]const u8,
//! which returns why it refuses, notify(event: *const Event) ?[]const u8, which hears
//! of filters and flows and may refuse a filter, and the numbers required and optional: the
//! capabilities it asks for. Built for anything but WebAssembly nothing is
//! exported, so that tests call the policy.
const builtin = @import("builtin");
const std = @import("std");

pub const abi = @import("abi.zig");
const wasm = builtin.cpu.arch == .wasm32;

/// One connection to decide. Its bytes are valid during the call only.
pub const Call = struct {
    layer: u16 = 0,
    protocol: u8 = 0,
    inbound: bool = false,
    /// abi.CONDITION_FLAG_*
    flags: u32 = 0,
    connection: u64 = 0,
    filter: u64 = 0,
    /// Which of the fields below are known: abi.PRESENT_*.
    present: u32 = 0,
    pid: u32 = 0,
    uid: u32 = 0,
    /// 4 or 6; a v4-mapped address of an IPv6 socket is 6.
    ip_version: u8 = 0,
    /// abi.STATE_*: who redirected the connection.
    state: u8 = 0,
    local_port: u16 = 0,
    remote_port: u16 = 0,
    /// v4 as v4-mapped.
    local: [16]u8 = .{0} ** 16,
    remote: [16]u8 = .{0} ** 16,
    /// Nanoseconds.
    monotonic: u64 = 0,
    interface: u32 = 0,
    /// Path of the program.
    app: []const u8 = "",
    user: []const u8 = "",
    hostname: []const u8 = "",
    /// What this callout once gave for the connection.
    record: []const u8 = "",
    /// What it gave for the proxy: empty, with a size, where it did not fit.
    context: []const u8 = "",
    context_size: u32 = 0,

    /// Reports whether this callout has redirected the connection.
    pub fn bySelf(call: *const Call) bool {
        return call.state == abi.STATE_REDIRECTED_BY_SELF or call.state == abi.STATE_PREVIOUSLY_REDIRECTED_BY_SELF;
    }
};

/// The IPv4 address of 16 bytes, in host order, if it is one.
pub fn v4(address: *const [16]u8) ?u32 {
    if (!std.mem.eql(u8, address[0..12], &(.{0} ** 10 ++ .{ 0xff, 0xff }))) return null;
    return std.mem.readIntBig(u32, address[12..16]);
}

/// An answer. The empty verdict is an error, never a permit.
pub const Verdict = struct {
    action: u16 = abi.ACTION_INVALID,
    flags: u16 = 0,
    port: u16 = 0,
    ip_version: u8 = 0,
    pid: u32 = 0,
    address: [16]u8 = .{0} ** 16,
    cookie: u64 = 0,
    record: []const u8 = "",
    context: []const u8 = "",
    reason: []const u8 = "",

    /// Adds bytes that come back when the proxy's own connection is decided.
    pub fn withRecord(v: Verdict, record: []const u8) Verdict {
        var out = v;
        out.record = record;
        return out;
    }

    /// Adds bytes for the proxy.
    pub fn withContext(v: Verdict, context: []const u8) Verdict {
        var out = v;
        out.context = context;
        return out;
    }

    /// Says why, for the trace.
    pub fn withReason(v: Verdict, reason: []const u8) Verdict {
        var out = v;
        out.reason = reason;
        return out;
    }

    /// Makes a number, not zero, the context of an established flow: it comes back
    /// in the event abi.EVENT_FLOW_DELETED.
    pub fn withCookie(v: Verdict, cookie: u64) Verdict {
        var out = v;
        out.cookie = cookie;
        return out;
    }

    /// Adds abi.FLAG_*, such as FLAG_HARD.
    pub fn withFlags(v: Verdict, flags: u16) Verdict {
        var out = v;
        out.flags |= flags;
        return out;
    }
};

/// What a policy hears of that has notify.
pub const Event = struct {
    /// abi.EVENT_*
    kind: u32 = 0,
    layer: u16 = 0,
    /// Of an event about a filter, else for which the callout decided.
    filter: u64 = 0,
    /// Of abi.EVENT_FLOW_ESTABLISHED and abi.EVENT_REDIRECT_DONE, as of the call.
    connection: u64 = 0,
    /// Of a flow.
    cookie: u64 = 0,
};

/// Lets the connection pass.
pub fn permit() Verdict {
    return .{ .action = abi.ACTION_PERMIT };
}

/// Refuses it; reason is what the user reads.
pub fn block(reason: []const u8) Verdict {
    return .{ .action = abi.ACTION_BLOCK, .reason = reason };
}

/// Continue: leaves the decision to the next filter.
pub fn proceed() Verdict {
    return .{ .action = abi.ACTION_CONTINUE };
}

/// Says that the callout failed. The connection is blocked.
pub fn failed(reason: []const u8) Verdict {
    return .{ .action = abi.ACTION_GUEST_ERROR, .reason = reason };
}

/// Sends it to a proxy: pid is the proxy's process, not zero for one on this host.
pub fn redirect(address: [4]u8, port: u16, pid: u32) Verdict {
    var v = redirect6(.{0} ** 10 ++ .{ 0xff, 0xff } ++ address, port, pid);
    v.ip_version = 4;
    return v;
}

pub fn redirect6(address: [16]u8, port: u16, pid: u32) Verdict {
    return .{ .action = abi.ACTION_REDIRECT, .ip_version = 6, .address = address, .port = port, .pid = pid };
}

const request_end = abi.RESPONSE_OFFSET;
const header = abi.RESPONSE_HEADER;

inline fn get(comptime T: type, b: []const u8, at: u32) T {
    return std.mem.readIntLittle(T, b[at..][0..@sizeOf(T)]);
}

inline fn put(b: []u8, at: u32, v: u32) void {
    std.mem.writeIntLittle(u32, b[at..][0..4], v);
}

/// An item of the request, or null if it is outside. Offset 0 is nothing.
inline fn item(b: []const u8, off: u32, len: u32) ?[]const u8 {
    if (len == 0 or off == 0) return "";
    const end = @as(u64, off) + len;
    if (off < abi.REQUEST_HEADER or end > request_end) return null;
    return b[off..@intCast(end)];
}

inline fn item32(b: []const u8, at: u32) ?[]const u8 {
    return item(b, get(u32, b, at), get(u32, b, at + 4));
}

inline fn read(b: []const u8, c: *Call) bool {
    c.* = .{
        .layer = get(u16, b, abi.REQ_LAYER),
        .protocol = b[abi.REQ_PROTOCOL],
        .inbound = b[abi.REQ_DIRECTION] == 1,
        .flags = get(u32, b, abi.REQ_CONDITION_FLAGS),
        .connection = get(u64, b, abi.REQ_CONNECTION),
        .filter = get(u64, b, abi.REQ_FILTER),
        .present = get(u32, b, abi.REQ_PRESENT),
        .pid = get(u32, b, abi.REQ_PID),
        .uid = get(u32, b, abi.REQ_UID),
        .ip_version = b[abi.REQ_IP_VERSION],
        .state = b[abi.REQ_REDIRECT_STATE],
        .local_port = get(u16, b, abi.REQ_LOCAL_PORT),
        .remote_port = get(u16, b, abi.REQ_REMOTE_PORT),
        .local = b[abi.REQ_LOCAL..][0..16].*,
        .remote = b[abi.REQ_REMOTE..][0..16].*,
        .monotonic = get(u64, b, abi.REQ_MONOTONIC),
        .interface = get(u32, b, abi.REQ_INTERFACE),
        .app = item32(b, abi.REQ_APP) orelse return false,
        .user = item32(b, abi.REQ_USER) orelse return false,
        .hostname = item(b, get(u16, b, abi.REQ_HOSTNAME), get(u16, b, abi.REQ_HOSTNAME + 2)) orelse return false,
        .record = item32(b, abi.REQ_RECORD) orelse return false,
        .context = item32(b, abi.REQ_CONTEXT) orelse return false,
        .context_size = get(u32, b, abi.REQ_CONTEXT + 4),
    };
    return true;
}

/// Shortens a text to n bytes and keeps its last character whole.
inline fn cut(s: []const u8, n: usize) []const u8 {
    if (s.len <= n) return s;
    var end = n;
    while (end > 0 and s[end] & 0xc0 == 0x80) end -= 1;
    return s[0..end];
}

/// Copies an item to the response and says where it is. r begins at +8192.
inline fn append(r: []u8, at: u32, bytes: []const u8, off: u32, len: u32) u32 {
    if (bytes.len != 0) @memcpy(r[at..][0..bytes.len], bytes);
    put(r, off, abi.RESPONSE_OFFSET + at);
    put(r, len, @intCast(bytes.len));
    return at + @as(u32, @intCast(bytes.len));
}

inline fn checked(v: Verdict) Verdict {
    if (v.action == abi.ACTION_INVALID) return failed("the callout gave no verdict");
    if (v.record.len > abi.MAX_RECORD) return failed("the record is over the limit of 3456 bytes");
    if (v.context.len > abi.MAX_CONTEXT) return failed("the context is over the limit of 4096 bytes");
    return v;
}

/// Writes the response and returns the packed answer.
inline fn write(r: []u8, verdict: Verdict) u64 {
    const v = checked(verdict);
    const room = r.len - header - v.record.len - v.context.len;
    const reason = cut(v.reason, @min(room, abi.MAX_REASON));
    const packed_answer = @as(u64, v.action) | @as(u64, v.flags) << abi.PACK_FLAGS;
    const redirects = v.action == abi.ACTION_REDIRECT;
    if (!redirects and reason.len == 0 and v.cookie == 0) return packed_answer;
    put(r, abi.RESP_ACTION, v.action);
    put(r, abi.RESP_FLAGS, v.flags);
    std.mem.writeIntLittle(u64, r[abi.RESP_COOKIE..][0..8], v.cookie);
    if (!redirects) {
        _ = append(r, header, reason, abi.RESP_REASON, abi.RESP_REASON + 4);
        return packed_answer;
    }
    std.mem.writeIntLittle(u16, r[abi.RESP_PORT..][0..2], v.port);
    r[abi.RESP_IP_VERSION] = v.ip_version;
    put(r, abi.RESP_TARGET_PID, v.pid);
    r[abi.RESP_ADDRESS..][0..16].* = v.address;
    var at = append(r, header, v.record, abi.RESP_RECORD_OFF, abi.RESP_RECORD_LEN);
    at = append(r, at, v.context, abi.RESP_CONTEXT_OFF, abi.RESP_CONTEXT_LEN);
    _ = append(r, at, reason, abi.RESP_REASON, abi.RESP_REASON + 4);
    return packed_answer | @as(u64, v.port) << abi.PACK_PORT | @as(u64, v.record.len) << abi.PACK_RECORD;
}

const max_config = 65536;

/// Defines the exports of the ABI for a policy, when built for WebAssembly.
pub fn exportPolicy(comptime Policy: type) void {
    if (!wasm) return;
    const exports = struct {
        var exchange: [abi.BLOCK_SIZE]u8 align(abi.BLOCK_ALIGN) = undefined;
        var config: [max_config]u8 = undefined;
        var config_len: usize = 0;

        fn marker() callconv(.C) [*]u8 {
            return &exchange;
        }

        fn caps() callconv(.C) u64 {
            const required: u32 = if (@hasDecl(Policy, "required")) Policy.required else 0;
            const optional: u32 = if (@hasDecl(Policy, "optional")) Policy.optional else 0;
            return required | @as(u64, optional) << 32;
        }

        fn classify() callconv(.C) u64 {
            var call: Call = undefined;
            const response = exchange[abi.RESPONSE_OFFSET..];
            if (!read(exchange[0..request_end], &call)) return write(response, failed("a request item is outside the request"));
            return write(response, Policy.classify(&call));
        }

        fn take(arg: u32) ?[]const u8 {
            const n = arg & ~abi.INIT_MORE;
            const granted = get(u32, &exchange, abi.RESPONSE_OFFSET + abi.INIT_GRANTED);
            if (n > abi.INIT_CHUNK or n > max_config - config_len) return "the configuration is over the limit";
            @memcpy(config[config_len..][0..n], exchange[0..n]);
            config_len += n;
            if (arg & abi.INIT_MORE != 0) return null;
            if (@hasDecl(Policy, "configure")) return Policy.configure(config[0..config_len], granted);
            return if (config_len == 0) null else "this callout takes no configuration";
        }

        fn init(arg: u32) callconv(.C) i32 {
            return refuse(take(arg) orelse return 0);
        }

        fn refuse(why: []const u8) i32 {
            const response = exchange[abi.RESPONSE_OFFSET..];
            @memset(response[0..header], 0);
            _ = write(response, failed(why));
            return -1;
        }

        fn notify(kind: u32) callconv(.C) i32 {
            const event = Event{
                .kind = kind,
                .layer = get(u16, &exchange, abi.REQ_LAYER),
                .filter = get(u64, &exchange, abi.REQ_FILTER),
                .connection = get(u64, &exchange, abi.REQ_CONNECTION),
                .cookie = get(u64, &exchange, abi.RESPONSE_OFFSET + abi.RESP_COOKIE),
            };
            return refuse(Policy.notify(&event) orelse return 0);
        }
    };
    @export(exports.marker, .{ .name = "callout_abi_v1" });
    @export(exports.caps, .{ .name = "callout_caps" });
    @export(exports.classify, .{ .name = "callout_classify" });
    @export(exports.init, .{ .name = "callout_init" });
    if (@hasDecl(Policy, "notify")) @export(exports.notify, .{ .name = "callout_notify" });
}

/// What the host offers. A result below zero is one of abi.ERR_*. Outside of
/// WebAssembly every function answers ERR_UNSUPPORTED.
pub const host = if (wasm) struct {
    pub extern "callout" fn log(level: u32, text: [*]const u8, len: u32) i32;
    pub extern "callout" fn random(buf: [*]u8, len: u32) i32;
    pub extern "callout" fn wall() i64;
    pub extern "callout" fn kv_get(key: [*]const u8, klen: u32, buf: [*]u8, cap: u32) i32;
    pub extern "callout" fn kv_set(key: [*]const u8, klen: u32, value: [*]const u8, vlen: u32, ttl: u32) i32;
    pub extern "callout" fn kv_del(key: [*]const u8, klen: u32) i32;
    pub extern "callout" fn metric_add(name: [*]const u8, len: u32, delta: i64) i32;
    pub extern "callout" fn cidr_match(set: u32) i32;
    pub extern "callout" fn table_lookup(table: u32) i32;
    pub extern "callout" fn dns_names(buf: [*]u8, cap: u32) i32;
} else struct {
    pub fn log(_: u32, _: [*]const u8, _: u32) i32 {
        return abi.ERR_UNSUPPORTED;
    }
    pub fn random(_: [*]u8, _: u32) i32 {
        return abi.ERR_UNSUPPORTED;
    }
    pub fn wall() i64 {
        return abi.ERR_UNSUPPORTED;
    }
    pub fn kv_get(_: [*]const u8, _: u32, _: [*]u8, _: u32) i32 {
        return abi.ERR_UNSUPPORTED;
    }
    pub fn kv_set(_: [*]const u8, _: u32, _: [*]const u8, _: u32, _: u32) i32 {
        return abi.ERR_UNSUPPORTED;
    }
    pub fn kv_del(_: [*]const u8, _: u32) i32 {
        return abi.ERR_UNSUPPORTED;
    }
    pub fn metric_add(_: [*]const u8, _: u32, _: i64) i32 {
        return abi.ERR_UNSUPPORTED;
    }
    pub fn cidr_match(_: u32) i32 {
        return abi.ERR_UNSUPPORTED;
    }
    pub fn table_lookup(_: u32) i32 {
        return abi.ERR_UNSUPPORTED;
    }
    pub fn dns_names(_: [*]u8, _: u32) i32 {
        return abi.ERR_UNSUPPORTED;
    }
};
