//! The guest of the TCK: answers by the destination port. See ../mirror.md.
const std = @import("std");
const callout = @import("callout");
const abi = callout.abi;

pub const optional: u32 = 0xff;

var out: [abi.MAX_RECORD + 1]u8 = undefined;
var len: usize = 0;
var big: [abi.MAX_CONTEXT + 1]u8 = undefined;
var text: [1999]u8 = undefined;
var granted_caps: u32 = 0;
var config_len: u32 = 0;
var ends: [32]u8 = .{0} ** 32;

const cookie: u64 = 0x8122334455667788;

pub fn notify(e: *const callout.Event) ?[]const u8 {
    if (e.kind == abi.EVENT_FILTER_ADDED and e.filter == 0x800000000000000d) return "no such filter";
    if (e.kind == abi.EVENT_FLOW_DELETED and (e.cookie != cookie or e.layer != 0x44)) return "no such flow";
    if ((e.kind == abi.EVENT_FLOW_ESTABLISHED or e.kind == abi.EVENT_REDIRECT_DONE) and e.connection != 0x9000000000000009) return "no such connection";
    return null;
}

pub fn configure(config: []const u8, granted: u32) ?[]const u8 {
    if (config.len > 0 and config[0] == '!') return "refused";
    granted_caps = granted;
    config_len = @intCast(config.len);
    for (0..@min(16, config.len)) |i| {
        ends[i] = config[i];
        ends[16 + i] = config[config.len - 1 - i];
    }
    return null;
}

fn put(b: []const u8) void {
    @memcpy(out[len..][0..b.len], b);
    len += b.len;
}

fn number(v: anytype) void {
    var b: [@sizeOf(@TypeOf(v))]u8 = undefined;
    std.mem.writeIntLittle(@TypeOf(v), &b, v);
    put(&b);
}

fn item(b: []const u8, size: usize) void {
    number(@as(u32, @intCast(size)));
    put(b);
}

fn mirror(c: *const callout.Call) []const u8 {
    len = 0;
    number(c.layer);
    number(c.protocol);
    number(@as(u8, @intFromBool(c.inbound)));
    number(c.flags);
    number(c.connection);
    number(c.filter);
    number(c.present);
    number(c.pid);
    number(c.uid);
    number(c.ip_version);
    number(c.state);
    number(c.local_port);
    number(c.remote_port);
    put(&c.local);
    put(&c.remote);
    number(c.monotonic);
    number(c.interface);
    item(c.app, c.app.len);
    item(c.user, c.user.len);
    item(c.hostname, c.hostname.len);
    item(c.record, c.record.len);
    item(c.context, c.context_size);
    return out[0..len];
}

fn to() callout.Verdict {
    return callout.redirect(.{ 127, 0, 0, 1 }, 8080, 77);
}

pub fn classify(c: *const callout.Call) callout.Verdict {
    switch (c.remote_port) {
        1 => return callout.permit(),
        2 => return callout.block("no such place"),
        3 => return callout.proceed(),
        4 => return to().withRecord(mirror(c)).withContext("context"),
        5 => return callout.permit().withFlags(abi.FLAG_HARD),
        6 => return callout.redirect6(.{ 0x20, 1, 0xd, 0xb8 } ++ .{0} ** 11 ++ .{1}, 8080, 0).withFlags(abi.FLAG_NO_RECORD),
        7 => return to().withRecord("again").withFlags(abi.FLAG_KEEP_CONTEXT),
        8 => return .{},
        9 => return to().withRecord(&out),
        10 => return to().withContext(&big),
        11 => {
            @memset(&out, 'r');
            @memset(&big, 'c');
            return to().withRecord(out[1..]).withContext(big[1..]);
        },
        12 => return callout.permit().withFlags(abi.FLAG_CACHEABLE).withReason("because"),
        13 => {
            text[0] = 'a';
            for (text[1..], 0..) |*b, i| b.* = "é"[i % 2];
            return callout.block(&text);
        },
        15 => return callout.permit().withCookie(cookie),
        14 => return callout.failed("it broke"),
        else => {
            len = 0;
            number(granted_caps);
            number(config_len);
            put(&ends);
            return to().withRecord(out[0..len]);
        },
    }
}

comptime {
    callout.exportPolicy(@This());
}
