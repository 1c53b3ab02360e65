//! Which server: the hosts of a database, and what may go to which of them.

pub mod cluster;
pub mod host;
pub mod observation;
pub mod primary;
pub mod replicas;
pub mod router;
pub mod topology;
pub mod wal;
