"""CentOS 6.3 x86_64, minimal installation, as anaconda lays it out."""

import uuid

import cpio
import kmod
import lvm
import tools
from ext4 import Tree, build
from rules import rule_files

DISK = 8 << 30
BOOT_START, BOOT_COUNT = 2048, 1024000
PV_START, PV_COUNT = 1026048, 15751168
SIGNATURE = 0x000C63A1
BOOT_UUID = "3d6b0a0c-5f1e-4a57-9b0e-7c1f25a4e801"
ROOT_UUID = "8e0c2f7a-41d3-4b6e-a2c5-0d9f6b3e1702"
SWAP_UUID = "b7a51d3e-6c28-47f9-8e14-2f0c9d5a6b03"
ROOT_EXTENTS, SWAP_EXTENTS = 1418, 504
GROUP = {
    "name": "vg_centos", "id": "Xq3Wd7-hK2v-9fTb-Lr5C-ys1N-Zm8G-pA4eJu",
    "pv_id": "Nf6TzR-b0Vq-2LkX-w9Ds-Pj4M-e7Yc-H1gQaU", "device": "/dev/sda2",
    "sectors": PV_COUNT, "extents": (PV_COUNT - lvm.DATA_START) // lvm.PE_SECTORS,
}
VOLUMES = [
    {"name": "lv_root", "id": "c5RkLm-8sWe-Tn1H-0vQb-Ux7J-yG3d-Zp9aFi", "first": 0, "extents": ROOT_EXTENTS},
    {"name": "lv_swap", "id": "Dz2PhV-4oYt-Kc6X-e8Nl-Mq0R-uB5j-W3wSgE", "first": ROOT_EXTENTS,
     "extents": SWAP_EXTENTS},
]
KERNEL, VERMAGIC = kmod.KERNELS["el6"]
HOST = "centos63.lab.example"

SOURCES = {
    "esxi-5.0.0": {
        "mac": "00:0c:29:4f:8e:35", "disk": "sda", "nic": "# PCI device 0x8086:0x100f (e1000)",
        "cdrom": ("VMware_Virtual_IDE_CDROM_Drive", "pci-0000:00:07.1-scsi-1:0:0:0"),
        "address": "10.20.0.135", "connection": "5f2d7c60-0f3a-4c1e-8a77-1b6f2c94d135",
    },
    "kvm-centos-6.3": {
        "mac": "52:54:00:6b:3c:58", "disk": "vda", "nic": "# PCI device 0x1af4:0x1000 (virtio-pci)",
        "cdrom": ("QEMU_DVD-ROM", "pci-0000:00:01.1-scsi-1:0:0:0"),
        "address": "10.20.0.158", "connection": "5f2d7c60-0f3a-4c1e-8a77-1b6f2c94d158",
    },
    # A PV machine: no emulated device, hence no CD-ROM rule; the rule generator passes over adapters on Xen's bus; pygrub
    # starts the kernel from outside, hence no boot code.
    "xenserver-6.0.2": {
        "mac": "a6:1f:4e:93:0c:8d", "disk": "xvda", "nic": None, "cdrom": None, "console": "hvc0", "loader": False,
        "address": "10.20.0.141", "connection": "5f2d7c60-0f3a-4c1e-8a77-1b6f2c94d141",
    },
    # With the legacy adapter: this kernel has no driver for the synthetic one.
    "hyperv-2008r2": {
        "mac": "00:15:5d:00:0d:00", "disk": "sda", "nic": "# PCI device 0x1011:0x0009 (tulip)",
        "cdrom": ("Msft_Virtual_CD_ROM", "pci-0000:00:07.1-scsi-1:0:0:0"),
        "address": "10.20.0.151", "connection": "5f2d7c60-0f3a-4c1e-8a77-1b6f2c94d151",
    },
}

GRUB_CONF = """# Boot menu of the golden guest, in the form the installer writes.
# /boot is a partition of its own: paths below are relative to it.
#boot=/dev/{disk}
default=0
timeout=5
splashimage=(hd0,0)/grub/splash.xpm.gz
hiddenmenu
title CentOS ({kernel})
\troot (hd0,0)
\tkernel /vmlinuz-{kernel} ro root=/dev/mapper/vg_centos-lv_root rd_NO_LUKS LANG=en_US.UTF-8 rd_NO_MD \
rd_LVM_LV=vg_centos/lv_swap SYSFONT=latarcyrheb-sun16 crashkernel=auto rd_LVM_LV=vg_centos/lv_root  \
KEYBOARDTYPE=pc KEYTABLE=us rd_NO_DM{console} rhgb quiet
\tinitrd /initramfs-{kernel}.img
"""

CONFIG = """# Options of the RHEL 6 kernel that decide which virtual hardware the guest can use.
CONFIG_64BIT=y
CONFIG_X86_64=y
CONFIG_MODULES=y
CONFIG_BLK_DEV_INITRD=y
CONFIG_PCI=y
# CONFIG_IDE is not set
CONFIG_SCSI=y
CONFIG_BLK_DEV_SD=m
CONFIG_BLK_DEV_SR=m
CONFIG_ATA=y
CONFIG_ATA_PIIX=m
CONFIG_ATA_GENERIC=m
CONFIG_PATA_ACPI=m
CONFIG_SATA_AHCI=m
CONFIG_FUSION=y
CONFIG_FUSION_SPI=m
CONFIG_FUSION_FC=m
CONFIG_FUSION_SAS=m
CONFIG_VMWARE_PVSCSI=m
CONFIG_SCSI_SYM53C8XX_2=m
CONFIG_SCSI_AIC7XXX=m
# CONFIG_SCSI_BUSLOGIC is not set
CONFIG_BLK_DEV_DM=m
CONFIG_VIRTIO=m
CONFIG_VIRTIO_RING=m
CONFIG_VIRTIO_PCI=m
CONFIG_VIRTIO_BLK=m
CONFIG_VIRTIO_NET=m
CONFIG_VIRTIO_BALLOON=m
CONFIG_VIRTIO_CONSOLE=m
CONFIG_XEN=y
CONFIG_XEN_PLATFORM_PCI=y
CONFIG_XEN_BLKDEV_FRONTEND=m
CONFIG_XEN_NETDEV_FRONTEND=m
CONFIG_E1000=m
CONFIG_E1000E=m
CONFIG_8139CP=m
CONFIG_8139TOO=m
CONFIG_PCNET32=m
CONFIG_TULIP=m
CONFIG_DE2104X=m
CONFIG_NE2K_PCI=m
CONFIG_IGB=m
CONFIG_VMXNET3=m
# CONFIG_HYPERV is not set
CONFIG_EXT3_FS=m
CONFIG_EXT4_FS=m
"""

IPTABLES = """# Firewall configuration written by system-config-firewall
# Manual customization of this file is not recommended.
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -m state --state ESTABLISHED,RELATED -j ACCEPT
-A INPUT -p icmp -j ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -m state --state NEW -m tcp -p tcp --dport 22 -j ACCEPT
-A INPUT -j REJECT --reject-with icmp-host-prohibited
-A FORWARD -j REJECT --reject-with icmp-host-prohibited
COMMIT
"""

# In the initramfs: everything that dracut's symbol rule and its named lists select. No network drivers.
INITRAMFS_SKIPS = ("drivers/net", "drivers/dca", "drivers/char", "virtio_balloon")

INIT = """#!/bin/sh
# Golden guest: stands for dracut's init. It loads the driver of each device
# found (modalias against modules.alias), waits for the root named by root=,
# activates the volumes named by rd_LVM_LV=, mounts it and switches to it.
exec /bin/sh
"""


def tool(name):
    return f"#!/bin/sh\n# Golden guest: stands for {name}, which the model acts out.\nexit 0\n"


def initramfs(modules):
    chosen = [m for m in modules if m.how == "m" and not any(skip in m.path for skip in INITRAMFS_SKIPS)]
    items = {"init": (0o100755, INIT.encode())}
    for module in chosen:
        items[f"lib/modules/{KERNEL}/{module.path}"] = (0o100644, module.elf(VERMAGIC))
    for name, text in kmod.index_files(chosen).items():
        items[f"lib/modules/{KERNEL}/{name}"] = (0o100644, text.encode())
    for name in ("sbin/lvm", "sbin/modprobe", "sbin/udevd", "sbin/udevadm", "bin/dash", "bin/mount",
                 "sbin/switch_root", "sbin/blkid", "sbin/dmsetup"):
        items[name] = (0o100755, tool(name).encode())
    items |= {
        "etc/lvm/lvm.conf": (0o100644, b"global {\n    locking_type = 4\n}\n"),
        "etc/fstab.empty": (0o100644, b""),
        "etc/modprobe.d/blacklist.conf": (0o100644, BLACKLIST.encode()),
        "etc/redhat-release": (0o100644, b"CentOS release 6.3 (Final)\n"),
        "etc/udev/rules.d/64-lvm.rules": (0o100644, LVM_RULES.encode()),
        "pre-udev/.keep": (0o100644, b""), "cmdline/.keep": (0o100644, b""), "pre-mount/.keep": (0o100644, b""),
        "dracut-004-284.el6": (0o100644, b""),
        "proc": (0o40755, b""), "sys": (0o40755, b""), "sysroot": (0o40755, b""), "dev": (0o40755, b""),
    }
    return cpio.gzip(cpio.archive(items, tools.EPOCH))


BLACKLIST = "# Drivers that must not load by themselves.\nblacklist i82875p_edac\nblacklist pcspkr\nblacklist floppy\n"
LVM_RULES = """# Golden guest: a physical volume that appears makes the initramfs scan for its group.
SUBSYSTEM!="block", GOTO="lvm_end"
ACTION!="add|change", GOTO="lvm_end"
ENV{ID_FS_TYPE}=="LVM?_member", RUN+="/sbin/lvm_scan"
LABEL="lvm_end"
"""


def boot_tree(modules, disk, console):
    tree = Tree()
    tree.file(f"vmlinuz-{KERNEL}", kmod.kernel_image(KERNEL, "(mockbuild@lab.example) #1 SMP Fri Jun 22 12:19:21 UTC 2012"), 0o755)
    tree.file(f"config-{KERNEL}", CONFIG)
    tree.file(f"initramfs-{KERNEL}.img", initramfs(modules), 0o600)
    for name in ("stage1", "stage2", "e2fs_stage1_5"):
        tree.file(f"grub/{name}", f"Golden guest: stands for GRUB 0.97 {name}; the marker GRUB is all a reader needs.\n")
    tree.link("grub/menu.lst", "./grub.conf")
    tree.file("grub/grub.conf", GRUB_CONF.format(disk=disk, kernel=KERNEL, console=console and f" console={console}"), 0o600)
    tree.file("grub/device.map", f"# this device map was generated by anaconda\n(hd0)     /dev/{disk}\n")
    return tree


def lease(source):
    return f"""lease {{
  interface "eth0";
  fixed-address {source["address"]};
  option subnet-mask 255.255.255.0;
  option routers 10.20.0.1;
  option dhcp-lease-time 86400;
  option dhcp-message-type 5;
  option domain-name-servers 10.20.0.2;
  option dhcp-server-identifier 10.20.0.2;
  option domain-name "lab.example";
  renew 1 2013/02/11 19:48:27;
  rebind 2 2013/02/12 06:22:11;
  expire 2 2013/02/12 09:22:11;
}}
"""


def source_files(tree, source):
    """What installation on this machine left behind; placeholders in the neutral base."""
    eth0 = 'DEVICE="eth0"\nBOOTPROTO="dhcp"\n'
    rules = leases = cdrom = "# Nothing seen yet.\n"
    if source:
        eth0 += f'HWADDR="{source["mac"].upper()}"\n'
        leases = lease(source)
    if source and source["nic"]:
        rules = (
            "# One line per network interface, added by the generator rules when a new one is seen.\n\n"
            f'{source["nic"]}\nSUBSYSTEM=="net", ACTION=="add", DRIVERS=="?*", '
            f'ATTR{{address}}=="{source["mac"]}", ATTR{{type}}=="1", KERNEL=="eth*", NAME="eth0"\n'
        )
    if source and source["cdrom"]:
        model, path = source["cdrom"]
        cdrom = f"# {model} ({path})\n" + "".join(
            f'SUBSYSTEM=="block", ENV{{ID_CDROM}}=="?*", ENV{{ID_PATH}}=="{path}", SYMLINK+="{link}", '
            'ENV{GENERATED}="1"\n' for link in ("cdrom", "cdrw", "dvd", "dvdrw"))
    eth0 += 'NM_CONTROLLED="no"\nONBOOT="yes"\nTYPE="Ethernet"\n'
    eth0 += f'UUID="{source["connection"]}"\n' if source else ""
    tree.file("etc/sysconfig/network-scripts/ifcfg-eth0", eth0)
    tree.file("etc/udev/rules.d/70-persistent-net.rules", rules)
    tree.file("etc/udev/rules.d/70-persistent-cd.rules", cdrom)
    tree.file("var/lib/dhclient/dhclient-eth0.leases", leases)


def root_tree(modules, source, console):
    tree = Tree()
    for path in ("boot", "dev", "home", "media", "mnt", "opt", "proc", "selinux", "srv", "sys", "etc/dhcp",
                 "usr/bin", "usr/lib64", "var/log", "var/run", "var/lock/subsys"):
        tree.directory(path)
    tree.directory("root", 0o550)
    tree.directory("tmp", 0o1777)
    # The getty of a console other than the screen is made at run time (/sbin/securetty lets root in there): no file.
    texts = TEXTS | {"etc/securetty": TEXTS["etc/securetty"] + f"{console}\n" if console else TEXTS["etc/securetty"]}
    for path, content in sorted(texts.items()):
        tree.file(path, content)
    for path in ("sbin/init", "sbin/ifup", "sbin/dhclient", "sbin/dhclient-script", "sbin/iptables", "sbin/lvm",
                 "sbin/udevd", "bin/bash", "etc/rc.d/init.d/network", "etc/rc.d/init.d/iptables",
                 "lib/udev/rename_device", "lib/udev/write_net_rules"):
        tree.file(path, tool(path), 0o755)
    for path in ("bin/rpm", "usr/bin/test"):
        tree.file(path, tool(path), 0o755)
    tree.link("bin/sh", "bash")
    tree.link("etc/grub.conf", "../boot/grub/grub.conf")
    tree.link("etc/rc.d/rc3.d/S10network", "../init.d/network")
    tree.link("etc/rc.d/rc3.d/S08iptables", "../init.d/iptables")
    for name, content in rule_files("el6"):
        tree.file(f"lib/udev/rules.d/{name}", content)
    folder = f"lib/modules/{KERNEL}"
    for module in modules:
        if module.how == "m":
            tree.file(f"{folder}/{module.path}", module.elf(VERMAGIC), 0o744)
    for name, text in kmod.index_files(modules).items():
        tree.file(f"{folder}/{name}", text)
    source_files(tree, source)
    return tree


TEXTS = {
    "etc/redhat-release": "CentOS release 6.3 (Final)\n",
    "etc/centos-release": "CentOS release 6.3 (Final)\n",
    "etc/system-release": "CentOS release 6.3 (Final)\n",
    "etc/fstab": f"""
# Written by the installer: devices by identity, not by place.
/dev/mapper/vg_centos-lv_root /                       ext4    defaults        1 1
UUID={BOOT_UUID} /boot                   ext4    defaults        1 2
/dev/mapper/vg_centos-lv_swap swap                    swap    defaults        0 0
tmpfs                   /dev/shm                tmpfs   defaults        0 0
devpts                  /dev/pts                devpts  gid=5,mode=620  0 0
sysfs                   /sys                    sysfs   defaults        0 0
proc                    /proc                   proc    defaults        0 0
""",
    "etc/hosts": "127.0.0.1   localhost localhost.localdomain localhost4 localhost4.localdomain4\n"
    "::1         localhost localhost.localdomain localhost6 localhost6.localdomain6\n",
    "etc/sysconfig/network": f"NETWORKING=yes\nHOSTNAME={HOST}\n",
    "etc/sysconfig/network-scripts/ifcfg-lo": "DEVICE=lo\nIPADDR=127.0.0.1\nNETMASK=255.0.0.0\nNETWORK=127.0.0.0\n"
    "BROADCAST=127.255.255.255\nONBOOT=yes\nNAME=loopback\n",
    "etc/resolv.conf": "; generated by /sbin/dhclient-script\nsearch lab.example\nnameserver 10.20.0.2\n",
    "etc/sysconfig/iptables": IPTABLES,
    "etc/sysconfig/clock": 'ZONE="Etc/UTC"\n',
    "etc/adjtime": "0.0 0 0.0\n0\nUTC\n",
    "etc/inittab": "# Only the default runlevel is set here.\nid:3:initdefault:\n",
    "etc/securetty": "console\n" + "".join(f"tty{number}\n" for number in range(1, 12)),
    "etc/modprobe.d/blacklist.conf": BLACKLIST,
    "etc/dracut.conf": "# Modules are chosen by symbol, for any machine.\n#hostonly=\"yes\"\nmdadmconf=\"yes\"\nlvmconf=\"yes\"\n",
    "etc/selinux/config": "SELINUX=enforcing\nSELINUXTYPE=targeted\n",
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\n",
    "etc/group": "root:x:0:root\n",
    "etc/lvm/lvm.conf": "devices {\n    dir = \"/dev\"\n    scan = [ \"/dev\" ]\n    filter = [ \"a/.*/\" ]\n}\n",
    "etc/nsswitch.conf": "passwd:     files\nhosts:      files dns\n",
    "root/anaconda-ks.cfg": "# Golden guest: kickstart record.\ninstall\ntext\nnetwork --device eth0 --bootproto dhcp\n%packages\n@core\n%end\n",
}


# First match wins: the targeted policy's types for the paths that are here.
CONTEXTS = [
    ("/boot/", "boot_t"), ("/lib/modules/", "modules_object_t"), ("/lib/udev/", "udev_helper_exec_t"), ("/lib", "lib_t"),
    ("/sbin/init", "init_exec_t"), ("/bin/", "bin_t"), ("/sbin/", "bin_t"), ("/usr/bin", "bin_t"),
    ("/etc/resolv.conf", "net_conf_t"), ("/etc/sysconfig/network-scripts/ifcfg-", "net_conf_t"),
    ("/etc/udev/rules.d/", "udev_rules_t"), ("/etc/selinux/", "selinux_config_t"), ("/etc/rc.d/init.d/", "initrc_exec_t"),
    ("/etc/sysconfig/iptables", "system_conf_t"), ("/etc", "etc_t"), ("/var/lib/dhclient", "dhcpc_state_t"),
    ("/var/log", "var_log_t"), ("/var/run", "var_run_t"), ("/var", "var_t"), ("/root", "admin_home_t"), ("/tmp", "tmp_t"),
    ("/usr", "usr_t"), ("/home", "home_root_t"), ("/", "root_t"),
]


def label(path):
    kind = next(kind for start, kind in CONTEXTS if path.startswith(start))
    return f"system_u:object_r:{kind}:s0"


def make(shop, name, source):
    """One disk, as installed on `source` (None: the neutral base)."""
    disk = shop.sparse(name, DISK)
    modules = kmod.table("el6")
    drive = source["disk"] if source else "sda"
    console = source.get("console", "") if source else ""
    group = dict(GROUP, device=f"/dev/{drive}2")
    code, embedded = b"", b""
    if not source or source.get("loader", True):
        code = tools.marker_code([
            (0x3E, b"\x03\x02"), (0x179, b"GRUB \0Geom\0Hard Disk\0Read\0 Error\r\n\0"),
        ])
        embedded = b"GRUB loading stage2 (golden guest: stands for e2fs_stage1_5)"
    tools.write_at(disk, 0, tools.boot_sector(code, SIGNATURE, [
        tools.entry(True, 0x83, BOOT_START, BOOT_COUNT), tools.entry(False, 0x8E, PV_START, PV_COUNT)]))
    tools.write_at(disk, 512, embedded.ljust(512, b"\0"))
    boot = build(shop, f"{name}.boot", BOOT_COUNT * 512, BOOT_UUID, boot_tree(modules, drive, console),
                 lambda _: label("/boot/"))
    tools.paste(disk, BOOT_START * 512, boot)
    pv = PV_START * 512
    tools.write_at(disk, pv, lvm.physical_volume(group, VOLUMES, tools.EPOCH, HOST))
    data, extent = pv + lvm.DATA_START * 512, lvm.PE_SECTORS * 512
    root = build(shop, f"{name}.root", ROOT_EXTENTS * extent, ROOT_UUID, root_tree(modules, source, console), label)
    tools.paste(disk, data, root)
    swap = tools.swap_header(SWAP_EXTENTS * extent, uuid.UUID(SWAP_UUID))
    tools.write_at(disk, data + ROOT_EXTENTS * extent, swap)
    return disk
