"""Checks the JSON of `shader_build --json`: every pass must show what caching is for.

Only facts are checked: what was parsed, compiled, and served from where. Times are printed.
"""

import json
import sys

PASSES = [
    "without cache",
    "first",
    "memory",
    "respelled",
    "fresh process",
    "another machine",
    "another, aliases",
]

with open(sys.argv[1]) as file:
    report = json.load(file)

programs = report["programs"]


def check(holds, what):
    if not holds:
        sys.exit(f"shader_build: {what}")


check(programs >= 23, f"{programs} programs, not 23 or more")
names = [one["name"] for one in report["passes"]]
check(names == PASSES, f"the passes are {names}")
without, first, again, respelled, fresh, other, aliases = report["passes"]

for one in report["passes"]:
    served = one["compiled"] + one["memory"] + one["disk"] + one["remote"]
    check(one["programs"] == programs and served == programs, f"{one['name']} does not add up")
    check(set(one["times_ms"]) == {"hash", "parse", "key", "lookup", "compile"},
          f"{one['name']} does not say where the time went")
for one in [without, first, respelled, other]:
    check(one["parsed"] == programs, f"{one['name']} did not parse every new spelling")
for one in [again, fresh, aliases]:
    check(one["parsed"] == 0, f"{one['name']} parsed a known spelling")
    check(one["compiled"] == 0, f"{one['name']} compiled a known program")
check(without["compiled"] == programs, "the pass without a cache did not compile everything")
check(first["compiled"] > 0, "the first pass compiled nothing")
check(again["memory"] == programs, "the memory pass is not all memory")
check(fresh["disk"] > 0, "the fresh process did not read the disk")
check(other["compiled"] == 0 and other["remote"] > 0, "the other machine did not read the remote")
check(aliases["remote"] > 0, "the machine with aliases did not read the remote")
check(report["promotion"]["promoted"] > 0, "nothing was promoted")
check(report["promotion"]["failed"] == 0, "a promotion failed")

print(f"shader_build: {programs} programs, {respelled['compiled']} compiled again when respelled")
for one in report["passes"]:
    print(f"  {one['name']}: {one['speed_up']:.1f} times as fast as without a cache")
