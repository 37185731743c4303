//! The soak: numbered messages, and faults at random moments, run after run. What publishers saw
//! acknowledged must be in InfluxDB once: none missing, none twice, none merged with another. What can't be
//! stored must be a dead letter instead. Meanwhile the bridge sends its canaries, and a route comes and goes.
//!
//! Reading guide: `plan` (what goes wrong and when, drawn from a seed), `load` (what is published, and
//! what publishers know of it), `letters` (who reads the dead letters), `rig` (the parts and what a fault
//! does to them), `run` (all of it together), `audit` (the verdict), `series` (many runs and their summary).

pub mod audit;
pub mod letters;
pub mod load;
pub mod plan;
pub mod rig;
pub mod run;
pub mod series;
