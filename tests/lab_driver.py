"""JupyterLab driven by Debian's Chromium, for the tests that need a real browser."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
    "--autoplay-policy=no-user-gesture-required",
)
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},  # every cell stays in the page
    "docmanager-extension/plugin": {"autosave": False},
}


@contextlib.contextmanager
def jupyterlab(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """A JupyterLab server on `folder`; yields its address with the token in it."""
    private, port = own_places(folder), free_port()
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}"]
    command += [f"--ServerApp.root_dir={folder}", "--IdentityProvider.token=lesson", "--allow-root"]
    command += ["--expose-app-in-browser", "--ServerApp.port_retries=0"]
    with open(folder / "server.log", "w") as log:
        server = subprocess.Popen(
            command, env={**environment, **private}, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            wait_for(f"http://127.0.0.1:{port}/api?token=lesson", server, folder / "server.log")
            yield f"http://127.0.0.1:{port}/lab/tree/{{}}?token=lesson"
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


def own_places(folder: Path) -> dict[str, str]:
    """Variables that give a JupyterLab its own configuration, data and workspaces below `folder`, with our settings."""
    for name, values in SETTINGS.items():
        path = folder / ".settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    places = {"JUPYTERLAB_SETTINGS_DIR": ".settings", "JUPYTER_CONFIG_DIR": ".config"}
    places |= {"JUPYTER_DATA_DIR": ".data", "JUPYTERLAB_WORKSPACES_DIR": ".workspaces"}
    return {name: str(folder / place) for name, place in places.items()}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(address: str, server: subprocess.Popen, log: Path, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    pytest.fail(f"JupyterLab did not answer within {seconds:.0f} s:\n{log.read_text()[-3000:]}")


@contextlib.contextmanager
def chromium(path: str):
    """A page of headless Chromium (its path) that reaches nothing but this machine."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        local = ("http://127.0.0.1", "data:", "blob:")
        page.route("**/*", lambda r: r.continue_() if r.request.url.startswith(local) else r.abort())
        try:
            yield page
        finally:
            browser.close()


def open_notebook(page, address: str, name: str) -> None:
    """Open a notebook and wait until its kernel is there."""
    page.goto(address.format(name), timeout=90_000)
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=90_000)
    page.wait_for_function("window.jupyterapp?.shell?.currentWidget?.sessionContext?.isReady", timeout=90_000)


def run_all(page, seconds: float = 240) -> None:
    """Run every cell, and fail if one raised or if they take longer than `seconds`."""
    page.evaluate(
        """() => {
            window.allRun = null;
            window.jupyterapp.commands.execute("notebook:run-all-cells")
                .then(done => { window.allRun = String(done); }, error => { window.allRun = String(error); });
        }"""
    )
    page.wait_for_function("window.allRun !== null", timeout=seconds * 1000)
    errors = page.locator("[data-mime-type='application/vnd.jupyter.error']").all_inner_texts()
    assert page.evaluate("window.allRun") == "true", errors or page.evaluate("window.allRun")


def answer_first(page, name: str, answers: dict[str, str]) -> dict[str, str]:
    """Type answers into the exercise `name = None`, one after another, each with its check; {status wanted: what was said}."""
    said, asked = {}, f"{name} = None"
    for answer, status in answers.items():
        page.locator(".jp-CodeCell", has_text=asked).locator(".cm-content").first.click()
        page.keyboard.press("Control+A")
        asked = f"{name} = {answer}"
        page.keyboard.type(asked)
        page.keyboard.press("Shift+Enter")
        page.keyboard.press("Shift+Enter")
        verdict = page.locator(f".avkit-check-{status}").first
        verdict.wait_for(timeout=60_000)
        said[status] = verdict.inner_text()
    return said
