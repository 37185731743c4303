//! What the steps of one command share.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::Result;
use crate::counts::Counts;
use crate::images::OwnImages;
use crate::parts::{Images, Origin};
use crate::paths::Paths;
use crate::process::Log;
use crate::progress::Lock;

/// Filled in by the steps, in their order.
pub(crate) struct Context {
    pub(crate) paths: Paths,
    /// The cluster's name.
    pub(crate) cluster: String,
    /// How many workers it is to have. None: as many as it has, and none if it is made.
    pub(crate) workers: Option<usize>,
    /// Whether parts are pulled or built. Known after the step `parts`.
    pub(crate) origin: Option<Origin>,
    /// The tests' results so far.
    pub(crate) counts: Counts,
    /// Our images. Known after the step `images`.
    pub(crate) own: Option<OwnImages>,
}

impl Context {
    /// A context of which nothing is known yet.
    pub(crate) fn new(paths: Paths, cluster: Option<&str>, workers: Option<usize>) -> Self {
        let cluster = cluster.map_or_else(|| crate::cluster::name_for(&paths.root), str::to_owned);
        Self { paths, cluster, workers, origin: None, counts: Counts::default(), own: None }
    }

    /// The same for another cluster, which is named after this one's.
    pub(crate) fn beside(&self, suffix: &str, workers: usize) -> Self {
        Self {
            paths: self.paths.clone(),
            cluster: format!("{}-{suffix}", self.cluster),
            workers: Some(workers),
            origin: self.origin,
            counts: Counts::default(),
            own: self.own.clone(),
        }
    }

    /// Whether parts are pulled or built.
    pub(crate) fn origin(&self) -> Result<Origin> {
        self.origin.ok_or_else(|| "the step `parts` has not run".into())
    }

    /// The images of the parts that aren't ours.
    pub(crate) fn images(&self) -> Result<Images> {
        Images::of(&self.paths, self.origin()?)
    }

    /// Our images.
    pub(crate) fn own(&self) -> Result<&OwnImages> {
        self.own.as_ref().ok_or_else(|| "the step `images` has not run".into())
    }

    /// The cluster's credentials. A cluster of another name has a file of its own.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        let own = self.cluster == crate::cluster::name_for(&self.paths.root);
        let file = if own { "kubeconfig".to_owned() } else { format!("kubeconfig-{}", self.cluster) };
        self.paths.cluster().join(file)
    }

    /// A tool of the cluster, set to talk to it.
    pub(crate) fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(self.paths.cluster_tools().join(name));
        command.env("KUBECONFIG", self.kubeconfig()).env("PATH", self.search_path());
        command
    }

    /// PATH with the cluster's tools first.
    pub(crate) fn search_path(&self) -> std::ffi::OsString {
        let inherited = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(self.paths.cluster_tools()).chain(std::env::split_paths(&inherited));
        std::env::join_paths(folders).unwrap_or(inherited)
    }

    /// Waits for its turn to change what others may be changing too. The lock goes with the process,
    /// however it ends.
    pub(crate) fn turn(&self, what: Lock, log: &Log) -> Result<File> {
        let name = match what {
            Lock::Cluster => format!("lock-{}", self.cluster),
            shared => format!("lock-{shared:?}").to_lowercase(),
        };
        let lock = File::create(self.paths.cache.join(name))?;
        if lock.try_lock().is_err() {
            log.note("waiting: another `cargo xtask` on this machine is at such a step");
            lock.lock()?;
        }
        Ok(lock)
    }
}

/// Asks again and again until the answer is yes, or fails after the time.
pub(crate) fn wait_for(what: &str, at_most: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
    let deadline = std::time::Instant::now() + at_most;
    while !ready() {
        if std::time::Instant::now() > deadline {
            return Err(format!("{what}: not within {} s", at_most.as_secs()).into());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}
