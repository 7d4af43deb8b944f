//! The laws of the house: strategies, invariants, relations and the tests that hold it.
