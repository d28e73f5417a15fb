//! `kvorum cluster add-node`, `remove-node`, `replace-node`, `rebalance`, `pause-rebalance`, `resume-rebalance` and `events`.
//!
//! Any member can be asked. What is asked for is written down by the cluster, which then sees to it by itself: these commands only watch, and
//! one that is stopped, or loses its node, changes nothing.

use std::io::Write as _;
use std::time::{Duration, Instant};

use super::client::{ClientError, NodeClient};
use super::status::{PAUSED, held, hindrance};
use crate::clock::Timestamp;
use crate::cluster::{ClusterStatus, Event, NodeState};
use crate::config::HostPort;
use crate::rebalance::Plan;

/// A proposal may have to wait for an election.
const REPLY_TIME_MAX: Duration = Duration::from_secs(15);
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Without any change for so long, the operator is told where to look.
const STALL: Duration = Duration::from_secs(30);
/// No member answers for so long: nothing can be watched any more.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const JOIN_TIME_MAX: Duration = Duration::from_secs(60);

/// Asks one member, and if that is gone another that it has told of.
pub struct Members {
    addresses: Vec<HostPort>,
    password: Option<String>,
}

impl Members {
    pub fn new(node: HostPort, password: Option<String>) -> Self {
        Self { addresses: vec![node], password }
    }

    /// `CLUSTER KVORUM` with these words, of the node that was named.
    fn ask(&self, words: &[&str]) -> Result<String, ClientError> {
        ask_at(&self.addresses[0], self.password.as_deref(), words)
    }

    fn order(&self, words: &[&str]) -> Result<(), String> {
        self.ask(words).map(|_| ()).map_err(|error| match error {
            ClientError::Refused { message, .. } => message.strip_prefix("ERR ").unwrap_or(&message).to_owned(),
            other => other.to_string(),
        })
    }

    /// From whoever answers first.
    fn status(&mut self) -> Result<ClusterStatus, String> {
        let mut last = String::new();
        for address in self.addresses.clone() {
            let answer = ask_at(&address, self.password.as_deref(), &["STATUS"]).map_err(|error| error.to_string());
            let status = answer.and_then(|text| parse::<ClusterStatus>(&address, &text));
            match status {
                Ok(status) => {
                    let known = status.nodes.iter().filter_map(|node| node.address.parse().ok());
                    self.addresses.truncate(1);
                    self.addresses.extend(known);
                    return Ok(status);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

fn ask_at(address: &HostPort, password: Option<&str>, words: &[&str]) -> Result<String, ClientError> {
    let mut client = NodeClient::connect(address, password, REPLY_TIME_MAX)?;
    client.request(&[&["CLUSTER", "KVORUM"], words].concat())
}

fn parse<T: serde::de::DeserializeOwned>(node: &HostPort, text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| format!("{node} is not a Kvorum of this version: {error}"))
}

/// One line to standard output, at once. Nobody may be reading any more: that is no reason to stop.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

pub fn events(members: &Members, json: bool) -> Result<String, String> {
    let text = members.ask(&["EVENTS"]).map_err(|error| error.to_string())?;
    let events: Vec<Event> = parse(&members.addresses[0], &text)?;
    if json {
        return Ok(serde_json::to_string_pretty(&events).expect("events have only string keys"));
    }
    if events.is_empty() {
        return Ok("Nothing was decided yet.\n".to_owned());
    }
    let line = |event: &Event| {
        let why = if event.why.is_empty() { String::new() } else { format!(", because {}", event.why) };
        format!("{}  {}{why}\n", utc(event.at), event.what)
    };
    Ok(events.iter().map(line).collect())
}

pub fn pause(members: &Members) -> Result<String, String> {
    members.order(&["PAUSE"])?;
    Ok("Paused: what moves now is finished, nothing else begins. `kvorum cluster resume-rebalance` ends it.\n"
        .to_owned())
}

pub fn resume(members: &Members) -> Result<String, String> {
    members.order(&["RESUME"])?;
    Ok("Rebalancing goes on by itself; `kvorum cluster rebalance --dry-run` shows what is to be done.\n".to_owned())
}

/// Shows the plan; then, unless that was all, watches it being carried out.
pub fn rebalance(members: &Members, dry_run: bool) -> Result<String, String> {
    // Asked before: it also lets go of what was placed by hand.
    if !dry_run && plan(members)?.paused {
        return Err(PAUSED.to_owned());
    }
    if !dry_run {
        members.order(&["EVEN"])?;
    }
    let plan = plan(members)?;
    let mut text = plan_text(&plan);
    if plan.paused {
        text.push_str(&format!("{PAUSED}\n"));
    }
    if let Some(held) = held(plan.held_slots, &plan.held_empty).filter(|_| dry_run) {
        text.push_str(&format!("{held}; this plan is what that does.\n"));
    }
    if dry_run || (plan.steps.is_empty() && !plan.is_under_way()) {
        return Ok(text);
    }
    if plan.paused {
        return Err(text);
    }
    text.push_str("The cluster does this by itself; this command only watches, and may be stopped.");
    say(&text);
    let mut progress = Progress::default();
    loop {
        std::thread::sleep(LOOK_INTERVAL);
        match self::plan(members) {
            Ok(plan) if plan.steps.is_empty() && !plan.is_under_way() => return Ok("Done.\n".to_owned()),
            Ok(plan) => progress.tell(&format!("{} step(s) left{}", plan.steps.len(), under_way(&plan))),
            Err(error) => progress.silent(&error)?,
        }
    }
}

fn plan(members: &Members) -> Result<Plan, String> {
    let text = members.ask(&["PLAN"]).map_err(|error| error.to_string())?;
    parse(&members.addresses[0], &text)
}

fn plan_text(plan: &Plan) -> String {
    if plan.steps.is_empty() {
        let more = if plan.is_under_way() { "Nothing more" } else { "Nothing" };
        return format!("{more} is to be moved{}.\n", under_way(plan));
    }
    let numbered = plan.steps.iter().zip(1..);
    let mut text: String =
        numbered.map(|(step, number)| format!("{number:>4}. {}, because {}\n", step.what, step.why)).collect();
    if plan.is_under_way() {
        text.push_str(&format!("{} step(s) to come{}.\n", plan.steps.len(), under_way(plan)));
    }
    text
}

fn under_way(plan: &Plan) -> String {
    match (plan.moving_slots, plan.moving_groups) {
        (0, 0) => String::new(),
        (slots, 0) => format!("; {slots} slot(s) are on their way"),
        (0, groups) => format!("; {groups} group(s) have a replica on its way"),
        (slots, groups) => format!("; {slots} slot(s) and replicas of {groups} group(s) are on their way"),
    }
}

/// Takes in a node that is alone and empty.
pub fn add_node(mut members: Members, address: &HostPort) -> Result<String, String> {
    let known = members.status()?.nodes.into_iter().find(|node| node.address == address.to_string());
    if let Some(node) = known.filter(|node| matches!(node.state, NodeState::Up | NodeState::Full)) {
        return Ok(format!("{address} is a member already, node {}.\n", node.id));
    }
    members.order(&["ADD", &address.to_string()])?;
    let asked = Instant::now();
    say(&format!("{address} is asked to join; it starts again as a member."));
    loop {
        let status = members.status();
        let joined = status.is_ok_and(|status| {
            status.nodes.iter().any(|node| node.address == address.to_string() && node.state == NodeState::Up)
        });
        if joined {
            return Ok(format!(
                "{address} is a member. Replicas and leaderships move to it by themselves: see `kvorum cluster events`.\n"
            ));
        }
        if asked.elapsed() > JOIN_TIME_MAX {
            return Err(format!("{address} has not joined within {} s: its log says why", JOIN_TIME_MAX.as_secs()));
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

pub fn remove_node(mut members: Members, node: &str, force: bool) -> Result<String, String> {
    let status = members.status()?;
    let words: &[&str] = if force { &["REMOVE", node, "force"] } else { &["REMOVE", node] };
    members.order(words)?;
    watch_leaving(members, &status, node)
}

/// Takes back that the node is to leave.
pub fn keep_node(members: Members, node: &str) -> Result<String, String> {
    members.order(&["REMOVE", node, "cancel"])?;
    Ok(format!("{node} stays. What it has given up comes back to it by itself: see `kvorum cluster events`.\n"))
}

pub fn replace_node(mut members: Members, old: &str, new: &str) -> Result<String, String> {
    let status = members.status()?;
    let named = |name: &str| status.nodes.iter().find(|node| node.address == name || node.id.starts_with(name));
    if named(old).is_some_and(|node| named(new).is_some_and(|other| other.id == node.id)) {
        return Err(format!("{old} cannot take its own place: name the node to go, then one that has just joined"));
    }
    members.order(&["REPLACE", old, new])?;
    watch_leaving(members, &status, old)
}

/// `node` names one of the nodes of `before`, as the cluster has understood it.
fn watch_leaving(mut members: Members, before: &ClusterStatus, node: &str) -> Result<String, String> {
    let is_named = |known: &&crate::cluster::NodeStatus| known.address == node || known.id.starts_with(node);
    let Some(leaving) = before.nodes.iter().find(is_named) else {
        return Ok("It has left the cluster already.\n".to_owned());
    };
    let (id, address) = (leaving.id.clone(), leaving.address.clone());
    say(&format!("{address} leaves by itself from here on; this command only watches, and may be stopped."));
    let (mut progress, mut stays) = (Progress::default(), Stays::default());
    loop {
        match members.status() {
            Ok(status) if status.nodes.iter().all(|node| node.id != id) => {
                return Ok(format!(
                    "{address} has left the cluster; its process ends by itself, now or when it comes back.\n"
                ));
            }
            Ok(status) if stays.heard(leaves(&status, &id), status.epoch) => {
                return Err(format!("{address} is to stay after all: somebody has taken it back"));
            }
            // One that has left goes by what it knew last.
            Ok(status) if status.asked == id => progress.silent("only the leaving node answers")?,
            Ok(status) => progress.tell(&leaving_text(&status, &id, &address)),
            Err(error) => progress.silent(&error)?,
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// As the asked node knows.
fn leaves(status: &ClusterStatus, id: &str) -> bool {
    status.nodes.iter().any(|node| node.id == id && node.leaves)
}

fn leaving_text(status: &ClusterStatus, id: &str, address: &str) -> String {
    let data = || status.groups.iter().filter(|group| group.id != 0);
    let leads = data().filter(|group| group.leader.as_deref() == Some(id)).count();
    let replicas = data().filter(|group| group.replicas.iter().any(|replica| replica.node == id)).count();
    let waits = hindrance(status, id).map(|hindrance| format!("; {hindrance}")).unwrap_or_default();
    format!("{address}: {replicas} replica(s) left, leads {leads} group(s){waits}")
}

/// Whether a removal was taken back: in a later epoch than that in which the node was last seen to leave.
#[derive(Default)]
struct Stays(Option<u64>);

impl Stays {
    fn heard(&mut self, leaves: bool, epoch: u64) -> bool {
        if leaves {
            self.0 = self.0.max(Some(epoch));
        }
        !leaves && self.0.is_some_and(|left| epoch > left)
    }
}

/// Tells what has changed, and when nothing has for long.
struct Progress {
    last: String,
    changed: Instant,
    heard: Instant,
}

impl Default for Progress {
    fn default() -> Self {
        Self { last: String::new(), changed: Instant::now(), heard: Instant::now() }
    }
}

impl Progress {
    fn tell(&mut self, text: &str) {
        self.heard = Instant::now();
        if self.last != text {
            say(text);
            (self.last, self.changed) = (text.to_owned(), self.heard);
        } else if self.changed.elapsed() > STALL {
            say("Nothing has changed for a while: `kvorum cluster status` and `kvorum cluster events` may say why.");
            self.changed = self.heard;
        }
    }

    /// Err when that has lasted for too long.
    fn silent(&mut self, why: &str) -> Result<(), String> {
        if self.heard.elapsed() < SILENCE_MAX {
            return Ok(());
        }
        Err(format!("nobody has answered for {} s ({why}); what was begun goes on by itself", SILENCE_MAX.as_secs()))
    }
}

/// `2026-01-31T12:00:00Z`. Howard Hinnant's days-from-civil, backwards.
fn utc(at: Timestamp) -> String {
    let seconds = at.as_ms().div_euclid(1000);
    let (days, time) = (seconds.div_euclid(86_400) + 719_468, seconds.rem_euclid(86_400));
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", time / 3600, time / 60 % 60, time % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::status::example;
    use crate::rebalance::PlannedStep;

    #[test]
    fn times_are_written_as_dates() {
        let table = [
            (0, "1970-01-01T00:00:00Z"),
            (951_827_696_123, "2000-02-29T12:34:56Z"),
            (1_798_761_599_000, "2026-12-31T23:59:59Z"),
            (-1000, "1969-12-31T23:59:59Z"),
        ];
        for (ms, expected) in table {
            assert_eq!(utc(Timestamp(ms)), expected);
        }
    }

    #[test]
    fn what_is_left_to_move_is_counted() {
        let status = example();
        let id = status.nodes[0].id.clone();
        let waits = "it waits for a leader of group 2";
        assert_eq!(leaving_text(&status, &id, "a:1"), format!("a:1: 2 replica(s) left, leads 1 group(s); {waits}"));
    }

    #[test]
    fn a_plan_is_a_numbered_list_with_reasons() {
        let step = PlannedStep { what: "a replica moves".to_owned(), why: "it is dark".to_owned() };
        let steps = vec![step.clone(), step];
        let plan = Plan { paused: false, held_slots: 0, held_empty: vec![], moving_slots: 0, moving_groups: 0, steps };
        assert_eq!(plan_text(&plan).lines().last(), Some("   2. a replica moves, because it is dark"));
        let late = Plan { moving_slots: 7, ..plan.clone() };
        assert_eq!(plan_text(&late).lines().last(), Some("2 step(s) to come; 7 slot(s) are on their way."));
        let late = Plan { steps: vec![], moving_slots: 7, moving_groups: 1, ..plan };
        let expected = "Nothing more is to be moved; 7 slot(s) and replicas of 1 group(s) are on their way.\n";
        assert_eq!(plan_text(&late), expected);
        let nothing = Plan { moving_slots: 0, moving_groups: 0, ..late };
        assert_eq!(plan_text(&nothing), "Nothing is to be moved.\n");
    }

    #[test]
    fn a_removal_was_taken_back_when_a_later_topology_knows_of_none() {
        let told = |looks: &[(bool, u64)]| {
            let mut stays = Stays::default();
            looks.iter().any(|(leaves, epoch)| stays.heard(*leaves, *epoch))
        };
        assert!(!told(&[(false, 7), (false, 8)]), "it is not known yet");
        assert!(!told(&[(false, 7), (true, 8), (false, 7), (true, 9)]), "a node that is behind");
        assert!(told(&[(true, 8), (false, 7), (false, 9)]));
    }
}
