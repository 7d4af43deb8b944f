//! The value.

use crate::ScenarioError;
use drylab_catalog::{GuestId, Mac, ProductId};
use serde::{Deserialize, Serialize};

/// Everything a run depends on. Two equal scenarios run alike, event for event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Version of this form; 1.
    pub format: u64,
    /// Guest operating system.
    pub guest: GuestId,
    /// Where the machine lives.
    pub source: ProductId,
    /// Where it shall live.
    pub target: ProductId,
    /// Kind of migration.
    #[serde(default, skip_serializing_if = "is_default")]
    pub migration: Migration,
    /// Id of the route: which exports, converters and imports, in order.
    pub route: String,
    /// Seed of the residual noise: addresses the console draws, delays, who else holds a lease.
    #[serde(default, skip_serializing_if = "is_default")]
    pub run_seed: u64,
    /// Seed of the generator that made this scenario: a comment, never read.
    #[serde(default, skip_serializing_if = "is_default")]
    pub found_by: Option<u64>,
    /// Named relaxations of the policy.
    #[serde(default, skip_serializing_if = "is_default")]
    pub relax: Vec<String>,
    /// The machine at the source.
    #[serde(default, skip_serializing_if = "is_default")]
    pub source_vm: SourceVm,
    /// What a person sets by hand at the target.
    #[serde(default, skip_serializing_if = "is_default")]
    pub target_vm: TargetVm,
    /// What a person chooses in the target's import wizard.
    #[serde(default, skip_serializing_if = "is_default")]
    pub import: Import,
    /// The lab around both.
    #[serde(default, skip_serializing_if = "is_default")]
    pub lab: Lab,
    /// Changes to the guest's disk before the run.
    #[serde(default, skip_serializing_if = "is_default")]
    pub edits: Vec<Edit>,
    /// Changes to the descriptor that the source's export writes, before anything else reads it. The manifest is made
    /// anew for it: a package as another tool would have written it, not one that was tampered with.
    #[serde(default, skip_serializing_if = "is_default")]
    pub descriptor_edits: Vec<DescriptorEdit>,
    /// What goes wrong in the lab.
    #[serde(default, skip_serializing_if = "is_default")]
    pub faults: Vec<Fault>,
    /// What the run must come to, for regressions.
    #[serde(default, skip_serializing_if = "is_default")]
    pub expect: Option<Expect>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// After DMTF's portability levels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Migration {
    /// Shut down here, boot there.
    #[default]
    Cold,
}

/// The machine at the source. Defaults: what the golden guest was installed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceVm {
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Address of the adapter; default: the one the golden guest was installed with.
    #[serde(skip_serializing_if = "is_default")]
    pub mac: Option<Mac>,
    /// Size of the disk in bytes, the golden guest at its beginning and zeros behind it; default: the golden guest's.
    #[serde(skip_serializing_if = "is_default")]
    pub disk_bytes: Option<u64>,
    /// Snapshots taken of it, all before the scenario's edits were made to its disk; at most 8.
    #[serde(skip_serializing_if = "is_default")]
    pub snapshots: u32,
}

/// Most snapshots of a machine.
const SNAPSHOTS_MAX: u32 = 8;

/// Largest disk a scenario may have: 64 TiB, more than any product takes.
const DISK_BYTES_MAX: u64 = 64 << 40;

impl Default for SourceVm {
    fn default() -> Self {
        Self {
            vcpus: 2,
            memory_mib: 2048,
            mac: None,
            disk_bytes: None,
            snapshots: 0,
        }
    }
}

/// What a person sets by hand at the target instead of the console's defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TargetVm {
    /// Typed MAC address.
    #[serde(skip_serializing_if = "is_default")]
    pub mac: Option<Mac>,
    /// Chosen adapter model.
    #[serde(skip_serializing_if = "is_default")]
    pub nic_model: Option<String>,
    /// Chosen controller of the boot disk.
    #[serde(skip_serializing_if = "is_default")]
    pub controller: Option<String>,
}

/// What a person chooses in the target's import wizard, or on its command line. A choice that the route's import does
/// not offer is no scenario.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Import {
    /// XenCenter, OVF package or disk image: use Operating System Fixup.
    #[serde(skip_serializing_if = "is_default")]
    pub fixup: bool,
    /// XenServer, XVA (`xe vm-import preserve=true`): addresses of adapters and the seed they come from are kept.
    #[serde(skip_serializing_if = "is_default")]
    pub preserve: bool,
}

/// The lab around both hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lab {
    /// The day of the run, `YYYY-MM-DD`: relaxations expire by it.
    pub today: String,
    /// Whether the LAN has a DHCP server.
    pub dhcp: bool,
    /// Addresses in its pool.
    pub dhcp_pool: u32,
    /// Leases held by others; default: drawn from the run's seed.
    #[serde(skip_serializing_if = "is_default")]
    pub dhcp_clients: Option<u32>,
    /// Seconds until a switch port forwards (spanning tree: 30).
    pub forward_delay_s: u32,
    /// Where the target's virtual network leads.
    pub target_network: TargetNetwork,
    /// Another machine of the same name is in the target's inventory.
    pub name_taken: bool,
    /// Bytes free on the target's datastore; default: all that the lab file says.
    #[serde(skip_serializing_if = "is_default")]
    pub datastore_free: Option<u64>,
}

impl Default for Lab {
    fn default() -> Self {
        Self {
            today: "2013-02-11".to_owned(),
            dhcp: true,
            dhcp_pool: 100,
            dhcp_clients: None,
            forward_delay_s: 0,
            target_network: TargetNetwork::SameSegment,
            name_taken: false,
            datastore_free: None,
        }
    }
}

/// Where the target's virtual network leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetNetwork {
    /// Bridged to the segment the source is on.
    #[default]
    SameSegment,
    /// Another subnet with its own DHCP server, gateway and DNS.
    OtherSubnet,
}

/// A change to the guest's disk before the run, applied through the filesystem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Edit {
    /// Writes a file.
    Write {
        /// Absolute path in the guest.
        path: String,
        /// Its new content.
        text: String,
    },
    /// Replaces every occurrence of a text in a file.
    Replace {
        /// Absolute path in the guest.
        path: String,
        /// What to look for.
        from: String,
        /// What to put there.
        to: String,
    },
    /// Puts a text at the end of a file.
    Append {
        /// Absolute path in the guest.
        path: String,
        /// What to put there.
        text: String,
    },
    /// Removes the lines of a file that contain a text.
    RemoveLines {
        /// Absolute path in the guest.
        path: String,
        /// What the lines contain.
        containing: String,
    },
    /// Removes a file, which must be there.
    Remove {
        /// Absolute path in the guest.
        path: String,
        /// Whether it may be missing: for edits of guests of several sources, of which not all have it.
        #[serde(
            default,
            rename = "if-present",
            skip_serializing_if = "std::ops::Not::not"
        )]
        if_present: bool,
    },
    /// Removes a kernel module from the initramfs.
    RemoveModule {
        /// Name as `lsmod` shows it.
        module: String,
    },
    /// Sets a DWORD in a registry hive.
    SetDword {
        /// `SYSTEM` or `SOFTWARE`.
        hive: String,
        /// Path of the key below the hive's root.
        key: String,
        /// Name of the value.
        value: String,
        /// New data.
        data: u32,
    },
    /// Sets a list of texts (`REG_MULTI_SZ`) in a registry hive.
    SetStrings {
        /// `SYSTEM` or `SOFTWARE`.
        hive: String,
        /// Path of the key below the hive's root.
        key: String,
        /// Name of the value.
        value: String,
        /// New texts.
        data: Vec<String>,
    },
    /// Removes a key and all below it from a registry hive.
    DeleteKey {
        /// `SYSTEM` or `SOFTWARE`.
        hive: String,
        /// Path of the key below the hive's root.
        key: String,
    },
    /// Overwrites bytes of the disk.
    Bytes {
        /// Byte offset on the disk.
        offset: u64,
        /// New bytes, in hex digits.
        hex: String,
    },
}

/// A change to the text of the descriptor that travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DescriptorEdit {
    /// What to look for; every occurrence is replaced.
    pub from: String,
    /// What to put there.
    pub to: String,
}

/// Something that goes wrong in the lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What.
    pub kind: FaultKind,
    /// Where.
    pub place: FaultPlace,
    /// In which step.
    pub step: Step,
    /// Bytes taken, for [`FaultKind::SpaceTaken`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub bytes: u64,
}

/// Kinds of faults; each is a pure loss of capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// Somebody else fills the datastore.
    SpaceTaken,
    /// The tool that does the step ends with an error.
    ToolCrash,
    /// The virtual adapter is disconnected.
    LinkDown,
}

/// Where a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultPlace {
    /// The source host.
    Source,
    /// The target host.
    Target,
}

/// The seven scripted steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// 1: is the machine healthy where it lives?
    SourceSanity,
    /// 2: shut it down.
    Shutdown,
    /// 3: write it in the form the route needs.
    Export,
    /// 4: has the target room for it?
    TargetResources,
    /// 5: can the target run it?
    TargetConsistency,
    /// 6: make it there.
    Import,
    /// 7: boot it there.
    Restart,
}

impl Step {
    /// All steps, in order.
    pub const ALL: [Self; 7] = [
        Self::SourceSanity,
        Self::Shutdown,
        Self::Export,
        Self::TargetResources,
        Self::TargetConsistency,
        Self::Import,
        Self::Restart,
    ];

    /// The name used in files and output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SourceSanity => "source-sanity",
            Self::Shutdown => "shutdown",
            Self::Export => "export",
            Self::TargetResources => "target-resources",
            Self::TargetConsistency => "target-consistency",
            Self::Import => "import",
            Self::Restart => "restart",
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// What a regression must come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Overall score: `SUCCESS`, `WARNING`, `FAILURE`, `UNKNOWN`.
    pub overall: String,
    /// Step, check and cause ids that failed or warned.
    #[serde(default)]
    pub signature: String,
}

impl Scenario {
    /// A scenario with every default.
    #[must_use]
    pub fn new(guest: &str, source: &str, target: &str, route: &str) -> Self {
        Self {
            format: 1,
            guest: guest.into(),
            source: source.into(),
            target: target.into(),
            migration: Migration::Cold,
            route: route.to_owned(),
            run_seed: 0,
            found_by: None,
            relax: Vec::new(),
            source_vm: SourceVm::default(),
            target_vm: TargetVm::default(),
            import: Import::default(),
            lab: Lab::default(),
            edits: Vec::new(),
            descriptor_edits: Vec::new(),
            faults: Vec::new(),
            expect: None,
        }
    }

    /// Reads a scenario file.
    ///
    /// # Errors
    /// [`ScenarioError::Version`] before anything else is looked at, [`ScenarioError::Toml`] with the place,
    /// [`ScenarioError::Bound`] for values outside their bounds.
    pub fn from_toml(text: &str) -> Result<Self, ScenarioError> {
        let toml_error = |error: toml::de::Error| ScenarioError::Toml(error.to_string());
        let table: toml::Table = toml::from_str(text).map_err(toml_error)?;
        match table.get("format").and_then(toml::Value::as_integer) {
            Some(1) => {}
            Some(other) => return Err(ScenarioError::Version(u64::try_from(other).unwrap_or(0))),
            None => return Err(ScenarioError::Toml("format = 1 is missing".to_owned())),
        }
        let scenario: Self = toml::from_str(text).map_err(toml_error)?;
        scenario.check()?;
        Ok(scenario)
    }

    /// Writes a scenario file, defaults left out.
    ///
    /// # Panics
    /// Never: every part of a scenario has a TOML form.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a scenario holds only texts, integers, lists and tables")
    }

    /// Checks bounds that the types do not.
    ///
    /// # Errors
    /// [`ScenarioError::Bound`].
    pub fn check(&self) -> Result<(), ScenarioError> {
        let bound = |field, value: &dyn std::fmt::Display, bound: &str| {
            Err(ScenarioError::Bound {
                field,
                value: value.to_string(),
                bound: bound.to_owned(),
            })
        };
        if !(1..=255).contains(&self.source_vm.vcpus) {
            return bound("source_vm.vcpus", &self.source_vm.vcpus, "1..=255");
        }
        if !(4..=4_194_304).contains(&self.source_vm.memory_mib) {
            return bound(
                "source_vm.memory_mib",
                &self.source_vm.memory_mib,
                "4..=4194304",
            );
        }
        let disk_bytes = self.source_vm.disk_bytes.unwrap_or(0);
        if disk_bytes > DISK_BYTES_MAX || !disk_bytes.is_multiple_of(512) {
            return bound(
                "source_vm.disk_bytes",
                &disk_bytes,
                "whole sectors of 512 bytes, at most 64 TiB",
            );
        }
        if self.source_vm.snapshots > SNAPSHOTS_MAX {
            let snapshots = &self.source_vm.snapshots;
            return bound("source_vm.snapshots", snapshots, "at most 8");
        }
        if self.run_seed > i64::MAX as u64 {
            return bound(
                "run_seed",
                &self.run_seed,
                "below 2^63, the range of TOML integers",
            );
        }
        if self.lab.dhcp_pool > 200
            || self
                .lab
                .dhcp_clients
                .is_some_and(|clients| clients > self.lab.dhcp_pool)
        {
            return bound(
                "lab.dhcp_pool",
                &self.lab.dhcp_pool,
                "at most 200 and no smaller than dhcp_clients",
            );
        }
        if self
            .lab
            .datastore_free
            .is_some_and(|free| free > i64::MAX as u64)
        {
            return bound("lab.datastore_free", &"2^63 or more", "below 2^63");
        }
        Ok(())
    }
}
