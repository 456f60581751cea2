"""report.html in a browser, headless Chromium: its script, its width on a phone, its keyboard, its print."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_dataset
import torch
from report_pages import STATES, evaluate_best, folder

from retina.report import page
from retina.results.run_folder import RunFolder

pytest.importorskip("selenium", reason="needs selenium, which the test extra brings")
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
Browser = webdriver.Chrome


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser without a window."""
    if not (CHROMIUM and DRIVER):
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    options = Options()
    options.binary_location = CHROMIUM
    # as root, as in containers, there is no sandbox to be had; the page is our own
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(executable_path=DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module", autouse=True)
def _on_one_core() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a finished sweep's page."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RETINA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        run = folder(tmp_path_factory.mktemp("results"))
        evaluate_best(run, tiny_dataset.photographs())
        file = page.write(
            RunFolder.open(run.root), {"learning_rate": 0.75, "batch_size": 0.25}, device=tiny_dataset.CPU
        )
    return file.as_uri()


@pytest.fixture
def opened(browser: Browser, address: str) -> Iterator[Browser]:
    """The page, just opened on a wide screen; whatever is done with it must leave the console empty."""
    wide(browser, 1280)
    browser.get(address)
    yield browser
    assert browser.get_log("browser") == []


def wide(browser: Browser, pixels: int) -> None:
    """Give the screen a width."""
    phone = pixels < 500
    screen = {"width": pixels, "height": 800, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)


def column(browser: Browser, name: str) -> list[str]:
    """The texts of a column, of the rows that are shown, from above."""
    return browser.execute_script(  # type: ignore[no-any-return]
        "const heads = [...document.querySelectorAll('#trial-table thead th')];"
        "const at = heads.findIndex((head) => head.dataset.name === arguments[0]);"
        "return [...document.querySelectorAll('#trial-table tbody tr')]"
        ".filter((row) => row.offsetParent !== null).map((row) => row.cells[at].textContent.trim());",
        name,
    )


def head(browser: Browser, name: str) -> Any:
    """The button that sorts by a column."""
    return browser.find_element(By.CSS_SELECTOR, f"#trial-table th[data-name={name}] button")


def active(browser: Browser, expression: str) -> Any:
    """What JavaScript says of the element that has the focus, called `it`."""
    return browser.execute_script(f"const it = document.activeElement; return {expression};")


def test_it_opens_without_a_word_and_without_a_network(opened: Browser) -> None:
    loaded = opened.execute_script("return performance.getEntriesByType('resource').map((one) => one.name)")
    assert [name for name in loaded if not name.startswith("data:")] == []
    assert opened.title == "demo: interrupted"
    assert opened.find_element(By.ID, "shown").text == f"{len(STATES)} of {len(STATES)} trials"
    broken = "return [...document.images].filter((one) => !one.complete || one.naturalWidth === 0).length"
    assert opened.execute_script(broken) == 0


def test_a_click_sorts_numbers_as_numbers_and_what_is_empty_last(opened: Browser) -> None:
    for name in ("learning_rate", "batch_size", "val_qwk", "minutes"):
        for down in (True, False):
            head(opened, name).click()
            texts = column(opened, name)
            values = [float(text) for text in texts if text]
            assert values == sorted(values, reverse=down), name
            assert texts[len(values) :] == [""] * (len(texts) - len(values))
            said = opened.find_elements(By.CSS_SELECTOR, "#trial-table th[aria-sort]")
            assert [(one.get_attribute("data-name"), one.get_attribute("aria-sort")) for one in said] == [
                (name, "descending" if down else "ascending")
            ]
    head(opened, "trial_id").click()
    assert column(opened, "trial_id") == sorted(column(opened, "trial_id"))


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("adamw", lambda row: row["optimizer"] == "adamw"),
        ("ADAMW pruned", lambda row: row["optimizer"] == "adamw" and row["state"] == "PRUNED"),
        ("batch_size=16", lambda row: row["batch_size"] == "16"),
        ("val_qwk>0.2 val_qwk<=0.45", lambda row: row["val_qwk"] and 0.2 < float(row["val_qwk"]) <= 0.45),
        ("learning_rate<1e-3", lambda row: float(row["learning_rate"]) < 1e-3),
        ("trial=t0004", lambda row: row["trial_id"] == "t0004"),
        ("minutes>3.5", lambda row: row["minutes"] and float(row["minutes"]) > 3.5),
        ("no such trial", lambda _: False),
        ("val_qwk>", lambda _: True),
    ],
)
def test_a_filter_narrows(opened: Browser, typed: str, wanted: Any) -> None:
    names = ("trial_id", "state", "optimizer", "batch_size", "val_qwk", "learning_rate", "minutes")
    rows = [dict(zip(names, cells, strict=True)) for cells in zip(*(column(opened, n) for n in names), strict=True)]
    expected = [row["trial_id"] for row in rows if wanted(row)]
    opened.find_element(By.ID, "filter").send_keys(typed)
    assert column(opened, "trial_id") == expected
    assert opened.find_element(By.ID, "shown").text == f"{len(expected)} of {len(STATES)} trials"


def test_states_can_be_left_out(opened: Browser) -> None:
    opened.find_element(By.CSS_SELECTOR, ".by-state[value=FAIL]").click()
    opened.find_element(By.CSS_SELECTOR, ".by-state[value=PRUNED]").click()
    assert set(column(opened, "state")) == {"COMPLETE"}


def test_all_of_it_works_by_keyboard(opened: Browser) -> None:
    filter_box = opened.find_element(By.ID, "filter")
    filter_box.send_keys("optimizer=adamw")
    for _ in range(20):
        opened.switch_to.active_element.send_keys(Keys.TAB)
        if active(opened, "it.closest('th') && it.closest('th').dataset.name === 'val_qwk'"):
            break
    assert active(opened, "it.tagName") == "BUTTON"
    assert active(opened, "getComputedStyle(it).outlineStyle") == "solid", "the focus is seen"
    opened.switch_to.active_element.send_keys(Keys.ENTER)
    opened.switch_to.active_element.send_keys(Keys.SPACE)
    values = [float(text) for text in column(opened, "val_qwk")]
    assert values == sorted(values)
    assert len(values) > 2
    for _ in range(20):
        opened.switch_to.active_element.send_keys(Keys.TAB)
        if active(opened, "it.classList.contains('pick')"):
            break
    trial = active(opened, "it.textContent")
    opened.switch_to.active_element.send_keys(Keys.ENTER)
    assert active(opened, "it.getAttribute('aria-pressed')") == "true"
    shown = opened.execute_script("return [...document.querySelectorAll('svg .on')].map((one) => one.dataset.trial)")
    assert set(shown) == {trial}
    assert len(shown) >= 4, "in the history, the parallel coordinates, the curves and the slices"


@pytest.mark.parametrize("pixels", [380, 768, 1280])
def test_the_page_itself_never_scrolls_sideways(opened: Browser, pixels: int) -> None:
    wide(opened, pixels)
    opened.refresh()
    whole, seen, screen = opened.execute_script(
        "const all = document.documentElement; return [all.scrollWidth, all.clientWidth, window.innerWidth]"
    )
    assert screen == pixels
    assert whole == seen <= pixels  # a scroll bar, downwards, may take some of it


def test_text_in_figures_can_be_read_on_a_phone(opened: Browser) -> None:
    wide(opened, 380)
    opened.refresh()
    heights = opened.execute_script(
        "return [...document.querySelectorAll('svg text')].map((one) => one.getBoundingClientRect().height)"
    )
    assert len(heights) > 100
    assert min(heights) >= 8, "pixels"


def test_it_prints(opened: Browser, tmp_path: Path) -> None:
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert not opened.find_element(By.CSS_SELECTOR, ".controls").is_displayed()
        assert not opened.find_element(By.TAG_NAME, "nav").is_displayed()
    finally:
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert len(opened.print_page()) > 50_000, "base64 of a PDF"
