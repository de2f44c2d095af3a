//! Writ: audited remote commands as Kubernetes objects.
