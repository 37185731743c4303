//! A real mosquitto or influxd as a process of this machine, where the environment names the program:
//! the same as in a container, but it is killed and started in milliseconds, and needs no Docker.

use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use crate::process;
use crate::scratch::Directory;

/// A server as a process. Killed when dropped.
pub struct Program {
    program: PathBuf,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    child: Mutex<Option<Child>>,
    directory: Directory,
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("-- {}\n{}", self.program.display(), self.log(20));
        }
    }
}

impl Program {
    /// Starts it with these arguments. The directory holds its files, and gets its log.
    ///
    /// # Errors
    /// If it can't be started.
    pub async fn start_new(program: PathBuf, arguments: Vec<String>, directory: Directory) -> Result<Self> {
        Self::start_with(program, arguments, Vec::new(), directory).await
    }

    /// The same, with these environment variables.
    ///
    /// # Errors
    /// If it can't be started.
    pub async fn start_with(
        program: PathBuf,
        arguments: Vec<String>,
        variables: Vec<(String, String)>,
        directory: Directory,
    ) -> Result<Self> {
        let new = Self { program, arguments, variables, child: Mutex::new(None), directory };
        new.start().await?;
        Ok(new)
    }

    /// Starts it, again if it has ended.
    ///
    /// # Errors
    /// If it can't be started.
    pub async fn start(&self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.directory.path().join("log"))?;
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .envs(self.variables.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("can't start {}", self.program.display()))?;
        *self.child.lock().await = Some(child);
        Ok(())
    }

    /// The process' id, while it runs.
    pub async fn process_id(&self) -> Option<u32> {
        self.child.lock().await.as_ref().and_then(Child::id)
    }

    /// The end of its log.
    pub fn log(&self, lines: usize) -> String {
        self.directory.log(lines)
    }

    /// Sends a signal by its name. One that has ended gets none.
    ///
    /// # Errors
    /// If it can't be sent.
    pub async fn signal(&self, name: &str) -> Result<()> {
        let child = self.child.lock().await;
        let Some(id) = child.as_ref().and_then(Child::id) else { return Ok(()) };
        process::run("kill", &[&format!("-{name}"), &id.to_string()]).await.map(drop)
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// If nobody can know.
    pub async fn ended(&self) -> Result<()> {
        let child = self.child.lock().await.take();
        if let Some(mut child) = child {
            child.wait().await?;
        }
        Ok(())
    }
}
