//! A real mosquitto and a real influxd in Docker, reached on 127.0.0.1 only; or as processes, where
//! the environment names the programs.

use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use anyhow::{Context, Result};
use rumqttc::v5::mqttbytes::v5::ConnectReturnCode;

use crate::conditions::eventually_true;
use crate::environment::Image;
use crate::influx::Influx;
use crate::programs::Program;
use crate::scratch::{Directory, free_port, unique};
use crate::{environment, mqtt, process};

/// The organization, the bucket and the administrator's token of each database that is made here.
pub const ORGANIZATION: &str = "lab";
/// The bucket.
pub const BUCKET: &str = "mesure";
/// The token.
pub const TOKEN: &str = "a-token-for-a-database-that-lives-for-one-test";

const STARTS: Duration = Duration::from_secs(60);
const STOPS: Duration = Duration::from_secs(30);
/// What was asked to end, and hasn't within this, is asked again.
const ASKED_AGAIN: Duration = Duration::from_secs(3);

/// Where the images have the plugin that keeps sessions.
const MOSQUITTO_PLUGIN: &str = "/usr/lib/mosquitto_persist_sqlite.so";

/// What the operator's broker has too, but without users: the tests of the bridge need none.
const MOSQUITTO_CONF: &str = "\
user root
listener @PORT@ 127.0.0.1
allow_anonymous true
persistence_location /data/
plugin /usr/lib/mosquitto_persist_sqlite.so
plugin_opt_flush_period 0
max_inflight_messages 0
max_queued_messages 0
max_queued_bytes 0
max_packet_size 2000000
sys_interval 3
log_dest stderr
log_type error
log_type warning
log_type notice
listener @OLD_PORT@ 127.0.0.1
accept_protocol_versions 4
";

/// A container, or a process in its place. Removed when dropped, with its volumes.
pub struct Container {
    runs: Runs,
    /// The port on 127.0.0.1 that leads to it.
    pub port: u16,
    /// A broker's second port, which admits MQTT 3.1.1 only.
    old_port: Option<u16>,
}

/// What a broker speaks to a bridge.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Speaks {
    /// MQTT 5, and 3.1.1 to those who ask for it.
    Mqtt5,
    /// MQTT 3.1.1 only.
    Mqtt311,
}

enum Runs {
    InDocker {
        name: String,
        /// Files that are mounted, and must be there when it is started again.
        _mounted: Option<Directory>,
    },
    AsProcess(Box<Program>),
}

impl Drop for Container {
    fn drop(&mut self) {
        let Runs::InDocker { name, .. } = &self.runs else { return };
        if std::thread::panicking() {
            print_log(name);
        }
        let remove = ["rm", "--force", "--volumes", name];
        std::process::Command::new("docker").args(remove).output().ok();
    }
}

/// Removes, once, containers of test runs that were killed: their names hold the process that made them.
fn remove_orphans() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let list = ["ps", "--all", "--filter", "label=iotpipeline-e2e", "--format", "{{.Names}}"];
        let Ok(output) = std::process::Command::new("docker").args(list).output() else { return };
        for name in String::from_utf8_lossy(&output.stdout).lines() {
            let process = name.rsplit('-').nth(1).unwrap_or_default();
            if Path::new("/proc/self").exists() && !Path::new("/proc").join(process).exists() {
                let remove = ["rm", "--force", "--volumes", name];
                std::process::Command::new("docker").args(remove).output().ok();
            }
        }
    });
}

fn print_log(name: &str) {
    let Ok(output) = std::process::Command::new("docker").args(["logs", "--tail", "20", name]).output()
    else {
        return;
    };
    let error = String::from_utf8_lossy(&output.stderr);
    eprintln!("-- {name}\n{}{error}", String::from_utf8_lossy(&output.stdout));
}

impl Container {
    async fn run(
        part: &str,
        image: Image,
        port: u16,
        options: &[&str],
        command: &[&str],
        mounted: Option<Directory>,
    ) -> Result<Self> {
        remove_orphans();
        let name = unique(part);
        let container =
            Self { runs: Runs::InDocker { name: name.clone(), _mounted: mounted }, port, old_port: None };
        let image = image.name()?;
        let mut arguments = vec!["run", "--detach", "--name", &name, "--label", "iotpipeline-e2e"];
        // The host's own loopback: Docker's proxy before a published port would take more of the processors
        // than what the bench measures, and cut what passes into other pieces.
        arguments.extend(["--user", "0", "--network", "host", "--volume", "/data"]);
        arguments.extend(options);
        arguments.push(&image);
        arguments.extend(command);
        process::run("docker", &arguments).await?;
        Ok(container)
    }

    /// The port of a broker that speaks this.
    pub fn port_for(&self, speaks: Speaks) -> u16 {
        self.old_port.filter(|_| speaks == Speaks::Mqtt311).unwrap_or(self.port)
    }

    /// The process' id on this machine.
    ///
    /// # Errors
    /// If it doesn't run.
    pub async fn process_id(&self) -> Result<u32> {
        match &self.runs {
            Runs::InDocker { name, .. } => {
                let id = process::run("docker", &["inspect", "--format", "{{.State.Pid}}", name]).await?;
                Ok(id.trim().parse()?)
            }
            Runs::AsProcess(program) => program.process_id().await.context("it has ended"),
        }
    }

    /// Kills the process with SIGKILL.
    ///
    /// # Errors
    /// If Docker refuses.
    pub async fn kill(&self) -> Result<()> {
        self.signal("KILL").await?;
        match &self.runs {
            Runs::InDocker { .. } => Ok(()),
            Runs::AsProcess(program) => program.ended().await,
        }
    }

    /// Asks the process to end with SIGTERM, and waits until it has.
    ///
    /// # Errors
    /// If it doesn't end in time.
    pub async fn terminate(&self) -> Result<()> {
        self.signal("TERM").await?;
        let mut ended = std::pin::pin!(async {
            match &self.runs {
                Runs::InDocker { name, .. } => process::run("docker", &["wait", name]).await.map(drop),
                Runs::AsProcess(program) => program.ended().await,
            }
        });
        for _ in 0..STOPS.as_secs() / ASKED_AGAIN.as_secs() {
            if let Ok(result) = tokio::time::timeout(ASKED_AGAIN, &mut ended).await {
                return result;
            }
            // The first process of a container ignores it until it has a handler, a moment after its start.
            self.signal("TERM").await.ok();
        }
        anyhow::bail!("it does not end")
    }

    /// Stops the process with SIGSTOP: it stands still, and its connections stay.
    ///
    /// # Errors
    /// If Docker refuses.
    pub async fn freeze(&self) -> Result<()> {
        self.signal("STOP").await
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// If Docker refuses.
    pub async fn thaw(&self) -> Result<()> {
        self.signal("CONT").await
    }

    async fn signal(&self, signal: &str) -> Result<()> {
        match &self.runs {
            Runs::InDocker { name, .. } => {
                process::run("docker", &["kill", "--signal", signal, name]).await.map(drop)
            }
            Runs::AsProcess(program) => program.signal(signal).await,
        }
    }

    /// Starts it again, with the data it had.
    ///
    /// # Errors
    /// If it can't be started.
    pub async fn start(&self) -> Result<()> {
        match &self.runs {
            Runs::InDocker { name, .. } => process::run("docker", &["start", name]).await.map(drop),
            Runs::AsProcess(program) => program.start().await,
        }
    }
}

/// Starts mosquitto and waits until it admits clients.
///
/// # Errors
/// If it doesn't start.
pub async fn broker() -> Result<Container> {
    broker_with("", &[]).await
}

/// The same with a bound of so many bytes for what waits for a client; 0 is none.
///
/// # Errors
/// If it doesn't start.
pub async fn broker_that_queues(bytes: u64) -> Result<Container> {
    start_broker(bytes, "", &[]).await
}

/// The same with more in its configuration, and with files: `@FILES@` is where they are.
///
/// # Errors
/// If it doesn't start.
pub async fn broker_with(more: &str, files: &[(&str, &str)]) -> Result<Container> {
    start_broker(0, more, files).await
}

async fn start_broker(queue: u64, more: &str, files: &[(&str, &str)]) -> Result<Container> {
    let (port, directory) = (free_port()?, Directory::new("mosquitto")?);
    let old_port = free_port()?;
    let text = MOSQUITTO_CONF.replace("@PORT@", &port.to_string());
    let text = text.replace("@OLD_PORT@", &old_port.to_string()) + more;
    let text = text.replace("max_queued_bytes 0", &format!("max_queued_bytes {queue}"));
    for (name, content) in files {
        directory.write(name, content)?;
    }
    let place = directory.path().display().to_string();
    let mut container = match environment::program(Image::Mosquitto) {
        Some(program) => {
            let mut text = text.replace("/data/", &format!("{place}/")).replace("@FILES@", &place);
            if let Some(plugin) = environment::mosquitto_plugin() {
                text = text.replace(MOSQUITTO_PLUGIN, &plugin);
            }
            let file = directory.write("mosquitto.conf", &text)?.display().to_string();
            let program = Program::start_new(program, vec!["-c".into(), file], directory).await?;
            Container { runs: Runs::AsProcess(Box::new(program)), port, old_port: None }
        }
        None => {
            directory.write("mosquitto.conf", &text.replace("@FILES@", "/e2e"))?;
            let mount = format!("{place}:/e2e:ro");
            let options = ["--volume", &mount, "--entrypoint", "mosquitto"];
            let command = ["-c", "/e2e/mosquitto.conf"];
            Container::run("broker", Image::Mosquitto, port, &options, &command, Some(directory)).await?
        }
    };
    container.old_port = Some(old_port);
    admits_clients(&container).await?;
    Ok(container)
}

/// Waits until a broker admits clients.
///
/// # Errors
/// If the deadline passes.
pub async fn admits_clients(broker: &Container) -> Result<()> {
    eventually_true("the broker admits clients", STARTS, async || {
        Ok(mqtt::try_connect(broker.port, None).await? == ConnectReturnCode::Success)
    })
    .await
}

/// Starts influxd and sets it up.
///
/// # Errors
/// If it doesn't start.
pub async fn database() -> Result<(Container, Influx)> {
    let port = free_port()?;
    let address = format!("127.0.0.1:{port}");
    let arguments = |data: &str| {
        let [bolt, engine] = ["influxd.bolt", "engine"].map(|name| format!("{data}/{name}"));
        [
            "--bolt-path",
            &bolt,
            "--engine-path",
            &engine,
            "--http-bind-address",
            &address,
            "--reporting-disabled",
        ]
        .map(str::to_owned)
    };
    let container = match environment::program(Image::InfluxDb) {
        Some(program) => {
            let directory = Directory::new("influxd")?;
            let arguments = arguments(&directory.path().display().to_string()).to_vec();
            let program = Program::start_new(program, arguments, directory).await?;
            Container { runs: Runs::AsProcess(Box::new(program)), port, old_port: None }
        }
        None => {
            let (options, arguments) = (["--entrypoint", "influxd"], arguments("/data"));
            let command = arguments.each_ref().map(String::as_str);
            Container::run("database", Image::InfluxDb, port, &options, &command, None).await?
        }
    };
    let influx = Influx::new(container.port, ORGANIZATION, BUCKET, TOKEN);
    eventually_true("the database answers", STARTS, async || influx.is_healthy().await).await?;
    let influx = Influx::set_up(container.port, ORGANIZATION, BUCKET, TOKEN).await?;
    Ok((container, influx))
}
