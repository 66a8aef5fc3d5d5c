//! The function {{name}}: data on standard input, attributes in the variables CE_…, the reply on standard output.
//! An HTTP request comes the same way, with its method in HTTP_METHOD and its body as the data.

const std = @import("std");

const data_bytes_max = 64 * 1024;

const Reading = struct { value: f64 };

pub fn main(init: std.process.Init) !void {
    var out_buffer: [1024]u8 = undefined;
    var out = std.Io.File.stdout().writer(init.io, &out_buffer);
    if (init.environ_map.get("HTTP_METHOD")) |method| {
        if (std.mem.eql(u8, method, "GET")) {
            try out.interface.writeAll("hello from {{name}}\n");
            return out.interface.flush();
        }
    }
    var in_buffer: [4096]u8 = undefined;
    var in = std.Io.File.stdin().reader(init.io, &in_buffer);
    const data = try in.interface.allocRemaining(init.gpa, .limited(data_bytes_max));
    defer init.gpa.free(data);
    const celsius = parse(init.gpa, data) catch |fault| {
        // Standard error is the function's log; a failure makes the node try the event again.
        std.debug.print("not a reading: {s}\n", .{data[0..@min(data.len, 80)]});
        return fault;
    };
    try out.interface.print("{{\"value\":{d:.2}}}\n", .{fahrenheit(celsius)});
    try out.interface.flush();
}

/// The value of a reading.
fn parse(allocator: std.mem.Allocator, data: []const u8) !f64 {
    const reading = try std.json.parseFromSlice(Reading, allocator, data, .{ .ignore_unknown_fields = true });
    defer reading.deinit();
    return if (std.math.isFinite(reading.value.value)) reading.value.value else error.NotFinite;
}

/// °C to °F.
fn fahrenheit(celsius: f64) f64 {
    return celsius * 1.8 + 32;
}

test "readings are converted or refused" {
    const allocator = std.testing.allocator;
    const celsius = try parse(allocator, "{\"unit\": \"C\", \"value\": 20}");
    try std.testing.expectEqual(68, fahrenheit(celsius));
    for ([_][]const u8{ "", "warm", "{}", "{\"value\": \"a\"}" }) |bad| {
        try std.testing.expect(std.meta.isError(parse(allocator, bad)));
    }
}
