/* The report of a run. Everything that it shows comes from the script files beside it; it asks no server for anything.
   Names are only ever set as text, never as HTML. */
"use strict";

const STEPS = 1000; // thresholds are k / 1000; a candidate is a pick at k when its own step is at least k
const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const PLASMA = [[190, 60, 150], [204, 71, 120], [225, 100, 98], [242, 132, 75], [252, 166, 54], [251, 206, 37], [240, 249, 33]];
const ROW = 58; // height of a row in the list, as in report.css
const BINS = 50;
const KEPT = 60; // micrographs whose coordinates stay in memory
const CLICK_SHARE = 0.5; // a click hits a pick within this share of a diameter

const $ = (id) => document.getElementById(id);
const number = (value) => value.toLocaleString("en-US");
const text = (tag, content, className) => {
  const element = document.createElement(tag);
  element.textContent = content;
  if (className) element.className = className;
  return element;
};

/* ---------- What the script files bring ---------- */
const report = {
  facts: null, steps: [], sums: [], coordinates: new Map(), sizes: new Map(), waiting: new Map(),
  run(facts) { this.facts = facts; },
  scores(counts, letters) { // steps of all candidates, micrograph after micrograph, best first
    const value = new Uint16Array(128);
    for (let i = 0; i < 64; i++) value[DIGITS.charCodeAt(i)] = i;
    let at = 0;
    for (const count of counts) {
      const steps = new Uint16Array(count), sums = new Float64Array(count + 1);
      for (let i = 0; i < count; i++, at += 2) {
        steps[i] = value[letters.charCodeAt(at)] * 64 + value[letters.charCodeAt(at + 1)];
        sums[i + 1] = sums[i] + Math.min(steps[i] + 0.5, STEPS) / STEPS;
      }
      this.steps.push(steps);
      this.sums.push(sums);
    }
  },
  candidates(key, xy, sizes) { // sizes in Å, where particles of several sizes are picked
    this.coordinates.set(key, xy);
    if (sizes) this.sizes.set(key, sizes);
  },
};

/* ---------- Edits: kept in this browser until they are exported ---------- */
const edits = { step: 0, own: {}, excluded: {}, removed: {}, added: {} };
const history = [];
let storageKey = "";

function restore() {
  edits.step = report.facts.step;
  try {
    const saved = JSON.parse(localStorage.getItem(storageKey));
    if (!saved) return;
    if (Number.isInteger(saved.step)) edits.step = saved.step;
    const known = new Set(M.key);
    for (const part of ["own", "excluded", "removed", "added"]) {
      for (const key of Object.keys(saved[part] || {})) if (known.has(key)) edits[part][key] = saved[part][key];
    }
  } catch (error) { /* storage may be switched off: edits then last as long as the page */ }
}

function keep() {
  try { localStorage.setItem(storageKey, JSON.stringify(edits)); } catch (error) { /* as above */ }
}

function change(alter) {
  history.push(JSON.stringify(edits));
  if (history.length > 200) history.shift();
  alter();
  changed();
}

function undo() {
  if (!history.length) return;
  Object.assign(edits, JSON.parse(history.pop()));
  changed();
}

function changed() {
  keep();
  refresh();
}

/* ---------- Counting ---------- */
let M = null; // columns of the micrographs
let size = 0;
let current = -1;
let scope = "all";

const stepOf = (n) => edits.own[M.key[n]] ?? edits.step;

function above(steps, step) { // how many of these numbers, largest first, are at least `step`
  let low = 0, high = steps.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (steps[middle] >= step) low = middle + 1; else high = middle;
  }
  return low;
}

function picksOf(n) {
  if (M.failed[n] || edits.excluded[M.key[n]]) return 0;
  const step = stepOf(n), key = M.key[n];
  let picks = above(report.steps[n], step);
  for (const [, , own] of edits.removed[key] || []) picks -= own >= step;
  for (const [, , own] of edits.added[key] || []) picks += own < step;
  return picks;
}

function meritOf(n) {
  const picks = above(report.steps[n], stepOf(n));
  return picks ? report.sums[n][picks] / picks : NaN;
}

function f1Of(n) { // to expect if figures of merit are chances; edits by hand are left out
  const sums = report.sums[n], picks = above(report.steps[n], stepOf(n));
  return picks ? 2 * sums[picks] / (picks + sums[sums.length - 1]) : NaN;
}

const VERDICTS = ["picked", "empty", "excluded", "failed"];
function verdictOf(n) {
  if (M.failed[n]) return "failed";
  if (edits.excluded[M.key[n]]) return "excluded";
  return picksOf(n) ? "picked" : "empty";
}

function isEdited(n) {
  const key = M.key[n];
  return edits.own[key] !== undefined || edits.removed[key]?.length > 0 || edits.added[key]?.length > 0;
}

function tally() {
  const count = { picks: 0, picked: 0, empty: 0, excluded: 0, failed: 0 };
  for (let n = 0; n < size; n++) {
    count.picks += picksOf(n);
    count[verdictOf(n)]++;
  }
  return count;
}

/* ---------- The list: only the rows in sight exist ---------- */
let order = [], sortBy = "name", sortDown = false;

function sortList() {
  const words = $("filter").value.trim().toLowerCase();
  order = [];
  for (let n = 0; n < size; n++) if (!words || M.path[n].toLowerCase().includes(words)) order.push(n);
  const value = {
    name: null, picks: picksOf, merit: meritOf, defocus: (n) => M.defocus[n] ?? NaN, verdict: (n) => VERDICTS.indexOf(verdictOf(n)),
  }[sortBy];
  if (value) {
    const values = new Map(order.map((n) => [n, value(n)]));
    order.sort((a, b) => {
      const x = values.get(a), y = values.get(b);
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y) || a - b; // unknown ones last
      return (sortDown ? y - x : x - y) || a - b;
    });
  } else if (sortDown) order.reverse();
  $("spacer").style.height = `${order.length * ROW}px`;
  for (const button of $("sort").children) {
    const chosen = button.dataset.sort === sortBy;
    button.setAttribute("aria-pressed", chosen);
    button.textContent = button.dataset.sort[0].toUpperCase() + button.dataset.sort.slice(1) + (chosen ? (sortDown ? " ↓" : " ↑") : "");
  }
}

function drawRows() {
  const list = $("list"), first = Math.max(0, Math.floor(list.scrollTop / ROW) - 4);
  const last = Math.min(order.length, first + Math.ceil(list.clientHeight / ROW) + 8);
  const rows = $("rows");
  rows.style.transform = `translateY(${first * ROW}px)`;
  rows.replaceChildren(...order.slice(first, last).map(makeRow));
}

function makeRow(n) {
  const verdict = verdictOf(n), row = text("div", "", `row ${verdict}`);
  row.setAttribute("role", "option");
  row.setAttribute("aria-selected", n === current);
  row.id = `row-${n}`;
  row.dataset.index = n;
  row.title = M.failed[n] || M.path[n];
  if (M.picture[n]) {
    const image = document.createElement("img");
    image.alt = "";
    image.src = pictureOf(n, "small");
    row.append(image);
  } else row.append(text("span", "", "blank"));
  const what = text("span", "", "what"), merit = meritOf(n);
  const details = [];
  if (verdict === "failed") details.push(M.failed[n]);
  if (merit === merit) details.push(`merit ${merit.toFixed(2)}`);
  if (M.defocus[n] != null) details.push(`${M.defocus[n].toFixed(2)} µm`);
  if (isEdited(n)) details.push("edited");
  what.append(text("b", M.name[n]), text("small", details.join(" · ")));
  row.append(what);
  const count = text("span", verdict === "failed" || verdict === "excluded" ? verdict : number(picksOf(n)), "count");
  if (verdict === "picked" || verdict === "empty") count.append(text("small", verdict === "empty" ? "empty" : "picks"));
  row.append(count);
  return row;
}

function showInList(n) {
  const at = order.indexOf(n), list = $("list");
  if (at < 0) return;
  if (at * ROW < list.scrollTop) list.scrollTop = at * ROW;
  else if ((at + 1) * ROW > list.scrollTop + list.clientHeight) list.scrollTop = (at + 1) * ROW - list.clientHeight;
}

/* ---------- The viewer ---------- */
let viewer = null, denoised = false, circles = true, faint = false, editing = false, hovered = null;

const pictureOf = (n, kind) => `pictures/${M.key[n]}${kind ? `-${kind}` : ""}.jpg`;

function makeViewer() {
  viewer = OpenSeadragon({
    element: $("viewer"), drawer: "canvas", showNavigationControl: false, crossOriginPolicy: false, animationTime: 0.4,
    gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true }, gestureSettingsTouch: { clickToZoom: false, dblClickToZoom: true },
    minZoomImageRatio: 0.6, maxZoomPixelRatio: 8, visibilityRatio: 0.4, preserveImageSizeOnResize: false,
  });
  viewer.addHandler("update-viewport", drawCircles);
  viewer.addHandler("resize", () => requestAnimationFrame(drawCircles));
  viewer.addHandler("canvas-key", (event) => { event.preventDefaultAction = true; });
  viewer.addHandler("canvas-click", (event) => {
    if (editing && event.quick) toggleAt(micrographXY(event.position));
  });
  viewer.addHandler("canvas-double-click", (event) => { if (editing) event.preventDefaultAction = true; });
  new OpenSeadragon.MouseTracker({ element: $("stage"), moveHandler: (event) => hover(event.position), leaveHandler: () => hover(null) });
}

function blank(n) {
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${M.nx[n]}" height="${M.ny[n]}"><rect width="100%" height="100%" fill="#39424c"/></svg>`;
  return `data:image/svg+xml,${encodeURIComponent(svg)}`;
}

const served = location.protocol !== "file:"; // `cryoemmae view` draws missing pictures when they are asked for

function select(n, follow = true) {
  if (n < 0 || n >= size) return;
  current = n;
  hovered = null;
  viewer.world.removeAll();
  const wanted = n;
  say(M.failed[n] ? `Not picked: ${M.failed[n]}` : "");
  if (M.failed[n]) { /* there may be no image at all */ }
  else if (M.picture[n] || served) addPicture(n, "", () => wanted === current && addBlank(n));
  else addBlank(n);
  if (denoised) showDenoised();
  loadCandidates(n);
  if (follow) showInList(n);
  refresh();
}

function addPicture(n, kind, failed) {
  viewer.addTiledImage({
    tileSource: { type: "image", url: pictureOf(n, kind), crossOriginPolicy: false, ajaxWithCredentials: false },
    width: 1, success: () => { if (n === current && !kind) viewer.viewport.goHome(true); applyDenoised(); }, error: failed,
  });
}

function addBlank(n) {
  viewer.addTiledImage({ tileSource: { type: "image", url: blank(n) }, width: 1, success: () => viewer.viewport.goHome(true) });
  say(`No picture of this micrograph; to draw all: cryoemmae report ${report.facts.shellFolder} --pictures all`);
}

function showDenoised() {
  const n = current;
  if (!M.picture[n] && !served) return;
  if (viewer.world.getItemCount() < 2) addPicture(n, "denoised", () => say("The denoised picture is missing."));
  applyDenoised();
}

function applyDenoised() {
  for (let i = 0; i < viewer.world.getItemCount(); i++) {
    const item = viewer.world.getItemAt(i);
    if (String(item.source.url).endsWith("-denoised.jpg")) item.setOpacity(denoised ? 1 : 0);
  }
}

function say(message) {
  $("message").textContent = message;
  $("message").hidden = !message;
}

function loadCandidates(n) {
  const key = M.key[n];
  if (M.failed[n] || report.coordinates.has(key)) return;
  const element = document.createElement("script");
  element.src = `micrographs/${key}.js`;
  element.onload = () => {
    element.remove();
    if (report.coordinates.size > KEPT) report.coordinates.delete(report.coordinates.keys().next().value);
    refresh();
  };
  element.onerror = () => {
    element.remove();
    if (n === current) say(`The coordinates of this micrograph are missing; make the report again: cryoemmae report ${report.facts.shellFolder}`);
  };
  document.head.append(element);
}

function transform() { // from pixels of the micrograph to pixels of the overlay, for the micrograph in sight
  const item = viewer.world.getItemAt(0);
  if (!item) return null;
  const box = item.getBounds(true), from = viewer.viewport.pixelFromPoint(box.getTopLeft(), true), to = viewer.viewport.pixelFromPoint(box.getBottomRight(), true);
  return { x: from.x, y: from.y, sx: (to.x - from.x) / M.nx[current], sy: (to.y - from.y) / M.ny[current] };
}

function micrographXY(position) {
  const t = transform();
  return t && [(position.x - t.x) / t.sx - 0.5, (position.y - t.y) / t.sy - 0.5];
}

function colour(step, least) {
  const place = Math.min(1, Math.max(0, (step - least) / Math.max(1, STEPS - least))) * (PLASMA.length - 1);
  const at = Math.min(PLASMA.length - 2, Math.floor(place)), share = place - at;
  return `rgb(${PLASMA[at].map((value, i) => Math.round(value + share * (PLASMA[at + 1][i] - value))).join()})`;
}

const same = (entry, x, y) => entry[0] === x && entry[1] === y;

function drawn(n) { // what is to be drawn of a micrograph: [x, y, step, kind, diameter in Å]
  const key = M.key[n], xy = report.coordinates.get(key) || [], steps = report.steps[n], step = stepOf(n);
  const removed = edits.removed[key] || [], added = edits.added[key] || [], sizes = report.sizes.get(key) || [], found = [];
  for (let i = 0; i < xy.length / 2; i++) {
    const x = xy[2 * i], y = xy[2 * i + 1];
    const kind = removed.some((e) => same(e, x, y)) ? "removed" : steps[i] >= step ? "pick" : added.some((e) => same(e, x, y)) ? "added" : "below";
    found.push([x, y, steps[i], kind, sizes[i] || report.facts.diameter_A]);
  }
  for (const [x, y, own] of added) if (own < 0) found.push([x, y, own, "added", report.facts.diameter_A]);
  return found;
}

function drawCircles() {
  const canvas = $("overlay"), ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  const t = current >= 0 && transform();
  if (!t || (!circles && !editing) || M.failed[current]) return;
  const step = stepOf(current), radiusOf = (size) => Math.max(1.5, size / M.pixel[current] / 2 * t.sx);
  const dim = Boolean(edits.excluded[M.key[current]]);
  for (const [x, y, own, kind, size] of drawn(current)) {
    const radius = radiusOf(size);
    const px = t.x + (x + 0.5) * t.sx, py = t.y + (y + 0.5) * t.sy;
    if (kind === "below" && !faint || px < -radius || py < -radius || px > width + radius || py > height + radius) continue;
    if (kind === "removed" && !editing) continue;
    context.globalAlpha = dim ? 0.3 : 1;
    context.lineWidth = kind === "below" ? 1 : 1.8;
    context.setLineDash(kind === "below" ? [3, 4] : []);
    context.strokeStyle = kind === "pick" ? colour(own, step) : kind === "added" ? "#4fe3d4" : kind === "removed" ? "#ff7b66" : "#cfd8e0";
    context.beginPath();
    if (kind === "removed") {
      const arm = radius * 0.45;
      context.moveTo(px - arm, py - arm); context.lineTo(px + arm, py + arm);
      context.moveTo(px + arm, py - arm); context.lineTo(px - arm, py + arm);
    } else context.arc(px, py, radius, 0, 2 * Math.PI);
    context.stroke();
  }
  context.setLineDash([]);
  context.globalAlpha = 1;
  if (hovered) {
    context.lineWidth = 2.5;
    context.strokeStyle = "#ffffff";
    context.beginPath();
    context.arc(t.x + (hovered[0] + 0.5) * t.sx, t.y + (hovered[1] + 0.5) * t.sy, radiusOf(hovered[4] || report.facts.diameter_A) + 2, 0, 2 * Math.PI);
    context.stroke();
  }
}

function nearest(xy, kinds) {
  let best = null, reach = CLICK_SHARE * report.facts.diameter_A / M.pixel[current];
  for (const candidate of drawn(current)) {
    const distance = Math.hypot(candidate[0] - xy[0], candidate[1] - xy[1]);
    if (kinds.includes(candidate[3]) && distance < reach) [best, reach] = [candidate, distance];
  }
  return best;
}

function hover(position) {
  const xy = position && current >= 0 && !M.failed[current] && micrographXY(position);
  const kinds = ["pick", "added", ...(faint || editing ? ["below"] : []), ...(editing ? ["removed"] : [])];
  hovered = xy ? nearest(xy, kinds) : null;
  const merit = hovered && (hovered[2] < 0 ? "added by hand" : `figure of merit ${(hovered[2] / STEPS).toFixed(3)}${hovered[3] === "pick" ? "" : `, ${hovered[3]}`}`);
  $("hint").textContent = merit || (editing ? "Click a pick to remove it, click elsewhere to add one" : "");
  drawCircles();
}

function toggleAt(xy) {
  if (!xy || M.failed[current]) return;
  const key = M.key[current], hit = nearest(xy, ["pick", "added", "removed"]) || nearest(xy, ["below"]);
  change(() => {
    const without = (part, x, y) => {
      edits[part][key] = (edits[part][key] || []).filter((entry) => !same(entry, x, y));
      if (!edits[part][key].length) delete edits[part][key];
    };
    if (!hit) {
      const [x, y] = xy.map((value) => Math.round(value * 1000) / 1000);
      if (x < 0 || y < 0 || x > M.nx[current] - 1 || y > M.ny[current] - 1) return;
      (edits.added[key] ||= []).push([x, y, -1]);
    } else if (hit[3] === "pick") (edits.removed[key] ||= []).push(hit.slice(0, 3));
    else if (hit[3] === "below") (edits.added[key] ||= []).push(hit.slice(0, 3));
    else without(hit[3], hit[0], hit[1]);
  });
}

/* ---------- Threshold and histogram ---------- */
function setStep(step) {
  step = Math.min(STEPS, Math.max(0, Math.round(step)));
  if (!Number.isFinite(step)) return;
  if (scope === "one" && current >= 0) edits.own[M.key[current]] = step;
  else edits.step = step;
}

const shownStep = () => (scope === "one" && current >= 0 ? stepOf(current) : edits.step);

let histogramOf = null;
function drawHistogram() {
  const svg = $("histogram"), step = shownStep(), which = scope === "one" ? current : "all";
  if (histogramOf?.which !== which) {
    const bins = new Float64Array(BINS);
    const lists = which === "all" ? report.steps : [report.steps[current] || []];
    for (const steps of lists) for (const own of steps) bins[Math.min(BINS - 1, Math.floor(own * BINS / STEPS))]++;
    histogramOf = { which, bins };
    svg.replaceChildren();
    const top = Math.max(1, ...bins);
    bins.forEach((count, i) => {
      const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect"), height = count ? Math.max(1, 88 * Math.sqrt(count / top)) : 0;
      for (const [name, value] of Object.entries({ x: i * 6 + 0.5, width: 5, y: 90 - height, height })) bar.setAttribute(name, value);
      const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
      title.textContent = `${(i / BINS).toFixed(2)} to ${((i + 1) / BINS).toFixed(2)}: ${number(count)} candidates`;
      bar.append(title);
      svg.append(bar);
    });
    svg.append(document.createElementNS("http://www.w3.org/2000/svg", "line"));
  }
  histogramOf.bins.forEach((count, i) => {
    const middle = (i + 0.5) * STEPS / BINS;
    svg.children[i].setAttribute("fill", middle >= step ? colour(middle, step) : "#aab4be");
  });
  const line = svg.lastElementChild;
  for (const [name, value] of Object.entries({ x1: 300 * step / STEPS, x2: 300 * step / STEPS, y1: 0, y2: 90 })) line.setAttribute(name, value);
}

/* ---------- All of it, anew ---------- */
let planned = false;
function refresh() {
  if (planned) return;
  planned = true;
  requestAnimationFrame(() => { planned = false; draw(); });
}

function draw() {
  const count = tally(), done = count.picked + count.empty, parts = [];
  const totals = $("totals");
  totals.replaceChildren(text("b", number(count.picks)), ` picks in ${number(size)} micrographs`);
  for (const verdict of ["empty", "excluded", "failed"]) if (count[verdict]) parts.push(`${number(count[verdict])} ${verdict}`);
  if (parts.length) totals.append(` · ${parts.join(" · ")}`);
  totals.dataset.picks = count.picks;
  sortList();
  drawRows();
  drawHistogram();
  const step = shownStep();
  $("slider").value = step;
  if (document.activeElement !== $("threshold")) $("threshold").value = (step / STEPS).toFixed(3);
  $("legend").firstElementChild.textContent = (current >= 0 ? stepOf(current) / STEPS : step / STEPS).toFixed(2);
  const counts = $("counts");
  if (scope === "one" && current >= 0) counts.replaceChildren(text("b", number(picksOf(current))), ` of ${number(report.steps[current].length)} candidates in this micrograph`);
  else counts.replaceChildren(text("b", number(count.picks)), ` picks, ${done ? (count.picks / done).toFixed(1) : 0} per micrograph`);
  $("undo").disabled = !history.length;
  $("reset").disabled = scope === "one" ? current < 0 || edits.own[M.key[current]] === undefined : edits.step === report.facts.step;
  for (const button of $("scope").children) button.setAttribute("aria-pressed", button.dataset.scope === scope);
  drawName();
  drawCircles();
}

function drawName() {
  const [name, details] = $("name").children;
  if (current < 0) return;
  name.textContent = M.name[current];
  name.title = M.path[current];
  const verdict = verdictOf(current), facts = [`${order.indexOf(current) + 1} of ${number(order.length)}`];
  facts.push(verdict === "picked" ? `${number(picksOf(current))} picks` : verdict);
  const f1 = f1Of(current);
  if (verdict === "picked" && f1 === f1) facts.push(`F1 ≈ ${f1.toFixed(2)}`);
  if (M.defocus[current] != null) facts.push(`${M.defocus[current].toFixed(2)} µm`);
  if (edits.own[M.key[current]] !== undefined) facts.push(`own threshold ${(stepOf(current) / STEPS).toFixed(3)}`);
  details.textContent = facts.join(" · ");
  details.title = "F1: expected at this threshold, if figures of merit are chances of being a particle";
  $("exclude").setAttribute("aria-pressed", Boolean(edits.excluded[M.key[current]]));
  $("denoise").disabled = !M.picture[current] && !served;
}

/* ---------- Export ---------- */
function exported() {
  const part = (entries) => (entries || []).map(([x, y]) => [x, y]);
  const micrographs = {};
  for (let n = 0; n < size; n++) {
    const key = M.key[n];
    if (!isEdited(n) && !edits.excluded[key]) continue;
    micrographs[M.uid[n]] = {
      ...(edits.own[key] !== undefined && { threshold: edits.own[key] / STEPS }),
      excluded: Boolean(edits.excluded[key]), removed: part(edits.removed[key]), added: part(edits.added[key]),
    };
  }
  return { format: 1, fingerprint: report.facts.fingerprint, threshold: edits.step / STEPS, micrographs };
}

function exportEdits() {
  const name = "edits.json", link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(exported(), null, 1) + "\n"], { type: "application/json" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  $("apply-command").textContent = `cryoemmae apply ${report.facts.shellFolder} ${name}`;
  $("exported").showModal();
}

function copy(content, button) {
  const done = () => { button.textContent = "Copied"; };
  const byHand = () => {
    const area = document.createElement("textarea");
    area.value = content;
    button.parentElement.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    done();
  };
  if (navigator.clipboard) navigator.clipboard.writeText(content).then(done, byHand); else byHand();
}

/* ---------- Beginning ---------- */
function fillFacts() {
  const facts = report.facts;
  document.title = `${facts.title}: picks`;
  $("title").textContent = facts.title;
  $("title").title = facts.folder;
  $("warnings").replaceChildren(...facts.warnings.map((warning) => text("p", warning)));
  $("warnings").hidden = !facts.warnings.length;
  for (const id of ["settings", "provenance"]) $(id).replaceChildren(...facts[id].flatMap(([label, value]) => [text("dt", label), text("dd", value)]));
  $("citation").textContent = facts.citation;
  const particle = $("particle"), diameter = text("dd", `${facts.diameters || facts.diameter_A.toPrecision(4) / 1} Å`);
  diameter.append(text("small", facts.diameterFrom));
  particle.append(text("dt", "Diameter"), diameter);
  if (facts.box) {
    const box = text("dd", `${facts.box.px} px = ${facts.box.A} Å`);
    box.append(text("small", facts.box.why));
    particle.append(text("dt", "Box to extract"), box);
  }
  $("averages").hidden = !facts.averages.length;
  $("strip").replaceChildren(...facts.averages.map((caption, i) => {
    const figure = document.createElement("figure"), image = document.createElement("img");
    image.src = `averages/${i + 1}.jpg`;
    image.alt = `Class average ${i + 1}`;
    figure.append(image, text("figcaption", caption));
    return figure;
  }));
}

function toggle(id) {
  const pressed = $(id).getAttribute("aria-pressed") !== "true";
  $(id).setAttribute("aria-pressed", pressed);
  return pressed;
}

function beside(by) {
  const at = order.indexOf(current) + by;
  if (at >= 0 && at < order.length) select(order[at]);
}

const ACTIONS = {
  previous: () => beside(-1), next: () => beside(1), undo,
  denoise: () => { denoised = toggle("denoise"); if (denoised) showDenoised(); else applyDenoised(); },
  circles: () => { circles = toggle("circles"); drawCircles(); },
  faint: () => { faint = toggle("faint"); drawCircles(); },
  edit: () => { editing = toggle("edit"); $("stage").classList.toggle("editing", editing); hover(null); },
  exclude: () => current >= 0 && !M.failed[current] && change(() => {
    const key = M.key[current];
    if (edits.excluded[key]) delete edits.excluded[key]; else edits.excluded[key] = true;
  }),
  export: exportEdits,
  about: () => $("run").showModal(),
  reset: () => change(() => { if (scope === "one") delete edits.own[M.key[current]]; else edits.step = report.facts.step; }),
  "copy-text": () => copy(report.facts.citation, $("copy-text")),
  "copy-bibtex": () => copy(report.facts.bibtex, $("copy-bibtex")),
  "copy-command": () => copy($("apply-command").textContent, $("copy-command")),
};
const KEYS = { ArrowLeft: "previous", ArrowUp: "previous", k: "previous", ArrowRight: "next", ArrowDown: "next", j: "next", d: "denoise", c: "circles", b: "faint", e: "edit", x: "exclude", i: "about" };

function listen() {
  for (const [id, action] of Object.entries(ACTIONS)) $(id).addEventListener("click", action);
  for (const button of $("sort").children) button.addEventListener("click", () => {
    sortDown = sortBy === button.dataset.sort ? !sortDown : button.dataset.sort !== "name";
    sortBy = button.dataset.sort;
    sortList();
    $("list").scrollTop = 0;
    drawRows();
    drawName();
  });
  for (const button of $("scope").children) button.addEventListener("click", () => { scope = button.dataset.scope; refresh(); });
  $("list").addEventListener("scroll", drawRows, { passive: true });
  $("list").addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (row) select(Number(row.dataset.index), false);
  });
  $("filter").addEventListener("input", () => { $("list").scrollTop = 0; refresh(); });
  let before = null; // one slide of the threshold is one edit to undo
  $("slider").addEventListener("pointerdown", () => { before = JSON.stringify(edits); });
  $("slider").addEventListener("input", () => { before ??= JSON.stringify(edits); setStep(Number($("slider").value)); refresh(); });
  $("slider").addEventListener("change", () => { if (before) history.push(before); before = null; changed(); });
  $("threshold").addEventListener("change", () => change(() => setStep(Number($("threshold").value) * STEPS)));
  new ResizeObserver(() => { drawRows(); drawCircles(); }).observe($("list"));
  document.addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]") || event.altKey || event.metaKey) return;
    if (event.ctrlKey) { if (event.key === "z") { event.preventDefault(); undo(); } return; }
    if (event.target.matches("input") || !KEYS[event.key]) return;
    event.preventDefault();
    ACTIONS[KEYS[event.key]]();
  });
}

function start() {
  if (!report.facts || report.steps.length !== report.facts.micrographs.key.length) {
    document.body.prepend(text("p", "The data of this report are missing or belong to another one. Make it again: cryoemmae report FOLDER", "broken"));
    return;
  }
  M = report.facts.micrographs;
  size = M.key.length;
  storageKey = `cryoemmae-report-${report.facts.id}`;
  restore();
  fillFacts();
  makeViewer();
  listen();
  sortList();
  const first = order.find((n) => M.picture[n] && picksOf(n)) ?? order.find((n) => !M.failed[n]) ?? order[0];
  if (first !== undefined) select(first);
  else refresh();
  document.body.dataset.ready = "true";
}
document.addEventListener("DOMContentLoaded", start);
