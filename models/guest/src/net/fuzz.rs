//! Entry points for fuzzing; the tests of this crate call them over mutated valid inputs.

use super::bringup_dhclient::{append, configuration, remembered};
use super::linux::DhcpClient;
use crate::Tree;
use drylab_catalog::Mac;

/// Reads a dhclient lease database (and the same bytes as `dhclient.conf`); a lease that is read is written and read
/// again.
///
/// # Panics
/// When a lease that was written reads differently.
pub fn dhclient_files(data: &[u8]) {
    let path = "/var/lib/dhclient/dhclient-eth0.leases";
    let mut tree = Tree::new();
    tree.write(path, data.to_vec());
    tree.write("/etc/dhcp/dhclient.conf", data.to_vec());
    let client = DhcpClient {
        arguments: Vec::new(),
        one_try: true,
        timeout_s: 60,
        persistent: false,
        hostname: None,
    };
    let config = configuration(&tree, &client, Mac([2, 0, 0, 0, 0, 1]), false);
    assert_eq!(config.mac, Mac([2, 0, 0, 0, 0, 1]));
    let Some(mut lease) = remembered(&tree, path, "eth0", 0) else {
        return;
    };
    // Quotes and line ends cannot stand in the text of a lease.
    lease.domain = lease
        .domain
        .filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric()));
    lease.host_name = None;
    tree.write(path, append("", "eth0", &lease, 0).into_bytes());
    let again = remembered(&tree, path, "eth0", 0);
    assert_eq!(
        again.map(|again| (again.address, again.server, again.routers, again.dns)),
        Some((lease.address, lease.server, lease.routers, lease.dns))
    );
}
