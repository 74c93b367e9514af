"""The alarm of falls brought back to where it was; without models it is all there is of them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import NamedTuple

from edge_rt.bundle import Bundle
from edge_rt.core.config import AccelerometerSource, SimulatedAccelerometer
from edge_rt.core.fall import OPEN, FallRules
from edge_rt.core.hop import Hop
from edge_rt.core.timebase import ClockCounters
from edge_rt.core.types import Announce, SampleBlock
from edge_rt.falls.pipeline import FallPipeline
from edge_rt.runtime.alarm_siren import siren_follows
from edge_rt.runtime.compose import Place, announcer
from edge_rt.runtime.fall_memory import FallMemory, logged_stages
from edge_rt.runtime.fall_models import Settings
from edge_rt.runtime.fall_service import FallService
from edge_rt.runtime.instruments import is_model


class Alarm(NamedTuple):
    """The service, not started; its memory, to be closed after it."""

    service: FallService
    memory: FallMemory


class _Blind:
    """An accelerometer and its detector, neither of which finds anything."""

    rate_hz, range_g = 50.0, 16.0  # of nothing

    def __init__(self) -> None:
        self.counters = ClockCounters()

    def open(self) -> None: ...

    def close(self) -> None: ...

    def read(self, timeout_s: float) -> SampleBlock | None:
        time.sleep(timeout_s)
        return None

    def push(self, block: SampleBlock) -> list[Hop]:
        return []

    def reset(self) -> None: ...

    def swap(self, bundle: Bundle) -> None: ...

    def branch(self) -> Callable[[Bundle], _Blind]:
        return lambda bundle: self


def make_alarm(place: Place, settings: Settings | None) -> Alarm:
    """The alarm machine without sensor and model: an open incident goes on, and who calls for help
    is heard. Bundle, sensor and threshold are not looked at: one of them may be what keeps the
    daemon from starting."""
    falls = (place.config if settings is None else settings.config()).falls
    window = falls.alarm
    blind = _Blind()
    rules = FallRules(
        # Of no model: without scores nothing is compared with these.
        threshold=0.0,
        suspicion=0.0,
        window_s=1.0,
        clear_s=1.0,
        cancel_window_s=window.cancel_window_s,
        # The other way round is a mistake in the configuration, which must not end this start.
        escalated_window_s=min(window.escalated_window_s, window.cancel_window_s),
    )
    pipeline = FallPipeline(
        blind,
        rules,
        lambda: uuid.uuid4().hex,
        range_g=blind.range_g,
        simulated=nobody_wears(falls.source),
    )
    announce = announcer(place.recorder, None)
    memory, asleep_s = resume(place, pipeline, announce)
    service = FallService(
        pipeline,
        blind,
        announce,
        memory.save,
        time.monotonic,
        lost_s=falls.lost_s,
        asleep_s=asleep_s,
        sensor="off",
    )
    return Alarm(service, memory)


def resume(place: Place, pipeline: FallPipeline, announce: Announce) -> tuple[FallMemory, float]:
    """Bring the alarm machine back to where it was, siren included; its memory, and how many
    seconds it slept."""
    place.recorder.listen(siren_follows(place.siren), urgent=True)
    pipeline.on_renewed(lambda: place.siren.sound("alarm"))
    memory = FallMemory(place.folder, place.boot_id, time.monotonic)
    restored = memory.restore(pipeline, logged_stages(place.recorder))
    if restored.corrected:
        # A later start may find the log slow or gone.
        memory.save(pipeline.save())
    if pipeline.machine.state in OPEN:
        place.siren.sound(pipeline.machine.state.value)
    else:
        place.siren.silence()  # the daemon sounds by the saved state alone
    for kind, what, data in restored.tell:
        announce(kind, what, data)
    return memory, restored.asleep_s


def nobody_wears(source: AccelerometerSource) -> bool:
    """Whether falls of this source are nobody's."""
    return isinstance(source, SimulatedAccelerometer) or is_model(source)
