//! What a failed test prints: the pipelines' status, the pods, the events, the ends of the logs.
//! No Secret is read here.

use api::iotpipeline::IoTPipeline;
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
use kube::ResourceExt;
use kube::api::{ListParams, LogParams};

use crate::namespaces::Namespace;

const LOG_LINES: i64 = 40;

/// Prints what can be known of a namespace.
pub async fn print(namespace: &Namespace) {
    eprintln!("==== namespace {} ====", namespace.name);
    print_pipelines(namespace).await;
    print_events(namespace).await;
    print_pods(namespace).await;
}

async fn print_pipelines(namespace: &Namespace) {
    let Ok(pipelines) = namespace.api::<IoTPipeline>().list(&ListParams::default()).await else { return };
    for pipeline in pipelines {
        let status = serde_saphyr::to_string(&pipeline.status).unwrap_or_default();
        eprintln!(
            "-- pipeline {} (generation {:?})\n{status}",
            pipeline.name_any(),
            pipeline.metadata.generation
        );
    }
}

async fn print_events(namespace: &Namespace) {
    let Ok(events) = namespace.api::<Event>().list(&ListParams::default()).await else { return };
    eprintln!("-- events");
    for event in events {
        let object = event.involved_object;
        eprintln!(
            "{} {}/{}: {}: {}",
            event.type_.unwrap_or_default(),
            object.kind.unwrap_or_default(),
            object.name.unwrap_or_default(),
            event.reason.unwrap_or_default(),
            event.message.unwrap_or_default()
        );
    }
}

async fn print_pods(namespace: &Namespace) {
    let pods = namespace.api::<Pod>();
    for pod in pods.list(&ListParams::default()).await.into_iter().flatten() {
        let name = pod.name_any();
        let status = pod.status.unwrap_or_default();
        eprintln!("-- pod {name}: {}", status.phase.unwrap_or_default());
        let init = status.init_container_statuses.unwrap_or_default();
        for container in init.into_iter().chain(status.container_statuses.unwrap_or_default()) {
            eprintln!("   container {}", describe(&container));
            for previous in [true, false] {
                let parameters = LogParams {
                    container: Some(container.name.clone()),
                    previous,
                    tail_lines: Some(LOG_LINES),
                    ..LogParams::default()
                };
                if let Ok(log) = pods.logs(&name, &parameters).await
                    && !log.is_empty()
                {
                    eprintln!("   log{}:\n{log}", if previous { " before the restart" } else { "" });
                }
            }
        }
    }
}

fn describe(container: &ContainerStatus) -> String {
    let state = serde_json::to_string(&container.state).unwrap_or_default();
    format!("{}: ready {}, {} restarts, {state}", container.name, container.ready, container.restart_count)
}
