//! The parts by hand.
