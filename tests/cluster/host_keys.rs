//! A host that does not prove itself gets no authentication attempt: what sshd logged is asked for that.
