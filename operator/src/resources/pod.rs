//! What the parts' pods share: Pod Security `restricted`, probes, volumes, sets with one volume.

use api::iotpipeline::PullPolicy;
use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec,
};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, EmptyDirVolumeSource, EnvVar, EnvVarSource,
    HTTPGetAction, KeyToPath, LocalObjectReference, ObjectFieldSelector, PersistentVolumeClaim,
    PersistentVolumeClaimSpec, PodSecurityContext, PodSpec, PodTemplateSpec, Probe, SeccompProfile,
    SecretVolumeSource, SecurityContext, Service, ServicePort, ServiceSpec, Toleration, Volume, VolumeMount,
    VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::names::{Component, RESTART_HASH};
use super::part_metadata;
use crate::compare::is_contained;
use crate::config::ImageReference;
use crate::plan::{self, Identity};

/// A pod, but for what is the same in all of them.
pub(super) struct Pod {
    pub(super) component: Component,
    /// The user and the group that all processes run as; volumes belong to the group.
    pub(super) user: i64,
    pub(super) images: Vec<ImageReference>,
    pub(super) containers: Vec<Container>,
    pub(super) volumes: Vec<Volume>,
    /// The hash of what is read at the start only: the pod restarts when it changes.
    pub(super) restart_hash: Option<String>,
    /// All containers see each other's processes.
    pub(super) shared_processes: bool,
    pub(super) grace_seconds: i64,
}

pub(super) fn template(pipeline: &Identity, pod: Pod) -> PodTemplateSpec {
    let Pod { component, user, images, containers, volumes, restart_hash, shared_processes, grace_seconds } =
        pod;
    let mut pull_secrets: Vec<LocalObjectReference> = Vec::new();
    for name in images.into_iter().flat_map(|image| image.pull_secrets) {
        let secret = LocalObjectReference { name };
        if !pull_secrets.contains(&secret) {
            pull_secrets.push(secret);
        }
    }
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(pipeline.names.labels(component)),
            annotations: restart_hash.map(|hash| [(RESTART_HASH.to_owned(), hash)].into()),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            containers,
            volumes: Some(volumes),
            image_pull_secrets: Some(pull_secrets).filter(|secrets| !secrets.is_empty()),
            share_process_namespace: shared_processes.then_some(true),
            termination_grace_period_seconds: Some(grace_seconds),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(user),
                run_as_group: Some(user),
                fs_group: Some(user),
                fs_group_change_policy: Some("OnRootMismatch".into()),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".into(),
                    localhost_profile: None,
                }),
                ..PodSecurityContext::default()
            }),
            ..PodSpec::default()
        }),
    }
}

/// Of a pod that keeps nothing: it leaves a node soon that Kubernetes no longer hears of, instead of after five
/// minutes. A pod with a volume stays: nothing takes its place before its node is back or known to be off.
pub(super) fn leaving_silent_nodes(mut template: PodTemplateSpec) -> PodTemplateSpec {
    let toleration = |key: &str| Toleration {
        key: Some(format!("node.kubernetes.io/{key}")),
        operator: Some("Exists".into()),
        effect: Some("NoExecute".into()),
        toleration_seconds: Some(30),
        ..Toleration::default()
    };
    if let Some(spec) = &mut template.spec {
        spec.tolerations = Some(vec![toleration("not-ready"), toleration("unreachable")]);
    }
    template
}

/// A container with no right that it doesn't need. The caller adds what it runs.
pub(super) fn container(name: &str, image: &ImageReference) -> Container {
    Container {
        name: name.into(),
        image: Some(image.reference.clone()),
        image_pull_policy: image.pull_policy.map(|policy| {
            match policy {
                PullPolicy::Always => "Always",
                PullPolicy::IfNotPresent => "IfNotPresent",
                PullPolicy::Never => "Never",
            }
            .into()
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

/// A set of one pod with one volume, which stays when the set goes.
pub(super) fn stateful_set(
    pipeline: &Identity,
    component: Component,
    template: PodTemplateSpec,
    claims: Vec<PersistentVolumeClaim>,
) -> StatefulSet {
    StatefulSet {
        metadata: part_metadata(pipeline, component),
        spec: StatefulSetSpec {
            replicas: Some(1),
            // Otherwise a set whose pod never gets ready would never get the template that mends it.
            pod_management_policy: Some("Parallel".into()),
            service_name: Some(pipeline.names.of_part(component)),
            selector: LabelSelector {
                match_labels: Some(pipeline.names.selector(component)),
                ..LabelSelector::default()
            },
            template,
            volume_claim_templates: Some(claims),
            persistent_volume_claim_retention_policy: Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
                when_deleted: Some("Retain".into()),
                when_scaled: Some("Retain".into()),
            }),
            ..StatefulSetSpec::default()
        },
        status: None,
    }
}

/// The claim templates of a set: as they are, if there is a set, since they can't be changed.
pub(super) fn claims(
    pipeline: &Identity,
    component: Component,
    name: &str,
    volume: &plan::Volume,
) -> Vec<PersistentVolumeClaim> {
    let wanted = new_claims(pipeline, component, name, volume);
    match &volume.existing {
        // What the API server has added to them is not the operator's to apply.
        Some(existing) if !contains(existing, &wanted) => existing.clone(),
        _ => wanted,
    }
}

fn contains(existing: &[PersistentVolumeClaim], wanted: &[PersistentVolumeClaim]) -> bool {
    let values =
        serde_json::to_value(wanted).and_then(|wanted| Ok((wanted, serde_json::to_value(existing)?)));
    values.is_ok_and(|(wanted, existing)| is_contained(&wanted, &existing))
}

fn new_claims(
    pipeline: &Identity,
    component: Component,
    name: &str,
    volume: &plan::Volume,
) -> Vec<PersistentVolumeClaim> {
    let mut new = claim(pipeline, component, volume);
    new.metadata.name = Some(name.into());
    vec![new]
}

/// A claim without a name.
pub(super) fn claim(
    pipeline: &Identity,
    component: Component,
    volume: &plan::Volume,
) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: ObjectMeta { labels: Some(pipeline.names.labels(component)), ..ObjectMeta::default() },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".into()]),
            storage_class_name: volume.class.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), Quantity(volume.size.clone()))].into()),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

/// Ports, by name.
pub(super) fn service(pipeline: &Identity, component: Component, ports: &[(&str, i32)]) -> Service {
    let port = |(name, port): &(&str, i32)| ServicePort {
        name: Some((*name).into()),
        port: *port,
        protocol: Some("TCP".into()),
        target_port: Some(IntOrString::String((*name).into())),
        ..ServicePort::default()
    };
    Service {
        metadata: part_metadata(pipeline, component),
        spec: Some(ServiceSpec {
            selector: Some(pipeline.names.selector(component)),
            ports: Some(ports.iter().map(port).collect()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

pub(super) fn env(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.into(), value: Some(value.into()), value_from: None }
}

/// What a label of the pod says.
pub(super) fn env_of_label(name: &str, label: &str) -> EnvVar {
    let field_ref = ObjectFieldSelector {
        api_version: Some("v1".into()),
        field_path: format!("metadata.labels['{label}']"),
    };
    let value_from = EnvVarSource { field_ref: Some(field_ref), ..EnvVarSource::default() };
    EnvVar { name: name.into(), value: None, value_from: Some(value_from) }
}

pub(super) fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount { name: name.into(), mount_path: path.into(), ..VolumeMount::default() }
}

pub(super) fn read_only(name: &str, path: &str) -> VolumeMount {
    VolumeMount { read_only: Some(true), ..mount(name, path) }
}

/// Which port to ask: one of the container's by its name, where https is asked by HTTPS; or any of the pod's.
#[derive(Clone, Copy)]
pub(super) enum ProbePort {
    Named(&'static str),
    Number(i32),
}

pub(super) fn http_probe(path: &str, port: ProbePort, period_seconds: i32, failures: i32) -> Probe {
    let (port, scheme) = match port {
        ProbePort::Number(number) => (IntOrString::Int(number), None),
        ProbePort::Named(name) => {
            (IntOrString::String(name.into()), (name == "https").then(|| "HTTPS".into()))
        }
    };
    Probe {
        http_get: Some(HTTPGetAction { path: Some(path.into()), port, scheme, ..HTTPGetAction::default() }),
        period_seconds: Some(period_seconds),
        failure_threshold: Some(failures),
        timeout_seconds: Some(5),
        ..Probe::default()
    }
}

/// Only the pod's own group may read it.
pub(super) fn secret_volume(name: &str, secret: String, keys: &[&str]) -> Volume {
    Volume {
        name: name.into(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret),
            default_mode: Some(0o440),
            items: items(keys),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// Keys as files of these paths: `key` or `key=path`. All keys, if none is named.
pub(super) fn config_volume(name: &str, config_map: String, keys: &[&str]) -> Volume {
    Volume {
        name: name.into(),
        config_map: Some(ConfigMapVolumeSource {
            name: config_map,
            default_mode: Some(0o444),
            items: items(keys),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn items(keys: &[&str]) -> Option<Vec<KeyToPath>> {
    let item = |key: &&str| {
        let (key, path) = key.split_once('=').unwrap_or((key, key));
        KeyToPath { key: key.into(), path: path.into(), ..KeyToPath::default() }
    };
    (!keys.is_empty()).then(|| keys.iter().map(item).collect())
}

pub(super) fn empty_dir(name: &str) -> Volume {
    Volume { name: name.into(), empty_dir: Some(EmptyDirVolumeSource::default()), ..Volume::default() }
}
