//! Pipe tests: a session served over a pipe, the test playing the daemon. The fake is a `Control` service whose
//! session call hands the test a gRPC client of the inner connection; everything of ours is the real thing.

mod daemon;
mod kinds;
mod lifetime;
mod receiver;
mod trouble;
mod views;
