"""How fast slots move, and what their clients notice: three Kvorum nodes beside a Redis Cluster of 3 primaries and 6 replicas.

Rate: a third of the keys, those of one node, moves to the others, by `kvorum cluster move-slots` and by `redis-cli --cluster rebalance`. Pause: the
longest wait of a client that sets a key of the slot that moves, one request at a time, with 100 MB of other keys in the slot, and with one value of 300 MB;
each several times.
"""
import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import threading
import time

from systems import cli, fill, start_kvorum, start_redis_cluster, wait_for

TAG = "{pause}"


def status(binary, port):
    told = subprocess.run([binary, "cluster", "status", "--json", "--node", f"127.0.0.1:{port}"], capture_output=True, text=True)
    return json.loads(told.stdout)


def move(binary, port, slots, to):
    """Seconds until the last slot is at its new group, and cleaned up."""
    began = time.monotonic()
    subprocess.run([binary, "cluster", "move-slots", "--slots", slots, "--to", str(to), "--node", f"127.0.0.1:{port}"],
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: not status(binary, port)["moves"], "the moves' end", 600)
    return time.monotonic() - began


def tell_rate(name, keys, megabytes, seconds):
    print(f"{name:24} {keys:9} keys {megabytes:8.0f} MB in {seconds:7.1f} s: {keys / seconds:9.0f} keys/s {megabytes / seconds:7.1f} MB/s", flush=True)


def rate_of_kvorum(options, directory):
    for rate in options.rates.split(","):
        os.makedirs(place := os.path.join(directory, f"kvorum-{rate}"))
        system = start_kvorum(options.kvorum, place, options.port, ["--groups", "3", "--move-rate-max", rate])
        try:
            fill(system, options.keys, key_bytes=16, value_bytes=options.size)
            group = next(group for group in status(options.kvorum, options.port)["groups"] if group["id"] == 1)
            slots = ",".join(f"{first}-{last}" for first, last in group["slot_ranges"])
            seconds = move(options.kvorum, options.port, slots, 2)
            tell_rate(f"kvorum, at most {rate}/s", group["keys"], group["keys"] * (16 + options.size) / 1e6, seconds)
        finally:
            system.stop()


def rate_of_redis(options, directory):
    system = start_redis_cluster("redis 3x(1+2)", directory, options.port, 2)
    try:
        fill(system, options.keys, key_bytes=16, value_bytes=options.size)
        keys = int(cli(options.port, "dbsize"))
        node = cli(options.port, "cluster", "myid").strip()
        began = time.monotonic()
        subprocess.run(["redis-cli", "--cluster", "rebalance", f"127.0.0.1:{options.port}", "--cluster-weight", f"{node}=0", "--cluster-pipeline", "100"],
                       check=True, stdout=subprocess.DEVNULL)
        tell_rate("redis 3x(1+2)", keys, keys * (16 + options.size) / 1e6, time.monotonic() - began)
    finally:
        system.stop()


class Setter(threading.Thread):
    """Sets one key again and again, following MOVED; keeps how long each took."""

    def __init__(self, port):
        super().__init__()
        self.port, self.sockets, self.waits, self.stopped = port, {}, [], False

    def request(self, port, bytes_):
        if port not in self.sockets:
            self.sockets[port] = socket.create_connection(("127.0.0.1", port))
        self.sockets[port].sendall(bytes_)
        reply = b""
        while not reply.endswith(b"\r\n"):
            reply += self.sockets[port].recv(4096)
        return reply

    def run(self):
        number = 0
        while not self.stopped:
            number += 1
            began = time.monotonic()
            while (reply := self.request(self.port, b"SET %s:small %d\r\n" % (TAG.encode(), number))) != b"+OK\r\n":
                assert reply.startswith(b"-MOVED "), reply
                self.port = int(reply.rsplit(b":", 1)[1])
            self.waits.append((time.monotonic() - began) * 1000)
            time.sleep(0.0005)


def set_value(port, key, value):
    """Large, so not by redis-cli."""
    while True:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n" % (len(key), key.encode(), len(value)) + value + b"\r\n")
            reply = client.recv(4096)
        if reply == b"+OK\r\n":
            return
        port = int(reply.rsplit(b":", 1)[1])


def pauses(options, directory):
    system = start_kvorum(options.kvorum, directory, options.port, ["--groups", "3", "--move-rate-max", options.rates.split(",")[-1]])
    try:
        slot = cli(options.port, "cluster", "hashslot", TAG).split()[1]
        cases = [("100 MB of 10 KB", [(f"{TAG}:{number}", 10_000) for number in range(10_000)]), ("one of 300 MB", [(f"{TAG}:large", 300_000_000)])]
        for name, values in cases:
            for key, size in values:
                set_value(options.port, key, os.urandom(1024) * (size // 1024))
            setter = Setter(options.port)
            setter.start()
            time.sleep(2)
            calm, longest = len(setter.waits), []
            for round_ in range(options.rounds):
                to = round_ % 2 + 2
                before = len(setter.waits)
                seconds = move(options.kvorum, options.port, slot, to)
                longest.append(max(setter.waits[before:]))
            setter.stopped = True
            setter.join()
            print(f"{name:24} longest SET of each move, ms: median {statistics.median(longest):.1f}, worst {max(longest):.1f} of {len(longest)}; "
                  f"without a move {max(setter.waits[:calm]):.1f}; the last move took {seconds:.1f} s", flush=True)
            for key, _ in values:
                cli(system.port, "-c", "del", key) if len(values) == 1 else None
    finally:
        system.stop()


PARTS = {"pause": pauses, "rate": rate_of_kvorum, "redis": rate_of_redis}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kvorum", required=True)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--keys", type=int, default=2_000_000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rates", default="64mb,1024gb", help="values of --move-rate-max")
    parser.add_argument("--rounds", type=int, default=10, help="moves whose pause is looked at")
    parser.add_argument("--port", type=int, default=17000)
    options = parser.parse_args()
    options.kvorum = os.path.abspath(options.kvorum)
    for part in [PARTS[options.only]] if options.only else PARTS.values():
        directory = tempfile.mkdtemp(prefix="kvorum-moves-")
        try:
            part(options, directory)
        finally:
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
