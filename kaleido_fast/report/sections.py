"""The report's sections: numbers with their protocol, curves, settings, and what was left out of a run."""

import statistics
from typing import Any

from kaleido_fast.model.kaleido_tasks import active_tasks
from kaleido_fast.report.curves import curve_png
from kaleido_fast.report.page import Markup, card, element, image, join, section, table
from kaleido_fast.report.run_files import RunFiles
from kaleido_fast.tasks.headline import chance_at, percent

DIRECTIONS = {"itr": "image to text (ITR)", "tir": "text to image (TIR)"}
INPUTS = {"image": "image alone", "text": "text alone", "both": "both"}


def cards(run: RunFiles) -> Markup:
    """Cards with the figures one looks for first; a note where the run was not evaluated yet."""
    evaluation = run.evaluation
    if not evaluation:
        return section(
            "Not evaluated yet",
            element("p", f"Run `kaleido-fast evaluate {run.folder}`, then this report again."),
        )
    figures = []
    for key, name in DIRECTIONS.items():
        one = evaluation[key]
        chance = percent(chance_at(1, one["candidates"]))
        note = f"R@10 {percent(one['R@10'])}; chance {chance}, 1 in {one['candidates']}"
        figures.append(card(f"R@1, {name}", percent(one["R@1"]), note))
    image_alone = evaluation["category"]["image"]
    figures.append(
        card(
            "category, image alone",
            percent(image_alone["accuracy"]),
            f"linear probe; most frequent {percent(image_alone['most_frequent'])}",
        )
    )
    for task in active_tasks(run.config.kaleido):
        if task.kind == "class":
            figures.append(
                card(
                    task.name,
                    percent(evaluation["tasks"][task.name]),
                    f"chance {percent(1 / task.num_classes)}",
                )
            )
    return element("div", *figures, css="cards")


def retrieval(evaluation: dict[str, Any]) -> Markup:
    """Recalls of both directions with protocol, candidates and chance."""
    recalls = [name for name in evaluation["itr"] if name.startswith("R@")]
    rows: list[list[object]] = []
    for key, name in DIRECTIONS.items():
        spread = evaluation[key].get("spread", {})
        rows.append(
            [
                name,
                *(
                    percent(evaluation[key][k]) + (f" ± {100 * spread[k]:.1f}" if spread else "")
                    for k in recalls
                ),
            ]
        )
    one = evaluation["itr"]
    rows.append(
        ["chance", *(percent(chance_at(int(k.removeprefix("R@")), one["candidates"])) for k in recalls)]
    )
    protocol = (
        f"{one['queries']} queries, each ranked among {one['candidates']} candidates (the right one "
        "included): products, one photograph each, of the sub-category, then the category, then the split; "
        f"{one['draws']} draw(s); "
        "ties count against the model. Ranked by the pre-trained image-text matching head. SumR (R@1, R@5 "
        f"and R@10 of both directions): {evaluation['sum_r']:.1f} of 600."
    )
    return section("Retrieval", element("p", protocol, css="soft"), table(["", *recalls], rows))


def recognition(evaluation: dict[str, Any]) -> Markup:
    """Category and sub-category by the linear probe."""
    rows = [
        [
            f"{kind}, {name}",
            percent(one["accuracy"]),
            f"{one['macro_f1']:.3f}",
            f"{one['macro_f1_all']:.3f}",
            percent(one["most_frequent"]),
        ]
        for kind in ("category", "subcategory")
        for key, name in INPUTS.items()
        for one in [evaluation[kind][key]]
    ]
    probe = evaluation["probe"]
    protocol = (
        f"Linear probe on the frozen pooled output: {probe['train_products']} train products, L2 strength "
        f"chosen on {probe['validation_products']} validation products, measured on {probe['test_products']} "
        "others."
    )
    header = ["", "accuracy", "macro-F1", "over all labels", "most frequent class"]
    return section("Recognition", element("p", protocol, css="soft"), table(header, rows))


def kaleido_tasks(run: RunFiles) -> Markup:
    """Accuracy or KL of each kaleido task, plain and with the other levels' positions dropped."""
    plain, alone = run.evaluation["tasks"], run.evaluation["tasks_level_alone"]
    rows = []
    for task in active_tasks(run.config.kaleido):
        show = percent if task.kind == "class" else "{:.3f} nats".format
        chance = percent(1 / task.num_classes) if task.kind == "class" else ""
        rows.append([task.name.replace("_", " "), show(plain[task.name]), show(alone[task.name]), chance])
    protocol = (
        f"{run.evaluation['tasks_samples']} samples with their own text. Accuracy, for the two colour tasks "
        "the mean KL divergence from the clean features (lower is better). Levels overlap in the image, so "
        "untouched levels can give an answer away: the second column drops the other levels' positions."
    )
    header = ["", "all levels", "own level alone", "chance"]
    return section("Kaleido tasks", element("p", protocol, css="soft"), table(header, rows))


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


def all_numbers(run: RunFiles) -> Markup:
    """The sections that need eval.json; nothing before the run was evaluated."""
    if not run.evaluation:
        return Markup("")
    return join([retrieval(run.evaluation), recognition(run.evaluation), kaleido_tasks(run)])
