"""What adversarial training takes on TPUs: memory, collectives and seconds at best, a row a plan.

    JAX_PLATFORMS=cpu python experiments/scale/plans.py [--only NETWORK] [--table]

Hardware: two CPU cores, 10 GB and libtpu; three hours, in any pieces.

Each row is one compilation of the program that `robustjax train` calls, by the TPU's own compiler;
no TPU is needed. Rows already in results/plans.json are kept, so the script may be stopped and
started again. A row takes minutes. --table writes the Markdown table into docs/scale.md, with the
rows that were not run.
"""

import functools
import pathlib

import numpy as np
import rows

from robustjax import data, training
from robustjax.scale import plan
from robustjax.scale.chips import TERA

RESULT = rows.RESULTS / "plans.json"
DOCS = pathlib.Path(__file__).parents[2] / "docs" / "scale.md"
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
    """One row: the plan as JSON."""
    return plan(
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
    ).to_json()


def name_of(network: str, topology: str, batch: int) -> str:
    return f"{network} {topology} {batch}"


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
    parser = rows.parser(__doc__)
    parser.add_argument("--only", default="", help="the rows whose name begins so")
    parser.add_argument("--table", action="store_true", help="write docs/scale.md and compile none")
    options = parser.parse_args()
    if not options.table:
        rows.start(RESULT, options)
        for row in ROWS:
            if name_of(*row).startswith(options.only):
                rows.add(RESULT, name_of(*row), functools.partial(measure, *row))
    text = DOCS.read_text()
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    DOCS.write_text(text[:start] + table(rows.load(RESULT)) + text[end:])


if __name__ == "__main__":
    main()
