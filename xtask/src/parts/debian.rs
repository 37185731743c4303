//! What comes from Debian's packages: tools for this machine, and the root file systems of images.

use std::process::Command;

use super::{LOCAL, Origin, has_image};
use crate::Result;
use crate::context::Context;
use crate::hash::Key;
use crate::process::{Log, answer, which};
use crate::progress::{Lock, Outcome, Step};

pub(crate) const STEP: Step = Step {
    name: "debian",
    about: "root file systems from Debian packages: the node's, mosquitto's, the common base (2 min the first time)",
    lock: Some(Lock::Parts),
    work: images,
};

/// A root file system that mmdebstrap makes.
struct Root {
    suite: &'static str,
    packages: &'static [&'static str],
    /// Shell commands after the packages are there; `$1` is the root.
    hooks: &'static [&'static str],
    /// As in `docker import --change`.
    changes: &'static [&'static str],
}

/// bookworm's systemd 252 is the last but few that still boots on cgroup v1, which machines without
/// an image registry tend to have.
const NODE: Root = Root {
    suite: "bookworm",
    packages: &[
        "systemd",
        "systemd-sysv",
        "dbus",
        "kmod",
        "mount",
        "procps",
        "ca-certificates",
        "iproute2",
        "iptables",
        "conntrack",
        "ethtool",
        "socat",
        "runc",
        "containernetworking-plugins",
    ],
    hooks: &[],
    changes: &["ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
};

/// For programs that were compiled on this machine: the C library must not be older than its own.
const BASE: Root = Root {
    suite: "bookworm",
    packages: &["libc6", "libgcc-s1", "ca-certificates"],
    hooks: &[],
    changes: &["ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
};

const MOSQUITTO_VERSION: &str = "2.1";

/// forky is the first suite with mosquitto 2.1 and its SQLite persistence. The plugin is also put
/// where the public image has it, so that one configuration serves both.
const MOSQUITTO: Root = Root {
    suite: "forky",
    packages: &["mosquitto", "mosquitto-clients", "ca-certificates"],
    hooks: &[
        r#"chroot "$1" dpkg-query --show --showformat='${Version}' mosquitto | grep --quiet '^2\.1\.'"#,
        r#"cd "$1/usr/lib" && ln --symbolic "$(find . -name mosquitto_persist_sqlite.so | grep .)" ."#,
    ],
    changes: &[
        "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "EXPOSE 1883",
        r#"CMD ["mosquitto", "-c", "/mosquitto/config/mosquitto.conf"]"#,
    ],
};

impl Root {
    fn tag(&self) -> String {
        let key = Key::new("debian", 1).text(self.suite).texts(self.packages).texts(self.hooks);
        key.texts(self.changes).texts(&OPTIONS).finish()
    }

    fn make(&self, image: &str, mirror: &str, log: &Log) -> Result<()> {
        let mut bootstrap = Command::new("mmdebstrap");
        bootstrap.args(OPTIONS).arg(format!("--include={}", self.packages.join(",")));
        bootstrap.args(self.hooks.iter().map(|hook| format!("--customize-hook={hook}")));
        bootstrap.args([self.suite, "-", &format!("deb {mirror} {} main", self.suite)]);
        let mut import = Command::new("docker");
        import.arg("import");
        import.args(self.changes.iter().flat_map(|change| ["--change", change]));
        // What breaks halfway is an image too, for Docker: the name comes last.
        let unfinished = format!("{image}-unfinished");
        log.pipe(&mut bootstrap, import.args(["-", &unfinished]))?;
        log.run(Command::new("docker").args(["tag", &unfinished, image]))?;
        log.run(Command::new("docker").args(["rmi", &unfinished]))
    }
}

/// No recommended packages, no documentation; a suite's index may be older than it says it may.
const OPTIONS: [&str; 6] = [
    "--variant=essential",
    "--aptopt=Acquire::Check-Valid-Until \"false\"",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
];

/// The node's root file system.
pub(crate) fn node_base() -> String {
    format!("{LOCAL}/node-base:{}", NODE.tag())
}

/// A C library and certificates.
pub(crate) fn base() -> String {
    format!("{LOCAL}/base:{}", BASE.tag())
}

/// The broker.
pub(crate) fn mosquitto() -> String {
    format!("{LOCAL}/mosquitto:{MOSQUITTO_VERSION}-{}", &MOSQUITTO.tag()[..8])
}

fn images(context: &mut Context, log: &Log) -> Result<Outcome> {
    if context.origin()? == Origin::Pull {
        return Ok(Outcome::Skipped("pulled instead".into()));
    }
    let mut wanted = vec![(&BASE, base()), (&MOSQUITTO, mosquitto())];
    if !has_image(&super::node::image(&context.paths)?) {
        wanted.push((&NODE, node_base()));
    }
    wanted.retain(|(_, image)| !has_image(image));
    if wanted.is_empty() {
        return Ok(Outcome::Unchanged(String::new()));
    }
    install(&["mmdebstrap"], &["mmdebstrap"], log)?;
    let mirror = mirror(log)?;
    // Each mostly waits for the network or for one processor: together they take half the time.
    std::thread::scope(|scope| {
        let making: Vec<_> =
            wanted.iter().map(|(root, image)| scope.spawn(|| root.make(image, &mirror, log))).collect();
        making.into_iter().try_for_each(|made| made.join().map_err(|_| "a thread panicked")?)
    })?;
    Ok(Outcome::Done(wanted.iter().map(|(_, image)| image.as_str()).collect::<Vec<_>>().join(", ")))
}

/// Whether this user can install packages on this machine.
pub(crate) fn can_install() -> bool {
    which("apt-get").is_some() && answer(Command::new("id").arg("-u")).as_deref() == Some("0")
}

/// Installs Debian packages, unless the programs they are wanted for are there.
pub(crate) fn install(packages: &[&str], programs: &[&str], log: &Log) -> Result<()> {
    if programs.iter().all(|program| which(program).is_some()) {
        return Ok(());
    }
    if !can_install() {
        return Err(format!("please install {}, then run this again", packages.join(" and ")).into());
    }
    log.run(Command::new("apt-get").args(["update", "-q"]))?;
    let mut command = Command::new("apt-get");
    command.args(["install", "-q", "-y", "--no-install-recommends"]).args(packages);
    log.run(command.env("DEBIAN_FRONTEND", "noninteractive"))
}

/// The Debian mirror that this machine's apt uses.
fn mirror(log: &Log) -> Result<String> {
    let targets =
        || answer(Command::new("apt-get").args(["indextargets", "--format", "$(ORIGIN) $(REPO_URI)"]));
    if targets().as_deref().and_then(mirror_in).is_none() {
        log.run(Command::new("apt-get").args(["update", "-q"]))?;
    }
    let found = targets().as_deref().and_then(mirror_in);
    found.ok_or_else(|| "apt knows no Debian mirror: building needs Debian".into())
}

fn mirror_in(targets: &str) -> Option<String> {
    let lines = targets.lines().filter_map(|line| line.split_once(' '));
    let mut debian = lines.filter(|(origin, uri)| *origin == "Debian" && !uri.contains("security"));
    debian.next().map(|(_, uri)| uri.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_debian_s_main_archive() {
        let targets = "NodeSource http://mirror/node/\nDebian http://mirror/debian-security/\nDebian http://mirror/debian/";
        assert_eq!(mirror_in(targets).as_deref(), Some("http://mirror/debian"));
        assert_eq!(mirror_in("Ubuntu http://mirror/ubuntu/"), None);
    }

    #[test]
    fn the_broker_s_name_tells_its_version() {
        let name = mosquitto();
        assert!(name.starts_with("iotpipeline.local/mosquitto:2.1-"), "{name}");
    }
}
