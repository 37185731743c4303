//! What the operator, the bridge and the tests agree on.
//!
//! Read in this order: [`route`] (which topics become which points), [`topic`] (the patterns that
//! routes match), [`bridge_config`] (the file that the operator writes and the bridge reads),
//! [`bridge_status`] (what the bridge says of itself), and with the feature `crd` `iotpipeline`
//! (the Kubernetes resource) and its parts: `backup`, `lifecycle`, `placement`.

#[cfg(feature = "crd")]
pub mod backup;
pub mod bridge_config;
pub mod bridge_status;
#[cfg(feature = "crd")]
pub mod definition;
#[cfg(feature = "crd")]
pub mod iotpipeline;
#[cfg(feature = "crd")]
pub mod lifecycle;
#[cfg(feature = "crd")]
pub mod placement;
pub mod route;
mod schema;
pub mod topic;
