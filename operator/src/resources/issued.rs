//! Certificates that cert-manager makes, of an issuer that the pipeline names.
//! <https://cert-manager.io/docs/reference/api-docs/#cert-manager.io/v1.Certificate>

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::iotpipeline::{IoTPipeline, IssuerKind, Tls};
use kube::CustomResource;
use serde::{Deserialize, Serialize};

use super::names::Component;
use super::part_metadata;
use crate::plan::{Identity, tls_of_parts};

/// What is asked of cert-manager; as much of it as is needed here.
#[derive(Clone, CustomResource, Debug, Deserialize, Serialize)]
#[kube(group = "cert-manager.io", version = "v1", kind = "Certificate", namespaced, schema = "disabled")]
#[serde(rename_all = "camelCase")]
pub struct CertificateSpec {
    /// Where the certificate is put.
    pub secret_name: String,
    /// What else the Secret is to have.
    pub secret_template: SecretTemplate,
    /// The names that it is for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_names: Vec<String>,
    /// The addresses that it is for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ip_addresses: Vec<String>,
    /// What it is for.
    pub usages: Vec<String>,
    /// How its key is made.
    pub private_key: PrivateKey,
    /// Who signs it.
    pub issuer_ref: Issuer,
}

/// What else a Secret is to have.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SecretTemplate {
    /// So that the operator hears of its changes.
    pub labels: BTreeMap<String, String>,
}

/// How a key is made.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PrivateKey {
    /// The kind of key.
    pub algorithm: String,
    /// Its size.
    pub size: u32,
    /// When another is made.
    pub rotation_policy: String,
}

/// Who signs.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Issuer {
    /// The API group.
    pub group: String,
    /// The kind.
    pub kind: String,
    /// The name.
    pub name: String,
}

/// The certificates that a pipeline asks cert-manager for.
pub fn desired(pipeline: &IoTPipeline) -> Vec<Certificate> {
    let identity = Identity::of(pipeline);
    let parts = tls_of_parts(&pipeline.spec);
    parts.iter().filter_map(|(component, tls)| certificate(&identity, *component, tls)).collect()
}

fn certificate(pipeline: &Identity, component: Component, tls: &Tls) -> Option<Certificate> {
    let issuer = tls.issuer_ref.as_ref()?;
    let names = &pipeline.names;
    let name = names.of_issued(component);
    // No issuer vouches for localhost.
    let own = names.hosts(component).into_iter().filter(|host| host != "localhost");
    let (ip_addresses, dns_names) =
        own.chain(tls.hosts.iter().cloned()).partition(|host| host.parse::<IpAddr>().is_ok());
    let mut certificate = Certificate::new(
        &name,
        CertificateSpec {
            secret_name: name.clone(),
            secret_template: SecretTemplate { labels: names.labels(component) },
            dns_names,
            ip_addresses,
            usages: ["digital signature", "key encipherment", "server auth"].map(Into::into).into(),
            private_key: PrivateKey {
                algorithm: "ECDSA".into(),
                size: 256,
                rotation_policy: "Always".into(),
            },
            issuer_ref: Issuer {
                group: "cert-manager.io".into(),
                kind: match issuer.kind {
                    IssuerKind::Issuer => "Issuer".into(),
                    IssuerKind::ClusterIssuer => "ClusterIssuer".into(),
                },
                name: issuer.name.clone(),
            },
        },
    );
    certificate.metadata = part_metadata(pipeline, component);
    certificate.metadata.name = Some(name);
    Some(certificate)
}
