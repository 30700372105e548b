"""``medwave view``: what it prints, how it ends, and its errors."""

import signal
import subprocess
import sys
import urllib.request


def test_it_serves_until_ctrl_c_and_ends_cleanly(run):
    words = ["-c", "from medwave.cli.app import main; main()", "view", str(run), "--no-browser"]
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        address = process.stdout.readline().removeprefix("view: ").strip()
        with urllib.request.urlopen(address, timeout=20) as response:
            assert response.url == f"{address}report.html"
            assert b"registered" in response.read()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert err == "medwave: Ctrl-C ends it\nmedwave: ended\n"


def test_unusable_folders_and_ports_are_errors_of_one_line(medwave, tmp_path, run):
    for words, said in (
        ((tmp_path / "absent",), "no such folder"),
        ((tmp_path,), "no record of either"),
        ((run / "run.json",), "this is a file"),
        ((run, "--port", "70000"), "port: a number up to 65535"),
    ):
        failed = medwave("view", *words, "--no-browser")
        assert failed.code == 2
        assert len(failed.errors) == 1
        assert said in failed.errors[0]
