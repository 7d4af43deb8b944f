//! Hypervisors with their consoles: products as facts with evidence, importers, exporters, hosts.
