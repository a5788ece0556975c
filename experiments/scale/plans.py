"""What adversarial training takes on TPUs: memory, collectives and seconds at best, a row a plan.

    JAX_PLATFORMS=cpu python experiments/scale/plans.py [--rows N] [--table]

Each row is one compilation of the step that `robustjax train` runs, by the TPU's own compiler; no
TPU is needed. Rows already in results/plans.json are kept, so the script may be stopped and started
again. A row takes minutes. --table writes the Markdown table into docs/scale.md, with the rows that
were not run.
"""

import argparse
import json
import pathlib
import time

import jax
import numpy as np

from robustjax import data, files, training
from robustjax.scale import plan
from robustjax.scale.chips import TERA

ROOT = pathlib.Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results" / "plans.json"
DOCS = ROOT / "docs" / "scale.md"
BEGIN, END = "<!-- plans -->\n", "<!-- end of plans -->\n"
GIB = 2**30

ROWS = [
    ("wrn-28-10", "v5e:4x4", 1024),
    ("vit-b-4", "v5e:4x4", 1024),
    ("wrn-28-10", "v6e:4x4", 2048),
    ("wrn-28-10", "v5e:2x4", 512),
    ("wrn-34-20", "v5e:4x4", 512),
    ("wrn-34-20", "v5p:2x2x4", 1024),
    ("wrn-28-10", "v5e:16x16", 4096),
    ("wrn-70-16", "v5e:8x8", 1024),
    ("wrn-70-16", "v5p:4x4x4", 4096),
    ("wrn-34-20", "v5e:16x16", 4096),
    ("wrn-34-20", "v6e:8x8", 2048),
    ("vit-b-4", "v6e:8x8", 4096),
    ("vit-b-4", "v5e:16x16", 4096),
    ("wrn-70-16", "v6e:8x8", 2048),
    ("wrn-70-16", "v5e:16x16", 4096),
]
"""(network, slice, batch): PGD-10 adversarial training on CIFAR-10's shapes in bfloat16."""


def blank() -> data.Dataset:
    """CIFAR-10's shapes."""
    images = np.broadcast_to(np.uint8(0), (50_000, 32, 32, 3))
    labels = np.zeros(50_000, np.int32)
    return data.Dataset(images, labels, np.arange(50_000), "cifar10", "train", 10)


def measure(network: str, topology: str, batch: int, remat: bool = False) -> dict:
    """One row: the plan as JSON, and the seconds that the compiler took."""
    began = time.time()
    found = plan(
        training.PGDAT(),
        blank(),
        model={
            "name": network,
            "dtype": "bfloat16",
            "remat": remat,
            "mean": (0.5,) * 3,
            "std": (0.5,) * 3,
        },
        recipe=training.Recipe(batch_size=batch),
        topology=topology,
        alternatives=False,
    )
    return found.to_json() | {"compiling_seconds": round(time.time() - began, 1)}


def name_of(network: str, topology: str, batch: int) -> str:
    return f"{network} {topology} {batch}"


def load() -> dict:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def cells(row: tuple, found: dict | None) -> list[str]:
    """A line of the table."""
    network, topology, batch = row
    if found is None:
        return [network, topology, str(batch), "not run", *[""] * 8]
    if not found["fits"]:
        needed = f"{found['bytes_needed'] / GIB:.1f} of {found['bytes_available'] / GIB:.1f}"
        return [network, topology, str(batch), f"does not fit: {needed}", *[""] * 8]
    seconds = found["seconds_per_step_at_best"]
    reduced = [c for c in found["collectives"] if c["opcode"] == "all-reduce"]
    flops = found["flops_per_step_and_device"]
    step = max(seconds.values())
    return [
        network,
        topology,
        str(batch),
        f"{found['bytes_needed'] / GIB:.2f} of {found['bytes_available'] / GIB:.1f}",
        str(sum(c["times"] for c in reduced)),
        f"{sum(c['times'] * c['bytes'] for c in reduced) / 2**20:.0f}",
        f"{flops / TERA:.2f}",
        f"{1000 * seconds['compute']:.0f}",
        f"{1000 * seconds['memory']:.0f}",
        f"{step * found['steps_per_epoch']:.1f}",
        f"{step * found['steps_per_epoch'] * found['epochs'] / 3600:.2f}",
        f"{found['estimated_cycles'] / 1e6:.0f}",
    ]


def table(results: dict) -> str:
    head = ["network", "slice", "batch", "GiB a device", "all-reduces", "MiB reduced"]
    head += ["TFLOP a device", "ms at peak", "ms of memory", "s an epoch", "h for 110 epochs"]
    head += ["megacycles"]
    lines = [head, ["---"] * 3 + ["---:"] * 9]
    lines += [cells(row, results.get(name_of(*row))) for row in ROWS]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=len(ROWS), help="of the list, from its start")
    parser.add_argument("--table", action="store_true", help="write docs/scale.md and compile none")
    options = parser.parse_args()
    if not options.table:
        jax.config.update("jax_platforms", "cpu")
        for row in ROWS[: options.rows]:
            results = load()
            if name_of(*row) not in results:
                results[name_of(*row)] = found = measure(*row)
                files.write_json(RESULTS, results)
                print(*cells(row, found), f"{found['compiling_seconds']} s", flush=True)
    text = DOCS.read_text()
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    DOCS.write_text(text[:start] + table(load()) + text[end:])


if __name__ == "__main__":
    main()
