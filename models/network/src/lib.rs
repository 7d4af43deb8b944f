//! Segments, DHCP servers and clients, routing, DNS and firewalls, packet by packet.
