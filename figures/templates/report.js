"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const first = (selector, within = document) => within.querySelector(selector);

  /* Tables that are sorted by the column whose head is pressed, and by it the other way round when pressed again. */
  const key = (row, column) => {
    const cell = row.cells[column];
    const number = Number.parseFloat(cell.dataset.value ?? "");
    return { number, text: cell.textContent };
  };
  const compare = (a, b) => {
    if (Number.isNaN(a.number) && Number.isNaN(b.number)) return a.text.localeCompare(b.text, "en", { numeric: true });
    return a.number - b.number;
  };
  const sort = (table, head) => {
    const down = head.getAttribute("aria-sort") === "ascending";
    const column = head.cellIndex;
    all("thead th", table).forEach((each) => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => ({ row, key: key(row, column) }));
    const numbers = rows.some(({ key }) => !Number.isNaN(key.number));
    const missing = ({ key }) => numbers && Number.isNaN(key.number);
    rows.sort((a, b) => missing(a) - missing(b) || (down ? compare(b.key, a.key) : compare(a.key, b.key)));
    body.append(...rows.map(({ row }) => row));
  };
  const makeSortable = (table) => {
    all("thead th", table).forEach((head) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      button.addEventListener("click", () => sort(table, head));
      head.append(button);
    });
  };

  /* Matrices: which stage and which networks are shown, and the cell that is pointed at, for all networks. */
  const filter = (group) => {
    const stage = first("input[type=radio]:checked", group).value;
    const hidden = all("input[type=checkbox]:not(:checked)", group).map((box) => box.value);
    all(".stage", group).forEach((each) => each.classList.toggle("off", stage !== "" && each.dataset.stage !== stage));
    all(".network", group).forEach((each) => each.classList.toggle("off", hidden.includes(each.dataset.network)));
  };
  const place = (cell) => [cell.parentElement.rowIndex, cell.cellIndex];
  const twins = (group, cell) => {
    const [row, column] = place(cell);
    const stage = cell.closest("table").dataset.stage;
    return all(`table.matrix[data-stage="${stage}"]`, group)
      .map((table) => table.rows[row]?.cells[column])
      .filter((twin) => twin?.dataset.value !== undefined);
  };
  const value = (cell) => {
    const mark = cell.dataset.mark ? `, ${cell.dataset.mark}` : "";
    return `${Number(cell.dataset.value).toPrecision(3)}${mark}`;
  };
  const line = (cell, cells) => {
    const { network } = cell.closest("table").dataset;
    const copies = cells.filter((other) => other.closest("table").matches(`[data-kind="untrained"]`));
    const copy = copies.find((other) => other.closest("table").dataset.network === network);
    return `${network}: ${value(cell)}${copy ? ` (untrained ${value(copy)})` : ""}`;
  };
  const show = (group, cell) => {
    const table = cell.closest("table");
    const [row, column] = place(cell);
    const layer = table.rows[row].cells[0];
    const other = table.rows[0].cells[column];
    const named = (head) => `${head.textContent} (${head.title})`;
    const found = twins(group, cell);
    all(".twin", group).forEach((each) => each.classList.remove("twin"));
    found.forEach((twin) => twin.classList.add("twin"));
    const title = `Stage ${table.dataset.stage}: layer ${named(layer)} ${group.dataset.relation} ${named(other)}`;
    const own = found.filter((twin) => !twin.closest("table").matches(`[data-kind="untrained"]`));
    const lines = own.length ? own.map((twin) => line(twin, found)) : ["no number"];
    first(".readout", group).textContent = [title, ...lines].join("\n");
  };
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const next = (table, cell, pressed) => {
    const cells = all("td:not(.none)", cell.parentElement);
    if (pressed === "Home") return cells[0];
    if (pressed === "End") return cells.at(-1);
    const [down, right] = steps[pressed] ?? [0, 0];
    const [row, column] = place(cell);
    const found = down || right ? table.rows[row + down]?.cells[column + right] : undefined;
    return found?.matches("td:not(.none)") ? found : undefined;
  };
  const focus = (table, cell) => {
    all("td[tabindex]", table).forEach((each) => each.setAttribute("tabindex", "-1"));
    cell.setAttribute("tabindex", "0");
    cell.focus();
  };
  const makeGrid = (group, table) => {
    table.setAttribute("role", "grid");
    all("td:not(.none)", table).forEach((cell, i) => cell.setAttribute("tabindex", i ? "-1" : "0"));
    const react = ({ target }) => target.matches("td:not(.none)") && show(group, target);
    table.addEventListener("mouseover", react);
    table.addEventListener("focusin", react);
    table.addEventListener("click", ({ target }) => target.matches("td:not(.none)") && focus(table, target));
    table.addEventListener("keydown", (event) => {
      const cell = event.target.matches("td") ? next(table, event.target, event.key) : undefined;
      if (!cell) return;
      event.preventDefault();
      focus(table, cell);
    });
  };

  all("table.sortable").forEach(makeSortable);
  all(".matrices").forEach((group) => {
    all("[hidden]", group).forEach((each) => each.removeAttribute("hidden"));
    all("table.matrix", group).forEach((table) => makeGrid(group, table));
    first(".controls", group).addEventListener("change", () => filter(group));
    filter(group);
  });
})();
