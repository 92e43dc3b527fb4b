"""Checks the JSON of `shader_build --json`: every pass must show what caching is for."""

import json
import sys

with open(sys.argv[1]) as file:
    report = json.load(file)

programs = report["programs"]
first, again, respelled, fresh, other = report["passes"]


def check(holds, what):
    if not holds:
        sys.exit(f"shader_build: {what}")


check(programs >= 23, f"{programs} programs, not 23 or more")
for one in report["passes"]:
    served = one["compiled"] + one["memory"] + one["disk"] + one["remote"]
    check(one["programs"] == programs and served == programs, f"{one['name']} does not add up")
check(first["compiled"] > 0, "the first pass compiled nothing")
check(again["compiled"] == 0 and again["memory"] == programs, "the second pass is not all memory")
check(fresh["compiled"] == 0 and fresh["disk"] > 0, "the fresh process did not read the disk")
check(other["compiled"] == 0 and other["remote"] > 0, "the other machine did not read the remote")
check(report["promotion"]["promoted"] > 0, "nothing was promoted")
check(report["promotion"]["failed"] == 0, "a promotion failed")
print(f"shader_build: {programs} programs, {respelled['compiled']} compiled again when respelled")
