//! One change to a scenario: what a person sets, what the lab is like, what is on the guest's disk.

use drylab_catalog::Mac;
use drylab_scenario::{
    DescriptorEdit, Edit, Fault, FaultKind, FaultPlace, Scenario, Step, TargetNetwork,
};

const RULES: &str = "/etc/udev/rules.d/70-persistent-net.rules";
const IFCFG: &str = "/etc/sysconfig/network-scripts/ifcfg-eth0";
const INTERFACES: &str = "/etc/network/interfaces";
const GRUB_CONF: &str = "/boot/grub/grub.conf";
const GRUB_CFG: &str = "/boot/grub/grub.cfg";
const CONTROLLERS: [&str; 10] = [
    "piix3-ide",
    "piix4-ide",
    "lsilogic",
    "lsisas1068",
    "buslogic",
    "pvscsi",
    "virtio-blk",
    "piix4-ide-hyperv",
    "hyperv-scsi",
    "xen-vbd",
];
const ADAPTERS: [&str; 10] = [
    "virtio-net",
    "e1000-82545em",
    "e1000e-82574l",
    "rtl8139",
    "vmxnet3",
    "vlance",
    "ne2k_pci",
    "dec21140",
    "hyperv-nic",
    "xen-vif",
];

/// What one change does to a scenario.
type Change<'c> = dyn Fn(&mut Scenario) + 'c;

/// Every scenario that differs from this one in one change.
pub(crate) fn of(scenario: &Scenario) -> Vec<Scenario> {
    let mut all = Vec::new();
    let mut with = |change: &Change<'_>| {
        let mut changed = scenario.clone();
        change(&mut changed);
        if changed != *scenario && changed.check().is_ok() {
            all.push(changed);
        }
    };
    for controller in CONTROLLERS {
        with(&|it| it.target_vm.controller = Some(controller.to_owned()));
    }
    for adapter in ADAPTERS {
        with(&|it| it.target_vm.nic_model = Some(adapter.to_owned()));
    }
    for vcpus in [1, 3, 5, 17, 33, 161] {
        with(&|it| it.source_vm.vcpus = vcpus);
    }
    for memory in [64, 2047, 2050, 70_000, 140_000, 2_000_000] {
        with(&|it| it.source_vm.memory_mib = memory);
    }
    macs(&mut with);
    lab(&mut with);
    with(&|it| {
        it.faults = vec![Fault {
            kind: FaultKind::LinkDown,
            place: FaultPlace::Target,
            step: Step::Restart,
            bytes: 0,
        }];
    });
    for edits in edits(scenario.guest.as_str()) {
        with(&|it| it.edits.clone_from(&edits));
    }
    for edits in descriptor_edits(&scenario.route) {
        with(&|it| it.descriptor_edits = edits.iter().map(|edit| rewritten(*edit)).collect());
    }
    all
}

/// What to look for in a descriptor, and what to write for it.
type Rewritten = (&'static str, &'static str);

fn rewritten((from, to): Rewritten) -> DescriptorEdit {
    DescriptorEdit {
        from: from.to_owned(),
        to: to.to_owned(),
    }
}

/// Descriptors as other versions and products write them, on routes that import what was exported.
fn descriptor_edits(route: &str) -> &'static [&'static [Rewritten]] {
    match route {
        "esx-v2v" => &[&[("virtualHW.version = \"8\"", "virtualHW.version = \"9\"")]],
        "kvm-native-define" => &[
            &[("bus=\"virtio\"", "bus=\"scsi\"")],
            &[("<model type=\"virtio\"", "<model type=\"vmxnet3\"")],
            &[(
                "</devices>",
                "<disk device=\"cdrom\"><target dev=\"hde\"/></disk></devices>",
            )],
        ],
        "esxi-native-ovf" => &[
            &[
                (
                    "<VirtualSystem ",
                    "<VirtualSystemCollection ovf:id=\"group\"><Info>several</Info><VirtualSystem ",
                ),
                (
                    "</VirtualSystem>",
                    "</VirtualSystem></VirtualSystemCollection>",
                ),
            ],
            &[("<VirtualSystem ", "<Section/><VirtualSystem ")],
            &[("<rasd:ResourceType>6</", "<rasd:ResourceType>20</")],
        ],
        _ => &[],
    }
}

/// Addresses of other classes than the consoles draw, typed by hand at either end or both.
fn macs(with: &mut dyn FnMut(&Change<'_>)) {
    // An adapter vendor's, an old libvirt's, a locally administered one, and what each golden guest was installed with.
    let typed = [
        "00:1b:21:00:00:02",
        "54:52:00:00:00:02",
        "02:00:00:00:00:02",
        "00:0c:29:4f:8e:35",
        "52:54:00:6b:3c:58",
    ];
    for mac in typed {
        let mac: Mac = mac.parse().expect("a MAC");
        with(&|it| it.target_vm.mac = Some(mac));
        with(&|it| it.source_vm.mac = Some(mac));
        let rule = format!(
            "# PCI device 0x8086:0x100f (e1000)\nSUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"?*\", \
             ATTR{{address}}==\"{mac}\", ATTR{{dev_id}}==\"0x0\", ATTR{{type}}==\"1\", KERNEL==\"eth*\", NAME=\"eth0\"\n"
        );
        let bound = |it: &mut Scenario| {
            it.source_vm.mac = Some(mac);
            it.edits = vec![write(RULES, &rule)];
        };
        with(&bound);
        for other in ["00:1b:21:00:00:03", "54:52:00:00:00:03"] {
            with(&|it| {
                bound(it);
                it.target_vm.mac = Some(other.parse().expect("a MAC"));
            });
        }
    }
}

fn lab(with: &mut dyn FnMut(&Change<'_>)) {
    with(&|it| it.lab.dhcp = false);
    with(&|it| it.lab.dhcp_clients = Some(100));
    for seconds in [4, 15, 30, 60, 200] {
        with(&|it| it.lab.forward_delay_s = seconds);
    }
    with(&|it| it.lab.target_network = TargetNetwork::OtherSubnet);
    with(&|it| it.source_vm.snapshots = 1);
    with(&|it| it.import.fixup = true);
    with(&|it| it.import.preserve = true);
    with(&|it| it.lab.name_taken = true);
    for free in [0, 1 << 28, 1 << 30, 5 << 30] {
        with(&|it| it.lab.datastore_free = Some(free));
    }
}

fn write(path: &str, text: &str) -> Edit {
    Edit::Write {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}

fn replace(path: &str, from: &str, to: &str) -> Edit {
    Edit::Replace {
        path: path.to_owned(),
        from: from.to_owned(),
        to: to.to_owned(),
    }
}

fn remove(path: &str) -> Edit {
    Edit::Remove {
        path: path.to_owned(),
        // Of machines installed on XenServer not every file is there.
        if_present: true,
    }
}

fn without(path: &str, containing: &str) -> Edit {
    Edit::RemoveLines {
        path: path.to_owned(),
        containing: containing.to_owned(),
    }
}

/// Changes that make sense on this guest's disk; each list is one.
fn edits(guest: &str) -> Vec<Vec<Edit>> {
    let mut all = match guest {
        "centos-6.3" => centos(),
        "ubuntu-12.04" => ubuntu(),
        _ => return windows(),
    };
    let modules = [
        "virtio_blk",
        "virtio_pci",
        "ata_piix",
        "mptspi",
        "mptsas",
        "xen_blkfront",
        "hv_storvsc",
        "e1000",
        "8139cp",
        "xen_netfront",
    ];
    for module in modules {
        all.push(vec![Edit::RemoveModule {
            module: module.to_owned(),
        }]);
    }
    all.push(vec![zeroes(0, 440)]);
    all
}

fn zeroes(offset: u64, count: usize) -> Edit {
    Edit::Bytes {
        offset,
        hex: "00".repeat(count),
    }
}

fn centos() -> Vec<Vec<Edit>> {
    let hwaddr = || without(IFCFG, "HWADDR");
    let line = |text: &str| replace(IFCFG, "ONBOOT=\"yes\"", &format!("ONBOOT=\"yes\"\n{text}"));
    vec![
        vec![remove(RULES)],
        vec![hwaddr()],
        vec![remove(RULES), hwaddr()],
        vec![remove(IFCFG)],
        vec![line("PERSISTENT_DHCLIENT=yes")],
        vec![line("PERSISTENT_DHCLIENT=yes"), remove(RULES), hwaddr()],
        vec![line("LINKDELAY=40"), remove(RULES), hwaddr()],
        vec![replace(IFCFG, "BOOTPROTO=\"dhcp\"", "BOOTPROTO=\"DHCP\"")],
        vec![replace(
            IFCFG,
            "BOOTPROTO=\"dhcp\"",
            "BOOTPROTO=\"static\"\nIPADDR=10.20.0.77\nNETMASK=255.255.255.0\nGATEWAY=10.20.0.1",
        )],
        vec![replace(IFCFG, "ONBOOT=\"yes\"", "ONBOOT=\"no\"")],
        vec![
            write("/usr/sbin/NetworkManager", "a program\n"),
            write("/etc/rc.d/rc3.d/S23NetworkManager", "#!/bin/bash\n"),
            replace(IFCFG, "NM_CONTROLLED=\"no\"", "NM_CONTROLLED=\"yes\""),
        ],
        vec![replace("/etc/sysconfig/iptables", "-i lo", "-i eth0")],
        vec![
            replace("/etc/sysconfig/iptables", "-i lo", "-i eth0"),
            remove(RULES),
        ],
        vec![replace(
            "/etc/sysconfig/iptables",
            "--dport 22",
            "-i eth0 --dport 22",
        )],
        vec![replace(GRUB_CONF, "rd_LVM_LV=vg_centos/lv_root ", "")],
        vec![replace(
            GRUB_CONF,
            "root=/dev/mapper/vg_centos-lv_root",
            "root=/dev/sda2",
        )],
        vec![replace(
            GRUB_CONF,
            "rhgb",
            "console=tty0 console=ttyS0 rhgb",
        )],
        vec![replace(
            GRUB_CONF,
            "quiet",
            "console=tty0 console=hvc0 quiet",
        )],
        vec![replace(GRUB_CONF, "quiet", "xen_emul_unplug=never quiet")],
        vec![replace(
            "/etc/fstab",
            "UUID=",
            "/dev/sdb1 /data ext4 defaults 1 2\nUUID=",
        )],
        vec![without("/etc/fstab", "/boot")],
    ]
}

fn ubuntu() -> Vec<Vec<Edit>> {
    let fixed = |auto: &str, name: &str| {
        format!(
            "auto lo\niface lo inet loopback\n{auto} {name}\niface {name} inet static\n address 10.20.0.77\n \
             netmask 255.255.255.0\n gateway 10.20.0.1\n"
        )
    };
    let root = "root=UUID=1f7b9c54-2a83-4d0e-b6f1-90c3e5d72a04";
    vec![
        vec![write(INTERFACES, &fixed("auto", "eth0"))],
        vec![write(INTERFACES, &fixed("auto", "eth1"))],
        vec![write(INTERFACES, &fixed("allow-hotplug", "eth0"))],
        vec![write(INTERFACES, "auto lo\niface lo inet loopback\n")],
        vec![replace(INTERFACES, "eth0", "eth1")],
        vec![replace(GRUB_CFG, root, "root=/dev/sda1")],
        vec![replace(GRUB_CFG, root, "root=/dev/vda1")],
        vec![replace(GRUB_CFG, root, "root=/dev/xvda1")],
        vec![replace(GRUB_CFG, "quiet", "console=hvc0 quiet")],
        vec![replace(
            GRUB_CFG,
            "quiet",
            "console=tty0 console=ttyS0 quiet",
        )],
        vec![replace(GRUB_CFG, "quiet", "xen_emul_unplug=never quiet")],
        vec![replace(
            "/etc/fstab",
            "UUID=",
            "/dev/sdb1 /data ext4 defaults 0 2\nUUID=",
        )],
    ]
}

fn windows() -> Vec<Vec<Edit>> {
    let dword = |hive: &str, key: &str, value: &str, data| {
        vec![Edit::SetDword {
            hive: hive.to_owned(),
            key: key.to_owned(),
            value: value.to_owned(),
            data,
        }]
    };
    let mut all = vec![
        dword(
            "SYSTEM",
            "ControlSet001\\Control\\TimeZoneInformation",
            "RealTimeIsUniversal",
            1,
        ),
        vec![zeroes(0, 440)],
        vec![write("/hiberfil.sys", "hibr")],
    ];
    let services = [
        "intelide",
        "atapi",
        "LSI_SAS",
        "LSI_SCSI",
        "vmbus",
        "storvsc",
        "storflt",
        "intelppm",
        "amdppm",
        "e1g60",
        "rtl8139",
        "netvsc",
        "viostor",
        "xenevtchn",
        "Disk",
        "Dhcp",
    ];
    for service in services {
        for start in [0, 3] {
            let key = format!("ControlSet001\\Services\\{service}");
            all.push(dword("SYSTEM", &key, "Start", start));
        }
    }
    for device in [
        "pci#ven_8086&dev_7010",
        "pci#cc_0101",
        "pci#ven_1000&dev_0054",
    ] {
        all.push(vec![Edit::DeleteKey {
            hive: "SYSTEM".to_owned(),
            key: format!("ControlSet001\\Control\\CriticalDeviceDatabase\\{device}"),
        }]);
    }
    all
}
