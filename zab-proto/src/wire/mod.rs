//! The bytes of ZooKeeper's peer protocols.
