//! `writ`: the controller.
fn main() {}
