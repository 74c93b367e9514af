"""The owner of the virtual machine: see scripts/test-vm. What runs inside is tests/vm_guest.py."""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

TOP = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP / "tests"))

from beds import machine, wheels  # noqa: E402
from beds.rootfs import NoBed  # noqa: E402
from vm_guest import LSB_PER_G, RATE_HZ  # noqa: E402

from edge_rt.adapters.trials import find_trial  # noqa: E402
from edge_rt.falls.simulate import FALLS, simulate  # noqa: E402

RESULT = TOP / "docs/results/vm.json"
RECORDED = ("falls/sisfall/SA05.npz", "F01_SA05_R01")  # forward while walking, a slip
DEVICES_S, BOOT_S = 1500.0, 420.0  # a busy machine; alone a fifth of it
CUTS = 2  # of each seed
MOST_LINES = 120  # a cut comes after some of so many events and slots were told
START = """#!/bin/sh
for python in /opt/edge-rt/*-????????/bin/python; do break; done
export PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
exec "$python" /share/vm_guest.py {arguments}
"""

Result = dict[str, Any]


class Bed:
    """Images, and the folder that a machine shares."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        # The same wheel from the same source: what is made of it is kept by its hash.
        os.environ["SOURCE_DATE_EPOCH"] = "1704067200"
        self._wheel = wheels.build(TOP, scratch)
        dependencies = wheels.dependencies(self._wheel, TOP / "setup.cfg")
        say("system (made once)")
        self.image = machine.system()
        say("environment for /opt (made once for each state of the source)")
        self.opt = machine.opt_disk(self._wheel, dependencies, TOP / "scripts")

    def machine(self, name: str) -> machine.Machine:
        """A new one."""
        folder = self._scratch / name
        share = folder / "share"
        share.mkdir(parents=True)
        shutil.copy(self._wheel, share)
        shutil.copy(TOP / "scripts/install", share)
        shutil.copy(TOP / "tests/vm_guest.py", share)
        return machine.Machine(self.image, self.opt, share, folder)


def say(words: str) -> None:
    print(f"scripts/test-vm: {words}", file=sys.stderr, flush=True)


def fall_words() -> tuple[np.ndarray[Any, np.dtype[np.int16]], str]:
    """A fall as an MPU-6050 would count it at RATE_HZ, (N, 3), and where it is from."""
    shared = Path(os.environ.get("EDGE_RT_SHARED", TOP.parent / "shared")) / "data"
    if (shared / RECORDED[0]).is_file():
        trial = find_trial(shared / RECORDED[0], RECORDED[1])
        acc_g, rate_hz, what = trial.acc_g, trial.rate_hz, "recorded (SisFall F01_SA05_R01)"
    else:
        played = simulate(FALLS["walking"], seed=1, rate_hz=RATE_HZ, range_g=16.0)
        acc_g, rate_hz, what = played.block.acc_g, RATE_HZ, "simulated"
    step = round(rate_hz / RATE_HZ)
    # Means over the steps: what the chip's own low-pass would leave.
    whole = len(acc_g) // step * step
    mean = acc_g[:whole].reshape(-1, step, 3).mean(axis=1)
    return np.clip(np.rint(mean * LSB_PER_G), -32768, 32767).astype(np.int16), what


def begin(one: machine.Machine, arguments: str) -> None:
    (one.share / "start").write_text(START.format(arguments=arguments))
    one.start()


def results(one: machine.Machine) -> list[Result]:
    path = one.share / "results"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def devices(bed: Bed, held: list[Result]) -> None:
    """One boot; what held is added to `held`. Raises AssertionError."""
    one = bed.machine("devices")
    words, what = fall_words()
    np.save(one.share / "fall.npy", words)
    begin(one, "devices")
    try:
        code = one.wait(DEVICES_S)
        assert code == 0, f"not everything held\n{one.said()}"
    finally:
        for result in results(one):
            say(result["what"])
            held.append({**result, "fall": what} if "a fall is" in result["what"] else result)
        if one.running():
            one.cut()


def power(bed: Bed, seed: int, held: list[Result]) -> None:
    """CUTS cuts at moments of the seed, each followed by a boot that checks. AssertionError."""
    chance = random.Random(seed)
    one = bed.machine(f"power-{seed}")
    told = one.share / "told"
    try:
        for cut in range(CUTS + 1):
            begun = told.read_text().splitlines() if told.exists() else []
            # Past every number that was used.
            begin(one, f"writing {max((int(line.split()[-1]) for line in begun), default=-1) + 1}")
            wanted = len(begun) + 1 + chance.randrange(MOST_LINES)
            wait_s = chance.random() * 0.3  # within whatever it is doing then
            end_s = time.monotonic() + BOOT_S
            while lines(told) < wanted and (cut < CUTS or len(results(one)) < CUTS):
                assert one.running(), one.said()
                assert time.monotonic() < end_s, f"waited in vain for writing\n{one.said()}"
                time.sleep(0.02)
            time.sleep(wait_s)
            one.cut()
        found = results(one)
        assert len(found) == CUTS, f"{len(found)} checks of {CUTS}\n{one.said()}"
    finally:
        for number, result in enumerate(results(one), 1):
            say(f"seed {seed}, cut {number}: {result['what']}")
            held.append({**result, "seed": seed, "cut": number})
        if one.running():
            one.cut()


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def record(parts: dict[str, Result]) -> None:
    """What held, as JSON and as a page; a part that was not run now stays as it was."""
    before = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    known = {**before, **parts}
    RESULT.write_text(json.dumps(known, indent=1) + "\n")
    page = ["# In a virtual machine", ""]
    page += [
        "Made by `scripts/test-vm`: Debian 12 with its own kernel and systemd in QEMU, 2 cores"
    ]
    page += ["and 1536 MB. Emulated: times below are no figures of speed."]
    for name, part in known.items():
        page += ["", f"## {name}", "", f"- commit {part['commit']}, {part['at']}"]
        page += [f"- {'all held' if not part['failure'] else 'FAILED: ' + part['failure']}", ""]
        page += ["| held | details |", "|---|---|"]
        for result in part["held"]:
            hidden = ("what", "uptime_s", "instrument")
            told = ", ".join(f"{key} {value}" for key, value in result.items() if key not in hidden)
            page.append(f"| {result['what']} | {told} |")
    RESULT.with_suffix(".md").write_text("\n".join(page) + "\n")


def source() -> Result:
    """What was run."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=TOP, capture_output=True, text=True, check=True
        ).stdout.strip()

    changed = git("status", "--porcelain", "--", "edge_rt", "scripts", "firmware_configs", "tests")
    return {
        "commit": git("rev-parse", "HEAD") + (" with changes" if changed else ""),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/test-vm")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", choices=("devices", "power"))
    options = parser.parse_args()
    parts: dict[str, Result] = {}
    with tempfile.TemporaryDirectory(prefix="edge-rt-vm-") as scratch:
        try:
            bed = Bed(Path(scratch))
        except NoBed as reason:
            say(str(reason))
            return 2
        if options.only != "power":
            say("devices")
            parts["devices"] = attempt(lambda held: devices(bed, held))
        if options.only != "devices":
            seeds = range(1, options.seeds + 1)
            say(f"power cuts of {len(seeds)} seeds")
            parts["power cuts"] = attempt(lambda held: [power(bed, seed, held) for seed in seeds])
    record(parts)
    return 1 if any(part["failure"] for part in parts.values()) else 0


def attempt(run: Callable[[list[Result]], object]) -> Result:
    """What held, and what did not."""
    held: list[Result] = []
    failure = ""
    try:
        run(held)
    except AssertionError as error:
        say(str(error))
        failure = (str(error).splitlines() or ["?"])[0]
    return {**source(), "failure": failure, "held": held}


if __name__ == "__main__":
    sys.exit(main())
