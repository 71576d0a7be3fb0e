"""Weights are listed, fetched whole from servers of every kind, checked, and kept."""

import http.server
import json
import re
import threading
import time

import pytest
import torch
from parity_fill import official_state_dict
from torch import nn

from avkit import download, weights
from avkit.checkpoints import load_model, to_official
from avkit.cli import main as cli
from avkit.download import Patience, fetch, sha256
from avkit.errors import CheckpointError, DownloadError, InputError
from avkit.iianet import IIANet
from avkit.lips import LipEncoder

CALM = Patience(stall=30, attempts=3, pause=0.01)
HASTY = Patience(stall=0.5, attempts=3, pause=0.01)
BODY = bytes(range(256)) * 4096  # 1 MiB


class Server:
    """A web server on this machine whose manners a test chooses.

    manners: called with the handler, the bytes asked for and the number of the request; sends the answer.
    """

    def __init__(self, manners, body=BODY, etag='"1"'):
        self.manners, self.body, self.etag, self.requests = manners, body, etag, []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer.requests.append(dict(self.headers))
                try:
                    outer.manners(self, outer, len(outer.requests))
                except (BrokenPipeError, ConnectionResetError):
                    pass
                self.close_connection = True

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/file.zip"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()


def answer(handler, server, send=None, length=None, ranges=True, etag=True):
    """A good answer; `send` bytes of it are sent, and `length` is what is promised."""
    start, asked = 0, handler.headers.get("Range")
    resumed = bool(asked) and ranges and handler.headers.get("If-Range") == server.etag
    if resumed:
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(server.body):
            handler.send_response(416)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
    body = server.body[start:]
    handler.send_response(206 if resumed else 200)
    if resumed:
        handler.send_header("Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}")
    if etag:
        handler.send_header("ETag", server.etag)
    if length != "none":
        handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body[:send])


def good(handler, server, count):
    answer(handler, server)


def test_whole_file_arrives(tmp_path):
    with Server(good) as server:
        path = fetch(server.url, tmp_path / "deep" / "file.zip", CALM, quiet=True)
    assert path.read_bytes() == BODY
    assert [p.name for p in path.parent.iterdir()] == ["file.zip"], "nothing is left beside it"
    assert len(server.requests) == 1 and server.requests[0]["User-Agent"].startswith("avkit/")


def test_truncating_server_is_resumed_where_it_stopped(tmp_path):
    with Server(lambda h, s, n: answer(h, s, send=300_000)) as server:
        path = fetch(server.url, tmp_path / "file.zip", CALM, quiet=True)
    assert path.read_bytes() == BODY
    assert [r.get("Range") for r in server.requests] == [
        None,
        "bytes=300000-",
        "bytes=600000-",
        "bytes=900000-",
    ]


def test_stalling_server_is_given_up_and_resumed(tmp_path):
    def stall(handler, server, count):
        answer(handler, server, send=500_000 if count == 1 else None)
        if count == 1:
            handler.wfile.flush()
            time.sleep(2)

    began = time.monotonic()
    with Server(stall) as server:
        path = fetch(server.url, tmp_path / "file.zip", HASTY, quiet=True)
    assert path.read_bytes() == BODY and len(server.requests) >= 2
    assert re.fullmatch(r"bytes=[1-9]\d*-", server.requests[1]["Range"])
    assert time.monotonic() - began < 60


def test_server_that_only_stalls_is_named_and_what_came_is_kept(tmp_path):
    def stall(handler, server, count):
        if count == 1:
            answer(handler, server, send=400_000)
            handler.wfile.flush()
        time.sleep(1.5)

    target = tmp_path / "file.zip"
    with Server(stall) as server, pytest.raises(DownloadError, match=r"[1-9][\d,]+ bytes are kept"):
        fetch(server.url, target, HASTY, quiet=True)
    assert not target.exists()
    with Server(good) as again:  # another call, later: the rest is asked for
        assert fetch(again.url, target, CALM, quiet=True).read_bytes() == BODY
    assert re.fullmatch(r"bytes=[1-9]\d*-", again.requests[0]["Range"])


@pytest.mark.parametrize("etag", [True, False])
def test_server_that_promises_more_than_it_has_is_named(tmp_path, etag):
    liar = Server(lambda h, s, n: answer(h, s, length=len(BODY) + 1000, etag=etag))
    with liar as server, pytest.raises(DownloadError, match="times in a row"):
        fetch(server.url, tmp_path / "file.zip", CALM, quiet=True)
    assert not (tmp_path / "file.zip").exists()
    assert len(server.requests) < 12


def test_server_that_promises_less_gives_a_file_that_the_check_refuses(cache, iianet_file):
    with Server(lambda h, s, n: answer(h, s, length=1000), body=iianet_file.read_bytes()) as server:
        row(server.url)
        with pytest.raises(CheckpointError, match="is not these weights"):
            weights.get("test-iianet", patience=CALM, quiet=True)
    assert list(cache.iterdir()) == []


def test_server_without_length_is_believed_at_its_end(tmp_path):
    with Server(lambda h, s, n: answer(h, s, length="none")) as server:
        assert fetch(server.url, tmp_path / "file.zip", CALM, quiet=True).read_bytes() == BODY


def test_server_that_cannot_resume_starts_anew(tmp_path):
    with Server(lambda h, s, n: answer(h, s, send=300_000 if n == 1 else None, ranges=False)) as server:
        assert fetch(server.url, tmp_path / "file.zip", CALM, quiet=True).read_bytes() == BODY


def test_file_that_changed_between_two_connections_is_not_mixed(tmp_path):
    def change(handler, server, count):
        if count == 2:
            server.body, server.etag = bytes(reversed(BODY)), '"2"'
        answer(handler, server, send=300_000 if count == 1 else None)

    with Server(change) as server:
        assert fetch(server.url, tmp_path / "file.zip", CALM, quiet=True).read_bytes() == bytes(
            reversed(BODY)
        )


def test_server_that_resumes_elsewhere_is_not_believed(tmp_path):
    def elsewhere(handler, server, count):
        if count != 2:
            return answer(handler, server, send=300_000 if count == 1 else None)
        handler.send_response(206)
        handler.send_header("ETag", server.etag)
        handler.send_header("Content-Range", f"bytes 0-{len(BODY) - 1}/{len(BODY)}")
        handler.send_header("Content-Length", str(len(BODY)))
        handler.end_headers()
        handler.wfile.write(BODY)

    with Server(elsewhere) as server:
        assert fetch(server.url, tmp_path / "file.zip", CALM, quiet=True).read_bytes() == BODY
    assert len(server.requests) == 3


def test_busy_server_is_tried_again_and_a_missing_file_is_not(tmp_path):
    def busy(handler, server, count):
        if count == 1:
            handler.send_error(503)
        else:
            answer(handler, server)

    with Server(busy) as server:
        assert fetch(server.url, tmp_path / "file.zip", CALM, quiet=True).read_bytes() == BODY
    with Server(lambda h, s, n: h.send_error(404)) as server, pytest.raises(DownloadError, match="404"):
        fetch(server.url, tmp_path / "other.zip", CALM, quiet=True)
    assert len(server.requests) == 1


def test_redirect_is_followed(tmp_path):
    with Server(good) as server:

        def redirect(handler, other, count):
            handler.send_response(302)
            handler.send_header("Location", server.url)
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        with Server(redirect) as first:
            assert fetch(first.url, tmp_path / "file.zip", CALM, quiet=True).read_bytes() == BODY


def test_endless_and_oversized_answers_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "MAX_BYTES", 500_000)
    with Server(good) as server, pytest.raises(DownloadError, match="at most"):
        fetch(server.url, tmp_path / "file.zip", CALM, quiet=True)
    with (
        Server(lambda h, s, n: answer(h, s, length="none")) as server,
        pytest.raises(DownloadError, match="goes on"),
    ):
        fetch(server.url, tmp_path / "file.zip", CALM, quiet=True)


def test_only_web_addresses_are_fetched(tmp_path):
    (tmp_path / "secret").write_text("s")
    with pytest.raises(DownloadError, match="web address"):
        fetch(f"file://{tmp_path}/secret", tmp_path / "file.zip")


def test_progress_is_shown(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(download, "tqdm", lambda *a, **k: shown.append(k) or FakeBar())
    shown, steps = [], []

    class FakeBar:
        def update(self, count):
            steps.append(count)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    with Server(good) as server:
        fetch(server.url, tmp_path / "file.zip", CALM)
    assert shown[0]["total"] == len(BODY) and sum(steps) == len(BODY) and len(steps) > 1


# ------------------------------------------------------------------------------------------- the catalogue and cache


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AVKIT_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "weights"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(autouse=True)
def own_catalogue(monkeypatch):
    monkeypatch.setattr(weights, "OFFICIAL", weights.OFFICIAL)


@pytest.fixture(scope="module")
def iianet_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("iianet") / "best_model.pth"
    torch.save({"model_name": "IIANet", "state_dict": official_state_dict("IIANet")}, path)
    return path


@pytest.fixture(scope="module")
def lip_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("lips") / "lrw.pth.tar"
    torch.save({"model_state_dict": official_state_dict("lip encoder (IIANet repo)")}, path)
    return path


def row(url):
    weights.OFFICIAL = (
        weights.Weights("test-iianet", "iianet", "a test", "none stated", "http://127.0.0.1/", url),
        *weights.OFFICIAL,
    )


def test_get_fetches_checks_and_notes_the_checksum(cache, iianet_file, capsys):
    with Server(good, body=iianet_file.read_bytes()) as server:
        row(server.url)
        assert cli(["weights", "get", "test-iianet"]) == 0
        printed = capsys.readouterr().out
        path = cache / "test-iianet.zip"
        assert str(path) in printed and sha256(path) in printed and "noted at first use" in printed
        assert "none stated" in printed
        assert json.loads((cache / "checksums.json").read_text()) == {"test-iianet": sha256(path)}
        assert cli(["weights", "get", "test-iianet", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["path"] == str(path)
        assert len(server.requests) == 1, "what is there is not fetched again"
    model = weights.load("test-iianet")
    assert isinstance(model, IIANet) and model.lips is None
    assert cli(["weights"]) == 0
    assert "on this machine" in capsys.readouterr().out


def test_a_later_copy_that_differs_is_refused_and_the_first_is_kept(cache, iianet_file):
    with Server(good, body=iianet_file.read_bytes()) as server:
        row(server.url)
        path, _ = weights.get("test-iianet", patience=CALM, quiet=True)
    first = path.read_bytes()
    other = cache.parent / "other.pth"
    torch.save({"state_dict": official_state_dict("IIANet"), "note": "another file"}, other)
    with pytest.raises(CheckpointError, match="checksums.json"):
        weights.get("test-iianet", source=other)
    assert path.read_bytes() == first
    path.write_bytes(first[:-1] + b"x")
    with pytest.raises(CheckpointError, match="damaged"):
        weights.get("test-iianet")
    with Server(good, body=first) as server:
        row(server.url)
        assert "the same as when it first came" in weights.get("test-iianet", again=True, quiet=True)[1]
    assert path.read_bytes() == first


def test_page_instead_of_a_file_is_not_kept(cache):
    with Server(good, body=b"<!doctype html><title>Sign in</title>") as server:
        row(server.url)
        with pytest.raises(CheckpointError, match="is not these weights"):
            weights.get("test-iianet", quiet=True)
    assert list(cache.iterdir()) == []


def test_weights_of_another_network_are_refused(cache, lip_file):
    with pytest.raises(CheckpointError, match="is not these weights"):
        weights.get("iianet-lrs2", source=lip_file)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/file.zip", "http://avkit.invalid/file.zip"])
def test_without_a_network_it_says_what_to_do(cache, url, capsys):
    row(url)
    assert cli(["weights", "get", "test-iianet"]) == 2
    said = capsys.readouterr().err
    assert "cannot be reached" in said and "--from FILE" in said and url in said
    assert "Traceback" not in said


def test_a_drive_link_is_left_to_the_user_and_taken_from_a_file(cache, lip_file, iianet_file, capsys):
    assert cli(["weights", "get", "lip-encoder-iianet"]) == 2
    said = capsys.readouterr().err
    assert "https://github.com/JusperLee/IIANet/issues/1" in said and "--from FILE" in said
    assert cli(["weights", "get", "lip-encoder-iianet", "--from", str(lip_file)]) == 0
    weights.get("iianet-lrs2", source=iianet_file)
    model = weights.load("iianet-lrs2")
    assert isinstance(model.lips, LipEncoder)
    expected = official_state_dict("lip encoder (IIANet repo)")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in to_official(model.lips).items())
    with pytest.raises(InputError, match="no file"):
        weights.get("iianet-lrs2", source=lip_file.with_name("none"))


def test_unknown_and_unfetched_names_are_told_from_each_other(cache):
    with pytest.raises(InputError, match="iianet-lrs2"):
        weights.get("iianet-lrs4")
    with pytest.raises(CheckpointError, match="avkit weights get iianet-lrs3"):
        weights.load("iianet-lrs3")


def test_table_and_json_say_licence_size_and_source(cache, capsys):
    assert cli(["weights"]) == 0
    text = capsys.readouterr().out
    for name in ("iianet-lrs2", "iianet-lrs3", "iianet-vox2", "lip-encoder-iianet"):
        assert name in text
    assert "Apache-2.0" in text and "none stated" in text and "size unknown" in text and str(cache) in text
    assert cli(["weights", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"name", "licence", "size", "url", "page", "path"} <= set(rows[0])
    assert next(r for r in rows if r["name"] == "iianet-vox2")["url"].endswith("/v1.0.1/vox2.zip")


def test_bundled_weights_are_listed_and_need_no_fetching(cache, monkeypatch):
    bundled = weights.list_bundled()
    rows = {r.name: r for r in weights.catalogue()}
    assert all(name in rows and rows[name].size for name in bundled)
    for name in bundled:
        path, said = weights.get(name)
        assert path.is_dir() and "with the package" in said


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("AVKIT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights.cache_folder() == tmp_path / "avkit" / "weights"
    monkeypatch.setenv("AVKIT_CACHE", str(tmp_path / "own"))
    assert weights.cache_folder() == tmp_path / "own" / "weights"


def test_load_model_finds_fetched_weights_by_name_and_fetches_nothing(monkeypatch):
    asked = []
    monkeypatch.setattr(weights, "load", lambda name: asked.append(name) or nn.Linear(1, 1))
    assert isinstance(load_model("iianet-lrs2"), nn.Linear)
    assert asked == ["iianet-lrs2"]
