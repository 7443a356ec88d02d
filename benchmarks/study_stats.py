"""Do the study's intervals and verdicts keep their promise? Thousands of simulated studies.

    .venv/bin/python -m benchmarks.study_stats [--quick]

Each study is made of noise with the sizes that the demo's study has, and goes through the very
functions that `assay study` uses. Its arms are compared with one control, so its tests depend on
each other. In a *null* study no arm differs; the false-positive rate counts the studies in which
*any* arm is called better or worse. In a *planted* one the first arm is better by exactly what the
power calculation says can be seen with a chance of 80 %. In a world with sources all this is of
the intervals by source: any arm on any source, and an effect in the last source alone. Prints a
table and, last, one JSON object.
"""

import argparse
import json
import math
import time
from typing import Any, NamedTuple

import numpy as np

from trainer.stats import (
    Difference,
    Floats,
    Ints,
    effective_documents,
    paired_differences,
    source_differences,
    verdict_of,
)
from trainer.study_power import detectable_difference

LEVEL = 0.05
SAMPLES = 1000
PLANNED_POWER = 0.8


class World(NamedTuple):
    """Where studies come from; standard deviations in bits per byte.

    `size_sigma` is that of ln(bytes); noise is Student's t with 5 degrees of freedom, since real
    differences have heavy tails. `sources` are the documents of each source, `documents` in all,
    where arms are compared by source.
    """

    name: str
    seeds: int
    documents: int
    arms: int
    seed_sd: float
    document_sd: float
    joint_sd: float
    size_sigma: float
    sources: tuple[int, ...] = ()


WORLDS = (
    World("as the demo", 3, 85, 2, 0.007, 0.04, 0.02, 1.2),
    World("five seeds, seven arms", 5, 300, 7, 0.007, 0.04, 0.02, 1.2),
    World("two seeds, one arm", 2, 85, 1, 0.007, 0.04, 0.02, 1.2),
    World("documents decide", 3, 40, 2, 0.0005, 0.08, 0.02, 1.5),
    World("seeds decide", 3, 300, 2, 0.02, 0.01, 0.01, 1.0),
    World("by source", 3, 141, 3, 0.007, 0.04, 0.02, 1.2, (2, 3, 6, 30, 100)),
    World("by source, documents decide", 3, 141, 3, 0.0005, 0.08, 0.02, 1.5, (2, 3, 6, 30, 100)),
)


def draw_sizes(rng: np.random.Generator, world: World) -> Ints:
    """Return the bytes of the validation documents, `int64[D]`."""
    return (rng.lognormal(8, world.size_sigma, world.documents) + 100).astype(np.int64)


def simulate(
    rng: np.random.Generator, world: World, sizes: Ints, effects: Floats
) -> tuple[dict[str, Floats], Floats]:
    """Return the arms' and the control's bits `float64[S, D]` of one study.

    Every arm and the control draw their own noise, so a difference has √2 times a standard
    deviation of one; `World` gives that of differences. The first arm is better by
    `effects: float64[D]`, bits per byte of each document.
    """
    S, D = world.seeds, world.documents

    def bits() -> Floats:
        noise = (
            world.seed_sd * rng.standard_normal((S, 1))
            + world.document_sd * heavy(rng, (1, D))
            + world.joint_sd * heavy(rng, (S, D))
        )
        return (2.0 + noise / np.sqrt(2)) * sizes

    arms = {f"arm{i}": bits() for i in range(world.arms)}
    arms["arm0"] = arms["arm0"] - effects * sizes
    return arms, bits()


def heavy(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Return Student's t noise (5 degrees of freedom) of variance 1."""
    return rng.standard_t(5, shape) / np.sqrt(5 / 3)


def planned_effect(world: World, sizes: Ints) -> float:
    """Return the effect that this study sees with a chance of `PLANNED_POWER`, by calculation.

    It goes by the standard deviations that a study of this world measures over its seeds, and over
    its documents: noise that belongs to seed *and* document is a part of both.
    """
    documents = effective_documents(sizes)
    return detectable_difference(
        seeds=world.seeds,
        seed_sd=math.hypot(world.seed_sd, world.joint_sd / math.sqrt(documents)),
        document_sd=math.hypot(world.document_sd, world.joint_sd / math.sqrt(world.seeds)),
        documents=documents,
        level=LEVEL / world.arms / max(1, len(world.sources)),
        power=PLANNED_POWER,
    )


def planted(world: World, sizes: Ints) -> tuple[Floats, float]:
    """Return the planned effect on each document, `float64[D]`, and in bits per byte.

    It is of all documents, or of those of the last source.
    """
    last = world.sources[-1] if world.sources else world.documents
    effect = planned_effect(world, sizes[-last:])
    return np.where(np.arange(world.documents) >= world.documents - last, effect, 0.0), effect


def differences(
    world: World, arms: dict[str, Floats], control: Floats, sizes: Ints
) -> list[tuple[bool, Difference]]:
    """Compare a study's arms; True for the first arm (on the last source), the one with the effect.

    The first arm has no effect on the other sources.
    """
    if not world.sources:
        found = paired_differences(arms, control, sizes, LEVEL, SAMPLES)
        return [(name == "arm0", difference) for name, difference in found.items()]
    sources = np.repeat(np.arange(len(world.sources)), world.sources)
    by_source = source_differences(arms, control, sizes, sources, LEVEL, SAMPLES)
    last = len(world.sources) - 1
    return [
        (source == last and name == "arm0", difference)
        for source, found in by_source.items()
        for name, difference in found.items()
    ]


def measure(world: World, studies: int, seed: int) -> dict[str, Any]:
    """Simulate `studies` null studies and as many planted ones."""
    rng = np.random.default_rng(seed)
    false, covered, found, intervals = 0, 0, 0, 0
    for _ in range(studies):
        sizes = draw_sizes(rng, world)
        for effects, effect in ((np.zeros(world.documents), 0.0), planted(world, sizes)):
            arms, control = simulate(rng, world, sizes, effects)
            results = differences(world, arms, control, sizes)
            verdicts = [verdict_of(r.both, gate_passed=True) for _, r in results]
            hits = [r.both.low <= (-effect if own else 0.0) <= r.both.high for own, r in results]
            covered += sum(hits)
            intervals += len(hits)
            if effect:
                called = zip(results, verdicts, strict=True)
                found += any(own and verdict == "arm better" for (own, _), verdict in called)
            else:
                false += any(verdict != "no difference seen" for verdict in verdicts)
    return {
        "world": world.name,
        "studies": 2 * studies,
        "false_positive_rate": false / studies,
        "coverage_95": covered / intervals,
        "power_at_planned_effect": found / studies,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="1,050 null studies, as many planted")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    studies = 150 if options.quick else 2000
    started = time.perf_counter()
    rows = []
    for world in WORLDS:
        rows.append(measure(world, studies, options.seed))
        row = rows[-1]
        print(
            f"{row['world']:<28} false positives {row['false_positive_rate']:.4f}"
            f"  coverage {row['coverage_95']:.4f}  power {row['power_at_planned_effect']:.3f}",
            flush=True,
        )
    keys = ("false_positive_rate", "coverage_95", "power_at_planned_effect")
    print(
        json.dumps(
            {key: round(float(np.mean([row[key] for row in rows])), 5) for key in keys}
            | {
                "studies": sum(row["studies"] for row in rows),
                "level": LEVEL,
                "worlds": rows,
                "seconds": round(time.perf_counter() - started, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
