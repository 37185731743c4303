//! What the operator costs: many pipelines on a real kube-apiserver and etcd, with fakes in the place of
//! all that would run.
//!
//! Reading guide: `fleet` (the pipelines), `tally` (counts what a watch tells), `floor` (the same objects
//! by a bare client), `anchor` (another operator), `settled` (who writes nothing, and what that costs), `run` (the
//! measurements, in their order), `report` and `table` (what comes of them).

mod anchor;
pub mod fleet;
pub mod floor;
pub mod report;
pub mod run;
pub mod settled;
mod table;
pub mod tally;
