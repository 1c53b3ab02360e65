//! Which server: the hosts of a database, and what may go to which of them.

pub mod cluster;
pub mod host;
pub mod replicas;
pub mod router;
pub mod wal;
