"""Builds Kvorum twice, the second time laid out by what the first did under load: profile-guided optimization (rustc's book). The result is
target/pgo/kvorum (CARGO_TARGET_DIR counts).

It takes two release builds (24 minutes of processor time, mostly on one core at a time), and llvm-profdata of the compiler's own version (rustup component
add llvm-tools).
"""
import argparse
import glob
import os
import shutil
import socket
import subprocess
import sys
import tempfile

from systems import HERE, fill, load, load_binary, start_kvorum

TARGET = os.path.abspath(os.environ.get("CARGO_TARGET_DIR") or os.path.join(HERE, "../target"))
# Seconds of each: what is most of a server's work counts most. SETs, GETs, pipeline, bytes of a value, seconds.
LOADS = [(1, 0, 1, 64, 6), (1, 0, 16, 64, 3), (1, 0, 64, 64, 2), (0, 1, 1, 64, 3), (0, 1, 16, 64, 2), (1, 10, 16, 64, 4), (1, 1, 1, 256, 3),
         (1, 1, 1, 10_000, 1), (1, 1, 1, 100_000, 1)]
# Of the other commands, so that they are not taken for never called.
COMMANDS = """SET {k} 17 EX 100 | GET {k} | INCR {k} | DECRBY {k} 3 | INCRBYFLOAT {k} 1.5 | APPEND {k} abc | STRLEN {k} | GETRANGE {k} 0 3 | SETRANGE {k} 2 xyz
    | GETSET {k} v | SETNX {k} v | GETDEL {k} | MSET {k} 1 {k}b 2 {k}c 3 | MGET {k} {k}b {k}c | EXISTS {k} {k}b | EXPIRE {k} 50 | TTL {k} | PERSIST {k} | TYPE {k}
    | TOUCH {k} | COPY {k} {k}d | RENAME {k}d {k}e | DEL {k}e {k}c | UNLINK {k}b | SET {k} w NX GET | GETEX {k} PX 9000 | OBJECT ENCODING {k} | PING | ECHO hello"""


def build(name, flags):
    host = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout.split("host: ")[1].split()[0]
    directory = os.path.join(TARGET, "pgo", name)
    # With a target named, the flags do not reach build scripts and macros.
    command = ["cargo", "build", "--release", "--bin", "kvorum", "--target", host, "--target-dir", directory]
    environment = dict(os.environ, RUSTFLAGS=f"{os.environ.get('RUSTFLAGS', '')} {flags}".strip())
    subprocess.run(command, check=True, cwd=os.path.join(HERE, ".."), env=environment)
    return os.path.join(directory, host, "release/kvorum")


def profdata():
    """The compiler's own, as another version may write another format."""
    sysroot = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=True).stdout.strip()
    found = glob.glob(os.path.join(sysroot, "lib/rustlib/*/bin/llvm-profdata"))
    if not found:
        sys.exit("pgo.py needs llvm-profdata: rustup component add llvm-tools")
    return found[0]


def run_commands(port, rounds):
    commands = [command.split() for command in COMMANDS.split("|")]
    with socket.create_connection(("127.0.0.1", port)) as connection:
        replies = connection.makefile("rb")
        for turn in range(rounds):
            words = [[word.format(k=f"{{key{turn % 500}}}") for word in command] for command in commands]
            lines = [f"*{len(command)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in command) for command in words]
            connection.sendall("".join([*lines, "*2\r\n$4\r\nECHO\r\n$3\r\nEND\r\n"]).encode())
            while replies.readline().strip() != b"END":
                pass


def train(binary, port, scale):
    directory = tempfile.mkdtemp(prefix="kvorum-pgo-")
    try:
        # Small logs: snapshots and purges belong to the work.
        system = start_kvorum(binary, directory, port, ["--log-bytes-max", "32mb"])
        try:
            fill(system, 100_000, value_bytes=64)
            for sets, gets, pipeline, value_bytes, seconds in LOADS:
                run = load(system, sets=sets, gets=gets, pipeline=pipeline, value_bytes=value_bytes, seconds=seconds * scale, clients=50, keys=100_000)
                print(f"{sets} SET : {gets} GET, P={pipeline}, {value_bytes} bytes: {run['rps']:.0f} req/s", flush=True)
        finally:
            system.stop()
        os.makedirs(os.path.join(directory, "one"))
        one = start_kvorum(binary, os.path.join(directory, "one"), port + 10, [], nodes=1)
        try:
            run_commands(port + 10, int(2000 * scale))
        finally:
            one.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=15000)
    parser.add_argument("--scale", type=float, default=1, help="of the training's time, which is some 30 s")
    options = parser.parse_args()
    tool = profdata()
    load_binary()
    raw, merged = os.path.join(TARGET, "pgo/raw"), os.path.join(TARGET, "pgo/kvorum.profdata")
    shutil.rmtree(raw, ignore_errors=True)
    train(build("counting", f"-Cprofile-generate={raw}"), options.port, options.scale)
    subprocess.run([tool, "merge", "-o", merged, *glob.glob(os.path.join(raw, "*.profraw"))], check=True)
    shutil.copy2(build("guided", f"-Cprofile-use={merged}"), os.path.join(TARGET, "pgo/kvorum"))
    print(f"built {os.path.join(TARGET, 'pgo/kvorum')}")


if __name__ == "__main__":
    main()
