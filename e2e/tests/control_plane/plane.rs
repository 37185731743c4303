//! The control plane itself: what the other tests here rely on.

use anyhow::{Result, ensure};
use api::iotpipeline::IoTPipeline;
use iotpipeline_e2e::control_plane::{ControlPlane, User};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::ListParams;

#[tokio::test]
async fn the_operator_s_user_has_the_operator_s_rights_and_the_audit_log_tells_what_it_asked() -> Result<()> {
    let plane = ControlPlane::start().await?;
    let log = plane.audit_log().from_now()?;
    let client = plane.client(User::Operator).await?;
    Api::<IoTPipeline>::all(client.clone()).list(&ListParams::default()).await?;
    let refused = Api::<Node>::all(client).list(&ListParams::default()).await;
    ensure!(matches!(&refused, Err(kube::Error::Api(status)) if status.code == 403), "{refused:?}");
    let asked = log.requests_of(User::Operator)?;
    let asked: Vec<_> = asked
        .iter()
        .map(|request| {
            let object = request.object_ref.clone().unwrap_or_default();
            (request.verb.as_str(), object.resource, request.code(), request.is_write())
        })
        .collect();
    assert_eq!(asked, [("list", "iotpipelines".into(), 200, false), ("list", "nodes".into(), 403, false)]);
    Ok(())
}
