"""The report's figures. A method has one colour, one marker and one line everywhere; the same input gives the same bytes."""

from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np

from scripts.report import aggregates, comparisons
from scripts.report.aggregates import Curve, Matrix
from scripts.report.data import BUDGETS, OURS_FIRST, Published, counted, method_name, ordered
from scripts.trees import DMCONTROL, Tree

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers can tell apart; methods beyond eight differ in marker and line
STYLES: dict[str, tuple[str, str, str]] = {
    "mlr": ("#0072B2", "o", "-"),
    "baseline": ("#D55E00", "s", "--"),
    "playvirtual": ("#009E73", "^", "-."),
    "drq": ("#E69F00", "D", (0, (3, 1, 1, 1, 1, 1))),  # plain dots are for runs that were cut off
    "curl": ("#CC79A7", "v", (0, (5, 1))),
    "spr": ("#56B4E9", "P", (0, (3, 1, 1, 1))),
    "slac": ("#B22222", "X", (0, (3, 1, 1, 1))),
    "sac_ae": ("#000000", "<", (0, (1, 1))),
    "dreamer": ("#7F7F7F", ">", (0, (7, 2))),
    "planet": ("#B5A300", "h", (0, (4, 2, 1, 2))),
    "der": ("#000000", "<", (0, (1, 1))),
    "drq_eps": ("#F0E442", "D", (0, (3, 1, 1, 1, 1, 1))),
    "otr": ("#7F7F7F", ">", (0, (7, 2))),
    "madi": ("#882255", "*", (0, (6, 1, 1, 1))),
    "svea": ("#44AA99", "p", (0, (2, 1))),
    "sac": ("#A6761D", "8", (0, (5, 2))),
    "rad": ("#AA4499", "H", (0, (3, 2))),
    "soda": ("#117733", "1", (0, (1, 2))),
    "sgqn": ("#332288", "2", (0, (4, 1))),
    "mlr_madi": ("#661100", "*", (0, (6, 1, 1, 1))),
}
OTHER = ("#999933", "d", (0, (8, 1)))
SCORE_LABEL = {"dmcontrol": "evaluation return", "atari": "human-normalised score"}


def style(method: str) -> tuple[str, str, str]:
    return STYLES.get(method, OTHER)


def save(figure: Figure, folder: Path, name: str) -> None:
    """As PNG and SVG, without dates, versions or random names in them."""
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "report"}):
        figure.savefig(folder / f"{name}.png", dpi=130, metadata={"Software": None})
        figure.set_layout_engine("none")  # the PNG has its layout already
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)


def tidy(axes: Axes) -> None:
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def draw_curve(axes: Axes, method: str, curve: Curve, hours: bool) -> None:
    colour, marker, line = style(method)
    x = curve.hours if hours else curve.steps / 1000
    axes.plot(x, curve.mean, color=colour, linestyle=line, marker=marker, markersize=3.5, markevery=max(1, len(x) // 8), linewidth=1.6)
    if curve.bounds is not None:
        axes.fill_between(x, *curve.bounds, color=colour, alpha=0.18, linewidth=0)


def legend(figure: Figure, methods: list[str], published: list[str]) -> None:
    handles = []
    for method in methods:
        colour, marker, line = style(method)
        handles.append(pyplot.Line2D([], [], color=colour, linestyle=line, marker=marker, markersize=4, label=method_name(method)))
    for method in published:
        colour, marker, _ = style(method)
        label = f"{method_name(method)}, published"
        handles.append(pyplot.Line2D([], [], color=colour, marker=marker, markerfacecolor="white", linestyle="", label=label))
    ncols = max(1, min(len(handles), int(figure.get_figwidth() / 1.7)))  # as wide as the figure at most
    figure.legend(handles=handles, loc="outside upper center", ncols=ncols, frameon=False, fontsize=9)


def published_points(
    tree: Tree, published: Published, panels: dict[str, dict[str, Curve]], cut: dict[str, list[tuple[str, Curve]]]
) -> dict[str, list[tuple[str, int, float]]]:
    """title -> (method, budget, score) of the methods with a run in this panel, up to the last step of its runs."""
    points: dict[str, list[tuple[str, int, float]]] = {}
    for title, shown in panels.items():
        drawn = [*shown.items(), *cut.get(title, [])]
        end = max((curve.steps[-1] for _, curve in drawn), default=0)
        for method in [m for m in OURS_FIRST if m in dict(drawn)]:
            for budget in BUDGETS[tree.name]:
                score = published.scores.get((budget, title, method))
                if score is not None and budget <= end * 1.05:
                    score = aggregates.normalise(tree, published, title, score)
                    points.setdefault(title, []).append((method, budget, score))
    return points


def curves(
    folder: Path,
    name: str,
    tree: Tree,
    panels: dict[str, dict[str, Curve]],
    cut: dict[str, list[tuple[str, Curve]]],
    points: dict[str, list[tuple[str, int, float]]],
    hours: bool,
) -> None:
    """A panel per task and one for the aggregate. panels: title -> method -> curve; cut: runs that ended early, as dotted lines.

    points: published scores, shown against steps alone.
    """
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    figure, grid = pyplot.subplots(rows, columns, figsize=(3.5 * columns + 0.3, 2.7 * rows + 0.5), squeeze=False, layout="constrained")
    shown: set[str] = set()
    for axes, title in zip(grid.flat, panels, strict=False):
        for method, curve in panels[title].items():
            draw_curve(axes, method, curve, hours)
            shown.add(method)
        for method, curve in cut.get(title, []):
            axes.plot(curve.hours if hours else curve.steps / 1000, curve.mean, color=style(method)[0], linestyle=":", linewidth=0.9)
            shown.add(method)
        seeds = sorted({c.seeds for c in panels[title].values()})
        count = "-".join(str(s) for s in ([seeds[0], seeds[-1]] if len(seeds) > 1 else seeds))
        axes.set_title(f"{title}" + (f" ({count} seed{'s' if count != '1' else ''})" if count else ""), fontsize=9)
        for method, budget, score in [] if hours else points.get(title, []):
            colour, marker, _ = style(method)
            axes.plot([budget / 1000], [score], color=colour, marker=marker, markerfacecolor="white", linestyle="", clip_on=False, zorder=5)
        axes.set_xlabel("hours of the run (mean over seeds)" if hours else f"{tree.unit} (thousands)", fontsize=8)
        axes.tick_params(labelsize=8)
        if tree is DMCONTROL:
            axes.set_ylim(bottom=0)
        tidy(axes)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel(SCORE_LABEL[tree.name], fontsize=8)
    legend(figure, ordered(shown), [] if hours else ordered(m for own in points.values() for m, _, _ in own))
    save(figure, folder, name)


def bars(
    folder: Path,
    name: str,
    panels: dict[str, tuple[dict[str, float], dict[str, tuple[float, tuple[float, float] | None]]]],
    bounds_name: str,
) -> None:
    """Two bars for each method: ours with bounds, and above it, paler, the published aggregate. panels: title -> (published, ours)."""
    figure, grid = pyplot.subplots(1, len(panels), figsize=(3.4 * len(panels), 3.4), squeeze=False, layout="constrained")
    for axes, (title, (published, ours)) in zip(grid[0], panels.items(), strict=True):
        methods = ordered([*published, *ours])[::-1]
        for position, method in enumerate(methods):
            colour, _, _ = style(method)
            if method in published:
                axes.barh(position + 0.2, published[method], color=colour, alpha=0.35, height=0.36)
            if method in ours:
                value, bounds = ours[method]
                error = None if bounds is None else [[max(0.0, value - bounds[0])], [max(0.0, bounds[1] - value)]]
                axes.barh(position - 0.2, value, xerr=error, color=colour, height=0.36, capsize=3)
        axes.set_yticks(range(len(methods)), [method_name(m) for m in methods], fontsize=8)
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=8)
        tidy(axes)
    label = f"ours, {bounds_name}" if bounds_name else "ours"
    handles = [pyplot.Rectangle((0, 0), 1, 1, color="grey", label=label)]
    if any(published for published, _ in panels.values()):
        handles.append(pyplot.Rectangle((0, 0), 1, 1, color="grey", alpha=0.35, label="published"))
    figure.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False, fontsize=8)
    save(figure, folder, name)


def profiles(folder: Path, name: str, tree: Tree, matrices: dict[str, Matrix], budget: str) -> None:
    """The share of runs that score above a threshold."""
    top = 1000.0 if tree is DMCONTROL else max(2.0, float(np.ceil(max(m.scores.max() for m in matrices.values()))))
    taus = np.linspace(0, top, 101)
    figure, axes = pyplot.subplots(figsize=(5, 3.4), layout="constrained")
    for method, matrix in matrices.items():
        colour, marker, line = style(method)
        share, bounds = aggregates.profile(matrix.scores, taus)
        axes.plot(taus, share, color=colour, linestyle=line, marker=marker, markevery=10, markersize=3.5, label=method_name(method))
        if bounds is not None:
            axes.fill_between(taus, *bounds, color=colour, alpha=0.18, linewidth=0)
    axes.set(xlabel=f"{SCORE_LABEL[tree.name]} τ, {budget}", ylabel="share of runs above τ", ylim=(0, 1.02))
    axes.legend(frameon=False, fontsize=8)
    tidy(axes)
    save(figure, folder, name)


def improvement(folder: Path, name: str, found: dict[str, tuple[float, tuple[float, float] | None]]) -> None:
    """P(MLR > other) per other method and budget, with its interval; at 0.5 neither is better."""
    figure, axes = pyplot.subplots(figsize=(5, 0.9 + 0.45 * len(found)), layout="constrained")
    for position, (_, (value, bounds)) in enumerate(reversed(found.items())):
        error = None if bounds is None else [[max(0.0, value - bounds[0])], [max(0.0, bounds[1] - value)]]
        axes.errorbar(value, position, xerr=error, color=style("mlr")[0], marker=style("mlr")[1], capsize=3)
    axes.axvline(0.5, color="black", linewidth=0.8, linestyle="--")
    axes.set_yticks(range(len(found)), list(reversed(found)), fontsize=8)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.6, len(found) - 0.4), xlabel="probability of improvement")
    tidy(axes)
    save(figure, folder, name)


def ablations(folder: Path, name: str, found: list[comparisons.Ablation], step_text: Callable[[comparisons.Ablation], str]) -> None:
    """A panel per setting that was changed: each run a dot, their mean a bar; the method as it stands is filled.

    Dashed: the Baseline's mean, in a band from its lowest run to its highest.
    """
    columns = min(4, len(found))
    rows = -(-len(found) // columns)
    figure, grid = pyplot.subplots(rows, columns, figsize=(3.2 * columns, 3.1 * rows), squeeze=False, layout="constrained")
    colour = style("mlr")[0]
    for axes, ablation in zip(grid.flat, found, strict=False):
        numeric = ablation.key == "mlr.mask.ratio"
        default = comparisons.DEFAULTS[ablation.key]
        others = sorted(v for v in ablation.values if v != default)
        values = sorted(ablation.values, key=float) if numeric else [v for v in (default, *others) if v in ablation.values]
        for position, value in enumerate(values):
            scores = ablation.values[value]
            own = value == default
            axes.bar(position, np.mean(scores), color=colour, alpha=0.6 if own else 0.2, width=0.65)
            offsets = np.linspace(-0.15, 0.15, len(scores)) if len(scores) > 1 else [0.0]
            axes.plot(position + np.array(offsets), scores, "o", color=colour, markersize=4, markeredgecolor="white", linestyle="")
        one = len(ablation.tasks) == 1
        if ablation.baseline:
            low, high, count = min(ablation.baseline), max(ablation.baseline), len(ablation.baseline)
            label = f"Baseline, mean{' and range' if count > 1 else ''} ({counted(count, 'seed' if one else 'run')})"
            axes.axhline(np.mean(ablation.baseline), color=style("baseline")[0], linestyle="--", linewidth=1.2, label=label)
            axes.axhspan(low, high, color=style("baseline")[0], alpha=0.1, linewidth=0, zorder=0)
            axes.legend(loc="lower right", fontsize=7, framealpha=0.9)
        over = ablation.tasks[0] if one else counted(len(ablation.tasks), ablation.tree.task)
        labels = [{"True": "with", "False": "without"}.get(v, v) for v in values]
        axes.set_xticks(
            range(len(values)),
            [f"{t}\n{counted(len(ablation.values[v]), 'seed' if one else 'run')}" for t, v in zip(labels, values, strict=True)],
            fontsize=8,
        )
        axes.set_title(f"{comparisons.ABLATIONS[ablation.key]}\n{over}, {step_text(ablation)}", fontsize=8)
        axes.set_ylabel(SCORE_LABEL[ablation.tree.name], fontsize=8)
        axes.tick_params(labelsize=8)
        tidy(axes)
    for axes in grid.flat[len(found) :]:
        axes.set_visible(False)
    save(figure, folder, name)
