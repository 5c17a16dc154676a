//! split-tunnel: named programs leave the machine by another address than the
//! rest, as through a tunnel or around one. See README.md for the configuration.
const std = @import("std");
const callout = @import("callout");
const config = @import("config");

const Way = struct { v4: ?[4]u8 = null, v6: ?[16]u8 = null };
const Rule = struct { programs: []const []const u8, way: Way };

var rules: []Rule = &.{};
var otherwise: ?Way = null;

pub fn configure(text: []const u8, _: u32) ?[]const u8 {
    read(text) catch return config.refusal;
    return null;
}

fn read(text: []const u8) config.Refused!void {
    const keys = try config.object(try config.parse(text), "the configuration", &.{ "rules", "otherwise" });
    const given = try config.list(keys.get("rules") orelse return config.refuse("rules: required", .{}), "rules");
    rules = try config.room(Rule, given.len);
    for (given, rules, 0..) |value, *rule, i| {
        const at = try config.place("rules[{d}]", .{i});
        const of = try config.object(value, at, &.{ "programs", "address", "address6" });
        rule.* = .{ .programs = try programs(of, at), .way = try way(of, at) };
    }
    otherwise = null;
    if (keys.get("otherwise")) |value| otherwise = try way(try config.object(value, "otherwise", &.{ "address", "address6" }), "otherwise");
}

fn programs(of: config.Object, at: []const u8) config.Refused![]const []const u8 {
    const where = try config.place("{s}.programs", .{at});
    const given = try config.list(of.get("programs") orelse return config.refuse("{s}: required", .{where}), where);
    const all = try config.room([]const u8, given.len);
    for (given, all, 0..) |value, *p, i| p.* = try config.program(value, try config.place("{s}[{d}]", .{ where, i }));
    return all;
}

fn way(of: config.Object, at: []const u8) config.Refused!Way {
    var w = Way{};
    if (of.get("address")) |value| {
        const text = try config.string(value, at);
        w.v4 = parse4(text) orelse return config.refuse("{s}.address: \"{s}\" is no IPv4 address", .{ at, text });
    }
    if (of.get("address6")) |value| {
        const text = try config.string(value, at);
        w.v6 = parse6(text) orelse return config.refuse("{s}.address6: \"{s}\" is no IPv6 address", .{ at, text });
    }
    if (w.v4 == null and w.v6 == null) return config.refuse("{s}: address or address6 is required", .{at});
    return w;
}

fn parse4(text: []const u8) ?[4]u8 {
    var out: [4]u8 = undefined;
    var parts = std.mem.split(u8, text, ".");
    for (&out) |*byte| {
        const part = parts.next() orelse return null;
        if (part.len == 0 or part.len > 3 or !std.ascii.isDigit(part[0])) return null;
        byte.* = std.fmt.parseInt(u8, part, 10) catch return null;
    }
    return if (parts.next() == null) out else null;
}

/// Eight groups, of which :: stands for those that are missing.
fn parse6(text: []const u8) ?[16]u8 {
    const gap = std.mem.indexOf(u8, text, "::") orelse {
        var whole: [16]u8 = undefined;
        return if ((groups(text, &whole) orelse return null) == 8) whole else null;
    };
    var head = [_]u8{0} ** 16;
    var tail = [_]u8{0} ** 16;
    const before = groups(text[0..gap], &head) orelse return null;
    const after = groups(text[gap + 2 ..], &tail) orelse return null;
    if (before + after > 7) return null;
    std.mem.copy(u8, head[16 - 2 * after ..], tail[0 .. 2 * after]);
    return head;
}

fn groups(text: []const u8, out: *[16]u8) ?usize {
    if (text.len == 0) return 0;
    var n: usize = 0;
    var parts = std.mem.split(u8, text, ":");
    while (parts.next()) |part| : (n += 1) {
        if (n == 8 or part.len == 0 or part.len > 4 or !std.ascii.isHex(part[0])) return null;
        const group = std.fmt.parseInt(u16, part, 16) catch return null;
        std.mem.writeIntBig(u16, out[2 * n ..][0..2], group);
    }
    return n;
}

/// Which way a program takes, null if that of the system.
fn wayOf(app: []const u8) ?Way {
    for (rules) |rule| {
        for (rule.programs) |p| if (std.mem.eql(u8, p, app)) return rule.way;
    }
    return otherwise;
}

const unspecified = [_]u8{0} ** 16;
const unspecified4 = [_]u8{0} ** 10 ++ [_]u8{ 0xff, 0xff, 0, 0, 0, 0 };
const loopback6 = [_]u8{0} ** 15 ++ [_]u8{1};

pub fn classify(call: *const callout.Call) callout.Verdict {
    // A program that chose an address meant it: loopback, a server's own.
    const v4 = std.mem.eql(u8, &call.local, &unspecified4);
    if (!v4 and !std.mem.eql(u8, &call.local, &unspecified)) return callout.proceed();
    const w = wayOf(call.app) orelse return callout.proceed().withReason("left to the system");
    const there = "by the address of its rule";
    if (v4) {
        if (w.v4) |address| return callout.redirect(address, call.local_port, 0).withReason(there);
        return callout.redirect(.{ 127, 0, 0, 1 }, call.local_port, 0).withReason(nowhere);
    }
    if (w.v6) |address| return callout.redirect6(address, call.local_port, 0).withReason(there);
    return callout.redirect6(loopback6, call.local_port, 0).withReason(nowhere);
}

// Where a rule has no address of a family nothing may leak: from loopback nothing
// outside is reached (BR-02).
const nowhere = "its rule has no address of this family: it reaches this host only";

comptime {
    callout.exportPolicy(@This());
}

const testing = std.testing;

test "addresses" {
    for ([_]struct { text: []const u8, want: ?[16]u8 }{
        .{ .text = "2001:db8::9", .want = .{ 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9 } },
        .{ .text = "::", .want = .{0} ** 16 },
        .{ .text = "1:2:3:4:5:6:7:8", .want = .{ 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8 } },
        .{ .text = "1::", .want = .{ 0, 1 } ++ .{0} ** 14 },
        .{ .text = "1:2:3:4:5:6:7", .want = null },
        .{ .text = "1:2:3:4:5:6:7:8:9", .want = null },
        .{ .text = "1::2::3", .want = null },
        .{ .text = "12345::", .want = null },
        .{ .text = "+1::", .want = null },
        .{ .text = "", .want = null },
    }) |c| try testing.expectEqual(c.want, parse6(c.text));
    for ([_]struct { text: []const u8, want: ?[4]u8 }{
        .{ .text = "10.8.0.2", .want = .{ 10, 8, 0, 2 } },
        .{ .text = "10.8.0", .want = null },
        .{ .text = "10.8.0.2.1", .want = null },
        .{ .text = "10.8.0.256", .want = null },
        .{ .text = "10.8..2", .want = null },
    }) |c| try testing.expectEqual(c.want, parse4(c.text));
}

test "whatever an address looks like, it is read or refused" {
    var random = std.rand.DefaultPrng.init(7);
    for (0..20000) |_| {
        var text: [24]u8 = undefined;
        const n = random.random().uintAtMost(usize, text.len);
        for (text[0..n]) |*c| c.* = "0123456789abf:."[random.random().uintLessThan(usize, 15)];
        _ = parse6(text[0..n]);
        _ = parse4(text[0..n]);
    }
}

test "a program's way, and no other where it has none" {
    try testing.expect(configure("{\"rules\":[{\"programs\":[\"/a\"],\"address\":\"10.8.0.2\"}]}", 0) == null);
    const a = callout.abi;
    const bound = [_]u8{0} ** 10 ++ [_]u8{ 0xff, 0xff, 127, 0, 0, 1 };
    for ([_]struct { app: []const u8, local: [16]u8, action: u16, to: [16]u8 }{
        .{ .app = "/a", .local = unspecified4, .action = a.ACTION_REDIRECT, .to = [_]u8{0} ** 10 ++ [_]u8{ 0xff, 0xff, 10, 8, 0, 2 } },
        .{ .app = "/a", .local = unspecified, .action = a.ACTION_REDIRECT, .to = loopback6 },
        .{ .app = "/a", .local = bound, .action = a.ACTION_CONTINUE, .to = unspecified },
        .{ .app = "/b", .local = unspecified4, .action = a.ACTION_CONTINUE, .to = unspecified },
    }) |c| {
        const v = classify(&.{ .app = c.app, .local = c.local });
        try testing.expectEqual(c.action, v.action);
        try testing.expectEqual(c.to, v.address);
    }
}
