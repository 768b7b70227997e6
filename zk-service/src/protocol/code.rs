//! ZooKeeper's result codes.

use std::fmt;

/// The result of an operation: 0 or one of ZooKeeper's negative error codes, as sent in a
/// `ReplyHeader` and logged in an `ErrorTxn`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Code(pub i32);

macro_rules! codes {
    ($($name:ident = $value:literal, $text:literal;)*) => {
        impl Code {
            $(#[doc = concat!("`", stringify!($value), "`: ", $text, ".")] pub const $name: Self = Self($value);)*
        }

        impl fmt::Debug for Code {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match *self {
                    $(Self::$name => f.write_str(stringify!($name)),)*
                    Self(other) => write!(f, "Code({other})"),
                }
            }
        }

        impl fmt::Display for Code {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match *self {
                    $(Self::$name => f.write_str($text),)*
                    Self(other) => write!(f, "error {other}"),
                }
            }
        }
    };
}

codes! {
    OK = 0, "ok";
    SYSTEM_ERROR = -1, "system error";
    RUNTIME_INCONSISTENCY = -2, "runtime inconsistency";
    DATA_INCONSISTENCY = -3, "data inconsistency";
    CONNECTION_LOSS = -4, "connection loss";
    MARSHALLING_ERROR = -5, "marshalling error";
    UNIMPLEMENTED = -6, "unimplemented";
    OPERATION_TIMEOUT = -7, "operation timeout";
    BAD_ARGUMENTS = -8, "bad arguments";
    UNKNOWN_SESSION = -12, "unknown session";
    NEW_CONFIG_NO_QUORUM = -13, "new configuration has no quorum";
    RECONFIG_IN_PROGRESS = -14, "reconfiguration in progress";
    NO_NODE = -101, "no node";
    NO_AUTH = -102, "not authenticated";
    BAD_VERSION = -103, "bad version";
    NO_CHILDREN_FOR_EPHEMERALS = -108, "ephemerals have no children";
    NODE_EXISTS = -110, "node exists";
    NOT_EMPTY = -111, "node not empty";
    SESSION_EXPIRED = -112, "session expired";
    INVALID_CALLBACK = -113, "invalid callback";
    INVALID_ACL = -114, "invalid ACL";
    AUTH_FAILED = -115, "authentication failed";
    SESSION_MOVED = -118, "session moved";
    NOT_READ_ONLY = -119, "not read only";
    EPHEMERAL_ON_LOCAL_SESSION = -120, "ephemeral on local session";
    NO_WATCHER = -121, "no such watcher";
    REQUEST_TIMEOUT = -122, "request timeout";
    RECONFIG_DISABLED = -123, "reconfiguration disabled";
    SESSION_CLOSED_REQUIRE_SASL = -124, "session closed, SASL required";
    QUOTA_EXCEEDED = -125, "quota exceeded";
    THROTTLED = -127, "throttled";
}

impl Code {
    /// Whether the operation succeeded.
    #[must_use]
    pub const fn is_ok(self) -> bool {
        self.0 == 0
    }
}
