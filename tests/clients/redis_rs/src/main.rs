//! 2,000 mixed operations each through redis-rs's synchronous and asynchronous cluster connections.
//! Usage: redis-rs-check PORT. Panics, and so exits non-zero, at the first error or wrong answer.
//! Usage: redis-rs-check load PORT... See `load.rs`.

mod load;

use std::collections::HashMap;

use redis::cluster::{ClusterClient, ClusterConnection};
use redis::{AsyncCommands, Commands, ErrorKind, RedisResult, ServerErrorKind};

const OPERATIONS: u64 = 2000;
/// Keys of one MSET or MGET over several slots.
const SCATTERED: usize = 5;
const FOLLOWED_MAX: usize = 5;

/// xorshift64*: the run is the same each time.
struct Random(u64);

impl Random {
    fn next(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % bound
    }

    fn bytes(&mut self, length: u64) -> Vec<u8> {
        (0..length).map(|_| self.next(256) as u8).collect()
    }
}

fn key(prefix: &str, random: &mut Random) -> Vec<u8> {
    let mut key = prefix.as_bytes().to_vec();
    let length = 1 + random.next(12);
    key.extend(random.bytes(length));
    key
}

fn sync(client: &ClusterClient) {
    let mut connection = client.get_connection().expect("connects");
    let mut random = Random(11);
    let mut model: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    for number in 0..OPERATIONS {
        let key = key("rs:sync:", &mut random);
        match number % 10 {
            0..4 => {
                let value = if number % 400 == 0 { random.bytes(1 << 20) } else { random.bytes(64) };
                let _: () = connection.set(&key, &value).expect("SET");
                assert_eq!(connection.get::<_, Vec<u8>>(&key).expect("GET"), value);
                model.insert(key, value);
            }
            4 => {
                let (first, second) = (format!("{{rs{number}}}a"), format!("{{rs{number}}}b"));
                let _: () = connection.mset(&[(&first, "1"), (&second, "2")]).expect("MSET");
                let values: Vec<String> = connection.mget(&[&first, &second]).expect("MGET");
                assert_eq!(values, ["1", "2"]);
                // The library splits these by slots.
                let pairs = scattered(number);
                let _: () =
                    followed(&mut connection, &pairs, |connection| connection.mset(&pairs)).expect("MSET over slots");
                let values: Vec<u64> = followed(&mut connection, &pairs, |connection| connection.mget(keys_of(&pairs)))
                    .expect("MGET over slots");
                assert_eq!(values, [number; SCATTERED]);
            }
            5 => {
                let mut pipeline = redis::cluster::cluster_pipe();
                for index in 0..10 {
                    pipeline.set(format!("rs:pipe:{number}:{index}"), index).ignore();
                }
                for index in 0..10 {
                    pipeline.get(format!("rs:pipe:{number}:{index}"));
                }
                let values: Vec<u64> = pipeline.query(&mut connection).expect("a pipeline");
                assert_eq!(values, (0..10).collect::<Vec<_>>());
            }
            6 => {
                let before: Option<i64> = connection.get("rs:counter").expect("GET");
                let after: i64 = connection.incr("rs:counter", 2).expect("INCR");
                assert_eq!(after, before.unwrap_or(0) + 2);
            }
            7 => {
                if let Some(key) = model.keys().next().cloned() {
                    assert_eq!(connection.del::<_, i64>(&key).expect("DEL"), 1);
                    model.remove(&key);
                    assert_eq!(connection.get::<_, Option<Vec<u8>>>(&key).expect("GET"), None);
                }
            }
            _ => {
                if let Some((key, value)) = model.iter().next() {
                    assert_eq!(&connection.get::<_, Vec<u8>>(key).expect("GET"), value);
                }
            }
        }
    }
}

/// The library's synchronous connection follows MOVED for a command of one slot, and hands it to the caller for one that it has split. A
/// leadership may change hands at any time, on a busy machine most of all: do what such a caller does. A read of each key brings its new map.
fn followed<T>(
    connection: &mut ClusterConnection,
    pairs: &[(String, u64)],
    mut command: impl FnMut(&mut ClusterConnection) -> RedisResult<T>,
) -> RedisResult<T> {
    for _ in 0..FOLLOWED_MAX {
        match command(connection) {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::Moved) => {
                for (key, _) in pairs {
                    let _: Option<u64> = connection.get(key)?;
                }
            }
            result => return result,
        }
    }
    command(connection)
}

/// Keys of different slots.
fn scattered(number: u64) -> [(String, u64); SCATTERED] {
    std::array::from_fn(|index| (format!("rs:scattered:{number}:{index}"), number))
}

fn keys_of(pairs: &[(String, u64)]) -> Vec<&str> {
    pairs.iter().map(|(key, _)| key.as_str()).collect()
}

async fn asynchronous(client: &ClusterClient) {
    let mut connection = client.get_async_connection().await.expect("connects");
    let mut random = Random(13);
    for number in 0..OPERATIONS / 4 {
        let (key, value) = (key("rs:async:", &mut random), random.bytes(if number % 100 == 0 { 1 << 20 } else { 64 }));
        let _: () = connection.set(&key, &value).await.expect("SET");
        assert_eq!(connection.get::<_, Vec<u8>>(&key).await.expect("GET"), value);
        // Many at once on one multiplexed connection.
        let (mut left, mut right) = (connection.clone(), connection.clone());
        let (left_key, right_key) = (format!("rs:left:{number}"), format!("rs:right:{number}"));
        let (left, right) =
            tokio::join!(left.incr::<_, _, i64>(&left_key, 1), right.append::<_, _, i64>(&right_key, "xy"));
        assert_eq!((left.expect("INCR"), right.expect("APPEND")), (1, 2));
        assert_eq!(connection.del::<_, i64>(&left_key).await.expect("DEL"), 1);
        match number % 3 {
            0 => {
                let mut pipeline = redis::pipe();
                for index in 0..10 {
                    pipeline.set(format!("{{rs:pipe:{number}}}{index}"), index).ignore();
                }
                for index in 0..10 {
                    pipeline.get(format!("{{rs:pipe:{number}}}{index}"));
                }
                let values: Vec<u64> = pipeline.query_async(&mut connection).await.expect("a pipeline");
                assert_eq!(values, (0..10).collect::<Vec<_>>());
            }
            1 => {
                let (first, second) = (format!("{{rs:async:{number}}}a"), format!("{{rs:async:{number}}}b"));
                let _: () = connection.mset(&[(&first, "1"), (&second, "2")]).await.expect("MSET");
                let values: Vec<String> = connection.mget(&[&first, &second]).await.expect("MGET");
                assert_eq!(values, ["1", "2"]);
            }
            _ => {
                let pairs = scattered(number);
                let _: () = connection.mset(&pairs).await.expect("MSET over slots");
                let values: Vec<u64> = connection.mget(keys_of(&pairs)).await.expect("MGET over slots");
                assert_eq!(values, [number; SCATTERED]);
            }
        }
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let is_load = words.first().is_some_and(|word| word == "load");
    let ports = &words[usize::from(is_load)..];
    assert!(!ports.is_empty(), "usage: redis-rs-check [load] PORT...");
    let nodes = ports.iter().map(|port| format!("redis://127.0.0.1:{port}/"));
    let client = ClusterClient::new(nodes).expect("a client");
    if is_load {
        return load::run(&client);
    }
    sync(&client);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(asynchronous(&client));
    println!("redis-rs: {OPERATIONS} operations synchronous and asynchronous");
}
