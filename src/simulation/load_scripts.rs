//! Scripts of slots that move because of what they are asked for.

use std::collections::BTreeMap;

use crate::cluster::GroupId;
use crate::server::SimulatedConnection;
use crate::simulation::client::put;
use crate::simulation::scenario::Scenario;
use crate::simulation::scripts::FIRST;
use crate::simulation::world::World;
use crate::slot::{KeySlot, SLOT_COUNT, Slot};

/// Four slots of one group get nearly all requests.
pub const HOT_SLOTS: Scenario = Scenario { name: "hot-slots", disturb: hot_slots, ..Scenario::drawn() };

const HOT: usize = 4;
const TICK_MS: u64 = 10;
/// GETs of each hot key in a tick; there is one of the key that pipelines begin with. Together more than are too few to count.
const GETS: usize = 3;
/// The scheduler waits for a minute before it believes what it sees.
const EVEN_MS_MAX: u64 = 150_000;
/// It evens out to a tenth of the share; what it counts is a sample.
const UNEVEN_MAX: f64 = 0.15;

fn hot_slots(world: &mut World) -> Result<(), String> {
    world.rest()?;
    let slots: Vec<Slot> = Slot::all().filter(|slot| world.owner(*slot) == Some(FIRST)).take(1 + HOT).collect();
    let keys: Vec<String> = slots.iter().map(|slot| key_of(*slot)).collect();
    if is_even(world, &slots) {
        return Err("the load is even to begin with".to_owned());
    }
    let until = world.now_ms + EVEN_MS_MAX;
    while world.now_ms < until {
        ask(world, &keys);
        world.idle(TICK_MS)?;
        if is_even(world, &slots) && world.moves() == 0 {
            world.count("uneven load");
            return Ok(());
        }
    }
    Err(format!("the load is not even after {EVEN_MS_MAX} ms: {:?}", loads(world, &slots)))
}

fn key_of(slot: Slot) -> String {
    let keys = (0..).map(|number| format!("hot{number}"));
    let mut of_slot = keys.filter(|key| KeySlot::of_key(key.as_bytes()).slot() == slot);
    of_slot.next().expect("there are keys enough")
}

/// Who leads a key's group is asked for it, in one pipeline with others. The first key leads each pipeline that it is in.
fn ask(world: &World, keys: &[String]) {
    let mut pipelines: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
    for (position, key) in keys.iter().enumerate() {
        let owner = world.owner(KeySlot::of_key(key.as_bytes()).slot());
        let Some(leader) = owner.and_then(|group| world.leader(group)) else { continue };
        let gets = if position == 0 { 1 } else { GETS };
        (0..gets).for_each(|_| put(pipelines.entry(leader).or_default(), &[b"GET", key.as_bytes()]));
    }
    for (node, pipeline) in pipelines {
        let Some(shared) = world.machines[node].shared() else { continue };
        world.machines[node].spawn(async move { drop(SimulatedConnection::open(shared).turn(&pipeline).await) });
    }
}

/// What each group carries: of the slots and of the requests, in equal parts.
fn loads(world: &World, slots: &[Slot]) -> BTreeMap<GroupId, f64> {
    let all_gets = (1 + HOT * GETS) as f64;
    let mut loads = BTreeMap::new();
    for slot in Slot::all() {
        let gets = match slots.iter().position(|asked| *asked == slot) {
            Some(0) => 1,
            Some(_) => GETS,
            None => 0,
        };
        let weight = (1.0 / SLOT_COUNT as f64 + gets as f64 / all_gets) / 2.0;
        *loads.entry(world.owner(slot).expect("some node runs")).or_default() += weight;
    }
    loads
}

fn is_even(world: &World, slots: &[Slot]) -> bool {
    let loads = loads(world, slots);
    let share = 1.0 / loads.len() as f64;
    loads.values().all(|load| (load / share - 1.0).abs() <= UNEVEN_MAX)
}
