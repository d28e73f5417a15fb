//! Twenty clients that SET and GET: ten threads with a synchronous connection each, ten tasks with an asynchronous one each.
//!
//! Every line on standard input ends a phase, and is answered by a line of JSON about it; the end of the input ends the program.

use std::collections::HashMap;
use std::io::BufRead;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redis::cluster::ClusterClient;
use redis::{AsyncCommands, Commands, RedisResult};

use super::Random;

const CLIENTS_PER_KIND: u64 = 10;
const KEYS: u64 = 50;
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Default)]
struct Phase {
    requests: usize,
    longest: Duration,
    errors: Vec<String>,
}

#[derive(Default)]
struct Shared {
    phase: Mutex<Phase>,
    stop: AtomicBool,
}

impl Shared {
    fn note(&self, start: Instant, error: Option<String>) {
        let mut phase = self.phase.lock().expect("no panic under the lock");
        phase.requests += 1;
        phase.longest = phase.longest.max(start.elapsed());
        phase.errors.extend(error);
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Decides what one client does next, and checks what it reads: nobody else writes its keys.
struct Client {
    name: String,
    random: Random,
    values: HashMap<String, u64>,
    shared: Arc<Shared>,
}

impl Client {
    fn new(kind: &str, number: u64, shared: Arc<Shared>) -> Self {
        Self { name: format!("{kind}:{number}"), random: Random(number + 1), values: HashMap::new(), shared }
    }

    fn key(&mut self) -> String {
        format!("{}:{}", self.name, self.random.next(KEYS))
    }

    fn value(&mut self) -> u64 {
        self.random.next(1 << 40)
    }

    fn written(&mut self, start: Instant, key: String, value: u64, result: RedisResult<()>) {
        match &result {
            Ok(()) => self.values.insert(key, value),
            Err(_) => self.values.remove(&key),
        };
        self.shared.note(start, result.err().map(|error| format!("{} SET: {error}", self.name)));
    }

    fn read(&mut self, start: Instant, key: &str, result: RedisResult<Option<u64>>) {
        let error = match result {
            Ok(found) => {
                let wrong = self.values.get(key).filter(|value| found != Some(**value));
                wrong.map(|value| format!("{} GET: {found:?} instead of {value}", self.name))
            }
            Err(error) => Some(format!("{} GET: {error}", self.name)),
        };
        self.shared.note(start, error);
    }
}

fn run_sync(client: &ClusterClient, mut own: Client) {
    let mut connection = client.get_connection().expect("connects");
    while !own.shared.stopped() {
        let (key, value) = (own.key(), own.value());
        let start = Instant::now();
        let result = connection.set(&key, value);
        own.written(start, key, value, result);
        std::thread::sleep(PAUSE);
        let (key, start) = (own.key(), Instant::now());
        let result = connection.get(&key);
        own.read(start, &key, result);
        std::thread::sleep(PAUSE);
    }
}

async fn run_async(client: ClusterClient, mut own: Client) {
    let mut connection = client.get_async_connection().await.expect("connects");
    while !own.shared.stopped() {
        let (key, value) = (own.key(), own.value());
        let start = Instant::now();
        let result = connection.set(&key, value).await;
        own.written(start, key, value, result);
        tokio::time::sleep(PAUSE).await;
        let (key, start) = (own.key(), Instant::now());
        let result = connection.get(&key).await;
        own.read(start, &key, result);
        tokio::time::sleep(PAUSE).await;
    }
}

pub fn run(client: &ClusterClient) {
    let shared = Arc::new(Shared::default());
    let mut threads = Vec::new();
    for number in 0..CLIENTS_PER_KIND {
        let (client, own) = (client.clone(), Client::new("rs:sync", number, shared.clone()));
        threads.push(std::thread::spawn(move || run_sync(&client, own)));
    }
    let (tasks_client, tasks_shared) = (client.clone(), shared.clone());
    threads.push(std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let task = |number| {
                tokio::spawn(run_async(tasks_client.clone(), Client::new("rs:async", number, tasks_shared.clone())))
            };
            let tasks: Vec<_> = (0..CLIENTS_PER_KIND).map(task).collect();
            for task in tasks {
                task.await.expect("no client panics");
            }
        });
    }));
    for line in std::io::stdin().lock().lines() {
        line.expect("a line");
        let phase = std::mem::take(&mut *shared.phase.lock().expect("no panic under the lock"));
        let errors: Vec<String> = phase.errors.iter().map(|error| format!("{error:?}")).collect();
        println!(
            r#"{{"requests": {}, "longest_ms": {}, "errors": [{}]}}"#,
            phase.requests,
            phase.longest.as_millis(),
            errors.join(", ")
        );
    }
    shared.stop.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().expect("no client panics"));
}
