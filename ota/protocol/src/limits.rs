//! Every bound of the protocol, with its unit in the name.

/// Largest frame on a QUIC stream, length prefix excluded.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;
/// Deepest nesting of CBOR that is decoded.
pub const CBOR_DEPTH_MAX: usize = 32;
/// Largest artifact that may be published.
pub const ARTIFACT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Largest bundle of an operating system.
pub const BUNDLE_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Ranges of a bundle that are asked for at once.
pub const RANGES_MAX: usize = 1024;
/// Components and modules inside each other, the outermost included. Toolkits make two levels, composition tools three or four.
pub const NESTING_MAX: u64 = 16;
/// Components and modules of an artifact. Python brings 17.
pub const PARTS_MAX: u64 = 256;
/// Functions of all modules of an artifact together. The largest known, PHP, has 26 000.
pub const FUNCTIONS_MAX: u64 = 100_000;
/// Code of one function: the compiler takes time and memory beyond proportion for long ones. The longest known, in Python, has 427 kB.
pub const FUNCTION_BODY_BYTES_MAX: u64 = 1024 * 1024;
/// Instances, types, aliases, imports and exports of all components of an artifact. Python brings 2 000.
pub const COMPONENT_ITEMS_MAX: u64 = 50_000;
/// Types of a module.
pub const MODULE_TYPES_MAX: u64 = 20_000;
/// Imports of a module.
pub const MODULE_IMPORTS_MAX: u64 = 20_000;
/// Exports of a module. PHP brings 10 000.
pub const MODULE_EXPORTS_MAX: u64 = 50_000;
/// Globals of a module.
pub const MODULE_GLOBALS_MAX: u64 = 50_000;
/// Element segments of a module.
pub const ELEMENT_SEGMENTS_MAX: u64 = 20_000;
/// Data segments of a module. Go brings 42 000, PHP 93 000.
pub const DATA_SEGMENTS_MAX: u64 = 100_000;
/// Elements that a table may begin with, and grow to.
pub const TABLE_ELEMENTS_MAX: u64 = 64 * 1024;
/// Tables of a module.
pub const TABLES_PER_MODULE_MAX: u64 = 16;
/// Memories of a module; they share the memory limit.
pub const MEMORIES_PER_MODULE_MAX: u64 = 8;
/// Most files among the assets of an artifact.
pub const ASSETS_MAX: usize = 4096;
/// All bytes of the assets of an artifact together.
pub const ASSETS_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Longest path of an asset; what the format can hold for certain.
pub const ASSET_PATH_BYTES_MAX: usize = 100;
/// Largest `function.toml`.
pub const MANIFEST_BYTES_MAX: usize = 64 * 1024;
/// Longest function name; it also is a DNS label.
pub const NAME_BYTES_MAX: usize = 63;
/// Longest label key or value.
pub const LABEL_BYTES_MAX: usize = 63;
/// Most labels of one node.
pub const LABELS_MAX: usize = 64;
/// Longest topic or topic filter.
pub const TOPIC_BYTES_MAX: usize = 1024;
/// Most levels of a topic or topic filter.
pub const TOPIC_LEVELS_MAX: usize = 16;
/// Most triggers of one function.
pub const TRIGGERS_MAX: usize = 32;
/// Most settings of one function.
pub const SETTINGS_MAX: usize = 128;
/// Longest value of a setting.
pub const SETTING_BYTES_MAX: usize = 4096;
/// Largest memory limit of a function, in MiB.
pub const MEMORY_MB_MAX: u32 = 4096;
/// Longest time limit of a function.
pub const TIMEOUT_MS_MAX: u64 = 15 * 60 * 1000;
/// Largest concurrency limit of a function.
pub const CONCURRENCY_MAX: u32 = 1000;
/// Most grants of one kind in a manifest.
pub const GRANTS_MAX: usize = 32;
/// Largest body of a request or an answer that a manifest may ask for, in MiB.
pub const BODY_MB_MAX: u32 = 1024;
/// Most invocations that one instance serves.
pub const REUSE_COUNT_MAX: u32 = 1_000_000;
/// Longest time that an idle instance is kept, in seconds.
pub const REUSE_IDLE_S_MAX: u32 = 24 * 3600;
/// Largest scratch directory of an instance, in MiB.
pub const SCRATCH_MB_MAX: u32 = 1024;
/// Largest quota of a kind of storage, in MiB.
pub const QUOTA_MB_MAX: u32 = 64 * 1024;
/// Most attempts of an event.
pub const ATTEMPTS_MAX: u32 = 100;
/// Longest first back-off.
pub const BACKOFF_MS_MAX: u64 = 60 * 60 * 1000;
/// Shortest interval of a timer.
pub const INTERVAL_MS_MIN: u64 = 100;
/// Longest interval of a timer.
pub const INTERVAL_MS_MAX: u64 = 366 * 24 * 3600 * 1000;
/// Most functions in one assignment.
pub const ASSIGNED_MAX: usize = 256;
/// Most usage records in one batch.
pub const USAGE_BATCH_MAX: usize = 256;
/// Most recent errors in one report.
pub const REPORT_ERRORS_MAX: usize = 32;
/// Longest reason or message of an error that travels.
pub const REASON_BYTES_MAX: usize = 1024;
/// Largest data of an event.
pub const EVENT_BYTES_MAX: usize = 256 * 1024;
/// Longest media type of the data of an event that a function makes.
pub const CONTENT_TYPE_BYTES_MAX: usize = 1024;
/// Chunk in which an artifact is sent.
pub const ARTIFACT_CHUNK_BYTES: usize = 64 * 1024;
/// Longest reason for the standing of a node: it has to fit into the packet that closes a connection.
pub const STANDING_REASON_CHARS_MAX: usize = 200;
/// Largest enrolment request or answer.
pub const ENROL_BYTES_MAX: usize = 64 * 1024;
/// Longest reason of a function's last failure in a report.
pub const HEALTH_REASON_BYTES_MAX: usize = 200;
/// Largest body of an asynchronous call, and of the answer that is kept for it.
pub const CALL_BYTES_MAX: usize = 256 * 1024;
/// Longest idempotency key.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// Longest address of a callback.
pub const CALLBACK_BYTES_MAX: usize = 2048;
