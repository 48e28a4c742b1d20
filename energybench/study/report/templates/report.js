// Sorting and filtering of tables. Without it the page is the same, in the order in which it was made.
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const key = (row, index) => {
    const cell = row.cells[index];
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    return cell.querySelector(".absent") ? null : cell.textContent.trim();
  };
  const compare = (a, b) => {
    if (a === null || b === null) return a === b ? 0 : a === null ? 1 : -1;
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), "en", { numeric: true });
  };
  heads.forEach((head, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      rows.sort((one, other) => {
        const a = key(one, index), b = key(other, index);
        const order = compare(a, b);
        return down && a !== null && b !== null ? -order : order;
      });
      body.append(...rows);
    });
  });
  const line = document.createElement("p");
  line.className = "filter";
  const label = document.createElement("label");
  label.textContent = "Show rows with ";
  const input = document.createElement("input");
  input.type = "search";
  input.placeholder = "batch=64 ok";
  label.append(input);
  const count = document.createElement("span");
  count.setAttribute("role", "status");
  line.append(label, count);
  table.parentElement.before(line);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += row.hidden ? 0 : 1;
    }
    count.textContent = words.length ? `${shown} of ${rows.length} rows` : "";
  });
}
