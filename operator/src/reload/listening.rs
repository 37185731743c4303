//! Whether a process of the pod listens on a port, for probes. Connecting to it would say so too, but what
//! speaks TLS writes an error into its log for each client that connects and says nothing.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::time::Duration;
use std::{fs, io, thread};

/// Where /healthz is.
const PORT: u16 = 8080;

const PATIENCE: Duration = Duration::from_secs(1);

/// Answers in a thread of its own, for ever.
pub(super) fn answer(port: u16) -> io::Result<()> {
    // Of both families, where the node has both.
    let listener =
        TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).or_else(|_| TcpListener::bind(("0.0.0.0", PORT)))?;
    thread::spawn(move || {
        for probe in listener.incoming().flatten() {
            // Whoever asked has gone.
            drop(tell(probe, is_listening(port)));
        }
    });
    Ok(())
}

fn tell(mut probe: TcpStream, listens: bool) -> io::Result<()> {
    probe.set_read_timeout(Some(PATIENCE))?;
    probe.set_write_timeout(Some(PATIENCE))?;
    // What it asks is not of interest, but must be read before the connection may be closed.
    let _ = probe.read(&mut [0; 4096])?;
    let (status, body) =
        if listens { ("200 OK", "ok\n") } else { ("503 Service Unavailable", "not listening\n") };
    let length = body.len();
    write!(probe, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}

fn is_listening(port: u16) -> bool {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    tables.iter().any(|table| has_listener(table, port))
}

/// A row has a number, the own address with its port, the other's, and the state, of which 0A is LISTEN.
fn has_listener(table: &str, port: u16) -> bool {
    let own = format!(":{port:04X}");
    table.lines().skip(1).any(|row| {
        let mut columns = row.split_whitespace().skip(1);
        columns.next().is_some_and(|address| address.ends_with(&own)) && columns.nth(1) == Some("0A")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_told_from_a_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        assert!(is_listening(address.port()));
        let _connection = TcpStream::connect(address).expect("a connection");
        let _accepted = listener.accept().expect("the other end");
        drop(listener);
        assert!(!is_listening(address.port()));
    }
}
