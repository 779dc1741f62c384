# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Write what a grid found: a page with tables and curves, drawn from the numbers beside it.

    python benchmarks/convergence/report.py --grid benchmarks/convergence/grid-cpu.yaml \\
        --output_dir runs/convergence --docs docs

Takes the runs that are whole, be it not all of them, and joins them to those that the page has already: not all need
be measured at once, nor on one machine. What the numbers mean is written by hand, in `findings.md`.
"""

import argparse
from pathlib import Path

import jinja2
import matplotlib
import numpy as np
from arms import ARMS
from results import DETAIL, HEADLINE, IS_AS, METRICS, collect, join, measured_in_all, read_numbers, write_numbers
from speedup import mean_of_known

from diffusers_vilearn.files import write_atomically

matplotlib.use("Agg")
from matplotlib import pyplot as plt

TEMPLATE, FINDINGS = (Path(__file__).with_name(name) for name in ("report.md.jinja", "findings.md"))
LABELS = {
    IS_AS: "IS-AS ↑",
    "chamfer": "Chamfer ↓",
    "f_score@0.05": "F-score@0.05 ↑",
    "f_score@0.02": "F-score@0.02 ↑",
    "iou": "IoU ↑",
    "floaters": "floaters ↓",
    "visible_recall@0.05": "visible recall ↑",
    "invisible_recall@0.05": "invisible recall ↑",
}


def style(index: int) -> dict[str, str]:
    """Colour and dashes of one of up to twenty lines."""
    return {"color": f"C{index % 10}", "linestyle": "-" if index < 10 else "--"}


def draw_curves(regime: dict, path: Path) -> None:
    """Each metric over the steps: the mean over seeds, and a band from the worst to the best seed."""
    measured = {arm: measured_in_all(by_seed.values()) for arm, by_seed in regime["runs"].items()}
    columns, metrics = 4, list(dict.fromkeys(name for names in measured.values() for name in names))
    figure, axes = plt.subplots(-(-len(metrics) // columns), columns, figsize=(16, 8), layout="constrained")
    steps = regime["settings"]["scoring"]["steps"]
    for axis, metric in zip(axes.flat, metrics):
        for index, (arm, by_seed) in enumerate(regime["runs"].items()):
            if metric not in measured[arm]:
                continue
            values = np.array([mean_of_known(run.curve[metric], axis=1) for run in by_seed.values()])
            axis.plot(steps, values.mean(axis=0), label=arm, marker=".", **style(index))
            axis.fill_between(steps, values.min(axis=0), values.max(axis=0), color=style(index)["color"], alpha=0.12)
        axis.set(title=LABELS[metric], xscale="log", xlabel="steps")
        axis.set_xticks(steps, steps, fontsize="small", rotation=45)
        axis.minorticks_off()
    for axis in axes.flat[len(metrics) :]:
        axis.axis("off")
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def draw_losses(regime: dict, path: Path) -> None:
    """The diagnostic validation loss over the steps, in each bin of the noise level."""
    runs, steps = regime["runs"], regime["settings"]["scoring"]["steps"]
    bins = next(iter(next(iter(runs.values())).values())).losses[0]
    figure, axes = plt.subplots(1, len(bins), figsize=(4 * len(bins), 4), layout="constrained", squeeze=False)
    for bin_index, (axis, one) in enumerate(zip(axes[0], bins)):
        for index, (arm, by_seed) in enumerate(runs.items()):
            values = np.array([[step[bin_index]["loss"] for step in run.losses] for run in by_seed.values()])
            axis.plot(steps, values.mean(axis=0), label=arm, **style(index))
        axis.set(title=f"sigma {one['low']:.1f} to {one['high']:.1f}", xscale="log", yscale="log", xlabel="steps")
        axis.set_xticks(steps, steps, fontsize="small", rotation=45)
        axis.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    axes[0, 0].legend(fontsize="small")
    figure.suptitle("Diagnostic only: loss with each arm's own mask, which is information")
    figure.savefig(path, dpi=80)
    plt.close(figure)


def interval(value: dict[str, float | None] | None, digits: int = 3) -> str:
    """`mean [low, high]`, without the interval of a single seed; a dash for nothing."""
    if value is None:
        return "—"
    text = f"{value['mean']:.{digits}f}"
    if value["low"] is not None:
        text += f" [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"
    return text


def sped_up(regime: dict) -> list[str]:
    """Of the metrics that speed-ups are given of, those that some arm has one of."""
    rows = regime["summary"].values()
    return [name for name in HEADLINE if any(name in row.get("speed_ups", {}) for row in rows)]


def extra_table(regime: dict, prefix: str) -> dict[str, dict[str, dict[str, float]]]:
    """Arm -> setting of the tasks named `prefix-setting` -> metric -> mean over seeds."""
    table = {}
    for arm, by_seed in regime["runs"].items():
        names = [name for name in next(iter(by_seed.values())).extra if name.startswith(f"{prefix}-")]
        for name in names:
            rows = [run.extra[name] for run in by_seed.values()]
            means = {metric: float(np.mean([row[metric] for row in rows])) for metric in (*METRICS, *DETAIL)}
            table.setdefault(arm, {})[name.removeprefix(f"{prefix}-")] = means
    return table


def write_report(regimes: dict[str, dict], findings: str, docs: Path, name: str) -> None:
    """`<name>.md`, `<name>.json` and `images/<name>-*.png` in `docs`.

    Args:
        regimes (`dict`): by name, of `join`.
        findings (`str`): Markdown, what the numbers mean.
        docs (`Path`), name (`str`): of the page.
    """
    (docs / "images").mkdir(parents=True, exist_ok=True)
    write_numbers(regimes, docs / f"{name}.json")
    for regime, found in regimes.items():
        draw_curves(found, docs / "images" / f"{name}-{regime}.png")
        draw_losses(found, docs / "images" / f"{name}-{regime}-losses.png")
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"interval": interval, "extra_table": extra_table, "sped_up": sped_up}
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    page = template.render(
        findings=findings,
        regimes=regimes,
        name=name,
        arms=ARMS,
        metrics=METRICS,
        labels=LABELS,
        detail=DETAIL,
    )
    lines = [line.rstrip() for line in page.splitlines()]
    write_atomically(docs / f"{name}.md", ("\n".join(lines) + "\n").encode())


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", type=Path, required=True)
    parser.add_argument("--output_dir", type=Path, required=True, help="That of run.py.")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="Folder to write to.")
    parser.add_argument("--name", default="convergence", help="Of the page.")
    parser.add_argument("--findings", type=Path, default=FINDINGS, help="Markdown that stands above the numbers.")
    return parser.parse_args()


if __name__ == "__main__":
    args = parse_args()
    known = read_numbers(args.docs / f"{args.name}.json")
    regimes = join(known, collect(args.grid, args.output_dir))
    write_report(regimes, args.findings.read_text(encoding="utf-8"), args.docs, args.name)
