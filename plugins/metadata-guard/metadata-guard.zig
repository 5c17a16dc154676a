//! metadata-guard: cloud metadata services hand out credentials to whoever asks,
//! so that only named programs may ask. See README.md for the configuration.
const std = @import("std");
const callout = @import("callout");
const config = @import("config");

pub const required = callout.abi.CAP_SETS;

const Allowed = struct { program: []const u8, user: ?u32 };

var set: u32 = 0;
var allowed: []Allowed = &.{};
var open_ports: []const u16 = &.{};

pub fn configure(text: []const u8, _: u32) ?[]const u8 {
    read(text) catch return config.refusal;
    return null;
}

fn read(text: []const u8) config.Refused!void {
    const keys = try config.object(try config.parse(text), "the configuration", &.{ "endpoints", "allow", "open_ports" });
    set = try config.number(u31, keys.get("endpoints") orelse return config.refuse("endpoints: required, as ${{set:ID}}", .{}), "endpoints");
    const rules = try config.list(keys.get("allow") orelse return config.refuse("allow: required; [] is nobody", .{}), "allow");
    allowed = try config.room(Allowed, rules.len);
    for (rules, allowed, 0..) |rule, *a, i| a.* = try allow(rule, try config.place("allow[{d}]", .{i}));
    open_ports = &[_]u16{ 53, 123 };
    const given = try config.list(keys.get("open_ports") orelse return, "open_ports");
    const ports = try config.room(u16, given.len);
    for (given, ports) |value, *p| p.* = try config.number(u16, value, "open_ports");
    open_ports = ports;
}

fn allow(rule: config.Value, at: []const u8) config.Refused!Allowed {
    const keys = try config.object(rule, at, &.{ "program", "user" });
    const path = keys.get("program") orelse return config.refuse("{s}.program: required", .{at});
    const program = try config.program(path, try config.place("{s}.program", .{at}));
    const user = keys.get("user") orelse return .{ .program = program, .user = null };
    return .{ .program = program, .user = try config.number(u32, user, try config.place("{s}.user", .{at})) };
}

pub fn classify(call: *const callout.Call) callout.Verdict {
    switch (callout.host.cidr_match(set)) {
        0 => return callout.proceed(),
        1 => {},
        else => return callout.failed("the set of endpoints cannot be asked"),
    }
    for (open_ports) |port| if (call.remote_port == port) return callout.proceed();
    return judge(call);
}

/// What becomes of a connection to a metadata service. An unknown program or user
/// is none of the named ones.
fn judge(call: *const callout.Call) callout.Verdict {
    const known = call.present & callout.abi.PRESENT_UID != 0;
    var named = false;
    for (allowed) |a| {
        if (!std.mem.eql(u8, a.program, call.app)) continue;
        named = true;
        const user = a.user orelse return callout.proceed().withReason("a program that may ask the metadata service");
        if (known and user == call.uid) return callout.proceed().withReason("a program and a user that may ask the metadata service");
    }
    return callout.block(if (named) "this program may ask the cloud metadata service as another user only" else "only named programs may ask the cloud metadata service");
}

comptime {
    callout.exportPolicy(@This());
}

const testing = std.testing;

fn expectRefused(text: []const u8, why: []const u8) !void {
    try testing.expectEqualStrings(why, configure(text, 0) orelse "");
}

test "a wrong configuration is refused with its key" {
    try expectRefused("{\"allow\":[]}", "endpoints: required, as ${set:ID}");
    try expectRefused("{\"endpoints\":0}", "allow: required; [] is nobody");
    try expectRefused("{\"endpoints\":0,\"allow\":[{\"program\":\"cloud-init\"}]}", "allow[0].program: \"cloud-init\" is not a whole path such as /usr/bin/curl");
    try expectRefused("{\"endpoints\":0,\"allow\":[{\"program\":\"/x\",\"user\":-1}]}", "allow[0].user: -1 is not in 0-4294967295");
    try expectRefused("{\"endpoints\":0,\"allow\":[{\"user\":1}]}", "allow[0].program: required");
    try expectRefused("{\"endpoints\":0,\"allow\":[],\"port\":1}", "the configuration has no key \"port\"");
    try expectRefused("{\"endpoints\":0,\"allow\":[],\"open_ports\":[65536]}", "open_ports: 65536 is not in 0-65535");
    try expectRefused("[]", "the configuration: expected keys and values");
    try expectRefused("{", "the configuration is no JSON that fits: UnexpectedEndOfInput");
}

test "a named program may ask, as the user if one is named" {
    try testing.expect(configure("{\"endpoints\":0,\"allow\":[{\"program\":\"/usr/bin/a\"},{\"program\":\"/usr/bin/b\",\"user\":0}]}", 0) == null);
    const known = callout.abi.PRESENT_UID;
    for ([_]struct { app: []const u8, uid: u32, present: u32, action: u16 }{
        .{ .app = "/usr/bin/a", .uid = 1000, .present = known, .action = callout.abi.ACTION_CONTINUE },
        .{ .app = "/usr/bin/b", .uid = 0, .present = known, .action = callout.abi.ACTION_CONTINUE },
        .{ .app = "/usr/bin/b", .uid = 0, .present = 0, .action = callout.abi.ACTION_BLOCK },
        .{ .app = "/usr/bin/b", .uid = 1, .present = known, .action = callout.abi.ACTION_BLOCK },
        .{ .app = "/usr/bin/aa", .uid = 0, .present = known, .action = callout.abi.ACTION_BLOCK },
        .{ .app = "", .uid = 0, .present = known, .action = callout.abi.ACTION_BLOCK },
    }) |c| try testing.expectEqual(c.action, judge(&.{ .app = c.app, .uid = c.uid, .present = c.present }).action);
}
