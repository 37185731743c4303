//! `iotpipeline-operator`: the operator; with `reload` the broker's sidecar, with `backup` and `restore` what Jobs run.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use axum::http::header::USER_AGENT;
use clap::{Parser, Subcommand, ValueEnum};
use iotpipeline_operator::config::Config;
use iotpipeline_operator::leader::fence::Fence;
use iotpipeline_operator::leader::lease::Candidate;
use iotpipeline_operator::metrics::Metrics;
use iotpipeline_operator::{backup, cluster, controller, health, leader, reload};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{fmt, registry};

/// Makes the cluster what each IoTPipeline says.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The configuration: images and namespaces.
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,
    /// Where /livez, /readyz and /metrics are.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// Of several operators, the one that holds this Lease works. It is in the operator's own namespace.
    #[arg(long, value_name = "NAME", default_value = "iotpipeline-operator")]
    lease: String,
    /// Who holds it: a random suffix makes the name unique.
    #[arg(long, value_name = "POD", env = "POD_NAME", default_value = "iotpipeline-operator")]
    identity: String,
    /// How to log.
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "text")]
    log_format: LogFormat,
}

#[derive(Subcommand)]
enum Command {
    /// Tells a process to reread its files when they change; the broker's sidecar.
    Reload {
        /// The mounted directory.
        #[arg(long, value_name = "DIRECTORY")]
        watch: PathBuf,
        /// The name of the process.
        #[arg(long, value_name = "NAME")]
        process: String,
        /// The port that it listens on: /healthz on port 8080 says whether it does.
        #[arg(long, value_name = "PORT")]
        port: u16,
    },
    /// Copies the database's bucket, and removes old copies.
    Backup {
        #[command(flatten)]
        arguments: backup::Arguments,
        /// How many backups to keep.
        #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
        keep: u16,
    },
    /// Makes the database's bucket, which must not exist, what it was in a backup.
    Restore {
        #[command(flatten)]
        arguments: backup::Arguments,
        /// Which backup; the latest, if none is named.
        #[arg(long, value_name = "NAME")]
        backup: Option<String>,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    match arguments.command {
        Some(Command::Reload { watch, process, port }) => reload::run(&watch, &process, port),
        Some(Command::Backup { arguments, keep }) => run_job(backup::backup(&arguments, usize::from(keep))),
        Some(Command::Restore { arguments, backup }) => {
            run_job(backup::restore(&arguments, backup.as_deref()))
        }
        None => operate(arguments),
    }
}

/// Until it is done, or a signal ends it: what is unfinished then counts for nothing.
#[tokio::main(flavor = "current_thread")]
async fn run_job(job: impl Future<Output = anyhow::Result<backup::Report>>) -> anyhow::Result<()> {
    start_log(LogFormat::Text);
    rustls::crypto::ring::default_provider().install_default().ok().context("install the TLS provider")?;
    tokio::select! {
        done = job => done.map(|_| ()),
        _ = wait_for_signal() => bail!("interrupted"),
    }
}

/// One thread is plenty, since passes mostly wait; and each thread would keep memory of its own.
#[tokio::main(flavor = "current_thread")]
async fn operate(arguments: Arguments) -> anyhow::Result<()> {
    start_log(arguments.log_format);
    rustls::crypto::ring::default_provider().install_default().ok().context("install the TLS provider")?;
    let path = arguments.config.context("--config is missing")?;
    let config = Config::read(&path)?;
    let mut cluster = kube::Config::infer().await.context("find the cluster")?;
    let identity = leader::identity(&arguments.identity)?;
    // The API server's audit log tells operators apart by this.
    let agent = format!("iotpipeline-operator/{} ({identity})", env!("CARGO_PKG_VERSION"));
    cluster.headers.push((USER_AGENT, agent.parse().context("--identity is no text for a header")?));
    let metrics = Arc::new(Metrics::default());
    let (stop, stopped) = watch::channel(false);

    let listener = TcpListener::bind(arguments.listen).await.context("listen")?;
    let mut health_stopped = stopped.clone();
    let health = tokio::spawn(health::run(listener, metrics.clone(), async move {
        let _ = health_stopped.wait_for(|stopped| *stopped).await;
    }));
    tokio::spawn(async move {
        if let Err(error) = wait_for_signal().await {
            tracing::error!(%error, "signals can't be received");
        }
        let _ = stop.send(true);
    });

    tracing::info!(version = env!("CARGO_PKG_VERSION"), namespaces = ?config.namespaces, "starting");
    let unfenced = cluster::client(&cluster, &Fence::open()).context("make a client of the cluster")?;
    let candidate = Candidate::new(unfenced, arguments.lease, identity, metrics.clone());
    let work = async |fence: Fence| {
        let client = cluster::client(&cluster, &fence).context("make a fenced client of the cluster")?;
        let context = controller::Context::new(client, fence, config.clone(), metrics.clone())?;
        controller::run(Arc::new(context)).await;
        anyhow::Ok(())
    };
    candidate.lead(stopped, work).await?;
    health.await.context("join the health server")?.context("serve /livez, /readyz and /metrics")?;
    tracing::info!("stopped");
    Ok(())
}

async fn wait_for_signal() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

fn start_log(format: LogFormat) {
    // kube logs the failures of watches that are logged here, with the whole answer.
    const KUBE: &str = "kube_runtime=error,kube_client=warn";
    let wanted = std::env::var("RUST_LOG").unwrap_or_else(|_| "info".into());
    let filter: Targets = format!("{KUBE},{wanted}").parse().unwrap_or_default();
    let lines = fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Text => registry().with(filter).with(lines.with_ansi(false)).init(),
        LogFormat::Json => registry().with(filter).with(lines.json()).init(),
    }
}
