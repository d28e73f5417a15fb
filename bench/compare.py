"""Runs the same redis-benchmark --cluster load on Kvorum and on Redis Clusters, interleaved, and prints ratios.

Systems: kvorum (3 nodes, 3 durable replicas, fsync always), redis 3x(1+2) (3 primaries, 6 replicas, nothing on disk) and
redis 3x1 (3 primaries alone). CPU is user + system time of all server processes of a system, from /proc, over the load
alone. Medians over the rounds; the ratio is Kvorum's median to redis 3x(1+2)'s.
"""
import argparse
import csv
import io
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

TICKS = os.sysconf("SC_CLK_TCK")


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

    def pause(self):
        for process in self.processes:
            process.send_signal(signal.SIGSTOP)

    def resume(self):
        for process in self.processes:
            process.send_signal(signal.SIGCONT)

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
            sys.exit(f"compare: {what} did not happen within {seconds} s")
        time.sleep(0.2)


def start_redis(name, directory, base_port, replicas):
    ports = range(base_port, base_port + 3 * (1 + replicas))
    processes = []
    for port in ports:
        node = os.path.join(directory, f"redis-{port}")
        os.makedirs(node)
        command = ["redis-server", "--port", str(port), "--cluster-enabled", "yes", "--dir", node, "--save", "",
                   "--appendonly", "no", "--bind", "127.0.0.1", "--cluster-node-timeout", "15000"]
        processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
    wait_for(lambda: all("PONG" in cli(port, "ping") for port in ports), f"{name} answering")
    addresses = [f"127.0.0.1:{port}" for port in ports]
    subprocess.run(["redis-cli", "--cluster", "create", *addresses, "--cluster-replicas", str(replicas), "--cluster-yes"],
                   check=True, stdout=subprocess.DEVNULL, timeout=120)
    wait_for(lambda: all("cluster_state:ok" in cli(port, "cluster", "info") for port in ports), f"{name} forming")
    time.sleep(2)
    return System(name, base_port, processes)


def start_kvorum(binary, directory, base_port, extra):
    ports = [base_port, base_port + 1, base_port + 2]
    peers = ",".join(f"127.0.0.1:{port}" for port in ports)
    processes = []
    for port in ports:
        log = open(os.path.join(directory, f"kvorum-{port}.log"), "w")
        command = [binary, "server", "--port", str(port), "--data-dir", os.path.join(directory, f"kvorum-{port}"),
                   "--initial-cluster", peers, *extra]
        processes.append(subprocess.Popen(command, stdout=log, stderr=log))
    wait_for(lambda: all("cluster_state:ok" in cli(port, "cluster", "info") for port in ports), "kvorum forming")
    return System("kvorum", base_port, processes)


def load(system, command, pipeline, requests, clients, size, keys):
    before, start = system.cpu_seconds(), time.monotonic()
    run = subprocess.run(
        ["redis-benchmark", "-p", str(system.port), "--cluster", "-t", command, "-n", str(requests), "-P", str(pipeline),
         "-c", str(clients), "-d", str(size), "-r", str(keys), "--csv"],
        capture_output=True, text=True, timeout=600)
    cpu = system.cpu_seconds() - before
    rows = [row for row in csv.DictReader(io.StringIO(run.stdout[run.stdout.find('"test"'):])) if row.get("rps")]
    if run.returncode or not rows:
        sys.exit(f"compare: redis-benchmark failed on {system.name}: {run.stdout[-500:]} {run.stderr[-500:]}")
    row = rows[-1]
    return {"rps": float(row["rps"]), "p50": float(row["p50_latency_ms"]), "p99": float(row["p99_latency_ms"]),
            "cpu_us": cpu * 1e6 / requests, "seconds": time.monotonic() - start}


def errors(system):
    text = ""
    for offset in range(len(system.processes)):
        stats = cli(system.port + offset, "info", "errorstats")
        text += "".join(line + " " for line in stats.splitlines() if line.startswith("errorstat_") and "MOVED" not in line)
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kvorum", required=True)
    parser.add_argument("--kvorum-flags", default="")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2, help="length of one load, roughly")
    parser.add_argument("--pipelines", default="1,16,64")
    parser.add_argument("--commands", default="set,get")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--keys", type=int, default=100000)
    parser.add_argument("--port", type=int, default=21000)
    parser.add_argument("--json")
    options = parser.parse_args()
    directory = tempfile.mkdtemp(prefix="kvorum-compare-")
    systems = []
    try:
        systems.append(start_kvorum(os.path.abspath(options.kvorum), directory, options.port, options.kvorum_flags.split()))
        systems.append(start_redis("redis 3x(1+2)", directory, options.port + 100, 2))
        systems.append(start_redis("redis 3x1", directory, options.port + 200, 0))
        results = measure(options, systems)
    finally:
        for system in systems:
            system.stop()
        shutil.rmtree(directory, ignore_errors=True)
    if options.json:
        with open(options.json, "w") as out:
            json.dump(results, out, indent=1)


def measure(options, systems):
    """Every system is idle, but not stopped, while another is loaded: a paused one would lose its elections."""
    results = {}
    print(f"{options.rounds} interleaved rounds, {options.clients} clients, {options.size}-byte values, {options.keys} keys, "
          f"{os.cpu_count()} cores; medians")
    print(f"{'load':12} {'system':14} {'req/s':>10} {'p50 ms':>8} {'p99 ms':>8} {'cpu us/req':>11} {'req/s ratio':>12} {'cpu ratio':>10}")
    for command in options.commands.split(","):
        for pipeline in map(int, options.pipelines.split(",")):
            runs = {system.name: [] for system in systems}
            requests = {}
            for system in systems:
                probe = load(system, command, pipeline, 20000, options.clients, options.size, options.keys)
                requests[system.name] = max(20000, int(probe["rps"] * options.seconds))
            for _ in range(options.rounds):
                for system in systems:
                    runs[system.name].append(load(system, command, pipeline, requests[system.name], options.clients,
                                                  options.size, options.keys))
            medians = {name: {key: statistics.median(run[key] for run in rows) for key in rows[0]} for name, rows in runs.items()}
            results[f"{command} P={pipeline}"] = medians
            base = medians["redis 3x(1+2)"]
            for name, row in medians.items():
                print(f"{command.upper() + ' P=' + str(pipeline):12} {name:14} {row['rps']:10.0f} {row['p50']:8.3f} {row['p99']:8.3f} "
                      f"{row['cpu_us']:11.2f} {row['rps'] / base['rps']:12.2f} {row['cpu_us'] / max(base['cpu_us'], 1e-9):10.2f}",
                      flush=True)
    for system in systems:
        found = errors(system)
        print(f"errors counted by {system.name}: {found or 'none'}")
    return results


if __name__ == "__main__":
    main()
