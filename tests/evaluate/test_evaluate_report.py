"""The page, as a browser shows it: the numbers are those of the results, and nothing in names is ever run."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import tiny
from latens.errors import OutputError, ResultsError
from latens.evaluate import Results, bench
from latens.evaluate.bench import Plan, file_name
from latens.evaluate.report import report

EVIL = '</script><img src=x onerror="document.title=1">&<b>'


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results file with coded files of two images, one of which has a name of markup."""
    place = tmp_path_factory.mktemp("report")
    folder = place / "photos"
    folder.mkdir()
    Image.fromarray(tiny.picture(170, 240)).save(folder / "-<b>&.png")
    Image.fromarray(tiny.picture(200, 180, seed=1)).save(folder / "plain.png")
    settings = {"jpeg": (10.0, 30.0, 60.0, 90.0), "webp": (5.0, 30.0, 60.0, 90.0)}
    wanted = Plan(
        folder,
        ("jpeg", "webp", EVIL),
        settings,
        {},
        ("psnr_rgb", "ms_ssim", "ssimulacra2"),
        match=(1.0,),
        repeats=1,
    )
    bench(wanted, place / "r.json")
    return place / "r.json"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    sync = pytest.importorskip("playwright.sync_api").sync_playwright
    path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync() as playwright:
        try:
            opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except Exception as error:
            pytest.skip(f"no browser: {str(error).splitlines()[0]}")
        yield opened
        opened.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a page that must not complain about anything."""
    complaints: list[str] = []
    pages: list[Any] = []

    def show(path: Path, **options: Any) -> Any:
        page = browser.new_page(**options)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request", lambda r: None if r.url.startswith(("file:", "data:")) else complaints.append(r.url)
        )
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready=yes]")
        pages.append(page)
        return page

    yield show
    for page in pages:
        page.close()
    assert complaints == []


def number(text: str) -> float:
    return float(text.replace("\u2212", "-").replace("\u202f", "").split()[0])


def test_shown_numbers_are_those_of_the_results(
    measured: Path, tmp_path: Path, opened: Callable[..., Any]
) -> None:
    out = tmp_path / "report.html"
    made = report([measured], out)
    results = Results.load(measured)
    page = opened(out)
    rows = {row.get_attribute("data-codec"): row for row in page.query_selector_all("#bd-table tbody tr")}
    assert set(rows) == {"jpeg", "webp"}
    shown = number(rows["webp"].query_selector("td:nth-child(2)").inner_text())
    assert shown == pytest.approx(made["bd"]["ssimulacra2"]["jpeg"]["webp"]["bd_rate"], abs=0.051)
    # Another metric, another anchor.
    before = page.inner_html("#rd")
    page.select_option("#metric", "ms_ssim")
    assert page.inner_html("#rd") != before
    page.select_option("#anchor", "webp")
    row = page.query_selector('#bd-table tr[data-codec="jpeg"] td:nth-child(2)')
    assert number(row.inner_text()) == pytest.approx(
        made["bd"]["ms_ssim"]["webp"]["jpeg"]["bd_rate"], abs=0.051
    )
    # Linear and logarithmic axis, curves that are hidden.
    before = page.inner_html("#rd")
    page.check("#scale input[value=linear]", force=True)
    assert page.inner_html("#rd") != before
    assert page.locator("#rd path.curve").count() == 2
    page.click("#legend button >> nth=0")
    assert page.locator("#rd path.curve").count() == 1
    # Every figure of an image.
    points = [p for p in results.points if p["image"] == "-<b>&.png"]
    page.select_option("#t-image", label="-<b>&.png")
    sizes = [
        int(cell.get_attribute("data-bytes")) for cell in page.query_selector_all("#points td[data-bytes]")
    ]
    assert sorted(sizes) == sorted(p["bytes"] for p in points)
    first = [number(page.inner_text(f"#points tbody tr:first-child td:nth-child({i})")) for i in (3, 4, 5)]
    least = min(points, key=lambda p: p["bpp"])
    assert first == pytest.approx([least["bytes"], least["bpp"], least["ssimulacra2"]], abs=0.0051)


def test_the_viewer_compares(measured: Path, tmp_path: Path, opened: Callable[..., Any]) -> None:
    out = tmp_path / "report.html"
    report([measured], out)
    page = opened(out)
    page.wait_for_selector("#stage[data-ready=yes]")
    results = Results.load(measured)
    matched = {p["codec"]: p for p in results.points if p.get("matched") and p["image"] == "-<b>&.png"}
    assert page.input_value("#v-left") == "jpeg"
    assert number(page.inner_text("#v-left-info b")) == matched["jpeg"]["bytes"]
    assert page.input_value("#v-right") == "webp"
    assert number(page.inner_text("#v-right-info b")) == matched["webp"]["bytes"]
    divider = page.locator("#divider")
    divider.scroll_into_view_if_needed()
    box = divider.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 - 200, box["y"] + 40, steps=4)
    page.mouse.up()
    width = page.locator("#stage").bounding_box()["width"]
    now = int(divider.get_attribute("aria-valuenow"))
    assert now == pytest.approx(50 - 100 * 200 / width, abs=1.5)
    page.keyboard.press("ArrowRight")
    assert int(divider.get_attribute("aria-valuenow")) == now + 2
    # Both sides are drawn, and zoom and difference change both of them.
    read = "() => document.getElementById('canvas').toDataURL()"
    pictures = {page.evaluate(read)}
    for key in ("+", "d", "]", "n"):
        page.keyboard.press(key)
        page.wait_for_selector("#stage[data-ready=yes]")
        pictures.add(page.evaluate(read))
    assert len(pictures) == 5
    assert page.inner_text("#v-image option:checked") == "plain.png"


def test_markup_is_shown_and_not_run(measured: Path, tmp_path: Path, opened: Callable[..., Any]) -> None:
    results = Results.load(measured)
    results.failures = [{"codec": EVIL, "image": EVIL, "setting": float(i), "reason": EVIL} for i in range(5)]
    results.unreadable = {EVIL: EVIL}
    results.codecs["jpeg"]["version"] = EVIL
    results.codecs["jpeg"]["options"] = {EVIL: EVIL}
    results.runs[0]["command"] = EVIL
    results.runs[0]["machine"]["processor"] = EVIL
    results.codecs[EVIL] = results.codecs["webp"]
    results.points += [{**p, "codec": EVIL} for p in results.points if p["codec"] == "webp"]
    path, out = tmp_path / "evil.json", tmp_path / "evil.html"
    results.save(path)
    report([path], out, title=EVIL)
    assert out.read_text().count("</script>") == 2
    page = opened(out)
    assert page.title() == "Codec comparison"
    assert page.inner_text("h1") == EVIL
    assert page.locator("img").count() == 0
    assert f"5 measurements failed:\n{EVIL}: {EVIL} ({EVIL} at " in page.inner_text("#flags")
    assert "and 2 more)" in page.inner_text("#flags"), "failures of one kind are said once"
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', out.read_text())
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy[1]


def test_a_phone_shows_it_without_scrolling_sideways(
    measured: Path, tmp_path: Path, opened: Callable[..., Any]
) -> None:
    out = tmp_path / "report.html"
    report([measured], out)
    page = opened(out, viewport={"width": 360, "height": 740}, color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 18, 22)"


def test_results_of_different_machines_are_flagged(
    measured: Path, tmp_path: Path, opened: Callable[..., Any]
) -> None:
    other = Results.load(measured)
    other.runs[0]["machine"] = {"processor": "Other", "cores": 64}
    other.codecs = {"theirs": other.codecs["webp"]}
    other.points = [{**p, "codec": "theirs"} for p in other.points if p["codec"] == "webp"]
    path, out = tmp_path / "other.json", tmp_path / "both.html"
    other.save(path)
    made = report([measured, path], out, images=measured.parent / "photos")
    assert len(made["machines"]) == 2
    page = opened(out)
    assert "different machines" in page.inner_text("#flags")
    assert "Other, 64" in page.inner_text("#flags")
    assert page.locator("#bd-table tbody tr").count() == 3


def test_the_page_stays_within_its_limit(measured: Path, tmp_path: Path) -> None:
    sizes = []
    for number_, megabytes in enumerate((0.08, 12.0)):
        out = tmp_path / f"{number_}.html"
        report([measured], out, megabytes=megabytes)
        sizes.append(out.stat().st_size)
        assert sizes[-1] < megabytes * 1e6
    assert sizes[0] < sizes[1]


def test_missing_pictures_cost_nothing_else(measured: Path, tmp_path: Path) -> None:
    results = Results.load(measured)
    place = tmp_path / "copy.files"
    name = file_name("jpeg", "plain.png", 10.0, ".jpg")
    (place / name).parent.mkdir(parents=True)
    (place / name).write_bytes(b"damaged")
    results.files = "copy.files"
    results.save(tmp_path / "copy.json")
    made = report([tmp_path / "copy.json"], tmp_path / "r.html", rates=(0.01,))
    assert any("jpeg" in note for note in made["picture_notes"])
    results.files = ""
    results.save(tmp_path / "copy.json")
    made = report([tmp_path / "copy.json"], tmp_path / "r.html", force=True)
    assert made["picture_notes"] == ["The coded files were not kept, so there are no pictures."]
    made = report([measured], tmp_path / "s.html", images=tmp_path)
    assert any("plain.png" in note for note in made["picture_notes"])


def test_pages_that_cannot_be_made_are_refused(measured: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.html").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        report([measured], tmp_path / "mine.html")
    with pytest.raises(OutputError, match="is also an input"):
        report([measured], measured, force=True)
    empty = Results()
    empty.save(tmp_path / "empty.json")
    with pytest.raises(ResultsError, match="no points"):
        report([tmp_path / "empty.json"], tmp_path / "e.html")
    assert not (tmp_path / "e.html").exists()


def test_measures_that_fall_and_those_that_are_missing(tmp_path: Path) -> None:
    """Less Butteraugli is better: a curve that needs half the bits has a BD-rate of -50 %."""
    results = Results(
        runs=[{}],
        images={"a": {"width": 10, "height": 10}},
        codecs={"one": {}, "half": {}},
        absent={"cvvdp": "Python package cvvdp is not installed"},
    )
    for codec, share in (("one", 1.0), ("half", 0.5)):
        for i in range(5):
            rate = share * 2.0**i / 8
            point = {"codec": codec, "image": "a", "setting": i, "bytes": 1, "bpp": rate, "run": 0}
            results.points.append({**point, "butteraugli": 5.0 - i, "ms_ssim": 0.9 + 0.02 * i})
    results.save(tmp_path / "r.json")
    made = report([tmp_path / "r.json"], tmp_path / "report.html")
    row = made["bd"]["butteraugli"]["one"]["half"]
    assert row["bd_rate"] == pytest.approx(-50, abs=1e-3)
    assert row["range"] == [1.0, 5.0]
    assert row["bd_quality"] == pytest.approx(-1, abs=1e-3)
    assert made["absent"] == {"cvvdp": "Python package cvvdp is not installed"}
    assert made["metrics"] == ["ms_ssim", "butteraugli", "ms_ssim_db"]
    assert not made["about"]["butteraugli"]["rising"]
