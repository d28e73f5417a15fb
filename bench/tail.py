"""Latency at a fixed rate, counted from when each request was due: Kvorum beside a Redis Cluster of 3 primaries and 6 replicas.

Half of the requests are SETs. Each is sent on an idle connection, as a pool of clients would; with too few connections, GETs wait behind SETs. A server that stands still delays all requests that are due meanwhile, and all of them are counted. `late` is how long after
they were due the generator sent requests: its own share, since it is on the same cores.
"""
import argparse
import os
import shutil
import statistics
import tempfile

from systems import fill, load, start_kvorum, start_redis_cluster


def flat(run):
    figures = {"rps": run["rps"], "cpu_us": run["cpu_us"], "late_p99": run["late"]["p99"]}
    for command in ("set", "get"):
        figures.update({f"{command} {key}": run[command][key] for key in ("p50", "p99", "p999", "longest")})
    return figures


def measure(options, systems):
    sizes = {"keys": options.keys, "key_bytes": options.key_bytes, "value_bytes": options.size}
    runs = {system.name: [] for system in systems}
    for system in systems:
        fill(system, **sizes)
    for _ in range(options.rounds):
        for system in systems:
            runs[system.name].append(flat(load(system, rate=options.rate, seconds=options.seconds, clients=options.clients, sets=1, gets=1, **sizes)))
    print(f"{options.rate} requests/s, half SET, {options.key_bytes}-byte keys, {options.size}-byte values, {options.clients} clients; "
          f"medians of {options.rounds} interleaved rounds of {options.seconds} s; ms")
    print(f"{'system':16} {'command':8} {'p50':>8} {'p99':>8} {'p99.9':>8} {'longest':>8} {'late p99':>9} {'req/s':>8} {'cpu us/req':>11}")
    for name, rows in runs.items():
        row = {key: statistics.median(run[key] for run in rows) for key in rows[0]}
        for command in ("set", "get"):
            p50, p99, p999, longest = (row[f"{command} {key}"] for key in ("p50", "p99", "p999", "longest"))
            print(f"{name:16} {command.upper():8} {p50:8.2f} {p99:8.2f} {p999:8.2f} {longest:8.1f} {row['late_p99']:9.2f} {row['rps']:8.0f} {row['cpu_us']:11.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kvorum", required=True)
    parser.add_argument("--kvorum-flags", default="")
    parser.add_argument("--rate", type=int, default=28000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--keys", type=int, default=100000)
    parser.add_argument("--key-bytes", type=int, default=32)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--port", type=int, default=20000)
    options = parser.parse_args()
    directory = tempfile.mkdtemp(prefix="kvorum-tail-")
    systems = []
    try:
        systems.append(start_kvorum(os.path.abspath(options.kvorum), directory, options.port, options.kvorum_flags.split()))
        systems.append(start_redis_cluster("redis 3x(1+2)", directory, options.port + 100, 2))
        measure(options, systems)
    finally:
        for system in systems:
            system.stop()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
