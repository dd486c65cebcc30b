"""Batches from and to an S3 server, archives and lists, and what they write down."""

import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_cli_process import COMMAND, ENVIRONMENT

import tiny
from latens.cli.manifest import Manifest
from latens.errors import DownloadError, ImageError, LimitError, OutputError, UnavailableError
from latens.io import remote

pytest.importorskip("fsspec")
Run = Callable[..., Any]
Fails = Callable[..., str]


def png(seed: int = 0) -> bytes:
    file = io.BytesIO()
    Image.fromarray(tiny.picture(20, 30, seed=seed)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def model(tiny_weights: Path) -> tuple[str, str]:
    """The options that choose the tiny model."""
    return ("--model", str(tiny_weights))


def account(patch: pytest.MonkeyPatch, address: str) -> None:
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", address),
    ):
        patch.setenv(name, value)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of an S3 server."""
    pytest.importorskip("s3fs")
    threaded = pytest.importorskip("moto.server").ThreadedMotoServer(
        ip_address="127.0.0.1", port=0, verbose=False
    )
    threaded.start()
    host, port = threaded.get_host_and_port()
    yield f"http://{host}:{port}"
    threaded.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """An empty bucket of its own, through boto3."""
    boto3 = pytest.importorskip("boto3")
    account(monkeypatch, server)
    bucket = boto3.resource("s3", endpoint_url=server).Bucket(f"test-{abs(hash(request.node.name))}")
    bucket.create()
    return bucket


def keys(bucket: Any, prefix: str) -> list[str]:
    return [entry.key for entry in bucket.objects.filter(Prefix=prefix)]


def test_a_bucket_to_a_bucket_and_back(latens: Run, work: Path, bucket: Any, model: Any) -> None:
    for seed, name in enumerate(("a.png", "b/c.PNG", "b/d/e f.png", "b/notes.txt", "x.heic")):
        bucket.put_object(Key=f"in/{name}", Body=png(seed))
    here = f"s3://{bucket.name}"
    result = latens("encode", "-r", f"{here}/in", "-o", f"{here}/in/small", *model)
    assert result.code == 0, result
    assert "3 encoded, 0 skipped, 0 failed" in result.err
    assert "left alone: 1 .heic" in result.err
    assert keys(bucket, "in/small/") == ["in/small/a.ltn", "in/small/b/c.ltn", "in/small/b/d/e f.ltn"]
    (work / "a.png").write_bytes(png(0))
    assert latens("encode", "a.png", *model).code == 0
    assert bucket.Object("in/small/a.ltn").get()["Body"].read() == (work / "a.ltn").read_bytes()
    # What is there is refused or left out, and the output inside the input is no input.
    result = latens("encode", "-r", f"{here}/in", "-o", f"{here}/in/small", *model)
    assert result.code == 2
    assert f"{here}/in/small/a.ltn and 2 more are there already" in result.err
    bucket.Object("in/small/b/c.ltn").delete()
    result = latens("encode", "-r", f"{here}/in", "-o", f"{here}/in/small", "--skip-existing", *model)
    assert "1 encoded, 2 skipped" in result.err
    assert latens("decode", "-r", f"{here}/in/small/", "-o", "back", *model).code == 0
    assert latens("decode", "a.ltn", "-o", "whole.png", *model).code == 0
    assert (work / "back/a.png").read_bytes() == (work / "whole.png").read_bytes()
    assert sorted(str(path.relative_to(work / "back")) for path in (work / "back").rglob("*.png")) == [
        "a.png", "b/c.png", "b/d/e f.png",
    ]  # fmt: skip
    # A part, through ranges, and a pattern.
    assert (
        latens("decode", f"{here}/in/small/a.ltn", "--region", "3,4,9,8", "-o", "part.png", *model).code == 0
    )
    whole = np.asarray(Image.open(work / "whole.png"))
    assert (np.asarray(Image.open(work / "part.png")) == whole[4:12, 3:12]).all()
    assert latens("encode", f"{here}/in/**/*.png", "-o", "some", "--quiet", *model).code == 0
    assert (work / "some/b/d/e f.ltn").is_file()
    # One file beside itself, and one to a file.
    assert latens("encode", f"{here}/in/a.png", *model).code == 0
    assert latens("encode", "a.png", "-o", f"{here}/one.ltn", *model).code == 0
    assert keys(bucket, "one") == ["one.ltn"]
    assert keys(bucket, "in/a.l") == ["in/a.ltn"]
    assert latens("verify", f"{here}/one.ltn", *model).code == 0


def test_large_pictures_go_in_strips(
    latens: Run, work: Path, bucket: Any, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latens.cli.work.LARGE", 100)
    bucket.put_object(Key="a.png", Body=png(0))
    (work / "a.png").write_bytes(png(0))
    here = f"s3://{bucket.name}"
    assert (
        latens("encode", f"{here}/a.png", "a.png", "-o", f"{here}/out/", "--content", "photo", *model).code
        == 2
    )
    assert latens("encode", f"{here}/a.png", "-o", f"{here}/out/", "--content", "photo", *model).code == 0
    assert latens("encode", "a.png", "--content", "photo", *model).code == 0
    assert bucket.Object("out/a.ltn").get()["Body"].read() == (work / "a.ltn").read_bytes()
    assert latens("decode", f"{here}/out/a.ltn", "-o", f"{here}/a.ppm", *model).code == 0
    assert latens("decode", "a.ltn", "-o", "a.ppm", *model).code == 0
    assert bucket.Object("a.ppm").get()["Body"].read() == (work / "a.ppm").read_bytes()


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_archives_are_folders(latens: Run, work: Path, model: Any, kind: str) -> None:
    (work / "in").mkdir()
    members = {"a.png": png(0), "b/c.png": png(1), "../out.png": png(2), "notes.txt": b"x"}
    if kind == "zip":
        with zipfile.ZipFile(work / "in/one.zip", "w") as zipped:
            for name, data in members.items():
                zipped.writestr(name, data)
    else:
        with tarfile.open(work / "in/one.tar", "w") as tar:
            for name, data in members.items():
                about = tarfile.TarInfo(name)
                about.size = len(data)
                tar.addfile(about, io.BytesIO(data))
    result = latens("encode", "-r", f"in/one.{kind}", "-o", "out", *model)
    assert result.code == 2
    assert "../out.png::in/one" in result.err
    assert "its name leads out of its folder" in result.err
    assert "2 encoded, 0 skipped, 1 failed" in result.err
    assert sorted(str(p.relative_to(work)) for p in work.rglob("*.ltn")) == ["out/a.ltn", "out/b/c.ltn"]
    (work / "a.png").write_bytes(members["a.png"])
    assert latens("encode", "a.png", *model).code == 0
    assert (work / "out/a.ltn").read_bytes() == (work / "a.ltn").read_bytes()
    # Without -o: beside the archive, in a folder of its name. Damaged archives say so.
    latens("encode", "-r", f"in/one.{kind}", *model)
    assert (work / "in/one/b/c.ltn").is_file()
    (work / f"bad.{kind}").write_bytes(b"no archive" * 100)
    assert f"bad.{kind}: " in latens("encode", "-r", f"bad.{kind}", "-o", "none").err
    assert "no such file" in latens("encode", "-r", f"none.{kind}", "-o", "none").err


def _packed(path: Path) -> dict[str, bytes]:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as zipped:
            return {name: zipped.read(name) for name in zipped.namelist()}
    with tarfile.open(path) as tar:
        return {about.name: tar.extractfile(about).read() for about in tar if about.isreg()}  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_results_go_into_an_archive(latens: Run, fails: Fails, work: Path, model: Any, kind: str) -> None:
    for number, name in enumerate(("in/a.png", "in/b/c.png", "in/b/d.png")):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_bytes(png(number))
    (work / "in/bad.png").write_bytes(b"no picture")
    assert latens("encode", "-r", "in", "-o", "out", *model).code == 2
    assert latens("encode", "-r", "in", "-o", f"out.{kind}", "--jobs", "3", *model).code == 2  # for bad.png
    packed = _packed(work / f"out.{kind}")
    assert packed == {name: (work / "out" / name).read_bytes() for name in ("a.ltn", "b/c.ltn", "b/d.ltn")}
    assert not list(work.glob(".latens-*"))
    # From one into another, and the same bytes whenever it is made.
    result = latens("decode", "-r", f"out.{kind}", "-o", "back.zip", "--jobs", "1", *model)
    assert result.code == 0
    assert f"out.{kind} -> back.zip/b/c.png" in result.err
    assert latens("decode", "-r", "out", "-o", "back", *model).code == 0
    assert _packed(work / "back.zip") == {
        name: (work / "back" / name).read_bytes() for name in ("a.png", "b/c.png", "b/d.png")
    }
    first = (work / "back.zip").read_bytes()
    assert latens("decode", "-r", f"out.{kind}", "-o", "back.zip", "--jobs", "1", "--force", *model).code == 0
    assert (work / "back.zip").read_bytes() == first
    # What must not be.
    kept = (work / f"out.{kind}").read_bytes()
    assert "exists already" in fails("encode", "-r", "in", "-o", f"out.{kind}", *model)
    assert "also an input" in fails("decode", "-r", f"out.{kind}", "-o", f"out.{kind}", "--force", *model)
    for more in (["--manifest", "m.jsonl"], ["--skip-existing"], ["--ray"]):
        assert "in one piece" in fails("encode", "-r", "in", "-o", f"new.{kind}", *more, *model)
    assert (work / f"out.{kind}").read_bytes() == kept
    # Nothing comes of nothing, and a single picture goes in as well.
    assert latens("encode", "in/bad.png", "-o", f"new.{kind}", *model).code == 2
    assert not (work / f"new.{kind}").exists()
    assert latens("encode", "in/a.png", "-o", f"new.{kind}", *model).code == 0
    assert _packed(work / f"new.{kind}") == {"a.ltn": packed["a.ltn"]}
    (work / "folder.tar").mkdir()
    assert latens("encode", "in/a.png", "-o", "folder.tar", *model).code == 0
    assert (work / "folder.tar/a.ltn").is_file()


def test_a_stopped_archive_leaves_nothing(
    latens: Run, work: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (work / "in").mkdir()
    for number in range(3):
        (work / f"in/{number}.png").write_bytes(png(number))
    from latens.cli.archive import Archive

    add = Archive.add

    def stopped(self: Archive, member: str, data: Any) -> None:
        add(self, member, data)
        if member.startswith("1"):
            raise KeyboardInterrupt

    monkeypatch.setattr(Archive, "add", stopped)
    assert latens("encode", "-r", "in", "-o", "out.tar", "--jobs", "1", *model).code == 130
    assert sorted(path.name for path in work.iterdir() if path.suffix != ".safetensors") == ["in"]


def test_hostile_archives(latens: Run, work: Path, model: Any) -> None:
    """Names that lead elsewhere, links, devices, and sizes that are not true: told, and nothing is written outside."""
    outside = work / "outside.png"
    outside.write_bytes(png(1))
    good = png(0)
    with tarfile.open(work / "bad.tar", "w") as tar:
        for name, kind in (
            ("good.png", tarfile.REGTYPE),
            ("/etc/absolute.png", tarfile.REGTYPE),
            ("a/../../up.png", tarfile.REGTYPE),
            ("back\\..\\slash.png", tarfile.REGTYPE),
            ("link.png", tarfile.SYMTYPE),
            ("hard.png", tarfile.LNKTYPE),
            ("device.png", tarfile.CHRTYPE),
        ):
            about = tarfile.TarInfo(name)
            about.type, about.linkname = kind, str(outside)
            about.size = len(good) if kind == tarfile.REGTYPE else 0
            tar.addfile(about, io.BytesIO(good))
    before = {path for path in work.parent.rglob("*") if "out" not in path.name}
    result = latens("encode", "-r", "bad.tar", "-o", "out.tar", *model)
    assert result.code == 2
    assert set(_packed(work / "out.tar")) == {"good.ltn", "etc/absolute.ltn"}
    assert result.err.count("its name") == 2
    for word in ("link.png", "hard.png", "device.png"):
        assert word not in result.err
    assert {path for path in work.parent.rglob("*") if "out" not in path.name} == before
    about = tarfile.TarInfo("huge.png")
    about.size = 1 << 40
    (work / "huge.tar").write_bytes(about.tobuf() + bytes(2048))
    with zipfile.ZipFile(work / "huge.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("bomb.png", bytes(1 << 27))
    for kind in ("tar", "zip"):
        result = latens("encode", "-r", f"huge.{kind}", "-o", "none", "--max-pixels", "1000", *model)
        assert result.code == 2
        assert f"huge.{kind}: " in result.err
    assert not list(work.glob("none/*"))


def test_an_archive_in_a_bucket(latens: Run, fails: Fails, bucket: Any, work: Path, model: Any) -> None:
    for number in range(2):
        bucket.put_object(Key=f"in/{number}.png", Body=png(number))
    here = f"s3://{bucket.name}"
    for suffix in ("zip", "tar"):
        name = f"{here}/shard-0.{suffix}"
        assert latens("encode", "-r", f"{here}/in", "-o", name, *model).code == 0
        (work / f"got.{suffix}").write_bytes(bucket.Object(f"shard-0.{suffix}").get()["Body"].read())
        assert sorted(_packed(work / f"got.{suffix}")) == ["0.ltn", "1.ltn"]
        assert "exists already" in fails("encode", "-r", f"{here}/in", "-o", name, *model)
        assert latens("decode", "-r", name, "-o", "pictures", "--force", *model).code == 0
        assert sorted(path.name for path in (work / "pictures").iterdir()) == ["0.png", "1.png"]


def test_shards_in_a_bucket(latens: Run, bucket: Any, model: Any) -> None:
    for shard in range(2):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for number in range(2):
                data = png(number)
                about = tarfile.TarInfo(f"{number}.png")
                about.size = len(data)
                tar.addfile(about, io.BytesIO(data))
        bucket.put_object(Key=f"shards/{shard}.tar", Body=packed.getvalue())
    here = f"s3://{bucket.name}"
    for source in (f"{here}/shards", f"{here}/shards/*.tar"):
        assert latens("encode", "-r", source, "-o", f"{here}/out", "--force", *model).code == 0
        assert keys(bucket, "out/") == ["out/0/0.ltn", "out/0/1.ltn", "out/1/0.ltn", "out/1/1.ltn"]


def test_lists_of_files(latens: Run, fails: Fails, work: Path, model: Any) -> None:
    for name in ("in/a/x.png", "in/b/x.png"):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_bytes(png())
    (work / "list.txt").write_bytes(b"in/a/x.png\r\nin/b/x.png\n\n")
    assert latens("encode", "--files-from", "list.txt", "-o", "out", *model).code == 0
    assert (work / "out/a/x.ltn").read_bytes() == (work / "out/b/x.ltn").read_bytes()
    listed = b"in/a/x.png\nin/b/x.png\nin/b/none.png\n"
    result = latens("encode", "--files-from", "-", *model, stdin=listed)
    assert "2 encoded, 0 skipped, 1 failed" in result.err
    assert "in/b/none.png: cannot be read: No such file" in result.err
    assert (work / "in/b/x.ltn").is_file()
    assert "no list of files" in fails("encode", "--files-from", "in/a/x.png", *model)
    assert "none.txt: cannot be read" in fails("encode", "--files-from", "none.txt", *model)
    assert "name at least one file" in fails("encode")


def test_a_manifest_says_what_is_done(latens: Run, fails: Fails, work: Path, model: Any) -> None:
    (work / "in").mkdir()
    for number in range(3):
        (work / f"in/{number}.png").write_bytes(png(number))
    (work / "in/bad.png").write_bytes(b"x")
    command = ("encode", "-r", "in", "-o", "out", "--manifest", "m.jsonl", *model)
    assert latens(*command).code == 2
    head, *lines = map(json.loads, (work / "m.jsonl").read_text().splitlines())
    assert (head["latens"], head["command"], head["options"]["model"]) == (1, "encode", model[1])
    said = {
        status: [line["source"] for line in lines if line["status"] == status]
        for status in ("begun", "coded")
    }
    assert sorted(said["begun"]) == ["in/0.png", "in/1.png", "in/2.png", "in/bad.png"]
    assert sorted(said["coded"]) == ["in/0.png", "in/1.png", "in/2.png"]
    # What is done is not done again, not even if its result was moved away; what failed is.
    (work / "in/bad.png").write_bytes(png(9))
    (work / "out/0.ltn").unlink()
    result = latens(*command)
    assert "1 encoded, 3 skipped, 0 failed" in result.err
    assert not (work / "out/0.ltn").exists()
    assert (work / "out/bad.ltn").is_file()
    # A process died before it could tell of its result, and in the middle of a line.
    kept = (work / "m.jsonl").read_bytes()
    coded = [line for line in kept.splitlines(keepends=True) if b'"coded"' in line and b"in/1.png" in line]
    (work / "m.jsonl").write_bytes(kept.replace(coded[0], b"") + b'{"status": "co')
    (work / "out/1.ltn").write_bytes(b"half")
    assert "1 encoded, 3 skipped, 0 failed" in latens(*command).err
    assert (work / "out/1.ltn").read_bytes()[:3] == b"LTN"
    assert (work / "m.jsonl").read_bytes().endswith(b"}\n")
    # Of another batch, of somebody else, damaged.
    assert "(quality was None, and is 5.0)" in fails(*command, "-q", "5")
    assert "belongs to another batch (encode, not decode)" in fails(
        "decode", "-r", "out", "--manifest", "m.jsonl"
    )
    for what in (b"x\n", b"x", b"{}\n", b"\xff\xfe\n"):
        (work / "other").write_bytes(what)
        assert "other: is no manifest of Latens" in fails("encode", "in/0.png", "--manifest", "other", *model)
    lines = kept.splitlines(keepends=True)
    (work / "m.jsonl").write_bytes(b"".join([*lines[:2], b"{}\n", *lines[2:]]))
    assert "m.jsonl: line 3 is damaged" in fails(*command)
    assert "none/m.jsonl: the manifest cannot be written" in fails(*command[:5], "--manifest", "none/m.jsonl")


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_a_manifest_is_of_one_process(work: Path, fails: Fails) -> None:
    held = Manifest("m.jsonl", "encode", {})
    with pytest.raises(OutputError, match="another process is at work on this manifest"):
        Manifest("m.jsonl", "encode", {})
    script = "import sys; from latens.cli.manifest import Manifest; Manifest('m.jsonl', 'encode', {})"
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert b"another process is at work" in other.stderr
    held.close()
    Manifest("m.jsonl", "encode", {}).close()


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_two_processes_cannot_both_work_on_a_manifest(work: Path, model: Any) -> None:
    os.mkfifo(work / "slow.png")
    command = [*COMMAND, "encode", *model, "--manifest", "m.jsonl", "slow.png", "-o", "out.ltn"]
    first = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE)
    while not (work / "m.jsonl").exists() or b"begun" not in (work / "m.jsonl").read_bytes():
        assert first.poll() is None
        time.sleep(0.02)
    second = subprocess.run(command, env=ENVIRONMENT, capture_output=True, check=False)
    assert second.returncode == 2
    assert b"another process is at work on this manifest" in second.stderr
    (work / "slow.png").write_bytes(png())
    first.communicate()
    assert first.returncode == 0
    assert b'"coded"' in (work / "m.jsonl").read_bytes()


# ---- errors


class _Broken(BaseHTTPRequestHandler):
    """Answers as stores do that are not well."""

    status = 403
    wait = 0.0

    def do_GET(self) -> None:
        time.sleep(self.wait)
        body = {
            403: b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>",
            404: b"<Error><Code>NoSuchKey</Code><Message>no</Message></Error>",
            503: b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>",
        }[self.status]
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_PUT = do_POST = do_GET  # noqa: N815

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Broken]]:
    """What a store does that every name of S3 leads to."""
    pytest.importorskip("s3fs")

    class Handler(_Broken):
        pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *arguments: object) -> None:
            pass  # who gave up waiting

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    account(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    fast = {"retries": {"total_max_attempts": 1}, "connect_timeout": 0.2, "read_timeout": 0.2}
    monkeypatch.setattr(remote, "_S3", {"config_kwargs": fast, "skip_instance_cache": True})
    import s3fs

    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 2)
    yield Handler
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "wait", "text"),
    [
        (403, 0.0, "access is denied (403)"),
        (404, 0.0, "there is no such file or bucket (404)"),
        (503, 0.0, "the server is too busy (503)"),
        (403, 1.0, "the server does not answer in time"),
    ],
)
def test_stores_that_are_not_well(
    fails: Fails, work: Path, broken: type[_Broken], model: Any, status: int, wait: float, text: str
) -> None:
    broken.status, broken.wait = status, wait
    (work / "a.png").write_bytes(png())
    assert text in fails("encode", "s3://some-bucket/a.png", "-o", "x.ltn", *model)
    if status != 404:
        assert text in fails("encode", "-r", "s3://some-bucket/in", "-o", "out", *model)
        assert text in fails("encode", "a.png", "-o", "s3://some-bucket/a.ltn", *model)
    with pytest.raises(OutputError, match="cannot be written"):
        remote.store("s3://some-bucket/a.ltn", b"x")


def test_a_store_that_takes_nothing_ends_the_batch(
    latens: Run, work: Path, broken: type[_Broken], model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (work / "in").mkdir()
    for number in range(3):
        (work / f"in/{number}.png").write_bytes(png(number))
    broken.status = 403
    monkeypatch.setattr(remote, "sizes", lambda names: {})
    result = latens("encode", "-r", "in", "-o", "s3://some-bucket/out", "--jobs", "1", *model)
    assert result.code == 2
    assert result.err.count("access is denied (403)") == 1
    assert "the same command with --skip-existing goes on from here" in result.err


def test_what_is_missing_is_said(fails: Fails, monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    assert "nonsense" in fails("encode", "nonsense://a.png")
    with pytest.raises(UnavailableError, match="nonsense"):
        remote.fetch("nonsense://a.png", None, 10)
    remote._fsspec.cache_clear()
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(UnavailableError, match=r"pip install 'latens\[remote\]'"):
        remote.fetch("s3://some-bucket/a.png", None, 10)
    remote._fsspec.cache_clear()
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UnavailableError, match=r"gs:// needs a package that is not installed.*gcsfs"):
        remote._store("gs://some-bucket/a.png")


def test_limits_and_nothing(bucket: Any) -> None:
    bucket.put_object(Key="a.png", Body=bytes(100))
    name = f"s3://{bucket.name}/a.png"
    assert remote.fetch(name, None, 100) == bytes(100)
    assert remote.sizes([name, name + "x"]) == {name: 100}
    assert remote.sizes([f"{name}{i}" for i in range(40)] + [name]) == {name: 100}
    with pytest.raises(LimitError, match="more than 99 bytes"):
        remote.fetch(name, None, 99)
    with pytest.raises(ImageError, match="nothing below it"):
        list(remote.find(f"s3://{bucket.name}/none", through=True))
    with pytest.raises(DownloadError, match="404"):
        remote.fetch(name + "x", None, 99)
    with pytest.raises(DownloadError, match="ends before its member does"):
        remote.fetch(f"tar://a::{name}", (90, 20), 99)
