"""Batches on a Ray cluster of several nodes, whose processes are killed in the middle."""

import io
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_cli_process import COMMAND, ENVIRONMENT

import tiny
from latens import __version__
from latens.cli import app, batch, files
from latens.cli import cluster as cluster_
from latens.cli import work as work_
from latens.errors import ImageError, OutputError, WorkerError

Run = Callable[..., Any]
Fails = Callable[..., str]
_COUNT = 60


def png(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(tiny.picture(64, 96, seed=seed)).save(file, "PNG")
    return file.getvalue()


def worker(weights: Path) -> work_.Encode:
    return work_.Encode(
        None, None, None, None, None, str(weights), None, 1, False, 0, "photo", None, True, None, 1 << 20, False,
        files.Inputs(()), False,
    )  # fmt: skip


def test_an_address_may_be_left_out() -> None:
    for given, found in (
        (["encode", "--ray"], ["encode", "--ray", "auto"]),
        (["encode", "--ray", "in", "-r"], ["encode", "--ray", "auto", "in", "-r"]),
        (["encode", "--ray", "local", "in"], ["encode", "--ray", "local", "in"]),
        (["encode", "in", "--ray", "head.example:6379"], ["encode", "in", "--ray", "head.example:6379"]),
        (["encode", "--ray", "-r", "in"], ["encode", "--ray", "auto", "-r", "in"]),
    ):
        assert app._addressed(given) == found


def test_what_does_not_go_together(fails: Fails, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "give --jobs or --ray, not both" in fails("encode", photo, "--ray", "--jobs", "2")
    assert "standard input and output are of this machine" in fails("encode", "-", "--ray")
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "--ray needs Ray, which is not installed: pip install 'latens[cluster]'" in fails(
        "encode", photo, "--ray"
    )


def test_what_a_process_of_the_cluster_does(work: Path, tiny_weights: Path, latens: Run) -> None:
    (work / "a.png").write_bytes(png(0))
    (work / "bad.png").write_bytes(b"x")
    assert latens("encode", "a.png", "--model", tiny_weights).code == 0
    names = ("a.png", "bad.png", "none.png")
    jobs = [files.Job(name, f"out/{name}.ltn", True, found=True) for name in names]
    encoder = worker(tiny_weights)
    encoder(files.Job("a.png", "once.ltn", False))  # what it has made by now does not go along
    sent = pickle.dumps(encoder)
    assert len(sent) < 2000
    word, *parts = cluster_._unit(b"1", sent, jobs, str(work), __version__, 1)
    assert word == b""
    answers = [pickle.loads(part) for part in parts]
    assert (work / "out/a.png.ltn").read_bytes() == (work / "a.ltn").read_bytes()
    assert isinstance(answers[0][1], batch.Done)
    assert all(isinstance(result, ImageError) for _, result, _ in answers[1:])
    assert "bad.png: not an image" in str(answers[1][1])
    with pytest.raises(RuntimeError, match=r"this machine has Latens .*, and 0\.0 is expected"):
        next(cluster_._unit(b"1", sent, jobs, str(work), "0.0", 1))
    # Errors of others come as their text, those of a store with what caused them.
    answer = pickle.loads(cluster_._answer(1.0, OutputError("x"), PermissionError("no")))
    assert isinstance(answer[2], PermissionError)
    assert "RuntimeError: x" in str(pickle.loads(cluster_._answer(1.0, RuntimeError("x"), None))[1])
    locked = OSError(threading.Lock())
    assert pickle.loads(cluster_._answer(1.0, OutputError("x"), locked))[2] is None


class _RayError(Exception):
    pass


class _Ray:
    """As much of Ray as the driver needs, for tasks that are told how to end: ``crashes`` says after how many answers
    each of them dies, None that it does not."""

    class exceptions:  # noqa: N801
        RayError = _RayError
        RayTaskError = KeyError

    def __init__(self, crashes: list[int | None]) -> None:
        self.crashes = iter(crashes)
        self.units: list[list[str]] = []

    def put(self, data: object) -> object:
        return data

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def remote(self, **options: Any) -> Callable[..., Any]:
        assert options == {"num_cpus": 1, "max_retries": 0, "num_returns": "streaming"}

        class Task:
            @staticmethod
            def remote(token: bytes, worker: bytes, jobs: list[files.Job], *rest: Any) -> Iterator[bytes]:
                self.units.append([job.source for job in jobs])
                return self._answers(jobs, next(self.crashes, None))

        return lambda function: Task

    def _answers(self, jobs: list[files.Job], until: int | None) -> Iterator[bytes]:
        parts = [b"", *(cluster_._answer(1.0, batch.Done("", 5, 1, 1.0), None) for _ in jobs)]
        yield from parts[:until]
        if until is not None:
            raise _RayError("it died\nand so on")

    def wait(self, streams: list[Any], **options: Any) -> tuple[list[Any], list[Any]]:
        return streams[:1], streams[1:]

    def get(self, data: object) -> object:
        return data


def test_only_the_file_at_which_a_process_died_is_blamed() -> None:
    def run(crashes: list[int | None], count: int = 40) -> tuple[list[str], list[str], dict[str, Any], _Ray]:
        ray, begun = _Ray(crashes), []
        jobs = [files.Job(f"s3://some/{n}", "x", True, size=1) for n in range(count)]
        made = cluster_._Cluster(ray, None, lambda job: begun.append(job.source), 1)
        told = [(job.source, result) for job, _, result in made.results(jobs)]
        assert sorted(source for source, _ in told) == sorted(job.source for job in jobs)  # each once
        failed = {source: result for source, result in told if not isinstance(result, batch.Done)}
        return [source for source, _ in told], begun, failed, ray

    _, begun, failed, _ = run([])
    assert not failed
    assert len(begun) == 40
    # The first unit dies at its third file: two are done, that one goes alone, the others together.
    order, begun, failed, ray = run([3])
    assert order[:2] == ["s3://some/0", "s3://some/1"]
    assert not failed
    assert ["s3://some/2"] in ray.units
    assert [f"s3://some/{n}" for n in range(3, len(ray.units[0]))] in ray.units
    assert sorted(set(begun)) == sorted(order)
    # Those that die before they begin blame nobody, unless all do.
    assert not run([0] * 19)[2]
    with pytest.raises(WorkerError, match=r"die before they begin, 20 of them by now \(it died\)"):
        run([0] * 20)
    # A file that kills whoever takes it is given up, and no other.
    one = run([1, None, 1, None, 1], count=1)[2]
    assert not one
    one = run([1, 1, 1], count=1)[2]
    assert list(one) == ["s3://some/0"]
    assert "died 3 times, and it was given up" in str(one["s3://some/0"])


def test_units_are_bounded() -> None:
    made = cluster_._Cluster.__new__(cluster_._Cluster)
    made._slots = 4
    jobs = [files.Job(f"s3://some/{number}.png", "x", True, size=1 << 10) for number in range(2000)]
    waiting = deque(jobs)
    counts = []
    while waiting:
        counts.append(len(made._next(waiting)))
    assert counts[0] == max(counts) == 32
    assert counts[-4:] == [1] * 4
    assert sum(counts) == len(jobs)
    large = deque(files.Job(f"s3://some/{number}.png", "x", True, size=40 << 20) for number in range(2000))
    assert len(made._next(large)) == 2


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Three nodes of one processor each, on this machine; what it has as a head has none."""
    pytest.importorskip("ray", reason="Ray is not installed")
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    patch.setenv("RAY_AUTH_MODE", "disabled")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(3):
        made.add_node(num_cpus=1)
    yield made
    made.shutdown()
    patch.undo()


@pytest.fixture(scope="module")
def bucket() -> Iterator[Any]:
    """A bucket that keeps all versions of everything that was ever put into it."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(
        ip_address="127.0.0.1", port=0, verbose=False
    )
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("s3fs")
    server.start()
    host, port = server.get_host_and_port()
    patch = pytest.MonkeyPatch()
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", f"http://{host}:{port}"),
    ):
        patch.setenv(name, value)
    made = boto3.resource("s3").Bucket("versions")
    made.create()
    made.Versioning().enable()
    yield made
    server.stop()
    patch.undo()


def workers(cluster: Any) -> list[int]:
    """Processes of the cluster that are at work."""
    raylets = {node.all_processes["raylet"][0].process.pid for node in cluster.list_all_nodes()}
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError, IndexError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent in raylets and b"_unit" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


def done(manifest: Path) -> int:
    return manifest.read_bytes().count(b'"coded"') if manifest.exists() else 0


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_killed_processes_lose_nothing(
    work: Path, tiny_weights: Path, bucket: Any, cluster: Any, tmp_path: Path
) -> None:
    for number in range(_COUNT):
        bucket.put_object(Key=f"in/{number % 3}/{number}.png", Body=png(number % 7))
    manifest = tmp_path / "manifest.jsonl"
    command = [
        *COMMAND, "encode", "-r", "s3://versions/in", "-o", "s3://versions/out", "--model", str(tiny_weights),
        "--manifest", str(manifest), "--ray", cluster.address, "--quiet",
    ]  # fmt: skip
    environment = ENVIRONMENT | {
        name: os.environ[name] for name in os.environ if name.startswith(("AWS_", "RAY_"))
    }

    def run(until: int) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
        while done(manifest) < until and process.poll() is None:
            time.sleep(0.01)
        return process

    # First processes of the cluster die, then the one that drives it, then a whole node.
    driver = run(10)
    killed = workers(cluster)
    for worker in killed:
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
    while done(manifest) < 20 and driver.poll() is None:
        time.sleep(0.01)
    driver.kill()
    driver.communicate()
    coded = done(manifest)
    assert 10 <= coded < _COUNT
    driver = run(30)
    cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
    errors = driver.communicate()[1]
    assert driver.returncode == 0, errors
    assert killed

    lines = [json.loads(line) for line in manifest.read_text().splitlines()[1:]]
    assert Counter(line["source"] for line in lines if line["status"] == "coded").most_common(1)[0][1] == 1
    assert done(manifest) == _COUNT
    written = Counter(version.object_key for version in bucket.object_versions.filter(Prefix="out/"))
    assert set(written) == {f"out/{number % 3}/{number}.ltn" for number in range(_COUNT)}
    # What is written twice was begun twice, before it was known to be done: at most one for each process that died.
    begun = Counter(line["target"] for line in lines if line["status"] == "begun")
    for key, count in written.items():
        assert count <= begun[f"s3://versions/{key}"]
    assert sum(written.values()) - _COUNT <= len(killed) + 3 + 1
    after = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert after.returncode == 0
    assert sum(1 for _ in bucket.object_versions.filter(Prefix="out/")) == sum(written.values())


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="paths of one machine")
def test_files_of_a_folder_and_their_errors(work: Path, tiny_weights: Path, cluster: Any) -> None:
    (work / "in").mkdir()
    for number in range(4):
        Image.fromarray(tiny.picture(20, 30, seed=number)).save(work / f"in/{number}.png")
    (work / "in/bad.png").write_bytes(b"x")
    options = ["--model", str(tiny_weights)]
    environment = ENVIRONMENT | {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}

    def run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([*COMMAND, *arguments], env=environment, capture_output=True, check=False)

    far = run("encode", "-r", "in", "-o", "far", *options, "--json", "--ray", cluster.address)
    here = run("encode", "-r", "in", "-o", "here", *options, "--json", "--jobs", "2")
    assert far.returncode == here.returncode == 2
    assert b"in/bad.png: not an image, or damaged" in far.stderr
    for number in range(4):
        assert (work / f"far/{number}.ltn").read_bytes() == (work / f"here/{number}.ltn").read_bytes()
    *_, ours = (json.loads(line) for line in far.stdout.splitlines())
    assert (ours["coded"], ours["failed"]) == (4, 1)
    wrong = run("encode", "-r", "in", "-o", "no", "--model", "none.safetensors", "--ray", cluster.address)
    assert wrong.returncode == 2
    assert wrong.stderr.count(b"none.safetensors") == 1
    assert (
        b"no Ray cluster can be reached at 127.0.0.1:9"
        in run("encode", "in", "-r", "--ray", "127.0.0.1:9").stderr
    )
    assert b"ray://" in run("encode", "in", "-r", "--ray", "ray://127.0.0.1:9").stderr
