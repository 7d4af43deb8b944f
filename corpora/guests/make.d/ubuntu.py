"""Ubuntu 12.04 amd64 server, guided partitioning without LVM, as the Debian installer lays it out."""

import uuid

import cpio
import kmod
import tools
from ext4 import Tree, build
from rules import rule_files

DISK = 8 << 30
ROOT_START, ROOT_COUNT = 2048, 14678016
EXTENDED_START, EXTENDED_COUNT = 14682110, 2093058
SWAP_START, SWAP_COUNT = 14682112, 2093056
SIGNATURE = 0x0004D12A
ROOT_UUID = "1f7b9c54-2a83-4d0e-b6f1-90c3e5d72a04"
SWAP_UUID = "c4e2a96d-7b15-4f38-8d60-3a1e9f04b705"
KERNEL, VERMAGIC = kmod.KERNELS["u12"]

SOURCES = {
    "esxi-5.0.0": {"address": "10.20.0.136", "cdrom": ("VMware_Virtual_IDE_CDROM_Drive", "pci-0000:00:07.1-scsi-1:0:0:0")},
    "kvm-centos-6.3": {"address": "10.20.0.159", "cdrom": ("QEMU_DVD-ROM", "pci-0000:00:01.1-scsi-1:0:0:0")},
    # HVM with front ends: the emulated disk was unplugged for its twin, the CD-ROM drive (hdd) stayed.
    "xenserver-6.0.2": {
        "address": "10.20.0.142", "disk": "xvda", "cdrom": ("QEMU_DVD-ROM", "pci-0000:00:01.1-scsi-1:0:1:0"),
    },
    "hyperv-2008r2": {"address": "10.20.0.152", "cdrom": ("Msft_Virtual_CD_ROM", "pci-0000:00:07.1-scsi-1:0:0:0")},
}

GRUB_CFG = f"""# Boot menu of the golden guest, in the form grub-mkconfig writes.
if [ -s $prefix/grubenv ]; then
  load_env
fi
set default="0"
insmod part_msdos
insmod ext2
set root='(hd0,msdos1)'
search --no-floppy --fs-uuid --set=root {ROOT_UUID}
set timeout=2
menuentry 'Ubuntu, with Linux {KERNEL}' --class ubuntu --class gnu-linux --class gnu --class os {{
\trecordfail
\tinsmod gzio
\tinsmod part_msdos
\tinsmod ext2
\tset root='(hd0,msdos1)'
\tsearch --no-floppy --fs-uuid --set=root {ROOT_UUID}
\tlinux\t/boot/vmlinuz-{KERNEL} root=UUID={ROOT_UUID} ro   quiet
\tinitrd\t/boot/initrd.img-{KERNEL}
}}
menuentry 'Ubuntu, with Linux {KERNEL} (recovery mode)' --class ubuntu --class gnu-linux --class gnu --class os {{
\tinsmod part_msdos
\tinsmod ext2
\tset root='(hd0,msdos1)'
\tsearch --no-floppy --fs-uuid --set=root {ROOT_UUID}
\tlinux\t/boot/vmlinuz-{KERNEL} root=UUID={ROOT_UUID} ro recovery nomodeset
\tinitrd\t/boot/initrd.img-{KERNEL}
}}
"""

CONFIG = """# Options of the Ubuntu 3.2 kernel that decide which virtual hardware the guest can use.
CONFIG_64BIT=y
CONFIG_X86_64=y
CONFIG_MODULES=y
CONFIG_BLK_DEV_INITRD=y
CONFIG_PCI=y
CONFIG_SCSI=y
CONFIG_BLK_DEV_SD=y
CONFIG_BLK_DEV_SR=y
CONFIG_ATA=y
CONFIG_ATA_PIIX=y
CONFIG_ATA_GENERIC=y
CONFIG_PATA_ACPI=y
CONFIG_SATA_AHCI=m
CONFIG_FUSION=y
CONFIG_FUSION_SPI=m
CONFIG_FUSION_FC=m
CONFIG_FUSION_SAS=m
CONFIG_VMWARE_PVSCSI=m
CONFIG_SCSI_SYM53C8XX_2=m
CONFIG_SCSI_BUSLOGIC=m
CONFIG_BLK_DEV_DM=y
CONFIG_VIRTIO=y
CONFIG_VIRTIO_RING=y
CONFIG_VIRTIO_PCI=y
CONFIG_VIRTIO_BALLOON=y
CONFIG_VIRTIO_BLK=m
CONFIG_VIRTIO_NET=m
CONFIG_XEN=y
CONFIG_XEN_PLATFORM_PCI=y
CONFIG_XEN_BLKDEV_FRONTEND=y
CONFIG_XEN_NETDEV_FRONTEND=y
CONFIG_HYPERV=m
CONFIG_HYPERV_STORAGE=m
CONFIG_HYPERV_NET=m
CONFIG_E1000=m
CONFIG_E1000E=m
CONFIG_8139CP=m
CONFIG_8139TOO=m
CONFIG_PCNET32=m
CONFIG_TULIP=m
CONFIG_NE2K_PCI=m
CONFIG_IGB=m
CONFIG_VMXNET3=m
CONFIG_EXT4_FS=y
CONFIG_SWAP=y
"""

INIT = """#!/bin/sh
# Golden guest: stands for the init of initramfs-tools. It loads the driver of
# each device found (modalias against modules.alias), waits for the root named
# by root=, mounts it and starts /sbin/init there.
exec /bin/sh
"""


def tool(name):
    return f"#!/bin/sh\n# Golden guest: stands for {name}, which the model acts out.\nexit 0\n"


def initramfs(modules):
    """MODULES=most: all storage drivers and many network drivers."""
    chosen = [m for m in modules if m.how == "m"]
    items = {"init": (0o100755, INIT.encode())}
    for module in chosen:
        items[f"lib/modules/{KERNEL}/{module.path}"] = (0o100644, module.elf(VERMAGIC))
    # The index names built-in drivers too: the initramfs needs no file for them.
    for name, text in kmod.index_files(modules).items():
        items[f"lib/modules/{KERNEL}/{name}"] = (0o100644, text.encode())
    for name in ("bin/busybox", "sbin/udevd", "sbin/udevadm", "sbin/modprobe", "sbin/blkid", "sbin/wait-for-root"):
        items[name] = (0o100755, tool(name).encode())
    items |= {
        "conf/arch.conf": (0o100644, b"DPKG_ARCH=amd64\n"),
        "conf/initramfs.conf": (0o100644, TEXTS["etc/initramfs-tools/initramfs.conf"].encode()),
        "conf/conf.d/resume": (0o100644, f"RESUME=UUID={SWAP_UUID}\n".encode()),
        "conf/modules": (0o100644, b""), "scripts/local": (0o100644, tool("scripts/local").encode()),
        "etc/modprobe.d/blacklist.conf": (0o100644, TEXTS["etc/modprobe.d/blacklist.conf"].encode()),
    }
    return cpio.gzip(cpio.archive(items, tools.EPOCH))


def source_files(tree, source):
    """What installation on this machine left behind; placeholders in the neutral base."""
    leases, cdrom = "# Nothing seen yet.\n", "# Nothing seen yet.\n"
    if source:
        leases = f"""lease {{
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
        model, path = source["cdrom"]
        cdrom = f"# {model} ({path})\n" + "".join(
            f'SUBSYSTEM=="block", ENV{{ID_CDROM}}=="?*", ENV{{ID_PATH}}=="{path}", SYMLINK+="{link}", '
            'ENV{GENERATED}="1"\n' for link in ("cdrom", "cdrw", "dvd", "dvdrw"))
    # No 70-persistent-net.rules: this generator skips VMware's, KVM's and Hyper-V's addresses and what is on Xen's bus.
    tree.file("etc/udev/rules.d/70-persistent-cd.rules", cdrom)
    tree.file("var/lib/dhcp/dhclient.eth0.leases", leases)


TEXTS = {
    "etc/lsb-release": 'DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=12.04\nDISTRIB_CODENAME=precise\nDISTRIB_DESCRIPTION="Ubuntu 12.04 LTS"\n',
    "etc/os-release": 'NAME="Ubuntu"\nVERSION="12.04 LTS, Precise Pangolin"\nID=ubuntu\nID_LIKE=debian\n'
    'PRETTY_NAME="Ubuntu precise (12.04 LTS)"\nVERSION_ID="12.04"\n',
    "etc/debian_version": "wheezy/sid\n",
    "etc/issue": "Ubuntu 12.04 LTS \\n \\l\n\n",
    "etc/hostname": "ubuntu1204\n",
    "etc/hosts": "127.0.0.1\tlocalhost\n127.0.1.1\tubuntu1204.lab.example\tubuntu1204\n",
    "etc/fstab": f"""# Written by the installer: devices by identity, not by place.
# <file system> <mount point>   <type>  <options>       <dump>  <pass>
proc            /proc           proc    nodev,noexec,nosuid 0       0
# / was on /dev/sda1 during installation
UUID={ROOT_UUID} /               ext4    errors=remount-ro 0       1
# swap was on /dev/sda5 during installation
UUID={SWAP_UUID} none            swap    sw              0       0
""",
    "etc/network/interfaces": """# Network interfaces of this system; see interfaces(5).

# The loopback network interface
auto lo
iface lo inet loopback

# The primary network interface
auto eth0
iface eth0 inet dhcp
""",
    "etc/resolvconf/resolv.conf.d/head": "# Written by resolvconf; changes to this file are lost.\n",
    "etc/resolvconf/resolv.conf.d/base": "",
    "etc/ufw/ufw.conf": "# Whether the firewall starts at boot.\nENABLED=no\nLOGLEVEL=low\n",
    "etc/default/grub": 'GRUB_DEFAULT=0\nGRUB_HIDDEN_TIMEOUT=0\nGRUB_HIDDEN_TIMEOUT_QUIET=true\nGRUB_TIMEOUT=2\n'
    'GRUB_DISTRIBUTOR=`lsb_release -i -s 2> /dev/null || echo Debian`\nGRUB_CMDLINE_LINUX_DEFAULT="quiet"\nGRUB_CMDLINE_LINUX=""\n',
    "etc/default/rcS": "# Whether the hardware clock keeps UTC.\nUTC=yes\n",
    "etc/timezone": "Etc/UTC\n",
    "etc/adjtime": "0.0 0 0.0\n0\nUTC\n",
    "etc/initramfs-tools/initramfs.conf": "# Which drivers go in: most, dep, netboot or list.\nMODULES=most\nBUSYBOX=y\nKEYMAP=n\nCOMPRESS=gzip\nDEVICE=\nNFSROOT=auto\n",
    "etc/initramfs-tools/modules": "# Further modules for the initramfs, one a line.\n",
    "etc/initramfs-tools/conf.d/resume": f"RESUME=UUID={SWAP_UUID}\n",
    "etc/modprobe.d/blacklist.conf": "# Drivers that must not load by themselves.\nblacklist evbug\nblacklist usbmouse\nblacklist usbkbd\nblacklist eepro100\nblacklist de4x5\nblacklist pcspkr\n",
    "etc/init/failsafe.conf": """# Golden guest: start the system even when the network does not come up.
description "bound the wait for the network at boot"
start on filesystem and net-device-up IFACE=lo
stop on static-network-up or starting rc-sysinit
emits failsafe-boot
console output
script
    # Three waits, 20, 40 and 60 seconds, then boot without full network configuration.
    sleep 20
    sleep 40
    sleep 60
    exec initctl emit --no-wait failsafe-boot
end script
""",
    "etc/init/networking.conf": "# Golden guest: bring up the interfaces marked auto.\nstart on (local-filesystems and stopped udevtrigger)\ntask\nexec ifup -a\n",
    "etc/init/network-interface.conf": "# Golden guest: bring up an interface when the kernel announces it.\n"
    "start on net-device-added\ninstance $INTERFACE\nexec ifup --allow auto $INTERFACE\n",
    "etc/init/mountall.conf": "# Golden guest: mount what fstab names; wait for devices that are not there yet.\n"
    "start on startup\nstop on starting rcS\nexpect daemon\ntask\nexec mountall --daemon\n",
    "etc/init/rc-sysinit.conf": "# Golden guest: the runlevel follows the network, or failsafe.\n"
    "start on (filesystem and static-network-up) or failsafe-boot\ntask\nexec telinit 2\n",
    "etc/init/ufw.conf": "# Golden guest: load the firewall, where it is enabled.\nstart on (starting network-interface or starting networking)\n"
    "stop on runlevel [!023456]\npre-start exec /lib/ufw/ufw-init start quiet\n",
    "etc/default/ufw": 'IPV6=yes\nDEFAULT_INPUT_POLICY="DROP"\nDEFAULT_OUTPUT_POLICY="ACCEPT"\nDEFAULT_FORWARD_POLICY="DROP"\n'
    'MANAGE_BUILTINS=no\n',
    "etc/modules": "# Modules to load at boot.\nloop\nlp\nrtc\n",
    "etc/udev/udev.conf": 'udev_log="err"\n',
    "etc/dhcp/dhclient.conf": "# Ask for what the network can tell.\nsend host-name \"ubuntu1204\";\n"
    "request subnet-mask, broadcast-address, routers, domain-name, domain-name-servers, domain-search, host-name;\n",
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\n",
    "etc/group": "root:x:0:\n",
    "etc/nsswitch.conf": "passwd: compat\nhosts: files dns\n",
}


def root_tree(modules, source):
    tree = Tree()
    for path in ("boot", "dev", "home", "media", "mnt", "opt", "proc", "run", "srv", "sys", "usr/bin", "var/log",
                 "var/lib/initramfs-tools", "etc/network/if-up.d"):
        tree.directory(path)
    tree.directory("root", 0o700)
    tree.directory("tmp", 0o1777)
    tree.file(f"boot/vmlinuz-{KERNEL}", kmod.kernel_image(KERNEL, "(buildd@lab.example) #36-Ubuntu SMP Tue Apr 10 20:39:51 UTC 2012"))
    tree.file(f"boot/config-{KERNEL}", CONFIG)
    tree.file(f"boot/initrd.img-{KERNEL}", initramfs(modules))
    tree.file("boot/grub/grub.cfg", GRUB_CFG, 0o444)
    tree.file("boot/grub/grubenv", "# GRUB Environment Block\n".ljust(1024, "#"))
    for name in ("boot.img", "core.img"):
        tree.file(f"boot/grub/{name}", f"Golden guest: stands for GRUB 1.99 {name}; the marker GRUB is all a reader needs.\n")
    drive = source.get("disk", "sda") if source else "sda"
    texts = TEXTS | {"etc/fstab": TEXTS["etc/fstab"].replace("/dev/sda", f"/dev/{drive}")}
    for path, content in sorted(texts.items()):
        tree.file(path, content)
    for path in ("sbin/init", "sbin/ifup", "sbin/dhclient", "sbin/dhclient-script", "sbin/udevd", "sbin/resolvconf",
                 "bin/bash", "bin/dash", "lib/udev/write_net_rules", "usr/bin/dpkg", "usr/bin/test", "usr/sbin/ufw"):
        tree.file(path, tool(path), 0o755)
    tree.link("bin/sh", "dash")
    tree.link("etc/resolv.conf", "/run/resolvconf/resolv.conf")
    tree.link("vmlinuz", f"boot/vmlinuz-{KERNEL}")
    tree.link("initrd.img", f"boot/initrd.img-{KERNEL}")
    for name, content in rule_files("udev-175"):
        tree.file(f"lib/udev/rules.d/{name}", content)
    folder = f"lib/modules/{KERNEL}"
    for module in modules:
        if module.how == "m":
            tree.file(f"{folder}/{module.path}", module.elf(VERMAGIC))
    for name, text in kmod.index_files(modules).items():
        tree.file(f"{folder}/{name}", text)
    source_files(tree, source)
    return tree


def make(shop, name, source):
    """One disk, as installed on `source` (None: the neutral base)."""
    disk = shop.sparse(name, DISK)
    code = tools.marker_code([(0x5C, b"\x01\0\0\0\0\0\0\0"), (0x180, b"GRUB \0Geom\0Hard Disk\0Read\0 Error\r\n\0")])
    tools.write_at(disk, 0, tools.boot_sector(code, SIGNATURE, [
        tools.entry(True, 0x83, ROOT_START, ROOT_COUNT), tools.entry(False, 0x05, EXTENDED_START, EXTENDED_COUNT)]))
    core = b"loading\0 golden guest: stands for GRUB 1.99 core.img, prefix (,msdos1)/boot/grub"
    tools.write_at(disk, 512, core.ljust(1024, b"\0"))
    tools.write_at(disk, EXTENDED_START * 512, tools.boot_sector(b"", 0, [
        tools.entry(False, 0x82, SWAP_START - EXTENDED_START, SWAP_COUNT, EXTENDED_START)]))
    root = build(shop, f"{name}.root", ROOT_COUNT * 512, ROOT_UUID, root_tree(kmod.table("u12"), source))
    tools.paste(disk, ROOT_START * 512, root)
    tools.write_at(disk, SWAP_START * 512, tools.swap_header(SWAP_COUNT * 512, uuid.UUID(SWAP_UUID)))
    return disk
