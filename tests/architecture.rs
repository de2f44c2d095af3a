//! The direction of modules and the bounds on length.
