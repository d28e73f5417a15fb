"""What clients notice while a cluster grows, shrinks and has a node replaced: 3 nodes to 5, to 4, to 3, and one for another, under full load.

The load is bench/load's, as fast as it goes; beside it checking clients count up keys of their own, one request at a time, and compare every value in the end.
Keys that nobody touches in between are compared as well, and each is to be answered by one node. For each step: how long it took until groups, replicas and slots were where they should be, within a fifth, and the slots of a group against its share; throughput in
windows of two seconds against before, longest wait of a checking client. In the end the cluster is asked what is still to be moved: a group's share is of slots,
bytes and requests, and what is off by more than a tenth is evened out after a minute. The slots of each group then, against its share, are the last line's.
"""
import argparse
import hashlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import threading
import time

from systems import cli, fill, run_load, start_kvorum, start_process, wait_for

WINDOW_S = 2
REST_S = 5
EVEN_S_MAX = 400
CHECKERS = 4
CHECKER_KEYS = 500
KEPT_KEYS = 200_000
KEPT_PIPELINE = 1000
SLOTS = 1024


class Cluster:
    def __init__(self, options, directory):
        self.options, self.directory = options, directory
        self.system = start_kvorum(options.kvorum, directory, options.port, [])
        # The one that stays to the end.
        self.system.port = options.port + 1

    def join(self, number):
        port, name = self.options.port + number, os.path.join(self.directory, f"joined-{number}")
        with open(name + ".log", "a") as log:
            command = [self.options.kvorum, "server", "--port", str(port), "--data-dir", name, "--join", f"127.0.0.1:{self.system.port}"]
            self.system.processes.append(start_process(command, log))

    def operate(self, *words):
        command = [self.options.kvorum, "cluster", *words, "--node", f"127.0.0.1:{self.system.port}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=EVEN_S_MAX)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr}")
        return done.stdout

    def address(self, number):
        return f"127.0.0.1:{self.options.port + number}"

    def status(self):
        return json.loads(self.operate("status", "--json"))

    def is_even(self, nodes):
        status = self.status()
        groups = [group for group in status["groups"] if group["id"] != 0]
        replicas = {}
        for replica in (replica for group in groups for replica in group["replicas"]):
            replicas[replica["node"]] = replicas.get(replica["node"], 0) + 1
        self.shares = [group["slot_count"] * nodes / SLOTS for group in groups]
        done = len(status["nodes"]) == len(groups) == nodes and not status["moves"]
        return (done and max(self.shares) <= 1.2 and min(self.shares) >= 0.8
                and max(replicas.values()) - min(replicas.values()) <= 1)


class Checker(threading.Thread):
    """Counts up its own keys by SET, follows MOVED, and remembers what was acknowledged."""

    def __init__(self, number, port):
        super().__init__()
        self.number, self.port, self.first, self.sockets = number, port, port, {}
        self.values, self.errors, self.longest_s, self.stopped = {}, [], 0, False

    def connection(self, port):
        if port not in self.sockets:
            connected = socket.create_connection(("127.0.0.1", port), 60)
            self.sockets[port] = (connected, connected.makefile("rb"))
        return self.sockets[port]

    def request(self, *words):
        encoded = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
        for _ in range(32):
            try:
                connected, replies = self.connection(self.port)
                connected.sendall(b"*%d\r\n" % len(words) + encoded)
                line = replies.readline()
            except OSError:
                line = b""
            if not line:
                # A node that has left; the others know. SETs of one value may be sent twice.
                self.sockets.pop(self.port, None)
                self.port = self.first
            elif line.startswith(b"-MOVED"):
                self.port = int(line.rsplit(b":", 1)[1])
            elif line.startswith(b"$") and line != b"$-1\r\n":
                return replies.read(int(line[1:]) + 2)[:-2]
            else:
                return line.strip()
        return b"-too many redirections"

    def run(self):
        value = 0
        while not self.stopped:
            value += 1
            key, text = b"check:%d:%d" % (self.number, value % CHECKER_KEYS), b"%d" % value
            began = time.monotonic()
            reply = self.request(b"SET", key, text)
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            if reply == b"+OK":
                self.values[key] = text
            else:
                self.errors.append(reply)
            time.sleep(0.001)

    def wrong(self):
        return [key for key, value in self.values.items() if self.request(b"GET", key) != value]


def kept(number):
    key = b"kept:%d" % number
    return key, hashlib.sha256(key).hexdigest().encode()


def ask_each_node(ports, requests):
    """For each request the replies of the nodes that did not answer MOVED: of its key's owner alone."""
    answers = [[] for _ in requests]
    for port in ports:
        with socket.create_connection(("127.0.0.1", port), 60) as connection, connection.makefile("rb") as replies:
            for first in range(0, len(requests), KEPT_PIPELINE):
                part = requests[first:first + KEPT_PIPELINE]
                connection.sendall(b"".join(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words) for words in part))
                for number in range(first, first + len(part)):
                    line = replies.readline().strip()
                    if line.startswith(b"$") and line != b"$-1":
                        line = replies.read(int(line[1:]) + 2)[:-2]
                    if not line.startswith(b"-MOVED"):
                        answers[number].append(line)
    return answers


def write_kept(ports):
    answers = ask_each_node(ports, [(b"SET", *kept(number)) for number in range(KEPT_KEYS)])
    if any(answer != [b"+OK"] for answer in answers):
        raise RuntimeError("not every key was taken by one node")


def count_wrong_kept(ports):
    answers = ask_each_node(ports, [(b"GET", kept(number)[0]) for number in range(KEPT_KEYS)])
    return sum(answer != [kept(number)[1]] for number, answer in enumerate(answers))


class Load(threading.Thread):
    """One window after the other, each noted under the step in which it began."""

    def __init__(self, options, system):
        super().__init__()
        self.options, self.system, self.step, self.windows, self.stopped = options, system, "before", [], False

    def run(self):
        flags = {"seconds": WINDOW_S, "clients": 50, "pipeline": 16, "sets": 1, "gets": 1, "keys": self.options.keys, "value_bytes": 64}
        while not self.stopped:
            step = self.step
            done = run_load(self.system, flags)
            self.windows.append((step, json.loads(done.stdout)))


def run_step(cluster, load, checkers, name, change, nodes):
    for checker in checkers:
        checker.longest_s = 0
    load.step, began = name, time.monotonic()
    change()
    try:
        wait_for(lambda: cluster.is_even(nodes), name, EVEN_S_MAX)
    except SystemExit:
        print(cluster.operate("status"), cluster.operate("events"))
        raise
    seconds, longest_s = time.monotonic() - began, max(checker.longest_s for checker in checkers)
    load.step = "after " + name
    time.sleep(REST_S)
    return name, seconds, longest_s, cluster.shares


def tell(load, steps):
    rate = {}
    for step, window in load.windows:
        rate.setdefault(step, []).append(window["requests"] / window["seconds"])
    before = statistics.median(rate["before"])
    print(f"{'':14} {'seconds':>8} {'requests/s: median':>19} {'lowest':>9} {'of before':>10} {'longest wait':>13} {'slots of share':>15}")
    print(f"{'before':14} {'':8} {before:19.0f} {min(rate['before']):9.0f}")
    for name, seconds, longest_s, shares in steps:
        during = rate.get(name) or [float("nan")]
        print(f"{name:14} {seconds:8.1f} {statistics.median(during):19.0f} {min(during):9.0f} {min(during) / before:9.2f}x {longest_s * 1000:10.0f} ms {min(shares):8.2f}..{max(shares):.2f}")


def run(options, directory):
    cluster = Cluster(options, directory)
    load = Load(options, cluster.system)
    checkers = [Checker(number, cluster.system.port) for number in range(CHECKERS)]
    try:
        fill(cluster.system, options.keys, key_bytes=16, value_bytes=64)
        write_kept([options.port + number for number in (0, 1, 2)])
        for thread in [load, *checkers]:
            thread.start()
        time.sleep(4 * WINDOW_S)
        changes = [
            ("3 to 5 nodes", lambda: [cluster.join(3), cluster.join(4)], 5),
            ("5 to 4 nodes", lambda: cluster.operate("remove-node", cluster.address(4)), 4),
            ("4 to 3 nodes", lambda: cluster.operate("remove-node", cluster.address(0)), 3),
            ("one replaced", lambda: replace(cluster), 3),
        ]
        steps = [run_step(cluster, load, checkers, *change) for change in changes]
        began = time.monotonic()
        wait_for(lambda: "Nothing is to be moved" in cluster.operate("rebalance", "--dry-run"), "evening out", EVEN_S_MAX)
        cluster.is_even(3)
        evened = (f"rebalance --dry-run: nothing is to be moved {time.monotonic() - began:.0f} s after the last step; "
                  f"slots of share {' '.join(f'{share:.2f}' for share in cluster.shares)}")
        stop([load, *checkers])
        tell(load, steps)
        print(evened)
        failed = sum(window["failed"] for _, window in load.windows)
        missing = sum(window["missing"] for _, window in load.windows)
        errors = [error for checker in checkers for error in checker.errors]
        wrong = [key for checker in checkers for key in checker.wrong()]
        written = sum(len(checker.values) for checker in checkers)
        left = [options.port + number for number in (1, 3, 5)]
        wrong_kept = count_wrong_kept(left)
        keys, expected = sum(int(cli(port, "dbsize")) for port in left), options.keys + KEPT_KEYS + written
        print(f"load: {failed} errors, {missing} keys not found; checking clients: {len(errors)} errors {errors[:3]}, {len(wrong)} of {written} values wrong; "
              f"untouched keys: {wrong_kept} of {KEPT_KEYS} wrong, missing or with two owners; keys after: {keys} of {expected}")
        print(cluster.operate("status"))
        print(cluster.operate("events"))
        return not (failed or missing or errors or wrong or wrong_kept) and keys == expected
    finally:
        stop([load, *checkers])
        cluster.system.stop()


def stop(threads):
    for thread in threads:
        thread.stopped = True
    for thread in filter(threading.Thread.is_alive, threads):
        thread.join()


def replace(cluster):
    cluster.join(5)
    wait_for(lambda: len(cluster.status()["nodes"]) == 4, "a fourth node's joining")
    cluster.operate("replace-node", cluster.address(2), cluster.address(5))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kvorum", default="target/release/kvorum", help="the binary (target/release/kvorum)")
    parser.add_argument("--port", type=int, default=16000, help="first of six ports (16000)")
    parser.add_argument("--keys", type=int, default=1_000_000, help="keys to begin with (1000000)")
    options = parser.parse_args()
    options.kvorum = os.path.abspath(options.kvorum)
    directory = tempfile.mkdtemp(prefix="kvorum-membership-")
    try:
        raise SystemExit(0 if run(options, directory) else 1)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
