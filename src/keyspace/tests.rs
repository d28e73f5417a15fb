//! Tests of the keyspace as a whole.
