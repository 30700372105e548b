"""``medwave trace``, ``medwave score`` and ``medwave swc``: neurons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from medwave.cli.options import CLUSTER, JSON, VOLUME, check_json, file_option, wants_table, with_options
from medwave.cli.progress import block_progress, command_line, resumable, workers_of
from medwave.workflows.options import ScoreOptions, SwcConvertOptions, SwcFixOptions, TraceFileOptions

if TYPE_CHECKING:
    from medwave.core.tree import Tree
    from medwave.workflows.score import ScoredFiles
    from medwave.workflows.swc import CheckedFile
    from medwave.workflows.trace_plan import TracePlan

SWC_OUT = Annotated[Path, typer.Option("--output", "-o", help="SWC file to write.")]
SWC_IN = Annotated[Path, typer.Argument(metavar="FILE", help="SWC or ESWC file.")]
swc = typer.Typer(no_args_is_help=True, help="Check, repair and convert SWC files.")


@with_options(TraceFileOptions)
def trace(
    volume: VOLUME,
    output: SWC_OUT,
    report: file_option("--report", "Also write a page about the trace: HTML that opens from disk.") = None,
    gold: file_option("--gold", "SWC file of the true tree, shown and scored on the --report.") = None,
    cluster: CLUSTER = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what it takes: blocks, bytes that are read, and memory.")
    ] = False,
    json: JSON = None,
    *,
    options: TraceFileOptions,
) -> None:
    """Trace the fibres of VOLUME, of any size, and write them as SWC. Repeat it to go on after a stop."""
    from medwave.core.errors import InputError
    from medwave.workflows.trace import trace_file

    if json is not None and not dry_run:
        raise InputError("--json goes with --dry-run; what is traced is told by the --report and medwave swc check")
    if dry_run:
        from medwave.workflows.trace_plan import plan_trace

        plan = plan_trace(volume, options=options)
        if wants_table(plan.as_dict(), json):
            _show_plan(volume, plan)
        return
    if gold is not None and report is None:
        raise InputError("--gold is shown on the page; name it with --report, or use medwave score")
    warnings: list[str] = []
    with resumable(), workers_of(cluster) as workers, block_progress() as (on_stage, on_progress):
        told: dict[str, Any] = {
            "options": options, "on_stage": on_stage, "on_progress": on_progress, "on_warning": warnings.append,
            "workers": workers,
        }  # fmt: skip
        if report is None:
            tree = trace_file(volume, output, **told)
        else:
            from medwave.workflows.neuron_page import trace_with_page

            tree = trace_with_page(volume, output, report, gold=gold, command_line=command_line(), **told)
    show_warnings(warnings)
    typer.echo(counts(tree, options.units))
    typer.echo(f"tree: {output}")
    if report is not None:
        typer.echo(f"report: {report}")


@with_options(ScoreOptions)
def score(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="SWC file to score.")],
    gold: Annotated[Path, typer.Argument(metavar="GOLD", help="SWC file of the true tree.")],
    json: JSON = None,
    *,
    options: ScoreOptions,
) -> None:
    """Distances, precision and recall, and branching of TRACE against GOLD. No or an empty TRACE counts as worst."""
    from medwave.workflows.score import score_file

    result = score_file(trace, gold, options=options)
    if result.scores.failed:
        show_warnings([f"{trace}: {result.scores.failed}; it counts as the worst"])
    if wants_table(result.as_dict(), json):
        _print_scores(result)


@swc.command("check")
def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="SWC or ESWC files.")],
    single_tree: Annotated[bool, typer.Option("--single-tree", help="More than one root is an error.")] = False,
    image: Annotated[
        Optional[str],  # noqa: UP045  typer needs the old form
        typer.Option("--image", help="Volume in which the trees lie: also tells whether they lie on it."),
    ] = None,
    json: JSON = None,
) -> None:
    """Check files against each rule of the format; exit code 1 when one breaks a rule that makes it unreadable."""
    from medwave.workflows.swc import check_swc

    check_json(json, [*files, image])
    results = [check_swc(file, single_tree=single_tree, image=image) for file in files]
    if wants_table([result.as_dict() for result in results], json):
        _print_findings(results)
    if not all(result.readable for result in results):
        raise typer.Exit(1)


@swc.command("fix")
@with_options(SwcFixOptions)
def fix(source: SWC_IN, output: SWC_OUT, *, options: SwcFixOptions) -> None:
    """Sort and renumber, join pieces, drop duplicate nodes, give each branch one type, re-root."""
    from medwave.workflows.swc import fix_swc

    warnings: list[str] = []
    before, after = fix_swc(source, output, options=options, on_warning=warnings.append)
    show_warnings(warnings)
    typer.echo(f"before: {counts(before)}")
    typer.echo(f"after:  {counts(after)}")


@swc.command("convert")
@with_options(SwcConvertOptions)
def convert(source: SWC_IN, output: SWC_OUT, *, options: SwcConvertOptions) -> None:
    """Bring a tree from voxels to micrometres or back, or count y from the other edge of the image."""
    from medwave.workflows.swc import convert_swc

    warnings: list[str] = []
    tree = convert_swc(source, output, options=options, on_warning=warnings.append)
    show_warnings(warnings)
    typer.echo(counts(tree))


def show_warnings(warnings: Sequence[str]) -> None:
    """Print what a person should know."""
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)


def counts(tree: Tree, unit: str = "") -> str:
    """A tree in a line."""
    from medwave.tracing import topology

    t = topology(tree)
    return (
        f"{t.nodes} nodes, {t.tips} tips, {t.branches} branches, {t.roots} component{'s' * (t.roots != 1)}, "
        f"length {t.length:.1f} {unit}"
    ).rstrip()


def _show_plan(volume: str, plan: TracePlan) -> None:
    """What a trace will take, a line per fact."""
    typer.echo(f"volume: {volume}, {' x '.join(map(str, plan.shape))} voxels (z y x) to trace")
    typer.echo(f"blocks: {plan.blocks}, {plan.stored_blocks} of them stored")
    times = "once" if plan.looks == 1 else f"{plan.looks} times"
    typer.echo(f"in: {plan.bytes_in / 1e9:.3g} GB read; grey values {times}, then the foreground")
    typer.echo(f"memory: at most {plan.task_bytes / 1e9:.2g} GB for a task; joining trees takes more with more fibre")


def _number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "worst"


def _print_scores(result: ScoredFiles) -> None:
    from rich.console import Console
    from rich.table import Table

    console, s, limit = Console(), result.scores, f"{result.options.tolerance:g}"
    d = s.distances
    table = Table("", title=f"Distances, {result.units}")
    for heading in ("gold to trace", "trace to gold", "both"):
        table.add_column(heading, justify="right")
    table.add_row("ESA", *map(_number, (d.esa_gold_to_trace, d.esa_trace_to_gold, d.esa)))
    table.add_row(f"DSA, from {limit}", *map(_number, (d.dsa_gold_to_trace, d.dsa_trace_to_gold, d.dsa)))
    table.add_row(f"PDS, from {limit}", *map(_number, (d.pds_gold_to_trace, d.pds_trace_to_gold, d.pds)))
    console.print(table)

    table = Table("rule", title=f"Found within {limit}")
    for heading in ("precision", "recall", "F1"):
        table.add_column(heading, justify="right")
    at = s.at_tolerance
    rules = {"samples": at.by_samples, "length": at.by_length, "matched once": s.one_to_one, "connected": s.path}
    for rule, found in rules.items():
        table.add_row(rule, *map(_number, found))
    console.print(table)

    table = Table("within", title="Curve: share of samples, and of length")
    for heading in ("precision", "recall", "F1", "by length: precision", "recall", "F1"):
        table.add_column(heading, justify="right")
    for point in s.curve:
        table.add_row(f"{point.tolerance:g}", *map(_number, (*point.by_samples, *point.by_length)))
    console.print(table)

    table = Table("", title="Topology")
    for heading in ("gold", "trace"):
        table.add_column(heading, justify="right")
    for name, gold in s.gold_topology._asdict().items():
        made = "-" if s.trace_topology is None else f"{getattr(s.trace_topology, name):.6g}"
        table.add_row(name.replace("roots", "components"), f"{gold:.6g}", made)
    console.print(table)
    console.print(f"DIADEM, simplified (not the program of the challenge): {_number(s.diadem.score)}")
    console.print(f"Gold length found by one component: {_number(s.largest_component_recall)}")


def _print_findings(results: Sequence[CheckedFile]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    for result in results:
        if result.findings:
            table = Table("severity", "code", "count", "first line", "message", title=Text(str(result.path)))
            for code in dict.fromkeys(f.code for f in result.findings):
                these = [f for f in result.findings if f.code == code]
                first = these[0]
                table.add_row(first.severity, code, str(len(these)), str(first.line or "-"), Text(first.message))
            console.print(table)
        elif not result.misplaced:
            typer.echo(f"{result.path}: no finding")
        if result.misplaced:
            typer.echo(f"{result.path}: {result.misplaced}")
