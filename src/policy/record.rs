//! Record of a decision, with a digest that readers of the record can verify.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::api::execution_status::DecisionRecord;

use super::Decision;

impl Decision {
    /// Returns the record of the decision.
    pub fn record(&self, decided_time: MicroTime) -> DecisionRecord {
        let mut record = DecisionRecord {
            whitelist: self.whitelist.clone(),
            rule: self.rule.clone(),
            argv: self.argv.clone(),
            action_type: self.action_type.clone(),
            run_as: self.run_as.clone(),
            working_directory: self.working_directory.clone(),
            environment: self.environment.clone(),
            timeout_seconds: self.timeout_seconds,
            interactive: self.interactive,
            record_input: self.record_input,
            output: self.output,
            redact: self.redact.clone(),
            minimum_retention_seconds: self.minimum_retention_seconds,
            digest: String::new(),
            decided_time,
        };
        record.digest = digest(&record);
        record
    }
}

/// Returns the SHA-256 of all fields of a record except the digest and the time.
fn digest(record: &DecisionRecord) -> String {
    // The conversion cannot fail, because all keys are text. An empty digest matches no record.
    let Ok(Value::Object(mut fields)) = serde_json::to_value(record) else { return String::new() };
    fields.remove("digest");
    fields.remove("decidedTime");
    let mut text = String::new();
    canonical(&Value::Object(fields), &mut text);
    let hash = Sha256::digest(text.as_bytes());
    hash.iter().fold(String::from("sha256:"), |text, byte| text + &format!("{byte:02x}"))
}

/// Writes JSON with sorted keys and without spaces, in the format of `jq -cS`.
pub(crate) fn canonical(value: &Value, into: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_by(|left, right| left.0.cmp(right.0));
            into.push('{');
            for (index, (name, value)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    into.push(',');
                }
                into.push_str(&Value::String(name.clone()).to_string());
                into.push(':');
                canonical(value, into);
            }
            into.push('}');
        }
        Value::Array(items) => {
            into.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    into.push(',');
                }
                canonical(item, into);
            }
            into.push(']');
        }
        other => into.push_str(&other.to_string()),
    }
}
