//! Broken files never break the readers: valid ones with bytes changed, cut and doubled, and plain noise.

use drylab_guest::fuzz;
use proptest::prelude::*;

const RULES: &str =
    include_str!("../../../../corpora/guests/rules/el6/75-persistent-net-generator.rules");
const IFCFG: &str = "DEVICE=\"eth0\"\nexport HWADDR='00:0C:29:AA:BB:CC' # nic\nONBOOT=yes\nA=$B${C}\\\n\nIPADDR=192.0.2.1\n";
const INTERFACES: &str = "auto lo eth0\nallow-hotplug eth1\niface eth0 inet static\n address 192.0.2.1/24\\\n\n netmask 24\n";
const ALIASES: &str = "alias pci:v00001AF4d00001000sv*sd*bc[0-9a]*sc\\*i? virtio_pci\nkernel/drivers/virtio/virtio_pci.ko\n\
                       alias virtio:d00000001v* virtio_net\npci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00\n";

fn mutated(text: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..4), 0..12);
    edits.prop_map(move |edits| {
        let mut bytes = text.as_bytes().to_vec();
        for (place, byte, kind) in edits {
            if bytes.is_empty() {
                break;
            }
            let at = place.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.truncate(at),
                2 => bytes.insert(at, byte),
                _ => {
                    let tail = bytes[at..].to_vec();
                    bytes.extend(tail);
                    bytes.truncate(64 * 1024);
                }
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_rule_file_is_evaluated_without_a_panic(data in mutated(RULES)) {
        fuzz::udev_rules(&data);
    }

    #[test]
    fn any_ifcfg_file_is_brought_up_without_a_panic(data in mutated(IFCFG)) {
        fuzz::ifcfg(&data);
    }

    #[test]
    fn any_interfaces_file_is_read_without_a_panic(data in mutated(INTERFACES)) {
        fuzz::interfaces(&data);
    }

    #[test]
    fn any_modules_alias_is_looked_up_without_a_panic(data in mutated(ALIASES)) {
        fuzz::modules_alias(&data);
    }

    #[test]
    fn noise_is_no_file_of_any_kind(data in prop::collection::vec(any::<u8>(), 0..512)) {
        fuzz::udev_rules(&data);
        fuzz::ifcfg(&data);
        fuzz::interfaces(&data);
        fuzz::modules_alias(&data);
    }
}
