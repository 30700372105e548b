"""What a command shows while it works: a bar on a terminal, plain lines in a log."""

from types import SimpleNamespace

from medwave.cli.progress import block_progress, item_progress, progress
from medwave.workflows.block_progress import BlockClock, BlockProgress


def test_a_log_has_the_first_and_the_last_block_of_each_step(capsys):
    with block_progress() as (on_stage, on_progress):
        on_stage("trace")
        for step, things in (("collect foreground", "blocks"), ("trace", "groups of pieces")):
            clock = BlockClock(on_progress, 5, 2, step=step, things=things)
            for _ in range(3):
                clock.note()
    assert capsys.readouterr().err.splitlines() == [
        "medwave: trace",
        "medwave: collect foreground, 2 of 5 blocks",
        "medwave: collect foreground, 5 of 5 blocks, about 0 s left",
        "medwave: trace, 2 of 5 groups of pieces",
        "medwave: trace, 5 of 5 groups of pieces, about 0 s left",
    ]


def test_a_terminal_has_a_bar_with_the_time_left(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with block_progress() as (on_stage, on_progress):
        on_stage("sub-01 [/red], 1 of 2")
        on_progress(BlockProgress(1, 4, 120.0, None, "trace", "groups of pieces"))
    shown = capsys.readouterr().err
    assert "trace, 1 of 4 groups of pieces, about 2 min left" in shown
    assert "\N{BOX DRAWINGS HEAVY HORIZONTAL}" in shown
    assert "medwave:" not in shown


def test_work_goes_on_where_stderr_is_closed(monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    outcome = SimpleNamespace(item=SimpleNamespace(name="a"), status="ok", error="", wall_s=1.0)
    with progress() as (on_stage, _), block_progress() as (_, on_block), item_progress(str) as on_outcome:
        on_stage("read")
        on_block(BlockProgress(1, 4, 120.0, None, "trace", "groups of pieces"))
        on_outcome(outcome, SimpleNamespace(done=1, total=2, seconds_left=3.0))


def test_the_time_left_is_that_of_the_blocks_of_this_run(monkeypatch):
    now, told = [100.0], []
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    clock = BlockClock(told.append, 10, 6)
    for _ in range(2):
        now[0] += 3.0
        clock.note()
    assert [(at.done, at.total, at.seconds_left) for at in told] == [(6, 10, None), (7, 10, 9.0), (8, 10, 6.0)]
