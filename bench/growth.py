"""Throughput as groups, connections and values grow: Kvorum (3 nodes) beside a Redis Cluster of 3 primaries and 6 replicas.

Groups: SET and GET at P=16, with Kvorum alone. Connections: SET and GET at P=1. Values: SET and GET at P=1, in MB/s. --plot draws all of it.
"""
import argparse
import json
import os
import shutil
import statistics
import tempfile

import plot
from systems import fill, load, start_kvorum, start_redis_cluster

GROUPS = [1, 2, 4, 8, 16]
CONNECTIONS = [1, 10, 50, 200, 1000]
# Size, its name, and as many keys as keep nine Redis processes and their buffers within a small machine.
VALUES = [(1 << 10, "1 KB", 50000), (10 << 10, "10 KB", 10000), (100 << 10, "100 KB", 1000), (1 << 20, "1 MB", 100)]
COMMANDS = {"SET": {"sets": 1, "gets": 0}, "GET": {"sets": 0, "gets": 1}}


def rounds(options, systems, value_of=lambda run: run["rps"], **flags):
    """{command: {system: median}} over interleaved rounds."""
    found = {}
    for command, mix in COMMANDS.items():
        runs = {system.name: [] for system in systems}
        for _ in range(options.rounds):
            for system in systems:
                runs[system.name].append(value_of(load(system, seconds=options.seconds, **mix, **flags)))
        found[command] = {name: statistics.median(values) for name, values in runs.items()}
    return found


def kvorum(options, directory, offset, extra=()):
    return start_kvorum(os.path.abspath(options.kvorum), directory, options.port + offset, [*options.kvorum_flags.split(), *extra])


def both(options, directory, systems):
    systems.append(kvorum(options, directory, 0))
    systems.append(start_redis_cluster("redis 3x(1+2)", directory, options.port + 100, 2))


def groups(options, directory, systems):
    """One cluster after the other: idle ones would cost heartbeats."""
    for number, count in enumerate(GROUPS):
        systems.append(kvorum(options, directory, 10 * number, ["--groups", str(count)]))
        fill(systems[0], 100000)
        yield str(count), rounds(options, systems, pipeline=16)
        systems.pop().stop()


def connections(options, directory, systems):
    both(options, directory, systems)
    for system in systems:
        fill(system, 100000)
    for count in CONNECTIONS:
        yield str(count), rounds(options, systems, clients=count)


def values(options, directory, systems):
    both(options, directory, systems)
    for size, name, keys in VALUES:
        for system in systems:
            fill(system, keys, pipeline=1, value_bytes=size)
        yield name, rounds(options, systems, lambda run: run["rps"] * size / 1e6, keys=keys, value_bytes=size)


PARTS = {"groups": (groups, "req/s, P=16"), "connections": (connections, "req/s, P=1"), "values": (values, "MB/s, P=1, 50 clients")}


def measure(part, options):
    """[(label, {command: {system: figure}})], printed as it comes."""
    steps, unit = PARTS[part]
    directory, systems, results = tempfile.mkdtemp(prefix="kvorum-growth-"), [], []
    try:
        for label, found in steps(options, directory, systems):
            results.append((label, found))
            for command, row in found.items():
                print(f"{part:12} {label:>7} {command}  " + "   ".join(f"{name} {figure:9.0f}" for name, figure in row.items()) + f"   {unit}", flush=True)
    finally:
        for system in systems:
            system.stop()
        shutil.rmtree(directory, ignore_errors=True)
    return results


def draw(results, path):
    panels = []
    for command in COMMANDS:
        for part, steps in results.items():
            names = steps[0][1][command]
            series = {name: [(label, found[command][name]) for label, found in steps] for name in names}
            panels.append((f"{command}, {PARTS[part][1]}", part, series))
    plot.lines(path, panels, per_row=len(results))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kvorum", required=True)
    parser.add_argument("--kvorum-flags", default="")
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5, help="length of one load")
    parser.add_argument("--port", type=int, default=18000)
    parser.add_argument("--json", help="add the figures to those in that file")
    parser.add_argument("--plot", help="draw them there, as SVG; with --json all that the file has")
    options = parser.parse_args()
    results = {}
    if options.json and os.path.exists(options.json):
        with open(options.json) as figures:
            results = json.load(figures)
    for part in [options.only] if options.only else PARTS:
        results[part] = measure(part, options)
    if options.json:
        with open(options.json, "w") as out:
            json.dump(results, out, indent=1)
    if options.plot:
        draw(results, options.plot)


if __name__ == "__main__":
    main()
