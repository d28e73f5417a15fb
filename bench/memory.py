"""Memory per key, and how long a node needs from its start until it serves what it has on disk: Kvorum beside Redis.

One Kvorum node and one Redis (a cluster of one, nothing but an RDB on disk) hold the same keys. Memory is what each has resident more than when it
was empty. Both are stopped properly, Redis after a SAVE, and started again, what they read being in the operating system's cache, until a GET is
answered. A second kill -9 of Kvorum shows what a crash costs. Then three nodes, each with a replica of all keys.
"""
import argparse
import os
import shutil
import signal
import statistics
import tempfile
import time

from systems import MEMORY_ONLY, cli, fill, start_kvorum, start_redis, wait_for

LAST_KEY_DIGITS = 12


def settled_bytes(system):
    """Resident memory once it has not changed by a hundredth for 2 s, for 60 s at most: snapshots may be under way."""
    before, since = system.resident_bytes(), time.monotonic()
    deadline = since + 60
    while time.monotonic() < min(since + 2, deadline):
        time.sleep(0.2)
        now = system.resident_bytes()
        if abs(now - before) > before / 100:
            before, since = now, time.monotonic()
    return system.resident_bytes()


def filled(system, options, per_node=1):
    empty = system.resident_bytes()
    fill(system, options.keys, key_bytes=16, value_bytes=options.size)
    now = settled_bytes(system)
    print(f"{system.name:24} {(now - empty) / per_node / options.keys:10.1f} bytes per key and replica {now / per_node / 1e6:10.0f} MB resident", flush=True)


def restart_seconds(name, stop, start, options):
    """`start` gives the system without waiting for it to serve."""
    seconds = []
    for _ in range(options.rounds):
        stop()
        began = time.monotonic()
        system = start()
        key = f"key:{options.keys - 1:0{LAST_KEY_DIGITS}d}"
        wait_for(lambda: len(cli(system.port, "get", key).strip()) == options.size, f"{name} serving again", 300)
        seconds.append(time.monotonic() - began)
        stop = system.stop
    print(f"{name:24} {statistics.median(seconds):10.2f} s until a GET is answered (of {', '.join(f'{s:.2f}' for s in seconds)})", flush=True)
    return system


def kill(system):
    for process in system.processes:
        process.send_signal(signal.SIGKILL)
        process.wait()


def one_node(options, binary, directory, systems):
    flags = options.kvorum_flags.split()
    start = lambda: start_kvorum(binary, directory, options.port, flags, nodes=1)
    systems.append(start())
    filled(systems[0], options)
    systems[0] = restart_seconds("kvorum, stopped", systems[0].stop, start, options)
    systems[0] = restart_seconds("kvorum, killed", lambda: kill(systems[0]), start, options)
    filled_again = settled_bytes(systems[0])
    print(f"{'kvorum, started again':24} {filled_again / 1e6:10.0f} MB resident")


def one_redis(options, _binary, directory, systems):
    start = lambda: start_redis("redis", directory, options.port, ["--cluster-enabled", "yes", *MEMORY_ONLY])
    systems.append(start())
    cli(options.port, "cluster", "addslotsrange", "0", "16383")
    wait_for(lambda: "cluster_state:ok" in cli(options.port, "cluster", "info"), "redis serving its slots")
    filled(systems[0], options)
    cli(options.port, "save")
    systems[0] = restart_seconds("redis, from its RDB", systems[0].stop, start, options)


def three_nodes(options, binary, directory, systems):
    systems.append(start_kvorum(binary, directory, options.port, options.kvorum_flags.split()))
    systems[0].name = "kvorum, three nodes"
    filled(systems[0], options, per_node=3)


PARTS = {"kvorum": one_node, "redis": one_redis, "three": three_nodes}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kvorum", required=True)
    parser.add_argument("--kvorum-flags", default="")
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--keys", type=int, default=5_000_000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3, help="restarts")
    parser.add_argument("--port", type=int, default=19000)
    options = parser.parse_args()
    binary = os.path.abspath(options.kvorum)
    print(f"{options.keys} keys of 16 bytes, values of {options.size} bytes")
    for step in [PARTS[options.only]] if options.only else PARTS.values():
        directory, systems = tempfile.mkdtemp(prefix="kvorum-memory-"), []
        try:
            step(options, binary, directory, systems)
        finally:
            for system in systems:
                system.stop()
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
