//! `lab`: the laboratory on this machine.
fn main() {}
