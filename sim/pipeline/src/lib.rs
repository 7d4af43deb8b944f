//! The seven steps of a migration as a sans-IO state machine, its checks, policy, routes and rollback.
