// What a function needs of WASI preview 1. An invocation has an instance of its own, so nothing is ever freed.

@external("wasi_snapshot_preview1", "fd_read")
declare function fd_read(file: i32, parts: usize, count: i32, read: usize): i32;
@external("wasi_snapshot_preview1", "fd_write")
declare function fd_write(file: i32, parts: usize, count: i32, written: usize): i32;
@external("wasi_snapshot_preview1", "environ_sizes_get")
declare function environ_sizes_get(count: usize, bytes: usize): i32;
@external("wasi_snapshot_preview1", "environ_get")
declare function environ_get(places: usize, texts: usize): i32;
@external("wasi_snapshot_preview1", "proc_exit")
declare function proc_exit(code: i32): void;

const INPUT: i32 = 0;
const OUTPUT: i32 = 1;
const LOG: i32 = 2;
/** Most bytes of data. */
const INPUT_BYTES_MAX: i32 = 1024 * 1024;

/** Address and length of what is read or written, and how much of it was. */
const part: usize = memory.data(8);
const done: usize = memory.data(4);

/** All of standard input, as text. */
export function input(): string {
  let data = new ArrayBuffer(4096);
  let used = 0;
  while (used < INPUT_BYTES_MAX) {
    if (used == data.byteLength) {
      const larger = new ArrayBuffer(2 * used);
      memory.copy(changetype<usize>(larger), changetype<usize>(data), used);
      data = larger;
    }
    store<u32>(part, changetype<u32>(data) + used);
    store<u32>(part, data.byteLength - used, 4);
    if (fd_read(INPUT, part, 1, done) != 0 || load<u32>(done) == 0) break;
    used += load<u32>(done);
  }
  return String.UTF8.decodeUnsafe(changetype<usize>(data), used);
}

/** Writes to standard output. */
export function output(text: string): void {
  write(OUTPUT, text);
}

/** Writes to standard error. */
export function log(text: string): void {
  write(LOG, text);
}

function write(file: i32, text: string): void {
  const data = String.UTF8.encode(text);
  let sent = 0;
  while (sent < data.byteLength) {
    store<u32>(part, changetype<u32>(data) + sent);
    store<u32>(part, data.byteLength - sent, 4);
    if (fd_write(file, part, 1, done) != 0) return;
    sent += load<u32>(done);
  }
}

/** The variable of that name; null if there is none. */
export function environment(name: string): string | null {
  environ_sizes_get(part, done);
  const count = load<u32>(part);
  const places = changetype<usize>(new ArrayBuffer(4 * count));
  const texts = changetype<usize>(new ArrayBuffer(load<u32>(done)));
  environ_get(places, texts);
  for (let i: u32 = 0; i < count; i++) {
    const place = load<u32>(places + 4 * i);
    let length = 0;
    while (load<u8>(place + length) != 0) length++;
    const variable = String.UTF8.decodeUnsafe(place, length);
    if (variable.startsWith(name + "=")) return variable.slice(name.length + 1);
  }
  return null;
}

/** Ends the function. */
export function exit(code: i32): void {
  proc_exit(code);
}

/** What the compiler calls when something must not be: says where, and traps. */
export function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  const what = message ? message : "aborted";
  const where = file ? file : "?";
  log(what + " at " + where + ":" + line.toString() + ":" + column.toString() + "\n");
  unreachable();
}
