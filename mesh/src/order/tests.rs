//! Handlers of the core, each tested by comparing whole outputs.
