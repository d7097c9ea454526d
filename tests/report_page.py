#!/usr/bin/env python3
"""Opens a run's report.html in headless Chromium, on a desktop and on a phone, light and dark, and checks what it sees.

No error on the console, no request but for the page, every section filled, every picture decoded, no sideways scrolling,
labels apart and large enough, text that stands out from its ground, and curves that can be read off. Needs Chromium and
nothing else: python3 tests/report_page.py runs/demo/report.html --screenshots /tmp/shots
"""

import argparse
import base64
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars --remote-debugging-pipe"
).split()
VIEWS = {"desktop": (1280, 900), "phone": (390, 844)}
SECTIONS = "summary loss rate throughput memory evaluation samples attention similarity files".split()

# Runs in the page; what it returns is wrong with it.
CHECKS = """((sections, innerWidth) => {
  const wrong = [];
  const visible = (e) => e.checkVisibility() && !e.closest(".unseen") && e.getBoundingClientRect().width > 0;
  for (const id of sections) {
    const section = document.getElementById(id);
    if (!section) wrong.push(`no section ${id}`);
    else if (section.innerText.trim().length < 40) wrong.push(`section ${id} is empty`);
  }
  for (const image of document.images) {
    if (!(image.naturalWidth > 0)) wrong.push(`not decoded: ${image.alt}`);
    if (!image.alt) wrong.push("a picture without words in its place");
  }
  const width = document.documentElement.scrollWidth;
  if (width > innerWidth) {
    const wide = [...document.querySelectorAll("main *")].filter((e) => e.getBoundingClientRect().right > innerWidth + 1);
    wrong.push(`${width} pixels wide in a window of ${innerWidth}: ` + wide.slice(0, 3).map((e) => e.outerHTML.slice(0, 80)));
  }
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const colour = rgb(getComputedStyle(e).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const words = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const seen = new Set();
  while (words.nextNode()) {
    const e = words.currentNode.parentElement;
    if (!words.currentNode.data.trim() || !visible(e) || ["SCRIPT", "STYLE"].includes(e.tagName)) continue;
    const style = getComputedStyle(e), [a, b] = [light(rgb(style.color)), light(ground(e))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) seen.add(`contrast ${contrast.toFixed(1)}: ${e.outerHTML.slice(0, 90)}`);
    if (parseFloat(style.fontSize) < 12) seen.add(`tiny text: ${e.outerHTML.slice(0, 90)}`);
  }
  wrong.push(...seen);
  for (const plot of document.querySelectorAll(".plot")) {
    for (const kind of ["x", "y"]) {
      const boxes = [...plot.querySelectorAll(`span.${kind}`)].map((e) => e.getBoundingClientRect());
      const start = kind === "x" ? "left" : "top", end = kind === "x" ? "right" : "bottom";
      boxes.sort((a, b) => a[start] - b[start]);
      if (boxes.length === 0) wrong.push(`no ${kind} labels: ${plot.parentElement.innerText.slice(0, 40)}`);
      for (let i = 1; i < boxes.length; i++)
        if (boxes[i][start] < boxes[i - 1][end] + 1) wrong.push(`${kind} labels overlap: ${plot.parentElement.innerText.slice(0, 40)}`);
      if (boxes.some((box) => box.left < 0 || box.right > innerWidth)) wrong.push("a label lies outside");
    }
  }
  if (!document.querySelector(".plot polyline")) wrong.push("not one curve");
  for (const th of document.querySelectorAll("th")) if (!th.scope) wrong.push(`th without scope: ${th.innerText}`);
  const levels = [...document.querySelectorAll("h1,h2,h3,h4")].map((h) => Number(h.tagName[1]));
  if (levels[0] !== 1 || levels.some((level, i) => i > 0 && level > levels[i - 1] + 1)) wrong.push("headings skip a level");
  return wrong;
})"""


class Browser:
    """Chromium, spoken to by its DevTools protocol through two pipes."""

    def __init__(self, program, profile):
        (from_us, self.out), (self.into, to_us) = os.pipe(), os.pipe()

        def as_three_and_four():
            # Out of each other's way first.
            a, b = os.dup(from_us), os.dup(to_us)
            os.dup2(a, 3)
            os.dup2(b, 4)

        self.process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=as_three_and_four,
            pass_fds=(3, 4),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(from_us)
        os.close(to_us)
        self.rest, self.number, self.events, self.session = b"", 0, [], None
        page = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def receive(self):
        while b"\0" not in self.rest:
            chunk = os.read(self.into, 1 << 16)
            if not chunk:
                sys.exit("Chromium ended by itself")
            self.rest += chunk
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.number:
                if "error" in answer:
                    sys.exit(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def wait(self, event):
        while not any(one.get("method") == event for one in self.events):
            self.events.append(self.receive())

    def value(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            sys.exit(f"{answer['exceptionDetails']}")
        return answer["result"].get("value")

    def end(self):
        self.session = None
        self.call("Browser.close")
        self.process.wait(20)


def complaints(events, address):
    """What the console said and what was fetched."""
    for event in events:
        method, params = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            yield f"exception: {params['exceptionDetails'].get('text')}"
        elif method == "Runtime.consoleAPICalled":
            yield f"console: {params['args']}"
        elif method == "Log.entryAdded":
            yield f"log: {params['entry']['text']}"
        elif method == "Page.javascriptDialogOpening":
            yield f"a dialogue: {params['message']}"
        elif method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if url != address and not url.startswith("data:"):
                yield f"fetched {url}"


def look(browser, address, view, scheme, shots):
    """Loads the page in one view and returns what is wrong."""
    width, height = VIEWS[view]
    browser.events.clear()
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=view == "phone")
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.call("Page.navigate", url=address)
    browser.wait("Page.loadEventFired")
    wrong = browser.value(f"{CHECKS}({json.dumps(SECTIONS)}, {width})")
    if shots:
        shot = browser.call("Page.captureScreenshot", captureBeyondViewport=True)
        (shots / f"{view}-{scheme}.png").write_bytes(base64.b64decode(shot["data"]))
    browser.value("document.querySelector('.plot').scrollIntoView()")
    box = browser.value("(({left, top, width, height}) => [left + width / 2, top + height / 2])"
                        "(document.querySelector('.plot').getBoundingClientRect())")
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=box[0], y=box[1])
    shown = browser.value("document.querySelector('.readout')?.innerText") or ""
    if not re.match(r"step \d+: loss [\d.]+", shown):
        wrong.append(f"nothing is read off under the pointer: {shown!r}")
    return wrong + list(complaints(browser.events, address))


def without_script(browser, address):
    """Every section must be filled without JavaScript, too."""
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    browser.events.clear()
    browser.call("Page.navigate", url=address)
    browser.wait("Page.loadEventFired")
    tree = browser.call("DOM.getDocument", depth=0)["root"]["nodeId"]
    markup = browser.call("DOM.getOuterHTML", nodeId=tree)["outerHTML"]
    return [f"without JavaScript no {part}" for part in ("<polyline", "<h2", "class=\"legend\"") if part not in markup]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=pathlib.Path, help="a run's report.html")
    parser.add_argument("--screenshots", type=pathlib.Path, help="a folder for pictures of all views")
    args = parser.parse_args()
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        print("no Chromium here: the page was not looked at")
        return
    address = args.report.resolve().as_uri()
    if args.screenshots:
        args.screenshots.mkdir(parents=True, exist_ok=True)
    wrong = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(program, profile)
        for view in VIEWS:
            for scheme in ("light", "dark"):
                found = look(browser, address, view, scheme, args.screenshots)
                wrong += [f"{view}, {scheme}: {one}" for one in found]
        wrong += without_script(browser, address)
        browser.end()
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"{args.report}: sound in {len(VIEWS)} sizes, light and dark")


if __name__ == "__main__":
    main()
