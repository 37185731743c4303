//! The image of a kind node, with everything inside that a cluster without an image registry needs.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{LOCAL, Origin, debian, forget_old, go, has_image};
use crate::Result;
use crate::context::{Context, wait_for};
use crate::hash::Key;
use crate::paths::{Paths, empty_folder};
use crate::process::{Log, quietly};
use crate::progress::{Lock, Outcome, Step};

pub(crate) const STEP: Step = Step {
    name: "node",
    about: "images of InfluxDB and of the cluster's node (2 min)",
    lock: Some(Lock::Parts),
    work: images,
};

/// The version of the tools module, and the images that kubeadm wants of this version.
pub(crate) const KUBERNETES: &str = "v1.37.2";
const ETCD: &str = "3.7.0-0";
const COREDNS: &str = "v1.14.6";
const PAUSE: &str = "3.10.2";
pub(crate) const INFLUXDB: &str = "2.9.1";

/// The container in which the node image is put together.
const WORKSHOP: &str = "iotpipeline-node-workshop";

/// InfluxDB's image, by what it is made of.
pub(crate) fn influxdb_image(paths: &Paths) -> Result<String> {
    let program = go::influxd_program(paths)?;
    let key =
        Key::new("influxdb image", 1).text(&inside_cache(paths, &program)).text(&debian::base()).finish();
    Ok(format!("{LOCAL}/influxdb:{INFLUXDB}-{}", &key[..8]))
}

/// The node's image, by what it is made of.
pub(crate) fn image(paths: &Paths) -> Result<String> {
    let key = Key::new("node image", 1)
        .text(&inside_cache(paths, &go::programs(paths)?))
        .text(&debian::node_base())
        .text(&debian::mosquitto())
        .text(&influxdb_image(paths)?)
        .texts(&[ETCD, COREDNS, PAUSE])
        .tree(&paths.recipes().join("node"), &[])?;
    Ok(format!("{LOCAL}/kind-node:{KUBERNETES}-{}", &key.finish()[..8]))
}

/// The same for every user, wherever the cache is.
fn inside_cache(paths: &Paths, path: &Path) -> String {
    path.strip_prefix(&paths.cache).unwrap_or(path).to_string_lossy().into_owned()
}

fn images(context: &mut Context, log: &Log) -> Result<Outcome> {
    if context.origin()? == Origin::Pull {
        return Ok(Outcome::Skipped("kind pulls its own".into()));
    }
    let paths = &context.paths;
    let influxdb = influxdb_image(paths)?;
    let node = image(paths)?;
    if has_image(&influxdb) && has_image(&node) {
        return Ok(Outcome::Unchanged(node));
    }
    if !has_image(&influxdb) {
        let program = go::influxd_program(paths)?;
        program_image(&influxdb, &debian::base(), &[&program], &["EXPOSE 8086", r#"CMD ["influxd"]"#], log)?;
    }
    if !has_image(&node) {
        let system = system_images(paths, log)?;
        preloaded_node(paths, &node, &system, &influxdb, log)?;
        // They live on in the node.
        log.run(Command::new("docker").arg("rmi").args(system.iter().map(|(built, _)| built)))?;
        // A node takes 1.6 GB. Two serve two branches.
        forget_old(&node, 1, log);
    }
    Ok(Outcome::Done(node))
}

/// An image with these programs in /usr/local/bin.
fn program_image(image: &str, base: &str, programs: &[&Path], lines: &[&str], log: &Log) -> Result<()> {
    let context = std::env::temp_dir().join(format!("iotpipeline-image-{}", std::process::id()));
    empty_folder(&context)?;
    let mut dockerfile = format!("FROM {base}\n");
    for program in programs {
        let name = program.file_name().ok_or("a program without a name")?.to_string_lossy();
        std::fs::copy(program, context.join(&*name))?;
        dockerfile.push_str(&format!("COPY {name} /usr/local/bin/{name}\n"));
    }
    dockerfile.push_str("ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n");
    dockerfile.push_str(&lines.join("\n"));
    std::fs::write(context.join("Dockerfile"), dockerfile)?;
    let result = docker_build(&context, image, &[], log);
    std::fs::remove_dir_all(&context)?;
    result
}

/// Docker's first builder, which every Docker has.
pub(crate) fn docker_build(context: &Path, image: &str, arguments: &[&str], log: &Log) -> Result<()> {
    let mut command = Command::new("docker");
    command.env("DOCKER_BUILDKIT", "0").args(["build", "--tag", image]).args(arguments).arg(context);
    log.run(&mut command)
}

/// What kubeadm and the storage provisioner run as pods: each image as built here, and the name that
/// it has in the node. kubeadm insists on the names of the public ones, which nobody else on this
/// machine should get to see.
fn system_images(paths: &Paths, log: &Log) -> Result<Vec<(String, String)>> {
    let programs = go::programs(paths)?;
    let (scratch, base, node_base) = ("scratch".to_owned(), debian::base(), debian::node_base());
    let list = [
        ("kube-apiserver", &scratch, format!("registry.k8s.io/kube-apiserver:{KUBERNETES}")),
        (
            "kube-controller-manager",
            &scratch,
            format!("registry.k8s.io/kube-controller-manager:{KUBERNETES}"),
        ),
        ("kube-scheduler", &scratch, format!("registry.k8s.io/kube-scheduler:{KUBERNETES}")),
        ("kube-proxy", &node_base, format!("registry.k8s.io/kube-proxy:{KUBERNETES}")),
        ("etcd", &scratch, format!("registry.k8s.io/etcd:{ETCD}")),
        ("coredns", &scratch, format!("registry.k8s.io/coredns/coredns:{COREDNS}")),
        ("pause", &scratch, format!("registry.k8s.io/pause:{PAUSE}")),
        ("local-path-provisioner", &base, format!("{LOCAL}/local-path-provisioner:latest")),
    ];
    let pause = compile_pause(paths, log)?;
    let mut images = Vec::new();
    for (program, base, name) in list {
        let built = format!("{LOCAL}/workshop/{program}:latest");
        let file = if program == "pause" { pause.clone() } else { programs.join(program) };
        let entry = format!(r#"ENTRYPOINT ["/usr/local/bin/{program}"]"#);
        // kubeadm's pods name their command, but for these two.
        let lines = if matches!(program, "coredns" | "pause") { vec![entry.as_str()] } else { Vec::new() };
        program_image(&built, base, &[&file], &lines, log)?;
        images.push((built, name));
    }
    Ok(images)
}

fn compile_pause(paths: &Paths, log: &Log) -> Result<std::path::PathBuf> {
    debian::install(&["gcc", "libc6-dev"], &["gcc"], log)?;
    let program = paths.cache.join("programs/pause");
    let source = paths.recipes().join("node/pause.c");
    log.run(Command::new("gcc").args(["-O2", "-static", "-o"]).arg(&program).arg(source))?;
    Ok(program)
}

/// Builds the bare node, starts it, has its containerd import the images, and keeps the result.
fn preloaded_node(
    paths: &Paths,
    node: &str,
    system: &[(String, String)],
    influxdb: &str,
    log: &Log,
) -> Result<()> {
    let bare = bare_node(paths, log)?;
    remove_workshop();
    let start =
        ["run", "--detach", "--privileged", "--name", WORKSHOP, "--entrypoint", "sleep", &bare, "infinity"];
    log.run(Command::new("docker").args(start))?;
    log.run(Command::new("docker").args(["exec", "--detach", WORKSHOP, "containerd"]))?;
    wait_for("containerd in the workshop", Duration::from_secs(30), || quietly(&mut ctr(&["version"])))?;

    let mosquitto = debian::mosquitto();
    let names = system.iter().map(|(built, _)| built.as_str()).chain([mosquitto.as_str(), influxdb]);
    // Unpacked, they would take twice the place in every node that is created.
    let mut import = Command::new("docker");
    import.args(["exec", "--interactive", WORKSHOP, "ctr", "--namespace", "k8s.io", "images", "import"]);
    import.args(["--all-platforms", "--no-unpack", "-"]);
    log.pipe(Command::new("docker").arg("save").args(names), &mut import)?;
    for (built, name) in system {
        log.run(&mut ctr(&["images", "tag", built, name]))?;
        log.run(&mut ctr(&["images", "remove", built]))?;
    }
    let stop = "kill $(pidof containerd); while pidof containerd; do sleep 0.1; done; rm -rf /run/containerd";
    log.run(Command::new("docker").args(["exec", WORKSHOP, "sh", "-c", stop]))?;
    let entry = r#"ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]"#;
    log.run(
        Command::new("docker").args(["commit", "--change", entry, "--change", "CMD []", WORKSHOP, node]),
    )?;
    remove_workshop();
    log.run(Command::new("docker").args(["rmi", &bare]))
}

/// The node without images: `e2e/cluster/node/Dockerfile`.
fn bare_node(paths: &Paths, log: &Log) -> Result<String> {
    let context = std::env::temp_dir().join(format!("iotpipeline-node-{}", std::process::id()));
    empty_folder(&context)?;
    for entry in std::fs::read_dir(paths.recipes().join("node"))? {
        let entry = entry?;
        std::fs::copy(entry.path(), context.join(entry.file_name()))?;
    }
    for (file, mark, value) in [
        ("containerd.toml", "@PAUSE@", PAUSE.to_owned()),
        ("storage.yaml", "@PROVISIONER@", format!("{LOCAL}/local-path-provisioner:latest")),
    ] {
        let content = std::fs::read_to_string(context.join(file))?;
        std::fs::write(context.join(file), content.replace(mark, &value))?;
    }
    for program in ["kubeadm", "kubelet", "kubectl", "containerd", "containerd-shim-runc-v2", "ctr"] {
        std::fs::copy(go::programs(paths)?.join(program), context.join(program))?;
    }
    std::fs::write(context.join("version"), KUBERNETES)?;
    let bare = format!("{LOCAL}/workshop/node:latest");
    let result =
        docker_build(&context, &bare, &["--build-arg", &format!("BASE={}", debian::node_base())], log);
    std::fs::remove_dir_all(&context)?;
    result.map(|()| bare)
}

/// containerd's client in the workshop, in the namespace of Kubernetes.
fn ctr(arguments: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command.args(["exec", WORKSHOP, "ctr", "--namespace", "k8s.io"]).args(arguments);
    command
}

/// Also one that an interrupted command left.
fn remove_workshop() {
    quietly(Command::new("docker").args(["rm", "--force", "--volumes", WORKSHOP]));
}
