//! Errors, under ZooKeeper's names.

use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// ZooKeeper's error codes (`KeeperException.Code`): what a server answers, and what a
        /// client finds by itself.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* $name,)*
            /// A number that ZooKeeper 3.9 does not know.
            Unknown(i32),
        }

        impl Code {
            /// The code with this number.
            #[must_use]
            pub fn from_number(number: i32) -> Self {
                match number {
                    $($number => Self::$name,)*
                    other => Self::Unknown(other),
                }
            }

            /// The number on the wire.
            #[must_use]
            pub fn number(self) -> i32 {
                match self {
                    $(Self::$name => $number,)*
                    Self::Unknown(number) => number,
                }
            }
        }

        impl fmt::Display for Code {
            /// As ZooKeeper's own client writes it.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$name => f.write_str($text),)*
                    Self::Unknown(number) => write!(f, "Unknown error {number}"),
                }
            }
        }
    };
}

codes! {
    /// No error. In a multi that failed: the operation was all right by itself.
    Ok = 0, "ok";
    /// Something is wrong with the server.
    SystemError = -1, "SystemError";
    /// In a multi that failed: an operation after the one that failed.
    RuntimeInconsistency = -2, "RuntimeInconsistency";
    /// Not sent by servers of today.
    DataInconsistency = -3, "DataInconsistency";
    /// The connection was lost before the answer came: whether the request took effect is unknown.
    /// Or nothing was sent, because no server could be reached.
    ConnectionLoss = -4, "ConnectionLoss";
    /// A request or an answer could not be decoded.
    MarshallingError = -5, "MarshallingError";
    /// The server does not know the operation, or has it switched off.
    Unimplemented = -6, "Unimplemented";
    /// Not sent by servers of today.
    OperationTimeout = -7, "OperationTimeout";
    /// A path, a mode or a time-to-live is not valid.
    BadArguments = -8, "BadArguments";
    /// A race inside a server.
    UnknownSession = -12, "Unknown error -12";
    /// reconfig: no quorum of the new members has the latest state.
    NewConfigNoQuorum = -13, "NewConfigNoQuorum";
    /// reconfig: another one is under way.
    ReconfigInProgress = -14, "ReconfigInProgress";
    /// Not sent: the boundary between errors of servers and errors of requests.
    ApiError = -100, "APIError";
    /// The node does not exist.
    NoNode = -101, "NoNode";
    /// The ACL does not allow it.
    NoAuth = -102, "NoAuth";
    /// The version is not the expected one.
    BadVersion = -103, "BadVersion";
    /// Ephemeral nodes have no children.
    NoChildrenForEphemerals = -108, "NoChildrenForEphemerals";
    /// The node exists.
    NodeExists = -110, "NodeExists";
    /// The node has children.
    NotEmpty = -111, "Directory not empty";
    /// The session has ended.
    SessionExpired = -112, "Session expired";
    /// Not sent by servers of today.
    InvalidCallback = -113, "Invalid callback";
    /// The ACL is not valid.
    InvalidAcl = -114, "InvalidACL";
    /// The server did not accept the credentials.
    AuthFailed = -115, "AuthFailed";
    /// The session has moved to another server.
    SessionMoved = -118, "Session moved";
    /// The server is read-only at present.
    NotReadOnly = -119, "Not a read-only call";
    /// A local session cannot own ephemeral nodes.
    EphemeralOnLocalSession = -120, "Ephemeral node on local session";
    /// There is no such watch.
    NoWatcher = -121, "No such watcher";
    /// No answer in time.
    RequestTimeout = -122, "Unknown error -122";
    /// reconfig is switched off.
    ReconfigDisabled = -123, "Reconfig is disabled";
    /// The server demands authentication.
    SessionClosedRequireSaslAuth = -124, "Session closed because client failed to authenticate";
    /// A quota that is enforced does not allow it.
    QuotaExceeded = -125, "Quota has exceeded";
    /// The server is overloaded.
    ThrottledOp = -127, "Op throttled due to high load";
}

/// A request that failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    /// Why.
    pub code: Code,
    /// The path it was for, as the caller knows it; `None` if the request has none.
    pub path: Option<String>,
}

impl fmt::Display for Error {
    /// As ZooKeeper's own client writes it: `KeeperErrorCode = NoNode for /a`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeeperErrorCode = {}", self.code)?;
        match &self.path {
            Some(path) => write!(f, " for {path}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// Why a request was not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Refused {
    /// Too much is waiting for its turn ([`Options::requests_max`] and
    /// [`Options::requests_len_max_bytes`](crate::Options::requests_len_max_bytes)): submit it
    /// again when an answer has come.
    ///
    /// [`Options::requests_max`]: crate::Options::requests_max
    Busy,
    /// The session has ended, for this reason.
    Closed(Code),
    /// The path is not valid, for this reason.
    Path(&'static str),
    /// The request is longer than [`Options::frame_len_max_bytes`](crate::Options::frame_len_max_bytes).
    TooLong,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("too many requests are waiting for their turn"),
            Self::Closed(code) => write!(f, "the session has ended: {code}"),
            Self::Path(reason) => f.write_str(reason),
            Self::TooLong => f.write_str("the request is too long"),
        }
    }
}

impl std::error::Error for Refused {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_codes_are_one_to_one() {
        for number in -130..=1 {
            assert_eq!(Code::from_number(number).number(), number);
        }
        assert_eq!(Code::from_number(-101), Code::NoNode);
        assert_eq!(Code::from_number(-126), Code::Unknown(-126));
    }

    #[test]
    fn errors_read_as_those_of_zookeepers_client() {
        let error = |code, path: Option<&str>| Error { code, path: path.map(str::to_owned) };
        let text = error(Code::NotEmpty, Some("/a")).to_string();
        assert_eq!(text, "KeeperErrorCode = Directory not empty for /a");
        let text = error(Code::Unknown(-200), None).to_string();
        assert_eq!(text, "KeeperErrorCode = Unknown error -200");
    }
}
