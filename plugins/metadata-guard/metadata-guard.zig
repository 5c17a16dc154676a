//! metadata-guard: cloud metadata services hand out credentials to whoever asks,
//! so that only named programs may ask. See README.md for the configuration.
const std = @import("std");
const callout = @import("callout");

pub const required = callout.abi.CAP_SETS;

const Allowed = struct { program: []const u8, user: ?u32 };

var memory: [128 * 1024]u8 = undefined; // of the configuration, which stays
var message: [512]u8 = undefined;
var set: u32 = 0;
var allowed: []Allowed = &.{};
var open_ports: []u16 = &.{};

/// A mistake in the configuration: its text is in message.
const Refused = error{Refused};

fn refuse(comptime text: []const u8, values: anytype) Refused {
    const said = std.fmt.bufPrint(&message, text, values) catch message[0..];
    refusal = said;
    return error.Refused;
}

var refusal: []const u8 = "";

pub fn configure(config: []const u8, _: u32) ?[]const u8 {
    read(config) catch return refusal;
    return null;
}

fn read(config: []const u8) Refused!void {
    var fixed = std.heap.FixedBufferAllocator.init(&memory);
    const heap = fixed.allocator();
    const root = std.json.parseFromSliceLeaky(std.json.Value, heap, config, .{}) catch |err|
        return refuse("the configuration is no JSON that fits: {s}", .{@errorName(err)});
    const keys = try object(root, "the configuration", &.{ "endpoints", "allow", "open_ports" });
    set = try number(u31, keys.get("endpoints") orelse return refuse("endpoints: required, as ${{set:ID}}", .{}), "endpoints");
    const rules = try array(keys.get("allow") orelse return refuse("allow: required; [] is nobody", .{}), "allow");
    allowed = heap.alloc(Allowed, rules.len) catch return refuse("allow: too long", .{});
    for (rules, allowed, 0..) |rule, *a, i| a.* = try allow(rule, i);
    const default = [_]u16{ 53, 123 };
    open_ports = heap.dupe(u16, &default) catch return refuse("open_ports: no room", .{});
    const ports = try array(keys.get("open_ports") orelse return, "open_ports");
    open_ports = heap.alloc(u16, ports.len) catch return refuse("open_ports: too long", .{});
    for (ports, open_ports) |value, *p| p.* = try number(u16, value, "open_ports");
}

fn allow(rule: std.json.Value, i: usize) Refused!Allowed {
    var name: [32]u8 = undefined;
    const at = std.fmt.bufPrint(&name, "allow[{d}]", .{i}) catch name[0..];
    const keys = try object(rule, at, &.{ "program", "user" });
    const path = switch (keys.get("program") orelse return refuse("{s}.program: required", .{at})) {
        .string => |s| s,
        else => return refuse("{s}.program: expected a text", .{at}),
    };
    if (path.len == 0 or path[0] != '/') return refuse("{s}.program: \"{s}\" is not a whole path such as /usr/bin/cloud-init", .{ at, path });
    const user = keys.get("user") orelse return .{ .program = path, .user = null };
    var where: [40]u8 = undefined;
    return .{ .program = path, .user = try number(u32, user, std.fmt.bufPrint(&where, "{s}.user", .{at}) catch at) };
}

fn object(value: std.json.Value, at: []const u8, known: []const []const u8) Refused!std.json.ObjectMap {
    const map = switch (value) {
        .object => |o| o,
        else => return refuse("{s}: expected keys and values", .{at}),
    };
    for (map.keys()) |key| {
        for (known) |k| {
            if (std.mem.eql(u8, k, key)) break;
        } else return refuse("{s} has no key \"{s}\"", .{ at, key });
    }
    return map;
}

fn array(value: std.json.Value, at: []const u8) Refused![]const std.json.Value {
    return switch (value) {
        .array => |a| a.items,
        else => refuse("{s}: expected a list", .{at}),
    };
}

fn number(comptime T: type, value: std.json.Value, at: []const u8) Refused!T {
    const n = switch (value) {
        .integer => |n| n,
        else => return refuse("{s}: expected a number", .{at}),
    };
    return std.math.cast(T, n) orelse refuse("{s}: {d} is not in 0-{d}", .{ at, n, std.math.maxInt(T) });
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

fn expectRefused(config: []const u8, why: []const u8) !void {
    try testing.expectEqualStrings(why, configure(config, 0) orelse "");
}

test "a wrong configuration is refused with its key" {
    try expectRefused("{\"allow\":[]}", "endpoints: required, as ${set:ID}");
    try expectRefused("{\"endpoints\":0}", "allow: required; [] is nobody");
    try expectRefused("{\"endpoints\":0,\"allow\":[{\"program\":\"cloud-init\"}]}", "allow[0].program: \"cloud-init\" is not a whole path such as /usr/bin/cloud-init");
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
