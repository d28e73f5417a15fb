"""The servers that the benchmarks compare, started on this machine, and the load on them (bench/load).

Ports of clients end below 22,768: those of peers, 10,000 above, must not be of the range that the kernel gives to outgoing connections.
"""
import atexit
import json
import os
import signal
import subprocess
import sys
import time

TICKS = os.sysconf("SC_CLK_TCK")
HERE = os.path.dirname(os.path.abspath(__file__))


STARTED = []


@atexit.register
def end_all():
    """Also of a system that did not come up."""
    for process in STARTED:
        if process.poll() is None:
            process.kill()


def start_process(command, log):
    STARTED.append(subprocess.Popen(command, stdout=log, stderr=None if log is subprocess.DEVNULL else log))
    return STARTED[-1]


class System:
    """A running cluster: its name, its client port and its server processes."""

    def __init__(self, name, port, processes):
        self.name, self.port, self.processes = name, port, processes

    def cpu_seconds(self):
        total = 0
        for process in self.processes:
            with open(f"/proc/{process.pid}/stat") as stat:
                fields = stat.read().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def resident_bytes(self):
        total = 0
        for process in self.processes:
            with open(f"/proc/{process.pid}/statm") as statm:
                total += int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return total

    def stop(self):
        for process in self.processes:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()


def cli(port, *words):
    return subprocess.run(["redis-cli", "-p", str(port), *words], capture_output=True, text=True, timeout=60).stdout


def wait_for(condition, what, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"bench: {what} did not happen within {seconds} s")
        time.sleep(0.05)


MEMORY_ONLY = ["--save", "", "--appendonly", "no"]
# Rewrites of the append-only file would only slow Redis down, so that it writes none here.
FSYNC_ALWAYS = ["--save", "", "--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0"]


def start_redis_node(directory, port, flags):
    node = os.path.join(directory, f"redis-{port}")
    os.makedirs(node, exist_ok=True)
    command = ["redis-server", "--port", str(port), "--dir", node, "--bind", "127.0.0.1", *flags]
    return start_process(command, subprocess.DEVNULL)


def start_redis(name, directory, port, flags=MEMORY_ONLY):
    """One Redis, in no cluster unless the flags say so."""
    process = start_redis_node(directory, port, flags)
    wait_for(lambda: "PONG" in cli(port, "ping"), f"{name} answering")
    return System(name, port, [process])


def start_redis_cluster(name, directory, base_port, replicas, flags=MEMORY_ONLY):
    ports = range(base_port, base_port + 3 * (1 + replicas))
    cluster = ["--cluster-enabled", "yes", "--cluster-node-timeout", "15000"]
    processes = [start_redis_node(directory, port, [*cluster, *flags]) for port in ports]
    wait_for(lambda: all("PONG" in cli(port, "ping") for port in ports), f"{name} answering")
    addresses = [f"127.0.0.1:{port}" for port in ports]
    subprocess.run(["redis-cli", "--cluster", "create", *addresses, "--cluster-replicas", str(replicas), "--cluster-yes"],
                   check=True, stdout=subprocess.DEVNULL, timeout=120)
    wait_for(lambda: all("cluster_state:ok" in cli(port, "cluster", "info") for port in ports), f"{name} forming")
    if replicas:
        connected = f"connected_slaves:{replicas}"
        wait_for(lambda: all(connected in cli(port, "info", "replication") for port in ports[:3]), f"{name}'s replicas connecting")
    return System(name, base_port, processes)


def start_kvorum(binary, directory, base_port, extra, nodes=3):
    """On the same directory again, what was there comes back."""
    ports = range(base_port, base_port + nodes)
    peers = ",".join(f"127.0.0.1:{port}" for port in ports)
    processes = []
    for port in ports:
        log = open(os.path.join(directory, f"kvorum-{port}.log"), "a")
        command = [binary, "server", "--port", str(port), "--data-dir", os.path.join(directory, f"kvorum-{port}"),
                   *(["--initial-cluster", peers] if nodes > 1 else []), *extra]
        processes.append(start_process(command, log))
    wait_for(lambda: all("cluster_state:ok" in cli(port, "cluster", "info") for port in ports), "kvorum forming")
    return System("kvorum", base_port, processes)


def load_binary(built=[]):
    """Built when it is first asked for."""
    if not built:
        target = os.path.join(os.environ.get("CARGO_TARGET_DIR") or os.path.join(HERE, "../target"), "load")
        subprocess.run(["cargo", "build", "--release", "--quiet", "--manifest-path", os.path.join(HERE, "load/Cargo.toml"),
                        "--target-dir", target], check=True)
        built.append(os.path.join(target, "release/kvorum-load"))
    return built[0]


def run_load(system, flags):
    words = [word for name, value in flags.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return subprocess.run([load_binary(), "--port", str(system.port), *words], capture_output=True, text=True, timeout=900)


def load(system, **flags):
    """What `kvorum-load` told, with the servers' CPU per request; `flags` are its own, with _ for -."""
    before = system.cpu_seconds()
    run = run_load(system, flags)
    cpu = system.cpu_seconds() - before
    if run.returncode:
        sys.exit(f"bench: {flags} failed on {system.name}: {run.stderr[-500:]}")
    result = json.loads(run.stdout)
    if result["failed"] or result["missing"]:
        print(f"bench: {result['failed']} errors of {system.name} ({result['failure']}), {result['missing']} keys missing", file=sys.stderr)
    result["cpu_us"] = cpu * 1e6 / max(1, result["requests"])
    return result


def redis_benchmark(system, command, pipeline, seconds, clients, size, keys):
    """The same of redis-benchmark, which counts requests, not seconds: a short run first says how many those are."""
    def run(requests):
        words = ["redis-benchmark", "-p", str(system.port), *(["--cluster"] if len(system.processes) > 1 else []), "-t", command, "-n",
                 str(requests), "-P", str(pipeline), "-c", str(clients), "-d", str(size), "-r", str(keys), "--csv"]
        run = subprocess.run(words, capture_output=True, text=True, timeout=900)
        if run.returncode:
            sys.exit(f"bench: redis-benchmark failed on {system.name}: {run.stderr[-500:]}")
        _, rps, _, _, p50, _, p99, _ = (word.strip('"') for word in run.stdout.strip().splitlines()[-1].split(","))
        return {"rps": float(rps), "p50": float(p50), "p99": float(p99)}

    requests = max(1000, int(run(20_000)["rps"] * seconds))
    before = system.cpu_seconds()
    result = run(requests)
    result["cpu_us"] = (system.cpu_seconds() - before) * 1e6 / requests
    return result


def fill(system, keys, **flags):
    """Sets each key; again, if leaders moved meanwhile."""
    flags.update({"fill": "yes", "keys": keys, "clients": 12, "pipeline": flags.get("pipeline", 64)})
    wait_for(lambda: run_load(system, flags).returncode == 0, f"filling {system.name}", 300)
