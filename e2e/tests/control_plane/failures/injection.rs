//! How a failure is brought about, and mended.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use axum::http::StatusCode;
use iotpipeline_e2e::conditions::eventually_true;
use iotpipeline_e2e::control_plane::apply;
use iotpipeline_e2e::stage::{Stage, Words, event};
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Secret, Service};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

use super::{PATIENCE, pipeline};

/// Where a pipeline fails.
pub(crate) struct Scene<'a> {
    /// May do everything.
    pub(crate) client: Client,
    /// The fakes.
    pub(crate) stage: &'a Stage,
    /// The pipeline `lab` is in it.
    pub(crate) namespace: String,
}

/// What goes wrong.
pub(super) enum Injection {
    /// The kubelet or the scheduler writes this into the status of a part's pod.
    Pod(&'static str, Value),
    /// The same, and an event about the pod.
    PodEvent(&'static str, Value, &'static str, &'static str),
    /// The part's volume claim is pending, with this event about it.
    Claim(&'static str, &'static str, &'static str),
    /// The namespace has a quota that no new pod fits in, and the part's pod goes.
    Quota(&'static str),
    /// The bridge says something else of itself.
    Says(Words),
    /// This host answers so; `NAMESPACE` in its name is the pipeline's.
    Host(&'static str, StatusCode, &'static str),
    /// The Secret `given` becomes this; nothing, if it is deleted.
    Secret(fn(&str) -> Value, Option<fn(&str) -> Value>),
    /// The certificate in the Secret `given` runs out.
    Expiry,
    /// A Service of this name is somebody else's, when the spec comes to need it.
    Taken(&'static str, Value),
    /// The same of a Secret.
    TakenSecret(&'static str, Value),
    /// The spec becomes this.
    Spec(Value),
    /// An admission webhook for new Services doesn't answer, and the broker's Service is deleted.
    Webhook,
}

/// How long the certificate lasts that is to run out: until its pipeline is ready, and a bit longer.
const SHORT: Duration = Duration::from_secs(25);

impl Injection {
    /// What must be there before the pipeline.
    pub(super) async fn prepare(&self, scene: &Scene<'_>) -> Result<()> {
        match self {
            Self::Secret(good, _) => scene.give(good(&scene.namespace)).await,
            Self::Host(..) => scene.give(json!({"token": "t"})).await,
            Self::Expiry => scene.give(certificate_until(&scene.namespace, now_and(SHORT))).await,
            _ => Ok(()),
        }
    }

    /// Lets it happen; returns when that began.
    pub(super) async fn inject(&self, scene: &Scene<'_>) -> Result<Instant> {
        let Scene { client, stage, namespace } = scene;
        let start = Instant::now();
        match self {
            Self::Pod(part, status) => scene.pod_is(part, status.clone()).await?,
            Self::PodEvent(part, status, reason, message) => {
                scene.pod_is(part, status.clone()).await?;
                let pod = scene.api::<Pod>().get(&format!("lab-{part}-0")).await?;
                event(client, pod.object_ref(&()), "Warning", reason, message).await?;
            }
            Self::Claim(part, reason, message) => {
                let claim = scene.claim(part).await?;
                let status = unscheduled(
                    "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims. preemption: 0/1 nodes \
                     are available: 1 Preemption is not helpful for scheduling.",
                );
                scene.pod_is(part, status).await?;
                event(client, claim.object_ref(&()), "Warning", reason, message).await?;
            }
            Self::Quota(part) => {
                quota(&scene.api(), "pods").await?;
                stage.pod_goes::<StatefulSet>(namespace, part).await?;
            }
            Self::Says(words) => stage.bridges_say(namespace, Some(*words)),
            Self::Host(host, code, message) => {
                stage.host_answers(&host.replace("NAMESPACE", namespace), Some((*code, message)));
            }
            Self::Secret(_, Some(bad)) => scene.give(bad(namespace)).await?,
            Self::Secret(_, None) => {
                scene.api::<Secret>().delete("given", &DeleteParams::default()).await?;
            }
            Self::Expiry => return scene.expired().await,
            Self::Webhook => return scene.webhook_breaks().await,
            Self::Taken(name, spec) => {
                let service: Service = serde_json::from_value(json!({
                    "metadata": {"name": name}, "spec": {"ports": [{"port": 1}]},
                }))?;
                scene.api().create(&PostParams::default(), &service).await?;
                apply(client, pipeline(namespace, spec)).await?;
            }
            Self::TakenSecret(name, spec) => {
                let secret = json!({"metadata": {"name": name}, "stringData": {"token": "theirs", "password": "theirs"}});
                let secret: Secret = serde_json::from_value(secret)?;
                scene.api().create(&PostParams::default(), &secret).await?;
                apply(client, pipeline(namespace, spec)).await?;
            }
            Self::Spec(bad) => drop(apply(client, pipeline(namespace, bad)).await?),
        }
        Ok(start)
    }

    /// Mends it.
    pub(super) async fn undo(&self, scene: &Scene<'_>, spec: &Value) -> Result<()> {
        let Scene { client, stage, namespace } = scene;
        match self {
            Self::Pod(part, _) | Self::PodEvent(part, ..) => scene.pod_starts(part).await,
            Self::Claim(part, ..) => {
                scene
                    .api::<PersistentVolumeClaim>()
                    .delete(&claim_name(part), &DeleteParams::default())
                    .await?;
                scene.pod_starts(part).await
            }
            Self::Quota(part) => {
                scene.api::<ResourceQuota>().delete("none", &DeleteParams::default()).await?;
                scene.pod_starts(part).await
            }
            Self::Says(_) => {
                stage.bridges_say(namespace, None);
                Ok(())
            }
            Self::Host(host, ..) => {
                stage.host_answers(&host.replace("NAMESPACE", namespace), None);
                Ok(())
            }
            Self::Secret(good, _) => scene.give(good(namespace)).await,
            Self::Expiry => scene.give(certificate(namespace)).await,
            Self::Taken(name, _) => {
                scene.api::<Service>().delete(name, &DeleteParams::default()).await?;
                Ok(())
            }
            Self::TakenSecret(name, _) => {
                let secret = scene.api::<Secret>().get(name).await?;
                let is_theirs =
                    secret.data.as_ref().is_some_and(|data| data.len() == 2 && data["token"].0 == b"theirs");
                let is_free = secret.metadata.owner_references.is_none() && secret.metadata.labels.is_none();
                ensure!(is_theirs && is_free, "it was taken over: {:?}", secret.metadata);
                scene.api::<Secret>().delete(name, &DeleteParams::default()).await?;
                Ok(())
            }
            Self::Spec(_) => apply(client, pipeline(namespace, spec)).await.map(drop),
            Self::Webhook => {
                let webhooks: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
                webhooks.delete(namespace, &DeleteParams::default()).await?;
                Ok(())
            }
        }
    }
}

impl Scene<'_> {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn pod_is(&self, part: &str, status: Value) -> Result<()> {
        match part {
            "dashboard" => self.stage.pod_is::<Deployment>(&self.namespace, part, status).await,
            _ => self.stage.pod_is::<StatefulSet>(&self.namespace, part, status).await,
        }
    }

    async fn pod_starts(&self, part: &str) -> Result<()> {
        match part {
            "dashboard" => self.stage.pod_starts::<Deployment>(&self.namespace, part).await,
            _ => self.stage.pod_starts::<StatefulSet>(&self.namespace, part).await,
        }
    }

    async fn give(&self, data: Value) -> Result<()> {
        let metadata = json!({"name": "given", "namespace": self.namespace});
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data});
        // Replaced as a whole: what was there before is not to remain.
        let secrets = self.api::<Secret>();
        let _ = secrets.delete("given", &DeleteParams::default()).await;
        secrets.create(&PostParams::default(), &serde_json::from_value(secret)?).await?;
        Ok(())
    }

    /// The claim that the set's controller would have made.
    pub(crate) async fn claim(&self, part: &str) -> Result<PersistentVolumeClaim> {
        let set = self.api::<StatefulSet>().get(&format!("lab-{part}")).await?;
        let templates = set.spec.volume_claim_templates.unwrap_or_default();
        let mut claim = templates.into_iter().next().context("the set has a volume")?;
        claim.metadata.name = Some(claim_name(part));
        claim.status = None;
        let claims = self.api::<PersistentVolumeClaim>();
        claims.create(&PostParams::default(), &claim).await?;
        let pending = Patch::Merge(json!({"status": {"phase": "Pending"}}));
        Ok(claims.patch_status(&claim_name(part), &PatchParams::default(), &pending).await?)
    }

    /// Lets a write be needed that a webhook without a server refuses, once the API server asks it.
    async fn webhook_breaks(&self) -> Result<Instant> {
        let Self { client, namespace, .. } = self;
        let configuration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": namespace},
            "webhooks": [{
                "name": "services.broken.example",
                // Nobody listens there.
                "clientConfig": {"url": "https://127.0.0.1:1/"},
                "rules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["services"],
                }],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "failurePolicy": "Fail", "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "timeoutSeconds": 1,
            }],
        });
        apply(client, configuration).await?;
        let services = self.api::<Service>();
        let tried: Service =
            serde_json::from_value(json!({"metadata": {"name": "tried"}, "spec": {"ports": [{"port": 1}]}}))?;
        until_refused(&services, &tried, 500).await?;
        let start = Instant::now();
        services.delete("lab-broker", &DeleteParams::default()).await?;
        Ok(start)
    }

    /// Waits until the certificate has expired.
    async fn expired(&self) -> Result<Instant> {
        let secret = self.api::<Secret>().get("given").await?;
        let until = secret.metadata.creation_timestamp.context("a time")?.0;
        // A certificate's times are whole seconds, and so is the Secret's.
        let until = until.as_second() + i64::try_from(SHORT.as_secs())?;
        let left = until - Timestamp::now().as_second();
        tokio::time::sleep(Duration::from_secs(u64::try_from(left).unwrap_or(0))).await;
        Ok(Instant::now())
    }
}

/// A real quota, that nothing new of this kind fits in. Its usage is what the quota controller would write, without which
/// nothing is admitted.
pub(crate) async fn quota(quotas: &Api<ResourceQuota>, kind: &str) -> Result<()> {
    let quota = json!({"metadata": {"name": "none"}, "spec": {"hard": {kind: "1"}}});
    quotas.create(&PostParams::default(), &serde_json::from_value(quota)?).await?;
    let status = json!({"status": {"hard": {kind: "1"}, "used": {kind: "4"}}});
    quotas.patch_status("none", &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(())
}

/// Waits until the API server refuses a new object with this code.
pub(crate) async fn until_refused<K>(api: &Api<K>, tried: &K, code: u16) -> Result<()>
where
    K: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let trial = PostParams { dry_run: true, ..PostParams::default() };
    eventually_true(format!("it is refused with {code}"), PATIENCE, async || {
        match api.create(&trial, tried).await {
            Ok(_) => Ok(false),
            Err(kube::Error::Api(refusal)) => Ok(refusal.code == code),
            Err(error) => Err(error.into()),
        }
    })
    .await
}

fn claim_name(part: &str) -> String {
    format!("data-lab-{part}-0")
}

fn now_and(more: Duration) -> Timestamp {
    Timestamp::now() + more
}

/// A pod that no node takes, in the scheduler's words.
pub(crate) fn unscheduled(message: &str) -> Value {
    let condition =
        json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message});
    json!({"phase": "Pending", "conditions": [condition], "containerStatuses": null})
}

/// A good certificate for the broker.
pub(crate) fn certificate(namespace: &str) -> Value {
    certificate_until(namespace, now_and(Duration::from_secs(86_400)))
}

fn certificate_until(namespace: &str, until: Timestamp) -> Value {
    let key = KeyPair::generate().expect("a key");
    let host = format!("lab-broker.{namespace}.svc");
    let mut parameters = CertificateParams::new([host]).expect("a name");
    let until = until.as_second() - Timestamp::UNIX_EPOCH.as_second();
    parameters.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(until.unsigned_abs());
    let signed = parameters.self_signed(&key).expect("a certificate");
    json!({"tls.crt": signed.pem(), "tls.key": key.serialize_pem()})
}
