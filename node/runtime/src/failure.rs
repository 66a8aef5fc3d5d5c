//! Why an invocation failed, and whose fault that is.

/// Why an invocation has no result. The text is one line, fit for a log and for the fleet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The guest trapped.
    #[error("trap: {message}")]
    Trap {
        /// What WebAssembly says about it, and where.
        message: String,
    },
    /// Not done in time.
    #[error("not done after {limit_ms} ms")]
    Timeout {
        /// The limit of the manifest.
        limit_ms: u64,
    },
    /// Wanted more memory than its limit and could not go on without.
    #[error("needs more memory than its limit of {limit_bytes} bytes")]
    OutOfMemory {
        /// The limit of the manifest.
        limit_bytes: u64,
    },
    /// The handler returned without setting a response.
    #[error("the handler returned without a response")]
    NoResponse,
    /// The response ended before it was whole.
    #[error("the response body was not finished")]
    Incomplete,
    /// The handler answered a request with an error instead of a response.
    #[error("the handler answered with the error {code}")]
    Refused {
        /// The error code of `wasi:http`.
        code: String,
    },
    /// The handler answered with a status that announces an answer and is none.
    #[error("the handler answered with the status {code}, which is not final: an answer has a status of 200 or above")]
    NotFinal {
        /// The HTTP status, below 200.
        code: u16,
    },
    /// A command ended with this code.
    #[error("exit code {code}")]
    Exit {
        /// Not zero.
        code: i32,
    },
    /// An event handler answered with a status that is not 2xx.
    #[error("status {code}{}{said}", if said.is_empty() { "" } else { ": " })]
    Status {
        /// The HTTP status.
        code: u16,
        /// The first line of the body.
        said: String,
    },
    /// The function produced more output than is taken.
    #[error("the output is larger than {limit_bytes} bytes")]
    OutputTooLarge {
        /// The bound.
        limit_bytes: u64,
    },
    /// The caller sent more than is taken.
    #[error("the request is larger than {limit_bytes} bytes")]
    RequestTooLarge {
        /// The bound.
        limit_bytes: u64,
    },
    /// The caller sent something that is not a request, or broke off while sending.
    #[error("bad request: {reason}")]
    BadRequest {
        /// What is wrong.
        reason: String,
    },
    /// The caller went away, or the node dropped the call.
    #[error("cancelled")]
    Cancelled,
    /// No free instance slot: admission let too much in.
    #[error("no free slot: {reason}")]
    Busy {
        /// Which pool is used up.
        reason: String,
    },
    /// The node itself failed.
    #[error("the node failed: {message}")]
    Platform {
        /// The chain of causes.
        message: String,
    },
}

/// Who has to act on a failure. Faults of the platform are never billed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The function: its owner has to fix it.
    Function,
    /// Whoever called it.
    Caller,
    /// The node.
    Platform,
}

impl Failure {
    /// Whose fault it is.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::Trap { .. }
            | Self::Timeout { .. }
            | Self::OutOfMemory { .. }
            | Self::NoResponse
            | Self::Incomplete
            | Self::Refused { .. }
            | Self::NotFinal { .. }
            | Self::Exit { .. }
            | Self::Status { .. }
            | Self::OutputTooLarge { .. } => Fault::Function,
            Self::RequestTooLarge { .. } | Self::BadRequest { .. } | Self::Cancelled => Fault::Caller,
            Self::Busy { .. } | Self::Platform { .. } => Fault::Platform,
        }
    }
}
