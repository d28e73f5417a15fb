"""Reads what bench/instructions counted, and compares it with the committed figures or writes them."""
import glob
import json
import os
import subprocess
import sys

TOLERANCE = 1.05
ALLOCATORS = {"malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc", "memalign"}


def read_dump(path, own):
    """(instructions in the file `own`, its calls for memory) of one dump; the format is in valgrind's manual under "Callgrind Format Specification"."""
    instructions, allocations, place, called, is_call = 0, 0, "", "", False
    with open(path) as dump:
        for line in dump:
            key, _, rest = line.rstrip("\n").partition("=")
            if key == "ob":
                place = rest
            elif key == "cfn":
                called = rest
            elif key == "calls":
                is_call = True
                if place == own and called in ALLOCATORS:
                    allocations += int(rest.split()[0])
            elif line[:1].isdigit() or line[:1] in "+-*":
                # The line after calls= is what the callee cost, and is told there again.
                if not is_call and place == own:
                    instructions += int(line.split()[1])
                is_call = False
    return instructions, allocations


def counted(own, directory):
    with open(os.path.join(directory, "cases")) as lines:
        cases = [line.rstrip("\n").split("\t") for line in lines]
    dumps = [os.path.join(directory, f"dump.{number}") for number in range(1, len(cases) + 1)]
    if not cases or not all(map(os.path.exists, dumps)):
        sys.exit(f"instructions: {len(cases)} cases, but callgrind wrote {sorted(map(os.path.basename, glob.glob(directory + '/dump*')))}")
    found = {}
    for (name, operations), dump in zip(cases, dumps):
        instructions, allocations = read_dump(dump, own)
        if not instructions:
            sys.exit(f"instructions: none were counted of {name}")
        found[name] = {"instructions": round(instructions / int(operations), 1), "allocations": round(allocations / int(operations), 2)}
    return found


def compare(found, path, compiler, host):
    with open(path) as recorded:
        recorded = json.load(recorded)
    if recorded["host"] != host:
        return print(f"recorded for {recorded['host']}, this is {host}, which has other instructions: nothing to compare")
    if recorded["compiler"] != compiler:
        print(f"recorded with {recorded['compiler']}, this is {compiler}: record again if all cases moved")
    failures = []
    print(f"{'':40} {'instructions':>12} {'recorded':>9} {'allocations':>12} {'recorded':>9}   per operation")
    for name in {**recorded["cases"], **found}:
        now, before = found.get(name), recorded["cases"].get(name)
        if not now or not before:
            failures.append(f"{name}: only {'counted' if now else 'recorded'}")
            continue
        print(f"{name:40} {now['instructions']:12.1f} {before['instructions']:9.1f} {now['allocations']:12.2f} {before['allocations']:9.2f}")
        for key in ("instructions", "allocations"):
            if now[key] > before[key] * TOLERANCE:
                failures.append(f"{name}: {now[key]} {key}, recorded {before[key]}")
    if failures:
        print("\n".join(["instructions: above the recorded figures by more than 5 %, or without any:", *failures]))
        sys.exit("If it has to be so, `bench/instructions --record`, and say in the commit why.")


def main():
    _, own, directory, path, *flags = sys.argv
    found = counted(own, directory)
    compiler, *details = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout.splitlines()
    host = next(line.removeprefix("host: ") for line in details if line.startswith("host: "))
    if flags == ["--record"]:
        with open(path, "w") as out:
            json.dump({"compiler": compiler, "host": host, "cases": found}, out, indent=1)
            out.write("\n")
    else:
        compare(found, path, compiler, host)


if __name__ == "__main__":
    main()
