//! Flags that say which addresses Writ may connect to, for `writ serve` and `writ machine`.

use std::net::IpAddr;

use clap::Args;

use crate::ssh::{AddressPolicy, Cidr};

/// Flags for the addresses of machines.
#[derive(Args, Debug)]
pub struct AddressArgs {
    /// Range of addresses that machines may have, like 10.0.0.0/8, or one address; repeatable. If it is given, Writ
    /// connects to no other addresses. Loopback, link-local and cloud metadata addresses, those of the API server, and
    /// the ranges of --refuse-cidr stay refused unless a range here is as narrow: 127.0.0.0/8 allows loopback,
    /// 0.0.0.0/0 does not. An address that is refused for two causes (loopback, and the API server on this host too)
    /// needs a range as narrow as both: 127.0.0.1/32. A jump host decides by itself which machines it connects to.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    allow_cidr: Vec<Cidr>,

    /// Range of addresses that Writ never connects to, whatever --allow-cidr says; repeatable.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    deny_cidr: Vec<Cidr>,

    /// Range without machines, like the cluster's own for Services and Pods; repeatable. Writ refuses it unless
    /// --allow-cidr names the same range or one within it.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    refuse_cidr: Vec<Cidr>,
}

impl AddressArgs {
    /// Returns the policy of the flags. `servers` are the addresses of the API server.
    pub fn policy(&self, servers: Vec<IpAddr>) -> AddressPolicy {
        AddressPolicy::new(self.allow_cidr.clone(), self.deny_cidr.clone(), servers).refusing(self.refuse_cidr.clone())
    }

    /// Returns true if --allow-cidr is not given, so that machines may have any address that is not refused.
    pub fn allow_any(&self) -> bool {
        self.allow_cidr.is_empty()
    }
}
