//! Addresses as people write them.

use std::net::{SocketAddr, ToSocketAddrs};

/// HOST, HOST:PORT or :PORT as one address to listen on. Without a host: all addresses. Without a port: `default_port`.
fn listen_address(text: &str, default_port: u16) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    if let Ok(address) = text.trim_start_matches('[').trim_end_matches(']').parse() {
        return Ok(SocketAddr::new(address, default_port));
    }
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let port = if port.is_empty() { Ok(default_port) } else { port.parse() };
    let port: u16 = port.map_err(|_| format!("\"{text}\" has no port number: write HOST:PORT"))?;
    let host = if host.is_empty() { "0.0.0.0" } else { host };
    let mut found = (host, port).to_socket_addrs().map_err(|error| format!("{host}: {error}"))?;
    found.next().ok_or_else(|| format!("{host} has no address"))
}

/// `--quic`.
pub(crate) fn quic_address(text: &str) -> Result<SocketAddr, String> {
    listen_address(text, 7500)
}

/// `--admin`.
pub(crate) fn admin_address(text: &str) -> Result<SocketAddr, String> {
    listen_address(text, 9400)
}

/// `--listen` of an ingress.
pub(crate) fn tcp_address(text: &str) -> Result<SocketAddr, String> {
    listen_address(text, 7000)
}

/// `--app`: a port there must be.
pub(crate) fn app_address(text: &str) -> Result<SocketAddr, String> {
    match listen_address(text, 0)? {
        address if address.port() == 0 => Err(format!("\"{text}\" has no port number: write HOST:PORT")),
        address => Ok(address),
    }
}

/// An address to open links to, with the id of who is there where it is known: HOST:PORT or ID=HOST:PORT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The id, if it was given.
    pub(crate) id: Option<String>,
    /// HOST:PORT, resolved whenever a link is opened.
    pub(crate) address: String,
}

/// Reads a [`Target`].
pub(crate) fn target(text: &str) -> Result<Target, String> {
    let (id, address) = match text.split_once('=') {
        Some((id, address)) => (Some(id.trim().to_owned()), address),
        None => (None, text),
    };
    let address = address.trim();
    let (host, port) =
        address.rsplit_once(':').ok_or_else(|| format!("\"{text}\": write HOST:PORT or ID=HOST:PORT"))?;
    if host.is_empty() || id.as_ref().is_some_and(String::is_empty) {
        return Err(format!("\"{text}\": write HOST:PORT or ID=HOST:PORT"));
    }
    if !port.parse::<u16>().is_ok_and(|port| port != 0) {
        return Err(format!("\"{text}\": \"{port}\" is no port number"));
    }
    Ok(Target { id, address: address.to_owned() })
}

/// `--advertise`.
pub(crate) fn advertised(text: &str) -> Result<String, String> {
    match target(text)? {
        Target { id: None, address } => Ok(address),
        Target { id: Some(_), .. } => Err(format!("\"{text}\": write HOST:PORT")),
    }
}

/// The servers by id: either all have one, or the list is in the order of the ids, which begin with 0.
pub(crate) fn servers(targets: &[Target]) -> Result<Vec<(u32, String)>, String> {
    let with_ids = targets.iter().filter(|target| target.id.is_some()).count();
    if with_ids != 0 && with_ids != targets.len() {
        return Err("give ids to all of them (ID=HOST:PORT) or to none".to_owned());
    }
    let mut servers = Vec::new();
    for (index, target) in targets.iter().enumerate() {
        let id = match &target.id {
            Some(id) => id.parse().map_err(|_| format!("\"{id}\" is no server's id: it is a number"))?,
            None => u32::try_from(index).map_err(|_| "too many".to_owned())?,
        };
        if servers.iter().any(|(known, _)| *known == id) {
            return Err(format!("the id {id} is given twice"));
        }
        servers.push((id, target.address.clone()));
    }
    servers.sort_unstable();
    Ok(servers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_may_be_left_out_or_stand_alone() {
        assert_eq!(quic_address("127.0.0.1"), Ok("127.0.0.1:7500".parse().expect("an address")));
        assert_eq!(admin_address(":9401"), Ok("0.0.0.0:9401".parse().expect("an address")));
        assert_eq!(admin_address("::1"), Ok("[::1]:9400".parse().expect("an address")));
        assert_eq!(tcp_address("127.0.0.1:0"), Ok("127.0.0.1:0".parse().expect("an address")));
        assert!(quic_address("127.0.0.1:port").is_err());
    }

    fn read(list: &str) -> Result<Vec<(u32, String)>, String> {
        servers(&list.split(',').map(target).collect::<Result<Vec<_>, _>>()?)
    }

    #[test]
    fn servers_are_listed_in_the_order_of_their_ids_or_with_ids() {
        assert_eq!(read("a:1,b:2"), Ok(vec![(0, "a:1".into()), (1, "b:2".into())]));
        assert_eq!(read("7=b:2,3=[::1]:1"), Ok(vec![(3, "[::1]:1".into()), (7, "b:2".into())]));
        for bad in ["a:1,3=b:2", "1=a:1,1=b:2", "x=a:1", "a", "a:0", ":1", "=a:1", "a:port"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
