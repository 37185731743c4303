//! The harness of the tests against real brokers, databases and clusters.
//!
//! Reading guide: `environment` (what `cargo xtask` tells us), `conditions` (waiting without
//! sleeping), `namespaces` and `diagnostics` (a place for a test, and what it leaves when it fails),
//! `pipeline` (an `IoTPipeline` in the cluster and its parts), `port_forward` (the way in: from the
//! host all traffic goes through 127.0.0.1), `mqtt`, `publisher` and `influx` (witnesses that are not
//! our code), `faults` and `nodes` (kills of containers and of nodes in the cluster), `containers`, `programs` and
//! `bridge_process` (the same parts on loopback, without a cluster), `doors` (a broker that is reached in every way),
//! `fault_proxy` and `soak` (faults at random between them),
//! `bench` (the bridge measured beside Telegraf), `control_plane` (etcd and kube-apiserver without a
//! cluster), `stage` (fakes of what is not there then), `operator_process` (the operator before both),
//! `operator_bench` (what it costs), `replica` (one of several), `failover` (which of them writes),
//! `leaks` (what is secret, looked for where it doesn't belong), `api_proxy` and `convergence` (faults between
//! operator and API server, and what there is in the end),
//! `grafana` (Grafana's API, or its stand-in's), `stand_in` (the stand-in as a process), `plot` (curves
//! in a terminal); `http`, `process` and `scratch` serve the others.

pub mod api_proxy;
pub mod bench;
pub mod bridge_process;
pub mod conditions;
pub mod containers;
pub mod control_plane;
pub mod convergence;
pub mod diagnostics;
pub mod doors;
pub mod environment;
pub mod failover;
pub mod fault_proxy;
pub mod faults;
pub mod grafana;
pub mod http;
pub mod influx;
pub mod leaks;
pub mod mqtt;
pub mod namespaces;
pub mod nodes;
pub mod operator_bench;
pub mod operator_process;
pub mod pipeline;
pub mod plot;
pub mod port_forward;
pub mod process;
pub mod programs;
pub mod publisher;
pub mod replica;
pub mod scratch;
pub mod soak;
pub mod stage;
pub mod stand_in;
