//! Every bound of the runtime, with its unit in the name.

use std::time::Duration;

/// Bytes in a MiB, in which manifests say sizes.
pub(crate) const MIB: u64 = 1024 * 1024;
/// Length of one epoch: the grain of deadlines and of sharing a core.
pub const EPOCH: Duration = Duration::from_millis(1);
/// Epochs a guest may compute on the thread that took its request; then it goes where long guests take turns.
pub const EPOCHS_OF_FIRST_TURN: u64 = 2;
/// Processor time of an invocation above which those of its function begin where long guests take turns, microseconds.
pub const LONG_US: u64 = 1_000;
/// How much less urgent the threads of long guests are than those that take requests and keep the books.
pub const TURNS_NICENESS: i32 = 5;
/// Epochs a long guest may compute before it lets others run.
pub const EPOCHS_PER_TURN: u64 = 5;
/// Longest line of guest output; a longer one is cut into several.
pub const LOG_LINE_BYTES_MAX: usize = 4096;
/// How long a fresh instance waits for an invocation before its memory is given back.
pub const FRESH_IDLE: Duration = Duration::from_secs(2);
/// Largest output of a command that answers an HTTP request.
pub const OUTPUT_BYTES_MAX: usize = 1024 * 1024;
/// Largest reply to an event; a reply becomes an event itself.
pub const REPLY_BYTES_MAX: usize = sedge_protocol::limits::EVENT_BYTES_MAX;
/// Largest header section, counted as it lies in memory.
pub const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Largest single write to a response body.
pub const BODY_CHUNK_BYTES_MAX: usize = 64 * 1024;
/// Writes to a response body that wait for the client before the guest has to.
pub const BODY_CHUNKS_WAITING: usize = 8;
/// Handles (streams, bodies, buckets …) that one invocation may hold.
pub const HANDLES_MAX: usize = 512;
/// A message that a function makes, with its metadata.
pub const MESSAGE_BYTES_MAX: usize = sedge_protocol::limits::EVENT_BYTES_MAX + 64 * 1024;
/// All messages that one instance holds before it sends or drops them.
pub const MESSAGES_BYTES_MAX: usize = 1024 * 1024;
/// Tasks, streams, futures and their ends that the engine remembers for one instance of WASI 0.3.
pub const CONCURRENT_MAX: usize = 16 * 1024;
/// Core instances inside one component.
pub const CORE_INSTANCES_MAX: u32 = 64;
/// Linear memories inside one component; they share the memory limit.
pub const MEMORIES_MAX: u32 = 8;
/// Tables inside one component.
pub const TABLES_MAX: u32 = 16;
/// Elements of one table.
pub const TABLE_ELEMENTS_MAX: usize = 64 * 1024;
/// What an element of a table takes.
pub const TABLE_ELEMENT_BYTES: usize = 8;
/// What of tables, header fields, messages and open objects does not count against the memory limit of a function.
pub const HELD_ALLOWANCE_BYTES: usize = 256 * 1024;
/// Calls to the host after which what it holds for the guest is weighed; each can add [`HEADER_BYTES_MAX`].
pub const CALLS_PER_WEIGHING: u8 = 4;
/// Largest compiled code of one artifact.
pub const COMPILED_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// What is kept of what a compiling process says.
pub const COMPILER_SAYS_BYTES_MAX: usize = 2048;
/// Longest key of a key-value store.
pub const KEY_BYTES_MAX: usize = 512;
/// Keys in one batch call.
pub const KEYS_PER_BATCH_MAX: usize = 256;
/// Longest message of a trap.
pub const TRAP_BYTES_MAX: usize = 1024;
/// What an instance costs beside its memory limit, at most: bodies that wait to be read (2 MiB), its stack (512 KiB), the allowance and what
/// is held between two weighings (256 KiB each).
pub const INSTANCE_OVERHEAD_BYTES: u64 = 3 * 1024 * 1024;

/// What is kept of the body of a failed event, characters.
pub const FAILURE_CHARS_MAX: usize = 200;
/// What is kept of what a guest said before it trapped.
pub const LAST_WORDS_BYTES_MAX: usize = 300;
/// Most linear memory of which a core dump is made.
pub const CORE_DUMP_MEMORY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Requests of one function to other machines that are under way at one time.
pub const OUTGOING_IN_FLIGHT_MAX: usize = 64;
/// Idle connections that one function keeps to one origin.
pub const OUTGOING_IDLE_MAX: usize = 16;
/// How long an idle connection is kept.
pub const OUTGOING_IDLE: Duration = Duration::from_secs(30);
/// Longest time until a connection stands, TLS included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Header fields of an answer from another machine.
pub const OUTGOING_FIELDS_MAX: usize = 128;
/// Functions that may wait for each other in a row: the first one called from outside, then so many calls.
pub const CALL_DEPTH_MAX: usize = 8;
/// Sockets that one invocation may make.
pub const SOCKETS_MAX: u32 = 64;
/// Objects that one instance reads or writes at one time.
pub const BLOBS_OPEN_MAX: usize = 32;
/// Largest single write to an object.
pub const BLOB_CHUNK_BYTES: usize = 64 * 1024;
/// Largest object that is read in one piece; larger ones are streamed.
pub const BLOB_WHOLE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Names in one page of a container's list.
pub const BLOB_NAMES_PER_PAGE: usize = 1000;
/// Longest name of a file in a scratch directory.
pub const SCRATCH_NAME_BYTES_MAX: usize = 255;
/// Levels of a scratch directory that renaming a directory looks through, so that no single call takes long.
pub const SCRATCH_DEPTH_MAX: usize = 64 * 1024;
/// Longest path to a file in a scratch directory.
pub const SCRATCH_PATH_BYTES_MAX: usize = 4096;
