"""Uploading to a hub: a small one on this machine stands for it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from huggingface_hub import constants

from commands import call, check_plain


class Hub(ThreadingHTTPServer):
    """Makes repositories and takes commits; ``status`` is what it answers to a commit."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = 200
        self.made: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self.answer({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        hub = self.server
        if self.path == "/api/repos/create":
            hub.made.append({**json.loads(body), "token": self.headers["authorization"]})
            self.answer({"url": f"{hub.url}/me/mine"})
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = {"uploadMode": "regular", "shouldIgnore": False}
            self.answer({"files": [{"path": name, **modes} for name in names]})
        elif "/commit/" in self.path and hub.status == 200:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    hub.files[line["value"]["path"]] = content
            self.answer({"commitUrl": f"{hub.url}/me/mine/commit/1", "commitOid": "1"})
        else:
            self.answer({"errors": [], "warnings": []}, hub.status)

    def answer(self, content: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        yield server
        server.shutdown()


@pytest.mark.quick
def test_what_was_exported_is_pushed_if_it_is_asked_for(
    finished: Path, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = call(capsys, "export", finished, "--to", tmp_path / "plain")
    assert plain.code == 0
    assert not hub.made
    to = tmp_path / "pushed"
    command = ("export", finished, "--to", to, "--push", "me/mine")
    outcome = call(capsys, *command, "--private")
    assert outcome.code == 0, outcome.err
    assert outcome.out == f"{to}\n{hub.url}/me/mine\n"
    assert hub.files == {path.name: path.read_bytes() for path in to.iterdir()}
    (made,) = hub.made
    assert made["name"] == "mine"
    assert "private" in json.dumps(made)
    assert made["token"] == "Bearer hf_secret"


def test_what_goes_wrong_is_said_plainly(
    finished: Path,
    hub: Hub,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = ["export", finished, "--push", "me/mine", "--to"]
    hub.status = 403
    refused = call(capsys, *command, tmp_path / "a")
    assert refused.code == 2
    check_plain(refused)
    assert "cannot be pushed to me/mine: the hub answered 403" in refused.err
    assert "hf_secret" not in refused.err
    assert (tmp_path / "a" / "adapter_model.safetensors").is_file()
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    unreachable = call(capsys, *command, tmp_path / "b")
    assert unreachable.code == 2
    check_plain(unreachable)
    assert "cannot be pushed to me/mine" in unreachable.err
    monkeypatch.setattr("iwlora.training.sharing.push.get_token", lambda: None)
    nobody = call(capsys, *command, tmp_path / "c")
    assert "there is no token for the hub; set HF_TOKEN" in nobody.err
    assert not (tmp_path / "c").exists(), "nothing is begun"
    wrong = call(capsys, "export", finished, "--to", tmp_path / "c", "--push", "mine")
    assert "accepted is OWNER/NAME" in wrong.err
    alone = call(capsys, "export", finished, "--to", tmp_path / "c", "--private")
    assert "--private is for --push" in alone.err
