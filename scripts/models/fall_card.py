"""CARD.md of the fall bundles, from the figures that build_fall.py measured."""

from __future__ import annotations

from typing import Any

from edge_rt.core.manifest import FallManifest

TEXT = """\
# {name} {version}

Scores how much the last {seconds:.1f} s of acceleration at the {placement} look like a fall and
what comes after it. **Not a medical device.** Made to raise a question ("are you all right?")
early, not to replace any other care.

## Data

- SisFall (Sucerquia, Lopez, Vargas-Bonilla 2017, Sensors 17(1):198, doi 10.3390/s17010198): belt
  buckle, 200 Hz, 26 subjects, 1275 falls and 1862 activities.
- WEDA-FALL (Marques & Moreno 2023, Sensors 23(3):1146, doi 10.3390/s23031146): wrist, 50 Hz by
  Bluetooth, 15 subjects, 225 falls and 377 activities.

One network is trained on both and shipped in two bundles, which differ in the threshold. The
weights are trained from scratch; neither data set states a licence, and no recording is in here.

## Protocol

Subject-disjoint cross-validation in {folds} folds: each recording is scored by a network that has
seen no recording of that person. Scoring is streaming and causal, over whole recordings, through
the pipeline that runs on the device (clock, resampling to {rate:g} Hz, channels, int8 network on
{engine}, mean of {smooth} scores, alarm machine). A fall is detected if a pre-alarm is raised
in its recording; an activity with one is a false alarm. The threshold, {threshold:g}, is one for
all folds, and is the shipped one. It was set with these figures in view (the table below shows how
little depends on it), so they are slightly too good.

## Figures (95 % Wilson intervals)

| {placement} | sensitivity | specificity |
|---|---|---|
| int8, as shipped | {int8_sens} | {int8_spec} |
| float32, same weights | {float_sens} | {float_spec} |

Delay from the largest acceleration to the pre-alarm: median {p50:.2f} s, 95 % {p95:.2f} s.
False alarms: {rate_fa:.2f} an hour of *scripted* activities ({hours:.1f} h, rich in jumps, jogging
and sitting down hard); ordinary days hold fewer of those, and were not measured.

| threshold | sensitivity | specificity |
|---|---|---|
{sweep}

| activity | recordings | errors |
|---|---|---|
{errors}

(activities without an error are left out; codes are those of the data set)

## Limits

- All falls were simulated, onto mattresses, mostly by young adults; older people did activities
  only. On recordings of real falls published methods lose sensitivity, and this one was not tried.
- Cross-validation stays within two data sets. Other sensors, other places on the body and other
  scripts of activities cost more than these intervals say.
- Unknown: long unscripted wear, wheelchairs, crutches, falls down stairs, slow sliding to the
  floor, pets, vehicles.
- Trained with sensors of 12 to 60 Hz, ranges of 2 to 16 g, gain +-12 %, offset 0.04 g and noise
  up to 0.02 g simulated; outside of these nothing is known.

## Licence

Weights: Apache-2.0. Rebuild: `{script}` (seed {seed}; {packages}).
"""


def card(placement: str, manifest: FallManifest, figures: dict[str, Any]) -> str:
    """The card of one bundle; `figures` holds a summary (edge_rt.evaluation.fall) per kind."""
    int8, float32 = figures["int8"], figures["float32"]
    grid, provenance = manifest.input, manifest.provenance
    return TEXT.format(
        name=manifest.name,
        version=manifest.version,
        placement=placement,
        seconds=grid.window / grid.rate_hz,
        rate=grid.rate_hz,
        smooth=manifest.decision.smooth,
        threshold=manifest.decision.threshold.value,
        folds=figures["folds"],
        engine=figures["engine"],
        int8_sens=_share(int8, "sensitivity", "falls"),
        int8_spec=_share(int8, "specificity", "adls"),
        float_sens=_share(float32, "sensitivity", "falls"),
        float_spec=_share(float32, "specificity", "adls"),
        p50=int8["delay_s"]["p50"],
        p95=int8["delay_s"]["p95"],
        rate_fa=int8["false_alarms_per_hour"],
        hours=int8["hours"],
        sweep="\n".join(
            f"| {threshold} | {sensitivity:.4f} | {specificity:.4f} |"
            for threshold, (sensitivity, specificity) in figures["sweep"].items()
        ),
        errors="\n".join(_errors(int8["per_activity"])),
        script=provenance.script,
        seed=provenance.seed,
        packages=", ".join(provenance.packages),
    )


def _share(figures: dict[str, Any], name: str, of: str) -> str:
    low, high = figures[f"{name}_ci95"]
    hits = round(figures[name] * figures[of])
    return f"{figures[name]:.4f} ({low:.4f} to {high:.4f}; {hits} of {figures[of]})"


def _errors(per_activity: dict[str, dict[str, int]]) -> list[str]:
    rows = []
    for activity, row in per_activity.items():
        missed, wrong = row["falls"] - row["detected"], row["false_alarms"]
        if missed or wrong:
            what = f"{missed} missed" if missed else f"{wrong} false alarms"
            rows.append(f"| {activity} | {row['falls'] + row['adls']} | {what} |")
    return rows
