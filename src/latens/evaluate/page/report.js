"use strict";
// Text reaches the page through textContent only: names and messages may hold anything.
(() => {
  const D = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";
  const facts = (metric) => D.about[metric];
  const label = (metric) => facts(metric).label + (facts(metric).rising ? "" : " (less is better)");
  const unit = (metric) => (facts(metric).unit ? " " + facts(metric).unit : "");
  const KEY = Object.fromEntries(D.keys.map((name, i) => [name, i]));

  const el = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.map((c) => (c instanceof Node ? c : String(c))));
    return node;
  };
  const svg = (tag, attributes = {}, text) => {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };
  // Long names break behind their colons, if they have to.
  const broken = (name) => name.split(/(?<=:)/).flatMap((part, i) => (i ? [el("wbr"), part] : [part]));
  const fixed = (value, digits) => (value === null || value === undefined ? "lossless" : value.toFixed(digits));
  const bytes = (n) => n.toLocaleString("en-US").replace(/,/g, "\u202f");
  const signed = (value, digits = 1) => (value > 0 ? "+" : value < 0 ? "\u2212" : "") + Math.abs(value).toFixed(digits);
  const seconds = (s) => (s >= 10 ? s.toFixed(0) + " s" : s >= 1 ? s.toFixed(1) + " s" : s >= 0.01 ? (1000 * s).toFixed(0) + " ms" : (1000 * s).toFixed(1) + " ms");
  const setting = (codec, value) => {
    const dial = (D.codecs[codec] || {}).dial || {};
    return (dial.name ? dial.name + " " : "") + +value.toFixed(3);
  };

  // ---- what is chosen
  const state = { metric: D.metrics[0], anchor: "", scale: "log", direction: "encode_s", hidden: new Set() };
  const names = () => Object.keys(D.curves[state.metric] || {});
  const everyName = [...new Set(Object.values(D.curves).flatMap((curves) => Object.keys(curves)))];
  const measured = Object.keys(D.codecs);
  const order = [...measured, ...everyName.filter((name) => !measured.includes(name))];
  const colour = (name) => `var(--s${order.indexOf(name) % 10})`;
  // With many published curves only the measured ones are shown at first.
  if (order.length > 14) order.filter((name) => !measured.includes(name)).forEach((name) => state.hidden.add(name));

  // ---- charts
  const ticks = (low, high, log, room) => {
    if (log) {
      let found = [];
      for (const steps of [[1, 1.5, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1]]) {
        found = [];
        for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++)
          for (const m of steps) { const v = m * 10 ** e; if (v >= low * 0.999 && v <= high * 1.001) found.push(v); }
        if (found.length <= room + 1) break;
      }
      return found;
    }
    const raw = (high - low) / Math.max(2, room), power = 10 ** Math.floor(Math.log10(raw));
    const step = power * [1, 2, 2.5, 5, 10].find((m) => m * power >= raw);
    const found = [];
    for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + step * 1e-6; v += step) found.push(+v.toPrecision(10));
    return found;
  };

  const tip = $("tip");
  const showTip = (event, text) => {
    tip.textContent = text;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.min(event.clientX + 14, innerWidth - box.width - 8) + "px";
    tip.style.top = Math.max(8, event.clientY - box.height - 12) + "px";
  };

  // lines: [{name, x: [], y: [], label(i), published}]
  const chart = (host, lines, { xlog, ylog, xlabel, ylabel, digits }) => {
    host.replaceChildren();
    const width = Math.max(300, host.clientWidth), height = Math.round(Math.min(520, Math.max(300, width * 0.5)));
    const left = 54, right = 14, top = 12, bottom = 46;
    const xs = lines.flatMap((line) => line.x), ys = lines.flatMap((line) => line.y);
    const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${ylabel} against ${xlabel}` });
    host.append(picture);
    if (!xs.length) { picture.append(svg("text", { x: left, y: 40, class: "axis" }, "nothing to show")); return; }
    const span = (values, log) => {
      let low = Math.min(...values), high = Math.max(...values);
      if (log) return [low / 1.12, high * 1.12];
      const air = (high - low || 1) * 0.05;
      return [low - air, high + air];
    };
    let [x0, x1] = span(xs, xlog), [y0, y1] = span(ys, ylog);
    if (!xlog) x0 = 0;
    const map = (v, a, b, log) => (log ? Math.log(v / a) / Math.log(b / a) : (v - a) / (b - a));
    const X = (v) => left + map(v, x0, x1, xlog) * (width - left - right);
    const Y = (v) => height - bottom - map(v, y0, y1, ylog) * (height - top - bottom);
    const short = (v) => (Math.abs(v) >= 1000 ? v.toFixed(0) : String(+v.toPrecision(4)));
    for (const v of ticks(x0, x1, xlog, Math.floor(width / 70))) {
      picture.append(svg("line", { x1: X(v), x2: X(v), y1: top, y2: height - bottom, class: "grid" }),
        svg("text", { x: X(v), y: height - bottom + 18, "text-anchor": "middle", class: "axis" }, short(v)));
    }
    for (const v of ticks(y0, y1, ylog, Math.floor(height / 48))) {
      picture.append(svg("line", { x1: left, x2: width - right, y1: Y(v), y2: Y(v), class: "grid" }),
        svg("text", { x: left - 8, y: Y(v) + 4, "text-anchor": "end", class: "axis" }, short(v)));
    }
    picture.append(svg("rect", { x: left, y: top, width: width - left - right, height: height - top - bottom, class: "frame" }),
      svg("text", { x: (left + width - right) / 2, y: height - 8, "text-anchor": "middle", class: "label" }, xlabel),
      svg("text", { x: 14, y: (top + height - bottom) / 2, "text-anchor": "middle", class: "label", transform: `rotate(-90 14 ${(top + height - bottom) / 2})` }, ylabel));
    const spots = [];
    for (const line of lines) {
      const path = svg("path", { class: "curve" + (line.published ? " published" : ""), d: line.x.map((x, i) => `${i ? "L" : "M"}${X(x).toFixed(1)} ${Y(line.y[i]).toFixed(1)}`).join("") });
      path.style.stroke = colour(line.name);
      picture.append(path);
      line.x.forEach((x, i) => {
        const dot = svg("circle", { cx: X(x).toFixed(1), cy: Y(line.y[i]).toFixed(1), r: line.published ? 2.2 : 3.6, class: "dot" });
        dot.style.fill = colour(line.name);
        picture.append(dot);
        spots.push({ x: X(x), y: Y(line.y[i]), text: `${line.name}\n${line.label(i)}`, dot });
      });
    }
    let lit = null;
    const light = (spot) => { if (lit) lit.dot.setAttribute("stroke-width", "1.5"); lit = spot; };
    picture.addEventListener("pointermove", (event) => {
      const box = picture.getBoundingClientRect(), k = width / box.width;
      const px = (event.clientX - box.left) * k, py = (event.clientY - box.top) * k;
      let best = null, near = 28 ** 2;
      for (const spot of spots) { const d = (spot.x - px) ** 2 + (spot.y - py) ** 2; if (d < near) { near = d; best = spot; } }
      if (best) { showTip(event, best.text); light(best); } else { tip.hidden = true; light(null); }
    });
    picture.addEventListener("pointerleave", () => { tip.hidden = true; });
  };

  const drawCurves = () => {
    const metric = state.metric, log = state.scale === "log";
    const lines = order.filter((name) => names().includes(name) && !state.hidden.has(name)).map((name) => {
      const c = D.curves[metric][name];
      return { name, x: c.bpp, y: c.quality, published: c.published,
        label: (i) => `${fixed(c.quality[i], facts(metric).digits)}${unit(metric)} at ${c.bpp[i].toFixed(4)} bits per pixel` + (c.settings.length ? `\n${setting(name, c.settings[i])}` : "") };
    });
    chart($("rd"), lines, { xlog: log, ylog: false, xlabel: "bits per pixel", ylabel: label(metric) + (facts(metric).unit && metric !== "ms_ssim_db" ? `, ${facts(metric).unit}` : "") });
    const legend = $("legend");
    legend.replaceChildren(...order.filter((name) => names().includes(name)).map((name) => {
      const swatch = el("span", { class: "swatch" });
      swatch.style.background = colour(name);
      return el("button", { type: "button", "aria-pressed": String(!state.hidden.has(name)), onclick: () => { state.hidden.has(name) ? state.hidden.delete(name) : state.hidden.add(name); drawCurves(); drawSpeed(); } }, swatch, name);
    }));
    $("curves-note").textContent = `Mean over ${D.images.length} images at each setting${order.length > measured.length ? "; dashed: published curves" : ""}.${new Set(D.images.map((i) => i.width * i.height)).size > 1 ? " Images differ in size, and count alike." : ""} Choose a name to hide or show its curve.`;
  };

  const speedOf = (name, key) => {
    // Megapixels per second: all pixels over the sum of the median times.
    let time = 0, pixels = 0;
    for (const p of D.points) {
      const t = p[KEY[key === "encode_s" ? "encode" : "decode"]];
      if (p[KEY.codec] === name && t && !p[KEY.matched]) { time += t[0]; pixels += D.images[p[KEY.image]].width * D.images[p[KEY.image]].height; }
    }
    return time > 0 ? pixels / 1e6 / time : null;
  };
  const speeds = Object.fromEntries(measured.map((name) => [name, { encode_s: speedOf(name, "encode_s"), decode_s: speedOf(name, "decode_s") }]));

  const drawTable = () => {
    const metric = state.metric, rows = (D.bd[metric] || {})[state.anchor];
    const body = $("bd-table");
    body.replaceChildren();
    if (!rows) { $("bd-note").textContent = "BD-rate is not defined for this metric."; return; }
    $("bd-note").textContent = `Bj\u00f8ntegaard deltas against ${state.anchor}: negative means smaller files for the same ${facts(metric).label}` + (D.limits && metric === "psnr_rgb" ? `, ${D.limits[0]} to ${D.limits[1]} dB.` : ", over the range that both curves cover.");
    const scale = facts(metric).unit ? `, ${facts(metric).unit}` : "";
    body.append(el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Codec"), el("th", { scope: "col" }, "BD-rate"), el("th", { scope: "col", class: "" }, ""), el("th", { scope: "col" }, `BD-quality${scale}`), el("th", { scope: "col" }, "Compared over"), el("th", { scope: "col" }, "Encode, MP/s"), el("th", { scope: "col" }, "Decode, MP/s"))));
    const known = order.filter((name) => rows[name]);
    known.sort((a, b) => (rows[a].bd_rate ?? Infinity) - (rows[b].bd_rate ?? Infinity));
    const widest = Math.max(10, ...known.map((name) => Math.min(200, Math.abs(rows[name].bd_rate ?? 0))));
    const tbody = el("tbody");
    for (const name of known) {
      const row = rows[name], swatch = el("span", { class: "swatch" });
      swatch.style.background = colour(name);
      const cells = [el("td", {}, swatch, ...broken("\u00a0" + name))];
      if (row.error) cells.push(el("td", { class: "barcell" }), el("td", { colspan: 3, class: "why" }, row.error));
      else {
        const rate = row.bd_rate, track = el("div", { class: "track" }), mark = el("i");
        const share = Math.min(1, Math.abs(rate) / widest) * 50;
        mark.style.width = share + "%";
        mark.style.left = (rate < 0 ? 50 - share : 50) + "%";
        mark.style.background = rate < 0 ? "var(--good)" : "var(--bad)";
        track.append(mark);
        cells.push(el("td", { class: rate < -0.05 ? "less" : rate > 0.05 ? "more" : "" }, name === state.anchor ? "anchor" : `${signed(rate)} %`), el("td", { class: "barcell" }, track),
          el("td", {}, name === state.anchor ? "" : signed(row.bd_quality, facts(metric).digits)), el("td", {}, row.range.map((v) => v.toFixed(Math.max(1, facts(metric).digits - 1))).join(" \u2013 ")));
      }
      for (const key of ["encode_s", "decode_s"]) { const v = (speeds[name] || {})[key]; cells.push(el("td", {}, v ? v.toPrecision(3) : "")); }
      tbody.append(el("tr", { class: name === state.anchor ? "anchor" : "", "data-codec": name, "data-bd": row.bd_rate }, ...cells));
    }
    body.append(tbody);
  };

  const drawSpeed = () => {
    const key = state.direction, metric = D.metrics[0];
    const lines = measured.filter((name) => D.curves[metric][name] && D.curves[metric][name][key].length && !state.hidden.has(name)).map((name) => {
      const c = D.curves[metric][name];
      return { name, x: c.bpp, y: c[key], label: (i) => `${seconds(c[key][i])} at ${c.bpp[i].toFixed(3)} bits per pixel\n${setting(name, c.settings[i])}` };
    });
    chart($("sp"), lines, { xlog: state.scale === "log", ylog: true, xlabel: "bits per pixel", ylabel: key === "encode_s" ? "seconds to encode" : "seconds to decode" });
    const run = D.runs.map((r) => `${r.threads} thread${r.threads === 1 ? "" : "s"} per codec, ${r.jobs} image${r.jobs === 1 ? "" : "s"} at a time, ${r.repeats} repeat${r.repeats === 1 ? "" : "s"}`);
    $("speed-note").textContent = `Mean over the images of the median time, after a first call that does not count: ${[...new Set(run)].join("; ")}. ` + (D.runs.some((r) => r.jobs > 1 || r.repeats < 3) ? "Several jobs at a time or few repeats: times are a rough guide only." : "");
  };

  // ---- table of everything
  const sort = { key: "bpp", up: true };
  const drawPoints = () => {
    const codec = $("t-codec").value, image = +$("t-image").value;
    let rows = D.points.filter((p) => p[KEY.image] === image && (codec === "" || p[KEY.codec] === codec));
    const value = (p) => { const v = p[KEY[sort.key]]; return Array.isArray(v) ? v[0] : v ?? Infinity; };
    rows = rows.slice().sort((a, b) => { const x = value(a), y = value(b); return (x < y ? -1 : x > y ? 1 : a[KEY.bpp] - b[KEY.bpp]) * (sort.up ? 1 : -1); });
    const columns = [["codec", "Codec"], ["setting", "Setting"], ["bytes", "Bytes"], ["bpp", "Bits per pixel"], ...D.metrics.map((m) => [m, facts(m).label]), ["encode", "Encode"], ["decode", "Decode"]];
    const head = el("tr", {}, ...columns.map(([key, label]) => el("th", { scope: "col", "aria-sort": sort.key === key ? (sort.up ? "ascending" : "descending") : undefined }, el("button", { type: "button", onclick: () => { sort.up = sort.key === key ? !sort.up : true; sort.key = key; drawPoints(); } }, label + (sort.key === key ? (sort.up ? " \u2191" : " \u2193") : "")))));
    const body = el("tbody", {}, ...rows.map((p) => el("tr", {}, ...columns.map(([key]) => {
      const v = p[KEY[key]];
      if (key === "codec") return el("td", {}, ...broken(v));
      if (key === "setting") return el("td", {}, setting(p[KEY.codec], v) + (p[KEY.matched] ? " (matched)" : ""));
      if (key === "bytes") return el("td", { "data-bytes": v }, bytes(v));
      if (key === "bpp") return el("td", {}, v.toFixed(4));
      if (key === "encode" || key === "decode") return el("td", { title: v ? `from ${seconds(v[1])} to ${seconds(v[2])}` : "" }, v ? seconds(v[0]) : "");
      return el("td", {}, v === undefined ? "" : fixed(v, facts(key).digits));
    }))));
    $("points").replaceChildren(el("thead", {}, head), body);
  };

  // ---- pictures
  const V = { image: 0, rate: 0, left: "", right: "", mode: "image", gain: 8, divider: 0.5, zoom: 1, x: 0, y: 0 };
  const loaded = new Map();
  const load = (src) => {
    if (!loaded.has(src)) {
      const image = new Image(), entry = { image, ready: false };
      image.onload = () => { entry.ready = true; drawView(); };
      image.src = src;
      loaded.set(src, entry);
    }
    return loaded.get(src);
  };
  const ORIGINAL = "original";
  const picture = () => D.pictures[V.image];
  const set = () => picture().sets[Math.min(V.rate, picture().sets.length - 1)];
  const sides = () => [ORIGINAL, ...set().shown.map((s) => s.codec)];
  const source = (name) => (name === ORIGINAL ? picture().original : (set().shown.find((s) => s.codec === name) || {}).src);
  const canvas = $("canvas"), stage = $("stage"), divider = $("divider");

  const differences = new Map();
  const pixelsOf = (image) => {
    const board = document.createElement("canvas");
    board.width = image.naturalWidth; board.height = image.naturalHeight;
    const context = board.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    return [board, context, context.getImageData(0, 0, board.width, board.height)];
  };
  const difference = (a, b, gain) => {
    const key = [V.image, V.rate, b.image.src.length, b.image.src.slice(-40), gain].join();
    if (!differences.has(key)) {
      if (differences.size > 8) differences.clear();
      const [board, context, one] = pixelsOf(a.image), [, , two] = pixelsOf(b.image);
      for (let i = 0; i < one.data.length; i++) if (i % 4 < 3) one.data[i] = Math.abs(one.data[i] - two.data[i]) * gain;
      context.putImageData(one, 0, 0);
      differences.set(key, board);
    }
    return differences.get(key);
  };

  const fit = () => { V.zoom = 1; V.x = 0; V.y = 0; };
  const geometry = () => {
    const [, , w, h] = picture().box, width = stage.clientWidth, height = stage.clientHeight;
    const base = Math.min(width / w, height / h), scale = base * V.zoom;
    const slackX = Math.max(0, (w * scale - width) / 2), slackY = Math.max(0, (h * scale - height) / 2);
    V.x = Math.min(slackX, Math.max(-slackX, V.x));
    V.y = Math.min(slackY, Math.max(-slackY, V.y));
    return { w, h, width, height, scale, left: (width - w * scale) / 2 + V.x, top: (height - h * scale) / 2 + V.y };
  };

  const info = (host, name) => {
    host.replaceChildren();
    if (name === ORIGINAL) { host.append(`${picture().size[0]} \u00d7 ${picture().size[1]} pixels`); return; }
    const s = set().shown.find((one) => one.codec === name);
    const target = set().rate, off = 100 * (s.bpp / target - 1);
    host.append(el("b", {}, `${bytes(s.bytes)} bytes`), ` \u00b7 ${s.bpp.toFixed(3)} bpp (${signed(off, 0)} %) \u00b7 `, ...D.metrics.filter((m) => s[m] !== undefined && m !== "psnr_y").slice(0, 4).flatMap((m) => [el(m === state.metric ? "b" : "span", {}, `${facts(m).label} ${fixed(s[m], facts(m).digits)}${s[m] === null ? "" : unit(m)}`), " \u00b7 "]), `${setting(name, s.setting)}`);
  };

  const drawView = () => {
    if (!D.pictures.length) return;
    const [, , w, h] = picture().box;
    stage.style.height = Math.round(Math.min(stage.clientWidth * h / w, Math.max(260, innerHeight * 0.78))) + "px";
    const g = geometry(), ratio = Math.min(3, devicePixelRatio || 1);
    canvas.width = Math.round(g.width * ratio);
    canvas.height = Math.round(g.height * ratio);
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.imageSmoothingEnabled = g.scale * ratio < 2;
    context.imageSmoothingQuality = "high";
    const cut = V.divider * g.width, original = load(picture().original);
    for (const [name, from, to] of [[V.left, 0, cut], [V.right, cut, g.width]]) {
      const src = source(name);
      if (!src) continue;
      const entry = load(src);
      if (!entry.ready || !original.ready) continue;
      context.save();
      context.beginPath();
      context.rect(from, 0, to - from, g.height);
      context.clip();
      context.drawImage(V.mode === "difference" ? difference(original, entry, V.gain) : entry.image, g.left, g.top, g.w * g.scale, g.h * g.scale);
      context.restore();
    }
    divider.style.left = cut + "px";
    divider.setAttribute("aria-valuenow", Math.round(100 * V.divider));
    $("v-zoom").textContent = V.zoom.toFixed(V.zoom < 10 ? 1 : 0).replace(/\.0$/, "") + "\u00d7";
    $("v-gain-label").hidden = V.mode !== "difference";
    stage.dataset.ready = [V.left, V.right].every((name) => loaded.get(source(name))?.ready) && original.ready ? "yes" : "no";
  };

  const options = (select, pairs, value) => {
    select.replaceChildren(...pairs.map(([v, text]) => el("option", { value: v }, text)));
    select.value = value;
  };
  const refresh = () => {
    options($("v-image"), D.pictures.map((p, i) => [i, p.image]), V.image);
    V.rate = Math.min(V.rate, picture().sets.length - 1);
    options($("v-rate"), picture().sets.map((s, i) => [i, `${s.rate} bits per pixel`]), V.rate);
    for (const side of ["left", "right"]) {
      if (!sides().includes(V[side])) V[side] = side === "left" ? sides()[Math.min(1, sides().length - 1)] : sides()[sides().length - 1];
      options($(`v-${side}`), sides().map((name) => [name, name]), V[side]);
      info($(`v-${side}-info`), V[side]);
    }
    const [x, y, w, h] = picture().box, [fw, fh] = picture().size;
    $("v-note").textContent = (w < fw || h < fh ? `Shown is the part of ${w} \u00d7 ${h} pixels from (${x}, ${y}) of ${fw} \u00d7 ${fh}. ` : "") +
      "To keep this page small, pictures were coded once more as WebP of quality 90, also before the difference was taken; all figures are of the real files. The zoom is the same on both sides.";
    drawView();
  };
  const zoomBy = (factor, cx, cy) => {
    const g = geometry(), next = Math.min(32, Math.max(1, V.zoom * factor)), k = next / V.zoom;
    const px = (cx ?? g.width / 2) - g.width / 2, py = (cy ?? g.height / 2) - g.height / 2;
    V.x = px - (px - V.x) * k; V.y = py - (py - V.y) * k; V.zoom = next;
    drawView();
  };
  const moveDivider = (to) => { V.divider = Math.min(1, Math.max(0, to)); drawView(); };
  const cycle = (side, by) => { const all = sides(), i = all.indexOf(V[side]); V[side] = all[(i + by + all.length) % all.length]; refresh(); };

  const setUpViewer = () => {
    if (!D.pictures.length) {
      $("view").hidden = true;
      $("view-empty").textContent = D.picture_notes.join(" ") || "No pictures.";
      return;
    }
    $("view-empty").textContent = D.picture_notes.join(" ");
    $("view-empty").hidden = !D.picture_notes.length;
    for (const [id, key] of [["v-image", "image"], ["v-rate", "rate"]]) $(id).addEventListener("change", (e) => { V[key] = +e.target.value; if (key === "image") fit(); refresh(); });
    for (const side of ["left", "right"]) $(`v-${side}`).addEventListener("change", (e) => { V[side] = e.target.value; refresh(); });
    $("v-gain").addEventListener("change", (e) => { V.gain = +e.target.value; drawView(); });
    $("v-mode").addEventListener("change", (e) => { V.mode = e.target.value; drawView(); });
    $("v-in").addEventListener("click", () => zoomBy(1.5));
    $("v-out").addEventListener("click", () => zoomBy(1 / 1.5));
    $("v-fit").addEventListener("click", () => { fit(); drawView(); });
    const pointers = new Map();
    let dragging = false, pinch = 0;
    const local = (event) => { const box = stage.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
    stage.addEventListener("pointerdown", (event) => {
      dragging = divider.contains(event.target);
      stage.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, local(event));
      if (dragging) divider.focus({ preventScroll: true }); else stage.focus({ preventScroll: true });
      event.preventDefault();
    });
    stage.addEventListener("pointermove", (event) => {
      if (!pointers.has(event.pointerId)) return;
      const before = pointers.get(event.pointerId), now = local(event);
      pointers.set(event.pointerId, now);
      if (dragging) { moveDivider(now[0] / stage.clientWidth); return; }
      if (pointers.size === 2) {
        const [a, b] = [...pointers.values()], apart = Math.hypot(a[0] - b[0], a[1] - b[1]);
        if (pinch) zoomBy(apart / pinch, (a[0] + b[0]) / 2, (a[1] + b[1]) / 2);
        pinch = apart;
        return;
      }
      V.x += now[0] - before[0]; V.y += now[1] - before[1];
      drawView();
    });
    const release = (event) => { pointers.delete(event.pointerId); pinch = 0; if (!pointers.size) dragging = false; };
    stage.addEventListener("pointerup", release);
    stage.addEventListener("pointercancel", release);
    stage.addEventListener("wheel", (event) => { event.preventDefault(); const [x, y] = local(event); zoomBy(Math.exp(-event.deltaY / 300), x, y); }, { passive: false });
    stage.addEventListener("dblclick", (event) => { if (V.zoom > 1) { fit(); drawView(); } else { const [x, y] = local(event); zoomBy(4, x, y); } });
    stage.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const step = event.shiftKey ? 0.1 : 0.02, count = D.pictures.length;
      const actions = {
        ArrowLeft: () => moveDivider(V.divider - step), ArrowRight: () => moveDivider(V.divider + step), Home: () => moveDivider(0), End: () => moveDivider(1),
        "+": () => zoomBy(1.5), "=": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5), 0: () => { fit(); drawView(); },
        ",": () => cycle("left", -1), ".": () => cycle("left", 1), "[": () => cycle("right", -1), "]": () => cycle("right", 1),
        n: () => { V.image = (V.image + 1) % count; fit(); refresh(); }, p: () => { V.image = (V.image + count - 1) % count; fit(); refresh(); },
        r: () => { V.rate = (V.rate + 1) % picture().sets.length; refresh(); },
        d: () => { V.mode = V.mode === "image" ? "difference" : "image"; document.querySelector(`input[name=mode][value=${V.mode}]`).checked = true; drawView(); },
      };
      const action = actions[event.key];
      if (action) { event.preventDefault(); action(); }
    });
    // The first look is at what people know beside what they came for.
    V.left = measured.includes("jpeg") && sides().includes("jpeg") ? "jpeg" : sides()[Math.min(1, sides().length - 1)];
    V.right = sides().includes("latens") ? "latens" : sides()[sides().length - 1];
    V.rate = 0;
    refresh();
  };

  // ---- method, flags
  const flag = (text, items = []) => { const box = el("div", { class: "flag" }, text); if (items.length) box.append(el("ul", {}, ...items.map((item) => el("li", {}, item)))); $("flags").append(box); };
  const about = () => {
    $("title").textContent = D.title;
    const sizes = [...new Set(D.images.map((i) => `${i.width} \u00d7 ${i.height}`))];
    $("subtitle").textContent = `${D.images.length} images, ${sizes.length > 3 ? "mixed sizes" : sizes.join(" and ")} \u00b7 ${measured.length} codecs \u00b7 ${bytes(D.points.length)} coded files`;
    if (D.machines.length > 1) flag("These results come from different machines: rates and qualities can be compared, times cannot.", D.machines);
    const skipped = Object.entries(D.skipped);
    if (skipped.length) flag("Codecs that were skipped:", skipped.map(([name, why]) => `${name}: ${why}`));
    const absent = Object.entries(D.absent);
    if (absent.length) flag("Measures that could not be had, of some images at least:", absent.map(([name, why]) => `${name}: ${why}`));
    const unread = Object.entries(D.unreadable);
    if (unread.length) flag("Images that could not be read:", unread.map(([name, why]) => `${name}: ${why}`));
    const failed = new Map();
    for (const f of D.failures) {
      const key = `${f.codec}: ${f.reason}`;
      failed.set(key, [...(failed.get(key) || []), `${f.image} at ${setting(f.codec, f.setting)}`]);
    }
    const kinds = [...failed].map(([key, places]) => `${key} (${places.slice(0, 3).join(", ")}${places.length > 3 ? ` and ${places.length - 3} more` : ""})`);
    if (kinds.length > 20) kinds.splice(20, kinds.length, `and ${kinds.length - 20} other kinds`);
    if (D.failures.length) flag(`${D.failures.length} measurements failed:`, kinds);
    const host = $("method");
    host.append(el("p", { class: "note" }, "Every point is a real file: written, counted in bytes with all its headers, decoded again and compared with the original as 8-bit RGB. PSNR has one error over all samples of the three channels; luma is BT.709. Curves are means over the images of bits per pixel and of the measure at each setting. Bj\u00f8ntegaard deltas use Akima interpolation over log rate."));
    host.append(el("h3", {}, "Codecs"));
    for (const [name, c] of Object.entries(D.codecs)) {
      const list = el("dl");
      const given = Object.entries(c.options || {}).map(([k, v]) => `${k}=${v}`).join(", ");
      for (const [key, text] of [["version", c.version], ["options", given || "none"], ["colour", c.colour], ["times", c.timing]]) list.append(el("dt", {}, key), el("dd", {}, text ?? ""));
      const swatch = el("span", { class: "swatch" });
      swatch.style.background = colour(name);
      host.append(el("h3", {}, swatch, " " + name), list);
    }
    host.append(el("h3", {}, "Runs"));
    D.runs.forEach((run) => {
      const list = el("dl");
      const pairs = [["machine", Object.values(run.machine || {}).join(", ")], ["versions", Object.entries(run.versions || {}).map(([k, v]) => `${k} ${v}`).join(", ")], ["command", run.command], ["started", run.started]];
      for (const [key, text] of pairs) list.append(el("dt", {}, key), el("dd", {}, text ?? ""));
      host.append(list, el("br"));
    });
    $("foot").textContent = `Made by ${D.made}. Nothing on this page was loaded from elsewhere.`;
  };

  const draw = () => { drawCurves(); drawTable(); drawSpeed(); };
  const main = () => {
    let theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    const paint = () => { document.documentElement.dataset.theme = theme; };
    paint();
    $("theme").addEventListener("click", () => { theme = theme === "dark" ? "light" : "dark"; paint(); });
    about();
    state.anchor = ["vtm", "jpeg"].find((name) => names().includes(name)) || names()[0] || "";
    options($("metric"), D.metrics.map((m) => [m, label(m)]), state.metric);
    const anchors = () => options($("anchor"), order.filter((name) => names().includes(name)).map((name) => [name, name]), state.anchor);
    anchors();
    $("metric").addEventListener("change", (e) => { state.metric = e.target.value; if (!names().includes(state.anchor)) state.anchor = names()[0]; anchors(); draw(); });
    $("anchor").addEventListener("change", (e) => { state.anchor = e.target.value; drawTable(); });
    document.querySelector(`input[name=scale][value=${state.scale}]`).checked = true;
    $("scale").addEventListener("change", (e) => { state.scale = e.target.value; drawCurves(); drawSpeed(); });
    $("direction").addEventListener("change", (e) => { state.direction = e.target.value; drawSpeed(); });
    options($("t-image"), D.images.map((image, i) => [i, image.name]), 0);
    options($("t-codec"), [["", "all"], ...measured.map((name) => [name, name])], "");
    $("t-image").addEventListener("change", drawPoints);
    $("t-codec").addEventListener("change", drawPoints);
    draw();
    drawPoints();
    setUpViewer();
    let waiting = 0;
    addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(() => { drawCurves(); drawSpeed(); drawView(); }, 80); });
    document.documentElement.dataset.ready = "yes";
  };
  main();
})();
