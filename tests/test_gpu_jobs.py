"""Jobs for a GPU: done once, stopped in time, and none holds up another."""

import pathlib
import sys

import pytest

from robustjax import files

FOLDER = pathlib.Path(__file__).parents[1] / "experiments"
sys.path.insert(0, str(FOLDER))

import gpu_jobs

SCRIPTS = {
    "good": "print('{data}')",
    "bad": "raise SystemExit('no such device')",
    "long": "import signal, time; signal.signal(15, lambda *_: exit('saved')); time.sleep(60)",
    "later": "",
}


def test_jobs_are_done_stopped_and_tried_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_jobs, "MERCY", 3.0)
    jobs = {}
    for name, text in SCRIPTS.items():
        (tmp_path / f"{name}.py").write_text(text)
        jobs[name] = gpu_jobs.Job("", f"{tmp_path}/{name}.py {{data}}", "")
    runs = tmp_path / "runs"
    call = ["--runs", str(runs), "--data", "arrays:there", "--minutes"]
    gpu_jobs.main(gpu_jobs.parsed([*call, str(4.5 / 60)]), jobs)
    found = files.read_json(runs / "jobs.json")
    assert {n: row["state"] for n, row in found.items()} == {
        "good": "done", "bad": "failed", "long": "stopped"
    }  # fmt: skip
    assert found["bad"]["last"].strip() == "no such device"
    assert found["good"]["command"][-1] == "arrays:there"
    assert (runs / "long.log").read_text().strip() == "saved"
    for name in ("bad", "long"):
        (tmp_path / f"{name}.py").write_text("")
    capsys.readouterr()
    gpu_jobs.main(gpu_jobs.parsed([*call, "9"]), jobs)
    assert {row["state"] for row in files.read_json(runs / "jobs.json").values()} == {"done"}
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "bad",
        "long",
        "later",
    ]
    with pytest.raises(SystemExit, match="did you mean 'good'"):
        gpu_jobs.main(gpu_jobs.parsed([*call, "9", "--only", "goood"]), jobs)


@pytest.mark.parametrize("name", gpu_jobs.JOBS)
def test_a_job_names_what_is_there(name):
    job = gpu_jobs.JOBS[name]
    for words in (job.command.split(), job.small.split()):
        paths = [FOLDER / word for word in words if word.endswith(".py") or word.startswith("..")]
        assert paths and all(path.exists() for path in paths)
