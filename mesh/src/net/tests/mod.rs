//! Tests of links over loopback.
