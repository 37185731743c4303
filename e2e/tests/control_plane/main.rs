//! The operator against a real kube-apiserver and etcd, without kubelet: `cargo xtask test`.
//!
//! What would run in pods is played by fakes (`stage`), which make everything ready at once. So these tests
//! show what the operator asks and writes, and not that messages flow.

mod backups;
mod failover;
mod failures;
mod faults;
mod outage;
mod plane;
mod retention;
mod rights;
mod secrecy;
mod silence;
mod taken_back;
