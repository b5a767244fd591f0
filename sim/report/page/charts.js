"use strict";
// What every page has: its data, its charts in the page's own colours, pictures to save, printing.
const report = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const LABELS = 240, NARROW = 500;
  const views = new Map();

  const make = (tag, text, attributes = {}) => {
    const element = document.createElement(tag);
    if (text !== undefined && text !== null) element.textContent = text;
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };

  // Charts take the page's own colours; a change between light and dark draws them again.
  const config = (width) => {
    const style = getComputedStyle(document.documentElement);
    const [text, line] = ["--text", "--line"].map((name) => style.getPropertyValue(name).trim());
    const words = { labelColor: text, titleColor: text };
    return {
      background: "transparent", font: "system-ui, sans-serif", view: { stroke: null },
      axis: { ...words, labelFlush: false, gridColor: line, domainColor: line, tickColor: line, labelFontSize: 12, titleFontSize: 12, labelLimit: 220 },
      axisQuantitative: { labelOverlap: "parity", labelSeparation: 8 },
      legend: { ...words, columns: width < NARROW ? 2 : 6, labelFontSize: 12, labelLimit: 220, orient: "bottom", symbolOpacity: 1 }, header: words, rule: { color: text },
    };
  };
  // A chart is no wider than its place: on a phone it shrinks instead of hiding its right half.
  const fitted = (spec, width) => {
    const copy = JSON.parse(JSON.stringify(spec));
    const shrink = (part) => { if (part && typeof part.width === "number") part.width = Math.min(part.width, width - 110); };
    const faceted = copy.encoding && (copy.encoding.row || copy.encoding.column); // Vega fits no facets
    if (faceted) shrink(copy);
    else if (typeof copy.width === "number" && width < copy.width + LABELS) Object.assign(copy, { width, autosize: { type: "fit-x", contains: "padding" } });
    else if (copy.concat && width < copy.concat[0].width * 2) copy.columns = 1;
    shrink(copy.spec); (copy.concat ?? []).forEach(shrink);
    return copy;
  };
  // Draws every chart; onView hears of each by its name.
  const draw = (onView = () => {}) => {
    for (const place of document.querySelectorAll("[data-spec]")) {
      const width = Math.max(320, place.clientWidth || 640);
      const spec = fitted(data.specs[place.dataset.spec], width);
      window.vegaEmbed(place, spec, { config: config(width), actions: false, renderer: "svg" }).then(({ view }) => {
        views.set(place.dataset.spec, view);
        place.querySelector("svg").setAttribute("aria-hidden", "true"); // its place says it in words
        onView(place.dataset.spec, view);
      });
    }
  };
  const save = (name, href) => {
    const link = make("a", null, { download: name });
    link.href = href;
    link.click();
  };
  for (const button of document.querySelectorAll("[data-save]"))
    button.addEventListener("click", async () =>
      save(`${button.dataset.save}.svg`, await views.get(button.dataset.save).toImageURL("svg")));
  addEventListener("beforeprint", () => { // paper opens nothing
    for (const table of document.querySelectorAll("details:has(table)")) table.open = true;
  });
  return { data, make, draw, save, onTheme: (then) => dark.addEventListener("change", then) };
})();
