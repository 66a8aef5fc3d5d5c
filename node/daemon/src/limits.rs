//! Every bound of the daemon, with its unit in the name.

use std::time::Duration;

/// Events that wait to be looked at by the bus.
pub(crate) const BUS_INBOX_MAX: usize = 4096;
/// Messages that wait for the broker to fan out.
pub(crate) const FANOUT_MAX: usize = 4096;
/// Devices of a node.
pub(crate) const DEVICES_MAX: usize = 64;
/// Events on `device/<name>/set` that wait to be written to the device.
pub(crate) const SETS_WAITING_MAX: usize = 16;
/// Edges of a line that are read at once.
pub(crate) const EDGES_AT_ONCE: usize = 64;
/// Edges of a line that wait in the kernel; above it the oldest goes.
pub(crate) const EDGES_WAITING_MAX: u32 = 512;
/// Bytes of a serial line that are read at once.
pub(crate) const SERIAL_READ_BYTES: usize = 4096;
/// Lines of function output kept for `sedge logs`.
pub(crate) const LOG_LINES_MAX: usize = 2000;
/// Lines of one function that are kept within one second; the rest is counted.
pub(crate) const LOG_LINES_PER_SECOND_MAX: u32 = 200;
/// Lines a slow reader of the log may lag behind.
pub(crate) const LOG_LAG_MAX: usize = 1024;
/// Errors kept for the next report.
pub(crate) const ERRORS_MAX: usize = sedge_protocol::limits::REPORT_ERRORS_MAX;
/// HTTP connections at the same time.
pub(crate) const HTTP_CONNECTIONS_MAX: usize = 1024;
/// Connections to the local socket at the same time.
pub(crate) const LOCAL_CONNECTIONS_MAX: usize = 32;
/// Of these, those that follow what happens and stay.
pub(crate) const FOLLOWERS_MAX: usize = LOCAL_CONNECTIONS_MAX / 2;
/// Pause after a connection that could not be accepted, for want of descriptors most of the time.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(250);
/// Longest wait for the head of a request.
pub(crate) const HTTP_HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// What a client may still send on a connection that is being closed, so that it gets to read its answer, bytes.
pub(crate) const LINGER_BYTES_MAX: usize = 1024 * 1024;
/// And for how long.
pub(crate) const LINGER_TIME_MAX: Duration = Duration::from_secs(1);
/// Longest wait for a client to take the bytes of an answer.
pub(crate) const HTTP_SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the limit of invocations is looked at while any run.
pub(crate) const GATE_SAMPLE: Duration = Duration::from_millis(250);
/// Least pause between two looks at those that wait.
pub(crate) const GATE_WAKE_MIN: Duration = Duration::from_millis(1);
/// How often instances that have waited too long give their memory back, and reserved ones are made.
pub(crate) const WARM_SWEEP: Duration = Duration::from_secs(1);
/// How long an executor stays awake for a request that may follow at once.
pub(crate) const SPIN: Duration = Duration::from_micros(200);
/// How often an executor that works looks how late it is.
pub(crate) const LAG_BEAT: Duration = Duration::from_millis(2);
/// Beats without a request after which it looks no more.
pub(crate) const LAG_BEATS_IDLE: u32 = 50;
/// How often usage goes to disk and then to the fleet. A power cut loses at most this and the write itself: the promise is 10 s.
pub(crate) const USAGE_FLUSH: Duration = Duration::from_secs(4);
/// First wait before a lost connection is tried again.
pub(crate) const RECONNECT_MIN: Duration = Duration::from_millis(500);
/// Longest wait before a lost connection is tried again.
pub(crate) const RECONNECT_MAX: Duration = Duration::from_secs(60);
/// Longest wait for what the operating system's keeper says of the box, before the fleet is greeted without it.
pub(crate) const BOARD_WAIT: Duration = Duration::from_secs(5);
/// Longest wait for one answer of the fleet.
pub(crate) const FLEET_ANSWER_MAX: Duration = Duration::from_secs(20);
/// Longest wait for the next bytes of an artifact.
pub(crate) const ARTIFACT_STALL_MAX: Duration = Duration::from_secs(30);
/// Heartbeat when the fleet names none that makes sense.
pub(crate) const HEARTBEAT_MIN: Duration = Duration::from_secs(1);
/// Longest heartbeat.
pub(crate) const HEARTBEAT_MAX: Duration = Duration::from_secs(600);
/// Dead letters kept; above it the oldest is dropped and counted.
pub(crate) const DEAD_LETTERS_MAX: usize = 1000;
/// Bytes of dead letters kept; above it the oldest is dropped and counted.
pub(crate) const DEAD_LETTER_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// What an event weighs in the queue of its function beside its data.
pub(crate) const EVENT_OVERHEAD_BYTES: usize = 256;
/// Asynchronous calls that wait to be looked at.
pub(crate) const CALLS_INBOX_MAX: usize = 1024;
/// A function may have this part of the asynchronous calls that may wait.
pub(crate) const CALLS_SHARE: usize = 2;
/// Path, query and headers of an asynchronous call, bytes.
pub(crate) const CALL_HEAD_BYTES_MAX: usize = 32 * 1024;
/// Headers of an answer that is kept, bytes.
pub(crate) const ANSWER_HEAD_BYTES_MAX: usize = 16 * 1024;
/// Longest wait for the body of an asynchronous call.
pub(crate) const CALL_BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Wait for admission that the lease of a call allows for.
pub(crate) const CALL_ADMISSION_MAX: Duration = Duration::from_secs(5);
/// Pause of a call that was not admitted.
pub(crate) const CALL_REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// Pause before the end of a call is written again, when the disk did not take it.
pub(crate) const REWRITE_PAUSE: Duration = Duration::from_secs(1);
/// How often what is kept for a day is looked through when nothing happens.
pub(crate) const SWEEP_PAUSE: Duration = Duration::from_secs(600);
/// Callbacks of one function under way at the same time.
pub(crate) const CALLBACKS_AT_ONCE: u32 = 4;
/// Longest wait for the receiver of a callback.
pub(crate) const CALLBACK_TIMEOUT: Duration = Duration::from_secs(10);
/// Records of calls that one look at the store reads.
pub(crate) const RECORDS_PAGE: usize = 500;
/// Keys of a key-value store in one page.
pub(crate) const KV_PAGE_KEYS: usize = 100;
/// What a reason is shortened to when a report would not fit into a frame, bytes.
pub(crate) const REASON_SHORT_BYTES: usize = 100;
/// Keys of a function's state that a trace compares; with more it says that it does not.
pub(crate) const TRACE_KEYS_MAX: usize = 2000;
/// Values of a function's state that a trace compares, bytes.
pub(crate) const TRACE_STATE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Publications and lines of a function that a trace keeps.
pub(crate) const TRACE_ITEMS_MAX: usize = 4096;
/// Largest answer to a request that a trace keeps.
pub(crate) const TRACE_BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Largest request for a trace: state, data and their escapes in JSON.
pub(crate) const TRACE_REQUEST_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Keys that are read or removed at a time.
pub(crate) const STATE_PAGE_KEYS: usize = 500;
/// Purges that wait for the bus.
pub(crate) const PURGES_MAX: usize = 8;
/// How often a reader of the log is told what silent functions have lost.
pub(crate) const UNTOLD_EVERY: Duration = Duration::from_secs(1);
/// Longest wait for a function to stop before its state is removed, beside its own time limit.
pub(crate) const STOP_WAIT_MAX: Duration = Duration::from_secs(10);
/// Core dumps kept; the oldest goes for a newer one.
pub(crate) const CORE_DUMPS_MAX: usize = 8;
/// All core dumps together, bytes.
pub(crate) const CORE_DUMPS_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Shortest time between two core dumps of a function, milliseconds.
pub(crate) const CORE_DUMP_PAUSE_MS: u64 = 60_000;
/// How often it is looked whether a function has stopped.
pub(crate) const STOP_LOOK: Duration = Duration::from_millis(5);
/// Longest wait of a call between functions for its turn: the caller holds its memory meanwhile.
pub(crate) const CALL_WAIT_MAX: Duration = Duration::from_secs(1);
/// Keys and values of the stores that functions share, together, unless the configuration says otherwise.
pub(crate) const KEYVALUE_SHARED_MB: u64 = 64;
/// Keys that are read at a time when the size of a store is summed up.
pub(crate) const KV_SUM_KEYS: usize = 1000;
/// Largest secret.
pub(crate) const SECRET_BYTES_MAX: usize = 16 * 1024;
/// Most secrets of a node.
pub(crate) const SECRETS_MAX: usize = 256;
/// Missing secrets that a report of a function names.
pub(crate) const MISSING_SECRETS_MAX: usize = 4;
/// Routes that a report of a function names as served by another.
pub(crate) const LOST_ROUTES_MAX: usize = 4;
/// Largest file of certificates.
pub(crate) const CA_FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Connections to the listener of metrics at the same time.
pub(crate) const METRICS_CONNECTIONS_MAX: usize = 16;
/// Spans between invocations and the exporter; beyond that they are dropped and counted.
pub(crate) const SPANS_WAITING_MAX: usize = 4096;
/// Spans in one request to the collector.
pub(crate) const SPAN_BATCH_MAX: usize = 512;
/// How long a span may wait for others to be sent with.
pub(crate) const SPAN_PAUSE: Duration = Duration::from_secs(1);
/// Longest request to the collector.
pub(crate) const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// First pause before the collector is tried again.
pub(crate) const EXPORT_RETRY_MIN: Duration = Duration::from_secs(1);
/// Longest pause before the collector is tried again.
pub(crate) const EXPORT_RETRY_MAX: Duration = Duration::from_secs(60);
/// Longest wait for the collector when the daemon ends.
pub(crate) const EXPORT_LAST_MAX: Duration = Duration::from_secs(2);
/// Functions of which dropped lines are counted apart.
pub(crate) const LOG_FUNCTIONS_MAX: usize = 1000;
/// Longest compilation of one artifact, unless the configuration says otherwise: an 18 MB Python component takes 11 s on two fast cores.
pub(crate) const COMPILE_TIME_MAX: Duration = Duration::from_secs(300);
/// Address space of a compilation on a small node; half of the node's memory on a larger one.
pub(crate) const COMPILE_MEMORY_MB_MIN: u64 = 1024;
/// Address space of a compilation on any node.
pub(crate) const COMPILE_MEMORY_MB_MAX: u64 = 4096;
/// How much less urgent compiling is than anything else the daemon does.
pub(crate) const COMPILE_NICENESS: i32 = 10;
/// Least free space that an operator may have kept, in bytes: two segments of the journal, and what a checkpoint writes.
pub(crate) const FREE_BYTES_MIN_LEAST: u64 = 16 * 1024 * 1024;
/// Pause before the removal of state goes on that the store was too busy for.
pub(crate) const REMOVAL_PAUSE: Duration = Duration::from_millis(20);
/// Such pauses in a row before the removal is given up.
pub(crate) const REMOVAL_PAUSES_MAX: u32 = 1500;
