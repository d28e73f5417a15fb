"""The stock tool, redis-cli --cluster, changes a cluster while twenty threads of redis-py write, read and check."""
import os
import subprocess
import time

import restarts

SLOTS = 16384
BLOCK = 16
RESHARDED = 320
# A debug build on a busy machine; a client that waited as long would be taken for stuck.
LONGEST_MS_MAX = 5000
# Of what a change of leaders may come across.
TRIES = 3


def tool(*words):
    done = subprocess.run(["redis-cli", "--cluster", *words], capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


def ask(port, *words):
    return subprocess.run(["redis-cli", "-p", str(port), *words], capture_output=True, text=True, timeout=30).stdout.strip()


def slots(port):
    """How many slots each node has, by its id, as one of them sees it."""
    counts = {}
    for line in ask(port, "CLUSTER", "NODES").splitlines():
        fields = line.split(" ")
        ranges = [[int(end) for end in words.split("-")] for words in fields[8:]]
        counts[fields[0]] = sum(words[-1] - words[0] + 1 for words in ranges)
    return counts


def until(condition):
    deadline = time.monotonic() + restarts.READY_S
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return condition()


def spread(ports):
    """Waits until every node leads slots, or for READY_S. A machine that stands still for half a second lets nodes elect others: all slots
    are then led by one or two nodes until the leaderships go home, and redis-benchmark takes a cluster with one such node for none."""
    return until(lambda: len(counts := slots(ports[0])) >= len(ports) and all(counts.values()))


def reshard_checks(check, ports):
    address, target = f"127.0.0.1:{ports[0]}", ask(ports[1], "CLUSTER", "MYID")
    for _ in range(TRIES):
        spread(ports)
        before = slots(ports[0])
        code, out = tool("reshard", address, "--cluster-from", "all", "--cluster-to", target, "--cluster-slots", str(RESHARDED), "--cluster-yes")
        spread(ports)
        got = slots(ports[0])[target] - before[target]
        # The tool names nodes, and the leader of a group has changed meanwhile: said clearly, and to be asked again.
        if code == 0 or "leads no group now" not in out:
            break
    # A block goes as a whole, from each of the two others.
    check(f"redis-cli --cluster reshard of {RESHARDED} slots: {got} moved", code == 0 and RESHARDED <= got < RESHARDED + 2 * BLOCK, out)
    code, out = tool("check", address)
    check("redis-cli --cluster check after it", code == 0 and "[OK] All 16384 slots covered" in out, out)
    for _ in range(TRIES):
        code, out = tool("rebalance", address)
        spread(ports)
        counts = slots(ports[0]).values()
        even = all(abs(count - SLOTS / 3) < SLOTS / 3 * 0.02 + BLOCK for count in counts)
        if code == 0 and even:
            break
    check(f"redis-cli --cluster rebalance: {list(counts)}", code == 0 and even, out)


def node_checks(check, cluster, ports, directory, port):
    address = f"127.0.0.1:{ports[0]}"
    # The tool removes only nodes without slots, and the cluster would begin to give it some.
    ask(ports[0], "CLUSTER", "KVORUM", "PAUSE")
    log = open(os.path.join(directory, f"added-{port}.log"), "a")
    added = subprocess.Popen([cluster.kvorum, "server", "--port", str(port), "--data-dir", os.path.join(directory, f"added-{port}")],
                             stdout=log, stderr=subprocess.STDOUT)
    cluster.nodes[port] = added
    until(lambda: cluster.is_ready(port))
    code, out = tool("add-node", f"127.0.0.1:{port}", address)
    known = until(lambda: all(len(slots(each)) == 4 for each in [*ports, port]))
    check("redis-cli --cluster add-node", code == 0 and known, out)
    code, out = tool("fix", address)
    check("redis-cli --cluster fix finds nothing to mend", code == 0 and "Fixing" not in out, out)
    node = ask(port, "CLUSTER", "MYID")
    # A node that has slots is not deleted by redis-cli, and this one is given none within the moment that it takes.
    ask(ports[0], "CLUSTER", "KVORUM", "RESUME")
    code, out = tool("del-node", address, node)
    ended = until(lambda: added.poll() is not None)
    check("redis-cli --cluster del-node", code == 0 and ended and added.returncode == 0, out)
    code, out = tool("info", address)
    check("redis-cli --cluster info after it", code == 0 and "in 3 masters" in out, out)


def tools_checks(check, cluster, command, directory, port):
    """`port`: of the node that is added and removed."""
    ports = cluster.ports
    load, host = restarts.Load(command), restarts.Host()
    try:
        load.settled()
        reshard_checks(check, ports)
        node_checks(check, cluster, ports, directory, port)
        phase, last, keeps_time = load.phase(), load.last(), host.keeps_time()
        errors = [*phase["errors"], *last["errors"]]
        check(f"redis-py beside redis-cli --cluster: {phase['requests']} requests, {len(errors)} errors, longest {phase['longest_ms']} ms, "
              f"{last['kept']} keys read back", not errors and last["kept"] > 0 and (phase["longest_ms"] < LONGEST_MS_MAX or not keeps_time), "\n".join(errors[:5]))
    finally:
        load.close()
