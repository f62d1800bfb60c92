/** Draws predictions: the chosen window's label and bars, and the timeline of all windows. */

import { MAX_MISSING } from "./window.js";

const N_BARS = 5;
const SVG = "http://www.w3.org/2000/svg";
const NOT_CLASSIFIED = "not classified";
const UNKNOWN = "unknown";

/** Minutes and seconds since the stream's start. */
function clock(seconds) {
  return `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;
}

const percent = (share) =>
  share > 0 && share < 0.005 ? "< 1 %" : `${(100 * share).toFixed(0)} %`;

/** What is said of a window: a label, or that there is none. */
function said({ valid, unknown, scores }) {
  if (!valid) return NOT_CLASSIFIED;
  return unknown ? UNKNOWN : scores[0].label;
}

/**
 * The result part of the page. It follows the newest window until the user chooses an older one,
 * on the timeline or with the slider.
 */
export class View {
  /** Labels, in the order of their lanes. */
  order = [];
  #predictions = [];
  #first = 0; // index of the leftmost window on the timeline
  #chosen = null; // null follows the newest
  #due = false;
  #longest = Infinity;

  constructor(document) {
    for (const id of ["empty", "result", "moment", "label", "bars", "detail", "lanes", "axis"]) {
      this[id] = document.getElementById(id);
    }
    this.slider = document.getElementById("slider");
    this.slider.addEventListener("input", () => this.#choose(this.slider.valueAsNumber));
    const drag = (event) => {
      const track = this.lanes.querySelector("svg")?.getBoundingClientRect();
      if (!track || !(event.buttons & 1)) return;
      const share = (event.clientX - track.left) / track.width;
      const shown = this.#predictions.length - this.#first;
      this.#choose(this.#first + Math.min(Math.max(Math.floor(share * shown), 0), shown - 1));
    };
    this.lanes.addEventListener("pointerdown", drag);
    this.lanes.addEventListener("pointermove", drag);
  }

  /** Show another list of predictions; it may grow. The timeline shows the last `longest`. */
  open(predictions, longest = Infinity) {
    this.#predictions = predictions;
    this.#longest = longest;
    this.#chosen = null;
    this.redraw();
  }

  /** Draw before the next frame, once, however often it is asked for. */
  redraw() {
    if (this.#due) return;
    this.#due = true;
    setTimeout(() => {
      this.#due = false;
      this.#draw();
    }, 30); // not requestAnimationFrame, which stands still in a hidden page
  }

  #choose(index) {
    this.#chosen = index >= this.#predictions.length - 1 ? null : index;
    this.redraw();
  }

  #draw() {
    const n = this.#predictions.length;
    const appears = this.result.hidden && n > 0;
    this.result.hidden = n === 0;
    this.empty.hidden = n > 0;
    if (!n) return;
    // On a phone the result stands below the fold.
    if (appears && this.result.getBoundingClientRect().top > innerHeight / 2) {
      this.result.scrollIntoView();
    }
    this.#first = Math.max(0, n - this.#longest);
    const index = Math.max(this.#chosen ?? n - 1, this.#first);
    this.#drawWindow(this.#predictions[index]);
    this.#drawLanes(index);
    this.slider.min = this.#first;
    this.slider.max = n - 1;
    this.slider.value = index;
    const startS = this.#predictions[0].startS;
    const [from, to] = this.axis.children;
    from.textContent = clock(this.#predictions[this.#first].startS - startS);
    to.textContent = clock(this.#predictions[n - 1].endS - startS);
  }

  #drawWindow(prediction) {
    const originS = this.#predictions[0].startS;
    const { startS, endS, valid, unknown, missing, rateHz, inferenceMs, scores } = prediction;
    this.moment.textContent = `${clock(startS - originS)} to ${clock(endS - originS)}`;
    this.label.textContent = said(prediction);
    this.label.classList.toggle("none", !valid || unknown);
    this.bars.replaceChildren(...scores.slice(0, N_BARS).map(bar));
    const measured = `${rateHz.toFixed(1)} Hz, ${percent(missing)} missing`;
    const fit = unknown
      ? `none of the labels fits (presence ${prediction.presence.toFixed(2)}), `
      : "";
    this.detail.textContent = valid
      ? `${fit}${measured}, encoder ${inferenceMs.toFixed(1)} ms`
      : `${percent(missing)} of the window is missing (limit ${percent(MAX_MISSING)})`;
  }

  /** One lane for every label that was the best of some window, as high as its probability. */
  #drawLanes(index) {
    const shown = this.#predictions.slice(this.#first);
    const lanes = new Map();
    shown.forEach((prediction, i) => {
      const name = said(prediction);
      const labelled = prediction.valid && !prediction.unknown;
      const height = labelled ? prediction.scores[0].probability : 1;
      lanes.set(name, `${lanes.get(name) ?? ""}M${i} 1v${-height.toFixed(3)}h1V1z`);
    });
    const none = [UNKNOWN, NOT_CLASSIFIED];
    const sorted = [...this.order, ...none].filter((name) => lanes.has(name));
    const chosen = said(this.#predictions[index]);
    this.lanes.replaceChildren(
      ...sorted.map((name) => {
        const row = element("div", "lane", element("span", "", name));
        row.classList.toggle("chosen", name === chosen);
        row.classList.toggle("missing", none.includes(name));
        row.firstChild.title = name;
        const svg = svgElement("svg", {
          viewBox: `0 0 ${shown.length} 1`,
          preserveAspectRatio: "none",
          "aria-hidden": "true",
        });
        svg.append(svgElement("path", { d: lanes.get(name) }));
        // At least 3 px wide, however many windows there are.
        const width = Math.max(1, (3 * shown.length) / Math.max(this.lanes.clientWidth, 1));
        const x = index - this.#first;
        svg.append(svgElement("rect", { class: "cursor", x, y: 0, width, height: 1 }));
        row.append(svg);
        return row;
      }),
    );
  }
}

function bar({ label, similarity, probability }) {
  const number = element("span", "number", percent(probability));
  number.title = `similarity ${similarity.toFixed(2)}`;
  const track = element("div", "track", element("div", "fill"));
  track.firstChild.style.width = `${100 * probability}%`;
  return element("li", "", element("span", "", label), number, track);
}

function element(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

function svgElement(tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}
