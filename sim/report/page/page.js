"use strict";
(() => {
  const { data, make } = report;
  const byId = (id) => document.getElementById(id);
  const state = { box: null, groups: null, sort: "gain", up: false, all: false };
  const MOST_ROWS = 200;

  const number = (value, digits = 3) =>
    value === null || value === undefined ? "–" : Number.isInteger(value) ? value.toLocaleString("en") : value.toFixed(digits);
  const signed = (value) => (value === null || value === undefined ? "–" : (value > 0 ? "+" : "") + value.toFixed(3));

  const draw = () => report.draw((name, view) => {
    if (name !== "gains") return;
    view.addSignalListener(data.brush, (_, box) => {
      const along = box && (box.ratio ?? box.kept);
      state.box = along && box.gain ? { along, gain: box.gain } : null;
      fill();
    });
  });

  const inside = (value, [low, high]) => value !== null && value >= Math.min(low, high) && value <= Math.max(low, high);
  const chosen = () =>
    data.users.filter((user) =>
      (!state.groups || state.groups.has(user.group)) &&
      (!state.box || (inside(user.place, state.box.along) && inside(user.gain, state.box.gain))));

  const columns = () => [
    ["user", "User", (u) => u.user], ["group", "Group", (u) => u.group ?? "–"],
    ["allowed", "May share", (u) => number(u.allowed, 2)], ["records", "Records", (u) => number(u.records)],
    ["shared", "Shared", (u) => number(u.shared)], ["kept", "Kept pairs", (u) => number(u.kept)],
    ...(data.contrast ? [["gain", `Gain, ${data.contrast.join(" over ")}`, (u) => signed(u.gain)]] : []),
    ...data.arms.map((arm) => [`score:${arm}`, arm, (u) => number(u.scores[arm])]),
  ];
  const valueOf = (user, key) => (key.startsWith("score:") ? user.scores[key.slice(6)] : user[key]);
  const compare = (a, b) => {
    if (a === null || a === undefined) return 1;
    if (b === null || b === undefined) return -1;
    const order = typeof a === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
    return state.up ? order : -order;
  };

  const fill = () => {
    const users = chosen().sort((a, b) => compare(valueOf(a, state.sort), valueOf(b, state.sort)));
    const heads = make("tr");
    for (const [key, title] of columns()) {
      const head = make("th", null, { scope: "col" });
      if (key === state.sort) head.setAttribute("aria-sort", state.up ? "ascending" : "descending");
      const button = make("button", title + (key === state.sort ? (state.up ? " ▲" : " ▼") : ""), { type: "button" });
      button.addEventListener("click", () => {
        state.up = state.sort === key ? !state.up : key === "user" || key === "group";
        state.sort = key;
        fill();
      });
      head.append(button);
      heads.append(head);
    }
    byId("user-table").tHead.replaceChildren(heads);
    const shown = state.all ? users : users.slice(0, MOST_ROWS);
    byId("user-table").tBodies[0].replaceChildren(...shown.map(row));
    byId("more").hidden = shown.length === users.length;
    const gains = users.map((user) => user.gain).filter((gain) => gain !== null && gain !== undefined);
    const mean = gains.reduce((sum, gain) => sum + gain, 0) / Math.max(1, gains.length);
    const [better, worse] = [gains.filter((g) => g > 0).length, gains.filter((g) => g < 0).length];
    const all = users.length === data.users.length;
    const head = all ? `All ${users.length} users` : `${users.length} of ${data.users.length} users chosen`;
    const counts = `: mean gain ${signed(mean)}, ${better} better, ${worse} worse, ${gains.length - better - worse} the same.`;
    byId("chosen").textContent = head + (gains.length ? counts : ".") + (all ? "" : " Chosen after looking: a lead, no finding.");
  };

  const row = (user) => {
    const line = make("tr");
    for (const [key, , show] of columns()) {
      const cell = make(key === "user" ? "th" : "td", key === "user" ? null : show(user));
      if (key === "user") {
        cell.scope = "row";
        const button = make("button", user.user, { type: "button" });
        button.addEventListener("click", () => open(user));
        cell.append(button);
      } else if (key !== "group") cell.className = "n";
      line.append(cell);
    }
    return line;
  };

  const rows = (title, pairs) => {
    const part = make("div");
    part.append(make("h4", title));
    const table = make("table");
    for (const cells of pairs) {
      const line = make("tr");
      cells.forEach((text, place) => line.append(place ? make("td", text, { class: "n" }) : make("th", text, { scope: "row" })));
      table.append(line);
    }
    part.append(table);
    return part;
  };

  const sparkline = (curve) => {
    const losses = curve.filter((loss) => loss !== null);
    const [low, high] = [Math.min(...losses), Math.max(...losses)];
    const points = losses.map((loss, place) =>
      `${(place / Math.max(1, losses.length - 1)) * 118 + 1},${23 - ((loss - low) / (high - low || 1)) * 22}`);
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 120 24"); svg.setAttribute("width", "120"); svg.setAttribute("height", "24");
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", `loss from ${losses[0]} to ${losses[losses.length - 1]}`);
    const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
    line.setAttribute("points", points.join(" ")); line.setAttribute("fill", "none"); line.setAttribute("stroke", "currentColor");
    svg.append(line);
    return svg;
  };

  const open = (user) => {
    const place = byId("user");
    const parts = make("div", null, { class: "parts" });
    parts.append(rows("Policy and records", [
      ["Privacy group", user.group ?? "–"], ["May share", number(user.allowed, 2)], ["Records", number(user.records)],
      ["Shared", number(user.shared)], ["Scored queries", number(user.queries)], ["Failed in", user.failed.join(", ") || "nothing"]]));
    parts.append(rows(data.metric, data.arms.map((arm) => [arm, number(user.scores[arm])])));
    for (const [arm, counts] of Object.entries(user.rejected))
      parts.append(rows(`Candidates, ${arm}`, Object.entries(counts).map(([reason, count]) => [reason.replaceAll("_", " "), number(count)])));
    parts.append(rows("Messages", Object.entries(user.wire).map(([way, [bytes, count]]) => [
      way === "up" ? "device to server" : "server to device", `${count} messages, ${bytes.toLocaleString("en")} bytes`])));
    if (Object.keys(user.losses).length) {
      const losses = make("div");
      losses.append(make("h4", "Training loss"));
      for (const [arm, curve] of Object.entries(user.losses)) {
        const line = make("p", `${arm}: ${number(curve[0])} → ${number(curve[curve.length - 1])} `);
        line.append(sparkline(curve));
        losses.append(line);
      }
      parts.append(losses);
    }
    const close = make("button", "Close", { type: "button" });
    close.addEventListener("click", () => { place.hidden = true; });
    place.replaceChildren(make("h3", `User ${user.user}`), parts);
    if (user.texts.length) {
      const texts = make("details");
      texts.append(make("summary", `${user.texts.length} answers in words`));
      for (const each of user.texts) {
        texts.append(make("p", `${each.arm}, query ${each.query}, score ${number(each.score)}`));
        texts.append(make("blockquote", each.text), make("p", `gold: ${each.gold}`, { class: "note" }));
      }
      place.append(texts);
    }
    place.append(close);
    place.hidden = false;
    place.scrollIntoView({ block: "nearest" });
  };

  const groups = [...new Set(data.users.map((user) => user.group).filter(Boolean))].sort();
  if (groups.length > 1) {
    for (const group of groups) {
      const label = make("label");
      const box = make("input", null, { type: "checkbox", value: group });
      box.checked = true;
      box.addEventListener("change", () => {
        const on = [...document.querySelectorAll("#groups input:checked")].map((each) => each.value);
        state.groups = on.length === groups.length ? null : new Set(on);
        fill();
      });
      label.append(box, ` ${group}`);
      byId("groups").append(label);
    }
  } else { byId("groups").remove(); byId("by-group")?.remove(); }
  byId("clear").addEventListener("click", () => {
    state.groups = state.box = null;
    for (const box of document.querySelectorAll("#groups input")) box.checked = true;
    draw();
    fill();
  });
  byId("more").addEventListener("click", () => { state.all = true; fill(); });
  byId("csv").addEventListener("click", () => {
    const quote = (text) => `"${String(text ?? "").replaceAll('"', '""')}"`;
    const lines = [columns().map(([key]) => quote(key)), ...chosen().map((user) => columns().map(([key]) => quote(valueOf(user, key))))];
    const url = URL.createObjectURL(new Blob([lines.map((line) => line.join(",")).join("\n") + "\n"], { type: "text/csv" }));
    report.save("users.csv", url);
    URL.revokeObjectURL(url);
  });
  // The filters in their order (Eq. 2 to 4), over scores that were stored: a recount as one moves.
  const thresholds = () => {
    const { scores, generated, of, thresholds: given } = data.candidates;
    const names = ["consistency at least", "ROUGE-L at most", "length at least", "length at most"];
    const inputs = names.map((name, place) => {
      const label = make("label", `${name} `);
      const shown = make("output", String(given[place]));
      const input = make("input", null, { type: "range", min: 0, max: place < 2 ? 1 : 3, step: 0.01 });
      input.value = given[place];
      input.addEventListener("input", () => { shown.textContent = input.value; recount(); });
      label.append(shown, input);
      byId("sliders").append(label);
      return input;
    });
    const kept = (limits) => {
      const gates = [(s) => s[0] >= limits[0], (s) => s[1] <= limits[1], (s) => s[2] >= limits[2] && s[2] <= limits[3]];
      let left = scores;
      return gates.map((gate) => { left = left.filter(gate); return left.length; });
    };
    const percent = (count) => `${((100 * count) / generated).toFixed(1)} %`;
    const before = kept(given)[2];
    const recount = () => {
      const [scf, tdf, lsf] = kept(inputs.map((input) => Number(input.value)));
      const part = generated < of ? ` (drawn from ${of.toLocaleString("en")})` : "";
      byId("recount").textContent =
        `Of ${number(generated)} candidates${part} ${number(scores.length)} can be read, ${number(scf)} are consistent, ${number(tdf)} of these ` +
        `diverse, ${number(lsf)} of these of a fitting length: ${percent(lsf)} kept; ${percent(before)} by the run's thresholds.`;
    };
    byId("thresholds").hidden = byId("to-thresholds").hidden = false;
    recount();
  };
  if (data.candidates) thresholds();
  addEventListener("beforeprint", () => { state.all = true; fill(); });
  report.onTheme(() => { state.box = null; draw(); fill(); });
  draw();
  fill();
})();
