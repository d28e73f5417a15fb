//! A small blocking Redis client for operator commands: one connection, one request at a time, every wait bounded.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use redis_protocol::resp2::decode;
use redis_protocol::resp2::types::OwnedFrame;

use crate::config::HostPort;

/// Largest reply that is read.
const REPLY_BYTES_MAX: usize = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot resolve {0}")]
    Unresolved(HostPort),
    #[error("{address}: {source}")]
    Io { address: HostPort, source: std::io::Error },
    #[error("{address} closed the connection")]
    Closed { address: HostPort },
    #[error("{address} sent something that is not a Redis reply")]
    Malformed { address: HostPort },
    /// The node's own error reply.
    #[error("{address} answered: {message}")]
    Refused { address: HostPort, message: String },
}

pub struct NodeClient {
    address: HostPort,
    stream: TcpStream,
}

impl NodeClient {
    /// Connects and, if there is a password, authenticates.
    pub fn connect(address: &HostPort, password: Option<&str>, timeout: Duration) -> Result<Self, ClientError> {
        let io = |source| ClientError::Io { address: address.clone(), source };
        let mut last = ClientError::Unresolved(address.clone());
        for resolved in (address.host.as_str(), address.port).to_socket_addrs().map_err(io)? {
            match TcpStream::connect_timeout(&resolved, timeout) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(timeout)).map_err(io)?;
                    stream.set_write_timeout(Some(timeout)).map_err(io)?;
                    let mut client = Self { address: address.clone(), stream };
                    if let Some(password) = password {
                        client.request(&["AUTH", password])?;
                    }
                    return Ok(client);
                }
                Err(source) => last = io(source),
            }
        }
        Err(last)
    }

    /// Sends one command and returns its reply as text; an error reply is an `Err`.
    pub fn request(&mut self, words: &[&str]) -> Result<String, ClientError> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.stream.write_all(request.as_bytes()).map_err(|source| self.io(source))?;
        let address = self.address.clone();
        match self.reply()? {
            OwnedFrame::SimpleString(bytes) | OwnedFrame::BulkString(bytes) => {
                String::from_utf8(bytes).map_err(|_| ClientError::Malformed { address })
            }
            OwnedFrame::Integer(number) => Ok(number.to_string()),
            OwnedFrame::Null => Ok(String::new()),
            OwnedFrame::Error(message) => Err(ClientError::Refused { address, message }),
            OwnedFrame::Array(_) => Err(ClientError::Malformed { address }),
        }
    }

    fn reply(&mut self) -> Result<OwnedFrame, ClientError> {
        let mut received = Vec::new();
        let mut piece = [0; 16 << 10];
        loop {
            let malformed = || ClientError::Malformed { address: self.address.clone() };
            if let Some((frame, _)) = decode::decode(&received).map_err(|_| malformed())? {
                return Ok(frame);
            }
            if received.len() > REPLY_BYTES_MAX {
                return Err(malformed());
            }
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(ClientError::Closed { address: self.address.clone() }),
                Ok(count) => received.extend_from_slice(&piece[..count]),
                Err(source) => return Err(self.io(source)),
            }
        }
    }

    fn io(&self, source: std::io::Error) -> ClientError {
        ClientError::Io { address: self.address.clone(), source }
    }
}

/// Fails unless the node answers PING and says that all key slots are served.
pub fn check_health(address: &HostPort, password: Option<&str>, timeout: Duration) -> Result<(), String> {
    let mut client = NodeClient::connect(address, password, timeout).map_err(|error| error.to_string())?;
    client.request(&["PING"]).map_err(|error| error.to_string())?;
    let info = client.request(&["CLUSTER", "INFO"]).map_err(|error| error.to_string())?;
    match info.lines().find_map(|line| line.strip_prefix("cluster_state:")) {
        Some("ok") => Ok(()),
        Some(state) => Err(format!("cluster_state is {state}")),
        None => Err("CLUSTER INFO has no cluster_state".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A node that answers each request it reads with the next of these replies.
    fn node_that_answers(replies: &[&str]) -> HostPort {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let replies: Vec<String> = replies.iter().map(|reply| (*reply).to_string()).collect();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for reply in replies {
                assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
                stream.write_all(reply.as_bytes()).unwrap();
            }
        });
        HostPort { host: "127.0.0.1".to_string(), port }
    }

    fn check(replies: &[&str], password: Option<&str>) -> Result<(), String> {
        check_health(&node_that_answers(replies), password, Duration::from_secs(5))
    }

    #[test]
    fn a_node_whose_cluster_is_ok_is_healthy() {
        let info = "cluster_state:ok\r\ncluster_size:1\r\n";
        let info = format!("${}\r\n{info}\r\n", info.len());
        assert_eq!(check(&["+PONG\r\n", &info], None), Ok(()));
        assert_eq!(check(&["+OK\r\n", "+PONG\r\n", &info], Some("secret")), Ok(()));
    }

    #[test]
    fn each_failure_says_what_is_wrong() {
        let error = check(&["+PONG\r\n", "$18\r\ncluster_state:fail\r\n"], None).unwrap_err();
        assert_eq!(error, "cluster_state is fail");
        let error = check(&["-NOAUTH Authentication required.\r\n"], None).unwrap_err();
        assert!(error.ends_with("answered: NOAUTH Authentication required."), "{error}");
        assert!(check(&["?\r\n"], None).unwrap_err().ends_with("not a Redis reply"));
        assert!(check(&[], None).unwrap_err().contains("127.0.0.1"));
    }
}
