//! Tests against a real API server and a real sshd.
