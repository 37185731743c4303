//! The built bridge, as a process beside the tests.

use std::fs::File;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use api::bridge_config::{BridgeConfig, DatabaseConfig, MqttConfig, Sharing};
use api::bridge_status::BridgeStatus;
use api::route::Route;
use tokio::process::{Child, Command};

use crate::conditions::{Probe, eventually};
use crate::containers::{BUCKET, Container, ORGANIZATION, TOKEN};
use crate::scratch::{Directory, free_port};
use crate::{environment, http, process};

/// The pipeline's name in dead-letter topics.
pub const PIPELINE: &str = "lab";
/// The client id, which names the session at the broker.
pub const CLIENT_ID: &str = "lab-bridge";

/// What outlives the process, as a volume would.
const STATE: &str = "state";
const STARTS: Duration = Duration::from_secs(30);
const STOPS: Duration = Duration::from_secs(30);

/// A bridge between a broker and a database, with its files.
pub struct Bridge {
    child: Option<Child>,
    directory: Directory,
    config: BridgeConfig,
    http_port: u16,
    /// Its number, where several share the load.
    member: Option<u32>,
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("-- bridge\n{}", self.log(40));
        }
    }
}

impl Bridge {
    /// Starts a bridge and waits until it is ready on both sides.
    ///
    /// # Errors
    /// If there is none, or it doesn't become ready.
    pub async fn start(broker: &Container, database: &Container, routes: &str) -> Result<Self> {
        let mut bridge = Self::between(broker.port, database.port, CLIENT_ID, routes)?;
        bridge.restart().await?;
        Ok(bridge)
    }

    /// A bridge that is not started yet, between a broker and a database on these ports of 127.0.0.1.
    ///
    /// # Errors
    /// If its files can't be written.
    pub fn between(broker_port: u16, database_port: u16, client_id: &str, routes: &str) -> Result<Self> {
        let directory = Directory::new("bridge")?;
        std::fs::create_dir(directory.path().join(STATE))?;
        let token_file = directory.write("token", TOKEN)?.display().to_string();
        let config = BridgeConfig {
            pipeline: PIPELINE.into(),
            mqtt: MqttConfig {
                url: format!("mqtt://127.0.0.1:{broker_port}"),
                client_id: client_id.into(),
                dropped_topic: None,
                secret_client_id_file: None,
                username_file: None,
                password_file: None,
                ca_file: None,
                certificate_file: None,
                key_file: None,
                login_revision_file: None,
                receive_maximum: 2_000,
                keep_alive_seconds: 10,
                session_expiry_seconds: 3_600,
                max_packet_size: 2_000_000,
            },
            sharing: None,
            max_message_size: None,
            canary: false,
            database: DatabaseConfig {
                url: format!("http://127.0.0.1:{database_port}"),
                organization: ORGANIZATION.into(),
                bucket: BUCKET.into(),
                token_file,
                ca_file: None,
            },
            routes: serde_saphyr::from_str(routes)?,
        };
        let bridge = Self { child: None, directory, config, http_port: free_port()?, member: None };
        bridge.write_config()?;
        Ok(bridge)
    }

    /// One of several bridges that share the load, of which the first so many take part.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn share(&mut self, member: u32, members: u32) -> Result<()> {
        self.member = Some(member);
        self.config.sharing = Some(Sharing { group: PIPELINE.into(), members });
        self.write_config()
    }

    /// Lets it send a message of its own now and then, and say whether that crossed.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn send_canaries(&mut self) -> Result<()> {
        self.config.canary = true;
        self.write_config()
    }

    /// Lets it ask the broker how many messages that drops.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn hear_of_drops(&mut self) -> Result<()> {
        self.config.mqtt.dropped_topic = Some("$SYS/broker/publish/messages/dropped".into());
        self.write_config()
    }

    /// Lets it have a client id that nobody else knows, as at a broker of the operator's.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn hide_client_id(&mut self) -> Result<()> {
        let file = self.directory.write("session", "a secret that nobody else can guess")?;
        self.config.mqtt.secret_client_id_file = Some(file.display().to_string());
        self.write_config()
    }

    /// Another way to the broker: its URL, who vouches for it, and the bridge's own certificate and key. All are PEM.
    ///
    /// # Errors
    /// If a file can't be written.
    pub fn set_door(
        &mut self,
        url: String,
        authority: Option<&str>,
        own: Option<(&str, &str)>,
    ) -> Result<()> {
        let write =
            |name: &str, pem: &str| anyhow::Ok(self.directory.write(name, pem)?.display().to_string());
        let ca_file = authority.map(|pem| write("broker-ca.crt", pem)).transpose()?;
        let certificate_file = own.map(|(pem, _)| write("client.crt", pem)).transpose()?;
        let key_file = own.map(|(_, pem)| write("client.key", pem)).transpose()?;
        self.config.mqtt =
            MqttConfig { url, ca_file, certificate_file, key_file, ..self.config.mqtt.clone() };
        self.write_config()
    }

    /// Other seconds between pings, from the next start on.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn set_keep_alive(&mut self, seconds: u16) -> Result<()> {
        self.config.mqtt.keep_alive_seconds = seconds;
        self.write_config()
    }

    /// Another bound on what is on its way into the database, from the next start on.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn set_receive_maximum(&mut self, messages: u16) -> Result<()> {
        self.config.mqtt.receive_maximum = messages;
        self.write_config()
    }

    /// Starts the process, and waits until it is ready on both sides. One that still runs is killed, since both would
    /// listen on one port.
    ///
    /// # Errors
    /// If it doesn't become ready.
    pub async fn restart(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        self.spawn()?;
        eventually("the bridge is ready", STARTS, async || {
            let status = self.status().await?;
            Ok(if status.ready() { Probe::Found(()) } else { Probe::NotYet(format!("{status:?}")) })
        })
        .await
    }

    /// Takes away what the bridge keeps on its volume, as if the volume were lost.
    ///
    /// # Errors
    /// If it can't be taken away.
    pub fn lose_volume(&self) -> Result<()> {
        let state = self.directory.path().join(STATE);
        std::fs::remove_dir_all(&state)?;
        Ok(std::fs::create_dir(&state)?)
    }

    /// What it remembers of its subscriptions on its volume.
    ///
    /// # Errors
    /// If it remembers nothing yet.
    pub fn held_subscriptions(&self) -> Result<String> {
        let path = self.directory.path().join(STATE).join("subscriptions.json");
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    /// What it keeps of its client id to itself.
    ///
    /// # Errors
    /// If it has none.
    pub fn secret_part(&self) -> Result<String> {
        let path = self.directory.path().join(STATE).join("client-id");
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    /// The end of its log.
    pub fn log(&self, lines: usize) -> String {
        self.directory.log(lines)
    }

    /// Starts the process, and doesn't wait for it.
    ///
    /// # Errors
    /// If there is none.
    pub fn spawn(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.directory.path().join("log"))?;
        let mut command = Command::new(environment::bridge_binary()?);
        if let Some(member) = self.member {
            command.env("IOTPIPELINE_MEMBER", member.to_string());
        }
        let child = command
            .arg("run")
            .arg("--config")
            .arg(self.directory.path().join("config.json"))
            .arg("--state")
            .arg(self.directory.path().join(STATE))
            .arg("--listen")
            .arg(format!("127.0.0.1:{}", self.http_port))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// Kills the process with SIGKILL.
    ///
    /// # Errors
    /// If it has ended already.
    pub async fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the bridge is not running")?;
        Ok(child.kill().await?)
    }

    /// Asks the process to end with SIGTERM, and waits until it has.
    ///
    /// # Errors
    /// If it doesn't end in time.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        let mut child = self.child.take().context("the bridge is not running")?;
        let id = child.id().context("the bridge has ended")?.to_string();
        process::run("kill", &["-TERM", &id]).await?;
        Ok(tokio::time::timeout(STOPS, child.wait()).await.context("the bridge does not end")??)
    }

    /// The process' id.
    pub fn process_id(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Replaces the routes in the configuration file.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn set_routes(&mut self, routes: &str) -> Result<()> {
        let routes: Vec<Route> = serde_saphyr::from_str(routes)?;
        self.config.routes = routes;
        self.write_config()
    }

    /// Writes something else than a configuration into its file.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn spoil_config(&self, text: &str) -> Result<()> {
        self.directory.write("config.json", text).map(drop)
    }

    fn write_config(&self) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.config)?;
        self.directory.write("config.json", &text).map(drop)
    }

    /// What the bridge says of itself.
    ///
    /// # Errors
    /// If it doesn't answer.
    pub async fn status(&self) -> Result<BridgeStatus> {
        Ok(http::get(&self.address("status")).await?.json().await?)
    }

    /// The HTTP status of a path, such as `readyz`.
    ///
    /// # Errors
    /// If the bridge doesn't answer.
    pub async fn http_status(&self, path: &str) -> Result<u16> {
        Ok(http::get(&self.address(path)).await?.status().as_u16())
    }

    /// The metrics, as Prometheus reads them.
    ///
    /// # Errors
    /// If the bridge doesn't answer.
    pub async fn metrics(&self) -> Result<String> {
        Ok(http::get(&self.address("metrics")).await?.text().await?)
    }

    fn address(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.http_port)
    }
}
