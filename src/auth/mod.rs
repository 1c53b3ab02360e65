//! Authentication: secrets, and the conversations that prove them. Pure.
//!
//! [`exchange`] is the server's side towards clients, [`server_login`] the client's side towards PostgreSQL; both
//! use [`scram`] and [`md5`]. [`mock`] is what unknown users are shown, [`require`] what a server may ask for.
//! [`secret`] is what is stored, [`userlist`] the file it is stored in. [`hba`] says who has to prove what; [`ldap`] is
//! how a directory is asked.

pub mod exchange;
pub mod hba;
pub mod ldap;
pub mod md5;
pub mod mock;
pub mod require;
pub mod scram;
pub mod secret;
pub mod server_login;
pub mod userlist;
