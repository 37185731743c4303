//! What the operator costs: many pipelines on a real kube-apiserver and etcd, with fakes in the place of
//! all that would run.
//!
//! Reading guide: `fleet` (the pipelines), `tally` (counts what a watch tells), `floor` (the same objects
//! by a bare client), `run` (the measurements, in their order), `report` (what comes of them).

pub mod fleet;
pub mod floor;
pub mod report;
pub mod run;
pub mod tally;
