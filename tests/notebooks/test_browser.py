"""A reader's visit in a real browser: run the notebook, move a slider, see the figure change, play a sound."""

from __future__ import annotations

import shutil

import pytest
from lab_driver import answer_first, chromium, jupyterlab, open_notebook, run_all


@pytest.fixture(scope="module")
def lab_address(tmp_path_factory, quiet_environment, browser, repository):
    folder = tmp_path_factory.mktemp("lab")
    for path in (repository / "notebooks").glob("[0-9][0-9]_*.ipynb"):
        shutil.copy(path, folder)
    with jupyterlab(folder, quiet_environment) as address:
        yield address


def _playing(page, selector: str) -> dict:
    """Play the first player for a moment; what it says of itself."""
    return page.locator(selector).first.evaluate(
        """async element => {
            await element.play();
            await new Promise(resolve => setTimeout(resolve, 500));
            return {source: element.src.slice(0, 30), seconds: element.duration, at: element.currentTime};
        }"""
    )


def test_run_move_a_slider_and_play(lab_address, browser):
    with chromium(browser) as page:
        open_notebook(page, lab_address, "01_sound_to_spectrogram.ipynb")
        run_all(page)
        assert page.locator(".avkit-check-unsolved").count() == 4
        before = page.locator('img[alt*="window of 16 ms, in two parts"]')
        assert before.count() == 1
        source = before.get_attribute("src")
        page.locator(".widget-slider .noUi-handle").first.focus()
        page.keyboard.press("ArrowRight")
        after = page.locator('img[alt*="window of 32 ms, in two parts"]')
        after.wait_for(timeout=20_000)
        assert after.get_attribute("src") != source and before.count() == 0
        played = _playing(page, "audio")
        assert played["source"].startswith("data:audio/flac") and abs(played["seconds"] - 2) < 0.01
        assert played["at"] > 0.1


def test_an_answer_is_checked_as_it_is_typed(lab_address, browser):
    """Type a wrong answer and then the right one into the first exercise, running its check each time."""
    with chromium(browser) as page:
        open_notebook(page, lab_address, "01_sound_to_spectrogram.ipynb")
        run_all(page)
        said = answer_first(page, "heard_hz", {"2500": "wrong", "3000": "right"})
        assert "goes on with yours" in said["right"]
