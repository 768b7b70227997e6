//! The operations: one row each, from which everything that knows them all is made.
//!
//! [`Opcode::from_wire`] is called where a number comes in; after it every `match` names all
//! operations, so the compiler lists the places that a new one must be decided in.

/// How an operation is carried out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OpClass {
    /// The leader makes a transaction of it.
    Write,
    /// It is answered from the local tree, in the order of its session.
    Read,
    /// It is answered once the server has caught up with the leader.
    Sync,
    /// It says who the client is; the only kind that needs no login.
    Auth,
    /// No client may ask it by itself.
    Internal,
}

/// From the table: the enum, its methods, and for each class a pattern that means all of it.
macro_rules! opcodes {
    ($($class:ident as $all:ident {
        $($(#[$doc:meta])* $name:ident = $wire:literal, $text:literal, $cons:literal;)*
    })*) => {
        /// An operation of a client, or the type of a transaction.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(i32)]
        pub enum Opcode {
            $($(#[doc = concat!("`", $text, "`")] $(#[$doc])* $name = $wire,)*)*
        }

        impl Opcode {
            /// All of them, in the order of the table.
            pub const ALL: &[Self] = &[$($(Self::$name,)*)*];

            /// The operation of this number; `None` if there is none.
            #[must_use]
            pub const fn from_wire(number: i32) -> Option<Self> {
                match number {
                    $($($wire => Some(Self::$name),)*)*
                    _ => None,
                }
            }

            /// How it is carried out.
            #[must_use]
            pub const fn class(self) -> OpClass {
                match self {
                    $($(Self::$name)|* => OpClass::$class,)*
                }
            }

            /// ZooKeeper's name of it (`Request.op2String`).
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $($(Self::$name => $text,)*)*
                }
            }

            /// What `cons` calls it.
            pub(crate) const fn short_name(self) -> &'static str {
                match self {
                    $($(Self::$name => $cons,)*)*
                }
            }
        }

        $(
            macro_rules! $all {
                () => { $($crate::protocol::opcode::Opcode::$name)|* };
            }
            pub(crate) use $all;
        )*
    };
}

opcodes! {
    Write as write_op {
    //  variant                number  name                       in `cons`
        CloseSession           = -11, "closeSession",            "CLOS";
        Create                 = 1,   "create",                  "CREA";
        Delete                 = 2,   "delete",                  "DELE";
        SetData                = 5,   "setData",                 "SETD";
        SetAcl                 = 7,   "setACL",                  "SETA";
        Multi                  = 14,  "multi",                   "MULT";
        Create2                = 15,  "create2",                 "CREA";
        Reconfig               = 16,  "reconfig",                "RECO";
        CreateContainer        = 19,  "createContainer",         "CREA";
        CreateTtl              = 21,  "createTTL",               "CREA";
    }
    Read as read_op {
        Exists                 = 3,   "exists",                  "EXIS";
        GetData                = 4,   "getData",                 "GETD";
        GetAcl                 = 6,   "getACL",                  "GETA";
        GetChildren            = 8,   "getChildren",             "GETC";
        Ping                   = 11,  "ping",                    "PING";
        GetChildren2           = 12,  "getChildren2",            "GETC";
        CheckWatches           = 17,  "checkWatches",            "CHKW";
        RemoveWatches          = 18,  "removeWatches",           "REMW";
        MultiRead              = 22,  "multiRead",               "MLTR";
        SetWatches             = 101, "setWatches",              "SETW";
        GetEphemerals          = 103, "getEphemerals",           "GETE";
        GetAllChildrenNumber   = 104, "getAllChildrenNumber",    "GETACN";
        SetWatches2            = 105, "setWatches2",             "STW2";
        AddWatch               = 106, "addWatch",                "ADDW";
        WhoAmI                 = 107, "whoAmI",                  "HOMI";
    }
    Sync as sync_op {
        Sync                   = 9,   "sync",                    "SYNC";
    }
    Auth as auth_op {
        Auth                   = 100, "auth",                    "NA";
        Sasl                   = 102, "sasl",                    "NA";
    }
    Internal as internal_op {
        CreateSession          = -10, "createSession",           "SESS";
        /// (a refused request in the log, a failed part of a multi)
        Error                  = -1,  "error",                   "NA";
        /// (in a multi only)
        Check                  = 13,  "check",                   "NA";
        /// (made by servers)
        DeleteContainer        = 20,  "deleteContainer",         "NA";
    }
}

impl Opcode {
    /// The number that stands for it in requests, logs and packets.
    #[must_use]
    pub const fn wire(self) -> i32 {
        self as i32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_operations_name_each_other() {
        for op in Opcode::ALL {
            assert_eq!(Opcode::from_wire(op.wire()), Some(*op));
        }
        let known = (-20..200).filter_map(Opcode::from_wire).count();
        assert_eq!(known, Opcode::ALL.len());
    }
}
