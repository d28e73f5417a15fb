"""Three nodes that are stopped, started and killed in turn, while twenty clients of a cluster library go on."""
import json
import os
import signal
import statistics
import subprocess
import threading
import time

# What is promised, beside what the clients wait for without any fault; and what no single node's end may cost on a busy machine and with a debug
# build, of the clients too.
STOP_MS_PROMISED, STOP_MS_MAX = 100, 2000
KILL_MS_PROMISED, KILL_MS_MAX = 1000, 4000
# Of the processor time that was wanted: a host that takes more makes nodes stand still, elect others and keep nobody's time.
STOLEN_PERCENT_MAX = 25
# For clients to work between two faults.
CALM_S = 1
READY_S = 60


class Host:
    """What the host of a virtual machine takes of its processors, in the seconds in which it took most."""

    def __init__(self):
        self.before, self.most, self.stop = ticks(), 0, threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def watch(self):
        while not self.stop.wait(2):
            (used, stolen), now = self.before, ticks()
            wanted = now[0] - used + now[1] - stolen
            self.most = max(self.most, (now[1] - stolen) * 100 // max(wanted, 1) if wanted > 50 else 0)
            self.before = now

    def keeps_time(self):
        """Ends the watch. Whether bounds on time say something of the nodes."""
        self.stop.set()
        if self.most > STOLEN_PERCENT_MAX:
            print(f"     the host took up to {self.most} % of the processor: no time is held against the nodes", flush=True)
        return self.most <= STOLEN_PERCENT_MAX


def ticks():
    """Used by this machine's processes, and stolen; of all processors, see proc_stat(5)."""
    with open("/proc/stat") as stat:
        fields = list(map(int, stat.readline().split()[1:]))
    return sum(fields[:3]) + sum(fields[5:7]), fields[7]


class Cluster:
    def __init__(self, kvorum, base, directory):
        self.kvorum, self.directory = kvorum, directory
        self.ports = [base, base + 1, base + 2]
        self.nodes = {}
        for port in self.ports:
            self.start(port)
        self.wait_ready()

    def start(self, port):
        peers = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        data = os.path.join(self.directory, f"node-{port}")
        log = open(data + ".log", "a")
        self.nodes[port] = subprocess.Popen([self.kvorum, "server", "--port", str(port), "--data-dir", data, "--initial-cluster", peers],
                                            stdout=log, stderr=subprocess.STDOUT)

    def wait_ready(self):
        deadline = time.monotonic() + READY_S
        while not all(self.is_ready(port) for port in self.ports):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the nodes of {self.directory} did not become ready")
            time.sleep(0.1)

    def is_ready(self, port):
        done = subprocess.run(["redis-cli", "-p", str(port), "CLUSTER", "INFO"], capture_output=True, text=True)
        return "cluster_state:ok" in done.stdout

    def end(self, port, how):
        node = self.nodes.pop(port)
        if how == "SHUTDOWN":
            subprocess.run(["redis-cli", "-p", str(port), "SHUTDOWN"], capture_output=True)
        else:
            node.send_signal(signal.SIGTERM if how == "SIGTERM" else signal.SIGKILL)
        return node.wait(30)

    def close(self):
        for node in self.nodes.values():
            node.kill()
            node.wait()


class Load:
    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def phase(self):
        """What the clients saw since the last call."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the clients ended")
        return json.loads(line)

    def settled(self):
        """The first phase in which the clients do what they are there for."""
        deadline = time.monotonic() + READY_S
        while True:
            time.sleep(CALM_S)
            phase = self.phase()
            if phase["requests"] > 100 or time.monotonic() > deadline:
                return phase

    def last(self):
        """What redis_py_load.py found when it read back all that it had written."""
        self.process.stdin.close()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)


def restart_checks(check, name, cluster, command, faults):
    """`check` prints and counts; `command` starts the clients; `faults` are pairs: how nodes end, and which."""
    load = Load(command)
    try:
        calm = load.settled()
        check(f"{name}: clients work", calm["requests"] > 100 and not calm["errors"], str(calm))
        for how, ports in faults:
            host = Host()
            phases = [restart(check, name, cluster, load, how, port) for port in ports]
            requests = sum(phase["requests"] for phase in phases)
            longest = [phase["longest_ms"] for phase in phases]
            errors = [error for phase in phases for error in phase["errors"]]
            keeps_time = host.keeps_time()
            promised_ms, most_ms = (KILL_MS_PROMISED, KILL_MS_MAX) if how == "SIGKILL" else (STOP_MS_PROMISED, STOP_MS_MAX)
            in_time = statistics.median(longest) < promised_ms + calm["longest_ms"] and max(longest) < most_ms
            check(f"{name}, {how} of {len(ports)} of 3 nodes, one after the other: {requests} requests, {len(errors)} errors, "
                  f"longest {longest} ms; before {calm['longest_ms']} ms", not errors and (in_time or not keeps_time), "\n".join(errors[:5]))
    finally:
        load.close()


def upgrade_checks(check, cluster, command, releases):
    """Each node in turn is stopped and started with the next of the `releases`, so that for a while both are there; in the end all data is read back."""
    load = Load(command)
    try:
        calm = load.settled()
        check("upgrade: clients work", calm["requests"] > 100 and not calm["errors"], str(calm))
        for release in releases:
            cluster.kvorum = release
            phases = [restart(check, "upgrade", cluster, load, "SIGTERM", port) for port in cluster.ports]
            errors = [error for phase in phases for error in phase["errors"]]
            requests = sum(phase["requests"] for phase in phases)
            check(f"upgrade, node by node, to {release}: {requests} requests, {len(errors)} errors, longest {[phase['longest_ms'] for phase in phases]} ms",
                  not errors, "\n".join(errors[:5]))
        last = load.last()
        check(f"upgrade: {last['kept']} values are all there", last["kept"] > 100 and not last["errors"], "\n".join(last["errors"][:5]))
    finally:
        load.close()


def restart(check, name, cluster, load, how, port):
    code = cluster.end(port, how)
    if how != "SIGKILL":
        check(f"{name}: {how} ends a node with 0", code == 0, str(code))
    time.sleep(CALM_S)
    cluster.start(port)
    cluster.wait_ready()
    time.sleep(CALM_S)
    return load.phase()
