"""How long a page of ``latens report`` takes to open in Chromium without a window.

    python benchmarks/page.py report.html [--rounds 5]

A browser is started once, which does not count. Each time a new tab opens the page: until all figures are drawn, and
until the viewer shows its first pictures. What the page says on its console, and what it would load from elsewhere, is
printed.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path
from statistics import median

from playwright.sync_api import sync_playwright


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    address = args.page.resolve().as_uri()
    said: list[str] = []
    drawn, shown = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("google-chrome"), args=["--no-sandbox"]
        )
        browser.new_page().goto("about:blank")
        for _ in range(args.rounds):
            tab = browser.new_page(viewport={"width": 1200, "height": 900})
            tab.on("console", lambda message: said.append(message.text))
            tab.on("pageerror", lambda error: said.append(str(error)))
            tab.on("request", lambda r: None if r.url.startswith(("data:", address)) else said.append(r.url))
            start = time.perf_counter()
            tab.goto(address, wait_until="commit")
            tab.wait_for_selector("html[data-ready=yes]", state="attached")
            drawn.append(time.perf_counter() - start)
            tab.wait_for_selector("#stage[data-ready=yes]", state="attached")
            shown.append(time.perf_counter() - start)
            tab.close()
        version = browser.version
        browser.close()
    print(f"{args.page.name}: {args.page.stat().st_size / 1e6:.2f} MB, Chromium {version}")
    for what, times in (("figures drawn", drawn), ("pictures shown", shown)):
        print(f"{what:<15} median {median(times):.2f} s, {min(times):.2f} to {max(times):.2f} s")
    print("console and requests:", said or "nothing")


if __name__ == "__main__":
    main()
