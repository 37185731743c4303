//! The operator against a real kube-apiserver and etcd, without kubelet: `cargo xtask test`.

mod failover;
mod plane;
