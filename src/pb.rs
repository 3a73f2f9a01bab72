//! Generated from `proto/` by `make protos`; no hand-written line below this module.
#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code; proto/ carries the comments")]

include!("pb/tree.rs");
