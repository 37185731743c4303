//! The bridge's command line.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use iotpipeline_bridge::explain::{self, Example, ExplainError, Explainer};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{fmt, registry};

/// Stores MQTT messages in InfluxDB, and acknowledges what is stored.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs until SIGTERM, then stores and acknowledges what it has received.
    ///
    /// The level of logging is taken from RUST_LOG: info if it is not set.
    Run {
        /// The configuration, which the operator writes. Changes take effect without a restart.
        #[arg(long)]
        config: PathBuf,
        /// The bridge's number, from 0, where several share the load. It is appended to the client id.
        #[arg(long, env = "IOTPIPELINE_MEMBER")]
        member: Option<u32>,
        /// Where /livez, /readyz, /status and /metrics are served.
        #[arg(long, default_value = "0.0.0.0:9090")]
        listen: SocketAddr,
        /// A directory for what must outlive a restart.
        #[arg(long, default_value = "/var/lib/iotpipeline")]
        state: PathBuf,
        /// How the log is written.
        #[arg(long, value_enum, default_value = "text")]
        log_format: LogFormat,
    },
    /// Says which routes of a pipeline match a message, and what they store, or why they refuse.
    ///
    /// Needs no broker, no database and no cluster. The exit code is 0 if every message is stored by
    /// every route that matches it, 1 if one is refused or matches no route, 2 if the files can't be used.
    Explain {
        /// A YAML file with an IoTPipeline; other resources in it are passed over.
        #[arg(long)]
        pipeline: PathBuf,
        /// The topic of one message.
        #[arg(long, requires = "payload", required_unless_present = "messages")]
        topic: Option<String>,
        /// The payload of that message.
        #[arg(long, requires = "topic")]
        payload: Option<String>,
        /// A file of messages, one a line: {"topic": "a/b", "payload": "1.5"}, or payload_base64; with retained,
        /// content_type and user_properties ([[name, value], ...]) where they matter.
        #[arg(long, conflicts_with_all = ["topic", "payload"])]
        messages: Option<PathBuf>,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run { config, member, listen, state, log_format } => {
            start_log(log_format);
            match run(&config, member, &state, listen) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    tracing::error!("cannot run: {error}");
                    ExitCode::from(2)
                }
            }
        }
        Command::Explain { pipeline, topic, payload, messages } => {
            let single = topic.zip(payload).map(|(topic, payload)| Example::new(topic, payload));
            match explain_all(&pipeline, single, messages) {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::from(1),
                Err(error) => {
                    eprintln!("{error}");
                    ExitCode::from(2)
                }
            }
        }
    }
}

fn start_log(format: LogFormat) {
    let wanted = std::env::var("RUST_LOG").ok().and_then(|wanted| wanted.parse().ok());
    let filter = wanted.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let lines = fmt::layer().with_target(false).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => registry().with(filter).with(lines.with_ansi(false)).init(),
        LogFormat::Json => registry().with(filter).with(lines.json()).init(),
    }
}

fn run(
    config: &std::path::Path,
    member: Option<u32>,
    state: &std::path::Path,
    listen: SocketAddr,
) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        Ok(iotpipeline_bridge::run(config, member, state, listener, stop).await?)
    })
}

/// Explains all messages; whether each is stored.
fn explain_all(
    pipeline: &std::path::Path,
    single: Option<Example>,
    messages: Option<PathBuf>,
) -> Result<bool, ExplainError> {
    let read = |path: &std::path::Path| {
        std::fs::read_to_string(path).map_err(|source| ExplainError::Read { path: path.into(), source })
    };
    let table = explain::pipeline_table(&read(pipeline)?)?;
    let examples = match (single, messages) {
        (Some(example), _) => vec![example],
        (None, Some(path)) => explain::parse_messages(&read(&path)?)?,
        (None, None) => Vec::new(),
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let stamp = now.map_or(0, |since| since.as_nanos() as i64);
    let mut explainer = Explainer::new(&table);
    let mut all_stored = true;
    let mut out = std::io::stdout().lock();
    for example in &examples {
        let explanation = explainer.explain(example, stamp);
        all_stored &= explanation.is_stored;
        // A reader that has gone, such as head, is no error.
        drop(out.write_all(explanation.text.as_bytes()));
    }
    Ok(all_stored)
}
