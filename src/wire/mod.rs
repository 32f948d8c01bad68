//! The shapes that enter and leave the process, and their way to and from the core's types.
