//! Flags for the addresses to which Writ may connect, for `writ serve` and `writ machine`.

use std::net::IpAddr;

use clap::Args;

use crate::ssh::{AddressPolicy, Cidr};

/// Flags for the addresses of machines.
#[derive(Args, Debug)]
pub struct AddressArgs {
    /// Range of addresses that machines may have, for example 10.0.0.0/8, or one address; repeatable. If set, Writ
    /// connects to no other address. Writ still refuses loopback, link-local and cloud metadata addresses, the
    /// addresses of the API server, and the ranges of --refuse-cidr. To allow such addresses, give the refused range or
    /// a range inside it: 127.0.0.0/8 allows loopback, 0.0.0.0/0 does not. If two refused ranges contain the address,
    /// give a range inside both, for example 127.0.0.1/32 if the API server runs on this host. This flag does not limit
    /// the connections that a jump host makes.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    allow_cidr: Vec<Cidr>,

    /// Range of addresses to which Writ never connects, even if --allow-cidr contains them; repeatable.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    deny_cidr: Vec<Cidr>,

    /// Range that contains no machines, for example the cluster's range for Services or Pods; repeatable. Writ refuses
    /// these addresses, unless --allow-cidr names the same range or a range inside it.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    refuse_cidr: Vec<Cidr>,
}

impl AddressArgs {
    /// Returns the policy that the flags describe. `servers` are the addresses of the API server.
    pub fn policy(&self, servers: Vec<IpAddr>) -> AddressPolicy {
        AddressPolicy::new(self.allow_cidr.clone(), self.deny_cidr.clone(), servers).refusing(self.refuse_cidr.clone())
    }

    /// Returns true if --allow-cidr is not set. Writ then connects to any address that it does not refuse.
    pub fn allow_any(&self) -> bool {
        self.allow_cidr.is_empty()
    }
}
