//! The failures, with the words of who would tell them:
//! - kubelet: `pkg/kubelet/images/types.go`, `kuberuntime/kuberuntime_container.go`, `kubelet_pods.go`, and
//!   `volumemanager` for mounts
//! - scheduler: `pkg/scheduler/framework/types.go` ("0/%v nodes are available")
//! - volume controller: `pkg/controller/volume/persistentvolume/pv_controller.go`
//! - node controller: `pkg/controller/util/node/controller_utils.go` (`MarkPodsNotReady`)
//! - bridge: `bridge/src/{source,database,subscribe,canary,session}.rs`

use api::bridge_status::{BridgeStatus, Side};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::injection::Injection::{
    Claim, Expiry, Host, Pod, PodEvent, Quota, Says, Secret, Spec, Taken, TakenSecret, Webhook,
};
use super::injection::{Injection, certificate, unscheduled};

/// One of them.
pub(super) struct Failure {
    /// What it is.
    pub(super) name: &'static str,
    /// Of which pipeline.
    pub(super) spec: Value,
    /// How it comes about.
    pub(super) injection: Injection,
    /// Whether the pipeline works all the same.
    pub(super) ready: bool,
    /// What it is to be told as.
    pub(super) reason: &'static str,
}

/// A pipeline of a usual kind.
pub(crate) fn spec() -> Value {
    json!({
        "broker": {"users": [{"name": "one", "publish": ["a/#"]}]},
        "dashboard": {},
        "routes": [{"name": "r", "topic": "a/{place}", "payload": {"float": {"field": "v"}}}],
    })
}

fn with(path: &str, value: Value) -> Value {
    let mut spec = spec();
    let mut place = &mut spec;
    for key in path.split('.') {
        place = &mut place[key];
    }
    *place = value;
    spec
}

/// One with a user whose password is in the Secret `given`.
pub(crate) fn given() -> Value {
    let password = json!({"name": "given", "key": "password"});
    with("broker.users", json!([{"name": "one", "publish": ["a/#"], "passwordSecretRef": password}]))
}

fn waiting(reason: &str, message: &str) -> Value {
    container(json!({"waiting": {"reason": reason, "message": message}}), Value::Null)
}

fn container(state: Value, last: Value) -> Value {
    let container = json!({
        "name": "main", "image": "registry/part:1", "imageID": "", "ready": false, "restartCount": 3,
        "state": state, "lastState": last,
    });
    json!({"phase": "Pending", "containerStatuses": [container]})
}

fn broker(status: &mut BridgeStatus, reason: &str, message: &str) {
    status.broker = side(false, reason, message);
}

fn database(status: &mut BridgeStatus, reason: &str, message: &str) {
    status.database = side(false, reason, message);
}

fn side(ready: bool, reason: &str, message: &str) -> Side {
    Side { ready, reason: reason.into(), message: message.into() }
}

fn password(_: &str) -> Value {
    json!({"password": "secret-enough"})
}

fn failure(name: &'static str, reason: &'static str, spec: Value, injection: Injection) -> Failure {
    Failure { name, spec, injection, ready: false, reason }
}

/// All of them.
pub(super) fn failures() -> Vec<Failure> {
    let mut all = pods();
    all.extend(refusals());
    all.extend(words());
    all
}

fn pods() -> Vec<Failure> {
    let one = |name, reason, injection| failure(name, reason, spec(), injection);
    let exited = |reason: &str, code: i32| {
        let back_off = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 20s restarting failed container"}});
        container(back_off, json!({"terminated": {"reason": reason, "exitCode": code}}))
    };
    vec![
        one(
            "the broker's image is not found",
            "BrokerErrImagePull",
            Pod(
                "broker",
                waiting("ErrImagePull", "failed to pull and unpack image \"registry/part:1\": not found"),
            ),
        ),
        one(
            "the dashboard's image is still not found",
            "DashboardImagePullBackOff",
            Pod("dashboard", waiting("ImagePullBackOff", "Back-off pulling image \"registry/part:1\"")),
        ),
        one("the bridge gets too little memory", "BridgeOOMKilled", {
            let state = json!({"terminated": {"reason": "OOMKilled", "exitCode": 137}});
            Pod("bridge", container(state, Value::Null))
        }),
        one(
            "the database crashes again and again",
            "DatabaseCrashLoopBackOff",
            Pod("database", exited("Error", 1)),
        ),
        one(
            "a container can't be configured",
            "DashboardCreateContainerConfigError",
            Pod("dashboard", waiting("CreateContainerConfigError", "secret \"lab-dashboard\" not found")),
        ),
        one(
            "no node has room",
            "BrokerUnschedulable",
            Pod("broker", unscheduled("0/3 nodes are available: 3 Insufficient memory.")),
        ),
        one(
            "a volume has no storage class",
            "DatabaseVolumePending",
            Claim(
                "database",
                "FailedBinding",
                "no persistent volumes available for this claim and no storage class is set",
            ),
        ),
        one(
            "a volume can't be made",
            "BridgeVolumePending",
            Claim(
                "bridge",
                "ProvisioningFailed",
                "failed to provision volume with StorageClass \"fast\": rpc error: code = ResourceExhausted",
            ),
        ),
        one(
            "a volume can't be attached",
            "BrokerFailedAttachVolume",
            PodEvent(
                "broker",
                waiting("ContainerCreating", ""),
                "FailedAttachVolume",
                "Multi-Attach error for volume \"pvc-1\": volume is already exclusively attached to one node",
            ),
        ),
        one("the broker's node is silent", "BrokerNodeNotReady", {
            let condition = |type_: &str, status: &str| json!({"type": type_, "status": status});
            let conditions = [condition("Ready", "False"), condition("ContainersReady", "True")];
            Pod("broker", json!({"phase": "Running", "conditions": conditions}))
        }),
        one("a quota admits no pod of the broker", "BrokerPodRefused", Quota("broker")),
        one("a quota admits no pod of the bridge", "BridgePodRefused", Quota("bridge")),
    ]
}

fn refusals() -> Vec<Failure> {
    let own = || with("broker.tls", json!({"secretRef": {"name": "given"}}));
    let not_pem: fn(&str) -> Value = |_| json!({"tls.crt": "none", "tls.key": "none"});
    let other_key: fn(&str) -> Value = |namespace| {
        let mut one = certificate(namespace);
        one["tls.key"] = certificate(namespace)["tls.key"].take();
        one
    };
    let other_name: fn(&str) -> Value = |_| certificate("elsewhere");
    let token: fn(&str) -> Value = |_| json!({"token": "t"});
    let twice = with(
        "routes",
        json!([{"name": "r", "topic": "a/{place}", "tags": [{"name": "place", "value": "x"}],
        "payload": {"float": {"field": "v"}}}]),
    );
    let mut without = spec();
    without.as_object_mut().map(|spec| spec.remove("dashboard"));
    let no_token: fn(&str) -> Value = |_| json!({"other": "t"});
    vec![
        failure("a user's Secret is deleted", "SecretNotFound", given(), Secret(password, None)),
        failure(
            "a user's Secret loses its key",
            "SecretIncomplete",
            given(),
            Secret(password, Some(|_| json!({"other": "x"}))),
        ),
        failure(
            "a user's password can't be written down",
            "InvalidSpec",
            given(),
            Secret(password, Some(|_| json!({"password": "one\ntwo"}))),
        ),
        failure("a certificate is not PEM", "CertificateInvalid", own(), Secret(certificate, Some(not_pem))),
        failure(
            "a certificate has another's key",
            "CertificateInvalid",
            own(),
            Secret(certificate, Some(other_key)),
        ),
        failure(
            "a certificate is for another name",
            "CertificateInvalid",
            own(),
            Secret(certificate, Some(other_name)),
        ),
        failure("a certificate expires", "CertificateExpired", own(), Expiry),
        failure(
            "Grafana's Secret loses its token",
            "SecretIncomplete",
            outside(),
            Secret(token, Some(no_token)),
        ),
        failure("a name is somebody else's", "NameTaken", without.clone(), Taken("lab-dashboard", spec())),
        failure("a Secret is somebody else's", "NameTaken", without, TakenSecret("lab-dashboard", spec())),
        failure("a route names a tag twice", "InvalidSpec", spec(), Spec(twice)),
        failure("a write fails again and again", "WriteFailed", spec(), Webhook),
    ]
}

const GRAFANA: &str = "grafana.NAMESPACE.example";

fn outside() -> Value {
    let external = json!({"url": format!("http://{GRAFANA}"), "credentialsSecretRef": {"name": "given"}});
    with("dashboard", json!({"external": external}))
}

fn words() -> Vec<Failure> {
    let one = |name, reason, words: fn(&mut BridgeStatus)| failure(name, reason, spec(), Says(Some(words)));
    let works =
        |name, reason, words: fn(&mut BridgeStatus)| Failure { ready: true, ..one(name, reason, words) };
    vec![
        one("the broker refuses the bridge's password", "BrokerNotAuthorized", |status| {
            broker(status, "NotAuthorized", "the broker refuses the connection: BadUserNamePassword");
        }),
        one("DNS is gone", "BrokerUnreachable", |status| {
            broker(status, "Unreachable", "cannot connect: failed to lookup address information");
        }),
        one("the broker refuses a subscription", "BrokerSubscriptionRefused", |status| {
            broker(
                status,
                "SubscriptionRefused",
                "the broker refuses the subscription to a/#: NotAuthorized",
            );
        }),
        one("the broker's certificate has expired", "BrokerDisconnected", |status| {
            broker(status, "Disconnected", "invalid peer certificate: certificate expired");
        }),
        one("the database's token is revoked", "DatabaseNotAuthorized", |status| {
            database(status, "NotAuthorized", "the database does not accept the token: unauthorized access");
        }),
        one("the database's disk is full", "DatabaseServerError", |status| {
            database(status, "ServerError", "the database failed with status 500: no space left on device");
        }),
        one("the database is read-only", "DatabaseUnavailable", |status| {
            database(status, "Unavailable", "the database is not available: read-only file system");
        }),
        one("the database hangs", "DatabaseUnresponsive", |status| {
            database(status, "Unresponsive", "the database has not answered for 2 s");
        }),
        one("the database's bucket is deleted", "DatabaseNotFound", |status| {
            database(
                status,
                "NotFound",
                "the organization or the bucket does not exist: bucket \"metrics\" not found",
            );
        }),
        one("the database is asked too much", "DatabaseTooManyRequests", |status| {
            let message =
                "the database asks for fewer writes: limit exceeded; it asks to be left alone for 60 s";
            database(status, "TooManyRequests", message);
        }),
        one("the database answers no write", "DatabaseTimeout", |status| {
            database(status, "Timeout", "the database did not answer within 30 s");
        }),
        one("the database refuses each request", "DatabaseBadRequest", |status| {
            database(
                status,
                "BadRequest",
                "the database refuses a write without points: org name or id required",
            );
        }),
        one("both sides answer and nothing crosses", "BridgeNotCrossing", |status| {
            status.crossing =
                Some(side(false, "NotCrossing", "a message of the bridge's own was not stored"));
        }),
        one("the bridge refuses its configuration", "BridgeConfigurationRefused", |status| {
            status.config_error = Some("routes[0]: the topic is empty".into());
        }),
        failure("the bridge doesn't answer", "BridgeUnreachable", spec(), Says(None)),
        works("the bridge can't keep up", "BridgeBehind", |status| {
            status.crossing = Some(side(true, "Behind", "messages wait for more than 2 s"));
        }),
        works("dead letters", "BridgeDeadLetters", |status| {
            status.crossing =
                Some(side(true, "DeadLetters", "messages are refused, the last by the route r"));
        }),
        works("the broker drops messages", "BrokerDropped", |status| {
            status.crossing = Some(side(true, "BrokerDropped", "the broker has dropped 7 messages"));
        }),
        failure("the Grafana outside revokes the token", "DashboardNotAuthorized", outside(), {
            Host(GRAFANA, StatusCode::UNAUTHORIZED, "Invalid API key")
        }),
        failure("the Grafana outside fails", "DashboardUnexpectedAnswer", outside(), {
            Host(GRAFANA, StatusCode::INTERNAL_SERVER_ERROR, "database is locked")
        }),
    ]
}
