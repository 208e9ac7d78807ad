//! State transfer.
