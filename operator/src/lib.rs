//! The operator: makes the cluster what each `IoTPipeline` says, and says how it is.
//!
//! Read in this order: [`controller`] (a pass, as a list of steps), [`observe`] (what is), [`plan`]
//! (what is to be, or why not), [`resources`] (the objects of a plan: pure), [`apply`] (write what
//! differs), [`status`] (what is told). [`influxdb`] and [`grafana`] are the APIs of the parts;
//! [`leader`] says which of several operators works, and [`cluster`] makes the client by which the others
//! can't; [`reload`] is the broker's sidecar and [`backup`] what Jobs run, which share only the binary.
//!
//! Only [`controller`], [`observe`], [`apply`], [`influxdb`], [`grafana`], [`leader`] and [`backup`] reach into
//! the network.

pub mod apply;
pub mod backup;
pub mod cache;
pub mod certificate;
pub mod cluster;
pub mod compare;
pub mod config;
pub mod controller;
pub mod credentials;
pub mod grafana;
pub mod health;
pub mod http;
pub mod influxdb;
pub mod leader;
pub mod metrics;
pub mod observe;
pub mod plan;
pub mod rbac;
pub mod reload;
pub mod resources;
pub mod status;
pub mod workload;
