//! Settings: TOML and environment, parsed once into valid, immutable values.
