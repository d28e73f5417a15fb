"""Twenty threads that SET and GET through one redis-py RedisCluster. Usage: redis_py_load.py PROTOCOL PORT...

Every line on standard input ends a phase, and is answered by a line of JSON about it; the end of the input ends the program, after it
has read back all that it wrote and said in a last line how many keys that were.
"""
import json
import random
import sys
import threading
import time

from redis.cluster import ClusterNode, RedisCluster

THREADS = 20
KEYS = 50
PAUSE_S = 0.01

protocol, ports = int(sys.argv[1]), [int(port) for port in sys.argv[2:]]
cluster = RedisCluster(startup_nodes=[ClusterNode("127.0.0.1", port) for port in ports], protocol=protocol)
lock = threading.Lock()
phase = {}
stop = False


def note(seconds, error=None):
    with lock:
        phase["requests"] = phase.get("requests", 0) + 1
        phase["longest_ms"] = max(phase.get("longest_ms", 0), round(seconds * 1000))
        if error:
            phase.setdefault("errors", []).append(error)


def timed(call, *arguments):
    """Reply, or None after an error, which is what an application would have had to deal with."""
    start = time.monotonic()
    try:
        reply = call(*arguments)
        note(time.monotonic() - start)
        return reply
    except Exception as error:  # pylint: disable=broad-except
        note(time.monotonic() - start, f"{call.__name__}: {type(error).__name__}: {error}")
        return None


def client(number):
    rng, values = random.Random(number), {}
    while not stop:
        key, value = f"py:{number}:{rng.randrange(KEYS)}", b"%d" % rng.getrandbits(40)
        if timed(cluster.set, key, value):
            values[key] = value
        else:
            values.pop(key, None)
        time.sleep(PAUSE_S)
        read = rng.choice(list(values)) if values else key
        found = timed(cluster.get, read)
        if read in values and found is not None and found != values[read]:
            note(0, f"GET {read}: {found!r} instead of {values[read]!r}")
        time.sleep(PAUSE_S)
    for key, value in values.items():
        found = timed(cluster.get, key)
        if found != value:
            note(0, f"GET {key} in the end: {found!r} instead of {value!r}")
    with lock:
        phase["kept"] = phase.get("kept", 0) + len(values)


threads = [threading.Thread(target=client, args=(number,)) for number in range(THREADS)]
for thread in threads:
    thread.start()
for line in sys.stdin:
    with lock:
        ended, phase = phase, {}
    print(json.dumps({"requests": 0, "longest_ms": 0, "errors": [], **ended}), flush=True)
stop = True
for thread in threads:
    thread.join()
print(json.dumps({"kept": 0, "errors": [], **phase}), flush=True)
