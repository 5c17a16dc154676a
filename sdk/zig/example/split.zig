//! split: sends HTTPS of the programs under /usr/bin to a local proxy, but for
//! networks on a list.
//!
//! Configuration: "proxy PORT PID" on the first line, then a network such as
//! 198.51.100.0/24 on each line.
const std = @import("std");
const callout = @import("callout");

const Network = struct { net: u32, mask: u32 };

var networks: [256]Network = undefined;
var count: usize = 0;
var proxy_port: u16 = 0;
var proxy_pid: u32 = 0;

/// Reads the next number up to max, after anything that is no digit.
fn number(text: *[]const u8, max: u32) ?u32 {
    const start = std.mem.indexOfAny(u8, text.*, "0123456789") orelse return null;
    const digits = text.*[start..];
    var end: usize = 0;
    while (end < digits.len and std.ascii.isDigit(digits[end])) end += 1;
    text.* = digits[end..];
    const n = std.fmt.parseInt(u32, digits[0..end], 10) catch return null;
    return if (n <= max) n else null;
}

pub fn configure(config: []const u8, _: u32) ?[]const u8 {
    const first = "the first line is not: proxy PORT PID";
    const network = "a network is not like 198.51.100.0/24";
    var text = config;
    proxy_port = @intCast(number(&text, 65535) orelse return first);
    proxy_pid = number(&text, 0x7fff_ffff) orelse return first;
    if (proxy_pid == 0) return first;
    count = 0;
    while (std.mem.indexOfAny(u8, text, "0123456789") != null) {
        var net: u32 = 0;
        for (0..4) |_| net = net << 8 | (number(&text, 255) orelse return network);
        const bits = number(&text, 32) orelse return network;
        const mask: u32 = if (bits == 0) 0 else ~@as(u32, 0) << @intCast(32 - bits);
        if (count == networks.len) return "more than 256 networks";
        networks[count] = .{ .net = net & mask, .mask = mask };
        count += 1;
    }
    return null;
}

fn listed(address: u32) bool {
    for (networks[0..count]) |n| if (address & n.mask == n.net) return true;
    return false;
}

var record = "SPL1".* ++ .{0} ** 44;

/// What is to be known when the proxy's own connection is decided.
fn remember(call: *const callout.Call) []const u8 {
    record[4..20].* = call.remote;
    std.mem.writeIntLittle(u16, record[20..22], call.remote_port);
    record[22] = call.protocol;
    record[23] = call.ip_version;
    std.mem.writeIntLittle(u32, record[24..28], call.pid);
    std.mem.writeIntLittle(u64, record[40..48], call.connection);
    return &record;
}

pub fn classify(call: *const callout.Call) callout.Verdict {
    if (call.bySelf()) return callout.permit().withReason("the proxy's own connection");
    const to = callout.v4(&call.remote) orelse return callout.permit(); // ::ffff:a.b.c.d of a dual-stack socket is IPv4 too.
    if (call.protocol != 6 or call.remote_port != 443 or !std.mem.startsWith(u8, call.app, "/usr/bin/") or listed(to))
        return callout.permit();
    return callout.redirect(.{ 127, 0, 0, 1 }, proxy_port, proxy_pid).withRecord(remember(call));
}

comptime {
    callout.exportPolicy(@This());
}

test "programs of the system are redirected, nothing else is" {
    const abi = callout.abi;
    const curl = callout.Call{ .protocol = 6, .ip_version = 4, .remote_port = 443, .app = "/usr/bin/curl", .remote = .{0} ** 10 ++ .{ 0xff, 0xff, 93, 184, 216, 34 } };
    const Case = struct { name: []const u8, action: u16, change: *const fn (*callout.Call) void };
    const cases = [_]Case{
        .{ .name = "a program of the system", .action = abi.ACTION_REDIRECT, .change = struct {
            fn f(_: *callout.Call) void {}
        }.f },
        .{ .name = "a network on the list", .action = abi.ACTION_PERMIT, .change = struct {
            fn f(c: *callout.Call) void {
                c.remote[12..16].* = .{ 198, 51, 100, 7 };
            }
        }.f },
        .{ .name = "another program", .action = abi.ACTION_PERMIT, .change = struct {
            fn f(c: *callout.Call) void {
                c.app = "/opt/browser";
            }
        }.f },
        .{ .name = "another port", .action = abi.ACTION_PERMIT, .change = struct {
            fn f(c: *callout.Call) void {
                c.remote_port = 80;
            }
        }.f },
        .{ .name = "UDP", .action = abi.ACTION_PERMIT, .change = struct {
            fn f(c: *callout.Call) void {
                c.protocol = 17;
            }
        }.f },
        .{ .name = "IPv6", .action = abi.ACTION_PERMIT, .change = struct {
            fn f(c: *callout.Call) void {
                c.ip_version = 6;
                c.remote[0] = 0x20;
            }
        }.f },
        .{ .name = "a dual-stack socket", .action = abi.ACTION_REDIRECT, .change = struct {
            fn f(c: *callout.Call) void {
                c.ip_version = 6;
            }
        }.f },
        .{ .name = "the proxy's own connection", .action = abi.ACTION_PERMIT, .change = struct {
            fn f(c: *callout.Call) void {
                c.state = abi.STATE_REDIRECTED_BY_SELF;
            }
        }.f },
    };
    try std.testing.expect(configure("proxy 8443 77\n198.51.100.0/24\n203.0.113.0/25\n", 0) == null);
    for (cases) |case| {
        var call = curl;
        case.change(&call);
        const v = classify(&call);
        try std.testing.expectEqual(case.action, v.action);
        if (v.action == abi.ACTION_REDIRECT) {
            try std.testing.expectEqual(@as(u16, 8443), v.port);
            try std.testing.expectEqualSlices(u8, &call.remote, v.record[4..20]);
        }
    }
}

test "a wrong configuration is refused" {
    for ([_][]const u8{ "", "proxy 8443 0", "proxy 65536 77", "proxy 8443 77\n198.51.100/24", "proxy 8443 77\n198.51.100.256/24", "proxy 8443 77\n198.51.100.0/33" }) |text|
        try std.testing.expect(configure(text, 0) != null);
}
