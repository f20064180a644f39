"""The report's sections: what each measure shows, curves, settings, and what was left out of a run."""

import statistics
from collections.abc import Sequence

from kaleido_fast.model.kaleido_tasks import active_tasks
from kaleido_fast.report.curves import curve_png
from kaleido_fast.report.measure_parts import measure_cards, measure_section
from kaleido_fast.report.page import Markup, element, image, join, section, table
from kaleido_fast.report.run_files import RunFiles
from kaleido_fast.tasks.measure import Measure
from kaleido_fast.tasks.report_parts import percent
from kaleido_fast.training.run.ended import describe_end


def cards(run: RunFiles, measures: Sequence[Measure]) -> Markup:
    """Cards with the figures one looks for first; a note where the run was not evaluated yet."""
    if not run.evaluation:
        return section(
            "Not evaluated yet",
            element("p", f"Run `kaleido-fast evaluate {run.folder}`, then this report again."),
        )
    return measure_cards([card for measure in measures for card in measure.cards(run.evaluation)])


def numbers(run: RunFiles, measures: Sequence[Measure]) -> Markup:
    """The section of each measure."""
    return join(measure_section(measure.section(run.evaluation)) for measure in measures)


def examples(run: RunFiles, measures: Sequence[Measure]) -> Markup:
    """The examples of each measure that left some."""
    shown = (measure.examples(run.examples) for measure in measures)
    return join(measure_section(one) for one in shown if one is not None)


def curves(run: RunFiles) -> Markup:
    """A plot a loss and a plot an accuracy."""
    if not run.training:
        return section("Curves", element("p", "metrics.jsonl has no training line yet."))
    chances = {
        task.name: 1 / task.num_classes for task in active_tasks(run.config.kaleido) if task.num_classes
    }
    chances["itm"] = 0.5
    parts: list[object] = []
    for kind, title in (("losses", "Losses"), ("accuracy", "Accuracies")):
        names = list(dict.fromkeys(name for line in run.training for name in line.get(kind, {})))
        plots = [
            element(
                "figure",
                element("figcaption", name.replace("_", " ")),
                image(
                    curve_png(
                        name,
                        kind,
                        run.training,
                        run.validation,
                        chances.get(name) if kind == "accuracy" else None,
                    ),
                    "png",
                    f"{title.lower()} of {name} over the steps",
                ),
            )
            for name in names
        ]
        if plots:
            parts += [element("h3", title), element("div", *plots, css="plots")]
    return section("Curves", *parts)


def run_summary(run: RunFiles) -> Markup:
    """Length, speed, data, holes, skipped rows, what was picked, versions."""
    rows: list[list[object]] = []
    if run.training:
        last = run.training[-1]
        rows += [
            ["steps, samples", f"{last['step']:,}, {last['samples']:,}"],
            [
                "speed, median",
                f"{statistics.median(line['samples_per_s'] for line in run.training):.1f} samples/s",
            ],
            [
                "waiting for data, median",
                percent(statistics.median(line["data_wait_share"] for line in run.training)),
            ],
        ]
    if "ended" in run.summary:
        rows.append(["ended", describe_end(run.folder, run.summary["ended"])])
    rows += [[f"ended before, at step {end['step']}", describe_end(run.folder, end)] for end in run.summary.get("earlier", [])]
    data = run.summary.get("data", {})
    skipped = data.get("skipped", {})
    rows += [
        ["train samples, products", f"{data.get('train_samples', 0):,}, {data.get('train_products', 0):,}"],
        [
            "rows skipped by prepare",
            ", ".join(f"{reason}: {count}" for reason, count in skipped.items()) or "none",
        ],
        ["holes in training", f"{data.get('num_holes', 0)}"],
    ]
    rows += [[f"hole {name}", why] for name, why in data.get("holes", {}).items()]
    rows += [[name, why] for name, why in run.evaluation.get("broken", {}).items()]
    rows += [[key.replace("_", " "), value] for key, value in run.summary.get("picked", {}).items()]
    rows += [[key, value] for key, value in run.summary.get("versions", {}).items()]
    return section("The run", table([], rows, css="facts"))


def settings(run: RunFiles) -> Markup:
    """The resolved config, folded away."""
    return section(
        "Settings", element("details", element("summary", "config.yaml"), element("pre", run.config_text))
    )
