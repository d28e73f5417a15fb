//! `kvorum cluster move-slots`: starts moves through any node, then shows how they go until they are over.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use super::client::NodeClient;
use super::status::troubles;
use crate::cluster::{ClusterStatus, GroupStatus, MoveProgress};
use crate::config::HostPort;
use crate::slot::{Slot, Slots};

const REPLY_TIME_MAX: Duration = Duration::from_secs(10);
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// After this a node that does not know of the moves will not.
const SEEN_WAIT_MAX: Duration = Duration::from_secs(5);
/// Looks that may fail in a row: the node may be restarted meanwhile.
const FAILURES_MAX: usize = 20;

/// What was sent between groups, over the whole cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sent {
    keys: u64,
    bytes: u64,
}

type Counts = BTreeMap<(u32, String), Sent>;

#[derive(Debug)]
struct Journey {
    to: u32,
    /// Slots that had to move.
    slots: BTreeSet<u16>,
    /// What they held at first, if all their leaders said so.
    bytes: Option<u64>,
    /// The asked node knows of the moves.
    seen: bool,
    began: Instant,
    sent: Sent,
    last: Counts,
}

pub fn move_slots(node: &HostPort, password: Option<&str>, slots: &str, to: u32) -> Result<String, String> {
    let before = look(node, password)?;
    let there = owned_by(&before, to);
    let going: BTreeSet<u16> = numbers(slots)?.into_iter().filter(|slot| !there.contains(slot)).collect();
    let bytes = size_of(node, password, &going);
    request(node, password, &["CLUSTER", "KVORUM", "MOVE", slots, &to.to_string()])?;
    let mut journey = Journey {
        to,
        slots: going,
        bytes,
        seen: false,
        began: Instant::now(),
        sent: Sent::default(),
        last: sent(&before),
    };
    let terminal = std::io::stdout().is_terminal();
    let mut failures = 0;
    loop {
        match look(node, password) {
            Ok(status) => {
                failures = 0;
                let (line, over) = journey.look(&status);
                if over {
                    return journey.end(&status, terminal);
                }
                print!("{}{line}{}", if terminal { "\r\x1b[K" } else { "" }, if terminal { "" } else { "\n" });
                let _ = std::io::stdout().flush();
            }
            Err(error) if failures == FAILURES_MAX => {
                return Err(format!("{error}; the moves go on, see kvorum cluster status"));
            }
            Err(_) => failures += 1,
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

pub fn cancel(node: &HostPort, password: Option<&str>, slots: &str) -> Result<String, String> {
    let (wanted, before) = (numbers(slots)?, look(node, password)?);
    request(node, password, &["CLUSTER", "KVORUM", "MOVE", slots])?;
    let after = look(node, password);
    let after = after.map_err(|error| format!("cancelled, but how many slots stay cannot be told: {error}"))?;
    Ok(cancelled(&wanted, &before, &after))
}

/// What became of the moves of these slots that were under way before.
fn cancelled(slots: &BTreeSet<u16>, before: &ClusterStatus, after: &ClusterStatus) -> String {
    let own = before.moves.iter().filter(|slot_move| slots.contains(&slot_move.slot));
    let (came, stay): (Vec<_>, Vec<_>) = own
        .filter(|slot_move| is_open(slot_move.state))
        .partition(|slot_move| owned_by(after, slot_move.to).contains(&slot_move.slot));
    let came = match came.len() {
        0 => String::new(),
        count => format!("; {count} more had arrived before that"),
    };
    match stay.len() {
        0 if came.is_empty() => "none of these slots is on its way\n".to_owned(),
        count => format!("cancelled: {count} slot(s) stay where they are{came}\n"),
    }
}

fn is_open(state: MoveProgress) -> bool {
    matches!(state, MoveProgress::Waiting | MoveProgress::Repeating)
}

fn numbers(slots: &str) -> Result<BTreeSet<u16>, String> {
    let parsed = Slots::parse(slots).ok_or_else(|| format!("{slots} is not a list of slots such as 0-99,200"))?;
    Ok(parsed.0.into_iter().map(Slot::get).collect())
}

fn request(node: &HostPort, password: Option<&str>, words: &[&str]) -> Result<String, String> {
    let mut client = NodeClient::connect(node, password, REPLY_TIME_MAX).map_err(|error| error.to_string())?;
    client.request(words).map_err(|error| error.to_string())
}

fn look(node: &HostPort, password: Option<&str>) -> Result<ClusterStatus, String> {
    let reply = request(node, password, &["CLUSTER", "KVORUM", "STATUS"])?;
    serde_json::from_str(&reply).map_err(|error| format!("{node} is not a Kvorum of this version: {error}"))
}

/// Without it the time left is guessed from the slots that are there.
fn size_of(node: &HostPort, password: Option<&str>, slots: &BTreeSet<u16>) -> Option<u64> {
    let listed = slots.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
    let reply = request(node, password, &["CLUSTER", "KVORUM", "SIZE", &listed]).ok()?;
    serde_json::from_str(&reply).ok()?
}

fn owned_by(status: &ClusterStatus, group: u32) -> BTreeSet<u16> {
    let group = status.groups.iter().find(|known| known.id == group);
    group.into_iter().flat_map(|group| &group.slot_ranges).flat_map(|(first, last)| *first..=*last).collect()
}

/// By group and leader, each of which counts for itself; those that did not answer are missing.
fn sent(status: &ClusterStatus) -> Counts {
    let counted = |group: &GroupStatus| {
        let sent = Sent { keys: group.moved_keys?, bytes: group.moved_bytes? };
        Some(((group.id, group.leader.clone()?), sent))
    };
    status.groups.iter().filter_map(counted).collect()
}

impl Journey {
    /// A line on how it goes, and whether it is over.
    fn look(&mut self, status: &ClusterStatus) -> (String, bool) {
        // What a leader had counted when it was first seen is of other moves.
        for (counter, now) in sent(status) {
            let last = self.last.insert(counter, now).unwrap_or(now);
            self.sent.keys += now.keys.saturating_sub(last.keys);
            self.sent.bytes += now.bytes.saturating_sub(last.bytes);
        }
        let own = || status.moves.iter().filter(|slot_move| self.slots.contains(&slot_move.slot));
        let all_there = self.slots.is_subset(&owned_by(status, self.to));
        self.seen |= own().next().is_some() || all_there || self.began.elapsed() > SEEN_WAIT_MAX;
        let left =
            if self.seen { own().filter(|slot_move| is_open(slot_move.state)).count() } else { self.slots.len() };
        let done = self.slots.len() - left;
        let seconds = self.began.elapsed().as_secs_f64().max(0.001);
        let part = self.part(done);
        let rest = if part > 0.0 { format!("{:.0} s", seconds * (1.0 - part) / part) } else { "?".to_owned() };
        let megabytes = self.sent.bytes as f64 / 1e6;
        let all = self.bytes.map_or(String::new(), |bytes| format!(" of about {:.1}", bytes as f64 / 1e6));
        let line = format!(
            "{done} of {} slots moved, {} keys, {megabytes:.1}{all} MB, {:.1} MB/s, {rest} left{}",
            self.slots.len(),
            self.sent.keys,
            megabytes / seconds,
            troubles(status).map(|trouble| format!("; {trouble}")).collect::<String>()
        );
        (line, self.seen && own().next().is_none())
    }

    /// How much of it is done: of the bytes, and without any, of the slots. What is written meanwhile is sent as well.
    fn part(&self, slots_done: usize) -> f64 {
        const NEARLY: f64 = 0.99;
        match self.bytes {
            Some(bytes) if bytes > 0 && slots_done < self.slots.len() => {
                (self.sent.bytes as f64 / bytes as f64).min(NEARLY)
            }
            Some(_) | None => slots_done as f64 / self.slots.len().max(1) as f64,
        }
    }

    fn end(&self, status: &ClusterStatus, terminal: bool) -> Result<String, String> {
        let there = self.slots.intersection(&owned_by(status, self.to)).count();
        let Sent { keys, bytes } = self.sent;
        let (megabytes, seconds) = (bytes as f64 / 1e6, self.began.elapsed().as_secs_f64());
        let told = format!(
            "{}moved {there} of {} slots to group {}: {keys} keys, {megabytes:.1} MB in {seconds:.1} s",
            if terminal { "\r\x1b[K" } else { "" },
            self.slots.len(),
            self.to
        );
        if there == self.slots.len() {
            Ok(format!("{told}\n"))
        } else {
            Err(format!("{told}; the rest stays where it is: it was cancelled, or see `kvorum cluster events`"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::status::example;

    #[test]
    fn the_time_left_is_told_before_the_first_slot_is_there() {
        let mut status = example();
        let mut journey = Journey {
            to: 2,
            slots: [3, 4].into(),
            bytes: Some(40_000_000),
            seen: false,
            began: Instant::now() - Duration::from_secs(10),
            sent: Sent::default(),
            last: sent(&status),
        };
        let told = |journey: &mut Journey, status: &ClusterStatus| journey.look(status).0;
        assert!(
            told(&mut journey, &status)
                .starts_with("0 of 2 slots moved, 0 keys, 0.0 of about 40.0 MB, 0.0 MB/s, ? left")
        );
        (status.groups[1].moved_bytes, status.groups[1].moved_keys) = (Some(10_000_000), Some(7));
        // A leader that counts since long ago is seen for the first time.
        let group = &mut status.groups[0];
        (group.moved_bytes, group.moved_keys) = (None, None);
        told(&mut journey, &status);
        (status.groups[0].moved_bytes, status.groups[0].moved_keys) = (Some(90_000_000), Some(90));
        status.groups[0].leader = Some("another".to_owned());
        let line = told(&mut journey, &status);
        assert!(line.starts_with("0 of 2 slots moved, 7 keys, 10.0 of about 40.0 MB, 1.0 MB/s, 30 s left"), "{line}");
        // A slot that has much written to it.
        status.groups[1].moved_bytes = Some(50_000_000);
        assert!(told(&mut journey, &status).contains("0 s left"));
        journey.bytes = None;
        status.moves[0].state = MoveProgress::Done;
        let line = told(&mut journey, &status);
        assert!(line.starts_with("1 of 2 slots moved, 7 keys, 50.0 MB") && line.contains(" 10 s left"), "{line}");
    }

    #[test]
    fn what_is_cancelled_is_what_was_under_way() {
        let mut before = example();
        before.moves.truncate(1);
        let slot_move = &mut before.moves[0];
        slot_move.state = MoveProgress::Waiting;
        let (slot, to) = (slot_move.slot, slot_move.to);
        let (slots, mut after) = (BTreeSet::from([slot, slot + 1]), before.clone());
        let target = after.groups.iter_mut().find(|group| group.id == to).expect("a group");
        target.slot_ranges.retain(|(first, last)| !(*first..=*last).contains(&slot));
        let told = |after: &ClusterStatus| cancelled(&slots, &before, after);
        assert_eq!(told(&after), "cancelled: 1 slot(s) stay where they are\n");
        let target = after.groups.iter_mut().find(|group| group.id == to).expect("a group");
        target.slot_ranges.push((slot, slot));
        assert_eq!(told(&after), "cancelled: 0 slot(s) stay where they are; 1 more had arrived before that\n");
        assert_eq!(cancelled(&[slot + 1].into(), &before, &after), "none of these slots is on its way\n");
    }
}
