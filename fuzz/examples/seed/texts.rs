//! Texts written by hand, one idea each.

use crate::keep;
use std::io;

const SEEDS: [(&str, &str, &str); 26] = [
    (
        "ovf",
        "draft-09",
        r#"<?xml version='1.0'?><ovf:Envelope xmlns:ovf="http://www.vmware.com/schema/ovf/1/envelope" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" ovf:version="0.9"><ovf:References><ovf:File ovf:href="old.vmdk" ovf:id="file1" ovf:size="152576"/></ovf:References><ovf:Section xsi:type="ovf:DiskSection_Type"><ovf:Disk ovf:capacity="1073741824" ovf:diskId="vmdisk1" ovf:fileRef="file1"/></ovf:Section><ovf:Section xsi:type="ovf:NetworkSection_Type"><ovf:Network ovf:name="bridged"/></ovf:Section><ovf:Content ovf:id="old" xsi:type="ovf:VirtualSystem_Type"><ovf:Section xsi:type="ovf:VirtualHardwareSection_Type"><ovf:Item><rasd:InstanceId>2</rasd:InstanceId><rasd:ResourceType>4</rasd:ResourceType><rasd:AllocationUnits>MegaBytes</rasd:AllocationUnits><rasd:VirtualQuantity>512</rasd:VirtualQuantity></ovf:Item></ovf:Section></ovf:Content></ovf:Envelope>"#,
    ),
    (
        "ovf",
        "other-prefixes",
        r#"<?xml version="1.0" encoding="utf-16"?><e:Envelope xmlns:e="http://schemas.dmtf.org/ovf/envelope/1" xmlns:r="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"><!-- a comment --><e:References><e:File e:id="a" e:href="a%20b.vhd" e:size="16777216"/></e:References><e:DiskSection><e:Info/><e:Disk e:diskId="a" e:fileRef="a" e:capacity="10" e:capacityAllocationUnits="byte * 2^20"/></e:DiskSection><e:VirtualSystem e:id="vm"><e:Info>&lt;x&gt;</e:Info><e:VirtualHardwareSection><e:Info/><e:Item><r:HostResource>ovf:/disk/a</r:HostResource><r:InstanceID>d</r:InstanceID><r:ResourceType>19</r:ResourceType></e:Item><e:Item><r:Address>02:00:00:00:00:01</r:Address><r:Connection>network</r:Connection><r:InstanceID>n</r:InstanceID><r:ResourceSubType>PCNet32 E1000</r:ResourceSubType><r:ResourceType>10</r:ResourceType></e:Item></e:VirtualHardwareSection></e:VirtualSystem></e:Envelope>"#,
    ),
    (
        "libvirt",
        "kvm",
        "<domain type='kvm'><name>seed</name><uuid>12345678-1234-1234-1234-123456789012</uuid><memory unit='KiB'>1048576</memory><currentMemory>1048576</currentMemory><vcpu cpuset='0-1'>2</vcpu><os><type arch='x86_64' machine='rhel6.3.0'>hvm</type><boot dev='hd'/></os><features><acpi/><apic/><pae/></features><cpu match='exact'><model>Westmere</model></cpu><clock offset='utc'/><on_poweroff>destroy</on_poweroff><devices><emulator>/usr/libexec/qemu-kvm</emulator><disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none'/><source file='/var/lib/libvirt/images/seed.img'/><target dev='vda' bus='virtio'/><address type='pci' domain='0x0000' bus='0x00' slot='0x05' function='0x0'/></disk><disk type='block' device='cdrom'><target dev='hdc' bus='ide'/><readonly/></disk><controller type='ide' index='0'/><interface type='bridge'><mac address='52:54:00:12:34:56'/><source bridge='br0'/><model type='virtio'/></interface><graphics type='vnc' port='-1' autoport='yes'/><video><model type='cirrus' vram='9216' heads='1'/></video><memballoon model='virtio'/></devices></domain>",
    ),
    (
        "libvirt",
        "xen",
        "<domain type='xen' id='3'><name>pv</name><memory>524288</memory><vcpu>1</vcpu><bootloader>/usr/bin/pygrub</bootloader><os><type>linux</type><kernel>/k</kernel><initrd>/i</initrd><cmdline>root=/dev/xvda1 ro</cmdline></os><devices><disk type='block'><source dev='/dev/vg/seed'/><target dev='xvda' bus='xen'/></disk><interface type='network'><source network='default'/></interface></devices></domain>",
    ),
    (
        "vmx",
        "esxi",
        ".encoding = \"UTF-8\"\nconfig.version = \"8\"\nvirtualHW.version = \"8\"\ndisplayName = \"seed|22 |7C\"\nguestOS = \"centos-64\"\nmemsize = \"1024\"\nnumvcpus = \"2\"\nscsi0.present = \"TRUE\"\nscsi0.virtualDev = \"lsilogic\"\nscsi0:0.fileName = \"seed.vmdk\"\nethernet0.virtualDev = \"e1000\"\nethernet0.generatedAddress = \"00:0c:29:4f:8e:35\"\n# a comment\nbios.bootOrder = hdd\n",
    ),
    (
        "vmx",
        "windows-1252",
        ".encoding = \"windows-1252\"\r\nSCSI0.PRESENT = \"true\"\r\na:b.c = \"\"\r\n",
    ),
    (
        "manifest",
        "three-forms",
        "SHA1(a (b).ovf)= da39a3ee5e6b4b0d3255bfef95601890afd80709\r\nSHA256(c.vmdk)= e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\nSHA1 (d)=da39a3ee5e6b4b0d3255bfef95601890afd80709\n",
    ),
    ("units", "powers", "byte * 2 ^ 20 / 1024 * 2^-3"),
    ("units", "words", "MegaBytes"),
    (
        "iptables",
        "rules",
        "# Generated\n*filter\n:INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [10:200]\n:OWN - [0:0]\n-A INPUT -m state --state ESTABLISHED,RELATED -j ACCEPT\n-A INPUT -p icmp -j ACCEPT\n-A INPUT -i lo -j ACCEPT\n-A INPUT ! -i eth1 -p tcp -m tcp --dport 22:80 -j OWN\n-A OWN -s 10.0.0.0/8 -m comment --comment \"a b\" -j LOG --log-prefix x\n-A OWN -j RETURN\n-A INPUT -j REJECT --reject-with icmp-host-prohibited\nCOMMIT\n*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -o eth0 -j MASQUERADE\nCOMMIT\n",
    ),
    (
        "udev_rules",
        "every-key",
        "# comment\nACTION!=\"add\", GOTO=\"end\"\nSUBSYSTEM==\"net\", KERNEL==\"eth*\", ATTR{address}==\"52:54:00:*\", ENV{A}=\"%k-$attr{type}-%n%%\", NAME=\"lan%n\"\nSUBSYSTEMS==\"pci|virtio\", ATTRS{vendor}==\"0x1af4\", DRIVERS==\"?*\", IMPORT{program}=\"write_net_rules\", \\\n  RUN+=\"/bin/true\"\nENV{A}!=\"\", PROGRAM=\"/bin/echo x\", RESULT==\"[a-x]\", NAME:=\"n\"\nTEST==\"/etc/x\", OPTIONS=\"last_rule\"\nLABEL=\"end\"\n",
    ),
    (
        "ifcfg",
        "shell",
        "DEVICE=\"eth0\"\nexport HWADDR='52:54:00:12:34:56' # nic\nONBOOT=yes\nBOOTPROTO=none\nA=$B${C:-x}\\\n\nIPADDR=192.0.2.1\nPREFIX=24\nNETMASK=255.255.255.0\nGATEWAY=192.0.2.254\n[ -f /etc/x ] && . /etc/x\nif true; then NM_CONTROLLED=no; fi\nMACADDR=`echo a`\n",
    ),
    (
        "interfaces",
        "stanzas",
        "auto lo eth0\nallow-hotplug eth1\niface lo inet loopback\niface eth0 inet static\n address 192.0.2.1/24\\\n\n netmask 24\n gateway 192.0.2.254\n up echo x\nmapping eth*\n script /a\n map b\niface eth1 inet6 dhcp\nsource /etc/network/interfaces.d/*\n",
    ),
    (
        "fstab",
        "both",
        "# tables\nUUID=8e0c2f7a-41d3-4b6e-a2c5-0d9f6b3e1702 / ext4 defaults,noatime 1 1\nLABEL=\\040boot /boot ext2 ro 0 2\n/dev/mapper/vg-swap none swap sw\nswap /dev/sda5 /dev/urandom cipher=aes,swap\nro root=/dev/sda1 rd_LVM_LV=vg/lv \"quoted=a b\" quiet\n",
    ),
    (
        "grub_cfg",
        "grub2",
        "set default=\"${saved_entry}\"\nif [ \"$x\" = 1 ]; then\n set timeout=5\nfi\nmenuentry 'First' --class os {\n insmod ext2\n set root='(hd0,msdos1)'\n search --no-floppy --fs-uuid --set=root 1f7b9c54-2a83\n linux /boot/vmlinuz root=UUID=1f7b ro quiet\n initrd /boot/initrd.img\n}\nsubmenu \"More\" { menuentry \"Second\" { linux16 /k ; initrd16 /i } }\n",
    ),
    (
        "grub_cfg",
        "legacy",
        "default=1\ntimeout=5\nsplashimage=(hd0,0)/grub/splash.xpm.gz\ntitle First\n\troot (hd0,0)\n\tkernel /vmlinuz ro root=/dev/mapper/vg-root \\\n quiet\n\tinitrd /initramfs.img\ntitle Second\n\tuuid 3d6b0a0c\n\tkernel /xen.gz\n\tmodule /vmlinuz root=/dev/sda1\n",
    ),
    (
        "modules_alias",
        "aliases",
        "# comment\nalias pci:v00001AF4d00001000sv*sd*bc[0-9a]*sc\\*i? virtio_pci\nkernel/drivers/virtio/virtio_pci.ko\nalias virtio:d00000001v* virtio_net\npci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00\n",
    ),
    (
        "dhclient_files",
        "lease",
        "option domain-name-servers 192.0.2.2;\nsend host-name \"a\";\nrequest subnet-mask, routers;\ntimeout 30;\nlease {\n  interface \"eth0\";\n  fixed-address 192.0.2.7;\n  option subnet-mask 255.255.255.0;\n  option routers 192.0.2.254,192.0.2.253;\n  option dhcp-server-identifier 192.0.2.2;\n  option domain-name \"lab.example\";\n  option dhcp-lease-time 3600;\n  renew 1 2013/02/11 09:00:00;\n  rebind 1 2013/02/11 10:00:00;\n  expire never;\n}\n",
    ),
    (
        "inf",
        "network",
        "; comment\n[Version]\nSignature=\"$Windows NT$\"\nClass=Net\nClassGuid={4d36e972-e325-11ce-bfc1-08002be10318}\nDriverVer=06/21/2006,6.1.7600.16385\n[Manufacturer]\n%M%=Models,NTamd64.6.1\n[Models.NTamd64.6.1]\n%D% = install.ndi, PCI\\VEN_8086&DEV_100F, \"PCI\\VEN_8086&DEV_100E\"\n[install.ndi.NT.Services]\nAddService = E1G60, 2, service\n[Strings]\nM=\"Maker\"\nD = \"Adapter \"\"quoted\"\"\"\n",
    ),
    (
        "virt_image",
        "two-boots",
        "<?xml version='1.0'?><image><name>seed</name><label>x</label><domain><boot type='hvm'><guest><arch>x86_64</arch></guest><os><loader dev='hd'/><arch>x86_64</arch></os><drive disk='seed.qcow2' target='hda'/></boot><boot type='xen'><guest><arch>i686</arch></guest><os><loader>pygrub</loader></os><drive disk='b.raw'/></boot><devices><vcpu>2</vcpu><memory>524288</memory><interface/><graphics/></devices></domain><storage><disk file='seed.qcow2' use='system' format='qcow2'/><disk file='b.raw' format='raw'/></storage></image>",
    ),
    (
        "virt_convert_ovf",
        "plain",
        r#"<?xml version="1.0"?><Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"><References><File ovf:href="disk1.vmdk" ovf:id="f1" ovf:size="9"/></References><DiskSection><Info>d</Info><Disk ovf:capacity="8" ovf:capacityAllocationUnits="byte * 2^30" ovf:diskId="d1" ovf:fileRef="f1"/></DiskSection><NetworkSection><Info>n</Info><Network ovf:name="VM Network"/></NetworkSection><VirtualSystem ovf:id="seed"><Info>v</Info><Name>seed</Name><AnnotationSection><Info/><Annotation>note</Annotation></AnnotationSection><OperatingSystemSection ovf:id="107"><Info/></OperatingSystemSection><VirtualHardwareSection><Info/><Item><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>2</rasd:VirtualQuantity></Item><Item><rasd:AllocationUnits>MegaBytes</rasd:AllocationUnits><rasd:InstanceID>2</rasd:InstanceID><rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>512</rasd:VirtualQuantity></Item><Item><rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceType>5</rasd:ResourceType></Item><Item><rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:HostResource>ovf:/disk/d1</rasd:HostResource><rasd:InstanceID>4</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item><Item><rasd:Connection>VM Network</rasd:Connection><rasd:InstanceID>5</rasd:InstanceID><rasd:ResourceSubType>E1000</rasd:ResourceSubType><rasd:ResourceType>10</rasd:ResourceType></Item></VirtualHardwareSection></VirtualSystem></Envelope>"#,
    ),
    (
        "virt_convert_vmx",
        "esxi",
        "#!/usr/bin/vmplayer\nconfig.version = \"8\"\ndisplayName = \"seed\"\nguestOS = \"centos-64\"\nmemsize = \"1024\"\nnumvcpus = \"2\"\nannotation = \"a note\"\nscsi0.present = \"TRUE\"\nscsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"disk.vmdk\"\nide1:0.present = \"TRUE\"\nide1:0.deviceType = \"cdrom-image\"\nide1:0.fileName = \"/iso\"\nethernet0.present = \"TRUE\"\nethernet0.addressType = \"generated\"\nethernet0.generatedAddress = \"00:0c:29:4f:8e:35\"\nfloppy0.present = \"FALSE\"\n",
    ),
    (
        "virt_convert_vmx",
        "descriptor-too",
        "# Disk DescriptorFile\nversion=1\nCID=1234abcd\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\nRW 64 FLAT \"disk-flat.vmdk\" 0\ndisplayName = \"seed\"\nide0:0.present = \"true\"\nide0:0.fileName = \"disk1.vmdk\"\n",
    ),
    ("elf", "no-elf", "\u{7f}ELF"),
    ("scenario", "another-version", "format = 2\n"),
    (
        "lvm",
        "text",
        "vg {\nid = \"nsLL3V-GxzQ-wFuR-dbws-IR0X-OEdn-lwdoTT\"\nseqno = 3\nstatus = [\"RESIZEABLE\", \"READ\"]\nextent_size = 8192 # comment\nphysical_volumes {\npv0 {\nid = \"HdPMER-K3WW-n9RI-Vqt0-5qZw-Bth2-DT82Wk\"\ndevice = \"/dev/sda2\"\nstatus = [\"ALLOCATABLE\"]\npe_start = 2048\npe_count = 12\n}\n}\nlogical_volumes {\nroot {\nid = \"ERAV1Z-CYTs-tjhs-8Z6p-0jcA-mEDu-OoEGpV\"\nstatus = [\"READ\", \"WRITE\", \"VISIBLE\"]\nsegment_count = 2\nsegment1 {\nstart_extent = 0\nextent_count = 2\ntype = \"striped\"\nstripe_count = 1\nstripes = [\"pv0\", 0]\n}\nsegment2 {\nstart_extent = 2\nextent_count = 4\ntype = \"striped\"\nstripe_count = 2\nstripe_size = 128\nstripes = [\"pv0\", 4, \"pv0\", 8]\n}\n}\n}\n}\ncontents = \"Text Format Volume Group\"\nversion = 1\n",
    ),
];

pub fn write() -> io::Result<()> {
    for (target, name, text) in SEEDS {
        keep(target, name, text.as_bytes())?;
    }
    Ok(())
}
