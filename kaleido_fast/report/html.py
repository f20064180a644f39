"""report.html: everything about a run in one offline file."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.files import replace_text
from kaleido_fast.finetune.table import measures_of
from kaleido_fast.options import Option, OptionError
from kaleido_fast.report import sections
from kaleido_fast.report.figures import run_figures
from kaleido_fast.report.page import Markup, element, image, join, page, section
from kaleido_fast.report.run_files import RunFiles, read_run
from kaleido_fast.report.searches import searches
from kaleido_fast.tasks.measure import Measure
from kaleido_fast.tasks.measures import MEASURES, headline, measures_in


def write_report(
    run_folder: Path, measures: Mapping[str, Measure] | None = None, *, index: Path | None = None, queries: Sequence[str] = ()
) -> str:
    """Write report.html into a run's folder, from what the run has left there so far.

    Args:
        measures: those that may stand in its eval.json; those of the run's task by default.
        index, queries: an index, and texts whose first products of it are shown.
    Returns:
        One line: the report's path and the headline numbers.
    Raises:
        ValueError: the folder is not a run, or one of its files cannot be read; queries without an index, an index without, or
            what `searches` raises.
    """
    if (index is None) != (not queries):
        raise OptionError(Option("index"), " and ", Option("queries"), " go together: an index, and texts to search it for")
    run = read_run(Path(run_folder))
    measures = measures_of(run.config.finetune.task) if measures is None else measures
    file = run.folder / "report.html"
    searched = searches(index, queries) if index is not None else None
    replace_text(file, render_report(run, measures, searched))
    return f"{file}: {headline(run.evaluation, measures) if run.evaluation else 'not evaluated yet'}"


def render_report(run: RunFiles, measures: Mapping[str, Measure] = MEASURES, searched: Markup | None = None) -> str:
    """The whole HTML document; `searched` is a section of searches."""
    shown = measures_in(run.evaluation, measures) if run.evaluation else []
    model = run.config.model
    size = f"{model.layers} layers, {model.hidden} hidden, {model.heads} heads, {model.patch_encoder} patches"
    return page(
        f"kaleido_fast: {run.folder.name}",
        element("h1", f"Kaleido-BERT: {run.folder.name}"),
        element("p", size, css="soft"),
        sections.cards(run, shown),
        sections.examples(run, shown),
        join([] if searched is None else [searched]),
        sections.numbers(run, shown),
        sections.curves(run),
        _kaleido_section(run),
        sections.run_summary(run),
        sections.settings(run),
    )


def _kaleido_section(run: RunFiles) -> Markup:
    """Six products of the split, each in one figure; says so where the shards have gone."""
    shards = Path(run.config.data.shards)
    if not (shards / "manifest.json").is_file():
        note = f"Left out: data.shards={shards} has no manifest.json any more."
        return section("The kaleido tasks", element("p", note))
    if Manifest.read(shards).features is not None:
        note = f"Left out: data.shards={shards} holds stored features and no photographs."
        return section("The kaleido tasks", element("p", note))
    figures = [
        element("figure", image(figure, "png", "a product under the kaleido tasks, and its words with their patches"))
        for figure in run_figures(run.config)
    ]
    note = (
        f"Products evenly spread over the {run.config.eval.split} split, with data.alignment="
        f"{run.config.data.alignment}. Above: the clean patches of each level, and what the model sees of them in one epoch. "
        "Below: the words that are aligned, with their patches."
    )
    return section(
        "The kaleido tasks", element("p", note, css="soft"), *(element("div", one, css="wide") for one in figures)
    )
