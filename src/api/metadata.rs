//! Bounds of the admission policy `writ-metadata` (`charts/writ/templates/guards.yaml`) on the metadata of objects.
//! Writ uses these bounds to check manifests that no API server has checked yet.

/// Maximum number of labels of an object.
const MAX_LABELS: usize = 64;
/// Maximum size of all labels of an object, in bytes. The size includes names and values.
const MAX_LABEL_BYTES: usize = 8192;
/// Maximum number of annotations of an object.
const MAX_ANNOTATIONS: usize = 64;
/// Maximum size of the names of all annotations of an object, in bytes.
const MAX_ANNOTATION_NAME_BYTES: usize = 4096;
/// Maximum size of all annotations of a Machine or a Whitelist, in bytes. The size includes names and values.
/// Kubernetes itself has this bound for every kind. The policy limits the annotations of an execution to 131072 bytes,
/// and those of a GatewaySession to 16384 bytes.
const MAX_ANNOTATION_BYTES: usize = 262_144;
/// Maximum number of finalizers of an object.
const MAX_FINALIZERS: usize = 16;
/// Maximum size of all finalizers of an object, in bytes.
const MAX_FINALIZER_BYTES: usize = 2048;

/// Metadata of a Machine or a Whitelist in a manifest.
#[derive(Clone, Debug, Default)]
pub struct Metadata<'a> {
    /// Names and values of the labels.
    pub labels: Vec<(&'a str, &'a str)>,
    /// Names and values of the annotations.
    pub annotations: Vec<(&'a str, &'a str)>,
    /// Names of the finalizers.
    pub finalizers: Vec<&'a str>,
}

/// Metadata that exceed a bound.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MetadataProblem {
    /// Field of the metadata: `labels`, `annotations` or `finalizers`.
    pub field: &'static str,
    /// The bound, the actual size, and what to do.
    pub message: String,
}

/// Returns the problems for which `writ-metadata` refuses to create a Machine or a Whitelist with this metadata. An
/// update may keep entries that exceed a bound.
pub fn metadata_problems(metadata: &Metadata<'_>) -> Vec<MetadataProblem> {
    let name_bytes = |pairs: &[(&str, &str)]| pairs.iter().map(|(name, _)| name.len()).sum::<usize>();
    let bytes = |pairs: &[(&str, &str)]| name_bytes(pairs) + pairs.iter().map(|(_, value)| value.len()).sum::<usize>();
    let Metadata { labels, annotations, finalizers } = metadata;
    let mut problems = Vec::new();
    let mut report = |field, message| problems.push(MetadataProblem { field, message });
    if labels.len() > MAX_LABELS || bytes(labels) > MAX_LABEL_BYTES {
        report(
            "labels",
            format!(
                "must have at most {MAX_LABELS} entries and {MAX_LABEL_BYTES} bytes, names and values together, but has {} \
                 entries and {} bytes: leave out what is not needed",
                labels.len(),
                bytes(labels)
            ),
        );
    }
    let (names, all) = (name_bytes(annotations), bytes(annotations));
    if annotations.len() > MAX_ANNOTATIONS || names > MAX_ANNOTATION_NAME_BYTES || all > MAX_ANNOTATION_BYTES {
        report(
            "annotations",
            format!(
                "must have at most {MAX_ANNOTATIONS} entries, {MAX_ANNOTATION_NAME_BYTES} bytes of names, and \
                 {MAX_ANNOTATION_BYTES} bytes in all, but has {} entries, {names} bytes of names, and {all} bytes in all: \
                 leave out what is not needed",
                annotations.len()
            ),
        );
    }
    let all: usize = finalizers.iter().map(|name| name.len()).sum();
    if finalizers.len() > MAX_FINALIZERS || all > MAX_FINALIZER_BYTES {
        report(
            "finalizers",
            format!(
                "must have at most {MAX_FINALIZERS} entries and {MAX_FINALIZER_BYTES} bytes, but has {} entries and {all} bytes",
                finalizers.len()
            ),
        );
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUARDS: &str = include_str!("../../charts/writ/templates/guards.yaml");

    fn names(count: usize, length: usize) -> Vec<String> {
        (0..count).map(|index| format!("n{index:0width$}", width = length - 1)).collect()
    }

    fn pairs<'a>(names: &'a [String], value: &'a str) -> Vec<(&'a str, &'a str)> {
        names.iter().map(|name| (name.as_str(), value)).collect()
    }

    /// Returns the fields that have a problem.
    fn fields(metadata: &Metadata<'_>) -> Vec<&'static str> {
        metadata_problems(metadata).into_iter().map(|problem| problem.field).collect()
    }

    #[test]
    fn metadata_at_each_bound_pass_and_one_more_is_refused() {
        let labels = |count, value: usize| {
            let (names, value) = (names(count, 64), "v".repeat(value));
            fields(&Metadata { labels: pairs(&names, &value), ..Metadata::default() })
        };
        assert_eq!(labels(64, 64), [""; 0]);
        assert_eq!(labels(64, 65), ["labels"]);
        assert_eq!(labels(65, 1), ["labels"]);
        let annotations = |count, length, value: usize| {
            let (names, value) = (names(count, length), "v".repeat(value));
            fields(&Metadata { annotations: pairs(&names, &value), ..Metadata::default() })
        };
        assert_eq!(annotations(64, 64, 4032), [""; 0]);
        assert_eq!(annotations(64, 64, 4033), ["annotations"]);
        assert_eq!(annotations(64, 65, 0), ["annotations"]);
        assert_eq!(annotations(65, 3, 0), ["annotations"]);
        // The bound counts bytes, not characters.
        let euros = "\u{20ac}".repeat(262_144 / 3);
        assert_eq!(fields(&Metadata { annotations: vec![("ab", &euros)], ..Metadata::default() }), ["annotations"]);
        let finalizers = |count, length| {
            let names = names(count, length);
            fields(&Metadata { finalizers: names.iter().map(String::as_str).collect(), ..Metadata::default() })
        };
        assert_eq!(finalizers(16, 128), [""; 0]);
        assert_eq!(finalizers(16, 129), ["finalizers"]);
        assert_eq!(finalizers(17, 3), ["finalizers"]);
    }

    #[test]
    fn bounds_are_those_of_the_admission_policy() {
        let (_, policy) = GUARDS.split_once("\n  name: writ-metadata\n").unwrap();
        let (policy, _) = policy.split_once("\nkind: ValidatingAdmissionPolicyBinding").unwrap();
        for bound in [
            format!("variables.labels.size() <= {MAX_LABELS}\n"),
            format!("size(bytes(variables.labels[name]))).sum() <= {MAX_LABEL_BYTES})"),
            format!("variables.annotations.size() <= {MAX_ANNOTATIONS}\n"),
            format!("variables.annotations.map(name, size(bytes(name))).sum() <= {MAX_ANNOTATION_NAME_BYTES}\n"),
            format!("? 131072 : {MAX_ANNOTATION_BYTES}\n"),
            format!("variables.finalizers.size() <= {MAX_FINALIZERS}\n"),
            format!("variables.finalizers.map(name, size(bytes(name))).sum() <= {MAX_FINALIZER_BYTES})"),
        ] {
            assert!(policy.contains(&bound), "{bound}");
        }
    }
}
