"""Simulated days without a fall, in pieces of ten minutes, as a wearer's sensor gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from edge_rt.bundle import Bundle
from edge_rt.core.fall import rules_for
from edge_rt.core.hop import Hop
from edge_rt.core.shadow import ShadowPolicy, Verdict
from edge_rt.core.types import SampleBlock
from edge_rt.falls.detector import FallDetector
from edge_rt.falls.shadow import ShadowRunner
from edge_rt.falls.simulate import ACTIVITIES, simulate

RATE_HZ, RANGE_G = 50.0, 16.0
BLOCK = 200  # samples handed over at a time
# A day in small: hours that are a day to the judge, and blocks to match.
SMALL = ShadowPolicy(span_h=0.6, most_h=1.2, block_s=8.0, cpu_share=0.5, least_heard=0.9)
HOURS = 0.66  # of stream, pauses included, that a verdict needs


class Day(NamedTuple):
    """Blocks, and the hops that the live model made of each."""

    live: Bundle
    blocks: Sequence[tuple[SampleBlock, Sequence[Hop]]]


def samples(seed: int, hours: float, placement: str) -> list[SampleBlock]:
    rng = np.random.default_rng(seed)
    names, found, start_s = sorted(ACTIVITIES), [], 0.0
    while start_s < 3600.0 * hours:
        script = []
        for name in [n for _ in range(4) for n in rng.permutation(names)]:
            script += list(ACTIVITIES[name])
            if name == "collapsing":
                script.append("get_up")
        own = int(rng.integers(2**31))
        block = simulate(script, own, rate_hz=RATE_HZ, range_g=RANGE_G, placement=placement).block
        found.append(SampleBlock(block.t_s + start_s, block.acc_g))
        start_s += float(block.t_s[-1]) + 20.0  # taken off for a moment
    return found


def day(live: Bundle, seed: int, hours: float) -> Day:
    detector = FallDetector(live, rate_hz=RATE_HZ, range_g=RANGE_G)
    blocks = []
    for piece in samples(seed, hours, live.manifest.decision.placement):
        for begin in range(0, len(piece.t_s), BLOCK):
            part = slice(begin, begin + BLOCK)
            block = SampleBlock(piece.t_s[part], piece.acc_g[part])
            blocks.append((block, detector.push(block)))
    return Day(live, blocks)


def runner_of(
    candidate: Bundle, live: Bundle, policy: ShadowPolicy = SMALL, **more
) -> ShadowRunner:
    return ShadowRunner(
        candidate,
        rules_for(candidate.manifest),
        live.manifest,
        rules_for(live.manifest),
        policy,
        **{"rate_hz": RATE_HZ, "range_g": RANGE_G, "threaded": False, **more},
    )


def shadowed(candidate: Bundle, on: Day, policy: ShadowPolicy = SMALL) -> Verdict | None:
    """The verdict as soon as there is one."""
    runner = runner_of(candidate, on.live, policy)
    for k, (block, hops) in enumerate(on.blocks):
        runner(block, hops)
        if k % 50 == 0 and (verdict := runner.verdict()) is not None:
            return verdict
    return runner.verdict()
