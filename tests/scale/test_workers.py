"""Items on a cluster of two processes: every one is done once, whatever happens to the workers."""

import os
import signal
import time
from pathlib import Path

import dask
import pytest

from medwave.core.errors import ClusterError, InputError, MedwaveError, MissingFileError, OutputError, VolumeFormatError
from medwave.scale import ClusterSpec, job_script, open_workers, parse_cluster
from medwave.scale.workers import ATTEMPTS

SLURM = "cores: 8\nmemory: 32GB\nqueue: gpu\nwalltime: '04:00:00'\njobs: {minimum: 0, maximum: 64}\n"


def square(n):
    return n * n


def whose(_):
    return os.getpid()


def fails_twice(folder):
    """Counts its calls in files; each call notes its process."""
    calls = len(list(Path(folder).iterdir()))
    (Path(folder) / f"{calls}-{os.getpid()}").touch()
    if calls < 2:
        raise TimeoutError("the store does not answer")
    return calls


def always_fails(error):
    raise error


def dies_once(folder):
    """Kills its own process as the system does for want of memory, the first time."""
    mark = Path(folder) / "died"
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def dies(_):
    os.kill(os.getpid(), signal.SIGKILL)


def slowly(n):
    time.sleep(0.02)
    return n


def test_every_item_is_done_once(workers):
    found = {done.number: done.result for done in workers.run(square, list(range(200)))}
    assert found == {n: n * n for n in range(200)}


def test_two_processes_work_and_neither_is_this_one(workers):
    pids = {done.result for done in workers.run(whose, list(range(40)))}
    assert len(pids) == 2
    assert os.getpid() not in pids


def test_no_items_are_no_work(workers):
    assert list(workers.run(square, [])) == []


def test_what_fails_is_tried_again_by_another_worker(workers, tmp_path):
    (done,) = workers.run(fails_twice, [str(tmp_path)])
    assert (done.result, done.error, done.attempts) == (2, None, 3)
    first, second, _ = (path.name.split("-")[1] for path in sorted(tmp_path.iterdir()))
    assert first != second


def test_what_always_fails_is_given_up_and_costs_no_other_item(workers):
    error = VolumeFormatError("x.zarr: damaged")
    (done,) = workers.run(always_fails, [error])
    assert done.attempts == ATTEMPTS
    assert isinstance(done.error, VolumeFormatError)
    assert str(done.error) == "x.zarr: damaged"


@pytest.mark.parametrize("error", [InputError("bad"), OutputError("full"), OutputError(28, "No space left")])
def test_what_no_repetition_cures_is_tried_once(workers, error):
    (done,) = workers.run(always_fails, [error])
    assert done.attempts == 1
    assert isinstance(done.error, type(error))
    assert str(done.error) == str(error)


def test_errors_that_cannot_travel_come_as_their_words(workers):
    class Local(Exception):
        pass

    with pytest.raises(RuntimeError, match="words of it"):
        workers.call(always_fails, Local("words of it"))


def test_a_worker_that_is_killed_costs_nothing(workers, tmp_path):
    assert workers.call(dies_once, str(tmp_path)) == "alive"
    assert len(list(workers.run(square, list(range(20))))) == 20


def test_results_that_die_with_their_workers_are_made_again(workers):
    ends = workers.run(square, list(range(8)))
    found = [next(ends)]
    time.sleep(0.5)  # all are finished, and their results lie with the workers
    for pid in workers.client.run(os.getpid).values():
        os.kill(pid, signal.SIGKILL)
    found += ends
    assert sorted(done.result for done in found) == [n * n for n in range(8)]


def test_an_item_that_kills_all_its_workers_is_named_as_such(workers):
    (done,) = workers.run(dies, [0])
    assert isinstance(done.error, InputError)
    assert "want of memory" in str(done.error)


def test_what_needs_more_memory_than_there_is_does_not_wait_for_ever(workers):
    with pytest.raises(ClusterError, match="more memory"):
        list(workers.run(square, [1], memory_bytes=10**15))


def test_memory_bounds_how_many_run_at_a_time(workers):
    each = int(workers.memory_bytes * 0.9)
    found = [done.result for done in workers.run(slowly, list(range(6)), memory_bytes=each)]
    assert sorted(found) == list(range(6))


def test_a_scheduler_that_is_not_there():
    impatient = dask.config.set({"distributed.comm.timeouts.connect": "1s"})
    with impatient, pytest.raises(ClusterError, match="no scheduler answers"), open_workers("tcp://127.0.0.1:9"):
        pass


def test_words_for_clusters(tmp_path):
    assert parse_cluster("local") == ClusterSpec("local")
    assert parse_cluster("local:3") == ClusterSpec("local", workers=3)
    assert parse_cluster("tcp://node:8786") == ClusterSpec("address", address="tcp://node:8786")
    (tmp_path / "c.yaml").write_text(SLURM)
    spec = parse_cluster(f"slurm:{tmp_path / 'c.yaml'}")
    assert (spec.kind, spec.minimum, spec.maximum) == ("slurm", 0, 64)
    assert spec.settings == {"cores": 8, "memory": "32GB", "queue": "gpu", "walltime": "04:00:00"}


@pytest.mark.parametrize("text", ["", "locally", "local:", "local:0", "local:x", "slurm", "slurm:", "moab:x", "h:8"])
def test_other_words_are_refused(text):
    with pytest.raises(InputError, match="cluster"):
        parse_cluster(text)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("cores: 8\n", "memory is missing"),
        ("- a\n", "maps settings"),
        ("a: [\n", "YAML"),
        ("cores: 1\nmemory: 1GB\njobs: many\n", "jobs is a number"),
        ("cores: 1\nmemory: 1GB\njobs: 0\n", "jobs is a number"),
        ("cores: 1\nmemory: 1GB\njobs: {minimum: 4, maximum: 2}\n", "jobs is a number"),
    ],
)
def test_unusable_cluster_files_are_named(tmp_path, text, rule):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match=rule) as caught:
        parse_cluster(f"pbs:{tmp_path / 'c.yaml'}")
    assert "c.yaml" in str(caught.value)
    with pytest.raises(MissingFileError):
        parse_cluster("pbs:none.yaml")


@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        ("slurm", ["#SBATCH -p gpu", "#SBATCH --cpus-per-task=8", "#SBATCH --mem=30G", "#SBATCH -t 04:00:00"]),
        ("pbs", ["#PBS -q gpu", "#PBS -l select=1:ncpus=8:mem=30GB", "#PBS -l walltime=04:00:00"]),
        ("lsf", ["#BSUB -q gpu", "#BSUB -n 8", "#BSUB -W 04:00"]),
    ],
)
def test_job_scripts(tmp_path, kind, lines):
    (tmp_path / "c.yaml").write_text(SLURM if kind != "lsf" else SLURM.replace("'04:00:00'", "'04:00'"))
    script = job_script(f"{kind}:{tmp_path / 'c.yaml'}", threads=8)
    for line in lines:
        assert line in script.splitlines()
    command = script.splitlines()[-1]
    assert "distributed.cli.dask_worker tcp://" in command
    assert "--resources memory=32000000000" in command
    assert "--death-timeout 300" in command
    assert command.rindex("--nthreads 1") > command.index("--nthreads 8")  # the last one counts
    with (tmp_path / "c.yaml").open("a") as file:
        file.write("death_timeout: 20\n")
    assert "--death-timeout 20 " in job_script(f"{kind}:{tmp_path / 'c.yaml'}")
    with pytest.raises(InputError, match="submits no jobs"):
        job_script("local")


def test_wrong_settings_of_a_queue_are_named(tmp_path):
    (tmp_path / "c.yaml").write_text("cores: 1\nmemory: 1GB\nno_such_setting: 3\n")
    with pytest.raises(MedwaveError, match="no_such_setting"):
        job_script(f"slurm:{tmp_path / 'c.yaml'}")
