//! Chooses the connection that a new connection replaces when all places are taken. Pure.
//!
//! A connection with a request in progress, or with a WebSocket, is never replaced.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

/// Number of low bits of an IPv6 address that one client can choose freely: it usually owns a /64.
const CLIENT_BITS: u32 = 64;

/// State of a connection, for the choice of the connection to replace.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Standing {
    /// The connection has not sent a complete request yet.
    New,
    /// The connection has sent a request before, and no request is in progress.
    Waiting,
    /// A request is in progress, or the connection is a WebSocket.
    Busy,
}

/// One open connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat {
    /// Number of the connection.
    pub id: u64,
    /// Client of the connection, see [`client_of`].
    pub client: IpAddr,
    /// State of the connection.
    pub standing: Standing,
}

/// Limits for the connections of one client.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientBounds {
    /// Maximum number of connections.
    pub all: usize,
    /// Maximum number of connections without a complete request.
    pub new: usize,
}

/// Limits for connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Maximum number of connections.
    pub all: usize,
    /// Limits for the connections of one client, or `None` if all connections have the address of a proxy.
    pub client: Option<ClientBounds>,
}

/// Place for a new connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Room {
    /// A place is free.
    Free,
    /// The place of the connection with this number, which must be closed.
    Replaces(u64),
    /// No place, because requests are in progress on all connections.
    None,
}

/// Returns the client of an address: the address, or its /64 network if it is an IPv6 address.
pub(super) fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> CLIENT_BITS << CLIENT_BITS)),
    }
}

/// Returns the place for a new connection of `newcomer`. `seats` has the open connections, oldest first.
///
/// A client above its own limits replaces its own oldest connection. If all places are taken, the client with the most
/// replaceable connections loses its oldest one. In both cases, a connection without a complete request is replaced
/// before one that waits for its next request.
pub(super) fn make_room(seats: &[Seat], newcomer: IpAddr, bounds: Bounds) -> Room {
    if let Some(client) = bounds.client {
        let own: Vec<Seat> = seats.iter().copied().filter(|seat| seat.client == newcomer).collect();
        let new = own.iter().filter(|seat| seat.standing == Standing::New).count();
        if own.len() >= client.all || new >= client.new {
            return oldest_replaceable(&own).map_or(Room::None, Room::Replaces);
        }
    }
    if seats.len() < bounds.all {
        return Room::Free;
    }
    let mut by_client: BTreeMap<IpAddr, Vec<Seat>> = BTreeMap::new();
    for seat in seats.iter().filter(|seat| seat.standing != Standing::Busy) {
        by_client.entry(seat.client).or_default().push(*seat);
    }
    let size = |(client, own): &(&IpAddr, &Vec<Seat>)| own.len() + usize::from(**client == newcomer);
    let largest = by_client.iter().map(|entry| size(&entry)).max().unwrap_or(0);
    let victims =
        by_client.iter().filter(|entry| size(entry) == largest).filter_map(|(_, own)| oldest_replaceable(own));
    victims.min().map_or(Room::None, Room::Replaces)
}

fn oldest_replaceable(seats: &[Seat]) -> Option<u64> {
    let oldest = |standing| seats.iter().find(|seat| seat.standing == standing).map(|seat| seat.id);
    oldest(Standing::New).or_else(|| oldest(Standing::Waiting))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { all: 6, client: Some(ClientBounds { all: 4, new: 2 }) };

    fn client(number: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, number])
    }

    /// Returns connections, oldest first, from the number of the client and the state of each.
    fn seats(list: &[(u8, Standing)]) -> Vec<Seat> {
        let seat = |(id, (number, standing)): (u64, &(u8, Standing))| Seat {
            id,
            client: client(*number),
            standing: *standing,
        };
        (0..).zip(list).map(seat).collect()
    }

    #[test]
    fn a_free_place_replaces_nobody() {
        assert_eq!(make_room(&[], client(1), BOUNDS), Room::Free);
        let list = seats(&[(1, Standing::New), (2, Standing::Busy), (1, Standing::Waiting)]);
        assert_eq!(make_room(&list, client(1), BOUNDS), Room::Free);
    }

    #[test]
    fn a_client_with_many_silent_connections_replaces_its_own() {
        let list = seats(&[(2, Standing::New), (1, Standing::Waiting), (1, Standing::New), (1, Standing::New)]);
        assert_eq!(make_room(&list, client(1), BOUNDS), Room::Replaces(2));
        assert_eq!(make_room(&list, client(2), BOUNDS), Room::Free);
    }

    #[test]
    fn a_client_at_its_limit_replaces_a_waiting_connection_or_is_refused() {
        let busy = [(1, Standing::Busy); 4];
        assert_eq!(make_room(&seats(&busy), client(1), BOUNDS), Room::None);
        assert_eq!(make_room(&seats(&busy), client(2), BOUNDS), Room::Free);
        let list = seats(&[(1, Standing::Busy), (1, Standing::Waiting), (1, Standing::Busy), (1, Standing::Waiting)]);
        assert_eq!(make_room(&list, client(1), BOUNDS), Room::Replaces(1));
    }

    #[test]
    fn at_the_limit_of_all_the_client_with_the_most_loses() {
        let waiting = Standing::Waiting;
        let list =
            seats(&[(2, Standing::New), (1, waiting), (1, waiting), (1, waiting), (3, Standing::Busy), (4, waiting)]);
        for newcomer in [1, 2, 3, 4, 9] {
            let newcomer = client(newcomer);
            let bounds = Bounds { client: None, ..BOUNDS };
            assert_eq!(make_room(&list, newcomer, bounds), Room::Replaces(1), "{newcomer}");
        }
    }

    #[test]
    fn at_the_limit_of_all_the_newcomer_counts_as_one_of_its_client() {
        let list = seats(&[
            (2, Standing::Waiting),
            (1, Standing::Waiting),
            (3, Standing::Busy),
            (3, Standing::Busy),
            (4, Standing::Busy),
            (4, Standing::Busy),
        ]);
        assert_eq!(make_room(&list, client(1), BOUNDS), Room::Replaces(1));
        assert_eq!(make_room(&list, client(9), BOUNDS), Room::Replaces(0));
    }

    #[test]
    fn at_the_limit_of_all_with_requests_everywhere_nobody_is_replaced() {
        let list = seats(&[(1, Standing::Busy), (2, Standing::Busy), (3, Standing::Busy)]);
        let bounds = Bounds { all: 3, client: None };
        assert_eq!(make_room(&list, client(1), bounds), Room::None);
    }

    #[test]
    fn behind_a_proxy_the_oldest_silent_connection_goes_first() {
        let list = seats(&[(1, Standing::Busy), (1, Standing::Waiting), (1, Standing::New), (1, Standing::New)]);
        let bounds = Bounds { all: 4, client: None };
        assert_eq!(make_room(&list, client(1), bounds), Room::Replaces(2));
    }

    #[test]
    fn addresses_of_one_network_are_one_client() {
        let client = |text: &str| client_of(text.parse().expect("an address"));
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:1"));
        assert_ne!(client("2001:db8:0:1::1"), client("2001:db8::1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
    }
}
