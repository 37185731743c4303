//! Desired objects as text.

use iotpipeline_operator::resources::backup::BackupObjects;
use iotpipeline_operator::resources::{
    BridgeObjects, BrokerObjects, DashboardObjects, DatabaseObjects, Desired, Surroundings,
};
use serde::Serialize;
use serde_json::Value;

/// In the order of the apply; Secrets with their text, which is what a reviewer must see.
pub(crate) fn render(desired: &Desired) -> String {
    let Desired {
        authority,
        certificates,
        broker,
        database,
        bridge,
        dashboard,
        dashboard_token,
        backups,
        restore,
        surroundings,
    } = desired;
    let Surroundings { network_policies, disruption_budgets, ingresses, routes } = surroundings;
    let mut documents: Vec<String> = network_policies.iter().map(document).collect();
    documents.extend(disruption_budgets.iter().map(document));
    documents.extend(ingresses.iter().map(document));
    documents.extend(routes.iter().map(document));
    documents.extend(authority.iter().map(document));
    documents.extend(certificates.iter().map(document));
    if let Some(BrokerObjects { user_secrets, secret, service, stateful_set, live_hash: _ }) = broker {
        documents.extend(user_secrets.iter().map(document));
        documents.extend([document(secret), document(service), document(stateful_set)]);
    }
    if let Some(DatabaseObjects { secret, service, stateful_set }) = database {
        documents.extend([document(secret), document(service), document(stateful_set)]);
    }
    if let Some(BridgeObjects { secret, config_map, service, stateful_set, .. }) = bridge.wanted() {
        documents.extend([document(secret), document(config_map), document(service), document(stateful_set)]);
    }
    if let Some(DashboardObjects { secret, config_map, service, deployment, live_hash: _ }) =
        dashboard.wanted()
    {
        documents.extend([document(secret), document(config_map), document(service), document(deployment)]);
    }
    documents.extend(dashboard_token.iter().map(document));
    if let Some(BackupObjects { claim, cron_job, job }) = backups.wanted() {
        documents.extend(claim.iter().map(document));
        documents.extend(cron_job.iter().map(document));
        documents.extend(job.iter().map(document));
    }
    documents.extend(restore.wanted().map(document));
    documents.join("---\n")
}

fn document(object: &impl Serialize) -> String {
    let mut value = serde_json::to_value(object).expect("an object is JSON");
    if value["kind"] == "Secret" {
        let secret: k8s_openapi::api::core::v1::Secret =
            serde_json::from_value(value.clone()).expect("it is a Secret");
        let text = |bytes: &k8s_openapi::ByteString| String::from_utf8_lossy(&bytes.0).into_owned();
        let data = secret.data.iter().flatten().map(|(key, bytes)| (key.clone(), Value::String(text(bytes))));
        value["stringData"] = Value::Object(data.collect());
        value.as_object_mut().expect("an object").remove("data");
    }
    if let Some(json) = value["data"]["dashboard.json"].as_str() {
        let dashboard: Value = serde_json::from_str(json).expect("the dashboard is JSON");
        let pretty = serde_json::to_string_pretty(&dashboard).expect("it stays JSON");
        value["data"]["dashboard.json"] = Value::String(pretty);
    }
    let yaml = serde_saphyr::to_string(&value).expect("JSON is YAML");
    if yaml.ends_with('\n') { yaml } else { format!("{yaml}\n") }
}
