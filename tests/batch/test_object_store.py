"""Input and output in an object store: a local S3 server, by ``s3://``."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from pyarrow import fs

from tests.batch.command import parts, score, scored
from tests.batch.inputs import make_lists, write
from tests.ports import free_port
from tests.service.world import World

PACKAGES = os.environ.get("MOTO_PACKAGES", "")  # a folder that moto is installed in, apart
SERVE = "from moto.server import main; import sys; main(sys.argv[1:])"
LISTS = 60

pytestmark = pytest.mark.skipif(
    not (find_spec("moto") or (PACKAGES and Path(PACKAGES, "moto").is_dir())),
    reason="no local S3 server is installed: pip install 'moto[server]'",
)


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """Of programs that use the server."""
    port = free_port()
    path = os.pathsep.join(p for p in (PACKAGES, os.environ.get("PYTHONPATH", "")) if p)
    server = subprocess.Popen(
        [sys.executable, "-c", SERVE, "-H", "127.0.0.1", "-p", str(port)],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(urllib.request.Request(f"{url}/qin", method="PUT"))
                break
            except urllib.error.URLError:
                assert server.poll() is None
                assert time.monotonic() < until
                time.sleep(0.1)
        yield {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def bucket(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> fs.FileSystem:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found, _ = fs.FileSystem.from_uri("s3://qin/")
    return found


def upload(bucket: fs.FileSystem, path: Path, key: str) -> None:
    with bucket.open_output_stream(key) as stream:
        stream.write(path.read_bytes())


@pytest.mark.parametrize("layout", ["rows", "lists"])
def test_the_output_is_that_of_files_here(
    world: World, bucket: fs.FileSystem, tmp_path: Path, layout: str
) -> None:
    lists = make_lists(world, LISTS)
    table = lists.rows() if layout == "rows" else lists.table()
    (tmp_path / "in").mkdir()
    for number, half in enumerate((table.slice(0, 40), table.slice(40))):
        path = write(half, tmp_path / "in" / f"{number}.parquet")
        upload(bucket, path, f"qin/{layout}/in/{number}.parquet")
    upload(bucket, path, f"qin/{layout}/in/_SUCCESS")  # no part
    here = scored(world, tmp_path / "in", tmp_path / "out", "--part-candidates", "2000")
    assert here.num_rows == table.num_rows
    url, out = f"s3://qin/{layout}/in", f"s3://qin/{layout}/out"
    options = ("--part-candidates", "2000", "--work", str(tmp_path / "work"))
    done = score(world, url, out, *options)
    assert done.returncode == 0, done.stderr
    infos = bucket.get_file_info(fs.FileSelector(f"qin/{layout}/out"))
    found = {info.base_name: bucket.open_input_file(info.path).readall() for info in infos}
    wanted = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    assert found == wanted
    bucket.delete_file(f"qin/{layout}/out/{parts(tmp_path / 'out')[0].name}")
    again = score(world, url, out, *options)
    assert again.returncode == 0, again.stderr
    assert "1 of" in again.stderr
    infos = bucket.get_file_info(fs.FileSelector(f"qin/{layout}/out"))
    assert {i.base_name: bucket.open_input_file(i.path).readall() for i in infos} == wanted


def test_a_key_with_an_empty_part_is_refused(
    world: World, bucket: fs.FileSystem, tmp_path: Path
) -> None:
    """pyarrow lists such an object and cannot read it: it was passed over, and one beside it read
    twice."""
    source = write(make_lists(world, LISTS).table(), tmp_path / "l.parquet")
    upload(bucket, source, "qin/slashes/l.parquet")
    peer = pytest.importorskip("boto3").client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    peer.upload_file(str(source), "qin", "slashes//l.parquet")
    done = score(world, "s3://qin/slashes", tmp_path / "out")
    assert done.returncode == 1
    assert "error: s3://qin/slashes//l.parquet: its key has an empty part" in done.stderr
    for given, output in (("s3://qin//in", tmp_path / "out"), (source, "s3://qin/a//out")):
        done = score(world, given, output)
        assert done.returncode == 1
        assert "two slashes in a row" in done.stderr


def test_faults_name_the_object(world: World, bucket: fs.FileSystem, tmp_path: Path) -> None:
    done = score(world, "s3://qin/absent", tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr == "error: s3://qin/absent: no such object, and no parquet files below it\n"
    source = write(make_lists(world, LISTS).table(), tmp_path / "l.parquet")
    whole = source.read_bytes()
    source.write_bytes(whole[: len(whole) // 2])
    upload(bucket, source, "qin/torn.parquet")
    done = score(world, "s3://qin/torn.parquet", tmp_path / "out")
    assert done.returncode == 1
    assert "error: s3://qin/torn.parquet: not a readable parquet file" in done.stderr
