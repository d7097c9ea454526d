// Reads curves off under the pointer. All values come from the lines as they are drawn.
for (const plot of document.querySelectorAll(".plot")) {
  const range = (name) => plot.dataset[name].split(" ").map(Number);
  const [x0, x1] = range("x"), [y0, y1] = range("y"), log = plot.dataset.log === "true";
  const [, , width, height] = plot.querySelector("svg").getAttribute("viewBox").split(" ").map(Number);
  const value = (y) => {
    const share = 1 - y / height;
    return log ? y0 * (y1 / y0) ** share : y0 + share * (y1 - y0);
  };
  const lines = [...plot.querySelectorAll("polyline.smooth")].map((line) => ({
    name: line.dataset.name,
    points: line.getAttribute("points").split(" ").map((point) => point.split(",").map(Number)),
  }));
  const shown = document.createElement("output");
  const rule = document.createElement("div");
  shown.className = "readout";
  rule.className = "rule";
  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    const nearest = (points) => points.reduce((a, b) =>
      Math.abs(a[0] - share * width) <= Math.abs(b[0] - share * width) ? a : b);
    const texts = lines.map(({ name, points }) => `${name} ${Number(value(nearest(points)[1]).toPrecision(4))}`);
    shown.textContent = `step ${Math.round(x0 + share * (x1 - x0))}: ${texts.join(", ")}`;
    rule.style.left = `${100 * share}%`;
    plot.append(rule, shown);
  });
  plot.addEventListener("pointerleave", () => { rule.remove(); shown.remove(); });
}
