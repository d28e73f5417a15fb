"""2,000 mixed operations through redis-py's RedisCluster. Usage: redis_py.py PORT PROTOCOL. Exits non-zero at the first error."""
import os
import random
import sys

from redis.cluster import ClusterNode, RedisCluster

port, protocol = int(sys.argv[1]), int(sys.argv[2])
seed = int(os.environ.get("KVORUM_SEED", "7"))
rng = random.Random(seed)
client = RedisCluster(startup_nodes=[ClusterNode("127.0.0.1", port)], protocol=protocol, require_full_coverage=True)
prefix = f"py{protocol}:{seed}:".encode()
model, counts = {}, {}


def expect(got, want, what):
    if got != want:
        sys.exit(f"seed {seed}: {what}: got {got!r}, expected {want!r}")


def key():
    return prefix + bytes(rng.choices(range(256), k=rng.randint(1, 12)))


def set_get():
    k, v = key(), rng.randbytes(rng.choice([0, 1, 64, 1000]))
    expect(client.set(k, v), True, "SET")
    model[k] = v
    expect(client.get(k), v, "GET")


def known():
    return rng.choice(list(model)) if model else key()


def get():
    k = known()
    expect(client.get(k), model.get(k), "GET of a known key")


def delete():
    k = known()
    expect(client.delete(k), 1 if model.pop(k, None) is not None else 0, "DEL")


def append():
    k = known()
    model[k] = model.get(k, b"") + b"tail"
    expect(client.append(k, b"tail"), len(model[k]), "APPEND")


def counters():
    k = prefix + b"counter:%d" % rng.randint(0, 5)
    counts[k] = counts.get(k, 0) + 3
    expect(client.incrby(k, 3), counts[k], "INCRBY")


def tagged():
    tag = b"{%s%d}" % (prefix, rng.randint(0, 9))
    pairs = {tag + b"a": rng.randbytes(8), tag + b"b": rng.randbytes(8)}
    expect(client.mset(pairs), True, "MSET within a hash tag")
    model.update(pairs)
    expect(client.mget(list(pairs)), list(pairs.values()), "MGET within a hash tag")


def spread():
    pairs = {key(): rng.randbytes(8) for _ in range(5)}
    client.mset_nonatomic(pairs)
    model.update(pairs)
    expect(client.mget_nonatomic(list(pairs)), list(pairs.values()), "MGET over several slots")


def pipeline():
    pipe = client.pipeline()
    pairs = [(key(), rng.randbytes(16)) for _ in range(20)]
    for k, v in pairs:
        pipe.set(k, v)
        model[k] = v
    for k, _ in pairs:
        pipe.get(k)
    replies = pipe.execute()
    expect(replies[:20], [True] * 20, "pipelined SET")
    expect(replies[20:], [model[k] for k, _ in pairs], "pipelined GET")


def large():
    k, v = prefix + b"large:%d" % rng.randint(0, 3), rng.randbytes(1 << 20)
    expect(client.set(k, v), True, "SET of 1 MB")
    model[k] = v
    expect(client.get(k), v, "GET of 1 MB")


def expiry():
    k = known()
    if k in model:
        expect(client.expire(k, 1000), True, "EXPIRE")
        ttl = client.ttl(k)
        if not 990 <= ttl <= 1000:
            sys.exit(f"TTL {ttl}")
        expect(client.persist(k), True, "PERSIST")


steps = [set_get] * 8 + [get] * 6 + [delete] * 2 + [append] * 2 + [counters] * 2 + [tagged, spread, pipeline, expiry]
for number in range(2000):
    (large if number % 200 == 199 else rng.choice(steps))()
expect(set(client.scan_iter(match=prefix.replace(b"{", b"\\{") + b"*", count=500)) >= {k for k in model if k.startswith(prefix)}, True,
       "SCAN over every node")
print(f"redis-py RESP{protocol}: 2000 operations, {len(model)} keys")
