"""What a run tells of itself: the costs of its steps, over restarts too, and a log a process."""

import gzip
import json
import logging
import time

import jax.numpy as jnp
import numpy as np
import pytest

from diffv2iqa_jax.errors import ConfigError
from diffv2iqa_jax.training import logs, profiling

COSTS = [f"train/{name}" for name in ("images_per_s", "input_wait", "goodput", "useful_s")]
COSTS += [f"train/step_s{name}" for name in ("", "_std", "_max")]
COSTS += [f"train/{name}_memory_gib" for name in ("device", "host")]


def opened(folder, start=0, **how) -> logs.Log:
    how = {"steps": 20, "batch": 4, "tensorboard": False, "quiet": False} | how
    return logs.Log(str(folder), start=start, **how)


def lines(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def take(log, steps, seconds=0.01) -> None:
    """Steps of that many seconds each; the last of them is told."""
    for _ in steps:
        time.sleep(seconds)
        log.sent({"loss": jnp.float32(1.0)})
    log.train(steps[-1], {"loss": 1.0})


def started(folder, ago: float) -> None:
    """As if the run's first process had started so many seconds ago."""
    first = time.strftime(logs.TIME, time.gmtime(time.time() - ago))
    (folder / "env.json").write_text(json.dumps({"first_started": first}))


def test_steps_are_timed_one_by_one_and_a_stall_is_seen(tmp_path):
    log = opened(tmp_path)
    for stall in (0, 0, 0.2, 0, 0):
        time.sleep(0.02 + stall)
        log.sent({"loss": jnp.float32(1.0)})
    log.train(5, {"loss": 1.0})
    log.pause()
    time.sleep(0.3)  # validation is no step
    log.resume()
    take(log, range(6, 11), 0.02)
    first, second = lines(tmp_path)
    assert 0.02 <= first["train/step_s"] < 0.1 and 0.2 < first["train/step_s_max"]
    assert first["train/step_s_std"] > 0.06  # of five, one is 0.2 longer: 0.08
    assert second["train/step_s_max"] < 0.2 and second["train/step_s_std"] < 0.06
    assert second["train/host_memory_gib"] > 0.01
    assert set(first) == {"step", "train/loss", *COSTS} - {"train/device_memory_gib"}


def test_useful_is_what_was_kept_over_all_restarts(tmp_path):
    started(tmp_path, ago=100)
    log = opened(tmp_path)
    take(log, range(1, 5))
    take(log, range(5, 9))
    before = lines(tmp_path)
    step = before[0]["train/useful_s"] / 4
    assert step == pytest.approx(before[0]["train/step_s"])
    assert before[0]["train/goodput"] == pytest.approx(4 * step / 100, rel=0.03)
    # Killed; saved at step 6. So steps 7 and 8 are lost, 5 and 6 count once the next line tells.
    log = opened(tmp_path, start=6)
    take(log, range(7, 11))
    kept, after = lines(tmp_path)
    assert kept == before[0]
    want = 4 * step + 6 * after["train/step_s"]
    assert after["train/useful_s"] == pytest.approx(want)
    assert after["train/goodput"] == pytest.approx(want / 100, rel=0.03)


@pytest.mark.parametrize("text", ["", "{", '{"first_started": 3}', "[]", None])
def test_a_damaged_environment_only_loses_the_start(tmp_path, text):
    if text is not None:
        (tmp_path / "env.json").write_text(text)
    take(opened(tmp_path), range(1, 4))
    assert 0 < lines(tmp_path)[0]["train/goodput"] <= 1


def test_the_environment_keeps_when_the_run_first_started(tmp_path):
    started(tmp_path, ago=1000)
    first = json.loads((tmp_path / "env.json").read_text())["first_started"]
    logs.write_environment(str(tmp_path))
    again = json.loads((tmp_path / "env.json").read_text())
    assert again["first_started"] == first < again["started"]


def test_a_process_has_a_log_of_its_own_that_goes_on(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logs.OURS.name)
    monkeypatch.setattr("sys.argv", ["/somewhere/main.py", "--config", "x"])
    with logs.process_log(str(tmp_path)):
        logs.LOG.info("step %d", 1)
    logs.LOG.info("not in it")
    with pytest.raises(ConfigError), logs.process_log(str(tmp_path)):
        raise ConfigError("workdir x: is full")
    with pytest.raises(KeyError), logs.process_log(str(tmp_path)):
        {}["name"]
    text = (tmp_path / "logs" / "process-0.log").read_text()
    head = "process 0: "
    said = [line.partition(head)[2] for line in text.splitlines() if head in line]
    assert said[0].startswith("started, one of 1, on ") and said[0].endswith(": main.py --config x")
    assert said[1] == "step 1" and said[2] == said[0] == said[4]
    assert said[3] == "workdir x: is full" and said[5] == "KeyError: 'name'"
    assert text.count("Traceback") == 1 and '{}["name"]' in text
    assert text.splitlines()[0].startswith(time.strftime("%Y-"))


def test_a_log_that_cannot_be_written_says_so_once(tmp_path, caplog):
    (tmp_path / "logs").write_text("in the way")
    with logs.process_log(str(tmp_path)):
        logs.LOG.warning("one")
        logs.LOG.warning("two")
    assert caplog.text.count("process-0.log: cannot be written") == 1
    assert "one" in caplog.text and "two" in caplog.text


def traced(folder):
    """Numbers of the steps in the traces of a run, as TensorBoard's page of events reads them."""
    found = []
    for path in sorted(folder.glob("profile/process-0/plugins/profile/*/*.trace.json.gz")):
        events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
        found += [int(e["args"]["step_num"]) for e in events if e.get("name") == profiling.STEP]
    return sorted(found)


def trained(folder, steps, window) -> None:
    with profiling.Profile(str(folder), window) as profile:
        for step in steps:
            with profile.step(step):
                result = jnp.sin(jnp.float32(step))
            profile.sent(step, result)


def test_the_steps_of_the_window_are_traced_and_no_others(tmp_path, caplog):
    trained(tmp_path / "inside", range(1, 9), "3:5")
    assert traced(tmp_path / "inside") == [3, 4, 5]
    (page,) = (tmp_path / "inside").glob("profile/process-0/plugins/profile/*/*.trace.json.gz")
    assert profiling.STEP.encode() in gzip.decompress(page.read_bytes())
    trained(tmp_path / "resumed", range(4, 9), "3:5:all")
    assert traced(tmp_path / "resumed") == [4, 5]
    trained(tmp_path / "short", range(1, 5), "3:50")
    assert traced(tmp_path / "short") == [3, 4]
    assert "nothing is traced" not in caplog.text
    trained(tmp_path / "past", range(6, 9), "3:5")
    assert not (tmp_path / "past").exists() and "nothing is traced" in caplog.text
    trained(tmp_path / "none", range(1, 3), None)
    assert not (tmp_path / "none").exists()


def test_a_trace_outlives_what_ends_its_steps(tmp_path):
    with pytest.raises(FloatingPointError), profiling.Profile(str(tmp_path), "1:9") as profile:
        with profile.step(1):
            raise FloatingPointError("step 1")
    assert traced(tmp_path) == [1]


@pytest.mark.parametrize("window", ["", "3", "0:2", "5:3", "1:2:3", "a:b", "1:2:ALL", "-1:2"])
def test_a_window_that_is_none_is_refused(window):
    with pytest.raises(ConfigError, match=f"--profile {window}: must be FIRST:LAST"):
        profiling.check(window)


def test_memory_is_told_in_gib():
    found = profiling.memory()
    assert set(found) <= {"device_memory_gib", "host_memory_gib"}
    held = np.ones(2**27, np.uint8)  # an eighth of a GiB
    assert found["host_memory_gib"] > 0.05 and held.nbytes
    assert profiling.memory()["host_memory_gib"] >= found["host_memory_gib"]
