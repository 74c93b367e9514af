"""The scenes of the simulated wearer by name, as a config names them."""

from __future__ import annotations

from edge_rt.core.errors import ConfigError
from edge_rt.falls.simulate import ACTIVITIES, DEMO_SCRIPT, FALLS, Script, Simulation, simulate

# "demo", "walking", ..., "fall-seated", ...
SCENES: dict[str, Script] = {
    "demo": DEMO_SCRIPT,
    **ACTIVITIES,
    **{f"fall-{name}": script for name, script in FALLS.items()},
}


def simulated_scene(name: str, seed: int, rate_hz: float, placement: str) -> Simulation:
    """Raises ConfigError for an unknown scene."""
    if name not in SCENES:
        raise ConfigError(f"falls.source: no scene {name!r}; choose from {', '.join(SCENES)}")
    return simulate(SCENES[name], seed, rate_hz=rate_hz, placement=placement)
