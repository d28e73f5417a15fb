"""Runs the same loads on Kvorum and on Redis in turn, interleaved, and prints medians over the rounds, and ratios.

Clusters: kvorum (3 nodes, 3 durable replicas, fsync always), redis 3x(1+2) (3 primaries, 6 replicas, nothing on disk), redis 3x1
(3 primaries alone, nothing on disk) and redis 3x1 fsync (appendonly yes, appendfsync always). With --single: one Kvorum node, one Redis with
nothing on disk and one with appendfsync always. CPU is user + system time of all server processes of a system, from /proc, over the load
alone. Ratios are to redis 3x(1+2); with --single to the Redis that does as much: reads to the one in memory, writes to the one that syncs.
"""
import argparse
import json
import os
import shutil
import statistics
import tempfile

import plot
from systems import FSYNC_ALWAYS, fill, load, redis_benchmark, start_kvorum, start_redis, start_redis_cluster

MIXES = {"set": {"sets": 1, "gets": 0}, "get": {"sets": 0, "gets": 1}, "mixed": {"sets": 1, "gets": 10}}
CLUSTER_LOADS = "set:1,set:16,set:64,get:1,get:16,get:64,mixed:16"
SINGLE_LOADS = "get:1,get:16,set:1,set:16"


def start(options, directory, systems):
    binary, flags, port = os.path.abspath(options.kvorum), options.kvorum_flags.split(), options.port
    systems.append(start_kvorum(binary, directory, port, flags, nodes=1 if options.single else 3))
    if options.single:
        systems.append(start_redis("redis", directory, port + 100))
        systems.append(start_redis("redis fsync", directory, port + 200, FSYNC_ALWAYS))
    else:
        systems.append(start_redis_cluster("redis 3x(1+2)", directory, port + 100, 2))
        systems.append(start_redis_cluster("redis 3x1", directory, port + 200, 0))
        systems.append(start_redis_cluster("redis 3x1 fsync", directory, port + 300, 0, FSYNC_ALWAYS))


def base(options, command):
    if not options.single:
        return "redis 3x(1+2)"
    return "redis" if command == "get" else "redis fsync"


def figures(system, command, pipeline, options):
    if options.tool == "redis-benchmark":
        return redis_benchmark(system, command, pipeline, options.seconds, options.clients, options.size, options.keys)
    run = load(system, pipeline=pipeline, seconds=options.seconds, clients=options.clients, value_bytes=options.size,
               keys=options.keys, **MIXES[command])
    return {"rps": run["rps"], "p50": run["all"]["p50"], "p99": run["all"]["p99"], "cpu_us": run["cpu_us"]}


def measure(options, systems):
    """Every system is idle, but not stopped, while another is loaded: a paused one would lose its elections."""
    for system in systems:
        fill(system, options.keys, value_bytes=options.size)
    results = {}
    print(f"{options.rounds} interleaved rounds of {options.seconds} s, {options.clients} clients, {options.size}-byte values, "
          f"{options.keys} keys, {os.cpu_count()} cores; medians")
    print(f"{'load':12} {'system':16} {'req/s':>10} {'p50 ms':>8} {'p99 ms':>8} {'cpu us/req':>11} {'req/s ratio':>12} {'cpu ratio':>10}")
    for command, pipeline in (word.split(":") for word in options.loads.split(",")):
        runs = {system.name: [] for system in systems}
        for _ in range(options.rounds):
            for system in systems:
                runs[system.name].append(figures(system, command, int(pipeline), options))
        medians = {name: {key: statistics.median(run[key] for run in rows) for key in rows[0]} for name, rows in runs.items()}
        reference = medians[base(options, command)]
        title = f"{command.upper()} P={pipeline}"
        for name, row in medians.items():
            row["rps_ratio"], row["cpu_ratio"] = row["rps"] / reference["rps"], row["cpu_us"] / max(reference["cpu_us"], 1e-9)
            print(f"{title:12} {name:16} {row['rps']:10.0f} {row['p50']:8.3f} {row['p99']:8.3f} {row['cpu_us']:11.2f} "
                  f"{row['rps_ratio']:12.2f} {row['cpu_ratio']:10.2f}", flush=True)
        results[title] = medians
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kvorum", required=True)
    parser.add_argument("--kvorum-flags", default="")
    parser.add_argument("--single", action="store_true", help="one node beside one Redis")
    parser.add_argument("--tool", choices=["kvorum-load", "redis-benchmark"], default="kvorum-load",
                        help="what makes the load; redis-benchmark has no mixed one, and takes twice the CPU [kvorum-load]")
    parser.add_argument("--loads", help=f"command:pipeline,... [{CLUSTER_LOADS}; with --single {SINGLE_LOADS}]")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2, help="length of one load")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--keys", type=int, default=100000)
    parser.add_argument("--port", type=int, default=21000)
    parser.add_argument("--json", help="write the figures there")
    parser.add_argument("--plot", help="draw the figures there, as SVG")
    options = parser.parse_args()
    options.loads = options.loads or (SINGLE_LOADS if options.single else CLUSTER_LOADS)
    if options.tool == "redis-benchmark":
        options.loads = ",".join(word for word in options.loads.split(",") if not word.startswith("mixed"))
    directory = tempfile.mkdtemp(prefix="kvorum-compare-")
    systems = []
    try:
        start(options, directory, systems)
        results = measure(options, systems)
    finally:
        for system in systems:
            system.stop()
        shutil.rmtree(directory, ignore_errors=True)
    if options.json:
        with open(options.json, "w") as out:
            json.dump(results, out, indent=1)
    if options.plot:
        plot.comparison(results, options.plot)


if __name__ == "__main__":
    main()
