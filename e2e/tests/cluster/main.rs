//! Behaviours of the whole, in a real cluster with the operator installed: `cargo xtask test`.
//!
//! Each in a namespace of its own that enforces the Pod Security Standard `restricted`, so that every
//! test here also shows that the pods pass it. Witnesses are never our own code: clients are
//! rumqttc's, points are read back by the influxdb2 crate.

mod api_refusals;
mod backup;
mod certificates;
mod deletion;
mod drift;
mod external_parts;
mod isolation;
mod kills;
mod lab;
mod lifecycle;
mod live_route;
mod live_user;
mod refused_clients;
mod replicas;
mod rotation;
mod secrecy;
mod silence;
mod uninstall;

use std::time::Duration;

/// How long a single thing may take that should take a second or two.
const SOON: Duration = Duration::from_secs(60);

/// A pipeline without a dashboard, that stores numbered messages.
const NUMBERS: &str = "
apiVersion: iotpipeline.io/v1alpha1
kind: IoTPipeline
metadata: {name: numbers}
spec:
  broker:
    storage: {size: 1Gi}
    users:
    - {name: sensor, publish: [load/#, late/#]}
  database: {organization: lab, bucket: mesure, storage: {size: 1Gi}}
  routes:
  - name: numbers
    topic: load/numbers
    payload: {json: {fields: [{path: 'n', type: integer}], timestamp: {path: ts, unit: ms}}}
";

/// A numbered message's payload: each number has a time of its own, so no two points merge.
fn numbered(number: u64) -> String {
    format!(r#"{{"n":{number},"ts":{}}}"#, 1_795_000_000_000 + number)
}
