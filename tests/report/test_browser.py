"""The page in a real browser, from disk: no errors, figures that answer, a film that plays."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from noisynet.report.page import write_report

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")


def wait_for(found: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = found()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f"waited {seconds:g} s for {what}")


@pytest.fixture(scope="module")
def page(trained: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "page.html"
    write_report(trained, file, episodes=1)
    return file


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("Chromium and its driver are not installed: apt-get install chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    profile = tmp_path_factory.mktemp("profile")
    for option in (
        "--headless=new",
        "--no-sandbox",  # root, as in a container, has no other way
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def show(browser: Any, page: Path, width: int = 1280, scheme: str = "light") -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(page.as_uri())
    painted = "return document.documentElement.dataset.painted"
    wait_for(lambda: browser.execute_script(painted) == scheme, f"figures in {scheme}")


def canvases(browser: Any) -> int:
    """Count the figures with a canvas of some size."""
    return browser.execute_script(
        """
        let count = 0;
        const visit = (node) => {
          for (const one of node.querySelectorAll("*")) {
            if (one.tagName === "CANVAS" && one.width > 100 && one.height > 100) count += 1;
            if (one.shadowRoot) visit(one.shadowRoot);
          }
        };
        visit(document);
        return count;
        """
    )


def test_it_opens_from_disk_without_errors(browser: Any, page: Path) -> None:
    browser.get_log("browser")
    show(browser, page)
    places = browser.execute_script("return document.querySelectorAll('.plot').length")
    assert places >= 7
    wait_for(lambda: canvases(browser) >= places, "every figure's canvas")
    bad = [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert bad == []
    fetched = browser.execute_script(
        "return performance.getEntriesByType('resource').map(one => one.name)"
    )
    assert [name for name in fetched if not name.startswith(("data:", "blob:"))] == []


def test_a_figure_answers_to_the_pointer(browser: Any, page: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    show(browser, page)
    wait_for(lambda: canvases(browser) > 0, "a canvas")
    # Corners of the first figure's frame on the screen: far from every line and point.
    corners = """
        const place = document.querySelector(".plot");
        place.scrollIntoView({block: "center"});
        const view = Bokeh.index.get_by_id(place.firstElementChild.dataset.rootId);
        const box = view.el.getBoundingClientRect();
        const frame = view.frame.bbox;
        return [
          [box.x + frame.left + 5, box.y + frame.top + 5],
          [box.x + frame.right - 5, box.y + frame.top + 5],
          [box.x + frame.right - 5, box.y + frame.bottom - 5],
        ];
    """
    tips = """
        const found = [];
        const visit = (node) => {
          for (const one of node.querySelectorAll("*")) {
            if (one.classList.contains("bk-Tooltip") && one.getBoundingClientRect().width > 0)
              found.push((one.shadowRoot ?? one).textContent);
            if (one.shadowRoot) visit(one.shadowRoot);
          }
        };
        visit(document);
        return found.join(" ");
    """

    def hovered(corner: int) -> str:
        x, y = browser.execute_script(corners)[corner]
        for shift in (2, 0):
            actions = ActionChains(browser)
            actions.w3c_actions.pointer_action.move_to_location(int(x) + shift, int(y))
            actions.perform()
        return browser.execute_script(tips)

    for corner in range(3):
        text = wait_for(lambda corner=corner: hovered(corner), f"a tooltip in corner {corner}")
        _, step, shown = text.rpartition("step:")
        assert step
        assert "ε-greedy" in shown
        # Three digits of the largest value, and not as many as a float has.
        assert not re.search(r"\.\d{3}", shown)


def test_the_film_plays(browser: Any, page: Path) -> None:
    show(browser, page)
    browser.execute_script("document.querySelector('video').play()")
    place = "return document.querySelector('video').currentTime"
    wait_for(lambda: browser.execute_script(place) > 0.1, "the film to go on")
    size = browser.execute_script("return document.querySelector('video').videoWidth")
    assert size > 300
    assert browser.execute_script("return document.querySelector('video').error") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_light_and_dark(browser: Any, page: Path, scheme: str) -> None:
    show(browser, page, width=390, scheme=scheme)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    wide = "return [...document.querySelectorAll('.scroll')].map(one => one.scrollWidth)"
    assert max(browser.execute_script(wide)) <= 390
    ground, colour = browser.execute_script(
        """
        const figure = Bokeh.documents[0].roots()[0];
        return [figure.background_fill_color, getComputedStyle(document.body).backgroundColor];
        """
    )
    dark = scheme == "dark"
    assert (ground == "#121419") == dark
    assert (colour == "rgb(18, 20, 25)") == dark
