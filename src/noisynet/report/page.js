// Bokeh draws on a canvas, which no style sheet reaches: text and lines take the page's colours here,
// at the start and whenever the reader changes between light and dark.
(function () {
  "use strict";
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  function colours() {
    const style = getComputedStyle(document.documentElement);
    const of = (name) => style.getPropertyValue(name).trim();
    return { ground: of("--ground"), text: of("--text"), dim: of("--dim"), line: of("--line") };
  }

  function paint() {
    const c = colours();
    for (const page of Bokeh.documents) {
      for (const model of page._all_models.values()) {
        const kind = model.type;
        if (kind === "Figure") {
          model.setv({
            background_fill_color: c.ground, border_fill_color: c.ground, outline_line_color: c.line,
          });
        } else if (kind === "Title") {
          model.setv({ text_color: c.text });
        } else if (kind.endsWith("Axis")) {
          model.setv({
            axis_label_text_color: c.dim, major_label_text_color: c.dim, axis_line_color: c.dim,
            major_tick_line_color: c.dim, minor_tick_line_color: null,
            axis_label_text_font_style: "normal",
          });
        } else if (kind === "Text") {
          model.setv({ text_color: c.text });
        } else if (kind === "Grid") {
          model.setv({ grid_line_color: c.line });
        } else if (kind === "Legend") {
          model.setv({
            label_text_color: c.text, background_fill_color: c.ground, border_line_color: null,
          });
        }
      }
    }
    document.documentElement.dataset.painted = dark.matches ? "dark" : "light";
  }

  function begin() {
    if (!window.Bokeh || Bokeh.documents.length === 0) {
      window.setTimeout(begin, 30);
      return;
    }
    paint();
    dark.addEventListener("change", paint);
  }

  if (document.querySelector("[data-figures]")) {
    begin();
  }
})();
