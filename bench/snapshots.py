"""Latency of SETs under full load with and without snapshots being written, and what a leader keeps for a follower that stands still.

Two clusters of three nodes with the same data: in one the log may grow past what the run writes, so that no snapshot is made; in the other a
snapshot of every group follows every few megabytes. bench/load loads them in turn: redis-benchmark would take a core for itself, and what is left
of two would have no room for a snapshot. With --lagging SECONDS, a follower of the second cluster is stopped (SIGSTOP) under load, and
the memory of the nodes that lead is printed.
"""
import argparse
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from systems import cli, fill, load, start_kvorum


def metric(system, name):
    total = 0.0
    for offset in range(len(system.processes)):
        text = subprocess.run(["curl", "-s", f"http://127.0.0.1:{system.port + offset + 1000}/metrics"], capture_output=True, text=True).stdout
        total += sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? ([\d.e+]+)$", text, re.M))
    return total


def resident_mb(process):
    with open(f"/proc/{process.pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def compare(options, quiet, busy):
    print(f"{options.rounds} interleaved rounds of {options.seconds} s, 50 clients, {options.size}-byte values, {options.keys} keys; medians; ms")
    print(f"{'load':10} {'snapshots':>10} {'req/s':>10} {'p50':>8} {'p99':>8} {'p99.9':>8} {'longest':>8}")
    for pipeline in map(int, options.pipelines.split(",")):
        runs, written = {quiet.name: [], busy.name: []}, {quiet.name: 0.0, busy.name: 0.0}
        for _ in range(options.rounds):
            for system in (quiet, busy):
                before = metric(system, "kvorum_snapshots_total")
                run = load(system, pipeline=pipeline, seconds=options.seconds, clients=50, value_bytes=options.size, keys=options.keys, sets=1, gets=0)
                runs[system.name].append({"rps": run["rps"], **run["all"]})
                written[system.name] += metric(system, "kvorum_snapshots_total") - before
        for name, rows in runs.items():
            row = {key: statistics.median(run[key] for run in rows) for key in rows[0]}
            print(f"{'SET P=' + str(pipeline):10} {written[name]:10.0f} {row['rps']:10.0f} {row['p50']:8.2f} {row['p99']:8.2f} {row['p999']:8.2f} "
                  f"{row['longest']:8.1f}", flush=True)


def own_tag(port):
    """A hash tag whose key slot the node at this port leads."""
    return next(tag for tag in (f"{{{number}}}" for number in range(1000)) if cli(port, "set", tag, "v").strip() == "OK")


def lagging(options, system):
    stopped, start = system.processes[2], time.monotonic()
    command = ["redis-benchmark", "-p", str(system.port), "-n", "100000000", "-P", "4", "-c", "20", "-r", str(options.keys),
               "set", own_tag(system.port) + ":__rand_int__", "v" * options.size]
    loader = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stopped.send_signal(signal.SIGSTOP)
    before = applied(system.port)
    print(f"node {system.port + 2} stands still under load; resident MB of the others, the first of which leads")
    try:
        for second in range(0, options.lagging + 1, max(1, options.lagging // 10)):
            time.sleep(max(0, start + second - time.monotonic()))
            print(f"{second:6} s {resident_mb(system.processes[0]):8.0f} {resident_mb(system.processes[1]):8.0f}", flush=True)
    finally:
        loader.kill()
        stopped.send_signal(signal.SIGCONT)
    entries, behind = applied(system.port) - before, time.monotonic()
    while not applied(system.port) == applied(system.port + 1) == applied(system.port + 2) > 0:
        time.sleep(0.2)
        if time.monotonic() - behind > 120:
            sys.exit("snapshots: the node that stood still did not catch up within 120 s")
    print(f"it was {entries} entries behind and caught up in {time.monotonic() - behind:.1f} s")


def applied(port):
    """Entries that the node has applied, over all groups."""
    return sum(map(int, re.findall(r"^group_\d+:.*applied=(\d+)", cli(port, "info"), re.M)))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kvorum", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--pipelines", default="1,16")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--keys", type=int, default=500000)
    parser.add_argument("--log-bytes-max", default="4mb", help="of the cluster that writes snapshots")
    parser.add_argument("--lagging", type=int, default=0, metavar="SECONDS")
    parser.add_argument("--port", type=int, default=22000)
    options = parser.parse_args()
    directory = tempfile.mkdtemp(prefix="kvorum-snapshots-")
    systems = []
    try:
        for name, log_bytes in (("without", "64gb"), ("with", options.log_bytes_max)):
            place = os.path.join(directory, name)
            os.makedirs(place)
            systems.append(start_kvorum(os.path.abspath(options.kvorum), place, options.port + 100 * len(systems), ["--log-bytes-max", log_bytes]))
            systems[-1].name = name
            fill(systems[-1], options.keys, value_bytes=options.size)
        if options.rounds:
            compare(options, *systems)
        if options.lagging:
            systems.pop(0).stop()
            lagging(options, systems[0])
    finally:
        for system in systems:
            system.stop()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
