//! What the benches share: frames in the venue's spelling, and what most collectors do with them as a reference.

pub(crate) mod frames;
pub(crate) mod reference;
