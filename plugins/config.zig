//! What the plugins in Zig share: reading a configuration, and saying what is
//! wrong with it and where.
const std = @import("std");

pub const Value = std.json.Value;
pub const Object = std.json.ObjectMap;

/// A mistake: its text is in refusal.
pub const Refused = error{Refused};
pub var refusal: []const u8 = "";

var memory: [128 * 1024]u8 = undefined; // of the configuration, which stays
var message: [512]u8 = undefined;
var fixed = std.heap.FixedBufferAllocator.init(&memory);

pub fn refuse(comptime text: []const u8, values: anytype) Refused {
    refusal = std.fmt.bufPrint(&message, text, values) catch message[0..];
    return error.Refused;
}

/// Reads the whole configuration. What was read before is gone.
pub fn parse(text: []const u8) Refused!Value {
    fixed.reset();
    return std.json.parseFromSliceLeaky(Value, fixed.allocator(), text, .{}) catch |err|
        refuse("the configuration is no JSON that fits: {s}", .{@errorName(err)});
}

/// The place of a part, such as allow[3].user.
pub fn place(comptime text: []const u8, values: anytype) Refused![]const u8 {
    return std.fmt.allocPrint(fixed.allocator(), text, values) catch refuse("the configuration is too large", .{});
}

/// Room for as many.
pub fn room(comptime T: type, n: usize) Refused![]T {
    return fixed.allocator().alloc(T, n) catch refuse("the configuration is too large", .{});
}

/// An object with no keys but these.
pub fn object(value: Value, at: []const u8, known: []const []const u8) Refused!Object {
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

pub fn list(value: Value, at: []const u8) Refused![]const Value {
    return switch (value) {
        .array => |a| a.items,
        else => refuse("{s}: expected a list", .{at}),
    };
}

pub fn number(comptime T: type, value: Value, at: []const u8) Refused!T {
    const n = switch (value) {
        .integer => |n| n,
        else => return refuse("{s}: expected a number", .{at}),
    };
    return std.math.cast(T, n) orelse refuse("{s}: {d} is not in 0-{d}", .{ at, n, std.math.maxInt(T) });
}

pub fn string(value: Value, at: []const u8) Refused![]const u8 {
    return switch (value) {
        .string => |s| s,
        else => refuse("{s}: expected a text", .{at}),
    };
}

/// The whole path of a program.
pub fn program(value: Value, at: []const u8) Refused![]const u8 {
    const path = try string(value, at);
    if (path.len == 0 or path[0] != '/') return refuse("{s}: \"{s}\" is not a whole path such as /usr/bin/curl", .{ at, path });
    return path;
}
