"""Files in folders and in a bucket: of a server of the GCS protocol on this machine."""

import importlib.util
import io
import json
import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from diffv2iqa_jax import storage
from diffv2iqa_jax.errors import ConfigError, UsageError
from tests import pictures

SERVER = """
import sys, time
from gcp_storage_emulator.handlers import objects
from gcp_storage_emulator.server import create_server

download = objects.download

def with_generation(request, response, storage, *more, **named):  # TensorStore needs the header
    name = request.params["bucket_name"], request.params["object_id"]
    try:
        found = storage.get_file_obj(*name)
        response["x-goog-generation"] = found["generation"]
    except Exception:
        pass  # there is none, which download says itself
    return download(request, response, storage, *more, **named)

objects.download = with_generation  # `get` calls it by this name for alt=media
create_server("127.0.0.1", int(sys.argv[1]), in_memory=True, default_bucket="bucket").start()
time.sleep(600)
"""
RUN = """
import json, logging, sys
from tests import runs
from diffv2iqa_jax.training.stopping import Preempted
data, workdir = sys.argv[1:]
logging.getLogger("diffv2iqa_jax").setLevel(logging.INFO)
changes = {"optim.steps": 4, "keep": 2}
asked = iter([False, False, True])
try:
    runs.run(runs.stage1(data, **changes), workdir, stop=lambda: next(asked))
except Preempted as error:
    assert "saved at step 2" in str(error)
results = runs.run(runs.stage1(data, **changes), workdir, report=True)
assert runs.run(runs.stage1(data, **changes), workdir) == results
print(json.dumps(results))
"""
QUALITY = """
import json, logging, sys
from diffv2iqa_jax import score
from diffv2iqa_jax.data import stored_views
from diffv2iqa_jax.training import initialize, setup
from diffv2iqa_jax.training.stopping import Preempted
from tests import runs
data, stage1, workdir, photo = sys.argv[1:]
logging.getLogger("diffv2iqa_jax").setLevel(logging.INFO)
config = runs.stage2(data, stage1, **{"optim.steps": 2, "every": runs.SELDOM})
asked = iter([False, True])
stored_views.BYTES = 1  # a shard for each image of a pass that is stopped
try:
    runs.run(config, workdir, stop=lambda: next(asked))
except Preempted:
    made = len(stored_views.index(f"{workdir}/views").shards)
stored_views.BYTES = 2**20
results = runs.run(config, workdir)
shards = stored_views.index(f"{workdir}/views").shards
assert made == 16 and len(shards) == 16 + 3, (made, len(shards))
resolved, _ = initialize.resolve({**config, "pretrained": {"model": workdir}})
started = initialize.pretrained(resolved, setup.programs(resolved, runs.PROGRAMS).shapes)
assert [weights.params.keys() >= {"guidance"} for weights in started.values()] == [True]
scored = ["--weights", workdir, "--jit_cache", "", "-o", f"{workdir}.csv", photo]
assert score.main(scored) == score.OK
print(json.dumps(results))
"""


@pytest.fixture(scope="session")
def server():
    """What a process needs in its environment to find the server."""
    for name in ("gcsfs", "gcp_storage_emulator"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(port)], **quiet)
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.05)
    here = f"http://127.0.0.1:{port}"
    yield {
        "STORAGE_EMULATOR_HOST": here,  # gcsfs
        "TENSORSTORE_GCS_HTTP_URL": here,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "any",  # TensorStore asks for one
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # it asks another service
    }
    process.terminate()
    process.wait()


@pytest.fixture
def bucket(server, monkeypatch):
    for key, value in server.items():
        monkeypatch.setenv(key, value)
    return "gs://bucket"


def upload(folder, address):
    for path in folder.rglob("*"):
        if path.is_file():
            storage.write(f"{address}/{path.relative_to(folder)}", path.read_bytes())


def _lines_of(name):
    log = storage.Lines(name)
    for number in range(150):
        log.add(f"{number}")
    log = storage.Lines(name, lambda line: int(line) < 70)
    log.add("new")
    return list(storage.lines(name))


def test_lines_grow_are_cut_and_go_on_in_a_folder(tmp_path):
    assert _lines_of(tmp_path / "log") == [*map(str, range(70)), "new"]


def test_lines_grow_are_cut_and_go_on_in_a_bucket(bucket):
    assert _lines_of(f"{bucket}/grows/log") == [*map(str, range(70)), "new"]
    assert [name.rpartition("/")[2] for name in storage.parts(f"{bucket}/grows/log")] == [
        "log",
        "log.000001",
    ]


def test_a_folder_of_a_bucket_is_moved(bucket):
    storage.write(f"{bucket}/moved/a/b/c", "text")
    storage.move_folder(f"{bucket}/moved/a", f"{bucket}/moved/d")
    assert storage.read(f"{bucket}/moved/d/b/c") == "text"
    assert not storage.exists(f"{bucket}/moved/a")


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(OSError):
        storage.write(tmp_path / "there", "text")
    assert os.listdir(tmp_path) == ["there"]


@pytest.mark.parametrize("name", ["foo://bucket/x", "ftp://host/x", "s3://bucket/x"])
def test_a_scheme_that_cannot_work_is_refused_in_one_line(name):
    with pytest.raises(ConfigError, match=f"^{name}: .*cannot be used; name a local path or gs://"):
        storage.path(name)


def test_views_in_a_bucket_are_written_and_read(bucket, monkeypatch):
    import tensorflow as tf

    from diffv2iqa_jax.data import stored_views

    views = np.random.default_rng(0).normal(size=(20, 2, 8, 9, 3)).astype(np.float16)
    monkeypatch.setattr(stored_views, "BYTES", 4 * views[0].nbytes)
    monkeypatch.setattr(stored_views, "HEAD", 100)  # less than a header
    for number in range(2):
        writer = stored_views.Writer(f"{bucket}/views", number)
        for id in range(number, 20, 2):
            writer.add(id, views[id])
        writer.close()
    stored = stored_views.StoredViews(f"{bucket}/views", "float16", 2)
    stored.check(np.arange(20), np.array(["photo"] * 20))
    assert len(stored.index.shards) == 6
    for id in (19, 0, 7):
        np.testing.assert_array_equal(stored.read(id, (8, 9, 3)), views[id])
    shape = tf.constant([8, 9, 3])
    read = tf.data.Dataset.range(20).map(lambda id: stored.tensor(id, shape), 8)
    np.testing.assert_array_equal(list(read.as_numpy_iterator()), views)
    assert len(stored_views.index(f"{bucket}/none").ids) == 0


def test_without_a_home_no_folder_is_called_by_its_sign(tmp_path, monkeypatch, capsys):
    from diffv2iqa_jax.data import prepare

    monkeypatch.chdir(tmp_path)
    assert storage.expanded("~/x") == os.path.expanduser("~/x") and storage.expanded("x~") == "x~"
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 54321)  # a user without an entry
    assert storage.cache("~/.cache/x") is None and storage.cache("/tmp/x") == "/tmp/x"
    with pytest.raises(ConfigError, match="^~/x: there is no home folder; set HOME"):
        storage.expanded("~/x")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(pictures.encoded(pictures.picture()))
    assert prepare.main(["pool", "--name", "a", "--source", "photos"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("prepare: --folder ~/tensorflow_datasets: there is no home folder")
    assert err.count("\n") == 1 and os.listdir(tmp_path) == ["photos"]


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_scores_go_on_in_a_bucket_as_in_a_folder(bucket, tmp_path, format):
    from diffv2iqa_jax.scoring import output

    def table(name, **how):
        how = {"resume": False, "overwrite": False} | how
        return output.Table(name, format=format, safe=True, **how)

    def text(name):
        return storage.path(name).read_bytes().decode(errors="surrogateescape")

    rows = [output.blank(f"a\n{n}\udcff.png", {"weights": "w"}) for n in range(200)]
    local, remote = str(tmp_path / "x"), f"{bucket}/scores/{format}"
    for name in (local, remote):
        killed = table(name)
        for row in rows[:150]:
            killed.add(row)
        killed.leave()
        with pytest.raises(UsageError, match="is there; give --resume"):
            table(name)
        goes_on = table(name, resume=True)
        assert goes_on.kept == 128 == len(list(goes_on.rows()))
        assert [row["path"] for row in goes_on.rows()] == [row["path"] for row in rows[:128]]
        for row in rows[128:]:
            goes_on.add(row)
        goes_on.finish()
        assert len(list(table(name, resume=True).rows())) == 200
        for more in (70, 100):  # further rows; the first time, a kill after 64 of them
            longer = table(name, resume=True)
            longer.extend()
            assert longer.kept == (200 if more == 70 else 264)
            for row in rows[longer.kept - 200 : more]:
                longer.add(row)
            if more == 70:
                longer.leave()
                assert len(list(output.read(io.StringIO(text(name)), format))) == 200
        longer.finish()
        assert len(list(table(name, resume=True).rows())) == 300
    whole = storage.path(remote).read_bytes()
    assert whole == (tmp_path / "x").read_bytes()
    assert storage.names(f"{bucket}/scores").count(format) == 1
    assert not storage.parts(f"{remote}.part")
    again = table(remote, overwrite=True)
    again.add(rows[0])
    again.finish()
    assert len(list(table(remote, resume=True).rows())) == 1
    with pytest.raises(UsageError, match="^gs://another/x.part: cannot be written") as caught:
        table("gs://another/x")
    assert "\n" not in str(caught.value)


def test_a_set_in_a_bucket_is_read_as_in_a_folder(bucket, data, tiny):
    from diffv2iqa_jax.data import evaluation, reading
    from diffv2iqa_jax.data.sets import catalog

    folder = f"{bucket}/sets"
    with pytest.raises(ValueError, match=f"is not in {folder}: prepare it in a local folder"):
        catalog.check("builtin/tiny", folder)
    upload(data, folder)
    source = reading.load("builtin/tiny", folder)
    assert source.table.keys() == tiny.table.keys() and len(source.table["id"]) == 96
    ids = np.random.default_rng(0).permutation(96)[:40]
    assert source.read(ids) == tiny.read(ids)
    batches = (evaluation.to_evaluate(x, ids, pp="center(16)", batch=40) for x in (source, tiny))
    for one, other in zip(*batches, strict=True):
        np.testing.assert_array_equal(one["image"], other["image"])


def test_photos_in_a_bucket_are_those_of_a_folder(bucket, tmp_path, data):
    from diffv2iqa_jax.data.shelf import Shelf

    for n, name in enumerate(("b.png", "a/c.png", "a/d.jpeg")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(pictures.encoded(pictures.picture(seed=n)))
    (tmp_path / "note.txt").touch()
    upload(tmp_path, f"{bucket}/photos")
    (records,) = {p.parent for p in data.rglob("*.tfrecord*")}
    upload(records, f"{bucket}/records")
    for there, here in ((f"{bucket}/photos", tmp_path), (f"{bucket}/records", records)):
        remote, local = Shelf(there), Shelf(str(here))
        assert remote.names == local.names and len(local.names) > 2
        for place in range(3):
            np.testing.assert_array_equal(remote.picture(place), local.picture(place))
    with pytest.raises(ValueError, match="^gs://bucket/none: no .* files there; name a folder"):
        Shelf("gs://bucket/none")


def test_tables_and_figures_of_runs_in_a_bucket_are_those_of_a_folder(
    bucket, quality_run, tmp_path
):
    from diffv2iqa_jax import report

    method = f"{bucket}/methods/ours"
    for name in ("config.json", "results.json", "predictions.csv", "examples.npz"):
        storage.write(f"{method}/a/{name}", (quality_run / name).read_bytes())
        storage.write(tmp_path / name, (quality_run / name).read_bytes())
    assert report.main([method, "--tables"]) == 0
    assert report.main([f"ours={tmp_path}", "--tables", "-o", f"{tmp_path}/tables"]) == 0
    for name in ("tables.md", "tables.csv", "tables.html"):
        here = (tmp_path / "tables" / name).read_text()
        assert storage.read(f"{method}/tables/{name}") == here
    assert report.main([f"one={method}", "two=" + method, "-o", f"{bucket}/both"]) == 0
    assert "two" in storage.read(f"{bucket}/both/tables.md")
    assert report.main([f"{method}/a", "--figure", f"{bucket}/figure.png"]) == 0
    assert storage.path(f"{bucket}/figure.png").read_bytes().startswith(b"\x89PNG")
    assert report.main([f"{bucket}/none", "--tables"]) == 2


def test_a_scheme_is_refused_wherever_a_configuration_names_a_folder(data, tmp_path):
    from diffv2iqa_jax.training import checks
    from tests import runs

    config = runs.stage2(data, tmp_path)
    checks.check(config)
    for section in ("data", "restorer"):
        wrong = {**config, section: {**config[section], "folder": "s3://bucket/x"}}
        with pytest.raises(ConfigError, match="s3:// cannot be used; name a local") as caught:
            checks.check(wrong)
            checks.check_prepared(wrong)
        assert "\n" not in str(caught.value)


def test_views_where_nothing_can_be_written_are_refused(bucket, tmp_path):
    from diffv2iqa_jax.training import view_cache

    (tmp_path / "file").touch()
    for folder in ("gs://another/views", f"{tmp_path}/file/views"):
        match = f"^views {folder}: cannot be written"
        with pytest.raises(ConfigError, match=match) as caught:
            view_cache._claim(folder, {})
        assert "\n" not in str(caught.value)


def test_a_bucket_that_is_not_there_is_refused(bucket):
    from diffv2iqa_jax import config

    with pytest.raises(ConfigError, match="^workdir gs://another/run: cannot be written") as caught:
        config.claim("gs://another/run", {})
    assert "\n" not in str(caught.value)


def test_a_run_trains_resumes_and_reports_in_a_bucket(data, server, apart, bucket):
    """In a process of its own: epath keeps what it decided on its first path."""
    workdir = f"{bucket}/runs/restore"
    command = [sys.executable, "-c", RUN, str(data), workdir]
    done = subprocess.run(command, env=apart | server, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads(storage.read(f"{workdir}/results.json"))
    assert results == json.loads(done.stdout.splitlines()[-1]) and results["step"] == 4
    names = {p.name for p in storage.path(workdir).iterdir()}
    files = "config.json env.json metrics.jsonl predictions.csv examples.npz results.json"
    assert names >= {*files.split(), "report.html", "checkpoints"}
    steps = [json.loads(line)["step"] for line in storage.lines(f"{workdir}/metrics.jsonl")]
    assert steps == sorted(steps) and set(steps) == {1, 2, 3, 4}


def test_stage_2_stores_views_trains_and_scores_in_a_bucket(
    data, restored, server, apart, bucket, tmp_path
):
    workdir, stage1 = f"{bucket}/runs/quality", f"{bucket}/runs/stage1"
    upload(restored, stage1)
    photo = tmp_path / "photo.png"
    photo.write_bytes(pictures.encoded(pictures.smooth()))
    command = [sys.executable, "-c", QUALITY, str(data), stage1, workdir, str(photo)]
    done = subprocess.run(command, env=apart | server, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads(storage.read(f"{workdir}/results.json"))
    assert results == json.loads(done.stdout.splitlines()[-1]) and results["step"] == 2
    header, row = storage.read(f"{workdir}.csv").splitlines()
    assert header.startswith("path,score") and row.startswith(f"{photo},0.")


FULL = """
import resource, sys
from diffv2iqa_jax import storage
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
name, text = sys.argv[1], 20 * "x"
for write in (lambda: storage.write(name, text), lambda: storage.Lines(name).add(text)):
    try:
        write()
    except OSError as error:
        print(error.filename, error.strerror)
"""


def test_what_a_disk_has_no_room_for_is_named(tmp_path):
    path = str(tmp_path / "file")
    done = subprocess.run([sys.executable, "-c", FULL, path], capture_output=True, text=True)
    assert done.stdout.splitlines() == 2 * [f"{path} File too large"], done.stderr
