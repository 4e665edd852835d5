//! An Ubuntu series and NVIDIA's CUDA repository beside it, as a builder of GDS images meets them, traps included.
//!
//! Names, versions, dependencies and paths are the real ones as far as they are public; file contents are small
//! stand-ins, unless the test brings the real ones ([`Spec::files`], [`Spec::more`]). The traps, each in one place:
//!
//! | trap | where |
//! |---|---|
//! | GPU modules lag behind the newest kernel, nvidia-fs does not | `kernel`, metapackages |
//! | unsigned open modules at the same paths in `linux-objects-...` | `kernel` |
//! | proprietary modules that must be linked by `bits/BUILD` | `kernel` |
//! | `.ko`, `.ko.zst` and both in one tree; stripped `modules.*`; vmlinuz of mode 0600 | `kernel` |
//! | `~24.04.1`, `+1`, a branch that is only a transition to the next | `kernel`, `driver` |
//! | merged-usr links and `.usr-is-merged` in base-files, `./lib/...` elsewhere | `userland` |
//! | phased updates, a newer version in backports | `userland` |
//! | a QEMU that is too old, beside a later series that has another | `userland`, `emulator` |
//! | shim only as `.latest`, a GRUB of SBAT generation 4 in the frozen pocket | `boot` |
//! | driver packages in the CUDA repository that must lose, missing alternatives | `cuda` |

mod boot;
mod cuda;
mod driver;
mod emulator;
mod kernel;
mod userland;

use super::date::Instant;
use super::deb::{Compression, Deb, Entry};
use super::repository::{self, Package, Pocket, Series, Tree};
use super::server::{Origin, Server};
use super::sign::Key;
use super::snapshots::History;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A kernel and the version of its packages.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// `uname -r`.
    pub release: String,
    /// Version of `linux-image-<release>`.
    pub version: String,
}

/// Something wrong with the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flaw {
    /// The only GRUB is the one of the release pocket, which current machines revoke.
    OldGrubOnly,
    /// The open modules carry no signature.
    UnsignedModules,
    /// There is no nvidia-fs for the kernel that has GPU modules.
    NoNvidiaFs,
    /// The user space is of a newer driver than the modules, which refuse it.
    DriverAhead,
    /// The GPU modules are gone; only their metapackage is left.
    ModulesVanished,
    /// The CUDA repository has no cuFile of the wanted series.
    NoCufile,
}

/// What to publish.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The series.
    pub series: Series,
    /// Kernel flavour with its series, such as `nvidia-6.17`.
    pub family: String,
    /// The kernel that has everything.
    pub kernel: Kernel,
    /// A newer one, for which there are no GPU modules yet.
    pub newer: Kernel,
    /// Driver branch, such as `580`.
    pub branch: String,
    /// Driver version.
    pub driver: String,
    /// CUDA series in package names, such as `13-1`.
    pub cuda: String,
    /// cuFile's version.
    pub cufile: String,
    /// Modules' suffix in kernel packages: `.ko.zst`, or `.ko` before 23.10.
    pub module_suffix: &'static str,
    /// Whether base-files ships the links of a merged /usr.
    pub merged_by_base_files: bool,
    /// How kernel packages are compressed.
    pub kernel_compression: Compression,
    /// When the state that resolves was published. A second one follows nine days later, in which everything is newer.
    pub published: Instant,
    /// Real files of a package, in place of the stand-ins.
    pub files: BTreeMap<String, Vec<Entry>>,
    /// Packages that are published beside, in the release pocket; one of the same name takes the stand-in's place.
    pub more: Vec<Package>,
    /// What is wrong.
    pub flaws: BTreeSet<Flaw>,
}

impl Spec {
    /// Ubuntu 24.04 in autumn 2026.
    pub fn noble() -> Self {
        Self {
            series: Series {
                codename: "noble",
                version: "24.04",
                frozen: Instant::parse_id("20240425T151033Z").unwrap(),
            },
            family: "nvidia-6.17".into(),
            kernel: Kernel { release: "6.17.0-1031-nvidia".into(), version: "6.17.0-1031.31".into() },
            newer: Kernel { release: "6.17.0-1032-nvidia".into(), version: "6.17.0-1032.32".into() },
            branch: "580".into(),
            driver: "580.173.02".into(),
            cuda: "13-1".into(),
            cufile: "1.16.1.26".into(),
            module_suffix: ".ko.zst",
            merged_by_base_files: true,
            kernel_compression: Compression::None,
            published: Instant::parse_id("20261028T060043Z").unwrap(),
            files: BTreeMap::new(),
            more: Vec::new(),
            flaws: BTreeSet::new(),
        }
    }

    /// Ubuntu 22.04 at the same time: plain modules, no links in base-files, zstd-compressed kernel packages.
    pub fn jammy() -> Self {
        Self {
            series: Series {
                codename: "jammy",
                version: "22.04",
                frozen: Instant::parse_id("20220421T171600Z").unwrap(),
            },
            family: "nvidia-6.8".into(),
            kernel: Kernel { release: "6.8.0-1045-nvidia".into(), version: "6.8.0-1045.48~22.04.1".into() },
            newer: Kernel { release: "6.8.0-1046-nvidia".into(), version: "6.8.0-1046.49~22.04.1".into() },
            module_suffix: ".ko",
            merged_by_base_files: false,
            kernel_compression: Compression::Zstd,
            ..Self::noble()
        }
    }

    /// With something wrong.
    pub fn flaw(mut self, flaw: Flaw) -> Self {
        self.flaws.insert(flaw);
        self
    }

    /// With a package's real files.
    pub fn files(mut self, package: &str, entries: Vec<Entry>) -> Self {
        self.files.insert(package.to_owned(), entries);
        self
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaws.contains(&flaw)
    }

    /// `580.173.02-0ubuntu0.24.04.1`.
    fn driver_version(&self) -> String {
        format!("{}-0ubuntu0.{}.1", self.driver, self.series.version)
    }

    /// The spec of the second publication: GPU modules for the newer kernel, and a newer driver.
    fn nine_days_later(&self) -> Self {
        let bump = |text: &str| {
            let (head, last) = text.rsplit_once('.').unwrap();
            format!("{head}.{:02}", last.parse::<u32>().unwrap() + 1)
        };
        Self {
            kernel: self.newer.clone(),
            newer: Kernel {
                release: format!("{}x", self.newer.release),
                version: format!("{}.1", self.newer.version),
            },
            driver: bump(&self.driver),
            published: self.published.plus(9 * 86_400),
            files: BTreeMap::new(),
            ..self.clone()
        }
    }
}

/// The packages of one publication, by pocket.
#[derive(Debug, Default)]
struct Shelf {
    packages: Vec<(Pocket, Package)>,
}

impl Shelf {
    fn put(&mut self, pocket: Pocket, component: &'static str, deb: Deb) {
        self.packages.push((pocket, Package::new(&deb).component(component)));
    }

    /// What a test brings takes the place of stand-ins.
    fn bring(&mut self, more: &[Package]) {
        let replaced: BTreeSet<_> = more.iter().map(Package::name).collect();
        self.packages.retain(|(_, package)| !replaced.contains(package.name()));
        self.packages.extend(more.iter().map(|package| (Pocket::Release, package.clone())));
    }

    /// In `-updates` and `-security`, as most kernels and drivers are.
    fn put_secure(&mut self, component: &'static str, deb: Deb) {
        let package = Package::new(&deb).component(component);
        self.packages.push((Pocket::Security, package.clone()));
        self.packages.push((Pocket::Updates, package));
    }
}

/// A published archive.
#[derive(Debug)]
pub struct Ubuntu {
    /// What it was made from.
    pub spec: Spec,
    /// Signs Ubuntu's suites.
    pub key: Arc<Key>,
    /// Signs the CUDA repository.
    pub vendor: Arc<Key>,
    /// Under `/ubuntu/`.
    pub history: Arc<History>,
    /// Under `/compute/cuda/repos/ubuntu2404/x86_64/` or its like.
    pub cuda: Tree,
}

/// Makes, compresses and signs everything.
pub fn publish(spec: Spec) -> Ubuntu {
    let (key, vendor) = (Arc::new(Key::generate("ubuntu")), Arc::new(Key::generate("nvidia")));
    let history = Arc::new(History::new());
    for state in [spec.clone(), spec.nine_days_later()] {
        history.publish(state.published, tree(&state, &key));
    }
    let cuda =
        repository::cuda(spec.published.plus(3 * 86_400), cuda::packages(&spec, &vendor), &vendor).tree();
    Ubuntu { spec, key, vendor, history, cuda }
}

fn tree(spec: &Spec, key: &Arc<Key>) -> Tree {
    let mut shelf = Shelf::default();
    userland::fill(spec, &mut shelf, key);
    kernel::fill(spec, &mut shelf);
    driver::fill(spec, &mut shelf);
    boot::fill(spec, &mut shelf);
    let mut later = Shelf::default();
    emulator::fill(spec, &mut later);
    let mut tree = Tree::new();
    // Later than NVIDIA's repository too.
    let after_all = 3 * 86_400 + 3_600;
    for (series, mut shelf, published) in
        [(&spec.series, shelf, spec.published), (&emulator::series(), later, spec.published.plus(after_all))]
    {
        shelf.bring(&spec.more);
        for pocket in [Pocket::Release, Pocket::Updates, Pocket::Security, Pocket::Backports] {
            let packages =
                shelf.packages.iter().filter(|(p, _)| *p == pocket).map(|(_, p)| p.clone()).collect();
            tree.extend(repository::launchpad(series, pocket, published, packages, key).tree());
        }
    }
    tree
}

impl Ubuntu {
    /// Publishes a third state, nine days after the second: what a lock of the live archive names is gone.
    pub fn move_on(&self) {
        let state = self.spec.nine_days_later().nine_days_later();
        self.history.publish(state.published, tree(&state, &self.key));
    }

    /// Mounts both archives where their own servers have them.
    pub fn mount(&self, server: &Server) {
        server.mount("/ubuntu/", Origin::History(self.history.clone()));
        server.mount_tree(&self.cuda_path(), self.cuda.clone(), self.spec.published.plus(3 * 86_400));
    }

    /// `/compute/cuda/repos/ubuntu2404/x86_64/`.
    pub fn cuda_path(&self) -> String {
        format!("/compute/cuda/repos/ubuntu{}/x86_64/", self.spec.series.version.replace('.', ""))
    }

    /// Writes both keyrings into `folder` under the names that they have on a real host: Ubuntu's, NVIDIA's.
    pub fn write_keyrings(&self, folder: &Path) -> (PathBuf, PathBuf) {
        let paths = (folder.join("ubuntu-archive-keyring.gpg"), folder.join("cuda-archive-keyring.gpg"));
        self.key.write_keyring(&paths.0);
        self.vendor.write_keyring(&paths.1);
        paths
    }
}

/// A package of the archive: control fields in the spelling of the real one, and either its stand-in files or the ones
/// that the test brought.
fn deb(spec: &Spec, name: &str, version: &str, source: &str, depends: &str) -> Deb {
    let mut deb = Deb::new(name, version).depends(depends);
    if source != name {
        deb = deb.field("Source", source);
    }
    deb.control.set("Origin", "Ubuntu").set("Bugs", "https://bugs.example.invalid/ubuntu/+filebug");
    if let Some(entries) = spec.files.get(name) {
        deb.data.clone_from(entries);
    }
    deb
}

/// Adds stand-in files, unless the test brought real ones.
fn stand_in(spec: &Spec, deb: Deb, add: impl FnOnce(Deb) -> Deb) -> Deb {
    if spec.files.contains_key(deb.name()) { deb } else { add(deb) }
}
