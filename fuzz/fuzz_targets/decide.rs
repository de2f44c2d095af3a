//! Builds policies and requests from the fuzzer's bytes, with the files of the property tests in `src/policy/tests/`.
//! As in those tests, each decision must equal the decision of a second, simple implementation.
#![no_main]
#![allow(dead_code, reason = "the property tests use more of these files")]

use libfuzzer_sys::fuzz_target;
use writ::{api, policy};

#[path = "../../src/policy/tests/known_patterns.rs"]
mod known_patterns;
#[path = "../../src/policy/tests/model.rs"]
mod model;
#[path = "../../src/policy/tests/oracle.rs"]
mod oracle;
#[path = "../../src/policy/tests/wild.rs"]
mod wild;

use model::Source;
use oracle::{Question, World};

fuzz_target!(|bytes: &[u8]| {
    let source = &mut Source(bytes);
    // Compiling arbitrary rules takes longer than a decision, so only one input in four does that.
    if source.once_in(4) {
        return wild::judge(source);
    }
    let world = World::new(model::policy(source));
    for _ in 0..1 + source.below(6) {
        let spec = model::request(source, &world.lists);
        let (labels, requester) = (model::labels(source), model::requester(source));
        world.judge(&Question { spec: &spec, labels: &labels, requester: requester.as_ref() });
    }
});
