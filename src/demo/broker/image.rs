//! An image of RabbitMQ: the official one, or one built from Debian's package where no registry
//! can be reached. Both have the management and Prometheus plugins and let guest in from outside.

use std::{
    ffi::OsStr,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::docker_command::{daemon_answers, docker};
use super::host_packages::{apt_install, find_program, is_root};
use super::process::{CommandFailed, run, script};
use super::{BrokerRelease, ProvisionProgress, host_lock};

/// Where the images built here are kept, one tag a release.
const BUILT_NAME: &str = "rename-worker-test/rabbitmq";

/// Asking the daemon, or removing something.
const SHORT: Duration = Duration::from_secs(30);

/// A pull takes half a minute on a usual line. Without a registry it fails at once; where packets
/// are dropped silently this is what is lost.
const PULL_LIMIT: Duration = Duration::from_mins(2);

/// Fetching and unpacking some 200 packages takes 30 to 60 s; a slow mirror may need minutes.
const BUILD_LIMIT: Duration = Duration::from_mins(10);

/// The recipe's number, kept as a label. Another number makes a cached image stale.
const RECIPE: &str = "1";

/// `$1` the suite, `$2` an empty folder, `$3` the image's name, `$4` the recipe's number.
///
/// `rabbitmq-server` runs as the package's own user and without Debian's wrapper, which would put
/// itself between Docker's signals and the server. The plugins are only listed as enabled here.
const BUILD: &str = r#"
set -eu
root="$2/root"
debootstrap --variant=minbase --include=rabbitmq-server "$1" "$root" http://deb.debian.org/debian
chroot "$root" rabbitmq-plugins enable --offline rabbitmq_management rabbitmq_prometheus
mkdir -p "$root/etc/rabbitmq/conf.d"
echo 'loopback_users = none' > "$root/etc/rabbitmq/conf.d/10-throw-away.conf"
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* \
       "$root"/usr/share/doc "$root"/usr/share/man "$root"/usr/share/locale
tar -C "$root" --exclude='./proc/*' --exclude='./sys/*' --exclude='./dev/*' -c . | docker import \
    -c 'ENV RABBITMQ_LOGS=- HOME=/var/lib/rabbitmq LANG=C.UTF-8 PATH=/usr/lib/rabbitmq/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    -c 'USER rabbitmq' \
    -c 'EXPOSE 5672 15672 15692' \
    -c 'CMD ["rabbitmq-server"]' \
    -c "LABEL rename-worker.recipe=$4" \
    - "$3"
"#;

/// An image that the daemon has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerImage {
    pub name: String,
    pub tag: String,
    /// Whether it was built here: then it runs as the user `rabbitmq` and every container of it
    /// has the same Erlang cookie.
    pub built_here: bool,
}

impl fmt::Display for BrokerImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.tag)
    }
}

impl BrokerImage {
    fn official(release: BrokerRelease) -> Self {
        Self {
            name: "rabbitmq".to_owned(),
            tag: format!("{release}-management"),
            built_here: false,
        }
    }

    fn from_debian(release: BrokerRelease) -> Self {
        Self {
            name: BUILT_NAME.to_owned(),
            tag: release.to_string(),
            built_here: true,
        }
    }
}

/// Finds, pulls or builds the image; an error says why there is none.
pub async fn obtain(
    release: BrokerRelease,
    progress: &ProvisionProgress,
) -> Result<BrokerImage, String> {
    daemon_answers().await.map_err(|e| e.to_string())?;
    let official = BrokerImage::official(release);
    let built = BrokerImage::from_debian(release);
    if present(&official).await {
        return Ok(official);
    }
    if current(&built).await {
        return Ok(built);
    }
    let pull = docker(&["pull", "--quiet", &official.to_string()], PULL_LIMIT).await;
    let Err(pull) = pull else {
        return Ok(official);
    };
    match build(release, &built, progress).await {
        Ok(()) => Ok(built),
        Err(why) => Err(format!(
            "{official} cannot be pulled ({}), and no image can be built: {why}",
            pull.why
        )),
    }
}

async fn present(image: &BrokerImage) -> bool {
    docker(&["image", "inspect", &image.to_string()], SHORT)
        .await
        .is_ok()
}

/// Whether an image built earlier is there and of this recipe.
async fn current(image: &BrokerImage) -> bool {
    let label = r#"{{index .Config.Labels "rename-worker.recipe"}}"#;
    docker(
        &["image", "inspect", "--format", label, &image.to_string()],
        SHORT,
    )
    .await
    .is_ok_and(|recipe| recipe.trim() == RECIPE)
}

async fn build(
    release: BrokerRelease,
    image: &BrokerImage,
    progress: &ProvisionProgress,
) -> Result<(), String> {
    if !is_root().await {
        return Err("debootstrap needs root".to_owned());
    }
    let _turn = host_lock::acquire(&format!("rabbitmq-{release}"), progress).await?;
    // Whoever had the turn before may have built it.
    if current(image).await {
        return Ok(());
    }
    progress("building a RabbitMQ image from Debian's package, about a minute, once");
    if find_program("debootstrap").is_none() {
        apt_install("debootstrap")
            .await
            .map_err(|e| e.to_string())?;
    }
    let folder = ScratchDir::new(release)?;
    let arguments = [
        OsStr::new(release.suite()),
        folder.0.as_os_str(),
        OsStr::new(&image.to_string()),
        OsStr::new(RECIPE),
    ]
    .map(OsStr::to_owned);
    let arguments: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
    let built = run(&mut script(BUILD, &arguments), BUILD_LIMIT).await;
    let log = folder.0.join("root/debootstrap/debootstrap.log");
    built.map(drop).map_err(|error| told(&error, &log))
}

/// debootstrap prints what it does and keeps what went wrong to its log.
fn told(error: &CommandFailed, log: &Path) -> String {
    let said = std::fs::read_to_string(log).unwrap_or_default();
    let last = said.lines().last().unwrap_or_default();
    format!("building it {} {last}", error.why)
}

/// A folder for the packages' files, removed at the end.
struct ScratchDir(PathBuf);

impl ScratchDir {
    fn new(release: BrokerRelease) -> Result<Self, String> {
        let name = format!("rename-worker-image-{release}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
