//! Where to look further.

use iotpipeline_e2e::environment::grafana_is_stand_in;

const GRAFANA: &str = "
  Grafana:   kubectl -n lab port-forward service/lab-dashboard 3000:3000
             http://127.0.0.1:3000, user admin, password:
             kubectl -n lab get secret lab-dashboard -o jsonpath='{.data.password}' | base64 -d";

const STAND_IN: &str = "
  Grafana:   a stand-in took its place, since its image can't be pulled here. It answers parts of Grafana's
             API from the same provisioned files, and draws nothing. Where the image can be pulled:
             kubectl -n lab port-forward service/lab-dashboard 3000:3000
             http://127.0.0.1:3000, user admin, password:
             kubectl -n lab get secret lab-dashboard -o jsonpath='{.data.password}' | base64 -d";

const BEFORE: &str = "
Look further, in this directory:

  export KUBECONFIG=$PWD/target/cluster/kubeconfig PATH=$PWD/target/cluster/bin:$PATH
  kubectl -n lab get iotpipeline lab
  kubectl -n lab describe iotpipeline lab

  MQTT:      kubectl -n lab port-forward service/lab-broker 8883:8883
             user raspberry, password:
             kubectl -n lab get secret lab-broker-raspberry -o jsonpath='{.data.password}' | base64 -d
             kubectl -n lab get secret lab-broker-raspberry -o jsonpath='{.data.ca\\.crt}' | base64 -d > ca.crt
             mosquitto_pub -h localhost -p 8883 --cafile ca.crt -q 1 -u raspberry -P … -t sensor/accelero/roll -m 359.9
  InfluxDB:  kubectl -n lab port-forward service/lab-database 8086:8086
             its API is at http://127.0.0.1:8086: organization lab, bucket mesure, token:
             kubectl -n lab get secret lab-database -o jsonpath='{.data.token}' | base64 -d";

const AFTER: &str = "

Change a route while messages flow: it takes effect within 2 s, and nothing restarts.

  kubectl -n lab edit iotpipeline lab        # spec.routes; `kubectl explain iotpipeline.spec.routes` teaches
  kubectl -n lab get events --watch

Take it down:

  kubectl -n lab delete iotpipeline lab      # its volumes stay: apply it again, and the data is there
  cargo xtask demo --down                    # the whole cluster
";

/// Prints it.
pub(crate) fn print() {
    let grafana = if grafana_is_stand_in() { STAND_IN } else { GRAFANA };
    println!("{BEFORE}{grafana}{AFTER}");
}
